"""L7, X2, X6: buses with peers: accepting and confirming, deadlines, and sending while there is no connection."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import CancelScope, Event, create_task_group, current_time, sleep, to_thread
from hypothesis import given
from hypothesis import strategies as st

from support.hand_buses import LEFT, RIGHT, HandBus
from support.messages import Note, note
from support.networks import laws
from support.subscribers import Plain
from workerbus import (
    BusCancelMessage,
    BusEndMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobUpdateMessage,
    BusMessage,
    BusUnavailable,
    JobStatus,
    Peer,
    Receipt,
    WireError,
    WrongLoopError,
)
from workerbus.testing import run, settle


def request(target: str = "who") -> BusMessage:
    return BusJobRequestMessage("1", "do", {}, source="asker", target=target)


def update() -> BusMessage:
    return BusJobUpdateMessage("1", {}, source="worker", target="who")


class Sending:
    """A message that is being sent, and what has come of it."""

    def __init__(self, bus: HandBus, message: BusMessage) -> None:
        self.scope = CancelScope()
        self.outcome: Any = "waits"
        self.at: float | None = None
        self._bus, self._message = bus, message

    async def __call__(self) -> None:
        with self.scope:
            try:
                await self._bus.send(self._message)
                self.outcome = "sent"
            except (BusUnavailable, ValueError) as error:
                self.outcome = error
            self.at = current_time()
            return
        self.outcome = "cancelled"


# --- confirming


async def test_a_send_returns_when_its_message_is_stored() -> None:
    """X2: with whatever peer it is stored last."""
    bus, it = HandBus(LEFT, settles=False), Plain("it")
    async with bus, create_task_group() as group:
        await bus.subscribe(it)
        sending = Sending(bus, note(1))
        group.start_soon(sending)
        await settle()
        assert sending.outcome == "waits"
        assert it.got == bus.messages == [note(1)]  # it has gone its way
        bus.receipts[0].settle()
        bus.receipts[0].settle(ValueError("only the first time counts"))
        await settle()
        assert sending.outcome == "sent"
        assert bus.rooms == 0


async def test_a_receipt_that_is_settled_or_none_is_not_waited_for() -> None:
    class NoReceipts(HandBus):
        def transmit(self, *args: Any) -> Receipt | None:
            super().transmit(*args)
            return None

    for bus in (HandBus(LEFT), NoReceipts(LEFT, settles=False)):
        async with bus:
            await bus.send(note(1))
        assert bus.messages == [note(1)]


@pytest.mark.parametrize("make", [request, update])
async def test_what_belongs_to_a_job_is_not_awaited_but_asks_for_room(make: Callable[[], BusMessage]) -> None:
    """X2."""
    bus = HandBus(LEFT, settles=False)
    async with bus, create_task_group() as group:
        await bus.send(make())
        assert bus.rooms == 1
        bus.has_room = Event()
        sending = Sending(bus, make())
        group.start_soon(sending)
        await settle()
        assert len(bus.sent) == 2  # it has its place in line
        assert sending.outcome == "waits"
        bus.has_room.set()
        await settle()
        assert sending.outcome == "sent"


async def test_what_is_posted_waits_for_nothing() -> None:
    """X2."""
    bus = HandBus(LEFT, settles=False)
    bus.has_room = Event()
    async with bus:
        for n in range(3):
            bus.post(note(n))
        assert [message.n for message in bus.messages] == [0, 1, 2]
        assert bus.rooms == 0


async def test_what_the_network_refuses_is_raised_to_whoever_sends_it() -> None:
    """X2: at the send, and before anybody here has it."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        bus.fails = ValueError("it cannot travel")
        with pytest.raises(ValueError, match="cannot travel"):
            await bus.send(note(1))
        await settle()
        assert it.got == []
        assert bus.statistics().transmitted == 0
        await bus.unsubscribe(it)


