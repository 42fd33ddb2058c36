"""A worker's parent and children: who may be whose, and who waits for whom (W5).

The tasks of children hang beside their parent's, not below it. That they finish first is kept by the life of the
parent, which asks here for those that have not.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from workerbus._worker_life import WorkerLife
from workerbus._worker_types import Phase
from workerbus.abc import RunnerLike, Sender
from workerbus.errors import NameTakenError, NotRunningError, ParentError
from workerbus.messages import BusAddWorkerMessage


class Relative(Protocol):
    """What a family knows of each worker in it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def bus(self) -> Sender:
        """Its bus."""

    @property
    def life(self) -> WorkerLife:
        """Its life."""

    @property
    def family(self) -> "Family":
        """Its own family."""

    @property
    def runner(self) -> RunnerLike | None:
        """Its runner, once it has one."""

    async def watch(self, name: str) -> None:
        """Let it know when a worker of that name gets ready."""


class Family:
    """The relatives of one worker.

    Args:
        worker: Whose.

    Attributes:
        parent: Its parent, if it has one.
        watched: Whether its parent wants to know when it is ready.
    """

    __slots__ = ("_children", "_worker", "parent", "watched")

    def __init__(self, worker: Relative) -> None:
        self._worker = worker
        self.parent: Relative | None = None
        # Not a dict, which would look at all that have left for the first of those that have not.
        self._children: OrderedDict[str, Relative] | None = None  # most workers never have any
        self.watched: bool = True

    @property
    def children(self) -> "list[Relative]":
        """Those that were added and have not finished, the first added first."""
        return [] if self._children is None else list(self._children.values())

    def adopt(self, workers: "tuple[Relative, ...]", *, watch: bool) -> "list[Relative]":
        """Make workers children, all or none; returns those that are new.

        Raises:
            ParentError: A worker has another parent, is this worker, or is above it.
            NameTakenError: Another worker has its name.
            NotRunningError: This worker, or its runner, is ending.
        """
        fresh: dict[str, Relative] = {}
        for child in workers:
            if self._is_new(child) and fresh.setdefault(child.name, child) is not child:
                raise NameTakenError(child.name, "this call")
        if self._children is None:
            self._children = OrderedDict()
        for child in fresh.values():
            child.family.parent = self._worker
            child.family.watched = watch
            self._children[child.name] = child
        return list(fresh.values())

    def _is_new(self, child: Relative) -> bool:
        parent = child.family.parent
        if parent is not None and parent is not self._worker:
            raise ParentError(child.name, f"it is a child of {parent.name!r}")
        above: Relative | None = self._worker
        while above is not None:
            if above is child:
                raise ParentError(child.name, "it would be its own ancestor")
            above = above.family.parent
        namesake = None if self._children is None else self._children.get(child.name)
        if namesake is child:
            return False
        worker = self._worker
        if not worker.life.takes_children:
            raise NotRunningError(f"worker {worker.name!r} is ending: {child.name!r} could not finish before it")
        if child.life.phase is not Phase.NEW or child.life.admitted:
            raise ParentError(child.name, "it has been started already")
        if namesake is not None:
            raise NameTakenError(child.name, f"the children of {worker.name!r}")
        if worker.runner is not None:
            worker.runner.check_new(child)
        return True

    async def start(self, child: Relative) -> None:
        """Have a child started by the runner; returns when it is attached, and raises what went wrong."""
        worker = self._worker
        if child.life.admitted or worker.runner is None:
            return
        worker.runner.check_new(child)
        if child.family.watched:
            await worker.watch(child.name)
        child.life.attaching()
        await worker.bus.send(BusAddWorkerMessage(child, source=worker.name, target=worker.runner.name))
        await child.life.until_attached()

    async def start_new(self, children: "list[Relative]") -> None:
        """Have children started, one after the other; those that it does not get to are children no more."""
        try:
            for child in children:
                await self.start(child)
        except BaseException:
            for child in children:
                if not child.life.admitted:
                    child.family.disown()
            raise

    def unfinished(self) -> "list[Relative]":
        """The children that were started and have not finished, the last added first."""
        return list(self._unfinished())

    @property
    def has_unfinished(self) -> bool:
        """Whether there are such children."""
        return next(self._unfinished(), None) is not None

    def _unfinished(self) -> "Iterator[Relative]":
        if self._children is None:
            return
        for child in reversed(self._children.values()):
            if child.life.admitted and child.life.phase is not Phase.FINISHED:
                yield child

    def leave(self) -> None:
        """This worker has finished, or could not be added: its parent need not wait for it any more."""
        parent = self.parent
        if parent is not None:
            parent.family.remove(self._worker)
            parent.life.finish_if_over()

    def remove(self, child: Relative) -> None:
        """Have a child no more."""
        if self._children is not None and self._children.get(child.name) is child:
            del self._children[child.name]

    def disown(self) -> None:
        """This worker has not been added after all, and is free for another parent."""
        self.leave()
        self.parent = None
