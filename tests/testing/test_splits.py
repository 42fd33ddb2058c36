"""Networks that are split, and what becomes of the messages between their sides."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from anyio import create_task_group, current_time, sleep

from support.leaks import task_ids
from support.messages import alarm, note
from support.networks import Speaker, Taker, kinds, network, runners
from support.subscribers import Plain
from support.workers import Helper
from workerbus import MemoryBus, WorkerRunner
from workerbus.testing import Faults, FaultyBus, run, settle
from workerbus.testing.buses._network import Network


def test_a_split_that_is_shorter_than_the_timeout_delays_a_job(backend: str) -> None:
    async def main() -> None:
        async with network("left", "right") as (left, right), runners(left, right, Speaker("b")) as (asker, _):
            left.split("left", "right", seconds=2.0)
            assert await asker.job("b", name="say", timeout=3.0)
            assert current_time() == pytest.approx(2.0)
            told = [line.split("  ", 1)[1] for line in str(left).splitlines()]
            assert told == [
                "left and right are split for 2 s",
                "the request of 'asker' to 'b' (job asker-1) is held back from right: left and right are split",
                "left and right are together again; 1 message arrives late",
            ]

    run(main, backend=backend)


def test_a_job_times_out_in_a_split_that_is_longer(backend: str) -> None:
    async def main() -> None:
        async with network("left", "right") as (left, right), runners(left, right, Speaker("b")) as (asker, _):
            right.split("left", seconds=30.0)
            with pytest.raises(TimeoutError):
                await asker.job("b", name="say", timeout=3.0)
            assert current_time() <= 5.1
            right.heal()
            assert await asker.job("b", name="say", timeout=3.0)
            assert current_time() <= 5.1

    run(main, backend=backend)


def test_an_answer_that_meets_a_losing_split_is_lost(backend: str) -> None:
    async def main() -> str:
        async with network("left", "right") as (left, right), runners(left, right, Speaker("b", 0.5)) as (asker, _):
            async with create_task_group() as group:
                group.start_soon(partial(ask, asker))
                await sleep(0.25)
                left.split(seconds=1.0, loses=True)
            return str(left)

    async def ask(asker: WorkerRunner) -> None:
        with pytest.raises(TimeoutError):
            await asker.job("b", name="say", timeout=2.0)

    told = run(main, backend=backend).splitlines()
    assert told[:3] == [
        "0.25 s  left and right are split for 1 s",
        "0.50 s  the answer of 'b' to 'asker' (job asker-1) is lost on its way to left: left and right are split",
        "1.25 s  left and right are together again; 1 message was lost",
    ]


@pytest.mark.parametrize("sides", [["b", "c", "d"], [("b", "c", "d")]])
def test_all_splits_end_together_and_let_in_what_they_hold_back_from_each_end(backend: str, sides: list[Any]) -> None:
    async def main() -> None:
        async with network("a", "b", "c", "d") as (a, b, c, d):
            taker = Taker("taker")
            await a.subscribe(taker)
            for side in sides:
                a.split("a", side)
            for number, other in enumerate((b, c, d, b, c, d)):
                await other.send(note(number, source=other.name, target="taker"))
            await settle()
            assert taker.got == []
            a.heal()
            await settle()
            assert sorted(message.n for message in taker.messages()) == list(range(6))

    run(main, backend=backend)


def test_what_is_held_back_arrives_in_order_and_before_what_is_sent_after_the_split(backend: str) -> None:
    async def main() -> None:
        async with network("left", "right") as (left, right):
            taker = Taker("taker")
            await right.subscribe(taker)
            await left.send(note(0))
            await sleep(0.1)
            left.split()
            for n in range(1, 10):
                await left.send(alarm(n) if n % 2 else note(n))
            await sleep(0.1)
            assert len(taker.got) == 1
            left.heal()
            left.heal()
            await left.send(note(10))
            await sleep(0.1)
            assert [message.n for message in taker.messages()] == list(range(11))
            assert kinds(left) == ["split", *["held back"] * 9, "healed"]

    run(main, backend=backend)


async def test_what_was_held_back_arrives_once_however_many_splits_follow() -> None:
    async with network("left", "right", "third") as (left, right, third):
        takers = [Taker("of right"), Taker("of third")]
        await right.subscribe(takers[0])
        await third.subscribe(takers[1])
        for n in range(3):
            left.split()
            await left.send(note(n))
            await sleep(0.1)
            left.heal()
            await sleep(0.1)
        assert [[message.n for message in taker.messages()] for taker in takers] == [[0, 1, 2]] * 2
        left.split()
    assert "dropped" not in kinds(left)


def test_what_concerns_nobody_at_the_other_end_is_not_held_back_from_it(backend: str) -> None:
    """Nothing that is no fault is in the story."""

    async def main() -> None:
        async with network("left", "right") as (left, right):
            await left.subscribe(Helper("here"))
            await right.subscribe(Helper("there"))
            left.split("left", "right")
            await left.send(note(1, "here"))
            await left.send(note(2, "nobody"))
            assert kinds(left) == ["split"]
            await left.send(note(3, "there"))
            assert kinds(left) == ["split", "held back"]

    run(main, backend=backend)


async def test_a_message_for_nobody_is_held_back_from_an_end_where_somebody_hears_everything() -> None:
    left = FaultyBus(MemoryBus(), name="left")
    right = left.end("right")
    async with left, right:
        plain = Plain("plain")
        await right.subscribe(plain)
        left.split()
        await left.send(note(1, target="nobody"))
        await settle()
        assert plain.got == []
        left.heal()
        assert await plain.until(1) == [note(1, target="nobody")]


async def test_what_a_split_holds_back_from_an_end_waits_there() -> None:
    wrapped = MemoryBus()
    left = FaultyBus(wrapped, name="left")
    right = left.end("right")
    async with wrapped, left, right:
        await right.subscribe(Plain("plain"))
        left.split()
        for number in range(3):
            await left.send(note(number))
        await settle()
        depths = {name: each.depth for name, each in wrapped.statistics().subscribers.items()}
        assert depths == {"faulty end left": 0, "faulty end right": 3}
        left.heal()


def test_three_ends_can_be_split_into_sides_and_splits_can_overlap(backend: str) -> None:
    async def main() -> None:
        async with network("a", "b", "c") as ends:
            a, b, _ = ends
            takers = {end.name: Taker(f"at {end.name}") for end in ends}
            for end in ends:
                await end.subscribe(takers[end.name])
            a.split(["a", "b"], "c", seconds=1.0)
            b.split("a", "b", seconds=3.0)
            await a.send(note(1))
            for until, reached in ((0.5, "a"), (2.0, "ac"), (4.0, "abc")):
                await sleep(until - current_time())
                assert [name for name, taker in takers.items() if taker.got] == list(reached)
            assert [line.split("  ", 1)[1] for line in str(a).splitlines() if "split for" in line] == [
                "a and b | c are split for 1 s",
                "a and b are split for 3 s",
            ]

    run(main, backend=backend)


def a_network(**faults: Any) -> Network:
    network = Network(MemoryBus(), 7, Faults(**faults))
    for name in ("left", "right"):
        network.add(SimpleNamespace(name=name, is_open=False, release=lambda: 2))
    return network


async def test_of_two_splits_the_one_that_loses_messages_counts() -> None:
    """What it lost does not arrive because another would have kept it."""
    network = a_network()
    for loses in (False, True):
        network.split(["left", "right"], for_seconds=None, loses=loses)
    cut = network.cut("left", "right")
    assert cut is not None
    assert cut.loses


async def test_each_split_tells_what_it_has_lost_itself() -> None:
    network = a_network(split_loses=True)
    for _ in range(2):
        network.split(["left", "right"], for_seconds=None, loses=None)
    first, second = network.splits
    for split in (first, second, second):
        network.lost_in(split, note(1), "right")
    for split in (first, second):
        network.heal(split)
    assert [fault.text.rpartition("; ")[2] for fault in network.records if fault.kind == "healed"] == [
        "1 message was lost",
        "2 messages were lost",
    ]


async def test_what_arrives_late_at_any_end_is_counted_when_a_split_is_over() -> None:
    network = a_network()
    network.split(["left", "right"], for_seconds=None, loses=False)
    network.heal(network.splits[0])
    assert network.records[-1].text == "left and right are together again; 4 messages arrive late"


def test_a_sender_is_where_it_sent_last() -> None:
    """So that a split parts it from the other end."""
    network = a_network()
    for end in ("left", "right", "left"):
        network.fate(end, note(1))
        assert network.home(note(2)) == end


@pytest.mark.parametrize(
    ("sides", "text"),
    [
        (("left", "rihgt"), "no end 'rihgt'; did you mean 'right'"),
        (("left", ["left", "right"]), "'left' is on 2"),
        ((["left", "right"],), "needs two sides"),
    ],
)
async def test_a_split_that_cannot_be_is_refused(sides: tuple[Any, ...], text: str) -> None:
    async with network("left", "right") as (left, _):
        with pytest.raises(ValueError, match=text):
            left.split(*sides)
        assert left.records == []


async def test_a_split_of_one_end_or_of_negative_length_is_refused() -> None:
    async with network("left") as (left,):
        with pytest.raises(ValueError, match="needs two sides"):
            left.split()
        with pytest.raises(ValueError, match="seconds must be a number"):
            left.split(seconds=-1.0)


def test_a_split_can_be_drawn(backend: str) -> None:
    """It cuts off the end of the message's sender."""

    async def main() -> None:
        plan = Faults(split=1.0, split_seconds=(2.0, 2.0))
        async with network("left", "right", faults=plan) as (left, right):
            taker = Taker("taker")
            await right.subscribe(taker)
            await left.send(note(1))
            await sleep(1)
            await left.send(note(2))
            await sleep(4)
            assert [time for time, _ in taker.got] == pytest.approx([2.0, 2.0])
            assert kinds(left) == ["split", "held back", "held back", "healed"]
            left.faults = Faults(split=1.0, split_loses=True)
            await left.send(note(3))
            assert kinds(left)[4:] == ["split", "lost"]

    run(main, backend=backend)


