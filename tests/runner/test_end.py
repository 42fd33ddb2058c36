"""R2: how a run is ended, and what is still handled."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio import CancelScope, current_time, sleep, sleep_forever
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.buses import PoliteBus
from support.endings import HANGING, SOON, Endless, Told, Working, hanging, outcome
from support.leaks import nothing_left
from support.messages import Note, note
from support.remarks import Remark, UrgentRemark
from support.requesters import Listener
from support.runners import cut_short, quiet_runner
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    JobGroupError,
    JobStatus,
    MemoryBus,
    RunCancelled,
    WorkerRunner,
    job,
)
from workerbus.testing import RecordingBus, settle


async def test_an_end_before_the_start_of_a_parent_is_no_error() -> None:
    """R1, W5: it counts as any other, whether the child still starts or not."""
    parent, runner = Told("parent"), quiet_runner()
    await parent.add_workers(Told("child"))
    await runner.add_workers(parent)
    await runner.end("early")
    async with nothing_left(runner):
        await runner.run(auto_end=False)
    assert parent.reasons() == [(BusEndWorkerMessage, "early")]


async def test_end_and_cancel_only_ask() -> None:
    """R2: they return while the worker still runs."""
    told = Told("told")
    async with running(told, grace_period=1000.0) as runner:
        await told.tell("hold")
        await told.held.wait()
        await runner.end()
        assert runner.get_worker("told") is told
        with CancelScope(shield=True):
            await runner.cancel()
            assert runner.get_worker("told") is told


async def test_asking_again_changes_nothing() -> None:
    """R2: both are idempotent, the first reason counts, and an end does not take a cancel back."""
    told = Told("told")
    runner = quiet_runner()
    await runner.add_workers(told)
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("told")
        await runner.cancel("first")
        await runner.cancel("second")
        await runner.end("third")
    await runner.cancel("after")
    await runner.end("after")
    assert told.reasons() == [(BusCancelWorkerMessage, "first")]


async def test_a_body_that_is_left_after_an_end_asks_for_nothing_more() -> None:
    """R1, R2: each worker is told once."""
    bus, told = RecordingBus(), Told("told")

    async def let_go() -> None:
        await settle()
        told.let_go.set()

    async with anyio.create_task_group() as spare, quiet_runner(bus=bus, grace_period=1000.0) as runner:
        await runner.add_workers(told)
        await told.tell("hold")
        await told.held.wait()
        await runner.end("once")
        spare.start_soon(let_go)
    assert [message.reason for message in bus.messages(BusEndWorkerMessage)] == ["once"]


async def test_an_end_runs_the_hooks_of_what_was_queued_before_it_and_starts_no_more() -> None:
    """R2."""
    told = Told("told")
    async with running(told) as runner:
        await told.tell("hold", "one", "two")
        await told.held.wait()
        await runner.end()
        await told.tell("late")
        await anyio.wait_all_tasks_blocked()
        told.let_go.set()
        await told.wait()
    assert told.told == ["hold", "one", "two"]


async def test_no_hook_of_the_system_lane_starts_after_an_end_either() -> None:
    """R2: while the worker still runs what was queued before."""
    told = Told("told")
    async with running(told) as runner:
        await told.tell("hold")
        await told.held.wait()
        await runner.end()
        await runner.bus.send(UrgentRemark("late", source="test", target="told"))
        await anyio.wait_all_tasks_blocked()
        told.let_go.set()
    assert told.told == ["hold"]


async def test_an_end_runs_the_hooks_of_both_lanes() -> None:
    """R2: the system lane's too."""

    class Slow(Told):
        async def on_bus_message(self, message: BusMessage) -> None:
            await super().on_bus_message(message)
            await sleep(0.1)

    slow = Slow("slow")
    async with running(slow) as runner:
        await slow.tell("data 1", "data 2")
        for text in ("system 1", "system 2"):
            await runner.bus.send(UrgentRemark(text, source="test", target="slow"))
        await runner.end()
    assert sorted(slow.told) == ["data 1", "data 2", "system 1", "system 2"]


