"""W8: when hooks run, and what they may do."""

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.conditions import eventually
from support.hooks import HOOKS, Peer, provoke, with_hook
from support.messages import Alarm, Note, alarm, note
from support.requesters import Raw
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusDeactivateWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusMessage,
    JobStatus,
    WorkerReadyData,
    job,
    worker_ready,
)
from workerbus.testing import settle

quickly = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("form", ["method", "handler"])
@pytest.mark.parametrize("asked", ["peer", "subject"])
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_may_await_a_job(hook: str, asked: str, form: str) -> None:
    """W8: of another worker, and of the very worker whose hook it is"""
    answers: list[str] = []

    async def ask(worker: BaseWorker, *args: Any) -> None:
        if len(answers) < 3:
            answers.append("asked")
            if not worker.active and asked == "subject":
                await worker.activate_worker("subject")
                await eventually(lambda: worker.active)
            answers.append((await worker.job(asked, name="echo"))["worker"])

    subject, peer = with_hook(hook, ask, form=form, active=hook != "on_activated"), Peer("peer")
    async with running(subject, peer) as runner:
        await provoke(hook, subject, peer, runner)
        await eventually(lambda: asked in answers)
        subject.release.set()


async def test_the_hook_of_a_system_message_overtakes_hooks_that_never_wait() -> None:
    """B2, W8: all but one of those that are queued."""
    heard: list[BusMessage] = []
    gate, urgent = anyio.Event(), alarm(0, "w")

    class Hearing(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note) and message.n == 0:
                await gate.wait()
            elif isinstance(message, Note) and message.n == 1:
                await self.send_bus_message(urgent)
            heard.append(message)

    notes = [note(n, "w") for n in range(10)]
    async with running(Hearing("w")) as runner:
        for each in notes:
            await runner.bus.send(each)
        await settle()
        gate.set()
        await eventually(lambda: notes[-1] in heard)
    assert heard.index(urgent) <= heard.index(notes[3])


