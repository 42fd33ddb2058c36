"""N: names, parameters, both forms of a hook, and what was taken over from later versions."""

from typing import Any, cast

import pytest

from support.conditions import eventually
from support.workers import Helper, running
from workerbus import (
    BusMessage,
    MemoryBus,
    WorkerRunner,
)


async def test_a_runner_has_its_two_events() -> None:
    """N3, seeds: ``on_ready``, and ``on_error`` with what went wrong."""
    calls: list[tuple[Any, ...]] = []
    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_ready", lambda *args: calls.append(args))

    @runner.event_handler("on_error")
    async def failed(*args: Any) -> None:
        calls.append(args)

    await runner.add_workers(worker)
    async with runner:
        await eventually(lambda: calls)
        await worker.send_bus_error_message("broken")
        await eventually(lambda: len(calls) == 2)
    assert calls[0] == (runner,)
    assert calls[1][0] is runner
    assert (calls[1][1].worker_name, calls[1][1].error) == ("worker", "broken")


async def test_a_runner_finds_its_workers_by_name() -> None:
    """N4: `get_worker`, of roots and of children; None for a stranger and for one that has finished."""
    parent, child = Helper("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        assert runner.get_worker("parent") is parent
        assert runner.get_worker("child") is child
        assert runner.get_worker("stranger") is None
        await child.stop()
        await eventually(lambda: runner.get_worker("child") is None)


async def test_a_worker_knows_its_runner() -> None:
    """N4: `worker_runner`."""
    parent, child = Helper("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        assert parent.worker_runner is runner
        assert child.worker_runner is runner


def test_a_worker_without_a_runner_says_so() -> None:
    """N4, W1."""
    with pytest.raises(RuntimeError, match="runner"):
        _ = Helper("helper").worker_runner


@pytest.mark.parametrize("thing", [BusMessage(source="me"), "text", None])
async def test_only_messages_with_a_lane_can_be_sent(thing: object) -> None:
    """N5: anything else is a `TypeError`."""
    async with MemoryBus() as bus:
        with pytest.raises(TypeError, match="BusDataMessage"):
            await bus.send(cast(BusMessage, thing))
