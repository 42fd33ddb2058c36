"""Protocols of the library where two things come in the same turn, under every order of tasks up to a bound."""

from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest

from support.explored import Scenario, holds, holds_with_a_fault, name_of
from workerbus import (
    Backoff,
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    JobGroupError,
    JobStatus,
    MemoryBus,
    WorkerPool,
    WorkerRunner,
    job,
)
from workerbus.testing import (
    Behaviour,
    EchoWorker,
    Faults,
    FaultyBus,
    PeerFaults,
    PeerNetwork,
    ScriptedWorker,
    always,
    explore,
    nothing_left,
    pct,
)

pytestmark = pytest.mark.slow


async def an_answer_against_the_deadline() -> None:
    """J6: it is the answer or a TimeoutError, and nothing is left."""
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(EchoWorker("echo", after=1.0))
        with suppress(TimeoutError):
            assert await runner.job("echo", payload={"n": 1}, timeout=1.0) == {"n": 1}
        assert await runner.job("echo", payload={"n": 2}) == {"n": 2}


async def a_cancel_against_the_answer() -> None:
    """J5: who leaves the block is not asked for anything more, and the worker answers others."""
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(EchoWorker("echo", after=1.0))
        with anyio.move_on_after(1.0):
            assert await runner.job("echo", payload={"n": 1}) == {"n": 1}
        assert await runner.job("echo", payload={"n": 2}) == {"n": 2}


async def an_end_against_a_request() -> None:
    """J4, W6: a job of a worker that ends is answered, by it or for it."""
    async with nothing_left(), WorkerRunner() as runner, anyio.create_task_group() as group:
        echo = EchoWorker("echo")
        await runner.add_workers(echo)
        group.start_soon(echo.end)
        with suppress(JobError), anyio.fail_after(5):  # by whom it is answered, and how, is open; that it is, is not
            assert await runner.job("echo", payload={"n": 1}) == {"n": 1}


async def a_crash_in_a_group() -> None:
    """J4, J8: who crashes is ERROR, the others have answered or were cancelled."""
    quick, broken = ScriptedWorker("quick", Behaviour(after=1)), ScriptedWorker("broken", Behaviour("crash", after=1))
    runner = WorkerRunner()
    runner.add_event_handler("on_error", lambda runner, data: None)
    async with nothing_left(), runner:
        await runner.add_workers(quick, broken)
        with pytest.raises(JobGroupError) as caught:
            await runner.job_group("quick", "broken")
        assert caught.value.statuses["broken"] is JobStatus.ERROR
        assert caught.value.statuses["quick"] in (JobStatus.COMPLETED, JobStatus.CANCELLED)


async def a_sequential_handler() -> None:
    """J13: turns keep the order of arrival, and no two are taken at once."""

    class Account(BaseWorker):
        balance = 0

        @job(name="deposit", sequential=True)
        async def deposit(self, message: BusJobRequestMessage) -> None:
            before = self.balance
            await anyio.lowlevel.checkpoint()
            self.balance = before + 10

    account = Account("account")
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(account)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(lambda: runner.job("account", name="deposit", timeout=5))
    assert account.balance == 20


async def a_worker_that_is_made_anew() -> None:
    """S1: a job that comes while it is made anew waits for the next one, or is answered for the last one."""
    made: list[ScriptedWorker] = []

    def factory() -> ScriptedWorker:
        made.append(ScriptedWorker("worker", Behaviour("crash" if not made else "answer")))
        return made[-1]

    async with nothing_left(), WorkerRunner() as runner:
        runner.add_event_handler("on_error", lambda runner, data: None)
        await runner.supervise(factory)
        with pytest.raises(JobError):
            await runner.job("worker", timeout=60)
        await runner.job("worker", timeout=60)
    assert len(made) == 2


async def answers_in_a_group() -> None:
    """J6, J8: both answers that come in the same turn are there."""
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(EchoWorker("one", after=1), EchoWorker("two", after=1))
        answers = await runner.job_group("one", "two", payload={"n": 1}, timeout=5)
        assert answers == {"one": {"n": 1}, "two": {"n": 1}}


