"""R1: how a run begins, when it ends by itself, and what a runner says of itself."""

import gc
import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import current_time
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.endings import SOON, Told
from support.leaks import nothing_left
from support.runners import quiet_runner
from support.wind_downs import Published
from support.workers import Helper, running
from workerbus import BaseWorker, NotRunningError, WorkerParams, WorkerRunner


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


async def test_a_runner_says_who_it_is_and_how_many_workers_it_has() -> None:
    """What a user reads in a debugger."""
    async with running(Helper(), Helper(), name="runner") as runner:
        assert repr(runner) == "<WorkerRunner 'runner', 2 workers>"


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


@pytest.mark.parametrize("what", ["job_grace", "grace_period"])
def test_a_grace_that_makes_no_sense_is_named(what: str) -> None:
    """R2."""
    kwargs: dict[str, Any] = {what: -1}
    with pytest.raises(ValueError, match=f"^{what} is a number of seconds, not less than 0, not -1$"):
        WorkerRunner(**kwargs)


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


async def test_a_runner_finds_its_workers_by_name() -> None:
    """N4: `get_worker`, of roots and of children; None for a stranger and for one that has finished."""
    parent, child = Helper("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        assert runner.get_worker("parent") is parent
        assert runner.get_worker("child") is child
        assert runner.get_worker("stranger") is None
        await child.stop()
        await eventually(lambda: runner.get_worker("child") is None)


async def test_a_worker_knows_its_runner() -> None:
    """N4: `worker_runner`."""
    parent, child = Helper("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        assert parent.worker_runner is runner
        assert child.worker_runner is runner


def test_a_worker_without_a_runner_says_so() -> None:
    """N4, W1."""
    with pytest.raises(RuntimeError, match="runner"):
        _ = Helper("helper").worker_runner


async def test_the_runner_starts_and_stops_the_bus_that_it_opens() -> None:
    """L5, R6."""
    bus = Published()
    async with running(Helper("helper"), bus=bus):
        assert bus.log == ["start"]
    assert bus.log[-1] == "stop"
    assert bus.log.count("start") == bus.log.count("stop") == 1


def test_a_bus_that_is_none_is_refused() -> None:
    bus: Any = object()
    with pytest.raises(TypeError, match="WorkerBus"):
        WorkerRunner(bus=bus)
