"""J9: cancels that overtake their request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.messages import Alarm, Note, alarm, note
from support.requesters import Listener, Raw
from support.workers import Helper, running
from workerbus import (
    BusDataMessage,
    BusDeactivateWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusMessage,
    JobStatus,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
)
from workerbus.testing import settle
from workerbus.worker._core import core_of


class Late(Listener):
    """Starts when it is told to; until then its data messages wait."""

    def __init__(self, name: str = "late") -> None:
        super().__init__(name)
        self.may_start = anyio.Event()

    async def run(self, params: WorkerParams) -> None:
        await self.may_start.wait()
        await super().run(params)


class LateAndChoosy(Late):
    """Its messages go through lanes, since it is asked whether it accepts them."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


@asynccontextmanager
async def waiting_for_its_start(worker: Late) -> AsyncIterator[Raw]:
    async with running() as runner:
        raw = await Raw.on(runner.bus)
        await runner.add_workers(worker)
        yield raw


@pytest.mark.parametrize("kind", [Late, LateAndChoosy])
async def test_a_cancel_that_overtakes_its_request_wins(kind: type[Late]) -> None:
    """J9: the handler never starts, and the request is answered CANCELLED when it is met."""
    late = kind()
    async with waiting_for_its_start(late) as raw:
        await raw.ask("job", "late", "wait")
        await raw.cancel("job", "late", "too slow")
        await anyio.wait_all_tasks_blocked()
        assert raw.answers("job") == []
        late.may_start.set()
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        await raw.ask("other", "late", "echo")
        await raw.answer("other")
        assert late.calls == ["other"]
        assert len(raw.answers("job")) == 1


async def test_a_cancel_that_overtakes_its_request_in_the_lanes_of_a_running_worker_wins() -> None:
    """J9: sent right behind it, and handled before it."""
    late = LateAndChoosy()
    late.may_start.set()
    async with running(late) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(10):
            await raw.ask(f"job {number}", "late", "wait")
        for number in range(1, 10):
            await raw.cancel(f"job {number}", "late")
        for number in range(1, 10):
            assert (await raw.answer(f"job {number}"))[0] == JobStatus.CANCELLED
        # At most one data message is handled before system messages that wait (B2).
        assert set(late.calls) <= {"job 0"}
        await raw.cancel("job 0", "late")
        assert (await raw.answer("job 0"))[0] == JobStatus.CANCELLED


async def test_a_requester_that_leaves_while_the_worker_still_starts_is_answered() -> None:
    """J9: the worker is announced, and those who watch for it still hold up its start."""
    late, release = Late(), anyio.Event()
    late.may_start.set()

    async def hold(data: WorkerReadyData) -> None:
        await release.wait()

    async with running() as runner, anyio.create_task_group() as group:
        raw = await Raw.on(runner.bus)
        await runner.registry.watch("late", hold)
        await runner.add_workers(late)

        async def ask() -> None:
            with anyio.CancelScope() as scope:
                async with runner.job("late", name="wait"):
                    scope.cancel()
                    await anyio.sleep_forever()
            assert scope.cancelled_caught

        group.start_soon(ask)
        await raw.until(1, BusJobCancelMessage)
        await raw.until(1, BusJobRequestMessage)
        release.set()
        (job_id,) = [message.job_id for message in raw.got if isinstance(message, BusJobRequestMessage)]
        assert (await raw.answer(job_id))[0] == JobStatus.CANCELLED


@pytest.mark.parametrize("kind", [Late, LateAndChoosy])
async def test_a_cancel_is_forgotten_when_the_messages_that_it_overtook_have_been_handled(kind: type[Late]) -> None:
    """J9: what has its id and comes later is another request."""
    late = kind()
    async with waiting_for_its_start(late) as raw:
        await raw.ask("other", "late", "echo")
        for number in range(3):
            await raw.cancel(f"job {number}", "late")
        late.may_start.set()
        await raw.answer("other")
        for number in range(3):
            await raw.ask(f"job {2 - number}", "late", "echo")
            assert (await raw.answer(f"job {2 - number}"))[0] == JobStatus.COMPLETED


@pytest.mark.parametrize("kind", [Late, LateAndChoosy])
async def test_a_cancel_that_overtakes_nothing_is_forgotten_at_once(kind: type[Late]) -> None:
    """J9: no data message was in the lane."""
    late = kind()
    late.may_start.set()
    async with running(late) as runner:
        raw = await Raw.on(runner.bus)
        await raw.cancel("job", "late")
        await anyio.wait_all_tasks_blocked()
        await raw.ask("job", "late", "echo")
        assert (await raw.answer("job"))[0] == JobStatus.COMPLETED


