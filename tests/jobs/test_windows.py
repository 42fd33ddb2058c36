"""J19: a handler that is faster than the reader of its stream waits for it, and for nobody else."""

import gc
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import current_time
from hypothesis import given, settings
from hypothesis import strategies as st

from support.requesters import Listener, Raw
from support.workers import running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusJobStreamWindowMessage,
    JobError,
    JobEvent,
    JobStatus,
    JobTimeoutError,
    UnknownJobError,
    WorkerParams,
    WorkerRunner,
    job,
)
from workerbus.jobs._window import MARK, EventQueue, SenderWindow
from workerbus.testing import DeadlockError, run


class Source(BaseWorker):
    """Streams as fast as it can, and counts what it has sent."""

    def __init__(self, name: str = "source", many: int = 100) -> None:
        super().__init__(name)
        self.many = many
        self.sent = 0
        self.ended_by: list[str] = []

    @job(name="stream")
    async def stream(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        try:
            for n in range(self.many):
                yield {"n": n}
                self.sent += 1
        except BaseException as exc:
            self.ended_by.append(type(exc).__name__)
            raise

    @job(name="send")
    async def send(self, message: BusJobRequestMessage) -> None:
        try:
            await self.send_all(message)
        except BaseException as exc:
            self.ended_by.append(type(exc).__name__)
            raise

    async def send_all(self, message: BusJobRequestMessage) -> None:
        for n in range(self.many):
            await self.send_job_stream_data(message.job_id, {"n": n})
            self.sent += 1

    @job(name="later", deferred=True)
    async def later(self, message: BusJobRequestMessage) -> None:
        self.create_task(self.send_later, message)

    async def send_later(self, message: BusJobRequestMessage) -> None:
        try:
            await self.send_all(message)
            await self.send_job_stream_end(message.job_id)
        except UnknownJobError as exc:
            self.ended_by.append(type(exc).__name__)


async def quiet() -> None:
    await anyio.sleep(0.001)  # of virtual time: all that can go on has gone on


@pytest.mark.parametrize("name", ["stream", "send", "later"])
async def test_a_handler_is_at_most_a_window_ahead_of_its_reader(name: str) -> None:
    """J19: however fast it is; nothing is dropped, and the order stays."""
    source = Source()
    read: list[int] = []
    ahead: list[int] = []
    async with running(source) as runner, runner.job("source", name=name, max_buffered_events=8) as asked:
        async for chunk in asked.stream():
            await quiet()
            ahead.append(source.sent - len(read))
            read.append(chunk["n"])
    assert read == list(range(100))
    assert 5 <= max(ahead) <= 9  # the window, and the one in the reader's hand
    assert max(ahead[:80]) > 1


async def test_the_window_is_1024_unless_said_otherwise() -> None:
    """J19"""
    source = Source(many=5000)
    async with running(source) as runner, runner.job("source", name="send") as asked:
        async for _ in asked.stream():
            await quiet()
            assert 1000 < source.sent <= 1024
            break


async def test_a_job_that_nobody_iterates_does_not_wait() -> None:
    """J19: nor one that is awaited, nor one without a context."""
    source, asker = Source(many=500), Listener("asker")
    async with running(source, asker) as runner:
        async with runner.job("source", name="send", max_buffered_events=2):
            await quiet()
            assert source.sent == 500
        await runner.job("source", name="send")
        await asker.request_job("source", name="send")
        await asker.until("completed")
    assert source.sent == 1500


@pytest.mark.parametrize("how", ["job", "job_group"])
@pytest.mark.parametrize("events", ["stream", "__aiter__"])
async def test_a_loop_that_was_made_and_never_run_is_not_waited_for(events: str, how: str) -> None:
    """J19: whoever keeps the iterator does not read yet; it has all that came before. One that is gone is no reader."""
    source = Source()
    async with running(source) as runner, getattr(runner, how)("source", name="send", max_buffered_events=2) as asked:
        getattr(asked, events)()
        gc.collect()
        kept = getattr(asked, events)()
        await quiet()
        assert source.sent == 100
        assert len([each async for each in kept]) == 100


async def test_what_came_before_the_loop_began_is_in_it() -> None:
    """J7, J19: and the handler waits only from then on."""
    source = Source(many=30)
    async with running(source) as runner, runner.job("source", name="later", max_buffered_events=4) as asked:
        await quiet()
        assert source.sent == 30
        assert [chunk["n"] async for chunk in asked.stream()] == list(range(30))


@pytest.mark.parametrize("how", ["break", "break of all events"])
async def test_a_loop_that_is_broken_off_lets_the_handler_go_on(how: str) -> None:
    """J19: at once, and not only when the context is left."""
    source = Source()
    async with running(source) as runner, runner.job("source", name="send", max_buffered_events=4) as asked:
        if how == "break":
            async for _ in asked.stream():
                break
        else:
            async for _ in asked:
                break
        gc.collect()
        await quiet()
        assert source.sent == 100


async def test_a_long_loop_that_is_broken_off_counts_as_one() -> None:
    """J19: however much it has read."""
    source = Source(many=500)
    async with running(source) as runner, runner.job("source", name="send", max_buffered_events=4) as asked:
        async for chunk in asked.stream():
            if chunk["n"] == 200:
                break
        await quiet()
        assert source.sent == 500


async def test_a_loop_that_is_broken_off_lets_all_of_a_group_go_on() -> None:
    """J19"""
    sources = [Source(name, many=50) for name in ("a", "b", "c")]
    async with (
        running(*sources) as runner,
        runner.job_group("a", "b", "c", name="send", max_buffered_events=4) as group,
    ):
        async for _ in group.stream():
            await quiet()
            assert all(source.sent < 10 for source in sources)
            break
        await quiet()
        assert [source.sent for source in sources] == [50, 50, 50]


@pytest.mark.parametrize("reads", [False, True])
async def test_a_handler_that_sends_in_a_row_can_be_cancelled(reads: bool) -> None:
    """J5, J19: whether anybody could read or not, and though sending itself is no place for that."""
    source = Source(many=10**9)
    async with running(source) as runner:
        with anyio.move_on_after(0) as scope:
            if reads:
                async with runner.job("source", name="send"):
                    pass
            else:
                await runner.job("source", name="send")
        assert scope.cancelled_caught
        assert source.active_jobs == {}


@pytest.mark.parametrize("name", ["stream", "send"])
async def test_a_handler_that_is_cancelled_before_its_first_chunk_sends_no_end_of_them(name: str) -> None:
    """J5, J19: it was in a shield then, and never waits afterwards."""

    class Shielded(Source):
        async def ready(self) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

        @job(name="stream")
        async def stream(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
            await self.ready()
            while True:
                yield {}

        @job(name="send")
        async def send(self, message: BusJobRequestMessage) -> None:
            await self.ready()
            await super().send(message)

    source = Shielded(many=10**9)
    async with running(source) as runner:
        with anyio.move_on_after(0.5) as scope:
            await runner.job("source", name=name)
        assert scope.cancelled_caught
        assert current_time() == 1
        assert source.active_jobs == {}


@pytest.mark.parametrize("name", ["stream", "send"])
async def test_a_handler_that_sends_in_a_row_ends_with_its_worker(name: str) -> None:
    """J4, J19: when that fails, too."""

    class Failing(Source):
        async def run(self, params: WorkerParams) -> None:
            self.own_tasks = params.task_group
            await super().run(params)

        async def fail(self) -> None:
            raise ZeroDivisionError

    source = Failing(many=10**9)
    async with running(source) as runner:
        runner.add_event_handler("on_error", lambda *_: None)
        with pytest.raises(JobError) as caught:
            async with runner.job("source", name=name):
                source.own_tasks.start_soon(source.fail)
        assert caught.value.statuses == {"source": JobStatus.ERROR}
        assert current_time() == 0


async def test_a_second_loop_makes_it_wait_again() -> None:
    """J19: with what the first has left."""
    source = Source(many=100)
    async with running(source) as runner, runner.job("source", name="send", max_buffered_events=4) as asked:
        async for chunk in asked.stream():
            first = chunk["n"]
            break
        rest = [chunk["n"] async for chunk in asked.stream()]
    assert [first, *rest] == list(range(100))


async def test_a_context_that_is_left_waits_for_the_answer_and_not_for_a_reader() -> None:
    """J5, J19: an iterator that somebody keeps reads nothing."""
    source = Source()
    async with running(source) as runner:
        async with runner.job("source", name="send", max_buffered_events=4) as asked:
            kept = asked.stream()
            await anext(kept)
            await quiet()
            assert source.sent < 10
        assert source.sent == 100
        assert len([chunk async for chunk in kept]) == 99


async def test_each_worker_of_a_group_has_a_window_of_its_own() -> None:
    """J19: a slow reader of one is no reason for another to wait for less."""
    a, b = Source("a", many=50), Source("b", many=50)
    read: dict[str, list[int]] = {"a": [], "b": []}
    async with running(a, b) as runner, runner.job_group("a", "b", name="send", max_buffered_events=8) as group:
        async for name, chunk in group.stream():
            await quiet()
            assert all(source.sent - len(read[source.name]) <= 9 for source in (a, b))
            read[name].append(chunk["n"])
    assert read == {"a": list(range(50)), "b": list(range(50))}


@pytest.mark.parametrize("name", ["stream", "send"])
async def test_a_waiting_handler_is_cancelled_with_its_job(name: str) -> None:
    """J5, J19: where it waits, by its requester, whose context is left when it has unwound."""
    source, sent = Source(many=10_000), 0
    async with running(source) as runner:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the context is what it goes through
            async with runner.job("source", name=name, max_buffered_events=2) as asked:
                async for _ in asked.stream():
                    await quiet()
                    sent = source.sent
                    raise ZeroDivisionError
        assert source.sent == sent
        assert len(source.ended_by) == 1
        assert source.active_jobs == {}


@pytest.mark.parametrize("name", ["stream", "send"])
async def test_a_waiting_handler_runs_out_of_time(name: str) -> None:
    """J6, J19"""
    source, sent = Source(), 0
    async with running(source) as runner:
        with pytest.raises(JobTimeoutError):  # noqa: PT012 - the context is what raises
            async with runner.job("source", name=name, max_buffered_events=2, timeout=3) as asked:
                async for _ in asked.stream():
                    await quiet()
                    sent = source.sent
                    await anyio.sleep(5)
        assert current_time() == 3
        assert source.sent == sent
        assert len(source.ended_by) == 1


@pytest.mark.parametrize("name", ["stream", "send", "later"])
async def test_a_waiting_handler_is_answered_for_when_its_worker_stops(name: str) -> None:
    """J4, J19"""
    source, sent = Source(), 0
    async with running(source) as runner, anyio.create_task_group() as tasks:
        with pytest.raises(JobError) as caught:  # noqa: PT012 - the context is what raises
            async with runner.job("source", name=name, max_buffered_events=2) as asked:
                async for _ in asked.stream():
                    await quiet()
                    sent = source.sent
                    tasks.start_soon(source.stop)
                    await anyio.sleep_forever()
    assert caught.value.statuses == {"source": JobStatus.CANCELLED}
    assert source.sent == sent


async def test_a_worker_that_has_answered_is_told_nothing_of_its_window() -> None:
    """J19: what it has sent is read later, while others are still at work."""
    quick, slow = Source("quick", many=16), Source("slow", many=10**6)
    async with running(quick, slow) as runner:
        raw = await Raw.on(runner.bus)
        with anyio.move_on_after(1):
            async with runner.job_group("quick", "slow", name="send", max_buffered_events=16) as group:
                async for _ in group.stream():
                    await quiet()
        told = {message.target for message in raw.got if isinstance(message, BusJobStreamWindowMessage)}
        assert told == {"slow"}


async def test_who_waits_in_another_task_hears_that_the_job_is_over() -> None:
    """J14, J19: as whoever sends for a job that is not open."""
    source = Source()
    async with running(source) as runner:
        async with runner.job("source", name="later", max_buffered_events=2) as asked:
            async for _ in asked.stream():
                await quiet()
                (request,) = source.active_jobs.values()
                await source.send_job_response(request.job_id, {"by": "another task"})
                sent = source.sent
                break
        await quiet()
    assert asked.response == {"by": "another task"}
    assert source.ended_by == ["UnknownJobError"]
    assert source.sent == sent  # what waited was not sent behind the answer


async def test_updates_do_not_wait() -> None:
    """J19: they are few, and may be what the reader waits for."""

    class Updating(BaseWorker):
        @job(name="tell")
        async def tell(self, message: BusJobRequestMessage) -> None:
            for n in range(50):
                await self.send_job_update(message.job_id, {"n": n})

    async with (
        running(Updating("updating")) as runner,
        runner.job("updating", name="tell", max_buffered_events=1) as asked,
    ):
        assert len([event async for event in asked]) == 50


async def test_without_a_stream_nothing_more_is_sent() -> None:
    """J19: what is added is for those who stream; and of those, for every half a window one message."""
    source = Source(many=64)
    async with running(source) as runner:
        raw = await Raw.on(runner.bus)
        async with runner.job("source", name="send", max_buffered_events=16) as asked:
            async for _ in asked.stream():
                pass
        await quiet()
        windows = [message for message in raw.got if isinstance(message, BusJobStreamWindowMessage)]
    assert 6 <= len(windows) <= 9
    assert [message.until for message in windows] == sorted({message.until for message in windows})


@pytest.mark.parametrize("pause", [None, 0.0, 0.001])
async def test_a_requester_speaks_once_for_each_half_of_a_window(pause: float | None) -> None:
    """J19: not for each chunk, whether nobody reads, or somebody who is faster or slower."""
    source = Source(many=200)
    async with running(source) as runner:
        raw = await Raw.on(runner.bus)
        async with runner.job("source", name="send", max_buffered_events=16) as asked:
            if pause is not None:
                async for _ in asked.stream():
                    await anyio.sleep(pause)
        await quiet()
        windows = [message.until for message in raw.got if isinstance(message, BusJobStreamWindowMessage)]
    assert 200 / 8 - 3 <= len(windows) <= 200 / 8 + 1
    assert windows == sorted(set(windows))


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
async def test_a_window_that_cannot_be_is_refused(size: Any, error: type[Exception]) -> None:
    """N8: where the job is made."""
    async with running(Source()) as runner:
        with pytest.raises(error, match=r"^max_buffered_events is "):
            runner.job("source", max_buffered_events=size)
        with pytest.raises(error, match=r"^max_buffered_events is "):
            runner.job_group("source", max_buffered_events=size)


def test_a_hang_says_whose_reader_is_waited_for(backend: str) -> None:
    """J19: the reader waits for something that the handler would do later."""

    async def main() -> None:
        async with running(Source()) as runner, runner.job("source", name="send", max_buffered_events=2) as asked:
            async for _ in asked.stream():
                await anyio.Event().wait()

    with pytest.raises(DeadlockError) as caught:
        run(main, backend=backend)
    told = "\n".join(caught.value.waiting)
    assert "worker 'source', job 'send'" in told
    assert "to read the stream of job 'send'" in told
    assert "its window is full" in told


# --- the two sides by themselves


STEPS = ("arrives", "arrives", "takes", "begins", "ends")


@given(
    size=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(["v", "w"])), min_size=10, max_size=60),
)
@settings(max_examples=300)
def test_a_reader_lets_no_more_come_than_a_window_beyond_what_it_has_taken(
    size: int, steps: list[tuple[str, str]]
) -> None:
    """J19: of each worker, while it reads; what has been granted stays so, and no sender is ever forgotten."""
    granted = {"v": [size], "w": [size]}

    def grant(job_id: str, worker: str, until: int) -> None:
        assert job_id == "job"
        assert until > granted[worker][-1]
        granted[worker].append(until)

    queue = EventQueue("job", size, grant)
    arrived, taken, readers = {"v": 0, "w": 0}, {"v": 0, "w": 0}, 0
    free = {"v": 0, "w": 0}  # how many have arrived while nobody read
    for step, worker in steps:
        if step == "arrives" and arrived[worker] < granted[worker][-1]:
            arrived[worker] += 1
            assert queue.add_chunk(worker, {"n": arrived[worker]})
        elif step == "takes" and readers and queue.events:
            kind, whose, data = queue.events.popleft()
            if kind is MARK:
                number, (kind, whose, data) = data, queue.events.popleft()
                queue.took(whose, number)
            taken[whose] += 1
            assert (kind, data) == (JobEvent.STREAM_DATA, {"n": taken[whose]})
        elif step == "begins":
            readers += 1
            queue.begins()
        elif step == "ends" and readers:
            readers -= 1
            queue.ends()
        if not readers:
            free = dict(arrived)
        for each in ("v", "w"):
            assert granted[each][-1] <= max(taken[each], free[each]) + size
            if not readers or taken[each] == arrived[each]:
                assert granted[each][-1] > arrived[each]  # the sender can go on


