"""S2: the jobs of a pool: who does them, in which order, and how they end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.conditions import eventually
from support.pools import END, Member, pool_of
from support.requesters import Raw, outcome_of
from support.workers import running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    JobError,
    JobRequestOptions,
    JobStatus,
    JobTimeoutError,
    NotRunningError,
    WorkerErrorData,
    WorkerPool,
    WorkerRunner,
    job,
)
from workerbus.testing import settle

Ended = tuple[JobStatus, dict[str, Any]]


@asynccontextmanager
async def pooling(*workers: BaseWorker) -> AsyncIterator[WorkerRunner]:
    """Run workers, pools among them, whose members have all started when the block begins."""
    async with running(*workers) as runner:
        for pool in workers:
            for child in pool.children:
                await runner.registry.wait_for(child.name)
        yield runner


def begun(log: list[Any]) -> list[int]:
    return [each[1] for each in log if each[0] == "begun"]


async def ask_many(runner: WorkerRunner, numbers: range, name: str = "sleep", **payload: Any) -> list[Ended]:
    """Ask a pool for jobs at the same time, and return how they ended."""
    ended: list[Ended] = []

    async def ask(n: int) -> None:
        ended.append(await outcome_of(runner, "pool", name=name, payload={"n": n, **payload}))

    async with anyio.create_task_group() as tasks:
        for n in numbers:
            tasks.start_soon(ask, n)
    return ended


async def in_order(runner: WorkerRunner, *asked: tuple[int, int], name: str = "sleep", seconds: float = 1) -> Raw:
    """Ask a pool for jobs, one after the other: each a number and a priority. Returns when all are answered."""
    raw = await Raw.on(runner.bus)
    for n, priority in asked:
        payload = {"n": n, "seconds": seconds}
        await raw.ask(str(n), "pool", name, payload=payload, options=JobRequestOptions(priority=priority))
    await raw.until_answered(*(str(n) for n, _ in asked))
    return raw


async def test_members_work_at_the_same_time_and_the_other_jobs_wait() -> None:
    """S2."""
    async with pooling(pool_of(3)) as runner:
        start = current_time()
        ended = await ask_many(runner, range(7), seconds=1)
        assert current_time() - start == 3
    assert sorted(response["n"] for _, response in ended) == list(range(7))
    assert {response["member"] for _, response in ended} == {"pool/1", "pool/2", "pool/3"}


async def test_jobs_that_wait_begin_in_the_order_of_arrival() -> None:
    """S2: on trio, too, which shuffles tasks."""
    log: list[Any] = []
    async with pooling(pool_of(1, log=log)) as runner:
        await in_order(runner, *[(n, 0) for n in range(9)])
    assert begun(log) == list(range(9))


async def test_jobs_with_a_higher_priority_begin_before_others_that_wait() -> None:
    """S2."""
    log: list[Any] = []
    async with pooling(pool_of(1, log=log)) as runner:
        await in_order(runner, (0, 0), (1, 0), (2, 3), (3, -1), (4, 3), (5, 0))
    assert begun(log) == [0, 2, 4, 1, 5, 3]


async def test_the_priority_of_a_job_is_said_where_it_is_asked_for() -> None:
    """S2."""
    log: list[Any] = []
    async with pooling(pool_of(1, log=log)) as runner:
        first = runner.job("pool", name="sleep", payload={"n": 0, "seconds": 1})
        low = runner.job_group("pool", name="sleep", payload={"n": 1, "seconds": 1}, priority=-1)
        high = runner.job("pool", name="sleep", payload={"n": 2, "seconds": 1}, priority=1)
        async with first, low, high:
            pass
    assert begun(log) == [0, 2, 1]


async def test_the_priority_of_a_job_without_a_context_is_said_too() -> None:
    """S2: of a job, and of each of a group."""
    log: list[Any] = []
    asker = BaseWorker("asker")
    async with pooling(pool_of(1, log=log)) as runner:
        await runner.add_workers(asker, wait=True)
        await asker.request_job("pool", name="sleep", payload={"n": 0, "seconds": 1})
        await asker.request_job("pool", name="sleep", payload={"n": 1, "seconds": 1}, priority=-1)
        await asker.request_job("pool", name="sleep", payload={"n": 2, "seconds": 1}, priority=1)
        await asker.request_job_group("pool", name="sleep", payload={"n": 3, "seconds": 1}, priority=2)
        await eventually(lambda: len(begun(log)) == 4)
    assert begun(log) == [0, 3, 2, 1]


@pytest.mark.parametrize("priority", ["high", None, 1.5, True])
async def test_a_priority_is_a_whole_number(priority: Any) -> None:
    """S2."""
    async with pooling(pool_of(1)) as runner:
        with pytest.raises(TypeError, match=r"^priority is a whole number, not "):
            runner.job("pool", name="who", priority=priority)


async def test_a_member_has_as_many_jobs_at_once_as_it_may() -> None:
    """S2: and the next goes to whoever has fewer."""
    async with pooling(pool_of(2, concurrency=3)) as runner:
        start = current_time()
        ended = await ask_many(runner, range(6), seconds=1)
        assert current_time() - start == 1
    members = [response["member"] for _, response in ended]
    assert members.count("pool/1") == members.count("pool/2") == 3


async def test_the_requester_hears_from_the_pool_and_never_of_its_members() -> None:
    """S2, J3: the pool's name is the source of all that comes back."""
    async with pooling(pool_of(2)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "pool", "who", payload={"n": 1}, headers={"traceparent": "00-1"})
        await raw.until_answered("1")
    to_raw = [message for message in raw.got if message.target == "raw"]
    assert [(message.source, message.headers) for message in to_raw] == [("pool", {"traceparent": "00-1"})]


