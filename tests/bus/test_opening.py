"""B4, L5: what is sent before a bus is open, and how a bus opens, says so, and opens again."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from support.buses import Wire
from support.job_handlers import too_slow_to_leave
from support.listeners import Listener
from support.messages import note
from support.subscribers import Plain
from support.wind_downs import Published
from support.workers import Doing, running
from workerbus import CLEANUP_SECONDS, BusMessage, MemoryBus, NotRunningError, WorkerBus, WorkerRunner
from workerbus.testing import settle


@pytest.mark.parametrize("kind", [MemoryBus, Wire])
async def test_what_was_sent_before_the_start_is_delivered_after_it(kind: type[WorkerBus]) -> None:
    """B4: in its order."""
    bus = kind()
    plain = Plain("it")
    await bus.subscribe(plain)
    for n in range(100):
        await bus.send(note(n))
    await anyio.wait_all_tasks_blocked()
    assert not plain.got
    async with bus:
        await plain.until(100)
    assert plain.got == [note(n) for n in range(100)]


async def test_who_subscribed_after_the_sending_does_not_get_it() -> None:
    """B4: what was sent before the start is for those subscribed when it was sent."""
    bus = MemoryBus()
    early, late = Plain("early"), Plain("late")
    await bus.subscribe(early)
    await bus.send(note(0))
    await bus.subscribe(late)
    await bus.send(note(1))
    async with bus:
        await early.until(2)
        await bus.send(note(2))
        await late.until(2)
        await early.until(3)
    assert early.got == [note(0), note(1), note(2)]
    assert late.got == [note(1), note(2)]


async def test_who_left_before_the_start_gets_nothing() -> None:
    """B4, B5: and does not get it when it has come back."""
    bus = MemoryBus()
    plain, other = Plain("it"), Plain("other")
    await bus.subscribe(plain)
    await bus.subscribe(other)
    await bus.send(note(0))
    await bus.unsubscribe(plain)
    await bus.subscribe(plain)
    async with bus:
        await other.until(1)
        await bus.send(note(1))
        await plain.until(1)
    assert plain.got == [note(1)]


async def test_a_bus_can_be_opened_again() -> None:
    """B4, R6: what was sent in between is delivered, the subscribers are still there."""
    plain = Plain("it")
    bus = MemoryBus()
    await bus.subscribe(plain)
    for n in range(3):
        await bus.send(note(2 * n))
        async with bus:
            await bus.send(note(2 * n + 1))
            await plain.until(2 * n + 2)
    assert plain.got == [note(n) for n in range(6)]


async def test_the_bus_calls_its_start_and_stop_hooks_once_around_the_block() -> None:
    """L5: they stay overridable."""
    bus = Published()
    async with bus:
        assert bus.log == ["start"]
    assert bus.log == ["start", "stop"]


async def test_a_bus_that_is_opened_again_goes_on_where_it_was() -> None:
    """B6, R6: who receives everything still does, who receives its own still does, and the counts go on."""
    bus, everything, own = MemoryBus(), Plain("everything"), Plain("own", receives="own")
    await bus.subscribe(everything)
    await bus.subscribe(own)
    for n in range(3):
        async with bus:
            await bus.send(note(n, target="another"))
            await bus.send(note(n, target="own"))
            await everything.until(2 * n + 2)
            await own.until(n + 1)
            counts = bus.statistics().subscribers
            assert (counts["everything"].delivered, counts["own"].delivered) == (2 * n + 2, n + 1)


def test_a_bus_without_a_name_gets_one_of_its_own() -> None:
    """For logs."""
    one, two = MemoryBus(), Wire()
    assert one.name.startswith("MemoryBus-")
    assert two.name.startswith("Wire-")
    assert MemoryBus().name != one.name
    assert MemoryBus(name="bus").name == "bus"


async def test_a_bus_that_is_not_open_says_what_to_do() -> None:
    """R6: its tasks are there while it is open."""
    bus, worked = MemoryBus(name="bus"), anyio.Event()

    async def work() -> None:
        worked.set()

    for _ in range(2):
        with pytest.raises(NotRunningError) as caught:
            _ = bus.tasks
        assert str(caught.value) == "bus 'bus' is not open: use 'async with bus:', or give it to a runner"
        async with bus:
            bus.tasks.start(work, name="work")
            await worked.wait()


async def test_a_bus_that_is_open_says_for_whom() -> None:
    """R6."""
    bus = MemoryBus(name="bus")
    text = "open it once, around everything that uses it"
    async with bus:
        with pytest.raises(NotRunningError) as caught:
            await bus.__aenter__()
        assert str(caught.value) == f"bus 'bus' is open already: {text}"
    async with WorkerRunner(name="runner", bus=bus, handle_sigint=False):
        with pytest.raises(NotRunningError) as caught:
            await bus.__aenter__()
        assert str(caught.value) == f"bus 'bus' is open already by runner 'runner': {text}"


class NotConnecting(MemoryBus):
    """A bus that starts a reader and then finds that it cannot connect."""

    broken = True

    async def start(self) -> None:
        self.tasks.start(anyio.sleep_forever, name="reader")
        await checkpoint()
        if self.broken:
            raise OSError("no connection")


async def test_a_bus_that_could_not_be_opened_is_closed_and_can_be_opened_again() -> None:
    """L1, L6: nothing of it runs, and the error is itself."""
    bus, plain = NotConnecting(), Plain("plain")
    await bus.subscribe(plain)
    with pytest.raises(OSError, match="no connection"):
        await bus.__aenter__()
    assert not bus.is_open
    assert [task.name for task in anyio.get_running_tasks() if task.name == "reader"] == []
    bus.broken = False
    async with bus:
        await bus.send(note(1))
        assert await plain.until(1) == [note(1)]


async def test_a_bus_that_is_opened_again_goes_on_counting() -> None:
    """B9: failures, too."""

    def fail(message: BusMessage) -> None:
        raise ValueError("it went wrong")

    bus = MemoryBus()
    await bus.subscribe(Plain("plain", receives="own", on=fail))
    for _ in range(2):
        async with bus:
            await bus.send(note(1, "plain"))
            await settle()
    counts = bus.statistics().subscribers["plain"]
    assert counts.failed >= 2
    assert counts.failed == counts.delivered


async def test_a_bus_that_cannot_be_opened_takes_its_time_from_what_is_around_it() -> None:
    """L4: its reader takes a second to end, and then the job around it has one left."""
    reading = anyio.Event()

    class NotConnecting(MemoryBus):
        async def start(self) -> None:
            self.tasks.start(self.read, name="reader")
            await reading.wait()
            raise OSError("no connection")

        async def read(self) -> None:
            reading.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)

    async with running(Doing("slow", too_slow_to_leave)) as runner:
        begun = anyio.current_time()
        with pytest.raises(OSError, match="no connection"):
            async with runner.job("slow", name="do"):
                await NotConnecting().__aenter__()
        assert anyio.current_time() - begun == pytest.approx(CLEANUP_SECONDS)


async def test_a_worker_that_waits_for_its_runner_keeps_what_was_sent_to_it_over_the_end_of_a_bus() -> None:
    """B4, R6: the program may open its bus several times before the worker runs."""
    got: list[BusMessage] = []
    handled = anyio.Event()

    async def keep(message: BusMessage) -> None:
        got.append(message)
        handled.set()

    bus = MemoryBus()
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(Listener("listener", keep))
    async with bus:
        await bus.send(note(1, target="listener"))
    async with runner:
        await handled.wait()
    assert got == [note(1, target="listener")]
