"""N7, W6, L4: `stop()` and `cleanup()` that a class overrides run once, at every end of the worker."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    JobError,
    MemoryBus,
    NotRunningError,
    RunCancelled,
    WorkerParams,
    WorkerRegistry,
    WorkerRunner,
    job,
)
from workerbus.pipeline import EndFrame, FrameProcessor, Pipeline, PipelineWorker


class Noting(BaseWorker):
    """A worker that notes the steps of its end."""

    def __init__(self, name: str = "noting") -> None:
        super().__init__(name)
        self.steps: list[str] = []
        self.crash: BaseException | None = None
        self.crashing = anyio.Event()

    async def stop(self) -> None:
        self.steps.append("stop")
        await super().stop()

    async def cleanup(self) -> None:
        self.steps.append("cleanup")
        await super().cleanup()

    @job(name="stop yourself")
    async def stop_yourself(self, message: BusJobRequestMessage) -> None:
        await self.stop()

    async def on_worker_failed(self, data: Any) -> None:
        """Take the errors of children."""


class First(Noting):
    """One that first calls what it overrides, and then does what it does."""

    async def stop(self) -> None:
        await BaseWorker.stop(self)
        self.steps.append("stop")

    async def cleanup(self) -> None:
        await BaseWorker.cleanup(self)
        self.steps.append("cleanup")


class Alone(Noting):
    """One that does not call what it overrides at all, as others can do it only by messages."""

    async def stop(self) -> None:
        self.steps.append("stop")

    async def cleanup(self) -> None:
        self.steps.append("cleanup")


class Running(Noting):
    """One that has a `run()` of its own."""

    async def run(self, params: WorkerParams) -> None:
        await super().run(params)


End = Callable[[Noting, WorkerRunner], Awaitable[object]]


async def by_the_runner(worker: Noting, runner: WorkerRunner) -> None:
    await runner.end()


async def by_a_cancel_of_the_runner(worker: Noting, runner: WorkerRunner) -> None:
    await runner.cancel()


async def by_a_message(worker: Noting, runner: WorkerRunner) -> None:
    await runner.bus.send(BusEndWorkerMessage(source="test", target=worker.name))


async def by_a_cancel(worker: Noting, runner: WorkerRunner) -> None:
    await runner.bus.send(BusCancelWorkerMessage(source="test", target=worker.name))


async def by_stop(worker: Noting, runner: WorkerRunner) -> None:
    await worker.stop()


async def by_itself(worker: Noting, runner: WorkerRunner) -> None:
    with suppress(JobError):
        await runner.job(worker.name, name="stop yourself")


ENDS: list[End] = [by_the_runner, by_a_cancel_of_the_runner, by_a_message, by_a_cancel, by_stop, by_itself]
KINDS: list[type[Noting]] = [Noting, First, Alone, Running]


@pytest.mark.parametrize(
    ("end", "kind"),
    # A stop() that stops nothing is no end.
    [(end, kind) for end in ENDS for kind in KINDS if kind is not Alone or end not in (by_stop, by_itself)],
)
async def test_both_run_once_whatever_ends_the_worker(end: End, kind: type[Noting]) -> None:
    """N7, W6: first `stop()`, then `cleanup()`."""
    worker = kind()
    with suppress(RunCancelled):
        async with WorkerRunner() as runner:
            await runner.add_workers(worker)
            await runner.registry.wait_for(worker.name)
            await end(worker, runner)
            await worker.wait()
    assert sorted(worker.steps) == ["cleanup", "stop"]
    if kind is not First:
        assert worker.steps == ["stop", "cleanup"]


@pytest.mark.parametrize("cause", ["run", "start", "task"])
@pytest.mark.parametrize("kind", [Noting, First, Alone])
async def test_both_run_once_when_the_worker_fails(cause: str, kind: type[Noting]) -> None:
    """N7: in `run()`, in its first hook, before it has started."""

    class Failing(kind):  # type: ignore[misc, valid-type]  # a base chosen by the parameter
        async def run(self, params: WorkerParams) -> None:
            if cause == "run":
                await self.start()
                raise ValueError("it went wrong")
            if cause == "task":
                raise ValueError("it went wrong before the start")
            await super().run(params)

        async def on_activated(self, args: dict[str, Any] | None) -> None:
            if cause == "start":
                raise ValueError("it went wrong at the start")

    worker = Failing()
    runner = WorkerRunner()
    await runner.add_workers(worker)
    with pytest.raises(ValueError, match="it went wrong"):
        await runner.run()
    assert worker.steps == ["stop", "cleanup"]


async def test_both_run_once_in_a_child_and_in_its_parent() -> None:
    """N7, W5: the child's first."""
    steps: list[str] = []
    child, parent = Noting("child"), Noting("parent")
    child.steps = parent.steps = steps
    async with running(parent):
        await parent.add_workers(child)
    assert steps == ["stop", "cleanup"] * 2


@pytest.mark.parametrize("how", ["cleanup", "stop"])
@pytest.mark.parametrize("kind", [Noting, First])
async def test_both_run_once_in_a_worker_that_was_never_started(how: str, kind: type[Noting]) -> None:
    """N7, R1: it was attached, and may hold something from then on."""
    worker = kind()
    async with MemoryBus() as bus:
        await worker.attach(registry=WorkerRegistry("runner"), bus=bus)
        await getattr(worker, how)()
        assert not bus.has_subscriber(worker.name)
    assert sorted(worker.steps) == ["cleanup", "stop"]


