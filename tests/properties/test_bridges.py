"""P3, P4, W3: what holds of frames between pipelines and the bus, whoever is active, and however late messages are."""

import logging
from itertools import product
from typing import Any, Final

import anyio
import hypothesis.strategies as st
import pytest
from attrs import frozen
from hypothesis import HealthCheck, given, settings

from properties.bridge_world import (
    INTERRUPTED,
    MEMBERS,
    NAMES,
    PACES,
    SCRIPTS,
    WAYS,
    Answer,
    Call,
    Ear,
    Member,
    Passer,
    Question,
    Reply,
    World,
    rest,
)
from support.leaks import nothing_left
from support.pipelines import DOWN, UP
from support.subscribers import Plain
from workerbus import BusBridgeProcessor, BusFrameMessage, MemoryBus, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    InterruptionFrame,
    Pipeline,
    SystemFrame,
)
from workerbus.testing import Faults, FaultyBus, run, settle
from workerbus.testing import strategies as these

pytestmark = pytest.mark.slow


SOME = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="workerbus")


def check_turns(world: World) -> None:
    """No number is answered twice, and each worker answers what it takes, in order."""
    everything = world.answers(Answer) + world.answers(Reply)
    numbers = [number for number, _ in everything]
    assert len(numbers) == len(set(numbers))
    assert set(everything) <= set(world.taken)
    for kind in (Answer, Reply):
        for name in NAMES:
            own = [number for number, by in world.answers(kind) if by == name]
            assert own == sorted(own)


@pytest.mark.parametrize("bounded", [False, True])
@SOME
@given(
    members=st.lists(MEMBERS, min_size=2, max_size=3),
    way=WAYS,
    early=st.integers(0, 3),
    script=SCRIPTS,
    seed=these.seeds(),
)
def test_each_question_is_answered_once_by_who_was_active(
    backend: str, bounded: bool, members: list[Member], way: FrameDirection, early: int, script: Any, seed: int
) -> None:
    """W3, P3: handed over again and again, from outside and by a handler, under slow processors."""

    async def main() -> None:
        world = World(MemoryBus(max_buffer_size=1) if bounded else MemoryBus(), way, members)
        async with world.running(early) as front:
            await world.play(front, script)
        check_turns(world)
        assert sorted(world.to) == list(range(1, world.asked + 1))
        assert all(len(active) == 1 for active in world.to.values())
        due = sorted((number, active[0]) for number, active in world.to.items())
        assert sorted(world.taken) == due
        assert sorted(world.answers(Answer) + world.answers(Reply)) == due
        assert len(world.messages) == 2 * len(due), "somebody echoes"

    run(main, backend=backend, seed=seed)


@SOME
@given(members=st.lists(MEMBERS, min_size=2, max_size=3), way=WAYS, script=INTERRUPTED, seed=these.seeds())
def test_interruptions_cross_and_drop_nothing_that_comes_later(
    backend: str, members: list[Member], way: FrameDirection, script: Any, seed: int
) -> None:
    """P1, P3: between hand-overs, too."""

    async def main() -> None:
        world = World(MemoryBus(), way, members)
        async with world.running(0) as front:
            await world.play(front, script)
        check_turns(world)
        answered = [number for number, _ in world.answers(Answer) + world.answers(Reply)]
        assert set(world.late) <= set(answered)
        assert all(world.to[number] == [by] for number, by in world.taken)

    run(main, backend=backend, seed=seed)


@SOME
@given(
    members=st.lists(MEMBERS, min_size=2, max_size=3),
    way=WAYS,
    script=SCRIPTS,
    faults=these.fault_plans(0.05, kinds=["delay"]),
    seed=these.seeds(),
)
def test_messages_that_are_late_are_answered_in_order_and_by_nobody_twice(
    backend: str, members: list[Member], way: FrameDirection, script: Any, faults: Faults, seed: int
) -> None:
    """W3, P3: what arrives between the two steps of a hand-over meets nobody; all else is answered."""

    async def main() -> None:
        world = World(FaultyBus(MemoryBus(), seed=seed, faults=faults), way, members)
        async with world.running(0) as front:
            await world.play(front, script)
        check_turns(world)
        answers = world.answers(Answer) + world.answers(Reply)
        assert sorted(answers) == sorted(world.taken)
        assert len(world.messages) == world.asked + len(answers), "somebody echoes"
        if not any(what in ("hand over", "ask to hand over") for what, _ in script):
            assert sorted(answers) == [(number, "a") for number in range(1, world.asked + 1)]

    run(main, backend=backend, seed=seed)


# --- several that are active at once


