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
            worker_name: The name of the worker; if it is not there yet, it is waited for.
            handler: Which of its `@job` handlers is to do it: the method, as in ``Counter.count``. Its annotations say
                what the payload and the answer are.
            params: All of the following but the headers, in one object, instead of them.
            name: Which of its `@job` handlers is to do it, by its name; without either, `on_job_request`.
            payload: What the handler needs: a mapping, or what the handler takes. A mapping is passed by reference, to
                be treated as read-only.
            timeout: Seconds for everything, the wait for the worker included, from when the context is entered or
                awaited; None for no limit.
            label: A title for people.
            cancellable: Whether `request_cancel_job_group` may cancel it.
            headers: What travels with the request, str by str, and comes back with all that belongs to the job.
            delay: How many seconds after the request has arrived the job is to begin, at the earliest; ``timeout`` goes
                on meanwhile. Of several attempts, the first is delayed.
            priority: Where a pool is asked, those of its jobs that wait with a higher one go first.
            max_buffered_events: How many chunks of a stream a worker may be ahead of the loop that reads them; then it
                waits.
            attempts: How often it is asked for at most, if it fails; more than one, for a job that is awaited. Each has
                an id of its own, and ``timeout`` covers all.
            backoff: How long is waited before each new attempt; None for `Backoff()`.
            retry_on: After which errors it is asked for again, though it may have run: statuses (`JobStatus`), classes
                of exceptions that the handler raises, or their names. An attempt that takes too long has raised a
                `TimeoutError`, which is an `OSError`. By default it is only asked for again where it has certainly not
                begun.
            attempt_timeout: Seconds for one attempt; None for no limit beside ``timeout``.

        Returns:
            The context. Entering it sends the request; leaving it waits for the answer.

        Raises:
            TypeError: An argument is of a wrong type; `PayloadError`, the payload is none that the handler takes.
            ValueError: The timeout is negative, there is less than one attempt, or what is for more is given with one.
            NotRunningError: The one that asks is not running yet, or no more; a `RuntimeError`.

        Guarantees: J6, J8, J14, J15, J17, J19, J20, N4, X8.
        """
        if params is not None:
            given = JobParams(name=name, payload=payload, timeout=timeout, label=label, cancellable=cancellable)
            name, payload, timeout, label, cancellable = unpacked(params, given)
        signature = None
        if handler is not None:
            name, signature = _named(handler, name)
            payload = signature.check_payload(payload)
        check_request((worker_name,), payload, timeout, headers)
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
            *worker_names: The names of the workers; those that are not there yet are waited for. A group of none
                completes at once. Without names, those that have a payload in ``payloads`` are asked.
            handler: Which of their `@job` handlers is to do it: the method, as in ``Counter.count``. Its annotations
                say what the payloads and the answers are.
            params: All of the following but the headers, in one object, instead of them.
            name: Which of their `@job` handlers is to do it, by its name; without either, `on_job_request`.
            payload: What the handlers need. Shared by reference, to be treated as read-only.
            payloads: Worker name to what that worker's handler needs, for those that get a payload of their own.
            timeout: Seconds for everything, the wait for the workers included, from when the context is entered or
                awaited; None for no limit.
            cancel_on_error: Whether the first answer that is not COMPLETED cancels the others and raises.
            label: A title for people.
            cancellable: Whether `request_cancel_job_group` may cancel it.
            headers: What travels with the request, str by str, and comes back with all that belongs to the job.
            delay: How many seconds after the request has arrived the job is to begin, at the earliest; ``timeout`` goes
                on meanwhile.
            priority: Where a pool is asked, those of its jobs that wait with a higher one go first.
            max_buffered_events: How many chunks of a stream a worker may be ahead of the loop that reads them; then it
                waits.

        Returns:
            The context. Entering it sends the requests; leaving it waits for all answers.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: A worker is named twice, or has a payload and is not asked, or the timeout is negative.
            NotRunningError: The one that asks is not running yet, or no more; a `RuntimeError`.

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
        check_request(worker_names, payload, timeout, headers)
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
    """The methods that ask for jobs, without a context as well: for code that goes on and is told by hooks."""

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
        """Ask one worker for a job and go on; `on_job_response` and `on_job_completed` tell how it went.

        Waits for the worker to be there and for the request to be sent. The arguments are those of `job`.

        Returns:
            The id of the job.

        Raises:
            JobError: The worker did not come within the timeout.
            TypeError: An argument has the wrong type.
            ValueError: The timeout is negative.
            NotRunningError: The one that asks is not running yet, or no more; a `RuntimeError`.

        Guarantees: J6, J14, J16.
        """
        if params is not None:
            given = JobParams(name=name, payload=payload, timeout=timeout, label=label, cancellable=cancellable)
            name, payload, timeout, label, cancellable = unpacked(params, given)
        check_request((worker_name,), payload, timeout, headers)
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
        """Ask several workers for a job and go on; `on_job_response` and `on_job_completed` tell how it went.

        Waits for the workers to be there and for the requests to be sent. The arguments are those of `job_group`.

        Returns:
            The id of the job, which the workers share.

        Raises:
            JobGroupError: Not all workers came within the timeout.
            TypeError: An argument has the wrong type.
            ValueError: A worker is named twice, or the timeout is negative.
            NotRunningError: The one that asks is not running yet, or no more; a `RuntimeError`.

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

        The arguments and errors are those of `request_job_group`, but that the workers come as a list.

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
        check_request(worker_names, payload, timeout, headers)
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
        """Cancel a job or a job group of this worker. A job that has ended by itself meanwhile is left alone.

        A context of the group raises its error; without a context, no `on_job_completed` comes. The answers of the
        workers that have been cancelled, CANCELLED as a rule, still reach `on_job_response`: each when the worker's
        handler has unwound.

        Args:
            job_id: The id of the job; nothing happens where there is none.
            reason: Why, in words; the workers are told.

        Guarantees: J16, J21.
        """
        client = _client(self)
        client.check_loop(job_id)
        client.cancel(job_id, reason)

    async def request_cancel_job_group(self, job_id: str, *, reason: str | None = None) -> bool:
        """Cancel a job or a job group on somebody else's behalf, if it was started with ``cancellable=True``.

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
            job_id: The id of the job; if it has ended meanwhile, nobody is asked.
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
