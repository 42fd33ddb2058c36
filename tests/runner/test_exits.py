"""L3, L6: what ends programs arrives as itself, and one cause is one plain exception."""

from typing import Any

import pytest
from anyio import Event, current_time, sleep_forever

from support import clock
from support.leaks import nothing_left
from support.remarks import Remark
from support.runners import quiet_runner
from support.subscribers import Plain
from support.wind_downs import Logged
from support.workers import Doing, Helper, running
from workerbus import (
    BaseWorker,
    BusCancelWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    MemoryBus,
    WorkerErrorData,
    WorkerParams,
    WorkerRunner,
    job,
)


class Boom(Logged):
    """Raises in one place."""

    def __init__(self, place: str, exc: BaseException, log: list[str]) -> None:
        super().__init__("boom", log)
        self.place, self.exc = place, exc
        if place == "event handler":
            self.add_event_handler("on_bus_message", self.on_event)
        if place == "async event handler":
            self.add_event_handler("on_bus_message", self.on_event_async)

    def at(self, place: str) -> None:
        if place == self.place:
            raise self.exc

    def on_event(self, worker: BaseWorker, message: BusMessage) -> None:
        if isinstance(message, Remark):
            self.at("event handler")

    async def on_event_async(self, worker: BaseWorker, message: BusMessage) -> None:
        if isinstance(message, Remark):
            self.at("async event handler")

    async def run(self, params: WorkerParams) -> None:
        self.at("run")
        if self.place == "task":
            params.task_group.start_soon(self.in_task)
        await super().run(params)
        self.at("end of run")

    async def in_task(self) -> None:
        await self.begun.wait()
        self.at("task")

    async def start(self) -> None:
        self.at("start")
        await super().start()
        self.begun.set()

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.at("first on_activated")

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Remark):
            self.at("hook")
        if isinstance(message, BusCancelWorkerMessage):
            self.at("last hook")

    @job(name="boom")
    async def boom(self, message: BusJobRequestMessage) -> None:
        self.at("handler")

    @job(name="unwinding")
    async def unwinding(self, message: BusJobRequestMessage) -> None:
        self.release.set()
        try:
            await sleep_forever()
        finally:
            self.at("handler that is cancelled")

    async def cleanup(self) -> None:
        self.at("cleanup")
        await super().cleanup()


class Choosy(Boom):
    """Is asked before each message, too."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        if isinstance(message, Remark):
            self.at("accepts_bus_message")
        return True


class BoomBus(MemoryBus):
    place: str = ""
    exc: BaseException

    async def start(self) -> None:
        if self.place == "start of the bus":
            raise self.exc

    async def stop(self) -> None:
        if self.place == "stop of the bus":
            raise self.exc


class Touchy(Plain):
    """A plain subscriber that raises in one of two places."""

    def __init__(self, place: str, exc: BaseException) -> None:
        super().__init__("subscriber")
        self.place, self.exc = place, exc

    def accepts_bus_message(self, message: BusMessage) -> bool:
        if isinstance(message, Remark) and self.place == "accepts_bus_message of a subscriber":
            raise self.exc
        return True

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Remark) and self.place == "subscriber":
            raise self.exc


class Explosive:
    """A runner whose run comes to the place by itself, and ends there; an innocent worker is there as well."""

    def __init__(self, place: str, exc: BaseException) -> None:
        self.place, self.exc = place, exc
        self.log: list[str] = []
        bus = BoomBus()
        bus.place, bus.exc = place, exc
        self.runner = quiet_runner(bus=bus, grace_period=0.1)
        self.boom = (Choosy if place == "accepts_bus_message" else Boom)(place, exc, self.log)
        if place == "on_ready":
            self.runner.add_event_handler("on_ready", self.explode)
        self.runner.add_event_handler("on_ready", self.go_on)
        self.stays = {"subscriber"} | ({"boom", "innocent"} if place == "start of the bus" else set())

    async def add_workers(self) -> None:
        await self.runner.bus.subscribe(Touchy(self.place, self.exc))
        if self.place == "watcher":
            await self.runner.registry.watch("boom", self.explode)
        if self.place == "departure watcher":
            await self.runner.registry.watch_departure("boom", self.explode)
        await self.runner.add_workers(Logged("innocent", self.log), self.boom)

    async def explode(self, *_: Any) -> None:
        self.runner.registry.unwatch("boom", self.explode)
        raise self.exc

    async def go_on(self, runner: WorkerRunner) -> None:
        await runner.bus.send(Remark("now", source="test"))
        for name in ("boom", "unwinding"):
            await runner.bus.send(BusJobRequestMessage(name, name, source=runner.name, target="boom"))
        if self.place == "end of run":
            await runner.end()
        elif self.place in (
            "cleanup",
            "stop of the bus",
            "departure watcher",
            "last hook",
            "handler that is cancelled",
        ):
            await self.boom.release.wait()
            await runner.cancel()


async def run_around_a_body(runner: WorkerRunner, *, leave: bool = False) -> None:
    async with runner:
        if not leave:
            await sleep_forever()


EVERYWHERE = (
    "run",
    "start",
    "first on_activated",
    "task",
    "end of run",
    "hook",
    "last hook",
    "event handler",
    "async event handler",
    "accepts_bus_message",
    "handler",
    "handler that is cancelled",
    "cleanup",
    "subscriber",
    "accepts_bus_message of a subscriber",
    "on_ready",
    "watcher",
    "departure watcher",
    "start of the bus",
    "stop of the bus",
)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("form", ["run", "async with"])
@pytest.mark.parametrize("place", EVERYWHERE)
def test_what_ends_programs_arrives_as_itself(place: str, form: str, kind: type[BaseException], backend: str) -> None:
    """L3: wherever the user's code raises it, and nothing is left."""

    async def main() -> None:
        it = Explosive(place, kind("from here"))
        await it.add_workers()
        async with nothing_left(it.runner, stays=it.stays):
            with pytest.raises(kind) as caught:
                await it.runner.run(auto_end=False) if form == "run" else await run_around_a_body(it.runner)
            assert caught.value is it.exc
        assert it.log.count("cleanup innocent") == 1

    try:
        clock.run(main, backend=backend)
    except (KeyboardInterrupt, SystemExit) as exc:
        pytest.fail(f"{exc!r} came out of the event loop instead")


