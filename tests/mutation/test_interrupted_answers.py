"""An interruption between the end of a handler and its answer, or between the end of a run and the wind-down.

On trio it may land in any line of a task.
"""

import anyio
import pytest

from support.requesters import Raw
from support.workers import Helper
from workerbus import BaseWorker, BusJobRequestMessage, JobStatus, MemoryBus, WorkerRunner, job
from workerbus._worker_life import WorkerLife
from workerbus.testing import run


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

    def interrupted(_: WorkerLife) -> bool:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkerLife, "_nothing_runs", interrupted)
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
