"""Jobs that are asked for again when they fail: how often, when, and after which errors (J20).

Each attempt is a job of its own, with an id of its own; one deadline covers all of them, and the waits between them. A
job that has failed may have run, and done half of its work. Whether it may be repeated, only its requester can know: so
it says after which errors. Without a word of it, only that is tried again which has certainly not begun.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from anyio import current_time, sleep
from attrs import frozen

from workerbus._backoff import Backoff
from workerbus._log import about
from workerbus._values import JobStatus
from workerbus.errors import JobError

logger = logging.getLogger("workerbus.jobs")

R = TypeVar("R")

RetryOn = JobStatus | str | type[BaseException]
"""An error after which a job may be repeated: how it ended, or what its handler has raised, as a class or its name."""

NOT_BEGUN: Final = frozenset({"Inactive", "PoolFull", "Refused", "WorkerFailed"})
"""The types of answers to a job that has not begun."""


@frozen(kw_only=True)
class Retry:
    """When a job is asked for again.

    Args:
        attempts: How often it is asked for at most.
        backoff: How long is waited before each new attempt.
        retry_on: After which errors; None for what has not begun alone.
        attempt_timeout: Seconds for one attempt; None for no limit of its own.
    """

    attempts: int
    backoff: Backoff
    retry_on: tuple[RetryOn, ...] | None
    attempt_timeout: float | None

    def repeats(self, error: JobError) -> bool:
        """Whether a job is asked for again after an error."""
        return not may_have_run(error) or any(_is_named(error, named) for named in self.retry_on or ())

    def time_for(self, left: float | None) -> float | None:
        """Return the seconds for an attempt, of which so many are left for all; None for no limit."""
        given = [seconds for seconds in (left, self.attempt_timeout) if seconds is not None]
        return min(given, default=None)


def may_have_run(error: JobError) -> bool:
    """Whether a job that has failed may have begun."""
    return not any(_type(response) in NOT_BEGUN for response in error.responses.values())


def _type(response: Mapping[str, Any]) -> str:
    return str(response.get("type", ""))


def _is_named(error: JobError, named: RetryOn) -> bool:
    if isinstance(named, JobStatus):
        return named in error.statuses.values()
    types = {_type(response) for response in error.responses.values()}
    if isinstance(named, str):
        return named in types or named == type(error).__name__
    return isinstance(error, named) or any(kind.__name__ in types for kind in _with_subclasses(named))


def _with_subclasses(kind: type[BaseException]) -> set[type[BaseException]]:
    # The answer of a worker has only the name of what was raised: perhaps of a class that is unknown here.
    found, todo = {kind}, [kind]
    while todo:
        below = [each for each in type.__subclasses__(todo.pop()) if each not in found]
        found.update(below)
        todo += below
    return found


def retry_of(attempts: object, backoff: object, retry_on: object, attempt_timeout: object) -> Retry | None:
    """Return when a job is asked for again; None where it is asked for once.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is less than one attempt, or what is said of more attempts is said of one.
    """
    if isinstance(attempts, bool) or not isinstance(attempts, int):
        raise TypeError(f"attempts is a whole number, not {attempts!r}")
    if attempts < 1:
        raise ValueError(f"a job takes at least 1 attempt, not {attempts}")
    if attempts == 1:
        said = {"backoff": backoff, "retry_on": retry_on, "attempt_timeout": attempt_timeout}
        if useless := [name for name, value in said.items() if value is not None]:
            raise ValueError(f"{', '.join(useless)} is for a job with more attempts: say how many, as in attempts=3")
        return None
    if not (backoff is None or isinstance(backoff, Backoff)):
        raise TypeError(f"backoff is a Backoff, not {backoff!r}")
    if attempt_timeout is not None:
        if isinstance(attempt_timeout, bool) or not isinstance(attempt_timeout, int | float):
            raise TypeError(f"attempt_timeout is a number of seconds or None, not {attempt_timeout!r}")
        if not attempt_timeout > 0:
            raise ValueError(f"attempt_timeout is a number of seconds, more than 0, not {attempt_timeout!r}")
    return Retry(
        attempts=attempts,
        backoff=backoff or Backoff(),
        retry_on=_named(retry_on),
        attempt_timeout=attempt_timeout,
    )


def _named(retry_on: object) -> tuple[RetryOn, ...] | None:
    if retry_on is None:
        return None
    named = retry_on if isinstance(retry_on, Collection) and not isinstance(retry_on, str) else (retry_on,)
    for each in named:
        if not (isinstance(each, str) or (isinstance(each, type) and issubclass(each, BaseException))):
            raise TypeError(f"retry_on has statuses, classes of exceptions, or their names in it, not {each!r}")
    return tuple(named)


async def in_attempts(
    retry: Retry,
    ask: Callable[[int, float | None], Awaitable[R]],
    *,
    title: str,
    timeout: float | None,
    about_it: Mapping[str, str],
) -> R:
    """Ask for a job until it is done, and return what it is answered with.

    Args:
        retry: How often, when, and after which errors.
        ask: Asks for it once: with the number of the attempt, from 1 on, and the seconds for it, or None.
        title: What to call the job in the log.
        timeout: Seconds for all of it; None for no limit.
        about_it: The attributes of the log's records.

    Raises:
        JobError: The last attempt has failed, or one that may not be repeated, or there is no time for another;
            ``attempts`` says which one it was.
    """
    deadline = None if timeout is None else current_time() + timeout
    delays = retry.backoff.delays()
    attempt = 1
    while True:
        left = None if deadline is None else max(0.0, deadline - current_time())
        try:
            return await ask(attempt, retry.time_for(left))
        except JobError as error:
            error.attempts = attempt
            delay = next(delays)
            late = deadline is not None and current_time() + delay >= deadline
            if attempt == retry.attempts or late or not retry.repeats(error):
                if attempt > 1:
                    error.add_note(f"this was attempt {attempt} of {retry.attempts}")
                raise
            attempt += 1
            ran = may_have_run(error)
            logger.log(
                logging.WARNING if ran else logging.INFO,
                "%s, %s: attempt %d of %d in %.3g seconds: %s",
                title,
                "which may have run, is asked for again" if ran else "which has not begun, is asked for again",
                attempt,
                retry.attempts,
                delay,
                error,
                extra=about(**about_it, job=error.job_id),
            )
        await sleep(delay)
