"""P6: heartbeats, and what the start bears."""

import pytest
from anyio import sleep

from support.pipelines import Gate, Spy, flowing, for_texts, run_through, slow, worker_of
from support.workers import running
from workerbus import BusBridgeProcessor, BusFrameMessage
from workerbus.pipeline import (
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    HeartbeatFrame,
    InterruptionFrame,
    ParallelPipeline,
    PipelineParams,
    StartFrame,
    TextFrame,
)
from workerbus.testing import RecordingBus, nothing_left, settle

BEATS = PipelineParams(enable_heartbeats=True)


async def test_heartbeats_go_through_the_pipeline_again_and_again() -> None:
    """P6"""
    spy, last = Spy(), Spy()
    async with nothing_left(), flowing(spy, last, params=BEATS):
        await sleep(2.5)
    beats = [frame for frame in last.got if isinstance(frame, HeartbeatFrame)]
    assert [frame.timestamp - beats[0].timestamp for frame in beats] == [0, 10**9, 2 * 10**9]


async def test_without_being_asked_for_there_are_none() -> None:
    """P6"""
    spy = Spy()
    async with flowing(spy):
        await sleep(5)
    assert not [frame for frame in spy.got if isinstance(frame, HeartbeatFrame)]


async def test_a_stuck_pipeline_is_told_of_and_does_not_fill_up(caplog: pytest.LogCaptureFixture) -> None:
    """P6"""
    gate = Gate()
    spy = Spy(for_texts(gate), name="stuck")
    params = PipelineParams(enable_heartbeats=True, heartbeats_period_secs=0.5, heartbeats_monitor_secs=3)
    async with flowing(Spy(), spy, params=params) as worker:
        await worker.queue_frame(TextFrame("x"))
        await sleep(8)
        texts = [record.getMessage() for record in caplog.records]
        warning = "no heartbeat has come through the pipeline of worker 'w' for more than 3 seconds; at work: 'stuck'"
        assert texts == [warning] * 2
        gate.open()
        await spy.until(3, HeartbeatFrame)
        await sleep(5)
        assert len(caplog.records) == 2


class Keeps(FrameProcessor):
    """Pushes no heartbeat on."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, HeartbeatFrame):
            await self.push_frame(frame, direction)


async def test_a_processor_that_keeps_heartbeats_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """P6: nobody is at work, and none comes out."""
    params = PipelineParams(enable_heartbeats=True, heartbeats_monitor_secs=3)
    async with flowing(Keeps(), Spy(), params=params):
        await sleep(3.5)
    assert "for more than 3 seconds; at work: nobody" in caplog.text


async def test_a_heartbeat_waits_for_all_branches(caplog: pytest.LogCaptureFixture) -> None:
    """P6"""
    last = Spy()
    params = PipelineParams(enable_heartbeats=True, heartbeats_monitor_secs=3)
    async with flowing(ParallelPipeline([Spy()], [Keeps()]), last, params=params):
        await sleep(3.5)
    assert not [frame for frame in last.got if isinstance(frame, HeartbeatFrame)]
    assert "no heartbeat has come through" in caplog.text


async def test_an_interruption_drops_no_heartbeat(caplog: pytest.LogCaptureFixture) -> None:
    """P1, P6"""
    spy, last = Spy(slow(2)), Spy()
    async with flowing(spy, last, params=BEATS) as worker:
        await worker.queue_frame(TextFrame("x"))
        await sleep(1.5)
        await worker.queue_frame(InterruptionFrame())
        await last.until(2, HeartbeatFrame)
    assert not caplog.records


async def test_no_heartbeat_leaves_the_worker() -> None:
    """P3, P4, P6"""
    bus = RecordingBus()
    bridge = BusBridgeProcessor(bus=bus, worker_name="w")
    last = Spy()
    async with running(worker_of(bridge, last, bridged=("x",), params=BEATS, name="w"), bus=bus):
        await last.until(3, HeartbeatFrame)
    assert not bus.messages(BusFrameMessage)


async def test_heartbeats_hold_no_end_up() -> None:
    """P2, P6"""
    last = Spy(slow(5))
    worker = worker_of(last, params=BEATS, name="w")
    async with nothing_left(), running(worker):
        await worker.queue_frame(TextFrame("x"))
        await worker.queue_frame(EndFrame())
        await worker.wait()
    assert last.log[-2:] == ["EndFrame", "cleanup"]
    assert len([frame for frame in last.got if isinstance(frame, HeartbeatFrame)]) <= 1


async def test_the_start_bears_what_it_is_given() -> None:
    """P6"""
    spy = Spy()
    given = {"session": 7}
    await run_through(worker_of(spy, params=PipelineParams(start_metadata=given)))
    [start] = [frame for frame in spy.got if isinstance(frame, StartFrame)]
    assert start.metadata == {"session": 7}
    assert start.metadata is not given


def test_params_that_cannot_be_are_refused() -> None:
    """N8"""
    for name in ("heartbeats_period_secs", "heartbeats_monitor_secs"):
        with pytest.raises(ValueError, match=f"{name} is a number of seconds, more than 0; not 0"):
            PipelineParams(**{name: 0})  # type: ignore[arg-type]  # as it is refused
    with pytest.raises(TypeError, match="params are PipelineParams, not"):
        worker_of(Spy(), params={})
    with pytest.raises(TypeError):
        PipelineParams(True)  # type: ignore[call-arg]  # by name alone


async def test_heartbeats_end_with_a_queued_end() -> None:
    """P2, P6"""
    spy = Spy()
    async with flowing(spy, params=BEATS) as worker:
        await settle()
        await worker.stop_when_done()
        await worker.wait()