async def the_first_of_two_answers() -> None:
    """J20: one of those that come in the same turn; the other is not waited for, and nothing of it is left."""
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(EchoWorker("one", after=1), EchoWorker("two", after=1))
        assert (await runner.job_group("one", "two", payload={"n": 1}, timeout=5).first()).response == {"n": 1}


async def a_quorum_of_three() -> None:
    """J20: two of three that come in the same turn."""
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(*(EchoWorker(name, after=1) for name in ("one", "two", "three")))
        answers = await runner.job_group("one", "two", "three", timeout=5).quorum(2)
        assert len({answer.worker_name for answer in answers}) == 2


async def a_stream_and_its_end() -> None:
    """J18: all chunks come, in order, and then the end, also where somebody cancels in the turn of the last one."""
    chunks = [{"n": 1}, {"n": 2}]
    worker = ScriptedWorker("worker", Behaviour(chunks=chunks, every=1, generator=True))
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(worker)
        async with runner.job("worker", timeout=9) as job:
            assert [chunk async for chunk in job.stream()] == chunks
        got = []
        with anyio.move_on_after(2):
            async with runner.job("worker", timeout=9) as job:
                async for chunk in job.stream():
                    got.append(chunk)  # noqa: PERF401 - what has come before the cancel counts
        assert got == chunks[: len(got)]


async def updates_before_the_answer() -> None:
    """J7: updates come in order, all before the answer."""
    updates = [{"n": 1}, {"n": 2}]
    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(ScriptedWorker("worker", Behaviour(updates=updates, response={"done": True})))
        async with runner.job("worker", timeout=5) as job:
            assert [event.data async for event in job] == updates
        assert job.response == {"done": True}


async def a_retry_against_the_deadline() -> None:
    """J20: the second attempt answers in the turn in which the time is up: an answer, or a TimeoutError."""

    class Flaky(BaseWorker):
        @job(name="fetch")
        async def fetch(self, message: BusJobRequestMessage) -> dict[str, int]:
            await anyio.sleep(1)
            if message.attempt < 2:
                raise ConnectionResetError
            return {"attempt": message.attempt}

    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(Flaky("flaky"))
        asked = runner.job(
            "flaky",
            name="fetch",
            timeout=3,
            attempts=3,
            retry_on=ConnectionError,
            backoff=Backoff(initial=1, jitter=0),
        )
        with suppress(TimeoutError):
            assert await asked == {"attempt": 2}
        assert await runner.job("flaky", name="fetch", timeout=9, attempts=2, retry_on=ConnectionError)


async def a_pool_of_two() -> None:
    """S2: three jobs at once; each is answered, and no member has two at a time."""

    class Member(BaseWorker):
        busy = False

        @job(name="work")
        async def work(self, message: BusJobRequestMessage) -> dict[str, Any]:
            assert not self.busy
            self.busy = True
            await anyio.sleep(1)
            self.busy = False
            return dict(message.payload)

    answers: list[int] = []

    async def ask(number: int) -> None:
        answer = await runner.job("pool", name="work", payload={"n": number}, timeout=9)
        answers.append(answer["n"])

    async with nothing_left(), WorkerRunner() as runner:
        await runner.add_workers(WorkerPool("pool", Member, size=2))
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(ask, number)
    assert sorted(answers) == [0, 1, 2]


async def a_hand_over_against_a_request() -> None:
    """W3: never are both active; a job is answered, or refused by who is not."""
    async with nothing_left(), WorkerRunner() as runner:
        alice, bob = EchoWorker("alice", after=1), EchoWorker("bob", active=False)
        await runner.add_workers(alice, bob)
        assert await runner.job("alice", payload={"n": 0}, timeout=5) == {"n": 0}
        with always(lambda: not (alice.active and bob.active)):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(alice.activate_worker, "bob", deactivate_self=True))
                for worker in ("alice", "bob"):
                    with suppress(JobError):
                        assert await runner.job(worker, payload={"n": 1}, timeout=5) == {"n": 1}
            assert (alice.active, bob.active) == (False, True)


