"""B8, X6, X9: buses with peers: where each message goes, and what is refused when it comes from a peer."""

import logging
from collections.abc import Callable

import pytest

from support.hand_buses import FAR, LEFT, RIGHT, HandBus
from support.messages import alarm, note
from support.subscribers import Plain
from support.workers import Helper
from workerbus import (
    Arrival,
    BusAddWorkerMessage,
    BusCancelMessage,
    BusEndMessage,
    BusJobUpdateMessage,
    BusMessage,
    BusWorkerRegistryMessage,
    Peer,
)
from workerbus.bus._peers import REMEMBERED
from workerbus.testing import settle

BOUNDS = pytest.mark.parametrize("size", [float("inf"), 5])


@BOUNDS
async def test_a_message_for_a_subscriber_here_never_leaves(size: float) -> None:
    """X6: whoever sends it, and whatever is known of its name."""
    bus, it = HandBus(LEFT, RIGHT, max_buffer_size=size), Plain("it", receives="own")
    async with bus:
        bus.locate("it", LEFT)
        await bus.subscribe(it)
        await bus.send(note(1, target="it"))
        bus.post(note(2, target="it"))
        await it.until(2)
    assert it.got == [note(1, target="it"), note(2, target="it")]
    assert bus.sent == []
    assert bus.statistics().transmitted == 0


@BOUNDS
async def test_a_broadcast_goes_to_all_peers_and_to_those_here(size: float) -> None:
    """X6."""
    bus, it = HandBus(LEFT, RIGHT, max_buffer_size=size), Plain("it", receives="own")
    async with bus:
        await bus.subscribe(it)
        await bus.send(note(1))
        bus.post(note(2))
        await it.until(2)
        assert bus.sent == [(note(1), (LEFT, RIGHT)), (note(2), (LEFT, RIGHT))]
        assert bus.statistics().transmitted == 4
        assert bus.statistics().sent == 2


async def test_a_message_for_a_name_at_a_peer_goes_to_that_one_alone() -> None:
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        bus.locate("far", RIGHT)
        await bus.send(note(1, target="far"))
        bus.post(note(2, target="far"))
        assert bus.sent == [(note(1, target="far"), (RIGHT,)), (note(2, target="far"), (RIGHT,))]
        assert bus.statistics().undelivered == 0


async def test_a_message_for_a_name_that_nobody_knows_goes_to_all() -> None:
    """Each of them looks whether it has such a subscriber."""
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        await bus.send(note(1, target="who"))
        assert bus.sent == [(note(1, target="who"), (LEFT, RIGHT))]
        assert bus.arrive(note(1, target="nobody"), LEFT) is Arrival.DELIVERED
        statistics = bus.statistics()
        assert (statistics.undelivered, statistics.arrived) == (1, 0)


async def test_a_message_for_an_unknown_name_is_undelivered_where_there_are_no_peers() -> None:
    bus = HandBus()
    async with bus:
        await bus.send(note(1, target="who"))
        bus.post(note(2, target="who"))
        await bus.send(note(3))
        assert bus.sent == []
        assert bus.statistics().undelivered == 2


def update(target: str) -> BusMessage:
    """What a job tells its requester."""
    return BusJobUpdateMessage("job", {}, source="worker", target=target)


async def test_what_a_job_tells_a_requester_at_a_peer_that_is_gone_goes_nowhere() -> None:
    """X4"""
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        for name in ("one", "two"):
            bus.locate(name, LEFT)
        bus.locate("other", RIGHT)
        bus.lose(LEFT, "its lease is over")
        for name in ("one", "two", "other"):
            await bus.send(update(name))
        assert bus.sent == [(update("other"), (RIGHT,))]
        assert bus.statistics().undelivered == 2
        bus.locate("one", RIGHT)
        await bus.send(update("one"))
        assert bus.to(RIGHT)[1:] == [update("one")]


async def test_a_message_for_a_name_at_a_peer_that_is_gone_goes_to_all() -> None:
    """B4: another one may have the name by now, and not be announced yet."""
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        bus.locate("one", LEFT)
        bus.lose(LEFT, "its lease is over")
        await bus.send(note(1, target="one"))
        assert bus.sent == [(note(1, target="one"), (RIGHT,))]


async def test_a_worker_that_has_left_its_peer_is_looked_for_there_no_more() -> None:
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        bus.locate("one", LEFT)
        bus.unlocate("one", RIGHT)
        await bus.send(note(1, target="one"))
        assert bus.sent == [(note(1, target="one"), (LEFT,))]
        bus.unlocate("one", LEFT)
        await bus.send(update("one"))
        assert len(bus.sent) == 1
        assert bus.statistics().undelivered == 1
        await bus.send(note(2, target="one"))
        assert bus.sent[1:] == [(note(2, target="one"), (LEFT, RIGHT))]


