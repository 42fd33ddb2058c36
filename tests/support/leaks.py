"""What a run must not leave behind (L1)."""

import anyio

from workerbus.testing import nothing_left
from workerbus.testing._leaks import left_in, signal_handlers

__all__ = ["left_in", "nothing_left", "signal_handlers", "task_ids"]


def task_ids() -> set[int]:
    return {task.id for task in anyio.get_running_tasks()}
