"""G4: names that two runners claim."""

import functools
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from support.buses import Wire
from support.conditions import eventually
from support.leaks import left_in
from support.runners import runner_on
from support.shared_buses import Linked, linked
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusWorkerGoneMessage,
    BusWorkerReadyMessage,
    MemoryBus,
    WorkerErrorData,
    WorkerReadyData,
    WorkerRegistry,
    WorkerRunner,
)
from workerbus.testing import settle


async def _two_runners(body: Callable[[WorkerRunner, WorkerRunner], Any]) -> dict[str, list[WorkerErrorData]]:
    """Run two runners on two buses that are wired together; return what each reported."""
    one, two = Wire(name="one"), Wire(name="two")
    one.ends = two.ends = [one, two]
    errors: dict[str, list[WorkerErrorData]] = {"first": [], "second": []}
    runners = []
    for name, bus in (("first", one), ("second", two)):
        runner = WorkerRunner(name=name, bus=bus, handle_sigint=False)
        runner.add_event_handler("on_error", lambda emitter, data: errors[emitter.name].append(data))
        runners.append(runner)
    async with one, two, runners[0], runners[1]:
        await body(*runners)
        await eventually(functools.partial(all, errors.values()))
    return errors


async def test_a_name_that_two_runners_claim_is_reported_at_both() -> None:
    """G4: by ``on_error``."""
    found: list[str] = []

    async def claim(first: WorkerRunner, second: WorkerRunner) -> None:
        for runner in (first, second):
            await runner.add_workers(Helper("twin"))
            await runner.registry.wait_for("twin")
        await eventually(lambda: "twin" in first.registry.remote_workers and "twin" in second.registry.remote_workers)
        found.extend(data.runner for each in (first, second) if (data := each.registry.get("twin")) is not None)

    errors = await _two_runners(claim)
    assert found == ["first", "second"]
    for reported in errors.values():
        assert {data.worker_name for data in reported} == {"twin"}


