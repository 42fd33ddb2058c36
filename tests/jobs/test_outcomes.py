"""J1, J2: every request gets one outcome, whatever its handler does."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.buses import PoliteBus
from support.contexts import answer_at_once
from support.requesters import Listener, Raw, outcome_of
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobUpdateMessage,
    JobFailure,
    JobStatus,
    MemoryBus,
    WorkerBus,
    WorkerPool,
    job,
)

ENDING = (
    "return",
    "return nothing",
    "return a number",
    "raise",
    "fail",
    "answer",
    "answer twice",
    "answer and raise",
    "answer urgently",
    "stream",
)


WAITING = ("obey", "return when cancelled", "raise when cancelled", "answer when cancelled")


async def act(worker: Doing, message: BusJobRequestMessage) -> Any:
    assert message.payload is not None
    what, job_id = message.payload["what"], message.job_id
    if what in WAITING:
        return await wait(worker, job_id, what)
    if what.startswith("answer"):
        await worker.send_job_response(job_id, {"answer": 1}, urgent=what == "answer urgently")
    if what == "answer twice":
        await worker.send_job_response(job_id, {"answer": 2})
    elif what == "stream":
        await worker.send_job_stream_start(job_id)
        await worker.send_job_stream_end(job_id, {"streamed": True})
    elif what == "fail":
        raise JobFailure("no")
    elif "raise" in what:
        raise ValueError(what)
    return {"return": {}, "return a number": 3}.get(what)


async def wait(worker: Doing, job_id: str, what: str) -> Any:
    await worker.send_job_update(job_id)
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        if what == "return when cancelled":
            return {}  # which refuses the cancellation
        if what == "raise when cancelled":
            raise ValueError(what) from None
        if what == "answer when cancelled":
            await worker.send_job_response(job_id, {})


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(ENDING + WAITING + ("have no handler",)),
        st.sampled_from(("defer", "do")),
        st.sampled_from(("ask", "ask twice", "cancel at once", "cancel later", "expire")),
    ),
    max_size=8,
)


@pytest.mark.parametrize("make_bus", [MemoryBus, PoliteBus])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS)
def test_every_request_gets_one_terminal_outcome(
    backend: str, make_bus: Callable[[], WorkerBus], requests: list[tuple[str, str, str]]
) -> None:
    """J1: whatever the handlers, the requester and the worker's end do to each other."""

    async def example() -> None:
        async with running(Doing("doing", act), bus=make_bus()) as runner:
            raw = await Raw.on(runner.bus)
            for number, (what, kind, how) in enumerate(requests):
                job_name = "none" if what == "have no handler" else kind
                fields = {"payload": {"what": what}, "seconds_left": 0.001 if how == "expire" else None}
                for _ in range(2 if how == "ask twice" else 1):
                    await raw.ask(f"job {number}", "doing", job_name, **fields)
                if how == "cancel later" and what in WAITING:
                    await until_updated(raw, f"job {number}")
                if how.startswith("cancel"):
                    await raw.cancel(f"job {number}", "doing")
            doing = runner.get_worker("doing")
            assert doing is not None
            await doing.stop()
            await raw.settle()
            assert [len(raw.answers(f"job {number}")) for number in range(len(requests))] == [1] * len(requests)

    clock.run(example, backend=backend)


async def until_updated(raw: Raw, job_id: str) -> None:
    count = 1
    while all(message.job_id != job_id for message in await updates(raw, count)):
        count += 1


async def updates(raw: Raw, count: int) -> list[BusJobUpdateMessage]:
    messages = await raw.until(count, BusJobUpdateMessage)
    return [message for message in messages if isinstance(message, BusJobUpdateMessage)]


