"""B9: bounded lanes: who waits for room, who gets it, and who is let go."""

import anyio
import pytest

from support.conditions import eventually
from support.lanes import Gate, Log, Sending, every_kind, held, lanes
from support.listeners import listening
from support.messages import Alarm, Note, alarm, note
from support.subscribers import Plain
from workerbus import BusJobUpdateMessage, BusMessage, MemoryBus
from workerbus.testing import settle


@pytest.mark.parametrize("size", [0, -1, float("nan")])
def test_a_bound_is_at_least_one(size: float) -> None:
    """B9: ``max_buffer_size`` bounds what waits; nothing could ever wait."""
    with pytest.raises(ValueError, match="max_buffer_size"):
        MemoryBus(max_buffer_size=size)


@every_kind
async def test_sending_waits_when_the_lane_is_full_and_nothing_is_dropped(kind: str) -> None:
    """B9: two may wait, the third waits outside until there is room."""
    async with held(kind, 2) as (bus, log), anyio.create_task_group() as tasks:
        sending = Sending(tasks, bus, note(1, "it"), note(2, "it"), note(3, "it"))
        await anyio.wait_all_tasks_blocked()
        assert not sending.done
        log.release.set()
        await eventually(lambda: sending.done and len(log.done) == 4)
    assert lanes(log.done)[0] == [0, 1, 2, 3]


@every_kind
async def test_what_is_being_handled_takes_no_place(kind: str) -> None:
    """B9: it bounds what waits."""
    async with held(kind, 1) as (bus, _):
        await bus.send(note(1, "it"))


@every_kind
async def test_those_who_wait_for_room_get_it_in_their_order(kind: str) -> None:
    """B9, B2: one place lets one sender in, the one who waits longest; a later one does not slip past."""
    async with held(kind, 1) as (bus, log), anyio.create_task_group() as tasks:
        await bus.send(note(1, "it"))
        sendings = []
        for n in range(2, 6):
            sendings.append(Sending(tasks, bus, note(n, "it")))
            await anyio.wait_all_tasks_blocked()
        assert not any(each.done for each in sendings)
        log.release.set()
        await bus.send(note(6, "it"))
        await eventually(lambda: len(log.done) == 7)
    assert lanes(log.done)[0] == list(range(7))


@every_kind
async def test_a_cancelled_sender_leaves_the_line(kind: str) -> None:
    """B9: its message is not delivered later, and those behind it go on."""
    async with held(kind, 1) as (bus, log), anyio.create_task_group() as tasks:
        await bus.send(note(1, "it"))
        first = Sending(tasks, bus, note(2, "it"))
        await anyio.wait_all_tasks_blocked()
        second = Sending(tasks, bus, note(3, "it"))
        await anyio.wait_all_tasks_blocked()
        first.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        log.release.set()
        await eventually(lambda: second.done and len(log.done) == 3)
    assert lanes(log.done)[0] == [0, 1, 3]


@every_kind
async def test_system_messages_never_wait_for_room(kind: str) -> None:
    """B9: only the data lane is bounded."""
    async with held(kind, 1) as (bus, log):
        await bus.send(note(1, "it"))
        for n in range(10):
            await bus.send(alarm(n, "it"))
        await eventually(lambda: len(log.done) == 10)


@every_kind
async def test_a_broadcast_goes_first_to_those_that_have_room(kind: str) -> None:
    """B9: they have handled it while the sender still waits."""
    async with held(kind, 1) as (bus, log), anyio.create_task_group() as tasks:
        quick = Plain("quick")
        await bus.subscribe(quick)
        await bus.send(note(1, "it"))
        sending = Sending(tasks, bus, note(2))
        await quick.until(2, Note)
        assert quick.got[-1] == note(2)
        assert not sending.done
        log.release.set()
        await eventually(lambda: sending.done and len(log.done) == 3)


@pytest.mark.parametrize("first", [0, 1])
async def test_a_broadcast_waits_for_all_full_lanes_at_once(first: int) -> None:
    """B9: one that gets room has it at once, though another is still full; in the end all have it."""
    logs = [Log(holds=Note), Log(holds=Note)]
    async with MemoryBus(max_buffer_size=1) as bus, anyio.create_task_group() as tasks:
        for name, log in zip(("one", "two"), logs, strict=True):
            await bus.subscribe(Plain(name, receives="own", on=log))
        await bus.send(note(0))
        for log in logs:
            await log.entered.wait()
        await bus.send(note(1))
        sending = Sending(tasks, bus, note(2))
        await anyio.wait_all_tasks_blocked()
        logs[first].release.set()
        await eventually(lambda: len(logs[first].done) == 3)
        assert not sending.done
        logs[1 - first].release.set()
        await eventually(lambda: sending.done and len(logs[1 - first].done) == 3)


