"""Members of pools."""

from collections.abc import Callable
from typing import Any

import anyio

from workerbus import BaseWorker, BusJobRequestMessage, JobFailure, WorkerPool, job

END = "end"


class Member(BaseWorker):
    """A member of a pool; what it has done is noted in a list that all members share."""

    def __init__(self, name: str, log: list[Any]) -> None:
        super().__init__(name)
        self.log = log
        self.gates: dict[Any, anyio.Event] = {}

    @job(name="who")
    async def who(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.log.append(message.payload.get("n"))
        return {"member": self.name, "n": message.payload.get("n")}

    @job(name="sleep")
    async def sleep(self, message: BusJobRequestMessage) -> dict[str, Any]:
        n = message.payload.get("n")
        self.log.append(("begun", n))
        try:
            await anyio.sleep(message.payload["seconds"])
        finally:
            self.log.append((END, n))
        return {"member": self.name, "n": n}

    @job(name="fail")
    async def fail(self, message: BusJobRequestMessage) -> None:
        raise ValueError("it went wrong")

    @job(name="refuse")
    async def refuse(self, message: BusJobRequestMessage) -> None:
        raise JobFailure("not today", when="tomorrow")

    @job(name="crash")
    async def crash(self, message: BusJobRequestMessage) -> None:
        self.log.append(("crashed", self.name, message.attempt))
        raise Crash("a member has crashed")


class Crash(BaseException):
    """What no handler is expected to raise: its worker ends."""


def pool_of(
    size: int,
    *,
    log: list[Any] | None = None,
    kind: Callable[[str, list[Any]], BaseWorker] = Member,
    name: str = "pool",
    **options: Any,
) -> WorkerPool:
    """Return a pool of members that share a log."""
    noted: list[Any] = [] if log is None else log
    return WorkerPool(name, lambda member: kind(member, noted), size=size, **options)
