"""The two contexts: ``async with worker.job(…)`` and ``async with worker.job_group(…)`` (J5-J8, J11, J12, J14, J15).

A context owns a cancel scope, entered in ``__aenter__`` and left in ``__aexit__``, in which the body runs. Whatever
happens, it is left in this order: the workers are told, their answers awaited (bounded), the group forgotten, the scope
closed. Only then it is decided what to raise. Three things may have ended the body, and several of them at once:

1. An exception of the body's own goes through as it is, also where the scope was cancelled.
2. A cancellation from outside goes through: the scope catches none but its own, and that only where no other is due.
3. A cancellation by the scope itself, since a worker erred, time was up, or the group was cancelled, becomes the error
   of the group.
"""

import math
import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast

from anyio import CancelScope
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from workerbus._concurrency.lifetime import carry_deadline
from workerbus._values import BATCH, JobStatus
from workerbus.errors import NotRunningError, WrongTaskError
from workerbus.jobs._attempts import Retry, in_attempts
from workerbus.jobs._events import JobAnswer, JobEvent, JobGroupEvent
from workerbus.jobs._group import JobGroup
from workerbus.jobs._state import GroupState
from workerbus.jobs._typing import Signature
from workerbus.jobs._window import WINDOW

E = TypeVar("E")
R_co = TypeVar("R_co", covariant=True)
Y_co = TypeVar("Y_co", covariant=True)


class Requester(Protocol):
    """What a context needs of a `JobClient`."""

    @property
    def closed(self) -> bool:
        """Whether it asks for nothing more."""

    @property
    def never_waits(self) -> bool:
        """Whether a request never waits to be sent."""

    @property
    def new_scope(self) -> type[CancelScope]:
        """The class of cancel scopes to use."""

    @property
    def running_task(self) -> Callable[[], Any]:
        """Returns the running task."""

    @property
    def about(self) -> Mapping[str, str]:
        """The attributes of log records about who asks."""

    def check_running(self) -> None:
        """Raise `NotRunningError` unless it can be asked for jobs."""

    def new_group(
        self,
        worker_names: Sequence[str],
        *,
        cancel_on_error: bool,
        label: str | None,
        cancellable: bool,
        headers: Mapping[str, str] | None,
        timeout: float | None,
        delay: float | None,
        single: bool,
        in_context: bool,
    ) -> JobGroup:
        """Put a new group into the table; its time starts now."""

    async def ask(
        self,
        group: JobGroup,
        job_name: str | None,
        payload: Mapping[str, Any] | None,
        payloads: Mapping[str, Mapping[str, Any] | None] | None,
    ) -> None:
        """Wait for the workers and send them their requests."""

    def open_window(self, group: JobGroup, size: int) -> None:
        """Let each worker of a group be so many chunks ahead of whoever reads."""

    def close_window(self, group: JobGroup) -> None:
        """Let no worker of a group wait any more for somebody who reads."""

    def has_enough(self, group: JobGroup) -> None:
        """Complete a group before all have answered; the others are told to stop."""

    async def leave(self, group: JobGroup, exc: BaseException | None) -> None:
        """Tell the workers that have not answered, wait for them, and forget the group."""

    def forget(self, group: JobGroup) -> None:
        """Take a group out of the table."""


