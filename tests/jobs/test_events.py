"""J7: the events of a job, and loops over them."""

import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.buses import PoliteBus
from support.contexts import answer_as, ghost
from support.job_handlers import slow_to_leave, slow_to_leave_when_cancelled
from support.requesters import Listener
from support.workers import Doing, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    BusJobUpdateMessage,
    BusMessage,
    JobContext,
    JobError,
    JobEvent,
    JobGroupContext,
    JobGroupError,
    JobGroupEvent,
    JobStatus,
    MemoryBus,
    WorkerBus,
)


@pytest.mark.parametrize("make_bus", [MemoryBus, PoliteBus])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(["update", "stream_start", "stream_data"]), max_size=150), wait=st.booleans())
def test_events_come_in_the_order_in_which_they_were_sent(
    backend: str, make_bus: Callable[[], WorkerBus], kinds: list[str], wait: bool
) -> None:
    """J7: those that were sent before the loop began included, on any bus."""

    async def send(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        for number, kind in enumerate(kinds):
            await getattr(worker, f"send_job_{kind}")(message.job_id, {"n": number})
        sent.set()
        return {}

    async def example() -> None:
        async with running(Doing("doing", send), bus=make_bus()) as runner, runner.job("doing", name="do") as asked:
            if wait:
                await sent.wait()
            events = [event async for event in asked]
        assert events == [JobEvent(kind, {"n": number}) for number, kind in enumerate(kinds)]

    sent = anyio.Event()
    clock.run(example, backend=backend)


async def test_the_events_of_a_group_tell_their_worker() -> None:
    """J7: each worker's own are in order."""

    async def send(worker: Doing, message: BusJobRequestMessage) -> None:
        for number in range(3):
            await worker.send_job_update(message.job_id, {"n": number})
            await checkpoint()
        await worker.send_job_stream_end(message.job_id, {"n": 3})

    workers = [Doing("one", send), Doing("two", send)]
    async with running(*workers) as runner, runner.job_group("one", "two", name="do") as group:
        events = [event async for event in group]
    for name in ("one", "two"):
        expected = [JobGroupEvent(JobGroupEvent.UPDATE, name, {"n": number}) for number in range(3)]
        own = [event for event in events if event.worker_name == name]
        assert own == [*expected, JobGroupEvent(JobGroupEvent.STREAM_END, name, {"n": 3})]


async def three_updates(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
    for number in range(3):
        await worker.send_job_update(message.job_id, {"n": number})
    return {}


async def test_a_second_loop_ends() -> None:
    """J7: there is nothing left for it."""
    async with running(Doing("doing", three_updates)) as runner, runner.job("doing", name="do") as asked:
        assert len([event async for event in asked]) == 3
        assert [event async for event in asked] == []


async def test_a_second_loop_goes_on_where_the_first_was_left() -> None:
    """J7: in the order of sending still."""
    async with running(Doing("doing", three_updates)) as runner, runner.job("doing", name="do") as asked:
        async for event in asked:
            first = event.data
            break
        assert first == {"n": 0}
        assert [event.data async for event in asked] == [{"n": 1}, {"n": 2}]


async def test_a_loop_over_a_finished_job_ends() -> None:
    """J7: with what was not read yet."""
    async with running(Doing("doing", three_updates)) as runner:
        async with runner.job("doing", name="do") as asked:
            pass
        assert [event.data async for event in asked] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert [event async for event in asked] == []


async def test_two_loops_at_once_share_the_events() -> None:
    """J7: none is lost, none comes twice, and both loops end."""

    async def send(worker: Doing, message: BusJobRequestMessage) -> None:
        for number in range(127):
            await worker.send_job_update(message.job_id, {"n": number})

    seen: list[dict[str, Any] | None] = []

    async def read(asked: JobContext[Any]) -> None:
        seen.extend([event.data async for event in asked])

    async with running(Doing("doing", send)) as runner, runner.job("doing", name="do") as asked:
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as group:
            group.start_soon(read, asked)
            group.start_soon(read, asked)
    assert sorted(data["n"] for data in seen if data) == list(range(127))


async def test_a_loop_that_is_left_early_does_not_hold_up_the_answer() -> None:
    """J7: what is not read is in nobody's way."""
    async with running(Doing("doing", three_updates)) as runner:
        async with runner.job("doing", name="do") as asked:
            async for _ in asked:
                break
        assert asked.response == {}


async def test_an_urgent_answer_overtakes_what_is_still_queued() -> None:
    """J7: at a requester whose lanes hold messages back; what is overtaken is not heard of any more."""

    class Choosy(Listener):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    async def send(worker: Doing, message: BusJobRequestMessage) -> None:
        for number in range(20):
            await worker.send_job_update(message.job_id, {"n": number})
        await worker.send_job_response(message.job_id, {"urgent": True}, urgent=True)

    asker = Choosy("asker")
    async with running(Doing("doing", send), asker):
        async with asker.job("doing", name="do") as asked:
            events = [event async for event in asked]
        assert asked.response == {"urgent": True}
        assert len(events) <= 1


async def test_what_comes_after_a_terminal_answer_is_ignored() -> None:
    """J7: by the loop, by the hooks, and as a second answer."""
    asker = Listener("asker")
    async with running(asker) as runner, ghost(runner, "one", "two") as (one, _):
        async with asker.job_group("one", "two") as group:
            await one.until(1, BusJobRequestMessage)
            for message in (
                BusJobResponseMessage(group.job_id, JobStatus.COMPLETED, {"n": 1}, source="one", target="asker"),
                BusJobUpdateMessage(group.job_id, {"late": True}, source="one", target="asker"),
                BusJobResponseUrgentMessage(group.job_id, JobStatus.ERROR, {"n": 2}, source="one", target="asker"),
                BusJobUpdateMessage(group.job_id, {"late": False}, source="two", target="asker"),
                BusJobResponseMessage(group.job_id, JobStatus.COMPLETED, {"n": 3}, source="two", target="asker"),
            ):
                await runner.bus.send(message)
            events = [event async for event in group]
        assert group.responses == {"one": {"n": 1}, "two": {"n": 3}}
        assert events == [JobGroupEvent("update", "two", {"late": False})]
        await asker.until("completed")
        assert [name for name, _ in asker.heard] == ["response", "update", "response", "completed"]


async def test_a_loop_over_an_iterator_of_events_goes_on_with_it() -> None:
    """J7: ``async for`` over what ``aiter`` returned, as over any asynchronous iterator."""

    async def talks(worker: Doing, message: BusJobRequestMessage) -> None:
        for n in range(3):
            await worker.send_job_update(message.job_id, {"n": n})

    async with running(Doing("doing", talks)) as runner, runner.job("doing", name="do") as asked:
        events = aiter(asked)
        assert (await anext(events)).data == {"n": 0}
        assert [event.data async for event in events] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("kind", ["update", "stream_start", "stream_data", "stream_end"])
async def test_what_comes_after_the_outcome_is_no_event(kind: str) -> None:
    """J7: the group has failed; what a worker sends while it unwinds is not for its loop, nor for a hook."""
    begun, sent = anyio.Event(), anyio.Event()

    async def sends_late(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                if kind == "stream_end":  # after a cancel, the library would make an answer of it (J2)
                    await worker.send_bus_message(
                        BusJobStreamEndMessage(
                            message.job_id, {"late": True}, source=worker.name, target=message.source
                        )
                    )
                else:
                    await getattr(worker, f"send_job_{kind}")(message.job_id, {"late": True})
                sent.set()

    async def fails(worker: Doing, message: BusJobRequestMessage) -> None:
        await begun.wait()
        raise ValueError("oh")

    events: list[Any] = []
    listener = Listener()
    async with running(Doing("late", sends_late), Doing("failing", fails), listener):
        with pytest.raises(JobGroupError):  # noqa: PT012 - the context is what raises
            async with listener.job_group("late", "failing", name="do") as group:
                with anyio.CancelScope(shield=True):
                    await sent.wait()
                    await anyio.wait_all_tasks_blocked()
                    events += [event async for event in group]
    assert events == []
    assert "update" not in [hook for hook, _ in listener.heard]


async def test_a_loop_that_comes_late_to_the_end_of_a_failed_job_goes_no_further() -> None:
    """J8: the body is being cancelled, and so it ends with its loop, not a line later."""
    beyond: list[str] = []

    async def fails(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"n": 1})
        raise ValueError("oh")

    async with running(Doing("failing", fails)) as runner:
        with pytest.raises(JobError, match="oh"):  # noqa: PT012 - the context is what raises
            async with runner.job("failing", name="do") as asked:
                with anyio.CancelScope(shield=True):
                    await anyio.wait_all_tasks_blocked()
                beyond += [str(event.data) async for event in asked]
                beyond.append("beyond")
    assert beyond == []


async def test_a_loop_over_events_that_are_all_there_lets_others_run() -> None:
    """J7, B2: once in 64 events, so that a flood starves nobody and costs little."""
    steps = 0

    async def count() -> None:
        nonlocal steps
        while True:
            steps += 1
            await checkpoint()

    async def floods(worker: Doing, message: BusJobRequestMessage) -> None:
        for n in range(1000):
            await worker.send_job_update(message.job_id, {"n": n})

    async with running(Doing("doing", floods)) as runner, runner.job("doing", name="do") as asked:
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await checkpoint()
            before = steps
            numbers = [event.data["n"] async for event in asked if event.data]
            tasks.cancel_scope.cancel()
    assert numbers == list(range(1000))
    assert 12 <= steps - before <= 20


async def test_a_loop_ends_with_the_answer_that_comes_too_late_for_it() -> None:
    """J7, J8: also where the body does not let itself be cancelled."""
    ended: list[float] = []
    async with running(Doing("doing", slow_to_leave)) as runner, anyio.create_task_group() as tasks:

        async def answer_late(job_id: str) -> None:
            await anyio.sleep(3.5)
            await answer_as(runner, job_id, "doing", JobStatus.COMPLETED)

        with pytest.raises(TimeoutError):  # noqa: PT012 - the context is what raises
            async with runner.job("doing", name="do", timeout=3) as asked:
                begun = anyio.current_time()
                tasks.start_soon(answer_late, asked.job_id)
                with anyio.CancelScope(shield=True):
                    async for _ in asked:
                        pass
                    ended.append(anyio.current_time() - begun)
    assert ended == [pytest.approx(3.5)]


async def test_a_loop_that_is_cancelled_loses_no_event() -> None:
    """J7: wherever it is cut off, the next loop goes on with the event behind the last one that was seen."""

    async def sends(worker: Doing, message: BusJobRequestMessage) -> None:
        for number in range(70):
            await worker.send_job_update(message.job_id, {"n": number})

    async with running(Doing("doing", sends)) as runner:
        for cut in range(1, 70):
            seen: list[int] = []
            async with runner.job("doing", name="do") as asked:
                for _ in range(70 // cut + 1):
                    with anyio.CancelScope() as scope:
                        async for event in asked:
                            assert event.data is not None
                            seen.append(event.data["n"])
                            if not len(seen) % cut:
                                scope.cancel()
            assert seen == list(range(70))


@pytest.mark.parametrize("why", ["cancelled", "fails", "raises", "times out"])
async def test_a_loop_in_another_task_ends_as_soon_as_its_group_has_an_outcome(why: str) -> None:
    """J7, J8: though nothing cancels it, and a worker takes long to unwind or never does."""
    ended: list[float] = []

    async def fails(worker: Doing, message: BusJobRequestMessage) -> None:
        await anyio.sleep(1)
        raise ValueError("oh")

    async def read(asked: JobGroupContext[Any]) -> None:
        async for _ in asked:
            pass
        ended.append(anyio.current_time())

    asker = BaseWorker("asker")
    async with (
        running(Doing("slow", slow_to_leave_when_cancelled), Doing("failing", fails), asker),
        anyio.create_task_group() as tasks,
    ):
        begun = anyio.current_time()
        with pytest.raises(ZeroDivisionError if why == "raises" else JobGroupError):  # noqa: PT012 - the context raises
            async with asker.job_group(
                *(["slow", "failing"] if why == "fails" else ["slow"]),
                name="do",
                timeout=1 if why == "times out" else None,
            ) as asked:
                tasks.start_soon(read, asked)
                if why in ("cancelled", "raises"):
                    await anyio.sleep(1)
                if why == "raises":
                    raise ZeroDivisionError
                if why == "cancelled":
                    await asker.cancel_job_group(asked.job_id)
                await anyio.sleep_forever()
        assert anyio.current_time() - begun > 1.5
    assert ended == [pytest.approx(begun + 1)]


@pytest.mark.parametrize("waits", ["loop", "context", "group", "deadline"])
def test_who_waits_for_what_comes_next_does_nothing_meanwhile(backend: str, waits: str) -> None:
    """J7, J8: an hour after the last event, too; one that went on and on would be found out in virtual time."""

    async def sends(worker: Doing, message: BusJobRequestMessage) -> None:
        for n in range(2):
            await worker.send_job_update(message.job_id, {"n": n})
            await anyio.sleep(3600)

    async def example() -> None:
        asker, begun = BaseWorker("asker"), anyio.current_time()
        async with running(Doing("doing", sends), asker):
            if waits in ("group", "deadline"):
                timeout = 7300 if waits == "deadline" else None
                group = await asker.create_job_group_and_request_job(["doing"], name="do", timeout=timeout)
                await group.wait()
            else:
                async with asker.job("doing", name="do") as asked:
                    if waits == "loop":
                        assert [event.data async for event in asked] == [{"n": 0}, {"n": 1}]
            assert anyio.current_time() == begun + 7200

    clock.run(example, backend=backend, limit=math.inf)
