"""J20: how far a job or a group is, beside all loops over it."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    JobAnswer,
    JobError,
    JobGroupError,
    JobGroupEvent,
    JobProgress,
    JobStatus,
    NotRunningError,
    job,
)
from workerbus.testing import run


class Counting(BaseWorker):
    """Sends so many updates, one each second, and answers, or fails; cleans up for a while when it is cancelled."""

    def __init__(self, name: str, seconds: int, *, fails: bool = False, second: float = 1) -> None:
        super().__init__(name)
        self._seconds, self._fails, self._second = seconds, fails, second

    @job(name="count")
    async def count(self, message: BusJobRequestMessage) -> dict[str, Any]:
        try:
            for n in range(self._seconds):
                await self.send_job_update(message.job_id, {"n": n})
                await anyio.sleep(self._second)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            raise
        if self._fails:
            raise OSError("fell")
        return {"counted": self._seconds}


def update(worker: str, n: int) -> JobGroupEvent:
    return JobGroupEvent("update", worker, {"n": n})


def completed(worker: str, seconds: int) -> JobAnswer:
    return JobAnswer(worker, JobStatus.COMPLETED, {"counted": seconds})


def fell(worker: str) -> JobAnswer:
    return JobAnswer(worker, JobStatus.ERROR, {"error": "fell", "type": "OSError"})


async def test_it_is_told_at_once_and_whenever_something_has_happened() -> None:
    """J20: until the outcome is settled."""
    got: list[tuple[float, JobProgress, list[str]]] = []
    async with running(Counting("a", 2), Counting("b", 1, fails=True, second=0.7)) as runner:
        async with runner.job_group("a", "b", name="count", cancel_on_error=False, label="all") as group:
            async for now in group.progress():
                got.append((current_time(), now, group.waits_for))
                await anyio.sleep(0.25)
        assert current_time() == 2.25
    assert got[0] == (0, JobProgress("all", 2, 0, 0), ["a", "b"])
    assert got[1][0] == 0.25
    begun = got[1][1].event
    assert begun in (update("a", 0), update("b", 0))
    assert got[2:] == [
        (0.7, JobProgress("all", 2, 1, 1, (fell("b"),), begun), ["a"]),
        (1, JobProgress("all", 2, 1, 1, (), update("a", 1)), ["a"]),
        (2, JobProgress("all", 2, 2, 1, (completed("a", 2),), update("a", 1)), []),
    ]


async def test_it_takes_nothing_away_from_a_loop_nor_from_another_of_its_kind() -> None:
    """J7, J20"""
    answers: list[str] = []
    reports: list[list[JobProgress]] = [[], []]
    async with (
        running(Counting("a", 3), Counting("b", 2)) as runner,
        runner.job_group("a", "b", name="count") as group,
        anyio.create_task_group() as tasks,
    ):

        async def watch(mine: list[JobProgress]) -> None:
            mine += [now async for now in group.progress()]

        async def answer() -> None:
            answers.extend([each.worker_name async for each in group.as_completed()])

        tasks.start_soon(watch, reports[0])
        tasks.start_soon(watch, reports[1])
        tasks.start_soon(answer)
        events = [event async for event in group]
    assert sorted(events, key=lambda each: (each.worker_name, each.data["n"] if each.data else 0)) == [
        *(update("a", n) for n in range(3)),
        *(update("b", n) for n in range(2)),
    ]
    assert answers == ["b", "a"]
    for mine in reports:
        assert [each for now in mine for each in now.answers] == [completed("b", 2), completed("a", 3)]
        assert mine[-1].event == update("a", 2)


async def test_who_is_slow_misses_what_was_between_and_no_answer() -> None:
    """J20: nothing is kept for it."""
    async with (
        running(Counting("a", 9), Counting("b", 1), Counting("c", 2)) as runner,
        runner.job_group("c", "b", "a", name="count") as group,
    ):
        reports = group.progress()
        assert (await anext(reports)).answered == 0
        await anyio.sleep(5.5)
        assert await anext(reports) == JobProgress(
            "count", 3, 2, 0, (completed("b", 1), completed("c", 2)), update("a", 5)
        )


@pytest.mark.parametrize("seed", range(6))
def test_a_loop_tells_nothing_that_was_asked_for_meanwhile(backend: str, seed: int) -> None:
    """J20: it goes on when something else has happened, or when all is over."""
    told: list[JobProgress] = []
    again: list[JobProgress] = []

    async def watch(reports: Any) -> None:
        async for now in reports:
            if told and now.event == told[-1].event:
                again.append(now)
            told.append(now)

    async def main() -> None:
        async with (
            running(Counting("a", 4)) as runner,
            anyio.create_task_group() as tasks,
            runner.job("a", name="count") as asked,
        ):
            reports = asked.progress()
            tasks.start_soon(watch, reports)
            async for _ in asked:
                now = reports.now()
                told.append(now)

    run(main, backend=backend, seed=seed)
    assert [now.answered for now in again] == [1]


async def test_a_report_that_is_asked_for_does_not_wait() -> None:
    """J20: also when all is over, for those who have unwound."""
    async with running(Counting("a", 9), Counting("b", 1)) as runner:
        async with runner.job_group("a", "b", name="count") as group:
            reports = group.progress()
            assert (reports.now().answered, reports.now().answers) == (0, ())
            assert (await group.first()).worker_name == "b"
            assert [now.answered async for now in reports] == [1]
            assert group.waits_for == ["a"]
        last = reports.now()
        assert (last.answered, last.failed, [each.worker_name for each in last.answers]) == (2, 1, ["a"])
        assert [now async for now in reports] == []


async def test_no_line_behind_the_loop_runs_where_the_group_fails() -> None:
    """J8, J20: the body is cancelled, as in any loop over it."""
    behind = False
    async with running(Counting("a", 9), Counting("b", 1, fails=True)) as runner:
        with pytest.raises(JobGroupError, match="worker 'b' raised OSError: fell"):  # noqa: PT012 - the loop is it
            async with runner.job_group("a", "b", name="count") as group:
                async for _ in group.progress():
                    pass
                behind = True
        assert not behind
        assert current_time() == 1.5


async def test_a_job_of_one_worker_has_it_too() -> None:
    """J20"""
    async with running(Counting("a", 2, fails=True)) as runner:
        context = runner.job("a", name="count")
        with pytest.raises(NotRunningError, match="has not been asked for yet"):
            context.progress()
        with pytest.raises(NotRunningError, match="has not been asked for yet"):
            _ = context.waits_for
        with pytest.raises(JobError):  # noqa: PT012 - the context is what it comes out of
            async with context:
                reports = context.progress()
                async for _ in reports:
                    pass
        assert reports.now() == JobProgress("count", 1, 1, 1, (fell("a"),), update("a", 1))


async def test_a_group_of_none_is_complete() -> None:
    """J20"""
    async with running(Helper("a")) as runner, runner.job_group(name="echo") as group:
        assert [now async for now in group.progress()] == [JobProgress("echo", 0, 0, 0)]


async def test_no_event_is_kept_where_nobody_wants_to_know() -> None:
    """J20: it costs nothing then."""
    async with running(Counting("a", 1)) as runner, runner.job("a", name="count") as context:
        async for _ in context:
            pass
        assert context.progress().now().event is None


async def test_a_loop_that_never_waits_lets_others_run() -> None:
    """L2"""
    turns = 0
    async with (
        running(Helper("a")) as runner,
        runner.job("a", name="wait") as context,
        anyio.create_task_group() as tasks,
    ):

        async def others() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        tasks.start_soon(others)
        reports = context.progress()
        for n in range(200):
            context._client.queue_of(context._entered).last = ("update", "a", {"n": n})
            await anext(reports)
        assert turns
        tasks.cancel_scope.cancel()
        helper = runner.get_worker("a")
        assert isinstance(helper, Helper)
        helper.release.set()


@pytest.mark.parametrize("how", ["timeout", "exception", "error"])
async def test_a_loop_in_another_task_ends_with_the_group(how: str) -> None:
    """J20, J7, J8: also where nothing has happened but that the group is over."""
    ended: list[float] = []

    async def watch(reports: AsyncIterator[JobProgress]) -> None:
        async for _ in reports:
            pass
        ended.append(current_time())

    timeout, workers = 1.5 if how == "timeout" else None, [Counting("a", 4), Counting("b", 1, fails=how == "error")]
    async with running(*workers) as runner, anyio.create_task_group() as tasks:
        begun = current_time()
        with pytest.raises((JobGroupError, KeyError)):  # noqa: PT012 - the context is what raises
            async with runner.job_group("a", "b", name="count", timeout=timeout) as group:
                tasks.start_soon(watch, group.progress())
                if how == "exception":
                    await anyio.sleep(1.5)
                    raise KeyError(how)
                await anyio.sleep_forever()
    assert ended == [begun + (1 if how == "error" else 1.5)]


async def test_chunks_of_a_stream_are_told_the_last_one_first() -> None:
    """J20, J18: of those that have come since, whether a loop has taken them or not."""

    class Streaming(BaseWorker):
        @job(name="stream")
        async def stream(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            for n in range(6):
                yield {"n": n}
                if n % 2:
                    await anyio.sleep(1)

    async with running(Streaming("streaming")) as runner, runner.job("streaming", name="stream") as context:
        told = [now.event async for now in context.progress()]
    assert [None if event is None else (event.type, event.data) for event in told] == [
        None, *(("stream_data", {"n": n}) for n in (1, 3, 5)), ("stream_end", None),
    ]  # fmt: skip
