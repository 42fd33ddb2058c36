"""How a run is asked to end: gracefully, then perhaps at once (R1, R2, R5).

What is asked for before the run counts from its start on. Nothing here waits, except the two watchers: one cancels what
does not end in time, the other names, in the log, what does not even let itself be cancelled.
"""

import logging
from collections.abc import Collection
from enum import IntEnum

from anyio import Event, current_time, move_on_after, sleep_until

from workerbus._concurrency.lifetime import CLEANUP_SECONDS, CleanUp
from workerbus.abc import Sender
from workerbus.messages import BusCancelWorkerMessage, BusEndWorkerMessage
from workerbus.runner._run import Run

logger = logging.getLogger("workerbus")


class Asked(IntEnum):
    """What was asked for. It only ever grows."""

    NOTHING = 0
    END = 1
    CANCEL = 2


class Shutdown:
    """The end of one runner's run.

    Args:
        name: The runner's name.
        bus: Its bus.
        run: Its run.
        clean_up: The shields of the run.
        roots: Its root workers, by name.
        grace: Seconds until an end becomes a cancel.

    Attributes:
        asked: What was asked for.
        all_done: Set when every root worker has finished and no more will come.
    """

    def __init__(
        self,
        name: str,
        bus: Sender,
        run: Run,
        clean_up: CleanUp,
        roots: Collection[str],
        grace: float,
    ) -> None:
        self._name = name
        self._bus = bus
        self._run = run
        self._clean_up = clean_up
        self._roots = roots
        self._grace = grace
        self._reason: str | None = None
        self._auto = False
        self.asked: Asked = Asked.NOTHING
        self.all_done: Event = Event()

    def begin(self, *, auto_end: bool) -> None:
        """The run has begun: do what was asked for before."""
        self._auto = auto_end
        if self.asked is Asked.CANCEL:
            self._send_cancels()
        elif self.asked is Asked.END:
            self._send_ends()
        self.check()

    def check(self) -> None:
        """Note whether the last root worker has finished."""
        if not self._roots and (self._auto or self.asked):
            self.all_done.set()

    def end(self, reason: str | None) -> None:
        """Ask for a graceful end; again is a no-op."""
        if self.asked is Asked.NOTHING:
            self.asked, self._reason = Asked.END, reason
            if self._run.tasks is not None:
                self._send_ends()

    def cancel(self, reason: str | None) -> None:
        """Ask for an immediate end, also of an end that is under way; again is a no-op."""
        if self.asked is not Asked.CANCEL:
            self.asked, self._reason = Asked.CANCEL, reason
            if self._run.body is not None:
                self._run.body.cancel()
            if self._run.tasks is not None:
                self._send_cancels()
            else:
                self._run.cancel_opening()

    def _send_ends(self) -> None:
        for name in list(self._roots):
            self._bus.post(BusEndWorkerMessage(self._reason, source=self._name, target=name))
        if self._roots and self._run.tasks is not None:
            self._run.tasks.start(self._cancel_late, name=f"{self._name} grace period")
        self.check()

    def _send_cancels(self) -> None:
        if self._run.limit(self._clean_up.begin()) and self._run.tasks is not None:
            self._run.tasks.start(self._name_the_late, name=f"{self._name} watch")
        for name in list(self._roots):
            message = BusCancelWorkerMessage(self._reason, source=self._name, target=name)
            self._bus.on_message_received(message)  # here alone: it overtakes all, and no network can lose it
        self.check()

    async def _cancel_late(self) -> None:
        # Workers that started in time cancel themselves when it is over; this is for those that never got so far.
        with move_on_after(self._grace):
            await self.all_done.wait()
            return
        self._send_cancels()  # the workers, and not the body of an 'async with'

    async def _name_the_late(self) -> None:
        try:
            await sleep_until(self._clean_up.deadline())
        finally:
            if self._roots and not self.all_done.is_set() and self._clean_up.deadline() <= current_time():
                late = ", ".join(f"worker {name!r}" for name in self._roots)
                logger.warning("runner %r has waited %g s and still waits for %s", self._name, CLEANUP_SECONDS, late)
