"""R5: the signal handlers of a program and of its runs."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectSendStream

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


def both(bus: MemoryBus) -> tuple[WorkerRunner, WorkerRunner]:
    """Two that listen to SIGINT in any case, and one of them to SIGTERM."""
    one = WorkerRunner(bus=bus, name="one", handle_sigint="always")
    return one, WorkerRunner(bus=bus, name="two", handle_sigint="always", handle_sigterm=True)


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
        runners = both(bus)
        for runner in runners:
            group.start_soon(partial(runner.run, auto_end=False))
            await settle()
        for n in order:
            assert signal_handlers()[0] is not found[0]
            await runners[n].end()
            await settle()
        assert signal_handlers() == found


async def test_a_runner_takes_no_sigint_that_the_program_handles_unless_asked(
    own_handlers: Callable[[], list[Any]],
) -> None:
    """R5: nor does one that comes after another runner which was asked."""
    found = own_handlers()
    async with WorkerRunner() as runner:
        assert signal_handlers() == found
    async with MemoryBus() as bus, anyio.create_task_group() as group:
        asked = WorkerRunner(bus=bus, handle_sigint="always")
        group.start_soon(partial(asked.run, auto_end=False))
        await settle()
        async with WorkerRunner(bus=bus) as runner:
            signal.raise_signal(signal.SIGINT)
            await settle()
            assert (asked.signal, runner.signal) == (signal.SIGINT, None)
    assert signal_handlers() == found


@pytest.mark.parametrize("nobodys", [signal.SIG_DFL, signal.default_int_handler], ids=["SIG_DFL", "Python's own"])
async def test_a_default_handler_is_nobodys(own_handlers: Callable[[], list[Any]], nobodys: Any) -> None:
    """R5."""
    own_handlers()
    signal.signal(signal.SIGINT, nobodys)
    async with WorkerRunner():
        assert signal.getsignal(signal.SIGINT) is not nobodys
    assert signal.getsignal(signal.SIGINT) is nobodys


async def test_what_is_to_be_ignored_is_ignored(own_handlers: Callable[[], list[Any]]) -> None:
    """R5: a server does that in the processes that it ends itself."""
    own_handlers()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    async with WorkerRunner():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


async def test_a_handler_that_the_program_sets_during_a_run_stays(own_handlers: Callable[[], list[Any]]) -> None:
    """R5: as a server does in the body of a runner; another runner leaves it alone."""
    own_handlers()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    async with MemoryBus() as bus:
        async with WorkerRunner(bus=bus) as outer, WorkerRunner(bus=bus, name="beside it") as beside:
            found = own_handlers()
            async with WorkerRunner(bus=bus, handle_sigterm=True):
                assert signal.getsignal(signal.SIGINT) is found[0]
                assert signal.getsignal(signal.SIGTERM) is not found[1]
            assert signal_handlers() == found
        assert outer.signal is beside.signal is None
    assert signal_handlers() == found


async def note_signals(
    number: signal.Signals, notes: MemoryObjectSendStream[signal.Signals], *, task_status: TaskStatus[None]
) -> None:
    """As a program does that has its event loop handle a signal, and not a function."""
    with anyio.open_signal_receiver(number) as numbers:
        task_status.started()
        async for each in numbers:
            notes.send_nowait(each)


@pytest.mark.parametrize("reopened", [False, True], ids=["one run", "runs that join and leave"])
@pytest.mark.parametrize("asked", ["before the run", "during the run"])
async def test_what_the_program_has_asked_its_event_loop_for_is_heard_after_a_run(
    own_handlers: Callable[[], list[Any]], asked: str, reopened: bool
) -> None:
    """R5: asyncio keeps that beside the handler, and the handler alone would swallow the signal."""
    own_handlers()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    number = signal.SIGTERM if asked == "before the run" else signal.SIGINT
    notes, noted = anyio.create_memory_object_stream[signal.Signals](10)
    async with MemoryBus() as bus, notes, noted, anyio.create_task_group() as group:
        listen = partial(group.start, note_signals, number, notes)
        if asked == "before the run":
            await listen()
        async with WorkerRunner(bus=bus, handle_sigterm=number is signal.SIGTERM) as runner:
            await settle()
            if asked == "during the run":
                await listen()
            if reopened:
                async with WorkerRunner(bus=bus, handle_sigint=False, handle_sigterm=True):
                    await settle()
        assert runner.signal is None
        for _ in range(2):
            signal.raise_signal(number)
            assert await noted.receive() is number
        group.cancel_scope.cancel()


async def test_what_the_program_has_asked_its_event_loop_for_is_heard_after_the_signal_that_ends_a_run(
    own_handlers: Callable[[], list[Any]],
) -> None:
    """R5: the first signal is the runner's, and the second one is the program's own."""
    own_handlers()
    notes, noted = anyio.create_memory_object_stream[signal.Signals](10)
    async with notes, noted, anyio.create_task_group() as group:
        await group.start(note_signals, signal.SIGTERM, notes)
        runner = WorkerRunner(handle_sigterm=True)
        runner.add_event_handler("on_ready", lambda _: signal.raise_signal(signal.SIGTERM))
        await runner.run(auto_end=False)
        assert runner.signal is signal.SIGTERM
        assert not noted.statistics().current_buffer_used
        signal.raise_signal(signal.SIGTERM)
        assert await noted.receive() is signal.SIGTERM
        group.cancel_scope.cancel()


@pytest.mark.parametrize("meant", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
@pytest.mark.parametrize("reopened", [False, True], ids=["one run", "runs that join and leave"])
async def test_what_the_program_asks_its_event_loop_for_during_a_run_is_heard_at_once(
    own_handlers: Callable[[], list[Any]], meant: signal.Signals, reopened: bool
) -> None:
    """R5: by the program and not by the runner, whether that listens to the signal or has nothing to do with it."""
    own_handlers()
    notes, noted = anyio.create_memory_object_stream[signal.Signals](10)
    async with MemoryBus() as bus, WorkerRunner(bus=bus, handle_sigterm=True) as runner:
        async with notes, noted, anyio.create_task_group() as group:
            await group.start(note_signals, meant, notes)
            if reopened:
                async with WorkerRunner(bus=bus, handle_sigint="always"):
                    await settle()
            for _ in range(2):
                signal.raise_signal(meant)
                assert await noted.receive() is meant
            group.cancel_scope.cancel()
        assert runner.signal is None


async def test_a_run_leaves_alone_what_the_program_has_asked_its_event_loop_for(
    own_handlers: Callable[[], list[Any]],
) -> None:
    """R5: another signal than those that it listens to reaches the program, and one that it has heard does not."""
    own_handlers()
    notes, noted = anyio.create_memory_object_stream[signal.Signals](10)
    async with notes, noted, anyio.create_task_group() as group:
        for number in (signal.SIGUSR1, signal.SIGTERM):
            await group.start(note_signals, number, notes)
        runner = WorkerRunner(handle_sigterm=True)

        async def send(_: WorkerRunner) -> None:
            signal.raise_signal(signal.SIGUSR1)
            assert await noted.receive() is signal.SIGUSR1
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGUSR1)
            assert await noted.receive() is signal.SIGUSR1

        runner.add_event_handler("on_ready", send)
        await runner.run(auto_end=False)
        assert runner.signal is signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)
        assert await noted.receive() is signal.SIGTERM
        group.cancel_scope.cancel()


async def test_a_second_signal_is_the_programs_own_even_if_nothing_else_ran_since_the_first(
    own_handlers: Callable[[], list[Any]],
) -> None:
    """R5: a body that does not wait hears it at once."""
    own_handlers()
    called: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: called.append(number))
    runner = WorkerRunner(handle_sigint="always")

    async def interrupt_twice() -> None:
        async with runner:
            signal.raise_signal(signal.SIGINT)
            assert called == []
            signal.raise_signal(signal.SIGINT)
            assert called == [signal.SIGINT]
            await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await interrupt_twice()
    assert runner.signal is signal.SIGINT


async def test_a_run_leaves_the_wake_up_of_the_event_loop_as_it_was(own_handlers: Callable[[], list[Any]]) -> None:
    """R5, L1: also if several runs come and go, and if the program asks its event loop for a signal meanwhile."""

    def wake_up() -> int:
        found = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(found)
        return found

    own_handlers()
    before = wake_up()
    async with MemoryBus() as bus, WorkerRunner(bus=bus), WorkerRunner(bus=bus):
        pass
    assert wake_up() == before
    with anyio.open_signal_receiver(signal.SIGUSR1):
        asked = wake_up()
        async with WorkerRunner(handle_sigint="always"):
            with anyio.open_signal_receiver(signal.SIGUSR2):
                pass
        assert wake_up() == asked
    assert wake_up() == before


@pytest.mark.parametrize("how", ["always", True])
async def test_both_handlers_that_the_program_sets_during_a_run_stay(
    own_handlers: Callable[[], list[Any]], how: Any
) -> None:
    """R5: of SIGINT and of SIGTERM, though the run listens to both."""
    own_handlers()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    async with WorkerRunner(handle_sigint=how, handle_sigterm=True):
        found = own_handlers()
    assert signal_handlers() == found


@pytest.mark.parametrize("kwargs", [{}, {"handle_sigterm": True}], ids=["listens to one", "listens to two"])
async def test_a_handler_of_a_runner_that_a_server_puts_back_keeps_no_signal(
    own_handlers: Callable[[], list[Any]], kwargs: dict[str, Any]
) -> None:
    """R5: servers put back what they have found when they end, and raise the signal again."""
    own_handlers()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    servers: list[int] = []

    async def serve() -> None:
        async with WorkerRunner(**kwargs):
            await settle()
            found = signal.signal(signal.SIGINT, lambda number, _: servers.append(number))
            signal.raise_signal(signal.SIGINT)
            await settle()
            signal.signal(signal.SIGINT, found)
            signal.raise_signal(signal.SIGINT)
            await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await serve()
    assert servers == [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_only_three_things_can_be_done_about_a_signal() -> None:
    """R5."""
    with pytest.raises(ValueError, match="True, False or 'end', not 'drain'"):
        WorkerRunner(handle_sigterm="drain")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="True, False or 'always', not 'end'"):
        WorkerRunner(handle_sigint="end")  # type: ignore[arg-type]  # the same


@pytest.mark.parametrize(
    ("what", "error"),
    [("signal.signal", ValueError("not here")), ("socket.socketpair", OSError("not here"))],
    ids=["an interpreter of its own", "no more files may be open"],
)
async def test_where_there_are_no_signals_a_warning_says_so(
    what: str, error: Exception, backend: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """R5: and no failure; the handlers are as they were."""

    def refuse(*_: object) -> None:
        raise error

    found = signal_handlers()
    monkeypatch.setattr(what, refuse)
    async with WorkerRunner() as runner:
        await runner.add_workers(Helper("helper"))
        assert await runner.job("helper", name="echo")
        refused = signal_handlers() == found
    monkeypatch.undo()
    assert signal_handlers() == found
    assert refused is not (backend == "trio" and what == "socket.socketpair")  # trio needs none
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "signals are not handled: not here")
    ] * refused


async def test_a_handler_that_is_not_pythons_own_breaks_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: one that an extension has set cannot be put back."""
    known = signal.getsignal
    answers = iter([None])
    monkeypatch.setattr(signal, "getsignal", lambda number: next(answers, known(number)))
    async with WorkerRunner() as runner:
        await runner.add_workers(Helper("helper"))
        assert await runner.job("helper", name="echo")


