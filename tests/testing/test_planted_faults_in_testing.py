"""The tools for tests: faults that were planted there had turned no test red."""

import asyncio
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trio
import trio._core._run as scheduler
from anyio import CancelScope, current_time, get_cancelled_exc_class, sleep
from anyio.lowlevel import checkpoint

from support.messages import Note, note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BusJobRequestMessage, BusJobResponseMessage, BusMessage, JobError, MemoryBus
from workerbus.testing import (
    DeadlockError,
    EchoWorker,
    Faults,
    FaultyBus,
    RecordingBus,
    RecordingWorker,
    TimeLimitError,
    advance,
    run,
    settle,
)
from workerbus.testing._network import Network


def test_each_copy_of_a_doubled_message_has_a_delay_of_its_own() -> None:
    faults = Faults(delay=1.0, duplicate=1.0)
    fates = [faults.draw(note(1), 7, "left/me", number) for number in range(10)]
    assert all(len(set(fate.delays)) == 2 for fate in fates)


def test_what_is_drawn_at_one_end_does_not_depend_on_what_is_sent_at_another() -> None:
    """The order in which tasks at two ends run decides nothing, though senders there may have the same name."""
    alone, beside = (Network(MemoryBus(), 7, Faults(delay=1.0)) for _ in range(2))
    drawn = [alone.fate("left", note(number)) for number in range(5)]
    for number in range(5):
        beside.fate("right", note(number))
        assert beside.fate("left", note(number)) == drawn[number]


def test_who_is_spared_changes_nothing_for_the_others() -> None:
    """A message is drawn for by which of its sender's it is, the spared ones included."""
    all_drawn, some_spared = Faults(delay=1.0), Faults(delay=1.0, spare=lambda message: getattr(message, "n") % 2)  # noqa: B009 - of a note
    one, other = Network(MemoryBus(), 7, all_drawn), Network(MemoryBus(), 7, some_spared)
    drawn = [(one.fate("left", note(n)), other.fate("left", note(n))) for n in range(6)]
    assert all(mine == its for mine, its in drawn[::2])
    assert all(its.delays == (0.0,) for _, its in drawn[1::2])


def a_network(**faults: Any) -> Network:
    network = Network(MemoryBus(), 7, Faults(**faults))
    for name in ("left", "right"):
        network.add(SimpleNamespace(name=name, is_open=False, release=lambda: 2))
    return network


def test_a_sender_is_where_it_sent_last() -> None:
    """So that a split parts it from the other end."""
    network = a_network()
    for end in ("left", "right", "left"):
        network.fate(end, note(1))
        assert network.home(note(2)) == end


async def test_of_two_splits_the_one_that_loses_messages_counts() -> None:
    """What it lost does not arrive because another would have kept it."""
    network = a_network()
    for loses in (False, True):
        network.split(["left", "right"], for_seconds=None, loses=loses)
    cut = network.cut("left", "right")
    assert cut is not None
    assert cut.loses


async def test_what_arrives_late_at_any_end_is_counted_when_a_split_is_over() -> None:
    network = a_network()
    network.split(["left", "right"], for_seconds=None, loses=False)
    network.heal(network.splits[0])
    assert network.story[-1].text == "left and right are together again; 4 messages arrive late"


async def test_each_split_tells_what_it_has_lost_itself() -> None:
    network = a_network(split_loses=True)
    for _ in range(2):
        network.split(["left", "right"], for_seconds=None, loses=None)
    first, second = network.splits
    for split in (first, second, second):
        network.lost_in(split, note(1), "right")
    for split in (first, second):
        network.heal(split)
    assert [fault.text.rpartition("; ")[2] for fault in network.story if fault.kind == "healed"] == [
        "1 message was lost",
        "2 messages were lost",
    ]


async def test_a_split_is_over_in_time_though_the_first_end_has_closed() -> None:
    """Each end that is open minds it."""
    bus = MemoryBus()
    left = FaultyBus(bus, name="left")
    right, third = left.end("right"), left.end("third")
    async with bus, right, third:
        async with left:
            left.split("right", "third", seconds=5.0)
        begin = current_time()
        await sleep(6)
        assert [(fault.kind, fault.time - begin) for fault in left.records] == [("split", 0), ("healed", 5)]


