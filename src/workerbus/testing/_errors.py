"""What can be wrong with a program that runs in virtual time."""

from workerbus.errors import WorkerBusError


class StuckError(WorkerBusError):
    """Raised by `run` for a program that does not come to its end; the text names the tasks that wait, and for what.

    Args:
        headline: What is wrong, in one sentence.
        waiting: A paragraph for each task that waits.
        time: Seconds of virtual time that had passed.

    Attributes:
        waiting: A paragraph for each task that waits.
        time: Seconds of virtual time that had passed.
    """

    def __init__(self, headline: str, waiting: tuple[str, ...], time: float) -> None:
        self.waiting: tuple[str, ...] = waiting
        self.time: float = time
        super().__init__("\n\n".join((headline, *waiting)))


class DeadlockError(StuckError):
    """Raised when nothing can ever happen again: every task waits, and no timer runs."""


class TimeLimitError(StuckError):
    """Raised when a program has not ended in the virtual time that it was given."""


class SpinError(StuckError):
    """Raised when tasks run on and on, and there is never a moment in which all of them wait."""
