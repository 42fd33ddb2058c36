"""What waiting requests, early timeouts, counts and cancelled lanes do where changing code had turned no test red."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.buses import PoliteBus
from support.conditions import eventually
from support.job_handlers import at_once, slow_to_leave
from support.listeners import Listener as Hearing
from support.messages import Note, note
from support.requesters import Listener, Raw
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusWorkerReadyMessage,
    JobGroupError,
    JobStatus,
    MemoryBus,
    WorkerRunner,
)
from workerbus.jobs._client import SAME_TIME


async def answer(runner: WorkerRunner, job_id: str, worker: str, status: Any, *, to: str | None = None) -> None:
    """Answer in a worker's place, and let it be handled."""
    said = BusJobResponseMessage(job_id, status, {"error": "timeout"}, source=worker, target=to or runner.name)
    await runner.bus.send(said)
    await checkpoint()


# --- workers


async def test_the_built_in_clean_up_stops_no_worker_that_runs() -> None:
    """W6: only `stop()` does."""
    helper = Helper("helper")
    async with running(helper) as runner:
        with anyio.move_on_after(1):
            await helper.cleanup()
        assert await runner.job("helper", name="echo") == {"worker": "helper", "payload": None}


# --- the bus and its subscribers


async def test_a_bounded_bus_keeps_announcements_from_workers() -> None:
    """B7, B9: also when they are sent as everything else is."""
    heard: list[BusMessage] = []

    async def hear(message: BusMessage) -> None:
        heard.append(message)

    async with running(Hearing("hearing", hear), bus=MemoryBus(max_buffer_size=8)) as runner:
        observer = Plain("observer")
        await runner.bus.subscribe(observer)
        before = runner.bus.statistics().subscribers["hearing"].delivered
        ready = BusWorkerReadyMessage("elsewhere", source="stranger")
        await runner.bus.send(ready)
        await runner.bus.send(note(1))
        assert await observer.until(2) == [ready, note(1)]
        assert runner.bus.statistics().subscribers["hearing"].delivered == before + 1


async def raise_the_cancellation(cancelled: BaseException) -> None:
    """Let it through."""
    raise cancelled


async def raise_it_in_a_group(cancelled: BaseException) -> None:
    """Do as a nursery of trio's does."""
    raise BaseExceptionGroup("cancelled", [cancelled])


@pytest.mark.parametrize("leave", [raise_the_cancellation, raise_it_in_a_group])
async def test_a_subscriber_that_was_cancelled_begins_nothing_more(
    leave: Callable[[BaseException], Awaitable[None]],
) -> None:
    """R6: what runs in the program's own bus is cancelled with it, and may learn of it before the bus is closed."""
    begun: list[BusMessage] = []
    unwound = anyio.Event()

    async def wait(message: BusMessage) -> None:
        begun.append(message)
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            unwound.set()
            await leave(cancelled)

    with anyio.CancelScope() as scope:
        async with MemoryBus() as bus:
            await bus.subscribe(Plain("slow", on=wait))
            await bus.send(note(1))
            await bus.send(note(2))
            await eventually(lambda: begun)
            with anyio.CancelScope(shield=True):
                scope.cancel()
                await unwound.wait()
                await anyio.wait_all_tasks_blocked()
    assert begun == [note(1)]


async def test_what_a_plain_subscriber_refuses_is_not_counted_as_delivered() -> None:
    """B9, N4."""

    class Choosing(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return isinstance(message, Note) and message.n % 3 == 0

    async with MemoryBus() as bus:
        choosing = Choosing("choosing")
        await bus.subscribe(choosing)
        for n in range(7):
            await bus.send(note(n))
        await choosing.until(3)
        statistics = bus.statistics().subscribers["choosing"]
    assert (statistics.depth, statistics.delivered, statistics.failed) == (0, 3, 0)


async def test_a_runner_has_statistics_like_every_subscriber() -> None:
    """B9: what waits for it, what it handled, what its code failed at."""

    class Failing(WorkerRunner):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            if message == note(1):
                raise ValueError("one is none")
            return True

    async with Failing(name="office", handle_sigint=False) as runner:
        await anyio.wait_all_tasks_blocked()
        before = runner.bus.statistics().subscribers["office"]
        for n in range(3):
            await runner.bus.send(note(n))
        assert runner.bus.statistics().subscribers["office"].depth == 3
        await anyio.wait_all_tasks_blocked()
        after = runner.bus.statistics().subscribers["office"]
    assert (before.depth, before.failed) == (after.depth, 0) == (0, 0)
    assert (after.failed, after.delivered - before.delivered) == (1, 2)


# --- answers


@pytest.mark.parametrize("status", JobStatus)
async def test_a_status_that_came_as_plain_text_is_the_status_that_it_names(status: JobStatus) -> None:
    """J1, J11: as a transport that knows no better may bring it."""
    async with running(Helper("helper")) as runner:
        async with runner.job_group("helper", name="wait", cancel_on_error=False) as asked:
            await answer(runner, asked.job_id, "helper", status.value)
        assert asked.statuses == {"helper": status}
        assert type(asked.statuses["helper"]) is JobStatus


@pytest.mark.parametrize("status", ["nonsense", None, 7])
async def test_a_status_that_there_is_not_is_an_error(status: Any) -> None:
    """J1, J11: whatever the answer says beside it."""
    async with running(Helper("helper")) as runner:
        async with runner.job_group("helper", name="wait", cancel_on_error=False) as asked:
            await answer(runner, asked.job_id, "helper", status)
        assert asked.statuses == {"helper": JobStatus.ERROR}


async def test_what_nobody_can_read_is_not_kept() -> None:
    """J7, J15: the short form has no body that would take the events of the job."""

    async def tell(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"half": "done"})

    async with running(Doing("doing", tell)) as runner:
        asked = runner.job("doing", name="do")
        await asked
        assert [event async for event in asked] == []


