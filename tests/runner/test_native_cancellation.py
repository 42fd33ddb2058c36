"""L3: the cancellation of asyncio and of trio themselves."""

import asyncio

import anyio
import pytest
import trio
from anyio import current_time, sleep, sleep_forever

from support import clock
from support.leaks import nothing_left, task_ids
from support.remarks import Remark
from support.runners import quiet_runner
from support.subscribers import Plain
from support.wind_downs import Logged, Published
from support.workers import Helper, running
from workerbus import BaseWorker, MemoryBus
from workerbus.testing import settle


def test_a_native_task_cancel_winds_down_and_goes_through() -> None:
    """L3: `asyncio.Task.cancel()`."""

    async def main() -> None:
        log: list[str] = []
        runner = quiet_runner()
        await runner.add_workers(Logged("worker", log))
        async with nothing_left(runner):
            task = asyncio.create_task(runner.run(auto_end=False))
            await runner.registry.wait_for("worker")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
        assert log == ["cleanup worker"]

    clock.run(main, backend="asyncio")


def test_a_second_native_cancel_does_not_disturb_the_wind_down() -> None:
    """L3, L4: the clean-up of the worker is shielded."""

    class Slow(Logged):
        async def cleanup(self) -> None:
            tasks[0].cancel()
            await sleep(0.5)
            await super().cleanup()

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        log: list[str] = []
        runner = quiet_runner()
        await runner.add_workers(Slow("slow", log))
        async with nothing_left(runner):
            tasks.append(asyncio.create_task(runner.run(auto_end=False)))
            await runner.registry.wait_for("slow")
            tasks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
        assert log == ["cleanup slow"]

    clock.run(main, backend="asyncio")


def test_a_native_timeout_around_run_is_a_timeout() -> None:
    """L3: `asyncio.timeout()` counts the cancellations of its task."""

    async def main() -> None:
        log: list[str] = []
        runner = quiet_runner()
        await runner.add_workers(Logged("worker", log))
        async with nothing_left(runner):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await runner.run(auto_end=False)
        assert log == ["cleanup worker"]
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

    clock.run(main, backend="asyncio")


def test_a_native_task_group_ends_a_run_when_a_sibling_fails() -> None:
    """L3: and sees no error but the sibling's."""

    async def main() -> None:
        async def fail() -> None:
            await runner.registry.wait_for("worker")
            raise ValueError("sibling")

        runner = quiet_runner()
        await runner.add_workers(Helper("worker"))
        async with nothing_left(runner):
            with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the block itself raises
                async with asyncio.TaskGroup() as group:
                    group.create_task(runner.run(auto_end=False))
                    group.create_task(fail())
        assert [str(exc) for exc in caught.value.exceptions] == ["sibling"]

    clock.run(main, backend="asyncio")


def test_a_native_cancel_of_the_body_goes_through() -> None:
    """L3: `async with` a runner."""

    async def main() -> None:
        async def body() -> None:
            async with runner:
                await runner.add_workers(Logged("worker", log))
                await sleep_forever()

        log: list[str] = []
        runner = quiet_runner()
        async with nothing_left(runner):
            task = asyncio.create_task(body())
            await runner.registry.wait_for("worker")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert log == ["cleanup worker"]

    clock.run(main, backend="asyncio")


@pytest.mark.parametrize("native_first", [True, False])
def test_a_native_cancel_is_not_lost_in_a_cancel_of_the_runner(native_first: bool) -> None:
    """L3: both at the same moment; the runner's own cancel ends silently, the native one must not."""

    async def main() -> None:
        async def body() -> None:
            async with runner:
                begun.set()
                await sleep_forever()

        begun = anyio.Event()
        runner = quiet_runner()
        async with nothing_left(runner):
            task = asyncio.create_task(body())
            await begun.wait()
            if native_first:
                task.cancel()
            await runner.cancel()
            if not native_first:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    clock.run(main, backend="asyncio")


def test_a_native_cancel_while_the_run_opens_goes_through() -> None:
    """L3: the bus is still connecting."""

    class Connecting(Published):
        async def start(self) -> None:
            await super().start()
            tasks[0].cancel()
            await sleep(0.1)

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        runner = quiet_runner(bus=Connecting())
        await runner.add_workers(Helper("worker"))
        async with nothing_left(runner):
            tasks.append(asyncio.create_task(runner.run(auto_end=False)))
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]

    clock.run(main, backend="asyncio")


def test_a_native_cancel_while_the_programs_bus_disconnects_goes_through() -> None:
    """L3, L4: it comes through the shield, and leaves nothing all the same."""

    class Disconnecting(MemoryBus):
        async def stop(self) -> None:
            tasks[0].cancel()
            await sleep(0.1)

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        async def program() -> None:
            async with bus:
                await bus.subscribe(plain)
                await bus.send(Remark("hello", source="test"))
                await plain.until(1)

        bus, plain, before = Disconnecting(), Plain("plain"), task_ids()
        tasks.append(asyncio.create_task(program()))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert task_ids() == before
        assert not bus.is_open

    clock.run(main, backend="asyncio")


def test_a_cancel_scope_of_trio_around_run_goes_through() -> None:
    """L3."""

    async def main() -> None:
        log: list[str] = []
        runner = quiet_runner()
        await runner.add_workers(Logged("worker", log))
        async with nothing_left(runner):
            with trio.move_on_after(0.1) as scope:
                await runner.run(auto_end=False)
                log.append("swallowed")
        assert scope.cancelled_caught
        assert log == ["cleanup worker"]

    clock.run(main, backend="trio")


def test_a_nursery_of_trio_ends_a_run_when_a_sibling_fails() -> None:
    """L3: and sees no error but the sibling's."""

    async def main() -> None:
        async def fail() -> None:
            await runner.registry.wait_for("worker")
            raise ValueError("sibling")

        runner = quiet_runner()
        await runner.add_workers(Helper("worker"))
        async with nothing_left(runner):
            with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the block itself raises
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(runner.run)
                    nursery.start_soon(fail)
        assert [str(exc) for exc in caught.value.exceptions] == ["sibling"]

    clock.run(main, backend="trio")


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


def test_who_cancels_a_run_that_a_signal_winds_down_insists() -> None:
    """R5, L3: nobody waits for clean-up any more."""

    class Lingering(Helper):
        async def cleanup(self) -> None:
            await sleep_forever()

    async def main() -> None:
        async def body() -> None:
            async with running(Lingering("lingering")) as runner:
                runner.clean_up.interruptible = True
                raise ZeroDivisionError

        begun = current_time()
        task = asyncio.create_task(body())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert current_time() == begun

    clock.run(main, backend="asyncio")
