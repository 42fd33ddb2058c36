"""Restarting the workers of one host: a runner, or a parent (S1).

When a worker has gone, its host asks `Supervision.gone`, in that step, what is to follow. A restart is one task of the
host's: it waits for the backoff, calls the factories and has the host add what they return. It ends with the host.
How a worker is added, and who hears of it, the host knows.
"""

import logging
import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Protocol

from anyio import CancelScope, current_time, move_on_after, sleep

from workerbus._backoff import Backoff
from workerbus._concurrency.failures import own_error
from workerbus._concurrency.lifetime import CLEANUP_SECONDS
from workerbus._log import about
from workerbus._slot import HasCore, core_of
from workerbus._values import WorkerRestartedData
from workerbus.errors import RestartLimitError, describe
from workerbus.supervision._state import (
    SUPERVISION_TABLE,
    Restart,
    RestartIntensity,
    Strategy,
    SupervisedState,
    SupervisedTrigger,
    wants_back,
)

logger = logging.getLogger("workerbus.supervision")

Factory = Callable[[], Any]


class SupervisingHost(Protocol):
    """A runner or a parent, as its supervisions see it."""

    @property
    def runner_name(self) -> str:
        """The name of the runner."""

    @property
    def takes_workers(self) -> bool:
        """Whether it is not ending."""

    async def add(self, worker: Any) -> None:
        """Add a worker, and return when it is attached."""

    def start_task(self, function: Callable[[], Any], name: str) -> None:
        """Start a task that ends with the host."""

    def restarting(self, name: str, *, is_so: bool) -> None:
        """Note that a worker is being restarted, or no more."""

    def restarted(self, data: WorkerRestartedData) -> None:
        """Tell those who want to know of a restart."""

    def given_up(self, name: str, error: BaseException) -> None:
        """Remember that a worker is not restarted any more, so that nobody waits for it."""

    def escalate(self, name: str, error: BaseException) -> None:
        """Report a worker that could not be made anew and is given up."""


class _Pace:
    """How often, and after which waits, one worker may be restarted; or all, where they are restarted together."""

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


class _Supervised:
    """One supervised worker: its factory, its state, how often it was restarted, and of what it has gone last."""

    __slots__ = ("error", "factory", "name", "pace", "restarts", "state", "worker")

    def __init__(self, name: str, factory: Factory, worker: Any, pace: _Pace) -> None:
        self.pace = pace
        self.name = name
        self.factory = factory
        self.worker = worker
        self.state = SupervisedState.RUNNING
        self.restarts = 0
        self.error: BaseException | None = None

    def move(self, trigger: SupervisedTrigger) -> bool:
        """Move on as the table says; returns whether there was a move."""
        target = SUPERVISION_TABLE[self.state].get(trigger)
        if target is None:
            return False
        self.state = target
        return True


