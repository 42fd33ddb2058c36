"""The pytest plugin, in test-suites of its own."""

import re
import sys
from collections.abc import Callable
from textwrap import dedent

import pytest

from support.documents import blocks
from workerbus.recording import Recording
from workerbus.testing import fixtures

pytest_plugins = ["pytester"]


Suite = Callable[..., pytest.RunResult]


HEAD = """
import anyio
import pytest
from workerbus import BusDataMessage, MemoryBus, WorkerRunner
from workerbus.testing import EchoWorker, Faults, PeerFaults
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    """Runs a test-suite that uses the plugin; with ``alone``, in a process of its own."""

    def run(tests: str, *options: str, alone: bool = False) -> pytest.RunResult:
        pytester.makeconftest('pytest_plugins = ["workerbus.testing.fixtures"]')
        pytester.makepyfile(HEAD + dedent(tests))
        launch = pytester.runpytest_subprocess if alone else pytester.runpytest_inprocess
        return launch("-p", "no:cacheprovider", *options)

    return run


def test_the_example_in_the_docstring_passes_on_each_backend(suite: Suite) -> None:
    result = suite(blocks(fixtures)[0], "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*for*[asyncio*", "*for*[trio*"])


ASK = """
def test_ask(workerbus_run, workerbus_recording_bus):
    async def ask():
        async with WorkerRunner(bus=workerbus_recording_bus) as runner:
            await runner.add_workers(EchoWorker("echo", after=60.0))
            assert await runner.job("echo", payload={"n": 1}) == {"n": 2}
    workerbus_run(ask)
"""


def test_a_failure_says_backend_seed_and_what_was_sent(suite: Suite) -> None:
    result = suite(ASK, "--workerbus-seed=7", "-k", "trio")
    result.assert_outcomes(failed=1, deselected=1)
    output = result.stdout.str()
    assert "backend='trio', seed=7" in output
    assert "assert {'n': 1} == {'n': 2}" in output
    assert re.search(r"-+ workerbus: messages -+\n.* 0\.00 s ", output)
    assert re.search(r"\n60\.00 s +echo -> runner.* answers job .*: completed \{'n': 1\}", output)
    assert "fixtures.py" not in output.partition("workerbus: messages")[0]


def test_a_passing_test_tells_nothing(suite: Suite) -> None:
    result = suite(ASK.replace('{"n": 2}', '{"n": 1}'), "-rA")
    result.assert_outcomes(passed=2)
    assert "workerbus: messages" not in result.stdout.str()


SEED = """
def test_seed(workerbus_seed, workerbus_run):
    print("seed", workerbus_seed, workerbus_run.seed)
