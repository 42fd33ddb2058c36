"""`cancel_at_every_checkpoint`: that it cuts where it says, and that it notices what a cut has broken."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio import CancelScope, Event, Lock, create_memory_object_stream, create_task_group, move_on_after, sleep
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from support.documents import examples
from support.workers import Helper, running, stuck
from workerbus import MemoryBus, WorkerRunner
from workerbus.testing import CutError, DeadlockError, cancel_at_every_checkpoint
from workerbus.testing.cancellation._cutting import Cut, Driven

Log = list[Any]


@asynccontextmanager
async def a_log() -> AsyncIterator[Log]:
    yield []


EVERY_WAY = [("asyncio", how) for how in ("scope", "native", "race", "raise")] + [("trio", "scope"), ("trio", "raise")]


each_way = pytest.mark.parametrize(("backend", "how"), EVERY_WAY)


@each_way
def test_each_checkpoint_is_cut_in_turn(backend: str, how: Any) -> None:
    logs: list[Log] = []

    async def three_steps(log: Log) -> None:
        for n in range(3):
            log.append(n)
            await sleep(1)
        log.append("end")

    report = cancel_at_every_checkpoint(three_steps, set_up=a_log, check=logs.append, backend=backend, how=how)
    assert logs == [[0, 1, 2, "end"], [0], [0, 1], [0, 1, 2], [0, 1, 2, "end"]]
    assert [(each.number, each.outcome) for each in report.checkpoints] == [(1, "cut"), (2, "cut"), (3, "cut")]
    assert {each.statement for each in report.checkpoints} == {"await sleep(1)"}
    assert (report.backend, report.how, report.seed) == (backend, how, 0)


def test_a_scenario_needs_no_set_up(backend: str) -> None:
    runs: Log = []

    async def scenario() -> None:
        runs.append("run")
        await checkpoint()

    def check() -> None:
        runs.append("check")

    report = cancel_at_every_checkpoint(scenario, check=check, backend=backend)
    assert len(report.checkpoints) == 1
    assert runs == ["run", "check"] * 3


@pytest.mark.parametrize("how", ["native", "race"])
def test_on_trio_nothing_is_cut_natively(how: Any) -> None:
    runs: Log = []

    async def scenario() -> None:
        await checkpoint()
        runs.append("to the end")

    report = cancel_at_every_checkpoint(scenario, backend="trio", how=how)
    assert report.checkpoints == ()
    assert runs == ["to the end"]


def test_a_race_cuts_when_what_was_waited_for_has_come() -> None:
    def seen(how: Any) -> bool:
        events: list[Event] = []
        seen: list[bool] = []

        async def scenario() -> None:
            events.append(Event())
            with CancelScope(), suppress(TimeoutError):
                async with create_task_group() as group:
                    group.start_soon(set_later, events[-1])
                    try:
                        await events[-1].wait()
                    except asyncio.CancelledError:
                        seen.append(events[-1].is_set())
                        raise

        async def set_later(event: Event) -> None:
            await sleep(1)
            event.set()

        cancel_at_every_checkpoint(scenario, how=how, only=1)
        (came,) = seen
        return came

    assert not seen("native")
    assert seen("race")


@each_way
def test_a_swallowed_cut_is_an_error_that_says_where(backend: str, how: Any) -> None:
    async def swallows() -> None:
        with suppress(BaseException):
            await sleep(1)

    with pytest.raises(AssertionError, match="swallowed") as caught:
        cancel_at_every_checkpoint(swallows, backend=backend, how=how)
    note = caught.value.__notes__[-1]
    assert "at checkpoint 1 of 1, in `await sleep(1)` at " in note
    assert f"test_checkpoints.py:{swallows.__code__.co_firstlineno + 2}" in note
    assert f"again: backend={backend!r}, seed=0, how={how!r}, only=1" in note
    report = cancel_at_every_checkpoint(swallows, backend=backend, how=how, goes_through=False)
    assert [each.outcome for each in report.checkpoints] == ["finished"]


@each_way
def test_an_error_in_the_place_of_the_cut_is_raised(backend: str, how: Any) -> None:
    async def replaces() -> None:
        try:
            await sleep(1)
        except BaseException:
            raise ZeroDivisionError from None

    with pytest.raises(ZeroDivisionError) as caught:
        cancel_at_every_checkpoint(replaces, backend=backend, how=how)
    assert any("in the place of" in note for note in caught.value.__notes__)
    report = cancel_at_every_checkpoint(replaces, backend=backend, how=how, goes_through=False)
    assert [each.outcome for each in report.checkpoints] == ["raised"]


def test_a_scenario_behind_a_shield_may_come_to_its_end(backend: str) -> None:
    async def shielded() -> None:
        with CancelScope(shield=True):
            await sleep(1)
        await cancel_shielded_checkpoint()

    report = cancel_at_every_checkpoint(shielded, backend=backend)
    assert {each.outcome for each in report.checkpoints} == {"finished"}


def test_a_shield_whose_time_is_up_has_swallowed_nothing(backend: str) -> None:
    async def limited() -> None:
        with CancelScope(shield=True, deadline=anyio.current_time() + 1):
            await sleep(5)

    report = cancel_at_every_checkpoint(limited, backend=backend)
    assert [each.outcome for each in report.checkpoints] == ["finished"]


def test_a_cut_held_off_by_a_shield_comes_at_the_next_checkpoint(backend: str) -> None:
    async def shielded_at_first(log: Log) -> None:
        with CancelScope(shield=True):
            await sleep(1)
            log.append("shielded")
        await sleep(1)
        log.append("end")

    logs: list[Log] = []
    cancel_at_every_checkpoint(shielded_at_first, set_up=a_log, check=logs.append, backend=backend, only=1)
    assert logs == [["shielded", "end"], ["shielded"]]


def test_a_failed_check_says_where_the_scenario_was_cut_and_that_can_be_repeated(backend: str) -> None:
    async def two_halves(log: Log) -> None:
        await sleep(1)
        log.append("first half")
        await sleep(1)
        log.append("second half")

    async def both_or_none(log: Log) -> None:
        await checkpoint()
        assert len(log) != 1, "only one half"

    for only in (None, 2):
        with pytest.raises(AssertionError, match="only one half") as caught:
            cancel_at_every_checkpoint(two_halves, set_up=a_log, check=both_or_none, backend=backend, seed=3, only=only)
        assert "two_halves was cancelled (scope) at checkpoint 2 of 2" in caught.value.__notes__[-1]
        assert f"again: backend={backend!r}, seed=3, how='scope', only=2" in caught.value.__notes__[-1]
    cancel_at_every_checkpoint(two_halves, set_up=a_log, check=both_or_none, backend=backend, only=1)
    with pytest.raises(ValueError, match="no checkpoint 3: it has 2"):
        cancel_at_every_checkpoint(two_halves, set_up=a_log, backend=backend, only=3)


def test_what_fails_without_a_cut_says_so(backend: str) -> None:
    async def fails() -> None:
        await checkpoint()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        cancel_at_every_checkpoint(fails, backend=backend)
    assert caught.value.__notes__[-1].endswith("was not cut in this run")


def test_too_many_checkpoints_are_an_error(backend: str) -> None:
    async def many() -> None:
        for _ in range(20):
            await checkpoint()

    with pytest.raises(RuntimeError, match="more than 10 checkpoints"):
        cancel_at_every_checkpoint(many, backend=backend, max_runs=10)


def test_a_run_that_is_shorter_than_the_others_is_not_the_last(backend: str) -> None:
    lengths = iter([3, 3, 0, 3, 3])

    async def varies() -> None:
        for _ in range(next(lengths)):
            await checkpoint()

    report = cancel_at_every_checkpoint(varies, backend=backend)
    assert [each.number for each in report.checkpoints] == [1, 3]


def test_a_signal_handler_that_is_left_is_found(backend: str) -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def leaves_a_handler() -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        await checkpoint()
        signal.signal(signal.SIGTERM, before)

    try:
        with pytest.raises(AssertionError, match="SIGTERM"):
            cancel_at_every_checkpoint(leaves_a_handler, backend=backend)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_task_that_is_left_is_found() -> None:
    async def leaves_a_task() -> None:
        task = asyncio.create_task(sleep(10), name="forgotten")
        await sleep(1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    with pytest.raises(AssertionError, match="forgotten"):
        cancel_at_every_checkpoint(leaves_a_task)


def test_a_set_up_that_is_cancelled_leaves_no_check_out_unseen(backend: str) -> None:
    @asynccontextmanager
    async def stops() -> AsyncIterator[CancelScope]:
        with CancelScope() as scope:
            yield scope

    async def cancels(scope: CancelScope) -> None:
        scope.cancel()
        await checkpoint()

    with pytest.raises(RuntimeError, match="before the check"):
        cancel_at_every_checkpoint(cancels, set_up=stops, backend=backend)


def test_the_place_is_the_programs_own_line_and_the_librarys_below_it(backend: str) -> None:
    async def ask(runner: WorkerRunner) -> None:
        await runner.job("helper", name="wait", timeout=1)

    async def scenario() -> None:
        async with WorkerRunner(handle_sigint=False) as runner:
            await runner.add_workers(Helper("helper"))
            with suppress(TimeoutError):
                await ask(runner)

    report = cancel_at_every_checkpoint(scenario, backend=backend)
    asking = [each for each in report.checkpoints if each.statement.startswith("await runner.job(")]
    assert asking
    assert all(each.where.endswith(f":{ask.__code__.co_firstlineno + 1}") for each in asking)
    assert any(each.inside.startswith("workerbus/jobs/") for each in asking)
    assert str(asking[0]) in str(report)
    assert f"at {len(report.checkpoints)} checkpoints, backend={backend!r}, seed=0" in str(report)
    assert set(report.of("cut")) | set(report.of("finished")) == set(report.checkpoints)


def test_lines_are_found_below_generators_and_iterators(backend: str) -> None:
    class Waits:
        def __await__(self) -> Any:
            return sleeps().__await__()

    async def sleeps() -> None:
        await sleep(1)

    async def numbers() -> AsyncIterator[int]:
        await Waits()
        yield 1

    async def scenario() -> None:
        async for _ in numbers():
            pass

    (cut,) = cancel_at_every_checkpoint(scenario, backend=backend).checkpoints
    assert cut.where.endswith(f":{sleeps.__code__.co_firstlineno + 1}")


def test_a_scenario_that_hangs_while_it_is_to_be_cut_is_described(backend: str) -> None:
    async def ask(runner: WorkerRunner) -> None:
        await runner.job("stuck", name="do")

    with pytest.raises(DeadlockError) as caught:
        cancel_at_every_checkpoint(ask, set_up=stuck, backend=backend)
    text = str(caught.value)
    assert ".<locals>.ask'\n    waits for the answer of 'stuck' to job 'do' (" in text
    assert 'await runner.job("stuck", name="do")' in text


async def nothing(*_: object) -> None:
    pass


@asynccontextmanager
async def something() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("scenario", "values", "error", "text"),
    [
        (1, {}, TypeError, "scenario must be a function, which each run calls anew, not 1"),
        (lambda _: 1, {"set_up": something}, TypeError, "the scenario must be an async function, and has returned 1"),
        (lambda _: nothing(), {}, TypeError, "missing 1 required positional argument"),
        (nothing, {"set_up": something()}, TypeError, "set_up must be a function"),
        (nothing, {"set_up": lambda: 1}, TypeError, "set_up must return an async context manager, and has returned 1"),
        (nothing, {"how": "kill"}, ValueError, "how must be one of 'scope', 'native', 'race', 'raise', not 'kill'"),
        (nothing, {"max_runs": 0}, ValueError, "max_runs must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    scenario: Any, values: dict[str, Any], error: type[Exception], text: str, backend: str
) -> None:
    with pytest.raises(error, match=text):
        cancel_at_every_checkpoint(scenario, backend=backend, **values)


# --- what is raised


@pytest.mark.parametrize("error", [CutError, KeyboardInterrupt, lambda: ValueError("bad")])
def test_what_is_raised_is_the_scenarios_own_affair(error: Callable[[], BaseException], backend: str) -> None:
    """It is raised where the scenario waits, without waiting any longer, and through shields."""
    caught: list[BaseException] = []

    async def scenario() -> None:
        try:
            with CancelScope(shield=True):
                await sleep(1)
        except BaseException as exc:
            assert anyio.current_time() == 0
            caught.append(exc)
            raise

    cancel_at_every_checkpoint(scenario, backend=backend, how="raise", error=error)
    assert [type(exc) for exc in caught] == [type(error())]


def test_what_is_raised_leaves_locks_streams_and_events_in_order(backend: str) -> None:
    async def waits_for_all(things: tuple[Lock, Any, Any, Event]) -> None:
        lock, send, receive, event = things
        async with create_task_group() as group:
            group.start_soon(hold, lock)
            await checkpoint()
            async with lock:
                pass
            await send.send(1)
            assert await receive.receive() == 1
            with move_on_after(1):
                await receive.receive()
            with move_on_after(1):
                await event.wait()

    async def hold(lock: Lock) -> None:
        async with lock:
            await sleep(1)

    @asynccontextmanager
    async def things() -> AsyncIterator[tuple[Lock, Any, Any, Event]]:
        send, receive = create_memory_object_stream[int](5)
        with send, receive:
            yield Lock(), send, receive, Event()

    async def still_work(things: tuple[Lock, Any, Any, Event]) -> None:
        lock, send, receive, event = things
        async with lock:
            event.set()
        await event.wait()
        statistics = receive.statistics()
        assert (statistics.tasks_waiting_receive, statistics.tasks_waiting_send) == (0, 0)
        await send.send(2)
        assert 2 in (
            await receive.receive(),
            *([] if not statistics.current_buffer_used else [await receive.receive()]),
        )

    report = cancel_at_every_checkpoint(waits_for_all, set_up=things, check=still_work, backend=backend, how="raise")
    assert len(report.checkpoints) >= 4


# --- laws


async def _cancelled() -> None:
    async with create_task_group() as group:
        group.start_soon(sleep, 10)
        await checkpoint()
        group.cancel_scope.cancel()


async def _grouped() -> None:
    async with create_task_group() as group:
        group.start_soon(sleep, 0.2)
        group.start_soon(sleep, 0.1)


async def _limited() -> None:
    with move_on_after(0.5):
        await sleep(1)


async def _shielded() -> None:
    with CancelScope(shield=True):
        await sleep(0.1)


async def _streamed() -> None:
    send, receive = create_memory_object_stream[int]()
    with send, receive:
        async with create_task_group() as group:
            group.start_soon(send.send, 1)
            await receive.receive()


STEPS: dict[str, Callable[[], Any]] = {
    "checkpoint": checkpoint,
    "sleep": lambda: sleep(0.3),
    "shielded checkpoint": cancel_shielded_checkpoint,
    "limited": _limited,
    "grouped": _grouped,
    "shielded": _shielded,
    "streamed": _streamed,
    "cancelled": _cancelled,
}


@st.composite
def programs(draw: st.DrawFn) -> list[str]:
    """A random sequence of things that wait."""
    return draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6))


@settings(max_examples=20, deadline=None)
@given(
    steps=programs(),
    way=st.sampled_from(EVERY_WAY),
    seed=st.integers(0, 9),
)
def test_any_program_that_swallows_nothing_is_cut_everywhere(steps: list[str], way: Any, seed: int) -> None:
    """A correct program passes; a cut makes it shorter, or leaves it whole, and a later one lets it go further."""
    backend, how = way
    reached: list[int] = []

    async def scenario(log: Log) -> None:
        for step in steps:
            await STEPS[step]()
            log.append(step)

    def check(log: Log) -> None:
        assert log == steps[: len(log)]
        reached.append(len(log))

    report = cancel_at_every_checkpoint(scenario, set_up=a_log, check=check, backend=backend, how=how, seed=seed)
    assert reached[0] == reached[-1] == len(steps)
    assert how == "raise" or reached[1:] == sorted(reached[1:])
    assert len(report.checkpoints) == len(reached) - 2 >= len(steps)
    if how == "native":
        assert report.of("cut") == report.checkpoints


async def test_a_driven_coroutine_can_be_closed() -> None:
    closed: list[bool] = []

    async def waits() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            closed.append(True)

    driving = Driven(waits(), 0, Cut()).drive()
    driving.send(None)
    driving.close()
    assert closed == [True]


@pytest.mark.parametrize("example", examples(cancel_at_every_checkpoint, sync=True))
def test_the_example_is_true(example: Callable[[str], None], backend: str) -> None:
    example(backend)


@pytest.mark.parametrize("first", [True, False])
def test_an_exception_that_comes_out_among_others_has_come_out(backend: str, first: bool) -> None:
    """Wherever in the group it is."""

    async def scenario() -> None:
        try:
            await checkpoint()
        except CutError as error:
            both: list[Exception] = [error, ValueError("another one")]
            raise ExceptionGroup("both", both if first else both[::-1]) from None

    report = cancel_at_every_checkpoint(scenario, backend=backend, how="raise")
    assert {cut.outcome for cut in report.checkpoints} == {"cut"}


def test_what_a_set_up_swallows_is_told_all_the_same(backend: str) -> None:
    """That the scenario has swallowed its cancellation, for instance: no check has followed."""

    @asynccontextmanager
    async def set_up() -> AsyncIterator[None]:
        with suppress(AssertionError):
            yield

    async def scenario(_: None) -> None:
        with suppress(anyio.get_cancelled_exc_class()):
            await sleep(1)

    with pytest.raises(RuntimeError, match="has left its block before the check"):
        cancel_at_every_checkpoint(scenario, set_up=set_up, backend=backend)


class SlowlyStarting(MemoryBus):
    async def start(self) -> None:
        await sleep(1)
        await super().start()


def test_a_place_is_the_innermost_of_the_programs_own_and_below_it_the_innermost_of_the_library(backend: str) -> None:
    """So a hook that the library calls is a place of the program's own, and nothing of the library is below it."""

    async def scenario(runner: WorkerRunner) -> None:
        async with SlowlyStarting():
            await runner.job("helper", name="echo")

    @asynccontextmanager
    async def set_up() -> AsyncIterator[WorkerRunner]:
        async with running(Helper("helper")) as runner:
            yield runner

    cuts = cancel_at_every_checkpoint(scenario, set_up=set_up, backend=backend).checkpoints
    hook = [each for each in cuts if each.statement == "await sleep(1)"]
    asking = [each for each in cuts if each.statement.startswith("await runner.job")]
    assert {each.inside for each in hook} == {""}
    assert asking
    assert all(each.inside and not each.inside.endswith("in __await__") for each in asking)  # that is the outermost


def test_a_checkpoint_that_is_not_there_is_refused_with_how_many_there_are(backend: str) -> None:
    async def scenario() -> None:
        await checkpoint()

    for only in (2, 7):
        with pytest.raises(ValueError, match=f"no checkpoint {only}: it has 1$"):
            cancel_at_every_checkpoint(scenario, backend=backend, only=only)
