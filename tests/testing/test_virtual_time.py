"""How time passes in a run."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import anyio
import pytest
import trio
from anyio import create_task_group, current_time, sleep
from anyio.lowlevel import checkpoint

from workerbus.testing import SpinError, TimeLimitError, advance, run, settle, virtual_backend
from workerbus.testing.clock._virtual import MOST_SECONDS, MOST_THREAD_SECONDS, VirtualTime


def test_hours_pass_at_once(backend: str) -> None:
    async def main() -> float:
        await anyio.sleep(3600)
        with anyio.move_on_after(7200):
            await anyio.sleep_forever()
        return anyio.current_time()

    assert run(main, backend=backend) == 10_800


def test_time_begins_at_0_and_stands_still_while_anything_runs(backend: str) -> None:
    async def main() -> list[float]:
        times = [anyio.current_time()]
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        return [*times, anyio.current_time()]

    assert run(main, backend=backend) == [0.0, 0.0]


def test_timers_fire_in_their_order_and_at_their_time(backend: str) -> None:
    async def main() -> list[tuple[int, float]]:
        fired: list[tuple[int, float]] = []

        async def fire(after: int) -> None:
            await anyio.sleep(after)
            fired.append((after, anyio.current_time()))

        async with anyio.create_task_group() as group:
            for after in (30, 10, 20):
                group.start_soon(fire, after)
        return fired

    assert run(main, backend=backend) == [(10, 10.0), (20, 20.0), (30, 30.0)]


def test_time_does_not_go_back() -> None:
    """Not to a moment that is over when nothing is left to run, either."""
    clock = VirtualTime(100.0, lambda: (), lambda: None)
    clock.idle(5.0)
    clock.idle(3.0)
    assert clock.look() == 5.0


# --- code that looks at the clock


def test_code_that_looks_at_the_clock_until_time_has_passed_gets_there(backend: str) -> None:
    async def main() -> float:
        while anyio.current_time() < 0.5:
            pass
        return anyio.current_time()

    assert run(main, backend=backend) == pytest.approx(0.5, abs=0.01)


def test_a_program_that_spins_until_a_deadline_gets_there(backend: str) -> None:
    async def main() -> bool:
        with anyio.move_on_after(1) as scope:
            while True:
                await anyio.lowlevel.checkpoint()
        return scope.cancelled_caught

    assert run(main, backend=backend)


def test_looks_at_the_clock_take_no_time_where_other_tasks_run_in_between(backend: str) -> None:
    async def look() -> float:
        for _ in range(500):
            for _ in range(30):
                current_time()
            await checkpoint()
        return current_time()

    assert run(look, backend=backend) == 0


# --- threads and sockets


@pytest.mark.parametrize("how", ["anyio", "native"])
def test_a_thread_is_waited_for_and_takes_no_time(how: str, backend: str) -> None:
    async def in_thread() -> None:
        if how == "anyio":
            await anyio.to_thread.run_sync(time.sleep, 0.15)
        elif backend == "asyncio":
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.15)
        else:
            await trio.to_thread.run_sync(time.sleep, 0.15)

    async def main() -> float:
        with anyio.fail_after(3600):
            await in_thread()
        return anyio.current_time()

    assert run(main, backend=backend) == 0.0


def test_each_of_several_threads_of_asyncios_is_waited_for() -> None:
    """Also when others have done their work, or were shut down."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor() as own, anyio.fail_after(3600):
            slow = loop.run_in_executor(own, time.sleep, 0.3)  # threads are real: one that is at work for long enough
            await loop.run_in_executor(None, time.sleep, 0.05)
            await loop.run_in_executor(own, time.sleep, 0.05)
            await loop.shutdown_default_executor()
            await slow
        return current_time()

    assert run(main, backend="asyncio") == 0.0


def test_time_passes_when_a_thread_of_asyncios_has_done_its_work() -> None:
    async def main() -> float:
        assert await asyncio.get_running_loop().run_in_executor(None, sum, (1, 2)) == 3
        await sleep(3600)
        return current_time()

    assert run(main, backend="asyncio") == 3600


def test_a_thread_that_waits_for_time_to_pass_is_not_waited_for(backend: str) -> None:
    async def main() -> float:
        await anyio.to_thread.run_sync(anyio.from_thread.run, anyio.sleep, 5)
        return anyio.current_time()

    assert run(main, backend=backend) == 5.0


