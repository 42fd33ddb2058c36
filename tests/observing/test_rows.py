"""O7: what a runner tells of itself, as rows."""

from typing import Any

import anyio
import pytest
from anyio import create_task_group, sleep

from support.workers import Helper, running
from workerbus import WorkerRunner
from workerbus.runner import _rows
from workerbus.runner._rows import Sections, difference, rows
from workerbus.testing import settle


def rows_of(runner: WorkerRunner, before: Sections | None = None) -> Sections:
    return rows(runner, runner.statistics(), [], before)


async def ask(runner: WorkerRunner, *names: str, **options: Any) -> None:
    await runner.job_group(*names, name="wait", **options)


async def test_of_very_many_jobs_the_oldest_are_told_of_whichever_workers_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """O7: and how many are left out."""
    monkeypatch.setattr(_rows, "JOBS", 4)
    async with running(Helper("young"), Helper("old")) as runner, create_task_group() as tasks:
        for name in ("old", "old", "young", "old", "young", "young"):
            tasks.start_soon(ask, runner, name)
            await sleep(0.1)
        seen = rows_of(runner)
        assert sorted(row["worker"] for row in seen["jobs"].values()) == ["old", "old", "old", "young"]
        assert seen["runner"][runner.name]["left_out"] == 2
        tasks.cancel_scope.cancel()


async def test_what_has_not_changed_is_not_told_again_however_long_it_takes() -> None:
    """O7: jobs that are under way, with and without a deadline, at each worker of a group."""
    workers = [Helper("one"), Helper("two")]
    async with running(*workers) as runner, create_task_group() as tasks:
        tasks.start_soon(lambda: ask(runner, "one", "two", timeout=10.0, cancel_on_error=False))
        tasks.start_soon(ask, runner, "two")
        await settle()
        first = rows_of(runner)
        await sleep(5.0)  # of virtual time: what the process's clock says has hardly moved
        second = rows_of(runner, first)
        assert difference(first, second) == {}
        workers[0].release.set()
        await settle()
        third = rows_of(runner, second)
        changes = difference(second, third)
        assert [key.partition("@")[2] for key in changes["jobs"]["gone"]] == ["one"]
        assert changes["jobs"]["set"] == {}
        assert list(changes["workers"]["set"]) == ["one"]
        tasks.cancel_scope.cancel()
    assert anyio.current_time() < 10.0
