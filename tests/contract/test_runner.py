"""R1-R4, R7: how a run begins and ends, who may be added, what its errors become, and jobs that no worker asks for."""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio import CancelScope, current_time, sleep, sleep_forever
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.leaks import nothing_left
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDataMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    BusSystemMessage,
    JobError,
    JobStatus,
    MemoryBus,
    WorkerErrorData,
    WorkerParams,
    WorkerRunner,
    bus_message,
    job,
)

SOON = 0.3
"""Seconds within which something happens that waits for nothing."""


@bus_message
class Note(BusDataMessage):
    text: str = ""


@bus_message
class Alarm(BusSystemMessage):
    text: str = ""


def quiet_runner(**kwargs: Any) -> WorkerRunner:
    return WorkerRunner(handle_sigint=False, **kwargs)


class Told(Helper):
    """Keeps what reaches its hooks, the final message included; holds a note up until it is let go on."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.told: list[str] = []
        self.finals: list[BusMessage] = []
        self.held = anyio.Event()
        self.let_go = anyio.Event()

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusEndWorkerMessage | BusCancelWorkerMessage):
            self.finals.append(message)
        elif isinstance(message, Note | Alarm):
            self.told.append(message.text)
            if message.text == "hold":
                self.held.set()
                await self.let_go.wait()

    async def tell(self, *texts: str) -> None:
        for text in texts:
            await self.bus.send(Note(text, source="test", target=self.name))

    def reasons(self) -> list[tuple[type[BusMessage], str | None]]:
        return [(type(message), getattr(message, "reason", None)) for message in self.finals]


class Endless(Told):
    """Its `run()` knows no end."""

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await sleep_forever()


class Unstarted(Told):
    """Its `run()` never comes to `start()`."""

    async def run(self, params: WorkerParams) -> None:
        self.held.set()
        await sleep_forever()


class Crashing(BaseWorker):
    """Its `run()` raises when it is told to."""

    def __init__(self, name: str, *, at_once: bool = False) -> None:
        super().__init__(name)
        self.now = anyio.Event()
        self.at_once = at_once

    async def run(self, params: WorkerParams) -> None:
        if not self.at_once:
            await self.start()
            await self.now.wait()
        raise ValueError(self.name)


class FailingStart(BaseWorker):
    async def on_activated(self, args: dict[str, Any] | None) -> None:
        raise ValueError(self.name)


# --- R1: run


async def test_a_run_without_workers_ends_at_once() -> None:
    """R1: `auto_end=True`."""
    begun = current_time()
    await quiet_runner().run()
    assert current_time() - begun < SOON


async def test_a_run_ends_when_every_root_worker_has_finished() -> None:
    """R1."""
    one, two = Helper("one"), Helper("two")
    runner = quiet_runner()
    await runner.add_workers(one, two)
    async with nothing_left(runner), anyio.create_task_group() as group:
        over = anyio.Event()

        async def run() -> None:
            await runner.run()
            over.set()

        group.start_soon(run)
        await runner.registry.wait_for("two")
        await one.stop()
        await anyio.wait_all_tasks_blocked()
        assert not over.is_set()
        await two.stop()
        await over.wait()


async def test_a_run_without_auto_end_goes_on_when_no_worker_is_left() -> None:
    """R1: only `end()` or `cancel()` ends it."""
    helper, runner = Helper("helper"), quiet_runner()
    await runner.add_workers(helper)
    async with anyio.create_task_group() as group:
        over = anyio.Event()

        async def run() -> None:
            await runner.run(auto_end=False)
            over.set()

        group.start_soon(run)
        await runner.registry.wait_for("helper")
        await helper.stop()
        await anyio.wait_all_tasks_blocked()
        assert not over.is_set()
        await runner.add_workers(Helper("another"))
        await runner.registry.wait_for("another")
        await runner.end()
        await over.wait()


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
@pytest.mark.parametrize("with_worker", [True, False])
async def test_what_was_asked_for_before_the_run_ends_it(
    ask: Callable[[WorkerRunner], Awaitable[None]], with_worker: bool
) -> None:
    """R1."""
    runner, told = quiet_runner(), Told("told")
    if with_worker:
        await runner.add_workers(told)
    begun = current_time()
    async with nothing_left(runner):
        await ask(runner)
        await runner.run(auto_end=False)
    assert current_time() - begun < SOON


async def test_a_run_that_was_cancelled_before_it_began_starts_no_worker() -> None:
    """R1, R2: no code of the worker runs, its clean-up and the message about the end apart."""

    class Eager(Told):
        async def run(self, params: WorkerParams) -> None:
            self.told.append("run")
            await super().run(params)

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.told.append("on_activated")

    runner, eager = quiet_runner(), Eager("eager")
    await runner.add_workers(eager)
    await eager.tell("before")
    await runner.cancel()
    await runner.run()
    assert eager.told == []


async def test_a_runner_runs_once() -> None:
    """R1: again, as `run()` and as a context, is a `RuntimeError`."""
    runner = quiet_runner()
    await runner.run()
    with pytest.raises(RuntimeError, match="once"):
        await runner.run()
    with pytest.raises(RuntimeError, match="once"):
        async with runner:
            pytest.fail("it ran again")


async def test_a_second_run_does_not_disturb_the_first() -> None:
    """R1."""
    async with running(Helper("helper")) as runner:
        with pytest.raises(RuntimeError):
            await runner.run()
        assert await runner.job("helper", name="echo")
        with pytest.raises(RuntimeError):
            async with runner:
                pytest.fail("it ran twice")
        assert await runner.job("helper", name="echo")


async def test_a_body_that_is_left_ends_the_run_gracefully() -> None:
    """R1, R2: what was sent before still reaches the hooks."""
    told = Told("told")
    async with running(told):
        await told.tell("one", "two")
    assert told.told == ["one", "two"]
    assert [kind for kind, _ in told.reasons()] == [BusEndWorkerMessage]


async def test_an_exception_of_the_body_cancels_the_run() -> None:
    """R1: hooks that wait do not run any more."""
    told = Told("told")
    with pytest.raises(ValueError, match="body"):  # noqa: PT012 - the block itself raises
        async with running(told):
            await told.tell("hold", "late")
            await told.held.wait()
            raise ValueError("body")
    assert told.told == ["hold"]
    assert [kind for kind, _ in told.reasons()] == [BusCancelWorkerMessage]


async def test_cancel_cancels_the_body_and_ends_silently() -> None:
    """R1."""
    after = False
    async with running(Helper("helper")) as runner:
        await runner.cancel()
        await sleep_forever()
        after = True
    assert not after


async def test_a_cancel_that_a_worker_asks_for_cancels_the_body() -> None:
    """R1, R6."""
    helper = Helper("helper")
    async with running(helper):
        await helper.cancel()
        await sleep_forever()


async def test_a_body_that_was_cancelled_before_it_began_ends_at_its_first_checkpoint() -> None:
    """R1: `cancel()` counts also when it came before."""
    runner = quiet_runner()
    await runner.cancel()
    async with nothing_left(runner), runner:
        await anyio.lowlevel.checkpoint()
        pytest.fail("the body went on")


async def test_an_end_lets_the_body_finish() -> None:
    """R1: the workers have finished meanwhile."""
    told, runner = Told("told"), quiet_runner()
    async with runner:
        await runner.add_workers(told)
        await runner.end()
        await told.wait()
        await sleep(0.1)
        told.told.append("the body")
    assert told.told == ["the body"]


async def test_a_body_goes_on_when_its_workers_have_finished() -> None:
    """R1: a context does not end by itself."""
    async with running(Helper("one")) as runner:
        worker = runner.get_worker("one")
        assert worker is not None
        await worker.stop()
        await runner.add_workers(Helper("two"))
        assert await runner.job("two", name="echo")


async def test_a_body_may_be_left_while_it_is_being_cancelled_with_its_own_error() -> None:
    """R1, L6: the error goes through, as the body raised it."""
    error = ValueError("while cancelled")
    with pytest.raises(ValueError, match="while cancelled") as caught:  # noqa: PT012 - the block itself raises
        async with running(Helper("helper")) as runner:
            await runner.cancel()
            try:
                await sleep_forever()
            finally:
                raise error
    assert caught.value is error


async def test_an_end_before_the_start_of_a_parent_is_no_error() -> None:
    """R1, W5: it counts as any other, whether the child still starts or not."""
    parent, runner = Told("parent"), quiet_runner()
    await parent.add_workers(Told("child"))
    await runner.add_workers(parent)
    await runner.end("early")
    async with nothing_left(runner):
        await runner.run(auto_end=False)
    assert parent.reasons() == [(BusEndWorkerMessage, "early")]


# --- R2: the end


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


async def test_a_second_end_does_not_begin_the_grace_period_again() -> None:
    """R2."""
    endless, runner = Endless("endless"), quiet_runner(grace_period=1.0)

    async def end_twice(_: WorkerRunner) -> None:
        await runner.end("first")
        await sleep(0.8)
        await runner.end("second")

    runner.add_event_handler("on_ready", end_twice)
    await runner.add_workers(endless)
    begun = current_time()
    await runner.run()
    assert 1.0 - SOON < current_time() - begun < 1.0 + SOON
    assert endless.reasons()[0] == (BusEndWorkerMessage, "first")
    assert "second" not in [reason for _, reason in endless.reasons()]


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
        await runner.bus.send(Alarm("late", source="test", target="told"))
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
            await runner.bus.send(Alarm(text, source="test", target="slow"))
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
                    await runner.bus.send((Alarm if system else Note)(text, source="test", target="told"))

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


async def outcome(runner: WorkerRunner, worker: str, name: str, into: list[str], **kwargs: Any) -> None:
    """Ask for a job, and write down how it ended."""
    try:
        await runner.job(worker, name=name, **kwargs)
    except JobError as exc:
        into.append(str(exc.statuses.get(worker)))
    else:
        into.append("completed")


class Working(Told):
    """Works for some seconds."""

    @job(name="work")
    async def work(self, message: BusJobRequestMessage) -> None:
        assert message.payload is not None
        self.begun.set()
        try:
            await sleep(message.payload["seconds"])
        finally:
            self.unwound.set()

    @job(name="defer", deferred=True)
    async def defer(self, message: BusJobRequestMessage) -> None:
        self.calls.append(message.job_id)
        self.begun.set()


async def test_jobs_under_way_are_cancelled_at_once_without_a_job_grace() -> None:
    """R2: the default is 0."""
    working, outcomes = Working("working"), list[str]()
    async with running(working) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome(runner, "working", "work", outcomes, payload={"seconds": 1}))
        await working.begun.wait()
        begun = current_time()
        await runner.end()
        await working.wait()
        assert current_time() - begun < SOON
    assert outcomes == ["cancelled"]


async def test_jobs_under_way_get_their_grace() -> None:
    """R2: a job that is done in time is completed, one that is not is cancelled when the time is over."""
    quick, slow, outcomes = Working("quick"), Working("slow"), list[str]()
    async with running(quick, slow, job_grace=2.0) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome(runner, "quick", "work", outcomes, payload={"seconds": 1}))
        group.start_soon(lambda: outcome(runner, "slow", "work", outcomes, payload={"seconds": 100}))
        await quick.begun.wait()
        await slow.begun.wait()
        begun = current_time()
        await runner.end()
        await quick.wait()
        assert current_time() - begun < 1.0 + SOON
        await slow.wait()
        assert 2.0 - SOON < current_time() - begun < 2.0 + SOON
    assert outcomes == ["completed", "cancelled"]


async def test_a_deferred_job_is_under_way_until_it_is_answered() -> None:
    """R2, J2: it gets its grace, too."""
    working, outcomes = Working("working"), list[str]()
    async with running(working, job_grace=2.0) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome(runner, "working", "defer", outcomes))
        await working.begun.wait()
        await runner.end()
        await sleep(1.0)
        await working.send_job_response(working.calls[0])
        await working.wait()
    assert outcomes == ["completed"]


async def test_no_new_job_is_taken_after_an_end() -> None:
    """R2, W6: what is asked for during the grace of another job is answered at once."""
    working, outcomes = Working("working"), list[str]()
    async with running(working, job_grace=2.0) as runner, anyio.create_task_group() as group:
        group.start_soon(lambda: outcome(runner, "working", "work", outcomes, payload={"seconds": 1}))
        await working.begun.wait()
        await runner.end()
        await anyio.wait_all_tasks_blocked()
        begun = current_time()
        with pytest.raises(JobError) as caught:
            await runner.job("working", name="echo")
        assert current_time() - begun < SOON
        assert caught.value.statuses == {"working": JobStatus.CANCELLED}
    assert outcomes == ["completed"]


async def test_a_cancel_gives_jobs_no_grace() -> None:
    """R2."""
    working, outcomes = Working("working"), list[str]()
    begun = current_time()
    async with anyio.create_task_group() as group, running(working, job_grace=1000.0) as runner:
        group.start_soon(lambda: outcome(runner, "working", "work", outcomes, payload={"seconds": 1000}))
        await working.begun.wait()
        await runner.cancel()
        await sleep_forever()
    assert current_time() - begun < 1.0
    assert outcomes == ["cancelled"]


HANGING = ("run", "hook", "start", "first on_activated")


def hanging(place: str) -> Told:
    """A worker that does not finish by itself."""

    class Activating(Told):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.held.set()
            await sleep_forever()

    kinds: dict[str, type[Told]] = {"run": Endless, "hook": Told, "start": Unstarted, "first on_activated": Activating}
    return kinds[place]("hanging")


async def at_its_place(worker: Told, place: str, runner: WorkerRunner) -> None:
    """Wait until a hanging worker hangs."""
    if place in ("run", "hook"):
        await runner.registry.wait_for("hanging")
    if place == "hook":
        await worker.tell("hold")
    if place != "run":
        await worker.held.wait()


@pytest.mark.parametrize("place", HANGING)
async def test_a_worker_that_has_not_finished_after_the_grace_period_is_cancelled(place: str) -> None:
    """R2: wherever it hangs."""
    worker, runner, begun = hanging(place), quiet_runner(grace_period=1.0), 0.0

    async def end() -> None:
        nonlocal begun
        await at_its_place(worker, place, runner)
        begun = current_time()
        await runner.end()

    await runner.add_workers(worker)
    async with nothing_left(runner), anyio.create_task_group() as group:
        group.start_soon(end)
        await runner.run()
    assert 1.0 - SOON < current_time() - begun < 1.0 + SOON


@pytest.mark.parametrize("place", HANGING)
async def test_a_body_goes_on_when_the_grace_period_is_over(place: str) -> None:
    """R1, R2: an end lets it finish, even where the workers do not end by themselves."""
    worker, runner, finished = hanging(place), quiet_runner(grace_period=1.0), False
    async with runner:
        await runner.add_workers(worker)
        await at_its_place(worker, place, runner)
        await runner.end()
        await worker.wait()
        await sleep(2.0)
        finished = True
    assert finished


@pytest.mark.parametrize("place", HANGING)
async def test_the_grace_period_counts_for_the_end_of_a_single_worker(place: str) -> None:
    """R2: the others go on."""
    worker, runner = hanging(place), quiet_runner(grace_period=1.0)
    async with runner:
        await runner.add_workers(worker, Helper("helper"))
        await runner.registry.wait_for("helper")
        await at_its_place(worker, place, runner)
        begun = current_time()
        await runner.bus.send(BusEndWorkerMessage("enough", source="test", target="hanging"))
        with anyio.move_on_after(10):
            await worker.wait()
        assert 1.0 - SOON < current_time() - begun < 1.0 + SOON
        assert await runner.job("helper", name="echo")


async def test_the_grace_period_is_five_seconds() -> None:
    """R2: by default."""
    endless, runner = Endless("endless"), quiet_runner()
    runner.add_event_handler("on_ready", lambda _: runner.end())
    await runner.add_workers(endless)
    begun = current_time()
    await runner.run()
    assert 5.0 - SOON < current_time() - begun < 5.0 + SOON


async def test_a_child_that_hangs_is_cancelled_after_one_grace_period() -> None:
    """R2, W5: the periods of parent and child do not add up."""
    parent, child, runner = Told("parent"), Endless("child"), quiet_runner(grace_period=1.0)
    await parent.add_workers(child)
    await runner.add_workers(parent)
    begun = 0.0

    async def end() -> None:
        nonlocal begun
        await runner.registry.wait_for("child")
        begun = current_time()
        await runner.end()

    async with nothing_left(runner), anyio.create_task_group() as group:
        group.start_soon(end)
        await runner.run()
    assert 1.0 - SOON < current_time() - begun < 1.0 + SOON


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
    async with running(told) as runner:
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
    async with running(parent, Told("other")) as runner:
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
    runner = quiet_runner()
    await runner.add_workers(root, idle)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: runner.run(auto_end=False))
        await runner.registry.wait_for("grandchild")
        await runner.registry.wait_for("idle")
        await ask(runner, child)
    kind = BusEndWorkerMessage if "end" in ask.__name__.split("_") else BusCancelWorkerMessage
    for told in (root, child, grandchild, idle):
        assert told.reasons() == [(kind, "why")]


async def test_an_end_that_a_worker_asks_for_in_its_own_hook_is_carried_out() -> None:
    """R2: asking does not wait, so a hook or a handler may ask."""

    class Ending(Helper):
        @job(name="end")
        async def end_all(self, message: BusJobRequestMessage) -> None:
            await self.end(reason="from a handler")

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            if self.name == "hook":
                await self.end(reason="from a hook")

    for name in ("hook", "handler"):
        runner = quiet_runner()
        await runner.add_workers(Ending(name))
        if name == "handler":
            runner.add_event_handler("on_ready", lambda r: r.bus.send(
                BusJobRequestMessage("1", "end", source="test", target="handler")
            ))  # fmt: skip
        async with nothing_left(runner):
            await runner.run(auto_end=False)


# --- R3: adding workers


async def test_a_worker_added_while_another_is_starting_is_started_once() -> None:
    """R3."""

    class Counting(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.calls.append("activated")

    class Adding(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await runner.add_workers(added)

    added, runner = Counting("added"), quiet_runner()
    await runner.add_workers(Adding("adding"))
    async with runner:
        await runner.registry.wait_for("added")
        await anyio.wait_all_tasks_blocked()
    assert added.calls == ["activated"]


async def test_adding_the_same_worker_again_is_a_no_op() -> None:
    """R3: before the run, during it, and twice in one call."""

    class Counting(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.calls.append("run")
            await super().run(params)

    worker, runner = Counting("worker"), quiet_runner()
    await runner.add_workers(worker, worker)
    await runner.add_workers(worker)
    async with runner:
        await runner.add_workers(worker)
        await runner.registry.wait_for("worker")
        await runner.add_workers(worker)
        await anyio.wait_all_tasks_blocked()
    assert worker.calls == ["run"]


class SlowToSubscribe(MemoryBus):
    """A bus as a transport may be: subscribing takes a moment."""

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        await sleep(0.01)
        await super().subscribe(subscriber)


@pytest.mark.parametrize("bus", [MemoryBus, SlowToSubscribe])
async def test_a_worker_that_two_tasks_add_at_once_is_started_once(bus: type[MemoryBus]) -> None:
    """R3: on any bus."""

    class Counting(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.calls.append("run")
            await super().run(params)

    worker, runner = Counting("worker"), quiet_runner(bus=bus())
    async with nothing_left(runner), runner:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(runner.add_workers, worker)
        await runner.registry.wait_for("worker")
        assert await runner.job("worker", name="echo")
    assert worker.calls.count("run") == 1


@pytest.mark.parametrize("bus", [MemoryBus, SlowToSubscribe])
async def test_of_two_workers_of_one_name_that_are_added_at_once_one_is_refused(bus: type[MemoryBus]) -> None:
    """R3."""
    refused: list[ValueError] = []

    async def add(worker: BaseWorker) -> None:
        try:
            await runner.add_workers(worker)
        except ValueError as exc:
            refused.append(exc)

    runner = quiet_runner(bus=bus())
    async with nothing_left(runner), runner:
        async with anyio.create_task_group() as group:
            group.start_soon(add, Helper("name"))
            group.start_soon(add, Helper("name"))
        assert len(refused) == 1
        assert await runner.job("name", name="echo")


@pytest.mark.parametrize("when", ["before", "during"])
async def test_another_worker_under_a_taken_name_is_a_value_error(when: str) -> None:
    """R3."""
    runner, helper = quiet_runner(), Helper("taken")
    await runner.add_workers(helper)
    if when == "before":
        with pytest.raises(ValueError, match="taken"):
            await runner.add_workers(Helper("taken"))
    async with runner:
        await runner.registry.wait_for("taken")
        if when == "during":
            with pytest.raises(ValueError, match="taken"):
                await runner.add_workers(Helper("taken"))
        assert runner.get_worker("taken") is helper
        assert await runner.job("taken", name="echo")


@pytest.mark.parametrize("name", ["child", "runner", "plain"])
async def test_no_worker_takes_the_name_of_another_subscriber(name: str) -> None:
    """R3, B5: a child's, the runner's own, or a plain subscriber's."""
    parent = Helper("parent")
    await parent.add_workers(Helper("child"))
    async with running(parent, name="runner") as runner:
        await runner.bus.subscribe(Plain("plain"))
        await runner.registry.wait_for("child")
        with pytest.raises(ValueError, match=name):
            await runner.add_workers(Helper(name))
        with pytest.raises(ValueError, match=name):
            await parent.add_workers(Helper(name))


