"""X2-X5, X7: networks of buses with peers: what becomes of messages, and of the ends."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from anyio import create_task_group, current_time, sleep, sleep_forever

from support.hand_buses import Listener
from support.leaks import task_ids
from support.messages import Note, note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BusJobRequestMessage,
    BusMessage,
    BusUnavailable,
    JobError,
    NameTakenError,
    Peer,
    PeerBus,
    WorkerRunner,
    job,
)
from workerbus.errors import WireError
from workerbus.testing import PeerFaults, PeerNetwork, run, settle
from workerbus.wire import Wire


@asynccontextmanager
async def open_ends(network: PeerNetwork, *names: str, **options: Any) -> AsyncIterator[list[tuple[PeerBus, Plain]]]:
    """Open ends, each with a subscriber that gets all that passes there; nothing is left of them (L1)."""
    before = task_ids()
    async with AsyncExitStack() as stack:
        ends = []
        for name in names:
            end, plain = network.end(name, **options), Plain(f"at {name}")
            await end.subscribe(plain)
            ends.append((await stack.enter_async_context(end), plain))
        await settle()
        yield ends
    assert task_ids() == before


def numbers(plain: Plain, source: str | None = None) -> list[int]:
    return [message.n for message in plain.of(Note) if source in (None, message.source)]  # type: ignore[attr-defined]  # notes


def peers(bus: PeerBus) -> list[str]:
    return [peer.name for peer in bus.peers]


def kinds(network: PeerNetwork) -> list[str]:
    return [fault.kind for fault in network.records]


# --- no faults


async def test_ends_meet_each_other_and_their_messages_go_across() -> None:
    network = PeerNetwork()
    async with open_ends(network, "left", "right") as [(left, at_left), (right, at_right)]:
        assert (peers(left), peers(right)) == (["right"], ["left"])
        for n in range(5):
            await left.send(note(n))
            await right.send(note(n, target="at left", source="you"))
        await settle()
        assert numbers(at_right, "me") == numbers(at_left, "you") == [0, 1, 2, 3, 4]
        first = next(message for message in at_right.got if message.source == "me")
        assert first.peer == right.peers[0] == Peer("left", left.incarnation)
    assert str(network).splitlines() == [
        "0.00 s  left joins",
        "0.00 s  right joins",
        "0.00 s  right leaves",
        "0.00 s  left leaves",
    ]


async def test_an_end_is_known_by_the_name_of_its_runner_and_jobs_go_across() -> None:
    network = PeerNetwork()
    left, right = network.end("left"), network.end("right")
    async with WorkerRunner(bus=left, name="asker") as asker, running(Helper("b"), bus=right, name="host"):
        assert await asker.job("b", name="echo", payload={"n": 1}) == {"worker": "b", "payload": {"n": 1}}
        assert peers(left) == ["host"]
        assert peers(right) == ["asker"]
        assert network.claims == {"b": "host"}
    assert network.claims == {}


async def test_a_message_is_copied_for_each_peer() -> None:
    """N5: the sender's own does not change."""
    network, sent = PeerNetwork(), note(1)
    async with open_ends(network, "left", "right", "far") as [(left, at_left), (_, at_right), (_, at_far)]:
        await left.send(sent)
        await settle()
        got = [*at_left.got, *at_right.got, *at_far.got]
        assert got == [sent] * 3
        assert len({id(message) for message in got}) == 3
        assert [message.peer is None for message in got] == [True, False, False]


class _Codec:
    """Makes a note bytes."""

    def encode(self, message: BusMessage) -> bytes:
        if not isinstance(message, Note):
            raise ValueError(f"{type(message).__name__} cannot travel")
        return f"{message.source} {message.n}".encode()

    def decode(self, data: bytes) -> BusMessage:
        source, n = data.decode().split()
        return note(int(n), source=f"{source} by wire")


