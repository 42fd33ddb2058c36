"""Features of pipelines: frames, interruptions, pauses, branches, flushes, heartbeats, observers, bridges, and ends."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
from anyio import create_task_group, sleep

from properties.beside.harness import Side, feature
from support.pipelines import DOWN, UP
from workerbus import BusBridgeProcessor, BusTTSSpeakMessage, PipelineWorker
from workerbus.pipeline import (
    CancelFrame,
    ControlFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameOrder,
    FrameProcessed,
    FrameProcessor,
    FrameProcessorPauseFrame,
    FrameProcessorResumeUrgentFrame,
    FramePushed,
    HeartbeatFrame,
    InterruptionFrame,
    Observer,
    ParallelPipeline,
    Pipeline,
    PipelineParams,
    PipelineStartTimeoutError,
    StartFrame,
    StopFrame,
    SyncParallelPipeline,
    SystemFrame,
    TextFrame,
    TTSSpeakFrame,
)

SHOWN = (TextFrame, TTSSpeakFrame, HeartbeatFrame, InterruptionFrame, EndFrame, StopFrame, CancelFrame)


def said(frame: Frame) -> str:
    """What a frame is, in a word."""
    return str(getattr(frame, "text", type(frame).__name__))


class Step(FrameProcessor):
    """Takes its time for texts, and tells a side what it begins with."""

    def __init__(self, side: Side, word: str, pace: float = 0.0, **options: Any) -> None:
        super().__init__(side.name(word), **options)
        self.side = side
        self.pace = pace

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, SHOWN):
            self.side.see(self.name, said(frame), direction.name)
        if isinstance(frame, TextFrame) and self.pace:
            await sleep(self.pace)
        if isinstance(frame, TextFrame) and frame.text == "wrong":
            raise ValueError("it was wrong")
        await self.push_frame(frame, direction)


def piped(name: str, parts: list[Any], **options: Any) -> PipelineWorker:
    """A worker with a pipeline."""
    return PipelineWorker(Pipeline(parts), name=name, **options)


async def hired(side: Side, *parts: Any, word: str = "piped", **options: Any) -> PipelineWorker:
    """A worker that runs, whose end and errors the side is told of."""
    worker = await side.hire(piped, word, list(parts), **options)
    worker.add_event_handler("on_pipeline_finished", lambda it, frame: side.see(it.name, "finished", said(frame)))
    worker.add_event_handler("on_pipeline_error", lambda it, frame: side.see(it.name, "error", frame.error))
    return worker


def texts(*words: str) -> list[TextFrame]:
    return [TextFrame(word) for word in words]


async def drained(side: Side, worker: PipelineWorker) -> Any:
    """End a worker when it has done all, and return what was seen."""
    await worker.stop_when_done()
    await worker.wait()
    side.see("over")
    return side.in_order()


@feature()
async def frames_both_ways(side: Side) -> Any:
    """P1, P2: in their order; an end drains."""
    worker = await hired(side, Step(side, "first", 0.2), Step(side, "second", 0.31))
    await worker.queue_frames(texts("a", "b", "c"))
    await worker.queue_frames(texts("x", "y"), UP)
    return await drained(side, worker)


@feature()
async def two_interruptions(side: Side) -> Any:
    """P1: each drops what was there, and nothing that comes later; a frame that is firm stays."""
    worker = await hired(side, Step(side, "first", 0.2), Step(side, "second", 0.31))
    for words in ("abc", "def"):
        await worker.queue_frames(texts(*words))
        firm = TextFrame("firm")
        firm.interruptible = False
        await worker.queue_frame(firm)
        await sleep(0.27)
        await worker.queue_frame(InterruptionFrame())
    await worker.queue_frame(TextFrame("g"))
    return await drained(side, worker)


@feature()
async def a_bounded_processor(side: Side) -> Any:
    """P1: whoever queues frames waits for room, and an interruption makes some."""
    worker = await hired(side, Step(side, "first", 0.2, max_buffer_size=1))

    async def queue(word: str) -> None:
        await worker.queue_frame(TextFrame(word))
        side.see("queued", word)

    async with create_task_group() as tasks:
        for number, word in enumerate("abcdef"):
            tasks.start_soon(queue, word)
            await sleep(0.03 + number / 1000)
        await worker.queue_frame(InterruptionFrame())
        await queue("g")
    return await drained(side, worker)


@feature()
async def pauses_of_several_kinds(side: Side) -> Any:
    """P1: what comes meanwhile waits in its order; of several pauses each ends for itself."""
    first, second = Step(side, "first"), Step(side, "second")
    worker = await hired(side, first, second)
    for pause in (first.pause_processing_frames, first.pause_processing_system_frames):
        await pause()
    await worker.queue_frames([*texts("a", "b"), InterruptionFrame(), *texts("c")])
    await sleep(0.1)
    await first.resume_processing_system_frames()
    await sleep(0.1)
    await first.resume_processing_frames()
    await first.pause_processing_all_frames_until(partial(sleep, 0.3))
    await first.pause_processing_all_frames_until(anyio.sleep_forever, timeout=0.5)
    await worker.queue_frames([FrameProcessorPauseFrame(second), *texts("d")])
    await sleep(0.7)
    await worker.queue_frame(FrameProcessorResumeUrgentFrame(second))
    return await drained(side, worker)


@feature()
async def branches_side_by_side(side: Side) -> Any:
    """P1: a frame goes on once, an end when all branches have let it out."""
    fork = ParallelPipeline([Step(side, "slow", 0.3)], [Step(side, "quick", 0.1)])
    worker = await hired(side, fork, Step(side, "last"))
    await worker.queue_frames(texts("a", "b"))
    await worker.queue_frames(texts("x"), UP)
    return await drained(side, worker)


async def _turns(side: Side, order: FrameOrder) -> Any:
    class Answers(Step):
        async def push_frame(self, frame: Frame, direction: FrameDirection = DOWN) -> None:
            new = TextFrame(f"{said(frame)} {self.name}") if isinstance(frame, TextFrame) else frame
            await super().push_frame(new, direction)

    fork = SyncParallelPipeline([Answers(side, "slow", 0.3)], [Answers(side, "quick", 0.1)], frame_order=order)
    worker = await hired(side, fork, Step(side, "last"))
    await worker.queue_frames(texts("a", "b"))
    await sleep(0.35)
    await worker.queue_frames([InterruptionFrame(), *texts("c", "d")])
    await worker.stop_when_done()
    await worker.wait()
    return [each for each in side.seen if each[1].startswith("last")]


@feature()
async def turns_in_the_order_of_arrival(side: Side) -> Any:
    """P1: what the branches make of one frame goes on together."""
    return await _turns(side, FrameOrder.ARRIVAL)


@feature()
async def turns_in_the_order_of_the_pipeline(side: Side) -> Any:
    """P1: what the branches make of one frame goes on together, the first branch's first."""
    return await _turns(side, FrameOrder.PIPELINE)


