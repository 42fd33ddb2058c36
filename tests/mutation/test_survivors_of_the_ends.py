"""Begins and ends of buses, runners, jobs and tasks, where changing the code had turned no test red."""

from typing import Any

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from support.job_handlers import slow_to_leave
from support.requesters import Raw
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobStatus,
    MemoryBus,
    ReservedNameError,
    WorkerReadyData,
    WorkerRunner,
    testing,
    worker_ready,
)
from workerbus.jobs._pool import IDLE_TASKS

# --- a runner


class Lagging(MemoryBus):
    """A bus on which nothing that this side sends arrives before `go_on`, once it lags."""

    publishes_at_once = False

    def __init__(self) -> None:
        super().__init__()
        self.lags, self.go_on = False, anyio.Event()

    async def publish(self, message: BusMessage) -> None:
        if self.lags:
            await self.go_on.wait()
        await super().publish(message)


async def test_an_answer_that_is_on_its_way_when_the_last_worker_leaves_still_counts() -> None:
    """J4, R7: the end of the runner waits for the announcement behind it."""
    bus, outcomes = Lagging(), list[Any]()
    runner = WorkerRunner(bus=bus, handle_sigint=False)

    async def answer(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        bus.lags = True
        return {"by": worker.name}

    doing = Doing("doing", answer)
    await runner.add_workers(doing)

    async def ask() -> None:
        await runner.registry.wait_for("doing")
        async with runner.job_group("doing", name="do", cancel_on_error=False) as group:
            pass
        outcomes.append((group.statuses, group.responses))

    async def stop() -> None:
        while not bus.lags:
            await checkpoint()
        await doing.stop()
        await anyio.wait_all_tasks_blocked()
        bus.go_on.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await runner.registry.wait_for("doing")
        tasks.start_soon(ask)
        tasks.start_soon(stop)
    assert outcomes == [({"doing": JobStatus.COMPLETED}, {"doing": {"by": "doing"}})]


@pytest.mark.parametrize("seed", range(8))
def test_an_event_handler_that_unwinds_in_a_step_or_two_is_not_said_to_refuse(
    backend: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """L4: though there is no time left, and whoever runs first."""
    unwound: list[bool] = []

    async def example() -> None:
        runner, told = WorkerRunner(handle_sigint=False), anyio.Event()

        async def hang(*_: object) -> None:
            told.set()
            try:
                await anyio.sleep_forever()
            finally:
                await cancel_shielded_checkpoint()
                unwound.append(True)

        runner.add_event_handler("on_error", hang)
        helper = Helper("helper")
        async with runner:
            await runner.add_workers(helper)
            await runner.registry.wait_for("helper")
            await helper.send_bus_error_message("oh")
            await told.wait()

    testing.run(example, backend=backend, seed=seed)
    assert unwound == [True]
    assert caplog.messages == []


async def test_a_worker_that_is_not_curious_is_told_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """B7: or starting N workers would cost N times N."""
    told: list[str] = []
    monkeypatch.setattr(BaseWorker, "tell_ready", lambda self, data: told.append(self.name))
    curious = Helper("curious")
    curious.add_event_handler("on_worker_ready", lambda *_: None)
    async with running(*(Helper(f"worker {n}") for n in range(5)), curious):
        pass
    assert set(told) == {"curious"}


# --- a job and its tasks


@pytest.mark.parametrize("there", [(), ("one",), ("two",)])
async def test_a_group_waits_for_each_worker_that_has_not_come(there: tuple[str, ...]) -> None:
    """J6: nobody is asked before all are there."""
    workers = {name: Helper(name) for name in ("one", "two")}
    async with running(*(workers[name] for name in there)) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            async with runner.job_group("one", "two", name="echo", payload={"n": 1}) as group:
                pass
            assert group.responses == {name: {"worker": name, "payload": {"n": 1}} for name in workers}

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        for name in workers.keys() - set(there):
            assert [worker.calls for worker in workers.values()] == [[], []]
            await runner.add_workers(workers[name])


async def test_a_worker_keeps_64_tasks_for_its_next_jobs() -> None:
    """W8: what was busy beside them ends."""
    helper = Helper("helper")

    def tasks() -> int:
        return sum(task.name == "helper job" for task in anyio.get_running_tasks())

    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        count = IDLE_TASKS + 5
        for n in range(count):
            await raw.ask(str(n), "helper", "wait")
        await anyio.wait_all_tasks_blocked()
        assert tasks() == count
        helper.release.set()
        await raw.until(count, BusJobResponseMessage)
        await anyio.wait_all_tasks_blocked()
        assert tasks() == IDLE_TASKS


async def test_a_worker_is_told_of_the_end_of_a_scope_that_was_left_long_ago() -> None:
    """J6: its deadline went with the request, whoever waits for the answer."""
    asker = Helper("asker")
    async with running(Doing("slow", slow_to_leave), asker) as runner:
        raw = await Raw.on(runner.bus)
        with anyio.move_on_after(3):
            job_id = await asker.request_job("slow", name="do")
        [message] = await raw.until(1, BusJobCancelMessage)
        assert isinstance(message, BusJobCancelMessage)
        assert (message.job_id, message.reason, anyio.current_time()) == (job_id, "timeout", 3)


async def test_nobody_watches_the_deadline_of_a_job_that_is_over() -> None:
    """L1: a task for each of many jobs with an hour would be there for that hour."""

    class Told(Helper):
        async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
            pass

    async with running(Told("told")) as runner:
        before = {task.id for task in anyio.get_running_tasks()}
        for _ in range(3):
            await runner.job("told", name="echo", timeout=3600)
        await testing.settle()
        names = {task.name for task in anyio.get_running_tasks() if task.id not in before}
        assert names == {"told job"}


async def test_a_handler_that_puts_its_cancellation_into_a_group_is_cancelled_all_the_same() -> None:
    """J5: it is answered when it has unwound, and not when its worker ends."""

    async def wraps(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as exc:
            raise BaseExceptionGroup("several", [exc]) from None

    async with running(Doing("wraps", wraps)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "wraps", "do")
        await anyio.wait_all_tasks_blocked()
        await raw.cancel("job", "wraps", "enough")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED


def test_a_watch_takes_no_name_of_the_librarys() -> None:
    """N1: as no job handler does."""
    with pytest.raises(ReservedNameError, match="Starts has an attribute 'start'"):

        class Starts(BaseWorker):
            @worker_ready(name="other")
            async def start(self, data: WorkerReadyData) -> None:  # type: ignore[override]  # on purpose
                pass


async def test_others_run_while_many_are_asked_in_contexts() -> None:
    """B2: each 64th request lets them, though nothing has to be waited for."""
    names = [f"helper {n}" for n in range(64)]
    ran: list[bool] = []

    async def other() -> None:
        ran.append(True)

    async with running(*map(Helper, names)) as runner, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(other)
        async with (
            runner.job_group(*names, name="echo"),
            runner.job_group(*names, name="echo"),
            runner.job_group(*names, name="echo"),
        ):
            assert ran