async def test_a_name_that_has_moved_is_not_gone_with_the_peer_where_it_was() -> None:
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        bus.locate("one", LEFT)
        bus.locate("one", RIGHT)
        bus.unlocate("one", LEFT)
        bus.lose(LEFT, "left")
        await bus.send(note(1, target="one"))
        assert bus.sent == [(note(1, target="one"), (RIGHT,))]
        bus.lose(RIGHT, "left")
        await bus.send(update("one"))
        assert len(bus.sent) == 1


async def test_a_name_is_located_at_those_alone_with_whom_there_is_a_session() -> None:
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        bus.locate("one", FAR)
        await bus.send(note(1, target="one"))
        assert bus.sent == [(note(1, target="one"), (LEFT, RIGHT))]


async def test_names_of_a_peer_that_is_gone_are_looked_for_when_one_of_its_name_comes() -> None:
    """X4: it was started again, or had been declared lost while it lived."""
    bus, again = HandBus(LEFT, RIGHT), Peer("left", "left 2")
    async with bus:
        bus.locate("one", LEFT)
        bus.locate("two", RIGHT)
        bus.locate("three", LEFT)
        bus.lose(LEFT, "its lease is over")
        bus.lose(RIGHT, "its lease is over")
        bus.meet(again)
        for name in ("one", "two", "three"):
            await bus.send(update(name))
        assert bus.sent == [(update("one"), (again,)), (update("three"), (again,))]


async def test_the_same_name_in_another_life_is_another_peer() -> None:
    """X4: what is known of the old one is not believed of the new one."""
    bus, again = HandBus(LEFT), Peer("left", "left 2")
    async with bus:
        bus.locate("one", LEFT)
        bus.meet(again)
        bus.locate("one", again)
        bus.lose(LEFT, "restarted")
        await bus.send(note(1, target="one"))
        assert bus.sent == [(note(1, target="one"), (again,))]


async def test_of_names_that_are_gone_the_last_ones_are_remembered() -> None:
    """R9."""
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        for n in range(REMEMBERED + 2):
            bus.locate(str(n), LEFT)
        bus.lose(LEFT, "left")
        for n in (0, 1, 2, REMEMBERED + 1):
            await bus.send(update(str(n)))
        assert [message.target for message in bus.messages] == ["0", "1"]  # forgotten, so that it is asked for again


async def test_what_is_known_of_peers_that_have_left_is_forgotten() -> None:
    """R9."""
    bus = HandBus()
    async with bus:
        for n in range(50):
            peer = Peer("again", str(n))
            bus.meet(peer)
            bus.locate("one", peer)
            bus.locate("two", peer)
            other = Peer("other", f"other {n}")
            bus.meet(other)
            bus.locate("one", other)
            assert bus.peers == (peer, other)
            assert bus._routes._names == {peer.incarnation: {"two": None}, other.incarnation: {"one": None}}
            assert not bus._routes._gone
            bus.lose(peer, "left")
            bus.lose(other, "left")
        assert bus.peers == ()
        assert bus.statistics().peers == 0
        routes = bus._routes
        assert (len(routes), routes._names, list(routes._gone)) == (0, {}, ["two", "one"])


# --- to one peer


