"""The errors that the library has logged lately, with their tracebacks (O4, R8).

It listens to the library's own loggers while somebody looks, and looks at nothing but what is logged as an error.
"""

import logging
from collections import deque
from itertools import count
from time import monotonic
from traceback import format_exception
from typing import Final, NamedTuple

KEPT: Final = 50
"""How many errors are kept."""
A_SECOND: Final = 10
"""How many errors of one second are written down; the others are counted."""
LONGEST: Final = 8000
"""How many characters of a traceback are kept: its last ones."""
TEXT: Final = 2000
"""How many characters of what was logged are kept: its first ones."""


class LoggedError(NamedTuple):
    """An error that was logged.

    Attributes:
        number: The number of the error.
        at: When, in seconds by the process's monotonic clock.
        text: What was logged.
        worker: The worker that it is about; None where it is about none.
        job_id: The job that it is about; None where it is about none.
        traceback: The traceback; empty where nothing was raised.
    """

    number: int
    at: float
    text: str
    worker: str | None
    job_id: str | None
    traceback: str


class LoggedErrors(logging.Handler):
    """Keeps the last errors that the library has logged, of one runner and of nobody in particular.

    Args:
        runner: The runner's name.

    Attributes:
        kept: The errors, the oldest first.
        seen: How many there were, those included that were only counted.
    """

    def __init__(self, runner: str) -> None:
        super().__init__(logging.WARNING)  # of which warnings are only passed on
        self._runner = runner
        self._numbers = count(1)
        self._second = 0
        self._in_second = 0
        self.kept: deque[LoggedError] = deque(maxlen=KEPT)
        self.seen: int = 0

    def listen(self) -> None:
        """Listen from now on."""
        logging.getLogger("workerbus").addHandler(self)

    def stop(self) -> None:
        """Listen no more."""
        logging.getLogger("workerbus").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error. What nobody else writes is written as it would be without this handler, warnings too."""
        if self._is_alone(record.name) and logging.lastResort is not None:
            logging.lastResort.handle(record)
        if record.levelno < logging.ERROR or getattr(record, "runner", self._runner) != self._runner:
            return
        self.seen += 1
        now = monotonic()
        if int(now) != self._second:
            self._second, self._in_second = int(now), 0
        self._in_second += 1
        if self._in_second > A_SECOND:
            return
        error = record.exc_info[1] if record.exc_info else None
        trace = "" if error is None else "".join(format_exception(error))
        self.kept.append(
            LoggedError(
                next(self._numbers),
                now,
                record.getMessage()[:TEXT],
                getattr(record, "worker", None),
                getattr(record, "job", None),
                trace[-LONGEST:],
            )
        )

    def _is_alone(self, name: str) -> bool:
        """Return whether nobody else listens to a logger, and this is the first of its kind."""
        logger: logging.Logger | None = logging.getLogger(name)
        listening: list[logging.Handler] = []
        while logger is not None:
            listening += logger.handlers
            logger = logger.parent if logger.propagate else None
        return all(isinstance(each, LoggedErrors) for each in listening) and listening[0] is self
