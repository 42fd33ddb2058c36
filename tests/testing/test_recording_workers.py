"""Workers that write down which of their hooks have run, and waiting for them."""

from typing import Any

import anyio
import pytest
from anyio import current_time, get_cancelled_exc_class, sleep

from support.messages import Note, note
from support.workers import Helper, running
from workerbus import BaseWorker, BusDataMessage, BusJobRequestMessage, BusMessage, UnknownEventError, bus_message, job
from workerbus.testing import Behaviour, RecordingWorker, ScriptedWorker, settle
from workerbus.worker._hooks import HOOKS


@bus_message
class Reading(BusDataMessage):
    celsius: float


async def test_a_spy_records_the_hooks_of_a_class_of_ones_own_and_what_they_raise() -> None:
    class Assistant(BaseWorker):
        @job(name="greet")
        async def greet(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"text": "hello"}

        async def on_bus_message(self, message: Any) -> None:
            if isinstance(message, Reading) and message.celsius > 50:
                raise ValueError("too hot")

    class Spy(RecordingWorker, Assistant):
        """The assistant, watched."""

    spy = Spy("spy")
    async with running(spy) as runner:
        assert await runner.job("spy", name="greet") == {"text": "hello"}
        await runner.bus.send(Reading(20.0, source="test", target="spy"))
        await runner.bus.send(Reading(60.0, source="test", target="spy"))
        hot = await spy.until("on_bus_message", 2)
        assert await spy.until_message(Reading) == Reading(20.0, source="test", target="spy")
    assert [run.hook for run in spy.recorded] == ["on_activated", "on_bus_message", "on_bus_message"]
    assert isinstance(hot.error, ValueError)
    assert spy.ran("on_activated")[0].args == (None,)


async def test_who_waits_for_one_of_many_gets_that_one_however_many_there_are() -> None:
    """The first, and the second, though the third has come."""
    spy, script = RecordingWorker("spy"), ScriptedWorker("script", Behaviour("hang"))
    async with running(spy, script) as runner:
        for celsius in (1.0, 2.0, 3.0):
            await runner.bus.send(Reading(celsius, source="test", target="spy"))
            with anyio.move_on_after(1):
                await runner.job("script", payload={"n": celsius})
        await settle()
        for count, celsius in enumerate((1.0, 2.0, 3.0), 1):
            assert (await spy.until("on_bus_message", count)).args[0].celsius == celsius
            heard: Any = await spy.until_message(Reading, count)
            assert heard.celsius == celsius
            request = await script.until_requested(count)
            assert request.payload == {"n": celsius}
            assert await script.until_cancelled(count) == request.job_id


async def test_every_hook_but_on_job_request_is_recorded() -> None:
    quiet = {"on_job_request"}
    own = {hook for hook in HOOKS if hook in vars(RecordingWorker)}
    assert own == HOOKS - quiet


class Waits(Helper):
    """Its hook for notes takes five seconds; for number 0 it waits to be cancelled."""

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await (sleep(5) if message.n else anyio.sleep_forever())


class Spy(RecordingWorker, Waits):
    """Writes down the hooks of a worker that waits in them."""


async def test_a_hook_that_was_cancelled_is_recorded_with_its_cancellation() -> None:
    spy = Spy("spy")
    async with running(spy):
        await spy.send_bus_message(note(0, "spy"))
        await settle()
        await spy.stop()
    assert [type(hook.error) for hook in spy.ran("on_bus_message")] == [get_cancelled_exc_class()]


async def test_a_wait_for_hooks_takes_the_time_that_they_take() -> None:
    """It waits, and does not look again and again."""
    spy = Spy("spy")
    async with running(spy):
        begin = current_time()
        for number in (1, 2, 3):
            await spy.send_bus_message(note(number, "spy"))
        await spy.until("on_bus_message", 3)
        assert current_time() == begin + 15


async def test_a_wait_for_a_hook_fails_when_the_worker_has_finished() -> None:
    worker = RecordingWorker("w")
    async with running(worker) as runner, anyio.create_task_group() as group:

        async def wait() -> None:
            with pytest.raises(
                AssertionError, match="'w' has finished before on_job_update has run 1 times; its hooks"
            ):
                await worker.until("on_job_update")

        group.start_soon(wait)
        await worker.until("on_activated")
        await worker.stop()
        await runner.end()
    with pytest.raises(AssertionError, match="before 2 Reading have come"):
        await worker.until_message(Reading, 2)


async def test_a_wait_for_a_hook_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownEventError, match="did you mean 'on_activated'"):
        await RecordingWorker("w").until("on_active")


async def test_waits_for_jobs_fail_when_the_worker_has_finished() -> None:
    worker = ScriptedWorker("w")
    async with running(worker):
        pass
    with pytest.raises(AssertionError, match="before 1 jobs have begun"):
        await worker.until_requested()
    with pytest.raises(AssertionError, match="before 1 jobs have been cancelled"):
        await worker.until_cancelled()
