"""Beginning and ending a supervision, and a hand-over to one that is restarted, cut at each checkpoint (S1, W3, L1)."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import sleep
from attrs import define, field

from support.cuts import Case, cuts_of
from support.leaks import nothing_left
from support.restarts import SOON, Fragile, Lingering, begin_to_fail, fragile
from support.runners import quiet_runner
from support.workers import Helper
from workerbus import Backoff, Supervision, WorkerRunner
from workerbus.testing.cancellation._cutting import How

pytestmark = pytest.mark.slow
A_WHILE = 8.0


class Slow(Lingering):
    """Takes its time to be attached, to stop and to clean up."""

    lingers = 0.1

    async def attach(self, **kwargs: Any) -> None:
        await sleep(0.1)
        await super().attach(**kwargs)
        await sleep(0.1)

    async def stop(self) -> None:
        await sleep(0.1)
        await super().stop()


@define
class Program:
    """A runner with a parent and somebody active; and a supervision, where there is one from the start."""

    runner: WorkerRunner
    parent: Helper
    caller: Helper
    supervisions: list[Supervision] = field(factory=list)

    async def supervise(self, host: Any, backoff: Backoff = SOON, **options: Any) -> None:
        factories: list[Callable[[], Fragile]] = [fragile("v", Slow), fragile("w", Slow, **options)]
        self.supervisions.append(await host.supervise(*factories, backoff=backoff))


@asynccontextmanager
async def program() -> AsyncIterator[Program]:
    runner = quiet_runner()
    async with nothing_left(runner), runner:
        it = Program(runner, Helper("parent"), Helper("caller"))
        await runner.add_workers(it.parent, it.caller, wait=True)
        yield it


@asynccontextmanager
async def while_one_is_restarted() -> AsyncIterator[Program]:
    async with program() as it:
        await it.supervise(it.runner, active=True)
        await begin_to_fail(it.runner, "w")
        yield it


async def beginning(it: Program) -> None:
    await it.supervise(it.runner)


async def beginning_at_a_parent(it: Program) -> None:
    await it.supervise(it.parent)


async def all_or_none(it: Program) -> None:
    """All are there and come again, or none is and their names are free."""
    await sleep(A_WHILE)
    there = {name for name in ("v", "w") if it.runner.get_worker(name) is not None}
    assert there == ({"v", "w"} if it.supervisions else set())
    for name in there:
        await begin_to_fail(it.runner, name)
        await it.runner.job(name, name="which", timeout=A_WHILE)
    for supervision in it.supervisions:
        await supervision.stop()
    assert it.runner.registry.restarting == {}
    await it.runner.add_workers(Helper("v"), Helper("w"), wait=True)


async def stopping(it: Program) -> None:
    await it.supervisions[0].stop()


async def nobody_comes_again(it: Program) -> None:
    """Whatever was stopped when it was cut."""
    await sleep(A_WHILE)
    assert it.supervisions[0].is_over
    assert it.runner.get_worker("w") is None
    assert it.runner.registry.restarting == {}
    await it.supervisions[0].stop()
    assert it.runner.get_worker("v") is None


async def handing_over(it: Program) -> None:
    await it.caller.activate_worker("w", deactivate_self=True)


async def somebody_is_active(it: Program) -> None:
    """The one that hands over, or the other one."""
    await sleep(A_WHILE)
    worker = it.runner.get_worker("w")
    assert worker is not None
    assert it.caller.active or worker.active
    await it.supervisions[0].stop()


CASES: dict[str, Case[Program]] = {
    "beginning": Case(beginning, program, all_or_none),
    "beginning at a parent": Case(beginning_at_a_parent, program, all_or_none),
    "stopping": Case(stopping, while_one_is_restarted, nobody_comes_again),
    "handing over": Case(handing_over, while_one_is_restarted, somebody_is_active),
}


@pytest.mark.parametrize(("name", "backend", "how"), list(cuts_of(CASES)))
def test_a_supervision_is_whole_wherever_an_operation_is_cut(name: str, backend: str, how: How) -> None:
    """S1, W3, L1."""
    report = CASES[name].cut(backend, how)
    assert report.checkpoints, "nothing was cut"
