"""The core, once more: faults that were planted there had turned no test red."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import current_time, get_current_task

from support import clock
from support.buses import PoliteBus
from support.leaks import signal_handlers
from support.messages import Alarm, Note, alarm, note
from support.requesters import Raw
from support.workers import Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusAddWorkerMessage,
    BusJobResponseMessage,
    BusMessage,
    BusSubscriber,
    JobError,
    MemoryBus,
    NameTakenError,
    WorkerParams,
    WorkerReadyData,
    WorkerRunner,
)
from workerbus.testing import settle

# --- ends


class Hearing(Helper):
    """Writes down the notes and alarms that its hook gets."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.heard: list[BusMessage] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            self.heard.append(message)


async def test_a_parent_runs_no_hook_any_more_when_its_children_have_ended() -> None:
    """R2, W5: while they end it still does, and while its jobs have their grace it does not, in neither lane."""
    parent, child = Hearing("parent"), Helper("child")
    during = alarm(1, "parent")
    async with running(parent, job_grace=1.0) as runner:
        await parent.add_workers(child)
        await runner.registry.wait_for("child")
        raw = await Raw.on(runner.bus)
        await raw.ask("parent's", "parent", "wait")
        await raw.ask("child's", "child", "wait")
        await parent.begun.wait()
        await child.begun.wait()
        await runner.end()
        await settle()
        await runner.bus.send(during)
        await settle()
        child.release.set()
        await child.wait()
        await settle()
        await runner.bus.send(alarm(2, "parent"))
        await runner.bus.send(note(2, "parent"))
        await settle()
        assert parent.heard == [during]
        parent.release.set()


class SlowToSubscribe(MemoryBus):
    """A bus that takes a second to let ``child`` in."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribing = anyio.Event()

    async def subscribe(self, subscriber: BusSubscriber) -> None:
        if subscriber.name == "child":
            self.subscribing.set()
            await anyio.sleep(1)
        await super().subscribe(subscriber)


async def test_an_end_reaches_a_child_that_is_on_its_way_to_the_bus() -> None:
    """R2, W5: it ends when it has come there, and not when the grace period is over."""
    bus, parent = SlowToSubscribe(), Helper("parent")
    async with running(parent, bus=bus) as runner, anyio.create_task_group() as group:
        begin = current_time()
        group.start_soon(parent.add_workers, Helper("child"))
        await bus.subscribing.wait()
        await runner.end()
        await parent.wait()
        assert current_time() == begin + 1


async def test_a_worker_that_is_being_stopped_takes_no_children() -> None:
    """W5: while it waits for those that it has, too."""

    class Tidy(Helper):
        async def cleanup(self) -> None:
            await anyio.sleep(1)

    parent = Helper("parent")
    async with running(parent) as runner:
        await parent.add_workers(Tidy("child"))
        await runner.registry.wait_for("child")
        async with anyio.create_task_group() as group:
            group.start_soon(parent.stop)
            await settle()
            with pytest.raises(RuntimeError, match="'late' could not finish before it"):
                await parent.add_workers(Helper("late"))


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


# --- children


class SlowToReturn(MemoryBus):
    """A bus that has delivered a worker to its runner a second before `send` returns."""

    async def send(self, message: BusMessage) -> None:
        await super().send(message)
        if isinstance(message, BusAddWorkerMessage):
            await anyio.sleep(1)


async def test_a_child_that_is_attached_before_the_sending_has_returned_is_added() -> None:
    """W5: `add_workers` waits for nothing more."""
    parent = Helper("parent")
    async with running(parent, bus=SlowToReturn()) as runner:
        begin = current_time()
        await parent.add_workers(Helper("child"))
        assert current_time() == begin + 1
        assert await runner.job("child", name="echo")


async def test_a_child_that_comes_and_goes_at_once_has_been_ready() -> None:
    """W5: its parent watches it from before its start."""

    class Brief(Helper):
        async def run(self, params: WorkerParams) -> None:
            await self.start()

    class Watching(Helper):
        async def on_worker_ready(self, data: WorkerReadyData) -> None:
            told.append(data.worker_name)

    told: list[str] = []
    parent, child = Watching("parent"), Brief("child")
    async with running(parent, bus=SlowToReturn()):
        await parent.add_workers(child)
        await child.wait()
        await settle()
        assert told == ["child"]


async def test_a_name_that_is_taken_before_the_parent_starts_is_one_error() -> None:
    """R3, R4, W5: the parent's, whose start it is; nobody else is told."""
    told: list[tuple[str, str]] = []
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_error", lambda _, data: told.append((data.worker_name, data.error)))
    parent = Helper("parent")
    await parent.add_workers(Helper("taken"))
    await runner.add_workers(Helper("taken"), parent)
    async with runner:
        await parent.wait()
        await settle()
    [(name, error)] = told
    assert name == "parent"
    assert error.startswith(NameTakenError.__name__)


