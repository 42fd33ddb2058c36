"""X5: buses with peers: whose a worker's name is."""

from typing import Any

import pytest
from anyio import CancelScope, Event, create_task_group, current_time

from support.hand_buses import LEFT, HandBus
from support.messages import note
from support.subscribers import Plain
from support.workers import Helper
from workerbus import BusUnavailable, NameTakenError, WorkerRunner
from workerbus.bus import BusSubscriber
from workerbus.bus._inbox import InboxHost, PlainInbox, make_inbox
from workerbus.testing import settle


class Unique(Plain):
    """A plain subscriber whose name is unique among all processes, as that of a worker is."""


class _UniqueInbox(PlainInbox):
    claims = True


@make_inbox.register
def _(unique: Unique, bus: InboxHost) -> PlainInbox:
    return _UniqueInbox(unique, bus)


async def test_a_name_is_claimed_before_it_is_subscribed_and_released_after_it() -> None:
    """X5: that of a worker; a plain subscriber's is its process's own."""
    bus, one, plain = HandBus(LEFT), Unique("one"), Plain("plain")
    async with bus:
        await bus.subscribe(one)
        await bus.subscribe(plain)
        await bus.subscribe(one)
        assert bus.claims == ["one"]
        assert list(bus.claimed_names) == ["one"]
        await bus.unsubscribe(one)
        await bus.unsubscribe(plain)
        assert bus.released == ["one"]
        assert list(bus.claimed_names) == []


async def test_a_name_that_another_process_has_is_refused_at_the_second() -> None:
    """X5."""
    bus, one = HandBus(LEFT), Unique("one")
    bus.owners["one"] = "left"
    async with bus:
        with pytest.raises(NameTakenError, match="'left'") as caught:
            await bus.subscribe(one)
        assert isinstance(caught.value, ValueError)
        assert not bus.has_subscriber("one")
        assert bus.released == []  # it is not ours
        del bus.owners["one"]
        await bus.subscribe(one)


async def test_a_worker_whose_name_another_process_has_is_not_added() -> None:
    """X5."""
    bus = HandBus(LEFT)
    bus.owners["one"] = "left"
    async with WorkerRunner(bus=bus, handle_sigint=False) as runner:
        with pytest.raises(NameTakenError):
            await runner.add_workers(Helper("one"))
        await runner.add_workers(Helper("two"))
        assert "two" in bus.claims


async def test_of_two_that_subscribe_at_once_under_one_name_the_first_one_has_it() -> None:
    """B5, X5: while the network is asked."""
    bus, first, second = HandBus(LEFT), Unique("one"), Unique("one")
    bus.answers = Event()
    outcomes: list[Any] = []

    async def subscribes(subscriber: BusSubscriber) -> None:
        try:
            await bus.subscribe(subscriber)
            outcomes.append(subscriber)
        except NameTakenError as error:
            outcomes.append(error)

    async with bus, create_task_group() as group:
        for each in (first, first, second):
            group.start_soon(subscribes, each)
            await settle()
        bus.answers.set()
        await settle()
        assert len(outcomes) == 3
        winner = next(each for each in outcomes if isinstance(each, BusSubscriber))
        assert sum(isinstance(each, NameTakenError) for each in outcomes) == (1 if winner is first else 2)
        await bus.send(note(1))
        await settle()
        assert len(first.got) + len(second.got) == 1
        assert bus.released == []


async def test_what_is_subscribed_before_the_bus_opens_is_claimed_when_it_joins() -> None:
    """X5: by the transport, in one step with joining."""
    bus, one = HandBus(LEFT), Unique("one")
    await bus.subscribe(one)
    assert bus.claims == []
    assert list(bus.claimed_names) == ["one"]
    async with bus:
        pass
    await bus.unsubscribe(one)
    assert bus.released == []  # it has left, with all its names


