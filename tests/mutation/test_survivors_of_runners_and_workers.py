"""What a runner and its workers do at their ends, in corners where changing the code had turned no test red."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.messages import Note, note
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    JobError,
    JobStatus,
    MemoryBus,
    WorkerRunner,
)

# --- the end of a runner


async def test_a_body_that_a_signal_has_cancelled_does_not_cut_the_wind_down_short() -> None:
    """R5: that is left to the next signal."""
    cleaned: list[str] = []

    class Careful(BaseWorker):
        async def cleanup(self) -> None:
            await anyio.sleep(1)
            cleaned.append(self.name)

    async with running(Careful("careful")) as runner:
        runner.clean_up.interruptible = True
        await runner.cancel("SIGINT")
        await anyio.sleep_forever()
    assert cleaned == ["careful"]


async def test_a_worker_that_comes_while_the_bus_is_closed_leaves_it_again() -> None:
    """L1, W6: it was being added when the end came, and is never started."""
    stopping, added = anyio.Event(), anyio.Event()

    class Slow(MemoryBus):
        async def subscribe(self, subscriber: BusSubscriber) -> None:
            if subscriber.name == "late":
                await stopping.wait()
            await super().subscribe(subscriber)

        async def stop(self) -> None:
            stopping.set()
            await added.wait()

    bus, late = Slow(), Helper("late")

    async def add() -> None:
        await runner.add_workers(late)
        added.set()

    async with anyio.create_task_group() as tasks, running(bus=bus) as runner:
        tasks.start_soon(add)
        await anyio.wait_all_tasks_blocked()
    await late.wait()
    assert not bus.has_subscriber("late")
    assert (late.started_at, runner.get_worker("late")) == (None, None)


async def test_a_runner_that_ends_hears_the_answers_to_its_own_jobs(caplog: pytest.LogCaptureFixture) -> None:
    """J5, R7: those of another runner's workers, too, which take their time."""
    begun, errors = anyio.Event(), list[JobError]()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await ended.wait()
            for _ in range(20):
                await checkpoint()

    async def ask(near: WorkerRunner) -> None:
        try:
            await near.job("far", name="do")
        except JobError as exc:
            errors.append(exc)

    ended = anyio.Event()
    async with (
        MemoryBus() as bus,
        running(Doing("far", unwinds), bus=bus),
        anyio.create_task_group() as tasks,
        running(bus=bus) as near,
    ):
        await near.registry.wait_for("far")
        tasks.start_soon(ask, near)
        await begun.wait()
        await near.end()
        ended.set()
    assert [error.statuses for error in errors] == [{"far": JobStatus.CANCELLED}]
    assert caplog.messages == []


async def test_a_runner_that_ends_handles_what_was_sent_before() -> None:
    """B5, L3: the message that it is handling, and those behind it."""
    handled: list[BusMessage] = []

    class Careful(WorkerRunner):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await anyio.sleep(0.5)
                handled.append(message)
            await super().on_bus_message(message)

    async with Careful(handle_sigint=False) as runner:
        for n in range(3):
            await runner.bus.send(note(n))
    assert handled == [note(n) for n in range(3)]


async def test_a_job_goes_on_when_another_runner_gives_up_its_claim_to_the_worker_s_name() -> None:
    """G4, J4: the worker that was asked is still there."""
    helper = Helper("helper")
    runner = WorkerRunner(handle_sigint=False)
    conflict = anyio.Event()
    runner.add_event_handler("on_error", lambda *_: conflict.set())
    async with runner:
        await runner.add_workers(helper)
        async with runner.job("helper", name="wait") as asked:
            await helper.begun.wait()
            await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="helper"))
            await conflict.wait()
            await runner.bus.send(BusWorkerGoneMessage("elsewhere", source="helper"))
            await anyio.wait_all_tasks_blocked()
            assert runner.registry.workers_of("elsewhere") == []
            helper.release.set()
    assert asked.response == {"released": True}
