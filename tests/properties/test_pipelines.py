"""P1, P2, L1, L4: what holds for every pipeline, whatever stands in it and whatever befalls it."""

import gc
import logging
from collections import Counter

import hypothesis.strategies as st
import pytest
from anyio import fail_after, sleep
from hypothesis import HealthCheck, given, settings

from properties.pipeline_plans import CANCELS, Plan, plans
from properties.pipeline_world import REFUSAL, Firm, Flash, Numbered, Probe, World
from support.pipelines import DOWN, UP, Spy, flowing, slow, texts
from workerbus import CLEANUP_SECONDS
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    InterruptionFrame,
    ParallelPipeline,
    Pipeline,
    StartFrame,
    StopFrame,
)
from workerbus.testing import run, settle
from workerbus.testing import strategies as these

pytestmark = pytest.mark.slow


GRACE = 5.0
STUCK = ("set-up hangs", "start hangs", "frame hangs", "frame refuses", "end swallowed")
SLACK = 0.001
SOME = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

MORE = settings(SOME, max_examples=70)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="workerbus")


def lived(plan: Plan, backend: str, seed: int) -> World:
    async def main() -> World:
        world = World(plan)
        await world.live()
        return world

    return run(main, backend=backend, seed=seed, limit=1000.0)


@SOME
@given(plan=plans(), seed=these.seeds())
def test_a_graceful_end_loses_nothing(backend: str, plan: Plan, seed: int) -> None:
    """P1, P2: but what an interruption drops, and the one frame at which a processor raises."""
    world = lived(plan, backend, seed)
    check_order(world)
    check_ends(world)
    check_start(world)
    assert world.graceful
    assert not world.forced
    check_system_frames(world)
    check_overtaking(world)
    check_interruptions(world)
    check_bounds(world)
    check_losses(world)
    raised = [event.frame for event in world.events if event.what == "raises"]
    assert Counter(map(id, raised)) == Counter(id(frame.exception) for frame in world.errors)


@MORE
@given(plan=plans(troubles=True), seed=these.seeds())
def test_every_end_is_one_and_in_time(backend: str, plan: Plan, seed: int) -> None:
    """P2, L1, L4: before, during and after the start, with processors that are stuck, and several ends at once."""
    world = lived(plan, backend, seed)
    check_order(world)
    check_ends(world)
    check_start(world)
    check_time(world)
    assert not world.forced or plan.trouble in STUCK
    if world.graceful:
        check_losses(world)


def interrupted(world: World) -> bool:
    return world.plan.jolt or any(what == "interrupt" for what, _ in world.plan.script)


def check_order(world: World) -> None:
    for way in (DOWN, UP):
        for probe, _, orderly in world.expected(way, world.queued(way)):
            numbers = world.numbers(probe, way)
            assert len(numbers) == len(set(numbers)), "a frame came twice"
            assert not orderly or numbers == sorted(numbers)


def check_losses(world: World) -> None:
    for way in (DOWN, UP):
        frames = [frame for frame, went, _ in world.sent if went is way and isinstance(frame, Numbered)]
        if interrupted(world):
            frames = [
                each for each in frames if each.is_uninterruptible or (way is DOWN and each.number in world.after)
            ]
        for probe, numbers, _ in world.expected(way, {frame.number for frame in frames}):
            assert numbers <= set(world.numbers(probe, way)), "a frame was lost"


def check_ends(world: World) -> None:
    """One end for one start, and one clean-up for one set-up."""
    assert world.started <= 1
    assert len(world.finished) == world.started
    for probe in world.probes:
        assert len(world.got(probe, DOWN, (EndFrame, StopFrame))) <= 1
    if world.finished and isinstance(world.finished[0], CancelFrame) and world.plan.trouble not in STUCK:
        calm = all(probe.step.lingers < 1 for probe in world.probes)
        assert not calm or all(len(world.got(probe, DOWN, CancelFrame)) == 1 for probe in world.probes)
    cleaned, stopped = world.count("cleaned up"), any(isinstance(frame, StopFrame) for frame in world.finished)
    assert cleaned == (Counter() if stopped else world.count("set up"))


def check_start(world: World) -> None:
    """The start is everywhere before anything else is anywhere."""
    begun = [event for event in world.events if event.what == "begins"]
    others = [n for n, event in enumerate(begun) if not isinstance(event.frame, StartFrame)]
    if others:
        assert others[0] == len(world.probes)
        assert {event.probe for event in begun[: others[0]]} == set(world.probes)


def check_time(world: World) -> None:
    """A cancel is over by the deadline of the wind-down, but for what refuses it; an end, by that of its grace."""
    bound = world.asked + CLEANUP_SECONDS + SLACK
    if not any(how in CANCELS for how in world.plan.ends):
        if not world.forced and "end" not in world.plan.ends:
            return
        bound += GRACE
    assert world.over <= bound + sum(probe.step.lingers for probe in world.probes) + REFUSAL * (
        world.plan.trouble == "frame refuses"
    )
    assert all(event.at <= bound for event in world.events if event.what == "cleaned up")