@pytest.mark.parametrize("tasks_of_a_handler", [1, 3])
async def test_a_sender_goes_on_when_the_number_is_moved_and_not_when_it_is_moved_back(tasks_of_a_handler: int) -> None:
    """J19: totals, so that one that comes twice or late changes nothing; all tasks of a handler have one window."""
    window, sent = SenderWindow(2), 0

    async def send() -> None:
        nonlocal sent
        while True:
            await window.take()
            sent += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(tasks_of_a_handler):
            tasks.start_soon(send)
        for until, expected in ((2, 2), (1, 2), (5, 5), (5, 5), (3, 5), (6, 6)):
            window.move(until)
            await anyio.wait_all_tasks_blocked()
            assert sent == expected
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reminds", [False, True])
def test_whoever_waits_goes_on_in_the_end(backend: str, reminds: bool, seed: int) -> None:
    """J19: though others were quicker, again and again."""

    async def main() -> None:
        window = SenderWindow(1, (lambda _: None) if reminds else None)

        async def send_some() -> None:
            await anyio.sleep(float(seed))
            for _ in range(3):
                await window.take()

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(send_some)
            for until in range(2, 10):
                await anyio.sleep(2 if until % 3 else 0.5)
                window.move(until)

    run(main, backend=backend, seed=seed)


