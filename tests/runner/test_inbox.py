"""B2, R2: what a runner handles, and in which order."""

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.buses import PoliteBus
from support.conditions import eventually
from support.messages import Alarm, Note, alarm, note
from support.runners import runner_on
from support.workers import Helper
from workerbus import (
    BusAddWorkerMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    JobError,
    JobStatus,
    MemoryBus,
    WorkerReadyData,
    WorkerRegistryEntry,
    WorkerRunner,
)
from workerbus.runner._inbox import RunnerInbox
from workerbus.testing import run, settle


class Overridden(WorkerRunner):
    """Does ``on`` with the notes and alarms that it gets; the others are a runner's."""

    def __init__(self, on: Callable[[BusMessage], Awaitable[None]], **kwargs: Any) -> None:
        super().__init__(name="runner", handle_sigint=False, **kwargs)
        self.on = on

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            await self.on(message)
        else:
            await super().on_bus_message(message)


async def test_a_runner_handles_a_system_message_while_data_messages_wait() -> None:
    """B2: after at most one more of those, though none of them suspends."""
    heard: list[int] = []

    async def on(message: BusMessage) -> None:
        assert isinstance(message, Note | Alarm)
        heard.append(message.n)
        if message.n == 3:
            await runner.bus.send(alarm(100, "runner"))

    async with Overridden(on) as runner:
        for n in range(10):
            await runner.bus.send(note(n, "runner"))
        await settle()
        assert heard.index(100) in (4, 5)
        assert len(heard) == 11


@pytest.mark.parametrize("chooses", [False, True])
async def test_a_runner_whose_class_looks_at_messages_sees_the_announcements_of_others(chooses: bool) -> None:
    """N4, R6: in their order; what they say, it knows already where the others are on its bus."""
    seen: list[str] = []

    class Looking(WorkerRunner):
        async def on_bus_message(self, message: BusMessage) -> None:
            seen.append(f"{type(message).__name__} {message.source}")
            await super().on_bus_message(message)

    class Choosy(Looking):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return "secret" not in message.source

    kind = Choosy if chooses else Looking
    async with (
        MemoryBus() as bus,
        kind(bus=bus, handle_sigint=False) as looking,
        runner_on(bus, "other") as other,
    ):
        for name in ("remote", "secret"):
            helper = Helper(name)
            await other.add_workers(helper)
            assert (await looking.registry.wait_for(name)).runner == "other"
        await helper.stop()
        await settle()
        assert looking.registry.remote_workers == ["remote"]
        for name in ("far", "secret far"):
            await bus.send(BusWorkerReadyMessage("elsewhere", source=name))
        entries = [WorkerRegistryEntry(name) for name in ("far", "secret far")]
        await bus.send(BusWorkerRegistryMessage("elsewhere", entries[: 1 if chooses else 2], source="elsewhere"))
        await settle()
        assert ("secret far" in looking.registry) is not chooses
        assert "far" in looking.registry
    announced = [line for line in seen if line.startswith("BusWorker")]
    assert announced[:2] == ["BusWorkerRegistryMessage other", "BusWorkerReadyMessage remote"]
    expected = [
        "BusWorkerReadyMessage secret",
        "BusWorkerGoneMessage secret",
        "BusWorkerReadyMessage far",
        "BusWorkerReadyMessage secret far",
        "BusWorkerRegistryMessage elsewhere",
        "BusWorkerGoneMessage remote",
    ]
    assert announced[2:] == [line for line in expected if not chooses or "secret" not in line]


async def test_an_announcement_from_elsewhere_that_a_runner_does_not_accept_counts_for_nothing() -> None:
    """N4"""

    class Choosy(WorkerRunner):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return message.source != "secret"

    async with Choosy(handle_sigint=False) as runner:
        for name in ("secret", "far"):
            await runner.bus.send(BusWorkerReadyMessage("elsewhere", source=name))
        await settle()
        assert runner.registry.remote_workers == ["far"]


