"""J6, J9, J13: jobs stand in line for a handler; a model says when each begins, how it ends, and who is told of that.

Each job has a delay, a timeout, a moment when its requester cancels it, the time that its handler takes, and the time
that its clean-up takes, or not; the handler has a limit, or a rate, or both, or neither. No two moments are the same.
"""

import math
from heapq import heappop, heappush
from random import Random
from typing import Any

import anyio
import attrs
from anyio import current_time
from hypothesis import given, settings
from hypothesis import strategies as st

from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    JobStatus,
    Rate,
    WorkerRunner,
    job,
)
from workerbus.testing import run


@attrs.frozen
class Plan:
    """What becomes of a job, in seconds; the delay, the timeout and the cancel count from when it is asked for."""

    asked: float
    work: float
    clean_up: float
    delay: float | None
    timeout: float | None
    cancel: float | None

    @property
    def ends(self) -> float:
        return self.asked + min(self.timeout or math.inf, self.cancel or math.inf)


def _about(seconds: float | None) -> Any:
    return None if seconds is None else round(seconds, 6)


@attrs.define
class Fate:
    """What has become of a job, and when."""

    begun: float | None = attrs.field(default=None, eq=_about)
    status: JobStatus | None = None
    answered: float | None = attrs.field(default=None, eq=_about)
    cancelled: str | None = None
    told: float | None = attrs.field(default=None, eq=_about)


def _some(seconds: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(1, seconds)


@st.composite
def plans(draw: st.DrawFn) -> list[Plan]:
    drawn = draw(
        st.lists(
            st.tuples(st.integers(0, 6), st.integers(1, 5), st.integers(0, 2), _some(5), _some(8), _some(8)),
            min_size=2,
            max_size=9,
        )
    )
    fraction = Random(0).random

    def moved(seconds: tuple[int | None, ...]) -> Any:
        return (None if each is None else each + fraction() / 2 for each in seconds)

    return sorted((Plan(*moved(seconds)) for seconds in drawn), key=lambda plan: plan.asked)


def model(plans: list[Plan], limit: float, rate: Rate | None) -> list[Fate]:
    """Say what is to become of jobs, moment by moment."""
    fates = [Fate() for _ in plans]
    moments: list[tuple[float, str, int]] = []
    line: list[int] = []
    at_work: set[int] = set()
    following = -math.inf  # when the next beginning is due, if all are even
    interval, burst = (0.0, 1) if rate is None else (rate.per / rate.count, rate.burst)
    for n, plan in enumerate(plans):
        heappush(moments, (plan.asked + (plan.delay or 0), "stands", n))
        if plan.ends < math.inf:
            heappush(moments, (plan.ends, "ends", n))
    while moments:
        now, what, n = heappop(moments)
        plan, fate = plans[n], fates[n]
        if what == "stands" and fate.status is None:
            line.append(n)
        elif what == "returns" and fate.cancelled is None:
            fate.status, fate.answered = JobStatus.COMPLETED, now
            at_work.remove(n)
        elif what == "ends" and fate.status is None:
            fate.cancelled = "timeout" if (plan.timeout or math.inf) < (plan.cancel or math.inf) else "no more"
            fate.told = now
            if n in at_work:
                heappush(moments, (now + plan.clean_up, "unwound", n))
            else:
                fate.status, fate.answered = JobStatus.CANCELLED, now
                line = [each for each in line if each != n]
        elif what == "unwound":
            fate.status, fate.answered = JobStatus.CANCELLED, now
            at_work.remove(n)
        while line and len(at_work) < limit and now >= following - (burst - 1) * interval:
            first = line.pop(0)
            fates[first].begun = now
            at_work.add(first)
            following = max(following, now) + interval
            heappush(moments, (now + plans[first].work, "returns", first))
        if line and len(at_work) < limit:
            heappush(moments, (following - (burst - 1) * interval, "time", 0))
    return fates


class Worker(BaseWorker):
    def __init__(self, plans: list[Plan], fates: list[Fate]) -> None:
        super().__init__("worker")
        self.plans, self.fates = plans, fates
        self.numbers: dict[str, int] = {}

    async def work(self, message: BusJobRequestMessage) -> None:
        n = message.payload["n"]
        assert self.fates[n].begun is None
        self.fates[n].begun = current_time()
        try:
            await anyio.sleep(self.plans[n].work)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.plans[n].clean_up)
            raise


class Hearing(Worker):
    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        n = self.numbers[message.job_id]
        assert self.fates[n].cancelled is None
        self.fates[n].cancelled, self.fates[n].told = message.reason, current_time()


class Asker(BaseWorker):
    def __init__(self, plans: list[Plan], fates: list[Fate], numbers: dict[str, int]) -> None:
        super().__init__("asker")
        self.plans, self.fates, self.numbers = plans, fates, numbers

    async def ask(self, n: int) -> None:
        plan = self.plans[n]
        await anyio.sleep(plan.asked)
        job_id = await self.request_job("worker", name="work", payload={"n": n}, delay=plan.delay, timeout=plan.timeout)
        self.numbers[job_id] = n
        if plan.cancel is not None:
            await anyio.sleep(plan.cancel)
            await self.cancel_job_group(job_id, reason="no more")

    async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        fate = self.fates[self.numbers[message.job_id]]
        assert fate.status is None
        fate.status, fate.answered = message.status, current_time()


rates = st.builds(Rate, st.sampled_from([0.5, 1.0, 2.0]), burst=st.sampled_from([1, 2, 3]))


@given(
    plans=plans(),
    limit=st.sampled_from([None, 1, 2]),
    rate=st.none() | rates,
    hears=st.booleans(),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 50),
)
@settings(max_examples=80)
def test_jobs_have_their_turns_as_the_model_says(
    plans: list[Plan], limit: int | None, rate: Rate | None, hears: bool, backend: str, seed: int
) -> None:
    """J6, J9, J13: they begin in the order of arrival, as soon as limit and rate allow it, and no other one is late."""
    expected = model(plans, limit or math.inf, rate)
    fates = [Fate() for _ in plans]
    base: Any = Hearing if hears else Worker

    class Limited(base):  # type: ignore[misc]  # one of two
        work = job(name="work", limit=limit, rate=rate)(Worker.work)

    async def main() -> None:
        worker = Limited(plans, fates)
        asker = Asker(plans, fates, worker.numbers)
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(worker, asker, wait=True)
            async with anyio.create_task_group() as tasks:
                for n in range(len(plans)):
                    tasks.start_soon(asker.ask, n)
            await anyio.sleep(100)

    run(main, backend=backend, seed=seed)
    for fate, foreseen in zip(fates, expected, strict=True):
        if foreseen.cancelled == "timeout":  # whether the answer to that is told as one, too, nobody has promised
            fate.status = foreseen.status = fate.answered = foreseen.answered = None
        if not hears:
            foreseen.cancelled = foreseen.told = None
    assert fates == expected