async def test_messages_may_go_through_a_wire() -> None:
    network = PeerNetwork(wire=_Codec())
    async with open_ends(network, "left", "right") as [(left, at_left), (_, at_right)]:
        await left.send(note(1))
        with pytest.raises(ValueError, match="cannot travel"):
            await left.send(BusJobRequestMessage("1", "do", {}, source="me"))
        await settle()
        assert at_right.got == [note(1, source="me by wire")]
        assert at_left.got == [note(1)]


async def test_jobs_go_through_the_wire_and_what_cannot_travel_is_an_error() -> None:
    """X1, J1."""
    network = PeerNetwork(wire=Wire())

    class Odd(Helper):
        @job(name="odd")
        async def odd(self, message: BusJobRequestMessage) -> Any:
            return {"set": {1, 2}}

    left, right = network.end("left"), network.end("right")
    async with WorkerRunner(bus=left, name="asker") as asker, running(Odd("b"), bus=right, name="host"):
        assert await asker.job("b", name="echo", payload={"n": [1, None]}) == {
            "worker": "b",
            "payload": {"n": [1, None]},
        }
        with pytest.raises(WireError, match=r"payload\.n"):
            await asker.job("b", name="echo", payload={"n": {1}})
        with pytest.raises(JobError, match="set"):
            await asker.job("b", name="odd")


# --- messages


async def test_messages_are_on_their_way_for_as_long_as_was_drawn_and_keep_their_order() -> None:
    """X2: and a job has less time left by it (X7)."""
    network = PeerNetwork(seed=3, faults=PeerFaults(delay=(0.5, 2.0)))
    async with open_ends(network, "left", "right") as [(left, _), (_, at_right)]:
        begun = current_time()
        for n in range(10):
            await left.send(note(n))
        assert current_time() == begun  # they are stored
        await at_right.until(1)
        assert 0.5 <= current_time() - begun <= 2.0
        await at_right.until(10)
        assert current_time() - begun <= 2.0
        assert numbers(at_right) == list(range(10))
        request = BusJobRequestMessage("1", "do", {}, seconds_left=10.0, source="me")
        begun = current_time()
        await left.send(request)
        [got] = await at_right.until(1, BusJobRequestMessage)
        assert got.seconds_left == pytest.approx(10.0 - (current_time() - begun))  # type: ignore[attr-defined]  # a request
    assert set(kinds(network)) == {"joined", "delayed", "left"}


async def test_a_send_returns_when_its_message_is_stored() -> None:
    """X2."""
    network = PeerNetwork(faults=PeerFaults(store=(1.0, 1.0), delay=(2.0, 2.0)))
    async with open_ends(network, "left", "right") as [(left, _), (_, at_right)]:
        await left.send(note(1))
        assert current_time() == pytest.approx(1.0)
        assert at_right.got == []
        await at_right.until(1)
        assert current_time() == pytest.approx(3.0)


async def test_each_message_is_stored_as_was_drawn_for_it() -> None:
    """X2: and one after the other."""
    network, took = PeerNetwork(seed=3, faults=PeerFaults(store=1.0)), list[float]()
    async with open_ends(network, "left", "right") as [(left, _), (_, at_right)]:
        for n in range(8):
            begun = current_time()
            await left.send(note(n))
            took.append(round(current_time() - begun, 6))
        await settle()
        assert numbers(at_right) == list(range(8))
    assert len(set(took)) == 8


async def test_what_is_not_stored_in_time_is_never_stored() -> None:
    """X2: and takes no number; what the library posts waits behind it, and is not dropped."""
    network = PeerNetwork(faults=PeerFaults(store=(3.0, 3.0)))
    async with open_ends(network, "left", "right", send_timeout=2.0) as [(left, _), (_, at_right)]:
        left.post(note(1))
        with pytest.raises(BusUnavailable) as caught:
            await left.send(note(2))
        left.post(note(3))
        await at_right.until(2)
        await sleep(5)
        assert not caught.value.maybe_stored
        assert numbers(at_right) == [1, 3]
        assert "gap" not in kinds(network)


