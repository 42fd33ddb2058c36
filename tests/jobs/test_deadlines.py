"""J6: one deadline covers the wait for the workers and the job, at both ends."""

import asyncio
import inspect
import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope, current_time, sleep

from support import clock
from support.buses import PoliteBus
from support.deadlines import NEAR, EarlyBus, Waiting
from support.job_handlers import never
from support.lanes import Log
from support.messages import Note, note
from support.requesters import Listener, Raw
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    JobStatus,
    MemoryBus,
    UnknownJobError,
    WorkerRunner,
    job,
)
from workerbus.testing import Behaviour, EchoWorker, ScriptedWorker, settle

HANDLERS = ("do", "defer", "left open", "request", "request left open")


async def requests_of(runner: WorkerRunner) -> Plain:
    plain = Plain("observer")
    await runner.bus.subscribe(plain)
    return plain


def seconds_left(observer: Plain) -> list[float | None]:
    return [message.seconds_left for message in observer.got if isinstance(message, BusJobRequestMessage)]


def is_left_of(seconds: float, left: float | None) -> bool:
    return left is not None and seconds - NEAR < left < seconds + 1e-6


def test_seconds_left_is_the_last_field_of_a_request() -> None:
    """J6: None by default, so that a request is built as in the seeds."""
    parameters = inspect.signature(BusJobRequestMessage).parameters.values()
    fields = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    assert fields == ["job_id", "job_name", "payload", "seconds_left"]
    assert BusJobRequestMessage("id", "name", {}, source="me").seconds_left is None


def test_without_a_deadline_none_travels(backend: str) -> None:
    """J6: `seconds_left` is None."""

    async def run() -> None:
        async with running(Helper("helper")) as runner:
            observer = await requests_of(runner)
            await runner.job("helper", name="echo")
            await observer.until(1, BusJobRequestMessage)
        assert seconds_left(observer) == [None]

    clock.run(run, backend=backend, limit=math.inf)


async def test_the_timeout_travels_as_seconds_that_are_left(backend: str) -> None:
    """J6: less what the wait for the worker has taken."""
    async with running() as runner, anyio.create_task_group() as group:
        observer = await requests_of(runner)

        async def ask() -> None:
            await runner.job("helper", name="echo", timeout=10)

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(4)
        await runner.add_workers(Helper("helper"))
        await observer.until(1, BusJobRequestMessage)
    (left,) = seconds_left(observer)
    assert is_left_of(6, left)


@pytest.mark.parametrize(("timeout", "outer", "expected"), [(None, 5, 5), (8, 5, 5), (5, 8, 5)])
async def test_the_smaller_of_timeout_and_enclosing_deadline_travels(
    backend: str, timeout: float | None, outer: float, expected: float
) -> None:
    """J6: an enclosing scope's deadline counts, too."""
    async with running(Helper("helper")) as runner:
        observer = await requests_of(runner)
        with anyio.fail_after(outer):
            await runner.job("helper", name="echo", timeout=timeout)
        await observer.until(1, BusJobRequestMessage)
    (left,) = seconds_left(observer)
    assert is_left_of(expected, left)


async def test_a_handler_runs_under_the_deadline_of_its_job(backend: str) -> None:
    """J6: it can see it."""
    deadlines: list[float] = []

    async def looks(worker: Doing, message: BusJobRequestMessage) -> None:
        deadlines.append(anyio.current_effective_deadline() - anyio.current_time())

    async with running(Doing("doing", looks)) as runner:
        await runner.job("doing", name="do", timeout=7)
        await runner.job("doing", name="do", timeout=3)
    assert is_left_of(7, deadlines[0])
    assert is_left_of(3, deadlines[1])


@pytest.mark.parametrize(("own", "expected"), [(None, 5), (2, 2), (9, 5)])
@pytest.mark.parametrize("how", ["job", "request_job"])
async def test_a_job_inside_a_handler_inherits_what_is_left(
    backend: str, how: str, own: float | None, expected: float
) -> None:
    """J6: or has its own timeout, if that is smaller."""

    async def asks(worker: Doing, message: BusJobRequestMessage) -> None:
        await anyio.sleep(1)
        await getattr(worker, how)("inner", name="echo", timeout=own)

    async with running(Doing("outer", asks), Helper("inner")) as runner:
        observer = await requests_of(runner)
        await runner.job("outer", name="do", timeout=6)
        await observer.until(2, BusJobRequestMessage)
    assert is_left_of(expected, seconds_left(observer)[1])


