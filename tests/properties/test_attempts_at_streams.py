"""J6, J18, J20: jobs that are asked for again beside a model of them, whatever each attempt streams before its end."""

from collections.abc import Sequence
from typing import Any

from anyio import current_time
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.workers import running
from workerbus import Backoff, JobError, JobStatus, JobTimeoutError
from workerbus.testing import Behaviour, ScriptedError, ScriptedWorker, run
from workerbus.testing.strategies import behaviours, scripts

many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

BACKOFF = Backoff(initial=0.375, factor=2, maximum=1.5, jitter=0)
"""So that no wait ends at the same moment as anything that was drawn, which is at quarters of a second."""

CHOICES: dict[str, Any] = {
    "nothing": None,
    "failed": JobStatus.FAILED,
    "errors": JobStatus.ERROR,
    "what is raised": ScriptedError,
    "what is raised, by name": "ScriptedError",
    "timeouts": TimeoutError,
    "all": (JobStatus.FAILED, JobStatus.ERROR, JobStatus.CANCELLED),
}


@frozen(kw_only=True)
class Plan:
    """A job that is asked for again.

    Args:
        script: What the worker does with each attempt; the last is for all further ones.
        attempts: How many there are at most.
        retry_on: After what; a key of `CHOICES`.
        timeout: Seconds for all of it.
        attempt_timeout: Seconds for each.
        seed: Of the schedule.
    """

    script: tuple[Behaviour, ...]
    attempts: int
    retry_on: str
    timeout: float | None
    attempt_timeout: float | None
    seed: int


@frozen
class Expected:
    """How it comes out: the status of the last attempt, or None for a timeout; how many attempts; and when."""

    status: JobStatus | None
    attempts: int
    at: float


def expected(plan: Plan) -> Expected:
    """Walk through the attempts."""
    now, waits, attempt = 0.0, BACKOFF.delays(), 0
    while True:
        behaviour = plan.script[min(attempt, len(plan.script) - 1)]
        attempt += 1
        left = None if plan.timeout is None else plan.timeout - now
        limits = [limit for limit in (left, plan.attempt_timeout) if limit is not None]
        status: JobStatus | None
        if limits and min(limits) <= behaviour.seconds:
            now += min(limits) + behaviour.clean_up
            status = None
        else:
            now += behaviour.seconds
            status = JobStatus.ERROR if behaviour.end == "raise" else behaviour.status
        wait = next(waits)
        late = plan.timeout is not None and now + wait >= plan.timeout
        if status is JobStatus.COMPLETED or attempt == plan.attempts or late or not repeats(plan, status):
            return Expected(status, attempt, now)
        now += wait


def repeats(plan: Plan, status: JobStatus | None) -> bool:
    if status is None:
        return plan.retry_on in ("timeouts", "all")
    if status is JobStatus.ERROR:
        return plan.retry_on in ("errors", "what is raised", "what is raised, by name", "all")
    return status is JobStatus.FAILED and plan.retry_on in ("failed", "all")


def off_the_quarters(seconds: Sequence[float]) -> st.SearchStrategy[float | None]:
    """Timeouts at which nothing else happens."""
    return st.none() | st.sampled_from([each + 0.0625 for each in seconds])


def plain(behaviour: Behaviour) -> Behaviour:
    """An answer of ERROR or CANCELLED of a worker's own is nothing that has raised anything."""
    plain = behaviour.status in (JobStatus.COMPLETED, JobStatus.FAILED)
    return behaviour if plain else evolve(behaviour, status=JobStatus.FAILED)


def sure_to_end(plan: Plan) -> Plan:
    limited = plan.timeout is not None or plan.attempt_timeout is not None
    return plan if limited else evolve(plan, attempt_timeout=2.0625)


plans = st.builds(
    Plan,
    script=scripts(behaviours(1.5, ends=("answer", "raise", "hang"), max_clean_up=0.5).map(plain)).map(tuple),
    attempts=st.integers(2, 4),
    retry_on=st.sampled_from(sorted(CHOICES)),
    timeout=off_the_quarters([0.0, 1.0, 2.5, 8.0]),
    attempt_timeout=off_the_quarters([0.5, 1.0, 2.0]),
    seed=st.integers(0, 1000),
).map(sure_to_end)


async def play(plan: Plan) -> None:
    will = expected(plan)
    worker = ScriptedWorker("w", plan.script)
    async with running(worker) as runner:
        asked = runner.job(
            "w",
            attempts=plan.attempts,
            backoff=BACKOFF,
            retry_on=CHOICES[plan.retry_on],
            timeout=plan.timeout,
            attempt_timeout=plan.attempt_timeout,
        )
        status: JobStatus | None = JobStatus.COMPLETED
        told = will.attempts
        try:
            await asked
        except JobTimeoutError as error:
            status, told = None, error.attempts
        except JobError as error:
            status, told = JobStatus(error.statuses["w"]), error.attempts
        assert (status, asked.attempts, current_time()) == (will.status, will.attempts, will.at)
        assert told == will.attempts
        assert worker.running == {}
        assert [message.attempt for message in worker.requests] == list(range(1, will.attempts + 1))
        assert worker.peak == 1


@many
@given(plan=plans)
def test_attempts_come_out_as_if_they_were_gone_through_one_by_one(plan: Plan, backend: str) -> None:
    """J6, J18, J20: each begins when the one before has unwound, and as often and as late as was said."""
    run(lambda: play(plan), backend=backend, seed=plan.seed)
