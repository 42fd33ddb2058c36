"""B4, B8, B9: buses with a transport: publishing, arrivals, and what never leaves the process."""

import logging
from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.buses import PoliteBus, Wire
from support.conditions import eventually
from support.lanes import Sending, held, lanes
from support.messages import Note, note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusAddWorkerMessage,
    BusDataMessage,
    BusJobRequestMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    JobStatus,
    MemoryBus,
    WorkerRunner,
    bus_message,
)
from workerbus.testing import run


async def test_nothing_is_published_before_the_transport_is_connected() -> None:
    """B4, L5: ``publish`` is called when ``start`` has returned; what was sent before goes first, in its order."""

    class Slow(Wire):
        connected = False

        async def start(self) -> None:
            await checkpoint()
            self.connected = True

        async def publish(self, message: BusMessage) -> None:
            assert self.connected
            await super().publish(message)

    bus, plain = Slow(), Plain("it")
    await bus.subscribe(plain)
    for n in range(3):
        await bus.send(note(n))
    async with bus:
        for n in range(3, 6):
            await bus.send(note(n))
        await plain.until(6)
    assert plain.got == bus.published == [note(n) for n in range(6)]


@bus_message
class Secret(BusDataMessage, BusLocalMessage):
    """An own local message."""

    n: int = 0


@bus_message
class UrgentSecret(BusLocalMessage, BusSystemMessage):
    """Another, with the mixin first."""

    n: int = 0


class Heir(Secret):
    """One that is local because its base is."""


@pytest.mark.parametrize("make", [Secret, UrgentSecret, Heir])
async def test_a_local_message_is_delivered_but_never_published(make: Callable[..., BusMessage]) -> None:
    """B8: whatever makes it local."""
    bus = Wire()
    plain = Plain("it")
    await bus.subscribe(plain)
    await bus.send(make(0, source="me"))
    async with bus:
        await bus.send(make(1, source="me"))
        await bus.send(note(0))
        await plain.until(3)
    assert bus.published == [note(0)]


@pytest.mark.parametrize("make", [Secret, UrgentSecret, Heir])
async def test_a_local_message_from_a_network_is_refused(
    make: Callable[..., BusMessage], caplog: pytest.LogCaptureFixture
) -> None:
    """B8: by both ways in; it is counted and logged."""
    plain = Plain("it")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        bus.on_message_received(make(0, source="me"))
        await bus.deliver(make(0, source="me"))
        bus.on_message_received(note(0))
        await plain.until(1)
        await anyio.wait_all_tasks_blocked()
        assert bus.statistics().refused == 2
    assert plain.got == [note(0)]
    assert [record.levelno for record in caplog.records if "local" in record.message] == [logging.WARNING] * 2


async def test_what_the_library_sends_locally_is_never_published() -> None:
    """B8: a child that is added, and a child's error."""
    bus = Wire()
    failed = anyio.Event()

    class Parent(Helper):
        async def on_worker_failed(self, data: object) -> None:
            failed.set()

    parent, child = Parent("parent"), Helper("child")
    async with running(parent, bus=bus):
        await parent.add_workers(child)
        await eventually(lambda: child.started_at is not None)
        await child.send_bus_error_message("broken")
        await failed.wait()
    assert not [each for each in bus.published if isinstance(each, BusAddWorkerMessage | BusWorkerLocalErrorMessage)]
    assert any(isinstance(each, BusWorkerReadyMessage) for each in bus.published)


async def test_a_runner_works_on_a_bus_that_takes_a_while_to_publish() -> None:
    """B8, N1: `publish`, `deliver` and no more make a transport."""
    bus = Wire()
    async with running(Helper("helper"), Helper("asker"), bus=bus) as runner:
        asker = runner.get_worker("asker")
        assert isinstance(asker, BaseWorker)
        async with asker.job_group("helper", "asker", name="echo", payload={"n": 1}) as group:
            pass
    assert set(group.statuses.values()) == {JobStatus.COMPLETED}
    assert any(isinstance(message, BusJobRequestMessage) for message in bus.published)


async def test_a_received_message_is_delivered_without_waiting() -> None:
    """B9: `on_message_received` is sync, past every bound."""
    async with held("plain", 1) as (bus, log):
        for n in range(1, 5):
            bus.on_message_received(note(n, "it"))
        log.release.set()
        await eventually(lambda: len(log.done) == 5)
    assert lanes(log.done)[0] == [0, 1, 2, 3, 4]