async def test_the_story_counts_from_the_first_end_that_opened() -> None:
    left = FaultyBus(MemoryBus(), name="left")
    right = left.end("right")
    async with left:
        await sleep(2)
        async with right:
            left.split()
    assert left.story() == "2.00 s  left and right are split"


async def test_what_is_drawn_to_be_lost_is_lost_though_it_was_to_go_out_twice() -> None:
    async with FaultyBus(MemoryBus(), faults=Faults(lose=1.0, duplicate=1.0)) as bus:
        plain = Plain("plain")
        await bus.subscribe(plain)
        await bus.send(note(1))
        await settle()
        assert plain.got == []
        assert [fault.kind for fault in bus.records] == ["lost"]


async def test_a_message_for_nobody_is_held_back_from_an_end_where_somebody_hears_everything() -> None:
    left = FaultyBus(MemoryBus(), name="left")
    right = left.end("right")
    async with left, right:
        plain = Plain("plain")
        await right.subscribe(plain)
        left.split()
        await left.send(note(1, target="nobody"))
        await settle()
        assert plain.got == []
        left.heal()
        assert await plain.until(1) == [note(1, target="nobody")]


async def test_an_end_that_closes_tells_of_a_single_delayed_message() -> None:
    bus = FaultyBus(MemoryBus(), faults=Faults(delay=(5.0, 5.0)))
    async with bus:
        await bus.send(note(1))
    assert [fault.text for fault in bus.records if fault.kind == "hurried"] == [
        "left closes; 1 delayed message goes out at once"
    ]


async def test_an_end_that_is_opened_again_knows_nothing_of_the_delays_before() -> None:
    """It delays as its plan says, and no message waits for those that went out when it closed."""
    bus = FaultyBus(MemoryBus(), faults=Faults(delay=(5.0, 5.0)))
    plain = Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        await bus.send(note(1))
    begin = current_time()
    async with bus:
        bus.faults = Faults()
        await bus.send(note(2))
        await settle()
        assert note(2) in plain.got
        assert current_time() == begin
        bus.faults = Faults(delay=(3.0, 3.0))
        await bus.send(note(3))
        while note(3) not in plain.got:
            await plain.until(len(plain.got) + 1)
        assert current_time() == begin + 3


# --- recordings


async def test_a_story_counts_from_the_first_message_if_that_came_before_the_bus_was_opened() -> None:
    bus = RecordingBus()
    await bus.send(note(1))
    await sleep(2)
    for _ in range(2):
        async with bus:
            await bus.send(note(2))
        await sleep(1)
    assert [line.split()[0] for line in bus.story().splitlines()] == ["0.00", "2.00", "3.00"]


async def test_a_story_counts_from_the_first_time_that_the_bus_was_opened() -> None:
    bus = RecordingBus()
    for _ in range(2):
        async with bus:
            await bus.send(note(1))
        await sleep(1)
    assert [line.split()[0] for line in bus.story().splitlines()] == ["0.00", "1.00"]


async def test_what_comes_of_a_message_in_its_own_step_is_recorded_behind_it() -> None:
    bus, helper = RecordingBus(), Helper("helper", active=False)
    async with running(helper, bus=bus) as runner:
        with pytest.raises(JobError, match="inactive"):
            await runner.job("helper", name="echo")
    kinds = (BusJobRequestMessage, BusJobResponseMessage)
    assert [type(message) for message in bus.messages() if isinstance(message, kinds)] == list(kinds)


class Waits(Helper):
    """Its hook for notes takes five seconds; for number 0 it waits to be cancelled."""

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note):
            await (sleep(5) if message.n else anyio.sleep_forever())


class Spy(RecordingWorker, Waits):
    """Writes down the hooks of a worker that waits in them."""


async def test_an_echo_is_a_copy() -> None:
    """A test that changes it does not change what it has asked with."""
    payload = {"n": 1}
    async with running(EchoWorker("echo")) as runner:
        response = await runner.job("echo", payload=payload)
    assert response == payload
    assert response is not payload


