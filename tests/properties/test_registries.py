"""The registries of several runners on one bus of a process, beside a model of who is where."""

from collections.abc import Awaitable, Callable
from itertools import product
from typing import Final, Literal

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from workerbus import WorkerGoneData, WorkerReadyData, WorkerRegistry
from workerbus._neighbourhood import Neighbourhood
from workerbus.testing import run, settle

OWNERS: Final = {"a": "one", "b": "two", "pool@one": "one", "pool@two": "two"}
RUNNERS: Final = ("one", "two", "three")
PLACES: Final = {"pool@one": 2, "pool@two": 3}

Phase = Literal["away", "starting", "ready", "going", "restarting"]
Told = tuple[Literal["came", "gone"], WorkerReadyData]

names, runners = st.sampled_from(sorted(OWNERS)), st.sampled_from(RUNNERS)
lives = st.tuples(st.sampled_from(["begin", "enter", "enter", "leave", "leave", "go", "stop", "fail", "perish"]), names)
steps = st.one_of(
    lives,
    lives,
    st.tuples(st.sampled_from(["watch", "wait", "ask", "ask", "wait for the restart of"]), names, runners),
    st.tuples(st.sampled_from(["join", "choose", "choose", "wait for the pool"]), runners),
    st.tuples(st.just("load"), st.sampled_from(sorted(PLACES)), st.integers(0, 4)),
    st.sampled_from([("settle",), ("turn",)]),
)
first = st.tuples(st.sets(runners, min_size=1), st.sets(st.tuples(names, runners), max_size=8))


class Part:
    """What a runner knows of one of the pools that share a name."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = self.asked = self.turn = 0


class Ask:
    """One who waits for a worker to ask it for a job."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failed = False


