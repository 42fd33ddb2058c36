"""Workers that are made anew, share jobs, or take over from each other, with jobs under way: all orders to a bound."""

from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest

from properties.bridge_world import Answer, Member, World
from support.explored import Scenario, holds, name_of
from support.pipelines import DOWN
from workerbus import (
    Backoff,
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    JobStatus,
    MemoryBus,
    WorkerPool,
    WorkerRunner,
    job,
)
from workerbus.testing import (
    Behaviour,
    EchoWorker,
    ScriptedWorker,
    always,
    assert_no_jobs,
    eventually,
    nothing_left,
)
from workerbus.worker._core import core_of
from workerbus.worker._types import Phase

pytestmark = pytest.mark.slow


A_SECOND = Backoff(initial=1, jitter=0)


def quiet() -> WorkerRunner:
    """Return a runner whose workers may fail."""
    runner = WorkerRunner()
    runner.add_event_handler("on_error", lambda runner, data: None)
    return runner


# --- supervision


class Made:
    """The workers of a name that were made, of which each but the last is to crash in its first job, at a time."""

    def __init__(self, name: str, crashes: int, after: float = 1) -> None:
        self.name, self.crashes, self.after = name, crashes, after
        self.all: list[ScriptedWorker] = []

    def __call__(self) -> ScriptedWorker:
        crashes = len(self.all) < self.crashes
        self.all.append(ScriptedWorker(self.name, Behaviour("crash" if crashes else "answer", after=self.after)))
        return self.all[-1]

    @property
    def is_one(self) -> bool:
        """Whether at most one of them is at work."""
        return sum(core_of(worker).state.phase is Phase.RUNNING for worker in self.all) <= 1


async def all_are_made_anew() -> None:
    """S1: of two, one crashes in the turn in which a job for the other comes; that one is answered, or waits."""
    one, two = Made("one", 1), Made("two", 0, after=0)
    async with nothing_left(), quiet() as runner:
        await runner.supervise(one, two, strategy="all_for_one", backoff=A_SECOND)
        with always(lambda: one.is_one and two.is_one):
            async with anyio.create_task_group() as group:
                group.start_soon(an_outcome, runner, "one")
                await anyio.sleep(1)
                await an_outcome(runner, "two")
            await runner.job("one", timeout=60)
            await runner.job("two", timeout=60)
    assert (len(one.all), len(two.all)) == (2, 2)


async def an_outcome(runner: WorkerRunner, worker: str) -> None:
    """Have a job answered, with whatever, but not late."""
    try:
        await runner.job(worker, timeout=60)
    except TimeoutError:
        raise
    except JobError:
        pass


async def a_supervision_that_gives_up() -> None:
    """S1, J4: beyond its limit nobody waits any more, whenever he asks."""
    made = Made("worker", 9)
    async with nothing_left(), quiet() as runner:
        await runner.supervise(made, max_restarts=1, backoff=A_SECOND)
        async with anyio.create_task_group() as group:
            for at in (0, 1, 2, 3):
                group.start_soon(asks_at, runner, at)
    assert len(made.all) == 2


async def asks_at(runner: WorkerRunner, at: float) -> None:
    await anyio.sleep(at)
    await an_outcome(runner, "worker")


async def an_end_against_a_restart() -> None:
    """S1: the host ends in the turn in which the wait before a restart is over; nobody is left."""
    made = Made("worker", 1, after=0)
    async with nothing_left():
        async with quiet() as runner:
            await runner.supervise(made, backoff=A_SECOND)
            await an_outcome(runner, "worker")
            await anyio.sleep(1)
            await runner.end()
        count = len(made.all)
        await anyio.sleep(5)
        assert len(made.all) == count <= 2


async def a_stop_against_a_crash() -> None:
    """S1, W6: a worker is stopped in the turn in which it crashes; its name has one worker, or none."""
    made = Made("worker", 1)
    async with nothing_left(), quiet() as runner:
        await runner.supervise(made, backoff=A_SECOND)
        with always(lambda: made.is_one):
            async with anyio.create_task_group() as group:
                group.start_soon(an_outcome, runner, "worker")
                await anyio.sleep(1)
                await made.all[0].stop()
            with suppress(TimeoutError):
                await runner.job("worker", timeout=5)
    assert len(made.all) <= 2


