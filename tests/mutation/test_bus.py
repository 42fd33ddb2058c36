"""What a bus and its subscribers do at the edges, where no other test looks closely."""

import asyncio
import gc
import math
import weakref
from contextlib import nullcontext
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.buses import Wire
from support.conditions import eventually
from support.messages import Note, alarm, note
from support.subscribers import Plain
from workerbus import (
    CLEANUP_SECONDS,
    BusAddWorkerMessage,
    BusJobUpdateMessage,
    BusMessage,
    BusSubscriber,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    MemoryBus,
    MessageTypeError,
    NameTakenError,
    NotRunningError,
    WorkerRunner,
)


class Failing(Wire):
    """A bus that cannot publish even notes."""

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, Note) and not message.n % 2:
            raise OSError("no connection")
        await super().publish(message)


async def test_what_could_not_be_sent_at_the_start_is_logged_and_the_next_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B4, B3: the log names the bus and the kind of message, with a traceback."""
    bus, plain = Failing(name="wire"), Plain("plain")
    await bus.subscribe(plain)
    for n in range(4):
        await bus.send(note(n))
    async with bus:
        await plain.until(2)
        await eventually(lambda: len(caplog.records) == 2)
        await bus.send(note(5))
        await plain.until(3)
    assert [message.n for message in plain.got if isinstance(message, Note)] == [1, 3, 5]
    assert caplog.messages == ["bus 'wire' could not send Note"] * 2
    assert all(record.exc_info and isinstance(record.exc_info[1], OSError) for record in caplog.records)


async def test_what_the_library_could_not_send_is_logged_and_the_next_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B9, B3."""
    bus, plain = Failing(name="wire"), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        for n in range(4):
            bus.post(note(n))
        await plain.until(2)
        await eventually(lambda: len(caplog.records) == 2)
    assert caplog.messages == ["bus 'wire' could not send Note"] * 2
    assert all(record.exc_info and isinstance(record.exc_info[1], OSError) for record in caplog.records)


async def test_a_subscriber_without_a_name_is_told_so() -> None:
    """B5."""

    class Nameless(BusSubscriber):
        pass

    with pytest.raises(NotImplementedError, match=r"^Nameless needs a 'name'"):
        await MemoryBus().subscribe(Nameless())


async def test_a_subscriber_that_asks_its_base_class_accepts_everything() -> None:
    """N4: by default everything is accepted."""

    class Asking(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return super().accepts_bus_message(message)

    bus, plain = MemoryBus(), Asking("plain")
    await bus.subscribe(plain)
    async with bus:
        await bus.send(note(1))
        assert await plain.until(1) == [note(1)]


@pytest.mark.parametrize("size", [1, math.inf])
async def test_what_nobody_has_the_name_of_is_counted(size: float) -> None:
    """B9: on a bounded bus as well; who receives everything gets it all the same."""
    bus, observer = MemoryBus(max_buffer_size=size), Plain("observer")
    await bus.subscribe(Plain("plain"))
    async with bus:
        await bus.send(note(1, target="nobody"))
        await bus.subscribe(observer)
        await bus.send(note(2, target="nobody"))
        await bus.send(note(3, target="plain"))
        await observer.until(2)
        assert bus.statistics().undelivered == 2
    assert [message.n for message in observer.got if isinstance(message, Note)] == [2, 3]


async def test_an_update_finds_room_where_there_is_none() -> None:
    """B9: for the one that asked, and for nobody else."""
    release = anyio.Event()
    bus = MemoryBus(max_buffer_size=1)
    asker, other = Plain("asker", on=lambda _: release.wait()), Plain("other", receives="own", on=lambda _: None)
    await bus.subscribe(asker)
    await bus.subscribe(other)
    async with bus:
        await bus.send(note(1, target="asker"))
        await asker.until(1)
        await bus.send(note(2, target="asker"))
        update = BusJobUpdateMessage("job", source="other", target="asker")
        await bus.send(update)
        assert bus.statistics().subscribers["asker"].depth == 2
        held = BusJobUpdateMessage("job", source="asker", target="other")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bus.send, held)
                await other.until(1)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        release.set()
        await asker.until(3)
    assert asker.got == [note(1, target="asker"), note(2, target="asker"), update]
    assert other.got == [held]


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


@pytest.mark.parametrize("steps", range(4))
async def test_what_is_sent_goes_out_behind_what_was_posted_before(steps: int) -> None:
    """B9, B2: also where publishing takes time, and wherever the earlier one is on its way."""

    class SlowAtFirst(Wire):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, Note) and message.n == 1:
                for _ in range(10):
                    await checkpoint()
            await super().publish(message)

    bus, plain = SlowAtFirst(), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        bus.post(note(1))
        for _ in range(steps):
            await checkpoint()
        await bus.send(note(2))
        await plain.until(2)
    assert plain.got == [note(1), note(2)]


async def test_the_statistics_count_what_users_and_what_the_library_sent() -> None:
    """B9."""
    bus = MemoryBus()
    await bus.subscribe(Plain("plain"))
    async with bus:
        for n in range(2):
            await bus.send(note(n))
        for n in range(3):
            bus.post(note(n))
        assert bus.statistics().sent == 5


