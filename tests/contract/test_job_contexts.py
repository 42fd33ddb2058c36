"""J5, J7, J8, J11, J15 and J16: what the requester sees of a job, and how its context is left."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.buses import PoliteBus
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    BusWorkerReadyMessage,
    JobContext,
    JobError,
    JobEvent,
    JobFailure,
    JobGroupContext,
    JobGroupError,
    JobGroupEvent,
    JobGroupResponse,
    JobStatus,
    MemoryBus,
    WorkerBus,
    WorkerParams,
    WorkerRunner,
    job,
)


class Slow(Helper):
    """Its job ``hold`` unwinds when it is let go."""

    def __init__(self, name: str = "slow") -> None:
        super().__init__(name)
        self.unwinds = anyio.Event()
        self.let_go = anyio.Event()
        self.seconds: float | None = None

    @job(name="hold")
    async def hold(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.unwinds.set()
            with anyio.move_on_after(8, shield=True):
                await (self.let_go.wait() if self.seconds is None else anyio.sleep(self.seconds))
            self.unwound.set()


class LossyBus(MemoryBus):
    """A bus that cannot send to one worker."""

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage) and message.target == "second":
            raise OSError("the cable is cut")
        await super().publish(message)


@asynccontextmanager
async def ghost(runner: WorkerRunner, *names: str) -> AsyncIterator[list[Raw]]:
    """Remote workers that answer as the test wants it."""
    ghosts = []
    for name in names:
        ghosts.append(await Raw.on(runner.bus, name))
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", source=name))
    for name in names:
        await runner.registry.wait_for(name)
    yield ghosts


async def fail(error: Exception, *after: anyio.Event) -> NoReturn:
    for event in after:
        await event.wait()
    raise error


async def read_and_fail(asked: JobContext, error: Exception) -> NoReturn:
    async for _ in asked:
        pass
    raise error


# --- J5: leaving


async def test_a_body_that_fails_cancels_the_job_and_its_exception_goes_through() -> None:
    """J5: the very exception; the worker is told, and the group is gone."""
    helper, asker = Helper("helper"), Helper("asker")
    error = LookupError("mine")
    async with running(helper, asker):
        with pytest.raises(LookupError) as caught:
            async with asker.job("helper", name="wait"):
                await fail(error, helper.begun)
        assert caught.value is error
        assert helper.unwound.is_set()
        assert helper.active_jobs == {}
        assert asker.job_groups == {}


async def test_a_requester_that_is_cancelled_while_it_waits_for_the_answer_cancels_the_job() -> None:
    """J5: before the cancellation goes on its way."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker), anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(anyio.get_cancelled_exc_class()):
                await asker.job("helper", name="wait")
            assert helper.unwound.is_set()
            assert asker.job_groups == {}
            await checkpoint()

        group.start_soon(ask)
        await helper.begun.wait()
        group.cancel_scope.cancel()
    assert group.cancel_scope.cancel_called


async def test_a_deadline_around_the_context_cancels_the_job() -> None:
    """J5: the scope's own error comes of it, and none of the job's."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        with pytest.raises(TimeoutError) as caught, anyio.fail_after(0.02):
            async with asker.job("helper", name="wait"):
                await anyio.sleep_forever()
        assert not isinstance(caught.value, JobError)
        assert helper.unwound.is_set()
        assert asker.job_groups == {}


@pytest.mark.parametrize("in_body", [False, True], ids=["waits", "in its body"])
def test_a_native_cancellation_cancels_the_job_and_goes_through(in_body: bool) -> None:
    """J5: of `Task.cancel()`, wherever the requester is."""

    async def example() -> None:
        helper, asker = Helper("helper"), Helper("asker")
        async with running(helper, asker):

            async def ask() -> None:
                async with asker.job("helper", name="wait"):
                    if in_body:
                        await anyio.sleep_forever()

            task = asyncio.create_task(ask())
            await helper.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert helper.unwound.is_set()
            assert asker.job_groups == {}

    clock.run(example, backend="asyncio")


@pytest.mark.parametrize("how", ["exception", "cancellation"])
async def test_a_context_is_left_when_the_handler_has_unwound(how: str) -> None:
    """J5: CANCELLED is sent then, and not before."""
    slow, left = Slow(), anyio.Event()
    async with running(slow) as runner, anyio.create_task_group() as group:
        raw = await Raw.on(runner.bus)

        async def ask() -> None:
            try:
                async with runner.job("slow", name="hold"):
                    if how == "exception":
                        await fail(LookupError(), slow.begun)
                    await slow.begun.wait()
                    group.cancel_scope.cancel()
                    await anyio.sleep_forever()
            except LookupError:
                pass
            finally:
                left.set()

        group.start_soon(ask)
        with anyio.move_on_after(8, shield=True):
            await slow.unwinds.wait()
            await anyio.wait_all_tasks_blocked()
            assert not left.is_set()
            assert raw.of(BusJobResponseMessage) == []
            slow.let_go.set()
            await left.wait()
        assert slow.unwound.is_set()


async def test_a_cancellation_while_the_answers_are_waited_for_does_not_cut_that_short() -> None:
    """J5: the context is left when all have answered, and the body's exception goes through."""
    slow = Slow()
    async with running(slow) as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(LookupError):
                async with runner.job("slow", name="hold"):
                    await fail(LookupError(), slow.begun)
            assert slow.unwound.is_set()

        async def cancel() -> None:
            await slow.unwinds.wait()
            group.cancel_scope.cancel()
            with anyio.move_on_after(8, shield=True):
                await anyio.wait_all_tasks_blocked()
            slow.let_go.set()

        group.start_soon(ask)
        group.start_soon(cancel)


