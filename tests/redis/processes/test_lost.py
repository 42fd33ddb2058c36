"""X3, X4, J4, J5: processes that are killed, frozen, or started again under their name, with jobs under way."""

import anyio
import pytest

from support.processes import LEASE, OTHER, Hosts, bus_of, keys_of
from support.redis_servers import RedisServer, until
from support.workers import Helper
from workerbus import JobError, WorkerRunner

BEAT = LEASE / 5
SLACK = 8.0
"""Seconds for what a busy machine does beside; a lease of the usual length would still be noticed."""


async def add(runner: WorkerRunner, number: int) -> int:
    """Have the clerk add 1 to a number, and return the process that did."""
    answer = await runner.job("clerk", name="add", payload={"number": number})
    assert answer["number"] == number + 1
    return int(answer["pid"])


async def hold(runner: WorkerRunner, why: str) -> None:
    """Ask the clerk for what does not end, until it is lost."""
    with pytest.raises(JobError, match=why) as caught:
        await runner.job("clerk", name="hold")
    assert caught.value.statuses == {"clerk": "error"}


async def test_a_job_is_answered_when_its_workers_process_is_killed(server: RedisServer, backend: str) -> None:
    """J4, X4: within a lease and two beats, with an error that says why."""
    async with Hosts(server.url, lease=LEASE) as hosts, hosts.joined("here") as runner:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        async with anyio.create_task_group() as group:
            group.start_soon(hold, runner, "its lease ran out")
            await there.said("holds")
            await there.kill()
            killed = anyio.current_time()
        assert anyio.current_time() - killed < LEASE + 2 * BEAT + SLACK
        assert "clerk" not in runner.registry.remote_workers


@pytest.mark.slow
async def test_a_handler_is_cancelled_when_its_requesters_process_is_killed(server: RedisServer, backend: str) -> None:
    """J5, X4: it unwinds, and the worker goes on."""
    helper = Helper("helper")
    async with Hosts(server.url, lease=LEASE) as hosts, hosts.joined("here", helper) as runner:
        there = await hosts.start("there", OTHER[backend])
        await there.ask("helper", "wait")
        await helper.begun.wait()
        await there.kill()
        killed = anyio.current_time()
        await helper.unwound.wait()
        assert anyio.current_time() - killed < LEASE + 2 * BEAT + SLACK
        assert (await runner.job("helper", name="echo"))["worker"] == "helper"


@pytest.mark.parametrize("clock", [0.0, -300.0, 300.0])
@pytest.mark.slow
async def test_a_process_that_comes_back_under_its_name_is_a_new_one_at_once(
    server: RedisServer, backend: str, clock: float
) -> None:
    """X4: whatever its clock says, and long before the lease of its former life is over."""
    async with Hosts(server.url, lease=60.0) as hosts, hosts.joined("here") as runner:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        async with anyio.create_task_group() as group:
            group.start_soon(hold, runner, "it was restarted")
            await there.said("holds")
            await there.kill()
            again = await hosts.start("there", backend, {"clerk": "Clerk"}, clock=clock)
        assert await add(runner, 1) == again.pid


@pytest.mark.slow
async def test_a_requester_that_comes_back_under_its_name_has_its_former_jobs_cancelled(
    server: RedisServer, backend: str
) -> None:
    """J5, X4: and its new ones are done."""
    helper = Helper("helper")
    async with Hosts(server.url) as hosts, hosts.joined("here", helper):
        there = await hosts.start("there", OTHER[backend])
        await there.ask("helper", "wait")
        await helper.begun.wait()
        await there.kill()
        again = await hosts.start("there", backend)
        await helper.unwound.wait()
        await again.ask("helper", "echo", number=1)
        assert (await again.said("answered"))["outcome"] == "completed"