@pytest.mark.parametrize("kind", ["worker", "choosing worker"])
async def test_a_full_lane_holds_up_nobody_elses_messages(kind: str) -> None:
    """B9: what is addressed to somebody with room does not wait for somebody without."""
    async with held(kind, 1) as (bus, _):
        other = Plain("other", receives="own")
        await bus.subscribe(other)
        await bus.send(note(1, "it"))
        await bus.send(note(2, "other"))
        await other.until(1)


@every_kind
@pytest.mark.parametrize("target", ["it", None])
@pytest.mark.parametrize("lane", [Note, Alarm])
async def test_sending_to_ones_own_full_lane_from_ones_own_hook_is_refused(
    kind: str, target: str | None, lane: type[Note] | type[Alarm]
) -> None:
    """B9: it raises `anyio.WouldBlock`, for a broadcast too, and then nobody got it."""
    outcome: list[str] = []

    async def code(message: BusMessage) -> None:
        if message != lane(0, source="me", target="it"):
            return
        await bus.send(note(1, "it"))
        entered.set()
        await go_on.wait()
        try:
            await bus.send(note(2, target))
        except anyio.WouldBlock:
            outcome.append("refused")

    entered, go_on = anyio.Event(), anyio.Event()
    blocked, release = anyio.Event(), anyio.Event()
    other = Plain("other", receives="own")

    async def block(message: BusMessage) -> None:
        if message == note(9, "it"):
            blocked.set()
            await release.wait()
        else:
            await code(message)

    async with listening(kind, block, max_buffer_size=1) as bus:
        await bus.subscribe(other)
        if lane is Alarm:
            await bus.send(note(9, "it"))
            await blocked.wait()
        await bus.send(lane(0, source="me", target="it"))
        await entered.wait()
        go_on.set()
        await eventually(lambda: outcome)
        release.set()
        await bus.send(note(3, "other"))
        await other.until(1)
    assert [m for m in other.got if isinstance(m, Note)] == [note(3, "other")]


@every_kind
@pytest.mark.parametrize("lane", [Note, Alarm])
async def test_a_task_that_a_hook_has_started_is_the_hooks_own_code(kind: str, lane: type[Note] | type[Alarm]) -> None:
    """B9: the hook waits for it, so that it would wait for itself."""
    refused: list[int] = []

    async def send(n: int) -> None:
        try:
            await bus.send(note(n, "it"))
        except anyio.WouldBlock:
            refused.append(n)

    async def code(message: BusMessage) -> None:
        if message == lane(0, source="me", target="it"):
            entered.set()
            await go_on.wait()
            async with anyio.create_task_group() as tasks:
                for n in range(1, 5):
                    tasks.start_soon(send, n)
            done.set()
        elif message == note(9, "it"):
            await done.wait()

    entered, go_on, done = anyio.Event(), anyio.Event(), anyio.Event()
    async with listening(kind, code, max_buffer_size=1) as bus:
        if lane is Alarm:
            await bus.send(note(9, "it"))
        await bus.send(lane(0, source="me", target="it"))
        await entered.wait()
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        await done.wait()
    assert len(refused) == 3


@every_kind
@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_that_has_outlived_the_hook_that_started_it_waits_for_room(kind: str, fails: bool) -> None:
    """B9: nobody waits for it any more, however the hook has ended."""
    sent, block = anyio.Event(), anyio.Event()
    got: list[int] = []

    async def send_later() -> None:
        await full.wait()
        await bus.send(note(3, "it"))
        sent.set()

    async def code(message: BusMessage) -> None:
        if isinstance(message, Note):
            got.append(message.n)
        if message == note(0, "it"):
            tasks.start_soon(send_later)
            if fails:
                raise ValueError("broken")
        elif message == note(1, "it"):
            await block.wait()

    full = anyio.Event()
    async with anyio.create_task_group() as tasks, listening(kind, code, max_buffer_size=1) as bus:
        await bus.send(note(0, "it"))
        await anyio.wait_all_tasks_blocked()
        await bus.send(note(1, "it"))
        await anyio.wait_all_tasks_blocked()
        await bus.send(note(2, "it"))
        full.set()
        await anyio.wait_all_tasks_blocked()
        assert not sent.is_set()
        block.set()
        await sent.wait()
        await eventually(lambda: got == [0, 1, 2, 3])


