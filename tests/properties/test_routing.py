"""The laws of routing and of order, for arbitrary mixes of subscribers, targets, lanes, starts and unsubscribes."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.conditions import eventually
from support.listeners import Chooser, Listener
from support.messages import Alarm, Note, alarm, note
from support.workers import running
from workerbus import BusMessage, BusSubscriber, MemoryBus

pytestmark = pytest.mark.slow


LANES: Final = (Note, Alarm)
NAMES: Final = ("a", "b", "c")

names = st.sampled_from(NAMES)
targets = st.sampled_from([None, *NAMES, "nobody"])
sends = st.tuples(st.just("send"), st.sampled_from(LANES), targets)
steps = st.one_of(
    sends,
    sends,
    sends,
    st.tuples(st.just("subscribe"), names, st.sampled_from(["all", "own"]), st.integers(0, 2)),
    st.tuples(st.just("unsubscribe"), names),
    st.just(("settle",)),
    st.just(("open",)),
)
laws = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Member(BusSubscriber):
    """A subscriber that knows what it should get."""

    def __init__(self, name: str, receives: Any, checkpoints: int) -> None:
        self._name = name
        self.receives = receives
        self.expected: list[BusMessage] = []
        self.must = 0
        self.got: list[BusMessage] = []
        self.ended = 0
        self._checkpoints = checkpoints

    @property
    def name(self) -> str:
        return self._name

    def expect(self, message: BusMessage) -> None:
        if self.receives == "all" or message.target in (None, self._name):
            self.expected.append(message)

    async def on_bus_message(self, message: BusMessage) -> None:
        self.got.append(message)
        for _ in range(self._checkpoints):
            await checkpoint()
        self.ended += 1

    def settled(self) -> bool:
        return self.ended >= len(self.expected)

    def check(self, *, all_of_it: bool) -> None:
        for lane in LANES:
            got = [message for message in self.got if type(message) is lane]
            expected = [message for message in self.expected if type(message) is lane]
            assert got == (expected if all_of_it else expected[: len(got)])
        assert len(self.got) >= self.must


class Model:
    """Runs a script on a bus, and says what should have come of it."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.here: dict[str, Member] = {}
        self.gone: list[tuple[Member, int]] = []
        self.sent = 0

    async def run(self, script: Sequence[tuple[Any, ...]]) -> None:
        for at, step in enumerate(script):
            if step[0] == "open":
                await self.run_open(script[at + 1 :])
                return
            await self.step(step)
        await self.run_open(())

    async def run_open(self, script: Sequence[tuple[Any, ...]]) -> None:
        async with self.bus:
            for step in script:
                await self.step(step)
            await self.settle()
            for member in self.here.values():
                member.check(all_of_it=True)
            for member, begun in self.gone:
                member.check(all_of_it=False)
                assert len(member.got) == begun, "a delivery began after unsubscribe() had returned"

    async def step(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("send", lane, target):
                message = lane(self.sent, source="me", target=target)
                self.sent += 1
                for member in self.here.values():
                    member.expect(message)
                await self.bus.send(message)
            case ("subscribe", name, receives, checkpoints) if name not in self.here:
                self.here[name] = Member(name, receives, checkpoints)
                await self.bus.subscribe(self.here[name])
            case ("subscribe", name, _, _):
                await self.bus.subscribe(self.here[name])
            case ("unsubscribe", name) if name in self.here:
                member = self.here.pop(name)
                await self.bus.unsubscribe(member)
                self.gone.append((member, len(member.got)))
            case ("settle",) if self.bus.is_open:
                await self.settle()

    async def settle(self) -> None:
        await eventually(lambda: all(member.settled() for member in self.here.values()))
        for member in self.here.values():
            member.must = len(member.expected)


def run(backend: str, main: Callable[[], Any]) -> None:
    clock.run(main, backend=backend, limit=10)


@laws
@given(script=st.lists(steps, max_size=40))
def test_everybody_gets_what_is_theirs_once_and_in_order(backend: str, script: list[tuple[Any, ...]]) -> None:
    """B2, B4, B5, B6: whoever is subscribed when a message is sent gets it, per lane in the order of sending."""
    run(backend, lambda: Model().run(script))


@laws
@given(lanes=st.lists(st.booleans(), max_size=20), checkpoints=st.integers(0, 1))
def test_what_waits_for_the_start_is_handled_system_first(backend: str, lanes: list[bool], checkpoints: int) -> None:
    """B2: at most one data message comes before a system message."""

    async def main() -> None:
        bus, member = MemoryBus(), Member("a", "all", checkpoints)
        await bus.subscribe(member)
        for n, system in enumerate(lanes):
            message = alarm(n) if system else note(n)
            member.expect(message)
            await bus.send(message)
        async with bus:
            await eventually(member.settled)
        member.check(all_of_it=True)
        alarms = [at for at, message in enumerate(member.got) if isinstance(message, Alarm)]
        if checkpoints == 0 and alarms:
            assert alarms[-1] <= len(alarms)

    run(backend, main)


@laws
@given(
    scripts=st.lists(st.lists(st.tuples(st.sampled_from(LANES), targets), max_size=8), max_size=4),
    size=st.integers(1, 3),
    speeds=st.tuples(*(st.integers(0, 3) for _ in NAMES)),
    before=st.booleans(),
)
def test_a_bound_drops_nothing_and_keeps_each_senders_order(
    backend: str,
    scripts: list[list[tuple[type[Note] | type[Alarm], str | None]]],
    size: int,
    speeds: tuple[int, ...],
    before: bool,
) -> None:
    """B9, B2: whatever waits for room, and for how long; and no more than the bound ever waits."""

    async def main() -> None:
        bus = MemoryBus(max_buffer_size=size)
        members = [Member(name, "own", speed) for name, speed in zip(NAMES, speeds, strict=True)]
        for member in members:
            await bus.subscribe(member)

        async def sender(number: int, script: list[tuple[type[Note] | type[Alarm], str | None]]) -> None:
            for n, (lane, target) in enumerate(script):
                message = lane(n, source=f"sender-{number}", target=target)
                for member in members:
                    member.expect(message)
                await bus.send(message)
                for counts in bus.statistics().subscribers.values():
                    assert counts.depth <= size + sum(lane is Alarm for each in scripts for lane, _ in each)

        async with anyio.create_task_group() as tasks:
            for number, script in enumerate(scripts):
                tasks.start_soon(sender, number, script)
            if before:
                await anyio.lowlevel.checkpoint()
            async with bus:
                await eventually(lambda: sum(map(len, scripts)) == bus.statistics().sent)
                await eventually(lambda: all(member.settled() for member in members))
        for member in members:
            for number in range(len(scripts)):
                for lane in LANES:
                    assert _of(member.got, lane, number) == _of(member.expected, lane, number)
            assert len(member.got) == len(member.expected)

    run(backend, main)


@laws
@given(
    script=st.lists(st.one_of(sends, st.just(("pause",))), max_size=30),
    kinds=st.tuples(*(st.sampled_from([Listener, Chooser]) for _ in NAMES)),
    speeds=st.tuples(*(st.integers(0, 2) for _ in NAMES)),
)
def test_workers_get_what_is_theirs_once_and_in_order(
    backend: str, script: list[tuple[Any, ...]], kinds: tuple[type[Listener], ...], speeds: tuple[int, ...]
) -> None:
    """B2, B6: the same for the hooks of workers."""

    async def main() -> None:
        members = [Member(name, "own", speed) for name, speed in zip(NAMES, speeds, strict=True)]
        workers = [kind(member.name, member.on_bus_message) for kind, member in zip(kinds, members, strict=True)]
        async with running(*workers) as runner:
            for n, step in enumerate(script):
                if step == ("pause",):
                    await checkpoint()
                    continue
                _, lane, target = step
                message = lane(n, source="me", target=target)
                for member in members:
                    member.expect(message)
                await runner.bus.send(message)
            await eventually(lambda: all(member.settled() for member in members))
        for member in members:
            member.check(all_of_it=True)

    run(backend, main)


@laws
@given(
    scripts=st.lists(st.lists(targets, max_size=8), max_size=4),
    size=st.integers(1, 3),
    kinds=st.tuples(*(st.sampled_from([Listener, Chooser]) for _ in NAMES)),
    speeds=st.tuples(*(st.integers(0, 3) for _ in NAMES)),
)
def test_a_bound_holds_for_the_hooks_of_workers(
    backend: str,
    scripts: list[list[str | None]],
    size: int,
    kinds: tuple[type[Listener], ...],
    speeds: tuple[int, ...],
) -> None:
    """B9: no more than the bound ever waits, and nothing is dropped."""

    async def main() -> None:
        bus = MemoryBus(max_buffer_size=size)
        members = [Member(name, "own", speed) for name, speed in zip(NAMES, speeds, strict=True)]
        workers = [kind(member.name, member.on_bus_message) for kind, member in zip(kinds, members, strict=True)]
        most = 0

        async def sender(number: int, script: list[str | None]) -> None:
            nonlocal most
            for n, target in enumerate(script):
                message = note(n, target, source=f"sender-{number}")
                for member in members:
                    member.expect(message)
                await bus.send(message)
                statistics = bus.statistics().subscribers
                most = max(most, *(statistics[name].depth for name in NAMES))
                await checkpoint()

        async with running(*workers, bus=bus), anyio.create_task_group() as tasks:
            for number, script in enumerate(scripts):
                tasks.start_soon(sender, number, script)
            total = sum(len(NAMES) if target is None else target in NAMES for each in scripts for target in each)
            await eventually(lambda: sum(member.ended for member in members) == total)
        assert most <= size
        for member in members:
            for number in range(len(scripts)):
                assert _of(member.got, Note, number) == _of(member.expected, Note, number)

    run(backend, main)


def _of(messages: list[BusMessage], lane: type[BusMessage], number: int) -> list[BusMessage]:
    return [message for message in messages if type(message) is lane and message.source == f"sender-{number}"]
