"""X4: two processes that live, under one name: the later one has it, and the earlier one ends, or is told."""

import anyio

from support.redis_servers import RedisServer, until
from support.workers import Helper
from workerbus import NameTakenError, WorkerErrorData, WorkerRunner
from workerbus.redis import RedisBus


def runner_at(server: RedisServer) -> WorkerRunner:
    return WorkerRunner(name="same", bus=RedisBus(server.url, lease=1.0))


async def test_a_runner_ends_with_an_error_when_another_one_joins_under_its_name(server: RedisServer) -> None:
    """X4: and says where that is; the later one goes on."""
    first, second = runner_at(server), runner_at(server)
    await first.add_workers(Helper("helper"))
    raised: list[BaseException] = []

    async def run() -> None:
        try:
            await first.run()
        except NameTakenError as error:
            raised.append(error)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await first.registry.wait_for("helper")
            async with second:
                await until(lambda: raised)
                await second.add_workers(Helper("helper"), wait=True)
                assert second.bus.is_open
                assert server.call("HLEN", "{workerbus}:info") == 1
    assert "the name 'same' is taken on the network, by process" in str(raised[0])


async def test_an_on_error_handler_is_told_of_it_and_then_the_run_ends_without_raising(server: RedisServer) -> None:
    """X4, R4"""
    first = runner_at(server)
    told: list[WorkerErrorData] = []

    @first.event_handler("on_error")
    def failed(_runner: WorkerRunner, data: WorkerErrorData) -> None:
        told.append(data)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: first.run(auto_end=False))
            await until(lambda: server.call("HLEN", "{workerbus}:info") == 1)  # and not the second one first
            async with runner_at(server):
                await until(lambda: not first.bus.is_open)
    assert [type(data.exception) for data in told if data.fatal] == [NameTakenError]


async def test_the_runners_on_a_bus_that_the_program_has_opened_are_told(server: RedisServer) -> None:
    """X4, R6: the name is the bus's, and no runner's own."""
    told: list[str] = []
    with anyio.fail_after(60):
        async with RedisBus(server.url, lease=1.0, name="same") as bus, WorkerRunner(bus=bus) as runner:
            runner.add_event_handler("on_error", lambda _, data: told.append(data.error))
            async with RedisBus(server.url, lease=1.0, name="same"):
                await until(lambda: any("has joined under the name 'same'" in text for text in told))
            assert bus.state == "closed"


async def test_a_process_that_comes_back_under_its_name_is_there_at_once(server: RedisServer) -> None:
    """X4: whoever had the name is gone, for all others, before the lease is over."""
    gone: list[str] = []
    with anyio.fail_after(60):
        async with RedisBus(server.url, lease=60.0, name="other") as other:
            other.add_event_handler("on_peer_gone", lambda _bus, _peer, reason: gone.append(reason))
            first, second = (RedisBus(server.url, lease=60.0, name="same") for _ in range(2))
            async with first, second:
                await until(lambda: gone)
                assert gone == ["it was restarted"]
                assert [peer.incarnation for peer in other.peers] == [second.incarnation]
