"""What a worker says and does at the edges, where no other test looks closely."""

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.messages import Alarm, Note, alarm, note
from support.requesters import Listener
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusCancelMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusMessage,
    BusSubscriber,
    BusWorkerErrorMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    MemoryBus,
    NotRunningError,
    WorkerActivationArgs,
    WorkerErrorData,
    WorkerParams,
    WorkerReadyData,
    WorkerRegistry,
    WorkerRunner,
)


async def test_a_worker_says_who_it_is_and_where_in_its_life() -> None:
    """What a user reads in a debugger."""
    helper = Helper("helper")
    assert repr(helper) == "<Helper 'helper', new>"
    async with running(helper):
        assert repr(helper) == "<Helper 'helper', running>"
    assert repr(helper) == "<Helper 'helper', finished>"


@pytest.mark.parametrize("kind", [BusEndMessage, BusCancelMessage])
async def test_a_worker_asks_its_own_runner_to_end_and_says_who_asks(
    kind: type[BusEndMessage | BusCancelMessage],
) -> None:
    """R6, N1."""
    observer, helper = Plain("observer"), Helper("helper")
    bus = MemoryBus()
    await bus.subscribe(observer)
    runner = WorkerRunner(name="runner", bus=bus, handle_sigint=False)
    await runner.add_workers(helper)
    async with anyio.create_task_group() as tasks, bus:
        tasks.start_soon(runner.run)
        await runner.registry.wait_for("helper")
        await (helper.end if kind is BusEndMessage else helper.cancel)(reason="enough")
        [message] = await observer.until(1, kind)
    assert message == kind("enough", source="helper", target="runner")


class Refusing(MemoryBus):
    """A bus, as slow as that of a network, on which nobody of the name ``child`` can subscribe for a while."""

    broken = True

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        for _ in range(5):
            await checkpoint()
        if self.broken and subscriber.name == "child":
            raise OSError("no connection")
        await super().subscribe(subscriber)


async def test_a_child_that_could_not_be_attached_is_free_again() -> None:
    """W5, R3: it has no parent, and can be added once more."""
    bus, child, parent = Refusing(), Helper("child"), Helper("parent")
    async with running(parent, bus=bus) as runner:
        with pytest.raises(OSError, match="no connection"):
            await parent.add_workers(child)
        assert child.parent is None
        assert parent.children == []
        bus.broken = False
        await parent.add_workers(child)
        assert child.parent == "parent"
        assert await runner.job("child", name="echo") == {"worker": "child", "payload": None}


async def test_a_root_worker_that_could_not_be_attached_is_free_again() -> None:
    """R3."""
    bus, child = Refusing(), Helper("child")
    async with running(bus=bus) as runner:
        with pytest.raises(OSError, match="no connection"):
            await runner.add_workers(child)
        assert runner.known_workers() == []
        bus.broken = False
        await runner.add_workers(child)
        assert await runner.job("child", name="echo") == {"worker": "child", "payload": None}


async def test_a_worker_before_its_runner_says_what_it_lacks() -> None:
    """W1."""
    worker = BaseWorker("worker")
    for attribute in ("bus", "registry", "worker_runner"):
        with pytest.raises(RuntimeError, match="worker 'worker' has no "):
            getattr(worker, attribute)


async def test_who_activates_and_deactivates_is_said_in_the_message() -> None:
    """W3, N1."""
    observer, one = Plain("observer"), Helper("one")
    async with running(one, Helper("two", active=False)) as runner:
        await runner.bus.subscribe(observer)
        await one.activate_worker("two", args=WorkerActivationArgs())
        await one.deactivate_worker("two")
        await observer.until(1, BusDeactivateWorkerMessage)
    args = WorkerActivationArgs().to_dict()
    assert observer.of(BusActivateWorkerMessage) == [BusActivateWorkerMessage(args, source="one", target="two")]
    assert observer.of(BusDeactivateWorkerMessage) == [BusDeactivateWorkerMessage(source="one", target="two")]


async def test_a_worker_that_is_unknown_is_told_apart_from_those_that_were_added() -> None:
    """W3: near names are those that the runner knows, too, ready or not."""
    one = Helper("one")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(one, Helper("speaker"))
    with pytest.raises(LookupError, match=r"^there is no worker 'speeker'; did you mean 'speaker'\?$"):
        await one.activate_worker("speeker")
    await runner.cancel()
    await runner.run()


