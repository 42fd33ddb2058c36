"""J5, J6, J8 where it is easy to look right for one worker, one job, or a moment: crowds, reused tasks, exact times."""

import contextlib
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.workers import running
from workerbus import BaseWorker, JobGroupError, JobGroupTimeoutError, JobStatus, WorkerRunner, job
from workerbus.testing import Behaviour, EchoWorker, ScriptedWorker

SIX = ("a", "b", "c", "d", "e", "f")


async def leave_a_group(runner: WorkerRunner, why: str) -> None:
    names = [*SIX, "failing"] if why == "one fails" else SIX
    with anyio.move_on_after(1.0 if why == "cancelled" else 3600.0):
        async with runner.job_group(*names, timeout=1.0 if why == "times out" else None):
            if why == "raises":
                await anyio.sleep(1.0)
                raise RuntimeError("the body's own")
        raise AssertionError("it cannot complete")


@pytest.mark.parametrize(
    ("why", "error"),
    [
        ("cancelled", None),
        ("raises", RuntimeError),
        ("times out", JobGroupTimeoutError),
        ("one fails", JobGroupError),
    ],
)
async def test_whatever_ends_a_group_of_six_each_of_them_is_told_and_waited_for(
    why: str, error: type[Exception] | None
) -> None:
    """J5, J8: nobody is forgotten, first or last."""
    workers = [ScriptedWorker(name, Behaviour("hang", clean_up=0.5)) for name in SIX]
    failing = ScriptedWorker("failing", Behaviour("raise", after=1.0))
    async with running(*workers, failing) as runner:
        with pytest.raises(error) if error else contextlib.nullcontext():
            await leave_a_group(runner, why)
        assert [len(worker.cancelled) for worker in workers] == [1] * 6
        assert not any(worker.running for worker in workers)
        assert current_time() == pytest.approx(1.5)


async def test_a_group_of_six_is_complete_when_the_last_has_answered_and_not_before() -> None:
    """J8, J11: each has its answer there, in the order of asking."""
    workers = [ScriptedWorker(name, Behaviour(response={"by": name}, after=6.0 - n)) for n, name in enumerate(SIX)]
    async with running(*workers) as runner:
        responses = await runner.job_group(*SIX)
        assert list(responses.items()) == [(name, {"by": name}) for name in SIX]
        assert current_time() == 6.0


@pytest.mark.parametrize("names", [("a",), SIX], ids=["one", "six"])
async def test_a_timeout_comes_at_its_time(names: tuple[str, ...]) -> None:
    """J6: to the moment, for few and for many."""
    async with running(*(ScriptedWorker(name, Behaviour("hang")) for name in names)) as runner:
        with pytest.raises(TimeoutError):
            await runner.job_group(*names, timeout=5.0)
        assert current_time() == 5.0


async def test_a_job_that_comes_when_an_earlier_ones_time_would_be_up_is_done_all_the_same() -> None:
    """J6, J1: the task that does both is the same; its deadline is not."""
    async with running(EchoWorker("echo")) as runner:
        assert await runner.job("echo", payload={"n": 1}, timeout=5.0) == {"n": 1}
        await anyio.sleep(5.0)
        assert await runner.job("echo", payload={"n": 2}) == {"n": 2}
        await anyio.sleep(1.0)
        assert await runner.job("echo", payload={"n": 3}, timeout=5.0) == {"n": 3}


async def test_who_waits_for_a_group_without_a_context_hears_at_once_that_it_was_cancelled() -> None:
    """J8, N4: not only when the workers have unwound."""
    asker, slow = BaseWorker("asker"), ScriptedWorker("slow", Behaviour("hang", clean_up=1.5))
    heard: list[Any] = []
    async with running(asker, slow), anyio.create_task_group() as tasks:
        group = await asker.create_job_group_and_request_job(["slow"])

        async def wait() -> None:
            try:
                await group.wait()
            except JobGroupError as error:
                heard.append((current_time(), error.reason))

        tasks.start_soon(wait)
        await slow.until_requested()
        await anyio.sleep(1.0)
        await asker.cancel_job_group(group.job_id, reason="enough")
        await anyio.sleep(2.0)
        assert heard == [(1.0, "enough")]
        assert group.statuses == {"slow": JobStatus.CANCELLED}


async def test_a_chain_of_jobs_shares_one_deadline_however_deep_it_is() -> None:
    """J6: each asks the next inside its handler, with more time of its own than there is."""
    left: list[float] = []

    class Link(BaseWorker):
        @job(name="go")
        async def go(self, message: Any) -> dict[str, Any]:
            left.append(message.seconds_left)
            await anyio.sleep(1.0)
            number = int(self.name)
            return await self.job(str(number + 1), name="go", timeout=100.0) if number < 5 else {}

    async with running(*(Link(str(number)) for number in range(6))) as runner:
        with pytest.raises(TimeoutError):
            await runner.job("0", name="go", timeout=4.0)
        assert current_time() == 4.0
    assert left == [4.0, 3.0, 2.0, 1.0]
