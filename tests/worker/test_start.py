"""W2: what a start does, in what order, and what waits for it."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.failures import Errors
from support.listeners import listening
from support.messages import Alarm, Note, alarm, note
from support.requesters import outcome_of
from support.runners import quiet_runner
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    JobError,
    JobStatus,
    MemoryBus,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
    worker_ready,
)
from workerbus.testing import RecordingBus, settle
from workerbus.worker._presence import Presence


class ChoosingHelper(Helper):
    """The same, with an ``accepts_bus_message`` of its own."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return True


async def test_a_worker_says_how_it_is_when_it_is_ready() -> None:
    """W2, N1"""

    class Bridged(Helper):
        @property
        def bridged(self) -> bool:
            return True

    parent, child, bus = Helper("parent"), Bridged("child", active=False), RecordingBus()
    async with running(parent, bus=bus) as runner:
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        said = [
            (message.source, message.runner, message.parent, message.active, message.bridged, message.started_at)
            for message in bus.messages(BusWorkerReadyMessage)
        ]
        assert said == [
            ("parent", runner.name, None, True, False, parent.started_at),
            ("child", runner.name, "parent", False, True, child.started_at),
        ]


async def test_a_worker_that_never_started_says_nothing_when_it_leaves() -> None:
    """W2, W9: nobody knew of it."""

    class Silent(Helper):
        async def run(self, params: WorkerParams) -> None:
            self.begun.set()
            await anyio.sleep_forever()

    worker, bus = Silent("w"), RecordingBus()
    async with quiet_runner(bus=bus) as runner:
        await runner.add_workers(worker)
        await worker.begun.wait()
        await worker.stop()
        assert bus.messages(source="w") == []


async def test_a_start_announces_and_registers_before_it_activates() -> None:
    """W2"""
    seen: list[object] = []

    class Starting(BaseWorker):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            seen.extend((self.started_at, self.registry.get(self.name)))
            await self.send_bus_message(Note(0, source=self.name))

    observer = Plain("observer")
    async with quiet_runner() as runner:
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

    worker, runner = Waiting("w", active=active), quiet_runner()
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

    runner = quiet_runner()
    await runner.add_workers(Hearing("w"))
    for n in range(3):
        await runner.bus.send(Note(n, source="test", target="w"))
    async with runner:
        await eventually(lambda: len(got) == 4)
    assert got == ["activated", 0, 1, 2]


@pytest.mark.parametrize("asks", ["the worker asks", "the worker is asked"])
@pytest.mark.parametrize("kind", [Helper, ChoosingHelper])
@pytest.mark.parametrize("active", [True, False])
async def test_who_watches_for_a_worker_may_await_a_job_that_it_asks_for_or_is_asked_for(
    asks: str, kind: type[Helper], active: bool
) -> None:
    """W2, W8, G1: the start waits for its watchers, and what they wait for does not wait for the start."""
    worker, got = kind("w", active=active), list[object]()

    async def watch(data: WorkerReadyData) -> None:
        job = worker.job("helper", name="echo") if asks == "the worker asks" else runner.job("w", name="echo")
        try:
            got.append((await job)["worker"])
        except JobError as exc:
            got.append(exc.statuses)

    async with running(Helper("helper")) as runner:
        await runner.registry.watch("w", watch)
        await runner.add_workers(worker, wait=True)
        if asks == "the worker asks":
            assert got == ["helper"]
        else:
            assert got == ["w"] if active else got == [{"w": JobStatus.FAILED}]


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


async def test_an_end_for_another_that_comes_before_the_start_concerns_nobody_else() -> None:
    """R2, B6: not even a worker that hears everything."""

    class Late(Helper):
        receives = "all"

        async def run(self, params: WorkerParams) -> None:
            await anyio.sleep(1)
            await super().run(params)

    late, other = Late("late"), Late("other")
    async with running(other, grace_period=1.0) as runner:
        await runner.add_workers(late)
        await settle()
        await runner.bus.send(BusEndWorkerMessage(source="me", target="other"))
        await other.wait()
        await anyio.sleep(3)
        assert await runner.job("late", name="echo")