async def test_a_job_of_a_pool_takes_no_message_more() -> None:
    """S2: a request, and an answer."""
    async with pooling(pool_of(4)) as runner:
        seen: list[str] = []
        runner.bus.add_tap(lambda message: seen.append(type(message).__name__))
        await runner.job("pool", name="who", payload={"n": 1})
        assert [name for name in seen if "Job" in name] == ["BusJobRequestMessage", "BusJobResponseMessage"]


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("fail", JobStatus.ERROR, "it went wrong"),
        ("refuse", JobStatus.FAILED, "not today"),
        ("crash", JobStatus.ERROR, "a member has crashed"),
        ("nothing", JobStatus.ERROR, "worker 'pool/1' has no handler for job 'nothing'"),
    ],
)
async def test_a_job_ends_as_its_member_says(name: str, status: JobStatus, text: str) -> None:
    """S2, J2."""
    async with pooling(pool_of(1)) as runner:
        ended, response = await outcome_of(runner, "pool", name=name)
        await anyio.sleep(1)  # for the restart
    assert ended is status
    assert text in response["error"]


async def test_jobs_that_nobody_can_do_are_answered_however_many_wait() -> None:
    """S2, J1: each refusal gives the place to the next in line."""
    log: list[Any] = []
    async with pooling(pool_of(1, log=log)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("long", "pool", "sleep", payload={"n": 0, "seconds": 1})
        for n in range(500):
            await raw.ask(str(n), "pool", "nothing")
        await raw.ask("last", "pool", "who", payload={"n": 1})
        await raw.until_answered("last")
        assert all(raw.answers(str(n))[0][0] is JobStatus.ERROR for n in range(500))


async def test_a_job_that_waits_is_cancelled_at_once_and_never_begins() -> None:
    """S2, J5."""
    log: list[Any] = []
    async with pooling(pool_of(1, log=log)) as runner:
        raw = await Raw.on(runner.bus)
        for n in (0, 1, 2):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 1})
        await raw.cancel("1", "pool", "not needed")
        await anyio.sleep(0.125)
        assert raw.answers("1") == [(JobStatus.CANCELLED, {"error": "not needed", "type": "Cancelled"})]
        await raw.until_answered("2")
    assert begun(log) == [0, 2]


async def test_a_job_that_a_member_has_is_cancelled_and_answered_when_it_has_unwound() -> None:
    """S2, J5: the place is free then, and not before."""
    log: list[Any] = []

    class Slow(Member):
        @job(name="unwind")
        async def unwind(self, message: BusJobRequestMessage) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(2)
                self.log.append((END, current_time() - start))

        async def on_job_cancelled(self, message: Any) -> None:
            self.log.append(("cancelled", message.reason))

    async with pooling(pool_of(1, log=log, kind=Slow)) as runner:
        start = current_time()
        with anyio.move_on_after(1):
            await runner.job("pool", name="unwind")
        assert current_time() - start == 3
        await runner.job("pool", name="who", payload={"n": 7})
    assert log == [("cancelled", "timeout"), (END, 3), 7]


