"""S1, S2: whatever happens to a pool, each job is answered once, the order is kept, and nobody has more than he may.

What is to happen is drawn: jobs that take their time, fail, crash their member, stream, or are cancelled; new sizes,
also several at once; members that are ended.
"""

import contextlib
import logging
from collections import Counter
from itertools import pairwise
from typing import Any

import anyio
import hypothesis.strategies as st
import pytest
from anyio import current_time
from hypothesis import given, settings

from support.pools import Crash
from support.requesters import Raw
from workerbus import (
    Backoff,
    BaseWorker,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    JobRequestOptions,
    JobStatus,
    WorkerPool,
    WorkerRunner,
    job,
)
from workerbus.testing import run

ACTS = st.one_of(
    st.tuples(
        st.just("job"),
        st.sampled_from(["work", "work", "fail", "crash", "stream"]),
        st.tuples(st.integers(0, 4), st.sampled_from([None, None, 0, 1, 3, 7])),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 30), st.none()),
    st.tuples(st.just("resize"), st.integers(1, 4), st.none()),
    st.tuples(st.just("resize meanwhile"), st.integers(1, 4), st.none()),
    st.tuples(st.just("end a member"), st.integers(0, 3), st.none()),
    st.tuples(st.just("pause"), st.integers(1, 6), st.none()),
)
STATUS = {"work": JobStatus.COMPLETED, "stream": JobStatus.COMPLETED, "fail": JobStatus.ERROR, "crash": JobStatus.ERROR}


class Busy(BaseWorker):
    """Notes which of its jobs run at once."""

    def __init__(self, name: str, notes: "Notes") -> None:
        super().__init__(name)
        self.notes = notes
        self.running = 0

    async def run_job(self, message: BusJobRequestMessage) -> None:
        self.notes.begun.append((current_time(), message.job_id))
        self.running += 1
        self.notes.most = max(self.notes.most, self.running)
        try:
            await anyio.sleep(message.payload["seconds"])
        finally:
            self.running -= 1

    @job(name="work")
    async def work(self, message: BusJobRequestMessage) -> None:
        await self.run_job(message)

    @job(name="fail")
    async def fail(self, message: BusJobRequestMessage) -> None:
        await self.run_job(message)
        raise ValueError("it went wrong")

    @job(name="crash")
    async def crash(self, message: BusJobRequestMessage) -> None:
        await self.run_job(message)
        raise Crash("a member has crashed")

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> Any:
        await self.run_job(message)
        for n in range(3):
            yield {"n": n}


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Notes:
    """What the members have done, and what was asked of them."""

    def __init__(self) -> None:
        self.begun: list[tuple[float, str]] = []
        self.most = 0
        self.asked: dict[str, str] = {}
        self.cancelled: set[str] = set()  # or may have been, as their time was up


async def play(acts: list[tuple[str, Any, Any]], size: int, concurrency: int, priorities: bool) -> None:
    notes, ended = Notes(), False
    pool = WorkerPool(
        "pool",
        lambda name: Busy(name, notes),
        size=size,
        concurrency=concurrency,
        max_restarts=1000,
        backoff=Backoff(initial=0.25, factor=1, jitter=0),
    )
    async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as tasks:
        runner.add_event_handler("on_error", lambda *_: None)  # one that crashes when it is to go is not made anew
        await runner.add_workers(pool)
        raw = await Raw.on(runner.bus)
        for act, what, times in acts:
            if act == "job":
                job_id = f"{len(notes.asked):03}"
                notes.asked[job_id] = what
                options = JobRequestOptions(priority=len(notes.asked) % 3) if priorities else None
                seconds, seconds_left = times
                if seconds_left is not None:
                    notes.cancelled.add(job_id)
                payload = {"seconds": seconds}
                await raw.ask(job_id, "pool", what, payload=payload, options=options, seconds_left=seconds_left)
            elif act == "cancel" and notes.asked:
                job_id = f"{what % len(notes.asked):03}"
                notes.cancelled.add(job_id)
                await raw.cancel(job_id, "pool")
            elif act == "resize":
                await pool.resize(what)
            elif act == "resize meanwhile":
                tasks.start_soon(pool.resize, what)
            elif act == "end a member":
                ended = True
                await runner.bus.send(BusEndWorkerMessage("go", source="raw", target=f"pool/{what}"))
            elif act == "pause":
                await anyio.sleep(what)
        await raw.until_answered(*notes.asked)
        await anyio.sleep(1)  # for the last restarts
        counts = pool.statistics()
        assert (counts.waiting, counts.running, counts.active_jobs) == (0, 0, 0)
        assert len(pool.children) == len(counts.members) == pool.size
        assert all(member.ready and not member.running for member in counts.members.values())
        assert current_time() < 1000
    check(raw, notes, concurrency, priorities=priorities, ended=ended)