async def test_a_claim_waits_for_a_connection() -> None:
    """X5: so that no name is missed by a transport that is just joining."""
    bus, one = HandBus(LEFT), Unique("one")
    async with bus, create_task_group() as group:
        bus.end_life("fenced")
        group.start_soon(bus.subscribe, one)
        await settle()
        assert bus.claims == []
        assert not bus.has_subscriber("one")
        bus.join()
        bus.end_life("fenced")  # at once: that life was none in which anything could be claimed
        await settle()
        assert bus.claims == []
        bus.join()
        await settle()
        assert bus.claims == ["one"]
        assert bus.has_subscriber("one")
        bus.end_life("fenced")
        await bus.unsubscribe(one)
        assert bus.released == []  # that life is over, and its claims


async def test_a_name_is_kept_until_somebody_has_it_or_it_is_freed() -> None:
    """X5, S1: that of a worker which will be back; then it is released like any other."""
    bus, one = HandBus(LEFT), Unique("one")
    async with bus:
        await bus.subscribe(one)
        bus.keep_name("one")
        await bus.unsubscribe(one)
        assert bus.released == []
        await bus.subscribe(one)
        await bus.unsubscribe(one)
        assert bus.released == ["one"]
        await bus.subscribe(one)
        bus.keep_name("one")
        await bus.unsubscribe(one)
        bus.free_name("one")
        assert bus.released == ["one", "one"]
        bus.free_name("one")
        await bus.subscribe(one)
        bus.keep_name("one")
        bus.free_name("one")  # it has never left
        assert bus.released == ["one", "one"]
        bus.keep_name("one")
        bus.end_life("fenced")
        bus.join()
        bus.name_lost("one", "left")  # another has taken it meanwhile
        await bus.unsubscribe(one)
        bus.released.clear()
        bus.free_name("one")
        assert bus.released == []


async def test_each_of_several_names_is_kept_until_it_is_its_turn() -> None:
    """X5, S1: whatever becomes of the others."""
    bus, ones = HandBus(LEFT), [Unique(name) for name in ("one", "two", "three", "four")]
    async with bus:
        for each in ones:
            await bus.subscribe(each)
            bus.keep_name(each.name)
            await bus.unsubscribe(each)
        await bus.subscribe(ones[0])
        bus.name_lost("two", "left")
        bus.free_name("three")
        assert sorted(bus.claimed_names) == ["four", "one"]
        assert bus.released == ["three"]
        await bus.unsubscribe(ones[0])
        bus.free_name("four")
        assert bus.released == ["three", "one", "four"]


async def test_a_claim_without_a_connection_in_time_is_refused() -> None:
    """X5."""
    bus = HandBus(LEFT, send_timeout=3.0)
    async with bus:
        bus.end_life("fenced")
        with pytest.raises(BusUnavailable, match="could not claim the name 'one': there is no connection"):
            await bus.subscribe(Unique("one"))
        assert current_time() == pytest.approx(3.0)
        assert not bus.has_subscriber("one")


async def test_a_claim_waits_for_a_connection_that_lasts() -> None:
    """X5: one that is lost at once again is none."""
    bus, one = HandBus(LEFT, send_timeout=3.0), Unique("one")
    async with bus, create_task_group() as group:
        bus.end_life("fenced")
        group.start_soon(bus.subscribe, one)
        await settle()
        for _ in range(3):
            bus.join()
            bus.end_life("fenced again")
            await settle()
            assert bus.claims == []
        bus.join()
        await settle()
        assert bus.claims == ["one"]
        assert bus.has_subscriber("one")


class Unanswered(HandBus):
    """One whose network does not answer to claims, if the test says so."""

    silent = False

    async def claim(self, name: str) -> None:
        await super().claim(name)
        if self.silent:
            raise BusUnavailable(self.name, "no answer", maybe_stored=False, doing=f"claim the name {name!r}")


