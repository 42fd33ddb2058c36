"""L3, L4, L6: how a bus closes, in what time, and what comes out of its block."""

import asyncio
import logging
from contextlib import nullcontext

import anyio
import pytest
from anyio import CancelScope, current_time, sleep, sleep_forever
from anyio.lowlevel import checkpoint

from support import clock
from support.buses import Wire
from support.messages import Note, alarm, note
from support.remarks import Remark
from support.runners import cut_short
from support.subscribers import Plain
from support.wind_downs import BOUND, HangingBus, Published, named, refuse
from support.workers import Doing, Helper, running
from workerbus import CLEANUP_SECONDS, BaseWorker, BusJobRequestMessage, BusMessage, MemoryBus, WorkerBus, WorkerRunner
from workerbus.testing import run, settle


async def test_the_bus_is_stopped_when_the_block_raises() -> None:
    """L5, L6."""
    bus = Published()
    with pytest.raises(ValueError, match="body"):
        async with bus:
            raise ValueError("body")
    assert bus.log == ["start", "stop"]


async def test_a_plain_subscriber_that_refuses_cancellation_is_waited_for_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4: on the bus that a runner opened."""
    log: list[str] = []
    stubborn = Plain("stubborn", on=lambda message: refuse(log) if isinstance(message, Remark) else None)
    async with running(Helper("helper")) as runner:
        await runner.bus.subscribe(stubborn)
        await runner.bus.send(Remark("now", source="test"))
        await stubborn.until(1, Remark)
    assert log == ["unwound"]
    assert named(caplog, "stubborn")


async def test_a_plain_subscriber_of_the_programs_bus_is_waited_for_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4, R6: on a bus that the program opened."""
    log: list[str] = []
    stubborn = Plain("stubborn", on=lambda _: refuse(log))
    async with MemoryBus() as bus:
        await bus.subscribe(stubborn)
        await bus.send(Remark("now", source="test"))
        await stubborn.until(1, Remark)
    assert log == ["unwound"]
    assert named(caplog, "stubborn")


async def test_one_deadline_covers_the_programs_bus() -> None:
    """L4."""
    begun = current_time()
    async with HangingBus() as bus:
        await bus.subscribe(Plain("plain"))
    assert current_time() - begun < BOUND


async def test_a_bus_that_a_run_has_used_has_all_its_time_again() -> None:
    """L4, R6: the deadline of one wind-down is not that of a later one."""
    stopped: list[str] = []

    class SlowBus(MemoryBus):
        async def stop(self) -> None:
            await sleep(0.5)
            stopped.append("stopped")

    bus = SlowBus()
    async with cut_short(), running(Helper("helper"), bus=bus) as runner:
        await runner.cancel()
        await sleep_forever()
    await sleep(2 * CLEANUP_SECONDS)
    async with bus:
        assert bus.is_open
    async with running(Helper("helper"), bus=bus):
        pass
    assert stopped == ["stopped"] * 3