CROWDS = st.lists(st.tuples(st.integers(0, 2), WAYS, st.booleans(), st.sampled_from((0, 0, 0.01))), max_size=20)


@SOME
@given(
    paces=st.tuples(*[st.none() | PACES] * 3),
    crowd=CROWDS,
    early=st.integers(0, 5),
    leaver=st.none() | st.integers(0, 2),
    faults=these.fault_plans(0.05, kinds=["delay"]),
    seed=these.seeds(),
)
def test_active_workers_hear_each_other_once_and_do_not_echo(
    backend: str, paces: tuple[float | None, ...], crowd: Any, early: int, leaver: int | None, faults: Faults, seed: int
) -> None:
    """P2, P3, W3: each frame crosses once, keeps its direction, and comes in its sender's order.

    Each says something while it starts, some frames are queued before the run, and one worker may be deactivated with
    frames on their way through it.
    """

    async def main() -> None:
        bus = FaultyBus(MemoryBus(), seed=seed, faults=faults) if faults.draws else MemoryBus()
        ears = [Ear(Answer(0, name)) for name in NAMES]
        workers = [
            PipelineWorker(
                Pipeline([ear] if pace is None else [Passer(pace), ear, Passer(pace)]), name=name, bridged=()
            )
            for name, pace, ear in zip(NAMES, paces, ears, strict=True)
        ]

        async def queue(some: Any) -> None:
            for number, (who, way, urgent, pause) in some:
                await workers[who].queue_frame(Call(number) if urgent else Question(number), way)
                await rest(pause)

        hearer = Plain("hearer")
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        async with nothing_left(runner):
            await bus.subscribe(hearer)
            await runner.add_workers(*workers)
            await queue(list(enumerate(crowd))[:early])
            async with runner:
                for name in NAMES:
                    await runner.registry.wait_for(name)
                await queue(list(enumerate(crowd))[early:])
                if leaver is not None:
                    await workers[leaver].deactivate_worker(NAMES[leaver])
                await anyio.sleep(60)
                if leaver is not None:
                    await workers[leaver].queue_frames([Answer(0, "too late"), Reply(0, "too late")])
                    await anyio.sleep(1)
            await bus.unsubscribe(hearer)
        assert len(hearer.of(BusFrameMessage)) == len(crowd) + len(NAMES)
        cases: list[tuple[int, FrameDirection, type[Any]]] = list(product(range(3), (DOWN, UP), (Question, Call)))
        for me, ear in enumerate(ears):
            greeted = sorted(frame.by for frame, _ in ear.heard if isinstance(frame, Answer) and frame.by in NAMES)
            assert me == leaver or greeted == [name for name in NAMES if name != NAMES[me]]
            for who, way, kind in cases:
                came = [frame.number for frame, went in ear.heard if isinstance(frame, kind) and went is way]
                sent = [
                    n for n, (by, to, urgent, _) in enumerate(crowd) if (by, to, urgent) == (who, way, kind is Call)
                ]
                heard = [number for number in came if crowd[number][0] == who]
                assert heard == (sent if me != leaver or me == who else sent[: len(heard)])

    run(main, backend=backend, seed=seed)


# --- filters


TAGS = st.sampled_from((None, "one", "two"))
WHO = st.sampled_from(("x", "y", "w"))
KINDS: Final[tuple[Any, ...]] = (Question, Call, ErrorFrame, InterruptionFrame)
EXCLUDED = st.sampled_from(((), (Question,), (SystemFrame,), (Call, InterruptionFrame)))


@frozen
class Parcel:
    """A message that brings a frame."""

    kind: type[Any]
    way: FrameDirection
    bridge: str | None
    source: str
    target: str | None

    def pack(self, number: int) -> BusFrameMessage:
        frame = self.kind() if self.kind is InterruptionFrame else self.kind(number)
        frame.metadata["number"] = number
        return BusFrameMessage(frame, self.way, self.bridge, source=self.source, target=self.target)

    def may_cross(self, excluded: tuple[type[Frame], ...]) -> bool:
        return self.kind is not ErrorFrame and not issubclass(self.kind, excluded)


PARCELS = st.lists(st.builds(Parcel, st.sampled_from(KINDS), WAYS, TAGS, WHO, st.none() | WHO), max_size=12)
BRIDGED = st.sampled_from((None, (), ("one",), ("one", "two")))


