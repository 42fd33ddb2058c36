"""B6, B7: who gets which message, and what that costs."""

import math
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.lanes import Gate
from support.listeners import Listener
from support.listeners import Listener as Hearing
from support.messages import Note, note
from support.steps import steps_of
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BusMessage,
    BusSubscriber,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    MemoryBus,
    MessageTypeError,
)


async def test_a_plain_subscriber_gets_everything() -> None:
    """B6: broadcasts, and what is addressed to it, to others and to nobody."""
    plain = Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.subscribe(Plain("other", receives="own"))
        sent = [note(0), note(1, "it"), note(2, "other"), note(3, "nobody")]
        for message in sent:
            await bus.send(message)
        await plain.until(4)
    assert plain.got == sent


async def test_who_receives_its_own_gets_broadcasts_and_what_is_addressed_to_it() -> None:
    """B6: ``receives = "own"``; once each."""
    plain = Plain("it", receives="own")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.subscribe(Plain("other"))
        for message in (note(0), note(1, "other"), note(2, "it"), note(3, "nobody"), note(4)):
            await bus.send(message)
        await plain.until(3)
    assert plain.got == [note(0), note(2, "it"), note(4)]


async def steps_of_sending(crowd: int) -> int:
    """How many instructions it takes to send to the last of a crowd, when all that is done once has been done."""
    async with MemoryBus() as bus:
        for n in range(crowd):
            await bus.subscribe(Plain(f"plain-{n}", receives="own"))
        message = note(1, f"plain-{crowd - 1}")
        steps = [await steps_of(lambda: bus.send(message)) for _ in range(5)]
    return min(steps[1:])  # Python 3.12 counts nothing in a function that is traced for the first time


async def test_a_targeted_message_costs_the_same_however_many_subscribers_there_are() -> None:
    """B6: one look-up."""
    assert await steps_of_sending(5000) == await steps_of_sending(2)


class Deaf(Helper):
    """Overrides ``on_bus_message`` without ``super()``, and notes what the worker was like when it was called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.seen: list[tuple[str, bool, object]] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        await checkpoint()
        self.seen.append((type(message).__name__, self.active, self.activation_args))

    def names(self) -> list[str]:
        return [name for name, _, _ in self.seen]


async def test_starting_many_workers_queues_nothing_for_the_others() -> None:
    """B7: starting N workers costs O(N)."""
    count = 60
    async with running() as runner:
        await runner.add_workers(*(Deaf(f"worker-{n}") for n in range(count)))
        for n in range(count):
            await runner.registry.wait_for(f"worker-{n}")
        await anyio.wait_all_tasks_blocked()
        statistics = runner.bus.statistics().subscribers
        workers = [worker for n in range(count) if isinstance(worker := runner.get_worker(f"worker-{n}"), Deaf)]
        assert len(workers) == count
        assert sum(statistics[worker.name].delivered + statistics[worker.name].depth for worker in workers) <= count
        assert not any({"BusWorkerReadyMessage", "BusWorkerRegistryMessage"} & set(each.names()) for each in workers)
        assert statistics[runner.name].delivered <= 2 * count


@pytest.mark.parametrize("receives", ["all", "own"])
async def test_observers_get_the_announcements(receives: str) -> None:
    """B7: they are meant for runners and observers, each of them."""
    observers = [Plain(name, receives=receives) for name in ("observer", "another")]
    bus = MemoryBus()
    for observer in observers:
        await bus.subscribe(observer)
    async with running(Helper("helper"), bus=bus) as runner:
        for observer in observers:
            (ready,) = await observer.until(1, BusWorkerReadyMessage)
            assert ready.source == "helper"
        worker = runner.get_worker("helper")
        assert worker is not None
        await worker.stop()
        for observer in observers:
            (gone,) = await observer.until(1, BusWorkerGoneMessage)
            assert gone.source == "helper"


async def test_announcements_are_kept_from_workers_though_everybody_has_just_got_a_broadcast() -> None:
    """B7: whom a broadcast is for is looked up for its own kind."""
    observer = Plain("observer")
    async with running(Helper("helper")) as runner:
        await runner.bus.subscribe(observer)
        await runner.bus.send(note(1))
        before = runner.bus.statistics().subscribers["helper"].delivered
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="stranger"))
        await observer.until(1, BusWorkerReadyMessage)
        assert runner.bus.statistics().subscribers["helper"].delivered == before


def test_listener_is_a_worker_of_the_kind_that_receives_its_own() -> None:
    """B6: ``receives = "own"``, as `BaseWorker` has it; ``"all"`` for a plain one."""
    assert Listener("it", Gate()).receives == "own"
    assert BusSubscriber.receives == "all"


@pytest.mark.parametrize("size", [1, math.inf])
async def test_what_nobody_has_the_name_of_is_counted(size: float) -> None:
    """B9: on a bounded bus as well; who receives everything gets it all the same."""
    bus, observer = MemoryBus(max_buffer_size=size), Plain("observer")
    await bus.subscribe(Plain("plain"))
    async with bus:
        await bus.send(note(1, target="nobody"))
        await bus.subscribe(observer)
        await bus.send(note(2, target="nobody"))
        await bus.send(note(3, target="plain"))
        await observer.until(2)
        assert bus.statistics().undelivered == 2
    assert [message.n for message in observer.got if isinstance(message, Note)] == [2, 3]


@pytest.mark.parametrize("message", ["text", None, BusMessage(source="me")])
async def test_what_is_no_message_with_a_lane_is_refused_by_name(message: Any) -> None:
    """N5: before the bus is open and when it is, and not counted."""
    bus = MemoryBus()
    text = "a message is an instance of a subclass of BusDataMessage or BusSystemMessage"
    with pytest.raises(MessageTypeError) as early:
        await bus.send(message)
    async with bus:
        with pytest.raises(MessageTypeError) as late:
            await bus.send(message)
    assert str(early.value) == str(late.value) == f"cannot send {message!r}: {text}"
    assert bus.statistics().sent == 0


async def test_a_bounded_bus_keeps_announcements_from_workers() -> None:
    """B7, B9: also when they are sent as everything else is."""
    heard: list[BusMessage] = []

    async def hear(message: BusMessage) -> None:
        heard.append(message)

    async with running(Hearing("hearing", hear), bus=MemoryBus(max_buffer_size=8)) as runner:
        observer = Plain("observer")
        await runner.bus.subscribe(observer)
        before = runner.bus.statistics().subscribers["hearing"].delivered
        ready = BusWorkerReadyMessage("elsewhere", source="stranger")
        await runner.bus.send(ready)
        await runner.bus.send(note(1))
        assert await observer.until(2) == [ready, note(1)]
        assert runner.bus.statistics().subscribers["hearing"].delivered == before + 1
