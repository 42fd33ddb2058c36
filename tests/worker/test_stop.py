"""W6: `stop()`, from everywhere."""

from typing import Any

import anyio
import pytest
from anyio import current_time

from support.buses import Wire
from support.conditions import eventually
from support.families import Arriving, FailingWhenCancelled
from support.listeners import Chooser
from support.messages import Alarm, Note, alarm, note
from support.requesters import Listener, Raw
from support.runners import cut_short, quiet_runner
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    BusSubscriber,
    JobStatus,
    MemoryBus,
    NotRunningError,
    WorkerBus,
    WorkerErrorData,
    WorkerParams,
    WorkerReadyData,
    job,
    worker_ready,
)
from workerbus.testing import RecordingBus, settle
from workerbus.worker._core import core_of


class Lingering(Helper):
    """Its handler of ``linger``, once cancelled, needs until ``release``, or a second."""

    @job(name="linger")
    async def linger(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(1, shield=True):
                await self.release.wait()


async def test_a_stop_cancels_what_a_run_does_that_an_end_has_let_return() -> None:
    """W6: though the grace period is not over."""

    class Tidy(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await super().run(params)
            tidying.set()
            await anyio.sleep_forever()

    tidying, worker = anyio.Event(), Tidy("w")
    async with running(worker, grace_period=100) as runner:
        await runner.bus.send(BusEndWorkerMessage(source="test", target="w"))
        await tidying.wait()
        with anyio.fail_after(0.1):
            await worker.stop()


async def test_each_who_stops_a_worker_that_was_never_started_waits_until_it_has_finished() -> None:
    """W6: but its own clean-up does not."""

    class Slow(BaseWorker):
        async def cleanup(self) -> None:
            await anyio.sleep(1)
            await self.stop()
            await super().cleanup()

    async def stop() -> None:
        await worker.stop()
        returned.append(current_time() - begun)

    begun, returned, worker = current_time(), list[float](), Slow("w")
    runner = quiet_runner()
    await runner.add_workers(worker)
    async with anyio.create_task_group() as group:
        group.start_soon(stop)
        await anyio.sleep(0.5)
        group.start_soon(stop)
    assert returned == [1, 1]


async def test_stop_from_outside_returns_when_the_worker_has_finished() -> None:
    """W6"""
    worker = Helper("w")
    async with running(worker) as runner:
        await (await Raw.on(runner.bus)).ask("1", "w", "wait")
        await worker.begun.wait()
        await worker.stop()
        assert worker.unwound.is_set()
        assert not worker.active
        assert worker.active_jobs == {}
        assert runner.registry.get("w") is None
        assert runner.get_worker("w") is None
        assert not runner.bus.has_subscriber("w")
        await worker.wait()


async def test_stop_waits_for_the_handlers_and_answers_after_them() -> None:
    """W6"""
    worker = Lingering("w")
    stopped = anyio.Event()

    async def stop() -> None:
        await worker.stop()
        stopped.set()

    async with running(worker) as runner, anyio.create_task_group() as group:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "linger")
        await worker.begun.wait()
        group.start_soon(stop)
        await anyio.wait_all_tasks_blocked()
        assert not stopped.is_set()
        assert raw.answers("1") == []
        worker.release.set()
        await stopped.wait()
        assert (await raw.answer("1"))[0] is JobStatus.CANCELLED


async def test_stop_waits_for_jobs_that_a_handler_has_asked_for_while_it_unwinds() -> None:
    """W6, J1: without waiting for them itself; they are not cut short while there is time."""

    class Asking(Helper):
        @job(name="ask at the end")
        async def ask_at_the_end(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await self.request_job("doing", name="do")

    async def do(_: Doing, message: BusJobRequestMessage) -> None:
        await anyio.sleep(1)
        done.append(message.job_id)

    asking, done = Asking("asking"), list[str]()
    async with running(asking, Doing("doing", do)) as runner:
        await (await Raw.on(runner.bus)).ask("1", "asking", "ask at the end")
        await asking.begun.wait()
        await asking.stop()
        assert len(done) == 1


async def test_stop_waits_for_jobs_that_the_hook_of_a_child_s_report_has_asked_for() -> None:
    """W6, W7: of one that waits behind a hook which the stop cuts off."""

    class Asking(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Alarm):
                self.begun.set()
                await anyio.sleep_forever()

        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            await self.request_job("doing", name="do")

    async def do(_: Doing, message: BusJobRequestMessage) -> None:
        await anyio.sleep(1)
        done.append(message.job_id)

    asking, done = Asking("asking"), list[str]()
    async with running(asking, Doing("doing", do)) as runner:
        await asking.add_workers(FailingWhenCancelled("child"), wait=True)
        await runner.bus.send(alarm(0, "asking"))
        await asking.begun.wait()
        await asking.stop()
        assert len(done) == 1


async def test_stop_waits_for_a_hook() -> None:
    """W6: before the worker leaves the bus, and its name is free."""

    class Hooked(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                self.begun.set()
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.move_on_after(1, shield=True):
                        await self.release.wait()
                    unwound.append(self.bus.has_subscriber("w"))

    worker, unwound = Hooked("w"), list[bool]()

    async def stop() -> None:
        await worker.stop()
        assert unwound == [True]
        unwound.append(runner.bus.has_subscriber("w"))

    async with running(worker) as runner, anyio.create_task_group() as group:
        await runner.bus.send(Note(0, source="test", target="w"))
        await worker.begun.wait()
        group.start_soon(stop)
        await anyio.wait_all_tasks_blocked()
        worker.release.set()
    assert unwound == [True, False]


async def test_a_stop_that_nobody_waits_for_is_a_stop() -> None:
    """W6"""
    worker = Helper("w")
    async with running(worker):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await worker.stop()
        await worker.wait()


async def test_a_hook_that_stops_its_worker_and_goes_on_is_cancelled() -> None:
    """W6"""

    class Stopping(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await self.stop()
                await anyio.sleep_forever()

    worker = Stopping("w")
    async with running(worker) as runner:
        await runner.bus.send(Note(0, source="test", target="w"))
        await worker.wait()


@pytest.mark.parametrize("bus", [MemoryBus, Wire])
async def test_stop_answers_every_open_job_cancelled(bus: type[WorkerBus]) -> None:
    """W6: the running, the deferred, and the one that waits in line"""

    class Busy(Helper):
        @job(name="line", sequential=True)
        async def line(self, message: BusJobRequestMessage) -> None:
            self.calls.append(message.job_id)
            self.begun.set()
            await anyio.sleep_forever()

        @job(name="later", deferred=True)
        async def later(self, message: BusJobRequestMessage) -> None:
            self.calls.append(message.job_id)

        async def on_job_request(self, message: BusJobRequestMessage) -> None:
            self.calls.append(message.job_id)

    worker = Busy("w")
    async with running(worker, bus=bus()) as runner:
        raw = await Raw.on(runner.bus)
        for number, name in enumerate(["line", "line", "later", "other", "wait"]):
            await raw.ask(str(number), "w", name)
        await eventually(lambda: len(worker.calls) == 4)
        await worker.stop()
        for number in range(5):
            assert (await raw.answer(str(number)))[0] is JobStatus.CANCELLED
    assert "1" not in worker.calls


async def test_stop_cancels_what_the_worker_has_asked_for() -> None:
    """W6"""
    worker, peer = Helper("w"), Helper("peer")
    async with running(worker, peer) as runner:
        await worker.request_job("peer", name="wait")
        await peer.begun.wait()
        await worker.stop()
        await peer.unwound.wait()
        assert worker.job_groups == {}
        assert runner.get_worker("peer") is peer


@pytest.mark.parametrize("groups", [[["quick", "lingering"]], [["quick"], ["lingering"]]])
async def test_stop_waits_for_those_whom_the_worker_has_asked(groups: list[list[str]]) -> None:
    """W6: where that is all that it has under way; for the last of them."""
    asker, quick, lingering = Helper("asker"), Helper("quick"), Lingering("lingering")

    @quick.event_handler("on_job_request")
    async def work(_: BaseWorker, message: BusJobRequestMessage) -> None:
        await anyio.sleep_forever()

    async with running(asker, quick, lingering):
        for each in groups:
            await asker.request_job_group(*each, name="linger")
        await lingering.begun.wait()
        begun = current_time()
        await asker.stop()
        assert current_time() - begun == pytest.approx(1)


async def test_a_job_is_cancelled_by_a_stop_whatever_its_handler_returns() -> None:
    """W6, J2: it had not answered."""
    begun, release = anyio.Event(), anyio.Event()

    async def finish(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        with anyio.CancelScope(shield=True):
            begun.set()
            await release.wait()
        return {"done": True}

    worker = Doing("w", finish)
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "do")
        await begun.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(worker.stop)
            await settle()
            release.set()
        assert await raw.answer("1") == (JobStatus.CANCELLED, {"error": "worker 'w' stopped", "type": "Cancelled"})


async def test_stop_cancels_a_handler_that_has_answered_and_goes_on() -> None:
    """W6: nobody waits until it ends of itself."""
    answered = anyio.Event()

    async def go_on(worker: Doing, message: BusJobRequestMessage) -> None:
        await worker.send_job_response(message.job_id, {"done": True})
        answered.set()
        await anyio.sleep_forever()

    worker = Doing("w", go_on)
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "do")
        await answered.wait()
        begun = current_time()
        await worker.stop()
        assert current_time() == begun
        assert await raw.answer("1") == (JobStatus.COMPLETED, {"done": True})


async def test_a_job_that_was_cancelled_before_and_has_not_unwound_is_answered_with_its_own_reason() -> None:
    """W6, J5: when the worker that stops waits no longer."""

    class Clinging(Helper):
        @job(name="cling")
        async def cling(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            with anyio.CancelScope(shield=True):
                await self.release.wait()

    worker = Clinging("w")
    async with running(worker) as runner, anyio.create_task_group() as group:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "w", "cling")
        await worker.begun.wait()
        await raw.cancel("job", "w", "too slow")
        group.start_soon(worker.stop)
        assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": "too slow", "type": "Cancelled"})
        worker.release.set()


async def test_no_job_begins_once_stop_was_called() -> None:
    """W6: whoever is scheduled first"""

    class Stopping(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                await self.stop()
                await raw.ask(self.name, self.name, "echo")

    workers = [Stopping(f"w{n}") for n in range(8)]
    async with running(*workers) as runner:
        raw = await Raw.on(runner.bus)
        for worker in workers:
            await runner.bus.send(Note(0, source="test", target=worker.name))
            assert (await raw.answer(worker.name))[0] is JobStatus.CANCELLED
            await worker.wait()
    assert not any(worker.calls for worker in workers)


async def test_no_job_begins_while_a_stopped_worker_waits_for_its_children() -> None:
    """W6"""
    parent, child = Helper("parent"), Lingering("child")
    async with running(parent) as runner, anyio.create_task_group() as group:
        await parent.add_workers(child)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "child", "linger")
        await child.begun.wait()
        group.start_soon(parent.stop)
        await anyio.wait_all_tasks_blocked()
        await raw.ask("2", "parent", "echo")
        refusal = {"error": "worker 'parent' is stopping", "type": "Cancelled"}
        assert await raw.answer("2") == (JobStatus.CANCELLED, refusal)
        child.release.set()
    assert parent.calls == []


async def test_a_job_that_comes_during_cleanup_is_answered_at_once() -> None:
    """W6"""
    answers: list[JobStatus] = []

    class Cleaning(Helper):
        async def cleanup(self) -> None:
            await raw.ask("1", self.name, "echo")
            answers.append((await raw.answer("1"))[0])

    worker = Cleaning("w")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await worker.stop()
    assert answers == [JobStatus.CANCELLED]


async def test_stop_again_and_from_several_tasks_is_one_stop() -> None:
    """W6"""
    cleaned: list[str] = []

    class Cleaning(Helper):
        async def cleanup(self) -> None:
            cleaned.append(self.name)
            await super().cleanup()

    worker = Cleaning("w")
    async with running(worker):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(worker.stop)
        await worker.stop()
    assert cleaned == ["w"]


class Choosy(Helper):
    """Its messages wait to be accepted."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


@pytest.mark.parametrize("kind", [Helper, Choosy])
async def test_a_request_that_was_sent_before_stop_is_answered(kind: type[Helper]) -> None:
    """W6, J1: also where it still waits to be handled"""
    workers = [kind(f"w{n}") for n in range(8)]
    async with running(*workers) as runner:
        raw = await Raw.on(runner.bus)
        for worker in workers:
            await raw.ask(worker.name, worker.name, "wait")
            await worker.stop()
        await raw.settle()
        for worker in workers:
            assert [status for status, _ in raw.answers(worker.name)] == [JobStatus.CANCELLED]


@pytest.mark.parametrize("kind", [Helper, Choosy])
async def test_a_request_that_waits_for_the_start_of_a_stopped_worker_is_answered(kind: type[Helper]) -> None:
    """W6, J1"""
    worker = kind("w")
    runner = quiet_runner()
    await runner.add_workers(worker, Helper("peer"))
    raw = await Raw.on(runner.bus)
    for job_id in ("1", "2", "3"):
        await raw.ask(job_id, "w", "echo")
    await worker.stop()
    async with runner:
        await runner.registry.wait_for("peer")
        await raw.settle()
        for job_id in ("1", "2", "3"):
            assert [status for status, _ in raw.answers(job_id)] == [JobStatus.CANCELLED]


PLACES = [
    "run",
    "task",
    "on_activated",
    "on_deactivated",
    "on_bus_message",
    "job",
    "on_job_request",
    "worker_ready",
    "cleanup",
]


class Stops(BaseWorker):
    """Calls its own `stop` in one place."""

    def __init__(self, place: str) -> None:
        super().__init__("stops")
        self.place = place
        self.returned = False

        @self.event_handler("on_deactivated")
        async def deactivated(_: object) -> None:
            await self.at("on_deactivated")

    async def at(self, place: str) -> None:
        if place == self.place:
            await self.stop()
            self.returned = True

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await self.at("run")
        params.task_group.start_soon(self.at, "task")
        await super().run(params)

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await self.at("on_activated")

    async def on_bus_message(self, message: BusMessage) -> None:
        await self.at("on_bus_message")

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        await self.at("on_job_request")

    async def cleanup(self) -> None:
        await self.at("cleanup")

    @job(name="stop")
    async def stop_here(self, message: BusJobRequestMessage) -> None:
        await self.at("job")

    @worker_ready(name="peer")
    async def met(self, data: WorkerReadyData) -> None:
        await self.at("worker_ready")


@pytest.mark.parametrize("children", [0, 1])
@pytest.mark.parametrize("place", PLACES)
async def test_stop_from_inside_only_asks(place: str, children: int) -> None:
    """W6, W5: it waits neither for the worker nor for its children."""
    worker = Stops(place)
    for _ in range(children):
        await worker.add_workers(Helper("child"))
    async with running(Helper("peer")) as runner:
        raw = await Raw.on(runner.bus)
        await runner.add_workers(worker)
        await raw.ask("1", "stops", "stop")
        await raw.ask("2", "stops", "anything")
        await runner.bus.send(BusDeactivateWorkerMessage(source="test", target="stops"))
        if place == "cleanup":
            await runner.registry.wait_for("stops")
            await worker.stop()
        await worker.wait()
        assert worker.returned
        assert runner.get_worker("stops") is None
        assert runner.get_worker("peer") is not None


async def test_a_run_that_stops_its_own_worker_is_left_to_return() -> None:
    """W6: it is not cancelled, whatever it does before."""
    log: list[str] = []

    class Brief(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await self.stop()
            await anyio.sleep(1)
            log.append("returns")

    worker = Brief("w")
    async with running(worker):
        await worker.wait()
    assert log == ["returns"]


async def test_workers_may_stop_each_other() -> None:
    """W6: both calls come from outside, and neither waits for ever"""

    class Mutual(BaseWorker):
        other: BaseWorker

        @job(name="stop")
        async def stop_other(self, message: BusJobRequestMessage) -> None:
            working.append(self.name)
            if len(working) == 2:
                both_work.set()
            await both_work.wait()
            await self.other.stop()

    working: list[str] = []
    both_work = anyio.Event()
    one, two = Mutual("one"), Mutual("two")
    one.other, two.other = two, one
    async with running(one, two) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "one", "stop")
        await raw.ask("2", "two", "stop")
        await one.wait()
        await two.wait()


async def test_a_parent_may_stop_its_child_and_a_child_its_parent() -> None:
    """W6, W5"""

    class Stopping(Helper):
        @job(name="stop")
        async def stop_other(self, message: BusJobRequestMessage) -> dict[str, Any]:
            assert message.payload is not None
            await workers[message.payload["who"]].stop()
            return {}

    parent, child, second = Stopping("parent"), Stopping("child"), Stopping("second")
    workers = {"parent": parent, "child": child}
    async with running(parent) as runner:
        await parent.add_workers(child, second)
        await runner.job("parent", name="stop", payload={"who": "child"})
        await child.wait()
        assert runner.get_worker("parent") is parent
        raw = await Raw.on(runner.bus)
        await runner.registry.wait_for("second")
        await raw.ask("1", "second", "stop", payload={"who": "parent"})
        await parent.wait()
        await second.wait()


async def test_a_worker_can_be_stopped_while_it_starts() -> None:
    """W6"""

    class Starting(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            self.begun.set()
            await anyio.sleep_forever()

    worker = Starting("w")
    async with running(worker) as runner:
        await worker.begun.wait()
        await worker.stop()
        assert runner.registry.get("w") is None


async def test_a_worker_that_is_stopped_before_the_run_does_not_run() -> None:
    """W6"""
    worker, runner = Helper("w"), quiet_runner()
    await runner.add_workers(worker)
    await worker.stop()
    await runner.run()
    assert worker.started_at is None


async def test_a_run_waits_for_a_worker_that_was_stopped_before_it_and_cleans_up_yet() -> None:
    """W6, R1: and ends when that has finished."""

    class Slow(BaseWorker):
        async def cleanup(self) -> None:
            await anyio.sleep(1)

    worker, runner, begun = Slow("w"), quiet_runner(), current_time()
    await runner.add_workers(worker)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.stop)
        await anyio.sleep(0.5)
        await runner.run()
        assert current_time() == begun + 1
        assert repr(worker) == "<Slow 'w', finished>"


async def test_a_worker_that_was_never_attached_can_be_stopped_and_is_as_new() -> None:
    """W6: nothing has begun."""
    worker = Helper("w")
    await worker.stop()
    async with running(worker) as runner:
        assert await runner.job("w", name="echo")


@pytest.mark.parametrize("place", ["root", "child", "root before the run"])
async def test_a_worker_that_is_stopped_while_it_is_attached_does_not_start(place: str) -> None:
    """W6: the stop returns when it has finished, and the name is free."""
    parent, worker, runner = Helper("parent"), Arriving("w"), quiet_runner()
    if place == "root before the run":
        async with anyio.create_task_group() as group:
            group.start_soon(runner.add_workers, worker)
            await worker.arriving.wait()
            await worker.stop()
        assert not runner.bus.has_subscriber("w")
        await runner.add_workers(Helper("w"), parent)
    async with runner, anyio.create_task_group() as group:
        if place != "root before the run":
            await runner.add_workers(parent)
            await runner.registry.wait_for("parent")
            group.start_soon((parent if place == "child" else runner).add_workers, worker)
            await worker.arriving.wait()
            await worker.stop()
            assert not runner.bus.has_subscriber("w")
            await parent.add_workers(Helper("w"))
        assert await runner.job("w", name="echo")
    assert (worker.started_at, parent.children) == (None, [])


async def test_a_child_that_is_stopped_as_soon_as_its_runner_has_it_does_not_start() -> None:
    """W6: before its runner begins to attach it."""

    class Undecided(Helper):
        async def send_bus_message(self, message: BusMessage) -> None:
            await super().send_bus_message(message)
            if isinstance(message, BusAddWorkerMessage):
                await child.stop()

    parent, child = Undecided("parent"), Helper("child")
    async with running(parent) as runner:
        await parent.add_workers(child)
        assert (child.started_at, runner.get_worker("child"), parent.children) == (None, None, [])


async def test_a_worker_that_is_stopped_and_then_not_attached_is_as_new() -> None:
    """W5, W6: nothing has begun."""
    parent, other, worker = Helper("parent"), Helper("other"), Arriving("w", OSError("no device"))

    async def add() -> None:
        with pytest.raises(OSError, match="no device"):
            await parent.add_workers(worker)

    async with running(parent, other) as runner:
        async with anyio.create_task_group() as group:
            group.start_soon(add)
            await worker.arriving.wait()
            await worker.stop()
        worker.harm = None
        await other.add_workers(worker)
        assert await runner.job("w", name="echo")


@pytest.mark.parametrize("child", [False, True])
async def test_a_worker_may_stop_itself_while_it_is_attached(child: bool) -> None:
    """W6: it only asks."""

    class Undecided(Helper):
        async def attach(self, **kwargs: Any) -> None:
            await self.stop()
            await super().attach(**kwargs)

    parent, worker = Helper("parent"), Undecided("w")
    async with running(parent) as runner:
        await (parent if child else runner).add_workers(worker)
        await worker.wait()
        assert (worker.started_at, runner.get_worker("w")) == (None, None)


async def test_a_worker_that_is_stopped_as_soon_as_it_was_added_does_not_run() -> None:
    """W6: its task begins only then."""

    class Counting(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.calls.append("run")
            await super().run(params)

    worker = Counting("w")
    async with running() as runner:
        await runner.add_workers(worker)
        await worker.stop()
        await settle()
        assert not runner.bus.has_subscriber("w")
    assert worker.calls == []


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
async def test_a_worker_has_finished_though_its_clean_up_before_the_run_ends_the_program(
    ending: type[BaseException],
) -> None:
    """W6, L3: it arrives as itself, and nobody waits for the worker."""

    class Ending(Helper):
        async def cleanup(self) -> None:
            raise ending

    worker, runner = Ending("w"), quiet_runner()
    bus = runner.bus
    await worker.attach(registry=runner.registry, bus=bus)
    with pytest.raises(ending):
        await worker.stop()
    await worker.wait()
    assert not bus.has_subscriber("w")


async def test_what_comes_while_a_worker_that_has_not_started_leaves_the_bus_is_dropped() -> None:
    """W6: on a bus that takes a second for it."""

    class Slow(MemoryBus):
        async def unsubscribe(self, subscriber: BusSubscriber) -> None:
            await anyio.sleep(1)
            await super().unsubscribe(subscriber)

    worker, runner = Helper("w"), quiet_runner(bus=Slow())
    await runner.add_workers(worker)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.stop)
        await settle()
        await runner.bus.send(note(1, "w"))
    await worker.wait()


@pytest.mark.parametrize("kind", [Helper, Choosy])
async def test_a_worker_that_is_stopped_before_the_run_closes_its_lanes(kind: type[Helper]) -> None:
    """W6, B1: no stream of it is left open, whatever has waited there."""
    worker, runner = kind("w"), quiet_runner()
    worker.add_event_handler("on_bus_message", lambda *_: None)
    await runner.add_workers(worker)
    for message in (note(1, "w"), alarm(1, "w")):
        await runner.bus.send(message)
    state = core_of(worker).state
    hooks, inbox = state.hooks, state.inbox
    await worker.stop()
    assert [
        lane.closed for lane in (hooks.system, hooks.data, *(() if inbox._intake is None else inbox._intake.lanes))
    ].count(False) == 0


async def test_a_worker_that_stops_before_its_start_is_not_activated_any_more() -> None:
    """W6, W2: by what has waited for the start."""
    active: list[bool] = []

    class Silent(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.begun.set()
            await anyio.sleep_forever()

        async def cleanup(self) -> None:
            active.append(self.active)

    worker = Silent("w", active=False)
    async with quiet_runner() as runner:
        await runner.add_workers(worker)
        await worker.begun.wait()
        await runner.bus.send(BusActivateWorkerMessage(None, source="test", target="w"))
        await worker.stop()
    assert active == [False]


async def test_a_worker_that_is_cancelled_before_the_run_can_be_stopped() -> None:
    """W6: by who has added it, as it will not be run any more."""
    worker = Helper("w")
    async with MemoryBus() as bus:
        runner = quiet_runner(bus=bus)
        await runner.add_workers(worker)
        await bus.send(BusCancelWorkerMessage("not needed", source="test", target="w"))
        await worker.stop()
        await worker.wait()
        assert not bus.has_subscriber("w")


async def test_a_worker_that_was_cancelled_before_it_began_may_stop_itself() -> None:
    """W6: in its clean-up."""
    log: list[str] = []

    class Stopping(Helper):
        async def cleanup(self) -> None:
            await self.stop()
            log.append("stopped")

    worker = Stopping("w")
    runner = quiet_runner()
    await runner.add_workers(worker)
    await runner.cancel()
    await runner.run()
    assert log == ["stopped"]


async def test_the_name_of_a_worker_that_is_stopped_before_the_run_is_free() -> None:
    """W6"""
    runner, second = quiet_runner(), Helper("w")
    first = Helper("w")
    await runner.add_workers(first)
    await first.stop()
    await runner.add_workers(second)
    async with runner:
        await runner.job("w", name="echo")
    assert len(second.calls) == 1


async def test_the_name_of_a_stopped_worker_is_free_again() -> None:
    """W6"""
    parent, first, second = Helper("parent"), Helper("w"), Helper("w")
    one, two = Helper("child"), Helper("child")
    async with running(parent, first) as runner:
        await parent.add_workers(one)
        await first.stop()
        await one.stop()
        await runner.add_workers(second)
        await parent.add_workers(two)
        await runner.job("w", name="echo")
        await runner.job("child", name="echo")
    assert len(second.calls) == len(two.calls) == 1


async def test_a_departure_watcher_may_put_another_worker_under_the_name() -> None:
    """W6: and the end reaches the new one"""
    first, second = Helper("w"), Helper("w")
    heard: list[type] = []

    async def replace(_: WorkerReadyData) -> None:
        runner.registry.unwatch("w", replace)
        await runner.add_workers(second)

    second.add_event_handler("on_bus_message", lambda _, message: heard.append(type(message)))
    async with running(first) as runner:
        await runner.registry.watch_departure("w", replace)
        await first.stop()
        await runner.registry.wait_for("w")
        assert runner.get_worker("w") is second
        await runner.job("w", name="echo")
    assert BusEndWorkerMessage in heard


async def test_stop_of_one_worker_leaves_the_others() -> None:
    """W6"""
    worker, peer = Helper("w"), Helper("peer")
    async with running(worker, peer) as runner:
        await worker.stop()
        assert (await runner.job("peer", name="echo"))["worker"] == "peer"


async def test_stop_may_be_overridden() -> None:
    """W6"""
    order: list[str] = []

    class Stopping(Helper):
        async def stop(self) -> None:
            order.append("before")
            await super().stop()
            order.append("after")

    worker = Stopping("w")
    async with running(worker) as runner:
        await worker.stop()
        assert runner.get_worker("w") is None
    assert order == ["before", "after"]


async def test_an_error_of_an_overridden_stop_is_its_caller_s() -> None:
    """W6"""

    class Stopping(Helper):
        async def stop(self) -> None:
            await super().stop()
            raise ValueError("mine")

    worker = Stopping("w")
    async with running(worker) as runner:
        with pytest.raises(ValueError, match="mine"):
            await worker.stop()
        assert runner.get_worker("w") is None


@pytest.mark.parametrize("attempt", range(8))
async def test_a_request_in_the_step_of_a_stop_is_answered_by_a_worker_that_chooses(attempt: int) -> None:
    """J1: under any schedule; the request is on its way from the lane to its task when the lane is closed."""

    async def nothing(_: object) -> None:
        return None

    async with MemoryBus() as bus:
        raw, worker = await Raw.on(bus), Chooser("chooser", nothing)
        async with running(worker, bus=bus):
            await bus.send(note(0, "chooser"))
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.stop)
                tasks.start_soon(raw.ask, "job", "chooser", "nothing")
        await raw.settle()
        assert len(raw.answers("job")) == 1


async def test_a_cancel_reaches_the_jobs_of_a_worker_before_its_children_have_finished() -> None:
    """R2, W5"""
    cancelled: list[float] = []

    class Parent(Helper):
        @job(name="cancelled")
        async def note_the_cancel(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(current_time())

    class Child(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(1)

    parent = Parent("parent")
    async with cut_short(), running(parent) as runner:
        await parent.add_workers(Child("child"))
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "parent", "cancelled")
        await parent.begun.wait()
        begin = current_time()
        await runner.cancel()
        await anyio.sleep_forever()
    assert cancelled == [begin]


async def test_a_worker_that_stops_takes_back_what_it_asks_for_before_it_answers() -> None:
    """W6: who hears of its answer finds nobody working for it any more."""

    class Middle(Helper):
        @job(name="delegate", deferred=True)
        async def delegate(self, message: BusJobRequestMessage) -> None:
            await self.request_job("leaf", name="wait")

    bus, middle, leaf = RecordingBus(), Middle("middle"), Helper("leaf")
    async with running(middle, leaf, bus=bus) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "middle", "delegate")
        await leaf.begun.wait()
        await settle()
        await middle.stop()
    ends = (BusJobCancelMessage, BusJobResponseMessage)
    assert [type(message) for message in bus.messages(source="middle") if isinstance(message, ends)] == list(ends)


async def test_a_worker_that_stops_tells_why_it_wants_no_more_jobs_and_asks_for_none() -> None:
    """W6, J5, J14: also in its own clean-up."""
    told: list[str] = []

    class Stopping(Helper):
        async def cleanup(self) -> None:
            try:
                self.job("helper")
            except NotRunningError as exc:
                told.append(str(exc))
            await super().cleanup()

    helper, stopping = Listener("helper"), Stopping("stopping")
    async with running(helper, stopping):
        await stopping.request_job("helper", name="wait")
        await helper.begun.wait()
        await stopping.stop()
        message = await helper.until("cancelled")
    assert message.reason == "worker 'stopping' stopped"
    assert told == ["'stopping' is not running any more: it asks for no more jobs"]
