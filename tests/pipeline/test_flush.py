"""P6: waiting until what was queued has come out, without ending anything."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope, Event, create_task_group, current_time, move_on_after
from anyio.abc import TaskGroup

from support.bridges import BUSES, Reply, bridged_front
from support.pipelines import (
    UP,
    Alert,
    Gate,
    ScriptedProcessor,
    Spy,
    StartsWith,
    flowing,
    for_texts,
    hang,
    slow,
    texts,
    worker_of,
)
from support.workers import running
from workerbus import BusBridgeProcessor, MemoryBus, NotRunningError, PipelineWorker, WorkerRunner
from workerbus.errors import FlushError, FlushTimeoutError
from workerbus.pipeline import (
    CancelFrame,
    EndFrame,
    Frame,
    FrameDirection,
    FrameProcessor,
    InterruptionFrame,
    ParallelPipeline,
    StopFrame,
    TextFrame,
)
from workerbus.testing import nothing_left, settle


def waiting(group: TaskGroup, flush: Callable[[], Awaitable[None]]) -> Event:
    """Flush in a task; returns what is set when that has returned."""
    over = Event()

    async def run() -> None:
        await flush()
        over.set()

    group.start_soon(run)
    return over


async def test_a_flush_returns_when_what_was_queued_has_come_out() -> None:
    """P6"""
    last = Spy(slow(1))
    async with flowing(Spy(slow(1)), last) as worker:
        await worker.queue_frames(texts("a", "b"))
        begin = current_time()
        await worker.flush()
        assert current_time() == begin + 3
        assert [frame.text for frame in last.done if isinstance(frame, TextFrame)] == ["a", "b"]
        await worker.queue_frame(TextFrame("goes on"))
        await worker.flush()
    assert last.heard == ["a", "b", "goes on"]


async def test_a_flush_of_an_empty_pipeline_returns_at_once() -> None:
    """P6"""
    async with flowing(Spy(), Spy()) as worker:
        begin = current_time()
        await worker.flush(timeout=1)
        assert current_time() == begin


async def test_a_flush_waits_for_nothing_that_comes_behind_it() -> None:
    """P6"""
    gate = Gate()

    async def wait(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, TextFrame) and frame.text == "behind":
            await gate(spy, frame)

    spy = Spy(wait)
    async with flowing(spy) as worker, create_task_group() as group:
        await worker.queue_frame(TextFrame("before"))
        flushed = waiting(group, worker.flush)
        await settle()
        await worker.queue_frame(TextFrame("behind"))
        await flushed.wait()
        await gate.reached.wait()
        gate.open()


async def test_a_flush_waits_for_system_frames_and_for_what_handlers_make_of_frames() -> None:
    """P6"""

    async def make(spy: Spy, frame: Frame) -> None:
        await anyio.sleep(1)
        await spy.push_frame(TextFrame("made of a system frame"))

    maker, last = Spy(make), Spy(slow(1))
    async with flowing(maker, last) as worker:
        await worker.queue_frame(Alert("!"))
        await worker.flush()
        assert sorted(last.heard) == ["!", "made of a system frame"]
        assert len(last.done) == 3


async def test_several_flushes_at_once_return_together_when_a_system_frame_has_been_handled() -> None:
    """P6: none of them needs another frame to be noticed."""

    async def take_a_second(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await anyio.sleep(1)

    async with flowing(Spy(take_a_second)) as worker, create_task_group() as group:
        begin = current_time()
        await worker.queue_frame(Alert("!"))
        flushed = [waiting(group, worker.flush) for _ in range(3)]
        for each in flushed:
            await each.wait()
        assert current_time() == begin + 1


async def test_a_flush_waits_for_all_branches() -> None:
    """P6"""
    quick, slower = Spy(), Spy(slow(2))
    async with flowing(ParallelPipeline([quick], [slower])) as worker:
        await worker.queue_frame(TextFrame("a"))
        begin = current_time()
        await worker.flush()
        assert current_time() == begin + 2


async def test_a_flush_before_the_start_waits_for_it() -> None:
    """P2, P6"""
    may_start, spy = anyio.Event(), Spy()
    worker = worker_of(StartsWith(lambda _: may_start.wait()), spy, name="w")
    async with create_task_group() as group:
        await worker.queue_frame(TextFrame("a"))
        flushed = waiting(group, worker.flush)
        await settle()
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(worker)
            await settle()
            assert not flushed.is_set()
            may_start.set()
            await flushed.wait()
            assert spy.heard == ["a"]


async def test_an_interruption_leaves_a_flush_alone() -> None:
    """P1, P6: what it drops need not come out."""
    spy = Spy(for_texts(hang))
    async with flowing(spy) as worker, create_task_group() as group:
        await worker.queue_frames(texts("a", "b"))
        flushed = waiting(group, worker.flush)
        await spy.until(1)
        await worker.queue_frame(InterruptionFrame())
        await flushed.wait()
    assert spy.heard == ["a"]


async def test_a_flush_waits_for_the_end_of_a_pause() -> None:
    """P1, P6"""
    spy = Spy()
    async with flowing(spy) as worker, create_task_group() as group:
        await spy.pause_processing_frames()
        await worker.queue_frame(TextFrame("a"))
        flushed = waiting(group, worker.flush)
        await settle()
        assert not flushed.is_set()
        await spy.resume_processing_frames()
        await flushed.wait()
        assert spy.heard == ["a"]


async def test_several_flushes_at_once() -> None:
    """P6: each waits for what was before it."""
    times: list[float] = []
    async with flowing(Spy(slow(1))) as worker, create_task_group() as group:

        async def flush() -> None:
            await worker.flush()
            times.append(current_time() - begin)

        begin = current_time()
        for word in "abc":
            await worker.queue_frame(TextFrame(word))
            group.start_soon(flush)
            await settle()
    assert times == [1, 2, 3]


# --- how it ends otherwise


async def test_a_flush_that_takes_too_long_names_who_is_at_work() -> None:
    """P6: and ends nothing."""
    gate = Gate()
    spy = Spy(for_texts(gate), name="slow one")
    async with flowing(Spy(), spy) as worker:
        await worker.queue_frame(TextFrame("a"))
        begin = current_time()
        with pytest.raises(
            FlushTimeoutError, match="worker 'w' has not come out in 3 seconds; at work: 'slow one'"
        ) as e:
            await worker.flush(3)
        assert current_time() == begin + 3
        assert isinstance(e.value, TimeoutError)
        assert (e.value.worker_name, e.value.processors, e.value.seconds) == ("w", ("slow one",), 3)
        gate.open()
        await worker.flush()


async def test_a_flush_that_takes_too_long_names_a_processor_that_is_paused() -> None:
    """P6: if frames wait for it."""
    async with flowing(Spy(name="first"), Spy(name="paused"), Spy(name="last")) as worker:
        paused = worker.pipeline.processors[1]
        await paused.pause_processing_frames()
        await worker.queue_frames(texts("a"))
        with pytest.raises(FlushTimeoutError) as caught:
            await worker.flush(1)
        assert caught.value.processors == ("paused",)
        await paused.resume_processing_frames()


async def test_a_flush_of_what_is_cancelled_fails() -> None:
    """P6"""
    spy, said = Spy(for_texts(hang)), []
    async with nothing_left(), flowing(spy) as worker, create_task_group() as group:

        async def flush() -> None:
            with pytest.raises(FlushError, match="'w' was cancelled before what had been queued came out"):
                await worker.flush()
            said.append("cancelled")

        await worker.queue_frame(TextFrame("a"))
        group.start_soon(flush)
        await spy.until(1)
        await worker.queue_frame(CancelFrame())
        await worker.wait()
    assert said == ["cancelled"]


async def test_all_flushes_of_what_is_cancelled_fail() -> None:
    """P6: however many wait."""
    spy, said = Spy(for_texts(hang)), []
    async with nothing_left(), flowing(spy) as worker, create_task_group() as group:

        async def flush(n: int) -> None:
            with pytest.raises(FlushError, match="'w' was cancelled"):
                await worker.flush()
            said.append(n)

        await worker.queue_frame(TextFrame("a"))
        for n in range(3):
            group.start_soon(flush, n)
        await spy.until(1)
        await settle()
        await worker.queue_frame(CancelFrame())
        await worker.wait()
    assert sorted(said) == [0, 1, 2]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_a_flush_goes_on_when_a_handler_that_it_waits_for_is_cancelled_natively(anyio_backend: str) -> None:
    """P6, L3: asyncio's `Task.cancel()`"""
    import asyncio  # noqa: PLC0415 - what is tested is asyncio's

    go = Event()

    async def cancel_own_task(spy: Spy, frame: Frame) -> None:
        if isinstance(frame, Alert):
            await go.wait()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.sleep(1)

    async with nothing_left(), flowing(Spy(cancel_own_task)) as worker, create_task_group() as group:
        await worker.queue_frame(Alert("!"))
        flushed = [waiting(group, worker.flush) for _ in range(2)]
        await settle()
        assert not any(each.is_set() for each in flushed)
        go.set()
        for each in flushed:
            await each.wait()


