"""Tests in virtual time under anyio's own pytest plugin: how what is wrong with them comes out."""

from textwrap import dedent

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import anyio
import pytest
from anyio.lowlevel import checkpoint
from workerbus.testing import always, eventually, virtual_backend

pytestmark = pytest.mark.anyio
numbers = []


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return virtual_backend(request.param)


async def count():
    for number in range(5):
        numbers.append(number)
        await checkpoint()


async def test_in_the_test_itself():
    numbers.clear()
    always(lambda: len(numbers) < 3)
    await count()


async def test_in_a_task():
    numbers.clear()
    always(lambda: len(numbers) < 4)
    async with anyio.create_task_group() as group:
        group.start_soon(count)


async def test_too_late():
    eventually(lambda: False, within=5)
    await anyio.sleep(10)


async def test_that_hangs():
    await anyio.Event().wait()


async def test_that_hangs_in_its_wind_down():
    try:
        await anyio.Event().wait()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.Event().wait()


async def test_that_passes():
    numbers.clear()
    await anyio.sleep(3600)
    await count()
"""

SHARED = """
@pytest.fixture(scope="module", autouse=True)
async def shared(anyio_backend):
    yield
"""

STUBBORN = """
async def test_that_swallows_what_ends_it():
    while True:
        try:
            await anyio.Event().wait()
        except Exception:
            pass
"""


def run(pytester: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(dedent(tests))
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", "-rA", *options, timeout=100)


@pytest.mark.slow
def test_what_does_not_hold_is_raised_in_the_test(pytester: pytest.Pytester) -> None:
    """T3: as itself, or in the group of its task group, and the next test is another program."""
    result = run(pytester, TESTS)
    result.assert_outcomes(failed=10, passed=2)
    output = result.stdout.str()
    errors = [line for line in output.splitlines() if line.lstrip(" |").startswith(("E ", "workerbus."))]
    for words, times in (
        ("InvariantError: always(lambda: len(numbers) < 3) at ", 2),
        ("InvariantError: always(lambda: len(numbers) < 4) at ", 2),
        ("InvariantError: eventually(lambda: False) at ", 2),
        ("does not hold: broken by 'count', in the step that has come to ", 2),
        ("has not come true within 5 s (at 5 s)", 2),
        ("DeadlockError: nothing can happen any more", 4),
    ):
        assert sum(words in line for line in errors) == times
    assert "TrioInternalError" not in output


@pytest.mark.slow
def test_what_is_wrong_with_one_test_is_no_matter_for_the_next_one_in_the_same_loop(pytester: pytest.Pytester) -> None:
    """T3."""
    result = run(pytester, TESTS + SHARED, "-k", "trio")
    result.assert_outcomes(failed=5, passed=1, deselected=6)
    assert "TrioInternalError" not in result.stdout.str()


@pytest.mark.slow
def test_a_test_that_cannot_be_ended_is_left(pytester: pytest.Pytester) -> None:
    """T3."""
    result = run(pytester, TESTS + STUBBORN, "-k", "swallows and trio", "-W", "ignore")
    result.assert_outcomes(failed=1, deselected=13)
    result.stdout.fnmatch_lines(["*DeadlockError: nothing can happen any more*", "*got stuck again*"])
