"""A processor's inbox: where frames wait for it, and when it gets them (P1, P2).

An inbox has two lanes. System frames go before data frames: while those wait, while one of those is being handled, and
after at most one more where handlers never suspend. What is put in is there when ``put`` returns.

* **The gate.** Before the start has reached the sink an inbox takes the `StartFrame` and nothing else; the rest waits,
  and goes into the lanes in its order when the gate is opened.
* **Room.** A bounded inbox counts the downstream frames of its data lane, and lets pushers stand in line. Upstream
  frames are not counted, so that two neighbours never wait for each other.
* **Interruptions** act when they are put in, not when they are handled: what waits at that moment is dropped, what
  comes later is not.
* **Pauses** hold a lane (see `_pauses`): what comes waits. An interruption drops what waits there, as always.
* **The end.** A frame that ends the pipeline passes on even if the processor raises. One that the processor keeps
  without raising is noted in ``kept``. A halted inbox takes only a `CancelFrame`; an ended one, nothing.

It does not know what a pipeline is, or why one ends.
"""

import logging
import math
from functools import partial
from threading import get_ident
from typing import Any

from anyio import get_current_task

from workerbus._concurrency.failures import is_panic
from workerbus._concurrency.lifetime import CLEANUP_SECONDS
from workerbus._concurrency.own_tasks import TaskHandle
from workerbus._concurrency.room import Room
from workerbus._concurrency.waiting import Wait
from workerbus._log import about
from workerbus._slot import HasCore, core_of
from workerbus.errors import NotRunningError, WrongLoopError, text_of
from workerbus.pipeline._frame_lane import FrameLane, Target
from workerbus.pipeline._frames import (
    ENDS,
    PAUSES,
    RESUMES,
    CancelFrame,
    ErrorFrame,
    FlushMarker,
    Frame,
    FrameDirection,
    HeartbeatFrame,
    InterruptionFrame,
    Marker,
    StartFrame,
)
from workerbus.pipeline._pauses import Pauses
from workerbus.pipeline._ports import DOWNSTREAM, UPSTREAM, Entry, Passing, Port, Running, Stage, Visitor, Waiting
from workerbus.pipeline._processor_events import Calls, ProcessorEvents, watched

logger = logging.getLogger("workerbus.pipeline")


