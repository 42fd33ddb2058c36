"""J1-J4 and J14: every request gets one outcome, whatever the handler and its worker do."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.buses import PoliteBus
from support.requesters import Raw, outcome_of
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobUpdateMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    JobError,
    JobFailure,
    JobStatus,
    MemoryBus,
    WorkerBus,
    WorkerParams,
    WorkerRunner,
    job,
)

# --- J1: one terminal outcome

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
    finally:
        if what == "return when cancelled":
            return {}  # noqa: B012 - refuses the cancellation
        if what == "raise when cancelled":
            raise ValueError(what)
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


@pytest.mark.parametrize("left", [float("nan"), "soon"])
async def test_a_request_that_makes_no_sense_is_answered_and_does_no_harm(left: Any) -> None:
    """J1: who sends it gets an outcome, and the worker goes on."""
    async with running(Helper("helper")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("odd", "helper", "echo", seconds_left=left)
        await raw.answer("odd")
        await raw.ask("job", "helper", "echo")
        assert (await raw.answer("job"))[0] == JobStatus.COMPLETED


@pytest.mark.parametrize("status", JobStatus)
async def test_an_answer_that_is_no_dict_does_not_leave_the_requester_waiting(status: JobStatus) -> None:
    """J1: it is refused where it is sent, or taken for what it is; the job ends."""
    nonsense: Any = ["not", "a", "dict"]

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, nonsense, status=status)

    async with running(Doing("doing", answers)) as runner:
        with contextlib.suppress(JobError):
            await runner.job("doing", name="do")


async def test_a_remote_answer_that_is_no_dict_does_not_leave_the_requester_waiting() -> None:
    """J1: the sender of this one has checked nothing."""
    nonsense: Any = "nonsense"
    async with running() as runner, anyio.create_task_group() as group:
        ghost = await Raw.on(runner.bus, "ghost")
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="ghost"))

        async def answer() -> None:
            (request,) = await ghost.until(1, BusJobRequestMessage)
            assert isinstance(request, BusJobRequestMessage)
            await runner.bus.send(
                BusJobResponseMessage(request.job_id, JobStatus.ERROR, nonsense, source="ghost", target=request.source)
            )

        group.start_soon(answer)
        with pytest.raises(JobError):
            await runner.job("ghost")


async def test_a_requester_waits_for_a_worker_that_has_not_come_yet() -> None:
    """J1: and its request is answered when the worker has come."""
    async with running() as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            assert await runner.job("helper", name="echo") == {"worker": "helper", "payload": None}

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await runner.add_workers(Helper("helper"))


def test_after_five_seconds_a_warning_names_who_is_waited_for(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """J1: the worker, and names that look like it."""

    async def example() -> None:
        async with running(Helper("helper")) as runner:
            with anyio.move_on_after(4.9):
                await runner.job("halper", name="echo")
            assert "halper" not in caplog.text
            with anyio.move_on_after(5.1):
                await runner.job("halper", name="echo")
        (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "'halper'" in record.getMessage()
        assert "'helper'" in record.getMessage()

    clock.run(example, backend=backend)


# --- J2: a handler's end


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


async def test_an_exception_without_a_text_is_an_error() -> None:
    """J2, J1: its own `__str__` may fail; the job is answered, and the worker goes on."""

    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

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


async def test_a_failing_handler_stops_no_other_job() -> None:
    """J2: its worker goes on."""
    async with running(Helper("helper")) as runner:
        await outcome_of(runner, "helper", name="fail")
        assert (await outcome_of(runner, "helper", name="echo"))[0] == JobStatus.COMPLETED


async def test_an_answer_of_the_handlers_own_counts_and_not_what_it_returns() -> None:
    """J2: the library answers only where the handler has not."""

    async def answers(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        await worker.send_job_response(message.job_id, {"own": True}, status=JobStatus.FAILED)
        return {"own": False}

    async with running(Doing("doing", answers)) as runner:
        assert await outcome_of(runner, "doing", name="do") == (JobStatus.FAILED, {"own": True})


async def test_a_deferred_handler_answers_after_it_has_returned() -> None:
    """J2: the job stays open until then."""

    async with running(Doing("doing", nothing)) as runner:
        doing = runner.get_worker("doing")
        assert doing is not None
        async with runner.job("doing", name="defer") as asked:
            await anyio.wait_all_tasks_blocked()
            assert list(doing.active_jobs) == [asked.job_id]
            await doing.send_job_response(asked.job_id, {"late": True})
        assert asked.response == {"late": True}


async def test_a_handler_that_is_not_deferred_cannot_leave_a_job_open() -> None:
    """J2: returning is its answer, whatever it has planned."""

    async with running(Doing("doing", nothing)) as runner:
        doing = runner.get_worker("doing")
        assert doing is not None
        async with runner.job("doing", name="do") as asked:
            pass
        with pytest.raises(RuntimeError):
            await doing.send_job_response(asked.job_id, {"late": True})


class Switchboard(BaseWorker):
    """Takes any job, and answers when it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.requests: list[BusJobRequestMessage] = []

    async def on_job_request(self, message: BusJobRequestMessage) -> dict[str, Any] | None:
        await super().on_job_request(message)
        self.requests.append(message)
        if message.job_name == "fail":
            raise ValueError("it went wrong")
        if message.job_name == "wait":
            await anyio.sleep_forever()
        return {"asked": message.job_name} if message.job_name else None


