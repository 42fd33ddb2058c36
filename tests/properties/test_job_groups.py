"""J1-J14, W4, W6: whatever is done to job groups, in whatever order, the library does what the model says.

The machines write scripts, the model beside them; when a script is complete it is played, on a backend and with a seed
that were drawn. A failure prints the script, which can be given to `play_steps` as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from properties.model.script import Burst, Script, Setting
from properties.model.shrinking import play_and_shrink
from properties.model.stage import play_steps
from properties.model.steps import (
    ASKER,
    ENDINGS,
    FORMS,
    INTRUSIONS,
    JOBS,
    MODES,
    NEWS,
    RUNNER,
    SENDING,
    Advance,
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
from properties.model.world import At, Group, Job, Worker

SECONDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
HOOKS = ("response", "update", "completed", "error", "cancelled", "stream end")

Has = Callable[["Groups"], Sequence[Any]]
F = TypeVar("F", bound=Callable[..., Any])


def some(choose: Has) -> Callable[[F], F]:
    """A precondition: there is something to choose from."""
    return precondition(lambda machine: bool(choose(machine)))


def running(machine: "Groups") -> list[Job]:
    return [job for job in machine.jobs if job.at is At.RUNNING]


def known(machine: "Groups") -> list[Job]:
    """Jobs that the worker which now has the name was asked for."""
    return [job for job in machine.jobs if job.life == machine.model.workers[job.worker.name].life]


def askable(machine: "Groups") -> list[Job]:
    return [job for job in known(machine) if job.group.owner is not None and not job.group.owner.stopping]


def unwinding(machine: "Groups") -> list[Job]:
    return [job for job in machine.jobs if job.at is At.UNWINDING and job.slow]


def waiting_bodies(machine: "Groups") -> list[Group]:
    return [g for g in machine.groups if g.in_body]


def eager_bodies(machine: "Groups") -> list[Group]:
    return [group for group in waiting_bodies(machine) if len(group.events) > 1]


def attended(machine: "Groups") -> list[Group]:
    return [group for group in machine.groups if group.attended]


def of_workers(machine: "Groups") -> list[Group]:
    return [group for group in machine.groups if group.owner is not None and group.sent]


def standing(machine: "Groups") -> list[Worker]:
    return [worker for worker in machine.model.workers.values() if not worker.stopping]


def gone(machine: "Groups") -> list[Worker]:
    """Workers that can be replaced; that only one group waits for, so that the order is plain."""
    waits = [set(g.ask.workers) for g in machine.groups if not g.sent and g.state == "open"]
    workers = [worker for worker in machine.model.workers.values() if worker.gone and worker.name != ASKER]
    return [worker for worker in workers if sum(worker.name in names for names in waits) < 2]


SCRIPTS: dict[str, list[Step | Burst]] = {
    "events that came before the loop": [
        Ask(0, ASKER, ("w0", "w1"), loop=False),
        Tell(0, "w0", "update"),
        Tell(0, "w1", "stream start"),
        Tell(0, "w0", "stream end"),
        Body(0, "loop"),
        Tell(0, "w1", "return"),
    ],
    "an answer that comes again while others are awaited": [
        Ask(0, ASKER, ("w0", "w1"), cancel_on_error=False),
        Tell(0, "w0", "return data"),
        Intrude(0, "w0", "answer again"),
        Tell(0, "w1", "return"),
    ],
    "the deadline of a deferred job that was inherited": [
        Ask(0, ASKER, ("w0",), job="defer", form="hooks", within=1.0),
        Tell(0, "w0", "return"),
        Advance(2.0),
    ],
    "a cancel that is to reach many": [
        Ask(0, ASKER, ("w0", "w1", "w2", "w3")),
        Tell(0, "w3", "raise"),
    ],
}
"""What chance seldom comes upon."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_rare_is_as_the_model_says(name: str, backend: str) -> None:
    """J5-J7, J12: seldom drawn, and so written down."""
    play_steps(Setting(workers=4), SCRIPTS[name], backend=backend)