@pytest.mark.parametrize("kept", [False, True])
async def test_a_name_whose_claim_was_not_answered_is_given_back(kept: bool) -> None:
    """X5: at once, as it may have been claimed; one that is kept, when it is freed."""
    bus, one = Unanswered(LEFT), Unique("one")
    async with bus:
        if kept:
            await bus.subscribe(one)
            bus.keep_name("one")
            await bus.unsubscribe(one)
        bus.silent = True
        for times in (1, 2):
            with pytest.raises(BusUnavailable):
                await bus.subscribe(one)
            assert bus.released == ([] if kept else ["one"] * times)
        assert list(bus.claimed_names) == ["one"] * kept
        bus.released.clear()
        bus.free_name("one")
        assert bus.released == ["one"] * kept


async def test_a_name_that_is_kept_stays_so_though_there_is_no_connection_to_claim_it() -> None:
    """X5, S1: it is claimed when there is one, and given back when it is freed."""
    bus, one = HandBus(LEFT, send_timeout=3.0), Unique("one")
    async with bus:
        await bus.subscribe(one)
        bus.keep_name("one")
        await bus.unsubscribe(one)
        bus.end_life("fenced")
        with pytest.raises(BusUnavailable):
            await bus.subscribe(one)
        bus.join()
        assert list(bus.claimed_names) == ["one"]
        bus.free_name("one")
        assert bus.released == ["one"]


async def test_a_claim_of_a_life_that_has_ended_meanwhile_is_made_again() -> None:
    """X4, X5: however often."""
    bus, one = HandBus(LEFT), Unique("one")
    bus.answers = Event()
    async with bus, create_task_group() as group:
        group.start_soon(bus.subscribe, one)
        await settle()
        for times in (1, 2, 3, 4):
            assert bus.claims == ["one"] * times
            bus.end_life("fenced")
            bus.join()
            assert not bus.has_subscriber("one")
            answers, bus.answers = bus.answers, Event()
            answers.set()
            await settle()
        assert bus.claims == ["one"] * 5
        bus.answers.set()
        await settle()
        assert bus.claims == ["one"] * 5
        assert bus.has_subscriber("one")


async def test_a_claim_that_is_cancelled_is_given_back() -> None:
    """X5, L1."""
    bus, one, scope = HandBus(LEFT), Unique("one"), CancelScope()
    bus.answers = Event()

    async def subscribes() -> None:
        with scope:
            await bus.subscribe(one)

    async with bus, create_task_group() as group:
        group.start_soon(subscribes)
        await settle()
        scope.cancel()
        await settle()
        assert bus.released == ["one"]
        assert not bus.has_subscriber("one")


@pytest.mark.parametrize("other", [Unique, Plain])
async def test_who_is_about_to_have_a_name_here_has_it_alone(other: type[Plain]) -> None:
    """B5, X5: else the end of one claim would give back what another has, or nobody would give the name back."""
    bus, first, scope = HandBus(LEFT), Unique("one"), CancelScope()
    bus.answers = Event()

    async def subscribes() -> None:
        with scope:
            await bus.subscribe(first)

    async with bus, create_task_group() as group:
        group.start_soon(subscribes)
        await settle()
        with pytest.raises(NameTakenError):
            await bus.subscribe(other("one"))
        await bus.subscribe(first)
        assert bus.claims == ["one"]
        scope.cancel()
        await settle()
        assert bus.released == ["one"]
        bus.answers = None
        await bus.subscribe(other("one"))
        assert bus.has_subscriber("one")
        assert bus.released == ["one"]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_reserved_name_that_is_freed_while_it_is_claimed_is_kept_for_who_claims_it(cancelled: bool) -> None:
    """X5, S1: it is given back where that comes to nothing."""
    bus, one, scope = HandBus(LEFT), Unique("one"), CancelScope()

    async def subscribes() -> None:
        with scope:
            await bus.subscribe(one)

    async with bus, create_task_group() as group:
        await bus.subscribe(one)
        bus.keep_name("one")
        await bus.unsubscribe(one)
        bus.answers = Event()
        group.start_soon(subscribes)
        await settle()
        bus.free_name("one")
        assert bus.released == []
        if cancelled:
            scope.cancel()
        bus.answers.set()
        await settle()
        assert bus.has_subscriber("one") is not cancelled
        assert bus.released == ["one"] * cancelled