@pytest.mark.parametrize("late", [("one",), ("two",), ("one", "three")])
@pytest.mark.parametrize("message", [note(1), alarm(1)])
async def test_subscribers_that_refuse_to_end_are_waited_for_and_named(
    message: BusMessage, late: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """L4: whatever lane they are in, and in whatever order they have subscribed."""

    async def refuse() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(CLEANUP_SECONDS + 1)

    bus = MemoryBus(name="bus")
    for name in ("one", "two", "three"):
        await bus.subscribe(Plain(name, on=(lambda _: refuse()) if name in late else None))
    async with bus:
        await bus.send(message)
        await anyio.wait_all_tasks_blocked()
    assert caplog.messages == [f"bus 'bus' waits for subscribers that refuse cancellation: {str(late).strip('(,)')}"]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_an_interruption_in_a_subscriber_ends_the_block_of_the_bus_as_itself(
    backend: str, ending: type[BaseException]
) -> None:
    """L3."""

    def interrupt(message: BusMessage) -> None:
        raise ending

    async def example() -> None:
        bus = MemoryBus()
        await bus.subscribe(Plain("plain", on=interrupt))
        async with bus:
            await bus.send(note(1))
            await anyio.sleep_forever()

    with pytest.raises(ending):
        anyio.run(example, backend=backend)


@pytest.mark.parametrize("failing", [False, True])
async def test_a_bus_that_fails_to_stop_is_closed_all_the_same(failing: bool, caplog: pytest.LogCaptureFixture) -> None:
    """L1, L6: the failure is logged with its traceback, and an error of the block goes through as itself."""

    class NotStopping(MemoryBus):
        stops = 0

        async def stop(self) -> None:
            self.stops += 1
            assert self.is_open
            raise OSError("no connection")

    bus = NotStopping(name="bus")
    with pytest.raises(ValueError, match="oh") if failing else nullcontext():
        async with bus:
            bus.tasks.start(anyio.sleep_forever, name="reader")
            if failing:
                raise ValueError("oh")
    assert (bus.stops, bus.is_open) == (1, False)
    assert [task.name for task in anyio.get_running_tasks() if task.name == "reader"] == []
    [record] = caplog.records
    assert record.getMessage() == "bus 'bus' failed to stop"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OSError)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_while_a_bus_stops_ends_it(backend: str, ending: type[BaseException]) -> None:
    """L3: when the bus is closed."""

    class Interrupted(MemoryBus):
        async def stop(self) -> None:
            raise ending

    bus, after = Interrupted(), list[str]()

    async def example() -> None:
        async with bus:
            pass
        after.append("went on")

    with pytest.raises(ending):
        anyio.run(example, backend=backend)
    assert not bus.is_open
    assert after == []


async def test_a_bus_that_closes_lets_each_subscriber_finish() -> None:
    """B5, L4"""
    done: list[str] = []

    def slow(name: str) -> Plain:
        async def on(message: BusMessage) -> None:
            with CancelScope(shield=True):
                await sleep(1)
            done.append(name)

        return Plain(name, on=on)

    begin = current_time()
    async with MemoryBus() as bus:
        for n in range(3):
            await bus.subscribe(slow(str(n)))
        await bus.send(note(1))
        await settle()
    assert sorted(done) == ["0", "1", "2"]
    assert current_time() == begin + 1


