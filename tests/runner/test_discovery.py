"""G1, L8: what runners tell each other of their workers."""

import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from support.leaks import left_in
from support.runners import runner_on
from support.shared_buses import Linked, pair
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BusMessage,
    BusSubscriber,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    MemoryBus,
    WorkerGoneData,
    WorkerParams,
    WorkerReadyData,
    WorkerRegistryEntry,
    WorkerRunner,
    worker_ready,
)
from workerbus.runner._discovery import REMEMBERED
from workerbus.testing import RecordingBus, settle
from workerbus.worker._core import core_of


async def test_each_runner_sees_the_others_workers_as_remote() -> None:
    """R6: those that were there before it, those that come later, and children."""
    async with pair() as both:
        child = Helper("child")
        await both.on_a.add_workers(child)
        await both.b.registry.wait_for("child")
        assert set(both.a.registry.local_workers) == {"on a", "child"}
        assert both.a.registry.remote_workers == ["on b"]
        assert both.b.registry.local_workers == ["on b"]
        assert set(both.b.registry.remote_workers) == {"on a", "child"}
        assert both.b.registry.get("child") == WorkerReadyData("child", "A")
        assert both.b.get_worker("on a") is None


async def test_a_runner_that_comes_later_learns_of_the_workers_before_it() -> None:
    """R6: and they of its own."""
    async with pair() as both, runner_on(both.bus, "C") as c:
        await c.add_workers(Helper("on c"))
        for runner in (both.a, both.b):
            await runner.registry.wait_for("on c")
        await c.registry.wait_for("on a")
        await c.registry.wait_for("on b")
        assert set(c.registry.remote_workers) == {"on a", "on b"}


async def test_a_watch_for_a_remote_worker_fires() -> None:
    """R6, G1: whichever of the two was first."""
    seen: list[WorkerReadyData] = []

    class Watching(Helper):
        @worker_ready(name="on b")
        async def b_is_there(self, data: WorkerReadyData) -> None:
            seen.append(data)
            if len(seen) == 2:
                self.release.set()

    async with MemoryBus() as bus:
        early, late = Watching("early"), Watching("late")
        async with runner_on(bus, "A") as a, runner_on(bus, "B") as b:
            await a.add_workers(early)
            await a.registry.wait_for("early")
            await b.add_workers(Helper("on b"))
            await a.registry.wait_for("on b")
            await a.add_workers(late)
            await late.release.wait() if len(seen) < 2 else None
    assert seen == [WorkerReadyData("on b", "B")] * 2


async def test_all_that_was_watched_and_waited_for_before_a_run_is_told_of_when_it_begins() -> None:
    """G1, G2, R6: of workers that other runners had before it came."""
    told: list[str] = []
    waited: list[str] = []
    async with MemoryBus() as bus, runner_on(bus, "A") as there:
        names = [f"w{n}" for n in range(6)]
        await there.add_workers(*map(Helper, names), wait=True)
        late = runner_on(bus, "late")
        async with anyio.create_task_group() as tasks:
            for name in names[:3]:
                await late.registry.watch(name, lambda data: told.append(data.worker_name))
            for name in names[3:]:

                async def wait(name: str = name) -> None:
                    waited.append((await late.registry.wait_for(name)).worker_name)

                tasks.start_soon(wait)
            await settle()
            assert told == waited == []
            async with late:
                await settle()
                assert sorted(told) == names[:3]
                assert sorted(waited) == names[3:]


async def test_who_takes_the_name_of_one_that_leaves_is_known_from_then_on() -> None:
    """W6, N4: the name is free before the other has quite finished."""
    first, second = Helper("worker"), Helper("worker")

    async def replace(_: WorkerReadyData) -> None:
        await runner.add_workers(second)

    async with running(first) as runner:
        await runner.registry.watch_departure("worker", replace)
        await first.stop()
        await settle()
        assert runner.get_worker("worker") is second
        runner.registry.unwatch("worker", replace)


class LeavingSlowly(MemoryBus):
    """Takes a second to say that a subscriber has left."""

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        await super().unsubscribe(subscriber)
        await anyio.sleep(1)


async def test_who_takes_the_name_under_another_runner_is_known_when_the_first_has_quite_left() -> None:
    """G1, W6: also to a runner that comes later."""
    first, second = Helper("worker"), Helper("worker")
    async with LeavingSlowly() as bus, runner_on(bus, "a") as a, runner_on(bus, "b") as b:
        await a.add_workers(first, wait=True)
        async with anyio.create_task_group() as group:
            group.start_soon(first.stop)
            await settle()
            await b.add_workers(second, wait=True)
        async with runner_on(bus, "c") as c:
            for runner in (a, b, c):
                data = runner.registry.get("worker")
                assert data is not None
                assert data.runner == "b"
                assert (await runner.job("worker", name="echo"))["worker"] == "worker"