async def test_a_number_that_comes_late_takes_nothing_back() -> None:
    """J19: what was granted may be sent, whenever."""
    window = SenderWindow(2)
    window.move(5)
    window.move(3)
    for _ in range(5):
        with anyio.fail_after(1):
            await window.take()
    assert (window.sent, window.until) == (5, 5)


async def test_a_window_that_was_closed_is_not_opened_by_what_comes_late() -> None:
    """J5, J19: whoever sends in a row is to come to a place where it can be cancelled, at each chunk."""
    window = SenderWindow(2)
    window.close()
    window.move(5)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await window.take()
    assert scope.cancelled_caught
    assert window.sent >= window.until


def test_reminders_come_at_longer_and_longer_intervals_up_to_a_quarter_of_a_minute(backend: str) -> None:
    """J19"""
    reminded: list[tuple[float, int]] = []

    async def main() -> None:
        window = SenderWindow(1, lambda sent: reminded.append((current_time(), sent)))
        await window.take()
        with anyio.move_on_after(80):
            await window.take()

    run(main, backend=backend)
    assert reminded == [(seconds, 1) for seconds in (1, 3, 7, 15, 31, 47, 63, 79)]


async def test_a_reminder_says_how_many_were_sent_by_then() -> None:
    """J19: by whoever, since the one that reminds began to wait."""
    reminded: list[int] = []
    window = SenderWindow(1, reminded.append)
    await window.take()
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(window.take)
        await anyio.sleep(0.5)
        window.move(2)  # for one of the two
        await anyio.sleep(1)
        assert set(reminded) == {2}
        tasks.cancel_scope.cancel()


