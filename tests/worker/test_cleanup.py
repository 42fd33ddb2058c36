"""W6, L4: `cleanup()`, when it runs and how long it may take."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio import current_time

from support import clock
from support.messages import Alarm, Note, alarm, note
from support.requesters import Raw
from support.runners import cut_short, quiet_runner
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerRegistry,
    WorkerRunner,
    job,
)
from workerbus.testing import settle
from workerbus.worker._core import core_of


async def stopped(worker: BaseWorker, runner: WorkerRunner) -> None:
    await worker.stop()


async def ended(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.bus.send(BusEndWorkerMessage(source="test", target=worker.name))


async def cancelled(worker: BaseWorker, runner: WorkerRunner) -> None:
    await runner.bus.send(BusCancelWorkerMessage(source="test", target=worker.name))


Way = Callable[[BaseWorker, WorkerRunner], Awaitable[None]]


class Cleaning(Helper):
    """Notes at its clean-up whether its handler has unwound."""

    def __init__(self, name: str, *, error: Exception | None = None) -> None:
        super().__init__(name)
        self.error = error
        self.cleaned: list[bool] = []

    async def cleanup(self) -> None:
        self.cleaned.append(self.unwound.is_set())
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("way", [stopped, ended, cancelled])
async def test_cleanup_runs_once_and_after_the_handlers(way: Way) -> None:
    """W6: also where it does not call super"""
    worker = Cleaning("w")
    async with running(worker) as runner:
        await (await Raw.on(runner.bus)).ask("1", "w", "wait")
        await worker.begun.wait()
        await way(worker, runner)
        await worker.wait()
        assert runner.registry.get("w") is None
        assert not runner.bus.has_subscriber("w")
    assert worker.cleaned == [True]


@pytest.mark.parametrize("way", [stopped, ended, cancelled])
async def test_a_cleanup_that_raises_is_logged_and_the_worker_finishes(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """W6"""
    worker = Cleaning("w", error=ValueError("stuck"))
    async with running(worker, Helper("peer")) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await worker.begun.wait()
        await way(worker, runner)
        await worker.wait()
        assert (await raw.answer("1"))[0] is JobStatus.CANCELLED
        assert runner.registry.get("w") is None
        await runner.job("peer", name="echo")
    told = [record for record in caplog.records if record.exc_info and record.exc_info[1] is worker.error]
    assert [record.getMessage() for record in told] == ["cleanup() of worker 'w' failed"]


def test_cleanup_runs_where_a_handler_refuses_to_be_cancelled(backend: str) -> None:
    """W6, L4: what the worker holds is released all the same"""
    worker = Cleaning("w")

    async def refuse(_: object, message: BusMessage) -> None:
        if isinstance(message, Note):
            worker.begun.set()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)

    async def main() -> None:
        worker.add_event_handler("on_bus_message", refuse)
        async with running(worker) as runner:
            await runner.bus.send(Note(0, source="test", target="w"))
            await worker.begun.wait()
            await worker.stop()

    clock.run(main, backend=backend)
    assert len(worker.cleaned) == 1


async def test_the_clean_up_of_a_worker_has_the_time_that_the_run_has_left() -> None:
    """L4: its run() has taken a second of it."""

    class Slow(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            try:
                await super().run(params)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)

        async def cleanup(self) -> None:
            await anyio.sleep_forever()

    async with cut_short(), running(Slow("slow")) as runner:
        begun = anyio.current_time()
        await runner.cancel()
        await anyio.sleep_forever()
    assert anyio.current_time() - begun == pytest.approx(CLEANUP_SECONDS)


async def test_the_clean_up_of_a_worker_that_never_ran_takes_it_off_the_bus() -> None:
    """W6, N1: its name is free again, and it has finished."""
    bus, helper = MemoryBus(), Helper("helper")
    await helper.attach(registry=WorkerRegistry("runner"), bus=bus)
    assert bus.has_subscriber("helper")
    await helper.cleanup()
    await helper.wait()
    assert not bus.has_subscriber("helper")


async def test_the_built_in_clean_up_stops_no_worker_that_runs() -> None:
    """W6: only `stop()` does."""
    helper = Helper("helper")
    async with running(helper) as runner:
        with anyio.move_on_after(1):
            await helper.cleanup()
        assert await runner.job("helper", name="echo") == {"worker": "helper", "payload": {}}


async def test_a_hook_that_fails_while_it_is_cancelled_is_the_last() -> None:
    """W6: the event handlers of the same hook do not begin any more."""
    begun: list[BusMessage] = []

    async def fail_at_the_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("while it was cancelled")

    class Grouped(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                async with anyio.create_task_group() as group:
                    group.start_soon(fail_at_the_end)

    worker = Grouped("worker")
    worker.add_event_handler("on_bus_message", lambda _, message: begun.append(message))
    async with running(worker):
        await worker.send_bus_message(note(1, "worker"))
        await settle()
        await worker.stop()
    assert [message for message in begun if isinstance(message, Note)] == []


@pytest.mark.parametrize("send", [note, alarm])
async def test_a_hook_that_is_cancelled_has_unwound_when_the_worker_cleans_up(
    send: Callable[[int, str], BusMessage],
) -> None:
    """W6: nothing else ran, and nothing waited."""
    log: list[str] = []

    class Tidy(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note | Alarm):
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(1)
                    log.append("hook")

        async def cleanup(self) -> None:
            log.append("cleanup")

    worker = Tidy("worker")
    async with running(worker):
        await worker.send_bus_message(send(1, "worker"))
        await settle()
        await worker.stop()
    assert log == ["hook", "cleanup"]


async def test_a_worker_may_get_its_run_and_its_cleanup_on_the_object() -> None:
    """W6: the cleanup is called once, whoever has put it there."""
    worker, calls = Helper("it"), list[str]()

    async def run(params: WorkerParams) -> None:
        calls.append("run")
        await BaseWorker.run(worker, params)

    async def cleanup() -> None:
        calls.append("cleanup")

    worker.run, worker.cleanup = run, cleanup  # type: ignore[method-assign]  # on purpose
    async with running(worker):
        pass
    assert calls == ["run", "cleanup"]


async def test_nobody_is_called_late_before_the_bound_is_over(caplog: pytest.LogCaptureFixture) -> None:
    """L4: where a transport breaks during the wind-down, that is cut short."""

    class Breaking(MemoryBus):
        async def start(self) -> None:
            await super().start()
            self.breaks = anyio.Event()
            self.tasks.start(self.read, name="reader")

        async def read(self) -> None:
            await self.breaks.wait()
            raise OSError("connection lost")

    class Tidy(Helper):
        async def cleanup(self) -> None:
            bus.breaks.set()
            await anyio.sleep(1)

    bus = Breaking()
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(Tidy("tidy"))
    begin = current_time()
    runner.add_event_handler("on_ready", lambda _: runner.cancel())
    with pytest.raises(OSError, match="connection lost"):
        await runner.run(auto_end=False)
    assert current_time() < begin + CLEANUP_SECONDS
    assert [text for text in caplog.messages if "still waits for" in text] == []


async def test_a_worker_that_never_starts_can_be_stopped() -> None:
    """W6"""

    class Silent(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.begun.set()
            await anyio.sleep_forever()

    worker = Silent("w")
    async with quiet_runner() as runner:
        await runner.add_workers(worker)
        await worker.begun.wait()
        await worker.stop()
        assert worker.started_at is None
        assert not runner.bus.has_subscriber("w")


@pytest.mark.parametrize("hangs", [True, False])
async def test_only_a_clean_up_that_hangs_is_called_late(hangs: bool, caplog: pytest.LogCaptureFixture) -> None:
    """L4"""

    class Slow(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(10 * CLEANUP_SECONDS if hangs else CLEANUP_SECONDS / 2)

    worker = Slow("w")
    async with running(worker):
        await worker.stop()
    told = "worker 'w' is late: its cleanup() has not ended in time"
    assert [text for text in caplog.messages if "late" in text] == ([told] if hangs else [])


class Clinging(MemoryBus):
    """A bus that nobody leaves in time."""

    async def unsubscribe(self, subscriber: BusSubscriber) -> None:
        await super().unsubscribe(subscriber)
        await anyio.sleep(10 * CLEANUP_SECONDS)


@pytest.mark.parametrize("what", ["watcher", "bus", "step"])
async def test_a_worker_that_has_nothing_to_clean_up_leaves_in_time(what: str) -> None:
    """L4: whoever watches for its departure, the bus, and what its kind of worker does before it leaves are bounded."""
    worker = Helper("w")

    async def hang(*_: object) -> None:
        await anyio.sleep(10 * CLEANUP_SECONDS)

    async with running(worker, bus=Clinging() if what == "bus" else MemoryBus()) as runner:
        if what == "watcher":
            await runner.registry.watch_departure("w", hang)
        elif what == "step":
            core_of(worker).presence.before_leaving = hang
        begun = anyio.current_time()
        await worker.stop()
        assert anyio.current_time() - begun == pytest.approx(CLEANUP_SECONDS)
        if what == "watcher":
            runner.registry.unwatch("w", hang)
        else:
            await runner.cancel()


class Refusing(Cleaning):
    """Its handler of ``refuse`` goes on for ten seconds, whatever happens; so does a hook, once it gets a `Note`."""

    @job(name="refuse")
    async def refuse(self, message: BusJobRequestMessage | None = None) -> None:
        with anyio.CancelScope(shield=True):
            self.begun.set()
            await anyio.sleep(5 * CLEANUP_SECONDS)

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await self.refuse()


async def with_a_late_child(parent: BaseWorker, runner: WorkerRunner) -> None:
    """Give a worker a child that takes longer to end than anybody waits."""
    child = Refusing("child")
    await parent.add_workers(child)
    await runner.registry.wait_for("child")
    await runner.bus.send(note(1, "child"))
    await child.begun.wait()


async def test_a_worker_whose_children_are_late_has_nothing_under_way_when_it_cleans_up() -> None:
    """W6, L4: the time for all of it is over by then."""
    log: list[str] = []

    class Parent(Cleaning):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                try:
                    await anyio.sleep_forever()
                finally:
                    log.append("hook")

        async def cleanup(self) -> None:
            log.append("cleanup")
            await super().cleanup()

    parent = Parent("parent")
    async with running(parent) as runner:
        await with_a_late_child(parent, runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "parent", "wait")
        await runner.bus.send(note(2, "parent"))
        await settle()
        await parent.stop()
        assert (await raw.answer("1"))[0] is JobStatus.CANCELLED
    assert parent.cleaned == [True]
    assert log == ["hook", "cleanup"]


async def test_a_worker_whose_children_are_late_names_the_handlers_that_refuse(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L4: they were cancelled only when the time was over, and those that go then are not named."""
    parent = Refusing("parent")
    async with running(parent) as runner:
        await with_a_late_child(parent, runner)
        raw = await Raw.on(runner.bus)
        for job_id, name in [("1", "wait"), ("2", "refuse"), ("3", "refuse")]:
            await raw.ask(job_id, "parent", name)
        await settle()
        await parent.stop()
    told = [text for text in caplog.messages if "refuse cancellation" in text]
    handlers = "job 'refuse' (2), job 'refuse' (3)"
    assert told == [f"worker 'parent' waits for handlers that refuse cancellation: {handlers}"]


async def test_a_worker_that_cleans_up_takes_no_children() -> None:
    """W5, W6: they could not finish before it does; its run() has returned of itself."""
    refused: list[str] = []

    class Brief(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()

        async def cleanup(self) -> None:
            try:
                await self.add_workers(Helper("child"))
            except RuntimeError as exc:
                refused.append(str(exc))

    worker = Brief("brief")
    async with quiet_runner() as runner:
        await runner.add_workers(worker)
        await worker.wait()
    assert refused == ["worker 'brief' is ending: 'child' could not finish before it"]