"""


def test_the_seed_is_0_by_default_and_in_no_test_id(suite: Suite) -> None:
    result = suite(SEED, "-rA", "-v")
    result.assert_outcomes(passed=2)
    assert "seed 0 0" in result.stdout.str()
    assert "workerbus: seed" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*::test_seed[[]asyncio[]] PASSED*"])


def test_a_range_of_seeds_runs_each_test_under_each(suite: Suite) -> None:
    result = suite(SEED + "\ndef test_without(): pass\n", "-rA", "-v", "--workerbus-seed=3-5")
    result.assert_outcomes(passed=7)
    for seed in (3, 4, 5):
        assert f"seed {seed} {seed}" in result.stdout.str()
    result.stdout.fnmatch_lines(["*workerbus: seed 3, 4, 5", "*::test_seed[[]*seed4*[]] PASSED*"])


def test_a_random_seed_is_the_same_in_all_tests_and_stands_at_the_top(suite: Suite) -> None:
    result = suite(SEED, "-rA", "-v", "--workerbus-seed=random")
    result.assert_outcomes(passed=2)
    output = result.stdout.str()
    shown = re.search(r"workerbus: seed (\d+)", output)
    assert shown is not None
    assert output.count(f"seed {shown[1]} {shown[1]}") == 2


@pytest.mark.parametrize("wrong", ["seven", "5-3", "1-x", ""])
def test_a_seed_that_is_none_is_a_usage_error(suite: Suite, wrong: str) -> None:
    result = suite(SEED, f"--workerbus-seed={wrong}")
    assert result.ret != 0
    assert f"--workerbus-seed is a number, a range as 0-19, or 'random', not {wrong!r}" in (
        result.stdout.str() + result.stderr.str()
    )


def test_the_backends_are_those_of_an_overridden_fixture(suite: Suite) -> None:
    tests = """
    @pytest.fixture(scope="session")
    def workerbus_backend():
        return "trio"

    def test_one(workerbus_run):
        assert workerbus_run.backend == "trio"
    """
    suite(tests).assert_outcomes(passed=1)


def test_a_faulty_bus_has_the_seed_and_tells_what_befell_its_messages(suite: Suite) -> None:
    tests = """
    def test_delayed(workerbus_run, workerbus_faulty_bus):
        async def ask(bus):
            async with WorkerRunner(bus=bus) as runner:
                await runner.add_workers(EchoWorker("echo"))
                await runner.job("echo")
            assert anyio.current_time() == 0
        bus = workerbus_faulty_bus(Faults(delay=(1.0, 2.0)), name="cable")
        assert bus.seed == 5
        workerbus_run(ask, bus)
    """
    result = suite(tests, "--workerbus-seed=5")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*workerbus: faults of bus 'cable'*", "*is delayed by*"])


def test_each_of_several_buses_tells_what_befell_its_messages(suite: Suite) -> None:
    tests = """
    def test_told(workerbus_run, workerbus_faulty_bus, workerbus_recording_bus, workerbus_peer_network):
        async def process(end):
            async with end:
                network.kill("one")
        async def send(bus):
            async with bus:
                await bus.send(BusDataMessage(source="me"))
        for bus in workerbus_recording_bus, *(workerbus_faulty_bus(Faults(lose=1.0)) for _ in range(2)):
            workerbus_run(send, bus)
        for _ in range(2):
            network = workerbus_peer_network()
            workerbus_run(network.run, "one", process)
        assert False
    """
    result = suite(tests)
    result.assert_outcomes(failed=2)
    told = result.stdout.str()
    assert [told.count(title) for title in ("faults of bus 'left'", "messages -", "story of the network")] == [4, 2, 4]
    assert [told.count(text) for text in ("is lost", "one is killed")] == [4, 4]


def test_a_network_of_processes_has_the_seed_and_tells_its_story(suite: Suite) -> None:
    tests = """
    def test_killed(workerbus_run, workerbus_peer_network):
        network = workerbus_peer_network(PeerFaults(delay=0.2), lease=3.0, beat=1.0)
        assert (network.seed, network.lease, network.beat) == (5, 3.0, 1.0)
        async def process(end):
            async with end:
                network.kill("one")
        workerbus_run(network.run, "one", process)
        assert False
    """
    result = suite(tests, "--workerbus-seed=5")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*workerbus: story of the network*", "*one is killed*"])


@pytest.mark.slow
def test_programs_can_be_run_in_hypothesis_tests(suite: Suite) -> None:
    tests = """
    from hypothesis import given, settings
    from workerbus.testing.strategies import delays

    @settings(max_examples=5)
    @given(delays())
    def test_law(workerbus_run, seconds):
        async def sleep():
            await anyio.sleep(seconds)
            return anyio.current_time()
        assert workerbus_run(sleep) == seconds
    """
    suite(tests, "-W", "error", alone=True).assert_outcomes(passed=2)


def test_async_tests_run_in_virtual_time_and_a_failure_says_the_schedule(suite: Suite) -> None:
    tests = """
    async def test_slow():
        await anyio.sleep(3600)
        assert anyio.current_time() == 0
    """
    result = suite(blocks(fixtures)[1] + dedent(tests), "-o", "anyio_mode=auto", "--workerbus-seed=3")
    result.assert_outcomes(failed=2)
    output = result.stdout.str()
    assert "assert 3600" in output
    assert "backend='trio', seed=3" in output


ORDER = """
import anyio
import pytest


