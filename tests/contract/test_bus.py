"""B1, B4-B8: lanes and their tasks, sending before the start, subscribing, routing, announcements, local messages."""

import gc
import logging
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.buses import Wire
from support.conditions import eventually
from support.listeners import Chooser, Listener, listening
from support.messages import Alarm, Note, alarm, note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusCancelWorkerMessage,
    BusDataMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusLocalMessage,
    BusMessage,
    BusSubscriber,
    BusSystemMessage,
    BusWorkerGoneMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    JobStatus,
    MemoryBus,
    WorkerBus,
    WorkerRunner,
    bus_message,
)


def task_count() -> int:
    return len(anyio.get_running_tasks())


def this_task() -> int:
    return anyio.get_current_task().id


class Gate:
    """Code for a subscriber: it says when a handler has begun, and keeps it until it is opened."""

    def __init__(self) -> None:
        self.begun: list[BusMessage] = []
        self.ended: list[BusMessage] = []
        self.entered = anyio.Event()
        self.opened = anyio.Event()

    async def __call__(self, message: BusMessage) -> None:
        self.begun.append(message)
        self.entered.set()
        await self.opened.wait()
        self.ended.append(message)


# --- B1: streams and tasks


@pytest.mark.parametrize("kind", ["plain", "worker"])
async def test_a_lane_has_a_task_from_its_first_message_on(kind: str) -> None:
    """B1: a lane that had none has no task."""
    got: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        got.append(message)

    async with listening(kind, code) as bus:
        await anyio.wait_all_tasks_blocked()
        idle = task_count()
        await bus.send(note(0, "it"))
        await eventually(lambda: len(got) == 1)
        assert task_count() == idle + 1
        await bus.send(alarm(1, "it"))
        await eventually(lambda: len(got) == 2)
        assert task_count() == idle + 2
        await bus.send(note(2, "it"))
        await bus.send(alarm(3, "it"))
        await eventually(lambda: len(got) == 4)
        assert task_count() == idle + 2


async def test_subscribers_that_get_nothing_have_no_tasks() -> None:
    """B1: however many there are."""
    async with MemoryBus() as bus:
        before = task_count()
        for n in range(50):
            await bus.subscribe(Plain(f"plain-{n}", receives="own"))
        await bus.send(note(0, "nobody"))
        await anyio.wait_all_tasks_blocked()
        assert task_count() == before


class Nosy(Helper):
    """Keeps the tasks in which its code runs."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.tasks_of: dict[str, int] = {}

    def ran(self, what: str) -> None:
        self.tasks_of[what] = this_task()

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.ran("on_activated")

    async def on_deactivated(self) -> None:
        self.ran("on_deactivated")

    async def on_bus_message(self, message: BusMessage) -> None:
        self.ran(f"on_bus_message, {type(message).__name__}")

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        self.ran("on_job_request")


class NosyChooser(Nosy):
    """And says which messages it accepts."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        self.ran("accepts_bus_message")
        return True


@pytest.mark.parametrize("cls", [Nosy, NosyChooser])
async def test_user_code_never_runs_in_the_senders_step(cls: type[Nosy]) -> None:
    """B1: hooks, handlers, event handlers, acceptance: each runs in a task of the worker's."""
    worker = cls("it")
    handled: list[int] = []
    worker.add_event_handler("on_bus_message", lambda *_: handled.append(this_task()))
    async with running(worker) as runner:
        before = dict(worker.tasks_of)
        await runner.bus.send(BusDeactivateWorkerMessage(source="me", target="it"))
        await runner.bus.send(BusActivateWorkerMessage(source="me", target="it"))
        await runner.bus.send(note(1, "it"))
        await runner.bus.send(alarm(1, "it"))
        await runner.bus.send(BusJobRequestMessage("id", source="me", target="it"))
        assert worker.tasks_of == before
        await eventually(lambda: "on_job_request" in worker.tasks_of and len(handled) >= 5)
        await worker.send_job_response("id")
    assert this_task() not in {*worker.tasks_of.values(), *handled}
    assert {"on_deactivated", "on_bus_message, Note", "on_bus_message, Alarm"} <= set(worker.tasks_of)


