"""Supervised workers that crash at each place of their lives, and whose hosts end at each moment of a restart (S1, J4).

Each place takes its time, and jobs are asked for all the while. Whatever happens: each job is answered once, and run
once at most; whoever asks while a worker is restarted waits for the next one; no task is left, and the names are free.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import pytest

from support.leaks import nothing_left
from support.runners import runner_on
from workerbus import (
    Backoff,
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    MemoryBus,
    RunCancelled,
    Supervision,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.testing import run

pytestmark = pytest.mark.slow

PACE: Final[dict[str, Any]] = {"max_restarts": 5, "within": 60.0, "backoff": Backoff(initial=0.3, factor=1, jitter=0)}
NAMES: Final = ("v", "w")
FOUR: Final = ("u", "v", "w", "x")
FIRST_FAILURE: Final = 0.5


class PlantedError(Exception):
    """Raised where the plan says so."""


class PlantedPanic(BaseException):
    """The same, as what is no `Exception`."""


PLACES: Final = (
    "factory", "init", "attach", "attached", "run", "start", "started", "on_activated", "running", "task", "job",
    "stop", "stopped", "cleanup", "cleaned up",
)  # fmt: skip


class Plan:
    """Where which life of which worker crashes, and what was done.

    Args:
        place: The place; its life is the second one, except where a worker ends: there it is the first.
        error: What is raised there.
        name: The worker; of the first one, the first life crashes.
    """

    def __init__(self, place: str | None = None, error: type[BaseException] = PlantedError, name: str = "w") -> None:
        self.place, self.error, self.name = place, error, name
        self.names = NAMES if name == "w" else FOUR
        self.life = 1 if name != "w" or place in ("stop", "stopped", "cleanup", "cleaned up") else 2
        self.lives: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.asked = 0
        self.outcomes: list[tuple[str, float, str]] = []
        self.crashed = False
        self.over_at = 0.0

    def look(self, place: str, name: str, life: int) -> None:
        if (place, name, life) == (self.place, self.name, self.life) and not (place == "job" and self.crashed):
            self.crashed = True
            raise self.error(place)

    def factory(self, name: str) -> Callable[[], BaseWorker]:
        def make() -> BaseWorker:
            self.lives[name] += 1
            self.look("factory", name, self.lives[name])
            return Mortal(name, self, self.lives[name])

        return make


class Mortal(BaseWorker):
    """Takes its time everywhere, crashes where the plan says so, and its first life fails anyway."""

    def __init__(self, name: str, plan: Plan, life: int) -> None:
        super().__init__(name)
        self.plan, self.life = plan, life
        plan.look("init", name, life)

    async def at(self, place: str) -> None:
        await anyio.sleep(0.07)
        self.plan.look(place, self.name, self.life)

    async def attach(self, **kwargs: Any) -> None:
        await self.at("attach")
        await super().attach(**kwargs)
        await self.at("attached")

    async def start(self) -> None:
        await self.at("start")
        await super().start()
        await self.at("started")

    async def on_activated(self, args: Any) -> None:
        await self.at("on_activated")

    async def run(self, params: WorkerParams) -> None:
        await self.at("run")
        await self.start()
        params.task_group.start_soon(self.at, "task")
        await self.at("running")
        if self.name == "w" and self.life == 1:
            await anyio.sleep(FIRST_FAILURE)
            raise ValueError("first")
        await params.wait_for_end()

    async def stop(self) -> None:
        await self.at("stop")
        await super().stop()
        await self.at("stopped")

    async def cleanup(self) -> None:
        await self.at("cleanup")
        await super().cleanup()
        await self.at("cleaned up")

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> dict[str, int]:
        self.plan.begun[message.job_id] += 1
        await self.at("job")
        return {"life": self.life}


class Parent(BaseWorker):
    """Supervises in the place of the runner."""

    async def on_worker_failed(self, data: Any) -> None:
        pass


@asynccontextmanager
async def program(
    plan: Plan, strategy: Any, *, at_a_parent: bool
) -> AsyncIterator[tuple[WorkerRunner, Any, Supervision]]:
    """A runner with supervised workers, and somebody at another runner who asks them for jobs all the while."""
    async with MemoryBus() as bus:
        runner, other = runner_on(bus, "here"), runner_on(bus, "there")
        async with nothing_left(runner, other), other, anyio.create_task_group() as group:
            runner.add_event_handler("on_error", lambda *_: None)
            try:
                async with runner:
                    parent = Parent("parent")
                    await runner.add_workers(parent, wait=True)
                    host = parent if at_a_parent else runner
                    supervision = await host.supervise(*map(plan.factory, plan.names), strategy=strategy, **PACE)
                    asking = anyio.CancelScope()
                    group.start_soon(ask_on, plan, other, group, asking)
                    yield runner, host, supervision
                    asking.cancel()
            except RunCancelled:
                asking.cancel()
            plan.over_at = anyio.current_time()


async def ask_on(plan: Plan, runner: WorkerRunner, group: Any, scope: anyio.CancelScope) -> None:
    with scope:
        while True:
            for name in plan.names:
                plan.asked += 1
                group.start_soon(ask, plan, runner, name)
            await anyio.sleep(0.1)


async def ask(plan: Plan, runner: WorkerRunner, name: str) -> None:
    before = anyio.current_time()
    try:
        await runner.job(name, name="do", timeout=10)
        outcome = "completed"
    except JobError as error:
        outcome = "timeout" if isinstance(error, TimeoutError) else str(error.statuses[name])
    plan.outcomes.append((name, before, outcome))


def each_job_was_answered_once(plan: Plan) -> None:
    assert len(plan.outcomes) == plan.asked
    assert max(plan.begun.values(), default=1) == 1


def late(plan: Plan, before: float) -> list[str]:
    """Whose jobs, of those that were asked for before a moment, nobody has answered."""
    return [name for name, asked_at, outcome in plan.outcomes if asked_at < before and outcome == "timeout"]


async def names_are_free(runner: WorkerRunner) -> None:
    assert dict(runner.registry.restarting) == {}
    for name in NAMES:
        free = Parent(name)
        await runner.add_workers(free, wait=True)
        await free.stop()


@pytest.mark.parametrize(
    ("strategy", "at_a_parent", "error"),
    [("one_for_one", False, PlantedError), ("all_for_one", True, PlantedError), ("one_for_one", True, PlantedPanic)],
)
@pytest.mark.parametrize("place", PLACES)
def test_a_worker_may_crash_anywhere(
    place: str, strategy: str, at_a_parent: bool, error: type[BaseException], backend: str
) -> None:
    """S1, J4, L1: and comes again."""
    plan = Plan(place, error)

    async def main() -> None:
        async with program(plan, strategy, at_a_parent=at_a_parent) as (runner, _, supervision):
            await anyio.sleep(6)
            assert plan.crashed
            assert set(supervision.states.values()) == {"running"}
            again = 2 if plan.life == 2 and place != "job" else 1
            assert supervision.restarts["w"] + (place in ("factory", "init", "attach", "attached")) >= again
            assert (await runner.job("w", name="do"))["life"] == plan.lives["w"]
            await supervision.stop()
            assert set(supervision.states.values()) == {"ended"}
            await names_are_free(runner)

    run(main, backend=backend)
    each_job_was_answered_once(plan)
    assert late(plan, 100) == []


@pytest.mark.parametrize("at_a_parent", [False, True])
@pytest.mark.parametrize("strategy", ["one_for_one", "all_for_one"])
@pytest.mark.parametrize("place", PLACES[PLACES.index("run") : PLACES.index("job") + 1])
def test_the_first_one_may_crash_while_the_others_are_still_added(
    place: str, strategy: str, at_a_parent: bool, backend: str
) -> None:
    """S1, J4: all are added, and then restarted as if it had crashed later."""
    plan = Plan(place, name="u")

    async def main() -> None:
        async with program(plan, strategy, at_a_parent=at_a_parent) as (_, __, supervision):
            await anyio.sleep(6)
            assert plan.crashed
            assert set(supervision.states.values()) == {"running"}
            assert supervision.restarts == (
                dict.fromkeys(FOUR, 1)  # the first life of "w" fails later, if nobody has ended it
                if strategy == "all_for_one"
                else {"u": 0 if place == "job" else 1, "v": 0, "w": 1, "x": 0}
            )

    run(main, backend=backend)
    each_job_was_answered_once(plan)
    assert late(plan, 100) == []


@pytest.mark.parametrize("at_a_parent", [False, True])
@pytest.mark.parametrize("strategy", ["one_for_one", "all_for_one"])
@pytest.mark.parametrize("how", ["stop", "end", "cancel", "parent"])
def test_a_restart_may_be_ended_at_any_moment(how: str, strategy: str, at_a_parent: bool, backend: str) -> None:
    """S1, R2, L1, L4: by its supervision, by the runner, or with the parent."""
    for moment in range(0, 60, 2):
        plan = Plan()

        async def main(plan: Plan = plan, moment: int = moment) -> None:
            async with program(plan, strategy, at_a_parent=at_a_parent) as (runner, host, supervision):
                await anyio.sleep(0.4 + moment * 0.031)
                before = anyio.current_time()
                restarting = supervision.states["w"] == "restarting"
                if how == "stop":
                    await supervision.stop()
                    await names_are_free(runner)
                elif how == "parent":
                    await (host.stop() if at_a_parent else runner.end())
                else:
                    await (runner.end() if how == "end" else runner.cancel())
            assert supervision.is_over
            assert plan.over_at - before < 3
            assert runner.known_workers() == []
            assert not restarting or "w" not in late(plan, before)  # they are told of what it has failed

        run(main, backend=backend, seed=moment)
        each_job_was_answered_once(plan)
