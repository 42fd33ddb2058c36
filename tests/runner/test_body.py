"""R1, L3: the body of a runner."""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
from anyio import CancelScope, current_time, sleep, sleep_forever

from support.endings import Told
from support.leaks import nothing_left
from support.requesters import Raw
from support.runners import cut_short, quiet_runner
from support.wind_downs import Logged
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    MemoryBus,
    NotRunningError,
    RunOutcome,
    WorkerPool,
    WorkerRunner,
)
from workerbus.pipeline import Frame, Pipeline, PipelineWorker


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


async def test_a_cancel_cuts_the_body_short_which_does_not_look_finished() -> None:
    """R1, R5: its code does not go on behind the block."""
    after = False
    async with cut_short(), running(Helper("helper")) as runner:
        await runner.cancel()
        await sleep_forever()
        after = True
    assert not after


async def test_a_cancel_that_a_worker_asks_for_cancels_the_body() -> None:
    """R1, R6."""
    helper = Helper("helper")
    async with cut_short(), running(helper):
        await helper.cancel()
        await sleep_forever()


async def test_a_body_that_was_cancelled_before_it_began_ends_at_its_first_checkpoint() -> None:
    """R1: `cancel()` counts also when it came before."""
    runner = quiet_runner()
    await runner.cancel()
    async with cut_short(), nothing_left(runner), runner:
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


@pytest.mark.parametrize("after_a_signal", [False, True])
async def test_an_error_of_the_body_is_the_reason_and_cuts_nothing_short(after_a_signal: bool) -> None:
    """R2, R5: it reaches every worker; only another interruption opens the shields."""
    cleaned: list[float] = []

    class Careful(BaseWorker):
        final: BusCancelWorkerMessage | None = None

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, BusCancelWorkerMessage):
                self.final = message

        async def cleanup(self) -> None:
            await sleep(1)
            cleaned.append(current_time())

    careful = Careful("careful")
    begin = current_time()
    with pytest.raises(ValueError, match="of the body"):  # noqa: PT012 - raised in the middle of a run
        async with running(careful) as runner:
            if after_a_signal:
                runner.clean_up.interruptible = True
                await runner.cancel("SIGINT")
            raise ValueError("of the body")
    assert careful.final is not None
    assert careful.final.reason == (
        "SIGINT" if after_a_signal else "the runner's body failed: ValueError('of the body')"
    )
    assert cleaned == [begin + 1]


async def test_the_body_of_a_runner_is_cancelled_from_outside() -> None:
    """L3: the context winds down and does not swallow it."""
    log: list[str] = []
    runner = quiet_runner()
    async with nothing_left(runner):
        with CancelScope() as scope:
            async with runner:
                await runner.add_workers(Logged("worker", log))
                await runner.registry.wait_for("worker")
                scope.cancel()
                await sleep_forever()
            log.append("swallowed")
    assert scope.cancelled_caught
    assert log == ["cleanup worker"]


async def test_an_error_of_the_body_is_left_as_it_is() -> None:
    """L6: by the runner, the bus, the job and the job group around it."""
    error = ValueError("body")
    with pytest.raises(ValueError, match="body") as caught:
        async with (
            MemoryBus() as bus,
            running(Helper("helper"), bus=bus) as runner,
            runner.job("helper", name="wait"),
            runner.job_group("helper", name="wait"),
        ):
            raise error
    assert caught.value is error


async def test_an_exception_group_of_the_body_is_left_as_it_is() -> None:
    """L6: it is the program's own, even if it has one member only."""
    error = ExceptionGroup("mine", [ValueError("body")])
    with pytest.raises(ExceptionGroup) as caught:
        async with (
            MemoryBus() as bus,
            running(Helper("helper"), bus=bus) as runner,
            runner.job("helper", name="wait"),
        ):
            raise error
    assert caught.value.message == "mine"
    assert caught.value.exceptions == error.exceptions


