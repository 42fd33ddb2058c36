"""`Pipeline` and `ParallelPipeline`: how processors are connected (P1).

Nothing here has a task. A pipeline in a pipeline is spliced in, and costs nothing. A fork puts a frame into every
branch in the step of whoever pushes it, and what comes out of a branch goes on in the step of whoever lets it out.

Which branches have let a frame out is noted on the frame itself, by fork: so nothing is left behind for frames that
never come out.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from workerbus.errors import ProcessorInUseError
from workerbus.pipeline._frames import Frame, FrameDirection, InterruptionFrame, StartFrame
from workerbus.pipeline._ports import DOWNSTREAM, Piece, Port, Running, Waiting
from workerbus.pipeline._processor import FrameProcessor
from workerbus.pipeline._processor_inbox import ProcessorInbox, inbox_of


class Pipeline:
    """Processors in a row; frames go DOWNSTREAM from the first to the last, and UPSTREAM back.

    ::

        Pipeline([Listen(), Think(), Pipeline([Speak(), Play()])])

    Args:
        processors: Processors, pipelines and parallel pipelines, from the source to the sink.

    Raises:
        ProcessorInUseError: One of them is already in a pipeline, or is given twice; a `ValueError`.
        TypeError: One of them is something else.

    Guarantees: P1.
    """

    def __init__(self, processors: "Iterable[FrameProcessor | Pipeline | ParallelPipeline]") -> None:
        parts: list[FrameProcessor | Pipeline | ParallelPipeline] = list(processors) or [FrameProcessor()]
        claim(parts)
        self.claimed: bool = False
        self.parts: list[FrameProcessor | Pipeline | ParallelPipeline] = parts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parts!r})"

    @property
    def processors(self) -> list[FrameProcessor]:
        """All processors in the pipeline, those of nested pipelines included, from the source to the sink."""
        return [processor for part in self.parts for processor in _processors(part)]

    @property
    def inboxes(self) -> list[ProcessorInbox]:
        """The inboxes of all processors in the pipeline, in their order."""
        return [inbox_of(processor) for processor in self.processors]

    # --- as a piece

    @property
    def _pieces(self) -> list[Piece]:
        return [inbox_of(part) if isinstance(part, FrameProcessor) else part for part in self.parts]

    @property
    def down_entry(self) -> Port:
        """Where frames come in that travel downstream: at the first part."""
        return self._pieces[0].down_entry

    @property
    def up_entry(self) -> Port:
        """Where frames come in that travel upstream: at the last part."""
        return self._pieces[-1].up_entry

    def connect(self, previous: Port, following: Port) -> None:
        """Connect the parts with each other, and the first and the last one with what is outside."""
        pieces = self._pieces
        ups = [previous, *(piece.up_entry for piece in pieces[:-1])]
        downs = [*(piece.down_entry for piece in pieces[1:]), following]
        for piece, up, down in zip(pieces, ups, downs, strict=True):
            piece.connect(up, down)

    def drop(self) -> None:
        """Drop what waits in all parts, and cancel what is being handled, as far as an interruption may."""
        for piece in self._pieces:
            piece.drop()

    def join(self, running: Running) -> None:
        """Make all processors part of a running pipeline."""
        for processor in self.processors:
            # The base class's own `process_frame` must do nothing, as overrides call it first. So what passes on all
            # frames of a processor that overrides nothing is its `push_frame`.
            passes = getattr(processor.process_frame, "__func__", None) is FrameProcessor.process_frame
            inbox_of(processor).join(running, PassesOn(processor) if passes else processor)

    def release(self) -> None:
        """Let the parts be put into another pipeline, after a `StopFrame`."""
        for part in self.parts:
            if isinstance(part, FrameProcessor):
                inbox_of(part).claimed = False
                inbox_of(part).reset()
            else:
                part.claimed = False
                part.release()


class ParallelPipeline:
    """Branches side by side, each of which gets every frame.

    A frame that leaves a branch goes on. If the same frame object leaves several branches, it goes on once, with the
    first. Lifecycle frames go on when they have left all branches, so an `EndFrame` waits for the slowest branch. An
    `InterruptionFrame` empties all branches at the moment when it comes, and goes on when it has left the first branch;
    a branch may hold it back.

    Branches share the frame objects: a processor that would change a frame should make a new one.

    Args:
        *branches: Lists of processors, or pipelines; at least one.

    Raises:
        ProcessorInUseError: One of them is already in a pipeline, or is given twice; a `ValueError`.
        ValueError: There is no branch.
        TypeError: One of them is something else.
    """

    def __init__(self, *branches: "Sequence[FrameProcessor | Pipeline | ParallelPipeline] | Pipeline") -> None:
        if not branches:
            raise ValueError("a ParallelPipeline has at least one branch")
        self.branches: list[Pipeline] = [
            branch if isinstance(branch, Pipeline) else Pipeline(branch) for branch in branches
        ]
        claim(self.branches)
        self.claimed: bool = False
        self._down: Fork = Fork([branch.down_entry for branch in self.branches], self.branches)
        self._up: Fork = Fork([branch.up_entry for branch in self.branches], self.branches)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.branches))})"

    @property
    def processors(self) -> list[FrameProcessor]:
        """All processors of all branches, branch by branch."""
        return [processor for branch in self.branches for processor in branch.processors]

    # --- as a piece

    @property
    def down_entry(self) -> Port:
        """Where frames come in that travel downstream: at all branches."""
        return self._down

    @property
    def up_entry(self) -> Port:
        """Where frames come in that travel upstream: at all branches."""
        return self._up

    def connect(self, previous: Port, following: Port) -> None:
        """Connect the branches with what is outside."""
        self._down.reset(following)
        self._up.reset(previous)
        for branch in self.branches:
            branch.connect(self._up.exit_of(branch), self._down.exit_of(branch))

    def drop(self) -> None:
        """Drop what waits in all branches, and cancel what is being handled, as far as an interruption may."""
        self._down.empty()

    def release(self) -> None:
        """Let the branches be put into another pipeline, after a `StopFrame`."""
        for branch in self.branches:
            branch.claimed = False
            branch.release()


class Fork:
    """Puts a frame into every branch, and decides when it goes on.

    Args:
        entries: Where the branches begin.
        branches: The branches, all of which an interruption empties.

    Attributes:
        outside: Where frames go on to that branches let out; set by `reset`.
        got_start: Whether the `StartFrame` has come to all branches.
    """

    # Under this fork, a frame's ``marks`` hold:
    #
    # 1. a set of branches, of a frame that goes on when all have let it out: those that have done so;
    # 2. None, of any other frame: it goes on when the first branch lets it out;
    # 3. `_GONE`, of a frame that has gone on: what else comes out of it is dropped;
    # 4. nothing, of a frame that was made in a branch: it goes on at once.

    owner: Any = None

    outside: Port

    def __init__(self, entries: list[Port], branches: list[Pipeline]) -> None:
        self._entries = entries
        self.branches: list[Pipeline] = branches
        self.got_start: bool = False

    def reset(self, outside: Port) -> None:
        """Make the fork as new.

        Args:
            outside: Where frames go on to.
        """
        self.outside = outside
        self.got_start = False

    def exit_of(self, branch: Pipeline) -> "Exit":
        """Return where a branch lets frames out."""
        return Exit(self, branch)

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """Put the frame into every branch; what is returned waits for all that have no room."""
        if frame.marks is None:
            frame.marks = {}
        frame.marks[self] = set() if frame.is_joined else None
        if isinstance(frame, InterruptionFrame):
            self.empty()
        waitings = [waiting for entry in self._entries if (waiting := entry.put(frame, direction, may_wait))]
        if not self.got_start:
            self.got_start = all(entry.got_start for entry in self._entries)
        return _All(waitings) if waitings else None

    def lets_on(self, frame: Frame, branch: Pipeline) -> bool:
        """Whether a frame that a branch lets out is to go on now."""
        if frame.marks is None or self not in frame.marks:
            return True  # case 4
        out = frame.marks[self]
        if out is _GONE:
            return False
        if out is not None:
            out.add(branch)
            if len(out) < len(self._entries):
                return False
        frame.marks[self] = _GONE
        return True

    def has_let_in(self, frame: Frame) -> bool:
        """Whether a frame has come in here, and was not made in a branch."""
        return frame.marks is not None and self in frame.marks

    def empty(self, but: Pipeline | None = None) -> None:
        """Drop what waits in the branches, as far as an interruption may.

        Args:
            but: The branch in which the interruption was made: what it drops there is dropped already.
        """
        for branch in self.branches:
            if branch is not but:
                branch.drop()


_GONE: Final = object()


class Exit:
    """Where a branch lets frames out.

    Args:
        fork: Where the frames have come in; it decides whether they go on.
        branch: The branch.

    Attributes:
        got_start: Whether the branch has let the `StartFrame` out.
    """

    owner: Any = None

    def __init__(self, fork: Fork, branch: Pipeline) -> None:
        self._fork = fork
        self._branch = branch
        self.got_start: bool = False

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """Pass the frame on, if it is to go on now."""
        if not self.got_start:
            self.got_start = isinstance(frame, StartFrame)
        if not self._fork.lets_on(frame, self._branch):
            return None
        if isinstance(frame, InterruptionFrame) and direction is DOWNSTREAM and not self._fork.has_let_in(frame):
            self._fork.empty(but=self._branch)  # it is for the whole pipeline
        return self._fork.outside.put(frame, direction, may_wait)


class _All:
    """Waits for several things, one after the other; a wait that is cancelled gives up all of them."""

    __slots__ = ("_waitings",)

    def __init__(self, waitings: list[Waiting]) -> None:
        self._waitings = waitings

    async def wait(self) -> None:
        try:
            for waiting in self._waitings:
                await waiting.wait()
        finally:
            self.give_up()

    def give_up(self) -> None:
        for waiting in self._waitings:
            waiting.give_up()


class PassesOn:
    """Handles the frames of a processor that overrides nothing, unless a test, say, puts something in its place."""

    __slots__ = ("_processor",)

    def __init__(self, processor: FrameProcessor) -> None:
        self._processor = processor

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        process = self._processor.process_frame
        if getattr(process, "__func__", None) is FrameProcessor.process_frame:
            process = self._processor.push_frame
        await process(frame, direction)


def _processors(part: FrameProcessor | Pipeline | ParallelPipeline) -> list[FrameProcessor]:
    return [part] if isinstance(part, FrameProcessor) else part.processors


def claim(parts: Sequence[FrameProcessor | Pipeline | ParallelPipeline]) -> None:
    """Note that parts belong to a pipeline, all of them or none.

    Raises:
        ProcessorInUseError: A part belongs to a pipeline already, or comes twice; a `ValueError`.
        TypeError: A part is neither a processor nor a pipeline.
        NotInitializedError: A part has an ``__init__`` that does not call ``super().__init__()``; a `RuntimeError`.
    """
    claimants: list[ProcessorInbox | Pipeline | ParallelPipeline] = []
    for part in parts:
        if isinstance(part, FrameProcessor):
            claimants.append(inbox_of(part))
        elif isinstance(part, Pipeline | ParallelPipeline):
            claimants.append(part)
        else:
            raise TypeError(f"a pipeline is made of processors and pipelines, not {part!r}")
    for part, claimant in zip(parts, claimants, strict=True):
        if claimant.claimed or sum(claimant is other for other in claimants) > 1:
            raise ProcessorInUseError(getattr(part, "name", repr(part)))
    for claimant in claimants:
        claimant.claimed = True
