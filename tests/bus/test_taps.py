"""O1: taps, which are told of each message once, where it passes."""

import logging
from collections.abc import Callable, Mapping
from functools import partial

import anyio
import pytest
from anyio import WouldBlock
from anyio.lowlevel import checkpoint

from support.buses import PoliteBus, Wire
from support.lanes import every_kind, held
from support.messages import alarm, note
from support.runners import cut_short
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BusAddWorkerMessage,
    BusDataMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusLocalMessage,
    BusMessage,
    HandlerTypeError,
    JobError,
    MemoryBus,
    MessageTypeError,
    TapNewBuses,
    WorkerBus,
    WorkerRunner,
    bus_message,
)

every_bus = pytest.mark.parametrize(
    "make_bus",
    [MemoryBus, PoliteBus, Wire, *(partial(kind, max_buffer_size=3) for kind in (MemoryBus, PoliteBus, Wire))],
    ids=["memory", "polite", "wire", "bounded memory", "bounded polite", "bounded wire"],
)


@bus_message
class Secret(BusDataMessage, BusLocalMessage):
    """A local message."""

    n: int = 0


def tapped(bus: WorkerBus) -> list[BusMessage]:
    seen: list[BusMessage] = []
    bus.add_tap(seen.append)
    return seen


@every_bus
async def test_a_tap_is_told_once_of_what_is_sent_and_what_is_posted(make_bus: Callable[[], WorkerBus]) -> None:
    """O1: targeted or not, local or not, in either lane, received by many or by nobody."""
    bus, one, other = make_bus(), Plain("one"), Plain("other", receives="own")
    await bus.subscribe(one)
    await bus.subscribe(other)
    seen = tapped(bus)
    messages = [note(1), note(2, "one"), note(3, "other"), note(4, "nobody"), alarm(5), Secret(6, source="me")]
    async with bus:
        for message in messages:
            await bus.send(message)
            bus.post(message)
        await one.until(2 * len(messages))
    assert sorted(map(repr, seen)) == sorted(map(repr, messages * 2))


@every_bus
async def test_a_tap_is_told_once_of_what_arrives(make_bus: Callable[[], WorkerBus]) -> None:
    """O1: by either way in; what is refused does not pass (B8)."""
    bus = make_bus()
    await bus.subscribe(Plain("one"))
    seen = tapped(bus)
    async with bus:
        await bus.deliver(note(1))
        bus.on_message_received(note(2))
        await bus.deliver(Secret(3, source="me"))
        bus.on_message_received(Secret(4, source="me"))
    assert seen == [note(1), note(2)]


@every_bus
async def test_a_tap_is_told_once_of_what_was_sent_before_the_bus_was_open(make_bus: Callable[[], WorkerBus]) -> None:
    """O1, B4."""
    bus, plain = make_bus(), Plain("plain")
    await bus.subscribe(plain)
    seen = tapped(bus)
    for n in range(3):
        await bus.send(note(n))
    async with bus:
        await plain.until(3)
        assert seen == [note(n) for n in range(3)]


async def test_a_message_that_comes_back_over_a_network_passes_once_at_each_end() -> None:
    """O1: when it arrives there, and not when it leaves."""
    left, right = Wire(name="left"), Wire(name="right")
    left.ends = [left, right]
    seen = [tapped(left), tapped(right)]
    async with left, right:
        await left.send(note(1))
    assert seen == [[note(1)], [note(1)]]


@every_kind
async def test_a_message_that_waits_for_room_passes_once_before_it_waits(kind: str) -> None:
    """O1, B9."""
    async with held(kind, 1) as (bus, log), anyio.create_task_group() as tasks:
        await bus.send(note(1, "it"))
        seen = tapped(bus)
        tasks.start_soon(bus.send, note(2, "it"))
        await anyio.wait_all_tasks_blocked()
        assert seen == [note(2, "it")]
        log.release.set()
    assert seen.count(note(2, "it")) == 1


