"""J4: jobs for workers that have failed, here or under another runner."""

from typing import Any

import anyio
import pytest
from anyio import current_time

from support.failures import Crashing, Errors, crash
from support.requesters import Listener, Raw, outcome_of
from support.runners import runner_on
from support.shared_buses import NETWORKS, Linked, two_runners
from support.workers import Helper, running
from workerbus import (
    BusJobRequestMessage,
    BusMessage,
    BusWorkerGoneMessage,
    JobError,
    JobGroupError,
    JobStatus,
    NotRunningError,
    WorkerGoneData,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus._failed import REMEMBERED_FAILURES, FailedWorkers
from workerbus.testing import settle


class FailingStart(Helper):
    """Fails in ``place`` when ``now`` is set."""

    def __init__(self, name: str, place: str) -> None:
        super().__init__(name)
        self.place = place
        self.now = anyio.Event()

    async def fail_in(self, place: str) -> None:
        if self.place == place:
            await self.now.wait()
            raise OSError("no device")

    async def run(self, params: WorkerParams) -> None:
        await self.fail_in("run")
        await super().run(params)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await self.fail_in("on_activated")


class Unattachable(Helper):
    async def attach(self, **kwargs: Any) -> None:
        raise OSError("no device")


PLACES = ["run", "on_activated"]
FAILED = {"error": "worker 'w' has failed: OSError: no device", "type": "WorkerFailed"}


@pytest.mark.parametrize("place", PLACES)
async def test_a_job_that_waits_for_a_worker_is_answered_when_that_fails_to_start(place: str) -> None:
    """J4: at once, without a timeout, and with what it has failed of."""
    worker = FailingStart("w", place)
    async with running(Helper("other")) as runner, anyio.create_task_group() as group:
        await Errors().of(runner)
        outcomes: list[Any] = []

        async def ask() -> None:
            outcomes.append(await outcome_of(runner, "w", name="wait"))

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await runner.add_workers(worker)
        await anyio.wait_all_tasks_blocked()
        assert outcomes == []
        worker.now.set()
        await anyio.wait_all_tasks_blocked()
    # One whose first `on_activated` has not returned takes jobs, and answers them itself.
    theirs = {"error": "no device", "type": "OSError"}
    assert outcomes == [(JobStatus.ERROR, FAILED if place == "run" else theirs)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("network", NETWORKS)
async def test_a_job_that_waits_under_another_runner_is_answered_too(network: str, place: str) -> None:
    """J4"""
    worker = FailingStart("w", place)
    async with two_runners(network) as (here, there), anyio.create_task_group() as group:
        outcomes: list[Any] = []

        async def ask() -> None:
            outcomes.append(await outcome_of(there, "w", name="wait"))

        group.start_soon(ask)
        await here.add_workers(worker)
        await anyio.wait_all_tasks_blocked()
        assert outcomes == []
        worker.now.set()
        await anyio.wait_all_tasks_blocked()
        assert outcomes == [(JobStatus.ERROR, FAILED)]


async def test_a_job_that_waits_hears_of_a_failure_that_is_forgotten_in_the_same_step() -> None:
    """J4, R9: the runner of the worker that has failed is in another life already."""
    async with running(Helper("other")) as runner, anyio.create_task_group() as group:
        outcomes: list[Any] = []

        async def ask() -> None:
            outcomes.append(await outcome_of(runner, "w", name="wait"))

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await runner.bus.send(BusWorkerGoneMessage("elsewhere", error="OSError: no device", source="w"))
        await runner.bus.send(BusWorkerGoneMessage("elsewhere", incarnation="another", source="v"))
        assert runner.registry.failure_of("w") is None
        await anyio.wait_all_tasks_blocked()
        assert outcomes == [(JobStatus.ERROR, FAILED)]


@pytest.mark.parametrize("how", ["run", "task", "start", "run before start", "on_activated"])
@pytest.mark.parametrize("network", NETWORKS)
async def test_a_job_for_a_worker_that_has_failed_is_answered_at_once(network: str, how: str) -> None:
    """J4: under its own runner, under another one, and under one that has come since."""
    async with two_runners(network) as (here, there):
        if how in ("run", "task", "start"):
            crashing = Crashing("w", how=how, error=OSError("no device"))
            await here.add_workers(crashing)
            await here.registry.wait_for("w")
            await there.registry.wait_for("w")
            await crash(crashing, here)
        else:
            failing = FailingStart("w", "run" if how == "run before start" else how)
            failing.now.set()
            await here.add_workers(failing)
            await failing.wait()
        another = FailingStart("another", "on_activated")
        another.now.set()
        await here.add_workers(another)
        await another.wait()
        await anyio.wait_all_tasks_blocked()
        late = runner_on(here.bus if network == "one bus" else Linked(here.bus.network), "late")  # type: ignore[attr-defined]  # a Linked
        async with late:
            await anyio.wait_all_tasks_blocked()
            for runner in (here, there, late):
                before = current_time()
                assert await outcome_of(runner, "w", name="wait") == (JobStatus.ERROR, FAILED)
                with pytest.raises(JobError, match="worker 'w' has failed: OSError: no device") as caught:
                    await runner.job("w", name="wait", timeout=60)
                assert caught.value.statuses == {"w": JobStatus.ERROR}
                assert not isinstance(caught.value, TimeoutError)
                with pytest.raises(JobError, match="worker 'another' has failed: OSError: no device"):
                    await runner.job("another", name="wait", timeout=60)
                assert current_time() == before


async def test_a_worker_that_could_not_be_attached_has_failed() -> None:
    """J4: as a child, too, whose parent gets the error."""
    parent = Helper("parent")
    async with running(parent) as runner:
        with pytest.raises(OSError, match="no device"):
            await parent.add_workers(Unattachable("w"))
        assert await outcome_of(runner, "w") == (JobStatus.ERROR, FAILED)
        await parent.add_workers(Helper("w"))
        assert (await runner.job("w", name="echo"))["worker"] == "w"


@pytest.mark.parametrize("network", NETWORKS)
async def test_a_new_worker_of_its_name_is_waited_for(network: str) -> None:
    """J4, R9: the failure is forgotten: here from when it is added, under another runner from when it is ready."""
    async with two_runners(network) as (here, there), anyio.create_task_group() as group:
        first, answers = Crashing("w"), dict[str, Any]()
        await here.add_workers(first)
        await there.registry.wait_for("w")
        await crash(first, here)
        await anyio.wait_all_tasks_blocked()
        assert here.registry.failure_of("w") == WorkerGoneData("w", "A", "ValueError: boom")
        assert there.registry.failure_of("w") == WorkerGoneData("w", "A", "ValueError: boom")

        async def ask(runner: WorkerRunner) -> None:
            answers[runner.name] = await runner.job("w", name="echo", timeout=60)

        second = Slow("w")
        await here.add_workers(second)
        assert here.registry.failure_of("w") is None
        group.start_soon(ask, here)
        await anyio.wait_all_tasks_blocked()
        assert answers == {}
        second.go_on.set()
        await there.registry.wait_for("w")
        assert there.registry.failure_of("w") is None
        group.start_soon(ask, there)
    assert {name: answer["worker"] for name, answer in answers.items()} == {"A": "w", "B": "w"}


async def test_a_new_worker_that_is_added_as_the_failed_one_leaves_is_waited_for(backend: str) -> None:
    """J4, G2: whoever watches for the departure can use the name, and the failure is not that of the new one."""
    first, second, answers = Crashing("w"), Slow("w"), list[Any]()
    async with running(Helper("other")) as runner, anyio.create_task_group() as group:
        await Errors().of(runner)
        await runner.add_workers(first, wait=True)

        async def add_another(_: object) -> None:
            await runner.add_workers(second)

        async def ask() -> None:
            answers.append(await runner.job("w", name="echo", timeout=60))

        await runner.registry.watch_departure("w", add_another)
        await crash(first, runner)
        await anyio.wait_all_tasks_blocked()
        assert runner.registry.failure_of("w") is None
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        second.go_on.set()
    assert [answer["worker"] for answer in answers] == ["w"]


class Slow(Helper):
    """Takes its time before it starts."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.go_on = anyio.Event()

    async def run(self, params: WorkerParams) -> None:
        await self.go_on.wait()
        await super().run(params)


async def test_a_worker_that_has_ended_is_waited_for() -> None:
    """J4, J1: it has not failed, and may come again."""
    async with running(Helper("other")) as runner:
        worker = Helper("w")
        await runner.add_workers(worker, wait=True)
        await worker.stop()
        with pytest.raises(TimeoutError):
            await runner.job("w", timeout=1)


@pytest.mark.parametrize("network", NETWORKS)
async def test_of_many_that_have_failed_the_last_ones_are_remembered_while_the_runner_runs(network: str) -> None:
    """R9, J4"""
    async with two_runners(network) as (here, there):
        await there.add_workers(Helper("other"))
        for number in range(REMEMBERED_FAILURES + 50):
            gone = BusWorkerGoneMessage("elsewhere", error="ValueError: boom", source=f"w{number}")
            await there.bus.send(gone)
        assert here.registry.failure_of("w49") is None
        assert here.registry.failure_of("w50") is not None
        assert len(here.registry.failed.of("elsewhere")) == REMEMBERED_FAILURES
    assert here.registry.failed.of("elsewhere") == []


async def test_what_has_failed_under_a_runner_that_has_left_is_forgotten() -> None:
    """R9, J4: and what has failed under others, not."""
    async with two_runners("one bus") as (here, there), runner_on(here.bus, "late") as late:
        failing = {name: FailingStart(name, "run") for name in ("theirs", "ours")}
        for runner, each in ((late, failing["theirs"]), (here, failing["ours"])):
            runner.add_event_handler("on_error", lambda *_: None)
            each.now.set()
            await runner.add_workers(each)
        await settle()
        assert all(there.registry.failure_of(name) for name in failing)
        await late.end()
        await settle()
        assert there.registry.failure_of("theirs") is here.registry.failure_of("theirs") is None
        assert there.registry.failure_of("ours") is not None


async def test_a_group_with_a_worker_that_has_failed_fails_at_once() -> None:
    """J4, J8: nobody else is asked, unless errors are let pass; then all others are."""
    failing, other = FailingStart("w", "run"), Helper("other")
    failing.now.set()
    listener = Listener()
    async with running(other, listener) as runner:
        await Errors().of(runner)
        await runner.add_workers(failing)
        await failing.wait()
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("other", "w", name="echo")
        assert caught.value.statuses == {"w": JobStatus.ERROR}
        assert caught.value.responses == {"w": FAILED}
        assert other.calls == []
        async with runner.job_group("w", "other", name="echo", cancel_on_error=False) as group:
            pass
        assert group.statuses == {"w": JobStatus.ERROR, "other": JobStatus.COMPLETED}
        async with runner.job_group("w", cancel_on_error=False) as alone:
            pass
        assert alone.statuses == {"w": JobStatus.ERROR}
        assert runner.statistics().job_groups == ()

        await listener.request_job_group("other", "w", name="echo")
        await listener.until("error")
        assert [(hook, message.source) for hook, message in listener.heard] == [("response", "w"), ("error", "w")]
        assert listener.job_groups == {}


async def test_a_failure_that_comes_while_a_group_waits_and_another_is_asked() -> None:
    """J4, J6, J5: a group of three, one of which crashes, one is under another runner, and one never comes."""
    async with two_runners("two buses") as (here, there), anyio.create_task_group() as group:
        crashing, remote = Crashing("crashing"), Helper("remote")
        await here.add_workers(crashing)
        await there.add_workers(remote)
        await here.registry.wait_for("remote")
        outcomes: list[JobGroupError] = []

        async def ask() -> None:
            with pytest.raises(JobGroupError) as caught:
                await here.job_group("remote", "crashing", "late", name="wait", timeout=10)
            outcomes.append(caught.value)

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        late = FailingStart("late", "run")
        await there.add_workers(late)
        await crash(crashing, here)  # it is not asked yet: that is found out in its turn
        late.now.set()
        await anyio.wait_all_tasks_blocked()
        assert len(outcomes) == 1
        assert current_time() < 10
        assert "late" in outcomes[0].statuses
        assert remote.calls == []


async def test_a_request_that_meets_a_worker_while_it_fails_is_told_of_the_failure() -> None:
    """J4, W7: one that comes during its wind-down, and the job that runs."""

    class Lingering(Crashing):
        @job(name="linger")
        async def linger(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await self.release.wait()

    worker = Lingering("w")
    async with running(worker) as runner:
        await Errors().of(runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "linger")
        await worker.begun.wait()
        worker.told.set()
        await anyio.wait_all_tasks_blocked()
        await raw.ask("2", "w", "echo")
        assert await raw.answer("2") == (JobStatus.ERROR, {"error": "boom", "type": "ValueError"})
        worker.release.set()
        assert await raw.answer("1") == (JobStatus.ERROR, {"error": "boom", "type": "ValueError"})
        await worker.wait()


async def test_whoever_waits_for_the_registry_goes_on_waiting() -> None:
    """G2: a supervisor that waits for the next worker of the name, say."""
    async with running(Helper("other")) as runner, anyio.create_task_group() as group:
        await Errors().of(runner)
        found: list[Any] = []

        async def wait() -> None:
            found.append(await runner.registry.wait_for("w"))

        group.start_soon(wait)
        failing = FailingStart("w", "run")
        failing.now.set()
        await runner.add_workers(failing)
        await failing.wait()
        await anyio.wait_all_tasks_blocked()
        assert found == []
        await runner.add_workers(Helper("w"))
        await anyio.wait_all_tasks_blocked()
        assert [data.worker_name for data in found] == ["w"]


async def test_a_job_of_a_runner_that_does_not_run_is_refused() -> None:
    """J14"""
    with pytest.raises(NotRunningError):
        WorkerRunner().job("w")


def test_what_is_known_of_failed_workers_is_known_by_runner_too() -> None:
    """J4, R9: a list of one runner's costs what that runner has, and what is forgotten is in neither table."""
    failed = FailedWorkers()
    for number in range(REMEMBERED_FAILURES + 2):
        failed.add(WorkerGoneData(f"w{number}", "first" if number < 2 else "other", "broken"))
    assert failed.of("first") == []
    moved = WorkerGoneData("w5", "third", "broken again")
    failed.add(moved)
    assert failed.of("third") == [moved]
    failed.forget("w6")
    failed.forget("nobody")
    assert {data.worker_name for data in failed.of("other")} == {
        f"w{number}" for number in range(2, REMEMBERED_FAILURES + 2) if number not in (5, 6)
    }
    failed.forget_runner("other")
    assert failed.get("w7") is None
    assert failed.of("other") == []
    assert failed.get("w5") is moved
    failed.clear()
    assert failed.get("w5") is None
    assert failed.of("third") == []


async def test_a_worker_that_has_failed_answers_a_group_once() -> None:
    """J1, J4, J16: and the others are asked all the same."""
    listener, failing = Listener(), FailingStart("w", "on_activated")
    failing.now.set()
    async with two_runners("one bus") as (here, _):
        await here.add_workers(listener, Helper("helper"), failing)
        await failing.wait()
        await anyio.wait_all_tasks_blocked()
        await listener.request_job_group("helper", "w", name="echo", cancel_on_error=False)
        with anyio.fail_after(5):
            result = await listener.until("completed")
        assert result.statuses == {"helper": JobStatus.COMPLETED, "w": JobStatus.ERROR}
        assert sorted(name for name, _ in listener.heard) == ["completed", "response", "response"]


async def test_those_behind_a_worker_that_fails_while_a_group_is_asked_are_asked_all_the_same() -> None:
    """J1, J4, J11: it was there when the first one was asked, over a bus that takes its time."""

    class Slow(Helper):
        async def send_bus_message(self, message: BusMessage) -> None:
            await super().send_bus_message(message)
            if isinstance(message, BusJobRequestMessage) and message.target == "one":
                await crash(crashing, runner)

    crashing, slow = Crashing("crashing"), Slow("slow")
    async with running(crashing, slow, Helper("one"), Helper("two"), Helper("three")) as runner:
        await Errors().of(runner)
        names = ("one", "crashing", "two", "three")
        async with slow.job_group(*names, name="echo", cancel_on_error=False, timeout=5) as group:
            pass
        expected = dict.fromkeys(names, JobStatus.COMPLETED) | {"crashing": JobStatus.ERROR}
        assert group.statuses == expected
        assert current_time() < 5
