"""Restarting the workers of one host: a runner, or a parent (S1).

A worker's supervision is asked twice, in the step of what happens:

1. `Supervision.goes`, when the worker begins to go and takes no more jobs: whether there will be another one. Then it
   counts as a restart, and from now on jobs for all that are restarted wait.
2. `Supervision.gone`, when it has left and its name is free: what the host has to report.

A restart is one task of the host's for each unit: it brings down the others of the unit, the last first, waits for the
backoff, calls the factories and has the host add what they return. It ends with the host. Whatever else of the unit
goes before anything was made anew is part of the same restart.

How a worker is added, and who hears of it, the host knows.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from anyio import CancelScope, Event, current_time, move_on_after, sleep

from workerbus._backoff import Backoff
from workerbus._concurrency.failures import own_error
from workerbus._concurrency.lifetime import CLEANUP_SECONDS, LazyEvent
from workerbus._concurrency.waiting import Wait, serves, waits
from workerbus._log import about
from workerbus._slot import core_of
from workerbus._values import WorkerRestartedData
from workerbus.errors import FactoryError, RestartLimitError, describe
from workerbus.supervision._factories import Factory, check_arguments, made
from workerbus.supervision._state import Restart, Strategy, SupervisedState, SupervisedTrigger, wants_back
from workerbus.supervision._unit import Pace, RestartUnit, Supervised

logger = logging.getLogger("workerbus.supervision")


class SupervisingHost(Protocol):
    """A runner or a parent, as its supervisions see it."""

    @property
    def runner_name(self) -> str:
        """The name of the runner."""

    @property
    def takes_workers(self) -> bool:
        """Whether it runs, and is not ending."""

    async def add(self, worker: Any) -> None:
        """Add a worker, and return when it is attached."""

    def start_task(self, function: Callable[[], Any], name: str) -> None:
        """Start a task that ends with the host."""

    def restarting(self, name: str, *, is_so: bool) -> None:
        """Note that a worker is being restarted, or no more."""

    def restarted(self, data: WorkerRestartedData) -> None:
        """Tell those who want to know of a restart."""

    def given_up(self, name: str, error: BaseException | None) -> None:
        """Remember that a worker, which has left, is not restarted any more, so that nobody waits for it."""

    def escalate(self, name: str, error: BaseException) -> None:
        """Report a worker that could not be made anew and is given up."""


class Supervision:
    """Workers that are restarted when they have gone. ``supervise`` of a runner or a worker returns it.

    Guarantees: S1.
    """

    def __init__(
        self,
        host: SupervisingHost,
        factories: Sequence[Factory],
        *,
        strategy: Strategy,
        restart: Restart,
        max_restarts: int,
        within: float,
        backoff: Backoff | None,
    ) -> None:
        check_arguments(factories, strategy, restart, max_restarts, within, backoff)
        self._host = host
        self._restart: Restart = restart
        self._limit = max_restarts, within
        self._closed = False
        self._begun = Event()
        self._children: dict[str, Supervised] = {}
        for factory in factories:
            child = Supervised(factory, made(factory))
            if child.name in self._children:
                raise ValueError(f"two factories make a worker {child.name!r}: names are unique")
            self._children[child.name] = child
        children = list(self._children.values())
        together = [children] if strategy == "all_for_one" else [[child] for child in children]
        self._units = [RestartUnit(each, Pace(backoff or Backoff(), max_restarts, within)) for each in together]

    def __repr__(self) -> str:
        return f"<Supervision of {', '.join(f'{name!r} ({state})' for name, state in self.states.items())}>"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the workers, in the order of their factories."""
        return tuple(self._children)

    @property
    def restarts(self) -> dict[str, int]:
        """Name to how many times that worker was restarted."""
        return {child.name: child.restarts for child in self._children.values()}

    @property
    def states(self) -> dict[str, str]:
        """Name to ``"running"``, ``"restarting"``, ``"ended"`` or ``"failed"``."""
        return {child.name: child.state.value for child in self._children.values()}

    @property
    def is_over(self) -> bool:
        """Whether none of the workers is there or will come."""
        living = (SupervisedState.RUNNING, SupervisedState.RESTARTING)
        return not any(child.state in living for child in self._children.values())

    async def stop(self) -> None:
        """Stop restarting, and stop the workers, the last one first; returns when they have finished.

        Guarantees: S1.
        """
        self.close()
        for unit in self._units:
            if unit.scope is not None:
                await unit.over.wait()  # what it was adding is added by now, or is not
        await self._bring_down(list(self._children.values()), "its supervision was stopped")

    def in_words(self, name: str) -> Wait | None:
        """Return what those wait for who wait for a worker that is being restarted; None where it is not of these."""
        child = self._children.get(name)
        return None if child is None else child.in_words()

    # --- for the host

    async def begin(self) -> None:
        """Add the first workers."""
        for child in self._children.values():
            core_of(child.worker).state.supervision = self
        try:
            for child in self._children.values():
                await self._host.add(child.worker)
        except BaseException:
            self.close()
            with move_on_after(CLEANUP_SECONDS, shield=True):
                await self._bring_down(list(self._children.values()), "another worker could not be added")
            raise
        finally:
            self._begun.set()

    def release(self, name: str) -> None:
        """Restart one of the workers no more."""
        child = self._children.get(name)
        if child is not None and child.move(SupervisedTrigger.STOP):
            self._host.restarting(name, is_so=False)

    def close(self) -> None:
        """Restart nobody any more: the host ends."""
        self._closed = True
        for child in self._children.values():
            if child.state is SupervisedState.RESTARTING and child.left.is_set():
                self._host.given_up(child.name, child.error)
            if child.move(SupervisedTrigger.STOP):
                self._host.restarting(child.name, is_so=False)
        for unit in self._units:
            if unit.scope is not None:
                unit.scope.cancel()

    def brings(self, worker: Any) -> bool:
        """Whether a worker is just being added as the next one of its name, or as a first one that is to go again."""
        child = self._child_of(worker)
        return child is not None and (child.comes or child.state is SupervisedState.RESTARTING)

    def goes(self, worker: Any, error: BaseException | None) -> None:
        """Decide whether there will be another one, when a worker begins to go."""
        child = self._child_of(worker)
        if child is None:
            return
        child.going = True
        if child.state is SupervisedState.RUNNING and self._wants_back(child, error):
            child.error = error
            if self._counts(child.unit):
                self._restart_all(child.unit)
            else:
                self._give_up(child, RestartLimitError(child.name, *self._limit))
            self._begin(child.unit)

    def gone(self, worker: Any, error: BaseException | None) -> BaseException | None:
        """Go on, when a worker has gone.

        Returns:
            What the host has to report; None where there is nothing, or where the worker is being restarted.
        """
        child = self._child_of(worker)
        if child is None:
            return error
        self.goes(worker, error)
        child.has_left()
        if child.state is SupervisedState.RESTARTING:
            child.error = error or child.error
            return None
        failure = self._ended(child, error)
        self._host.restarting(child.name, is_so=False)
        return failure

    def _ended(self, child: Supervised, error: BaseException | None) -> BaseException | None:
        if child.state is SupervisedState.RUNNING:
            child.move(SupervisedTrigger.ENDS)
            if child.unit.failure is not None and error is None:  # it was stopped for this, and will not come again
                self._host.given_up(child.name, child.unit.failure[1])
            return error
        if child.unit.failure is not None and child.state is SupervisedState.FAILED:
            return self._failed(child, error, *child.unit.failure)
        if child.error is None:
            return error  # it had not failed when the supervision was stopped
        self._host.given_up(child.name, error or child.error)
        return None

    def could_not_be_attached(self, worker: Any) -> None:
        """Go on, when a worker could not be attached for which nobody waits any more."""
        child = self._child_of(worker)
        if self._closed and child is not None and child.before is not None:
            child.has_left()
            self._host.given_up(child.name, child.before)
            self._host.restarting(child.name, is_so=False)

    # --- what is decided

    def _child_of(self, worker: Any) -> Supervised | None:
        child = self._children.get(core_of(worker).state.name)
        return child if child is not None and child.worker is worker else None

    def _wants_back(self, child: Supervised, error: BaseException | None) -> bool:
        if child.unit.failure is not None or not self._host.takes_workers:
            return False
        return wants_back(self._restart, failed=error is not None)

    def _counts(self, unit: RestartUnit) -> bool:
        """Count a restart, unless this is part of one that was counted; returns False if it is one too many."""
        return unit.due or unit.pace.permits(current_time())

    def _restart_all(self, unit: RestartUnit) -> None:
        """Restart all of a unit, whether they are there or not; they take no more jobs."""
        unit.due = True
        for child in unit.children:
            if child.state is SupervisedState.RUNNING and child.worker is not None:  # else it could not be added
                core_of(child.worker).presence.withdraw()
            if child.move(SupervisedTrigger.GOES) or child.move(SupervisedTrigger.ALL):
                self._host.restarting(child.name, is_so=True)

    def _give_up(self, child: Supervised, error: BaseException) -> None:
        """Restart none of a unit any more, because of one of them."""
        error.__cause__ = child.error
        child.unit.due, child.unit.failure = False, (child, error)
        for each in child.unit.children:
            if each is child or each.state is SupervisedState.RESTARTING:
                self._gives_up_too(each, error)

    def _gives_up_too(self, child: Supervised, error: BaseException) -> None:
        child.move(SupervisedTrigger.GIVE_UP)
        if child.left.is_set():
            self._host.given_up(child.name, error)
        self._host.restarting(child.name, is_so=False)

    def _failed(
        self, child: Supervised, error: BaseException | None, culprit: Supervised, failure: BaseException
    ) -> BaseException | None:
        if child is not culprit:
            self._host.given_up(child.name, failure)
            return None
        if error is not None:
            failure.__cause__ = error
        return failure

    # --- what is done

    def _begin(self, unit: RestartUnit) -> None:
        if unit.scope is None and (unit.due or unit.of(SupervisedState.RUNNING)):
            unit.scope, unit.over = CancelScope(), LazyEvent()
            names = ", ".join(child.name for child in unit.children)
            self._host.start_task(partial(self._restart_unit, unit, unit.scope), f"restart of {names}")

    async def _restart_unit(self, unit: RestartUnit, scope: CancelScope) -> None:
        try:
            with scope:
                await self._begun.wait()
                while unit.due and not self._closed:
                    await self._bring_down(unit.children, "it is restarted with the others")
                    await sleep(next(unit.pace.delays))
                    unit.due = False
                    await self._make_all(unit)
                if unit.failure is not None and not self._closed:
                    culprit = unit.failure[0].name
                    await self._bring_down(unit.children, f"worker {culprit!r} is not restarted any more")
        finally:
            unit.scope = None
            unit.over.set()

    waits(_restart_unit, lambda _: Wait(1, "for the time to pass after which it makes them anew"))
    serves(_restart_unit, lambda its: its["unit"].role())

    async def _bring_down(self, children: Sequence[Supervised], reason: str) -> None:
        for child in reversed(children):
            await child.bring_down(reason)

    async def _make_all(self, unit: RestartUnit) -> None:
        for child in unit.children:
            if child.state is SupervisedState.RESTARTING:
                await self._make(child)
            if unit.due:
                return

    async def _make(self, child: Supervised) -> None:
        child.before, child.comes = child.error, True
        try:
            worker = made(child.factory, child.name)
            core_of(worker).state.supervision = self
            child.lives(worker)
            await self._host.add(worker)
        except BaseException as exc:  # noqa: BLE001 - sorted there; counted as a failure
            if child.worker is not None and not core_of(child.worker).state.admitted:
                child.has_left()
            if self._closed:
                child.error = child.before  # one that the host goes on attaching is told of when it has left
                self._host.given_up(child.name, child.before)
                self._host.restarting(child.name, is_so=False)
            self._has_not_come(child, await own_error(exc))
        else:
            self._has_come(child)
        finally:
            child.comes = False

    waits(_make, lambda its: Wait(1, f"for the new worker {its['child'].name!r} to be attached"))

    def _has_not_come(self, child: Supervised, error: BaseException) -> None:
        if self._closed or not self._host.takes_workers:
            return
        child.error = error
        if child.unit.failure is not None:  # one that came before it has failed meanwhile, once too often
            self._gives_up_too(child, child.unit.failure[1])
        elif not isinstance(error, FactoryError) and self._counts(child.unit):
            self._restart_all(child.unit)
        else:
            failure: Exception = RestartLimitError(child.name, *self._limit)
            if isinstance(error, FactoryError):
                child.error, failure = child.before, error
            self._give_up(child, failure)
            self._host.escalate(child.name, failure)

    def _has_come(self, child: Supervised) -> None:
        child.restarts += 1
        self._host.restarting(child.name, is_so=child.state is SupervisedState.RESTARTING)
        text = None if child.before is None else describe(child.before)
        about_it = about(runner=self._host.runner_name, worker=child.name)
        why = text or "it had ended"
        logger.info("worker %r was restarted (restart %d): %s", child.name, child.restarts, why, extra=about_it)
        self._host.restarted(WorkerRestartedData(child.name, self._host.runner_name, text, child.restarts))