async def test_one_name_twice_in_a_call_adds_nobody() -> None:
    """R3."""
    runner = quiet_runner()
    with pytest.raises(ValueError, match="name"):
        await runner.add_workers(Helper("other"), Helper("name"), Helper("name"))
    assert runner.get_worker("other") is None
    assert runner.bus.statistics().subscribers == {}


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
async def test_no_worker_is_added_after_the_end(ask: Callable[[WorkerRunner], Awaitable[None]]) -> None:
    """R3: neither while the runner ends nor when it has ended, to it or to a worker of it."""
    told = Told("told")
    async with running(told) as runner:
        await told.tell("hold")
        await told.held.wait()
        with CancelScope(shield=True):
            await ask(runner)
            with pytest.raises(RuntimeError):
                await runner.add_workers(Helper("late"))
            with pytest.raises(RuntimeError):
                await told.add_workers(Helper("late child"))
            told.let_go.set()
    with pytest.raises(RuntimeError):
        await runner.add_workers(Helper("later"))
    assert runner.bus.statistics().subscribers == {}


async def test_no_worker_is_added_when_the_run_has_ended_by_itself() -> None:
    """R3."""
    runner = quiet_runner()
    await runner.run()
    with pytest.raises(RuntimeError):
        await runner.add_workers(Helper("late"))


