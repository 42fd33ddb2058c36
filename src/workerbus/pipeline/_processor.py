"""`FrameProcessor`: what a pipeline is made of (P1, P2, N6).

The class belongs to whoever subclasses it: all that the library keeps of a processor is in its `ProcessorInbox`.
"""

import copy
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from anyio import move_on_after
from anyio.lowlevel import checkpoint

from workerbus._concurrency.failures import own_error
from workerbus._concurrency.own_tasks import TaskHandle, Work, discard, end_task, work_of
from workerbus._events import EventEmitter
from workerbus._log import about
from workerbus._methods import check_methods
from workerbus._slot import set_core
from workerbus._values import BATCH, check_number
from workerbus.errors import NotRunningError, WrongLoopError
from workerbus.pipeline._frames import ErrorFrame, Frame, FrameDirection, InterruptionFrame
from workerbus.pipeline._owner import FrameProcessorSetup, FrameWorker
from workerbus.pipeline._ports import DOWNSTREAM, UPSTREAM
from workerbus.pipeline._processor_inbox import ProcessorInbox, inbox_of

logger = logging.getLogger("workerbus.pipeline")

PAUSE_SECONDS: Final = 5.0
"""After how many seconds a pause until something is ready ends in any case, unless another time is given."""

_numbers: Final[Counter[str]] = Counter()


