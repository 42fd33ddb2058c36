"""Processors and workers for the tests of pipelines."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from support.workers import running
from workerbus import PipelineWorker, WorkerRunner
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessed,
    FrameProcessor,
    FrameProcessorSetup,
    FramePushed,
    Observer,
    Pipeline,
    StartFrame,
    StopFrame,
    SystemFrame,
    TextFrame,
    UninterruptibleFrame,
    frame_type,
)

DOWN, UP = FrameDirection.DOWNSTREAM, FrameDirection.UPSTREAM


@frame_type
class Alert(SystemFrame):
    """A system frame."""

    text: str


@frame_type
class Firm(TextFrame, UninterruptibleFrame):
    """A text that no interruption drops."""


def kept(text: str) -> TextFrame:
    """A text that no interruption drops, of a class that it drops."""
    frame = TextFrame(text)
    frame.interruptible = False
    return frame


def texts(*words: object) -> list[TextFrame]:
    return [TextFrame(str(word)) for word in words]


def said(frames: Iterable[Frame]) -> list[str]:
    """What text and system frames say; nothing of the others."""
    return [frame.text for frame in frames if isinstance(frame, TextFrame | Alert)]


class Spy(FrameProcessor):
    """Passes everything on and writes down what it gets; ``on`` is awaited with each text and system frame first.

    Attributes:
        got: The frames, in the order in which their processing began.
        done: Those whose processing is over.
        log: What has been called, ``setup`` and ``cleanup`` included.
    """

    def __init__(
        self,
        on: Callable[["Spy", Frame], Awaitable[Any]] | None = None,
        *,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, **kwargs)
        self.on = on
        self.got: list[Frame] = []
        self.done: list[Frame] = []
        self.log: list[str] = []
        self.ways: list[FrameDirection] = []
        self._news = anyio.Event()

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        self.log.append("setup")

    async def cleanup(self) -> None:
        await super().cleanup()
        self.log.append("cleanup")

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.got.append(frame)
        self.ways.append(direction)
        self.log.append(type(frame).__name__)
        self.tell()
        if self.on is not None and not isinstance(frame, StartFrame | EndFrame | StopFrame | CancelFrame):
            await self.on(self, frame)
        self.done.append(frame)
        await self.push_frame(frame, direction)

    def tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def until(self, count: int = 1, kind: type[Frame] = TextFrame) -> list[Frame]:
        """Wait until it has got so many frames of a kind."""
        while len(found := [frame for frame in self.got if isinstance(frame, kind)]) < count:
            await self._news.wait()
        return found

    @property
    def heard(self) -> list[str]:
        return said(self.got)

    def got_going(self, way: FrameDirection) -> list[Frame]:
        return [frame for frame, went in zip(self.got, self.ways, strict=True) if went is way]

    def heard_going(self, way: FrameDirection) -> list[str]:
        return said(self.got_going(way))


class Gate:
    """Lets nothing through until it is opened."""

    def __init__(self) -> None:
        self._open = anyio.Event()
        self.reached = anyio.Event()
        self.left = 0

    async def __call__(self, spy: Spy, frame: Frame) -> None:
        self.reached.set()
        try:
            await self._open.wait()
        finally:
            self.left += 1

    def open(self) -> None:
        self._open.set()


def for_texts(do: Callable[[Spy, Frame], Awaitable[Any]]) -> Callable[[Spy, Frame], Awaitable[Any]]:
    """Do something with text frames only."""

    async def on(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame):
            await do(spy, frame)

    return on


def slow(seconds: float) -> Callable[[Spy, Frame], Awaitable[Any]]:
    async def on(spy: Spy, frame: Frame) -> None:
        await anyio.sleep(seconds)

    return for_texts(on)


async def hang(spy: Spy, frame: Frame) -> None:
    await anyio.sleep_forever()


async def boom(spy: Spy, frame: Frame) -> None:
    raise ValueError("it went wrong")


class StartsWith(FrameProcessor):
    """Does something before it passes the start on."""

    def __init__(self, do: Callable[["StartsWith"], Awaitable[Any]], name: str | None = None) -> None:
        super().__init__(name)
        self.do = do
        self.begun = anyio.Event()
        self.log: list[str] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.log.append(type(frame).__name__)
        if isinstance(frame, StartFrame):
            self.begun.set()
            await self.do(self)
        await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        self.log.append("cleanup")


async def never(processor: FrameProcessor) -> None:
    await anyio.sleep_forever()


def worker_of(*processors: Any, **kwargs: Any) -> PipelineWorker:
    return PipelineWorker(Pipeline(processors), **kwargs)


@asynccontextmanager
async def flowing(*processors: Any, **kwargs: Any) -> AsyncIterator[PipelineWorker]:
    """Run a pipeline while the block runs, and end it gracefully after it."""
    worker = worker_of(*processors, name=kwargs.pop("name", "w"), **kwargs)
    async with running(worker):
        yield worker


async def run_through(worker: PipelineWorker, *frames: Frame) -> None:
    """Give a worker frames before it runs, and run it until they have come through."""
    await worker.queue_frames(frames)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.stop_when_done()
    await runner.run()


class ScriptedProcessor(FrameProcessor):
    """Passes on what it gets, after ``do`` has been awaited; what that returns True for, goes no further."""

    def __init__(self, do: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.do = do

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame) or not await self.do(self, frame, direction):
            await self.push_frame(frame, direction)


class Watches(Observer):
    """Writes down what it sees.

    Attributes:
        seen: What happened, the name of the processor, and the frame.
        to: The names of those between which frames were pushed.
    """

    def __init__(self, *, observe_every_push: bool = True) -> None:
        super().__init__(observe_every_push=observe_every_push)
        self.seen: list[tuple[str, str, Frame]] = []
        self.to: list[tuple[str, str | None]] = []

    async def on_process_frame(self, data: FrameProcessed) -> None:
        self.seen.append(("process", data.processor.name, data.frame))

    async def on_push_frame(self, data: FramePushed) -> None:
        self.to.append((data.source.name, None if data.destination is None else data.destination.name))
        self.seen.append(("push", data.source.name, data.frame))


def said_done(spy: Spy) -> list[str]:
    """What the text and system frames say that a spy is done with."""
    return said(spy.done)


async def work(worker: PipelineWorker) -> None:
    """Run a worker, alone, to its end."""
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
