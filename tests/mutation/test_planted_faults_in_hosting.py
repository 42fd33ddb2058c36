"""Adding workers, and what runners tell each other: faults that were planted there had turned no test red."""

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from support.buses import PoliteBus
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BusAddWorkerMessage,
    BusCancelWorkerMessage,
    BusMessage,
    BusSubscriber,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    JobError,
    MemoryBus,
    NameTakenError,
    PipelineWorker,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
)
from workerbus._departures import Departures
from workerbus._lifetime import CleanUp, TaskHost
from workerbus._neighbours import REMEMBERED
from workerbus.pipeline import BusBridgeProcessor, Pipeline
from workerbus.testing import RecordingBus, settle


class Picky(MemoryBus):
    """A bus that lets some in later, perhaps."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = set(refused)

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        if subscriber.name in self.refused:
            raise OSError("no room")
        await super().subscribe(subscriber)


@pytest.mark.parametrize("running", [False, True])
async def test_of_workers_that_are_added_together_those_behind_one_that_fails_are_free(running: bool) -> None:
    """R3: they were not added, and may be."""
    bus = Picky("first")
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    first, second = Helper("first"), Helper("second")
    async with bus:
        if running:
            await runner.__aenter__()
        with pytest.raises(OSError, match="no room"):
            await runner.add_workers(first, second)
        assert runner.known_workers() == []
        bus.refused.clear()
        await runner.add_workers(second, first)
        if not running:
            await runner.__aenter__()
        assert await runner.job_group("first", "second", name="echo")
        await runner.__aexit__(None, None, None)


@pytest.mark.parametrize("running", [False, True])
async def test_of_workers_that_are_added_together_those_before_one_that_fails_are_there(running: bool) -> None:
    """R3: they are run with the others."""
    bus = Picky("second")
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    first = Helper("first")
    async with bus:
        if running:
            await runner.__aenter__()
        with pytest.raises(OSError, match="no room"):
            await runner.add_workers(first, Helper("second"))
        assert runner.get_worker("first") is first
        await runner.add_workers(first)
        if not running:
            await runner.__aenter__()
        assert await runner.job("first", name="echo")
        await runner.__aexit__(None, None, None)


async def test_a_worker_that_is_there_is_added_again_without_effect_during_an_end_too() -> None:
    """R3"""
    helper = Helper("helper")
    async with running(helper) as runner:
        await runner.end()
        await runner.add_workers(helper)
        with pytest.raises(RuntimeError, match="comes too late"):
            await runner.add_workers(Helper("another"))


async def test_where_one_name_is_taken_by_a_subscriber_none_of_the_workers_is_added() -> None:
    """R3"""
    async with MemoryBus() as bus:
        await bus.subscribe(Plain("taken"))
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        with pytest.raises(NameTakenError):
            await runner.add_workers(Helper("free"), Helper("taken"))
        assert runner.known_workers() == []
        assert not bus.has_subscriber("free")


async def test_a_worker_that_is_sent_to_all_runners_is_added_by_one_and_refused_by_none() -> None:
    """R6"""
    told: list[Any] = []
    worker = Helper("worker")
    async with MemoryBus() as bus:
        runners = [WorkerRunner(bus=bus, name=name, handle_sigint=False) for name in ("A", "B")]
        async with runners[0], runners[1]:
            for runner in runners:
                runner.add_event_handler("on_error", lambda _, data: told.append(data))
            await bus.send(BusAddWorkerMessage(worker, source="me"))
            assert await runners[0].job("worker", name="echo")
            assert [runner.get_worker("worker") for runner in runners].count(worker) == 1
    assert told == []


@pytest.mark.parametrize("ends", ["fails", "is cancelled"])
async def test_a_worker_whose_bridge_finds_no_place_on_the_bus_leaves_it(ends: str) -> None:
    """L1, W6: it had been subscribed itself; its name is free again."""

    class Slow(MemoryBus):
        async def subscribe(self, subscriber: BusSubscriber) -> None:
            if subscriber.name == "bridge" and ends == "fails":
                raise OSError("no room")
            if subscriber.name == "bridge":
                await anyio.sleep_forever()
            await super().subscribe(subscriber)

        async def unsubscribe(self, subscriber: BusSubscriber) -> None:
            await anyio.lowlevel.checkpoint()
            await super().unsubscribe(subscriber)

    bus = Slow()
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    bridge = BusBridgeProcessor(bus=bus, worker_name="w", name="bridge")
    worker = PipelineWorker(Pipeline([bridge]), name="w")
    with anyio.CancelScope() as scope:
        scope.deadline = anyio.current_time() + 1
        with pytest.raises(OSError if ends == "fails" else anyio.get_cancelled_exc_class()):
            await runner.add_workers(worker)
    assert not bus.has_subscriber("w")
    assert runner.known_workers() == []


async def test_a_run_ends_when_the_last_root_worker_could_not_be_attached() -> None:
    """R1: it was sent over the bus, and the others have finished meanwhile."""
    asked, may_fail = anyio.Event(), anyio.Event()

    class Late(MemoryBus):
        async def subscribe(self, subscriber: BusSubscriber) -> None:
            if subscriber.name == "late":
                asked.set()
                await may_fail.wait()
                raise OSError("no room")
            await super().subscribe(subscriber)

    first = Helper("first")
    runner = WorkerRunner(bus=Late(), handle_sigint=False)
    await runner.add_workers(first)
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("first")
        await runner.bus.send(BusAddWorkerMessage(Helper("late"), source="me"))
        await asked.wait()
        await first.stop()
        await settle()
        may_fail.set()


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


async def test_a_cancel_of_the_own_workers_needs_no_network() -> None:
    """R2: it overtakes everything, and must not get lost."""

    class Lossy(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if not isinstance(message, BusCancelWorkerMessage):
                await super().publish(message)

    begin = anyio.current_time()
    async with running(Helper("helper"), bus=Lossy()) as runner:
        await runner.cancel()
        await anyio.sleep_forever()
    assert anyio.current_time() == begin


# --- jobs at workers that have gone


class Asking:
    """A requester, as `Departures` sees it, that has asked ``worker`` for two jobs."""

    def __init__(self) -> None:
        self.groups = {job_id: SimpleNamespace(job_id=job_id, asked={"worker"}) for job_id in ("one", "two")}
        self.told: list[str] = []

    def worker_departed(self, worker: str, group: Any) -> None:
        self.told.append(group.job_id)


async def test_each_announcement_is_that_of_the_departure_that_has_waited_for_longest() -> None:
    """J4: a worker has left, and another of its name after it."""
    asking = Asking()
    departures = Departures("runner", {asking: asking})  # type: ignore[dict-item]  # as much of a client as it needs
    second = asking.groups.pop("two")
    async with anyio.create_task_group() as group:
        host = TaskHost(group, CleanUp())
        departures.left("worker", announcement_in=host)
        asking.groups = {"two": second}
        departures.left("worker", announcement_in=host)
        group.start_soon(departures.quiet)
        for told in (["one"], ["one", "two"]):
            await settle()
            departures.announced("worker")
            await settle()
            assert asking.told == told
    assert departures._waiting == {}


async def test_a_departure_whose_announcement_is_lost_counts_after_the_bound() -> None:
    """J4, L4: and the wind-down waits no longer for it."""
    asking = Asking()
    departures = Departures("runner", {asking: asking})  # type: ignore[dict-item]  # as much of a client as it needs
    begin = anyio.current_time()
    async with anyio.create_task_group() as group:
        departures.left("worker", announcement_in=TaskHost(group, CleanUp()))
        await settle()
        await departures.quiet()
    assert asking.told == ["one", "two"]
    assert anyio.current_time() == begin + CLEANUP_SECONDS


async def test_a_job_at_a_worker_of_which_nothing_more_arrives_is_answered() -> None:
    """J4: neither its answer nor its departure."""

    class Lossy(PoliteBus):
        loses = False

        async def publish(self, message: BusMessage) -> None:
            if not (self.loses and message.source == "helper"):
                await super().publish(message)

    bus, helper = Lossy(), Helper("helper")
    async with running(helper, bus=bus) as runner:
        begin = anyio.current_time()
        with pytest.raises(JobError, match="left without an answer"):  # noqa: PT012 - by what is done in the context
            async with runner.job("helper", name="wait"):
                await helper.begun.wait()
                bus.loses = True
                await helper.stop()
        assert anyio.current_time() == begin + CLEANUP_SECONDS


# --- what other runners announce


def ready(at: float, name: str = "remote") -> BusMessage:
    return BusWorkerReadyMessage("elsewhere", started_at=at, source=name)


def gone(at: float | None, name: str = "remote") -> BusMessage:
    return BusWorkerGoneMessage("elsewhere", at, source=name)


async def tell(runner: WorkerRunner, *messages: BusMessage) -> None:
    for message in messages:
        await runner.bus.send(message)
        await settle()


async def test_a_worker_may_go_in_the_moment_in_which_it_came() -> None:
    """J4, R6: clocks have a resolution."""
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
        await tell(runner, *(ready(1, f"worker {REMEMBERED + number}") for number in range(10)))
        assert runner.registry.remote_workers == []


async def test_who_is_met_by_a_list_that_was_sent_to_one_alone_is_told_the_own_workers() -> None:
    """R6: its first list may have been lost; later ones need no answer."""
    bus = RecordingBus()
    async with WorkerRunner(bus=bus, name="here", handle_sigint=False) as runner:
        for _ in range(2):
            await tell(runner, BusWorkerRegistryMessage("elsewhere", [], 1.0, source="elsewhere", target="here"))
        assert len(bus.messages(BusWorkerRegistryMessage, source="here", target="elsewhere")) == 1


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


# --- the end


async def test_a_worker_that_has_gone_is_not_kept_to_be_told_of_others() -> None:
    """G2, L1"""

    class Curious(Helper):
        async def on_worker_ready(self, data: WorkerReadyData) -> None:
            """What matters is that it is there."""

    curious = Curious("curious")
    async with running(curious, Helper("other")) as runner:
        assert runner._hosting.curious == {"curious": curious}
        await curious.stop()
        assert runner._hosting.curious == {}


async def test_a_run_that_cannot_begin_lets_go_of_all_its_workers() -> None:
    """L1, R6"""
    async with MemoryBus() as bus:
        bus.opened_by = "somebody"
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        workers = [Helper(f"worker {number}") for number in range(3)]
        await runner.add_workers(*workers)
        with pytest.raises(RuntimeError, match="somebody"):
            await runner.run()
        assert [bus.has_subscriber(worker.name) for worker in workers] == [False, False, False]
        bus.opened_by = None


async def test_the_reason_of_an_end_is_that_of_the_cancel_which_follows_it() -> None:
    """R2: it reaches every worker, those too that are late."""

    class Late(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(1.5)

    bus = RecordingBus()
    runner = WorkerRunner(bus=bus, handle_sigint=False, grace_period=1.0)
    await runner.add_workers(Late("late"))
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("late")
        await runner.end("closing time")
    assert [message.reason for message in bus.messages(BusCancelWorkerMessage, target="late")] == ["closing time"]