class ProcessorInbox:
    """Where frames wait for a processor, and all that the library needs of a processor.

    Args:
        owner: The processor.
        name: The processor's name.
        limit: How many downstream frames may wait in the data lane.

    Attributes:
        owner: The processor.
        name: The processor's name.
        previous: Where the processor pushes to upstream; None until its pipeline runs.
        following: Where the processor pushes to downstream; None until its pipeline runs.
        pushed: How many frames the processor has pushed.
        running: The pipeline that the processor runs in; None until then.
        got_start: Whether the `StartFrame` has come here.
        set_up: Whether the processor's ``setup()`` has returned.
        tasks: How many of the tasks that the processor has started still run.
        kept: Whether the processor has handled an end that went downstream, and not passed it on.
        events: The event handlers of the processor.
        heard: Whether somebody is to be told of what the processor pushes.
        thread: The thread in which its pipeline runs, by its identity; None until it does.
        pauses: Which lanes are held.
        visitor: What the processor does when the worker is attached and when it leaves; None for most.
        claimed: Whether the processor stands in a pipeline.
    """

    __slots__ = (
        "_bounded",
        "_data",
        "_early",
        "_open",
        "_plain",
        "_room",
        "_stage",
        "_system",
        "_target",
        "claimed",
        "events",
        "following",
        "got_start",
        "heard",
        "kept",
        "name",
        "owner",
        "pauses",
        "previous",
        "pushed",
        "running",
        "set_up",
        "tasks",
        "thread",
        "visitor",
    )

    def __init__(self, owner: Target, name: str, limit: float = math.inf) -> None:
        self.owner: Any = owner
        self.name: str = name
        self._room: Room[Entry] = Room(limit)
        self._bounded = self._room.bounded
        self.claimed: bool = False
        self.visitor: Visitor | None = None
        self.events: ProcessorEvents = ProcessorEvents(owner, name, self.refit)
        self.reset()

    def reset(self) -> None:
        """Make the inbox as new, so that the processor can be put into another pipeline."""
        self._stage = Stage.IDLE
        self._open = False
        self._early: list[Entry] = []
        self._room = Room(self._room.limit)
        full = f"for room before processor {self.name!r}, which is full"
        self._room.words = lambda: Wait(1, full, (("lane", id(self._data)),))
        self._system: FrameLane | None = None
        self._data: FrameLane | None = None
        self.pauses: Pauses = Pauses()
        self._plain: Target = self.owner
        self._target: Target = self.owner
        self.heard: bool = False
        self.previous: Port | None = None
        self.following: Port | None = None
        self.running: Running | None = None
        self.got_start: bool = False
        self.set_up: bool = False
        self.pushed: int = 0
        self.tasks: int = 0
        self.kept: bool = False
        self.thread: int | None = None

    # --- as a piece of a pipeline

    @property
    def down_entry(self) -> Port:
        """Where frames come in that travel downstream: this inbox."""
        return self

    @property
    def up_entry(self) -> Port:
        """Where frames come in that travel upstream: this inbox, too."""
        return self

    def connect(self, previous: Port, following: Port) -> None:
        """Set where the processor pushes to, upstream and downstream."""
        self.previous, self.following = previous, following

    def join(self, running: Running, target: Target) -> None:
        """Become part of a running pipeline.

        Args:
            running: The pipeline.
            target: Whose ``process_frame`` to await with each frame: the processor, as a rule.
        """
        taken = self._left_data if self._bounded else None
        title = f"processor {self.name!r} of worker {running.worker.name!r}"
        new_lane = partial(FrameLane, self.name, self._start_lane, title=title)
        system = new_lane(Calls(self._process_system), self.failed, self._process_joined)
        data = new_lane(target, self.failed, self._process_joined, taken, system)
        self._system, self._data, self.running, self._stage = system, data, running, Stage.GATED
        self.pauses.open(system, data)
        self._plain = target
        self.thread = get_ident()
        self.refit()

    def refit(self) -> None:
        """Have those told who watch, or whose event handlers are there, and nobody else: called when that changes."""
        running, data = self.running, self._data
        if running is not None and data is not None:
            self._target = data.target = watched(self.events.around(self._plain), self.owner, running.watcher)
            self.heard = running.watcher is not None or self.events.hears_pushes

    @property
    def _about(self) -> dict[str, str]:
        return about(worker=None if self.running is None else self.running.worker.name, processor=self.name)

    def _start_lane(self, lane: FrameLane) -> TaskHandle:
        assert self.running is not None
        kind = "data" if lane is self._data else "system"
        return self.running.start(lane.run, (), name=f"{self.name} {kind}", owner=self.name)

    # --- how frames are handled that are not simply processed

    async def _process_system(self, frame: Frame, direction: FrameDirection) -> None:
        # An interruption waits until the handler that it has cancelled has unwound: what that still pushes goes ahead
        # of the interruption, and is dropped by it further on. It does not wait for ever: a handler that refuses
        # cancellation must not keep it from the processors behind. Then it lets the data lane go on, whatever comes of
        # it: `_enter` has put that on hold.
        if not isinstance(frame, InterruptionFrame):
            await self._target.process_frame(frame, direction)
            return
        assert self._data is not None
        data = self._data
        try:
            if not await data.until_unwound(CLEANUP_SECONDS):
                text = "processor %r still handles a frame %g s after an interruption"
                logger.warning(text, self.name, CLEANUP_SECONDS, extra=self._about)
            await self._target.process_frame(frame, direction)
        finally:
            data.release()

    async def _process_joined(self, frame: Frame, direction: FrameDirection) -> None:
        # 1. A marker is for no processor. It passes when the system lane is quiet, so that it is behind what system
        #    frames have pushed. It does not wait in the data lane for that moment, since data frames may not be held
        #    back.
        # 2. A processor that raises instead of passing the `StartFrame` on has failed to start, and ends the worker.
        # 3. A pause counts from the next frame on, also where the processor raises.
        # 4. A frame that ends the pipeline has to pass on, whatever the processor does; see `_process_last`.
        assert self._system is not None
        if isinstance(frame, Marker):
            self._system.when_quiet(partial(self._pass_marker, frame, direction))
        elif isinstance(frame, StartFrame | HeartbeatFrame):
            await self._target.process_frame(frame, direction)
        elif isinstance(frame, PAUSES + RESUMES):
            if frame.processor is self.owner:
                (self.pauses.pause if isinstance(frame, PAUSES) else self.pauses.resume)(system=False)
            await self._target.process_frame(frame, direction)
        else:
            await self._process_last(frame, direction)

    def _pass_marker(self, frame: Marker, direction: FrameDirection) -> None:
        if self.visitor is not None and isinstance(frame, FlushMarker) and direction is DOWNSTREAM:
            self.visitor.flush(frame, partial(self._port(direction).put, frame, direction, False))
        else:
            self._port(direction).put(frame, direction, False)

    # --- frames come

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """Take a frame; see `Port.put`."""
        # Room, in this order:
        #
        # 1. Where there is a line, the frame goes into it, whether or not there is room, and whether or not the pusher
        #    can wait: frames of one direction keep their order. A pusher that cannot wait leaves the frame there.
        # 2. Where there is no line and no room, a pusher that can wait begins a line.
        # 3. There, a pusher that cannot wait puts the frame in past the bound.
        #
        # System frames and upstream frames take no room and never wait.
        if not self._open:
            return self._put_closed(frame, direction, may_wait)
        if frame.is_system:
            self._enter((frame, direction))
            return None
        if self._bounded and direction is DOWNSTREAM:
            if self._room.has_line or (may_wait and self._room.full):
                return self._stand_in_line((frame, direction), may_wait)
            self._room.taken += 1
        self._data.add((frame, direction))  # type: ignore[union-attr]  # an open inbox has lanes
        return None

    def _stand_in_line(self, entry: Entry, may_wait: bool) -> Waiting | None:
        waiter = self._room.stand(entry, self._enter_from_line)
        return waiter if may_wait else None

    def _enter_from_line(self, entry: Entry) -> None:
        self._room.taken += 1
        if self._open:
            self._enter(entry)
        else:
            self._early.append(entry)

    def _enter(self, entry: Entry) -> None:
        assert self._data is not None
        assert self._system is not None
        frame = entry[0]
        if not frame.is_system:
            self._data.add(entry)
            return
        if isinstance(frame, InterruptionFrame):
            self._data.held += 1  # until it has been passed on, by `process_system` in `join`
            if self._open:
                self.drop()  # one that came before the start has dropped what was there when it was put in
        self._system.add(entry)

    def _put_closed(self, frame: Frame, direction: FrameDirection, may_wait: bool) -> Waiting | None:
        # While the gate is closed:
        #
        # 1. The `StartFrame` goes into the lane: every processor handles it, and passes it on to the next.
        # 2. A fatal error goes to the worker at once: here it would wait for a start that may never come.
        # 3. All else waits in one list, in the order in which it came, data frames within the bound as ever; an
        #    interruption drops what came before it.
        if self._stage is Stage.GATED:
            assert self.running is not None
            if isinstance(frame, StartFrame) and direction is DOWNSTREAM:
                self.got_start = True
                self._enter((frame, direction))
                return None
            if isinstance(frame, ErrorFrame) and frame.fatal:
                self.running.fatal(frame)
                return None
            if direction is DOWNSTREAM and not frame.is_system and self._bounded:
                if self._room.has_line or (may_wait and self._room.full):
                    return self._stand_in_line((frame, direction), may_wait)
                self._room.taken += 1
            self._early.append((frame, direction))
            if isinstance(frame, InterruptionFrame):
                self.drop()
        elif self._stage is Stage.HALTED and isinstance(frame, CancelFrame):
            self._enter((frame, direction))
        return None

    def open(self) -> None:
        """Let in what has come before the start, and from now on what comes."""
        self._stage = Stage.OPEN
        early, self._early = self._early, []
        for entry in early:
            self._enter(entry)
        # Last: until then `_enter` drops nothing. An early interruption did that when it came, and those who stand in
        # line have come behind it.
        self._open = True

    def _left_data(self, direction: FrameDirection) -> None:
        if direction is DOWNSTREAM:
            self._room.leave()

    # --- interruptions

    def drop(self, *, spare_own_task: bool = False) -> None:
        """Drop the frames that wait and cancel the one that is being handled, as far as they are interruptible.

        Args:
            spare_own_task: Whether to let the handler finish if it is the one that calls this.
        """
        # The order of the steps matters:
        #
        # 1. Drop what waits, in the lane and before the gate, and count anew the room that the rest takes: dropped
        #    frames never leave the lane one by one.
        # 2. Let those in line go on without putting their frames in: those frames came before the interruption, too.
        # 3. Cancel the handler. It has not left the lane's task yet when this returns; `_process_system` waits for it.
        # 4. Let in who still stands in line, with a frame that is spared: nothing else would until a frame is taken.
        data = self._data
        if data is None:
            return
        kept = [entry for entry in data.entries if not entry[0].interruptible]
        data.entries.clear()
        data.entries.extend(kept)
        self._early = [entry for entry in self._early if entry[0].is_system or not entry[0].interruptible]
        if self._bounded:
            waiting = [*kept, *self._early]
            self._room.taken = sum(way is DOWNSTREAM and not frame.is_system for frame, way in waiting)
        self._room.release(but=lambda entry: not entry[0].interruptible)
        spared = spare_own_task and get_current_task().id == data.task_id
        if data.current is not None and not (spared or not data.current.interruptible):
            data.cancel_current()
        self._room.admit()

    # --- what has to get through, and errors

    def _port(self, direction: FrameDirection) -> Port:
        port = self.following if direction is DOWNSTREAM else self.previous
        assert port is not None
        return port

    async def _process_last(self, frame: Frame, direction: FrameDirection) -> None:
        # A frame that ends the pipeline must get through. Whether the processor has passed it on is seen at the port
        # to its neighbour, since it may do so in a function of its own, or in a task:
        #
        # 1. It has pushed the frame on, and perhaps raised afterwards: nothing is left to do.
        # 2. It has raised, or was cancelled, before that: the frame goes on by itself.
        # 3. It has returned and kept an end that goes downstream. It may still push it on later, so this is only noted;
        #    `RunningPipeline.mind_the_end` decides when that has taken too long. Nobody waits for other frames.
        port = self._port(direction)
        passing = Passing(frame, port)
        self._lead(direction, passing)
        try:
            await self._target.process_frame(frame, direction)
        except BaseException:
            self._lead(direction, port)
            if not passing.passed:
                port.put(frame, direction, False)
            raise
        if direction is DOWNSTREAM and isinstance(frame, ENDS) and not passing.passed:
            self.kept, passing.then = True, partial(self._lead, direction, port)
        else:
            self._lead(direction, port)

    def _lead(self, direction: FrameDirection, port: Port) -> None:
        if direction is DOWNSTREAM:
            self.kept, self.following = False, port
        else:
            self.previous = port

    async def failed(self, frame: Frame | None, exc: BaseException) -> None:
        """Log what the processor raised, and tell the worker by way of the processors upstream.

        Args:
            frame: The frame that it was processing; None if a task of its own has raised.
            exc: What it raised.
        """
        # A processor that fails before it has passed the `StartFrame` on has not started, and nothing can be sent
        # through a pipeline that has not: the worker is told directly, and ends.
        assert self.running is not None
        assert self.previous is not None
        what = "a task" if frame is None else frame.name
        logger.error("processor %r failed with %s", self.name, what, exc_info=exc, extra=self._about)
        if isinstance(frame, StartFrame) and self.following is not None and not self.following.got_start:
            self.running.start_failed(exc)
        else:
            text = f"{type(exc).__name__}: {text_of(exc)}"
            error = ErrorFrame(text, fatal=is_panic(exc), processor=self.name, exception=exc)
            self.previous.put(error, UPSTREAM, False)
            await self.events.tell("on_error", error)

    # --- the end

    async def system_quiet(self) -> None:
        """Wait until no system frame waits or is being handled."""
        assert self._system is not None
        await self._system.quiet()

    @property
    def lanes(self) -> list[FrameLane]:
        """Its lanes, if it is a part of a running pipeline."""
        return [lane for lane in (self._system, self._data) if lane is not None]

    @property
    def at_work(self) -> bool:
        """Whether frames wait here or are being handled, or a task of the processor's own runs."""
        return bool(self.tasks) or any(lane.entries or lane.current is not None for lane in self.lanes)

    def handles_in(self, task_id: int) -> bool:
        """Whether a frame is being handled here in a task, by whose number anyio tells tasks apart."""
        return any(lane.task_id == task_id for lane in self.lanes if lane.current is not None)

    @property
    def late_with_start(self) -> bool:
        """Whether the `StartFrame` has come here and was not pushed on."""
        return self.got_start and self.following is not None and not self.following.got_start

    def require_running(self) -> Running:
        """Return the pipeline.

        Raises:
            NotRunningError: It has not been started; a `RuntimeError`.
        """
        if self.running is None:
            raise NotRunningError(f"processor {self.name!r} is not running yet: its pipeline has not been started")
        return self.running

    def require_here(self) -> Running:
        """Return the pipeline, in the thread in which it runs.

        Raises:
            NotRunningError: It has not been started; a `RuntimeError`.
            WrongLoopError: It runs in another thread; a `RuntimeError`.
        """
        running = self.require_running()
        self.check_thread()
        return running

    def check_thread(self) -> None:
        """Raise `WrongLoopError` in another thread than that of the pipeline; before it runs, any may be used."""
        if get_ident() != self.thread and self.thread is not None:
            raise WrongLoopError(f"processor {self.name!r}", "thread")

    def halt(self) -> None:
        """Drop and cancel everything; take only a `CancelFrame` from now on."""
        # The data lane ends with its task. The system lane goes on: it is to handle the `CancelFrame`.
        assert self._system is not None
        assert self._data is not None
        self._stage, self._open = Stage.HALTED, False
        self._release()
        self._data.end()
        self.pauses.halt()
        self._system.entries.clear()
        self._system.cancel_current()

    def end(self) -> None:
        """Drop and cancel everything, and take nothing more."""
        self._stage, self._open = Stage.ENDED, False
        self._release()
        for lane in self.lanes:
            lane.end()

    def _release(self) -> None:
        self._early.clear()
        self._room.release()


def inbox_of(processor: HasCore) -> ProcessorInbox:
    """Return the inbox of a processor."""
    inbox: ProcessorInbox = core_of(processor)
    return inbox