async def test_a_send_may_never_learn_that_its_message_was_stored() -> None:
    """X2."""
    network = PeerNetwork(faults=PeerFaults(unconfirmed=1.0))
    async with open_ends(network, "left", "right", send_timeout=2.0) as [(left, _), (_, at_right)]:
        with pytest.raises(BusUnavailable) as caught:
            await left.send(note(1))
        assert caught.value.maybe_stored
        assert numbers(at_right) == [1]
    assert "the Note of 'me' to all is stored, and its sender does not learn that" in str(network)


async def test_all_who_wait_to_learn_of_their_messages_are_told_when_the_end_closes() -> None:
    """X2: that these may have been stored."""
    network, told = PeerNetwork(faults=PeerFaults(unconfirmed=1.0)), list[tuple[int, bool, float]]()
    async with create_task_group() as tasks, open_ends(network, "right"):
        async with network.end("left") as left:

            async def send(n: int) -> None:
                with pytest.raises(BusUnavailable) as caught:
                    await left.send(note(n))
                told.append((n, caught.value.maybe_stored, current_time()))

            for n in range(3):
                tasks.start_soon(send, n)
            await sleep(1)
            assert not told
        await settle()
    assert sorted(told) == [(n, True, 1.0) for n in range(3)]


async def test_a_message_that_arrives_twice_is_taken_once() -> None:
    """X3."""
    network = PeerNetwork(faults=PeerFaults(duplicate=1.0, delay=1.0))
    async with open_ends(network, "left", "right") as [(left, _), (right, at_right)]:
        for n in range(10):
            await left.send(note(n))
        await sleep(5)
        assert numbers(at_right) == list(range(10))
        statistics = right.statistics()
        assert (statistics.repeated, statistics.gaps, statistics.late) == (10, 0, 0)
    assert "the Note of 'me' to all arrives twice at right" in str(network)


@pytest.mark.parametrize("more", [False, True])
async def test_a_message_that_is_lost_ends_the_life_of_its_receiver(*, more: bool) -> None:
    """X3: found out with the next message, or within a beat; it meets all others anew, and they it."""
    network, gaps = PeerNetwork(), []
    async with open_ends(network, "left", "right", "far") as [(left, _), (right, at_right), (far, _)]:
        right.add_event_handler("on_gap", lambda _, text: gaps.append(text))
        before, heard = right.incarnation, [Listener(end) for end in (left, right, far)]
        network.lose("left", "right")
        await left.send(note(1))
        if more:
            await left.send(note(2))
            await settle()
            assert current_time() == 0
        else:
            await sleep(2.0)
        await left.send(note(3))
        await right.send(note(4))
        await settle()
        assert right.incarnation != before
        assert sorted(numbers(at_right)) == [3, 4]
        assert gaps == ["has lost messages of left"]
        assert [kind for kind, *_ in heard[0].heard] == ["lost", "met"]
        assert [kind for kind, *_ in heard[1].heard] == ["report", "lost", "lost", "met", "met"]
        assert heard[0].heard == heard[2].heard
        assert heard[0].heard[0] == ("lost", Peer("right", before), "has lost messages of left")
    story = str(network)
    assert "the Note of 'me' to all is lost on its way to right" in story
    assert "right has lost messages of left, and begins another life" in story


async def test_as_many_messages_are_lost_as_were_to_be_on_each_way() -> None:
    """X3: the first ones, whoever sends in between."""
    network = PeerNetwork()
    async with open_ends(network, "left", "right", "far") as [(left, _), (right, _), (far, _)]:
        for source, destination in (("left", "right"), ("left", "right"), ("left", "far"), ("far", "right")):
            network.lose(source, destination)
        for n in range(3):
            await left.send(note(n))
            await far.send(note(n))
            await right.send(note(n))
        await settle()
    ways = [record.text.rpartition("on its way to ")[2] for record in network.records if record.kind == "lost"]
    assert sorted(ways) == ["far", "right", "right", "right"]


