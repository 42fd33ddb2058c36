"""J13: jobs that begin later; the worker that was asked keeps them until then."""

from typing import Any

import anyio
import pytest
from anyio import current_time

from support.requesters import Listener, Raw
from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobRequestOptions, JobStatus, JobTimeoutError, job


class Timed(BaseWorker):
    """Notes when each job begins."""

    def __init__(self, name: str = "timed") -> None:
        super().__init__(name)
        self.begun: list[tuple[Any, float]] = []

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.begun.append((message.payload.get("n"), current_time()))
        return {"at": current_time()}

    @job(name="one", sequential=True)
    async def one(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.begun.append((message.payload.get("n"), current_time()))
        await anyio.sleep(1)
        return {"at": current_time()}


async def test_a_job_begins_when_its_delay_is_over() -> None:
    """J13: for a job, a group, and requests without a context."""
    a, b, asker = Timed("a"), Timed("b"), Listener("asker")
    async with running(a, b, asker) as runner:
        assert await runner.job("a", name="do", delay=2) == {"at": 2}
        assert await runner.job_group("a", "b", name="do", delay=1) == {"a": {"at": 3}, "b": {"at": 3}}
        await asker.request_job("a", name="do", delay=1.5)
        await asker.request_job_group("b", name="do", delay=0.5)
        assert current_time() == 3
        await anyio.sleep(5)
    assert [time for _, time in a.begun] == [2, 3, 4.5]
    assert [time for _, time in b.begun] == [3, 3.5]


async def test_without_one_it_begins_at_once() -> None:
    """J13: 0 is none."""
    timed = Timed()
    async with running(timed) as runner:
        await runner.job("timed", name="do", delay=0)
        assert current_time() == 0


async def test_those_that_are_due_together_begin_in_the_order_of_arrival() -> None:
    """J13: they stand in line when their delay is over, and not before."""
    timed, asker = Timed(), BaseWorker("asker")
    async with running(timed, asker):
        for n, delay in enumerate((2, 1, 2, 1, None)):
            await asker.request_job("timed", name="one", payload={"n": n}, delay=delay)
        await anyio.sleep(8)
    assert timed.begun == [(4, 0), (1, 1), (3, 2), (0, 3), (2, 4)]


async def test_a_delayed_job_is_under_way_and_can_be_cancelled() -> None:
    """J5, J9, J13: its handler never begins."""
    timed, asker = Timed(), Listener("asker")
    async with running(timed, asker) as runner:
        job_id = await asker.request_job("timed", name="do", delay=3)
        (snapshot,) = runner.statistics().workers["timed"].jobs
        assert (snapshot.job_id, snapshot.state) == (job_id, "queued")
        await asker.cancel_job_group(job_id)
        message = await asker.until("response")
        assert message.status is JobStatus.CANCELLED
        await anyio.sleep(5)
    assert timed.begun == []


async def test_its_time_goes_on_meanwhile() -> None:
    """J6: and the error says what it waited for."""
    timed = Timed()
    async with running(timed) as runner:
        with pytest.raises(JobTimeoutError) as caught:
            await runner.job("timed", name="do", delay=3, timeout=1)
        assert str(caught.value) == "job 'do' at 'timed': timeout after 1 seconds (waiting for its turn: 'timed')"
        assert current_time() == 1
        await anyio.sleep(5)
    assert timed.begun == []


async def test_its_worker_sees_by_itself_that_its_time_is_over() -> None:
    """J6, J13: it hears nothing more of who has asked, who may be gone, or cut off; and it answers once."""
    timed = Timed()
    async with running(timed) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("delayed", "timed", "one", payload={}, seconds_left=1, options=JobRequestOptions(delay=5))
        timed_out = {"error": "timeout", "type": "TimeoutError", "waited_for": "its turn"}
        assert await raw.answer("delayed") == (JobStatus.CANCELLED, timed_out)
        assert current_time() == 1
        await anyio.sleep(6)
        await raw.ask("next", "timed", "one", payload={})
        assert await raw.answer("next") == (JobStatus.COMPLETED, {"at": 8})
        assert len(raw.answers("delayed")) == 1


async def test_a_worker_that_stops_answers_it() -> None:
    """J4"""
    timed = Timed()
    async with running(timed) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(timed.stop)
        with pytest.raises(JobError) as caught:
            await runner.job("timed", name="do", delay=100)
        assert caught.value.statuses == {"timed": JobStatus.CANCELLED}
        assert current_time() == 0


async def test_it_travels_as_seconds() -> None:
    """X: no clock time, so that the clocks of two machines need not agree."""
    timed = Timed()
    async with running(timed) as runner:
        raw = await Raw.on(runner.bus)
        await runner.job("timed", name="do", delay=2)
        (request,) = [message for message in raw.got if isinstance(message, BusJobRequestMessage)]
    assert request.options == JobRequestOptions(delay=2)


@pytest.mark.parametrize(
    ("delay", "error"), [(-1, ValueError), (float("inf"), ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
async def test_a_delay_that_is_none_is_refused(delay: Any, error: type[Exception]) -> None:
    """N8: where the job is made."""
    asker = BaseWorker("asker")
    async with running(Timed(), asker) as runner:
        with pytest.raises(error, match=r"^delay is a "):
            runner.job("timed", name="do", delay=delay)
        with pytest.raises(error, match=r"^delay is a "):
            runner.job_group("timed", name="do", delay=delay)
        with pytest.raises(error, match=r"^delay is a "):
            await asker.request_job("timed", name="do", delay=delay)
        with pytest.raises(error, match=r"^delay is a "):
            await asker.request_job_group("timed", name="do", delay=delay)


async def test_a_job_that_has_begun_after_its_delay_and_runs_out_of_time_has_not_waited_for_its_turn() -> None:
    """J8, J13: the error says what the time went by with."""

    class Endless(BaseWorker):
        @job(name="do")
        async def do(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep_forever()

    async with running(Endless("endless")) as runner:
        for delay, text in ((0.5, "still at work"), (2, "waiting for its turn")):
            with pytest.raises(JobTimeoutError, match=rf"timeout after 1 seconds \({text}: 'endless'\)"):
                await runner.job("endless", name="do", delay=delay, timeout=1)
