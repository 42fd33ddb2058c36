"""`FrameProcessor`: what a pipeline is made of. Everything that it has in common with others is in its inbox."""

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
    """A step of a pipeline: takes frames, and pushes frames on.

    Subclass it and override `process_frame`::

        class Shout(FrameProcessor):
            async def process_frame(self, frame, direction):
                await super().process_frame(frame, direction)
                if isinstance(frame, TextFrame):
                    frame = TextFrame(frame.text.upper())
                await self.push_frame(frame, direction)

    What it does not push on goes no further; lifecycle frames must go on (P2). One that does not override it passes
    everything on. A slow processor delays what is behind it in the pipeline, and nothing else.

    Args:
        name: For logs; made up by default.
        max_buffer_size: How many downstream frames may wait for it before those who push have to wait, too.
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
        """Its name, for logs."""
        return inbox_of(self).name

    @property
    def worker(self) -> FrameWorker:
        """The worker whose pipeline it stands in: to queue frames there and, once it has started, to ask for jobs.

        Raises:
            NotRunningError: Its pipeline has not been started; a `RuntimeError`.
        """
        worker: FrameWorker = inbox_of(self).require_running().worker
        return worker

    @property
    def next(self) -> "FrameProcessor | None":
        """The processor downstream of it; None at an end, before a fork, and while it does not run."""
        port = inbox_of(self).following
        return None if port is None else port.owner

    @property
    def previous(self) -> "FrameProcessor | None":
        """The processor upstream of it; None at an end, behind a fork, and while it does not run."""
        port = inbox_of(self).previous
        return None if port is None else port.owner

    # --- to be overridden

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Get ready, before the start. An error in here ends the worker (W7, R4).

        Args:
            setup: What there is to know.
        """

    async def cleanup(self) -> None:
        """Release what it holds: called once, when the pipeline is over, if `setup` has returned (L4)."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Process a frame: one system frame and one other at a time (P1).

        What it raises is logged and becomes an `ErrorFrame`, and the next frame is processed. An error in the handling
        of the `StartFrame` ends the worker; after one in that of an `EndFrame`, a `StopFrame` or a `CancelFrame`, that
        goes on by itself.

        Args:
            frame: The frame.
            direction: The way in which it travels.
        """

    # --- to be called

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Push a frame to the neighbour.

        Waits only for room, where the neighbour is bounded; every 64th call lets other tasks run, after the frame is
        in.

        Args:
            frame: The frame.
            direction: The way.

        Raises:
            NotRunningError: The pipeline has not been started; a `RuntimeError`.
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
        """Push a frame each way: two of them, so that neither disturbs the other.

        Args:
            frame_class: Their class.
            *args: For its constructor.
            **kwargs: For its constructor.
        """
        await self.push_frame(frame_class(*args, **kwargs), DOWNSTREAM)
        await self.push_frame(frame_class(*args, **kwargs), UPSTREAM)

    async def broadcast_interruption(self) -> None:
        """Interrupt the whole pipeline from here, this processor first. A handler that calls it is let finish."""
        inbox_of(self).drop(spare_own_task=True)
        await self.broadcast_frame(InterruptionFrame)

    async def push_error(self, error: str, *, fatal: bool = False, exception: BaseException | None = None) -> None:
        """Report an error to the worker, by way of the processors upstream.

        Args:
            error: What happened, in words.
            fatal: Whether the worker is to be cancelled.
            exception: What was raised, if anything.
        """
        frame = ErrorFrame(error, fatal=fatal, processor=self.name, exception=exception)
        await self.push_frame(frame, UPSTREAM)

    def create_task(
        self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: str | None = None
    ) -> TaskHandle:
        """Start a task that ends with the processor. What it raises becomes an `ErrorFrame`.

        Args:
            function: An async function.
            *args: What it gets.
            name: For logs.

        Returns:
            A handle with ``cancel()`` and an async ``wait()``.

        Raises:
            NotRunningError: The pipeline does not run; a `RuntimeError`.
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
