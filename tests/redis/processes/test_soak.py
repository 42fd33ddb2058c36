"""X2-X4, J1, J4, J5: processes and a server that are killed, frozen and started again at random, for a long time.

``WORKERBUS_SOAK=600 python -m pytest -q tests/redis/processes/test_soak.py`` does it for ten minutes;
``WORKERBUS_SEED`` is the seed of what is done when.
"""

import faulthandler
import logging
import os
from collections import Counter
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import anyio
import pytest
from hiredis import ReplyError

from support.processes import BACKENDS, BASE, LEASE, Host, Hosts, keys_of, pairs
from support.redis_servers import RedisServer

logger = logging.getLogger(__name__)

NAMES = [f"p{number}" for number in range(5)]
MOST_IN_INBOX = 1000
"""So many entries that were read and not trimmed may be in an inbox."""
POOL = "desk"
"""The name of a pool of which each process has a part."""
ROOM = 10
"""So many messages may wait for each worker."""
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
        workers = {f"clerk of {name}": "Clerk", f"slow of {name}": "Slow", POOL: "Pool"}
        host = await self._all.launch(name, self._random.choice(BACKENDS), workers, max_buffer_size=ROOM)
        await host.said("ready", patience=SETTLING)
        self._hosts[name] = host
        others = [f"clerk of {other}" for other in NAMES if other != name]
        await host.tell("bustle", workers=others, pool=POOL, slow=f"slow of {name}", seed=self._seed, at_once=5)

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
        """Kill it, freeze it, cut its connections, or have it write its file anew."""
        while self._goes_on():
            await anyio.sleep(self._random.random() * 3 * LEASE)
            what = self._random.choice(("killed", "frozen", "cut", "compacted"))
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
            elif what == "cut":
                self._server.call("CLIENT", "KILL", "TYPE", "normal")
            else:  # one that is killed often does not do so by itself
                with suppress(ReplyError):  # it does so already
                    self._server.call("BGREWRITEAOF")

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
        complaints, deadline = [""], anyio.current_time() + SETTLING
        while complaints and anyio.current_time() < deadline:
            lives = {name: await self._life(host) for name, host in self._hosts.items()}
            complaints = [*self._complaints(lives, sent), *self._complaints_of_slow(lives, settled)]
        assert complaints == []
        for host in self._hosts.values():
            self._look_at(host)
        assert self.problems == []
        assert not any("are missing" in reason for reason in outcomes), outcomes
        received = sum(account["last"] for life in lives.values() for account in life["received"].values())
        full = sum(life["slow"]["full"] for life in lives.values())
        return {"messages": received, "jobs": outcomes, "harm": self.done, "no room": full}

    async def _life(self, host: Host) -> dict[str, Any]:
        """What a process says of itself, and how long its inbox is."""
        await host.tell("sessions")
        life = {**await host.said("sessions"), **await host.statistics()}
        return {**life, "inbox": int(self._server.call("XLEN", f"{BASE}inbox:{life['incarnation']}"))}

    def _complaints(self, lives: dict[str, dict[str, Any]], sent: dict[str, int]) -> list[str]:
        """What is not as it has to be when all have come to rest."""
        found: list[str] = []
        alive = {life["incarnation"] for life in lives.values()}
        claims = pairs(self._server.call("HGETALL", BASE + "names"))
        if claims != {each.encode(): life["incarnation"].encode() for life in lives.values() for each in life["local"]}:
            found.append(f"the names are of {claims}")
        for name, life in lives.items():
            others = sorted(each for other in NAMES if other != name for each in lives[other]["local"])
            for what, expected in {"state": "connected", "in_flight": 0, "unsent": 0, "remote": others}.items():
                if life[what] != expected:
                    found.append(f"{name}: {what} is {life[what]}")
            if life["known"] != sorted(alive - {life["incarnation"]}):
                found.append(f"{name} knows {life['known']} of {alive}")
            if life["inbox"] > MOST_IN_INBOX:
                found.append(f"{life['inbox']} entries are in the inbox of {name}")
            found += [f"{key} at {name}: {what}" for key, what in life["received"].items() if set(what) != {"last"}]
            for session, last in sent.items():
                sender, _, receiver = session.partition(">")
                if receiver == life["incarnation"] and sender in alive:
                    account = life["received"].get(session)
                    if account != {"last": last}:
                        found.append(f"{session} at {name}: {account} of {last}")
        return found

    def _complaints_of_slow(self, lives: dict[str, dict[str, Any]], settled: dict[str, dict[str, Any]]) -> list[str]:
        """What is not as it has to be at the workers that are sent more than they can take."""
        found: list[str] = []
        for name, life in lives.items():
            slow, expected = life["slow"], {name: {"last": settled[name]["sent_here"]}}
            if slow["own"]:
                expected[f"slow of {name}"] = {"last": slow["own"]}
            if slow["report"] != expected:
                found.append(f"the slow worker of {name} has {slow['report']} of {expected}")
            if slow["deepest"] > ROOM:
                found.append(f"{slow['deepest']} messages have waited at the slow worker of {name}")
        return found

    async def end(self) -> None:
        for host in self._hosts.values():
            await host.end()


async def soak(seconds: float, seed: int) -> dict[str, Any]:
    """Do it, and return what has happened."""
    # With "everysec", one that is killed while its disk is slow may lose what it has confirmed in the last seconds.
    with RedisServer(appendfsync="always") as server:
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
    """X2-X4, X7, B8, J1, S2: order is kept, bounds are, and every job has an outcome, those of a shared pool, too."""
    seconds = float(os.environ["WORKERBUS_SOAK"])
    seed = int(os.environ.get("WORKERBUS_SEED", "1"))
    faulthandler.cancel_dump_traceback_later()
    faulthandler.dump_traceback_later(seconds + 300, exit=True)
    found = anyio.run(partial(soak, seconds, seed), backend=backend)
    assert found["messages"] > 0
    assert found["no room"] > 0
    logger.warning("%s", found)
