"""The methods by which a worker answers the jobs that it was asked for, and tells how they go (J2, J14)."""

from collections.abc import Callable
from typing import Any

from workerbus._concurrency.waiting import waits
from workerbus._slot import HasCore, core_of
from workerbus._values import JobStatus
from workerbus.errors import WireError
from workerbus.jobs._server import JobServer
from workerbus.messages import (
    BusJobRequestMessage,
    BusJobStreamDataMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
)


class JobAnswers(HasCore):
    """The methods by which a worker's own code answers a job and reports its progress.

    For a job that is not open, each raises `UnknownJobError`, which is a `RuntimeError`.

    Guarantees: J2, J14.
    """

    @property
    def active_jobs(self) -> dict[str, BusJobRequestMessage]:
        """The requests that this worker has not answered, by job id."""
        return {job_id: job.request for job_id, job in _server(self).jobs.items()}

    async def send_job_response(
        self,
        job_id: str,
        response: dict[str, Any] | None = None,
        *,
        status: JobStatus = JobStatus.COMPLETED,
        urgent: bool = False,
    ) -> None:
        """Answer a job. For the requester this ends it, even if its handler goes on.

        If the job was cancelled, its status is CANCELLED, whatever is given here.

        Args:
            job_id: The id of the job, as in its request.
            response: The result, a dict; None is ``{}``.
            status: How the job ended.
            urgent: Whether the answer overtakes the data messages that wait at the requester.

        Raises:
            TypeError: The response is not a dict; the job is still open.
            ValueError: The status is not a `JobStatus`; the job is still open.
            UnknownJobError: The worker has no open job with this id; a `RuntimeError`.

        A response that cannot travel to the requester's process becomes an ERROR that says why; it is also logged.

        Guarantees: J1, J2, J14.
        """
        if response is not None and not isinstance(response, dict):
            raise TypeError(f"a job is answered with a dict or None, not with {response!r}")
        if type(status) is not JobStatus:
            status = JobStatus(status)
        server = _server(self)
        await _send_answer(server, lambda: server.respond(job_id, status, response, urgent=urgent))

    async def send_job_update(self, job_id: str, update: dict[str, Any] | None = None, *, urgent: bool = False) -> None:
        """Tell the requester how a job is getting on.

        Args:
            job_id: The id of the job, as in its request.
            update: The update, a dict.
            urgent: Whether the update overtakes the data messages that wait at the requester.

        Raises:
            TypeError: The update is not a dict; the job is still open. So it is of the data of a stream.
            UnknownJobError: The worker has no open job with this id; a `RuntimeError`.
            WireError: The update cannot travel to the requester's process; the job is still open. A `ValueError`.

        Guarantees: J14, X1.
        """
        _check_data(update, "an update")
        server = _server(self)
        kind = BusJobUpdateUrgentMessage if urgent else BusJobUpdateMessage
        await server.owner.send(server.message(kind, job_id, update))

    async def send_job_stream_start(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Open a stream of partial results.

        Args:
            job_id: The id of the job, as in its request.
            data: What the requester should know about the stream as a whole, a dict.

        Raises:
            UnknownJobError: The worker has no open job with this id; a `RuntimeError`.
            WireError: The data cannot travel to the requester's process; the job is still open. A `ValueError`.

        Guarantees: J14, X1.
        """
        _check_data(data, "the data of a stream")
        server = _server(self)
        await server.owner.send(server.message(BusJobStreamStartMessage, job_id, data))

    async def send_job_stream_data(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Send a partial result.

        Waits while the requester's loop is ``max_buffered_events`` behind. If no loop reads, it does not wait.

        Args:
            job_id: The id of the job, as in its request.
            data: The partial result, a dict.

        Raises:
            UnknownJobError: The worker has no open job with this id, or it ended during the wait; a `RuntimeError`.
            WireError: The data cannot travel to the requester's process; the job is still open. A `ValueError`.

        Guarantees: J14, J19, X1.
        """
        if type(data) is not dict:  # nearly always it is, and this is a hot path
            _check_data(data, "a chunk of a stream")
        server = _server(self)
        job = server.open_job(job_id)
        window = job.window
        if window is None:
            window = server.window_of(job)
        if window.sent < window.until:
            window.sent += 1
        else:
            await window.take()
            job = server.open_job(job_id)
        if window.numbered:
            number = window.sent
            try:
                await server.owner.send(server.chunk(job, data, number))
            except WireError:
                if window.sent == number:
                    window.sent -= 1  # it takes no part of the window, and the next one its number
                raise
            return
        await server.owner.send(server.message_of(BusJobStreamDataMessage, job, data))

    waits(send_job_stream_data, lambda its: its["job"].reader_in_words(its["window"]))

    async def send_job_stream_end(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Close the stream, which ends the job as COMPLETED; as CANCELLED, if it was cancelled before.

        Args:
            job_id: The id of the job, as in its request.
            data: The result of the whole job, a dict: its response.

        Raises:
            UnknownJobError: The worker has no open job with this id; a `RuntimeError`.

        Guarantees: J2, J14.
        """
        _check_data(data, "the end of a stream")
        server = _server(self)
        await _send_answer(server, lambda: server.end_stream(job_id, data))


def _check_data(data: object, what: str) -> None:
    if data is not None and not isinstance(data, dict):
        raise TypeError(f"{what} is a dict or None, not {data!r}")


async def _send_answer(server: JobServer, answer: Callable[[], None]) -> None:
    if server.jobs:  # before the job is over by it; where there is none, that is what is told
        server.owner.bus.check_thread()
    if server.owner.sends_by_bus:
        answer()
        return
    for message in server.held_back(answer):
        try:
            await server.owner.send(message)
        except WireError:
            server.post_answer(message)
        except BaseException:
            server.post_answer(message)  # the job is over, and its requester has to hear so
            raise


def _server(owner: HasCore) -> JobServer:
    server: JobServer = core_of(owner).job_server
    return server
