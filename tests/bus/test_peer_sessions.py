"""X3, X4, X7: buses with peers: sessions, numbers, lives, and who is told of them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from support.hand_buses import FAR, LEFT, RIGHT, HandBus, Listener
from support.messages import Note, alarm, note
from support.subscribers import Plain
from workerbus import Arrival, BusJobRequestMessage, BusJobUpdateMessage, Peer

D, R, L, G = Arrival.DELIVERED, Arrival.REPEATED, Arrival.LATE, Arrival.GAP


@pytest.mark.parametrize(
    ("numbers", "verdicts"),
    [
        ([1, 2, 3], [D, D, D]),
        ([1, 1, 2, 1, 2, 3], [D, R, D, R, R, D]),
        ([0, 1], [R, D]),
        ([2], [G]),
        ([1, 3], [D, G]),
        ([1, 3, 2, 3], [D, G, D, D]),
        ([None, None], [D, D]),
        ([1, None, 2], [D, D, D]),
    ],
)
async def test_messages_of_a_peer_are_taken_by_their_numbers(
    numbers: Sequence[int | None], verdicts: list[Arrival]
) -> None:
    """X3: from 1; one that comes twice is dropped, and a gap is told."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        assert [bus.arrive(note(n), LEFT, number=number) for n, number in enumerate(numbers)] == verdicts
        taken = [n for n, verdict in enumerate(verdicts) if verdict is D]
        assert [message.n for message in await it.until(len(taken), Note)] == taken  # type: ignore[attr-defined]  # notes
        statistics = bus.statistics()
        assert statistics.arrived == verdicts.count(D)
        assert statistics.repeated == verdicts.count(R)
        assert statistics.gaps == verdicts.count(G)
        assert statistics.late == 0


async def test_each_peer_has_numbers_of_its_own() -> None:
    """X3."""
    bus = HandBus(LEFT, RIGHT)
    async with bus:
        assert bus.arrive(note(1), LEFT, number=1) is D
        assert bus.arrive(note(1), RIGHT, number=1) is D
        assert bus.arrive(note(2), LEFT, number=2) is D
        left, right = bus.session(LEFT.incarnation), bus.session(RIGHT.incarnation)
        assert left is not None
        assert right is not None
        assert [left.next_number(), left.next_number(), right.next_number()] == [1, 2, 1]
        assert (left.received, left.sent, right.received, right.sent) == (2, 2, 1, 1)


async def test_a_refused_message_has_its_number() -> None:
    """X3: else what comes behind it would be a gap."""
    bus = HandBus(LEFT, max_buffer_size=1)
    async with bus:
        assert bus.arrive(note(1, target="nobody"), LEFT, number=1) is D
        assert bus.arrive(note(2), LEFT, number=2) is D


async def test_what_comes_of_a_life_that_is_over_is_late() -> None:
    """X4."""
    bus, it = HandBus(LEFT), Plain("it")
    again = Peer("left", "left 2")
    async with bus:
        await bus.subscribe(it)
        assert bus.arrive(note(1), again, number=1) is L
        bus.meet(again)
        bus.lose(LEFT, "restarted")
        assert bus.arrive(note(2), LEFT, number=1) is L
        assert bus.arrive(note(3), again, number=1) is D
        await it.until(1)
        assert bus.statistics().late == 2
    assert it.got == [note(3)]


async def test_a_new_session_begins_with_one() -> None:
    """X3: also with a peer that this one has lost, and meets again."""
    bus = HandBus(LEFT)
    async with bus:
        bus.arrive(note(1), LEFT, number=1)
        bus.lose(LEFT, "left")
        bus.meet(LEFT)
        assert bus.arrive(note(2), LEFT, number=2) is G
        assert bus.arrive(note(1), LEFT, number=1) is D


async def test_those_who_listen_hear_of_each_session_once() -> None:
    """X4."""
    bus = HandBus(LEFT)
    first, second = Listener(bus), Listener(bus)
    async with bus:
        bus.meet(LEFT)
        bus.meet(RIGHT)
        bus.meet(Peer("me", bus.incarnation))
        bus.remove_listener(second)
        bus.lose(FAR, "never met")
        bus.lose(LEFT, "left")
        bus.lose(LEFT, "left")
        bus.report("something is wrong")
        bus.name_lost("one", "right")
        assert bus.peers == (RIGHT,)
        assert bus.lost_to == [LEFT]
    assert first.heard == [
        ("met", LEFT),
        ("met", RIGHT),
        ("lost", LEFT, "left"),
        ("report", "something is wrong"),
        ("name lost", "one", "right"),
        ("lost", RIGHT, "this bus has closed"),
    ]
    assert second.heard == [("met", LEFT), ("met", RIGHT)]


async def test_who_listens_later_hears_of_the_names_that_were_lost_in_this_life() -> None:
    """X5: not of those of a life that is over: all are claimed anew in the next."""
    bus = HandBus(LEFT)
    await bus.subscribe(Plain("one"))
    async with bus:
        bus.name_lost("one", "right")
        bus.name_lost("two", "right")  # nobody here has it
        heard = Listener(bus).heard
        assert heard == [("name lost", "one", "right")]
        bus.end_life("fenced")
        bus.join()
        assert Listener(bus).heard == []


async def test_a_listener_that_leaves_while_it_is_told_keeps_none_from_hearing() -> None:
    bus = HandBus(LEFT)

    class Leaves(Listener):
        def met(self, peer: Peer) -> None:
            super().met(peer)
            bus.remove_listener(self)

    leaves, stays = Leaves(bus), Listener(bus)
    async with bus:
        bus.meet(RIGHT)
    assert leaves.heard == [("met", LEFT)]
    assert stays.heard[:2] == [("met", LEFT), ("met", RIGHT)]


