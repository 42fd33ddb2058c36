"""What a runner says and does at the edges, where no other test looks closely."""

import gc
import signal
from contextlib import nullcontext, suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.requesters import Listener, Raw
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusEndMessage,
    BusMessage,
    BusWorkerReadyMessage,
    JobError,
    MemoryBus,
    NotRunningError,
    PipelineRunner,
    WorkerErrorData,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
)


async def test_a_runner_says_who_it_is_and_how_many_workers_it_has() -> None:
    """What a user reads in a debugger."""
    async with running(Helper(), Helper(), name="runner") as runner:
        assert repr(runner) == "<WorkerRunner 'runner', 2 workers>"


def test_the_deprecated_name_says_what_to_use() -> None:
    """N1."""
    with pytest.warns(DeprecationWarning, match=r"^PipelineRunner is deprecated: use WorkerRunner$"):
        runner = PipelineRunner(name="runner")
    assert runner.name == "runner"


async def test_a_name_that_another_runner_claims_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """G4: both say who claims what, and who has seen it."""
    told: list[WorkerErrorData] = []
    async with running(Helper("helper"), name="here") as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", None, True, False, 0.0, source="helper"))
        await anyio.wait_all_tasks_blocked()
    text = "runner 'elsewhere' has a worker 'helper' too: names are unique on a bus"
    assert told == [WorkerErrorData("helper", text)]
    assert f"{text} (seen by runner 'here')" in caplog.messages


async def test_all_roots_are_told_to_stop_when_they_are_done() -> None:
    """N1: `stop_when_done`, of the runner, is that of each root worker."""
    told: list[str] = []

    class Telling(Helper):
        async def stop_when_done(self) -> None:
            told.append(self.name)
            await super().stop_when_done()

    async with running(Telling("one"), Telling("two")) as runner:
        child = Telling("child")
        worker = runner.get_worker("one")
        assert worker is not None
        await worker.add_workers(child)
        await runner.stop_when_done()
    assert told == ["one", "two"]


async def test_on_ready_comes_when_all_have_started() -> None:
    """N3: also those whose `run` takes its time."""

    class Slow(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            for _ in range(20):
                await checkpoint()
            await super().run(params)

    workers, told = [Slow("one"), Helper("two"), Slow("three")], anyio.Event()

    def ready(_: WorkerRunner) -> None:
        assert all(worker.started_at is not None for worker in workers)
        told.set()

    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_ready", ready)
    await runner.add_workers(*workers)
    async with runner:
        await told.wait()


async def test_a_failing_event_handler_is_named_in_the_log_and_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """N3, W7: the event, the runner, and the traceback."""
    told = anyio.Event()

    def fail(_: WorkerRunner) -> None:
        raise ValueError("oh")

    runner = WorkerRunner(name="runner", handle_sigint=False)
    runner.add_event_handler("on_ready", fail)
    runner.add_event_handler("on_ready", lambda _: told.set())
    async with runner:
        await told.wait()
    [record] = caplog.records
    assert record.getMessage() == "a handler of on_ready of runner 'runner' failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


class Last(Helper):
    """Keeps the message by which it was cancelled."""

    last: BusMessage | None = None

    async def on_bus_message(self, message: BusMessage) -> None:
        self.last = message


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("error", "the runner's body failed: ValueError('oh')"),
        ("cancelled", "the runner was cancelled"),
        ("asked", "enough"),
    ],
)
async def test_the_workers_are_told_why_they_are_cancelled(how: str, reason: str) -> None:
    """R2, R1: the reason reaches every worker."""
    last = Last("last")
    with anyio.CancelScope() as scope, suppress(ValueError):
        async with running(last, name="runner") as runner:
            if how == "error":
                raise ValueError("oh")
            if how == "cancelled":
                scope.cancel()
            else:
                await runner.cancel("enough")
            await anyio.sleep_forever()
    assert last.last == BusCancelWorkerMessage(reason, source="runner", target="last")