@given(
    many=st.integers(0, 30),
    size=st.integers(1, 8),
    pauses=st.lists(st.integers(0, 2), max_size=30),
    breaks_at=st.none() | st.integers(0, 30),
    again=st.booleans(),
    backend=st.sampled_from(["asyncio", "trio"]),
    seed=st.integers(0, 50),
)
@settings(deadline=None, max_examples=60)
def test_whatever_the_reader_does_all_chunks_come_in_order_and_the_job_ends(
    many: int, size: int, pauses: list[int], breaks_at: int | None, again: bool, backend: str, seed: int
) -> None:
    """J7, J19: slow, broken off, taken up again, under any schedule."""
    source = Source(many=many)

    async def main() -> list[int]:
        read: list[int] = []
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(source)
            async with runner.job("source", name="stream", max_buffered_events=size, timeout=1000) as asked:
                async for chunk in asked.stream():
                    read.append(chunk["n"])
                    await anyio.sleep(pauses[len(read) - 1] if len(read) <= len(pauses) else 0)
                    if len(read) == breaks_at:
                        break
                if again:
                    read += [chunk["n"] async for chunk in asked.stream()]
            assert asked.statuses == {"source": JobStatus.COMPLETED}
        return read

    read = run(main, backend=backend, seed=seed)
    expected = many if again or breaks_at is None or breaks_at == 0 else min(breaks_at, many)
    assert read == list(range(expected))
    assert source.sent == many


