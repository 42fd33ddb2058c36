"""Driving a coroutine by hand, so that it can be cut at a chosen checkpoint (L5).

`Driven` passes on whatever the coroutine yields to the event loop, and whatever comes back, as it is; it knows nothing
of the backend's traps and futures. It counts, and makes the cut just before it passes the chosen yield on: so a
cancellation arrives at exactly that checkpoint, or at the next one that is not shielded.
"""

import linecache
import math
import sysconfig
from collections.abc import Callable, Coroutine, Generator, Sequence
from pathlib import Path
from types import FrameType, TracebackType, coroutine
from typing import Any, Final, Literal

from anyio import CancelScope, current_effective_deadline, get_cancelled_exc_class
from attrs import frozen

from workerbus.diagnosis._frames import drives, frames_of

How = Literal["scope", "native", "race", "raise"]

_LIBRARY: Final = Path(__file__).parents[2]
_CANCELLED_ONLY: Final = (
    "TaskGroup.__aexit__",
    "Nursery._nested_child_finished",
    "Lock.acquire",
    "Semaphore.acquire",
    "Condition.wait",
)
"""Functions of anyio, asyncio and trio that would be left in disorder by anything but a cancellation."""
_OTHERS: Final = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}


@frozen
class Position:
    """Where a coroutine is suspended.

    Args:
        where: The innermost line of the program's own code, as ``file:line``.
        statement: The text of that line.
        inside: The innermost line of workerbus below it, as ``file:line in function``; empty if there is none.
    """

    where: str
    statement: str
    inside: str

    def __str__(self) -> str:
        return f"in `{self.statement}` at {self.where}" + (f" (inside {self.inside})" if self.inside else "")


def place_of(frames: Sequence[FrameType]) -> Position:
    """Return where a coroutine is suspended.

    Args:
        frames: The frames in which it is, outermost first.
    """
    own, inside = frames[0], ""
    for frame in frames[1:]:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(_LIBRARY):
            inside = f"{file.relative_to(_LIBRARY.parent).as_posix()}:{frame.f_lineno} in {frame.f_code.co_name}"
        elif file.is_absolute() and not any(file.is_relative_to(path) for path in _OTHERS):
            own, inside = frame, ""
    file_name, line = own.f_code.co_filename, own.f_lineno
    return Position(f"{file_name}:{line}", linecache.getline(file_name, line).strip(), inside)


class Cut:
    """A way to cut a coroutine; this one does nothing, for the run that is not cut.

    Attributes:
        made: Whether the cut has been made.
    """

    def __init__(self) -> None:
        self.made: bool = False

    def make(self, yielded: object, frames: Sequence[FrameType]) -> BaseException | None:
        """Make the cut, in the running task, before what it has yielded is passed on.

        Args:
            yielded: What the coroutine has yielded.
            frames: The frames in which it is suspended, outermost first.

        Returns:
            An exception that is to be raised where the coroutine waits; None for a cut that is a cancellation.
        """
        self.made = True
        return None

    def comes_through(self) -> bool:
        """Whether a cancellation that comes at this checkpoint would be due to this cut."""
        return True


class ScopeCut(Cut):
    """Cancels a scope around the coroutine; a shield keeps that off."""

    def __init__(self) -> None:
        super().__init__()
        self.scope: CancelScope = CancelScope()

    def make(self, yielded: object, frames: Sequence[FrameType]) -> None:
        """Cancel the scope."""
        super().make(yielded, frames)
        self.scope.cancel()

    def comes_through(self) -> bool:
        """Whether no shield is in between: behind one, a cancellation is due to a scope inside it, whose time is up."""
        return current_effective_deadline() == -math.inf


class NativeCut(Cut):
    """Calls asyncio's ``Task.cancel()``."""

    def make(self, yielded: object, frames: Sequence[FrameType]) -> None:
        """Cancel the task."""
        super().make(yielded, frames)
        _current_task().cancel()