async def test_that_a_message_was_lost_in_a_split_is_found_out_behind_it() -> None:
    """X3: also of one who joined meanwhile, who is met first."""
    network = PeerNetwork(lease=1.0, beat=0.5)
    async with open_ends(network, "left", "right") as [(left, _), (right, _)]:
        network.split("left", "right", seconds=5.0)
        network.fence("left")
        await sleep(1)
        before = right.incarnation
        network.lose("left", "right")
        await left.send(note(1))
        await sleep(3.9)
        assert right.incarnation == before
        await sleep(0.2)
        assert right.incarnation != before
        assert peers(left) == ["right"]
        assert peers(right) == ["left"]


async def test_messages_are_lost_as_a_seed_says() -> None:
    network = PeerNetwork(seed=1, faults=PeerFaults(lose=0.3), lease=1.0, beat=0.25)
    async with open_ends(network, "left", "right") as [(left, _), (_, at_right)]:
        for n in range(30):
            await left.send(note(n))
            await sleep(0.5)
        assert 10 < len(numbers(at_right)) < 30
        assert kinds(network).count("lost") == kinds(network).count("gap") == 30 - len(numbers(at_right))


async def test_what_is_spared_meets_no_fault_and_keeps_its_place() -> None:
    network = PeerNetwork(faults=PeerFaults(delay=(1.0, 1.0), duplicate=1.0, spare=lambda message: message.n % 2))  # type: ignore[attr-defined]  # notes
    async with open_ends(network, "left", "right") as [(left, _), (right, at_right)]:
        await left.send(note(1))
        await at_right.until(1)
        assert current_time() == 0
        await left.send(note(2))
        await left.send(note(3))
        await at_right.until(3)
        assert current_time() == pytest.approx(1.0)
        assert numbers(at_right) == [1, 2, 3]
        await sleep(2)
        assert right.statistics().repeated == 1


async def test_a_peer_that_has_no_room_for_ever_more_messages_begins_another_life() -> None:
    """X7."""
    network = PeerNetwork()
    async with open_ends(network, "left", "right") as [(left, _), *_]:
        small, stuck = network.end("small", max_buffer_size=1, max_arrivals=3), Plain("stuck", on=_hangs)
        async with small:
            await small.subscribe(stuck)
            await settle()
            before = small.incarnation
            for n in range(6):
                await left.send(note(n))
                await settle()
            assert small.incarnation != before
            assert sorted(peers(small)) == ["left", "right"]
            assert "small has no room for more messages of left, and begins another life" in str(network)


async def _hangs(_: BusMessage) -> None:
    await sleep_forever()


# --- splits


async def test_a_split_holds_back_what_is_sent_and_loses_nobody() -> None:
    """X4."""
    network = PeerNetwork(lease=1.0, beat=0.5)
    async with open_ends(network, "left", "right", "far") as [(left, _), (right, at_right), (_, at_far)]:
        heard = Listener(right)
        network.split("left", "right", seconds=5.0)
        for n in range(3):
            await left.send(note(n))
        await sleep(4.9)
        assert numbers(at_far) == [0, 1, 2]
        assert numbers(at_right) == []
        await sleep(0.2)
        assert numbers(at_right) == [0, 1, 2]
        assert heard.heard == []
    assert "0.00 s  left and right are split for 5 s" in str(network)
    assert "5.00 s  left and right are together again" in str(network)


