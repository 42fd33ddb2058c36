"""Whether a runner is well, for load balancers and orchestrators: a snapshot, with reasons in words (O2, O3, X10).

Two questions are answered, and they are not the same. Is it live, or has it to be restarted? Is it ready, or is work to
be given to others? A runner that drains, whose bus connects again, or one of whose workers has failed is live and not
ready.

It knows no runner: what it needs is given to it.
"""

from collections.abc import Iterator
from typing import Final

from workerbus._values import Value, value

DEAD_AFTER: Final = 10.0
"""For how many seconds an event loop has to stand still before its runner counts as not live."""


@value
class RunnerHealth(Value):
    """The health of a runner at one moment.

    Args:
        name: The runner's name.
        started: Whether it has started; True from then on until it has ended.
        ending: Whether it is ending: it takes no new workers, and its workers take no new jobs. Also True when it has
            ended.
        ended: Whether its run is over.
        bus: The state of its bus: ``"connected"``, ``"closed"``, or another state of a network's bus, such as
            ``"disconnected"`` or ``"fenced"``.
        starting: The names of the root workers that have not started yet.
        failed: The names of the root workers that have failed and will not be restarted.
        stalled: For how many seconds the event loop has been standing still, if that is longer than ``stall_seconds``;
            else 0.0, also if nothing watches it.
    """

    name: str
    started: bool
    ending: bool
    ended: bool
    bus: str
    starting: tuple[str, ...]
    failed: tuple[str, ...]
    stalled: float

    @property
    def live(self) -> bool:
        """Whether it works at all; if not, only a new process helps."""
        return not self.ended and self.stalled < DEAD_AFTER

    @property
    def ready(self) -> bool:
        """Whether it can take work."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ready, in words; empty if it is."""
        return tuple(self._reasons())

    def _reasons(self) -> Iterator[str]:
        if self.ended:
            yield "it has ended"
        elif self.ending:
            yield "it is ending"
        elif not self.started:
            yield "it has not started"
        if self.started and self.bus != "connected":
            yield f"its bus is {self.bus}"
        for name in self.starting:
            yield f"worker {name!r} is starting"
        for name in self.failed:
            yield f"worker {name!r} has failed"
        if self.stalled:
            yield f"the event loop has stood still for {self.stalled:.3g} s"
