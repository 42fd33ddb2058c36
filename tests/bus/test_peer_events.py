"""X10: buses with peers: events, and statistics."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from anyio import create_task_group, sleep
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.hand_buses import FAR, LEFT, RIGHT, HandBus
from support.messages import note
from support.subscribers import Plain
from workerbus import BusAddWorkerMessage, BusEndMessage, HandlerTypeError, Peer, PeerBusStatistics
from workerbus.errors import UnknownEventError
from workerbus.testing import run, settle

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


class _Gone(BaseException):
    """No `Exception`, as what some libraries raise."""


@pytest.mark.parametrize("error", [ValueError, _Gone])
async def test_a_handler_that_fails_is_logged_and_the_next_one_called(
    caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """X10."""
    bus, told = HandBus(LEFT), []

    @bus.event_handler("on_gap")
    def fails(*_: object) -> None:
        raise error("the handler's own")

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


COUNTED: dict[str, tuple[Callable[[HandBus], object], dict[str, int]]] = {
    "is posted": (lambda bus: bus.post(note(0)), {"sent": 1, "transmitted": 2}),
    "is posted to one": (lambda bus: bus.post_to(note(0), LEFT), {"sent": 1, "transmitted": 1}),
    "arrives": (lambda bus: bus.arrive(note(0, target="it"), LEFT), {"arrived": 1}),
    "arrives for nobody": (lambda bus: bus.arrive(note(0, target="nobody"), LEFT), {"undelivered": 1}),
    "is local": (lambda bus: bus.arrive(BusAddWorkerMessage(None, source="x"), LEFT), {"refused": 1}),
    "is of a process": (lambda bus: bus.arrive(BusEndMessage(source="x"), LEFT), {"refused": 1}),
    "is late": (lambda bus: bus.arrive(note(0), FAR), {"late": 1}),
    "is late, and not decoded": (lambda bus: bus.note_late(), {"late": 1}),
    "is repeated": (lambda bus: bus.arrive(note(0), LEFT, number=0), {"repeated": 1}),
    "is repeated, and not decoded": (lambda bus: passed_over(bus, 0), {"repeated": 1}),
    "comes behind a gap": (lambda bus: bus.arrive(note(0), LEFT, number=9), {"gaps": 1}),
    "comes behind a gap, and is not decoded": (lambda bus: passed_over(bus, 9), {"gaps": 1}),
}


def passed_over(bus: HandBus, number: int) -> None:
    session = bus.session(LEFT.incarnation)
    assert session is not None
    bus.pass_over(session, number)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(early=st.integers(0, 3), sends=st.integers(0, 3), whats=st.lists(st.sampled_from(sorted(COUNTED)), max_size=12))
@example(early=2, sends=2, whats=[*COUNTED, *COUNTED])
def test_each_message_is_counted_however_often_it_comes(backend: str, early: int, sends: int, whats: list[str]) -> None:
    """B9, X10: what is posted without a connection, too."""

    async def main() -> PeerBusStatistics:
        bus = HandBus(LEFT, RIGHT, joins=False)
        async with bus:
            await bus.subscribe(Plain("it", receives="own"))
            for _ in range(early):
                bus.post(note(0))
            bus.join()
            for _ in range(sends):
                await bus.send(note(0))
            for what in whats:
                COUNTED[what][0](bus)
            return bus.statistics()

    expected = Counter(sent=early + sends, transmitted=2 * (early + sends))
    for what in whats:
        expected.update(COUNTED[what][1])
    statistics = run(main, backend=backend)
    counts = "sent", "undelivered", "refused", "transmitted", "arrived", "repeated", "late", "gaps", "waiting"
    assert {each: getattr(statistics, each) for each in counts} == {each: expected[each] for each in counts}
