"""R5: how a run has ended, and what a block that was cut short raises."""

import signal
from collections.abc import Awaitable, Callable
from dataclasses import FrozenInstanceError

import anyio
import pytest
from anyio import sleep, sleep_forever

from support.runners import quiet_runner
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusCancelMessage,
    BusEndMessage,
    MemoryBus,
    RunCancelled,
    RunOutcome,
    WorkerParams,
    WorkerRunner,
)

Way = Callable[[WorkerRunner], Awaitable[None]]


async def end(runner: WorkerRunner) -> None:
    await runner.end("enough")


async def end_by_message(runner: WorkerRunner) -> None:
    await runner.bus.send(BusEndMessage("enough", source="test"))


async def cancel(runner: WorkerRunner) -> None:
    await runner.cancel("enough")


async def cancel_by_message(runner: WorkerRunner) -> None:
    await runner.bus.send(BusCancelMessage("enough", source="test"))


async def end_then_cancel(runner: WorkerRunner) -> None:
    await runner.end("slowly")
    await runner.cancel("enough")


async def nothing(runner: WorkerRunner) -> None:
    for name in runner.known_workers():
        worker = runner.get_worker(name)
        assert worker is not None
        await worker.stop()


WAYS: list[tuple[Way, RunOutcome]] = [
    (end, RunOutcome("ended", "enough", None)),
    (end_by_message, RunOutcome("ended", "enough", None)),
    (cancel, RunOutcome("cancelled", "enough", None)),
    (cancel_by_message, RunOutcome("cancelled", "enough", None)),
    (end_then_cancel, RunOutcome("cancelled", "enough", None)),
    (nothing, RunOutcome("finished", None, None)),
]
NAMES = [way.__name__ for way, _ in WAYS]


@pytest.mark.parametrize(("way", "outcome"), WAYS, ids=NAMES)
async def test_the_outcome_of_a_run_says_how_it_ended_and_why(way: Way, outcome: RunOutcome) -> None:
    """R5"""
    runner = quiet_runner()
    await runner.add_workers(Helper("helper"))
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("helper")
        assert runner.outcome is None
        await way(runner)
    assert runner.outcome == outcome


@pytest.mark.parametrize(("way", "outcome"), WAYS, ids=NAMES)
async def test_a_body_that_finishes_is_not_cut_short_however_the_run_ends(way: Way, outcome: RunOutcome) -> None:
    """R5, R1: what it has asked for comes when it has nothing more to do."""
    async with running(Helper("helper")) as runner:
        await way(runner)
    assert runner.outcome == outcome


@pytest.mark.parametrize("way", [cancel, cancel_by_message, end_then_cancel])
async def test_a_body_that_was_cut_short_raises_and_says_why(way: Way) -> None:
    """R5: it does not look finished."""
    with pytest.raises(RunCancelled) as caught:  # noqa: PT012 - the block itself raises
        async with running(Helper("helper"), name="mine") as runner:
            await way(runner)
            await sleep_forever()
    assert (caught.value.reason, caught.value.runner_name) == ("enough", "mine")
    assert str(caught.value) == "runner 'mine' was cancelled: enough"
    assert caught.value.__cause__ is None
    assert runner.outcome == RunOutcome("cancelled", "enough", None)


async def test_one_that_was_cancelled_without_a_reason_says_no_more() -> None:
    """R5"""
    with pytest.raises(RunCancelled, match=r"^runner 'mine' was cancelled$") as caught:  # noqa: PT012 - the whole block is to raise
        async with quiet_runner(name="mine") as runner:
            await runner.cancel()
            await sleep_forever()
    assert caught.value.reason is None
    assert runner.outcome == RunOutcome("cancelled", None, None)


async def test_a_run_that_an_error_has_ended_has_failed() -> None:
    """R5: of a worker, or of the body."""

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            raise ValueError("oh")

    runner = quiet_runner()
    await runner.add_workers(Failing("failing"))
    with pytest.raises(ValueError, match="oh"):
        await runner.run()
    assert runner.outcome == RunOutcome("failed", "ValueError: oh", None)
    with pytest.raises(KeyError):
        async with running() as runner:
            raise KeyError("key")
    assert runner.outcome == RunOutcome("failed", "KeyError: 'key'", None)


async def test_a_run_that_is_cancelled_from_outside_says_so() -> None:
    """R5, L3"""
    with anyio.CancelScope() as scope:
        async with running() as runner:
            scope.cancel()
            await sleep_forever()
    assert runner.outcome == RunOutcome("cancelled", "the runner was cancelled", None)


async def test_a_run_whose_grace_was_over_has_been_ended() -> None:
    """R5, R2: whatever became of the workers."""

    class Endless(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await sleep_forever()

    async with running(Endless("endless"), grace_period=1) as runner:
        await runner.end("enough")
        await sleep(10)
    assert runner.outcome == RunOutcome("ended", "enough", None)


def test_an_outcome_does_not_change() -> None:
    """R5"""
    outcome = RunOutcome("ended", None, signal.SIGTERM)
    with pytest.raises((AttributeError, FrozenInstanceError)):
        outcome.how = "finished"  # type: ignore[misc]  # it is frozen


async def test_a_run_whose_bus_cannot_be_opened_has_failed() -> None:
    """R5"""

    class Unreachable(MemoryBus):
        async def start(self) -> None:
            raise OSError("nobody there")

    runner = quiet_runner(bus=Unreachable())
    with pytest.raises(OSError, match="nobody there"):
        await runner.run()
    assert runner.outcome == RunOutcome("failed", "OSError: nobody there", None)
    with pytest.raises(RuntimeError, match="a runner runs once"):
        await runner.run()
    assert runner.outcome.reason == "OSError: nobody there"


async def test_a_worker_that_fails_while_a_signal_winds_it_down_is_the_cause_and_not_the_end() -> None:
    """R5: the program still ends as one that was interrupted."""

    class Failing(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            try:
                await sleep_forever()
            finally:
                raise ValueError("on the way out")

    with pytest.raises(KeyboardInterrupt) as caught:  # noqa: PT012 - the block itself raises
        async with WorkerRunner() as runner:
            await runner.add_workers(Failing("failing"))
            await runner.registry.wait_for("failing")
            signal.raise_signal(signal.SIGINT)
            await sleep_forever()
    assert isinstance(caught.value.__cause__, ValueError)
    assert runner.outcome == RunOutcome("failed", "ValueError: on the way out", signal.SIGINT)
