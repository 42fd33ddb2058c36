"""S2: `WorkerPool.map`: a job for each payload, the answers as they come, and nothing that piles up."""

import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.pools import END, pool_of
from support.workers import running
from workerbus import (
    BaseWorker,
    JobError,
    JobStatus,
    NotRunningError,
    PoolAnswer,
    WorkerPool,
    WrongTaskError,
    job,
)


@dataclass
class Nap:
    n: int
    seconds: float = 1


@dataclass
class Slept:
    n: int


class Sleeper(BaseWorker):
    """Sleeps, and fails for some numbers."""

    def __init__(self, name: str, log: list[Any]) -> None:
        super().__init__(name)
        self.log = log

    @job(name="nap")
    async def nap(self, nap: Nap) -> Slept:
        self.log.append(nap.n)
        try:
            await anyio.sleep(nap.seconds)
        finally:
            self.log.append((END, nap.n))
        if nap.n < 0:
            raise ValueError(f"{nap.n} is less than 0")
        return Slept(nap.n)


def sleepers(size: int, log: list[Any] | None = None, **options: Any) -> WorkerPool:
    return pool_of(size, log=log, kind=Sleeper, **options)


async def test_each_payload_gets_an_answer_of_its_own_type() -> None:
    """S2, J17."""
    pool = sleepers(3)
    async with running(pool):
        start = current_time()
        async with pool.map(Sleeper.nap, map(Nap, range(7))) as answers:
            got = [answer async for answer in answers]
        assert current_time() - start == 3
    assert sorted((answer.index, answer.payload.n, answer.response.n) for answer in got) == [
        (n, n, n) for n in range(7)
    ]
    assert all(answer.error is None for answer in got)


async def test_answers_come_as_they_are_given_or_in_the_order_of_the_payloads() -> None:
    """S2."""
    pool = sleepers(4)
    naps = [Nap(0, 4), Nap(1, 2), Nap(2, 3), Nap(3, 1)]
    async with running(pool):
        async with pool.map(Sleeper.nap, naps) as answers:
            assert [answer.index async for answer in answers] == [3, 1, 2, 0]
        async with pool.map(Sleeper.nap, naps, ordered=True) as answers:
            assert [answer.index async for answer in answers] == [0, 1, 2, 3]


async def test_answers_that_nobody_has_read_yet_come_in_the_order_in_which_they_were_given() -> None:
    """S2: however slow the reader is."""
    pool = sleepers(4)
    async with running(pool), pool.map(Sleeper.nap, [Nap(0, 4), Nap(1, 2), Nap(2, 3), Nap(3, 1)]) as answers:
        await anyio.sleep(2.5)
        assert [(await anext(answers)).index for _ in range(2)] == [3, 1]
        await anyio.sleep(5)
        assert [answer.index async for answer in answers] == [2, 0]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(("limit", "most"), [(None, 4), (3, 3), (9, 9)])
async def test_no_more_payloads_are_taken_than_may_be_under_way(ordered: bool, limit: int | None, most: int) -> None:
    """S2: neither a slow pool nor a slow reader lets anything pile up, so the iterable may be endless."""
    pool = sleepers(2, concurrency=2)
    taken, read = 0, 0

    def endless() -> Iterator[Nap]:
        nonlocal taken
        while True:
            taken += 1
            assert taken - read <= most
            yield Nap(taken, taken % 3)

    async with running(pool), pool.map(Sleeper.nap, endless(), limit=limit, ordered=ordered) as answers:
        async for _ in answers:
            read += 1
            await anyio.sleep(0.25 if read % 2 else 2)
            if read == 10:
                break
        assert taken - read == most


async def test_a_map_takes_no_more_when_its_pool_gets_smaller() -> None:
    """S2: until no more are open than the members that are left may have."""
    pool, most = sleepers(4), 4
    taken = read = 0

    def endless() -> Iterator[Nap]:
        nonlocal taken
        while True:
            taken += 1
            assert taken - read <= most
            yield Nap(taken, taken)

    async with running(pool), pool.map(Sleeper.nap, endless()) as answers:
        async for _ in answers:
            read += 1
            if read == 1:
                await anyio.sleep(0.5)
                await pool.resize(1)
                most = 1  # the others have to be read before another one is taken
            if read == 6:
                break