async def test_a_bus_that_is_opened_again_goes_on_where_it_was() -> None:
    """B6, R6: who receives everything still does, who receives its own still does, and the counts go on."""
    bus, everything, own = MemoryBus(), Plain("everything"), Plain("own", receives="own")
    await bus.subscribe(everything)
    await bus.subscribe(own)
    for n in range(3):
        async with bus:
            await bus.send(note(n, target="another"))
            await bus.send(note(n, target="own"))
            await everything.until(2 * n + 2)
            await own.until(n + 1)
            counts = bus.statistics().subscribers
            assert (counts["everything"].delivered, counts["own"].delivered) == (2 * n + 2, n + 1)


async def test_what_is_not_held_up_takes_no_room() -> None:
    """B9: updates for the one that asked are not counted, so that others have all the room."""
    release, bus = anyio.Event(), MemoryBus(max_buffer_size=2)
    asker = Plain("asker", on=lambda _: release.wait())
    await bus.subscribe(asker)
    async with bus:
        for n in range(5):
            await bus.send(BusJobUpdateMessage("job", {"n": n}, source="me", target="asker"))
        await bus.send(note(1, target="asker"))
        await bus.send(note(2, target="asker"))
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bus.send, note(3, target="asker"))
                await anyio.wait_all_tasks_blocked()
                assert bus.statistics().subscribers["asker"].depth == 6
                scope.cancel()
        release.set()
        await asker.until(7)
    assert asker.of(Note) == [note(1, target="asker"), note(2, target="asker")]


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


@pytest.mark.parametrize("message", [note(1), alarm(1)])
async def test_subscribers_that_refuse_to_end_are_waited_for_and_named(
    message: BusMessage, caplog: pytest.LogCaptureFixture
) -> None:
    """L4: whatever lane they are in."""

    async def refuse() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(CLEANUP_SECONDS + 1)

    bus = MemoryBus(name="bus")
    for name in ("one", "two", "three"):
        await bus.subscribe(Plain(name, on=None if name == "two" else lambda _: refuse()))
    async with bus:
        await bus.send(message)
        await anyio.wait_all_tasks_blocked()
    assert caplog.messages == ["bus 'bus' waits for subscribers that refuse cancellation: 'one', 'three'"]


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


async def test_the_tasks_of_a_subscriber_say_whose_they_are() -> None:
    """B1, L1: one for each lane, from its first message on."""

    def dispatchers() -> list[str]:
        return sorted(str(task.name) for task in anyio.get_running_tasks() if "dispatcher" in str(task.name))

    bus, plain = MemoryBus(), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        assert dispatchers() == []
        await bus.send(note(1))
        await plain.until(1)
        assert dispatchers() == ["plain data dispatcher"]
        await bus.send(alarm(1))
        await plain.until(2)
        assert dispatchers() == ["plain data dispatcher", "plain system dispatcher"]
    assert dispatchers() == []


# --- names, and what is said of a bus


def test_a_bus_without_a_name_gets_one_of_its_own() -> None:
    """For logs."""
    one, two = MemoryBus(), Wire()
    assert one.name.startswith("MemoryBus-")
    assert two.name.startswith("Wire-")
    assert MemoryBus().name != one.name
    assert MemoryBus(name="bus").name == "bus"


async def test_a_bus_that_is_not_open_says_what_to_do() -> None:
    """R6: its tasks are there while it is open."""
    bus, worked = MemoryBus(name="bus"), anyio.Event()

    async def work() -> None:
        worked.set()

    for _ in range(2):
        with pytest.raises(NotRunningError) as caught:
            _ = bus.tasks
        assert str(caught.value) == "bus 'bus' is not open: use 'async with bus:', or give it to a runner"
        async with bus:
            bus.tasks.start(work, name="work")
            await worked.wait()


async def test_a_bus_that_is_open_says_for_whom() -> None:
    """R6."""
    bus = MemoryBus(name="bus")
    text = "open it once, around everything that uses it"
    async with bus:
        with pytest.raises(NotRunningError) as caught:
            await bus.__aenter__()
        assert str(caught.value) == f"bus 'bus' is open already: {text}"
    async with WorkerRunner(name="runner", bus=bus, handle_sigint=False):
        with pytest.raises(NotRunningError) as caught:
            await bus.__aenter__()
        assert str(caught.value) == f"bus 'bus' is open already by runner 'runner': {text}"


async def test_a_name_that_is_taken_says_where() -> None:
    """B5."""
    bus = MemoryBus(name="bus")
    await bus.subscribe(Plain("plain"))
    with pytest.raises(NameTakenError, match=r"^the name 'plain' is taken on bus 'bus': "):
        await bus.subscribe(Plain("plain"))