@pytest.mark.parametrize("first", [5.0, 1.0])
async def test_of_two_splits_each_ends_in_its_time(first: float) -> None:
    """X4: whichever began first."""
    network, second = PeerNetwork(), 6.0 - first
    async with open_ends(network, "left", "right", "far") as [(left, _), (_, at_right), (_, at_far)]:
        network.split("left", "right", seconds=first)
        network.split("left", "far", seconds=second)
        await left.send(note(1))
        for plain, seconds in sorted([(at_right, first), (at_far, second)], key=lambda each: each[1]):
            assert numbers(plain) == []
            await plain.until(1)
            assert current_time() == seconds


async def test_a_split_lasts_until_it_is_healed() -> None:
    network = PeerNetwork()
    async with open_ends(network, "left", "right") as [(left, _), (_, at_right)]:
        network.split()
        await left.send(note(1))
        await sleep(15)
        assert numbers(at_right) == []
        network.heal()
        await at_right.until(1)


async def test_what_was_to_be_lost_arrives_when_all_is_healed() -> None:
    network = PeerNetwork()
    async with open_ends(network, "left", "right") as [(left, _), (_, at_right)]:
        network.lose("left", "right")
        network.heal()
        await left.send(note(1))
        await at_right.until(1)


async def test_a_message_may_begin_a_split() -> None:
    network = PeerNetwork(faults=PeerFaults(split=1.0, split_seconds=(2.0, 2.0)))
    async with open_ends(network, "left", "right") as [(left, _), (right, at_right)]:
        await left.send(note(1))
        await left.send(note(2))
        await right.send(note(3))
        await at_right.until(3)
        assert current_time() == pytest.approx(2.0)
        assert kinds(network).count("split") == 1  # one at a time


# --- lives


async def test_an_end_that_is_declared_lost_learns_so_and_meets_everybody_anew() -> None:
    """X4: what it sends meanwhile is late, and nothing that was for it arrives."""
    network, fenced = PeerNetwork(seed=2), []
    async with open_ends(network, "left", "right") as [(left, at_left), (right, at_right)]:
        left.add_event_handler("on_fenced", lambda _, reason: fenced.append((current_time(), reason)))
        heard, before = [Listener(end) for end in (left, right)], left.incarnation
        await left.send(note(1))
        network.fence("left")
        await left.send(note(2))
        await settle()
        await right.send(note(3))
        assert peers(right) == []
        assert peers(left) == ["right"]
        await sleep(2.0)
        await left.send(note(4))
        await settle()
        assert left.incarnation != before
        assert peers(right) == ["left"]
        assert peers(left) == ["right"]
        assert numbers(at_right) == [1, 3, 4]
        assert numbers(at_left) == [1, 2, 4]
        assert right.statistics().late == 1
        [(at, reason)] = fenced
        assert reason == "learns that it was declared lost"
        assert 0 < at < 2.0
        assert [kind for kind, *_ in heard[0].heard] == ["report", "lost", "met"]
        assert [kind for kind, *_ in heard[1].heard] == ["lost", "met"]
        assert heard[1].heard[0] == ("lost", Peer("left", before), "its lease is over")


async def test_a_loss_is_told_behind_all_that_the_lost_one_has_sent() -> None:
    """X4."""
    network = PeerNetwork(faults=PeerFaults(delay=(3.0, 3.0)))
    async with open_ends(network, "left", "right") as [(left, _), (right, at_right)]:
        order: list[str] = []
        Listener(right).lost = lambda peer, reason: order.append("lost")  # type: ignore[method-assign]  # listened to by hand
        right.add_tap(lambda message: order.append("message"))
        await left.send(note(1))
        await left.send(note(2))
        network.fence("left")
        await sleep(4)
        assert order == ["message", "message", "lost"]
        assert numbers(at_right) == [1, 2]


async def test_what_comes_once_more_when_its_senders_life_is_over_is_dropped() -> None:
    """X4."""
    network = PeerNetwork(faults=PeerFaults(late=1.0))
    async with open_ends(network, "left", "right") as [(left, _), (right, at_right)]:
        for n in range(3):
            await left.send(note(n))
        network.fence("left")
        await sleep(3)
        assert numbers(at_right) == [0, 1, 2]
        assert right.statistics().late == 3
    assert "the Note of 'me' to all will arrive at right once more when its sender's life is over" in str(network)