async def test_a_flush_behind_an_end_returns_when_the_pipeline_has_ended() -> None:
    """P2, P6: all that was queued has come out."""
    spy = Spy(slow(1))
    async with flowing(spy) as worker:
        await worker.queue_frames(texts("a", "b"))
        await worker.stop_when_done()
        await worker.flush()
        assert spy.heard == ["a", "b"]


@pytest.mark.parametrize("end", [EndFrame, StopFrame])
async def test_a_flush_that_an_end_cuts_off_returns(end: type[Frame]) -> None:
    """P6: what was queued before the end has come out. What goes up behind it holds the marker up, and not the end."""

    async def answer_the_end(processor: FrameProcessor, frame: Frame, direction: FrameDirection) -> bool:
        if isinstance(frame, end):
            await processor.push_frame(TextFrame("answer"), UP)
        elif isinstance(frame, TextFrame) and frame.text == "late":
            await anyio.sleep_forever()
        return False

    first = Spy(slow(1))
    async with flowing(first, ScriptedProcessor(answer_the_end)) as worker, create_task_group() as group:
        await worker.queue_frame(end())
        await first.until(1)
        await worker.queue_frame(TextFrame("late"), UP)
        over = waiting(group, worker.flush)
        await worker.wait()
        await over.wait()


async def test_what_is_over_is_not_flushed() -> None:
    """P6"""
    async with flowing(Spy()) as worker:
        await worker.stop_when_done()
        await worker.wait()
        with pytest.raises(NotRunningError, match="'w' has nothing to flush: its pipeline is over"):
            await worker.flush()


