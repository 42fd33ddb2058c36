"""What a worker's ``run()`` sees of the worker's end (W10): whoever looks at it knows when to return."""

from typing import Protocol


class Heeded(Protocol):
    """A worker's life, as its ``run()`` sees it."""

    @property
    def is_to_stop(self) -> bool:
        """Whether ``run()`` is to return."""

    def heed_end(self) -> None:
        """Note that ``run()`` will return when the worker is to stop."""

    async def until_stopped(self) -> None:
        """Wait until the worker is to stop."""


class EndOfRun:
    """The end of one worker.

    Args:
        life: The worker's life.
    """

    __slots__ = ("_life",)

    def __init__(self, life: Heeded) -> None:
        self._life = life

    def is_set(self) -> bool:
        """Whether ``run()`` is to return."""
        self._life.heed_end()
        return self._life.is_to_stop

    async def wait(self) -> None:
        """Wait until ``run()`` is to return."""
        self._life.heed_end()
        await self._life.until_stopped()