async def test_a_plain_subscribers_code_never_runs_in_the_senders_step() -> None:
    """B1: neither `on_bus_message` nor `accepts_bus_message`."""
    tasks: list[int] = []

    class Asked(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            tasks.append(this_task())
            return True

    plain = Asked("it", on=lambda _: tasks.append(this_task()))
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.send(note(0))
        await bus.send(alarm(0))
        assert not tasks
        await plain.until(2)
    assert len(tasks) == 4
    assert this_task() not in tasks


def warnings_of(backend: str, function: Callable[[], Any]) -> list[Warning]:
    """Run an async function, throw everything away, and return what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clock.run(function, backend=backend)
        gc.collect()
    return [warning.message for warning in caught if isinstance(warning.message, Warning)]


def test_a_bus_that_was_never_run_leaves_no_unclosed_stream(backend: str) -> None:
    """B1: though messages were sent to subscribers and workers."""

    async def main() -> None:
        bus = MemoryBus()
        await bus.subscribe(Plain("it"))
        await WorkerRunner(bus=bus).add_workers(Helper("helper"), Chooser("chooser", Gate()))
        for n in range(3):
            await bus.send(note(n))
            await bus.send(alarm(n))

    assert warnings_of(backend, main) == []


def test_a_bus_that_has_run_leaves_no_unclosed_stream(backend: str) -> None:
    """B1, L1: neither of those who were subscribed to the end, nor of those who were not, busy or not."""

    async def main() -> None:
        gate = Gate()
        async with listening("plain", gate) as bus:
            gone = Plain("gone")
            await bus.subscribe(gone)
            for n in range(3):
                await bus.send(note(n))
                await bus.send(alarm(n))
            await gone.until(6)
            await bus.unsubscribe(gone)
            await gate.entered.wait()

    assert warnings_of(backend, main) == []


# --- B4: before the start


@pytest.mark.parametrize("kind", [MemoryBus, Wire])
async def test_what_was_sent_before_the_start_is_delivered_after_it(kind: type[WorkerBus]) -> None:
    """B4: in its order."""
    bus = kind()
    plain = Plain("it")
    await bus.subscribe(plain)
    for n in range(100):
        await bus.send(note(n))
    await anyio.wait_all_tasks_blocked()
    assert not plain.got
    async with bus:
        await plain.until(100)
    assert plain.got == [note(n) for n in range(100)]


async def test_who_subscribed_after_the_sending_does_not_get_it() -> None:
    """B4: what was sent before the start is for those subscribed when it was sent."""
    bus = MemoryBus()
    early, late = Plain("early"), Plain("late")
    await bus.subscribe(early)
    await bus.send(note(0))
    await bus.subscribe(late)
    await bus.send(note(1))
    async with bus:
        await early.until(2)
        await bus.send(note(2))
        await late.until(2)
        await early.until(3)
    assert early.got == [note(0), note(1), note(2)]
    assert late.got == [note(1), note(2)]


async def test_nothing_is_published_before_the_transport_is_connected() -> None:
    """B4, L5: ``publish`` is called when ``start`` has returned; what was sent before goes first, in its order."""

    class Slow(Wire):
        connected = False

        async def start(self) -> None:
            await checkpoint()
            self.connected = True

        async def publish(self, message: BusMessage) -> None:
            assert self.connected
            await super().publish(message)

    bus, plain = Slow(), Plain("it")
    await bus.subscribe(plain)
    for n in range(3):
        await bus.send(note(n))
    async with bus:
        for n in range(3, 6):
            await bus.send(note(n))
        await plain.until(6)
    assert plain.got == bus.published == [note(n) for n in range(6)]


async def test_who_left_before_the_start_gets_nothing() -> None:
    """B4, B5: and does not get it when it has come back."""
    bus = MemoryBus()
    plain, other = Plain("it"), Plain("other")
    await bus.subscribe(plain)
    await bus.subscribe(other)
    await bus.send(note(0))
    await bus.unsubscribe(plain)
    await bus.subscribe(plain)
    async with bus:
        await other.until(1)
        await bus.send(note(1))
        await plain.until(1)
    assert plain.got == [note(1)]


@pytest.mark.parametrize("make", [note, alarm])
async def test_an_active_worker_gets_what_was_sent_before_the_start(make: Callable[..., Note | Alarm]) -> None:
    """B4: data and system messages alike."""
    got: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        got.append(message)

    async with listening("worker", code, before=[make(0, "it")]) as bus:
        await bus.send(make(1, "it"))
        await eventually(lambda: make(1, "it") in got)
    assert got == [make(0, "it"), make(1, "it")]


async def test_a_subscriber_gets_everything_from_its_subscription_on() -> None:
    """B4: all that is sent after `subscribe` has returned, on a bus that is running already."""
    async with MemoryBus() as bus:
        for n in range(20):
            plain = Plain(f"plain-{n}")
            await bus.subscribe(plain)
            await bus.send(note(n))
            await plain.until(1)
            assert plain.got[0] == note(n)


async def test_a_bus_can_be_opened_again() -> None:
    """B4, R6: what was sent in between is delivered, the subscribers are still there."""
    plain = Plain("it")
    bus = MemoryBus()
    await bus.subscribe(plain)
    for n in range(3):
        await bus.send(note(2 * n))
        async with bus:
            await bus.send(note(2 * n + 1))
            await plain.until(2 * n + 2)
    assert plain.got == [note(n) for n in range(6)]


# --- B5: subscribing and unsubscribing


async def test_subscribing_again_changes_nothing() -> None:
    """B5: the same object is a no-op; it does not get anything twice, and loses nothing that waits."""
    bus = MemoryBus()
    plain = Plain("it")
    await bus.subscribe(plain)
    await bus.send(note(0))
    await bus.subscribe(plain)
    async with bus:
        await bus.subscribe(plain)
        await bus.send(note(1))
        await plain.until(2)
        await anyio.wait_all_tasks_blocked()
    assert plain.got == [note(0), note(1)]


async def test_a_taken_name_is_refused() -> None:
    """B5: a `ValueError`, and who has the name keeps it."""
    first, second = Plain("it"), Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(first)
        with pytest.raises(ValueError, match="'it'"):
            await bus.subscribe(second)
        await bus.send(note(0))
        await first.until(1)
        await bus.unsubscribe(first)
        await bus.subscribe(second)
        await bus.send(note(1))
        await second.until(1)
    assert first.got == [note(0)]
    assert second.got == [note(1)]


async def test_unsubscribing_somebody_else_of_that_name_changes_nothing() -> None:
    """B5: subscriptions belong to objects."""
    first, second = Plain("it"), Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(first)
        await bus.unsubscribe(second)
        await bus.unsubscribe(Plain("stranger"))
        await bus.send(note(0))
        await first.until(1)


async def test_no_delivery_begins_after_unsubscribing() -> None:
    """B5: neither of what waits nor of what is sent later."""
    plain, other = Plain("it"), Plain("other")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.subscribe(other)
        for n in range(5):
            await bus.send(note(n))
            await bus.send(alarm(n))
        await bus.unsubscribe(plain)
        begun = len(plain.got)
        await bus.send(note(5))
        await other.until(11)
        await anyio.wait_all_tasks_blocked()
    assert len(plain.got) == begun


async def test_no_delivery_begins_after_unsubscribing_a_parked_subscriber() -> None:
    """B5: its dispatcher waits for a message, gets one, and is unsubscribed before it could run."""
    plain = Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.send(note(0))
        await bus.send(alarm(0))
        await plain.until(2)
        await anyio.wait_all_tasks_blocked()
        await bus.send(note(1))
        await bus.send(alarm(1))
        await bus.unsubscribe(plain)
        await anyio.wait_all_tasks_blocked()
    assert len(plain.got) == 2


async def test_a_delivery_under_way_is_let_finish() -> None:
    """B5: in both lanes; `unsubscribe` does not wait for it."""
    gate = Gate()
    plain = Plain("it", on=gate)
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.send(note(0))
        await bus.send(alarm(0))
        await bus.send(note(1))
        await eventually(lambda: len(gate.begun) == 2)
        await bus.unsubscribe(plain)
        assert gate.ended == []
        gate.opened.set()
        await eventually(lambda: len(gate.ended) == 2)
        await anyio.wait_all_tasks_blocked()
    assert note(1) not in gate.begun


@pytest.mark.parametrize("make", [note, alarm])
async def test_a_subscriber_can_unsubscribe_from_inside_its_own_handler(make: Callable[..., Note | Alarm]) -> None:
    """B5: the handler goes on to its end, and is the last."""
    finished: list[BusMessage] = []

    async def leave(message: BusMessage) -> None:
        await bus.unsubscribe(plain)
        await checkpoint()
        finished.append(message)

    plain = Plain("it", on=leave)
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        for n in range(3):
            await bus.send(make(n))
        await eventually(lambda: finished)
        await bus.send(make(3))
        await anyio.wait_all_tasks_blocked()
    assert plain.got == finished == [make(0)]


async def test_a_subscriber_can_come_back_from_inside_its_own_handler() -> None:
    """B5, B4: it gets what is sent from then on, and nothing of what it left."""

    async def renew(message: BusMessage) -> None:
        if message == note(0):
            await bus.unsubscribe(plain)
            await bus.subscribe(plain)
            await bus.send(note(9))

    plain = Plain("it", on=renew)
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        for n in range(3):
            await bus.send(note(n))
        await plain.until(2)
        await anyio.wait_all_tasks_blocked()
    assert plain.got == [note(0), note(9)]


async def test_unsubscribing_releases_who_waits_for_room() -> None:
    """B5: the sender goes on; the others have got the message."""
    gate = Gate()
    plain, other = Plain("it", receives="own", on=gate), Plain("other")
    sent = anyio.Event()

    async def send() -> None:
        await bus.send(note(2))
        await bus.send(note(3))
        sent.set()

    async with MemoryBus(max_buffer_size=1) as bus, anyio.create_task_group() as tasks:
        await bus.subscribe(plain)
        await bus.subscribe(other)
        await bus.send(note(0, "it"))
        await gate.entered.wait()
        await bus.send(note(1, "it"))
        tasks.start_soon(send)
        await other.until(3)
        await anyio.wait_all_tasks_blocked()
        assert not sent.is_set()
        await bus.unsubscribe(plain)
        await sent.wait()
        gate.opened.set()
        await other.until(4)
    assert gate.begun == [note(0, "it")]


async def test_unsubscribing_from_inside_the_handler_releases_who_waits_for_room() -> None:
    """B5: the same where the subscriber itself leaves."""
    gate = Gate()
    sent = anyio.Event()

    async def leave(message: BusMessage) -> None:
        await gate(message)
        await bus.unsubscribe(plain)

    async def send() -> None:
        await bus.send(note(2))
        sent.set()

    plain = Plain("it", on=leave)
    async with MemoryBus(max_buffer_size=1) as bus, anyio.create_task_group() as tasks:
        await bus.subscribe(plain)
        await bus.send(note(0))
        await gate.entered.wait()
        await bus.send(note(1))
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
        await sent.wait()
        await anyio.wait_all_tasks_blocked()
    assert set(gate.begun) <= {note(0), note(1)}


async def test_closing_the_bus_releases_who_waits_for_room() -> None:
    """B5, L1: nobody waits for ever for a bus that is closed."""
    gate = Gate()
    sent = anyio.Event()

    async def send() -> None:
        await bus.send(note(2))
        sent.set()

    async with anyio.create_task_group() as tasks:
        async with MemoryBus(max_buffer_size=1) as bus:
            await bus.subscribe(Plain("it", on=gate))
            await bus.send(note(0))
            await gate.entered.wait()
            await bus.send(note(1))
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
        await sent.wait()


async def test_subscribers_that_have_left_leave_no_tasks() -> None:
    """B5, L1: their dispatchers end, those that wait for a message too."""
    async with MemoryBus() as bus:
        before = task_count()
        for n in range(10):
            plain = Plain(f"plain-{n}")
            await bus.subscribe(plain)
            await bus.send(note(n))
            await bus.send(alarm(n))
            await plain.until(2)
            await bus.unsubscribe(plain)
        await anyio.wait_all_tasks_blocked()
        assert task_count() == before
        assert bus.statistics().subscribers == {}


async def test_unsubscribing_before_the_start_works() -> None:
    """B5: at any time."""
    bus = MemoryBus()
    plain = Plain("it")
    await bus.subscribe(plain)
    await bus.unsubscribe(plain)
    await bus.unsubscribe(plain)
    async with bus:
        await bus.unsubscribe(plain)
        await bus.subscribe(plain)
        await bus.send(note(0))
        await plain.until(1)


# --- B6: routing


async def test_a_plain_subscriber_gets_everything() -> None:
    """B6: broadcasts, and what is addressed to it, to others and to nobody."""
    plain = Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.subscribe(Plain("other", receives="own"))
        sent = [note(0), note(1, "it"), note(2, "other"), note(3, "nobody")]
        for message in sent:
            await bus.send(message)
        await plain.until(4)
    assert plain.got == sent


async def test_who_receives_its_own_gets_broadcasts_and_what_is_addressed_to_it() -> None:
    """B6: ``receives = "own"``; once each."""
    plain = Plain("it", receives="own")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.subscribe(Plain("other"))
        for message in (note(0), note(1, "other"), note(2, "it"), note(3, "nobody"), note(4)):
            await bus.send(message)
        await plain.until(3)
    assert plain.got == [note(0), note(2, "it"), note(4)]


async def test_a_worker_gets_broadcasts_and_what_is_addressed_to_it() -> None:
    """B6: as `BaseWorker` has it."""
    got: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        got.append(message)

    async with listening("worker", code) as bus:
        for message in (note(0), note(1, "other"), note(2, "it"), note(3)):
            await bus.send(message)
        await eventually(lambda: note(3) in got)
    assert got == [note(0), note(2, "it"), note(3)]


async def test_a_worker_can_receive_everything() -> None:
    """B6: with ``receives = "all"``, the announcements included; what is another's it does not do."""

    class Observer(Helper):
        receives = "all"

        def __init__(self) -> None:
            super().__init__("observer")
            self.got: list[BusMessage] = []

        async def on_bus_message(self, message: BusMessage) -> None:
            self.got.append(message)

    observer, helper = Observer(), Helper("helper")
    async with running(observer) as runner:
        await runner.add_workers(helper)
        await runner.registry.wait_for("helper")
        await runner.job("helper", name="echo")
        await runner.bus.send(BusDeactivateWorkerMessage(source="me", target="helper"))
        await helper.stop()
        await eventually(lambda: any(isinstance(each, BusDeactivateWorkerMessage) for each in observer.got))
        assert observer.active
        assert observer.calls == []
    kinds = {type(message) for message in observer.got}
    assert {BusJobRequestMessage, BusDeactivateWorkerMessage} <= kinds
    assert {BusWorkerReadyMessage, BusWorkerGoneMessage} <= kinds


async def steps_of_sending(crowd: int) -> int:
    """How many instructions it takes to send to the last of a crowd, when all that is done once has been done."""
    steps: list[int] = []

    def count(frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        steps[-1] += event == "opcode"
        return count

    async with MemoryBus() as bus:
        for n in range(crowd):
            await bus.subscribe(Plain(f"plain-{n}", receives="own"))
        message, before = note(1, f"plain-{crowd - 1}"), sys.gettrace()
        for _ in range(5):
            steps.append(0)
            sys.settrace(count)
            try:
                await bus.send(message)
            finally:
                sys.settrace(before)
    return min(steps)


async def test_a_targeted_message_costs_the_same_however_many_subscribers_there_are() -> None:
    """B6: one look-up."""
    assert await steps_of_sending(5000) == await steps_of_sending(2)


class Deaf(Helper):
    """Overrides ``on_bus_message`` without ``super()``, and notes what the worker was like when it was called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.seen: list[tuple[str, bool, object]] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        await checkpoint()
        self.seen.append((type(message).__name__, self.active, self.activation_args))

    def names(self) -> list[str]:
        return [name for name, _, _ in self.seen]


async def test_the_built_in_handling_needs_no_super() -> None:
    """B6: `on_bus_message` is a hook like the others."""
    worker = Deaf("it")
    async with running(worker) as runner:
        assert (await runner.job("it", name="echo"))["worker"] == "it"
        await runner.bus.send(BusDeactivateWorkerMessage(source="me", target="it"))
        await eventually(lambda: not worker.active)


async def test_the_hook_comes_after_the_built_in_handling() -> None:
    """B6: it sees the worker as the message has made it."""
    worker = Deaf("it")
    async with running(worker) as runner:
        await runner.bus.send(BusDeactivateWorkerMessage(source="me", target="it"))
        await eventually(lambda: len(worker.seen) == 1)
        await runner.bus.send(BusActivateWorkerMessage({"n": 1}, source="me", target="it"))
        await eventually(lambda: len(worker.seen) == 2)
        seen = list(worker.seen)
    assert seen == [("BusDeactivateWorkerMessage", False, None), ("BusActivateWorkerMessage", True, {"n": 1})]


async def test_the_hook_sees_every_message_of_the_workers() -> None:
    """B6: of the library too."""
    worker = Deaf("it")
    async with running(worker, Helper("peer")) as runner:
        await runner.job("it", name="echo")
        await worker.job("peer", name="echo")
        await runner.bus.send(note(0, "it"))
        await runner.bus.send(alarm(0))
        await eventually(lambda: len(worker.seen) >= 4)
    assert {"BusJobRequestMessage", "BusJobResponseMessage", "Note", "Alarm"} <= set(worker.names())


@pytest.mark.parametrize("make", [BusEndWorkerMessage, BusCancelWorkerMessage])
async def test_the_hook_for_an_end_comes_before_the_worker_stops(
    make: type[BusEndWorkerMessage] | type[BusCancelWorkerMessage],
) -> None:
    """B6: it is run, to its end, while the worker has not finished."""
    worker = Deaf("it")
    finished = anyio.Event()

    async def note_finish() -> None:
        await worker.wait()
        assert make.__name__ in worker.names()
        finished.set()

    async with running(worker, Helper("other")) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(note_finish)
        await runner.bus.send(make("enough", source="me", target="it"))
        await finished.wait()


# --- B7: announcements


async def test_starting_many_workers_queues_nothing_for_the_others() -> None:
    """B7: starting N workers costs O(N)."""
    count = 60
    async with running() as runner:
        await runner.add_workers(*(Deaf(f"worker-{n}") for n in range(count)))
        for n in range(count):
            await runner.registry.wait_for(f"worker-{n}")
        await anyio.wait_all_tasks_blocked()
        statistics = runner.bus.statistics().subscribers
        workers = [worker for n in range(count) if isinstance(worker := runner.get_worker(f"worker-{n}"), Deaf)]
        assert len(workers) == count
        assert sum(statistics[worker.name].delivered + statistics[worker.name].depth for worker in workers) <= count
        assert not any({"BusWorkerReadyMessage", "BusWorkerRegistryMessage"} & set(each.names()) for each in workers)
        assert statistics[runner.name].delivered <= 2 * count


@pytest.mark.parametrize("receives", ["all", "own"])
async def test_observers_get_the_announcements(receives: str) -> None:
    """B7: they are meant for runners and observers."""
    observer = Plain("observer", receives=receives)
    bus = MemoryBus()
    await bus.subscribe(observer)
    async with running(Helper("helper"), bus=bus) as runner:
        (ready,) = await observer.until(1, BusWorkerReadyMessage)
        worker = runner.get_worker("helper")
        assert worker is not None
        await worker.stop()
        (gone,) = await observer.until(1, BusWorkerGoneMessage)
    assert ready.source == gone.source == "helper"


# --- B8: local messages


@bus_message
class Secret(BusDataMessage, BusLocalMessage):
    """An own local message."""

    n: int = 0


@bus_message
class UrgentSecret(BusLocalMessage, BusSystemMessage):
    """Another, with the mixin first."""

    n: int = 0


class Heir(Secret):
    """One that is local because its base is."""


@pytest.mark.parametrize("make", [Secret, UrgentSecret, Heir])
async def test_a_local_message_is_delivered_but_never_published(make: Callable[..., BusMessage]) -> None:
    """B8: whatever makes it local."""
    bus = Wire()
    plain = Plain("it")
    await bus.subscribe(plain)
    await bus.send(make(0, source="me"))
    async with bus:
        await bus.send(make(1, source="me"))
        await bus.send(note(0))
        await plain.until(3)
    assert bus.published == [note(0)]


@pytest.mark.parametrize("make", [Secret, UrgentSecret, Heir])
async def test_a_local_message_from_a_network_is_refused(
    make: Callable[..., BusMessage], caplog: pytest.LogCaptureFixture
) -> None:
    """B8: by both ways in; it is counted and logged."""
    plain = Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        bus.on_message_received(make(0, source="me"))
        await bus.deliver(make(0, source="me"))
        bus.on_message_received(note(0))
        await plain.until(1)
        await anyio.wait_all_tasks_blocked()
        assert bus.statistics().refused == 2
    assert plain.got == [note(0)]
    assert [record.levelno for record in caplog.records if "local" in record.message] == [logging.WARNING] * 2


async def test_what_the_library_sends_locally_is_never_published() -> None:
    """B8: a child that is added, and a child's error."""
    bus = Wire()
    failed = anyio.Event()

    class Parent(Helper):
        async def on_worker_failed(self, data: object) -> None:
            failed.set()

    parent, child = Parent("parent"), Helper("child")
    async with running(parent, bus=bus):
        await parent.add_workers(child)
        await eventually(lambda: child.started_at is not None)
        await child.send_bus_error_message("broken")
        await failed.wait()
    assert not [each for each in bus.published if isinstance(each, BusAddWorkerMessage | BusWorkerLocalErrorMessage)]
    assert any(isinstance(each, BusWorkerReadyMessage) for each in bus.published)


async def test_a_runner_works_on_a_bus_that_takes_a_while_to_publish() -> None:
    """B8, N1: `publish`, `deliver` and no more make a transport."""
    bus = Wire()
    async with running(Helper("helper"), Helper("asker"), bus=bus) as runner:
        asker = runner.get_worker("asker")
        assert isinstance(asker, BaseWorker)
        async with asker.job_group("helper", "asker", name="echo", payload={"n": 1}) as group:
            pass
    assert set(group.statuses.values()) == {JobStatus.COMPLETED}
    assert any(isinstance(message, BusJobRequestMessage) for message in bus.published)


async def test_only_a_subscriber_can_subscribe() -> None:
    """B5: anything else is refused at once."""
    async with MemoryBus() as bus:
        with pytest.raises(TypeError, match="BusSubscriber"):
            await bus.subscribe(object())  # type: ignore[arg-type]  # on purpose


async def test_a_subscriber_says_all_or_own() -> None:
    """B6: anything else in ``receives`` is a `ValueError`."""

    class Odd(BusSubscriber):
        receives = "some"  # type: ignore[assignment]  # on purpose

        @property
        def name(self) -> str:
            return "odd"

    async with MemoryBus() as bus:
        with pytest.raises(ValueError, match="some"):
            await bus.subscribe(Odd())


def test_listener_is_a_worker_of_the_kind_that_receives_its_own() -> None:
    """B6: ``receives = "own"``, as `BaseWorker` has it; ``"all"`` for a plain one."""
    assert Listener("it", Gate()).receives == "own"
    assert BusSubscriber.receives == "all"
