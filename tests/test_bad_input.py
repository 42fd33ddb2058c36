"""Bad input gets a clear, typed error at the earliest point, and changes nothing."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusAddWorkerMessage,
    MemoryBus,
    WorkerRunner,
)

NOT_WORKERS: Any = "a name"


@pytest.mark.parametrize(
    "make",
    [
        lambda: WorkerRunner(job_grace=-1),
        lambda: WorkerRunner(grace_period=float("nan")),
        lambda: MemoryBus(max_buffer_size=0),
        lambda: BaseWorker(""),
    ],
    ids=["job grace", "grace period", "buffer size", "worker name"],
)
def test_a_value_that_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"not"):
        make()


def test_a_bus_that_is_none_is_refused() -> None:
    bus: Any = object()
    with pytest.raises(TypeError, match="WorkerBus"):
        WorkerRunner(bus=bus)


async def test_what_is_no_worker_is_refused() -> None:
    async with running(Helper("parent")) as runner:
        with pytest.raises(TypeError, match="a runner runs workers"):
            await runner.add_workers(NOT_WORKERS)
        parent = runner.get_worker("parent")
        assert parent is not None
        with pytest.raises(TypeError, match="children are workers"):
            await parent.add_workers(NOT_WORKERS)
        assert runner.known_workers() == ["parent"]


async def test_a_message_that_adds_no_worker_is_reported() -> None:
    told = anyio.Event()
    async with running() as runner:
        runner.add_event_handler("on_error", lambda _, data: told.set())
        await runner.bus.send(BusAddWorkerMessage("nobody", source="me", target=runner.name))
        await told.wait()


async def test_a_message_that_adds_a_second_worker_of_a_name_is_reported() -> None:
    errors: list[str] = []
    async with running(Helper("one")) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
        await runner.bus.send(BusAddWorkerMessage(Helper("one"), source="me", target=runner.name))
        await anyio.wait_all_tasks_blocked()
    assert len(errors) == 1
    assert "'one'" in errors[0]


async def test_an_update_request_for_a_worker_that_was_not_asked_is_refused() -> None:
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        job_id = await asker.request_job("helper", name="wait")
        with pytest.raises(ValueError, match="'asker' was not asked"):
            await asker.request_job_update(job_id, "asker")
        helper.release.set()
