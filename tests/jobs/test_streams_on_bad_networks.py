"""J19: streams on a bus that loses messages, doubles them, or brings them late."""

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import current_time
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.networks import announcement, laws, network, runners, seeds
from support.requesters import Raw
from support.workers import running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobStreamDataMessage,
    BusJobStreamWaitingMessage,
    BusJobStreamWindowMessage,
    BusMessage,
    JobContext,
    JobError,
    JobStatus,
    JobTimeoutError,
    WorkerPool,
    WorkerRunner,
    job,
)
from workerbus.jobs._window import MARK, REMEMBERED, EventQueue
from workerbus.testing import Faults, FaultyBus, run
from workerbus.testing.strategies import fault_plans
from workerbus.worker._core import core_of

WINDOW = 4


class Source(BaseWorker):
    """Counts as fast as it can, and says when it has cleaned up."""

    def __init__(self, name: str = "source", many: int = 60) -> None:
        super().__init__(name)
        self.many = many
        self.sent = 0
        self.closed_at: list[float] = []

    @job(name="count")
    async def count(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        try:
            for n in range(self.many):
                self.sent += 1
                yield {"n": n}
        finally:
            self.closed_at.append(current_time())


def losing(kind: type[BusMessage], which: Iterable[int]) -> Faults:
    """Lose some messages of a class, by their number from 1 on."""
    lost, seen = set(which), 0

    def spare(message: BusMessage) -> bool:
        nonlocal seen
        if type(message) is not kind:
            return True
        seen += 1
        return seen not in lost

    return Faults(lose=1.0, spare=spare)


@asynccontextmanager
async def between(*workers: BaseWorker, faults: Faults, seed: int = 0) -> AsyncIterator[WorkerRunner]:
    """Run workers at one end of a network; whoever asks is at the other."""
    async with (
        network("left", "right", faults=faults, seed=seed) as (left, right),
        runners(left, right, *workers) as (asker, _),
    ):
        yield asker


def only(*kinds: type[BusMessage]) -> Callable[[BusMessage], bool]:
    return lambda message: type(message) not in kinds


def waiting(asked: JobContext[Any]) -> int:
    """How many events no loop has taken yet."""
    queue = asked._entered.queue
    return 0 if queue is None else sum(kind is not MARK for kind, _, _ in queue.events)


async def read(asker: WorkerRunner, *, pause: float = 0.0, **options: Any) -> list[int]:
    """Read all of a stream, and see that no more of it waits than the window allows."""
    found: list[int] = []
    async with asker.job("source", name="count", max_buffered_events=WINDOW, **options) as asked:
        async for chunk in asked.stream():
            assert waiting(asked) <= WINDOW + 3  # the stream's start and its end are events, too
            found.append(chunk["n"])
            await anyio.sleep(pause)
    assert asked.statuses == {"source": JobStatus.COMPLETED}
    return found


@pytest.mark.parametrize("which", [[1], [2], [1, 2, 3], range(2, 5), range(1, 60, 2)], ids=str)
async def test_a_handler_goes_on_though_it_was_not_told_that_it_may(which: Iterable[int]) -> None:
    """J19: it asks, after a while, and whoever reads says it again."""
    source = Source()
    async with between(source, faults=losing(BusJobStreamWindowMessage, which)) as asker:
        assert await read(asker) == list(range(60))
        assert current_time() < 40


async def test_a_member_of_a_pool_asks_in_the_name_that_was_asked() -> None:
    """J19, S2"""
    pool = WorkerPool("source", Source, size=2)
    async with between(pool, faults=losing(BusJobStreamWindowMessage, range(1, 4))) as asker:
        assert await read(asker) == list(range(60))
        assert current_time() < 40


@pytest.mark.parametrize("which", [[1], [3, 4], [1, 2, 3, 4], [10, 11, 12, 13], range(1, 30, 2), range(1, 57)], ids=str)
async def test_chunks_that_were_lost_are_missing_and_hold_nothing_up(
    which: Iterable[int], caplog: pytest.LogCaptureFixture
) -> None:
    """J7, J19: the others come in order, and a record says how many there should be."""
    source, lost = Source(), set(which)
    with caplog.at_level(logging.WARNING, "workerbus.jobs"):
        async with between(source, faults=losing(BusJobStreamDataMessage, lost)) as asker:
            assert await read(asker) == [n for n in range(60) if n + 1 not in lost]
            assert current_time() < 40
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{len(lost)} chunks of the stream of job ")
    assert record.getMessage().endswith(" from worker 'source' were lost on their way")
    assert vars(record)["job"] in record.getMessage()


async def test_nothing_is_said_of_chunks_that_have_all_arrived(caplog: pytest.LogCaptureFixture) -> None:
    """J19"""
    source = Source()
    with caplog.at_level(logging.WARNING, "workerbus.jobs"):
        async with between(source, faults=Faults(delay=(0.0, 0.3), duplicate=0.5)) as asker:
            assert await read(asker) == list(range(60))
    assert caplog.records == []


@pytest.mark.parametrize("pause", [0.0, 0.1])
async def test_what_comes_twice_is_read_once_and_takes_one_place(pause: float) -> None:
    """J19: chunks as well as what lets the handler go on."""
    source = Source()
    async with between(source, faults=Faults(duplicate=1.0, delay=0.2)) as asker:
        assert await read(asker, pause=pause) == list(range(60))
        assert core_of(asker).job_client.ignored >= 60


async def test_the_hook_of_a_chunk_that_comes_twice_runs_once() -> None:
    """J19"""

    class Asker(BaseWorker):
        def __init__(self) -> None:
            super().__init__("asker")
            self.hooked: list[int] = []

        async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
            self.hooked.append((message.data or {})["n"])

        @job(name="ask")
        async def ask(self, message: BusJobRequestMessage) -> dict[str, Any]:
            async with self.job("source", name="count", max_buffered_events=WINDOW) as asked:
                found = [chunk["n"] async for chunk in asked.stream()]
            return {"read": found}

    asker, source = Asker(), Source(many=10)
    async with network("left", faults=Faults(duplicate=1.0)) as (left,), running(asker, source, bus=left) as runner:
        assert await runner.job("asker", name="ask") == {"read": list(range(10))}
    assert asker.hooked == list(range(10))


async def test_a_handler_that_waits_asks_less_and_less_often() -> None:
    """J19: who reads slowly is not asked all the time, and answers nothing while there is nothing to say."""
    source = Source(many=10)
    async with between(source, faults=Faults()) as asker:
        raw = await Raw.on(asker.bus)
        async with asker.job("source", name="count", max_buffered_events=1) as asked:
            async for _ in asked.stream():
                if not waiting(asked):
                    break
            await anyio.sleep(5)
        waits = [message for message in raw.got if isinstance(message, BusJobStreamWaitingMessage)]
        assert waits == []  # nobody reads, so that nobody waits
        async with asker.job("source", name="count", max_buffered_events=1) as asked:
            reading = asked.stream()
            await anext(reading)
            await anyio.sleep(0.25)
            said = len([message for message in raw.got if isinstance(message, BusJobStreamWindowMessage)])
            await anyio.sleep(7.5)
            waits = [message for message in raw.got if isinstance(message, BusJobStreamWaitingMessage)]
            assert len(waits) == 3  # after 1, 3 and 7 seconds
            assert {message.sent for message in waits} == {waits[0].sent}
            assert len([m for m in raw.got if isinstance(m, BusJobStreamWindowMessage)]) == said
            assert [chunk["n"] async for chunk in reading] == list(range(1, 10))
        await asker.bus.unsubscribe(raw)


async def test_where_nothing_can_be_lost_nothing_is_numbered_or_asked() -> None:
    """J19: what it takes on a network costs nothing on a bus of one process."""
    source = Source(many=10)
    async with running(source) as runner:
        raw = await Raw.on(runner.bus)
        async with runner.job("source", name="count", max_buffered_events=1) as asked:
            async for _ in asked.stream():
                await anyio.sleep(1.5)
        chunks = [message for message in raw.got if isinstance(message, BusJobStreamDataMessage)]
        assert [message.number for message in chunks] == [None] * 10
        assert not [message for message in raw.got if isinstance(message, BusJobStreamWaitingMessage)]


@pytest.mark.parametrize(("lost", "closed_at"), [([1], 1.5), ([1, 2], 3.5)], ids=["while waited for", "afterwards"])
async def test_a_handler_that_was_not_told_to_stop_hears_so_when_it_asks(lost: list[int], closed_at: float) -> None:
    """J5, J19: its requester has left, and the cancel was lost; it is told by whom its answer is waited for, or not."""
    source = Source()
    async with between(source, faults=losing(BusJobCancelMessage, lost)) as asker:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the context is what it goes through
            async with asker.job("source", name="count", max_buffered_events=WINDOW) as asked:
                async for _ in asked.stream():
                    await anyio.sleep(0.5)
                    raise ZeroDivisionError
        assert current_time() == min(closed_at, 2.5)
        await anyio.sleep(5)
        assert source.closed_at == [closed_at]
        assert source.active_jobs == {}


async def test_a_stranger_that_says_that_it_waits_is_ignored() -> None:
    """J12, J19: it was not asked, and is told neither to go on nor to stop."""
    source = Source(many=5)
    async with between(source, faults=Faults()) as asker:
        raw = await Raw.on(asker.bus)
        async with asker.job("source", name="count", max_buffered_events=1) as asked:
            before = core_of(asker).job_client.ignored
            stranger = BusJobStreamWaitingMessage(asked.job_id, 0, source="stranger", target="asker")
            for _ in range(2):
                await asker.bus.send(stranger)
            assert [chunk["n"] async for chunk in asked.stream()] == list(range(5))
        assert core_of(asker).job_client.ignored == before + 2
        assert not [message for message in raw.got if message.target == "stranger"]
        await asker.bus.unsubscribe(raw)


async def test_with_everything_lost_the_timeout_ends_it_on_both_sides() -> None:
    """J6, J19"""
    source = Source()
    async with between(source, faults=Faults()) as asker:
        left = asker.bus
        assert isinstance(left, FaultyBus)
        with pytest.raises(JobTimeoutError):  # noqa: PT012 - the context is what raises
            async with asker.job("source", name="count", max_buffered_events=WINDOW, timeout=10) as asked:
                async for _ in asked.stream():
                    left.faults = Faults(lose=1.0)
        left.faults = Faults()
        assert len(source.closed_at) == 1
        assert 9.9 < source.closed_at[0] < 10.1
        assert current_time() <= 12.1


async def test_one_worker_s_lost_chunks_are_not_another_s(caplog: pytest.LogCaptureFixture) -> None:
    """J19: each is counted for itself."""
    sources = Source("a", 20), Source("b", 20)
    faults = Faults(lose=0.4, spare=lambda m: not (isinstance(m, BusJobStreamDataMessage) and m.source == "a"))
    async with between(*sources, faults=faults) as asker:
        found: dict[str, list[int]] = {"a": [], "b": []}
        async with asker.job_group("a", "b", name="count", max_buffered_events=WINDOW) as group:
            async for worker, chunk in group.stream():
                found[worker].append(chunk["n"])
    assert found["b"] == list(range(20))
    assert 0 < len(found["a"]) < 20
    assert found["a"] == sorted(set(found["a"]))
    (record,) = caplog.records
    missing = max(found["a"]) + 1 - len(found["a"])  # of those behind the last nothing is known
    assert f"{missing} chunks of the stream of job" in record.getMessage()
    assert "from worker 'a'" in record.getMessage()


@laws
@given(
    plan=fault_plans(),
    seed=seeds,
    size=st.integers(1, 5),
    pause=st.sampled_from([0.0, 0.25, 3.0]),
    timeout=st.sampled_from([5.0, 60.0]),
)
def test_whatever_a_network_does_a_stream_ends_in_time_and_in_order(
    backend: str, plan: Faults, seed: int, size: int, pause: float, timeout: float
) -> None:
    """J1, J6, J7, J19, L1: nothing is doubled, and the reader has no more waiting for it than a window."""

    async def main() -> None:
        faults = Faults(
            delay=plan.delay,
            duplicate=plan.duplicate,
            lose=plan.lose,
            split=plan.split / 10,
            split_seconds=plan.split_seconds,
            split_loses=plan.split_loses,
            spare=announcement,
        )
        source = Source(many=20)
        async with network("left", "right", seed=seed, faults=faults) as (left, right):
            asker = WorkerRunner(bus=left, name="asker", handle_sigint=False, grace_period=1.0)
            host = WorkerRunner(bus=right, name="host", handle_sigint=False, grace_period=1.0)
            async with host, asker:
                await host.add_workers(source)
                begun = current_time()
                found: list[int] = []
                ended = "completed"
                try:
                    async with asker.job("source", name="count", max_buffered_events=size, timeout=timeout) as asked:
                        async for chunk in asked.stream():
                            assert waiting(asked) <= size + 3
                            found.append(chunk["n"])
                            await anyio.sleep(pause)
                except JobError as error:
                    ended = error.reason
                assert current_time() - begun <= timeout + 2.1
                assert found == sorted(set(found))
                if not (plan.lose or plan.split_loses):
                    assert found == list(range(len(found)))
                    assert ended != "completed" or len(found) == 20
                await anyio.sleep(max(0.0, begun + timeout + 0.1 - current_time()))
                assert source.active_jobs == {}  # its own deadline at the latest

    run(main, backend=backend, seed=seed, limit=500.0)


async def test_a_network_that_loses_a_tenth_costs_a_stream_seconds_and_not_its_life() -> None:
    """J19: without a timeout, too."""
    source = Source(many=300)
    plan = Faults(lose=0.1, duplicate=0.1, delay=0.05, spare=only(BusJobStreamDataMessage, BusJobStreamWindowMessage))
    async with between(source, seed=3, faults=plan) as asker:
        found = await read(asker)
    assert 240 < len(found) < 300
    assert found == sorted(set(found))


# --- the reader's side by itself


class Account:
    """A reader's window with a sender and a network that are no more than numbers."""

    def __init__(self, size: int) -> None:
        self.size = self.granted = size
        self.queue = EventQueue("job", size, self.grant)
        self.sent = self.readers = self.lost = self.known = self.free = 0
        self.unread: list[int] = []
        self.seen: set[int] = set()
        self.under_way: list[int] = []
        self.told = 0
        self.waits = False

    def grant(self, job_id: str, worker: str, until: int) -> None:
        assert job_id == "job"
        if worker == "w":
            assert until >= self.granted
            self.granted = self.told = until

    def arrive(self, number: int) -> None:
        assert self.queue.add_chunk("w", {"n": number}, number) is (number not in self.seen)
        if number not in self.seen:
            self.seen.add(number)
            self.unread.append(number)
        self.known = max(self.known, number)

    def send(self) -> bool:
        if self.sent < self.granted:
            self.sent += 1
            self.waits = False
            return True
        return False

    def do_send(self) -> None:
        if self.send():
            self.arrive(self.sent)

    def do_lose(self) -> None:
        self.lost += self.send()

    def do_delay(self) -> None:
        if self.send():
            self.under_way.append(self.sent)

    def do_arrive(self) -> None:
        if self.under_way:
            self.arrive(self.under_way.pop())

    def do_double(self) -> None:
        for number in list(self.seen)[:1] + list(self.seen)[-1:]:
            self.arrive(number)

    def do_take(self) -> None:
        if self.readers and self.queue.events:
            kind, worker, data = self.queue.events.popleft()
            if kind is MARK:
                arrived, (kind, worker, data) = data, self.queue.events.popleft()
                self.queue.took(worker, arrived)
            if worker == "w":
                assert data == {"n": self.unread.pop(0)}
        if self.readers and self.waits and not self.unread:
            assert self.granted > self.sent  # one that has asked hears of it, without asking again

    def do_another(self) -> None:
        self.queue.add_chunk("v", {})

    def do_begin(self) -> None:
        self.readers += 1
        self.queue.begins()

    def do_end(self) -> None:
        if self.readers:
            self.readers -= 1
            self.queue.ends()

    def do_wait(self) -> None:
        if self.sent:
            self.told = 0
            self.queue.waits("w", self.sent)
            self.known = self.sent
            self.waits = self.told <= self.sent
            assert self.waits is (self.granted <= self.sent)
            if not self.readers or len(self.unread) < self.size:
                assert not self.waits

    def check(self) -> None:
        self.free = max(self.free, self.known - len(self.unread) if self.readers else self.known)
        assert self.granted <= self.free + self.size


STEPS = [name for name in vars(Account) if name.startswith("do_")]


@settings(max_examples=250)
@example(size=1, steps=["do_send", "do_send", "do_begin", "do_lose", "do_wait", "do_take", "do_take"])
@given(size=st.integers(1, 4), steps=st.lists(st.sampled_from(STEPS), min_size=30, max_size=80))
def test_a_reader_s_account_holds_whatever_is_lost_doubled_or_late(size: int, steps: list[str]) -> None:
    """J19: no chunk counts twice, at most a window waits, and a sender that asks is told where it may go on."""
    account = Account(size)
    for step in steps:
        getattr(account, step)()
        account.check()
    account.do_wait()
    assert account.queue.lost("w") == account.lost + len(account.under_way)


def test_chunks_that_are_far_behind_are_forgotten_and_not_kept_count_of_for_ever() -> None:
    """J19: a network that loses more and more takes no more and more memory."""
    queue = EventQueue("job", 8, lambda *_: None)
    for number in range(1, 100_000, 2):
        assert queue.add_chunk("w", None, number)
    assert queue.lost("w") == 49_999
    assert queue.add_chunk("w", None, 99_998)
    assert not queue.add_chunk("w", None, 99_998)
    assert not queue.add_chunk("w", None, 99_998 - 2 * REMEMBERED)
    assert len(queue._counts["w"].missing) <= 2 * REMEMBERED
    assert queue.add_chunk("w", None, 10**12)
    assert len(queue._counts["w"].missing) <= 2 * REMEMBERED