async def test_a_worker_that_has_run_cannot_run_again() -> None:
    """R3, W6: at this runner or another."""
    helper = Helper("helper")
    async with running(helper) as runner:
        await helper.stop()
        with pytest.raises(RuntimeError):
            await runner.add_workers(helper)
    with pytest.raises(RuntimeError):
        await quiet_runner().add_workers(helper)


async def test_a_worker_of_one_runner_is_refused_by_another() -> None:
    """R3, W1."""
    helper = Helper("helper")
    async with running(helper) as runner:
        with pytest.raises(RuntimeError):
            await quiet_runner().add_workers(helper)
        assert await runner.job("helper", name="echo")


async def test_the_name_of_a_finished_worker_can_be_used_again() -> None:
    """R3, W6."""
    async with running(Helper("name")) as runner:
        for _ in range(3):
            worker = runner.get_worker("name")
            assert worker is not None
            await worker.stop()
            await runner.add_workers(Helper("name"))
            assert await runner.job("name", name="echo")


# --- R4: errors


@pytest.mark.parametrize("kind", [Crashing, FailingStart])
async def test_a_crashed_worker_leaves_the_others_running_and_run_raises_at_the_end(kind: type[BaseWorker]) -> None:
    """R4."""
    failing = kind("failing")
    runner = quiet_runner()
    with pytest.raises(ValueError, match="failing"):  # noqa: PT012 - the block itself raises
        async with runner:
            await runner.add_workers(failing, Helper("helper"))
            if isinstance(failing, Crashing):
                failing.now.set()
            await failing.wait()
            assert await runner.job("helper", name="echo")


