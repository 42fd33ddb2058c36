"""R2: how long an end waits for jobs and for workers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import CancelScope, Event, create_task_group, current_time, sleep, sleep_forever

from support.endings import HANGING, SOON, Endless, Told, Working, hanging, outcome
from support.leaks import nothing_left
from support.messages import Alarm, Note, note
from support.requesters import Raw
from support.runners import cut_short, quiet_runner, runner_on
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    JobError,
    JobGroupResponse,
    JobStatus,
    MemoryBus,
    WorkerErrorData,
    WorkerGoneData,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.testing import settle
from workerbus.worker._core import core_of


async def test_a_second_end_does_not_begin_the_grace_period_again() -> None:
    """R2."""
    endless, runner = Endless("endless"), quiet_runner(grace_period=1.0)

    async def end_twice(_: WorkerRunner) -> None:
        await runner.end("first")
        await sleep(0.8)
        await runner.end("second")

    runner.add_event_handler("on_ready", end_twice)
    await runner.add_workers(endless)
    begun = current_time()
    await runner.run()
    assert 1.0 - SOON < current_time() - begun < 1.0 + SOON
    assert endless.reasons()[0] == (BusEndWorkerMessage, "first")
    assert "second" not in [reason for _, reason in endless.reasons()]


async def test_jobs_under_way_are_cancelled_at_once_without_a_job_grace() -> None:
    """R2: the default is 0."""
    working, outcomes = Working("working"), list[str]()
    async with running(working) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome(runner, "working", "work", outcomes, payload={"seconds": 1}))
        await working.begun.wait()
        begun = current_time()
        await runner.end()
        await working.wait()
        assert current_time() - begun < SOON
    assert outcomes == ["cancelled"]


async def test_jobs_under_way_get_their_grace() -> None:
    """R2: a job that is done in time is completed, one that is not is cancelled when the time is over."""
    quick, slow, outcomes = Working("quick"), Working("slow"), list[str]()
    async with running(quick, slow, job_grace=2.0) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome(runner, "quick", "work", outcomes, payload={"seconds": 1}))
        group.start_soon(lambda: outcome(runner, "slow", "work", outcomes, payload={"seconds": 100}))
        await quick.begun.wait()
        await slow.begun.wait()
        begun = current_time()
        await runner.end()
        await quick.wait()
        assert current_time() - begun < 1.0 + SOON
        await slow.wait()
        assert 2.0 - SOON < current_time() - begun < 2.0 + SOON
    assert outcomes == ["completed", "cancelled"]


async def test_a_deferred_job_is_under_way_until_it_is_answered() -> None:
    """R2, J2: it gets its grace, too."""
    working, outcomes = Working("working"), list[str]()
    async with running(working, job_grace=2.0) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome(runner, "working", "defer", outcomes))
        await working.begun.wait()
        await runner.end()
        await sleep(1.0)
        await working.send_job_response(working.calls[0])
        await working.wait()
    assert outcomes == ["completed"]


async def test_an_end_comes_as_soon_as_a_handler_that_had_answered_returns() -> None:
    """R2: it waits for the handler, and not for the rest of the grace."""

    class Slow(BaseWorker):
        @job(name="work")
        async def work(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id)
            await sleep(1.0)

    slow, outcomes = Slow("slow"), list[str]()
    async with running(slow, job_grace=5.0) as runner:
        begun = current_time()
        await outcome(runner, "slow", "work", outcomes)
        await runner.end()
        await slow.wait()
        assert 1.0 - SOON < current_time() - begun < 1.0 + SOON
    assert outcomes == ["completed"]


class Asking(Told):
    """Asks for jobs, and keeps what its hooks hear of them."""

    def __init__(self, name: str = "asking") -> None:
        super().__init__(name)
        self.heard: list[str] = []

    async def on_job_update(self, message: BusMessage) -> None:
        self.heard.append("update")

    async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        self.heard.append(str(message.status))

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        await sleep(0.5)
        self.heard.append("all")


class Reporting(Working):
    @job(name="report")
    async def report(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await sleep(1)
            await self.send_job_update(message.job_id, {})
            await sleep(1)
        finally:
            self.unwound.set()


@asynccontextmanager
async def asked(
    grace: float, asking: BaseWorker, working: Reporting | None = None, ends_in: float = 2.5
) -> AsyncIterator[Reporting]:
    """Let a worker ask one on another runner for a job; then end the first one, whose last seconds these are."""
    working = working or Reporting("working")
    async with MemoryBus() as bus, runner_on(bus, "others") as others, runner_on(bus, "it", job_grace=grace) as runner:
        await others.add_workers(working)
        await runner.add_workers(asking)
        await runner.registry.wait_for("asking")
        yield working
        await working.begun.wait()
        begun = current_time()
        await runner.end()
        await asking.wait()
        assert current_time() - begun == pytest.approx(min(grace, ends_in), abs=SOON)
        await working.unwound.wait()


@pytest.mark.parametrize("grace", [0.0, 1.5, 2.25, 5.0])
async def test_jobs_that_a_worker_has_asked_for_get_the_grace_and_so_do_the_hooks_of_their_answers(
    grace: float,
) -> None:
    """R2: by default it is 0, and they are cancelled at once; so is a hook that runs when it is over."""
    asking = Asking()
    async with asked(grace, asking):
        await asking.request_job("working", name="report")
    heard = {0.0: [], 1.5: ["update"], 2.25: ["update", "completed"], 5.0: ["update", "completed", "all"]}
    assert asking.heard == heard[grace]


async def test_a_worker_that_does_nothing_but_ask_for_a_job_gets_the_grace() -> None:
    """R2: one without hooks and handlers has nothing else to wait for."""
    answers: list[str] = []

    async def ask(worker: BaseWorker) -> None:
        await worker.job("working", name="report")
        answers.append("completed")

    async with create_task_group() as tasks:
        asking = BaseWorker("asking")
        async with asked(5.0, asking, ends_in=2.0):
            tasks.start_soon(ask, asking)
    assert answers == ["completed"]


@pytest.mark.parametrize("of", ["message", "child"])
async def test_hooks_that_run_first_take_nothing_of_the_grace_of_jobs(of: str) -> None:
    """R2, W5: a worker has both its grace period and that of its jobs; whoever causes the hooks."""

    class Both(Working):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await sleep(1.5)

        async def on_worker_gone(self, data: WorkerGoneData) -> None:
            await sleep(1.5)

    worker, outcomes = Both("worker"), list[str]()
    async with running(worker, grace_period=2.0, job_grace=2.0) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome(runner, "worker", "work", outcomes, payload={"seconds": 3.25}))
        await worker.begun.wait()
        if of == "child":
            await worker.add_workers(Helper("child"), wait=True)
        else:
            await runner.bus.send(note(0, "worker"))
        await settle()
        await runner.end()
        await worker.wait()
    assert outcomes == ["completed"]


@pytest.mark.parametrize("seconds", [1.5, 2.25])
@pytest.mark.parametrize("kind", [Note, Alarm])
async def test_the_hooks_of_answers_run_in_the_grace_whichever_hook_the_end_still_waits_for(
    kind: type[Note] | type[Alarm], seconds: float
) -> None:
    """R2, W8: of the two lanes one is through before the other, and the answer comes in between, or all of the job."""

    class Busy(Asking):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, kind):
                await sleep(seconds)

    asking = Busy()
    async with asked(5.0, asking) as working:
        await asking.request_job("working", name="report")
        await working.begun.wait()
        await asking.bus.send(kind(0, source="test", target="asking"))
    assert asking.heard == ["update", "completed", "all"]


async def test_no_other_hook_begins_in_the_grace_of_jobs() -> None:
    """R2: what is queued after the end is not run."""
    asking = Asking()
    async with asked(5.0, asking) as working:
        await asking.request_job("working", name="report")
        await asking.tell("hold", "early")
        await asking.held.wait()

        async def late() -> None:
            await sleep(0.5)
            await asking.tell("late")
            asking.let_go.set()
            await sleep(1)
            await asking.tell("later")

        working.create_task(late)
    assert asking.heard == ["update", "completed", "all"]
    assert asking.told == ["hold", "early"]


async def test_a_hook_of_an_urgent_message_waits_for_no_other_in_the_grace_of_jobs_either() -> None:
    """R2, W8: that of an update, say, while the hook of an earlier one takes its time."""
    order: list[str] = []
    urgent = anyio.Event()

    class Patient(Asking):
        async def on_job_update(self, message: BusMessage) -> None:
            if message.system:
                order.append("urgent")
                urgent.set()
            else:
                await urgent.wait()
                order.append("plain")

    class Twice(Reporting):
        @job(name="report")
        async def report(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            await sleep(1)
            await self.send_job_update(message.job_id, {})
            await sleep(0.5)
            await self.send_job_update(message.job_id, {}, urgent=True)
            await sleep(0.5)
            self.unwound.set()

    asking = Patient()
    async with asked(5.0, asking, Twice("working")):
        await asking.request_job("working", name="report")
    assert order == ["urgent", "plain"]
    assert asking.heard == ["completed", "all"]


async def test_a_job_that_a_hook_of_an_answer_asks_for_in_the_grace_has_the_rest_of_it() -> None:
    """R2: and so do the hooks of its answer."""

    class Chaining(Asking):
        async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
            await super().on_job_response(message)
            if self.heard.count("completed") == 1:
                await self.request_job("working", name="report")

    asking, working = Chaining(), Reporting("working")
    async with MemoryBus() as bus, runner_on(bus, "others") as others, runner_on(bus, "it", job_grace=10.0) as runner:
        await others.add_workers(working)
        await runner.add_workers(asking)
        await runner.registry.wait_for("asking")
        await asking.request_job("working", name="report")
        await working.begun.wait()
        begun = current_time()
        await runner.end()
        await asking.wait()
        assert current_time() - begun == pytest.approx(4.5, abs=SOON)
    assert sorted(asking.heard) == ["all", "all", "completed", "completed", "update", "update"]


async def test_hooks_of_system_messages_come_first_in_the_grace_of_jobs_too() -> None:
    """R2, W8, B2: after one other hook at most, also where hooks never wait."""

    class Listing(Asking):
        async def on_job_update(self, message: BusMessage) -> None:
            self.heard.append("urgent" if message.system else "plain")

    class AtOnce(Reporting):
        @job(name="report")
        async def report(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            await sleep(1)
            server = core_of(self).job_server
            for kind in [BusJobUpdateMessage] * 4 + [BusJobUpdateUrgentMessage] * 2:
                self.bus.post(server.message(kind, message.job_id, {}))
            await sleep(1)
            self.unwound.set()

    asking = Listing()
    async with asked(5.0, asking, AtOnce("working")):
        await asking.request_job("working", name="report")
    updates = [each for each in asking.heard if each in ("urgent", "plain")]
    assert len(updates) == 6
    assert "urgent" in updates[:2]
    assert updates[3:] == ["plain"] * 3


async def test_a_context_that_waits_for_a_job_gets_the_grace() -> None:
    """R2, W10: in a task of the worker's own, and what follows on the answer is done."""
    asking, done = Asking(), list[dict[str, Any]]()

    async def ask() -> None:
        done.append(await asking.job("working", name="report"))

    async with MemoryBus() as bus, runner_on(bus, "others") as others, runner_on(bus, "it", job_grace=5.0) as runner:
        working = Reporting("working")
        await others.add_workers(working)
        await runner.add_workers(asking)
        await runner.registry.wait_for("asking")
        asking.create_task(ask)
        await working.begun.wait()
        begun = current_time()
        await runner.end()
        await asking.wait()
        assert current_time() - begun == pytest.approx(2.5, abs=SOON)
    assert done == [{}]


