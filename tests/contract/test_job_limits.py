"""J13 and what 20,000 jobs leave behind: turns, places, and tables that are empty again."""

import gc
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.leaks import left_in, task_ids
from support.requesters import Listener, Raw
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    JobFailure,
    JobStatus,
    job,
)
from workerbus.jobs._server import REMEMBERED


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


# --- nothing is left behind


class Everything(Listener):
    """Does jobs of all kinds, quickly."""

    @job(name="queued", limit=2)
    async def queued(self, message: BusJobRequestMessage) -> None:
        pass

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> None:
        await self.send_job_stream_start(message.job_id)
        await self.send_job_stream_data(message.job_id, {"n": 1})
        await self.send_job_stream_end(message.job_id, {})

    @job(name="refuse")
    async def refuse(self, message: BusJobRequestMessage) -> None:
        raise JobFailure("no")

    async def _note(self, hook: str, what: Any) -> None:
        pass


async def ask_for_everything(asker: BaseWorker, count: int) -> None:
    for number in range(count):
        match number % 8:
            case 0:
                async with asker.job("everything", name="stream") as asked:
                    async for _ in asked:
                        pass
            case 1:
                await asker.job_group("everything", "helper", name="echo", timeout=60)
            case 2:
                await asker.request_job("everything", name="queued", timeout=60)
            case 3:
                with anyio.CancelScope() as scope:
                    async with asker.job("helper", name="wait"):
                        scope.cancel()
                        await checkpoint()
            case 4:
                with pytest.raises(JobError):
                    await asker.job("everything", name="refuse")
            case 5:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await asker.job(f"nobody {number}")
            case _:
                await asker.job("everything", name="queued")


def test_twenty_thousand_jobs_leave_nothing_behind(backend: str) -> None:
    """G2, J5, J12: no task, no table entry, no memory."""

    async def example() -> None:
        asker, everything, helper = Everything("asker"), Everything("everything"), Helper("helper")
        async with running(asker, everything, helper) as runner:
            await ask_for_everything(asker, 2_000)
            helper.calls.clear()
            await settled(runner, asker, everything, helper)
            tasks, registered = len(task_ids()), sizes(left_in(runner.registry))
            before = count_objects()
            await ask_for_everything(asker, 20_000)
            helper.calls.clear()
            everything.calls.clear()
            await settled(runner, asker, everything, helper)
            assert count_objects() - before < 1_000
            assert len(task_ids()) < tasks + 10  # how many are kept idle depends on the order of the tasks
            assert sizes(left_in(runner.registry)) == registered
            assert max(len(worker.job_server._ended) for worker in (everything, helper)) == REMEMBERED
        assert left_in(runner.registry) == {}

    clock.run(example, backend=backend, limit=100)


def sizes(tables: dict[str, Any]) -> dict[str, int]:
    return {name: len(table) for name, table in tables.items()}


async def settled(runner: Any, *workers: BaseWorker) -> None:
    await anyio.wait_all_tasks_blocked()
    for worker in workers:
        statistics = worker.statistics()
        assert (statistics.active_jobs, statistics.job_groups) == (0, 0)
        assert worker.active_jobs == {}
        assert worker.job_groups == {}
    depths = {name: each.depth for name, each in runner.bus.statistics().subscribers.items()}
    assert set(depths.values()) == {0}


def count_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def test_stray_messages_leave_nothing_behind() -> None:
    """J9, J12: cancels of unknown jobs, answers of strangers, duplicates."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)

        async def stray(count: int) -> None:
            for number in range(count):
                await raw.cancel(f"unknown {number}", "helper")
            await raw.settle()
            raw.got.clear()

        await stray(500)
        before = count_objects()
        await stray(5_000)
        assert count_objects() - before < 200
        await raw.ask("job", "helper", "echo")
        assert (await raw.answer("job"))[0] == JobStatus.COMPLETED