def ready(number: int | None, name: str = "remote", life: str | None = "life") -> BusMessage:
    return BusWorkerReadyMessage("elsewhere", incarnation=life, number=number, source=name)


def gone(number: int | None, name: str = "remote", life: str | None = "life") -> BusMessage:
    return BusWorkerGoneMessage("elsewhere", life, number, source=name)


async def tell(runner: WorkerRunner, *messages: BusMessage) -> None:
    for message in messages:
        await runner.bus.send(message)
        await settle()


async def test_a_departure_that_has_the_number_of_the_arrival_counts() -> None:
    """J4, R6"""
    async with WorkerRunner(handle_sigint=False) as runner:
        await tell(runner, ready(1), gone(1))
        assert runner.registry.remote_workers == []


async def test_a_departure_that_does_not_say_when_lets_no_old_news_in() -> None:
    """R6: what was known before is still newer."""
    async with WorkerRunner(handle_sigint=False) as runner:
        await tell(runner, ready(2), gone(None), ready(1))
        assert runner.registry.remote_workers == []
        await tell(runner, ready(3))
        assert runner.registry.remote_workers == ["remote"]


async def test_of_workers_that_have_gone_the_last_ones_are_remembered() -> None:
    """G2: those whose announcements may still be under way."""
    async with WorkerRunner(handle_sigint=False) as runner:
        for number in range(REMEMBERED + 10):
            await runner.bus.send(gone(2, f"worker {number}"))
        await tell(runner, *(ready(1, f"worker {number}") for number in (10, *range(REMEMBERED, REMEMBERED + 10))))
        assert runner.registry.remote_workers == []


async def test_a_worker_that_has_gone_again_is_remembered_like_those_that_go_now() -> None:
    """G2: and not like those that went when it first did."""
    async with WorkerRunner(handle_sigint=False) as runner:
        for number in range(REMEMBERED):
            await runner.bus.send(gone(1, f"worker {number}"))
        await tell(runner, gone(3, "worker 0"), gone(1), ready(2, "worker 0"))
        assert runner.registry.remote_workers == []


async def test_a_worker_that_has_come_back_is_not_among_those_that_have_gone() -> None:
    """G2"""
    async with WorkerRunner(handle_sigint=False) as runner:
        await tell(runner, gone(1), ready(2))
        assert runner._discovery._gone == {}
        assert runner._discovery._without_workers == {}


async def test_what_is_said_of_a_runner_on_the_same_bus_changes_nothing() -> None:
    """R9: it is known what that one has; nothing is kept of it."""
    async with MemoryBus() as bus, runner_on(bus, "here") as here, runner_on(bus, "there") as there:
        await there.add_workers(Helper("remote"))
        await here.registry.wait_for("remote")
        stamp = there.registry.incarnation, 1_000_000_000
        await tell(
            here,
            BusWorkerGoneMessage("there", *stamp, source="remote"),
            BusWorkerReadyMessage("there", source="made up"),
            BusWorkerRegistryMessage("there", [], *stamp, source="there"),
        )
        assert here.registry.remote_workers == ["remote"]
        discovery = here._discovery
        assert not any((discovery._others, discovery._gone, discovery._over, discovery._without_workers))


async def test_a_list_says_of_each_worker_how_it_is() -> None:
    """G1, L8, N1: and when in which life of its runner the list was made."""

    class Bridged(Helper):
        @property
        def bridged(self) -> bool:
            return True

    network: list[Linked] = []
    heard: list[BusMessage] = []
    bus = Linked(network)
    bus.add_tap(heard.append)
    async with runner_on(bus, "A") as a:
        parent, child = Helper("parent"), Bridged("child", active=False)
        await a.add_workers(parent)
        await parent.add_workers(child)
        await a.registry.wait_for("child")
        async with runner_on(Linked(network), "B") as b:
            await b.registry.wait_for("child")
        lists = [message for message in heard if isinstance(message, BusWorkerRegistryMessage)]
        [asking] = [message for message in lists if message.source == "B"]
        [answer] = [message for message in lists if message.target == "B"]
        assert asking.workers == []
        assert answer.workers == [
            WorkerRegistryEntry("parent", None, True, False, started_at=parent.started_at),
            WorkerRegistryEntry("child", "parent", False, True, started_at=child.started_at),
        ]
        [announced] = [each for each in heard if isinstance(each, BusWorkerReadyMessage) and each.source == "child"]
        assert answer.incarnation == announced.incarnation == a.registry.incarnation != asking.incarnation
        assert 0 < (announced.number or 0) < (answer.number or 0)