async def test_what_could_not_be_sent_does_not_pass() -> None:
    """O1: no message, and a message into the sender's own full lane (B9)."""
    bus = MemoryBus(max_buffer_size=1)
    blocked = anyio.Event()

    async def send_to_itself(message: BusMessage) -> None:
        await bus.send(note(1, "it"))
        with pytest.raises(WouldBlock):
            await bus.send(note(2, "it"))
        blocked.set()

    first = Plain("it", on=lambda message: send_to_itself(message) if message == note(0, "it") else None)
    await bus.subscribe(first)
    seen = tapped(bus)
    async with bus:
        with pytest.raises(MessageTypeError):
            await bus.send("hello")  # type: ignore[arg-type]  # what is refused
        await bus.send(note(0, "it"))
        await blocked.wait()
    assert seen == [note(0, "it"), note(1, "it")]


async def test_a_tap_is_told_before_the_receivers_and_so_of_a_cause_before_its_effect() -> None:
    """O1: a worker answers in the step in which its request is sent."""
    bus = MemoryBus()
    seen = tapped(bus)
    async with running(Helper("helper", active=False), bus=bus) as runner:
        await runner.job_group("helper", name="echo", cancel_on_error=False)
    kinds = [type(message) for message in seen]
    assert kinds.index(BusJobRequestMessage) < kinds.index(BusJobResponseMessage)


async def test_a_tap_sees_all_that_an_observer_of_a_whole_run_sees() -> None:
    """O1: jobs, children, a cancel; an observer gets each of them once."""
    bus, observer, parent = MemoryBus(), Plain("observer"), Helper("parent")
    await bus.subscribe(observer)
    seen = tapped(bus)
    async with cut_short(), running(parent, Helper("helper"), bus=bus) as runner:
        await parent.add_workers(Helper("child"))
        await runner.job("child", name="echo")
        await runner.cancel()
        await anyio.sleep_forever()
    assert any(isinstance(message, BusAddWorkerMessage) for message in seen)
    assert sorted(map(id, seen)) == sorted(map(id, observer.got))
    assert bus.statistics().sent == len(seen)