async def test_an_end_runs_the_activations_that_were_queued_before_it() -> None:
    """R2: hooks are not `on_bus_message` alone."""

    class Activated(Told):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.told.append("activated")

        async def on_deactivated(self) -> None:
            self.told.append("deactivated")

    activated, helper = Activated("activated"), Helper("helper")
    async with running(activated, helper) as runner:
        await activated.tell("hold")
        await activated.held.wait()
        await helper.deactivate_worker("activated")
        await helper.activate_worker("activated")
        await runner.end()
        activated.let_go.set()
    assert activated.told == ["activated", "hold", "deactivated", "activated"]


@given(
    before=st.lists(st.booleans(), max_size=12),
    after=st.lists(st.booleans(), max_size=4),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_sent_before_an_end_is_handled_and_nothing_after(
    backend: str, before: list[bool], after: list[bool]
) -> None:
    """R2: for any mixture of the two lanes, and in the order of each."""

    async def main() -> None:
        told = Told("told")
        async with running(told) as runner:

            async def send(texts: list[tuple[bool, str]]) -> None:
                for system, text in texts:
                    await runner.bus.send((UrgentRemark if system else Remark)(text, source="test", target="told"))

            wanted = [(system, f"{n}") for n, system in enumerate(before)]
            await told.tell("hold")
            await told.held.wait()
            await send(wanted)
            await runner.end()
            await send([(system, f"late {n}") for n, system in enumerate(after) if not system])
            told.let_go.set()
        got = [text for text in told.told if text != "hold"]
        for lane in (True, False):
            sent = [text for system, text in wanted if system is lane]
            assert [text for text in got if text in sent] == sent
        assert len(got) == len(wanted)

    clock.run(main, backend=backend)


@pytest.mark.parametrize("place", [*HANGING, "job", "child"])
async def test_a_cancel_overtakes_a_running_end(place: str) -> None:
    """R2: at once, wherever the end waits, and with its own reason."""
    parent = Told("parent")
    worker: Told = hanging(place) if place in HANGING else Working("working") if place == "job" else Endless("child")
    runner = quiet_runner(grace_period=1000.0, job_grace=1000.0)
    async with nothing_left(runner), anyio.create_task_group() as group:
        if place == "child":
            await parent.add_workers(worker)
        await runner.add_workers(parent if place == "child" else worker)
        group.start_soon(runner.run)
        if place in ("run", "hook", "job", "child"):
            await runner.registry.wait_for(worker.name)
        if place == "job":
            group.start_soon(lambda: outcome(runner, "working", "work", [], payload={"seconds": 1000}))
            await worker.begun.wait()
        if place == "hook":
            await worker.tell("hold")
        if place in ("hook", "start", "first on_activated"):
            await worker.held.wait()
        await runner.end("gently")
        await anyio.wait_all_tasks_blocked()
        await sleep(0.5)
        begun = current_time()
        await runner.cancel("now")
        await worker.wait()
        assert current_time() - begun < SOON
    assert worker.reasons()[-1] == (BusCancelWorkerMessage, "now")


async def test_a_cancel_overtakes_what_is_queued() -> None:
    """R2: messages that were sent before it, and even an end."""
    told = Told("told")
    async with cut_short("now"), running(told) as runner:
        await told.tell("hold", *map(str, range(100)))
        await told.held.wait()
        await runner.bus.send(BusEndMessage("gently", source="test"))
        await runner.bus.send(BusCancelMessage("now", source="test"))
        await sleep_forever()
    assert told.told == ["hold"]
    assert told.reasons()[-1] == (BusCancelWorkerMessage, "now")


async def test_a_cancel_is_over_at_once_where_nothing_holds_it_up() -> None:
    """R2, L4: the bound is for what hangs."""
    begun = current_time()
    parent = Told("parent")
    await parent.add_workers(Told("child"))
    async with cut_short(), running(parent, Told("other")) as runner:
        await runner.registry.wait_for("child")
        await runner.cancel()
        await sleep_forever()
    assert current_time() - begun < 1.0 < CLEANUP_SECONDS


async def ask_runner_end(runner: WorkerRunner, worker: BaseWorker) -> None:
    await runner.end("why")


async def ask_runner_cancel(runner: WorkerRunner, worker: BaseWorker) -> None:
    await runner.cancel("why")


async def ask_worker_end(runner: WorkerRunner, worker: BaseWorker) -> None:
    await worker.end(reason="why")


async def ask_worker_cancel(runner: WorkerRunner, worker: BaseWorker) -> None:
    await worker.cancel(reason="why")


async def send_end(runner: WorkerRunner, worker: BaseWorker) -> None:
    await runner.bus.send(BusEndMessage("why", source="test"))


async def send_cancel(runner: WorkerRunner, worker: BaseWorker) -> None:
    await runner.bus.send(BusCancelMessage("why", source="test"))


@pytest.mark.parametrize(
    "ask", [ask_runner_end, ask_runner_cancel, ask_worker_end, ask_worker_cancel, send_end, send_cancel]
)
async def test_the_reason_reaches_every_worker(ask: Callable[[WorkerRunner, BaseWorker], Awaitable[None]]) -> None:
    """R2: roots, children and inactive ones, once each."""
    root, child, grandchild, idle = Told("root"), Told("child"), Told("grandchild"), Told("idle", active=False)
    await root.add_workers(child)
    await child.add_workers(grandchild)
    bus = RecordingBus()
    runner = quiet_runner(bus=bus)
    await runner.add_workers(root, idle)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: runner.run(auto_end=False))
        await runner.registry.wait_for("grandchild")
        await runner.registry.wait_for("idle")
        await ask(runner, child)
    kind = BusEndWorkerMessage if "end" in ask.__name__.split("_") else BusCancelWorkerMessage
    for told in (root, child, grandchild, idle):
        assert told.reasons() == [(kind, "why")]
    assert {message.source for message in bus.messages(BusEndWorkerMessage, target="root")} <= {runner.name}


