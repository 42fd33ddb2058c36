"""S1, S2: the members of a pool: how they are made, come, go, and are restarted; and what is counted."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import current_time, to_thread
from anyio.lowlevel import checkpoint

from support.pools import END, Crash, Member, pool_of
from support.requesters import Raw, outcome_of
from support.threads import in_a_thread
from support.workers import running
from workerbus import (
    Backoff,
    BaseWorker,
    BusJobRequestMessage,
    FactoryError,
    JobError,
    JobStatus,
    MemberStatistics,
    NotRunningError,
    RestartLimitError,
    WorkerErrorData,
    WorkerParams,
    WorkerPool,
    WorkerRunner,
    WrongLoopError,
    job,
)
from workerbus.testing import run, settle

SOON = Backoff(initial=0.5, factor=1, jitter=0)


def names(pool: WorkerPool) -> list[str]:
    return [child.name for child in pool.children]


async def test_the_members_are_children_of_the_pool_under_its_name() -> None:
    """S2, W5."""
    pool = pool_of(3)
    async with running(pool):
        assert names(pool) == ["pool/1", "pool/2", "pool/3"]
        assert {child.parent for child in pool.children} == {"pool"}
        assert pool.size == 3


async def test_a_class_of_workers_is_a_factory() -> None:
    """S2."""
    async with running(WorkerPool("echoes", BaseWorker, size=2)) as runner:
        await runner.registry.wait_for("echoes/2")


async def test_a_member_that_fails_is_restarted_and_its_job_alone_is_an_error() -> None:
    """S1, S2: those that wait are not touched."""
    log: list[Any] = []
    async with running(pool_of(1, log=log, backoff=SOON)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "pool", "crash")
        await raw.ask("2", "pool", "who", payload={"n": 2})
        await raw.ask("3", "pool", "who", payload={"n": 3})
        await raw.until_answered("3")
    assert raw.answers("1") == [(JobStatus.ERROR, {"error": "a member has crashed", "type": "Crash"})]
    assert [raw.answers(each)[0][0] for each in "23"] == [JobStatus.COMPLETED] * 2
    assert log == [("crashed", "pool/1", 1), 2, 3]


async def test_a_job_that_may_be_repeated_is_done_by_another_member() -> None:
    """S2, J20: the job says so."""
    log: list[Any] = []

    class OnceBad(Member):
        @job(name="try")
        async def attempt(self, message: BusJobRequestMessage) -> dict[str, Any]:
            self.log.append((self.name, message.attempt))
            if message.attempt == 1:
                raise Crash("the first time")
            return {"member": self.name}

    async with running(pool_of(2, log=log, kind=OnceBad, backoff=Backoff(initial=60))) as runner:
        asked = runner.job("pool", name="try", attempts=3, retry_on=JobStatus.ERROR)
        answer = await asked
        assert asked.attempts == 2
        assert answer["member"] != log[0][0]


async def test_a_member_that_ends_by_itself_is_restarted_too() -> None:
    """S1, S2: a pool has the size that it is to have."""

    class Leaving(Member):
        @job(name="leave")
        async def leave(self, message: BusJobRequestMessage) -> None:
            await self.stop()

    pool = pool_of(1, kind=Leaving, backoff=SOON)
    async with running(pool) as runner:
        for times in (1, 2):
            await runner.job("pool", name="leave")
            await anyio.sleep(0.125)
            assert (await runner.job("pool", name="who", payload={"n": 1}))["member"] == "pool/1"
            assert pool.statistics().members["pool/1"].restarts == times


async def test_a_member_beyond_its_restarts_is_given_up_and_the_others_go_on() -> None:
    """S1, S2: its failure is reported as that of any child."""
    reported: list[WorkerErrorData] = []

    class Watching(WorkerPool):
        async def on_worker_failed(self, data: WorkerErrorData) -> None:
            reported.append(data)

    pool = Watching("pool", lambda name: Member(name, []), size=2, max_restarts=0)
    async with running(pool) as runner:
        await outcome_of(runner, "pool", name="crash")
        await anyio.sleep(1)
        assert (await runner.job("pool", name="who", payload={"n": 1}))["n"] == 1
        assert len(names(pool)) == 1
    [data] = reported
    assert isinstance(data.exception, RestartLimitError)


@pytest.mark.parametrize("delay", [None, 9])
async def test_with_the_last_member_given_up_all_jobs_are_answered(delay: int | None) -> None:
    """S2, J4: those that wait, those that are to begin later, and those that come later."""

    class Watching(WorkerPool):
        async def on_worker_failed(self, data: WorkerErrorData) -> None: ...

    pool = Watching("pool", lambda name: Member(name, []), size=1, max_restarts=0)
    async with running(pool) as runner:
        async with anyio.create_task_group() as tasks:
            ended: list[Any] = []

            async def ask(name: str) -> None:
                ended.append(await outcome_of(runner, "pool", name=name, delay=None if name == "crash" else delay))

            tasks.start_soon(ask, "crash")
            await anyio.sleep(0.125)
            tasks.start_soon(ask, "who")
            tasks.start_soon(ask, "who")
        assert [status for status, _ in ended] == [JobStatus.ERROR] * 3


async def test_a_member_that_cannot_be_made_anew_is_given_up() -> None:
    """S1, S2, N8: its factory returns the same worker again."""
    made: dict[str, Member] = {}
    pool = WorkerPool("pool", lambda name: made.setdefault(name, Member(name, [])), size=1, backoff=SOON)
    async with running(pool) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await outcome_of(runner, "pool", name="crash")
        status, answer = await outcome_of(runner, "pool", name="who")
        assert (status, answer["type"]) == (JobStatus.ERROR, "WorkerFailed")
        assert "a worker object runs once" in answer["error"]


async def test_all_who_wait_hear_at_once_that_the_last_member_is_given_up() -> None:
    """S2, J4."""

    class Watching(WorkerPool):
        async def on_worker_failed(self, data: WorkerErrorData) -> None: ...

    class Slow(Member):
        @job(name="crash late")
        async def crash_late(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep(2)
            raise Crash("a member has crashed")

    pool = Watching("pool", lambda name: Slow(name, []), size=1, max_restarts=0)
    async with running(pool) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("0", "pool", "crash late")
        for n in range(1, 5):
            await raw.ask(str(n), "pool", "who", payload={"n": n})
        for n in range(5):
            await raw.answer(str(n))
        assert current_time() == 2
        assert [raw.answers(str(n))[0][0] for n in range(5)] == [JobStatus.ERROR] * 5
        with pytest.raises(JobError, match=r"pool 'pool' has no members left: .*a member has crashed"):
            await runner.job("pool", name="who")


async def test_a_pool_grows_while_it_runs() -> None:
    """S2: those that wait are given to the new members."""
    pool = pool_of(1)
    async with running(pool) as runner:
        raw = await Raw.on(runner.bus)
        start = current_time()
        for n in range(4):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 2})
        await anyio.sleep(1)
        await pool.resize(4)
        assert names(pool) == ["pool/1", "pool/2", "pool/3", "pool/4"]
        await raw.until_answered(*"0123")
        assert current_time() - start < 3.25


async def test_a_pool_shrinks_while_it_runs_and_nothing_is_cut() -> None:
    """S2: members that go do what they have, and get no more."""
    pool = pool_of(3)
    async with running(pool) as runner:
        for child in pool.children:
            await runner.registry.wait_for(child.name)
        raw = await Raw.on(runner.bus)
        for n in range(3):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 8})
        await anyio.sleep(1)
        await pool.resize(1)
        assert pool.size == 1
        for n in range(3, 5):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 1})
        assert len(names(pool)) == 3
        await raw.until_answered("4")
        assert {raw.answers(str(n))[0][0] for n in range(5)} == {JobStatus.COMPLETED}
        assert len(names(pool)) == 1
        last = [raw.answers(str(n))[0][1] for n in (3, 4)]
        assert {each["member"] for each in last if each is not None} == set(names(pool))


async def test_a_member_that_goes_finishes_all_that_it_has_and_its_name_is_free_after_that() -> None:
    """S2: and a pool may grow again meanwhile."""
    pool = pool_of(2, concurrency=3)
    async with running(pool) as runner:
        raw = await Raw.on(runner.bus)
        for n in range(6):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 1 + n})
        await anyio.sleep(0.5)
        await pool.resize(1)
        await anyio.sleep(0.1)
        await pool.resize(3)
        assert sorted(names(pool)) == ["pool/1", "pool/2", "pool/3", "pool/4"]
        await raw.until_answered(*"012345")
        assert [raw.answers(str(n))[0][0] for n in range(6)] == [JobStatus.COMPLETED] * 6
        await settle()
        assert len(names(pool)) == 3
        await pool.resize(4)
        assert sorted(names(pool)) == ["pool/1", "pool/2", "pool/3", "pool/4"]


async def test_a_member_that_comes_has_as_many_of_those_that_wait_as_it_may() -> None:
    """S2: at once, and not one for each that ends."""
    pool = pool_of(1, concurrency=3)
    async with running(pool) as runner:
        raw = await Raw.on(runner.bus)
        for n in range(6):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 4})
        await anyio.sleep(1)
        await pool.resize(2)
        for n in range(6):
            await raw.answer(str(n))
        assert current_time() == 5


async def test_nobody_is_made_anew_of_a_pool_that_ends_after_it_has_grown() -> None:
    """S1, S2, R2: neither of the first members, nor of those that came later."""
    made: list[str] = []

    def factory(name: str) -> Member:
        made.append(name)
        return Member(name, [])

    pool = WorkerPool("pool", factory, size=1, backoff=Backoff(initial=0, jitter=0))
    async with running(pool) as runner:
        await pool.resize(3)
        raw = await Raw.on(runner.bus)
        for n in range(3):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 1 + n})
        await anyio.sleep(0.5)
        await runner.end()
        await pool.wait()
    assert made == ["pool/1", "pool/2", "pool/3"]


async def test_a_member_that_fails_while_it_is_let_go_fails_nobody_else() -> None:
    """S2, W7: the job that it had is answered ERROR, and that is all."""
    log: list[Any] = []

    class Late(Member):
        @job(name="late crash")
        async def late_crash(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep(3)
            raise Crash("on its way out")

    pool = pool_of(2, log=log, kind=Late)
    async with running(pool) as runner:
        raw = await Raw.on(runner.bus)
        for n in "12":
            await raw.ask(n, "pool", "late crash")
        await anyio.sleep(1)
        await pool.resize(1)
        await raw.until_answered("1", "2")
        await anyio.sleep(5)
        assert len(names(pool)) == 1
    assert [raw.answers(n)[0][0] for n in "12"] == [JobStatus.ERROR] * 2


async def test_idle_members_go_first() -> None:
    """S2."""
    pool = pool_of(3)
    async with running(pool) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "pool", "sleep", payload={"n": 1, "seconds": 9})
        await anyio.sleep(1)
        busy = next(name for name, each in pool.statistics().members.items() if each.running)
        await pool.resize(1)
        await anyio.sleep(1)
        assert names(pool) == [busy]
        await pool.resize(2)
        assert len(names(pool)) == 2
        await raw.until_answered("1")


async def test_a_pool_is_resized_before_it_starts() -> None:
    """S2."""
    pool = pool_of(1)
    await pool.resize(4)
    async with running(pool):
        assert len(names(pool)) == 4


async def test_a_pool_that_is_started_twice_at_once_has_as_many_members_as_it_is_to_have() -> None:
    """S2, W2."""

    class Eager(WorkerPool):
        async def start(self) -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(super().start)

    pool = Eager("pool", partial(Member, log=[]), size=2)
    async with running(pool):
        assert names(pool) == ["pool/1", "pool/2"]


@pytest.mark.parametrize("size", [1, 4])
def test_a_pool_is_resized_while_it_starts(backend: str, size: int) -> None:
    """S2: at whichever step."""

    async def main(steps: int) -> bool:
        pool = pool_of(2)

        async def resize() -> None:
            for _ in range(steps):
                await checkpoint()
            started.append(bool(names(pool)))
            await pool.resize(size)

        started: list[bool] = []
        async with running() as runner:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner.add_workers, pool)
                tasks.start_soon(resize)
            await runner.registry.wait_for("pool/1")
            await settle()
            assert len(names(pool)) == len(pool.statistics().members) == pool.size == size
        return started[0]

    steps = 0
    while not run(partial(main, steps), backend=backend, seed=steps):
        steps += 1
    assert steps > 1


async def test_a_member_that_waits_for_its_restart_goes_first() -> None:
    """S2: and is not restarted."""
    pool = pool_of(2, backoff=Backoff(initial=5, jitter=0))
    async with running(pool) as runner:
        await outcome_of(runner, "pool", name="crash")
        await anyio.sleep(1)
        await pool.resize(1)
        left = names(pool)
        assert len(left) == 1
        await anyio.sleep(9)
        assert names(pool) == left
        assert list(pool.statistics().members) == left


async def test_a_pool_counts_for_each_member_what_it_does() -> None:
    """S2: under one name, over restarts."""
    pool = pool_of(1, backoff=SOON)
    async with running(pool) as runner:
        await runner.job("pool", name="who")
        await outcome_of(runner, "pool", name="crash")
        await runner.job("pool", name="who")
        raw = await Raw.on(runner.bus)
        for n in range(3):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 1})
        await anyio.sleep(0.5)
        counts = pool.statistics()
        assert (counts.size, counts.running, counts.waiting, counts.active_jobs) == (1, 1, 2, 3)
        assert pool.waiting == 2
        assert counts.members == {
            "pool/1": MemberStatistics(
                ready=True, running=1, answered={JobStatus.COMPLETED: 2, JobStatus.ERROR: 1}, restarts=1
            )
        }
        await anyio.sleep(5)


async def test_a_runner_counts_each_job_of_a_pool_once() -> None:
    """O2, S2: one that waits is the pool's, one that runs its member's; and its answer is the pool's."""
    pool = pool_of(1)
    async with running(pool) as runner:
        raw = await Raw.on(runner.bus)
        for n in range(3):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 1})
        await anyio.sleep(0.5)
        workers = runner.statistics().workers
        assert [each.job_id for each in workers["pool"].jobs] == ["1", "2"]
        assert [(each.job_id, each.requester) for each in workers["pool/1"].jobs] == [("0", "raw")]
        await raw.until_answered("2")
        assert runner.statistics().jobs_answered[JobStatus.COMPLETED] == 3


