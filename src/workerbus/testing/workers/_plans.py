"""A job group as a value: who is asked, what each does with the job, what the requester does, and how it came out.

`run_group_plan` carries a plan out, on a runner of its own (J5, J6, R4). With the strategy
`workerbus.testing.strategies.group_plans`, a law about job groups takes three lines.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from anyio import CancelScope, create_task_group, current_time, sleep, sleep_until
from attrs import evolve, field, frozen

from workerbus._values import JobStatus
from workerbus.bus._bus import WorkerBus
from workerbus.errors import JobGroupError
from workerbus.jobs._events import JobGroupEvent
from workerbus.jobs._window import WINDOW
from workerbus.messages import JobRequestOptions
from workerbus.runner._runner import WorkerRunner
from workerbus.testing.workers._behaviour import Behaviour, Pasteable, seconds
from workerbus.testing.workers._scripted import ScriptedWorker

Requester = Literal["wait", "iterate", "raise", "cancelled", "deadline"]
REQUESTERS: Final[tuple[Requester, ...]] = get_args(Requester)

Ended = Literal["completed", "failed", "timeout", "cancelled", "raised"]


class RequesterError(Exception):
    """Raised in the body of a group whose `GroupPlan` has ``requester="raise"``."""


def _requester(_: object, __: object, value: object) -> None:
    if value not in REQUESTERS:
        raise ValueError(f"a requester is one of {', '.join(map(repr, REQUESTERS))}, not {value!r}")


def _timeout(_: object, its: Any, value: object) -> None:
    if value is not None:
        seconds(_, its, value)


def _window(_: object, __: object, value: Any) -> None:
    JobRequestOptions(max_buffered_events=value)  # which refuses what the request would


def _behaviours(workers: Mapping[str, Behaviour]) -> dict[str, Behaviour]:
    return dict(workers)


@frozen(repr=False)
class GroupPlan(Pasteable):
    """A job group with everybody who takes part in it.

    ::

        GroupPlan({"a": Behaviour(after=1.0), "b": Behaviour("hang")}, timeout=3.0)
        GroupPlan({"a": Behaviour("hang", clean_up=0.5)}, requester="cancelled", at=1.0)

    Args:
        workers: By name, what each worker does with the job; they are asked in this order.
        timeout: The group's timeout, in seconds; None for none.
        cancel_on_error: Whether the first bad answer cancels the others.
        requester: What the requester does in the body of the group. ``"wait"``: nothing, it waits for the answers.
            ``"iterate"``: it collects the events. ``"raise"``: it raises a `RequesterError` after ``at`` seconds.
            ``"cancelled"``: it waits, and is cancelled after ``at`` seconds. ``"deadline"``: it waits in a scope whose
            deadline is ``at`` seconds away, which therefore travels with the request.
        at: After how many seconds the requester raises, is cancelled, or has its deadline.
        payload: The job's payload, as a dict.
        max_buffered_events: How many chunks each worker may be ahead of a requester that iterates.
        every: How many seconds a requester that iterates takes for each event.

    Raises:
        TypeError: ``max_buffered_events`` is not a whole number.
        ValueError: There is no such requester, seconds are negative, or ``max_buffered_events`` is less than 1.

    Guarantees: J6, J19.
    """

    workers: dict[str, Behaviour] = field(converter=_behaviours)
    timeout: float | None = field(default=None, validator=_timeout, kw_only=True)
    cancel_on_error: bool = field(default=True, kw_only=True)
    requester: Requester = field(default="wait", validator=_requester, kw_only=True)
    at: float = field(default=0.0, validator=seconds, kw_only=True)
    payload: dict[str, Any] | None = field(default=None, kw_only=True)
    max_buffered_events: int = field(default=WINDOW, validator=_window, kw_only=True)
    every: float = field(default=0.0, validator=seconds, kw_only=True)

    @property
    def ends(self) -> bool:
        """Whether the group is sure to end: by a timeout, the requester, or all workers."""
        if self.timeout is not None or self.requester not in ("wait", "iterate"):
            return True
        return all(behaviour.end not in ("hang", "defer") for behaviour in self.workers.values())


@frozen
class GroupOutcome:
    """The outcome of a job group.

    Args:
        ended: ``"completed"``, ``"failed"`` (a `JobGroupError`), ``"timeout"`` (one that is a `TimeoutError`, too),
            ``"cancelled"``, or ``"raised"`` (the requester's own error went through).
        reason: The `JobGroupError`'s reason, in words; None if there was no such error.
        statuses: By name, how the job ended at each worker that has answered, in the order of asking.
        responses: By name, what each of them answered, as a dict.
        events: The events that the requester saw, if it iterated.
        seconds: How many seconds it took from asking until the group had been left.
        asked: The names of the workers that began the job.
        cancelled: The names of the workers whose job was cancelled under way.
        busy: The names of the workers whose handlers still ran when the group had been left.
        error: The exception that came out of the group; None if none did.

    Guarantees: J5.
    """

    ended: Ended
    reason: str | None = None
    statuses: dict[str, JobStatus] = field(factory=dict)
    responses: dict[str, dict[str, Any]] = field(factory=dict)
    events: tuple[JobGroupEvent, ...] = ()
    seconds: float = 0.0
    asked: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    error: BaseException | None = field(default=None, eq=False)


async def run_group_plan(plan: GroupPlan, bus: WorkerBus | None = None) -> GroupOutcome:
    """Carry out a plan: run the workers, ask them, and return the outcome.

    ::

        async def test_a_slow_worker_is_told_when_another_has_failed():
            plan = GroupPlan({"slow": Behaviour("hang"), "broken": Behaviour("raise", after=1.0)})
            outcome = await run_group_plan(plan)
            assert outcome.ended == "failed"
            assert outcome.cancelled == ("slow",)

    and as a law, in virtual time::

        @given(group_plans(), seeds())
        def test_a_completed_group_has_an_answer_of_each_worker(plan, seed):
            outcome = run(run_group_plan, plan, seed=seed)
            assert outcome.ended != "completed" or outcome.statuses.keys() == plan.workers.keys()

    Args:
        plan: The plan. One that does not end (see `GroupPlan.ends`) is waited for until this is cancelled.
        bus: The bus of the runner, not open yet; by default a new `MemoryBus`.

    Returns:
        The outcome of the group.
    """
    workers = {name: ScriptedWorker(name, behaviour) for name, behaviour in plan.workers.items()}
    async with WorkerRunner(bus=bus, handle_sigint=False) as runner:
        runner.add_event_handler("on_error", _taken)
        await runner.add_workers(*workers.values())
        for name in workers:
            await runner.registry.wait_for(name)
        outcome = await _play(plan, runner, workers)
    return evolve(
        outcome,
        asked=tuple(name for name, worker in workers.items() if worker.requests),
        cancelled=tuple(name for name, worker in workers.items() if worker.cancelled),
    )


def _taken(*_: object) -> None:
    """Take an error: a worker that crashes because its script says so is no failure of the run."""


async def _play(plan: GroupPlan, runner: WorkerRunner, workers: dict[str, ScriptedWorker]) -> GroupOutcome:
    begin = current_time()
    events: list[JobGroupEvent] = []
    error: Exception | None = None
    group = runner.job_group(
        *plan.workers,
        payload=plan.payload,
        timeout=plan.timeout,
        cancel_on_error=plan.cancel_on_error,
        max_buffered_events=plan.max_buffered_events,
    )
    async with create_task_group() as tasks:
        with CancelScope() as scope:
            if plan.requester == "cancelled":
                tasks.start_soon(_cancel_at, scope, begin + plan.at)
            elif plan.requester == "deadline":
                scope.deadline = begin + plan.at
            try:
                async with group:
                    await _body(plan, group, events)
            except (JobGroupError, RequesterError) as exc:
                error = exc
        took = current_time() - begin
        busy = tuple(name for name, worker in workers.items() if worker.running)
        tasks.cancel_scope.cancel()
    return GroupOutcome(
        "cancelled" if scope.cancelled_caught else _ended(error),
        error.reason if isinstance(error, JobGroupError) else None,
        group.statuses,
        group.responses,
        tuple(events),
        took,
        busy=busy,
        error=error,
    )


async def _body(plan: GroupPlan, group: Any, events: list[JobGroupEvent]) -> None:
    if plan.requester == "iterate":
        async for event in group:
            events.append(event)
            if plan.every:
                await sleep(plan.every)
    elif plan.requester == "raise":
        await sleep(plan.at)
        raise RequesterError(f"planned for {plan.at:g} s")


async def _cancel_at(scope: CancelScope, moment: float) -> None:
    await sleep_until(moment)
    scope.cancel()


def _ended(error: Exception | None) -> Ended:
    if error is None:
        return "completed"
    if isinstance(error, RequesterError):
        return "raised"
    return "timeout" if isinstance(error, TimeoutError) else "failed"