async def test_on_job_request_may_leave_a_job_open() -> None:
    """J2: and answer it later."""
    board = Switchboard("board")
    async with running(board) as runner:
        async with runner.job("board") as asked:
            await anyio.wait_all_tasks_blocked()
            await board.send_job_response(asked.job_id, {"late": True})
        assert asked.response == {"late": True}


async def test_on_job_request_answers_with_what_it_returns() -> None:
    """J2: as a job handler does."""
    async with running(Switchboard("board")) as runner:
        assert await outcome_of(runner, "board", name="any") == (JobStatus.COMPLETED, {"asked": "any"})


async def test_an_error_in_on_job_request_is_an_error_of_the_job() -> None:
    """J2: as in a job handler."""
    async with running(Switchboard("board")) as runner:
        answer = await outcome_of(runner, "board", name="fail")
    assert answer == (JobStatus.ERROR, {"error": "it went wrong", "type": "ValueError"})


async def test_on_job_request_holds_up_no_other_request() -> None:
    """J2: it runs in a task of the job's own."""
    async with running(Switchboard("board")) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome_of(runner, "board", name="wait"))
        await anyio.wait_all_tasks_blocked()
        assert (await outcome_of(runner, "board", name="any"))[0] == JobStatus.COMPLETED
        group.cancel_scope.cancel()


