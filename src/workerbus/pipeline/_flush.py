"""Flushing a pipeline: waiting until what is in it has come out at the sink, bridges included (P6).

A `FlushMarker` travels downstream behind all that waits. At a bridge it waits for a `FlushRound`: a marker goes through
each pipeline that takes frames from this bridge. When all of those have come out, so have the frames that were before
them; what they became is in front of the first marker now, which goes on.

Only pipelines in this process are asked, by a table of those on a bus: not by a message, which might overtake frames.
"""

from collections.abc import Callable
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from workerbus.bus._bus import WorkerBus
from workerbus.pipeline._frames import FlushMarker


class FlushRound:
    """What one marker waits for at a bridge.

    Args:
        then: Called when everything has come out, once.
        seen: The names of the workers that this flush has been to, who are not asked again.
    """

    def __init__(self, then: Callable[[], object], seen: frozenset[str]) -> None:
        self._then = then
        self._open = 1
        self.seen: frozenset[str] = seen

    def join(self) -> None:
        """Wait for one more pipeline."""
        self._open += 1

    def leave(self) -> None:
        """One of those that were waited for has come out, or all have been asked."""
        self._open -= 1
        if not self._open:
            self._then()


class Flushes:
    """The markers that are on their way through one pipeline.

    Args:
        put: Puts a marker in where downstream frames come in.
    """

    def __init__(self, put: Callable[[FlushMarker], None]) -> None:
        self._put = put
        self._under_way: dict[object, Callable[[bool], None]] = {}

    def send(self, seen: frozenset[str], then: Callable[[bool], None]) -> None:
        """Send a marker.

        Args:
            seen: The names of the workers that the flush has been to, this one included.
            then: Called once: with True when the marker has come out, with False when the pipeline is over.
        """
        key = object()
        self._under_way[key] = then
        self._put(FlushMarker(lambda: self._over(key, True), seen))

    def _over(self, key: object, came_out: bool) -> None:
        then = self._under_way.pop(key, None)
        if then is not None:
            then(came_out)

    def give_up(self) -> None:
        """The pipeline is over: what has not come out will not."""
        for key in list(self._under_way):
            self._over(key, False)


class Flushable(Protocol):
    """A worker's pipeline, as a bridge sees it that is flushed."""

    def flush_for(self, asks: FlushRound, *, bridge: str | None, source: str, target: str | None) -> None:
        """Join a round, if this pipeline takes frames from that bridge.

        Args:
            asks: The round.
            bridge: What the bridge's messages bear.
            source: The name of the bridge's worker.
            target: The name of the one worker that the bridge exchanges frames with; None for all.
        """


flushable: Final[WeakKeyDictionary[WorkerBus, dict[str, Flushable]]] = WeakKeyDictionary()
"""The pipelines on each bus of this process, by the names of their workers."""
