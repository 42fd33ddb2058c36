"""R5: the signal handlers of a program and of its runs."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from support.leaks import signal_handlers
from support.workers import Helper
from workerbus import MemoryBus, WorkerRunner
from workerbus.testing import settle


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

    monkeypatch.setattr("workerbus.runner._signals.open_signal_receiver", refuse)
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


@pytest.mark.parametrize(
    ("kwargs", "handled"),
    [
        ({}, [signal.SIGINT]),
        ({"handle_sigint": False}, []),
        ({"handle_sigint": False, "handle_sigterm": True}, [signal.SIGTERM]),
        ({"handle_sigterm": True}, [signal.SIGINT, signal.SIGTERM]),
    ],
)
async def test_a_runner_handles_the_signals_that_it_is_to_handle(
    kwargs: dict[str, Any], handled: list[signal.Signals]
) -> None:
    """R5: SIGINT by default, SIGTERM if asked; the earlier handlers are back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with WorkerRunner(**kwargs) as runner:
        assert [number for number, handler in before.items() if signal.getsignal(number) is not handler] == handled
        assert runner.signal is None
    assert {number: signal.getsignal(number) for number in before} == before
    assert runner.signal is None
