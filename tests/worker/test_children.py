"""W5: adding children, and starting with them."""

from typing import Any

import anyio
import pytest
from anyio import current_time
from anyio.lowlevel import checkpoint

from support.broken_buses import Broken, Picky
from support.conditions import eventually
from support.families import Arriving, Parent, Unattachable
from support.messages import Note, note
from support.runners import quiet_runner
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BusAddWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    BusSubscriber,
    MemoryBus,
    NameTakenError,
    NotRunningError,
    ParentError,
    WorkerBus,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
)
from workerbus.testing import RecordingBus, settle


async def test_added_workers_are_children() -> None:
    """W5"""
    parent, one, two = Parent(), Helper("one"), Helper("two")
    async with running(parent) as runner:
        await parent.add_workers(one, two)
        assert (one.parent, two.parent, parent.parent) == ("parent", "parent", None)
        assert set(parent.children) == {one, two}
        await runner.job("one", name="echo")
        await runner.job("two", name="echo")


async def test_who_adds_a_child_again_can_wait_for_its_start() -> None:
    """W9: though somebody else has added it."""

    class Slow(Helper):
        async def on_activated(self, args: Any) -> None:
            await anyio.sleep(1)
            started.append(current_time())

    started: list[float] = []
    parent, child = Parent(), Slow("child")
    async with running(parent):
        await parent.add_workers(child)
        assert started == []
        await parent.add_workers(child, wait=True)
        assert started == [current_time()]


async def test_children_are_watched() -> None:
    """W5"""
    parent = Parent()
    async with running(parent):
        await parent.add_workers(Helper("one"), Helper("two"))
        await eventually(lambda: len(parent.ready) == 2)
    assert sorted(parent.ready) == ["one", "two"]


async def test_children_are_not_watched_where_it_is_not_wished() -> None:
    """W5: until somebody asks for it"""
    parent = Parent()
    async with running(parent) as runner:
        await parent.add_workers(Helper("one"), watch=False)
        await runner.registry.wait_for("one")
        await anyio.wait_all_tasks_blocked()
        assert parent.ready == []
        await parent.watch_workers("one")
        await eventually(lambda: parent.ready)
    assert parent.ready == ["one"]


async def test_a_child_under_the_name_of_an_unwatched_one_is_watched() -> None:
    """W5"""
    parent, first, second = Parent(), Helper("child"), Helper("child")
    async with running(parent) as runner:
        await parent.add_workers(first, watch=False)
        await runner.registry.wait_for("child")
        await first.stop()
        await parent.add_workers(second)
        await runner.registry.wait_for("child")
        await anyio.wait_all_tasks_blocked()
        assert parent.ready == ["child"]


async def test_each_child_under_a_name_is_announced() -> None:
    """W5"""
    parent = Parent()
    async with running(parent) as runner:
        for _ in range(3):
            child = Helper("child")
            await parent.add_workers(child)
            await runner.registry.wait_for("child")
            await eventually(lambda: parent.ready)
            await anyio.wait_all_tasks_blocked()
            assert parent.ready == ["child"]
            parent.ready.clear()
            await child.stop()


async def test_only_the_parent_hears_of_a_child() -> None:
    """W5"""
    parent, root, below = Parent(), Parent("root"), Parent("below")
    async with running(parent, root):
        await parent.add_workers(below)
        await below.add_workers(Helper("child"))
        await eventually(lambda: below.ready)
        await anyio.wait_all_tasks_blocked()
    assert below.ready == ["child"]
    assert parent.ready == ["root", "below"]
    assert root.ready == ["parent"]


async def test_a_child_of_another_parent_is_refused() -> None:
    """W5: and with it everything that was to be added in the same call"""
    parent, other, child, fresh = Parent(), Parent("other"), Helper("child"), Helper("fresh")
    async with running(parent, other) as runner:
        await parent.add_workers(child)
        with pytest.raises(ValueError, match="'parent'"):
            await other.add_workers(fresh, child)
        assert child.parent == "parent"
        assert other.children == []
        assert fresh.parent is None
        assert runner.get_worker("fresh") is None
        await other.add_workers(fresh)


