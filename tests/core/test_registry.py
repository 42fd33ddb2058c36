"""G1-G3: who is ready, who watches for it, and what that costs."""

import logging
import sys
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from support.conditions import eventually
from support.leaks import left_in
from support.runners import runner_on
from support.workers import Helper, running
from workerbus import BaseWorker, MemoryBus, WorkerReadyData, WorkerRegistry, worker_ready
from workerbus.testing import settle


def ready(name: str, runner: str = "here") -> WorkerReadyData:
    return WorkerReadyData(name, runner)


class Watch:
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[WorkerReadyData] = []

    async def __call__(self, data: WorkerReadyData) -> None:
        await checkpoint()
        self.told.append(data)

    async def method(self, data: WorkerReadyData) -> None:
        self.told.append(data)


def size_of(thing: object, seen: set[int] | None = None) -> int:
    """The bytes of an object and of what it holds, as far as that is plain data."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    inside: list[object] = []
    if isinstance(thing, dict):
        inside = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        inside = list(thing)
    elif isinstance(thing, WorkerRegistry):
        inside = [vars(thing)]
    return sys.getsizeof(thing) + sum(size_of(each, seen) for each in inside)


async def test_workers_are_listed_by_where_they_are() -> None:
    """G1: ``local_workers`` and ``remote_workers``."""
    registry = WorkerRegistry("here")
    await registry.register(ready("a"))
    await registry.register(ready("b", "there"))
    assert registry.runner_name == "here"
    assert registry.local_workers == ["a"]
    assert registry.remote_workers == ["b"]
    assert registry.get("a") == ready("a")
    assert registry.get("b") == ready("b", "there")
    assert registry.get("c") is None


async def test_the_lists_of_names_are_snapshots() -> None:
    """G1: whoever changes them changes nothing."""
    registry = WorkerRegistry("here")
    await registry.register(ready("a"))
    registry.local_workers.clear()
    assert registry.local_workers == ["a"]


async def test_registering_tells_whether_the_worker_was_new() -> None:
    """G1: each name once per runner."""
    registry = WorkerRegistry("here")
    for runner in ("here", "there"):
        assert await registry.register(ready(f"a {runner}", runner)) is True
        assert await registry.register(ready(f"a {runner}", runner)) is False
    assert registry.local_workers == ["a here"]
    assert registry.remote_workers == ["a there"]


async def test_a_watcher_is_told_of_a_worker_that_registers() -> None:
    """G1: `register` awaits its watchers, and those of that name alone."""
    registry, watch, other = WorkerRegistry("here"), Watch(), Watch()
    await registry.watch("a", watch)
    await registry.watch("b", other)
    await registry.register(ready("a"))
    assert watch.told == [ready("a")]
    assert other.told == []


async def test_a_watcher_is_not_told_of_a_worker_that_was_there() -> None:
    """G1: a worker that registers again fires nothing."""
    registry, watch = WorkerRegistry("here"), Watch()
    await registry.watch("a", watch)
    await registry.register(ready("a"))
    await registry.register(ready("a"))
    assert watch.told == [ready("a")]


async def test_a_watch_is_immediate_for_a_worker_already_there() -> None:
    """G1: `watch` awaits its watcher."""
    registry, watch = WorkerRegistry("here"), Watch()
    await registry.register(ready("a", "there"))
    await registry.watch("a", watch)
    assert watch.told == [ready("a", "there")]


async def test_watching_twice_is_watching_once() -> None:
    """G1: idempotent per name and handler, before and after the worker is there; a bound method is the same handler."""
    registry, watch = WorkerRegistry("here"), Watch()
    await registry.watch("a", watch.method)
    await registry.watch("a", watch.method)
    await registry.register(ready("a"))
    await registry.watch("a", watch.method)
    assert watch.told == [ready("a")]


async def test_one_handler_can_watch_for_several_workers() -> None:
    """G1: the pair of name and handler counts."""
    registry, watch = WorkerRegistry("here"), Watch()
    for name in ("a", "b"):
        await registry.watch(name, watch)
        await registry.register(ready(name))
    assert watch.told == [ready("a"), ready("b")]


async def test_a_watcher_is_told_again_when_the_worker_comes_back() -> None:
    """G1, G2: a watch is for every registration."""
    registry, watch = WorkerRegistry("here"), Watch()
    await registry.watch("a", watch)
    for _ in range(2):
        await registry.register(ready("a"))
        await registry.unregister("a")
    assert len(watch.told) == 2


async def test_a_watcher_may_use_the_registry() -> None:
    """G1: the worker is there for its watchers, who may watch and register."""
    registry, late = WorkerRegistry("here"), Watch()
    seen: list[object] = []

    async def watcher(data: WorkerReadyData) -> None:
        seen.append(registry.get("a"))
        await registry.watch("a", late)
        seen.append(await registry.register(ready("b")))
        seen.append(await registry.wait_for("a"))

    await registry.watch("a", watcher)
    await registry.register(ready("a"))
    assert seen == [ready("a"), True, ready("a")]
    assert late.told == [ready("a")]


class Meeter(Helper):
    """Is told of others, in a hook that takes its time."""

    def __init__(self, name: str = "meeter") -> None:
        super().__init__(name)
        self.met: list[tuple[str, str]] = []
        self.meeting = anyio.Event()

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.met.append(("hook", data.worker_name))
        self.meeting.set()
        await self.release.wait()

    @worker_ready(name="guest")
    async def guest_is_ready(self, data: WorkerReadyData) -> None:
        self.met.append(("decorator", data.worker_name))


async def test_a_workers_slow_hook_holds_up_nobody_who_registers() -> None:
    """G1: a worker's own watch handler only queues its hook."""
    meeter, guest = Meeter(), Helper("guest")
    async with running(meeter) as runner:
        await meeter.watch_workers("guest", "stranger")
        await runner.add_workers(guest)
        await meeter.meeting.wait()
        assert (await runner.job("guest", name="echo"))["worker"] == "guest"
        meeter.release.set()
        await eventually(lambda: len(meeter.met) == 2)
    assert sorted(meeter.met) == [("decorator", "guest"), ("hook", "guest")]


