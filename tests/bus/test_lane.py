"""B2, B5, B9, J1: a lane by itself: what it holds, counts and gives back."""

import asyncio
import gc
import weakref

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support import clock
from workerbus import MemoryBus
from workerbus._concurrency.handling import Handling
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._concurrency.room import Room
from workerbus._concurrency.turns import Turns
from workerbus.testing import run, settle


async def ignore(_: object) -> None:
    """Handle nothing."""


def test_a_closed_lane_holds_counts_and_takes_nothing() -> None:
    """B5, B9: so that nobody waits for room in it, here or in a lane before it."""
    room = Room[int](1)
    lane = Lane[int]("lane", ignore, room=room)
    lane.put_counted(1)
    assert (room.taken, lane.waiting, lane.full) == (1, 1, True)
    assert lane.close() == [1]
    lane.put(2)
    lane.put_counted(3)
    assert (room.taken, lane.waiting, lane.full, lane.ready) == (0, 0, False, None)


async def test_what_is_let_in_past_the_limit_is_put_in_once() -> None:
    """B9: also where there is room before its sender goes on."""
    room, entered = Room[int](1), list[int]()
    room.taken = 1
    handling = Handling(room)
    waiter = room.stand(1, entered.append)
    handling.leave()
    other = room.stand(2, entered.append)
    handling.over = False  # it goes on, and what `other` is to put in is of another call
    room.admit_its_own()
    assert entered == [1]
    assert waiter.free.is_set()
    assert not other.free.is_set()
    room.leave()
    assert entered == [1, 2]
    assert not room.has_line


async def test_a_lane_that_is_closed_is_ready_for_nothing() -> None:
    """B5: a bus that appends to it, because it was ready, would fill what nobody empties."""
    lane = Lane[int]("lane", ignore)
    async with MemoryBus() as bus:
        lane.open(bus.tasks)
        lane.put(1)
        lane.put(2)
        assert lane.ready is not None
        lane.close()
        assert lane.ready is None


