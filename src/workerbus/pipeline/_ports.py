"""How the parts of a pipeline see each other: a `Port` takes frames, a `Piece` has two of them.

A frame is put into the next port in the step of whoever pushes it. What has to wait there says so with a `Waiting`.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from workerbus._concurrency.lifetime import TaskHost
from workerbus.pipeline._frames import ErrorFrame, Frame, FrameDirection

DOWNSTREAM = FrameDirection.DOWNSTREAM
UPSTREAM = FrameDirection.UPSTREAM

Entry = tuple[Frame, FrameDirection]


class Waiting(Protocol):
    """Something that a pusher has to wait for."""

    async def wait(self) -> None:
        """Wait for it; if cancelled, give up."""

    def give_up(self) -> None:
        """Wait for it no more, if it has not come."""


class Port(Protocol):
    """Where frames go in.

    Attributes:
        owner: The processor that it belongs to, if it does to one.
        got_start: Whether the start has come here.
    """

    @property
    def owner(self) -> Any:
        """The processor that it belongs to, or None."""

    @property
    def got_start(self) -> bool:
        """Whether the `StartFrame` has come here."""

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """Take a frame. Where there is no room for it yet, and the pusher may wait, return what to wait for."""


class TaskHandle(Protocol):
    """A task of a pipeline."""

    def cancel(self) -> None:
        """Cancel it."""

    async def wait(self) -> None:
        """Wait until it is over."""


class Watcher(Protocol):
    """Sees frames go by.

    Attributes:
        touched: When it last saw one, by the event loop's clock.
    """

    touched: float

    def open(self, host: TaskHost) -> None:
        """Begin to watch, in tasks that run there."""

    def processing(self, processor: Any, frame: Frame, direction: FrameDirection) -> None:
        """A processor begins with a frame."""

    def pushing(self, source: Any, destination: Any, frame: Frame, direction: FrameDirection) -> None:
        """A processor pushes a frame."""

    async def quiet(self) -> None:
        """Wait until everything that was seen has been told."""

    def close(self) -> None:
        """Tell nothing more."""


class Running(Protocol):
    """A pipeline that runs, as its processors' inboxes see it."""

    @property
    def worker(self) -> Any:
        """The worker that it belongs to."""

    @property
    def takes_frames(self) -> bool:
        """Whether frames may come in from the bus."""

    @property
    def watcher(self) -> Watcher | None:
        """Who watches, if anybody does."""

    def start(
        self, function: Callable[..., Coroutine[Any, Any, Any]], args: Iterable[Any], *, name: str, owner: str
    ) -> TaskHandle:
        """Start a task that ends with the pipeline."""

    def start_failed(self, exc: Exception) -> None:
        """A processor could not start."""

    def fatal(self, frame: ErrorFrame) -> None:
        """A fatal error has come up before the start."""


class Piece(Protocol):
    """Something that stands in a row in a pipeline."""

    @property
    def down_entry(self) -> Port:
        """Where frames come in from upstream."""

    @property
    def up_entry(self) -> Port:
        """Where frames come in from downstream."""

    def connect(self, previous: Port, following: Port) -> None:
        """Say where its frames go to, upstream and downstream."""
