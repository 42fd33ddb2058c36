"""A worker's parent and children: who may be whose (W5).

The tasks of children hang beside their parent's, not below it. That they finish first is kept by the parent's
lifecycle, which asks here for those that have not. What a node is besides, a subclass says: see `WorkerState`.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from workerbus.errors import NameTakenError, NotRunningError, ParentError


class TreeNode(ABC):
    """One worker's place in the tree.

    Args:
        name: Its name.

    Attributes:
        name: As given.
        parent: Its parent, if it has one.
        watched: Whether its parent wants to know when it is ready.
        child_left: Called when a child has finished, or is a child no more.
    """

    __slots__ = ("_children", "child_left", "name", "parent", "watched")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.parent: Self | None = None
        # Not a dict, which would look at all that have left for the first of those that have not.
        self._children: OrderedDict[str, Self] | None = None  # most workers never have any
        self.watched: bool = True
        self.child_left: Callable[[], None] = _nobody_minds

    @property
    @abstractmethod
    def takes_children(self) -> bool:
        """Whether children could still finish before this worker does."""

    @property
    @abstractmethod
    def is_unstarted(self) -> bool:
        """Whether nobody has begun to start it."""

    @property
    @abstractmethod
    def is_unfinished(self) -> bool:
        """Whether it was started and has not finished."""

    @abstractmethod
    def check_name(self, child: Self) -> None:
        """Raise where the runner cannot take a child (R3)."""

    @property
    def children(self) -> list[Self]:
        """Those that were added and have not finished, the first added first."""
        return [] if self._children is None else list(self._children.values())

    def adopt(self, nodes: Sequence[Self], *, watch: bool) -> list[Self]:
        """Make workers children, all or none; returns those that are new.

        Raises:
            ParentError: A worker has another parent, is this worker, or is above it.
            NameTakenError: Another worker has its name.
            NotRunningError: This worker, or its runner, is ending.
        """
        fresh: dict[str, Self] = {}
        for child in nodes:
            if self._is_new(child) and fresh.setdefault(child.name, child) is not child:
                raise NameTakenError(child.name, "this call")
        for child in fresh.values():
            child.parent, child.watched = self, watch
        if self._children is None:
            self._children = OrderedDict()
        self._children.update(fresh)
        return list(fresh.values())

    def _is_new(self, child: Self) -> bool:
        if child.parent is not None and child.parent is not self:
            raise ParentError(child.name, f"it is a child of {child.parent.name!r}")
        above: Self | None = self
        while above is not None:
            if above is child:
                raise ParentError(child.name, "it would be its own ancestor")
            above = above.parent
        other = None if self._children is None else self._children.get(child.name)
        if other is child:
            return False
        if not self.takes_children:
            raise NotRunningError(f"worker {self.name!r} is ending: {child.name!r} could not finish before it")
        if not child.is_unstarted:
            raise ParentError(child.name, "it has been started already")
        if other is not None:
            raise NameTakenError(child.name, f"the children of {self.name!r}")
        self.check_name(child)
        return True

    def unfinished(self) -> list[Self]:
        """The children that were started and have not finished, the last added first."""
        return list(self._unfinished())

    @property
    def has_unfinished(self) -> bool:
        """Whether a child was started and has not finished."""
        return next(self._unfinished(), None) is not None

    def _unfinished(self) -> Iterator[Self]:
        if self._children is None:
            return
        for child in reversed(self._children.values()):
            if child.is_unfinished:
                yield child

    def leave_parent(self) -> None:
        """This worker has finished, or could not be added: its parent need not wait for it any more."""
        parent = self.parent
        if parent is not None:
            parent.remove(self)
            parent.child_left()

    def remove(self, child: "TreeNode") -> None:
        """Have a child no more."""
        if self._children is not None and self._children.get(child.name) is child:
            del self._children[child.name]

    def disown(self) -> None:
        """This worker has not been added after all, and is free for another parent."""
        self.leave_parent()
        self.parent = None


def _nobody_minds() -> None:
    """Before the worker is put together."""
