"""The methods by which workers and runners ask for jobs: they check their arguments and leave it to the client."""

from collections.abc import Mapping
from typing import Any

from workerbus._slot import HasCore, core_of
from workerbus.jobs._checks import check_request
from workerbus.jobs._client import JobClient
from workerbus.jobs._contexts import JobContext, JobGroupContext
from workerbus.jobs._group import JobGroup


class JobContexts(HasCore):
    """Jobs as contexts: for code that waits for the answer."""

    def job(
        self,
        worker_name: str,
        *,
        name: str | None = None,
        payload: dict[str, Any] | None = None,
        timeout: float | None = None,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> JobContext:
        """Ask one worker for a job, as a context or to be awaited (J8, J15).

        Args:
            worker_name: The worker; if it is not there yet, it is waited for.
            name: Which of its `@job` handlers.
            payload: What the handler needs. Passed by reference, to be treated as read-only.
            timeout: Seconds for everything, the wait for the worker included (J6).
            label: A title for people (N4).
            cancellable: Whether `request_cancel_job_group` may cancel it (N4).
            headers: Travel with the request, and come back with all that belongs to the job (X8).

        Returns:
            The context. Entering it sends the request; leaving it waits for the answer.

        Raises:
            NotRunningError: This worker is not running yet, or no more; a `RuntimeError` (J14).
        """
        check_request((worker_name,), payload, timeout, headers)
        _client(self).check_running()
        return JobContext(
            _client(self),
            (worker_name,),
            name=name,
            payload=payload,
            timeout=timeout,
            cancel_on_error=True,
            label=label,
            cancellable=cancellable,
            headers=headers,
            single=True,
        )

    def job_group(
        self,
        *worker_names: str,
        name: str | None = None,
        payload: dict[str, Any] | None = None,
        timeout: float | None = None,
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> JobGroupContext:
        """Ask several workers for the same job at once, as a context (J8).

        All get the same payload. For shares of their own, key it by name, and let each look up ``payload[self.name]``.

        Args:
            *worker_names: The workers; those that are not there yet are waited for. None at all completes at once.
            name: Which of their `@job` handlers.
            payload: What the handlers need. Shared by reference, to be treated as read-only.
            timeout: Seconds for everything, the wait for the workers included (J6).
            cancel_on_error: Whether the first answer that is not COMPLETED cancels the others and raises.
            label: A title for people (N4).
            cancellable: Whether `request_cancel_job_group` may cancel it (N4).
            headers: Travel with the request, and come back with all that belongs to the job (X8).

        Returns:
            The context. Entering it sends the requests; leaving it waits for all answers.

        Raises:
            ValueError: A worker is named twice (J12).
            NotRunningError: This worker is not running yet, or no more; a `RuntimeError` (J14).
        """
        check_request(worker_names, payload, timeout, headers)
        _client(self).check_running()
        return JobGroupContext(
            _client(self),
            worker_names,
            name=name,
            payload=payload,
            timeout=timeout,
            cancel_on_error=cancel_on_error,
            label=label,
            cancellable=cancellable,
            headers=headers,
            single=False,
        )


class JobRequests(JobContexts):
    """Jobs without a context as well: for code that goes on and is told by hooks."""

    @property
    def job_groups(self) -> dict[str, JobGroup]:
        """The job groups that this worker has asked for and that are not settled, by job id."""
        return {job_id: group for job_id, group in _client(self).groups.items() if not group.is_done}

    async def request_job(
        self,
        worker_name: str,
        *,
        name: str | None = None,
        payload: dict[str, Any] | None = None,
        timeout: float | None = None,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Ask one worker for a job and go on; `on_job_response` and `on_job_completed` tell how it went.

        Waits for the worker to be there and for the request to be sent. The arguments are those of `job`.

        Returns:
            The job id.

        Raises:
            JobError: The worker did not come within the timeout.
            NotRunningError: This worker is not running yet, or no more; a `RuntimeError` (J14).
        """
        check_request((worker_name,), payload, timeout, headers)
        _client(self).check_running()
        group = _client(self).new_group(
            (worker_name,), timeout=timeout, label=label, cancellable=cancellable, headers=headers, single=True
        )
        await _client(self).ask_without_context(group, name, payload)
        return group.job_id

    async def request_job_group(
        self,
        *worker_names: str,
        name: str | None = None,
        payload: dict[str, Any] | None = None,
        timeout: float | None = None,
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Ask several workers for a job and go on; `on_job_response` and `on_job_completed` tell how it went.

        Waits for the workers to be there and for the requests to be sent. The arguments are those of `job_group`.

        Returns:
            The job id, which the workers share.

        Raises:
            JobGroupError: Not all workers came within the timeout.
            ValueError: A worker is named twice (J12).
            NotRunningError: This worker is not running yet, or no more; a `RuntimeError` (J14).
        """
        group = await self.create_job_group_and_request_job(
            list(worker_names),
            name=name,
            payload=payload,
            timeout=timeout,
            cancel_on_error=cancel_on_error,
            label=label,
            cancellable=cancellable,
            headers=headers,
        )
        return group.job_id

    async def create_job_group_and_request_job(
        self,
        worker_names: list[str],
        *,
        name: str | None = None,
        payload: dict[str, Any] | None = None,
        timeout: float | None = None,
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> JobGroup:
        """Do what `request_job_group` does, and return the group, whose ``wait()`` waits for the outcome."""
        check_request(worker_names, payload, timeout, headers)
        _client(self).check_running()
        group = _client(self).new_group(
            worker_names,
            cancel_on_error=cancel_on_error,
            label=label,
            cancellable=cancellable,
            headers=headers,
            timeout=timeout,
        )
        return await _client(self).ask_without_context(group, name, payload)

    async def cancel_job_group(self, job_id: str, *, reason: str | None = None) -> None:
        """Cancel a job or a job group of this worker. A job that has ended by itself meanwhile is left alone.

        A context of the group raises its error; without one, no `on_job_completed` comes (J16).

        Args:
            job_id: The job.
            reason: Why, in words; the workers are told.
        """
        _client(self).cancel(job_id, reason)

    async def request_cancel_job_group(self, job_id: str, *, reason: str | None = None) -> bool:
        """Cancel a job or a job group on somebody else's behalf, if it was started with ``cancellable=True`` (N4).

        Args:
            job_id: The job.
            reason: Why, in words; the workers are told.

        Returns:
            Whether it was cancelled.
        """
        group = _client(self).groups.get(job_id)
        return group is not None and group.cancellable and _client(self).cancel(job_id, reason)

    async def request_job_update(self, job_id: str, worker_name: str) -> None:
        """Ask a worker how a job is getting on; it may answer with an update.

        Args:
            job_id: The job; if it has ended meanwhile, nobody is asked.
            worker_name: One of its workers.

        Raises:
            ValueError: The worker was not asked for this job.
        """
        await _client(self).request_update(job_id, worker_name)


def _client(owner: HasCore) -> JobClient:
    client: JobClient = core_of(owner).job_client
    return client
