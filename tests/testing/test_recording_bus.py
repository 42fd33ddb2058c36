"""A bus that keeps what is sent over it."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import WouldBlock, create_task_group, current_time, get_running_tasks, move_on_after, sleep
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.messages import Alarm, Note, alarm, note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BusAddWorkerMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerReadyMessage,
    JobError,
    JobStatus,
    MemoryBus,
    MessageTypeError,
    WorkerRunner,
)
from workerbus.testing import RecordingBus, run, settle


def sent(bus: RecordingBus) -> list[BusMessage]:
    return [record.message for record in bus.records]


async def test_every_message_is_kept_in_the_order_of_sending() -> None:
    async with RecordingBus() as bus:
        messages = [note(1), alarm(2), note(3, "nobody"), BusAddWorkerMessage(Helper("x"), source="me")]
        for message in messages:
            await bus.send(message)
        assert sent(bus) == messages
        assert [record.number for record in bus.records] == [1, 2, 3, 4]


async def runner_with_a_job(bus: RecordingBus) -> None:
    async with WorkerRunner(bus=bus, name="front", handle_sigint=False) as runner:
        await runner.add_workers(Helper("tts"))
        await runner.job("tts", name="echo", payload={"text": "hello"})


async def test_what_the_library_sends_is_kept_and_a_request_comes_before_its_answer() -> None:
    """The answer is sent in the step in which the request is handled."""
    bus = RecordingBus()
    await runner_with_a_job(bus)
    kinds = [type(message) for message in sent(bus)]
    assert kinds.index(BusJobRequestMessage) < kinds.index(BusJobResponseMessage)
    assert BusWorkerReadyMessage in kinds


async def test_what_comes_of_a_message_in_its_own_step_is_recorded_behind_it() -> None:
    bus, helper = RecordingBus(), Helper("helper", active=False)
    async with running(helper, bus=bus) as runner:
        with pytest.raises(JobError, match="inactive"):
            await runner.job("helper", name="echo")
    kinds = (BusJobRequestMessage, BusJobResponseMessage)
    assert [type(message) for message in bus.messages() if isinstance(message, kinds)] == list(kinds)


async def test_what_is_sent_before_the_bus_is_open_is_kept() -> None:
    """B4."""
    bus = RecordingBus()
    await bus.send(note(1))
    assert len(bus.records) == 1


def test_each_message_has_its_time(backend: str) -> None:
    async def main() -> list[float]:
        async with RecordingBus() as bus:
            for _ in range(3):
                await bus.send(note(1))
                await sleep(0.25)
            return [record.time for record in bus.records]

    assert run(main, backend=backend) == [0.0, 0.25, 0.5]


async def test_what_is_no_message_is_not_kept() -> None:
    async with RecordingBus() as bus:
        with pytest.raises(MessageTypeError):
            await bus.send(BusMessage(source="me"))
        assert bus.records == []


async def test_a_record_cannot_be_changed_and_the_list_is_a_copy() -> None:
    bus = RecordingBus()
    await bus.send(note(1))
    with pytest.raises(AttributeError):
        bus.records[0].time = 1.0  # type: ignore[misc]  # the point of the test
    bus.records.clear()
    assert len(bus.records) == 1


async def test_a_bus_that_is_opened_again_goes_on_recording() -> None:
    bus = RecordingBus()
    for _ in range(2):
        async with bus:
            await bus.send(note(1))
    assert [record.number for record in bus.records] == [1, 2]


async def test_numbers_go_on_after_each_clear() -> None:
    bus = RecordingBus()
    for n in range(1, 4):
        await bus.send(note(n))
        assert [record.number for record in bus.records] == [n]
        bus.clear()


# --- a MemoryBus otherwise


async def test_what_the_library_sends_needs_no_task_as_on_a_memory_bus() -> None:
    """B1: it is handed out in the step in which it is sent."""
    for kind in (MemoryBus, RecordingBus):
        async with kind() as bus:
            before = len(get_running_tasks())
            worker = Helper("w")
            await bus.subscribe(worker)
            bus.post(alarm(1, "w"))
            assert len(get_running_tasks()) == before
            assert bus.statistics().subscribers["w"].delivered == 1


async def test_what_meets_the_senders_own_full_lane_is_not_kept_and_nobody_hears_of_it() -> None:
    """B9: nobody got it."""
    bus = RecordingBus(max_buffer_size=1)
    refused: list[int] = []
    flooded = anyio.Event()

    async def flood(message: BusMessage) -> None:
        if isinstance(message, Alarm):
            for n in range(1, 4):
                try:
                    await bus.send(note(n, "self"))
                except WouldBlock:
                    refused.append(n)
            flooded.set()

    told: list[int] = []

    async def wait() -> None:
        await bus.wait_for(Note, matching=lambda message: told.append(message.n))

    async with bus, create_task_group() as group:
        await bus.subscribe(Plain("self", on=flood))
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await bus.send(alarm(0, "self"))
        await flooded.wait()
        await anyio.wait_all_tasks_blocked()
        kept = [message.n for message in bus.messages(Note)]
        assert refused
        assert kept + refused == [1, 2, 3]
        assert told == kept
        group.cancel_scope.cancel()
    assert [record.number for record in bus.records] == list(range(1, len(bus.records) + 1))


async def test_what_waits_for_room_is_kept_when_it_is_sent() -> None:
    """B9."""
    gate = anyio.Event()

    async def wait(_: BusMessage) -> None:
        await gate.wait()

    async with RecordingBus(max_buffer_size=1) as bus, create_task_group() as group:
        slow = Plain("slow", on=wait)
        await bus.subscribe(slow)
        for n in range(3):
            group.start_soon(bus.send, note(n, "slow"))
        await bus.wait_for(Note, matching=lambda _: len(bus.records) == 3)
        gate.set()
        await slow.until(3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(st.tuples(st.booleans(), st.sampled_from([None, "a", "b", "w"])), max_size=12),
    size=st.sampled_from([1, 3, float("inf")]),
    seed=st.integers(0, 3),
)
def test_subscribers_get_what_they_get_on_a_memory_bus(
    backend: str, script: list[tuple[bool, str | None]], size: float, seed: int
) -> None:
    """B2, B6, B9: the two are told the same, and tell the same."""

    def program(kind: type[MemoryBus]) -> Callable[[], Awaitable[Any]]:
        async def main() -> Any:
            async with kind(max_buffer_size=size) as bus:
                plain = [Plain(name, receives=receives) for name, receives in (("a", "all"), ("b", "own"))]
                worker = Helper("w")
                for subscriber in (*plain, worker):
                    await bus.subscribe(subscriber)
                for n, (urgent, target) in enumerate(script):
                    await bus.send(alarm(n, target) if urgent else note(n, target))
                await sleep(1)
                counts = bus.statistics()
                return [each.got for each in plain], counts, current_time()

        return main

    recorded = run(program(RecordingBus), backend=backend, seed=seed)
    assert recorded == run(program(MemoryBus), backend=backend, seed=seed)


# --- asking


async def test_messages_can_be_asked_for_by_what_they_are() -> None:
    bus = RecordingBus()
    request = BusJobRequestMessage("j1", "echo", source="a", target="b")
    answer = BusJobResponseMessage("j1", JobStatus.COMPLETED, {}, source="b", target="a")
    for message in (note(1, "b", source="a"), note(2), alarm(3), request, answer):
        await bus.send(message)
    assert [message.n for message in bus.messages(Note)] == [1, 2]
    assert bus.messages(source="a") == [note(1, "b", source="a"), request]
    assert bus.messages(target="a") == [answer]
    assert bus.messages(job_id="j1") == [request, answer]
    assert bus.messages(Note, matching=lambda message: message.n > 1) == [note(2)]
    assert len(bus.messages()) == 5


async def test_a_message_that_was_sent_already_is_not_waited_for() -> None:
    bus = RecordingBus()
    await bus.send(note(1))
    await bus.send(note(2))
    assert await bus.wait_for(Note) == note(1)
    assert await bus.wait_for(Note, matching=lambda message: message.n == 2) == note(2)


async def test_all_who_wait_for_a_message_hear_of_it() -> None:
    async with RecordingBus() as bus, create_task_group() as group:
        got: list[Note] = []

        async def wait() -> None:
            got.append(await bus.wait_for(Note))

        for _ in range(3):
            group.start_soon(wait)
        await settle()
        await bus.send(note(1))
        await settle()
        assert got == [note(1)] * 3
        group.cancel_scope.cancel()


async def test_the_first_message_that_fits_is_the_one_whatever_is_sent_before_who_waits_runs() -> None:
    async with RecordingBus() as bus, create_task_group() as group:
        got: list[Note] = []

        async def wait() -> None:
            got.append(await bus.wait_for(Note, matching=lambda message: message.n > 1))

        group.start_soon(wait)
        await settle()
        for numbers in ((0,), (1, 2, 3, 0)):
            for n in numbers:
                bus.post(note(n))
            await settle()
    assert got == [note(2)]


async def test_a_message_is_waited_for_until_it_is_sent() -> None:
    async with RecordingBus() as bus, create_task_group() as group:
        got: list[Note] = []

        async def wait() -> None:
            got.append(await bus.wait_for(Note, source="other", target="a", matching=lambda message: message.n == 3))

        group.start_soon(wait)
        others: list[BusMessage] = [note(3, "a"), note(3, "b", source="other"), note(2, "a", source="other")]
        for message in (*others, alarm(3, "a")):
            await bus.send(message)
            await checkpoint()
        assert got == []
        await bus.send(note(3, "a", source="other"))
    assert got == [note(3, "a", source="other")]


async def test_a_job_is_waited_for_by_its_id() -> None:
    bus = RecordingBus()
    await runner_with_a_job(bus)
    request = await bus.wait_for(BusJobRequestMessage, target="tts")
    answer = await bus.wait_for(BusJobResponseMessage, job_id=request.job_id)
    assert answer.source == "tts"


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind() -> None:
    async with RecordingBus() as bus:
        with move_on_after(0) as scope:
            await bus.wait_for(Note)
        assert scope.cancelled_caught
        await bus.send(note(1))
        assert await bus.wait_for(Note) == note(1)
        assert bus._waiting == set()


async def test_a_condition_that_raises_raises_where_it_is_waited_for_and_not_at_the_sender() -> None:
    """B1: no user code in a sender's step."""

    async def wait() -> None:
        with pytest.raises(ZeroDivisionError):
            await bus.wait_for(Note, matching=lambda message: 1 // message.n)

    async with RecordingBus() as bus, create_task_group() as group:
        group.start_soon(wait)
        await checkpoint()
        await bus.send(note(0))
    assert bus._waiting == set()


async def test_a_waiter_is_woken_by_what_was_forgotten_before_it_ran() -> None:
    got: list[BusMessage] = []

    async def wait() -> None:
        got.append(await bus.wait_for(Note))

    async with RecordingBus() as bus, create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await bus.send(note(1))
        bus.clear()
        assert bus.records == []
    assert got == [note(1)]
