"""W8: the tasks that run one handler after another."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus.jobs._pool import IDLE_TASKS, TaskPool
from workerbus.testing import run

Job = Callable[[CancelScope], Awaitable[bool]]


colour: ContextVar[str] = ContextVar("colour", default="none")


size: ContextVar[int] = ContextVar("size")


async def perform(job: Job, scope: CancelScope) -> bool:
    return await job(scope)


@asynccontextmanager
async def pool() -> AsyncIterator[TaskPool[Job]]:
    async with anyio.create_task_group() as group:
        host = TaskHost(group, CleanUp())
        yield TaskPool("test", perform, lambda: host)
        group.cancel_scope.cancel()


class Log:
    """Jobs that write down in whose scope they ran, one per task, and what they saw of the context variables."""

    def __init__(self) -> None:
        self.tasks: list[CancelScope] = []
        self.colours: list[str] = []
        self.sizes: list[int | None] = []

    def job(
        self, *, sets: str | None = None, grows: int | None = None, resets: bool = False, reusable: bool = True
    ) -> Job:
        async def run(scope: CancelScope) -> bool:
            self.tasks.append(scope)
            self.colours.append(colour.get())
            self.sizes.append(size.get(None))
            await checkpoint()
            if sets is not None:
                token = colour.set(sets)
                if resets:
                    colour.reset(token)
            if grows is not None:
                size.set(grows)
            return reusable

        return run


async def in_turn(pool: TaskPool[Job], *jobs: Job) -> None:
    for job in jobs:
        pool.submit(job)
        await anyio.wait_all_tasks_blocked()
        await pool.quiet()


async def test_a_task_is_used_again() -> None:
    log = Log()
    async with pool() as tasks:
        await in_turn(tasks, log.job(), log.job(), log.job())
    assert len(log.tasks) == 3
    assert len(set(log.tasks)) == 1


async def test_a_context_variable_that_was_changed_is_put_back() -> None:
    """W8: what a handler sets ends with it, and its task goes on."""
    log = Log()
    colour.set("blue")
    async with pool() as tasks:
        await in_turn(tasks, log.job(sets="red"), log.job(sets="green", resets=True), log.job())
    assert log.colours == ["blue", "blue", "blue"]
    assert len(set(log.tasks)) == 1


async def test_a_task_with_a_new_context_variable_is_retired() -> None:
    """W8: nothing can take it back."""
    log = Log()
    async with pool() as tasks:
        await in_turn(tasks, log.job(grows=3), log.job(grows=4), log.job())
    assert log.sizes == [None, None, None]
    assert len(set(log.tasks)) == 3


async def test_jobs_start_with_the_context_of_the_host_and_not_of_who_submits() -> None:
    """W8: in a new task as in an old one."""
    log = Log()
    colour.set("of the host")
    async with pool() as tasks:
        colour.set("of a sender")
        await in_turn(tasks, log.job(), log.job())
    assert log.colours == ["of the host", "of the host"]


async def test_jobs_that_run_at_once_do_not_see_each_other() -> None:
    """W8: contexts are not shared."""
    seen: list[str] = []
    both = anyio.Event()

    def job(mine: str) -> Job:
        async def run(scope: CancelScope) -> bool:
            colour.set(mine)
            if seen:
                both.set()
            seen.append(mine)
            await both.wait()
            assert colour.get() == mine
            return True

        return run

    async with pool() as tasks:
        tasks.submit(job("red"))
        tasks.submit(job("green"))
        await both.wait()
        await tasks.quiet()
    assert sorted(seen) == ["green", "red"]


async def test_a_task_that_is_not_to_be_used_again_is_retired() -> None:
    log = Log()
    async with pool() as tasks:
        await in_turn(tasks, log.job(reusable=False), log.job())
    assert len(set(log.tasks)) == 2


async def test_a_cancelled_task_is_retired() -> None:
    """W8: its scope cannot be taken back."""
    log, unwound = Log(), anyio.Event()

    async def waits(scope: CancelScope) -> bool:
        log.tasks.append(scope)
        scope.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            unwound.set()
        return True

    async with pool() as tasks:
        await in_turn(tasks, waits)
        assert unwound.is_set()
        await in_turn(tasks, log.job(), log.job())
    assert log.tasks[0] not in log.tasks[1:]
    assert log.tasks[1] == log.tasks[2]


async def test_cancel_reaches_what_runs_and_nothing_else() -> None:
    """W6: idle tasks go on to serve."""
    log, unwound = Log(), list[str]()

    async def waits(scope: CancelScope) -> bool:
        try:
            await anyio.sleep_forever()
        finally:
            unwound.append("job")
        return True

    async with pool() as tasks:
        await in_turn(tasks, log.job())
        tasks.submit(log.job())
        tasks.submit(waits)
        tasks.submit(waits)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel()
        await tasks.quiet()
        assert unwound == ["job", "job"]
        await in_turn(tasks, log.job())
    assert len(log.tasks) == 3
    assert len(set(log.tasks)) == 1


@pytest.mark.parametrize("count", [1, IDLE_TASKS, 2 * IDLE_TASKS])
async def test_every_job_runs_once_and_not_more_tasks_than_allowed_are_kept(count: int) -> None:
    done: list[int] = []
    gate = anyio.Event()

    def job(number: int) -> Job:
        async def run(scope: CancelScope) -> bool:
            await gate.wait()
            done.append(number)
            return True

        return run

    before = len(anyio.get_running_tasks())
    async with pool() as tasks:
        for number in range(count):
            tasks.submit(job(number))
        await anyio.wait_all_tasks_blocked()
        assert len(tasks.busy) == count
        gate.set()
        await tasks.quiet()
        await anyio.wait_all_tasks_blocked()
        assert sorted(done) == list(range(count))
        assert len(anyio.get_running_tasks()) - before == min(count, IDLE_TASKS)
    assert len(anyio.get_running_tasks()) == before


async def test_quiet_waits_for_what_runs() -> None:
    release, quiet = anyio.Event(), anyio.Event()

    async def waits(scope: CancelScope) -> bool:
        await release.wait()
        return True

    async def wait_for_quiet(tasks: TaskPool[Job]) -> None:
        await tasks.quiet()
        quiet.set()

    async with pool() as tasks:
        await tasks.quiet()
        tasks.submit(waits)
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as group:
            group.start_soon(wait_for_quiet, tasks)
            await anyio.wait_all_tasks_blocked()
            assert not quiet.is_set()
            release.set()
    assert quiet.is_set()


async def test_the_scope_of_a_task_has_no_deadline_while_it_is_idle() -> None:
    """J6: a job that sets one takes it back; the pool leaves it alone."""
    log = Log()

    async def short(scope: CancelScope) -> bool:
        log.tasks.append(scope)
        scope.deadline = anyio.current_time() + 60
        await checkpoint()
        scope.deadline = float("inf")
        return not scope.cancel_called

    async with pool() as tasks:
        await in_turn(tasks, short, log.job())
    assert len(set(log.tasks)) == 1


@pytest.mark.parametrize("schedule", range(8))
def test_quiet_is_when_no_job_runs_at_that_very_moment(backend: str, schedule: int) -> None:
    """W6: for all who wait, though one ended before, and somebody has submitted another one since."""

    async def main() -> None:
        ended = anyio.Event()

        async def first(_: CancelScope) -> bool:
            await checkpoint()
            ended.set()
            return True

        async def second(_: CancelScope) -> bool:
            await anyio.sleep(1)
            return True

        async def submit_another(tasks: TaskPool[Job]) -> None:
            await ended.wait()
            tasks.submit(second)

        async def wait(tasks: TaskPool[Job]) -> None:
            await tasks.quiet()
            assert tasks.idle

        async with pool() as tasks, anyio.create_task_group() as group:
            tasks.submit(first)
            for _ in range(3):
                group.start_soon(wait, tasks)
            group.start_soon(submit_another, tasks)

    run(main, backend=backend, seed=schedule)


async def test_all_who_wait_for_quiet_go_on() -> None:
    """R2, W6: an end that waits for jobs, and a cancel that comes meanwhile."""
    release, over = anyio.Event(), list[int]()

    async def wait(scope: CancelScope) -> bool:
        await release.wait()
        return True

    async with pool() as tasks, anyio.create_task_group() as group:

        async def quiet(number: int) -> None:
            await tasks.quiet()
            over.append(number)

        tasks.submit(wait)
        for number in range(3):
            group.start_soon(quiet, number)
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert sorted(over) == [0, 1, 2]
