"""W5: children finish before their parent."""

import itertools
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import pytest
from anyio import CancelScope, current_time
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.buses import Wire
from support.conditions import eventually
from support.families import Arriving, FailingWhenCancelled, Parent, Unattachable
from support.job_handlers import never
from support.leaks import nothing_left
from support.messages import Alarm, Note, alarm, note
from support.requesters import Raw
from support.runners import quiet_runner
from support.subscribers import Plain
from support.wind_downs import Logged
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    JobError,
    MemoryBus,
    NameTakenError,
    NotRunningError,
    RunCancelled,
    WorkerBus,
    WorkerErrorData,
    WorkerGoneData,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.testing import settle


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


async def test_a_child_that_a_queued_hook_adds_is_heard_too_while_its_parent_ends() -> None:
    """W5, R2: the parent had none when it was told to end."""

    class Adding(Parent):
        async def on_bus_message(self, message: BusMessage) -> None:
            if message == note(0, "parent"):
                await anyio.sleep(1)
                await self.add_workers(child, wait=True)
            else:
                await super().on_bus_message(message)

    parent = Adding()
    child = Reporting("child", parent)
    async with running(parent) as runner:
        await runner.bus.send(note(0, "parent"))
        await end(parent, runner)
        await parent.wait()
    assert child.calls == ["heard"]


async def test_hooks_of_either_lane_may_ask_children_for_jobs_when_their_parent_ends() -> None:
    """R2, W5: those that were queued before; the children end when both lanes are through."""

    class Asking(Parent):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note | Alarm):
                await anyio.sleep(message.n)
                answers.append((await self.job("child", name="echo"))["worker"])

    for seconds in ((1, 2), (2, 1)):
        answers: list[str] = []
        parent = Asking()
        async with running(parent) as runner:
            await parent.add_workers(Helper("child"), wait=True)
            await runner.bus.send(note(seconds[0], "parent"))
            await runner.bus.send(alarm(seconds[1], "parent"))
            await settle()
            await end(parent, runner)
            await parent.wait()
        assert answers == ["child", "child"]


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


class Hearing(Helper):
    """Writes down the notes and alarms that its hook gets."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.heard: list[BusMessage] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            self.heard.append(message)


async def test_a_parent_runs_no_hook_any_more_when_its_children_have_ended() -> None:
    """R2, W5: while they end it still does, and while its jobs have their grace it does not, in neither lane."""
    parent, child = Hearing("parent"), Helper("child")
    during = alarm(1, "parent")
    async with running(parent, job_grace=1.0) as runner:
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        raw = await Raw.on(runner.bus)
        await raw.ask("parent's", "parent", "wait")
        await raw.ask("child's", "child", "wait")
        await parent.begun.wait()
        await child.begun.wait()
        await runner.end()
        await settle()
        await runner.bus.send(during)
        await settle()
        child.release.set()
        await child.wait()
        await settle()
        await runner.bus.send(alarm(2, "parent"))
        await runner.bus.send(note(2, "parent"))
        await settle()
        assert parent.heard == [during]
        parent.release.set()


class SlowToSubscribe(MemoryBus):
    """A bus that takes a second to let ``child`` in."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribing = anyio.Event()

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        if subscriber.name == "child":
            self.subscribing.set()
            await anyio.sleep(1)
        await super().subscribe(subscriber)


async def test_an_end_lets_the_hook_finish_that_a_child_has_caused_by_its_end() -> None:
    """W5, R2"""
    heard: list[BusMessage] = []

    class Slow(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Alarm):
                await anyio.sleep(1)
                heard.append(message)

    class Alarming(Helper):
        async def cleanup(self) -> None:
            await self.send_bus_message(last)

    parent, last = Slow("parent"), alarm(1, "parent")
    async with running(parent) as runner:
        await parent.add_workers(Alarming("child"))
        await runner.registry.wait_for("child")
        await end(parent, runner)
        await parent.wait()
    assert heard == [last]


