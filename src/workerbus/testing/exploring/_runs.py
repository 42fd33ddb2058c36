"""Runs of a scenario: one order after the other, in this process or in several, and what is kept of each."""

import copy
import pickle
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from attrs import evolve, field, frozen

from workerbus.testing._errors import InvariantError, StuckError
from workerbus.testing.clock._run import run_steered
from workerbus.testing.clock._steering import Chooser, Steering
from workerbus.testing.exploring._coverage import CoverageWatcher, Pair, Turn
from workerbus.testing.exploring._recorder import Recorder
from workerbus.testing.exploring._states import StateWatcher, Used
from workerbus.testing.invariants._places import look

Kind = tuple[Any, ...]


@frozen
class Order:
    """What is to be run.

    Args:
        chooser: Decides; a copy of it is used for the run.
        watch: From which choice on the states are looked at; None if they are not.
        used: How many switches and faults there are in it.
    """

    chooser: Chooser
    watch: int | None = None
    used: Used = (0, 0)


@frozen
class Ran:
    """What is kept of a run.

    Args:
        choices: What was chosen, as indices.
        ready: Among how many.
        points: Which of the choices were about faults.
        states: How many choices there were before each state that was looked at, and its digest.
        unknown: The class because of which the state could not be told; empty if there was none.
        switches: The switches, by their positions among the choices: the step that ran, and the one whose turn it was.
        error: What was raised.
        steering: The steering, if it was raised in this process.
    """

    choices: Sequence[int]
    ready: Sequence[int]
    points: Sequence[int]
    states: Sequence[tuple[int, bytes]]
    unknown: str
    switches: dict[int, Pair]
    error: BaseException | None = field(default=None, eq=False)
    steering: Steering | None = field(default=None, eq=False)


class Known(Protocol):
    """The states from which all has been run."""

    def knows(self, digest: bytes, used: Used) -> bool:
        """Whether a state was reached with as few switches and faults, or fewer."""
        ...


@frozen
class Scenario:
    """An async function, and how it is run.

    Args:
        function: The function.
        backend: The backend.
        limit: Seconds of virtual time for a run.
        most_faults: How many messages something may befall; None if buses draw that.
    """

    function: Callable[[], Awaitable[object]]
    backend: str
    limit: float
    most_faults: float | None

    @property
    def name(self) -> str:
        """What it is called."""
        function = getattr(self.function, "func", self.function)  # of a `partial`
        return getattr(function, "__name__", None) or repr(self.function)

    def run(
        self,
        chooser: Chooser,
        *,
        recorder: Recorder | None = None,
        watcher: StateWatcher | CoverageWatcher | None = None,
    ) -> tuple[Steering, BaseException | None]:
        """Run it once.

        Args:
            chooser: Decides.
            recorder: Sees each step, for a run that is to be told of.
            watcher: Looks at its states.

        Returns:
            The steering, and what was raised.
        """
        steering = Steering(chooser, None if recorder is None else look, watcher, self.most_faults)
        note = f"in workerbus.testing.explore({self.name}, backend={self.backend!r})"
        if recorder is not None:
            recorder.step_of = steering.running
        if isinstance(watcher, CoverageWatcher):
            watcher.choices = steering.choices
        function, backend, limit = self.function, self.backend, self.limit
        try:
            run_steered(function, backend=backend, steering=steering, limit=limit, note=note, recorder=recorder)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is what was looked for
            return steering, exc
        return steering, None

    def try_order(self, order: Order, known: Known, led_to: dict[Turn, bytes] | None) -> Ran:
        """Run an order.

        Args:
            order: The order.
            known: The states from which all has been run; from there on, states are looked at no more.
            led_to: To which state each turn leads that is known, if every state is to be noted; it is added to.
        """
        watcher: StateWatcher | CoverageWatcher | None = None
        if led_to is not None:
            watcher = CoverageWatcher(led_to)
        elif order.watch is not None:
            watcher = StateWatcher(order.watch, order.used, known.knows)
        steering, error = self.run(copy.deepcopy(order.chooser), watcher=watcher)
        return Ran(
            tuple(steering.choices),
            tuple(steering.ready),
            tuple(steering.points),
            () if watcher is None else tuple(watcher.states),
            "" if watcher is None else watcher.unknown,
            {} if watcher is None else _switches(steering),
            error,
            None if error is None else steering,
        )


def _switches(steering: Steering) -> dict[int, Pair]:
    points = set(steering.points)
    positions = [number for number, choice in enumerate(steering.choices) if choice and number not in points]
    pairs = [(str(ran), str(before)) for ran, before in steering.switches]
    return dict(zip(positions, pairs, strict=True))


def kind_of(error: BaseException) -> Kind:
    """Return by what two failures are the same.

    Where it was raised belongs to it, so that shrinking does not slide to another failure. Of one that is stuck, the
    kind is all: other tasks may wait, in other places, for the same reason.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, InvariantError):
        return (type(error), error.check)
    if isinstance(error, StuckError) or error.__traceback__ is None:
        return (type(error),)
    if isinstance(error, BaseExceptionGroup):
        return (type(error), *sorted({repr(kind_of(each)) for each in error.exceptions}))
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return (type(error), frame.f_code.co_filename, line)


def sendable(ran: Ran) -> Ran:
    """Return what is kept of a run, such that another process can have it."""
    if ran.error is None:
        return ran
    ran = evolve(ran, steering=None)
    with suppress(Exception):  # an exception of the program's own may refuse in any way
        if type(pickle.loads(pickle.dumps(ran.error))) is type(ran.error):  # noqa: S301 - it is our own
            return ran
    return evolve(ran, error=RuntimeError("".join(traceback.format_exception_only(ran.error)).strip()))


class Runs(Protocol):
    """Runs orders, in their order."""

    def run(self, orders: Sequence[Order]) -> Iterator[Ran]:
        """Yield what is kept of each; who asks may stop in between."""
        ...

    def close(self) -> None:
        """End what was started for that."""
        ...


@frozen
class OwnProcess:
    """Runs orders in this process.

    Args:
        scenario: What is run.
        known: The states from which all has been run.
        led_to: To which state each turn leads that is known, if every state is to be noted.
    """

    scenario: Scenario
    known: Known
    led_to: dict[Turn, bytes] | None = None

    def run(self, orders: Sequence[Order]) -> Iterator[Ran]:
        """Yield what is kept of each; who asks may stop in between."""
        for order in orders:
            yield self.scenario.try_order(order, self.known, self.led_to)

    def close(self) -> None:
        """Do nothing."""