class _Events(Generic[E]):
    """The events of a group as an iterator; all loops over one group share its queue."""

    __slots__ = ("_group", "_reads", "_shape", "_single", "_taken", "name")

    def __init__(self, group: JobGroup, name: str | None, shape: Callable[..., E]) -> None:
        self._group = group
        self.name: str | None = name
        self._shape = shape
        self._single = group.single
        self._taken = 0
        window = group.reader_window
        self._reads = window is not None
        if window is not None:
            window.begins()

    def __aiter__(self) -> Self:
        return self

    def _end(self) -> None:
        if self._reads and self._group.window is not None:
            self._reads = False
            self._group.window.ends()

    def __del__(self) -> None:
        if self._reads and self._group.state is GroupState.OPEN:
            self._end()  # the loop was left before its end: whoever waits for it is to go on

    async def __anext__(self) -> E:
        group = self._group
        self._taken += 1
        if not self._taken % BATCH:
            await checkpoint()
        while not group.events:
            if group.state is not GroupState.OPEN:
                if group.state is not GroupState.COMPLETED:
                    await checkpoint_if_cancelled()  # the body is being cancelled: no line after the loop is to run
                self._end()
                raise StopAsyncIteration
            await group.change()
        kind, worker, data = group.events.popleft()
        if kind == JobEvent.STREAM_DATA and group.window is not None:
            group.window.takes(worker)
        return self._shape(kind, data) if self._single else self._shape(kind, worker, data)


class _Stream(Generic[E]):
    """The chunks of a stream as an iterator, out of all events."""

    __slots__ = ("_events", "_shape")

    def __init__(self, events: _Events[Any], shape: Callable[[Any], E]) -> None:
        self._events = events
        self._shape = shape

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        while True:
            event = await self._events.__anext__()
            if event.type == JobEvent.STREAM_DATA:
                return self._shape(event)


class _Answers:
    """The answers of a group as an iterator; all loops over one group share them."""

    __slots__ = ("_answer_of", "_arrivals", "_group", "_taken")

    def __init__(self, group: JobGroup, arrivals: deque[str], answer_of: Callable[[str], JobAnswer]) -> None:
        self._group = group
        self._answer_of = answer_of
        self._arrivals = arrivals
        self._taken = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobAnswer:
        group = self._group
        self._taken += 1
        if not self._taken % BATCH:
            await checkpoint()
        while True:
            if group.state not in (GroupState.OPEN, GroupState.COMPLETED):
                await checkpoint_if_cancelled()  # the body is being cancelled: no line of it is to run
            if self._arrivals:
                return self._answer_of(self._arrivals.popleft())
            if group.state is not GroupState.OPEN:
                raise StopAsyncIteration
            await group.change()


