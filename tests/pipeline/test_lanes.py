"""P1: the order of frames, who overtakes whom, and that nobody starves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.pipelines import DOWN, UP, Alert, Gate, Spy, flowing, for_texts, run_through, slow, texts, worker_of
from workerbus import WorkerRunner
from workerbus.pipeline import (
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
    InterruptionFrame,
    PipelineWorker,
    TextFrame,
)
from workerbus.pipeline._processor_inbox import inbox_of
from workerbus.testing import nothing_left, settle


async def test_frames_keep_their_order_through_every_processor() -> None:
    """P1"""
    first, last = Spy(), Spy()
    await run_through(worker_of(first, FrameProcessor(), last), *texts(*range(200)))
    assert first.heard == last.heard == [str(n) for n in range(200)]


async def test_frames_keep_their_order_in_each_direction() -> None:
    """P1"""
    middle = Spy(slow(0.01))
    async with flowing(Spy(), middle, Spy()) as worker:
        for n in range(50):
            await worker.queue_frame(TextFrame(f"down {n}"))
            await worker.queue_frame(TextFrame(f"up {n}"), UP)
        await middle.until(100)
    assert middle.heard_going(DOWN) == [f"down {n}" for n in range(50)]
    assert middle.heard_going(UP) == [f"up {n}" for n in range(50)]


async def test_upstream_frames_travel_from_the_last_to_the_first() -> None:
    """P1"""
    trail: list[str] = []

    async def leave_trail(spy: Spy, frame: Frame) -> None:
        trail.append(spy.name)

    spies = [Spy(leave_trail, name=name) for name in "abc"]
    async with flowing(*spies) as worker:
        await worker.queue_frame(TextFrame("x"), UP)
        await spies[0].until()
        assert trail == ["c", "b", "a"]


async def test_a_system_frame_overtakes_data_that_waits() -> None:
    """P1"""
    gate = Gate()
    spy = Spy(for_texts(gate))
    async with flowing(spy) as worker:
        await worker.queue_frames(texts("a", "b", "c"))
        await gate.reached.wait()
        await worker.queue_frame(Alert("!"))
        await spy.until(1, Alert)
        gate.open()
        await spy.until(3)
    assert spy.heard == ["a", "!", "b", "c"]


async def test_a_system_frame_waits_for_one_data_frame_at_most_where_handlers_never_suspend() -> None:
    """P1"""
    second = Spy()

    async def alert_after_ten(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "10":
            await spy.push_frame(Alert("!"))

    async with flowing(Spy(alert_after_ten), second) as worker:
        await worker.queue_frames(texts(*range(60)))
        await second.until(60)
    before = second.heard.index("!")
    assert before <= 11  # those that were ahead when it was sent, and one more


async def test_a_system_handler_that_is_suspended_holds_no_data_back() -> None:
    """P1, as B2"""

    async def hang_on_alerts(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await anyio.sleep_forever()

    spy = Spy(hang_on_alerts)
    runner = WorkerRunner(handle_sigint=False)
    worker = worker_of(spy, name="w")
    async with runner:
        await runner.add_workers(worker)
        await worker.queue_frame(Alert("!"))
        await worker.queue_frames(texts("a", "b"))
        await spy.until(2)
        await runner.cancel()


async def test_system_frames_that_wait_behind_one_that_is_suspended_hold_no_data_back() -> None:
    """B2, P1"""
    gate = Gate()

    async def on(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await gate(spy, frame)

    spy = Spy(on)
    async with flowing(spy) as worker:
        for word in ("suspended", "waits"):
            await worker.queue_frame(Alert(word))
        await gate.reached.wait()
        await worker.queue_frames(texts("goes on"))
        await settle()
        assert spy.heard == ["suspended", "goes on"]
        gate.open()


async def test_a_slow_processor_delays_only_what_is_behind_it() -> None:
    """P1"""
    before, after = Spy(), Spy()
    gate = Gate()
    async with flowing(before, Spy(for_texts(gate)), after) as worker:
        await worker.queue_frames(texts(*range(100)))
        await before.until(100)
        assert not after.heard
        gate.open()
        await after.until(100)


# --- letting others run


async def test_pushing_lets_others_run_now_and_then() -> None:
    """P1: every 64th push yields, and can be cancelled there"""

    class Endless(FrameProcessor):
        async def setup(self, setup: FrameProcessorSetup) -> None:
            self.create_task(self.produce)

        async def produce(self) -> None:
            while True:
                await self.push_frame(TextFrame("x"))

    last = Spy()
    async with nothing_left(), flowing(Endless(), last):
        await last.until(100)


async def settle_tasks() -> None:
    for _ in range(3):
        await checkpoint()


@pytest.mark.parametrize("count", [63, 640])
@pytest.mark.parametrize("from_outside", [True, False])
async def test_a_push_is_no_checkpoint_while_there_is_room(count: int, from_outside: bool) -> None:
    """P1"""
    first = Spy()
    async with flowing(first, Spy()) as worker:
        put = worker.queue_frame if from_outside else first.push_frame
        inbox_of(first).pushed = 0
        steps = 0

        async def count_steps() -> None:
            nonlocal steps
            while True:
                steps += 1
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(count_steps)
            await settle_tasks()
            before = steps
            for frame in texts(*range(count)):
                await put(frame)
            assert (steps > before) == (count == 640)
            group.cancel_scope.cancel()


async def test_a_flood_starves_nobody() -> None:
    """P1: a lane yields after 64 frames"""
    steps = 0

    async def count_steps() -> None:
        nonlocal steps
        while True:
            steps += 1
            await checkpoint()

    spy, gate = Spy(), Gate()
    async with flowing(Spy(for_texts(gate)), spy) as worker:
        await worker.queue_frames(texts(*range(6400)))
        await gate.reached.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(count_steps)
            await checkpoint()
            worker.pipeline.processors[0].on = None  # type: ignore[attr-defined]  # it is a Spy
            gate.open()
            await spy.until(6400)
            group.cancel_scope.cancel()
    assert steps >= 100


async def test_a_processor_that_never_waits_lets_others_run_now_and_then() -> None:
    """B2: a flood starves nobody, though the processor passes nothing on."""
    turns = 0
    seen: list[int] = []

    class Swallows(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TextFrame):
                seen.append(turns)
            else:
                await self.push_frame(frame, direction)

    async def others() -> None:
        nonlocal turns
        while len(seen) < 1000:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(others)
        await run_through(worker_of(Swallows()), *texts(*range(1000)))
    assert seen[-1] - seen[0] >= 10


async def test_who_queues_frames_without_a_pause_lets_others_run_now_and_then() -> None:
    """B2: a flood starves nobody."""
    turns, over = 0, False

    async def others() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await checkpoint()

    async with flowing(Spy()) as worker, anyio.create_task_group() as group:
        group.start_soon(others)
        for frame in texts(*range(1000)):
            await worker.queue_frame(frame)
        over = True
    assert turns >= 10


class Keeps(Spy):
    """Pushes no alert on, so that its handling never suspends."""

    async def push_frame(self, frame: Frame, direction: FrameDirection = DOWN) -> None:
        if not isinstance(frame, Alert):
            await super().push_frame(frame, direction)


@asynccontextmanager
async def more_alerts_than_a_pass_handles() -> AsyncIterator[tuple[PipelineWorker, Keeps]]:
    """Run a processor with 300 alerts and a text that may be handled from now on."""
    keeps = Keeps()
    async with flowing(keeps) as worker:
        await keeps.pause_processing_frames()
        await keeps.pause_processing_system_frames()
        await worker.queue_frame(TextFrame("data"))
        await worker.queue_frames([Alert(str(n)) for n in range(300)])
        await settle()
        await keeps.resume_processing_system_frames()
        await keeps.resume_processing_frames()
        yield worker, keeps


async def test_data_waits_for_all_system_frames_however_many_there_are() -> None:
    """P1: those too that the lane of system frames has not come to when it yields."""
    async with more_alerts_than_a_pass_handles() as (_, keeps):
        await settle()
    assert keeps.heard == [*map(str, range(300)), "data"]


async def test_an_interruption_drops_data_that_waits_for_system_frames() -> None:
    """P1: what comes later is handled."""
    async with more_alerts_than_a_pass_handles() as (worker, keeps):
        while not keeps.heard:
            await checkpoint()
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(TextFrame("later"))
        await settle()
    assert keeps.heard == [*map(str, range(300)), "later"]
