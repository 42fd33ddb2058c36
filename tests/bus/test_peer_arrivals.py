"""B9, X7: buses with peers whose lanes are bounded: what comes never waits in anybody's way."""

import pytest
from anyio import Event, WouldBlock, create_task_group, current_time, sleep

from support.hand_buses import LEFT, RIGHT, HandBus, Listener
from support.messages import Alarm, Note, alarm, note
from support.subscribers import Plain
from workerbus import Arrival, BusJobUpdateMessage, BusMessage, BusUnavailable
from workerbus.testing import settle

D, O = Arrival.DELIVERED, Arrival.OVERFLOW  # noqa: E741 - as in the tables of sessions


class Slow(Plain):
    """Handles no note before `go` is set."""

    def __init__(self, name: str) -> None:
        super().__init__(name, receives="own", on=self._wait)
        self.go = Event()

    async def _wait(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await self.go.wait()


def numbers(plain: Plain, kind: type[BusMessage] = Note) -> list[int]:
    return [message.n for message in plain.of(kind)]  # type: ignore[attr-defined]  # notes or alarms


async def test_a_full_lane_holds_up_nobody_elses_messages_and_no_system_message() -> None:
    """X7."""
    bus, slow, quick = HandBus(LEFT, RIGHT, max_buffer_size=1), Slow("slow"), Plain("quick", receives="own")
    async with bus:
        await bus.subscribe(slow)
        await bus.subscribe(quick)
        for n in range(1, 6):
            assert bus.arrive(note(n), LEFT, number=n) is D
            await settle()
        assert bus.arrive(alarm(6), LEFT, number=6) is D
        assert bus.arrive(note(7, target="quick"), RIGHT) is D
        await settle()
        assert numbers(quick) == [1, 2, 3, 4, 5, 7]
        assert numbers(slow, Alarm) == [6]
        assert numbers(slow) == [1]
        assert bus.statistics().waiting == 3  # one is being handled, and one is in the lane
        slow.go.set()
        await slow.until(5, Note)
        assert numbers(slow) == [1, 2, 3, 4, 5]
        assert bus.statistics().waiting == 0


async def test_what_finds_room_again_does_not_overtake_what_waits_in_line() -> None:
    """B2, X7."""
    bus, slow = HandBus(LEFT, max_buffer_size=1), Slow("slow")
    async with bus:
        await bus.subscribe(slow)
        for n in range(3):
            bus.arrive(note(n), LEFT)
        await settle()
        slow.go.set()
        for n in range(3, 20):
            bus.arrive(note(n), LEFT)
        await slow.until(20)
    assert numbers(slow) == list(range(20))


async def test_a_peer_whose_messages_wait_beyond_the_limit_ends_the_life_of_the_bus() -> None:
    """X7: and not before; what is in line is still handed out, and other peers' messages are."""
    bus, slow = HandBus(LEFT, RIGHT, max_buffer_size=1, max_arrivals=3), Slow("slow")
    listener = Listener(bus)
    async with bus:
        await bus.subscribe(slow)
        bus.arrive(note(0), LEFT)
        await settle()
        assert [bus.arrive(note(n), LEFT) for n in range(1, 5)] == [D, D, D, D]
        assert [bus.arrive(note(n), RIGHT) for n in range(10, 13)] == [D, D, D]
        assert [peer.name for peer in bus.peers] == ["left", "right"]
        assert bus.arrive(note(5), LEFT) is O
        assert O.ends_life
        assert Arrival.GAP.ends_life
        assert not D.ends_life
        assert [peer.name for peer in bus.peers] == ["right"]
        assert bus.arrive(note(6), LEFT) is Arrival.LATE
        [_, _, report, lost] = listener.heard
        assert report[0] == "report"
        assert report[1].startswith("the session with peer 'left' is over: more than 3 of its messages wait here")
        assert lost[:2] == ("lost", LEFT)
        slow.go.set()
        await slow.until(9)
    assert numbers(slow) == [0, 1, 2, 3, 4, 10, 11, 12, 5]


async def test_what_has_found_room_counts_no_more() -> None:
    """X7."""
    bus, slow = HandBus(LEFT, max_buffer_size=1, max_arrivals=3), Slow("slow")
    async with bus:
        await bus.subscribe(slow)
        for first in (0, 5, 10):
            slow.go = Event()
            for n in range(first, first + 5):
                assert bus.arrive(note(n), LEFT) is D
                await settle()
            slow.go.set()
            await slow.until(first + 5)
    assert numbers(slow) == list(range(15))


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_message_for_several_full_subscribers_waits_once_for_each(place: int) -> None:
    """X7: wherever one stands among them that has room."""
    bus, one, two = HandBus(LEFT, max_buffer_size=1, max_arrivals=3), Slow("one"), Slow("two")
    everybody: list[Plain] = [one, two]
    everybody.insert(place, Plain("three"))
    async with bus:
        for each in everybody:
            await bus.subscribe(each)
        bus.arrive(note(0), LEFT)
        await settle()
        for n in (1, 2):
            assert bus.arrive(note(n), LEFT) is D
            await settle()  # so that the one that has room goes on having it
        assert bus.statistics().waiting == 2
        assert bus.arrive(note(3), LEFT) is O


@pytest.mark.parametrize("closes", [False, True])
async def test_what_waits_for_a_subscriber_that_leaves_counts_no_more(*, closes: bool) -> None:
    """X7, R9."""
    bus = HandBus(LEFT, max_buffer_size=1, max_arrivals=3)
    for _ in range(4):
        async with bus:
            slow = Slow("slow")
            await bus.subscribe(slow)
            bus.arrive(note(0), LEFT)
            await settle()
            assert [bus.arrive(note(n), LEFT) for n in range(1, 5)] == [D] * 4
            assert bus.statistics().waiting == 3
            if not closes:
                slow.go.set()
                await bus.unsubscribe(slow)
                assert bus.statistics().waiting == 0
                await settle()
                assert numbers(slow) == [0]
        if closes:
            await bus.unsubscribe(slow)


async def test_what_was_let_in_is_not_kept() -> None:
    """R9: a session that lasts for long, with a subscriber that is mostly a little behind."""
    bus, slow = HandBus(LEFT, max_buffer_size=1), Plain("slow", receives="own")
    async with bus:
        await bus.subscribe(slow)
        for n in range(500):
            for each in range(3):
                bus.arrive(note(3 * n + each), LEFT)
            await slow.until(3 * n + 3)
        session = bus.session(LEFT.incarnation)
        assert session is not None
        assert len(session._line) <= 70
        assert bus.statistics().waiting == 0


async def test_a_subscriber_that_sends_a_broadcast_to_its_own_full_lane_sends_it_to_nobody() -> None:
    """B9: peers have not got it either."""
    bus, outcomes = HandBus(LEFT, max_buffer_size=1), []

    async def floods(message: BusMessage) -> None:
        if message.source == "me":
            return
        for n in range(3):
            try:
                await bus.send(note(n))
                outcomes.append("sent")
            except WouldBlock:
                outcomes.append("would block")

    it = Plain("it", on=floods)
    async with bus:
        await bus.subscribe(Plain("first"))
        await bus.subscribe(it)
        await bus.send(note(0, source="other"))
        await settle()
    assert outcomes == ["sent", "would block", "would block"]
    assert len(bus.sent) == 2


async def test_a_sender_here_waits_for_room_and_peers_do_not_wait_for_it() -> None:
    """B9: they have the message at once."""
    bus, slow = HandBus(LEFT, max_buffer_size=1), Slow("slow")
    async with bus, create_task_group() as group:
        await bus.subscribe(slow)
        done: list[int] = []

        async def sends() -> None:
            for n in range(4):
                await bus.send(note(n))
                done.append(n)

        group.start_soon(sends)
        await settle()
        assert done == [0, 1]
        assert [message.n for message in bus.messages] == [0, 1, 2]
        slow.go.set()
        await slow.until(4)
    assert numbers(slow) == [0, 1, 2, 3]


async def test_the_time_of_a_send_goes_by_while_it_waits_for_room() -> None:
    """B9, X2: send_timeout is counted from the send on."""
    bus, slow = HandBus(LEFT, max_buffer_size=1, settles=False, send_timeout=2.0), Slow("slow")
    async with bus, create_task_group() as group:
        await bus.subscribe(slow)
        for n in range(2):
            await bus.send(note(n, "slow"))
        begun = current_time()

        async def make_room() -> None:
            await sleep(1.5)
            slow.go.set()

        group.start_soon(make_room)
        with pytest.raises(BusUnavailable):
            await bus.send(note(2))
        assert current_time() - begun == pytest.approx(2.0)
    assert numbers(slow) == [0, 1, 2]


async def test_what_belongs_to_a_job_that_one_has_asked_for_waits_for_no_room() -> None:
    """B9, X7."""
    bus, slow = HandBus(LEFT, max_buffer_size=1), Slow("slow")
    async with bus:
        await bus.subscribe(slow)
        for n in range(3):
            bus.arrive(note(n), LEFT)
        await settle()
        bus.arrive(BusJobUpdateMessage("1", {}, source="worker", target="slow"), LEFT)
        assert bus.statistics().waiting == 1
        assert bus.statistics().subscribers["slow"].depth == 2
