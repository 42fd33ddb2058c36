"""`workerbus.testing.run`: virtual time, schedules from a seed, and what is said of a program that hangs."""

import asyncio
import contextlib
import gc
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import permutations
from typing import Any

import anyio
import pytest
import trio
from trio._core import _run as scheduler

from workerbus import BaseWorker, BusJobRequestMessage, BusMessage, JobError, MemoryBus, WorkerRunner, job
from workerbus.testing import (
    DeadlockError,
    SpinError,
    StuckError,
    TimeLimitError,
    _virtual,
    advance,
    run,
    settle,
    virtual_backend,
)

# --- time


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


async def test_settle_works_in_real_time_too() -> None:
    event = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(event.wait)
        await settle()
        assert event.statistics().tasks_waiting == 1
        event.set()


# --- schedules


async def order_of(*names: str) -> str:
    order: list[str] = []

    async def step(name: str) -> None:
        await anyio.lowlevel.checkpoint()
        order.append(name)

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(step, name)
    return "".join(order)


def test_a_seed_gives_the_same_schedule_again(backend: str) -> None:
    for seed in range(20):
        assert len({run(order_of, *"abcdef", backend=backend, seed=seed) for _ in range(3)}) == 1


def test_seeds_give_every_order(backend: str) -> None:
    orders = {run(order_of, *"abc", backend=backend, seed=seed) for seed in range(200)}
    assert orders == {"".join(order) for order in permutations("abc")}


def test_without_a_seed_asyncio_keeps_its_own_order() -> None:
    assert {run(order_of, *"abcdef", backend="asyncio", seed=None) for _ in range(3)} == {"abcdef"}