async def test_a_chain_of_jobs_ends_when_the_first_runs_out_of_time(backend: str) -> None:
    """J6: each handler is cancelled, and the first requester gets its timeout."""

    class Link(Waiting):
        def __init__(self, name: str, next_name: str | None) -> None:
            super().__init__(name)
            self.next_name = next_name

        @job(name="pass on")
        async def pass_on(self, message: BusJobRequestMessage) -> None:
            if self.next_name is None:
                await self._wait_on(message)
            else:
                await self.job(self.next_name, name="pass on")

    links = [Link("a", "b"), Link("b", "c"), Link("c", None)]
    async with running(*links) as runner:
        started = anyio.current_time()
        with pytest.raises(TimeoutError) as caught:
            await runner.job("a", name="pass on", timeout=3)
        assert isinstance(caught.value, JobError)
        assert 3 <= anyio.current_time() - started < 3 + NEAR
        assert links[2].cancellations == 1
        assert [link.active_jobs for link in links] == [{}, {}, {}]
        assert [link.job_groups for link in links] == [{}, {}, {}]


async def test_one_deadline_covers_the_wait_and_the_job(backend: str) -> None:
    """J6: not each of them."""
    async with running() as runner, anyio.create_task_group() as group:

        async def add_later() -> None:
            await anyio.sleep(3)
            await runner.add_workers(Helper("helper"))

        group.start_soon(add_later)
        started = anyio.current_time()
        with pytest.raises(JobError):
            await runner.job("helper", name="wait", timeout=5)
        assert 5 <= anyio.current_time() - started < 5 + NEAR


@pytest.mark.parametrize("make_bus", [MemoryBus, EarlyBus], ids=["requester first", "worker first"])
@pytest.mark.parametrize("name", HANDLERS)
async def test_at_its_timeout_a_job_is_cancelled_once_and_the_requester_is_told(
    backend: str, name: str, make_bus: Callable[[], MemoryBus]
) -> None:
    """J6: whichever end sees it first."""
    waiting = Waiting()
    async with running(waiting, bus=make_bus()) as runner:
        with pytest.raises(TimeoutError) as caught:
            await runner.job("waiting", name=name, timeout=1)
        assert isinstance(caught.value, JobError)
        assert caught.value.reason == "timeout"
        assert caught.value.statuses == {"waiting": JobStatus.CANCELLED}
        await waiting.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert [message.reason for hook, message in waiting.heard if hook == "cancelled"] == ["timeout"]
        assert waiting.cancellations == ("open" not in name)
        assert waiting.active_jobs == {}


@pytest.mark.parametrize("name", HANDLERS)
async def test_a_worker_keeps_the_deadline_by_itself(backend: str, name: str) -> None:
    """J6: nobody sends a cancel here; a deferred job keeps its deadline after its handler has returned."""
    waiting = Waiting()
    async with running(waiting) as runner:
        raw = await Raw.on(runner.bus)
        started = anyio.current_time()
        await raw.ask("job", "waiting", name, seconds_left=2.0)
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        assert 2 <= anyio.current_time() - started < 2 + NEAR
        message = await waiting.until("cancelled")
        assert (message.job_id, message.reason) == ("job", "timeout")
        await anyio.wait_all_tasks_blocked()
        assert len(raw.answers("job")) == 1
        assert [hook for hook, _ in waiting.heard] == ["cancelled"]


@pytest.mark.parametrize("left", [0.0, -1.0])
@pytest.mark.parametrize("name", HANDLERS)
async def test_a_request_that_comes_too_late_is_not_begun(backend: str, name: str, left: float) -> None:
    """J6: its time was up before."""
    waiting = Waiting()
    async with running(waiting) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "waiting", name, seconds_left=left)
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        assert (await waiting.until("cancelled")).reason == "timeout"
        assert waiting.calls == []
        assert not waiting.begun.is_set()


async def test_no_time_at_all_is_a_timeout(backend: str) -> None:
    """J6: at once, and the handler does not begin."""
    waiting = Waiting()
    async with running(waiting) as runner:
        for worker in ("waiting", "nobody"):
            with pytest.raises(TimeoutError) as caught:
                await runner.job(worker, name="do", timeout=0)
            assert isinstance(caught.value, JobError)
        assert waiting.calls == []