async def test_a_cancel_concerns_the_worker_that_it_is_sent_to() -> None:
    """J9: the members of a group share the id of their job."""
    first, second = Late("first"), Late("second")
    async with waiting_for_its_start(first) as raw:
        await raw.ask("job", "first", "echo")
        await raw.cancel("job", "second")
        first.may_start.set()
        assert (await raw.answer("job"))[0] == JobStatus.COMPLETED
    assert second.calls == []


STEPS = st.lists(st.tuples(st.sampled_from(["ask", "cancel", "other"]), st.integers(0, 3)), min_size=1, max_size=12)


@pytest.mark.parametrize("kind", [Late, LateAndChoosy])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_only_cancels_behind_their_request_cancel_it(
    backend: str, kind: type[Late], steps: list[tuple[str, int]]
) -> None:
    """J9: whatever else waits with them; a job that is asked for twice has one outcome (J12)."""
    expected: dict[str, JobStatus] = {}
    if kind is LateAndChoosy:  # whose lanes do not tell what was sent first
        steps = [step for n, step in enumerate(steps) if step[0] != "cancel" or ("ask", step[1]) in steps[:n]]
    for what, number in steps:
        if what == "ask":
            expected.setdefault(f"job {number}", JobStatus.COMPLETED)
        elif what == "cancel" and f"job {number}" in expected:
            expected[f"job {number}"] = JobStatus.CANCELLED

    async def example() -> None:
        late = kind()
        async with waiting_for_its_start(late) as raw:
            for what, number in steps:
                if what == "ask":
                    await raw.ask(f"job {number}", "late", "echo")
                elif what == "cancel":
                    await raw.cancel(f"job {number}", "late")
                else:
                    await late.bus.send(BusDataMessage(source="raw", target="late"))
            await raw.ask("last", "late", "echo")
            late.may_start.set()
            await raw.answer("last")
            for job_id in expected:
                await raw.answer(job_id)
            assert {job_id: [status for status, _ in raw.answers(job_id)] for job_id in expected} == {
                job_id: [status] for job_id, status in expected.items()
            }
            started = [job_id for job_id, status in expected.items() if status == JobStatus.COMPLETED]
            assert sorted(late.calls) == sorted([*started, "last"])

    clock.run(example, backend=backend)


async def test_a_request_whose_cancel_was_early_is_not_run_when_it_comes_again() -> None:
    """J9, J12: it has been answered."""
    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    raw = await Raw.on(runner.bus)
    for _ in range(2):
        await raw.ask("job", "worker", "echo")
    await raw.cancel("job", "worker")
    async with runner:
        await raw.answer("job")
        await raw.settle()
    assert worker.calls == []
    assert [status for status, _ in raw.answers("job")] == [JobStatus.CANCELLED]


async def test_an_early_cancel_is_kept_no_longer_than_what_waited_with_it() -> None:
    """J9: a request of that id that comes behind it is another."""
    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    raw = await Raw.on(runner.bus)
    await runner.bus.send(note(1, "worker"))
    await raw.cancel("job", "worker")
    await raw.ask("job", "worker", "echo")
    async with runner:
        assert (await raw.answer("job"))[0] is JobStatus.COMPLETED


class Refusing(Helper):
    """Refuses what ``refuses`` says, and hears everything."""

    receives = "all"

    def __init__(self, name: str, refuses: type[BusMessage] | tuple[type[BusMessage], ...] = ()) -> None:
        super().__init__(name)
        self.refuses = refuses

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return not isinstance(message, self.refuses)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (["note", "note", "cancel", "request"], JobStatus.COMPLETED),
        (["note", "request", "cancel"], JobStatus.CANCELLED),
        (["request", "cancel", "alarm"], JobStatus.CANCELLED),
    ],
)
async def test_what_a_worker_refuses_counts_among_what_a_cancel_has_overtaken(
    sent: list[str], status: JobStatus
) -> None:
    """J9, N4: data messages do, and system messages do not."""
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(Refusing("worker", (Note, Alarm)))
    raw = await Raw.on(runner.bus)
    for what in sent:
        if what == "cancel":
            await raw.cancel("job", "worker")
        elif what == "request":
            await raw.ask("job", "worker", "echo")
        else:
            await runner.bus.send(note(1, "worker") if what == "note" else alarm(1, "worker"))
    async with runner:
        assert (await raw.answer("job"))[0] is status


