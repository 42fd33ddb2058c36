"""A worker's parent and children: who may be whose (W5).

The tasks of children hang beside their parent's, not below it. That they finish first is kept by the parent's
lifecycle, which asks here for those that have not.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from workerbus.errors import NameTakenError, NotRunningError, ParentError
from workerbus.worker._state import WorkerState
from workerbus.worker._types import Phase


class TreeNode:
    """One worker's place in the tree.

    Args:
        state: The worker's.
        child_left: Called when a child has finished, or is a child no more.

    Attributes:
        parent: Its parent, if it has one.
        watched: Whether its parent wants to know when it is ready.
        child_left: As given.
    """

    __slots__ = ("_children", "child_left", "parent", "state", "watched")

    def __init__(self, state: WorkerState, child_left: Callable[[], None]) -> None:
        self.state: WorkerState = state
        self.child_left: Callable[[], None] = child_left
        self.parent: TreeNode | None = None
        # Not a dict, which would look at all that have left for the first of those that have not.
        self._children: OrderedDict[str, TreeNode] | None = None  # most workers never have any
        self.watched: bool = True

    @property
    def children(self) -> "list[TreeNode]":
        """Those that were added and have not finished, the first added first."""
        return [] if self._children is None else list(self._children.values())

    def adopt(self, nodes: "Sequence[TreeNode]", *, watch: bool) -> "list[TreeNode]":
        """Make workers children, all or none; returns those that are new.

        Raises:
            ParentError: A worker has another parent, is this worker, or is above it.
            NameTakenError: Another worker has its name.
            NotRunningError: This worker, or its runner, is ending.
        """
        fresh: dict[str, TreeNode] = {}
        for child in nodes:
            if self._is_new(child) and fresh.setdefault(child.state.name, child) is not child:
                raise NameTakenError(child.state.name, "this call")
        for child in fresh.values():
            child.parent, child.watched = self, watch
        if self._children is None:
            self._children = OrderedDict()
        self._children.update(fresh)
        return list(fresh.values())

    def _is_new(self, child: "TreeNode") -> bool:
        mine, its = self.state, child.state
        if child.parent is not None and child.parent is not self:
            raise ParentError(its.name, f"it is a child of {child.parent.state.name!r}")
        above: TreeNode | None = self
        while above is not None:
            if above is child:
                raise ParentError(its.name, "it would be its own ancestor")
            above = above.parent
        other = None if self._children is None else self._children.get(its.name)
        if other is child:
            return False
        if not mine.takes_children:
            raise NotRunningError(f"worker {mine.name!r} is ending: {its.name!r} could not finish before it")
        if its.phase is not Phase.NEW or its.admitted:
            raise ParentError(its.name, "it has been started already")
        if other is not None:
            raise NameTakenError(its.name, f"the children of {mine.name!r}")
        if mine.runner is not None:
            mine.runner.check_new(its.worker)
        return True

    def unfinished(self) -> "list[TreeNode]":
        """The children that were started and have not finished, the last added first."""
        return list(self._unfinished())

    @property
    def has_unfinished(self) -> bool:
        """Whether a child was started and has not finished."""
        return next(self._unfinished(), None) is not None

    def _unfinished(self) -> "Iterator[TreeNode]":
        if self._children is None:
            return
        for child in reversed(self._children.values()):
            if child.state.admitted and child.state.phase is not Phase.FINISHED:
                yield child

    def leave(self) -> None:
        """This worker has finished, or could not be added: its parent need not wait for it any more."""
        parent = self.parent
        if parent is not None:
            parent.remove(self)
            parent.child_left()

    def remove(self, child: "TreeNode") -> None:
        """Have a child no more."""
        if self._children is not None and self._children.get(child.state.name) is child:
            del self._children[child.state.name]

    def disown(self) -> None:
        """This worker has not been added after all, and is free for another parent."""
        self.leave()
        self.parent = None