@pytest.fixture
def anyio_backend(workerbus_anyio_backend):
    return workerbus_anyio_backend


@pytest.mark.anyio
async def test_order():
    order = []

    async def note(number):
        order.append(str(number))

    async with anyio.create_task_group() as group:
        for number in range(9):
            group.start_soon(note, number)
    print("order", *order)
"""


def test_async_tests_run_under_the_seed_too(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["workerbus.testing.fixtures"]')
    pytester.makepyfile(dedent(ORDER))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rA", "--workerbus-seed=0-4")
    result.assert_outcomes(passed=10)
    orders = set(re.findall(r"^order [\d ]+$", result.stdout.str(), re.MULTILINE))
    assert len(orders) >= 5


def test_a_time_limit_is_passed_on(suite: Suite) -> None:
    tests = """
    def test_long(workerbus_run):
        workerbus_run(anyio.sleep, 100.0, limit=10.0)
    """
    result = suite(tests)
    result.assert_outcomes(failed=2)
    assert "TimeLimitError" in result.stdout.str()


def test_hypothesis_pytest_and_trio_are_imported_only_where_they_are_needed(pytester: pytest.Pytester) -> None:
    program = "import sys, workerbus.testing; print({'hypothesis', 'pytest', 'trio'} & sys.modules.keys())"
    pytester.run(sys.executable, "-c", program).stdout.fnmatch_lines(["set()"])


RECORD = """
async def ask(n):
    async with WorkerRunner() as runner:
        await runner.add_workers(EchoWorker("echo"))
        assert await runner.job("echo", payload={"n": 1}) == {"n": n}

def test_good(workerbus_run):
    workerbus_run(ask, 1)

@pytest.mark.parametrize("n", ["<b>/../x"])
def test_bad(workerbus_run, n):
    workerbus_run(ask, n)

@pytest.fixture
def broken(workerbus_run):
    workerbus_run(ask, 1)
    yield
    raise ValueError("in the fixture")

def test_that_is_torn_down(broken):
    pass

def test_without_a_bus():
    assert False
"""


def test_a_test_that_fails_leaves_its_recording_behind(suite: Suite, pytester: pytest.Pytester) -> None:
    """O1, O3: in files that are named after the tests, and that the report names; one that passes leaves nothing."""
    result = suite(RECORD, "--workerbus-record", "left", "-k", "asyncio or without")
    result.assert_outcomes(passed=2, failed=2, errors=1, deselected=3)
    names = sorted(path.name for path in (pytester.path / "left").iterdir())
    assert len(names) == 10
    bad = [name for name in names if "test_bad" in name]
    assert [re.sub(r".*asyncio-[\w.-]*?x\b", "", name) for name in bad] == [
        ".jsonl",
        ".mmd",
        ".sequence.svg",
        ".timeline.svg",
        ".trace.json",
    ]
    assert sum("test_that_is_torn_down" in name for name in names) == 5
    (records,) = (path for path in (pytester.path / "left").iterdir() if path.name in bad and path.suffix == ".jsonl")
    assert [each.outcome for each in Recording.load(records).jobs] == ["completed"]
    output = result.stdout.str()
    assert "workerbus: recording" in output
    assert str(records) in output
    assert "nothing has passed on a bus" in output


def test_without_the_option_nothing_is_recorded(suite: Suite, pytester: pytest.Pytester) -> None:
    suite(RECORD).assert_outcomes(passed=4, failed=3, errors=2)
    assert not (pytester.path / "left").exists()


def test_a_directory_that_cannot_be_written_fails_no_test_more(suite: Suite, pytester: pytest.Pytester) -> None:
    (pytester.path / "left").write_text("a file")
    result = suite(RECORD, "--workerbus-record=left/deeper", "-k", "asyncio or without")
    result.assert_outcomes(passed=2, failed=2, errors=1, deselected=3)
    assert "cannot be written: Not a directory" in result.stdout.str()


# --- the marker explore

DEPOSITS = """
from anyio.lowlevel import checkpoint

