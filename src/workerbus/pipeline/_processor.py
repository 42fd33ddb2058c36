"""`FrameProcessor`: what a pipeline is made of (P1, P2, N6).

The class belongs to whoever subclasses it: all that the library keeps of a processor is in its `ProcessorInbox`.
"""

import math
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from anyio.lowlevel import checkpoint

from workerbus._concurrency.failures import own_error
from workerbus._slot import HasCore, set_core
from workerbus._values import BATCH
from workerbus.errors import HandlerTypeError, NotRunningError
from workerbus.pipeline._frames import ErrorFrame, Frame, FrameDirection, InterruptionFrame
from workerbus.pipeline._owner import FrameProcessorSetup, FrameWorker
from workerbus.pipeline._ports import DOWNSTREAM, UPSTREAM, TaskHandle
from workerbus.pipeline._processor_inbox import ProcessorInbox, inbox_of

_numbers: Final[Counter[str]] = Counter()


class FrameProcessor(HasCore):
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

    Args:
        name: The name of the processor, for logs; made up by default.
        max_buffer_size: How many downstream frames may wait for the processor before those who push have to wait, too.

    Raises:
        ValueError: ``max_buffer_size`` is less than 1.

    Guarantees: P1, P2.
    """

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
        """The worker whose pipeline the processor stands in: takes frames and, once it has started, asks for jobs.

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
        """Get ready. Called once, before the `StartFrame`; an exception ends the worker.

        Args:
            setup: What the processor may need, its worker for instance.

        Guarantees: R4, W7.
        """

    async def cleanup(self) -> None:
        """Release what the processor holds. Called once, when the pipeline is over, if `setup` has returned.

        It is waited for until the deadline of the worker's wind-down; an exception is logged.

        Guarantees: L4.
        """

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Process a frame; at most one system frame and one other frame are processed at the same time.

        An exception is logged and becomes an `ErrorFrame`, and the next frame is processed. If it is the `StartFrame`
        that was not pushed on, the worker ends; an `EndFrame`, a `StopFrame` or a `CancelFrame` goes on by itself.

        Args:
            frame: The frame.
            direction: The way in which it travels.

        Guarantees: P1, P2.
        """

    # --- to be called

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Push a frame to the neighbour, which handles it in a task of its own.

        Waits only for room, where the neighbour is bounded. Every 64th call lets other tasks run, when the frame is in.

        Args:
            frame: The frame.
            direction: DOWNSTREAM to the next processor, UPSTREAM to the previous one.

        Raises:
            NotRunningError: The pipeline has not been started; a `RuntimeError`.
            TypeError: It is no frame, or no direction.
        """
        inbox = inbox_of(self)
        if direction is DOWNSTREAM:
            port = inbox.following
        elif direction is UPSTREAM:
            port = inbox.previous
        else:
            raise TypeError(f"direction is a FrameDirection, not {direction!r}")
        if port is None or not isinstance(frame, Frame):
            self._refuse(frame)
        running = inbox.running
        if running.watcher is not None:  # type: ignore[union-attr]  # set together with the ports
            running.watcher.pushing(self, port.owner, frame, direction)  # type: ignore[union-attr]  # the same
        waiting = port.put(frame, direction)  # type: ignore[union-attr]  # not None: refused above
        if waiting is not None:
            await waiting.wait()
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

    async def broadcast_interruption(self) -> None:
        """Interrupt the whole pipeline, beginning with this processor; the handler that calls this may finish."""
        inbox_of(self).drop(spare_own_task=True)
        await self.broadcast_frame(InterruptionFrame)

    async def push_error(self, error: str, *, fatal: bool = False, exception: BaseException | None = None) -> None:
        """Report an error to the worker, with an `ErrorFrame` that goes upstream.

        Args:
            error: What happened, in words.
            fatal: Whether the worker is to be cancelled.
            exception: What was raised, if anything.

        Guarantees: P1.
        """
        frame = ErrorFrame(error, fatal=fatal, processor=self.name, exception=exception)
        await self.push_frame(frame, UPSTREAM)

    def create_task(
        self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: str | None = None
    ) -> TaskHandle:
        """Start a task that is cancelled when the pipeline ends. An exception is logged and becomes an `ErrorFrame`.

        Args:
            function: An async function.
            *args: Its arguments.
            name: The name of the task, for logs; by default that of the function.

        Returns:
            A handle with ``cancel()`` and an async ``wait()``.

        Raises:
            NotRunningError: The pipeline has not been started, or is over; a `RuntimeError`.
            HandlerTypeError: ``function`` cannot be called, as a coroutine cannot; a `TypeError`.
        """
        if not callable(function):
            if isinstance(function, Coroutine):
                function.close()
            raise HandlerTypeError(f"create_task takes a function and its arguments, not {function!r}")
        inbox = inbox_of(self)
        running = inbox.require_running()
        label = name or getattr(function, "__name__", "task")

        async def run() -> None:
            inbox.tasks += 1
            try:
                await function(*args)
            except BaseException as exc:  # noqa: BLE001 - sorted, logged and reported there
                inbox.failed(None, await own_error(exc))
            finally:
                inbox.tasks -= 1

        return running.start(run, (), name=f"{inbox.name} {label}", owner=inbox.name)