async def test_a_message_may_have_its_sender_declared_lost() -> None:
    network = PeerNetwork(faults=PeerFaults(fence=1.0))
    async with open_ends(network, "left", "right") as [(left, _), (right, at_right)]:
        await left.send(note(1))
        network.faults = PeerFaults()
        await sleep(3)
        assert numbers(at_right) == []
        assert right.statistics().late == 1
        assert peers(right) == ["left"]


async def test_a_message_may_be_the_last_one_of_its_process() -> None:
    """X4: it has arrived, and nothing comes behind it."""
    network = PeerNetwork()
    async with open_ends(network, "right") as [(right, at_right)], create_task_group() as group:
        group.start_soon(network.run, "left", _sends)
        await sleep(1.5)
        network.faults = PeerFaults(kill=1.0)
        await sleep(network.lease + network.beat + 2)
        assert numbers(at_right) == [0, 1, 2]
        assert not right.peers
        assert kinds(network) == ["joined", "joined", "killed"]


async def test_a_message_that_is_stored_later_dies_with_its_process() -> None:
    """X4."""
    network = PeerNetwork(faults=PeerFaults(kill=1.0, store=(1.0, 1.0)))
    async with open_ends(network, "right") as [(_, at_right)]:
        await network.run("left", _sends)
        await sleep(network.lease)
        assert numbers(at_right) == []


async def _sends(end: PeerBus) -> None:
    async with end:
        n = 0
        while True:
            await end.send(note(n, source=end.incarnation))
            n += 1
            await sleep(1)


async def test_a_process_that_is_killed_is_gone_without_a_word_and_its_lease_tells() -> None:
    """X4."""
    network = PeerNetwork(lease=10.0, beat=2.0)
    async with open_ends(network, "right") as [(right, at_right)], create_task_group() as group:
        heard = Listener(right)
        done: list[Any] = []

        async def process() -> None:
            done.append(await network.run("left", _sends))

        group.start_soon(process)
        await sleep(3.5)
        network.kill("left")
        network.kill("left")
        await settle()
        assert done == [None]
        got = len(at_right.got)
        await sleep(9.9)
        assert [kind for kind, *_ in heard.heard] == ["met"]
        await sleep(2.1)
        assert [kind for kind, *_ in heard.heard] == ["met", "lost"]
        assert heard.heard[-1][2] == "its lease is over"
        assert len(at_right.got) == got == 4
        assert kinds(network) == ["joined", "joined", "killed"]


async def test_a_process_that_is_started_again_is_another_one_at_once() -> None:
    """X4: under the same name; that the earlier one is gone is told before the new one is met."""
    network = PeerNetwork(faults=PeerFaults(late=1.0))
    async with open_ends(network, "right") as [(right, at_right)], create_task_group() as group:
        heard = Listener(right)
        for n in range(3):
            group.start_soon(network.run, "left", _sends)
            await sleep(1.5)
            assert [kind for kind, *_ in heard.heard] == ["met", "lost"] * n + ["met"]
            network.kill("left")
        await sleep(15)
        assert [each[2] for each in heard.heard[1::2]] == ["restarted", "restarted", "its lease is over"]
        assert len({message.source for message in at_right.got}) == 3
        assert [message.n for message in at_right.of(Note)] == [0, 1] * 3  # type: ignore[attr-defined]  # notes
        assert right.statistics().late == 6


async def test_an_end_is_met_in_another_life_when_all_of_the_earlier_one_has_come() -> None:
    """X4: one order, whatever was on its way for how long."""
    network = PeerNetwork(faults=PeerFaults(delay=(3.0, 3.0)))
    async with open_ends(network, "left", "right") as [(left, _), (right, at_right)]:
        heard = Listener(right)
        await left.send(note(1))
        network.fence("left")
        await sleep(2.5)
        assert heard.heard == []
        await sleep(1)
        assert [kind for kind, *_ in heard.heard] == ["lost", "met"]
        assert numbers(at_right) == [1]


