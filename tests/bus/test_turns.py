"""B1, B2, B3, B5: the lanes of a bus take turns while broadcasts flood."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.messages import Note, note
from workerbus import BusMessage, BusSubscriber, MemoryBus
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._concurrency.turns import Turns
from workerbus.testing import run, settle

MANY = 100


class Counter(BusSubscriber):
    """Counts what it gets, for all of its kind together, and may do something with it."""

    def __init__(self, name: str, total: list[int], on: Callable[[Note], object] | None = None) -> None:
        self._name = name
        self._total = total
        self._on = on
        self.numbers: list[int] = []

    @property
    def name(self) -> str:
        return self._name

    async def on_bus_message(self, message: BusMessage) -> None:
        if not isinstance(message, Note):
            return
        self._total[0] += 1
        self.numbers.append(message.n)
        if self._on is not None:
            result = self._on(message)
            if result is not None:
                await result  # type: ignore[misc]  # only what can be awaited is returned


@asynccontextmanager
async def flooded(total: list[int], *others: Counter, sends: int) -> AsyncIterator[tuple[MemoryBus, list[Counter]]]:
    """A bus with many subscribers, to which the body's sender has sent so many broadcasts."""
    async with MemoryBus() as bus:
        counters = [*others, *(Counter(f"c{number}", total) for number in range(MANY - len(others)))]
        for each in counters:
            await bus.subscribe(each)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, bus, sends)
            yield bus, counters
            tasks.cancel_scope.cancel()


async def send(bus: MemoryBus, sends: int) -> None:
    for number in range(sends):
        await bus.send(note(number))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_pass_of_the_loop_handles_only_so_much_however_much_waits(backend: str) -> None:
    """B2: whoever sleeps wakes in time. With a sender that pauses alone, each pass would handle 1,600.

    In a loop of its own, where a checkpoint is a pass: the tests' schedules know none.
    """

    async def example() -> float:
        total, passes, sends = [0], 0, 1_000
        async with flooded(total, sends=sends):
            while total[0] < sends * MANY:
                passes += 1
                await checkpoint()
        return sends * MANY / passes

    # The least of three: where trio shuffles, one run in many has hardly more passes than it would have without turns.
    assert 400 <= min(anyio.run(example, backend=backend) for _ in range(3)) <= 1_450


async def test_each_subscriber_gets_all_in_order_whoever_was_called_when() -> None:
    """B2: with a turn in the line after each batch, and a pause of the sender after each round."""
    total, sends = [0], 700
    async with flooded(total, sends=sends) as (_, counters):
        await eventually(lambda: total[0] == sends * MANY)
    assert all(each.numbers == list(range(sends)) for each in counters)


