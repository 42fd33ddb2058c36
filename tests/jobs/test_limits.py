"""J13: turns and places, and how one is freed."""

from typing import Any

import anyio
import pytest
from anyio import CancelScope, current_time, sleep
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.deadlines import Waiting
from support.requesters import Listener, Raw
from support.workers import running
from workerbus import BaseWorker, BusJobRequestMessage, JobFailure, JobStatus, job
from workerbus.jobs._open_job import OpenJob
from workerbus.jobs._pool import TaskPool
from workerbus.worker._core import core_of


class Counter(Listener):
    """Counts how many of its handlers run at once; each goes on when it is let go."""

    def __init__(self, name: str = "counter") -> None:
        super().__init__(name)
        self.running: list[str] = []
        self.most = 0
        self.gates: dict[str, anyio.Event] = {}
        self._change = anyio.Event()

    @job(name="one", sequential=True)
    async def one(self, message: BusJobRequestMessage) -> Any:
        return await self._run(message)

    @job(name="three", limit=3)
    async def three(self, message: BusJobRequestMessage) -> Any:
        return await self._run(message)

    @job(name="deferred", sequential=True, deferred=True)
    async def one_deferred(self, message: BusJobRequestMessage) -> None:
        self.calls.append(message.job_id)
        self._tell()

    async def _run(self, message: BusJobRequestMessage) -> Any:
        job_id, how = message.job_id, (message.payload or {}).get("how", "return")
        self.calls.append(job_id)
        self.running.append(job_id)
        self.most = max(self.most, len(self.running))
        self._tell()
        try:
            if how == "answer":
                await self.send_job_response(job_id, {})
            await self.gates.setdefault(job_id, anyio.Event()).wait()
            if how == "raise":
                raise ValueError("oh")
            if how == "fail":
                raise JobFailure("no")
            return {"answers": how}
        finally:
            if how == "unwind slowly":
                with anyio.move_on_after(8, shield=True):
                    await self.gates.setdefault(job_id, anyio.Event()).wait()
            self.running.remove(job_id)

    def _tell(self) -> None:
        self._change.set()
        self._change = anyio.Event()

    def let_go(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.gates.setdefault(job_id, anyio.Event()).set()

    async def until_called(self, *job_ids: str) -> None:
        while not set(job_ids) <= set(self.calls):
            await self._change.wait()


async def ask(raw: Raw, name: str, *job_ids: str, how: str = "return", **fields: Any) -> None:
    for job_id in job_ids:
        await raw.ask(job_id, "counter", name, payload={"how": how}, **fields)


async def test_sequential_jobs_run_one_at_a_time_in_the_order_of_arrival() -> None:
    """J13: decided when they are dispatched."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        names = [f"job {number}" for number in range(20)]
        await ask(raw, "one", *names)
        counter.let_go(*names)
        for name in names:
            await raw.answer(name)
        assert counter.calls == names
        assert counter.most == 1


async def test_a_limit_bounds_how_many_run_at_once() -> None:
    """J13: and lets as many run; they begin in the order of arrival."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        names = [f"job {number}" for number in range(9)]
        await ask(raw, "three", *names)
        await counter.until_called(*names[:3])
        await anyio.wait_all_tasks_blocked()
        assert sorted(counter.calls) == names[:3]
        for number, name in enumerate(names):
            counter.let_go(name)
            await raw.answer(name)
            await anyio.wait_all_tasks_blocked()
            assert sorted(counter.calls) == names[: 4 + number]
        assert counter.most == 3


@pytest.mark.parametrize("how", ["return", "raise", "fail"])
async def test_a_place_is_free_when_the_handler_has_ended(how: str) -> None:
    """J13: however it has."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "one", "first", "second", how=how)
        await counter.until_called("first")
        counter.let_go("first", "second")
        await raw.answer("second")
        assert counter.calls == ["first", "second"]


async def test_a_place_is_not_free_while_the_handler_runs_on_after_its_answer() -> None:
    """J13: handler and job must both be over."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "one", "first", "second", how="answer")
        await raw.answer("first")
        await anyio.wait_all_tasks_blocked()
        assert counter.calls == ["first"]
        counter.let_go("first", "second")
        await raw.answer("second")


async def test_a_place_is_not_free_while_the_job_is_open_after_its_handler() -> None:
    """J13: a deferred job keeps it until it is answered."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "deferred", "first", "second")
        await counter.until_called("first")
        await anyio.wait_all_tasks_blocked()
        assert counter.calls == ["first"]
        await counter.send_job_response("first", {})
        await counter.until_called("second")
        await counter.send_job_stream_end("second", {})


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_a_place_is_free_when_a_deferred_job_is_over(how: str) -> None:
    """J13: without an answer of the worker's own."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "deferred", "first", seconds_left=0.02 if how == "expired" else None)
        await ask(raw, "deferred", "second")
        await counter.until_called("first")
        if how == "cancelled":
            await raw.cancel("first", "counter")
        await counter.until_called("second")
        assert (await raw.answer("first"))[0] == JobStatus.CANCELLED


async def test_a_place_is_not_free_while_a_cancelled_handler_unwinds() -> None:
    """J13, J10: only one handler at a time, the slow clean-up included."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "one", "first", "second", how="unwind slowly")
        await counter.until_called("first")
        await raw.cancel("first", "counter")
        await anyio.wait_all_tasks_blocked()
        assert counter.calls == ["first"]
        counter.let_go("first", "second")
        await raw.answer("second")
        assert counter.most == 1


@pytest.mark.parametrize("which", ["second", "third", "last"])
async def test_a_cancelled_waiter_leaves_the_queue(which: str) -> None:
    """J13: at once, and its handler never starts."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        names = ["first", "second", "third", "last"]
        await ask(raw, "one", *names)
        await counter.until_called("first")
        await raw.cancel(which, "counter")
        assert (await raw.answer(which))[0] == JobStatus.CANCELLED
        assert counter.calls == ["first"]
        counter.let_go(*names)
        rest = [name for name in names if name != which]
        for name in rest:
            await raw.answer(name)
        assert counter.calls == rest


async def test_an_expired_waiter_leaves_the_queue() -> None:
    """J13: and its handler never starts."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "one", "first")
        await ask(raw, "one", "second", seconds_left=0.02)
        await ask(raw, "one", "third")
        assert (await raw.answer("second"))[0] == JobStatus.CANCELLED
        counter.let_go("first", "third")
        await raw.answer("third")
        assert counter.calls == ["first", "third"]


async def test_a_waiter_that_was_just_given_the_place_and_is_cancelled_passes_it_on() -> None:
    """J13: in the same step, before its handler could begin."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "one", "first", "second", "third")
        await counter.until_called("first")
        counter.let_go("first", "second", "third")
        await raw.cancel("first", "counter")
        while raw.answers("first") == []:
            await checkpoint()
        await raw.cancel("second", "counter")
        await raw.answer("third")
        assert counter.calls in (["first", "third"], ["first", "second", "third"])
        assert len(raw.answers("second")) == 1


async def test_a_waiter_that_is_answered_by_the_worker_itself_leaves_the_queue() -> None:
    """J13: its handler never starts."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "one", "first", "second", "third")
        await counter.until_called("first")
        await counter.send_job_response("second", {"early": True})
        counter.let_go("first", "third")
        await raw.answer("third")
        assert raw.answers("second") == [(JobStatus.COMPLETED, {"early": True})]
        assert counter.calls == ["first", "third"]


async def test_limits_of_different_handlers_and_workers_are_their_own() -> None:
    """J13: each handler has its queue."""
    counter, other = Counter(), Counter("other")
    async with running(counter, other) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "one", "first")
        await raw.ask("elsewhere", "other", "one")
        await ask(raw, "three", "third")
        await counter.until_called("first", "third")
        await other.until_called("elsewhere")
        for worker in (counter, other):
            worker.let_go("first", "third", "elsewhere")


async def test_a_sequential_handler_that_asks_its_own_worker_for_another_job_is_not_in_its_way() -> None:
    """J13: another handler's place is another place."""

    class Nested(BaseWorker):
        @job(name="outer", sequential=True)
        async def outer(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return await self.job(self.name, name="inner")

        @job(name="inner", sequential=True)
        async def inner(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return {"inner": True}

    async with running(Nested("nested")) as runner:
        assert await runner.job("nested", name="outer") == {"inner": True}


EVENTS = st.lists(st.sampled_from(["ask", "ask for a short time", "let go", "cancel"]), max_size=25)


@pytest.mark.parametrize("name", ["one", "three"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, data=st.data())
def test_a_limit_holds_whatever_happens(backend: str, name: str, events: list[str], data: st.DataObject) -> None:
    """J13: never too many, in the order of arrival, and every place comes back."""
    picks = [data.draw(st.integers(0, 100)) for _ in events]

    async def example() -> None:
        counter = Counter()
        asked: list[str] = []
        async with running(counter) as runner:
            raw = await Raw.on(runner.bus)
            for event, pick in zip(events, picks, strict=True):
                if event.startswith("ask"):
                    asked.append(f"job {len(asked)}")
                    await ask(raw, name, asked[-1], seconds_left=0.0 if event.endswith("time") else None)
                elif asked:
                    which = asked[pick % len(asked)]
                    if event == "let go":
                        counter.let_go(which)
                    else:
                        await raw.cancel(which, "counter")
                if pick % 3 == 0:
                    await checkpoint()
            counter.let_go(*asked)
            await ask(raw, name, "last")
            counter.let_go("last")
            for job_id in [*asked, "last"]:
                await raw.answer(job_id)
            assert counter.most <= (1 if name == "one" else 3)
            assert len(set(counter.calls)) == len(counter.calls)
            if name == "one":
                order = [*asked, "last"]
                assert counter.calls == sorted(counter.calls, key=order.index)
            assert counter.running == []

    clock.run(example, backend=backend)


async def test_a_job_that_is_answered_while_it_waits_leaves_the_line() -> None:
    """J13: nothing waits for its turn any more, and the next one has it."""
    begun: list[str] = []
    release = anyio.Event()

    class Sequential(BaseWorker):
        @job(name="do", sequential=True)
        async def do(self, message: BusJobRequestMessage) -> None:
            begun.append(message.job_id)
            await release.wait()

    worker = Sequential("worker")
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        for job_id in ("one", "two", "three"):
            await raw.ask(job_id, "worker", "do")
        await anyio.wait_all_tasks_blocked()
        await worker.send_job_response("two", {"early": True})
        await anyio.wait_all_tasks_blocked()
        assert list(worker.active_jobs) == ["one", "three"]
        release.set()
        assert await raw.answer("three") == (JobStatus.COMPLETED, {})
        assert raw.answers("two") == [(JobStatus.COMPLETED, {"early": True})]
    assert begun == ["one", "three"]


async def test_a_job_that_waits_for_its_turn_runs_out_of_time_there(backend: str) -> None:
    """J6: and its handler never starts."""
    waiting = Waiting()
    async with running(waiting) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("first", "waiting", "queued")
        await raw.ask("second", "waiting", "queued", seconds_left=1.0)
        assert (await raw.answer("second"))[0] == JobStatus.CANCELLED
        assert (await waiting.until("cancelled")).job_id == "second"
        assert waiting.calls == ["first"]
        assert list(waiting.active_jobs) == ["first"]


async def test_who_waits_for_a_turn_when_time_is_up_is_told_at_once() -> None:
    """J6, J13: and who refuses to leave, too."""
    told: list[tuple[str, float]] = []

    class Slow(BaseWorker):
        @job(name="one", limit=1)
        async def one(self, message: BusJobRequestMessage) -> None:
            with CancelScope(shield=True):
                await sleep(4)

        async def on_job_cancelled(self, message: Any) -> None:
            told.append((message.job_id, current_time() - begin))

    begin = current_time()
    async with running(Slow("slow")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("runs", "slow", "one", seconds_left=3.0)
        await raw.ask("waits", "slow", "one", seconds_left=2.0)
        await raw.answer("runs")
    assert told == [("waits", 2.0), ("runs", 3.0)]


def tasks_of(worker: BaseWorker) -> list[str]:
    """What it has beside the task that it lives in."""
    return sorted(str(task.name) for task in anyio.get_running_tasks() if str(task.name).startswith(f"{worker.name} "))


@pytest.mark.parametrize("seconds_left", [None, 3600.0])
async def test_a_job_that_waits_for_its_turn_has_no_task(seconds_left: float | None) -> None:
    """R9: one for the handlers that run, and one for the deadlines of all."""
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        names = [f"job {number}" for number in range(500)]
        await ask(raw, "one", *names, seconds_left=seconds_left)
        await ask(raw, "three", *(f"{name} of three" for name in names), seconds_left=seconds_left)
        await anyio.wait_all_tasks_blocked()
        assert tasks_of(counter).count("counter job") == 1 + 3
        assert tasks_of(counter).count("counter deadlines") == (0 if seconds_left is None else 1)
        assert len(counter.active_jobs) == 1_000


@pytest.mark.parametrize("seconds_left", [None, 3600.0])
async def test_a_job_that_its_handler_has_left_open_has_no_task(seconds_left: float | None) -> None:
    """R9, J2."""
    waiting = Waiting()
    async with running(waiting) as runner:
        raw = await Raw.on(runner.bus)
        for number in range(50):
            await raw.ask(str(number), "waiting", "left open", seconds_left=seconds_left)
            await anyio.wait_all_tasks_blocked()
        assert tasks_of(waiting).count("waiting job") == 1
        assert len(waiting.active_jobs) == 50
        assert core_of(waiting).job_server.pool.idle
        for number in range(50):
            await waiting.send_job_response(str(number), {"n": number})
            assert await raw.answer(str(number)) == (JobStatus.COMPLETED, {"n": number})
        assert core_of(waiting).job_server.idle


@pytest.mark.parametrize("how", ["the deadline of all", "the end of the worker"])
async def test_who_ends_with_the_one_before_it_is_not_begun_for_that(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R9, J13: many that wait, behind one that is left open, are answered without a task for each."""
    begun: list[str] = []
    submit = TaskPool.submit

    def noted(pool: TaskPool[OpenJob], job: OpenJob) -> None:
        begun.append(job.request.job_id)
        submit(pool, job)

    monkeypatch.setattr(TaskPool, "submit", noted)
    counter = Counter()
    async with running(counter) as runner:
        raw = await Raw.on(runner.bus)
        names = [f"job {number}" for number in range(100)]
        seconds_left = 2.0 if how == "the deadline of all" else None
        await ask(raw, "deferred", names[0], seconds_left=seconds_left)
        await counter.until_called(names[0])
        await ask(raw, "deferred", *names[1:], seconds_left=seconds_left)
        if how == "the end of the worker":
            await counter.stop()
        for name in names:
            assert (await raw.answer(name))[0] == JobStatus.CANCELLED
        assert begun == counter.calls == names[:1]


async def test_an_end_lets_jobs_that_wait_and_those_left_open_have_their_grace() -> None:
    """R2: they are under way, though nothing runs for them."""
    counter = Counter()
    async with running(counter, job_grace=8.0) as runner:
        raw = await Raw.on(runner.bus)
        await ask(raw, "deferred", "first", "second", "third")
        await counter.until_called("first")
        begin = current_time()
        await runner.end()
        await sleep(3)
        for name in ("first", "second", "third"):
            await counter.until_called(name)
            await counter.send_job_response(name, {"done": name})
            assert await raw.answer(name) == (JobStatus.COMPLETED, {"done": name})
    assert current_time() == begin + 3