async def test_what_the_library_posts_and_the_network_refuses_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """X1, J1: who is here gets it; only an answer is raised, for its job has another one then."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        bus.fails = WireError("it is a set", class_name="Note")
        bus.post(note(1))
        assert "could not send Note" in caplog.text
        with pytest.raises(WireError):
            bus.post(BusJobResponseMessage("job", JobStatus.COMPLETED, {}, source="it", target="elsewhere"))
        await settle()
        assert it.got == [note(1)]
        assert bus.statistics().transmitted == 0
        await bus.unsubscribe(it)


async def test_what_has_kept_a_message_from_being_stored_is_raised() -> None:
    """X2."""
    bus = HandBus(LEFT, settles=False)
    async with bus, create_task_group() as group:
        sending = Sending(bus, note(1))
        group.start_soon(sending)
        await settle()
        error = BusUnavailable("bus", "the server is full", maybe_stored=False)
        bus.receipts[0].settle(error)
        await settle()
        assert sending.outcome is error


@pytest.mark.parametrize("written", [False, True])
async def test_a_send_whose_deadline_passes_says_whether_its_message_may_be_stored(*, written: bool) -> None:
    """X2: what was not written leaves the line."""
    bus = HandBus(LEFT, settles=False, send_timeout=3.0)
    async with bus:
        async with create_task_group() as group:
            sending = Sending(bus, note(1))
            group.start_soon(sending)
            await settle()
            bus.receipts[0].written = written
        error = sending.outcome
        assert isinstance(error, BusUnavailable)
        assert isinstance(error, ConnectionError)
        assert error.maybe_stored is written
        assert error.bus == "bus"
        assert "its send_timeout of 3 s was over" in str(error)
        assert sending.at == pytest.approx(3.0)
        assert bus.receipts[0].withdrawn


async def test_the_deadline_holds_whatever_else_is_sent() -> None:
    """X2: what the library posts holds up no send, and neither do other sends."""
    bus = HandBus(LEFT, settles=False, send_timeout=2.0)
    async with bus, create_task_group() as group:
        sends = [Sending(bus, note(n)) for n in range(3)]
        for n, sending in enumerate(sends):
            for _ in range(100):
                bus.post(note(99))
            group.start_soon(sending)
            await sleep(0.5)
            assert n < 3
    assert [sending.at for sending in sends] == pytest.approx([2.0, 2.5, 3.0])
    assert all(isinstance(sending.outcome, BusUnavailable) for sending in sends)


@pytest.mark.parametrize(("room_at", "over_at"), [(1.5, 2.0), (5.0, 5.0)])
async def test_the_deadline_of_a_send_counts_from_its_beginning_though_it_waits_for_room_here(
    room_at: float, over_at: float
) -> None:
    """X2, B9: the time that it has waited for a full lane of this process is not given to the network as well."""
    go = Event()
    bus, slow = HandBus(LEFT, settles=False, send_timeout=2.0, max_buffer_size=1), Plain("slow", on=lambda _: go.wait())
    async with bus, create_task_group() as group:
        await bus.subscribe(slow)
        for n in range(2):
            bus.arrive(note(n), LEFT)
            await settle()
        sending = Sending(bus, note(2))
        group.start_soon(sending)
        await sleep(room_at)
        assert sending.outcome == "waits"
        go.set()
        await slow.until(3)
    assert sending.at == pytest.approx(over_at)
    assert isinstance(sending.outcome, BusUnavailable)


async def test_all_who_wait_for_a_receipt_are_told() -> None:
    """X2: it is settled once, for each of them."""
    receipt = Receipt()
    async with create_task_group() as group:
        for _ in range(3):
            group.start_soon(receipt.wait)
            await settle()
        receipt.settle()
    await receipt.wait()


async def test_a_send_that_is_cancelled_withdraws_its_message() -> None:
    """X2."""
    bus = HandBus(LEFT, settles=False)
    async with bus, create_task_group() as group:
        sending = Sending(bus, note(1))
        group.start_soon(sending)
        await settle()
        assert not bus.receipts[0].withdrawn
        sending.scope.cancel()
        await settle()
        assert sending.outcome == "cancelled"
        assert bus.receipts[0].withdrawn
        bus.receipts[0].settle()  # the transport does not know yet


# --- order


async def _posts(bus: HandBus, message: BusMessage) -> None:
    bus.post(message)


targets = st.sampled_from([None, "here", "far", "who"])


@laws
@given(
    script=st.lists(
        st.tuples(st.sampled_from(["send", "post"]), st.sampled_from([None, "here", "far", "who"])), max_size=12
    ),
    early=st.integers(0, 6),
    settles=st.booleans(),
    seed=st.integers(0, 1_000),
)
def test_one_senders_messages_keep_their_order_wherever_they_go(
    backend: str, script: list[tuple[str, str | None]], early: int, settles: bool, seed: int
) -> None:
    """B2, B4, X6: broadcasts and targeted ones, of the program and of the library, before and after the bus opens."""

    async def main() -> None:
        bus, here = HandBus(LEFT, RIGHT, settles=settles), Plain("here", receives="own")
        await bus.subscribe(here)
        messages = [note(n, target=target) for n, (_, target) in enumerate(script)]

        async with create_task_group() as group:
            for n, (how, _) in enumerate(script[:early]):
                await (bus.send(messages[n]) if how == "send" else _posts(bus, messages[n]))
            async with bus:
                bus.locate("far", RIGHT)
                for n, (how, _) in enumerate(script[early:], early):
                    group.start_soon(bus.send if how == "send" else partial(_posts, bus), messages[n])
                    await settle()
                for receipt in bus.receipts:
                    receipt.settle()
                await settle()
        for peer, reached in ((LEFT, (None, "who")), (RIGHT, (None, "who", "far"))):
            assert [each for each in bus.to(peer) if each.target in reached] == [
                each for each in messages if each.target in reached
            ]
        assert here.got == [each for each in messages if each.target in (None, "here")]

    run(main, backend=backend, seed=seed)


# --- no connection


async def test_what_is_sent_without_a_connection_goes_out_in_order_when_there_is_one() -> None:
    """X2, X3: to those who are there then; those here have it at once."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus, create_task_group() as group:
        await bus.subscribe(it)
        bus.end_life("fenced")
        sends = [Sending(bus, note(n)) for n in range(5)]
        for sending in sends:
            group.start_soon(sending)
            await settle()
        assert bus.sent == []
        assert [message.n for message in it.of(Note)] == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]  # notes
        sends[1].scope.cancel()
        await settle()
        bus.join(RIGHT)
        await bus.send(note(9))
        await settle()
        assert [(message.n, peers) for message, peers in bus.sent] == [(n, (RIGHT,)) for n in (0, 2, 3, 4, 9)]
        assert [sending.outcome for sending in sends] == ["sent", "cancelled", "sent", "sent", "sent"]
        assert len(it.got) == 6  # once each


