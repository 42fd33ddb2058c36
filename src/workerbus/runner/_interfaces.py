"""A runner as its workers, its jobs and its registry see it (J4, N4, R3, R4, W6, W7).

The methods that the library calls, and users seldom do: `RunnerLike` for workers, `HostRunner` for who hosts them,
`JobPeer` for the jobs that the runner asks for itself, and what the registry calls. They only hand on to the parts that
`WorkerRunner` is put together from.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from workerbus._concurrency.lifetime import TaskHost
from workerbus._concurrency.waiting import Wait, names_of
from workerbus._events import EventHandlers
from workerbus._log import about
from workerbus._slot import core_of
from workerbus._values import WorkerErrorData, WorkerReadyData, WorkerRestartedData
from workerbus.abc import OpenAsks
from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import BusSubscriber, Inbox, InboxHost, make_inbox
from workerbus.errors import NotRunningError
from workerbus.jobs._client import JobClient
from workerbus.messages import BusMessage
from workerbus.runner._events import RunnerEvents
from workerbus.runner._orphans import OrphanedJobs
from workerbus.runner._run import Run
from workerbus.runner._shutdown import Shutdown
from workerbus.supervision._supervisor import Supervisions

logger = logging.getLogger("workerbus.runner")


class RunnerCore(NamedTuple):
    """What the methods that a runner inherits need of it."""

    events: EventHandlers
    job_client: JobClient
    make_inbox: Callable[[], Inbox]
    begin_to_supervise: Callable[[], Supervisions]


class Hosted(Protocol):
    """The workers of a runner, as far as these methods concern them; see `HostedWorkers`."""

    restarts: int

    @property
    def workers(self) -> Mapping[str, Any]:
        """All workers, by name."""

    @property
    def roots(self) -> Mapping[str, Any]:
        """The workers without a parent, by name."""

    @property
    def errors(self) -> list[BaseException]:
        """What the run raises at its end."""

    def check_new(self, worker: Any) -> bool:
        """Whether the worker is not hosted here yet; raises where it cannot be added."""

    def add_ready_listener(self, worker: Any) -> None:
        """Note that a worker has got a handler for `on_worker_ready`."""

    def forget(self, worker: Any) -> None:
        """Forget a worker that has left the bus."""

    def tell_of_others(self, worker: Any) -> None:
        """Tell a root worker of those that are ready."""

    def note_given_up(self, name: str, error: BaseException | None) -> None:
        """Remember that a worker is not restarted any more."""

    def not_taken(self, data: WorkerErrorData) -> None:
        """Keep an error of which nobody has heard."""


HostedT = TypeVar("HostedT", bound=Hosted)


class RunnerInterfaces(BusSubscriber, Generic[HostedT]):
    """What others of the library call on a runner; `WorkerRunner` has the parts that it needs."""

    _name: str
    _bus: WorkerBus
    _run: Run
    _hosted: HostedT
    _shutdown: Shutdown
    _events: RunnerEvents
    _orphans: OrphanedJobs
    _asking: OpenAsks

    def end_in_words(self) -> Wait:
        """Return what those wait for who wait for its end."""
        left = names_of(self._hosted.roots)
        return Wait(3, f"for the end of runner {self._name!r}" + (f", whose workers are {left}" if left else ""))

    # --- for its workers

    def check_new(self, worker: Any) -> bool:
        """Return whether a worker is new to this runner; raise as `add_workers` does if it cannot be added."""
        return self._hosted.check_new(worker)

    def add_ready_listener(self, worker: Any) -> None:
        """Note that a worker has got a handler for `on_worker_ready`."""
        self._hosted.add_ready_listener(worker)

    def forget(self, worker: Any) -> None:
        """Note that a worker has left the bus, and its name is free."""
        self._hosted.forget(worker)

    def tell_of_others(self, worker: Any) -> None:
        """Tell a root worker that has just started which root workers are ready."""
        self._hosted.tell_of_others(worker)

    def worker_restarted(self, data: WorkerRestartedData) -> None:
        """Count a restart, and run the ``on_worker_restarted`` handlers."""
        self._hosted.restarts += 1
        if self._events.wanted("on_worker_restarted"):
            self._events.emit("on_worker_restarted", data)

    def worker_given_up(self, worker_name: str, error: BaseException | None) -> None:
        """Remember that a worker is not restarted any more, and tell other runners."""
        self._hosted.note_given_up(worker_name, error)

    def worker_left(self) -> None:
        """Note that a root worker has finished, or could not be started."""
        self._shutdown.check()

    @property
    def is_ending(self) -> bool:
        """Whether the runner is ending, and takes no more workers."""
        return bool(self._shutdown.asked) or self._shutdown.all_done.is_set()

    def known_workers(self) -> list[str]:
        """Return the names of the workers that were added, ready or not."""
        return list(self._hosted.workers)

    # --- errors

    @property
    def takes_errors(self) -> bool:
        """Whether somebody has added a handler for ``on_error``, and it still hears of errors."""
        return self._events.wanted("on_error")

    def worker_error(self, data: WorkerErrorData) -> None:
        """Run the ``on_error`` handlers."""
        if self.takes_errors:
            self._events.emit("on_error", data)

    def fail(self, error: Exception, origin: str) -> None:
        """Cancel the run, since the runner itself cannot go on; where nobody takes the error, the run raises it."""
        logger.error("runner %r cannot go on: %s", self._name, error, extra=about(runner=self._name))
        if self.takes_errors:
            self._events.emit("on_error", WorkerErrorData(self._name, str(error), error, origin, fatal=True))
        else:
            self._hosted.errors.append(error)
        self._shutdown.cancel(str(error))

    def worker_error_untold(self, data: WorkerErrorData) -> None:
        """Run the ``on_error`` handlers; where there are none, what a child has ended of is raised by the run."""
        if self.takes_errors:
            self._events.emit("on_error", data)
        else:
            self._hosted.not_taken(data)

    # --- for its own jobs

    @property
    def tasks(self) -> TaskHost:
        """Where the runner's tasks run; raises `NotRunningError` while it is not running."""
        if self._run.tasks is None:
            over = self._run.done.is_set()
            when = "any more: a runner runs once" if over else "yet: enter it with 'async with', or await run()"
            raise NotRunningError(f"runner {self._name!r} is not running {when}")
        return self._run.tasks

    def check_running(self) -> None:
        """Raise `NotRunningError` unless the runner is running."""
        _ = self.tasks

    def speak(self) -> None:
        """Do nothing: see `workerbus.abc.JobPeer`. A runner is not announced."""

    @property
    def asking(self) -> OpenAsks:
        """Which job groups have asked which worker, so that a departure concerns nobody else."""
        return self._asking

    @property
    def sends_by_bus(self) -> bool:
        """Whether its own messages go to the bus as they are; always."""
        return True

    @property
    def send(self) -> Callable[[BusMessage], Awaitable[None]]:
        """What sends a message of its own."""
        return self._bus.send

    @property
    def about(self) -> dict[str, str]:
        """What a log record says that is about this runner."""
        return about(runner=self._name)

    # --- for its registry

    def _worker_departed(self, data: WorkerReadyData, error: str | None) -> None:
        if data.worker_name in self._asking or data.pool in self._asking:
            announced = data.runner != self._name or self._bus.delivers_at_once
            self._orphans.left(data, error, announcement_in=None if announced else self._run.tasks)

    def _name_claimed_twice(self, data: WorkerReadyData) -> None:
        text = f"runner {data.runner!r} has a worker {data.worker_name!r} too: names are unique on a bus"
        logger.error(
            "%s (seen by runner %r)", text, self._name, extra=about(runner=self._name, worker=data.worker_name)
        )
        self.worker_error(WorkerErrorData(data.worker_name, text))


@make_inbox.register(RunnerInterfaces)
def _(runner: Any, _bus: InboxHost) -> Inbox:
    core: RunnerCore = core_of(runner)
    return core.make_inbox()