# --- what comes to runners


class Overridden(WorkerRunner):
    """Does ``on`` with the notes and alarms that it gets; the others are a runner's."""

    def __init__(self, on: Callable[[BusMessage], Awaitable[None]], **kwargs: Any) -> None:
        super().__init__(name="runner", handle_sigint=False, **kwargs)
        self.on = on

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            await self.on(message)
        else:
            await super().on_bus_message(message)


async def test_a_runner_handles_a_system_message_while_data_messages_wait() -> None:
    """B2: after at most one more of those, though none of them suspends."""
    heard: list[int] = []

    async def on(message: BusMessage) -> None:
        assert isinstance(message, Note | Alarm)
        heard.append(message.n)
        if message.n == 3:
            await runner.bus.send(alarm(100, "runner"))

    async with Overridden(on) as runner:
        for n in range(10):
            await runner.bus.send(note(n, "runner"))
        await settle()
        assert heard.index(100) in (4, 5)
        assert len(heard) == 11


async def test_a_runner_ends_when_it_has_handled_what_has_come() -> None:
    """B5, R2: a system message too."""
    handled: list[BusMessage] = []

    async def on(message: BusMessage) -> None:
        await anyio.sleep(1)
        handled.append(message)

    urgent = alarm(1, "runner")
    async with Overridden(on) as runner:
        await runner.bus.send(urgent)
    assert handled == [urgent]


async def test_what_waits_for_a_runner_is_counted() -> None:
    """B9: in both lanes."""
    gate = anyio.Event()

    async def on(message: BusMessage) -> None:
        await gate.wait()

    async with Overridden(on) as runner:
        for n in range(3):
            await runner.bus.send(alarm(n, "runner"))
        await settle()
        assert runner.bus.statistics().subscribers["runner"].depth == 2
        for n in range(3):
            await runner.bus.send(note(n, "runner"))
        await settle()
        assert runner.bus.statistics().subscribers["runner"].depth == 4
        gate.set()


async def test_a_runner_that_chooses_hears_of_departures_at_once() -> None:
    """J4, N4: a job whose answer was lost ends with the announcement, and not when that counts as lost, too."""

    class Choosy(WorkerRunner):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return True

    class Lossy(PoliteBus):
        async def publish(self, message: BusMessage) -> None:
            if not isinstance(message, BusJobResponseMessage):
                await super().publish(message)

    helper = Helper("helper")
    async with Choosy(bus=Lossy(), handle_sigint=False) as runner:
        await runner.add_workers(helper)
        begin = current_time()
        with pytest.raises(JobError, match="left without an answer"):  # noqa: PT012 - by what is done in the context
            async with runner.job("helper", name="wait"):
                await helper.begun.wait()
                await helper.stop()
        assert current_time() == begin


# --- the task group that run() gets


class Grouped(BaseWorker):
    """Has something done in its ``run()``, and then ends."""

    def __init__(self, do: Callable[[WorkerParams], Awaitable[Any]]) -> None:
        super().__init__("grouped")
        self.do = do

    async def run(self, params: WorkerParams) -> None:
        await self.start()
        await self.do(params)


async def run_alone(worker: BaseWorker) -> None:
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


async def test_a_task_made_of_a_coroutine_bears_its_name_or_the_one_it_is_given() -> None:
    """N2: as in anyio's own task groups."""
    names: list[str | None] = []

    async def note_the_name() -> None:
        names.append(get_current_task().name)

    async def do(params: WorkerParams) -> None:
        params.task_group.create_task(note_the_name())
        await settle()
        params.task_group.create_task(note_the_name(), name="its own")
        await settle()

    await run_alone(Grouped(do))
    assert names == [note_the_name.__qualname__, "its own"]