@pytest.mark.parametrize("make", [BusEndMessage, BusCancelMessage])
async def test_what_stays_in_its_process_waits_for_no_connection(make: Callable[..., BusMessage]) -> None:
    """X9."""
    bus, it = HandBus(LEFT), Plain("it")
    async with bus:
        await bus.subscribe(it)
        bus.end_life("fenced")
        await bus.send(make(source="me"))
        await bus.send(note(1, target="it"))
        await it.until(2)
        assert current_time() == 0
        bus.join()
        assert bus.sent == []


async def test_it_is_stored_when_the_new_connection_has_stored_it() -> None:
    """X2: and its deadline is still that of its send."""
    bus = HandBus(LEFT, settles=False, send_timeout=4.0)
    async with bus, create_task_group() as group:
        bus.end_life("fenced")
        sends = [Sending(bus, note(n)) for n in range(2)]
        for sending in sends:
            group.start_soon(sending)
            await settle()
        await sleep(3)
        bus.join()
        await settle()
        assert [sending.outcome for sending in sends] == ["waits", "waits"]
        bus.receipts[0].settle()
        bus.receipts[1].written = True
        await sleep(2)
        assert sends[0].outcome == "sent"
        assert isinstance(sends[1].outcome, BusUnavailable)
        assert sends[1].outcome.maybe_stored
        assert sends[1].at == pytest.approx(4.0)
        assert bus.receipts[1].withdrawn


async def test_without_a_connection_in_time_it_was_not_stored() -> None:
    """X2."""
    bus = HandBus(LEFT, send_timeout=2.0)
    async with bus:
        bus.end_life("fenced")
        with pytest.raises(BusUnavailable) as caught:
            await bus.send(note(1))
        assert not caught.value.maybe_stored
        assert current_time() == pytest.approx(2.0)
        bus.join()
        assert bus.sent == []


async def test_what_cannot_travel_is_raised_to_who_has_waited_for_a_connection() -> None:
    """X2: and what stands behind it goes out."""

    class Choosy(HandBus):
        def transmit(self, message: BusMessage, peers: Sequence[Peer]) -> Receipt | None:
            if isinstance(message, Note) and message.n % 2:
                raise ValueError(f"{message.n} cannot travel")
            return super().transmit(message, peers)

    bus = Choosy(LEFT)
    async with bus, create_task_group() as group:
        bus.end_life("fenced")
        sends = [Sending(bus, note(n)) for n in (1, 2, 3, 5, 6)]
        for sending in sends:
            group.start_soon(sending)
            await settle()
        bus.join()
        await settle()
    assert [str(each.outcome) for each in sends] == [
        "1 cannot travel", "sent", "3 cannot travel", "5 cannot travel", "sent"
    ]  # fmt: skip
    assert [message.n for message in bus.messages] == [2, 6]


async def test_a_bus_that_closes_lets_nobody_wait_for_a_connection() -> None:
    """L1, X2."""
    bus = HandBus(LEFT)
    async with create_task_group() as group:
        sendings = [Sending(bus, note(n)) for n in (1, 2, 3)]
        async with bus:
            bus.end_life("fenced")
            for sending in sendings:
                group.start_soon(sending)
            await settle()
    for sending in sendings:
        assert isinstance(sending.outcome, BusUnavailable)
        assert not sending.outcome.maybe_stored
        assert "closed" in str(sending.outcome)
        assert sending.at == 0.0


async def test_jobs_go_to_nobody_while_all_sessions_are_over() -> None:
    """X4: they are answered here, since everybody who was known is lost."""
    bus = HandBus(LEFT)
    async with bus:
        bus.locate("who", LEFT)
        bus.end_life("fenced")
        await bus.send(request())
        bus.post(note(1, target="who"))
        bus.post(note(2))
        bus.join(LEFT)
        await settle()
        assert bus.sent == []
        assert bus.statistics().undelivered == 2


# --- other threads


@pytest.mark.parametrize("target", [None, "far", "who"])
def test_a_send_from_another_loop_is_refused(backend: str, target: str | None) -> None:
    """L7: also for what only peers would get."""

    async def main() -> None:
        async with HandBus(LEFT) as bus:
            bus.locate("far", LEFT)

            def elsewhere() -> None:
                anyio.run(bus.send, note(1, target=target), backend=backend)

            with pytest.raises(WrongLoopError):
                await to_thread.run_sync(elsewhere)
            assert bus.sent == []

    anyio.run(main, backend=backend)