async def test_a_pool_that_ends_does_all_its_jobs_first_those_that_wait_too() -> None:
    """S2, R2."""
    log: list[Any] = []
    async with WorkerRunner(handle_sigint=False, job_grace=60) as runner:
        await runner.add_workers(pool_of(1, log=log))
        raw = await Raw.on(runner.bus)
        for n in range(4):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 3})
        await anyio.sleep(1)
        await runner.end()
        await anyio.sleep(1)
        await raw.ask("late", "pool", "who")
        await anyio.sleep(0.5)
        assert raw.answers("late") == [
            (JobStatus.CANCELLED, {"error": "worker 'pool' is stopping", "type": "Cancelled"})
        ]
    assert [raw.answers(str(n))[0][0] for n in range(4)] == [JobStatus.COMPLETED] * 4


@pytest.mark.parametrize("first", ["sleep", "crash"])
async def test_a_pool_that_ends_lets_no_job_wait_for_members_that_will_not_come(first: str) -> None:
    """S1, S2: its last member crashes while it ends, or has crashed before."""
    async with WorkerRunner(handle_sigint=False, job_grace=100) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.add_workers(pool_of(1, backoff=SOON))
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "pool", first, payload={"n": 1, "seconds": 1})
        await raw.ask("2", "pool", "crash")
        await raw.ask("3", "pool", "who")
        await anyio.sleep(0.25)
        start = current_time()
    assert current_time() - start < 2
    [(status, answer)] = raw.answers("3")
    assert status is JobStatus.CANCELLED
    assert answer is not None
    assert answer["type"] == "Cancelled"


