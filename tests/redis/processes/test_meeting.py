"""X1, X5-X7, X9, J1: several processes that find each other, ask each other, and are told what cannot be."""

import anyio
import pytest

from support.processes import OTHER, Hosts, bus_of, incarnations, leave, refused
from support.redis_servers import RedisServer, until
from workerbus import BusCancelMessage, BusDataMessage, JobError, bus_message, wire


@pytest.mark.slow
@wire.register
@bus_message
class Unheard(BusDataMessage):
    """A message of which the other processes know nothing."""

    text: str


async def test_processes_that_start_at_once_know_each_other(server: RedisServer, backend: str) -> None:
    """X4: five, asyncio and trio, and the test's own."""
    async with Hosts(server.url) as hosts, hosts.joined("p5") as runner:
        names = [f"p{number}" for number in range(5)]
        started = [
            await hosts.launch(name, each, {f"clerk of {name}": "Clerk"})
            for name, each in zip(names, (backend, OTHER[backend]) * 3, strict=False)
        ]
        for host in started:
            for name in names:
                if name != host.name:
                    await host.tell("wait_for", worker=f"clerk of {name}")
        for host in started:
            for name in names:
                if name != host.name:
                    await host.said("found", worker=f"clerk of {name}")
        for number, name in enumerate(names):
            answer = await runner.job(f"clerk of {name}", name="add", payload={"number": number})
            assert answer["number"] == number + 1
        for number, host in enumerate(started):
            await host.ask(f"clerk of {names[number - 1]}", "add", number=number)
            assert (await host.said("answered"))["response"]["number"] == number + 1


async def test_a_workers_name_is_taken_at_the_second_process(server: RedisServer, backend: str) -> None:
    """X5: the second is told, and free to take it when the first has gone."""
    async with Hosts(server.url) as hosts:
        first = await hosts.start("first", backend, {"clerk": "Clerk"})
        second = await hosts.start("second", OTHER[backend])
        await second.tell("add", worker="clerk", kind="Clerk")
        assert "'clerk' is taken" in (await second.said("taken"))["error"]
        await first.end()
        await second.tell("add", worker="clerk", kind="Clerk")
        await second.said("added", worker="clerk")


@pytest.mark.slow
async def test_a_process_whose_worker_has_a_taken_name_does_not_start(server: RedisServer, backend: str) -> None:
    """X5: and the first one goes on."""
    async with Hosts(server.url) as hosts:
        first = await hosts.start("first", backend, {"clerk": "Clerk"})
        second = await hosts.launch("second", OTHER[backend], {"clerk": "Clerk"})
        raised = await second.said("raised")
        assert raised["type"] == "NameTakenError"
        assert "first" in raised["error"]
        assert not first.has_said("on_error")


@pytest.mark.parametrize(("kind", "why"), [("set", r"\.deep\[1\]\.it"), ("large", "max_message_size is 1,048,576")])
@pytest.mark.slow
async def test_an_answer_that_cannot_travel_is_an_error_that_says_so(
    server: RedisServer, backend: str, kind: str, why: str
) -> None:
    """X1, J1: it names the path in the payload, or the limit."""
    async with Hosts(server.url) as hosts, hosts.joined("here") as runner:
        await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        with pytest.raises(JobError, match=why) as caught:
            await runner.job("clerk", name="bad", payload={"kind": kind})
        assert caught.value.statuses == {"clerk": "error"}
        assert caught.value.responses["clerk"]["type"] == "WireError"
        answer = await runner.job("clerk", name="add", payload={"number": 1})
        assert answer["number"] == 2


@pytest.mark.slow
async def test_a_full_lane_in_a_process_holds_up_nobody_else(server: RedisServer, backend: str) -> None:
    """X7: neither other workers' messages nor their cancels."""
    async with Hosts(server.url) as hosts, hosts.joined("here") as runner:
        there = await hosts.start(
            "there", OTHER[backend], {"narrow": "Narrow", "clerk": "Clerk"}, max_buffer_size=4, max_arrivals=1000
        )
        other = await hosts.start("other", backend)
        await other.tell("wait_for", worker="narrow")
        await other.said("found")
        await other.tell("send_many", target="narrow", count=500, confirmed=False)
        await other.said("sent all")
        answer = await runner.job("clerk", name="add", payload={"number": 1}, timeout=60)
        assert answer["number"] == 2
        await other.ask("clerk", "add", number=2)
        await other.said("answered")
        with anyio.CancelScope() as scope:
            async with runner.job("clerk", name="hold"):
                await there.said("holds")
                scope.cancel()
        await there.said("unwound")
        assert (await there.statistics())["waiting"] > 400
        await there.tell("go", worker="narrow")
        await other.reported("narrow", other.sender, 500)


@pytest.mark.slow
async def test_what_cannot_be_decoded_is_skipped_and_kept_for_the_operator(server: RedisServer, backend: str) -> None:
    """X1: it is counted, and what comes behind it is handed out."""
    async with Hosts(server.url) as hosts, hosts.joined("here") as runner:
        there = await hosts.start("there", OTHER[backend], {"clerk": "Clerk"})
        await runner.registry.wait_for("clerk")
        await runner.bus.send(Unheard(source="here", target="clerk", text="?"))
        answer = await runner.job("clerk", name="add", payload={"number": 1})
        assert answer["number"] == 2
        assert (await there.statistics())["unknown"] == 1
        await until(lambda: refused(server))
        (kept,) = refused(server)
        assert kept[b"from"] == b"here"
        assert b"Unheard" in kept[b"why"]
        assert b'"text":"?"' in kept[b"m"]


@pytest.mark.slow
async def test_a_forged_cancel_of_all_runners_ends_nobody(server: RedisServer, backend: str) -> None:
    """X9: it is refused, and counted, where it comes from another process."""
    async with Hosts(server.url) as hosts, hosts.joined("here") as runner:
        started = [await hosts.start(name, OTHER[backend]) for name in ("one", "two", "three")]
        await until(lambda: len(bus_of(runner).peers) == len(started))
        data = wire.Wire().encode(BusCancelMessage(source="here"))
        for host in started:
            incarnation = incarnations(server)[host.name]
            session = bus_of(runner).session(incarnation)
            assert session is not None
            leave(server, incarnation, o=bus_of(runner).incarnation, n=session.sent + 1, m=data)
        for host in started:
            while not (statistics := await host.statistics())["refused"]:
                pass
            assert statistics["state"] == "connected"
            assert not host.has_said("ended")


@pytest.mark.slow
async def test_a_cancel_without_a_target_concerns_the_senders_process(server: RedisServer, backend: str) -> None:
    """X9: and nobody else."""
    async with Hosts(server.url) as hosts:
        here = await hosts.start("here", backend)
        there = await hosts.start("there", OTHER[backend])
        await here.tell("send_cancel")
        await here.said("ended")
        await there.said("on_peer_gone")
        assert (await there.statistics())["state"] == "connected"
        assert not there.has_said("ended")
