"""The core, once more: faults that were planted there had turned no test red."""

import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import current_time

from support.buses import PoliteBus
from support.leaks import signal_handlers
from support.messages import Alarm, Note, alarm, note
from support.workers import Helper
from workerbus import (
    BusJobResponseMessage,
    BusMessage,
    JobError,
    MemoryBus,
    WorkerRunner,
)
from workerbus.testing import settle

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
