"""J9, J10 and J12: cancels that come early or late, strangers, and requests that come twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    BusWorkerReadyMessage,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerReadyData,
    job,
)


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


# --- J9: a cancel that overtakes its request


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


async def test_a_requester_that_leaves_before_its_request_is_met_is_answered() -> None:
    """J9: the worker has been announced, and has not started yet."""
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
        assert late.calls == []


@pytest.mark.parametrize("kind", [Late, LateAndChoosy])
async def test_a_cancel_is_forgotten_when_the_messages_that_it_overtook_have_been_handled(kind: type[Late]) -> None:
    """J9: what has its id and comes later is another request."""
    late = kind()
    async with waiting_for_its_start(late) as raw:
        await raw.ask("other", "late", "echo")
        await raw.cancel("job", "late")
        late.may_start.set()
        await raw.answer("other")
        await raw.ask("job", "late", "echo")
        assert (await raw.answer("job"))[0] == JobStatus.COMPLETED


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


# --- J10: a slow clean-up


class Slow(Listener):
    """Its job ``hold`` takes its time to unwind."""

    def __init__(self, name: str = "slow") -> None:
        super().__init__(name)
        self.unwinds = anyio.Event()
        self.let_go = anyio.Event()
        self.messages: list[BusMessage] = []

    @job(name="hold")
    async def hold(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.unwinds.set()
            with anyio.move_on_after(8, shield=True):
                await self.let_go.wait()


async def test_a_slow_clean_up_delays_no_other_message() -> None:
    """J10: jobs, cancels and hooks of that worker go on."""
    slow = Slow()
    async with running(slow) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("slow", "slow", "hold")
        await slow.begun.wait()
        await raw.cancel("slow", "slow")
        await slow.unwinds.wait()
        await raw.ask("quick", "slow", "echo")
        await raw.answer("quick")
        await raw.ask("wait", "slow", "wait")
        await anyio.wait_all_tasks_blocked()
        await raw.cancel("wait", "slow")
        assert (await raw.answer("wait"))[0] == JobStatus.CANCELLED
        await slow.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert [message.job_id for hook, message in slow.heard if hook == "cancelled"] == ["slow", "wait"]
        assert raw.answers("slow") == []
        slow.let_go.set()
        assert (await raw.answer("slow"))[0] == JobStatus.CANCELLED


async def test_a_slow_clean_up_delays_no_answer_to_its_own_worker() -> None:
    """J10: what the worker has asked for itself comes in."""
    slow = Slow()
    async with running(slow, Helper("helper")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("slow", "slow", "hold")
        await slow.begun.wait()
        await raw.cancel("slow", "slow")
        await slow.unwinds.wait()
        assert (await slow.job("helper", name="echo"))["worker"] == "helper"
        slow.let_go.set()


# --- cancels as such


async def test_a_second_cancel_changes_nothing() -> None:
    """J9, J1: one hook, one answer."""
    slow = Slow()
    async with running(slow) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "slow", "hold")
        await slow.begun.wait()
        for reason in ("first", "second", "third"):
            await raw.cancel("job", "slow", reason)
            await anyio.wait_all_tasks_blocked()
        slow.let_go.set()
        await raw.answer("job")
        await raw.cancel("job", "slow", "fourth")
        await anyio.wait_all_tasks_blocked()
        assert [message.reason for hook, message in slow.heard if hook == "cancelled"] == ["first"]
        assert len(raw.answers("job")) == 1


async def test_a_cancel_of_a_finished_job_is_none() -> None:
    """J9, J1: neither hook nor answer."""
    helper = Listener("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "echo")
        await raw.answer("job")
        await raw.cancel("job", "helper")
        await anyio.wait_all_tasks_blocked()
        assert helper.heard == []
        assert len(raw.answers("job")) == 1


async def test_a_cancelled_job_cancels_the_jobs_that_its_handler_waits_for() -> None:
    """J9, J5: from the inside out."""
    ended: list[str] = []

    class Link(Helper):
        def __init__(self, name: str, next_name: str | None) -> None:
            super().__init__(name)
            self.next_name = next_name

        @job(name="pass on")
        async def pass_on(self, message: BusJobRequestMessage) -> None:
            try:
                if self.next_name is None:
                    await self.wait_for_release(message)
                else:
                    await self.job(self.next_name, name="pass on")
            finally:
                ended.append(self.name)

    links = [Link("a", "b"), Link("b", "c"), Link("c", None)]
    async with running(*links) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "a", "pass on")
        await links[2].begun.wait()
        await raw.cancel("job", "a")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        assert ended == ["c", "b", "a"]


async def test_a_deferred_job_can_be_cancelled() -> None:
    """J9, J2: when its handler has returned long ago."""

    async def nothing(worker: Doing, message: BusJobRequestMessage) -> None:
        pass

    doing = Doing("doing", nothing)
    async with running(doing) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "defer")
        await anyio.wait_all_tasks_blocked()
        await raw.cancel("job", "doing")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        with pytest.raises(RuntimeError):
            await doing.send_job_response("job", {})


async def test_a_handler_may_cancel_its_own_job() -> None:
    """J9, J2: it ends at its next checkpoint, or by returning; the outcome is CANCELLED."""

    async def gives_up(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        await worker.bus.send(BusJobCancelMessage(message.job_id, source=worker.name, target=worker.name))
        return {"too": "late"}

    async with running(Doing("doing", gives_up)) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(3):  # in a task that is used again, if it is
            await raw.ask(f"job {number}", "doing", "do")
            assert (await raw.answer(f"job {number}"))[0] == JobStatus.CANCELLED


# --- J12: strangers and duplicates


def of_every_kind(job_id: str, source: str, target: str = "asker") -> list[BusMessage]:
    return [
        BusJobUpdateMessage(job_id, {}, source=source, target=target),
        BusJobUpdateUrgentMessage(job_id, {}, source=source, target=target),
        BusJobStreamStartMessage(job_id, {}, source=source, target=target),
        BusJobStreamDataMessage(job_id, {}, source=source, target=target),
        BusJobStreamEndMessage(job_id, {}, source=source, target=target),
        BusJobResponseMessage(job_id, JobStatus.COMPLETED, {"from": source}, source=source, target=target),
        BusJobResponseUrgentMessage(job_id, JobStatus.ERROR, {"from": source}, source=source, target=target),
    ]


async def test_what_strangers_send_is_ignored_and_counted() -> None:
    """J12: answers, updates and stream events of every kind."""
    asker, helper = Listener("asker"), Helper("helper")
    async with running(asker, helper, Helper("stranger")) as runner:
        async with asker.job("helper", name="wait") as asked:
            await helper.begun.wait()
            before = asker.statistics().ignored
            for message in of_every_kind(asked.job_id, "stranger"):
                await runner.bus.send(message)
            assert asker.statistics().ignored == before + 7
            helper.release.set()
            assert [event async for event in asked] == []
        assert asked.response == {"released": True}
        await asker.until("completed")
        assert [hook for hook, _ in asker.heard] == ["response", "completed"]


async def test_what_is_sent_for_a_job_that_nobody_asked_for_is_ignored_and_counted() -> None:
    """J12: the same, for a group that never was, and for one that is no more."""
    asker = Listener("asker")
    async with running(asker, Helper("helper")) as runner:
        async with asker.job("helper", name="echo") as asked:
            pass
        await asker.until("completed")
        heard = list(asker.heard)
        for job_id in ("nonsense", asked.job_id):
            before = asker.statistics().ignored
            for message in of_every_kind(job_id, "helper"):
                await runner.bus.send(message)
            assert asker.statistics().ignored == before + 7
        await anyio.wait_all_tasks_blocked()
        assert asker.heard == heard


async def test_a_worker_that_has_not_been_asked_yet_is_a_stranger() -> None:
    """J12: of a group whose other worker is still waited for."""
    asker, helper = Listener("asker"), Helper("helper")
    async with running(asker, helper) as runner, anyio.create_task_group() as group:
        responses: dict[str, dict[str, Any]] = {}

        async def ask() -> None:
            responses.update(await asker.job_group("helper", "second", name="echo"))

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        (job_id,) = asker.job_groups
        await runner.bus.send(of_every_kind(job_id, "helper")[5])
        await runner.add_workers(Helper("second"))
        await asker.until("completed")
    assert responses["helper"] == {"worker": "helper", "payload": None}


async def test_a_group_that_names_a_worker_twice_is_refused() -> None:
    """J12: a `ValueError`, and nobody is asked."""
    asker, helper = Helper("asker"), Helper("helper")
    async with running(asker, helper) as runner:
        for group in (asker.job_group, runner.job_group):
            with pytest.raises(ValueError, match="'helper'"):
                group("helper", "asker", "helper", name="echo")
        with pytest.raises(ValueError, match="'helper'"):
            await asker.request_job_group("helper", "helper", name="echo")
        with pytest.raises(ValueError, match="'helper'"):
            await asker.create_job_group_and_request_job(["helper", "helper"], name="echo")
        assert helper.calls == []
        assert asker.job_groups == {}


async def test_a_group_of_none_completes_at_once() -> None:
    """J12: with and without a context."""
    asker = Helper("asker")
    async with running(asker):
        async with asker.job_group(timeout=10) as group:
            assert [event async for event in group] == []
        assert group.responses == {}
        waited = await asker.create_job_group_and_request_job([])
        await waited.wait()
        assert asker.job_groups == {}


@pytest.mark.parametrize("name", ["wait", "echo", "fail", "paint"])
async def test_a_duplicated_request_runs_once(name: str) -> None:
    """J12: while its job is open, and after it has ended; it has one answer, and the duplicates are counted."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", name)
        await raw.ask("job", "helper", name)
        await anyio.wait_all_tasks_blocked()
        await raw.ask("job", "helper", name)
        helper.release.set()
        await raw.answer("job")
        await raw.ask("job", "helper", name)
        await anyio.wait_all_tasks_blocked()
        assert helper.calls == (["job"] if name in ("wait", "echo") else [])
        assert len(raw.answers("job")) == 1
        assert helper.statistics().ignored == 3


