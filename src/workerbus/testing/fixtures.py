"""A pytest plugin: programs in virtual time, on each backend and under chosen seeds, and buses that tell what passed.

Put ``pytest_plugins = ["workerbus.testing.fixtures"]`` into the ``conftest.py`` at the root of the tests, and write::

    def test_a_slow_answer_is_waited_for(workerbus_run, workerbus_recording_bus):
        async def ask():
            async with WorkerRunner(bus=workerbus_recording_bus) as runner:
                await runner.add_workers(EchoWorker("echo", after=60.0))
                return await runner.job("echo", payload={"n": 1})

        assert workerbus_run(ask) == {"n": 1}

The tests are plain functions. Async tests run in virtual time, too, where a ``conftest.py`` tells anyio's plugin so::

    @pytest.fixture
    def anyio_backend(workerbus_anyio_backend):
        return workerbus_anyio_backend

Each test runs once for each backend; ``--workerbus-seed`` says under which schedules: ``--workerbus-seed=7`` for one,
``--workerbus-seed=0-19`` for twenty, ``--workerbus-seed=random`` for one that is drawn anew. The report of a test that
fails says backend and seed, and what the buses have recorded.

An async test with the marker ``explore`` runs under many orders of its tasks, until it fails; the report says which few
switches of tasks are enough (see `workerbus.testing.explore`)::

    @pytest.mark.explore(pct=3, schedules=1000)
    async def test_no_deposit_is_lost(): ...

``exhaustive=2`` and ``random_walk=True`` are the other strategies; ``seed=``, ``limit=``, ``faults=``, ``processes=``
and ``coverage=`` are those of `explore`. Fixtures are made once, and not for each run. ``--workerbus-schedule`` runs
such a test under one schedule again.

With ``--workerbus-record DIR`` a test that fails leaves behind what has passed on its buses, whichever they are, and
pictures of it: see `workerbus.recording`. Those are recorded that the test and its fixtures have made; of many, the
last ten.
"""

import inspect
import secrets
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, Final, TypeVar, TypeVarTuple

import pytest
from attrs import frozen

from workerbus.bus._bus import WorkerBus
from workerbus.bus._memory import MemoryBus
from workerbus.errors import add_note
from workerbus.recording._files import Recordings, file_stem
from workerbus.testing.buses._faults import Faults
from workerbus.testing.buses._faulty import FaultyBus
from workerbus.testing.buses._peer_faults import PeerFaults
from workerbus.testing.buses._peer_network import PeerNetwork
from workerbus.testing.buses._recording import RecordingBus
from workerbus.testing.clock._run import BACKENDS, ONE_WEEK, run, virtual_backend
from workerbus.testing.exploring import _strategies
from workerbus.testing.exploring._explore import check_budget, explore, replay
from workerbus.testing.exploring._schedule import Schedule, parse
from workerbus.testing.exploring._strategies import DEFAULT_STRATEGY, Strategy

T = TypeVar("T")
Args = TypeVarTuple("Args")

_SEEDS: Final = pytest.StashKey[tuple[int, ...]]()
_MOST_BUSES: Final = 10
_RECORDINGS: Final = pytest.StashKey[Recordings]()
_STORIES: Final = pytest.StashKey[list[tuple[str, Callable[[], str]]]]()


@frozen
class VirtualRun:
    """Runs async functions in virtual time; see `workerbus.testing.run`.

    Args:
        backend: The backend, ``"asyncio"`` or ``"trio"``.
        seed: The seed that the order of the tasks is drawn from.
    """

    backend: str
    seed: int

    def __call__(
        self,
        async_fn: Callable[[*Args], Awaitable[T]],
        *args: *Args,
        limit: float = ONE_WEEK,
        patience: float = 0.0,
    ) -> T:
        """Run an async function to its end.

        Args:
            async_fn: The async function.
            args: Its arguments.
            limit: Seconds of virtual time that it may take; a week by default.
            patience: Real seconds without anything happening before the clock jumps.

        Returns:
            What the function returns.

        Raises:
            StuckError: The function does not come to its end; see `workerbus.testing.run`.
        """
        __tracebackhide__ = True
        return run(async_fn, *args, backend=self.backend, seed=self.seed, limit=limit, patience=patience)


@frozen
class FaultyBuses:
    """Makes faulty buses under one seed, and keeps their stories for the report.

    Args:
        seed: The seed that the faults are drawn from.
        item: The test that the report is about.
    """

    seed: int
    item: pytest.Item

    def __call__(self, faults: Faults | None = None, *, bus: WorkerBus | None = None, name: str = "left") -> FaultyBus:
        """Return a new `FaultyBus`.

        Args:
            faults: What may happen to messages; by default nothing.
            bus: The bus that everything goes over; by default a new `MemoryBus`.
            name: The name of the first end.
        """
        faulty = FaultyBus(MemoryBus() if bus is None else bus, seed=self.seed, faults=faults, name=name)
        _tells(self.item, f"faults of bus {name!r}", faulty.story)
        return faulty