async def test_a_name_that_two_runners_claim_at_the_same_time_is_reported_at_both() -> None:
    """G4: whoever hears of whom first."""

    async def claim(first: WorkerRunner, second: WorkerRunner) -> None:
        await first.add_workers(Helper("twin"))
        await second.add_workers(Helper("twin"))

    errors = await _two_runners(claim)
    for reported in errors.values():
        assert [data.worker_name for data in reported] == ["twin"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_of_a_name_that_is_claimed_twice_each_runner_is_told_who_else_has_it(order: tuple[int, int]) -> None:
    """G4: once, whichever of the two was first, and once more when it is claimed again."""
    async with linked() as (a, b, errors):
        first, second = ((a, b)[place] for place in order)
        twins = [Helper("twin"), Helper("twin")]
        await first.add_workers(twins[0])
        for runner in (a, b):
            await runner.registry.wait_for("twin")
        await second.add_workers(twins[1])
        await settle()
        told = {name: [data.error.partition(" too")[0] for data in reported] for name, reported in errors.items()}
        assert told == {"A": ["runner 'B' has a worker 'twin'"], "B": ["runner 'A' has a worker 'twin'"]}
        await twins[1].stop()
        await settle()
        await second.add_workers(Helper("twin"))
        await settle()
        assert [len(reported) for reported in errors.values()] == [2, 2]


@pytest.mark.parametrize("here_first", [True, False])
async def test_a_claim_tells_of_the_other_ones_alone(here_first: bool) -> None:
    """G4: of each other one, and of one that is known no second time."""
    registry = WorkerRegistry("here")
    told: list[WorkerReadyData] = []
    registry.on_conflict = told.append
    here, *others = (WorkerReadyData("name", runner) for runner in ("here", "one", "two"))
    for claim in [here, *others] if here_first else [*others, here]:
        await registry.register(claim)
        await registry.register(claim)
    # The third runner hears of two others' conflict as well, if it comes last.
    assert told == (others if here_first else [others[1], *others])
    assert registry.get("name") is here


async def test_a_name_that_is_claimed_from_elsewhere_is_told_of_at_all_runners_of_a_bus() -> None:
    """G4: at the one that has it, and at the others, which see it; whichever came first."""
    told: list[str] = []
    async with MemoryBus() as bus, runner_on(bus, "A") as a, runner_on(bus, "B") as b:
        for runner in (a, b):
            runner.add_event_handler("on_error", lambda who, data: told.append(f"{who.name}: {data.error}"))
        await a.add_workers(Helper("first"))
        await b.registry.wait_for("first")
        for name in ("first", "second"):
            await bus.send(BusWorkerReadyMessage("elsewhere", source=name))
        await a.add_workers(Helper("second"))
        await a.registry.wait_for("second")
        await settle()
        for runner in (a, b):
            assert runner.registry.get("second") == WorkerReadyData("second", "A")
    elsewhere = "runner 'elsewhere' has a worker '{}' too: names are unique on a bus"
    assert [line[3:] for line in told if line.startswith("A")] == [
        elsewhere.format("first"),
        elsewhere.format("second"),
    ]
    assert [line[3:] for line in told if line.startswith("B")] == [
        elsewhere.format("first"),
        "runner 'A' has a worker 'second' too: names are unique on a bus",
    ]


async def test_each_of_two_runners_asks_its_own_worker_of_a_name() -> None:
    """G4: a claimed name does not lead a runner's job astray."""
    answers: list[dict[str, Any]] = []

    async def claim(first: WorkerRunner, second: WorkerRunner) -> None:
        for runner in (first, second):
            await runner.add_workers(Helper("twin"))
            await runner.registry.wait_for("twin")
        answers.append(await first.job("twin", name="echo", payload={"n": 1}))

    await _two_runners(claim)
    assert answers == [{"worker": "twin", "payload": {"n": 1}}]


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
    runners = [runner_on(Linked(network), name) for name in told]
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


async def test_a_name_that_another_runner_claims_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """G4: both say who claims what, and who has seen it."""
    told: list[WorkerErrorData] = []
    async with running(Helper("helper"), name="here") as runner:
        runner.add_event_handler("on_error", lambda _, data: told.append(data))
        await runner.bus.send(BusWorkerReadyMessage("elsewhere", None, True, False, 0.0, source="helper"))
        await anyio.wait_all_tasks_blocked()
    text = "runner 'elsewhere' has a worker 'helper' too: names are unique on a bus"
    assert told == [WorkerErrorData("helper", text)]
    assert f"{text} (seen by runner 'here')" in caplog.messages


async def test_a_job_goes_on_when_another_runner_gives_up_its_claim_to_the_worker_s_name() -> None:
    """G4, J4: the worker that was asked is still there."""
    helper = Helper("helper")
    runner = WorkerRunner(handle_sigint=False)
    conflict = anyio.Event()
    runner.add_event_handler("on_error", lambda *_: conflict.set())
    async with runner:
        await runner.add_workers(helper)
        async with runner.job("helper", name="wait") as asked:
            await helper.begun.wait()
            await runner.bus.send(BusWorkerReadyMessage("elsewhere", source="helper"))
            await conflict.wait()
            await runner.bus.send(BusWorkerGoneMessage("elsewhere", source="helper"))
            await anyio.wait_all_tasks_blocked()
            assert runner.registry.remote_workers == []
            helper.release.set()
    assert asked.response == {"released": True}


async def test_claims_come_and_go_and_nothing_stays_of_them() -> None:
    """G4, G2: as long as one is there the name is known, and of those that are the one that came first counts."""
    registry = WorkerRegistry("here")
    claims = [WorkerReadyData("name", runner) for runner in ("one", "two", "three", "four", "five")]
    assert [await registry.register(claim) for claim in claims] == [True, False, False, False, False]
    assert not await registry.register(WorkerReadyData("name", "two"))
    assert not await registry.unregister("name", "six")
    assert await registry.unregister("name", "two")
    assert not await registry.unregister("name", "two")
    assert registry.get("name") is claims[0]
    assert await registry.unregister("name", "one")
    assert registry.get("name") is claims[2]
    assert registry.remote_workers == ["name"]
    assert await registry.unregister("name", "three")
    assert registry.get("name") is claims[3]
    assert await registry.unregister("name", "five")
    assert registry.get("name") is claims[3]
    assert await registry.unregister("name", "four")
    assert registry.get("name") is None
    assert left_in(registry) == {}
