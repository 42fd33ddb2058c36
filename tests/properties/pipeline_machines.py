"""Processors as the documentation describes them, in few words and without a task; see ``pipeline_reference``."""

import heapq
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from itertools import count
from random import Random
from typing import Any, Final, Protocol

from attrs import define, field

from properties.pipeline_scripts import (
    EVENTS,
    Script,
    Stage,
    hits,
    rest,
    seconds,
)

DOWN, UP = False, True
Steps = Generator[Any, None, None]
Notes = dict[tuple[Any, ...], list[tuple[Any, ...]]]

SYSTEM: Final = {"flash", "interruption", "error", "pause urgent", "resume urgent"}
SPARED: Final = {"firm", "kept", "end", "heartbeat", "pause frame", "resume frame", "marker"}
JOINED: Final = {"end", "heartbeat", "pause frame", "resume frame", "pause urgent", "resume urgent", "marker"}
LOCAL: Final = JOINED | {"error"}
DATA: Final = {"data", "firm", "kept", "speech"}
BEAT: Final = 0.75 + rest("beat")
PATIENCE: Final = 2.5 + rest("patience")


class Cut(Exception):  # noqa: N818 - no error: a handler is interrupted
    """The handling of a frame was interrupted."""


class Fault(Exception):  # noqa: N818 - what a processor raises, in the way of `Cut`
    """A processor has raised, or a task of it, at the frame of this number."""


@define(eq=False)
class Seen:
    """A frame."""

    kind: str
    number: int = 0
    stage: "Machine | None" = None
    then: Callable[[], object] | None = None
    out: dict[Any, Any] = field(factory=dict)
    foreign: bool = False

    @property
    def label(self) -> str:
        return f"{self.kind} {self.number}"

    @property
    def system(self) -> bool:
        return self.kind in SYSTEM

    @property
    def spared(self) -> bool:
        return self.system or self.kind in SPARED


class Clock:
    """What is to be done, and when."""

    def __init__(self, draw: Random | None) -> None:
        self.now = 0.0
        self._draw = draw
        self._ready: list[Callable[[], object]] = []
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()

    def soon(self, do: Callable[[], object]) -> None:
        self._ready.append(do)

    def after(self, delay: float, do: Callable[[], object]) -> None:
        heapq.heappush(self._later, (self.now + delay, next(self._numbers), do))

    def run(self) -> None:
        while self._ready or self._later:
            if not self._ready:
                self.now = self._later[0][0]
                while self._later and self._later[0][0] == self.now:
                    self._ready.append(heapq.heappop(self._later)[2])
            self._ready.pop(0 if self._draw is None else self._draw.randrange(len(self._ready)))()


