"""R6, G4: several runners on one bus that the program opened around them, and runners that find a bus in use."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import CancelScope, current_time, sleep, sleep_forever

from support.leaks import left_in, nothing_left, task_ids
from support.subscribers import Plain
from support.workers import Helper
from workerbus import (
    BaseWorker,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDataMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    JobError,
    JobStatus,
    MemoryBus,
    WorkerBus,
    WorkerErrorData,
    WorkerReadyData,
    WorkerRegistryEntry,
    WorkerRunner,
    bus_message,
    job,
    worker_ready,
)
from workerbus._neighbours import REMEMBERED


@bus_message
class Note(BusDataMessage):
    text: str = ""


class Member(Helper):
    """Keeps the final message that it got."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.finals: list[tuple[type[BusMessage], str | None]] = []

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, BusEndWorkerMessage | BusCancelWorkerMessage):
            self.finals.append((type(message), message.reason))


def quiet_runner(bus: WorkerBus, name: str, **kwargs: Any) -> WorkerRunner:
    return WorkerRunner(bus=bus, name=name, handle_sigint=False, **kwargs)


class Pair:
    """Two runners on one bus, each with a worker of its own, each run in a task of its own."""

    def __init__(self, bus: WorkerBus, **kwargs: Any) -> None:
        self.bus = bus
        self.a, self.b = (quiet_runner(bus, name, **kwargs) for name in ("A", "B"))
        self.on_a, self.on_b = Member("on a"), Member("on b")
        self.a_over, self.b_over = anyio.Event(), anyio.Event()

    async def run_a(self) -> None:
        await self.a.run(auto_end=False)
        self.a_over.set()

    async def run_b(self) -> None:
        await self.b.run(auto_end=False)
        self.b_over.set()

    async def acquainted(self) -> None:
        """Wait until each runner knows the worker of the other."""
        await self.a.registry.wait_for("on b")
        await self.b.registry.wait_for("on a")


@asynccontextmanager
async def pair(**kwargs: Any) -> AsyncIterator[Pair]:
    """Run the two until the block is left; what still runs then is cancelled."""
    before = task_ids()
    async with MemoryBus() as bus:
        both = Pair(bus, **kwargs)
        async with anyio.create_task_group() as group:
            await both.a.add_workers(both.on_a)
            await both.b.add_workers(both.on_b)
            group.start_soon(both.run_a)
            group.start_soon(both.run_b)
            await both.acquainted()
            yield both
            await both.a.cancel()
            await both.b.cancel()
        assert bus.statistics().subscribers == {}
        assert bus.is_open
    assert task_ids() == before


# --- a bus of one's own


async def test_a_runner_opens_the_bus_that_it_was_given_for_its_own_run() -> None:
    """R6."""
    bus = MemoryBus()
    runner = quiet_runner(bus, "A")
    assert not bus.is_open
    async with runner:
        assert bus.is_open
    assert not bus.is_open


async def test_a_bus_can_be_used_by_one_runner_after_another() -> None:
    """R6: each opens it for itself."""
    bus = MemoryBus()
    for name in ("A", "B"):
        async with quiet_runner(bus, name) as runner:
            await runner.add_workers(Helper("helper"))
            assert await runner.job("helper", name="echo")
    assert not bus.is_open


async def test_a_second_runner_on_a_bus_that_a_runner_opened_for_itself_is_refused() -> None:
    """R6: the error names it and says what to do; the first runner goes on."""
    bus = MemoryBus()
    async with quiet_runner(bus, "first") as first:
        await first.add_workers(Helper("helper"))
        with pytest.raises(RuntimeError, match=r"first.*async with"):
            await quiet_runner(bus, "second").run()
        with pytest.raises(RuntimeError, match=r"first.*async with"):
            async with quiet_runner(bus, "third"):
                pytest.fail("it ran")
        assert await first.job("helper", name="echo")


async def test_a_refused_runner_leaves_nothing_on_the_bus() -> None:
    """R6, L1: the workers that it was to run are off the bus, and their names free."""
    bus = MemoryBus()
    async with quiet_runner(bus, "first") as first:
        second = quiet_runner(bus, "second")
        await second.add_workers(Helper("helper"))
        with pytest.raises(RuntimeError):
            await second.run()
        assert set(bus.statistics().subscribers) == {"first"}
        await first.add_workers(Helper("helper"))


