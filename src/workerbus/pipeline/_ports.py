"""How the parts of a pipeline see each other: a `Port` takes frames, a `Piece` has two of them.

A frame is put into the next port in the step of whoever pushes it. Where the pusher has to wait, for room or for the
bus, `Port.put` returns a `Waiting`.
"""

from collections.abc import Callable, Coroutine, Iterable
from enum import Enum
from typing import Any, Protocol

from workerbus._concurrency.lifetime import TaskHost
from workerbus._concurrency.own_tasks import TaskHandle
from workerbus.pipeline._frames import ENDS, ErrorFrame, FlushMarker, Frame, FrameDirection

DOWNSTREAM = FrameDirection.DOWNSTREAM
UPSTREAM = FrameDirection.UPSTREAM

Entry = tuple[Frame, FrameDirection]


class Waiting(Protocol):
    """What a pusher has to wait for: room in an inbox, or a bus that is to take messages."""

    async def wait(self) -> None:
        """Wait until the frame is in; a wait that is cancelled gives up."""

    def give_up(self) -> None:
        """Stop waiting: a frame that is not in yet will not be put in."""


class Port(Protocol):
    """A place that frames are put into: a processor's inbox, a fork, an end of the pipeline."""

    @property
    def owner(self) -> Any:
        """The processor that the port belongs to; None for a fork and for an end of the pipeline."""

    @property
    def got_start(self) -> bool:
        """Whether the `StartFrame` has been put in here."""

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """Take a frame.

        Args:
            frame: The frame.
            direction: The way in which it travels.
            may_wait: Whether the pusher can wait for room. Otherwise the frame goes in past the bound, but not ahead of
                those who stand in line.

        Returns:
            What the pusher has to wait for; None if nothing.
        """


class Passing:
    """A port that notes whether a certain frame has been put into it, and passes on everything.

    Args:
        frame: The frame to look for; if it is an end, another one in its place is as good.
        port: Where all frames really go.

    Attributes:
        passed: Whether the frame has been put in.
        then: Called when it is put in, if that is set.
    """

    __slots__ = ("_frame", "_port", "passed", "then")

    def __init__(self, frame: Frame, port: Port) -> None:
        self._frame = frame
        self._port = port
        self.passed: bool = False
        self.then: Callable[[], None] | None = None

    @property
    def owner(self) -> Any:
        return self._port.owner

    @property
    def got_start(self) -> bool:
        return self._port.got_start

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        if frame is self._frame or (isinstance(frame, ENDS) and isinstance(self._frame, ENDS)):
            self.passed = True
            if self.then is not None:
                self.then()
        return self._port.put(frame, direction, may_wait)


class Stage(Enum):
    """Where an inbox is in its life; the stages come in this order, and OPEN and HALTED may be left out."""

    IDLE = 0  # its pipeline does not run yet: it takes nothing
    GATED = 1  # it takes the `StartFrame`; the rest waits
    OPEN = 2  # it takes everything
    HALTED = 3  # it takes a `CancelFrame` alone
    ENDED = 4  # it takes nothing any more


class Visitor(Protocol):
    """What a processor has to do before and after its pipeline runs."""

    async def attached(self) -> None:
        """Called when the worker has been attached to its bus."""

    def joined(self) -> None:
        """Called just before the `StartFrame` is sent: frames may be pushed, and wait for the start."""

    async def departed(self) -> None:
        """Called when the worker leaves its bus."""

    def flush(self, marker: FlushMarker, go_on: Callable[[], object]) -> None:
        """Let a marker go on when what has gone elsewhere before it has come back."""


class Watcher(Protocol):
    """Is told of the frames that are pushed and processed.

    Attributes:
        touched: When the last frame was seen that counts, in seconds, by the event loop's clock.
    """

    touched: float

    @property
    def needed(self) -> bool:
        """Whether anybody wants to be told."""

    def saw(self, frame: Frame) -> float:
        """Note that a frame moves; returns the time."""

    def open(self, host: TaskHost) -> None:
        """Let observers see what happens from now on, in tasks of ``host``."""

    def processing(self, processor: Any, frame: Frame, direction: FrameDirection) -> None:
        """Note that a processor begins with a frame."""

    def pushing(self, source: Any, destination: Any, frame: Frame, direction: FrameDirection) -> None:
        """Note that a processor pushes a frame."""

    async def quiet(self) -> None:
        """Wait until the observers have been told of everything."""

    def close(self) -> None:
        """Tell the observers nothing more."""


class Running(Protocol):
    """A pipeline that runs, as its processors' inboxes see it."""

    @property
    def worker(self) -> Any:
        """The worker that the pipeline belongs to."""

    @property
    def takes_frames(self) -> bool:
        """Whether frames may come in from the bus."""

    @property
    def watcher(self) -> Watcher | None:
        """Who watches the frames; None if nobody does."""

    def start(
        self, function: Callable[..., Coroutine[Any, Any, Any]], args: Iterable[Any], *, name: str, owner: str
    ) -> TaskHandle:
        """Start a task that ends with the pipeline; ``owner`` is the processor that the log names."""

    def start_failed(self, exc: BaseException) -> None:
        """Note that a processor has raised instead of passing the `StartFrame` on."""

    def fatal(self, frame: ErrorFrame) -> None:
        """Note that a fatal error has come up before the start."""


class Piece(Protocol):
    """A part of a pipeline that stands between two others: a processor's inbox, a pipeline, a fork."""

    @property
    def down_entry(self) -> Port:
        """Where frames come in that travel downstream."""

    @property
    def up_entry(self) -> Port:
        """Where frames come in that travel upstream."""

    def connect(self, previous: Port, following: Port) -> None:
        """Set where frames go that leave upstream (``previous``) and downstream (``following``)."""

    def drop(self) -> None:
        """Drop what waits in there, and cancel what is being handled, as far as an interruption may."""
