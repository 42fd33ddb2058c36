"""Jobs, groups and lanes, once more: faults that were planted there had turned no test red."""

from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from anyio import CancelScope, current_time, sleep

from support.buses import PoliteBus
from support.job_handlers import at_once, never, too_slow_to_leave
from support.messages import note
from support.requesters import Listener, Raw
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobGroupError,
    JobStatus,
    MemoryBus,
    WorkerRunner,
    job,
)
from workerbus.testing import settle


class Limited(BaseWorker):
    """One deferred job at a time, which is left open."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun: list[str] = []

    @job(name="one", deferred=True, limit=1)
    async def one(self, message: BusJobRequestMessage) -> None:
        self.begun.append(message.job_id)


# --- who answers


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


async def test_a_request_whose_cancel_was_early_is_not_run_when_it_comes_again() -> None:
    """J9, J12: it has been answered."""
    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    raw = await Raw.on(runner.bus)
    for _ in range(2):
        await raw.ask("job", "worker", "echo")
    await raw.cancel("job", "worker")
    async with runner:
        await raw.answer("job")
        await raw.settle()
    assert worker.calls == []
    assert [status for status, _ in raw.answers("job")] == [JobStatus.CANCELLED]


async def test_an_early_cancel_is_kept_no_longer_than_what_waited_with_it() -> None:
    """J9: a request of that id that comes behind it is another."""
    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    raw = await Raw.on(runner.bus)
    await runner.bus.send(note(1, "worker"))
    await raw.cancel("job", "worker")
    await raw.ask("job", "worker", "echo")
    async with runner:
        assert (await raw.answer("job"))[0] is JobStatus.COMPLETED


async def test_a_request_that_was_not_accepted_is_answered_once() -> None:
    """J12, N4: though it comes twice."""

    class Choosy(Helper):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return not isinstance(message, BusJobRequestMessage)

    async with running(Choosy("worker")) as runner:
        raw = await Raw.on(runner.bus)
        for _ in range(2):
            await raw.ask("job", "worker", "echo")
        await raw.answer("job")
        await raw.settle()
        await settle()
        assert [status for status, _ in raw.answers("job")] == [JobStatus.FAILED]


@pytest.mark.parametrize("ends", ["cancel", "stop"])
async def test_a_job_that_is_ended_when_its_time_is_up_has_timed_out(ends: str) -> None:
    """J6: whoever sees it first, also where the handler has not noticed yet."""
    listener = Listener("listener")
    async with running(listener) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "listener", "wait", seconds_left=3.0)
        await listener.begun.wait()
        with anyio.CancelScope() as scope:
            scope.deadline = current_time() + 3.0
            await anyio.sleep_forever()
        if ends == "cancel":
            await raw.cancel("job", "listener", "no more")
        else:
            await listener.stop()
        assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"})


async def test_who_waits_for_a_turn_when_time_is_up_is_told_at_once() -> None:
    """J6, J13: and who refuses to leave, too."""
    told: list[tuple[str, float]] = []

    class Slow(BaseWorker):
        @job(name="one", limit=1)
        async def one(self, message: BusJobRequestMessage) -> None:
            with CancelScope(shield=True):
                await sleep(4)

        async def on_job_cancelled(self, message: Any) -> None:
            told.append((message.job_id, current_time() - begin))

    begin = current_time()
    async with running(Slow("slow")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("runs", "slow", "one", seconds_left=3.0)
        await raw.ask("waits", "slow", "one", seconds_left=2.0)
        await raw.answer("runs")
    assert told == [("waits", 2.0), ("runs", 3.0)]


async def test_an_answer_after_the_time_is_refused_though_the_handler_has_not_been_cancelled_yet() -> None:
    """J6, J14"""
    refused: list[BaseException] = []

    async def late(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            with CancelScope(shield=True):
                await sleep(3)
        finally:
            try:
                await worker.send_job_update(message.job_id, {"n": 1})
                await worker.send_job_response(message.job_id, {"n": 2})
            except RuntimeError as exc:
                refused.append(exc)

    async with running(Doing("doing", late)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do", seconds_left=3.0)
        status, _ = await raw.answer("job")
        assert status is JobStatus.CANCELLED


async def test_all_variables_that_a_handler_has_changed_are_put_back() -> None:
    """W8: what it sets ends with it."""
    variables = [ContextVar(f"variable {n}", default="nobody's") for n in range(3)]
    seen: list[list[str]] = []

    class Careless(Helper):
        async def start(self) -> None:
            for variable in variables:
                variable.set("the worker's")
            await super().start()

        @job(name="set")
        async def set_all(self, message: BusJobRequestMessage) -> None:
            seen.append([variable.get() for variable in variables])
            for variable in variables:
                variable.set("a handler's")

    async with running(Careless("careless")) as runner:
        for _ in range(3):
            await runner.job("careless", name="set")
    assert seen == [["the worker's"] * 3] * 3


# --- who asks


class Watched(PoliteBus):
    """Keeps the requests that it publishes."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[BusJobRequestMessage] = []

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage):
            self.requests.append(message)
        await super().publish(message)


