"""J13: how many jobs of a handler begin in a time, in the order of arrival."""

import math
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import current_time
from hypothesis import given, settings
from hypothesis import strategies as st

from support.requesters import Raw
from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobStatus, JobTimeoutError, Rate, WorkerRunner, job
from workerbus.jobs._limiter import PacedLimiter
from workerbus.testing import run


class Paced(BaseWorker):
    """Notes when each job begins; a job takes as many seconds as it says."""

    def __init__(self) -> None:
        super().__init__("paced")
        self.begun: list[tuple[Any, float]] = []

    async def work(self, message: BusJobRequestMessage) -> None:
        payload = message.payload or {}
        self.begun.append((payload.get("n"), current_time()))
        await anyio.sleep(payload.get("seconds", 0))

    @property
    def times(self) -> list[float]:
        return [time for _, time in self.begun]


def paced(rate: Rate | float, **how: Any) -> Paced:
    class Worker(Paced):
        @job(name="do", rate=rate, **how)
        async def do(self, message: BusJobRequestMessage) -> None:
            await self.work(message)

    return Worker()


async def ask(runner: WorkerRunner, n: int, **payload: Any) -> None:
    await runner.job("paced", name="do", payload={"n": n, **payload})


async def ask_many(runner: WorkerRunner, many: int, **payload: Any) -> None:
    async with anyio.create_task_group() as tasks:
        for n in range(many):
            tasks.start_soon(partial(ask, runner, n, **payload))


async def test_jobs_begin_evenly() -> None:
    """J13: a number is so many in a second, one at a time."""
    worker = paced(4)
    async with running(worker) as runner:
        await ask_many(runner, 5)
    assert worker.times == [0, 0.25, 0.5, 0.75, 1]


async def test_they_begin_in_the_order_of_arrival() -> None:
    """J13: decided when the request is dispatched."""
    worker, asker = paced(4), BaseWorker("asker")
    async with running(worker, asker):
        for n in range(5):
            await asker.request_job("paced", name="do", payload={"n": n})
        await anyio.sleep(2)
    assert [n for n, _ in worker.begun] == [0, 1, 2, 3, 4]


async def test_after_a_pause_as_many_as_the_burst_begin_at_once() -> None:
    """J13: and no more, however long the pause was."""
    worker = paced(Rate(2, per=1, burst=3))
    async with running(worker) as runner:
        await ask_many(runner, 4)
        assert worker.times == [0, 0, 0, 0.5]
        await anyio.sleep(10)
        await ask_many(runner, 5)
    assert worker.times[4:] == [10.5, 10.5, 10.5, 11, 11.5]


async def test_a_short_pause_gives_a_part_of_the_burst_back() -> None:
    """J13"""
    worker = paced(Rate(1, burst=3))
    async with running(worker) as runner:
        await ask_many(runner, 3)
        await anyio.sleep(2)
        await ask_many(runner, 3)
    assert worker.times == [0, 0, 0, 2, 2, 3]


async def test_a_limit_holds_beside_the_rate() -> None:
    """J13: a job begins when there is a place and it is time."""
    worker = paced(Rate(2, burst=2), limit=2)
    async with running(worker) as runner:
        await ask_many(runner, 5, seconds=0.75)
    assert worker.times == [0, 0, 0.75, 1, 1.5]


async def test_one_at_a_time_holds_beside_the_rate() -> None:
    """J13"""
    worker = paced(10, sequential=True)
    async with running(worker) as runner:
        await ask_many(runner, 3, seconds=0.25)
    assert worker.times == [0, 0.25, 0.5]


async def test_who_leaves_the_line_takes_nobody_s_time() -> None:
    """J13: the cancelled one never begins, and the one behind it begins when it would have."""
    worker, asker = paced(1), BaseWorker("asker")
    async with running(worker, asker):
        ids = [await asker.request_job("paced", name="do", payload={"n": n}) for n in range(4)]
        await asker.cancel_job_group(ids[1])
        await anyio.sleep(5)
    assert worker.begun == [(0, 0), (2, 1), (3, 2)]