@feature()
async def flushes_behind_one_another(side: Side) -> Any:
    """P6: each returns when what was queued before it has come out."""
    worker = await hired(side, Step(side, "first", 0.2), Step(side, "second", 0.1))

    async def flush(number: int) -> None:
        await worker.flush(timeout=5)
        side.see("flushed", number)

    async with create_task_group() as tasks:
        for number in range(3):
            await worker.queue_frames(texts("a", "b"))
            tasks.start_soon(flush, number)
            await sleep(0.07)
    return await drained(side, worker)


@feature()
async def heartbeats(side: Side) -> Any:
    """P6: one after the other, a period after the last one has come out."""
    params = PipelineParams(enable_heartbeats=True, heartbeats_period_secs=0.5)
    worker = await hired(side, Step(side, "first", 0.2), params=params)
    await sleep(0.4)
    await worker.queue_frames(texts("a", "b"))
    await sleep(1.3)
    return await drained(side, worker)


@feature()
async def idleness(side: Side) -> Any:
    """P6: again and again, so long after the last frame that counts."""
    worker = await hired(
        side, Step(side, "first"), idle_timeout_secs=0.4, idle_timeout_frames=(TextFrame,), cancel_on_idle_timeout=False
    )
    worker.add_event_handler("on_idle_timeout", lambda it: side.see(it.name, "idle"))
    await sleep(0.3)
    await worker.queue_frame(TextFrame("a"))
    await sleep(0.3)
    await worker.queue_frame(InterruptionFrame())
    await worker.flush()
    await sleep(0.7)
    return await drained(side, worker)


class Looks(Observer):
    """Tells a side what it sees of texts."""

    def __init__(self, side: Side, word: str, *, every: bool) -> None:
        super().__init__(observe_every_push=every)
        self.side = side
        self.word = word

    async def on_process_frame(self, data: FrameProcessed) -> None:
        if isinstance(data.frame, TextFrame):
            self.side.see(self.word, "begins", data.processor.name, data.frame.text)

    async def on_push_frame(self, data: FramePushed) -> None:
        if isinstance(data.frame, TextFrame):
            self.side.see(self.word, "pushes", data.source.name, data.frame.text, data.first_push)


@feature()
async def two_observers_that_come_and_go(side: Side) -> Any:
    """L4: each is told of what happens while it is there."""
    worker = await hired(side, Step(side, "first", 0.1), Step(side, "second", 0.17))
    every, once = Looks(side, "every", every=True), Looks(side, "once", every=False)
    for do in (partial(_add, once), partial(_add, every), partial(_add, once)):
        await do(worker)
        await worker.queue_frames(texts("a", "b"))
        await sleep(0.23)
    await worker.remove_observer(once)
    await worker.queue_frame(TextFrame("c"))
    return await drained(side, worker)


async def _add(observer: Observer, worker: PipelineWorker) -> None:
    worker.add_observer(observer)


