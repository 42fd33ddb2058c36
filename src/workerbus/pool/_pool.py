"""`WorkerPool`: one name, and several workers behind it (S2)."""

from collections.abc import AsyncIterable, Collection, Iterable, Mapping
from typing import Any, TypeVar, Unpack, overload

from workerbus._backoff import Backoff
from workerbus._methods import takes
from workerbus._order import PROCESS
from workerbus._values import name_of, value
from workerbus.jobs._attempts import RetryOn
from workerbus.jobs._contexts import JobContext, JobStreamContext
from workerbus.jobs._params import JobOptions, JobParams
from workerbus.jobs._requests import JobContexts
from workerbus.jobs._typing import Handler, MessageHandler, StreamHandler
from workerbus.pool._map import PoolMap
from workerbus.pool._members import Factory, Members, MemberSettings, MemberStatistics
from workerbus.pool._server import PoolJobs
from workerbus.supervision._factories import check_arguments
from workerbus.worker._base import BaseWorker
from workerbus.worker._core import core_of, known_class
from workerbus.worker._pooled import PoolCounts, pool_counts
from workerbus.worker._types import WorkerStatistics

P = TypeVar("P")
R = TypeVar("R")
Y = TypeVar("Y")


@value
class PoolStatistics(WorkerStatistics):
    """A snapshot of a pool's counts.

    Args:
        active_jobs: How many jobs the pool was asked for and has not answered.
        job_groups: How many job groups it has asked for that are not over.
        ignored: How many messages it has ignored; see `WorkerStatistics`.
        failed_hooks: How many times a hook of its own has raised.
        size: How many members it is to have.
        waiting: How many jobs wait for a member.
        running: How many jobs members have.
        members: Each member's name to its counts.

    Guarantees: S2.
    """

    size: int
    waiting: int
    running: int
    members: dict[str, MemberStatistics]