async def test_an_on_error_handler_takes_a_crash() -> None:
    """R4, W7: it is told who and what, and `run()` does not raise."""
    seen: list[tuple[WorkerRunner, WorkerErrorData]] = []
    runner = quiet_runner()
    runner.add_event_handler("on_error", lambda who, data: seen.append((who, data)))
    await runner.add_workers(Crashing("failing", at_once=True), FailingStart("start"))
    await runner.run()
    assert {data.worker_name for _, data in seen} == {"failing", "start"}
    assert all(who is runner for who, _ in seen)
    assert all(data.worker_name in data.error for _, data in seen)


async def test_an_async_on_error_handler_takes_a_crash_and_is_waited_for() -> None:
    """R4, N3."""
    seen: list[str] = []

    async def note(_: WorkerRunner, data: WorkerErrorData) -> None:
        await sleep(0.1)
        seen.append(data.worker_name)

    runner = quiet_runner()
    runner.add_event_handler("on_error", note)
    await runner.add_workers(Crashing("failing", at_once=True))
    await runner.run()
    assert seen == ["failing"]


async def test_an_error_of_a_hook_does_not_make_run_raise() -> None:
    """R4: only a failed start or `run()` does."""

    class Clumsy(Told):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                raise ValueError(message.text)

        async def cleanup(self) -> None:
            raise ValueError("cleanup")

    clumsy = Clumsy("clumsy")
    async with running(clumsy) as runner:
        await clumsy.tell("one", "two")
        with pytest.raises(JobError):
            await runner.job("clumsy", name="fail")