class Supervision:
    """Workers that are made anew when they have gone. What ``supervise`` of a runner or a worker returns.

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
        _check(factories, strategy, restart, max_restarts, within, backoff)
        self._host = host
        self._all = strategy == "all_for_one"
        self._restart: Restart = restart
        self._limit = max_restarts, within
        self._backoff = backoff or Backoff()
        shared = _Pace(self._backoff, *self._limit)
        self._closed = False
        self._scopes: dict[str, CancelScope] = {}
        self._stopping = False
        self._children: dict[str, _Supervised] = {}
        for factory in factories:
            worker = _made(factory, None)
            name = core_of(worker).state.name
            if name in self._children:
                raise ValueError(f"two factories make a worker {name!r}: names are unique")
            pace = shared if self._all else _Pace(self._backoff, *self._limit)
            self._children[name] = _Supervised(name, factory, worker, pace)

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
        """Whether none of the workers is there, or will come."""
        living = (SupervisedState.RUNNING, SupervisedState.RESTARTING)
        return not any(child.state in living for child in self._children.values())

    async def stop(self) -> None:
        """Restart nobody any more, and stop the workers, the last first; returns when they have finished.

        Guarantees: S1.
        """
        running = [child for child in self._children.values() if child.state is SupervisedState.RUNNING]
        self.close()
        for child in reversed(running):
            await child.worker.stop()

    # --- for the host

    async def begin(self) -> None:
        """Add the first workers."""
        for child in self._children.values():
            core_of(child.worker).state.supervision = self
        added: list[_Supervised] = []
        try:
            for child in self._children.values():
                await self._host.add(child.worker)
                added.append(child)
        except BaseException:
            self.close()
            with move_on_after(CLEANUP_SECONDS, shield=True):
                for child in reversed(added):
                    await child.worker.stop()
            raise

    def close(self) -> None:
        """Restart nobody any more: the host ends."""
        self._closed = True
        for child in self._children.values():
            if child.move(SupervisedTrigger.STOP):
                self._host.restarting(child.name, is_so=False)
                if child.error is not None:
                    self._host.given_up(child.name, child.error)  # so that nobody waits for it
        for scope in list(self._scopes.values()):
            scope.cancel()

    def is_wanted_back(self, worker: Any, error: BaseException | None) -> bool:
        """Whether a worker that is going is to be made anew, but for the limit."""
        child = self._children.get(core_of(worker).state.name)
        if child is None or child.worker is not worker or child.state is not SupervisedState.RUNNING:
            return False
        wanted = self._stopping or wants_back(self._restart, failed=error is not None)
        return wanted and not self._closed and self._host.takes_workers

    def gone(self, worker: Any, error: BaseException | None) -> BaseException | None:
        """Decide what follows when a worker has gone, and begin with it.

        Returns:
            What the host has to report; None where there is nothing, or where the worker is being restarted.
        """
        child = self._children.get(core_of(worker).state.name)
        if child is None or child.worker is not worker:
            return error
        if not self.is_wanted_back(worker, error):
            child.move(SupervisedTrigger.ENDS)
            return error
        child.error = error
        if not self._stopping and (given_up := self._count(child)) is not None:
            return given_up
        child.move(SupervisedTrigger.GOES)
        self._host.restarting(child.name, is_so=True)
        key = "" if self._all else child.name
        if key not in self._scopes:
            self._scopes[key] = CancelScope()
            self._host.start_task(lambda: self._restart_in(key), f"restart of {child.name}")
        return None

    def _count(self, child: _Supervised) -> BaseException | None:
        if child.pace.permits(current_time()):
            return None
        limit = RestartLimitError(child.name, *self._limit)
        limit.__cause__ = child.error
        for each in self._unit("" if self._all else child.name):
            if each is child or each.state is SupervisedState.RESTARTING:
                each.move(SupervisedTrigger.LIMIT)
                self._host.restarting(each.name, is_so=False)
                if each is not child:
                    self._host.given_up(each.name, limit)
        return limit

    def _unit(self, key: str) -> list[_Supervised]:
        return [child for child in self._children.values() if not key or child.name == key]

    def _waiting(self, key: str) -> list[_Supervised]:
        return [child for child in self._unit(key) if child.state is SupervisedState.RESTARTING]

    async def _restart_in(self, key: str) -> None:
        try:
            with self._scopes[key]:
                while self._waiting(key) and not self._closed:
                    await sleep(next(self._unit(key)[0].pace.delays))
                    if self._all:
                        await self._stop_the_others()
                    for child in self._waiting(key):
                        if not await self._make(child):
                            break
        finally:
            self._scopes.pop(key, None)

    async def _stop_the_others(self) -> None:
        self._stopping = True
        try:
            for child in reversed(self._children.values()):
                if child.state is SupervisedState.RUNNING:
                    state = core_of(child.worker).state
                    state.reason = state.reason or "it is restarted with the others"
                    await child.worker.stop()
        finally:
            self._stopping = False

    async def _make(self, child: _Supervised) -> bool:
        try:
            worker = _made(child.factory, child.name)
            core_of(worker).state.supervision = self
            child.worker = worker
            # Before it is added: it may fail in the very step in which it was.
            child.move(SupervisedTrigger.COMES)
            await self._host.add(worker)
        except BaseException as exc:  # noqa: BLE001 - sorted there; counted as a failure
            error = await own_error(exc)
            if self._closed or not self._host.takes_workers:
                return False
            if child.state is SupervisedState.RUNNING:
                child.move(SupervisedTrigger.GOES)
            child.error = error
            given_up = self._count(child)
            if given_up is not None:
                self._host.given_up(child.name, given_up)
                self._host.escalate(child.name, given_up)
            return False
        child.restarts += 1
        self._host.restarting(child.name, is_so=child.state is SupervisedState.RESTARTING)
        text = None if child.error is None else describe(child.error)
        about_it = about(runner=self._host.runner_name, worker=child.name)
        logger.info(
            "worker %r was restarted (restart %d): %s",
            child.name,
            child.restarts,
            text or "it had ended",
            extra=about_it,
        )
        self._host.restarted(WorkerRestartedData(child.name, self._host.runner_name, text, child.restarts))
        return True


def _made(factory: Factory, name: str | None) -> Any:
    worker = factory()
    if isinstance(worker, Coroutine):
        worker.close()
        raise TypeError(f"a factory is a plain function that returns a new worker, not an async one, as {factory!r}")
    if not isinstance(worker, HasCore) or not hasattr(core_of(worker), "lifecycle"):
        raise TypeError(f"a factory returns a worker, not {worker!r}")
    state = core_of(worker).state
    if name is not None and state.name != name:
        raise ValueError(f"the factory of worker {name!r} has made one called {state.name!r}: its name has to stay")
    return worker


def _check(
    factories: Sequence[Factory], strategy: str, restart: str, max_restarts: int, within: float, backoff: object
) -> None:
    if not factories:
        raise TypeError("supervise() takes at least one factory: a function that returns a new worker")
    for factory in factories:
        if not callable(factory):
            raise TypeError(f"a factory is a function that returns a new worker, not {factory!r}")
    if strategy not in ("one_for_one", "all_for_one"):
        raise ValueError(f"strategy is 'one_for_one' or 'all_for_one', not {strategy!r}")
    if restart not in ("never", "on_failure", "always"):
        raise ValueError(f"restart is 'never', 'on_failure' or 'always', not {restart!r}")
    if isinstance(max_restarts, bool) or not isinstance(max_restarts, int):
        raise TypeError(f"max_restarts is a whole number, not {max_restarts!r}")
    if max_restarts < 0:
        raise ValueError(f"max_restarts is at least 0, not {max_restarts!r}")
    if not 0 < within < math.inf:
        raise ValueError(f"within is a number of seconds, more than 0 and finite, not {within!r}")
    if backoff is not None and not isinstance(backoff, Backoff):
        raise TypeError(f"backoff is a Backoff, not {backoff!r}")
