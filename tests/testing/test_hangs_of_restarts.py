"""What the text of a hang says of restarts, rates and delays, and of who waits for them."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from support.restarts import LATE, SOON, Fragile, fail, fragile
from support.shared_buses import two_runners
from workerbus import BaseWorker, BusJobRequestMessage, Rate, WorkerRunner, job
from workerbus.testing import StuckError, run

WAITS = "waits for worker 'w', which is being restarted"


class Hanging(Fragile):
    """The second one is never attached."""

    lives = 0

    async def attach(self, **kwargs: Any) -> None:
        Hanging.lives += 1
        if Hanging.lives > 1:
            await anyio.sleep_forever()
        await super().attach(**kwargs)


class Stubborn(Fragile):
    """Does not let itself be stopped."""

    async def run(self, params: Any) -> None:
        await self.start()
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()


async def a_root_that_cannot_be_attached() -> None:
    async with WorkerRunner() as runner:
        await runner.supervise(fragile(kind=Hanging), backoff=SOON)
        await fail(runner)
        await runner.job("w", name="which")


async def a_child_that_cannot_be_attached() -> None:
    class Parent(BaseWorker):
        async def on_activated(self, args: Any) -> None:
            await self.supervise(fragile(kind=Hanging), backoff=SOON)

    async with WorkerRunner() as runner:
        await runner.add_workers(Parent("parent"), wait=True)
        await fail(runner)
        await runner.job("w", name="which")


async def another_that_does_not_stop() -> None:
    async with WorkerRunner() as runner:
        await runner.supervise(fragile("w"), fragile("v", Stubborn), strategy="all_for_one", backoff=SOON)
        await fail(runner)
        await runner.job("v", name="which")


async def a_wait_before_the_restart() -> None:
    async with WorkerRunner() as runner:
        await runner.supervise(fragile(), restart="always", backoff=LATE)
        await runner.job("w", name="stop")
        await runner.job("w", name="which")


async def a_restart_at_another_runner() -> None:
    async with two_runners("one bus") as (here, there):
        await here.supervise(fragile(), backoff=LATE)
        await fail(here)
        await there.job("w", name="which")


async def a_restart_far_away() -> None:
    async with two_runners("two buses") as (here, there):
        await here.supervise(fragile(), backoff=LATE)
        await fail(here)
        await there.job("w", name="which")


async def an_activation() -> None:
    async with WorkerRunner() as runner:
        caller = BaseWorker("caller")
        await runner.add_workers(caller, wait=True)
        await runner.supervise(fragile(), backoff=LATE)
        await fail(runner)
        await caller.activate_worker("w")


class Paced(BaseWorker):
    @job(name="do", rate=Rate(1, per=100))
    async def do(self, message: BusJobRequestMessage) -> dict[str, Any]:
        return {}


async def a_rate() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Paced("w"))
        await runner.job("w", name="do")
        await runner.job("w", name="do")


async def a_delay() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Paced("w"))
        await runner.job("w", name="do", delay=100)


FAILED = " (restart 1), as it has failed: ValueError: broken\n    at "
MAKES = "    waits for the time to pass after which it makes them anew\n"


@pytest.mark.parametrize(
    ("program", "texts"),
    [
        (
            a_root_that_cannot_be_attached,
            ["the restart of 'w'\n    waits for ever: it sleeps\n    at test_hangs_of_restarts.py", WAITS + FAILED],
        ),
        (
            a_child_that_cannot_be_attached,
            ["the restart of 'w'\n    waits for the new worker 'w' to be attached\n", WAITS + FAILED],
        ),
        (
            another_that_does_not_stop,
            [
                "worker 'v', its run()\n    waits for ever",
                "the restart of 'w', 'v'\n    waits for worker 'v' to finish\n",
                "waits for worker 'v', which is being restarted (restart 1)\n    at ",
            ],
        ),
        (
            a_wait_before_the_restart,
            ["the restart of 'w'\n" + MAKES, WAITS + " (restart 1)\n    at "],
        ),
        (a_restart_at_another_runner, ["the restart of 'w'\n" + MAKES, WAITS + FAILED]),
        (a_restart_far_away, ["the restart of 'w'\n" + MAKES, WAITS + " by runner 'A'\n    at "]),
        (an_activation, [WAITS + FAILED]),
        (a_rate, ["    waits for its turn: its handler's rate lets the next one begin at 100 s\n"]),
        (a_delay, ["    waits for its delay to pass\n"]),
    ],
)
def test_the_text_says_who_waits_for_what(
    program: Callable[[], Awaitable[None]], texts: list[str], backend: str
) -> None:
    """S1, J13: causes before their consequences."""
    Hanging.lives = 0
    with pytest.raises(StuckError) as caught:
        run(program, backend=backend, limit=10)
    told = str(caught.value)
    for text in texts:
        assert text in told
    assert [told.index(text) for text in texts] == sorted(told.index(text) for text in texts)
