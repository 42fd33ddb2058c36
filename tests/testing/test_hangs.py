"""What is said of a program that hangs, and how it ends."""

import asyncio
import contextlib
import gc
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope, current_time, sleep

from workerbus import BaseWorker, BusJobRequestMessage, JobError, WorkerRunner, job
from workerbus.diagnosis._waiting import Waiter, describe
from workerbus.testing import DeadlockError, SpinError, StuckError, TimeLimitError, run


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
            "the main task\n    waits for the answer of 'barista' to job 'brew' (…)\n    at test_hangs.py:",
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
    assert "worker 'stuck', hook on_activated\n    waits for ever: it sleeps\n    at test_hangs.py:" in text
    assert "worker 'busy', its run()\n    waits for an event that nobody sets\n    at test_hangs.py:" in text
    assert "the main task\n    waits for the end of runner 'r', whose workers are 'busy', 'stuck'" in text


class Unready(BaseWorker):
    async def run(self, params: Any) -> None:
        await anyio.sleep_forever()


async def ask_one_that_is_not_ready() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Unready("unready"))
        await runner.job("unready")


async def mix_generators() -> None:
    async def items() -> AsyncIterator[int]:
        await anyio.Event().wait()
        yield 1

    await anext(items(), None)


async def wait_for_a_worker() -> None:
    async with WorkerRunner() as runner:
        barista = Barista()
        await runner.add_workers(barista)
        await barista.wait()


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (wait_for_a_worker, "the main task\n    waits for worker 'barista' to finish\n    at test_hangs.py:"),
        (
            ask_one_that_is_not_ready,
            "waits for worker 'unready' to be ready: its run() has begun, and has not called start()\n    at ",
        ),
        (mix_generators, "waits for an event that nobody sets\n    at test_hangs.py:"),
    ],
)
def test_what_looks_like_something_else_is_told_as_what_it_is(
    program: Callable[[], Awaitable[None]], text: str, backend: str
) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(program, backend=backend)
    assert text in str(caught.value)


async def await_a_future() -> None:
    await asyncio.get_running_loop().create_future()


async def await_a_task() -> None:
    await asyncio.create_task(asyncio.Event().wait(), name="the other")


async def gather() -> None:
    await asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait())


async def join() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    queue.put_nowait(1)
    await queue.join()


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (await_a_task, "the main task\n    waits for task 'the other'\n    at test_hangs.py:"),
        (gather, "the main task\n    waits for other tasks\n    at test_hangs.py:"),
        (join, "the main task\n    waits for all items of a queue to be marked as done\n    at test_hangs.py:"),
        (await_a_future, "the main task\n    waits for a future that nobody completes\n    at test_hangs.py:"),
    ],
)
def test_what_is_asyncios_own_is_described_too(program: Callable[[], Awaitable[None]], text: str) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(program, backend="asyncio")
    assert text in str(caught.value)


def test_a_lock_of_trios_own_is_called_one() -> None:
    trio = pytest.importorskip("trio")

    async def main() -> None:
        lock = trio.Lock()

        async def take() -> None:
            async with lock:
                pass

        async with lock, anyio.create_task_group() as group:
            group.start_soon(take)

    with pytest.raises(DeadlockError, match="waits for a lock that the main task holds"):
        run(main, backend="trio")


def test_a_sleep_without_an_end_is_no_timer(backend: str) -> None:
    with pytest.raises(DeadlockError, match=r"the main task\n    waits for ever: it sleeps"):
        run(anyio.sleep, float("inf"), backend=backend)


def test_a_thread_that_does_not_end_is_named(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    async def main() -> None:
        await anyio.to_thread.run_sync(done.wait, abandon_on_cancel=True)

    monkeypatch.setattr("workerbus.testing.clock._virtual.MOST_THREAD_SECONDS", 0.1)
    with pytest.raises(TimeLimitError, match="a thread has been at work for") as caught:
        run(main, backend=backend)
    done.set()
    assert "the main task\n    waits for a thread\n    at test_hangs.py:" in str(caught.value)


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
        "the main task\n    waits for the tasks of its task group\n    at test_hangs"
    )
    assert caught.value.waiting[4] == "and 47 more tasks wait, most of them as those above do"


