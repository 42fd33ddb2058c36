"""B2: sending is no checkpoint, and yet others run now and then."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.lanes import lanes
from support.messages import note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BusJobRequestMessage, BusMessage, MemoryBus
from workerbus.bus._bus import DELIVERIES


class Ticker:
    """Counts how often other tasks get a turn."""

    def __init__(self) -> None:
        self.ticks = 0

    async def run(self) -> None:
        while True:
            self.ticks += 1
            await checkpoint()


@asynccontextmanager
async def ticking() -> AsyncIterator[Ticker]:
    ticker = Ticker()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ticker.run)
        await eventually(lambda: ticker.ticks)
        yield ticker
        tasks.cancel_scope.cancel()


async def test_sending_is_no_checkpoint() -> None:
    """B2: while there is room, and but for every 64th one."""
    async with MemoryBus() as bus, ticking() as ticker:
        await bus.subscribe(Plain("it"))
        before = ticker.ticks
        for n in range(63):
            await bus.send(note(n))
        assert ticker.ticks == before


async def test_every_64th_sending_lets_others_run() -> None:
    """B2: a task that only sends starves nobody."""
    async with MemoryBus() as bus, ticking() as ticker:
        await bus.subscribe(Plain("it"))
        before = ticker.ticks
        for n in range(64 * 6):
            await bus.send(note(n))
        assert ticker.ticks - before >= 5


@pytest.mark.parametrize("first", [0, 1, 2, 3])
async def test_every_64th_sending_lets_others_run_whatever_the_library_sends_in_between(first: int) -> None:
    """B2: here each request is answered at once, in the sender's step (W4)."""
    idle = Helper("idle", active=False)
    async with running(idle) as runner, ticking() as ticker:
        for n in range(first):
            await runner.bus.send(note(n, "nobody"))
        before = ticker.ticks
        for n in range(64 * 6):
            await runner.bus.send(BusJobRequestMessage(str(n), "echo", source="asker", target="idle"))
        assert ticker.ticks - before >= 5


async def test_a_cancelled_sender_does_not_lose_its_message() -> None:
    """B2: every 64th one yields uncancellably, after the message is in."""
    plain = Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        with anyio.CancelScope() as scope:
            scope.cancel()
            for n in range(200):
                await bus.send(note(n))
        await plain.until(200)
    assert lanes(plain.got)[0] == list(range(200))


def some(steps: int) -> bool:
    """Whether it is about once in 64, of 640."""
    return 8 <= steps <= 13


async def test_a_sender_that_never_waits_lets_others_run_now_and_then() -> None:
    """B2: every 64th `send()` yields, uncancellably, after the message is in."""
    bus, steps, stop = MemoryBus(), 0, False

    async def count() -> None:
        nonlocal steps
        while not stop:
            steps += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await checkpoint()
        before = steps
        with anyio.CancelScope() as scope:
            scope.cancel()
            for n in range(640):
                await bus.send(note(n))
        assert not scope.cancelled_caught
        stop = True
        assert some(steps - before)
    assert bus.statistics().sent == 640


async def test_a_subscriber_that_never_waits_lets_others_run_now_and_then() -> None:
    """B1, B2: a lane yields once after 64 messages without a pause."""
    seen: list[int] = []
    steps, stop = 0, False

    def look(_: BusMessage) -> None:
        seen.append(steps)

    bus, plain = MemoryBus(), Plain("plain", on=look)
    await bus.subscribe(plain)
    for n in range(640):
        await bus.send(note(n))

    async def count() -> None:
        nonlocal steps
        while not stop:
            steps += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks, bus:
        tasks.start_soon(count)
        await plain.until(640)
        stop = True
    assert some(seen[-1] - seen[0])


async def test_a_sender_of_broadcasts_to_many_lets_others_run_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """B2: after so many deliveries, however few sends those took."""
    paused_after: list[int] = []
    sent = 0

    async def pause() -> None:
        paused_after.append(sent)
        await checkpoint()

    monkeypatch.setattr("workerbus.bus._bus.cancel_shielded_checkpoint", pause)
    async with MemoryBus() as bus:
        for number in range(600):
            await bus.subscribe(Plain(str(number)))
        while sent < 20:
            sent += 1
            await bus.send(note(sent))
    each = math.ceil(DELIVERIES / 600)
    assert paused_after == list(range(each, 21, each))


async def test_a_flood_of_broadcasts_wakes_no_lane_for_each_message_however_many_subscribers_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B2: also where one broadcast is as many deliveries as a sender may make before it lets others run."""
    monkeypatch.setattr("workerbus.bus._bus.DELIVERIES", 50)
    broadcasts, subscribers = 32, 60
    handled_by: list[str] = []

    def noted(name: str, _: BusMessage) -> None:
        handled_by.append(name)

    async with MemoryBus() as bus:
        for number in range(subscribers):
            name = str(number)
            await bus.subscribe(Plain(name, on=partial(noted, name)))
        for n in range(broadcasts):
            await bus.send(note(n))
        await eventually(lambda: len(handled_by) == broadcasts * subscribers)
    in_a_row = sum(one == following for one, following in pairwise(handled_by))
    assert in_a_row >= len(handled_by) / 2