class _Context:
    """What the two contexts have in common.

    Attributes:
        _group: The group, from the moment when it is asked for; a context is used once.
        _scope: The scope of the body; None before it is entered, and in the short form without a deadline.
        _collect: Whether events are kept for a loop; not in the short form, which has no body.
        _left_with: What the context was left with, where the error of the group takes its place.
        _task: The task that has entered it; None in the short form, which stays in one.
    """

    def __init__(
        self,
        client: Requester,
        worker_names: Sequence[str],
        *,
        name: str | None,
        payload: Mapping[str, Any] | None,
        payloads: Mapping[str, Mapping[str, Any] | None] | None = None,
        timeout: float | None,
        cancel_on_error: bool,
        label: str | None,
        cancellable: bool,
        headers: Mapping[str, str] | None,
        single: bool,
        max_buffered_events: int = WINDOW,
        delay: float | None = None,
        retry: Retry | None = None,
        signature: Signature | None = None,
    ) -> None:
        self._client = client
        self._worker_names = worker_names
        self._name = name
        self._payload = payload
        self._payloads = payloads
        self._timeout = timeout
        self._cancel_on_error = cancel_on_error
        self._label = label
        self._cancellable = cancellable
        self._headers = headers
        self._single = single
        self._signature = signature
        self._delay = delay
        self._window = max_buffered_events
        self._retry = retry
        self._attempt = 1
        self._group: JobGroup | None = None
        self._scope: CancelScope | None = None
        self._collect = True
        self._left_with: BaseException | None = None
        self._used = False
        self._task: Any = None

    _used: bool = True  # until `__init__` is through

    def __del__(self) -> None:
        if not self._used:
            what = f"job {self._name!r}" if self._name is not None else "a job"
            for_whom = ", ".join(map(repr, self._worker_names)) or "nobody"
            text = f"{what} for {for_whom} was never asked for: its context was neither awaited nor entered"
            warnings.warn(text, RuntimeWarning, stacklevel=2, source=self)

    # A context is a coroutine, too, for all that takes those alone: tasks of either backend, and `from_thread.run`.

    _steps: Coroutine[Any, Any, Any] | None = None

    async def _answer(self) -> Any:
        raise NotImplementedError

    def _running(self) -> Coroutine[Any, Any, Any]:
        if self._steps is None:
            self._used = True
            self._steps = self._answer()
        return self._steps

    def send(self, value: Any, /) -> Any:
        """Go on, as a coroutine does; for those who run coroutines."""
        return self._running().send(value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None, /) -> Any:
        """Raise an exception where it waits, as a coroutine does; for those who run coroutines."""
        if value is None and traceback is None:
            return self._running().throw(kind)
        return self._running().throw(kind, value, traceback)

    def close(self) -> None:
        """End it where it waits, as a coroutine does; for those who run coroutines."""
        self._used = True
        if self._steps is not None:
            self._steps.close()

    @property
    def _entered(self) -> JobGroup:
        if self._group is None:
            raise NotRunningError("this job has not been asked for yet: enter it with 'async with', or await it")
        return self._group

    @property
    def job_id(self) -> str:
        """The id that all messages of this job carry."""
        return self._entered.job_id

    @property
    def statuses(self) -> dict[str, JobStatus]:
        """Worker name to how its job ended, of the workers that have answered.

        Guarantees: J11.
        """
        return self._entered.in_order(self._entered.statuses)

    def _begin(self) -> JobGroup:
        self._used = True
        if self._retry is not None:
            raise NotRunningError(
                "a job with several attempts has no body: await it, or enter the context of a job with one attempt"
            )
        if self._group is not None:
            raise NotRunningError("a job context is used once: make another one for another job")
        if self._client.closed:
            self._client.check_running()  # which was done when the context was made, too
        self._group = self._client.new_group(
            self._worker_names,
            cancel_on_error=self._cancel_on_error,
            label=self._label,
            cancellable=self._cancellable,
            headers=self._headers,
            timeout=self._timeout,
            delay=self._delay,
            single=self._single,
            in_context=True,
        )
        if self._attempt != 1:
            self._group.attempt = self._attempt
        return self._group

    async def _ask_and_wait(self) -> None:
        self._collect = False
        if self._timeout is not None or not self._client.never_waits:
            async with self:
                return
        # Without a body, a deadline, or a wait for room there is nothing that a scope would have to cancel: 1.12 times
        # as fast on asyncio, 1.25 on trio.
        group = self._begin()
        try:
            await self._client.ask(group, self._name, self._payload, self._payloads)
            await self._outcome()
        except BaseException as exc:
            await self._client.leave(group, exc)
            raise
        if group.state is GroupState.COMPLETED:
            self._client.forget(group)
        else:
            self._left_with = group.error()
            await self._client.leave(group, self._left_with)
            await checkpoint_if_cancelled()  # one from outside that came meanwhile wins, as it does in a scope
            raise self._error()  # made again, for the answers that have come meanwhile

    async def __aenter__(self) -> Self:
        """Wait for the workers and send the requests.

        Raises:
            JobError: Time was up, or a worker answered with an error, before the body could begin; `JobGroupError`
                for a group.
            NotRunningError: The one that asks is not running, or the context was used before; a `RuntimeError`.

        Guarantees: J6, J8, J14.
        """
        group = self._begin()
        if self._collect:
            group.collects = True
            self._client.open_window(group, self._window)
        # A group of none is complete at once, however little time it has.
        deadline = group.deadline if self._worker_names else math.inf
        scope = self._scope = group.scope = self._client.new_scope(deadline=deadline)
        scope.__enter__()
        if self._collect:
            self._task = self._client.running_task()
        try:
            await self._client.ask(group, self._name, self._payload, self._payloads)
            if group.state is not GroupState.OPEN and group.state is not GroupState.COMPLETED:
                await checkpoint_if_cancelled()  # its scope was cancelled: the body is not to begin
        except BaseException as exc:  # noqa: BLE001 - raised again by _leave, unless it is the scope's
            await self._leave(exc, raised_here=True)
            raise self._error() from None
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Wait for the answers; after any error, tell the workers to stop and wait until they have.

        Raises:
            JobError: The job did not complete; `JobGroupError` for a group. A timeout is a `TimeoutError`, too.
            WrongTaskError: It was entered in another task; a `RuntimeError`. The workers were told to stop.

        Guarantees: J5, J8, L7.
        """
        raised_here = False
        if self._collect and self._client.running_task() != self._task:
            await self._leave_elsewhere()
        if exc is None:
            try:
                if self._collect:
                    self._client.close_window(self._entered)
                await self._outcome()
            except BaseException as caught:  # noqa: BLE001 - raised again by _leave
                exc, raised_here = caught, True
        if await self._leave(exc, raised_here=raised_here):
            raise self._error() from None
        return False

    async def _leave_elsewhere(self) -> None:
        # The scope is the other task's. It is not cancelled, and its deadline does nothing any more.
        group, scope = self._entered, self._scope
        assert scope is not None
        what = f"job {group.job_id}" if group.single else f"job group {group.job_id}"
        error = WrongTaskError(f"{what} of {', '.join(map(repr, group.worker_names))}")
        scope.deadline, group.scope = math.inf, None
        await self._client.leave(group, error)
        raise error

    async def _outcome(self) -> None:
        group = self._entered
        while group.state is GroupState.OPEN:
            await group.changed().wait()
        if group.state is not GroupState.COMPLETED:
            await checkpoint_if_cancelled()  # lets a cancellation from outside win over our own

    async def _leave(self, exc: BaseException | None, *, raised_here: bool) -> bool:
        """Leave the group and the scope; returns whether the group's own error is to be raised."""
        # What is raised is decided by the scope, as the last step:
        #
        # 1. Waiting for the workers may itself be cut short, natively or by an exception that ends programs: what came
        #    last is what the scope is left with.
        # 2. The scope catches it: it was its own cancellation, and no outer one is due. The group's error takes its
        #    place, and inherits the deadline of its clean-up.
        # 3. The scope lets it through. Raised here, nobody else raises it; raised by the body, `__aexit__` returns
        #    False, and Python goes on with it.
        group, scope = self._entered, self._scope
        assert scope is not None
        if exc is None and not group.waits:
            assert group.state is GroupState.COMPLETED  # all have answered: nobody to tell, nothing to wait for
            self._client.forget(group)
            scope.__exit__(None, None, None)
            return False
        try:
            await self._client.leave(group, exc)
        except BaseException as late:  # noqa: BLE001 - raised again below
            exc, raised_here = late, True
        if exc is None:  # there were enough answers, and the others have unwound
            scope.__exit__(None, None, None)
            return False
        if scope.__exit__(type(exc), exc, exc.__traceback__):
            self._left_with = exc
            return True
        if raised_here:
            raise exc
        return False

    def _error(self) -> Exception:
        error = self._entered.error()
        assert error is not None, "only a group that did not complete is left so"
        carry_deadline(self._left_with, error)
        return error


