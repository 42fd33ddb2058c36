"""B4, L1, R6: buses with peers: what comes before they are open, closing, and opening again."""

import contextlib
from typing import Any

import pytest
from anyio import CancelScope, Event, create_task_group, current_time, sleep, sleep_forever
from anyio.lowlevel import checkpoint

from support.hand_buses import LEFT, RIGHT, HandBus, Listener
from support.leaks import task_ids
from support.messages import note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BusAddWorkerMessage, BusUnavailable, BusWorkerRegistryMessage, NotRunningError, Peer
from workerbus.testing import settle


def numbers(messages: list[Any]) -> list[int]:
    return [message.n for message in messages]


@pytest.mark.parametrize("size", [float("inf"), 1])
async def test_what_was_sent_before_the_bus_opened_goes_out_first_and_in_order(size: float) -> None:
    """B4: what the library has posted among it; none waits until the one before it is stored, or has found room."""
    bus, it = HandBus(LEFT, settles=False, max_buffer_size=size), Plain("it", receives="own")
    await bus.subscribe(it)
    for n in range(0, 8, 4):
        await bus.send(note(n))
        bus.post(note(n + 1))
        await bus.send(note(n + 2, target="it"))
        bus.post(note(n + 3, target="it"))
    assert bus.sent == []
    async with bus:
        bus.post(note(8))
        assert numbers(bus.messages) == [0, 1, 4, 5, 8]
        await it.until(9)
    got = numbers(it.got)
    if size == 1:  # what is posted goes past the bound
        assert [n for n in got if n % 2] == [1, 3, 5, 7]
        assert [n for n in got if not n % 2 and n < 8] == [0, 2, 4, 6]
    else:
        assert got == list(range(9))
    assert bus.statistics().undelivered == 0


async def test_what_is_sent_while_the_bus_joins_waits_until_it_has() -> None:
    """B4: and is stored when its send returns."""
    bus, it, done = HandBus(LEFT, joins=False, settles=False), Plain("it", receives="own"), []
    joining = Event()

    async def sends(number: int, target: str | None) -> None:
        await bus.send(note(number, target=target))
        done.append(number)

    class Joins(Listener):
        def met(self, peer: object) -> None:
            bus.post(note(9))

    start = bus.start

    async def joins() -> None:
        await start()
        await joining.wait()
        bus.join()

    bus.start = joins  # type: ignore[method-assign]  # a transport that takes a while
    Joins(bus)
    await bus.subscribe(it)

    async def program() -> None:
        async with bus:
            await it.until(5)
            assert numbers(bus.messages) == [1, 2, 3, 9]
            await settle()
            assert done == [0]
            for receipt in bus.receipts:
                receipt.settle()
            await settle()
            assert sorted(done) == [0, 1, 3]

    async with create_task_group() as group:
        group.start_soon(program)
        await settle()
        group.start_soon(sends, 0, "it")
        await settle()
        group.start_soon(sends, 1, None)
        await settle()
        bus.post(note(2))
        group.start_soon(sends, 3, None)
        await settle()
        assert bus.sent == it.got == []
        joining.set()
    assert numbers(it.got) == [0, 1, 2, 3, 9]


async def test_what_cannot_travel_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bus = HandBus(LEFT)
    await bus.send(note(1))
    bus.post(note(2))
    bus.fails = ValueError("it cannot travel")
    async with bus:
        bus.fails = None
        await bus.send(note(3))
    assert caplog.text.count("could not send Note, which had waited for a connection") == 2
    assert bus.messages == [note(3)]


async def test_a_bus_can_be_opened_again_for_another_life() -> None:
    """R6, X4: nothing is left of the one before it."""
    bus, it, before = HandBus(LEFT), Plain("it"), task_ids()
    listener = Listener(bus)
    await bus.subscribe(it)
    lives: list[str] = []
    told: list[Peer] = []
    bus.add_event_handler("on_peer_joined", lambda _, peer: told.append(peer))
    for n in range(2):
        await bus.send(note(10 * n))
        bus.post(note(10 * n + 2, target="nobody"))
        async with bus:
            lives.append(bus.incarnation)
            assert bus.arrive(note(10 * n + 1), LEFT, number=1).name == "DELIVERED"
            bus.locate("one", LEFT)
            await it.until(3 * n + 3)
            with pytest.raises(NotRunningError, match="open already"):
                await bus.__aenter__()
        assert bus.peers == ()
        assert not bus.is_alive
        assert not bus.is_open
        assert task_ids() == before
    assert numbers(it.got) == [0, 2, 1, 10, 12, 11]
    assert numbers(bus.messages) == [0, 2, 10, 12]
    assert told == [LEFT, LEFT]
    assert lives[0] != lives[1]
    assert [kind for kind, *_ in listener.heard] == ["met", "lost"] * 2


