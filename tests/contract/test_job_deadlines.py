"""J6: one deadline covers the wait for the workers and the job, at both ends. Idle time is skipped."""

import contextlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.requesters import Listener, Raw
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobError,
    JobGroupError,
    JobStatus,
    MemoryBus,
    WorkerRunner,
    job,
)
from workerbus.jobs._client import SAME_TIME

NEAR = 0.9
"""Seconds: how much real time may pass in a test that takes none of it."""


class Waiting(Listener):
    """Has handlers of every kind that go on until they are cancelled."""

    def __init__(self, name: str = "waiting") -> None:
        super().__init__(name)
        self.cancellations = 0

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> None:
        await self._wait_on(message)

    @job(name="queued", sequential=True)
    async def queued(self, message: BusJobRequestMessage) -> None:
        await self._wait_on(message)

    @job(name="defer", deferred=True)
    async def defer(self, message: BusJobRequestMessage) -> None:
        await self._wait_on(message)

    @job(name="left open", deferred=True)
    async def left_open(self, message: BusJobRequestMessage) -> None:
        self.begun.set()

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        if message.job_name == "request":
            await self._wait_on(message)

    async def _wait_on(self, message: BusJobRequestMessage) -> None:
        self.calls.append(message.job_id)
        self.begun.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancellations += 1
            raise


HANDLERS = ("do", "defer", "left open", "request", "request left open")


class EarlyBus(MemoryBus):
    """A bus under which workers see the time run out a moment before their requesters do."""

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage) and message.seconds_left is not None:
            message = BusJobRequestMessage(
                message.job_id,
                message.job_name,
                message.payload,
                message.seconds_left - 0.0005,
                source=message.source,
                target=message.target,
            )
        await super().publish(message)


async def requests_of(runner: WorkerRunner) -> Plain:
    plain = Plain("observer")
    await runner.bus.subscribe(plain)
    return plain


def seconds_left(observer: Plain) -> list[float | None]:
    return [message.seconds_left for message in observer.got if isinstance(message, BusJobRequestMessage)]


def is_left_of(seconds: float, left: float | None) -> bool:
    return left is not None and seconds - NEAR < left < seconds + 1e-6


# --- what travels


def test_seconds_left_is_the_last_field_of_a_request() -> None:
    """J6: None by default, so that a request is built as in the seeds."""
    parameters = inspect.signature(BusJobRequestMessage).parameters.values()
    fields = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    assert fields == ["job_id", "job_name", "payload", "seconds_left"]
    assert BusJobRequestMessage("id", "name", {}, source="me").seconds_left is None


def test_without_a_deadline_none_travels(backend: str) -> None:
    """J6: `seconds_left` is None."""

    async def run() -> None:
        async with running(Helper("helper")) as runner:
            observer = await requests_of(runner)
            await runner.job("helper", name="echo")
            await observer.until(1, BusJobRequestMessage)
        assert seconds_left(observer) == [None]

    clock.run(run, backend=backend, limit=math.inf)


async def test_the_timeout_travels_as_seconds_that_are_left(backend: str) -> None:
    """J6: less what the wait for the worker has taken."""
    async with running() as runner, anyio.create_task_group() as group:
        observer = await requests_of(runner)

        async def ask() -> None:
            await runner.job("helper", name="echo", timeout=10)

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(4)
        await runner.add_workers(Helper("helper"))
        await observer.until(1, BusJobRequestMessage)
    (left,) = seconds_left(observer)
    assert is_left_of(6, left)


@pytest.mark.parametrize(("timeout", "outer", "expected"), [(None, 5, 5), (8, 5, 5), (5, 8, 5)])
async def test_the_smaller_of_timeout_and_enclosing_deadline_travels(
    backend: str, timeout: float | None, outer: float, expected: float
) -> None:
    """J6: an enclosing scope's deadline counts, too."""
    async with running(Helper("helper")) as runner:
        observer = await requests_of(runner)
        with anyio.fail_after(outer):
            await runner.job("helper", name="echo", timeout=timeout)
        await observer.until(1, BusJobRequestMessage)
    (left,) = seconds_left(observer)
    assert is_left_of(expected, left)


async def test_a_handler_runs_under_the_deadline_of_its_job(backend: str) -> None:
    """J6: it can see it."""
    deadlines: list[float] = []

    async def looks(worker: Doing, message: BusJobRequestMessage) -> None:
        deadlines.append(anyio.current_effective_deadline() - anyio.current_time())

    async with running(Doing("doing", looks)) as runner:
        await runner.job("doing", name="do", timeout=7)
        await runner.job("doing", name="do", timeout=3)
    assert is_left_of(7, deadlines[0])
    assert is_left_of(3, deadlines[1])


