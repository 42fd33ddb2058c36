"""J4: jobs whose worker has not come, stops, ends, crashes, or goes with its runner."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import current_time, sleep

from support import clock
from support.buses import PoliteBus
from support.job_handlers import never
from support.messages import Alarm, Note, alarm, note
from support.requesters import Listener, Raw, outcome_of
from support.runners import runner_on
from support.shared_buses import Linked
from support.steps import steps_of
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobUpdateMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    JobError,
    JobGroupError,
    JobStatus,
    MemoryBus,
    PipelineWorker,
    WorkerParams,
    WorkerRunner,
    job,
    testing,
)
from workerbus.pipeline import Pipeline
from workerbus.testing import settle
from workerbus.worker._core import core_of


async def test_a_request_to_a_worker_that_is_never_started_is_answered() -> None:
    """J1: it reached the worker, which was attached, and whose runner was cancelled before it ran."""
    async with MemoryBus() as bus:
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Helper("helper"))
        raw = await Raw.on(bus)
        await raw.ask("early", "helper", "echo")
        await runner.cancel()
        await runner.run()
        assert (await raw.answer("early"))[0] == JobStatus.CANCELLED


async def test_a_request_to_a_worker_that_is_stopped_before_its_start_is_answered() -> None:
    """J1: `stop()` of a worker that is attached only."""
    async with MemoryBus() as bus:
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        helper = Helper("helper")
        await runner.add_workers(helper)
        raw = await Raw.on(bus)
        await raw.ask("early", "helper", "echo")
        await helper.stop()
        assert (await raw.answer("early"))[0] == JobStatus.CANCELLED


async def test_a_request_that_waits_in_the_lane_of_a_stopping_worker_is_answered() -> None:
    """J1: `accepts_bus_message` is asked in a lane; what waits in it when the worker stops is not lost."""

    class Choosy(Helper):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    helper = Choosy("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(5):
            await raw.ask(f"job {number}", "helper", "wait")
        await helper.stop()
        assert [(await raw.answer(f"job {number}"))[0] for number in range(5)] == [JobStatus.CANCELLED] * 5


class Fragile(Helper):
    """Fails on demand: in `run()`, or in a task that `run()` has started."""

    def __init__(self, name: str, *, in_task: bool = False) -> None:
        super().__init__(name)
        self.crash = anyio.Event()
        self._in_task = in_task

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        if self._in_task:
            params.task_group.start_soon(self.fail_in_time)
            await anyio.sleep_forever()
        await self.fail_in_time()

    async def fail_in_time(self) -> None:
        await self.crash.wait()
        raise LookupError("it broke")

    @job(name="open", deferred=True)
    async def open(self, message: BusJobRequestMessage) -> None:
        self.begun.set()


async def asked_while(
    runner: WorkerRunner, worker: Helper, then: Callable[[], Awaitable[None] | None], name: str = "wait"
) -> JobError:
    """Ask for a job without a timeout, do something to the worker, and return what the requester gets."""

    async def do() -> None:
        await worker.begun.wait()
        result = then()
        if result is not None:
            await result

    async with anyio.create_task_group() as group:
        group.start_soon(do)
        with pytest.raises(JobError) as caught:
            await runner.job(worker.name, name=name)
    return caught.value


@pytest.mark.parametrize("name", ["wait", "open"])
async def test_a_worker_that_is_stopped_answers_cancelled(name: str) -> None:
    """J4: at once; the requester has no timeout."""
    worker = Fragile("fragile")
    async with running(worker) as runner:
        error = await asked_while(runner, worker, worker.stop, name)
    assert error.statuses == {"fragile": JobStatus.CANCELLED}


@pytest.mark.parametrize("name", ["wait", "open"])
@pytest.mark.parametrize("in_task", [False, True], ids=["run", "task"])
async def test_a_worker_that_crashes_answers_error(in_task: bool, name: str) -> None:
    """J4: with what made it crash, in `run()` or in a task of its group."""
    worker = Fragile("fragile", in_task=in_task)
    async with running(worker) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        error = await asked_while(runner, worker, worker.crash.set, name)
    assert error.statuses == {"fragile": JobStatus.ERROR}
    assert "it broke" in error.reason


async def test_a_worker_whose_first_activation_fails_answers_error() -> None:
    """J4: a job handler may run before `on_activated` has returned."""

    class Doomed(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await self.begun.wait()
            raise LookupError("no database")

    worker = Doomed("doomed")
    async with running() as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.add_workers(worker)
        with pytest.raises(JobError) as caught:
            await runner.job("doomed", name="wait")
    assert caught.value.statuses == {"doomed": JobStatus.ERROR}


async def test_a_worker_that_is_ended_answers_cancelled() -> None:
    """J4: the end of a single worker gives its jobs no more than the grace."""
    worker = Helper("helper")
    async with running(worker) as runner:

        async def end() -> None:
            await runner.bus.send(BusEndWorkerMessage(source="test", target="helper"))

        error = await asked_while(runner, worker, end)
    assert error.statuses == {"helper": JobStatus.CANCELLED}


async def test_a_worker_that_stops_in_its_own_handler_answers_cancelled() -> None:
    """J4: `stop()` only asks there."""

    async def stops(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.stop()
        await anyio.sleep_forever()

    async with running(Doing("doing", stops)) as runner:
        assert (await outcome_of(runner, "doing", name="do"))[0] == JobStatus.CANCELLED


@pytest.mark.parametrize("how", ["end", "cancel"])
async def test_the_jobs_of_a_runner_that_goes_are_answered_at_another_one(how: str) -> None:
    """J4: across runners on one bus."""
    async with MemoryBus() as bus, running(bus=bus) as here, anyio.create_task_group() as group:
        there = WorkerRunner(bus=bus, handle_sigint=False)
        worker = Helper("helper")
        await there.add_workers(worker)
        group.start_soon(there.run)
        error = await asked_while(here, worker, getattr(there, how))
    assert error.statuses == {"helper": JobStatus.CANCELLED}


@pytest.mark.parametrize(
    "gone",
    [BusWorkerGoneMessage("elsewhere", source="ghost"), BusWorkerRegistryMessage("elsewhere", [], source="ghost")],
)
async def test_a_remote_worker_that_is_announced_as_gone_is_an_error(gone: BusMessage) -> None:
    """J4: nobody is left to answer, and the requester does not wait for it."""
    async with running() as runner:
        raw = await Raw.on(runner.bus, "ghost")
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="ghost"))
        async with anyio.create_task_group() as group:

            async def vanish() -> None:
                await raw.until(1, BusJobRequestMessage)
                await runner.bus.send(gone)

            group.start_soon(vanish)
            with pytest.raises(JobError) as caught:
                await runner.job("ghost", name="echo")
        assert caught.value.statuses == {"ghost": JobStatus.ERROR}


def test_a_handler_that_does_not_unwind_is_answered_for_after_the_bound(backend: str) -> None:
    """J4, L4: once, and whatever it returns in the end."""
    release = anyio.Event()

    async def refuses(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        await worker.send_job_update(message.job_id)
        with anyio.move_on_after(8, shield=True):
            await release.wait()
        return {"stubborn": True}

    async def example() -> None:
        doing = Doing("doing", refuses)
        async with running(doing) as runner, anyio.create_task_group() as group:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "doing", "do")
            await raw.until(1, BusJobUpdateMessage)
            started = anyio.current_time()
            group.start_soon(doing.stop)
            assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
            assert anyio.current_time() - started < CLEANUP_SECONDS + 0.9
            release.set()
            await doing.wait()
            await raw.settle()
            assert len(raw.answers("job")) == 1

    clock.run(example, backend=backend)


async def test_a_namesake_elsewhere_that_goes_does_not_end_the_jobs_of_the_worker_here() -> None:
    """J4: the one that was asked has not gone."""
    helper = Helper("helper")
    async with running(helper) as runner, anyio.create_task_group() as group:

        async def namesake() -> None:
            await helper.begun.wait()
            await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="helper"))
            await runner.bus.send(BusWorkerGoneMessage("elsewhere", source="helper"))
            await anyio.wait_all_tasks_blocked()
            helper.release.set()

        group.start_soon(namesake)
        assert await runner.job("helper", name="wait") == {"released": True}


async def test_what_waits_for_its_turn_is_answered_when_the_worker_stops() -> None:
    """J4: its handler never starts."""

    class Queue(Helper):
        @job(name="one", sequential=True)
        async def one(self, message: BusJobRequestMessage) -> None:
            await self.wait_for_release(message)

    worker = Queue("queue")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("first", "queue", "one")
        await raw.ask("second", "queue", "one")
        await worker.begun.wait()
        await worker.stop()
        assert [(await raw.answer(each))[0] for each in ("first", "second")] == [JobStatus.CANCELLED] * 2
        assert worker.calls == ["first"]


async def test_a_request_that_reaches_a_stopping_worker_is_answered_at_once() -> None:
    """J4: while a handler still unwinds."""

    async def holds(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(8, shield=True):
                await release.wait()

    release = anyio.Event()
    worker = Doing("doing", holds)
    async with running(worker) as runner, anyio.create_task_group() as group:
        raw = await Raw.on(runner.bus)
        await raw.ask("first", "doing", "do")
        await raw.until(1, BusJobUpdateMessage)
        group.start_soon(worker.stop)
        await anyio.wait_all_tasks_blocked()
        await raw.ask("second", "doing", "do")
        assert (await raw.answer("second"))[0] == JobStatus.CANCELLED
        assert raw.answers("first") == []
        release.set()


async def test_a_worker_that_leaves_while_others_are_asked_is_waited_for() -> None:
    """J1: it may come back."""
    asked, left = anyio.Event(), anyio.Event()
    leaving = Helper("leaving")

    class Slow(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            await super().publish(message)
            if isinstance(message, BusJobRequestMessage) and not left.is_set():
                await leaving.stop()
                left.set()

    async with running(Helper("helper"), leaving, bus=Slow()) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            responses = await runner.job_group("helper", "leaving", name="echo")
            assert list(responses) == ["helper", "leaving"]
            asked.set()

        tasks.start_soon(ask)
        await left.wait()
        await anyio.wait_all_tasks_blocked()
        assert not asked.is_set()
        await runner.add_workers(Helper("leaving"))
        await asked.wait()
    assert leaving.calls == []


async def test_a_worker_that_has_gone_is_answered_for_in_its_name() -> None:
    """J4: at once, as an ERROR that says so, to the context and to the hooks."""
    listener = Listener()
    async with running(Doing("silent", never), listener) as runner:
        async with listener.job_group("silent", name="do", cancel_on_error=False) as group:
            await anyio.wait_all_tasks_blocked()
            await runner.registry.unregister("silent")
        told = await listener.until("response")
    response = {"error": "worker 'silent' left without an answer", "type": "WorkerGone"}
    assert (group.statuses, group.responses) == ({"silent": JobStatus.ERROR}, {"silent": response})
    assert told == BusJobResponseMessage(group.job_id, JobStatus.ERROR, response, source="silent", target="listener")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_a_worker_has_left_its_jobs_though_the_run_is_interrupted_before_all_have_heard_of_it(
    error: type[BaseException],
) -> None:
    """J4, L6: they are answered as any that were left, and nobody waits for the news any more."""

    class Losing(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if not isinstance(message, BusWorkerGoneMessage):
                await super().publish(message)

    async def interrupt(worker: BaseWorker, message: Any) -> None:
        raise error

    begun, left, runner = current_time(), anyio.Event(), WorkerRunner(bus=Losing(), handle_sigint=False)
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(JobError, match="worker 'silent' left without an answer"):
                await runner.job("silent", name="do")
            left.set()

        with pytest.raises(error):  # noqa: PT012 - the block itself raises
            async with runner:
                await runner.add_workers(Doing("silent", never), Doing("interrupting", interrupt), wait=True)
                tasks.start_soon(ask)
                await settle()
                await runner.registry.unregister("silent")
                await settle()
                assert not left.is_set()
                await runner.job("interrupting", name="do")
        await left.wait()
    assert current_time() == begun


async def test_a_worker_that_goes_is_noticed_by_who_has_asked_others_too() -> None:
    """J4, G2: as long as a job is open, and no longer."""
    asker = Helper("asker")
    async with running(Doing("silent", never), Helper("helper"), asker) as runner:
        group = await asker.create_job_group_and_request_job(["silent"], name="do")
        await asker.job("helper", name="echo")
        assert runner.asking == {"silent": {group: core_of(asker).job_client}}
        await runner.registry.unregister("silent")
        with pytest.raises(JobGroupError, match="left without an answer"):
            await group.wait()
        assert runner.asking == {}
        await asker.job("helper", name="echo")
        assert runner.asking == {}


async def test_a_worker_that_departs_is_waited_for_no_longer_by_a_group_that_is_over() -> None:
    """J4, J5: its answer was lost."""

    class Lossy(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if not (isinstance(message, BusJobResponseMessage) and message.source == "lost"):
                await super().publish(message)

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await settle()
        raise ValueError("it went wrong")

    async def stop_later() -> None:
        await sleep(1)
        await lost.stop()

    lost = Doing("lost", never)
    async with running(Doing("fails", fail), lost, bus=Lossy()) as runner, anyio.create_task_group() as group:
        begin = current_time()
        group.start_soon(stop_later)
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group("fails", "lost", name="do"):
                pass
        assert current_time() == begin + 1
    assert caught.value.statuses == {"fails": JobStatus.ERROR, "lost": JobStatus.ERROR}


async def test_a_handler_that_turns_the_end_of_its_worker_into_a_group_is_cancelled() -> None:
    """J1, J2: its cancellation was not that of something else, though nobody has cancelled the job before."""
    gate = anyio.Event()

    class Slow(Doing):
        async def run(self, params: WorkerParams) -> None:
            try:
                await super().run(params)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)  # so that the handlers end before the worker cancels its jobs

    async def does(worker: Doing, message: BusJobRequestMessage) -> None:
        if message.job_id == "end":
            await gate.wait()
            raise SystemExit(3)
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as exc:
            raise BaseExceptionGroup("several", [exc]) from None

    async with MemoryBus() as bus, anyio.create_task_group() as group:
        raw = await Raw.on(bus)
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Slow("slow", does))

        async def ask() -> None:
            await raw.ask("job", "slow", "do")
            await raw.ask("end", "slow", "do")
            await anyio.wait_all_tasks_blocked()
            gate.set()

        group.start_soon(ask)
        with pytest.raises(SystemExit):
            await runner.run()
        text = "worker 'slow' stopped"
        assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": text, "type": "Cancelled"})
        await raw.settle()
        assert len(raw.answers("job")) == 1


async def test_a_handler_that_goes_on_after_its_answer_is_cancelled_at_once_when_the_worker_stops() -> None:
    """W6"""

    class GoesOn(Helper):
        @job(name="go on")
        async def go_on(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id, {})
            await anyio.sleep_forever()

    worker = GoesOn("worker")
    async with running(worker) as runner:
        assert await runner.job("worker", name="go on") == {}
        begin = current_time()
        await worker.stop()
        assert current_time() == begin


async def test_of_all_who_answer_a_request_the_first_one_counts_and_the_others_hear_of_it() -> None:
    """N3, J2: the method, and then its event handlers in their order."""
    heard: list[str] = []

    def answering(by: str) -> Any:
        def handler(_: Helper, message: BusJobRequestMessage) -> dict[str, Any]:
            heard.append(by)
            return {"by": by}

        return handler

    class Answers(Helper):
        async def on_job_request(self, message: BusJobRequestMessage) -> dict[str, Any] | None:
            return {"by": "the method"} if message.payload else None

    worker = Answers("worker")
    for by in ("the first handler", "the second"):
        worker.add_event_handler("on_job_request", answering(by))
    async with running(worker) as runner:
        assert await runner.job("worker", payload={"n": 1}) == {"by": "the method"}
        assert await runner.job("worker") == {"by": "the first handler"}
    assert heard == ["the first handler", "the second"] * 2


class Choosy:
    """Is asked about each message in its lane, and accepts it."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


