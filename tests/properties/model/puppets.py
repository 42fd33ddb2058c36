"""The real side of a script: workers, requesters and a stranger that do, step by step, what they are told."""

from collections import deque
from typing import Any

import anyio
from anyio import CancelScope, create_task_group, get_cancelled_exc_class
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from attrs import Factory, define

from properties.model.steps import ENDINGS, MODES
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    JobFailure,
    JobStatus,
    UnknownJobError,
    WorkerParams,
    job,
)


class CrashError(Exception):
    """What the ``run()`` of a worker raises."""


class Mailbox:
    """Commands for one task."""

    def __init__(self) -> None:
        self._commands: deque[tuple[str, int]] = deque()
        self._news = anyio.Event()

    def put(self, what: str, number: int = 0) -> None:
        self._commands.append((what, number))
        self._news.set()

    async def get(self) -> tuple[str, int]:
        while not self._commands:
            self._news = anyio.Event()
            await self._news.wait()
        return self._commands.popleft()


@define(eq=False)
class Handling:
    """A handler of a puppet's, as it runs."""

    mailbox: Mailbox
    children: TaskGroup
    released: anyio.Event
    slow: bool = False
    mode: str = ""


@define(eq=False)
class Sightings:
    """What the puppets have seen; jobs by their ids."""

    raising: frozenset[str] = frozenset()
    """The hooks that raise when they have noted that they run."""
    numbers: dict[str, int] = Factory(dict)
    """Which group a job id is."""
    hooks: dict[str, list[tuple[str, str]]] = Factory(dict)
    told: dict[tuple[str, str], list[str]] = Factory(dict)
    result: object = None


class Puppet(BaseWorker):
    """Its handlers do what they are told; its hooks note that they ran."""

    def __init__(self, name: str, seen: Sightings) -> None:
        super().__init__(name)
        self.seen = seen
        self.handlings: dict[int, Handling] = {}
        self.starts: dict[int, int] = {}
        self.crash = anyio.Event()

    async def run(self, params: WorkerParams) -> None:
        params.task_group.start_soon(self._until_crash)
        await super().run(params)

    async def _until_crash(self) -> None:
        await self.crash.wait()
        raise CrashError("on demand")

    # --- jobs

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> Any:
        return await self._handle(message)

    @job(name="defer", deferred=True)
    async def defer(self, message: BusJobRequestMessage) -> Any:
        return await self._handle(message)

    @job(name="turn", sequential=True)
    async def turn(self, message: BusJobRequestMessage) -> Any:
        return await self._handle(message)

    async def _handle(self, message: BusJobRequestMessage) -> Any:
        assert message.payload is not None
        number: int = message.payload["group"]
        self.seen.numbers[message.job_id] = number
        self.starts[number] = self.starts.get(number, 0) + 1
        handling: Handling | None = None
        try:
            async with create_task_group() as children:
                handling = self.handlings[number] = Handling(Mailbox(), children, anyio.Event())
                what, step = await self._follow(handling, message.job_id)
                children.cancel_scope.cancel()
            await checkpoint_if_cancelled()  # a task group of trio's may end without telling
            return ended(what, step)
        except get_cancelled_exc_class():
            if handling is None:
                raise
            if handling.slow:
                with CancelScope(shield=True):
                    await handling.released.wait()
            if handling.mode == "broken":
                raise ValueError("the clean-up went wrong") from None
            if handling.mode != "stubborn":
                raise
            return {"stubborn": True}
        finally:
            del self.handlings[number]

    async def _follow(self, handling: Handling, job_id: str) -> tuple[str, int]:
        while True:
            what, step = await handling.mailbox.get()
            if what in ENDINGS:
                return what, step
            if what == "slow":
                handling.slow = True
            elif what in MODES:
                handling.mode = what
            elif what == "stop":
                await self.stop()
            else:
                await self.send_as_told(job_id, what, step)

    async def send_as_told(self, job_id: str, what: str, step: int) -> None:
        data = {"step": step}
        urgent = what.startswith("urgent ")
        what = what.removeprefix("urgent ")
        try:
            if what == "update":
                await self.send_job_update(job_id, data, urgent=urgent)
            elif what == "stream start":
                await self.send_job_stream_start(job_id, data)
            elif what == "stream data":
                await self.send_job_stream_data(job_id, data)
            elif what == "stream end":
                await self.send_job_stream_end(job_id, data)
            else:
                await self.send_job_response(job_id, data, status=JobStatus(what), urgent=urgent)
        except UnknownJobError:
            self.seen.result = "refused"

    # --- hooks

    async def _note(self, hook: str, job_id: str, worker: str = "") -> None:
        for _ in range(3):
            await checkpoint()
        self.seen.hooks.setdefault(job_id, []).append((hook, worker))
        self._raise_if_told(hook)

    def _raise_if_told(self, hook: str) -> None:
        if hook in self.seen.raising:
            raise ValueError(f"the hook for {hook} went wrong")

    async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        await self._note("response", message.job_id, message.source)

    async def on_job_update(self, message: Any) -> None:
        await self._note("update", message.job_id, message.source)

    async def on_job_stream_start(self, message: Any) -> None:
        await self._note("stream start", message.job_id, message.source)

    async def on_job_stream_data(self, message: Any) -> None:
        await self._note("stream data", message.job_id, message.source)

    async def on_job_stream_end(self, message: Any) -> None:
        await self._note("stream end", message.job_id, message.source)

    async def on_job_completed(self, result: Any) -> None:
        await self._note("completed", result.job_id)

    async def on_job_error(self, message: Any) -> None:
        await self._note("error", message.job_id)

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        self.seen.told.setdefault((message.job_id, self.name), []).append(message.reason or "")
        self._raise_if_told("cancelled")

    async def on_job_update_requested(self, message: Any) -> None:
        self.seen.told.setdefault((message.job_id, self.name), []).append("update?")


def ended(what: str, step: int) -> Any:
    """End a handler."""
    if what == "raise":
        raise ValueError("told to")
    if what == "give up":
        raise JobFailure("told to")
    return {"return": None, "return data": {"step": step}, "return junk": "junk"}[what]
