"""Who has which name: a runner's own worker, or that of another runner, and of several of these the first (G4, R9).

A name is unique on a bus. Runners that did not know of each other may have claimed the same one all the same; then no
claim is forgotten, as one of them ends before the other.
"""

from workerbus._values import WorkerReadyData


class Claims:
    """The workers of a runner, and those of others, by name."""

    def __init__(self) -> None:
        self._local: dict[str, WorkerReadyData] = {}
        self._remote: dict[str, WorkerReadyData] = {}
        # Further claims to a name that is among the remote ones: nearly no name has any, so most need no table for it.
        self._rivals: dict[str, dict[str, WorkerReadyData]] = {}

    def _claim_here(self, data: WorkerReadyData) -> list[WorkerReadyData]:
        """Note a worker of this runner; return the claims of other runners to its name, if it is new here."""
        name = data.worker_name
        if name in self._local:
            return []
        self._local[name] = data
        others = [self._remote[name]] if name in self._remote else []
        return [*others, *self._rivals.get(name, {}).values()]

    def _claim(self, data: WorkerReadyData) -> list[WorkerReadyData]:
        """Note a worker of another runner; return it, if that is new."""
        name, runner = data.worker_name, data.runner
        first = self._remote.get(name)
        if first is None:
            self._remote[name] = data
        elif first.runner == runner or runner in self._rivals.get(name, {}):
            return []
        else:
            self._rivals.setdefault(name, {})[runner] = data
        return [data]

    def _first(self, name: str, runner: str) -> WorkerReadyData:
        """Return a worker of another runner as it was first noted: that is the one which will leave."""
        data = self._remote[name]
        return data if data.runner == runner else self._rivals[name][runner]

    def _give_up(self, name: str, runner: str) -> WorkerReadyData | None:
        """Forget a worker of another runner; of further claims to its name, the first takes its place."""
        rivals = self._rivals.get(name, {})
        data = self._remote.get(name)
        if data is None or data.runner != runner:
            data = rivals.pop(runner, None)
        elif rivals:
            self._remote[name] = rivals.pop(next(iter(rivals)))
        else:
            del self._remote[name]
        if not rivals:
            self._rivals.pop(name, None)
        return data