async def test_a_handler_that_does_not_wait_has_its_time_run_out_all_the_same(backend: str) -> None:
    """J6: it came too late, whatever it returns."""

    async def blocks(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        deadline = anyio.current_time() + 0.03
        while anyio.current_time() < deadline:
            pass
        return {"late": True}

    async with running(Doing("doing", blocks)) as runner:
        with pytest.raises(TimeoutError):
            await runner.job("doing", name="do", timeout=0.01)


async def test_a_deadline_ends_with_its_job(backend: str) -> None:
    """J6: the next job in the same task has its own, or none."""

    async def sleeps(worker: Doing, message: BusJobRequestMessage) -> None:
        assert message.payload is not None
        await anyio.sleep(message.payload["seconds"])

    async with running(Doing("doing", sleeps)) as runner:
        raw = await Raw.on(runner.bus)
        for number, (seconds, left) in enumerate([(0, 1.0), (3, None), (0, 2.0), (3, 5.0), (3, 1.0), (3, None)]):
            await raw.ask(f"job {number}", "doing", "do", payload={"seconds": seconds}, seconds_left=left)
            expected = JobStatus.CANCELLED if number == 4 else JobStatus.COMPLETED
            assert (await raw.answer(f"job {number}"))[0] == expected, number


async def test_a_body_has_the_timeout_too_until_the_job_has_completed(backend: str) -> None:
    """J6: and the error says when it was up."""
    async with running(Helper("helper")) as runner:
        started = anyio.current_time()
        with pytest.raises(TimeoutError):
            async with runner.job("helper", name="wait", timeout=2):
                await anyio.sleep(50)
        assert 2 <= anyio.current_time() - started < 2 + NEAR


async def test_the_cancel_hook_runs_for_a_handler_that_answers_while_it_unwinds(backend: str) -> None:
    """J6: once, with the reason; nobody but the worker sees the time here."""

    class Late(Waiting):
        @job(name="late")
        async def late(self, message: BusJobRequestMessage) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                await self.send_job_response(message.job_id, {})

    late = Late("late")
    async with running(late) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "late", "late", seconds_left=1.0)
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED
        assert (await late.until("cancelled")).reason == "timeout"