def test_a_programs_messages_come_in_the_same_order_for_the_same_seed(backend: str) -> None:
    class Echo(BaseWorker):
        @job(name="echo")
        async def echo(self, message: BusJobRequestMessage) -> dict[str, str]:
            return {"name": self.name}

    class Recorder(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            seen.append(f"{type(message).__name__} from {message.source}")
            await super().publish(message)

    async def main() -> None:
        async with WorkerRunner(name="runner", bus=Recorder(), handle_sigint=False) as runner:
            await runner.add_workers(*(Echo(name) for name in "abc"))
            async with runner.job_group("a", "b", "c", name="echo"):
                pass

    runs: list[list[str]] = []
    for _ in range(3):
        seen: list[str] = []
        run(main, backend=backend, seed=5)
        runs.append(seen)
    assert runs[0] == runs[1] == runs[2]
    assert any("BusJobResponseMessage" in each for each in runs[0])


def test_trios_own_schedule_is_put_back() -> None:
    before = scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    run(order_of, "a", "b", backend="trio", seed=1)
    assert (scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before


# --- what comes out


def test_the_result_comes_out_and_so_does_an_error_with_backend_and_seed(backend: str) -> None:
    async def main(text: str) -> str:
        if not text:
            raise ValueError("no text")
        return text.upper()

    assert run(main, "yes", backend=backend) == "YES"
    with pytest.raises(ValueError, match="no text") as caught:
        run(main, "", backend=backend, seed=42)
    assert caught.value.__notes__ == [f"in workerbus.testing.run(…, backend={backend!r}, seed=42)"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"backend": "curio"}, "backend must be one of 'asyncio', 'trio', not 'curio'"),
        ({"limit": 0}, "limit must be a number of seconds above 0, not 0"),
        ({"limit": float("nan")}, "limit must be"),
        ({"patience": -1}, "patience must be a number of real seconds, not -1"),
        ({"patience": float("inf")}, "patience must be"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(options: dict[str, Any], text: str) -> None:
    async def main() -> None:
        raise AssertionError

    with pytest.raises(ValueError, match=text):
        run(main, **options)


# --- programs that hang


class Barista(BaseWorker):
    def __init__(self, name: str = "barista") -> None:
        super().__init__(name)
        self.beans = anyio.Event()
        self.machine = anyio.Lock()

    @job(name="brew")
    async def brew(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await self.beans.wait()
        return {}

    @job(name="grind", deferred=True)
    async def grind(self, message: BusJobRequestMessage) -> None:
        pass

    @job(name="ask")
    async def ask(self, message: BusJobRequestMessage) -> dict[str, Any]:
        async with self.machine:
            return await self.job("barista" if self.name == "other" else "other", name="ask")

    @job(name="queue", limit=1)
    async def queue(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await anyio.sleep_forever()
        return {}


async def cafe(ask: Callable[[WorkerRunner], Awaitable[Any]]) -> None:
    async with WorkerRunner(name="cafe") as runner:
        await runner.add_workers(Barista(), Barista("other"))
        await runner.registry.wait_for("other")
        await ask(runner)


async def iterate(runner: WorkerRunner) -> None:
    async with runner.job("barista", name="grind") as context:
        async for _ in context:
            pass


async def twice(runner: WorkerRunner) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(lambda: runner.job("barista", name="queue")._ask_and_wait())


HANGS: dict[str, tuple[Callable[[WorkerRunner], Awaitable[Any]], list[str]]] = {
    "an event that nobody sets": (
        lambda runner: runner.job("barista", name="brew")._ask_and_wait(),
        [
            "worker 'barista', job 'brew' (…), asked for by 'cafe'\n    waits for an event that nobody sets\n    at ",
            "await self.beans.wait()",
            "the main task\n    waits for the answer of 'barista' to job 'brew' (…)\n    at test_run.py:",
        ],
    ),
    "a deferred job that nobody answers": (
        iterate,
        [
            "worker 'barista', job 'grind' (…), asked for by 'cafe'\n    waits for somebody to answer it: "
            "its handler has returned, and left it open",
            "the main task\n    waits for the answer of 'barista' to job 'grind' (…)",
        ],
    ),
    "a worker that is not there": (
        lambda runner: runner.job("baristo")._ask_and_wait(),
        ["the main task\n    waits for worker 'baristo' to come; did you mean 'barista'?"],
    ),
    "a watch for a worker that does not come": (
        lambda runner: runner.registry.wait_for("otter"),
        ["waits for worker 'otter' to come; did you mean 'other'?"],
    ),
    "workers that ask each other": (
        lambda runner: runner.job("barista", name="ask")._ask_and_wait(),
        [
            "worker 'barista', job 'ask' (…), asked for by 'other'\n"
            "    waits for a lock that worker 'barista', job 'ask' (…), asked for by 'cafe' holds",
            "worker 'barista', job 'ask' (…), asked for by 'cafe'\n"
            "    waits for the answer of 'other' to job 'ask' (…)",
            "worker 'other', job 'ask' (…), asked for by 'barista'\n"
            "    waits for the answer of 'barista' to job 'ask' (…)",
            "in a circle, each for the next, and the last for the first, wait\n"
            "    worker 'barista', job 'ask' (…), asked for by 'cafe'\n"
            "    worker 'other', job 'ask' (…), asked for by 'barista'\n"
            "    worker 'barista', job 'ask' (…), asked for by 'other'\n",
        ],
    ),
    "a limit that is reached": (
        twice,
        [
            "waits for ever: it sleeps",
            "worker 'barista', job 'queue' (…), asked for by 'cafe'\n    waits for its turn, which job 'queue' (…) has",
            "the main task\n    waits for the tasks of its task group",
        ],
    ),
}


def without_ids(text: str) -> str:
    """Job ids differ from run to run."""
    return re.sub(r"\([0-9a-f]{12}-[0-9a-f]+\)", "(…)", text)


@pytest.mark.parametrize("hang", HANGS)
def test_a_program_that_hangs_is_told_apart_by_its_error(hang: str, backend: str) -> None:
    ask, expected = HANGS[hang]
    with pytest.raises(DeadlockError) as caught:
        run(cafe, ask, backend=backend)
    text = without_ids(str(caught.value))
    assert text.startswith("nothing can happen any more: every task waits, and no timer runs (at ")
    for each in expected:
        assert each in text
    assert "idle, as they should be, are: " in text


def test_the_cause_is_named_before_its_consequences(backend: str) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(cafe, HANGS["an event that nobody sets"][0], backend=backend)
    assert [paragraph.split(",")[0].split("\n")[0] for paragraph in caught.value.waiting[:2]] == [
        "worker 'barista'",
        "the main task",
    ]


def test_a_hook_and_a_run_that_wait_are_named(backend: str) -> None:
    class Stuck(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await anyio.sleep_forever()

    class Running(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            await anyio.Event().wait()

    async def main() -> None:
        runner = WorkerRunner(name="r")
        await runner.add_workers(Stuck("stuck"), Running("busy"))
        await runner.run()

    with pytest.raises(DeadlockError) as caught:
        run(main, backend=backend)
    text = str(caught.value)
    assert "worker 'stuck', hook on_activated\n    waits for ever: it sleeps\n    at test_run.py:" in text
    assert "worker 'busy', its run()\n    waits for an event that nobody sets\n    at test_run.py:" in text
    assert "the main task\n    waits for the end of runner 'r', whose workers are 'busy', 'stuck'" in text


class Unready(BaseWorker):
    async def run(self, params: Any) -> None:
        await anyio.sleep_forever()


async def wait_for_a_worker() -> None:
    async with WorkerRunner() as runner:
        barista = Barista()
        await runner.add_workers(barista)
        await barista.wait()


async def ask_one_that_is_not_ready() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Unready("unready"))
        await runner.job("unready")


async def mix_generators() -> None:
    async def items() -> AsyncIterator[int]:
        await anyio.Event().wait()
        yield 1

    await anext(items(), None)


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (wait_for_a_worker, "the main task\n    waits for worker 'barista' to finish\n    at test_run.py:"),
        (
            ask_one_that_is_not_ready,
            "waits for worker 'unready' to be ready: its run() has begun, and has not called start()\n    at ",
        ),
        (mix_generators, "waits for an event that nobody sets\n    at test_run.py:"),
    ],
)
def test_what_looks_like_something_else_is_told_as_what_it_is(
    program: Callable[[], Awaitable[None]], text: str, backend: str
) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(program, backend=backend)
    assert text in str(caught.value)


async def await_a_task() -> None:
    await asyncio.create_task(asyncio.Event().wait(), name="the other")


async def gather() -> None:
    await asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait())


async def join() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    queue.put_nowait(1)
    await queue.join()


async def await_a_future() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (await_a_task, "the main task\n    waits for task 'the other'\n    at test_run.py:"),
        (gather, "the main task\n    waits for other tasks\n    at test_run.py:"),
        (join, "the main task\n    waits for all items of a queue to be marked as done\n    at test_run.py:"),
        (await_a_future, "the main task\n    waits for a future that nobody completes\n    at test_run.py:"),
    ],
)
def test_what_is_asyncios_own_is_described_too(program: Callable[[], Awaitable[None]], text: str) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(program, backend="asyncio")
    assert text in str(caught.value)


