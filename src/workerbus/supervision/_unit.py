"""Workers that are restarted together: one of them, or all (S1). It decides nothing, and knows no host."""

from collections.abc import Iterator, Sequence
from typing import Any

from anyio import CancelScope

from workerbus._backoff import Backoff
from workerbus._concurrency.lifetime import LazyEvent
from workerbus._concurrency.waiting import Role, Wait, waits
from workerbus._slot import core_of
from workerbus.errors import describe
from workerbus.messages import BusCancelWorkerMessage
from workerbus.supervision._factories import Factory
from workerbus.supervision._state import SUPERVISION_TABLE, RestartIntensity, SupervisedState, SupervisedTrigger


class Pace:
    """How often, and after which waits, the workers of one unit may be restarted."""

    __slots__ = ("_backoff", "_intensity", "delays")

    def __init__(self, backoff: Backoff, max_restarts: int, within: float) -> None:
        self._backoff = backoff
        self._intensity = RestartIntensity(max_restarts, within)
        self.delays: Iterator[float] = backoff.delays()

    def permits(self, now: float) -> bool:
        """Count one more restart; returns False, and counts nothing, if that is one too many."""
        if self._intensity.calm(now):
            self.delays = self._backoff.delays()
        return self._intensity.permits(now)


class Supervised:
    """One supervised worker, over all its lives.

    Attributes:
        name: Its name.
        factory: Makes it.
        worker: The worker of this life; None when it has left.
        state: Where it is.
        restarts: How many times it was restarted.
        error: What this life has failed of, or what has kept the next one from coming; None if it has not failed.
        going: Whether the worker of this life has begun to go by itself.
        before: What the life before has failed of.
        left: Set when the worker has left the bus, and its name is free.
        comes: Whether the next life is just being added.
        unit: With whom it is restarted.
    """

    __slots__ = ("before", "comes", "error", "factory", "going", "left", "name", "restarts", "state", "unit", "worker")

    unit: "RestartUnit"

    def __init__(self, factory: Factory, worker: Any) -> None:
        self.name: str = core_of(worker).state.name
        self.factory = factory
        self.worker: Any = worker
        self.state = SupervisedState.RUNNING
        self.restarts = 0
        self.error: BaseException | None = None
        self.before: BaseException | None = None
        self.going = False
        self.left = LazyEvent()
        self.comes = False

    def lives(self, worker: Any) -> None:
        """Begin the next life, before the worker is added: it may fail in the very step in which it was."""
        self.worker, self.error, self.going, self.left = worker, None, False, LazyEvent()
        self.move(SupervisedTrigger.COMES)

    def has_left(self) -> None:
        """Note that the worker has left the bus; nothing is kept of it."""
        self.worker = None
        self.left.set()

    def move(self, trigger: SupervisedTrigger) -> bool:
        """Move on as the table says; returns whether there was a move."""
        target = SUPERVISION_TABLE[self.state].get(trigger)
        if target is None:
            return False
        self.state = target
        return True

    async def bring_down(self, reason: str) -> None:
        """Cancel the worker, if it is there and not going anyway, and wait until it has left."""
        core = None if self.worker is None else core_of(self.worker)
        if core is None or not core.state.admitted:
            return
        message = None
        if not self.going:
            source = core.state.parent_name or core.state.runner.name
            message = BusCancelWorkerMessage(reason, source=source, target=self.name)
        if await core.lifecycle.bring_down(message):
            await self.left.wait()

    waits(bring_down, lambda its: Wait(2, f"for worker {its['self'].name!r} to finish"))

    def in_words(self) -> Wait:
        """Return what those wait for who wait for the worker while it is restarted."""
        error = self.error or self.before
        why = "" if error is None else f", as it has failed: {describe(error)}"
        text = f"for worker {self.name!r}, which is being restarted (restart {self.restarts + 1}){why}"
        return Wait(1, text, (("restart", self.name),))


class RestartUnit:
    """Workers that are restarted together.

    Attributes:
        children: The workers, in the order in which they are made.
        pace: How often they may be restarted.
        due: Whether a restart was decided on, of which nothing was made yet: what fails meanwhile does not count.
        failure: Why none of them is restarted any more, and in whose name that was decided; None as long as they are.
        scope: Around the task that restarts them; None while there is none.
        over: Set when that task has ended.
    """

    __slots__ = ("children", "due", "failure", "over", "pace", "scope")

    def __init__(self, children: Sequence[Supervised], pace: Pace) -> None:
        self.children = tuple(children)
        self.pace = pace
        self.due = False
        self.failure: tuple[Supervised, BaseException] | None = None
        self.scope: CancelScope | None = None
        self.over = LazyEvent()
        for child in children:
            child.unit = self

    def role(self) -> Role:
        """Return what the task is for that restarts them."""
        title = f"the restart of {', '.join(repr(child.name) for child in self.children)}"
        return Role(title, tuple(("restart", child.name) for child in self.children))

    def of(self, state: SupervisedState) -> list[Supervised]:
        """Return those of its workers that are in a state."""
        return [child for child in self.children if child.state is state]