async def test_a_worker_may_watch_for_another_from_its_own_hook() -> None:
    """G1, W8: the watch returns while that very hook runs; the hook for it comes next."""

    class Watcher(BaseWorker):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.told: list[str] = []

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await self.watch_workers("child")
            self.told.append("watching")

        async def on_worker_ready(self, data: WorkerReadyData) -> None:
            self.told.append(data.worker_name)

    parent, watcher = Helper("parent"), Watcher("watcher")
    await parent.add_workers(Helper("child"))
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        await runner.add_workers(watcher)
        await eventually(lambda: {"watching", "child"} <= set(watcher.told))
    assert watcher.told.index("watching") < watcher.told.index("child")


async def test_a_worker_that_is_unregistered_is_gone() -> None:
    """G2: `unregister`, of this runner's or of another's."""
    registry = WorkerRegistry("here")
    await registry.register(ready("a"))
    await registry.register(ready("b", "there"))
    assert await registry.unregister("a") is True
    assert await registry.unregister("a") is False
    assert await registry.unregister("b") is False
    assert await registry.unregister("b", "there") is True
    assert registry.local_workers == registry.remote_workers == []
    assert registry.get("a") is registry.get("b") is None
    assert await registry.register(ready("a")) is True


async def test_a_departure_is_told_to_who_watches_for_it() -> None:
    """G2: a watch for departures; it says nothing of arrivals, and is idempotent."""
    registry, watch = WorkerRegistry("here"), Watch()
    await registry.register(ready("a"))
    await registry.watch_departure("a", watch)
    await registry.watch_departure("a", watch)
    assert watch.told == []
    await registry.unregister("a")
    assert watch.told == [ready("a")]
    await registry.register(ready("a"))
    assert watch.told == [ready("a")]


