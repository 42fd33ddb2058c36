"""R6: several runners on one bus, and runners that find a bus in use."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import sleep, sleep_forever

from support.leaks import left_in, nothing_left, task_ids
from support.remarks import Remark
from support.runners import runner_on
from support.shared_buses import Member, Pair, linked, pair
from support.subscribers import Plain
from support.workers import Helper
from workerbus import (
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    MemoryBus,
    WorkerRunner,
    job,
)


async def test_a_runner_opens_the_bus_that_it_was_given_for_its_own_run() -> None:
    """R6."""
    bus = MemoryBus()
    runner = runner_on(bus, "A")
    assert not bus.is_open
    async with runner:
        assert bus.is_open
    assert not bus.is_open


async def test_a_bus_can_be_used_by_one_runner_after_another() -> None:
    """R6: each opens it for itself."""
    bus = MemoryBus()
    for name in ("A", "B"):
        async with runner_on(bus, name) as runner:
            await runner.add_workers(Helper("helper"))
            assert await runner.job("helper", name="echo")
    assert not bus.is_open


async def test_a_second_runner_on_a_bus_that_a_runner_opened_for_itself_is_refused() -> None:
    """R6: the error names it and says what to do; the first runner goes on."""
    bus = MemoryBus()
    async with runner_on(bus, "first") as first:
        await first.add_workers(Helper("helper"))
        with pytest.raises(RuntimeError, match=r"first.*async with"):
            await runner_on(bus, "second").run()
        with pytest.raises(RuntimeError, match=r"first.*async with"):
            async with runner_on(bus, "third"):
                pytest.fail("it ran")
        assert await first.job("helper", name="echo")


async def test_a_refused_runner_leaves_nothing_on_the_bus() -> None:
    """R6, L1: the workers that it was to run are off the bus, and their names free."""
    bus = MemoryBus()
    async with runner_on(bus, "first") as first:
        second = runner_on(bus, "second")
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
            group.start_soon(run, runner_on(bus, name))
    assert len(refused) == 1
    assert not bus.is_open
    assert bus.statistics().subscribers == {}


async def test_the_program_cannot_open_a_bus_that_a_runner_has_opened() -> None:
    """R6."""
    bus = MemoryBus()
    async with runner_on(bus, "first") as first:
        await first.add_workers(Helper("helper"))
        with pytest.raises(RuntimeError, match="first"):
            async with bus:
                pytest.fail("it was opened twice")
        assert await first.job("helper", name="echo")


async def test_runners_on_one_bus_have_names_of_their_own() -> None:
    """R6, B5: a second one of the same name is a `ValueError`, leaves nothing, and does not disturb the first."""
    async with MemoryBus() as bus, runner_on(bus, "same") as first:
        await first.add_workers(Helper("helper"))
        second = runner_on(bus, "same")
        await second.add_workers(Helper("other"))
        with pytest.raises(ValueError, match="same"):
            await second.run()
        assert await first.job("helper", name="echo")
        assert set(bus.statistics().subscribers) == {"same", "helper"}


async def test_runners_come_and_go_on_the_programs_bus() -> None:
    """R6: it stays open, and nothing of a runner stays on it."""
    async with MemoryBus() as bus:
        for n in range(3):
            runner = runner_on(bus, f"runner {n}")
            async with nothing_left(runner), runner:
                await runner.add_workers(Helper("helper"))
                assert await runner.job("helper", name="echo")
            assert bus.is_open


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
            if isinstance(message, Remark):
                got.append(f"{self.name} {message.text}")

    async with pair() as both:
        await both.a.add_workers(Listening("one"))
        await both.b.add_workers(Listening("two"))
        await both.a.registry.wait_for("two")
        await both.a.registry.wait_for("one")
        await both.on_a.send_bus_message(Remark("hello", source="on a"))
        await anyio.wait_all_tasks_blocked()
    assert sorted(got) == ["one hello", "two hello"]


async def test_a_plain_subscriber_outlives_the_runners() -> None:
    """R6: its tasks run in what opened the bus."""
    plain = Plain("plain")
    async with MemoryBus() as bus:
        await bus.subscribe(plain)
        async with runner_on(bus, "A") as a:
            await a.bus.send(Remark("during", source="test"))
            await plain.until(1, Remark)
        await bus.send(Remark("after", source="test"))
        await plain.until(2, Remark)
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
                if isinstance(message, Remark):
                    mine[f"hook of {self.name}"] = anyio.get_current_task().id
                    await sleep_forever()

        await both.a.add_workers(Busy("busy a"))
        await both.b.add_workers(Busy("busy b"))
        for name, other in (("busy a", both.b), ("busy b", both.a)):
            await other.registry.wait_for(name)
            await both.bus.send(BusJobRequestMessage(name, "where", source=other.name, target=name))
            await both.bus.send(Remark("where", source=other.name, target=name))
        await anyio.wait_all_tasks_blocked()
        assert len(mine) == 4
        await both.a.cancel()
        await both.a_over.wait()
        left = task_ids()
        assert {name for name, task in mine.items() if task in left} == {"busy b", "hook of busy b"}


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


async def test_jobs_go_across_a_network() -> None:
    """R6, B8: two buses that only a network connects."""
    async with linked() as (a, b, errors):
        await b.add_workers(Helper("on b"))
        assert (await a.job("on b", name="echo"))["worker"] == "on b"
        await b.end()
        while a.registry.get("on b") is not None:
            await anyio.lowlevel.checkpoint()
    assert errors == {"A": [], "B": []}


async def test_a_runner_that_is_refused_does_not_give_away_the_bus_of_another() -> None:
    """R6: two start at once; the bus stays the one's own, and is refused to a third with the reason."""
    bus = MemoryBus()
    refused: list[str] = []

    async def run(runner: WorkerRunner) -> None:
        try:
            async with runner:
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(RuntimeError, match=f"open for runner '{runner.name}' alone: to share it"):
                    await runner_on(bus, "C").run()
        except RuntimeError as exc:
            refused.append(str(exc))

    async with anyio.create_task_group() as group:
        for name in ("A", "B"):
            group.start_soon(run, runner_on(bus, name))
    assert len(refused) == 1
    assert "to share it" in refused[0]


async def test_a_bus_that_never_connected_is_free_for_the_next_runner() -> None:
    """R6: its start was given up, by a cancellation."""
    connecting = anyio.Event()

    class Unreachable(MemoryBus):
        reachable = False

        async def start(self) -> None:
            connecting.set()
            if not self.reachable:
                await sleep_forever()

    bus = Unreachable()
    first = runner_on(bus, "first")
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        await connecting.wait()
        await first.cancel()
    bus.reachable = True
    async with runner_on(bus, "second") as second:
        await second.add_workers(Helper("helper"))
        assert await second.job("helper", name="echo")
