"""B1, X10: a bus that is opened again is as good as new, whatever it has been through: in virtual time, in memory."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from functools import partial

import anyio
import pytest
from anyio import current_time, sleep

from support.hand_redis import HandRedis
from support.messages import Note, note
from support.runners import runner_on
from support.subscribers import Plain
from support.workers import Helper
from workerbus import BusMessage, BusUnavailable, Peer
from workerbus._backoff import jitter
from workerbus.redis import RedisBus
from workerbus.testing import run

LEASE, TIMEOUT, LATENCY = 2.0, 1.5, 0.01
FULL = "OOM command not allowed when used memory > 'maxmemory'."
EVENTS = ("on_connected", "on_disconnected", "on_peer_joined", "on_peer_gone", "on_gap", "on_fenced")
COUNTS = ("transmitted", "arrived", "retries", "connections_lost", "unsent", "malformed", "waiting")


def new_bus() -> RedisBus:
    return RedisBus("redis://server", lease=LEASE, send_timeout=TIMEOUT, name="left")


class Day:
    """What is seen of a bus from before it opens until it has closed, with all that may befall it in between.

    Attributes:
        seen: Each thing, with how many seconds after the beginning it was seen.
    """

    def __init__(self, server: HandRedis, bus: RedisBus) -> None:
        self.seen: list[tuple[float, str]] = []
        self._server = server
        self._bus = bus
        self._begun = current_time()
        self._before = bus.statistics()
        self._ear = Plain("ear")

    def see(self, what: object, at: float | None = None) -> None:
        text = re.sub(r"[0-9a-f]{12,}|[A-Za-z]+-\d+|'pid': \d+|0x\w+", "…", str(what))
        self.seen.append((round((current_time() if at is None else at) - self._begun, 2), text))

    def look(self) -> None:
        now, before = self._bus.statistics(), self._before
        counts = {name: getattr(now, name) - getattr(before, name) for name in COUNTS}
        beats = (now.lives, now.lag, now.round_trip and round(now.round_trip, 2)) if self._bus.is_open else ""
        self.see(f"{self._bus.state}, {beats}, {sorted(self._bus.claimed_names)}, {self._bus.in_words()}, {counts}")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        for event in EVENTS:
            self._bus.add_event_handler(event, partial(self._told, event))
        done = len(self._server.done)
        handler = logging.Handler()
        handler.addFilter(lambda record: "'left'" in record.getMessage())
        handler.emit = lambda record: self.see(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
        loggers = [logging.getLogger(f"workerbus.{name}") for name in ("redis", "bus")]
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
        for at, purpose, what in self._server.done[done:]:
            if purpose.startswith("left"):
                self.see(f"{purpose} {what}", at)

    def _told(self, event: str, _bus: object, *args: object) -> None:
        self.see(f"{event}: {[each.name if isinstance(each, Peer) else each for each in args]}")

    async def send(self, *numbers: int) -> None:
        for n in numbers:
            try:
                await self._bus.send(note(n, target="ear"))
            except BusUnavailable as error:
                self.see(f"{n} was not sent: {error}")
            else:
                self.see(f"{n} is sent")

    async def live(self) -> None:
        async with RedisBus("redis://server", lease=LEASE, name="right") as right:
            with self._watched():
                await self._live(right)
            self.see([each.n for each in self._ear.got if isinstance(each, Note)])

    async def _live(self, right: RedisBus) -> None:
        server, bus = self._server, self._bus
        await right.subscribe(self._ear)
        self.look()
        async with anyio.create_task_group() as group:
            server.go_away()
            group.start_soon(self._later, 0.5, server.come_back)
            group.start_soon(self.send, 1, 2)
            group.start_soon(self._later, 0.2, self.look)
            async with bus, runner_on(bus, "left") as runner:
                for command in ("XADD", "BEAT"):  # before anything was stored, and before the first one
                    server.refuse(command, FULL)
                    group.start_soon(self._later, 0.5, partial(server.refuse, command, None))
                runner.add_event_handler("on_error", lambda _, data: self.see(f"reported: {data.error}"))
                worker = Helper("w")
                await runner.add_workers(worker)
                await sleep(0.75)
                self.look()
                for command in ("XADD", "BEAT", "XREAD"):
                    server.refuse(command, FULL)
                    group.start_soon(self.send, 3)
                    await sleep(0.7)
                    server.refuse(command, None)
                    await sleep(0.8)
                    self.look()
                server.cut_off("left:writer")
                await self.send(4)
                await sleep(1.0)
                self.look()
                server.forget(bus.incarnation)
                await sleep(1.0)
                self.look()
                server.go_away()
                group.start_soon(self.send, 5)
                await sleep(0.3)
                server.come_back()
                await sleep(1.0)
                await worker.stop()
                await self.send(6)
                self.look()
        self.look()

    @staticmethod
    async def _later(seconds: float, do: Callable[[], None]) -> None:
        await sleep(seconds)
        do()


async def _befall(server: HandRedis, bus: RedisBus, what: str) -> None:
    """Open a bus and close it, when something has befallen it."""
    if what == "it did not open":
        server.go_away()
        with pytest.raises(BusUnavailable):
            async with bus:
                pytest.fail("it has opened")
        return
    async with bus, anyio.create_task_group() as group:
        await sleep(LEASE)
        if what == "fenced":
            server.forget(bus.incarnation)
            server.refuse("JOIN", FULL)
        elif what in ("XADD", "BEAT", "XREAD", "CLAIM"):
            server.refuse(what, FULL)
            bus.post(_Posted)
        elif what == "reserved":
            bus.keep_name("w")
            bus.name_lost("v", "right")
        elif what == "away":
            server.go_away()
        elif what == "cancelled":
            group.cancel_scope.cancel()
        await sleep(1.0)


_Posted: BusMessage = note(9, target="nobody")


@pytest.mark.parametrize(
    "what",
    ["nothing", "it did not open", "fenced", "XADD", "BEAT", "XREAD", "CLAIM", "reserved", "away", "cancelled"],
)
def test_a_bus_that_is_opened_again_is_as_a_new_one(
    backend: str, what: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B1, X2, X5, X10: in all that it asks of the server, and when, in what it tells, and in what it counts."""
    monkeypatch.setattr(jitter(), "uniform", lambda _low, _high: 0.0)
    caplog.set_level(logging.INFO, logger="workerbus")

    async def main(again: bool) -> list[tuple[float, str]]:
        server, bus = HandRedis(LEASE), new_bus()
        server.latency = LATENCY
        server.about["persistence"] = "aof_enabled:0\r\n"
        with server.reached():
            if again:
                async with RedisBus("redis://server", lease=LEASE, name="right"):
                    await _befall(server, bus, what)
                    server.well()
            day = Day(server, bus)
            await day.live()
        return sorted(day.seen)

    new, again = (run(partial(main, again), backend=backend, seed=1, limit=120.0) for again in (False, True))
    assert again == new
