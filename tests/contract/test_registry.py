"""G: who is ready, who watches for it, and what that costs."""

import functools
from collections.abc import Callable
from typing import Any

from support.buses import Wire
from support.conditions import eventually
from support.workers import Helper
from workerbus import WorkerErrorData, WorkerRunner


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