class View:
    """What one runner sees, and should see."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.registry = WorkerRegistry(name)
        self.joined = False
        self.watched: set[str] = set()
        self.told: list[Told] = []
        self.expected: list[Told] = []
        self.parts: dict[str, Part] = {}
        self.turn = 0
        self.waits: list[str] = []
        self.asks: list[Ask] = []

    def came(self, data: WorkerReadyData) -> None:
        self.told.append(("came", data))

    def gone(self, data: WorkerReadyData) -> None:
        self.told.append(("gone", data))


class World:
    """A bus with three runners: each step is done to the registries, and to the model."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self.neighbourhood: Neighbourhood[WorkerRegistry] = Neighbourhood()
        self.views = {name: View(name) for name in RUNNERS}
        self.later: list[Callable[[], Awaitable[None]]] = []
        for view in self.views.values():
            view.registry.later = self.later.append
        self.phases: dict[str, Phase] = dict.fromkeys(OWNERS, "away")
        self.lives: dict[str, WorkerReadyData] = {}

    # --- what is done

    async def do(self, action: str, *about: str | int) -> None:
        await getattr(self, action.replace(" ", "_"))(*about)
        while self.later:
            await self.later.pop(0)()

    async def settle(self) -> None:
        await settle()

    async def turn(self) -> None:
        """Let those who wait have one turn, and no more."""
        await checkpoint()

    async def join(self, runner: str) -> None:
        view = self.views[runner]
        if view.joined:
            return
        view.joined = True
        self.neighbourhood.join(view.registry)
        for name in OWNERS:
            if self.phases[name] == "ready":
                self._comes(view, name)

    async def begin(self, name: str) -> None:
        if self._owner(name).joined and self.phases[name] in ("away", "restarting"):
            self.lives[name] = self._data(name)
            assert self._owner(name).registry.begin(self.lives[name])
            self.phases[name] = "starting"

    async def enter(self, name: str) -> None:
        owner = self._owner(name)
        if not owner.joined or self.phases[name] not in ("away", "restarting", "starting"):
            return
        if self.phases[name] != "starting":
            self.lives[name] = self._data(name)
        self.phases[name] = "ready"
        watchers = owner.registry.enter(self.lives[name])
        assert watchers is not None
        await owner.registry.tell(watchers, self.lives[name])
        for view in self.views.values():
            if view.joined:
                self._comes(view, name)

    async def leave(self, name: str) -> None:
        """End: before it is ready, from then on, or while it is to be restarted."""
        phase = self.phases[name]
        if phase in ("away", "restarting"):
            return
        self.phases[name] = "restarting" if phase == "going" else "away"
        assert await self._owner(name).registry.unregister(name)
        if phase != "starting":
            for view in self.views.values():
                view.parts.pop(name, None)
                if view.joined and name in view.watched:
                    view.expected.append(("gone", self.lives[name]))

    async def go(self, name: str) -> None:
        """Begin to go, and be wanted back."""
        if self.phases[name] == "ready":
            self.phases[name] = "going"
            assert self._owner(name).registry.withdraw(name)
            self._owner(name).registry.note_restarting(name, is_so=True)
            for view in self.views.values():
                view.parts.pop(name, None)

    async def stop(self, name: str) -> None:
        """Be wanted back no more."""
        if self.phases[name] == "restarting":
            self.phases[name] = "away"
            self._owner(name).registry.note_restarting(name, is_so=False)

    async def fail(self, name: str) -> None:
        """Be known as one that has failed, if there is no other one."""
        if self._owner(name).joined and self.phases[name] == "away":
            self._owner(name).registry.note_failure(WorkerGoneData(name, OWNERS[name], "it failed"))
            for ask in (ask for view in self.views.values() if view.joined for ask in view.asks if ask.name == name):
                ask.failed = True

    async def perish(self, name: str) -> None:
        """Fail, and be forgotten at once, since the runner ends."""
        await self.fail(name)
        self._owner(name).registry.failed.forget_runner(OWNERS[name])

    async def watch(self, name: str, runner: str) -> None:
        view = self.views[runner]
        if name not in view.watched:
            view.watched.add(name)
            if self.phases[name] == "ready" and (view.joined or OWNERS[name] == runner):
                view.expected.append(("came", self.lives[name]))
        await view.registry.watch_departure(name, view.gone)
        await view.registry.watch(name, view.came)

    async def wait(self, name: str, runner: str) -> None:
        view = self.views[runner]
        view.waits.append(name)
        self.tasks.start_soon(self._wait, view, name)

    async def wait_for_the_pool(self, runner: str) -> None:
        await self.wait("pool", runner)

    async def _wait(self, view: View, name: str) -> None:
        data = await view.registry.wait_for(name)
        assert data is not None
        assert data == view.registry.get(name)
        view.waits.remove(name)

    async def ask(self, name: str, runner: str) -> None:
        """Wait as a job does that is asked for: until it is there, or has failed."""
        ask = Ask(name)
        ask.failed = self.views[runner].registry.failure_of(name) is not None
        self.views[runner].asks.append(ask)
        await self.tasks.start(self._ask, self.views[runner], ask)

    async def _ask(self, view: View, ask: Ask, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        news = None
        while view.registry.get(ask.name) is None and (news or view.registry.failure_of(ask.name)) is None:
            news = await view.registry.wait_for_news(ask.name)
        assert ask.failed or view.registry.get(ask.name) is not None
        view.asks.remove(ask)

    async def wait_for_the_restart_of(self, name: str, runner: str) -> None:
        """Wait as one who activates it: as long as it is being restarted."""
        view = self.views[runner]
        if view.joined and name in view.registry.restarting:
            view.waits.append(f"restart of {name}")
            self.tasks.start_soon(self._wait_for_restart, view, name)

    async def _wait_for_restart(self, view: View, name: str) -> None:
        while name in view.registry.restarting:
            await view.registry.wait_for_news(name)
        view.waits.remove(f"restart of {name}")

    async def load(self, name: str, taken: int) -> None:
        owner = self._owner(name)
        if self.phases[name] == "ready":
            owner.registry.note_load(name, PLACES[name], taken)
            for view in self.views.values():
                if name in view.parts:
                    view.parts[name].taken, view.parts[name].asked = taken, 0

    async def choose(self, runner: str) -> None:
        """Ask for a job: the least busy pool has it, of equals the own one, then the one that has waited longest."""
        view = self.views[runner]

        def rank(name: str) -> tuple[float, bool, int]:
            part = view.parts[name]
            return (part.taken + part.asked) / part.places, OWNERS[name] != runner, part.turn

        chosen = view.registry.choose("pool")
        assert (chosen is None) == (not view.parts)
        if chosen is not None:
            assert rank(chosen.worker_name) == min(map(rank, view.parts))
            view.turn += 1
            view.parts[chosen.worker_name].asked += 1
            view.parts[chosen.worker_name].turn = view.turn

    # --- what is seen

    def _owner(self, name: str) -> View:
        return self.views[OWNERS[name]]

    def _data(self, name: str) -> WorkerReadyData:
        shared = ("pool", PLACES[name]) if name in PLACES else ()
        return WorkerReadyData(name, OWNERS[name], *shared)

    def _comes(self, view: View, name: str) -> None:
        if name in PLACES:
            view.parts[name] = Part(PLACES[name])
        if name in view.watched:
            view.expected.append(("came", self.lives[name]))

    def check(self, *, settled: bool) -> None:
        restarting = {name: OWNERS[name] for name, phase in self.phases.items() if phase in ("going", "restarting")}
        for view in self.views.values():
            registry = view.registry
            for name, phase in self.phases.items():
                mine = OWNERS[name] == view.name
                there = (mine and phase == "starting") or (phase == "ready" and (mine or view.joined))
                assert registry.get(name) == (self.lives[name] if there else None)
                assert (name in registry) == there
                assert registry.is_ready(name) == (there and phase == "ready")
                assert not (there and registry.failure_of(name))
                assert not (settled and there and name in view.waits), "it waits for one that is there"
                assert not (settled and name not in restarting and f"restart of {name}" in view.waits)
            assert not (settled and any(ask.failed or registry.get(ask.name) for ask in view.asks))
            assert ("pool" in registry) == bool(view.parts)
            assert not (settled and view.parts and "pool" in view.waits)
            assert not view.joined or registry.restarting == restarting
            assert sorted(view.told, key=repr) == sorted(view.expected, key=repr)


EVERY_LIFE: Final[list[tuple[str | int, ...]]] = [
    step
    for name, runner in product(sorted(OWNERS), RUNNERS)
    for step in (
        ("ask", name, runner),
        ("ask", name, runner),
        ("perish", name),
        ("settle",),
        ("begin", name),
        ("watch", name, runner),
        ("enter", name),
        ("go", name),
        ("wait for the restart of", name, runner),
        ("settle",),
        ("leave", name),
        ("stop", name),
        ("settle",),
        ("enter", name),
        ("leave", name),
    )
]
"""Each worker comes, goes to be restarted, and is not, while each runner watches and waits."""


@given(first, st.lists(steps, min_size=15, max_size=50))
@example((set(RUNNERS), set()), EVERY_LIFE)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_runner_of_a_bus_sees_and_is_told_what_is_there(
    backend: str, first: tuple[set[str], set[tuple[str, str]]], script: list[tuple[str | int, ...]]
) -> None:
    """G1, G2, J4, R6, S2: whenever it came, and whatever it watches and waits for."""
    joined, watched = first
    before = [*(("watch", *each) for each in sorted(watched)), *(("join", runner) for runner in sorted(joined))]
    asks = [("choose", runner) for runner in RUNNERS * 3]
    loads = [("load", name, 1) for name in PLACES]
    after = [*(("join", runner) for runner in RUNNERS), *asks, *loads, *asks, *(("enter", name) for name in OWNERS)]

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            world = World(tasks)
            for action, *about in (*before, *script, *after, ("settle",)):
                await world.do(str(action), *about)
                world.check(settled=action == "settle")
            for name in OWNERS:  # those that have begun to go have not come again
                await world.do("leave", name)
                await world.do("enter", name)
            await world.do("settle")
            assert not any(view.waits or view.asks for view in world.views.values())

    run(main, backend=backend)