async def test_who_joins_meets_one_that_is_dead_and_learns_that_it_is() -> None:
    """X4."""
    network = PeerNetwork(lease=10.0, beat=2.0)
    async with create_task_group() as group:
        group.start_soon(network.run, "left", _sends)
        await sleep(1)
        network.kill("left")
        await sleep(5)
        async with open_ends(network, "right") as [(right, _)]:
            assert peers(right) == ["left"]
            await sleep(8)
            assert peers(right) == []


async def test_a_process_that_ends_by_itself_returns_what_it_has_to_say() -> None:
    network = PeerNetwork()

    async def main(end: PeerBus) -> str:
        async with end:
            return end.name

    assert await network.run("left", main) == "left"
    assert await network.run("left", main, send_timeout=1.0) == "left"
    assert kinds(network) == ["joined", "left"] * 2


async def test_two_living_ends_have_not_one_name() -> None:
    network = PeerNetwork()
    network.end("left")
    with pytest.raises(NameTakenError):
        network.end("left")
    with pytest.raises(NameTakenError):
        await network.run("left", _sends)
    network.kill("left")
    network.end("left")


# --- names


async def test_a_workers_name_is_one_processs_until_that_is_gone() -> None:
    """X5."""
    network = PeerNetwork(lease=10.0, beat=2.0)
    here = Helper("b")

    async def host(end: PeerBus) -> None:
        async with running(Helper("b"), bus=end, name="host"):
            await sleep_forever()

    async with WorkerRunner(bus=network.end("left"), name="asker") as asker, create_task_group() as group:
        group.start_soon(network.run, "right", host)
        await sleep(1)
        with pytest.raises(NameTakenError, match="'host' has it"):
            await asker.add_workers(Helper("b"))
        network.kill("right")
        await sleep(5)
        with pytest.raises(NameTakenError):
            await asker.add_workers(Helper("b"))
        await sleep(10)
        await asker.add_workers(here)
        assert network.claims == {"b": "asker"}
        await here.stop()
        assert network.claims == {}


async def test_who_was_fenced_learns_which_names_are_anothers_now() -> None:
    """X5: each of them."""
    network = PeerNetwork(seed=5)
    async with open_ends(network, "left", "right") as [(left, _), (right, _)]:
        heard = Listener(left)
        mine, theirs = ([Helper(name) for name in ("a", "b")] for _ in range(2))
        for worker in mine:
            await left.subscribe(worker)
        network.fence("left")
        for worker in theirs:
            await right.subscribe(worker)
        await left.subscribe(Helper("c"))  # it does not know yet
        await sleep(3)
        assert [each for each in heard.heard if each[0] == "name lost"] == [
            ("name lost", name, "right") for name in ("a", "b")
        ]
        assert network.claims == {"a": "right", "b": "right", "c": "left"}
        for bus, workers in ((left, mine), (right, theirs)):
            for worker in workers:
                await bus.unsubscribe(worker)


async def test_the_names_of_all_whose_leases_are_over_are_free() -> None:
    """X4, X5: of several that were killed at once, whoever looks first."""
    network, workers = PeerNetwork(beat=0.001), [Helper(name) for name in ("a", "b", "c")]
    async with open_ends(network, "right"), create_task_group() as tasks:

        async def process(end: PeerBus) -> None:
            async with end:
                await end.subscribe(workers.pop())
                await sleep_forever()

        for name in ("one", "two", "three"):
            tasks.start_soon(network.run, name, process)
        await settle()
        assert sorted(network.claims) == ["a", "b", "c"]
        for name in ("one", "two", "three"):
            network.kill(name)
        await sleep(network.lease + network.beat)
        assert network.claims == {}


