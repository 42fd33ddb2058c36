"""Which workers are ready, here and under other runners (G1-G4, N4, R9).

A registry belongs to a runner. It knows names and runners, not worker objects, and it sends nothing. The table changes
synchronously, in one step (`enter`, `remove`); those who watch (`_watchers`) are awaited after that. Whatever comes or
goes is looked up by its name: nothing goes through all of a table.
"""

from collections.abc import Callable, Collection

from workerbus._claims import Claims
from workerbus._concurrency.waiting import Wait, waits
from workerbus._failed import FailedWorkers
from workerbus._neighbourhood import Neighbourhood, forget_runner
from workerbus._order import new_incarnation
from workerbus._shared_pools import SharedPools
from workerbus._values import WorkerGoneData, WorkerReadyData, check_worker_name
from workerbus._watchers import Watcher, Watchers, add_watcher
from workerbus.errors import near_names


class WorkerRegistry(Claims, Watchers):
    """All workers that are ready and known to a runner: its own, and those of other runners.

    Args:
        runner_name: The name of the runner that the registry belongs to.

    Attributes:
        on_arrival: Called with the `WorkerReadyData` of a worker whose name is new; set by the runner, like the others.
        on_departure: Called with that of a worker that was unregistered, and with the reason in words, if it is known.
        check_loop: Raises `WrongLoopError` in a thread or event loop other than that of the runner's bus.
        neighbourhood: What it shares with the other runners on a bus of this process; None if there is no such bus.
        explain: Returns, in words, what a task waits for that waits for a worker of this runner; None if the runner
            does not know.
        on_restart_over: Called with the name of a worker of this runner whose restart is over or given up.
        on_conflict: Called with that of another runner's worker whose name is claimed here too, or by a third runner.
        shared_pools: The pools that share names, here and under other runners.

    Guarantees: G1, G2, G3, G4, N4, R9.
    """

    def __init__(self, runner_name: str) -> None:
        Claims.__init__(self)
        Watchers.__init__(self, runner_name)
        self._incarnation: str | None = None
        self._starting: set[str] = set()
        self._restarting: dict[str, str] = {}
        # Those that have begun to go and are to be restarted, by name and runner: they are found no more.
        self._leaving: dict[tuple[str, str], WorkerReadyData] = {}
        self._failed = FailedWorkers()
        self.shared_pools: SharedPools = SharedPools(runner_name)
        self.on_arrival: Callable[[WorkerReadyData], None] | None = None
        self.on_departure: Callable[[WorkerReadyData, str | None], None] | None = None
        self.on_restart_over: Callable[[str], None] | None = None
        self.explain: Callable[[str], Wait | None] | None = None
        self.on_conflict: Callable[[WorkerReadyData], None] | None = None
        self.neighbourhood: Neighbourhood[WorkerRegistry] | None = None
        self.check_loop: Callable[[str], None] = _anywhere

    @property
    def runner_name(self) -> str:
        """The name of the runner that this registry belongs to."""
        return self._runner_name

    @property
    def incarnation(self) -> str:
        """The id of this life of the runner, which its announcements carry. It is unique.

        Guarantees: L8.
        """
        if self._incarnation is None:  # when it is first needed: a fork before that would give it to two runners
            self._incarnation = new_incarnation()
        return self._incarnation

    def is_ready(self, worker_name: str) -> bool:
        """Whether a worker is ready: one that is still starting takes jobs, and is not."""
        return worker_name in self and worker_name not in self._starting

    @property
    def local_workers(self) -> list[str]:
        """The names of the workers of this runner."""
        return list(self._local)

    @property
    def remote_workers(self) -> list[str]:
        """The names of the workers of other runners."""
        names = list(self._remote)
        if self.neighbourhood is not None:
            names += [
                name
                for name, data in self.neighbourhood.workers.items()
                if data.runner != self._runner_name and name not in self._remote
            ]
        return names

    def get(self, worker_name: str) -> WorkerReadyData | None:
        """Look up a worker. If several runners have one of that name, this runner's own takes precedence.

        Args:
            worker_name: The name to look up.

        Returns:
            The worker's name and runner; None if no worker of that name is ready.

        Guarantees: G4.
        """
        data = self._local.get(worker_name)
        if data is None and self.neighbourhood is not None:
            data = self.neighbourhood.workers.get(worker_name)
        return data or self._remote.get(worker_name) or self.shared_pools.get(worker_name)

    def choose(self, worker_name: str) -> WorkerReadyData | None:
        """Choose the pool that gets the next job for a shared name, and note that it is asked.

        Args:
            worker_name: The name that they share.

        Returns:
            The pool that is the least busy; None if none of that name is ready.

        Guarantees: S2.
        """
        return self.shared_pools.choose(worker_name)

    def note_load(self, worker_name: str, places: int, taken: int) -> None:
        """Note how busy a pool with a shared name is.

        Args:
            worker_name: Its own name.
            places: How many jobs it does at once.
            taken: How many jobs it has.
        """
        data = self.get(worker_name)
        if data is not None:
            for registry in self._sharing() if data.runner == self._runner_name else [self]:
                registry.shared_pools.note_load(data, places, taken)

    def __contains__(self, worker_name: object) -> bool:
        """Whether a worker of this name is ready, here or under another runner: ``name in registry``.

        Guarantees: N4.
        """
        near = self.neighbourhood is not None and worker_name in self.neighbourhood.workers
        known = near or worker_name in self._local or worker_name in self._remote
        return known or worker_name in self.shared_pools

    async def register(self, worker_data: WorkerReadyData) -> bool:
        """Register a worker, and await those who watch for it.

        A name that another runner has is reported through ``on_conflict``, whichever of the two came first.

        Args:
            worker_data: The worker's name and runner.

        Returns:
            Whether the name was new.

        Guarantees: G1, G4.
        """
        watchers = self.enter(worker_data)
        if watchers is None:
            return False
        await self.tell(watchers, worker_data)
        return True

    def enter(self, worker_data: WorkerReadyData) -> Collection[Watcher] | None:
        """Register a worker, as `register` does, in one step.

        Args:
            worker_data: The worker's name and runner.

        Returns:
            The functions that watch for it, for `tell`; None if the name was not new.
        """
        name = worker_data.worker_name
        new = name not in self
        if worker_data.runner == self._runner_name:
            others = self._claim_here(worker_data)
            if self.neighbourhood is not None:
                self.neighbourhood.enter(self._local[name])  # the one that will leave, where this is not the first
        else:
            others = self._claim(worker_data)
            left = self._leaving.pop((name, worker_data.runner), None) if self._leaving else None
            if left is not None and self.on_departure is not None:  # that it has gone comes late, or never
                self.on_departure(left, None)
        if worker_data.pool is not None:
            mine = worker_data.runner == self._runner_name
            self._note_pool(self._local[name] if mine else self._first(name, worker_data.runner))
        if name in self._starting and worker_data.runner == self._runner_name:
            self._starting.discard(name)
        elif not new:
            if self.on_conflict is not None:
                for other in others:
                    self.on_conflict(other)
            return None
        else:
            self._found(name)
        if self.on_arrival is not None:
            self.on_arrival(worker_data)
        return list(self._watchers.get(name, {}).values())

    def _note_pool(self, data: WorkerReadyData) -> None:
        assert data.pool is not None
        self.shared_pools.add(data)
        self._let_go_on(data.pool)
        self.tell_later(list(self._watchers.get(data.pool, {}).values()), data)

    def begin(self, worker_data: WorkerReadyData) -> bool:
        """Let a worker of this runner be found while it starts; `enter` then tells that it is ready.

        Args:
            worker_data: The worker's name and runner.

        Returns:
            Whether that was possible: a name that is known, under another runner, has to be entered.
        """
        name = worker_data.worker_name
        if name in self:
            return False
        self._local[name] = worker_data
        self._starting.add(name)
        self._found(name)
        return True

    def _found(self, name: str) -> None:
        self.failed.forget(name)
        self.restarting.pop(name, None)
        self._let_go_on(name)

    async def unregister(self, worker_name: str, runner: str | None = None) -> bool:
        """Forget a worker, and await those who watch for its departure.

        Args:
            worker_name: The name of the worker that has gone.
            runner: The name of the runner that had it; by default this registry's own.

        Returns:
            Whether the worker was known.

        Guarantees: G2.
        """
        data = self.remove(worker_name, runner)
        if data is None:
            return False
        if worker_name in self._starting and data.runner == self._runner_name:
            self._starting.discard(worker_name)
            return True  # nobody has been told that it was ready
        await self.tell(self.departure_watchers(worker_name), data, departed=True)
        return True

    def remove(self, worker_name: str, runner: str | None = None, error: str | None = None) -> WorkerReadyData | None:
        """Forget a worker, as `unregister` does, in one step.

        Args:
            worker_name: The name of the worker that has gone.
            runner: The name of the runner that had it; by default this registry's own.
            error: Why it has gone, in words, where that is known.

        Returns:
            The worker, for `tell`; None if it was not known.
        """
        runner = runner or self._runner_name
        data = self._take(worker_name, runner)
        if data is None and self._leaving:
            data = self._leaving.pop((worker_name, runner), None)
        mine = runner == self._runner_name and worker_name not in self._starting
        if data is not None and mine and self.neighbourhood is not None:
            self.neighbourhood.remove(data)
        if data is not None and self.on_departure is not None:
            self.on_departure(data, error)
        return data

    def withdraw(self, worker_name: str, runner: str | None = None) -> bool:
        """Let a worker be found no more that begins to go, before it is removed.

        Args:
            worker_name: The name of the worker.
            runner: The name of the runner that has it; by default this registry's own.

        Returns:
            Whether it could be found.
        """
        runner = runner or self._runner_name
        data = self._take(worker_name, runner)
        if data is None:
            return False
        if self.neighbourhood is not None and runner == self._runner_name:
            self.neighbourhood.withdraw(data)
        self._leaving[worker_name, runner] = data
        return True

    def _take(self, name: str, runner: str) -> WorkerReadyData | None:
        data = self._local.pop(name, None) if runner == self._runner_name else self._give_up(name, runner)
        if data is not None and data.pool is not None:
            self.shared_pools.remove(data)
        return data

    # --- what other runners of this process have

    @property
    def wanted(self) -> set[str]:
        """The names of the workers that somebody waits or watches for."""
        return self._waiting.keys() | self._watchers.keys()

    def neighbour_came(self, data: WorkerReadyData) -> None:
        """Let those who wait for a worker of another runner go on, and have those told who watch for it."""
        name = data.worker_name
        if data.pool is not None:
            self._note_pool(data)
        if name in self._remote and self.on_conflict is not None:
            self.on_conflict(data)
        elif name in self._waiting or name in self._watchers:
            self._let_go_on(name)
            self.tell_later(list(self._watchers.get(name, {}).values()), data)

    def neighbour_left(self, data: WorkerReadyData) -> None:
        """Have those told who watch for the departure of a worker of another runner."""
        if self.on_departure is not None:
            self.on_departure(data, None)
        if data.worker_name in self._departure_watchers:
            self.tell_later(self.departure_watchers(data.worker_name), data, departed=True)

    async def watch(self, worker_name: str, handler: Watcher) -> None:
        """Call a function whenever a worker registers, and now if it is registered.

        A second call for the same worker and function does nothing.

        Args:
            worker_name: The name of the worker to watch for.
            handler: An async or sync function; it gets the worker's `WorkerReadyData`.

        Raises:
            WrongLoopError: The runner's bus is open in another thread or event loop; a `RuntimeError`.

        Guarantees: G1, G3, L7.
        """
        self.check_loop(f"the registry of runner {self._runner_name!r}")
        if not add_watcher(self._watchers, worker_name, handler):
            return
        data = self.get(worker_name)
        if data is not None and self.is_ready(worker_name):
            await self._call(handler, data)

    async def watch_departure(self, worker_name: str, handler: Watcher) -> None:
        """Call a function whenever a worker unregisters.

        A second call for the same worker and function does nothing.

        Args:
            worker_name: The name of the worker to watch for.
            handler: An async or sync function; it gets the worker's `WorkerReadyData`.

        Raises:
            WrongLoopError: The runner's bus is open in another thread or event loop; a `RuntimeError`.

        Guarantees: G2, G3, L7.
        """
        self.check_loop(f"the registry of runner {self._runner_name!r}")
        add_watcher(self._departure_watchers, worker_name, handler)

    async def wait_for(self, worker_name: str) -> WorkerReadyData:
        """Wait until a worker is registered. Nothing is left behind, even if the wait is cancelled.

        Args:
            worker_name: The name of the worker to wait for.

        Returns:
            The worker's name and runner.

        Raises:
            WrongLoopError: The runner's bus is open in another thread or event loop; a `RuntimeError`.

        Guarantees: G2, L7.
        """
        self.check_loop(f"the registry of runner {self._runner_name!r}")
        check_worker_name(worker_name)
        # In a loop, since the worker may have gone again by the time this task runs.
        while (data := self.get(worker_name)) is None:
            await self.wait_for_news(worker_name)
        return data

    # --- workers that are being restarted, that have gone, and what they have failed of

    @property
    def restarting(self) -> dict[str, str]:
        """The workers that are being restarted, here and under other runners, each with the name of its runner."""
        return self._restarting if self.neighbourhood is None else self.neighbourhood.restarting

    def note_restarting(self, worker_name: str, runner: str | None = None, *, is_so: bool) -> None:
        """Note that a worker is being restarted, until it is registered; or no more, and those who wait look again.

        Args:
            worker_name: The name of the worker.
            runner: The name of the runner that has it; by default this registry's own.
            is_so: Whether it is being restarted.
        """
        runner = runner or self._runner_name
        if is_so:
            self.restarting[worker_name] = runner
            return
        if runner == self._runner_name and self.on_restart_over is not None:
            self.on_restart_over(worker_name)
        if self.restarting.get(worker_name) == runner:
            del self.restarting[worker_name]
            for registry in self._sharing():
                registry._let_go_on(worker_name)  # noqa: SLF001 - of the same class

    def forget_runner(self, runner: str) -> None:
        """Forget which workers of a runner have failed, or are being restarted: it has ended. Who waits looks again."""
        self.failed.forget_runner(runner)
        for name in forget_runner(self.restarting, runner):
            for registry in self._sharing():
                registry._let_go_on(name)  # noqa: SLF001 - of the same class

    @property
    def failed(self) -> FailedWorkers:
        """The workers that have failed, here and under other runners; shared where those are in this process.

        Guarantees: J4, R9.
        """
        return self._failed if self.neighbourhood is None else self.neighbourhood.failed

    def failure_of(self, worker_name: str) -> WorkerGoneData | None:
        """Return what is known of a worker that has failed; None where none of that name has, or there is a new one.

        Args:
            worker_name: The name of the worker.

        Guarantees: J4.
        """
        return self.failed.get(worker_name)

    def note_failure(self, data: WorkerGoneData) -> None:
        """Remember that a worker has failed, and let those who wait for it know.

        Args:
            data: The worker, and why it failed.

        Guarantees: J4, R9.
        """
        self.failed.add(data)
        for registry in self._sharing():
            registry._let_go_on(data.worker_name, data)  # noqa: SLF001 - of the same class

    def _sharing(self) -> list["WorkerRegistry"]:
        return [self] if self.neighbourhood is None else list(self.neighbourhood.registries.values())

    def tell_gone(self, data: WorkerGoneData) -> None:
        """Tell those who watch for it that a worker has gone; the other runners of this process, of one of this one."""
        for registry in self._sharing() if data.runner == self._runner_name else [self]:
            for handler in list(registry._gone_watchers.get(data.worker_name, ())):  # noqa: SLF001 - of the same class
                handler(data)

    def in_words(self, worker_name: str) -> Wait:
        """Return what those wait for who wait for a worker, for who looks at their frames."""
        for registry in self._sharing():
            wait = None if registry.explain is None else registry.explain(worker_name)
            if wait is not None:
                return wait
        host, failure = self.restarting.get(worker_name), self.failure_of(worker_name)
        if host is not None:
            return Wait(1, f"for worker {worker_name!r}, which is being restarted by runner {host!r}")
        if failure is not None and failure.error is not None:
            return Wait(0, f"for worker {worker_name!r} to come, which has failed: {failure.error}")
        return Wait(0, f"for worker {worker_name!r} to come; {self.near(worker_name)}")

    def near(self, worker_name: str) -> str:
        """Say which known names look like one that is not known, as the end of a sentence.

        Args:
            worker_name: The name that is not known.
        """
        return near_names(worker_name, [*self._local, *self.remote_workers, *self.shared_pools.names])


waits(Watchers.wait_for_news, lambda its: its["self"].in_words(its["worker_name"]))


def _anywhere(_what: str) -> None:
    """Do nothing: a registry without a runner belongs nowhere."""
