"""W5: children."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.buses import Wire
from support.conditions import eventually
from support.messages import Note, note
from support.requesters import Raw
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusAddWorkerMessage,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    MemoryBus,
    WorkerBus,
    WorkerErrorData,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
)


class Parent(Helper):
    """Notes which workers it is told of, and what it hears."""

    def __init__(self, name: str = "parent") -> None:
        super().__init__(name)
        self.ready: list[str] = []
        self.failed: list[WorkerErrorData] = []
        self.notes: list[int] = []
        self.changed = anyio.Event()

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.ready.append(data.worker_name)

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        self.failed.append(data)

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            self.notes.append(message.n)
            self.changed.set()


# --- adding


async def test_added_workers_are_children() -> None:
    """W5"""
    parent, one, two = Parent(), Helper("one"), Helper("two")
    async with running(parent) as runner:
        await parent.add_workers(one, two)
        assert (one.parent, two.parent, parent.parent) == ("parent", "parent", None)
        assert set(parent.children) == {one, two}
        await runner.job("one", name="echo")
        await runner.job("two", name="echo")


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


async def test_nobody_is_its_own_ancestor() -> None:
    """W5"""
    parent, child = Parent(), Parent("child")
    await parent.add_workers(child)
    with pytest.raises(ValueError, match="'parent'"):
        await child.add_workers(parent)
    with pytest.raises(ValueError, match="'parent'"):
        await parent.add_workers(parent)
    assert child.children == []


async def test_two_children_of_one_name_are_refused_and_stay_free() -> None:
    """W5, R3"""
    parent, other, one, two = Parent(), Parent("other"), Helper("child"), Helper("child")
    async with running(parent, other):
        with pytest.raises(ValueError, match="'child'"):
            await parent.add_workers(one, two)
        assert two not in parent.children
        assert two.parent is None


class Unattachable(Helper):
    async def attach(self, **kwargs: Any) -> None:
        raise OSError("no device")


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


# --- before the parent's start


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


# --- the end


async def stop(worker: BaseWorker, runner: WorkerRunner) -> None:
    await worker.stop()


async def end(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.bus.send(BusEndWorkerMessage(source="test", target=worker.name))


async def cancel(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.bus.send(BusCancelWorkerMessage(source="test", target=worker.name))


async def end_all(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.end()


async def cancel_all(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.cancel()


async def let_return(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.bus.send(note(0, worker.name))


async def let_raise(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.bus.send(note(1, worker.name))


Way = Callable[[BaseWorker, WorkerRunner], Awaitable[None]]


WAYS: list[Way] = [stop, end, cancel, end_all, cancel_all, let_return, let_raise]


class Node(Parent):
    """Its clean-up takes some steps, and notes whether its children had finished before."""

    def __init__(self, name: str, steps: int, late: list[str]) -> None:
        super().__init__(name)
        self.steps = steps
        self.late = late

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await self.changed.wait()
        if 1 in self.notes:
            raise ValueError("broken")

    async def cleanup(self) -> None:
        self.late.extend(child.name for child in self.children if self.bus.has_subscriber(child.name))
        for _ in range(self.steps):
            await checkpoint()
        self.late.extend(child.name for child in self.children if child.active)


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[int, int]]:
    """For each node its parent, which is an earlier one, and its steps."""
    size = draw(st.integers(1, 7))
    return [(draw(st.integers(0, max(0, n - 1))), draw(st.integers(0, 3))) for n in range(size)]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees(), way=st.sampled_from(WAYS), wait=st.booleans(), bus=st.sampled_from([MemoryBus, Wire]))
def test_children_finish_before_their_parent(
    backend: str, tree: list[tuple[int, int]], way: Way, wait: bool, bus: type[WorkerBus]
) -> None:
    """W5: whatever ends the parent, also while they start"""

    async def main() -> None:
        late: list[str] = []
        nodes = [Node(f"n{n}", steps, late) for n, (_, steps) in enumerate(tree)]
        for n, (parent, _) in enumerate(tree[1:], 1):
            await nodes[parent].add_workers(nodes[n])
        runner = WorkerRunner(handle_sigint=False, grace_period=0.1, bus=bus())
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.add_workers(nodes[0])
        async with anyio.create_task_group() as group:
            group.start_soon(runner.run)
            await runner.registry.wait_for("n0")
            for node in nodes[1:] if wait else ():
                await runner.registry.wait_for(node.name)
            await way(nodes[0], runner)
        assert late == []
        assert not [node.name for node in nodes if node.active]
        assert runner.bus.statistics().subscribers == {}

    clock.run(main, backend=backend, limit=5)


class Reporting(Helper):
    """A child that sends its parent a note when it cleans up, and waits until that has been heard."""

    def __init__(self, name: str, above: Parent) -> None:
        super().__init__(name)
        self.above = above

    async def cleanup(self) -> None:
        await self.bus.send(note(7, self.parent))
        await self.above.changed.wait()
        self.calls.append("heard")


@pytest.mark.parametrize("way", [stop, end, cancel, end_all, cancel_all])
async def test_a_parent_that_waits_for_its_children_still_takes_messages(way: Way) -> None:
    """W5"""
    parent = Parent()
    child = Reporting("child", parent)
    async with running(parent) as runner:
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        with anyio.CancelScope(shield=True):
            await way(parent, runner)
            await parent.wait()
    assert parent.notes == [7]
    assert child.calls == ["heard"]


@pytest.mark.parametrize("way", [end, end_all])
async def test_a_child_that_ends_may_ask_its_parent_for_a_job(way: Way) -> None:
    """W5, W8"""

    class Asking(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, BusEndWorkerMessage):
                self.calls.append((await self.job("parent", name="echo"))["worker"])

    parent, child = Parent(), Asking("child")
    async with running(parent) as runner:
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        await way(parent, runner)
        await parent.wait()
    assert child.calls == ["parent"]


@pytest.mark.parametrize("way", [stop, end, cancel])
async def test_a_parent_that_waits_hears_of_the_errors_of_its_children(way: Way) -> None:
    """W5, W7"""

    class Breaking(Helper):
        async def cleanup(self) -> None:
            await self.send_bus_error_message("broken")

    parent, child = Parent(), Breaking("child")
    async with running(parent) as runner:
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        await way(parent, runner)
        await parent.wait()
    assert parent.failed == [WorkerErrorData("child", "broken")]


@pytest.mark.parametrize("way", [stop, cancel])
def test_a_child_that_is_late_still_finishes_before_its_parent(backend: str, way: Way) -> None:
    """W5, L4: user code that refuses cancellation is waited for"""

    class Late(Helper):
        async def cleanup(self) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            order.append(self.name)

    async def main() -> None:
        parent = Parent()
        async with running(parent) as runner:
            await parent.add_workers(Late("child"))
            await runner.registry.wait_for("child")
            await way(parent, runner)
            await parent.wait()
            order.append("parent")

    order: list[str] = []
    clock.run(main, backend=backend)
    assert order == ["child", "parent"]


@pytest.mark.parametrize("way", [stop, end, cancel, end_all])
def test_a_child_that_was_never_attached_does_not_hold_up_its_parent(backend: str, way: Way) -> None:
    """W5"""

    async def main() -> None:
        parent = Parent()
        async with running(parent) as runner:
            runner.add_event_handler("on_error", lambda *_: None)
            with pytest.raises(OSError, match="no device"):
                await parent.add_workers(Unattachable("child"))
            begun = anyio.current_time()
            await way(parent, runner)
            await parent.wait()
            waited.append(anyio.current_time() - begun)

    waited: list[float] = []
    clock.run(main, backend=backend)
    assert waited[0] < 1


async def test_a_child_that_has_finished_leaves_its_parent_alone() -> None:
    """W5"""
    parent, child = Parent(), Helper("child")
    async with running(parent) as runner:
        await parent.add_workers(child)
        await child.stop()
        assert (await runner.job("parent", name="echo"))["worker"] == "parent"


async def test_a_child_added_while_its_parent_stops_is_refused_or_finishes_first() -> None:
    """W5"""

    class Adding(Parent):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await self.stop()
                try:
                    await self.add_workers(child)
                except RuntimeError:
                    self.calls.append("refused")

        async def cleanup(self) -> None:
            left.append(child.active)

    left: list[bool] = []
    parent, child = Adding(), Helper("child")
    async with running(parent) as runner:
        await runner.bus.send(note(0, "parent"))
        await parent.wait()
        assert left == [False]
        await anyio.wait_all_tasks_blocked()
        assert runner.get_worker("child") is None
        assert runner.registry.get("child") is None


async def test_a_child_added_while_its_parent_waits_for_others_finishes_first() -> None:
    """W5"""

    class Adding(Parent):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                try:
                    await self.add_workers(second)
                except RuntimeError:
                    self.calls.append("refused")
                self.changed.set()

    parent, second = Adding(), Helper("second")
    first = Reporting("first", parent)
    async with running(parent) as runner:
        await parent.add_workers(first)
        await runner.registry.wait_for("first")
        await end(parent, runner)
        await parent.wait()
        assert runner.get_worker("second") is None
    assert first.calls == ["heard"]


async def test_a_finished_worker_takes_no_children() -> None:
    """W5: they could not finish before it"""
    parent, other, child = Parent(), Parent("other"), Helper("child")
    async with running(parent, other) as runner:
        await parent.stop()
        with pytest.raises(RuntimeError):
            await parent.add_workers(child)
        assert runner.get_worker("child") is None
        await other.add_workers(child)
        await runner.job("child", name="echo")


async def test_a_child_on_its_way_to_the_bus_finishes_before_its_parent() -> None:
    """W5"""
    parent, child = Parent(), Helper("child")
    async with running(parent) as runner, anyio.create_task_group() as group:
        group.start_soon(parent.add_workers, child)
        await eventually(lambda: runner.get_worker("child"))
        await runner.bus.send(BusCancelWorkerMessage(source="test", target="parent"))
        await parent.wait()
        assert runner.get_worker("child") is None
        group.cancel_scope.cancel()


async def test_a_parent_can_be_stopped_by_a_job_that_its_child_asks_for() -> None:
    """W5, W6"""

    class Stopping(Parent):
        async def on_job_request(self, message: BusMessage) -> None:
            await self.stop()

    class Asking(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await self.job("parent", name="anything")

    parent, child = Stopping(), Asking("child")
    async with running(parent) as runner:
        await parent.add_workers(child)
        await runner.bus.send(note(0, "child"))
        await parent.wait()
        await child.wait()


async def test_a_job_open_at_a_child_is_answered_when_the_parent_ends() -> None:
    """W5, J4"""
    parent, child = Parent(), Helper("child")
    async with running(parent) as runner:
        await parent.add_workers(child)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "child", "wait")
        await child.begun.wait()
        await end(parent, runner)
        await raw.answer("1")
        await parent.wait()


async def test_a_worker_that_was_sent_to_the_runner_without_a_parent_is_a_root() -> None:
    """W5: `BusAddWorkerMessage` alone makes nobody a child"""
    worker = Helper("w")
    async with running(Parent()) as runner:
        await runner.bus.send(BusAddWorkerMessage(worker, source="parent", target=runner.name))
        await runner.job("w", name="echo")
        assert worker.parent is None
