"""J16, J21: the hooks of a requester: updates, responses, completion."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.conditions import eventually
from support.contexts import ghost
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusMessage,
    JobGroupError,
    JobGroupResponse,
    JobStatus,
    job,
)
from workerbus.testing import settle


async def test_a_group_completes_once_after_every_response() -> None:
    """J16: `on_job_completed` comes last, with all answers."""
    asker = Listener("asker")
    async with running(asker, *(Helper(f"w{n}") for n in range(5))):
        job_id = await asker.request_job_group(*(f"w{n}" for n in range(5)), name="echo")
        result = await asker.until("completed")
        await anyio.wait_all_tasks_blocked()
    assert isinstance(result, JobGroupResponse)
    assert result.job_id == job_id
    assert result.responses.keys() == {f"w{n}" for n in range(5)}
    assert set(result.statuses.values()) == {JobStatus.COMPLETED}
    assert [name for name, _ in asker.heard] == ["response"] * 5 + ["completed"]


@pytest.mark.parametrize("urgent", [(True, False), (False, True), (True, True)])
async def test_urgent_answers_do_not_overtake_the_completion(urgent: tuple[bool, bool]) -> None:
    """J16: whatever the lanes of the answers, and however slow the hooks."""
    asker = Listener("asker")
    asker.gate = anyio.Event()
    async with running(asker) as runner, ghost(runner, "one", "two"):
        job_id = await asker.request_job_group("one", "two")
        for name, is_urgent in zip(("one", "two"), urgent, strict=True):
            kind = BusJobResponseUrgentMessage if is_urgent else BusJobResponseMessage
            await runner.bus.send(kind(job_id, JobStatus.COMPLETED, {}, source=name, target="asker"))
        await anyio.wait_all_tasks_blocked()
        assert asker.heard == []
        asker.gate.set()
        await asker.until("completed")
    assert [name for name, _ in asker.heard] == ["response", "response", "completed"]


async def test_an_urgent_last_answer_does_not_complete_a_group_before_a_slow_hook_of_it() -> None:
    """J16, W8: it does not wait for that hook itself."""
    gate, heard = anyio.Event(), list[str]()

    class Asker(Helper):
        async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
            if message.source == "one":
                await gate.wait()
            heard.append(message.source)

        async def on_job_completed(self, result: JobGroupResponse) -> None:
            heard.append("completed")

    asker = Asker("asker")
    async with running(asker) as runner, ghost(runner, "one", "two"):
        job_id = await asker.request_job_group("one", "two")
        for name, kind in (("one", BusJobResponseMessage), ("two", BusJobResponseUrgentMessage)):
            await runner.bus.send(kind(job_id, JobStatus.COMPLETED, {}, source=name, target="asker"))
        await settle()
        assert heard == ["two"]
        gate.set()
        await settle()
    assert heard == ["two", "one", "completed"]


async def test_a_cancelled_group_never_completes() -> None:
    """J16: even if all its workers answer."""
    asker, helper = Listener("asker"), Helper("helper")
    async with running(asker, helper) as runner:
        raw = await Raw.on(runner.bus)
        job_id = await asker.request_job("helper", name="wait")
        await asker.cancel_job_group(job_id)
        await raw.until(1, BusJobCancelMessage)
        await raw.answer(job_id)
        await anyio.wait_all_tasks_blocked()
        assert "completed" not in [name for name, _ in asker.heard]
        assert asker.job_groups == {}


@pytest.mark.parametrize("in_context", [False, True])
async def test_a_group_that_failed_never_completes_but_has_its_error_told(in_context: bool) -> None:
    """J16: `on_job_error` comes once, behind the responses."""
    asker = Listener("asker")
    async with running(asker, Helper("one"), Helper("two")):
        if in_context:
            with pytest.raises(JobGroupError):
                await asker.job_group("one", "two", name="fail")
        else:
            await asker.request_job_group("one", "two", name="fail")
        await asker.until("error")
        await anyio.wait_all_tasks_blocked()
    names = [name for name, _ in asker.heard]
    assert names[-1] == "error"
    assert set(names[:-1]) == {"response"}


async def test_a_group_without_cancel_on_error_completes_with_its_errors() -> None:
    """J16, J11: and no error is told."""
    asker = Listener("asker")
    async with running(asker, Helper("helper")):
        await asker.request_job_group("helper", name="fail", cancel_on_error=False)
        result = await asker.until("completed")
        assert result.statuses == {"helper": JobStatus.ERROR}
        assert [name for name, _ in asker.heard] == ["response", "completed"]


async def test_a_context_does_not_wait_for_hooks() -> None:
    """J16: it may be left before they have run."""
    asker = Listener("asker")
    asker.gate = anyio.Event()
    async with running(asker, Helper("helper")):
        assert (await asker.job("helper", name="echo"))["worker"] == "helper"
        assert asker.heard == []
        asker.gate.set()
        await asker.until("completed")
    assert [name for name, _ in asker.heard] == ["response", "completed"]


async def test_a_group_of_none_has_its_completion_told() -> None:
    """J16, J12: it completes at once."""
    asker = Listener("asker")
    async with running(asker):
        await asker.request_job_group()
        result = await asker.until("completed")
    assert result.responses == {}


async def test_a_hook_may_ask_for_jobs_while_its_groups_complete() -> None:
    """J16: nothing that a hook awaits holds up the answers."""
    done = anyio.Event()

    class Chain(BaseWorker):
        async def on_job_completed(self, result: JobGroupResponse) -> None:
            self.links: deque[JobGroupResponse]
            self.links.append(result)
            if len(self.links) == 1:
                await self.job("helper", name="echo")
            else:
                done.set()

    chain = Chain("chain")
    chain.links = deque()
    async with running(chain, Helper("helper")):
        await chain.request_job("helper", name="echo")
        await done.wait()
    assert len(chain.links) == 2


async def test_an_urgent_update_overtakes_the_hooks_of_others() -> None:
    """W8, J7: its hook runs in the system lane."""
    listener = Listener()
    listener.gate = anyio.Event()

    async def talks(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"n": 1})
        await worker.send_job_update(message.job_id, {"n": 2})
        await worker.send_job_update(message.job_id, {"n": 3}, urgent=True)

    async with running(Doing("doing", talks), listener):
        async with listener.job("doing", name="do"):
            await anyio.wait_all_tasks_blocked()
            listener.gate.set()
        await anyio.wait_all_tasks_blocked()
        updates = [message.update["n"] for hook, message in listener.heard if hook == "update"]
    assert updates.index(3) < updates.index(2)


@pytest.mark.parametrize("hook", ["on_job_response", "on_job_completed"])
async def test_the_hooks_of_an_urgent_answer_do_not_wait_for_other_hooks(hook: str) -> None:
    """W8: they are those of a system message, whatever waits in the data lane."""
    gate, told = anyio.Event(), anyio.Event()

    class Held(Helper):
        async def on_job_update(self, message: BusMessage) -> None:
            await gate.wait()

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id, {"n": 1})
        await worker.send_job_response(message.job_id, {"n": 2}, urgent=True)

    async def tell(worker: Held, about: object) -> None:
        told.set()

    held: Held = type("Told", (Held,), {hook: tell})("held")
    async with running(Doing("doing", answers), held):
        await held.request_job("doing", name="do")
        await told.wait()
        assert not gate.is_set()
        gate.set()


async def test_an_answer_after_the_outcome_is_told_to_no_hook() -> None:
    """J7, J16: the group has failed, and the others are only waited for."""
    begun = anyio.Event()

    async def late(worker: Doing, message: BusJobRequestMessage) -> None:
        begun.set()
        await anyio.sleep_forever()

    async def fails(worker: Doing, message: BusJobRequestMessage) -> None:
        await begun.wait()
        raise ValueError("oh")

    listener = Listener()
    async with running(Doing("late", late), Doing("failing", fails), listener):
        group = await listener.create_job_group_and_request_job(["late", "failing"], name="do")
        await listener.until("error")
        await anyio.wait_all_tasks_blocked()
        told = [(hook, message.source) for hook, message in listener.heard]
        assert group.statuses == {"failing": JobStatus.ERROR, "late": JobStatus.CANCELLED}
    assert told == [("response", "failing"), ("error", "failing")]


@pytest.mark.parametrize("hook", ["on_job_response", "on_job_update", "on_job_stream_start", "on_job_stream_data"])
async def test_a_failing_hook_of_a_job_is_logged_with_the_job(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    """W7."""
    asker = Helper("asker")

    def fail(*_: object) -> None:
        raise ValueError("oh")

    asker.add_event_handler(hook, fail)

    async def talks(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id)
        await worker.send_job_stream_start(message.job_id)
        await worker.send_job_stream_data(message.job_id)

    async with running(Doing("doing", talks), asker):
        job_id = await asker.request_job("doing", name="do")
        await anyio.wait_all_tasks_blocked()
    assert caplog.messages == [f"{hook} of worker 'asker' failed (job {job_id})"]


quickly = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Asker(BaseWorker):
    """Its hooks about jobs take some steps each; the data lane is held up until ``gate`` is set."""

    def __init__(self, steps: list[int]) -> None:
        super().__init__("asker")
        self.steps = steps
        self.gate = anyio.Event()
        self.log: list[str] = []

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await self.gate.wait()

    async def hear(self, what: str) -> None:
        for _ in range(self.steps[len(self.log) % len(self.steps)]):
            await checkpoint()
        self.log.append(what)
        if self.steps[0] == 0:
            raise ValueError(what)

    async def on_job_response(self, message: Any) -> None:
        await self.hear(message.source)

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        await self.hear("completed")

    async def on_job_error(self, message: Any) -> None:
        await self.hear("error")


class Answering(BaseWorker):
    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        """Answered from outside."""


answers_of_a_group = st.lists(
    st.tuples(st.booleans(), st.sampled_from([JobStatus.COMPLETED, JobStatus.COMPLETED, JobStatus.FAILED])),
    min_size=1,
    max_size=5,
)


@quickly
@given(
    answers=answers_of_a_group,
    steps=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    cancel_on_error=st.booleans(),
    pause=st.booleans(),
)
def test_the_last_hook_of_a_group_comes_behind_its_responses(
    backend: str, answers: list[tuple[bool, JobStatus]], steps: list[int], cancel_on_error: bool, pause: bool
) -> None:
    """W8, J16: urgent answers and normal ones mixed, while the data lane is held up; hooks that raise too"""

    async def main() -> None:
        asker, workers = Asker(steps), [Answering(f"w{n}") for n in range(len(answers))]
        expected: list[str] = []
        async with running(asker, *workers):
            job_id = await asker.request_job_group(
                *(worker.name for worker in workers), name="later", cancel_on_error=cancel_on_error
            )
            bad = False
            for worker, (urgent, status) in zip(workers, answers, strict=True):
                if job_id in worker.active_jobs and not bad:
                    expected.append(worker.name)
                    await worker.send_job_response(job_id, status=status, urgent=urgent)
                    bad = cancel_on_error and status is not JobStatus.COMPLETED
                if pause:
                    await checkpoint()
            await anyio.wait_all_tasks_blocked() if backend == "trio" else await checkpoint()
            assert not {"completed", "error"} & set(asker.log) or all(urgent for urgent, _ in answers[: len(expected)])
            asker.gate.set()
            await eventually(lambda: len(asker.log) > len(expected))
        assert sorted(asker.log[:-1]) == expected
        assert asker.log[-1] == ("error" if bad else "completed")

    clock.run(main, backend=backend, limit=5)


async def test_a_context_may_be_left_before_its_hooks_have_run() -> None:
    """J16, W8"""
    asker = Asker([1])
    async with running(asker, Helper("peer")):
        await asker.job("peer", name="echo")
        assert asker.log == []
        asker.gate.set()
        await eventually(lambda: len(asker.log) == 2)
    assert asker.log == ["peer", "completed"]


class Slow(Helper):
    """Waits in `on_job_response` for ``gate``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.told = anyio.Event()
        self.gate = anyio.Event()
        self.completed: list[JobGroupResponse] = []

    async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        self.told.set()
        await self.gate.wait()

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        self.completed.append(result)


