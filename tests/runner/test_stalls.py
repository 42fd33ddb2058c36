"""R8, O2, L1: an event loop that stands still is told of, with what holds it up."""

import asyncio
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import create_task_group

from support.conditions import eventually
from support.messages import note
from support.runners import cut_short
from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, BusMessage, LoopStatistics, WorkerParams, WorkerRunner, job
from workerbus._concurrency.doing import Doing, doing_of
from workerbus.testing import DeadlockError, run

LIMIT = 0.1
NOTICED = r"(?s)stands still.*, in block"
PATIENCE = 30.0
"""Real seconds after which what is waited for has not come."""


class Told(logging.Handler):
    """Keeps what is said of the event loop, in whatever thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "event loop" in record.getMessage():
            self.records.append(record)

    def that_match(self, pattern: str) -> list[logging.LogRecord]:
        """Return the records whose text has something in it."""
        return [record for record in tuple(self.records) if re.search(pattern, record.getMessage())]


TOLD = Told()


@pytest.fixture(autouse=True)
def told() -> Iterator[Told]:
    TOLD.records.clear()
    logging.getLogger("workerbus.runner").addHandler(TOLD)
    yield TOLD
    logging.getLogger("workerbus.runner").removeHandler(TOLD)


@pytest.fixture
def anyio_backend(backend: str) -> tuple[str, dict[str, Any]]:
    """Real time: what is looked for does not happen in any other."""
    return backend, {}


def block() -> None:
    """Hold up the event loop until that is told of: here, to sleep is the very thing."""
    until = time.monotonic() + PATIENCE
    while not TOLD.that_match(NOTICED) and time.monotonic() < until:
        time.sleep(LIMIT / 10)


class Blocking(BaseWorker):
    """A worker whose code holds up the event loop, wherever it is told to."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(name)
        self.where = where

    def here(self, where: str) -> None:
        if self.where == where:
            block()

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.here("hook")

    async def on_bus_message(self, message: BusMessage) -> None:
        self.here("message")

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        self.here("run")
        await params.wait_for_end()

    async def cleanup(self) -> None:
        self.here("cleanup")
        await super().cleanup()

    async def in_a_task(self) -> None:
        self.here("task")

    @job(name="work")
    async def work(self, message: BusJobRequestMessage) -> None:
        self.create_task(self.in_a_task)
        async with create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
            self.here("handler")


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("handler", r"the handler of job 'work' \(.+\) at worker 'w'"),
        ("hook", "on_activated of worker 'w'"),
        ("message", "on_bus_message of worker 'w'"),
        ("task", "task 'in_a_task' of worker 'w'"),
        ("run", r"run\(\) of worker 'w'"),
        ("cleanup", "the end of worker 'w'"),
    ],
)
async def test_what_holds_up_the_event_loop_is_named_with_its_stack(where: str, what: str, told: Told) -> None:
    """R8: once while it lasts, and how long it was when it is over; the records say of whom."""
    async with running(Blocking("w", where), name="r", stall_seconds=LIMIT) as runner:
        await runner.job("w", name="work")
    (first,) = told.that_match(NOTICED)
    pattern = rf"^the event loop of runner 'r' stands still for more than 0.1 s: held up by {what}\n"
    assert re.match(pattern, first.getMessage()), first.getMessage()
    (last,) = told.that_match(rf"goes on, after \d+(\.\d+)? s: held up by {what}$")
    assert (first.levelno, first.name) == (logging.WARNING, "workerbus.runner")
    assert {(vars(each)["runner"], vars(each)["worker"]) for each in (first, last)} == {("r", "w")}
    assert ("job" in vars(first)) == (where == "handler")
    stalls = runner.statistics().loop
    assert stalls is not None
    assert stalls.stalls >= 1
    assert stalls.longest_lag > LIMIT