async def test_a_run_without_workers_can_be_cancelled() -> None:
    """R1: it ends at once."""
    runner, begun = quiet_runner(), current_time()
    runner.add_event_handler("on_ready", lambda runner: runner.cancel())
    await runner.run(auto_end=False)
    assert current_time() == begun


async def test_those_that_refuse_to_end_are_named_by_a_task_that_says_whose_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L1, L4, R2"""

    class Refusing(Helper):
        async def cleanup(self) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2 * CLEANUP_SECONDS)

    names: set[str | None] = set()
    with anyio.CancelScope() as scope:
        async with running(Refusing("one"), Refusing("other"), name="runner") as runner:
            with anyio.CancelScope(shield=True):
                await runner.end()
                await settle()
                names |= {task.name for task in anyio.get_running_tasks()}
                await runner.cancel()
                await settle()
                names |= {task.name for task in anyio.get_running_tasks()}
            scope.cancel()
    assert {"runner grace period", "runner watch"} <= names
    told = [text for text in caplog.messages if text.startswith("runner")]
    assert told == ["runner 'runner' has waited 2 s and still waits for worker 'one', worker 'other'"]


async def test_of_many_that_refuse_to_end_the_first_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """N8: a line of a log can be read."""

    class Refusing(Helper):
        async def cleanup(self) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2 * CLEANUP_SECONDS)

    with anyio.CancelScope() as scope:
        async with running(*(Refusing(f"w{n}") for n in range(30)), name="runner"):
            scope.cancel()
    [told] = [text for text in caplog.messages if text.startswith("runner")]
    assert told.endswith("waits for worker 'w0', " + "".join(f"worker 'w{n}', " for n in range(1, 10)) + "and 20 more")


async def test_an_end_that_a_worker_asks_for_in_its_own_hook_is_carried_out() -> None:
    """R2: asking does not wait, so a hook or a handler may ask."""

    class Shutdown(Helper):
        @job(name="end")
        async def end_all(self, message: BusJobRequestMessage) -> None:
            await self.end(reason="from a handler")

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            if self.name == "hook":
                await self.end(reason="from a hook")

    for name in ("hook", "handler"):
        runner = quiet_runner()
        await runner.add_workers(Shutdown(name))
        if name == "handler":
            runner.add_event_handler("on_ready", lambda r: r.bus.send(
                BusJobRequestMessage("1", "end", source="test", target="handler")
            ))  # fmt: skip
        async with nothing_left(runner):
            await runner.run(auto_end=False)


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
    with anyio.CancelScope() as scope, suppress(ValueError, RunCancelled):
        async with running(last, name="runner") as runner:
            if how == "error":
                raise ValueError("oh")
            if how == "cancelled":
                scope.cancel()
            else:
                await runner.cancel("enough")
            await anyio.sleep_forever()
    assert last.last == BusCancelWorkerMessage(reason, source="runner", target="last")


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
        assert await runner.job("helper", name="echo") == {"worker": "helper", "payload": {}}


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


async def test_a_cancel_of_the_own_workers_needs_no_network() -> None:
    """R2: it overtakes everything, and must not get lost."""

    class Lossy(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if not isinstance(message, BusCancelWorkerMessage):
                await super().publish(message)

    begin = anyio.current_time()
    async with cut_short(), running(Helper("helper"), bus=Lossy()) as runner:
        await runner.cancel()
        await anyio.sleep_forever()
    assert anyio.current_time() == begin


async def test_the_reason_of_an_end_is_that_of_the_cancel_which_follows_it() -> None:
    """R2: it reaches every worker, those too that are late."""

    class Late(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(1.5)

    bus = RecordingBus()
    runner = WorkerRunner(bus=bus, handle_sigint=False, grace_period=1.0)
    await runner.add_workers(Late("late"))
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("late")
        await runner.end("closing time")
    assert [message.reason for message in bus.messages(BusCancelWorkerMessage, target="late")] == ["closing time"]


async def test_a_runner_that_ends_hears_the_answers_to_its_own_jobs(caplog: pytest.LogCaptureFixture) -> None:
    """J5, R7: those of another runner's workers, too, which take their time."""
    begun, errors = anyio.Event(), list[JobError]()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await ended.wait()
            for _ in range(20):
                await checkpoint()

    async def ask(near: WorkerRunner) -> None:
        try:
            await near.job("far", name="do")
        except JobError as exc:
            errors.append(exc)

    ended = anyio.Event()
    async with (
        MemoryBus() as bus,
        running(Doing("far", unwinds), bus=bus),
        anyio.create_task_group() as tasks,
        running(bus=bus) as near,
    ):
        await near.registry.wait_for("far")
        tasks.start_soon(ask, near)
        await begun.wait()
        await near.end()
        ended.set()
    assert [error.statuses for error in errors] == [{"far": JobStatus.CANCELLED}]
    assert caplog.messages == []