class FrameProcessor(EventEmitter):
    """A step of a pipeline: it takes frames, and pushes frames on.

    Subclass it and override `process_frame`::

        class Shout(FrameProcessor):
            async def process_frame(self, frame, direction):
                await super().process_frame(frame, direction)
                if isinstance(frame, TextFrame):
                    frame = TextFrame(frame.text.upper())
                await self.push_frame(frame, direction)

    A frame that is not pushed on goes no further; lifecycle frames must be pushed on. A processor that does not
    override `process_frame` passes everything on. A slow processor delays what is behind it in the pipeline, and
    nothing else.

    Event handlers (`add_event_handler`) are awaited in place, and hold up the processor while they run:
    ``on_before_process_frame``, ``on_after_process_frame``, ``on_before_push_frame`` and ``on_after_push_frame`` get
    the processor and the frame, ``on_error`` the processor and the `ErrorFrame` that it has sent upstream.

    Args:
        name: The name of the processor, for logs; made up by default.
        max_buffer_size: How many downstream frames may wait for the processor before those who push have to wait, too.

    Raises:
        ValueError: ``max_buffer_size`` is less than 1.
        HandlerTypeError: A class is made whose `process_frame`, `setup` or `cleanup` is not async, or does not take its
            arguments; a `TypeError`.

    Guarantees: N3, N8, P1, P2.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_methods(cls, {"process_frame": 2, "setup": 1, "cleanup": 0})

    def __init__(self, name: str | None = None, *, max_buffer_size: float = math.inf) -> None:
        if not max_buffer_size >= 1:
            raise ValueError(f"max_buffer_size must be at least 1, not {max_buffer_size!r}")
        if name is None:
            kind = type(self).__name__
            name = f"{kind}#{_numbers[kind]}"
            _numbers[kind] += 1
        set_core(self, ProcessorInbox(self, name, max_buffer_size))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {inbox_of(self).name!r}>"

    # --- what it is

    @property
    def name(self) -> str:
        """The name of the processor, for logs."""
        return inbox_of(self).name

    @property
    def worker(self) -> FrameWorker:
        """The worker whose pipeline the processor is in. It takes frames and, once it has started, asks for jobs.

        Raises:
            NotRunningError: The pipeline has not been started; a `RuntimeError`.
        """
        worker: FrameWorker = inbox_of(self).require_running().worker
        return worker

    @property
    def next(self) -> "FrameProcessor | None":
        """The next processor downstream; None at the sink, before a fork, and while the pipeline does not run."""
        port = inbox_of(self).following
        return None if port is None else port.owner

    @property
    def previous(self) -> "FrameProcessor | None":
        """The next processor upstream; None at the source, behind a fork, and while the pipeline does not run."""
        port = inbox_of(self).previous
        return None if port is None else port.owner

    # --- to be overridden

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Prepare. Called once, before the `StartFrame`; an exception ends the worker.

        Args:
            setup: What the processor may need, such as its worker.

        Guarantees: R4, W7.
        """

    async def cleanup(self) -> None:
        """Release what the processor holds. Called once, when the pipeline is over, if `setup` has returned.

        It may take until the deadline of the worker's wind-down; an exception is logged.

        Guarantees: L4.
        """

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Process a frame; at most one system frame and one other frame are processed at the same time.

        An exception is logged and becomes an `ErrorFrame`, and the next frame is processed. If the exception kept the
        `StartFrame` from being pushed on, the worker ends; an `EndFrame`, a `StopFrame` or a `CancelFrame` is then
        passed on by the library.

        Args:
            frame: The frame.
            direction: The way in which it travels.

        Guarantees: P1, P2.
        """

    # --- to be called

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Push a frame to the neighbour, which handles it in a task of its own.

        Waits only for room, if the neighbour is bounded. Every 64th call lets other tasks run, after the frame is in.

        Args:
            frame: The frame.
            direction: DOWNSTREAM to the next processor, UPSTREAM to the previous one.

        Raises:
            NotRunningError: The pipeline has not been started; a `RuntimeError`.
            TypeError: It is not a frame, or not a direction.
            WrongLoopError: The pipeline runs in another thread; a `RuntimeError`.

        Guarantees: L7, P1.
        """
        # The thread is looked at where somebody is to be told, and by the lane that the frame wakes: looked at for each
        # frame, it would be 1.06 times of a hop. A lane that is awake takes one without, as those of the bus do.
        inbox = inbox_of(self)
        heard = inbox.heard
        if heard:
            inbox.check_thread()
            await inbox.events.tell("on_before_push_frame", frame)
        if direction is DOWNSTREAM:
            port = inbox.following
        elif direction is UPSTREAM:
            port = inbox.previous
        else:
            raise TypeError(f"direction is a FrameDirection, not {direction!r}")
        if port is None or not isinstance(frame, Frame):
            self._refuse(frame)
        if heard and inbox.running.watcher is not None:  # type: ignore[union-attr]  # set together with the ports
            inbox.running.watcher.pushing(self, port.owner, frame, direction)  # type: ignore[union-attr]  # the same
        waiting = port.put(frame, direction)  # type: ignore[union-attr]  # not None: refused above
        if waiting is not None:
            await waiting.wait()
        if heard:
            await inbox.events.tell("on_after_push_frame", frame)
        inbox.pushed += 1
        if not inbox.pushed % BATCH:
            await checkpoint()

    def _refuse(self, frame: object) -> None:
        if not isinstance(frame, Frame):
            raise TypeError(f"a frame is an instance of Frame, not {frame!r}")
        raise NotRunningError(f"processor {inbox_of(self).name!r} cannot push yet: its pipeline has not been started")

    async def broadcast_frame(self, frame_class: Callable[..., Frame], *args: Any, **kwargs: Any) -> None:
        """Push a new frame downstream, and another one upstream.

        Args:
            frame_class: The class of the frames.
            *args: Arguments of its constructor.
            **kwargs: Keyword arguments of its constructor.
        """
        await self.push_frame(frame_class(*args, **kwargs), DOWNSTREAM)
        await self.push_frame(frame_class(*args, **kwargs), UPSTREAM)

    async def broadcast_frame_instance(self, frame: Frame) -> None:
        """Push a copy of a frame downstream, and another one upstream; each has a number and metadata of its own.

        Args:
            frame: The frame; it is not pushed itself.
        """
        await self.push_frame(copy.copy(frame), DOWNSTREAM)
        await self.push_frame(copy.copy(frame), UPSTREAM)

    async def broadcast_interruption(self) -> None:
        """Interrupt the whole pipeline, beginning with this processor; the handler that calls this may finish."""
        inbox = inbox_of(self)
        inbox.check_thread()
        inbox.drop(spare_own_task=True)
        await self.broadcast_frame(InterruptionFrame)

    async def queue_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Put a frame into this processor's own lane, as its neighbours do; it is handled in its turn.

        Waits only for room, if the processor is bounded.

        Args:
            frame: The frame.
            direction: The way in which it travels.

        Raises:
            NotRunningError: The pipeline has not been started; a `RuntimeError`.
            TypeError: It is not a frame, or not a direction.
        """
        if not isinstance(frame, Frame) or not isinstance(direction, FrameDirection):
            raise TypeError(f"a Frame is queued, in a FrameDirection; not {frame!r}, {direction!r}")
        inbox = inbox_of(self)
        inbox.require_here()
        waiting = inbox.put(frame, direction)
        if waiting is not None:
            await waiting.wait()

    async def push_error(self, error_msg: str, exception: BaseException | None = None, fatal: bool = False) -> None:
        """Report an error to the worker, with an `ErrorFrame` that goes upstream.

        Args:
            error_msg: What happened, in words.
            exception: What was raised, if anything.
            fatal: Whether the worker is to be cancelled.

        Guarantees: P1.
        """
        frame = ErrorFrame(error_msg, fatal=fatal, processor=self.name, exception=exception)
        await self.push_frame(frame, UPSTREAM)
        await inbox_of(self).events.tell("on_error", frame)

    # --- pauses

    async def pause_processing_frames(self) -> None:
        """Begin no data or control frame until `resume_processing_frames`; frames that come wait in order.

        The frame that is being processed is finished. An interruption drops waiting frames, a cancel ends the pause,
        and an end waits for it.

        Raises:
            NotRunningError: The pipeline has not been started; a `RuntimeError`.

        Guarantees: P1, P2.
        """
        inbox = inbox_of(self)
        inbox.require_here()
        inbox.pauses.pause(system=False)

    async def pause_processing_system_frames(self) -> None:
        """Begin no system frame, until `resume_processing_system_frames`; interruptions wait, too."""
        inbox = inbox_of(self)
        inbox.require_here()
        inbox.pauses.pause(system=True)

    async def pause_processing_all_frames_until(
        self, ready: Callable[[], Awaitable[Any]], *, timeout: float = PAUSE_SECONDS
    ) -> None:
        """Begin no frame, system frames included, until something is ready; returns at once.

        ::

            await self.pause_processing_all_frames_until(self.connected.wait)

        The frame that is being processed is finished. Frames that come wait in order. An interruption waits, too, and
        then drops waiting data frames. A cancel ends the pause. Several pauses end independently.

        Args:
            ready: An async function, which returns when frames may be processed. An exception ends the pause, and is
                reported like that of a task of the processor.
            timeout: After how many seconds the pause ends in any case, with a warning in the log.

        Raises:
            HandlerTypeError: ``ready`` is not async; a `TypeError`.
            NotRunningError: The pipeline has not been started; a `RuntimeError`.
            ValueError: ``timeout`` is not more than 0.

        Guarantees: P1, P2.
        """
        check_number("timeout", timeout)
        if not timeout > 0:
            raise ValueError(f"timeout is a number of seconds, more than 0, not {timeout!r}")
        inbox = inbox_of(self)
        inbox.require_here()
        waiting, _ = work_of(ready, (), None)
        go_on = inbox.pauses.hold()

        async def wait() -> None:
            try:
                with move_on_after(timeout) as limit:
                    await waiting
                if limit.cancelled_caught:
                    logger.warning(
                        "processor %r goes on after %g seconds, without what it has waited for",
                        inbox.name,
                        timeout,
                        extra=about(processor=inbox.name),
                    )
            finally:
                go_on()

        try:
            self.create_task(wait, name="pause")
        except (NotRunningError, WrongLoopError):
            go_on()
            discard(waiting)
            raise

    async def resume_processing_frames(self) -> None:
        """Continue with data and control frames; do nothing if they are not paused."""
        inbox = inbox_of(self)
        inbox.check_thread()
        inbox.pauses.resume(system=False)

    async def resume_processing_system_frames(self) -> None:
        """Continue with system frames; do nothing if they are not paused."""
        inbox = inbox_of(self)
        inbox.check_thread()
        inbox.pauses.resume(system=True)

    # --- tasks

    def create_task(self, function: Work, *args: Any, name: str | None = None) -> TaskHandle:
        """Start a task that is cancelled when the pipeline ends. An exception is logged and becomes an `ErrorFrame`.

        ::

            self.create_task(self.listen, microphone)
            self.create_task(self.listen(microphone), "listening")

        Args:
            function: An async function, or a coroutine.
            *args: The function's arguments; with a coroutine, the name of the task.
            name: The name of the task, for logs; by default that of the function.

        Returns:
            A handle with ``cancel()`` and an async ``wait()``.

        Raises:
            NotRunningError: The pipeline has not been started, or is over; a `RuntimeError`.
            HandlerTypeError: ``function`` is neither; a `TypeError`.

        Guarantees: L1, N1.
        """
        work, label = work_of(function, args, name)
        inbox = inbox_of(self)

        async def run() -> None:
            inbox.tasks += 1
            try:
                await work
            except BaseException as exc:  # noqa: BLE001 - sorted, logged and reported there
                await inbox.failed(None, await own_error(exc))
            finally:
                inbox.tasks -= 1

        try:
            return inbox.require_here().start(run, (), name=f"{inbox.name} {label}", owner=inbox.name)
        except (NotRunningError, WrongLoopError):
            discard(work)
            raise

    async def cancel_task(self, task: TaskHandle, timeout: float | None = None) -> None:
        """Cancel a task of `create_task`, and wait until it has ended.

        Args:
            task: The task.
            timeout: How long to wait, in seconds, before giving up with a warning in the log; by default,
                `CLEANUP_SECONDS`.

        Guarantees: L4.
        """
        inbox_of(self).check_thread()
        await end_task(task, timeout, f"processor {self.name!r}", about(processor=self.name))
