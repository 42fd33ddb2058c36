"""What keeps workers, pipelines and buses from going on, as the text of a hang says it."""

import io
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from rich.console import Console

from support.workers import stuck
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    MemoryBus,
    PipelineWorker,
    WorkerRunner,
    bus_message,
    job,
    rich_progress,
)
from workerbus.pipeline import DataFrame, Frame, FrameDirection, FrameProcessor, Pipeline, StartFrame
from workerbus.testing import Behaviour, DeadlockError, EchoWorker, Faults, FaultyBus, RecordingBus, ScriptedWorker, run


async def ask_many() -> None:
    async with WorkerRunner() as runner:
        names = [f"w{number:02}" for number in range(12)]
        await runner.add_workers(*(ScriptedWorker(name, Behaviour("hang")) for name in names))
        await runner.job_group(*names)


class Broken(BaseWorker):
    async def start(self) -> None:
        raise ConnectionError("no database")


async def wait_for_one_that_has_failed() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Broken("db"))
        await runner.registry.wait_for("db")


async def ask_one_that_is_to_hang() -> None:
    async with WorkerRunner(name="r") as runner:
        await runner.add_workers(ScriptedWorker("stuck", Behaviour("hang")))
        await runner.job("stuck", name="do")


class Text(DataFrame):
    pass


class Feeds(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await self.push_frame(frame, direction)
        while isinstance(frame, Text):
            await self.worker.queue_frame(Text())


async def feed_oneself() -> None:
    async with WorkerRunner() as runner:
        worker = PipelineWorker(Pipeline([Feeds("feeds", max_buffer_size=2)]), name="p")
        await runner.add_workers(worker)
        await worker.queue_frame(Text())
        await worker.wait()


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


async def fill_a_processor() -> None:
    async with WorkerRunner() as runner:
        worker = PipelineWorker(Pipeline([Source("source"), Sink("sink", max_buffer_size=2)]), name="p")
        await runner.add_workers(worker)
        await worker.wait()


@bus_message
class Ping(BusDataMessage):
    n: int


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


class Keeps(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        pass


async def keep_the_start() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(PipelineWorker(Pipeline([Keeps("keeps")]), name="p", start_timeout_secs=None))
        await runner.registry.wait_for("p")


async def lose_the_request() -> None:
    faults = Faults(lose=1.0, spare=lambda message: not isinstance(message, BusJobRequestMessage))
    async with FaultyBus(MemoryBus(), faults=faults, name="left") as left, left.end("right") as right:
        here, there = WorkerRunner(bus=left, name="here"), WorkerRunner(bus=right, name="there")
        async with here, there:
            await there.add_workers(EchoWorker("echo"))
            await here.job("echo")


async def wait_for_a_message() -> None:
    await RecordingBus(name="bus").wait_for(BusJobRequestMessage, source="a", target="b", matching=bool)


class Own(BaseWorker):
    @job(name="quit")
    async def quit(self, message: BusJobRequestMessage) -> None:
        await self.wait()


async def wait_for_ones_own_end() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Own("own"))
        await runner.job("own", name="quit")


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
        (wait_for_one_that_has_failed, ["worker 'db' to come, which has failed: ConnectionError: no database"]),
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


def test_a_body_that_waits_for_the_events_of_a_group_says_of_which_job(backend: str) -> None:
    async def main() -> None:
        async with stuck() as runner, runner.job_group("stuck", name="do") as group:
            async for _ in group:
                pass

    with pytest.raises(DeadlockError, match=r"waits for the answer of 'stuck' to job 'do' \("):
        run(main, backend=backend)


def test_a_program_that_shows_progress_still_hangs_and_says_of_which_job(backend: str) -> None:
    """J20: whoever looks at progress, or has it shown in a pipe, keeps nothing going."""

    async def main() -> None:
        async with stuck() as runner:
            asked = runner.job_group("stuck", name="do")
            async with rich_progress(asked, console=Console(file=io.StringIO(), force_terminal=False)) as group:
                async for _ in group.progress():
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