async def test_a_message_can_be_posted_to_one_peer_whatever_its_target() -> None:
    bus, it = HandBus(LEFT, RIGHT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        bus.post_to(note(1), RIGHT)
        bus.post_to(note(2, target="it"), RIGHT)
        bus.post_to(note(3), FAR)
        await settle()
        assert bus.sent == [(note(1), (RIGHT,)), (note(2, target="it"), (RIGHT,))]
        assert it.got == []
        assert (bus.statistics().sent, bus.statistics().transmitted) == (2, 2)


async def test_what_cannot_be_posted_to_a_peer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever meets a peer greets it so, and goes on to meet the next one."""
    bus = HandBus(LEFT)
    async with bus:
        bus.fails = ValueError("it is too large")
        bus.post_to(note(1), LEFT)
    assert "bus 'bus' could not send Note" in caplog.text
    assert "it is too large" in caplog.text


# --- ends and cancels


@pytest.mark.parametrize("make", [BusEndMessage, BusCancelMessage])
async def test_an_end_or_cancel_without_a_target_stays_in_its_process(make: Callable[..., BusMessage]) -> None:
    """X9: unless it says that it is for all."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        await bus.send(make(source="me"))
        bus.post(make(source="me"))
        assert bus.sent == []
        await bus.send(make(source="me", everywhere=True))
        bus.post(make(source="me", target="runner"))
        assert bus.messages == [make(source="me", everywhere=True), make(source="me", target="runner")]
        await it.until(4)
    assert bus.statistics().undelivered == 0


@pytest.mark.parametrize("make", [BusEndMessage, BusCancelMessage])
async def test_one_that_comes_from_a_peer_is_refused(
    make: Callable[..., BusMessage], caplog: pytest.LogCaptureFixture
) -> None:
    """X9: nobody ends a process by forging what it sends to itself."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        assert bus.arrive(make(source="me"), LEFT, number=1) is Arrival.REFUSED
        assert bus.arrive(make(source="me", everywhere=True), LEFT, number=2) is Arrival.DELIVERED
        assert bus.arrive(make(source="me", target="it"), LEFT, number=3) is Arrival.DELIVERED
        assert await it.until(2) == [make(source="me", everywhere=True), make(source="me", target="it")]
        assert (bus.statistics().refused, bus.statistics().arrived) == (1, 2)
    assert f"refused a {make.__name__} without a target from peer 'left'" in caplog.text


async def test_a_local_message_from_a_peer_is_refused() -> None:
    """B8: and those behind it are taken."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        forged = BusAddWorkerMessage(Helper("forged"), source="me")
        assert bus.arrive(forged, LEFT, number=1) is Arrival.REFUSED
        assert bus.arrive(note(2), LEFT, number=2) is Arrival.DELIVERED
        await it.until(1)
    assert it.got == [note(2)]
    assert bus.statistics().refused == 1


@BOUNDS
async def test_a_local_message_stays(size: float) -> None:
    """B8: a bus with a network in which it cannot be."""
    bus, it = HandBus(LEFT, max_buffer_size=size), Plain("it")
    message = BusAddWorkerMessage(Helper("x"), source="me")
    async with bus:
        await bus.subscribe(it)
        await bus.send(message)
        bus.post(message)
        await it.until(2)
    assert bus.sent == []


# --- who sees what passes


@BOUNDS
async def test_taps_and_observers_see_what_passes_through_their_own_process(
    size: float, caplog: pytest.LogCaptureFixture
) -> None:
    """X6: what is sent here, wherever it goes, and what arrives here for somebody; each once."""
    caplog.set_level(logging.CRITICAL)
    bus, observer, own = HandBus(LEFT, max_buffer_size=size), Plain("observer"), Plain("own", receives="own")
    seen: list[BusMessage] = []
    bus.add_tap(seen.append)
    async with bus:
        await bus.subscribe(observer)
        await bus.subscribe(own)
        bus.locate("far", LEFT)
        sent: list[BusMessage] = [note(1), note(2, target="own"), note(3, target="far"), note(4, target="who")]
        for message in sent:
            await bus.send(message)
        bus.post(note(5, target="far"))
        arrived: list[BusMessage] = [note(6), alarm(7, target="own")]
        for message in arrived:
            bus.arrive(message, LEFT)
        bus.arrive(note(8, target="who"), LEFT)
        await observer.until(7)
        await settle()
    everything = [*sent, note(5, target="far"), *arrived]
    assert seen == everything
    assert sorted(each.n for each in observer.got) == [1, 2, 3, 4, 5, 6, 7]  # type: ignore[attr-defined]  # notes and alarms
    assert sorted(each.n for each in own.got) == [1, 2, 6, 7]  # type: ignore[attr-defined]  # likewise


async def test_announcements_go_to_peers_and_not_to_workers_here() -> None:
    """B7."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        message = BusWorkerRegistryMessage("R", [], source="R")
        bus.post(message)
        assert bus.sent == [(message, (LEFT,))]
        await it.until(1)


async def test_names_of_a_life_that_is_over_are_not_looked_for_there_though_the_next_one_has_begun() -> None:
    """X4: as where its end is noticed late."""
    bus, again = HandBus(LEFT), Peer(LEFT.name, "left 2")
    async with bus:
        bus.locate("who", LEFT)
        bus.locate("other", LEFT)
        bus.meet(again)
        bus.locate("other", again)
        bus.lose(LEFT, "the server knows of it no more")
        for target in ("who", "other"):
            await bus.send(note(1, target=target))
        assert [peers for _, peers in bus.sent] == [(again,), (again,)]