async def test_a_tap_that_raises_is_logged_and_taken_off(caplog: pytest.LogCaptureFixture) -> None:
    """O1: the others are told, the message is delivered, and its sender hears nothing."""
    told: list[str] = []

    def failing(message: BusMessage) -> None:
        told.append("failing")
        raise ValueError("the tap is broken")

    bus, plain = MemoryBus(name="bus"), Plain("plain")
    await bus.subscribe(plain)
    bus.add_tap(lambda message: told.append("before"))
    bus.add_tap(failing)
    bus.add_tap(lambda message: told.append("behind"))
    async with bus:
        await bus.send(note(1))
        bus.post(note(2))
        await plain.until(2)
    assert told == ["before", "failing", "behind", "before", "behind"]
    assert plain.got == [note(1), note(2)]
    (record,) = caplog.records
    assert (record.levelno, record.message) == (
        logging.ERROR,
        f"a tap of bus 'bus' failed and is taken off: {failing!r}",
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_a_tap_that_ends_the_program_is_taken_off_as_well() -> None:
    """L3, O1: or else it would end each step of the wind-down, too."""
    bus, told = MemoryBus(), list[BusMessage]()

    def leaving(message: BusMessage) -> None:
        told.append(message)
        raise SystemExit(3)

    bus.add_tap(leaving)
    async with bus:
        with pytest.raises(SystemExit):
            await bus.send(note(1))
        await bus.send(note(2))
    assert told == [note(1)]


async def test_a_tap_that_is_added_by_a_tap_is_told_from_the_next_message_on() -> None:
    """O1."""
    bus, seen = MemoryBus(), list[BusMessage]()

    def adding(message: BusMessage) -> None:
        bus.add_tap(seen.append)

    bus.add_tap(adding)
    for n in range(3):
        await bus.send(note(n))
    assert seen == [note(1), note(2)]


@pytest.mark.parametrize("first", [True, False])
async def test_a_tap_that_is_removed_by_a_tap_is_told_nothing_more(first: bool) -> None:
    """O1: not of the message that passes just then, either; a tap may remove itself."""
    bus, seen, removed = MemoryBus(), list[BusMessage](), list[BusMessage]()

    def removing(message: BusMessage) -> None:
        bus.remove_tap(removed.append)
        bus.remove_tap(removing)
        seen.append(message)

    for tap in (removing, removed.append) if first else (removed.append, removing):
        bus.add_tap(tap)
    for n in range(3):
        await bus.send(note(n))
    assert seen == [note(0)]
    assert removed == ([] if first else [note(0)])


async def test_a_tap_is_added_once_and_removed_once() -> None:
    """O1: again is a no-op; so is removing what was never added."""
    bus, seen = MemoryBus(), list[BusMessage]()
    bus.add_tap(seen.append)
    bus.add_tap(seen.append)
    bus.remove_tap(print)
    await bus.send(note(1))
    bus.remove_tap(seen.append)
    bus.remove_tap(seen.append)
    await bus.send(note(2))
    assert seen == [note(1)]


async def test_a_tap_stays_while_its_bus_is_closed_and_opened_again() -> None:
    """O1, R6."""
    bus = MemoryBus()
    seen = tapped(bus)
    for n in range(2):
        async with bus:
            await bus.send(note(n))
    assert seen == [note(0), note(1)]


async def wait_with(message: BusMessage) -> None:
    await checkpoint()


@pytest.mark.parametrize("tap", [None, "tap", wait_with, partial(wait_with)])
def test_a_tap_is_a_sync_function(tap: Callable[[BusMessage], object]) -> None:
    """O1: nobody would await it."""
    bus = MemoryBus()
    with pytest.raises(HandlerTypeError, match="a tap is a sync function"):
        bus.add_tap(tap)


class Watch:
    """A tap that is told of handlers, too."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage | BusJobResponseMessage):
            self.seen.append((type(message).__name__, message.source))

    def job_begins(self, worker: str, request: BusJobRequestMessage) -> None:
        self.seen.append(("begins", worker))

    def job_ends(self, worker: str, request: BusJobRequestMessage) -> None:
        self.seen.append(("ends", worker))


async def test_a_tap_that_wants_to_know_is_told_when_handlers_begin_and_end() -> None:
    """O1: between request and answer it begins, and behind the answer it has ended; also where it raises."""
    watch = Watch()
    async with running(Helper("helper"), name="runner") as runner:
        runner.bus.add_tap(watch)
        await runner.job("helper", name="echo")
        with pytest.raises(JobError):
            await runner.job("helper", name="fail")
        runner.bus.remove_tap(watch)
        await runner.job("helper", name="echo")
    one = [
        ("BusJobRequestMessage", "runner"),
        ("begins", "helper"),
        ("BusJobResponseMessage", "helper"),
        ("ends", "helper"),
    ]
    assert watch.seen == one * 2


async def test_a_tap_is_told_of_a_request_that_could_not_be_sent() -> None:
    """O1: with what has kept it from being sent."""
    told: list[BaseException | None] = []

    class Told(Watch):
        def job_sent(self, name: str, request: BusJobRequestMessage, error: BaseException | None) -> None:
            told.append(error)

    class Refusing(Wire):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, BusJobRequestMessage) and message.job_name == "refused":
                raise OSError("the wire is cut")
            await super().publish(message)

    async with running(Helper("helper"), bus=Refusing()) as runner:
        runner.bus.add_tap(Told())
        await runner.job("helper", name="echo")
        with pytest.raises(OSError, match="the wire is cut"):
            await runner.job("helper", name="refused")
    assert [str(error) for error in told] == ["None", "the wire is cut"]


async def test_taps_are_told_of_a_job_in_the_order_in_which_they_were_added() -> None:
    """O1, X8: each has the headers that the one before it wants to travel."""
    told: list[tuple[str, str]] = []

    class Marks(Watch):
        def __init__(self, mark: str) -> None:
            super().__init__()
            self.mark = mark

        def job_asked(self, name: str, headers: Mapping[str, str] | None, group: object) -> Mapping[str, str]:
            return {"marks": f"{(headers or {}).get('marks', '')}{self.mark}"}

        def job_begins(self, worker: str, request: BusJobRequestMessage) -> None:
            told.append((self.mark, (request.headers or {})["marks"]))

    async with running(Helper("helper")) as runner:
        for mark in "abc":
            runner.bus.add_tap(Marks(mark))
        await runner.job("helper", name="echo")
    assert told == [(mark, "abc") for mark in "abc"]


LIFE = ("job_asked", "job_sends", "job_sent", "job_begins", "job_answered", "job_over", "job_ends")
"""What taps are told of a job, in its order."""


@pytest.mark.parametrize("event", LIFE)
@pytest.mark.parametrize("first", [True, False])
async def test_a_tap_that_is_removed_while_taps_are_told_of_a_job_is_told_nothing_more(event: str, first: bool) -> None:
    """O1: not of what is told just then, either, if its turn has not come."""
    told: list[str] = []

    class Noting:
        def __call__(self, message: BusMessage) -> None:
            """Do nothing."""

        def __getattr__(self, name: str) -> Callable[..., None]:
            if name not in LIFE:
                raise AttributeError(name)
            return lambda *about: told.append(name)

    async with running(Helper("helper")) as runner:
        noting = Noting()

        def removing(message: BusMessage) -> None:
            """Do nothing."""

        def remove(*about: object) -> None:
            runner.bus.remove_tap(noting)

        setattr(removing, event, remove)
        for tap in (removing, noting) if first else (noting, removing):
            runner.bus.add_tap(tap)
        await runner.job("helper", name="echo")
    assert tuple(told) == LIFE[: LIFE.index(event) + (not first)]


async def test_a_tap_that_raises_when_a_handler_begins_is_taken_off_and_the_job_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """O1"""

    class Broken(Watch):
        def job_begins(self, worker: str, request: BusJobRequestMessage) -> None:
            raise ValueError("the tap")

    watch = Broken()
    async with running(Helper("helper"), name="runner") as runner:
        runner.bus.add_tap(watch)
        assert (await runner.job("helper", name="echo"))["worker"] == "helper"
    assert watch.seen == [("BusJobRequestMessage", "runner")]
    assert caplog.text.count("failed and is taken off") == 1


@pytest.mark.parametrize("event", ["job_asked", "job_sends", "job_sent", "job_over", "job_answered"])
async def test_a_tap_that_raises_anywhere_in_a_job_s_life_is_taken_off_and_the_job_goes_on(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    """O1: the headers of the job are those that it was given; a tap behind it is told all the same."""

    def fail(*_args: object) -> None:
        raise ValueError("the tap")

    def hear(*args: object) -> None:
        heard.append(args)

    watch, other, heard, seen = Watch(), Watch(), list[object](), list[BusMessage]()
    setattr(watch, event, fail)
    setattr(other, event, hear)
    async with running(Helper("helper"), name="runner") as runner:
        runner.bus.add_tap(watch)
        runner.bus.add_tap(other)
        runner.bus.add_tap(seen.append)
        assert (await runner.job("helper", name="echo", headers={"a": "b"}))["worker"] == "helper"
    assert {message.headers["a"] for message in seen if message.headers is not None} == {"b"}
    assert len(heard) == 1
    assert caplog.text.count("failed and is taken off") == 1


async def test_each_bus_that_is_made_in_the_block_gets_a_tap_and_no_other_one() -> None:
    """O1: a bus that a runner makes for itself, too; the tap stays behind the block."""
    seen: dict[str, list[BusMessage]] = {}

    def make(bus: WorkerBus) -> Callable[[BusMessage], object] | None:
        return seen.setdefault(bus.name, []).append if bus.name != "spared" else None

    before = MemoryBus(name="before")
    with TapNewBuses(make):
        bus, spared, runner = MemoryBus(name="bus"), MemoryBus(name="spared"), WorkerRunner(handle_sigint=False)
    after = MemoryBus(name="after")
    for each in (before, bus, spared, after):
        async with each:
            await each.send(note(1))
    assert set(seen) == {"bus", runner.bus.name}
    assert seen["bus"] == [note(1)]


async def test_blocks_within_each_other_give_each_new_bus_a_tap_of_each() -> None:
    """O1"""
    seen: list[str] = []
    with TapNewBuses(lambda _: lambda _: seen.append("outer")):
        with TapNewBuses(lambda _: lambda _: seen.append("inner")):
            both = MemoryBus()
        outer = MemoryBus()
    for bus in (both, outer):
        async with bus:
            await bus.send(note(1))
    assert seen == ["outer", "inner", "outer"]


def test_what_makes_taps_is_a_sync_function() -> None:
    """O1"""
    with pytest.raises(HandlerTypeError, match="what makes taps is a sync function"):
        TapNewBuses(None)  # type: ignore[arg-type]  # wrong on purpose