def test_with_patience_a_socket_is_waited_for(backend: str) -> None:
    answers: list[bytes] = []

    async def main() -> None:
        async def echo(stream: anyio.abc.ByteStream) -> None:
            async with stream:
                await stream.send(await stream.receive())

        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, echo)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"hello")
                answers.append(await stream.receive())
            group.cancel_scope.cancel()

    run(main, backend=backend, patience=2.0)
    assert answers == [b"hello"]


# --- settle and advance


def test_settle_waits_for_everything_but_time(backend: str) -> None:
    seen: list[tuple[list[str], float]] = []

    async def main() -> None:
        done: list[str] = []

        async def work() -> None:
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            done.append("worked")
            await anyio.sleep(1)
            done.append("slept")

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await settle()
            seen.append((list(done), anyio.current_time()))

    run(main, backend=backend)
    assert seen == [(["worked"], 0.0)]


def test_all_who_wait_for_a_program_to_settle_go_on(backend: str) -> None:
    async def main() -> list[float]:
        settled: list[float] = []

        async def wait(begin: float) -> None:
            await sleep(begin)
            await settle()
            settled.append(current_time())

        async with create_task_group() as tasks:
            for begin in (0, 0, 0, 1, 1):
                tasks.start_soon(wait, begin)
        return settled

    assert run(main, backend=backend) == [0, 0, 0, 1, 1]


async def test_settle_works_in_real_time_too() -> None:
    event = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(event.wait)
        await settle()
        assert event.statistics().tasks_waiting == 1
        event.set()


def test_advance_lets_all_happen_that_is_due_by_then(backend: str) -> None:
    async def main() -> tuple[int, float]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(10)
                ticks += 1

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            await advance(35)
            group.cancel_scope.cancel()
        return ticks, anyio.current_time()

    assert run(main, backend=backend) == (3, 35.0)


@pytest.mark.parametrize("seed", range(5))
def test_all_that_is_due_when_time_has_advanced_has_happened(backend: str, seed: int) -> None:
    done: list[int] = []

    async def later(number: int) -> None:
        await sleep(1)
        for _ in range(number):
            await checkpoint()
        done.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(later, number)
            await advance(1)
            assert sorted(done) == [0, 1, 2, 3, 4]
            assert current_time() == 1

    run(main, backend=backend, seed=seed)


@pytest.mark.parametrize("seconds", [-1, "1", None, float("inf"), float("nan")])
def test_time_goes_forward_by_a_number_of_seconds(seconds: Any, backend: str) -> None:
    with pytest.raises(ValueError, match="seconds must be a number, finite and not less than 0, not"):
        run(advance, seconds, backend=backend)


# --- for anyio's pytest plugin


class TestUnderAnyiosPlugin:
    @pytest.fixture
    def anyio_backend(self, backend: str) -> tuple[str, dict[str, Any]]:
        return virtual_backend(backend, seed=3)

    async def test_an_async_test_runs_in_virtual_time(self) -> None:
        begun = anyio.current_time()
        await anyio.sleep(5)
        assert anyio.current_time() == begun + 5


def test_a_thread_has_all_its_time_though_others_were_at_work_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bounded is how long everything waits for threads at a stretch."""
    now = 1.0
    monkeypatch.setattr("workerbus.testing.clock._virtual.monotonic", lambda: now)
    clock = VirtualTime(100.0, tuple, lambda: None)
    for round_ in range(5):
        clock.thread_at_work()
        now += 0.9 * MOST_THREAD_SECONDS
        clock.thread_at_work()
        clock.idle(float(round_))
    assert clock.error is None
    clock.thread_at_work()
    now += 1.1 * MOST_THREAD_SECONDS
    with pytest.raises(TimeLimitError, match="a thread has been at work"):
        clock.thread_at_work()


@pytest.mark.parametrize("passes", ["monotonic", "thread_time"])
def test_a_program_spins_by_the_processor_time_that_it_takes(passes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real time passes at a breakpoint, too, and on a busy machine."""
    now = 1.0
    monkeypatch.setattr("workerbus.testing.clock._virtual.monotonic", lambda: 1.0)
    monkeypatch.setattr("workerbus.testing.clock._virtual.thread_time", lambda: 1.0)
    monkeypatch.setattr(f"workerbus.testing.clock._virtual.{passes}", lambda: now)
    clock = VirtualTime(100.0, tuple, lambda: None)
    with pytest.raises(SpinError) if passes == "thread_time" else nullcontext():
        for _ in range(500):
            clock.turn()
            now += MOST_SECONDS / 450
