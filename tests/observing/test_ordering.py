"""L8, O7: what came before what, where clocks do not agree, beside a reference that looks at all that is left."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbus.observing._ordering import in_order
from workerbus.observing._stories import Step
from workerbus.runner._notes import Note

PLACES = st.sampled_from("abc")
KINDS = st.sampled_from(["update", "chunk"])


@st.composite
def told(draw: st.DrawFn) -> tuple[list[Step], list[Step]]:
    """Messages of a job that were sent and have arrived, each told of by its place, whose clock is its own."""
    sent: list[Step] = []
    arrivals: list[Step] = []
    for number in range(draw(st.integers(1, 9))):
        note = Note(draw(st.integers(0, 5)), draw(KINDS), "1", draw(PLACES), None, None)
        (arrivals if draw(st.booleans()) else sent).append(Step(number, draw(PLACES), note))
    return sent, arrivals


def reference(sent: list[Step], arrivals: list[Step]) -> list[tuple[float, Step]]:
    """Next is the first by its time of all whose causes are over; the n-th arrival is of the n-th message alike."""
    events = sorted([*sent, *arrivals])
    causes: dict[int, set[int]] = {}
    arrived: Counter[tuple[str, str]] = Counter()
    for step in events:
        before = [each.number for each in events if each.place == step.place and each.number < step.number]
        causes[step.number] = set(before[-1:])
        if step in arrivals:
            key = (step.note.kind, step.note.source)
            alike = [each for each in sorted(sent) if (each.note.kind, each.note.source) == key]
            if arrived[key] < len(alike):
                causes[step.number].add(alike[arrived[key]].number)
                arrived[key] += 1
    left = {step.number: step for step in events}
    ordered: list[tuple[float, Step]] = []
    now = float("-inf")
    while left:
        ready = [step for step in left.values() if not causes[step.number] & left.keys()] or list(left.values())
        step = left.pop(min(ready, key=lambda each: (each.note.at, each.number)).number)
        now = max(now, step.note.at)
        if step in sent:
            ordered.append((now, step))
    return ordered


@given(steps=told())
def test_messages_are_in_the_order_of_their_causes_and_else_of_their_times(
    steps: tuple[list[Step], list[Step]],
) -> None:
    """L8, O7: whatever the clocks of the places say."""
    assert in_order(*steps) == reference(*steps)


@pytest.mark.parametrize("early", [1, 2])
def test_of_two_alike_the_first_to_arrive_is_the_first_that_was_sent(early: int) -> None:
    """L8, O7: what came between both arrivals may have come before the second one was sent."""
    first, second = (Step(n, "a", Note(at, "update", "1", "w", "me", None)) for n, at in ((0, 1.0), (1, 9.0)))
    arrived = [Step(n, "b", Note(1.0, "update", "1", "w", "me", None)) for n in (2, 4)]
    between = Step(3, "b", Note(float(early), "asked", "2", "me", "v", None))
    assert [step for _, step in in_order([first, second, between], arrived)] == [first, between, second]
