"""W8: when hooks and handlers run, and what they may do."""

from contextvars import ContextVar
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
    JobGroupResponse,
    JobStatus,
    WorkerParams,
    WorkerReadyData,
    job,
    worker_ready,
)

quickly = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


# --- a hook may await a job


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


# --- one at a time per lane, in order


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


async def test_a_system_hook_does_not_wait_for_a_data_hook() -> None:
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


# --- the end of a group


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


# --- job handlers


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


where: ContextVar[str] = ContextVar("where", default="nowhere")


left: ContextVar[str] = ContextVar("left", default="nothing")


class Placed(Helper):
    """Sets a context variable in `run`, and notes what its hooks and handlers find."""

    def __init__(self, name: str = "w", *, place: str = "run") -> None:
        super().__init__(name)
        self.place = place
        self.found: list[tuple[str, str]] = []

    async def run(self, params: WorkerParams) -> None:
        if self.place == "run":
            where.set("worker")
        await super().run(params)

    async def start(self) -> None:
        if self.place == "start":
            where.set("worker")
        await super().start()

    def look(self) -> dict[str, Any]:
        self.found.append((where.get(), left.get()))
        return {"where": where.get(), "left": left.get()}

    @job(name="look")
    async def look_around(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return self.look()

    @job(name="set")
    async def set_both(self, message: BusJobRequestMessage) -> dict[str, Any]:
        where.set("handler")
        left.set("something")
        return {}

    @job(name="change")
    async def change_one(self, message: BusJobRequestMessage) -> dict[str, Any]:
        where.set("handler")
        return {}

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            self.look()

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.look()


@pytest.mark.parametrize("place", ["run", "start"])
async def test_a_handler_starts_with_the_worker_s_context_variables(place: str) -> None:
    """W8: not with those of the one who asks"""
    where.set("requester")
    async with running(Placed(place=place)) as runner:
        for _ in range(3):
            assert await runner.job("w", name="look") == {"where": "worker", "left": "nothing"}
    assert where.get() == "requester"


@pytest.mark.parametrize("name", ["set", "change"])
async def test_what_a_handler_sets_ends_with_it(name: str) -> None:
    """W8: though tasks are reused"""
    async with running(Placed()) as runner:
        for _ in range(3):
            await runner.job("w", name=name)
            assert await runner.job("w", name="look") == {"where": "worker", "left": "nothing"}


@quickly
@given(names=st.lists(st.sampled_from(["look", "set", "change"]), max_size=12), at_once=st.integers(1, 4))
def test_no_handler_sees_what_another_has_set(backend: str, names: list[str], at_once: int) -> None:
    """W8"""

    async def main() -> None:
        worker = Placed()
        async with running(worker) as runner:
            raw = await Raw.on(runner.bus)
            for n, name in enumerate(names):
                await raw.ask(str(n), "w", name)
                if not n % at_once:
                    await raw.answer(str(n))
            for n in range(len(names)):
                await raw.answer(str(n))
        assert set(worker.found) == {("worker", "nothing")}

    clock.run(main, backend=backend, limit=5)


async def test_hooks_run_with_the_worker_s_context_variables() -> None:
    """W8"""
    where.set("sender")
    worker = Placed()
    async with running(worker) as runner:
        await runner.bus.send(note(0, "w"))
        await runner.bus.send(alarm(0, "w"))
        await eventually(lambda: len(worker.found) == 3)
    assert worker.found == [("worker", "nothing")] * 3


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