async def stand_there(event: anyio.Event) -> None:
    await event.wait()


async def test_the_main_task_is_told_of_though_many_wait_where_it_does() -> None:
    """Whichever is looked at first."""
    event = anyio.Event()
    coroutines = [stand_there(event) for _ in range(10)]
    for coroutine in coroutines:
        coroutine.send(None)
    waiters = [Waiter(f"other {number}", coroutine) for number, coroutine in enumerate(coroutines)]
    told = describe([*waiters[:-1], Waiter("main", coroutines[-1], main=True)])
    for coroutine in coroutines:
        coroutine.close()
    assert sum(each.startswith("task 'other") for each in told) < 9
    assert sum(each.startswith("the main task") for each in told) == 1


def test_the_traceback_is_short(backend: str) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(anyio.sleep_forever, backend=backend)
    assert len(caught.traceback) == 2


# --- programs that go on and on


def test_a_heartbeat_is_not_watched_for_ever(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - on purpose
            await anyio.sleep(0.001)

    monkeypatch.setattr("workerbus.testing.clock._virtual.MOST_JUMPS", 1_000)
    with pytest.raises(TimeLimitError, match="the program has let time pass 1,000 times, and has not ended"):
        run(main, backend=backend)


def test_a_program_that_goes_on_for_ever_meets_the_limit(backend: str) -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - on purpose
            await anyio.sleep(60)

    with pytest.raises(TimeLimitError, match="has not ended in 3,600 seconds of virtual time") as caught:
        run(main, backend=backend, limit=3600)
    assert caught.value.time == 3600
    assert "at test_hangs.py:" in str(caught.value)


@pytest.mark.slow
def test_a_program_that_never_waits_is_ended(backend: str) -> None:
    async def main() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(SpinError, match="tasks have run 200,001 times on end"):
        run(main, backend=backend)


async def poll(pause: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.Event().wait)
        while True:
            await pause()


@pytest.mark.slow
@pytest.mark.parametrize("pause", [lambda: anyio.sleep(0), anyio.lowlevel.checkpoint])  # noqa: ASYNC115 - one of both
def test_who_spins_is_named_first(pause: Callable[[], Awaitable[None]], backend: str) -> None:
    with pytest.raises(SpinError, match="the program spins") as caught:
        run(poll, pause, backend=backend)
    text = "the main task\n    does not wait: it goes on and on, and only lets others run\n    at test_hangs.py:"
    assert caught.value.waiting[0].startswith(text)


# --- how they end


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


def test_a_program_that_is_stuck_in_its_wind_down_is_pushed_again_and_again(backend: str) -> None:
    reached: list[str] = []

    async def main() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            try:
                with CancelScope(shield=True):
                    await anyio.sleep_forever()
            finally:
                reached.append("first")
                try:
                    with CancelScope(shield=True):
                        await anyio.sleep_forever()
                finally:
                    reached.append("second")

    with pytest.raises(DeadlockError) as caught:
        run(main, backend=backend)
    assert reached == ["first", "second"]
    assert sum("got stuck again" in note for note in caught.value.__notes__) == 1


def test_a_program_whose_time_is_over_has_time_to_wind_down(backend: str) -> None:
    over: list[float] = []

    async def main() -> None:
        try:
            await sleep(100)
        finally:
            with CancelScope(shield=True):
                await sleep(20)
            over.append(current_time())

    with pytest.raises(TimeLimitError) as caught:
        run(main, backend=backend, limit=10)
    assert len(over) == 1
    assert not any("got stuck again" in line for line in caught.value.__notes__)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it is left where it stands
def test_a_program_that_swallows_its_cancellation_is_given_up(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        while True:
            with contextlib.suppress(anyio.get_cancelled_exc_class()):
                await anyio.Event().wait()

    monkeypatch.setattr("workerbus.testing.clock._virtual.MOST_TURNS", 500)
    with pytest.raises(DeadlockError, match="waits for an event that nobody sets"):
        run(main, backend=backend)
    gc.collect()


def test_an_error_of_the_program_in_its_wind_down_does_not_hide_the_hang(backend: str) -> None:
    async def main() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise JobError("in the wind-down", job_id="1", statuses={}, responses={})

    with pytest.raises(DeadlockError):
        run(main, backend=backend)
