"""What is told of a schedule that fails: what each switch has changed, and what the tasks did, line by line."""

import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from workerbus.testing import always, explore, picks, random_walk
from workerbus.testing.exploring import _recorder
from workerbus.testing.exploring._recorder import value_of

Scenario = Callable[[], Awaitable[None]]


def story_of(scenario: Scenario, backend: str) -> str:
    report = explore(scenario, strategy=random_walk(), backend=backend, raises=False)
    assert report.failure is not None
    return report.failure.story


def rows_of(story: str) -> list[str]:
    """The lines of the picture, with single spaces and without numbers of lines."""
    rows = [row for row in story.splitlines() if "●" in row or "more …" in row]
    return [re.sub(r"^([●│* ]+) \d+ ", r"\1 ", " ".join(row.split())) for row in rows]


# --- what is read and changed


class Account:
    limit = 3

    def __init__(self) -> None:
        self.balance = 0
        self._hidden = 1


async def shared_objects() -> None:
    account, books = Account(), {"a": [0]}
    after = anyio.Event()

    async def deposit(its: Account, late: bool) -> None:
        if late:
            await checkpoint()
        before = its.balance
        await checkpoint()
        its.balance = before + 10
        books["a"].append(its.balance)
        after.set()

    async with anyio.create_task_group() as group:
        group.start_soon(deposit, account, False)
        group.start_soon(deposit, account, True)
    assert account.balance == 20


def test_attributes_containers_and_events_are_told_with_their_values(backend: str) -> None:
    """T2: what is set to the value that it has, too."""
    rows = rows_of(story_of(shared_objects, backend))
    assert "│ ● │ its.balance = before + 10 its.balance: 0 → 10" in rows
    assert "│ │ ● its.balance = before + 10 its.balance: 10 again" in rows
    assert "│ │ ● after.set() after is set" in rows
    assert any("books: {'a': [0]} → {'a': [0, 10]}" in row for row in rows)
    assert not any("_hidden" in row for row in rows)


counter = 0


async def a_global() -> None:
    global counter
    counter = 0

    async def count(late: bool) -> None:
        global counter
        if late:
            await checkpoint()
        before = counter
        await checkpoint()
        counter = before + 1

    async with anyio.create_task_group() as group:
        group.start_soon(count, False)
        group.start_soon(count, True)
    assert counter == 2


def test_globals_are_told(backend: str) -> None:
    """T2."""
    story = story_of(a_global, backend)
    assert "so it read counter (0) before the other one had set it (to 1)" in story
    assert "│ ● │ counter = before + 1 counter: 0 → 1" in rows_of(story)


def test_what_an_inner_function_has_changed_is_told_once_there(backend: str) -> None:
    """T2: and not of the lines that have called it."""

    async def scenario() -> None:
        total = 0

        async def add() -> None:
            nonlocal total
            before = total
            await checkpoint()
            total = before + 1

        async def twice(late: bool) -> None:
            if late:
                await checkpoint()
            await add()
            assert total >= 0

        async with anyio.create_task_group() as group:
            group.start_soon(twice, False)
            group.start_soon(twice, True)
        assert total == 2

    rows = rows_of(story_of(scenario, backend))
    assert [row.partition("total")[2] for row in rows if "→" in row or "again" in row] == [
        " = before + 1 total: 0 → 1",
        " = before + 1 total: 1 again",
    ]
    assert not any("await add()" in row for row in rows)


def test_who_sets_first_and_who_reads_what_was_just_set(backend: str) -> None:
    """T2: the sentence says which of the three it is."""

    async def set_first() -> None:
        last = ""

        async def put(value: str) -> None:
            nonlocal last
            await checkpoint()
            last = value

        async with anyio.create_task_group() as group:
            group.start_soon(put, "old")
            group.start_soon(put, "new")
        assert last == "new"

    async def read_too_late() -> None:
        is_open = True

        async def use() -> None:
            await checkpoint()
            assert is_open

        async def close() -> None:
            nonlocal is_open
            await checkpoint()
            is_open = False

        async with anyio.create_task_group() as group:
            group.start_soon(use)
            group.start_soon(close)

    assert "so it set last (to 'new') before the other one did (to 'old')" in story_of(set_first, backend)
    assert "so it had set is_open (to False) when the other one read it" in story_of(read_too_late, backend)


# --- how it ends


async def cancelled_with_an_item() -> None:
    items = ["item"]
    received: list[str] = []

    async def receive(scope: anyio.CancelScope) -> None:
        with scope:
            item = items.pop()
            await checkpoint()
            received.append(item)

    async def give_up(scope: anyio.CancelScope) -> None:
        await checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        group.start_soon(receive, scope)
        group.start_soon(give_up, scope)
    assert items or received, "it is lost"


