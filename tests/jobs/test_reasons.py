"""J5, J6: what workers are told when their requester leaves, and when time is up."""

from contextlib import suppress

import anyio
import pytest
from anyio import CancelScope, sleep, sleep_forever

from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import BaseWorker, BusJobCancelMessage, BusJobRequestMessage, JobError, JobGroupError, JobStatus, job
from workerbus.testing import run


async def test_a_worker_is_told_why_its_requester_left() -> None:
    """J5, J6."""
    listener = Listener()
    async with running(listener) as runner:

        async def leave(how: str) -> str:
            listener.begun, listener.heard = anyio.Event(), []
            with anyio.CancelScope() as scope, suppress(ValueError):
                if how == "deadline":
                    scope.deadline = anyio.current_time() + 3
                async with runner.job("listener", name="wait"):
                    await listener.begun.wait()
                    if how == "error":
                        raise ValueError("oh")
                    if how == "cancelled":
                        scope.cancel()
                    await anyio.sleep_forever()
            return str((await listener.until("cancelled")).reason)

        assert await leave("error") == "context exited with error"
        assert await leave("cancelled") == "context exited with error"
        assert await leave("deadline") == "timeout"


async def test_a_job_is_cancelled_once() -> None:
    """N4: `request_cancel_job_group` tells whether it did that."""
    begun, release = anyio.Event(), anyio.Event()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await release.wait()

    asker = Helper("asker")
    async with running(Doing("doing", unwinds), asker):
        job_id = await asker.request_job("doing", name="do")
        await begun.wait()
        assert await asker.request_cancel_job_group(job_id) is True
        assert await asker.request_cancel_job_group(job_id) is False
        release.set()


async def test_a_worker_is_told_why_its_requester_no_longer_awaits_a_job() -> None:
    """J5: also where the requester only waited."""
    listener = Listener("listener")
    async with running(listener) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            await runner.job("listener", name="wait")

        tasks.start_soon(ask)
        await listener.begun.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert (await listener.until("cancelled")).reason == "context exited with error"


async def test_the_reason_of_a_requested_cancel_reaches_the_worker() -> None:
    """N4, J5."""
    helper, asker = Listener("helper"), Helper("asker")
    async with running(helper, asker):
        group = await asker.create_job_group_and_request_job(["helper"], name="wait")
        await helper.begun.wait()
        assert await asker.request_cancel_job_group(group.job_id, reason="too dear") is True
        message = await helper.until("cancelled")
        with pytest.raises(JobGroupError, match="too dear"):
            await group.wait()
    assert message == BusJobCancelMessage(group.job_id, "too dear", source="asker", target="helper")


async def test_a_cancel_without_a_reason_says_who_wanted_it() -> None:
    """J5, J8: to the worker, and in the error."""
    helper, asker = Listener("helper"), Helper("asker")
    async with running(helper, asker):
        group = await asker.create_job_group_and_request_job(["helper"], name="wait")
        await helper.begun.wait()
        await asker.cancel_job_group("another")
        assert await asker.request_cancel_job_group("another") is False
        assert not group.is_done
        await asker.cancel_job_group(group.job_id)
        message = await helper.until("cancelled")
        with pytest.raises(JobGroupError, match=r"^job group 'wait' of 'helper': cancelled by the requester$"):
            await group.wait()
    assert message.reason == "cancelled by the requester"


async def test_a_cancelled_job_names_its_reason() -> None:
    helper, asker = Helper("helper"), Helper("asker")

    async def ask_and_cancel() -> None:
        async with asker.job("helper", name="wait") as asked:
            await helper.begun.wait()
            await asker.cancel_job_group(asked.job_id, reason="changed my mind")
            await anyio.sleep_forever()

    async with running(helper, asker):
        with pytest.raises(JobError, match="changed my mind") as caught:
            await ask_and_cancel()
    assert caught.value.reason == "changed my mind"


async def test_a_cancel_without_a_reason_is_told_as_one() -> None:
    """J2: the answer says what has happened, even if nobody says why."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "wait")
        await helper.begun.wait()
        await raw.cancel("job", "helper")
        assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": "cancelled", "type": "Cancelled"})


class Slow(BaseWorker):
    """Takes a while to unwind."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.told: list[tuple[float, str | None]] = []

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> None:
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(5)

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        self.told.append((anyio.current_time(), message.reason))


def test_that_time_is_up_is_told_when_it_is_whoever_asked(backend: str) -> None:
    """J6: `on_job_cancelled` runs when the handler is cancelled, and not seconds later, when it has unwound."""

    async def program() -> None:
        slow, asker = Slow(), BaseWorker("asker")
        async with running(slow, asker):
            with anyio.move_on_after(1):
                await asker.request_job("slow", name="do")
                await sleep_forever()
            await sleep(1)
            assert [(round(when), reason) for when, reason in slow.told] == [(1, "timeout")]
            await sleep(10)

    run(program, backend=backend)


def test_time_that_is_up_stays_the_reason_whatever_comes_later(backend: str) -> None:
    """J6: a cancel that comes while the handler unwinds changes nothing; the reason is `timeout`."""

    async def program() -> None:
        slow, asker = Slow(), BaseWorker("asker")
        async with running(slow, asker):
            with anyio.move_on_after(1):
                await asker.request_job("slow", name="do")
                await sleep_forever()
            await sleep(1)
            await asker.stop()
            await sleep(10)
        assert [reason for _, reason in slow.told] == ["timeout"]

    run(program, backend=backend)
