"""W5, R9: who may be whose child, and what it costs to be one of many."""

from typing import Self

import pytest

from workerbus import NameTakenError, NotRunningError, ParentError
from workerbus.worker._tree import TreeNode


class Member(TreeNode):
    """A place in the tree, that counts how often anybody looks at one of its kind."""

    looks = 0
    takes_children = True
    is_unstarted = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.started = False
        self.child_left = self._look
        self.over = False

    @property
    def is_unfinished(self) -> bool:
        Member.looks += 1
        return self.started

    def check_name(self, child: Self) -> None:
        """There is no runner, but one name that it would refuse."""
        if child.name == "refused":
            raise NameTakenError(child.name, "the runner")

    def _look(self) -> None:
        """A child has left: is there another?"""
        self.over = not self.has_unfinished


def looks_per_child(count: int, order: int) -> float:
    """How often a tree of so many is looked at while it comes and goes, for each of them."""
    parent = Member("parent")
    children = [Member(f"child {number}") for number in range(count)]
    Member.looks = 0
    for child in children:
        parent.adopt([child], watch=False)
        child.started = True
    looks = Member.looks
    assert parent.adopt([children[0]], watch=False) == []
    assert parent.children == children
    assert parent.unfinished() == children[::-1]
    Member.looks = looks
    for child in children[::order]:
        assert not parent.over
        child.started = False
        child.leave_parent()
    assert parent.over
    assert parent.children == []
    return Member.looks / count


@pytest.mark.parametrize("order", [1, -1])
def test_a_child_costs_its_parent_the_same_however_many_there_are(order: int) -> None:
    """R9: to come and to go, whichever goes first."""
    assert looks_per_child(1_000, order) <= looks_per_child(10, order) + 1


def test_a_child_of_somebody_else_is_refused() -> None:
    """W5: by its name, and with its parent's."""
    parent, other, child = Member("parent"), Member("other"), Member("child")
    other.adopt([child], watch=True)
    with pytest.raises(ParentError, match="'child' cannot be added as a child: it is a child of 'other'") as caught:
        parent.adopt([child], watch=True)
    assert caught.value.name == "child"
    assert (child.parent, parent.children) == (other, [])


def test_nobody_becomes_its_own_ancestor() -> None:
    """W5"""
    top, middle, low = Member("top"), Member("middle"), Member("low")
    top.adopt([middle], watch=True)
    middle.adopt([low], watch=True)
    for node in (top, middle, low):
        with pytest.raises(ParentError, match=r"it would be its own ancestor|it is a child of"):
            low.adopt([node], watch=True)
    with pytest.raises(ParentError, match="'top' cannot be added as a child: it would be its own") as caught:
        low.adopt([top], watch=True)
    assert caught.value.name == "top"
    assert low.children == []


def test_what_has_been_started_becomes_nobodys_child() -> None:
    """W5"""
    parent, child = Member("parent"), Member("child")
    child.is_unstarted = False
    with pytest.raises(
        ParentError,
        match=r"'child' cannot be added as a child: a runner has it already, or has run it: make another",
    ) as caught:
        parent.adopt([child], watch=True)
    assert caught.value.name == "child"
    assert (child.parent, parent.children) == (None, [])


def test_nobody_becomes_a_child_of_a_parent_that_ends() -> None:
    """W5: the error names both."""
    parent, child = Member("parent"), Member("child")
    parent.takes_children = False
    with pytest.raises(NotRunningError, match="worker 'parent' is ending: 'child' could not finish before it"):
        parent.adopt([child], watch=True)
    assert (child.parent, parent.children) == (None, [])


def test_a_name_is_taken_by_another_child_by_one_of_the_same_call_and_by_what_the_runner_says() -> None:
    """R3, W5: the error says where, and nobody is a child that was not before."""
    parent, child = Member("parent"), Member("child")
    parent.adopt([child], watch=False)
    first, again, refused = Member("twice"), Member("twice"), Member("refused")
    for nodes, name, where in (
        ([first, Member("child")], "child", "the children of 'parent'"),
        ([first, again], "twice", "this call"),
        ([first, refused], "refused", "the runner"),
    ):
        with pytest.raises(NameTakenError, match=f"the name '{name}' is taken on {where}: ") as caught:
            parent.adopt(nodes, watch=False)
        assert caught.value.name == name
        assert parent.children == [child]
        assert (first.parent, refused.parent) == (None, None)
