"""W1, W2, W6: a worker is attached, it starts, runs and ends. What `stop()` does is in ``test_worker_stop``."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support import clock
from support.conditions import eventually
from support.messages import Note
from support.requesters import Raw, outcome_of
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    BusWorkerReadyMessage,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerReadyData,
    WorkerRegistry,
    WorkerRunner,
    job,
    worker_ready,
)


def new_runner(**kwargs: Any) -> WorkerRunner:
    return WorkerRunner(handle_sigint=False, **kwargs)


# --- W1


@pytest.mark.parametrize("attribute", ["bus", "registry"])
async def test_a_new_worker_has_neither_bus_nor_registry(attribute: str) -> None:
    """W1"""
    with pytest.raises(RuntimeError):
        getattr(Helper("w"), attribute)


async def test_a_worker_is_subscribed_when_attach_returns() -> None:
    """W1"""
    bus, registry, worker = MemoryBus(), WorkerRegistry("r"), Helper("w")
    await worker.attach(registry=registry, bus=bus)
    assert (worker.bus, worker.registry) == (bus, registry)
    assert bus.has_subscriber("w")
    with pytest.raises(ValueError, match="'w'"):
        await bus.subscribe(Plain("w"))


async def test_a_worker_that_could_not_be_attached_is_as_before() -> None:
    """W1"""
    bus, worker = MemoryBus(), Helper("w")
    await bus.subscribe(Plain("w"))
    with pytest.raises(ValueError, match="'w'"):
        await worker.attach(registry=WorkerRegistry("r"), bus=bus)
    with pytest.raises(RuntimeError):
        _ = worker.bus
    other = MemoryBus()
    await worker.attach(registry=WorkerRegistry("r"), bus=other)
    assert worker.bus is other


# --- W2


async def test_a_start_announces_and_registers_before_it_activates() -> None:
    """W2"""
    seen: list[object] = []

    class Starting(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            seen.extend((self.started_at, self.registry.get(self.name)))
            await self.send_bus_message(Note(0, source=self.name))

    observer = Plain("observer")
    async with new_runner() as runner:
        await runner.bus.subscribe(observer)
        await runner.add_workers(Starting("w"))
        await observer.until(1, Note)
    ready, note = [message for message in observer.got if message.source == "w"][:2]
    assert isinstance(ready, BusWorkerReadyMessage)
    assert isinstance(note, Note)
    assert seen == [ready.started_at, WorkerReadyData("w", runner.name)]


async def test_a_start_watches_after_it_has_activated() -> None:
    """W2"""
    order: list[str] = []

    class Watching(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            order.append("activated")

        @worker_ready(name="peer")
        async def met(self, data: WorkerReadyData) -> None:
            order.append(data.worker_name)

    async with running(Helper("peer"), Watching("w")):
        await eventually(lambda: len(order) == 2)
    assert order == ["activated", "peer"]


@pytest.mark.parametrize("active", [True, False])
async def test_an_activation_before_the_start_waits_for_it(active: bool) -> None:
    """W2"""
    got: list[tuple[object, bool]] = []

    class Waiting(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            got.append((args, self.started_at is not None))

    worker, runner = Waiting("w", active=active), new_runner()
    await runner.add_workers(worker)
    await runner.bus.send(BusActivateWorkerMessage({"n": 1}, source="test", target="w"))
    await anyio.wait_all_tasks_blocked()
    assert not got
    assert not worker.active
    async with runner:
        await eventually(lambda: len(got) == 1 + active)
    assert got == [(None, True)] * active + [({"n": 1}, True)]


async def test_data_messages_before_the_start_wait_for_it() -> None:
    """W2, B4"""
    got: list[object] = []

    class Hearing(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            got.append("activated")

        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                got.append(message.n)

    runner = new_runner()
    await runner.add_workers(Hearing("w"))
    for n in range(3):
        await runner.bus.send(Note(n, source="test", target="w"))
    async with runner:
        await eventually(lambda: len(got) == 4)
    assert got == ["activated", 0, 1, 2]


async def test_job_handlers_may_start_before_on_activated_has_returned() -> None:
    """W2"""

    class Slow(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await self.release.wait()

    worker = Slow("w")
    async with running(worker) as runner:
        assert (await runner.job("w", name="echo"))["worker"] == "w"
        worker.release.set()


@pytest.mark.parametrize("form", ["method", "handler"])
async def test_a_first_on_activated_that_raises_finishes_the_worker(form: str) -> None:
    """W2, R4"""

    class Failing(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            if form == "method":
                raise ValueError("no key")

    worker, peer = Failing("w"), Helper("peer")
    if form == "handler":

        @worker.event_handler("on_activated")
        def fail(_: object, args: object) -> None:
            raise ValueError("no key")

    async def scene() -> None:
        async with running(peer) as runner:
            await runner.add_workers(worker)
            await worker.wait()
            assert runner.registry.get("w") is None
            assert not worker.active
            assert (await runner.job("peer", name="echo"))["worker"] == "peer"

    with pytest.raises(ValueError, match="no key"):
        await scene()


async def test_jobs_open_when_the_first_on_activated_raises_are_answered_error() -> None:
    """W2, W7"""

    class Failing(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            await self.begun.wait()
            raise ValueError("no key")

    outcomes: list[tuple[JobStatus, dict[str, Any]]] = []

    async def scene() -> None:
        async with running(Failing("w")) as runner:
            outcomes.append(await outcome_of(runner, "w", name="wait"))

    with pytest.raises(ValueError, match="no key"):
        await scene()
    assert outcomes == [(JobStatus.ERROR, {"error": "no key", "type": "ValueError"})]


@pytest.mark.parametrize("place", ["run", "start"])
async def test_a_job_asked_before_the_start_is_answered_or_refused(place: str) -> None:
    """J14, W2: asking waits for no start that waits for the answer"""

    class Asking(BaseWorker):
        over = False

        async def ask(self) -> None:
            with contextlib.suppress(RuntimeError):
                assert (await self.job("peer", name="echo"))["worker"] == "peer"
            self.over = True

        async def run(self, params: WorkerParams) -> None:
            if place == "run":
                await self.ask()
            await super().run(params)

        async def start(self) -> None:
            if place == "start":
                await self.ask()
            await super().start()

    worker = Asking("w")
    async with running(Helper("peer"), grace_period=0.05) as runner:
        await runner.add_workers(worker)
        await anyio.wait_all_tasks_blocked()
        assert worker.over


# --- run() and its end


async def test_a_worker_whose_run_returns_has_finished() -> None:
    """W6"""

    class Brief(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()

    worker, runner = Brief("w"), new_runner()
    await runner.add_workers(worker)
    await runner.run()
    await worker.wait()
    assert runner.registry.get("w") is None


async def test_a_worker_that_never_starts_can_be_stopped() -> None:
    """W6"""

    class Silent(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.begun.set()
            await anyio.sleep_forever()

    worker = Silent("w")
    async with new_runner() as runner:
        await runner.add_workers(worker)
        await worker.begun.wait()
        await worker.stop()
        assert worker.started_at is None
        assert not runner.bus.has_subscriber("w")


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
    assert [record for record in caplog.records if record.exc_info and record.exc_info[1] is worker.error]


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


# --- what else ends a worker


async def test_a_cancel_overtakes_an_end_that_waits_for_jobs() -> None:
    """R2, for one worker"""
    worker = Helper("w")
    async with running(worker, job_grace=60, grace_period=60) as runner:
        await (await Raw.on(runner.bus)).ask("1", "w", "wait")
        await worker.begun.wait()
        await ended(worker, runner)
        await anyio.wait_all_tasks_blocked()
        assert not worker.unwound.is_set()
        await cancelled(worker, runner)
        await anyio.wait_all_tasks_blocked()
        unwound = worker.unwound.is_set()
        worker.release.set()
    assert unwound


async def test_a_job_that_was_asked_for_just_before_the_end_has_its_grace() -> None:
    """R2"""

    class Working(BaseWorker):
        @job(name="work")
        async def work(self, message: BusJobRequestMessage) -> None:
            for _ in range(5):
                await checkpoint()

    worker = Working("w")
    async with running(worker, job_grace=5) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("0", "w", "work")
        await raw.answer("0")
        await anyio.wait_all_tasks_blocked()
        await raw.ask("1", "w", "work")
        await ended(worker, runner)
        assert (await raw.answer("1"))[0] is JobStatus.COMPLETED


def test_an_end_of_a_worker_that_never_starts_has_its_grace_too(backend: str) -> None:
    """R2: for an end of a single worker"""

    class Silent(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await anyio.sleep_forever()

    async def main() -> None:
        worker = Silent("w")
        async with running(Helper("peer"), grace_period=1) as runner:
            await runner.add_workers(worker)
            await ended(worker, runner)
            with anyio.move_on_after(4) as scope:
                await worker.wait()
            in_time.append(not scope.cancelled_caught)

    in_time: list[bool] = []
    clock.run(main, backend=backend)
    assert in_time == [True]


def test_each_stop_has_its_own_deadline(backend: str) -> None:
    """L4: one for a whole wind-down, but stops that come later are others"""

    class Slow(Cleaning):
        async def cleanup(self) -> None:
            await anyio.sleep(1.5)
            await super().cleanup()

    workers = [Slow(f"w{n}") for n in range(3)]

    async def main() -> None:
        async with running(*workers):
            for worker in workers:
                await worker.stop()

    clock.run(main, backend=backend)
    assert [worker.cleaned for worker in workers] == [[False]] * 3


def test_a_worker_that_accepts_no_message_ends_all_the_same(backend: str) -> None:
    """R2, N4"""

    class Deaf(BaseWorker):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return False

    async def main() -> None:
        worker = Deaf("w")
        async with running(worker, grace_period=0.05):
            pass
        await worker.wait()

    clock.run(main, backend=backend)