class SlowToStart(MemoryBus):
    """A bus as a transport may be: connecting takes a moment."""

    async def start(self) -> None:
        await sleep(0.05)


@pytest.mark.parametrize("kind", [MemoryBus, SlowToStart])
async def test_of_two_runners_that_start_at_once_on_a_closed_bus_one_is_refused(kind: type[MemoryBus]) -> None:
    """R6: whichever opens it has it for itself."""
    refused: list[RuntimeError] = []
    bus = kind()

    async def run(runner: WorkerRunner) -> None:
        try:
            async with runner:
                await runner.add_workers(Helper(f"worker of {runner.name}"))
                assert await runner.job(f"worker of {runner.name}", name="echo")
                await anyio.wait_all_tasks_blocked()
        except RuntimeError as exc:
            refused.append(exc)

    async with anyio.create_task_group() as group:
        for name in ("A", "B"):
            group.start_soon(run, quiet_runner(bus, name))
    assert len(refused) == 1
    assert not bus.is_open
    assert bus.statistics().subscribers == {}


async def test_the_program_cannot_open_a_bus_that_a_runner_has_opened() -> None:
    """R6."""
    bus = MemoryBus()
    async with quiet_runner(bus, "first") as first:
        await first.add_workers(Helper("helper"))
        with pytest.raises(RuntimeError, match="first"):
            async with bus:
                pytest.fail("it was opened twice")
        assert await first.job("helper", name="echo")


async def test_runners_on_one_bus_have_names_of_their_own() -> None:
    """R6, B5: a second one of the same name is a `ValueError`, leaves nothing, and does not disturb the first."""
    async with MemoryBus() as bus, quiet_runner(bus, "same") as first:
        await first.add_workers(Helper("helper"))
        second = quiet_runner(bus, "same")
        await second.add_workers(Helper("other"))
        with pytest.raises(ValueError, match="same"):
            await second.run()
        assert await first.job("helper", name="echo")
        assert set(bus.statistics().subscribers) == {"same", "helper"}


# --- a bus for several


async def test_runners_come_and_go_on_the_programs_bus() -> None:
    """R6: it stays open, and nothing of a runner stays on it."""
    async with MemoryBus() as bus:
        for n in range(3):
            runner = quiet_runner(bus, f"runner {n}")
            async with nothing_left(runner), runner:
                await runner.add_workers(Helper("helper"))
                assert await runner.job("helper", name="echo")
            assert bus.is_open


async def test_each_runner_sees_the_others_workers_as_remote() -> None:
    """R6: those that were there before it, those that come later, and children."""
    async with pair() as both:
        child = Helper("child")
        await both.on_a.add_workers(child)
        await both.b.registry.wait_for("child")
        assert set(both.a.registry.local_workers) == {"on a", "child"}
        assert both.a.registry.remote_workers == ["on b"]
        assert both.b.registry.local_workers == ["on b"]
        assert set(both.b.registry.remote_workers) == {"on a", "child"}
        assert both.b.registry.get("child") == WorkerReadyData("child", "A")
        assert both.b.get_worker("on a") is None


async def test_a_runner_that_comes_later_learns_of_the_workers_before_it() -> None:
    """R6: and they of its own."""
    async with pair() as both, quiet_runner(both.bus, "C") as c:
        await c.add_workers(Helper("on c"))
        for runner in (both.a, both.b):
            await runner.registry.wait_for("on c")
        await c.registry.wait_for("on a")
        await c.registry.wait_for("on b")
        assert set(c.registry.remote_workers) == {"on a", "on b"}


async def test_a_watch_for_a_remote_worker_fires() -> None:
    """R6, G1: whichever of the two was first."""
    seen: list[WorkerReadyData] = []

    class Watching(Helper):
        @worker_ready(name="on b")
        async def b_is_there(self, data: WorkerReadyData) -> None:
            seen.append(data)
            if len(seen) == 2:
                self.release.set()

    async with MemoryBus() as bus:
        early, late = Watching("early"), Watching("late")
        async with quiet_runner(bus, "A") as a, quiet_runner(bus, "B") as b:
            await a.add_workers(early)
            await a.registry.wait_for("early")
            await b.add_workers(Helper("on b"))
            await a.registry.wait_for("on b")
            await a.add_workers(late)
            await late.release.wait() if len(seen) < 2 else None
    assert seen == [WorkerReadyData("on b", "B")] * 2