async def test_an_error_in_a_task_group_of_the_body_stays_the_programs_own() -> None:
    """L6: the runner adds no group of its own around it, and takes none away."""
    error = ValueError("in a task")

    async def fail() -> None:
        raise error

    with pytest.raises(ExceptionGroup) as caught:
        async with running(Helper("helper")), anyio.create_task_group() as group:
            group.start_soon(fail)
    assert caught.value.exceptions == (error,)


async def test_a_body_that_a_signal_has_cancelled_does_not_cut_the_wind_down_short() -> None:
    """R5: that is left to the next signal."""
    cleaned: list[str] = []

    class Careful(BaseWorker):
        async def cleanup(self) -> None:
            await anyio.sleep(1)
            cleaned.append(self.name)

    async with cut_short("SIGINT"), running(Careful("careful")) as runner:
        runner.clean_up.interruptible = True
        await runner.cancel("SIGINT")
        await anyio.sleep_forever()
    assert cleaned == ["careful"]


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


ASKING: dict[str, Callable[[WorkerRunner], Awaitable[object]]] = {
    "job": lambda runner: runner.job("helper", name="echo"),
    "job group": lambda runner: runner.job_group("helper", name="echo"),
    "job with attempts": lambda runner: runner.job("helper", name="echo", attempts=2),
    "job with a timeout": lambda runner: runner.job("helper", name="echo", timeout=5),
    "workers": lambda runner: runner.add_workers(Helper("late")),
    "workers that start": lambda runner: runner.add_workers(Helper("late"), wait=True),
    "workers that are restarted": lambda runner: runner.supervise(partial(Helper, "late")),
}


@pytest.mark.parametrize("what", ASKING)
async def test_a_body_that_has_not_heard_of_its_cancellation_hears_of_it_before_it_is_refused(what: str) -> None:
    """R5, J14: it was shielded, or waited for a thread, while the run ended. Then it is no error of its own."""
    after = False
    async with cut_short(), running(Helper("helper")) as runner:
        with CancelScope(shield=True):
            await runner.cancel()
            await sleep(1)
        await ASKING[what](runner)
        after = True
    assert not after


LATE: dict[str, Callable[[PipelineWorker, WorkerPool], Awaitable[object]]] = {
    "a frame": lambda pipeline, pool: pipeline.queue_frame(Frame()),
    "a flush": lambda pipeline, pool: pipeline.flush(),
    "a member": lambda pipeline, pool: pool.resize(2),
}


@pytest.mark.parametrize("what", LATE)
async def test_a_body_that_wants_something_of_workers_that_were_cancelled_is_cut_short(what: str) -> None:
    """R5: it has not heard of its cancellation either."""
    pipeline, pool = PipelineWorker(Pipeline([])), WorkerPool("pool", Helper, size=1)
    runner = quiet_runner()
    async with cut_short("enough"), runner:
        await runner.add_workers(pipeline, pool, wait=True)
        with CancelScope(shield=True):
            await runner.cancel("enough")
            await sleep(1)
        await LATE[what](pipeline, pool)
    assert runner.outcome == RunOutcome("cancelled", "enough", None)


async def test_a_body_in_which_a_job_is_entered_after_its_cancellation_is_cut_short() -> None:
    """R5, J14: the same with a block."""
    async with cut_short(), running(Helper("helper")) as runner:
        with CancelScope(shield=True):
            await runner.cancel()
            await sleep(1)
        async with runner.job("helper", name="echo"):
            pytest.fail("there is nobody to ask")


async def test_a_body_that_asks_after_the_end_is_refused() -> None:
    """J14: nothing has cancelled it, so it is its own mistake."""
    async with running(Helper("helper")) as runner:
        await runner.end()
        await sleep(1)
        with pytest.raises(NotRunningError, match="is not running any more"):
            runner.job("helper", name="echo")


async def test_a_job_of_a_runner_that_has_not_begun_is_refused_at_once_also_in_a_cancelled_scope() -> None:
    """J14: no cancellation is the reason."""
    with CancelScope() as scope:
        scope.cancel()
        with pytest.raises(NotRunningError, match="is not running yet"):
            await quiet_runner().job("helper", name="echo")