async def test_a_worker_without_a_runner_looks_others_up_in_its_registry() -> None:
    """W1, W3."""
    bus, registry, worker = MemoryBus(), WorkerRegistry("somewhere"), Helper("worker")
    await worker.attach(registry=registry, bus=bus)
    with pytest.raises(LookupError, match="no worker 'other'; no names are known"):
        await worker.activate_worker("other")
    await registry.register(WorkerReadyData("others", "somewhere"))
    with pytest.raises(LookupError, match="did you mean 'others'"):
        await worker.deactivate_worker("other")


class Curious(Helper):
    """Writes down of whom it is told, after ``gate``."""

    def __init__(self, name: str = "curious") -> None:
        super().__init__(name)
        self.told: list[str] = []
        self.gate = anyio.Event()
        self.gate.set()

    async def on_activated(self, args: object) -> None:
        await self.gate.wait()

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        self.told.append(data.worker_name)
        if data.worker_name == "failing":
            raise ValueError("oh")


async def test_a_worker_remembers_of_whom_it_was_told_as_long_as_they_are_there() -> None:
    """G1, G2: once for each time that one gets ready; what it remembers does not grow with those that have gone."""
    curious = Curious()
    async with running(curious, Helper("stays")) as runner:
        for n in range(600):
            await curious.registry.register(WorkerReadyData(f"w{n}", "elsewhere"))
            await curious.watch_workers(f"w{n}")
            await curious.registry.unregister(f"w{n}", "elsewhere")
        await curious.watch_workers("stays")
        await anyio.wait_all_tasks_blocked()
        assert curious.told == ["stays", *(f"w{n}" for n in range(600))]
        assert len(curious._told) < 300
        assert runner.get_worker("stays") is not None


async def test_a_hook_for_a_worker_waits_for_the_hooks_before_it() -> None:
    """W8: one at a time per lane, and arrivals are data."""
    curious = Curious()
    async with running(curious, Helper("other")) as runner:
        await anyio.wait_all_tasks_blocked()
        curious.gate = anyio.Event()
        await curious.send_bus_message(BusActivateWorkerMessage(None, source="test", target="curious"))
        await runner.add_workers(Helper("newcomer"))
        await anyio.wait_all_tasks_blocked()
        assert curious.told == ["other"]
        curious.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert curious.told == ["other", "newcomer"]


async def test_a_failing_hook_is_named_in_the_log_and_in_the_report(caplog: pytest.LogCaptureFixture) -> None:
    """W7: the hook, the worker, the error, and no job where there is none."""
    told: list[WorkerErrorData] = []
    async with running(Curious()) as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await runner.add_workers(Helper("failing"))
        await anyio.wait_all_tasks_blocked()
    assert told == [WorkerErrorData("curious", "on_worker_ready: ValueError: oh")]
    assert caplog.messages == ["on_worker_ready of worker 'curious' failed"]


@pytest.mark.parametrize("child", [False, True])
async def test_what_is_no_worker_is_named_when_it_is_refused(child: bool) -> None:
    """W5: also beside one that is."""
    anything: Any = "a name"
    parent, other = Helper("parent"), Helper("other")
    async with running(parent):
        with pytest.raises(TypeError, match=r"^children are workers, not 'a name'$"):
            await parent.add_workers(*((other, anything) if child else (anything,)))
        assert parent.children == []
    assert other.parent is None


async def test_a_worker_without_a_runner_reports_its_errors_on_the_bus() -> None:
    """W7, W1."""
    bus, observer, worker = MemoryBus(), Plain("observer"), Helper("worker")
    await bus.subscribe(observer)
    await worker.attach(registry=WorkerRegistry("somewhere"), bus=bus)
    await worker.send_bus_error_message("oh")
    async with bus:
        assert await observer.until(1) == [BusWorkerErrorMessage("oh", source="worker")]


