"""What the laws of pipelines and bridges have found, as plain tests."""

import copy
from typing import Any

import anyio
import pytest

from support.pipelines import DOWN, Alert, Gate, Spy, for_texts, run_through, texts, worker_of
from support.workers import Helper, running
from workerbus import BusFrameMessage, BusMessage, MemoryBus, WorkerRunner
from workerbus.pipeline import EndFrame, Frame, FrameDirection, FrameProcessor, ParallelPipeline, TextFrame
from workerbus.pipeline._crossing import SENDERS, Twice
from workerbus.testing import settle


class SlowFirst(MemoryBus):
    """The first frame takes longer than the second."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: list[Any] = []

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusFrameMessage):
            await anyio.sleep(0.1 / int(message.frame.text))
            self.arrived.append(message.frame.text)
        await super().publish(message)


async def test_frames_from_branches_keep_their_order_on_a_slow_bus() -> None:
    """P1, P3: each branch pushes from a task of its own; the second frame does not get ahead of the first."""
    bus = SlowFirst()
    worker = worker_of(ParallelPipeline([Spy()], [Spy()]), bridged=(), name="w")
    async with running(worker, bus=bus):
        await worker.queue_frames(texts(1, 2, 3))
        await anyio.sleep(1)
    assert bus.arrived == ["1", "2", "3"]


async def test_a_cancelled_queueing_of_an_end_is_no_half_an_end() -> None:
    """P2: an end does not wait for room, so there is nothing that could be cancelled half-way."""
    gate, ends = Gate(), []
    worker = worker_of(Spy(for_texts(gate), max_buffer_size=1), name="w")
    worker.add_event_handler("on_pipeline_finished", lambda _, frame: ends.append(frame))
    async with running(worker):
        await worker.queue_frame(TextFrame("1"))
        await gate.reached.wait()
        await worker.queue_frame(TextFrame("2"))
        with anyio.move_on_after(1):
            await worker.queue_frame(EndFrame())
        gate.open()
        await worker.stop_when_done()
        await worker.wait()
    assert [type(frame) for frame in ends] == [EndFrame]


class Twin(FrameProcessor):
    """Pushes a copy of each text that says who made it."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            frame = copy.copy(frame)
            frame.text += self.name
        await self.push_frame(frame, direction)


async def test_copies_that_two_branches_make_of_one_frame_are_two_frames() -> None:
    """P1: a copy has been nowhere yet."""
    last = Spy()
    await run_through(worker_of(ParallelPipeline([Twin("1")], [Twin("2")]), last, name="w"), TextFrame("y"))
    assert sorted(last.heard) == ["y1", "y2"]


def test_a_copy_has_a_number_and_metadata_of_its_own() -> None:
    frame = TextFrame("y", pts=3, metadata={"a": 1})
    twin = copy.copy(frame)
    twin.metadata["b"] = 2
    assert (twin.text, twin.pts, frame.metadata) == ("y", 3, {"a": 1})
    assert twin.id != frame.id


class Interrupts(FrameProcessor):
    """Interrupts the pipeline at an alert."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, Alert):
            await self.broadcast_interruption()
        else:
            await self.push_frame(frame, direction)


async def test_an_interruption_from_one_branch_empties_the_others() -> None:
    """P1: it is for the whole pipeline."""
    gate = Gate()
    other = Spy(for_texts(gate))
    worker = worker_of(ParallelPipeline([Interrupts()], [other]), name="w")
    async with running(worker):
        await worker.queue_frames(texts(1, 2))
        await gate.reached.wait()
        await worker.queue_frame(Alert("x"))
        await settle()
        assert gate.left == 1
        gate.open()
        await settle()
        assert other.heard[:1] == ["1"]
        assert "2" not in other.heard


async def test_what_a_deactivated_worker_was_given_here_goes_out() -> None:
    """W3, P3: also where it has not come over any bridge."""
    spy, gate = Spy(), Gate()
    a = worker_of(Spy(for_texts(gate)), bridged=(), name="a")
    async with running(a, worker_of(spy, bridged=(), name="b")):
        await a.queue_frames(texts(1, 2))
        await gate.reached.wait()
        await a.deactivate_worker("a")
        gate.open()
        await settle()
    assert spy.heard == ["1", "2"]


async def test_workers_with_two_bridges_in_common_hear_each_frame_once() -> None:
    """P3: it goes out once for each bridge; a frame that is sent twice is heard twice."""
    spy = Spy()
    a = worker_of(Spy(), bridged=("one", "two"), name="a")
    async with running(a, worker_of(spy, bridged=("one", "two"), name="b")):
        frame = TextFrame("x")
        await a.queue_frame(frame, DOWN)
        await settle()
        assert spy.heard == ["x"]
        await a.queue_frame(frame, DOWN)
        await settle()
    assert spy.heard == ["x", "x"]


class Asks(FrameProcessor):
    """Asks for a job for each text."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Any] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            self.answers.append(await self.worker.job("helper", name="echo", payload={"text": frame.text}))
        await self.push_frame(frame, direction)


async def test_a_processor_may_ask_for_a_job_with_the_first_frame() -> None:
    """P2, J14: no frame is handled before the worker has started."""
    asks = Asks()
    worker = worker_of(asks, name="asks")
    await worker.add_workers(Helper("helper"))
    await run_through(worker, TextFrame("1"))
    assert [answer["payload"] for answer in asks.answers] == [{"text": "1"}]


class Late(FrameProcessor):
    """Pushes the end on twelve seconds later."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, EndFrame):
            await anyio.sleep(12)
        await self.push_frame(frame, direction)


async def test_an_end_that_comes_while_the_worker_starts_is_watched_once(caplog: pytest.LogCaptureFixture) -> None:
    """P2: between the start of the pipeline and that of its worker; the log says once for whom it waits."""
    worker = worker_of(Late("late"), name="w")

    async def end(_: object) -> None:
        await worker.stop_when_done()

    runner = WorkerRunner(handle_sigint=False)
    await runner.registry.watch("w", end)
    async with runner:
        await runner.add_workers(worker)
        await worker.wait()
    assert caplog.messages == ["the pipeline of worker 'w' has not ended in 5 seconds: it waits for 'late'"]


def test_a_receiver_forgets_senders_that_come_and_go() -> None:
    """P3: what it knows of them is bounded, and nothing is kept of those that name no bridge."""
    twice = Twice()
    for number in range(3 * SENDERS):
        for bridge in (None, "one", "two"):
            message = BusFrameMessage(TextFrame("x"), DOWN, bridge, source=f"w{number}")
            assert not twice.seen(message)
    assert len(twice._last) == SENDERS