@pytest.mark.parametrize(("own", "expected"), [(None, 5), (2, 2), (9, 5)])
@pytest.mark.parametrize("how", ["job", "request_job"])
async def test_a_job_inside_a_handler_inherits_what_is_left(
    backend: str, how: str, own: float | None, expected: float
) -> None:
    """J6: or has its own timeout, if that is smaller."""

    async def asks(worker: Doing, message: BusJobRequestMessage) -> None:
        await anyio.sleep(1)
        await getattr(worker, how)("inner", name="echo", timeout=own)

    async with running(Doing("outer", asks), Helper("inner")) as runner:
        observer = await requests_of(runner)
        await runner.job("outer", name="do", timeout=6)
        await observer.until(2, BusJobRequestMessage)
    assert is_left_of(expected, seconds_left(observer)[1])


async def test_a_chain_of_jobs_ends_when_the_first_runs_out_of_time(backend: str) -> None:
    """J6: each handler is cancelled, and the first requester gets its timeout."""

    class Link(Waiting):
        def __init__(self, name: str, next_name: str | None) -> None:
            super().__init__(name)
            self.next_name = next_name

        @job(name="pass on")
        async def pass_on(self, message: BusJobRequestMessage) -> None:
            if self.next_name is None:
                await self._wait_on(message)
            else:
                await self.job(self.next_name, name="pass on")

    links = [Link("a", "b"), Link("b", "c"), Link("c", None)]
    async with running(*links) as runner:
        started = anyio.current_time()
        with pytest.raises(TimeoutError) as caught:
            await runner.job("a", name="pass on", timeout=3)
        assert isinstance(caught.value, JobError)
        assert 3 <= anyio.current_time() - started < 3 + NEAR
        assert links[2].cancellations == 1
        assert [link.active_jobs for link in links] == [{}, {}, {}]
        assert [link.job_groups for link in links] == [{}, {}, {}]


# --- when it runs out


async def test_one_deadline_covers_the_wait_and_the_job(backend: str) -> None:
    """J6: not each of them."""
    async with running() as runner, anyio.create_task_group() as group:

        async def add_later() -> None:
            await anyio.sleep(3)
            await runner.add_workers(Helper("helper"))

        group.start_soon(add_later)
        started = anyio.current_time()
        with pytest.raises(JobError):
            await runner.job("helper", name="wait", timeout=5)
        assert 5 <= anyio.current_time() - started < 5 + NEAR


@pytest.mark.parametrize("make_bus", [MemoryBus, EarlyBus], ids=["requester first", "worker first"])
@pytest.mark.parametrize("name", HANDLERS)
async def test_at_its_timeout_a_job_is_cancelled_once_and_the_requester_is_told(
    backend: str, name: str, make_bus: Callable[[], MemoryBus]
) -> None:
    """J6: whichever end sees it first."""
    waiting = Waiting()
    async with running(waiting, bus=make_bus()) as runner:
        with pytest.raises(TimeoutError) as caught:
            await runner.job("waiting", name=name, timeout=1)
        assert isinstance(caught.value, JobError)
        assert caught.value.reason == "timeout"
        assert caught.value.statuses == {"waiting": JobStatus.CANCELLED}
        await waiting.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert [message.reason for hook, message in waiting.heard if hook == "cancelled"] == ["timeout"]
        assert waiting.cancellations == ("open" not in name)
        assert waiting.active_jobs == {}


@pytest.mark.parametrize("name", HANDLERS)
async def test_a_worker_keeps_the_deadline_by_itself(backend: str, name: str) -> None:
    """J6: nobody sends a cancel here; a deferred job keeps its deadline after its handler has returned."""
    waiting = Waiting()
    async with running(waiting) as runner:
        raw = await Raw.on(runner.bus)
        started = anyio.current_time()
        await raw.ask("job", "waiting", name, seconds_left=2.0)
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        assert 2 <= anyio.current_time() - started < 2 + NEAR
        message = await waiting.until("cancelled")
        assert (message.job_id, message.reason) == ("job", "timeout")
        await anyio.wait_all_tasks_blocked()
        assert len(raw.answers("job")) == 1
        assert [hook for hook, _ in waiting.heard] == ["cancelled"]


@pytest.mark.parametrize("left", [0.0, -1.0])
@pytest.mark.parametrize("name", HANDLERS)
async def test_a_request_that_comes_too_late_is_not_begun(backend: str, name: str, left: float) -> None:
    """J6: its time was up before."""
    waiting = Waiting()
    async with running(waiting) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "waiting", name, seconds_left=left)
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        assert (await waiting.until("cancelled")).reason == "timeout"
        assert waiting.calls == []
        assert not waiting.begun.is_set()


