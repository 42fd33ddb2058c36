"""J20: jobs that are asked for again when they fail."""

import logging
from collections.abc import Mapping
from typing import Any

import anyio
import attrs
import pytest
from anyio import current_time
from hypothesis import given, settings
from hypothesis import strategies as st

from support.workers import running
from workerbus import (
    Backoff,
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    JobFailure,
    JobRequestOptions,
    JobStatus,
    JobTimeoutError,
    NotRunningError,
    WorkerRunner,
    current_job,
    job,
)
from workerbus.testing import Behaviour, ScriptedWorker, run

EVEN = Backoff(initial=1, factor=2, maximum=4, jitter=0)


@attrs.frozen
class Wanted:
    text: str


@attrs.frozen
class Done:
    text: str
    attempt: int


class Flaky(BaseWorker):
    """Fails in the ways that it is told, one after the other, and then completes; notes each attempt."""

    def __init__(self, *ways: BaseException | float, name: str = "flaky", active: bool = True) -> None:
        super().__init__(name, active=active)
        self._ways = list(ways)
        self.seen: list[tuple[int, float]] = []
        self.ids: list[str] = []
        self.headers: list[Mapping[str, str] | None] = []

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.seen.append((message.attempt, current_time()))
        self.ids.append(message.job_id)
        self.headers.append(message.headers)
        await self._go_its_way()
        return {"attempt": message.attempt}

    @job(name="do typed")
    async def do_typed(self, wanted: Wanted) -> Done:
        attempt = current_job().attempt
        self.headers.append(current_job().headers)
        self.seen.append((attempt, current_time()))
        await self._go_its_way()
        return Done(wanted.text, attempt)

    async def _go_its_way(self) -> None:
        way = self._ways.pop(0) if self._ways else 0
        if isinstance(way, BaseException):
            raise way
        await anyio.sleep(way)


async def test_a_job_is_asked_for_again_until_it_is_done() -> None:
    """J20: the handler is told the how manieth attempt it is, and so is the requester."""
    flaky = Flaky(OSError("one"), ConnectionResetError("two"))
    async with running(flaky) as runner:
        asked = runner.job("flaky", name="do", attempts=3, retry_on=OSError, backoff=EVEN)
        assert await asked == {"attempt": 3}
        assert flaky.seen == [(1, 0), (2, 1), (3, 3)]
        assert len(set(flaky.ids)) == 3
        assert (asked.attempts, asked.job_id, asked.response) == (3, flaky.ids[2], {"attempt": 3})
        assert asked.statuses == {"flaky": JobStatus.COMPLETED}


async def test_the_number_of_attempts_counts_the_one_that_is_under_way() -> None:
    """J20"""
    flaky = Flaky(OSError("one"), 1)
    async with running(flaky) as runner, anyio.create_task_group() as group:
        asked = runner.job("flaky", name="do", attempts=3, retry_on=OSError, backoff=EVEN)

        async def ask() -> None:
            await asked

        group.start_soon(ask)
        for seconds, attempts in ((0.5, 1), (1, 2), (1, 2)):
            await anyio.sleep(seconds)
            assert asked.attempts == attempts


@pytest.mark.parametrize("priority", [0, 3])
@pytest.mark.parametrize("delay", [None, 0.5])
@pytest.mark.parametrize("way", ["awaited", "body", "attempts"])
async def test_all_that_was_said_of_how_a_job_is_to_be_done_travels_with_each_request(
    way: str, delay: float | None, priority: int
) -> None:
    """J19, J20, S2: but for the delay, which is that of the first attempt, and the window, which is for a reader."""
    said: list[JobRequestOptions] = []
    async with running(Flaky(*([ValueError(), ValueError()] if way == "attempts" else []))) as runner:
        runner.bus.add_tap(
            lambda message: (
                said.append(message.options or JobRequestOptions())
                if isinstance(message, BusJobRequestMessage)
                else None
            )
        )
        if way == "attempts":
            await runner.job("flaky", name="do", delay=delay, priority=priority, attempts=3, retry_on=ValueError)
        elif way == "awaited":
            await runner.job("flaky", name="do", delay=delay, priority=priority)
        else:
            async with runner.job("flaky", name="do", delay=delay, priority=priority, max_buffered_events=7):
                pass
    attempts = [1, 2, 3] if way == "attempts" else [1]
    window = 7 if way == "body" else None
    assert [each.attempt for each in said] == attempts
    assert [each.delay for each in said] == [delay, None, None][: len(attempts)]
    assert [each.priority for each in said] == [priority] * len(attempts)
    assert [each.max_buffered_events for each in said] == [window] * len(attempts)


async def test_one_that_succeeds_is_asked_for_once() -> None:
    """J20"""
    flaky = Flaky()
    async with running(flaky) as runner:
        asked = runner.job("flaky", name="do", attempts=3)
        assert await asked == {"attempt": 1}
        assert asked.attempts == 1