async def test_a_member_hears_that_and_why_its_job_is_cancelled() -> None:
    """S2, J5, X8: as if it had been asked itself; and the requester reads the same."""
    heard: list[tuple[str, str | None, object]] = []

    class Hearing(Member):
        async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
            heard.append((message.job_id, message.reason, message.headers))

    async with pooling(pool_of(1, kind=Hearing)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "pool", "sleep", payload={"n": 1, "seconds": 100}, headers={"trace": "t"})
        await settle()
        await raw.cancel("1", "pool", "enough")
        assert await raw.answer("1") == (JobStatus.CANCELLED, {"error": "enough", "type": "Cancelled"})
    assert heard == [("1", "enough", {"trace": "t"})]


async def test_the_time_of_a_job_goes_on_while_it_waits_and_while_it_is_done() -> None:
    """S2, J6: one deadline for both."""
    log: list[Any] = []
    async with pooling(pool_of(1, log=log)) as runner, anyio.create_task_group() as tasks:
        raw = await Raw.on(runner.bus)
        await raw.ask("0", "pool", "sleep", payload={"n": 0, "seconds": 2})
        start = current_time()
        with pytest.raises(JobTimeoutError, match="waiting for its turn: 'pool'"):
            await runner.job("pool", name="sleep", payload={"n": 1, "seconds": 1}, timeout=1)
        with pytest.raises(JobTimeoutError, match="still at work: 'pool'"):
            await runner.job("pool", name="sleep", payload={"n": 2, "seconds": 10}, timeout=2)
        assert current_time() - start == 3
        tasks.cancel_scope.cancel()
    assert log == [("begun", 0), (END, 0), ("begun", 2), (END, 2)]


async def test_a_member_keeps_the_deadline_of_a_job_that_has_waited_for_it() -> None:
    """S2, J6, O2: by itself, and from when the pool was asked; so is its age told."""
    async with pooling(pool_of(1)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("0", "pool", "sleep", payload={"n": 0, "seconds": 2})
        start = current_time()
        await raw.ask("1", "pool", "sleep", payload={"n": 1, "seconds": 60}, seconds_left=3)
        await raw.answer("0")
        await settle()
        [job_of_member] = runner.statistics().workers["pool/1"].jobs
        assert (job_of_member.age, job_of_member.seconds_left) == (2, 1)
        assert (await raw.answer("1"))[0] is JobStatus.CANCELLED
        assert current_time() - start == 3


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_job_that_is_cancelled_when_its_time_is_up_and_it_has_not_begun_is_answered_once(
    concurrency: int, caplog: pytest.LogCaptureFixture
) -> None:
    """S2, J1, J6: whoever sees first that its time is up, the member's place is freed once."""
    async with pooling(pool_of(1, concurrency=concurrency)) as runner:
        raw = await Raw.on(runner.bus)
        for n in range(3):  # in one step, so that no task begins in between
            runner.bus.post(BusJobRequestMessage(str(n), "who", {"n": n}, seconds_left=0, source="raw", target="pool"))
            runner.bus.post(BusJobCancelMessage(str(n), "not needed", source="raw", target="pool"))
        await raw.until_answered(*"012")
        assert (await runner.job("pool", name="who", payload={"n": 3}))["n"] == 3
    assert [len(raw.answers(str(n))) for n in range(3)] == [1] * 3
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_pool_with_as_many_jobs_waiting_as_may_refuses_the_next() -> None:
    """S2: FAILED, in words; it has not begun, and so is asked for again where there may be attempts."""
    async with pooling(pool_of(1, max_waiting=2)) as runner:
        raw = await Raw.on(runner.bus)
        for n in range(4):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 1})
        await anyio.sleep(0.125)
        [(status, response)] = raw.answers("3")
        assert status is JobStatus.FAILED
        assert response == {
            "error": "pool 'pool' is full: 2 jobs wait for a member already (max_waiting)",
            "type": "PoolFull",
        }
        with pytest.raises(JobError, match=r"pool 'pool' is full"):
            await runner.job("pool", name="who")
        asked = runner.job("pool", name="who", payload={"n": 9}, attempts=9)
        assert (await asked)["n"] == 9
        assert asked.attempts > 1