class Times(logging.Handler):
    """Keeps when each thing was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.of[record.getMessage()] = anyio.current_time()


async def a_second_to_leave(worker: Doing, message: BusJobRequestMessage) -> None:
    """Take one second after a cancellation."""
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)


class Hanging(Wire):
    """A bus that hangs in one place when it is closed."""

    def __init__(self, place: str) -> None:
        super().__init__(name="bus")
        self.place = place

    async def publish(self, message: BusMessage) -> None:
        if self.place == "outbox":
            await anyio.sleep_forever()
        await super().publish(message)

    async def stop(self) -> None:
        if self.place == "stop":
            await anyio.sleep_forever()

    async def refuse(self) -> None:
        if self.place == "subscriber":
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2 * CLEANUP_SECONDS)


async def test_a_sender_that_lets_others_run_hears_nothing_of_a_bus_that_closes_meanwhile() -> None:
    """B2, B4: what it sends from then on is kept for the next time that the bus is open."""
    bus, taker, sent = MemoryBus(), Plain("taker"), 0

    async def send() -> None:
        nonlocal sent
        for sent in range(1, 64 * 20 + 1):
            await bus.send(note(sent))

    async with anyio.create_task_group() as tasks:
        async with bus:
            await bus.subscribe(taker)
            tasks.start_soon(send)
            while not sent:
                await checkpoint()
        before, had = sent, len(taker.of(Note))
        assert before < 64 * 20
    async with bus:
        await taker.until(had + sent - before, Note)
        await settle()
    kept = [each.n for each in taker.of(Note)[had:] if isinstance(each, Note)]
    assert kept == list(range(sent - len(kept) + 1, sent + 1))


@pytest.mark.parametrize("place", ["outbox", "stop", "subscriber"])
async def test_a_bus_has_the_time_that_the_error_which_leaves_it_has_left(place: str) -> None:
    """L4: a job in its block has taken a second of it already."""
    times, bus = Times(), Hanging(place)
    begun: list[float] = []

    async def fail(runner: WorkerRunner) -> None:
        async with bus, runner.job("slow", name="do"):
            await bus.subscribe(Plain("plain", on=lambda _: bus.refuse()))
            bus.post(note(1))
            await anyio.wait_all_tasks_blocked()
            begun.append(anyio.current_time())
            raise ValueError("enough")

    logging.getLogger("workerbus").addHandler(times)
    try:
        async with running(Doing("slow", a_second_to_leave)) as runner:
            with pytest.raises(ValueError, match="enough"):
                await fail(runner)
            over = anyio.current_time()
    finally:
        logging.getLogger("workerbus").removeHandler(times)
    if place == "subscriber":
        over = times.of["bus 'bus' waits for subscribers that refuse cancellation: 'plain'"]
    assert over - begun[0] == pytest.approx(CLEANUP_SECONDS)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_an_interruption_in_a_subscriber_cuts_a_wind_down_short(backend: str, ending: type[BaseException]) -> None:
    """R5: where a signal has begun it, the next one ends it, in whatever task it lands."""
    times: list[float] = []

    class Lingering(BaseWorker):
        async def cleanup(self) -> None:
            await self.send_bus_message(note(1))
            await anyio.sleep_forever()

    def interrupt(message: BusMessage) -> None:
        if isinstance(message, Note):
            raise ending

    async def example() -> None:
        bus = MemoryBus()
        await bus.subscribe(Plain("plain", on=interrupt))
        try:
            async with running(Lingering("lingering"), bus=bus) as runner:
                times.append(anyio.current_time())
                runner.clean_up.interruptible = True
                await runner.cancel()
                await anyio.sleep_forever()
        finally:
            times.append(anyio.current_time())

    with pytest.raises(ending):
        clock.run(example, backend=backend)
    assert times[0] == pytest.approx(times[1])


@pytest.mark.parametrize("body_fails", [False, True])
async def test_what_a_task_of_a_bus_raises_at_its_end_comes_out_as_itself(body_fails: bool) -> None:
    """L6: one cause, one exception."""

    async def reader() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("the connection was not closed")

    async def use() -> None:
        async with MemoryBus() as bus:
            bus.tasks.start(reader, name="reader")
            await checkpoint()
            if body_fails:
                raise KeyError("body")

    with pytest.raises(OSError, match="was not closed"):
        await use()


class StuckBus(WorkerBus):
    """A bus that never gets rid of what it is to publish."""

    stopped = False

    async def publish(self, message: BusMessage) -> None:
        await sleep_forever()

    async def stop(self) -> None:
        self.stopped = True
        await super().stop()


def test_a_bus_whose_messages_do_not_go_out_is_stopped_all_the_same(backend: str) -> None:
    """L5, L1: `stop()` is called, whether or not the bound of the wind-down is over; a transport closes its streams."""

    async def program() -> None:
        bus = StuckBus()
        async with bus:
            bus.post(note(1))
        assert bus.stopped

    run(program, backend=backend)


def test_a_bus_whose_closing_is_cancelled_natively_is_stopped_all_the_same() -> None:
    """L3, L5: while it waits for what it has to publish."""

    async def program() -> None:
        bus = StuckBus()

        async def use() -> None:
            async with bus:
                bus.post(note(1))

        task = asyncio.ensure_future(use())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bus.stopped
        assert not bus.is_open

    run(program, backend="asyncio")
