"""W5, R9: what it costs to be one of many children."""

from typing import Self

import pytest

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
        """There is no runner."""

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