async def test_a_handler_that_waits_holds_up_no_other_lane() -> None:
    """B3: a turn is over when it has begun; so half of all that wait for ever leave the line to the others."""
    total, sends = [0], 600
    slow = [Counter(f"slow{number}", [0], lambda _: anyio.sleep_forever()) for number in range(MANY // 2)]
    async with flooded(total, *slow, sends=sends) as (_, counters):
        await eventually(lambda: total[0] == sends * (MANY - len(slow)))
        assert all(each.numbers == [0] for each in counters[: len(slow)])


async def test_who_unsubscribes_while_it_stands_in_line_holds_up_no_other() -> None:
    """B5: it is passed over when its turn comes."""
    total, sends = [0], 800
    async with flooded(total, sends=sends) as (bus, counters):
        await eventually(lambda: total[0] > 30_000)
        for each in counters[::2]:
            await bus.unsubscribe(each)
        await eventually(lambda: all(each.numbers == list(range(sends)) for each in counters[1::2]))


async def test_a_subscriber_that_fails_in_a_flood_gets_the_rest_and_so_do_the_others() -> None:
    """B3: also with every message that it is given."""

    def fail(message: Note) -> None:
        if not message.n % 50:
            raise ValueError(message)

    total, sends = [0], 300
    failing = Counter("failing", total, fail)
    async with flooded(total, failing, sends=sends) as (_, counters):
        await eventually(lambda: total[0] == sends * MANY)
    assert all(each.numbers == list(range(sends)) for each in counters)


async def test_a_sender_waits_for_the_lanes_after_so_many_deliveries() -> None:
    """B2: so that what waits in each stays small, however fast one sends."""
    total, sent, deepest, sends = [0], 0, 0, 3_000

    def look(message: Note) -> None:
        nonlocal deepest
        deepest = max(deepest, sent - message.n)

    async with MemoryBus() as bus:
        for number in range(MANY):
            await bus.subscribe(Counter(f"c{number}", total, look))
        for number in range(sends):
            sent = number
            await bus.send(note(number))
        await eventually(lambda: total[0] == sends * MANY)
    assert deepest <= 600


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_sender_goes_on_though_more_arrives_than_the_lanes_can_handle(backend: str) -> None:
    """B2: it waits for them only so long. In a loop of its own: to the tests' clocks the other task spins."""

    async def example() -> bool:
        total, stop = [0], False

        async def arrive(bus: MemoryBus) -> None:
            while not stop:
                for number in range(16):
                    bus.on_message_received(note(number))
                await checkpoint()

        async with flooded(total, sends=0) as (bus, _), anyio.create_task_group() as tasks:
            tasks.start_soon(arrive, bus)
            await eventually(lambda: total[0] > 30_000)
            await send(bus, 40)
            stop = True
        return stop

    assert anyio.run(example, backend=backend)


async def test_lanes_take_turns_on_a_bus_that_was_closed_in_a_flood_and_opened_again() -> None:
    """B4: what was called or stood in line then is forgotten."""
    total, sends = [0], 300
    bus = MemoryBus()
    for number in range(MANY):
        await bus.subscribe(Counter(f"c{number}", total))
    async with bus:
        await send(bus, sends)
    first = total[0]
    assert first < sends * MANY
    async with bus:
        await send(bus, sends)
        await eventually(lambda: total[0] == first + sends * MANY)


def test_who_is_cancelled_natively_in_a_flood_stands_in_line_again() -> None:
    """B3: another task goes on with its lane, and its turn is not lost."""

    async def example() -> None:
        total, sends = [0], 600

        def cancel(message: Note) -> object:
            task = asyncio.current_task()
            assert task is not None
            if not message.n % 100:
                task.cancel()
                return checkpoint()
            return None

        cancelled = [Counter(f"cancelled{number}", total, cancel) for number in range(3)]
        async with flooded(total, *cancelled, sends=sends) as (_, counters):
            await eventually(lambda: total[0] == sends * MANY)
        assert all(each.numbers == list(range(sends)) for each in counters)

    asyncio.run(example())


@pytest.mark.parametrize("few", [1, 2, 7])
async def test_few_lanes_yield_and_need_no_line(few: int) -> None:
    """B2: so that a flood to a few is handled as it always was, 64 at a time."""
    total, sends = [0], 640
    async with MemoryBus() as bus:
        for number in range(few):
            await bus.subscribe(Counter(f"c{number}", total))
        await send(bus, sends)
        await eventually(lambda: total[0] == sends * few)


class Numbers:
    """Lanes that take turns, each with the numbers that it has handled."""

    def __init__(self, count: int, host: TaskHost) -> None:
        self.turns = Turns()
        self.handled: list[list[int]] = [[] for _ in range(count)]
        self.lanes = [Lane[int](f"lane {k}", self._handler(self.handled[k])) for k in range(count)]
        for lane in self.lanes:
            lane.open(host, self.turns)

    @staticmethod
    def _handler(handled: list[int]) -> Callable[[int], Awaitable[None]]:
        async def handle(number: int) -> None:
            handled.append(number)

        return handle

    def put(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            for lane in self.lanes:
                lane.put(number)


def native_tasks_of(lane: Lane[int]) -> list["asyncio.Task[Any]"]:
    """The task of a lane that has begun, if it has one."""
    coroutines: list[tuple[asyncio.Task[Any], Any]] = [(task, task.get_coro()) for task in asyncio.all_tasks()]
    return [
        task
        for task, coroutine in coroutines
        if id(task) == lane.task_id and inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
    ]


@pytest.mark.parametrize("count", [3, 9, 24])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_becomes_of_lanes_that_are_called_or_stand_in_line_the_others_have_their_turns(
    backend: str, count: int, seed: int
) -> None:
    """B3, B5: some are closed with what they do, and on asyncio the tasks of others are cancelled natively.

    Which ones, and in which step, is drawn; none of that may keep a turn that it will not use.
    """
    drawn = Random(seed)

    def cancel_natively(lane: Lane[int]) -> None:
        for task in native_tasks_of(lane):
            task.cancel()

    async def main() -> None:
        quiet = 0

        async def until_quiet(lane: Lane[int]) -> None:
            nonlocal quiet
            await lane.quiet()
            quiet += 1

        async with anyio.create_task_group() as group:
            numbers = Numbers(count, TaskHost(group, CleanUp()))
            survivors = set(range(count))
            numbers.put(range(500))
            for lane in numbers.lanes:
                group.start_soon(until_quiet, lane)
            for step in range(40):
                await checkpoint()
                victim = drawn.randrange(count)
                if backend == "asyncio" and step % 5:
                    cancel_natively(numbers.lanes[victim])
                elif len(survivors) > 1:
                    numbers.lanes[victim].close(cancel=True)
                    survivors.discard(victim)
                numbers.put(range(500 + 10 * step, 510 + 10 * step))
            await settle()
            assert quiet == count
            for survivor in survivors:
                assert numbers.handled[survivor] == list(range(900))
            assert (numbers.turns.called, [*numbers.turns.line]) == (0, [])
            for lane in numbers.lanes:
                lane.close(cancel=True)

    run(main, backend=backend, seed=seed)


def test_who_is_cancelled_natively_in_line_and_has_nothing_to_do_is_not_called() -> None:
    """B3: it sleeps by the time its turn would come, and would call no others."""
    count = 100

    async def main() -> None:
        async with anyio.create_task_group() as group:
            numbers = Numbers(count, TaskHost(group, CleanUp()))
            numbers.put(range(1_000))
            cancelled = 0
            for step in range(200):
                await checkpoint()
                for lane in [*numbers.turns.line][count // 4 :]:
                    if not lane.waiting:  # type: ignore[attr-defined]  # who stands here is a lane
                        for task in native_tasks_of(lane):  # type: ignore[arg-type]  # the same
                            cancelled += task.cancel()
                        break
                if not step % 3:
                    numbers.put([1_000 + step // 3])
            await settle()
            assert cancelled > 10
            assert all(handled == list(range(1_067)) for handled in numbers.handled)
            assert (numbers.turns.called, [*numbers.turns.line]) == (0, [])
            for lane in numbers.lanes:
                lane.close(cancel=True)

    run(main, backend="asyncio")


async def test_a_sender_goes_on_as_soon_as_a_lane_has_nothing_left_to_do() -> None:
    """B2: it waits for the lanes, and not until its time is over."""
    total, passes = [0], [0]

    async def count() -> None:
        while True:
            passes[0] += 1
            await checkpoint()

    async with MemoryBus() as bus, anyio.create_task_group() as tasks:
        for number in range(MANY):
            await bus.subscribe(Counter(f"c{number}", total))
        tasks.start_soon(count)
        longest = 0
        for number in range(600):
            before = passes[0]
            await bus.send(note(number))
            longest = max(longest, passes[0] - before)
        tasks.cancel_scope.cancel()
    assert longest < 32  # until its time is over it would be twice as many