@feature()
async def events_of_processors(side: Side) -> Any:
    """N3: two handlers of each event, before and after; one of them takes its time."""
    step = Step(side, "first", 0.1)
    worker = await hired(side, step)

    def tells(event: str, pace: float) -> Callable[[Any, Frame], Awaitable[None]]:
        async def told(_: Any, frame: Frame) -> None:
            if isinstance(frame, TextFrame):
                side.see(event, frame.text)
                await sleep(pace)

        return told

    for event in ("on_before_process_frame", "on_after_process_frame", "on_before_push_frame", "on_after_push_frame"):
        for pace in (0.02, 0.0):
            step.add_event_handler(event, tells(event, pace))
    step.add_event_handler("on_error", lambda it, frame: side.see(it.name, "has told", frame.error))
    await worker.queue_frames(texts("a", "wrong", "b"))
    await step.push_error("as it were")
    return await drained(side, worker)


@feature()
async def what_has_left(side: Side) -> Any:
    """N3: at either end, as the filters of this worker say."""
    worker = await hired(side, Step(side, "first"))
    worker.add_event_handler("on_frame_reached_downstream", lambda it, frame: side.see(it.name, "down", said(frame)))
    worker.add_event_handler("on_frame_reached_upstream", lambda it, frame: side.see(it.name, "up", said(frame)))
    for down, up in (((Frame,), (TextFrame,)), ((SystemFrame,), (ControlFrame,)), ((TextFrame,), (SystemFrame,))):
        worker.set_reached_downstream_filter(down)
        worker.set_reached_upstream_filter(up)
        for way in (DOWN, UP):
            await worker.queue_frames([TextFrame("a"), InterruptionFrame()], way)
            await sleep(0.1)
    return await drained(side, worker)


@feature()
async def a_stop_and_another_pipeline(side: Side) -> Any:
    """P2: after a `StopFrame` the same processors go on in another worker, branches and bounds too."""
    steps = [Step(side, "first", 0.1, max_buffer_size=2), Step(side, "second", 0.2)]
    for word in ("once", "again"):
        worker = await hired(side, SyncParallelPipeline([steps[0]], [steps[1]]), word=word)
        await worker.queue_frames(texts("a", "b"))
        await worker.queue_frame(StopFrame())
        await worker.wait()
        side.see(word, "over")
    return side.in_order()


@feature()
async def a_cancel_with_frames_on_their_way(side: Side) -> Any:
    """P2: a `CancelFrame` goes through at once, and the rest is dropped."""
    step = Step(side, "first", 0.3)
    worker = await hired(side, step, Step(side, "second"))
    await worker.queue_frames(texts("a", "b", "c"))
    await step.pause_processing_all_frames_until(anyio.sleep_forever)
    await step.pause_processing_all_frames_until(anyio.sleep_forever)
    await sleep(0.4)
    await worker.queue_frame(CancelFrame("that will do"))
    await worker.wait()
    side.see("over")
    return side.in_order()


@feature()
async def a_start_that_hangs(side: Side) -> Any:
    """P6: the error names the processor, and the worker is gone in time."""

    class Keeps(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            if not isinstance(frame, StartFrame):
                await self.push_frame(frame, direction)

    parts = [Step(side, "first"), Keeps(side.name("keeps"))]
    worker = piped(side.name("piped"), parts, start_timeout_secs=0.5)
    await side.runner.add_workers(worker)
    try:
        await worker.wait()
    except PipelineStartTimeoutError as exc:
        side.see("failed", str(exc))
    side.see("over")
    await sleep(0.1)  # its runner is told behind that
    return side.in_order(), side.errors()


@feature()
async def a_hand_over_behind_a_bridge(side: Side) -> Any:
    """P4, W3: what has been asked is answered by who was active, once; an agent's frames do not come to others."""
    tag = side.name("bridge")
    bridge = BusBridgeProcessor(bus=side.bus, worker_name=side.name("front"), bridge=tag, name=side.name("middle"))
    agents = [
        await hired(side, Step(side, f"in {word}", 0.1), word=word, bridged=(tag,), active=word == "one")
        for word in ("one", "two")
    ]
    front = await hired(side, Step(side, "first"), bridge, Step(side, "out"), word="front")
    for number in range(4):
        await front.queue_frames(texts(f"a{number}", f"b{number}"))
        await sleep(0.15)
        here, there = agents if agents[0].active else reversed(agents)
        await here.activate_worker(there.name, deactivate_self=True)
    await front.flush(timeout=5)
    side.see("flushed")
    for worker in (front, *agents):
        await worker.stop_when_done()
        await worker.wait()
    return side.in_order()


@feature()
async def something_to_say(side: Side) -> Any:
    """P5: it is said in its turn, once for each who is asked to."""
    worker = await hired(side, Step(side, "first", 0.1))
    await worker.queue_frames(texts("a", "b"))
    for text in ("hello", "hello again"):
        await side.bus.send(BusTTSSpeakMessage(text, source=side.name("sender"), target=worker.name))
    return await drained(side, worker)
