"""What a run must not leave behind (L1)."""

import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from workerbus import WorkerRegistry, WorkerRunner


def task_ids() -> set[int]:
    return {task.id for task in anyio.get_running_tasks()}


def signal_handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def left_in(registry: WorkerRegistry) -> dict[str, Any]:
    """What a registry still holds: workers, watches, and those that wait. A new one holds nothing."""
    return {name: table for name, table in vars(registry).items() if isinstance(table, dict) and table}


@asynccontextmanager
async def nothing_left(*runners: WorkerRunner, stays: Iterable[str] = ()) -> AsyncIterator[None]:
    """Fail if the block leaves a task, a signal handler, or anything in the runners' buses and registries.

    The program's own subscribers, named in ``stays``, may stay.
    """
    tasks, handlers = task_ids(), signal_handlers()
    opened = {runner.bus: runner.bus.is_open for runner in runners}
    yield
    assert [task.name for task in anyio.get_running_tasks() if task.id not in tasks] == []
    assert signal_handlers() == handlers
    for runner in runners:
        assert left_in(runner.registry) == {}
        assert set(runner.bus.statistics().subscribers) <= set(stays)
        assert runner.bus.is_open == opened[runner.bus]
