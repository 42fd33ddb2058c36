"""What there is to see at an address: what others draw, and know nothing else of (O3, O8).

Who draws looks here whenever it is time to: nothing waits for a slow terminal, and states are missed, not changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, Literal, NamedTuple, Protocol

from anyio import Event

from workerbus.cli._commands import CommandError
from workerbus.errors._base import describe

SECTIONS: Final = ("about", "processes", "runners", "workers", "others", "jobs", "groups", "curves", "errors", "spans")

State = dict[str, dict[str, Any]]
Link = Literal["connecting", "live", "lost"]


class Watch(ABC):
    """What there is to see at an address.

    Args:
        shown: The address, for people.

    Attributes:
        shown: The address, for people.
        state: What there is to see: section to key to row, as at ``/api/state``.
        at: When that was so, on its clock, in seconds.
        link: Whether that is so now.
        why: Why it is not, in words.
        version: A number that is another one whenever there is something new.
        begun: Whether something has come yet.
    """

    def __init__(self, shown: str) -> None:
        self.shown: str = shown
        self.state: State = empty()
        self.at: float = 0.0
        self.link: Link = "connecting"
        self.why: str = ""
        self.version: int = 0
        self.begun: Event = Event()
        self._lost_at: float | None = None
        self._changed = Event()

    async def changed(self) -> None:
        """Wait until there is something new."""
        await self._changed.wait()

    def now(self) -> float:
        """Return the time on the clock of the state, in seconds; it stands still while the link is lost."""
        return monotonic() if self._lost_at is None else self._lost_at

    @abstractmethod
    async def run(self) -> None:
        """Look, until it is cancelled.

        Raises:
            CommandError: There is nothing to see, and will not be.
        """

    @abstractmethod
    async def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job; None where it is not remembered, or nobody answers."""

    def _found(self) -> None:
        self.link, self.why, self._lost_at = "live", "", None

    def _lose(self, why: str) -> None:
        if self.link != "lost":
            self._lost_at = monotonic()
        self.link, self.why = "lost", why

    def _tell(self) -> None:
        self.version += 1
        changed, self._changed = self._changed, Event()
        changed.set()


@contextmanager
def in_known_form(shown: str) -> Iterator[None]:
    """Say in one line that what somebody tells has not the form that it has here: it may be of another version.

    Args:
        shown: Who tells.

    Raises:
        CommandError: That is so.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        text = f"what {shown} tells has a form that is not known here; is it of another version? ({describe(error)})"
        raise CommandError(text) from error


def empty() -> State:
    """Return a state in which there is nothing to see."""
    return {section: {} for section in SECTIONS}


class Passed(NamedTuple):
    """A message that has passed.

    Attributes:
        at: When, in seconds by the clock of who tells.
        runner: The runner that has told of it.
        kind: ``asked``, ``answered``, ``update``, ``chunk`` or ``cancel``, for those of jobs; ``restart``; else the
            name of its class.
        source: Who has sent it.
        target: For whom; None is everybody.
        job_id: Of which job; empty where it is of none.
        text: The name of a job that is asked for, the status of an answer, the reason of a cancel.
        payload: Its payload as JSON text, cut where it is long, where that was asked for and is allowed.
    """

    at: float
    runner: str
    kind: str
    source: str
    target: str | None
    job_id: str
    text: str | None
    payload: str | None = None


Take = Callable[[Sequence[Passed], int, float | None], bool]
"""Takes messages that have passed, how many were left out before them, and what the time is on their clock, if that is
known; returns whether more is wanted."""


class Passing(Protocol):
    """The messages that pass at an address."""

    async def run(self, take: Take) -> None:
        """Follow them until there is enough.

        Raises:
            CommandError: There is nothing to see, and will not be.
        """