async def test_a_runner_that_does_not_run_says_when_it_did_or_will() -> None:
    """J14, R7."""
    runner = WorkerRunner(name="runner", handle_sigint=False)
    with pytest.raises(NotRunningError) as caught:
        runner.job("helper")
    assert str(caught.value) == "runner 'runner' is not running yet: enter it with 'async with', or await run()"
    done = anyio.Event()

    async def work() -> None:
        done.set()

    async with runner:
        runner.tasks.start(work, name="work")
        await done.wait()
    with pytest.raises(NotRunningError) as caught:
        runner.job_group("helper")
    assert str(caught.value) == "runner 'runner' is not running any more: a runner runs once"


@pytest.mark.parametrize("kind", [BusEndMessage, BusCancelMessage])
async def test_a_runner_ends_for_nobody_else(kind: type[BusEndMessage | BusCancelMessage]) -> None:
    """R6: a message that names another runner is not for this one, however it got here."""

    class Everything(WorkerRunner):
        receives = "all"

    async with Everything(name="here", handle_sigint=False) as runner:
        await runner.add_workers(Helper("helper"))
        await runner.on_bus_message(kind("enough", source="me", target="there"))
        await anyio.wait_all_tasks_blocked()
        assert not runner.is_ending
        assert await runner.job("helper", name="echo") == {"worker": "helper", "payload": None}


# --- what it is made with


@pytest.mark.parametrize("what", ["job_grace", "grace_period"])
def test_a_grace_that_makes_no_sense_is_named(what: str) -> None:
    """R2."""
    kwargs: dict[str, Any] = {what: -1}
    with pytest.raises(ValueError, match=f"^{what} is a number of seconds, not less than 0, not -1$"):
        WorkerRunner(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "handled"),
    [
        ({}, [signal.SIGINT]),
        ({"handle_sigint": False}, []),
        ({"handle_sigint": False, "handle_sigterm": True}, [signal.SIGTERM]),
        ({"handle_sigterm": True}, [signal.SIGINT, signal.SIGTERM]),
    ],
)
async def test_a_runner_handles_the_signals_that_it_is_to_handle(
    kwargs: dict[str, Any], handled: list[signal.Signals]
) -> None:
    """R5: SIGINT by default, SIGTERM if asked; the earlier handlers are back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with WorkerRunner(**kwargs) as runner:
        assert [number for number, handler in before.items() if signal.getsignal(number) is not handler] == handled
        assert runner.signal is None
    assert {number: signal.getsignal(number) for number in before} == before
    assert runner.signal is None


@pytest.mark.parametrize("kwargs", [{}, {"force_gc": False}, {"force_gc": True}])
async def test_garbage_is_collected_after_the_run_if_that_is_wished(
    kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """N1: `force_gc`."""
    collected: list[bool] = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(True))
    async with WorkerRunner(handle_sigint=False, **kwargs):
        assert collected == []
    assert collected == ([True] if kwargs.get("force_gc") else [])


async def test_the_event_handlers_of_a_runner_run_in_a_task_that_says_so() -> None:
    """L1."""
    names: list[str | None] = []
    told = anyio.Event()

    def ready(_: WorkerRunner) -> None:
        names.append(anyio.get_current_task().name)
        told.set()

    runner = WorkerRunner(name="runner", handle_sigint=False)
    runner.add_event_handler("on_ready", ready)
    async with runner:
        await told.wait()
    assert names == ["runner events dispatcher"]


async def test_a_runner_that_ends_tells_why_it_wants_no_more_jobs() -> None:
    """J5, R7: a worker of another runner is told that the one who asked has ended."""
    helper = Listener("helper")
    async with MemoryBus() as bus, running(helper, bus=bus):
        runner = WorkerRunner(bus=bus, handle_sigint=False)

        async def ask() -> None:
            with suppress(JobError):
                await runner.job("helper", name="wait")

        async with anyio.create_task_group() as tasks:
            async with runner:
                await runner.registry.wait_for("helper")
                tasks.start_soon(ask)
                await helper.begun.wait()
            message = await helper.until("cancelled")
    assert message.reason == "the runner ended"


# --- workers, and who is told of them


async def test_a_root_worker_is_told_of_the_other_roots_and_of_nobody_else() -> None:
    """N3, W5: not of itself, of others' children, or of what another runner has."""
    told: list[str] = []

    class Curious(Helper):
        async def on_worker_ready(self, data: WorkerReadyData) -> None:
            told.append(f"{self.name} of {data.worker_name}")

    async with running(Helper("one"), name="here") as runner:
        one = runner.get_worker("one")
        assert one is not None
        await one.add_workers(Helper("child"))
        await runner.registry.register(WorkerReadyData("remote", "there"))
        await runner.registry.wait_for("child")
        await runner.add_workers(Curious("late"))
        await anyio.wait_all_tasks_blocked()
        assert told == ["late of one"]
        await runner.add_workers(Curious("later"))
        await one.add_workers(Helper("another child"))
        await runner.registry.register(WorkerReadyData("another remote", "there"))
        await anyio.wait_all_tasks_blocked()
    assert sorted(told) == ["late of later", "late of one", "later of late", "later of one"]


