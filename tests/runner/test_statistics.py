"""O2, O3: what a runner tells of itself."""

from contextlib import suppress
from typing import Any

import anyio
import attrs
import pytest
from anyio import sleep

from support.conditions import eventually
from support.messages import alarm, note
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    JobFailure,
    JobGroupSnapshot,
    JobSnapshot,
    JobStatus,
    RunnerStatistics,
    WorkerRunner,
    WorkerSnapshot,
    job,
)
from workerbus.worker._core import core_of

NONE = dict.fromkeys(JobStatus, 0)


def answered(**counts: int) -> dict[JobStatus, int]:
    return {status: counts.get(status.value, 0) for status in JobStatus}


def only_job(runner: WorkerRunner, worker_name: str) -> JobSnapshot:
    (found,) = runner.statistics().workers[worker_name].jobs
    return found


async def test_a_runner_that_does_nothing_has_nothing_to_tell() -> None:
    """O2: before its run, and after it."""
    runner = WorkerRunner(name="front", handle_sigint=False)
    nothing = RunnerStatistics("front", {}, runner.bus.statistics(), (), NONE, 0, 0)
    assert runner.statistics() == nothing
    async with runner:
        pass
    assert attrs.evolve(runner.statistics(), bus=nothing.bus) == nothing  # type: ignore[misc]  # made by value


async def test_each_worker_is_there_with_its_parent_and_where_it_is() -> None:
    """O2: children too; the bus's own statistics are those of that moment."""
    parent, idle, late = Helper("parent"), Helper("idle", active=False), Helper("late")
    async with running(parent, idle) as runner:
        await parent.add_workers(Helper("child"))
        await runner.registry.wait_for("child")
        assert runner.statistics() == RunnerStatistics(
            name=runner.name,
            workers={
                name: WorkerSnapshot(name, "running", of, active, (), {"system": 0, "data": 0}, NONE, 0, 0)
                for name, of, active in [("parent", None, True), ("idle", None, False), ("child", "parent", True)]
            },
            bus=runner.bus.statistics(),
            job_groups=(),
            jobs_answered=NONE,
            jobs_requested=0,
            hooks_failed=0,
        )
        await runner.add_workers(late)
        assert runner.statistics().workers["late"].phase == "attached"


async def test_a_worker_says_when_it_is_stopping_and_is_not_there_when_it_has_gone() -> None:
    """O2."""
    release = anyio.Event()

    class Slow(Helper):
        async def cleanup(self) -> None:
            await release.wait()

    slow = Slow("slow")
    async with running(slow) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(slow.stop)
        await eventually(lambda: runner.statistics().workers["slow"].phase == "stopping")
        release.set()
        await slow.wait()
        assert runner.statistics().workers == {}


async def test_a_job_in_flight_tells_who_asked_for_what_and_how_old_it_is() -> None:
    """O2, J6: by the clock that the program runs by."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker) as runner:
        await sleep(5)
        await asker.request_job("helper", name="wait", timeout=10)
        await helper.begun.wait()
        await sleep(3)
        (job_id,) = asker.job_groups
        found = only_job(runner, "helper")
        assert found == JobSnapshot(job_id, "wait", "asker", "running", found.age, found.seconds_left)
        assert found.age == pytest.approx(3)
        assert found.seconds_left == pytest.approx(7)
        helper.release.set()


async def test_a_job_without_a_deadline_has_no_seconds_left() -> None:
    """O2."""
    helper = Helper("helper")
    async with running(helper) as runner:
        await runner.bus.send(BusJobRequestMessage("j", "wait", source="stranger", target="helper"))
        await helper.begun.wait()
        await sleep(2)
        found = only_job(runner, "helper")
        assert (found.seconds_left, found.requester) == (None, "stranger")
        assert found.age == pytest.approx(2)
        helper.release.set()


class Turns(BaseWorker):
    """Does one job after the other, and leaves one open."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.release = anyio.Event()

    @job(name="turn", sequential=True)
    async def turn(self, message: BusJobRequestMessage) -> None:
        with anyio.move_on_after(15, shield=True):
            await self.release.wait()

    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        pass