@pytest.mark.parametrize("left", [float("nan"), "soon"])
async def test_a_request_that_makes_no_sense_is_answered_and_does_no_harm(left: Any) -> None:
    """J1: who sends it gets an outcome, and the worker goes on."""
    async with running(Helper("helper")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("odd", "helper", "echo", seconds_left=left)
        await raw.answer("odd")
        await raw.ask("job", "helper", "echo")
        assert (await raw.answer("job"))[0] == JobStatus.COMPLETED


async def nothing(worker: Doing, message: BusJobRequestMessage) -> None:
    pass


@pytest.mark.parametrize("name", ["do", "defer"])
async def test_a_dict_that_is_returned_is_the_answer(name: str) -> None:
    """J2: COMPLETED with it."""

    async def returns(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"n": 1}

    async with running(Doing("doing", returns)) as runner:
        assert await outcome_of(runner, "doing", name=name) == (JobStatus.COMPLETED, {"n": 1})


async def test_returning_nothing_completes_the_job() -> None:
    """J2: COMPLETED with an empty dict."""
    async with running(Doing("doing", nothing)) as runner:
        assert await outcome_of(runner, "doing", name="do") == (JobStatus.COMPLETED, {})


@pytest.mark.parametrize("name", ["do", "defer"])
@pytest.mark.parametrize("value", [0, False, "", [], "text", (1, 2), object()])
async def test_anything_else_that_is_returned_is_an_error(value: object, name: str) -> None:
    """J2: ERROR with a text and a class name, for what is false, too."""

    async def returns(worker: Doing, message: BusJobRequestMessage) -> object:
        return value

    async with running(Doing("doing", returns)) as runner:
        status, response = await outcome_of(runner, "doing", name=name)
    assert status == JobStatus.ERROR
    assert isinstance(response["error"], str)
    assert isinstance(response["type"], str)


@pytest.mark.parametrize("name", ["do", "defer"])
async def test_an_exception_is_an_error(name: str) -> None:
    """J2: ERROR with its text and its class name."""

    class OddError(Exception):
        pass

    async def raises(worker: Doing, message: BusJobRequestMessage) -> None:
        raise OddError("it went wrong")

    async with running(Doing("doing", raises)) as runner:
        answer = await outcome_of(runner, "doing", name=name)
    assert answer == (JobStatus.ERROR, {"error": "it went wrong", "type": "OddError"})


@pytest.mark.parametrize("kind", [ValueError, type("Panic", (BaseException,), {})])
async def test_an_exception_without_a_text_is_an_error(kind: type[BaseException]) -> None:
    """J2, J1: its own `__str__` may fail; the job is answered, and the worker goes on."""

    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise kind("no words")

    async def raises(worker: Doing, message: BusJobRequestMessage) -> None:
        raise UnspeakableError

    async with running(Doing("doing", raises)) as runner:
        for _ in range(2):
            status, response = await outcome_of(runner, "doing", name="do")
            assert (status, response["type"]) == (JobStatus.ERROR, "UnspeakableError")


@pytest.mark.parametrize("name", ["do", "defer"])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [(ValueError("oh"), JobStatus.ERROR, "ValueError"), (JobFailure("no"), JobStatus.FAILED, "JobFailure")],
    ids=["error", "failure"],
)
async def test_the_one_error_of_a_task_group_is_the_error_of_the_job(
    name: str, error: Exception, status: JobStatus, kind: str
) -> None:
    """J2, L6: a handler that works with tasks of its own says no less than one without."""

    async def fails() -> None:
        raise error

    async def works(worker: Doing, message: BusJobRequestMessage) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
            await anyio.sleep_forever()

    async with running(Doing("doing", works)) as runner:
        answer = await outcome_of(runner, "doing", name=name)
    assert (answer[0], answer[1]["type"], answer[1]["error"]) == (status, kind, str(error))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", ["do", "defer"])
def test_a_cancellation_of_something_else_is_an_error_of_the_job(name: str, grouped: bool) -> None:
    """J2: a handler waits for a future that somebody has cancelled; the job was not, and has not been done."""

    async def waits(worker: Doing, message: BusJobRequestMessage) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        try:
            await future
        except asyncio.CancelledError as exc:
            if grouped:
                raise BaseExceptionGroup("several", [exc]) from None
            raise

    async def example() -> None:
        async with running(Doing("doing", waits)) as runner:
            for _ in range(2):
                assert (await outcome_of(runner, "doing", name=name))[0] == JobStatus.ERROR

    clock.run(example, backend="asyncio")


@pytest.mark.parametrize("name", ["do", "defer"])
def test_a_handler_whose_task_is_cancelled_natively_is_an_error(name: str) -> None:
    """J2: nobody has cancelled the job; its worker goes on."""

    async def example() -> None:
        tasks: list[asyncio.Task[Any] | None] = []

        async def waits(worker: Doing, message: BusJobRequestMessage) -> None:
            tasks.append(asyncio.current_task())
            await worker.send_job_update(message.job_id)
            await anyio.sleep_forever()

        async with running(Doing("doing", waits)) as runner:
            raw = await Raw.on(runner.bus)
            for number in range(2):
                await raw.ask(f"job {number}", "doing", name)
                await raw.until(number + 1, BusJobUpdateMessage)
                task = tasks[-1]
                assert task is not None
                task.cancel()
                assert (await raw.answer(f"job {number}"))[0] == JobStatus.ERROR

    clock.run(example, backend="asyncio")