def test_a_thread_that_waits_for_time_to_pass_is_not_waited_for(backend: str) -> None:
    async def main() -> float:
        await anyio.to_thread.run_sync(anyio.from_thread.run, anyio.sleep, 5)
        return anyio.current_time()

    assert run(main, backend=backend) == 5.0


def test_a_thread_that_does_not_end_is_named(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    async def main() -> None:
        await anyio.to_thread.run_sync(done.wait, abandon_on_cancel=True)

    monkeypatch.setattr(_virtual, "MOST_THREAD_SECONDS", 0.1)
    with pytest.raises(TimeLimitError, match="a thread has been at work for") as caught:
        run(main, backend=backend)
    done.set()
    assert "the main task\n    waits for a thread\n    at test_run.py:" in str(caught.value)


def test_a_heartbeat_is_not_watched_for_ever(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - on purpose
            await anyio.sleep(0.001)

    monkeypatch.setattr(_virtual, "MOST_JUMPS", 1_000)
    with pytest.raises(TimeLimitError, match="the program has let time pass 1,000 times, and has not ended"):
        run(main, backend=backend)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it is left where it stands
def test_a_program_that_swallows_its_cancellation_is_given_up(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        while True:
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                await anyio.Event().wait()

    monkeypatch.setattr(_virtual, "MOST_TURNS", 500)
    with pytest.raises(DeadlockError, match="waits for an event that nobody sets"):
        run(main, backend=backend)
    gc.collect()


def test_a_coroutine_is_not_taken_for_a_function(backend: str) -> None:
    coroutine: Any = order_of("a")
    with pytest.raises(TypeError, match=r"run takes an async function and its arguments"):
        run(coroutine, backend=backend)
    coroutine.close()


def test_a_program_that_hangs_winds_down(backend: str) -> None:
    ended: list[str] = []

    async def main() -> None:
        try:
            async with WorkerRunner() as runner:
                await runner.add_workers(Barista())
                try:
                    await runner.job("barista", name="brew")
                finally:
                    ended.append("the job")
        finally:
            ended.append("the runner")

    with pytest.raises(DeadlockError):
        run(main, backend=backend)
    assert ended == ["the job", "the runner"]


def test_a_program_that_hangs_in_a_shield_is_named_and_ended_too(backend: str) -> None:
    async def main() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.Event().wait()

    with pytest.raises(DeadlockError) as caught:
        run(main, backend=backend)
    assert "the main task\n    waits for an event that nobody sets" in str(caught.value)
    assert "It was cancelled then, and got stuck again at 0 s:" in caught.value.__notes__[0]


def test_a_program_that_goes_on_for_ever_meets_the_limit(backend: str) -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - on purpose
            await anyio.sleep(60)

    with pytest.raises(TimeLimitError, match="has not ended in 3,600 seconds of virtual time") as caught:
        run(main, backend=backend, limit=3600)
    assert caught.value.time == 3600
    assert "at test_run.py:" in str(caught.value)


def test_a_program_that_never_waits_is_ended(backend: str) -> None:
    async def main() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(SpinError, match="tasks have run 200,001 times on end"):
        run(main, backend=backend)


def test_of_many_tasks_some_are_described_and_the_others_counted(backend: str) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(anyio.sleep_forever)

    with pytest.raises(DeadlockError) as caught:
        run(main, backend=backend)
    assert isinstance(caught.value, StuckError)
    assert caught.value.waiting[:3] == ("task 'anyio.sleep_forever'\n    waits for ever: it sleeps",) * 3
    assert caught.value.waiting[3].startswith(
        "the main task\n    waits for the tasks of its task group\n    at test_run"
    )
    assert caught.value.waiting[4] == "and 47 more tasks wait, most of them as those above do"


def test_an_error_of_the_program_in_its_wind_down_does_not_hide_the_hang(backend: str) -> None:
    async def main() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise JobError("in the wind-down", job_id="1", statuses={}, responses={})

    with pytest.raises(DeadlockError):
        run(main, backend=backend)


# --- for anyio's pytest plugin


class TestUnderAnyiosPlugin:
    @pytest.fixture
    def anyio_backend(self, backend: str) -> tuple[str, dict[str, Any]]:
        return virtual_backend(backend, seed=3)

    async def test_an_async_test_runs_in_virtual_time(self) -> None:
        begun = anyio.current_time()
        await anyio.sleep(5)
        assert anyio.current_time() == begun + 5