async def test_a_job_says_in_which_state_it_is() -> None:
    """O2: queued, running, deferred, cancelling; the oldest comes first."""
    turns, asker = Turns("turns"), Helper("asker")
    async with running(turns, asker) as runner:
        first = await asker.request_job("turns", name="turn")
        for name in ("turn", "later"):
            await asker.request_job("turns", name=name)
        await anyio.wait_all_tasks_blocked()
        states = [each.state for each in runner.statistics().workers["turns"].jobs]
        assert states == ["running", "queued", "deferred"]
        await asker.cancel_job_group(first)
        await anyio.wait_all_tasks_blocked()
        assert runner.statistics().workers["turns"].jobs[0].state == "cancelling"
        turns.release.set()


async def test_a_deadline_that_has_passed_leaves_no_seconds() -> None:
    """O2, J6: while the handler is still unwinding."""
    turns = Turns("turns")
    async with running(turns, asker := Helper("asker")) as runner:
        await asker.request_job("turns", name="turn", timeout=1)
        await sleep(1.5)
        found = only_job(runner, "turns")
        assert (found.state, found.seconds_left) == ("cancelling", 0.0)
        turns.release.set()


async def fail(worker: Doing, message: BusJobRequestMessage) -> None:
    raise JobFailure("cannot")


async def stream(worker: Doing, message: BusJobRequestMessage) -> None:
    await worker.send_job_stream_end(message.job_id)


async def answer_urgently(worker: Doing, message: BusJobRequestMessage) -> None:
    await worker.send_job_response(message.job_id, status=JobStatus.FAILED, urgent=True)


@pytest.mark.parametrize(
    ("ask", "counts"),
    [
        (("helper", "echo", {}), answered(completed=1)),
        (("helper", "fail", {}), answered(error=1)),
        (("helper", "unknown", {}), answered(error=1)),
        (("helper", "wait", {"timeout": 1}), answered(cancelled=1)),
        (("idle", "echo", {}), answered(failed=1)),
        (("failing", "do", {}), answered(failed=1)),
        (("streaming", "do", {}), answered(completed=1)),
        (("urgent", "do", {}), answered(failed=1)),
    ],
)
async def test_answers_are_counted_by_status(
    ask: tuple[str, str, dict[str, Any]], counts: dict[JobStatus, int]
) -> None:
    """O2: once each, whoever gives them."""
    workers = (
        *(Helper("helper"), Helper("idle", active=False), Helper("asker")),
        *(Doing("failing", fail), Doing("streaming", stream), Doing("urgent", answer_urgently)),
    )
    async with running(*workers) as runner:
        worker_name, name, options = ask
        asker = runner.get_worker("asker")
        assert asker is not None
        with suppress(TimeoutError):
            await asker.job_group(worker_name, name=name, cancel_on_error=False, **options)
        found = runner.statistics()
        assert found.workers[worker_name].jobs_answered == counts
        assert found.workers["asker"].jobs_requested == 1
        assert (found.jobs_answered, found.jobs_requested) == (counts, 1)
        assert all(each.jobs_answered == NONE for name, each in found.workers.items() if name != worker_name)


async def test_a_request_that_comes_twice_is_answered_and_counted_once() -> None:
    """O2, J12."""
    helper = Helper("helper")
    async with running(helper) as runner:
        for _ in range(2):
            await runner.bus.send(BusJobRequestMessage("j", "echo", source="stranger", target="helper"))
        await eventually(lambda: not helper.active_jobs)
        assert runner.statistics().jobs_answered == answered(completed=1)


async def test_a_job_group_counts_once_for_each_worker() -> None:
    """O2: a runner's own jobs count in its own sum."""
    async with running(Helper("one"), Helper("two")) as runner:
        async with runner.job_group("one", "two", name="echo"):
            pass
        await runner.job("one", name="echo")
        assert runner.statistics().jobs_requested == 3
        assert runner.statistics().workers["one"].jobs_requested == 0


async def test_counts_only_go_up_also_when_workers_go() -> None:
    """O2: and when another one takes the name."""
    counts: list[tuple[int, int, int]] = []

    class Failing(Helper):
        async def on_job_response(self, message: object) -> None:
            raise ValueError("broken")

    async with running(Helper("helper")) as runner:
        for round_number in range(1, 4):
            asker = Failing("asker")
            await runner.add_workers(asker)
            await runner.registry.wait_for("asker")
            await asker.job("helper", name="echo")
            await core_of(asker).state.hooks.quiet()
            await asker.stop()
            found = runner.statistics()
            assert "asker" not in found.workers
            counts.append((found.jobs_answered[JobStatus.COMPLETED], found.jobs_requested, found.hooks_failed))
            assert counts[-1] == (round_number, round_number, round_number)
    found = runner.statistics()
    assert (found.jobs_answered, found.jobs_requested, found.hooks_failed) == (answered(completed=3), 3, 3)


