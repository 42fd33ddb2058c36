"""X10: buses with peers: events, and statistics."""

from typing import Any

import pytest
from anyio import create_task_group, sleep

from support.hand_buses import LEFT, RIGHT, HandBus
from support.messages import note
from support.subscribers import Plain
from workerbus import HandlerTypeError, Peer, PeerBusStatistics
from workerbus.errors import UnknownEventError
from workerbus.testing import settle

EVENTS: dict[str, tuple[Any, ...]] = {
    "on_connected": (),
    "on_disconnected": ("refused",),
    "on_peer_joined": (LEFT,),
    "on_peer_gone": (LEFT, "left"),
    "on_gap": ("3 messages of left",),
    "on_fenced": ("its lease was over",),
}


@pytest.mark.parametrize("event", EVENTS)
async def test_handlers_of_an_event_get_the_bus_and_what_there_is_to_tell(event: str) -> None:
    """X10: sync and async ones, the first added first."""
    bus, told = HandBus(LEFT), []

    def plain(*args: Any) -> None:
        told.append(("plain", *args))

    async def waits(*args: Any) -> None:
        await sleep(1)
        told.append(("waits", *args))

    async with bus:
        bus.add_event_handler(event, waits)
        bus.event_handler(event)(plain)
        bus.tell(event, *EVENTS[event])
        await sleep(2)
        assert told == [("waits", bus, *EVENTS[event]), ("plain", bus, *EVENTS[event])]


async def test_events_are_told_one_at_a_time_in_the_order_of_what_has_happened() -> None:
    """X10."""
    bus = HandBus(LEFT)
    told: list[tuple[str, ...]] = []

    @bus.event_handler("on_peer_joined")
    async def joined(_: HandBus, peer: Peer) -> None:
        await sleep(0.1)
        told.append(("joined", peer.name))

    @bus.event_handler("on_peer_gone")
    def gone(_: HandBus, peer: Peer, reason: str) -> None:
        told.append(("gone", peer.name, reason))

    async with bus:
        bus.meet(RIGHT)
        bus.lose(LEFT, "its lease is over")
        bus.meet(LEFT)
        assert told == []  # not in the step of the transport
    assert told == [
        ("joined", "left"),
        ("joined", "right"),
        ("gone", "left", "its lease is over"),
        ("joined", "left"),
        ("gone", "right", "this bus has closed"),
        ("gone", "left", "this bus has closed"),
    ]


async def test_a_handler_that_fails_is_logged_and_the_next_one_called(caplog: pytest.LogCaptureFixture) -> None:
    """X10."""
    bus, told = HandBus(LEFT), []

    @bus.event_handler("on_gap")
    def fails(*_: object) -> None:
        raise ValueError("the handler's own")

    bus.add_event_handler("on_gap", lambda _, text: told.append(text))
    async with bus:
        bus.tell("on_gap", "one")
        bus.tell("on_gap", "two")
        await settle()
    assert told == ["one", "two"]
    assert caplog.text.count("a handler of on_gap of bus 'bus' failed") == 2
    assert "the handler's own" in caplog.text


def test_a_handler_of_no_event_or_with_other_parameters_is_refused() -> None:
    """N8."""
    bus = HandBus()
    with pytest.raises(UnknownEventError, match="on_peer_joined"):
        bus.add_event_handler("on_peer_join", print)
    with pytest.raises(HandlerTypeError, match="the HandBus and 2 more arguments"):
        bus.add_event_handler("on_peer_gone", lambda bus: None)


async def test_a_handler_may_send_and_close_nothing() -> None:
    """X10: it runs in a task of the bus."""
    bus, it = HandBus(LEFT), Plain("it")

    @bus.event_handler("on_peer_joined")
    async def greets(bus: HandBus, peer: Peer) -> None:
        await bus.send(note(1))

    async with bus, create_task_group():
        await bus.subscribe(it)
        await it.until(1)


async def test_statistics_are_a_frozen_snapshot_that_counts_up() -> None:
    """B9, X10."""
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        before = bus.statistics()
        await bus.send(note(1))
        for number in (1, 1, 4):
            bus.arrive(note(2, target="it"), LEFT, number=number)
        after = bus.statistics()
        bus.lose(LEFT, "left")
        bus.arrive(note(3), LEFT, number=2)
        last = bus.statistics()
    assert before == PeerBusStatistics(sent=0, undelivered=0, refused=0, subscribers={}, peers=2)
    assert after == PeerBusStatistics(
        sent=1, undelivered=1, refused=0, subscribers={}, peers=2, transmitted=2, repeated=1, gaps=1
    )
    assert (last.peers, last.late) == (1, 1)