async def test_jobs_go_across() -> None:
    """R6: both ways, from workers and from runners, and at once."""
    async with pair() as both:
        for asking, asked in ((both.on_a, "on b"), (both.on_b, "on a"), (both.a, "on b"), (both.b, "on a")):
            assert (await asking.job(asked, name="echo", payload={"n": 1}))["worker"] == asked
        async with both.a.job_group("on a", "on b", name="echo") as group:
            pass
        assert set(group.responses) == {"on a", "on b"}


async def test_a_job_that_waits_for_a_worker_finds_it_at_another_runner() -> None:
    """R6, J1."""
    async with pair() as both:
        answers: list[dict[str, Any]] = []

        async def ask() -> None:
            answers.append(await both.on_a.job("late", name="echo"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            await both.b.add_workers(Helper("late"))
        assert [answer["worker"] for answer in answers] == ["late"]


async def test_a_job_inside_a_job_comes_back_to_the_first_runner() -> None:
    """R6, W8."""

    class There(Helper):
        @job(name="there and back")
        async def back(self, message: BusJobRequestMessage) -> dict[str, Any]:
            return await self.job("on a", name="echo", payload={"from": self.name})

    async with pair() as both:
        await both.b.add_workers(There("there"))
        answer = await both.on_a.job("there", name="there and back")
        assert answer == {"worker": "on a", "payload": {"from": "there"}}


async def test_a_worker_activates_one_of_another_runner() -> None:
    """R6, W3."""
    activated = anyio.Event()

    class Idle(Helper):
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            activated.set()

    async with pair() as both:
        idle = Idle("idle", active=False)
        await both.b.add_workers(idle)
        await both.a.registry.wait_for("idle")
        await both.on_a.activate_worker("idle", deactivate_self=True)
        await activated.wait()
        assert idle.active
        assert not both.on_a.active


async def test_broadcasts_reach_the_workers_of_every_runner() -> None:
    """R6, B6."""
    got: list[str] = []

    class Listening(Member):
        async def on_bus_message(self, message: BusMessage) -> None:
            if isinstance(message, Note):
                got.append(f"{self.name} {message.text}")

    async with pair() as both:
        await both.a.add_workers(Listening("one"))
        await both.b.add_workers(Listening("two"))
        await both.a.registry.wait_for("two")
        await both.a.registry.wait_for("one")
        await both.on_a.send_bus_message(Note("hello", source="on a"))
        await anyio.wait_all_tasks_blocked()
    assert sorted(got) == ["one hello", "two hello"]


async def test_a_plain_subscriber_outlives_the_runners() -> None:
    """R6: its tasks run in what opened the bus."""
    plain = Plain("plain")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        async with quiet_runner(bus, "A") as a:
            await a.bus.send(Note("during", source="test"))
            await plain.until(1, Note)
        await bus.send(Note("after", source="test"))
        await plain.until(2, Note)
        await bus.unsubscribe(plain)


async def test_a_runner_hosts_the_tasks_of_its_own_workers() -> None:
    """R6, L1: the tasks of A descend from the task that runs A, those of B from the other."""
    async with pair() as both:
        mine: dict[str, int] = {}

        class Busy(Helper):
            @job(name="where")
            async def where(self, message: BusJobRequestMessage) -> None:
                mine[self.name] = anyio.get_current_task().id
                await sleep_forever()

            async def on_bus_message(self, message: BusMessage) -> None:
                if isinstance(message, Note):
                    mine[f"hook of {self.name}"] = anyio.get_current_task().id
                    await sleep_forever()

        await both.a.add_workers(Busy("busy a"))
        await both.b.add_workers(Busy("busy b"))
        for name, other in (("busy a", both.b), ("busy b", both.a)):
            await other.registry.wait_for(name)
            await both.bus.send(BusJobRequestMessage(name, "where", source=other.name, target=name))
            await both.bus.send(Note("where", source=other.name, target=name))
        await anyio.wait_all_tasks_blocked()
        assert len(mine) == 4
        await both.a.cancel()
        await both.a_over.wait()
        left = task_ids()
        assert {name for name, task in mine.items() if task in left} == {"busy b", "hook of busy b"}


# --- who departs


async def end_a(both: Pair) -> None:
    await both.a.end()


async def cancel_a(both: Pair) -> None:
    await both.a.cancel()


async def stop_the_worker(both: Pair) -> None:
    await both.on_a.stop()


@pytest.mark.parametrize("leave", [end_a, cancel_a, stop_the_worker])
async def test_the_departure_of_a_worker_is_seen_by_the_other_runner(leave: Callable[[Pair], Awaitable[None]]) -> None:
    """R6, G2: it is unregistered there, its watchers are told, and its name is free."""
    gone: list[str] = []
    told = anyio.Event()

    async def departed(data: WorkerReadyData) -> None:
        gone.append(data.worker_name)
        told.set()

    async with pair() as both:
        await both.b.registry.watch_departure("on a", departed)
        await leave(both)
        await told.wait()
        assert gone == ["on a"]
        assert both.b.registry.remote_workers == []
        await both.b.add_workers(Helper("on a"))
        assert await both.b.job("on a", name="echo")
        both.b.registry.unwatch("on a", departed)


@pytest.mark.parametrize("leave", [end_a, cancel_a, stop_the_worker])
async def test_jobs_at_a_departing_worker_are_answered_at_once(leave: Callable[[Pair], Awaitable[None]]) -> None:
    """R6, J4: across runners, with and without a timeout."""
    failed: list[JobError] = []

    async def ask(timeout: float | None) -> None:
        try:
            await both.on_b.job("on a", name="wait", timeout=timeout)
        except JobError as exc:
            failed.append(exc)

    async with pair() as both:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, None)
            group.start_soon(ask, 1000.0)
            await both.on_a.begun.wait()
            await anyio.wait_all_tasks_blocked()
            begun = current_time()
            await leave(both)
        assert current_time() - begun < 1.0
    assert [exc.statuses for exc in failed] == [{"on a": JobStatus.CANCELLED}] * 2


async def test_jobs_of_a_departing_runner_are_cancelled_at_the_other() -> None:
    """R6, W6: nobody works for one that has gone."""
    async with pair() as both:
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                with pytest.raises(JobError):
                    await both.a.job("on b", name="wait")

            group.start_soon(ask)
            await both.on_b.begun.wait()
            await both.a.cancel()
            await both.on_b.unwound.wait()
        assert both.on_b.active_jobs == {}


async def test_a_runner_that_is_cancelled_from_outside_is_seen_to_leave() -> None:
    """R6, L3: the other one goes on."""
    async with MemoryBus() as bus, quiet_runner(bus, "B") as b:
        await b.add_workers(Helper("on b"))
        with CancelScope() as scope:
            async with quiet_runner(bus, "A") as a:
                await a.add_workers(Helper("on a"))
                await b.registry.wait_for("on a")
                scope.cancel()
                await sleep_forever()
        while b.registry.get("on a") is not None:
            await anyio.lowlevel.checkpoint()
        assert await b.job("on b", name="echo")


async def test_a_crash_under_one_runner_concerns_the_other_no_more_than_a_departure() -> None:
    """R6, R4."""

    class Crashing(Helper):
        @job(name="crash")
        async def crash(self, message: BusJobRequestMessage) -> None:
            self.release.set()
            await sleep_forever()

        async def run(self, params: Any) -> None:
            await self.start()
            await self.release.wait()
            raise ValueError("crash")

    async with MemoryBus() as bus, quiet_runner(bus, "B") as b:
        await b.add_workers(Helper("on b"))
        with pytest.raises(ValueError, match="crash"):  # noqa: PT012 - the block itself raises
            async with quiet_runner(bus, "A") as a:
                await a.add_workers(Crashing("crashing"))
                with pytest.raises(JobError) as caught:
                    await b.job("crashing", name="crash")
                assert caught.value.statuses == {"crashing": JobStatus.ERROR}
        assert await b.job("on b", name="echo")


# --- names


async def test_a_worker_name_is_unique_on_the_bus() -> None:
    """R6, R3: for roots and for children."""
    async with pair() as both:
        with pytest.raises(ValueError, match="on a"):
            await both.b.add_workers(Helper("on a"))
        with pytest.raises(ValueError, match="on a"):
            await both.on_b.add_workers(Helper("on a"))
        with pytest.raises(ValueError, match="A"):
            await both.b.add_workers(Helper("A"))
        assert await both.b.job("on a", name="echo")


async def test_a_worker_name_is_unique_on_the_bus_before_the_runs() -> None:
    """R6, W1: a worker is subscribed when it has been added."""
    async with MemoryBus() as bus:
        a, b = quiet_runner(bus, "A"), quiet_runner(bus, "B")
        helper = Helper("name")
        await a.add_workers(helper)
        with pytest.raises(ValueError, match="name"):
            await b.add_workers(Helper("name"))
        await helper.stop()
        await b.add_workers(Helper("name"))
        async with b:
            assert await b.job("name", name="echo")


# --- who is concerned


async def worker_end(both: Pair) -> None:
    await both.on_a.end(reason="why")


async def worker_cancel(both: Pair) -> None:
    await both.on_a.cancel(reason="why")


async def runner_end(both: Pair) -> None:
    await both.a.end("why")


async def runner_cancel(both: Pair) -> None:
    await both.a.cancel("why")


async def targeted_end(both: Pair) -> None:
    await both.bus.send(BusEndMessage("why", source="on b", target="A"))


async def targeted_cancel(both: Pair) -> None:
    await both.bus.send(BusCancelMessage("why", source="on b", target="A"))


@pytest.mark.parametrize("ask", [worker_end, worker_cancel, runner_end, runner_cancel, targeted_end, targeted_cancel])
async def test_an_end_or_cancel_concerns_one_runner_only(ask: Callable[[Pair], Awaitable[None]]) -> None:
    """R6: a worker's, a runner's own, and a message with a target."""
    async with pair() as both:
        await ask(both)
        await both.a_over.wait()
        await anyio.wait_all_tasks_blocked()
        assert not both.b_over.is_set()
        assert await both.b.job("on b", name="echo")
        kind = BusEndWorkerMessage if "end" in ask.__name__ else BusCancelWorkerMessage
        assert both.on_a.finals == [(kind, "why")]
        assert both.on_b.finals == []


@pytest.mark.parametrize("kind", [BusEndMessage, BusCancelMessage])
async def test_an_end_or_cancel_without_a_target_concerns_every_runner(
    kind: type[BusEndMessage] | type[BusCancelMessage],
) -> None:
    """R6: whoever sends it; the reason reaches the workers of all."""
    async with pair() as both:
        await both.bus.send(kind("why", source="nobody in particular"))
        await both.a_over.wait()
        await both.b_over.wait()
        final = BusEndWorkerMessage if kind is BusEndMessage else BusCancelWorkerMessage
        assert both.on_a.finals == both.on_b.finals == [(final, "why")]


async def test_a_worker_adds_children_to_its_own_runner() -> None:
    """R6."""
    async with pair() as both:
        child = Helper("child")
        await both.on_b.add_workers(child)
        await both.b.registry.wait_for("child")
        assert child.worker_runner is both.b
        assert both.b.get_worker("child") is child
        assert both.a.get_worker("child") is None
        assert "child" not in both.a.registry.local_workers


async def test_a_runner_that_ends_does_not_wait_for_the_other() -> None:
    """R6, R1."""
    async with pair() as both:
        await both.a.end()
        await both.a_over.wait()
        assert left_in(both.a.registry).keys() <= {"_remote", "_names"}
        assert not both.b_over.is_set()


# --- G4: two buses that belong together


class Linked(WorkerBus):
    """One of several buses with a network between them that loses nothing and takes no time."""

    def __init__(self, network: list["Linked"]) -> None:
        super().__init__()
        self.network = network
        network.append(self)

    async def publish(self, message: BusMessage) -> None:
        for bus in self.network:
            await bus.deliver(message)


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[WorkerRunner, WorkerRunner, dict[str, list[WorkerErrorData]]]]:
    """Two runners, each on its own bus, and the errors that each was told of."""
    network: list[Linked] = []
    errors: dict[str, list[WorkerErrorData]] = {"A": [], "B": []}
    a, b = quiet_runner(Linked(network), "A"), quiet_runner(Linked(network), "B")
    a.add_event_handler("on_error", lambda _, data: errors["A"].append(data))
    b.add_event_handler("on_error", lambda _, data: errors["B"].append(data))
    async with a, b:
        yield a, b, errors


