"""What befalls a message: plans of faults, and what is drawn from them."""

import pytest
from anyio import create_task_group, sleep
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from support.messages import Alarm, Note, alarm, note
from support.networks import Script, laws, network, play, scripts, seeds
from workerbus import MemoryBus
from workerbus.testing import Faults, run
from workerbus.testing.buses._faults import Fate
from workerbus.testing.buses._network import Network
from workerbus.testing.strategies import fault_plans


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("lose", 1.5, r"lose is a probability, from 0 to 1, not 1\.5"),
        ("duplicate", -0.1, r"duplicate is a probability"),
        ("split", float("nan"), r"split is a probability"),
        ("delay", -1, r"delay must be seconds.*not -1"),
        ("delay", (2.0, 1.0), r"delay must be seconds.*\(2\.0, 1\.0\)"),
        ("delay", float("inf"), r"delay must be seconds, finite"),
        ("split_seconds", (-1.0, 1.0), r"split_seconds must be seconds"),
    ],
)
def test_a_plan_that_is_out_of_range_is_refused(field: str, value: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Faults(**{field: value})  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("lose", "often", r"lose is a probability, a number from 0 to 1, not 'often'"),
        ("lose", True, r"lose is a probability"),
        ("delay", "long", r"delay is a number of seconds, or a range \(least, most\) of them, not 'long'"),
        ("delay", True, r"delay is a number of seconds"),
        ("delay", (1.0,), r"delay is a number of seconds"),
        ("spare", 3, r"spare is a function of a message, or None, not 3"),
    ],
)
def test_a_plan_of_the_wrong_kind_is_refused(field: str, value: object, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Faults(**{field: value})  # type: ignore[arg-type]  # the point of the test


def test_a_number_of_seconds_is_the_most_that_is_drawn() -> None:
    assert Faults(delay=2.0).delay == (0.0, 2.0)
    assert Faults(delay=(1.0, 2.0)).delay == (1.0, 2.0)


@given(seed=seeds, number=st.integers(1, 100))
def test_a_draw_is_the_same_again_and_one_probability_does_not_change_the_others(seed: int, number: int) -> None:
    message = note(1)
    plan = Faults(delay=(1.0, 2.0), duplicate=0.5)
    fate = plan.draw(message, seed, "a", number)
    assert fate == plan.draw(message, seed, "a", number)
    assert all(1.0 <= delay <= 2.0 for delay in fate.delays)
    assert (
        fate.delays
        == Faults(delay=(1.0, 2.0), duplicate=0.5, lose=1.0, split=1.0).draw(message, seed, "a", number).delays
    )


def drawn_parts(fate: Fate) -> dict[str, object]:
    """What each field of a plan has decided."""
    return {"lose": fate.lost, "duplicate": len(fate.delays), "delay": fate.delays[0], "split": fate.split}


often = fault_plans(max_probability=1.0)


@given(often, often, st.sets(st.sampled_from(["lose", "duplicate", "delay", "split"])), seeds)
def test_what_one_field_of_a_plan_decides_does_not_depend_on_the_others(
    plan: Faults, other: Faults, taken: set[str], seed: int
) -> None:
    """Whatever of one plan is put into another one draws the same as where it came from."""
    names = {"split": ("split", "split_seconds")}
    mixed = evolve(other, **{name: getattr(plan, name) for part in taken for name in names.get(part, (part,))})
    for number in range(20):
        of_plan, of_other, of_both = (each.draw(note(1), seed, "left/me", number) for each in (plan, other, mixed))
        for part, value in drawn_parts(of_both).items():
            assert value == drawn_parts(of_plan if part in taken else of_other)[part], part
        delays = (of_plan if "delay" in taken else of_other).delays
        assert of_both.delays[: len(delays)] == delays[: len(of_both.delays)]


def test_what_is_spared_is_drawn_no_fault_for() -> None:
    plan = Faults(lose=1.0, spare=lambda message: isinstance(message, Alarm))
    assert plan.draw(note(1), 0, "a", 1).lost
    assert not plan.draw(alarm(1), 0, "a", 1).lost


def test_who_is_spared_changes_nothing_for_the_others() -> None:
    """A message is drawn for by which of its sender's it is, the spared ones included."""
    all_drawn, some_spared = Faults(delay=1.0), Faults(delay=1.0, spare=lambda message: getattr(message, "n") % 2)  # noqa: B009 - of a note
    one, other = Network(MemoryBus(), 7, all_drawn), Network(MemoryBus(), 7, some_spared)
    drawn = [(one.fate("left", note(n)), other.fate("left", note(n))) for n in range(6)]
    assert all(mine == its for mine, its in drawn[::2])
    assert all(its.delays == (0.0,) for _, its in drawn[1::2])


SENDERS = (("left", "a"), ("left", "b"), ("right", "a"), ("right", "b"))


@given(st.lists(st.sampled_from(SENDERS), max_size=30), seeds)
def test_what_befalls_a_sender_s_messages_does_not_depend_on_who_else_sends(
    sends: list[tuple[str, str]], seed: int
) -> None:
    """At this end or at another one: a draw is for the how manieth message of the sender at its end."""
    plan = Faults(delay=1.0, duplicate=0.5, lose=0.5)
    together = Network(MemoryBus(), seed, plan)
    alone = {each: Network(MemoryBus(), seed, plan) for each in SENDERS}
    for end, source in sends:
        message = note(1, source=source)
        assert together.fate(end, message) == alone[end, source].fate(end, message)


def test_each_copy_of_a_doubled_message_has_a_delay_of_its_own() -> None:
    faults = Faults(delay=1.0, duplicate=1.0)
    fates = [faults.draw(note(1), 7, "left/me", number) for number in range(10)]
    assert all(len(set(fate.delays)) == 2 for fate in fates)


def test_each_message_is_drawn_for_itself_by_end_and_sender(backend: str) -> None:
    async def main() -> list[tuple[int, ...]]:
        lost = []
        async with network("left", "right", faults=Faults(lose=0.5)) as (left, right):
            for end, source in ((left, "a"), (left, "b"), (right, "a")):
                before = len(left.records)
                for n in range(20):
                    await end.send(note(n, source=source))
                lost.append(
                    tuple(fault.message.n for fault in left.records[before:] if isinstance(fault.message, Note))
                )
        return lost

    lost = run(main, backend=backend)
    assert len(set(lost)) == 3
    assert all(0 < len(numbers) < 20 for numbers in lost)


def test_what_is_drawn_at_one_end_does_not_depend_on_what_is_sent_at_another() -> None:
    """The order in which tasks at two ends run decides nothing, though senders there may have the same name."""
    alone, beside = (Network(MemoryBus(), 7, Faults(delay=1.0)) for _ in range(2))
    drawn = [alone.fate("left", note(number)) for number in range(5)]
    for number in range(5):
        beside.fate("right", note(number))
        assert beside.fate("left", note(number)) == drawn[number]


@settings(laws, max_examples=10)
@given(script=scripts, seed=seeds)
def test_the_same_seed_tells_the_same_story_whatever_the_schedule(script: Script, seed: int) -> None:
    """Of both backends, too: the draws are by sender and message."""

    async def main() -> list[str]:
        plan = Faults(delay=1.0, duplicate=0.3, lose=0.3)
        async with network("left", "right", seed=seed, faults=plan) as ends:
            async with create_task_group() as group:
                await play(group, ends, script)
            await sleep(50)
        return str(ends[1]).splitlines()

    stories = [run(main, backend=backend, seed=schedule) for backend in ("asyncio", "trio") for schedule in (0, 1)]
    assert all(sorted(story) == sorted(stories[0]) for story in stories)
    assert run(main, backend="asyncio", seed=0) == stories[0]


def test_another_seed_tells_another_story(backend: str) -> None:
    def story(seed: int) -> str:
        async def main() -> str:
            async with network("left", seed=seed, faults=Faults(delay=1.0, lose=0.5)) as (bus,):
                for n in range(20):
                    await bus.send(note(n))
            return str(bus)

        return str(run(main, backend=backend))

    assert story(1) == story(1) != story(2)


@given(fault_plans(kinds=("delay", "split")))
def test_a_plan_in_which_nothing_gets_lost_loses_nothing(faults: Faults) -> None:
    assert faults.lose == 0
    assert faults.duplicate == 0
    assert not faults.split_loses
