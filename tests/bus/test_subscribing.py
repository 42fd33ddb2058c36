"""B5, B6: subscribing and unsubscribing, at any time."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.lanes import Gate
from support.messages import Alarm, Note, alarm, note
from support.subscribers import Plain
from workerbus import BusMessage, BusSubscriber, MemoryBus, NameTakenError


async def test_a_subscriber_gets_everything_from_its_subscription_on() -> None:
    """B4: all that is sent after `subscribe` has returned, on a bus that is running already."""
    async with MemoryBus() as bus:
        for n in range(20):
            plain = Plain(f"plain-{n}")
            await bus.subscribe(plain)
            await bus.send(note(n))
            await plain.until(1)
            assert plain.got[0] == note(n)


async def test_subscribing_again_changes_nothing() -> None:
    """B5: the same object is a no-op; it does not get anything twice, and loses nothing that waits."""
    bus = MemoryBus()
    plain = Plain("it")
    await bus.subscribe(plain)
    await bus.send(note(0))
    await bus.subscribe(plain)
    async with bus:
        await bus.subscribe(plain)
        await bus.send(note(1))
        await plain.until(2)
        await anyio.wait_all_tasks_blocked()
    assert plain.got == [note(0), note(1)]


async def test_a_taken_name_is_refused() -> None:
    """B5: a `ValueError`, and who has the name keeps it."""
    first, second = Plain("it"), Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(first)
        with pytest.raises(ValueError, match="'it'"):
            await bus.subscribe(second)
        await bus.send(note(0))
        await first.until(1)
        await bus.unsubscribe(first)
        await bus.subscribe(second)
        await bus.send(note(1))
        await second.until(1)
    assert first.got == [note(0)]
    assert second.got == [note(1)]


async def test_unsubscribing_somebody_else_of_that_name_changes_nothing() -> None:
    """B5: subscriptions belong to objects."""
    first, second = Plain("it"), Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(first)
        await bus.unsubscribe(second)
        await bus.unsubscribe(Plain("stranger"))
        await bus.send(note(0))
        await first.until(1)


async def test_no_delivery_begins_after_unsubscribing() -> None:
    """B5: neither of what waits nor of what is sent later."""
    plain, other = Plain("it"), Plain("other")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.subscribe(other)
        for n in range(5):
            await bus.send(note(n))
            await bus.send(alarm(n))
        await bus.unsubscribe(plain)
        begun = len(plain.got)
        await bus.send(note(5))
        await other.until(11)
        await anyio.wait_all_tasks_blocked()
    assert len(plain.got) == begun


async def test_no_delivery_begins_after_unsubscribing_a_parked_subscriber() -> None:
    """B5: its dispatcher waits for a message, gets one, and is unsubscribed before it could run."""
    plain = Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.send(note(0))
        await bus.send(alarm(0))
        await plain.until(2)
        await anyio.wait_all_tasks_blocked()
        await bus.send(note(1))
        await bus.send(alarm(1))
        await bus.unsubscribe(plain)
        await anyio.wait_all_tasks_blocked()
    assert len(plain.got) == 2


async def test_a_delivery_under_way_is_let_finish() -> None:
    """B5: in both lanes; `unsubscribe` does not wait for it."""
    gate = Gate()
    plain = Plain("it", on=gate)
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        await bus.send(note(0))
        await bus.send(alarm(0))
        await bus.send(note(1))
        await eventually(lambda: len(gate.begun) == 2)
        await bus.unsubscribe(plain)
        assert gate.ended == []
        gate.opened.set()
        await eventually(lambda: len(gate.ended) == 2)
        await anyio.wait_all_tasks_blocked()
    assert note(1) not in gate.begun


@pytest.mark.parametrize("make", [note, alarm])
async def test_a_subscriber_can_unsubscribe_from_inside_its_own_handler(make: Callable[..., Note | Alarm]) -> None:
    """B5: the handler goes on to its end, and is the last."""
    finished: list[BusMessage] = []

    async def leave(message: BusMessage) -> None:
        await bus.unsubscribe(plain)
        await checkpoint()
        finished.append(message)

    plain = Plain("it", on=leave)
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        for n in range(3):
            await bus.send(make(n))
        await eventually(lambda: finished)
        await bus.send(make(3))
        await anyio.wait_all_tasks_blocked()
    assert plain.got == finished == [make(0)]


async def test_a_subscriber_can_come_back_from_inside_its_own_handler() -> None:
    """B5, B4: it gets what is sent from then on, and nothing of what it left."""

    async def renew(message: BusMessage) -> None:
        if message == note(0):
            await bus.unsubscribe(plain)
            await bus.subscribe(plain)
            await bus.send(note(9))

    plain = Plain("it", on=renew)
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        for n in range(3):
            await bus.send(note(n))
        await plain.until(2)
        await anyio.wait_all_tasks_blocked()
    assert plain.got == [note(0), note(9)]


async def test_unsubscribing_before_the_start_works() -> None:
    """B5: at any time."""
    bus = MemoryBus()
    plain = Plain("it")
    await bus.subscribe(plain)
    await bus.unsubscribe(plain)
    await bus.unsubscribe(plain)
    async with bus:
        await bus.unsubscribe(plain)
        await bus.subscribe(plain)
        await bus.send(note(0))
        await plain.until(1)


async def test_only_a_subscriber_can_subscribe() -> None:
    """B5: anything else is refused at once."""
    async with MemoryBus() as bus:
        with pytest.raises(TypeError, match="BusSubscriber"):
            await bus.subscribe(object())  # type: ignore[arg-type]  # on purpose


async def test_a_subscriber_says_all_or_own() -> None:
    """B6: anything else in ``receives`` is a `ValueError`."""

    class Odd(BusSubscriber):
        receives = "some"  # type: ignore[assignment]  # on purpose

        @property
        def name(self) -> str:
            return "odd"

    async with MemoryBus() as bus:
        with pytest.raises(ValueError, match="some"):
            await bus.subscribe(Odd())


def test_a_subscriber_without_a_name_says_what_it_lacks() -> None:
    """N1, B5: subscribers are told apart by name."""
    with pytest.raises(NotImplementedError, match="name"):
        _ = BusSubscriber().name


async def test_a_subscriber_without_a_name_is_told_so() -> None:
    """B5."""

    class Nameless(BusSubscriber):
        pass

    with pytest.raises(NotImplementedError, match=r"^Nameless needs a 'name'"):
        await MemoryBus().subscribe(Nameless())


async def test_a_name_that_is_taken_says_where() -> None:
    """B5."""
    bus = MemoryBus(name="bus")
    await bus.subscribe(Plain("plain"))
    with pytest.raises(NameTakenError, match=r"^the name 'plain' is taken on bus 'bus': "):
        await bus.subscribe(Plain("plain"))


async def test_a_subscriber_that_has_left_is_forgotten() -> None:
    """L1, B5."""
    bus, plain = MemoryBus(), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        await bus.send(note(1))
        await plain.until(1)
        await bus.unsubscribe(plain)
        await anyio.wait_all_tasks_blocked()
        gone = weakref.ref(plain)
        del plain
        gc.collect()
        assert gone() is None


async def test_a_bus_takes_subscribers_only() -> None:
    bus: Any = MemoryBus()
    with pytest.raises(TypeError, match="BusSubscriber"):
        await bus.subscribe(object())
    with pytest.raises(ValueError, match="'all' or 'own'"):
        await bus.subscribe(Plain("it", receives="some"))
    assert not bus.has_subscriber("it")


async def test_a_subscriber_may_exchange_its_on_bus_message() -> None:
    """B6: what counts is the method at the time of the message, as for a worker's hooks."""
    subscriber, got = Plain("it"), Plain("other")
    async with MemoryBus() as bus:
        await bus.subscribe(subscriber)
        await bus.send(note(1, "it"))
        await subscriber.until(1)
        subscriber.on_bus_message = got.on_bus_message  # type: ignore[method-assign]  # on purpose
        await bus.send(note(2, "it"))
        assert await got.until(1) == [note(2, "it")]


async def test_a_plain_subscriber_of_a_bus_that_is_opened_again_is_forgotten_when_it_leaves() -> None:
    """B5: under its own name, in every table."""
    bus, plain = MemoryBus(), Plain("plain")
    await bus.subscribe(plain)
    for _ in range(2):
        async with bus:
            pass
    await bus.unsubscribe(plain)
    tables = (bus._subscribers, bus._inboxes, bus._everything, bus._announced)
    assert [dict(table) for table in tables] == [{}, {}, {}, {}]
