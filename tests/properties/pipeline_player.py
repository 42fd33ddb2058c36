"""Plays a `Script` with the library, and notes what the reference in ``pipeline_reference`` does."""

from collections import defaultdict
from functools import partial
from typing import Any, Final

import anyio

from properties.pipeline_machines import BEAT, DOWN, PATIENCE, UP, Notes
from properties.pipeline_scripts import EVENTS, REST, RESUMES, Line, Part, Row, Script, Stage, hits, rest, seconds
from properties.pipeline_world import Firm, Flash, Numbered
from support import pipelines as ways
from workerbus import (
    BusFrameMessage,
    BusMessage,
    BusSubscriber,
    BusTTSSpeakMessage,
    NotRunningError,
    PipelineWorker,
    WorkerRunner,
)
from workerbus.pipeline import (
    ControlFrame,
    DataFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    FrameDirection,
    FrameOrder,
    FrameProcessed,
    FrameProcessor,
    FrameProcessorPauseFrame,
    FrameProcessorPauseUrgentFrame,
    FrameProcessorResumeFrame,
    FrameProcessorResumeUrgentFrame,
    FramePushed,
    HeartbeatFrame,
    InterruptionFrame,
    Observer,
    ParallelPipeline,
    Pipeline,
    PipelineParams,
    StartFrame,
    SyncParallelPipeline,
    SystemFrame,
    TaskHandle,
    TTSSpeakFrame,
)

WAYS: Final = {DOWN: ways.DOWN, UP: ways.UP}
KINDS: Final[dict[type[Frame], str]] = {
    Firm: "firm",
    Numbered: "data",
    Flash: "flash",
    InterruptionFrame: "interruption",
    ErrorFrame: "error",
    EndFrame: "end",
    HeartbeatFrame: "heartbeat",
    TTSSpeakFrame: "speech",
    FrameProcessorPauseFrame: "pause frame",
    FrameProcessorResumeFrame: "resume frame",
    FrameProcessorPauseUrgentFrame: "pause urgent",
    FrameProcessorResumeUrgentFrame: "resume urgent",
}
PAUSES: Final[dict[str, Any]] = {kind: cls for cls, kind in KINDS.items() if " " in kind}
COUNTS: Final[dict[str, Any]] = {"all": None, "data": (DataFrame,), "control": (ControlFrame,)}


def label(frame: Any) -> str:
    """What the reference calls a frame."""
    kind = KINDS[type(frame)]
    if kind == "data" and not frame.interruptible:
        kind = "kept"
    if kind == "error":
        return f"error {frame.error.split()[-1]}"
    if kind == "speech":
        return f"speech {frame.text}"
    return f"{kind} {getattr(frame, 'number', 0)}"


def kept(number: int) -> Numbered:
    frame = Numbered(number)
    frame.interruptible = False
    return frame


class Probe(FrameProcessor):
    """A processor as a `Stage` says."""

    def __init__(self, player: "Player", stage: Stage, number: int) -> None:
        super().__init__(max_buffer_size=stage.bound or float("inf"))
        self.player = player
        self.stage = stage
        self.number = number
        self.pace = seconds(stage.pace, number, "pace")
        self.urgent = seconds(stage.urgent, number, "urgent")
        self.lingers = seconds(stage.lingers, number, "lingers")
        self.tasks: list[TaskHandle] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)
            return
        lane = "system" if isinstance(frame, SystemFrame) else "data"
        self.player.note((lane, self.number), label(frame), direction is ways.UP)
        if isinstance(frame, Numbered):
            await self._work(frame, direction)
            return
        if isinstance(frame, Flash | InterruptionFrame) and self.urgent:
            await anyio.sleep(self.urgent)
        await self.push_frame(frame, direction)

    async def _work(self, frame: Numbered, direction: FrameDirection) -> None:
        number, stage = frame.number, self.stage
        if self.pace:
            try:
                await anyio.sleep(self.pace)
            except anyio.get_cancelled_exc_class():
                if self.lingers:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(self.lingers)
                raise
        if hits(stage.raises, number):
            raise ValueError(number)
        if hits(stage.breaks, number):
            await self.broadcast_interruption()
        if hits(stage.makes, number):
            for more in (1, 2):
                await self.push_frame(Numbered(number * 1000 + more), direction)
        else:
            await self.push_frame(frame, ways.UP if hits(stage.turns, number) else direction)

    async def task(self, number: int, *, fails: bool) -> None:
        for way in (ways.DOWN, ways.UP):
            await anyio.sleep(0.5 + rest("task"))
            await self.push_frame(Numbered(number), way)
        if fails:
            raise ValueError(number)


