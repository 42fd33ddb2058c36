"""Wakes tests that wait for something to happen at a worker."""

from collections.abc import Callable

from anyio import Event

from workerbus._concurrency.waiting import Wait, waits


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
        """Wake those who wait: something has happened."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def leave(self) -> None:
        """Fail those who still wait: the worker leaves, and nothing more will happen at it."""
        self._has_left = True
        self.tell()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds.

        Args:
            condition: Is asked now, and whenever something has happened.
            what: The condition in words, for the error.

        Raises:
            AssertionError: The worker has finished before.
        """
        while not condition():
            if self._has_left:
                ran = ", ".join(self._hooks()) or "none"
                raise AssertionError(f"worker {self.name!r} has finished before {what}; its hooks that ran: {ran}")
            if self._changed is None:
                self._changed = Event()
            await self._changed.wait()

    waits(until, lambda its: Wait(0, f"until at {its['self'].name!r} {its['what']}"))
