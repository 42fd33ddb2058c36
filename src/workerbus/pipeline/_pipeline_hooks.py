"""The hooks of a pipeline worker, and the queue in which they wait (N3, P1, P6, W7).

They have a queue of their own, beside those of every worker: it has to go on until the pipeline has come to its end,
when the others have been closed.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._events import EventEmitter, EventHandlers
from workerbus._methods import arguments_of, is_default
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
    """The hooks of a pipeline worker: override the methods, or add event handlers of the same names.

    They run one at a time, in the order of events. An exception is logged and reported; it stops nothing else.

    Guarantees: N3, W7.
    """

    async def on_pipeline_started(self, frame: StartFrame) -> None:
        """Called when the pipeline has started.

        Args:
            frame: The frame that has come through.
        """

    async def on_pipeline_finished(self, frame: EndFrame | StopFrame | CancelFrame) -> None:
        """Called once, when the pipeline has come to its end, before the processors are cleaned up.

        Args:
            frame: The frame that has ended the pipeline.
        """

    async def on_pipeline_error(self, frame: ErrorFrame) -> None:
        """Called when an error has occurred in the pipeline.

        Args:
            frame: The error, in words and, if there is one, as an exception.

        Guarantees: P1.
        """

    async def on_idle_timeout(self) -> None:
        """Called when no frame was pushed or processed for ``idle_timeout`` seconds, and after each such time again."""

    async def on_frame_reached_upstream(self, frame: Frame) -> None:
        """Called when a frame has left the pipeline upstream, at its source.

        Args:
            frame: The frame; see `PipelineWorker.set_reached_upstream_filter`.
        """

    async def on_frame_reached_downstream(self, frame: Frame) -> None:
        """Called when a frame has left the pipeline downstream, at its sink.

        Args:
            frame: The frame; see `PipelineWorker.set_reached_downstream_filter`.
        """


_DEFAULTS: Final = {name: getattr(PipelineHooks, name) for name in PIPELINE_HOOKS}

PIPELINE_HOOK_ARGUMENTS: Final = arguments_of(_DEFAULTS)
"""How many arguments each of these hooks gets, by name."""


class PipelineEvents:
    """The hooks of one pipeline worker that wait to be run.

    Args:
        owner: The worker.
        name: The worker's name.
        handlers: The worker's event handlers.

    Attributes:
        filters: By direction, the classes of frames that the hooks are told of when they leave.
        check_thread: Raises `WrongLoopError` in another thread than the one in which the pipeline runs.
    """

    def __init__(self, owner: PipelineHooks, name: str, handlers: EventHandlers) -> None:
        self._owner = owner
        self._handlers = handlers
        self._name = name
        self._lane: Lane[HookCall] | None = None
        self.check_thread: Callable[[], None] = _anywhere
        self.filters: dict[FrameDirection, tuple[type[Frame], ...]] = {DOWNSTREAM: (Frame,), UPSTREAM: (Frame,)}

    def begin(self, run: Callable[[HookCall], Awaitable[None]]) -> None:
        """Keep the hooks that are due from now on, until `let_run`.

        Args:
            run: Runs one hook.
        """
        self._lane = Lane(f"{self._name} pipeline events", run)

    def let_run(self, tasks: TaskHost) -> None:
        """Run the hooks that wait, and those that come."""
        assert self._lane is not None
        self._lane.open(tasks)

    def emit(self, event: str, *args: Any) -> None:
        """Run a hook when those before it have run; one that nobody has overridden or added costs nothing more."""
        assert self._lane is not None
        if self._wanted(event):
            self.check_thread()
            self._lane.put(HookCall(event, args))

    def left(self, frame: Frame, direction: FrameDirection) -> None:
        """Run the hook for a frame that has left the pipeline, if anybody wants to know."""
        event = "on_frame_reached_downstream" if direction is DOWNSTREAM else "on_frame_reached_upstream"
        if self._wanted(event) and isinstance(frame, self.filters[direction]):
            self.emit(event, frame)

    def call(self, method: str, *args: Any) -> None:
        """Call a method of the worker's user when the hooks before it have run, as if it were a hook."""
        assert self._lane is not None
        self._lane.put(HookCall(method, args))

    def _wanted(self, event: str) -> bool:
        return event in self._handlers or not is_default(self._owner, event, _DEFAULTS[event])

    async def quiet(self) -> None:
        """Wait until no hook waits or runs."""
        assert self._lane is not None
        await self._lane.quiet()

    def close(self) -> None:
        """Run no more hooks, and cancel the one that runs."""
        assert self._lane is not None
        self._lane.close(cancel=True)


def _anywhere() -> None:
    pass
