"""Whole supervisions beside a sequential model: who runs, who has failed, and what becomes of jobs meanwhile.

What is restarted when, after ever longer waits, is in `test_restarts`.
"""

from collections.abc import Callable
from typing import Any, Final

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from properties.restart_model import RestartModel
from support.conditions import eventually
from workerbus import (
    Backoff,
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    JobStatus,
    Supervision,
    WorkerErrorData,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.testing import run

NAMES: Final = ["a", "b", "c"]
WITHIN: Final = 10.003
"""Seconds; uneven, as is all that follows, so that no two things are due at the same moment."""
DELAY: Final = 0.507
A_MOMENT: Final = 0.01

steps = st.one_of(
    st.tuples(st.sampled_from(["fails", "fails", "ends", "ask", "raises", "used"]), st.sampled_from(NAMES)),
    st.tuples(st.just("pass"), st.sampled_from([0.3, 1.0, 4.0, 12.0])),
)


class Doll(BaseWorker):
    """Lives until it is told to fail or to end."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.fate = ""
        self.told = anyio.Event()

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        async with anyio.create_task_group() as group:
            group.start_soon(self._meets_its_fate, group.cancel_scope)
            await params.wait_for_end()
            group.cancel_scope.cancel()

    async def _meets_its_fate(self, scope: anyio.CancelScope) -> None:
        await self.told.wait()
        if self.fate == "fails":
            raise ValueError("fate")
        scope.cancel()

    @job(name="hello")
    async def hello(self, message: BusJobRequestMessage) -> dict[str, str]:
        return {"from": self.name}


class Parent(BaseWorker):
    """Keeps what it is told of its children."""

    def __init__(self, told: Callable[[WorkerErrorData], None]) -> None:
        super().__init__("parent")
        self.told = told

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        self.told(data)


class World:
    """A supervision of a runner or of a parent, beside its model."""

    def __init__(self, strategy: Any, restart: Any, most: int, *, at_a_parent: bool) -> None:
        self.model = RestartModel(NAMES, strategy, restart, most, WITHIN, DELAY)
        self.options: dict[str, Any] = {
            "strategy": strategy,
            "restart": restart,
            "max_restarts": most,
            "within": WITHIN,
        }
        self.faults: dict[str, list[str]] = {name: [] for name in NAMES}
        self.at_a_parent = at_a_parent
        self.reported: list[tuple[str, str]] = []
        self.asked: list[tuple[str, str]] = []
        self.outcomes: list[tuple[str, str, JobStatus]] = []

    def told(self, data: WorkerErrorData) -> None:
        if data.fatal:
            self.reported.append((data.worker_name, type(data.exception).__name__))

    def factory(self, name: str) -> Callable[[], BaseWorker]:
        used = Doll(name)
        lives = 0

        def make() -> BaseWorker:
            nonlocal lives
            lives += 1
            fault = self.faults[name].pop(0) if self.faults[name] else ""
            if fault == "raises":
                raise OSError("no device")
            return used if lives == 1 or fault == "used" else Doll(name)

        return make

    async def play(self, script: list[tuple[Any, ...]], last: str) -> None:
        async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as group:
            runner.add_event_handler("on_error", lambda _, data: self.told(data))
            parent = Parent(self.told)
            await runner.add_workers(parent, wait=True)
            host = parent if self.at_a_parent else runner
            supervision = await host.supervise(
                *map(self.factory, NAMES),
                backoff=Backoff(initial=DELAY, factor=1, jitter=0),
                **self.options,
            )
            await self.check(runner, supervision)
            for what, on_what in script:
                await self.step(runner, group, what, on_what)
                await self.check(runner, supervision)
            self.model.stop()
            if last == "stop":
                await supervision.stop()
            elif self.at_a_parent:
                await parent.stop()
            else:
                await runner.end()
                await eventually(lambda: not runner.known_workers())
            assert supervision.states == self.model.state
            assert supervision.is_over
            assert not set(NAMES) & set(runner.known_workers())
            assert self.reported == self.model.reported
            if last == "stop":
                await self.nothing_is_left(runner)
            group.cancel_scope.cancel()
        assert len(self.outcomes) <= len(self.asked)

    async def step(self, runner: WorkerRunner, group: TaskGroup, what: str, on_what: Any) -> None:
        model, now = self.model, anyio.current_time()
        if what == "pass":
            await anyio.sleep(on_what)
        elif what in ("raises", "used"):
            self.faults[on_what].append(what)
            model.faults[on_what].append(what)
        elif what == "ask":
            self.asked.append((on_what, model.state[on_what]))
            group.start_soon(self.ask, runner, *self.asked[-1])
        elif model.state[on_what] == "running":
            worker = runner.get_worker(on_what)
            assert isinstance(worker, Doll)
            worker.fate = what
            worker.told.set()
            model.goes(on_what, now, failed=what == "fails")

    async def ask(self, runner: WorkerRunner, name: str, state: str) -> None:
        try:
            await runner.job(name, name="hello")
            status = JobStatus.COMPLETED
        except JobError as error:
            status = JobStatus(error.statuses[name])
        self.outcomes.append((name, state, status))

    async def check(self, runner: WorkerRunner, supervision: Supervision) -> None:
        await anyio.sleep(A_MOMENT)
        model = self.model
        model.time_passes(anyio.current_time())
        assert supervision.states == model.state
        assert supervision.restarts == model.restarts
        assert sorted(set(runner.known_workers()) - {"parent"}) == model.running
        assert self.reported == model.reported
        open_jobs = list(self.asked)
        for name, state, status in self.outcomes:
            open_jobs.remove((name, state))  # each once
            assert status is JobStatus.COMPLETED or state != "running"
            assert status is JobStatus.ERROR or state != "failed"
        assert {model.state[name] for name, _ in open_jobs} <= {"restarting", "ended"}

    async def nothing_is_left(self, runner: WorkerRunner) -> None:
        assert runner.registry.restarting == {}
        for name in NAMES:  # each is free again
            await runner.add_workers(Doll(name))
            assert await runner.job(name, name="hello") == {"from": name}
        await anyio.sleep(A_MOMENT)
        assert sorted(self.asked) == sorted((name, state) for name, state, _ in self.outcomes)


@pytest.mark.slow
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    strategy=st.sampled_from(["one_for_one", "all_for_one"]),
    restart=st.sampled_from(["on_failure", "on_failure", "always", "never"]),
    most=st.integers(0, 3),
    at_a_parent=st.booleans(),
    script=st.lists(steps, max_size=20),
    last=st.sampled_from(["stop", "the host ends"]),
    seed=st.integers(0, 3),
)
@pytest.mark.filterwarnings("error")
def test_a_supervision_does_as_its_model_does(
    backend: str,
    strategy: str,
    restart: str,
    most: int,
    at_a_parent: bool,
    script: list[tuple[Any, ...]],
    last: str,
    seed: int,
) -> None:
    """S1, J4: who runs, how often they were restarted, who has failed, and what becomes of jobs meanwhile."""
    world = World(strategy, restart, most, at_a_parent=at_a_parent)
    run(lambda: world.play(script, last), backend=backend, seed=seed)
