"""Jobs that are awaited without a timeout: they have no cancel scope of their own, and promise the same (J5, J8)."""

import asyncio

import anyio
import pytest

from support.requesters import Listener, Raw
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    JobError,
    JobStatus,
    job,
)
from workerbus.testing import run


async def test_a_worker_is_told_why_its_requester_left() -> None:
    """J5: also where the requester only waited."""
    listener = Listener("listener")
    async with running(listener) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            await runner.job("listener", name="wait")

        tasks.start_soon(ask)
        await listener.begun.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert (await listener.until("cancelled")).reason == "the requester was cancelled"


@pytest.mark.parametrize("backend", ["asyncio"])
def test_a_native_cancellation_goes_through(backend: str) -> None:
    """J8, L3: it wins over the error that the cancelled job makes."""

    async def main() -> None:
        helper = Helper("helper")
        async with running(helper) as runner:

            async def ask() -> None:
                await runner.job("helper", name="wait")

            task = asyncio.create_task(ask())
            await helper.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert helper.statistics().active_jobs == 0

    run(main, backend=backend)


class Slow(BaseWorker):
    """Takes long to leave, and asks another in the meantime of its life."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun = anyio.Event()

    @job(name="wait")
    async def wait_long(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)


async def test_waits_that_one_error_leaves_one_after_the_other_share_their_bound() -> None:
    """L4: an awaited job in the body of another context; two seconds for both, and not for each."""
    outer, inner, asker = Slow("outer"), Slow("inner"), Helper("asker")
    async with running(outer, inner, asker), anyio.create_task_group() as tasks:
        left = anyio.Event()

        async def ask_both() -> None:
            async with asker.job("outer", name="wait"):
                await outer.begun.wait()
                await asker.job("inner", name="wait")

        async def ask() -> None:
            with pytest.raises(JobError):
                await ask_both()
            left.set()

        tasks.start_soon(ask)
        await inner.begun.wait()
        begun = anyio.current_time()
        [group] = [each for each in asker.job_groups.values() if each.worker_names == ["inner"]]
        await asker.cancel_job_group(group.job_id)
        await left.wait()
        assert anyio.current_time() - begun < 2.5


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