async def test_a_pool_that_is_cancelled_answers_all_its_jobs() -> None:
    """S2, J1, L1: those that members have, when these have unwound; and those that wait."""
    log: list[Any] = []
    async with running(pool_of(2, log=log)) as runner:
        raw = await Raw.on(runner.bus)
        for n in range(5):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 99})
        await anyio.sleep(1)
        await runner.cancel("enough")
    assert [[status for status, _ in raw.answers(str(n))] for n in range(5)] == [[JobStatus.CANCELLED]] * 5
    assert sorted(each[1] for each in log if each[0] == END) == [0, 1]


async def test_a_handler_of_a_member_that_refuses_to_end_does_not_keep_its_job_open() -> None:
    """S2, L4."""

    class Stubborn(Member):
        @job(name="stay")
        async def stay(self, message: BusJobRequestMessage) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(12)

    pool = pool_of(1, kind=Stubborn)
    async with running(pool) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "pool", "stay")
        await anyio.sleep(1)
        start = current_time()
        with anyio.move_on_after(1):
            await pool.stop()
        await raw.until_answered("1")
        assert current_time() - start < 10
    assert len(raw.answers("1")) == 1


def wrong_name(name: str) -> BaseWorker:
    return BaseWorker("other")


def no_worker(name: str) -> Any:
    return name


