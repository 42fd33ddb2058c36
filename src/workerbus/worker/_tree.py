"""A worker's parent and children: who may be a child of whom (R3, W5).

The tasks of children run beside their parent's, not below it. That children finish first is ensured by the parent's
lifecycle and wind-down, which ask here for those that have not. All else that a worker is, the subclass `WorkerState`
knows.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from workerbus.errors import NameTakenError, NotRunningError, ParentError


class TreeNode(ABC):
    """One worker's place in the tree.

    Args:
        name: The worker's name.

    Attributes:
        name: As given.
        parent: The worker's parent, if it has one.
        watched: Whether the parent wants to know when this worker is ready.
        child_left: Called when a child of this worker has finished, or is a child no more.
    """

    __slots__ = ("_children", "child_left", "name", "parent", "watched")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.parent: Self | None = None
        # Not a dict: a look for its first or last entry passes over all that were removed there.
        self._children: OrderedDict[str, Self] | None = None  # most workers never have any
        self.watched: bool = True
        self.child_left: Callable[[], None] = _nobody_minds

    @property
    @abstractmethod
    def takes_children(self) -> bool:
        """Whether children that are added now could still finish before this worker does."""

    @property
    @abstractmethod
    def is_unstarted(self) -> bool:
        """Whether nobody has begun to start the worker."""

    @property
    @abstractmethod
    def is_unfinished(self) -> bool:
        """Whether the worker was started and has not finished."""

    @abstractmethod
    def check_name(self, child: Self) -> None:
        """Raise if this worker's runner cannot host a child."""

    @property
    def children(self) -> list[Self]:
        """The children that were added and have not finished, the first added first."""
        return [] if self._children is None else list(self._children.values())

    def has_child(self, name: str) -> bool:
        """Whether a child of this name was added and has not finished."""
        return self._children is not None and name in self._children

    def adopt(self, nodes: Sequence[Self], *, watch: bool) -> list[Self]:
        """Make workers children of this one, all or none.

        Returns:
            Those that were no children of this worker before.

        Raises:
            ParentError: A worker has another parent, is this worker, is above it, or was started before.
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
            raise ParentError(
                child.name, f"it is a child of {child.parent.name!r}, and has one parent: make another object"
            )
        above: Self | None = self
        while above is not None:
            if above is child:
                raise ParentError(child.name, f"it would be its own ancestor, since {self.name!r} is below it")
            above = above.parent
        other = None if self._children is None else self._children.get(child.name)
        if other is child:
            return False
        self.check_takes(child)
        if not child.is_unstarted:
            raise ParentError(child.name, "a runner has it already, or has run it: make another object")
        if other is not None:
            raise NameTakenError(child.name, f"the children of {self.name!r}")
        self.check_name(child)
        return True

    def check_takes(self, child: Self) -> None:
        """Raise `NotRunningError` where a child that is added now could not finish before this worker does."""
        if not self.takes_children:
            raise NotRunningError(f"worker {self.name!r} is ending: {child.name!r} could not finish before it")

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
        """Be a child no more: this worker has finished, or was not added, and its parent need not wait for it."""
        parent = self.parent
        if parent is not None:
            parent.remove(self)
            parent.child_left()

    def remove(self, child: "TreeNode") -> None:
        """Forget a child."""
        if self._children is not None and self._children.get(child.name) is child:
            del self._children[child.name]

    def disown(self) -> None:
        """Have no parent any more: this worker was not added after all, and another may adopt it."""
        self.leave_parent()
        self.parent = None


def _nobody_minds() -> None:
    """Do nothing: what is called before the worker is put together."""
