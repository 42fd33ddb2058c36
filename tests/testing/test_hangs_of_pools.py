"""What the text of a hang says of pools: who waits for a member, and for answers."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from support.pools import Member, pool_of
from workerbus import BusJobRequestMessage, WorkerRunner, job
from workerbus.testing import DeadlockError, run


class Stuck(Member):
    @job(name="hang")
    async def hang(self, message: BusJobRequestMessage) -> None:
        await anyio.Event().wait()

    @job(name="again")
    async def again(self, message: BusJobRequestMessage) -> None:
        await self.job("pool", name="again")


class NeverReady(Member):
    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await anyio.Event().wait()


async def all_members_are_busy() -> None:
    async with WorkerRunner() as runner, anyio.create_task_group() as tasks:
        await runner.add_workers(pool_of(1, kind=Stuck))

        async def ask() -> None:
            await runner.job("pool", name="hang")

        tasks.start_soon(ask)
        tasks.start_soon(ask)


async def no_member_is_ready() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(pool_of(1, kind=NeverReady))
        await runner.job("pool", name="who")


async def a_member_asks_its_own_pool() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(pool_of(1, kind=Stuck))
        await runner.job("pool", name="again")


async def a_map_without_answers() -> None:
    async with WorkerRunner() as runner:
        pool = pool_of(2, kind=Stuck)
        await runner.add_workers(pool)
        payloads: list[dict[str, Any]] = [{}] * 9
        async with pool.map("hang", payloads) as answers:
            await anext(answers)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            all_members_are_busy,
            ["worker 'pool', job 'hang' (", "    waits for a member of the pool, which job 'hang' ("],
        ),
        (
            no_member_is_ready,
            ["    waits for a member of the pool: none has started, or all are inactive or have gone"],
        ),
        (a_member_asks_its_own_pool, ["in a circle, each for the next, and the last for the first, wait"]),
        (
            a_map_without_answers,
            [
                "    waits for an answer to map of pool 'pool'\n",
                "    waits for an answer to map of pool 'pool' to be read",
            ],
        ),
    ],
)
def test_a_hang_of_a_pool_says_who_waits_for_what(
    backend: str, program: Callable[[], Awaitable[None]], said: list[str]
) -> None:
    """S2."""
    with pytest.raises(DeadlockError) as caught:
        run(program, backend=backend)
    for each in said:
        assert each in str(caught.value)
