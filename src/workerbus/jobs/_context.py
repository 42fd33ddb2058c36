"""What the contexts of jobs and of job groups have in common: how they are entered and left (J5-J8, J11, J14, L7).

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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from anyio import CancelScope
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import frozen

from workerbus._concurrency.left_open import LEFT_OPEN, Entry, close_left_open, leave_open
from workerbus._concurrency.lifetime import carry_deadline
from workerbus._concurrency.waiting import enumerated, waits
from workerbus._order import PROCESS
from workerbus._values import JobStatus
from workerbus.errors import NotRunningError, WrongTaskError
from workerbus.jobs._attempts import Retry
from workerbus.jobs._group import JobGroup
from workerbus.jobs._state import GroupState
from workerbus.jobs._typing import Signature
from workerbus.jobs._window import WINDOW, EventQueue
from workerbus.messages import JobRequestOptions


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

    def check_loop(self, job_id: str) -> None:
        """Raise `WrongLoopError` if there is such a group, and this is another thread or event loop than its own."""

    def new_group(
        self,
        worker_names: Sequence[str],
        cancel_on_error: bool,
        label: str | None,
        cancellable: bool,
        headers: Mapping[str, str] | None,
        timeout: float | None,
        options: JobRequestOptions | None,
        single: bool,
        *,
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

    def queue_of(self, group: JobGroup) -> EventQueue:
        """Return the events of a group that no loop has taken yet."""

    def has_enough(self, group: JobGroup) -> None:
        """Complete a group before all have answered; the others are told to stop."""

    async def leave(self, group: JobGroup, exc: BaseException | None) -> None:
        """Tell the workers that have not answered, wait for them, and forget the group."""

    def forget(self, group: JobGroup) -> None:
        """Take a group out of the table."""


READ: Final = JobRequestOptions(max_buffered_events=WINDOW)
"""What travels with the request of a context that has a body and nothing special: a loop there may read its stream."""


@frozen
class Special:
    """What only some contexts have.

    Args:
        options: What travels with the request, if the context has a body.
        payloads: Worker name to the payload of its own, where there are any.
        retry: When the job is asked for again; None for never.
        signature: What the annotations of its handler say; None where it was not asked for by its handler.
    """

    options: JobRequestOptions = READ
    payloads: Mapping[str, Mapping[str, Any] | None] | None = None
    retry: Retry | None = None
    signature: Signature | None = None

    @property
    def unread(self) -> JobRequestOptions | None:
        """What travels with the request of a context without a body, where no loop can read; None for nothing."""
        said = self.options
        if said.attempt == 1 and said.delay is None and said.priority == 0:
            return None
        return JobRequestOptions(said.attempt, delay=said.delay, priority=said.priority)


class Context:
    """What the two contexts have in common.

    Attributes:
        _single: Whether one worker is asked, as by `job`.
        _special: What only some contexts have; None for most.
        _group: The group, from the moment when it is asked for; a context is used once.
        _scope: The scope of the body; None before it is entered, and in the short form without a deadline.
        _collect: Whether events are kept for a loop; not in the short form, which has no body.
        _left_with: What the context was left with, where the error of the group takes its place.
        _entry: Where and when it was entered; None in the short form, which stays in one task.
    """

    def __init__(
        self,
        client: Requester,
        worker_names: Sequence[str],
        name: str | None,
        payload: Mapping[str, Any] | None,
        timeout: float | None,
        cancel_on_error: bool,
        label: str | None,
        cancellable: bool,
        headers: Mapping[str, str] | None,
        single: bool,
        special: Special | None = None,
    ) -> None:
        self._client = client
        self._worker_names = worker_names
        self._name = name
        self._payload = payload
        self._timeout = timeout
        self._cancel_on_error = cancel_on_error
        self._label = label
        self._cancellable = cancellable
        self._headers = headers
        self._single = single
        self._special = special
        self._group: JobGroup | None = None
        self._scope: CancelScope | None = None
        self._collect = True
        self._left_with: BaseException | None = None
        self._used = False
        self._entry: Entry | None = None

    _used: bool = True  # until `__init__` is through

    def __del__(self) -> None:
        if not self._used:
            what = f"job {self._name!r}" if self._name is not None else "a job"
            for_whom = enumerated([*map(repr, self._worker_names)]) or "nobody"
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
    def _signature(self) -> Signature | None:
        return None if self._special is None else self._special.signature

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
        options = READ if self._collect else None
        if self._special is not None:
            options = self._special_options(self._special)
        if self._group is not None:
            raise NotRunningError("a job context is used once: make another one for another job")
        if self._client.closed:
            self._client.check_running()  # which was done when the context was made, too
        self._group = self._client.new_group(
            self._worker_names,
            self._cancel_on_error,
            self._label,
            self._cancellable,
            self._headers,
            self._timeout,
            options,
            self._single,
            in_context=True,
        )
        return self._group

    def _special_options(self, special: Special) -> JobRequestOptions | None:
        if special.retry is not None:
            raise NotRunningError(
                "a job with several attempts has no body: await it, or enter the context of a job with one attempt"
            )
        return special.options if self._collect else special.unread

    async def _ask_and_wait(self) -> None:
        self._collect = False
        if self._timeout is not None or not self._client.never_waits:
            async with self:
                return
        # Without a body, a deadline, or a wait for room there is nothing that a scope would have to cancel: 1.12 times
        # as fast on asyncio, 1.25 on trio.
        try:
            group = self._begin()
        except NotRunningError:
            await checkpoint_if_cancelled()
            raise
        try:
            await self._client.ask(
                group, self._name, self._payload, None if self._special is None else self._special.payloads
            )
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
        try:
            group = self._begin()
        except NotRunningError:
            await checkpoint_if_cancelled()
            raise
        if self._collect:
            group.collects = True
        # A group of none is complete at once, however little time it has.
        deadline = group.deadline if self._worker_names else math.inf
        scope = self._scope = group.scope = self._client.new_scope(deadline=deadline)
        scope.__enter__()
        if self._collect:
            self._entry = self._client.running_task(), PROCESS.next_number()
        try:
            await self._client.ask(
                group, self._name, self._payload, None if self._special is None else self._special.payloads
            )
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
        entry = self._entry
        if entry is not None:
            if self._client.running_task() != entry[0]:
                await self._leave_elsewhere(entry)
            if LEFT_OPEN:
                await close_left_open(entry[1])
        if exc is None:
            try:
                queue = self._entered.queue
                if queue is not None:
                    queue.closes()
                await self._outcome()
            except BaseException as caught:  # noqa: BLE001 - raised again by _leave
                exc, raised_here = caught, True
        if await self._leave(exc, raised_here=raised_here):
            raise self._error() from None
        return False

    async def _leave_elsewhere(self, entry: Entry) -> None:
        # The scope is the other task's. It is not cancelled, and its deadline does nothing any more.
        group, scope = self._entered, self._scope
        assert scope is not None
        self._client.check_loop(group.job_id)

        async def close() -> None:
            scope.__exit__(None, None, None)

        what = f"job {group.job_id}" if group.single else f"job group {group.job_id}"
        error = WrongTaskError(f"{what} of {', '.join(map(repr, group.worker_names))}")
        scope.deadline, group.scope = math.inf, None
        leave_open(entry, close)
        await self._client.leave(group, error)
        raise error

    async def _outcome(self) -> None:
        group = self._entered
        while group.state is GroupState.OPEN:
            await group.changed().wait()
            if group.state is GroupState.OPEN:
                await checkpoint_if_cancelled()  # asyncio cancels no task that a busy stream wakes in each pass
        if group.state is not GroupState.COMPLETED:
            await checkpoint_if_cancelled()  # lets a cancellation from outside win over our own

    waits(_outcome, lambda its: its["group"].in_words())

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
        if exc is None and not group.pending:
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