# --- how they end


def test_a_split_ends_in_time_whichever_end_closes(backend: str) -> None:
    async def main() -> None:
        async with network("a", "b", "c") as (a, b, c):
            other = a.end("d")
            async with other:
                other.split("d", "c", seconds=1.0)
            await sleep(2)
            assert [fault.time for fault in a.records if fault.kind == "healed"] == pytest.approx([1.0])
            assert b.records == c.records

    run(main, backend=backend)


def test_a_split_ends_in_time_at_an_end_that_has_come_later(backend: str) -> None:
    async def main() -> None:
        wire = MemoryBus()
        async with wire, create_task_group() as group:
            a = FaultyBus(wire, name="a")
            b = a.end("b")

            async def come_later() -> None:
                async with b:
                    await sleep(2)

            async with a:
                a.split("a", "b", seconds=1.0)
                group.start_soon(come_later)
                await settle()
        assert [fault.time for fault in b.records if fault.kind == "healed"] == pytest.approx([1.0])

    run(main, backend=backend)


async def test_a_split_is_over_in_time_though_the_first_end_has_closed() -> None:
    """Each end that is open minds it."""
    bus = MemoryBus()
    left = FaultyBus(bus, name="left")
    right, third = left.end("right"), left.end("third")
    async with bus, right, third:
        async with left:
            left.split("right", "third", seconds=5.0)
        begin = current_time()
        await sleep(6)
        assert [(fault.kind, fault.time - begin) for fault in left.records] == [("split", 0), ("healed", 5)]


def test_nothing_waits_for_a_split_that_was_ended_early(backend: str) -> None:
    async def main() -> None:
        async with network("left", "right") as (left, _):
            before = task_ids()
            left.split(seconds=1000.0)
            left.heal()
            await sleep(0.1)
            assert task_ids() == before

    run(main, backend=backend)


def test_what_a_split_held_back_from_an_end_that_closes_never_arrives(backend: str) -> None:
    async def main() -> None:
        async with network("left") as (left,):
            async with left.end("right") as right:
                await right.subscribe(Helper("b"))
                left.split()
                await left.send(note(1, "b"))
                await right.unsubscribe(right._subscribers["b"])
            left.heal()
            assert [fault.text for fault in left.records[2:]] == [
                "right closes; 1 message held back from it will never arrive",
                "left and right are together again",
            ]

    run(main, backend=backend)