async def test_who_watches_for_a_worker_elsewhere_is_told_before_the_runner_ends() -> None:
    """G1, R2: one after the other; what waits for that is counted. When the runner has ended nobody is told more."""
    told: list[str] = []

    async def take_long(data: WorkerReadyData) -> None:
        await anyio.sleep(0.5)
        told.append(data.worker_name)

    async with WorkerRunner(name="runner", handle_sigint=False) as runner:
        for name in ("one", "two"):
            await runner.registry.watch(name, take_long)
            await runner.bus.send(BusWorkerReadyMessage("elsewhere", source=name))
        await settle()
        assert runner.bus.statistics().subscribers["runner"].depth == 1
        for name in ("one", "two"):
            assert name in runner.registry
    assert told == ["one", "two"]
    assert runner._inbox is not None
    assert runner._inbox.calls.closed


async def test_an_announcement_that_nobody_can_read_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """B3: and the next one is read."""
    async with WorkerRunner(name="runner", handle_sigint=False) as runner:
        await runner.bus.send(BusWorkerRegistryMessage("elsewhere", None, source="elsewhere"))  # type: ignore[arg-type]  # wrong
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="far"))
        assert "far" in runner.registry
        counts = runner.bus.statistics().subscribers["runner"]
    assert (counts.delivered, counts.failed) == (2, 1)
    assert "runner 'runner' failed to handle BusWorkerRegistryMessage" in caplog.messages


@pytest.mark.parametrize("send", [note, alarm])
async def test_a_runner_ends_when_it_has_handled_what_has_come(send: Callable[[int, str], BusMessage]) -> None:
    """B5, R2: in either lane; the lanes are closed then."""
    handled: list[BusMessage] = []

    async def on(message: BusMessage) -> None:
        await anyio.sleep(1)
        handled.append(message)

    message = send(1, "runner")
    async with Overridden(on) as runner:
        await runner.bus.send(message)
    assert handled == [message]
    inbox = runner._inbox
    assert inbox is not None
    assert inbox._system.closed
    assert inbox._data.closed


async def test_the_tasks_of_a_runner_s_lanes_say_whose_they_are() -> None:
    """L1"""

    async def on(message: BusMessage) -> None:
        """Do nothing."""

    async with Overridden(on) as runner:
        await runner.bus.send(note(1, "runner"))
        await runner.bus.send(alarm(1, "runner"))
        await settle()
        names = {task.name for task in anyio.get_running_tasks()}
    assert {"runner system dispatcher", "runner data dispatcher"} <= names


class Choosy(WorkerRunner):
    """Accepts everything, and is asked."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


class ChoosyOverridden(Overridden):
    """The same, and is asked whether it accepts."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


def test_a_runner_that_chooses_is_asked_of_system_messages_first(backend: str) -> None:
    """B2, N4: while data messages wait to be accepted, and while they wait for `on_bus_message`, too."""
    asked: list[int] = []
    heard: list[int] = []

    class Noting(ChoosyOverridden):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            if isinstance(message, Note | Alarm):
                asked.append(message.n)
            return True

    async def main() -> None:
        go_on = anyio.Event()

        async def on(message: BusMessage) -> None:
            assert isinstance(message, Note | Alarm)
            if message.n == 0:
                await go_on.wait()
            heard.append(message.n)

        async with Noting(on) as runner:
            for n in range(5):
                await runner.bus.send(note(n, "runner"))
            await runner.bus.send(alarm(100, "runner"))
            await settle()
            assert asked.index(100) <= 1
            go_on.set()
            await runner.bus.send(alarm(200, "runner"))
            await settle()
            assert heard.index(200) <= heard.index(0) + 2

    for seed in range(6):
        asked.clear()
        heard.clear()
        run(main, backend=backend, seed=seed)


@pytest.mark.parametrize("kind", [Overridden, ChoosyOverridden])
@pytest.mark.parametrize("make", [note, alarm])
async def test_the_on_bus_message_of_a_runner_may_await_a_job_of_the_runners(
    kind: type[Overridden], make: Callable[..., Note | Alarm]
) -> None:
    """R7, W8: its answer is handled while the hook waits."""
    got: list[Any] = []

    async def on(message: BusMessage) -> None:
        got.append((await runner.job("helper", name="echo"))["worker"])

    async with kind(on) as runner:
        await runner.add_workers(Helper("helper"))
        for n in range(2):
            await runner.bus.send(make(n, "runner"))
        await eventually(lambda: got == ["helper", "helper"])


