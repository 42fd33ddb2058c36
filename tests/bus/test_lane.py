"""B2, B5, B9, J1: a lane by itself: what it holds, counts and gives back."""

import asyncio

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from workerbus import MemoryBus
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._concurrency.room import Room


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
