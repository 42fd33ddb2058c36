"""N4: `accepts_bus_message`."""

from collections.abc import Callable

import anyio
import pytest

from support.conditions import eventually
from support.messages import Alarm, Note, note
from support.requesters import Raw
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BusEndMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobStatus,
    MemoryBus,
    WorkerRunner,
)
from workerbus.testing import RecordingBus, settle


class Picky(Plain):
    """Refuses the messages that are in ``refused``."""

    refused: tuple[int, ...] = ()

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return not (isinstance(message, Note | Alarm) and message.n in self.refused)


async def test_a_refusal_concerns_the_one_who_refuses() -> None:
    """N4: a subscriber refuses a message for itself alone."""
    picky, plain = Picky("picky"), Plain("plain")
    picky.refused = (1,)
    async with MemoryBus() as bus:
        await bus.subscribe(picky)
        await bus.subscribe(plain)
        for n in range(3):
            await bus.send(Note(n, source="me"))
        await plain.until(3)
        await picky.until(2)
    assert picky.got == [Note(0, source="me"), Note(2, source="me")]


async def test_acceptance_is_asked_just_before_the_handling() -> None:
    """N4: what the subscriber says while a message waits counts, not what it said when it came."""
    entered, go_on = anyio.Event(), anyio.Event()

    async def on(message: BusMessage) -> None:
        if message == Note(0, source="me"):
            entered.set()
            await go_on.wait()

    picky = Picky("picky", on=on)
    async with MemoryBus() as bus:
        await bus.subscribe(picky)
        for n in range(3):
            await bus.send(Note(n, source="me"))
        await entered.wait()
        picky.refused = (1,)
        go_on.set()
        await picky.until(2)
    assert picky.got == [Note(0, source="me"), Note(2, source="me")]


class Accepting(Helper):
    """A worker that accepts what ``accept`` says."""

    def __init__(self, name: str, accept: Callable[[BusMessage], bool]) -> None:
        super().__init__(name)
        self.accept = accept
        self.got: list[BusMessage] = []

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return self.accept(message)

    async def on_bus_message(self, message: BusMessage) -> None:
        self.got.append(message)


@pytest.mark.parametrize("kind", [Note, Alarm])
async def test_a_worker_refuses_a_message_before_its_own_handling_and_its_hooks(kind: type[Note] | type[Alarm]) -> None:
    """N4: asked just before handling, for workers too."""
    worker = Accepting("worker", lambda message: message != kind(1, source="me", target="worker"))
    async with running(worker) as runner:
        for n in range(3):
            await runner.bus.send(kind(n, source="me", target="worker"))
        await eventually(lambda: len(worker.got) >= 2)
    assert [message.n for message in worker.got if isinstance(message, Note | Alarm)] == [0, 2]


async def test_a_worker_that_refuses_a_stranger_still_does_jobs_for_others() -> None:
    """N4: one message is refused, not the sender's lane."""
    worker = Accepting("worker", lambda message: message.source != "stranger")
    async with running(worker) as runner:
        await runner.bus.send(Note(1, source="stranger", target="worker"))
        response = await runner.job("worker", name="echo")
    assert response["worker"] == "worker"


async def test_a_worker_that_refuses_everything_still_ends() -> None:
    """N4, R2: a refusal does not keep a runner from ending; after the grace period the worker is cancelled."""
    worker = Accepting("worker", lambda message: False)
    async with running(worker, grace_period=0.05):
        pass
    assert worker.got == []


async def test_a_runner_can_refuse_a_message() -> None:
    """N4: a runner is a subscriber too."""

    class Stubborn(WorkerRunner):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return message.source != "stranger"

    async with Stubborn(handle_sigint=False) as runner:
        await runner.add_workers(Helper("helper"))
        await runner.bus.send(BusEndMessage(source="stranger"))
        await anyio.wait_all_tasks_blocked()
        response = await runner.job("helper", name="echo", timeout=1)
    assert response["worker"] == "helper"


