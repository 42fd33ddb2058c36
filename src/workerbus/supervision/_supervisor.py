"""`supervise`, as runners and workers have it (S1). What it starts is kept by its owner until it is over."""

from collections.abc import Callable
from typing import Protocol

from workerbus._backoff import Backoff
from workerbus._concurrency.waiting import Wait
from workerbus._slot import HasCore, core_of
from workerbus.supervision._state import Restart, Strategy
from workerbus.supervision._supervision import SupervisingHost, Supervision


class SupervisedWorker(Protocol):
    """What a factory returns: a new `BaseWorker`, or one of a subclass."""

    @property
    def name(self) -> str:
        """The worker's name, unique on its bus."""

    async def stop(self) -> None:
        """Stop now."""

    async def wait(self) -> None:
        """Wait until the worker and its children have finished."""


class Supervisions:
    """The supervisions of one runner or worker.

    Args:
        host: Adds the workers.

    Attributes:
        all: Those that are not over, and perhaps some that are.
    """

    __slots__ = ("_host", "all")

    def __init__(self, host: SupervisingHost) -> None:
        self._host = host
        self.all: list[Supervision] = []

    def in_words(self, name: str) -> Wait | None:
        """Return what those wait for who wait for a worker that is being restarted; None where it is not of these."""
        return next((wait for each in self.all if (wait := each.in_words(name)) is not None), None)

    async def begin(
        self,
        factories: tuple[Callable[[], SupervisedWorker], ...],
        *,
        strategy: Strategy,
        restart: Restart,
        max_restarts: int,
        within: float,
        backoff: Backoff | None,
    ) -> Supervision:
        """Add workers that are restarted; what `Supervisor.supervise` does."""
        supervision = Supervision(
            self._host,
            factories,
            strategy=strategy,
            restart=restart,
            max_restarts=max_restarts,
            within=within,
            backoff=backoff,
        )
        self.keep(supervision)
        await supervision.begin()
        return supervision

    def keep(self, supervision: Supervision) -> None:
        """Remember a supervision that begins, so that it ends with its owner."""
        self.all = [*(each for each in self.all if not each.is_over), supervision]

    def end(self) -> None:
        """Restart nobody any more."""
        for supervision in self.all:
            supervision.close()


class SupervisorCore(Protocol):
    """What `Supervisor` needs of its owner's core."""

    def begin_to_supervise(self) -> Supervisions:
        """Return what keeps the owner's supervisions; raise where nothing can be supervised here."""


class Supervisor(HasCore):
    """The method that adds workers which are restarted."""

    async def supervise(
        self,
        *factories: Callable[[], SupervisedWorker],
        strategy: Strategy = "one_for_one",
        restart: Restart = "on_failure",
        max_restarts: int = 3,
        within: float = 5.0,
        backoff: Backoff | None = None,
    ) -> Supervision:
        """Add workers that are restarted when they have gone: a factory makes a new one of the same name.

        A runner's supervised workers are root workers; a worker's are its children, and keep their place in the tree.
        Restarts end with the runner or the parent, or when it is told to end. Jobs for a worker that is being restarted
        wait, within their timeout; `on_worker_gone`, `on_worker_ready` and `on_worker_restarted` report it.

        Args:
            *factories: Functions without arguments, each of which returns a new worker, always with the same name.
            strategy: ``"one_for_one"`` restarts the worker that has gone; ``"all_for_one"`` also stops the others, the
                last one first, and restarts all of them, in order.
            restart: ``"on_failure"``; ``"always"``, so also after an end without an error; or ``"never"``.
            max_restarts: How many restarts there may be ``within`` that many seconds. Beyond that, the failure is a
                `RestartLimitError`, reported like that of any worker: to ``on_error`` of the runner or
                `on_worker_failed` of the parent, or raised by the run.
            within: The seconds for ``max_restarts``, on the monotonic clock.
            backoff: How long to wait before each restart; None for `Backoff()`.

        Returns:
            The supervision: its workers, how often they were restarted, and a ``stop()``.

        Raises:
            TypeError: An argument has the wrong type; a `FactoryError` if a factory does not return a worker, or
                returns a used one.
            ValueError: An argument has a wrong value, or two factories make workers with the same name.
            Exception: An error of a factory or of `add_workers`; then none of the workers is added.

        Guarantees: J4, S1.
        """
        core: SupervisorCore = core_of(self)
        return await core.begin_to_supervise().begin(
            factories,
            strategy=strategy,
            restart=restart,
            max_restarts=max_restarts,
            within=within,
            backoff=backoff,
        )