@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_opening_that_fails_leaves_nothing_and_can_be_tried_again(cancelled: bool) -> None:
    """L1, B4."""
    before = task_ids()
    scope = CancelScope()

    class Fails(HandBus):
        tries = 0

        async def start(self) -> None:
            await super().start()
            self.tries += 1
            if self.tries == 1 and cancelled:
                scope.cancel()
                await checkpoint()
            if self.tries == 1:
                raise ConnectionError("nobody there")

    bus = Fails(LEFT)
    listener = Listener(bus)
    await bus.send(note(1))
    with scope, contextlib.suppress(ConnectionError):
        async with bus:
            pytest.fail("it is not open")
    assert task_ids() == before
    assert not bus.is_open
    assert not bus.is_alive
    assert bus.peers == ()
    async with bus:
        await bus.send(note(2))
    assert [kind for kind, *_ in listener.heard] == ["met", "lost"] * 2
    assert numbers(bus.messages) == [1, 2]


async def test_what_is_sent_while_it_joins_again_waits_for_that() -> None:
    """B4, R6."""
    bus, joining = HandBus(LEFT, joins=False), [Event(), Event()]
    start = bus.start

    async def joins() -> None:
        await start()
        await joining[0].wait()
        bus.join()

    bus.start = joins  # type: ignore[method-assign]  # a transport that takes a while

    async def program() -> None:
        for each in joining:
            async with bus:
                await each.wait()
            joining[0] = Event()

    async with create_task_group() as group:
        group.start_soon(program)
        joining[0].set()
        await settle()
        joining[1].set()
        await settle()
        assert bus.is_open
        group.start_soon(bus.send, note(1))
        bus.post(note(2))
        await settle()
        assert bus.sent == []
        joining[0].set()
        await settle()
        assert sorted(numbers(bus.messages)) == [1, 2]
        group.cancel_scope.cancel()


async def test_what_the_library_posts_before_the_bus_opens_finds_its_place_whatever_the_bounds() -> None:
    """B4, B9."""
    bus, hangs = HandBus(LEFT, max_buffer_size=1), Plain("it", on=lambda _: sleep_forever())
    await bus.subscribe(hangs)
    bus.post(BusAddWorkerMessage(Helper("x"), source="me"))
    assert bus.statistics().subscribers["it"].depth == 1  # a local one has no way to go
    for n in range(3):
        await bus.send(note(n))
        bus.post(note(10 + n))
    async with bus:
        await settle()
        assert bus.statistics().subscribers["it"].depth == 3  # and one is being handled in each lane


async def test_a_bus_that_closes_takes_no_more() -> None:
    """L1, X2: a send says so at once, and what the library posts reaches those here alone."""
    told: list[Any] = []

    class Leaves(HandBus):
        async def stop(self) -> None:
            await super().stop()
            try:
                await self.send(note(1))
            except BusUnavailable as error:
                told.append(error)
            self.post(note(2))

    bus = Leaves(LEFT)
    async with bus:
        pass
    assert [error.maybe_stored for error in told] == [False]
    assert bus.sent == []
    async with bus:
        await settle()
        assert bus.sent == []


async def test_a_handler_of_an_event_that_hangs_holds_up_the_end_for_a_bounded_time() -> None:
    """L4: and is cancelled then."""
    bus, before, cut = HandBus(LEFT), task_ids(), []

    async def hangs(*_: object) -> None:
        try:
            await sleep(1_000)
        finally:
            cut.append(current_time())

    bus.add_event_handler("on_peer_gone", hangs)
    for _ in range(2):
        begun = current_time()
        async with bus:
            pass
        assert current_time() - begun <= 2.1
        assert task_ids() == before
        assert not bus.delivers_at_once  # as before it was opened
    assert len(cut) == 2
    bus.joins = False
    async with bus, create_task_group() as tasks:
        tasks.start_soon(bus.send, note(1))
        await settle()
        assert bus.messages == []
        bus.join()
    assert bus.messages == [note(1)]


async def test_a_runner_opens_it_announces_its_workers_to_peers_and_leaves_nothing() -> None:
    """L1, R6."""
    bus, before = HandBus(LEFT, RIGHT), task_ids()
    async with running(Helper("one"), bus=bus, name="R") as runner:
        assert bus.opened_by == "R"
        assert await runner.job("one", name="echo") == {"worker": "one", "payload": {}}
        assert any(isinstance(message, BusWorkerRegistryMessage) for message in bus.to(LEFT))
        assert bus.to(LEFT) == bus.to(RIGHT)
    assert task_ids() == before
    assert bus.statistics().subscribers == {}
    assert not any("Job" in type(message).__name__ for message in bus.messages)  # the job has not left


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_a_deadline_that_is_none_is_refused(value: float) -> None:
    """N8."""
    with pytest.raises(ValueError, match="send_timeout is a finite number of seconds"):
        HandBus(send_timeout=value)


def test_a_limit_that_lets_nothing_in_is_refused() -> None:
    """N8."""
    with pytest.raises(ValueError, match="max_arrivals must be at least 1, not 0"):
        HandBus(max_arrivals=0)
    assert HandBus(max_arrivals=1).send_timeout == 10.0