async def test_the_session_is_there_when_the_peer_is_met_and_gone_when_it_is_lost() -> None:
    """X4: so that one can greet it, and nothing goes to it any more."""
    bus = HandBus()
    seen: list[tuple[Peer, ...]] = []

    class Looks(Listener):
        def met(self, peer: Peer) -> None:
            seen.append(bus.peers)
            bus.post_to(note(1), peer)

        def lost(self, peer: Peer, reason: str) -> None:
            seen.append(bus.peers)
            bus.post_to(note(2), peer)

    Looks(bus)
    async with bus:
        bus.meet(LEFT)
        bus.lose(LEFT, "left")
    assert seen == [(LEFT,), ()]
    assert bus.sent == [(note(1), (LEFT,))]


async def test_a_life_ends_for_all_peers_and_another_begins_with_those_that_are_there() -> None:
    """X4: fenced, or after a gap."""
    bus = HandBus(LEFT, RIGHT)
    listener = Listener(bus)
    async with bus:
        first = bus.incarnation
        bus.locate("one", LEFT)
        assert bus.is_alive
        bus.end_life("fenced")
        assert not bus.is_alive
        assert bus.peers == ()
        assert bus.arrive(note(1), LEFT, number=1) is L
        bus.meet(FAR)  # between two lives nobody is met
        assert bus.peers == ()
        bus.join(RIGHT, FAR)
        assert bus.is_alive
        assert bus.incarnation != first
        assert bus.peers == (RIGHT, FAR)
        await bus.send(BusJobUpdateMessage("job", {}, source="worker", target="one"))
        assert bus.sent == []
    assert [kind for kind, *_ in listener.heard] == ["met", "met", "lost", "lost", "met", "met", "lost", "lost"]
    assert listener.heard[2:4] == [("lost", LEFT, "fenced"), ("lost", RIGHT, "fenced")]


async def test_a_life_that_begins_ends_the_one_before_it() -> None:
    """X3: the numbers of one do not go on in the other."""
    bus = HandBus(LEFT)
    listener = Listener(bus)
    async with bus:
        bus.arrive(note(1), LEFT, number=1)
        bus.join(LEFT)
        assert bus.arrive(note(1), LEFT, number=1) is D
    assert [kind for kind, *_ in listener.heard] == ["met", "lost", "met", "lost"]


async def test_a_message_knows_the_peer_that_it_came_from() -> None:
    """X3."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        bus.arrive(note(1), LEFT)
        await bus.send(note(2))
        await it.until(2)
    assert [message.peer for message in it.got] == [LEFT, None]


async def test_a_job_has_less_time_left_by_what_it_was_on_its_way() -> None:
    """X7."""
    bus, it = HandBus(LEFT), Plain("it")
    request = BusJobRequestMessage("1", "do", {}, seconds_left=3.0, source="asker", target="it")
    endless = BusJobRequestMessage("2", "do", {}, source="asker", target="it")
    async with bus:
        await bus.subscribe(it)
        for delay in (0.0, 1.25, 5.0):
            bus.arrive(request, LEFT, delay=delay)
        bus.arrive(endless, LEFT, delay=1.0)
        bus.arrive(alarm(1), LEFT, delay=1.0)
        got = await it.until(4, BusJobRequestMessage)
    assert [message.seconds_left for message in got] == [3.0, 1.75, 0.0, None]  # type: ignore[attr-defined]  # requests
    assert {message.peer for message in got} == {LEFT}


class Calling(list[tuple[Any, ...]]):
    """What a listener hears; the first time, something is done about it."""

    def __init__(self, once: Callable[[], object]) -> None:
        super().__init__()
        self.once = once

    def append(self, heard: tuple[Any, ...]) -> None:
        super().append(heard)
        if len(self) == 1:
            self.once()


@pytest.mark.parametrize("change", ["add", "remove"])
@pytest.mark.parametrize("occasion", ["met", "lost", "report", "name lost"])
async def test_listeners_may_come_and_go_while_others_are_told(occasion: str, change: str) -> None:
    """X4: whoever was there when it happened is told, and nobody else."""
    bus = HandBus(LEFT)
    occasions: dict[str, Callable[[], object]] = {
        "met": lambda: bus.meet(RIGHT),
        "lost": lambda: bus.lose(LEFT, "left"),
        "report": lambda: bus.report("a fault"),
        "name lost": lambda: bus.name_lost("it", "right"),
    }
    added: list[Listener] = []
    async with bus:
        first, second, third = Listener(bus), Listener(bus), Listener(bus)
        changes = {"add": lambda: added.append(Listener(bus)), "remove": lambda: bus.remove_listener(second)}
        second.heard = Calling(changes[change])
        occasions[occasion]()
        assert [len(each.heard) for each in (first, second, third)] == [1, 1, 1]
        assert [each.heard for each in added] == [[]] * (change == "add")
        bus.report("another fault")
        assert [len(each.heard) for each in (first, third, *added)] == [2, 2, *[1] * len(added)]
        assert len(second.heard) == (2 if change == "add" else 1)


async def test_a_listener_hears_of_all_names_that_are_lost_already_though_it_loses_another() -> None:
    """X5: what it does about one of them may have consequences."""
    bus, names = HandBus(LEFT), ("a", "b", "c")
    async with bus:
        for name in names:
            await bus.subscribe(Plain(name))
        for name in names[:2]:
            bus.name_lost(name, "left")
        late = Listener(HandBus())
        late.heard = Calling(lambda: bus.name_lost("c", "left"))
        bus.add_listener(late)
    assert {heard[1] for heard in late.heard if heard[0] == "name lost"} == {*names}