async def test_payloads_may_come_from_an_async_generator_which_is_closed_in_any_case() -> None:
    """S2, L1: in one task, so that it may have scopes of its own; and what has come is read while it waits."""
    closed: list[int] = []

    async def slowly(many: int) -> AsyncIterator[Nap]:
        try:
            with anyio.CancelScope():
                for n in range(many):
                    await anyio.sleep(2)
                    yield Nap(n)
        finally:
            closed.append(many)
            await anyio.lowlevel.checkpoint()

    pool = sleepers(2)
    async with running(pool):
        start = current_time()
        async with pool.map(Sleeper.nap, slowly(3)) as answers:
            times = [current_time() - start async for _ in answers]
        assert times == [3, 5, 7]
        async with pool.map(Sleeper.nap, slowly(99)) as answers:
            async for _ in answers:
                break
            left = current_time()
        assert current_time() == left  # it was cancelled at its second payload, and not waited for
        async with pool.map(Sleeper.nap, slowly(999), limit=1) as answers:
            await anyio.sleep(4)
        with anyio.move_on_after(4):
            async with pool.map(Sleeper.nap, slowly(9999), limit=1) as answers:
                await anyio.sleep_forever()
    assert closed == [3, 99, 999, 9999]


async def test_a_generator_of_payloads_that_nobody_waits_for_has_time_to_clean_up() -> None:
    """S2, L4: it is closed, and not cancelled, where it has been left at a yield."""
    log: list[str] = []

    async def naps() -> AsyncIterator[Nap]:
        try:
            while True:
                yield Nap(1)
        finally:
            await anyio.sleep(0.5)
            log.append("closed")

    pool = sleepers(2)
    async with running(pool):
        async with pool.map(Sleeper.nap, naps(), limit=1):
            await anyio.sleep(4)
        assert log == ["closed"]


async def test_payloads_may_be_yielded_inside_of_a_task_group() -> None:
    """S2, L7: it closes with its generator."""
    log: list[str] = []

    async def naps() -> AsyncIterator[Nap]:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                while True:
                    yield Nap(1)
        finally:
            log.append("closed")

    pool = sleepers(2)
    async with running(pool):
        async with pool.map(Sleeper.nap, naps()) as answers:
            await anext(answers)
        assert log == ["closed"]


