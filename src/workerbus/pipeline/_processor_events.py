"""Who is told of what a processor does: its event handlers, and those who watch the whole pipeline (N3, P1).

Event handlers are awaited where it happens, between the frames of the processor. One that raises is logged. Who handles
the frames of a lane is put together anew when handlers or watchers come and go, so that a frame of a processor that
nobody listens to does not know of them.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from workerbus._concurrency.failures import own_error
from workerbus._events import EventHandlers, call_handler
from workerbus._log import about
from workerbus.pipeline._frame_lane import Target
from workerbus.pipeline._frames import Frame, FrameDirection
from workerbus.pipeline._ports import Watcher

logger = logging.getLogger("workerbus.pipeline")

PROCESSOR_EVENTS: Final = frozenset(
    {
        "on_before_process_frame",
        "on_after_process_frame",
        "on_before_push_frame",
        "on_after_push_frame",
        "on_error",
    }
)


_ONE: Final = dict.fromkeys(PROCESSOR_EVENTS, 1)


class Calls:
    """Something to handle frames that is only a function."""

    __slots__ = ("process_frame",)

    def __init__(self, process: Callable[[Frame, FrameDirection], Awaitable[None]]) -> None:
        self.process_frame: Callable[[Frame, FrameDirection], Awaitable[None]] = process


class ProcessorEvents(EventHandlers):
    """The event handlers of one processor.

    Args:
        processor: The processor.
        name: The name of the processor, for logs.
        added: Called when a handler was added.
    """

    __slots__ = ("_name", "_processor")

    def __init__(self, processor: Any, name: str, added: Callable[[], None]) -> None:
        super().__init__(type(processor).__name__, PROCESSOR_EVENTS)
        self.arguments = _ONE
        self._processor = processor
        self._name = name
        self.added = lambda _event: added()

    async def tell(self, event: str, *args: Any) -> None:
        """Call the handlers of an event, one after the other; one that raises stops nothing.

        Args:
            event: The name of the event.
            *args: What the handlers get, behind the processor.
        """
        for handler in self.of(event):
            try:
                await call_handler(handler, self._processor, *args)
            except BaseException as exc:
                error = await own_error(exc)
                logger.error(
                    "a handler for %r of processor %r failed",
                    event,
                    self._name,
                    exc_info=error,
                    extra=about(processor=self._name),
                )

    @property
    def hears_pushes(self) -> bool:
        """Whether a handler is to be told of frames that are pushed."""
        return "on_before_push_frame" in self or "on_after_push_frame" in self

    def around(self, target: Target) -> Target:
        """Return who handles frames as ``target`` does, and tells the handlers before and after it."""
        if "on_before_process_frame" not in self and "on_after_process_frame" not in self:
            return target

        async def process(frame: Frame, direction: FrameDirection) -> None:
            await self.tell("on_before_process_frame", frame)
            await target.process_frame(frame, direction)
            await self.tell("on_after_process_frame", frame)

        return Calls(process)


def watched(target: Target, processor: Any, watcher: Watcher | None) -> Target:
    """Return who handles frames as ``target`` does, and lets the watcher, if there is one, see that it begins."""
    if watcher is None:
        return target

    async def process(frame: Frame, direction: FrameDirection) -> None:
        watcher.processing(processor, frame, direction)
        await target.process_frame(frame, direction)

    return Calls(process)
