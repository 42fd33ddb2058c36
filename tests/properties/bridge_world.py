"""A front pipeline and workers that take turns behind it, drawn by hypothesis, for the laws in ``test_bridges``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, get_args

import anyio
import hypothesis.strategies as st
from attrs import define, field, frozen

from support.leaks import nothing_left
from support.pipelines import DOWN, UP
from support.subscribers import Plain
from workerbus import BusBridgeProcessor, BusFrameMessage, BusMessage, PipelineWorker, WorkerBus, WorkerRunner
from workerbus.pipeline import (
    DataFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    InterruptionFrame,
    ParallelPipeline,
    Pipeline,
    StartFrame,
    SystemFrame,
    frame_type,
)
from workerbus.testing import settle

NAMES: Final = ("a", "b", "c")
PACES = st.sampled_from((0, 0, 0.01, 0.03))
WAYS = st.sampled_from((DOWN, UP))


@frame_type
class Question(DataFrame):
    """One of many; whoever gets it first hands over, if it says to whom."""

    number: int
    then: str | None = None


@frame_type
class Answer(DataFrame):
    """What a worker says to a question."""

    number: int
    by: str


@frame_type
class Call(SystemFrame):
    """A question that overtakes."""

    number: int


@frame_type
class Reply(SystemFrame):
    """What a worker says to a call."""

    number: int
    by: str


class Telling(BusBridgeProcessor):
    """Notes who is active when a question goes out."""

    def __init__(self, world: "World", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.world = world

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, Question | Call):
            self.world.to[frame.number] = [
                each.name for each in self.world.agents if each.active or each.will_be_active
            ]
        await super().process_frame(frame, direction)


class Taker(FrameProcessor):
    """Where frames come into an agent."""

    def __init__(self, world: "World", plan: "Member") -> None:
        super().__init__()
        self.world = world
        self.plan = plan

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await rest(self.plan.start)
        if isinstance(frame, Question | Call):
            self.world.taken.append((frame.number, self.worker.name))
            await rest(self.plan.paces[0])
        if isinstance(frame, Question) and frame.then and self.worker.active and frame.then != self.worker.name:
            await self.worker.activate_worker(frame.then, deactivate_self=True)
        await self.push_frame(frame, direction)


class Answerer(FrameProcessor):
    """Turns questions into answers, in their direction."""

    def __init__(self, pace: float) -> None:
        super().__init__()
        self.pace = pace

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, Question | Call):
            await rest(self.pace)
            kind = Answer if isinstance(frame, Question) else Reply
            frame = kind(frame.number, self.worker.name)
        await self.push_frame(frame, direction)


@frame_type
class Turned(DataFrame):
    """A question or a call on its way back, to be answered where it came in."""

    of: Question | Call


class Turner(FrameProcessor):
    """One of two at the ends of an agent: sends questions back, and answers those that have been."""

    def __init__(self, pace: float, *, far: bool) -> None:
        super().__init__()
        self.pace = pace
        self.far = far

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if self.far and isinstance(frame, Question | Call):
            await rest(self.pace)
            frame, direction = Turned(frame), UP if direction is DOWN else DOWN
        elif not self.far and isinstance(frame, Turned):
            await rest(self.pace)
            kind = Answer if isinstance(frame.of, Question) else Reply
            frame, direction = kind(frame.of.number, self.worker.name), UP if direction is DOWN else DOWN
        await self.push_frame(frame, direction)


class Passer(FrameProcessor):
    """Passes everything on, in its time."""

    def __init__(self, pace: float) -> None:
        super().__init__()
        self.pace = pace

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, DataFrame):
            await rest(self.pace)
        await self.push_frame(frame, direction)


class Ear(FrameProcessor):
    """Keeps what it gets but the lifecycle, and the way in which it went; may have something to say at the start."""

    def __init__(self, greeting: Frame | None = None) -> None:
        super().__init__()
        self.greeting = greeting
        self.heard: list[tuple[Any, FrameDirection]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, StartFrame | EndFrame):
            self.heard.append((frame, direction))
        elif self.greeting is not None and isinstance(frame, StartFrame):
            await self.push_frame(self.greeting)
        await self.push_frame(frame, direction)


async def rest(seconds: float) -> None:
    """Sleep, and do not suspend at all for 0."""
    if seconds:
        await anyio.sleep(seconds)


# --- hand-over


Kind = Literal["plain", "forked", "turning"]


@frozen
class Member:
    """A worker that takes its turn.

    Args:
        paces: Seconds that its three processors take for a frame.
        start: Seconds that it takes to start.
        kind: Whether the last one stands in two branches, or questions go to it and back before they are answered.
    """

    paces: tuple[float, float, float]
    start: float
    kind: Kind


MEMBERS = st.builds(
    Member, st.tuples(PACES, PACES, PACES), st.sampled_from((0, 0, 0.02)), st.sampled_from(get_args(Kind))
)
SCRIPTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 6)),
        st.tuples(st.sampled_from(("hand over", "ask to hand over")), st.integers(0, 2)),
        st.tuples(st.sampled_from(("call", "settle")), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from((0.005, 0.01, 0.05))),
    ),
    min_size=2,
    max_size=14,
)
INTERRUPTED = st.lists(st.one_of(SCRIPTS.map(tuple), st.just((("interrupt", 0),))), max_size=4).map(
    lambda parts: [step for part in parts for step in part]
)


@define(eq=False, repr=False)
class World:
    """A front pipeline, and workers that take turns in answering what it asks.

    Attributes:
        to: Who was active when a question went out, by its number.
        taken: The numbers, with who took them, in the order in which that was.
        late: What was asked behind the last interruption.
    """

    bus: WorkerBus
    way: FrameDirection
    members: list[Member]
    agents: list[PipelineWorker] = field(factory=list)
    to: dict[int, list[str]] = field(factory=dict)
    taken: list[tuple[int, str]] = field(factory=list)
    late: list[int] = field(factory=list)
    out: Ear = field(factory=Ear)
    asked: int = 0
    messages: list[BusMessage] = field(factory=list)

    @asynccontextmanager
    async def running(self, early: int) -> AsyncIterator[PipelineWorker]:
        """Run all of them, ask something before that, and let everything be answered in the end."""
        bridge = Telling(self, bus=self.bus, worker_name="front")
        front = self._worker("front", [bridge, self.out])
        for name, member in zip(NAMES, self.members, strict=False):
            self.agents.append(self._worker(name, self._parts(member), bridged=(), active=name == "a"))
        runner = WorkerRunner(bus=self.bus, handle_sigint=False)
        ear = Plain("ear")
        async with nothing_left(runner):
            await self.bus.subscribe(ear)
            async with runner:
                for _ in range(early):
                    await self.ask(front)
                await runner.add_workers(front, *self.agents)
                for agent in (front, *self.agents):
                    await runner.registry.wait_for(agent.name)
                yield front
                await anyio.sleep(60)
            await self.bus.unsubscribe(ear)
            self.messages = ear.of(BusFrameMessage)

    def _parts(self, member: Member) -> list[Any]:
        taker, (_, pace, last) = Taker(self, member), member.paces
        if member.kind == "turning":
            return [Turner(pace, far=False), taker, Turner(last, far=True)]
        fork = ParallelPipeline([Passer(last)], [Passer(0)])
        return [taker, Answerer(pace), fork if member.kind == "forked" else Passer(last)]

    def _worker(self, name: str, parts: list[Any], **kwargs: Any) -> PipelineWorker:
        return PipelineWorker(Pipeline(parts if self.way is DOWN else parts[::-1]), name=name, **kwargs)

    async def ask(self, front: PipelineWorker, then: str | None = None, *, call: bool = False) -> None:
        self.asked += 1
        self.late.append(self.asked)
        await front.queue_frame(Call(self.asked) if call else Question(self.asked, then), self.way)

    async def hand_over(self, name: str) -> None:
        for agent in self.agents:
            if agent.active and agent.name != name:
                await agent.activate_worker(name, deactivate_self=True)
                return

    async def play(self, front: PipelineWorker, script: list[tuple[str, float]]) -> None:
        for what, much in script:
            if what in ("hand over", "ask to hand over"):
                name = self.agents[int(much) % len(self.agents)].name
                await (self.hand_over(name) if what == "hand over" else self.ask(front, name))
            elif what == "wait":
                await anyio.sleep(much)
            elif what == "settle":
                await settle()
            elif what == "interrupt":
                self.late.clear()
                await front.queue_frame(InterruptionFrame(), self.way)
            elif what == "call":
                await self.ask(front, call=True)
            else:
                for _ in range(int(much)):
                    await self.ask(front)

    def answers(self, kind: type[Any]) -> list[tuple[int, str]]:
        """What the front heard, in its order."""
        assert all(way is self.way for _, way in self.out.heard)
        return [(frame.number, frame.by) for frame, _ in self.out.heard if isinstance(frame, kind)]