@pytest.mark.parametrize("seconds", [0, 5])
async def test_what_payloads_raise_while_they_are_closed_comes_out_of_the_map(
    seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    """S2: or is logged, where the body has raised; however long their clean-up takes."""

    async def naps() -> AsyncIterator[Nap]:
        try:
            while True:
                yield Nap(1)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(seconds)
            raise ValueError("the file is gone")

    async def read(error: Exception | None) -> None:
        async with pool.map(Sleeper.nap, naps()) as answers:
            await anext(answers)
            if error is not None:
                raise error

    pool = sleepers(2)
    async with running(pool):
        with pytest.raises(ValueError, match="the file is gone"):
            await read(None)
        with pytest.raises(KeyError, match="the body"):
            await read(KeyError("the body"))
    [record] = [each for each in caplog.records if each.name == "workerbus.pool"]
    assert "closed" in record.message
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "the file is gone"


async def test_leaving_early_cancels_what_is_under_way_and_it_has_unwound_then() -> None:
    """S2, J5, L1."""
    log: list[Any] = []
    pool = sleepers(3, log)
    async with running(pool):
        async with pool.map(Sleeper.nap, [Nap(0, 1), Nap(1, 50), Nap(2, 50), Nap(3, 50)]) as answers:
            async for answer in answers:
                assert answer.index == 0
                break
            await anyio.sleep(1)
        assert sorted(log, key=str) == [(END, 0), (END, 1), (END, 2), (END, 3), 0, 1, 2, 3]
        assert pool.statistics().active_jobs == 0


async def test_the_first_failure_cancels_the_others_and_is_raised_where_the_answers_are_read() -> None:
    """S2."""
    log: list[Any] = []
    pool = sleepers(3, log)
    async with running(pool), pool.map(Sleeper.nap, [Nap(1, 50), Nap(-2, 1), Nap(3, 50), Nap(4, 50)]) as answers:
        with pytest.raises(JobError, match=r"job 'nap' at 'pool' raised ValueError: -2 is less than 0"):
            await anext(answers)
        await anyio.sleep(1)
        assert {each for each in log if isinstance(each, int)} == {1, -2, 3}
        assert pool.statistics().active_jobs == 0
        assert [answer async for answer in answers] == []


async def test_behind_the_first_failure_no_answers_come_that_were_there_before() -> None:
    """S2."""
    pool = sleepers(2)
    async with running(pool), pool.map(Sleeper.nap, [Nap(1, 1), Nap(-2, 2)]) as answers:
        await anyio.sleep(3)
        with pytest.raises(JobError, match="-2 is less than 0"):
            await anext(answers)
        assert [answer async for answer in answers] == []


async def test_nothing_is_asked_for_behind_the_first_failure() -> None:
    """S2: not even that which was taken in the same step, and is about to be."""
    asked: list[int] = []

    class Refusing(WorkerPool):
        def job(self, *args: Any, **options: Any) -> Any:
            asked.append(options["payload"])
            raise ValueError("nobody is to be asked")

    pool = Refusing("pool", lambda name: Sleeper(name, []), size=3)
    async with running(pool), pool.map("nap", [1, 2, 3, 4]) as answers:
        with pytest.raises(ValueError, match="nobody is to be asked"):
            await anext(answers)
        await anyio.sleep(1)
        assert len(asked) == 1


async def test_a_job_that_fails_before_its_payloads_fail_is_the_first_failure(caplog: pytest.LogCaptureFixture) -> None:
    """S2: what payloads raise while they are closed for it is logged."""

    async def naps() -> AsyncIterator[Nap]:
        try:
            while True:
                yield Nap(-1)
        finally:
            raise ValueError("the file is gone")

    pool = sleepers(1)
    async with running(pool):
        with pytest.raises(JobError, match="-1 is less than 0"):  # noqa: PT012 - it comes out of the context
            async with pool.map(Sleeper.nap, naps()) as answers:
                await anyio.sleep(3)
                await anext(answers)
    assert [str(each.exc_info[1]) for each in caplog.records if each.name == "workerbus.pool" and each.exc_info] == [
        "the file is gone"
    ]


async def test_the_error_of_the_body_comes_out_of_it_as_it_is() -> None:
    """S2, L3: not in an exception group, and without the error of a job."""
    pool = sleepers(2)
    async with running(pool):
        with pytest.raises(KeyError, match="of the body"):  # noqa: PT012 - it comes out of the context
            async with pool.map(Sleeper.nap, [Nap(-1, 0), Nap(2, 50)]):
                await anyio.sleep(1)
                raise KeyError("of the body")
        with pytest.raises(JobError):
            async with pool.map(Sleeper.nap, [Nap(-1, 0), Nap(2, 50)]) as answers:
                await anext(answers)


async def test_failures_are_answers_where_they_are_to_be() -> None:
    """S2: with cancel_on_error=False; reading such a response raises its error."""
    pool = sleepers(2)
    naps = map(Nap, (1, -2, 3))
    async with running(pool), pool.map(Sleeper.nap, naps, cancel_on_error=False, ordered=True) as answers:
        first, second, third = [answer async for answer in answers]
    assert (first.response, third.response) == (Slept(1), Slept(3))
    assert isinstance(second.error, JobError)
    assert second.error.statuses == {"pool": JobStatus.ERROR}
    with pytest.raises(JobError, match="-2 is less than 0"):
        _ = second.response


async def test_the_options_of_a_job_hold_for_each_of_them() -> None:
    """S2, J20: a timeout for each, attempts, headers."""
    pool = sleepers(1)
    async with running(pool):
        async with pool.map(Sleeper.nap, [Nap(0, 2), Nap(1, 5)], timeout=3, limit=1, cancel_on_error=False) as answers:
            errors = [answer.error async for answer in answers]
        assert [isinstance(error, TimeoutError) for error in errors] == [False, True]
        async with pool.map(
            "nap", [{"n": -1, "seconds": 0}], attempts=3, retry_on="ValueError", cancel_on_error=False
        ) as answers:
            [answer] = [each async for each in answers]
        assert answer.error is not None
        assert answer.error.attempts == 3


async def test_what_the_iterable_raises_is_raised_where_the_answers_are_read() -> None:
    """S2."""

    def breaking() -> Iterator[Nap]:
        yield Nap(1, 50)
        raise KeyError("no more urls")

    pool = sleepers(2)
    async with running(pool):
        async with pool.map(Sleeper.nap, breaking()) as answers:
            with pytest.raises(KeyError, match="no more urls"):
                await anext(answers)
        assert pool.statistics().active_jobs == 0


async def test_a_payload_that_does_not_fit_is_raised_where_the_answers_are_read() -> None:
    """S2, J17."""
    pool = sleepers(2)
    wrong: list[Any] = ["text"]
    async with running(pool), pool.map(Sleeper.nap, wrong) as answers:
        with pytest.raises(TypeError, match="payload"):
            await anext(answers)


async def test_no_payloads_are_no_answers() -> None:
    """S2."""
    pool = sleepers(2)
    async with running(pool), pool.map(Sleeper.nap, list[Nap]()) as answers:
        assert [answer async for answer in answers] == []


async def test_several_loops_share_the_answers() -> None:
    """S2, J7: each answer is read once, and all loops end."""
    pool = sleepers(2)
    got: list[int] = []

    async def read(answers: Any) -> None:
        got.extend([answer.index async for answer in answers])

    async with (
        running(pool),
        pool.map(Sleeper.nap, map(Nap, range(9))) as answers,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            tasks.start_soon(read, answers)
    assert sorted(got) == list(range(9))


async def test_a_map_goes_as_fast_as_a_pool_that_grows() -> None:
    """S2."""
    pool = sleepers(1)
    async with running(pool):
        start = current_time()
        async with pool.map(Sleeper.nap, map(Nap, range(9))) as answers:
            async for answer in answers:
                if answer.index == 0:
                    await pool.resize(4)
        assert current_time() - start == 3


async def test_nothing_is_kept_of_maps_that_were_left() -> None:
    """R9, S2: by a pool that lives longer, however they were left."""
    async with running(pool := pool_of(1, kind=Sleeper)):
        left: list[weakref.ref[Any]] = []
        for fails in (False, True):
            with suppress(ValueError):
                async with pool.map("nap", [{"n": 1}, {"n": 2}]) as answers:
                    left.append(weakref.ref(answers))
                    async for _ in answers:
                        if fails:
                            raise ValueError("enough")
            del answers
        await pool.resize(2)
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert [each() for each in left] == [None, None]


async def test_a_map_hears_of_a_new_size_before_the_next_answer() -> None:
    """S2."""
    pool = sleepers(1)
    async with running(pool):
        start = current_time()
        async with anyio.create_task_group() as tasks, pool.map(Sleeper.nap, map(Nap, range(4))) as answers:
            await anyio.sleep(0.5)
            tasks.start_soon(pool.resize, 4)
            assert len([answer async for answer in answers]) == 4
        assert current_time() - start == 1.5


async def test_a_map_of_a_pool_that_ends_ends_with_an_error() -> None:
    """S2, J14: and does not hang."""
    pool = sleepers(2)
    async with running(pool), pool.map(Sleeper.nap, (Nap(n, 50) for n in range(9))) as answers:
        await anyio.sleep(1)
        await pool.stop()
        with pytest.raises((JobError, NotRunningError)):
            await anext(answers)


async def test_a_cancellation_from_outside_goes_through() -> None:
    """S2, L6."""
    log: list[Any] = []
    pool = sleepers(2, log)
    async with running(pool):
        with anyio.move_on_after(1) as scope:
            async with pool.map(Sleeper.nap, (Nap(n, 50) for n in range(9))) as answers:
                await anext(answers)
        assert scope.cancelled_caught
        assert sorted(log, key=str) == [(END, 0), (END, 1), 0, 1]


async def test_a_map_is_entered_once_and_before_it_is_read() -> None:
    """S2."""
    pool = sleepers(2)
    async with running(pool):
        mapped = pool.map(Sleeper.nap, [Nap(1)])
        with pytest.raises(NotRunningError, match=r"'async with pool\.map"):
            aiter(mapped)
        async with mapped:
            pass
        with pytest.raises(NotRunningError, match="was used before"):
            await mapped.__aenter__()


async def test_a_map_that_is_left_in_another_task_is_refused_and_nothing_of_it_stays() -> None:
    """S2, L7."""
    log: list[Any] = []
    pool = sleepers(2, log)
    async with running(pool):
        mapped = pool.map(Sleeper.nap, (Nap(n, 50) for n in range(9)))

        async def leave() -> None:
            with pytest.raises(WrongTaskError, match="map of pool 'pool'"):
                await mapped.__aexit__(None, None, None)

        async with pool.map(Sleeper.nap, [Nap(100, 0)]) as others:
            await mapped.__aenter__()
            await anyio.sleep(1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave)
            assert pool.statistics().active_jobs == 0
            assert [answer.index async for answer in others] == [0]
        assert {each for each in log if isinstance(each, tuple)} == {
            (END, each) for each in log if isinstance(each, int)
        }


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"payloads": 3}, TypeError, "payloads is an iterable of payloads, or an async one, not 3"),
        ({"limit": 0}, ValueError, "limit is at least 1, not 0"),
        ({"limit": "2"}, TypeError, "limit is a whole number, not '2'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(wrong: dict[str, Any], error: type[Exception], text: str) -> None:
    """S2, N8."""
    arguments: dict[str, Any] = {"payloads": [], **wrong}
    with pytest.raises(error, match=text):
        sleepers(1).map("nap", arguments.pop("payloads"), **arguments)


async def test_wrong_options_are_refused_where_the_answers_are_read() -> None:
    """S2, N8."""
    pool, wrong = sleepers(1), {"nonsense": 1}
    mapped: Any = pool.map("nap", [{}], **wrong)  # type: ignore[call-overload]  # a mistake
    async with running(pool), mapped as answers:
        with pytest.raises(TypeError, match="nonsense"):
            await anext(answers)


def test_an_answer_is_a_value() -> None:
    """N1, S2."""
    assert PoolAnswer(1, "a", {"x": 1}) == PoolAnswer(1, "a", {"x": 1})
    assert repr(PoolAnswer(1, "a", {"x": 1})).startswith("PoolAnswer(index=1, payload='a'")
