"""J1, J2, J14: answers of a handler's own, and what can no longer be sent."""

import contextlib
from typing import Any

import anyio
import pytest

from support.requesters import Listener, Raw, outcome_of
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusMessage,
    BusWorkerReadyMessage,
    JobError,
    JobStatus,
    UnknownJobError,
    job,
)


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


async def nothing(worker: Doing, message: BusJobRequestMessage) -> None:
    pass


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


async def test_the_error_for_a_finished_job_tells_of_deferred_handlers() -> None:
    """J14, N1: whoever ports a handler that answers later learns what to write."""
    helper = Helper("helper")
    async with running(helper) as runner:
        async with runner.job("helper", name="echo") as asked:
            pass
        with pytest.raises(RuntimeError, match="deferred=True"):
            await helper.send_job_response(asked.job_id, {})


async def test_who_answers_for_no_job_is_told_which_and_where() -> None:
    """J14."""
    helper = Helper("helper")
    async with running(helper):
        with pytest.raises(UnknownJobError, match=r"^worker 'helper' has no open job 'gone': ") as caught:
            await helper.send_job_update("gone")
    assert (caught.value.job_id, caught.value.worker_name) == ("gone", "helper")


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


async def test_an_answer_that_is_no_dict_is_refused_and_the_job_stays_open() -> None:
    class Odd(BaseWorker):
        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            response: Any = "text"
            with pytest.raises(TypeError, match="dict"):
                await self.send_job_response(message.job_id, response)
            await self.send_job_response(message.job_id, {"ok": True})

    async with running(Odd("odd")) as runner:
        assert await runner.job("odd") == {"ok": True}


def answering(status: Any, response: Any) -> BaseWorker:
    """Return a worker that answers by a message of its own."""

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_bus_message(
            BusJobResponseMessage(message.job_id, status, response, source=worker.name, target=message.source)
        )

    return Doing("odd", answers)


NO_DICT = {"error": "worker 'odd' answered with list, not with a dict", "type": "TypeError"}


@pytest.mark.parametrize(
    ("status", "response", "outcome"),
    [
        ("completed", {"n": 1}, (JobStatus.COMPLETED, {"n": 1})),
        ("failed", {"n": 1}, (JobStatus.FAILED, {"n": 1})),
        ("splendid", {"n": 1}, (JobStatus.ERROR, {"n": 1})),
        ("splendid", None, (JobStatus.ERROR, {})),
        (JobStatus.COMPLETED, [1], (JobStatus.ERROR, NO_DICT)),
        ("completed", [1], (JobStatus.ERROR, NO_DICT)),
    ],
)
async def test_an_odd_answer_is_an_outcome_all_the_same(
    status: Any, response: Any, outcome: tuple[JobStatus, dict[str, Any]]
) -> None:
    """J1: whatever a message from elsewhere says, the requester and its hooks get a status and a dict."""
    listener = Listener()
    async with running(answering(status, response), listener):
        async with listener.job_group("odd", name="defer", cancel_on_error=False) as group:
            pass
        told = await listener.until("response")
    assert (group.statuses["odd"], group.responses["odd"]) == outcome
    assert type(group.statuses["odd"]) is JobStatus
    assert (told.job_id, told.source, told.target) == (group.job_id, "odd", "listener")
    assert (told.status, told.response or {}) == outcome


@pytest.mark.parametrize("urgent", [False, True])
async def test_an_answer_is_urgent_only_where_it_is_meant_to_be(urgent: bool) -> None:
    """J1, B2: what the library answers itself takes its turn."""

    class Answers(BaseWorker):
        @job(name="do")
        async def do(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id, {}, urgent=urgent)

    async with running(Answers("answers"), Helper("off", active=False)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "answers", "do")
        await raw.ask("2", "off")
        assert (await raw.answer("2"))[0] is JobStatus.FAILED
        await raw.answer("1")
        kinds = {type(each) for each in raw.got if getattr(each, "job_id", None) == "1" and each.source == "answers"}
        assert kinds == {BusJobResponseUrgentMessage if urgent else BusJobResponseMessage}
        assert not any(isinstance(each, BusJobResponseUrgentMessage) and each.source == "off" for each in raw.got)


async def test_an_answer_that_is_refused_keeps_no_later_one_back() -> None:
    """J1, J14, N7: of a worker whose class sends in its own way."""

    class Sending(Helper):
        async def send_bus_message(self, message: BusMessage) -> None:
            await super().send_bus_message(message)

    sending = Sending("sending")
    async with running(sending) as runner:
        with pytest.raises(UnknownJobError):
            await sending.send_job_response("unknown")
        with pytest.raises(UnknownJobError):
            await sending.send_job_stream_end("unknown")
        assert await runner.job("sending", name="echo", timeout=5)
