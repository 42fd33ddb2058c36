"""B3, W7: what a subscriber raises, or a cancellation of its task, silences nobody."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import product

import anyio
import pytest

from support import clock
from support.conditions import eventually
from support.lanes import every_kind
from support.listeners import listening
from support.messages import Alarm, Note, alarm, note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BusMessage, BusWorkerErrorMessage, MemoryBus
from workerbus.testing import settle


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
async def test_a_subscriber_goes_on_whatever_it_failed_of_before(kind: str) -> None:
    """B3: of any three messages in a row, each is handled, fails, or cancels its task natively."""
    log: list[int] = []

    async def code(message: BusMessage) -> None:
        assert isinstance(message, Note)
        log.append(message.n)
        what = plan[message.n]
        if what == "fails":
            raise ZeroDivisionError("it broke")
        if what == "is cancelled":
            stale = asyncio.ensure_future(asyncio.sleep(60))
            stale.cancel()
            await stale

    plan = [what for three in product(("is handled", "fails", "is cancelled"), repeat=3) for what in three]
    async with listening(kind, code) as bus:
        for n in range(len(plan)):
            await bus.send(note(n, "it"))
        await eventually(lambda: len(log) == len(plan))
        await settle()
        assert log == list(range(len(plan)))
        assert bus.statistics().subscribers["it"].failed == len(plan) - plan.count("is handled")


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


async def test_a_failing_subscriber_is_named_in_the_log_and_in_the_report(caplog: pytest.LogCaptureFixture) -> None:
    """B3, W7: with the message's kind, and the error as it was."""

    def fail(message: BusMessage) -> None:
        if isinstance(message, Note):
            raise ValueError("oh")

    bus, failing, observer = MemoryBus(), Plain("failing", on=fail), Plain("observer")
    await bus.subscribe(failing)
    await bus.subscribe(observer)
    async with bus:
        await bus.send(note(1))
        [report] = await observer.until(1, BusWorkerErrorMessage)
        await failing.until(2)
        assert bus.statistics().subscribers["failing"].failed == 1
    assert report == BusWorkerErrorMessage("on_bus_message: ValueError: oh", source="failing")
    [record] = caplog.records
    assert record.getMessage() == "subscriber 'failing' failed to handle Note"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        ([ValueError("oh")], "ValueError: oh"),
        ([ValueError("oh"), KeyError("my")], "ExceptionGroup: several (2 sub-exceptions)"),
    ],
)
async def test_a_subscriber_that_fails_in_a_group_is_named_with_its_error(
    errors: list[Exception], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """B3, L6: one cause is reported as itself, and the next message is handled."""

    def fail(message: BusMessage) -> None:
        if message == note(1):
            raise ExceptionGroup("several", errors)

    bus, failing, observer = MemoryBus(), Plain("failing", on=fail), Plain("observer")
    await bus.subscribe(failing)
    await bus.subscribe(observer)
    async with bus:
        await bus.send(note(1))
        await bus.send(note(2))
        [report] = await observer.until(1, BusWorkerErrorMessage)
        await failing.until(3)
        assert bus.statistics().subscribers["failing"].failed == 1
    assert report == BusWorkerErrorMessage(f"on_bus_message: {text}", source="failing")
    assert caplog.messages == ["subscriber 'failing' failed to handle Note"]


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_subscriber_that_is_cancelled_at_the_end_has_not_failed(
    grouped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """L4, B3: also where it works with tasks of its own."""

    async def wait() -> None:
        if not grouped:
            await anyio.sleep_forever()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            tasks.start_soon(anyio.sleep_forever)

    bus, waiting = MemoryBus(), Plain("waiting", on=lambda _: wait())
    await bus.subscribe(waiting)
    async with bus:
        await bus.send(note(1))
        await waiting.until(1)
        await anyio.wait_all_tasks_blocked()
    assert caplog.messages == []
    assert bus.statistics().subscribers["waiting"].failed == 0


def test_a_subscriber_whose_task_is_cancelled_natively_has_failed_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """B3: nobody else has asked for it, and the next message is handled."""

    async def cancel_itself(message: BusMessage) -> None:
        task = asyncio.current_task()
        if task is not None and message == note(1):
            task.cancel()
            await asyncio.sleep(0)

    async def example() -> None:
        bus, failing = MemoryBus(), Plain("failing", on=cancel_itself)
        await bus.subscribe(failing)
        async with bus:
            await bus.send(note(1))
            await bus.send(note(2))
            await failing.until(2, Note)
            assert bus.statistics().subscribers["failing"].failed == 1

    clock.run(example, backend="asyncio")
    assert caplog.messages == ["subscriber 'failing' failed to handle Note"]


async def test_an_error_that_was_caused_by_anothers_is_not_sent_out() -> None:
    """B3, W7: it would go round for ever."""

    def fail(message: BusMessage) -> None:
        if isinstance(message, BusWorkerErrorMessage):
            raise ValueError("it went wrong")

    listening = Plain("listening", receives="own")
    async with MemoryBus() as bus:
        await bus.subscribe(Plain("fails", receives="own", on=fail))
        await bus.subscribe(listening)
        await bus.send(BusWorkerErrorMessage("an error", source="somebody"))
        await settle()
        assert [message.source for message in listening.of(BusWorkerErrorMessage)] == ["somebody"]


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


async def raise_the_cancellation(cancelled: BaseException) -> None:
    """Let it through."""
    raise cancelled


async def raise_it_in_a_group(cancelled: BaseException) -> None:
    """Do as a nursery of trio's does."""
    raise BaseExceptionGroup("cancelled", [cancelled])


@pytest.mark.parametrize("leave", [raise_the_cancellation, raise_it_in_a_group])
async def test_a_subscriber_that_was_cancelled_begins_nothing_more(
    leave: Callable[[BaseException], Awaitable[None]],
) -> None:
    """R6: what runs in the program's own bus is cancelled with it, and may learn of it before the bus is closed."""
    begun: list[BusMessage] = []
    unwound = anyio.Event()

    async def wait(message: BusMessage) -> None:
        begun.append(message)
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            unwound.set()
            await leave(cancelled)

    with anyio.CancelScope() as scope:
        async with MemoryBus() as bus:
            await bus.subscribe(Plain("slow", on=wait))
            await bus.send(note(1))
            await bus.send(note(2))
            await eventually(lambda: begun)
            with anyio.CancelScope(shield=True):
                scope.cancel()
                await unwound.wait()
                await anyio.wait_all_tasks_blocked()
    assert begun == [note(1)]