async def test_a_worker_that_stops_tells_why_it_wants_no_more_jobs_and_asks_for_none() -> None:
    """W6, J5, J14: also in its own clean-up."""
    told: list[str] = []

    class Stopping(Helper):
        async def cleanup(self) -> None:
            try:
                self.job("helper")
            except NotRunningError as exc:
                told.append(str(exc))
            await super().cleanup()

    helper, stopping = Listener("helper"), Stopping("stopping")
    async with running(helper, stopping):
        await stopping.request_job("helper", name="wait")
        await helper.begun.wait()
        await stopping.stop()
        message = await helper.until("cancelled")
    assert message.reason == "worker 'stopping' stopped"
    assert told == ["'stopping' is not running any more: it asks for no more jobs"]


# --- names and announcements


@pytest.mark.parametrize("name", ["", 7])
def test_a_name_that_is_none_is_named(name: Any) -> None:
    with pytest.raises(ValueError, match=f"^a worker's name is a str that is not empty, not {name!r}$"):
        Helper(name)


def test_a_worker_without_a_name_gets_one_of_its_own() -> None:
    """For logs."""
    assert Helper().name.startswith("Helper-")
    assert Helper().name != Helper().name


async def test_a_worker_can_be_attached_once_and_says_so() -> None:
    """W6."""
    bus, registry, worker = MemoryBus(), WorkerRegistry("somewhere"), Helper("worker")
    with pytest.raises(NotRunningError, match=r"^worker 'worker' is not attached to a bus$"):
        _ = worker.inbox
    await worker.attach(registry=registry, bus=bus)
    with pytest.raises(NotRunningError, match=r"^worker 'worker' was attached before: a worker object runs once"):
        await worker.attach(registry=registry, bus=bus)
    assert bus.has_subscriber("worker")
    await worker.stop()
    assert not bus.has_subscriber("worker")
    assert repr(worker) == "<Helper 'worker', finished>"


async def test_a_worker_announces_its_start_and_its_end_once() -> None:
    """W2, W6, N1: with what others want to know; one that has not started has nothing to announce."""

    class Twice(Helper):
        activations = 0

        async def on_activated(self, args: object) -> None:
            self.activations += 1

        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await super().run(params)

    bus, observer = MemoryBus(), Plain("observer")
    await bus.subscribe(observer)
    twice, child = Twice("twice"), Helper("child", active=False)
    async with bus:
        async with running(twice, name="runner", bus=bus) as runner:
            await twice.add_workers(child)
            await runner.registry.wait_for("child")
        runner = WorkerRunner(bus=bus, handle_sigint=False)
        await runner.add_workers(Helper("never started"))
        await runner.cancel()
        await runner.run()
        await anyio.wait_all_tasks_blocked()
    assert twice.activations == 1
    assert [message for message in observer.got if isinstance(message, BusWorkerReadyMessage)] == [
        BusWorkerReadyMessage("runner", None, True, False, twice.started_at, source="twice"),
        BusWorkerReadyMessage("runner", "twice", False, False, child.started_at, source="child"),
    ]
    gone = [message for message in observer.got if isinstance(message, BusWorkerGoneMessage)]
    assert [(message.runner, message.source) for message in gone] == [("runner", "child"), ("runner", "twice")]


async def test_the_tasks_of_a_worker_s_hooks_say_whose_they_are() -> None:
    """W8, L1: one for each lane, from its first hook on."""
    names: list[str | None] = []

    class Naming(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note | Alarm):
                names.append(anyio.get_current_task().name)

    async with running(Naming("naming")) as runner:
        await runner.bus.send(note(1, target="naming"))
        await anyio.wait_all_tasks_blocked()
        await runner.bus.send(alarm(1, target="naming"))
        await anyio.wait_all_tasks_blocked()
    assert names == ["naming data dispatcher", "naming system dispatcher"]


async def test_a_worker_may_receive_what_is_meant_for_others() -> None:
    """B6: with `receives = "all"`, as an observer."""
    got: list[BusMessage] = []

    class Nosy(Helper):
        receives = "all"

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                got.append(message)

    async with running(Nosy("nosy"), Helper("other")) as runner:
        await runner.bus.send(note(1, target="other"))
        await runner.bus.send(note(2, target="nobody"))
        await anyio.wait_all_tasks_blocked()
    assert got == [note(1, target="other"), note(2, target="nobody")]
