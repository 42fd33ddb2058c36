"""J18: handlers that are async generators stream what they yield."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.workers import running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    HandlerTypeError,
    JobError,
    JobEvent,
    JobFailure,
    JobStatus,
    JobTimeoutError,
    WorkerRunner,
    job,
)
from workerbus.testing import cancel_at_every_checkpoint


class Counting(BaseWorker):
    """Counts, and says when it has cleaned up."""

    def __init__(self, name: str = "counting", many: int = 3, *, then: Callable[[], Any] = lambda: None) -> None:
        super().__init__(name)
        self._many, self._then = many, then
        self.closed_at: list[float] = []
        self.begun = 0

    @job(name="count")
    async def count(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        self.begun += 1
        try:
            for n in range(self._many):
                yield {"n": n}
                await anyio.sleep(1)
            self._then()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            self.closed_at.append(current_time())


async def test_what_it_yields_is_streamed_and_its_end_is_the_end_of_the_job() -> None:
    """J18"""
    async with running(Counting()) as runner, runner.job("counting", name="count") as job:
        events = [(event.type, event.data) async for event in job]
    assert events == [
        (JobEvent.STREAM_START, None),
        (JobEvent.STREAM_DATA, {"n": 0}),
        (JobEvent.STREAM_DATA, {"n": 1}),
        (JobEvent.STREAM_DATA, {"n": 2}),
        (JobEvent.STREAM_END, None),
    ]
    assert job.response == {}


async def test_its_data_can_be_had_alone() -> None:
    """J18"""
    async with running(Counting()) as runner, runner.job("counting", name="count") as job:
        assert [chunk async for chunk in job.stream()] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_a_group_s_data_come_with_who_has_sent_them() -> None:
    """J18"""
    async with (
        running(Counting("a", 1), Counting("b", 2)) as runner,
        runner.job_group("a", "b", name="count") as group,
    ):
        chunks = [(name, chunk["n"]) async for name, chunk in group.stream()]
    assert sorted(chunks) == [("a", 0), ("b", 0), ("b", 1)]


async def test_updates_are_left_out_of_the_data() -> None:
    """J18: they are events of their own."""

    class Both(BaseWorker):
        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            await self.send_job_update(message.job_id, {"at": 1})
            yield {"n": 1}
            await self.send_job_update(message.job_id, {"at": 2})
            yield {"n": 2}

    async with running(Both("both")) as runner, runner.job("both", name="count") as asked:
        assert [chunk async for chunk in asked.stream()] == [{"n": 1}, {"n": 2}]


async def test_who_only_waits_for_the_answer_gets_it() -> None:
    """J15, J18"""
    async with running(Counting()) as runner:
        assert await runner.job("counting", name="count") == {}


async def test_a_job_that_is_left_early_closes_it_before_the_context_is_left() -> None:
    """J5, J18: its `finally` has run."""
    counting = Counting(many=100)
    async with running(counting) as runner:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the context is what it goes through
            async with runner.job("counting", name="count") as job:
                async for chunk in job.stream():
                    if chunk == {"n": 2}:
                        raise ZeroDivisionError
        assert counting.closed_at == [current_time()] == [2.5]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("seconds", [0, 1])
async def test_one_that_yields_inside_of_a_task_group_is_closed_and_its_worker_goes_on(
    seconds: float, fails: bool
) -> None:
    """J18, L7: whether it waits in the group or for its reader, and whatever its tasks raise in their clean-up."""
    log: list[str] = []

    async def stay() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if fails:
                raise ValueError("broken")

    class Grouping(BaseWorker):
        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stay)
                try:
                    while True:
                        yield {}
                        await anyio.sleep(seconds)
                finally:
                    log.append("closed")

    async with running(Grouping("grouping")) as runner:
        for n in (1, 2):
            with anyio.move_on_after(2.5):
                async with runner.job("grouping", name="count", max_buffered_events=2):
                    await anyio.sleep_forever()
            assert log == ["closed"] * n


async def test_a_deadline_closes_it() -> None:
    """J6, J18"""
    counting = Counting(many=100)
    async with running(counting) as runner:
        with pytest.raises(JobTimeoutError):
            await runner.job("counting", name="count", timeout=2.25)
        assert counting.closed_at == [2.75]


async def test_the_end_of_its_worker_closes_it() -> None:
    """J4, J18: and answers the job."""
    counting = Counting(many=100)
    async with running(counting) as runner, anyio.create_task_group() as tasks:

        async def end() -> None:
            await anyio.sleep(1.25)
            await counting.stop()

        tasks.start_soon(end)
        with pytest.raises(JobError) as caught:
            await runner.job("counting", name="count")
        assert caught.value.statuses == {"counting": JobStatus.CANCELLED}
        assert counting.closed_at == [1.75]


def raise_it(error: Exception) -> Callable[[], None]:
    def then() -> None:
        raise error

    return then


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (KeyError("k"), JobStatus.ERROR, "raised KeyError: 'k'"),
        (JobFailure("no more"), JobStatus.FAILED, "failed: no more"),
    ],
)
async def test_what_it_raises_is_the_answer_after_what_it_has_yielded(
    error: Exception, status: JobStatus, text: str
) -> None:
    """J2, J7, J18"""
    chunks: list[dict[str, Any]] = []
    async with running(Counting(then=raise_it(error))) as runner:
        with pytest.raises(JobError, match=text) as caught:  # noqa: PT012 - the context is what raises
            async with runner.job("counting", name="count") as job:
                async for chunk in job.stream():
                    chunks.append(chunk)  # noqa: PERF401 - a list that is not finished has none of them
    assert caught.value.statuses == {"counting": status}
    assert len(chunks) == 3


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator for functions of any kind: it returns what they return."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


async def test_a_decorator_that_is_not_async_may_be_over_it_and_under_it() -> None:
    """J18, N7: it returns the generator."""

    class Decorated(BaseWorker):
        @logged
        @job(name="over")
        async def over(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            yield {"n": 1}

        @job(name="under")
        @logged
        async def under(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            yield {"n": 2}

    async with running(Decorated("decorated")) as runner:
        chunks = []
        for name in ("over", "under"):
            async with runner.job("decorated", name=name) as asked:
                chunks += [chunk async for chunk in asked.stream()]
    assert chunks == [{"n": 1}, {"n": 2}]


async def test_what_is_no_dict_is_an_error_that_says_so() -> None:
    """J2, J18: and the generator is closed."""
    closed: list[bool] = []

    class Wrong(BaseWorker):
        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> AsyncIterator[Any]:
            try:
                yield 3
            finally:
                closed.append(True)

    async with running(Wrong("wrong")) as runner:
        with pytest.raises(JobError, match="the handler of job 'count' yielded int; yield dicts, or None"):
            await runner.job("wrong", name="count")
    assert closed == [True]


async def test_it_may_answer_by_itself() -> None:
    """J2, J18: what it yields after that is nobody's, and says so."""

    class Answering(BaseWorker):
        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            yield {"n": 1}
            await self.send_job_stream_end(message.job_id, {"sum": 1})

    async with running(Answering("answering")) as runner:
        assert await runner.job("answering", name="count") == {"sum": 1}