def test_a_native_cancellation_while_the_answers_are_waited_for_does_not_cut_that_short() -> None:
    """J5: it goes through when all have answered."""

    async def example() -> None:
        slow = Slow()
        async with running(slow) as runner:

            async def ask() -> None:
                async with runner.job("slow", name="hold"):
                    await fail(LookupError(), slow.begun)

            task = asyncio.create_task(ask())
            await slow.unwinds.wait()
            for _ in range(2):
                task.cancel()
                await anyio.wait_all_tasks_blocked()
                assert not task.done()
            slow.let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert slow.unwound.is_set()

    clock.run(example, backend="asyncio")


def test_a_context_is_left_after_the_bound_if_a_handler_does_not_unwind(backend: str) -> None:
    """J5, L4: several contexts that one exception leaves share it."""

    async def example() -> None:
        first, second = Slow("first"), Slow("second")
        async with running(first, second) as runner:
            started = anyio.current_time()
            with pytest.raises(LookupError):
                async with runner.job("first", name="hold"), runner.job("second", name="hold"):
                    await fail(LookupError(), first.begun, second.begun)
            passed = anyio.current_time() - started
            assert CLEANUP_SECONDS <= passed < CLEANUP_SECONDS + 0.9
            first.let_go.set()
            second.let_go.set()

    clock.run(example, backend=backend)


def test_an_exception_that_is_raised_again_later_has_its_clean_up_again(backend: str) -> None:
    """J5: every context is left when all have answered, or after the bound, whatever the exception has been through."""

    async def example() -> None:
        error = LookupError("kept, and raised again")
        for name in ("first", "second"):
            slow = Slow(name)
            slow.seconds = 0.5
            async with running(slow) as runner:
                with pytest.raises(LookupError):
                    async with runner.job(name, name="hold"):
                        await fail(error, slow.begun)
                assert slow.unwound.is_set(), name
            await anyio.sleep(CLEANUP_SECONDS)

    clock.run(example, backend=backend)


async def test_a_failed_send_to_the_second_of_three_workers_cancels_the_first() -> None:
    """J5: every worker that was asked is told, and the error of the bus goes through."""
    workers = [Helper("first"), Helper("second"), Helper("third")]
    async with running(*workers, bus=LossyBus()) as runner:
        with pytest.raises(OSError, match="the cable is cut"):
            async with runner.job_group("first", "second", "third", name="wait"):
                pytest.fail("the body must not begin")
        raw = await Raw.on(runner.bus)
        await anyio.wait_all_tasks_blocked()
        assert [worker.active_jobs for worker in workers] == [{}, {}, {}]
        assert workers[1].calls == workers[2].calls == []
        assert raw.got == []


async def test_a_failed_send_without_a_context_cancels_the_first_too() -> None:
    """J5: the group is gone."""
    first, asker = Helper("first"), Helper("asker")
    async with running(first, Helper("second"), asker, bus=LossyBus()):
        with pytest.raises(OSError, match="the cable is cut"):
            await asker.request_job_group("first", "second", name="wait")
        await anyio.wait_all_tasks_blocked()
        assert first.active_jobs == {}
        assert asker.job_groups == {}
        assert asker.statistics().job_groups == 0


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


async def test_the_workers_of_a_group_are_all_told() -> None:
    """J5: each that has not answered."""
    workers = [Helper(f"w{n}") for n in range(3)]
    async with running(*workers) as runner:
        with pytest.raises(LookupError):
            async with runner.job_group("w0", "w1", "w2", name="wait"):
                await fail(LookupError(), *(worker.begun for worker in workers))
        assert all(worker.unwound.is_set() for worker in workers)


async def test_a_handler_that_has_answered_may_still_run() -> None:
    """J5: it alone; it is not cancelled, and not waited for."""
    release, ended = anyio.Event(), anyio.Event()

    async def goes_on(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {})
        await release.wait()
        ended.set()

    async with running(Doing("doing", goes_on)) as runner:
        with pytest.raises(LookupError):
            async with runner.job("doing", name="do") as asked:
                await read_and_fail(asked, LookupError())
        await anyio.wait_all_tasks_blocked()
        assert not ended.is_set()
        release.set()
        await ended.wait()