async def test_a_completion_that_waits_for_its_responses_is_told_though_an_end_has_come() -> None:
    """R2, J16: the job was over before the end came."""
    requester = Slow("requester")
    async with running(requester, Helper("helper")) as runner:
        await requester.request_job("helper", name="echo")
        await requester.told.wait()
        await settle()
        await runner.end()
        await settle()
        requester.gate.set()
    assert len(requester.completed) == 1


async def test_a_group_is_accounted_for_though_its_hooks_raise() -> None:
    """W7"""
    completed: list[JobGroupResponse] = []

    class Asking(Helper):
        async def on_job_response(self, message: BusMessage) -> None:
            raise ValueError("boom")

        async def on_job_completed(self, result: JobGroupResponse) -> None:
            completed.append(result)

    worker = Asking("w")
    async with running(worker, Helper("one"), Helper("two")):
        group = await worker.create_job_group_and_request_job(["one", "two"], name="echo")
        await group.wait()
        await eventually(lambda: completed)
        assert worker.job_groups == {}
    assert completed[0].statuses == {"one": JobStatus.COMPLETED, "two": JobStatus.COMPLETED}


@pytest.mark.parametrize("backend", ["asyncio"])
async def test_a_group_is_accounted_for_though_a_hook_awaits_something_cancelled() -> None:
    """W7, J16"""
    completed: list[JobGroupResponse] = []

    class Asking(Helper):
        async def on_job_response(self, message: BusMessage) -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        async def on_job_completed(self, result: JobGroupResponse) -> None:
            completed.append(result)

    worker, heard = Asking("w"), list[BusMessage]()
    worker.add_event_handler("on_job_response", lambda _, message: heard.append(message))
    async with running(worker, Helper("one"), Helper("two"), grace_period=0.1):
        await worker.request_job_group("one", "two", name="echo")
        await anyio.wait_all_tasks_blocked()
        assert len(completed) == 1
        assert len(heard) == 2