async def a_job_of_another_process(faults: PeerFaults) -> None:
    """X2-X5, J4: whatever befalls one message, the job is answered or fails, and later ones are answered."""
    network = PeerNetwork(faults=faults)
    left, right = network.end("left"), network.end("right")
    async with (
        nothing_left(),
        WorkerRunner(bus=left, name="left") as here,
        WorkerRunner(bus=right, name="right") as there,
    ):
        await there.add_workers(EchoWorker("echo", after=1))
        with suppress(JobError):
            assert await here.job("echo", payload={"n": 1}, timeout=60) == {"n": 1}
        assert await here.job("echo", payload={"n": 2}, timeout=60) == {"n": 2}


async def a_job_over_a_bad_line(faults: Faults) -> None:
    """B2, B8, J1: a message that is late or comes twice changes no answer, and one that is lost is a TimeoutError."""
    async with (
        nothing_left(),
        FaultyBus(MemoryBus(), faults=faults) as bus,
        WorkerRunner(bus=bus, name="left") as runner,
    ):
        await runner.add_workers(EchoWorker("echo", after=1))
        with suppress(TimeoutError):
            assert await runner.job("echo", payload={"n": 1}, timeout=9) == {"n": 1}
        with suppress(TimeoutError):
            assert await runner.job("echo", payload={"n": 2}, timeout=9) == {"n": 2}


WITH_TWO_SWITCHES: tuple[Scenario, ...] = (
    an_answer_against_the_deadline,
    a_cancel_against_the_answer,
    an_end_against_a_request,
    a_sequential_handler,
    a_worker_that_is_made_anew,
    a_stream_and_its_end,
    updates_before_the_answer,
    a_retry_against_the_deadline,
)

WITH_ONE_SWITCH: tuple[Scenario, ...] = (
    a_crash_in_a_group,
    answers_in_a_group,
    the_first_of_two_answers,
    a_quorum_of_three,
    a_pool_of_two,
    a_hand_over_against_a_request,
)

WITH_A_FAULT: dict[str, Scenario] = {
    "lost on a bad line": partial(a_job_over_a_bad_line, Faults(lose=0.1)),
    "twice on a bad line": partial(a_job_over_a_bad_line, Faults(duplicate=0.1)),
    "twice from a peer": partial(a_job_of_another_process, PeerFaults(duplicate=0.1)),
    "late from a peer": partial(a_job_of_another_process, PeerFaults(delay=1.0)),
}


@pytest.mark.parametrize("scenario", WITH_TWO_SWITCHES, ids=name_of)
def test_a_protocol_holds_with_any_two_switches(backend: str, scenario: Scenario) -> None:
    """T1, T6: all of them, to the end."""
    assert holds(scenario, backend, 2)


@pytest.mark.parametrize("scenario", WITH_ONE_SWITCH, ids=name_of)
def test_a_protocol_of_several_holds_with_any_switch(backend: str, scenario: Scenario) -> None:
    """T1, T6: all of them, to the end."""
    assert holds(scenario, backend, 1)


@pytest.mark.parametrize("name", WITH_A_FAULT)
def test_a_protocol_holds_with_any_fault(backend: str, name: str) -> None:
    """T1, T7: whatever befalls one message, or another order of two steps in its place."""
    assert holds_with_a_fault(WITH_A_FAULT[name], backend, budget=2_000)


@pytest.mark.parametrize("scenario", [*WITH_TWO_SWITCHES[:4], *WITH_ONE_SWITCH], ids=name_of)
def test_a_protocol_holds_under_drawn_priorities(backend: str, scenario: Scenario) -> None:
    """T1."""
    explore(scenario, strategy=pct(3), budget=50, backend=backend)
