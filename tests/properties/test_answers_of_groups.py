"""J20: `first`, `quorum` and `as_completed` beside a model that walks through the answers, with members that stream."""

from collections import defaultdict
from typing import Any, Literal

import anyio
from anyio import current_time
from attrs import field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.workers import running
from workerbus import JobAnswer, JobGroupError, JobGroupTimeoutError, JobStatus, WorkerRunner
from workerbus.testing import Behaviour, ScriptedWorker, run

many = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Ended = Literal["enough", "all", "failed", "too few", "timeout"]


@frozen
class Member:
    """A worker of a group.

    Args:
        at: After how many seconds it answers; no two of a group answer at the same time.
        status: With which status.
        chunks: How many chunks it streams before that, or None.
        generator: Whether by a generator; only of use for one that completes.
        clean_up: How many seconds it needs to unwind.
    """

    at: int
    status: JobStatus = JobStatus.COMPLETED
    chunks: int | None = None
    generator: bool = False
    clean_up: float = 0.0

    @property
    def behaviour(self) -> Behaviour:
        chunks = None if self.chunks is None else [{"n": n} for n in range(self.chunks)]
        options: dict[str, Any] = {"after": float(self.at), "chunks": chunks, "clean_up": self.clean_up}
        if self.status is JobStatus.ERROR:
            return Behaviour("raise", generator=self.generator and chunks is not None, **options)
        if self.generator and chunks is not None and self.status is JobStatus.COMPLETED:
            return Behaviour(generator=True, **options)
        return Behaviour(status=self.status, **options)


@frozen(kw_only=True)
class Plan:
    """What is asked of whom.

    Args:
        members: The workers.
        wanted: How many answers are waited for; None to take each as it comes.
        short: Whether the group is asked for in one line, and not in a block.
        cancel_on_error: Whether the first answer that is not COMPLETED ends it.
        timeout: Its seconds; answers come at whole ones.
        reads: Whether another task reads the streams meanwhile, with a window of one chunk.
        seed: Of the schedule.
    """

    members: tuple[Member, ...]
    wanted: int | None = None
    short: bool = False
    cancel_on_error: bool = True
    timeout: float | None = None
    reads: bool = False
    seed: int = field(default=0)


@frozen
class Expected:
    """How a plan comes out.

    Args:
        ended: Why.
        at: When that is decided, in seconds.
        answers: The workers whose answers are returned, or taken by the loop, in order.
        left: When the context has been left: those that were told to stop have unwound.
    """

    ended: Ended
    at: float
    answers: tuple[str, ...]
    left: float


def expected(plan: Plan) -> Expected:
    """Walk through the answers in the order in which they come."""
    order = sorted((member.at, f"w{number}", member) for number, member in enumerate(plan.members))
    taken: list[str] = []
    done: list[str] = []

    def at_end(ended: Ended, at: float, answers: list[str]) -> Expected:
        clean_up = max((member.clean_up for when, _, member in order if when > at), default=0.0)
        return Expected(ended, at, tuple(answers), at + clean_up)

    for number, (at, name, member) in enumerate(order):
        if plan.timeout is not None and plan.timeout < at:
            return at_end("timeout", plan.timeout, taken)
        if member.status is JobStatus.COMPLETED:
            done.append(name)
        elif plan.cancel_on_error:
            return at_end("failed", at, taken)
        taken.append(name)
        if plan.wanted is not None:
            if len(done) == plan.wanted:
                return at_end("enough", at, done)
            if len(done) + len(order) - number - 1 < plan.wanted:
                return at_end("too few", at, [])
    return at_end("all", order[-1][0], taken)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 4))
    statuses = st.sampled_from([JobStatus.COMPLETED] * 3 + [JobStatus.FAILED, JobStatus.ERROR])
    moments = draw(st.permutations(range(1, count + 1)))
    members = [
        draw(
            st.builds(
                Member,
                st.just(at),
                statuses,
                st.none() | st.integers(0, 5),
                st.booleans(),
                st.sampled_from([0.0, 0.0, 0.5]),
            )
        )
        for at in moments
    ]
    wanted = draw(st.none() | st.integers(1, count))
    short = wanted is not None and draw(st.booleans())
    return Plan(
        members=tuple(members),
        wanted=wanted,
        short=short,
        cancel_on_error=draw(st.booleans()),
        timeout=draw(st.none() | st.integers(0, count).map(lambda second: second + 0.5)),
        reads=not short and draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )


