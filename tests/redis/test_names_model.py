"""X5: the names of workers beside what a server has to know of them, in virtual time, with all under way at once."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import anyio.lowlevel
import pytest
from anyio import Event, create_task_group, move_on_after, sleep
from anyio.abc import TaskGroup
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.clock import run
from workerbus import Peer
from workerbus.redis._errors import ConnectionLost, RedisReplyError
from workerbus.redis._membership import Member
from workerbus.redis._names import Names

NAMES = ("u", "v", "w", "x", "y", "z")
T = TypeVar("T")
OTHER = Member(Peer("other", "other 1"))
PAUSES = (0.0, 0.0, 0.01, 0.05)
LONG = 2.0
WHAT = ("slow", "slow", "loses", "loses", "refuses", "other", "life")


@pytest.mark.slow
@frozen
class Step:
    """What a worker's name goes through: after a pause it is claimed, held, and given back.

    Args:
        name: The name.
        pause: Before it is claimed, in seconds.
        holds: For how many seconds it is held.
        patience: After how many seconds its claim is given up.
    """

    name: str
    pause: float
    holds: float
    patience: float


@frozen
class Fault:
    """What befalls the server for a while.

    Args:
        after: In how many seconds it begins.
        what: ``"slow"``; ``"loses"`` connections, before something is done or behind it; ``"refuses"`` to take names
            back; has the names with ``"other"``; begins another ``"life"``.
    """

    after: float
    what: str


steps = st.lists(
    st.builds(
        Step,
        name=st.sampled_from(NAMES),
        pause=st.sampled_from(PAUSES),
        holds=st.sampled_from(PAUSES),
        patience=st.sampled_from((0.005, 0.015, 0.025, LONG, LONG)),
    ),
    min_size=4,
    max_size=20,
)
faults = st.lists(st.builds(Fault, after=st.sampled_from(PAUSES), what=st.sampled_from(WHAT)), max_size=4)


class World:
    """Names, their server, and the workers that have them.

    Attributes:
        names: A name to who has it, at the server.
        held: Which names workers have here.
        found: What was not as it should be.
        refusals: What the server has said when it refused.
        refused: Which names it has refused to take back.
    """

    def __init__(self, group: TaskGroup) -> None:
        self.names: dict[str, str] = {}
        self.held: set[str] = set()
        self.found: list[str] = []
        self.refusals: list[str] = []
        self.refused: set[str] = set()
        self.life = 1
        self.over = False
        self._group = group
        self._delay = 0.01
        self._refuses = self._loses = False
        self._calls = self._batches = 0
        self._line = Event()
        self._line.set()
        self._wake = Event()
        membership: Any = self
        tasks: Any = self
        self._tasks = tasks
        self.subject = Names(membership, lambda: f"me {self.life}", self._on_server, self.refusals.append, self._woken)

    def start(self, call: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        self._group.start_soon(call, *args, name=name)

    def _woken(self) -> None:
        self._wake.set()

    # --- the server

    async def _on_server(self, call: Callable[[Any], Awaitable[Any]]) -> Any:
        while True:
            with suppress(ConnectionLost):
                return await call(None)

    async def _do(self, command: Callable[[], T]) -> T:
        """Do a command behind those that have come before over the same connection, also where nobody waits for it."""
        before, self._line = self._line, Event()
        mine, replies = self._line, list[T]()
        self._calls += 1
        lost = self._calls % 3 if self._loses else 0

        async def arrive() -> None:
            await before.wait()
            await sleep(self._delay)
            if lost != 1:
                replies.append(command())
            mine.set()

        self._group.start_soon(arrive)
        await mine.wait()
        await sleep(self._delay)
        if lost:
            raise ConnectionLost("here", "it was lost", sent=True)
        return replies[0]

    async def claim(self, _: object, me: str, names: Iterable[str]) -> dict[str, Member] | None:
        (name,) = names

        def claim() -> dict[str, Member] | None:
            if me != f"me {self.life}":
                return None
            if self.names.setdefault(name, me) != me:
                return {name: OTHER}
            return {}

        return await self._do(claim)

    async def release(self, _: object, me: str, names: Iterable[str]) -> None:
        def release() -> bool:
            if self._refuses:
                self.refused.update(names)
            else:
                self._free(me, names)
            return self._refuses

        if await self._do(release):
            raise RedisReplyError("NOPERM no")

    def _free(self, me: str, names: Iterable[str]) -> None:
        for name in names:
            if self.names.get(name) == me:
                if name in self.held and me == f"me {self.life}":
                    self.found.append(f"{name} was given back while a worker had it")
                del self.names[name]

    def releasing(self, me: str, names: Iterable[str]) -> Any:
        return me, tuple(names)

    async def write(self) -> None:
        """Give names back in batches, as the writer does."""
        while True:
            self.subject.begin()
            while not self.subject.waits():
                self._wake = Event()
                await self._wake.wait()
            release: Any = self.subject.take()
            if release is None:
                await anyio.lowlevel.checkpoint()
                continue
            me, names = release
            self._batches += 1
            await sleep(0.002 if self._batches % 2 else 0.05)
            if self._refuses:
                self.refused.update(names)
                self.subject.settle(RedisReplyError("NOPERM no"))
                continue
            self._free(me, names)
            await sleep(0.002)
            self.subject.settle(0)

    # --- the program

    async def work(self, steps: list[Step]) -> None:
        """Do what workers of one name do, one after the other."""
        for step in steps:
            await sleep(step.pause)
            name, life = step.name, self.life
            owner, answered = None, False
            with move_on_after(step.patience):
                owner, answered = await self.subject.claim(name), True
            if step.patience == LONG and not answered:
                self.found.append(f"a claim of {name} has got no answer")
            if owner is None and answered and life == self.life:
                if self.names.get(name) != f"me {life}":
                    self.found.append(f"{name} is with {self.names.get(name)}, though it was claimed")
                self.held.add(name)
                await sleep(step.holds)
                if life == self.life and self.names.get(name) != f"me {life}":
                    self.found.append(f"{name} is with {self.names.get(name)}, though a worker has it")
                self.held.discard(name)
            if owner is None:
                self.subject.release(name, self._tasks, "names")

    async def befall(self, faults: list[Fault]) -> None:
        for fault in faults:
            await sleep(fault.after)
            if fault.what == "slow":
                self._delay = 0.1
            elif fault.what == "loses":
                self._loses = True
            elif fault.what == "refuses":
                self._refuses = True
            elif fault.what == "life":  # all that was claimed in the one before is free
                self.names = {name: owner for name, owner in self.names.items() if owner == "other"}
                self.held.clear()
                self.life += 1
            else:
                self.names |= {name: "other" for name in NAMES if name not in self.names}
            await sleep(0.2)
            self._delay, self._refuses, self._loses = 0.01, False, False
            for name in [name for name, owner in self.names.items() if owner == "other"]:
                del self.names[name]


laws = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(laws, max_examples=100)
@given(steps, faults, st.integers(0, 10_000))
def test_the_server_has_each_name_for_as_long_as_a_worker_has_it(
    backend: str, steps: list[Step], faults: list[Fault], seed: int
) -> None:
    """X5: whatever is claimed, given up and given back at the same time, or refused; and in another life anew."""

    async def main() -> tuple[World, bool]:
        async with create_task_group() as group:
            world = World(group)
            group.start_soon(world.write)
            async with create_task_group() as workers:
                workers.start_soon(world.befall, faults)
                for name in NAMES:
                    workers.start_soon(world.work, [step for step in steps if step.name == name])
            await sleep(LONG)
            group.cancel_scope.cancel()
        return world, world.subject.waits()

    world, waits = run(main, backend=backend, seed=seed, limit=120.0)
    assert world.found == []
    assert set(world.names) <= world.refused
    assert not waits
    if not any(fault.what == "refuses" for fault in faults):
        assert world.refusals == []
    assert world.subject._unsure == world.subject._behind == set()