class Gate:
    """Something to wait for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.open = False
        self._waiting: list[Callable[[], object]] = []

    def set(self) -> None:
        self.open = True
        for do in self._waiting:
            self._clock.soon(do)
        self._waiting.clear()

    def call(self, do: Callable[[], object]) -> None:
        if self.open:
            do()
        else:
            self._waiting.append(do)


class Doing:
    """Steps that are done: a number is a time to wait, a `Gate` something to wait for."""

    def __init__(self, clock: Clock, steps: Steps, over: Callable[[Exception | None], object]) -> None:
        self._clock = clock
        self._steps = steps
        self._over = over
        self._turn = 0
        self.shielded = False
        self._go_on(None)

    def _go_on(self, cut: Exception | None) -> None:
        self._turn += 1
        try:
            found = self._steps.throw(cut) if cut is not None else next(self._steps)
        except StopIteration:
            self._over(None)
        except (Cut, Fault) as exc:
            self._over(exc)
        else:
            resume = partial(self._resume, self._turn, None)
            if isinstance(found, Gate):
                found.call(resume)
            else:
                self.shielded = found < 0  # the rest of a handler that was cut
                self._clock.after(abs(found), resume)

    def _resume(self, turn: int, cut: Exception | None) -> None:
        if turn == self._turn:
            self._go_on(cut)

    def cut(self) -> None:
        if not self.shielded:
            self._turn += 1
            self._clock.soon(partial(self._resume, self._turn, Cut()))


class Lane:
    """Frames that wait for a processor, and the one that it handles."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.waiting: deque[tuple[Seen, bool]] = deque()
        self.current: Seen | None = None
        self.doing: Doing | None = None
        self.held = 0
        self.unwound: Gate | None = None
        self._when_quiet: list[Callable[[], object]] = []

    def look(self) -> None:
        system = self.machine.system
        if self.current is None and not self.waiting:
            while self._when_quiet and not self.waiting:
                self._when_quiet.pop(0)()
        if self.current is not None or self.held or not self.waiting:
            return
        if self is not system and system.waiting and system.current is None and not system.held:
            return  # it looks again when that has begun
        frame, way = self.waiting.popleft()
        self.current = frame
        if self is not system:
            self.machine.admit()
        self.doing = None
        doing = Doing(self.machine.clock, self.machine.work(self, frame, way), self._over)
        if self.current is frame:
            self.doing = doing
        self.machine.look()

    def _over(self, exc: Exception | None) -> None:
        frame, self.current = self.current, None
        assert frame is not None
        if self.unwound is not None:
            self.unwound.set()
            self.unwound = None
        if exc is not None and not isinstance(exc, Cut):
            self.machine.fail(exc)
        self.machine.look()

    def when_quiet(self, do: Callable[[], object]) -> None:
        self._when_quiet.append(do)
        self.look()

    def cut(self) -> None:
        if self.current is not None and not self.current.spared:
            if self.unwound is None:
                self.unwound = Gate(self.machine.clock)
            if self.doing is not None:
                self.doing.cut()


@define(eq=False)
class Place:
    """The place of a frame in the line before a processor that is full."""

    frame: Seen
    way: bool
    gate: Gate


class World(Protocol):
    """Where the processors stand."""

    clock: Clock
    script: Script
    observers: set[int]

    def note(self, key: tuple[Any, ...], *what: Any) -> None:
        """Note something, with the time."""

    def seen(self, what: str, machine: "Machine", frame: Seen, way: bool) -> None:
        """Note that a processor begins with a frame, or pushes one."""