class Groups(RuleBasedStateMachine):
    """Groups, nested ones too, of workers that may do anything."""

    most_workers: ClassVar[int] = 6
    jobs_asked_for: ClassVar[tuple[str, ...]] = JOBS
    script: Script

    @initialize(
        data=st.data(),
        raising=st.frozensets(st.sampled_from(HOOKS), max_size=2),
        finale=st.sampled_from(("end", "cancel", "late")),
        backend=st.sampled_from(("asyncio", "trio")),
        seed=st.integers(0, 2**16),
    )
    def begin(self, data: Any, raising: frozenset[str], finale: str, backend: str, seed: int) -> None:
        workers = data.draw(st.integers(1, self.most_workers))
        self.script = Script(Setting(workers, raising, finale))
        self.model = self.script.model
        self.backend, self.seed = backend, seed

    @property
    def jobs(self) -> list[Job]:
        return list(self.model.jobs.values())

    @property
    def groups(self) -> list[Group]:
        return list(self.model.groups.values())

    def do(self, step: Step) -> None:
        self.script.add(step)

    def one_of(self, data: Any, choose: Has) -> Any:
        return data.draw(st.sampled_from(choose(self)))

    # --- requesters

    def can_ask(self) -> list[tuple[str, int | None]]:
        askers: list[tuple[str, int | None]] = [(RUNNER, None)]
        askers += [(ASKER, None)] if not self.model.workers[ASKER].stopping else []
        askers += [(job.worker.name, job.group.ask.group) for job in running(self) if not job.worker.stopping]
        return askers

    @precondition(lambda self: len(self.model.groups) < 8)
    @rule(data=st.data(), job=st.sampled_from(JOBS), form=st.sampled_from(FORMS), flags=st.tuples(*[st.booleans()] * 3))
    def ask(self, data: Any, job: str, form: str, flags: tuple[bool, bool, bool]) -> None:
        by, inside = data.draw(st.sampled_from(self.can_ask()))
        most = 1 if form in ("single", "await") else 6
        least = 1 if form in ("single", "await") else 0
        names = data.draw(st.lists(st.sampled_from(self.script.names), unique=True, min_size=least, max_size=most))
        times = data.draw(st.sampled_from((None, None, *SECONDS)))
        within = data.draw(st.sampled_from((None, None, None, *SECONDS))) if inside is None else None
        grouped = form in ("group", "hooks")
        self.do(
            Ask(
                len(self.model.groups), by, tuple(names), job,
                form="group" if by == RUNNER and form == "hooks" else form,
                inside=inside, timeout=times, within=within,
                cancel_on_error=flags[0] or not grouped, cancellable=flags[1], loop=flags[2] or form == "await",
            )
        )  # fmt: skip

    @some(waiting_bodies)
    @rule(data=st.data(), what=st.sampled_from(("leave", "loop", "raise")))
    def tell_a_body(self, data: Any, what: str) -> None:
        self.do(Body(self.one_of(data, waiting_bodies).ask.group, what))

    @some(eager_bodies)
    @rule(data=st.data())
    def let_a_body_loop_over_what_has_come(self, data: Any) -> None:
        self.do(Body(self.one_of(data, eager_bodies).ask.group, "loop"))

    @some(attended)
    @rule(data=st.data())
    def cancel_a_requester(self, data: Any) -> None:
        self.do(Body(self.one_of(data, attended).ask.group, "cancel"))

    @some(of_workers)
    @rule(data=st.data(), politely=st.booleans())
    def cancel_a_group(self, data: Any, politely: bool) -> None:
        self.do(Cancel(self.one_of(data, of_workers).ask.group, politely))

    @some(askable)
    @rule(data=st.data())
    def ask_for_an_update(self, data: Any) -> None:
        job = self.one_of(data, askable)
        self.do(AskForUpdate(job.group.ask.group, job.worker.name))

    # --- handlers

    @some(running)
    @rule(data=st.data(), what=st.sampled_from((*SENDING, *MODES)))
    def tell_a_handler(self, data: Any, what: str) -> None:
        self._tell(data, what)

    @some(running)
    @rule(data=st.data(), news=st.lists(st.sampled_from(NEWS), min_size=1, max_size=3))
    def tell_of_news(self, data: Any, news: list[str]) -> None:
        job = self.one_of(data, running)
        for what in news:
            self.do(Tell(job.group.ask.group, job.worker.name, what))

    @some(running)
    @rule(data=st.data(), what=st.sampled_from((*ENDINGS, "stop")))
    def end_a_handler(self, data: Any, what: str) -> None:
        self._tell(data, what)

    def _tell(self, data: Any, what: str) -> None:
        job = self.one_of(data, running)
        self.do(Tell(job.group.ask.group, job.worker.name, what))

    @some(running)
    @rule(data=st.data())
    def let_a_handler_be_slow(self, data: Any) -> None:
        self._tell(data, "slow")

    @some(unwinding)
    @rule(data=st.data())
    def unwind(self, data: Any) -> None:
        job = self.one_of(data, unwinding)
        self.do(Unwind(job.group.ask.group, job.worker.name))

    @some(known)
    @rule(data=st.data(), what=st.sampled_from(SENDING))
    def send_from_elsewhere(self, data: Any, what: str) -> None:
        job = self.one_of(data, known)
        self.do(Outside(job.group.ask.group, job.worker.name, what))

    # --- others

    @some(known)
    @rule(data=st.data(), what=st.sampled_from(INTRUSIONS))
    def intrude(self, data: Any, what: str) -> None:
        job = self.one_of(data, known)
        if what == "answer again" and not job.answered:
            what = "answer"
        self.do(Intrude(job.group.ask.group, job.worker.name, what))

    @some(standing)
    @rule(data=st.data(), active=st.booleans())
    def switch(self, data: Any, active: bool) -> None:
        self.do(Switch(self.one_of(data, standing).name, active))

    @some(standing)
    @rule(data=st.data(), crash=st.booleans())
    def stop(self, data: Any, crash: bool) -> None:
        self.do(Stop(self.one_of(data, standing).name, crash))

    @some(gone)
    @rule(data=st.data())
    def revive(self, data: Any) -> None:
        self.do(Revive(self.one_of(data, gone).name))

    @rule(seconds=st.sampled_from(SECONDS))
    def advance(self, seconds: float) -> None:
        self.do(Advance(seconds))

    # --- all at once

    def possible(self) -> list[Step]:
        """Steps that can be done now, whatever else is done at the same time."""
        steps: list[Step] = [Stop(worker.name, crash) for worker in standing(self) for crash in (False, True)]
        steps += [Switch(worker.name, active=not worker.active) for worker in standing(self)]
        for job in running(self):
            key = job.group.ask.group, job.worker.name
            steps += [Tell(*key, what) for what in ("return data", "raise", "give up", "stream end", "update", "stop")]
        steps += [Outside(job.group.ask.group, job.worker.name, what) for job in known(self) for what in SENDING[:5]]
        steps += [Unwind(job.group.ask.group, job.worker.name) for job in unwinding(self)]
        steps += [Intrude(job.group.ask.group, job.worker.name, "cancel") for job in known(self)]
        steps += [Body(group.ask.group, "cancel") for group in attended(self)]
        steps += [Cancel(group.ask.group) for group in of_workers(self)]
        steps += [Body(g.ask.group, what) for g in waiting_bodies(self) for what in ("leave", "loop", "raise")]
        return steps

    @precondition(lambda self: not self.script.over and len(self.possible()) > 1)
    @rule(data=st.data(), at_deadline=st.booleans())
    def burst(self, data: Any, at_deadline: bool) -> None:
        """Only now and then, since it is the last that a machine does."""
        if data.draw(st.integers(0, 9)) == 9:
            step = st.sampled_from(self.possible())
            self.script.add_burst(
                *data.draw(st.lists(step, unique=True, min_size=2, max_size=3)), at_deadline=at_deadline
            )

    def teardown(self) -> None:
        if hasattr(self, "script") and self.script.scenes:
            play_and_shrink(self.script, backend=self.backend, seed=self.seed)


TestGroups = pytest.mark.slow(Groups.TestCase)
# Without hypothesis's own shrinking: a script is shrunk as a list of steps, which takes seconds and not minutes.
TestGroups.settings = settings(
    max_examples=300,
    stateful_step_count=30,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
