"""`run`: a program in virtual time, with a schedule drawn from a seed, on either backend."""

import asyncio
import math
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import isawaitable
from typing import Any, Final, TypeVar, TypeVarTuple, cast

from anyio import CancelScope, current_time, get_cancelled_exc_class, sleep_until
from anyio import run as anyio_run

from workerbus._order import PROCESS
from workerbus.errors import add_note
from workerbus.testing._errors import InvariantError, StuckError
from workerbus.testing.buses._deciding import decided_by
from workerbus.testing.clock._steering import Steering
from workerbus.testing.clock._virtual import Recorder, VirtualTime

T = TypeVar("T")
Args = TypeVarTuple("Args")

BACKENDS: Final = ("asyncio", "trio")

ONE_WEEK: Final = 604_800.0

_OF_THE_CLOCK: Final = (StuckError, InvariantError)
"""Errors that the clock raises, and not the program."""


def run(
    async_fn: Callable[[*Args], Awaitable[T]],
    *args: *Args,
    backend: str = "asyncio",
    seed: int | None = 0,
    limit: float = ONE_WEEK,
    patience: float = 0.0,
) -> T:
    """Run an async function to its end, in virtual time.

    Time begins at 0 and stands still while anything can run. When nothing can, it jumps to the next deadline, so that a
    timeout of an hour is over at once. A program that can never continue is cancelled, and the error names the waiting
    tasks and what each waits for.

    Which of the ready tasks runs next is drawn from the seed: another seed gives another order, and the same seed gives
    the same one. An exception that comes out has a note with backend and seed.

    Work in threads (`anyio.to_thread`) is waited for in real time, and takes no virtual time. The clock does not see
    sockets, processes and threads that call in from outside; if there are any, pass ``patience``.

    Args:
        async_fn: The async function.
        args: Its arguments.
        backend: ``"asyncio"`` or ``"trio"``.
        seed: The seed of the order of tasks; None for the backend's own order.
        limit: Seconds of virtual time that the program may take; a week by default.
        patience: Real seconds without anything happening before the clock jumps.

    Returns:
        What the function returns.

    Raises:
        DeadlockError: Nothing could happen any more.
        TimeLimitError: The limit was reached.
        SpinError: Some task never waits.
        TypeError: ``async_fn`` is not an async function, or an argument has the wrong type.
        ValueError: There is no such backend, or ``limit`` or ``patience`` is not a number of seconds.
    """
    __tracebackhide__ = _is_stuck  # pytest shows the line that calls this, and not this
    if not callable(async_fn):
        raise TypeError(f"run takes an async function and its arguments, run(f, x) and not run(f(x)); not {async_fn!r}")
    _, options = virtual_backend(backend, seed=seed, limit=limit, patience=patience)
    note = f"in workerbus.testing.run(…, backend={backend!r}, seed={seed!r})"
    result, stuck = _run_with(options, note, backend, async_fn, args)
    if stuck is not None:
        raise stuck.with_traceback(None)
    return cast("T", result)


def run_steered(
    async_fn: Callable[[], Awaitable[T]],
    *,
    backend: str,
    steering: Steering,
    limit: float,
    note: str,
    recorder: Recorder | None = None,
) -> T:
    """Run an async function as `run` does, in an order of tasks that somebody decides.

    Args:
        async_fn: The async function.
        backend: ``"asyncio"`` or ``"trio"``.
        steering: Decides.
        limit: Seconds of virtual time that it may take.
        note: What an exception that comes out is to say of the run.
        recorder: Who sees each step; None if nobody does.
    """
    __tracebackhide__ = _is_stuck
    virtual_backend(backend, limit=limit)
    options = _module(backend).options(0, limit, 0.0, steering)
    with _sigint_by_default(), PROCESS.numbered_anew(), decided_by(None if steering.most_faults is None else steering):
        result, stuck = _run_with(options, note, backend, async_fn, (), recorder)
    if stuck is not None:
        raise stuck.with_traceback(None)
    return cast("T", result)


