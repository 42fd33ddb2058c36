"""B2: messages in the order of sending, and system messages first."""

from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.lanes import Log, every_kind, held, lanes
from support.listeners import Chooser, Listener, listening
from support.messages import Alarm, Note, alarm, note
from support.subscribers import Plain
from workerbus import BaseWorker, BusMessage, BusWorkerErrorMessage, MemoryBus, WorkerRunner


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
