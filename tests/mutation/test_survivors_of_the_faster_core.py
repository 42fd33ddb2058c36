"""What waiting requests, early timeouts, counts and cancelled lanes do where changing code had turned no test red."""

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.buses import PoliteBus
from support.job_handlers import at_once, slow_to_leave
from support.requesters import Listener, Raw
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
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
