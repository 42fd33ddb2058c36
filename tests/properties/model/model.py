"""What a job group means (J1-J16, W4, W6), in plain synchronous code: no await, no library, a clock of its own.

`Model.apply` takes a step and lets happen at once whatever follows from it; `Model.pass_time` lets time pass, in which
only deadlines and bounds happen. `Model.snapshot` says what can be seen from outside.

Two deadlines never fall on one instant unless one was inherited from the other, so that the order is plain: what is
further out comes first. Where the contract leaves open what is seen, the model has a ``may``.
"""

from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, Final, TypeVar

from properties.model.steps import (
    ANSWERS,
    ASKER,
    RUNNER,
    Ask,
    AskForUpdate,
    Body,
    Cancel,
    Intrude,
    Outside,
    Revive,
    Step,
    Stop,
    Switch,
    Tell,
    Unwind,
)
from properties.model.world import HANDLER_RUNS, At, Group, Job, Snapshot, Worker

T = TypeVar("T")

BOUND: Final = 2.0
"""How long a requester, or a worker that stops, waits for handlers that unwind (L4)."""

SOON: Final = 1 / 256
"""Seconds after which nothing moves any more."""


class Model:
    def __init__(self, workers: tuple[str, ...]) -> None:
        self.now = 0.0
        self.step = 0
        self.result: object = None
        self.backwards = False
        self.workers = {name: Worker(name) for name in (ASKER, *workers)}
        self.groups: dict[int, Group] = {}
        self.jobs: dict[tuple[int, str], Job] = {}
        self._starting: list[Job] = []

    # --- time

    def pass_time(self, until: float) -> None:
        while (soonest := min(self._instants(), default=inf)) <= until:
            self.now = soonest
            self._fire()
            self._begin_handlers()
        self.now = until

    def next_instant(self) -> float:
        return min(self._instants(), default=inf)

    def burst(self, at: float, order: Sequence[tuple[int, Step] | None], *, at_once: bool) -> None:
        """Apply steps of one time in an order; what falls due at that time comes where a None stands.

        Args:
            at: The time.
            order: The steps, with their numbers.
            at_once: Whether a handler that was asked for in one of the steps begins only after all of them.
        """
        first, self.now = self.step, at
        for entry in order:
            if entry is None:
                self.pass_time(at)
            else:
                self.step = first + entry[0]
                self._do(entry[1])
            if not at_once:
                self._begin_handlers()
        self.pass_time(at + SOON)
        self._begin_handlers()
        self.result = "any"

    def _instants(self) -> list[float]:
        instants = [worker.bound for worker in self.workers.values()]
        for group in self.groups.values():
            if group.left_at == inf:
                instants += [group.bound, group.within]
                instants += [group.own_deadline] if group.state == "open" else []
        instants += [job.deadline for job in self.jobs.values() if self._expires(job)]
        return instants

    def _some_order(self, things: Iterable[T]) -> list[T]:
        """What happens to several at once happens in any order; two are tried."""
        return list(things)[:: -1 if self.backwards else 1]

    def _jobs_of(self, group: Group) -> list[Job]:
        return [job for job in self.jobs.values() if job.group is group]

    def _expires(self, job: Job) -> bool:
        return not job.answered and job.verdict is None

    def _fire(self) -> None:
        for group in list(self.groups.values()):
            if group.own_deadline <= self.now and group.state == "open":
                self._settle(group, "timeout", "timeout")
                group.may.append(("error", ""))
            if group.within <= self.now:
                group.within = inf
                self._cancel_body(group, "timeout")
            late = [job for job in self._jobs_of(group) if job.deadline <= self.now and self._expires(job)]
            group.vague |= len(late) > 1  # whose answer comes first is open, and may cancel the others
            for job in self._some_order(late):
                self._cancel(job, "*" if group.vague else "timeout")
            if group.bound <= self.now and group.left_at == inf:
                self._left(group)
        for worker in self.workers.values():
            if worker.bound <= self.now:
                self._give_up(worker)

    # --- the steps

    def apply(self, step: Step) -> None:
        """Do a step, with all that follows from it."""
        self.result = None
        self._do(step)
        self._begin_handlers()
        self.step += 1

    def _do(self, step: Step) -> None:
        match step:
            case Ask():
                self._ask(step)
            case Body():
                self._body(self.groups[step.group], step.what)
            case Cancel():
                self._cancel_group(self.groups[step.group], step.politely)
            case Tell() | Outside() | Unwind() | AskForUpdate() | Intrude():
                self._do_to_job(step, self.jobs[step.group, step.worker])
            case Switch() | Stop() | Revive():
                self._do_to_worker(step, self.workers[step.worker])

    def _do_to_job(self, step: Tell | Outside | Unwind | AskForUpdate | Intrude, job: Job) -> None:
        match step:
            case Tell():
                self._tell(job, step.what)
            case Outside():
                self._send(job, step.what)
            case Unwind():
                job.slow = False
                self._look_at(job)
            case AskForUpdate():
                job.updates += self._missing(job) and not job.answered and not job.worker.stopping
            case Intrude(what="cancel"):
                self._cancel(job, "by a stranger")

    def _do_to_worker(self, step: Switch | Stop | Revive, worker: Worker) -> None:
        match step:
            case Switch():
                worker.active = step.active
            case Stop():
                self._stop(worker, "error" if step.crash else "cancelled")
            case Revive():
                self.workers[worker.name] = Worker(worker.name, worker.life + 1)
                for group in self.groups.values():
                    self._proceed(group)

    # --- the requester

    def _ask(self, ask: Ask) -> None:
        parent = None if ask.inside is None else self.jobs[ask.inside, ask.by]
        own = inf if ask.timeout is None else self.now + ask.timeout
        within = inf if ask.within is None else self.now + ask.within
        above = inf if parent is None or parent.answered else parent.deadline
        owner = None if ask.by == RUNNER else self.workers[ask.by]
        group = Group(ask, owner, parent, min(own, within, above), own, within)
        self.groups[ask.group] = group
        self._proceed(group)

    def _proceed(self, group: Group) -> None:
        """Send the requests as soon as all workers are there; wait for one that has left meanwhile.

        One that has failed is not waited for: it has answered (J4).
        """
        names = group.ask.workers
        while group.state == "open" and group.seen < len(names):
            worker = self.workers[names[group.seen]]
            if worker.gone and not worker.failed:
                return
            group.seen += 1
            if worker.failed:
                self._answer_for(group, worker)
        while group.state == "open" and (left := [name for name in names if name not in group.asked]):
            worker = self.workers[left[0]]
            if worker.failed:
                self._answer_for(group, worker)
            elif worker.gone:
                return
            else:
                group.asked.add(worker.name)
                self._request(group, worker)
        group.sent = len(group.asked) == len(names)
        if not names:
            self._settle(group, "completed", "")

    def _settle(self, group: Group, state: str, reason: str) -> None:
        """The first of what can happen to a group decides its outcome."""
        if group.state != "open":
            return
        group.state = state
        if state == "completed":
            self._hook(group, "completed")
            if group.in_context and (group.looping or group.body == "leave"):
                self._left(group)
        else:
            if state == "error by worker":
                self._hook(group, "error")
            for name in self._some_order(group.unanswered):
                self._cancel(self.jobs[group.ask.group, name], reason)
            self._leave(group)
        self._look_at_group(group)

    def _leave(self, group: Group) -> None:
        if group.in_context and group.bound == inf and group.left_at == inf:
            begun = inf if group.owner is None else group.owner.bound
            group.bound = begun if begun < inf else self.now + BOUND
        self._look_at_group(group)

    def _look_at_group(self, group: Group) -> None:
        """Whether it can be left, or forgotten: when all who were asked have answered (J5)."""
        waits = group.bound < inf or not group.in_context
        if group.left_at == inf and waits and group.state != "open" and not group.unanswered:
            self._left(group)
        if group.owner is not None:
            self._look_at_worker(group.owner)

    def _left(self, group: Group) -> None:
        group.left_at = self.now
        if group.parent is not None:
            self._look_at(group.parent)

    def _body(self, group: Group, what: str) -> None:
        if what == "cancel":
            self._cancel_body(group, "*")
        elif not group.in_body:
            return
        elif what == "loop":
            group.looping = True
        else:
            group.body = what
            if what == "raise":
                self._settle(group, "body", "*")
                self._leave(group)
        if group.state == "completed" and what != "cancel":
            self._left(group)

    def _cancel_body(self, group: Group, reason: str) -> None:
        """A cancellation from outside: it wins over everything but the body's own exception (J8)."""
        if group.attended:
            if group.body != "raise":
                group.body = "cancelled"
            self._settle(group, "cancelled", reason)
            self._leave(group)

    def _cancel_group(self, group: Group, politely: bool) -> None:
        done = group.state == "open" and (group.ask.cancellable or not politely)
        self.result = done if politely else None
        if done:
            self._settle(group, "cancelled by request", "please")

    # --- the worker

    def _request(self, group: Group, worker: Worker) -> None:
        job = self.jobs[group.ask.group, worker.name] = Job(group, worker, worker.life, group.deadline)
        if worker.stopping:
            self._answer(job, "cancelled")
        elif not worker.active:
            self._answer(job, "failed")
        elif group.ask.job == "none":
            self._answer(job, "error")
        else:
            job.at = At.QUEUED
            if group.ask.job == "turn":
                worker.line.append(job)
            if group.ask.job != "turn" or worker.line[0] is job:
                self._starting.append(job)

    def _begin_handlers(self) -> None:
        """Handlers begin when all else has happened: what was cancelled in the same step never does."""
        for job in self._starting:
            if job.at is At.QUEUED:
                job.at = At.RUNNING
                job.starts += 1
            job.hasty |= job.turned and not job.starts
        self._starting.clear()

    def _tell(self, job: Job, what: str) -> None:
        if job.at is not At.RUNNING:
            return  # it listens no more
        if what == "slow":
            job.slow = True
        elif what == "stop":
            self._stop(job.worker, "cancelled")
        elif what in ("return", "return data", "return junk", "raise", "give up"):
            data = {"step": self.step}
            job.at = At.ENDING
            job.result = {
                "return": None if job.group.ask.job == "defer" else ("completed", {}),
                "return data": ("completed", data),
                "give up": ("failed", None),
            }.get(what, ("error", None))
            self._cancel_inside(job)
            self._look_at(job)
        elif what not in ("stubborn", "broken"):
            self._send(job, what)

    def _send(self, job: Job, what: str) -> None:
        """The worker's own code sends something: an answer ends the job, after a cancel as CANCELLED (J2, J14)."""
        if job.answered:
            self.result = "refused"
            return
        status = "completed" if what == "stream end" else what.removeprefix("urgent ")
        if what == "stream end" and job.verdict is None:
            self._event(job, what)
        if status in ANSWERS:
            hook = "stream end" if what == "stream end" and job.verdict is None else "response"
            self._answer(job, job.verdict or status, {"step": self.step}, hook)
        else:
            self._event(job, what.removeprefix("urgent "))

    def _hook(self, group: Group, hook: str, worker: str = "", *, sure: bool = True) -> None:
        """A hook of the requester runs; perhaps, if the outcome stands already, or it is stopping."""
        surely = sure and not (group.owner is not None and group.owner.stopping)
        (group.hooks if surely else group.may).append((hook, worker))

    def _missing(self, job: Job) -> bool:
        """Whether the requester still waits for the answer to this job."""
        group = job.group
        deaf = group.owner is not None and group.owner.gone
        return group.left_at == inf and job.worker.name not in group.statuses and not deaf

    def _event(self, job: Job, kind: str) -> None:
        group = job.group
        if group.state == "open" and self._missing(job):
            group.events.append((job.worker.name, kind, self.step))
            if kind != "stream end":
                self._hook(group, kind, job.worker.name)

    def _answer(self, job: Job, status: str, data: dict[str, Any] | None = None, hook: str = "response") -> None:
        name, group, waited_for = job.worker.name, job.group, self._missing(job)
        job.answered = True
        if job.at not in HANDLER_RUNS:
            self._free(job)
        if waited_for:
            self._take_answer(group, name, status, data, hook)
        elif group.left_at == self.now:
            group.late.add(name)

    def _answer_for(self, group: Group, worker: Worker) -> None:
        group.asked.add(worker.name)
        self._take_answer(group, worker.name, "error", None, "response")

    def _take_answer(self, group: Group, name: str, status: str, data: dict[str, Any] | None, hook: str) -> None:
        group.statuses[name], group.responses[name] = status, data
        self._hook(group, hook, name, sure=group.state in ("open", "cancelled by request"))  # J21
        if group.state == "open":
            if status != "completed" and group.ask.cancel_on_error:
                self._settle(group, "error by worker", "*")
            elif len(group.statuses) == len(group.ask.workers):
                self._settle(group, "completed", "")
        self._look_at_group(group)

    def _free(self, job: Job) -> None:
        """The place is free when handler and job are both over (J13)."""
        job.at = At.OVER
        line = job.worker.line
        if job in line:
            first = line[0] is job
            line.remove(job)
            if first and line:
                line[0].turned = True
                self._starting.append(line[0])

    def _cancel(self, job: Job, reason: str, status: str = "cancelled") -> None:
        if job.answered or job.verdict is not None:
            return
        job.verdict = status
        if not job.worker.stopping:
            job.told = reason
        if job.at in HANDLER_RUNS:
            self._unwind(job)
        else:
            self._answer(job, status)

    def _unwind(self, job: Job) -> None:
        job.at = At.UNWINDING
        self._cancel_inside(job)
        self._look_at(job)

    def _cancel_inside(self, job: Job) -> None:
        for group in self._some_order(self.groups.values()):
            if group.parent is job:
                self._cancel_body(group, "timeout" if group.deadline <= self.now else "*")

    def _look_at(self, job: Job) -> None:
        """Whether its handler is over: when the contexts in it have been left, and its clean-up is done."""
        if job.at not in (At.ENDING, At.UNWINDING) or (job.at is At.UNWINDING and job.slow):
            return
        if any(group.parent is job and group.attended for group in self.groups.values()):
            return
        job.at = At.OVER if job.answered or job.verdict or job.result else At.DEFERRED
        if job.answered:
            self._free(job)
        elif job.verdict is not None:
            self._answer(job, job.verdict)
        elif job.result is not None:
            self._answer(job, *job.result)
        self._look_at_worker(job.worker)

    # --- the end of a worker (W6)

    def _stop(self, worker: Worker, verdict: str) -> None:
        if worker.stopping:
            return
        worker.stopping, worker.bound, worker.verdict = True, self.now + BOUND, verdict
        mine = [job for job in self.jobs.values() if job.worker is worker]
        for job in mine:
            # What it has asked of itself it withdraws itself, before it answers anybody (W6).
            job.verdict = job.verdict or ("cancelled" if job.group.owner is worker else verdict)
        for job in mine:
            if job.at in (At.RUNNING, At.ENDING):
                self._cancel_inside(job)
        for group in self._some_order(self.groups.values()):
            if group.owner is worker:
                self._settle(group, "cancelled by request", "*")
        for job in self._some_order(mine):
            if job.at in (At.RUNNING, At.ENDING):
                self._unwind(job)
        for job in self._some_order(mine):
            if not job.answered and job.at not in HANDLER_RUNS:
                self._answer(job, job.verdict or verdict)
        self._look_at_worker(worker)

    def _look_at_worker(self, worker: Worker) -> None:
        busy = any(job.worker is worker and job.at in HANDLER_RUNS for job in self.jobs.values())
        waits = any(g.owner is worker and g.unanswered and g.left_at == inf for g in self.groups.values())
        if worker.stopping and not busy and not waits:
            worker.gone, worker.bound = True, inf

    def _give_up(self, worker: Worker) -> None:
        worker.gone, worker.bound = True, inf
        for job in self._some_order(self.jobs.values()):
            if job.worker is worker and not job.answered:
                self._answer(job, job.verdict or worker.verdict)

    # --- what can be seen

    def snapshot(self) -> Snapshot:
        ends = {number: group.end for number, group in self.groups.items()}
        seen = {n: g for n, g in self.groups.items() if ends[n] is not None and g.in_context}
        alive = [worker for worker in self.workers.values() if not worker.stopping]
        heard = {n: g.events if g.looping else [] for n, g in self.groups.items() if g.ask.form in ("group", "single")}
        with_hooks = {n: g for n, g in self.groups.items() if g.owner is not None and g.sent and not g.vague}
        return Snapshot(
            self.result,
            ends,
            {n: {name: (s, g.responses[name]) for name, s in g.statuses.items()} for n, g in seen.items()},
            {n: set(g.late) for n, g in seen.items()},
            {n: list(events) for n, events in heard.items()},
            {n: (list(g.hooks), list(g.may)) for n, g in with_hooks.items()},
            {key: ((0, 1) if job.hasty else (job.starts,), job.at in HANDLER_RUNS) for key, job in self.jobs.items()},
            {key: (job.told, job.updates) for key, job in self.jobs.items()},
            {worker.name: self._tables_of(worker) for worker in alive},
        )

    def _tables_of(self, worker: Worker) -> tuple[int, int]:
        jobs = sum(job.worker is worker and not job.answered for job in self.jobs.values())
        return jobs, sum(group.owner is worker and group.left_at == inf for group in self.groups.values())