async def test_a_line_that_all_have_left_begins_anew() -> None:
    """J13: the next one comes when its time has come, and waits no longer."""
    worker, asker = paced(1), BaseWorker("asker")
    async with running(worker, asker) as runner:
        ids = [await asker.request_job("paced", name="do", payload={"n": n}) for n in range(3)]
        for job_id in ids[1:]:
            await asker.cancel_job_group(job_id)
        await anyio.sleep(0.5)
        await ask(runner, 3)
        assert current_time() == 1
        await anyio.sleep(5)
        await ask(runner, 4)
        assert current_time() == 6


async def test_a_job_whose_time_is_up_in_the_line_never_begins() -> None:
    """J6, J13: and the error says what it waited for."""
    worker = paced(Rate(1, per=4))
    async with running(worker) as runner:
        await ask(runner, 0)
        with pytest.raises(JobTimeoutError) as caught:
            await runner.job("paced", name="do", timeout=1)
        assert str(caught.value) == "job 'do' at 'paced': timeout after 1 seconds (waiting for its turn: 'paced')"
    assert len(worker.begun) == 1


async def test_a_time_that_came_when_nobody_waited_any_more_is_no_time_for_the_next() -> None:
    """J13: and that one gets another."""
    worker = paced(1)
    async with running(worker) as runner:
        await ask(runner, 0)
        with anyio.move_on_after(0.5):
            await ask(runner, 1)
        await anyio.sleep(1)
        await ask_many(runner, 2)
    assert worker.times == [0, 1.5, 2.5]


async def test_a_worker_sees_by_itself_that_the_time_of_a_job_is_up_that_waits_until_it_may_begin() -> None:
    """J6, J13: whether its requester says so or not."""
    worker = paced(Rate(1, per=10))
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "paced", "do")
        await raw.ask("2", "paced", "do", seconds_left=3)
        _, answer = await raw.answer("2")
        assert answer == {"error": "timeout", "type": "TimeoutError", "waited_for": "its turn"}
        assert current_time() == 3


async def test_those_who_wait_for_their_time_are_answered_when_the_worker_stops() -> None:
    """J4"""
    worker = paced(Rate(1, per=100))
    async with running(worker) as runner:
        await ask(runner, 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.stop)
            with pytest.raises(JobError) as caught:
                await ask(runner, 1)
        assert caught.value.statuses == {"paced": JobStatus.CANCELLED}


async def test_each_worker_has_a_rate_of_its_own() -> None:
    """J13: as a limit is."""

    class Worker(Paced):
        @job(name="do", rate=1)
        async def do(self, message: BusJobRequestMessage) -> None:
            await self.work(message)

    first, second = Worker(), Worker()
    async with running(first) as one, running(second) as other:
        await ask(one, 0)
        await ask(other, 0)
    assert first.times == second.times == [0]


def test_who_comes_when_it_is_time_for_another_stands_behind_that_one() -> None:
    """J13: the timer may be a moment late, and nobody overtakes because of it."""
    now = [0.0]
    limiter: PacedLimiter[str] = PacedLimiter(math.inf, Rate(1), lambda: now[0])
    assert [limiter.stand(name) for name in ("first", "second")] == [True, False]
    now[0] = 1.5
    assert not limiter.stand("third")
    assert limiter.following() == "second"
    assert limiter.line == ["third"]
    assert (limiter.following(), limiter.due_at) == (None, 2.5)