async def test_the_hooks_that_children_cause_at_their_end_are_all_run() -> None:
    """R2, W5, W7: whatever the parent's hooks wait for."""
    failures: list[str] = []

    class Parent(Told):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            await sleep(0.1)
            failures.append(data.worker_name)

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await super().run(params)
            raise ValueError(self.name)

    parent = Parent("parent")
    names = [f"child{n}" for n in range(3)]
    await parent.add_workers(*map(Failing, names))
    async with running(parent) as runner:
        for name in names:
            await runner.registry.wait_for(name)
    assert sorted(failures) == names


async def test_no_new_job_is_taken_after_an_end() -> None:
    """R2, W6: what is asked for during the grace of another job is answered at once."""
    working, outcomes = Working("working"), list[str]()
    async with running(working, job_grace=2.0) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome(runner, "working", "work", outcomes, payload={"seconds": 1}))
        await working.begun.wait()
        await runner.end()
        await anyio.wait_all_tasks_blocked()
        begun = current_time()
        with pytest.raises(JobError) as caught:
            await runner.job("working", name="echo")
        assert current_time() - begun < SOON
        assert caught.value.statuses == {"working": JobStatus.CANCELLED}
    assert outcomes == ["completed"]


async def test_a_cancel_gives_jobs_no_grace() -> None:
    """R2."""
    working, outcomes = Working("working"), list[str]()
    begun = current_time()
    async with anyio.create_task_group() as group, cut_short(), running(working, job_grace=1000.0) as runner:
        group.start_soon(lambda: outcome(runner, "working", "work", outcomes, payload={"seconds": 1000}))
        await working.begun.wait()
        await runner.cancel()
        await sleep_forever()
    assert current_time() - begun < 1.0
    assert outcomes == ["cancelled"]


