"""What somebody meets who writes his first programs: how they hang, and what he hands over that is wrong."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    MemoryBus,
    PipelineWorker,
    ReservedNameError,
    WorkerRunner,
    bus_message,
    job,
)
from workerbus.pipeline import DataFrame, Frame, FrameDirection, FrameProcessor, Pipeline, StartFrame
from workerbus.testing import (
    Behaviour,
    DeadlockError,
    EchoWorker,
    Faults,
    FaultyBus,
    RecordingBus,
    ScriptedWorker,
    SpinError,
    advance,
    assert_no_jobs,
    cancel_at_every_checkpoint,
    nothing_left,
    run,
)


class Text(DataFrame):
    pass


@bus_message
class Ping(BusDataMessage):
    n: int


# --- programs that hang


class Sink(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, Text):
            await anyio.sleep_forever()
        await self.push_frame(frame, direction)


class Source(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self.create_task(self.flood)

    async def flood(self) -> None:
        while True:
            await self.push_frame(Text())


class Feeds(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        while isinstance(frame, Text):
            await self.worker.queue_frame(Text())


class Keeps(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        pass


async def fill_a_processor() -> None:
    async with WorkerRunner() as runner:
        worker = PipelineWorker(Pipeline([Source("source"), Sink("sink", max_buffer_size=2)]), name="p")
        await runner.add_workers(worker)
        await worker.wait()


async def feed_oneself() -> None:
    async with WorkerRunner() as runner:
        worker = PipelineWorker(Pipeline([Feeds("feeds", max_buffer_size=2)]), name="p")
        await runner.add_workers(worker)
        await worker.queue_frame(Text())
        await worker.wait()


async def keep_the_start() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(PipelineWorker(Pipeline([Keeps("keeps")]), name="p"))
        await runner.registry.wait_for("p")


class Impatient(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.arrived = anyio.Event()

    async def on_job_response(self, message: Any) -> None:
        self.arrived.set()

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await self.request_job("echo")
        await self.arrived.wait()


async def wait_in_a_hook_for_a_hook() -> None:
    async with WorkerRunner() as runner:
        worker = Impatient("impatient")
        await runner.add_workers(EchoWorker("echo"), worker)
        await worker.wait()


class Flooder(BaseWorker):
    async def on_bus_message(self, message: Any) -> None:
        if isinstance(message, Ping):
            other = "b" if self.name == "a" else "a"
            for n in range(10):
                await self.send_bus_message(Ping(n, source=self.name, target=other))


async def flood_each_other() -> None:
    async with WorkerRunner(bus=MemoryBus(max_buffer_size=4)) as runner:
        await runner.add_workers(Flooder("a"), Flooder("b"))
        await runner.registry.wait_for("b")
        await runner.bus.send(Ping(0, source="main", target="a"))
        await anyio.sleep_forever()


class Broken(BaseWorker):
    async def start(self) -> None:
        raise ConnectionError("no database")


async def ask_one_that_has_failed() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Broken("db"))
        await runner.job("db")


async def lose_the_request() -> None:
    faults = Faults(lose=1.0, spare=lambda message: not isinstance(message, BusJobRequestMessage))
    async with FaultyBus(MemoryBus(), faults=faults, name="left") as left, left.end("right") as right:
        here, there = WorkerRunner(bus=left, name="here"), WorkerRunner(bus=right, name="there")
        async with here, there:
            await there.add_workers(EchoWorker("echo"))
            await here.job("echo")


async def wait_for_a_message() -> None:
    await RecordingBus(name="bus").wait_for(BusJobRequestMessage, source="a", target="b", matching=bool)


async def ask_one_that_is_to_hang() -> None:
    async with WorkerRunner(name="r") as runner:
        await runner.add_workers(ScriptedWorker("stuck", Behaviour("hang")))
        await runner.job("stuck", name="do")


async def ask_many() -> None:
    async with WorkerRunner() as runner:
        names = [f"w{number:02}" for number in range(12)]
        await runner.add_workers(*(ScriptedWorker(name, Behaviour("hang")) for name in names))
        await runner.job_group(*names)


class Own(BaseWorker):
    @job(name="quit")
    async def quit(self, message: BusJobRequestMessage) -> None:
        await self.wait()


async def wait_for_ones_own_end() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Own("own"))
        await runner.job("own", name="quit")


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        (
            fill_a_processor,
            [
                "processor 'sink' of worker 'p', with Text#",
                "    waits for ever: it sleeps\n    at ",
                "    and keeps waiting, behind it: Text#",
                "task 'source flood'\n    waits for room before processor 'sink', which is full\n    at ",
            ],
        ),
        (
            feed_oneself,
            [
                "waiting for itself is\n    processor 'feeds' of worker 'p', with Text#",
                "for room before processor 'feeds'",
            ],
        ),
        (keep_the_start, ["waits for worker 'p' to be ready: the StartFrame was not pushed on by 'keeps'"]),
        (wait_in_a_hook_for_a_hook, ["    and keeps waiting, behind it: hook on_job_response"]),
        (
            flood_each_other,
            [
                "wait\n    worker 'a', hook on_bus_message\n    worker 'b', hook on_bus_message\n\n",
                "waits for room in the data lane of 'b', which is full",
                "behind it: hook on_bus_message (Ping), hook on_bus_message (Ping)",
            ],
        ),
        (ask_one_that_has_failed, ["worker 'db' to come, which has failed: ConnectionError: no database"]),
        (lose_the_request, ["on the network of left and right\n    at ", "the request of 'here' to 'echo' (job "]),
        (
            wait_for_a_message,
            ["waits for a BusJobRequestMessage from 'a' to 'b' that matches to be sent over bus 'bus'\n    at "],
        ),
        (ask_one_that_is_to_hang, ["asked for by 'r'\n    waits for ever: it is scripted to hang\n\nthe main task"]),
        (ask_many, ["'w09', and 2 more to job"]),
        (
            wait_for_ones_own_end,
            ["    waits for worker 'own' to finish\n    at ", "await self.wait()\n\nthe main task\n"],
        ),
    ],
)
def test_the_text_says_what_keeps_it_from_going_on(
    program: Callable[[], Awaitable[None]], texts: list[str], backend: str
) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(program, backend=backend)
    for text in texts:
        assert text in str(caught.value)


async def poll(pause: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.Event().wait)
        while True:
            await pause()


@pytest.mark.parametrize("pause", [lambda: anyio.sleep(0), anyio.lowlevel.checkpoint])  # noqa: ASYNC115 - one of both
def test_who_spins_is_named_first(pause: Callable[[], Awaitable[None]], backend: str) -> None:
    with pytest.raises(SpinError, match="the program spins") as caught:
        run(poll, pause, backend=backend)
    text = "the main task\n    does not wait: it goes on and on, and only lets others run\n    at test_newcomers.py:"
    assert caught.value.waiting[0].startswith(text)


def test_a_sleep_without_an_end_is_no_timer(backend: str) -> None:
    with pytest.raises(DeadlockError, match=r"the main task\n    waits for ever: it sleeps"):
        run(anyio.sleep, float("inf"), backend=backend)


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


def test_the_traceback_is_short(backend: str) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(anyio.sleep_forever, backend=backend)
    assert len(caught.traceback) == 2


def test_a_body_that_waits_for_the_events_of_a_group_says_of_which_job(backend: str) -> None:
    async def main() -> None:
        async with stuck() as runner, runner.job_group("stuck", name="do") as group:
            async for _ in group:
                pass

    with pytest.raises(DeadlockError, match=r"waits for the answer of 'stuck' to job 'do' \("):
        run(main, backend=backend)


def test_who_is_idle_because_it_is_inactive_is_told_apart(backend: str) -> None:
    async def main() -> None:
        async with WorkerRunner(name="office") as runner:
            await runner.add_workers(EchoWorker("awake"), EchoWorker("asleep", active=False))
            await runner.registry.wait_for("asleep")
            await runner.bus.send(Ping(1, source="me", target="asleep"))
            await anyio.Event().wait()

    with pytest.raises(DeadlockError) as caught:
        run(main, backend=backend)
    *_, last = caught.value.waiting
    assert sorted(last.removeprefix("idle, as they should be, are: ").split(", ")) == [
        "runner 'office'",
        "worker 'asleep' (inactive)",
        "worker 'awake'",
    ]


@asynccontextmanager
async def stuck() -> AsyncIterator[WorkerRunner]:
    async with WorkerRunner() as runner:
        await runner.add_workers(ScriptedWorker("stuck", Behaviour("hang")))
        yield runner


def test_a_scenario_that_hangs_while_it_is_to_be_cut_is_described(backend: str) -> None:
    async def ask(runner: WorkerRunner) -> None:
        await runner.job("stuck", name="do")

    with pytest.raises(DeadlockError) as caught:
        cancel_at_every_checkpoint(ask, set_up=stuck, backend=backend)
    text = str(caught.value)
    assert ".<locals>.ask'\n    waits for the answer of 'stuck' to job 'do' (" in text
    assert 'await runner.job("stuck", name="do")' in text


# --- what is handed over


async def nothing(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"seed": "x"}, TypeError, "seed must be a whole number, or None for the backend's own order, not 'x'"),
        ({"seed": (1,)}, TypeError, "seed must be a whole number"),
        ({"limit": "5"}, ValueError, "limit must be a number of seconds above 0, not '5'"),
        ({"limit": None}, ValueError, "limit must be a number of seconds above 0, not None"),
        ({"patience": "5"}, ValueError, "patience must be a number of real seconds, not '5'"),
    ],
)
def test_what_is_no_number_is_refused(values: dict[str, Any], error: type[Exception], text: str, backend: str) -> None:
    with pytest.raises(error, match=text):
        run(nothing, backend=backend, **values)


def test_a_function_that_is_not_async_is_named(backend: str) -> None:
    def plain() -> int:
        return 1

    with pytest.raises(TypeError, match=r"run takes an async function, and <function .*plain at .* has returned 1"):
        run(plain, backend=backend)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("seconds", [-1, "1", None, float("inf"), float("nan")])
def test_time_goes_forward_by_a_number_of_seconds(seconds: Any, backend: str) -> None:
    with pytest.raises(ValueError, match="seconds must be a number, finite and not less than 0, not"):
        run(advance, seconds, backend=backend)


def test_a_check_of_nothing_is_refused(backend: str) -> None:
    with pytest.raises(TypeError, match=r"assert_no_jobs looks at .*, each an argument of its own, not at \("):
        assert_no_jobs((WorkerRunner(),))  # type: ignore[arg-type]  # on purpose

    async def main() -> None:
        async with nothing_left("bus"):  # type: ignore[arg-type]  # on purpose
            pass

    with pytest.raises(TypeError, match="nothing_left looks at runners, workers and buses"):
        run(main, backend=backend)


@asynccontextmanager
async def something() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("scenario", "values", "error", "text"),
    [
        (1, {}, TypeError, "scenario must be a function, which each run calls anew, not 1"),
        (lambda _: 1, {"set_up": something}, TypeError, "the scenario must be an async function, and has returned 1"),
        (lambda _: nothing(), {}, TypeError, "missing 1 required positional argument"),
        (nothing, {"set_up": something()}, TypeError, "set_up must be a function"),
        (nothing, {"set_up": lambda: 1}, TypeError, "set_up must return an async context manager, and has returned 1"),
        (nothing, {"how": "kill"}, ValueError, "how must be one of 'scope', 'native', 'race', 'raise', not 'kill'"),
        (nothing, {"max_runs": 0}, ValueError, "max_runs must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    scenario: Any, values: dict[str, Any], error: type[Exception], text: str, backend: str
) -> None:
    with pytest.raises(error, match=text):
        cancel_at_every_checkpoint(scenario, backend=backend, **values)


def test_a_job_handler_takes_no_name_of_the_librarys() -> None:
    with pytest.raises(ReservedNameError, match="Starts has an attribute 'start'"):

        class Starts(BaseWorker):
            @job(name="start")
            async def start(self, message: BusJobRequestMessage) -> None:  # type: ignore[override]  # on purpose
                pass


@pytest.mark.parametrize(
    ("make", "given", "text"),
    [
        (Behaviour, {"error": "boom"}, r"error is an exception, as ValueError\('boom'\) is one, not 'boom'"),
        (Behaviour, {"response": [1]}, r"response is a dict, not \[1\]"),
        (ScriptedWorker, {"script": "hang"}, r"a script is made of behaviours, .* is one, not of 'h'"),
        (ScriptedWorker, {"script": {"do": [1]}}, "a script is made of behaviours, .*, not of 1"),
        (RecordingBus().messages, {"kind": "Ping"}, "kind is a class of messages, not 'Ping'"),
    ],
)
def test_what_is_no_part_of_a_script_is_refused(make: Callable[..., object], given: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        make(**given)


# --- timeouts


@pytest.mark.parametrize("seed", range(6))
def test_a_timeout_says_who_has_not_answered_whoever_saw_it_first(backend: str, seed: int) -> None:
    async def main() -> None:
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(ScriptedWorker("poll", Behaviour("hang")), EchoWorker("echo"))
            async with runner.job_group("poll", "echo", timeout=3):
                pass

    with pytest.raises(TimeoutError, match=r": timeout \(no answer from 'poll'\)\n"):
        run(main, backend=backend, seed=seed)