async def test_a_requester_that_is_cancelled_while_it_waits_for_a_worker_asks_nobody() -> None:
    """J5: nor anybody that was there."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        with anyio.move_on_after(0.02) as scope:
            await asker.job_group("helper", "nobody", name="wait")
        assert scope.cancelled_caught
        assert helper.calls == []
        assert asker.job_groups == {}


async def test_a_worker_that_comes_after_its_requester_has_left_is_not_asked() -> None:
    """J5: who left is gone."""
    helper = Helper("helper")
    async with running() as runner:
        with anyio.move_on_after(0.02):
            await runner.job("helper", name="echo")
        await runner.add_workers(helper)
        await anyio.wait_all_tasks_blocked()
        assert helper.calls == []


async def test_a_request_that_waits_for_room_is_withdrawn_with_its_requester() -> None:
    """J5, B9: it never reaches the worker."""
    release = anyio.Event()

    class Busy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            await release.wait()

    busy, asker = Busy("busy"), Helper("asker")
    async with running(busy, asker, bus=MemoryBus(max_buffer_size=1)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("handled", "busy", "echo")
        await anyio.wait_all_tasks_blocked()
        await raw.ask("waits", "busy", "echo")
        with anyio.move_on_after(0.02) as scope:
            await asker.job("busy", name="echo")
        assert scope.cancelled_caught
        assert asker.job_groups == {}
        release.set()
        await anyio.wait_all_tasks_blocked()
        assert busy.calls == ["handled", "waits"]


# --- J7: events


@pytest.mark.parametrize("make_bus", [MemoryBus, PoliteBus])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(["update", "stream_start", "stream_data"]), max_size=150), wait=st.booleans())
def test_events_come_in_the_order_in_which_they_were_sent(
    backend: str, make_bus: Callable[[], WorkerBus], kinds: list[str], wait: bool
) -> None:
    """J7: those that were sent before the loop began included, on any bus."""

    async def send(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        for number, kind in enumerate(kinds):
            await getattr(worker, f"send_job_{kind}")(message.job_id, {"n": number})
        sent.set()
        return {}

    async def example() -> None:
        async with running(Doing("doing", send), bus=make_bus()) as runner, runner.job("doing", name="do") as asked:
            if wait:
                await sent.wait()
            events = [event async for event in asked]
        assert events == [JobEvent(kind, {"n": number}) for number, kind in enumerate(kinds)]

    sent = anyio.Event()
    clock.run(example, backend=backend)


async def test_the_events_of_a_group_tell_their_worker() -> None:
    """J7: each worker's own are in order."""

    async def send(worker: Doing, message: BusJobRequestMessage) -> None:
        for number in range(3):
            await worker.send_job_update(message.job_id, {"n": number})
            await checkpoint()
        await worker.send_job_stream_end(message.job_id, {"n": 3})

    workers = [Doing("one", send), Doing("two", send)]
    async with running(*workers) as runner, runner.job_group("one", "two", name="do") as group:
        events = [event async for event in group]
    for name in ("one", "two"):
        expected = [JobGroupEvent(JobGroupEvent.UPDATE, name, {"n": number}) for number in range(3)]
        own = [event for event in events if event.worker_name == name]
        assert own == [*expected, JobGroupEvent(JobGroupEvent.STREAM_END, name, {"n": 3})]


