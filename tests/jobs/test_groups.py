"""J8, J11: groups of jobs, with and without `cancel_on_error`."""

import contextlib
from typing import Any

import anyio
import pytest
from anyio import current_time
from anyio.lowlevel import checkpoint

from support.requesters import Listener
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    JobFailure,
    JobGroupContext,
    JobGroupError,
    JobGroupTimeoutError,
    JobStatus,
    WorkerRunner,
    job,
)
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


async def test_who_waits_for_a_group_without_a_context_hears_at_once_that_it_was_cancelled() -> None:
    """J8, N4: not only when the workers have unwound."""
    asker, slow = BaseWorker("asker"), ScriptedWorker("slow", Behaviour("hang", clean_up=1.5))
    heard: list[Any] = []
    async with running(asker, slow), anyio.create_task_group() as tasks:
        group = await asker.create_job_group_and_request_job(["slow"])
        assert (group.reason, group.detail) == (None, None)

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


async def test_a_group_of_none_completes_at_once() -> None:
    """J12: with and without a context."""
    asker = Helper("asker")
    async with running(asker):
        async with asker.job_group(timeout=10) as group:
            assert [event async for event in group] == []
        assert group.responses == {}
        waited = await asker.create_job_group_and_request_job([])
        await waited.wait()
        assert asker.job_groups == {}


async def test_a_group_that_is_cancelled_cancels_the_body() -> None:
    """J8: and the context raises, with the reason."""

    async def cancel_and_wait(group: JobGroupContext[Any]) -> None:
        await asker.cancel_job_group(group.job_id, reason="changed my mind")
        await anyio.sleep_forever()

    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        with pytest.raises(JobGroupError) as caught:
            async with asker.job_group("helper", name="wait") as group:
                await cancel_and_wait(group)
    assert caught.value.reason == "changed my mind"
    assert caught.value.statuses == {"helper": JobStatus.CANCELLED}


async def test_waiting_for_a_group_without_a_context_raises_as_a_context_does() -> None:
    """J8: `JobGroupError`, with what is known."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        group = await asker.create_job_group_and_request_job(["helper"], name="fail")
        with pytest.raises(JobGroupError) as caught:
            await group.wait()
    assert caught.value.job_id == group.job_id
    assert caught.value.statuses == {"helper": JobStatus.ERROR}


async def test_without_cancel_on_error_every_answer_has_its_status() -> None:
    """J11: none looks better than it is."""

    async def does(worker: Doing, message: BusJobRequestMessage) -> Any:
        match worker.name:
            case "completed":
                return {"n": 1}
            case "failed":
                raise JobFailure("no")
            case "error":
                raise ValueError("oh")
            case _:
                return await worker.send_job_response(message.job_id, {}, status=JobStatus.CANCELLED)

    names = [str(status) for status in JobStatus]
    workers = [Doing(name, does) for name in names]
    async with running(*workers) as runner, runner.job_group(*names, name="do", cancel_on_error=False) as group:
        pass
    assert group.statuses == {str(status): status for status in JobStatus}
    assert group.responses.keys() == group.statuses.keys()
    assert group.responses["completed"] == {"n": 1}


async def test_without_cancel_on_error_an_error_does_not_cancel_the_body() -> None:
    """J11: the others go on, and so does it."""
    helper = Helper("helper")

    class Bad(Helper):
        @job(name="wait")
        async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
            raise ValueError("oh")

    async with running(helper, Bad("bad")) as runner:
        async with runner.job_group("bad", "helper", name="wait", cancel_on_error=False) as group:
            while not group.statuses:
                await checkpoint()
            assert group.statuses == {"bad": JobStatus.ERROR}
            helper.release.set()
        assert group.statuses == {"bad": JobStatus.ERROR, "helper": JobStatus.COMPLETED}


async def test_without_cancel_on_error_a_worker_that_goes_is_an_error_among_the_answers() -> None:
    """J11, J4: the group completes."""
    helper, other = Helper("helper"), Helper("other")
    async with running(helper, other) as runner:
        async with runner.job_group("helper", "other", name="wait", cancel_on_error=False) as group:
            await helper.begun.wait()
            await helper.stop()
            other.release.set()
        assert group.statuses == {"helper": JobStatus.CANCELLED, "other": JobStatus.COMPLETED}


async def test_a_group_that_is_settled_is_gone_from_the_job_groups_while_its_workers_unwind() -> None:
    """J5: `job_groups` has what may still become something; `statistics()`, all that is still in the table."""
    begun, release = anyio.Event(), anyio.Event()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await release.wait()

    listener = Listener()
    async with running(Doing("doing", unwinds), listener):
        group = await listener.create_job_group_and_request_job(["doing"], name="do")
        assert listener.job_groups == {group.job_id: group}
        assert group.is_done is False
        await begun.wait()
        await listener.cancel_job_group(group.job_id)
        assert listener.job_groups == {}
        assert group.is_done is True
        assert listener.statistics().job_groups == 1
        release.set()
        await anyio.wait_all_tasks_blocked()
        assert listener.statistics().job_groups == 0


async def test_only_those_that_have_not_answered_are_told_of_a_cancel() -> None:
    """J5: nobody has to remember a job that is over for it."""
    asker, observer = BaseWorker("asker"), Plain("observer")
    async with running(asker, EchoWorker("done"), ScriptedWorker("slow", Behaviour("hang"))) as runner:
        await runner.bus.subscribe(observer)
        job_id = await asker.request_job_group("done", "slow")
        await observer.until(1, BusJobResponseMessage)
        await asker.cancel_job_group(job_id)
        await observer.until(2, BusJobResponseMessage)
    assert [message.target for message in observer.of(BusJobCancelMessage)] == ["slow"]


async def test_whoever_waits_for_a_group_waits_for_all_that_happens_before_its_end() -> None:
    """J8: updates, and the answers of others, among it."""
    asker = BaseWorker("asker")
    helpers = [
        ScriptedWorker(name, Behaviour(updates=[{}] * 3, every=0.5, after=after))
        for name, after in (("a", 1), ("b", 2))
    ]
    async with running(asker, *helpers):
        group = await asker.create_job_group_and_request_job(["a", "b"])
        await group.wait()
        assert current_time() == 3.5
        assert list(group.responses) == ["a", "b"]