async def test_a_task_made_of_a_coroutine_runs_in_the_context_it_is_given() -> None:
    """N2: as in anyio's own task groups."""
    seen: list[str] = []
    variable: ContextVar[str] = ContextVar("variable", default="nothing")

    async def look() -> None:
        seen.append(variable.get())

    async def do(params: WorkerParams) -> None:
        context = copy_context()
        context.run(variable.set, "something")
        params.task_group.create_task(look(), context=context)
        await settle()

    await run_alone(Grouped(do))
    assert seen == ["something"]


def test_a_task_of_a_worker_that_lets_a_native_cancellation_through_is_an_error() -> None:
    """W7, L6: nobody has cancelled the worker."""

    async def give_up() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await anyio.sleep(1)

    async def do(params: WorkerParams) -> None:
        params.task_group.create_task(give_up())
        await anyio.sleep(1)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="let a native cancellation of its own through"):
            await run_alone(Grouped(do))

    clock.run(main, backend="asyncio")


# --- signals


@pytest.fixture
def own_handlers() -> Iterator[Callable[[], list[Any]]]:
    """Gives SIGINT and SIGTERM new handlers of the program's own, each time that it is called; returns them."""
    before = signal_handlers()

    def set_new() -> list[Any]:
        new: list[Any] = [lambda *_: None for _ in before]
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), new, strict=True):
            signal.signal(number, handler)
        return new

    yield set_new
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


async def test_each_run_puts_the_handlers_back_that_it_has_found(own_handlers: Callable[[], list[Any]]) -> None:
    """R5, L1: without a signal, too, and whatever those were that an earlier run has found."""
    for _ in range(2):
        found = own_handlers()
        async with WorkerRunner(handle_sigterm=True):
            assert signal_handlers() != found
        assert signal_handlers() == found


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_runners_side_by_side_put_the_programs_own_handlers_back(
    own_handlers: Callable[[], list[Any]], order: tuple[int, int]
) -> None:
    """R5, L1: those that were there before the first of them, in whatever order they end."""
    found = own_handlers()
    async with MemoryBus() as bus, anyio.create_task_group() as group:
        runners = [WorkerRunner(bus=bus, name=name, handle_sigterm=name == "two") for name in ("one", "two")]
        for runner in runners:
            group.start_soon(partial(runner.run, auto_end=False))
            await settle()
        for n in order:
            assert signal_handlers()[0] is not found[0]
            await runners[n].end()
            await settle()
        assert signal_handlers() == found


@pytest.mark.parametrize("error", [NotImplementedError, RuntimeError, ValueError])
async def test_where_there_are_no_signals_a_warning_says_so(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """R5: and no failure."""

    def refuse(*_: object) -> None:
        raise error("not here")

    monkeypatch.setattr("workerbus._signals.open_signal_receiver", refuse)
    async with WorkerRunner() as runner:
        await runner.add_workers(Helper("helper"))
        assert await runner.job("helper", name="echo")
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "signals are not handled: not here")
    ]


async def test_a_handler_that_is_not_pythons_own_breaks_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: one that an extension has set cannot be put back."""
    known = signal.getsignal
    answers = iter([None])
    monkeypatch.setattr(signal, "getsignal", lambda number: next(answers, known(number)))
    async with WorkerRunner() as runner:
        await runner.add_workers(Helper("helper"))
        assert await runner.job("helper", name="echo")


async def test_a_signal_concerns_those_who_listen_to_it(own_handlers: Callable[[], list[Any]]) -> None:
    """R5: and tells them which it was; the others still listen to theirs."""
    found = own_handlers()
    ended: list[str] = []
    over = {name: anyio.Event() for name in ("one", "two")}

    async def run(runner: WorkerRunner) -> None:
        await runner.run(auto_end=False)
        ended.append(runner.name)
        over[runner.name].set()

    async with MemoryBus() as bus, anyio.create_task_group() as group:
        one, two = (WorkerRunner(bus=bus, name=name, handle_sigterm=name == "two") for name in ("one", "two"))
        for runner in (one, two):
            group.start_soon(run, runner)
            await settle()
        signal.raise_signal(signal.SIGTERM)
        await over["two"].wait()
        assert ended == ["two"]
        assert two.signal is signal.SIGTERM
        assert signal_handlers()[0] is not found[0]
        signal.raise_signal(signal.SIGINT)
        await over["one"].wait()
        assert one.signal is signal.SIGINT
        assert signal_handlers() == found