async def test_a_flush_of_a_worker_that_is_stopped_before_it_runs_fails() -> None:
    """P6"""
    worker = worker_of(Spy(), name="w")
    async with MemoryBus() as bus, create_task_group() as group:
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(worker)

        async def flush() -> None:
            with pytest.raises(FlushError):
                await worker.flush()

        group.start_soon(flush)
        await settle()
        await runner.cancel()
        await runner.run()


@pytest.mark.parametrize("kind", [TextFrame, Alert], ids=["data", "system"])
async def test_a_handler_that_would_wait_for_itself_is_told(kind: type[TextFrame | Alert]) -> None:
    """P6, N8: a task of the processor's own may flush."""
    said: list[str] = []
    workers: list[PipelineWorker] = []

    async def flush(spy: Spy, frame: Frame) -> None:
        with pytest.raises(FlushError, match="'w' is not flushed by processor 'p' while that handles a frame"):
            await workers[0].flush()
        said.append("told")

        async def in_a_task() -> None:
            await workers[0].flush()
            said.append("flushed")

        spy.create_task(in_a_task())

    async with flowing(Spy(flush, name="p")) as worker:
        workers.append(worker)
        await worker.queue_frame(kind("a"))
        await settle()
    assert said == ["told", "flushed"]


async def test_a_flush_that_is_cancelled_leaves_nothing_behind() -> None:
    """L1, P6"""
    gate = Gate()
    spy = Spy(for_texts(gate))
    async with nothing_left(), flowing(spy) as worker:
        await worker.queue_frame(TextFrame("a"))
        with move_on_after(1) as scope:
            await worker.flush()
        assert scope.cancelled_caught
        gate.open()
        await worker.flush()


# --- bridges


@BUSES
async def test_a_flush_waits_for_what_has_gone_over_a_bridge(make_bus: Any) -> None:
    """P6: what comes back has come out, too."""
    bus, out = make_bus(), Spy(slow(1))
    front, _ = await bridged_front(bus, out)
    agent = worker_of(Reply(2), bridged=(), name="agent")
    async with running(front, agent, bus=bus):
        await front.queue_frames(texts("a", "b"))
        begin = current_time()
        await front.flush()
        assert out.heard == ["agent: a", "agent: b"]
        assert len(out.done) == 3
        assert current_time() >= begin + 5