async def test_jobs_go_across_a_network() -> None:
    """R6, B8: what only this file's network connects."""
    async with linked() as (a, b, errors):
        await b.add_workers(Helper("on b"))
        assert (await a.job("on b", name="echo"))["worker"] == "on b"
        await b.end()
        while a.registry.get("on b") is not None:
            await anyio.lowlevel.checkpoint()
    assert errors == {"A": [], "B": []}


async def test_a_name_that_two_runners_claim_is_reported_at_both_and_the_local_one_is_preferred() -> None:
    """G4."""
    async with linked() as (a, b, errors):
        for runner in (a, b):
            await runner.add_workers(Helper("name"))
        while not (errors["A"] and errors["B"]):
            await anyio.lowlevel.checkpoint()
        for runner in (a, b):
            assert runner.registry.get("name") == WorkerReadyData("name", runner.name)
    assert {data.worker_name for told in errors.values() for data in told} == {"name"}
    assert all("B" in data.error for data in errors["A"])
    assert all("A" in data.error for data in errors["B"])


async def test_a_name_that_was_claimed_before_a_runner_came_is_reported_at_both() -> None:
    """G4: found out from the snapshots that runners send each other."""
    network: list[Linked] = []
    told: dict[str, anyio.Event] = {"A": anyio.Event(), "B": anyio.Event()}
    runners = [quiet_runner(Linked(network), name) for name in told]
    for runner in runners:
        runner.add_event_handler("on_error", lambda who, _: told[who.name].set())
        await runner.add_workers(Helper("name"))
    async with runners[0] as first:
        await first.registry.wait_for("name")
        async with runners[1]:
            for event in told.values():
                await event.wait()


