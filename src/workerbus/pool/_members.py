"""The members of a pool: how many there are to be, who they are, and how they come and go (S1, S2)."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from anyio import Lock

from workerbus._backoff import Backoff
from workerbus._values import JobStatus, Value, value
from workerbus.errors import FactoryError, NotRunningError, describe
from workerbus.messages import BusEndWorkerMessage
from workerbus.pool._server import Member, PoolJobs
from workerbus.supervision._state import SupervisedState
from workerbus.supervision._supervision import Supervision
from workerbus.worker._base import BaseWorker
from workerbus.worker._core import WorkerCore, core_of
from workerbus.worker._parent_host import ParentHost


@value
class MemberStatistics(Value):
    """A snapshot of one member of a pool, counting all workers that have had its name, one after the other.

    Args:
        ready: Whether it takes jobs now.
        running: How many jobs it has.
        answered: How many jobs of the pool it has answered, by status; statuses that did not occur are missing.
        restarts: How many times it was restarted.

    Guarantees: S2.
    """

    ready: bool
    running: int
    answered: dict[JobStatus, int]
    restarts: int


class Factory(Protocol):
    """Makes a member of a pool: a class of workers, or a function."""

    def __call__(self, name: str, /) -> BaseWorker:
        """Return a new worker of this name."""


class MemberSettings:
    """How the members of a pool are made and restarted.

    Args:
        factory: Makes one, of the name that it gets.
        max_restarts: How many restarts each may have within so many seconds.
        within: The seconds.
        backoff: How long is waited before each restart; None for `Backoff()`.
    """

    __slots__ = ("backoff", "factory", "max_restarts", "within")

    def __init__(self, factory: Factory, max_restarts: int, within: float, backoff: Backoff | None) -> None:
        self.factory: Factory = factory
        self.max_restarts: int = max_restarts
        self.within: float = within
        self.backoff: Backoff | None = backoff


class _Host(ParentHost):
    """A pool, as the host of its members."""

    def __init__(self, core: WorkerCore, given_up: Callable[[BaseException], None]) -> None:
        pool: BaseWorker = core.state.worker
        super().__init__(core.state, pool.add_workers, core.create_task)
        self._pool = pool
        self._hooks = core.state.hooks
        self._given_up = given_up

    async def add(self, worker: Any) -> None:
        """Add a member; the pool watches it only if somebody wants to hear of it."""
        watch = self._hooks.wants("on_worker_ready") or self._hooks.wants("on_worker_gone")
        await self._pool.add_workers(worker, watch=watch)

    def given_up(self, name: str, error: BaseException | None) -> None:
        """Remember that a member is not restarted any more."""
        super().given_up(name, error)
        if error is not None:
            self._given_up(error)


class _Supervision(Supervision):
    """What restarts members, and tells the pool of those that are not restarted any more."""

    members: "Members"

    def gone(self, worker: Any, error: BaseException | None) -> BaseException | None:
        """Decide what follows when a member has gone."""
        left = super().gone(worker, error)
        if not self.members.has_gone(worker):
            return None  # nobody counts on it any more; its failure is in the log, and in the answers to its jobs
        self.members.lost(None if self._closed else left)
        return left

    def has_left(self, name: str) -> bool:
        """Whether the last member of a name has left."""
        return self._children[name].left.is_set()

    def close(self) -> None:
        """Restart nobody any more."""
        super().close()
        self.members.lost(None)


class Members:
    """The members of one pool.

    Args:
        core: The pool's.
        jobs: The pool's jobs.
        settings: How members are made and restarted.
        size: How many there are to be.

    Attributes:
        size: How many there are to be.
        present: Name to the member of that name, or to the last one; those that are leaving are not among them.
        resized: Called when the pool has another size.
    """

    __slots__ = (
        "_answered", "_begun", "_changing", "_coming", "_core", "_host", "_jobs", "_settings", "_supervisions", "_why",
        "present", "resized", "size",
    )  # fmt: skip

    def __init__(self, core: WorkerCore, jobs: PoolJobs, settings: MemberSettings, size: int) -> None:
        self._core = core
        self._host = _Host(core, self.lost)
        self._jobs = jobs
        self._settings = settings
        self._begun = False
        self._answered: dict[str, dict[JobStatus, int]] = {}
        self._supervisions: dict[str, _Supervision] = {}
        self._changing = Lock()
        self._coming: list[str] = []  # they take no jobs yet, since all of them go again where one cannot be added
        self._why: BaseException | None = None  # the last one was given up for good
        self.present: dict[str, Member] = {}
        self.size: int = size
        self.resized: set[Callable[[], None]] = set()

    def late(self) -> None:
        """Return nothing: a pool is as late as its members are."""

    def lines(self) -> list[str]:
        """Return how many members take jobs, and how many jobs wait for one; nothing where all is calm."""
        balancer = self._jobs.balancer
        if len(balancer.members) == self.size and not balancer.waiting:
            return []
        take = f"members that take jobs: {len(balancer.members)} of {self.size}"
        return [f"{take}; jobs that wait for one: {balancer.waiting}"]

    async def begin(self) -> None:
        """Add the first members; they are started with the pool."""
        async with self._changing:
            if not self._begun:
                self._begun = True
                await self._add(self.size)

    async def resize(self, size: int) -> None:
        """Change how many members there are, when earlier changes are through."""
        async with self._changing:
            if not self._begun:
                self.size = size
                return
            if not self._core.state.takes_children:
                raise NotRunningError(f"pool {self._core.state.name!r} is ending: it stays as it is")
            self._forget_given_up()
            before = self.size
            self._be_of(size)
            missing = size - len(self.present)
            if missing > 0:
                try:
                    await self._add(missing)
                except BaseException:
                    self._be_of(before)
                    raise
            for member in self._dispensable(-missing):
                self._retire(member)

    def _be_of(self, size: int) -> None:
        self.size = size
        for tell in self.resized:
            tell()

    def _forget_given_up(self) -> None:
        for name, supervision in list(self._supervisions.items()):
            if supervision.states[name] == SupervisedState.FAILED.value:
                self._jobs.leave_out(self.present[name])
                self._forget(name)

    def _forget(self, name: str) -> None:
        self.present.pop(name, None)
        self._supervisions.pop(name, None)
        self._answered.pop(name, None)

    def _dispensable(self, count: int) -> list[Member]:
        # Those that are not there, then those with the fewest jobs, the last added first.
        load = self._jobs.balancer.load_of
        last_first = list(reversed(self.present.values()))
        return sorted(last_first, key=lambda member: (self._is_ready(member), load(member)))[: max(count, 0)]

    def _is_ready(self, member: Member) -> bool:
        return member in self._jobs.balancer.members and member.is_open()

    def _retire(self, member: Member) -> None:
        self._supervisions[member.name].release(member.name)
        self._forget(member.name)
        self._jobs.retire(member, partial(self._let_go, member))

    def _let_go(self, member: Member) -> None:
        if member.state.attached.is_set():
            self._end(member)
        else:  # it is just being added
            self._core.create_task(self._end_when_attached, (member,), f"end of {member.name}")

    async def _end_when_attached(self, member: Member) -> None:
        await member.state.attached.wait()
        self._end(member)

    def _end(self, member: Member) -> None:
        state = self._core.state
        if member.state.attach_error is None and not member.state.finished.is_set():
            reason = f"pool {state.name!r} got smaller"
            state.bus.post_here(BusEndWorkerMessage(reason, source=state.name, target=member.name))

    def has_gone(self, worker: BaseWorker) -> bool:
        """Note that a worker has gone; returns whether it was to stay, and was not let go."""
        state = core_of(worker).state
        member = self.present.get(state.name)
        if member is None or member.state is not state:
            return False
        self._jobs.leave_out(member)
        return True

    async def _add(self, count: int) -> None:
        state, settings = self._core.state, self._settings
        names: list[str] = []
        number = 1
        while len(names) < count:
            name = f"{state.name}/{number}"
            if name not in self.present and not state.has_child(name):
                names.append(name)
            number += 1
        try:
            supervision = _Supervision(
                self._host,
                [self._factory_of(name) for name in names],
                strategy="one_for_one",
                restart="always",
                max_restarts=settings.max_restarts,
                within=settings.within,
                backoff=settings.backoff,
            )
            supervision.members = self
            self._supervisions.update(dict.fromkeys(names, supervision))
            self._coming = names
            self._core.begin_to_supervise().keep(supervision)
            await supervision.begin()
        except BaseException:
            for name in names:
                self._forget(name)
            self.lost(None)
            raise
        finally:
            self._coming = []
        if not supervision.is_over:
            self._jobs.given_up = None
        for name in names:
            member = self.present.get(name)
            if member is not None and member.state.started.is_set() and member.is_open():
                self._jobs.join(member)

    def _factory_of(self, name: str) -> Callable[[], BaseWorker]:
        return lambda: self._made(name)

    def _made(self, name: str) -> BaseWorker:
        worker = self._settings.factory(name)
        pool = self._core.state.name
        if isinstance(worker, Coroutine):
            worker.close()
            raise FactoryError(name, f"the factory of pool {pool!r} is a plain function, and not an async one")
        if not isinstance(worker, BaseWorker):
            raise FactoryError(name, f"the factory of pool {pool!r} returns a worker, not {worker!r}")
        core = core_of(worker)
        if core.state.name != name:
            text = f"the factory of pool {pool!r} was called with {name!r} and has made a worker {core.state.name!r}"
            raise FactoryError(name, f"{text}: the name that it gets is that of the worker")
        if core.state.is_unstarted:  # else it is refused
            self._let_join(core)
        return worker

    def _let_join(self, core: WorkerCore) -> None:
        state, dispatch, jobs = core.state, core.dispatch, self._jobs

        def is_open() -> bool:
            return member.let_go is None and dispatch.refusal() is None

        def active_changed(active: bool) -> None:
            if earlier is not None:
                earlier(active)
            if not active:
                jobs.leave_out(member)
            elif state.started.is_set():
                join()

        def join() -> None:
            if is_open() and state.name not in self._coming:
                jobs.join(member)

        answered = self._answered.setdefault(state.name, {})
        member = self.present[state.name] = Member(state, core.job_server, is_open, answered)
        earlier, dispatch.active_changed = dispatch.active_changed, active_changed
        core.lifecycle.when_started = join

    def lost(self, error: BaseException | None) -> None:
        """Have all that waits answered, if no member is left and none will come.

        Args:
            error: Why a member has gone for good; None where it goes with others, since they could not be added, or
                since the pool ends.
        """
        self._why = self._why if error is None else error
        over = all(each.is_over for each in set(self._supervisions.values()))
        nobody = over and all(each.has_left(name) for name, each in self._supervisions.items())
        if not nobody or self._jobs.given_up is not None:
            return
        if not self._host.takes_workers:  # the pool ends
            self._jobs.give_up(JobStatus.CANCELLED, self._core.state.stopped_payload())
        elif self._why is not None:
            self._jobs.give_up(JobStatus.ERROR, self._nobody_left(self._why))

    def _nobody_left(self, error: BaseException) -> dict[str, Any]:
        cause = "" if error.__cause__ is None else f": {describe(error.__cause__)}"
        text = f"pool {self._core.state.name!r} has no members left: {error}{cause}"
        return {"error": text, "type": "WorkerFailed"}

    def statistics(self) -> dict[str, MemberStatistics]:
        """Return a snapshot of each member, by name."""
        load = self._jobs.balancer.load_of
        return {
            name: MemberStatistics(
                ready=self._is_ready(member),
                running=load(member),
                answered=dict(member.answered),
                restarts=self._supervisions[name].restarts.get(name, 0),
            )
            for name, member in self.present.items()
        }
