"""W1, N6: a new worker: its name, and how it comes onto the bus."""

from typing import Any

import pytest

from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusCancelMessage,
    BusEndMessage,
    BusWorkerErrorMessage,
    MemoryBus,
    NotRunningError,
    WorkerRegistry,
)
from workerbus.worker._core import core_of


@pytest.mark.parametrize("attribute", ["bus", "registry"])
async def test_a_new_worker_has_neither_bus_nor_registry(attribute: str) -> None:
    """W1"""
    with pytest.raises(RuntimeError):
        getattr(Helper("w"), attribute)


async def test_a_worker_is_subscribed_when_attach_returns() -> None:
    """W1"""
    bus, registry, worker = MemoryBus(), WorkerRegistry("r"), Helper("w")
    await worker.attach(registry=registry, bus=bus)
    assert (worker.bus, worker.registry) == (bus, registry)
    assert bus.has_subscriber("w")
    with pytest.raises(ValueError, match="'w'"):
        await bus.subscribe(Plain("w"))


async def test_a_worker_that_could_not_be_attached_is_as_before() -> None:
    """W1"""
    bus, worker = MemoryBus(), Helper("w")
    await bus.subscribe(Plain("w"))
    with pytest.raises(ValueError, match="'w'"):
        await worker.attach(registry=WorkerRegistry("r"), bus=bus)
    with pytest.raises(RuntimeError):
        _ = worker.bus
    other = MemoryBus()
    await worker.attach(registry=WorkerRegistry("r"), bus=other)
    assert worker.bus is other


async def test_a_worker_says_who_it_is_and_where_in_its_life() -> None:
    """What a user reads in a debugger."""
    helper = Helper("helper")
    assert repr(helper) == "<Helper 'helper', new>"
    async with running(helper):
        assert repr(helper) == "<Helper 'helper', running>"
    assert repr(helper) == "<Helper 'helper', finished>"


async def test_a_worker_before_its_runner_says_what_it_lacks() -> None:
    """W1."""
    worker = BaseWorker("worker")
    for attribute in ("bus", "registry", "worker_runner"):
        with pytest.raises(RuntimeError, match="worker 'worker' has no "):
            getattr(worker, attribute)


async def test_a_worker_without_a_runner_reports_its_errors_on_the_bus() -> None:
    """W7, W1."""
    bus, observer, worker = MemoryBus(), Plain("observer"), Helper("worker")
    await bus.subscribe(observer)
    await worker.attach(registry=WorkerRegistry("somewhere"), bus=bus)
    await worker.send_bus_error_message("oh")
    async with bus:
        assert await observer.until(1) == [BusWorkerErrorMessage("oh", source="worker")]


@pytest.mark.parametrize("name", ["", 7])
def test_a_name_that_is_none_is_named(name: Any) -> None:
    with pytest.raises(ValueError, match=f"^a worker's name is a str that is not empty, not {name!r}$"):
        Helper(name)


def test_a_worker_without_a_name_gets_one_of_its_own() -> None:
    """For logs."""
    assert Helper().name.startswith("Helper-")
    assert Helper().name != Helper().name


async def test_a_worker_can_be_attached_once_and_says_so() -> None:
    """W6."""
    bus, registry, worker = MemoryBus(), WorkerRegistry("somewhere"), Helper("worker")
    with pytest.raises(NotRunningError, match=r"^worker 'worker' is not attached to a bus yet: give it to a runner$"):
        _ = core_of(worker).state.inbox
    await worker.attach(registry=registry, bus=bus)
    with pytest.raises(NotRunningError, match=r"^worker 'worker' was attached before: a worker object runs once"):
        await worker.attach(registry=registry, bus=bus)
    assert bus.has_subscriber("worker")
    await worker.stop()
    assert not bus.has_subscriber("worker")
    assert repr(worker) == "<Helper 'worker', finished>"


async def test_a_worker_that_was_attached_by_hand_asks_the_runner_of_its_registry_to_end() -> None:
    """W1, R6: the message says whom it is for; one that is not attached has nobody to ask."""
    worker, bus, observer = Helper("worker"), MemoryBus(), Plain("observer")
    for ask in worker.end, worker.cancel:
        with pytest.raises(NotRunningError, match="worker 'worker' has no runner yet"):
            await ask()
    await bus.subscribe(observer)
    await worker.attach(registry=WorkerRegistry("somewhere"), bus=bus)
    async with bus:
        await worker.end(reason="done")
        await worker.cancel(reason="at once")
        await observer.until(1, BusCancelMessage)
        ends = await observer.until(1, BusEndMessage)
    assert ends == [BusEndMessage("done", source="worker", target="somewhere")]
    assert observer.of(BusCancelMessage) == [BusCancelMessage("at once", source="worker", target="somewhere")]
