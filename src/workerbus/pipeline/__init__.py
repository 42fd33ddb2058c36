"""Pipelines: frames, processors, the worker that runs them, and their bridges to the bus (P1-P6).

A `Frame` travels DOWNSTREAM or UPSTREAM from one `FrameProcessor` to its neighbour. Each processor has a
`ProcessorInbox` with two lanes, system and data; a lane is a queue and one task that waits for frames. Pushing puts a
frame into the neighbour's lane, in the pusher's step. A `Pipeline` is a row of processors, a `ParallelPipeline` a fork:
neither has tasks. `PipelineWorker` is a `BaseWorker` that runs a pipeline: `RunningPipeline` starts and ends it. Frames
leave it at its two `Edge`s; if the worker is bridged, a `BusEdge` sends them on to the bus. A `BusBridgeProcessor`
exchanges frames with the bus in the middle of a pipeline. Each observer has a queue of its own.

The other packages do not know any of this.
"""

from workerbus._concurrency.own_tasks import TaskHandle
from workerbus.errors import (
    FlushError,
    FlushTimeoutError,
    FrameTypeError,
    PipelineStartTimeoutError,
    ProcessorInUseError,
)
from workerbus.pipeline._bridge import BusBridgeProcessor
from workerbus.pipeline._frames import (
    CancelFrame,
    ControlFrame,
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessorPauseFrame,
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeFrame,
    FrameProcessorResumeUrgentFrame,
    HeartbeatFrame,
    InterruptionFrame,
    StartFrame,
    StopFrame,
    SystemFrame,
    TextFrame,
    TTSSpeakFrame,
    UninterruptibleFrame,
    frame_type,
)
from workerbus.pipeline._observers import FrameProcessed, FramePushed, Observer
from workerbus.pipeline._owner import FrameProcessorSetup, FrameWorker
from workerbus.pipeline._params import START_TIMEOUT_SECONDS, PipelineParams
from workerbus.pipeline._pipeline import ParallelPipeline, Pipeline
from workerbus.pipeline._processor import FrameProcessor
from workerbus.pipeline._session import START_SECONDS
from workerbus.pipeline._synchronized import FrameOrder, SyncParallelPipeline
from workerbus.pipeline._worker import PipelineWorker

__all__ = [
    "START_SECONDS",
    "START_TIMEOUT_SECONDS",
    "BusBridgeProcessor",
    "CancelFrame",
    "ControlFrame",
    "DataFrame",
    "EndFrame",
    "ErrorFrame",
    "FlushError",
    "FlushTimeoutError",
    "Frame",
    "FrameDirection",
    "FrameOrder",
    "FrameProcessed",
    "FrameProcessor",
    "FrameProcessorPauseFrame",
    "FrameProcessorPauseUrgentFrame",
    "FrameProcessorResumeFrame",
    "FrameProcessorResumeUrgentFrame",
    "FrameProcessorSetup",
    "FramePushed",
    "FrameTypeError",
    "FrameWorker",
    "HeartbeatFrame",
    "InterruptionFrame",
    "Observer",
    "ParallelPipeline",
    "Pipeline",
    "PipelineParams",
    "PipelineStartTimeoutError",
    "PipelineWorker",
    "ProcessorInUseError",
    "StartFrame",
    "StopFrame",
    "SyncParallelPipeline",
    "SystemFrame",
    "TTSSpeakFrame",
    "TaskHandle",
    "TextFrame",
    "UninterruptibleFrame",
    "frame_type",
]