async def test_who_has_unwatched_is_not_told() -> None:
    """G2: neither of arrivals nor of departures; unwatching what was not watched is a no-op."""
    registry, watch = WorkerRegistry("here"), Watch()
    await registry.watch("a", watch)
    await registry.watch_departure("a", watch)
    registry.unwatch("a", watch)
    registry.unwatch("a", watch)
    await registry.register(ready("a"))
    await registry.unregister("a")
    assert watch.told == []


async def test_waiting_for_a_worker_that_is_there_returns_it() -> None:
    """G2: `wait_for`."""
    registry = WorkerRegistry("here")
    await registry.register(ready("a"))
    assert await registry.wait_for("a") == ready("a")


async def test_everybody_who_waits_for_a_worker_gets_it() -> None:
    """G2: one-shot, for any number."""
    registry = WorkerRegistry("here")
    got: list[WorkerReadyData] = []

    async def wait() -> None:
        got.append(await registry.wait_for("a"))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert got == []
        await registry.register(ready("b"))
        await registry.register(ready("a", "there"))
    assert got == [ready("a", "there")] * 3


async def test_who_waits_goes_on_though_a_watcher_is_slow() -> None:
    """G2: a one-shot wait is no watcher and stands in no line with them."""
    registry = WorkerRegistry("here")
    release = anyio.Event()

    async def slow(_: WorkerReadyData) -> None:
        await release.wait()

    async def wait() -> None:
        await registry.wait_for("a")
        release.set()

    await registry.watch("a", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await registry.register(ready("a"))


@pytest.mark.parametrize("comes", [True, False])
async def test_waiting_leaves_nothing_behind(comes: bool) -> None:
    """G2: whether the worker came or the wait was cancelled."""
    registry = WorkerRegistry("here")
    before = size_of(registry)
    for n in range(50):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(registry.wait_for, f"worker-{n}")
            await anyio.wait_all_tasks_blocked()
            if comes:
                await registry.register(ready(f"worker-{n}"))
            else:
                tasks.cancel_scope.cancel()
        if comes:
            await registry.unregister(f"worker-{n}")
    assert size_of(registry) - before < 1000


async def test_workers_that_come_and_go_leave_nothing_behind() -> None:
    """G2: those that were watched by others included."""
    meeter = Meeter()
    meeter.release.set()
    async with running(meeter) as runner:
        sizes = []
        for n in range(60):
            worker = Helper(f"helper-{n % 2}")
            await runner.add_workers(worker)
            await runner.registry.wait_for(worker.name)
            await worker.watch_workers("meeter", "guest", f"stranger-{n}")
            await runner.job(worker.name, name="echo")
            await worker.stop()
            while runner.get_worker(worker.name) is not None:
                await checkpoint()
            sizes.append(size_of(runner.registry))
    assert max(sizes[4:]) <= sizes[3] + 500  # by then its tables have the size that they need


async def test_jobs_add_nothing_to_the_registry() -> None:
    """G2: after many jobs its size is what it was after a few."""
    helper = Helper("helper")
    async with running(helper, Helper("asker")) as runner:
        asker = runner.get_worker("asker")
        assert asker is not None
        sizes = []
        for n in range(1500):
            await asker.job("helper", name="echo")
            if n in (10, 1499):
                sizes.append(size_of(runner.registry))
    assert sizes[0] == sizes[1]


async def test_jobs_for_workers_that_never_come_add_nothing_to_the_registry() -> None:
    """G2: nor do those that ran into their timeout."""
    async with running(Helper("asker")) as runner:
        asker = runner.get_worker("asker")
        assert asker is not None
        before = size_of(runner.registry)
        for n in range(20):
            with anyio.move_on_after(0):
                await asker.job(f"nobody-{n}")
            with pytest.raises(TimeoutError):
                await asker.job(f"nobody-{n}", timeout=0.001)
        assert size_of(runner.registry) <= before + 500


@pytest.mark.parametrize("event", ["register", "watch", "unregister"])
async def test_a_watcher_that_raises_is_logged_and_the_others_still_fire(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    """G3: at an arrival, at once, and at a departure."""
    registry, first, last = WorkerRegistry("here"), Watch(), Watch()

    async def bad(_: WorkerReadyData) -> None:
        raise ZeroDivisionError("it broke")

    watch = registry.watch_departure if event == "unregister" else registry.watch
    if event != "register":
        await registry.register(ready("a"))
    for watcher in (first, bad, last):
        await watch("a", watcher)
    if event == "register":
        assert await registry.register(ready("a")) is True
    elif event == "unregister":
        assert await registry.unregister("a") is True
    assert first.told == last.told == [ready("a")]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info and record.exc_info[0] for record in errors] == [ZeroDivisionError]


async def test_a_watcher_that_raises_stays() -> None:
    """G3: an error does not end the watch."""
    registry = WorkerRegistry("here")
    calls: list[WorkerReadyData] = []

    async def bad(data: WorkerReadyData) -> None:
        calls.append(data)
        raise ZeroDivisionError("it broke")

    await registry.watch("a", bad)
    for _ in range(2):
        await registry.register(ready("a"))
        await registry.unregister("a")
    assert len(calls) == 2


async def test_the_local_worker_comes_first() -> None:
    """G4: `get()` prefers it, whichever came first; without it, the other is found."""
    for order in (("here", "there"), ("there", "here")):
        registry = WorkerRegistry("here")
        for runner in order:
            await registry.register(ready("a", runner))
        assert registry.get("a") == ready("a", "here")
        assert registry.local_workers == registry.remote_workers == ["a"]
        await registry.unregister("a")
        assert registry.get("a") == ready("a", "there")


async def test_a_worker_that_is_registered_twice_is_known_as_it_was() -> None:
    """G1: it got ready once."""
    registry, first = WorkerRegistry("here"), WorkerReadyData("worker", "here")
    assert await registry.register(first)
    assert not await registry.register(WorkerReadyData("worker", "here"))
    assert registry.get("worker") is first


DATA = WorkerReadyData("worker", "here")


async def test_a_watcher_of_departures_that_gives_up_in_its_call_takes_nobody_with_it() -> None:
    """G2, G3"""
    registry, told = WorkerRegistry("here"), list[str]()

    async def once(_: WorkerReadyData) -> None:
        told.append("once")
        registry.unwatch("worker", once)

    await registry.watch_departure("worker", once)
    await registry.watch_departure("worker", lambda _: told.append("always"))
    for _ in range(2):
        await registry.register(DATA)
        await registry.unregister("worker")
    assert told == ["once", "always", "always"]


async def test_watching_again_while_the_first_call_is_under_way_is_watching_once() -> None:
    """G1"""
    registry, told = WorkerRegistry("here"), list[WorkerReadyData]()

    async def slow(data: WorkerReadyData) -> None:
        told.append(data)
        await anyio.sleep(1)

    await registry.register(DATA)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(registry.watch, "worker", slow)
    assert len(told) == 1
    await registry.unregister("worker")
    await registry.register(DATA)
    assert len(told) == 2


async def test_a_worker_that_has_gone_before_its_waiter_looks_is_waited_for_again() -> None:
    """G2"""
    registry, found = WorkerRegistry("here"), list[WorkerReadyData]()

    async def wait() -> None:
        found.append(await registry.wait_for("worker"))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await settle()
        await registry.register(DATA)
        await registry.unregister("worker")
        await settle()
        assert found == []
        await registry.register(DATA)
    assert found == [DATA]


async def test_who_waits_before_an_earlier_waiter_has_looked_is_told_of_the_next_worker() -> None:
    """G2: the worker has gone again by then, and both wait for the one that comes after it."""
    registry, found = WorkerRegistry("here"), list[WorkerReadyData]()

    async def wait() -> None:
        found.append(await registry.wait_for("worker"))

    async def come() -> None:
        await settle()
        await registry.register(DATA)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await settle()
        group.start_soon(come)
        await registry.register(DATA)
        await registry.unregister("worker")
        await wait()  # in the same step
    assert found == [DATA, DATA]


async def test_a_start_that_was_given_up_is_none_of_a_later_worker_of_the_name() -> None:
    """G1: a watch is immediate for that one, wherever it is."""
    registry, watch = WorkerRegistry("here"), Watch()
    assert registry.begin(ready("worker"))
    await registry.unregister("worker")
    elsewhere = ready("worker", "elsewhere")
    await registry.register(elsewhere)
    await registry.watch("worker", watch)
    assert watch.told == [elsewhere]


async def test_a_worker_that_was_never_ready_is_told_of_to_nobody() -> None:
    """G1, G2: neither that it came nor that it has gone; the next one of its name is."""
    registry, came, gone = WorkerRegistry("here"), Watch(), Watch()
    await registry.watch("worker", came)
    await registry.watch_departure("worker", gone)
    assert registry.begin(ready("worker"))
    await registry.unregister("worker")
    assert (came.told, gone.told) == ([], [])
    await registry.register(ready("worker"))
    await registry.unregister("worker")
    assert (came.told, gone.told) == ([ready("worker")], [ready("worker")])


async def test_a_waiter_that_gives_up_takes_no_other_with_it() -> None:
    """G2"""
    registry, found = WorkerRegistry("here"), list[WorkerReadyData]()

    async def wait() -> None:
        found.append(await registry.wait_for("worker"))

    async with anyio.create_task_group() as patient:
        patient.start_soon(wait)
        await settle()
        with anyio.move_on_after(1):
            await registry.wait_for("worker")
        await registry.register(DATA)
    assert found == [DATA]


class Compared:
    """An event that counts how often one is compared with another."""

    comparisons = 0

    def __init__(self) -> None:
        event = anyio.Event()
        self.set, self.wait = event.set, event.wait

    def __eq__(self, other: object) -> bool:
        Compared.comparisons += 1
        return self is other

    def __hash__(self) -> int:
        return id(self)


async def test_who_waits_for_a_worker_no_longer_is_not_looked_for_among_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R9: many wait for one that does not come, and give up one after the other."""
    monkeypatch.setattr("workerbus._watchers.Event", Compared)
    registry = WorkerRegistry("runner")
    scopes = [CancelScope() for _ in range(200)]

    async def wait(scope: CancelScope) -> None:
        with scope:
            await registry.wait_for("late")

    Compared.comparisons = 0
    async with anyio.create_task_group() as group:
        for scope in scopes:
            group.start_soon(wait, scope)
        await settle()
        for scope in reversed(scopes):
            scope.cancel()
            await settle()
    assert registry._waiting == {}
    assert Compared.comparisons < 200  # two of the same hash, now and then


async def test_a_name_is_in_the_registry_while_a_worker_of_that_name_is_ready() -> None:
    """N4: here or under another runner."""
    registry = WorkerRegistry("here")
    for runner in ("here", "there"):
        assert "a" not in registry
        await registry.register(ready("a", runner))
        assert "a" in registry
        assert "b" not in registry
        await registry.unregister("a", runner)
    assert "a" not in registry


async def test_who_unwatches_while_others_are_told_is_told_no_more() -> None:
    """G1, G2: of an arrival and of a departure."""
    registry = WorkerRegistry("here")
    told: list[WorkerReadyData] = []

    async def first(data: WorkerReadyData) -> None:
        registry.unwatch("a", told.append)

    for watch, change in (
        (registry.watch, registry.register(ready("a"))),
        (registry.watch_departure, registry.unregister("a")),
    ):
        await watch("a", first)
        await watch("a", told.append)
        await change
        registry.unwatch("a", first)
    assert told == []


class Unhashable:
    """A watcher that is equal to others, and has no hash."""

    __hash__ = None  # type: ignore[assignment]  # as Python does it

    def __init__(self) -> None:
        self.told: list[WorkerReadyData] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)

    def __call__(self, data: WorkerReadyData) -> None:
        self.told.append(data)


async def test_a_watcher_without_a_hash_is_itself_alone() -> None:
    """G1: watching twice is watching once, and each gives up for itself."""
    registry, one, other = WorkerRegistry("here"), Unhashable(), Unhashable()
    for watcher in (one, one, other):
        await registry.watch("a", watcher)
    await registry.register(ready("a"))
    assert len(one.told) == len(other.told) == 1
    registry.unwatch("a", one)
    await registry.unregister("a")
    await registry.register(ready("a"))
    assert len(one.told) == 1
    assert len(other.told) == 2


class Counted:
    """A watcher that counts how often it was compared with another one."""

    compared = 0

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return self is other

    def __call__(self, data: WorkerReadyData) -> None: ...


async def test_a_watch_looks_at_no_other_watcher() -> None:
    """R9: however many watch for the same worker."""
    registry, watchers = WorkerRegistry("here"), [Counted() for _ in range(200)]
    Counted.compared = 0
    for watcher in watchers:
        await registry.watch("hub", watcher)
        await registry.watch_departure("hub", watcher)
    for watcher in watchers:
        registry.unwatch("hub", watcher)
    assert Counted.compared < len(watchers)
    assert left_in(registry) == {}


async def test_a_worker_that_is_registered_twice_is_gone_for_all_runners_when_it_has_left() -> None:
    """G1, G2, R6: the first object counts, which is the one that leaves."""
    async with MemoryBus() as bus, runner_on(bus, "a") as a, runner_on(bus, "b") as b:
        first = ready("w", "a")
        assert await a.registry.register(first)
        assert not await a.registry.register(ready("w", "a"))
        assert b.registry.get("w") is first
        await a.registry.unregister("w")
        assert b.registry.get("w") is None


async def test_a_worker_that_began_to_go_is_gone_when_the_next_one_of_its_name_is_there() -> None:
    """J4, S1: that it has left was late, or lost on the way."""
    registry, left = WorkerRegistry("here"), list[WorkerReadyData]()
    registry.on_departure = lambda data, _error: left.append(data)
    old, new = ready("w", "far"), ready("w", "far")
    await registry.register(old)
    registry.withdraw("w", "far")
    await registry.register(new)
    assert [data is old for data in left] == [True]
    await registry.unregister("w", "far")
    assert [data is new for data in left] == [False, True]
    assert left_in(registry) == {}


async def test_a_worker_that_began_to_go_is_not_gone_because_another_runner_has_one_of_its_name() -> None:
    """G4, J4: it may still answer."""
    registry, gone = WorkerRegistry("here"), list[WorkerReadyData]()
    registry.on_departure = lambda data, error: gone.append(data)
    first, second = ready("worker", "first"), ready("worker", "second")
    await registry.register(first)
    assert registry.withdraw("worker", "first")
    await registry.register(second)
    assert gone == []
    await registry.unregister("worker", "first")
    assert gone == [first]
    assert registry.get("worker") is second


async def test_a_name_that_another_runner_claims_while_its_worker_starts_here_is_told_of() -> None:
    """G4: and the worker gets ready under it all the same."""
    registry, conflicts = WorkerRegistry("here"), list[WorkerReadyData]()
    registry.on_conflict = conflicts.append
    mine, theirs = WorkerReadyData("w", "here"), WorkerReadyData("w", "there")
    assert registry.begin(mine)
    assert registry.enter(theirs) is None
    assert conflicts == [theirs]
    assert registry.enter(mine) == []
    assert registry.get("w") == mine