async def test_no_time_at_all_is_a_timeout(backend: str) -> None:
    """J6: at once, and the handler does not begin."""
    waiting = Waiting()
    async with running(waiting) as runner:
        for worker in ("waiting", "nobody"):
            with pytest.raises(TimeoutError) as caught:
                await runner.job(worker, name="do", timeout=0)
            assert isinstance(caught.value, JobError)
        assert waiting.calls == []


async def test_a_job_that_waits_for_its_turn_runs_out_of_time_there(backend: str) -> None:
    """J6: and its handler never starts."""
    waiting = Waiting()
    async with running(waiting) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("first", "waiting", "queued")
        await raw.ask("second", "waiting", "queued", seconds_left=1.0)
        assert (await raw.answer("second"))[0] == JobStatus.CANCELLED
        assert (await waiting.until("cancelled")).job_id == "second"
        assert waiting.calls == ["first"]
        assert list(waiting.active_jobs) == ["first"]


async def test_a_handler_that_does_not_wait_has_its_time_run_out_all_the_same(backend: str) -> None:
    """J6: it came too late, whatever it returns."""

    async def blocks(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        deadline = anyio.current_time() + 0.03
        while anyio.current_time() < deadline:
            pass
        return {"late": True}

    async with running(Doing("doing", blocks)) as runner:
        with pytest.raises(TimeoutError):
            await runner.job("doing", name="do", timeout=0.01)


@pytest.mark.parametrize("make_bus", [MemoryBus, EarlyBus], ids=["requester first", "worker first"])
async def test_the_timeout_of_a_job_without_a_context_is_told_by_a_hook(
    backend: str, make_bus: Callable[[], MemoryBus]
) -> None:
    """J6: `on_job_error`, once, whichever end sees it first."""
    asker, waiting = Listener("asker"), Waiting()
    async with running(asker, waiting, bus=make_bus()):
        job_id = await asker.request_job("waiting", name="do", timeout=1)
        await waiting.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert asker.job_groups == {}
        errors = [message for hook, message in asker.heard if hook == "error"]
        assert [message.job_id for message in errors] == [job_id]
        assert "completed" not in [hook for hook, _ in asker.heard]


async def test_a_group_without_a_context_runs_out_of_time(backend: str) -> None:
    """J6: who waits for it is told."""
    asker, waiting = Listener("asker"), Waiting()
    async with running(asker, waiting, Helper("helper")):
        group = await asker.create_job_group_and_request_job(["waiting", "helper"], name="wait", timeout=1)
        with pytest.raises(TimeoutError) as caught:
            await group.wait()
        assert isinstance(caught.value, JobGroupError)


async def test_a_request_for_a_worker_that_does_not_come_runs_out_of_time(backend: str) -> None:
    """J6: without a context, too."""
    asker = Listener("asker")
    async with running(asker):
        with pytest.raises(TimeoutError) as caught:
            await asker.request_job("nobody", timeout=1)
        assert isinstance(caught.value, JobError)
        with pytest.raises(JobGroupError):
            await asker.request_job_group("nobody", "asker", timeout=1)
        assert asker.job_groups == {}
        assert asker.calls == []


# --- enclosing scopes


@pytest.mark.parametrize("make_bus", [MemoryBus, EarlyBus], ids=["requester first", "worker first"])
@pytest.mark.parametrize("timeout", [None, 9])
async def test_an_enclosing_scope_ends_the_wait_by_its_own_cancellation(
    backend: str, timeout: float | None, make_bus: Callable[[], MemoryBus]
) -> None:
    """J6: J8's error is for the job's own timeout alone."""
    waiting = Waiting()
    async with running(waiting, bus=make_bus()) as runner:
        with anyio.move_on_after(1) as scope:
            await runner.job("waiting", name="do", timeout=timeout)
        assert scope.cancelled_caught
        await waiting.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert waiting.cancellations == 1
        assert [hook for hook, _ in waiting.heard] == ["cancelled"]


@pytest.mark.parametrize("make_bus", [MemoryBus, EarlyBus], ids=["requester first", "worker first"])
async def test_the_deadline_of_an_enclosing_scope_is_a_timeout_for_the_worker(
    backend: str, make_bus: Callable[[], MemoryBus]
) -> None:
    """J6: time ran out, whichever end has seen it first; `on_job_cancelled` says so."""
    waiting = Waiting()
    async with running(waiting, bus=make_bus()) as runner:
        with anyio.move_on_after(1):
            await runner.job("waiting", name="do")
        assert (await waiting.until("cancelled")).reason == "timeout"


@pytest.mark.parametrize("how", ["job", "job_group"])
async def test_a_scope_that_is_given_more_time_after_the_request_does_not_leave_its_requester_waiting(
    backend: str, how: str
) -> None:
    """J6, J1, J8: the worker cancels at the time that it was told, which nobody here has asked for."""
    waiting = Waiting()
    async with running(waiting) as runner:
        with anyio.move_on_after(1) as scope:
            with pytest.raises((JobError, JobGroupError)) as caught:
                async with getattr(runner, how)("waiting", name="do"):
                    scope.deadline += 100
            assert caught.value.statuses == {"waiting": JobStatus.CANCELLED}
        assert not scope.cancelled_caught


async def test_a_scope_inside_the_body_is_none_of_the_jobs_business(backend: str) -> None:
    """J6: only what encloses the context counts."""
    waiting = Waiting()
    async with running(waiting) as runner, runner.job("waiting", name="wait") as asked:
        with anyio.move_on_after(1):
            async for _ in asked:
                pass
        assert list(waiting.active_jobs) == [asked.job_id]
        waiting.release.set()


# --- one deadline is not another's


async def test_a_deadline_ends_with_its_job(backend: str) -> None:
    """J6: the next job in the same task has its own, or none."""

    async def sleeps(worker: Doing, message: BusJobRequestMessage) -> None:
        assert message.payload is not None
        await anyio.sleep(message.payload["seconds"])

    async with running(Doing("doing", sleeps)) as runner:
        raw = await Raw.on(runner.bus)
        for number, (seconds, left) in enumerate([(0, 1.0), (3, None), (0, 2.0), (3, 5.0), (3, 1.0), (3, None)]):
            await raw.ask(f"job {number}", "doing", "do", payload={"seconds": seconds}, seconds_left=left)
            expected = JobStatus.CANCELLED if number == 4 else JobStatus.COMPLETED
            assert (await raw.answer(f"job {number}"))[0] == expected, number


async def test_a_body_has_the_timeout_too_until_the_job_has_completed(backend: str) -> None:
    """J6: and the error says when it was up."""
    async with running(Helper("helper")) as runner:
        started = anyio.current_time()
        with pytest.raises(TimeoutError):
            async with runner.job("helper", name="wait", timeout=2):
                await anyio.sleep(50)
        assert 2 <= anyio.current_time() - started < 2 + NEAR


async def test_a_timeout_tells_of_the_time_and_not_of_the_answer_that_came_too_late(backend: str) -> None:
    """J6: a handler that answers while it unwinds has been too late."""

    async def answers_late(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await worker.send_job_response(message.job_id, {"late": True})

    async with running(Doing("doing", answers_late)) as runner:
        with pytest.raises(TimeoutError) as caught:
            await runner.job("doing", name="do", timeout=1)
        assert isinstance(caught.value, JobError)
        assert caught.value.statuses == {"doing": JobStatus.CANCELLED}


async def test_the_cancel_hook_runs_for_a_handler_that_answers_while_it_unwinds(backend: str) -> None:
    """J6: once, with the reason; nobody but the worker sees the time here."""

    class Late(Waiting):
        @job(name="late")
        async def late(self, message: BusJobRequestMessage) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                await self.send_job_response(message.job_id, {})

    late = Late("late")
    async with running(late) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "late", "late", seconds_left=1.0)
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        assert (await late.until("cancelled")).reason == "timeout"


async def test_a_job_that_is_asked_for_by_a_hook_has_no_deadline_of_another_job(backend: str) -> None:
    """J6: what a hook asks for is nobody's inner job."""

    class Curious(BaseWorker):
        async def on_job_cancelled(self, message: BusMessage) -> None:
            await self.job("helper", name="echo")
            done.set()

        @job(name="wait")
        async def wait_here(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep_forever()

    done = anyio.Event()
    async with running(Curious("curious"), Helper("helper")) as runner:
        observer = await requests_of(runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "curious", "wait", seconds_left=1.0)
        await done.wait()
        await observer.until(2, BusJobRequestMessage)
    assert seconds_left(observer) == [1.0, None]


async def test_a_scope_that_is_given_more_time_at_the_last_moment_does_not_leave_its_requester_waiting() -> None:
    """J6, J1: the worker's timeout has come, the scope's was about to, and then it had more time."""
    silent = Helper("silent")
    async with running(silent) as runner, anyio.create_task_group() as tasks:

        async def extend(job_id: str, scope: anyio.CancelScope) -> None:
            while anyio.current_time() < scope.deadline - SAME_TIME / 2:
                await checkpoint()
            late = BusJobResponseMessage(
                job_id, JobStatus.CANCELLED, {"error": "timeout"}, source="silent", target=runner.name
            )
            await runner.bus.send(late)
            await checkpoint()
            scope.deadline += 100

        with anyio.move_on_after(0.05) as scope, contextlib.suppress(JobError):
            async with runner.job("silent", name="wait") as asked:
                tasks.start_soon(extend, asked.job_id, scope)
        assert asked.statuses == {"silent": JobStatus.CANCELLED}
