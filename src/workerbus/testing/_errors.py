"""What can be wrong with a program that runs in virtual time."""

from workerbus.errors import WorkerBusError


class StuckError(WorkerBusError):
    """A program under `run` does not come to its end; the text names the tasks that wait, and for what.

    Args:
        headline: What is wrong, in one sentence.
        waiting: A paragraph for each task that waits.
        time: Seconds of virtual time that had passed.

    Attributes:
        waiting: The paragraphs.
        time: Seconds of virtual time that had passed.
    """

    def __init__(self, headline: str, waiting: tuple[str, ...], time: float) -> None:
        self.waiting: tuple[str, ...] = waiting
        self.time: float = time
        super().__init__("\n\n".join((headline, *waiting)))


class DeadlockError(StuckError):
    """Nothing can ever happen again: every task waits, and no timer runs."""


class TimeLimitError(StuckError):
    """The virtual time that the program was given is over."""


class SpinError(StuckError):
    """Tasks run on and on, and none ever waits."""