@frozen
class PeerNetworks:
    """Makes networks of processes under one seed, and keeps their stories for the report.

    Args:
        seed: The seed that the faults are drawn from.
        item: The test that the report is about.
    """

    seed: int
    item: pytest.Item

    def __call__(self, faults: PeerFaults | None = None, *, lease: float = 10.0, beat: float = 2.0) -> PeerNetwork:
        """Return a new `PeerNetwork`.

        Args:
            faults: What may happen by itself; by default nothing.
            lease: Seconds after which the others learn that a process is gone.
            beat: Seconds within which an end learns that it was declared lost.
        """
        network = PeerNetwork(seed=self.seed, faults=faults, lease=lease, beat=beat)
        _tells(self.item, "story of the network", network.story)
        return network


@pytest.fixture(scope="session", params=[name for name in BACKENDS if name == "asyncio" or find_spec(name)])
def workerbus_backend(request: pytest.FixtureRequest) -> str:
    """The name of the backend under test, each installed one in turn; override the fixture to test fewer."""
    return str(request.param)


@pytest.fixture(scope="session")
def workerbus_seed(request: pytest.FixtureRequest) -> int:
    """The seed of the schedule, from ``--workerbus-seed``; 0 by default."""
    seed: int = getattr(request, "param", _seeds(request.config)[0])
    return seed


@pytest.fixture(scope="session")
def workerbus_run(workerbus_backend: str, workerbus_seed: int) -> VirtualRun:
    """Runs an async function in virtual time: ``workerbus_run(async_fn, *args)``; also within hypothesis tests."""
    return VirtualRun(workerbus_backend, workerbus_seed)


@pytest.fixture
def workerbus_anyio_backend(
    request: pytest.FixtureRequest, workerbus_backend: str, workerbus_seed: int
) -> tuple[str, dict[str, Any]]:
    """What the ``anyio_backend`` fixture of anyio's plugin is to return, so that async tests run in virtual time."""
    _tells(request.node, "schedule", lambda: f"backend={workerbus_backend!r}, seed={workerbus_seed}")
    return virtual_backend(workerbus_backend, seed=workerbus_seed)


@pytest.fixture
def workerbus_recording_bus(request: pytest.FixtureRequest) -> RecordingBus:
    """A new `RecordingBus`; if the test fails, the report shows what was sent."""
    bus = RecordingBus()
    _tells(request.node, "messages", bus.story)
    return bus


@pytest.fixture
def workerbus_faulty_bus(request: pytest.FixtureRequest, workerbus_seed: int) -> FaultyBuses:
    """Makes faulty buses: ``workerbus_faulty_bus(Faults(delay=0.2))``; the report of a failed test shows the faults."""
    return FaultyBuses(workerbus_seed, request.node)


@pytest.fixture
def workerbus_peer_network(request: pytest.FixtureRequest, workerbus_seed: int) -> PeerNetworks:
    """Makes networks of processes: ``workerbus_peer_network(PeerFaults(delay=0.2))``; a failed test shows the story."""
    return PeerNetworks(workerbus_seed, request.node)


# --- hooks


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--workerbus-seed``, ``--workerbus-schedule`` and ``--workerbus-record``."""
    parser.getgroup("workerbus").addoption(
        "--workerbus-schedule",
        type=str,
        metavar="SCHEDULE",
        default=None,
        help="the one schedule under which tests marked with explore run, as the report of a failure says it",
    )
    parser.getgroup("workerbus").addoption(
        "--workerbus-record",
        type=str,
        metavar="DIR",
        default=None,
        help="a directory: there a test that fails leaves what has passed on its buses, and pictures of it",
    )
    parser.getgroup("workerbus").addoption(
        "--workerbus-seed",
        type=str,
        metavar="SEED",
        default=None,
        help="the seed of schedules and faults in tests that use workerbus_run: a number, a range as 0-19, or 'random'",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "explore(pct=3, schedules=1000): run an async test under many orders of tasks")
    _schedule(config)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    """Have tests that explore run on each backend."""
    own = getattr(obj, "pytestmark", ())
    if collector.istestfunction(obj, name) and any(
        mark.name == "explore" for mark in (*own, *collector.iter_markers("explore"))
    ):
        pytest.mark.usefixtures("workerbus_backend")(obj)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test under many orders of its tasks, if it is marked so."""
    __tracebackhide__ = True
    marker = pyfuncitem.get_closest_marker("explore")
    if marker is None:
        return None
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        pytest.fail("the marker explore is for async tests", pytrace=False)
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    scenario = partial(pyfuncitem.obj, **arguments)
    backend = str(pyfuncitem.funcargs["workerbus_backend"])
    schedule = _schedule(pyfuncitem.config)
    try:
        options = _explore_options(*marker.args, **marker.kwargs)
        check_budget(options["budget"])
    except (TypeError, ValueError) as exc:
        pytest.fail(f"the marker explore: {exc}".replace("_explore_options()", "it"), pytrace=False)
    if schedule is None:
        _explore(pyfuncitem, scenario, backend, options)
    elif schedule.backend == backend:
        replay(scenario, str(schedule), limit=options["limit"])
    else:
        pytest.skip(f"the schedule is one for {schedule.backend}")
    return True


