"""W7: an error of a worker stops nothing, is logged, and reaches whom it concerns."""

import asyncio
import logging
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.hooks import HOOKS, Peer, job_id_of, provoke, with_hook
from support.messages import Note, note
from support.requesters import Raw
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    JobStatus,
    WorkerErrorData,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
    job,
    worker_ready,
)


class Errors:
    """What a runner's ``on_error`` was told, and what went over its bus."""

    def __init__(self) -> None:
        self.told: list[WorkerErrorData] = []
        self.observer = Plain("observer")

    async def of(self, runner: WorkerRunner) -> "Errors":
        runner.add_event_handler("on_error", lambda _, data: self.told.append(data))
        await runner.bus.subscribe(self.observer)
        return self

    def sent(self, source: str) -> list[str]:
        return [
            message.error
            for message in self.observer.got
            if isinstance(message, BusWorkerErrorMessage) and message.source == source
        ]


def tracebacks(caplog: pytest.LogCaptureFixture, error: BaseException) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.exc_info and record.exc_info[1] is error]


class Parent(Helper):
    """Notes what it is told of its children."""

    def __init__(self, name: str = "parent") -> None:
        super().__init__(name)
        self.failed: list[WorkerErrorData] = []

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        self.failed.append(data)


# --- hooks


@pytest.mark.parametrize("form", ["method", "handler"])
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_raises_is_logged_and_reported_and_stops_nothing(
    hook: str, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """W7"""
    raised: list[tuple[ValueError, str | None]] = []

    async def fail(_: object, *args: Any) -> None:
        raised.append((ValueError(f"boom {len(raised)}"), job_id_of(args)))
        raise raised[-1][0]

    subject, peer = with_hook(hook, fail, form=form, active=hook != "on_activated"), Peer("peer")
    async with running(subject, peer) as runner:
        errors = await Errors().of(runner)
        for count in (1, 2):
            await provoke(hook, subject, peer, runner)
            await eventually(lambda: len(raised) == count)  # noqa: B023 - awaited at once
        await anyio.wait_all_tasks_blocked()
        if hook == "on_deactivated":
            await peer.activate_worker("subject")
        assert (await runner.job("subject", name="echo"))["worker"] == "subject"
        assert subject.statistics().failed_hooks == 2
        subject.release.set()
    for (error, job_id), data, sent in zip(raised, errors.told, errors.sent("subject"), strict=True):
        assert data.worker_name == "subject"
        assert str(error) in data.error
        assert str(error) in sent
        (record,) = tracebacks(caplog, error)
        assert job_id is None or job_id in record.getMessage()


async def test_a_ready_handler_that_raises_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """W7"""
    error = ValueError("boom")

    class Watching(Helper):
        @worker_ready(name="peer")
        async def met(self, data: WorkerReadyData) -> None:
            raise error

    async with running(Watching("w")) as runner:
        errors = await Errors().of(runner)
        await runner.add_workers(Helper("peer"))
        await eventually(lambda: errors.told and errors.sent("w"))
        assert errors.told[0].worker_name == "w"
        assert (await runner.job("w", name="echo"))["worker"] == "w"
    assert tracebacks(caplog, error)


async def test_each_function_of_a_hook_runs_whatever_the_others_raise() -> None:
    """W7"""
    called: list[str] = []

    class Failing(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                called.append("method")
                raise ValueError("method")

    worker = Failing("w")

    @worker.event_handler("on_bus_message")
    def first(_: object, message: BusMessage) -> None:
        if isinstance(message, Note):
            called.append("first")
            raise ValueError("first")

    @worker.event_handler("on_bus_message")
    async def second(_: object, message: BusMessage) -> None:
        if isinstance(message, Note):
            called.append("second")

    async with running(worker) as runner:
        errors = await Errors().of(runner)
        await runner.bus.send(note(0, "w"))
        await eventually(lambda: len(errors.told) == 2)
    assert called == ["method", "first", "second"]


@pytest.mark.parametrize("backend", ["asyncio"])
@pytest.mark.parametrize("hook", ["on_bus_message", "on_job_cancelled"])
async def test_a_hook_that_awaits_something_cancelled_stops_nothing(hook: str) -> None:
    """W7: a `CancelledError` that is no cancellation of the worker"""
    called: list[object] = []

    async def await_a_cancelled_future(*args: Any) -> None:
        called.append(args)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    subject = with_hook(hook, await_a_cancelled_future, active=hook != "on_activated")
    peer = Peer("peer")
    async with running(subject, peer, grace_period=0.1) as runner:
        for count in (1, 2):
            await provoke(hook, subject, peer, runner)
            await anyio.wait_all_tasks_blocked()
            assert len(called) == count
        subject.release.set()


@pytest.mark.parametrize("backend", ["asyncio"])
async def test_a_first_on_activated_that_awaits_something_cancelled_finishes_the_worker() -> None:
    """W7, W2"""

    class Failing(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    worker = Failing("w")
    async with running(Helper("peer"), grace_period=0.1) as runner:
        errors = await Errors().of(runner)
        await runner.add_workers(worker)
        await worker.wait()
        await eventually(lambda: errors.told)
    assert errors.told[0].worker_name == "w"


async def test_hooks_that_raise_at_everything_do_not_answer_each_other_for_ever() -> None:
    """W7: an error that is caused by the report of one is not reported"""

    class Touchy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            self.calls.append(type(message).__name__)
            raise ValueError("boom")

    one, two, child = Touchy("one"), Touchy("two"), Touchy("child")
    async with running(one, two) as runner:
        await one.add_workers(child)
        await runner.registry.wait_for("child")
        errors = await Errors().of(runner)
        for name in ("one", "two", "child"):
            await runner.bus.send(note(0, name))
        await anyio.wait_all_tasks_blocked()
        assert len(errors.told) < 10
        assert {"Note"} <= set(one.calls) & set(two.calls) & set(child.calls)


# --- whom it reaches


@pytest.mark.parametrize("crash", [False, True])
async def test_an_error_of_a_child_reaches_its_parent_alone(crash: bool) -> None:
    """W7"""

    class Breaking(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note) and not crash:
                raise ValueError("boom")

        async def run(self, params: WorkerParams) -> None:
            await self.start()
            if crash:
                raise ValueError("boom")
            await super().run(params)

    root, parent, child = Parent("root"), Parent(), Breaking("child")
    async with running(root) as runner:
        errors = await Errors().of(runner)
        await root.add_workers(parent)
        await runner.registry.wait_for("parent")
        await parent.add_workers(child)
        await runner.bus.send(note(0, "child"))
        await eventually(lambda: parent.failed)
        await anyio.wait_all_tasks_blocked()
        assert (await runner.job("parent", name="echo"))["worker"] == "parent"
    assert [data.worker_name for data in parent.failed] == ["child"]
    assert "boom" in parent.failed[0].error
    assert root.failed == []
    assert crash or errors.told == []
    assert errors.sent("child") == []
    local = [message for message in errors.observer.got if isinstance(message, BusWorkerLocalErrorMessage)]
    assert [message.target for message in local] == ["parent"]


async def test_an_error_that_a_worker_reports_itself_goes_the_same_way() -> None:
    """W7"""
    parent, child = Parent(), Helper("child")
    async with running(parent) as runner:
        errors = await Errors().of(runner)
        await parent.add_workers(child)
        await child.send_bus_error_message("mine")
        await eventually(lambda: parent.failed)
        await parent.send_bus_error_message("ours")
        await eventually(lambda: errors.told and errors.sent("parent"))
    assert parent.failed == [WorkerErrorData("child", "mine")]
    assert errors.told == [WorkerErrorData("parent", "ours")]
    assert errors.sent("parent") == ["ours"]


# --- a crash


class Crashing(Helper):
    """Its `run` raises ``error`` when it is told to by a note, in the way that ``how`` says."""

    def __init__(self, name: str = "w", *, how: str = "run", error: Exception | None = None) -> None:
        super().__init__(name)
        self.how = how
        self.error = error or ValueError("boom")
        self.told = anyio.Event()

    async def break_down(self) -> None:
        await self.told.wait()
        raise self.error

    async def run(self, params: WorkerParams) -> None:
        if self.how == "start":
            await super().start()
            await self.break_down()
        await self.start()
        if self.how == "run":
            await self.break_down()
        elif self.how == "task":
            params.task_group.start_soon(self.break_down)
        await super().run(params)

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.told.set()

    @job(name="line", sequential=True)
    async def line(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        await anyio.sleep_forever()

    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        pass


async def crash(worker: Crashing, runner: WorkerRunner) -> None:
    await runner.bus.send(note(0, worker.name))
    await worker.wait()


@pytest.mark.parametrize("how", ["run", "start", "task"])
async def test_the_jobs_of_a_crashed_worker_are_answered_error(how: str) -> None:
    """W7: the running, the deferred, and the one that waits in line"""
    worker = Crashing(how=how)
    async with running(worker) as runner:
        await Errors().of(runner)
        raw = await Raw.on(runner.bus)
        for number, name in enumerate(["line", "line", "later", "wait"]):
            await raw.ask(str(number), "w", name)
        await worker.begun.wait()
        await anyio.wait_all_tasks_blocked()
        await crash(worker, runner)
        outcomes = [await raw.answer(str(number)) for number in range(4)]
    assert outcomes == [(JobStatus.ERROR, {"error": "boom", "type": "ValueError"})] * 4


@pytest.mark.parametrize("how", ["run", "start", "task"])
async def test_a_crashed_worker_is_finished_and_reported(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """W7"""
    worker = Crashing(how=how)
    async with running(worker, Helper("peer")) as runner:
        errors = await Errors().of(runner)
        await crash(worker, runner)
        assert runner.registry.get("w") is None
        assert not runner.bus.has_subscriber("w")
        await eventually(lambda: errors.told and errors.sent("w"))
        assert (await runner.job("peer", name="echo"))["worker"] == "peer"
        await runner.add_workers(Helper("w"))
        assert (await runner.job("w", name="echo"))["worker"] == "w"
    assert [data.worker_name for data in errors.told] == ["w"]
    assert "boom" in errors.told[0].error
    assert "boom" in errors.sent("w")[0]
    assert tracebacks(caplog, worker.error)


@pytest.mark.parametrize("how", ["run", "start", "task"])
async def test_what_a_worker_crashed_with_is_raised_by_the_run(how: str) -> None:
    """W7, R4, L6"""
    worker, caught = Crashing(how=how), None
    try:
        async with running(worker) as runner:
            await crash(worker, runner)
    except ValueError as exc:
        caught = exc
    assert caught is worker.error


async def test_a_job_is_not_completed_by_its_worker_s_cancelled_task_group() -> None:
    """J2, W7: a worker may cancel ``params.task_group`` to end; what it had not done was not done"""

    class Ending(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await self.begun.wait()
            params.task_group.cancel_scope.cancel()
            await anyio.sleep_forever()

    workers = [Ending(f"w{n}") for n in range(8)]
    async with running(*workers) as runner:
        raw = await Raw.on(runner.bus)
        for worker in workers:
            await raw.ask(worker.name, worker.name, "wait")
        assert {(await raw.answer(worker.name))[0] for worker in workers} == {JobStatus.CANCELLED}


async def test_a_crashed_parent_takes_its_children_with_it() -> None:
    """W7, W5"""
    parent, child = Crashing("parent"), Helper("child")
    async with running(parent) as runner:
        await Errors().of(runner)
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        await crash(parent, runner)
        await child.wait()


@pytest.mark.parametrize("handled", [False, True])
async def test_a_crashed_child_that_concerns_no_parent_is_not_lost(handled: bool) -> None:
    """W7, R4: either an ``on_error`` handler takes it, or `run()` raises it"""
    parent, child, caught = Helper("parent"), Crashing("child"), None
    errors = Errors()
    try:
        async with running(parent) as runner:
            if handled:
                await errors.of(runner)
            await parent.add_workers(child)
            await crash(child, runner)
    except ValueError as exc:
        caught = exc
    assert (caught is None) == handled
    assert [data.worker_name for data in errors.told] == ["child"] * handled


async def test_the_first_activation_of_a_child_that_fails_concerns_its_parent() -> None:
    """W7, W2"""

    class Failing(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            raise ValueError("no key")

    parent, child = Parent(), Failing("child")
    async with running(parent) as runner:
        await Errors().of(runner)
        await parent.add_workers(child)
        await child.wait()
        await eventually(lambda: parent.failed)
        assert (await runner.job("parent", name="echo"))["worker"] == "parent"
    assert len(parent.failed) == 1
    assert "no key" in parent.failed[0].error


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_overridden_start_that_raises_finishes_the_worker(when: str) -> None:
    """W7, R4"""

    class Starting(Helper):
        async def start(self) -> None:
            if when == "after":
                await super().start()
            raise ValueError("boom")

    runner = WorkerRunner(handle_sigint=False)
    worker = Starting("w")
    await runner.add_workers(worker)
    with pytest.raises(ValueError, match="boom"):
        await runner.run()
    await worker.wait()
    assert runner.registry.get("w") is None


async def test_an_error_while_run_is_cancelled_is_a_crash() -> None:
    """W7"""

    class Stubborn(Helper):
        async def run(self, params: WorkerParams) -> None:
            try:
                await super().run(params)
            finally:
                raise ValueError("boom")

    worker = Stubborn("w")
    async with running(worker) as runner:
        errors = await Errors().of(runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await worker.begun.wait()
        await worker.stop()
        assert (await raw.answer("1"))[0] is JobStatus.ERROR
        await eventually(lambda: errors.told)
    assert errors.told[0].worker_name == "w"


async def test_an_error_in_cleanup_does_not_hide_that_of_run(caplog: pytest.LogCaptureFixture) -> None:
    """W7"""
    second = ValueError("second")

    class Cleaning(Crashing):
        async def cleanup(self) -> None:
            raise second

    worker, caught = Cleaning(), None
    try:
        async with running(worker) as runner:
            await crash(worker, runner)
    except ValueError as exc:
        caught = exc
    assert caught is worker.error
    assert tracebacks(caplog, second)


async def test_no_error_of_a_worker_s_tasks_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """W7, L6: ``run()`` raises one, and a task in ``params.task_group`` another"""
    first, second = ValueError("first"), KeyError("second")

    class Double(BaseWorker):
        async def other(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise second

        async def run(self, params: WorkerParams) -> None:
            await self.start()
            params.task_group.start_soon(self.other)
            await anyio.wait_all_tasks_blocked()
            raise first

    caught: BaseException | None = None
    try:
        async with running(Double("w")):
            pass
    except Exception as exc:
        caught = exc
    errors = caught.exceptions if isinstance(caught, ExceptionGroup) else (caught,)
    assert first in errors
    assert second in errors or tracebacks(caplog, second)


async def test_several_crashes_are_raised_together() -> None:
    """R4, L6"""
    workers = [Crashing(f"w{n}", error=ValueError(n)) for n in range(3)]
    caught: BaseException | None = None
    try:
        async with running(*workers) as runner:
            for worker in workers:
                await crash(worker, runner)
    except ExceptionGroup as exc:
        caught = exc
    assert isinstance(caught, ExceptionGroup)
    assert set(caught.exceptions) == {worker.error for worker in workers}
