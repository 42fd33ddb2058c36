"""`always` and `eventually`: what has to hold after each step of a program, and what has to come true in it.

A check is plain synchronous code of the user, which is called between the steps of tasks and may look at everything. It
is called in the default context, and what it raises never reaches the program: it ends the run instead.
"""

import inspect
import linecache
import math
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Final

from anyio import Event

from workerbus.testing._errors import InvariantError
from workerbus.testing.clock._run import current_virtual_time
from workerbus.testing.clock._virtual import VirtualTime
from workerbus.testing.invariants._places import is_over, look

_HOW: Final = "explore, replay or run, or as a test of the pytest plugin"


def always(check: Callable[[], object]) -> AbstractContextManager[None]:
    """State what has to hold from here on, after every step of every task.

    ::

        async def transfers():
            accounts = {"a": 100, "b": 0}
            always(lambda: sum(accounts.values()) == 100)
            ...

    It is checked when this is called, and after each step until the program has ended. As a context manager it applies
    only to the block: ``with always(check): ...``.

    If it does not hold, the program is cancelled, and the run raises an `InvariantError` that names the task whose step
    broke it. Under `explore` the error also has the few switches that lead there.

    Args:
        check: A plain function. It fails by returning something false or by raising anything, as an ``assert`` does.
            None means that it holds, so a function of asserts may return nothing.

    Returns:
        A context manager, whose use is optional.

    Raises:
        InvariantError: It does not hold now.
        RuntimeError: The program does not run in virtual time.
        TypeError: ``check`` is not a plain function.

    Guarantees: T3.
    """
    watch = _Always(_virtual_time("always"), check, f"always({_source_of(check)}) at {_caller()}")
    watch.begin()
    return watch


def eventually(check: Callable[[], object], *, within: float = math.inf) -> Awaitable[None]:
    """State what has to come true from here on, after some step.

    ::

        async def a_job_is_done():
            ...
            eventually(lambda: job.status == "done", within=5)

    A call is enough. ``await`` it to wait until it is true.

    If it has not come true in time, or when the program's main function returns, the run raises an `InvariantError`.

    Args:
        check: A plain function. It returns something true when it has come true; raising an ``AssertionError`` counts
            as returning something false.
        within: Seconds of virtual time; by default, as long as the program runs.

    Returns:
        An awaitable, whose use is optional.

    Raises:
        RuntimeError: The program does not run in virtual time.
        TypeError: ``check`` is not a plain function.
        ValueError: ``within`` is less than 0.

    Guarantees: T3.
    """
    if not isinstance(within, int | float) or not within >= 0:
        raise ValueError(f"within must be a number of seconds, at least 0, not {within!r}")
    watch = _Eventually(_virtual_time("eventually"), check, f"eventually({_source_of(check)}) at {_caller()}", within)
    watch.begin()
    return watch


def _virtual_time(name: str) -> VirtualTime:
    time = current_virtual_time()
    if time is None:
        raise RuntimeError(f"{name}() looks at a program in virtual time: start it with {_HOW}")
    return time


class _Check:
    def __init__(self, time: VirtualTime, check: Callable[[], object], text: str) -> None:
        if not callable(check) or inspect.iscoroutinefunction(check):
            raise TypeError(f"a check is a plain function, which is called between steps and awaits nothing: {check!r}")
        self.time = time
        self.check = check
        self.text = text

    def passes(self, until: float) -> InvariantError | None:
        """Do nothing: time alone changes nothing."""
        return None


class _Always(_Check):
    def begin(self) -> None:
        if (error := self._look()) is not None:
            raise error
        self.time.watchers.append(self)

    def _look(self, task: str = "", place: str = "") -> InvariantError | None:
        says, cause = "", None
        try:
            result = self.check()
            if result is None or result:
                return None
            says = "" if result is False else f"it is {result!r}"
        except Exception as exc:  # noqa: BLE001 - whatever it is, the check does not hold
            says, cause = f"{exc}" if type(exc) is AssertionError else f"{type(exc).__name__}: {exc}", exc
        what = f"does not hold ({says})" if says else "does not hold"
        error = InvariantError(self.text, what, task, place, self.time.now)
        error.__cause__ = cause
        return error

    def ends(self, title: str, coroutine: Any) -> InvariantError | None:
        return self._look(*_step(title, coroutine))

    def is_over(self) -> InvariantError | None:
        return self._look()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.time.watchers.remove(self)
        if exc is None and (error := self._look()) is not None:
            raise error


class _Eventually(_Check):
    def __init__(self, time: VirtualTime, check: Callable[[], object], text: str, within: float) -> None:
        super().__init__(time, check, text)
        self._within = within
        self._deadline = time.now + within
        self._came_true: Event | None = None
        self._is_true = False

    def begin(self) -> None:
        self._look()
        if not self._is_true:
            self.time.watchers.append(self)

    def _look(self) -> InvariantError | None:
        try:
            self._is_true = bool(self.check())
        except AssertionError:
            return None
        except Exception as exc:  # noqa: BLE001 - a check that cannot be looked at never comes true
            error = self._error(f"cannot be looked at ({type(exc).__name__}: {exc})")
            error.__cause__ = exc
            return error
        if self._is_true and self._came_true is not None:
            self._came_true.set()
        return None

    def _error(self, what: str) -> InvariantError:
        return InvariantError(self.text, what, "", "", min(self.time.now, self._deadline))

    def ends(self, title: str, coroutine: Any) -> InvariantError | None:
        error = self._look()
        if self._is_true:
            self.time.watchers.remove(self)
        elif error is None and self.time.now > self._deadline:
            error = self._late()
        return error

    def passes(self, until: float) -> InvariantError | None:
        # Where nothing is due any more, the program is stuck, and that error says more.
        return self._late(self._deadline) if self._deadline < until < math.inf else None

    def is_over(self) -> InvariantError | None:
        return self._error("has not come true, and the program is over")

    def _late(self, now: float | None = None) -> InvariantError:
        self.time.now = self.time.now if now is None else max(self.time.now, now)
        return self._error(f"has not come true within {self._within:g} s")

    def __await__(self) -> Generator[Any, Any, None]:
        if not self._is_true:
            self._came_true = self._came_true or Event()
            yield from self._came_true.wait().__await__()


def _step(title: str, coroutine: Any) -> tuple[str, str]:
    return title.rpartition(".")[2], "" if is_over(coroutine) else look(coroutine)


def _caller() -> str:
    frame = sys._getframe(2)  # noqa: SLF001 - the line in the program is what a reader knows
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _source_of(check: Callable[[], object]) -> str:
    code = getattr(check, "__code__", None)
    if not isinstance(code, CodeType) or code.co_name != "<lambda>":
        return getattr(check, "__qualname__", repr(check)).rpartition(".")[2]
    return f"lambda: {_text_of(code)}"


def _text_of(code: CodeType) -> str:
    spans = [(a, b, c, d) for a, b, c, d in code.co_positions() if a and b and c is not None and d]
    if not spans:
        return "…"
    (first, start), (last, end) = min((a, c) for a, _, c, _ in spans), max((b, d) for _, b, _, d in spans)
    lines = [linecache.getline(code.co_filename, line) for line in range(first, last + 1)]
    lines[-1] = lines[-1].encode()[:end].decode()
    lines[0] = lines[0].encode()[start:].decode()
    return " ".join(line.strip() for line in lines)
