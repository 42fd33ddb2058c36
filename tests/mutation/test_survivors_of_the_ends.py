"""Begins and ends of buses, runners, jobs and tasks, where changing the code had turned no test red."""

import asyncio
from typing import Any

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from support import clock
from support.buses import Wire
from support.job_handlers import slow_to_leave
from support.messages import Note, note
from support.requesters import Raw
from support.subscribers import Plain
from support.workers import Doing, Helper, running
from workerbus import (
    CLEANUP_SECONDS,
    BaseWorker,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusMessage,
    JobStatus,
    MemoryBus,
    ReservedNameError,
    WorkerReadyData,
    WorkerRunner,
    testing,
    worker_ready,
)
from workerbus._room import Room
from workerbus.bus._lanes import Lane
from workerbus.jobs._pool import IDLE_TASKS

# --- a bus


class Stuck(MemoryBus):
    """A bus on which publishing a note waits to be let go on."""

    publishes_at_once = False

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[BusMessage] = []
        self.entered, self.go_on = anyio.Event(), anyio.Event()
        self.refuses = False

    async def publish(self, message: BusMessage) -> None:
        self.begun.append(message)
        self.entered.set()
        with anyio.CancelScope(shield=self.refuses):
            await self.go_on.wait()
        await super().publish(message)


async def test_what_was_sent_before_the_bus_was_open_goes_out_before_it_is_closed() -> None:
    """B4: nothing else gives it the time."""
    bus = Wire()
    for n in range(5):
        await bus.send(note(n))
    async with bus:
        pass
    assert bus.published == [note(n) for n in range(5)]


@pytest.mark.parametrize("early", [True, False])
async def test_a_bus_that_closes_begins_to_publish_nothing_more(early: bool) -> None:
    """L4: what refuses cancellation past the deadline is waited for, and is the last."""
    bus = Stuck()
    bus.refuses = True
    if early:
        for n in range(3):
            await bus.send(note(n))

    async def let_go_late() -> None:
        await anyio.sleep(CLEANUP_SECONDS + 1)
        bus.go_on.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(let_go_late)
        async with bus:
            if not early:
                for n in range(3):
                    bus.post(note(n))
            await bus.entered.wait()
    assert bus.begun == [note(0)]


async def test_who_waits_behind_what_the_library_sends_goes_on_when_the_bus_is_closed() -> None:
    """B9, L4: though that never went out."""
    bus, sent = Stuck(), anyio.Event()

    async def send() -> None:
        await bus.send(note(2))
        sent.set()

    async with anyio.create_task_group() as tasks:
        async with bus:
            bus.post(note(0))
            bus.post(note(1))
            await bus.entered.wait()
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            assert not sent.is_set()
        bus.go_on.set()
        await sent.wait()


async def test_a_transport_that_looks_at_what_it_delivers_sees_all_of_it() -> None:
    """B8, B9: a bus in one process that overrides `deliver`, too."""

    class Looking(MemoryBus):
        seen = 0

        async def deliver(self, message: BusMessage) -> None:
            self.seen += isinstance(message, Note)
            await super().deliver(message)

    bus, plain = Looking(), Plain("plain")
    await bus.subscribe(plain)
    async with bus:
        for n in range(3):
            await bus.send(note(n))
        assert await plain.until(3) == [note(n) for n in range(3)]
    assert bus.seen == 3


@pytest.mark.parametrize("body_fails", [False, True])
async def test_what_a_task_of_a_bus_raises_at_its_end_comes_out_as_itself(body_fails: bool) -> None:
    """L6: one cause, one exception."""

    async def reader() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("the connection was not closed")

    async def use() -> None:
        async with MemoryBus() as bus:
            bus.tasks.start(reader, name="reader")
            await checkpoint()
            if body_fails:
                raise KeyError("body")

    with pytest.raises(OSError, match="was not closed"):
        await use()


async def ignore(_: object) -> None:
    """Handle nothing."""


def test_a_closed_lane_holds_counts_and_takes_nothing() -> None:
    """B5, B9: so that nobody waits for room in it, here or in a lane before it."""
    room = Room[int](1)
    lane = Lane[int]("lane", ignore, room=room)
    lane.put_counted(1)
    assert (room.taken, lane.waiting, lane.full) == (1, 1, True)
    assert lane.close() == [1]
    lane.put(2)
    lane.put_counted(3)
    assert (room.taken, lane.waiting, lane.full, lane.ready) == (0, 0, False, None)


