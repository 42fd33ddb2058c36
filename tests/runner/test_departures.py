"""J4, R6: workers and runners that leave a bus that others are on."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope, current_time, sleep_forever

from support.buses import PoliteBus
from support.runners import runner_on
from support.shared_buses import Pair, pair
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    JobGroupError,
    JobStatus,
    MemoryBus,
    WorkerReadyData,
    WorkerRunner,
    job,
)
from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus.abc import OpenAsks
from workerbus.jobs._client import JobClient
from workerbus.jobs._group import JobGroup
from workerbus.runner._orphans import OrphanedJobs
from workerbus.testing import settle


async def end_a(both: Pair) -> None:
    await both.a.end()


async def cancel_a(both: Pair) -> None:
    await both.a.cancel()


async def stop_the_worker(both: Pair) -> None:
    await both.on_a.stop()


@pytest.mark.parametrize("leave", [end_a, cancel_a, stop_the_worker])
async def test_the_departure_of_a_worker_is_seen_by_the_other_runner(leave: Callable[[Pair], Awaitable[None]]) -> None:
    """R6, G2: it is unregistered there, its watchers are told, and its name is free."""
    gone: list[str] = []
    told = anyio.Event()

    async def departed(data: WorkerReadyData) -> None:
        gone.append(data.worker_name)
        told.set()

    async with pair() as both:
        await both.b.registry.watch_departure("on a", departed)
        await leave(both)
        await told.wait()
        assert gone == ["on a"]
        assert both.b.registry.remote_workers == []
        await both.b.add_workers(Helper("on a"))
        assert await both.b.job("on a", name="echo")
        both.b.registry.unwatch("on a", departed)


@pytest.mark.parametrize("leave", [end_a, cancel_a, stop_the_worker])
async def test_jobs_at_a_departing_worker_are_answered_at_once(leave: Callable[[Pair], Awaitable[None]]) -> None:
    """R6, J4: across runners, with and without a timeout."""
    failed: list[JobError] = []

    async def ask(timeout: float | None) -> None:
        try:
            await both.on_b.job("on a", name="wait", timeout=timeout)
        except JobError as exc:
            failed.append(exc)

    async with pair() as both:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, None)
            group.start_soon(ask, 1000.0)
            await both.on_a.begun.wait()
            await anyio.wait_all_tasks_blocked()
            begun = current_time()
            await leave(both)
        assert current_time() - begun < 1.0
    assert [exc.statuses for exc in failed] == [{"on a": JobStatus.CANCELLED}] * 2


async def test_jobs_of_a_departing_runner_are_cancelled_at_the_other() -> None:
    """R6, W6: nobody works for one that has gone."""
    async with pair() as both:
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                with pytest.raises(JobError):
                    await both.a.job("on b", name="wait")

            group.start_soon(ask)
            await both.on_b.begun.wait()
            await both.a.cancel()
            await both.on_b.unwound.wait()
        assert both.on_b.active_jobs == {}


async def test_a_runner_that_is_cancelled_from_outside_is_seen_to_leave() -> None:
    """R6, L3: the other one goes on."""
    async with MemoryBus() as bus, runner_on(bus, "B") as b:
        await b.add_workers(Helper("on b"))
        with CancelScope() as scope:
            async with runner_on(bus, "A") as a:
                await a.add_workers(Helper("on a"))
                await b.registry.wait_for("on a")
                scope.cancel()
                await sleep_forever()
        while b.registry.get("on a") is not None:
            await anyio.lowlevel.checkpoint()
        assert await b.job("on b", name="echo")


async def test_a_crash_under_one_runner_concerns_the_other_no_more_than_a_departure() -> None:
    """R6, R4."""

    class Crashing(Helper):
        @job(name="crash")
        async def crash(self, message: BusJobRequestMessage) -> None:
            self.release.set()
            await sleep_forever()

        async def run(self, params: Any) -> None:
            await self.start()
            await self.release.wait()
            raise ValueError("crash")

    async with MemoryBus() as bus, runner_on(bus, "B") as b:
        await b.add_workers(Helper("on b"))
        with pytest.raises(ValueError, match="crash"):  # noqa: PT012 - the block itself raises
            async with runner_on(bus, "A") as a:
                await a.add_workers(Crashing("crashing"))
                with pytest.raises(JobError) as caught:
                    await b.job("crashing", name="crash")
                assert caught.value.statuses == {"crashing": JobStatus.ERROR}
        assert await b.job("on b", name="echo")


WORKER = WorkerReadyData("worker", "runner")


class Asking:
    """A requester, as `OrphanedJobs` sees it, that has asked ``WORKER`` for two jobs; they are named by their ids."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.one, self.two = JobGroup("one", ["worker"]), JobGroup("two", ["worker"])
        self.asks: OpenAsks = {}
        for group in (self.one, self.two):
            group.asks("worker", WORKER, self.asks, self)

    def worker_departed(self, _worker: str, group: JobGroup, _error: str | None) -> None:
        self.told.append(group.job_id)