class ChoosyRunner(Choosy, WorkerRunner):
    """A runner that is asked first."""


class ChoosyWorker(Choosy, Helper):
    """A worker that is asked first."""


class ChoosyPipelineWorker(Choosy, PipelineWorker):
    """A worker with a pipeline that is asked first."""


async def statuses_after_the_end(asker: str, where: str, bound: float, stays: bool) -> dict[str, JobStatus]:
    """Ask a worker of the same runner, of another one on the bus, or of one behind a network, and stop it.

    Args:
        asker: Who asks.
        where: Where the worker is.
        bound: How much a lane holds.
        stays: Whether the block is left only when all have heard of it.
    """
    network: list[Linked] = []
    bus = Linked(network) if where == "remote" else MemoryBus(max_buffer_size=bound)
    async with (
        bus,
        ChoosyRunner(bus=bus, name="here", handle_sigint=False) as here,
        runner_on(Linked(network) if where == "remote" else bus, "there") as there,
    ):
        helper = Helper("helper")
        worker = ChoosyPipelineWorker(Pipeline([]), name="asker") if asker == "pipeline" else ChoosyWorker("asker")
        await here.add_workers(worker)
        await (here if where == "here" else there).add_workers(helper)
        for name in ("asker", "helper"):
            await here.registry.wait_for(name)
        asks: WorkerRunner | BaseWorker = here if asker == "runner" else worker
        async with asks.job_group("helper", name="wait", cancel_on_error=False) as group:
            await helper.begun.wait()
            await helper.stop()
            if stays:
                await settle()
    return dict(group.statuses)