async def test_the_tasks_of_a_bus_say_what_they_are_for() -> None:
    """L1."""
    seen: set[str] = set()

    class Seeing(Wire):
        async def publish(self, message: BusMessage) -> None:
            seen.add(str(anyio.get_current_task().name))
            await super().publish(message)

    bus, plain = Seeing(name="bus"), Plain("plain")
    await bus.subscribe(plain)
    for n in range(2):
        await bus.send(note(n))
        async with bus:
            bus.post(note(2))
            await plain.until(2 * n + 2)
        assert seen == {"bus early dispatcher", "bus outbox dispatcher"}
        seen.clear()


# --- starts that fail, and interruptions


class NotConnecting(MemoryBus):
    """A bus that starts a reader and then finds that it cannot connect."""

    broken = True

    async def start(self) -> None:
        self.tasks.start(anyio.sleep_forever, name="reader")
        await checkpoint()
        if self.broken:
            raise OSError("no connection")


async def test_a_bus_that_could_not_be_opened_is_closed_and_can_be_opened_again() -> None:
    """L1, L6: nothing of it runs, and the error is itself."""
    bus, plain = NotConnecting(), Plain("plain")
    await bus.subscribe(plain)
    with pytest.raises(OSError, match="no connection"):
        await bus.__aenter__()
    assert not bus.is_open
    assert [task.name for task in anyio.get_running_tasks() if task.name == "reader"] == []
    bus.broken = False
    async with bus:
        await bus.send(note(1))
        assert await plain.until(1) == [note(1)]


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


# --- ends


async def test_what_the_library_has_posted_goes_out_before_the_bus_is_closed() -> None:
    """L4."""
    bus = Wire()
    async with bus:
        for n in range(3):
            bus.post(note(n))
    assert [message.n for message in bus.published if isinstance(message, Note)] == [0, 1, 2]


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


# --- fairness, and what is refused


def some(steps: int) -> bool:
    """Whether it is about once in 64, of 640."""
    return 8 <= steps <= 13


async def test_a_sender_that_never_waits_lets_others_run_now_and_then() -> None:
    """B2: every 64th `send()` yields, uncancellably, after the message is in."""
    bus, steps, stop = MemoryBus(), 0, False

    async def count() -> None:
        nonlocal steps
        while not stop:
            steps += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await checkpoint()
        before = steps
        with anyio.CancelScope() as scope:
            scope.cancel()
            for n in range(640):
                await bus.send(note(n))
        assert not scope.cancelled_caught
        stop = True
        assert some(steps - before)
    assert bus.statistics().sent == 640


async def test_a_subscriber_that_never_waits_lets_others_run_now_and_then() -> None:
    """B1, B2: a lane yields once after 64 messages without a pause."""
    seen: list[int] = []
    steps, stop = 0, False

    def look(_: BusMessage) -> None:
        seen.append(steps)

    bus, plain = MemoryBus(), Plain("plain", on=look)
    await bus.subscribe(plain)
    for n in range(640):
        await bus.send(note(n))

    async def count() -> None:
        nonlocal steps
        while not stop:
            steps += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks, bus:
        tasks.start_soon(count)
        await plain.until(640)
        stop = True
    assert some(seen[-1] - seen[0])


@pytest.mark.parametrize("message", ["text", None, BusMessage(source="me")])
async def test_what_is_no_message_with_a_lane_is_refused_by_name(message: Any) -> None:
    """N5: and not counted."""
    bus = MemoryBus()
    with pytest.raises(MessageTypeError) as caught:
        await bus.send(message)
    text = "a message is an instance of a subclass of BusDataMessage or BusSystemMessage"
    assert str(caught.value) == f"cannot send {message!r}: {text}"
    assert bus.statistics().sent == 0


async def test_a_local_message_from_a_network_is_refused_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """B8."""
    bus, plain = MemoryBus(name="bus"), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        await bus.deliver(BusAddWorkerMessage("somebody", source="me"))
        bus.on_message_received(BusAddWorkerMessage("somebody", source="me"))
        await bus.send(note(1))
        await plain.until(1)
    assert plain.got == [note(1)]
    assert bus.statistics().refused == 2
    assert caplog.messages == ["bus 'bus' refused a local BusAddWorkerMessage from the network"] * 2


async def test_a_subscriber_that_has_left_is_forgotten() -> None:
    """L1, B5."""
    bus, plain = MemoryBus(), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        await bus.send(note(1))
        await plain.until(1)
        await bus.unsubscribe(plain)
        await anyio.wait_all_tasks_blocked()
        gone = weakref.ref(plain)
        del plain
        gc.collect()
        assert gone() is None


async def test_a_local_message_of_the_library_waits_for_no_network() -> None:
    """B8, B9: it never reaches `publish`, and so not the line before it."""
    connected = anyio.Event()

    class Stuck(Wire):
        async def publish(self, message: BusMessage) -> None:
            await connected.wait()
            await super().publish(message)

    bus, plain = Stuck(), Plain("plain")
    await bus.subscribe(plain)
    local = BusWorkerLocalErrorMessage("oh", source="me", target="plain")
    async with bus:
        bus.post(note(1))
        bus.post(local)
        await plain.until(1)
        assert plain.got == [local]
        connected.set()
        await plain.until(2)
    assert bus.published == [note(1)]


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
