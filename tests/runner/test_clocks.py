"""L8: whatever the wall clocks do, and however late messages are, runners know who is there."""

import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.clocks import CLOCKS, HOUR, set_clock
from support.conditions import eventually
from support.networks import laws, network, seeds
from support.runners import runner_on
from support.workers import Helper
from workerbus import (
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    MemoryBus,
    WorkerRegistryEntry,
    WorkerRunner,
)
from workerbus.runner._discovery import REMEMBERED
from workerbus.testing import Faults, RecordingBus, run, settle

Clock = Callable[[], Callable[[], float]]


@CLOCKS
async def test_a_worker_that_is_restarted_is_found_and_one_that_stops_is_not(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """L8, G1: on one bus and across two."""
    set_clock(monkeypatch, clock)
    async with MemoryBus() as bus, runner_on(bus, "A") as a, runner_on(bus, "B") as b:
        for number in range(3):
            helper = Helper("helper")
            await b.add_workers(helper)
            assert await a.job("helper", name="echo", payload={"n": number}, timeout=1)
            await helper.stop()
            await settle()
            assert "helper" not in a.registry


@CLOCKS
async def test_a_runner_that_comes_later_hears_of_what_is_there_now(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """L8, R6: whatever its workers' clocks said when they started."""
    set_clock(monkeypatch, clock)
    async with MemoryBus() as bus, runner_on(bus, "A") as a:
        first, second = Helper("first"), Helper("second")
        await a.add_workers(first, second)
        await a.registry.wait_for("second")
        async with runner_on(bus, "B") as b:
            await first.stop()
            await settle()
            assert b.registry.remote_workers == ["second"]


@CLOCKS
async def test_a_worker_moves_from_one_runner_to_another(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """L8, G1: two hosts whose clocks have nothing to do with each other."""
    set_clock(monkeypatch, clock)
    async with MemoryBus() as bus, runner_on(bus, "A") as a, runner_on(bus, "B") as b, runner_on(bus, "C") as c:
        for host in (a, b, a, b):
            helper = Helper("helper")
            await host.add_workers(helper)
            data = await c.registry.wait_for("helper")
            assert data.runner == host.name
            assert await c.job("helper", name="echo", timeout=1)
            await helper.stop()
            await settle()


def test_a_runner_comes_back_under_its_name_on_a_host_whose_clock_is_behind(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L8, X4: after a death of which nobody was told."""
    now = [2_000_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])

    async def main() -> None:
        async with network("left", "right") as (left, right), runner_on(left, "asker") as asker:
            async with runner_on(right, "host") as host:
                await host.add_workers(Helper("helper"), Helper("other"))
                await asker.registry.wait_for("other")
                left.faults = Faults(lose=1.0)
            left.faults = Faults()
            now[0] -= HOUR
            async with runner_on(right, "host") as host:
                await eventually(lambda: asker.registry.remote_workers == [])
                await host.add_workers(Helper("helper"))
                assert await asker.job("helper", name="echo", timeout=10)
                assert asker.registry.remote_workers == ["helper"]

    run(main, backend=backend)


# --- lives of a runner


def life(incarnation: str, changes: list[tuple[bool, str]]) -> tuple[list[BusMessage], set[str]]:
    """What a runner announces in a life of which it gave notice at its start, with answers; and whom it has at last."""
    here: set[str] = set()
    told: list[BusMessage] = [BusWorkerRegistryMessage("host", [], incarnation, 1, source="host")]
    for number, (comes, name) in enumerate(changes, start=1):
        if comes:
            here.add(name)
            told.append(BusWorkerReadyMessage("host", incarnation=incarnation, number=2 * number, source=name))
        elif name in here:
            here.remove(name)
            told.append(BusWorkerGoneMessage("host", incarnation, 2 * number, source=name))
        entries = [WorkerRegistryEntry(each) for each in sorted(here)]
        stamp = incarnation, 2 * number + 1
        told.append(BusWorkerRegistryMessage("host", entries, *stamp, source="host", target="here"))
    return told, here


changes = st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1, max_size=6)


@laws
@given(former=changes, latter=changes, known=st.integers(1, 20), order=st.randoms())
def test_what_is_announced_in_two_lives_of_a_runner_may_come_in_any_order_and_twice(
    backend: str, former: list[Any], latter: list[Any], known: int, order: random.Random
) -> None:
    """L8, X4: once the former life is known; what is there in the end is what the latter has."""
    late, _ = life("former", former)
    fresh, expected = life("latter", latter)
    first, late = late[:known], late[known:]
    rest = [*late, *fresh, *order.choices([*first, *late, *fresh], k=5)]
    order.shuffle(rest)

    async def main() -> None:
        async with runner_on(MemoryBus(), "here") as runner:
            for message in [*first, *rest]:
                await runner.bus.send(message)
            await settle()
            assert set(runner.registry.remote_workers) == expected
            assert set(runner._discovery._others) == ({"host"} if expected else set())

    run(main, backend=backend)


@laws
@given(seed=seeds, delay=st.sampled_from([0.1, 1.0, 5.0]), lives=st.integers(2, 4), pause=st.sampled_from([0.0, 0.5]))
def test_a_runner_that_is_restarted_under_its_name_is_known_as_it_is_now(
    backend: str, seed: int, delay: float, lives: int, pause: float
) -> None:
    """L8, X4: on a network that is late and doubles, and to one that was there before as to one that comes later."""

    async def main() -> None:
        plan = Faults(delay=delay, duplicate=0.3)
        async with (
            network("left", "right", "third", seed=seed, faults=plan) as (left, right, third),
            runner_on(left, "before") as before,
        ):
            for number in range(lives - 1):
                async with runner_on(right, "host") as host:
                    await host.add_workers(Helper("helper"), Helper(f"helper {number}"))
                    await anyio.sleep(pause)
            async with runner_on(third, "after") as after, runner_on(right, "host") as host:
                await host.add_workers(Helper("helper"), Helper("last"))
                await anyio.sleep(60)
                for runner in (before, after):
                    assert sorted(runner.registry.remote_workers) == ["helper", "last"]
                    assert await runner.job("helper", name="echo", timeout=30)

    run(main, backend=backend, seed=seed, limit=600.0)


def ready(name: str, incarnation: str, number: int) -> BusMessage:
    return BusWorkerReadyMessage("host", incarnation=incarnation, number=number, source=name)


def hello(incarnation: str, number: int, *names: str, target: str | None = None) -> BusMessage:
    entries = [WorkerRegistryEntry(name) for name in names]
    return BusWorkerRegistryMessage("host", entries, incarnation, number, source="host", target=target)


async def tell(runner: WorkerRunner, *messages: BusMessage) -> None:
    for message in messages:
        await runner.bus.send(message)
    await settle()


async def test_the_first_sign_of_another_life_ends_the_one_before() -> None:
    """L8, J4, X4: at once, whatever the sign is; jobs that workers of the old one were asked for are answered."""
    async with runner_on(MemoryBus(), "here") as here:
        for number, sign in enumerate([hello("second", 1), ready("new", "fourth", 1)]):
            await tell(here, ready(f"old {number}", f"first {number}", 7))
            async with here.job_group(f"old {number}", cancel_on_error=False) as group:
                await tell(here, sign)
            assert group.statuses[f"old {number}"].value == "error"
            assert f"old {number}" not in here.registry
        assert here.registry.remote_workers == ["new"]


async def test_a_worker_that_is_in_both_lives_of_its_runner_has_gone_in_between() -> None:
    """L8, G1, G2: who watches hears of both, in this order."""
    seen: list[str] = []
    async with runner_on(MemoryBus(), "here") as here:
        await here.registry.watch("worker", lambda _: seen.append("came"))
        await here.registry.watch_departure("worker", lambda _: seen.append("went"))
        await tell(here, ready("worker", "first", 5), ready("worker", "second", 2))
        here.registry._watchers.clear()
        here.registry._departure_watchers.clear()
    assert seen == ["came", "went", "came"]


async def test_nothing_that_comes_late_from_a_life_that_is_over_counts() -> None:
    """L8, X4: higher numbers, and lists for this runner alone, neither; a list for all that is no newer, neither."""
    async with runner_on(MemoryBus(), "here") as here:
        await tell(here, ready("old", "first", 5), ready("new", "second", 1))
        late = [ready("old", "first", 9), hello("first", 9, "old", target="here"), hello("first", 5, "old")]
        gone = BusWorkerGoneMessage("host", "first", 10, source="new")
        await tell(here, *late, gone)
        assert here.registry.remote_workers == ["new"]


@pytest.mark.parametrize("numbers", [(5, 7), (7, 5), (5, 7, 3)])
async def test_a_list_of_a_life_that_is_over_has_to_be_newer_than_all_that_came_of_it(numbers: tuple[int, ...]) -> None:
    """L8, X4: in whatever order that came."""
    async with runner_on(MemoryBus(), "here") as here:
        await tell(here, *(ready(f"old {number}", "first", number) for number in numbers), ready("new", "second", 1))
        await tell(here, hello("first", 6, "old"))
        assert here.registry.remote_workers == ["new"]
        await tell(here, hello("first", 8, "old"))
        assert here.registry.remote_workers == ["old"]


async def test_what_has_failed_in_a_life_that_is_over_is_forgotten() -> None:
    """L8, J4: the worker may come in the new life, and a job for it waits."""
    async with runner_on(MemoryBus(), "here") as here:
        failed = BusWorkerGoneMessage("host", "first", 2, "OSError: no device", source="worker")
        await tell(here, ready("worker", "first", 1), failed)
        assert here.registry.failure_of("worker") is not None
        await tell(here, ready("other", "second", 1))
        assert here.registry.failure_of("worker") is None


async def test_a_life_is_over_though_it_had_no_workers_any_more() -> None:
    """L8, X4: what is late of it brings nobody back, and takes nobody away."""
    async with runner_on(MemoryBus(), "here") as here:
        gone = BusWorkerGoneMessage("host", "first", 2, source="old")
        await tell(here, ready("old", "first", 1), gone, ready("new", "second", 1), ready("late", "first", 3))
        assert here.registry.remote_workers == ["new"]


async def test_what_does_not_say_in_which_life_it_was_said_is_of_the_life_that_is_known() -> None:
    """L8: of another runner, and of this one, which knows what it has."""
    async with runner_on(MemoryBus(), "here") as here:
        await tell(here, ready("worker", "life", 3), ready("other", "life", 4))
        await tell(here, BusWorkerGoneMessage("host", source="worker"), ready("other", "life", 5))
        await tell(here, BusWorkerReadyMessage("here", source="made up"))
        assert here.registry.remote_workers == ["other"]
        assert here._discovery._over == {}


async def test_a_life_that_was_taken_for_over_goes_on_with_its_next_list_for_all() -> None:
    """L8: the first sign of an older life was so late that the newer one was known."""
    async with runner_on(MemoryBus(), "here") as here:
        await tell(here, ready("new", "second", 1), ready("old", "first", 5))
        assert here.registry.remote_workers == ["old"]
        await tell(here, hello("second", 2, "new"))
        assert here.registry.remote_workers == ["new"]
        await tell(here, ready("newer", "second", 3), ready("older", "first", 7))
        assert here.registry.remote_workers == ["new", "newer"]
        assert list(here._discovery._over) == [("host", "first", None)]


async def test_a_runner_that_hears_of_an_earlier_life_of_its_name_tells_all_once_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L8: once for each, and it says so in the log; its own announcements, which come back, are none of that."""
    bus = RecordingBus()
    async with runner_on(bus, "host") as host:
        await host.add_workers(Helper("helper"))
        await host.registry.wait_for("helper")
        for late in (ready("old", "first", 5), ready("old", "first", 6), hello("first", 7), ready("old", "other", 1)):
            await bus.send(late)
        await settle()
        assert host.registry.remote_workers == []
        lists = [message for message in bus.messages(BusWorkerRegistryMessage) if message.incarnation != "first"]
    assert [[entry.name for entry in message.workers] for message in lists] == [[], ["helper"], ["helper"]]
    assert {message.target for message in lists} == {None}
    assert sum("of its name" in message for message in caplog.messages) == 2


async def test_of_lives_that_are_over_and_of_runners_without_workers_the_last_ones_are_remembered() -> None:
    """L8, R9: names and lives come and go."""
    async with runner_on(MemoryBus(), "here") as here:
        discovery = here._discovery
        for number in range(REMEMBERED + 10):
            await here.bus.send(ready("worker", f"life {number}", 1))
            await here.bus.send(BusWorkerGoneMessage(f"runner {number}", "life", 1, source="nobody"))
        await settle()
        assert len(discovery._over) == len(discovery._without_workers) == REMEMBERED
        await tell(here, ready("late", f"life {REMEMBERED}", 9))
        assert here.registry.remote_workers == ["worker"]


async def test_each_runner_has_a_life_of_its_own() -> None:
    """L8: the id of which is asked for as often as one likes."""
    runners = [WorkerRunner(name="runner") for _ in range(3)]
    lives = [runner.registry.incarnation for runner in runners]
    assert len(set(lives)) == len(runners)
    assert lives == [runner.registry.incarnation for runner in runners]