async def test_when_one_of_two_claims_is_given_up_the_other_counts() -> None:
    """G4, G2."""
    async with linked() as (a, b, errors):
        for runner in (a, b):
            await runner.add_workers(Helper("name"))
        while not (errors["A"] and errors["B"]):
            await anyio.lowlevel.checkpoint()
        mine = a.get_worker("name")
        assert isinstance(mine, BaseWorker)
        await mine.stop()
        assert a.registry.get("name") == WorkerReadyData("name", "B")
        while "name" in b.registry.remote_workers:
            await anyio.lowlevel.checkpoint()
        assert b.registry.get("name") == WorkerReadyData("name", "B")


# --- announcements that a network brings out of order


def ready(at: float) -> BusMessage:
    return BusWorkerReadyMessage("elsewhere", started_at=at, source="remote")


def gone(at: float) -> BusMessage:
    return BusWorkerGoneMessage("elsewhere", at, source="remote")


def snapshot(at: float, *names: str) -> BusMessage:
    return BusWorkerRegistryMessage("elsewhere", [WorkerRegistryEntry(name) for name in names], at, source="elsewhere")


@pytest.mark.parametrize(
    ("messages", "there"),
    [
        ([ready(2), snapshot(1)], True),
        ([ready(2), snapshot(3)], False),
        ([ready(1), gone(2), snapshot(1.5, "remote")], False),
        ([ready(1), gone(2), snapshot(2.5, "remote")], True),
        ([gone(2), ready(1)], False),
        ([ready(1), gone(2), ready(3)], True),
        ([snapshot(3, "remote"), gone(2)], True),
        ([snapshot(3, "remote"), gone(4)], False),
    ],
)
async def test_what_is_older_than_what_is_known_of_a_worker_is_no_news(messages: list[BusMessage], there: bool) -> None:
    """R6, J4: workers and their runner are different senders, whose messages a network may bring in any order."""
    async with WorkerRunner() as runner:
        for message in messages:
            await runner.bus.send(message)
            await anyio.wait_all_tasks_blocked()
        assert runner.registry.remote_workers == (["remote"] if there else [])


async def test_of_workers_that_have_gone_little_is_kept() -> None:
    """G2: made-up names come and go."""
    async with WorkerRunner() as runner:
        for number in range(REMEMBERED + 100):
            await runner.bus.send(BusWorkerReadyMessage("elsewhere", started_at=1, source=f"worker {number}"))
            await runner.bus.send(BusWorkerGoneMessage("elsewhere", 2, source=f"worker {number}"))
        await anyio.wait_all_tasks_blocked()
        assert len(runner._neighbours._gone) <= REMEMBERED
        assert runner._neighbours._here == {}
