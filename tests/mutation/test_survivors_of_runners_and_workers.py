"""What a runner and its workers do at their ends, in corners where changing the code had turned no test red."""

import time
from typing import Any, Generic, TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.buses import PoliteBus
from support.job_handlers import never
from support.messages import Note, note
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    JobError,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerRegistry,
    WorkerRunner,
)

T = TypeVar("T")


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


async def test_the_task_that_waits_for_a_departure_says_whose_it_is() -> None:
    """L1, J4: while the announcement is on its way."""
    names: set[str] = set()

    class Seeing(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            await super().publish(message)
            names.update(str(task.name) for task in anyio.get_running_tasks())

    silent = Doing("silent", never)
    async with running(silent, name="runner", bus=Seeing()) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(JobError):
                await runner.job("silent", name="do")

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await silent.stop()
    assert "runner departure of silent" in names


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


# --- the ends of a worker


def test_a_worker_class_may_have_other_bases_with_wishes_of_their_own() -> None:
    """N1: a subclass is a class like any other."""
    made: list[str] = []

    class Labelled:
        def __init_subclass__(cls, *, label: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            made.append(label)

    class Labels(BaseWorker, Labelled, label="here"):
        pass

    class Typed(BaseWorker, Generic[T]):
        pass

    assert made == ["here"]
    assert Typed[int]("typed").name == "typed"
    with pytest.raises(TypeError, match="takes no keyword arguments"):
        type("Wrong", (BaseWorker,), {}, colour="red")


async def test_the_clean_up_of_a_worker_has_the_time_that_the_run_has_left() -> None:
    """L4: its run() has taken a second of it."""

    class Slow(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            try:
                await super().run(params)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)

        async def cleanup(self) -> None:
            await anyio.sleep_forever()

    async with running(Slow("slow")) as runner:
        begun = anyio.current_time()
        await runner.cancel()
        await anyio.sleep_forever()
    assert anyio.current_time() - begun == pytest.approx(CLEANUP_SECONDS)


async def test_the_clean_up_of_a_worker_that_never_ran_takes_it_off_the_bus() -> None:
    """W6, N1: its name is free again, and it has finished."""
    bus, helper = MemoryBus(), Helper("helper")
    await helper.attach(registry=WorkerRegistry("runner"), bus=bus)
    assert bus.has_subscriber("helper")
    await helper.cleanup()
    await helper.wait()
    assert not bus.has_subscriber("helper")


async def test_a_worker_says_when_it_has_gone() -> None:
    """G2, J4: by its runner's clock, so that older news of it count for none."""
    async with MemoryBus() as bus:
        observer, helper = Plain("observer"), Helper("helper")
        await bus.subscribe(observer)
        async with running(helper, bus=bus):
            before = time.time()
            await helper.stop()
            [gone] = await observer.until(1, BusWorkerGoneMessage)
            after = time.time()
    assert isinstance(gone, BusWorkerGoneMessage)
    assert gone.finished_at is not None
    assert before <= gone.finished_at <= after


async def test_a_child_that_could_not_be_attached_at_its_parent_s_start_is_free_again() -> None:
    """W5, R3: the parent fails, and another may have the child."""

    class Refusing(MemoryBus):
        broken = True

        async def subscribe(self, subscriber: BusSubscriber) -> None:
            if self.broken and subscriber.name == "child":
                raise OSError("no connection")
            await super().subscribe(subscriber)

    bus, child, parent, other = Refusing(), Helper("child"), Helper("parent"), Helper("other")
    await parent.add_workers(child)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    runner.add_event_handler("on_error", lambda *_: None)
    async with runner:
        await runner.add_workers(parent, other)
        await parent.wait()
        assert (child.parent, parent.children) == (None, [])
        bus.broken = False
        await runner.registry.wait_for("other")
        await other.add_workers(child)
        assert await runner.job("child", name="echo") == {"worker": "child", "payload": None}
