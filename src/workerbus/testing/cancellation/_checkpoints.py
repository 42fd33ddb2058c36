"""`cancel_at_every_checkpoint`: cut a piece of a program wherever it can be cut, and see what is left of it.

How a scenario is driven and cut is in `_cutting`. Here is the rest: one run after the other, what each must have
cleaned up, and words for where it went wrong.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, TypeVar, get_args, overload

from anyio import create_task_group, get_cancelled_exc_class
from attrs import frozen

from workerbus.errors import add_note
from workerbus.testing._leaks import nothing_left
from workerbus.testing.cancellation._cutting import Cut, Driven, How, Position, ScopeCut, make_cut
from workerbus.testing.clock._run import run

T = TypeVar("T")
Outcome = Literal["cut", "finished", "raised"]


class CutError(Exception):
    """Raised in a scenario by ``how="raise"``, unless ``error`` says something else."""

    def __init__(self, text: str = "raised at a checkpoint by cancel_at_every_checkpoint(how='raise')") -> None:
        super().__init__(text)


@frozen
class Checkpoint:
    """One checkpoint at which a scenario was cut.

    Args:
        number: Which of the scenario's checkpoints it is, from 1.
        where: The innermost line of the program's own code there, as ``file:line``.
        statement: The text of that line.
        inside: The line of workerbus that it waits in, as ``file:line in function``; empty if there is none.
        outcome: How the scenario ended. ``"cut"``: the cancellation, or the exception, came out of it. ``"finished"``:
            it finished all the same, for example behind a shield. ``"raised"``: it raised something else, if that is
            allowed.
    """

    number: int
    where: str
    statement: str
    inside: str
    outcome: Outcome

    def __str__(self) -> str:
        return f"checkpoint {self.number}, {Position(self.where, self.statement, self.inside)}"


@frozen
class CheckpointReport:
    """What `cancel_at_every_checkpoint` has done.

    Args:
        scenario: The name of the scenario.
        backend: The backend on which it ran.
        seed: The seed of the schedule.
        how: How the scenario was cut.
        checkpoints: The checkpoints at which it was cut, in order; none if the backend has no such cut.
    """

    scenario: str
    backend: str
    seed: int
    how: How
    checkpoints: tuple[Checkpoint, ...]

    def of(self, outcome: Outcome) -> tuple[Checkpoint, ...]:
        """Return the checkpoints with a certain outcome.

        Args:
            outcome: ``"cut"``, ``"finished"`` or ``"raised"``.
        """
        return tuple(each for each in self.checkpoints if each.outcome == outcome)

    def __str__(self) -> str:
        head = f"{self.scenario}, cut ({self.how}) at {len(self.checkpoints)} checkpoints, "
        lines = (f"  {each.outcome} at {each}" for each in self.checkpoints)
        return "\n".join([f"{head}backend={self.backend!r}, seed={self.seed}", *lines])


@overload
def cancel_at_every_checkpoint(
    scenario: Callable[[T], Coroutine[Any, Any, object]],
    *,
    set_up: Callable[[], AbstractAsyncContextManager[T]],
    check: Callable[[T], Awaitable[object] | None] | None = None,
    backend: str = "asyncio",
    seed: int = 0,
    how: How = "scope",
    error: Callable[[], BaseException] = CutError,
    goes_through: bool = True,
    only: int | None = None,
    max_runs: int = 1_000,
) -> CheckpointReport: ...


@overload
def cancel_at_every_checkpoint(
    scenario: Callable[[], Coroutine[Any, Any, object]],
    *,
    check: Callable[[], Awaitable[object] | None] | None = None,
    backend: str = "asyncio",
    seed: int = 0,
    how: How = "scope",
    error: Callable[[], BaseException] = CutError,
    goes_through: bool = True,
    only: int | None = None,
    max_runs: int = 1_000,
) -> CheckpointReport: ...


def cancel_at_every_checkpoint(
    scenario: Callable[..., Coroutine[Any, Any, object]],
    *,
    set_up: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    check: Callable[..., Awaitable[object] | None] | None = None,
    backend: str = "asyncio",
    seed: int = 0,
    how: How = "scope",
    error: Callable[[], BaseException] = CutError,
    goes_through: bool = True,
    only: int | None = None,
    max_runs: int = 1_000,
) -> CheckpointReport:
    """Run a scenario again and again, cut it each time at another of its checkpoints, and check what is left.

    The first run is not cut. Then, in run k, the scenario is cut at its k-th checkpoint, until it ends before that.
    Each run has an event loop of its own, in virtual time (see `run`), and a set-up of its own::

        from contextlib import asynccontextmanager


        @asynccontextmanager
        async def an_echo():
            async with WorkerRunner() as runner:
                await runner.add_workers(EchoWorker("echo"))
                yield runner


        async def ask(runner):
            await runner.job("echo", payload={"n": 1}, timeout=5)


        async def still_answers(runner):
            assert await runner.job("echo", payload={"n": 2}) == {"n": 2}


        def test_an_echo_can_be_cancelled_wherever_it_waits(backend):
            cancel_at_every_checkpoint(ask, set_up=an_echo, check=still_answers, backend=backend)

    In every run the cancellation or exception must come out of the scenario, and no task and no signal handler may be
    left after the set-up. A failure is raised as it is, with a note that says where the scenario was cut.

    Args:
        scenario: An async function, called with what the set-up yields. It runs in a task of its own.
        set_up: Returns an async context manager, a new one for each run; without it, scenario and check have no
            argument.
        check: Called after the scenario, within the set-up, with the same argument; sync or async.
        backend: ``"asyncio"`` or ``"trio"``.
        seed: The seed of the order of tasks.
        how: How the scenario is cut. ``"scope"``: by a cancel scope around it. ``"native"``: by asyncio's
            ``Task.cancel()``. ``"race"``: likewise, when what the scenario waits for has come but the scenario has not
            been woken up yet. ``"raise"``: by an exception, even behind a shield, except where the backend can only be
            cancelled: at the end of a task group, or waiting for a lock. trio has neither ``"native"`` nor ``"race"``:
            there, only the run without a cut takes place.
        error: For ``"raise"``, makes the exception; `KeyboardInterrupt`, for instance.
        goes_through: Whether the cancellation or exception must come out of the scenario.
        only: The one checkpoint to cut at, for debugging a failure; by default, all.
        max_runs: How many checkpoints there may be.

    Returns:
        Where the scenario was cut, and how each run ended.

    Raises:
        AssertionError: The scenario went on in spite of a cancellation, or something was left.
        RuntimeError: There are more than ``max_runs`` checkpoints.
        TypeError: Scenario or set-up are not such functions.
        ValueError: There are fewer checkpoints than ``only``, or an argument has no such value.
        BaseException: Any error of scenario, set-up or check.
    """
    for what, value in (("scenario", scenario), ("set_up", set_up or _nothing)):
        if not callable(value) or isinstance(value, AbstractAsyncContextManager):
            raise TypeError(f"{what} must be a function, which each run calls anew, not {value!r}")
    if how not in get_args(How):
        raise ValueError(f"how must be one of {', '.join(map(repr, get_args(How)))}, not {how!r}")
    if max_runs < 1:
        raise ValueError(f"max_runs must be at least 1, not {max_runs!r}")
    name = getattr(scenario, "__qualname__", None) or repr(scenario)
    runs = _Runs(name, scenario, set_up, check, how, error, goes_through, backend, seed)
    total = runs.run(0, 0)[1]
    cuts: list[Checkpoint] = []
    if backend == "trio" and how in ("native", "race"):
        return CheckpointReport(name, backend, seed, how, ())
    for number in range(1, max_runs + 1) if only is None else (only,):
        cut, _ = runs.run(number, total)
        if cut is not None:
            cuts.append(cut)
        elif only is not None:
            raise ValueError(f"{name} has no checkpoint {only}: it has {total}")
        elif number > total:
            break
    else:
        if only is None:
            raise RuntimeError(f"{name} has more than {max_runs} checkpoints; the last one tried was {cuts[-1]}")
    return CheckpointReport(name, backend, seed, how, tuple(cuts))


@frozen
class _Runs:
    """The runs of one scenario; see `cancel_at_every_checkpoint`."""

    name: str
    scenario: Callable[..., Coroutine[Any, Any, object]]
    set_up: Callable[[], AbstractAsyncContextManager[Any]] | None
    check: Callable[..., Awaitable[object] | None] | None
    how: How
    error: Callable[[], BaseException]
    goes_through: bool
    backend: str
    seed: int

    def run(self, number: int, total: int) -> tuple[Checkpoint | None, int]:
        """Run the scenario once.

        Args:
            number: The checkpoint to cut at, from 1; 0 for none.
            total: How many checkpoints there are when nothing is cut, for the note in an exception.

        Returns:
            Where the scenario was cut, if it was, and how many checkpoints there were.
        """
        play = _Play(number, lambda: make_cut(self.how, self.error))
        try:
            run(self._run, play, backend=self.backend, seed=self.seed)
        except BaseException as exc:
            add_note(exc, f"{self.name} {self._told(play, number, total)}")
            raise
        assert play.driven is not None
        place, count = play.driven.place, play.driven.count
        if place is None:
            return None, count
        return Checkpoint(number, place.where, place.statement, place.inside, play.outcome), count

    def _told(self, play: "_Play", number: int, total: int) -> str:
        if play.driven is None or play.driven.place is None:
            return "was not cut in this run"
        made = "had an exception raised in it" if self.how == "raise" else f"was cancelled ({self.how})"
        again = f"backend={self.backend!r}, seed={self.seed}, how={self.how!r}, only={number}"
        return f"{made} at checkpoint {number} of {total}, {play.driven.place}; again: {again}"

    async def _run(self, play: "_Play") -> None:
        checked = False
        block = (self.set_up or _nothing)()
        if not isinstance(block, AbstractAsyncContextManager):
            raise TypeError(f"set_up must return an async context manager, and has returned {block!r}")
        async with nothing_left(), block as subject:
            arguments = () if self.set_up is None else (subject,)
            driven = self.scenario(*arguments)
            if not isinstance(driven, Coroutine):
                raise TypeError(f"the scenario must be an async function, and has returned {driven!r}")
            async with create_task_group() as group:
                group.start_soon(play.run, driven, name=self.name)
            play.judge(self.goes_through)
            if self.check is not None:
                result = self.check(*arguments)
                if inspect.isawaitable(result):
                    await result
            checked = True
        if not checked:
            raise RuntimeError(
                "the set-up has left its block before the check: it was cancelled, and let nobody know; "
                "run what may end in a task of its own"
            )


class _Play:
    """One run of the scenario: it is driven in `run`, and judged in `judge`, when its task group has been left."""

    def __init__(self, at: int, make_cut: Callable[[], Cut]) -> None:
        self._at = at
        self._make_cut = make_cut
        self._cut = Cut()
        self._error: BaseException | None = None
        self.driven: Driven | None = None
        self.outcome: Outcome = "finished"

    async def run(self, driven: Coroutine[Any, Any, object]) -> None:
        """Run the scenario in this task, and keep what it raises for `judge`."""
        cut = self._cut = self._make_cut()  # here, since a cancel scope belongs to an event loop
        self.driven = Driven(driven, self._at, cut)
        try:
            if isinstance(cut, ScopeCut):
                with cut.scope:
                    await self.driven.drive()
                if cut.scope.cancelled_caught:
                    self.outcome = "cut"
            else:
                await self.driven.drive()
        except get_cancelled_exc_class():
            if isinstance(cut, ScopeCut) or not cut.made:
                raise
            self.outcome = "cut"
        except BaseException as exc:  # noqa: BLE001 - for `judge`, outside the task group
            self.outcome = "raised"
            self._error = exc

    def judge(self, goes_through: bool) -> None:
        """Raise what is wrong with the end of the scenario."""
        # 1. It raised what had cut it, alone or in a group: that is as it should be. `run` has seen to a cancellation.
        # 2. It was cut and raised something else: that is wrong, unless it is allowed.
        # 3. It was not cut, and raised: that is wrong.
        # 4. A cancellation or exception has come to it, and it returned: it has swallowed that, unless it is allowed.
        assert self.driven is not None
        error, intended = self._error, getattr(self._cut, "error", None)
        if error is not None and self._cut.made:
            if intended in _leaves(error):
                self.outcome = "cut"
                return
            if not goes_through:
                return
            add_note(error, "raised in the place of what had cut the scenario")
        if error is not None:
            raise error
        if goes_through and self.driven.reached and self.outcome == "finished":
            what = "a cancellation" if intended is None else repr(intended)
            raise AssertionError(f"the scenario has swallowed {what}: it went on to its end, and returned")


def _leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for each in exc.exceptions for leaf in _leaves(each)]
    return [exc]


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield None
