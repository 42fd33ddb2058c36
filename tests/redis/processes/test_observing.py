"""O7: real processes as they are seen by one who looks, while they are killed, restarted, and the server is away."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from support.processes import LEASE, OTHER, Hosts
from support.redis_servers import RedisServer
from support.workers import Helper
from workerbus.observing import ObservedCluster, observe_cluster
from workerbus.redis import RedisBus

pytestmark = pytest.mark.slow


async def seen(cluster: ObservedCluster, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Wait until a state is as it should be."""
    while not condition(state := cluster.state()):
        with anyio.move_on_after(0.5):
            await cluster.changed()
    return state


@asynccontextmanager
async def looking(server: RedisServer, **bus: Any) -> AsyncIterator[ObservedCluster]:
    async with observe_cluster(RedisBus(server.url, **bus), interval=0.2) as cluster:
        yield cluster


async def test_what_is_seen_of_real_processes_is_what_each_says_of_itself(server: RedisServer, backend: str) -> None:
    """O2, O7: on both backends; and a story goes over both."""
    async with Hosts(server.url) as hosts, hosts.joined("here") as runner:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk", "clara": "Clerk"})
        async with looking(server) as cluster:
            for number in range(20):
                async with runner.job("clerk", name="add", payload={"number": number}) as asked:
                    pass
            await seen(cluster, lambda state: state["about"]["answered_completed"] == 20)
            state = await seen(cluster, lambda state: state["runners"]["here"]["requested"] == 20)
            said = await there.statistics()
            row = state["runners"]["there"]
            assert {name: row[name] for name in said["answered"]} == said["answered"]
            assert (row["pid"], row["requested"], row["bus"]) == (there.pid, said["requested"], said["state"])
            assert {name: {"system": it["system"], "data": it["data"]} for name, it in state["workers"].items()} == (
                said["lanes"]
            )
            assert runner.statistics().jobs_requested == 20
            assert state["about"]["processes"] == 2
            while (story := cluster.story(asked.job_id)) is None or story["open"]:
                await seen(cluster, lambda _: True)
                await cluster.changed()
            assert [step[1] for step in story["steps"]] == ["asked", "answered"]
            assert story["places"] == {"here": "here", "clerk": "there"}
            begun, ended, *_ = story["legs"]["clerk"]
            assert 0 <= ended - begun < 60


async def test_a_process_that_is_killed_goes_and_its_next_life_comes(server: RedisServer, backend: str) -> None:
    """O7, X4"""
    async with Hosts(server.url, lease=LEASE) as hosts, looking(server, lease=LEASE) as cluster:
        first = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        await seen(cluster, lambda state: set(state["workers"]) == {"clerk"})
        await first.kill()
        await seen(cluster, lambda state: not state["runners"])
        again = await hosts.start("there", backend, {"clerk": "Clerk"})
        state = await seen(cluster, lambda state: set(state["workers"]) == {"clerk"})
        assert state["runners"]["there"]["pid"] == again.pid


async def test_an_outage_of_the_server_is_shown_and_passes(server: RedisServer, backend: str) -> None:
    """O7, X2: nobody is gone because of it, and what is seen goes on."""
    async with Hosts(server.url) as hosts, looking(server) as cluster:
        await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        await seen(cluster, lambda state: set(state["workers"]) == {"clerk"})
        server.kill()
        await seen(cluster, lambda state: state["about"]["bus"] != "connected")
        assert set(cluster.state()["workers"]) == {"clerk"}
        server.restart()
        await seen(cluster, lambda state: state["about"]["bus"] == "connected")
        state = await seen(cluster, lambda state: state["runners"].get("there", {}).get("connections_lost"))
        assert "silent" not in state["runners"]["there"]


async def test_two_may_look_and_a_program_goes_on_when_one_is_gone(server: RedisServer, backend: str) -> None:
    """O7: each under a name of its own; also where one of them is in the middle of a report."""
    helper = Helper("helper")
    async with Hosts(server.url) as hosts, hosts.joined("here", helper) as runner:
        async with looking(server) as first:
            async with looking(server) as second:
                for cluster in (first, second):
                    await seen(cluster, lambda state: set(state["workers"]) == {"helper"})
            await runner.job("helper", name="echo")
            await seen(first, lambda state: state["workers"]["helper"]["completed"] == 1)
        assert (await runner.job("helper", name="echo"))["worker"] == "helper"
