"""S2: which member gets which job, and who waits, beside a model that looks at everybody each time."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from workerbus.pool._least_loaded import LeastLoaded

Job = tuple[int, int]
"""A job: its number, and its priority."""


def balancer(concurrency: int = 1, closed: set[str] | None = None) -> LeastLoaded[Job, str]:
    shut: set[str] = set() if closed is None else closed
    return LeastLoaded(concurrency, lambda member: member not in shut, lambda job: job[1])


def test_a_job_goes_to_the_member_that_has_the_fewest() -> None:
    """S2."""
    places = balancer(3)
    for member in ("a", "b"):
        places.join(member)
    jobs = [(n, 0) for n in range(6)]
    for job in jobs:
        assert places.stand(job)
        assert abs(places.load_of("a") - places.load_of("b")) <= 1
    assert not places.stand((6, 0))
    of_a = [job for job in jobs if places.member_of(job) == "a"]
    for job in of_a[:2]:
        places.leave(job)
    assert (places.load_of("a"), places.load_of("b")) == (2, 3)  # one of the two places was taken by the one in line


def test_who_has_fewer_is_found_whoever_else_has_got_a_free_place_since() -> None:
    """S2."""
    places = balancer(3)
    places.join("a")
    places.join("b")
    jobs = [(n, 0) for n in range(6)]
    for job in jobs:
        assert places.stand(job)
    for job in [job for job in jobs if places.member_of(job) == "b"][:2]:
        places.leave(job)
    places.leave(next(job for job in jobs if job in places.holders and places.member_of(job) == "a"))
    assert (places.load_of("a"), places.load_of("b")) == (2, 1)
    assert places.stand((6, 0))
    assert places.member_of((6, 0)) == "b"


def test_jobs_wait_in_the_order_of_arrival_and_the_highest_priority_goes_first() -> None:
    """S2."""
    places = balancer()
    places.join("a")
    assert places.stand((0, 0))
    for job in [(1, 0), (2, 5), (3, 0), (4, 5), (5, -1)]:
        assert not places.stand(job)
    assert places.line == [(2, 5), (4, 5), (1, 0), (3, 0), (5, -1)]
    order, current = [], (0, 0)
    while (following := places.leave(current)) is not None:
        order.append(following)
        current = following
    assert order == [(2, 5), (4, 5), (1, 0), (3, 0), (5, -1)]


def test_a_member_that_has_left_and_joins_again_keeps_its_jobs() -> None:
    """S2."""
    places = balancer(2)
    places.join("a")
    assert places.stand((0, 0))
    places.leave_out("a")
    assert not places.stand((1, 0))
    places.join("a")
    assert places.load_of("a") == 1
    assert places.following() == (1, 0)
    assert not places.stand((2, 0))  # its two places are taken


class Model:
    """The same, by looking at all members and all jobs each time."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.members: list[str] = []
        self.closed: set[str] = set()
        self.held: dict[Job, str] = {}
        self.line: list[Job] = []

    def load(self, member: str) -> int:
        return sum(1 for holder in self.held.values() if holder == member)

    def best(self) -> set[str]:
        free = [each for each in self.members if each not in self.closed and self.load(each) < self.concurrency]
        least = min(map(self.load, free), default=0)
        return {each for each in free if self.load(each) == least}

    def first(self) -> Job | None:
        return max(self.line, key=lambda job: (job[1], -job[0]), default=None)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("stand"), st.integers(-1, 1)),
        st.tuples(st.sampled_from(["finish", "withdraw"]), st.integers(0, 50)),
        st.tuples(st.sampled_from(["join", "leave", "close"]), st.integers(0, 3)),
    ),
    min_size=15,
    max_size=60,
)


@example(1, [*(("join", n) for n in range(4)), ("close", 3), ("close", 2), ("close", 1), ("stand", 0), ("stand", 0)])
@given(st.integers(1, 3), ACTIONS)
@settings(max_examples=60)
def test_the_balancer_does_what_the_model_says(concurrency: int, actions: list[tuple[str, int]]) -> None:
    """S2: least loaded, in order, nobody waits while there is room, and nobody is lost."""
    model = Model(concurrency)
    places = balancer(concurrency, model.closed)
    number = 0

    def took(job: Job, allowed: set[str]) -> None:
        member = places.member_of(job)
        assert member in allowed
        model.held[job] = member

    def given_out(job: Job | None) -> None:
        allowed, first = model.best(), model.first()
        if not allowed or first is None:
            assert job is None
        else:
            assert job == first
            model.line.remove(first)
            took(first, allowed)

    for action, value in actions:
        if action == "stand":
            job, number = (number, value), number + 1
            allowed = set() if model.line else model.best()
            if places.stand(job):
                took(job, allowed)
            else:
                assert not allowed
                model.line.append(job)
        elif action == "finish" and model.held:
            job = sorted(model.held)[value % len(model.held)]
            del model.held[job]
            given_out(places.leave(job))
        elif action == "withdraw" and model.line:
            job = model.line.pop(value % len(model.line))
            assert places.leave(job) is None
        elif action in ("join", "leave", "close"):
            change(places, model, action, "abcd"[value])
            while model.line and model.best():
                given_out(places.following())
        assert places.waiting == len(model.line)
        assert places.line == sorted(model.line, key=lambda job: (-job[1], job[0]))
        assert {job: places.member_of(job) for job in places.holders} == model.held
        assert all(places.load_of(member) == model.load(member) for member in "abcd")
        assert all(load or member in places.members for member, load in places._loads.items())  # nothing is kept
        assert all(places.waits(job) for job in model.line)
        assert not any(places.waits(job) for job in model.held)


def change(places: LeastLoaded[Job, Any], model: Model, action: str, member: str) -> None:
    if action == "join":
        model.closed.discard(member)
        places.join(member)
        if member not in model.members:
            model.members.append(member)
    elif action == "leave":
        places.leave_out(member)
        model.members = [each for each in model.members if each != member]
    else:
        model.closed.add(member)