class JobContext(_Context, Coroutine[Any, Any, R_co], Generic[R_co]):
    """A job of one worker. Its type says what the answer is.

    ``async with`` it to see its events while it runs::

        async with self.job("worker", payload={"n": 3}) as job:
            async for event in job:
                print(event.data)
        print(job.response)

    or await it for the answer alone: ``response = await self.job("worker")``.

    Guarantees: J5, J6, J7, J8, J15, J17.
    """

    @property
    def response(self) -> R_co:
        """The worker's answer: its payload, or what that stands for if the job was asked for by its typed handler.

        Raises:
            NotRunningError: The answer has not come yet; a `RuntimeError`.
        """
        group = self._entered
        answer = group.responses.get(group.worker_names[0])
        if answer is None:
            raise NotRunningError(f"job {group.job_id} has no answer yet: it is there when the context has been left")
        made: Any = answer
        if self._signature is not None and group.statuses.get(group.worker_names[0]) is JobStatus.COMPLETED:
            made = self._signature.made_answer(answer)
        return cast("R_co", made)

    def __aiter__(self) -> _Events[JobEvent]:
        """Iterate over updates and stream events, in the order in which they were sent, until the job ends.

        Guarantees: J7.
        """
        return _Events(self._entered, self._name, JobEvent)

    def stream(self) -> AsyncIterator[Any]:
        """Iterate over the chunks of the stream alone, in the order in which they were sent, until the job ends.

        ::

            async with self.job("finder", name="search", payload=query) as job:
                async for hit in job.stream():
                    print(hit)

        Updates that come meanwhile are left out. A handler that is ``max_buffered_events`` ahead waits.

        Guarantees: J7, J18, J19.
        """
        signature = self._signature
        if signature is None or signature.chunk is None:
            return _Stream(self.__aiter__(), lambda event: event.data or {})
        return _Stream(self.__aiter__(), lambda event: signature.made_chunk(event.data or {}))

    def __await__(self) -> Generator[Any, None, R_co]:
        """Ask, wait, and return the answer.

        Guarantees: J15.
        """
        return self._answer().__await__()

    @property
    def attempts(self) -> int:
        """How often the job was asked for so far."""
        return self._attempt

    async def _answer(self) -> R_co:
        if self._retry is not None:
            return await self._answer_in_attempts(self._retry)
        await self._ask_and_wait()
        return self.response

    async def _answer_in_attempts(self, retry: Retry) -> R_co:
        async def ask(attempt: int, seconds: float | None) -> R_co:
            self._attempt = attempt
            once: JobContext[R_co] = JobContext(
                self._client,
                self._worker_names,
                name=self._name,
                payload=self._payload,
                timeout=seconds,
                cancel_on_error=True,
                label=self._label,
                cancellable=self._cancellable,
                headers=self._headers,
                single=True,
                delay=self._delay if attempt == 1 else None,
                signature=self._signature,
            )
            once._attempt = attempt
            try:
                return await once
            finally:
                self._group = once._group

        if self._used:
            raise NotRunningError("a job context is used once: make another one for another job")
        self._used = True
        what = "a job" if self._name is None else f"job {self._name!r}"
        title = f"{what} at {self._worker_names[0]!r}"
        return await in_attempts(retry, ask, title=title, timeout=self._timeout, about_it=self._client.about)


