"""Ends of a network that are opened and closed."""

import anyio
import pytest
from anyio import current_time, move_on_after, sleep

from support.leaks import task_ids
from support.messages import Note, note
from support.networks import Taker, network
from support.subscribers import Plain
from support.workers import Helper
from workerbus import BusMessage, MemoryBus, WorkerRunner
from workerbus.testing import Faults, FaultyBus, RecordingBus, run, settle


async def test_opening_an_end_opens_the_wrapped_bus_and_closing_it_closes_it() -> None:
    """R6."""
    wire = MemoryBus()
    async with FaultyBus(wire) as left:
        assert wire.is_open
        async with left.end("right"):
            pass
        assert wire.is_open
    assert not wire.is_open
    async with wire:
        async with left:
            assert wire.is_open
        assert wire.is_open


async def test_a_bus_that_a_runner_opens_is_open_for_that_runner_alone() -> None:
    """R6: the wrapped bus, too."""
    wire = MemoryBus()
    left = FaultyBus(wire)
    right = left.end("right")
    for _ in range(2):
        async with WorkerRunner(bus=left, name="first", handle_sigint=False):
            assert wire.opened_by == "first"
            with pytest.raises(RuntimeError, match=r"'right' is an end of, is open for runner 'first' alone"):
                await WorkerRunner(bus=right, name="second", handle_sigint=False).run()
        assert wire.opened_by is None
        assert not wire.is_open
    async with WorkerRunner(bus=right, name="second", handle_sigint=False):
        pass


def test_the_wind_down_of_a_runner_covers_the_wrapped_bus(backend: str) -> None:
    """L4: one deadline for all of it."""

    class Stuck(MemoryBus):
        async def stop(self) -> None:
            await anyio.sleep_forever()

    class Slow(Helper):
        async def cleanup(self) -> None:
            await sleep(1.5)

    async def main() -> float:
        runner = WorkerRunner(bus=FaultyBus(Stuck()), handle_sigint=False)
        async with runner:
            await runner.add_workers(Slow("slow"))
            await runner.registry.wait_for("slow")
            await runner.cancel()
        return current_time()

    assert run(main, backend=backend) == pytest.approx(2.0)


async def test_an_end_that_is_open_or_closed_already_says_so() -> None:
    async with network("left") as (left,):
        with pytest.raises(RuntimeError, match="open already"):
            await left.__aenter__()
        assert left.is_open
    with pytest.raises(RuntimeError, match="not open"):
        await left.__aexit__(None, None, None)


async def test_the_ends_of_a_network_share_seed_and_plan() -> None:
    left = FaultyBus(MemoryBus(), seed=7)
    right = left.end("right")
    right.faults = Faults(lose=0.5)
    assert (left.seed, left.faults) == (right.seed, right.faults) == (7, Faults(lose=0.5))


async def test_two_ends_need_two_names() -> None:
    bus = FaultyBus(MemoryBus(), name="left")
    with pytest.raises(ValueError, match="the name 'left' is taken"):
        bus.end("left")


async def test_a_wrapped_bus_that_does_not_open_leaves_nothing() -> None:
    class Dead(MemoryBus):
        async def start(self) -> None:
            raise OSError("nobody there")

    before, wire = task_ids(), Dead()
    bus = FaultyBus(wire)
    with pytest.raises(OSError, match="nobody there"):
        await bus.__aenter__()
    with pytest.raises(OSError, match="nobody there"):
        await WorkerRunner(bus=bus, handle_sigint=False).run()
    assert task_ids() == before
    assert not bus.is_open
    assert wire.opened_by is None


def test_a_cancelled_program_leaves_nothing(backend: str) -> None:
    """L3, L1."""

    async def main() -> None:
        wire = RecordingBus()
        with move_on_after(1) as scope:
            async with network("left", "right", bus=wire, faults=Faults(delay=(5.0, 5.0))) as (left, right):
                left.split()
                await left.send(note(1))
                await right.send(note(2))
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert not wire.is_open
        assert current_time() == 1.0
        assert [message.n for message in wire.messages(Note)] == [1, 2] or len(wire.records) == 2

    run(main, backend=backend)


async def test_an_error_of_the_body_goes_through_as_it_is() -> None:
    """L6."""
    wire = MemoryBus()
    with pytest.raises(KeyError):
        async with FaultyBus(wire) as left, left.end("right"):
            raise KeyError
    assert not wire.is_open