class Machine:
    """A processor."""

    def __init__(self, world: "World", stage: Stage, number: int) -> None:
        self.world = world
        self.clock = world.clock
        self.stage = stage
        self.number = number
        self.data, self.system = Lane(self), Lane(self)
        self.line: list[Place] = []
        self.ports: dict[bool, Callable[..., list[tuple[Machine, Place]]]] = {}
        self.after: dict[bool, int | None] = {}
        self.paused: set[bool] = set()
        self.heard: list[str] = []
        self.tasks: list[Doing] = []
        self.pace = seconds(stage.pace, number, "pace")
        self.urgent = seconds(stage.urgent, number, "urgent")
        self.lingers = seconds(stage.lingers, number, "lingers")

    def look(self) -> None:
        self.clock.soon(self.system.look)
        self.clock.soon(self.data.look)

    # --- frames come

    def put(self, frame: Seen, way: bool, may_wait: bool = True) -> "list[tuple[Machine, Place]]":
        if frame.system:
            if frame.kind == "interruption":
                self.data.held += 1
                self.drop()
            self.system.waiting.append((frame, way))
        elif way is DOWN and self.stage.bound and (self.line or (may_wait and self.full)):
            place = Place(frame, way, Gate(self.clock))
            self.line.append(place)
            return [(self, place)] if may_wait else []
        else:
            self.data.waiting.append((frame, way))
        self.look()
        return []

    @property
    def full(self) -> bool:
        return bool(self.stage.bound) and sum(way is DOWN for _, way in self.data.waiting) >= self.stage.bound

    def admit(self) -> None:
        while self.line and not self.full:
            place = self.line.pop(0)
            self.data.waiting.append((place.frame, place.way))
            place.gate.set()
            self.look()

    def drop(self, *, spare: bool = False) -> None:
        self.data.waiting = deque(each for each in self.data.waiting if each[0].spared)
        for place in list(self.line):
            if not place.frame.spared:
                self.line.remove(place)
                place.gate.set()
        if not spare:
            self.data.cut()
        self.admit()
        self.look()

    # --- frames are handled

    def work(self, lane: Lane, frame: Seen, way: bool) -> Steps:
        if frame.kind == "marker":
            self.system.when_quiet(lambda: self.ports[way](frame, way, may_wait=False))
        elif frame.kind == "interruption":
            if self.data.unwound is not None:
                yield self.data.unwound
            yield from self.process(lane, frame, way)
            self.data.held -= 1
        else:
            if frame.stage is self:
                self.pause(begins="pause" in frame.kind)
            yield from self.process(lane, frame, way)

    def pause(self, *, begins: bool, system: bool = False) -> None:
        if begins is not (system in self.paused):
            self.paused ^= {system}
            (self.system if system else self.data).held += 1 if begins else -1
            self.look()

    def process(self, lane: Lane, frame: Seen, way: bool) -> Steps:
        self.world.seen("begins", self, frame, way)
        listens = self.listens(*EVENTS[:2])  # who comes while a frame is handled hears of the next one
        self.tell(EVENTS[0], frame)
        self.world.note(("system" if lane is self.system else "data", self.number), frame.label, way)
        yield from self.act(frame, way)
        if listens:
            self.tell(EVENTS[1], frame)

    def listens(self, *events: str) -> bool:
        return any(event in self.heard for event in events)

    def act(self, frame: Seen, way: bool) -> Steps:
        if frame.kind in ("flash", "interruption") and self.urgent:
            yield self.urgent
        if frame.kind not in ("data", "firm", "kept"):
            yield from self.push(frame, way)
            return
        number, stage = frame.number, self.stage
        if self.pace:
            try:
                yield self.pace
            except Cut:
                if self.lingers:
                    yield -self.lingers
                raise
        if hits(stage.raises, number):
            raise Fault(number)
        if hits(stage.breaks, number):
            yield from self.interrupt(spare=True)
        if hits(stage.makes, number):
            for more in (1, 2):
                yield from self.push(Seen("data", number * 1000 + more), way)
        else:
            yield from self.push(frame, way or hits(stage.turns, number))

    def interrupt(self, *, spare: bool = False) -> Steps:
        self.drop(spare=spare)
        for way in (DOWN, UP):
            yield from self.push(Seen("interruption"), way)

    def push(self, frame: Seen, way: bool) -> Steps:
        listens = self.listens(*EVENTS[2:4]) or bool(self.world.script.idle or self.world.observers)
        self.tell(EVENTS[2], frame)
        self.world.seen("pushes", self, frame, way)
        yield from wait_for(self.ports[way](frame, way, may_wait=True))
        if listens:
            self.tell(EVENTS[3], frame)

    def tell(self, event: str, frame: Seen) -> None:
        for _ in range(self.heard.count(event)):
            self.world.note(("told", event, self.number), frame.label)

    def fail(self, exc: Exception) -> None:
        frame = Seen("error", exc.args[0])
        self.ports[UP](frame, UP, may_wait=False)
        self.tell(EVENTS[4], frame)

    def start(self, steps: Steps) -> None:
        def over(exc: Exception | None) -> None:
            if exc is not None and not isinstance(exc, Cut):
                self.fail(exc)

        self.tasks.append(Doing(self.clock, steps, over))


def wait_for(places: list[tuple[Machine, Place]]) -> Steps:
    try:
        for _, place in places:
            if not place.gate.open:
                yield place.gate
    finally:
        for machine, place in places:
            if place in machine.line:
                machine.line.remove(place)