class JobStreamContext(JobContext[dict[str, Any]], Generic[Y_co]):
    """A job of one worker whose handler is an async generator; its type says what that yields.

    Guarantees: J17, J18.
    """

    if TYPE_CHECKING:

        def stream(self) -> AsyncIterator[Y_co]:
            """Iterate over what the handler yields."""


class JobGroupContext(_Context, Coroutine[Any, Any, dict[str, R_co]], Generic[R_co]):
    """A job of several workers at once. Its type says what each answer is.

    ::

        async with self.job_group("w1", "w2", payload={"n": 3}) as group:
            async for event in group:
                print(event.worker_name, event.data)
        print(group.responses)

    Guarantees: J5, J6, J7, J8, J11, J12.
    """

    @property
    def responses(self) -> dict[str, R_co]:
        """Worker name to its answer, of the workers that have answered; `statuses` says how they ended.

        An answer is its payload; or what that stands for, where it is COMPLETED and the job was asked for by its typed
        handler.

        Guarantees: J11, J17.
        """
        group = self._entered
        made: dict[str, Any] = group.in_order(group.responses)
        if self._signature is not None and self._signature.answer is not None:
            for worker in group.completed:
                made[worker] = self._signature.made_answer(made[worker])
        return made

    def _answer_of(self, worker: str) -> JobAnswer:
        answer = self._entered.answer_of(worker)
        if self._signature is None or answer.status is not JobStatus.COMPLETED:
            return answer
        return JobAnswer(worker, answer.status, self._signature.made_answer(answer.response))

    async def first(self) -> JobAnswer:
        """Wait for the first worker that completes the job, and tell the others to stop; see `quorum`.

        ::

            fastest = await self.job_group("north", "south", name="look up", payload=query).first()

        Returns:
            Its answer.

        Raises:
            JobGroupError: None has completed it.

        Guarantees: J20.
        """
        return (await self.quorum(1))[0]

    async def quorum(self, n: int) -> list[JobAnswer]:
        """Wait until so many workers have completed the job, and tell the others to stop.

        In the body of ``async with`` the others unwind while it goes on, and leaving the context waits for them. On a
        context that has not been entered, it is all in one: the others have unwound when this returns.

        An answer that is not COMPLETED ends the group, as ever, unless it has ``cancel_on_error=False``. Then it only
        counts as one that is missing.

        Args:
            n: How many, at least 1 and at most as many as were asked.

        Returns:
            Their answers, in the order in which they came.

        Raises:
            JobGroupError: So many cannot complete it any more.
            ValueError: ``n`` is less than 1, or more than were asked; a `TypeError` if it is no whole number.

        Guarantees: J20.
        """
        _check_quorum(n, len(self._worker_names))
        if self._group is None:
            self._collect = False
            async with self:
                return await self._quorum(n)
        return await self._quorum(n)

    async def _quorum(self, n: int) -> list[JobAnswer]:
        group = self._entered
        while len(done := group.completed) < n:
            if group.state is not GroupState.OPEN:
                await checkpoint_if_cancelled()  # the body is being cancelled, where the group has not completed
            if len(done) + len(group.pending) < n or group.state is not GroupState.OPEN:
                raise group.too_few(n)
            await group.change()
        if group.pending:
            self._client.has_enough(group)
        return [self._answer_of(worker) for worker in done[:n]]

    def as_completed(self) -> AsyncIterator[JobAnswer]:
        """Iterate over the answers, in the order in which they come, until all workers have answered.

        ::

            async with self.job_group(*names, name="price", cancel_on_error=False) as group:
                async for answer in group.as_completed():
                    print(answer.worker_name, answer.status, answer.response)

        Answers that are not COMPLETED are among them with ``cancel_on_error=False``; else they end the group, as ever.
        A second loop gets what the first has left.

        Raises:
            NotRunningError: The context has not been entered; a `RuntimeError`.

        Guarantees: J20.
        """
        group = self._entered
        if group.arrivals is None:
            group.arrivals = deque(group.responses)
        return _Answers(group, group.arrivals, self._answer_of)

    def __aiter__(self) -> _Events[JobGroupEvent]:
        """Iterate over updates and stream events, in the order in which they were sent, until all have answered.

        Guarantees: J7.
        """
        return _Events(self._entered, self._name, JobGroupEvent)

    def stream(self) -> AsyncIterator[tuple[str, Any]]:
        """Iterate over the chunks of the streams alone: the worker's name, and what it has sent.

        Updates that come meanwhile are left out. A handler that is ``max_buffered_events`` ahead waits.

        Guarantees: J7, J18, J19.
        """
        signature = self._signature
        if signature is None or signature.chunk is None:
            return _Stream(self.__aiter__(), lambda event: (event.worker_name, event.data or {}))
        return _Stream(self.__aiter__(), lambda event: (event.worker_name, signature.made_chunk(event.data or {})))

    def __await__(self) -> Generator[Any, None, dict[str, R_co]]:
        """Ask, wait, and return worker name to its answer."""
        return self._answer().__await__()

    async def _answer(self) -> dict[str, R_co]:
        await self._ask_and_wait()
        return self.responses


def _check_quorum(n: object, asked: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"a quorum is a whole number of workers, not {n!r}")
    if not 1 <= n <= asked:
        raise ValueError(f"a quorum of {n} cannot be had of a group of {asked}: it is at least 1, and at most all")