async def test_each_announcement_is_that_of_the_departure_that_has_waited_for_longest() -> None:
    """J4: a worker has left, and another of its name after it."""
    asking = Asking()
    departures = OrphanedJobs("runner", asking.asks)
    del asking.asks["worker"][asking.two]
    async with anyio.create_task_group() as group:
        host = TaskHost(group, CleanUp())
        departures.left(WORKER, announcement_in=host)
        asking.asks["worker"] = {asking.two: asking}
        departures.left(WORKER, announcement_in=host)
        group.start_soon(departures.quiet)
        for told in (["one"], ["one", "two"]):
            await settle()
            departures.announced("worker")
            await settle()
            assert asking.told == told
    assert departures._waiting == {}


async def test_two_announcements_of_a_name_that_come_at_once_are_those_of_two_departures() -> None:
    """J4: neither of the two is waited for until the bound."""
    asking = Asking()
    departures = OrphanedJobs("runner", asking.asks)
    begin = anyio.current_time()
    async with anyio.create_task_group() as group:
        host = TaskHost(group, CleanUp())
        departures.left(WORKER, announcement_in=host)
        departures.left(WORKER, announcement_in=host)
        await settle()
        departures.announced("worker")
        departures.announced("worker")
        await departures.quiet()
        assert asking.told == ["one", "two"] * 2
    assert anyio.current_time() == begin


async def test_a_wind_down_waits_for_those_who_leave_meanwhile_too() -> None:
    """J4, R2: until their jobs are answered."""
    asking = Asking()
    departures = OrphanedJobs("runner", asking.asks)
    async with anyio.create_task_group() as group:
        host = TaskHost(group, CleanUp())
        departures.left(WORKER, announcement_in=host)

        async def wait() -> None:
            await departures.quiet()
            asking.told.append("quiet")

        group.start_soon(wait)
        await settle()
        departures.left(WORKER, announcement_in=host)
        for _ in range(2):
            await settle()
            assert "quiet" not in asking.told
            departures.announced("worker")
    assert asking.told == ["one", "two", "one", "two", "quiet"]


async def test_a_departure_whose_announcement_is_lost_counts_after_the_bound() -> None:
    """J4, L4: and the wind-down waits no longer for it."""
    asking = Asking()
    departures = OrphanedJobs("runner", asking.asks)
    begin = anyio.current_time()
    async with anyio.create_task_group() as group:
        departures.left(WORKER, announcement_in=TaskHost(group, CleanUp()))
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


async def test_all_who_have_asked_a_worker_of_which_nothing_more_arrives_are_answered() -> None:
    """J4: each of several, also after one of them has had its answer."""

    class Lossy(PoliteBus):
        loses = False

        async def publish(self, message: BusMessage) -> None:
            if not (self.loses and message.source == "helper"):
                await super().publish(message)

    bus, helper, asker = Lossy(), Helper("helper"), BaseWorker("asker")
    told: list[str] = []
    async with running(helper, asker, bus=bus) as runner, anyio.create_task_group() as tasks:

        async def ask(who: Any, label: str) -> None:
            with pytest.raises(JobError, match="left without an answer"):
                await who.job("helper", name="wait")
            told.append(label)

        for who, label in ((runner, "one"), (asker, "two"), (asker, "three"), (runner, "four")):
            tasks.start_soon(ask, who, label)
        await anyio.wait_all_tasks_blocked()
        await runner.job("helper", name="echo")
        await asker.job("helper", name="echo")
        bus.loses = True
        await helper.stop()
    assert sorted(told) == ["four", "one", "three", "two"]


