"""How to make each hook of a worker happen."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from support.messages import Note, note
from support.workers import Helper
from workerbus import BusDeactivateWorkerMessage, BusJobRequestMessage, WorkerReadyData, WorkerRunner, job

HOOKS: Final = (
    "on_activated",
    "on_deactivated",
    "on_worker_ready",
    "on_worker_failed",
    "on_job_response",
    "on_job_update",
    "on_job_update_requested",
    "on_job_completed",
    "on_job_error",
    "on_job_stream_start",
    "on_job_stream_data",
    "on_job_stream_end",
    "on_job_cancelled",
    "on_bus_message",
)
"""All but ``on_job_request``, which runs as a job handler."""


class Peer(Helper):
    """A worker whose job ``talk`` sends one message of each kind."""

    @job(name="talk")
    async def talk(self, message: BusJobRequestMessage) -> None:
        await self.send_job_update(message.job_id, {})
        await self.send_job_stream_start(message.job_id, {})
        await self.send_job_stream_data(message.job_id, {})
        await self.send_job_stream_end(message.job_id, {})


Code = Callable[..., Awaitable[Any]]


def with_hook(hook: str, code: Code, *, form: str = "method", active: bool = True) -> Helper:
    """Return the worker ``subject``, whose hook runs ``code(worker, …)`` when `provoke` makes it happen."""

    async def provoked(worker: Any, *args: Any) -> None:
        if hook == "on_worker_ready" and not args[0].worker_name.startswith("newcomer"):
            return
        if hook != "on_bus_message" or isinstance(args[0], Note):
            await code(worker, *args)

    if form == "method":
        subject: Helper = type("Subject", (Helper,), {hook: provoked})("subject", active=active)
        return subject
    subject = Helper("subject", active=active)
    subject.add_event_handler(hook, provoked)
    return subject


async def provoke(hook: str, subject: Helper, peer: Peer, runner: WorkerRunner) -> None:
    """Make a hook of a running, active worker happen once; ``on_activated`` of an inactive one."""
    number = len(runner.registry.local_workers)
    if hook == "on_activated":
        await peer.activate_worker(subject.name)
    elif hook == "on_deactivated":
        await peer.activate_worker(subject.name)
        await runner.bus.send(BusDeactivateWorkerMessage(source="test", target=subject.name))
    elif hook == "on_worker_ready":
        await runner.add_workers(Helper(f"newcomer{number}"))
    elif hook == "on_worker_failed":
        child = Helper(f"child{number}")
        await subject.add_workers(child)
        await runner.registry.wait_for(child.name)
        await child.send_bus_error_message("broken")
    elif hook in ("on_job_response", "on_job_completed"):
        await subject.request_job(peer.name, name="echo")
    elif hook == "on_job_error":
        await subject.request_job(peer.name, name="fail")
    elif hook == "on_bus_message":
        await runner.bus.send(note(0, subject.name))
    elif hook in ("on_job_update_requested", "on_job_cancelled"):
        known = len(subject.calls)
        job_id = await peer.request_job(subject.name, name="wait")
        while len(subject.calls) == known:
            await subject.begun.wait()
        if hook == "on_job_cancelled":
            await peer.cancel_job_group(job_id)
        else:
            await peer.request_job_update(job_id, subject.name)
    else:
        await subject.request_job(peer.name, name="talk")


def job_id_of(args: tuple[Any, ...]) -> str | None:
    """The job that a hook was called for, if any."""
    return getattr(args[0], "job_id", None) if args and not isinstance(args[0], WorkerReadyData) else None