class RaceCut(Cut):
    """Calls ``Task.cancel()`` when what the task waits for has come, and the task has not yet heard of it."""

    def make(self, yielded: object, frames: Sequence[FrameType]) -> None:
        """Cancel the task when the future is done, before the task's own callback is called."""
        # asyncio adds the task's callback when the yield is passed on, after this one, and calls them in order.
        task, cut = _current_task(), super().make

        def cancel(_: object) -> None:
            cut(yielded, frames)
            task.cancel()

        if hasattr(yielded, "add_done_callback"):
            yielded.add_done_callback(cancel)
        else:
            cancel(None)


class RaiseCut(Cut):
    """Raises an exception where the coroutine waits, behind a shield, too."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error: BaseException = error

    def make(self, yielded: object, frames: Sequence[FrameType]) -> BaseException | None:
        """Return the exception; None where a backend can deal with nothing but a cancellation."""
        if any(frame.f_code.co_qualname in _CANCELLED_ONLY for frame in frames):
            return None
        super().make(yielded, frames)
        return self.error


def make_cut(how: How, error: Callable[[], BaseException]) -> Cut:
    """Return a new cut.

    Args:
        how: Its kind.
        error: For ``"raise"``, makes the exception.
    """
    if how == "raise":
        return RaiseCut(error())
    kinds: dict[How, type[Cut]] = {"scope": ScopeCut, "native": NativeCut, "race": RaceCut}
    return kinds[how]()


class Driven:
    """A coroutine that is driven by hand.

    Args:
        driven: The coroutine.
        at: At which of its checkpoints the cut is made, from 1; 0 for none.
        cut: How it is cut.

    Attributes:
        count: How many checkpoints there were so far.
        place: Where the coroutine was cut; None if it was not.
        reached: Whether the cancellation, or the exception, has come to the coroutine.
    """

    def __init__(self, driven: Coroutine[Any, Any, object], at: int, cut: Cut) -> None:
        self._driven = driven
        self._at = at
        self._cut = cut
        self.count: int = 0
        self.place: Position | None = None
        self.reached: bool = False

    @coroutine
    def drive(self) -> Generator[Any, Any, object]:
        """Run the coroutine to its end; returns what it returns, and raises what it raises."""
        # At each checkpoint, in this order:
        #
        # 1. The cut is made before the yield is passed on. The backend begins the wait afterwards, finds the task
        #    cancelled, and ends that very wait.
        # 2. Whether a cancellation that comes would be due to the cut is asked before the wait, too: when it has come,
        #    scopes may have been left.
        # 3. What comes back goes into the coroutine as it has come. A cancellation may come in two ways: asyncio raises
        #    it here, trio sends an outcome, which raises it inside.
        # 4. To raise something else, the wait is ended first, by a cancellation of its own that nobody sees
        #    (`_GivenUp`): a future or a trap that nobody waits for any more would wake the task up at another place.
        # 5. `GeneratorExit` is for this generator, since the loop drops the task: the coroutine is closed with it.
        driven, cut = self._driven, self._cut
        advance: Callable[[Any], Any] = driven.send
        argument: Any = None
        while True:
            try:
                yielded = advance(argument)
            except StopIteration as end:
                return end.value
            self.count += 1
            error = None
            if self.count == self._at:
                frames = list(frames_of(driven))
                self.place = place_of(frames)
                error = cut.make(yielded, frames)
            exposed = self.place is not None and cut.comes_through()
            try:
                if error is None:
                    advance, argument = driven.send, (yield yielded)
                    came = getattr(argument, "error", None)  # of an outcome, case 3
                else:
                    with _GivenUp():
                        yield yielded
                    self.reached, advance, argument, came = True, driven.throw, error, None
            except GeneratorExit:
                driven.close()
                raise
            except BaseException as exc:  # noqa: BLE001 - it is for the coroutine
                advance, argument, came = driven.throw, exc, exc
            self.reached |= exposed and cut.made and isinstance(came, get_cancelled_exc_class())

    drives(drive, "driven")


class _GivenUp:
    """A context around a yield: ends the wait at once, by a cancellation, so that the backend is left in order.

    It is entered and left inside a generator, but always in the same task, since a driven coroutine stays in one.
    """

    def __init__(self) -> None:
        self._scope = CancelScope()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._scope.cancel()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._scope.__exit__(None, None, None)
        return isinstance(exc, get_cancelled_exc_class())


def _current_task() -> Any:
    import asyncio  # noqa: PLC0415 - only where it runs

    return asyncio.current_task()