# --- pools


class Sharer(BaseWorker):
    """Works for a second, one job at a time; crashes in the jobs that say so."""

    def __init__(self, name: str, begun: Counter[int]) -> None:
        super().__init__(name)
        self.begun = begun
        self.busy = False

    @job(name="work")
    async def work(self, message: BusJobRequestMessage) -> dict[str, Any]:
        assert not self.busy
        self.busy = True
        self.begun[message.payload["n"]] += 1
        await anyio.sleep(1)
        self.busy = False
        if message.payload.get("crashes") and message.attempt == 1:
            raise Crash
        return {"n": message.payload["n"]}


class Crash(BaseException):
    """Ends the worker in whose handler it is raised."""


def pool_of(size: int, begun: Counter[int]) -> WorkerPool:
    return WorkerPool("pool", lambda name: Sharer(name, begun), size=size, backoff=A_SECOND)


async def a_member_that_crashes() -> None:
    """S2: its own job is an ERROR, or done by another if it may be; the one that waits is done."""
    begun = Counter[int]()
    outcomes: dict[int, Any] = {}

    async def ask(n: int, **options: Any) -> None:
        try:
            payload = {"n": n, "crashes": n != 3}
            outcomes[n] = await runner.job("pool", name="work", payload=payload, timeout=30, **options)
        except JobError as error:
            outcomes[n] = error.statuses["pool"]

    async with nothing_left(), quiet() as runner:
        await runner.add_workers(pool := pool_of(1, begun))
        async with anyio.create_task_group() as group:
            group.start_soon(ask, 1)
            group.start_soon(partial(ask, 2, attempts=2, retry_on=JobStatus.ERROR))
            group.start_soon(ask, 3)
        assert_no_jobs(runner, pool)
    assert outcomes == {1: JobStatus.ERROR, 2: {"n": 2}, 3: {"n": 3}}
    assert begun == {1: 1, 2: 2, 3: 1}


async def a_pool_that_changes_its_size() -> None:
    """S2: larger and smaller in the turn in which jobs come and end; none is cut, and each is done once."""
    begun = Counter[int]()
    answers: list[int] = []

    async def ask(n: int) -> None:
        answers.append((await runner.job("pool", name="work", payload={"n": n}, timeout=30))["n"])

    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(pool := pool_of(1, begun))
        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(ask, n)
            await anyio.sleep(1)
            group.start_soon(pool.resize, 2)
            await anyio.sleep(1)
            group.start_soon(pool.resize, 1)
    assert sorted(answers) == [0, 1, 2]
    assert set(begun.values()) == {1}


async def a_map_that_is_left() -> None:
    """S2: all answers come, each once; where it is left in the turn of one, nothing goes on."""
    begun = Counter[int]()
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(pool := pool_of(2, begun), wait=True)
        async with pool.map("work", [{"n": n} for n in range(3)]) as answers:
            assert sorted([answer.response["n"] async for answer in answers]) == [0, 1, 2]
        with anyio.move_on_after(1):
            async with pool.map("work", [{"n": n} for n in range(3, 6)]) as answers:
                async for answer in answers:
                    assert answer.response["n"] in (3, 4)
        before = dict(begun)
        await anyio.sleep(5)
        assert begun == before
        assert set(begun.values()) == {1}


# --- hand-over


async def an_activation_of_another() -> None:
    """W3, W4: without deactivation both are active then; a job for the other is refused until it is."""
    async with nothing_left(), WorkerRunner() as runner:
        alice, bob = EchoWorker("alice"), EchoWorker("bob", active=False)
        await runner.add_workers(alice, bob)
        async with anyio.create_task_group() as group:
            group.start_soon(alice.activate_worker, "bob")
            with suppress(JobError):
                assert await runner.job("bob", payload={"n": 1}, timeout=5) == {"n": 1}
            assert await runner.job("alice", payload={"n": 1}, timeout=5) == {"n": 1}
        assert alice.active
        assert await runner.job("bob", payload={"n": 2}, timeout=5) == {"n": 2}