async def test_a_runner_that_ends_hears_the_answers_of_all_whom_it_has_asked() -> None:
    """J5, R7: of those that answer at once, and of those that take their time."""
    begun, ended, statuses = anyio.Event(), anyio.Event(), dict[str, JobStatus]()

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await ended.wait()
            for _ in range(20):
                await checkpoint()

    async def at_once(worker: Doing, message: BusJobRequestMessage) -> None:
        await sleep_forever()

    async def ask(near: WorkerRunner) -> None:
        try:
            async with near.job_group("quick", "far", name="do"):
                pass
        except JobGroupError as exc:
            statuses.update({name: JobStatus(status) for name, status in exc.statuses.items()})

    async with (
        MemoryBus() as bus,
        running(Doing("quick", at_once), Doing("far", unwinds), bus=bus),
        anyio.create_task_group() as tasks,
        running(bus=bus) as near,
    ):
        for name in ("quick", "far"):
            await near.registry.wait_for(name)
        tasks.start_soon(ask, near)
        await begun.wait()
        await near.end()
        ended.set()
    assert statuses == {"quick": JobStatus.CANCELLED, "far": JobStatus.CANCELLED}


async def test_a_runner_that_ends_handles_what_was_sent_before() -> None:
    """B5, L3: the message that it is handling, and those behind it."""
    handled: list[BusMessage] = []

    class Careful(WorkerRunner):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await anyio.sleep(0.5)
                handled.append(message)
            await super().on_bus_message(message)

    async with Careful(handle_sigint=False) as runner:
        for n in range(3):
            await runner.bus.send(note(n))
    assert handled == [note(n) for n in range(3)]