async def test_the_hook_of_a_cancel_does_not_wait_for_those_of_data_messages() -> None:
    """W8: a cancel is a system message."""
    gate, waits, cancelled = anyio.Event(), anyio.Event(), anyio.Event()

    class Slow(Helper):
        async def on_job_update(self, message: Any) -> None:
            waits.set()
            await gate.wait()

        async def on_job_cancelled(self, message: Any) -> None:
            cancelled.set()

    async def tells(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_update(message.job_id)

    slow = Slow("slow")
    async with running(slow, Doing("doing", tells)) as runner:
        raw = await Raw.on(runner.bus)
        await slow.request_job("doing", name="do")
        await waits.wait()
        await raw.ask("job", "slow", "wait")
        await slow.begun.wait()
        await raw.cancel("job", "slow")
        await cancelled.wait()
        gate.set()


@pytest.mark.parametrize("urgent", [False, True])
async def test_a_bad_answer_is_told_to_the_hook_and_what_fails_there_is_logged_with_the_job(
    urgent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """W7, J8."""

    class Failing(Listener):
        async def on_job_error(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
            await super().on_job_error(message)
            raise ValueError("oh")

    async def answers(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {"n": 1}, status=JobStatus.FAILED, urgent=urgent)

    listener = Failing()
    kind = BusJobResponseUrgentMessage if urgent else BusJobResponseMessage
    async with running(Doing("doing", answers), listener):
        job_id = await listener.request_job("doing", name="do")
        message = await listener.until("error")
    assert message == kind(job_id, JobStatus.FAILED, {"n": 1}, source="doing", target="listener")
    assert f"on_job_error of worker 'listener' failed (job {job_id})" in caplog.messages


@pytest.mark.parametrize("politely", [False, True])
@pytest.mark.parametrize("in_context", [False, True])
async def test_the_answers_of_cancelled_workers_are_told_when_they_have_unwound(
    in_context: bool, politely: bool
) -> None:
    """J21: each once, CANCELLED, in the order in which they unwind; the group does not complete, and has no error."""
    gates = {"slow": anyio.Event(), "quick": anyio.Event()}

    async def unwind(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await gates[worker.name].wait()

    asker = Listener("asker")

    async def ask(group: TaskGroup) -> str:
        if not in_context:
            return await asker.request_job_group(*gates, name="do", label="research")
        ids: list[str] = []
        entered = anyio.Event()

        async def hold() -> None:
            with suppress(JobGroupError):
                async with asker.job_group(*gates, name="do") as context:
                    ids.append(context.job_id)
                    entered.set()
                    await anyio.sleep_forever()

        group.start_soon(hold)
        await entered.wait()
        return ids[0]

    async with running(*(Doing(name, unwind) for name in gates), asker), anyio.create_task_group() as group:
        job_id = await ask(group)
        await anyio.wait_all_tasks_blocked()
        if politely:
            assert await asker.request_cancel_job_group(job_id)
        else:
            await asker.cancel_job_group(job_id)
        await asker.cancel_job_group(job_id)  # once more, which changes nothing
        await anyio.wait_all_tasks_blocked()
        assert asker.heard == []
        for name in ("quick", "slow"):
            gates[name].set()
            await anyio.wait_all_tasks_blocked()
            hook, message = asker.heard[-1]
            assert (hook, message.source, message.status) == ("response", name, JobStatus.CANCELLED)
        assert len(asker.heard) == 2
        assert asker.statistics().job_groups == 0


async def test_a_cancelled_worker_that_crashes_or_answers_all_the_same_is_told_of_too() -> None:
    """J21, J4: whatever becomes of it, one knows that nothing of the job runs any more."""

    async def crash(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await worker.stop()

    async def answer(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        with anyio.CancelScope(shield=True):
            await asker.until("response")
        return {"done": True}

    asker = Listener("asker")
    async with running(Doing("crashes", crash), Doing("answers", answer), asker):
        job_id = await asker.request_job_group("crashes", "answers", name="do")
        await anyio.wait_all_tasks_blocked()
        await asker.cancel_job_group(job_id)
        await anyio.wait_all_tasks_blocked()
    told = {message.source: message.status for hook, message in asker.heard if hook == "response"}
    assert told == {"crashes": JobStatus.CANCELLED, "answers": JobStatus.CANCELLED}
    assert {hook for hook, _ in asker.heard} == {"response"}


async def test_of_a_group_that_has_failed_or_timed_out_the_late_answers_are_not_told() -> None:
    """J16: `on_job_error` is the last that one hears of it."""

    async def wait(worker: Doing, message: BusJobRequestMessage) -> None:
        if worker.name == "fails":
            raise ValueError("it went wrong")
        await anyio.sleep_forever()

    asker = Listener("asker")
    async with running(Doing("waits", wait), Doing("fails", wait), asker):
        await asker.request_job_group("waits", "fails", name="do")
        await asker.until("error")
        await anyio.wait_all_tasks_blocked()
        assert [(hook, message.source) for hook, message in asker.heard] == [("response", "fails"), ("error", "fails")]
