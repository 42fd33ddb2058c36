"""The events of a runner: handlers wait in a lane, and run one at a time (N3, L4)."""

import logging
from typing import Any

from anyio.lowlevel import cancel_shielded_checkpoint

from workerbus._concurrency.doing import Doing, tells
from workerbus._concurrency.failures import own_error
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._events import EventHandlers, call_handler
from workerbus._log import about

logger = logging.getLogger("workerbus.runner")


class RunnerEvents:
    """The events of one runner.

    Args:
        runner: The runner, which handlers get first.
        name: The runner's name.
        handlers: The runner's event handlers.
        clean_up: The clock of the run's wind-down.

    Attributes:
        name: As given.
    """

    def __init__(self, runner: object, name: str, handlers: EventHandlers, clean_up: CleanUp) -> None:
        self._runner = runner
        self.name: str = name
        self._handlers = handlers
        self._clean_up = clean_up
        self._lane: Lane[tuple[str, tuple[Any, ...]]] = Lane(f"{name} events", self._fire)

    def wanted(self, event: str) -> bool:
        """Whether somebody handles an event, and still hears of it."""
        return event in self._handlers and not self._lane.closed

    def emit(self, event: str, *args: Any) -> None:
        """Run the handlers of an event when those of earlier events have run."""
        self._lane.put((event, args))

    def open(self, tasks: TaskHost) -> None:
        """Run handlers from now on."""
        self._lane.open(tasks)

    async def quiet(self) -> None:
        """Wait until no handler waits or runs."""
        await self._lane.quiet()

    async def close(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Cancel the handler that runs, begin no more, and wait for it within the bound of the wind-down.

        Returns:
            The events of which no handler has heard.
        """
        left = self._lane.close(cancel=True)
        with self._clean_up.shield() as shield:
            await self._lane.quiet()
        if shield.cancelled_caught:
            for _ in range(2):  # it was cancelled in this very step: see whether it goes
                await cancel_shielded_checkpoint()
        if shield.cancelled_caught and self._lane.busy:
            logger.warning(
                "runner %r waits for an event handler that refuses cancellation",
                self.name,
                extra=about(runner=self.name),
            )
        return left

    async def _fire(self, event: tuple[str, tuple[Any, ...]]) -> None:
        name, args = event
        for handler in self._handlers.of(name):
            try:
                await call_handler(handler, self._runner, *args)
            except BaseException as exc:
                logger.error(
                    "a handler of %s of runner %r failed",
                    name,
                    self.name,
                    exc_info=await own_error(exc),
                    extra=about(runner=self.name),
                )

    tells(_fire, lambda its: Doing(f"a handler of {its['event'][0]} of runner {its['self'].name!r}"))
