"""L3, R5: handlers that end the program, and interruptions in the middle of an answer."""

import anyio
import pytest

from support.requesters import Raw
from support.workers import Doing, Helper
from workerbus import BaseWorker, BusJobRequestMessage, JobStatus, MemoryBus, WorkerRunner, job
from workerbus.testing import run
from workerbus.worker._wind_down import WindDown


class Exits(BaseWorker):
    """Has a job that ends the program, and one that takes its time to leave."""

    def __init__(self) -> None:
        super().__init__("exits")
        self.begun = anyio.Event()
        self.story: list[str] = []

    @job(name="slow")
    async def slow(self, message: BusJobRequestMessage) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            self.story.append("unwound")

    @job(name="exit")
    async def exit(self, message: BusJobRequestMessage) -> None:
        async with anyio.create_task_group():
            raise SystemExit(3)

    async def cleanup(self) -> None:
        self.story.append("cleaned up")


def test_an_exit_in_a_handlers_task_group_lets_the_other_handlers_unwind(backend: str) -> None:
    """W6, L3: the wind-down waits for them, as it does for an exit that comes without a group around it."""
    worker = Exits()

    async def main() -> None:
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(worker)
            async with runner.job_group("exits", name="slow"):
                await worker.begun.wait()
                await runner.job("exits", name="exit")

    with pytest.raises(SystemExit):
        run(main, backend=backend)
    assert worker.story == ["unwound", "cleaned up"]


class Interrupted(Exception):  # noqa: N818 - it stands for the moment at which somebody presses Ctrl-C
    """An error in whose text, which is asked for when it becomes an answer, the interruption comes."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class Fails(BaseWorker):
    """Has a job that fails so."""

    @job(name="fail")
    async def fail(self, message: BusJobRequestMessage) -> None:
        raise Interrupted


def test_an_interruption_while_an_answer_is_made_leaves_neither_the_job_nor_the_worker(backend: str) -> None:
    """J1, L1: the wind-down answers the job, and the worker leaves bus and registry."""
    check_nothing_is_left_of(Fails("fails"), "fail", backend)


def test_an_interruption_as_the_wind_down_begins_leaves_neither_the_job_nor_the_worker(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J1, L1."""

    def interrupted(_: WindDown) -> bool:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(WindDown, "_nothing_runs", interrupted)
    helper = Helper("helper")
    check_nothing_is_left_of(helper, "wait", backend, until=helper.begun)


def check_nothing_is_left_of(worker: BaseWorker, job_name: str, backend: str, until: anyio.Event | None = None) -> None:
    left: list[object] = []

    async def main() -> None:
        async with MemoryBus() as bus:
            raw, runner = await Raw.on(bus), WorkerRunner(bus=bus, handle_sigint=False)
            try:
                async with runner:
                    await runner.add_workers(worker)
                    await runner.registry.wait_for(worker.name)
                    await raw.ask("1", worker.name, job_name)
                    await (anyio.sleep_forever() if until is None else until.wait())
            finally:
                with anyio.CancelScope(shield=True):
                    await raw.settle()
                left.extend([bus.has_subscriber(worker.name), runner.registry.get(worker.name)])
                left.extend(status for status, _ in raw.answers("1"))

    with pytest.raises(KeyboardInterrupt):
        run(main, backend=backend)
    assert left == [False, None, JobStatus.CANCELLED]


async def test_a_handler_that_ends_the_program_has_answered() -> None:
    """J1, L3: its requester may live on elsewhere; the program ends as it wished."""

    async def leaves(worker: Doing, message: BusJobRequestMessage) -> None:
        raise SystemExit(3)

    async with MemoryBus() as bus:
        raw = await Raw.on(bus)
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Doing("doing", leaves))
        await raw.ask("job", "doing", "do")
        with pytest.raises(SystemExit) as caught:
            await runner.run()
        assert caught.value.code == 3
        assert await raw.answer("job") == (JobStatus.ERROR, {"error": "3", "type": "SystemExit"})
        await raw.settle()
        assert len(raw.answers("job")) == 1


async def test_a_handler_that_ends_the_program_when_its_time_is_up_answers_with_its_end() -> None:
    """J1, J6, L3: the end counts, and not that it was late."""

    async def leaves(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            raise SystemExit(3) from None

    async with MemoryBus() as bus:
        raw = await Raw.on(bus)
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Doing("doing", leaves))
        await raw.ask("job", "doing", "do", seconds_left=1.0)
        with pytest.raises(SystemExit) as caught:
            await runner.run()
        assert caught.value.code == 3
        assert await raw.answer("job") == (JobStatus.ERROR, {"error": "3", "type": "SystemExit"})


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("answered", [False, True])
async def test_what_runs_beside_a_handler_that_ends_the_program_is_answered_as_cancelled(
    grouped: bool, answered: bool
) -> None:
    """J1, J4, W6: it did nothing wrong; unless it had answered."""
    begun = anyio.Event()

    class Leaving(BaseWorker):
        @job(name="leave")
        async def leave(self, message: BusJobRequestMessage) -> None:
            raise SystemExit(3)

        @job(name="work")
        async def work(self, message: BusJobRequestMessage) -> None:
            begun.set()
            try:
                if answered:
                    await self.send_job_response(message.job_id, {"n": 1})
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class() as exc:
                if grouped:
                    raise BaseExceptionGroup("several", [exc]) from None
                raise

    async with MemoryBus() as bus:
        raw = await Raw.on(bus)
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Leaving("leaving"))
        await raw.ask("work", "leaving", "work")

        async def leave() -> None:
            await begun.wait()
            await raw.ask("leave", "leaving", "leave")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            with pytest.raises(SystemExit):
                await runner.run()
        await raw.settle()
        cancelled = (JobStatus.CANCELLED, {"error": "worker 'leaving' stopped", "type": "Cancelled"})
        assert raw.answers("work") == [(JobStatus.COMPLETED, {"n": 1}) if answered else cancelled]
