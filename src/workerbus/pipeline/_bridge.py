"""`BusBridgeProcessor`: a bridge to the bus in the middle of a pipeline (P2, P4, W4).

It is on the bus from its worker's attachment to its departure. What comes before the pipeline runs is kept here; what
comes before the start waits in the inboxes, behind the gate.
"""

import math
from collections.abc import Callable
from typing import Any, Final

from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._methods import is_default
from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import (
    BusSubscriber,
    Inbox,
    InboxHost,
    PlainInbox,
    Receives,
    accepts_everything,
    make_inbox,
)
from workerbus.messages import BusFrameMessage, BusMessage
from workerbus.pipeline._bus_edge import Deduplicator, checked_types, frame_of
from workerbus.pipeline._flush import FlushRound, flushable
from workerbus.pipeline._frames import FlushMarker, Frame, FrameDirection, InterruptionFrame, came_by, received
from workerbus.pipeline._owner import FrameProcessorSetup
from workerbus.pipeline._ports import DOWNSTREAM
from workerbus.pipeline._processor import FrameProcessor
from workerbus.pipeline._processor_inbox import inbox_of


class BusBridgeProcessor(FrameProcessor, BusSubscriber):
    """Exchanges frames with other workers over the bus, in the middle of a pipeline.

    A frame that reaches the bridge goes to the bus instead of further along the pipeline. Lifecycle and excluded frames
    go along the pipeline instead; an `InterruptionFrame` goes both ways. A frame from the bus is pushed on in its
    direction, in order, once the pipeline has started; while the worker is inactive, none comes in. A frame that came
    in over this bridge is not sent out by it again.

    Args:
        bus: The bus.
        worker_name: The name of the worker that the bridge belongs to: the source of what it sends.
        target_task: The name of the one worker to exchange frames with; by default, all.
        target_worker: The same, in a later spelling.
        bridge: The name of the bridge. If given, its messages carry it, and only messages with this name bring frames
            in.
        exclude_frames: Classes of frames that do not cross.
        name: The name as a processor and as a subscriber, unique on the bus; made up by default.
        max_buffer_size: How many downstream frames may wait for the bridge before those who push have to wait, too.

    Raises:
        TypeError: ``bus`` is not a bus, ``exclude_frames`` contains something other than classes of frames, or both
            spellings of the target are given.

    Guarantees: N1, P4, W4.
    """

    receives: Receives = "all"

    def __init__(
        self,
        *,
        bus: WorkerBus,
        worker_name: str,
        target_task: str | None = None,
        bridge: str | None = None,
        exclude_frames: tuple[type[Frame], ...] | None = None,
        name: str | None = None,
        max_buffer_size: float = math.inf,
        target_worker: str | None = None,
    ) -> None:
        super().__init__(name, max_buffer_size=max_buffer_size)
        if not isinstance(bus, WorkerBus):
            raise TypeError(f"bus is a WorkerBus, not {bus!r}")
        if target_worker is not None:
            if target_task is not None:
                raise TypeError("target_worker is target_task in a later spelling: pass one of the two")
            target_task = target_worker
        excluded = checked_types("exclude_frames", exclude_frames)
        inbox_of(self).visitor = _Bridge(self, bus, worker_name, target_task, bridge, excluded)

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Subscribe to the bus, unless this was done when the worker was attached.

        Args:
            setup: What the processor may need.
        """
        await super().setup(setup)
        await _bridge_of(self).attached()

    async def cleanup(self) -> None:
        """Unsubscribe from the bus."""
        await super().cleanup()
        await _bridge_of(self).departed()

    async def on_bus_message(self, message: BusMessage) -> None:
        """Push on the frame in a message, if it is for this bridge.

        An override is called with every message, one at a time; a message that it does not pass to ``super()`` does not
        come in.

        Args:
            message: The message.

        Guarantees: N7.
        """
        bridge = _bridge_of(self)
        if bridge.concerns(message):
            assert isinstance(message, BusFrameMessage)
            bridge.came(message)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Send a frame to the bus, or push it on; an interruption goes both ways.

        Args:
            frame: The frame.
            direction: The way in which it travels.
        """
        await super().process_frame(frame, direction)
        bridge = _bridge_of(self)
        stays = bridge.keeps(frame)
        if not stays:
            await bridge.send(frame, direction)
        if stays or isinstance(frame, InterruptionFrame):
            await self.push_frame(frame, direction)