@contextmanager
def _sigint_by_default() -> Iterator[None]:
    """Let SIGINT be nobody's, so that a runner listens to it, with a task of its own, in each process alike.

    Where it is ignored, as in what a shell's script has started in the background, or has another handler, it is held
    back meanwhile, and then meets that again. Off the main thread no runner listens to signals.
    """
    handler = signal.getsignal(signal.SIGINT)
    if (
        handler in (signal.default_int_handler, None)
        or threading.current_thread() is not threading.main_thread()
        or not hasattr(signal, "pthread_sigmask")
    ):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_with(
    options: dict[str, Any],
    note: str,
    backend: str,
    async_fn: Callable[..., Awaitable[Any]],
    args: tuple[Any, ...],
    recorder: Recorder | None = None,
) -> tuple[Any, StuckError | InvariantError | None]:
    async def main() -> Any:
        time: VirtualTime = _module(backend).enter()
        time.recorder = recorder
        result = None
        try:
            with CancelScope() as time.scope:
                result = await _awaitable(async_fn, async_fn(*args))
                time.is_over()
        except (Exception, get_cancelled_exc_class()):
            if time.error is None:
                raise
        if time.error is not None:
            raise time.error from time.error.__cause__
        return result

    try:
        return anyio_run(main, backend=backend, backend_options=options), None
    except BaseException as exc:
        error = exc.__cause__ if isinstance(exc.__cause__, _OF_THE_CLOCK) else exc  # out of trio's own loop
        add_note(error, note)
        if isinstance(error, _OF_THE_CLOCK):
            # Where it was raised, deep in the loop, says nothing: the text says where the program stands.
            return None, error
        raise


def _is_stuck(excinfo: Any) -> bool:
    return isinstance(excinfo.value, _OF_THE_CLOCK)


def _awaitable(async_fn: object, result: Awaitable[T]) -> Awaitable[T]:
    if not isawaitable(result):
        raise TypeError(f"run takes an async function, and {async_fn!r} is none: it has returned {result!r}")
    return result


def virtual_backend(
    backend: str, *, seed: int | None = 0, limit: float = ONE_WEEK, patience: float = 0.0
) -> tuple[str, dict[str, Any]]:
    """Return a backend and its options for virtual time, as anyio's pytest plugin takes them.

    ::

        @pytest.fixture
        def anyio_backend():
            return virtual_backend("asyncio", seed=7)

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        seed: The seed of the order of tasks; None for the backend's own order.
        limit: Seconds of virtual time that a test may take.
        patience: Real seconds without anything happening before the clock jumps.

    Raises:
        TypeError: ``seed`` is not a whole number.
        ValueError: There is no such backend, or ``limit`` or ``patience`` is not a number of seconds.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, not {backend!r}")
    if seed is not None and not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number, or None for the backend's own order, not {seed!r}")
    if not isinstance(limit, int | float) or not limit > 0:
        raise ValueError(f"limit must be a number of seconds above 0, not {limit!r}")
    if not isinstance(patience, int | float) or not 0 <= patience < math.inf:
        raise ValueError(f"patience must be a number of real seconds, not {patience!r}")
    return backend, _module(backend).options(seed, limit, patience)


def _module(backend: str) -> Any:
    # Late, so that trio is imported only where it runs.
    return import_module(f"workerbus.testing.clock._{backend}")


def current_virtual_time() -> VirtualTime | None:
    """Return the clock of the running program; None if that runs in real time, or none runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        backend = "trio" if trio is not None and trio.lowlevel.in_trio_run() else None
    else:
        backend = "asyncio"
    return None if backend is None else cast("VirtualTime | None", _module(backend).current())


async def settle() -> None:
    """Wait until every other task waits, so that nothing more can happen before time passes.

    Unlike `anyio.wait_all_tasks_blocked`, which on asyncio looks again after 0.1 seconds, it takes no virtual time.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await _module("trio").settle()
    else:
        await _module("asyncio").settle()


async def advance(seconds: float) -> None:
    """Let virtual time pass, and wait until everything that is due by then has happened.

    Args:
        seconds: How many seconds.

    Raises:
        ValueError: It is not a number of seconds, or is less than 0: time does not go back.
    """
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be a number, finite and not less than 0, not {seconds!r}")
    await settle()
    await sleep_until(current_time() + seconds)
    await settle()
