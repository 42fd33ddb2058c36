"""A processor's inbox: where frames wait for it, and when it gets them (P1, P2).

An inbox has two lanes. System frames go before data frames: while those wait, while one of those is being handled, and
after at most one more where handlers never suspend. What is put in is there when ``put`` returns.

* **The gate.** Before the start has reached the sink an inbox takes the `StartFrame` and nothing else; the rest waits,
  and goes into the lanes in its order when the gate is opened (P2).
* **Room.** A bounded inbox counts the downstream frames of its data lane, and lets pushers stand in line. Upstream
  frames are not counted, so that two neighbours never wait for each other.
* **Interruptions** act where they are put, not where they are handled: what waits at that moment is dropped, what comes
  later is not.
* **The end.** A halted inbox takes only a `CancelFrame`; an ended one, nothing.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from typing import Any, Protocol

from anyio import get_current_task, move_on_after

from workerbus._concurrency.lifetime import CLEANUP_SECONDS
from workerbus._concurrency.room import Room
from workerbus._slot import HasCore, core_of
from workerbus.errors import NotRunningError, text_of
from workerbus.pipeline._frame_lane import FrameLane
from workerbus.pipeline._frames import (
    CancelFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    InterruptionFrame,
    Marker,
    StartFrame,
)
from workerbus.pipeline._ports import DOWNSTREAM, UPSTREAM, Entry, Port, Running, TaskHandle, Waiting

logger = logging.getLogger("workerbus")


Process = Callable[[Frame, FrameDirection], Awaitable[None]]


class Stage(Enum):
    """Where an inbox is in its life."""

    IDLE = 0
    GATED = 1
    OPEN = 2
    HALTED = 3
    ENDED = 4


class Processor(Protocol):
    """A processor, as its inbox sees it."""

    @property
    def name(self) -> str:
        """Its name."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Process a frame."""


class Visitor(Protocol):
    """A processor that is there before and after its pipeline runs."""

    async def attached(self) -> None:
        """The worker has been attached to its bus."""

    def joined(self) -> None:
        """The pipeline is being started: frames may be pushed, and wait for the start."""

    async def departed(self) -> None:
        """The worker leaves."""


class Passing:
    """A port that notes whether a certain frame has been put into it.

    Args:
        frame: Which.
        port: Where it really goes.
    """

    __slots__ = ("_frame", "_port", "passed")

    def __init__(self, frame: Frame, port: Port) -> None:
        self._frame = frame
        self._port = port
        self.passed: bool = False

    @property
    def owner(self) -> Any:
        """See `Port`."""
        return self._port.owner

    @property
    def got_start(self) -> bool:
        """See `Port`."""
        return self._port.got_start

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """See `Port`."""
        self.passed = self.passed or frame is self._frame
        return self._port.put(frame, direction, may_wait)