async def later(name: str) -> Any:
    return BaseWorker(name)


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        (wrong_name, "was called with 'pool/1' and has made a worker 'other'"),
        (no_worker, "the factory of pool 'pool' returns a worker, not 'pool/1'"),
        (later, "the factory of pool 'pool' is a plain function, and not an async one"),
    ],
)
async def test_a_factory_that_makes_something_else_fails_the_start_of_the_pool(
    factory: Callable[[str], Any], text: str
) -> None:
    """S2, N8."""
    async with WorkerRunner(handle_sigint=False) as runner:
        with pytest.raises(FactoryError, match=text):
            await runner.add_workers(WorkerPool("pool", factory, size=2), wait=True)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"size": 0}, ValueError, "size is at least 1, not 0"),
        ({"size": 2.0}, TypeError, "size is a whole number, not 2.0"),
        ({"size": True}, TypeError, "size is a whole number, not True"),
        ({"concurrency": 0}, ValueError, "concurrency is at least 1, not 0"),
        ({"max_waiting": -1}, ValueError, "max_waiting is at least 0, not -1"),
        ({"factory": "Fetcher"}, TypeError, "the factory of a pool is called with the name of a member"),
        ({"factory": lambda: None}, TypeError, "the factory of a pool is called with the name of a member"),
    ],
)
def test_wrong_arguments_are_refused_where_the_pool_is_made(wrong: Any, error: type[Exception], text: str) -> None:
    """S2, N8."""
    arguments: dict[str, Any] = {"factory": BaseWorker, "size": 2, **wrong}
    with pytest.raises(error, match=text):
        WorkerPool("pool", arguments.pop("factory"), **arguments)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"max_restarts": -1}, ValueError), ({"within": 0}, ValueError), ({"backoff": 3}, TypeError)],
)
def test_wrong_limits_of_restarts_are_refused_where_the_pool_is_made(wrong: Any, error: type[Exception]) -> None:
    """S1, S2, N8."""
    with pytest.raises(error):
        WorkerPool("pool", BaseWorker, size=2, **wrong)


