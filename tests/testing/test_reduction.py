"""What `exhaustive` leaves out since it would show nothing new: never a state that a program can end in."""

import types
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import chain, count, repeat
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from support.known_bugs import bystander, deadlock_in_a_circle
from workerbus import WorkerRunner
from workerbus.testing import EchoWorker, InvariantError, always, exhaustive, explore
from workerbus.testing.exploring._parts import UnknownState
from workerbus.testing.exploring._states import digest_of

Scenario = Callable[[], Awaitable[None]]

SINK = types.ModuleType("sink")
"""What scenarios write to that is no part of their state: modules are taken to be constant."""


def ends_of(scenario: Callable[[], Awaitable[object]], backend: str, bound: int, *, reduction: bool) -> tuple[Any, int]:
    """What a scenario has returned under all orders, and how many were run."""
    sink: Any = SINK
    ends = sink.ends = set()

    async def noted() -> None:
        sink.ends.add(await scenario())

    report = explore(noted, strategy=exhaustive(bound, reduction=reduction), budget=20_000, backend=backend)
    assert report.exhausted
    assert not report.unknown
    return ends, report.schedules


# --- small programs, of any of these steps

STEPS = st.one_of(
    st.just(("checkpoint",)),
    st.tuples(st.just("add"), st.sampled_from("xy")),
    st.tuples(st.just("copy"), st.sampled_from(["xy", "yx"])),
    st.tuples(st.sampled_from(["append", "pop", "attribute"]), st.sampled_from("xy")),
    st.tuples(st.sampled_from(["set", "wait", "locked", "send", "receive", "cancel", "limited"]), st.integers(0, 1)),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 1.0])),
    st.tuples(st.just("start"), st.sampled_from("xy")),
)
PROGRAMS = st.lists(st.lists(STEPS, min_size=1, max_size=3), min_size=2, max_size=3)


class Box:
    """Something with attributes."""

    def __init__(self) -> None:
        self.x = 0
        self.y = 0