async def at_its_place(worker: Told, place: str, runner: WorkerRunner) -> None:
    """Wait until a hanging worker hangs."""
    if place in ("run", "hook"):
        await runner.registry.wait_for("hanging")
    if place == "hook":
        await worker.tell("hold")
    if place != "run":
        await worker.held.wait()


@pytest.mark.parametrize("place", HANGING)
async def test_a_worker_that_has_not_finished_after_the_grace_period_is_cancelled(place: str) -> None:
    """R2: wherever it hangs."""
    worker, runner, begun = hanging(place), quiet_runner(grace_period=1.0), 0.0

    async def end() -> None:
        nonlocal begun
        await at_its_place(worker, place, runner)
        begun = current_time()
        await runner.end()

    await runner.add_workers(worker)
    async with nothing_left(runner), anyio.create_task_group() as group:
        group.start_soon(end)
        await runner.run()
    assert 1.0 - SOON < current_time() - begun < 1.0 + SOON


@pytest.mark.parametrize("place", HANGING)
async def test_a_body_goes_on_when_the_grace_period_is_over(place: str) -> None:
    """R1, R2: an end lets it finish, even where the workers do not end by themselves."""
    worker, runner, finished = hanging(place), quiet_runner(grace_period=1.0), False
    async with runner:
        await runner.add_workers(worker)
        await at_its_place(worker, place, runner)
        await runner.end()
        await worker.wait()
        await sleep(2.0)
        finished = True
    assert finished


