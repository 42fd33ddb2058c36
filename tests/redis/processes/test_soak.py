"""X2-X4, J1, J4, J5: processes and a server that are killed, frozen and started again at random, for a long time.

``WORKERBUS_SOAK=600 python -m pytest -q tests/redis/processes/test_soak.py`` does it for ten minutes;
``WORKERBUS_SEED`` is the seed of what is done when.
"""

import faulthandler
import logging
import os
from collections import Counter
from functools import partial
from random import Random
from typing import Any

import anyio
import pytest

from support.processes import BACKENDS, BASE, LEASE, Host, Hosts, keys_of
from support.redis_servers import RedisServer

logger = logging.getLogger(__name__)

NAMES = [f"p{number}" for number in range(5)]
SETTLING = 30.0
"""Seconds in which all that was asked has to be answered, when nothing more goes wrong."""


class Soak:
    """The processes, and what is done to them.

    Attributes:
        done: What was done, and how often.
        problems: What processes have said that they must not.
    """

    def __init__(self, server: RedisServer, hosts: Hosts, seed: int) -> None:
        self._server = server
        self._all = hosts
        self._random = Random(seed)
        self._seed = seed
        self._hosts: dict[str, Host] = {}
        self.done = Counter[str]()
        self.problems: list[str] = []

    async def begin(self) -> None:
        async with anyio.create_task_group() as group:
            for name in NAMES:
                group.start_soon(self._start, name)

    async def _start(self, name: str) -> None:
        self._seed += 100
        host = await self._all.launch(name, self._random.choice(BACKENDS), {f"clerk of {name}": "Clerk"})
        await host.said("ready", patience=SETTLING)
        self._hosts[name] = host
        others = [f"clerk of {other}" for other in NAMES if other != name]
        await host.tell("bustle", workers=others, seed=self._seed, at_once=5)

    async def harm(self, seconds: float) -> None:
        self._until = anyio.current_time() + seconds
        async with anyio.create_task_group() as group:
            group.start_soon(self._harm_processes)
            group.start_soon(self._harm_server)

    def _goes_on(self) -> bool:
        return anyio.current_time() < self._until and not self.problems

    async def _harm_processes(self) -> None:
        """Kill one after the other, or freeze it for a while, and start what was killed again."""
        while self._goes_on():
            name = self._random.choice(NAMES)
            host = self._hosts[name]
            if self._random.random() < 0.5:
                self.done["processes killed"] += 1
                await host.kill()
                self._look_at(host)
                await anyio.sleep(self._random.choice((0.0, 0.0, 2 * LEASE)))
                await self._start(name)
            else:
                self.done["processes frozen"] += 1
                host.freeze()
                await anyio.sleep(self._random.random() * 3 * LEASE)
                host.thaw()
            await anyio.sleep(self._random.random() * LEASE)

    async def _harm_server(self) -> None:
        """Kill it, freeze it, or cut its connections."""
        while self._goes_on():
            await anyio.sleep(self._random.random() * 3 * LEASE)
            what = self._random.choice(("killed", "frozen", "cut"))
            self.done[f"server {what}"] += 1
            away = self._random.choice((0.0, self._random.random() * 2 * LEASE))
            if what == "killed":
                self._server.kill()
                await anyio.sleep(away)
                self._server.start()
            elif what == "frozen":
                self._server.freeze()
                await anyio.sleep(away)
                self._server.thaw()
            else:
                self._server.call("CLIENT", "KILL", "TYPE", "normal")

    def _look_at(self, host: Host) -> None:
        for what in ("raised", "done twice", "ended"):
            if host.has_said(what):
                self.problems.append(f"{host.name} said {what!r}: {host.lines[-5:]}\n{host.log[-3000:]}")

    async def check(self) -> dict[str, Any]:
        """Let all come to rest, and see whether anything was lost, doubled or overtaken, or has no answer."""
        outcomes = Counter[str]()
        settled: dict[str, dict[str, Any]] = {}
        for host in self._hosts.values():
            await host.tell("settle")
        for name, host in self._hosts.items():
            settled[name] = await host.said("settled", patience=SETTLING)
            outcomes.update(settled[name]["outcomes"])
            assert settled[name]["wrong"] == [], name
        sent: dict[str, int] = {}
        for each in settled.values():
            sent.update(each["sent"])
        lives = {name: await self._sessions(host) for name, host in self._hosts.items()}
        received = 0
        alive = {each["incarnation"] for each in lives.values()}
        for name, life in lives.items():
            assert set(life["peers"]) == alive - {life["incarnation"]}, f"{name} knows others than there are"
            for session, found in life["received"].items():
                assert set(found) == {"last"}, f"{session} at {name}: {found}"
                received += found["last"]
            for session, last in sent.items():
                sender, _, receiver = session.partition(">")
                if receiver == life["incarnation"] and sender in alive:
                    assert life["received"].get(session) == {"last": last}, f"{session} at {name}"
            assert (await self._hosts[name].statistics())["in_flight"] == 0
            assert int(self._server.call("XLEN", f"{BASE}inbox:{life['incarnation']}")) < 1000
        for host in self._hosts.values():
            self._look_at(host)
        assert self.problems == []
        assert not any("are missing" in reason for reason in outcomes), outcomes
        return {"messages": received, "jobs": outcomes, "harm": self.done}

    async def _sessions(self, host: Host) -> dict[str, Any]:
        while True:
            await host.tell("sessions")
            said = await host.said("sessions")
            if not said["unsent"]:
                return said

    async def end(self) -> None:
        for host in self._hosts.values():
            await host.end()


async def soak(seconds: float, seed: int) -> dict[str, Any]:
    """Do it, and return what has happened."""
    # With "everysec", one that is killed while its disk is slow may lose what it has confirmed in the last seconds.
    with RedisServer(appendfsync="always", auto_aof_rewrite_min_size="1mb") as server:
        async with Hosts(server.url, lease=LEASE) as hosts:
            it = Soak(server, hosts, seed)
            await it.begin()
            await it.harm(seconds)
            found = await it.check()
            await it.end()
        assert keys_of(server) == []
        return found


@pytest.mark.slow
@pytest.mark.skipif("WORKERBUS_SOAK" not in os.environ, reason="takes as many seconds as WORKERBUS_SOAK says")
def test_what_goes_wrong_at_random_loses_and_doubles_nothing(backend: str) -> None:
    """X2-X4, J1: order is kept, and every job has an outcome."""
    seconds = float(os.environ["WORKERBUS_SOAK"])
    seed = int(os.environ.get("WORKERBUS_SEED", "1"))
    faulthandler.cancel_dump_traceback_later()
    faulthandler.dump_traceback_later(seconds + 300, exit=True)
    found = anyio.run(partial(soak, seconds, seed), backend=backend)
    assert found["messages"] > 0
    logger.warning("%s", found)