@pytest.mark.parametrize("kind", [Helper, Refusing])
async def test_a_cancel_that_finds_no_message_waiting_concerns_no_later_request(kind: type[Helper]) -> None:
    """J9: it is remembered for what was in the lane when it came, whenever it is handled."""
    async with running(kind("worker")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.cancel("job", "worker")
        await raw.ask("job", "worker", "echo")
        assert (await raw.answer("job"))[0] is JobStatus.COMPLETED


async def test_a_cancel_that_overtakes_its_request_keeps_its_reason() -> None:
    """J9: the request waits for the start of the worker, the cancel does not."""
    helper = Helper("helper")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(helper)
    raw = await Raw.on(runner.bus)
    for job_id in ("one", "two", "three"):
        await raw.ask(job_id, "helper", "echo")
    await raw.cancel("three", "helper", "not wanted")
    await raw.cancel("one", "helper", "too late")
    async with runner:
        assert await raw.answer("two") == (JobStatus.COMPLETED, {"worker": "helper", "payload": None})
        assert await raw.answer("one") == (JobStatus.CANCELLED, {"error": "too late", "type": "Cancelled"})
        assert await raw.answer("three") == (JobStatus.CANCELLED, {"error": "not wanted", "type": "Cancelled"})
    assert helper.calls == ["two"]


async def test_cancels_leave_nothing_at_a_worker_that_chooses() -> None:
    """J9"""
    worker = Refusing("worker")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(5):
            await raw.ask(f"job {number}", "worker", "wait")
            await raw.cancel(f"job {number}", "worker")
            assert await raw.answer(f"job {number}") == (
                JobStatus.CANCELLED,
                {"error": "cancelled", "type": "Cancelled"},
            )
        assert core_of(worker).state.inbox._marks == {}


async def test_a_departure_that_waits_counts_among_what_a_cancel_has_overtaken() -> None:
    """J4, J9: the cancel is forgotten with what waited when it came."""
    runner, worker = WorkerRunner(handle_sigint=False), Refusing("worker")
    await runner.add_workers(worker)
    raw = await Raw.on(runner.bus)
    await runner.bus.send(note(1))
    called = anyio.Event()
    core_of(worker).state.inbox.call_behind(called.set)
    await raw.cancel("job", "worker")
    await raw.ask("job", "worker", "echo")
    assert not called.is_set()
    async with runner:
        await called.wait()
        assert (await raw.answer("job"))[0] is JobStatus.COMPLETED


class RefusingCancels(Helper):
    """Hears everything, and refuses the cancels that are for itself, if it is told to."""

    receives = "all"

    def __init__(self, name: str, *, refuses: bool) -> None:
        super().__init__(name)
        self.refuses = refuses

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return not (self.refuses and isinstance(message, BusJobCancelMessage))


@pytest.mark.parametrize(("refuses", "target"), [(True, "worker"), (False, "another")])
async def test_cancels_that_a_worker_refuses_or_that_are_for_others_leave_nothing_there(
    refuses: bool, target: str
) -> None:
    """J9, N4: what is remembered of a cancel is forgotten with it."""
    worker = RefusingCancels("worker", refuses=refuses)
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(10):
            await raw.cancel(f"job {number}", target)
        await settle()
        assert core_of(worker).state.inbox._marks == {}


@pytest.mark.parametrize("kind", [Late, LateAndChoosy])
async def test_a_second_cancel_overtakes_what_came_after_the_first(kind: type[Late]) -> None:
    """J9: it is remembered for longer than that, and its reason counts."""
    late = kind()
    async with waiting_for_its_start(late) as raw:
        await raw.ask("other", "late", "echo")
        await raw.cancel("job", "late", "first")
        await anyio.wait_all_tasks_blocked()
        await raw.ask("job", "late", "wait")
        await raw.cancel("job", "late", "second")
        await anyio.wait_all_tasks_blocked()
        late.may_start.set()
        status, response = await raw.answer("job")
        assert status == JobStatus.CANCELLED
        assert response is not None
        assert response["error"] == "second"
        assert late.calls == ["other"]


@pytest.mark.parametrize("kind", [Late, LateAndChoosy])
async def test_a_cancel_that_overtakes_its_request_wins_where_the_worker_has_become_inactive(kind: type[Late]) -> None:
    """J9, W4: its requester reads of the cancel that it has sent."""
    late = kind()
    async with running() as runner:
        raw = await Raw.on(runner.bus)
        await runner.add_workers(late)
        await runner.bus.send(BusDeactivateWorkerMessage(source="raw", target="late"))
        await raw.ask("job", "late", "wait")
        await raw.ask("other", "late", "wait")
        await raw.cancel("job", "late", "too slow")
        await anyio.wait_all_tasks_blocked()
        late.may_start.set()
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        assert (await raw.answer("other"))[0] == JobStatus.FAILED
        assert late.calls == []