@pytest.mark.parametrize("bound", [math.inf, 1], ids=["unbounded", "bounded"])
@pytest.mark.parametrize("where", ["here", "near", "remote"])
@pytest.mark.parametrize("asker", ["worker", "pipeline", "runner"])
def test_an_answer_that_waits_to_be_accepted_counts_when_its_worker_has_gone(
    asker: str, where: str, bound: float, backend: str
) -> None:
    """J1, J4, W6, N4: the answer is CANCELLED, under whatever schedule, and stays so while the block goes on."""
    for seed in range(8):
        stays = seed % 2 == 0
        statuses = testing.run(statuses_after_the_end, asker, where, bound, stays, backend=backend, seed=seed)
        assert statuses == {"helper": JobStatus.CANCELLED}, seed


@pytest.mark.parametrize("urgent", [False, True])
async def test_an_answer_that_waits_behind_a_hook_of_a_runner_counts_when_its_worker_has_gone(urgent: bool) -> None:
    """J1, J4, N4: it waits for `on_bus_message`, in the lane of its kind, and the departure behind it."""
    entered, go_on = anyio.Event(), anyio.Event()

    class Busy(ChoosyRunner):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note | Alarm):
                entered.set()
                await go_on.wait()
            await super().on_bus_message(message)

    async def answer(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        await worker.send_job_response(message.job_id, {"done": True}, urgent=urgent)
        return {}

    async with Busy(handle_sigint=False) as runner:
        doing = Doing("doing", answer)
        await runner.add_workers(doing)
        await runner.bus.send((alarm if urgent else note)(1, target=runner.name))
        await entered.wait()
        async with runner.job("doing", name="do") as job_:
            await settle()
            await doing.stop()
            await settle()
            go_on.set()
        assert job_.response == {"done": True}


@pytest.mark.parametrize("urgent", [False, True])
@pytest.mark.parametrize("asker", ["worker", "runner"])
def test_an_answer_counts_whose_worker_ends_in_the_very_step_of_it(asker: str, urgent: bool, backend: str) -> None:
    """J1, J4, N4: it waits to be accepted, in the lane of its kind, and the departure behind it."""

    class Leaves(BaseWorker):
        @job(name="do", deferred=True)
        async def do(self, message: BusJobRequestMessage) -> None:
            self.job_id = message.job_id
            self.asked.set()

        async def run(self, params: WorkerParams) -> None:
            self.asked = anyio.Event()
            await self.start()
            await self.asked.wait()
            await self.send_job_response(self.job_id, {"done": True}, urgent=urgent)

    async def main() -> dict[str, Any]:
        async with ChoosyRunner(handle_sigint=False) as runner:
            worker = ChoosyWorker("asker")
            await runner.add_workers(worker, Leaves("leaves"), wait=True)
            asks: WorkerRunner | BaseWorker = runner if asker == "runner" else worker
            return await asks.job("leaves", name="do")

    for seed in range(4):
        assert testing.run(main, backend=backend, seed=seed) == {"done": True}, seed


async def test_a_worker_whose_answer_was_refused_has_left_without_one() -> None:
    """J4, N4: nobody waits for it for ever."""

    class Deaf(Helper):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return not isinstance(message, BusJobResponseMessage)

    deaf, helper = Deaf("deaf"), Helper("helper")
    async with running(deaf, helper):
        with pytest.raises(JobError, match="left without an answer"):  # noqa: PT012 - by what is done in the context
            async with deaf.job("helper", name="wait"):
                await helper.begun.wait()
                await helper.stop()


class Counting(BaseWorker):
    """Counts the answers to what it has asked for."""

    def __init__(self) -> None:
        super().__init__("asker")
        self.answers = 0
        self.told = anyio.Event()

    async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        self.answers += 1
        self.told.set()
        self.told = anyio.Event()


async def steps_of_departing(crowd: int) -> int:
    """How many instructions it takes that one of a group's workers departs and is answered for."""
    asker, names = Counting(), [f"silent-{n}" for n in range(crowd)]
    async with running(asker, *(Doing(name, never) for name in names)) as runner:
        group = await asker.create_job_group_and_request_job(names, name="do", cancel_on_error=False)
        await anyio.wait_all_tasks_blocked()
        steps = []
        for name in names[-4:]:
            told = asker.told

            async def depart(name: str = name, told: anyio.Event = told) -> None:
                await runner.registry.unregister(name)
                await told.wait()

            steps.append(await steps_of(depart))
        assert asker.answers == 4
        await asker.cancel_job_group(group.job_id)
    return min(steps[1:])  # Python 3.12 counts nothing in a function that is traced for the first time


async def test_a_worker_of_a_group_departs_at_the_same_cost_however_many_others_were_asked() -> None:
    """J4, B6: nobody looks at the others, or a thousand that end one after the other would take a million looks."""
    assert await steps_of_departing(400) < await steps_of_departing(10) + 390
