"""B9: what the bus, its subscribers and its workers count."""

import anyio
import pytest

from support.conditions import eventually
from support.lanes import held
from support.messages import Note, note
from support.runners import cut_short
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BusMessage, BusStatistics, MemoryBus, WorkerRunner, WorkerStatistics
from workerbus.testing import settle


async def test_statistics_tell_of_depth_and_deliveries() -> None:
    """B9: per subscriber depth, delivered, failed."""
    async with held("plain", 5) as (bus, log):
        await bus.send(note(1, "it"))
        await bus.send(note(2, "it"))
        before = bus.statistics().subscribers["it"]
        log.release.set()
        await eventually(lambda: len(log.done) == 3)
        after = bus.statistics().subscribers["it"]
    assert (before.depth, before.delivered, before.failed) == (2, 1, 0)
    assert (after.depth, after.delivered, after.failed) == (0, 3, 0)


async def test_statistics_of_a_worker_tell_what_waits_for_its_hook() -> None:
    """B9: per subscriber, workers too."""
    async with held("worker", 5) as (bus, log):
        await bus.send(note(1, "it"))
        await bus.send(note(2, "it"))
        assert bus.statistics().subscribers["it"].depth == 2
        log.release.set()
        await eventually(lambda: len(log.done) == 3)
        assert bus.statistics().subscribers["it"].depth == 0


async def test_statistics_are_a_frozen_snapshot() -> None:
    """B9: it does not change with the bus, and nobody can change it."""
    async with held("plain", 5) as (bus, _):
        before = bus.statistics()
        await bus.send(note(1, "it"))
        assert before.subscribers["it"].depth == 0
        for thing, field in ((before, "sent"), (before.subscribers["it"], "depth")):
            with pytest.raises(AttributeError):
                setattr(thing, field, 7)
    assert isinstance(before, BusStatistics)


async def test_the_statistics_count_what_users_and_what_the_library_sent() -> None:
    """B9."""
    bus = MemoryBus()
    await bus.subscribe(Plain("plain"))
    async with bus:
        for n in range(2):
            await bus.send(note(n))
        for n in range(3):
            bus.post(note(n))
        assert bus.statistics().sent == 5


async def test_each_request_and_each_answer_is_counted_once() -> None:
    """B9: `bus.statistics()`, whatever way they go."""
    async with MemoryBus() as bus, running(Helper("helper"), bus=bus) as runner:
        before = bus.statistics().sent
        for _ in range(3):
            await runner.job("helper", name="echo")
        assert bus.statistics().sent - before == 6


async def test_what_a_subscriber_does_not_accept_was_not_delivered() -> None:
    """B9, N4"""

    class Choosy(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return False

    async with MemoryBus() as bus:
        await bus.subscribe(Choosy("choosy"))
        await bus.send(note(1, "choosy"))
        await settle()
        assert bus.statistics().subscribers["choosy"].delivered == 0


async def test_the_statistics_count_every_message_of_a_run_that_is_cancelled() -> None:
    """B9: an observer has got as many, cancels and announcements included."""
    async with MemoryBus() as bus:
        observer = Plain("observer")
        await bus.subscribe(observer)
        async with cut_short(), running(*(Helper(f"helper{n}") for n in range(3)), bus=bus) as runner:
            await runner.cancel()
            await anyio.sleep_forever()
        await anyio.wait_all_tasks_blocked()
        assert bus.statistics().sent == len(observer.got)


async def test_what_a_plain_subscriber_refuses_is_not_counted_as_delivered() -> None:
    """B9, N4."""

    class Choosing(Plain):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return isinstance(message, Note) and message.n % 3 == 0

    async with MemoryBus() as bus:
        choosing = Choosing("choosing")
        await bus.subscribe(choosing)
        for n in range(7):
            await bus.send(note(n))
        await choosing.until(3)
        statistics = bus.statistics().subscribers["choosing"]
    assert (statistics.depth, statistics.delivered, statistics.failed) == (0, 3, 0)


async def test_a_runner_has_statistics_like_every_subscriber(caplog: pytest.LogCaptureFixture) -> None:
    """B9, B3: what waits for it, what it handled, what its code failed at."""

    class Failing(WorkerRunner):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            if isinstance(message, Note) and message.n:
                raise ValueError("one is none")
            return True

    async with Failing(name="office", handle_sigint=False) as runner:
        await anyio.wait_all_tasks_blocked()
        before = runner.bus.statistics().subscribers["office"]
        for n in range(3):
            await runner.bus.send(note(n))
        assert runner.bus.statistics().subscribers["office"].depth == 3
        await anyio.wait_all_tasks_blocked()
        after = runner.bus.statistics().subscribers["office"]
    assert (before.depth, before.failed) == (after.depth, 0) == (0, 0)
    assert (after.failed, after.delivered - before.delivered) == (2, 1)
    told = [(record.getMessage(), str(record.exc_info[1])) for record in caplog.records if record.exc_info]
    assert told == [("runner 'office' failed to handle Note", "one is none")] * 2


async def test_the_statistics_of_a_worker_count_what_is_open() -> None:
    """J12: jobs that it does, and jobs that it has asked for."""
    helper, asker = Helper("helper"), Helper("asker")
    async with running(helper, asker):
        async with asker.job("helper", name="wait"):
            await helper.begun.wait()
            assert helper.statistics() == WorkerStatistics(active_jobs=1, job_groups=0, ignored=0, failed_hooks=0)
            assert asker.statistics() == WorkerStatistics(active_jobs=0, job_groups=1, ignored=0, failed_hooks=0)
            helper.release.set()
        assert helper.statistics() == WorkerStatistics(active_jobs=0, job_groups=0, ignored=0, failed_hooks=0)
