"""Messages in the order in which they were sent, though several programs tell of them (O8).

Each program tells of its own, in reports of its own, so what one has sent may be heard of before that to which it was
the answer. Held for a moment, it comes in order. Where two clocks are known less well than two messages of a job are
apart, the request is the first of them all the same.
"""

from collections.abc import Awaitable, Callable, Iterable

from anyio import create_task_group, current_time, sleep

from workerbus._concurrency.failures import unwrap_group
from workerbus.cli._watch import Passed, Take

STEP = 0.1
"""Seconds between two looks whether something is to be handed on."""


class InOrder:
    """Messages that were heard of and are held.

    Args:
        seconds: For how long, where more than one runner tells.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._held: list[tuple[float, Passed]] = []
        self._runners: set[str] = set()
        self._missed = 0
        self._now: tuple[float, float] | None = None

    def add(self, messages: Iterable[Passed], missed: int, now: float) -> None:
        """Hold messages.

        Args:
            messages: The messages.
            missed: How many were left out before them.
            now: What the time is, on their clock.
        """
        heard = current_time()
        self._held += [(heard, each) for each in messages]
        self._runners.update(each.runner for _, each in self._held)
        self._missed += missed
        self._now = (heard, now)

    def hand_on(self, take: Take, *, everything: bool = False) -> bool:
        """Hand on what was held for long enough, and what was sent before that; returns whether more is wanted.

        Args:
            take: Takes it.
            everything: Whether all is handed on, since nothing more comes.
        """
        seconds = 0.0 if everything or len(self._runners) < 2 else self._seconds
        old = [each.at for heard, each in self._held if heard <= current_time() - seconds]
        if self._now is None or not (old or self._missed):
            return True
        last = max(old, default=float("-inf"))
        ready = _sorted([each for _, each in self._held if each.at <= last])
        self._held = [(heard, each) for heard, each in self._held if each.at > last]
        missed, self._missed = self._missed, 0
        heard, now = self._now
        return take(ready, missed, now + current_time() - heard)


def _sorted(messages: list[Passed]) -> list[Passed]:
    asked = {each.job_id: each.at for each in messages if each.kind == "asked"}

    def place(each: Passed) -> tuple[float, bool]:
        return max(each.at, asked.get(each.job_id, each.at)), each.kind != "asked"

    return sorted(messages, key=place)


async def in_order(read: Callable[[InOrder], Awaitable[None]], take: Take, seconds: float) -> bool:
    """Hand on messages in their order, until there is enough, or no more; returns whether more is wanted.

    Args:
        read: Adds the messages as they are heard of, until there are no more.
        take: Takes them.
        seconds: For how long they are held, where more than one runner tells of them.

    Raises:
        Exception: What reading has raised, behind what it had read, or taking.
    """
    order = InOrder(seconds)
    more = False
    try:
        async with create_task_group() as tasks:
            tasks.start_soon(_hand_on, order, take, tasks.cancel_scope.cancel, name="hand on")
            try:
                await read(order)
            except Exception:
                order.hand_on(take, everything=True)
                raise
            more = order.hand_on(take, everything=True)
            tasks.cancel_scope.cancel()
    except ExceptionGroup as group:
        raise unwrap_group(group) from None
    return more


async def _hand_on(order: InOrder, take: Take, enough: Callable[[], None]) -> None:
    while order.hand_on(take):  # noqa: ASYNC110 - what is held gets old by itself
        await sleep(STEP)
    enough()
