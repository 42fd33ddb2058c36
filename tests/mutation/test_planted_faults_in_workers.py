"""Hooks, inboxes and lives of workers: faults that were planted there had turned no test red."""

from typing import Any

import anyio
import pytest
from anyio import current_time

from support.messages import Note, note
from support.requesters import Raw
from support.workers import Helper, running
from workerbus import (
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobStatus,
    WorkerErrorData,
    WorkerParams,
    WorkerReadyData,
    WorkerRegistry,
    WorkerRunner,
    job,
)
from workerbus.testing import RecordingBus, settle


async def test_a_hook_whose_tasks_fail_is_logged_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """W7, L6: as the one error that it was."""
    told: list[Any] = []

    async def fail() -> None:
        raise ValueError("in a task of the hook")

    class Grouped(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                async with anyio.create_task_group() as group:
                    group.start_soon(fail)

    worker = Grouped("worker")
    async with running(worker) as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await worker.send_bus_message(note(1, "worker"))
        await settle()
        assert worker.statistics().failed_hooks == 1
    assert told == [WorkerErrorData("worker", "on_bus_message: ValueError: in a task of the hook")]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


async def test_a_hook_that_fails_while_it_is_cancelled_is_the_last() -> None:
    """W6: the event handlers of the same hook do not begin any more."""
    begun: list[BusMessage] = []

    async def fail_at_the_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("while it was cancelled")

    class Grouped(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                async with anyio.create_task_group() as group:
                    group.start_soon(fail_at_the_end)

    worker = Grouped("worker")
    worker.add_event_handler("on_bus_message", lambda _, message: begun.append(message))
    async with running(worker):
        await worker.send_bus_message(note(1, "worker"))
        await settle()
        await worker.stop()
    assert [message for message in begun if isinstance(message, Note)] == []


async def test_a_hook_that_is_cancelled_has_unwound_when_the_worker_cleans_up() -> None:
    """W6: nothing else ran, and nothing waited."""
    log: list[str] = []

    class Tidy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(1)
                    log.append("hook")

        async def cleanup(self) -> None:
            log.append("cleanup")

    worker = Tidy("worker")
    async with running(worker):
        await worker.send_bus_message(note(1, "worker"))
        await settle()
        await worker.stop()
    assert log == ["hook", "cleanup"]


# --- inboxes


async def test_an_end_for_another_that_comes_before_the_start_concerns_nobody_else() -> None:
    """R2, B6: not even a worker that hears everything."""

    class Late(Helper):
        receives = "all"

        async def run(self, params: WorkerParams) -> None:
            await anyio.sleep(1)
            await super().run(params)

    late, other = Late("late"), Late("other")
    async with running(other, grace_period=1.0) as runner:
        await runner.add_workers(late)
        await settle()
        await runner.bus.send(BusEndWorkerMessage(source="me", target="other"))
        await other.wait()
        await anyio.sleep(3)
        assert await runner.job("late", name="echo")


class Choosy(Helper):
    """Refuses what ``refuses`` says, and hears everything."""

    receives = "all"

    def __init__(self, name: str, refuses: type[BusMessage] | tuple[type[BusMessage], ...] = ()) -> None:
        super().__init__(name)
        self.refuses = refuses

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return not isinstance(message, self.refuses)


async def test_a_choice_that_fails_is_counted() -> None:
    """N4, B9: the message is handled all the same."""

    class Broken(Helper):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            raise ValueError("cannot choose")

    async with running(Broken("worker")) as runner:
        assert await runner.job("worker", name="echo")
        assert runner.bus.statistics().subscribers["worker"].failed >= 1


async def test_who_refuses_a_request_for_another_answers_nothing() -> None:
    """N4: a refusal concerns the subscriber alone."""
    bus = RecordingBus()
    async with running(Helper("helper"), Choosy("choosy", BusJobRequestMessage), bus=bus) as runner:
        assert await runner.job("helper", name="echo")
        await settle()
    assert [message.source for message in bus.messages(BusJobResponseMessage)] == ["helper"]


# --- lives


async def test_of_two_errors_of_the_first_on_activated_the_first_one_ends_the_worker() -> None:
    """W2, N3: that of the method, before that of the event handler."""

    class Broken(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            raise ValueError("the method")

    def handler(_: Helper, args: dict[str, Any] | None) -> None:
        raise KeyError("the event handler")

    worker = Broken("worker")
    worker.add_event_handler("on_activated", handler)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    with pytest.raises(ValueError, match="the method"):
        await runner.run()


async def test_a_task_whose_job_is_cancelled_by_the_end_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    """W7, R4: the log tells, and the run does not raise."""

    class Insists(Helper):
        async def run(self, params: WorkerParams) -> None:
            params.task_group.start_soon(self.ask)
            await super().run(params)

        async def ask(self) -> None:
            with anyio.CancelScope(shield=True):
                await self.job("other", name="wait")

    insists, other = Insists("insists"), Helper("other")
    async with running(insists, other):
        await other.begun.wait()
        await insists.stop()
    assert "a task of worker 'insists' failed while it ended" in caplog.text


async def test_a_cancel_reaches_the_jobs_of_a_worker_before_its_children_have_finished() -> None:
    """R2, W5"""
    cancelled: list[float] = []

    class Parent(Helper):
        @job(name="cancelled")
        async def note_the_cancel(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(current_time())

    class Child(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(1)

    parent = Parent("parent")
    async with running(parent) as runner:
        await parent.add_workers(Child("child"))
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "parent", "cancelled")
        await parent.begun.wait()
        begin = current_time()
        await runner.cancel()
        await anyio.sleep_forever()
    assert cancelled == [begin]


async def test_a_worker_that_stops_takes_back_what_it_asks_for_before_it_answers() -> None:
    """W6: who hears of its answer finds nobody working for it any more."""

    class Middle(Helper):
        @job(name="delegate", deferred=True)
        async def delegate(self, message: BusJobRequestMessage) -> None:
            await self.request_job("leaf", name="wait")

    bus, middle, leaf = RecordingBus(), Middle("middle"), Helper("leaf")
    async with running(middle, leaf, bus=bus) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "middle", "delegate")
        await leaf.begun.wait()
        await settle()
        await middle.stop()
    ends = (BusJobCancelMessage, BusJobResponseMessage)
    assert [type(message) for message in bus.messages(source="middle") if isinstance(message, ends)] == list(ends)


async def test_an_end_before_the_start_leaves_the_whole_of_its_grace() -> None:
    """R2: that of the jobs, too."""

    class Late(Helper):
        async def run(self, params: WorkerParams) -> None:
            await anyio.sleep(2)
            await super().run(params)

    late = Late("late")
    async with WorkerRunner(handle_sigint=False, grace_period=1.0, job_grace=5.0) as runner:
        await runner.add_workers(late)
        await settle()
        await runner.bus.send(BusEndWorkerMessage(source="me", target="late"))
        await late.wait()
        assert late.started_at is not None


async def test_jobs_have_their_grace_beside_that_of_the_worker() -> None:
    """R2"""
    helper = Helper("helper")
    async with running(helper, grace_period=1.0, job_grace=3.0) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "wait")
        await helper.begun.wait()
        await runner.bus.send(BusEndWorkerMessage(source="me", target="helper"))
        await anyio.sleep(2.5)
        helper.release.set()
        assert await raw.answer("job") == (JobStatus.COMPLETED, {"released": True})


async def test_one_error_that_comes_out_of_a_worker_in_two_ways_is_one() -> None:
    """L6, W7: of a task in its group, and of its run()."""
    error = ValueError("the one")

    async def fail() -> None:
        raise error

    class Broken(Helper):
        async def run(self, params: WorkerParams) -> None:
            params.task_group.start_soon(fail)
            try:
                await super().run(params)
            finally:
                raise error

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(Broken("broken"))
    with pytest.raises(ValueError, match="the one"):
        await runner.run()


async def test_a_name_like_that_of_another_runners_worker_is_near() -> None:
    """J1, G1"""
    registry = WorkerRegistry("here")
    await registry.register(WorkerReadyData("printer", "there"))
    assert registry.near("printr") == "did you mean 'printer'?"
