"""Wakes tests that wait for something to happen at a worker."""

from collections.abc import Callable

from anyio import Event


class News:
    """Wakes those who wait for something to happen at a worker.

    Args:
        name: The worker's name.
        hooks: Returns the names of its hooks that have run, for those who have waited in vain.

    Attributes:
        name: The worker's name.
    """

    def __init__(self, name: str, hooks: Callable[[], list[str]]) -> None:
        self.name: str = name
        self._hooks = hooks
        self._changed: Event | None = None
        self._has_left = False

    def tell(self) -> None:
        """Something has happened."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def leave(self) -> None:
        """The worker leaves: whoever still waits is told that nothing comes."""
        self._has_left = True
        self.tell()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds."""
        while not condition():
            if self._has_left:
                ran = ", ".join(self._hooks()) or "none"
                raise AssertionError(f"worker {self.name!r} has finished before {what}; its hooks that ran: {ran}")
            if self._changed is None:
                self._changed = Event()
            await self._changed.wait()
