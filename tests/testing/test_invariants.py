"""`always` and `eventually`: when they are looked at, what is raised, and which step has broken them."""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import pytest
from anyio.lowlevel import checkpoint

from workerbus.testing import (
    DeadlockError,
    InvariantError,
    always,
    eventually,
    exhaustive,
    explore,
    random_walk,
    replay,
    run,
    virtual_backend,
)

SEEDS = (0, 1, None)


async def transfers(checked: Callable[[dict[str, int]], object], after: int = 2) -> None:
    accounts = {"a": 100, "b": 0}
    checked(accounts)

    async def transfer(amount: int, late: int) -> None:
        for _ in range(late):
            await checkpoint()
        before = accounts["a"]
        await checkpoint()
        accounts["a"] = before - amount
        accounts["b"] += amount

    async with anyio.create_task_group() as group:
        group.start_soon(transfer, 10, 0)
        group.start_soon(transfer, 20, after)
    accounts["a"] = 100 - accounts["b"]  # the books are in order again


async def checked_transfers() -> None:
    await transfers(lambda accounts: always(lambda: sum(accounts.values()) == 100) and None, after=1)


def raised_by(scenario: Callable[[], Awaitable[object]], backend: str, seed: int | None = 0) -> BaseException:
    with pytest.raises(InvariantError) as caught:
        run(scenario, backend=backend, seed=seed)
    return caught.value


# --- always


def test_what_is_broken_for_a_moment_is_seen(backend: str) -> None:
    """T3: at the end of the scenario all is well again."""
    explore(lambda: transfers(lambda accounts: None, after=1), strategy=exhaustive(2), budget=5_000, backend=backend)
    report = explore(checked_transfers, backend=backend, raises=False)
    assert report.failure is not None
    assert isinstance(report.failure.error, InvariantError)
    with pytest.raises(InvariantError) as caught:
        replay(checked_transfers, report.failure.schedule)
    assert str(caught.value) == str(report.failure.error)


def test_what_is_broken_in_the_step_in_which_something_else_has_come_true_is_seen(backend: str) -> None:
    """T3: after every step."""

    async def scenario() -> None:
        done, broken = False, False
        eventually(lambda: done)
        always(lambda: not broken)
        await checkpoint()
        done = broken = True
        await checkpoint()
        broken = False

    for seed in SEEDS:
        assert "always(lambda: not broken)" in str(raised_by(scenario, backend, seed))


def test_what_holds_is_no_failure(backend: str) -> None:
    """T3."""
    looked = 0

    async def scenario() -> None:
        def holds() -> bool:
            nonlocal looked
            looked += 1
            return True

        always(holds)
        for _ in range(5):
            await checkpoint()

    for seed in SEEDS:
        looked = 0
        run(scenario, backend=backend, seed=seed)
        assert looked >= 7  # at once, after each of six steps at least
    assert explore(scenario, strategy=exhaustive(2), backend=backend).failure is None


@pytest.mark.parametrize("seed", SEEDS)
def test_the_error_names_the_check_the_task_and_its_step(backend: str, seed: int | None) -> None:
    """T3."""

    async def scenario() -> None:
        balance = 10
        always(lambda: balance >= 0)

        async def withdraw() -> None:
            nonlocal balance
            await anyio.sleep(2)
            balance -= 20
            await checkpoint()  # here

        async with anyio.create_task_group() as group:
            group.start_soon(withdraw)
            group.start_soon(anyio.sleep, 1)

    error = raised_by(scenario, backend, seed)
    assert isinstance(error, AssertionError)
    assert re.sub(r"(py):\d+", r"\1:7", str(error)) == (
        "always(lambda: balance >= 0) at test_invariants.py:7 does not hold: broken by 'withdraw', in the step that "
        "has come to test_invariants.py:7 `await checkpoint()  # here` (at 2 s)"
    )
    assert isinstance(error, InvariantError)
    assert (error.task, error.time) == ("withdraw", 2.0)


def test_the_step_may_be_the_last_one_of_its_task(backend: str) -> None:
    """T3."""
    error = raised_by(lambda: transfers(broken_at_b), backend)
    assert "broken by 'transfer', in its last step" in str(error)


def broken_at_b(accounts: dict[str, int]) -> None:
    always(lambda: accounts["b"] == 0)


