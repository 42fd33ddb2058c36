"""N1: names that are still there, and what they say."""

import warnings
from typing import Any

import pytest

from support.workers import Helper
from workerbus import BaseWorker, NotRunningError, PipelineRunner, WorkerParams, WorkerRunner


def test_the_deprecated_runner_warns_and_is_a_runner() -> None:
    """N1: `PipelineRunner` is a deprecated alias."""
    with pytest.warns(DeprecationWarning, match=r"^PipelineRunner is deprecated: use WorkerRunner$"):
        runner = PipelineRunner(name="r", handle_sigint=False)
    assert isinstance(runner, WorkerRunner)
    assert runner.name == "r"


async def test_running_a_worker_directly_is_deprecated_but_works() -> None:
    """N1: ``run(worker)`` is the seeds' deprecated form."""

    class Brief(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()

    worker = Brief("brief")
    with pytest.warns(DeprecationWarning, match="add_workers"):
        await WorkerRunner(handle_sigint=False).run(worker)
    assert worker.started_at is not None


async def test_what_is_deprecated_is_reported_at_the_line_of_its_user() -> None:
    """N1: it counts frames, so a tool that puts one more around each function breaks it."""
    with pytest.warns(DeprecationWarning, match="deprecated") as caught:  # noqa: PT031 - both are to be seen
        runner = PipelineRunner(handle_sigint=False)
        await runner.cancel()
        with pytest.raises(NotRunningError):
            await runner.run(Helper("helper"))
    assert [warning.filename for warning in caught] == [__file__, __file__]


def test_the_deprecated_name_takes_what_the_new_one_takes_and_no_more() -> None:
    """N1."""
    anything: Any = "runner"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(TypeError):
            PipelineRunner(anything)


async def test_the_deprecated_argument_of_run_says_what_to_use() -> None:
    """N1."""
    runner = WorkerRunner(handle_sigint=False)
    await runner.cancel()
    text = r"^run\(worker\) is deprecated: use add_workers\(worker\)$"
    with pytest.warns(DeprecationWarning, match=text), pytest.raises(NotRunningError, match="comes too late"):
        await runner.run(Helper("helper"))