async def test_a_signal_ends_all_who_listen_to_it(own_handlers: Callable[[], list[Any]]) -> None:
    """R5: at once, and the earlier handlers are back."""
    found = own_handlers()
    async with MemoryBus() as bus, anyio.create_task_group() as group:
        runners = [WorkerRunner(bus=bus, name=name, handle_sigint="always") for name in ("one", "two", "three")]
        for runner in runners:
            group.start_soon(partial(runner.run, auto_end=False))
            await settle()
        signal.raise_signal(signal.SIGINT)
        await settle()
        assert [runner.signal for runner in runners] == [signal.SIGINT] * 3
    assert signal_handlers() == found


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
        one, two = runners = both(bus)
        for runner in runners:
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
        ({"handle_sigint": "always"}, [signal.SIGINT]),
        ({"handle_sigterm": "end"}, [signal.SIGINT, signal.SIGTERM]),
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


@pytest.mark.parametrize(
    ("handle_sigint", "number", "how"),
    [
        ("always", signal.SIGTERM, "ended"),
        ("always", signal.SIGINT, "cancelled"),
        (False, signal.SIGTERM, "ended"),
    ],
)
async def test_only_sigterm_lets_what_is_under_way_finish_where_it_is_to(
    own_handlers: Callable[[], list[Any]], handle_sigint: Any, number: signal.Signals, how: str
) -> None:
    """R5: with `handle_sigterm="end"`, whether the run listens to SIGINT as well or not."""
    own_handlers()
    runner = WorkerRunner(handle_sigint=handle_sigint, handle_sigterm="end")
    await runner.add_workers(Helper("helper"))
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await runner.registry.wait_for("helper")
        signal.raise_signal(number)
    assert runner.signal is number
    assert runner.outcome is not None
    assert (runner.outcome.how, runner.outcome.reason) == (how, number.name)