async def test_a_pool_where_nobody_may_wait_still_gives_jobs_to_those_who_are_free() -> None:
    """S2."""
    async with pooling(pool_of(2, max_waiting=0)) as runner:
        ended = await ask_many(runner, range(3), seconds=1)
        assert sorted(status for status, _ in ended) == [JobStatus.COMPLETED] * 2 + [JobStatus.FAILED]
        assert (await runner.job("pool", name="who", payload={"n": 1}))["n"] == 1


async def test_updates_and_chunks_come_in_the_pools_name_and_a_window_holds() -> None:
    """S2, J7, J18, J19."""

    class Streaming(BaseWorker):
        def __init__(self, name: str, log: list[Any]) -> None:
            super().__init__(name)
            self.log = log

        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> Any:
            await self.send_job_update(message.job_id, {"from": self.name})
            for n in range(20):
                self.log.append(n)
                yield {"n": n}

        async def on_job_update_requested(self, message: Any) -> None:
            self.log.append("update requested")

    log: list[Any] = []
    async with pooling(pool_of(2, log=log, kind=Streaming)) as runner:
        async with runner.job("pool", name="count", max_buffered_events=3) as asked:
            seen = []
            async for event in asked:
                seen.append(event.data)
                if event.type == "stream_data" and event.data is not None:
                    assert max(n for n in log if isinstance(n, int)) <= event.data["n"] + 5
        assert seen[:2] in ([None, {"from": "pool/1"}], [None, {"from": "pool/2"}])
        assert [each["n"] for each in seen[2:] if each] == list(range(20))
        assert asked.response == {}


async def test_a_reader_lets_a_member_go_on_though_other_jobs_wait_for_it() -> None:
    """S2, J19."""

    class Streaming(BaseWorker):
        def __init__(self, name: str, log: list[Any]) -> None:
            super().__init__(name)

        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> Any:
            for n in range(20):
                yield {"n": n}

    async with (
        pooling(pool_of(1, kind=Streaming)) as runner,
        anyio.create_task_group() as group,
        runner.job("pool", name="count", max_buffered_events=3) as asked,
    ):

        async def wait() -> None:
            await runner.job("pool", name="count")

        group.start_soon(wait)
        await settle()
        assert [chunk["n"] async for chunk in asked.stream()] == list(range(20))


async def test_a_wish_for_an_update_reaches_the_member_that_has_the_job() -> None:
    """S2."""

    class Telling(Member):
        async def on_job_update_requested(self, message: Any) -> None:
            await self.send_job_update(message.job_id, {"member": self.name})

    class Asker(BaseWorker):
        async def on_job_update(self, message: Any) -> None:
            told.append((message.source, message.update))
            heard.set()

    told: list[Any] = []
    heard = anyio.Event()
    asker = Asker("asker")
    async with pooling(pool_of(3, kind=Telling), asker):
        job_id = await asker.request_job("pool", name="sleep", payload={"n": 0, "seconds": 5})
        await anyio.sleep(1)
        await asker.request_job_update(job_id, "pool")
        await heard.wait()
        await asker.cancel_job_group(job_id)
    [(source, data)] = told
    assert source == "pool"
    assert data["member"].startswith("pool/")


async def test_a_handler_that_answers_early_keeps_its_place_until_it_ends() -> None:
    """S2, J13: as any worker's handler with a limit does."""
    log: list[Any] = []

    class Early(Member):
        @job(name="early")
        async def early(self, message: BusJobRequestMessage) -> None:
            await self.send_job_response(message.job_id, {"early": True})
            await anyio.sleep(5)

    async with pooling(pool_of(1, log=log, kind=Early)) as runner:
        start = current_time()
        assert await runner.job("pool", name="early") == {"early": True}
        assert current_time() == start
        await runner.job("pool", name="who", payload={"n": 1})
        assert current_time() - start == 5


