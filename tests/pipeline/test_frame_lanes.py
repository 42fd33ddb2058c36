"""P1, P2: a lane of frames alone: when it tells that it is quiet."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio

from support.pipelines import DOWN
from workerbus._concurrency.own_tasks import OwnTask, TaskHandle
from workerbus.pipeline import Frame, FrameDirection, TextFrame
from workerbus.pipeline._frame_lane import FrameLane
from workerbus.testing import settle


class Handling:
    """What a lane has handled, and what has been told of it, in order; a frame is handled when it is let go."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gates: dict[str, anyio.Event] = {}

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        assert isinstance(frame, TextFrame)
        if frame.text in self.gates:
            await self.gates[frame.text].wait()
        self.log.append(frame.text)

    async def fail(self, *_: Any) -> None:
        raise AssertionError("nothing fails, and nothing is joined")

    def note(self, what: str) -> Callable[[], None]:
        return partial(self.log.append, what)


@asynccontextmanager
async def lane_of(handling: Handling) -> AsyncIterator[FrameLane]:
    """Run a lane while the block runs."""
    async with anyio.create_task_group() as group:

        def start(lane: FrameLane) -> TaskHandle:
            task = OwnTask("lane")
            group.start_soon(task.run, lane.run())
            return task

        yield FrameLane("it", start, handling, handling.fail, handling.fail)
        group.cancel_scope.cancel()


def entry(text: str) -> tuple[Frame, FrameDirection]:
    return TextFrame(text), DOWN


async def test_an_idle_lane_is_quiet_at_once_and_one_that_has_a_frame_when_that_is_handled() -> None:
    """P1: whether or not its task has begun, and also while the lane is held."""
    handling = Handling()
    async with lane_of(handling) as lane:
        lane.when_quiet(handling.note("idle"))
        lane.add(entry("a"))
        lane.when_quiet(handling.note("behind a"))
        await settle()
        lane.held += 1
        lane.add(entry("b"))
        lane.when_quiet(handling.note("behind b"))
        await settle()
        assert handling.log == ["idle", "a", "behind a"]
        lane.release()
        await settle()
    assert handling.log == ["idle", "a", "behind a", "b", "behind b"]


async def test_a_lane_is_quiet_when_the_last_frame_has_been_handled_and_not_when_it_is_taken() -> None:
    """P2: an end waits for what is being handled."""
    handling = Handling()
    handling.gates["a"] = anyio.Event()
    async with lane_of(handling) as lane:
        lane.add(entry("a"))
        await settle()
        lane.when_quiet(handling.note("quiet"))
        await settle()
        assert handling.log == []
        handling.gates["a"].set()
        await lane.quiet()
    assert handling.log == ["a", "quiet"]


async def test_whoever_waits_for_a_quiet_lane_is_not_told_past_a_frame_that_another_puts_in() -> None:
    """P1: a marker that lets a frame in, say; each is told once, in the order in which they came."""
    handling = Handling()
    handling.gates["a"] = anyio.Event()
    async with lane_of(handling) as lane:

        def lets_in(text: str) -> None:
            handling.log.append(f"lets {text} in")
            lane.add(entry(text))

        lane.add(entry("a"))
        lane.when_quiet(partial(lets_in, "b"))
        lane.when_quiet(handling.note("behind b"))
        lane.when_quiet(partial(lets_in, "c"))
        await settle()
        handling.gates["a"].set()
        await settle()
        await lane.quiet()
    assert handling.log == ["a", "lets b in", "b", "behind b", "lets c in", "c"]
