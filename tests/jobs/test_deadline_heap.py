"""J6, R9: the deadlines of jobs that have no scope to see to them."""

import asyncio
import gc
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import ref

import anyio
import pytest
from anyio import current_time, sleep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus.jobs._deadlines import SPARE, Deadlines
from workerbus.testing import settle


class Watched:
    """Deadlines, and what has expired when, counted from the beginning."""

    def __init__(self, host: TaskHost) -> None:
        self.host = host
        self.begin = current_time()
        self.expired: list[tuple[float, list[str]]] = []
        self.deadlines: Deadlines[str] = Deadlines("test", lambda: host, self._expire)

    def _expire(self, items: list[str]) -> None:
        self.expired.append((current_time() - self.begin, items))

    def add(self, seconds: float, item: str) -> int:
        return self.deadlines.add(self.begin + seconds, item)

    @property
    def wakes_at(self) -> float:
        scope = self.deadlines._scope
        return math.inf if scope is None else scope.deadline - self.begin


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    async with anyio.create_task_group() as group:
        yield Watched(TaskHost(group, CleanUp()))
        group.cancel_scope.cancel()


async def test_each_expires_in_its_time_whatever_the_order_in_which_they_came() -> None:
    async with watched() as it:
        for seconds in (4.0, 2.0, 8.0, 2.0, 6.0):
            it.add(seconds, str(seconds))
        await sleep(3)
        it.add(5.0, "5.0")
        await sleep(10)
        assert it.expired == [(2.0, ["2.0", "2.0"]), *((at, [str(at)]) for at in (4.0, 5.0, 6.0, 8.0))]


async def test_what_is_late_already_expires_at_once() -> None:
    async with watched() as it:
        it.add(8.0, "later")
        await settle()
        it.add(-1.0, "late")
        await settle()
        assert it.expired == [(0.0, ["late"])]


async def test_what_is_dropped_does_not_expire() -> None:
    async with watched() as it:
        numbers = [it.add(float(seconds), str(seconds)) for seconds in range(1, 6)]
        for number in (numbers[0], numbers[2], numbers[2]):
            it.deadlines.drop(number)
        await sleep(10)
        assert it.expired == [(at, [str(int(at))]) for at in (2.0, 4.0, 5.0)]
        assert len(it.deadlines) == 0


async def test_one_task_sees_to_all_and_nothing_wakes_it_while_there_is_none() -> None:
    """R9: it is there from the first one on, and sleeps without a timer when the last one has been dropped."""
    async with watched() as it:
        assert it.host.running == 0
        numbers = [it.add(float(seconds), "") for seconds in range(5, 0, -1)]
        await settle()
        assert it.host.running == 1
        assert it.wakes_at == 1.0
        for number in numbers:
            it.deadlines.drop(number)
        assert it.wakes_at == math.inf
        await sleep(6)
        assert it.expired == []
        it.add(8.0, "again")
        await settle()
        assert it.host.running == 1
        await sleep(6)
        assert it.expired == [(8.0, ["again"])]


async def test_what_is_dropped_is_not_kept() -> None:
    """R9: neither the item, while its time is to come, nor for long that time."""

    class Item:
        pass

    async with anyio.create_task_group() as group:
        host = TaskHost(group, CleanUp())
        deadlines: Deadlines[Item] = Deadlines("test", lambda: host, lambda items: None)
        stays = Item()
        deadlines.add(current_time() + 3600, stays)
        for _ in range(1_000):
            item = Item()
            deadlines.drop(deadlines.add(current_time() + 1800, item))
            assert len(deadlines._heap) <= 2 + SPARE + 1
        gone = ref(item)
        del item
        gc.collect()
        assert gone() is None
        assert len(deadlines) == 1
        group.cancel_scope.cancel()


STEPS = st.lists(st.tuples(st.sampled_from(["add", "drop", "sleep"]), st.integers(0, 12)), max_size=60)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_nothing_is_forgotten_and_nothing_expires_twice(backend: str, steps: list[tuple[str, int]]) -> None:
    async def example() -> None:
        async with watched() as it:
            due: dict[str, float] = {}
            numbers: dict[str, int] = {}
            for index, (what, amount) in enumerate(steps):
                now = current_time() - it.begin
                if what == "add":
                    due[str(index)] = now + amount
                    numbers[str(index)] = it.add(now + amount, str(index))
                elif what == "sleep":
                    await sleep(amount)
                    await settle()
                elif numbers:
                    which = sorted(numbers)[amount % len(numbers)]
                    it.deadlines.drop(numbers.pop(which))
                    if due[which] > now or not any(which in items for _, items in it.expired):
                        due.pop(which)
            await sleep(50)
            told = {item: at for at, items in it.expired for item in items}
            assert told == pytest.approx(due)
            assert sum(len(items) for _, items in it.expired) == len(due)

    clock.run(example, backend=backend, limit=2_000.0)


def test_a_native_cancellation_of_the_task_stops_nothing() -> None:
    """J6: on asyncio anybody may cancel it."""

    async def example() -> None:
        async with watched() as it:
            it.add(4.0, "one")
            await settle()
            [task] = [task for task in asyncio.all_tasks() if task.get_name() == "test deadlines"]
            task.cancel()
            await sleep(10)
            assert task.done()
            assert it.expired == [(4.0, ["one"])]

    clock.run(example, backend="asyncio")


async def test_what_is_due_at_one_time_expires_in_the_order_in_which_it_came() -> None:
    async with watched() as it:
        for item in "abcd":
            it.add(1.0, item)
        await sleep(2)
        assert it.expired == [(1.0, ["a", "b", "c", "d"])]


async def test_the_heap_has_few_times_more_than_it_has_items() -> None:
    async with watched() as it:
        numbers = [it.add(5.0, str(number)) for number in range(300)]
        for number in numbers[:-1]:
            it.deadlines.drop(number)
            assert len(it.deadlines._heap) <= 2 * len(it.deadlines) + SPARE


@pytest.mark.parametrize("runs", [False, True])
async def test_the_first_is_the_first_although_most_of_the_heap_was_thrown_out(runs: bool) -> None:
    async with watched() as it:
        spare = [it.add(0.5, "dropped")]
        if runs:
            await settle()
        it.add(10.0, "ten")
        it.add(1.0, "one")
        spare += [it.add(20.0, "dropped") for _ in range(2 * SPARE)]
        for number in spare:
            it.deadlines.drop(number)
        assert len(it.deadlines._heap) < len(spare)
        await sleep(11)
        assert it.expired == [(1.0, ["one"]), (10.0, ["ten"])]


async def test_what_is_dropped_after_the_end_is_dropped() -> None:
    async with watched() as it:
        first, second = it.add(1.0, "first"), it.add(2.0, "second")
        await settle()
    it.deadlines.drop(first)
    it.deadlines.drop(second)
    assert len(it.deadlines) == 0


def test_a_native_cancellation_while_there_is_nothing_to_watch_stops_nothing_that_comes() -> None:
    async def example() -> None:
        async with watched() as it:
            before = asyncio.all_tasks()
            it.deadlines.drop(it.add(1.0, "dropped"))
            await settle()
            [task] = asyncio.all_tasks() - before
            task.cancel()
            await settle()
            it.add(2.0, "kept")
            await sleep(3)
            assert it.expired == [(2.0, ["kept"])]

    clock.run(example, backend="asyncio")
