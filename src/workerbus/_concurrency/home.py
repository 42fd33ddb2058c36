"""Where something may be used: in the event loop, and so in the thread, in which it was opened (L7).

Another thread would change what is in use, and wake tasks whose loop does not notice; another loop in the same thread
would wait for one that does not run. Neither can be made to work, so it is refused.
"""

from collections.abc import Callable
from threading import get_ident

from anyio.lowlevel import current_token

from workerbus._concurrency.backend import running_backend
from workerbus.errors import WrongLoopError


class Home:
    """The event loop that runs now, and its thread.

    Attributes:
        thread: The thread's identity.
    """

    __slots__ = ("_current", "_loop", "thread")

    def __init__(self) -> None:
        self.thread: int = get_ident()
        # anyio's own function takes four times as long.
        self._current: Callable[[], object] = getattr(running_backend(), "current_token", current_token)
        self._loop = self._current()

    def check(self, what: str) -> None:
        """Raise `WrongLoopError`, which names ``what`` was used, unless this loop is running here."""
        if get_ident() != self.thread:
            raise WrongLoopError(what, "thread")
        try:
            current = self._current()
        except RuntimeError:  # none is running
            current = None
        if current != self._loop:
            raise WrongLoopError(what, "event loop")
