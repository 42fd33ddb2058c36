"""Where something may be used: in the event loop, and so in the thread, in which it was opened (L7).

Another thread would change what is in use, and wake tasks whose loop does not notice; another loop in the same thread
would wait for one that does not run. Neither can be made to work, so it is refused.
"""

from collections.abc import Callable
from threading import get_ident
from typing import Any

from anyio import TaskInfo
from anyio.lowlevel import current_token

from workerbus._concurrency.backend import running_backend
from workerbus.errors import WrongLoopError


class Home:
    """The event loop that runs now, and its thread.

    Attributes:
        thread: The thread's identity.
    """

    __slots__ = ("_backend", "_current", "_loop", "thread")

    def __init__(self) -> None:
        self.thread: int = get_ident()
        # anyio's own function takes four times as long.
        self._backend = running_backend()
        self._current: Callable[[], Any] = getattr(self._backend, "current_token", current_token)
        self._loop = self._current()

    def check(self, what: str) -> None:
        """Raise `WrongLoopError`, which names ``what`` was used, unless this loop is running here."""
        if get_ident() != self.thread:
            raise WrongLoopError(what, "thread")
        if not self.is_here():
            raise WrongLoopError(what, "event loop")

    def is_here(self) -> bool:
        """Whether this loop is running in the thread that asks; a signal handler may ask, too."""
        try:
            return get_ident() == self.thread and bool(self._current() == self._loop)
        except RuntimeError:  # none is running
            return False

    def is_same(self, other: "Home") -> bool:
        """Whether it is the same event loop."""
        return self.thread == other.thread and bool(self._loop == other._loop)  # noqa: SLF001 - of the same class

    # --- for who looks at what runs

    def tasks(self) -> list[TaskInfo]:
        """Return the tasks of the loop, which has to be here."""
        tasks: list[TaskInfo] = self._backend.get_running_tasks()
        return tasks

    def now(self) -> float:
        """Return the time on the clock of the loop, which has to be here."""
        now: float = self._backend.current_time()
        return now

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Have the loop call a function, which may not raise, from any thread; returns whether it still runs."""
        # What anyio has for this waits until the function has been called, and a loop that stands still never does.
        token = getattr(self._loop, "native_token", self._loop)
        soon = getattr(token, "call_soon_threadsafe", None) or token.run_sync_soon
        try:
            soon(function)
        except RuntimeError:  # the loop is closed
            return False
        return True