@pytest.mark.parametrize("kind", [Noting, First, Alone])
async def test_both_run_once_in_a_worker_whose_runner_could_not_begin(kind: type[Noting]) -> None:
    """N7, R1: it leaves the bus, whatever its `stop()` does."""

    class Late(BaseWorker):
        async def attach(self, **kwargs: Any) -> None:
            await super().attach(**kwargs)
            raise OSError("no")

    worker, late = kind(), Late("late")
    runner = WorkerRunner()
    await runner.add_workers(worker)
    with pytest.raises(OSError, match="no"):
        await runner.add_workers(late)
    await runner.cancel()
    await runner.run()
    assert sorted(worker.steps) == ["cleanup", "stop"]


@pytest.mark.parametrize("kind", [Noting, First, Alone])
async def test_both_run_once_in_a_worker_whose_attachment_fails_late(kind: type[Noting]) -> None:
    """N7, R3: it is on the bus by then, and leaves it."""

    class Failing(kind):  # type: ignore[misc, valid-type]  # a base chosen by the parameter
        async def attach(self, **kwargs: Any) -> None:
            await super().attach(**kwargs)
            raise OSError("no")

    worker = Failing()
    async with WorkerRunner() as runner:
        with pytest.raises(OSError, match="no"):
            await runner.add_workers(worker)
        assert sorted(worker.steps) == ["cleanup", "stop"]
        assert not runner.bus.has_subscriber(worker.name)


class Asking(Noting):
    async def stop(self) -> None:
        self.steps.append((await self.job("other", name="echo"))["worker"])
        await BaseWorker.stop(self)


@pytest.mark.parametrize("end", [by_a_message, by_a_cancel, by_stop])
async def test_stop_may_ask_for_a_job(end: End) -> None:
    """N7: it comes before the worker is wound down."""
    worker = Asking()
    async with running(worker, Helper("other")) as runner:
        await end(worker, runner)
        await worker.wait()
    assert worker.steps == ["other", "cleanup"]


async def test_an_end_lets_run_return_though_stop_is_overridden() -> None:
    """N7, R2: the base's `stop()`, called by the override, does not cancel `run()` then."""

    class Orderly(Noting):
        async def run(self, params: WorkerParams) -> None:
            await super().run(params)
            await anyio.sleep(1)
            self.steps.append("run")

    worker = Orderly()
    async with running(worker):
        pass
    assert worker.steps == ["stop", "run", "cleanup"]


@pytest.mark.parametrize("end", [by_a_message, by_a_cancel])
async def test_a_stop_that_fails_is_logged_and_keeps_nothing_from_ending(
    end: End, caplog: pytest.LogCaptureFixture
) -> None:
    """N7, L4"""

    class Failing(Noting):
        async def stop(self) -> None:
            await super().stop()
            raise ValueError("it went wrong")

    worker = Failing()
    with caplog.at_level(logging.ERROR, logger="workerbus"):
        async with running(worker) as runner:
            await end(worker, runner)
            await worker.wait()
    assert worker.steps == ["stop", "cleanup"]
    assert [record.message for record in caplog.records] == ["stop() of worker 'noting' failed"]


@pytest.mark.parametrize("end", [by_a_message, by_a_cancel])
async def test_a_stop_that_hangs_is_bounded(end: End, caplog: pytest.LogCaptureFixture) -> None:
    """N7, L4, R2: by the grace period at an end, else by the deadline of the wind-down."""

    class Hanging(Noting):
        async def stop(self) -> None:
            self.steps.append("stop")
            await anyio.sleep_forever()

    worker = Hanging()
    async with running(worker, grace_period=3) as runner:
        before = anyio.current_time()
        await end(worker, runner)
        await worker.wait()
        took = anyio.current_time() - before
    assert took == pytest.approx(3 if end is by_a_message else CLEANUP_SECONDS, abs=0.1)
    assert worker.steps == ["stop", "cleanup"]
    assert "'noting'" in caplog.text


async def test_a_mocked_stop_is_called() -> None:
    """N7: on the object."""
    calls: list[str] = []
    worker = BaseWorker("worker")

    async def stop() -> None:
        calls.append("stop")

    worker.stop = stop  # type: ignore[method-assign]  # on purpose
    async with running(worker):
        pass
    assert calls == ["stop"]


@pytest.mark.parametrize("frame", [True, False])
async def test_stop_of_a_pipelines_worker_runs_once(frame: bool) -> None:
    """N7, P2: whether a frame ends it or the runner."""
    steps: list[str] = []

    class Piping(PipelineWorker):
        async def stop(self) -> None:
            steps.append("stop")
            await super().stop()

        async def cleanup(self) -> None:
            steps.append("cleanup")
            await super().cleanup()

    worker = Piping(Pipeline([FrameProcessor()]), name="piping")
    async with running(worker):
        if frame:
            await worker.queue_frame(EndFrame())
            await worker.wait()
    assert steps == ["stop", "cleanup"]


async def test_a_worker_that_has_stopped_so_takes_no_more() -> None:
    """W6: `super().stop()` in the override does what it says."""
    worker = Noting()
    async with running(worker):
        await worker.stop()
        await eventually(lambda: "cleanup" in worker.steps)
        with pytest.raises(NotRunningError):
            worker.job("other")
