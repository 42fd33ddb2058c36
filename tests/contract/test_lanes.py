"""B2, B3, B9: order, system messages first, failures, and bounds; for plain subscribers and for workers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.buses import Wire
from support.conditions import eventually
from support.listeners import KINDS, Chooser, Listener, listening
from support.messages import Alarm, Note, alarm, note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusActivateWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    BusStatistics,
    BusSubscriber,
    BusWorkerErrorMessage,
    JobGroupError,
    JobTimeoutError,
    MemoryBus,
    WorkerBus,
    WorkerRunner,
    job,
)

every_kind = pytest.mark.parametrize("kind", KINDS)


def lanes(got: Sequence[BusMessage]) -> tuple[list[int], list[int]]:
    """Return the numbers of the notes and of the alarms, each in the order of handling."""
    return [m.n for m in got if isinstance(m, Note)], [m.n for m in got if isinstance(m, Alarm)]


class Log:
    """Code for a subscriber that keeps what it gets; the first note waits for `release`."""

    def __init__(self, *, holds: type[Note] | type[Alarm] | None = None) -> None:
        self.got: list[BusMessage] = []
        self.done: list[BusMessage] = []
        self.entered = anyio.Event()
        self.release = anyio.Event()
        self._holds = holds

    async def __call__(self, message: BusMessage) -> None:
        self.got.append(message)
        if type(message) is self._holds and not self.release.is_set():
            self.entered.set()
            await self.release.wait()
        self.done.append(message)


@asynccontextmanager
async def held(kind: str, size: float, lane: type[Note] | type[Alarm] = Note) -> AsyncIterator[tuple[WorkerBus, Log]]:
    """Run a subscriber ``"it"`` whose first handler of a lane is suspended: what comes from now on waits."""
    log = Log(holds=lane)
    async with listening(kind, log, max_buffer_size=size) as bus:
        await bus.send(lane(0, source="me", target="it"))
        await log.entered.wait()
        try:
            yield bus, log
        finally:
            log.release.set()


# --- B2: order


@every_kind
async def test_each_lane_is_handled_in_the_order_of_sending(kind: str) -> None:
    """B2: per subscriber and lane."""
    log = Log()
    async with listening(kind, log) as bus:
        for n in range(200):
            await bus.send((note if n % 3 else alarm)(n, "it"))
        await eventually(lambda: len(log.done) == 200)
    notes, alarms = lanes(log.done)
    assert notes == [n for n in range(200) if n % 3]
    assert alarms == [n for n in range(200) if not n % 3]


@every_kind
@pytest.mark.parametrize("make", [note, alarm])
async def test_a_lane_handles_one_message_at_a_time(kind: str, make: Callable[..., Note | Alarm]) -> None:
    """B2: the next one begins when the handler of this one has returned."""
    running_now, most, done = 0, 0, 0

    async def code(message: BusMessage) -> None:
        nonlocal running_now, most, done
        running_now += 1
        most = max(most, running_now)
        await checkpoint()
        running_now -= 1
        done += 1

    async with listening(kind, code) as bus:
        for n in range(20):
            await bus.send(make(n, "it"))
        await eventually(lambda: done == 20)
    assert most == 1


# --- B2: system first


@every_kind
async def test_a_system_message_sent_before_the_start_is_handled_before_the_data_messages(kind: str) -> None:
    """B2: those sent before the start included."""
    log = Log()
    failure = BusWorkerErrorMessage("an old one", source="me", target="it")
    got: list[BusMessage] = []

    class Watcher(Listener):
        async def on_bus_message(self, message: BusMessage) -> None:
            got.append(message)

    class ChoosingWatcher(Chooser):
        async def on_bus_message(self, message: BusMessage) -> None:
            got.append(message)

    bus = MemoryBus()
    messages = [note(0, "it"), note(1, "it"), failure, note(2, "it")]
    if kind == "plain":
        await bus.subscribe(Plain("it", on=got.append))
        for message in messages:
            await bus.send(message)
        async with bus:
            await eventually(lambda: len(got) == 4)
    else:
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers((Watcher if kind == "worker" else ChoosingWatcher)("it", log))
        for message in messages:
            await bus.send(message)
        async with runner:
            await eventually(lambda: len(got) >= 4)
    assert got[:4] == [failure, note(0, "it"), note(1, "it"), note(2, "it")]


@every_kind
async def test_system_messages_sent_before_the_start_keep_their_order(kind: str) -> None:
    """B2: own ones and the library's, in one lane."""
    got: list[BusMessage] = []

    class Watcher(BaseWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            got.append(message)

    class ChoosingWatcher(Watcher):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    bus = MemoryBus()
    messages = [alarm(0, "it"), BusWorkerErrorMessage("1", source="me", target="it"), alarm(2, "it")]
    if kind == "plain":
        await bus.subscribe(Plain("it", on=got.append))
        for message in messages:
            await bus.send(message)
        async with bus:
            await eventually(lambda: len(got) >= 3)
    else:
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers((Watcher if kind == "worker" else ChoosingWatcher)("it"))
        for message in messages:
            await bus.send(message)
        async with runner:
            await eventually(lambda: len(got) >= 3)
    assert got[:3] == messages


@every_kind
async def test_a_system_message_is_handled_while_a_data_handler_is_suspended(kind: str) -> None:
    """B2: the lanes do not wait for each other."""
    async with held(kind, float("inf")) as (bus, log):
        await bus.send(note(1, "it"))
        await bus.send(alarm(1, "it"))
        await eventually(lambda: alarm(1, "it") in log.done)
        assert log.done == [alarm(1, "it")]


@every_kind
@pytest.mark.parametrize("sender", [1, 5, 64])
async def test_a_system_message_is_handled_after_at_most_one_more_data_message(kind: str, sender: int) -> None:
    """B2: also where data handlers never suspend; here one of them sends the system message."""
    got: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        got.append(message)
        if message == note(sender, "it"):
            await bus.send(alarm(1, "it"))

    async with listening(kind, code) as bus:
        for n in range(63):
            await bus.send(note(n, "it"))
        for n in range(63, 126):
            await bus.send(note(n, "it"))
        await eventually(lambda: len(got) == 127)
    assert got.index(alarm(1, "it")) - got.index(note(sender, "it")) <= 2


@every_kind
async def test_every_one_of_several_system_messages_goes_before_data(kind: str) -> None:
    """B2: at most one more data message comes before any of them, where neither handler suspends."""
    got: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        got.append(message)
        if message == note(5, "it"):
            for n in range(3):
                await bus.send(alarm(n, "it"))

    async with listening(kind, code) as bus:
        for n in range(50):
            await bus.send(note(n, "it"))
        await eventually(lambda: len(got) == 53)
    last = got.index(alarm(2, "it"))
    assert len([m for m in got[:last] if isinstance(m, Note)]) <= 7


@every_kind
async def test_a_suspended_system_handler_holds_no_data_back(kind: str) -> None:
    """B2: data messages are handled meanwhile, and another system message waits its turn."""
    async with held(kind, float("inf"), Alarm) as (bus, log):
        await bus.send(alarm(1, "it"))
        await bus.send(note(1, "it"))
        await eventually(lambda: note(1, "it") in log.done)
        assert log.done == [note(1, "it")]
        log.release.set()
        await eventually(lambda: len(log.done) == 3)
    assert lanes(log.done)[1] == [0, 1]


@every_kind
async def test_a_system_handler_that_was_suspended_before_the_start_holds_no_data_back(kind: str) -> None:
    """B2: a system message sent before the start may wait for a data message sent before the start."""
    noted = anyio.Event()
    done: list[BusMessage] = []

    class Watcher(BaseWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            await on(message)

    class ChoosingWatcher(Watcher):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    async def on(message: BusMessage) -> None:
        if isinstance(message, BusWorkerErrorMessage):
            await noted.wait()
            done.append(message)
        elif isinstance(message, Note):
            noted.set()

    bus = MemoryBus()
    messages = [BusWorkerErrorMessage("1", source="me", target="it"), note(0, "it")]
    if kind == "plain":
        await bus.subscribe(Plain("it", on=on))
        for message in messages:
            await bus.send(message)
        async with bus:
            await eventually(lambda: done)
    else:
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers((Watcher if kind == "worker" else ChoosingWatcher)("it"))
        for message in messages:
            await bus.send(message)
        async with runner:
            await eventually(lambda: done)
    assert noted.is_set()


async def test_a_system_hook_does_not_wait_for_a_data_hook() -> None:
    """B2, W8: the same for a worker's other hooks; here ``on_activated`` is suspended."""
    failed, release = anyio.Event(), anyio.Event()

    class Parent(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await release.wait()

        async def on_worker_failed(self, data: object) -> None:
            failed.set()

    parent, child = Parent("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        await child.send_bus_error_message("broken")
        await failed.wait()
        release.set()


# --- B2: checkpoints


class Ticker:
    """Counts how often other tasks get a turn."""

    def __init__(self) -> None:
        self.ticks = 0

    async def run(self) -> None:
        while True:
            self.ticks += 1
            await checkpoint()


@asynccontextmanager
async def ticking() -> AsyncIterator[Ticker]:
    ticker = Ticker()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ticker.run)
        await eventually(lambda: ticker.ticks)
        yield ticker
        tasks.cancel_scope.cancel()


async def test_sending_is_no_checkpoint() -> None:
    """B2: while there is room, and but for every 64th one."""
    async with MemoryBus() as bus, ticking() as ticker:
        await bus.subscribe(Plain("it"))
        before = ticker.ticks
        for n in range(63):
            await bus.send(note(n))
        assert ticker.ticks == before


async def test_every_64th_sending_lets_others_run() -> None:
    """B2: a task that only sends starves nobody."""
    async with MemoryBus() as bus, ticking() as ticker:
        await bus.subscribe(Plain("it"))
        before = ticker.ticks
        for n in range(64 * 6):
            await bus.send(note(n))
        assert ticker.ticks - before >= 5


@pytest.mark.parametrize("first", [0, 1, 2, 3])
async def test_every_64th_sending_lets_others_run_whatever_the_library_sends_in_between(first: int) -> None:
    """B2: here each request is answered at once, in the sender's step (W4)."""
    idle = Helper("idle", active=False)
    async with running(idle) as runner, ticking() as ticker:
        for n in range(first):
            await runner.bus.send(note(n, "nobody"))
        before = ticker.ticks
        for n in range(64 * 6):
            await runner.bus.send(BusJobRequestMessage(str(n), "echo", source="asker", target="idle"))
        assert ticker.ticks - before >= 5


async def test_a_cancelled_sender_does_not_lose_its_message() -> None:
    """B2: every 64th one yields uncancellably, after the message is in."""
    plain = Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        with anyio.CancelScope() as scope:
            scope.cancel()
            for n in range(200):
                await bus.send(note(n))
        await plain.until(200)
    assert lanes(plain.got)[0] == list(range(200))


# --- B3: failures


def breaking_at(log: list[BusMessage], *numbers: int) -> Callable[[BusMessage], Awaitable[None]]:
    async def code(message: BusMessage) -> None:
        log.append(message)
        if isinstance(message, Note | Alarm) and message.n in numbers:
            raise ZeroDivisionError("it broke")

    return code


@every_kind
@pytest.mark.parametrize("make", [note, alarm])
async def test_after_a_failure_the_next_message_is_handled(kind: str, make: Callable[..., Note | Alarm]) -> None:
    """B3: a failing subscriber does not silence itself."""
    log: list[BusMessage] = []
    async with listening(kind, breaking_at(log, 0, 2)) as bus:
        for n in range(4):
            await bus.send(make(n, "it"))
        await eventually(lambda: len(log) == 4)
    assert log == [make(n, "it") for n in range(4)]


@every_kind
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("make", [note, alarm])
async def test_a_native_cancellation_does_not_silence_a_subscriber(
    kind: str, make: Callable[..., Note | Alarm]
) -> None:
    """B3: on asyncio, awaiting a task that somebody else has cancelled raises `CancelledError` in the handler."""
    log: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        log.append(message)
        if message == make(0, "it"):
            stale = asyncio.ensure_future(asyncio.sleep(60))
            stale.cancel()
            await stale

    with anyio.fail_after(2):
        async with listening(kind, code) as bus:
            await bus.send(make(0, "it"))
            await bus.send(make(1, "it"))
            await eventually(lambda: len(log) == 2)
    assert len(log) == 2


@every_kind
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_is_counted_and_reported_as_a_failure(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """B3: it is an exception of the handler's like any other."""
    observer = Plain("observer")

    async def code(message: BusMessage) -> None:
        stale = asyncio.ensure_future(asyncio.sleep(60))
        stale.cancel()
        await stale

    async with listening(kind, code) as bus:
        await bus.subscribe(observer)
        await bus.send(note(0, "it"))
        with anyio.fail_after(2):
            (report,) = await observer.until(1, BusWorkerErrorMessage)
        assert bus.statistics().subscribers["it"].failed == 1
    assert report.source == "it"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_after_the_subscriber_has_left_harms_nobody() -> None:
    """B3, B5: the delivery under way was let finish, and this is how it finished."""
    left = anyio.Event()

    async def leave(message: BusMessage) -> None:
        await bus.unsubscribe(leaver)
        left.set()
        stale = asyncio.ensure_future(asyncio.sleep(60))
        stale.cancel()
        await stale

    leaver, other = Plain("leaver", receives="own", on=leave), Plain("other", receives="own")
    async with MemoryBus() as bus:
        await bus.subscribe(leaver)
        await bus.subscribe(other)
        await bus.send(note(0, "leaver"))
        await left.wait()
        await anyio.wait_all_tasks_blocked()
        await bus.send(note(1, "other"))
        await other.until(1, Note)
    assert other.of(Note) == [note(1, "other")]


@every_kind
async def test_a_failure_is_logged_with_its_traceback(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """B3, W7."""
    log: list[BusMessage] = []
    async with listening(kind, breaking_at(log, 0)) as bus:
        await bus.send(note(0, "it"))
        await bus.send(note(1, "it"))
        await eventually(lambda: len(log) == 2)
    logged = [record.exc_info[1] for record in caplog.records if record.exc_info and record.levelno >= logging.ERROR]
    assert [type(error) for error in logged] == [ZeroDivisionError]
    assert logged[0] is not None
    assert logged[0].__traceback__ is not None


async def test_a_failure_of_a_plain_subscriber_is_counted() -> None:
    """B3, B9: in the statistics of the bus; it was delivered all the same."""
    log: list[BusMessage] = []
    async with listening("plain", breaking_at(log, 0, 1)) as bus:
        for n in range(3):
            await bus.send(note(n, "it"))
        await eventually(lambda: len(log) == 3)
        counts = bus.statistics().subscribers["it"]
    assert counts.failed == 2
    assert counts.delivered >= 3


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_a_failure_of_a_workers_hook_is_counted(kind: str) -> None:
    """B3, B9: where the failures of its subscriber are counted."""
    log: list[BusMessage] = []
    async with listening(kind, breaking_at(log, 0, 1)) as bus:
        for n in range(3):
            await bus.send(note(n, "it"))
        await eventually(lambda: len(log) == 3)
        assert bus.statistics().subscribers["it"].failed == 2


@every_kind
async def test_a_failure_is_reported_on_the_bus(kind: str) -> None:
    """B3, W7: a `BusWorkerErrorMessage` in the name of who failed."""
    log: list[BusMessage] = []
    observer = Plain("observer")
    async with listening(kind, breaking_at(log, 0)) as bus:
        await bus.subscribe(observer)
        await bus.send(note(0, "it"))
        (report,) = await observer.until(1, BusWorkerErrorMessage)
    assert isinstance(report, BusWorkerErrorMessage)
    assert report.source == "it"
    assert "it broke" in report.error


async def test_subscribers_that_fail_on_everything_do_not_keep_each_other_busy() -> None:
    """B3: what an error report causes is not reported again."""

    def fail(_: BusMessage) -> None:
        raise ZeroDivisionError("always")

    first, second = Plain("first", on=fail), Plain("second", on=fail)
    async with MemoryBus() as bus:
        await bus.subscribe(first)
        await bus.subscribe(second)
        await bus.send(note(0))
        await first.until(3)
        await second.until(3)
        await anyio.wait_all_tasks_blocked()
    assert len(first.got) == len(second.got) == 3


async def test_a_slow_subscriber_delays_no_other() -> None:
    """B3: with unbounded lanes."""
    never = anyio.Event()

    async def stuck(_: BusMessage) -> None:
        await never.wait()

    slow, quick = Plain("slow", on=stuck), Plain("quick")
    async with MemoryBus() as bus:
        await bus.subscribe(slow)
        await bus.subscribe(quick)
        for n in range(500):
            await bus.send(note(n))
        await quick.until(500)
        never.set()
        await slow.until(500)


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_a_workers_stuck_hook_delays_none_of_its_jobs(kind: str) -> None:
    """B3, W8: hooks are no part of the built-in handling."""
    never = anyio.Event()

    class Stuck(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            await never.wait()

    class Choosing(Stuck):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    async with running((Stuck if kind == "worker" else Choosing)("it")) as runner:
        await runner.bus.send(note(0, "it"))
        for _ in range(3):
            await runner.job("it", name="echo")
        never.set()


# --- B9: bounds


@pytest.mark.parametrize("size", [0, -1, float("nan")])
def test_a_bound_is_at_least_one(size: float) -> None:
    """B9: ``max_buffer_size`` bounds what waits; nothing could ever wait."""
    with pytest.raises(ValueError, match="max_buffer_size"):
        MemoryBus(max_buffer_size=size)


class Sending:
    """A task that sends, and whether it is through."""

    def __init__(self, tasks: anyio.abc.TaskGroup, bus: WorkerBus, *messages: BusMessage) -> None:
        self.done = False
        self.scope = anyio.CancelScope()
        tasks.start_soon(self._run, bus, messages)

    async def _run(self, bus: WorkerBus, messages: Sequence[BusMessage]) -> None:
        with self.scope:
            for message in messages:
                await bus.send(message)
            self.done = True


@every_kind
async def test_sending_waits_when_the_lane_is_full_and_nothing_is_dropped(kind: str) -> None:
    """B9: two may wait, the third waits outside until there is room."""
    async with held(kind, 2) as (bus, log), anyio.create_task_group() as tasks:
        sending = Sending(tasks, bus, note(1, "it"), note(2, "it"), note(3, "it"))
        await anyio.wait_all_tasks_blocked()
        assert not sending.done
        log.release.set()
        await eventually(lambda: sending.done and len(log.done) == 4)
    assert lanes(log.done)[0] == [0, 1, 2, 3]


@every_kind
async def test_what_is_being_handled_takes_no_place(kind: str) -> None:
    """B9: it bounds what waits."""
    async with held(kind, 1) as (bus, _):
        await bus.send(note(1, "it"))


@every_kind
async def test_those_who_wait_for_room_get_it_in_their_order(kind: str) -> None:
    """B9, B2: one place lets one sender in, the one who waits longest; a later one does not slip past."""
    async with held(kind, 1) as (bus, log), anyio.create_task_group() as tasks:
        await bus.send(note(1, "it"))
        sendings = []
        for n in range(2, 6):
            sendings.append(Sending(tasks, bus, note(n, "it")))
            await anyio.wait_all_tasks_blocked()
        assert not any(each.done for each in sendings)
        log.release.set()
        await bus.send(note(6, "it"))
        await eventually(lambda: len(log.done) == 7)
    assert lanes(log.done)[0] == list(range(7))


@every_kind
async def test_a_cancelled_sender_leaves_the_line(kind: str) -> None:
    """B9: its message is not delivered later, and those behind it go on."""
    async with held(kind, 1) as (bus, log), anyio.create_task_group() as tasks:
        await bus.send(note(1, "it"))
        first = Sending(tasks, bus, note(2, "it"))
        await anyio.wait_all_tasks_blocked()
        second = Sending(tasks, bus, note(3, "it"))
        await anyio.wait_all_tasks_blocked()
        first.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        log.release.set()
        await eventually(lambda: second.done and len(log.done) == 3)
    assert lanes(log.done)[0] == [0, 1, 3]


@every_kind
async def test_system_messages_never_wait_for_room(kind: str) -> None:
    """B9: only the data lane is bounded."""
    async with held(kind, 1) as (bus, log):
        await bus.send(note(1, "it"))
        for n in range(10):
            await bus.send(alarm(n, "it"))
        await eventually(lambda: len(log.done) == 10)


@every_kind
async def test_a_broadcast_goes_first_to_those_that_have_room(kind: str) -> None:
    """B9: they have handled it while the sender still waits."""
    async with held(kind, 1) as (bus, log), anyio.create_task_group() as tasks:
        quick = Plain("quick")
        await bus.subscribe(quick)
        await bus.send(note(1, "it"))
        sending = Sending(tasks, bus, note(2))
        await quick.until(2, Note)
        assert quick.got[-1] == note(2)
        assert not sending.done
        log.release.set()
        await eventually(lambda: sending.done and len(log.done) == 3)


async def test_a_broadcast_waits_for_all_full_lanes_at_once() -> None:
    """B9: one that gets room has it at once, though another is still full."""
    logs = [Log(holds=Note), Log(holds=Note)]
    async with MemoryBus(max_buffer_size=1) as bus, anyio.create_task_group() as tasks:
        for name, log in zip(("one", "two"), logs, strict=True):
            await bus.subscribe(Plain(name, receives="own", on=log))
        await bus.send(note(0))
        for log in logs:
            await log.entered.wait()
        await bus.send(note(1))
        sending = Sending(tasks, bus, note(2))
        await anyio.wait_all_tasks_blocked()
        logs[1].release.set()
        await eventually(lambda: len(logs[1].done) == 3)
        assert not sending.done
        logs[0].release.set()
        await eventually(lambda: sending.done and len(logs[0].done) == 3)


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_a_full_lane_holds_up_nobody_elses_messages(kind: str) -> None:
    """B9: what is addressed to somebody with room does not wait for somebody without."""
    async with held(kind, 1) as (bus, _):
        other = Plain("other", receives="own")
        await bus.subscribe(other)
        await bus.send(note(1, "it"))
        await bus.send(note(2, "other"))
        await other.until(1)


@every_kind
@pytest.mark.parametrize("target", ["it", None])
@pytest.mark.parametrize("lane", [Note, Alarm])
async def test_sending_to_ones_own_full_lane_from_ones_own_hook_is_refused(
    kind: str, target: str | None, lane: type[Note] | type[Alarm]
) -> None:
    """B9: it raises `anyio.WouldBlock`, for a broadcast too, and then nobody got it."""
    outcome: list[str] = []

    async def code(message: BusMessage) -> None:
        if message != lane(0, source="me", target="it"):
            return
        await bus.send(note(1, "it"))
        entered.set()
        await go_on.wait()
        try:
            await bus.send(note(2, target))
        except anyio.WouldBlock:
            outcome.append("refused")

    entered, go_on = anyio.Event(), anyio.Event()
    blocked, release = anyio.Event(), anyio.Event()
    other = Plain("other", receives="own")

    async def block(message: BusMessage) -> None:
        if message == note(9, "it"):
            blocked.set()
            await release.wait()
        else:
            await code(message)

    async with listening(kind, block, max_buffer_size=1) as bus:
        await bus.subscribe(other)
        if lane is Alarm:
            await bus.send(note(9, "it"))
            await blocked.wait()
        await bus.send(lane(0, source="me", target="it"))
        await entered.wait()
        go_on.set()
        await eventually(lambda: outcome)
        release.set()
        await bus.send(note(3, "other"))
        await other.until(1)
    assert [m for m in other.got if isinstance(m, Note)] == [note(3, "other")]


@pytest.mark.parametrize("first", ["other", "it"])
async def test_a_broadcast_that_is_refused_reaches_nobody_whoever_came_first(first: str) -> None:
    """B9: a refused message is not half sent."""
    refused = anyio.Event()

    async def code(message: BusMessage) -> None:
        if message == note(0, "it"):
            await bus.send(note(1, "it"))
            with pytest.raises(anyio.WouldBlock):
                await bus.send(note(2))
            refused.set()

    members = {"other": Plain("other", receives="own"), "it": Plain("it", receives="own", on=code)}
    async with MemoryBus(max_buffer_size=1) as bus:
        for name in sorted(members, key=first.__ne__):
            await bus.subscribe(members[name])
        await bus.send(note(0, "it"))
        await refused.wait()
        await bus.send(note(3))
        await members["it"].until(3)
        await members["other"].until(1)
    assert members["it"].got == [note(0, "it"), note(1, "it"), note(3)]
    assert members["other"].got == [note(3)]


@every_kind
async def test_sending_to_ones_own_lane_with_room_from_ones_own_hook_is_fine(kind: str) -> None:
    """B9: only the full lane refuses."""
    done: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        if message == note(0, "it"):
            await bus.send(note(1, "it"))
        done.append(message)

    async with listening(kind, code, max_buffer_size=1) as bus:
        await bus.send(note(0, "it"))
        await eventually(lambda: len(done) == 2)


async def test_a_job_handler_waits_for_room_in_its_workers_own_lane() -> None:
    """B9: it is no hook, and the hooks go on meanwhile."""
    log = Log(holds=Note)

    class Worker(Listener):
        @job(name="send")
        async def send(self, message: BusJobRequestMessage) -> None:
            await self.send_bus_message(note(2, "it"))

    async with running(Worker("it", log), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "it"))
        await log.entered.wait()
        async with runner.job("it", name="send"):
            log.release.set()
        await eventually(lambda: len(log.done) == 2)


class Asker(Helper):
    """Is stuck in a hook, with its data lane full, while it asks for jobs."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.log = Log(holds=Note)

    async def on_bus_message(self, message: BusMessage) -> None:
        await self.log(message)


class ChoosingAsker(Asker):
    """The same, with an ``accepts_bus_message`` of its own."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


class Talker(Helper):
    """Answers with a stream, or with updates."""

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id)
        for n in range(5):
            await self.send_job_stream_data(message.job_id, {"n": n})
        await self.send_job_stream_end(message.job_id)

    @job(name="tell")
    async def tell(self, message: BusJobRequestMessage) -> None:
        for n in range(5):
            await self.send_job_update(message.job_id, {"n": n})


@pytest.mark.parametrize("kind", [Asker, ChoosingAsker])
@pytest.mark.parametrize("name", ["echo", "stream", "tell"])
async def test_what_belongs_to_a_job_that_was_asked_for_is_never_held_up(kind: type[Asker], name: str) -> None:
    """B9: answers, updates and stream events, however full the lane."""
    asker = kind("asker")
    async with running(asker, Talker("talker"), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "asker"))
        await asker.log.entered.wait()
        await runner.bus.send(note(1, "asker"))
        for _ in range(3):
            await asker.job("talker", name=name)
        asker.log.release.set()


@pytest.mark.parametrize("kind", [Asker, ChoosingAsker])
async def test_what_belongs_to_a_job_that_was_asked_for_is_not_counted(kind: type[Asker]) -> None:
    """B9: answers that wait for the hook leave the room to others."""
    asker = kind("asker")
    async with running(asker, Talker("talker"), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "asker"))
        await asker.log.entered.wait()
        await asker.job("talker", name="tell")
        with anyio.fail_after(1):
            await runner.bus.send(note(1, "asker"))
        asker.log.release.set()


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_what_the_library_sends_is_never_held_up(kind: str) -> None:
    """B9: a worker with a full lane is still deactivated, activated and ended."""
    log = Log(holds=Note)
    worker = (Listener if kind == "worker" else Chooser)("it", log)
    async with running(worker, Helper("boss"), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "it"))
        await log.entered.wait()
        await runner.bus.send(note(1, "it"))
        boss = runner.get_worker("boss")
        assert isinstance(boss, Helper)
        await boss.deactivate_worker("it")
        await eventually(lambda: not worker.active)
        await runner.bus.send(BusActivateWorkerMessage(source="boss", target="it"))
        await eventually(lambda: worker.active)
        await runner.end()
        log.release.set()


async def test_a_worker_without_the_hook_is_never_full() -> None:
    """B9: the bound is on what waits for a hook or for ``on_bus_message``."""
    helper = Helper("helper")
    async with running(helper, bus=MemoryBus(max_buffer_size=1)) as runner:
        for n in range(20):
            await runner.bus.send(note(n, "helper"))
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(_ask, runner)
            await helper.begun.wait()
            helper.release.set()


async def _ask(runner: WorkerRunner) -> None:
    await runner.job("helper", name="wait")


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_what_waits_for_a_workers_start_is_bounded_too(kind: str) -> None:
    """B9, W2: and goes on, in its order, when the worker has started."""
    log = Log()
    bus = MemoryBus(max_buffer_size=2)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers((Listener if kind == "worker" else Chooser)("it", log))
    async with anyio.create_task_group() as tasks:
        await bus.send(note(0, "it"))
        await bus.send(note(1, "it"))
        sending = Sending(tasks, bus, note(2, "it"), note(3, "it"), note(4, "it"))
        await anyio.wait_all_tasks_blocked()
        assert not sending.done
        async with runner:
            await eventually(lambda: sending.done and len(log.done) == 5)
    assert lanes(log.done)[0] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_who_waits_for_the_start_of_a_worker_goes_on_when_it_starts_inactive(kind: str) -> None:
    """B9, W4: what waited is dropped by then, and leaves its room."""
    log = Log()

    class Idle(BaseWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await log(message)

    class ChoosingIdle(Idle):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    bus = MemoryBus(max_buffer_size=1)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers((Idle if kind == "worker" else ChoosingIdle)("it", active=False))
    async with anyio.create_task_group() as tasks:
        sending = Sending(tasks, bus, *(note(n, "it") for n in range(4)))
        await anyio.wait_all_tasks_blocked()
        assert not sending.done
        async with runner:
            await eventually(lambda: sending.done)
    assert log.got == []


async def test_a_worker_without_the_hook_is_not_full_before_its_start_either() -> None:
    """B9: nothing of it will wait for a hook."""
    bus = MemoryBus(max_buffer_size=1)
    helper = Helper("helper")
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(helper)
    with anyio.fail_after(1):
        for n in range(3):
            await bus.send(note(n, "helper"))
    async with runner:
        await runner.job("helper", name="echo")


async def test_a_worker_handles_what_its_own_handling_of_a_message_sends_to_it() -> None:
    """B1, B2: a bad answer cancels the rest of a group, and that rest is the worker itself."""
    helper = Helper("helper")

    class Failing(Helper):
        @job(name="wait")
        async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
            await helper.begun.wait()
            raise ZeroDivisionError

    peer = Failing("peer")
    async with running(helper, peer):
        with pytest.raises(JobGroupError):
            async with helper.job_group("helper", "peer", name="wait"):
                pass
        assert helper.unwound.is_set()


@pytest.mark.parametrize("kind", ["plain", "choosing worker"])
async def test_a_refused_message_gives_its_place_back(kind: str) -> None:
    """B9, N4: a sender that waits for room goes on when what was before it has been refused."""
    log = Log()

    class Picky(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return not (isinstance(message, Note) and message.n < 3)

    bus = MemoryBus(max_buffer_size=1)
    if kind == "plain":
        async with bus, anyio.create_task_group() as tasks:
            await bus.subscribe(Picky("it", on=log))
            sending = Sending(tasks, bus, *(note(n, "it") for n in range(5)))
            await eventually(lambda: sending.done and len(log.done) == 2)
    else:
        worker = Chooser("it", log)
        worker.refused = (0, 1, 2)
        async with running(worker, bus=bus), anyio.create_task_group() as tasks:
            sending = Sending(tasks, bus, *(note(n, "it") for n in range(5)))
            await eventually(lambda: sending.done and len(log.done) == 2)
    assert lanes(log.done)[0] == [3, 4]


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_senders_that_wait_for_a_worker_go_on_when_it_becomes_inactive(kind: str) -> None:
    """B9, W4: an inactive worker drops custom messages; whoever waits for room is not forgotten."""
    log = Log(holds=Note)
    worker = (Listener if kind == "worker" else Chooser)("it", log)
    bus = MemoryBus(max_buffer_size=1)
    async with running(worker, Helper("boss"), bus=bus) as runner, anyio.create_task_group() as tasks:
        await bus.send(note(0, "it"))
        await log.entered.wait()
        sending = Sending(tasks, bus, *(note(n, "it") for n in range(1, 6)))
        await anyio.wait_all_tasks_blocked()
        await runner.bus.send(BusActivateWorkerMessage(source="boss", target="it"))
        boss = runner.get_worker("boss")
        assert isinstance(boss, Helper)
        await boss.deactivate_worker("it")
        await eventually(lambda: not worker.active)
        log.release.set()
        await eventually(lambda: sending.done)


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_a_sender_that_waits_for_room_is_released_when_the_worker_stops(kind: str) -> None:
    """B9, B5: whoever waits for a worker that finishes goes on."""
    log = Log(holds=Note)
    worker = (Listener if kind == "worker" else Chooser)("it", log)
    bus = MemoryBus(max_buffer_size=1)
    async with running(worker, bus=bus), anyio.create_task_group() as tasks:
        await bus.send(note(0, "it"))
        await log.entered.wait()
        await bus.send(note(1, "it"))
        sending = Sending(tasks, bus, note(2, "it"))
        await anyio.wait_all_tasks_blocked()
        assert not sending.done
        await worker.stop()
        await eventually(lambda: sending.done)


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
@pytest.mark.parametrize("lane", [Note, Alarm])
async def test_a_worker_whose_hook_is_suspended_stops_at_once(kind: str, lane: type[Note] | type[Alarm]) -> None:
    """B2, W6: the hook is cancelled, and its end is noticed; nobody waits for `CLEANUP_SECONDS`."""
    log = Log(holds=lane)
    worker = (Listener if kind == "worker" else Chooser)("it", log)
    async with running(worker) as runner:
        await runner.bus.send(lane(0, source="me", target="it"))
        await log.entered.wait()
        with anyio.fail_after(1):
            await worker.stop()


@pytest.mark.parametrize("size", [1, 2])
async def test_sending_to_a_worker_with_a_full_lane_that_is_stopping_does_not_hang(size: int) -> None:
    """B9, B5: its handler is still cleaning up when somebody sends; nobody will ever take what waits."""
    log = Log(holds=Note)
    cleaning, cleaned = anyio.Event(), anyio.Event()

    class Slow(Listener):
        @job(name="slow")
        async def slow(self, message: BusJobRequestMessage) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                cleaning.set()
                with anyio.CancelScope(shield=True):
                    await cleaned.wait()

    worker = Slow("it", log)
    asker = Helper("asker")
    bus = MemoryBus(max_buffer_size=size)
    async with running(worker, asker, bus=bus), anyio.create_task_group() as tasks:
        await asker.request_job("it", name="slow")
        await bus.send(note(0, "it"))
        await log.entered.wait()
        for n in range(size):
            await bus.send(note(n + 1, "it"))
        tasks.start_soon(worker.stop)
        await cleaning.wait()
        await anyio.wait_all_tasks_blocked()
        sending = Sending(tasks, bus, note(9, "it"))
        await anyio.wait_all_tasks_blocked()
        cleaned.set()
        await worker.wait()
        await anyio.wait_all_tasks_blocked()
        assert sending.done
        tasks.cancel_scope.cancel()


async def test_a_request_that_finds_no_room_runs_into_its_timeout() -> None:
    """B9, J6: the deadline covers the wait for room."""
    log = Log(holds=Note)
    async with running(Listener("it", log), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.send(note(0, "it"))
        await log.entered.wait()
        await runner.bus.send(note(1, "it"))
        with pytest.raises(JobTimeoutError):
            await runner.job("it", name="any", timeout=0.05)
        log.release.set()


async def test_a_received_message_is_delivered_without_waiting() -> None:
    """B9: `on_message_received` is sync, past every bound."""
    async with held("plain", 1) as (bus, log):
        for n in range(1, 5):
            bus.on_message_received(note(n, "it"))
        log.release.set()
        await eventually(lambda: len(log.done) == 5)
    assert lanes(log.done)[0] == [0, 1, 2, 3, 4]


async def test_a_transport_that_awaits_deliver_waits_for_room() -> None:
    """B9: so that it reads no faster than the subscribers handle."""
    delivered = False

    async def deliver() -> None:
        nonlocal delivered
        await bus.deliver(note(2, "it"))
        delivered = True

    async with held("plain", 1) as (bus, log), anyio.create_task_group() as tasks:
        await bus.deliver(note(1, "it"))
        tasks.start_soon(deliver)
        await anyio.wait_all_tasks_blocked()
        assert not delivered
        log.release.set()
        await eventually(lambda: delivered and len(log.done) == 3)


async def test_messages_sent_before_a_transport_was_open_hold_up_nothing_of_the_library() -> None:
    """B9, B4: they wait for room; the jobs of others do not wait for them."""
    release = anyio.Event()

    async def stuck(_: BusMessage) -> None:
        await release.wait()

    bus = Wire(max_buffer_size=1)
    await bus.subscribe(Plain("slow", receives="own", on=stuck))
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(Helper("helper"))
    for n in range(4):
        await bus.send(note(n, "slow"))
    async with runner:
        with anyio.fail_after(5):
            await runner.job("helper", name="echo")
        release.set()


async def test_closing_a_transport_releases_who_waits_behind_what_was_sent_before_it_was_open() -> None:
    """B5, L1, L4: nobody waits for ever for a bus that is closed."""
    never = anyio.Event()

    async def stuck(_: BusMessage) -> None:
        await never.wait()

    bus = Wire(max_buffer_size=1)
    await bus.subscribe(Plain("slow", receives="own", on=stuck))
    for n in range(4):
        await bus.send(note(n, "slow"))
    with anyio.fail_after(CLEANUP_SECONDS + 1):
        async with anyio.create_task_group() as tasks:
            async with bus:
                sending = Sending(tasks, bus, note(4, "slow"))
                await anyio.wait_all_tasks_blocked()
                assert not sending.done
            await anyio.wait_all_tasks_blocked()
            assert sending.done
            tasks.cancel_scope.cancel()


async def test_statistics_tell_of_depth_and_deliveries() -> None:
    """B9: per subscriber depth, delivered, failed."""
    async with held("plain", 5) as (bus, log):
        await bus.send(note(1, "it"))
        await bus.send(note(2, "it"))
        before = bus.statistics().subscribers["it"]
        log.release.set()
        await eventually(lambda: len(log.done) == 3)
        after = bus.statistics().subscribers["it"]
    assert (before.depth, before.delivered, before.failed) == (2, 1, 0)
    assert (after.depth, after.delivered, after.failed) == (0, 3, 0)


async def test_statistics_of_a_worker_tell_what_waits_for_its_hook() -> None:
    """B9: per subscriber, workers too."""
    async with held("worker", 5) as (bus, log):
        await bus.send(note(1, "it"))
        await bus.send(note(2, "it"))
        assert bus.statistics().subscribers["it"].depth == 2
        log.release.set()
        await eventually(lambda: len(log.done) == 3)
        assert bus.statistics().subscribers["it"].depth == 0


async def test_statistics_are_a_frozen_snapshot() -> None:
    """B9: it does not change with the bus, and nobody can change it."""
    async with held("plain", 5) as (bus, _):
        before = bus.statistics()
        await bus.send(note(1, "it"))
        assert before.subscribers["it"].depth == 0
        for thing, field in ((before, "sent"), (before.subscribers["it"], "depth")):
            with pytest.raises(AttributeError):
                setattr(thing, field, 7)
    assert isinstance(before, BusStatistics)


def test_a_subscriber_without_a_name_says_what_it_lacks() -> None:
    """N1, B5: subscribers are told apart by name."""
    with pytest.raises(NotImplementedError, match="name"):
        _ = BusSubscriber().name
