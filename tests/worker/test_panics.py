"""J2: what is no `Exception`, and not meant to end the program either, ends the worker whose code has raised it."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from support.conditions import eventually
from support.failures import Errors, Parent, tracebacks
from support.hooks import HOOKS, Peer, provoke, with_hook
from support.messages import Note, note
from support.requesters import Raw, outcome_of
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    BusMessage,
    JobStatus,
    WorkerErrorData,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
    job,
    worker_ready,
)
from workerbus.testing import run


class Panic(BaseException):
    """What a native extension raises when it panics."""


ERROR = {"error": "out of bounds", "type": "Panic"}


class Panicking(Helper):
    """Panics in ``place``, when it is told to."""

    def __init__(self, name: str, place: str, kind: type[BaseException] = Panic) -> None:
        super().__init__(name)
        self.place = place
        self.panic = kind("out of bounds")
        self.now = anyio.Event()
        if place == "event handler":
            self.add_event_handler("on_bus_message", lambda worker, message: self.at("event handler", message))

    def at(self, place: str, message: BusMessage | None = None) -> None:
        if self.place == place and (message is None or isinstance(message, Note)):
            raise self.panic

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        if self.place == "task":
            params.task_group.start_soon(self.later)
        if self.place == "own task":
            self.create_task(self.later)
        if self.place == "run":
            await self.later()
        await super().run(params)

    async def later(self) -> None:
        await self.now.wait()
        raise self.panic

    def accepts_bus_message(self, message: BusMessage) -> bool:
        self.at("acceptance", message)
        return True

    async def on_bus_message(self, message: BusMessage) -> None:
        self.at("hook", message)
        if self.place == "task of a hook" and isinstance(message, Note):
            async with anyio.create_task_group() as group:
                group.start_soon(self.fail_now)
                group.start_soon(anyio.sleep_forever)

    async def fail_now(self) -> None:
        raise self.panic

    @worker_ready(name="newcomer")
    async def newcomer_is_ready(self, data: WorkerReadyData) -> None:
        self.at("watch handler")

    @job(name="now")
    async def handle(self, message: BusJobRequestMessage) -> None:
        self.at("handler")

    @job(name="leave open", deferred=True)
    async def leave_open(self, message: BusJobRequestMessage) -> None:
        self.at("deferred handler")

    async def on_job_request(self, message: BusJobRequestMessage) -> None:
        self.at("on_job_request")


HANDLERS = {"handler": "now", "deferred handler": "leave open", "on_job_request": "unheard of"}
ORIGINS = {
    "run": "run",
    "task": "run",
    "own task": "task 'later'",
    "acceptance": "accepts_bus_message",
    "hook": "on_bus_message",
    "task of a hook": "on_bus_message",
    "event handler": "on_bus_message",
    "watch handler": "newcomer_is_ready",
    "handler": "handle",
    "deferred handler": "leave_open",
    "on_job_request": "on_job_request",
}
"""Where it panics, to what is told of it."""


async def set_off(worker: Panicking, runner: WorkerRunner, raw: Raw) -> None:
    if worker.place in HANDLERS:
        await raw.ask("now", worker.name, HANDLERS[worker.place])
        kind = type(worker.panic).__name__
        assert await raw.answer("now") == (JobStatus.ERROR, {**ERROR, "type": kind})
    elif worker.place == "watch handler":
        await runner.add_workers(Helper("newcomer"))
    elif worker.place in ("run", "task", "own task"):
        worker.now.set()
    else:
        await runner.bus.send(note(0, worker.name))


@pytest.mark.parametrize("place", ORIGINS)
async def test_a_panic_ends_its_worker_and_no_other(place: str, caplog: pytest.LogCaptureFixture) -> None:
    """J2, W7, W9: its jobs are answered ERROR; it is logged, and reported with the panic itself."""
    worker, other = Panicking("w", place), Helper("other")
    async with running(worker, other) as runner:
        errors = await Errors().of(runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "wait")
        await raw.ask("2", "other", "wait")
        await worker.begun.wait()
        await other.begun.wait()
        await set_off(worker, runner, raw)
        assert await raw.answer("1") == (JobStatus.ERROR, ERROR)
        await worker.wait()
        assert not runner.bus.has_subscriber("w")
        assert await outcome_of(runner, "other", name="echo", timeout=1) != (JobStatus.CANCELLED, {})
        other.release.set()
        assert await raw.answer("2") == (JobStatus.COMPLETED, {"released": True})
        await eventually(lambda: errors.told)
    assert errors.told == [WorkerErrorData("w", "Panic: out of bounds")]
    assert (errors.told[0].exception, errors.told[0].origin) == (worker.panic, ORIGINS[place])
    assert errors.told[0].fatal
    assert errors.sent("w") == ["Panic: out of bounds"]
    assert tracebacks(caplog, worker.panic)


@pytest.mark.parametrize("kind", [Panic, GeneratorExit])
@pytest.mark.parametrize("place", ORIGINS)
async def test_a_panic_that_nobody_has_taken_is_raised_by_the_run(place: str, kind: type[BaseException]) -> None:
    """J2, R4, L6: as itself; a `GeneratorExit` that code raises, with nobody closing it, is one too."""
    worker, caught = Panicking("w", place, kind), None
    try:
        async with running(worker, Helper("other")) as runner:
            await set_off(worker, runner, await Raw.on(runner.bus))
            await worker.wait()
            assert (await runner.job("other", name="echo"))["worker"] == "other"
    except (Panic, GeneratorExit) as exc:
        caught = exc
    assert caught is worker.panic


async def test_a_panic_in_the_first_on_activated_is_told_of_with_its_name() -> None:
    """J2, W9"""

    class Panicking(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            raise panic

    panic = Panic("out of bounds")
    async with running(Peer("peer")) as runner:
        errors = await Errors().of(runner)
        with pytest.raises(Panic):
            await runner.add_workers(Panicking("it"), wait=True)
        await eventually(lambda: errors.told)
    assert [(data.exception, data.origin, data.fatal) for data in errors.told] == [(panic, "on_activated", True)]


@pytest.mark.parametrize("form", ["method", "event"])
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_panic_in_any_hook_ends_its_worker_and_no_other(hook: str, form: str) -> None:
    """J2, N3"""
    panic = Panic("out of bounds")

    async def fail(*_: Any) -> None:
        raise panic

    subject = with_hook(hook, fail, form=form, active=hook != "on_activated")
    peer = Peer("peer")
    async with running(subject, peer) as runner:
        errors = await Errors().of(runner)
        await provoke(hook, subject, peer, runner)
        await subject.wait()
        assert (await runner.job("peer", name="echo"))["worker"] == "peer"
        await eventually(lambda: errors.told)
    assert [(data.exception, data.origin, data.fatal) for data in errors.told] == [(panic, hook, True)]


async def test_of_several_panics_the_first_says_where_it_was() -> None:
    """J2, W7: those that come while the worker unwinds are told together with it."""
    one, two = Panic("one"), Panic("two")

    class Twice(Helper):
        @job(name="first")
        async def first(self, message: BusJobRequestMessage) -> None:
            await self.now.wait()
            raise one

        @job(name="second")
        async def second(self, message: BusJobRequestMessage) -> None:
            try:
                self.begun.set()
                await anyio.sleep_forever()
            finally:
                raise two

        now = anyio.Event()

    worker = Twice("w")
    async with running(worker) as runner:
        errors = await Errors().of(runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "first")
        await raw.ask("2", "w", "second")
        await worker.begun.wait()
        worker.now.set()
        await worker.wait()
        await eventually(lambda: errors.told)
    [data] = errors.told
    assert isinstance(data.exception, BaseExceptionGroup)
    assert (data.exception.exceptions, data.origin, data.fatal) == ((one, two), "first", True)


async def test_a_child_that_panics_concerns_its_parent() -> None:
    """J2, W7, W9"""
    parent, child = Parent(), Panicking("child", "handler")
    async with running(parent) as runner:
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        await set_off(child, runner, await Raw.on(runner.bus))
        await child.wait()
        await eventually(lambda: parent.failed)
        assert (await runner.job("parent", name="echo"))["worker"] == "parent"
    assert parent.failed == [WorkerErrorData("child", "Panic: out of bounds")]
    assert (parent.failed[0].exception, parent.failed[0].origin) == (child.panic, "handle")
    assert parent.failed[0].fatal


@pytest.mark.parametrize("method", ["start", "on_activated", "attach", "run"])
async def test_a_panic_at_the_start_ends_the_worker_and_no_other(method: str) -> None:
    """J2, W2, R4"""
    panic = Panic("out of bounds")

    async def fail(*_: Any, **__: Any) -> None:
        raise panic

    parent = Parent()
    broken: Helper = type("Broken", (Helper,), {method: fail})("broken")
    async with running(parent) as runner:
        with pytest.raises(Panic):
            await parent.add_workers(broken, wait=True)
        assert (await runner.job("parent", name="echo"))["worker"] == "parent"
        assert not runner.bus.has_subscriber("broken")


async def test_a_panic_while_the_worker_stops_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """J2, W7: of a handler that is being cancelled, and of ``cleanup``"""

    class Late(Panicking):
        @job(name="stubborn")
        async def stubborn(self, message: BusJobRequestMessage) -> None:
            self.begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                raise self.panic

        async def cleanup(self) -> None:
            raise Panic("in cleanup")

    worker = Late("w", "nowhere")
    async with running(worker, Helper("other")) as runner:
        errors = await Errors().of(runner)
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w", "stubborn")
        await worker.begun.wait()
        await worker.stop()
        assert (await raw.answer("1"))[0] is JobStatus.CANCELLED
        await eventually(lambda: len(errors.told) == 2)
        assert (await runner.job("other", name="echo"))["worker"] == "other"
    assert [(data.origin, data.fatal) for data in errors.told] == [("cleanup", False), ("stubborn", True)]
    assert errors.told[1].exception is worker.panic
    assert any("cleanup() of worker 'w' failed" in record.getMessage() for record in caplog.records)


Place = Callable[[WorkerRunner, Callable[..., None]], Awaitable[None]]


async def in_an_event_handler(runner: WorkerRunner, fail: Callable[..., None]) -> None:
    runner.add_event_handler("on_error", fail)
    await runner.get_worker("other").send_bus_error_message("a cause")  # type: ignore[union-attr]  # it is there


async def in_a_watcher(runner: WorkerRunner, fail: Callable[..., None]) -> None:
    await runner.registry.watch("other", fail)


async def in_a_tap(runner: WorkerRunner, fail: Callable[..., None]) -> None:
    runner.bus.add_tap(fail)
    await runner.bus.send(note(0, "other"))


async def in_a_subscriber(runner: WorkerRunner, fail: Callable[..., None]) -> None:
    class Subscriber(Raw):
        async def on_bus_message(self, message: BusMessage) -> None:
            fail()

    await Subscriber.on(runner.bus, "subscriber")
    await runner.bus.send(note(0, "subscriber"))


@pytest.mark.parametrize("place", [in_an_event_handler, in_a_watcher, in_a_tap, in_a_subscriber])
async def test_a_panic_in_code_that_is_no_worker_s_is_logged(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """J2, B3, G3, O1: there is nobody to finish, and all go on."""
    panic = Panic("out of bounds")

    def fail(*_: object) -> None:
        raise panic

    async with running(Helper("other")) as runner:
        await place(runner, fail)
        await eventually(lambda: tracebacks(caplog, panic))
        assert (await runner.job("other", name="echo"))["worker"] == "other"
    assert {record.levelno for record in tracebacks(caplog, panic)} == {logging.ERROR}


def test_a_test_that_is_failed_in_a_handler_fails_where_the_runner_is_left(backend: str) -> None:
    """J2, R4: what pytest raises for that is no `Exception`."""

    class Judge(Helper):
        @job(name="judge")
        async def judge(self, message: BusJobRequestMessage) -> None:
            pytest.fail("not what was expected")

    answers: list[Any] = []

    async def main() -> None:
        async with running(Judge("judge"), Helper("other")) as runner:
            answers.append(await outcome_of(runner, "judge", name="judge"))
            answers.append(await runner.job("other", name="echo"))

    with pytest.raises(pytest.fail.Exception, match="not what was expected"):
        run(main, backend=backend)
    status, response = answers[0]
    assert (status, response) == (JobStatus.ERROR, {"error": "not what was expected", "type": "Failed"})
    assert answers[1]["worker"] == "other"