@pytest.mark.parametrize("size", [1, 3])
async def test_a_pool_that_is_ending_is_not_resized(size: int) -> None:
    """S2."""
    pool = pool_of(2)
    async with running(pool):
        pass
    with pytest.raises(NotRunningError, match="pool 'pool' is ending"):
        await pool.resize(size)
    assert pool.size == 2


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_pool_is_not_resized_from_another_thread(backend: str, size: int) -> None:
    """S2, L7"""
    pool = pool_of(2)
    async with running(pool):
        raised = await to_thread.run_sync(in_a_thread, lambda: pool.resize(size), backend)
        assert isinstance(raised, WrongLoopError)
        assert (pool.size, len(names(pool))) == (2, 2)


async def test_sizes_that_are_asked_for_at_once_follow_each_other() -> None:
    """S2: nobody is left over, and no name is taken twice."""
    pool = pool_of(2)
    async with running(pool):
        async with anyio.create_task_group() as tasks:
            for size in (10, 2, 5, 1, 3):
                tasks.start_soon(pool.resize, size)
        await anyio.sleep(1)
        assert pool.size in (10, 2, 5, 1, 3)  # in whichever order the tasks came
        assert len(names(pool)) == len(pool.statistics().members) == pool.size


async def test_a_resize_that_is_cancelled_or_whose_factory_raises_changes_nothing() -> None:
    """S2, L1."""
    made: list[str] = []

    def make(name: str) -> Member:
        made.append(name)
        if len(made) == 4:
            raise ValueError("no more")
        return Member(name, [])

    pool = WorkerPool("pool", make, size=2)
    async with running(pool):
        with pytest.raises(ValueError, match="no more"):
            await pool.resize(5)
        assert (pool.size, list(pool.statistics().members)) == (2, names(pool))
        with anyio.move_on_after(0) as scope:
            await pool.resize(5)
        assert scope.cancel_called
        assert (pool.size, list(pool.statistics().members)) == (2, names(pool))
        await pool.resize(3)
        assert list(pool.statistics().members) == names(pool) == ["pool/1", "pool/2", "pool/3"]