# --- mistakes


def test_what_is_no_plan_and_no_time_is_refused() -> None:
    """N8."""
    with pytest.raises(TypeError, match="faults is a PeerFaults"):
        PeerNetwork(faults=0.5)  # type: ignore[arg-type]  # the point of the test
    network = PeerNetwork()
    with pytest.raises(TypeError, match="faults is a PeerFaults"):
        network.faults = None  # type: ignore[assignment]  # the point of the test
    for lease, beat in ((0.0, 0.0), (1.0, 1.0), (1.0, 2.0), (float("inf"), 1.0)):
        with pytest.raises(ValueError, match="lease must be longer than beat"):
            PeerNetwork(lease=lease, beat=beat)
    for wrong in (-1.0, (2.0, 1.0)):
        with pytest.raises(ValueError, match="delay must be seconds"):
            PeerFaults(delay=wrong)
    with pytest.raises(ValueError, match="lose is a probability"):
        PeerFaults(lose=2.0)


CALLS: list[Callable[[PeerNetwork], object]] = [
    lambda network: network.kill("lef"),
    lambda network: network.fence("lef"),
    lambda network: network.lose("lef", "right"),
    lambda network: network.lose("right", "lef"),
    lambda network: network.split("lef", "right"),
]


@pytest.mark.parametrize("call", CALLS)
def test_an_end_that_there_is_not_is_refused(call: Callable[[PeerNetwork], object]) -> None:
    """N8."""
    network = PeerNetwork()
    network.end("left")
    network.end("right")
    with pytest.raises(ValueError, match=r"the network has no end 'lef'.*'left'"):
        call(network)


async def test_a_split_takes_a_time() -> None:
    """N8."""
    network = PeerNetwork()
    network.end("left")
    with pytest.raises(ValueError, match="seconds must be a number"):
        network.split("left", seconds=-1.0)
    with pytest.raises(ValueError, match="needs two sides"):
        network.split("left")


# --- seeds and stories


def _story(backend: str, seed: int, schedule: int) -> str:
    plan = PeerFaults(delay=0.5, store=0.2, duplicate=0.3, lose=0.1, late=0.2, split=0.05, fence=0.05)

    async def main() -> str:
        network = PeerNetwork(seed=seed, faults=plan)
        async with open_ends(network, "left", "right") as [(left, _), (right, _)]:
            for n in range(20):
                await left.send(note(n))
                await right.send(note(n, source="you"))
                await sleep(0.3)
        return str(network)

    return run(main, backend=backend, seed=schedule)


def test_made_up_names_of_runners_are_in_no_story(backend: str) -> None:
    """Else it would be another one each time."""

    async def main() -> str:
        network = PeerNetwork()
        left, right = network.end("left"), network.end("right")
        async with WorkerRunner(bus=left), running(Helper("b"), bus=right):
            await settle()
            network.lose("left", "right")
            network.fence("left")
            await sleep(3)
            await left.send(note(1))
            await left.send(note(2))
            await sleep(3)
        return str(network)

    story = run(main, backend=backend)
    assert "right has lost messages of left" in story
    assert story == run(main, backend=backend)


def test_the_same_seed_tells_the_same_story(backend: str) -> None:
    assert _story(backend, 1, 0) == _story(backend, 1, 0)
    assert _story(backend, 1, 0) != _story(backend, 2, 0)
    assert "seconds" not in _story(backend, 1, 0)


def test_a_program_that_hangs_is_told_what_was_kept_from_arriving(backend: str) -> None:
    """The last of the story stands in the report."""

    async def main() -> None:
        network = PeerNetwork(lease=1.0, beat=0.5)
        async with open_ends(network, "left", "right") as [(_, at_left), _]:
            network.fence("right")
            await sleep(2)
            await at_left.until(1)

    with pytest.raises(Exception, match="right is declared lost"):
        run(main, backend=backend)