@pytest.mark.parametrize("first", ["other", "it"])
async def test_a_broadcast_that_is_refused_reaches_nobody_whoever_came_first(first: str) -> None:
    """B9: a refused message is not half sent."""
    refused = anyio.Event()

    async def code(message: BusMessage) -> None:
        if message == note(0, "it"):
            await bus.send(note(1, "it"))
            with pytest.raises(anyio.WouldBlock):
                await bus.send(note(2))
            refused.set()

    members = {"other": Plain("other", receives="own"), "it": Plain("it", receives="own", on=code)}
    async with MemoryBus(max_buffer_size=1) as bus:
        for name in sorted(members, key=first.__ne__):
            await bus.subscribe(members[name])
        await bus.send(note(0, "it"))
        await refused.wait()
        await bus.send(note(3))
        await members["it"].until(3)
        await members["other"].until(1)
    assert members["it"].got == [note(0, "it"), note(1, "it"), note(3)]
    assert members["other"].got == [note(3)]


@pytest.mark.parametrize("first", ["other", "it"])
async def test_a_broadcast_that_is_refused_leaves_nobodys_line_behind(first: str) -> None:
    """B9: another lane that was full, too, gets nothing of it when it has room."""
    refused, release = anyio.Event(), anyio.Event()

    async def code(message: BusMessage) -> None:
        if message == note(0, "it"):
            await bus.send(note(1, "it"))
            with pytest.raises(anyio.WouldBlock):
                await bus.send(note(2))
            refused.set()

    async def wait(message: BusMessage) -> None:
        await release.wait()

    other = Plain("other", receives="own", on=wait)
    members = {"other": other, "it": Plain("it", receives="own", on=code)}
    async with MemoryBus(max_buffer_size=1) as bus:
        for name in sorted(members, key=first.__ne__):
            await bus.subscribe(members[name])
        await bus.send(note(0, "other"))
        await other.until(1)
        await bus.send(note(1, "other"))
        await bus.send(note(0, "it"))
        await refused.wait()
        release.set()
        await bus.send(note(3))
        await other.until(3)
    assert other.got == [note(0, "other"), note(1, "other"), note(3)]


@every_kind
async def test_sending_to_ones_own_lane_with_room_from_ones_own_hook_is_fine(kind: str) -> None:
    """B9: only the full lane refuses."""
    done: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        if message == note(0, "it"):
            await bus.send(note(1, "it"))
        done.append(message)

    async with listening(kind, code, max_buffer_size=1) as bus:
        await bus.send(note(0, "it"))
        await eventually(lambda: len(done) == 2)


async def test_unsubscribing_releases_who_waits_for_room() -> None:
    """B5: the sender goes on; the others have got the message."""
    gate = Gate()
    plain, other = Plain("it", receives="own", on=gate), Plain("other")
    sent = anyio.Event()

    async def send() -> None:
        await bus.send(note(2))
        await bus.send(note(3))
        sent.set()

    async with MemoryBus(max_buffer_size=1) as bus, anyio.create_task_group() as tasks:
        await bus.subscribe(plain)
        await bus.subscribe(other)
        await bus.send(note(0, "it"))
        await gate.entered.wait()
        await bus.send(note(1, "it"))
        tasks.start_soon(send)
        await other.until(3)
        await anyio.wait_all_tasks_blocked()
        assert not sent.is_set()
        await bus.unsubscribe(plain)
        await sent.wait()
        gate.opened.set()
        await other.until(4)
    assert gate.begun == [note(0, "it")]


async def test_unsubscribing_from_inside_the_handler_releases_who_waits_for_room() -> None:
    """B5: the same where the subscriber itself leaves."""
    gate = Gate()
    sent = anyio.Event()

    async def leave(message: BusMessage) -> None:
        await gate(message)
        await bus.unsubscribe(plain)

    async def send() -> None:
        await bus.send(note(2))
        sent.set()

    plain = Plain("it", on=leave)
    async with MemoryBus(max_buffer_size=1) as bus, anyio.create_task_group() as tasks:
        await bus.subscribe(plain)
        await bus.send(note(0))
        await gate.entered.wait()
        await bus.send(note(1))
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
        await sent.wait()
        await anyio.wait_all_tasks_blocked()
    assert set(gate.begun) <= {note(0), note(1)}


