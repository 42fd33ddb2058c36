"""J5, J6, J12, B9: requests that wait for a worker or for room, answers that come while others are still asked, and
requests that come again.
"""

import logging
from typing import Any

import anyio
import pytest
from anyio import current_time
from anyio.lowlevel import checkpoint

from support import clock
from support.buses import PoliteBus
from support.messages import note
from support.requesters import Listener, Raw
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobError,
    JobFailure,
    JobGroupError,
    JobRequestOptions,
    JobStatus,
    MemoryBus,
    WorkerPool,
    job,
)
from workerbus.testing import EchoWorker, run, settle


async def test_a_requester_waits_for_a_worker_that_has_not_come_yet() -> None:
    """J1: and its request is answered when the worker has come."""
    async with running() as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            assert await runner.job("helper", name="echo") == {"worker": "helper", "payload": {}}

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await runner.add_workers(Helper("helper"))


def test_after_five_seconds_a_warning_names_who_is_waited_for(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """J1: the worker, and names that look like it."""

    async def example() -> None:
        async with running(Helper("helper")) as runner:
            with anyio.move_on_after(4.9):
                await runner.job("halper", name="echo")
            assert "halper" not in caplog.text
            with anyio.move_on_after(5.1):
                await runner.job("halper", name="echo")
        (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "'halper'" in record.getMessage()
        assert "'helper'" in record.getMessage()

    clock.run(example, backend=backend)


@pytest.mark.parametrize("how", ["cancel", "stop", "end"])
async def test_a_request_that_waits_for_its_worker_ends_with_its_group(how: str) -> None:
    """J14, J1: `request_job`, which has no context, does not wait on when nobody can answer it any more."""
    asker = BaseWorker("asker")
    async with anyio.create_task_group() as group, running(asker) as runner:

        async def ask() -> None:
            with pytest.raises((JobError, RuntimeError)):
                await asker.request_job("nobody")

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        (job_id,) = asker.job_groups
        if how == "cancel":
            await asker.cancel_job_group(job_id)
        elif how == "stop":
            await asker.stop()
        else:
            await runner.end()


async def test_a_requester_says_for_whom_it_waits_and_asks_when_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    """J1: after five seconds, with the names that look like it; then it waits on."""
    async with running(Helper("helper"), name="runner") as runner, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await runner.job("helper2", name="echo"))

        tasks.start_soon(ask)
        await anyio.sleep(4.9)
        assert caplog.messages == []
        await anyio.sleep(0.2)
        text = "'runner' still waits for worker 'helper2', which is not there; did you mean 'helper'?"
        assert caplog.messages == [text]
        await anyio.sleep(10)
        assert answers == []
        await runner.add_workers(Helper("helper2"))
    assert caplog.messages == [text]
    assert answers == [{"worker": "helper2", "payload": {}}]


async def test_a_worker_that_does_not_come_in_time_is_an_error_and_leaves_nothing() -> None:
    """J6, J8, G2: without a context, too."""
    helper = Helper("helper")
    async with running(helper):
        with pytest.raises(JobError) as caught:
            await helper.request_job("helper2", name="echo", timeout=3)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.reason == "timeout"
        with pytest.raises(JobGroupError) as group:
            await helper.request_job_group("helper", "helper2", name="echo", timeout=3)
        assert isinstance(group.value, TimeoutError)
        assert helper.statistics().job_groups == 0
    assert helper.calls == []


class Second(PoliteBus):
    """A bus on which the request to the worker ``second`` takes until ``go`` is set, and then fails with ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.go = anyio.Event()
        self.error = error

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage) and message.target == "second":
            await self.go.wait()
            if self.error is not None:
                raise self.error
        await super().publish(message)


async def test_workers_are_told_why_the_others_could_not_be_asked() -> None:
    """J5: a failed send to the second of two; it may have got the request, or not. The original exception goes on."""
    bus, first, asker = Second(OSError("no connection")), Listener("first"), Helper("asker")
    async with running(first, Helper("second"), asker, bus=bus) as runner, anyio.create_task_group() as tasks:
        raw = await Raw.on(runner.bus)

        async def ask() -> None:
            with pytest.raises(OSError, match="no connection"):
                await asker.request_job_group("first", "second", name="wait")

        tasks.start_soon(ask)
        await first.begun.wait()
        [job_id] = asker.job_groups
        bus.go.set()
        await first.until("cancelled")
        await anyio.wait_all_tasks_blocked()
        assert asker.statistics().job_groups == 0
        assert not runner.asking  # R9: nobody would take the group out of this table
        told = {message.target: message for message in raw.of(BusJobCancelMessage)}
    assert told == {
        "first": BusJobCancelMessage(job_id, "OSError while asking", source="asker", target="first"),
        "second": BusJobCancelMessage(job_id, "the request was withdrawn", source="asker", target="second"),
    }


async def test_nobody_is_asked_any_more_when_the_group_has_failed() -> None:
    """J5, J8: the first one has refused in the very step of asking."""
    helper = Helper("helper")
    async with running(Helper("inactive", active=False), helper) as runner:
        with pytest.raises(JobGroupError, match=r": worker 'inactive' is inactive$"):
            await runner.job_group("inactive", "helper", name="echo")
    assert helper.calls == []


@pytest.mark.parametrize("there", [(), ("one",), ("two",)])
async def test_a_group_waits_for_each_worker_that_has_not_come(there: tuple[str, ...]) -> None:
    """J6: nobody is asked before all are there."""
    workers = {name: Helper(name) for name in ("one", "two")}
    async with running(*(workers[name] for name in there)) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            async with runner.job_group("one", "two", name="echo", payload={"n": 1}) as group:
                pass
            assert group.responses == {name: {"worker": name, "payload": {"n": 1}} for name in workers}

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        for name in workers.keys() - set(there):
            assert [worker.calls for worker in workers.values()] == [[], []]
            await runner.add_workers(workers[name])


class LossyBus(MemoryBus):
    """A bus that cannot send to one worker."""

    async def publish(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage) and message.target == "second":
            raise OSError("the cable is cut")
        await super().publish(message)


async def test_a_failed_send_to_the_second_of_three_workers_cancels_the_first() -> None:
    """J5: every worker that was asked is told, and the error of the bus goes through."""
    workers = [Helper("first"), Helper("second"), Helper("third")]
    async with running(*workers, bus=LossyBus()) as runner:
        with pytest.raises(OSError, match="the cable is cut"):
            async with runner.job_group("first", "second", "third", name="wait"):
                pytest.fail("the body must not begin")
        raw = await Raw.on(runner.bus)
        await anyio.wait_all_tasks_blocked()
        assert [worker.active_jobs for worker in workers] == [{}, {}, {}]
        assert workers[1].calls == workers[2].calls == []
        assert raw.got == []


async def test_a_failed_send_without_a_context_cancels_the_first_too() -> None:
    """J5: the group is gone."""
    first, asker = Helper("first"), Helper("asker")
    async with running(first, Helper("second"), asker, bus=LossyBus()):
        with pytest.raises(OSError, match="the cable is cut"):
            await asker.request_job_group("first", "second", name="wait")
        await anyio.wait_all_tasks_blocked()
        assert first.active_jobs == {}
        assert asker.job_groups == {}
        assert asker.statistics().job_groups == 0


async def test_a_requester_that_is_cancelled_while_it_waits_for_a_worker_asks_nobody() -> None:
    """J5: nor anybody that was there."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        with anyio.move_on_after(0.02) as scope:
            await asker.job_group("helper", "nobody", name="wait")
        assert scope.cancelled_caught
        assert helper.calls == []
        assert asker.job_groups == {}


async def test_a_worker_that_comes_after_its_requester_has_left_is_not_asked() -> None:
    """J5: who left is gone."""
    helper = Helper("helper")
    async with running() as runner:
        with anyio.move_on_after(0.02):
            await runner.job("helper", name="echo")
        await runner.add_workers(helper)
        await anyio.wait_all_tasks_blocked()
        assert helper.calls == []


async def test_a_request_that_waits_for_room_is_withdrawn_with_its_requester() -> None:
    """J5, B9: it never reaches the worker."""
    release = anyio.Event()

    class Busy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            await release.wait()

    busy, asker = Busy("busy"), Helper("asker")
    async with running(busy, asker, bus=MemoryBus(max_buffer_size=1)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("handled", "busy", "echo")
        await anyio.wait_all_tasks_blocked()
        await raw.ask("waits", "busy", "echo")
        with anyio.move_on_after(0.02) as scope:
            await asker.job("busy", name="echo")
        assert scope.cancelled_caught
        assert asker.job_groups == {}
        release.set()
        await anyio.wait_all_tasks_blocked()
        assert busy.calls == ["handled", "waits"]


async def test_an_answer_that_comes_while_requests_are_still_sent_counts() -> None:
    """J8: a refusal ends the group before the body begins, and before the second worker is asked."""
    helper = Helper("helper")
    async with running(Helper("idle", active=False), helper) as runner:
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group("idle", "helper", name="echo"):
                pytest.fail("the body must not begin")
        assert caught.value.statuses["idle"] == JobStatus.FAILED
        assert helper.active_jobs == {}


async def test_a_good_answer_that_comes_while_requests_are_still_sent_counts() -> None:
    """J8: on a bus that takes its time, the first answers before the last is asked."""
    names = ["one", "two", "three"]
    async with running(*map(Helper, names), bus=PoliteBus()) as runner:
        responses = await runner.job_group(*names, name="echo")
    assert {name: response["worker"] for name, response in responses.items()} == {name: name for name in names}


async def test_a_bad_answer_that_comes_while_requests_are_still_sent_counts() -> None:
    """J8: who was asked is told."""
    one, three = Helper("one"), Helper("three")
    async with running(one, Helper("idle", active=False), three, bus=PoliteBus()) as runner:
        with pytest.raises(JobGroupError) as caught:
            async with runner.job_group("one", "idle", "three", name="wait"):
                await anyio.sleep_forever()
        assert caught.value.statuses["idle"] == JobStatus.FAILED
        assert one.active_jobs == three.active_jobs == {}


async def test_on_a_bounded_bus_nobody_is_asked_any_more_when_the_group_has_failed() -> None:
    """J5, J8: the first one has refused in the very step of asking."""
    helper = Helper("helper")
    async with running(Helper("inactive", active=False), helper, bus=MemoryBus(max_buffer_size=8)) as runner:
        observer = Plain("observer")
        await runner.bus.subscribe(observer)
        with pytest.raises(JobGroupError, match=r": worker 'inactive' is inactive$"):
            await runner.job_group("inactive", "helper", name="echo")
        await anyio.wait_all_tasks_blocked()
        assert [message.target for message in observer.of(BusJobRequestMessage)] == ["inactive"]
    assert helper.calls == []


async def test_a_group_that_fails_while_it_is_being_asked_for_is_told_by_the_hooks() -> None:
    """J16, J8: whoever goes on without a context is not interrupted by an error that its hooks tell it."""
    listener = Listener()
    async with running(Helper("first"), Helper("second"), listener, bus=Second()):
        group = await listener.create_job_group_and_request_job(["first", "second"], name="fail")
        message = await listener.until("error")
        assert message.job_id == group.job_id
        assert group.is_done
        with pytest.raises(JobGroupError, match="worker 'first' raised ValueError: it went wrong"):
            await group.wait()
        await anyio.wait_all_tasks_blocked()
        assert listener.statistics().job_groups == 0


async def test_how_long_a_worker_was_waited_for_is_no_limit_for_its_answer() -> None:
    """J1, J15: awaited without a timeout; the warning's five seconds begin with each wait, and end with it."""
    async with running() as runner, anyio.create_task_group() as group:

        async def ask() -> None:
            assert await runner.job("helper", payload={"n": 1}) == {"n": 1}

        group.start_soon(ask)
        await anyio.sleep(1)
        await runner.add_workers(EchoWorker("helper", after=12.0))


@pytest.mark.parametrize("steps", range(3))
@pytest.mark.parametrize("seed", range(3))
def test_a_worker_may_come_at_the_moment_of_the_warning(
    backend: str, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J1: in the very step; nobody is warned of it then, and nobody takes that for a timeout of its job."""

    class Late(Helper):
        async def start(self) -> None:
            await anyio.sleep(4.9)
            while current_time() < 5.1:
                pass  # the loop stands still: the five seconds are over when it goes on
            for _ in range(steps):
                await checkpoint()
            await super().start()

    async def main() -> None:
        async with running(Helper("other")) as runner, anyio.create_task_group() as group:

            def warn(text: str, *_args: object, **_options: object) -> None:
                assert "still waits" in text
                assert "helper" not in runner.registry

            monkeypatch.setattr(logging.getLogger("workerbus.jobs"), "warning", warn)

            async def ask() -> None:
                for name in ("other", "helper"):
                    assert await runner.job(name, name="echo") == {"worker": name, "payload": {}}

            group.start_soon(ask)
            await runner.add_workers(Late("helper"))

    run(main, backend=backend, seed=seed)


async def test_a_worker_that_has_answered_is_not_told_that_its_request_was_withdrawn() -> None:
    """J5, B9: the requester was cancelled while others were still waited for, to have room for the very request."""
    release = anyio.Event()

    async def wait(message: BusMessage) -> None:
        await release.wait()

    asker, full = Listener("asker"), Plain("full", on=wait)
    async with running(asker, EchoWorker("echo"), bus=MemoryBus(max_buffer_size=1)) as runner:
        await runner.bus.subscribe(full)
        for n in range(2):
            await runner.bus.send(note(n, "full"))
            await full.until(1)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_when_settled, scope)
                await asker.job("echo")
        assert scope.cancelled_caught
        release.set()
        await full.until(1, BusJobResponseMessage)
        await settle()
    assert full.of(BusJobCancelMessage) == []


async def _cancel_when_settled(scope: anyio.CancelScope) -> None:
    await settle()
    scope.cancel()


async def test_a_group_without_a_body_that_fails_while_it_waits_for_room_waits_no_longer() -> None:
    """J8, B9: the first has refused, and the lane of the second stays full."""
    release = anyio.Event()

    class Busy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            await release.wait()

    class Refusing(Helper):
        @job(name="late")
        async def late(self, message: BusJobRequestMessage) -> None:
            await anyio.sleep(1)
            raise JobFailure("not today")

    async with running(Busy("busy"), Refusing("refusing"), bus=MemoryBus(max_buffer_size=1)) as runner:
        raw = await Raw.on(runner.bus)
        for n in range(2):
            await raw.ask(f"{n}", "busy", "echo")
            await settle()
        begun = anyio.current_time()
        with pytest.raises(JobGroupError, match="not today"):
            await runner.job_group("refusing", "busy", name="late")
        assert anyio.current_time() == begun + 1
        release.set()


class Counting(BaseWorker):
    """Counts how often each job begins, and keeps all of them until it is told to go on."""

    def __init__(self, name: str = "counting") -> None:
        super().__init__(name)
        self.begun: list[str] = []
        self.go_on = anyio.Event()

    @job(name="one by one", sequential=True)
    async def one_by_one(self, message: BusJobRequestMessage) -> None:
        self.begun.append(message.job_id)
        with anyio.CancelScope(shield=True):
            await self.go_on.wait()

    @job(name="left open", deferred=True)
    async def left_open(self, message: BusJobRequestMessage) -> None:
        self.begun.append(message.job_id)

    @job(name="answered", deferred=True)
    async def answered(self, message: BusJobRequestMessage) -> None:
        self.begun.append(message.job_id)
        await self.send_job_response(message.job_id)
        await self.go_on.wait()


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("counting", "delayed"),
        ("counting", "running"),
        ("counting", "in line"),
        ("counting", "cancelled"),
        ("counting", "left open"),
        ("counting", "answered"),
        ("counting", "over"),
        ("pool", "running"),
        ("pool", "in line"),
        ("pool", "cancelled"),
    ],
)
async def test_a_request_that_comes_again_changes_nothing_wherever_its_job_is(where: str, name: str) -> None:
    """J12: it runs once, and is answered once."""
    worker = Counting("counting" if where == "counting" else "pool/1")
    asked: BaseWorker = worker if where == "counting" else WorkerPool("pool", lambda _: worker, size=1)
    async with running() as runner:
        await runner.add_workers(asked, wait=True)
        raw = await Raw.on(runner.bus)
        if name == "in line":
            await raw.ask("before", where, "one by one")
        options = JobRequestOptions(delay=1.0) if name == "delayed" else None
        job_name = name if name in ("left open", "answered") else "one by one"
        for _ in range(2):
            if name == "over":
                worker.go_on.set()
            await raw.ask("job", where, job_name, options=options)
            await settle()
            if name == "cancelled":
                await raw.cancel("job", where)
        if name == "left open":
            await worker.send_job_response("job")
        await anyio.sleep(1)
        worker.go_on.set()
        await raw.answer("job")
        await raw.settle()
    assert worker.begun.count("job") == 1
    assert len(raw.answers("job")) == 1