async def test_a_subscriber_that_asks_its_base_class_accepts_everything() -> None:
    """N4: by default everything is accepted."""

    class Asking(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return super().accepts_bus_message(message)

    bus, plain = MemoryBus(), Asking("plain")
    await bus.subscribe(plain)
    async with bus:
        await bus.send(note(1))
        assert await plain.until(1) == [note(1)]


class OpenOrNot(Helper):
    """Takes the job ``echo`` and the job ``wait`` only while it is open."""

    open = False

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return self.open or not isinstance(message, BusJobRequestMessage)


REFUSED = (JobStatus.FAILED, {"error": "worker 'choosy' does not accept this request", "type": "Refused"})


async def test_a_request_that_is_not_accepted_is_answered_at_once() -> None:
    """J1, N4: every request that reached a worker gets an outcome; a refused one, FAILED, with the reason."""
    choosy = OpenOrNot("choosy")
    async with running(choosy) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "choosy", "echo")
        assert await raw.answer("job") == REFUSED
    assert choosy.calls == []


async def test_a_refused_request_that_comes_again_is_ignored() -> None:
    """J12: it had its outcome, also where it would be accepted by now."""
    choosy = OpenOrNot("choosy")
    async with running(choosy) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "choosy", "echo")
        await raw.ask("job", "choosy", "echo")
        await raw.answer("job")
        choosy.open = True
        await raw.ask("job", "choosy", "echo")
        await raw.ask("next", "choosy", "echo")
        await raw.answer("next")
        await raw.settle()
        assert raw.answers("job") == [REFUSED]
    assert choosy.calls == ["next"]


@pytest.mark.parametrize("over", [False, True])
async def test_a_request_that_comes_again_and_is_refused_then_leaves_its_job_alone(over: bool) -> None:
    """J1, J12: one outcome, that of the job."""
    choosy = OpenOrNot("choosy")
    choosy.open = True
    async with running(choosy) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "choosy", "wait")
        await choosy.begun.wait()
        if over:
            choosy.release.set()
            await raw.answer("job")
        choosy.open = False
        await raw.ask("job", "choosy", "wait")
        await raw.ask("next", "choosy", "wait")
        assert await raw.answer("next") == REFUSED
        choosy.release.set()
        await raw.answer("job")
        await raw.settle()
        assert raw.answers("job") == [(JobStatus.COMPLETED, {"released": True})]


async def test_a_request_that_was_not_accepted_is_answered_once() -> None:
    """J12, N4: though it comes twice."""

    class Choosy(Helper):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return not isinstance(message, BusJobRequestMessage)

    async with running(Choosy("worker")) as runner:
        raw = await Raw.on(runner.bus)
        for _ in range(2):
            await raw.ask("job", "worker", "echo")
        await raw.answer("job")
        await raw.settle()
        await settle()
        assert [status for status, _ in raw.answers("job")] == [JobStatus.FAILED]


class Refusing(Helper):
    """Refuses what ``refuses`` says, and hears everything."""

    receives = "all"

    def __init__(self, name: str, refuses: type[BusMessage] | tuple[type[BusMessage], ...] = ()) -> None:
        super().__init__(name)
        self.refuses = refuses

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return not isinstance(message, self.refuses)


async def test_a_choice_that_fails_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """N4, B9: the message is handled all the same, and the log says whose choice it was."""

    class Broken(Helper):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            raise ValueError("cannot choose")

    async with running(Broken("worker")) as runner:
        for number in (1, 2):
            assert await runner.job("worker", name="echo")
            assert runner.bus.statistics().subscribers["worker"].failed == number
    assert set(caplog.messages) == {"accepts_bus_message of worker 'worker' failed; the message is accepted"}


async def test_who_refuses_a_request_for_another_answers_nothing() -> None:
    """N4: a refusal concerns the subscriber alone."""
    bus = RecordingBus()
    async with running(Helper("helper"), Refusing("choosy", BusJobRequestMessage), bus=bus) as runner:
        assert await runner.job("helper", name="echo")
        await settle()
    assert [message.source for message in bus.messages(BusJobResponseMessage)] == ["helper"]


async def test_a_runner_may_refuse_messages() -> None:
    """N4: for itself alone."""

    class Deaf(WorkerRunner):
        deaf = True

        def accepts_bus_message(self, message: BusMessage) -> bool:
            return not (self.deaf and isinstance(message, BusEndMessage))

    runner = Deaf(name="runner", handle_sigint=False)
    async with anyio.create_task_group() as tasks:
        await runner.add_workers(Helper("helper"))
        tasks.start_soon(runner.run)
        await runner.registry.wait_for("helper")
        await runner.bus.send(BusEndMessage(None, source="me", target="runner"))
        await anyio.wait_all_tasks_blocked()
        assert not runner.is_ending
        runner.deaf = False
        await runner.bus.send(BusEndMessage(None, source="me", target="runner"))