async def test_a_list_that_was_sent_to_one_alone_is_not_answered() -> None:
    """R9: it is an answer itself; a list for all asks for one."""
    bus = RecordingBus()
    async with WorkerRunner(bus=bus, name="here", handle_sigint=False) as runner:
        await runner.add_workers(Helper("helper"))
        for target, answers in (("here", 0), (None, 1), ("here", 1), (None, 2)):
            await tell(runner, BusWorkerRegistryMessage("elsewhere", [], source="elsewhere", target=target))
            assert len(bus.messages(BusWorkerRegistryMessage, source="here", target="elsewhere")) == answers


@pytest.mark.parametrize("workers", [0, 1])
async def test_runners_that_meet_on_a_network_tell_each_other_no_more_than_they_have_to(workers: int) -> None:
    """R9: each tells all when it comes, and each that is there and has workers tells the one that has come."""
    count, network, lists = 8, list[Linked](), list[BusMessage]()
    buses = [Linked(network) for _ in range(count)]
    for bus in buses:
        bus.add_tap(lists.append)
    async with AsyncExitStack() as stack:
        runners = [runner_on(bus, str(number)) for number, bus in enumerate(buses)]
        for runner in runners:
            await stack.enter_async_context(runner)
            await runner.add_workers(*(Helper(f"helper of {runner.name}") for _ in range(workers)))
            await settle()
        for runner in runners:
            assert len(runner.registry.remote_workers) == (count - 1) * workers
        # Each is seen at each end that is there, so the same message is counted once.
        seen = {id(each): each for each in lists if isinstance(each, BusWorkerRegistryMessage)}.values()
        assert len([each for each in seen if each.target is None]) == count
        assert len([each for each in seen if each.target is not None]) == workers * count * (count - 1) // 2


async def test_runners_on_one_bus_of_a_process_do_not_tell_each_other_anything() -> None:
    """R9: an observer hears one list and two announcements of each, and the others share what is known."""
    count, bus, observer = 20, MemoryBus(), Plain("observer")
    await bus.subscribe(observer)
    async with bus, AsyncExitStack() as stack:
        runners = [runner_on(bus, str(number)) for number in range(count)]
        for runner in runners:
            await stack.enter_async_context(runner)
            await runner.add_workers(Helper(f"helper of {runner.name}"))
        await settle()
        for runner in runners:
            assert len(runner.registry.remote_workers) == count - 1
            assert set(runner.registry.local_workers) | set(runner.registry.remote_workers) == {
                f"helper of {each.name}" for each in runners
            }
            assert bus.statistics().subscribers[runner.name].delivered == 0
        assert bus.statistics().sent == 2 * count
        assert bus.neighbourhood is not None
    assert len([message for message in observer.got if message.announcement]) == 3 * count
    assert (bus.neighbourhood.workers, bus.neighbourhood.registries) == ({}, {})


