"""S2: pools in several processes that share a name: who does a job, and what happens when one of them is lost."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import permutations
from typing import Any

import anyio
import pytest
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from support.pools import END, Member, pool_of
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusJobUpdateRequestMessage,
    BusMessage,
    BusPoolLoadMessage,
    JobError,
    JobGroupError,
    JobStatus,
    MemoryBus,
    WorkerPool,
    WorkerReadyData,
    WorkerRunner,
    job,
)
from workerbus._shared_pools import SharedPools
from workerbus.testing import PeerNetwork, settle


def known(worker: str, runner: str, places: int = 1) -> WorkerReadyData:
    return WorkerReadyData(f"pool@{worker}", runner, "pool", places)


def test_the_least_busy_is_chosen_by_the_part_of_its_places_that_is_taken() -> None:
    """S2: what was asked from here since its last announcement counts, too."""
    pools = SharedPools("me")
    pools.add(small := known("small", "a", 2))
    pools.add(large := known("large", "b", 4))
    chosen = Counter(pools.choose("pool") for _ in range(12))
    assert chosen == {small: 4, large: 8}
    pools.note_load(large, 4, 0)
    assert [pools.choose("pool") for _ in range(8)] == [large] * 8
    assert pools.places("pool") == 6


def test_among_equals_it_is_the_own_one_then_the_one_that_waited_longest() -> None:
    """S2"""
    pools = SharedPools("me")
    for name, runner in (("a", "a"), ("mine", "me"), ("b", "b")):
        pools.add(known(name, runner))
    chosen = [pools.choose("pool") for _ in range(6)]
    assert [data.runner for data in chosen if data is not None] == ["me", "a", "b", "me", "a", "b"]


def test_whose_turn_it_is_among_equals_is_told_by_when_each_was_chosen_last() -> None:
    """S2: however often each was, and whatever they have said of themselves since."""
    pools = SharedPools("me")
    a, b, c = (known(name, name) for name in "abc")
    for each in (a, b, c):
        pools.add(each)

    def choices(count: int, busy: int) -> list[WorkerReadyData | None]:
        chosen = []
        for _ in range(count):
            for each, taken in ((a, 0), (b, 0), (c, busy)):
                pools.note_load(each, 1, taken)
            chosen.append(pools.choose("pool"))
        return chosen

    assert choices(9, 0) == [a, b, c] * 3
    assert choices(4, 1) == [a, b] * 2
    assert choices(6, 0) == [c, a, b] * 2


def test_a_pool_that_announces_itself_again_stays_as_busy_as_it_was() -> None:
    """S2: in a list, say, that all get when a runner comes."""
    pools = SharedPools("me")
    pools.add(busy := known("busy", "a", 4))
    pools.add(other := known("other", "b", 4))
    pools.note_load(busy, 4, 4)
    pools.add(known("busy", "a", 4))
    assert [pools.choose("pool") for _ in range(4)] == [other] * 4


def test_what_was_asked_of_a_pool_counts_until_that_says_how_busy_it_is() -> None:
    """S2: what it says then has that in it."""
    pools = SharedPools("me")
    pools.add(first := known("first", "a", 4))
    pools.add(second := known("second", "b", 4))
    pools.note_load(second, 4, 3)
    assert [pools.choose("pool") for _ in range(3)] == [first] * 3
    pools.note_load(first, 4, 3)
    pools.note_load(second, 4, 4)
    assert pools.choose("pool") is first


def test_one_that_is_gone_is_not_chosen_and_nothing_is_kept_of_it() -> None:
    """S2, R9"""
    pools = SharedPools("me")
    pools.add(first := known("first", "a"))
    pools.add(second := known("second", "b"))
    pools.remove(first)
    assert {pools.choose("pool") for _ in range(3)} == {second}
    assert pools.get("pool") is second
    pools.remove(second)
    assert pools.choose("pool") is pools.get("pool") is None
    assert "pool" not in pools
    assert pools.names == []
    assert pools.places("pool") == 0


def test_a_busy_pool_is_left_out_until_it_says_that_it_has_room() -> None:
    """S2"""
    pools = SharedPools("me")
    pools.add(busy := known("busy", "a", 2))
    pools.add(free := known("free", "b", 2))
    pools.note_load(busy, 2, 6)
    assert [pools.choose("pool") for _ in range(6)] == [free] * 6
    pools.note_load(busy, 2, 0)
    assert pools.choose("pool") is busy


@asynccontextmanager
async def processes(
    network: PeerNetwork, sizes: dict[str, int], **options: Any
) -> AsyncIterator[tuple[WorkerRunner, dict[str, WorkerPool]]]:
    """Run a process that asks, and one for each part of a pool; all know each other."""
    async with AsyncExitStack() as stack:
        asker = await stack.enter_async_context(WorkerRunner(bus=network.end("asker"), name="asker"))
        pools: dict[str, WorkerPool] = {}
        for name, size in sizes.items():
            runner = await stack.enter_async_context(WorkerRunner(bus=network.end(name), name=name))
            pools[name] = pool_of(size, shared=name, **options)
            await runner.add_workers(pools[name], wait=True)
        for name in sizes:
            await asker.registry.wait_for(f"pool@{name}")
        await settle()
        yield asker, pools


def part(answer: dict[str, Any]) -> str:
    """Return which part of the pool has answered."""
    return str(answer["member"]).partition("@")[2].partition("/")[0]


async def test_a_job_for_the_shared_name_goes_to_the_least_busy_process() -> None:
    """S2: in proportion to how many members each has."""
    done: Counter[str] = Counter()

    async def ask(asker: WorkerRunner) -> None:
        done[part(await asker.job("pool", name="sleep", payload={"seconds": 1.0}))] += 1

    async with processes(PeerNetwork(), {"left": 1, "right": 3}) as (asker, _), anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(ask, asker)
    assert done == {"left": 2, "right": 6}


async def test_answers_come_in_the_shared_name() -> None:
    """S2: the one who asks need not know that there are several."""
    async with processes(PeerNetwork(), {"left": 1, "right": 1}) as (asker, pools):
        async with asker.job_group("pool", name="who", payload={"n": 1}) as group:
            pass
        assert list(group.responses) == ["pool"]
        assert group.statuses == {"pool": JobStatus.COMPLETED}
        assert [pool.shared_name for pool in pools.values()] == ["pool", "pool"]
        assert "pool" in asker.registry
        assert await asker.job("pool@right", name="who", payload={"n": 2}) == {"member": "pool@right/1", "n": 2}


@pytest.mark.parametrize("names", [*permutations(("pool", "apart", "worker"))], ids=", ".join)
async def test_a_group_asks_a_shared_pool_and_others_each_in_the_name_that_was_asked(names: tuple[str, ...]) -> None:
    """S2, J11: beside one that shares nothing, and a worker, in any order."""
    async with processes(PeerNetwork(), {"right": 1}) as (asker, _):
        await asker.add_workers(pool_of(1, name="apart"), Member("worker", []), wait=True)
        payloads = {"worker": {"n": 2}}
        responses = await asker.job_group(*names, name="who", payload={"n": 1}, payloads=payloads, timeout=9)
        by = {"pool": ("pool@right/1", 1), "apart": ("apart/1", 1), "worker": ("worker", 2)}
        assert [(name, its["member"], its["n"]) for name, its in responses.items()] == [
            (name, *by[name]) for name in names
        ]


@pytest.mark.parametrize("names", [("pool", "pool@right"), ("pool@right", "pool")], ids=", ".join)
async def test_a_group_that_asks_a_part_by_both_its_names_hears_at_once_that_it_was_asked_already(
    names: tuple[str, ...],
) -> None:
    """J1, S2: its two requests would be one job."""
    async with processes(PeerNetwork(), {"right": 1}) as (asker, _):
        async with asker.job_group(*names, name="who", payload={"n": 1}, cancel_on_error=False, timeout=9) as group:
            pass
        assert list(group.statuses.values()) == [JobStatus.COMPLETED, JobStatus.FAILED]
        assert "asked for this job already" in group.responses[names[1]]["error"]
        with pytest.raises(JobGroupError, match=f"{names[1]!r} is worker 'pool@right', which was asked"):
            await asker.job_group(*names, name="who", payload={"n": 1})
        assert asker.statistics().job_groups == ()


async def test_a_handler_sees_the_name_that_was_asked() -> None:
    """S2"""

    class Seeing(Member):
        @job(name="see")
        async def see(self, message: BusJobRequestMessage) -> None:
            self.log.append(message.target)

    seen: list[Any] = []
    async with processes(PeerNetwork(), {"left": 1}, log=seen, kind=Seeing) as (asker, _):
        await asker.job("pool", name="see")
        assert seen == ["pool"]


async def test_whoever_wants_to_know_how_a_job_is_getting_on_is_told_by_the_process_that_has_it() -> None:
    """S2"""

    class Telling(Member):
        async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
            await self.send_job_update(message.job_id, {"member": self.name})

    async with processes(PeerNetwork(), {"left": 1, "right": 1}, kind=Telling) as (asker, _):
        worker = BaseWorker("worker")
        await asker.add_workers(worker, wait=True)
        async with worker.job("pool", name="sleep", payload={"seconds": 1.0}) as asked:
            await worker.request_job_update(asked.job_id, "pool")
            told = [event.data async for event in asked]
        assert told == [{"member": asked.response["member"]}]


async def test_a_stream_goes_on_when_its_reader_has_read() -> None:
    """S2, J19: the process that has the job is told how much it may send."""

    class Counting(Member):
        @job(name="count")
        async def count(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            for n in range(30):
                self.log.append(n)
                yield {"n": n}

    sent: list[Any] = []
    async with (
        processes(PeerNetwork(), {"left": 1, "right": 1}, log=sent, kind=Counting) as (asker, _),
        asker.job("pool", name="count", max_buffered_events=4, timeout=5) as asked,
    ):
        read = [chunk["n"] async for chunk in asked.stream() if len(sent) <= chunk["n"] + 6]
    assert read == list(range(30))


async def test_a_cancel_reaches_the_process_that_has_the_job() -> None:
    """S2, J5: and only that one; the context is left when the handler has unwound."""
    log: list[Any] = []
    async with processes(PeerNetwork(), {"left": 1, "right": 1}, log=log) as (asker, pools):
        for n in range(2):
            with anyio.move_on_after(1.0):
                async with asker.job("pool", name="sleep", payload={"seconds": 60.0, "n": n}):
                    await anyio.sleep(0.5)
                    assert sum(pool.statistics().running for pool in pools.values()) == 1
                    await anyio.sleep_forever()
    assert log == [("begun", 0), (END, 0), ("begun", 1), (END, 1)]


async def test_jobs_of_a_process_that_is_killed_are_errors_or_done_by_another() -> None:
    """S2, J4, J20: as the job says."""
    network = PeerNetwork(lease=2.0, beat=0.5)
    outcomes: dict[str, Any] = {}

    async def ask(asker: WorkerRunner, name: str, **options: Any) -> None:
        try:
            outcomes[name] = part(await asker.job("pool", name="sleep", payload={"seconds": 3.0}, **options))
        except JobError as error:
            outcomes[name] = error.statuses["pool"]

    async def host(end: Any) -> None:
        async with WorkerRunner(bus=end, name="right") as runner:
            await runner.add_workers(pool_of(2, shared="right"))
            await anyio.sleep_forever()

    async with processes(network, {"left": 2}) as (asker, _), anyio.create_task_group() as group:
        group.start_soon(network.run, "right", host)
        await asker.registry.wait_for("pool@right")
        await settle()
        group.start_soon(ask, asker, "first")
        await anyio.sleep(0.01)
        group.start_soon(ask, asker, "fragile")
        await anyio.sleep(0.01)
        group.start_soon(ask, asker, "third")
        await anyio.sleep(0.01)
        options = {"attempts": 2, "retry_on": JobStatus.ERROR}
        group.start_soon(lambda: ask(asker, "repeated", **options))
        await anyio.sleep(0.1)
        network.kill("right")
    assert Counter(map(str, outcomes.values())) == {"left": 3, "error": 1}
    assert outcomes["repeated"] == "left"


@pytest.mark.parametrize("name", ["pool", "pool@host"])
async def test_jobs_of_a_process_that_is_lost_are_answered_however_often_its_pool_was_announced(name: str) -> None:
    """S2, J1, J4: whoever joins hears of it more than once. It may be asked by the name that is its own, too."""
    network, answers = PeerNetwork(), list[str]()

    async def ask(asker: WorkerRunner) -> None:
        with pytest.raises(JobError, match="gone"):
            await asker.job(name, name="sleep", payload={"seconds": 100.0})
        answers.append("gone")

    async with WorkerRunner(bus=network.end("host"), name="host") as host:
        await host.add_workers(pool_of(1, shared="host"), wait=True)
        async with WorkerRunner(bus=network.end("asker"), name="asker") as asker, anyio.create_task_group() as group:
            await asker.registry.wait_for("pool")
            await settle()
            group.start_soon(ask, asker)
            await settle()
            assert not answers
            network.fence("host")
            await settle()
            assert answers == ["gone"]


async def test_a_job_waits_for_the_first_pool_of_its_name() -> None:
    """S2, J6"""
    network = PeerNetwork()
    answers: list[str] = []

    async def ask(asker: WorkerRunner) -> None:
        answers.append(part(await asker.job("pool", name="who", payload={"n": 1}, timeout=10)))

    async with (
        WorkerRunner(bus=network.end("asker"), name="asker") as asker,
        WorkerRunner(bus=network.end("left"), name="left") as runner,
        anyio.create_task_group() as group,
    ):
        group.start_soon(ask, asker)
        await anyio.sleep(1)
        await runner.add_workers(pool_of(1, shared="left"))
    assert answers == ["left"]


async def test_one_that_leaves_gets_no_more_and_finishes_what_it_has() -> None:
    """S2, R2"""
    network = PeerNetwork()
    parts: list[str] = []
    async with AsyncExitStack() as stack:
        asker = await stack.enter_async_context(WorkerRunner(bus=network.end("asker"), name="asker"))
        for name in ("left", "right"):
            runner = await stack.enter_async_context(WorkerRunner(bus=network.end(name), name=name, job_grace=5.0))
            await runner.add_workers(pool_of(1, shared=name), wait=True)
            await asker.registry.wait_for(f"pool@{name}")

        async def ask() -> None:
            parts.append(part(await asker.job("pool", name="sleep", payload={"seconds": 1.0})))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
            await anyio.sleep(0.5)
            await runner.end()
            await settle()
            for _ in range(3):
                assert part(await asker.job("pool", name="who", payload={"n": 1})) == "left"
    assert sorted(parts) == ["left", "right"]


async def test_a_pool_that_grows_says_so() -> None:
    """S2"""
    async with processes(PeerNetwork(), {"left": 1, "right": 1}) as (asker, pools):
        await pools["right"].resize(3)
        await settle()
        parts: Counter[str] = Counter()

        async def ask() -> None:
            parts[part(await asker.job("pool", name="sleep", payload={"seconds": 1.0}))] += 1

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(ask)
        assert parts == {"left": 2, "right": 6}


async def test_a_pool_that_grows_tells_of_the_jobs_that_wait_for_it_too() -> None:
    """S2: how busy it is goes by all that it has, and not by what its members do."""
    told: list[tuple[int, int]] = []

    def tap(message: BusMessage) -> None:
        if isinstance(message, BusPoolLoadMessage):
            told.append((message.places, message.taken))

    async with WorkerRunner() as runner, anyio.create_task_group() as group:
        pool = pool_of(1, shared="it")
        await runner.add_workers(pool, wait=True)
        for _ in range(3):
            group.start_soon(lambda: runner.job("pool", name="sleep", payload={"seconds": 5.0}))
        await anyio.sleep(1.0)
        runner.bus.add_tap(tap)
        await pool.resize(2)
        await settle()
        assert told == [(2, 3)]
        group.cancel_scope.cancel()


async def test_a_pool_that_is_inactive_is_not_chosen() -> None:
    """S2, W4"""
    async with processes(PeerNetwork(), {"left": 1, "right": 1}) as (asker, pools):

        async def parts() -> set[str]:
            return {part(await asker.job("pool", name="who", payload={"n": n})) for n in range(4)}

        assert await parts() == {"left", "right"}
        await pools["right"].deactivate_worker(pools["right"].name)
        await anyio.sleep(1)  # they have told how busy they are
        assert await parts() == {"left"}
        await pools["right"].activate_worker(pools["right"].name)
        await anyio.sleep(1)  # they have told how busy they are
        assert await parts() == {"left", "right"}


async def test_a_map_of_one_process_uses_the_members_of_all() -> None:
    """S2: and takes as many payloads at once as they have places."""
    taken: list[int] = []

    def payloads() -> Any:
        for n in range(12):
            taken.append(n)
            yield {"n": n, "seconds": 1.0}

    async with processes(PeerNetwork(), {"left": 1, "right": 2}) as (_, pools):
        parts: Counter[str] = Counter()
        begun = anyio.current_time()
        async with pools["left"].map("sleep", payloads()) as answers:
            async for answer in answers:
                parts[part(answer.response)] += 1
        assert parts == {"left": 4, "right": 8}
        assert anyio.current_time() - begun < 5.5
    assert taken == list(range(12))


async def test_a_map_uses_the_members_of_a_process_that_comes_while_it_goes_on() -> None:
    """S2"""
    network = PeerNetwork()
    async with processes(network, {"left": 1}) as (_, pools), WorkerRunner(bus=network.end("right")) as right:
        parts: Counter[str] = Counter()
        begun = anyio.current_time()
        async with pools["left"].map("sleep", ({"n": n, "seconds": 1.0} for n in range(15))) as answers:
            async for answer in answers:
                parts[part(answer.response)] += 1
                if answer.index == 2:
                    await right.add_workers(pool_of(3, shared="right"), wait=True)
                    await settle()
        assert parts["right"] > parts["left"]
        assert anyio.current_time() - begun < 8


async def test_pools_of_two_runners_on_one_bus_share_a_name_as_well() -> None:
    """S2, R6"""
    async with MemoryBus() as bus, WorkerRunner(bus=bus, name="a") as first, WorkerRunner(bus=bus, name="b") as second:
        await first.add_workers(pool_of(1, shared="a"), wait=True)
        async with WorkerRunner(bus=bus, name="late") as late:
            assert part(await late.job("pool", name="who", payload={"n": 1}, timeout=5)) == "a"
        await second.add_workers(pool_of(1, shared="b"), wait=True)
        parts: Counter[str] = Counter()

        async def ask() -> None:
            parts[part(await first.job("pool", name="sleep", payload={"seconds": 1.0}))] += 1

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(ask)
        assert parts == {"a": 2, "b": 2}
        third = WorkerRunner(bus=bus, name="c")
        async with third:
            assert part(await third.job("pool", name="who", payload={"n": 1})) in ("a", "b")
            assert "pool" in third.registry
    assert "pool" not in first.registry


async def test_each_runner_of_a_bus_knows_which_pools_share_a_name_and_how_busy_they_are_whenever_it_came() -> None:
    """S2, R6: also that one of them has gone."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(MemoryBus())
        runners = [await stack.enter_async_context(WorkerRunner(bus=bus, name=name)) for name in ("early", "a", "b")]
        pools = {name: pool_of(2, shared=name) for name in ("a", "b")}
        for runner in runners[1:]:
            await runner.add_workers(pools[runner.name], wait=True)
        runners.append(await stack.enter_async_context(WorkerRunner(bus=bus, name="late")))
        for asker in runners:
            async with asker.job("pool@b", name="sleep", payload={"seconds": 1.0}):
                await anyio.sleep(0.5)  # it has told how busy it is
                assert [await _part(each) for each in runners] == ["a"] * 4
        await anyio.sleep(0.5)  # it has told that it is idle
        for each in runners:
            async with anyio.create_task_group() as group:
                answers = [await group.start(_answer, each) for _ in range(4)]
            assert Counter(part(answer) for answer in answers) == {"a": 2, "b": 2}
            await anyio.sleep(0.5)
        await pools["b"].stop()
        assert [await _part(each) for each in runners * 2] == ["a"] * 8
        await pools["a"].stop()
        assert not any("pool" in each.registry for each in runners)


