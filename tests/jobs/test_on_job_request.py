"""J2, J3: jobs without a handler of their own, and `on_job_request`."""

from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.requesters import Raw, outcome_of
from support.workers import Helper, running
from workerbus import BaseWorker, BusJobRequestMessage, JobFailure, JobStatus, job


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


@pytest.mark.parametrize("returned", [None, {"by": "handler"}])
@pytest.mark.parametrize("answer", [{}, {"by": "method"}])
async def test_what_the_method_returns_counts_whatever_event_handlers_return(
    answer: dict[str, str], returned: dict[str, str] | None
) -> None:
    """J2: the first that is not None is the answer."""

    class Answering(BaseWorker):
        async def on_job_request(self, message: BusJobRequestMessage) -> dict[str, str]:
            return answer

    worker = Answering("worker")
    worker.add_event_handler("on_job_request", lambda _worker, _message: returned)
    async with running(worker) as runner:
        assert await runner.job("worker", name="any") == answer


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [
        (Helper, "compute", "job 'compute'; the jobs that it has: 'echo', 'fail', 'wait'"),
        (Helper, "weit", "job 'weit'; the jobs that it has: 'echo', 'fail', 'wait'; did you mean 'wait'?"),
        (Helper, None, "jobs without a name; the jobs that it has: 'echo', 'fail', 'wait'"),
        (BaseWorker, "paint", "job 'paint'; the jobs that it has: none"),
    ],
)
async def test_a_job_without_a_handler_is_an_error_that_says_what_there_is(
    kind: type[BaseWorker], name: str | None, error: str
) -> None:
    """J3: it names the job, the worker and the jobs that it has."""
    async with running(kind("w")) as runner:
        status, response = await outcome_of(runner, "w", name=name)
    assert (status, response["error"]) == (JobStatus.ERROR, f"worker 'w' has no handler for {error}")


async def test_a_job_without_a_handler_goes_to_an_overridden_on_job_request() -> None:
    """J3: it is an error only where `on_job_request` is untouched."""

    class Both(Switchboard):
        @job(name="echo")
        async def echo(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"echo": True}

    async with running(Both("both")) as runner:
        assert await outcome_of(runner, "both", name="other") == (JobStatus.COMPLETED, {"asked": "other"})
        assert await outcome_of(runner, "both", name="echo") == (JobStatus.COMPLETED, {"echo": True})


async def test_a_handler_of_on_job_request_may_answer_with_a_dict() -> None:
    worker = Helper("w")

    @worker.event_handler("on_job_request")
    def answer(_: object, message: BusJobRequestMessage) -> dict[str, Any]:
        return {"asked for": message.job_name}

    async with running(worker) as runner:
        assert await runner.job("w", name="anything") == {"asked for": "anything"}
        assert (await runner.job("w", name="echo"))["worker"] == "w"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("broken"), JobStatus.ERROR), (JobFailure("not today"), JobStatus.FAILED)]
)
async def test_a_handler_of_on_job_request_that_raises_has_answered(error: Exception, status: JobStatus) -> None:
    """J2: as the overridden method."""
    worker = Helper("w")

    @worker.event_handler("on_job_request")
    async def fail(_: object, message: BusJobRequestMessage) -> None:
        raise error

    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "anything")
        assert await raw.answer("1") == (status, {"error": str(error), "type": type(error).__name__})


async def test_method_and_handler_of_on_job_request_both_run() -> None:
    called: list[str] = []

    class Both(Helper):
        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            called.append("method")
            await self.send_job_response(message.job_id, {"by": "method"})

    worker = Both("w")

    @worker.event_handler("on_job_request")
    async def watch(_: object, message: BusJobRequestMessage) -> None:
        called.append("handler")

    async with running(worker) as runner:
        assert await runner.job("w", name="anything") == {"by": "method"}
        await eventually(lambda: len(called) == 2)
    assert called == ["method", "handler"]