{marker}
@pytest.mark.parametrize("amount", [10])
async def test_deposits(amount):
    balance = 0

    async def deposit(after):
        nonlocal balance
        for _ in range(after):
            await checkpoint()
        before = balance
        await checkpoint()
        balance = before + amount

    async with anyio.create_task_group() as group:
        group.start_soon(deposit, 0)
        group.start_soon(deposit, {after})
    assert balance == 20
"""


def deposits(marker: str = "@pytest.mark.explore(pct=3, schedules=50)", after: int = 1) -> str:
    return DEPOSITS.format(marker=marker, after=after)


def test_a_marked_test_runs_under_many_schedules_on_each_backend(suite: Suite) -> None:
    """T1, T2."""
    result = suite(deposits())
    result.assert_outcomes(failed=2)
    output = result.stdout.str()
    for backend in ("asyncio", "trio"):
        assert f"in workerbus.testing.explore(test_deposits, backend='{backend}')" in output
        again = re.search(rf"or: pytest '(.*\[.*{backend}.*\])' --workerbus-schedule=({backend}/\S+)", output)
        assert again is not None
        assert f'again: replay(test_deposits, "{again[2]}")' in output
        repeated = suite(deposits(), f"--workerbus-schedule={again[2]}")
        repeated.assert_outcomes(failed=1, skipped=1)
        assert "assert 10 == 20" in repeated.stdout.str()
    assert "fixtures.py" not in output
    assert "_explore.py" not in output


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        pytest.param("@pytest.mark.explore", "pct(3) on asyncio: 1,000 schedules", marks=pytest.mark.slow),
        ("@pytest.mark.explore(pct=2, schedules=7, seed=4)", "pct(2) on asyncio: 7 schedules"),
        ("@pytest.mark.explore(exhaustive=1)", "exhaustive(1) on trio: "),
        ("@pytest.mark.explore(random_walk=True, schedules=9)", "random_walk() on trio: 9 schedules"),
    ],
)
def test_a_marked_test_that_passes_says_what_was_tried(suite: Suite, marker: str, told: str) -> None:
    """T1."""
    result = suite(deposits(marker, after=2), "-rA")
    result.assert_outcomes(passed=2)
    assert told in result.stdout.str()


def test_a_module_can_be_marked(suite: Suite) -> None:
    """T1."""
    result = suite("pytestmark = pytest.mark.explore(exhaustive=1)\n" + deposits("", after=2))
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        ("@pytest.mark.explore(pct=0)", "the marker explore: depth must be at least 1, not 0"),
        ("@pytest.mark.explore(pct=1, exhaustive=1)", "the marker explore: one strategy at a time"),
        ("@pytest.mark.explore(shedules=3)", "the marker explore: *unexpected keyword argument 'shedules'"),
        ("@pytest.mark.explore(3)", "the marker explore: *positional argument"),
        ("@pytest.mark.explore(schedules=0)", "the marker explore: budget must be at least 1 run, not 0"),
    ],
)
def test_a_marker_that_is_wrong_says_so(suite: Suite, marker: str, told: str) -> None:
    """T1."""
    result = suite(deposits(marker))
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([f"*{told}*"])


def test_only_async_tests_can_be_marked(suite: Suite) -> None:
    """T1."""
    result = suite("@pytest.mark.explore\ndef test_one(): pass\n")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*the marker explore is for async tests*"])


def test_a_schedule_that_is_none_is_a_usage_error(suite: Suite) -> None:
    """T2."""
    result = suite(deposits(), "--workerbus-schedule=seven")
    assert result.ret != 0
    assert "--workerbus-schedule: a schedule is a text as" in result.stdout.str() + result.stderr.str()


def test_anyios_own_plugin_leaves_marked_tests_alone(suite: Suite) -> None:
    """T1: in its automatic mode, too."""
    result = suite(deposits(after=2), "-o", "anyio_mode=auto", "-rA")
    assert result.ret == 0
    assert "pct(3) on trio: 50 schedules" in result.stdout.str()
