"""How many instructions something takes: a cost that no machine and no clock changes."""

import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any


async def steps_of(work: Callable[[], Awaitable[object]]) -> int:
    """Return how many instructions of Python are executed, by any task of the thread, while this is awaited."""
    steps, before = 0, sys.gettrace()

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count

    sys.settrace(count)
    try:
        await work()
    finally:
        sys.settrace(before)
    return steps