async def test_an_error_of_an_on_error_handler_does_not_end_the_run() -> None:
    """R4, B3: the others are still told."""
    seen: list[str] = []

    def fail(_: WorkerRunner, data: WorkerErrorData) -> None:
        raise RuntimeError("handler")

    failing, runner = Crashing("failing"), quiet_runner()
    runner.add_event_handler("on_error", fail)
    runner.add_event_handler("on_error", lambda _, data: seen.append(data.worker_name))
    async with runner:
        await runner.add_workers(failing, Helper("helper"))
        failing.now.set()
        await failing.wait()
        assert await runner.job("helper", name="echo")
    assert seen == ["failing"]


@pytest.mark.parametrize("handled", [True, False])
async def test_a_crash_of_a_child_is_not_lost(handled: bool) -> None:
    """R4: an `on_error` handler is told of it, or `run()` raises."""
    seen: list[str] = []
    parent, child, runner = Helper("parent"), Crashing("child"), quiet_runner()
    if handled:
        runner.add_event_handler("on_error", lambda _, data: seen.append(data.worker_name))
    await parent.add_workers(child)
    try:
        async with runner:
            await runner.add_workers(parent)
            await runner.registry.wait_for("child")
            child.now.set()
            await child.wait()
            assert await runner.job("parent", name="echo")
    except ValueError as exc:
        seen.append(f"raised {exc}")
    assert seen == (["child"] if handled else ["raised child"])


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
async def test_an_error_that_came_before_the_end_is_raised_all_the_same(
    ask: Callable[[WorkerRunner], Awaitable[None]],
) -> None:
    """R4: also after a cancel."""
    failing, runner = Crashing("failing"), quiet_runner()

    async def crash_and_end() -> None:
        await runner.registry.wait_for("failing")
        failing.now.set()
        await failing.wait()
        await ask(runner)

    await runner.add_workers(failing, Helper("helper"))
    async with anyio.create_task_group() as group:
        group.start_soon(crash_and_end)
        with pytest.raises(ValueError, match="failing"):
            await runner.run()


