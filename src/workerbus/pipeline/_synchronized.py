"""`SyncParallelPipeline`: branches that take one frame at a time (P1).

Its forks let one frame in, with a marker behind it. When the marker has come out of all branches, they have all handled
the frame; what they have let out meanwhile goes on, and the next frame comes in. All of that happens in the step of who
lets the marker out, so there is no task here either.
"""

from collections import deque
from collections.abc import Sequence
from enum import Enum

from workerbus.pipeline._frames import Frame, FrameDirection, Marker
from workerbus.pipeline._pipeline import Exit, Fork, ParallelPipeline, Pipeline
from workerbus.pipeline._ports import Entry, Port, Waiting
from workerbus.pipeline._processor import FrameProcessor


class FrameOrder(Enum):
    """The order in which a `SyncParallelPipeline` passes on what its branches have made of one frame."""

    ARRIVAL = "arrival"
    """In the order in which it has come out of the branches."""
    PIPELINE = "pipeline"
    """First what the first branch has let out, then the second one's, and so on."""


class SyncParallelPipeline(ParallelPipeline):
    """Branches side by side, each of which gets every frame, one frame at a time.

    The next frame comes in when all branches have handled the one before. What they make of one frame goes on together,
    in the order given by ``frame_order``; the same frame object goes on once. Each direction has its own turns.

    System frames take no turns: they go through as in a `ParallelPipeline`. An interruption also drops frames that wait
    for their turn. A frame that a processor pushes from a task of its own, between turns, goes on at once. Frames that
    wait for their turn hold up nobody, whatever the bounds are.

    Args:
        *branches: Lists of processors, or pipelines; at least one.
        frame_order: The order of what the branches have made of one frame.

    Raises:
        ProcessorInUseError: One of them is already in a pipeline, or is given twice; a `ValueError`.
        ValueError: There is no branch.
        TypeError: One of them is something else, or ``frame_order`` is not a `FrameOrder`.

    Guarantees: P1.
    """

    def __init__(
        self,
        *branches: Sequence[FrameProcessor | Pipeline | ParallelPipeline] | Pipeline,
        frame_order: FrameOrder = FrameOrder.ARRIVAL,
    ) -> None:
        if not isinstance(frame_order, FrameOrder):
            raise TypeError(f"frame_order is a FrameOrder, not {frame_order!r}")
        super().__init__(*branches)
        down = self._down = SyncFork([branch.down_entry for branch in self.branches], self.branches)
        up = self._up = SyncFork([branch.up_entry for branch in self.branches], self.branches)
        down.both = up.both = (down, up)
        down.order = up.order = frame_order


class SyncFork(Fork):
    """Puts one frame after the other into every branch, and keeps what they let out until all have handled it.

    Attributes:
        both: This fork, and that of the other direction.
        order: The order of what the branches have made of one frame.
    """

    both: "tuple[SyncFork, SyncFork]"
    order: FrameOrder

    def __init__(self, entries: list[Port], branches: list[Pipeline]) -> None:
        super().__init__(entries, branches)
        self._waiting: deque[Entry] = deque()
        self._marker: Marker | None = None
        self._out: list[tuple[Pipeline, Entry]] = []

    def reset(self, outside: Port) -> None:
        """Make the fork as new."""
        super().reset(outside)
        self._waiting.clear()
        self._marker = None

    def exit_of(self, branch: Pipeline) -> Exit:
        """Return where a branch lets frames out."""
        return SyncExit(self, branch)

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """Let a frame in when its turn has come, a system frame at once."""
        if frame.is_system:
            return super().put(frame, direction, may_wait)
        self._waiting.append((frame, direction))
        self._next()
        return None

    def _next(self) -> None:
        if self._marker is not None or not self._waiting:
            return
        frame, direction = self._waiting.popleft()
        self._marker = Marker(lambda: None)
        self._out = []
        super().put(frame, direction, False)
        super().put(self._marker, direction, False)

    def came_out(self, frame: Frame, direction: FrameDirection, branch: Pipeline) -> bool:
        """Note what a branch lets out; returns whether it is kept for the end of the turn."""
        if self._marker is None or frame.is_system:
            return False
        if frame is not self._marker:
            self._out.append((branch, (frame, direction)))
        elif self.lets_on(frame, branch):
            self._turn_over()
        return True

    def _turn_over(self) -> None:
        self._marker = None
        out, self._out = self._out, []
        if self.order is FrameOrder.PIPELINE:
            out.sort(key=lambda each: self.branches.index(each[0]))
        for branch, (frame, direction) in out:
            if self.lets_on(frame, branch):
                self.outside.put(frame, direction, False)
        self._next()  # unless a fork around this one has let in its next frame in that step

    def empty(self, but: Pipeline | None = None) -> None:
        """Drop what waits in the branches, and here."""
        for fork in self.both:
            fork.drop()
        super().empty(but)

    def drop(self) -> None:
        """Drop what waits for its turn, and for the end of one, as far as an interruption may."""
        self._waiting = deque(entry for entry in self._waiting if not entry[0].interruptible)
        self._out = [each for each in self._out if not each[1][0].interruptible]


class SyncExit(Exit):
    """Where a branch lets frames out that are kept until the turn is over."""

    def __init__(self, fork: SyncFork, branch: Pipeline) -> None:
        super().__init__(fork, branch)
        self._turns = fork

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """Keep the frame, or pass it on if it is to go on now."""
        if self._turns.came_out(frame, direction, self._branch):
            return None
        return super().put(frame, direction, may_wait)