async def numbers_through(ear: Ear, worker: PipelineWorker, messages: list[BusFrameMessage]) -> list[Any]:
    """What a worker lets in, and which way it goes; system frames apart, since they overtake."""
    runner = WorkerRunner(bus=MemoryBus(), handle_sigint=False)
    async with runner:
        await runner.add_workers(worker)
        await runner.registry.wait_for(worker.name)
        for message in messages:
            await runner.bus.send(message)
            await settle()
    return [(frame.metadata["number"], way) for frame, way in ear.heard]


@SOME
@given(parcels=PARCELS, bridged=BRIDGED, excluded=EXCLUDED, seed=these.seeds())
def test_a_bridged_worker_takes_what_is_for_it(
    backend: str, parcels: list[Parcel], bridged: Any, excluded: Any, seed: int
) -> None:
    """P3: by bridge, target, source and class, and in its direction."""

    async def main() -> None:
        ear = Ear()
        worker = PipelineWorker(Pipeline([ear]), name="w", bridged=bridged, exclude_frames=excluded)
        expected = [
            (number, parcel.way)
            for number, parcel in enumerate(parcels)
            if bridged is not None
            and parcel.source != "w"
            and parcel.target in (None, "w")
            and (not bridged or parcel.bridge in bridged)
            and parcel.may_cross(excluded)
        ]
        assert await numbers_through(ear, worker, [p.pack(n) for n, p in enumerate(parcels)]) == expected

    run(main, backend=backend, seed=seed)


@SOME
@given(
    parcels=PARCELS,
    task=st.none() | WHO.filter(lambda name: name != "w"),
    tag=TAGS,
    excluded=EXCLUDED,
    seed=these.seeds(),
)
def test_a_bridge_takes_what_is_for_it(
    backend: str, parcels: list[Parcel], task: str | None, tag: str | None, excluded: Any, seed: int
) -> None:
    """P4: by bridge, target, source and class, and in its direction; none of it goes out again."""

    async def main() -> None:
        bus = MemoryBus()
        before, after = Ear(), Ear()
        bridge = BusBridgeProcessor(
            bus=bus, worker_name="w", target_task=task, bridge=tag, exclude_frames=excluded, name="bridge"
        )
        worker = PipelineWorker(Pipeline([before, bridge, after]), name="w")
        expected = [
            (number, parcel.way)
            for number, parcel in enumerate(parcels)
            if parcel.source != "w"
            and parcel.target in (None, "w")
            and task in (None, parcel.source)
            and tag in (None, parcel.bridge)
            and parcel.may_cross(excluded)
        ]
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        hearer = Plain("hearer")
        await bus.subscribe(hearer)
        async with runner:
            await runner.add_workers(worker)
            await runner.registry.wait_for("w")
            for number, parcel in enumerate(parcels):
                await bus.send(parcel.pack(number))
                await settle()
        assert all(way is UP for _, way in before.heard)
        assert all(way is DOWN for _, way in after.heard)
        for ear, way in ((before, UP), (after, DOWN)):
            assert [f.metadata["number"] for f, _ in ear.heard] == [n for n, to in expected if to is way]
        assert len(hearer.of(BusFrameMessage)) == len(parcels)

    run(main, backend=backend, seed=seed)


@SOME
@given(
    frames=st.lists(st.tuples(st.sampled_from(KINDS), WAYS), max_size=12),
    bridged=BRIDGED,
    excluded=EXCLUDED,
    active=st.booleans(),
    seed=these.seeds(),
)
def test_a_bridged_worker_sends_what_leaves_it(
    backend: str, frames: Any, bridged: Any, excluded: Any, active: bool, seed: int
) -> None:
    """P3, W4: once for each bridge, in its direction, while it is active."""

    async def main() -> None:
        worker = PipelineWorker(
            Pipeline([FrameProcessor()]), name="w", bridged=bridged, exclude_frames=excluded, active=active
        )
        runner = WorkerRunner(bus=MemoryBus(), handle_sigint=False)
        hearer = Plain("hearer")
        parcels = [Parcel(kind, way, None, "w", None) for kind, way in frames]
        await runner.bus.subscribe(hearer)
        async with runner:
            await runner.add_workers(worker)
            await runner.registry.wait_for("w")
            for number, parcel in enumerate(parcels):
                await worker.queue_frame(parcel.pack(number).frame, parcel.way)
                await settle()
        sent: list[Any] = hearer.of(BusFrameMessage)
        assert [(m.frame.metadata["number"], m.direction, m.bridge, m.source, m.target) for m in sent] == [
            (number, parcel.way, tag, "w", None)
            for number, parcel in enumerate(parcels)
            if active and bridged is not None and parcel.may_cross(excluded)
            for tag in bridged or (None,)
        ]

    run(main, backend=backend, seed=seed)