class Gated(WorkerPool):
    """A pool whose members, from the third on, are attached when a gate is opened."""

    def __init__(self) -> None:
        super().__init__("pool", self.make, size=2)
        self.gate = anyio.Event()

    def make(self, name: str) -> Member:
        gate = self.gate

        class Late(Member):
            async def attach(self, **kwargs: Any) -> None:
                if name not in ("pool/1", "pool/2"):
                    await gate.wait()
                await super().attach(**kwargs)

        return Late(name, [])


async def test_a_resize_that_is_cut_off_while_it_adds_members_changes_nothing() -> None:
    """S2, L1"""
    pool = Gated()
    async with running(pool):
        with anyio.move_on_after(1) as scope:
            await pool.resize(5)
        assert scope.cancelled_caught
        assert (pool.size, list(pool.statistics().members)) == (2, ["pool/1", "pool/2"])
        pool.gate.set()
        await settle()
        assert names(pool) == ["pool/1", "pool/2"]
        await pool.resize(3)
        assert list(pool.statistics().members) == names(pool) == ["pool/1", "pool/2", "pool/3"]


async def test_a_resize_that_waits_for_an_earlier_one_is_refused_when_the_pool_ends_meanwhile() -> None:
    """S2"""
    pool, refused = Gated(), list[NotRunningError]()

    async def resize(size: int) -> None:
        try:
            await pool.resize(size)
        except NotRunningError as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks, running(pool) as runner:
        tasks.start_soon(resize, 3)
        await settle()
        tasks.start_soon(resize, 9)
        await settle()
        assert pool.size == 3
        await runner.end()
        await settle()
        pool.gate.set()
        await pool.wait()
    assert "pool 'pool' is ending" in str(refused[-1])
    assert pool.size != 9


async def test_of_idle_members_those_go_first_that_came_last() -> None:
    """S2"""
    pool = pool_of(5)
    async with running(pool):
        await pool.resize(2)
        await settle()
        assert names(pool) == ["pool/1", "pool/2"]


async def test_a_member_that_is_just_being_restarted_may_be_let_go() -> None:
    """S1, S2: it ends as soon as it is there."""

    def make(name: str) -> Member:
        made.append(name)
        if len(made) == 3:
            tasks.start_soon(pool.resize, 1)
        return Member(name, [])

    made: list[str] = []
    pool = WorkerPool("pool", make, size=2, backoff=SOON)
    async with anyio.create_task_group() as tasks, running(pool) as runner:
        await outcome_of(runner, "pool", name="crash")
        await anyio.sleep(2)
        assert names(pool) == list(pool.statistics().members)
        assert len(names(pool)) == 1


async def test_another_size_makes_up_for_members_that_were_given_up() -> None:
    """S1, S2: jobs are taken again."""
    pool = pool_of(2, max_restarts=0)
    async with running(pool) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        for _ in range(2):
            await outcome_of(runner, "pool", name="crash")
        await anyio.sleep(1)
        assert (await outcome_of(runner, "pool", name="who"))[1]["type"] == "WorkerFailed"
        await pool.resize(2)
        assert (await runner.job("pool", name="who", payload={"n": 1}))["n"] == 1
        assert names(pool) == list(pool.statistics().members) == ["pool/1", "pool/2"]


