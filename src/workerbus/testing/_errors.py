"""What can be wrong with a program that runs in virtual time."""

from typing import Any

from workerbus.errors import WorkerBusError


class StuckError(WorkerBusError):
    """Raised by `run` for a program that does not finish; the text names the tasks that wait, and for what.

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
    """Raised when tasks run forever, without a moment in which all of them wait."""


class InvariantError(WorkerBusError, AssertionError):
    """Raised for a program that breaks an `always` or does not fulfil an `eventually`.

    Args:
        check: The check, as it is written, and where.
        what: What is wrong with it.
        task: The task whose step broke it; empty if not known.
        place: Where that step ended, as ``file:line`` and the text of the line; empty if the task has ended.
        time: Seconds of virtual time that had passed.

    Attributes:
        check: The check, as it is written, and where.
        task: The task whose step broke it; empty if not known.
        place: Where that step ended, as ``file:line`` and the text of the line; empty if the task has ended.
        time: Seconds of virtual time that had passed.
    """

    def __init__(self, check: str, what: str, task: str, place: str, time: float) -> None:
        self.check: str = check
        self.task: str = task
        self.place: str = place
        self.time: float = time
        step = f"the step that has come to {place}" if place else "its last step"
        broken = f": broken by {task!r}, in {step}" if task else ""
        super().__init__(f"{check} {what}{broken} (at {time:g} s)")


class NotLinearizableError(WorkerBusError, AssertionError):
    """Raised by `linearizable` if no sequential order of operations gives their answers.

    Args:
        text: The operations, and what each order of them would have given.
        operations: The fewest that cannot be ordered.
        others: Those others that were called by then.

    Attributes:
        operations: The fewest that cannot be ordered, whatever the others did, and when.
        others: Those others that were called by then; their answers do not matter.
    """

    def __init__(self, text: str, operations: tuple[Any, ...], others: tuple[Any, ...]) -> None:
        self.operations: tuple[Any, ...] = operations
        self.others: tuple[Any, ...] = others
        super().__init__(text)