async def test_a_job_failure_is_failed() -> None:
    """J2: FAILED, with the reason."""

    async def fails(worker: Doing, message: BusJobRequestMessage) -> None:
        raise JobFailure("out of stock")

    async with running(Doing("doing", fails)) as runner:
        status, response = await outcome_of(runner, "doing", name="do")
    assert status == JobStatus.FAILED
    assert response["error"] == "out of stock"


class UninitializedFailure(JobFailure):
    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class DataFailure(JobFailure):
    code: int


class FailureOfOtherNames(JobFailure):
    data = b"42"  # type: ignore[assignment]  # of a name that is taken

    def __init__(self, reason: str) -> None:
        Exception.__init__(self, reason)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (UninitializedFailure(42), "42"),
        (DataFailure(42), "42"),
        (FailureOfOtherNames("no"), "no"),
        (JobFailure(ValueError("no")), "no"),  # type: ignore[arg-type]  # which is the mistake
    ],
    ids=["without super().__init__()", "a dataclass", "other attributes", "a reason that is an error"],
)
async def test_a_job_failure_of_the_users_own_is_failed(failure: JobFailure, error: str) -> None:
    """J2: however its class is made, and its worker goes on."""

    async def fails(worker: Doing, message: BusJobRequestMessage) -> None:
        raise failure

    async with running(Doing("doing", fails)) as runner:
        for _ in range(2):
            answer = await outcome_of(runner, "doing", name="do")
            assert answer == (JobStatus.FAILED, {"error": error, "type": "JobFailure"})


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_handler_that_is_no_longer_to_be_found_is_an_error(pooled: bool) -> None:
    """J1, N7: at a member of a pool, too, which goes on."""

    class Changing(Helper):
        @job(name="gone")
        async def gone(self, message: BusJobRequestMessage) -> None: ...

    worker: BaseWorker = WorkerPool("worker", Changing, size=1) if pooled else Changing("worker")
    async with running(worker) as runner:
        await runner.job("worker", name="echo")
        del Changing.gone
        for _ in range(2):
            status, response = await outcome_of(runner, "worker", name="gone")
            assert (status, response["type"]) == (JobStatus.ERROR, "AttributeError")
        assert worker.active_jobs == {}
        await runner.job("worker", name="echo")


class Ambiguous(dict[str, Any]):
    """Has a truth of its own, as a table of data may have."""

    def __init__(self, truth: Callable[[], bool], **items: Any) -> None:
        super().__init__(**items)
        self.truth = truth

    def __bool__(self) -> bool:
        return self.truth()


def has_no_truth() -> bool:
    raise ValueError("the truth of a table is ambiguous")


@pytest.mark.parametrize("truth", [lambda: False, has_no_truth], ids=["false", "none"])
async def test_what_a_job_passes_on_is_not_judged_by_its_truth(truth: Callable[[], bool]) -> None:
    """J1, J2: a dict of the user's own that is false is not lost."""
    got = list[Any]()

    async def answers(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        got.append(message.payload)
        await worker.send_job_stream_data(message.job_id, Ambiguous(truth, n=2))
        return Ambiguous(truth, n=3)

    async with running(Doing("doing", answers)) as runner:
        async with runner.job("doing", name="do", payload=Ambiguous(truth, n=1)) as asked:
            got += [chunk async for chunk in asked.stream()]
        got.append(asked.response)
        async with runner.job_group(payloads={"doing": Ambiguous(truth, n=1)}, name="do"):
            pass
    assert [each["n"] for each in got] == [1, 2, 3, 1]


@pytest.mark.parametrize("send", ["update", "stream_start", "stream_data", "stream_end"])
async def test_a_worker_sends_nothing_for_a_job_but_dicts(send: str) -> None:
    """J14: like its answer; what else it sends raises in the handler."""

    async def sends(worker: Doing, message: BusJobRequestMessage) -> None:
        await getattr(worker, f"send_job_{send}")(message.job_id, [1])

    async with running(Doing("doing", sends)) as runner:
        status, response = await outcome_of(runner, "doing", name="do")
    assert (status, response["type"]) == (JobStatus.ERROR, "TypeError")
    assert response["error"].endswith("is a dict or None, not [1]")


async def test_a_failing_handler_stops_no_other_job() -> None:
    """J2: its worker goes on."""
    async with running(Helper("helper")) as runner:
        await outcome_of(runner, "helper", name="fail")
        assert (await outcome_of(runner, "helper", name="echo"))[0] == JobStatus.COMPLETED


async def test_a_job_has_the_status_that_its_worker_gave_it() -> None:
    """J1: the outcome is the worker's, not the requester's guess."""

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {"why": "because"}, status=JobStatus.CANCELLED)

    async with running(Doing("doing", answers)) as runner:
        raw = await Raw.on(runner.bus)
        assert await outcome_of(runner, "doing", name="do") == (JobStatus.CANCELLED, {"why": "because"})
        await raw.settle()
        assert len(raw.of(BusJobResponseMessage)) == 1


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
            text = "it let a cancellation of something else through"
            assert await raw.answer("job") == (JobStatus.ERROR, {"error": text, "type": "RuntimeError"})

    clock.run(example, backend="asyncio")