async def test_closing_the_bus_releases_who_waits_for_room() -> None:
    """B5, L1: nobody waits for ever for a bus that is closed."""
    gate = Gate()
    sent = anyio.Event()

    async def send() -> None:
        await bus.send(note(2))
        sent.set()

    async with anyio.create_task_group() as tasks:
        async with MemoryBus(max_buffer_size=1) as bus:
            await bus.subscribe(Plain("it", on=gate))
            await bus.send(note(0))
            await gate.entered.wait()
            await bus.send(note(1))
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
        await sent.wait()


async def test_whoever_waits_for_room_is_released_when_the_subscriber_leaves() -> None:
    """B5: all of them."""
    gate = anyio.Event()
    plain = Plain("plain", on=lambda _: gate.wait())
    async with MemoryBus(max_buffer_size=1) as bus, anyio.create_task_group() as group:
        await bus.subscribe(plain)
        for n in range(7):
            group.start_soon(bus.send, note(n, "plain"))
        await settle()
        await bus.unsubscribe(plain)
        gate.set()


async def test_a_sender_that_gives_up_leaves_every_line_that_it_stands_in() -> None:
    """B9: its message comes nowhere any more."""
    gate = anyio.Event()
    names = ("a", "b", "c")
    plains = {name: Plain(name, on=lambda _: gate.wait()) for name in names}
    async with MemoryBus(max_buffer_size=1) as bus:
        for plain in plains.values():
            await bus.subscribe(plain)
        for n in range(2):
            await bus.send(note(n))
            await settle()
        with anyio.move_on_after(1):
            await bus.send(note(100))
        gate.set()
        await settle()
    assert {name: len(plain.got) for name, plain in plains.items()} == dict.fromkeys(names, 2)


async def test_what_is_not_held_up_takes_no_room() -> None:
    """B9: updates for the one that asked are not counted, so that others have all the room."""
    release, bus = anyio.Event(), MemoryBus(max_buffer_size=2)
    asker = Plain("asker", on=lambda _: release.wait())
    await bus.subscribe(asker)
    async with bus:
        for n in range(5):
            await bus.send(BusJobUpdateMessage("job", {"n": n}, source="me", target="asker"))
        await bus.send(note(1, target="asker"))
        await bus.send(note(2, target="asker"))
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bus.send, note(3, target="asker"))
                await anyio.wait_all_tasks_blocked()
                assert bus.statistics().subscribers["asker"].depth == 6
                scope.cancel()
        release.set()
        await asker.until(7)
    assert asker.of(Note) == [note(1, target="asker"), note(2, target="asker")]


async def test_what_arrives_from_a_network_takes_room_though_nobody_waits_for_it() -> None:
    """B9: whoever sends behind it waits."""
    bus, go_on = MemoryBus(max_buffer_size=2), anyio.Event()
    plain, sent = Plain("plain", on=lambda _: go_on.wait()), anyio.Event()
    await bus.subscribe(plain)

    async def send() -> None:
        await bus.send(note(4))
        sent.set()

    async with bus, anyio.create_task_group() as tasks:
        for n in range(4):
            bus.on_message_received(note(n))
            await anyio.wait_all_tasks_blocked()
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert not sent.is_set()
        go_on.set()
        await plain.until(5)


@every_kind
async def test_whoever_sends_behind_what_came_past_the_bound_waits_until_all_of_that_has_left(kind: str) -> None:
    """B9: each message takes its place, however many there are already."""

    async def code(message: BusMessage) -> None:
        await anyio.sleep(1)

    async with listening(kind, code, max_buffer_size=1) as bus:
        begun = anyio.current_time()
        await bus.send(note(0, "it"))
        await settle()
        for n in range(1, 4):
            bus.on_message_received(note(n, "it"))
        await bus.send(note(4, "it"))
        assert anyio.current_time() == begun + 3


async def test_what_a_subscriber_refuses_leaves_its_bound_as_it_was() -> None:
    """B9, N4: however many it has refused."""
    log = Log(holds=Note)

    class ChoosingPlain(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return not isinstance(message, Note) or message.n >= 0

        async def on_bus_message(self, message: BusMessage) -> None:
            await log(message)

    async with MemoryBus(max_buffer_size=2) as bus, anyio.create_task_group() as tasks:
        await bus.subscribe(ChoosingPlain("it"))
        for _ in range(5):
            await bus.send(note(-1, "it"))
        await settle()
        await bus.send(note(0, "it"))
        await log.entered.wait()
        sendings = [Sending(tasks, bus, note(n, "it")) for n in range(1, 6)]
        await settle()
        assert sum(sending.done for sending in sendings) == 2
        log.release.set()
        await eventually(lambda: len(log.done) == 6)
