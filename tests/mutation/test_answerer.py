"""What a worker makes of the jobs that it is asked for, where no other test looks closely."""

import asyncio
import math
from typing import Any

import anyio
import pytest

from support import clock
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseUrgentMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    HandlerTypeError,
    JobFailure,
    JobStatus,
    MemoryBus,
    UnknownJobError,
    WorkerReadyData,
    WorkerRunner,
    job,
    worker_ready,
)

# --- requests that are refused


class Choosy(Helper):
    """Takes the job ``echo`` and the job ``wait`` only while it is open."""

    open = False

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return self.open or not isinstance(message, BusJobRequestMessage)


REFUSED = (JobStatus.FAILED, {"error": "worker 'choosy' does not accept this request", "type": "Refused"})


async def test_a_request_that_is_not_accepted_is_answered_at_once() -> None:
    """J1, N4: every request that reached a worker gets an outcome; a refused one, FAILED, with the reason."""
    choosy = Choosy("choosy")
    async with running(choosy) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "choosy", "echo")
        assert await raw.answer("job") == REFUSED
    assert choosy.calls == []


async def test_a_refused_request_that_comes_again_is_ignored() -> None:
    """J12: it had its outcome, also where it would be accepted by now."""
    choosy = Choosy("choosy")
    async with running(choosy) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "choosy", "echo")
        await raw.ask("job", "choosy", "echo")
        await raw.answer("job")
        choosy.open = True
        await raw.ask("job", "choosy", "echo")
        await raw.ask("next", "choosy", "echo")
        await raw.answer("next")
        await raw.settle()
        assert raw.answers("job") == [REFUSED]
    assert choosy.calls == ["next"]


@pytest.mark.parametrize("over", [False, True])
async def test_a_request_that_comes_again_and_is_refused_then_leaves_its_job_alone(over: bool) -> None:
    """J1, J12: one outcome, that of the job."""
    choosy = Choosy("choosy")
    choosy.open = True
    async with running(choosy) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "choosy", "wait")
        await choosy.begun.wait()
        if over:
            choosy.release.set()
            await raw.answer("job")
        choosy.open = False
        await raw.ask("job", "choosy", "wait")
        await raw.ask("next", "choosy", "wait")
        assert await raw.answer("next") == REFUSED
        choosy.release.set()
        await raw.answer("job")
        await raw.settle()
        assert raw.answers("job") == [(JobStatus.COMPLETED, {"released": True})]


# --- updates


async def test_a_request_for_an_update_of_an_unknown_job_is_ignored() -> None:
    """J14: there is nothing to tell."""

    class Asked(Listener):
        async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
            self.calls.append(message.job_id)

    asked = Asked("asked")
    async with running(asked) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "asked", "wait")
        for job_id in ("other", "job"):
            await runner.bus.send(BusJobUpdateRequestMessage(job_id, source="raw", target="asked"))
        await anyio.wait_all_tasks_blocked()
        asked.release.set()
    assert asked.calls == ["job", "job"]