def _read_one(queue: EventQueue) -> str:
    """Take an event as a loop does, and return whose it is."""
    kind, worker, data = queue.events.popleft()
    if kind is MARK:
        number, (_, worker, _) = data, queue.events.popleft()
        queue.took(worker, number)
    return worker


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_the_windows_of_two_workers_move_as_each_does_alone(seed: int, numbered: bool) -> None:
    """J19: in whatever order their chunks come and are read."""
    draw = random.Random(seed)
    window = draw.choice((2, 3, 4, 7))
    granted: dict[tuple[str, str], list[int]] = {(who, name): [window] for who in ("both", "alone") for name in "ab"}

    def queue_of(who: str) -> EventQueue:
        queue = EventQueue("job", window, lambda _, worker, until: granted[who, worker].append(until))
        queue.begins()
        return queue

    both, alone, sent = queue_of("both"), {name: queue_of("alone") for name in "ab"}, Counter[str]()
    for _ in range(200):
        may_send = [name for name in "ab" if sent[name] < granted["both", name][-1]]
        if may_send and (not both.events or draw.random() < 0.6):
            name = draw.choice(may_send)
            sent[name] += 1
            for queue in (both, alone[name]):
                assert queue.add_chunk(name, {}, sent[name] if numbered else None)
        else:
            name = _read_one(both)
            assert _read_one(alone[name]) == name
        assert all(granted["both", name] == granted["alone", name] for name in "ab")
    assert min(sent.values()) > 2 * window
