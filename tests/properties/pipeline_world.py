"""A pipeline as a `Plan` says, what befalls it, and what may be said of it afterwards.

A `World` writes down, in one list, what every processor gets. The laws in ``test_pipelines`` are about that list.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from properties.pipeline_plans import CANCELS, Doing, First, Fork, Part, Plan, Row, Step, Trouble, falls, size
from support.leaks import nothing_left
from support.pipelines import DOWN, UP
from workerbus import NotRunningError, PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
    InterruptionFrame,
    ParallelPipeline,
    Pipeline,
    StartFrame,
    StopFrame,
    SyncParallelPipeline,
    SystemFrame,
    UninterruptibleFrame,
    frame_type,
)
from workerbus.testing import settle

LONG: Final = 300.0
"""Longer than any pipeline takes that can come to its end by itself."""


REFUSAL: Final = 4.0
"""Longer than a wind-down."""


@frame_type
class Numbered(DataFrame):
    """Data, one of many."""

    number: int


@frame_type
class Firm(Numbered, UninterruptibleFrame):
    """Data that no interruption drops."""


@frame_type
class Flash(SystemFrame):
    """A system frame, one of many."""

    number: int


@frozen
class Event:
    """Something that a processor did.

    Args:
        probe: The processor; None for who queues frames.
        what: "begins", "leaves", "pushes" or "has pushed", with a frame; "set up", "cleaned up", "raises".
    """

    at: float
    probe: "Probe | None"
    what: str
    frame: Any = None
    way: FrameDirection = DOWN


class Probe(FrameProcessor):
    """A processor as a `Step` says, which writes down what it does."""

    def __init__(self, world: "World", step: Step) -> None:
        super().__init__(max_buffer_size=step.bound or float("inf"))
        self.world = world
        self.step = step
        self.trouble: Trouble = ""

    def note(self, what: str, frame: Any = None, way: FrameDirection = DOWN) -> None:
        self.world.events.append(Event(anyio.current_time(), self, what, frame, way))

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        if self.trouble == "set-up fails":
            raise ValueError("no set-up")
        if self.trouble == "set-up hangs":
            await anyio.sleep_forever()
        self.note("set up")

    async def cleanup(self) -> None:
        self.note("cleaned up")
        await super().cleanup()
        if self.trouble == "clean-up fails":
            raise ValueError("no clean-up")
        if self.trouble == "clean-up hangs":
            await anyio.sleep_forever()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.note("begins", frame, direction)
        if isinstance(frame, StartFrame):
            await self._start()
        elif isinstance(frame, Numbered):
            await self._work(frame)
        elif isinstance(frame, Flash | InterruptionFrame) and self.step.urgent:
            await anyio.sleep(self.step.urgent)
        elif isinstance(frame, EndFrame | StopFrame):
            if self.trouble == "end swallowed":
                return
            if self.trouble == "end raises" and direction is DOWN:
                raise ValueError("no end")
        self.note("pushes", frame, direction)
        await self.push_frame(frame, direction)
        self.note("has pushed", frame, direction)

    async def _start(self) -> None:
        if self.trouble == "start fails":
            raise ValueError("no start")
        if self.trouble == "start hangs":
            await anyio.sleep_forever()
        if self.step.start:
            await anyio.sleep(self.step.start)

    async def _work(self, frame: Numbered) -> None:
        step = self.step
        try:
            if self.trouble in ("frame hangs", "frame refuses") and frame.number % 2:
                await anyio.sleep_forever()
            if step.pace:
                await anyio.sleep(step.pace)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.sleep(REFUSAL if self.trouble == "frame refuses" else step.lingers)
            raise
        finally:
            self.note("leaves", frame)
        if falls(step, frame.number):
            error = ValueError(frame.number)
            self.note("raises", error)
            raise error


@define(eq=False, repr=False)
class World:
    """A plan that is carried out.

    Attributes:
        events: All that the processors did.
        probes: The processors, in the order in which they were made: downstream, branch by branch.
        sent: Frames whose queueing returned before an end was asked for, and when it did.
        after: The numbers that went down behind the last interruption.
        asked: When it was last asked to end.
        over: When it had ended.
    """

    plan: Plan
    events: list[Event] = field(factory=list)
    probes: list[Probe] = field(factory=list)
    sent: list[tuple[Frame, FrameDirection, float]] = field(factory=list)
    after: set[int] = field(factory=set)
    started: int = 0
    finished: list[Frame] = field(factory=list)
    errors: list[ErrorFrame] = field(factory=list)
    asked: float = 0
    over: float = 0
    forced: bool = False
    _numbers: Iterator[int] = field(factory=lambda: iter(range(1, 10_000)))
    _done: anyio.Event = field(factory=anyio.Event)
    _scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    _shutdown: bool = False

    # --- what there is

    def build(self, row: Row) -> Pipeline:
        """Make the pipeline."""
        return Pipeline([self._part(part) for part in row.parts])

    def _part(self, part: Part) -> Probe | Pipeline | ParallelPipeline:
        if isinstance(part, Row):
            return self.build(part)
        if isinstance(part, Fork):
            kind = SyncParallelPipeline if part.synchronized else ParallelPipeline
            return kind(*map(self.build, part.branches))
        probe = Probe(self, part)
        self.probes.append(probe)
        return probe

    # --- what happens

    async def live(self) -> None:
        """Carry the plan out."""
        worker = PipelineWorker(self.build(self.plan.row), name="w")
        self.probes[self.plan.culprit % len(self.probes)].trouble = self.plan.trouble
        worker.add_event_handler("on_pipeline_started", self._note_start)
        worker.add_event_handler("on_pipeline_finished", lambda _, frame: self.finished.append(frame))
        worker.add_event_handler("on_pipeline_error", lambda _, frame: self.errors.append(frame))
        runner = WorkerRunner(handle_sigint=False)
        runner.add_event_handler("on_error", lambda *_: None)
        async with nothing_left(runner):
            await runner.add_workers(worker)
            for doing in self.plan.script[: self.plan.early]:
                await self._do(worker, doing)
            async with anyio.create_task_group() as group:
                group.start_soon(self._run, runner)
                group.start_soon(self._end, runner, worker, script := anyio.Event(), group)
                try:
                    for doing in self.plan.script[self.plan.early :]:
                        await self._do(worker, doing)
                except NotRunningError:
                    assert self._shutdown or self.plan.trouble
                script.set()
            count = len(self.events)
            await settle()
            assert len(self.events) == count

    def _note_start(self, worker: PipelineWorker, frame: StartFrame) -> None:
        self.started += 1

    async def _run(self, runner: WorkerRunner) -> None:
        with self._scope:
            await runner.run()
        self.over = anyio.current_time()
        self._done.set()

    async def _do(self, worker: PipelineWorker, doing: Doing) -> None:
        what, much = doing
        if what == "wait":
            await anyio.sleep(much)
        elif what == "settle":
            await settle()
        elif what == "interrupt":
            self.after.clear()
            await self._queue(worker, InterruptionFrame(), DOWN)
        elif what in ("flash", "flash up"):
            await self._queue(worker, Flash(next(self._numbers)), UP if what == "flash up" else DOWN)
        else:
            for _ in range(max(1, int(much))):
                number = next(self._numbers)
                frame = Firm(number) if what == "firm" else Numbered(number)
                await self._queue(worker, frame, UP if what == "up" else DOWN)
                if what != "up":
                    self.after.add(number)
            if what == "burst":
                await self._queue(worker, Flash(next(self._numbers)), DOWN)

    async def _queue(self, worker: PipelineWorker, frame: Frame, way: FrameDirection) -> None:
        at = anyio.current_time()
        self.events.append(Event(at, None, "pushes", frame, way))
        await worker.queue_frame(frame, way)
        if not self._shutdown:
            self.sent.append((frame, way, at))

    async def _end(self, runner: WorkerRunner, worker: PipelineWorker, script: anyio.Event, group: TaskGroup) -> None:
        with anyio.move_on_after(LONG if self.plan.hurry is None else self.plan.hurry):
            await script.wait()
        for how in self.plan.ends:
            self._shutdown = True
            self.asked = anyio.current_time()
            group.start_soon(self._end_by, how, runner, worker)  # it may wait for room
            with anyio.move_on_after(self.plan.pause):
                await self._done.wait()
            with suppress(NotRunningError):
                if self.plan.jolt:
                    self.after.clear()
                    await worker.queue_frame(InterruptionFrame())
        if not any(how in CANCELS for how in self.plan.ends):
            with anyio.move_on_after(LONG):
                await self._done.wait()
        if not self._done.is_set() and not any(how in (*CANCELS, "end") for how in self.plan.ends):
            self.forced = True
            self.asked = anyio.current_time()
            await runner.end()
        with anyio.fail_after(LONG):
            await self._done.wait()

    async def _end_by(self, how: First, runner: WorkerRunner, worker: PipelineWorker) -> None:
        if how in ("end", "cancel"):
            await (runner.end if how == "end" else runner.cancel)()
        elif how == "scope":
            self._scope.cancel()
        elif how == "stop":
            await worker.stop()
        elif how == "stop_when_done":
            await worker.stop_when_done()
        else:
            kind = {"EndFrame": EndFrame, "StopFrame": StopFrame, "CancelFrame": CancelFrame}[how.split()[0]]
            try:
                await worker.queue_frame(kind(), UP if how.endswith(" up") else DOWN)
            except NotRunningError:
                assert len(self.plan.ends) > 1 or self.plan.trouble

    # --- what may be said of it

    @property
    def graceful(self) -> bool:
        """Whether it came to its end by draining."""
        return len(self.finished) == 1 and isinstance(self.finished[0], EndFrame | StopFrame)

    def got(self, probe: Probe, way: FrameDirection, kind: type[Frame] | tuple[type[Frame], ...]) -> list[Any]:
        """The frames of a kind that a processor got, in its order."""
        return [
            event.frame
            for event in self.events
            if event.probe is probe and event.what == "begins" and event.way is way and isinstance(event.frame, kind)
        ]

    def numbers(self, probe: Probe, way: FrameDirection) -> list[int]:
        """The numbers of the data frames that a processor got."""
        return [frame.number for frame in self.got(probe, way, Numbered)]

    def queued(self, way: FrameDirection) -> set[int]:
        """The numbers of the data frames that were queued, also when the pipeline had been asked to end."""
        queued = [event.frame for event in self.events if event.probe is None and event.way is way]
        return {frame.number for frame in queued if isinstance(frame, Numbered)}

    def neighbours(self) -> Iterator[tuple[Probe | None, Probe]]:
        """Processors that push to each other, with nothing in between; None is who queues frames."""
        probes, before = iter(self.probes), True
        last: Probe | None = None
        for part in self.plan.row.parts:
            found = [next(probes) for _ in range(size(part))]
            if isinstance(part, Step) and before:
                yield last, found[0]
            last, before = found[-1], isinstance(part, Step)

    def count(self, what: str) -> "Counter[Probe | None]":
        """How often each processor did something."""
        return Counter(event.probe for event in self.events if event.what == what)

    def expected(self, way: FrameDirection, numbers: set[int]) -> list[tuple[Probe, set[int], bool]]:
        """What each processor should get of these frames, and whether they come to it in their order."""
        probes = iter(self.probes if way is DOWN else reversed(self.probes))
        found: list[tuple[Probe, set[int], bool]] = []

        def through(part: Part, come: set[int], orderly: bool) -> tuple[set[int], bool]:
            if isinstance(part, Step):
                found.append((next(probes), come, orderly))
                return {number for number in come if not falls(part, number)}, orderly
            if isinstance(part, Row):
                for each in part.parts if way is DOWN else reversed(part.parts):
                    come, orderly = through(each, come, orderly)
                return come, orderly
            branches = part.branches if way is DOWN else tuple(reversed(part.branches))
            out = [through(branch, come, orderly) for branch in branches]
            # What one branch loses and another lets out late comes behind its successors, unless these have to wait.
            tidy = all(tidy and (part.synchronized or left == come) for left, tidy in out)
            return set().union(*(left for left, _ in out)), tidy

        through(self.plan.row, numbers, True)
        return found