async def test_a_job_that_is_asked_for_by_a_hook_has_no_deadline_of_another_job(backend: str) -> None:
    """J6: what a hook asks for is nobody's inner job."""

    class Curious(BaseWorker):
        async def on_job_cancelled(self, message: BusMessage) -> None:
            await self.job("helper", name="echo")
            done.set()

        @job(name="wait")
        async def wait_here(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep_forever()

    done = anyio.Event()
    async with running(Curious("curious"), Helper("helper")) as runner:
        observer = await requests_of(runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "curious", "wait", seconds_left=1.0)
        await done.wait()
        await observer.until(2, BusJobRequestMessage)
    assert seconds_left(observer) == [1.0, None]


SIX = ("a", "b", "c", "d", "e", "f")


@pytest.mark.parametrize("names", [("a",), SIX], ids=["one", "six"])
async def test_a_timeout_comes_at_its_time(names: tuple[str, ...]) -> None:
    """J6: to the moment, for few and for many."""
    async with running(*(ScriptedWorker(name, Behaviour("hang")) for name in names)) as runner:
        with pytest.raises(TimeoutError):
            await runner.job_group(*names, timeout=5.0)
        assert current_time() == 5.0


async def test_a_job_that_comes_when_an_earlier_ones_time_would_be_up_is_done_all_the_same() -> None:
    """J6, J1: the task that does both is the same; its deadline is not."""
    async with running(EchoWorker("echo")) as runner:
        assert await runner.job("echo", payload={"n": 1}, timeout=5.0) == {"n": 1}
        await anyio.sleep(5.0)
        assert await runner.job("echo", payload={"n": 2}) == {"n": 2}
        await anyio.sleep(1.0)
        assert await runner.job("echo", payload={"n": 3}, timeout=5.0) == {"n": 3}


async def test_a_chain_of_jobs_shares_one_deadline_however_deep_it_is() -> None:
    """J6: each asks the next inside its handler, with more time of its own than there is."""
    left: list[float] = []

    class Link(BaseWorker):
        @job(name="go")
        async def go(self, message: Any) -> dict[str, Any]:
            left.append(message.seconds_left)
            await anyio.sleep(1.0)
            number = int(self.name)
            return await self.job(str(number + 1), name="go", timeout=100.0) if number < 5 else {}

    async with running(*(Link(str(number)) for number in range(6))) as runner:
        with pytest.raises(TimeoutError):
            await runner.job("0", name="go", timeout=4.0)
        assert current_time() == 4.0
    assert left == [4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("ends", ["cancel", "stop"])
async def test_a_job_that_is_ended_when_its_time_is_up_has_timed_out(ends: str) -> None:
    """J6: whoever sees it first, also where the handler has not noticed yet."""
    listener = Listener("listener")
    async with running(listener) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "listener", "wait", seconds_left=3.0)
        await listener.begun.wait()
        with anyio.CancelScope() as scope:
            scope.deadline = current_time() + 3.0
            await anyio.sleep_forever()
        if ends == "cancel":
            await raw.cancel("job", "listener", "no more")
        else:
            await listener.stop()
        assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"})


async def test_an_answer_after_the_time_is_refused_though_the_handler_has_not_been_cancelled_yet() -> None:
    """J6, J14"""
    refused: list[BaseException] = []

    async def late(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            with CancelScope(shield=True):
                await sleep(3)
        finally:
            try:
                await worker.send_job_update(message.job_id, {"n": 1})
                await worker.send_job_response(message.job_id, {"n": 2})
            except RuntimeError as exc:
                refused.append(exc)

    async with running(Doing("doing", late)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "doing", "do", seconds_left=3.0)
        status, _ = await raw.answer("job")
        assert status is JobStatus.CANCELLED


class Watched(PoliteBus):
    """Keeps the requests that it publishes."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[BusJobRequestMessage] = []

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage):
            self.requests.append(message)
        await super().publish(message)


async def test_the_time_of_an_enclosing_scope_travels_with_each_request_of_a_group() -> None:
    """J6: over a bus that takes its time, too."""
    bus = Watched()
    async with running(Doing("a", never), Doing("b", never), bus=bus) as runner:
        with anyio.move_on_after(3):
            await runner.job_group("a", "b", name="do")
    assert [request.seconds_left for request in bus.requests] == [3.0, 3.0]


@pytest.mark.parametrize("name", ["do", "defer"])
@pytest.mark.parametrize("end", ["response", "stream end"])
def test_a_handler_that_has_answered_may_outlive_the_deadline_of_the_job(backend: str, end: str, name: str) -> None:
    """J6: it was the job's deadline, and the job is over."""
    lived: list[bool] = []

    async def works(worker: Doing, message: BusJobRequestMessage) -> None:
        if end == "response":
            await worker.send_job_response(message.job_id, {})
        else:
            await worker.send_job_stream_end(message.job_id)
        await anyio.sleep(10)
        lived.append(True)

    async def example() -> None:
        async with running(Doing("doing", works), job_grace=20, grace_period=20) as runner:
            await runner.job("doing", name=name, timeout=3)

    clock.run(example, backend=backend, limit=100)
    assert lived == [True]


@pytest.mark.parametrize(
    ("seconds", "kind", "text"),
    [
        ("1", "TypeError", "seconds_left is a number of seconds or None, not '1'"),
        (True, "TypeError", "seconds_left is a number of seconds or None, not True"),
        (math.nan, "ValueError", "seconds_left is a number of seconds or None, not nan"),
    ],
)
async def test_a_request_with_a_time_that_makes_no_sense_is_an_error_that_says_so(
    seconds: Any, kind: str, text: str
) -> None:
    """J1, J6: it may come from anywhere."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "echo", seconds_left=seconds)
        assert await raw.answer("job") == (JobStatus.ERROR, {"error": text, "type": kind})
    assert helper.calls == []


TIMED_OUT = (JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"})


class Late(Listener):
    """Notices only after four seconds that the time of its job ``do`` is up."""

    @job(name="do")
    async def do(self, message: BusJobRequestMessage) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(4)


@pytest.mark.parametrize("by", ["requester", "worker"])
def test_a_job_that_is_cancelled_after_its_time_has_timed_out(backend: str, by: str) -> None:
    """J6: the handler has not noticed yet; the hook runs once, with that reason, if the worker still runs hooks."""

    async def example() -> None:
        late = Late("late")
        async with running(late) as runner, anyio.create_task_group() as group:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "late", "do", seconds_left=3)
            await anyio.sleep(3.5)
            if by == "requester":
                await raw.cancel("job", "late", "enough")
            else:
                group.start_soon(late.stop)
            assert await raw.answer("job") == TIMED_OUT
            await raw.settle()
            assert raw.answers("job") == [TIMED_OUT]
            await anyio.wait_all_tasks_blocked()
            if by == "requester":
                assert [(hook, message.reason) for hook, message in late.heard] == [("cancelled", "timeout")]

    clock.run(example, backend=backend)


def test_a_cancellation_that_comes_up_after_the_time_of_the_job_is_its_timeout() -> None:
    """J6: the handler waits for a future that somebody has cancelled, and comes to that too late."""

    async def blocks(worker: Doing, message: BusJobRequestMessage) -> None:
        deadline = anyio.current_time() + 3
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        while anyio.current_time() < deadline:
            pass
        await future

    async def example() -> None:
        async with running(Doing("doing", blocks)) as runner:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "doing", "do", seconds_left=1)
            assert await raw.answer("job") == TIMED_OUT

    clock.run(example, backend="asyncio")


@pytest.mark.parametrize("timeout", [None, 0.5, 30])
def test_what_is_left_travels_on_a_bus_that_takes_its_time(backend: str, timeout: float | None) -> None:
    """J6: `seconds_left` is the time that there is, and None where there is no end to it."""

    async def example() -> list[float | None]:
        async with running(Helper("helper"), bus=PoliteBus()) as runner:
            raw = await Raw.on(runner.bus)
            await runner.job("helper", name="echo", timeout=timeout)
            await raw.until(1, BusJobRequestMessage)
        return [message.seconds_left for message in raw.got if isinstance(message, BusJobRequestMessage)]

    assert clock.run(example, backend=backend) == [timeout]


@pytest.mark.parametrize("first", ["cancel", "timeout"])
def test_what_has_ended_a_job_first_is_told_though_its_handler_does_not_end(
    backend: str, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L4, J6: after the bound it is answered for, with the first reason, and the log names who is waited for."""
    release = anyio.Event()

    async def refuses(worker: Doing, message: BusJobRequestMessage) -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()

    async def example() -> None:
        doing = Doing("doing", refuses)
        async with running(doing) as runner, anyio.create_task_group() as group:
            raw = await Raw.on(runner.bus)
            await raw.ask("job", "doing", "do", seconds_left=1 if first == "timeout" else None)
            await anyio.sleep(1.5)
            if first == "cancel":
                await raw.cancel("job", "doing", "enough")
            group.start_soon(doing.stop)
            answer = await raw.answer("job")
            assert anyio.current_time() == 1.5 + CLEANUP_SECONDS
            cancelled = (JobStatus.CANCELLED, {"error": "enough", "type": "Cancelled"})
            assert answer == (cancelled if first == "cancel" else TIMED_OUT)
            release.set()

    clock.run(example, backend=backend)
    assert caplog.messages == [
        "worker 'doing' is late: not all that it does has ended in time",
        "worker 'doing' waits for handlers that refuse cancellation: job 'do' (job)",
    ]


@pytest.mark.parametrize("left", [0, -1.5])
async def test_a_job_whose_time_was_up_when_it_came_is_answered_and_not_begun(left: float) -> None:
    """J6: though nobody in the worker wants to be told."""
    helper = Helper("helper")
    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "helper", "echo", seconds_left=left)
        assert await raw.answer("job") == (JobStatus.CANCELLED, {"error": "timeout", "type": "TimeoutError"})
        await raw.settle()
        assert len(raw.answers("job")) == 1
        assert helper.calls == []


async def test_what_a_full_lane_has_held_up_one_request_of_a_group_counts_for_the_next(backend: str) -> None:
    """J6, B9: what is left is looked at anew for each request."""
    log = Log(holds=Note)

    class Full(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            await log(message)

    async with running(Full("full"), Helper("free"), bus=MemoryBus(max_buffer_size=1)) as runner:
        observer = await requests_of(runner)
        for n in range(2):
            await runner.bus.send(note(n, "full"))
        await log.entered.wait()

        async def ask() -> None:
            async with runner.job_group("full", "free", name="echo", timeout=10):
                pass

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await settle()
            await sleep(1)
            log.release.set()
        await observer.until(2, BusJobRequestMessage)
    assert sorted(left for left in seconds_left(observer) if left is not None) == pytest.approx([9, 10])


@pytest.mark.parametrize("how", ["group", "request_job_group", "enclosing"])
async def test_the_time_that_publishing_takes_counts_for_the_next_request_of_a_group(backend: str, how: str) -> None:
    """J6: on a bus with a transport; each worker is told what is left when its request is sent."""
    published: list[float | None] = []

    class Slow(MemoryBus):
        async def publish(self, message: BusMessage) -> None:
            if isinstance(message, BusJobRequestMessage):
                published.append(message.seconds_left)
                await sleep(1)
            await super().publish(message)

    names = ["one", "two", "three"]
    asker = BaseWorker("asker")
    async with running(asker, *map(Helper, names), bus=Slow()):
        with anyio.fail_after(10 if how == "enclosing" else None):
            if how == "request_job_group":
                group = await asker.create_job_group_and_request_job(names, name="echo", timeout=10)
                await group.wait()
            else:
                async with asker.job_group(*names, name="echo", timeout=None if how == "enclosing" else 10):
                    pass
    assert published == pytest.approx([10, 9, 8])


@pytest.mark.parametrize("how", ["awaited", "entered"])
@pytest.mark.parametrize("kind", ["job", "group"])
async def test_the_time_of_a_job_begins_when_its_context_is_entered_or_awaited(
    backend: str, how: str, kind: str
) -> None:
    """J6: however long before that the context was made, all of it is there, at both ends."""
    waiting = Waiting()
    async with running(waiting) as runner:
        observer = await requests_of(runner)
        make: Callable[..., Any] = runner.job if kind == "job" else runner.job_group
        asked = make("waiting", name="do", timeout=3)
        await sleep(2)
        begun = current_time()
        with pytest.raises(TimeoutError):  # noqa: PT012 - awaited or entered
            if how == "awaited":
                await asked
            else:
                async with asked:
                    pass
        assert current_time() - begun == pytest.approx(3)
        assert waiting.cancellations == 1
    assert seconds_left(observer) == pytest.approx([3])


@pytest.mark.parametrize("moved", [8, -4])
async def test_an_enclosing_deadline_that_is_moved_while_a_worker_is_waited_for_travels_as_it_is_then(
    backend: str, moved: float
) -> None:
    """J6: what counts is what is left when the request is sent."""
    async with running() as runner, anyio.create_task_group() as group:
        observer = await requests_of(runner)
        scope = CancelScope(deadline=current_time() + 10)

        async def ask() -> None:
            with scope:
                await runner.job("helper", name="echo")

        group.start_soon(ask)
        await sleep(2)
        scope.deadline += moved
        await sleep(1)
        await runner.add_workers(Helper("helper"))
        await observer.until(1, BusJobRequestMessage)
    assert seconds_left(observer) == pytest.approx([7 + moved])


async def test_an_answer_after_the_time_of_a_deferred_job_is_refused_though_nobody_has_noticed_yet() -> None:
    """J6, J14: the job was answered, as a timeout, in the very moment in which it is looked at."""

    async def defers(worker: Doing, message: BusJobRequestMessage) -> None:
        pass

    doing = Doing("doing", defers)
    async with running(doing) as runner:
        raw = await Raw.on(runner.bus)
        for send in (doing.send_job_response, doing.send_job_update, doing.send_job_stream_end):
            await raw.ask(send.__name__, "doing", "defer", seconds_left=1.0)
            await settle()
            over = current_time() + 1.0
            while current_time() < over:  # which takes no step
                pass
            with pytest.raises(UnknownJobError):
                await send(send.__name__)
            assert await raw.answer(send.__name__) == TIMED_OUT


async def test_a_deferred_job_keeps_its_deadline_at_a_worker_that_wants_to_hear_of_no_cancel() -> None:
    """J6: which has no hook for it, so that nobody has looked after the job's time before."""

    async def defers(worker: Doing, message: BusJobRequestMessage) -> None:
        pass

    async with running(Doing("doing", defers)) as runner:
        raw, begun = await Raw.on(runner.bus), current_time()
        await raw.ask("job", "doing", "defer", seconds_left=3.0)
        assert await raw.answer("job") == TIMED_OUT
        assert current_time() == begun + 3


async def test_the_answer_to_a_job_that_was_left_open_gives_no_other_one_more_time() -> None:
    """J6: the handler of the other one may run in the task that the first has left."""

    class Leaving(Helper):
        @job(name="leave open", deferred=True)
        async def leave_open(self, message: BusJobRequestMessage) -> None:
            self.calls.append(message.job_id)

    leaving = Leaving("leaving")
    async with running(leaving) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("first", "leaving", "leave open", seconds_left=9.0)
        await settle()
        started = current_time()
        await raw.ask("second", "leaving", "wait", seconds_left=2.0)
        await leaving.begun.wait()
        await leaving.send_job_response("first")
        assert (await raw.answer("first"))[0] == JobStatus.COMPLETED
        with anyio.fail_after(5):
            assert (await raw.answer("second"))[0] == JobStatus.CANCELLED
        assert 2 <= current_time() - started < 2 + NEAR