@pytest.mark.slow
async def test_a_process_that_was_frozen_is_fenced_and_works_again(server: RedisServer, backend: str) -> None:
    """X4: the requester is told at the lease; the frozen one unwinds, and joins again as a new one."""
    async with Hosts(server.url, lease=LEASE) as hosts, hosts.joined("here") as runner:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        async with anyio.create_task_group() as group:
            group.start_soon(hold, runner, "its lease ran out")
            await there.said("holds")
            there.freeze()
            frozen = anyio.current_time()
        assert anyio.current_time() - frozen < LEASE + 2 * BEAT + SLACK
        there.thaw()
        await there.said("on_fenced")
        await there.said("unwound")
        assert await add(runner, 1) == there.pid
        assert (await there.statistics())["lives"] == 2


@pytest.mark.slow
async def test_a_requester_that_was_frozen_has_its_jobs_answered(server: RedisServer, backend: str) -> None:
    """J4, J5, X4: it is told when it is fenced; the handler was cancelled when it was lost."""
    helper = Helper("helper")
    async with Hosts(server.url, lease=LEASE) as hosts, hosts.joined("here", helper):
        there = await hosts.start("there", OTHER[backend])
        await there.ask("helper", "wait")
        await helper.begun.wait()
        there.freeze()
        await helper.unwound.wait()
        there.thaw()
        await there.said("on_fenced")
        answered = await there.said("answered")
        assert answered["outcome"] == "error"
        await there.ask("helper", "echo", key=1)
        assert (await there.said("answered", key=1))["outcome"] == "completed"


@pytest.mark.slow
async def test_messages_that_a_frozen_requester_has_missed_end_its_sessions(server: RedisServer, backend: str) -> None:
    """X3, J4: what was pushed out of its inbox is a gap, which is told; its jobs are answered, and not left."""
    async with Hosts(server.url, lease=10.0, inbox_size=200) as hosts:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        other = await hosts.start("other", backend, {"second": "Clerk"})
        await other.tell("wait_for", worker="clerk")
        await other.said("found")
        await other.ask("clerk", "hold", key="held")
        await there.said("holds")
        await other.ask("clerk", "count", key="counted", updates=3000)
        await other.said("updated")
        other.freeze()
        await there.tell("send_many", target="second", count=3000, confirmed=False)
        await there.said("sent all")
        while (await there.statistics())["unsent"]:
            pass
        other.thaw()
        await other.said("on_gap")
        assert (await other.said("answered", key="held"))["outcome"] == "error"
        await other.said("answered", key="counted")
        await there.said("unwound")
        await other.ask("clerk", "add", key="again", number=1)
        assert (await other.said("answered", key="again"))["outcome"] == "completed"


@pytest.mark.parametrize("how", ["end", "kill"])
@pytest.mark.slow
async def test_all_that_a_process_has_written_comes_before_its_loss(
    server: RedisServer, backend: str, how: str
) -> None:
    """X4: 3,000 updates, an answer, and the worker's process ends, before the requester has read any of it."""
    async with Hosts(server.url, lease=5.0) as hosts:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        other = await hosts.start("other", backend)
        await other.tell("wait_for", worker="clerk")
        await other.said("found")
        await other.ask("clerk", "count", updates=3000, then=how)
        await other.said("updated")
        other.freeze()
        await there.ended()
        other.thaw()
        answered = await other.said("answered")
        assert answered["outcome"] == "completed"
        assert answered["updates"] == {"last": 3000, "in_order": True}
        await other.said("on_peer_gone")


@pytest.mark.slow
async def test_nothing_is_left_at_the_server(server: RedisServer, backend: str) -> None:
    """X4: neither of those who have left, nor of those who were lost."""
    async with Hosts(server.url, lease=LEASE) as hosts, hosts.joined("here") as runner:
        names = [f"p{number}" for number in range(4)]
        there = [await hosts.launch(name, backend, {f"clerk of {name}": "Clerk"}) for name in names]
        for host in there:
            await host.said("ready")
            await runner.job(f"clerk of {host.name}", name="add", payload={"number": 1})
        await there[0].kill()
        await there[1].kill()
        await there[2].end()
        await there[3].end()
        await until(lambda: not bus_of(runner).peers)
    assert keys_of(server) == []
