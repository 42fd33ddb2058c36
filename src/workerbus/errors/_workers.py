"""What is wrong with workers, their classes, and what they and their runners are asked for (N3, N6, N8, R5, S1, W3)."""

from collections.abc import Iterable

from workerbus.errors._base import WorkerBusError, near_names


class RunCancelled(WorkerBusError):  # noqa: N818 - not an error of anybody's: somebody has asked for it
    """The block of a runner was cut short by a `cancel` of the runner or of one of its workers.

    Attributes:
        reason: Why, in words; None if no reason was given.
        runner_name: The name of the runner.

    Guarantees: R5.
    """

    def __init__(self, reason: str | None, runner_name: str = "") -> None:
        who = f"runner {runner_name!r}" if runner_name else "the runner"
        super().__init__(f"{who} was cancelled{f': {reason}' if reason else ''}")
        self.reason = reason
        self.runner_name = runner_name


class ParentError(WorkerBusError, ValueError):
    """A worker was added to a second parent, or to itself or a worker below it.

    Attributes:
        name: The name of the worker.

    Guarantees: W5.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"worker {name!r} cannot be added as a child: {why}")
        self.name = name


class RestartLimitError(WorkerBusError, RuntimeError):
    """A supervised worker failed more often than its supervision restarts it; the last failure is the cause.

    Attributes:
        worker: The name of the worker.
        max_restarts: How many restarts there may be.
        within: In how many seconds, on the monotonic clock.

    Guarantees: S1.
    """

    def __init__(self, worker: str, max_restarts: int, within: float) -> None:
        self.worker: str = worker
        self.max_restarts: int = max_restarts
        self.within: float = within
        super().__init__(
            f"worker {worker!r} has gone once more than {max_restarts} restarts in {within:g} s allow for; "
            "its last failure is the cause of this error"
        )


class FactoryError(WorkerBusError, TypeError):
    """A factory given to `supervise` returned something that cannot be the next worker; trying again would not help.

    Attributes:
        worker: The name of the worker that was to be made; None for the first one.

    Guarantees: S1.
    """

    def __init__(self, worker: str | None, text: str) -> None:
        super().__init__(text)
        self.worker: str | None = worker


class UnknownWorkerError(WorkerBusError, LookupError):
    """Neither the runner nor the registry knows a worker of this name.

    Attributes:
        name: The name that was asked for.
        failure: Why a worker of this name failed, in words; None if none is known to have failed.

    Guarantees: W3.
    """

    def __init__(self, name: str, known: Iterable[str], *, failure: str | None = None) -> None:
        text = near_names(name, known) if failure is None else f"it has failed: {failure}"
        super().__init__(f"there is no worker {name!r}; {text}")
        self.name = name
        self.failure = failure


class UnknownEventError(WorkerBusError, ValueError):
    """There is no event of this name.

    Attributes:
        name: The name that was given.

    Guarantees: N3.
    """

    def __init__(self, name: str, owner: str, known: Iterable[str]) -> None:
        super().__init__(f"{owner} has no event {name!r}; {near_names(name, known)}")
        self.name = name


class HandlerTypeError(WorkerBusError, TypeError):
    """A handler cannot be called: it is not async, for example, or lacks a parameter for its argument.

    Guarantees: N3, N8, J2.
    """


class ReservedNameError(WorkerBusError, TypeError):
    """A worker class uses the name of a documented method or property for something else.

    Attributes:
        class_name: The name of the class.
        name: The name of the attribute.

    Guarantees: N6.
    """

    def __init__(self, class_name: str, name: str, kind: str = "name") -> None:
        self.class_name: str = class_name
        self.name: str = name
        super().__init__(
            f"{class_name} has an attribute {name!r}, which is a {kind} that every worker has: give it another name"
        )


class MisspeltHookError(WorkerBusError, TypeError):
    """A worker class has an async ``on_…`` method whose name is nearly that of a hook, and would never be called.

    Attributes:
        class_name: The name of the class.
        name: The name of the method.

    Guarantees: N8.
    """

    def __init__(self, class_name: str, name: str, near: Iterable[str]) -> None:
        super().__init__(
            f"{class_name}.{name} is no hook, and would never be called; {near_names(name, near)} "
            "If it is a method of your own, give it a name that is less like it"
        )
        self.class_name = class_name
        self.name = name
