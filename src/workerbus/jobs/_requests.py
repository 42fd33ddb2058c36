"""The methods by which workers and runners ask for jobs (J6, J8, J12, J14-J16, J21, N4, R7, X8).

They check their arguments, and leave the rest to the client.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar, Unpack, overload

from workerbus._backoff import Backoff
from workerbus._slot import HasCore, core_of
from workerbus.errors import NotRunningError
from workerbus.jobs._attempts import RetryOn, retry_of
from workerbus.jobs._checks import asked, check_request
from workerbus.jobs._client import JobClient
from workerbus.jobs._context import Special
from workerbus.jobs._contexts import JobContext, JobGroupContext, JobStreamContext
from workerbus.jobs._group import JobGroup
from workerbus.jobs._handlers import name_of_handler
from workerbus.jobs._params import JobGroupOptions, JobGroupParams, JobOptions, JobParams, unpacked
from workerbus.jobs._typing import Handler, MessageHandler, Signature, StreamHandler, signature_of
from workerbus.jobs._window import WINDOW
from workerbus.messages import JobRequestOptions

P = TypeVar("P")
R = TypeVar("R")
Y = TypeVar("Y")


class JobContexts(HasCore):
    """The methods that ask for jobs as contexts: for code that waits for the answer."""

    @overload
    def job(
        self, worker_name: str, handler: MessageHandler[R], *, payload: Mapping[str, Any] | None = None,
        **options: Unpack[JobOptions],
    ) -> JobContext[R]: ...  # fmt: skip

    @overload
    def job(
        self, worker_name: str, handler: StreamHandler[P, Y], *, payload: P, **options: Unpack[JobOptions]
    ) -> JobStreamContext[Y]: ...

    @overload
    def job(
        self, worker_name: str, handler: Handler[P, R], *, payload: P, **options: Unpack[JobOptions]
    ) -> JobContext[R]: ...

    @overload
    def job(
        self, worker_name: str, *, params: JobParams | None = None, name: str | None = None,
        payload: Mapping[str, Any] | None = None, **options: Unpack[JobOptions],
    ) -> JobContext[dict[str, Any]]: ...  # fmt: skip

    def job(
        self,
        worker_name: str,
        handler: Any = None,
        *,
        params: JobParams | None = None,
        name: str | None = None,
        payload: Any = None,
        timeout: float | None = None,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
        delay: float | None = None,
        priority: int = 0,
        max_buffered_events: int = WINDOW,
        attempts: int = 1,
        backoff: Backoff | None = None,
        retry_on: RetryOn | Collection[RetryOn] | None = None,
        attempt_timeout: float | None = None,
    ) -> JobContext[Any]:
        """Ask one worker for a job, as a context or to be awaited.

        Args:
            worker_name: The name of the worker; if it is not ready yet, this waits for it.
            handler: The `@job` handler, as in ``Counter.count``. Its annotations are the types of the payload and the
                answer.
            params: The following arguments, except the headers, in one object; not together with them.
            name: The name of the `@job` handler; without handler and name, `on_job_request` gets the job.
            payload: What the handler needs: a mapping, or the type that it takes. A mapping is passed by reference:
                treat it as read-only.
            timeout: Seconds for everything, including the wait for the worker, from when the context is entered or
                awaited; None for no limit.
            label: A title for people.
            cancellable: Whether `request_cancel_job_group` may cancel it.
            headers: Text that travels with the request, a dict of str to str; every message of the job carries it.
            delay: How many seconds after the arrival of its request the job begins, at the earliest; ``timeout``
                includes this time. Only the first of several attempts is delayed.
            priority: For a pool: of the jobs that wait for a member, those with a higher priority go first.
            max_buffered_events: How many chunks of a stream a worker may be ahead of the loop that reads them before it
                waits.
            attempts: How often to ask at most, if the job fails; more than one only for a job that is awaited. Each
                attempt has its own id, and ``timeout`` covers all of them.
            backoff: How long to wait before each new attempt; None for `Backoff()`.
            retry_on: After which errors to ask again although the job may have run: statuses (`JobStatus`), classes of
                exceptions that the handler raises, or their names. An attempt that takes too long counts as a
                `TimeoutError`, which is an `OSError`. By default, the job is asked for again only if it has certainly
                not begun.
            attempt_timeout: Seconds for one attempt; None for no limit other than ``timeout``.

        Returns:
            The context. Entering it sends the request; leaving it waits for the answer.

        Raises:
            TypeError: An argument has the wrong type; a `PayloadError` if the payload does not fit the handler.
            ValueError: The timeout is negative, there is less than one attempt, or an argument for several attempts is
                given with one.
            NotRunningError: The requester is not running yet, or has ended; a `RuntimeError`.

        Guarantees: J6, J8, J14, J15, J17, J19, J20, N4, X8.
        """
        if params is not None:
            given = JobParams(name=name, payload=payload, timeout=timeout, label=label, cancellable=cancellable)
            name, payload, timeout, label, cancellable = unpacked(params, given)
        signature = None
        if handler is not None:
            name, signature = _named(handler, name)
            payload = signature.check_payload(payload)
        check_request((worker_name,), name, payload, timeout, headers)
        retry = special = None
        if attempts != 1 or backoff is not None or retry_on is not None or attempt_timeout is not None:
            retry = retry_of(attempts, backoff, retry_on, attempt_timeout)
        if (
            retry is not None
            or signature is not None
            or delay is not None
            or max_buffered_events is not WINDOW
            or priority != 0
        ):
            options = JobRequestOptions(max_buffered_events=max_buffered_events, delay=delay, priority=priority)
            special = Special(options, retry=retry, signature=signature)
        try:
            _client(self).check_running()
        except NotRunningError:
            if not _client(self).leaves_it_to_the_context():
                raise
        kind: type[JobContext[Any]] = JobStreamContext if signature is not None and signature.streams else JobContext
        return kind(
            _client(self),
            (worker_name,),
            name,
            payload,
            timeout,
            True,  # cancel_on_error
            label,
            cancellable,
            headers,
            True,  # single
            special,
        )

    @overload
    def job_group(
        self, *worker_names: str, handler: MessageHandler[R], payload: Mapping[str, Any] | None = None,
        payloads: Mapping[str, Mapping[str, Any] | None] | None = None, **options: Unpack[JobGroupOptions],
    ) -> JobGroupContext[R]: ...  # fmt: skip

    @overload
    def job_group(
        self, *worker_names: str, handler: StreamHandler[P, Any], payload: P | None = None,
        payloads: Mapping[str, P] | None = None, **options: Unpack[JobGroupOptions],
    ) -> JobGroupContext[dict[str, Any]]: ...  # fmt: skip

    @overload
    def job_group(
        self, *worker_names: str, handler: Handler[P, R], payload: P | None = None,
        payloads: Mapping[str, P] | None = None, **options: Unpack[JobGroupOptions],
    ) -> JobGroupContext[R]: ...  # fmt: skip

    @overload
    def job_group(
        self, *worker_names: str, params: JobGroupParams | None = None, name: str | None = None,
        payload: Mapping[str, Any] | None = None, payloads: Mapping[str, Mapping[str, Any] | None] | None = None,
        **options: Unpack[JobGroupOptions],
    ) -> JobGroupContext[dict[str, Any]]: ...  # fmt: skip

    def job_group(
        self,
        *worker_names: str,
        handler: Any = None,
        params: JobGroupParams | None = None,
        name: str | None = None,
        payload: Any = None,
        payloads: Any = None,
        timeout: float | None = None,
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
        delay: float | None = None,
        priority: int = 0,
        max_buffered_events: int = WINDOW,
    ) -> JobGroupContext[Any]:
        """Ask several workers for the same job at once, as a context.

        ::

            async with self.job_group(name="count", payloads={"left": {"text": …}, "right": {"text": …}}) as group:
                ...

        Args:
            *worker_names: The names of the workers; this waits for those that are not ready yet. An empty group
                completes at once. Without names, the workers that have a payload in ``payloads`` are asked.
            handler: The `@job` handler, as in ``Counter.count``. Its annotations are the types of the payloads and the
                answers.
            params: The following arguments, except the headers, in one object; not together with them.
            name: The name of the `@job` handler; without handler and name, `on_job_request` gets the job.
            payload: What the handlers need. It is shared by reference: treat it as read-only.
            payloads: Worker name to payload, for workers that get their own.
            timeout: Seconds for everything, including the wait for the workers, from when the context is entered or
                awaited; None for no limit.
            cancel_on_error: Whether the first answer that is not COMPLETED cancels the others and raises.
            label: A title for people.
            cancellable: Whether `request_cancel_job_group` may cancel it.
            headers: Text that travels with the request, a dict of str to str; every message of the job carries it.
            delay: How many seconds after the arrival of its request the job begins, at the earliest; ``timeout``
                includes this time.
            priority: For a pool: of the jobs that wait for a member, those with a higher priority go first.
            max_buffered_events: How many chunks of a stream a worker may be ahead of the loop that reads them before it
                waits.

        Returns:
            The context. Entering it sends the requests; leaving it waits for all answers.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: A worker is named twice, or has a payload but is not asked, or the timeout is negative.
            NotRunningError: The requester is not running yet, or has ended; a `RuntimeError`.

        Guarantees: J6, J8, J12, J14, J17, J19, J20, N4, X8.
        """
        if params is not None:
            given = JobGroupParams(
                name=name, payload=payload, timeout=timeout, label=label,
                cancellable=cancellable, cancel_on_error=cancel_on_error,
            )  # fmt: skip
            name, payload, timeout, label, cancellable, cancel_on_error = unpacked(params, given)
        signature = None
        if handler is not None:
            name, signature = _named(handler, name)
            payload, payloads = signature.check_payloads(payload, payloads)
        special = None
        if (
            payloads is not None
            or signature is not None
            or delay is not None
            or max_buffered_events is not WINDOW
            or priority != 0
        ):
            worker_names = asked(worker_names, payloads)
            options = JobRequestOptions(max_buffered_events=max_buffered_events, delay=delay, priority=priority)
            special = Special(options, payloads=payloads, signature=signature)
        check_request(worker_names, name, payload, timeout, headers)
        try:
            _client(self).check_running()
        except NotRunningError:
            if not _client(self).leaves_it_to_the_context():
                raise
        return JobGroupContext(
            _client(self),
            worker_names,
            name,
            payload,
            timeout,
            cancel_on_error,
            label,
            cancellable,
            headers,
            False,  # single
            special,
        )


class JobRequests(JobContexts):
    """The methods that ask for jobs, also without a context, for code that gets the outcome in hooks."""

    @property
    def job_groups(self) -> dict[str, JobGroup]:
        """The job groups that this worker has asked for and that are not settled, by job id."""
        return {job_id: group for job_id, group in _client(self).groups.items() if not group.is_done}

    async def request_job(
        self,
        worker_name: str,
        *,
        params: JobParams | None = None,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
        delay: float | None = None,
        priority: int = 0,
    ) -> str:
        """Ask one worker for a job and return; `on_job_response` and `on_job_completed` get the outcome.

        Waits until the worker is ready and the request is sent. The arguments are those of `job`.

        Returns:
            The id of the job.

        Raises:
            JobError: The worker did not come within the timeout.
            TypeError: An argument has the wrong type.
            ValueError: The timeout is negative.
            NotRunningError: The requester is not running yet, or has ended; a `RuntimeError`.

        Guarantees: J6, J14, J16.
        """
        if params is not None:
            given = JobParams(name=name, payload=payload, timeout=timeout, label=label, cancellable=cancellable)
            name, payload, timeout, label, cancellable = unpacked(params, given)
        check_request((worker_name,), name, payload, timeout, headers)
        _client(self).check_running()
        group = _client(self).new_group(
            (worker_name,),
            timeout=timeout,
            options=_options(delay, priority),
            label=label,
            cancellable=cancellable,
            headers=headers,
            single=True,
        )
        await _client(self).ask_without_context(group, name, payload)
        return group.job_id

    async def request_job_group(
        self,
        *worker_names: str,
        params: JobGroupParams | None = None,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        payloads: Mapping[str, Mapping[str, Any] | None] | None = None,
        timeout: float | None = None,
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
        delay: float | None = None,
        priority: int = 0,
    ) -> str:
        """Ask several workers for a job and return; `on_job_response` and `on_job_completed` get the outcome.

        Waits until the workers are ready and the requests are sent. The arguments are those of `job_group`.

        Returns:
            The id of the job, which the workers share.

        Raises:
            JobGroupError: Not all workers came within the timeout.
            TypeError: An argument has the wrong type.
            ValueError: A worker is named twice, or the timeout is negative.
            NotRunningError: The requester is not running yet, or has ended; a `RuntimeError`.

        Guarantees: J6, J12, J14, J16.
        """
        group = await self.create_job_group_and_request_job(
            list(worker_names),
            params=params,
            name=name,
            payload=payload,
            payloads=payloads,
            timeout=timeout,
            cancel_on_error=cancel_on_error,
            label=label,
            cancellable=cancellable,
            headers=headers,
            delay=delay,
            priority=priority,
        )
        return group.job_id

    async def create_job_group_and_request_job(
        self,
        worker_names: list[str],
        *,
        params: JobGroupParams | None = None,
        name: str | None = None,
        payload: Mapping[str, Any] | None = None,
        payloads: Mapping[str, Mapping[str, Any] | None] | None = None,
        timeout: float | None = None,
        cancel_on_error: bool = True,
        label: str | None = None,
        cancellable: bool = True,
        headers: Mapping[str, str] | None = None,
        delay: float | None = None,
        priority: int = 0,
    ) -> JobGroup:
        """Do what `request_job_group` does, and return the group.

        The arguments and errors are those of `request_job_group`, but the workers are given as a list.

        Returns:
            The group, whose ``wait()`` waits for the outcome.
        """
        if params is not None:
            given = JobGroupParams(
                name=name, payload=payload, timeout=timeout, label=label,
                cancellable=cancellable, cancel_on_error=cancel_on_error,
            )  # fmt: skip
            name, payload, timeout, label, cancellable, cancel_on_error = unpacked(params, given)
        worker_names = asked(worker_names, payloads)
        check_request(worker_names, name, payload, timeout, headers)
        _client(self).check_running()
        group = _client(self).new_group(
            worker_names,
            cancel_on_error=cancel_on_error,
            label=label,
            cancellable=cancellable,
            headers=headers,
            timeout=timeout,
            options=_options(delay, priority),
        )
        return await _client(self).ask_without_context(group, name, payload, payloads)

    async def cancel_job_group(self, job_id: str, *, reason: str | None = None) -> None:
        """Cancel a job or a job group of this worker. A job that has already ended is left alone.

        A context of the group raises its error; without a context, no `on_job_completed` comes. Answers of the
        cancelled workers, usually CANCELLED, still reach `on_job_response`, each when the worker's handler has unwound.

        Args:
            job_id: The id of the job; nothing happens if there is no such job.
            reason: Why, in words; the workers are told.

        Guarantees: J16, J21.
        """
        client = _client(self)
        client.check_loop(job_id)
        client.cancel(job_id, reason)

    async def request_cancel_job_group(self, job_id: str, *, reason: str | None = None) -> bool:
        """Cancel a job or a job group on behalf of somebody else, if it was started with ``cancellable=True``.

        Args:
            job_id: The id of the job.
            reason: Why, in words; the workers are told.

        Returns:
            Whether it was cancelled.

        Guarantees: N4.
        """
        client = _client(self)
        client.check_loop(job_id)
        group = client.groups.get(job_id)
        return group is not None and group.cancellable and client.cancel(job_id, reason)

    async def request_job_update(self, job_id: str, worker_name: str) -> None:
        """Ask a worker how a job is getting on; it may send an update.

        Args:
            job_id: The id of the job; if it has ended, nobody is asked.
            worker_name: The name of one of its workers.

        Raises:
            ValueError: The worker was not asked for this job.
        """
        await _client(self).request_update(job_id, worker_name)


def _options(delay: float | None, priority: int) -> JobRequestOptions | None:
    return None if delay is None and priority == 0 else JobRequestOptions(delay=delay, priority=priority)


def _client(owner: HasCore) -> JobClient:
    client: JobClient = core_of(owner).job_client
    return client


def _named(handler: Any, name: str | None) -> tuple[str, Signature]:
    """Return the name of the job that a handler does, and what it takes and gives.

    Raises:
        TypeError: It is not a handler, or does several jobs, or there is a name beside it.
        HandlerTypeError: See `signature_of`.
    """
    if name is not None:
        raise TypeError(f"pass either the handler or name={name!r}, not both")
    return name_of_handler(handler), signature_of(handler)