class Program:
    """Some tasks that share plain variables, and what anyio has."""

    def __init__(self, tasks: list[list[tuple[Any, ...]]]) -> None:
        self.tasks = tasks

    async def run(self) -> object:
        self.numbers = {"x": 0, "y": 0}
        self.lists: dict[str, list[int]] = {"x": [], "y": []}
        self.box = Box()
        self.events = [anyio.Event(), anyio.Event()]
        self.locks = [anyio.Lock(), anyio.Lock()]
        self.limiters = [anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)]
        self.streams = [anyio.create_memory_object_stream[int](1) for _ in range(2)]
        self.scopes = [anyio.CancelScope() for _ in self.tasks]
        self.seen: list[str] = []
        async with anyio.create_task_group() as self.group:
            for index in range(len(self.tasks)):
                self.group.start_soon(self.task, index)
        for ends in self.streams:
            for each in ends:
                each.close()
        return repr((self.numbers, self.lists, vars(self.box), sorted(self.seen)))

    async def task(self, index: int) -> None:
        with self.scopes[index] as scope:
            for step in self.tasks[index]:
                await getattr(self, step[0])(index, *step[1:])
        if scope.cancelled_caught:
            self.seen.append(f"{index} was cancelled")

    async def checkpoint(self, index: int) -> None:
        await checkpoint()

    async def add(self, index: int, name: str) -> None:
        before = self.numbers[name]
        await checkpoint()
        self.numbers[name] = before + 1 + index

    async def copy(self, index: int, names: str) -> None:
        self.numbers[names[0]] = self.numbers[names[1]]
        await checkpoint()

    async def append(self, index: int, name: str) -> None:
        self.lists[name].append(index)
        await checkpoint()

    async def pop(self, index: int, name: str) -> None:
        await checkpoint()
        if self.lists[name]:
            self.lists[name].pop(0)

    async def attribute(self, index: int, name: str) -> None:
        for _ in range(1 + getattr(self.box, name) % 2):
            await checkpoint()
        setattr(self.box, name, getattr(self.box, name) * 2 + index)

    async def set(self, index: int, number: int) -> None:
        self.events[number].set()

    async def wait(self, index: int, number: int) -> None:
        with anyio.move_on_after(1):
            await self.events[number].wait()
            self.seen.append(f"{index} was woken")

    async def locked(self, index: int, number: int) -> None:
        async with self.locks[number]:
            await self.add(index, "x")

    async def limited(self, index: int, number: int) -> None:
        async with self.limiters[number]:
            await self.append(index, "y")

    async def send(self, index: int, number: int) -> None:
        with anyio.move_on_after(1):
            await self.streams[number][0].send(index)

    async def receive(self, index: int, number: int) -> None:
        with anyio.move_on_after(1):
            self.seen.append(f"{index} has received {await self.streams[number][1].receive()}")

    async def cancel(self, index: int, number: int) -> None:
        await checkpoint()
        self.scopes[number].cancel()

    async def sleep(self, index: int, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def start(self, index: int, name: str) -> None:
        self.group.start_soon(self.append, index, name)
        await checkpoint()


def compare(program: list[list[tuple[Any, ...]]], backend: str, bound: int) -> None:
    all_ends, all_runs = ends_of(Program(program).run, backend, bound, reduction=False)
    ends, runs = ends_of(Program(program).run, backend, bound, reduction=True)
    assert ends == all_ends
    assert runs <= all_runs


def test_a_program_ends_in_the_same_states_with_reduction_and_without(backend: str) -> None:
    """T6: the law, in small."""

    @settings(max_examples=4, deadline=None)
    @given(program=PROGRAMS)
    def law(program: list[list[tuple[Any, ...]]]) -> None:
        compare(program, backend, bound=1)

    law()


@pytest.mark.slow
@pytest.mark.parametrize("bound", [2, 3])
def test_many_programs_end_in_the_same_states_with_reduction_and_without(backend: str, bound: int) -> None:
    """T6: the law."""

    @settings(max_examples=6 if bound == 2 else 3, deadline=None)
    @given(program=PROGRAMS if bound == 2 else PROGRAMS.map(lambda tasks: tasks[:2]))
    def law(program: list[list[tuple[Any, ...]]]) -> None:
        compare(program, backend, bound)

    law()


# --- what is left out, and what is not


def beside(*tasks: Callable[[], Coroutine[Any, Any, None]]) -> Scenario:
    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(task)

    return scenario


async def loiter() -> None:
    for _ in range(6):
        await checkpoint()


def test_steps_that_concern_nobody_else_are_left_out(backend: str) -> None:
    """T6: whatever their order, the state is the same behind them."""
    report = explore(beside(loiter, loiter), strategy=exhaustive(2), budget=10_000, backend=backend)
    everything = explore(
        beside(loiter, loiter), strategy=exhaustive(2, reduction=False), budget=10_000, backend=backend
    )
    assert report.exhausted
    assert everything.exhausted
    assert report.schedules * 1.5 < everything.schedules
    assert report.races == 0 or backend == "asyncio"  # where callbacks of tasks that end come in line
    assert everything.states == everything.races == 0


@pytest.mark.slow
def test_the_fewest_switches_are_found_with_reduction(backend: str) -> None:
    """T6: in fewer schedules; without it, it takes more than 1,000."""
    report = explore(deadlock_in_a_circle, strategy=exhaustive(2), budget=300, backend=backend, raises=False)
    assert report.failure is not None
    assert report.failure.switches == 2


def test_plain_variables_are_part_of_the_state(backend: str) -> None:
    """T6: nothing has to be declared, of whatever kind they are."""

    class Account:
        __slots__ = ("balance",)
        balance: int

    async def scenario() -> object:
        account, number, names, numbers = Account(), 0, {"a"}, count()
        account.balance = 0

        async def first() -> None:
            nonlocal number
            await checkpoint()
            account.balance, number = account.balance + 1, number * 2
            names.discard("a")

        async def second() -> None:
            nonlocal number
            await checkpoint()
            account.balance, number = account.balance * 2, number + 1
            if "a" in names:
                next(numbers)

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            group.start_soon(second)
        return account.balance, number, next(numbers)

    ends, _ = ends_of(scenario, backend, 1, reduction=True)
    assert ends == {(2, 1, 0), (1, 2, 1)}


def test_an_invariant_between_two_steps_of_a_turn_is_looked_at_in_each_order(backend: str) -> None:
    """T3, T6: the state is the same behind both steps, and not between them."""

    async def scenario() -> None:
        done: set[str] = set()
        always(lambda: done != {"second"})

        async def do(name: str) -> None:
            await checkpoint()
            done.add(name)

        async with anyio.create_task_group() as group:
            group.start_soon(do, "first")
            group.start_soon(do, "second")

    with pytest.raises(InvariantError):
        explore(scenario, strategy=exhaustive(1), backend=backend)


def test_states_that_nobody_can_tell_are_compared_with_nothing(backend: str) -> None:
    """T6: then all orders are run, and the report says why."""

    async def scenario() -> None:
        held = memoryview(bytearray(b"text"))
        await beside(loiter, loiter)()
        del held

    report = explore(scenario, strategy=exhaustive(1), budget=1_000, backend=backend)
    everything = explore(scenario, strategy=exhaustive(1, reduction=False), budget=1_000, backend=backend)
    assert report.schedules == everything.schedules
    assert report.unknown == "builtins.memoryview"
    assert "states unknown because of builtins.memoryview" in str(report)


def test_races_are_pairs_of_steps_whose_order_makes_a_difference(backend: str) -> None:
    """T6."""

    async def scenario() -> None:
        order: list[int] = []

        async def add(number: int) -> None:
            await checkpoint()
            order.append(number)

        async with anyio.create_task_group() as group:
            group.start_soon(add, 1)
            group.start_soon(add, 2)
            group.start_soon(bystander)

    report = explore(scenario, strategy=exhaustive(2), budget=1_000, backend=backend)
    assert report.exhausted
    assert report.states > 1
    assert report.races == 1 or (backend == "asyncio" and report.races > 1)  # callbacks of tasks that end come in line
    assert f"{report.states} states, {report.races} race" in str(report)


@pytest.mark.slow
def test_a_program_of_workers_has_states_that_can_be_compared(backend: str) -> None:
    """T6: made-up names and ids do not tell two states apart."""

    async def scenario() -> None:
        async with WorkerRunner() as runner:
            await runner.add_workers(EchoWorker("echo"), EchoWorker("other"))
            await runner.job("echo", payload={"n": 1})

    report = explore(scenario, strategy=exhaustive(2), budget=3_000, backend=backend)
    everything = explore(scenario, strategy=exhaustive(2, reduction=False), budget=3_000, backend=backend)
    assert not report.unknown
    assert report.exhausted
    assert report.schedules < everything.schedules


# --- digests


def told_apart(*things: object) -> bool:
    return len({digest_of([thing]) for thing in things}) == len(things)


def moved(iterator: Any) -> Any:
    next(iterator)
    return iterator


def counter(start: int) -> Callable[[], int]:
    def more() -> int:
        nonlocal start
        start += 1
        return start

    return more


class Held:
    """Has anything as attributes."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


DIFFERENT: tuple[tuple[object, object], ...] = (
    (1, 2),
    (1, True),
    ("1", 1),
    ([1, 2], [2, 1]),
    ({"a": 1}, {"a": 2}),
    ({1: 0, 2: 0}, {2: 0, 1: 0}),
    ({1, 2}, {1, 3}),
    (deque([1]), deque([1], maxlen=1)),
    (Counter("ab"), Counter("aab")),
    (Held(a=1), Held(a=2)),
    (Held(a=[]), Held(b=[])),
    (counter(1), counter(2)),
    (iter([1, 2]), moved(iter([1, 2]))),
    (iter(range(3)), moved(iter(range(3)))),
    (count(1), count(2)),
    (count(1), count(1, 2)),
    (repeat(1, 2), repeat(1, 3)),
    (repeat(1), repeat(2)),
    (chain([1], [2]), moved(chain([1], [2]))),
    (iter({"a": 1}), moved(iter({"a": 1}))),
    (Random(1), Random(2)),
    (ValueError("a"), ValueError("b")),
    (anyio.Event, anyio.Lock),
)


def test_what_differs_is_told_apart() -> None:
    """T6."""
    for one, other in DIFFERENT:
        assert told_apart(one, other), (one, other)
    same: list[int] = []
    assert told_apart([same, same], [[], []])


def test_what_is_the_same_is_not_told_apart() -> None:
    """T6: by where it is in memory, or by in which order the attributes came."""
    for one, other in (
        ([1, {"a": {2}}], [1, {"a": {2}}]),
        (Held(a=1, b=2), Held(b=2, a=1)),
        (counter(1), counter(1)),
        ({"a", "b", "c"}, {"c", "b", "a"}),
        (f"at {object()!r}", f"at {object()!r}"),
        ([id(a := object()), a], [id(b := object()), b]),
    ):
        assert not told_apart(one, other), (one, other)


def test_a_generator_is_told_apart_by_where_it_stands_and_what_it_holds() -> None:
    """T6: also by what is in no variable, as how far a loop is."""

    def generator(start: int) -> Iterable[int]:
        for _ in range(start, 5):
            yield 1
        yield 2

    def at(start: int, steps: int) -> object:
        made = iter(generator(start))
        for _ in range(steps):
            next(made)
        return made

    assert not told_apart(at(0, 2), at(0, 2))
    assert told_apart(at(0, 0), at(0, 1), at(0, 2), at(1, 2), at(0, 6))


def test_what_nobody_can_look_into_has_no_digest() -> None:
    """T6."""
    for thing in (memoryview(b""), [memoryview(b"")], Held(a=memoryview(b""))):
        with pytest.raises(UnknownState, match="memoryview"):
            digest_of([thing])
