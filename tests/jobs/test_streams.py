"""J2, J7: streams of results, and their end."""

import anyio
import pytest

from support.requesters import Listener, Raw, outcome_of
from support.workers import Doing, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    BusJobUpdateMessage,
    JobGroupResponse,
    JobStatus,
    job,
)
from workerbus.testing import settle


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


async def test_the_end_of_a_stream_is_the_answer() -> None:
    """J14: COMPLETED, with its data."""

    async def streams(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_stream_start(message.job_id)
        await worker.send_job_stream_end(message.job_id, {"total": 3})

    async with running(Doing("doing", streams)) as runner:
        assert await outcome_of(runner, "doing", name="do") == (JobStatus.COMPLETED, {"total": 3})


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


async def test_the_end_of_a_stream_is_told_as_it_came(caplog: pytest.LogCaptureFixture) -> None:
    """N1, J16, W7: `on_job_stream_end` gets that message; what fails after it is logged with the job."""

    class Failing(Listener):
        async def on_job_completed(self, result: JobGroupResponse) -> None:
            await super().on_job_completed(result)
            raise ValueError("oh")

    async def streams(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_stream_end(message.job_id, {"n": 1})

    listener = Failing()
    async with running(Doing("doing", streams), listener):
        job_id = await listener.request_job("doing", name="do")
        message = await listener.until("stream end")
        result = await listener.until("completed")
    assert message == BusJobStreamEndMessage(job_id, {"n": 1}, source="doing", target="listener")
    assert result == JobGroupResponse(job_id, {"doing": {"n": 1}}, {"doing": JobStatus.COMPLETED})
    assert f"on_job_completed of worker 'listener' failed (job {job_id})" in caplog.messages
    assert "response" not in [hook for hook, _ in listener.heard]


class Limited(BaseWorker):
    """One deferred job at a time, which is left open."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun: list[str] = []

    @job(name="one", deferred=True, limit=1)
    async def one(self, message: BusJobRequestMessage) -> None:
        self.begun.append(message.job_id)


async def test_a_deferred_job_of_a_limited_handler_that_ends_with_its_stream_has_one_answer() -> None:
    """J1, J13, J14"""
    worker = Limited("worker")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        for job_id in ("first", "second"):
            await raw.ask(job_id, "worker", "one", seconds_left=10.0)
        await settle()
        await worker.send_job_stream_end("first", {"n": 1})
        await settle()
        assert raw.answers("first") == [(JobStatus.COMPLETED, {"n": 1})]
        assert worker.begun == ["first", "second"]


async def test_a_stream_end_comes_before_the_completion() -> None:
    """J16: as the answer that it is."""

    async def streams(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_stream_end(message.job_id, {"n": 1})

    asker = Listener("asker")
    async with running(asker, Doing("doing", streams)):
        await asker.request_job("doing", name="do")
        result = await asker.until("completed")
    assert result.responses == {"doing": {"n": 1}}
    assert asker.heard[-1][0] == "completed"