class Choosy(Helper):
    """Its messages go through `accepts_bus_message`, which is another way in."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


@pytest.mark.parametrize("kind", [Helper, Choosy])
@pytest.mark.parametrize("asked", ["peer", "w"])
async def test_the_first_on_activated_may_await_a_job(asked: str, kind: type[Helper]) -> None:
    """W8, W2"""

    class Asking(kind):  # type: ignore[misc, valid-type]  # a base chosen by the parameter
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.calls.append((await self.job(asked, name="echo"))["worker"])

    worker = Asking("w")
    async with running(Helper("peer"), worker):
        await eventually(lambda: asked in worker.calls)


@pytest.mark.parametrize("asked", ["peer", "w"])
async def test_a_ready_handler_may_await_a_job(asked: str) -> None:
    """W8: of the worker that has come, say"""

    class Watching(Helper):
        @worker_ready(name="peer")
        async def met(self, data: WorkerReadyData) -> None:
            self.calls.append((await self.job(asked, name="echo"))["worker"])

    worker = Watching("w")
    async with running(worker) as runner:
        await runner.add_workers(Helper("peer"))
        await eventually(lambda: asked in worker.calls)


async def test_parent_and_child_may_await_each_other_s_jobs_as_they_start() -> None:
    """W8, W5"""

    class Starting(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            if self is parent:
                await self.add_workers(child)
            self.calls.append((await self.job("child" if self is parent else "parent", name="echo"))["worker"])

    parent, child = Starting("parent"), Starting("child")
    async with running(parent):
        await eventually(lambda: "child" in parent.calls and "parent" in child.calls)


async def test_a_job_handler_may_ask_whoever_asked_it() -> None:
    """W8: back and forth, in handlers that all wait"""

    class Counting(BaseWorker):
        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> dict[str, Any]:
            assert message.payload is not None
            left = message.payload["left"]
            if not left:
                return {"depth": 0}
            inner = await self.job(
                message.payload["other"], name="count", payload={"left": left - 1, "other": self.name}
            )
            return {"depth": inner["depth"] + 1}

    async with running(Counting("one"), Counting("two")) as runner:
        assert await runner.job("one", name="count", payload={"left": 50, "other": "two"}) == {"depth": 50}


async def test_a_job_is_answered_though_a_hook_of_the_requester_does_not_return() -> None:
    """W8: answers wait for no hook"""

    class Stuck(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note | Alarm):
                self.begun.set()
                await self.release.wait()

    worker = Stuck("w")
    async with running(worker, Helper("peer")) as runner:
        await runner.bus.send(note(0, "w"))
        await runner.bus.send(alarm(0, "w"))
        await worker.begun.wait()
        assert (await worker.job("peer", name="echo"))["worker"] == "peer"
        assert (await runner.job("w", name="echo"))["worker"] == "w"
        worker.release.set()


class Ordered(Helper):
    """Notes when its hooks begin and end, and how many of a lane ran at once."""

    def __init__(self, name: str = "w") -> None:
        super().__init__(name)
        self.log: list[object] = []
        self.inside = {True: 0, False: 0}
        self.most = 0

    async def hear(self, what: object, *, system: bool) -> None:
        self.inside[system] += 1
        self.most = max(self.most, self.inside[system])
        for _ in range(len(self.log) % 3):
            await checkpoint()
        self.log.append(what)
        self.inside[system] -= 1

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await self.hear(("activated", args), system=False)

    async def on_deactivated(self) -> None:
        await self.hear("deactivated", system=False)

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            await self.hear(message, system=isinstance(message, Alarm))

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        await self.hear(message.job_id, system=True)


class ChoosyOrdered(Choosy, Ordered):
    """The same by the other way."""


@pytest.mark.parametrize("kind", [Ordered, ChoosyOrdered])
@quickly
@given(steps=st.lists(st.sampled_from(["note", "alarm", "activate", "cancel"]), min_size=1, max_size=20))
def test_hooks_run_one_at_a_time_per_lane_in_message_order(backend: str, kind: type[Ordered], steps: list[str]) -> None:
    """W8"""

    async def main() -> None:
        worker = kind()
        data: list[object] = [("activated", None)]
        system: list[object] = []
        async with running(worker) as runner:
            raw = await Raw.on(runner.bus)
            for n, step in enumerate(steps):
                if step == "note":
                    data.append(note(n, "w"))
                    await runner.bus.send(note(n, "w"))
                elif step == "alarm":
                    system.append(alarm(n, "w"))
                    await runner.bus.send(alarm(n, "w"))
                elif step == "activate":
                    data.append(("activated", {"n": n}))
                    await runner.bus.send(BusActivateWorkerMessage({"n": n}, source="test", target="w"))
                else:
                    system.append(str(n))
                    await raw.ask(str(n), "w", "wait")
                    while str(n) not in worker.active_jobs:
                        await checkpoint()
                    await raw.cancel(str(n), "w")
            await eventually(lambda: len(worker.log) == len(data) + len(system))
        assert [entry for entry in worker.log if entry not in system] == data
        assert [entry for entry in worker.log if entry in system] == system
        assert worker.most == 1

    clock.run(main, backend=backend, limit=5)


async def test_on_job_cancelled_does_not_wait_for_on_activated() -> None:
    """W8"""

    class Stuck(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await self.release.wait()

        async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
            self.calls.append("cancelled")

    worker = Stuck("w")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await worker.begun.wait()
        await raw.cancel("1", "w")
        await eventually(lambda: "cancelled" in worker.calls)
        worker.release.set()


async def test_a_suspended_system_hook_holds_no_data_hook_back() -> None:
    """W8, B2"""

    class Stuck(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Alarm):
                await self.release.wait()
            elif isinstance(message, Note):
                self.begun.set()

    worker = Stuck("w")
    async with running(worker) as runner:
        await runner.bus.send(alarm(0, "w"))
        await runner.bus.send(note(0, "w"))
        await worker.begun.wait()
        worker.release.set()


async def test_job_handlers_run_concurrently() -> None:
    """W8: `on_job_request` among them"""

    class Both(Helper):
        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            await self.wait_for_release(message)
            await self.send_job_response(message.job_id)

    worker = Both("w")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        for number, name in enumerate(["wait", "other", "wait", None]):
            await raw.ask(str(number), "w", name)
        await eventually(lambda: len(worker.calls) == 4)
        worker.release.set()
        assert {(await raw.answer(str(number)))[0] for number in range(4)} == {JobStatus.COMPLETED}


async def test_a_hook_that_nobody_overrode_costs_no_task() -> None:
    """W8, B1"""
    worker = BaseWorker("w")
    async with running(worker, Helper("peer")) as runner:
        await worker.job("peer", name="echo")
        await anyio.wait_all_tasks_blocked()
        before = {task.id for task in anyio.get_running_tasks()}
        for n in range(3):
            await runner.bus.send(BusDeactivateWorkerMessage(source="test", target="w"))
            await runner.bus.send(BusActivateWorkerMessage(source="test", target="w"))
            await runner.bus.send(note(n, "w"))
            await runner.bus.send(alarm(n, "w"))
            await worker.job("peer", name="echo")
        await anyio.wait_all_tasks_blocked()
        assert {task.id for task in anyio.get_running_tasks()} == before


async def test_on_worker_failed_does_not_wait_for_on_activated() -> None:
    """B2, W8: the same for a worker's other hooks; here ``on_activated`` is suspended."""
    failed, release = anyio.Event(), anyio.Event()

    class Parent(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await release.wait()

        async def on_worker_failed(self, data: object) -> None:
            failed.set()

    parent, child = Parent("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        await child.send_bus_error_message("broken")
        await failed.wait()
        release.set()


async def test_a_hook_may_come_from_a_mixin_or_from_further_up() -> None:
    got: list[str] = []

    class Mixin:
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                got.append(type(self).__name__)

    class Mixed(Mixin, BaseWorker):
        pass

    class Below(Mixed):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await super().on_activated(args)

    async with running(Mixed("one"), Below("two")) as runner:
        await runner.bus.send(note(0))
        await eventually(lambda: len(got) == 2)
    assert sorted(got) == ["Below", "Mixed"]


async def test_the_hooks_of_the_base_class_may_be_called() -> None:
    called: list[str] = []

    async def call_super(worker: Any, *args: Any) -> None:
        for hook in HOOKS:
            await getattr(BaseWorker, hook)(worker, *(args if hook != "on_deactivated" else ()))
            called.append(hook)

    subject, peer = with_hook("on_bus_message", call_super), Peer("peer")
    async with running(subject, peer) as runner:
        await provoke("on_bus_message", subject, peer, runner)
        await eventually(lambda: called == list(HOOKS))
