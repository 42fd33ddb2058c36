"""Streams and their readers, as plans that are drawn and then played (J5, J7, J18, J19).

A plan says what each worker does, and what each task of the requester's does meanwhile. While it is played, whatever a
worker sends and whatever a task takes is written down, and looked at in that moment.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import anyio
import anyio.lowlevel
from anyio import CancelScope, sleep, sleep_forever
from attrs import field, frozen
from hypothesis import strategies as st

from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobFailure, JobGroupError, JobStatus, job
from workerbus.worker._core import core_of

PATIENCE = 500.0
"""When the requester's own scope is cancelled; no plan takes so long, unless something in it waits for ever."""

Deed = Literal["chunk", "update"] | float
End = Literal["return", "end stream", "raise", "fail", "hang", "stop"]
Act = tuple[Literal["take", "drop", "rest", "pause", "raise", "cancel"], Any]


class BodyError(Exception):
    """What the body of a context raises."""


@frozen
class WorkerPlan:
    """What a worker does.

    Args:
        deeds: What it does in turn: it sends a chunk or an update, or lets so many seconds pass.
        end: How its handler ends.
        generator: Whether its handler is a generator.
        clean_up: How many seconds its clean-up takes.
    """

    deeds: tuple[Deed, ...] = ()
    end: End = "return"
    generator: bool = True
    clean_up: float = 0.0


@frozen(kw_only=True)
class StreamPlan:
    """What workers and their requester do.

    Args:
        workers: What each worker does.
        window: How many chunks each may be ahead.
        timeout: The job's seconds.
        cancel_on_error: Whether the first failure ends a group.
        tasks: What each task does in the body; the first is the body's own.
        seed: Of the schedule.
    """

    workers: tuple[WorkerPlan, ...]
    window: int = 1
    timeout: float | None = None
    cancel_on_error: bool = True
    tasks: tuple[tuple[Act, ...], ...] = field(default=((),))
    seed: int = 0

    @property
    def ends(self) -> bool:
        """Whether it comes to its end by itself."""
        return self.timeout is not None or not any(worker.end == "hang" for worker in self.workers)


pauses = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0])
deeds = st.lists(st.sampled_from(["chunk"] * 6 + ["update"]) | pauses, max_size=14).map(tuple)
loops = st.integers(0, 2)
acts = st.one_of(
    st.tuples(st.just("take"), st.tuples(loops, st.integers(1, 4))),
    st.tuples(st.just("drop"), loops),
    st.tuples(st.just("pause"), pauses),
    st.tuples(st.just("rest"), loops),
    st.sampled_from([("raise", None), ("cancel", None), ("rest", 0), ("rest", 1)]),
)

worker_plans = st.builds(
    WorkerPlan,
    deeds,
    st.sampled_from(["return", "return", "return", "end stream", "raise", "fail", "hang", "stop"]),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 0.5]),
)

stream_plans = st.builds(
    StreamPlan,
    workers=st.lists(worker_plans, min_size=1, max_size=3).map(tuple),
    window=st.sampled_from([1, 1, 2, 3, 5]),
    timeout=st.none() | st.sampled_from([0.0, 1.0, 2.5, 10.0]),
    cancel_on_error=st.booleans(),
    tasks=st.lists(st.lists(acts, max_size=6).map(tuple), min_size=1, max_size=2).map(tuple),
    seed=st.integers(0, 1000),
).filter(lambda plan: plan.ends)


class Source(BaseWorker):
    """Does what its plan says, and tells the log of each chunk."""

    def __init__(self, name: str, plan: WorkerPlan, log: "Log") -> None:
        super().__init__(name)
        self.plan = plan
        self.log = log
        self.begun = self.closed = 0

    async def act(self, deed: Deed, job_id: str) -> None:
        if deed == "update":
            await self.send_job_update(job_id, {"by": self.name})
        else:
            assert isinstance(deed, float)
            await sleep(deed)

    async def finish(self, job_id: str) -> None:
        match self.plan.end:
            case "raise":
                raise ZeroDivisionError
            case "fail":
                raise JobFailure("no more")
            case "hang":
                await sleep_forever()
            case "stop":
                await self.stop()
                await sleep_forever()
            case "end stream":
                await self.send_job_stream_end(job_id, {"by": "hand"})
                self.log.answered.add(self.name)

    async def clean_up(self) -> None:
        with CancelScope(shield=True):
            await sleep(self.plan.clean_up)
        self.closed += 1


class Yields(Source):
    """Its handler is a generator."""

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        self.begun += 1
        try:
            for deed in self.plan.deeds:
                if deed == "chunk":
                    self.log.sends(self.name)
                    yield {"n": self.log.sent[self.name]}
                    self.log.has_sent(self.name)
                else:
                    await self.act(deed, message.job_id)
            await self.finish(message.job_id)
        finally:
            await self.clean_up()


class Sends(Source):
    """Its handler sends."""

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> None:
        self.begun += 1
        try:
            for deed in self.plan.deeds:
                if deed == "chunk":
                    self.log.sends(self.name)
                    await self.send_job_stream_data(message.job_id, {"n": self.log.sent[self.name]})
                    self.log.has_sent(self.name)
                else:
                    await self.act(deed, message.job_id)
            await self.finish(message.job_id)
        finally:
            await self.clean_up()