def test_who_is_cancelled_is_told_and_where(backend: str) -> None:
    """T2."""
    story = story_of(cancelled_with_an_item, backend)
    assert "so the other one was cancelled where it stood" in story
    rows = rows_of(story)
    assert any(row.endswith("scope.cancel() scope: not cancelled → cancelled") and "●*" in row for row in rows)
    assert any(row.endswith("await checkpoint() is cancelled") for row in rows)
    assert rows[-1].endswith("raises AssertionError: it is lost")


def test_what_comes_after_the_error_is_not_told(backend: str) -> None:
    """T2: what is cancelled by it, and how the program winds down."""

    async def scenario() -> None:
        numbers: list[int] = []

        async def put(number: int) -> None:
            try:
                await checkpoint()
                numbers.append(number)
                if numbers == [2]:
                    raise ValueError("two is first")
                await anyio.sleep(1)
            finally:
                numbers.append(-number)

        async with anyio.create_task_group() as group:
            group.start_soon(put, 1)
            group.start_soon(put, 2)

    rows = rows_of(story_of(scenario, backend))
    assert rows[-1].endswith("raises ValueError: two is first")
    assert not any("-number" in row for row in rows)


def test_a_picture_ends_with_the_step_that_has_broken_an_invariant(backend: str) -> None:
    """T2, T3."""

    async def scenario() -> None:
        order: list[str] = []
        always(lambda: order[:1] != ["b"])

        async def put(name: str) -> None:
            await checkpoint()
            order.append(name)
            await checkpoint()
            order.append(name.upper())

        async with anyio.create_task_group() as group:
            group.start_soon(put, "a")
            group.start_soon(put, "b")

    rows = rows_of(story_of(scenario, backend))
    assert rows == ["│ ●* order.append(name) order: [] → ['b']"]


# --- what there is too much of


def test_the_same_switch_again_and_again_is_told_once(backend: str) -> None:
    """T2: and of many lines the first and the last ones."""

    async def scenario() -> None:
        order: list[str] = []

        async def put(name: str) -> None:
            for _ in range(12):
                await checkpoint()
                order.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(put, "a")
            group.start_soon(put, "b")
        if sum(each == "b" for each in order[::2]) >= 11:
            raise ValueError("b was first in eleven turns")

    for seed in range(5):
        report = explore(scenario, backend=backend, seed=seed, raises=False)
        if report.failure is not None:
            break
    assert report.failure is not None
    assert "'put' 1 (at test_stories_of_schedules.py:" in report.failure.story
    assert report.failure.story.count("went on before") < report.failure.switches
    assert " times\n" in report.failure.story
    assert any("more …" in row for row in rows_of(report.failure.story))
    assert len(rows_of(report.failure.story)) == 25


def test_a_program_that_runs_on_is_recorded_for_a_while_only(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """T2."""
    monkeypatch.setattr(_recorder, "MOST_DEEDS", 8)
    assert rows_of(story_of(shared_objects, backend))
    monkeypatch.setattr(_recorder, "MOST_STEPS", 0)
    assert len(rows_of(story_of(shared_objects, backend))) <= 1


def test_values_are_short() -> None:
    """T2."""

    class Other:
        pass

    assert value_of(3) == "3"
    assert value_of((1, "a")) == "(1, 'a')"
    assert value_of(deque([1])) == "[1]"
    assert value_of(list(range(100))) == "[0, 1, 2, 3, 4, 5, 6, 7, … 100 in all]"
    assert value_of({"a": {1}}) == "{'a': {1}}"
    assert value_of("x" * 99) == "'" + "x" * 46 + "…"
    assert value_of([Other()]) == "[Other]"
    assert value_of([anyio.Semaphore(2)]) == "[2 free]"
    assert value_of(anyio.CapacityLimiter(3)) == "3.0 free" or value_of(anyio.CapacityLimiter(3)) == "3 free"
    assert value_of(Other()) is None
    assert value_of(print) is None


# --- and who pays for it


def test_nothing_is_traced_but_in_the_run_that_is_told(backend: str) -> None:
    """T1, T2: and a tracer that was there is there again."""
    traced: list[object] = []

    async def scenario() -> None:
        traced.append(sys.gettrace())
        order: list[str] = []

        async def put(name: str) -> None:
            await checkpoint()
            traced.append(sys.gettrace())
            order.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(put, "a")
            group.start_soon(put, "b")
        assert order == ["a", "b"]

    before = sys.gettrace()
    assert explore(scenario, strategy=picks([]), budget=1, backend=backend).failure is None
    assert set(map(id, traced)) == {id(before)}
    story_of(scenario, backend)
    assert len(set(map(id, traced))) > 1
    assert sys.gettrace() is before