class WorkerPool(BaseWorker):
    """One name with several workers behind it, which share its jobs.

    ::

        pool = WorkerPool("fetchers", Fetcher, size=20)
        await runner.add_workers(pool)
        page = await pool.job(Fetcher.fetch, payload=Fetch(url))

    Ask for a job by the pool's name; the member with the fewest jobs does it. When all members are busy, jobs wait:
    the highest ``priority`` goes first, and equal ones in the order of arrival.

    The members are children of the pool, called ``fetchers/1``, ``fetchers/2`` and so on. A member that fails or ends
    is restarted: its jobs are answered ERROR, and waiting jobs are not affected. If a job may be repeated, say so:
    ``attempts=3, retry_on=JobStatus.ERROR``.

    A subclass may have its own `@job` handlers; jobs with their names are done by the pool itself, not by a member.

    Args:
        name: The pool's name.
        factory: Makes a member: a class of workers, or a function; called with the member's name.
        size: How many members there are.
        concurrency: How many jobs a member may have at once.
        max_waiting: How many jobs may wait for a member; the next one is answered FAILED, with ``"type": "PoolFull"``.
            None for any number.
        max_restarts: How many restarts a member may have ``within`` that many seconds. Beyond that it is given up, and
            its failure is reported like that of any child. When all members are given up, jobs are answered ERROR.
        within: The seconds for ``max_restarts``, on the monotonic clock.
        backoff: How long to wait before each restart; None for `Backoff()`.
        active: Whether the pool is active from its start on.
        shared: Whether the pool shares its name with pools in other processes. They then act as one pool: a job goes to
            the least busy one. A str tells this one apart; with True, the id of the process does. Its own name is the
            shared one, followed by ``@`` and that str.

    Attributes:
        shared_name: The name that it shares; None if it shares none.

    Raises:
        TypeError: ``factory`` cannot be called with a name, or an argument has the wrong type.
        ValueError: A number is out of range.

    Guarantees: S1, S2.
    """

    def __init__(
        self,
        name: str | None,
        factory: Factory,
        *,
        size: int,
        concurrency: int = 1,
        max_waiting: int | None = 10_000,
        max_restarts: int = 3,
        within: float = 5.0,
        backoff: Backoff | None = None,
        active: bool = True,
        shared: bool | str = False,
    ) -> None:
        if shared and name is None:
            raise ValueError("a pool that shares its name needs one: WorkerPool(None, shared=True) has none to share")
        name = None if name is None else name_of("a pool's name", name)
        own_name = name if not shared else f"{name}@{PROCESS.id if shared is True else shared}"
        super().__init__(own_name, active=active)
        self.shared_name: str | None = name if shared else None
        if not callable(factory) or not takes(factory, name):
            raise TypeError(
                f"the factory of a pool is called with the name of a member, and returns a worker; not {factory!r}"
            )
        check_arguments([factory], "one_for_one", "always", max_restarts, within, backoff)
        core = core_of(self)
        jobs = PoolJobs(
            core.state,
            core.dispatch.find_handler,
            core.dispatch.refusal,
            core.lifecycle.fail,
            concurrency=_whole("concurrency", concurrency, 1),
            max_waiting=float("inf") if max_waiting is None else _whole("max_waiting", max_waiting, 0),
        )
        jobs.own_jobs = frozenset(known_class(type(self)).job_handlers)
        core.job_server = core.state.job_server = jobs
        core.lifecycle.jobs_first = True
        settings = MemberSettings(factory, max_restarts, within, backoff)
        core.extension = core.in_words = Members(core, jobs, settings, _whole("size", size, 1))
        if self.shared_name is not None:
            core.state.shares = self.shared_name, size * concurrency
            jobs.share(self.shared_name, core.presence.announce_load)
            core.extension.resized.add(self._places_changed)
            core.state.going = self._places_changed
            core.dispatch.active_changed = lambda _active: self._places_changed()

    # --- what it is

    @property
    def size(self) -> int:
        """How many members the pool is to have."""
        return _members(self).size

    @property
    def waiting(self) -> int:
        """How many jobs wait for a member."""
        return _jobs(self).balancer.waiting

    def statistics(self) -> PoolStatistics:
        """Return a snapshot of the pool's counts, and of each member's.

        Guarantees: S2.
        """
        counts, balancer = super().statistics(), _jobs(self).balancer
        return PoolStatistics(
            counts.active_jobs,
            counts.job_groups,
            counts.ignored,
            counts.failed_hooks,
            self.size,
            balancer.waiting,
            len(balancer.holders),
            _members(self).statistics(),
        )

    # --- its life

    async def start(self) -> None:
        """Start the pool and its members. It is announced as ready when they are attached.

        Guarantees: S2, W2.
        """
        await _members(self).begin()
        await super().start()

    async def resize(self, size: int) -> None:
        """Change the number of members.

        To grow, members are added; the call returns when all are attached, and they get jobs then. To shrink, those
        with the fewest jobs get no more, finish what they have, and end; the call does not wait for that. Members that
        were given up are replaced.

        Concurrent calls are carried out one after the other. A call that fails or is cancelled adds no member and
        leaves `size` unchanged.

        Args:
            size: The new number of members, at least 1.

        Raises:
            TypeError: It is not a whole number.
            ValueError: It is less than 1.
            NotRunningError: The pool is ending; a `RuntimeError`.
            Exception: The exception that the factory raised.

        Guarantees: S2.
        """
        core_of(self).state.check_loop()
        await _members(self).resize(_whole("size", size, 1))

    def _places_changed(self) -> None:
        core, jobs = core_of(self), _jobs(self)
        assert self.shared_name is not None
        takes_jobs = core.dispatch.refusal() is None
        core.state.shares = self.shared_name, self.size * jobs.balancer.concurrency if takes_jobs else 0
        core.presence.announce_load(len(jobs.jobs))

    def _places_everywhere(self) -> int:
        state = core_of(self).state
        if self.shared_name is None or not state.is_connected:
            return 0
        return int(state.registry.shared_pools.places(self.shared_name))

    # --- asking it for jobs

    @overload
    def job(
        self, worker_name: MessageHandler[R], /, *, payload: Mapping[str, Any] | None = None,
        **options: Unpack[JobOptions],
    ) -> JobContext[R]: ...  # fmt: skip

    @overload
    def job(
        self, worker_name: StreamHandler[P, Y], /, *, payload: P, **options: Unpack[JobOptions]
    ) -> JobStreamContext[Y]: ...

    @overload
    def job(self, worker_name: Handler[P, R], /, *, payload: P, **options: Unpack[JobOptions]) -> JobContext[R]: ...

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
        self, worker_name: str | None = None, *, params: JobParams | None = None, name: str | None = None,
        payload: Mapping[str, Any] | None = None, **options: Unpack[JobOptions],
    ) -> JobContext[dict[str, Any]]: ...  # fmt: skip

    def job(self, worker_name: Any = None, handler: Any = None, **options: Any) -> JobContext[Any]:
        """Ask the pool for a job, like `job` of any worker, but without naming the worker.

        ::

            page = await pool.job(Fetcher.fetch, payload=Fetch(url))
            page = await pool.job(name="fetch", payload={"url": url})

        The pool's runner asks for it, so the pool need not have started yet.

        Args:
            worker_name: The handler, or nothing. With the name of another worker, that worker is asked.
            handler: The handler, if another worker is asked.
            **options: As for `job` of any worker.

        Raises:
            NotRunningError: The pool has no runner yet, or the runner has ended; a `RuntimeError`.
            TypeError: An argument has the wrong type.
            ValueError: An argument has a wrong value.

        Guarantees: J6, S2.
        """
        context: JobContext[Any]
        if isinstance(worker_name, str):
            context = super().job(worker_name, handler, **options)
            return context
        if worker_name is not None and handler is not None:
            raise TypeError(f"job() of a pool takes one handler, not {worker_name!r} and {handler!r}")
        asker = self.worker_runner
        assert isinstance(asker, JobContexts)
        context = asker.job(self.shared_name or self.name, worker_name or handler, **options)
        return context

    @overload
    def map(
        self, handler: MessageHandler[R], payloads: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]], *,
        limit: int | None = None, ordered: bool = False, cancel_on_error: bool = True, timeout: float | None = None,
        label: str | None = None, headers: Mapping[str, str] | None = None, attempts: int = 1,
        backoff: Backoff | None = None, retry_on: RetryOn | Collection[RetryOn] | None = None,
        attempt_timeout: float | None = None,
    ) -> PoolMap[Mapping[str, Any], R]: ...  # fmt: skip

    @overload
    def map(
        self, handler: Handler[P, R], payloads: Iterable[P] | AsyncIterable[P], *,
        limit: int | None = None, ordered: bool = False, cancel_on_error: bool = True, timeout: float | None = None,
        label: str | None = None, headers: Mapping[str, str] | None = None, attempts: int = 1,
        backoff: Backoff | None = None, retry_on: RetryOn | Collection[RetryOn] | None = None,
        attempt_timeout: float | None = None,
    ) -> PoolMap[P, R]: ...  # fmt: skip

    @overload
    def map(
        self, handler: str, payloads: Iterable[P] | AsyncIterable[P], *,
        limit: int | None = None, ordered: bool = False, cancel_on_error: bool = True, timeout: float | None = None,
        label: str | None = None, headers: Mapping[str, str] | None = None, attempts: int = 1,
        backoff: Backoff | None = None, retry_on: RetryOn | Collection[RetryOn] | None = None,
        attempt_timeout: float | None = None,
    ) -> PoolMap[P, dict[str, Any]]: ...  # fmt: skip

    def map(
        self,
        handler: Any,
        payloads: Any,
        *,
        limit: int | None = None,
        ordered: bool = False,
        cancel_on_error: bool = True,
        **options: Any,
    ) -> PoolMap[Any, Any]:
        """Ask for a job for each payload, and iterate over the answers as they come.

        ::

            async with pool.map(Fetcher.fetch, map(Fetch, urls)) as answers:
                async for answer in answers:
                    print(answer.payload.url, answer.response.title)

        A payload is taken from the iterable when there is room for its job. There is room for as many jobs as the
        members may have at once, and a job takes up room until its answer has been read. So the iterable may be
        endless. Leaving the context cancels the jobs under way and waits until they have stopped, and closes an async
        generator of payloads.

        Args:
            handler: The `@job` handler: the method, as in ``Fetcher.fetch``, or its name.
            payloads: An iterable, or an async one.
            limit: How many jobs may be under way at once; by default, as many as the members may have.
            ordered: Whether the answers come in the order of the payloads.
            cancel_on_error: Whether the first job that does not complete cancels the others and raises its error where
                the answers are read. Otherwise its answer has the error.
            **options: ``timeout``, for each job, the wait for a member included; ``label``, ``headers``, ``attempts``,
                ``backoff``, ``retry_on``, ``attempt_timeout``: as for `job`.

        Returns:
            A context that gives an iterator over `PoolAnswer`.

        Raises:
            TypeError: ``payloads`` cannot be iterated, or an argument has the wrong type.
            ValueError: ``limit`` is less than 1.

        Guarantees: S2.
        """
        if limit is not None:
            _whole("limit", limit, 1)
        if isinstance(handler, str):
            options, handler = {**options, "name": handler}, None
        pool, members, balancer = self, _members(self), _jobs(self).balancer
        return PoolMap(
            lambda payload: pool.job(handler, payload=payload, **options),
            payloads,
            capacity=lambda: limit or max(self._places_everywhere(), members.size * balancer.concurrency),
            resized=members.resized,
            ordered=ordered,
            cancel_on_error=cancel_on_error,
            title=f"map of pool {self.name!r}",
            about_it=core_of(self).state.about,
        )


def _jobs(pool: WorkerPool) -> PoolJobs:
    jobs = core_of(pool).job_server
    assert isinstance(jobs, PoolJobs)
    return jobs


def _members(pool: WorkerPool) -> Members:
    members: Members = core_of(pool).extension
    return members


def _whole(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} is at least {least}, not {value}")
    return value


@pool_counts.register
def _(pool: WorkerPool) -> PoolCounts | None:
    return pool.statistics()