class Seen:
    """What a requester has seen.

    Attributes:
        answers: The answers that it has taken.
        at: When it had what it wanted, in seconds.
        error: What came out of the context.
        chunks: By worker, the numbers of the chunks that were read.
    """

    def __init__(self) -> None:
        self.answers: list[JobAnswer] = []
        self.at = 0.0
        self.error: JobGroupError | None = None
        self.chunks: dict[str, list[int]] = defaultdict(list)

    async def read(self, group: Any) -> None:
        async for worker, chunk in group.stream():
            self.chunks[worker].append(chunk["n"])

    async def take(self, plan: Plan, group: Any) -> None:
        if plan.wanted is None:
            async for answer in group.as_completed():
                self.answers.append(answer)
        elif plan.wanted == 1:
            self.answers = [await group.first()]
        else:
            self.answers = await group.quorum(plan.wanted)
        self.at = current_time()


async def ask(plan: Plan, runner: WorkerRunner) -> tuple[Seen, Any]:
    seen = Seen()
    names = [f"w{number}" for number in range(len(plan.members))]
    group: Any = runner.job_group(
        *names, cancel_on_error=plan.cancel_on_error, timeout=plan.timeout, max_buffered_events=1
    )
    try:
        if plan.short:
            await seen.take(plan, group)
        else:
            async with group:
                await take_and_read(plan, group, seen)
    except JobGroupError as error:
        seen.error = error
    except ExceptionGroup as several:
        (only,) = several.exceptions
        assert isinstance(only, JobGroupError)
        seen.error = only
    return seen, group


async def take_and_read(plan: Plan, group: Any, seen: Seen) -> None:
    if not plan.reads:
        await seen.take(plan, group)
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(seen.read, group)
        await seen.take(plan, group)


async def play(plan: Plan) -> None:
    will = expected(plan)
    workers = [ScriptedWorker(f"w{number}", member.behaviour) for number, member in enumerate(plan.members)]
    async with running(*workers) as runner:
        seen, group = await ask(plan, runner)
        assert current_time() == will.left
        assert all(worker.running == {} for worker in workers)
        check_outcome(will, seen)
        if plan.wanted is None:
            assert [answer.worker_name for answer in seen.answers] == list(will.answers)
        for number, member in enumerate(plan.members):
            decided = member.at <= will.at
            assert (group.statuses[f"w{number}"] is member.status) or not decided
            assert decided or group.statuses[f"w{number}"] is JobStatus.CANCELLED
        if plan.reads:
            for number, member in enumerate(plan.members):
                assert seen.chunks[f"w{number}"] == list(range(member.chunks or 0))


def check_outcome(will: Expected, seen: Seen) -> None:
    if will.ended in ("enough", "all"):
        assert seen.error is None
        assert [answer.worker_name for answer in seen.answers] == list(will.answers)
        return
    assert seen.error is not None
    assert isinstance(seen.error, JobGroupTimeoutError) is (will.ended == "timeout")
    assert ("wanted answers can come" in str(seen.error)) is (will.ended == "too few")


@many
@given(plan=plans())
def test_answers_come_out_as_if_they_were_gone_through_one_by_one(plan: Plan, backend: str) -> None:
    """J8, J11, J20: as many as are wanted, in order, and at that moment; the others have unwound when it is left."""
    run(lambda: play(plan), backend=backend, seed=plan.seed)