class Shutdown(Listener):
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
    async with running(Shutdown("ending")) as runner:
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


async def test_a_handler_that_returns_something_odd_is_told_what_to_return() -> None:
    """J2."""

    async def odd(worker: Doing, message: BusJobRequestMessage) -> int:
        return 7

    async with running(Doing("doing", odd)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do")
        text = "the handler of job 'do' returned int; return a dict, or nothing"
        assert await raw.answer("job") == (JobStatus.ERROR, {"error": text, "type": "TypeError"})


@pytest.mark.parametrize("status", JobStatus)
async def test_a_status_that_came_as_plain_text_is_the_status_that_it_names(status: JobStatus) -> None:
    """J1, J11: as a transport that knows no better may bring it."""
    async with running(Helper("helper")) as runner:
        async with runner.job_group("helper", name="wait", cancel_on_error=False) as asked:
            await answer_at_once(runner, asked.job_id, "helper", status.value)
        assert asked.statuses == {"helper": status}
        assert type(asked.statuses["helper"]) is JobStatus


@pytest.mark.parametrize("status", ["nonsense", None, 7])
async def test_a_status_that_there_is_not_is_an_error(status: Any) -> None:
    """J1, J11: whatever the answer says beside it."""
    async with running(Helper("helper")) as runner:
        async with runner.job_group("helper", name="wait", cancel_on_error=False) as asked:
            await answer_at_once(runner, asked.job_id, "helper", status)
        assert asked.statuses == {"helper": JobStatus.ERROR}


@pytest.mark.parametrize("how", ["return", "fail", "group", "failure"])
def test_a_handler_that_ends_after_its_time_has_timed_out(backend: str, how: str) -> None:
    """J6: whatever it ends with; the hook is told who has asked."""

    async def example() -> None:
        ending = Shutdown("ending")
        async with running(ending) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "ending", "do", payload={"how": how}, seconds_left=3)
            assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"})
            message = await ending.until("cancelled")
            assert message == BusJobCancelMessage("job", "timeout", source="raw", target="ending")
            await anyio.wait_all_tasks_blocked()
            assert [hook for hook, _ in ending.heard] == ["cancelled"]

    clock.run(example, backend=backend)


@pytest.mark.parametrize("what", WAITING)
@pytest.mark.parametrize("name", ["do", "defer"])
async def test_after_a_cancel_the_outcome_is_cancelled(name: str, what: str) -> None:
    """J2: whatever the handler does with its cancellation."""
    async with running(Doing("doing", act)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", name, payload={"what": what})
        await raw.until(1, BusJobUpdateMessage)
        await raw.cancel("job", "doing")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED


@pytest.mark.parametrize("what", WAITING)
@pytest.mark.parametrize("name", ["do", "defer"])
async def test_when_time_is_up_the_outcome_is_cancelled(name: str, what: str) -> None:
    """J2, J6: a deadline cancels, too; nobody else says so here."""
    async with running(Doing("doing", act)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", name, payload={"what": what}, seconds_left=0.02)
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED


@pytest.mark.parametrize("how", ["cancel", "expire", "stop"])
async def test_a_handler_whose_tasks_fail_while_they_are_cancelled_has_its_job_cancelled(how: str) -> None:
    """J2, J1: cancellations and errors come out of a task group as one; the worker survives it."""

    async def fails() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("oh")

    async def works(worker: Doing, message: BusJobRequestMessage) -> None:
        if message.job_id == "job":
            async with anyio.create_task_group() as group:
                group.start_soon(fails)
                await worker.send_job_update(message.job_id)
                await anyio.sleep_forever()

    worker = Doing("doing", works)
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do", seconds_left=0.05 if how == "expire" else None)
        await raw.until(1, BusJobUpdateMessage)
        await anyio.wait_all_tasks_blocked()
        if how == "cancel":
            await raw.cancel("job", "doing")
        elif how == "stop":
            await worker.stop()
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        if how != "stop":
            assert (await outcome_of(runner, "doing", name="do"))[0] == JobStatus.COMPLETED