async def test_a_duplicate_of_a_cancelled_request_does_not_run() -> None:
    """J12: its job has ended, too."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "wait")
        await helper.begun.wait()
        await raw.cancel("job", "helper")
        await raw.answer("job")
        await raw.ask("job", "helper", "wait")
        await anyio.wait_all_tasks_blocked()
        assert helper.calls == ["job"]
        assert len(raw.answers("job")) == 1


async def test_a_worker_knows_its_last_1024_jobs() -> None:
    """J12: a duplicate of the oldest of them does not run, and neither does that of an open job that is older."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("open", "helper", "wait")
        for number in range(1024):
            await raw.ask(f"job {number}", "helper", "echo")
        await raw.answer("job 1023")
        before = len(helper.calls)
        await raw.ask("open", "helper", "wait")
        await raw.ask("job 0", "helper", "echo")
        await raw.ask("job 1", "helper", "echo")
        await anyio.wait_all_tasks_blocked()
        assert len(helper.calls) == before == 1025
        helper.release.set()
        await raw.answer("open")


async def test_a_job_id_means_another_job_at_another_worker() -> None:
    """J12: the members of a group share it."""
    one, two = Helper("one"), Helper("two")
    async with running(one, two) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "one", "echo")
        await raw.ask("job", "two", "echo")
        await anyio.wait_all_tasks_blocked()
        assert len(raw.answers("job")) == 2


