"""The tools for tests, once more: faults that were planted there had turned no test red."""

import re
from textwrap import dedent
from typing import Any

import anyio
import pytest
from anyio import sleep

from support.messages import Note, note
from support.requesters import Raw
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BaseWorker, BusJobRequestMessage, BusMessage, JobGroupResponse, MemoryBus, WorkerRunner, job
from workerbus.testing import (
    Behaviour,
    DeadlockError,
    Faults,
    FaultyBus,
    GroupPlan,
    RecordingBus,
    ScriptedWorker,
    run,
    run_group_plan,
    settle,
)
from workerbus.testing._circles import circles_in
from workerbus.testing._virtual import VirtualTime
from workerbus.testing._waiting import Waiter, describe

pytest_plugins = ["pytester"]

# --- a faulty network


class SlowWhenTold(RecordingBus):
    """A bus that takes ``seconds`` to publish a note."""

    seconds = 0.0

    async def publish(self, message: BusMessage) -> None:
        if self.seconds and isinstance(message, Note):
            await sleep(self.seconds)
        await super().publish(message)


async def test_what_did_not_go_out_in_time_delays_nothing_when_the_end_is_opened_again() -> None:
    wrapped = SlowWhenTold()
    bus = FaultyBus(wrapped, faults=Faults(delay=(5.0, 5.0)))
    async with wrapped:
        async with bus:
            for number in range(3):
                await bus.send(note(number))
            wrapped.seconds = 60.0
        assert [fault.text for fault in bus.records if fault.kind == "dropped"] == [
            "left closes; 2 delayed messages did not go out in time"
        ]
        wrapped.seconds, bus.faults = 0.0, Faults()
        async with bus:
            await bus.send(note(7))
            assert note(7) in wrapped.messages(Note)


async def test_an_end_that_closes_tells_of_what_came_while_it_finished_a_message() -> None:
    """That goes out at once, too."""
    wrapped = SlowWhenTold()
    bus = FaultyBus(wrapped, faults=Faults(delay=(5.0, 5.0)))

    async def send_one_more() -> None:
        await sleep(0.5)
        await bus.send(note(4))

    async with wrapped, anyio.create_task_group() as group, bus:
        for number in range(3):
            await bus.send(note(number))
        wrapped.seconds = 1.0
        await sleep(5)
        await settle()
        wrapped.seconds = 0.0
        group.start_soon(send_one_more)
    assert [fault.text for fault in bus.records if fault.kind == "hurried"] == [
        "left closes; 3 delayed messages go out at once"
    ]


async def test_what_a_split_holds_back_from_an_end_waits_there() -> None:
    wrapped = MemoryBus()
    left = FaultyBus(wrapped, name="left")
    right = left.end("right")
    async with wrapped, left, right:
        await right.subscribe(Plain("plain"))
        left.split()
        for number in range(3):
            await left.send(note(number))
        await settle()
        depths = {name: each.depth for name, each in wrapped.statistics().subscribers.items()}
        assert depths == {"faulty end left": 0, "faulty end right": 3}
        left.heal()


# --- virtual time, and who waits for whom


def test_time_does_not_go_back() -> None:
    """Not to a moment that is over when nothing is left to run, either."""
    clock = VirtualTime(100.0, lambda: (), lambda: None)
    clock.idle(5.0)
    clock.idle(3.0)
    assert clock.look() == 5.0


def test_of_several_circles_each_is_found() -> None:
    assert circles_in({0: [1], 1: [0], 2: [3], 3: [2], 4: [4]}) == [[0, 1], [2, 3], [4]]


async def stand_there(event: anyio.Event) -> None:
    await event.wait()


async def test_the_main_task_is_told_of_though_many_wait_where_it_does() -> None:
    """Whichever is looked at first."""
    event = anyio.Event()
    coroutines = [stand_there(event) for _ in range(10)]
    for coroutine in coroutines:
        coroutine.send(None)
    waiters = [Waiter(f"other {number}", coroutine) for number, coroutine in enumerate(coroutines)]
    told = describe([*waiters[:-1], Waiter("main", coroutines[-1], main=True)])
    for coroutine in coroutines:
        coroutine.close()
    assert sum(each.startswith("task 'other") for each in told) < 9
    assert sum(each.startswith("the main task") for each in told) == 1