def check(raw: Raw, notes: Notes, concurrency: int, *, priorities: bool, ended: bool) -> None:
    assert notes.most <= concurrency
    assert max(Counter(job_id for _, job_id in notes.begun).values(), default=1) == 1  # none was done twice
    if not priorities:
        for (earlier, first), (later, second) in pairwise(sorted(notes.begun)):
            assert first < second or earlier == later  # in one moment, tasks begin as they like
    crashes = "crash" in notes.asked.values()
    for job_id, name in notes.asked.items():
        [(status, _)] = raw.answers(job_id)
        allowed = {STATUS[name]}
        if ended or job_id in notes.cancelled:
            allowed.add(JobStatus.CANCELLED)
        if crashes and concurrency > 1:
            allowed.add(JobStatus.ERROR)  # the member has crashed in another job
        assert status in allowed, (job_id, name, status)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=40)
@given(st.lists(ACTS, min_size=8, max_size=30), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_each_job_of_a_pool_is_answered_once_and_in_order_whatever_happens(
    backend: Any, acts: list[tuple[str, Any, Any]], size: int, concurrency: int, priorities: bool, seed: int
) -> None:
    """S1, S2, J1, J5."""
    handler = Kept(logging.ERROR)
    logger = logging.getLogger("workerbus.worker")  # which tells of what the library itself could not do
    logger.addHandler(handler)
    try:
        run(play, acts, size, concurrency, priorities, backend=backend, seed=seed)
    finally:
        logger.removeHandler(handler)
    assert not handler.records


class Fragile(Busy):
    """Takes its time to be attached."""

    async def attach(self, **kwargs: Any) -> None:
        await anyio.sleep(0.5)
        await super().attach(**kwargs)


CHANGES = st.one_of(
    st.tuples(st.just("job"), st.sampled_from(["work", "later", "crash", "crash"]), st.integers(0, 6)),
    st.tuples(st.just("resize"), st.integers(1, 3), st.sampled_from([None, None, 0.25, 0.75])),
    st.tuples(st.just("factory"), st.booleans(), st.none()),
    st.tuples(st.just("pause"), st.integers(1, 4), st.none()),
)


async def lose_members(changes: list[tuple[str, Any, Any]], size: int, restarts: int) -> None:
    notes, works = Notes(), [True]

    def make(name: str) -> Fragile:
        if not works[0]:
            raise OSError("no device")
        return Fragile(name, notes)

    backoff = Backoff(initial=0.25, factor=1, jitter=0)
    pool = WorkerPool("pool", make, size=size, max_restarts=restarts, within=1000, backoff=backoff, shared="part")
    async with WorkerRunner(handle_sigint=False) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.add_workers(pool, wait=True)
        raw = await Raw.on(runner.bus)
        for change, what, times in changes:
            if change == "job":
                job_id = f"{len(notes.asked):03}"
                name, options = ("work", JobRequestOptions(delay=1.5)) if what == "later" else (what, None)
                notes.asked[job_id] = name
                await raw.ask(job_id, pool.name, name, payload={"seconds": times / 4}, options=options)
            elif change == "resize":
                expected = pool.size
                with anyio.move_on_after(times), contextlib.suppress(OSError):
                    await pool.resize(what)
                    expected = what
                assert pool.size == expected
            elif change == "factory":
                works[0] = what
            else:
                await anyio.sleep(what / 2)
        await raw.until_answered(*notes.asked)  # by whomever: none waits for a member that will not come
        await anyio.sleep(2)  # for the last restarts
        assert runner.registry.shared_pools.places("pool") == pool.size
        ready = any(member.ready for member in pool.statistics().members.values())
        await raw.ask("last", pool.name, "work", payload={"seconds": 1})
        await raw.until_answered("last")
        [(status, answer)] = raw.answers("last")
        assert (status is JobStatus.COMPLETED) == ready
        assert ready or (answer or {})["type"] == "WorkerFailed"
        works[0] = True
        await pool.resize(2)
        await raw.ask("again", pool.name, "work", payload={"seconds": 1})
        await raw.until_answered("again")
        assert len(pool.statistics().members) == len(pool.children) == 2
        assert raw.answers("again")[0][0] is JobStatus.COMPLETED
    for job_id, name in notes.asked.items():
        assert [status for status, _ in raw.answers(job_id)] in ([STATUS[name]], [JobStatus.ERROR])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=30)
@given(st.lists(CHANGES, min_size=4, max_size=16), st.integers(1, 2), st.integers(0, 1), st.integers(0, 99))
def test_no_job_of_a_pool_waits_for_members_that_will_not_come(
    backend: Any, changes: list[tuple[str, Any, Any]], size: int, restarts: int, seed: int
) -> None:
    """S1, S2: members are given up, a pool that grows gets none, or is cut off; what it is to have counts elsewhere."""
    run(lose_members, changes, size, restarts, backend=backend, seed=seed, limit=1000)