async def test_of_two_errors_of_the_first_on_activated_the_first_one_ends_the_worker() -> None:
    """W2, N3: that of the method, before that of the event handler."""

    class Broken(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            raise ValueError("the method")

    def handler(_: Helper, args: dict[str, Any] | None) -> None:
        raise KeyError("the event handler")

    worker = Broken("worker")
    worker.add_event_handler("on_activated", handler)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    with pytest.raises(ValueError, match="the method"):
        await runner.run()


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
    ready = [message for message in observer.got if isinstance(message, BusWorkerReadyMessage)]
    stamps = [(message.incarnation, message.number) for message in ready]
    assert ready == [
        BusWorkerReadyMessage("runner", None, True, False, twice.started_at, *stamps[0], source="twice"),
        BusWorkerReadyMessage("runner", "twice", False, False, child.started_at, *stamps[1], source="child"),
    ]
    gone = [message for message in observer.got if isinstance(message, BusWorkerGoneMessage)]
    assert [(message.runner, message.source) for message in gone] == [("runner", "child"), ("runner", "twice")]


@pytest.mark.parametrize("make", [note, alarm])
async def test_an_active_worker_gets_what_was_sent_before_the_start(make: Callable[..., Note | Alarm]) -> None:
    """B4: data and system messages alike."""
    got: list[BusMessage] = []

    async def code(message: BusMessage) -> None:
        got.append(message)

    async with listening("worker", code, before=[make(0, "it")]) as bus:
        await bus.send(make(1, "it"))
        await eventually(lambda: make(1, "it") in got)
    assert got == [make(0, "it"), make(1, "it")]


@pytest.mark.parametrize("backend", ["asyncio"])
async def test_a_first_on_activated_that_awaits_something_cancelled_finishes_the_worker() -> None:
    """W7, W2"""

    class Failing(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    worker = Failing("w")
    async with running(Helper("peer"), grace_period=0.1) as runner:
        errors = await Errors().of(runner)
        await runner.add_workers(worker)
        await worker.wait()
        await eventually(lambda: errors.told)
    assert errors.told[0].worker_name == "w"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_overridden_start_that_raises_finishes_the_worker(when: str) -> None:
    """W7, R4"""

    class Starting(Helper):
        async def start(self) -> None:
            if when == "after":
                await super().start()
            raise ValueError("boom")

    runner = WorkerRunner(handle_sigint=False)
    worker = Starting("w")
    await runner.add_workers(worker)
    with pytest.raises(ValueError, match="boom"):
        await runner.run()
    await worker.wait()
    assert runner.registry.get("w") is None


async def test_a_worker_that_is_not_curious_is_told_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """B7: or starting N workers would cost N times N."""
    told: list[str] = []
    monkeypatch.setattr(Presence, "tell_ready", lambda self, data: told.append(self._state.name))
    curious = Helper("curious")
    curious.add_event_handler("on_worker_ready", lambda *_: None)
    async with running(*(Helper(f"worker {n}") for n in range(5)), curious):
        pass
    assert set(told) == {"curious"}


@pytest.mark.parametrize("first", ["message", "job", "neither"])
async def test_a_worker_is_announced_once_whatever_it_says_while_it_starts_and_later(first: str) -> None:
    """W2, W9: others are told that it is ready by one message."""

    class Talking(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            if first == "message":
                await self.send_bus_message(note(0))
            elif first == "job":
                await self.job("helper", name="echo")

    bus, worker = RecordingBus(), Talking("talking")
    async with running(Helper("helper"), worker, bus=bus):
        for n in range(2):
            await worker.send_bus_message(note(n))
            await worker.job("helper", name="echo")
    assert sorted(message.source for message in bus.messages(BusWorkerReadyMessage)) == ["helper", "talking"]


async def test_a_worker_that_says_something_before_its_start_is_not_announced_by_that() -> None:
    """W2, W9: who waits for it waits for its start."""

    class Hasty(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.send_bus_message(note(0, "other"))
            self.begun.set()
            await self.release.wait()
            await super().run(params)

    hasty = Hasty("hasty")
    async with WorkerRunner(handle_sigint=False) as runner:
        await runner.add_workers(hasty)
        await hasty.begun.wait()
        await settle()
        assert "hasty" not in runner.registry
        hasty.release.set()
        await runner.registry.wait_for("hasty")
