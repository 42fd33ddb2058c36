"""Every async test runs on both backends, in virtual time, and ends under a deadline; one that spins ends them all.

Laws are tested with the same examples each time; ``HYPOTHESIS_PROFILE=deep`` tries other ones, and many more.
"""

import faulthandler
import functools
import gc
import inspect
import logging
import math
import os
import signal
import time
from collections.abc import Generator
from concurrent.futures import thread as _thread  # noqa: F401 - for what it does to a forked child, see below
from typing import Any
from zlib import crc32

import anyio
import pytest
from hypothesis import Phase, given, settings, strategies

from support.outputs import written_by
from workerbus.testing import virtual_backend

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in the background of a shell script; the programs that the tests start would inherit it, and be deaf to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A forked child frees the lock of `concurrent.futures.thread`, and does what OpenTelemetry's TracerProvider has
# registered, which takes that lock, in the order in which both came. It hung where a provider had come first.

BACKENDS = ("asyncio", "trio")
DEADLINE = 20.0
"""Seconds of virtual time after which an async test has hung. No test comes near it."""
REAL_DEADLINE = 120.0
"""The same for one that runs in real time: it only has to end, on however busy a machine."""
REAL_SECONDS = 300
"""Real seconds after which a test spins where no deadline reaches it: then the run ends, and says where."""
WOUND_UP = 30
"""For so many seconds the watchdog of one test counts for the next ones, too. A new one is a thread, and the end of the
old one is waited for: on a busy machine, that takes longer than most tests.
"""
DEEPER = 200
"""How many times as many examples the deep profile tries."""

# The quick one finds the same every time, and leaves the shrinking, which may take minutes, to one of its own.
settings.register_profile("quick", derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate))
settings.register_profile("shrink", derandomize=True, deadline=None)
settings.register_profile("deep", deadline=None, print_blob=True)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
settings.load_profile(PROFILE)


@settings(max_examples=1, database=None)
@given(strategies.none())
def begin_to_draw(_: None) -> None:
    """Make what hypothesis makes with the first example: old versions would miss it among what is frozen."""


def pytest_collection_finish() -> None:
    """Let no collection look at ten thousand tests again: some tests collect often."""
    begin_to_draw()
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--schedule", type=int, default=0, help="a number: run the async tests under other schedules")


class Watchdog:
    """Ends the run, and says where it stands, when a test spins."""

    def __init__(self) -> None:
        self._stderr = os.dup(2)  # now: later it is captured
        self._wound_up = -math.inf

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> None:
        if time.monotonic() - self._wound_up > WOUND_UP:
            self._wound_up = time.monotonic()
            seconds = REAL_SECONDS + float(os.environ.get("WORKERBUS_SOAK", "0"))  # while others wait for that to end
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._stderr)

    def pytest_unconfigure(self) -> None:
        faulthandler.cancel_dump_traceback_later()


def pytest_configure(config: pytest.Config) -> None:
    # Only slow tests are in groups. Where there may be some, xdist hands out one test at a time, and looks at all that
    # it has handed out before: for ten thousand tests, that takes longer than many of them.
    if config.option.markexpr == "not slow" and config.option.dist == "loadgroup":
        config.option.dist = "load"
    if PROFILE != "deep":
        config.pluginmanager.register(Watchdog())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the programs of a test have written, when it fails."""
    report = yield
    if report.failed and call.excinfo is not None:
        report.sections += written_by(call.excinfo.value)
    return report


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the backend, for synchronous tests that call `anyio.run` themselves."""
    return str(request.param)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest, backend: str) -> tuple[str, dict[str, Any]]:
    """What anyio's plugin runs async tests on: virtual time, and a schedule that is the test's own."""
    seed = crc32(request.node.nodeid.encode()) + request.config.getoption("schedule")
    return virtual_backend(backend, seed=seed)


@pytest.fixture(autouse=True)
def quiet_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Capture what the library logs, from warnings on."""
    caplog.set_level(logging.WARNING, logger="workerbus")


def _with_deadline(item: pytest.Function) -> Any:
    function = item.obj

    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> None:
        in_real_time = isinstance(item.funcargs["anyio_backend"], str)
        with anyio.fail_after(REAL_DEADLINE if in_real_time else DEADLINE):
            await function(*args, **kwargs)

    return run


def _deepen(item: pytest.Function, done: set[Any]) -> None:
    # A state machine has its settings in its class; for a function, hypothesis has no public way to change them.
    owner, name = (
        (item.cls, "settings") if hasattr(item.cls, "settings") else (item.obj, "_hypothesis_internal_use_settings")
    )
    if hasattr(owner, name) and owner not in done:
        done.add(owner)
        now = getattr(owner, name)
        setattr(owner, name, settings(now, max_examples=now.max_examples * DEEPER))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    deepened: set[Any] = set()
    for item in items:
        if PROFILE == "deep" and isinstance(item, pytest.Function):
            _deepen(item, deepened)
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _with_deadline(item)
