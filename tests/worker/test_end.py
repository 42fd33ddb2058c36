"""W6, R2: how a worker ends, and what it lets finish."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.messages import Alarm, Note, alarm, note
from support.requesters import Raw
from support.runners import quiet_runner
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    JobError,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.testing import RecordingBus, settle


async def test_a_worker_whose_run_returns_has_finished() -> None:
    """W6"""

    class Brief(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()

    worker, runner = Brief("w"), quiet_runner()
    await runner.add_workers(worker)
    await runner.run()
    await worker.wait()
    assert runner.registry.get("w") is None


async def ended(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.bus.send(BusEndWorkerMessage(source="test", target=worker.name))


async def cancelled(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.bus.send(BusCancelWorkerMessage(source="test", target=worker.name))


class Cleaning(Helper):
    """Notes at its clean-up whether its handler has unwound."""

    def __init__(self, name: str, *, error: Exception | None = None) -> None:
        super().__init__(name)
        self.error = error
        self.cleaned: list[bool] = []

    async def cleanup(self) -> None:
        self.cleaned.append(self.unwound.is_set())
        if self.error is not None:
            raise self.error


async def test_a_cancel_overtakes_an_end_that_waits_for_jobs() -> None:
    """R2, for one worker"""
    worker = Helper("w")
    async with running(worker, job_grace=60, grace_period=60) as runner:
        await (await Raw.on(runner.bus)).ask("1", "w", "wait")
        await worker.begun.wait()
        await ended(worker, runner)
        await anyio.wait_all_tasks_blocked()
        assert not worker.unwound.is_set()
        await cancelled(worker, runner)
        await anyio.wait_all_tasks_blocked()
        unwound = worker.unwound.is_set()
        worker.release.set()
    assert unwound


async def test_a_job_that_was_asked_for_just_before_the_end_has_its_grace() -> None:
    """R2"""

    class Working(BaseWorker):
        @job(name="work")
        async def work(self, message: BusJobRequestMessage) -> None:
            for _ in range(5):
                await checkpoint()

    worker = Working("w")
    async with running(worker, job_grace=5) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("0", "w", "work")
        await raw.answer("0")
        await anyio.wait_all_tasks_blocked()
        await raw.ask("1", "w", "work")
        await ended(worker, runner)
        assert (await raw.answer("1"))[0] is JobStatus.COMPLETED


class Silent(BaseWorker):
    async def run(self, params: WorkerParams) -> None:
        await params.wait_for_end()


class Starting(BaseWorker):
    async def start(self) -> None:
        await anyio.sleep_forever()


@pytest.mark.parametrize("kind", [Silent, Starting])
def test_an_end_of_a_worker_that_never_starts_has_its_grace_too(backend: str, kind: type[BaseWorker]) -> None:
    """R2: for an end of a single worker, if it knows that it is to end"""

    async def main() -> None:
        worker = kind("w")
        async with running(Helper("peer"), grace_period=1) as runner:
            await runner.add_workers(worker)
            await ended(worker, runner)
            with anyio.move_on_after(4) as scope:
                await worker.wait()
            in_time.append(not scope.cancelled_caught)

    in_time: list[bool] = []
    clock.run(main, backend=backend)
    assert in_time == [True]


def test_each_stop_has_its_own_deadline(backend: str) -> None:
    """L4: one for a whole wind-down, but stops that come later are others"""

    class Slow(Cleaning):
        async def cleanup(self) -> None:
            await anyio.sleep(1.5)
            await super().cleanup()

    workers = [Slow(f"w{n}") for n in range(3)]

    async def main() -> None:
        async with running(*workers):
            for worker in workers:
                await worker.stop()

    clock.run(main, backend=backend)
    assert [worker.cleaned for worker in workers] == [[False]] * 3


def test_a_worker_that_accepts_no_message_ends_all_the_same(backend: str) -> None:
    """R2, N4"""

    class Deaf(BaseWorker):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return False

    async def main() -> None:
        worker = Deaf("w")
        async with running(worker, grace_period=0.05):
            pass
        await worker.wait()

    clock.run(main, backend=backend)


async def test_a_task_whose_job_is_cancelled_by_the_end_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    """W7, R4: the log tells, and the run does not raise."""

    class Insists(Helper):
        async def run(self, params: WorkerParams) -> None:
            params.task_group.start_soon(self.ask)
            await super().run(params)

        async def ask(self) -> None:
            with anyio.CancelScope(shield=True):
                await self.job("other", name="wait")

    insists, other = Insists("insists"), Helper("other")
    async with running(insists, other):
        await other.begun.wait()
        await insists.stop()
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "a task of worker 'insists' failed while it ended"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], JobError)


async def test_a_worker_that_nobody_ends_outlives_its_grace() -> None:
    """R2"""
    async with running(Helper("w"), grace_period=1) as runner:
        await anyio.sleep(10)
        assert await runner.job("w", name="echo")


@pytest.mark.parametrize("with_child", [False, True])
async def test_of_two_ends_the_first_says_why(with_child: bool) -> None:
    """R2: also while the worker waits for its children."""
    worker, child, bus = Helper("w"), Helper("child"), RecordingBus()
    async with running(worker, job_grace=1, bus=bus) as runner:
        raw = await Raw.on(runner.bus)
        if with_child:
            await worker.add_workers(child)
            await raw.ask("1", "child", "wait")
            await child.begun.wait()
        await raw.ask("2", "w", "wait")
        await worker.begun.wait()
        for reason in ("the first", "the second"):
            await runner.bus.send(BusEndWorkerMessage(reason, source="test", target="w"))
        begun = anyio.current_time()
        await worker.wait()
        assert anyio.current_time() - begun == pytest.approx(1 + with_child)
        for job_id in ["1"] * with_child + ["2"]:
            assert await raw.answer(job_id) == (JobStatus.CANCELLED, {"error": "the first", "type": "Cancelled"})
        told = bus.messages(BusEndWorkerMessage, target="child")
        assert [(message.source, message.reason) for message in told] == [("w", "the first")] * with_child


async def test_what_is_sent_right_behind_an_end_has_no_hook() -> None:
    """R2: its hook would be the first to run."""
    heard: list[BusMessage] = []
    worker = Helper("w")
    worker.add_event_handler("on_bus_message", lambda _, message: heard.append(message))
    async with running(worker, job_grace=1) as runner:
        await (await Raw.on(runner.bus)).ask("1", "w", "wait")
        await worker.begun.wait()
        await settle()
        await runner.bus.send(BusEndWorkerMessage(source="test", target="w"))
        late = [note(1, "w"), alarm(2, "w")]
        for message in late:
            await runner.bus.send(message)
        await worker.wait()
    assert not any(message in heard for message in late)


@pytest.mark.parametrize("first", ["system", "data"])
async def test_what_is_sent_behind_an_end_has_no_hook_in_either_lane_while_both_are_busy(first: str) -> None:
    """R2, W8: the lanes go on at different times, and each stops where it was when the end came."""
    heard: list[Alarm | Note] = []
    go_on = {True: anyio.Event(), False: anyio.Event()}
    worker = Helper("w")

    async def slow(_: object, message: BusMessage) -> None:
        if isinstance(message, Alarm | Note):
            await go_on[bool(message.system)].wait()
            heard.append(message)

    worker.add_event_handler("on_bus_message", slow)
    async with running(worker) as runner:
        before, behind = [alarm(1, "w"), alarm(2, "w"), note(3, "w"), note(4, "w")], [alarm(5, "w"), note(6, "w")]
        for message in before:
            await runner.bus.send(message)
        await settle()
        await runner.bus.send(BusEndWorkerMessage(source="test", target="w"))
        for message in behind:
            await runner.bus.send(message)
        go_on[first == "system"].set()
        await settle()
        assert heard == (before[:2] if first == "system" else before[2:])
        go_on[first != "system"].set()
        await worker.wait()
    assert sorted(message.n for message in heard) == [1, 2, 3, 4]


@pytest.mark.parametrize("first", [Note, Alarm])
async def test_hooks_of_both_lanes_may_ask_a_child_for_a_job_before_it_ends(first: type[Note] | type[Alarm]) -> None:
    """R2, W5: whichever of the lanes goes on later."""

    class Asking(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note | Alarm):
                await anyio.sleep(0.1 if isinstance(message, first) else 0.2)
                answers.append((await self.job("child", name="echo"))["worker"])

    answers: list[str] = []
    worker = Asking("w")
    async with running(worker) as runner:
        await worker.add_workers(Helper("child"), wait=True)
        for message in (alarm(1, "w"), note(1, "w")):
            await runner.bus.send(message)
        await settle()
        await runner.bus.send(BusEndWorkerMessage(source="test", target="w"))
        await worker.wait()
    assert answers == ["child", "child"]


async def test_a_worker_is_stopping_while_its_jobs_have_their_grace() -> None:
    """O2, R2"""
    worker = Helper("w")
    async with running(worker, job_grace=1) as runner:
        await (await Raw.on(runner.bus)).ask("1", "w", "wait")
        await worker.begun.wait()
        await runner.bus.send(BusEndWorkerMessage(source="test", target="w"))
        await settle()
        assert runner.statistics().workers["w"].phase == "stopping"


async def test_of_two_cancels_the_first_says_why() -> None:
    """R2, W6: it is the one that has cancelled the jobs, and the one that the worker hears of."""
    told: list[str | None] = []
    worker = Helper("w")

    def note(_: object, message: BusMessage) -> None:
        if isinstance(message, BusCancelWorkerMessage):
            told.append(message.reason)

    worker.add_event_handler("on_bus_message", note)
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await raw.ask("2", "w", "wait")
        await worker.begun.wait()
        for reason in ("the first", "the second"):
            await runner.bus.send(BusCancelWorkerMessage(reason, source="test", target="w"))
        await worker.wait()
        answer = (JobStatus.CANCELLED, {"error": "the first", "type": "Cancelled"})
        assert [await raw.answer(job_id) for job_id in ("1", "2")] == [answer, answer]
    assert told == ["the first"]


async def test_a_message_before_the_start_is_no_end() -> None:
    """R2: a start may take longer than the grace."""

    class Late(Helper):
        async def run(self, params: WorkerParams) -> None:
            await anyio.sleep(10)
            await super().run(params)

    async with quiet_runner(grace_period=1) as runner:
        await runner.add_workers(Late("w"))
        await runner.bus.send(note(1, "w"))
        assert await runner.job("w", name="echo")


async def test_an_end_before_the_start_leaves_the_whole_of_its_grace() -> None:
    """R2: that of the jobs, too."""

    class Late(Helper):
        async def run(self, params: WorkerParams) -> None:
            assert not params.ending
            await anyio.sleep(2)
            await super().run(params)

    late = Late("late")
    async with WorkerRunner(handle_sigint=False, grace_period=1.0, job_grace=5.0) as runner:
        await runner.add_workers(late)
        await settle()
        await runner.bus.send(BusEndWorkerMessage(source="me", target="late"))
        await late.wait()
        assert late.started_at is not None


async def test_jobs_have_their_grace_beside_that_of_the_worker() -> None:
    """R2"""
    helper = Helper("helper")
    async with running(helper, grace_period=1.0, job_grace=3.0) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "wait")
        await helper.begun.wait()
        await runner.bus.send(BusEndWorkerMessage(source="me", target="helper"))
        await anyio.sleep(2.5)
        helper.release.set()
        assert await raw.answer("job") == (JobStatus.COMPLETED, {"released": True})


async def test_a_worker_says_in_which_life_of_its_runner_it_came_and_went_and_numbers_both() -> None:
    """G2, J4, L8: so that older news of it count for none."""
    bus, helper = RecordingBus(), Helper("helper")
    async with running(helper, bus=bus) as runner:
        await helper.stop()
    [ready] = bus.messages(BusWorkerReadyMessage)
    [gone] = bus.messages(BusWorkerGoneMessage)
    assert ready.incarnation == gone.incarnation == runner.registry.incarnation
    assert 0 < (ready.number or 0) < (gone.number or 0)


@pytest.mark.parametrize("kind", [BusEndMessage, BusCancelMessage])
async def test_a_worker_asks_its_own_runner_to_end_and_says_who_asks(
    kind: type[BusEndMessage | BusCancelMessage],
) -> None:
    """R6, N1."""
    observer, helper = Plain("observer"), Helper("helper")
    bus = MemoryBus()
    await bus.subscribe(observer)
    runner = WorkerRunner(name="runner", bus=bus, handle_sigint=False)
    await runner.add_workers(helper)
    async with anyio.create_task_group() as tasks, bus:
        tasks.start_soon(runner.run)
        await runner.registry.wait_for("helper")
        await (helper.end if kind is BusEndMessage else helper.cancel)(reason="enough")
        [message] = await observer.until(1, kind)
    assert message == kind("enough", source="helper", target="runner")


async def test_a_worker_is_stopping_while_its_handlers_unwind(caplog: pytest.LogCaptureFixture) -> None:
    """W6: and says so; it is not late while they have time."""
    seen: list[str] = []

    async def unwinds(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            seen.append(repr(worker))

    worker = Doing("doing", unwinds)
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do")
        await settle()
        await runner.cancel("enough")
    assert seen == ["<Doing 'doing', stopping>"]
    assert caplog.messages == []