async def test_a_hook_that_was_cancelled_is_recorded_with_its_cancellation() -> None:
    spy = Spy("spy")
    async with running(spy):
        await spy.send_bus_message(note(0, "spy"))
        await settle()
        await spy.stop()
    assert [type(hook.error) for hook in spy.ran("on_bus_message")] == [get_cancelled_exc_class()]


async def test_a_wait_for_hooks_takes_the_time_that_they_take() -> None:
    """It waits, and does not look again and again."""
    spy = Spy("spy")
    async with running(spy):
        begin = current_time()
        for number in (1, 2, 3):
            await spy.send_bus_message(note(number, "spy"))
        await spy.until("on_bus_message", 3)
        assert current_time() == begin + 15


# --- virtual time


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError()])
def test_whatever_leaves_a_run_says_under_which_seed_it_was(backend: str, error: BaseException) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(fail, backend=backend, seed=7)
    assert any(f"backend={backend!r}, seed=7" in line for line in caught.value.__notes__)


def test_a_deadlock_says_under_which_seed_it_was(backend: str) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(anyio.sleep_forever, backend=backend, seed=7)
    assert any(f"backend={backend!r}, seed=7" in line for line in caught.value.__notes__)


@pytest.mark.parametrize("seed", range(5))
def test_all_that_is_due_when_time_has_advanced_has_happened(backend: str, seed: int) -> None:
    done: list[int] = []

    async def later(number: int) -> None:
        await sleep(1)
        for _ in range(number):
            await checkpoint()
        done.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(later, number)
            await advance(1)
            assert sorted(done) == [0, 1, 2, 3, 4]
            assert current_time() == 1

    run(main, backend=backend, seed=seed)


def test_looks_at_the_clock_take_no_time_where_other_tasks_run_in_between(backend: str) -> None:
    async def look() -> float:
        for _ in range(500):
            for _ in range(30):
                current_time()
            await checkpoint()
        return current_time()

    assert run(look, backend=backend) == 0


def test_a_program_whose_time_is_over_has_time_to_wind_down(backend: str) -> None:
    over: list[float] = []

    async def main() -> None:
        try:
            await sleep(100)
        finally:
            with CancelScope(shield=True):
                await sleep(20)
            over.append(current_time())

    with pytest.raises(TimeLimitError) as caught:
        run(main, backend=backend, limit=10)
    assert len(over) == 1
    assert not any("got stuck again" in line for line in caught.value.__notes__)


def test_a_program_that_is_stuck_in_its_wind_down_is_pushed_again_and_again(backend: str) -> None:
    reached: list[str] = []

    async def main() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            try:
                with CancelScope(shield=True):
                    await anyio.sleep_forever()
            finally:
                reached.append("first")
                try:
                    with CancelScope(shield=True):
                        await anyio.sleep_forever()
                finally:
                    reached.append("second")

    with pytest.raises(DeadlockError):
        run(main, backend=backend)
    assert reached == ["first", "second"]


def test_time_passes_when_a_thread_of_asyncios_has_done_its_work() -> None:
    async def main() -> float:
        assert await asyncio.get_running_loop().run_in_executor(None, sum, (1, 2)) == 3
        await sleep(3600)
        return current_time()

    assert run(main, backend="asyncio") == 3600


def test_a_program_that_wrecks_trios_loop_says_under_which_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out of trio then is an error of its own, caused by that of the clock."""

    def wrecked(*_: object, **__: object) -> None:
        raise trio.TrioInternalError("internal error") from DeadlockError("stuck for good", (), 0.0)

    monkeypatch.setattr("workerbus.testing._run.anyio_run", wrecked)
    with pytest.raises(DeadlockError, match="stuck for good") as caught:
        run(checkpoint, backend="trio", seed=7)
    assert any("backend='trio', seed=7" in line for line in caught.value.__notes__)


def test_a_run_leaves_trios_scheduler_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", False)
    run(checkpoint, backend="trio", seed=7)
    assert not scheduler._ALLOW_DETERMINISTIC_SCHEDULING