class Watcher(Observer):
    """Notes what it sees."""

    def __init__(self, player: "Player", number: int) -> None:
        super().__init__(observe_every_push=number == 0)
        self.player = player
        self.number = number

    async def on_process_frame(self, data: FrameProcessed) -> None:
        self._note("begins", data.processor, data)

    async def on_push_frame(self, data: FramePushed) -> None:
        self._note("pushes", data.source, data)

    def _note(self, what: str, who: FrameProcessor, data: Any) -> None:
        assert isinstance(who, Probe)
        if not isinstance(data.frame, StartFrame):
            self.player.note(("observer", self.number), what, who.number, label(data.frame), data.direction is ways.UP)


class Hearer(BusSubscriber):
    """Notes what comes over the bus from the pipeline."""

    name = "hearer"

    def __init__(self, player: "Player") -> None:
        self.player = player

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusFrameMessage) and message.source == "w":
            up, late = message.direction is ways.UP, message.late_since is not None
            self.player.note(("bus",), label(message.frame), up, str(message.bridge), late)


class Player:
    """Plays a script, and notes what happens."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.notes: Notes = defaultdict(list)
        self.ending = False
        self.probes: list[Probe] = []
        self.watchers = [Watcher(self, 0), Watcher(self, 1)]
        pipeline = self._part(script.row)
        assert isinstance(pipeline, Pipeline)
        self.worker = PipelineWorker(
            pipeline,
            name="w",
            bridged=script.bridged,
            exclude_frames=(Flash,) if script.excluded else None,
            params=PipelineParams(
                enable_heartbeats=script.beats, heartbeats_period_secs=BEAT, heartbeats_monitor_secs=PATIENCE
            ),
            idle_timeout_secs=script.idle + rest("idle") if script.idle else None,
            idle_timeout_frames=COUNTS[script.counts],
            cancel_on_idle_timeout=False,
        )

    def note(self, key: tuple[Any, ...], *what: Any) -> None:
        self.notes[key].append((anyio.current_time(), *what))

    def _part(self, part: Part) -> Any:
        if isinstance(part, Stage):
            self.probes.append(Probe(self, part, len(self.probes)))
            return self.probes[-1]
        if isinstance(part, Row):
            return Pipeline([self._part(each) for each in part.parts])
        branches = [self._part(branch) for branch in part.branches]
        if part.order == "loose":
            return ParallelPipeline(*branches)
        return SyncParallelPipeline(*branches, frame_order=FrameOrder(part.order))

    async def play(self) -> Notes:
        worker, runner = self.worker, WorkerRunner(handle_sigint=False)
        for way, event in ((DOWN, "on_frame_reached_downstream"), (UP, "on_frame_reached_upstream")):
            worker.add_event_handler(event, partial(self._left, way))
        worker.add_event_handler("on_pipeline_error", lambda _, frame: self.note(("errors",), label(frame)))
        worker.add_event_handler("on_pipeline_finished", lambda *_: self.note(("over",)))
        worker.add_event_handler("on_idle_timeout", lambda _: self.note(("idle",)))
        hearer = Hearer(self)
        await runner.bus.subscribe(hearer)
        async with runner:
            await runner.add_workers(worker)
            await runner.registry.wait_for("w")
            assert anyio.current_time() == 0
            async with anyio.create_task_group() as group:
                times = self.script.times()
                for n, (time, line) in enumerate(zip(times, self.script.lines, strict=True)):
                    group.start_soon(self._at, time, line, 10 * n + 10)
                for n, probe in enumerate(self.probes):
                    group.start_soon(self._resume, times[-1] + REST / 2 + n / 8, probe)
                await anyio.sleep(times[-1] + REST)
                self.ending = True
                await worker.stop_when_done()
                await worker.wait()
        await runner.bus.unsubscribe(hearer)
        return self.notes

    def _left(self, way: bool, _: PipelineWorker, frame: Frame) -> None:
        if not isinstance(frame, StartFrame):
            self.note(("left", way), label(frame))

    @staticmethod
    async def _resume(time: float, probe: Probe) -> None:
        await anyio.sleep(time)
        for _ in range(RESUMES):
            await probe.resume_processing_system_frames()
            await anyio.sleep(1 / 16)
            await probe.resume_processing_frames()
            await anyio.sleep(1 - 1 / 16)

    async def _at(self, time: float, line: Line, number: int) -> None:
        await anyio.sleep(time)
        probe = self.probes[line.who % len(self.probes)]
        try:
            await getattr(self, "do_" + line.what.replace(" ", "_"))(line, probe, number)
        except NotRunningError:
            assert self.ending

    # --- what happens

    async def _queue(self, line: Line, *frames: Frame) -> None:
        for frame in frames:
            await self.worker.queue_frame(frame, WAYS[line.up])

    async def do_down(self, line: Line, _: Probe, number: int) -> None:
        await self.worker.queue_frames([Numbered(number + n) for n in range(line.much)])

    async def do_up(self, line: Line, _: Probe, number: int) -> None:
        await self.worker.queue_frames([Numbered(number + n) for n in range(line.much)], ways.UP)

    async def do_firm(self, line: Line, _: Probe, number: int) -> None:
        await self._queue(line, Firm(number))

    async def do_kept(self, line: Line, _: Probe, number: int) -> None:
        await self._queue(line, kept(number))

    async def do_flash(self, line: Line, _: Probe, number: int) -> None:
        await self._queue(line, *[Flash(number + n) for n in range(line.much)])

    async def do_interrupt(self, line: Line, _: Probe, number: int) -> None:
        await self._queue(line, InterruptionFrame())

    async def do_break(self, _: Line, probe: Probe, number: int) -> None:
        await probe.broadcast_interruption()

    async def do_both(self, line: Line, probe: Probe, number: int) -> None:
        await probe.broadcast_frame(Flash if line.up else Numbered, number)

    async def do_copies(self, _: Line, probe: Probe, number: int) -> None:
        await probe.broadcast_frame_instance(kept(number))

    async def do_into(self, line: Line, probe: Probe, number: int) -> None:
        await probe.queue_frame((Flash if line.much > 2 else Numbered)(number), WAYS[line.up])

    async def do_pause(self, _: Line, probe: Probe, number: int) -> None:
        await probe.pause_processing_frames()

    async def do_resume(self, _: Line, probe: Probe, number: int) -> None:
        await probe.resume_processing_frames()

    async def do_pause_system(self, _: Line, probe: Probe, number: int) -> None:
        await probe.pause_processing_system_frames()

    async def do_resume_system(self, _: Line, probe: Probe, number: int) -> None:
        await probe.resume_processing_system_frames()

    async def do_hold(self, line: Line, probe: Probe, number: int) -> None:
        after = line.much / 2 + rest("hold")
        if line.up:
            await probe.pause_processing_all_frames_until(partial(anyio.sleep, after))
        else:
            await probe.pause_processing_all_frames_until(anyio.sleep_forever, timeout=after)

    async def do_pause_frame(self, line: Line, probe: Probe, number: int) -> None:
        await self._queue(line, PAUSES[line.what](probe))

    do_resume_frame = do_pause_urgent = do_resume_urgent = do_pause_frame

    async def do_flush(self, _: Line, __: Probe, number: int) -> None:
        await self.worker.flush()
        self.note(("flushed",), number)

    async def do_observe(self, line: Line, _: Probe, number: int) -> None:
        self.worker.add_observer(self.watchers[line.much % 2])

    async def do_unobserve(self, line: Line, _: Probe, number: int) -> None:
        await self.worker.remove_observer(self.watchers[line.much % 2])

    async def do_listen(self, line: Line, probe: Probe, number: int) -> None:
        event = EVENTS[(line.who + line.much) % len(EVENTS)]

        async def told(processor: Probe, frame: Frame) -> None:
            self.note(("told", event, processor.number), label(frame))

        probe.add_event_handler(event, told)

    async def do_error(self, _: Line, probe: Probe, number: int) -> None:
        await probe.push_error(str(number))

    async def do_task(self, line: Line, probe: Probe, number: int) -> None:
        probe.tasks.append(probe.create_task(partial(probe.task, number, fails=line.much > 2)))

    async def do_cancel_task(self, _: Line, probe: Probe, number: int) -> None:
        if probe.tasks:
            await probe.cancel_task(probe.tasks.pop())

    async def do_filter(self, line: Line, _: Probe, number: int) -> None:
        types = (DataFrame,) if line.much > 2 else (SystemFrame,)
        worker = self.worker
        (worker.set_reached_upstream_filter if line.up else worker.set_reached_downstream_filter)(types)

    async def do_toggle(self, _: Line, __: Probe, number: int) -> None:
        worker = self.worker
        await (worker.deactivate_worker("w") if worker.active else worker.activate_worker("w"))

    async def do_came(self, line: Line, _: Probe, number: int) -> None:
        tag = (None, "one", "two", "three")[line.much % 4]
        message = BusFrameMessage(Numbered(number), WAYS[line.who % 2 == 1], tag, source="x")
        await self.worker.bus.send(message)

    async def do_speak(self, _: Line, __: Probe, number: int) -> None:
        await self.worker.bus.send(BusTTSSpeakMessage(str(number), source="x"))