async def test_of_several_stalls_each_is_told_of_with_what_held_it_up(told: Told) -> None:
    """R8: by the same worker as the last one, or by another one."""
    async with running(*(Blocking(name, "handler") for name in "ab"), name="r", stall_seconds=LIMIT) as runner:
        for name in "abb":
            told.records.clear()
            await runner.job(name, name="work")
            what = rf"held up by the handler of job 'work' \(.+\) at worker '{name}'"
            await eventually(lambda: told.that_match(rf"goes on, after .* s: {what}$"))  # noqa: B023 - awaited here
            assert told.that_match(rf"stands still .*{what}\n")


async def test_a_task_that_the_library_does_not_know_is_named_by_its_function(told: Told) -> None:
    """R8: the program's own tasks hold up the workers, too."""

    async def greedy() -> None:
        block()

    async with WorkerRunner(handle_sigint=False, stall_seconds=LIMIT), create_task_group() as group:
        group.start_soon(greedy)
    assert told.that_match(r"held up by test_a_task_that\S+greedy\(\) in \S+:\d+\n")


async def test_a_tap_that_holds_up_the_loop_is_named(told: Told) -> None:
    """R8, O1"""

    def tap(message: BusMessage) -> None:
        block()

    async with WorkerRunner(handle_sigint=False, stall_seconds=LIMIT) as runner:
        runner.bus.add_tap(tap)
        await runner.bus.send(note(1))
        runner.bus.remove_tap(tap)
    assert told.that_match("stands still .* held up by a tap of bus")


async def test_a_tap_that_cannot_even_be_shown_is_seen_all_the_same(told: Told) -> None:
    """R8: whoever looks on is not stopped by what he looks at."""

    class Shy:
        def __repr__(self) -> str:
            raise ZeroDivisionError

        def __call__(self, message: BusMessage) -> None:
            block()

    async with WorkerRunner(handle_sigint=False, stall_seconds=LIMIT) as runner:
        tap = Shy()
        runner.bus.add_tap(tap)
        await runner.bus.send(note(1))
        runner.bus.remove_tap(tap)
    assert told.that_match(NOTICED)


async def test_many_short_tasks_are_not_taken_for_one_that_blocks(told: Told) -> None:
    """R8: the loop is late, and nobody is to blame alone."""
    until = time.monotonic() + PATIENCE

    async def short() -> None:
        while not told.that_match("too much to do, such as") and time.monotonic() < until:
            time.sleep(LIMIT / 20)  # blocks the loop, which is what is tested
            await anyio.lowlevel.checkpoint()

    async with WorkerRunner(handle_sigint=False, stall_seconds=LIMIT), create_task_group() as group:
        for _ in range(100):
            group.start_soon(short)
    assert told.that_match(r"stands still .* too much to do, such as \S+short\(\)")


async def test_stalls_that_come_while_one_is_being_logged_are_told_of_in_their_order(told: Told) -> None:
    """R8, O2: each of them, though the run ends, and each is counted."""
    is_logging, goes_on = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not is_logging.is_set():
                is_logging.set()
                goes_on.wait(PATIENCE)

    logger, slow = logging.getLogger("workerbus.runner"), Slow()
    logger.addHandler(slow)
    try:
        async with running(name="r", stall_seconds=LIMIT) as runner:
            seen: list[LoopStatistics] = [LoopStatistics(0, 0.0, 0.0)]

            def is_over() -> bool:
                loop = runner.statistics().loop
                assert loop is not None
                if loop.stalls == seen[-1].stalls:
                    return False
                seen.append(loop)
                return True

            for seconds in (2, 3, 2.5):
                time.sleep(seconds * LIMIT)  # the loop stands still in real time: that is what is noticed
                await eventually(is_over)
            assert is_logging.wait(PATIENCE)
            goes_on.set()
    finally:
        logger.removeHandler(slow)
    lags = iter(
        re.findall(r"after ([\d.]+) s", "".join(each.getMessage() for each in told.that_match("goes on, after")))
    )
    assert all(f"{each.lag:.3g}" in lags for each in seen[1:]), "they are told of in another order"
    assert seen[-1].stalls >= 3