class ProcessorInbox:
    """Where frames wait for a processor.

    Args:
        owner: The processor.
        name: Its name.
        limit: How many downstream frames may wait in its data lane.

    Attributes:
        previous: Where it pushes to upstream.
        following: Where it pushes to downstream.
        pushed: How many frames it has pushed.
        running: The pipeline that it runs in.
        set_up: Whether the processor has been set up.
        tasks: How many tasks of its own it has running.
        kept: The last frame that ends a pipeline and that it has handled without passing it on.
        visitor: Wants to know when the worker is attached and departs; None for most.
        claimed: Whether the processor stands in a pipeline.
    """

    __slots__ = (
        "_bounded",
        "_data",
        "_early",
        "_open",
        "_room",
        "_stage",
        "_system",
        "claimed",
        "following",
        "got_start",
        "kept",
        "name",
        "owner",
        "previous",
        "pushed",
        "running",
        "set_up",
        "tasks",
        "visitor",
    )

    def __init__(self, owner: Processor, name: str, limit: float = math.inf) -> None:
        self.owner: Any = owner
        self.name: str = name
        self._room: Room[Entry] = Room(limit)
        self._bounded = self._room.bounded
        self.claimed: bool = False
        self.visitor: Visitor | None = None
        self.reset()

    def reset(self) -> None:
        """Be as new, for another pipeline."""
        self._stage = Stage.IDLE
        self._open = False
        self._early: list[Entry] = []
        self._room = Room(self._room.limit)
        self._system: FrameLane | None = None
        self._data: FrameLane | None = None
        self.previous: Port | None = None
        self.following: Port | None = None
        self.running: Running | None = None
        self.got_start: bool = False
        self.set_up: bool = False
        self.pushed: int = 0
        self.tasks: int = 0
        self.kept: Frame | None = None

    # --- as a piece of a pipeline

    @property
    def down_entry(self) -> Port:
        """Itself."""
        return self

    @property
    def up_entry(self) -> Port:
        """Itself."""
        return self

    def connect(self, previous: Port, following: Port) -> None:
        """Say where the processor pushes to."""
        self.previous, self.following = previous, following

    def join(self, running: Running, process: Process) -> None:
        """Become part of a running pipeline.

        Args:
            running: The pipeline.
            process: What to await with each frame: the processor's ``process_frame``, as a rule.
        """
        watcher = running.watcher
        if watcher is not None:
            plain = process

            async def process(frame: Frame, direction: FrameDirection) -> None:
                watcher.processing(self.owner, frame, direction)
                await plain(frame, direction)

        async def process_system(frame: Frame, direction: FrameDirection) -> None:
            if not isinstance(frame, InterruptionFrame):
                await process(frame, direction)
                return
            try:
                await self._until_unwound()
                await process(frame, direction)
            finally:
                data.release()

        taken = self._left_data if self._bounded else None

        async def process_joined(frame: Frame, direction: FrameDirection) -> None:
            if isinstance(frame, Marker):
                # Behind system frames, too, which wait or are handled now, and without holding data frames back.
                system.when_quiet(partial(self._port(direction).put, frame, direction, False))
            elif isinstance(frame, StartFrame):
                await process(frame, direction)
            else:
                await self._process_last(process, frame, direction)

        system = FrameLane(self._start_lane, process_system, self.failed, process_joined)
        data = FrameLane(self._start_lane, process, self.failed, process_joined, taken, system)
        self._system, self._data, self.running, self._stage = system, data, running, Stage.GATED

    def _start_lane(self, lane: FrameLane) -> TaskHandle:
        assert self.running is not None
        kind = "data" if lane is self._data else "system"
        return self.running.start(lane.run, (), name=f"{self.name} {kind}", owner=self.name)

    # --- frames come

    def put(self, frame: Frame, direction: FrameDirection, may_wait: bool = True) -> Waiting | None:
        """Take a frame; see `Port.put`."""
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
        # Where nobody waits for it, too: it must not get ahead of those who do.
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
            self._data.held += 1
            if self._open:
                self.drop()
        self._system.add(entry)

    def _put_closed(self, frame: Frame, direction: FrameDirection, may_wait: bool) -> Waiting | None:
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
        """Let in what has come before the start, and from now on what comes (P2)."""
        self._stage = Stage.OPEN
        early, self._early = self._early, []
        for entry in early:
            self._enter(entry)
        self._open = True

    def _left_data(self, direction: FrameDirection) -> None:
        if direction is DOWNSTREAM:
            self._room.leave()

    # --- interruptions

    def drop(self, *, spare_own_task: bool = False) -> None:
        """Drop the frames that wait and cancel the one that is being handled, as far as they are interruptible.

        Args:
            spare_own_task: Whether a handler that calls this is let finish.
        """
        data = self._data
        if data is None:
            return
        kept = [entry for entry in data.entries if entry[0].is_uninterruptible]
        data.entries.clear()
        data.entries.extend(kept)
        self._early = [entry for entry in self._early if entry[0].is_system or entry[0].is_uninterruptible]
        if self._bounded:
            waiting = [*kept, *self._early]
            self._room.taken = sum(way is DOWNSTREAM and not frame.is_system for frame, way in waiting)
        self._room.release(but=lambda entry: entry[0].is_uninterruptible)
        spared = spare_own_task and get_current_task().id == data.task_id
        if data.current is not None and not (spared or data.current.is_uninterruptible):
            data.cancel_current()
        self._room.admit()

    async def _until_unwound(self) -> None:
        assert self._data is not None
        unwound = self._data.unwound
        if unwound is None:
            return
        with move_on_after(CLEANUP_SECONDS):
            await unwound.wait()
            return
        logger.warning("processor %r still handles a frame %g s after an interruption", self.name, CLEANUP_SECONDS)

    # --- what has to get through, and errors

    def _port(self, direction: FrameDirection) -> Port:
        port = self.following if direction is DOWNSTREAM else self.previous
        assert port is not None
        return port

    async def _process_last(self, process: Process, frame: Frame, direction: FrameDirection) -> None:
        """Process a frame that ends the pipeline; if the processor raises instead of passing it on, do that for it."""
        port = self._port(direction)
        passing = Passing(frame, port)
        self._lead(direction, passing)
        try:
            await process(frame, direction)
        except BaseException:
            if not passing.passed:
                port.put(frame, direction, False)
            raise
        else:
            self.kept = None if passing.passed else frame
        finally:
            self._lead(direction, port)

    def _lead(self, direction: FrameDirection, port: Port) -> None:
        if direction is DOWNSTREAM:
            self.following = port
        else:
            self.previous = port

    def failed(self, frame: Frame | None, exc: Exception) -> None:
        """Log what the processor raised and tell the worker, past the processors upstream (P1)."""
        assert self.running is not None
        assert self.previous is not None
        what = "a task" if frame is None else frame.name
        logger.error("processor %r failed with %s", self.name, what, exc_info=exc)
        if isinstance(frame, StartFrame) and self.following is not None and not self.following.got_start:
            self.running.start_failed(exc)
        else:
            text = f"{type(exc).__name__}: {text_of(exc)}"
            error = ErrorFrame(text, processor=self.name, exception=exc)
            self.previous.put(error, UPSTREAM, False)

    # --- the end

    async def system_quiet(self) -> None:
        """Wait until no system frame waits or is being handled."""
        assert self._system is not None
        await self._system.quiet()

    @property
    def at_work(self) -> bool:
        """Whether frames wait here or are being handled, or a task of the processor's own runs."""
        lanes = [lane for lane in (self._system, self._data) if lane is not None]
        return bool(self.tasks) or any(lane.entries or lane.current is not None for lane in lanes)

    @property
    def late_with_start(self) -> bool:
        """Whether the start has come here and not gone on."""
        return self.got_start and self.following is not None and not self.following.got_start

    def require_running(self) -> Running:
        """Return the pipeline; raise `NotRunningError` before there is one."""
        if self.running is None:
            raise NotRunningError(f"processor {self.name!r} is not running yet: its pipeline has not been started")
        return self.running

    def halt(self) -> None:
        """Drop and cancel everything; take only a `CancelFrame` from now on (P2)."""
        assert self._system is not None
        assert self._data is not None
        self._stage, self._open = Stage.HALTED, False
        self._release()
        self._data.end()
        self._system.entries.clear()
        self._system.cancel_current()

    def end(self) -> None:
        """Take nothing more."""
        self._stage, self._open = Stage.ENDED, False
        self._release()
        for lane in (self._system, self._data):
            if lane is not None:
                lane.end()

    def _release(self) -> None:
        self._early.clear()
        self._room.release()


def inbox_of(processor: HasCore) -> ProcessorInbox:
    """Return the inbox of a processor."""
    inbox: ProcessorInbox = core_of(processor)
    return inbox