def _explore(
    item: pytest.Function, scenario: Callable[[], Awaitable[object]], backend: str, options: Mapping[str, Any]
) -> None:
    __tracebackhide__ = True
    exploration = explore(scenario, backend=backend, raises=False, **options)
    item.add_report_section("call", "workerbus: explored", str(exploration))
    if exploration.failure is not None:
        error, again = exploration.failure.error, exploration.failure.schedule
        add_note(error, f"or: pytest {item.nodeid!r} --workerbus-schedule={again}")
        raise error


def _explore_options(
    *,
    pct: int | None = None,
    exhaustive: int | None = None,
    random_walk: bool = False,
    schedules: int = 1_000,
    seed: int = 0,
    limit: float = ONE_WEEK,
    faults: int | None = None,
    processes: int = 1,
    coverage: bool = False,
) -> dict[str, Any]:
    wanted: list[Strategy] = []
    if pct is not None:
        wanted.append(_strategies.pct(pct))
    if exhaustive is not None:
        wanted.append(_strategies.exhaustive(exhaustive))
    if random_walk:
        wanted.append(_strategies.random_walk())
    if len(wanted) > 1:
        raise ValueError("one strategy at a time: pct=…, exhaustive=… or random_walk=True")
    strategy = wanted[0] if wanted else DEFAULT_STRATEGY
    options = {"seed": seed, "limit": limit, "faults": faults, "processes": processes, "coverage": coverage}
    return {"strategy": strategy, "budget": schedules, **options}


def _schedule(config: pytest.Config) -> Schedule | None:
    text = config.getoption("workerbus_schedule", None)
    try:
        return None if text is None else parse(text)
    except ValueError as exc:
        raise pytest.UsageError(f"--workerbus-schedule: {exc}") from None


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which seed was asked for, or drawn."""
    if config.getoption("workerbus_seed", None) is None:
        return None
    return f"workerbus: seed {', '.join(map(str, _seeds(config)))}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests once for each seed, if there are several."""
    seeds = _seeds(metafunc.config)
    if len(seeds) > 1 and "workerbus_seed" in metafunc.fixturenames:
        ids = [f"seed{seed}" for seed in seeds]
        metafunc.parametrize("workerbus_seed", seeds, ids=ids, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Record the buses of a test, if that was asked for."""
    if item.config.getoption("workerbus_record", None) is None:
        return (yield)
    with Recordings(buses=_MOST_BUSES) as recordings:
        item.stash[_RECORDINGS] = recordings
        try:
            return (yield)
        finally:
            del item.stash[_RECORDINGS]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the stories of its buses to the report of a test that has failed, and write what was recorded."""
    report = yield
    if report.failed:
        for title, story in item.stash.get(_STORIES, []):
            report.sections.append((f"workerbus: {title}", story() or "none"))
        recordings = item.stash.get(_RECORDINGS, None)
        if recordings is not None:
            report.sections.append(("workerbus: recording", _written(item, recordings)))
    return report


def _written(item: pytest.Item, recordings: Recordings) -> str:
    folder = item.config.rootpath / item.config.getoption("workerbus_record")
    try:
        written = recordings.save(folder, file_stem(item.nodeid))
    except OSError as exc:
        return f"{exc.filename} cannot be written: {exc.strerror}"
    return "\n".join(map(str, written)) or "nothing has passed on a bus"


def _tells(item: pytest.Item, title: str, story: Callable[[], str]) -> None:
    item.stash.setdefault(_STORIES, []).append((title, story))


def _seeds(config: pytest.Config) -> tuple[int, ...]:
    if _SEEDS not in config.stash:
        config.stash[_SEEDS] = _parsed(config.getoption("workerbus_seed", None))
    return config.stash[_SEEDS]


def _parsed(text: str | None) -> tuple[int, ...]:
    if text is None:
        return (0,)
    if text == "random":
        return (secrets.randbelow(2**32),)
    first, dash, last = text.partition("-")
    try:
        seeds = tuple(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        seeds = ()
    if not seeds:
        raise pytest.UsageError(f"--workerbus-seed is a number, a range as 0-19, or 'random', not {text!r}")
    return seeds
