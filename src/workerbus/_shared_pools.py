"""Which pools share a name, in several processes, and which of them is the least busy (S2).

A pool that shares its name has one of its own as well, by which it is found and asked like any worker. Whoever asks the
shared name for a job chooses one of them: that with the smallest part of its places taken. How many are taken each one
announces now and then; what was asked of it from here since then is added. So nobody has to know all, and a choice that
is not the best is put right with the next announcement.

Knows nothing of messages, and decides nothing but that.
"""

import math

from workerbus._values import WorkerReadyData


class _Instance:
    """One of the pools that share a name.

    Attributes:
        data: What is known of it.
        places: How many jobs it does at once; 0 where it takes none now.
        taken: How many jobs it has, as it has announced.
        asked: How many were asked of it from here since then.
        turn: When it was last chosen, as a number that grows with each choice.
    """

    __slots__ = ("asked", "data", "places", "taken", "turn")

    def __init__(self, data: WorkerReadyData) -> None:
        self.data = data
        self.places: int = data.places or 0
        self.taken: int = 0
        self.asked: int = 0
        self.turn: int = 0

    @property
    def load(self) -> float:
        """Which part of its places is taken; more than 1 where jobs wait, and infinite where there are none."""
        return (self.taken + self.asked) / self.places if self.places else math.inf


class SharedPools:
    """The pools that share names, by these names.

    Args:
        runner_name: The name of the runner whose own pool is chosen among equals.
    """

    __slots__ = ("_pools", "_runner_name", "_turn")

    def __init__(self, runner_name: str) -> None:
        self._runner_name = runner_name
        self._pools: dict[str, dict[str, _Instance]] = {}
        self._turn = 0

    def add(self, data: WorkerReadyData) -> None:
        """Note a pool that is ready, if it shares a name."""
        if data.pool is not None:
            self._pools.setdefault(data.pool, {}).setdefault(data.worker_name, _Instance(data)).data = data

    def remove(self, data: WorkerReadyData) -> None:
        """Note that a pool is there no more."""
        instances = self._pools.get(data.pool or "")
        if instances is not None and data.worker_name in instances:
            del instances[data.worker_name]
            if not instances:
                del self._pools[data.pool or ""]

    def note_load(self, data: WorkerReadyData, places: int, taken: int) -> None:
        """Note how busy a pool is, as it has announced."""
        instance = self._pools.get(data.pool or "", {}).get(data.worker_name)
        if instance is not None:
            instance.places, instance.taken, instance.asked = places, taken, 0

    def __contains__(self, name: object) -> bool:
        return name in self._pools

    @property
    def names(self) -> list[str]:
        """The names that pools share."""
        return list(self._pools)

    def get(self, name: str) -> WorkerReadyData | None:
        """Return one of the pools that share a name, if any does."""
        instances = self._pools.get(name)
        return next(iter(instances.values())).data if instances else None

    def choose(self, name: str) -> WorkerReadyData | None:
        """Return the pool that is to do the next job for a shared name, and note that it is asked; None if none is."""
        instances = self._pools.get(name)
        if not instances:
            return None
        chosen = min(instances.values(), key=self._preference)
        self._turn += 1
        chosen.turn = self._turn
        chosen.asked += 1
        return chosen.data

    def _preference(self, instance: _Instance) -> tuple[float, bool, int]:
        return instance.load, instance.data.runner != self._runner_name, instance.turn

    def places(self, name: str) -> int:
        """Return how many jobs all who share a name do at once."""
        return sum(instance.places for instance in self._pools.get(name, {}).values())
