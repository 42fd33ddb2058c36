"""J2, J5, J10: jobs that are cancelled, and how they unwind."""

import asyncio
from typing import Any

import anyio
import pytest

from support import clock
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobUpdateMessage,
    BusMessage,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.testing import run, settle


class Slow(Listener):
    """Its job ``hold`` takes its time to unwind."""

    def __init__(self, name: str = "slow") -> None:
        super().__init__(name)
        self.unwinds = anyio.Event()
        self.let_go = anyio.Event()
        self.messages: list[BusMessage] = []

    @job(name="hold")
    async def hold(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.unwinds.set()
            with anyio.move_on_after(8, shield=True):
                await self.let_go.wait()


async def test_a_slow_clean_up_delays_no_other_message() -> None:
    """J10: jobs, cancels and hooks of that worker go on."""
    slow = Slow()
    async with running(slow) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("slow", "slow", "hold")
        await slow.begun.wait()
        await raw.cancel("slow", "slow")
        await slow.unwinds.wait()
        await raw.ask("quick", "slow", "echo")
        await raw.answer("quick")
        await raw.ask("wait", "slow", "wait")
        await anyio.wait_all_tasks_blocked()
        await raw.cancel("wait", "slow")
        assert (await raw.answer("wait"))[0] == JobStatus.CANCELLED
        await slow.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert [message.job_id for hook, message in slow.heard if hook == "cancelled"] == ["slow", "wait"]
        assert raw.answers("slow") == []
        slow.let_go.set()
        assert (await raw.answer("slow"))[0] == JobStatus.CANCELLED


async def test_a_slow_clean_up_delays_no_answer_to_its_own_worker() -> None:
    """J10: what the worker has asked for itself comes in."""
    slow = Slow()
    async with running(slow, Helper("helper")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("slow", "slow", "hold")
        await slow.begun.wait()
        await raw.cancel("slow", "slow")
        await slow.unwinds.wait()
        assert (await slow.job("helper", name="echo"))["worker"] == "helper"
        slow.let_go.set()


async def test_a_second_cancel_changes_nothing() -> None:
    """J9, J1: one hook, one answer."""
    slow = Slow()
    async with running(slow) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "slow", "hold")
        await slow.begun.wait()
        for reason in ("first", "second", "third"):
            await raw.cancel("job", "slow", reason)
            await anyio.wait_all_tasks_blocked()
        slow.let_go.set()
        await raw.answer("job")
        await raw.cancel("job", "slow", "fourth")
        await anyio.wait_all_tasks_blocked()
        assert [message.reason for hook, message in slow.heard if hook == "cancelled"] == ["first"]
        assert len(raw.answers("job")) == 1


async def test_a_cancel_of_a_finished_job_is_none() -> None:
    """J9, J1: neither hook nor answer."""
    helper = Listener("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "echo")
        await raw.answer("job")
        await raw.cancel("job", "helper")
        await anyio.wait_all_tasks_blocked()
        assert helper.heard == []
        assert len(raw.answers("job")) == 1


async def test_a_cancelled_job_cancels_the_jobs_that_its_handler_waits_for() -> None:
    """J9, J5: from the inside out."""
    ended: list[str] = []

    class Link(Helper):
        def __init__(self, name: str, next_name: str | None) -> None:
            super().__init__(name)
            self.next_name = next_name

        @job(name="pass on")
        async def pass_on(self, message: BusJobRequestMessage) -> None:
            try:
                if self.next_name is None:
                    await self.wait_for_release(message)
                else:
                    await self.job(self.next_name, name="pass on")
            finally:
                ended.append(self.name)

    links = [Link("a", "b"), Link("b", "c"), Link("c", None)]
    async with running(*links) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "a", "pass on")
        await links[2].begun.wait()
        await raw.cancel("job", "a")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        assert ended == ["c", "b", "a"]


async def test_a_deferred_job_can_be_cancelled() -> None:
    """J9, J2: when its handler has returned long ago."""

    async def nothing(worker: Doing, message: BusJobRequestMessage) -> None:
        pass

    doing = Doing("doing", nothing)
    async with running(doing) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "defer")
        await anyio.wait_all_tasks_blocked()
        await raw.cancel("job", "doing")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        with pytest.raises(RuntimeError):
            await doing.send_job_response("job", {})