async def test_the_tasks_of_a_runner_say_what_they_are_for() -> None:
    """L1: and none waits for a start of which nobody wants to hear."""
    go = anyio.Event()

    class Slow(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await go.wait()
            await super().run(params)

    for handled in (False, True):
        go = anyio.Event()
        runner = WorkerRunner(name="runner", handle_sigint=False)
        if handled:
            runner.add_event_handler("on_ready", lambda _: None)
        await runner.add_workers(Slow("slow"))
        async with runner:
            await anyio.wait_all_tasks_blocked()
            names = {task.name for task in anyio.get_running_tasks()}
            assert {"runner runner", "worker slow"} <= names
            assert ("runner ready" in names) is handled
            go.set()


async def test_several_workers_that_failed_are_raised_together() -> None:
    """R4, L6."""

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            raise ValueError(self.name)

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(Failing("one"), Failing("two"))
    with pytest.raises(ExceptionGroup) as caught:
        await runner.run()
    assert caught.value.message == "several workers failed"
    assert sorted(str(error) for error in caught.value.exceptions) == ["one", "two"]


async def test_an_event_handler_that_refuses_to_end_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """L4."""
    begun = anyio.Event()

    async def refuse(_: WorkerRunner) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(CLEANUP_SECONDS + 1)

    runner = WorkerRunner(name="runner", handle_sigint=False)
    runner.add_event_handler("on_ready", refuse)
    async with runner:
        await begun.wait()
    assert "runner 'runner' waits for an event handler that refuses cancellation" in caplog.messages


async def test_a_cancelled_run_does_not_return() -> None:
    """L3: the cancellation goes on from where the program waits."""
    after: list[str] = []
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(Helper("helper"))
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await runner.run()
                after.append("went on")

        tasks.start_soon(run)
        await runner.registry.wait_for("helper")
        scope.cancel()
    assert scope.cancelled_caught
    assert after == []


@pytest.mark.parametrize("handled", [False, True])
async def test_the_failure_of_a_child_is_its_parents_business_if_that_wants_it(handled: bool) -> None:
    """R4, W7: otherwise it is the runner's."""
    told: list[str] = []

    class Parent(Helper):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            told.append(data.error)

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            raise ValueError("oh")

    parent, runner = (Parent if handled else Helper)("parent"), WorkerRunner(handle_sigint=False)
    await runner.add_workers(parent)
    raised = nullcontext() if handled else pytest.raises(ValueError, match="oh")
    with raised:
        async with runner:
            await runner.registry.wait_for("parent")
            child = Failing("child")
            await parent.add_workers(child)
            await child.wait()
            await anyio.wait_all_tasks_blocked()
    assert told == (["ValueError: oh"] if handled else [])


async def test_a_block_that_is_cancelled_while_it_is_being_left_goes_no_further() -> None:
    """L3, R1: its workers still had their grace."""
    after: list[str] = []
    helper = Helper("helper")
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                async with WorkerRunner(handle_sigint=False, job_grace=100) as runner:
                    await runner.add_workers(helper)
                    raw = await Raw.on(runner.bus)
                    await raw.ask("job", "helper", "wait")
                    await helper.begun.wait()
                after.append("went on")

        tasks.start_soon(run)
        await helper.begun.wait()
        await anyio.wait_all_tasks_blocked()
        assert not helper.unwound.is_set()
        scope.cancel()
    assert scope.cancelled_caught
    assert helper.unwound.is_set()
    assert after == []