@pytest.mark.parametrize("rate", [0, -1, math.inf, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    """N8: where the handler is written."""
    with pytest.raises(ValueError, match=r"^Rate: count is a finite number above 0, not "):
        job(name="do", rate=rate)
    with pytest.raises(ValueError, match=r"^Rate: per is a finite number above 0, not "):
        Rate(1, per=rate)


def test_arguments_of_other_types_are_refused() -> None:
    """N8"""
    for value in ("10", True):
        with pytest.raises(TypeError, match=r"^Rate: count is a number, not "):
            job(name="do", rate=value)  # type: ignore[arg-type]  # the mistake; a bool passes for an int
    with pytest.raises(TypeError, match=r"^Rate: burst is a whole number, not 1.5$"):
        Rate(1, burst=1.5)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match=r"^Rate: burst is at least 1, not 0$"):
        Rate(1, burst=0)


@given(
    gaps=st.lists(st.integers(0, 12), min_size=1, max_size=12),
    takes=st.lists(st.integers(0, 12), min_size=12, max_size=12),
    interval=st.integers(1, 4),
    burst=st.integers(1, 4),
    limit=st.none() | st.integers(1, 3),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 50),
)
@settings(deadline=None, max_examples=60)
def test_each_job_begins_as_soon_as_it_may_and_no_sooner(
    gaps: list[int], takes: list[int], interval: int, burst: int, limit: int | None, backend: str, seed: int
) -> None:
    """J13: whatever comes when and takes how long, under any schedule."""
    worker, arrivals = paced(Rate(1, per=interval / 4, burst=burst), limit=limit), []

    async def main() -> None:
        asker = BaseWorker("asker")
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(worker, asker, wait=True)
            for n, gap in enumerate(gaps):
                await anyio.sleep(gap / 4)
                arrivals.append(current_time())
                await asker.request_job("paced", name="do", payload={"n": n, "seconds": takes[n] / 4})
            await anyio.sleep(1000)

    run(main, backend=backend, seed=seed)
    assert [n for n, _ in worker.begun] == list(range(len(gaps)))
    begun: list[float] = []
    ends: list[float] = []
    for n, arrival in enumerate(arrivals):
        # It may begin when it has come, those before it have, there is a place, and the rate lets it.
        may = max(arrival, begun[-1] if begun else 0.0)
        if limit is not None and n >= limit:
            may = max(may, sorted(ends)[n - limit])
        due = may
        for back in range(1, n + 1):  # in any time no more than the burst, and what the rate adds to it
            if back >= burst:
                due = max(due, begun[n - back] + (back - burst + 1) * interval / 4)
        begun.append(due)
        ends.append(due + takes[n] / 4)
    assert worker.times == begun


@given(
    gaps=st.lists(st.integers(0, 2), min_size=6, max_size=16),
    stalls=st.lists(st.tuples(st.integers(1, 4), st.integers(2, 10)), min_size=1, max_size=3),
    interval=st.integers(1, 3),
    burst=st.integers(1, 4),
    limit=st.none() | st.integers(2, 3),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 50),
)
@settings(deadline=None, max_examples=20)
def test_an_event_loop_that_stands_still_for_a_while_delays_jobs_and_loses_none(
    gaps: list[int],
    stalls: list[tuple[int, int]],
    interval: int,
    burst: int,
    limit: int | None,
    backend: str,
    seed: int,
) -> None:
    """J13: all whose time has come meanwhile begin after it, and those behind them when the rate lets them."""
    worker, arrivals, stood_still = paced(Rate(1, per=interval / 4, burst=burst), limit=limit), [], []

    async def stall() -> None:
        await anyio.sleep(1 / 8)
        for after, seconds in stalls:
            await anyio.sleep(after / 4)
            since = current_time()
            while current_time() < since + seconds / 4:
                pass
            stood_still.append((since, current_time()))

    async def main() -> None:
        asker = BaseWorker("asker")
        async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as tasks:
            await runner.add_workers(worker, asker, wait=True)
            tasks.start_soon(stall)
            for n, gap in enumerate(gaps):
                await anyio.sleep(gap / 4)
                await asker.request_job("paced", name="do", payload={"n": n})
                arrivals.append(current_time())
            await anyio.sleep(1000)

    run(main, backend=backend, seed=seed)
    begun = dict(worker.begun)  # of those that begin in one step, the schedule says whose task is the first to run
    assert sorted(begun) == list(range(len(gaps)))
    for n, arrival in enumerate(arrivals):
        due = max(arrival, begun[n - 1] if n else 0.0)
        for back in range(1, n + 1):
            if back >= burst:
                due = max(due, begun[n - back] + (back - burst + 1) * interval / 4)
        for since, until in stood_still:
            if since <= due < until:
                due = until
        assert begun[n] == pytest.approx(due, abs=0.05)
