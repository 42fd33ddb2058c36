"""L7: a pipeline is used in the thread of its event loop; and how to get in from another."""

from collections.abc import Awaitable, Callable
from functools import partial
from threading import get_ident
from typing import Any

import anyio
import pytest
from anyio import from_thread, to_thread

from support.pipelines import DOWN, UP, Alert, Spy, texts, worker_of
from support.threads import in_a_thread
from support.workers import running
from workerbus import PipelineWorker, WrongLoopError
from workerbus.pipeline import CancelFrame, TextFrame


class Flow:
    """A pipeline that runs, and whose middle is paused."""

    def __init__(self) -> None:
        self.middle, self.last = Spy(), Spy()
        self.worker: PipelineWorker = worker_of(Spy(), self.middle, self.last, name="w")
        self.worker.add_event_handler("on_frame_reached_downstream", lambda *_: None)

    async def begin(self) -> None:
        await self.middle.pause_processing_frames()
        self.task = self.middle.create_task(anyio.sleep_forever)
        await self.worker.queue_frames(texts("kept"))
        await anyio.wait_all_tasks_blocked()  # a lane that is awake takes a frame from anywhere

    async def check(self) -> None:
        """Nothing has come in, nothing is lost, and it goes on."""
        await anyio.wait_all_tasks_blocked()
        assert not self.task.done()
        assert (self.middle.heard, self.last.heard) == ([], [])
        await self.worker.queue_frame(TextFrame("up"), UP)
        await self.worker.queue_frame(TextFrame("down"))
        await self.middle.resume_processing_frames()
        await self.last.until(3)
        await self.middle.until(3)
        assert sorted(self.middle.heard) == ["down", "kept", "up"]


async def start_a_task(flow: Flow) -> None:
    flow.middle.create_task(anyio.sleep_forever)


USES: dict[str, Callable[[Flow], Awaitable[Any]]] = {
    "queue_frame": lambda it: it.worker.queue_frame(TextFrame("x")),
    "queue_frame upstream": lambda it: it.worker.queue_frame(TextFrame("x"), UP),
    "queue_frames": lambda it: it.worker.queue_frames([Alert("x"), TextFrame("x")]),
    "stop_when_done": lambda it: it.worker.stop_when_done(),
    "flush": lambda it: it.worker.flush(1),
    "wait": lambda it: it.worker.wait(),
    "stop": lambda it: it.worker.stop(),
    "processor.queue_frame": lambda it: it.middle.queue_frame(TextFrame("x")),
    "push_frame": lambda it: it.middle.push_frame(TextFrame("x"), DOWN),
    "push_frame upstream": lambda it: it.middle.push_frame(TextFrame("x"), UP),
    "push_frame to the sink": lambda it: it.last.push_frame(TextFrame("x"), DOWN),
    "push_frame of an end to the sink": lambda it: it.last.push_frame(CancelFrame(), DOWN),
    "push_error": lambda it: it.middle.push_error("x", fatal=True),
    "broadcast_frame": lambda it: it.middle.broadcast_frame(TextFrame, "x"),
    "broadcast_interruption": lambda it: it.middle.broadcast_interruption(),
    "pause_processing_frames": lambda it: it.last.pause_processing_frames(),
    "pause_processing_system_frames": lambda it: it.last.pause_processing_system_frames(),
    "pause_processing_all_frames_until": lambda it: it.last.pause_processing_all_frames_until(anyio.sleep_forever),
    "resume_processing_frames": lambda it: it.middle.resume_processing_frames(),
    "resume_processing_system_frames": lambda it: it.middle.resume_processing_system_frames(),
    "create_task": start_a_task,
    "cancel_task": lambda it: it.middle.cancel_task(it.task),
}


@pytest.mark.parametrize("use", USES)
def test_another_thread_is_refused_and_told_how_to_get_in(use: str, backend: str) -> None:
    """L7: nothing has changed by it."""

    async def main() -> None:
        flow = Flow()
        async with running(flow.worker):
            await flow.begin()
            raised = await to_thread.run_sync(in_a_thread, lambda: USES[use](flow), backend)
            assert isinstance(raised, WrongLoopError), raised
            assert "belongs to another thread: to get in from a worker thread" in str(raised)
            await flow.check()

    anyio.run(main, backend=backend)


def test_another_thread_calls_none_of_a_processors_event_handlers(backend: str) -> None:
    """L7, N3: it is refused before that."""

    async def main() -> None:
        flow, told = Flow(), set[int]()
        for event in "on_before_push_frame", "on_after_push_frame":
            flow.middle.add_event_handler(event, lambda *_: told.add(get_ident()))
        async with running(flow.worker):
            await flow.begin()
            raised = await to_thread.run_sync(in_a_thread, lambda: USES["push_frame"](flow), backend)
            assert isinstance(raised, WrongLoopError), raised
            await flow.check()
        assert told == {get_ident()}

    anyio.run(main, backend=backend)


def test_a_worker_thread_gets_in_by_from_thread(backend: str) -> None:
    """L7: with frames, in the order in which they come in."""

    def work(flow: Flow) -> None:
        for text in "a", "b", "c":
            from_thread.run(flow.worker.queue_frame, TextFrame(text))
        from_thread.run(partial(flow.last.push_frame, TextFrame("up"), UP))
        from_thread.run_sync(flow.last.create_task, anyio.sleep_forever)
        from_thread.run(flow.worker.flush)

    async def main() -> None:
        flow = Flow()
        async with running(flow.worker):
            await to_thread.run_sync(work, flow)
            assert flow.last.heard == ["a", "b", "c"]
            await flow.middle.until(4)

    anyio.run(main, backend=backend)


def test_frames_may_be_queued_in_any_thread_before_the_pipeline_runs(backend: str) -> None:
    """L7, P2: it belongs to none yet."""

    async def main() -> None:
        flow = Flow()
        assert in_a_thread(lambda: flow.worker.queue_frames(texts("a", "b")), backend) is None
        async with running(flow.worker):
            await flow.last.until(2)

    anyio.run(main, backend=backend)