async def test_the_answers_of_all_workers_are_added_up_whether_they_have_gone_or_not() -> None:
    """O2"""
    names = ("gone", "gone too", "here", "here too")
    async with running(*map(Helper, names)) as runner:
        for name in names:
            await runner.job(name, name="echo")
            if name.startswith("gone"):
                worker = runner.get_worker(name)
                assert worker is not None
                await worker.stop()
        assert runner.statistics().jobs_answered == answered(completed=4)


async def test_a_hook_that_raises_is_counted() -> None:
    """O2, W7."""

    class Failing(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            raise ValueError("broken")

    async with running(Failing("failing")) as runner:
        before = runner.statistics().workers["failing"].hooks_failed
        await runner.bus.send(note(1, "failing"))
        await eventually(lambda: runner.statistics().workers["failing"].hooks_failed == before + 1)


class Choosing(Helper):
    """Has its messages wait in lanes of their own."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


@pytest.mark.parametrize("kind", [Helper, Choosing])
async def test_what_waits_for_the_hooks_of_a_worker_is_told_by_lane(kind: type[Helper]) -> None:
    """O2: the one that runs does not wait."""
    release = anyio.Event()

    class Slow(kind):  # type: ignore[valid-type, misc]  # either of the two
        async def on_bus_message(self, message: BusMessage) -> None:
            await release.wait()

    async with running(Slow("slow")) as runner:
        for message in (note(1, "slow"), note(2, "slow"), alarm(3, "slow"), alarm(4, "slow"), alarm(5, "slow")):
            await runner.bus.send(message)
        await anyio.wait_all_tasks_blocked()
        found = runner.statistics()
        assert found.workers["slow"].lanes == {"system": 2, "data": 1}
        assert found.bus.subscribers["slow"].depth == 3
        release.set()


@pytest.mark.parametrize("kind", [Helper, Choosing])
async def test_a_worker_that_has_not_started_tells_what_waits_for_it(kind: type[Helper]) -> None:
    """O2, W2."""
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(kind("worker"))
    await runner.bus.send(note(1, "worker"))
    await runner.bus.send(alarm(2, "worker"))
    found = runner.statistics().workers["worker"]
    assert (found.phase, found.lanes) == ("attached", {"system": int(kind is Choosing), "data": 1})
    async with runner:
        pass


async def test_the_runners_own_jobs_say_for_whom_they_wait() -> None:
    """O2, R7: until they are over, and not those of its workers."""
    one, two, asker = Helper("one"), Helper("two"), Helper("asker")
    async with running(one, two, asker) as runner, anyio.create_task_group() as tasks:
        await asker.request_job("one", name="wait")

        async def ask() -> None:
            async with runner.job_group("two", "one", name="wait", label="both", timeout=10):
                pass

        tasks.start_soon(ask)
        await two.begun.wait()
        await sleep(4)
        (found,) = runner.statistics().job_groups
        assert found == JobGroupSnapshot(found.job_id, "both", "open", ("two", "one"), found.seconds_left)
        assert found.seconds_left == pytest.approx(6)
        two.release.set()
        await eventually(lambda: runner.statistics().job_groups[0].waits_for == ("one",))
        one.release.set()
        await eventually(lambda: not runner.statistics().job_groups)


async def test_no_payload_is_shown() -> None:
    """O3: neither of a job in flight, nor of what waits."""
    helper, asker, secret = Helper("helper"), Helper("asker"), {"key": "very secret"}
    async with running(helper, asker) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            await runner.job("helper", name="wait", payload=secret, headers=secret)

        tasks.start_soon(ask)
        await asker.request_job("helper", name="wait", payload=secret)
        await helper.begun.wait()
        assert runner.statistics().job_groups
        assert "very secret" not in repr(runner.statistics())
        helper.release.set()


async def test_a_snapshot_is_frozen_and_stays_as_it_was() -> None:
    """O2."""
    async with running(Helper("helper")) as runner:
        before = runner.statistics()
        await runner.job("helper", name="echo")
        assert before.workers["helper"].jobs_answered == NONE
        for each in (before, before.workers["helper"], before.bus):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                each.name = "other"  # type: ignore[misc, union-attr]  # that is the point