async def test_a_deferred_job_keeps_its_place_until_it_is_answered() -> None:
    """S2, J10."""

    class Deferring(Member):
        @job(name="later", deferred=True)
        async def later(self, message: BusJobRequestMessage) -> None:
            self.create_task(self.answer, message.job_id)

        async def answer(self, job_id: str) -> None:
            await anyio.sleep(2)
            await self.send_job_response(job_id, {"later": True})

    async with pooling(pool_of(1, kind=Deferring)) as runner:
        start = current_time()
        ended = await ask_many(runner, range(2), name="later")
        assert current_time() - start == 4
    assert ended == [(JobStatus.COMPLETED, {"later": True})] * 2


async def test_a_subclass_does_jobs_of_its_own_beside_its_members() -> None:
    """S2."""

    class Own(WorkerPool):
        @job(name="about")
        async def about(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"name": self.name, "size": self.size}

    async with pooling(Own("own", lambda name: Member(name, []), size=2)) as runner:
        assert await runner.job("own", name="about") == {"name": "own", "size": 2}
        assert (await runner.job("own", name="who"))["member"].startswith("own/")


async def test_jobs_of_a_pools_own_wait_and_are_done_though_it_has_no_members_left() -> None:
    """S2, J13: those that wait for their turn or their time when the last member is given up, and later ones."""

    class Own(WorkerPool):
        @job(name="about", sequential=True)
        async def about(self, message: BusJobRequestMessage) -> dict[str, Any]:
            await anyio.sleep(2)
            return {"begun": current_time() - 2}

        async def on_worker_failed(self, data: WorkerErrorData) -> None: ...

    done: dict[str, Any] = {}

    async def ask(key: str, name: str, **options: Any) -> None:
        done[key] = await outcome_of(runner, "own", name=name, **options)

    pool = Own("own", lambda name: Member(name, []), size=1, max_restarts=0)
    async with pooling(pool) as runner:
        begin = current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "first", "about")
            await anyio.sleep(0.25)
            tasks.start_soon(ask, "second", "about")
            tasks.start_soon(partial(ask, "delayed", "about", delay=9))
            await anyio.sleep(0.25)
            tasks.start_soon(ask, "crash", "crash")
        refused = await outcome_of(runner, "own", name="who")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "third", "about")
            await anyio.sleep(0.25)
            await pool.resize(1)  # while it does a job of its own
            assert (await runner.job("own", name="who", payload={"n": 1}))["n"] == 1
        begun = {key: answer.get("begun", 0) - begin for key, (_, answer) in done.items() if key != "crash"}
        assert begun == {"first": 0, "second": 2, "delayed": 9.25, "third": 11.25}
        assert done["crash"][0] is refused[0] is JobStatus.ERROR


async def test_the_pool_itself_is_asked_without_its_name() -> None:
    """S2."""
    pool = pool_of(2)
    with pytest.raises(NotRunningError, match="worker 'pool' has no runner yet"):
        pool.job(name="who")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(pool, Member("other", []))
        assert (await pool.job(Member.who, payload={"n": 3}))["n"] == 3  # though it has not started yet
        assert (await pool.job(name="who", payload={"n": 4}))["n"] == 4
        assert (await pool.job("other", name="who"))["member"] == "other"
        async with pool.job(name="sleep", payload={"n": 5, "seconds": 1}, timeout=9) as asked:
            pass
        assert asked.response["n"] == 5
        with pytest.raises(TypeError, match="job\\(\\) of a pool takes one handler"):
            pool.job(Member.who, Member.sleep)  # type: ignore[call-overload]  # a mistake


async def test_jobs_that_come_before_the_members_have_started_wait_for_them() -> None:
    """S2, W2: a job begins when the start of its member is over."""
    log: list[Any] = []

    class Opening(Member):
        async def on_activated(self, args: Any) -> None:
            await anyio.sleep(3)
            self.log.append("open")

    async with WorkerRunner(handle_sigint=False) as runner:
        pool = pool_of(1, log=log, kind=Opening)
        await runner.add_workers(pool)
        await anyio.sleep(1)
        assert not pool.statistics().members["pool/1"].ready
        await runner.job("pool", name="who", payload={"n": 1})
        assert pool.statistics().members["pool/1"].ready
    assert log == ["open", 1]