async def test_a_transport_that_awaits_deliver_waits_for_room() -> None:
    """B9: so that it reads no faster than the subscribers handle."""
    delivered = False

    async def deliver() -> None:
        nonlocal delivered
        await bus.deliver(note(2, "it"))
        delivered = True

    async with held("plain", 1) as (bus, log), anyio.create_task_group() as tasks:
        await bus.deliver(note(1, "it"))
        tasks.start_soon(deliver)
        await anyio.wait_all_tasks_blocked()
        assert not delivered
        log.release.set()
        await eventually(lambda: delivered and len(log.done) == 3)


async def test_messages_sent_before_a_transport_was_open_hold_up_nothing_of_the_library() -> None:
    """B9, B4: they wait for room; the jobs of others do not wait for them."""
    release = anyio.Event()

    async def stuck(_: BusMessage) -> None:
        await release.wait()

    bus = Wire(max_buffer_size=1)
    await bus.subscribe(Plain("slow", receives="own", on=stuck))
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(Helper("helper"))
    for n in range(4):
        await bus.send(note(n, "slow"))
    async with runner:
        with anyio.fail_after(5):
            await runner.job("helper", name="echo")
        release.set()


async def test_closing_a_transport_releases_who_waits_behind_what_was_sent_before_it_was_open() -> None:
    """B5, L1, L4: nobody waits for ever for a bus that is closed."""
    never = anyio.Event()

    async def stuck(_: BusMessage) -> None:
        await never.wait()

    bus = Wire(max_buffer_size=1)
    await bus.subscribe(Plain("slow", receives="own", on=stuck))
    for n in range(4):
        await bus.send(note(n, "slow"))
    with anyio.fail_after(CLEANUP_SECONDS + 1):
        async with anyio.create_task_group() as tasks:
            async with bus:
                sending = Sending(tasks, bus, note(4, "slow"))
                await anyio.wait_all_tasks_blocked()
                assert not sending.done
            await anyio.wait_all_tasks_blocked()
            assert sending.done
            tasks.cancel_scope.cancel()


class Failing(Wire):
    """A bus that cannot publish even notes."""

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, Note) and not message.n % 2:
            raise OSError("no connection")
        await super().publish(message)


async def test_what_could_not_be_sent_at_the_start_is_logged_and_the_next_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B4, B3: the log names the bus and the kind of message, with a traceback."""
    bus, plain = Failing(name="wire"), Plain("plain")
    await bus.subscribe(plain)
    for n in range(4):
        await bus.send(note(n))
    async with bus:
        await plain.until(2)
        await eventually(lambda: len(caplog.records) == 2)
        await bus.send(note(5))
        await plain.until(3)
    assert [message.n for message in plain.got if isinstance(message, Note)] == [1, 3, 5]
    assert caplog.messages == ["bus 'wire' could not send Note"] * 2
    assert all(record.exc_info and isinstance(record.exc_info[1], OSError) for record in caplog.records)


async def test_what_the_library_could_not_send_is_logged_and_the_next_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B9, B3."""
    bus, plain = Failing(name="wire"), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        for n in range(4):
            bus.post(note(n))
        await plain.until(2)
        await eventually(lambda: len(caplog.records) == 2)
    assert caplog.messages == ["bus 'wire' could not send Note"] * 2
    assert all(record.exc_info and isinstance(record.exc_info[1], OSError) for record in caplog.records)


@pytest.mark.parametrize("steps", range(4))
async def test_what_is_sent_goes_out_behind_what_was_posted_before(steps: int) -> None:
    """B9, B2: also where publishing takes time, and wherever the earlier one is on its way."""

    class SlowAtFirst(Wire):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, Note) and message.n == 1:
                for _ in range(10):
                    await checkpoint()
            await super().publish(message)

    bus, plain = SlowAtFirst(), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        bus.post(note(1))
        for _ in range(steps):
            await checkpoint()
        await bus.send(note(2))
        await plain.until(2)
    assert plain.got == [note(1), note(2)]


async def test_what_the_library_has_posted_goes_out_before_the_bus_is_closed() -> None:
    """L4."""
    bus = Wire()
    async with bus:
        for n in range(3):
            bus.post(note(n))
    assert [message.n for message in bus.published if isinstance(message, Note)] == [0, 1, 2]