async def test_a_child_again_is_the_same_child() -> None:
    """W5"""
    parent, child = Parent(), Helper("child")
    async with running(parent) as runner:
        await parent.add_workers(child, child)
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        assert parent.children == [child]
        await eventually(lambda: parent.ready)
    assert parent.ready == ["child"]


async def test_a_child_again_is_skipped_even_where_no_other_is_taken() -> None:
    """W5: while its parent ends."""

    class Adding(Parent):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                with pytest.raises(NotRunningError):
                    await self.add_workers(Helper("another"))
                await self.add_workers(child)
                self.calls.append("skipped")

    class Slow(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await params.wait_for_end()
            await anyio.sleep(1)

    parent, child = Adding(), Slow("child")
    async with running(parent) as runner:
        await parent.add_workers(child, wait=True)
        await runner.bus.send(BusEndWorkerMessage(source="test", target="parent"))
        await settle()
        await runner.bus.send(note(0, "parent"))
        await parent.wait()
    assert parent.calls == ["skipped"]


async def test_nobody_is_its_own_ancestor() -> None:
    """W5"""
    parent, child = Parent(), Parent("child")
    await parent.add_workers(child)
    with pytest.raises(ValueError, match="'parent'"):
        await child.add_workers(parent)
    with pytest.raises(ValueError, match="'parent'"):
        await parent.add_workers(parent)
    assert child.children == []


async def test_a_worker_that_was_attached_by_hand_is_nobody_s_child() -> None:
    """W5: nobody would start it."""
    parent, other = Helper("parent"), Helper("other")
    async with running(parent) as runner:
        await other.attach(registry=runner.registry, bus=runner.bus)
        with pytest.raises(ParentError, match="a runner has it already, or has run it"):
            await parent.add_workers(other)
        assert parent.children == []
        await other.stop()


async def test_where_one_name_is_taken_none_of_the_children_is_added() -> None:
    """W5, R3"""
    parent, free, taken = Helper("parent"), Helper("free"), Helper("taken")
    async with running(parent, Helper("taken")) as runner:
        with pytest.raises(NameTakenError, match="'taken'"):
            await parent.add_workers(free, taken)
        await settle()
        assert parent.children == []
        assert runner.registry.get("free") is None


async def test_two_children_of_one_name_are_refused_and_stay_free() -> None:
    """W5, R3"""
    parent, other, one, two = Parent(), Parent("other"), Helper("child"), Helper("child")
    async with running(parent, other):
        with pytest.raises(ValueError, match="'child'"):
            await parent.add_workers(one, two)
        assert two not in parent.children
        assert two.parent is None


async def test_a_child_whose_attach_fails_harms_nobody_else() -> None:
    """W5, R4: the one who adds it gets the error"""
    parent = Parent()
    async with running(parent, Helper("peer")) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        with pytest.raises(OSError, match="no device"):
            await parent.add_workers(Unattachable("child"))
        assert parent.children == []
        assert (await runner.job("peer", name="echo"))["worker"] == "peer"
        await parent.add_workers(Helper("child"))
        assert (await runner.job("child", name="echo"))["worker"] == "child"


class SlowToAdd(MemoryBus):
    """A bus as a transport may be: what adds a worker is a moment under way."""

    async def send(self, message: BusMessage) -> None:
        if isinstance(message, BusAddWorkerMessage):
            await checkpoint()
        await super().send(message)


@pytest.mark.parametrize("bus", [MemoryBus, SlowToAdd])
async def test_of_two_children_of_one_name_that_are_added_at_once_one_is_refused(bus: type[MemoryBus]) -> None:
    """W5, R3: they have two parents, and whoever adds the one that comes later hears of it."""
    refused: list[str] = []

    async def add(parent: Helper) -> None:
        try:
            await parent.add_workers(Helper("child"))
        except NameTakenError as exc:
            refused.append(exc.name)

    one, other = Helper("one"), Helper("other")
    async with running(one, other, bus=bus()) as runner:
        async with anyio.create_task_group() as group:
            group.start_soon(add, one)
            group.start_soon(add, other)
        assert refused == ["child"]
        assert await runner.job("child", name="echo")
    assert sorted(len(parent.children) for parent in (one, other)) == [0, 0]


async def test_a_child_whose_name_was_taken_in_the_meantime_is_refused() -> None:
    """W5, R3: and ends with no error of the run"""

    class Overtaken(Helper):
        async def attach(self, *, bus: WorkerBus, **kwargs: Any) -> None:
            await bus.subscribe(Plain(self.name))
            await super().attach(bus=bus, **kwargs)

    parent, child = Parent(), Overtaken("child")
    async with running(parent):
        with pytest.raises(ValueError, match="'child'"):
            await parent.add_workers(child)
        assert parent.children == []


@pytest.mark.parametrize("moment", ["before it is added", "before the run"])
async def test_a_child_added_before_the_parent_s_start_is_started_with_it(moment: str) -> None:
    """W5"""
    parent, child, grandchild = Parent(), Parent("child"), Helper("grandchild")
    runner = WorkerRunner(handle_sigint=False)
    if moment == "before the run":
        await runner.add_workers(parent)
    await child.add_workers(grandchild)
    await parent.add_workers(child)
    assert child.parent == "parent"
    assert child.started_at is None
    if moment == "before it is added":
        await runner.add_workers(parent)
    async with runner:
        await runner.job("grandchild", name="echo")
        await eventually(lambda: parent.ready and child.ready)
    assert (parent.ready, child.ready) == (["child"], ["grandchild"])


async def test_a_child_that_is_added_while_the_others_start_is_started_once() -> None:
    """W5, R3: also where it has finished before its turn would have come"""

    class Slow(Helper):
        async def attach(self, **kwargs: Any) -> None:
            await brief.wait()
            await super().attach(**kwargs)

    class Brief(Helper):
        async def run(self, params: WorkerParams) -> None:
            runs.append(self.name)

    class Adding(Parent):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await self.add_workers(brief)

    runs: list[str] = []
    parent, slow, brief = Adding(), Slow("slow"), Brief("brief")
    await parent.add_workers(slow)
    async with running(parent) as runner:
        assert (await runner.job("slow", name="echo"))["worker"] == "slow"
        assert (await runner.job("parent", name="echo"))["worker"] == "parent"
    assert runs == ["brief"]


async def test_a_child_that_is_added_while_its_parent_is_announced_is_started_once() -> None:
    """R3, W5: whoever watches for the parent is told in that moment."""

    class Counting(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.calls.append("run")
            await super().run(params)

    parent, child, bus = Helper("parent"), Counting("child"), RecordingBus()

    async def add(_: WorkerReadyData) -> None:
        await parent.add_workers(child)

    async with running(bus=bus) as runner:
        await runner.registry.watch("parent", add)
        await runner.add_workers(parent)
        assert await runner.job("child", name="echo")
        assert await runner.job("parent", name="echo")
        runner.registry.unwatch("parent", add)
        assert child.calls[0] == "run"
        assert child.calls.count("run") == 1
        [message] = bus.messages(BusAddWorkerMessage)
        assert (message.worker, message.source, message.target) == (child, "parent", runner.name)


async def test_a_worker_that_was_sent_to_the_runner_without_a_parent_is_a_root() -> None:
    """W5: `BusAddWorkerMessage` alone makes nobody a child"""
    worker = Helper("w")
    async with running(Parent()) as runner:
        await runner.bus.send(BusAddWorkerMessage(worker, source="parent", target=runner.name))
        await runner.job("w", name="echo")
        assert worker.parent is None


class SlowToReturn(MemoryBus):
    """A bus that has delivered a worker to its runner a second before `send` returns."""

    async def send(self, message: BusMessage) -> None:
        await super().send(message)
        if isinstance(message, BusAddWorkerMessage):
            await anyio.sleep(1)


async def test_a_child_that_is_attached_before_the_sending_has_returned_is_added() -> None:
    """W5: `add_workers` waits for nothing more."""
    parent = Helper("parent")
    async with running(parent, bus=SlowToReturn()) as runner:
        begin = current_time()
        await parent.add_workers(Helper("child"))
        assert current_time() == begin + 1
        assert await runner.job("child", name="echo")


async def test_a_child_that_comes_and_goes_at_once_has_been_ready() -> None:
    """W5: its parent watches it from before its start."""

    class Brief(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()

    class Watching(Helper):
        async def on_worker_ready(self, data: WorkerReadyData) -> None:
            told.append(data.worker_name)

    told: list[str] = []
    parent, child = Watching("parent"), Brief("child")
    async with running(parent, bus=SlowToReturn()):
        await parent.add_workers(child)
        await child.wait()
        await settle()
        assert told == ["child"]


async def test_a_name_that_is_taken_before_the_parent_starts_is_one_error() -> None:
    """R3, R4, W5: the parent's, whose start it is; nobody else is told."""
    told: list[tuple[str, str]] = []
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_error", lambda _, data: told.append((data.worker_name, data.error)))
    parent = Helper("parent")
    await parent.add_workers(Helper("taken"))
    await runner.add_workers(Helper("taken"), parent)
    async with runner:
        await parent.wait()
        await settle()
    [(name, error)] = told
    assert name == "parent"
    assert error.startswith(NameTakenError.__name__)


async def test_a_child_that_could_not_be_attached_is_free_again() -> None:
    """W5, R3: it has no parent, and can be added once more."""
    bus, child, parent = Broken(), Helper("child"), Helper("parent")
    async with running(parent, bus=bus) as runner:
        with pytest.raises(OSError, match="no connection"):
            await parent.add_workers(child)
        assert child.parent is None
        assert parent.children == []
        bus.broken = False
        await parent.add_workers(child)
        assert child.parent == "parent"
        assert await runner.job("child", name="echo") == {"worker": "child", "payload": {}}


async def test_a_child_that_could_not_be_attached_at_its_parent_s_start_is_free_again() -> None:
    """W5, R3: the parent fails, and another may have the child."""

    class Refusing(MemoryBus):
        broken = True

        async def subscribe(self, subscriber: BusSubscriber) -> None:
            if self.broken and subscriber.name == "child":
                raise OSError("no connection")
            await super().subscribe(subscriber)

    bus, child, parent, other = Refusing(), Helper("child"), Helper("parent"), Helper("other")
    await parent.add_workers(child)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    runner.add_event_handler("on_error", lambda *_: None)
    async with runner:
        await runner.add_workers(parent, other)
        await parent.wait()
        assert (child.parent, parent.children) == (None, [])
        bus.broken = False
        await runner.registry.wait_for("other")
        await other.add_workers(child)
        assert await runner.job("child", name="echo") == {"worker": "child", "payload": {}}


async def test_all_children_behind_one_that_fails_are_free_again() -> None:
    """W5: of those that are added together, at once or at the parent's start."""
    parent, other, late = Helper("parent"), Helper("other"), [Helper("one"), Helper("two")]
    async with running(parent, other):
        with pytest.raises(OSError, match="no device"):
            await parent.add_workers(Unattachable("bad"), *late)
        assert parent.children == []
        await other.add_workers(*late)
        assert other.children == late


async def test_a_child_that_was_started_before_one_that_fails_stays_a_child() -> None:
    """W5: of those that are added together."""
    parent, good = Helper("parent"), Helper("good")
    async with running(parent) as runner:
        with pytest.raises(OSError, match="no device"):
            await parent.add_workers(good, Unattachable("bad"))
        assert parent.children == [good]
        assert await runner.job("good", name="echo")


async def test_a_child_that_cannot_be_attached_is_an_error_of_who_adds_it_alone() -> None:
    """W5, R4: the parent got it, and may have dealt with it."""
    told: list[object] = []
    parent = Helper("parent")
    async with WorkerRunner(bus=Picky("child"), handle_sigint=False) as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await runner.add_workers(parent)
        await runner.registry.wait_for("parent")
        with pytest.raises(OSError, match="no room"):
            await parent.add_workers(Helper("child"))
    assert told == []


@pytest.mark.parametrize("whose", ["the parent's", "the runner's"])
async def test_an_end_that_comes_while_children_start_with_their_parent_starts_no_more_of_them(whose: str) -> None:
    """W5, R2: the start of the parent does not fail of that."""
    parent, first, second = Parent(), Arriving("first"), Helper("second")
    await parent.add_workers(first, second)
    async with quiet_runner() as runner:
        await runner.add_workers(parent)
        await first.arriving.wait()
        if whose == "the parent's":
            await runner.bus.send(BusEndWorkerMessage(source="test", target="parent"))
        else:
            await runner.end()
        await parent.wait()
        assert parent.failed == []
        assert runner.get_worker("second") is None