@pytest.mark.parametrize("place", HANGING)
async def test_the_grace_period_counts_for_the_end_of_a_single_worker(place: str) -> None:
    """R2: the others go on."""
    worker, runner = hanging(place), quiet_runner(grace_period=1.0)
    async with runner:
        await runner.add_workers(worker, Helper("helper"))
        await runner.registry.wait_for("helper")
        await at_its_place(worker, place, runner)
        begun = current_time()
        await runner.bus.send(BusEndWorkerMessage("enough", source="test", target="hanging"))
        with anyio.move_on_after(10):
            await worker.wait()
        assert 1.0 - SOON < current_time() - begun < 1.0 + SOON
        assert await runner.job("helper", name="echo")


async def test_the_grace_period_is_five_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """R2: by default; a worker that has taken longer is named."""
    endless, runner = Endless("endless"), quiet_runner()
    runner.add_event_handler("on_ready", lambda _: runner.end())
    await runner.add_workers(endless)
    begun = current_time()
    await runner.run()
    assert 5.0 - SOON < current_time() - begun < 5.0 + SOON
    assert "worker 'endless' has not ended in 5 seconds and is cancelled" in caplog.messages


async def test_a_child_that_hangs_is_cancelled_after_one_grace_period() -> None:
    """R2, W5: the periods of parent and child do not add up."""
    parent, child, runner = Told("parent"), Endless("child"), quiet_runner(grace_period=1.0)
    await parent.add_workers(child)
    await runner.add_workers(parent)
    begun = 0.0

    async def end() -> None:
        nonlocal begun
        await runner.registry.wait_for("child")
        begun = current_time()
        await runner.end()

    async with nothing_left(runner), anyio.create_task_group() as group:
        group.start_soon(end)
        await runner.run()
    assert 1.0 - SOON < current_time() - begun < 1.0 + SOON


async def test_a_handler_that_answers_during_the_grace_and_goes_on_has_the_rest_of_it() -> None:
    """R2: the job is over then, and its handler is not."""
    ended = list[float]()

    class Finishing(BaseWorker):
        @job(name="do")
        async def do(self, message: BusJobRequestMessage) -> None:
            await sleep(1)
            await self.send_job_response(message.job_id, {})
            await sleep(1)
            ended.append(current_time())

    async with running(Finishing("finishing"), job_grace=5.0) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "finishing", "do")
        await settle()
        begun = current_time()
        await runner.end()
    assert ended == [begun + 2]


@pytest.mark.parametrize("kind", [Note, Alarm])
async def test_a_hook_that_outlasts_all_grace_is_cancelled_and_has_unwound_before_the_clean_up(
    kind: type[Note] | type[Alarm],
) -> None:
    """R2, W6: though by then the hooks of jobs have lanes of their own."""
    log: list[str] = []

    class Stuck(BaseWorker):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, kind):
                begun.set()
                try:
                    await sleep_forever()
                finally:
                    with CancelScope(shield=True):
                        await sleep(0.5)
                    log.append("unwound")

        async def cleanup(self) -> None:
            log.append("cleaned up")

    begun = Event()
    async with running(Stuck("it"), grace_period=1.0, job_grace=1.0) as runner:
        await runner.bus.send(kind(0, source="test", target="it"))
        await begun.wait()
    assert log == ["unwound", "cleaned up"]