async def test_a_worker_that_leaves_is_looked_for_in_the_jobs_that_it_was_asked_for_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R9, J4: not in those of others, however many are open, nor at those who ask for nothing of it."""
    told: list[tuple[str, str]] = []
    departed = JobClient.worker_departed

    def noted(client: JobClient, worker: str, group: JobGroup, error: str | None) -> None:
        told.append((worker, group.label or ""))
        departed(client, worker, group, error)

    class Untouched(dict[str, Any]):
        """A table of groups that nobody goes through."""

        def values(self) -> Any:
            pytest.fail("somebody looked at all groups")

        items = __iter__ = values

    async def ask(worker: str, label: str) -> None:
        with pytest.raises(JobError):
            await runner.job(worker, name="wait", label=label)

    monkeypatch.setattr(JobClient, "worker_departed", noted)
    helpers = [Helper(f"helper {number}") for number in range(20)]
    async with running(*helpers) as runner, anyio.create_task_group() as group:
        for number, helper in enumerate(helpers):
            group.start_soon(ask, helper.name, f"job {number}")
        for helper in helpers:
            await helper.begun.wait()
        await settle()
        kept = runner.job_client.groups
        runner.job_client.groups, asking = Untouched(), Untouched()
        runner.job_client.groups.update(kept)
        asking.update(runner.asking)
        runner._orphans._asking = asking
        await runner.registry.unregister("helper 7")
        runner.job_client.groups = kept
        assert told == [("helper 7", "job 7")]
        for helper in helpers:
            await helper.stop()


@pytest.mark.parametrize("how", ["answered", "failed", "left", "late", "gone", "withdrawn"])
async def test_nothing_stays_of_who_was_asked_when_the_job_is_over(how: str) -> None:
    """G2, R9: whatever way it ended."""
    helper = Helper("helper")

    async def ask(runner: WorkerRunner) -> None:
        match how:
            case "answered":
                await runner.job_group("helper", "other", name="echo")
            case "failed":
                await runner.job_group("other", "helper", name="no such job", cancel_on_error=False)
            case "left":
                async with runner.job("helper", name="wait"):
                    assert set(runner.asking) == {"helper"}
                    raise ValueError("no more")
            case "late":
                await runner.job_group("helper", "other", name="wait", timeout=1.0)
            case "gone":
                async with runner.job("helper", name="wait"):
                    await helper.stop()
                    await anyio.sleep_forever()
            case _:
                group = await helper.create_job_group_and_request_job(["other", "nobody"], name="wait", timeout=1.0)
                await group.wait()

    async with running(helper, Helper("other")) as runner:
        try:
            await ask(runner)
        except (JobError, JobGroupError, ValueError):
            assert how != "answered"
        await settle()
        assert runner.asking == {}


@pytest.mark.parametrize("in_context", [True, False])
async def test_nothing_stays_of_a_worker_whose_request_could_not_be_sent(in_context: bool) -> None:
    """G2, J5: the job is over with that."""

    class Broken(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, BusJobRequestMessage) and message.target == "other":
                raise OSError("no route")
            await super().publish(message)

    async def ask(requester: WorkerRunner | Helper) -> None:
        if isinstance(requester, Helper):
            await requester.request_job_group("helper", "other", name="wait")
        else:
            await requester.job_group("helper", "other", name="wait")

    helper = Helper("helper")
    async with running(helper, Helper("other"), bus=Broken()) as runner:
        with pytest.raises(OSError, match="no route"):
            await ask(runner if in_context else helper)
        await settle()
        assert runner.asking == {}


async def test_a_worker_of_another_runner_on_the_same_bus_that_has_gone_answers_no_more() -> None:
    """J4, R9: who has asked it is told, in the runner that has asked."""
    async with MemoryBus() as bus, runner_on(bus, "here") as here, runner_on(bus, "there") as there:
        helper = Helper("helper")
        await there.add_workers(helper)
        await here.registry.wait_for("helper")
        with pytest.raises(JobError, match="left without an answer"):  # noqa: PT012 - by what is done in the context
            async with here.job("helper", name="wait"):
                await helper.begun.wait()
                await there.registry.unregister("helper")
                await anyio.sleep(1)
        helper.release.set()
