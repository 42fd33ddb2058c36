"""A worker's parent and children: who may be whose (W5).

The tasks of children hang beside their parent's, not below it. That they finish first is kept by the parent's
lifecycle, which asks here for those that have not.
"""

from collections.abc import Callable, Sequence

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
        children: Those that were added and have not finished, by name.
        watched: Whether its parent wants to know when it is ready.
        child_left: As given.
    """

    __slots__ = ("child_left", "children", "parent", "state", "watched")

    def __init__(self, state: WorkerState, child_left: Callable[[], None]) -> None:
        self.state: WorkerState = state
        self.child_left: Callable[[], None] = child_left
        self.parent: TreeNode | None = None
        self.children: dict[str, TreeNode] = {}
        self.watched: bool = True

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
        self.children.update(fresh)
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
        other = self.children.get(its.name)
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
        return [
            child
            for child in reversed(self.children.values())
            if child.state.admitted and child.state.phase is not Phase.FINISHED
        ]

    @property
    def has_unfinished(self) -> bool:
        """Whether a child was started and has not finished."""
        return any(each.state.admitted and each.state.phase is not Phase.FINISHED for each in self.children.values())

    def leave(self) -> None:
        """This worker has finished, or could not be added: its parent need not wait for it any more."""
        parent = self.parent
        if parent is not None:
            if parent.children.get(self.state.name) is self:
                del parent.children[self.state.name]
            parent.child_left()

    def disown(self) -> None:
        """This worker has not been added after all, and is free for another parent."""
        self.leave()
        self.parent = None