async def test_a_handler_may_cancel_its_own_job() -> None:
    """J9, J2: it ends at its next checkpoint, or by returning; the outcome is CANCELLED."""

    async def gives_up(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        await worker.bus.send(BusJobCancelMessage(message.job_id, source=worker.name, target=worker.name))
        return {"too": "late"}

    async with running(Doing("doing", gives_up)) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(3):  # in a task that is used again, if it is
            await raw.ask(f"job {number}", "doing", "do")
            assert (await raw.answer(f"job {number}"))[0] == JobStatus.CANCELLED


@pytest.mark.parametrize("size", [1, 3])
async def test_cancels_pass_a_full_lane(size: int) -> None:
    """J9, B9: they are system messages, and find the job that runs."""
    release = anyio.Event()

    class Busy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if not message.system:
                await release.wait()

    busy = Busy("busy")
    async with running(busy, bus=MemoryBus(max_buffer_size=size)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "busy", "wait")
        await busy.begun.wait()
        for number in range(size):
            await raw.ask(f"job {number}", "busy", "echo")
        await raw.cancel("job", "busy")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        release.set()


def test_a_handler_that_is_late_answers_a_cancelled_job(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """J6, J2: its time was over before it noticed; until it has answered, it may still tell how it goes."""

    class Late(Listener):
        @job(name="do")
        async def do(self, message: BusJobRequestMessage) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(4)
                await self.send_job_update(message.job_id, {"n": 1})
                await self.send_job_response(message.job_id, {"n": 2})

    async def example() -> None:
        late = Late("late")
        async with running(late) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "late", "do", seconds_left=3)
            assert await raw.answer("job") == (JobStatus.CANCELLED, {"n": 2})
            await raw.settle()
            assert raw.of(BusJobUpdateMessage) == [BusJobUpdateMessage("job", {"n": 1}, source="late", target="raw")]
            assert [message.reason for hook, message in late.heard if hook == "cancelled"] == ["timeout"]

    clock.run(example, backend=backend)
    assert caplog.messages == []


class TakesASecond(BaseWorker):
    """Takes a second to leave a job."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.task: asyncio.Task[object] | None = None
        self.begun = anyio.Event()

    @job(name="leave")
    async def leave(self, message: BusJobRequestMessage) -> None:
        self.task = asyncio.current_task()
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

    @job(name="echo")
    async def echo(self, message: BusJobRequestMessage) -> dict[str, bool]:
        return {"alive": True}


def test_a_native_cancellation_of_a_handler_that_is_being_cancelled_concerns_the_job_alone() -> None:
    """J1, L3: the worker goes on."""

    async def main() -> dict[str, bool]:
        worker = TakesASecond()
        async with running(worker) as runner:
            async with anyio.create_task_group() as tasks:
                context = runner.job("slow", name="leave")

                async def ask() -> None:
                    async with context:
                        await anyio.sleep_forever()

                tasks.start_soon(ask)
                await worker.begun.wait()
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5)
                assert worker.task is not None
                worker.task.cancel()
            return await runner.job("slow", name="echo", timeout=1)

    assert run(main, backend="asyncio") == {"alive": True}


async def test_a_handler_that_puts_its_cancellation_into_a_group_is_cancelled_all_the_same() -> None:
    """J5: it is answered when it has unwound, and not when its worker ends."""

    async def wraps(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as exc:
            raise BaseExceptionGroup("several", [exc]) from None

    async with running(Doing("wraps", wraps)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "wraps", "do")
        await anyio.wait_all_tasks_blocked()
        await raw.cancel("job", "wraps", "enough")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED


async def test_a_job_that_is_not_cancellable_refuses_a_request_to_cancel_it() -> None:
    """N4: `request_cancel_job_group` asks; `cancel_job_group` is the requester's own and is never refused."""
    asker, helper = Helper("asker"), Helper("helper")
    async with running(asker, helper):
        job_id = await asker.request_job("helper", name="wait", cancellable=False)
        await helper.begun.wait()
        assert await asker.request_cancel_job_group(job_id) is False
        assert job_id in asker.job_groups
        assert job_id in helper.active_jobs
        await asker.cancel_job_group(job_id)
        await helper.unwound.wait()


async def test_a_job_in_a_context_that_is_not_cancellable_refuses_a_request_to_cancel_it() -> None:
    """N4: as one without a context does."""
    asker, helper = Helper("asker"), Helper("helper")
    async with running(asker, helper):
        async with asker.job("helper", name="wait", cancellable=False) as context:
            await helper.begun.wait()
            assert context.job_id is not None
            assert await asker.request_cancel_job_group(context.job_id) is False
            helper.release.set()
        assert context.response == {"released": True}


async def test_a_cancellable_job_is_cancelled_on_request() -> None:
    """N4: jobs are cancellable by default; an unknown id is False."""
    asker, helper = Helper("asker"), Helper("helper")
    async with running(asker, helper):
        job_id = await asker.request_job("helper", name="wait")
        await helper.begun.wait()
        assert await asker.request_cancel_job_group(job_id, reason="a click") is True
        await helper.unwound.wait()
        assert await asker.request_cancel_job_group("unknown") is False


@pytest.mark.parametrize("how", ["stops", "crashes", "is cancelled with its runner"])
async def test_the_jobs_of_a_requester_that_goes_are_cancelled(how: str) -> None:
    """J5: at a worker of another runner, too; it does not work on for nobody."""
    crash, helper = anyio.Event(), Helper("helper")

    class Asker(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await self.request_job("helper", name="wait")
            await crash.wait()
            raise LookupError("it broke")

    async with MemoryBus() as bus, running(helper, bus=bus), anyio.create_task_group() as group:
        there = WorkerRunner(bus=bus, handle_sigint=False)
        there.add_event_handler("on_error", lambda *_: None)
        asker = Asker("asker")
        await there.add_workers(asker)
        group.start_soon(there.run)
        await helper.begun.wait()
        if how == "stops":
            await asker.stop()
        elif how == "crashes":
            crash.set()
        else:
            await there.cancel()
        await helper.unwound.wait()


@pytest.mark.parametrize("before", [0, 1], ids=["in a new task", "in a task that has done another job"])
@pytest.mark.parametrize("seconds_left", [None, 10.0])
async def test_a_job_that_is_cancelled_in_the_very_step_in_which_it_comes_is_not_begun(
    before: int, seconds_left: float | None
) -> None:
    """J9, J13: its handler has a task already, which has not run."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        for n in range(before):
            await raw.ask(str(n), "helper", "echo")
            await raw.answer(str(n))
        await raw.ask("job", "helper", "echo", seconds_left=seconds_left)
        await raw.cancel("job", "helper")
        assert (await raw.answer("job"))[0] is JobStatus.CANCELLED
        await settle()
        assert "job" not in helper.calls


async def test_the_answer_of_a_job_that_was_left_open_is_heard_after_the_cancel_of_its_group() -> None:
    """J21: no handler of it runs, so that it is answered in the very step of the cancel."""

    class Leaving(Helper):
        @job(name="leave open", deferred=True)
        async def leave_open(self, message: BusJobRequestMessage) -> None:
            self.begun.set()

    listener, leaving = Listener(), Leaving("leaving")
    async with running(listener, leaving):
        job_id = await listener.request_job("leaving", name="leave open")
        await leaving.begun.wait()
        await settle()
        await listener.cancel_job_group(job_id)
        with anyio.fail_after(5):
            assert (await listener.until("response")).status == JobStatus.CANCELLED
