"""J12: what strangers send, what comes twice, and what comes after the answer."""

from typing import Any

import anyio
import pytest

from support.job_handlers import at_once, never
from support.requesters import Listener, Raw
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
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
)
from workerbus.jobs._job_table import REMEMBERED
from workerbus.testing import settle


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
    assert responses["helper"] == {"worker": "helper", "payload": {}}


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


async def test_a_runner_ignores_and_survives_what_strangers_send() -> None:
    """J12, R7: a runner asks for jobs as well."""
    helper = Helper("helper")
    async with running(helper, BaseWorker("stranger")) as runner:
        async with runner.job("helper", name="wait") as asked:
            for message in of_every_kind(asked.job_id, "stranger", runner.name):
                await runner.bus.send(message)
            helper.release.set()
        assert asked.response == {"released": True}


async def test_a_second_answer_is_ignored_and_counted() -> None:
    """J7, J12"""
    asking = Listener("asking")
    async with running(asking, Doing("once", at_once), Doing("waits", never)) as runner:
        job_id = await asking.request_job_group("once", "waits", name="do")
        await asking.until("response")
        before = asking.statistics().ignored
        await runner.bus.send(BusJobResponseMessage(job_id, JobStatus.ERROR, {}, source="once", target="asking"))
        await settle()
        assert asking.statistics().ignored == before + 1


async def test_an_answer_to_everybody_is_none_to_the_runner() -> None:
    """J12: it was not sent to who asked."""
    helper = Helper("helper")
    async with running(helper) as runner, runner.job("helper", name="wait") as context:
        await helper.begun.wait()
        await runner.bus.send(BusJobResponseMessage(context.job_id, JobStatus.FAILED, {}, source="helper"))
        await settle()
        assert context.statuses == {}
        helper.release.set()
    assert context.response == {"released": True}


async def test_exactly_the_last_1024_jobs_are_remembered() -> None:
    """J12: no fewer, and no more."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(REMEMBERED):
            await raw.ask(f"job {number}", "helper", "of another worker")
        await raw.ask("job 0", "helper", "of another worker")
        assert helper.statistics().ignored == 1
        await raw.ask("one more", "helper", "of another worker")
        await raw.ask("job 1", "helper", "of another worker")
        assert helper.statistics().ignored == 2
        await raw.ask("job 0", "helper", "of another worker")
        assert helper.statistics().ignored == 2
        await raw.settle()
        assert [len(raw.answers(f"job {number}")) for number in (0, 1)] == [2, 1]