@pytest.mark.parametrize("kind", [Overridden, ChoosyOverridden])
async def test_news_of_other_runners_does_not_wait_for_the_on_bus_message_of_a_runner(kind: type[Overridden]) -> None:
    """R6, J4: it may ask for a job of a worker that is still to come, and hears when that has gone."""
    errors: list[str] = []

    async def on(message: BusMessage) -> None:
        waiting.set()
        try:
            await runner.job("far", name="echo")
        except JobError as exc:
            errors.append(exc.reason)

    waiting = anyio.Event()
    async with kind(on) as runner:
        await runner.bus.send(note(0, "runner"))
        await waiting.wait()
        await settle()
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="far"))
        await settle()
        await runner.bus.send(BusWorkerGoneMessage("elsewhere", source="far"))
        await eventually(lambda: errors)
    assert "left without an answer" in errors[0]


@pytest.mark.parametrize("kind", [WorkerRunner, Choosy])
async def test_each_message_that_a_runner_handles_is_counted_once(kind: type[WorkerRunner]) -> None:
    """B9: an answer, one for another's job, and one that adds a worker."""
    async with kind(name="runner", handle_sigint=False) as runner:
        await runner.add_workers(Helper("helper"))
        await runner.registry.wait_for("helper")
        await settle()
        counts = [runner.bus.statistics().subscribers["runner"].delivered]
        for _ in range(2):
            await runner.job("helper", name="echo")
            await runner.bus.send(BusAddWorkerMessage("nobody", source="me", target="runner"))
            await settle()
            counts.append(runner.bus.statistics().subscribers["runner"].delivered)
    assert [after - before for before, after in pairwise(counts)] == [2, 2]


@pytest.mark.parametrize("why", ["refused", "closed"])
def test_an_answer_that_a_runner_refuses_or_that_comes_too_late_is_not_handled(why: str) -> None:
    """N4, B5"""
    nobody: Any = None  # it is not asked
    inbox = RunnerInbox(
        "runner",
        client=nobody,
        add=nobody,
        departed=nobody,
        discovery=nobody,
        handle=nobody,
        observe=nobody,
        accepts=(lambda _: False) if why == "refused" else None,
    )
    if why == "closed":
        inbox.close()
    inbox.take(BusJobResponseMessage("1", JobStatus.COMPLETED, {}, source="w", target="runner"))
    assert inbox.statistics().delivered == 0


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_runner_that_chooses_hears_of_departures_at_once(refuses: bool) -> None:
    """J4, N4: a job whose answer was lost ends with the announcement, and not when that counts as lost, too."""

    class Lossy(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if not isinstance(message, BusJobResponseMessage):
                await super().publish(message)

    class Refusing(Choosy):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            assert message.source != "helper" or not message.announcement  # it knows its own workers without that
            return False

    helper = Helper("helper")
    async with (Refusing if refuses else Choosy)(bus=Lossy(), handle_sigint=False) as runner:
        await runner.add_workers(helper)
        begin = current_time()
        with pytest.raises(JobError, match="left without an answer"):  # noqa: PT012 - by what is done in the context
            async with runner.job("helper", name="wait"):
                await helper.begun.wait()
                await helper.stop()
        assert current_time() == begin


async def test_what_waits_for_a_runner_is_counted() -> None:
    """B9: in both lanes."""
    gate = anyio.Event()

    async def on(message: BusMessage) -> None:
        await gate.wait()

    async with Overridden(on) as runner:
        for n in range(3):
            await runner.bus.send(alarm(n, "runner"))
        await settle()
        assert runner.bus.statistics().subscribers["runner"].depth == 2
        for n in range(3):
            await runner.bus.send(note(n, "runner"))
        await settle()
        assert runner.bus.statistics().subscribers["runner"].depth == 4
        gate.set()