# --- asking where a request may have to wait


async def test_on_a_bounded_bus_nobody_is_asked_any_more_when_the_group_has_failed() -> None:
    """J5, J8: the first one has refused in the very step of asking."""
    helper = Helper("helper")
    async with running(Helper("inactive", active=False), helper, bus=MemoryBus(max_buffer_size=8)) as runner:
        observer = Plain("observer")
        await runner.bus.subscribe(observer)
        with pytest.raises(JobGroupError, match="worker 'inactive' answered failed"):
            await runner.job_group("inactive", "helper", name="echo")
        await anyio.wait_all_tasks_blocked()
        assert [message.target for message in observer.of(BusJobRequestMessage)] == ["inactive"]
    assert helper.calls == []


@pytest.mark.parametrize("timeout", [None, 0.5, 30])
def test_what_is_left_travels_on_a_bus_that_takes_its_time(backend: str, timeout: float | None) -> None:
    """J6: `seconds_left` is the time that there is, and None where there is no end to it."""

    async def example() -> list[float | None]:
        async with running(Helper("helper"), bus=PoliteBus()) as runner:
            raw = await Raw.on(runner.bus)
            await runner.job("helper", name="echo", timeout=timeout)
            await raw.until(1, BusJobRequestMessage)
        return [message.seconds_left for message in raw.got if isinstance(message, BusJobRequestMessage)]

    assert clock.run(example, backend=backend) == [timeout]


# --- deadlines


async def test_the_hook_of_a_timeout_names_one_who_is_late() -> None:
    """J6: and not one who has answered, though it was asked first."""
    asker = Listener("asker")
    async with running(Doing("a", at_once), Doing("b", slow_to_leave), asker):
        await asker.request_job_group("a", "b", name="do", timeout=3)
        message = await asker.until("error")
    assert message.source == "b"


async def test_workers_are_told_that_an_enclosing_scope_has_run_out_of_time() -> None:
    """J6: the reason is the same whichever end sees it."""
    async with running(Doing("slow", slow_to_leave)) as runner:
        raw = await Raw.on(runner.bus)
        with anyio.move_on_after(3):
            await runner.job("slow", name="do")
        await raw.until(1, BusJobCancelMessage)
    assert [message.reason for message in raw.got if isinstance(message, BusJobCancelMessage)] == ["timeout"]


async def test_two_early_timeouts_of_a_scope_that_has_more_time_now_count_as_two_answers() -> None:
    """J6, J11: and the third worker is still waited for."""
    names = ["a", "b", "c"]
    async with running(*(Doing(name, slow_to_leave) for name in names), Helper("helper")) as runner:
        with anyio.move_on_after(3) as scope:
            async with runner.job_group(*names, name="do", cancel_on_error=False) as asked:
                await anyio.sleep(3 - SAME_TIME / 2)
                await answer(runner, asked.job_id, "a", JobStatus.CANCELLED)
                await answer(runner, asked.job_id, "b", JobStatus.CANCELLED)
                scope.deadline += 100
        assert asked.statuses == dict.fromkeys(names, JobStatus.CANCELLED)
        assert anyio.current_time() > 3.5
        assert await runner.job("helper", name="echo") == {"worker": "helper", "payload": None}


async def test_an_early_timeout_of_a_scope_that_did_end_is_no_error() -> None:
    """J6, J8: the scope's own cancellation ends the wait, so that no hook tells of a failure afterwards."""
    asker = Listener("asker")
    async with running(Doing("silent", slow_to_leave), asker) as runner:
        with anyio.move_on_after(3) as scope:
            async with asker.job("silent", name="do") as asked:
                await anyio.sleep(3 - SAME_TIME / 2)
                await answer(runner, asked.job_id, "silent", JobStatus.CANCELLED, to="asker")
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await anyio.sleep(10 * SAME_TIME)
        await anyio.wait_all_tasks_blocked()
    assert [hook for hook, _ in asker.heard] == ["response"]