async def test_on_job_request_has_the_deadline_of_the_job() -> None:
    """J2: it is cancelled when the time is up."""
    async with running(Switchboard("board")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("short", "board", "wait", seconds_left=0.02)
        assert (await raw.answer("short"))[0] == JobStatus.CANCELLED


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_an_event_handler_of_on_job_request_may_answer_later(is_async: bool) -> None:
    """J2: it counts as an overridden `on_job_request`."""
    worker = BaseWorker("worker")
    got: list[tuple[BaseWorker, str]] = []

    def plain(emitter: BaseWorker, message: BusJobRequestMessage) -> None:
        got.append((emitter, message.job_id))

    async def awaited(emitter: BaseWorker, message: BusJobRequestMessage) -> None:
        got.append((emitter, message.job_id))

    worker.add_event_handler("on_job_request", awaited if is_async else plain)
    async with running(worker) as runner:
        async with runner.job("worker", name="any") as asked:
            await anyio.wait_all_tasks_blocked()
            assert got == [(worker, asked.job_id)]
            await worker.send_job_response(asked.job_id, {"late": True})
        assert asked.response == {"late": True}


async def test_an_event_handler_of_on_job_request_that_raises_is_an_error_of_the_job() -> None:
    """J2: as the overridden method."""
    worker = BaseWorker("worker")

    @worker.event_handler("on_job_request")
    async def refuse(emitter: BaseWorker, message: BusJobRequestMessage) -> None:
        raise ValueError("not today")

    async with running(worker) as runner:
        answer = await outcome_of(runner, "worker", name="any")
    assert answer == (JobStatus.ERROR, {"error": "not today", "type": "ValueError"})


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


async def test_a_stream_that_ends_after_a_cancel_does_not_complete_the_job() -> None:
    """J2: the end of a stream is an answer as any other."""

    async def streams(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id)
        try:
            await anyio.sleep_forever()
        finally:
            await worker.send_job_stream_end(message.job_id, {})

    async with running(Doing("doing", streams)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do")
        await raw.until(1, BusJobUpdateMessage)
        await raw.cancel("job", "doing")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED


async def test_an_answer_before_the_cancel_stands() -> None:
    """J2: unless it had answered."""

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {"done": True})
        await anyio.sleep_forever()

    async with running(Doing("doing", answers)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do")
        await raw.answer("job")
        await raw.cancel("job", "doing")
        await anyio.wait_all_tasks_blocked()
        assert raw.answers("job") == [(JobStatus.COMPLETED, {"done": True})]


# --- J3: no handler


@pytest.mark.parametrize("name", ["paint", None])
async def test_a_job_without_a_handler_is_an_error_that_says_what_there_is(name: str | None) -> None:
    """J3: it names the job, the worker and the jobs that it has."""
    async with running(Helper("helper")) as runner:
        status, response = await outcome_of(runner, "helper", name=name)
    assert status == JobStatus.ERROR
    assert "'helper'" in response["error"]
    for known in ("'echo'", "'fail'", "'wait'"):
        assert known in response["error"]
    assert name is None or "'paint'" in response["error"]


async def test_a_job_without_a_handler_goes_to_an_overridden_on_job_request() -> None:
    """J3: it is an error only where `on_job_request` is untouched."""

    class Both(Switchboard):
        @job(name="echo")
        async def echo(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"echo": True}

    async with running(Both("both")) as runner:
        assert await outcome_of(runner, "both", name="other") == (JobStatus.COMPLETED, {"asked": "other"})
        assert await outcome_of(runner, "both", name="echo") == (JobStatus.COMPLETED, {"echo": True})


# --- J4: the worker goes


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


# --- J14: what cannot be sent or asked


SENDS = ("send_job_response", "send_job_update", "send_job_stream_start", "send_job_stream_data", "send_job_stream_end")


@pytest.mark.parametrize("method", SENDS)
async def test_nothing_can_be_sent_for_an_unknown_job(method: str) -> None:
    """J14: a `RuntimeError`."""
    helper = Helper("helper")
    async with running(helper):
        with pytest.raises(RuntimeError, match="'nonsense'"):
            await getattr(helper, method)("nonsense", {})


@pytest.mark.parametrize("method", SENDS)
@pytest.mark.parametrize("end", ["send_job_response", "send_job_stream_end"])
async def test_nothing_can_be_sent_for_a_finished_job(end: str, method: str) -> None:
    """J14: the job is over with its answer, even if its handler goes on; so it is with the end of its stream."""
    errors: list[BaseException] = []

    async def goes_on(worker: Doing, message: BusJobRequestMessage) -> None:
        await getattr(worker, end)(message.job_id, {})
        try:
            await getattr(worker, method)(message.job_id, {})
        except RuntimeError as exc:
            errors.append(exc)

    async with running(Doing("doing", goes_on)) as runner:
        assert await runner.job("doing", name="do") == {}
    assert len(errors) == 1


async def test_the_end_of_a_stream_is_the_answer() -> None:
    """J14: COMPLETED, with its data."""

    async def streams(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_stream_start(message.job_id)
        await worker.send_job_stream_end(message.job_id, {"total": 3})

    async with running(Doing("doing", streams)) as runner:
        assert await outcome_of(runner, "doing", name="do") == (JobStatus.COMPLETED, {"total": 3})


async def test_the_error_for_a_finished_job_tells_of_deferred_handlers() -> None:
    """J14, N1: whoever ports a handler that answers later learns what to write."""
    helper = Helper("helper")
    async with running(helper) as runner:
        async with runner.job("helper", name="echo") as asked:
            pass
        with pytest.raises(RuntimeError, match="deferred=True"):
            await helper.send_job_response(asked.job_id, {})


async def test_a_worker_that_does_not_run_yet_cannot_ask() -> None:
    """J14: which is what the error says."""
    helper = Helper("helper")
    with pytest.raises(RuntimeError, match="yet"):
        helper.job("other")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(helper)
    for request in (helper.job, helper.job_group, runner.job, runner.job_group):
        with pytest.raises(RuntimeError, match="yet"):
            request("other")
    await runner.cancel()
    await runner.run()


@pytest.mark.parametrize("how", ["job", "request_job"])
async def test_a_worker_that_asks_before_its_start_is_not_left_waiting(how: str) -> None:
    """J14, W2: the answer would wait for the start, and the start for the answer."""
    outcomes: list[Any] = []

    class Hasty(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            try:
                outcomes.append(await getattr(self, how)("helper", name="echo"))
            except RuntimeError as exc:
                outcomes.append(exc)
            await super().run(params)

    async with running(Helper("helper"), Hasty("hasty")):
        assert len(outcomes) == 1


async def test_a_worker_that_runs_no_more_cannot_ask() -> None:
    """J14: which is what the error says."""
    helper = Helper("helper")
    async with running(helper) as runner:
        await helper.stop()
        for request in (helper.job, helper.job_group):
            with pytest.raises(RuntimeError, match="more"):
                request("other")
    for request in (runner.job, runner.job_group):
        with pytest.raises(RuntimeError, match="more"):
            request("other")


async def test_a_context_that_was_made_in_time_cannot_be_entered_too_late() -> None:
    """J14: what counts is when it asks."""
    helper = Helper("helper")
    async with running(helper):
        context = helper.job("other")
        await helper.stop()
        with pytest.raises(RuntimeError, match="more"):
            await context


async def test_who_asks_again_and_again_learns_that_the_runner_has_ended() -> None:
    """J14: no request slips in between the end and the error that tells of it, to wait for ever."""
    async with anyio.create_task_group() as group, running() as runner:

        async def insist() -> None:
            while True:
                try:
                    await runner.job("nobody")
                except JobError:
                    continue
                except RuntimeError:
                    return

        group.start_soon(insist)
        await anyio.wait_all_tasks_blocked()


async def test_who_asks_again_and_again_learns_that_the_worker_has_stopped() -> None:
    """J14: the same for a worker, whose answers would find nobody any more."""
    asker, helper = BaseWorker("asker"), Helper("helper")
    async with running(asker, helper), anyio.create_task_group() as group:

        async def insist(name: str) -> None:
            while True:
                try:
                    await asker.job("helper", name=name)
                except JobError:
                    continue
                except RuntimeError:
                    return

        group.start_soon(insist, "wait")
        group.start_soon(insist, "echo")
        await helper.begun.wait()
        await asker.stop()


@pytest.mark.parametrize("how", ["cancel", "stop", "end"])
async def test_a_request_that_waits_for_its_worker_ends_with_its_group(how: str) -> None:
    """J14, J1: `request_job`, which has no context, does not wait on when nobody can answer it any more."""
    asker = BaseWorker("asker")
    async with anyio.create_task_group() as group, running(asker) as runner:

        async def ask() -> None:
            with pytest.raises((JobError, RuntimeError)):
                await asker.request_job("nobody")

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        (job_id,) = asker.job_groups
        if how == "cancel":
            await asker.cancel_job_group(job_id)
        elif how == "stop":
            await asker.stop()
        else:
            await runner.end()


def test_who_asks_while_its_worker_stops_does_not_hold_that_up_for_ever(backend: str) -> None:
    """J14, L4: one bound for the whole wind-down, whatever a handler asks for in its clean-up."""

    async def cleans_up(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(8, shield=True), contextlib.suppress(JobError, RuntimeError):
                await worker.job("refusing", name="hold")

    class Refusing(BaseWorker):
        @job(name="hold")
        async def hold(self, message: BusJobRequestMessage) -> None:
            with anyio.move_on_after(8, shield=True):
                await release.wait()

    release = anyio.Event()

    async def example() -> None:
        doing = Doing("doing", cleans_up)
        async with running(doing, Refusing("refusing")) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "doing", "do")
            await raw.until(1, BusJobUpdateMessage)
            started = anyio.current_time()
            await doing.stop()
            assert anyio.current_time() - started < CLEANUP_SECONDS + 0.9
            release.set()

    clock.run(example, backend=backend)


async def test_a_job_has_the_status_that_its_worker_gave_it() -> None:
    """J1: the outcome is the worker's, not the requester's guess."""

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {"why": "because"}, status=JobStatus.CANCELLED)

    async with running(Doing("doing", answers)) as runner:
        raw = await Raw.on(runner.bus)
        assert await outcome_of(runner, "doing", name="do") == (JobStatus.CANCELLED, {"why": "because"})
        await raw.settle()
        assert len(raw.of(BusJobResponseMessage)) == 1
