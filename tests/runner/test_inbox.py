"""B2, R2: what a runner handles, and in which order."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.buses import PoliteBus
from support.messages import Alarm, Note, alarm, note
from support.workers import Helper
from workerbus import BusJobResponseMessage, BusMessage, JobError, WorkerRunner
from workerbus.testing import settle


class Overridden(WorkerRunner):
    """Does ``on`` with the notes and alarms that it gets; the others are a runner's."""

    def __init__(self, on: Callable[[BusMessage], Awaitable[None]], **kwargs: Any) -> None:
        super().__init__(name="runner", handle_sigint=False, **kwargs)
        self.on = on

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            await self.on(message)
        else:
            await super().on_bus_message(message)


async def test_a_runner_handles_a_system_message_while_data_messages_wait() -> None:
    """B2: after at most one more of those, though none of them suspends."""
    heard: list[int] = []

    async def on(message: BusMessage) -> None:
        assert isinstance(message, Note | Alarm)
        heard.append(message.n)
        if message.n == 3:
            await runner.bus.send(alarm(100, "runner"))

    async with Overridden(on) as runner:
        for n in range(10):
            await runner.bus.send(note(n, "runner"))
        await settle()
        assert heard.index(100) in (4, 5)
        assert len(heard) == 11


async def test_a_runner_ends_when_it_has_handled_what_has_come() -> None:
    """B5, R2: a system message too."""
    handled: list[BusMessage] = []

    async def on(message: BusMessage) -> None:
        await anyio.sleep(1)
        handled.append(message)

    urgent = alarm(1, "runner")
    async with Overridden(on) as runner:
        await runner.bus.send(urgent)
    assert handled == [urgent]


async def test_a_runner_that_chooses_hears_of_departures_at_once() -> None:
    """J4, N4: a job whose answer was lost ends with the announcement, and not when that counts as lost, too."""

    class Choosy(WorkerRunner):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    class Lossy(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if not isinstance(message, BusJobResponseMessage):
                await super().publish(message)

    helper = Helper("helper")
    async with Choosy(bus=Lossy(), handle_sigint=False) as runner:
        await runner.add_workers(helper)
        begin = current_time()
        with pytest.raises(JobError, match="left without an answer"):  # noqa: PT012 - by what is done in the context
            async with runner.job("helper", name="wait"):
                await helper.begun.wait()
                await helper.stop()
        assert current_time() == begin


async def test_what_waits_for_a_runner_is_counted() -> None:
    """B9: in both lanes."""
    gate = anyio.Event()

    async def on(message: BusMessage) -> None:
        await gate.wait()

    async with Overridden(on) as runner:
        for n in range(3):
            await runner.bus.send(alarm(n, "runner"))
        await settle()
        assert runner.bus.statistics().subscribers["runner"].depth == 2
        for n in range(3):
            await runner.bus.send(note(n, "runner"))
        await settle()
        assert runner.bus.statistics().subscribers["runner"].depth == 4
        gate.set()