def test_one_message_at_a_time_is_handled_behind_a_handler_that_was_cancelled_natively(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B2: another task goes on where that one was, and no second one beside it."""
    running_now: list[int] = []

    async def example() -> None:
        lane, go_on, begun = Lane[int]("lane", lambda n: handle(n)), anyio.Event(), anyio.Event()

        async def handle(n: int) -> None:
            task = asyncio.current_task()
            if n == 1 and task is not None:
                task.cancel()
                await checkpoint()
            running_now.append(n)
            assert running_now == [n]
            begun.set()
            await go_on.wait()
            running_now.remove(n)

        async with MemoryBus() as bus:
            lane.open(bus.tasks)
            lane.put(1)
            lane.put(2)
            await begun.wait()
            lane.put(3)
            await anyio.wait_all_tasks_blocked()
            assert running_now == [2]
            go_on.set()
            await lane.quiet()
        assert lane.begun == 3

    clock.run(example, backend="asyncio")
    assert caplog.messages == []


async def test_a_lane_that_is_closed_gives_back_what_waits_in_it() -> None:
    """J1: in its order, and without what is being handled."""
    begun, release = anyio.Event(), anyio.Event()

    async def handle(item: int) -> None:
        begun.set()
        await release.wait()

    async with anyio.create_task_group() as tasks:
        lane: Lane[int] = Lane("lane", handle, room=Room(9))
        lane.open(TaskHost(tasks, CleanUp()))
        lane.put(1)
        await begun.wait()
        lane.put(2)
        lane.put_counted(3)
        assert lane.close() == [2, 3]
        assert lane.close() == []
        release.set()


async def test_a_lane_that_steps_aside_gives_back_what_it_had_begun_to_take() -> None:
    """J1, B2: while its system lane goes first."""
    handled: list[int] = []

    async def handle(item: int) -> None:
        handled.append(item)

    async with anyio.create_task_group() as tasks:
        system: Lane[int] = Lane("system", handle)
        data: Lane[int] = Lane("data", handle, first=(system,))
        data.open(TaskHost(tasks, CleanUp()))
        system.put(0)
        data.put(1)
        for _ in range(5):
            await checkpoint()
        data.put(2)
        assert data.close() == [1, 2]
    assert handled == []


async def test_a_lane_that_is_closed_ends_its_idle_dispatcher() -> None:
    """B5: nothing has to be cancelled for it."""
    async with anyio.create_task_group() as tasks:
        lane: Lane[int] = Lane("lane", ignore)
        lane.open(host := TaskHost(tasks, CleanUp()))
        lane.put(1)
        await anyio.wait_all_tasks_blocked()
        assert (lane.begun, host.running) == (1, 1)
        lane.close()
    assert host.running == 0


def test_what_waits_in_a_lane_before_it_is_opened_can_be_looked_at() -> None:
    """B4: and waits on."""
    lane = Lane[int]("lane", ignore, room=Room(9))
    lane.put(1)
    lane.put_counted(2)
    assert lane.look() == [1, 2]
    assert lane.look() == [1, 2]
    assert lane.waiting == 2


async def test_a_lane_goes_on_beside_one_that_nothing_has_come_for() -> None:
    """B2: only what waits in there goes first, and nothing does."""
    handled: list[int] = []

    async def handle(item: int) -> None:
        handled.append(item)

    async with anyio.create_task_group() as tasks:
        system: Lane[int] = Lane("system", handle)
        data: Lane[int] = Lane("data", handle, first=(system,))
        data.open(TaskHost(tasks, CleanUp()))
        data.put(1)
        with anyio.move_on_after(1):
            await data.quiet()
        tasks.cancel_scope.cancel()
    assert handled == [1]


async def test_nothing_more_is_begun_after_an_error_that_came_along_with_a_cancellation() -> None:
    """B2, L6: the error is reported, and the cancellation comes again."""
    begun: list[int] = []
    failed: list[str] = []

    async def handle(item: int) -> None:
        begun.append(item)
        try:
            await anyio.sleep_forever()
        except BaseException as exc:
            raise BaseExceptionGroup("both", [ValueError("it failed as well"), exc]) from None

    async with anyio.create_task_group() as tasks:
        lane: Lane[int] = Lane("lane", handle, failed=lambda item, exc: failed.append(f"{item}: {exc}"))
        lane.open(TaskHost(tasks, CleanUp()))
        lane.put(1)
        lane.put(2)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert failed == ["1: it failed as well"]
    assert begun == [1]
    assert lane.close() == [2]


def test_another_task_goes_on_where_a_handler_was_cancelled_natively() -> None:
    """B2, W7: that is reported, and ends the one task."""
    handled_in: list[object] = []
    failed: list[int] = []

    async def handle(item: int) -> None:
        task = asyncio.current_task()
        handled_in.append(task)
        if item == 1 and task is not None:
            task.cancel()
            await checkpoint()

    async def example() -> None:
        async with anyio.create_task_group() as tasks:
            lane: Lane[int] = Lane("lane", handle, failed=lambda item, _: failed.append(item))
            lane.open(TaskHost(tasks, CleanUp()))
            lane.put(1)
            lane.put(2)
            await lane.quiet()
            tasks.cancel_scope.cancel()

    clock.run(example, backend="asyncio")
    assert failed == [1]
    assert handled_in[0] is not handled_in[1]


@pytest.mark.parametrize("native", [False, True])
def test_a_lane_whose_last_handler_has_failed_is_quiet(native: bool) -> None:
    """B2, B3: however it has."""

    async def handle(_: int) -> None:
        task = asyncio.current_task()
        if not native or task is None:
            raise ValueError("broken")
        task.cancel()
        await checkpoint()

    async def example() -> None:
        async with MemoryBus() as bus:
            lane: Lane[int] = Lane("lane", handle, failed=lambda _item, _exc: None)
            lane.open(bus.tasks)
            lane.put(1)
            await settle()
            with anyio.fail_after(1):
                await lane.quiet()
            lane.close()

    clock.run(example, backend="asyncio")


def test_a_lane_keeps_nothing_of_what_came_before_it_was_opened() -> None:
    """B5, R9: when that has been handled."""

    class Item:
        pass

    async def example() -> None:
        lane: Lane[Item] = Lane("lane", ignore)
        item = Item()
        gone = weakref.ref(item)
        lane.put(item)
        del item
        async with MemoryBus() as bus:
            lane.open(bus.tasks)
            lane.put(Item())
            await settle()
            gc.collect()
            assert gone() is None
            lane.close()

    clock.run(example, backend="asyncio")


_steps = st.integers(0, 3)
_doing = st.one_of(
    st.tuples(st.sampled_from(["data", "counted", "system"]), _steps),
    st.tuples(st.sampled_from(["quiet", "pause"]), _steps),
)


class Account:
    """A system lane and the bounded data lane behind it, and a plain account of what becomes of their items."""

    def __init__(self, script: list[tuple[str, int]], group: TaskGroup) -> None:
        self.script = script
        self.group = group
        self.put: dict[str, list[int]] = {"system": [], "data": []}
        self.begun: dict[str, list[int]] = {"system": [], "data": []}
        self.busy: set[str] = set()
        self.room = Room[int](2)
        self.system = Lane[int]("system", lambda n: self.handle("system", n))
        self.data = Lane[int]("data", lambda n: self.handle("data", n), first=(self.system,), room=self.room)

    async def handle(self, lane: str, n: int) -> None:
        assert lane not in self.busy
        assert lane == "system" or not self.system.waiting or self.system.busy
        self.busy.add(lane)
        self.begun[lane].append(n)
        for _ in range(self.script[n][1]):
            await checkpoint()
        self.busy.discard(lane)

    async def until_quiet(self, lane: Lane[int]) -> None:
        await lane.quiet()
        assert lane.name not in self.busy
        assert not lane.waiting

    async def wait_for_room(self, n: int) -> None:
        await self.room.stand(n, self.put_counted).wait()

    def put_counted(self, n: int) -> None:
        self.put["data"].append(n)
        self.data.put_counted(n)

    async def do(self, n: int) -> None:
        what, steps = self.script[n]
        if what == "counted" and (self.room.full or self.room.has_line):
            self.group.start_soon(self.wait_for_room, n)
            await settle()
        elif what == "counted":
            self.put_counted(n)
        elif what == "quiet":
            self.group.start_soon(self.until_quiet, self.data)
            self.group.start_soon(self.until_quiet, self.system)
        elif what == "pause":
            for _ in range(steps):
                await checkpoint()
        else:
            self.put[what].append(n)
            (self.system if what == "system" else self.data).put(n)

    def check(self) -> None:
        assert self.begun == self.put
        for lane in ("system", "data"):
            assert {n for n, (what, _) in enumerate(self.script) if what == lane} <= set(self.put[lane])
        assert {n for n, (what, _) in enumerate(self.script) if what == "counted"} <= set(self.put["data"])
        assert (self.room.taken, self.room.line, self.system.waiting, self.data.waiting) == (0, [], 0, 0)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(_doing, max_size=25), early=st.integers(0, 25), turns=st.booleans(), seed=st.integers(0, 7))
@example(script=[("data", 1), ("quiet", 0), ("pause", 2), ("data", 1)], early=0, turns=False, seed=1)
def test_two_lanes_beside_a_plain_account_of_them(
    backend: str, script: list[tuple[str, int]], early: int, turns: bool, seed: int
) -> None:
    """B2, B9: order, room and quiet, whatever comes when.

    Drawn are items for a system lane and for the bounded data lane behind it, each with the number of steps that its
    handling takes; pauses; and those who wait until the lanes are quiet. The first ones come before the opening.
    """

    async def main() -> None:
        async with anyio.create_task_group() as group:
            account = Account(script, group)
            host, shared = TaskHost(group, CleanUp()), Turns() if turns else None
            for n in range(len(script) + 1):
                if n == min(early, len(script)):
                    account.system.open(host, shared)
                    account.data.open(host, shared)
                if n < len(script):
                    await account.do(n)
            await settle()
            account.check()
            account.system.close(cancel=True)
            account.data.close(cancel=True)

    run(main, backend=backend, seed=seed)


def test_all_who_wait_until_a_lane_is_quiet_go_on_though_it_has_something_to_do_again(backend: str) -> None:
    """L1: none of them waits for ever, under any schedule."""

    async def main() -> None:
        async with anyio.create_task_group() as group:
            lane = Lane[int]("lane", ignore)
            lane.open(TaskHost(group, CleanUp()))
            over: list[str] = []

            async def until_quiet(name: str, more: int) -> None:
                await lane.quiet()
                for number in range(more):
                    lane.put(number)
                    await lane.quiet()
                over.append(name)

            lane.put(0)
            for name, more in (("one", 0), ("two", 0), ("another", 2), ("the last", 1)):
                group.start_soon(until_quiet, name, more)
            await settle()
            assert sorted(over) == ["another", "one", "the last", "two"]
            lane.close(cancel=True)

    for seed in range(12):
        run(main, backend=backend, seed=seed)