async def test_the_time_of_an_enclosing_scope_travels_with_each_request_of_a_group() -> None:
    """J6: over a bus that takes its time, too."""
    bus = Watched()
    async with running(Doing("a", never), Doing("b", never), bus=bus) as runner:
        with anyio.move_on_after(3):
            await runner.job_group("a", "b", name="do")
    assert [request.seconds_left for request in bus.requests] == [3.0, 3.0]


async def test_a_group_that_has_failed_waits_for_nobody_longer_than_the_bound() -> None:
    """J5, L4: though one refuses to leave."""

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await settle()
        raise ValueError("it went wrong")

    async with running(Doing("fails", fail), Doing("stays", too_slow_to_leave)) as runner:
        begin = current_time()
        with pytest.raises(JobGroupError):
            async with runner.job_group("fails", "stays", name="do"):
                pass
        assert current_time() == begin + CLEANUP_SECONDS


async def test_answers_that_come_while_a_failed_group_is_left_are_in_its_error() -> None:
    """J5, J8: without a body, too."""

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await settle()
        raise ValueError("it went wrong")

    async with running(Doing("fails", fail), Doing("other", never)) as runner:
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("fails", "other", name="do")
    assert caught.value.statuses == {"fails": JobStatus.ERROR, "other": JobStatus.CANCELLED}


async def test_a_cancellation_that_comes_while_a_failed_job_is_left_wins() -> None:
    """J8: without a body, too."""

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await sleep(0.1)
        raise ValueError("it went wrong")

    async def leave_slowly(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(1)

    async with running(Doing("fails", fail), Doing("slow", leave_slowly)) as runner:
        with anyio.move_on_after(0.5) as scope:
            await runner.job_group("fails", "slow", name="do")
        assert scope.cancelled_caught


async def test_errors_that_leave_one_job_after_the_other_share_one_deadline() -> None:
    """L4: jobs that are awaited, too."""

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await settle()
        raise ValueError("it went wrong")

    workers = Doing("fails", fail), Doing("stays", too_slow_to_leave), Doing("stays too", too_slow_to_leave)
    async with running(*workers) as runner:
        begin = current_time()
        with pytest.raises(JobGroupError):
            async with runner.job("stays too", name="do"):
                await runner.job_group("fails", "stays", name="do")
        assert current_time() == begin + CLEANUP_SECONDS


async def test_a_second_answer_is_ignored_and_counted() -> None:
    """J7, J12"""
    asking = Listener("asking")
    async with running(asking, Doing("once", at_once), Doing("waits", never)) as runner:
        job_id = await asking.request_job_group("once", "waits", name="do")
        await asking.until("response")
        before = asking.statistics().ignored
        await runner.bus.send(BusJobResponseMessage(job_id, JobStatus.ERROR, {}, source="once", target="asking"))
        await settle()
        assert asking.statistics().ignored == before + 1


async def test_a_subscriber_that_keeps_a_bus_from_closing_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """L4: whichever it is."""

    async def refuse(message: BusMessage) -> None:
        with CancelScope(shield=True):
            await sleep(CLEANUP_SECONDS + 1)

    async with MemoryBus() as bus:
        for name in ("first", "second", "third"):
            await bus.subscribe(Plain(name, on=refuse if name == "second" else None))
        await bus.send(note(1))
        await settle()
    assert [each.split("cancellation: ")[1] for each in caplog.messages if "refuse cancellation" in each] == [
        "'second'"
    ]


async def test_a_worker_that_departs_is_waited_for_no_longer_by_a_group_that_is_over() -> None:
    """J4, J5: its answer was lost."""

    class Lossy(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if not (isinstance(message, BusJobResponseMessage) and message.source == "lost"):
                await super().publish(message)

    async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
        await settle()
        raise ValueError("it went wrong")

    async def stop_later() -> None:
        await sleep(1)
        await lost.stop()

    lost = Doing("lost", never)
    async with running(Doing("fails", fail), lost, bus=Lossy()) as runner, anyio.create_task_group() as group:
        begin = current_time()
        group.start_soon(stop_later)
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group("fails", "lost", name="do"):
                pass
        assert current_time() == begin + 1
    assert caught.value.statuses == {"fails": JobStatus.ERROR, "lost": JobStatus.ERROR}