async def three_updates(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
    for number in range(3):
        await worker.send_job_update(message.job_id, {"n": number})
    return {}


async def test_a_second_loop_ends() -> None:
    """J7: there is nothing left for it."""
    async with running(Doing("doing", three_updates)) as runner, runner.job("doing", name="do") as asked:
        assert len([event async for event in asked]) == 3
        assert [event async for event in asked] == []


async def test_a_second_loop_goes_on_where_the_first_was_left() -> None:
    """J7: in the order of sending still."""
    async with running(Doing("doing", three_updates)) as runner, runner.job("doing", name="do") as asked:
        async for event in asked:
            first = event.data
            break
        assert first == {"n": 0}
        assert [event.data async for event in asked] == [{"n": 1}, {"n": 2}]


async def test_a_loop_over_a_finished_job_ends() -> None:
    """J7: with what was not read yet."""
    async with running(Doing("doing", three_updates)) as runner:
        async with runner.job("doing", name="do") as asked:
            pass
        assert [event.data async for event in asked] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert [event async for event in asked] == []


async def test_two_loops_at_once_share_the_events() -> None:
    """J7: none is lost, none comes twice, and both loops end."""

    async def send(worker: Doing, message: BusJobRequestMessage) -> None:
        for number in range(127):
            await worker.send_job_update(message.job_id, {"n": number})

    seen: list[dict[str, Any] | None] = []

    async def read(asked: JobContext) -> None:
        seen.extend([event.data async for event in asked])

    async with running(Doing("doing", send)) as runner, runner.job("doing", name="do") as asked:
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as group:
            group.start_soon(read, asked)
            group.start_soon(read, asked)
    assert sorted(data["n"] for data in seen if data) == list(range(127))


async def test_a_loop_that_is_left_early_does_not_hold_up_the_answer() -> None:
    """J7: what is not read is in nobody's way."""
    async with running(Doing("doing", three_updates)) as runner:
        async with runner.job("doing", name="do") as asked:
            async for _ in asked:
                break
        assert asked.response == {}


async def test_an_urgent_answer_overtakes_what_is_still_queued() -> None:
    """J7: at a requester whose lanes hold messages back; what is overtaken is not heard of any more."""

    class Choosy(Listener):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    async def send(worker: Doing, message: BusJobRequestMessage) -> None:
        for number in range(20):
            await worker.send_job_update(message.job_id, {"n": number})
        await worker.send_job_response(message.job_id, {"urgent": True}, urgent=True)

    asker = Choosy("asker")
    async with running(Doing("doing", send), asker):
        async with asker.job("doing", name="do") as asked:
            events = [event async for event in asked]
        assert asked.response == {"urgent": True}
        assert len(events) <= 1


async def test_what_comes_after_a_terminal_answer_is_ignored() -> None:
    """J7: by the loop, by the hooks, and as a second answer."""
    asker = Listener("asker")
    async with running(asker) as runner, ghost(runner, "one", "two") as (one, _):
        async with asker.job_group("one", "two") as group:
            await one.until(1, BusJobRequestMessage)
            for message in (
                BusJobResponseMessage(group.job_id, JobStatus.COMPLETED, {"n": 1}, source="one", target="asker"),
                BusJobUpdateMessage(group.job_id, {"late": True}, source="one", target="asker"),
                BusJobResponseUrgentMessage(group.job_id, JobStatus.ERROR, {"n": 2}, source="one", target="asker"),
                BusJobUpdateMessage(group.job_id, {"late": False}, source="two", target="asker"),
                BusJobResponseMessage(group.job_id, JobStatus.COMPLETED, {"n": 3}, source="two", target="asker"),
            ):
                await runner.bus.send(message)
            events = [event async for event in group]
        assert group.responses == {"one": {"n": 1}, "two": {"n": 3}}
        assert events == [JobGroupEvent("update", "two", {"late": False})]
        await asker.until("completed")
        assert [name for name, _ in asker.heard] == ["response", "update", "response", "completed"]


# --- J8: errors


@pytest.mark.parametrize("name", ["fail", "paint"])
async def test_an_error_of_a_worker_cancels_the_body(name: str) -> None:
    """J8: and the context raises `JobError`, with the job, the reason, the status and the answer."""
    async with running(Helper("helper")) as runner:
        context = runner.job("helper", name=name)
        with pytest.raises(JobError) as caught:
            async with context:
                await anyio.sleep_forever()
    error = caught.value
    assert type(error) is JobError
    assert error.job_id == context.job_id
    assert error.statuses == {"helper": JobStatus.ERROR}
    assert error.responses["helper"]["error"] in error.reason
    assert not isinstance(error, TimeoutError)


async def test_an_error_of_one_worker_cancels_the_body_and_the_others() -> None:
    """J8: the error carries the answers that did arrive, from before and from after."""

    async def does(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        if worker.name == "bad":
            await helper.begun.wait()
            await answered.wait()
            raise JobFailure("out of stock")
        return {"done": True}

    async def let_go_after_an_answer(group: JobGroupContext) -> None:
        while not group.responses:
            await checkpoint()
        answered.set()
        await anyio.sleep_forever()

    helper, answered = Helper("helper"), anyio.Event()

    class Both(Doing):
        @job(name="wait")
        async def wait_too(self, message: BusJobRequestMessage) -> Any:
            return await does(self, message)

    good, bad = Both("good", does), Both("bad", does)
    async with running(good, bad, helper) as runner:
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group("good", "bad", "helper", name="wait") as group:
                await let_go_after_an_answer(group)
        assert helper.unwound.is_set()
    error = caught.value
    assert type(error) is JobGroupError
    assert error.job_id == group.job_id
    assert "out of stock" in error.reason
    assert error.statuses == {
        "good": JobStatus.COMPLETED,
        "bad": JobStatus.FAILED,
        "helper": JobStatus.CANCELLED,
    }
    assert error.responses["good"] == {"done": True}


async def test_an_error_that_comes_after_the_body_is_raised_as_well() -> None:
    """J8: while the context waits for the answers."""
    helper = Helper("helper")
    async with running(helper) as runner:
        with pytest.raises(JobError):
            async with runner.job("helper", name="fail"):
                pass


async def test_an_answer_that_comes_while_requests_are_still_sent_counts() -> None:
    """J8: a refusal ends the group before the body begins, and before the second worker is asked."""
    helper = Helper("helper")
    async with running(Helper("idle", active=False), helper) as runner:
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group("idle", "helper", name="echo"):
                pytest.fail("the body must not begin")
        assert caught.value.statuses["idle"] == JobStatus.FAILED
        assert helper.active_jobs == {}


async def test_a_good_answer_that_comes_while_requests_are_still_sent_counts() -> None:
    """J8: on a bus that takes its time, the first answers before the last is asked."""
    names = ["one", "two", "three"]
    async with running(*map(Helper, names), bus=PoliteBus()) as runner:
        responses = await runner.job_group(*names, name="echo")
    assert {name: response["worker"] for name, response in responses.items()} == {name: name for name in names}


async def test_a_bad_answer_that_comes_while_requests_are_still_sent_counts() -> None:
    """J8: who was asked is told."""
    one, three = Helper("one"), Helper("three")
    async with running(one, Helper("idle", active=False), three, bus=PoliteBus()) as runner:
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group("one", "idle", "three", name="wait"):
                await anyio.sleep_forever()
        assert caught.value.statuses["idle"] == JobStatus.FAILED
        assert one.active_jobs == three.active_jobs == {}


@pytest.mark.parametrize("worker", ["helper", "nobody"])
async def test_a_timeout_is_a_job_error_and_a_timeout_error(worker: str) -> None:
    """J8: also when the worker never came."""
    helper = Helper("helper")
    async with running(helper) as runner:
        context = runner.job(worker, name="wait", timeout=0.02)
        with pytest.raises(JobError) as caught:
            async with context:
                await anyio.sleep_forever()
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.reason == "timeout"
    assert caught.value.job_id == context.job_id
    assert caught.value.statuses == ({"helper": JobStatus.CANCELLED} if worker == "helper" else {})


async def test_a_timeout_of_a_group_is_a_job_group_error_and_a_timeout_error() -> None:
    """J8: with the answers that did arrive."""

    class Quick(Helper):
        @job(name="wait")
        async def wait_for_release(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"quick": True}

    async with running(Quick("quick"), Helper("helper")) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("quick", "helper", name="wait", timeout=0.02)
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert error.statuses == {"quick": JobStatus.COMPLETED, "helper": JobStatus.CANCELLED}
    assert error.responses["quick"] == {"quick": True}


async def test_a_body_may_go_on_when_the_job_has_completed() -> None:
    """J8: the timeout was the job's, and nothing of it is left."""
    async with running(Helper("helper")) as runner:
        async with runner.job("helper", name="echo", timeout=0.02) as asked:
            async for _ in asked:
                pass
            await anyio.sleep(0.05)
        assert asked.response["worker"] == "helper"


async def test_an_outer_cancellation_at_the_same_moment_wins() -> None:
    """J8: over a cancelled group."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker), anyio.create_task_group() as group:
        errors: list[BaseException] = []

        async def ask() -> None:
            try:
                async with asker.job("helper", name="wait") as asked:
                    started.append(asked.job_id)
                    await anyio.sleep_forever()
            except BaseException as exc:
                errors.append(exc)
                raise

        started: list[str] = []
        group.start_soon(ask)
        await helper.begun.wait()
        await asker.cancel_job_group(started[0])
        group.cancel_scope.cancel()
    assert isinstance(errors[0], anyio.get_cancelled_exc_class())


async def test_an_outer_deadline_at_the_same_moment_wins() -> None:
    """J8: over the job's own timeout."""
    async with running(Helper("helper")) as runner:
        with anyio.move_on_after(0.02) as scope:
            await runner.job("helper", name="wait", timeout=0.02)
        assert scope.cancelled_caught


async def test_an_outer_cancellation_before_the_context_has_been_left_wins() -> None:
    """J8: the group has failed, and its answers are still waited for."""
    slow, errors = Slow(), list[BaseException]()
    async with running(slow) as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            try:
                await runner.job("slow", name="hold", timeout=0.01)
            except BaseException as exc:
                errors.append(exc)
                raise

        group.start_soon(ask)
        await slow.unwinds.wait()
        group.cancel_scope.cancel()
        with anyio.move_on_after(8, shield=True):
            await anyio.wait_all_tasks_blocked()
        slow.let_go.set()
    assert isinstance(errors[0], anyio.get_cancelled_exc_class())


@pytest.mark.parametrize("native_first", [False, True])
@pytest.mark.parametrize("in_body", [False, True], ids=["waits", "in its body"])
def test_a_native_cancellation_at_the_same_moment_wins(in_body: bool, native_first: bool) -> None:
    """J8: over a cancelled group, whichever of the two came first."""

    async def example() -> None:
        helper, asker = Helper("helper"), Helper("asker")
        async with running(helper, asker):

            async def ask() -> None:
                async with asker.job("helper", name="wait"):
                    if in_body:
                        await anyio.sleep_forever()

            task = asyncio.create_task(ask())
            await helper.begun.wait()
            (job_id,) = asker.job_groups
            if native_first:
                task.cancel()
            await asker.cancel_job_group(job_id)
            if not native_first:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    clock.run(example, backend="asyncio")


@pytest.mark.parametrize("in_body", [False, True], ids=["waits", "in its body"])
def test_a_native_cancellation_before_the_context_has_been_left_wins(in_body: bool) -> None:
    """J8: time was up, and the answers are still waited for."""

    async def example() -> None:
        slow = Slow()
        async with running(slow) as runner:

            async def ask() -> None:
                async with runner.job("slow", name="hold", timeout=0.01):
                    if in_body:
                        await anyio.sleep_forever()

            task = asyncio.create_task(ask())
            await slow.unwinds.wait()
            await anyio.wait_all_tasks_blocked()
            task.cancel()
            slow.let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    clock.run(example, backend="asyncio")


@pytest.mark.parametrize("why", ["error", "timeout", "outer"])
async def test_what_the_body_raises_while_it_is_cancelled_goes_through(why: str) -> None:
    """J8: as the body raised it."""
    error, scope = LookupError("mine"), anyio.CancelScope()
    timeout = 0.01 if why == "timeout" else None

    async def body() -> None:
        if why == "outer":
            scope.cancel()
        if why == "error":
            release.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    async def breaks(worker: Doing, message: BusJobRequestMessage) -> None:
        await release.wait()
        raise ValueError("oh")

    release = anyio.Event()
    async with running(Doing("doing", breaks)) as runner:
        with scope, pytest.raises(LookupError) as caught:
            async with runner.job("doing", name="do", timeout=timeout):
                await body()
        assert caught.value is error


async def test_what_the_tasks_of_a_body_raise_while_they_are_cancelled_goes_through() -> None:
    """J8: in the group of the body's own, without a trace of the cancellation."""

    async def fails() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("mine")

    async with running(Helper("helper")) as runner:
        with pytest.raises(ExceptionGroup) as caught:
            async with runner.job("helper", name="wait", timeout=0.01), anyio.create_task_group() as group:
                group.start_soon(fails)
    assert [type(exc) for exc in caught.value.exceptions] == [LookupError]


async def test_a_body_that_fails_after_the_job_has_completed_raises_its_own_error() -> None:
    """J8: as it is."""
    error = LookupError("mine")
    async with running(Helper("helper")) as runner:
        with pytest.raises(LookupError) as caught:
            async with runner.job("helper", name="echo") as asked:
                await read_and_fail(asked, error)
        assert caught.value is error
        assert asked.response["worker"] == "helper"


async def test_contexts_left_out_of_order_raise_after_the_workers_were_told() -> None:
    """J8: a `RuntimeError`."""
    one, two = Helper("one"), Helper("two")

    async def misuse(runner: WorkerRunner) -> None:
        outer, inner = runner.job("one", name="wait"), runner.job("two", name="wait")
        await outer.__aenter__()
        await inner.__aenter__()
        await one.begun.wait()
        await two.begun.wait()
        error = LookupError("mine")
        try:
            with pytest.raises(RuntimeError):
                await outer.__aexit__(LookupError, error, None)
            assert one.unwound.is_set()
        finally:
            for context in (inner, outer):
                await leave_anyhow(context, error)

    async def leave_anyhow(context: JobContext, error: Exception) -> None:
        try:
            await context.__aexit__(type(error), error, None)
        except (RuntimeError, anyio.get_cancelled_exc_class()):
            pass

    async with running(one, two) as runner:
        await misuse(runner)


async def test_a_cancelled_that_nobody_asked_for_is_an_error() -> None:
    """J8: the worker gave up by itself."""

    async def gives_up(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {"reason": "tired"}, status=JobStatus.CANCELLED)

    async with running(Doing("doing", gives_up)) as runner:
        with pytest.raises(JobError) as caught:
            await runner.job("doing", name="do")
        assert caught.value.statuses == {"doing": JobStatus.CANCELLED}
        assert not isinstance(caught.value, TimeoutError)
        with pytest.raises(JobGroupError):
            await runner.job_group("doing", name="do")


async def test_a_group_that_is_cancelled_cancels_the_body() -> None:
    """J8: and the context raises, with the reason."""

    async def cancel_and_wait(group: JobGroupContext) -> None:
        await asker.cancel_job_group(group.job_id, reason="changed my mind")
        await anyio.sleep_forever()

    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        with pytest.raises(JobGroupError) as caught:
            async with asker.job_group("helper", name="wait") as group:
                await cancel_and_wait(group)
    assert caught.value.reason == "changed my mind"
    assert caught.value.statuses == {"helper": JobStatus.CANCELLED}


async def test_a_requester_that_stops_hears_its_answers() -> None:
    """J5, W6: it waits for its groups, so that their contexts are left with the answer and not after the bound."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker), anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(JobError) as caught:
                await asker.job("helper", name="wait")
            assert caught.value.statuses == {"helper": JobStatus.CANCELLED}

        group.start_soon(ask)
        await helper.begun.wait()
        await asker.stop()


async def test_waiting_for_a_group_without_a_context_raises_as_a_context_does() -> None:
    """J8: `JobGroupError`, with what is known."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        group = await asker.create_job_group_and_request_job(["helper"], name="fail")
        with pytest.raises(JobGroupError) as caught:
            await group.wait()
    assert caught.value.job_id == group.job_id
    assert caught.value.statuses == {"helper": JobStatus.ERROR}


async def test_a_context_can_be_used_once_only() -> None:
    """J8: a second job wants a second context."""
    async with running(Helper("helper")) as runner:
        context = runner.job("helper", name="echo")
        await context
        with pytest.raises(RuntimeError):
            await context


# --- J11: without cancel_on_error


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


# --- J7, J8, J11, J12 and J16 together, against a model


NAMES = ["g0", "g1", "g2"]


SENT = st.lists(
    st.tuples(
        st.sampled_from([*NAMES, "stranger"]),
        st.sampled_from(["update", "urgent update", "data", "stream end", "answer", "urgent answer"]),
        st.sampled_from([JobStatus.COMPLETED, JobStatus.COMPLETED, JobStatus.ERROR]),
    ),
    max_size=25,
)


class Model:
    """What a requester is to make of messages, one after the other."""

    def __init__(self, *, cancel_on_error: bool) -> None:
        self.cancel_on_error = cancel_on_error
        self.failed = False
        self.ignored = 0
        self.statuses: dict[str, JobStatus] = {}
        self.responses: dict[str, dict[str, Any]] = {}
        self.events: list[JobGroupEvent] = []
        self.hooks: list[str] = []

    @property
    def over(self) -> bool:
        return self.failed or len(self.statuses) == len(NAMES)

    def take(self, source: str, what: str, status: JobStatus, data: dict[str, Any]) -> None:
        if source not in NAMES or source in self.statuses:
            self.ignored += 1
            return
        was_over = self.over
        if "answer" in what or what == "stream end":
            self.statuses[source] = JobStatus.COMPLETED if what == "stream end" else status
            self.responses[source] = data
        if was_over:
            return
        if "answer" not in what:
            kind = {"data": "stream_data", "stream end": "stream_end"}.get(what, "update")
            self.events.append(JobGroupEvent(kind, source, data))
        if what != "data":
            self.hooks.append(what.removeprefix("urgent ").replace("answer", "response"))
        self.failed = self.cancel_on_error and self.statuses.get(source) == JobStatus.ERROR
        if self.over:
            self.hooks.append("error" if self.failed else "completed")


def message_of(job_id: str, source: str, what: str, status: JobStatus, data: dict[str, Any]) -> BusMessage:
    match what:
        case "update":
            return BusJobUpdateMessage(job_id, data, source=source, target="asker")
        case "urgent update":
            return BusJobUpdateUrgentMessage(job_id, data, source=source, target="asker")
        case "data":
            return BusJobStreamDataMessage(job_id, data, source=source, target="asker")
        case "stream end":
            return BusJobStreamEndMessage(job_id, data, source=source, target="asker")
        case "answer":
            return BusJobResponseMessage(job_id, status, data, source=source, target="asker")
        case _:
            return BusJobResponseUrgentMessage(job_id, status, data, source=source, target="asker")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=SENT, cancel_on_error=st.booleans())
def test_a_requester_makes_of_messages_what_the_contract_says(
    backend: str, sent: list[tuple[str, str, JobStatus]], cancel_on_error: bool
) -> None:
    """J7, J8, J11, J12, J16: whatever comes from whom, and in which order."""
    model, asker = Model(cancel_on_error=cancel_on_error), Listener("asker")
    messages = [*sent, *((name, "answer", JobStatus.COMPLETED) for name in NAMES)]
    seen: list[JobGroupEvent] = []

    async def ask(runner: WorkerRunner, context: JobGroupContext) -> None:
        async with context as group:
            for number, (source, what, status) in enumerate(messages):
                model.take(source, what, status, {"n": number})
                await runner.bus.send(message_of(group.job_id, source, what, status, {"n": number}))
            async for event in group:
                seen.append(event)  # noqa: PERF401 - what was seen before an error counts

    async def example() -> None:
        async with running(asker) as runner, ghost(runner, *NAMES):
            context = asker.job_group(*NAMES, cancel_on_error=cancel_on_error)
            error: JobGroupError | None = None
            try:
                await ask(runner, context)
            except JobGroupError as exc:
                error = exc
            await asker.until("error" if model.failed else "completed")
            await asker.stop()
        outcome = context if error is None else error
        assert (error is not None) == model.failed
        assert (outcome.statuses, outcome.responses) == (model.statuses, model.responses)
        assert seen == (model.events if error is None else model.events[: len(seen)])
        assert asker.statistics().ignored == model.ignored
        heard = [name for name, _ in asker.heard]
        answers = [name for name in model.hooks if name in ("response", "stream end", "completed", "error")]
        assert sorted(name for name in heard if name != "update") == sorted(answers)
        assert [name for name in heard if name != "update"][-1] == answers[-1]

    clock.run(example, backend=backend)


# --- J15: the short form


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


async def test_a_context_that_is_neither_entered_nor_awaited_asks_nobody() -> None:
    """J15: it is the await that asks."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        asker.job("helper", name="echo")
        await anyio.wait_all_tasks_blocked()
        assert helper.calls == []
        assert asker.job_groups == {}


# --- J16: hooks


async def test_a_group_completes_once_after_every_response() -> None:
    """J16: `on_job_completed` comes last, with all answers."""
    asker = Listener("asker")
    async with running(asker, *(Helper(f"w{n}") for n in range(5))):
        job_id = await asker.request_job_group(*(f"w{n}" for n in range(5)), name="echo")
        result = await asker.until("completed")
        await anyio.wait_all_tasks_blocked()
    assert isinstance(result, JobGroupResponse)
    assert result.job_id == job_id
    assert result.responses.keys() == {f"w{n}" for n in range(5)}
    assert set(result.statuses.values()) == {JobStatus.COMPLETED}
    assert [name for name, _ in asker.heard] == ["response"] * 5 + ["completed"]


@pytest.mark.parametrize("urgent", [(True, False), (False, True), (True, True)])
async def test_urgent_answers_do_not_overtake_the_completion(urgent: tuple[bool, bool]) -> None:
    """J16: whatever the lanes of the answers, and however slow the hooks."""
    asker = Listener("asker")
    asker.gate = anyio.Event()
    async with running(asker) as runner, ghost(runner, "one", "two"):
        job_id = await asker.request_job_group("one", "two")
        for name, is_urgent in zip(("one", "two"), urgent, strict=True):
            kind = BusJobResponseUrgentMessage if is_urgent else BusJobResponseMessage
            await runner.bus.send(kind(job_id, JobStatus.COMPLETED, {}, source=name, target="asker"))
        await anyio.wait_all_tasks_blocked()
        assert asker.heard == []
        asker.gate.set()
        await asker.until("completed")
    assert [name for name, _ in asker.heard] == ["response", "response", "completed"]


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


async def test_a_cancelled_group_never_completes() -> None:
    """J16: even if all its workers answer."""
    asker, helper = Listener("asker"), Helper("helper")
    async with running(asker, helper) as runner:
        raw = await Raw.on(runner.bus)
        job_id = await asker.request_job("helper", name="wait")
        await asker.cancel_job_group(job_id)
        await raw.until(1, BusJobCancelMessage)
        await raw.answer(job_id)
        await anyio.wait_all_tasks_blocked()
        assert "completed" not in [name for name, _ in asker.heard]
        assert asker.job_groups == {}


@pytest.mark.parametrize("in_context", [False, True])
async def test_a_group_that_failed_never_completes_but_has_its_error_told(in_context: bool) -> None:
    """J16: `on_job_error` comes once, behind the responses."""
    asker = Listener("asker")
    async with running(asker, Helper("one"), Helper("two")):
        if in_context:
            with pytest.raises(JobGroupError):
                await asker.job_group("one", "two", name="fail")
        else:
            await asker.request_job_group("one", "two", name="fail")
        await asker.until("error")
        await anyio.wait_all_tasks_blocked()
    names = [name for name, _ in asker.heard]
    assert names[-1] == "error"
    assert set(names[:-1]) == {"response"}


async def test_a_group_without_cancel_on_error_completes_with_its_errors() -> None:
    """J16, J11: and no error is told."""
    asker = Listener("asker")
    async with running(asker, Helper("helper")):
        await asker.request_job_group("helper", name="fail", cancel_on_error=False)
        result = await asker.until("completed")
        assert result.statuses == {"helper": JobStatus.ERROR}
        assert [name for name, _ in asker.heard] == ["response", "completed"]


async def test_a_context_does_not_wait_for_hooks() -> None:
    """J16: it may be left before they have run."""
    asker = Listener("asker")
    asker.gate = anyio.Event()
    async with running(asker, Helper("helper")):
        assert (await asker.job("helper", name="echo"))["worker"] == "helper"
        assert asker.heard == []
        asker.gate.set()
        await asker.until("completed")
    assert [name for name, _ in asker.heard] == ["response", "completed"]


async def test_a_group_of_none_has_its_completion_told() -> None:
    """J16, J12: it completes at once."""
    asker = Listener("asker")
    async with running(asker):
        await asker.request_job_group()
        result = await asker.until("completed")
    assert result.responses == {}


async def test_a_hook_may_ask_for_jobs_while_its_groups_complete() -> None:
    """J16: nothing that a hook awaits holds up the answers."""
    done = anyio.Event()

    class Chain(BaseWorker):
        async def on_job_completed(self, result: JobGroupResponse) -> None:
            self.links: deque[JobGroupResponse]
            self.links.append(result)
            if len(self.links) == 1:
                await self.job("helper", name="echo")
            else:
                done.set()

    chain = Chain("chain")
    chain.links = deque()
    async with running(chain, Helper("helper")):
        await chain.request_job("helper", name="echo")
        await done.wait()
    assert len(chain.links) == 2
