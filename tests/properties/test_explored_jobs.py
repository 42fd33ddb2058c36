"""Jobs where two things come in the same turn: cancels, limits, windows, groups, deadlines; all orders to a bound."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest

from support.explored import Scenario, holds, holds_with_a_fault, name_of
from support.requesters import Listener
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    JobError,
    JobFailure,
    JobGroupError,
    JobStatus,
    MemoryBus,
    WorkerRunner,
    job,
)
from workerbus.testing import (
    Behaviour,
    EchoWorker,
    Faults,
    FaultyBus,
    ScriptedWorker,
    always,
    assert_no_jobs,
    nothing_left,
)

pytestmark = pytest.mark.slow


class Turns(BaseWorker):
    """Works for a second, and notes who has begun and who has ended."""

    def __init__(self) -> None:
        super().__init__("turns")
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.times: list[float] = []
        self.arrived: list[int] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage):
            self.arrived.append(message.payload["n"])
        await super().on_bus_message(message)

    @property
    def in_order(self) -> bool:
        """Whether those that have begun came in this order."""
        arrived = iter(self.arrived)
        return all(n in arrived for n in self.begun)

    @property
    def busy(self) -> int:
        return len(self.begun) - len(self.ended)

    async def work(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.begun.append(message.payload["n"])
        try:
            await anyio.sleep(1)
        finally:
            self.ended.append(message.payload["n"])
        return dict(message.payload)

    @job(name="any")
    async def any(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return await self.work(message)

    @job(name="one", limit=1)
    async def one(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return await self.work(message)

    @job(name="two", limit=2)
    async def two(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return await self.work(message)

    @job(name="rated", rate=1)
    async def rated(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.times.append(anyio.current_time())
        self.begun.append(message.payload["n"])
        self.ended.append(message.payload["n"])
        return dict(message.payload)


async def ask(runner: WorkerRunner, name: str, n: int, patience: float = 9) -> None:
    """Ask for a turn, for so long; the answer is its own."""
    with anyio.move_on_after(patience):
        assert await runner.job("turns", name=name, payload={"n": n}, timeout=9) == {"n": n}


async def a_cancel_against_its_request() -> None:
    """J5, J9: whether it has begun or not, it has unwound when the block is left."""
    turns = Turns()
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(turns)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(ask, runner, "any", 1)
                group.start_soon(anyio.lowlevel.checkpoint)
                scope.cancel()
        async with anyio.create_task_group() as group:
            group.start_soon(ask, runner, "any", 2)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert not turns.busy
        assert_no_jobs(runner, turns)
        await ask(runner, "any", 3)
    assert Counter(turns.begun) == Counter(turns.ended)


async def an_answer_that_comes_later_against_a_cancel() -> None:
    """J2, J5, J14: a deferred job is answered by hand in the turn in which its requester gives up."""
    worker = ScriptedWorker("worker", Behaviour("defer"))

    async def answer() -> None:
        message = await worker.until_requested()
        await anyio.sleep(1)
        with suppress(RuntimeError):  # it is over
            await worker.answer(message.job_id, {"n": 1})

    async with nothing_left(), WorkerRunner() as runner, anyio.create_task_group() as group:
        await runner.add_workers(worker)
        group.start_soon(answer)
        with anyio.move_on_after(1):
            assert await runner.job("worker") == {"n": 1}
        assert_no_jobs(runner, worker)


async def a_waiter_that_gives_up_when_its_turn_comes() -> None:
    """J13: it has its turn or not; the next one has its own, one at a time, in the order of arrival."""
    turns = Turns()
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(turns)
        with always(lambda: turns.busy <= 1):
            async with anyio.create_task_group() as group:
                for n, patience in ((1, 9), (2, 1), (3, 9)):
                    group.start_soon(ask, runner, "one", n, patience)
    assert turns.in_order
    assert {1, 3} <= set(turns.ended)


async def three_with_room_for_two() -> None:
    """J13: never more than two, the last to arrive is the last to begin, and all of them are done."""
    turns = Turns()
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(turns)
        with always(lambda: turns.busy <= 2):
            async with anyio.create_task_group() as group:
                for n in (1, 2, 3):
                    group.start_soon(ask, runner, "two", n)
    assert turns.begun[-1] == turns.arrived[-1]  # the other two begin at once
    assert sorted(turns.ended) == [1, 2, 3]


async def a_rate_and_one_who_gives_up() -> None:
    """J13: one a second; who gives up in the turn of his second keeps nobody waiting for longer than that."""
    turns, start = Turns(), anyio.current_time()
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(turns)
        async with anyio.create_task_group() as group:
            for n, patience in ((1, 9), (2, 1), (3, 9)):
                group.start_soon(ask, runner, "rated", n, patience)
    assert {1, 3} <= set(turns.ended)
    assert turns.in_order
    assert turns.times[0] == start
    assert all(later - earlier >= 1 for earlier, later in pairwise(turns.times))
    assert turns.times[-1] <= start + 2


async def a_window_and_a_slow_reader() -> None:
    """J18, J19: the handler waits for room; each chunk comes once, in order, and also where the loop is left early."""
    chunks = [{"n": n} for n in range(3)]
    worker = ScriptedWorker("worker", Behaviour(chunks=chunks, generator=True))
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(worker)
        async with runner.job("worker", timeout=9, max_buffered_events=1) as whole:
            got = []
            async for chunk in whole.stream():
                got.append(chunk)
                await anyio.lowlevel.checkpoint()
            assert got == chunks
        async with runner.job("worker", timeout=9, max_buffered_events=1) as left_early:
            async for chunk in left_early.stream():
                assert chunk == {"n": 0}
                break
        assert_no_jobs(runner, worker)


async def a_deadline_of_two() -> None:
    """J6: who asks on for somebody has the same deadline; the answer comes when it is over, or a TimeoutError."""

    class Middle(BaseWorker):
        asking = 0

        @job(name="ask")
        async def ask(self, message: BusJobRequestMessage) -> dict[str, Any]:
            self.asking += 1
            try:
                return await self.job("echo", payload=message.payload)
            finally:
                self.asking -= 1

    middle, echo = Middle("middle"), EchoWorker("echo", after=1)
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(middle, echo)
        with suppress(TimeoutError):
            assert await runner.job("middle", name="ask", payload={"n": 1}, timeout=1) == {"n": 1}
        assert not middle.asking
        assert_no_jobs(runner, middle, echo)
        assert await runner.job("middle", name="ask", payload={"n": 2}, timeout=9) == {"n": 2}


async def an_end_when_the_jobs_are_done() -> None:
    """W6: it does what it has; what comes then is answered, and not done."""
    turns = Turns()
    answered: list[int] = []

    async def late(n: int) -> None:
        try:
            await runner.job("turns", name="any", payload={"n": n}, timeout=5)
            answered.append(n)
        except TimeoutError:
            assert n not in turns.begun  # it waits for a worker of the name
        except JobError:
            assert n not in turns.begun

    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(turns)
        async with anyio.create_task_group() as group:
            group.start_soon(late, 1)
            group.start_soon(turns.stop_when_done)
            group.start_soon(late, 2)
    assert sorted(answered) == sorted(turns.ended)


async def a_failure_beside_an_answer(*, cancel_on_error: bool) -> None:
    """J8, J11: in the same turn; statuses are told as they are."""
    failing = Behaviour("raise", error=JobFailure("no room"), after=1)
    async with nothing_left(), WorkerRunner() as runner:
        workers = ScriptedWorker("failing", failing), EchoWorker("echo", after=1)
        await runner.add_workers(*workers)
        try:
            async with runner.job_group("failing", "echo", timeout=5, cancel_on_error=cancel_on_error) as group:
                pass
        except JobGroupError as error:
            assert cancel_on_error
            statuses: Mapping[str, str] = error.statuses
        else:
            assert not cancel_on_error
            statuses = group.statuses
        assert statuses["failing"] is JobStatus.FAILED
        assert statuses["echo"] in (JobStatus.COMPLETED, JobStatus.CANCELLED)
        assert cancel_on_error or statuses["echo"] is JobStatus.COMPLETED
        assert_no_jobs(runner, *workers)


async def the_first_beside_a_failure() -> None:
    """J20: one fails and one answers in the same turn; it is the answer."""
    async with nothing_left(), WorkerRunner() as runner:
        broken = ScriptedWorker("broken", Behaviour("raise", after=1))
        await runner.add_workers(broken, EchoWorker("echo", after=1), EchoWorker("slow", after=3))
        asked = runner.job_group("broken", "echo", "slow", payload={"n": 1}, timeout=9, cancel_on_error=False)
        first = await asked.first()
        assert (first.worker_name, first.response) == ("echo", {"n": 1})
        assert_no_jobs(runner)


async def a_quorum_that_cannot_come() -> None:
    """J20: two of three fail, and two are wanted: at once, and the third has unwound."""
    async with nothing_left(), WorkerRunner() as runner:
        broken = [ScriptedWorker(name, Behaviour("raise", after=1)) for name in ("one", "two")]
        slow = EchoWorker("slow", after=50)
        await runner.add_workers(*broken, slow)
        with pytest.raises(JobGroupError), anyio.fail_after(2):
            await runner.job_group("one", "two", "slow", timeout=99, cancel_on_error=False).quorum(2)
        assert_no_jobs(runner, slow)


async def answers_as_they_come() -> None:
    """J20: each once, whoever comes first."""
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(EchoWorker("one", after=1), EchoWorker("two", after=1))
        async with runner.job_group("one", "two", payload={"n": 1}, timeout=5) as group:
            names = [answer.worker_name async for answer in group.as_completed()]
        assert sorted(names) == ["one", "two"]


async def a_group_that_is_cancelled_when_it_answers() -> None:
    """J16, J21: each answer is heard once, also of those who were cancelled; completed is it only if it was not."""
    listener = Listener()
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(listener, EchoWorker("one", after=1), EchoWorker("two", after=1), wait=True)
        job_id = await listener.request_job_group("one", "two", payload={"n": 1})
        await anyio.sleep(1)
        await listener.cancel_job_group(job_id)
        await anyio.sleep(1)
        kinds = ("response", "completed")
        heard = Counter(getattr(what, "source", hook) for hook, what in listener.heard if hook in kinds)
        assert heard["one"] == heard["two"] == 1
        assert heard["completed"] <= 1
        statuses = {what.status for hook, what in listener.heard if hook == "response"}
        assert not heard["completed"] or statuses == {JobStatus.COMPLETED}
        assert_no_jobs(listener)


async def a_stream_over_a_bad_line(faults: Faults) -> None:
    """J18, J19: chunks come in order, each once at the most; nobody waits for what was lost."""
    chunks = [{"n": n} for n in range(3)]
    worker = ScriptedWorker("worker", Behaviour(chunks=chunks, every=1, generator=True))
    async with (
        nothing_left(),
        FaultyBus(MemoryBus(), faults=faults) as bus,
        WorkerRunner(bus=bus, name="left") as runner,
    ):
        await runner.add_workers(worker)
        got: list[int] = []
        with suppress(TimeoutError):
            async with runner.job("worker", timeout=30, max_buffered_events=1) as asked:
                got += [chunk["n"] async for chunk in asked.stream()]
        assert got == sorted(set(got))
        assert len(got) >= 2 or not got


WITH_TWO_SWITCHES: tuple[Scenario, ...] = (
    a_cancel_against_its_request,
    an_answer_that_comes_later_against_a_cancel,
    a_waiter_that_gives_up_when_its_turn_comes,
    a_rate_and_one_who_gives_up,
    a_window_and_a_slow_reader,
    a_deadline_of_two,
    an_end_when_the_jobs_are_done,
)

WITH_ONE_SWITCH: dict[str, Scenario] = {
    "three with room for two": three_with_room_for_two,
    "a failure that cancels": partial(a_failure_beside_an_answer, cancel_on_error=True),
    "a failure that does not": partial(a_failure_beside_an_answer, cancel_on_error=False),
    "the first beside a failure": the_first_beside_a_failure,
    "a quorum that cannot come": a_quorum_that_cannot_come,
    "answers as they come": answers_as_they_come,
    "a group that is cancelled": a_group_that_is_cancelled_when_it_answers,
}


@pytest.mark.parametrize("scenario", WITH_TWO_SWITCHES, ids=name_of)
def test_a_job_holds_with_any_two_switches(backend: str, scenario: Scenario) -> None:
    """T1, T6: all of them, to the end."""
    assert holds(scenario, backend, 2)


@pytest.mark.parametrize("name", WITH_ONE_SWITCH)
def test_a_job_of_several_holds_with_any_switch(backend: str, name: str) -> None:
    """T1, T6: all of them, to the end."""
    assert holds(WITH_ONE_SWITCH[name], backend, 1)


def test_a_stream_holds_with_any_fault(backend: str) -> None:
    """T1, T7: whatever befalls one message, or another order of two steps in its place, or both."""
    assert holds_with_a_fault(partial(a_stream_over_a_bad_line, Faults(lose=0.1)), backend)