def test_a_check_may_be_a_function_with_asserts_and_what_they_say_is_told(backend: str) -> None:
    """T3: nothing returned is no failure; whatever is raised is one, and the cause."""

    async def scenario() -> None:
        numbers = [1]

        def few_numbers() -> None:
            assert len(numbers) < 3, f"there are {len(numbers)}"

        always(few_numbers)
        for _ in range(3):
            await checkpoint()
            numbers.append(1)

    error = raised_by(scenario, backend)
    assert "always(few_numbers) at test_invariants.py:" in str(error)
    assert "does not hold (there are 3" in str(error)
    assert isinstance(error.__cause__, AssertionError)


def test_a_check_that_fails_itself_does_not_hold(backend: str) -> None:
    """T3."""

    async def scenario() -> None:
        accounts = {"a": 1}
        always(lambda: accounts["a"])
        await checkpoint()
        del accounts["a"]
        await checkpoint()

    error = raised_by(scenario, backend)
    assert "does not hold (KeyError: 'a')" in str(error)
    assert isinstance(error.__cause__, KeyError)


def test_what_does_not_hold_to_begin_with_is_refused_where_it_is_said(backend: str) -> None:
    """T3."""

    async def scenario() -> None:
        with pytest.raises(InvariantError, match=r"always\(list\) at .* does not hold \(it is \[\]\)"):
            always(list)
        await checkpoint()

    run(scenario, backend=backend)


def test_it_holds_for_a_block(backend: str) -> None:
    """T3: at its end, too; afterwards nobody looks."""

    async def scenario() -> None:
        holds = True
        with always(lambda: holds):
            await checkpoint()
        holds = False
        await checkpoint()
        holds = True
        with always(lambda: holds):
            holds = False  # between steps it would hold
            holds = True
        with pytest.raises(InvariantError), always(lambda: holds):
            holds = False
        await checkpoint()
        holds = True
        with suppress(ValueError), always(lambda: holds):
            holds = False
            raise ValueError("of the block")

    for seed in SEEDS:
        run(scenario, backend=backend, seed=seed)


def test_the_program_winds_down_and_the_first_thing_broken_counts(backend: str) -> None:
    """T3: what the wind-down raises, or breaks, does not hide it."""
    ended = False

    async def scenario() -> None:
        nonlocal ended
        broken: list[str] = []
        always(lambda: "first" not in broken)
        always(lambda: "second" not in broken)
        try:
            await checkpoint()
            broken.append("first")
            await anyio.sleep(1)
        finally:
            broken.append("second")
            ended = True
            raise ValueError("in the wind-down")

    error = raised_by(scenario, backend)
    assert "'first' not in broken" in str(error).replace('"', "'")
    assert ended


def test_without_a_scope_around_the_program_it_ends(backend: str) -> None:
    """T3: as under anyio's pytest plugin; on trio, the error is raised in the main task."""

    async def scenario(busy: bool) -> None:
        broken: list[int] = []
        always(lambda: not broken)
        await checkpoint()
        broken.append(1)
        while busy:
            await checkpoint()
        await anyio.sleep(1)

    for busy in (False, True):
        name, options = virtual_backend(backend)
        with pytest.raises(InvariantError):
            anyio.run(scenario, busy, backend=name, backend_options=options)


def test_a_wind_down_that_hangs_is_told_of(backend: str) -> None:
    """T3."""

    async def hangs() -> None:
        broken: list[int] = []
        always(lambda: not broken)
        await checkpoint()
        broken.append(1)
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()

    error = raised_by(hangs, backend)
    assert any("got stuck again" in note for note in error.__notes__)


async def test_a_test_of_the_plugin_can_say_what_holds() -> None:
    """T3."""
    numbers: list[int] = []
    with always(lambda: len(numbers) < 3):
        numbers.append(1)
        await eventually(lambda: numbers, within=1)
        await checkpoint()


# --- eventually