async def test_nothing_is_kept_of_members_that_have_gone() -> None:
    """S2, L1: neither of those that end while others have all the jobs, nor of those that go in their backoff."""
    gone: list[weakref.ref[BaseWorker]] = []

    def make(name: str) -> Member:
        member = Member(name, [])
        gone.append(weakref.ref(member))
        return member

    pool = WorkerPool("pool", make, size=2, backoff=SOON, max_restarts=100)
    async with running(pool) as runner:
        await runner.job("pool", name="who", payload={"n": 1})
        for resized in [False] * 9 + [True] * 9:
            members = pool.statistics().members
            await next(child for child in pool.children if not members[child.name].answered).stop()
            if resized:
                await pool.resize(1)
                await pool.resize(2)
            await anyio.sleep(1)
        gc.collect()
        assert sum(each() is not None for each in gone) < 5


async def test_a_resize_one_of_whose_members_cannot_be_attached_changes_nothing() -> None:
    """S2: those before it and behind it are not there, nor counted; their names are used again."""

    class Picky(Member):
        async def attach(self, **kwargs: Any) -> None:
            if self.name == "pool/4" and not may:
                raise OSError("no device")
            await super().attach(**kwargs)

    may: list[bool] = []
    pool = pool_of(2, kind=Picky)
    async with running(pool) as runner:
        with pytest.raises(OSError, match="no device"):
            await pool.resize(5)
        assert (pool.size, list(pool.statistics().members)) == (2, names(pool))
        may.append(True)
        await pool.resize(4)
        assert list(pool.statistics().members) == names(pool) == [f"pool/{n}" for n in range(1, 5)]
        await pool.resize(1)
        assert (await runner.job("pool", name="who", payload={"n": 1}))["n"] == 1


@pytest.mark.parametrize("grows", [False, True])
async def test_members_that_fail_as_soon_as_they_are_there_leave_no_job_waiting(grows: bool) -> None:
    """S1, S2: before whoever adds them has gone on."""

    class Broken(Member):
        async def run(self, params: WorkerParams) -> None:
            if broken:
                raise ValueError("broken")
            await super().run(params)

    broken = [] if grows else [True]
    pool = pool_of(2, kind=Broken, max_restarts=0)
    async with WorkerRunner(handle_sigint=False) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.add_workers(pool)
        if grows:
            broken.append(True)
            for _ in range(2):
                await outcome_of(runner, "pool", name="crash")
            await pool.resize(3)
        with anyio.fail_after(1):
            assert (await outcome_of(runner, "pool", name="who"))[1]["type"] == "WorkerFailed"


@pytest.mark.parametrize("after", [0.5, 1.5])
async def test_members_that_cannot_be_added_leave_no_job_waiting_for_them(after: float) -> None:
    """S1, S2: where the last member is given up meanwhile; those that were added take no job before all are."""

    class Slow(Member):
        async def attach(self, **kwargs: Any) -> None:
            await anyio.sleep(1)
            await super().attach(**kwargs)

        @job(name="crash late")
        async def crash_late(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep(0.25)
            raise Crash("a member has crashed")

    pool = pool_of(1, kind=Slow, max_restarts=0)
    async with running(pool) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.registry.wait_for("pool/1")
        raw = await Raw.on(runner.bus)
        await raw.ask("crash", "pool", "crash late")
        await raw.ask("sleep", "pool", "sleep", payload={"seconds": 9})
        with anyio.move_on_after(after):
            await pool.resize(3)
        for job_id, kind in (("crash", "Crash"), ("sleep", "WorkerFailed")):
            await raw.answer(job_id)
            [(status, answer)] = raw.answers(job_id)
            assert (status, (answer or {})["type"]) == (JobStatus.ERROR, kind)
        assert (await outcome_of(runner, "pool", name="who"))[1]["type"] == "WorkerFailed"