class AtMessage:
    """A tap that raises at the nth message."""

    def __init__(self, number: int, exc: BaseException) -> None:
        self.left, self.exc = number, exc

    def __call__(self, message: BusMessage) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.exc


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("form", ["run", "async with"])
def test_what_ends_programs_arrives_as_itself_out_of_a_tap(form: str, kind: type[BaseException], backend: str) -> None:
    """L3: at whatever message, in the whole of a run."""
    taps = list[AtMessage]()

    async def main() -> None:
        tap = AtMessage(len(taps) + 1, kind("from here"))
        taps.append(tap)
        runner, caught = quiet_runner(), None
        runner.bus.add_tap(tap)
        runner.add_event_handler("on_ready", lambda runner: runner.end())
        async with nothing_left(runner):
            try:
                await runner.add_workers(Helper("one"), Helper("two"))
                await runner.run(auto_end=False) if form == "run" else await run_around_a_body(runner, leave=True)
            except (KeyboardInterrupt, SystemExit) as exc:
                caught = exc
            assert caught is (tap.exc if tap.left <= 0 else None)

    while not taps or taps[-1].left <= 0:
        clock.run(main, backend=backend)
    assert len(taps) > 6


@pytest.mark.parametrize("form", ["run", "async with"])
@pytest.mark.parametrize("place", ["run", "start", "first on_activated", "task", "end of run", "start of the bus"])
async def test_one_cause_is_one_plain_exception(place: str, form: str) -> None:
    """L6, R4: the very exception that the worker, or the bus, has raised."""
    it = Explosive(place, ValueError("from here"))
    await it.add_workers()
    it.runner.add_event_handler("on_ready", lambda runner: runner.end())
    async with nothing_left(it.runner, stays=it.stays):
        with pytest.raises(ValueError, match="from here") as caught:
            await it.runner.run(auto_end=False) if form == "run" else await run_around_a_body(it.runner, leave=True)
        assert caught.value is it.exc


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_in_a_handler_cuts_a_wind_down_short(kind: type[BaseException], backend: str) -> None:
    """R5: where a signal has begun it."""
    times: list[float] = []

    class Lingering(Doing):
        async def cleanup(self) -> None:
            await sleep_forever()

    async def interrupt(worker: BaseWorker, message: BusJobRequestMessage) -> None:
        begun.set()
        try:
            await sleep_forever()
        finally:
            raise kind

    async def main() -> None:
        try:
            async with running(Lingering("lingering", interrupt)) as runner:
                await runner.bus.send(BusJobRequestMessage("1", "do", source=runner.name, target="lingering"))
                await begun.wait()
                times.append(current_time())
                runner.clean_up.interruptible = True
                await runner.cancel()
                await sleep_forever()
        finally:
            times.append(current_time())

    begun = Event()
    with pytest.raises(kind):
        clock.run(main, backend=backend)
    assert times[1] == times[0]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_in_a_body_cuts_a_wind_down_short(kind: type[BaseException], backend: str) -> None:
    """R5: where a signal has begun it."""
    times: list[float] = []

    class Lingering(BaseWorker):
        async def cleanup(self) -> None:
            await sleep_forever()

    async def main() -> None:
        try:
            async with running(Lingering("lingering")) as runner:
                times.append(current_time())
                runner.clean_up.interruptible = True
                raise kind
        finally:
            times.append(current_time())

    with pytest.raises(kind):
        clock.run(main, backend=backend)
    assert times[1] == times[0]


class InterruptedOnce:
    """An event for which the first wait is interrupted, as by a signal."""

    def __init__(self) -> None:
        self._event, self._waits = Event(), 0

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        self._waits += 1
        if self._waits == 1:
            raise KeyboardInterrupt
        await self._event.wait()


async def test_an_exit_that_interrupts_a_wind_down_takes_the_place_of_an_error() -> None:
    """L3, L6: it arrives as itself, when all has ended."""
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the block itself raises
        async with running(Logged("worker", log)) as runner:
            runner._run.done = InterruptedOnce()  # type: ignore[assignment]  # on purpose
            raise ValueError("the body's own")
    assert log == ["cleanup worker"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_in_an_event_handler_cuts_a_wind_down_short(kind: type[BaseException], backend: str) -> None:
    """R5: where a signal has begun it."""
    times: list[float] = []

    class Lingering(BaseWorker):
        async def cleanup(self) -> None:
            runner.worker_error(WorkerErrorData(self.name, "late"))
            await sleep_forever()

    def interrupt(*_: object) -> None:
        raise kind

    async def main() -> None:
        runner.add_event_handler("on_error", interrupt)
        await runner.add_workers(Lingering("lingering"))
        try:
            async with runner:
                await runner.registry.wait_for("lingering")
                times.append(current_time())
                runner.clean_up.interruptible = True
                await runner.cancel()
                await sleep_forever()
        finally:
            times.append(current_time())

    runner = quiet_runner()
    with pytest.raises(kind):
        clock.run(main, backend=backend)
    assert times[1] == times[0]
