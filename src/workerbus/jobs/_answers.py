"""The methods by which a worker answers the jobs that it was asked for, and tells how they go."""

from typing import Any

from workerbus._vocabulary import JobStatus
from workerbus.abc import Sender
from workerbus.jobs._server import JobServer
from workerbus.messages import (
    BusJobRequestMessage,
    BusJobStreamDataMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
)


class JobAnswers:
    """What job handlers send; for a job that is not open, an `UnknownJobError`, which is a `RuntimeError` (J14)."""

    job_server: JobServer

    @property
    def name(self) -> str:
        """The sender of the answers."""
        raise NotImplementedError

    @property
    def bus(self) -> Sender:
        """Where the answers go."""
        raise NotImplementedError

    @property
    def active_jobs(self) -> dict[str, BusJobRequestMessage]:
        """The requests that this worker has not answered, by job id."""
        return {job_id: job.request for job_id, job in self.job_server.jobs.items()}

    async def send_job_response(
        self,
        job_id: str,
        response: dict[str, Any] | None = None,
        *,
        status: JobStatus = JobStatus.COMPLETED,
        urgent: bool = False,
    ) -> None:
        """Answer a job. It is over then, even if its handler goes on; after a cancel the status is CANCELLED (J2).

        Args:
            job_id: The job.
            response: The result.
            status: How it ended.
            urgent: Whether the answer overtakes the data messages that wait at the requester.

        Raises:
            TypeError: The response is no dict; the job is still open.
        """
        if response is not None and not isinstance(response, dict):
            raise TypeError(f"a job is answered with a dict or None, not with {response!r}")
        if type(status) is not JobStatus:
            status = JobStatus(status)
        self.job_server.respond(job_id, status, response, urgent=urgent)

    async def send_job_update(self, job_id: str, update: dict[str, Any] | None = None, *, urgent: bool = False) -> None:
        """Tell the requester of progress.

        Args:
            job_id: The job.
            update: What there is to tell.
            urgent: Whether it overtakes the data messages that wait at the requester.
        """
        request = self.job_server.open_job(job_id).request
        kind = BusJobUpdateUrgentMessage if urgent else BusJobUpdateMessage
        await self.bus.send(kind(job_id, update, source=self.name, target=request.source, headers=request.headers))

    async def send_job_stream_start(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Open a stream of partial results.

        Args:
            job_id: The job.
            data: About the stream.
        """
        request = self.job_server.open_job(job_id).request
        await self.bus.send(
            BusJobStreamStartMessage(job_id, data, source=self.name, target=request.source, headers=request.headers)
        )

    async def send_job_stream_data(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Send a partial result.

        Args:
            job_id: The job.
            data: The result.
        """
        request = self.job_server.open_job(job_id).request
        await self.bus.send(
            BusJobStreamDataMessage(job_id, data, source=self.name, target=request.source, headers=request.headers)
        )

    async def send_job_stream_end(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Close the stream. That ends the job as COMPLETED, with the data as its response.

        Args:
            job_id: The job.
            data: The job's result.
        """
        self.job_server.end_stream(job_id, data)
