"""Which workers have failed, and of what, by their names (J4, R9).

A name is in it from when its last worker has failed until there is another one, or the runner that had it has ended. Of
very many, the last ones are remembered.
"""

from collections import OrderedDict
from typing import Final

from workerbus._values import WorkerGoneData

REMEMBERED_FAILURES: Final = 1_000
"""Of how many names it is remembered that their last worker has failed."""


class FailedWorkers:
    """The workers that have failed, as far as that is of interest."""

    __slots__ = ("_failed", "_of_runner")

    def __init__(self) -> None:
        # Not a dict: finding the first entry of one takes a look at each that was forgotten before it.
        self._failed: OrderedDict[str, WorkerGoneData] = OrderedDict()
        self._of_runner: dict[str, dict[str, WorkerGoneData]] = {}

    def add(self, data: WorkerGoneData) -> None:
        """Remember that a worker has failed."""
        self.forget(data.worker_name)
        self._failed[data.worker_name] = data
        self._of_runner.setdefault(data.runner, {})[data.worker_name] = data
        if len(self._failed) > REMEMBERED_FAILURES:
            self.forget(next(iter(self._failed)))

    def get(self, worker_name: str) -> WorkerGoneData | None:
        """Return what is known of a worker of that name that has failed; None where there is nothing."""
        return self._failed.get(worker_name)

    def forget(self, worker_name: str) -> None:
        """Forget that a worker has failed: another one takes its place."""
        data = self._failed.pop(worker_name, None) if self._failed else None
        if data is not None:
            names = self._of_runner[data.runner]
            del names[worker_name]
            if not names:
                del self._of_runner[data.runner]

    def of(self, runner: str) -> list[WorkerGoneData]:
        """Return the workers of a runner that have failed."""
        return list(self._of_runner.get(runner, {}).values())

    def forget_runner(self, runner: str) -> None:
        """Forget the workers of a runner."""
        for data in self.of(runner):
            self.forget(data.worker_name)

    def clear(self) -> None:
        """Forget all."""
        self._failed.clear()
        self._of_runner.clear()
