"""W4: what an inactive worker takes, and what it does not."""

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.agents import Agent, activation
from support.conditions import eventually
from support.messages import alarm, note
from support.requesters import Raw
from support.workers import Helper, running
from workerbus import (
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusFrameMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    JobGroupResponse,
    JobStatus,
    WorkerErrorData,
    job,
)


def deactivation(target: str) -> BusDeactivateWorkerMessage:
    return BusDeactivateWorkerMessage(source="test", target=target)


async def test_an_inactive_worker_answers_a_request_failed_at_once() -> None:
    """W4"""
    worker = Agent("w", active=False)
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "echo")
        assert await raw.answer("1") == (JobStatus.FAILED, {"error": "worker 'w' is inactive", "type": "Inactive"})
    assert worker.calls == []


@pytest.mark.parametrize("target", ["w", None])
async def test_an_inactive_worker_takes_no_messages_of_the_program(target: str | None) -> None:
    """W4"""
    worker = Agent("w", active=False)
    async with running(worker) as runner:
        for n, active in enumerate([False, True, False]):
            await runner.bus.send(activation("w") if active else deactivation("w"))
            await runner.bus.send(note(n, target))
            await runner.bus.send(alarm(10 + n, target))
            await runner.bus.send(BusFrameMessage(f"frame {n}", None, source="test", target=target))
            await anyio.wait_all_tasks_blocked()
    assert sorted(map(str, worker.log)) == sorted(map(str, [("activated", None), 1, 11, "frame 1", "deactivated"]))


async def test_a_job_under_way_goes_on_when_its_worker_is_deactivated() -> None:
    """W4: with its updates, update requests and its answer"""

    class Telling(Agent):
        async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
            await self.send_job_update(message.job_id, {"active": self.active})

    worker = Telling("w")
    async with running(worker) as runner:
        async with runner.job("w", name="wait") as wait:
            await worker.begun.wait()
            await runner.bus.send(deactivation("w"))
            await runner.bus.send(BusJobUpdateRequestMessage(wait.job_id, source=runner.name, target="w"))
            async for event in wait:
                assert event.data == {"active": False}
                worker.release.set()
        assert wait.response == {"released": True}


async def test_a_job_under_way_can_be_cancelled_at_an_inactive_worker() -> None:
    """W4"""

    class Cancelled(Agent):
        async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
            self.heard(message.reason)

    worker = Cancelled("w")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await worker.begun.wait()
        await runner.bus.send(deactivation("w"))
        await raw.cancel("1", "w", "enough")
        assert (await raw.answer("1"))[0] is JobStatus.CANCELLED
        await eventually(lambda: "enough" in worker.log)


async def test_a_job_that_waits_in_line_runs_though_its_worker_was_deactivated() -> None:
    """W4: what counts is when the request was handled"""

    class Lining(Agent):
        @job(name="line", sequential=True)
        async def line(self, message: BusJobRequestMessage) -> None:
            self.calls.append(message.job_id)
            await self.release.wait()

    worker = Lining("w")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "line")
        await raw.ask("2", "w", "line")
        await runner.bus.send(deactivation("w"))
        await raw.ask("3", "w", "line")
        assert (await raw.answer("3"))[0] is JobStatus.FAILED
        worker.release.set()
        assert (await raw.answer("2"))[0] is JobStatus.COMPLETED
    assert worker.calls == ["1", "2"]


@pytest.mark.parametrize("active", [True, False])
async def test_an_inactive_worker_takes_the_answers_to_what_it_asked_for(active: bool) -> None:
    """W4"""

    class Asking(Agent):
        async def on_job_response(self, message: BusMessage) -> None:
            self.heard("response")

        async def on_job_completed(self, result: JobGroupResponse) -> None:
            self.heard(result.responses)

    worker, peer = Asking("w", active=active), Helper("peer")
    async with running(worker, peer) as runner:
        await worker.request_job("peer", name="wait")
        await peer.begun.wait()
        await runner.bus.send(deactivation("w"))
        peer.release.set()
        await eventually(lambda: {"peer": {"released": True}} in worker.log)
        assert (await worker.job("peer", name="echo"))["worker"] == "peer"
    assert "response" in worker.log


async def test_an_inactive_worker_hears_of_its_children_s_errors() -> None:
    """W4"""

    class Parent(Agent):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            self.heard(data)

    parent, child = Parent("parent", active=False), Helper("child")
    async with running(parent):
        await parent.add_workers(child)
        await child.send_bus_error_message("broken")
        await eventually(lambda: parent.log)
    assert parent.log == [WorkerErrorData("child", "broken")]


@pytest.mark.parametrize("kind", [BusEndWorkerMessage, BusCancelWorkerMessage])
async def test_an_inactive_worker_can_be_ended(kind: type[BusEndWorkerMessage | BusCancelWorkerMessage]) -> None:
    """W4"""
    worker = Agent("w", active=False)
    async with running(worker) as runner:
        await runner.bus.send(kind(source="test", target="w"))
        await worker.wait()


async def test_a_hook_may_see_a_later_state_than_the_one_that_counted() -> None:
    """W4"""
    worker = Agent("w")
    worker.watched = [worker]
    async with running(worker) as runner:
        await eventually(lambda: worker.log)
        await runner.bus.send(note(1, "w"))
        await runner.bus.send(deactivation("w"))
        await runner.bus.send(note(2, "w"))
        await eventually(lambda: len(worker.log) == 3)
    assert worker.log == [("activated", None), 1, "deactivated"]
    assert worker.seen[1:] == [[False], [False]]


class ChoosyAgent(Agent):
    """The same by another way: its messages go through `accepts_bus_message`."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


@pytest.mark.parametrize("kind", [Agent, ChoosyAgent])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["activate", "deactivate", "note", "job"]), max_size=12), active=st.booleans())
def test_each_message_meets_the_state_that_those_before_it_made(
    backend: str, kind: type[Agent], steps: list[str], active: bool
) -> None:
    """W4"""

    async def main() -> None:
        worker, state = kind("w", active=active), active
        expected: list[object] = []
        statuses: dict[str, JobStatus] = {}
        async with running(worker) as runner:
            raw = await Raw.on(runner.bus)
            for n, step in enumerate(steps):
                if step == "activate":
                    await runner.bus.send(activation("w", {"n": n}))
                    expected.append(("activated", {"n": n}))
                    state = True
                elif step == "deactivate":
                    await runner.bus.send(deactivation("w"))
                    expected.extend(["deactivated"] * state)
                    state = False
                elif step == "note":
                    await runner.bus.send(note(n, "w"))
                    expected.extend([n] * state)
                else:
                    await raw.ask(str(n), "w", "echo")
                    statuses[str(n)] = JobStatus.COMPLETED if state else JobStatus.FAILED
            outcomes = {job_id: (await raw.answer(job_id))[0] for job_id in statuses}
            await runner.bus.send(activation("w", {"n": "last"}))
            await eventually(lambda: worker.log[-1:] == [("activated", {"n": "last"})])
        assert worker.log[:-1] == [("activated", None)] * active + expected
        assert outcomes == statuses

    clock.run(main, backend=backend, limit=5)