class _Bridge:
    """What the library keeps of a bridge.

    Args:
        processor: The bridge.
        bus: Where it sends messages, and takes them from.
        worker_name: The name of the worker that it belongs to.
        target: The name of the one worker to exchange frames with; None for all.
        tag: What its messages bear, and those that it takes; None for nothing, and for all.
        excluded: Classes of frames that do not cross.
    """

    def __init__(
        self,
        processor: BusBridgeProcessor,
        bus: WorkerBus,
        worker_name: str,
        target: str | None,
        tag: str | None,
        excluded: tuple[type[Frame], ...],
    ) -> None:
        self._processor = processor
        self._bus = bus
        self._worker_name = worker_name
        self._target = target
        self._tag = tag
        self._excluded = excluded
        self._early: list[BusFrameMessage] = []
        self._deduplicator = Deduplicator()

    async def attached(self) -> None:
        """Subscribe, so that what is sent before the start is not lost."""
        await self._bus.subscribe(self._processor)

    def joined(self) -> None:
        """Push what has come so far; it waits for the start in the inboxes."""
        early, self._early = self._early, []
        for message in early:
            self.came(message)

    async def departed(self) -> None:
        """Unsubscribe, after a `StopFrame`, too."""
        await self._bus.unsubscribe(self._processor)

    def flush(self, marker: FlushMarker, go_on: Callable[[], object]) -> None:
        """Let a marker go on when what has gone over the bridge before it has come out of other pipelines."""
        asks = FlushRound(go_on, marker.seen | {self._worker_name})
        for each in flushable.get(self._bus, {}).values():
            each.flush_for(asks, bridge=self._tag, source=self._worker_name, target=self._target)
        asks.leave()

    def keeps(self, frame: Frame) -> bool:
        """Whether a frame stays in this pipeline."""
        return frame.is_local or isinstance(frame, self._excluded) or came_by(frame, self._processor)

    async def send(self, frame: Frame, direction: FrameDirection) -> None:
        """Send a frame to the bus."""
        await self._bus.send(
            BusFrameMessage(frame, direction, self._tag, source=self._worker_name, target=self._target)
        )

    def concerns(self, message: BusMessage) -> bool:
        """Whether a message brings a frame to this bridge."""
        return (
            isinstance(message, BusFrameMessage)
            and message.source != self._worker_name
            and message.target in (None, self._worker_name)
            and self._target in (None, message.source)
            and self._tag in (None, message.bridge)
        )

    def came(self, message: BusFrameMessage) -> None:
        """Push the frame that a message brings, in the step of whoever sends it."""
        frame, direction, inbox = frame_of(message), message.direction, inbox_of(self._processor)
        if frame is None or frame.is_local or isinstance(frame, self._excluded):
            return
        running, port = inbox.running, inbox.following if direction is DOWNSTREAM else inbox.previous
        if running is None or port is None:
            self._early.append(message)
            return
        if not running.takes_frames or self._deduplicator.seen(message):
            return
        copied = received(frame, self._processor)
        if running.watcher is not None:
            running.watcher.pushing(self._processor, port.owner, copied, direction)
        port.put(copied, direction, False)


def _bridge_of(processor: BusBridgeProcessor) -> _Bridge:
    bridge = inbox_of(processor).visitor
    assert isinstance(bridge, _Bridge)
    return bridge


_TAKES: Final = BusBridgeProcessor.on_bus_message


@make_inbox.register
def _(processor: BusBridgeProcessor, bus: InboxHost) -> Inbox:
    if not (is_default(processor, "on_bus_message", _TAKES) and accepts_everything(processor)):
        return PlainInbox(processor, bus)  # code of the user's, which does not run in a sender's step
    return _BridgeInbox(processor.name, _bridge_of(processor))


class _BridgeInbox(Inbox):
    """Hands frames to a bridge in the sender's step; all other messages cost a look at their class."""

    def __init__(self, name: str, bridge: _Bridge) -> None:
        super().__init__(name, receives="all", announcements=False)
        self._bridge = bridge

    def take(self, message: BusMessage) -> None:
        if self._bridge.concerns(message):
            self.delivered += 1
            assert isinstance(message, BusFrameMessage)
            self._bridge.came(message)

    def full_lane(self, message: BusMessage) -> Lane[Any] | None:
        return None

    def open(self, host: TaskHost) -> None:
        """Do nothing: no message waits here, what comes before the start waits in the pipeline."""

    def close(self) -> None:
        """Do nothing: no message is under way here."""

    @property
    def depth(self) -> int:
        return 0
