"""J15: jobs that are awaited, with and without a timeout."""

import asyncio

import anyio
import pytest

from support.contexts import ghost
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BusJobCancelMessage,
    BusJobRequestMessage,
    JobError,
    JobGroupError,
    JobTimeoutError,
    NotRunningError,
    job,
)
from workerbus.testing import RecordingBus, run


async def test_a_job_can_be_awaited() -> None:
    """J15: for the answer alone."""
    async with running(Helper("helper"), asker := Helper("asker")):
        response = await asker.job("helper", name="echo", payload={"n": 1})
    assert response == {"worker": "helper", "payload": {"n": 1}}


async def test_an_awaited_job_raises_as_the_context_does() -> None:
    """J15: `JobError`."""
    async with running(Helper("helper")) as runner:
        with pytest.raises(JobError, match="it went wrong"):
            await runner.job("helper", name="fail")


async def test_an_awaited_job_that_is_cancelled_cancels_the_handler() -> None:
    """J15, J5: as leaving the context does."""
    helper = Helper("helper")
    async with running(helper) as runner:
        with anyio.move_on_after(0.02):
            await runner.job("helper", name="wait")
        assert helper.unwound.is_set()


@pytest.mark.parametrize("worker_names", [("nobody",), ("helper", "nobody")])
async def test_an_awaited_job_that_waits_for_a_worker_can_be_cancelled(
    worker_names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """J15, J5, J1: on a bus where asking itself never waits; the log has said once for whom it waits."""
    async with running(Helper("helper"), asker := Helper("asker")):
        await asker.job("helper", name="echo")  # from then on it is known that asking never waits

        async def ask() -> None:
            with pytest.raises(JobGroupError, match="changed my mind"):
                await asker.job_group(*worker_names, name="echo")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(7)
            (job_id,) = asker.job_groups
            await asker.cancel_job_group(job_id, reason="changed my mind")
        assert len(caplog.messages) == 1
        assert "still waits for worker 'nobody'" in caplog.messages[0]
        assert asker.statistics().job_groups == 0


async def test_a_context_that_is_neither_entered_nor_awaited_asks_nobody() -> None:
    """J15, N8: it is the await that asks. A context that is dropped before is warned of, where that is."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        with pytest.warns(RuntimeWarning, match="job 'echo' for 'helper' was never asked for") as caught:
            asker.job("helper", name="echo")
        assert caught[0].filename == __file__
        with pytest.warns(RuntimeWarning, match="a job for 'helper', 'other' was never asked for"):
            asker.job_group("helper", "other")
        with pytest.warns(RuntimeWarning, match="a job for nobody was never asked for"):
            asker.job_group()
        await anyio.wait_all_tasks_blocked()
        assert helper.calls == []
        assert asker.job_groups == {}


async def test_a_context_that_was_used_or_could_not_be_made_is_not_warned_of() -> None:
    """N8: warnings are errors here."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        await asker.job("helper", name="echo")
        async with asker.job("helper", name="echo"):
            pass
        with pytest.raises(JobError):
            await asker.job("helper", name="fail")
        with pytest.raises(TypeError):
            asker.job("helper", payload=3)  # type: ignore[call-overload]  # on purpose
        late = asker.job("helper", name="echo")
        await asker.stop()
        with pytest.raises(NotRunningError):
            await late
        del late


@pytest.mark.parametrize("backend", ["asyncio"])
def test_a_native_cancellation_goes_through(backend: str) -> None:
    """J8, L3: it wins over the error that the cancelled job makes."""

    async def main() -> None:
        helper = Helper("helper")
        async with running(helper) as runner:

            async def ask() -> None:
                await runner.job("helper", name="echo")  # from now on it knows that it never waits for room
                await runner.job("helper", name="wait")

            task = asyncio.create_task(ask())
            await helper.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert helper.statistics().active_jobs == 0

    run(main, backend=backend)


async def test_an_awaited_job_has_its_timeout_where_a_request_never_waits() -> None:
    """J6, J15, L4: from a worker that never answers, either, after the time that its clean-up has."""
    async with running() as runner, ghost(runner, "silent"):
        begun = anyio.current_time()
        for number in (1, 2):
            with pytest.raises(JobTimeoutError):
                await runner.job("silent", timeout=1)
            assert anyio.current_time() - begun == pytest.approx(number * (1 + CLEANUP_SECONDS))


@pytest.mark.parametrize("asked_before", [False, True])
async def test_a_cancellation_from_outside_wins_over_the_error_of_a_job_that_unwinds(asked_before: bool) -> None:
    """J8, J15: it has come while the others of the group unwound; also where the requester knows the bus already."""

    class Slow(Helper):
        @job(name="fail")
        async def fail(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)

    class Bad(Helper):
        @job(name="fail")
        async def fail(self, message: BusJobRequestMessage) -> None:
            await slow.begun.wait()
            raise ValueError("it went wrong")

    slow = Slow("slow")
    async with running(Bad("bad"), slow) as runner:
        if asked_before:
            await runner.job("bad", name="echo")
        with anyio.move_on_after(0.5) as scope:
            await runner.job_group("slow", "bad", name="fail")
        assert scope.cancelled_caught


def test_a_native_cancel_of_an_awaited_job_goes_through_and_says_so() -> None:
    """J8, J5"""
    bus = RecordingBus()

    async def main() -> None:
        helper = Helper("helper")
        async with running(helper, bus=bus) as runner:

            async def ask() -> None:
                await runner.job("helper", name="echo")  # from now on it knows that it never waits for room
                await runner.job("helper", name="wait")

            task = asyncio.create_task(ask())
            await helper.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert helper.unwound.is_set()

    run(main)
    [cancel] = bus.messages(BusJobCancelMessage)
    assert cancel.reason == "context exited with error"