def check_system_frames(world: World) -> None:
    """They come at once to every processor, whatever the data lanes do, and once."""
    started = max(event.at for event in world.events if event.what == "pushes" and isinstance(event.frame, StartFrame))
    for frame, way, at in world.sent:
        if isinstance(frame, Flash | InterruptionFrame):
            came = [event for event in world.events if event.what == "begins" and event.frame is frame]
            assert Counter(event.probe for event in came) == Counter(world.probes)
            if not any(probe.step.urgent or probe.step.lingers for probe in world.probes):
                assert {event.at for event in came} == {max(at, started)}
            assert {event.way for event in came} == {way}


def check_overtaking(world: World) -> None:
    """Between the push of a system frame and its handling, a processor begins with one data frame at most."""
    for before, after in world.neighbours():
        if after.step.urgent or after.step.lingers:
            continue  # others wait behind a system frame that is being handled
        pushed: dict[int, int] = {}
        begun = 0
        for event in world.events:
            if event.probe is after and event.what == "begins" and isinstance(event.frame, Numbered):
                begun += 1
            elif isinstance(event.frame, Flash) and event.way is DOWN:
                if event.probe is before and event.what == "pushes":
                    pushed[event.frame.id] = begun
                elif event.probe is after and event.what == "begins":
                    assert begun - pushed[event.frame.id] <= 1


def check_bounds(world: World) -> None:
    """No more frames wait for a processor than it has room for."""
    for before, after in world.neighbours():
        waiting = 0
        for event in world.events:
            if before is None or not after.step.bound or interrupted(world):
                break
            if isinstance(event.frame, Numbered) and event.way is DOWN:
                waiting += event.probe is before and event.what == "has pushed"
                waiting -= event.probe is after and event.what == "begins"
                assert waiting <= after.step.bound


def check_interruptions(world: World) -> None:
    """What was queued before it is not begun where it has been, and what is being handled is over before it is."""
    handled: dict[Probe | None, Frame] = {}
    for event in world.events:
        if isinstance(event.frame, Numbered) and not event.frame.is_uninterruptible:
            if event.what == "begins":
                handled[event.probe] = event.frame
            elif event.what == "leaves":
                del handled[event.probe]
        assert event.what != "begins" or not isinstance(event.frame, InterruptionFrame) or event.probe not in handled
    frames = [frame for frame, way, _ in world.sent if way is DOWN]
    for n, frame in enumerate(frames):
        if isinstance(frame, InterruptionFrame):
            older = {each.id for each in frames[:n] if isinstance(each, Numbered) and not each.is_uninterruptible}
            for probe in world.probes:
                begun = [event.frame.id for event in world.events if event.probe is probe and event.what == "begins"]
                assert older.isdisjoint(begun[begun.index(frame.id) :])


class Count(FrameProcessor):
    """Counts what comes, and passes it on."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.counted += 1
        await self.push_frame(frame, direction)


class Interrupts(Count):
    """Interrupts its own pipeline at every third frame, and does not suspend before it has done with that."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, Numbered) and frame.number % 3 == 0:
            await self.worker.queue_frame(InterruptionFrame())
        elif isinstance(frame, Numbered):
            await sleep(0.01)
        await super().process_frame(frame, direction)


@SOME
@given(seed=these.seeds(), count=st.integers(1, 20), branched=st.booleans())
def test_a_handler_that_ends_in_the_step_of_its_interruption_takes_nothing_with_it(
    backend: str, seed: int, count: int, branched: bool
) -> None:
    """P1: what is not to be dropped is handled as ever."""

    async def main() -> set[int]:
        last = Spy()
        parts = [Count(), Interrupts()]
        async with flowing(ParallelPipeline(parts) if branched else Pipeline(parts), last) as worker:
            for number in range(count):
                await worker.queue_frame(Firm(number) if number % 3 == 1 else Numbered(number))
        return {frame.number for frame in last.got if isinstance(frame, Firm)}

    assert run(main, backend=backend, seed=seed) == set(range(1, count, 3))


async def test_an_interruption_does_not_stop_an_end_that_waits_for_frames_upstream() -> None:
    """P1, P2"""
    async with flowing(Spy(slow(1)), Spy()) as worker:
        await worker.queue_frames(texts("a", "b", "c"), UP)
        await worker.stop_when_done()
        await sleep(0.5)
        await worker.queue_frame(InterruptionFrame())
        with fail_after(1):
            await worker.wait()


def test_many_frames_leave_no_more_than_few(backend: str) -> None:
    """What lives after twenty thousand frames, through branches and back, lived after ten thousand."""

    async def main() -> list[int]:
        sink, alive = Count(), []
        fork = ParallelPipeline([Count(), Count()], Pipeline([Count()]))
        async with flowing(Pipeline([Count(), fork]), sink) as worker:
            for _ in range(4):
                for n in range(100):
                    for way in (DOWN, UP):
                        await worker.queue_frames([Numbered(number) for number in range(25)], way)
                    await settle()
                    await worker.queue_frames([Flash(n), InterruptionFrame()])
                    await settle()
                gc.collect()
                alive.append(len(gc.get_objects()))
            assert sink.counted == 20_801
        return alive

    alive = run(main, backend=backend, limit=600.0)
    assert alive[-1] - alive[1] < 100, alive