async def test_a_lane_that_is_closed_is_ready_for_nothing() -> None:
    """B5: a bus that appends to it, because it was ready, would fill what nobody empties."""
    lane = Lane[int]("lane", ignore)
    async with MemoryBus() as bus:
        lane.open(bus.tasks)
        lane.put(1)
        lane.put(2)
        assert lane.ready is not None
        lane.close()
        assert lane.ready is None


def test_one_message_at_a_time_is_handled_behind_a_handler_that_was_cancelled_natively(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B2: another task goes on where that one was, and no second one beside it."""
    running_now: list[int] = []

    async def example() -> None:
        lane, go_on, begun = Lane[int]("lane", lambda n: handle(n)), anyio.Event(), anyio.Event()

        async def handle(n: int) -> None:
            task = asyncio.current_task()
            if n == 1 and task is not None:
                task.cancel()
                await checkpoint()
            running_now.append(n)
            assert running_now == [n]
            begun.set()
            await go_on.wait()
            running_now.remove(n)

        async with MemoryBus() as bus:
            lane.open(bus.tasks)
            lane.put(1)
            lane.put(2)
            await begun.wait()
            lane.put(3)
            await anyio.wait_all_tasks_blocked()
            assert running_now == [2]
            go_on.set()
            await lane.quiet()
        assert lane.begun == 3

    clock.run(example, backend="asyncio")
    assert caplog.messages == []


# --- a runner


class Lagging(MemoryBus):
    """A bus on which nothing that this side sends arrives before `go_on`, once it lags."""

    publishes_at_once = False

    def __init__(self) -> None:
        super().__init__()
        self.lags, self.go_on = False, anyio.Event()

    async def publish(self, message: BusMessage) -> None:
        if self.lags:
            await self.go_on.wait()
        await super().publish(message)


async def test_an_answer_that_is_on_its_way_when_the_last_worker_leaves_still_counts() -> None:
    """J4, R7: the end of the runner waits for the announcement behind it."""
    bus, outcomes = Lagging(), list[Any]()
    runner = WorkerRunner(bus=bus, handle_sigint=False)

    async def answer(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        bus.lags = True
        return {"by": worker.name}

    doing = Doing("doing", answer)
    await runner.add_workers(doing)

    async def ask() -> None:
        await runner.registry.wait_for("doing")
        async with runner.job_group("doing", name="do", cancel_on_error=False) as group:
            pass
        outcomes.append((group.statuses, group.responses))

    async def stop() -> None:
        while not bus.lags:
            await checkpoint()
        await doing.stop()
        await anyio.wait_all_tasks_blocked()
        bus.go_on.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await runner.registry.wait_for("doing")
        tasks.start_soon(ask)
        tasks.start_soon(stop)
    assert outcomes == [({"doing": JobStatus.COMPLETED}, {"doing": {"by": "doing"}})]


@pytest.mark.parametrize("seed", range(8))
def test_an_event_handler_that_unwinds_in_a_step_or_two_is_not_said_to_refuse(
    backend: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """L4: though there is no time left, and whoever runs first."""
    unwound: list[bool] = []

    async def example() -> None:
        runner, told = WorkerRunner(handle_sigint=False), anyio.Event()

        async def hang(*_: object) -> None:
            told.set()
            try:
                await anyio.sleep_forever()
            finally:
                await cancel_shielded_checkpoint()
                unwound.append(True)

        runner.add_event_handler("on_error", hang)
        helper = Helper("helper")
        async with runner:
            await runner.add_workers(helper)
            await runner.registry.wait_for("helper")
            await helper.send_bus_error_message("oh")
            await told.wait()

    testing.run(example, backend=backend, seed=seed)
    assert unwound == [True]
    assert caplog.messages == []


async def test_a_worker_that_is_not_curious_is_told_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """B7: or starting N workers would cost N times N."""
    told: list[str] = []
    monkeypatch.setattr(BaseWorker, "tell_ready", lambda self, data: told.append(self.name))
    curious = Helper("curious")
    curious.add_event_handler("on_worker_ready", lambda *_: None)
    async with running(*(Helper(f"worker {n}") for n in range(5)), curious):
        pass
    assert set(told) == {"curious"}


# --- a job and its tasks


@pytest.mark.parametrize("there", [(), ("one",), ("two",)])
async def test_a_group_waits_for_each_worker_that_has_not_come(there: tuple[str, ...]) -> None:
    """J6: nobody is asked before all are there."""
    workers = {name: Helper(name) for name in ("one", "two")}
    async with running(*(workers[name] for name in there)) as runner, anyio.create_task_group() as tasks:

        async def ask() -> None:
            async with runner.job_group("one", "two", name="echo", payload={"n": 1}) as group:
                pass
            assert group.responses == {name: {"worker": name, "payload": {"n": 1}} for name in workers}

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        for name in workers.keys() - set(there):
            assert [worker.calls for worker in workers.values()] == [[], []]
            await runner.add_workers(workers[name])


async def test_a_worker_keeps_64_tasks_for_its_next_jobs() -> None:
    """W8: what was busy beside them ends."""
    helper = Helper("helper")

    def tasks() -> int:
        return sum(task.name == "helper job" for task in anyio.get_running_tasks())

    async with running(helper) as runner:
        raw = await Raw.on(runner.bus)
        count = IDLE_TASKS + 5
        for n in range(count):
            await raw.ask(str(n), "helper", "wait")
        await anyio.wait_all_tasks_blocked()
        assert tasks() == count
        helper.release.set()
        await raw.until(count, BusJobResponseMessage)
        await anyio.wait_all_tasks_blocked()
        assert tasks() == IDLE_TASKS


async def test_a_worker_is_told_of_the_end_of_a_scope_that_was_left_long_ago() -> None:
    """J6: its deadline went with the request, whoever waits for the answer."""
    asker = Helper("asker")
    async with running(Doing("slow", slow_to_leave), asker) as runner:
        raw = await Raw.on(runner.bus)
        with anyio.move_on_after(3):
            job_id = await asker.request_job("slow", name="do")
        [message] = await raw.until(1, BusJobCancelMessage)
        assert isinstance(message, BusJobCancelMessage)
        assert (message.job_id, message.reason, anyio.current_time()) == (job_id, "timeout", 3)


async def test_nobody_watches_the_deadline_of_a_job_that_is_over() -> None:
    """L1: a task for each of many jobs with an hour would be there for that hour."""

    class Told(Helper):
        async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
            pass

    async with running(Told("told")) as runner:
        before = {task.id for task in anyio.get_running_tasks()}
        for _ in range(3):
            await runner.job("told", name="echo", timeout=3600)
        await testing.settle()
        names = {task.name for task in anyio.get_running_tasks() if task.id not in before}
        assert names == {"told job"}


async def test_a_handler_that_puts_its_cancellation_into_a_group_is_cancelled_all_the_same() -> None:
    """J5: it is answered when it has unwound, and not when its worker ends."""

    async def wraps(worker: Doing, message: BusJobRequestMessage) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as exc:
            raise BaseExceptionGroup("several", [exc]) from None

    async with running(Doing("wraps", wraps)) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "wraps", "do")
        await anyio.wait_all_tasks_blocked()
        await raw.cancel("job", "wraps", "enough")
        assert (await raw.answer("job"))[0] == JobStatus.CANCELLED


async def test_what_arrives_from_a_network_takes_room_though_nobody_waits_for_it() -> None:
    """B9: whoever sends behind it waits."""
    bus, go_on = MemoryBus(max_buffer_size=2), anyio.Event()
    plain, sent = Plain("plain", on=lambda _: go_on.wait()), anyio.Event()
    await bus.subscribe(plain)

    async def send() -> None:
        await bus.send(note(4))
        sent.set()

    async with bus, anyio.create_task_group() as tasks:
        for n in range(4):
            bus.on_message_received(note(n))
            await anyio.wait_all_tasks_blocked()
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert not sent.is_set()
        go_on.set()
        await plain.until(5)


def test_a_watch_takes_no_name_of_the_librarys() -> None:
    """N1: as no job handler does."""
    with pytest.raises(ReservedNameError, match="Starts has an attribute 'start'"):

        class Starts(BaseWorker):
            @worker_ready(name="other")
            async def start(self, data: WorkerReadyData) -> None:  # type: ignore[override]  # on purpose
                pass


async def test_others_run_while_many_are_asked_in_contexts() -> None:
    """B2: each 64th request lets them, though nothing has to be waited for."""
    names = [f"helper {n}" for n in range(64)]
    ran: list[bool] = []

    async def other() -> None:
        ran.append(True)

    async with running(*map(Helper, names)) as runner, anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(other)
        async with (
            runner.job_group(*names, name="echo"),
            runner.job_group(*names, name="echo"),
            runner.job_group(*names, name="echo"),
        ):
            assert ran
