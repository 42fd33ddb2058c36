"""A pipeline as the documentation describes it, in few words and without a task: what each of its parts does, and when.

It knows nothing of the library but the names of its frames. `Reference` plays a `Script`, and notes what it sees. What
happens at the same moment is done in an order that is drawn: where the notes depend on it, nothing can be said.
"""

from collections import defaultdict, deque
from functools import partial
from random import Random
from typing import Any

from properties.pipeline_machines import (
    BEAT,
    DATA,
    DOWN,
    JOINED,
    LOCAL,
    PATIENCE,
    SYSTEM,
    UP,
    Clock,
    Doing,
    Fault,
    Gate,
    Machine,
    Notes,
    Place,
    Seen,
    Steps,
    wait_for,
)
from properties.pipeline_scripts import EVENTS, REST, RESUMES, Line, Part, Row, Script, Stage, rest


class Branches:
    """Branches side by side, seen from one of their two ends."""

    def __init__(self, order: str, outside: Any) -> None:
        self.order = order
        self.outside = outside
        self.entries: list[Any] = []
        self.machines: list[list[Machine]] = []
        self.inner: list[list[Branches]] = []
        self.other: Branches = self
        self.waiting: deque[tuple[Seen, bool]] = deque()
        self.marker: Seen | None = None
        self.out: list[tuple[int, Seen, bool]] = []

    def put(self, frame: Seen, way: bool, may_wait: bool = True) -> list[tuple[Machine, Place]]:
        if self.order == "loose" or frame.system:
            return self._let_in(frame, way, may_wait)
        self.waiting.append((frame, way))
        self._next()
        return []

    def _let_in(self, frame: Seen, way: bool, may_wait: bool) -> list[tuple[Machine, Place]]:
        frame.out[self] = set()
        if frame.kind == "interruption":
            self.empty()
        return [place for entry in self.entries for place in entry(frame, way, may_wait=may_wait)]

    def _next(self) -> None:
        if self.waiting and self.marker is None:
            frame, way = self.waiting.popleft()
            self.marker = Seen("marker")
            self._let_in(frame, way, may_wait=False)
            self._let_in(self.marker, way, may_wait=False)

    def empty(self, but: int | None = None) -> None:
        for each in {self, self.other}:
            each.waiting = deque(entry for entry in each.waiting if entry[0].spared)
            each.out = [entry for entry in each.out if entry[1].spared]
        for number, machines in enumerate(self.machines):
            if number != but:
                for machine in machines:
                    machine.drop()
                for fork in self.inner[number]:
                    fork.empty()

    def leave(self, number: int, frame: Seen, way: bool, may_wait: bool = True) -> list[tuple[Machine, Place]]:
        if self.marker is not None and not frame.system:
            if frame is not self.marker:
                self.out.append((number, frame, way))
            elif self._goes_on(number, frame):
                self._turn_over()
            return []
        if not self._goes_on(number, frame):
            return []
        if frame.kind == "interruption" and way is DOWN and self not in frame.out:
            self.empty(but=number)
        return list(self.outside(frame, way, may_wait=may_wait))

    def _goes_on(self, number: int, frame: Seen) -> bool:
        if self not in frame.out:
            return True
        out = frame.out[self]
        known = len(out)
        out.add(number)
        if frame.kind in JOINED:
            return known < len(out) == len(self.entries)
        return known == 0

    def _turn_over(self) -> None:
        self.marker = None
        out, self.out = self.out, []
        if self.order == "pipeline":
            out.sort(key=lambda each: each[0])
        for number, frame, way in out:
            if self._goes_on(number, frame):
                self.outside(frame, way, may_wait=False)
        self._next()