async def test_after_the_last_attempt_its_error_is_raised() -> None:
    """J20: it says how many there were."""
    async with running(Flaky(*(OSError(str(n)) for n in range(5)))) as runner:
        with pytest.raises(JobError, match="raised OSError: 2") as caught:
            await runner.job("flaky", name="do", attempts=3, retry_on=OSError, backoff=EVEN)
        assert current_time() == 3
    assert caught.value.attempts == 3
    assert caught.value.__notes__ == ["this was attempt 3 of 3"]


async def test_an_error_that_is_not_named_is_not_repeated() -> None:
    """J20: the job may have run."""
    flaky = Flaky(OSError("one"), ValueError("two"))
    async with running(flaky) as runner:
        with pytest.raises(JobError, match="raised ValueError: two") as caught:
            await runner.job("flaky", name="do", attempts=5, retry_on=[OSError], backoff=EVEN)
    assert (caught.value.attempts, len(flaky.seen)) == (2, 2)


async def test_without_a_word_nothing_that_may_have_run_is_repeated() -> None:
    """J20"""
    flaky = Flaky(OSError("one"))
    async with running(flaky) as runner:
        with pytest.raises(JobError, match="raised OSError: one") as caught:
            await runner.job("flaky", name="do", attempts=5, backoff=EVEN)
    assert (caught.value.attempts, len(flaky.seen)) == (1, 1)
    assert not hasattr(caught.value, "__notes__")


async def test_what_has_certainly_not_begun_is_repeated_without_a_word() -> None:
    """J20: a worker that refuses it, say, since it is inactive."""
    flaky, asker = Flaky(active=False), BaseWorker("asker")
    async with running(flaky, asker) as runner, anyio.create_task_group() as tasks:

        async def wake() -> None:
            await anyio.sleep(2)
            await asker.activate_worker("flaky")

        tasks.start_soon(wake)
        assert await runner.job("flaky", name="do", attempts=3, backoff=EVEN) == {"attempt": 3}
        assert flaky.seen == [(3, 3)]