async def test_a_loop_that_is_free_is_not_late(told: Told) -> None:
    """O2: what is counted is how late it is, and not how long it waits."""
    async with WorkerRunner(handle_sigint=False, stall_seconds=10) as runner:
        await anyio.lowlevel.checkpoint()
        loop = runner.statistics().loop
        assert loop is not None
        assert loop.stalls == 0
    assert told.records == []


def stall_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "stall watch" in thread.name]


async def test_no_thread_is_left_behind_by_an_end() -> None:
    """L1"""
    async with WorkerRunner(handle_sigint=False, stall_seconds=LIMIT, name="r") as runner:
        assert stall_threads() == ["workerbus r stall watch"]
        await runner.end()
    assert stall_threads() == []


async def test_no_thread_is_left_behind_by_a_cancel() -> None:
    """L1"""
    async with cut_short(), WorkerRunner(handle_sigint=False, stall_seconds=LIMIT) as runner:
        await runner.cancel()
        await anyio.sleep_forever()
    assert stall_threads() == []


async def test_no_thread_is_left_behind_by_an_error() -> None:
    """L1"""
    with pytest.raises(LookupError):
        async with WorkerRunner(handle_sigint=False, stall_seconds=LIMIT):
            raise LookupError
    assert stall_threads() == []


async def test_nobody_watches_unless_asked() -> None:
    """R8, O2"""
    async with WorkerRunner(handle_sigint=False) as runner:
        assert stall_threads() == []
        assert runner.statistics().loop is None


def test_in_virtual_time_nothing_is_watched(backend: str, told: Told) -> None:
    """R8: a program under test blocks as it likes, takes no time by it, and is found where it hangs."""

    async def main() -> None:
        async with WorkerRunner(handle_sigint=False, stall_seconds=LIMIT) as runner:
            await anyio.sleep(3600)
            assert stall_threads() == []
            time.sleep(3 * LIMIT)  # blocks the loop, which is what is tested
            await anyio.sleep(1)
            assert runner.health().stalled == 0.0
            await anyio.sleep_forever()

    with pytest.raises(DeadlockError):
        run(main, backend=backend)
    assert told.records == []


@pytest.mark.parametrize("seconds", [0, 0.009, -1, float("inf"), float("nan")])
def test_a_limit_that_makes_no_sense_is_refused(seconds: float) -> None:
    """N8, R8"""
    with pytest.raises(ValueError, match=r"stall_seconds is a number of seconds, 0\.01 or more"):
        WorkerRunner(stall_seconds=seconds)


async def test_health_seen_from_another_thread_says_that_the_loop_stands_still() -> None:
    """O2: who asks in the loop would get no answer meanwhile."""
    seen: list[Any] = []
    async with WorkerRunner(handle_sigint=False, stall_seconds=LIMIT) as runner:

        def look() -> None:
            while not (health := runner.health()).stalled:
                time.sleep(LIMIT / 10)  # in a thread: nobody tells it of a stall
            seen.append(health)

        thread = threading.Thread(target=look)
        thread.start()
        while thread.is_alive():
            time.sleep(LIMIT / 10)  # blocks the loop, which is what is tested
        await eventually(lambda: not runner.health().stalled)
        assert runner.health().ready
    (health,) = seen
    assert health.stalled > LIMIT
    assert not health.ready
    assert health.live
    assert health.reasons == (f"the event loop has stood still for {health.stalled:.3g} s",)


def test_what_holds_up_a_loop_is_told_from_the_users_code_on_however_the_loop_calls_it() -> None:
    """R8: of a transport, asyncio has several frames around what it calls."""
    found: list[Doing | None] = []

    class Blocking(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            found.append(doing_of(threading.get_ident()))

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await asyncio.get_running_loop().create_connection(Blocking, sock=ours)
            theirs.send(b"data")
            await eventually(lambda: found)
            transport.close()

    asyncio.run(main())
    doing = found[0]
    assert doing is not None
    assert "data_received() in" in doing.what
    first, *_ = [line for line in doing.stack.splitlines() if line.lstrip().startswith("File")]
    assert first.endswith("in data_received")