async def _part(asker: WorkerRunner) -> str:
    return part(await asker.job("pool", name="who", payload={"n": 1}, timeout=5))


async def _answer(asker: WorkerRunner, *, task_status: TaskStatus[dict[str, Any]] = TASK_STATUS_IGNORED) -> None:
    answer: dict[str, Any] = {}
    task_status.started(answer)
    answer.update(await asker.job("pool", name="sleep", payload={"seconds": 1.0}))


async def test_a_pool_tells_how_busy_it_is_only_when_that_changes_and_not_at_every_job() -> None:
    """S2, B7"""
    async with processes(PeerNetwork(), {"left": 2}) as (asker, _):
        told: list[BusPoolLoadMessage] = []
        asker.bus.add_tap(lambda message: told.append(message) if isinstance(message, BusPoolLoadMessage) else None)
        await anyio.sleep(5)
        assert told == []
        for n in range(50):
            await asker.job("pool", name="who", payload={"n": n})
        await anyio.sleep(5)
        assert 1 <= len(told) <= 2
        assert (told[-1].places, told[-1].taken) == (2, 0)


async def test_a_pool_tells_how_busy_it_is_again_when_a_long_job_is_over() -> None:
    """S2"""
    async with processes(PeerNetwork(), {"left": 2}) as (asker, _):
        told: list[BusPoolLoadMessage] = []
        asker.bus.add_tap(lambda message: told.append(message) if isinstance(message, BusPoolLoadMessage) else None)
        await asker.job("pool", name="sleep", payload={"seconds": 5.0})
        await anyio.sleep(5)
        assert [message.taken for message in told] == [1, 0]


async def test_a_name_that_nobody_shares_any_more_is_unknown() -> None:
    """S2, G2"""
    async with processes(PeerNetwork(), {"left": 1}) as (asker, pools):
        await pools["left"].stop()
        await settle()
        assert "pool" not in asker.registry
        assert asker.registry.get("pool") is None


def test_a_pool_without_a_name_has_none_to_share() -> None:
    """S2"""
    with pytest.raises(ValueError, match="has none to share"):
        WorkerPool(None, pool_of, size=1, shared=True)  # type: ignore[arg-type]  # refused before it is called