async def test_a_worker_that_has_failed_may_be_there_again() -> None:
    """J4, J20: the job has not begun."""

    class Broken(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            raise OSError("no device")

    heard: list[Any] = []

    async def hear(runner: WorkerRunner, data: Any) -> None:
        heard.append(data)

    async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as tasks:
        runner.add_event_handler("on_error", hear)
        await runner.add_workers(broken := Broken("flaky"))
        await broken.wait()

        async def replace() -> None:
            await anyio.sleep(0.5)
            await runner.add_workers(Flaky())

        tasks.start_soon(replace)
        assert await runner.job("flaky", name="do", attempts=3, backoff=EVEN) == {"attempt": 2}


NAMED = [
    (OSError("x"), OSError, True),
    (BrokenPipeError("x"), ConnectionError, True),
    (OSError("x"), ConnectionError, False),
    (OSError("x"), "OSError", True),
    (BrokenPipeError("x"), "OSError", False),
    (OSError("x"), Exception, True),
    (OSError("x"), JobStatus.ERROR, True),
    (OSError("x"), JobStatus.FAILED, False),
    (JobFailure("x"), JobStatus.FAILED, True),
    (JobFailure("x"), JobFailure, True),
    (JobFailure("x"), (JobStatus.ERROR, "KeyError", JobFailure), True),
    (OSError("x"), (), False),
    (OSError("x"), JobError, True),
    (OSError("x"), "JobError", True),
    (OSError("x"), TimeoutError, False),
]


@pytest.mark.parametrize(("raised", "retry_on", "repeated"), NAMED)
async def test_errors_are_named_by_status_by_class_or_by_name(raised: Exception, retry_on: Any, repeated: bool) -> None:
    """J20: a class stands for its subclasses, too."""
    flaky = Flaky(raised)
    async with running(flaky) as runner:
        asked = runner.job("flaky", name="do", attempts=2, retry_on=retry_on, backoff=EVEN)
        if repeated:
            assert await asked == {"attempt": 2}
        else:
            with pytest.raises(JobError):
                await asked
    assert len(flaky.seen) == 1 + repeated


async def test_one_deadline_covers_all_attempts() -> None:
    """J6, J20: and the waits between them."""
    flaky = Flaky(OSError("one"), OSError("two"), 9.0)
    async with running(flaky) as runner:
        with pytest.raises(JobTimeoutError) as caught:
            await runner.job("flaky", name="do", attempts=5, retry_on=(OSError, TimeoutError), backoff=EVEN, timeout=5)
        assert current_time() == 5
    assert (caught.value.attempts, len(flaky.seen)) == (3, 3)


async def test_there_is_no_attempt_for_which_there_is_no_time() -> None:
    """J6, J20: the error comes at once, and not when the time is up."""
    flaky = Flaky(OSError("one"), OSError("two"), OSError("three"))
    async with running(flaky) as runner:
        with pytest.raises(JobError, match="raised OSError: two") as caught:
            await runner.job("flaky", name="do", attempts=5, retry_on=OSError, backoff=EVEN, timeout=2.5)
        assert current_time() == 1
    assert caught.value.attempts == 2


async def test_an_attempt_may_have_a_timeout_of_its_own() -> None:
    """J20: the handler has unwound when it is asked again."""
    flaky = Flaky(9.0, 9.0, 0.5)
    async with running(flaky) as runner:
        asked = runner.job("flaky", name="do", attempts=3, retry_on=TimeoutError, backoff=EVEN, attempt_timeout=1)
        assert await asked == {"attempt": 3}
    assert flaky.seen == [(1, 0), (2, 2), (3, 5)]


async def test_the_last_attempt_has_no_more_time_than_all() -> None:
    """J6, J20"""
    async with running(Flaky(9.0, 9.0)) as runner:
        with pytest.raises(JobTimeoutError):
            await runner.job(
                "flaky", name="do", attempts=9, retry_on=TimeoutError, backoff=EVEN, attempt_timeout=2, timeout=4
            )
        assert current_time() == 4


async def test_a_cancellation_during_the_wait_ends_it() -> None:
    """J5"""
    flaky = Flaky(OSError("one"))
    async with running(flaky) as runner:
        with anyio.move_on_after(0.5) as scope:
            await runner.job("flaky", name="do", attempts=2, retry_on=OSError, backoff=EVEN)
        assert scope.cancelled_caught
        await anyio.sleep(5)
    assert len(flaky.seen) == 1


async def test_each_repetition_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """J20, R8: a warning, where the job may have run."""
    caplog.set_level(logging.INFO, "workerbus.jobs")
    flaky, asker = Flaky(OSError("one"), active=False), BaseWorker("asker")
    async with running(flaky, asker), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: asker.job("flaky", name="do", attempts=3, retry_on=OSError, backoff=EVEN))
        await anyio.sleep(0.5)
        await asker.activate_worker("flaky")
    said = [record for record in caplog.records if "asked for again" in record.getMessage()]
    assert [(record.levelname, record.getMessage()) for record in said] == [
        (
            "INFO",
            "job 'do' at 'flaky', which has not begun, is asked for again: attempt 2 of 3 in 1 seconds: "
            "job 'do' at 'flaky': worker 'flaky' is inactive",
        ),
        (
            "WARNING",
            "job 'do' at 'flaky', which may have run, is asked for again: attempt 3 of 3 in 2 seconds: "
            "job 'do' at 'flaky' raised OSError: one",
        ),
    ]
    assert all(getattr(record, "worker") == "asker" for record in said)  # noqa: B009 - an attribute by `extra`
    assert getattr(said[1], "job") == flaky.ids[0]  # noqa: B009 - see above


async def test_it_is_awaited_and_has_no_body() -> None:
    """J20: whose events would be those of which attempt?"""
    flaky = Flaky()
    async with running(flaky) as runner:
        with pytest.raises(NotRunningError, match="a job with several attempts has no body: await it"):
            async with runner.job("flaky", name="do", attempts=2):
                pass
    assert flaky.seen == []


