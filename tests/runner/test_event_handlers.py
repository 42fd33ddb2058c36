"""N3, R4: event handlers of a runner."""

import asyncio
import logging
from typing import Any

import anyio
import pytest
from anyio import sleep, sleep_forever
from anyio.lowlevel import cancel_shielded_checkpoint

from support.conditions import eventually
from support.endings import Crashing, FailingStart
from support.leaks import nothing_left
from support.runners import cut_short, quiet_runner
from support.wind_downs import named, refuse
from support.workers import Helper, running
from workerbus import CLEANUP_SECONDS, WorkerErrorData, WorkerRunner, testing


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


async def test_a_runners_handler_that_raises_is_logged_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """N3, W7: an exception of a handler harms nobody."""
    told: list[WorkerErrorData] = []

    def bad(*_: object) -> None:
        raise ZeroDivisionError("it broke")

    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_error", bad)
    runner.add_event_handler("on_error", lambda _, data: told.append(data))
    await runner.add_workers(worker)
    async with runner:
        await eventually(lambda: worker.started_at)
        await worker.send_bus_error_message("first")
        await worker.send_bus_error_message("second")
        await eventually(lambda: len(told) == 2)
    assert [data.error for data in told] == ["first", "second"]
    errors = [record.exc_info and record.exc_info[0] for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [ZeroDivisionError] * 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_in_a_runners_handler_harms_nobody() -> None:
    """N3, W7: on asyncio, awaiting a task that somebody else has cancelled raises `CancelledError` in the handler."""
    told: list[str] = []

    async def stale(_: WorkerRunner, data: WorkerErrorData) -> None:
        told.append(data.error)
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_error", stale)
    await runner.add_workers(worker)
    async with runner:
        await eventually(lambda: worker.started_at)
        await worker.send_bus_error_message("first")
        await worker.send_bus_error_message("second")
        await eventually(lambda: len(told) == 2)
    assert told == ["first", "second"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
async def test_on_ready_comes_when_the_first_workers_have_started(order: tuple[int, int, int]) -> None:
    """After all of them, whichever is the slowest; a handler may add workers."""
    started: list[bool] = []
    runner = WorkerRunner(handle_sigint=False)

    class Slow(Helper):
        async def start(self) -> None:
            await anyio.sleep(int(self.name[-1]))
            await super().start()

    workers = [Slow(f"worker-{n}") for n in order]

    @runner.event_handler("on_ready")
    async def on_ready(emitter: WorkerRunner) -> None:
        started.extend(worker.started_at is not None for worker in workers)
        await emitter.add_workers(Helper("late"))

    await runner.add_workers(*workers)
    async with runner:
        await runner.registry.wait_for("late")
    assert started == [True] * 3


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


async def test_an_event_handler_of_the_runner_that_refuses_is_waited_for_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4."""
    log: list[str] = []
    begun = anyio.Event()
    runner = quiet_runner(name="stubborn runner")
    runner.add_event_handler("on_ready", lambda _: refuse(log, begun))
    async with cut_short(), nothing_left(runner), runner:
        await begun.wait()
        await runner.cancel()
        await sleep_forever()
    assert log == ["unwound"]
    assert named(caplog, "stubborn runner")


async def test_a_runner_s_event_handler_that_goes_at_once_is_not_said_to_refuse(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4: the log names those that do."""
    told, helper = anyio.Event(), Helper("helper")

    async def hang(*_: object) -> None:
        told.set()
        await anyio.sleep_forever()

    async with running(helper) as runner:
        runner.add_event_handler("on_error", hang)
        await helper.send_bus_error_message("oh")
        await told.wait()
    assert caplog.messages == []


@pytest.mark.parametrize("seed", range(8))
def test_an_event_handler_that_unwinds_in_a_step_or_two_is_not_said_to_refuse(
    backend: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """L4: though there is no time left, and whoever runs first."""
    unwound: list[bool] = []

    async def example() -> None:
        runner, told = WorkerRunner(handle_sigint=False), anyio.Event()

        async def hang(*_: object) -> None:
            told.set()
            try:
                await anyio.sleep_forever()
            finally:
                await cancel_shielded_checkpoint()
                unwound.append(True)

        runner.add_event_handler("on_error", hang)
        helper = Helper("helper")
        async with runner:
            await runner.add_workers(helper)
            await runner.registry.wait_for("helper")
            await helper.send_bus_error_message("oh")
            await told.wait()

    testing.run(example, backend=backend, seed=seed)
    assert unwound == [True]
    assert caplog.messages == []


async def test_a_runner_has_its_two_events() -> None:
    """N3, seeds: ``on_ready``, and ``on_error`` with what went wrong."""
    calls: list[tuple[Any, ...]] = []
    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_ready", lambda *args: calls.append(args))

    @runner.event_handler("on_error")
    async def failed(*args: Any) -> None:
        calls.append(args)

    await runner.add_workers(worker)
    async with runner:
        await eventually(lambda: calls)
        await worker.send_bus_error_message("broken")
        await eventually(lambda: len(calls) == 2)
    assert calls[0] == (runner,)
    assert calls[1][0] is runner
    assert (calls[1][1].worker_name, calls[1][1].error) == ("worker", "broken")
