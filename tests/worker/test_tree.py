"""W5, R9: what it costs to be one of many children."""

from typing import Any, cast

import pytest

from workerbus.worker._tree import TreeNode
from workerbus.worker._types import Phase


class State:
    """A worker's state, as a tree sees it, that counts how often anybody looks at one of its kind."""

    looks = 0
    runner = None
    takes_children = True
    worker = None

    def __init__(self, name: str) -> None:
        self._name = name
        self._phase = Phase.NEW
        self.admitted = False

    @property
    def name(self) -> str:
        State.looks += 1
        return self._name

    @property
    def phase(self) -> Phase:
        State.looks += 1
        return self._phase


class Member:
    """A worker's place in a tree."""

    def __init__(self, name: str) -> None:
        self.state = State(name)
        self.node = TreeNode(cast(Any, self.state), self._look)
        self.over = False

    def _look(self) -> None:
        """A child has left: is there another?"""
        self.over = not self.node.has_unfinished


def looks_per_child(count: int, order: int) -> float:
    """How often a tree of so many is looked at while it comes and goes, for each of them."""
    parent = Member("parent")
    children = [Member(f"child {number}") for number in range(count)]
    nodes = [child.node for child in children]
    State.looks = 0
    for child in children:
        parent.node.adopt([child.node], watch=False)
        child.state.admitted = True
    looks = State.looks
    assert parent.node.adopt([nodes[0]], watch=False) == []
    assert parent.node.children == nodes
    assert parent.node.unfinished() == nodes[::-1]
    State.looks = looks
    for child in children[::order]:
        assert not parent.over
        child.state._phase = Phase.FINISHED
        child.node.leave()
    assert parent.over
    assert parent.node.children == []
    return State.looks / count


@pytest.mark.parametrize("order", [1, -1])
def test_a_child_costs_its_parent_the_same_however_many_there_are(order: int) -> None:
    """R9: to come and to go, whichever goes first."""
    assert looks_per_child(1_000, order) <= looks_per_child(10, order) + 1