@pytest.mark.parametrize("kind", [Note, Alarm])
async def test_what_a_child_says_last_is_heard_though_it_ends_before_the_hooks_of_its_ending_parent_have_run(
    kind: type[Note] | type[Alarm],
) -> None:
    """W5: an end waits for what children still cause, whatever they wait for themselves."""

    class Busy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note | Alarm):
                heard.append(message.n)
                self.begun.set()
                await self.release.wait()

    class Brief(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await self.release.wait()
            await self.send_bus_message(kind(1, source="child", target="parent"))

    heard: list[int] = []
    parent, child = Busy("parent"), Brief("child")
    async with running(parent) as runner:
        await parent.add_workers(child, wait=True)
        await runner.bus.send(kind(0, source="test", target="parent"))
        await parent.begun.wait()
        await end(parent, runner)
        child.release.set()
        await child.wait()
        parent.release.set()
        await parent.wait()
    assert heard == [0, 1]


async def test_a_parent_whose_hooks_cause_others_all_the_time_ends_when_its_children_have() -> None:
    """R2, W5: with those that were there then."""

    class Restless(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await anyio.sleep(0.1)
                await self.send_bus_message(note(message.n + 1, self.name))

    parent = Restless("parent")
    async with running(parent, grace_period=10) as runner:
        await parent.add_workers(Helper("child"), wait=True)
        await runner.bus.send(note(0, "parent"))
        begun = current_time()
        await end(parent, runner)
        await parent.wait()
        assert current_time() - begun < 1


async def test_an_end_reaches_a_child_that_is_on_its_way_to_the_bus() -> None:
    """R2, W5: it ends when it has come there, and not when the grace period is over."""
    bus, parent = SlowToSubscribe(), Helper("parent")
    async with running(parent, bus=bus) as runner, anyio.create_task_group() as group:
        begin = current_time()
        group.start_soon(parent.add_workers, Helper("child"))
        await bus.subscribing.wait()
        await runner.end()
        await parent.wait()
        assert current_time() == begin + 1


async def test_a_worker_that_is_being_stopped_takes_no_children() -> None:
    """W5: while it waits for those that it has, too."""

    class Tidy(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(1)

    parent = Helper("parent")
    async with running(parent) as runner:
        await parent.add_workers(Tidy("child"))
        await runner.registry.wait_for("child")
        async with anyio.create_task_group() as group:
            group.start_soon(parent.stop)
            await settle()
            with pytest.raises(RuntimeError, match="'late' could not finish before it"):
                await parent.add_workers(Helper("late"))


TREE_ENDS = ("end", "cancel", "scope", "stop")


@given(parents=st.lists(st.integers(0, 6), min_size=1, max_size=6), how=st.sampled_from(TREE_ENDS), busy=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_children_always_finish_before_their_parents(backend: str, parents: list[int], how: str, busy: bool) -> None:
    """L3, W5: whatever the tree, and however it ends; each finishes once, and nothing is left."""

    async def grow_and_end() -> None:
        log: list[str] = []
        runner = quiet_runner(grace_period=0.1)
        workers = [Logged(f"w{n}", log) for n in range(len(parents))]
        above = {n: pick % (n + 1) - 1 for n, pick in enumerate(parents)}
        for n, parent in above.items():
            if parent >= 0:
                await workers[parent].add_workers(workers[n])
        roots = [workers[n] for n, parent in above.items() if parent < 0]
        async with nothing_left(runner):
            with CancelScope() as scope, suppress(RunCancelled):
                async with runner, anyio.create_task_group() as group:
                    await runner.add_workers(*roots)

                    async def ask(worker: Logged) -> None:
                        with suppress(JobError):
                            await runner.job(worker.name, name="wait")

                    for worker in workers:
                        await runner.registry.wait_for(worker.name)
                        if busy:
                            group.start_soon(ask, worker)
                            await worker.begun.wait()
                    if how == "scope":
                        scope.cancel()
                    elif how == "stop":
                        for root in roots:
                            await root.stop()
                    else:
                        await (runner.end() if how == "end" else runner.cancel())
        assert sorted(log) == [f"cleanup w{n}" for n in range(len(parents))]
        for n, parent in above.items():
            assert parent < 0 or log.index(f"cleanup w{n}") < log.index(f"cleanup w{parent}")

    clock.run(grow_and_end, backend=backend)


async def test_a_handler_that_goes_at_once_is_not_said_to_refuse_when_a_child_took_all_the_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4: it is cancelled when the time for the children is over."""

    class Slow(BaseWorker):
        async def cleanup(self) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)

    parent = Doing("parent", never)
    async with running(parent) as runner, anyio.create_task_group() as tasks:
        await parent.add_workers(Slow("child"))
        await runner.registry.wait_for("child")

        async def ask() -> None:
            with pytest.raises(JobError):
                await runner.job("parent", name="do")

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await parent.stop()
    assert [text for text in caplog.messages if "refuse" in text] == []


class Lasting(Helper):
    """Takes a second to end: a hook that was queued before, or the clean-up of a job's handler."""

    ended: float | None = None

    async def cleanup(self) -> None:
        await super().cleanup()
        self.ended = current_time()

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await anyio.sleep(1)

    @job(name="cling")
    async def cling(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(1)


@pytest.mark.parametrize("busy", ["hook", "handler"])
@pytest.mark.parametrize("family", ["children", "grandchildren", "roots"])
@pytest.mark.parametrize("way", [end, cancel, end_all, cancel_all], ids=lambda way: way.__name__)
async def test_workers_end_together_and_not_one_after_the_other(way: Way, family: str, busy: str) -> None:
    """R2, W5: six that take a second each take one second, and none is cut off by a grace period for all of them."""
    six = [Lasting(f"w{n}") for n in range(6)]
    parents = [Parent(f"p{n}") for n in range(3)] if family == "grandchildren" else []
    top = Parent("top")
    async with quiet_runner() as runner:
        await runner.add_workers(top)
        await top.add_workers(*parents)
        for n, worker in enumerate(six):
            if family == "roots":
                await runner.add_workers(worker)
            else:
                await (parents[n // 2] if parents else top).add_workers(worker)
            await runner.registry.wait_for(worker.name)
        raw = await Raw.on(runner.bus)
        for worker in six:
            if busy == "handler":
                await raw.ask(worker.name, worker.name, "cling")
                await worker.begun.wait()
            else:
                await runner.bus.send(note(0, worker.name))
        await settle()
        begun = current_time()
        for ending in six if family == "roots" else [top]:
            await way(ending, runner)
    assert [worker.ended is not None and worker.ended - begun <= 1 + 1e-6 for worker in six] == [True] * 6


class Replacing(Node):
    """Adds a child in the place of each that has gone, as long as it may."""

    def __init__(self) -> None:
        super().__init__("parent", 0, [])
        self.refusals: list[str] = []

    async def on_worker_gone(self, data: WorkerGoneData) -> None:
        try:
            await self.add_workers(Helper(f"{data.worker_name}'"))
        except NotRunningError as error:
            self.refusals.append(str(error))


class Tidying(Helper):
    async def cleanup(self) -> None:
        await anyio.sleep(1)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_no_child_takes_the_place_of_one_that_has_gone_since_its_parent_ends(way: Way) -> None:
    """W5: the first has gone while the second is waited for, and nobody would end a third."""
    parent = Replacing()
    with suppress(RunCancelled):
        async with quiet_runner() as runner:
            runner.add_event_handler("on_error", lambda *_: None)
            await runner.add_workers(parent)
            await runner.registry.wait_for("parent")
            await parent.add_workers(Helper("quick"), Tidying("slow"), wait=True)
            begun = current_time()
            with anyio.fail_after(1.5):
                await way(parent, runner)
                await parent.wait()
            assert current_time() == begun + 1
    assert parent.refusals[:1] == ["worker 'parent' is ending: \"quick'\" could not finish before it"]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_child_that_is_to_be_started_behind_another_is_not_when_its_parent_ends_meanwhile(way: Way) -> None:
    """W5: of two that are added together, the first of which is on its way to the bus."""
    parent, first, second = Node("parent", 0, []), Arriving("first"), Helper("second")

    async def add() -> None:
        with pytest.raises(NotRunningError, match=r"is ending: (worker )?'second' co"):
            await parent.add_workers(first, second)
        added.set()

    added = anyio.Event()
    async with anyio.create_task_group() as group:
        with suppress(RunCancelled):
            async with quiet_runner() as runner:
                runner.add_event_handler("on_error", lambda *_: None)
                await runner.add_workers(parent)
                await runner.registry.wait_for("parent")
                group.start_soon(add)
                await first.arriving.wait()
                begun = current_time()
                await way(parent, runner)
                await parent.wait()
                assert current_time() == begun + 1
        with anyio.fail_after(1):
            await added.wait()
    assert (second.parent, second.started_at) == (None, None)


@pytest.mark.parametrize("way", WAYS[:-2], ids=lambda way: way.__name__)
async def test_a_parent_that_ends_while_its_children_start_starts_no_more(way: Way) -> None:
    """W5, R2: and that is no error of its start."""
    parent, first, second = Parent(), Arriving("first"), Helper("second")
    await parent.add_workers(first, second)
    with suppress(RunCancelled):
        async with quiet_runner() as runner:
            await runner.add_workers(parent)
            await first.arriving.wait()
            begun = current_time()
            await way(parent, runner)
            await parent.wait()
            assert current_time() == begun + 1
    assert second.started_at is None


@pytest.mark.parametrize("message", [BusEndWorkerMessage, BusCancelWorkerMessage])
async def test_a_child_on_its_way_to_the_bus_hears_why_its_parent_ends(
    message: type[BusEndWorkerMessage] | type[BusCancelWorkerMessage], caplog: pytest.LogCaptureFixture
) -> None:
    """R2, R8: the reason reaches every worker."""

    class Hearing(Arriving):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, BusEndWorkerMessage | BusCancelWorkerMessage):
                reasons.append(message.reason)

    caplog.set_level(logging.INFO, "workerbus.worker")
    reasons: list[str | None] = []
    parent, child = Helper("parent"), Hearing("child")
    async with running(parent) as runner, anyio.create_task_group() as group:
        group.start_soon(parent.add_workers, child)
        await child.arriving.wait()
        await runner.bus.send(message("enough", source="test", target="parent"))
        await parent.wait()
    assert reasons == ["enough"]
    assert [f"worker {name!r} has ended: enough" in caplog.messages for name in ("parent", "child")] == [True, True]


async def test_a_child_hears_why_its_parent_was_cancelled_even_if_that_fails_of_it() -> None:
    """R2, W5: the reason reaches every worker."""

    class Hearing(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, BusCancelWorkerMessage):
                reasons.append(message.reason)

    reasons: list[str | None] = []
    parent, child = FailingWhenCancelled("parent"), Hearing("child")
    async with quiet_runner() as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.add_workers(parent, wait=True)
        await parent.add_workers(child, wait=True)
        await runner.bus.send(BusCancelWorkerMessage("enough", source="test", target="parent"))
        await child.wait()
    assert reasons == ["enough"]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_child_that_does_not_get_to_the_bus_is_no_error_of_its_parent_s_end(way: Way) -> None:
    """R2, W5: the parent ends as soon as that is known; and the other child, at once."""
    parent, there, child = Node("parent", 0, []), Lasting("there"), Arriving("child", OSError("no device"))
    there.ended = math.nan
    errors: list[str] = []

    async def add() -> None:
        with pytest.raises(OSError, match="no device"):
            await parent.add_workers(child)

    async with anyio.create_task_group() as group:
        with suppress(RunCancelled):
            async with quiet_runner() as runner:
                runner.add_event_handler("on_error", lambda _, data: errors.append(data.error))
                await runner.add_workers(parent)
                await runner.registry.wait_for("parent")
                await parent.add_workers(there, wait=True)
                group.start_soon(add)
                await child.arriving.wait()
                begun = current_time()
                await way(parent, runner)
                await parent.wait()
                assert current_time() == begun + 1
    assert there.ended == begun
    assert errors == (["ValueError: broken"] if way is let_raise else [])


async def test_the_end_of_a_child_goes_to_nobody_who_has_its_name_instead() -> None:
    """W5, B5: the child does not get to the bus."""
    parent, other, child = Helper("parent"), Plain("same"), Arriving("same")
    async with quiet_runner() as runner, anyio.create_task_group() as group:

        async def add() -> None:
            with pytest.raises(NameTakenError):
                await parent.add_workers(child)

        await runner.add_workers(parent, wait=True)
        group.start_soon(add)
        await child.arriving.wait()
        await runner.bus.subscribe(other)
        await runner.bus.send(BusEndWorkerMessage(source="test", target="parent"))
        await parent.wait()
        await settle()
    assert [message for message in other.got if message.target == "same"] == []


class Queued(Helper):
    """Its hook takes as many seconds as the note says."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.heard: list[int] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await anyio.sleep(message.n)
            self.heard.append(message.n)


@pytest.mark.parametrize("seconds", list(itertools.permutations((1, 2, 3))))
async def test_an_end_waits_for_the_slowest_child(seconds: tuple[int, ...]) -> None:
    """R2, W5: each runs the hooks of what was queued before, whichever was added first and whichever ends first."""
    parent, children = Helper("parent"), [Queued(f"w{n}") for n in range(3)]
    async with running(parent) as runner:
        await parent.add_workers(*children, wait=True)
        for child, n in zip(children, seconds, strict=True):
            await runner.bus.send(note(n, child.name))
        await end(parent, runner)
        await parent.wait()
    assert [child.heard for child in children] == [[n] for n in seconds]


async def test_what_a_child_tells_is_heard_though_a_hook_that_came_before_the_end_has_added_it() -> None:
    """W5, W6: all of it, also where jobs have no grace."""

    class Telling(Helper):
        async def cleanup(self) -> None:
            await super().cleanup()
            for number in (1, 2):
                await self.send_bus_message(note(number, target="parent"))

    class Adding(Queued):
        async def on_bus_message(self, message: BusMessage) -> None:
            await super().on_bus_message(message)
            if self.heard == [0]:
                await anyio.sleep(1)
                await self.add_workers(Telling("child"), wait=True)

    parent = Adding("parent")
    async with quiet_runner(job_grace=0) as runner:
        await runner.add_workers(parent, wait=True)
        await runner.bus.send(note(0, target="parent"))
        await settle()
        await runner.bus.send(BusEndWorkerMessage(source="test", target="parent"))
        await parent.wait()
    assert parent.heard == [0, 1, 2]
