"""What a bus, its lanes and its subscribers do in corners where changing the code had turned no test red."""

import gc
import logging
import warnings

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.buses import Wire
from support.job_handlers import too_slow_to_leave
from support.listeners import Listener
from support.messages import Note, note
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    MemoryBus,
    WorkerRunner,
)
from workerbus._lifetime import CleanUp, TaskHost
from workerbus._room import Room
from workerbus.bus._lanes import Lane


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


# --- the one deadline of a bus


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


async def test_a_bus_that_cannot_be_opened_takes_its_time_from_what_is_around_it() -> None:
    """L4: its reader takes a second to end, and then the job around it has one left."""
    reading = anyio.Event()

    class NotConnecting(MemoryBus):
        async def start(self) -> None:
            self.tasks.start(self.read, name="reader")
            await reading.wait()
            raise OSError("no connection")

        async def read(self) -> None:
            reading.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)

    async with running(Doing("slow", too_slow_to_leave)) as runner:
        begun = anyio.current_time()
        with pytest.raises(OSError, match="no connection"):
            async with runner.job("slow", name="do"):
                await NotConnecting().__aenter__()
        assert anyio.current_time() - begun == pytest.approx(CLEANUP_SECONDS)


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


async def test_a_transport_may_end_the_block_of_its_bus() -> None:
    """L3: by cancelling its tasks; that goes no further."""
    async with MemoryBus() as bus:
        bus.tasks.group.cancel_scope.cancel()
        await anyio.sleep_forever()
    assert not bus.is_open
    await checkpoint()


# --- what was sent before a bus was open, or while it was closed again


async def test_a_worker_that_waits_for_its_runner_keeps_what_was_sent_to_it_over_the_end_of_a_bus() -> None:
    """B4, R6: the program may open its bus several times before the worker runs."""
    got: list[BusMessage] = []
    handled = anyio.Event()

    async def keep(message: BusMessage) -> None:
        got.append(message)
        handled.set()

    bus = MemoryBus()
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(Listener("listener", keep))
    async with bus:
        await bus.send(note(1, target="listener"))
    async with runner:
        await handled.wait()
    assert got == [note(1, target="listener")]


def test_what_was_sent_before_a_bus_was_open_leaves_no_unclosed_stream(backend: str) -> None:
    """B1, B4: over a network it waits in a lane of the bus."""

    async def example() -> None:
        bus, plain = Wire(), Plain("plain")
        await bus.subscribe(plain)
        await bus.send(note(1))
        async with bus:
            await plain.until(1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clock.run(example, backend=backend)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_who_could_not_send_before_a_bus_was_closed_can_when_it_is_open_again() -> None:
    """B4, R6."""

    class Unconnected(Wire):
        connected = False

        async def publish(self, message: BusMessage) -> None:
            if not self.connected:
                await anyio.sleep_forever()
            await super().publish(message)

    bus, plain = Unconnected(), Plain("plain")
    await bus.subscribe(plain)
    await bus.send(note(1))
    async with bus:
        await anyio.wait_all_tasks_blocked()
    bus.connected = True
    async with bus:
        await bus.send(note(2))
        await plain.until(1)
    assert plain.got == [note(2)]


async def test_the_statistics_count_every_message_of_a_run_that_is_cancelled() -> None:
    """B9: an observer has got as many, cancels and announcements included."""
    async with MemoryBus() as bus:
        observer = Plain("observer")
        await bus.subscribe(observer)
        async with running(*(Helper(f"helper{n}") for n in range(3)), bus=bus) as runner:
            await runner.cancel()
            await anyio.sleep_forever()
        await anyio.wait_all_tasks_blocked()
        assert bus.statistics().sent == len(observer.got)


# --- lanes and subscribers


async def test_a_lane_that_is_closed_gives_back_what_waits_in_it() -> None:
    """J1: in its order, and without what is being handled."""
    begun, release = anyio.Event(), anyio.Event()

    async def handle(item: int) -> None:
        begun.set()
        await release.wait()

    async with anyio.create_task_group() as tasks:
        lane: Lane[int] = Lane("lane", handle, room=Room(9))
        lane.open(TaskHost(tasks, CleanUp()))
        lane.put(1)
        await begun.wait()
        lane.put(2)
        lane.put_counted(3)
        assert lane.close() == [2, 3]
        assert lane.close() == []
        release.set()


async def test_a_lane_that_steps_aside_gives_back_what_it_had_begun_to_take() -> None:
    """J1, B2: while its system lane goes first."""
    handled: list[int] = []

    async def handle(item: int) -> None:
        handled.append(item)

    async with anyio.create_task_group() as tasks:
        system: Lane[int] = Lane("system", handle)
        data: Lane[int] = Lane("data", handle, first=(system,))
        data.open(TaskHost(tasks, CleanUp()))
        system.put(0)
        data.put(1)
        for _ in range(5):
            await checkpoint()
        data.put(2)
        assert data.close() == [1, 2]
    assert handled == []


async def test_a_subscriber_whose_cancellation_comes_in_a_group_has_not_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4, B3: its code may have packed it up."""

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        except BaseException as exc:
            raise BaseExceptionGroup("several", [exc]) from None

    bus, waiting = MemoryBus(), Plain("waiting", on=lambda _: wait())
    await bus.subscribe(waiting)
    async with bus:
        await bus.send(note(1))
        await waiting.until(1)
        await anyio.wait_all_tasks_blocked()
    assert caplog.messages == []
    assert bus.statistics().subscribers["waiting"].failed == 0
