"""W5, R9: what it costs to be one of many children."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from workerbus._worker_family import Family
from workerbus._worker_types import Phase


class Member:
    """A worker, as its family sees it, that counts how often anybody looks at one of its kind."""

    looks = 0
    runner = None

    def __init__(self, name: str) -> None:
        self._name = name
        self.family: Family = Family(cast(Any, self))
        self._life = SimpleNamespace(phase=Phase.NEW, admitted=False, takes_children=True, finish_if_over=self._look)
        self.over = False

    @property
    def name(self) -> str:
        Member.looks += 1
        return self._name

    @property
    def life(self) -> Any:
        Member.looks += 1
        return self._life

    def __eq__(self, other: object) -> bool:
        Member.looks += 1
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def _look(self) -> None:
        """A child has left: is there another?"""
        self.over = not self.family.has_unfinished


def looks_per_child(count: int, order: int) -> float:
    """How often a family of so many is looked at while it comes and goes, for each of them."""
    parent = Member("parent")
    children: list[Any] = [Member(f"child {number}") for number in range(count)]
    Member.looks = 0
    for child in children:
        parent.family.adopt((child,), watch=False)
        child._life.admitted = True
    looks = Member.looks
    assert parent.family.adopt((children[0],), watch=False) == []
    assert list(map(id, parent.family.children)) == list(map(id, children))
    assert list(map(id, parent.family.unfinished())) == list(map(id, children[::-1]))
    Member.looks = looks
    for child in children[::order]:
        assert not parent.over
        child._life.phase = Phase.FINISHED
        child.family.leave()
    assert parent.over
    assert parent.family.children == []
    return Member.looks / count


@pytest.mark.parametrize("order", [1, -1])
def test_a_child_costs_its_parent_the_same_however_many_there_are(order: int) -> None:
    """R9: to come and to go, whichever goes first."""
    assert looks_per_child(1_000, order) <= looks_per_child(10, order) + 1