# --- handlers that fail in groups


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_error_of_a_handlers_task_group_is_logged_with_the_job(
    cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """W7: with its traceback, as any other; after a cancel the outcome is CANCELLED all the same (J2)."""
    begun = anyio.Event()

    async def fails() -> None:
        begun.set()
        try:
            if cancelled:
                await anyio.sleep_forever()
        finally:
            raise ValueError("oh")

    async def works(worker: Doing, message: BusJobRequestMessage) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
            await anyio.sleep_forever()

    async with running(Doing("doing", works)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do")
        await begun.wait()
        if cancelled:
            await raw.cancel("job", "doing", "enough")
        answer = await raw.answer("job")
    [record] = caplog.records
    assert record.getMessage() == "the handler of job 'do' (job) at worker 'doing' failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    if cancelled:
        assert answer == (JobStatus.CANCELLED, {"error": "enough", "type": "Cancelled"})
    else:
        assert answer == (JobStatus.ERROR, {"error": "oh", "type": "ValueError"})


def test_a_group_of_cancellations_of_something_else_is_an_error_that_says_so() -> None:
    """J2: the job was not cancelled, and has not been done."""

    async def waits(worker: Doing, message: BusJobRequestMessage) -> None:
        raise BaseExceptionGroup("several", [asyncio.CancelledError(), asyncio.CancelledError()])

    async def example() -> None:
        async with running(Doing("doing", waits)) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "doing", "do")
            text = "the handler let a cancellation of something else through"
            assert await raw.answer("job") == (JobStatus.ERROR, {"error": text, "type": "RuntimeError"})

    clock.run(example, backend="asyncio")


# --- answers after a cancel


async def test_the_end_of_a_stream_after_a_cancel_is_a_cancelled_answer(caplog: pytest.LogCaptureFixture) -> None:
    """J2, J14: with the data that it came with; no `BusJobStreamEndMessage`, which would be COMPLETED."""
    begun = anyio.Event()

    async def works(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await worker.send_job_stream_end(message.job_id, {"part": 1})

    async with running(Doing("doing", works)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do")
        await begun.wait()
        await raw.cancel("job", "doing")
        await raw.answer("job")
        await raw.settle()
        assert raw.answers("job") == [(JobStatus.CANCELLED, {"part": 1})]
        assert raw.of(BusJobResponseUrgentMessage) == []
    assert caplog.messages == []


async def test_a_job_that_is_answered_while_it_waits_leaves_the_line() -> None:
    """J13: nothing waits for its turn any more, and the next one has it."""
    begun: list[str] = []
    release = anyio.Event()

    class Sequential(BaseWorker):
        @job(name="do", sequential=True)
        async def do(self, message: BusJobRequestMessage) -> None:
            begun.append(message.job_id)
            await release.wait()

    worker = Sequential("worker")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        for job_id in ("one", "two", "three"):
            await raw.ask(job_id, "worker", "do")
        await anyio.wait_all_tasks_blocked()
        assert len(worker.job_server.pool.busy) == 3
        await worker.send_job_response("two", {"early": True})
        await anyio.wait_all_tasks_blocked()
        assert len(worker.job_server.pool.busy) == 2
        assert list(worker.active_jobs) == ["one", "three"]
        release.set()
        assert await raw.answer("three") == (JobStatus.COMPLETED, {})
        assert raw.answers("two") == [(JobStatus.COMPLETED, {"early": True})]
    assert begun == ["one", "three"]


@pytest.mark.parametrize("end", ["response", "stream end"])
def test_a_handler_that_has_answered_may_outlive_the_deadline_of_the_job(backend: str, end: str) -> None:
    """J6: it was the job's deadline, and the job is over."""
    lived: list[bool] = []

    async def works(worker: Doing, message: BusJobRequestMessage) -> None:
        if end == "response":
            await worker.send_job_response(message.job_id, {})
        else:
            await worker.send_job_stream_end(message.job_id)
        await anyio.sleep(10)
        lived.append(True)

    async def example() -> None:
        async with running(Doing("doing", works), job_grace=20, grace_period=20) as runner:
            await runner.job("doing", name="do", timeout=3)

    clock.run(example, backend=backend, limit=100)
    assert lived == [True]


# --- decorators


def test_a_marked_method_that_takes_nothing_is_told_what_it_should_take() -> None:
    """J2, N3: what a user reads when the class is defined."""

    async def without(self: Any) -> None: ...

    with pytest.raises(HandlerTypeError) as caught:
        worker_ready(name="other")(without)
    assert str(caught.value).startswith("@worker_ready(name='other') goes over a method (self, data), not (self:")
    with pytest.raises(HandlerTypeError) as caught:
        job(name="do")(without)
    assert str(caught.value).startswith("@job(name='do') goes over a method (self, message), not (self:")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_may_be_any_whole_number_from_one_on(limit: int) -> None:
    """J13."""

    class Limited(BaseWorker):
        @job(name="do", limit=limit)
        async def do(self, message: BusJobRequestMessage) -> None: ...

    assert Limited("limited").name == "limited"
    for wrong in (0, -1, 1.5, "1"):
        with pytest.raises(ValueError, match=f"limit is a whole number of at least 1, not {wrong!r}"):
            job(name="do", limit=wrong)  # type: ignore[arg-type]  # that is what is refused


async def test_every_method_that_waits_for_a_worker_is_called() -> None:
    """W2, N1: also where several wait for the same one."""
    called: list[str] = []

    class Curious(BaseWorker):
        @worker_ready(name="other")
        async def first(self, data: WorkerReadyData) -> None:
            called.append("first")

        @worker_ready(name="other")
        async def second(self, data: WorkerReadyData) -> None:
            called.append("second")

    async with running(Curious("curious")) as runner:
        await runner.add_workers(Helper("other"))
        await anyio.wait_all_tasks_blocked()
    assert sorted(called) == ["first", "second"]


def test_a_worker_may_have_attributes_that_its_class_does_not_show() -> None:
    """N1: looking for handlers asks for nothing else, and stumbles over nothing."""

    class OfInstances:
        def __get__(self, instance: object, owner: type) -> int:
            if instance is None:
                raise AttributeError("only instances have it")
            return 7

    class Odd(BaseWorker):
        seven = OfInstances()

    assert Odd("odd").seven == 7


# --- jobs that are not open, or not any more


async def test_who_answers_for_no_job_is_told_which_and_where() -> None:
    """J14."""
    helper = Helper("helper")
    async with running(helper):
        with pytest.raises(UnknownJobError, match=r"^worker 'helper' has no open job 'gone': ") as caught:
            await helper.send_job_update("gone")
    assert (caught.value.job_id, caught.value.worker_name) == ("gone", "helper")


def test_a_handler_that_is_late_answers_a_cancelled_job(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """J6, J2: its time was over before it noticed; until it has answered, it may still tell how it goes."""

    class Late(Listener):
        @job(name="do")
        async def do(self, message: BusJobRequestMessage) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(4)
                await self.send_job_update(message.job_id, {"n": 1})
                await self.send_job_response(message.job_id, {"n": 2})

    async def example() -> None:
        late = Late("late")
        async with running(late) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "late", "do", seconds_left=3)
            assert await raw.answer("job") == (JobStatus.CANCELLED, {"n": 2})
            await raw.settle()
            assert raw.of(BusJobUpdateMessage) == [BusJobUpdateMessage("job", {"n": 1}, source="late", target="raw")]
            assert [message.reason for hook, message in late.heard if hook == "cancelled"] == ["timeout"]

    clock.run(example, backend=backend)
    assert caplog.messages == []


async def test_the_task_of_a_job_says_whose_it_is() -> None:
    """W8, L1: also where it is used again."""

    async def name(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"task": anyio.get_current_task().name}

    async with running(Doing("doing", name)) as runner:
        for _ in range(2):
            assert await runner.job("doing", name="do") == {"task": "doing job"}


async def test_a_cancel_that_overtakes_its_request_keeps_its_reason() -> None:
    """J9: the request waits for the start of the worker, the cancel does not."""
    helper = Helper("helper")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(helper)
    raw = await Raw.on(runner.bus)
    await raw.ask("one", "helper", "echo")
    await raw.ask("two", "helper", "echo")
    await raw.cancel("one", "helper", "too late")
    async with runner:
        assert await raw.answer("two") == (JobStatus.COMPLETED, {"worker": "helper", "payload": None})
        assert await raw.answer("one") == (JobStatus.CANCELLED, {"error": "too late", "type": "Cancelled"})
    assert helper.calls == ["two"]


# --- how handlers end


class Ending(Listener):
    """Ends its job ``do`` as the payload says, after its time if there is any."""

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(4 if message.seconds_left else 0)
        how = message.payload["how"] if message.payload else ""
        if how == "answer and fail":
            await self.send_job_response(message.job_id, {"n": 1})
        if how.endswith("fail"):
            raise ValueError("oh")
        if how == "group":
            raise ExceptionGroup("several", [ValueError("oh")])
        if how == "failure":
            raise JobFailure("no", n=1)
        return {"n": 1}


FAILED = "the handler of job 'do' (job) at worker 'ending' failed"


@pytest.mark.parametrize(
    ("how", "answer", "logged"),
    [
        ("return", (JobStatus.COMPLETED, {"n": 1}), []),
        ("fail", (JobStatus.ERROR, {"error": "oh", "type": "ValueError"}), [FAILED]),
        ("group", (JobStatus.ERROR, {"error": "oh", "type": "ValueError"}), [FAILED]),
        ("answer and fail", (JobStatus.COMPLETED, {"n": 1}), [f"{FAILED} after its answer"]),
        ("failure", (JobStatus.FAILED, {"error": "no", "type": "JobFailure", "n": 1}), []),
    ],
)
async def test_the_end_of_a_handler_is_its_answer_and_an_error_is_logged(
    how: str, answer: tuple[JobStatus, dict[str, Any]], logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """J2, W7: with its traceback, and the job; a failure that the handler tells is none of the library's log."""
    async with running(Ending("ending")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "ending", "do", payload={"how": how})
        assert await raw.answer("job") == answer
        await raw.settle()
        await anyio.wait_all_tasks_blocked()
        assert len(raw.answers("job")) == 1
    assert caplog.messages == logged
    for record in caplog.records:
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)


@pytest.mark.parametrize("how", ["return", "fail", "group", "failure"])
def test_a_handler_that_ends_after_its_time_has_timed_out(backend: str, how: str) -> None:
    """J6: whatever it ends with; the hook is told who has asked."""

    async def example() -> None:
        ending = Ending("ending")
        async with running(ending) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "ending", "do", payload={"how": how}, seconds_left=3)
            assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"})
            message = await ending.until("cancelled")
            assert message == BusJobCancelMessage("job", "timeout", source="raw", target="ending")
            await anyio.wait_all_tasks_blocked()
            assert [hook for hook, _ in ending.heard] == ["cancelled"]

    clock.run(example, backend=backend)


@pytest.mark.parametrize(
    ("seconds", "kind", "text"),
    [
        ("1", "TypeError", "seconds_left is a number of seconds or None, not '1'"),
        (True, "TypeError", "seconds_left is a number of seconds or None, not True"),
        (math.nan, "ValueError", "seconds_left is a number of seconds or None, not nan"),
    ],
)
async def test_a_request_with_a_time_that_makes_no_sense_is_an_error_that_says_so(
    seconds: Any, kind: str, text: str
) -> None:
    """J1, J6: it may come from anywhere."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "echo", seconds_left=seconds)
        assert await raw.answer("job") == (JobStatus.ERROR, {"error": text, "type": kind})
    assert helper.calls == []


async def test_a_handler_that_ends_the_program_has_answered() -> None:
    """J1, L3: its requester may live on elsewhere; the program ends as it wished."""

    async def leaves(worker: Doing, message: BusJobRequestMessage) -> None:
        raise SystemExit(3)

    async with MemoryBus() as bus:
        raw = await Raw.on(bus)
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Doing("doing", leaves))
        await raw.ask("job", "doing", "do")
        with pytest.raises(SystemExit) as caught:
            await runner.run()
        assert caught.value.code == 3
        assert await raw.answer("job") == (JobStatus.ERROR, {"error": "3", "type": "SystemExit"})
        await raw.settle()
        assert len(raw.answers("job")) == 1


async def test_a_handler_that_returns_something_odd_is_told_what_to_return() -> None:
    """J2."""

    async def odd(worker: Doing, message: BusJobRequestMessage) -> int:
        return 7

    async with running(Doing("doing", odd)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do")
        text = "the handler of job 'do' returned int; return a dict, or nothing"
        assert await raw.answer("job") == (JobStatus.ERROR, {"error": text, "type": "TypeError"})


async def test_a_deferred_handler_leaves_its_job_open() -> None:
    """J2: so that it can be answered later; any other has answered when it returns."""

    class Deferring(BaseWorker):
        @job(name="later", deferred=True)
        async def later(self, message: BusJobRequestMessage) -> None: ...

        @job(name="now")
        async def now(self, message: BusJobRequestMessage) -> None: ...

    worker = Deferring("worker")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("one", "worker", "later")
        await raw.ask("two", "worker", "now")
        assert await raw.answer("two") == (JobStatus.COMPLETED, {})
        await anyio.wait_all_tasks_blocked()
        assert list(worker.active_jobs) == ["one"]
        await worker.send_job_response("one", {"n": 1})
        assert await raw.answer("one") == (JobStatus.COMPLETED, {"n": 1})


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("answered", [False, True])
async def test_what_runs_beside_a_handler_that_ends_the_program_is_answered_as_cancelled(
    grouped: bool, answered: bool
) -> None:
    """J1, J4, W6: it did nothing wrong; unless it had answered."""
    begun = anyio.Event()

    class Leaving(BaseWorker):
        @job(name="leave")
        async def leave(self, message: BusJobRequestMessage) -> None:
            raise SystemExit(3)

        @job(name="work")
        async def work(self, message: BusJobRequestMessage) -> None:
            begun.set()
            try:
                if answered:
                    await self.send_job_response(message.job_id, {"n": 1})
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class() as exc:
                if grouped:
                    raise BaseExceptionGroup("several", [exc]) from None
                raise

    async with MemoryBus() as bus:
        raw = await Raw.on(bus)
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Leaving("leaving"))
        await raw.ask("work", "leaving", "work")

        async def leave() -> None:
            await begun.wait()
            await raw.ask("leave", "leaving", "leave")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            with pytest.raises(SystemExit):
                await runner.run()
        await raw.settle()
        cancelled = (JobStatus.CANCELLED, {"error": "worker 'leaving' stopped", "type": "Cancelled"})
        assert raw.answers("work") == [(JobStatus.COMPLETED, {"n": 1}) if answered else cancelled]
