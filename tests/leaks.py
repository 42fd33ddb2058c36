"""What a run must not leave behind (L1)."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from workerbus import WorkerRegistry, WorkerRunner


def task_ids() -> set[int]:
    return {task.id for task in anyio.get_running_tasks()}


def signal_handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def left_in(registry: WorkerRegistry) -> dict[str, Any]:
    """What a registry still holds: workers, watches, and those that wait; a registry that is new holds nothing."""
    return {name: table for name, table in vars(registry).items() if isinstance(table, dict) and table}


@asynccontextmanager
async def nothing_left(*runners: WorkerRunner) -> AsyncIterator[None]:
    """Fail if the block leaves a task, a signal handler, or anything in the runners' buses and registries.

    What has been subscribed to a bus that is open before the block may stay.
    """
    tasks, handlers = task_ids(), signal_handlers()
    buses = {runner.bus: set(runner.bus.statistics().subscribers) if runner.bus.is_open else set() for runner in runners}
    names = {task.id: task.name for task in anyio.get_running_tasks()}
    opened = {bus: bus.is_open for bus in buses}
    yield
    names = {task.id: task.name for task in anyio.get_running_tasks()} | names
    assert [names[task] for task in task_ids() - tasks] == []
    assert signal_handlers() == handlers
    for runner in runners:
        assert left_in(runner.registry) == {}
    for bus, subscribers in buses.items():
        assert set(bus.statistics().subscribers) <= subscribers
        assert bus.is_open == opened[bus]