@pytest.mark.parametrize("how", ["end", "stop"])
async def test_a_worker_that_ends_while_its_own_task_awaits_a_job_has_not_failed(how: str) -> None:
    """R4, W6: its tasks are cancelled, as its handlers are; a job that ends with the worker is no crash."""

    class Asking(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            params.task_group.start_soon(self.ask)
            await sleep_forever()

        async def ask(self) -> None:
            self.begun.set()
            await self.job("nobody")

        async def cleanup(self) -> None:
            await sleep(0.1)

    asking, runner = Asking("asking"), quiet_runner(grace_period=0.1)
    async with nothing_left(runner), runner:
        await runner.add_workers(asking)
        await asking.begun.wait()
        await anyio.wait_all_tasks_blocked()
        await (asking.stop() if how == "stop" else runner.end())


async def test_a_worker_whose_run_returns_is_no_error() -> None:
    """R4, R1: it has finished."""

    class Short(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()

    runner = quiet_runner()
    await runner.add_workers(Short("short"))
    async with nothing_left(runner):
        await runner.run()


async def test_on_ready_comes_once_when_the_first_workers_have_started() -> None:
    """N3: the runner's event."""
    seen: list[bool] = []
    one, two, runner = Helper("one"), Helper("two"), quiet_runner()
    runner.add_event_handler(
        "on_ready", lambda r: seen.append(one.started_at is not None and two.started_at is not None)
    )
    await runner.add_workers(one, two)
    async with runner:
        await runner.add_workers(Helper("three"))
        await runner.registry.wait_for("three")
        await anyio.wait_all_tasks_blocked()
    assert seen == [True]


@pytest.mark.parametrize("wrong", [{"job_grace": -1.0}, {"grace_period": -0.1}, {"grace_period": math.nan}])
def test_a_grace_that_is_no_number_of_seconds_is_a_value_error(wrong: dict[str, float]) -> None:
    """R2."""
    with pytest.raises(ValueError, match="seconds"):
        WorkerRunner(handle_sigint=False, **wrong)  # type: ignore[arg-type]  # a float, each of them


# --- R7: jobs for code that is no worker


async def test_a_program_asks_for_a_job() -> None:
    """R7: as a context and in short."""
    async with running(Helper("helper")) as runner:
        assert await runner.job("helper", name="echo", payload={"n": 1}) == {"worker": "helper", "payload": {"n": 1}}
        async with runner.job("helper", name="echo", payload={"n": 2}) as context:
            pass
        assert context.response["payload"] == {"n": 2}


async def test_a_program_asks_for_a_job_group() -> None:
    """R7."""
    async with running(Helper("one"), Helper("two")) as runner:
        async with runner.job_group("one", "two", name="echo") as group:
            pass
        assert set(group.responses) == {"one", "two"}


async def test_a_program_asks_beside_a_run_in_another_task() -> None:
    """R7: it need not be the body of `async with`."""
    runner = quiet_runner()
    await runner.add_workers(Helper("helper"))
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("helper")
        assert await runner.job("helper", name="echo")
        await runner.end()


async def test_many_tasks_of_a_program_ask_at_once() -> None:
    """R7: each gets its own answer."""
    answers: dict[int, Any] = {}

    async def ask(n: int) -> None:
        answers[n] = (await runner.job("helper", name="echo", payload={"n": n}))["payload"]["n"]

    async with running(Helper("helper")) as runner, anyio.create_task_group() as group:
        for n in range(50):
            group.start_soon(ask, n)
    assert answers == {n: n for n in range(50)}


@pytest.mark.parametrize("what", ["job", "job_group"])
async def test_asking_a_runner_that_does_not_run_is_a_runtime_error(what: str) -> None:
    """R7, J14: it says whether it does not run yet, or no more."""
    runner = quiet_runner()
    await runner.add_workers(Helper("helper"))
    with pytest.raises(RuntimeError, match="yet"):
        getattr(runner, what)("helper", name="echo")
    await runner.cancel()
    await runner.run()
    with pytest.raises(RuntimeError, match=r"more|once"):
        getattr(runner, what)("helper", name="echo")


@pytest.mark.parametrize("ask", [WorkerRunner.end, WorkerRunner.cancel])
@pytest.mark.parametrize("worker", ["helper", "nobody"])
async def test_a_program_that_waits_for_a_job_is_told_when_the_run_ends(
    ask: Callable[[WorkerRunner], Awaitable[None]], worker: str
) -> None:
    """R7, J4: also if the worker has never come."""
    failed: list[JobError] = []

    async def wait() -> None:
        try:
            await runner.job(worker, name="wait")
        except JobError as exc:
            failed.append(exc)

    helper, runner = Helper("helper"), quiet_runner()
    await runner.add_workers(helper)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: runner.run(auto_end=False))
        await runner.registry.wait_for("helper")
        group.start_soon(wait)
        if worker == "helper":
            await helper.begun.wait()
        await anyio.wait_all_tasks_blocked()
        begun = current_time()
        await ask(runner)
    assert current_time() - begun < 1.0
    assert len(failed) == 1


async def test_the_job_that_a_body_waits_for_is_cancelled_with_the_body() -> None:
    """R7, R1: no error comes of it."""
    helper = Helper("helper")

    async def cancel() -> None:
        await helper.begun.wait()
        await runner.cancel()

    async with anyio.create_task_group() as group, running(helper) as runner:
        group.start_soon(cancel)
        await runner.job("helper", name="wait")
        pytest.fail("it was answered")
    assert helper.unwound.is_set()


async def test_a_body_that_ends_the_run_while_it_holds_a_job_gets_its_error() -> None:
    """R7, R1: an end lets the body go on."""
    helper = Helper("helper")
    with pytest.raises(JobError) as caught:  # noqa: PT012 - the block itself raises
        async with running(helper) as runner, runner.job("helper", name="wait"):
            await helper.begun.wait()
            await runner.end()
            await sleep_forever()
    assert caught.value.statuses == {"helper": JobStatus.CANCELLED}


async def test_a_job_of_a_program_has_a_timeout() -> None:
    """R7, J8."""
    async with running(Helper("helper")) as runner:
        with pytest.raises(TimeoutError):
            await runner.job("helper", name="wait", timeout=0.05)
        with suppress(TimeoutError):
            await runner.job("nobody", timeout=0.05)
        assert await runner.job("helper", name="echo")
