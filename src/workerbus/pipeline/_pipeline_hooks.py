"""The hooks of a pipeline worker, and the queue in which they wait (N3).

They have a queue of their own, beside those of every worker: it goes on until the pipeline has come to its end, when
the others have been closed.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._events import EventEmitter, EventHandlers
from workerbus.abc import HookCall
from workerbus.pipeline._frames import CancelFrame, EndFrame, ErrorFrame, Frame, FrameDirection, StartFrame, StopFrame
from workerbus.pipeline._ports import DOWNSTREAM, UPSTREAM

PIPELINE_HOOKS: Final = frozenset(
    {
        "on_pipeline_started",
        "on_pipeline_finished",
        "on_pipeline_error",
        "on_idle_timeout",
        "on_frame_reached_upstream",
        "on_frame_reached_downstream",
    }
)


class PipelineHooks(EventEmitter):
    """What a pipeline worker tells. Override the methods, or add event handlers of the same names (N3).

    They run one at a time, in the order of what happened. An exception is logged and reported, and nothing else stops
    for it (W7).
    """

    async def on_pipeline_started(self, frame: StartFrame) -> None:
        """The pipeline has started.

        Args:
            frame: What has come through.
        """

    async def on_pipeline_finished(self, frame: EndFrame | StopFrame | CancelFrame) -> None:
        """The pipeline has come to its end; called once, before the processors are cleaned up.

        Args:
            frame: What has ended it.
        """

    async def on_pipeline_error(self, frame: ErrorFrame) -> None:
        """An error has come up in the pipeline (P1).

        Args:
            frame: Which.
        """

    async def on_idle_timeout(self) -> None:
        """No frame was pushed or processed for ``idle_timeout`` seconds; again after as many more."""

    async def on_frame_reached_upstream(self, frame: Frame) -> None:
        """A frame has left the pipeline at its source end; see `PipelineWorker.set_reached_upstream_filter`.

        Args:
            frame: Which.
        """

    async def on_frame_reached_downstream(self, frame: Frame) -> None:
        """A frame has left the pipeline at its sink end; see `PipelineWorker.set_reached_downstream_filter`.

        Args:
            frame: Which.
        """


class PipelineEvents:
    """The hooks of one pipeline worker that wait to be run.

    Args:
        owner: Whose they are.
        name: Its name.
        handlers: Its event handlers.

    Attributes:
        filters: Which frames are told of when they leave, by direction.
    """

    def __init__(self, owner: PipelineHooks, name: str, handlers: EventHandlers) -> None:
        self._owner = owner
        self._handlers = handlers
        self._name = name
        self._lane: Lane[HookCall] | None = None
        self.filters: dict[FrameDirection, tuple[type[Frame], ...]] = {DOWNSTREAM: (Frame,), UPSTREAM: (Frame,)}

    def begin(self, run: Callable[[HookCall], Awaitable[None]]) -> None:
        """Keep hooks from now on, to be run when they are let run.

        Args:
            run: Runs one.
        """
        self._lane = Lane(f"{self._name} pipeline events", run)

    def let_run(self, tasks: TaskHost) -> None:
        """Run them."""
        assert self._lane is not None
        self._lane.open(tasks)

    def emit(self, event: str, *args: Any) -> None:
        """Run a hook when those before it have run, if anybody wants it."""
        assert self._lane is not None
        if self._wanted(event):
            self._lane.put(HookCall(event, args))

    def left(self, frame: Frame, direction: FrameDirection) -> None:
        """Tell that a frame has left, if anybody wants to know."""
        event = "on_frame_reached_downstream" if direction is DOWNSTREAM else "on_frame_reached_upstream"
        if self._wanted(event) and isinstance(frame, self.filters[direction]):
            self.emit(event, frame)

    def _wanted(self, event: str) -> bool:
        owner = self._owner
        return event in self._handlers or getattr(type(owner), event) is not getattr(PipelineHooks, event)

    async def quiet(self) -> None:
        """Wait until none waits or runs."""
        assert self._lane is not None
        await self._lane.quiet()

    def close(self) -> None:
        """Run no more, and cancel the one that runs."""
        assert self._lane is not None
        self._lane.close(cancel=True)
