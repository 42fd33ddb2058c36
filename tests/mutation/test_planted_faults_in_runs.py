"""The clock of a wind-down, and runs that end in unusual ways: planted faults there had turned no test red."""

import asyncio

import anyio
import pytest
from anyio import CancelScope, current_time, sleep, sleep_forever

from support import clock
from support.workers import Helper, running
from workerbus import BaseWorker, BusCancelWorkerMessage, BusMessage, MemoryBus, WorkerRunner


def quiet_runner(bus: MemoryBus, name: str) -> WorkerRunner:
    return WorkerRunner(bus=bus, name=name, handle_sigint=False)


# --- whose bus it is


async def test_a_runner_that_is_refused_does_not_give_away_the_bus_of_another() -> None:
    """R6: two start at once; the bus stays the one's own, and is refused to a third with the reason."""
    bus = MemoryBus()
    refused: list[str] = []

    async def run(runner: WorkerRunner) -> None:
        try:
            async with runner:
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(RuntimeError, match=f"open for runner '{runner.name}' alone: to share it"):
                    await quiet_runner(bus, "C").run()
        except RuntimeError as exc:
            refused.append(str(exc))

    async with anyio.create_task_group() as group:
        for name in ("A", "B"):
            group.start_soon(run, quiet_runner(bus, name))
    assert len(refused) == 1
    assert "to share it" in refused[0]


async def test_a_bus_that_never_connected_is_free_for_the_next_runner() -> None:
    """R6: its start was given up, by a cancellation."""
    connecting = anyio.Event()

    class Unreachable(MemoryBus):
        reachable = False

        async def start(self) -> None:
            connecting.set()
            if not self.reachable:
                await sleep_forever()

    bus = Unreachable()
    first = quiet_runner(bus, "first")
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        await connecting.wait()
        await first.cancel()
    bus.reachable = True
    async with quiet_runner(bus, "second") as second:
        await second.add_workers(Helper("helper"))
        assert await second.job("helper", name="echo")


# --- what comes out of a run


@pytest.mark.parametrize(
    ("body_raises", "comes_out"),
    [(SystemExit(3), SystemExit), (KeyboardInterrupt(), KeyboardInterrupt), (ValueError(), asyncio.CancelledError)],
)
def test_a_native_cancellation_of_the_wind_down_wins_over_errors_alone(
    body_raises: BaseException, comes_out: type[BaseException]
) -> None:
    """L3: a cancellation is never swallowed, and what ends a program arrives as itself."""
    came: list[BaseException] = []

    class Careful(BaseWorker):
        async def cleanup(self) -> None:
            await sleep(1)

    async def leave() -> None:
        try:
            async with running(Careful("careful")):
                raise body_raises
        except BaseException as exc:  # out of a task of asyncio's, some of these would end the loop
            came.append(exc)

    async def main() -> None:
        task = asyncio.ensure_future(leave())
        await sleep(0.5)
        task.cancel()
        await task

    clock.run(main, backend="asyncio")
    assert [type(exc) for exc in came] == [comes_out]


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


# --- what the log says


async def test_a_worker_that_is_late_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """L4: an end whose grace has run out was followed by a cancel."""

    class Stubborn(BaseWorker):
        async def cleanup(self) -> None:
            with CancelScope(shield=True):
                await sleep(10)

    runner = WorkerRunner(handle_sigint=False, grace_period=1.0)
    await runner.add_workers(Stubborn("stubborn"))
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("stubborn")
        await runner.end()
        await sleep(1.5)
        await runner.cancel()
    named = [record for record in caplog.records if "still waits for worker 'stubborn'" in record.getMessage()]
    assert len(named) == 1
