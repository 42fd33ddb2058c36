"""The two contexts: ``async with worker.job(…)`` and ``async with worker.job_group(…)`` (J7, J11, J12, J15, J17-J20).

How they are entered and left is `_context`'s subject; here is what users see of a job meanwhile, and afterwards.
"""

from collections import deque
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anyio.lowlevel import checkpoint_if_cancelled
from attrs import evolve

from workerbus._concurrency.waiting import waits
from workerbus._values import JobStatus
from workerbus.errors import NotRunningError
from workerbus.jobs._attempts import Retry, in_attempts
from workerbus.jobs._context import Context, Special
from workerbus.jobs._events import JobAnswer, JobEvent, JobGroupEvent
from workerbus.jobs._iterators import Answers, Events, Reports, Stream
from workerbus.jobs._state import GroupState
from workerbus.messages import JobRequestOptions

R_co = TypeVar("R_co", covariant=True)
Y_co = TypeVar("Y_co", covariant=True)


def _dict(data: dict[str, Any] | None) -> dict[str, Any]:
    return {} if data is None else data  # not by its truth, which may be of its own


class ReportingContext(Context):
    """A context that can be asked how far it is."""

    @property
    def waits_for(self) -> list[str]:
        """The workers that have not answered, in the order of asking."""
        group = self._entered
        return [worker for worker in group.worker_names if worker in group.pending]

    def progress(self) -> Reports:
        """Iterate over how far it is: at once, then whenever something has happened, until the outcome is settled.

        ::

            async with self.job_group(*names, name="scan") as group:
                async for now in group.progress():
                    print(f"{now.answered} of {now.total}, {now.failed} failed; waiting for {group.waits_for}")

        Other loops still get all events and answers, and several may run at once. A slow reader misses reports in
        between: each says how far the job is when it is read.

        Returns:
            An iterator over `JobProgress`. Its ``now()`` returns one without waiting, also afterwards.

        Raises:
            NotRunningError: The context has not been entered; a `RuntimeError`.

        Guarantees: J20.
        """
        return Reports(self._entered, self._client.queue_of(self._entered))