class Two(BaseWorker):
    """Has two places for ``queue``: the first who comes asks for another, and the second stays for ever."""

    def __init__(self) -> None:
        super().__init__("two")
        self.both = anyio.Event()

    @job(name="queue", limit=2)
    async def queue(self, message: BusJobRequestMessage) -> None:
        if message.payload == {"n": 1}:
            await self.both.wait()
            await self.job("two", name="queue")
        self.both.set()
        await anyio.sleep_forever()


def test_who_waits_for_one_of_several_places_is_in_no_circle(backend: str) -> None:
    """Whoever has another may leave."""

    async def main() -> None:
        async with WorkerRunner(handle_sigint=False) as runner, anyio.create_task_group() as group:
            two = Two()
            await runner.add_workers(two)
            async with runner.job("two", name="queue", payload={"n": 1}):
                await settle()
                group.start_soon(ask, runner)
                await anyio.sleep_forever()

    async def ask(runner: WorkerRunner) -> None:
        await runner.job("two", name="queue", payload={"n": 2})

    with pytest.raises(DeadlockError) as caught:
        run(main, backend=backend)
    assert "for its turn, which job 'queue'" in str(caught.value)
    assert "in a circle" not in str(caught.value)


# --- workers and plans


async def test_a_job_that_never_began_was_not_cancelled_under_way() -> None:
    """Whoever waits for cancellations knows that the handler has been there."""
    worker = ScriptedWorker("worker", Behaviour("hang"))
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "worker")
        await raw.cancel("job", "worker")
        await raw.answer("job")
        await settle()
        assert worker.requests == []
        assert worker.cancelled == []


@pytest.mark.parametrize("requester", ["deadline", "cancelled"])
async def test_a_planned_deadline_travels_with_the_request_and_a_cancellation_does_not(requester: Any) -> None:
    """J6"""
    bus = RecordingBus()
    await run_group_plan(GroupPlan({"a": Behaviour("hang")}, requester=requester, at=3.0), bus)
    [request] = bus.messages(BusJobRequestMessage)
    assert (request.seconds_left == 3.0) is (requester == "deadline")  # else it is that of the test


async def test_events_before_a_failure_are_in_the_outcome() -> None:
    plan = GroupPlan(
        {"talks": Behaviour("hang", updates=({"n": 1}, {"n": 2}), every=1.0), "fails": Behaviour("raise", after=5.0)},
        requester="iterate",
    )
    outcome = await run_group_plan(plan)
    assert outcome.ended == "failed"
    assert [event.data for event in outcome.events if event.worker_name == "talks"][:2] == [{"n": 1}, {"n": 2}]


# --- stories


async def test_a_job_id_in_a_text_is_told_as_the_job() -> None:
    """Under the name that it has in the rest of the story."""

    class Broken(Helper):
        async def on_job_completed(self, result: JobGroupResponse) -> None:
            raise ValueError("it went wrong")

    bus, broken = RecordingBus(), Broken("broken")
    async with running(broken, Helper("helper"), bus=bus):
        await broken.request_job("helper", name="echo")
        await settle()
    assert "asks for job 'echo' (broken-1)" in bus.story()
    assert re.search(r"reports an error: on_job_completed: .*\(job broken-1\)", bus.story())


# --- the plugin


ORDER = """
import anyio
import pytest


@pytest.fixture
def anyio_backend(workerbus_anyio_backend):
    return workerbus_anyio_backend


@pytest.mark.anyio
async def test_order():
    order = []

    async def note(number):
        order.append(str(number))

    async with anyio.create_task_group() as group:
        for number in range(9):
            group.start_soon(note, number)
    print("order", *order)
"""


def test_async_tests_run_under_the_seed_too(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["workerbus.testing.fixtures"]')
    pytester.makepyfile(dedent(ORDER))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rA", "--workerbus-seed=0-4")
    result.assert_outcomes(passed=10)
    orders = set(re.findall(r"^order [\d ]+$", result.stdout.str(), re.MULTILINE))
    assert len(orders) >= 5
