"""W10: a worker's own work: tasks that it starts, and a `run()` of its own."""

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from anyio import current_time, get_current_task, sleep, sleep_forever
from anyio.lowlevel import checkpoint

from support import clock
from support.endings import SOON, Told
from support.failures import Errors, Parent, tracebacks
from support.leaks import nothing_left
from support.messages import note
from support.requesters import Raw
from support.runners import quiet_runner
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    JobStatus,
    JobTimeoutError,
    NotRunningError,
    TaskHandle,
    WorkerParams,
    job,
    testing,
)
from workerbus.testing import EchoWorker, settle

# --- tasks


async def tick(noted: list[str]) -> None:
    noted.append(get_current_task().name or "")
    try:
        await sleep_forever()
    finally:
        noted.append("over")


@pytest.mark.parametrize("how", ["function", "coroutine"])
@pytest.mark.parametrize("name", [None, "clock"])
async def test_a_task_of_a_worker_bears_its_name_and_ends_with_the_worker(how: str, name: str | None) -> None:
    """W10, L1, N1: of a function and its arguments, or of a coroutine and its name."""
    noted: list[str] = []
    helper = Helper("helper")
    async with running(helper):
        if how == "function":
            task = helper.create_task(tick, noted, name=name)
        else:
            task = helper.create_task(tick(noted), name) if name else helper.create_task(tick(noted))
        await settle()
        assert noted == [f"helper {name or 'tick'}"]
        assert task.get_name() == noted[0]
        assert not task.done()
        assert repr(task) == f"<task {noted[0]!r}, running>"
        begun = current_time()
    assert current_time() - begun < SOON
    assert noted[1:] == ["over"]
    assert task.done()
    assert repr(task) == f"<task {noted[0]!r}, over>"


@pytest.mark.parametrize("end", ["end", "cancel", "stop"])
async def test_whatever_ends_a_worker_cancels_its_tasks_before_its_clean_up(end: str) -> None:
    """W10, W6"""
    order: list[str] = []

    class Cleaning(Helper):
        async def cleanup(self) -> None:
            order.append("cleanup")
            await super().cleanup()

    async def work(unwinds: float) -> None:
        try:
            await sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await sleep(unwinds)
            order.append("unwound")

    def begin(_: object) -> None:
        for unwinds in (0.5, 0.7, 0.3):
            worker.create_task(work, unwinds)

    worker, runner = Cleaning("w"), quiet_runner()
    runner.add_event_handler("on_ready", begin)
    await runner.add_workers(worker)
    async with nothing_left(runner), anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("w")
        await settle()
        await {"end": runner.end, "cancel": runner.cancel, "stop": worker.stop}[end]()
    assert order == ["unwound"] * 3 + ["cleanup"]


async def test_a_task_can_be_cancelled_and_waited_for() -> None:
    """W10"""
    noted: list[str] = []
    helper = Helper("helper")
    async with running(helper):
        task = helper.create_task(tick, noted)
        await settle()
        await helper.cancel_task(task)
        assert task.done()
        assert noted[1:] == ["over"]
        await helper.cancel_task(task)
        await task
        await task.wait()
        other = helper.create_task(tick, noted)
        other.cancel()
        await other.wait()


async def test_a_task_that_has_not_ended_in_time_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """W10, L4"""
    free = anyio.Event()

    async def refuse() -> None:
        with anyio.CancelScope(shield=True):
            await free.wait()

    helper = Helper("helper")
    async with running(helper):
        task = helper.create_task(refuse)
        await settle()
        for timeout, seconds in ((None, CLEANUP_SECONDS), (0.5, 0.5), (0, 0)):
            begun = current_time()
            await helper.cancel_task(task, timeout)
            assert current_time() - begun == pytest.approx(seconds)
            text = f"a task of worker 'helper' has not ended {seconds:g} seconds after it was cancelled"
            assert text in caplog.messages
        free.set()