def test_a_network_can_be_opened_again(backend: str) -> None:
    async def main() -> None:
        bus = FaultyBus(MemoryBus(), faults=Faults(delay=1.0))
        taker = Taker("taker")
        await bus.subscribe(taker)
        for n in range(2):
            async with bus:
                await bus.send(note(n))
                await sleep(2)
        assert [message.n for message in taker.messages()] == [0, 1]

    run(main, backend=backend)


# --- messages under way when an end closes


def test_what_is_still_delayed_goes_out_when_an_end_closes(backend: str) -> None:
    async def main() -> None:
        wire = RecordingBus()
        async with network("left", bus=wire, faults=Faults(delay=(10.0, 10.0))) as (left,):
            taker = Taker("taker")
            await wire.subscribe(taker)
            for n in range(3):
                await left.send(note(n))
            await sleep(1)
            await wire.unsubscribe(taker)
        assert [message.n for message in wire.messages(Note)] == [0, 1, 2]
        assert {record.time for record in wire.records} == {1.0}
        assert str(left).splitlines()[-1] == " 1.00 s  left closes; 3 delayed messages go out at once".strip()

    run(main, backend=backend)


def test_what_does_not_go_out_in_time_when_an_end_closes_is_dropped(backend: str) -> None:
    """L4."""

    class Stuck(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            await anyio.sleep_forever()

    async def main() -> None:
        async with network("left", bus=Stuck(), faults=Faults(delay=(10.0, 10.0))) as (left,):
            for n in range(3):
                await left.send(note(n))
        assert current_time() == pytest.approx(2.0)
        assert str(left).splitlines()[-2:] == [
            "0.00 s  left closes; 3 delayed messages go out at once",
            "2.00 s  left closes; 2 delayed messages did not go out in time",
        ]

    run(main, backend=backend)


async def test_an_end_that_closes_tells_of_a_single_delayed_message() -> None:
    bus = FaultyBus(MemoryBus(), faults=Faults(delay=(5.0, 5.0)))
    async with bus:
        await bus.send(note(1))
    assert [fault.text for fault in bus.records if fault.kind == "hurried"] == [
        "left closes; 1 delayed message goes out at once"
    ]


class SlowWhenTold(RecordingBus):
    """A bus that takes ``seconds`` to publish a note."""

    seconds = 0.0

    async def publish(self, message: BusMessage) -> None:
        if self.seconds and isinstance(message, Note):
            await sleep(self.seconds)
        await super().publish(message)


async def test_an_end_that_closes_tells_of_what_came_while_it_finished_a_message() -> None:
    """That goes out at once, too."""
    wrapped = SlowWhenTold()
    bus = FaultyBus(wrapped, faults=Faults(delay=(5.0, 5.0)))

    async def send_one_more() -> None:
        await sleep(0.5)
        await bus.send(note(4))

    async with wrapped, anyio.create_task_group() as group, bus:
        for number in range(3):
            await bus.send(note(number))
        wrapped.seconds = 1.0
        await sleep(5)
        await settle()
        wrapped.seconds = 0.0
        group.start_soon(send_one_more)
    assert [fault.text for fault in bus.records if fault.kind == "hurried"] == [
        "left closes; 3 delayed messages go out at once"
    ]


async def test_what_did_not_go_out_in_time_delays_nothing_when_the_end_is_opened_again() -> None:
    wrapped = SlowWhenTold()
    bus = FaultyBus(wrapped, faults=Faults(delay=(5.0, 5.0)))
    async with wrapped:
        async with bus:
            for number in range(3):
                await bus.send(note(number))
            wrapped.seconds = 60.0
        assert [fault.text for fault in bus.records if fault.kind == "dropped"] == [
            "left closes; 2 delayed messages did not go out in time"
        ]
        wrapped.seconds, bus.faults = 0.0, Faults()
        async with bus:
            await bus.send(note(7))
            assert note(7) in wrapped.messages(Note)


async def test_an_end_that_is_opened_again_knows_nothing_of_the_delays_before() -> None:
    """It delays as its plan says, and no message waits for those that went out when it closed."""
    bus = FaultyBus(MemoryBus(), faults=Faults(delay=(5.0, 5.0)))
    plain = Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        await bus.send(note(1))
    begin = current_time()
    async with bus:
        bus.faults = Faults()
        await bus.send(note(2))
        await settle()
        assert note(2) in plain.got
        assert current_time() == begin
        bus.faults = Faults(delay=(3.0, 3.0))
        await bus.send(note(3))
        while note(3) not in plain.got:
            await plain.until(len(plain.got) + 1)
        assert current_time() == begin + 3