async def test_a_worker_may_ask_itself() -> None:
    """J12: it is a member of its own group, and answers as any other."""
    helper = Helper("helper")
    async with running(helper):
        assert (await helper.job("helper", name="echo"))["worker"] == "helper"


async def test_what_a_worker_sends_after_its_answer_is_ignored_and_counted() -> None:
    """J12, J7: even while others are still waited for."""
    asker, helper = Listener("asker"), Helper("helper")
    async with running(asker, helper) as runner:
        ghost = await Raw.on(runner.bus, "ghost")
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="ghost"))
        async with asker.job_group("ghost", "helper", name="wait") as group:
            await helper.begun.wait()
            answer = BusJobResponseMessage(group.job_id, JobStatus.COMPLETED, {"n": 1}, source="ghost", target="asker")
            await runner.bus.send(answer)
            before = asker.statistics().ignored
            for message in of_every_kind(group.job_id, "ghost"):
                await runner.bus.send(message)
            assert asker.statistics().ignored == before + 7
            helper.release.set()
        assert group.responses["ghost"] == {"n": 1}
        assert len(ghost.of(BusJobRequestMessage)) == 2


@pytest.mark.parametrize("size", [1, 3])
async def test_cancels_pass_a_full_lane(size: int) -> None:
    """J9, B9: they are system messages, and find the job that runs."""
    release = anyio.Event()

    class Busy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if not message.system:
                await release.wait()

    busy = Busy("busy")
    async with running(busy, bus=MemoryBus(max_buffer_size=size)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "busy", "wait")
        await busy.begun.wait()
        for number in range(size):
            await raw.ask(f"job {number}", "busy", "echo")
        await raw.cancel("job", "busy")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        release.set()


async def test_a_runner_ignores_and_survives_what_strangers_send() -> None:
    """J12, R7: a runner asks for jobs as well."""
    helper = Helper("helper")
    async with running(helper, BaseWorker("stranger")) as runner:
        async with runner.job("helper", name="wait") as asked:
            for message in of_every_kind(asked.job_id, "stranger", runner.name):
                await runner.bus.send(message)
            helper.release.set()
        assert asked.response == {"released": True}