class Log:
    """What has happened, and the laws that hold at each moment."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.sent: dict[str, int] = defaultdict(int)  # handed to the library, the last of them perhaps still waiting
        self.taken: dict[str, list[int]] = defaultdict(list)
        self.free: dict[str, int] = defaultdict(int)  # how many were sent when nobody read
        self.answered: set[str] = set()
        self.loops: dict[int, Any] = {}
        self.reading: set[int] = set()
        self.closing = False

    def sends(self, worker: str) -> None:
        self.sent[worker] += 1

    def has_sent(self, worker: str) -> None:
        """J19: no further ahead of whoever reads than the window."""
        if not self.reading or self.closing:
            self.free[worker] = self.sent[worker]
        assert self.sent[worker] <= max(self.free[worker], len(self.taken[worker])) + self.window

    def takes(self, worker: str, number: int) -> None:
        """J7: the next one, whoever takes it."""
        self.taken[worker].append(number)
        assert number == len(self.taken[worker]) <= self.sent[worker]


class Reader:
    """The requester's tasks."""

    def __init__(self, log: Log, context: Any, single: str | None) -> None:
        self.log = log
        self.context = context
        self.single = single

    async def next_of(self, loop: int) -> bool:
        """Take one chunk; loop 1 is over all events, the others are over chunks."""
        log = self.log
        events = log.loops.get(loop)
        if events is None:
            events = log.loops[loop] = aiter(self.context) if loop == 1 else self.context.stream()
        if loop not in log.reading:
            log.reading.add(loop)
        try:
            while True:
                item = await anext(events)
                if loop != 1:
                    worker, data = (self.single, item) if self.single is not None else item
                elif item.type == "stream_data":
                    worker, data = self.single or item.worker_name, item.data
                else:
                    continue
                log.takes(worker, data["n"])
                return True
        except StopAsyncIteration:
            log.reading.discard(loop)
            return False

    async def play(self, acts: tuple[Act, ...], scope: CancelScope) -> None:
        for act, what in acts:
            match act:
                case "take":
                    loop, count = what
                    for _ in range(count):
                        await self.next_of(loop)
                case "rest":
                    while await self.next_of(what):
                        pass
                case "drop":
                    self.drop(what)
                case "pause":
                    await sleep(what)
                case "raise":
                    raise BodyError
                case "cancel":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()

    def drop(self, loop: int) -> None:
        self.log.loops.pop(loop, None)
        self.log.reading.discard(loop)


async def play(plan: StreamPlan) -> None:
    """Play a plan, and see that its laws hold."""
    log = Log(plan.window)
    sources = [(Yields if each.generator else Sends)(f"w{n}", each, log) for n, each in enumerate(plan.workers)]
    outcome: BaseException | None = None
    async with running(*sources, grace_period=1.0) as runner:
        names = [source.name for source in sources]
        options: dict[str, Any] = {"name": "stream", "timeout": plan.timeout, "max_buffered_events": plan.window}
        single = names[0] if len(names) == 1 else None
        if single is not None:
            context: Any = runner.job(single, **options)
        else:
            context = runner.job_group(*names, **options, cancel_on_error=plan.cancel_on_error)
        reader = Reader(log, context, single)
        try:
            with anyio.move_on_after(PATIENCE) as scope:
                try:
                    async with context:
                        async with anyio.create_task_group() as tasks:
                            for acts in plan.tasks[1:]:
                                tasks.start_soon(reader.play, acts, scope)
                            await reader.play(plan.tasks[0], scope)
                        log.closing = True
                finally:
                    check_left(log, sources, runner)
        except (JobError, JobGroupError, BodyError, ExceptionGroup) as exc:
            outcome = exc
        assert anyio.current_time() < PATIENCE, "somebody waits for ever"
        if not scope.cancel_called:
            await check_rest(log, context, plan, sources, outcome)
        check_outcome(plan, outcome, scope)


def check_left(log: Log, sources: Sequence[Source], runner: Any) -> None:
    """J5, J18: as soon as the context is left, handlers have unwound, and nothing of the job is there."""
    for source in sources:
        if source.name not in log.answered:
            assert source.begun == source.closed
        assert source.active_jobs == {}
    assert core_of(runner).job_client.groups == {}


async def check_rest(
    log: Log, context: Any, plan: StreamPlan, sources: Sequence[Source], outcome: BaseException | None
) -> None:
    """J7: what nobody has taken is still there, in order; and it is all, where a worker has completed its job."""
    reader = Reader(log, context, sources[0].name if len(sources) == 1 else None)
    log.loops.clear()
    while await reader.next_of(0):
        pass
    if outcome is None:
        for name, status in context.statuses.items():
            if status is JobStatus.COMPLETED:
                assert len(log.taken[name]) == log.sent[name]


def check_outcome(plan: StreamPlan, outcome: BaseException | None, scope: CancelScope) -> None:
    """J8: there is a reason for whatever is raised."""
    acts = {act for task in plan.tasks for act, _ in task}
    bad = {"raise", "fail", "stop"} & {worker.end for worker in plan.workers}
    if isinstance(outcome, TimeoutError):
        assert plan.timeout is not None
    elif isinstance(outcome, JobError | JobGroupError):
        assert bad
        assert plan.cancel_on_error or len(plan.workers) == 1
    elif outcome is not None:
        assert "raise" in acts
    if scope.cancel_called:
        assert "cancel" in acts