async def _calls_of_many(count: int) -> int:
    """How many functions are called while so many runners come up on one bus, each with a worker."""
    calls = 0

    def count_one(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    async with MemoryBus() as bus, AsyncExitStack() as stack:
        before = sys.getprofile()
        sys.setprofile(count_one)
        try:
            for number in range(count):
                runner = await stack.enter_async_context(runner_on(bus, f"runner {number}"))
                await runner.add_workers(Helper(f"helper {number}"))
            await runner.registry.wait_for(f"helper {count - 1}")
        finally:
            sys.setprofile(before)
    return calls


async def test_many_runners_come_up_on_one_bus_in_time_that_grows_with_their_number() -> None:
    """R9: four times as many take no more than five times as long; counted in calls, since times are not reliable."""
    await _calls_of_many(2)  # what is imported or made once
    few, many = await _calls_of_many(10), await _calls_of_many(40)
    assert many < 5 * few


class Unread(dict[Any, Any]):
    """A table in which things are looked up, and that nobody goes through."""

    def _gone_through(self) -> Any:
        pytest.fail("somebody goes through all there is")

    __iter__ = __reversed__ = keys = values = items = copy = _gone_through


async def test_nobody_goes_through_all_names_or_runners_for_a_message() -> None:
    """R9: whatever a runner, or a worker of its, announces."""
    async with WorkerRunner(handle_sigint=False) as runner:
        others = [BusWorkerReadyMessage(f"runner {n}", number=1, source=f"worker {n}") for n in range(10)]
        await tell(runner, *others)
        discovery, registry = runner._discovery, runner.registry
        discovery._others = Unread(discovery._others)
        registry._remote, registry._local = Unread(registry._remote), Unread()
        await tell(runner, ready(1), ready(1, "other"), snapshot(2, "remote", "third"), gone(3), snapshot(4), ready(5))
        await tell(runner, BusWorkerReadyMessage("another", number=1, source="remote"), gone(6))
        assert len(registry._remote) == len(discovery._others) == 11
        registry._remote, registry._local = {}, {}


async def test_nothing_stays_of_runners_that_have_left_the_bus() -> None:
    """R9, G2: neither of them nor of their workers."""
    async with MemoryBus() as bus, runner_on(bus, "here") as here:
        for number in range(5):
            async with runner_on(bus, f"runner {number}") as runner, runner_on(bus, f"other {number}") as other:
                await runner.add_workers(Helper(f"helper {number}"), Helper(f"leaves {number}"))
                await here.registry.wait_for(f"leaves {number}")
                await other.registry.wait_for(f"leaves {number}")
                leaves = runner.get_worker(f"leaves {number}")
                assert leaves is not None
                await leaves.stop()
        await settle()
        discovery = here._discovery
        assert (discovery._others, discovery._gone) == ({}, {})
        assert left_in(here.registry) == {}


async def test_a_worker_that_goes_while_the_list_with_its_name_waits_does_not_come_back() -> None:
    """J4, G1: a watcher holds up other watchers, and nothing else."""
    suspended, go_on = anyio.Event(), anyio.Event()

    async def take_long(_: WorkerReadyData) -> None:
        suspended.set()
        await go_on.wait()

    async with MemoryBus() as bus, runner_on(bus, "A") as a:
        leaves = Helper("leaves")
        await a.add_workers(Helper("watched"), leaves, Helper("stays"))
        await a.registry.wait_for("stays")
        late = runner_on(bus, "late")
        await late.registry.watch("watched", take_long)
        async with late:
            await suspended.wait()
            await settle()
            await leaves.stop()
            await settle()
            go_on.set()
            await late.registry.wait_for("stays")
            await settle()
            assert sorted(late.registry.remote_workers) == ["stays", "watched"]
            late.registry.unwatch("watched", take_long)


async def test_a_worker_that_has_not_started_is_announced_to_nobody() -> None:
    """G1, R6: not in the list for a runner that comes meanwhile, either."""

    class Unready(Helper):
        async def run(self, params: WorkerParams) -> None:
            await anyio.sleep_forever()

    bus = MemoryBus()
    async with bus, WorkerRunner(bus=bus, name="A", handle_sigint=False, grace_period=0) as first:
        await first.add_workers(Unready("unready"), Helper("ready"))
        await settle()
        async with WorkerRunner(bus=bus, name="B", handle_sigint=False) as second:
            await second.registry.wait_for("ready")
            await settle()
            assert second.registry.remote_workers == ["ready"]


async def test_a_worker_that_has_gone_is_not_kept_to_be_told_of_others() -> None:
    """G2, L1"""

    class Curious(Helper):
        async def on_worker_ready(self, data: WorkerReadyData) -> None:
            """What matters is that it is there."""

    curious = Curious("curious")
    async with running(curious, Helper("other")) as runner:
        assert runner._hosted.ready_listeners == {"curious": core_of(curious)}
        await curious.stop()
        assert runner._hosted.ready_listeners == {}


def snapshot(number: int, *names: str, life: str = "life", target: str | None = None) -> BusMessage:
    entries = [WorkerRegistryEntry(name) for name in names]
    return BusWorkerRegistryMessage("elsewhere", entries, life, number, source="elsewhere", target=target)


@pytest.mark.parametrize(
    ("messages", "there"),
    [
        ([ready(2), snapshot(1)], True),
        ([ready(2), snapshot(3)], False),
        ([ready(1), gone(3), snapshot(2, "remote")], False),
        ([ready(1), gone(2), snapshot(3, "remote")], True),
        ([gone(2), ready(1)], False),
        ([ready(1), gone(2), ready(3)], True),
        ([snapshot(3, "remote"), gone(2)], True),
        ([snapshot(3, "remote"), gone(4)], False),
        ([ready(1), ready(1, "other"), snapshot(2)], False),
        ([ready(1, "other"), gone(2), ready(1)], False),
        ([ready(3), ready(1), gone(2)], True),
        ([gone(3), gone(1), ready(2)], False),
        ([gone(2), ready(None), gone(1)], True),
        ([ready(1), gone(1), ready(1)], True),
        ([ready(1), ready(5), gone(3)], True),
    ],
)
async def test_what_is_older_than_what_is_known_of_a_worker_is_no_news(messages: list[BusMessage], there: bool) -> None:
    """R6, J4: workers and their runner are different senders, whose messages a network may bring in any order."""
    async with WorkerRunner() as runner:
        for message in messages:
            await runner.bus.send(message)
            await anyio.wait_all_tasks_blocked()
        assert ("remote" in runner.registry.remote_workers) == there


async def test_what_a_list_says_to_have_failed_is_no_failure_of_one_that_is_there() -> None:
    """J4: a worker of that name may run under another runner by now; when it goes, it has not failed either."""
    failed = [WorkerGoneData("remote", "elsewhere", "broken"), WorkerGoneData("other", "elsewhere", "broken")]
    async with WorkerRunner() as runner:
        await tell(runner, BusWorkerReadyMessage("third", incarnation="its own", number=1, source="remote"))
        await tell(runner, BusWorkerRegistryMessage("elsewhere", [], "life", 1, failed, source="elsewhere"))
        assert runner.registry.failure_of("remote") is None
        assert runner.registry.failure_of("other") == failed[1]
        await tell(runner, BusWorkerGoneMessage("third", "its own", 2, source="remote"))
        assert "remote" not in runner.registry
        with pytest.raises(TimeoutError, match="not ready"):
            await runner.job("remote", timeout=1.0)


async def test_one_that_fails_elsewhere_is_no_failure_of_one_of_its_name_that_is_there() -> None:
    """J4, G4: two runners have had a worker of the name, and one of them loses it."""
    async with WorkerRunner() as runner:
        for other, life in (("elsewhere", "life"), ("third", "its own")):
            await tell(runner, BusWorkerReadyMessage(other, incarnation=life, number=1, source="remote"))
        await tell(runner, BusWorkerGoneMessage("elsewhere", "life", 2, "broken", source="remote"))
        assert runner.registry.failure_of("remote") is None
        assert "remote" in runner.registry
        await tell(runner, BusWorkerGoneMessage("third", "its own", 2, "broken, too", source="remote"))
        assert runner.registry.failure_of("remote") == WorkerGoneData("remote", "third", "broken, too")


async def test_all_that_a_list_has_no_more_have_gone() -> None:
    """R6, G2: each of them is told of."""
    gone_ones: list[str] = []
    async with WorkerRunner() as runner:
        await tell(runner, snapshot(1, "a", "b", "c", "d"))
        for name in "abcd":
            await runner.registry.watch_departure(name, lambda data: gone_ones.append(data.worker_name))
        await tell(runner, snapshot(2, "b"))
        assert runner.registry.remote_workers == ["b"]
        assert sorted(gone_ones) == ["a", "c", "d"]


async def test_of_workers_that_have_gone_little_is_kept() -> None:
    """G2: made-up names come and go."""
    async with WorkerRunner() as runner:
        for number in range(REMEMBERED + 100):
            await runner.bus.send(BusWorkerReadyMessage("elsewhere", number=1, source=f"worker {number}"))
            await runner.bus.send(BusWorkerGoneMessage("elsewhere", number=2, source=f"worker {number}"))
        await anyio.wait_all_tasks_blocked()
        assert len(runner._discovery._gone) <= REMEMBERED
        assert runner._discovery._others == {}


async def test_a_root_worker_is_told_of_the_other_roots_and_of_nobody_else() -> None:
    """N3, W5: not of itself, of others' children, or of what another runner has."""
    told: list[str] = []

    class Curious(Helper):
        async def on_worker_ready(self, data: WorkerReadyData) -> None:
            told.append(f"{self.name} of {data.worker_name}")

    async with running(Helper("one"), name="here") as runner:
        one = runner.get_worker("one")
        assert one is not None
        await one.add_workers(Helper("child"))
        await runner.registry.register(WorkerReadyData("remote", "there"))
        await runner.registry.wait_for("child")
        await runner.add_workers(Curious("late"))
        await anyio.wait_all_tasks_blocked()
        assert told == ["late of one"]
        await runner.add_workers(Curious("later"))
        await one.add_workers(Helper("another child"))
        await runner.registry.register(WorkerReadyData("another remote", "there"))
        await anyio.wait_all_tasks_blocked()
    assert sorted(told) == ["late of later", "late of one", "later of late", "later of one"]
