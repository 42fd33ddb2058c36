"""Where messages wait: memory object streams, which are closed whatever forgets to do it (B1)."""

import gc
import math
from typing import Any

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream

from support.subscribers import Plain
from workerbus import BusDataMessage, BusSystemMessage, MemoryBus
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import CleanUp, TaskHost


async def suspended(_: Any) -> None:
    await anyio.sleep_forever()


async def test_each_subscriber_has_one_stream_for_system_and_one_for_data_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B1: made with the lane's first message, and without a bound, which is counted elsewhere."""
    made: list[float] = []

    class Make:
        def __class_getitem__(cls, _: object) -> type:
            return cls

        def __new__(cls, limit: float) -> Any:
            made.append(limit)
            return anyio.create_memory_object_stream[Any](limit)

    monkeypatch.setattr("workerbus._concurrency.lane.create_memory_object_stream", Make)
    async with MemoryBus(max_buffer_size=3) as bus:
        plain = Plain("plain")
        await bus.subscribe(plain)
        assert made == []
        for _ in range(3):
            await bus.send(BusDataMessage(source="a"))
        assert made == [math.inf]
        await bus.send(BusSystemMessage(source="a"))
        await plain.until(4)
        assert made == [math.inf, math.inf]


async def test_messages_wait_in_the_stream() -> None:
    """B1: what waits for a subscriber's code is in there, in order."""
    async with MemoryBus() as bus:
        plain = Plain("plain", on=suspended)
        await bus.subscribe(plain)
        messages = [BusDataMessage(source=str(number)) for number in range(5)]
        for message in messages:
            await bus.send(message)
        await plain.until(1)
        inbox = bus._inboxes["plain"]
        assert inbox.lanes is not None
        lane = inbox.lanes[0]
        stream = lane._receive
        assert stream is not None
        assert isinstance(stream, MemoryObjectReceiveStream)
        assert stream.statistics().current_buffer_used == 4
        assert lane.look() == messages[1:]
        assert lane.look() == messages[1:]  # and wait on


async def test_a_host_that_is_cancelled_closes_the_streams_of_its_lanes() -> None:
    """B1: and what waited in them is still there, for whoever closes the lane."""
    lane: Lane[int] = Lane("lane", suspended)
    async with anyio.create_task_group() as tasks:
        lane.open(TaskHost(tasks, CleanUp()))
        for number in range(3):
            lane.put(number)
        await anyio.wait_all_tasks_blocked()
        stream = lane._receive
        tasks.cancel_scope.cancel()
    assert stream is not None
    assert stream.statistics().open_send_streams == stream.statistics().open_receive_streams == 0
    lane.put(3)
    assert lane.waiting == 3
    assert lane.close() == [1, 2, 3]


async def test_a_lane_that_is_forgotten_closes_its_stream() -> None:
    """B1: after a handler that ended its lane with an error, say; there is no ResourceWarning."""

    async def fail(_: int) -> None:
        raise OSError("it went wrong")

    kept: list[MemoryObjectReceiveStream[int]] = []

    async def run_and_forget() -> None:
        async with anyio.create_task_group() as tasks:
            lane: Lane[int] = Lane("lane", fail)
            lane.open(TaskHost(tasks, CleanUp()))
            lane.put(1)
            assert lane._receive is not None
            kept.append(lane._receive.clone())

    with pytest.raises(ExceptionGroup):
        await run_and_forget()
    gc.collect()
    assert kept[0].statistics().open_send_streams == 0
    kept[0].close()


async def test_a_dispatcher_parks_only_when_nothing_comes_while_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """B1, B2: once it has taken several messages it yields, and looks again; so a flood with pauses wakes nobody."""
    parked = yielded = 0

    def park() -> anyio.Event:
        nonlocal parked
        parked += 1
        return anyio.Event()

    async def let_five_more_come() -> None:
        nonlocal yielded
        yielded += 1
        for _ in range(5 if yielded < 10 else 0):
            bus.post(BusDataMessage(source="a"))

    monkeypatch.setattr("workerbus._concurrency.lane.event_class", lambda: park)
    monkeypatch.setattr("workerbus._concurrency.lane.checkpoint", let_five_more_come)
    async with MemoryBus() as bus:
        plain = Plain("plain")
        await bus.subscribe(plain)
        for _ in range(5):
            bus.post(BusDataMessage(source="a"))
        await plain.until(50)
        await anyio.wait_all_tasks_blocked()
        assert (yielded, parked) == (10, 1)
