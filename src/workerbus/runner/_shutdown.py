"""How a run is asked to end: gracefully, then perhaps at once (L4, R1, R2, R5).

1. What is asked for before the run is kept, and done when the run begins.
2. What is asked for only grows: an end may become a cancel, and a cancel stays one.
3. An end is a message to each root worker, and has a grace period. After it, the workers that are left are cancelled.
4. A cancel starts the clock of the wind-down. Workers that have not finished when it has run out are named in the log:
   they refuse cancellation, and are waited for all the same.

Nothing here waits, except the two watchers for 3 and 4.
"""

import logging
from collections.abc import Callable, Collection
from enum import IntEnum

from anyio import Event, current_time, move_on_after, sleep_until

from workerbus._concurrency.lifetime import CLEANUP_SECONDS, CleanUp
from workerbus._concurrency.waiting import enumerated
from workerbus._log import about
from workerbus.abc import Sender
from workerbus.messages import BusCancelWorkerMessage, BusEndWorkerMessage
from workerbus.runner._run import Run

logger = logging.getLogger("workerbus.runner")


class Asked(IntEnum):
    """What was asked for; the greater value wins."""

    NOTHING = 0
    END = 1
    CANCEL = 2


class Shutdown:
    """The end of one runner's run.

    Args:
        name: The runner's name.
        bus: The runner's bus.
        run: The run that is to end.
        clean_up: The clock of the wind-down.
        roots: The names of the root workers that have not finished.
        grace: How many seconds an end may take before it becomes a cancel.
        restarting: The names of the root workers that are being restarted.
        end_restarts: Has nobody restarted any more.

    Attributes:
        asked: What was asked for so far.
        reason: Why, in words.
        called_for: Whether somebody has asked; else the run ends by itself.
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
        restarting: Collection[str] = (),
        end_restarts: Callable[[], None] | None = None,
    ) -> None:
        self._name = name
        self._bus = bus
        self._run = run
        self._clean_up = clean_up
        self._roots = roots
        self._grace = grace
        self._restarting = restarting
        self._end_restarts = end_restarts
        self.reason: str | None = None
        self.called_for: bool = False
        self._auto = False
        self.asked: Asked = Asked.NOTHING
        self.all_done: Event = Event()

    def begin(self, *, auto_end: bool) -> None:
        """Begin to end the run: do what was asked for before it.

        Args:
            auto_end: Whether the run ends when every root worker has finished.
        """
        self._auto = auto_end
        if self.asked is Asked.CANCEL:
            self._send_cancels()
        elif self.asked is Asked.END:
            self._send_ends()
        self.check()

    def check(self) -> None:
        """Set `all_done` if the last root worker has finished and the run may end."""
        if not self._roots and not self._restarting and (self._auto or self.asked):
            self.all_done.set()

    def end(self, reason: str | None) -> None:
        """Ask for a graceful end. Where something was asked for before, this changes nothing."""
        if not self.called_for:
            self.called_for, self.reason = True, reason
            self.finish()

    def finish(self) -> None:
        """End gracefully because the block of the run was left, unless something was asked for."""
        if self.asked is Asked.NOTHING:
            self.asked = Asked.END
            if self._run.tasks is not None:
                self._send_ends()

    def cancel(self, reason: str | None) -> None:
        """Ask for an immediate end, also while a graceful one is under way. A second call changes nothing."""
        if self.asked is not Asked.CANCEL:
            self.asked, self.called_for, self.reason = Asked.CANCEL, True, reason
            if self._run.body is not None:
                self._run.body.cancel()
            # Without tasks there is nobody to send to: either the run comes later, and `begin` sees to it, or it is
            # just opening its bus, which may take for ever.
            if self._run.tasks is not None:
                self._send_cancels()
            else:
                self._run.cancel_opening()

    def _send_ends(self) -> None:
        if self._end_restarts is not None:
            self._end_restarts()
        for name in list(self._roots):
            self._bus.post_here(BusEndWorkerMessage(self.reason, source=self._name, target=name))
        if self._roots and self._run.tasks is not None:
            self._run.tasks.start(self._cancel_late, name=f"{self._name} grace period")
        self.check()

    def _send_cancels(self) -> None:
        if self._end_restarts is not None:
            self._end_restarts()
        # The clock first, so that all that the messages set off goes by it; one watcher, however often this is called.
        if self._run.limit(self._clean_up.begin()) and self._run.tasks is not None:
            self._run.tasks.start(self._name_the_late, name=f"{self._name} watch")
        for name in list(self._roots):
            message = BusCancelWorkerMessage(self.reason, source=self._name, target=name)
            self._bus.on_message_received(message)  # here alone: it overtakes all, and no network can lose it
        self.check()

    async def _cancel_late(self) -> None:
        # A worker that has got the end cancels itself when its grace period is over. This is for those that never did.
        with move_on_after(self._grace):
            await self.all_done.wait()
            return
        self._send_cancels()  # to the workers; the body of an 'async with' goes on, since nobody has asked for a cancel

    async def _name_the_late(self) -> None:
        try:
            await sleep_until(self._clean_up.deadline())
        finally:
            if self._roots and not self.all_done.is_set() and self._clean_up.deadline() <= current_time():
                late = enumerated([f"worker {name!r}" for name in self._roots])
                logger.warning(
                    "runner %r has waited %g s and still waits for %s",
                    self._name,
                    CLEANUP_SECONDS,
                    late,
                    extra=about(runner=self._name),
                )