async def test_a_task_may_cancel_itself() -> None:
    """W10"""
    noted: list[str] = []

    class Ticking(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.task: TaskHandle = self.create_task(self.tick)

        async def tick(self) -> None:
            noted.append("begun")
            await self.cancel_task(self.task)
            noted.append("never")

    ticking = Ticking("ticking")
    async with running(ticking):
        await settle()
        await ticking.task.wait()
    assert noted == ["begun"]


@pytest.mark.parametrize("child", [False, True])
async def test_an_error_of_a_task_is_logged_and_reported_and_ends_nothing(
    child: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """W10, W7: as that of a hook."""
    error = ValueError("boom")

    async def fail() -> None:
        raise error

    helper, parent = Helper("helper"), Parent("parent")
    if child:
        await parent.add_workers(helper)
    async with running(parent if child else helper) as runner:
        await runner.registry.wait_for("helper")
        errors = await Errors().of(runner)
        await helper.create_task(fail)
        await settle()
        assert await runner.job("helper", name="echo")
        told = parent.failed if child else errors.told
    [record] = tracebacks(caplog, error)
    assert record.getMessage() == "task 'fail' of worker 'helper' failed"
    assert [(data.worker_name, data.error) for data in told] == [("helper", "task 'fail': ValueError: boom")]


def test_a_native_cancellation_of_a_task_concerns_that_task_alone(caplog: pytest.LogCaptureFixture) -> None:
    """W10, L3: it is reported as an error of the task."""

    async def give_up() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await sleep(1)

    async def main() -> None:
        helper = Helper("helper")
        async with running(helper) as runner:
            await helper.create_task(give_up)
            assert await runner.job("helper", name="echo")

    clock.run(main, backend="asyncio")
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "task 'give_up' of worker 'helper' failed"


async def test_an_exit_of_a_task_arrives_as_itself() -> None:
    """W10, L3"""

    async def leave() -> None:
        raise SystemExit(3)

    helper = Helper("helper")

    async def run() -> None:
        async with running(helper):
            helper.create_task(leave)
            await sleep_forever()

    with pytest.raises(SystemExit):
        await run()


async def test_a_task_has_the_context_variables_of_its_worker() -> None:
    """W10, W8: and not those of whoever starts it."""
    variable: ContextVar[str] = ContextVar("variable", default="nobody's")
    seen: list[str] = []

    class Set(Helper):
        async def run(self, params: WorkerParams) -> None:
            variable.set("the worker's")
            await super().run(params)

    async def look() -> None:
        seen.append(variable.get())

    worker = Set("w")
    async with running(worker):
        variable.set("the starter's")
        await worker.create_task(look)
    assert seen == ["the worker's"]


async def test_a_task_may_stop_its_worker() -> None:
    """W10, W6: it is code of the worker's own, so that it only asks."""
    helper, noted = Helper("helper"), list[str]()

    async def stop() -> None:
        await helper.stop()
        noted.append("asked")

    async with running(helper):
        helper.create_task(stop)
        await helper.wait()
    assert noted == ["asked"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_worker_that_does_not_run_starts_no_task(when: str) -> None:
    """W10, J14: and leaves no coroutine behind that nobody awaits."""
    helper = Helper("helper")
    if when == "after":
        async with running(helper):
            pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotRunningError, match="not running"):
            helper.create_task(tick([]))
        gc.collect()


async def test_a_task_that_is_started_while_the_worker_winds_down_is_cancelled() -> None:
    """W10, L1"""
    noted: list[str] = []

    class Late(Helper):
        @job(name="hang")
        async def hang(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            try:
                await sleep_forever()
            finally:
                self.create_task(tick, noted)

    late = Late("late")
    async with running(late) as runner:
        await (await Raw.on(runner.bus)).ask("1", "late", "hang")
        await late.begun.wait()
        begun = current_time()
        await late.stop()
        assert current_time() - begun < SOON
    assert noted[1:] == ["over"]


@pytest.mark.parametrize("where", ["job", "hook"])
async def test_a_task_that_is_started_by_what_unwinds_slowly_ends_before_the_clean_up_begins(where: str) -> None:
    """W7, W10: all that a worker does has ended by then"""

    class Late(Helper):
        @job(name="hang")
        async def hang(self, message: BusJobRequestMessage) -> None:
            if where == "job":
                await self.unwind()

        async def on_bus_message(self, message: BusMessage) -> None:
            if where == "hook" and isinstance(message, BusJobRequestMessage):
                await self.unwind()

        async def unwind(self) -> None:
            self.begun.set()
            try:
                await sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await sleep(0.1)
                self.create_task(self.work)

        async def work(self) -> None:
            with anyio.CancelScope(shield=True):
                await sleep(0.1)
            noted.append("work")

        async def cleanup(self) -> None:
            noted.append("cleanup")

    noted: list[str] = []
    late = Late("late")
    async with running(late) as runner:
        await (await Raw.on(runner.bus)).ask("1", "late", "hang")
        await late.begun.wait()
        await runner.bus.send(BusCancelWorkerMessage(source="test", target="late"))
        await late.wait()
    assert noted == ["work", "cleanup"]


def test_a_task_that_somebody_starts_when_another_has_ended_ends_before_the_clean_up_begins(backend: str) -> None:
    """W7, W10: under any schedule; what is started later is cancelled at once."""

    class Watched(Helper):
        cleans_up = False

        async def cleanup(self) -> None:
            self.cleans_up = True

        async def work(self) -> None:
            with anyio.CancelScope(shield=True):
                await sleep(0.1)
            ended.append(self.cleans_up)

    async def main() -> None:
        worker = Watched("worker")
        async with running(worker) as runner, anyio.create_task_group() as group:
            first = worker.create_task(tick, [])

            async def start_another() -> None:
                await first.wait()
                with suppress(NotRunningError):
                    worker.create_task(worker.work)
                    started.append(worker.cleans_up)

            group.start_soon(start_another)
            await settle()
            await runner.bus.send(BusCancelWorkerMessage(source="test", target="worker"))

    started: list[bool] = []
    ended: list[bool] = []
    for seed in range(12):
        testing.run(main, backend=backend, seed=seed)
    assert False in started
    assert started == ended


async def test_what_cannot_be_a_task_is_refused() -> None:
    """W10, N8: where it is made."""
    helper = Helper("helper")
    async with running(helper):
        for wrong in (lambda: None, 3):
            with pytest.raises(TypeError, match="create_task takes an async function"):
                helper.create_task(wrong)  # type: ignore[arg-type]  # as it is refused


# --- a run of its own


Run = Callable[[BaseWorker, WorkerParams], Awaitable[Any]]


class Own(Told):
    """Its `run()` is what it is given."""

    def __init__(self, run: Run, name: str = "own") -> None:
        super().__init__(name)
        self.do = run

    async def run(self, params: WorkerParams) -> None:
        await self.do(self, params)


async def work(seconds: float) -> None:
    await sleep(seconds)


async def endless(worker: BaseWorker, params: WorkerParams) -> None:
    await worker.start()
    while True:
        await work(1)


@pytest.mark.parametrize("end", ["runner", "worker", "parent"])
async def test_a_run_that_knows_no_end_costs_no_grace_period(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """W10, R2: it is cancelled when all else is done, and the log says how it could know."""
    own, parent = Own(endless), Told("parent")
    if end == "parent":
        await parent.add_workers(own)
    async with running(parent if end == "parent" else own) as runner:
        await runner.registry.wait_for("own")
        begun = current_time()
        if end == "runner":
            await runner.end()
        else:
            target = "parent" if end == "parent" else "own"
            await runner.bus.send(BusEndWorkerMessage("bye", source="me", target=target))
        await own.wait()
        assert current_time() - begun < SOON
    [text] = [text for text in caplog.messages if "'own'" in text]
    assert text.startswith("worker 'own' is to end and its run() is cancelled")
    assert "params.wait_for_end()" in text
    assert own.reasons()[0][0] is BusEndWorkerMessage


async def test_a_run_that_knows_no_end_goes_on_until_the_jobs_are_done() -> None:
    """W10, R2"""
    own = Own(endless)
    async with running(own, job_grace=5) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "own", "wait")
        await own.begun.wait()
        await runner.end()
        await sleep(2)
        own.release.set()
        assert (await raw.answer("1"))[0] is JobStatus.COMPLETED


async def by_waiting(worker: BaseWorker, params: WorkerParams) -> None:
    await worker.start()
    await params.wait_for_end()
    await sleep(0.5)


async def by_looking(worker: BaseWorker, params: WorkerParams) -> None:
    await worker.start()
    while not params.ending:
        await work(0.5)


async def by_the_default(worker: BaseWorker, params: WorkerParams) -> None:
    await BaseWorker.run(worker, params)
    await sleep(0.5)


@pytest.mark.parametrize("run", [by_waiting, by_looking, by_the_default])
async def test_a_run_can_wait_for_the_end(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """W10: it is let return, and does so in its own time within the grace period."""
    returned: list[float] = []

    async def noted(worker: BaseWorker, params: WorkerParams) -> None:
        await run(worker, params)
        returned.append(current_time())

    async with running(Own(noted)) as runner:
        await settle()
        begun = current_time()
        await runner.end()
        await settle()
    assert 0 < returned[0] - begun < 1
    assert not [text for text in caplog.messages if "'own'" in text]


async def by_awaiting(worker: BaseWorker) -> None:
    await worker.job("slow")


async def by_a_context(worker: BaseWorker) -> None:
    async with worker.job("slow", timeout=100) as asked:
        async for _ in asked:
            pass


async def by_a_group(worker: BaseWorker) -> None:
    group = await worker.create_job_group_and_request_job(["slow"])
    await group.wait()


async def in_a_task(worker: BaseWorker) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(by_a_group, worker)


@pytest.mark.parametrize("ask", [by_awaiting, by_a_context, by_a_group, in_a_task])
def test_a_run_that_waits_for_a_job_and_then_for_the_end_is_let_return(
    ask: Callable[[BaseWorker], Awaitable[None]], backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """W10, R2: the job has its grace, and its end comes no later than that of its requester, under any schedule."""

    async def run(worker: BaseWorker, params: WorkerParams) -> None:
        await worker.start()
        await ask(worker)
        await params.wait_for_end()
        returned.append(params.ending)

    async def main() -> None:
        own, slow = Own(run), EchoWorker("slow", after=2)
        async with running(own, slow, job_grace=10) as runner:
            await settle()
            await runner.bus.send(BusEndWorkerMessage(source="me", target="own"))
            await own.wait()

    for seed in range(20):
        returned: list[bool] = []
        testing.run(main, backend=backend, seed=seed)
        assert returned == [True], seed
    assert not [text for text in caplog.messages if "'own'" in text]


async def test_a_run_whose_worker_is_only_starting_when_it_is_to_end_is_let_return() -> None:
    """W10: nobody takes it for one that knows no end, since it has not come to where it waits."""
    returned: list[bool] = []

    class Slow(Own):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await sleep(0.5)

    async def run(worker: BaseWorker, params: WorkerParams) -> None:
        await worker.start()
        await params.wait_for_end()
        returned.append(params.ending)

    slow = Slow(run)
    async with running(slow):
        await settle()
        assert slow.started_at is not None
    assert returned == [True]


async def unstarted(worker: BaseWorker, params: WorkerParams) -> None:
    await sleep_forever()


class ChoosingOwn(Own):
    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


@pytest.mark.parametrize("kind", [Own, ChoosingOwn])
@pytest.mark.parametrize("end", ["runner", "worker", "before the run"])
async def test_a_run_without_a_start_costs_no_grace_period(
    end: str, kind: type[Own], caplog: pytest.LogCaptureFixture
) -> None:
    """W10, R2: where nothing waits for the start, and the log names it."""
    own, runner = kind(unstarted), quiet_runner()
    await runner.add_workers(own)
    begun = current_time()
    if end == "before the run":
        await runner.end()
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await settle()
        if end == "runner":
            await runner.end()
        elif end == "worker":
            await runner.bus.send(BusEndWorkerMessage(source="me", target="own"))
    assert current_time() - begun < SOON
    assert "worker 'own' is to end and is cancelled: its run() has not called start()" in caplog.messages


async def test_a_run_that_starts_only_when_an_end_has_come_and_knows_none_is_named_as_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """W10: and not as one that has not called start()."""

    async def slow(worker: BaseWorker, params: WorkerParams) -> None:
        for _ in range(5):
            await checkpoint()
        await worker.start()
        await sleep_forever()

    own, runner = Own(slow), quiet_runner()
    await runner.add_workers(own)
    await runner.end()
    await runner.run()
    (text,) = [text for text in caplog.messages if "is to end" in text]
    assert text.startswith("worker 'own' is to end and its run() is cancelled: to be let return, it has to await")


@pytest.mark.parametrize("kind", [Own, ChoosingOwn])
async def test_what_waits_for_a_start_gets_the_grace_period(kind: type[Own]) -> None:
    """W10, W2: the start may come yet."""

    async def late(worker: BaseWorker, params: WorkerParams) -> None:
        await sleep(1)
        await worker.start()
        await params.wait_for_end()

    own = kind(late)
    async with quiet_runner() as runner:
        await runner.add_workers(own)
        await settle()
        await own.tell("early")
        await runner.end()
    assert own.told == ["early"]


@pytest.mark.parametrize("choosing", [False, True])
async def test_a_job_that_waits_for_a_start_behind_a_broadcast_gets_the_grace_period(choosing: bool) -> None:
    """W10, W2: though the worker would do nothing with the first of what waits."""

    class Late(Helper):
        async def run(self, params: WorkerParams) -> None:
            await sleep(1)
            await self.start()
            await params.wait_for_end()

    class ChoosingLate(Late):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    async with quiet_runner() as runner:
        raw = await Raw.on(runner.bus)
        await runner.add_workers((ChoosingLate if choosing else Late)("late"))
        await settle()
        await runner.bus.send(note(0))
        await raw.ask("job", "late", "echo")
        await runner.bus.send(BusEndWorkerMessage(source="me", target="late"))
        assert (await raw.answer("job"))[0] == JobStatus.COMPLETED


async def test_a_run_that_returns_without_a_start_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """W10"""

    async def nothing(worker: BaseWorker, params: WorkerParams) -> None:
        await settle()

    runner = quiet_runner()
    await runner.add_workers(Own(nothing))
    await runner.run()
    assert "run() of worker 'own' has returned without calling start()" in caplog.messages


async def test_a_run_that_stops_its_worker_and_returns_without_a_start_is_not_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """W10, W6: it means to."""

    async def stops(worker: BaseWorker, params: WorkerParams) -> None:
        await settle()
        await worker.stop()

    runner = quiet_runner()
    await runner.add_workers(Own(stops))
    await runner.run()
    assert not [text for text in caplog.messages if "without calling start()" in text]


@pytest.mark.parametrize("how", ["the log", "the timeout"])
async def test_a_requester_reads_that_a_worker_has_not_started(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """W10, J1: and not that it is not there."""
    text = "is on the bus, but has not started: has a run() of its own called start()?"
    async with quiet_runner() as runner:
        await runner.add_workers(Own(unstarted))
        with pytest.raises(JobError) as caught:
            await runner.job("own", timeout=6)
        assert isinstance(caught.value, JobTimeoutError)
    if how == "the log":
        assert f"{runner.name!r} still waits for worker 'own', which {text}" in caplog.messages
    else:
        assert f"worker 'own' {text}" in str(caught.value)