async def test_limits_hold_for_it() -> None:
    """J13"""

    class One(Counting):
        @job(name="one", sequential=True)
        async def one(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            yield {"at": current_time()}
            await anyio.sleep(1)

    begun: list[float] = []
    async with running(One()) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            async with runner.job("counting", name="one") as job:
                begun.extend([chunk["at"] async for chunk in job.stream()])

        for _ in range(3):
            tasks.start_soon(ask)
    assert begun == [0, 1, 2]


async def test_an_override_may_be_one_or_not() -> None:
    """N7: what lookup gives counts."""

    class Plain(Counting):
        async def count(self, message: BusJobRequestMessage) -> dict[str, Any]:  # type: ignore[override]  # on purpose
            return {"n": "plain"}

    async with running(Plain()) as runner:
        assert await runner.job("counting", name="count") == {"n": "plain"}


def test_only_jobs_may_be_generators() -> None:
    """N8: a hook that yields would never run."""
    with pytest.raises(HandlerTypeError, match=r"Mine\.on_activated has to be async"):

        class Mine(BaseWorker):
            async def on_activated(self, args: Any) -> AsyncIterator[Any]:  # type: ignore[override]  # the mistake
                yield args

    with pytest.raises(HandlerTypeError, match="goes over an async method"):

        class Sync(BaseWorker):
            @job(name="count")
            def count(self, message: BusJobRequestMessage) -> Any:
                yield message


def test_wherever_its_requester_is_cancelled_it_is_closed(backend: str) -> None:
    """J5, J18: the context is left when its `finally` has run, and the worker has no job then."""

    @asynccontextmanager
    async def set_up() -> AsyncIterator[tuple[WorkerRunner, Counting]]:
        counting = Counting(many=2)
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(counting, wait=True)
            yield runner, counting

    async def ask(both: tuple[WorkerRunner, Counting]) -> None:
        runner, counting = both
        try:
            async with runner.job("counting", name="count") as asked:
                async for _ in asked.stream():
                    pass
        finally:
            assert counting.active_jobs == {}
            assert counting.begun == len(counting.closed_at)

    report = cancel_at_every_checkpoint(ask, set_up=set_up, backend=backend)
    assert len(report.checkpoints) >= 3


async def test_one_that_never_waits_can_be_cancelled() -> None:
    """J18: while it streams, also where nobody reads."""

    class Endless(BaseWorker):
        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            while True:
                yield {}

    async with running(Endless("endless")) as runner:
        with anyio.move_on_after(0) as scope:
            await runner.job("endless", name="count")
        assert scope.cancelled_caught


class Endless(BaseWorker):
    """Streams in a row, a hundred thousand chunks, and counts them."""

    def __init__(self) -> None:
        super().__init__("endless")
        self.sent = 0

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, int]]:
        for self.sent in range(100_000):
            yield {"n": self.sent}


async def left_by_a_break(runner: WorkerRunner, scope: anyio.CancelScope) -> None:
    async with runner.job("endless", name="stream") as asked:
        async for _ in asked.stream():
            scope.cancel()
            break


async def never_read(runner: WorkerRunner, scope: anyio.CancelScope) -> None:
    async with runner.job("endless", name="stream"):
        scope.cancel()


async def waited_for(runner: WorkerRunner, scope: anyio.CancelScope) -> None:
    async with runner.job_group("endless", name="stream") as group:
        scope.cancel()
        await group.first()


async def read_as_answers(runner: WorkerRunner, scope: anyio.CancelScope) -> None:
    async with runner.job_group("endless", name="stream") as group:
        async for _ in group.as_completed():
            raise AssertionError("it has answered")


@pytest.mark.parametrize("leaves", [left_by_a_break, never_read, waited_for, read_as_answers])
def test_a_requester_that_a_busy_stream_wakes_in_each_pass_can_be_cancelled(
    backend: str, leaves: Callable[[WorkerRunner, anyio.CancelScope], Awaitable[None]]
) -> None:
    """L6, J5: asyncio cancels no task in a pass in which it is woken anyway. On its own loop, which keeps the order."""
    worker = Endless()

    async def main() -> None:
        async def cancel_soon() -> None:
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async with running(worker) as runner, anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(cancel_soon)
                await leaves(runner, scope)
            assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    assert worker.sent < 50_000