class Reference:
    """Plays a script, and notes what happens."""

    def __init__(self, script: Script, draw: Random | None) -> None:
        self.script = script
        self.clock = Clock(draw)
        self.notes: Notes = defaultdict(list)
        self.machines: list[Machine] = []
        self.forks: list[Branches] = []
        self.observers: set[int] = set()
        self.touched: list[float] = [0.0]
        self.filters: dict[bool, set[str] | None] = {DOWN: None, UP: None}
        self.number = 0
        self.first, self.last = self._connect(script.row, self.leave, self.leave)
        self.active = True
        self.closing = 0
        self.open = {DOWN: True, UP: True}
        self.ending = False
        self.came_out = Gate(self.clock)

    def note(self, key: tuple[Any, ...], *what: Any) -> None:
        self.notes[key].append((self.clock.now, *what))

    def play(self) -> Notes | None:
        """Play it; returns None where it does not come to its end."""
        if self.script.beats:
            self.clock.after(0.0, lambda: Doing(self.clock, self._beat(), lambda _: None))
        times = self.script.times()
        for n, (time, line) in enumerate(zip(times, self.script.lines, strict=True)):
            self.clock.after(time, partial(self._begin, line, 10 * n + 10))
        for n, machine in enumerate(self.machines):
            for again in range(RESUMES):
                time = times[-1] + REST / 2 + n / 8 + again
                self.clock.after(time, partial(machine.pause, begins=False, system=True))
                self.clock.after(time + 1 / 16, partial(machine.pause, begins=False))
        self.clock.after(times[-1] + REST, self._end)
        self.clock.run()
        if not self.notes[("over",)]:
            return None
        over = self.notes[("over",)][0][0]
        self._note_idle(over)
        return {key: [each for each in seen if each[0] <= over] for key, seen in self.notes.items()}

    def _end(self) -> None:
        self.ending = True
        self.enter(Seen("end"), DOWN, may_wait=False)

    # --- how it is connected

    def _connect(self, part: Part, up: Any, down: Any) -> tuple[Any, Any]:
        """Connect a part with what is before and behind it; returns where frames come in, down and up."""
        if isinstance(part, Stage):
            machine = Machine(self, part, len(self.machines))
            self.machines.append(machine)
            machine.ports = {DOWN: down, UP: up}
            return machine.put, machine.put
        if isinstance(part, Row):
            holes = [Hole() for _ in part.parts]
            for n, each in enumerate(part.parts):
                behind = holes[n + 1].down if n + 1 < len(holes) else down
                before = holes[n - 1].up if n else up
                holes[n].ends = self._connect(each, before, behind)
            return holes[0].down, holes[-1].up
        below, above = Branches(part.order, down), Branches(part.order, up)
        below.other, above.other = above, below
        for n, branch in enumerate(part.branches):
            machines, forks = len(self.machines), len(self.forks)
            entries = self._connect(branch, partial(above.leave, n), partial(below.leave, n))
            below.entries.append(entries[0])
            above.entries.append(entries[1])
            for fork in (below, above):
                fork.machines.append(self.machines[machines:])
                fork.inner.append(self.forks[forks:])
        self.forks.append(below)
        return below.put, above.put

    # --- frames come and leave

    def enter(self, frame: Seen, way: bool, *, may_wait: bool = True) -> list[tuple[Machine, Place]]:
        if frame.kind != "marker":
            self.touch(frame)
        return list((self.last if way is UP else self.first)(frame, way, may_wait=may_wait))

    def leave(self, frame: Seen, way: bool, may_wait: bool = True) -> list[Any]:
        if frame.kind == "marker":
            assert frame.then is not None
            frame.then()
            return []
        if frame.kind == "error":
            self.note(("errors",), frame.label)
        elif frame.kind == "heartbeat":
            self.came_out.set()
        elif frame.kind == "end":
            self.enter(
                Seen("marker", then=lambda: Doing(self.clock, self._quiet(), lambda _: self.note(("over",)))),
                UP,
                may_wait=False,
            )
        wanted = self.filters[way]
        if wanted is None or frame.kind in wanted:
            self.note(("left", way), frame.label)
        if self.script.bridged is not None and self.open[way] and self._crosses(frame):
            for tag in self.script.bridged or (None,):
                self.note(("bus",), frame.label, way, str(tag), bool(self.closing))
        return []

    def _quiet(self) -> Steps:
        """What system frames make of themselves at the end still arrives: along the pipeline, and back."""
        for machine in (*self.machines, *reversed(self.machines)):
            quiet = Gate(self.clock)
            machine.system.when_quiet(quiet.set)
            yield quiet

    def _crosses(self, frame: Seen) -> bool:
        return not (frame.kind in LOCAL or frame.foreign or (self.script.excluded and frame.kind == "flash"))

    # --- who watches

    def touch(self, frame: Seen) -> None:
        counts = {"all": frame.kind != "heartbeat", "data": frame.kind in DATA}
        control = ("end", "heartbeat", "pause frame", "resume frame")
        if counts.get(self.script.counts, frame.kind in control):
            self.touched.append(self.clock.now)

    def seen(self, what: str, machine: Machine, frame: Seen, way: bool) -> None:
        self.touch(frame)
        first = what == "pushes" and bool(self.observers) and self not in frame.out
        if what == "pushes" and self.observers:
            frame.out[self] = set()
        for each in self.observers:
            if each == 0 or first or what == "begins":
                self.note(("observer", each), what, machine.number, frame.label, way)

    def _note_idle(self, over: float) -> None:
        """It is idle when nothing has moved for that long, and again when nothing has for as long again."""
        if self.script.idle:
            limit = self.script.idle + rest("idle")
            for now, then in zip(self.touched, [*self.touched[1:], over], strict=True):
                while now + limit <= then:
                    now += limit
                    self.notes[("idle",)].append((now,))

    def _beat(self) -> Steps:
        while not self.ending:
            self.came_out = Gate(self.clock)
            self.enter(Seen("heartbeat"), DOWN, may_wait=False)
            self.clock.after(PATIENCE, partial(self._missed, self.came_out))
            yield self.came_out
            yield BEAT

    def _missed(self, gate: Gate) -> None:
        if not gate.open:
            self.note(("no heartbeat",))
            gate.set()

    # --- what happens

    def _begin(self, line: Line, number: int) -> None:
        machine = self.machines[line.who % len(self.machines)]
        self.number = number
        steps = getattr(self, "do_" + line.what.replace(" ", "_"))(line, machine)
        if steps is not None:
            Doing(self.clock, steps, lambda _: None)

    def _queue(self, kind: str, way: bool, times: int = 1, stage: Machine | None = None) -> Steps:
        number = self.number if stage is None and kind != "interruption" else 0
        for each in range(times):
            if self.ending and way is DOWN and kind not in SYSTEM:
                return  # it is refused
            yield from wait_for(self.enter(Seen(kind, number + each, stage), way))

    def do_down(self, line: Line, _: Machine) -> Steps:
        return self._queue("data", DOWN, line.much)

    def do_up(self, line: Line, _: Machine) -> Steps:
        return self._queue("data", UP, line.much)

    def do_firm(self, line: Line, _: Machine) -> Steps:
        return self._queue("firm", line.up)

    def do_kept(self, line: Line, _: Machine) -> Steps:
        return self._queue("kept", line.up)

    def do_flash(self, line: Line, _: Machine) -> Steps:
        return self._queue("flash", line.up, line.much)

    def do_interrupt(self, line: Line, _: Machine) -> Steps:
        return self._queue("interruption", line.up)

    def do_break(self, _: Line, machine: Machine) -> Steps:
        return machine.interrupt()

    def do_both(self, line: Line, machine: Machine) -> Steps:
        kind, number = "flash" if line.up else "data", self.number
        for way in (DOWN, UP):
            yield from machine.push(Seen(kind, number), way)

    def do_copies(self, _: Line, machine: Machine) -> Steps:
        number = self.number
        for way in (DOWN, UP):
            yield from machine.push(Seen("kept", number), way)

    def do_into(self, line: Line, machine: Machine) -> Steps:
        kind = "flash" if line.much > 2 else "data"
        yield from wait_for([*machine.put(Seen(kind, self.number), line.up)])

    def do_pause(self, _: Line, machine: Machine) -> None:
        machine.pause(begins=True)

    def do_resume(self, _: Line, machine: Machine) -> None:
        machine.pause(begins=False)

    def do_pause_system(self, _: Line, machine: Machine) -> None:
        machine.pause(begins=True, system=True)

    def do_resume_system(self, _: Line, machine: Machine) -> None:
        machine.pause(begins=False, system=True)

    def do_hold(self, line: Line, machine: Machine) -> Steps:
        for lane in (machine.data, machine.system):
            lane.held += 1
        yield line.much / 2 + rest("hold")
        for lane in (machine.data, machine.system):
            lane.held -= 1
        machine.look()

    def do_pause_frame(self, line: Line, machine: Machine) -> Steps:
        return self._queue(line.what, line.up, stage=machine)

    do_resume_frame = do_pause_urgent = do_resume_urgent = do_pause_frame

    def do_flush(self, _: Line, __: Machine) -> None:
        self.enter(Seen("marker", then=partial(self.note, ("flushed",), self.number)), DOWN, may_wait=False)

    def do_observe(self, line: Line, _: Machine) -> None:
        self.observers.add(line.much % 2)

    def do_unobserve(self, line: Line, _: Machine) -> None:
        self.observers.discard(line.much % 2)

    def do_listen(self, line: Line, machine: Machine) -> None:
        machine.heard.append(EVENTS[(line.who + line.much) % len(EVENTS)])

    def do_error(self, _: Line, machine: Machine) -> Steps:
        frame = Seen("error", self.number)
        yield from machine.push(frame, UP)
        machine.tell(EVENTS[4], frame)

    def do_task(self, line: Line, machine: Machine) -> None:
        machine.start(self._task(machine, line, self.number))

    @staticmethod
    def _task(machine: Machine, line: Line, number: int) -> Steps:
        for way in (DOWN, UP):
            yield 0.5 + rest("task")
            yield from machine.push(Seen("data", number), way)
        if line.much > 2:
            raise Fault(number)

    def do_cancel_task(self, _: Line, machine: Machine) -> None:
        if machine.tasks:
            machine.tasks.pop().cut()

    def do_filter(self, line: Line, _: Machine) -> None:
        self.filters[line.up] = DATA if line.much > 2 else SYSTEM

    def do_toggle(self, line: Line, _: Machine) -> None:
        self.active = not self.active
        self.closing = 0 if self.active else self.number
        if self.active:
            self.open = {DOWN: True, UP: True}
        elif self.script.bridged is not None:
            self._close((DOWN, UP, DOWN, UP), self.closing)

    def _close(self, legs: tuple[bool, ...], closing: int) -> None:
        def then() -> None:
            if closing == self.closing:
                if len(legs) <= 2:
                    self.open[legs[0]] = False
                self._close(legs[1:], closing)

        if legs:
            self.enter(Seen("marker", then=then), legs[0], may_wait=False)

    def do_came(self, line: Line, _: Machine) -> None:
        number, bridged = self.number, self.script.bridged
        tag = (None, "one", "two", "three")[line.much % 4]
        if self.active and bridged is not None and (not bridged or tag in bridged):
            self.enter(Seen("data", number, foreign=True), line.who % 2 == 1, may_wait=False)

    def do_speak(self, _: Line, __: Machine) -> None:
        if self.active:
            self.enter(Seen("speech", self.number), DOWN, may_wait=False)


class Hole:
    """Where a part will stand."""

    ends: tuple[Any, Any]

    def down(self, frame: Seen, way: bool, may_wait: bool = True) -> Any:
        return self.ends[0](frame, way, may_wait=may_wait)

    def up(self, frame: Seen, way: bool, may_wait: bool = True) -> Any:
        return self.ends[1](frame, way, may_wait=may_wait)