async def comes_true(after: float, within: float) -> None:
    done = []

    async def work() -> None:
        await anyio.sleep(after)
        done.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        eventually(lambda: done, within=within)
        await anyio.sleep(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_comes_true_in_time_is_no_failure(backend: str, seed: int | None) -> None:
    """T3: just in time, too."""
    for after in (0, 3, 5):
        run(comes_true, after, 5, backend=backend, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_comes_true_too_late_is_one_when_the_time_is_over(backend: str, seed: int | None) -> None:
    """T3: whether or not anything else happens then."""
    error = raised_by(lambda: comes_true(7, 5), backend, seed)
    assert re.fullmatch(
        r"eventually\(lambda: done\) at test_invariants.py:\d+ has not come true within 5 s \(at 5 s\)", str(error)
    )

    async def busy() -> None:
        eventually(lambda: False, within=5)
        for _ in range(80):
            await anyio.sleep(0.75)

    error = raised_by(busy, backend, seed)
    assert isinstance(error, InvariantError)
    assert error.time == 5


def test_a_program_that_only_turns_is_too_late_as_well(backend: str) -> None:
    """T3: its turns take a little virtual time when there are many of them."""

    async def scenario() -> None:
        eventually(lambda: False, within=0.5)
        for _ in range(2_000):
            await checkpoint()

    error = raised_by(scenario, backend)
    assert "has not come true within 0.5 s (at 0.5 s)" in str(error)


def test_when_the_program_is_over_nothing_comes_true_any_more(backend: str) -> None:
    """T3."""

    async def scenario() -> None:
        eventually(lambda: False)
        await anyio.sleep(1)

    error = raised_by(scenario, backend)
    assert "has not come true, and the program is over (at 1 s)" in str(error)


def test_a_program_that_hangs_is_told_as_one(backend: str) -> None:
    """T3: who waits for what says more."""

    async def scenario() -> None:
        eventually(lambda: False, within=5)
        await anyio.Event().wait()

    with pytest.raises(DeadlockError):
        run(scenario, backend=backend)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_can_be_awaited(backend: str, seed: int | None) -> None:
    """T3: by several, and afterwards."""

    async def scenario() -> None:
        done: list[int] = []

        async def work() -> None:
            await anyio.sleep(3)
            done.append(1)

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            promise = eventually(lambda: done, within=5)
            group.start_soon(wait, promise)
            await promise
            assert anyio.current_time() == 3
            await promise
            await eventually(lambda: done)

    async def wait(promise: Awaitable[None]) -> None:
        await promise
        assert anyio.current_time() == 3

    run(scenario, backend=backend, seed=seed)


def test_an_assertion_that_fails_is_as_good_as_false_and_other_errors_are_told(backend: str) -> None:
    """T3."""

    async def scenario(wrong: bool) -> None:
        numbers: list[int] = []
        nothing: dict[str, int] = {}

        def three() -> bool:
            assert len(numbers) == 3
            return not wrong or bool(nothing["at all"])

        eventually(three)
        for _ in range(3):
            await checkpoint()
            numbers.append(1)
        await checkpoint()

    run(scenario, False, backend=backend)
    error = raised_by(lambda: scenario(True), backend)
    assert "eventually(three) at" in str(error)
    assert "cannot be looked at (KeyError: 'at all')" in str(error)
    assert isinstance(error.__cause__, KeyError)


# --- under `explore`


def test_a_failure_is_made_small_and_told(backend: str) -> None:
    """T2, T3: other checks that are broken on the way are other failures."""
    report = explore(checked_transfers, strategy=random_walk(), backend=backend, raises=False)
    assert report.failure is not None
    assert report.failure.switches <= 1


# --- mistakes


def test_checks_are_for_virtual_time(backend: str) -> None:
    """T3."""

    async def scenario() -> None:
        for function in (always, eventually):
            with pytest.raises(RuntimeError, match=f"{function.__name__}.* looks at a program in virtual time"):
                function(lambda: True)

    anyio.run(scenario, backend=backend)
    with pytest.raises(RuntimeError, match="virtual time"):
        always(lambda: True)


def test_a_check_is_a_plain_function(backend: str) -> None:
    """T3."""

    async def check() -> bool:
        return True

    async def scenario() -> None:
        for wrong in (check, True):
            with pytest.raises(TypeError, match="a check is a plain function"):
                always(wrong)  # type: ignore[arg-type]  # that is the mistake
            with pytest.raises(TypeError, match="a check is a plain function"):
                eventually(wrong)  # type: ignore[arg-type]  # that is the mistake
        with pytest.raises(ValueError, match="within must be a number of seconds"):
            eventually(lambda: True, within=-1)

    run(scenario, backend=backend)