class JobContext(ReportingContext, Coroutine[Any, Any, R_co], Generic[R_co]):
    """A job of one worker. Its type parameter is the type of the answer.

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
        """The worker's answer: its payload, or the typed value if the job was asked for by its typed handler.

        Raises:
            NotRunningError: The answer has not come yet; a `RuntimeError`.
        """
        group = self._entered
        answer: Any = group.responses.get(group.worker_names[0])
        if answer is None:
            raise NotRunningError(f"job {group.job_id} has no answer yet: it is there when the context has been left")
        if self._special is None:
            return answer  # type: ignore[no-any-return]  # of the type that the overloads of `job` say
        signature = self._special.signature
        if signature is not None and group.statuses.get(group.worker_names[0]) is JobStatus.COMPLETED:
            answer = signature.made_answer(answer)
        return answer  # type: ignore[no-any-return]  # of the type that the overloads of `job` say

    def __aiter__(self) -> Events[JobEvent]:
        """Iterate over updates and stream events, in the order in which they were sent, until the job ends.

        Guarantees: J7.
        """
        return Events(self._entered, self._client.queue_of(self._entered), self._name, JobEvent)

    def stream(self) -> AsyncIterator[Any]:
        """Iterate over the chunks of the stream alone, in the order in which they were sent, until the job ends.

        ::

            async with self.job("finder", name="search", payload=query) as job:
                async for hit in job.stream():
                    print(hit)

        Updates are left out. A handler that is ``max_buffered_events`` ahead waits.

        Guarantees: J7, J18, J19.
        """
        signature = self._signature
        if signature is None or signature.chunk is None:
            return Stream(self.__aiter__(), lambda event: _dict(event.data))
        return Stream(self.__aiter__(), lambda event: signature.made_chunk(_dict(event.data)))

    def __await__(self) -> Generator[Any, None, R_co]:
        """Ask, wait, and return the answer.

        Guarantees: J15.
        """
        return self._answer().__await__()

    @property
    def attempts(self) -> int:
        """How often the job was asked for so far."""
        return self._attempt

    _attempt: int = 1

    async def _answer(self) -> R_co:
        if self._special is not None and self._special.retry is not None:
            return await self._answer_in_attempts(self._special, self._special.retry)
        await self._ask_and_wait()
        return self.response

    async def _answer_in_attempts(self, special: Special, retry: Retry) -> R_co:
        async def ask(attempt: int, seconds: float | None) -> R_co:
            self._attempt = attempt
            said = special.options
            options = JobRequestOptions(attempt, delay=said.delay if attempt == 1 else None, priority=said.priority)
            once: JobContext[R_co] = JobContext(
                self._client,
                self._worker_names,
                self._name,
                self._payload,
                seconds,
                self._cancel_on_error,
                self._label,
                self._cancellable,
                self._headers,
                self._single,
                evolve(special, options=options, retry=None),
            )
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
    """A job of one worker whose handler is an async generator; its type parameter is the type that it yields.

    Guarantees: J17, J18.
    """

    if TYPE_CHECKING:

        def stream(self) -> AsyncIterator[Y_co]:
            """Iterate over what the handler yields."""


class JobGroupContext(ReportingContext, Coroutine[Any, Any, dict[str, R_co]], Generic[R_co]):
    """A job of several workers at once. Its type parameter is the type of each answer.

    ::

        async with self.job_group("w1", "w2", payload={"n": 3}) as group:
            async for event in group:
                print(event.worker_name, event.data)
        print(group.responses)

    Guarantees: J5, J6, J7, J8, J11, J12.
    """

    @property
    def responses(self) -> dict[str, R_co]:
        """Worker name to answer, for the workers that have answered; `statuses` says how they ended.

        An answer is its payload, or the typed value if it is COMPLETED and the job was asked for by its typed handler.

        Guarantees: J11, J17.
        """
        group = self._entered
        made: dict[str, Any] = group.in_order(group.responses)
        signature = self._signature
        if signature is not None and signature.answer is not None:
            for worker in group.completed:
                made[worker] = signature.made_answer(made[worker])
        return made

    def _answer_of(self, worker: str) -> JobAnswer:
        answer = self._entered.answer_of(worker)
        signature = self._signature
        if signature is None or answer.status is not JobStatus.COMPLETED:
            return answer
        return JobAnswer(worker, answer.status, signature.made_answer(answer.response))

    async def first(self) -> JobAnswer:
        """Wait for the first worker that completes the job, and tell the others to stop; see `quorum`.

        ::

            fastest = await self.job_group("north", "south", name="look up", payload=query).first()

        Returns:
            Its answer.

        Raises:
            JobGroupError: No worker completed it.

        Guarantees: J20.
        """
        return (await self.quorum(1))[0]

    async def quorum(self, n: int) -> list[JobAnswer]:
        """Wait until ``n`` workers have completed the job, and tell the others to stop.

        In the body of ``async with``, the others stop while the body goes on, and leaving the context waits for them.
        On a context that has not been entered, this enters and leaves it: the others have stopped when it returns.

        An answer that is not COMPLETED ends the group as usual. With ``cancel_on_error=False`` it only counts as
        missing.

        Args:
            n: How many, at least 1 and at most as many as were asked.

        Returns:
            Their answers, in the order in which they came.

        Raises:
            JobGroupError: So many can no longer complete it.
            ValueError: ``n`` is less than 1, or more than were asked; a `TypeError` if it is not a whole number.

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

    waits(_quorum, lambda its: its["group"].in_words())

    def as_completed(self) -> AsyncIterator[JobAnswer]:
        """Iterate over the answers, in the order in which they come, until all workers have answered.

        ::

            async with self.job_group(*names, name="price", cancel_on_error=False) as group:
                async for answer in group.as_completed():
                    print(answer.worker_name, answer.status, answer.response)

        With ``cancel_on_error=False``, answers that are not COMPLETED are among them; otherwise they end the group as
        usual. A second loop gets what the first has left.

        Raises:
            NotRunningError: The context has not been entered; a `RuntimeError`.

        Guarantees: J20.
        """
        group = self._entered
        if group.arrivals is None:
            group.arrivals = deque(group.responses)
        return Answers(group, group.arrivals, self._answer_of)

    def __aiter__(self) -> Events[JobGroupEvent]:
        """Iterate over updates and stream events, in the order in which they were sent, until all have answered.

        Guarantees: J7.
        """
        return Events(self._entered, self._client.queue_of(self._entered), self._name, JobGroupEvent)

    def stream(self) -> AsyncIterator[tuple[str, Any]]:
        """Iterate over the chunks of the streams alone: pairs of the worker's name and what it has sent.

        Updates are left out. A handler that is ``max_buffered_events`` ahead waits.

        Guarantees: J7, J18, J19.
        """
        signature = self._signature
        if signature is None or signature.chunk is None:
            return Stream(self.__aiter__(), lambda event: (event.worker_name, _dict(event.data)))
        return Stream(self.__aiter__(), lambda event: (event.worker_name, signature.made_chunk(_dict(event.data))))

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