async def test_a_local_message_from_a_network_is_refused_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """B8."""
    bus, plain = MemoryBus(name="bus"), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        await bus.deliver(BusAddWorkerMessage("somebody", source="me"))
        bus.on_message_received(BusAddWorkerMessage("somebody", source="me"))
        await bus.send(note(1))
        await plain.until(1)
    assert plain.got == [note(1)]
    assert bus.statistics().refused == 2
    assert caplog.messages == ["bus 'bus' refused a local BusAddWorkerMessage from the network"] * 2


async def test_a_local_message_of_the_library_waits_for_no_network() -> None:
    """B8, B9: it never reaches `publish`, and so not the line before it."""
    connected = anyio.Event()

    class Stuck(Wire):
        async def publish(self, message: BusMessage) -> None:
            await connected.wait()
            await super().publish(message)

    bus, plain = Stuck(), Plain("plain")
    await bus.subscribe(plain)
    local = BusWorkerLocalErrorMessage("oh", source="me", target="plain")
    async with bus:
        bus.post(note(1))
        bus.post(local)
        await plain.until(1)
        assert plain.got == [local]
        connected.set()
        await plain.until(2)
    assert bus.published == [note(1)]


class Stuck(MemoryBus):
    """A bus on which publishing a note waits to be let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[BusMessage] = []
        self.entered, self.go_on = anyio.Event(), anyio.Event()
        self.refuses = False

    async def publish(self, message: BusMessage) -> None:
        self.begun.append(message)
        self.entered.set()
        with anyio.CancelScope(shield=self.refuses):
            await self.go_on.wait()
        await super().publish(message)


async def test_what_was_sent_before_the_bus_was_open_goes_out_before_it_is_closed() -> None:
    """B4: nothing else gives it the time."""
    bus = Wire()
    for n in range(5):
        await bus.send(note(n))
    async with bus:
        pass
    assert bus.published == [note(n) for n in range(5)]


async def test_what_is_posted_while_early_messages_go_out_goes_out_before_the_bus_is_closed() -> None:
    """B4, L4: the library may have something to say about what it sends."""

    class Answering(Wire):
        async def publish(self, message: BusMessage) -> None:
            await checkpoint()
            if isinstance(message, Note) and message.n < 3:
                self.post(note(message.n + 10))
            await super().publish(message)

    bus = Answering()
    for n in range(3):
        await bus.send(note(n))
    async with bus:
        pass
    assert sorted(message.n for message in bus.published if isinstance(message, Note)) == [0, 1, 2, 10, 11, 12]


@pytest.mark.parametrize("early", [True, False])
async def test_a_bus_that_closes_begins_to_publish_nothing_more(early: bool) -> None:
    """L4: what refuses cancellation past the deadline is waited for, and is the last."""
    bus = Stuck()
    bus.refuses = True
    if early:
        for n in range(3):
            await bus.send(note(n))

    async def let_go_late() -> None:
        await anyio.sleep(CLEANUP_SECONDS + 1)
        bus.go_on.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(let_go_late)
        async with bus:
            if not early:
                for n in range(3):
                    bus.post(note(n))
            await bus.entered.wait()
    assert bus.begun == [note(0)]


async def test_a_transport_that_looks_at_what_it_delivers_sees_all_of_it() -> None:
    """B8, B9: a bus in one process that overrides `deliver`, too."""

    class Looking(MemoryBus):
        seen = 0

        async def deliver(self, message: BusMessage) -> None:
            self.seen += isinstance(message, Note)
            await super().deliver(message)

    bus, plain = Looking(), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        for n in range(3):
            await bus.send(note(n))
        for n in range(3, 6):
            bus.post(note(n))
        assert await plain.until(6) == [note(n) for n in range(6)]
    assert bus.seen == 6


def test_a_bus_never_waits_if_it_has_neither_bounds_nor_anything_between_sending_and_delivering() -> None:
    """B8, B9."""

    class Quiet(MemoryBus):
        async def start(self) -> None: ...

    class Looking(MemoryBus):
        async def send(self, message: BusMessage) -> None: ...

    assert MemoryBus().never_waits
    assert Quiet().never_waits
    assert not MemoryBus(max_buffer_size=1).never_waits
    assert not Looking().never_waits
    assert not PoliteBus().never_waits
    assert not Wire().never_waits


async def test_what_makes_the_task_of_a_transport_fail_leaves_the_block_of_its_bus_as_itself() -> None:
    """L6."""

    class Breaking(MemoryBus):
        async def start(self) -> None:
            self.tasks.start(self.read, name="reader")

        async def read(self) -> None:
            raise OSError("no connection")

    with pytest.raises(OSError, match="no connection"):
        async with Breaking():
            await anyio.sleep_forever()


async def test_a_transport_may_end_the_block_of_its_bus() -> None:
    """L3: by cancelling its tasks; that goes no further."""
    async with MemoryBus() as bus:
        bus.tasks.group.cancel_scope.cancel()
        await anyio.sleep_forever()
    assert not bus.is_open
    await checkpoint()


async def test_who_could_not_send_before_a_bus_was_closed_can_when_it_is_open_again() -> None:
    """B4, R6."""

    class Unconnected(Wire):
        connected = False

        async def publish(self, message: BusMessage) -> None:
            if not self.connected:
                await anyio.sleep_forever()
            await super().publish(message)

    bus, plain = Unconnected(), Plain("plain")
    await bus.subscribe(plain)
    await bus.send(note(1))
    async with anyio.create_task_group() as tasks:
        async with bus:
            waiting = Sending(tasks, bus, note(2))  # behind the first one, which never goes out
            await anyio.wait_all_tasks_blocked()
            assert not waiting.done
        await anyio.wait_all_tasks_blocked()
        assert waiting.done
    bus.connected = True
    async with bus:
        await bus.send(note(3))
        await plain.until(2)
    assert plain.got == bus.published == [note(2), note(3)]


async def test_who_waits_behind_what_the_library_sends_goes_on_when_the_bus_is_closed() -> None:
    """B9, L4: though that never went out."""
    bus, sent = Stuck(), anyio.Event()

    async def send() -> None:
        await bus.send(note(2))
        sent.set()

    async with anyio.create_task_group() as tasks:
        async with bus:
            bus.post(note(0))
            bus.post(note(1))
            await bus.entered.wait()
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            assert not sent.is_set()
        bus.go_on.set()
        await sent.wait()


_taking = st.tuples(st.sampled_from("abc"), st.sampled_from([0, 1, 2]))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    early=st.lists(_taking, max_size=5),
    late=st.lists(st.tuples(_taking, st.booleans()), max_size=6),
    seed=st.integers(0, 7),
)
@example(early=[("a", 0), ("b", 0), ("b", 1)], late=[(("b", 0), False)], seed=0)
@example(early=[("a", 1)], late=[(("a", 1), True), (("a", 0), False)], seed=0)
def test_each_senders_messages_go_out_in_its_order_whoever_else_has_sent_before_the_bus_was_open(
    backend: str, early: list[tuple[str, int]], late: list[tuple[tuple[str, int], bool]], seed: int
) -> None:
    """B4, B9: where publishing waits, too, and some of it is posted by the library.

    Drawn are the senders, which messages are posted, and how many hours it takes to publish each one, so that who spins
    meanwhile is found out. The first ones were sent before the bus was open. What is posted may overtake those, and
    nothing overtakes it.
    """
    sent = [*early, *(taking for taking, _ in late)]
    posted = {n for n, (_, by_library) in enumerate(late, len(early)) if by_library}

    class Slow(Wire):
        async def publish(self, message: BusMessage) -> None:
            assert isinstance(message, Note)
            await anyio.sleep(3600 * sent[message.n][1])
            await super().publish(message)

    async def main() -> None:
        async def send(source: str) -> None:
            for n, (sender, _) in enumerate(sent):
                if sender == source and n in posted:
                    bus.post(note(n, source=source))
                elif sender == source and n >= len(early):
                    await bus.send(note(n, source=source))

        bus = Slow()
        for n, (sender, _) in enumerate(early):
            await bus.send(note(n, source=sender))
        async with bus, anyio.create_task_group() as tasks:
            for source in "abc":
                tasks.start_soon(send, source)
            await anyio.sleep(3600 * 30)
        for source in "abc":
            went_out = [each.n for each in bus.published if isinstance(each, Note) and each.source == source]
            its = [n for n, (sender, _) in enumerate(sent) if sender == source]
            assert sorted(went_out) == its
            assert [n for n in went_out if n not in posted] == [n for n in its if n not in posted]
            assert [n for n in went_out if n >= len(early)] == [n for n in its if n >= len(early)]

    run(main, backend=backend, seed=seed)