async def test_an_inactive_member_gets_no_jobs_until_it_is_active_again() -> None:
    """S2, W4."""
    async with pooling(pool_of(2)) as runner:
        await runner.job("pool", name="who")
        asker = BaseWorker("asker")
        await runner.add_workers(asker, wait=True)
        await asker.deactivate_worker("pool/1")
        ended = await ask_many(runner, range(4), seconds=1)
        assert {response["member"] for _, response in ended} == {"pool/2"}
        await asker.activate_worker("pool/1")
        ended = await ask_many(runner, range(4), seconds=1)
        assert {response["member"] for _, response in ended} == {"pool/1", "pool/2"}


async def test_an_inactive_pool_takes_no_jobs() -> None:
    """S2, W4."""
    async with pooling(pool_of(2, active=False)) as runner:
        ended, response = await outcome_of(runner, "pool", name="who")
    assert (ended, response["type"]) == (JobStatus.FAILED, "Inactive")


async def test_a_delayed_job_stands_in_line_when_its_time_has_come() -> None:
    """S2."""
    async with pooling(pool_of(1)) as runner:
        start = current_time()
        await runner.job("pool", name="who", delay=2)
        assert current_time() - start == 2


async def test_the_same_request_again_changes_nothing() -> None:
    """S2, J9."""
    log: list[Any] = []
    async with pooling(pool_of(2, log=log)) as runner:
        raw = await Raw.on(runner.bus)
        for _ in range(3):
            await raw.ask("1", "pool", "sleep", payload={"n": 1, "seconds": 1})
        await raw.until_answered("1")
        await raw.ask("1", "pool", "sleep", payload={"n": 1, "seconds": 1})
    assert begun(log) == [1]
    assert len(raw.answers("1")) == 1


async def test_a_group_has_a_pool_among_its_workers() -> None:
    """S2, J11."""
    async with pooling(pool_of(2), Member("alone", [])) as runner:
        answers = await runner.job_group("pool", "alone", name="who", payload={"n": 1})
    assert {name: response["n"] for name, response in answers.items()} == {"pool": 1, "alone": 1}


async def test_a_pool_within_a_pool_that_has_no_members_left_answers_all_that_the_outer_one_gives_it() -> None:
    """S1, S2: each job that it answers makes room for the next, in the same step."""
    pool = WorkerPool("pool", lambda name: pool_of(1, name=name, max_restarts=0), size=1, concurrency=3)
    async with running(pool) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        await runner.registry.wait_for("pool/1/1")
        raw = await Raw.on(runner.bus)
        await raw.ask("0", "pool", "crash")
        for n in range(1, 10):
            await raw.ask(str(n), "pool", "sleep", payload={"n": n, "seconds": 1})
        with anyio.fail_after(1):
            await raw.until_answered(*map(str, range(10)))
        assert {status for n in range(10) for status, _ in raw.answers(str(n))} == {JobStatus.ERROR}


async def test_pools_are_members_of_pools() -> None:
    """S2: whatever the inner pools say, each job is answered once, and its place is free then."""
    pool = WorkerPool("pool", lambda name: pool_of(2, name=name, max_waiting=1), size=2, concurrency=4)
    async with running(pool) as runner:
        await runner.registry.wait_for("pool/2/2")
        raw = await Raw.on(runner.bus)
        jobs = [str(n) for n in range(12)]
        for n in jobs:
            await raw.ask(n, "pool", "sleep", payload={"n": n, "seconds": 2})
        await anyio.sleep(1)
        await raw.cancel(jobs[0], "pool")
        await raw.until_answered(*jobs)
        answers = [raw.answers(n) for n in jobs]
        assert all(len(each) == 1 for each in answers)
        statuses = [status for [(status, _)] in answers]
        # Each inner pool does 2 and lets 1 wait; each of the others is refused, and so makes room for the next.
        assert statuses.count(JobStatus.CANCELLED) == 1
        assert statuses.count(JobStatus.COMPLETED) + statuses.count(JobStatus.FAILED) == 11
        assert {(each[0][1] or {})["type"] for each in answers if each[0][0] is JobStatus.FAILED} == {"PoolFull"}
        counts = pool.statistics()
        assert (counts.active_jobs, counts.running, counts.waiting) == (0, 0, 0)
        assert all(child.ready for child in counts.members.values())
