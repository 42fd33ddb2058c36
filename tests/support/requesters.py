"""Those who ask for jobs, and keep what comes of them."""

from typing import Any

import anyio

from support.subscribers import Plain
from support.workers import Helper
from workerbus import (
    BusDataMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    JobGroupResponse,
    JobStatus,
    WorkerBus,
    WorkerRunner,
    bus_message,
)


async def outcome_of(runner: WorkerRunner, worker: str, **request: Any) -> tuple[JobStatus, dict[str, Any]]:
    """Ask for a job, and return how it ended, well or badly."""
    async with runner.job_group(worker, cancel_on_error=False, **request) as group:
        pass
    return group.statuses[worker], group.responses[worker]


@bus_message
class Marker(BusDataMessage):
    """Says that everything which was sent to somebody before it has been handled there."""


class Raw(Plain):
    """A plain subscriber that asks for jobs with messages of its own making, and keeps what comes of them."""

    def __init__(self, bus: WorkerBus, name: str = "raw") -> None:
        super().__init__(name)
        self._bus = bus

    @classmethod
    async def on(cls, bus: WorkerBus, name: str = "raw") -> "Raw":
        raw = cls(bus, name)
        await bus.subscribe(raw)
        return raw

    async def ask(self, job_id: str, target: str, job_name: str | None = None, **fields: Any) -> None:
        await self._bus.send(BusJobRequestMessage(job_id, job_name, source=self.name, target=target, **fields))

    async def cancel(self, job_id: str, target: str, reason: str | None = None) -> None:
        await self._bus.send(BusJobCancelMessage(job_id, reason, source=self.name, target=target))

    async def until_answered(self, *job_ids: str) -> None:
        """Wait, in virtual time, until jobs are answered."""
        while not all(self.answers(job_id) for job_id in job_ids):  # noqa: ASYNC110 - what it waits for is a message
            await anyio.sleep(0.125)

    def answers(self, job_id: str) -> list[tuple[JobStatus, dict[str, Any] | None]]:
        """The terminal messages about a job, as statuses and responses."""
        answers: list[tuple[JobStatus, dict[str, Any] | None]] = []
        for message in self.got:
            if isinstance(message, BusJobResponseMessage | BusJobResponseUrgentMessage) and message.job_id == job_id:
                answers.append((message.status, message.response))
            elif isinstance(message, BusJobStreamEndMessage) and message.job_id == job_id:
                answers.append((JobStatus.COMPLETED, message.data))
        return answers

    async def answer(self, job_id: str) -> tuple[JobStatus, dict[str, Any] | None]:
        while not (answers := self.answers(job_id)):
            await self._changed.wait()
        return answers[0]

    async def settle(self) -> None:
        """Wait until all that was sent to this one has been handled."""
        marker = Marker(source=self.name, target=self.name)
        await self._bus.send(marker)
        while not any(message is marker for message in self.got):
            await self._changed.wait()


class Listener(Helper):
    """Writes down which of its job hooks run, and for what; each waits for ``gate`` first, if it is set."""

    def __init__(self, name: str = "listener") -> None:
        super().__init__(name)
        self.heard: list[tuple[str, Any]] = []
        self.gate: anyio.Event | None = None
        self._news = anyio.Event()

    async def until(self, hook: str) -> Any:
        """Wait until a hook has run, and return what it first ran for."""
        while not (found := [what for name, what in self.heard if name == hook]):
            await self._news.wait()
        return found[0]

    async def _note(self, hook: str, what: Any) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.heard.append((hook, what))
        self._news.set()
        self._news = anyio.Event()

    async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        await self._note("response", message)

    async def on_job_update(self, message: BusJobUpdateMessage | BusJobUpdateUrgentMessage) -> None:
        await self._note("update", message)

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        await self._note("completed", result)

    async def on_job_error(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        await self._note("error", message)

    async def on_job_stream_end(self, message: BusJobStreamEndMessage) -> None:
        await self._note("stream end", message)

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        await self._note("cancelled", message)
