"""Other threads, with event loops of their own."""

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio


def in_a_thread(use: Callable[[], Awaitable[Any]], backend: str) -> BaseException | None:
    """Do something in an event loop of another thread; returns what it raises."""
    raised: list[BaseException] = []

    def target() -> None:
        try:
            anyio.run(use, backend=backend)
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    return raised[0] if raised else None
