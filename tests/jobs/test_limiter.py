"""J13: who has a place, and who waits in line for one."""

from hypothesis import given
from hypothesis import strategies as st

from workerbus.jobs._limiter import Limiter

STEPS = st.lists(st.none() | st.integers(0, 30), max_size=40)
"""None stands in line; a number lets somebody leave, who may have left before."""


@given(limit=st.integers(1, 4), steps=STEPS)
def test_the_first_in_line_have_the_places(limit: int, steps: list[int | None]) -> None:
    """J13: after whatever came and went, those and no others; and each is named once, when its turn comes."""
    limiter: Limiter[int] = Limiter(limit)
    begun: list[int] = []
    gone: set[int] = set()
    count = 0
    for step in steps:
        if step is None:
            if limiter.stand(count):
                begun.append(count)
            count += 1
        elif count:
            following = limiter.leave(step % count)
            if following is not None:
                begun.append(following)
            gone.add(step % count)
        here = [number for number in range(count) if number not in gone]
        assert list(limiter.holders) == here[:limit]
        assert limiter.line == here[limit:]
        assert [number for number in here if limiter.waits(number)] == here[limit:]
    assert begun == sorted(set(begun))
    assert set(limiter.holders) <= set(begun)


def test_a_place_is_given_before_its_new_owner_runs() -> None:
    """J13: the order is that of arrival, not of the scheduler."""
    limiter: Limiter[str] = Limiter(1)
    assert limiter.stand("first")
    assert not limiter.stand("second")
    assert limiter.leave("first") == "second"
    assert not limiter.stand("third")
    assert list(limiter.holders) == ["second"]
    assert limiter.line == ["third"]


class Compared:
    """Counts how often one is compared with another."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Compared.comparisons += 1
        return self is other

    def __hash__(self) -> int:
        return id(self)


def test_nobody_is_looked_at_when_another_leaves_the_line() -> None:
    """R9: leaving costs the same whoever waits."""
    limiter: Limiter[Compared] = Limiter(1)
    everybody = [Compared() for _ in range(1_000)]
    for each in everybody:
        limiter.stand(each)
    Compared.comparisons = 0
    for each in [*everybody[:500:-1], *everybody[:500]]:
        limiter.leave(each)
    assert list(limiter.holders) == [everybody[500]]
    assert Compared.comparisons < 100  # two of the same hash, now and then