async def test_a_flush_waits_for_those_alone_who_take_frames_from_the_bridge() -> None:
    """P6: by the names of bridges and of workers."""
    bus = MemoryBus()
    one = BusBridgeProcessor(bus=bus, worker_name="front", bridge="one", target_task="agent")
    front = worker_of(one, name="front")
    stuck = Gate()
    others = [
        worker_of(Spy(for_texts(stuck)), bridged=("two",), name="of another bridge"),
        worker_of(Spy(for_texts(stuck)), bridged=("one",), name="not its target"),
        worker_of(Spy(for_texts(stuck)), name="not bridged"),
    ]
    agent, out = worker_of(Reply(1), bridged=("one",), name="agent"), Spy()
    async with running(front, agent, *others, bus=bus):
        for each in others:
            await each.queue_frame(TextFrame("stuck"))
        await front.queue_frame(TextFrame("a"))
        begin = current_time()
        await front.flush()
        assert current_time() == begin + 1
        stuck.open()
    assert out.heard == []


async def test_a_flush_waits_for_a_worker_that_has_handed_over() -> None:
    """P6, W3: what it had taken still comes."""
    bus, out = MemoryBus(), Spy()
    front, _ = await bridged_front(bus, out)
    alice = worker_of(Reply(2), bridged=(), name="alice")
    bob = worker_of(Reply(0.5), bridged=(), active=False, name="bob")
    async with running(front, alice, bob, bus=bus):
        await front.queue_frame(TextFrame("for alice"))
        await anyio.sleep(0.1)
        await alice.activate_worker("bob", deactivate_self=True)
        await anyio.sleep(0.1)
        await front.queue_frame(TextFrame("for bob"))
        await front.flush()
        assert sorted(out.heard) == ["alice: for alice", "bob: for bob"]


async def test_a_flush_goes_on_when_a_worker_beyond_the_bridge_is_gone() -> None:
    """P6"""
    bus = MemoryBus()
    front, _ = await bridged_front(bus)
    spy = Spy(for_texts(hang))
    agent = worker_of(spy, bridged=(), name="agent")
    async with running(front, agent, bus=bus), create_task_group() as group:
        await front.queue_frame(TextFrame("a"))
        await spy.until(1)
        flushed = waiting(group, front.flush)
        await settle()
        assert not flushed.is_set()
        await agent.stop()
        await flushed.wait()
        await front.flush(1)


async def test_a_flush_waits_for_the_others_when_one_beyond_the_bridge_is_gone_after_its_part() -> None:
    """P6: of three, the first has come out and ends, and counts once."""
    bus = MemoryBus()
    front, _ = await bridged_front(bus)
    agents = [worker_of(Reply(n), bridged=(), name=f"agent {n}") for n in (0, 3, 5)]
    async with running(front, *agents, bus=bus), create_task_group() as group:
        begin = current_time()
        await front.queue_frame(TextFrame("a"))
        flushed = waiting(group, front.flush)
        await anyio.sleep(1)
        await agents[0].stop()
        await flushed.wait()
        assert current_time() == begin + 5


async def test_a_flush_goes_over_a_bridge_behind_a_bridge() -> None:
    """P6: from the front to the middle to the agent."""
    bus, out = MemoryBus(), Spy()
    front, _ = await bridged_front(bus, out, bridge="near")
    beyond = BusBridgeProcessor(bus=bus, worker_name="middle", bridge="far")
    middle = worker_of(beyond, bridged=("near",), name="middle")
    agent = worker_of(Reply(3), bridged=("far",), name="agent")
    async with running(front, middle, agent, bus=bus):
        begin = current_time()
        await front.queue_frame(TextFrame("a"))
        await front.flush()
        assert current_time() == begin + 3


async def test_a_flush_goes_round_no_circle() -> None:
    """P6: two workers, each with a bridge in the middle to the ends of the other."""
    bus = MemoryBus()
    workers = [
        worker_of(BusBridgeProcessor(bus=bus, worker_name=name, bridge=out), bridged=(into,), name=name)
        for name, into, out in (("a", "to a", "to b"), ("b", "to b", "to a"))
    ]
    async with running(*workers, bus=bus):
        for worker in workers:
            await worker.flush(1)


async def test_a_flush_cut_by_its_own_scope_while_it_waits_beyond_a_bridge() -> None:
    """L1, P6"""
    bus = MemoryBus()
    front, _ = await bridged_front(bus)
    gate: Any = Gate()
    agent = worker_of(Spy(for_texts(gate)), bridged=(), name="agent")
    async with nothing_left(), running(front, agent, bus=bus):
        await front.queue_frame(TextFrame("a"))
        with pytest.raises(FlushTimeoutError, match="nobody here"):
            await front.flush(1)
        gate.open()
        with CancelScope():
            await front.flush(1)
