"""B1: the streams and tasks of lanes, and where the code of users never runs."""

import gc
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from support import clock
from support.buses import Wire
from support.conditions import eventually
from support.lanes import Gate
from support.listeners import Chooser, listening
from support.messages import alarm, note
from support.remarks import Remark
from support.runners import quiet_runner
from support.subscribers import Plain
from support.wind_downs import Busy
from support.workers import Helper, running
from workerbus import (
    BusActivateWorkerMessage,
    BusDeactivateWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    MemoryBus,
    WorkerErrorData,
    WorkerRunner,
)


def task_count() -> int:
    return len(anyio.get_running_tasks())


def this_task() -> int:
    return anyio.get_current_task().id


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


def test_what_was_never_run_leaves_no_unclosed_stream(backend: str) -> None:
    """B1, L1."""

    async def never_run() -> None:
        runner = quiet_runner()
        await runner.add_workers(Busy("busy"), Helper("helper"))
        await runner.bus.subscribe(Plain("plain"))
        for _ in range(3):
            await runner.bus.send(Remark("unheard", source="test"))
        await runner.end()
        runner.worker_error(WorkerErrorData("busy", "unheard"))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clock.run(never_run, backend=backend)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


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