async def a_hand_over_there_and_back() -> None:
    """W3: who takes over hands back at once; never are both active, and in the end the first one is."""
    async with nothing_left(), WorkerRunner() as runner:
        alice, bob = EchoWorker("alice"), EchoWorker("bob", active=False)
        bob.add_event_handler("on_activated", lambda *_: back.set())
        back = anyio.Event()
        await runner.add_workers(alice, bob, wait=True)
        with always(lambda: not (alice.active and bob.active)):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(alice.activate_worker, "bob", deactivate_self=True))
                await back.wait()
                await bob.activate_worker("alice", deactivate_self=True)
            await eventually(lambda: alice.active, within=5)
        assert not bob.active
        assert await runner.job("alice", payload={"n": 1}, timeout=5) == {"n": 1}


async def a_hand_over_to_who_leaves() -> None:
    """W3: the target stops in the same turn; a LookupError that changes nothing, or it was active, and is gone."""
    async with nothing_left(), WorkerRunner() as runner:
        alice, bob = EchoWorker("alice"), EchoWorker("bob", active=False)
        await runner.add_workers(alice, bob, wait=True)
        with always(lambda: not (alice.active and bob.active)):
            async with anyio.create_task_group() as group:
                group.start_soon(bob.stop)
                try:
                    await alice.activate_worker("bob", deactivate_self=True)
                except LookupError:
                    assert alice.active
        assert_no_jobs(runner, alice)


async def a_hand_over_to_who_is_made_anew() -> None:
    """W3, S1: one that is being restarted is waited for."""
    made = Made("bob", 1, after=0)
    async with nothing_left(), quiet() as runner:
        alice = EchoWorker("alice")
        await runner.add_workers(alice, wait=True)
        await runner.supervise(made, backoff=A_SECOND)
        await an_outcome(runner, "bob")
        async with anyio.create_task_group() as group:
            group.start_soon(partial(alice.activate_worker, "bob", deactivate_self=True))
            await an_outcome(runner, "bob")
        assert not alice.active
        await eventually(lambda: made.all[-1].active, within=5)
    assert len(made.all) == 2


async def frames_under_way(script: list[tuple[str, float]]) -> None:
    """W3, P3: each is answered once, by who was active when it went out."""
    members = [Member((0, 0, 0), 0, "plain") for _ in range(2)]
    world = World(MemoryBus(), DOWN, members)
    async with world.running(0) as front:
        await world.play(front, script)
    assert all(len(active) == 1 for active in world.to.values())
    due = sorted((number, active[0]) for number, active in world.to.items())
    assert [number for number, _ in due] == list(range(1, world.asked + 1))
    assert sorted(world.taken) == due
    assert sorted(world.answers(Answer)) == due


WITH_TWO_SWITCHES: tuple[Scenario, ...] = (
    an_end_against_a_restart,
    a_stop_against_a_crash,
    an_activation_of_another,
    a_hand_over_there_and_back,
    a_hand_over_to_who_leaves,
    a_hand_over_to_who_is_made_anew,
)

WITH_ONE_SWITCH: tuple[Scenario, ...] = (
    all_are_made_anew,
    a_supervision_that_gives_up,
    a_member_that_crashes,
    a_pool_that_changes_its_size,
    a_map_that_is_left,
)

FRAMES: dict[str, Scenario] = {
    "by a handler": partial(frames_under_way, [("ask to hand over", 1), ("ask", 1)]),
    "there and back": partial(frames_under_way, [("ask", 1), ("hand over", 1), ("ask", 1), ("hand over", 0)]),
}


@pytest.mark.parametrize("scenario", WITH_TWO_SWITCHES, ids=name_of)
def test_a_life_holds_with_any_two_switches(backend: str, scenario: Scenario) -> None:
    """T1, T6: all of them, to the end."""
    assert holds(scenario, backend, 2)


@pytest.mark.parametrize("scenario", WITH_ONE_SWITCH, ids=name_of)
def test_lives_of_several_hold_with_any_switch(backend: str, scenario: Scenario) -> None:
    """T1, T6: all of them, to the end."""
    assert holds(scenario, backend, 1)


@pytest.mark.parametrize("name", FRAMES)
def test_a_hand_over_loses_no_frame_with_any_switch(backend: str, name: str) -> None:
    """T1, T6: all of them, to the end."""
    assert holds(FRAMES[name], backend, 1)