async def test_it_is_used_once() -> None:
    """J15"""
    async with running(Flaky()) as runner:
        asked = runner.job("flaky", name="do", attempts=2)
        with pytest.raises(NotRunningError, match="has not been asked for yet"):
            _ = asked.job_id
        await asked
        with pytest.raises(NotRunningError, match="used once"):
            await asked


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"attempts": 0}, ValueError, "a job takes at least 1 attempt, not 0"),
        ({"attempts": 1.5}, TypeError, "attempts is a whole number, not 1.5"),
        ({"retry_on": OSError, "backoff": EVEN}, ValueError, "backoff, retry_on is for a job with more attempts"),
        ({"attempt_timeout": 1}, ValueError, "attempt_timeout is for a job with more attempts"),
        ({"attempts": 2, "backoff": 1}, TypeError, "backoff is a Backoff, not 1"),
        ({"attempts": 2, "retry_on": 1}, TypeError, "retry_on has statuses, classes of exceptions, or their names in"),
        (
            {"attempts": 2, "retry_on": (int,)},
            TypeError,
            "retry_on has statuses, classes of exceptions, or their names",
        ),
        (
            {"attempts": 2, "attempt_timeout": 0},
            ValueError,
            "attempt_timeout is a number of seconds, more than 0, not 0",
        ),
        ({"attempts": 2, "attempt_timeout": "1"}, TypeError, "attempt_timeout is a number of seconds or None, not '1'"),
    ],
)
async def test_what_cannot_be_is_refused(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    """N8: where the job is made."""
    async with running(Flaky()) as runner:
        with pytest.raises(error) as caught:
            runner.job("flaky", name="do", **arguments)
    assert str(caught.value).startswith(text)


WAYS = st.lists(st.sampled_from(["done", "oserror", "valueerror", "failed", "slow"]), max_size=6)
RAISED: dict[str, Exception | float] = {
    "oserror": OSError("x"),
    "valueerror": ValueError("x"),
    "failed": JobFailure("x"),
    "slow": 9.0,
    "done": 0.0,
}


@given(
    ways=WAYS,
    attempts=st.integers(2, 5),
    named=st.sets(st.sampled_from(["oserror", "valueerror", "failed", "slow"])),
    timeout=st.none() | st.integers(1, 20),
    delay=st.none() | st.just(0.5),
    typed=st.booleans(),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 20),
)
@settings(deadline=None, max_examples=80)
def test_a_job_is_tried_as_long_as_its_errors_are_named_and_there_is_time(
    ways: list[str],
    attempts: int,
    named: set[str],
    timeout: int | None,
    delay: float | None,
    typed: bool,
    backend: str,
    seed: int,
) -> None:
    """J13, J17, J20, X8: how often, when it is over, and how, whatever goes wrong in which order."""
    kinds: dict[str, Any] = {
        "oserror": OSError,
        "valueerror": "ValueError",
        "failed": JobStatus.FAILED,
        "slow": TimeoutError,
    }
    flaky = Flaky(*(RAISED[way] for way in ways))

    async def main() -> tuple[bool, int, float]:
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(flaky)
            options: dict[str, Any] = {
                "attempts": attempts, "retry_on": [kinds[name] for name in sorted(named)], "backoff": EVEN,
                "attempt_timeout": 2, "timeout": timeout, "delay": delay, "headers": {"trace": "7"},
            }  # fmt: skip
            asked: Any
            if typed:
                asked = runner.job("flaky", Flaky.do_typed, payload=Wanted("x"), **options)
            else:
                asked = runner.job("flaky", name="do", **options)
            try:
                answer = await asked
            except JobError as error:
                return False, error.attempts, current_time()
            assert answer == asked.response == (Done("x", asked.attempts) if typed else {"attempt": asked.attempts})
            return True, asked.attempts, current_time()

    now, tried, done = 0.0, 0, False
    for way, backoff in zip([*ways, *["done"] * 6], [1, 2, 4, 4, 4, 4], strict=False):
        tried += 1
        if way == "slow":
            now += 2 if timeout is None else min(2, timeout - now)
        elif tried == 1:
            now += delay or 0
        done = way == "done"
        if way == "slow" and "oserror" in named:
            way = "oserror"  # a TimeoutError is one
        if done or way not in named or tried == attempts or (timeout is not None and now + backoff >= timeout):
            break
        now += backoff
    assert run(main, backend=backend, seed=seed) == (done, tried, now)
    assert len(flaky.seen) == tried
    assert flaky.headers == [{"trace": "7"}] * tried


async def test_no_attempt_begins_at_the_moment_when_time_is_up() -> None:
    """J6, J20: it would have no time, and its error would say less than the one before."""
    flaky = Flaky(OSError("one"))
    async with running(flaky) as runner:
        with pytest.raises(JobError, match="one") as caught:
            await runner.job("flaky", name="do", timeout=1, attempts=2, retry_on=OSError, backoff=EVEN)
        assert (current_time(), caught.value.attempts, len(flaky.seen)) == (0, 1, 1)


async def test_a_job_that_has_not_been_answered_may_have_run() -> None:
    """J20: its handler was still cleaning up when nobody waited for it any more."""
    worker = ScriptedWorker("w", Behaviour("hang", clean_up=5.0))
    async with running(worker) as runner:
        with pytest.raises(JobTimeoutError) as caught:
            await runner.job("w", attempts=3, attempt_timeout=1, backoff=EVEN)
        assert (caught.value.responses, caught.value.attempts, len(worker.requests)) == ({}, 1, 1)


async def test_a_context_whose_attempts_have_all_failed_tells_of_the_last() -> None:
    """J20, J11: its id, how it ended, and how many there were."""
    flaky = Flaky(ValueError("one"), ValueError("two"))
    async with running(flaky) as runner:
        asked = runner.job("flaky", name="do", attempts=2, backoff=EVEN, retry_on=ValueError)
        with pytest.raises(JobError) as caught:
            await asked
        assert asked.job_id == caught.value.job_id == flaky.ids[-1]
        assert (asked.statuses, asked.attempts) == ({"flaky": JobStatus.ERROR}, 2)
