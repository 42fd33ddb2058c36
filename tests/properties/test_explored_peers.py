"""Processes on a network that loses messages, fences and kills: each fault, and any switch beside it (X2-X5).

Two processes run a short program of `peer_world`. What befalls a message is a choice: that it is lost, that its sender
is declared lost or is gone with it; or that it comes twice, comes once more when its sender's life is over, or is never
confirmed. The messages of opening, of names and of leaving are among them. What has to hold is looked at when all is
over, as in `test_peer_sessions`, whose programs and faults are drawn.
"""

import logging
from contextlib import suppress
from functools import partial

import anyio
import pytest

from properties.peer_world import Movers, Speakers, Step, Workers
from properties.test_peer_sessions import check_jobs, check_sessions
from support.explored import Scenario, holds, holds_with_a_fault
from workerbus import JobError, NameTakenError, PeerBus, WorkerRunner
from workerbus.testing import EchoWorker, PeerFaults, PeerNetwork, always, nothing_left

pytestmark = pytest.mark.slow


LOSSES = PeerFaults(lose=0.1, fence=0.1, kill=0.1)
DOUBTS = PeerFaults(duplicate=0.1, late=0.1, unconfirmed=0.1)
KILLS = PeerFaults(kill=0.1)
SPLITS = PeerFaults(split=0.1, split_seconds=(0.0, 2.0))
REST = Step(2.5, "start", 0, 0)
"""Nothing more happens, so that what was begun last has its faults, too: a program's plan ends with its last step."""


async def what_is_said(faults: PeerFaults, *program: Step) -> None:
    """X2, X3, X4: between one life and another all arrives once and in order."""
    world = Speakers(2, 1, faults)
    await world.play(list(program), world.main, world.do)
    check_sessions(world)


async def what_is_asked(faults: PeerFaults, *program: Step) -> None:
    """X3, X4, J1, J4, J5, L1: each job is answered, once; no handler goes on for nobody; all agree on who there is."""
    world = Workers(2, 1, faults)
    await world.play([*program, REST], world.main, world.do)
    check_jobs(world)


async def whose_a_name_is(faults: PeerFaults, *program: Step) -> None:
    """X4, X5: one process's at most, and all agree whose."""
    world = Movers(2, 1, faults)
    await world.play([*program, REST], world.main, world.do)
    assert world.found == []


async def a_clean_end(faults: PeerFaults) -> None:
    """X4, X5, J4: a process leaves while it is asked; the answer comes or an error, and its name is free."""
    network = PeerNetwork(faults=faults, lease=4.0, beat=1.0)

    async def host(end: PeerBus) -> None:
        async with WorkerRunner(bus=end, name="there") as runner:
            runner.add_event_handler("on_error", lambda runner, data: None)
            await runner.add_workers(EchoWorker("echo", after=1))
            await anyio.sleep(1)

    async with nothing_left(), anyio.create_task_group() as group:
        group.start_soon(network.run, "there", host)
        async with WorkerRunner(bus=network.end("here"), name="here") as runner:
            runner.add_event_handler("on_error", lambda runner, data: None)
            with suppress(JobError):
                assert await runner.job("echo", payload={"n": 1}, timeout=10) == {"n": 1}
            await anyio.sleep(10)
            assert network.claims == {}
            await runner.add_workers(EchoWorker("echo"))
            assert await runner.job("echo", payload={"n": 2}, timeout=10) == {"n": 2}


async def two_claims(*pauses: float) -> None:
    """X5: of two who claim a name at once one gets it, and the other is told; at no moment both have it."""
    network, have = PeerNetwork(lease=4.0, beat=1.0), list[str]()

    async def claim(name: str, pause: float) -> None:
        async with WorkerRunner(bus=network.end(name), name=name) as runner:
            await anyio.sleep(pause)
            with suppress(NameTakenError):
                await runner.add_workers(EchoWorker("echo"))
                have.append(name)
            await anyio.sleep(5)
            assert network.claims == {"echo": have[0]}

    async with nothing_left(), anyio.create_task_group() as group:
        with always(lambda: len(have) <= 1):
            for name, pause in zip(("left", "right"), pauses, strict=True):
                group.start_soon(claim, name, pause)
            await anyio.sleep(9)
        assert len(have) == 1


TALK = (Step(0, "say", 0, 1), Step(0, "whisper", 0, 1), Step(0, "say", 0, 1), Step(0, "say", 1, 0, "relay"))
IN_FLIGHT = (Step(0, "ask", 0, 1, "slow"), Step(0.3, "ask", 1, 0, "echo"))

WITH_A_FAULT: dict[str, Scenario] = {
    "said, lost": partial(what_is_said, LOSSES, *TALK),
    "said, in doubt": partial(what_is_said, DOUBTS, *TALK),
    "asked, lost": partial(what_is_asked, LOSSES, *IN_FLIGHT[:1]),
    "asked both ways, killed": partial(what_is_asked, KILLS, *IN_FLIGHT),
    "asked, in doubt": partial(what_is_asked, DOUBTS, *IN_FLIGHT[:1]),
    "asked, split": partial(what_is_asked, SPLITS, *IN_FLIGHT[:1]),
    "a stream, killed": partial(what_is_asked, KILLS, Step(0, "ask", 0, 1, "stream")),
    "a job that hangs, killed": partial(what_is_asked, KILLS, Step(0, "ask", 0, 1, "hang")),
    "a group, killed": partial(what_is_asked, KILLS, Step(0, "ask", 0, 1, "group")),
    "asked on, killed": partial(what_is_asked, KILLS, Step(0, "ask", 0, 1, "relay")),
    "fenced in a job, killed": partial(what_is_asked, KILLS, IN_FLIGHT[0], Step(0.3, "fence", 1, 1)),
    "two hosts, killed": partial(whose_a_name_is, KILLS, Step(0, "host", 0, 0), Step(0, "host", 1, 0)),
    "a name that moves, killed": partial(
        whose_a_name_is, KILLS, Step(0, "host", 0, 0), Step(1, "drop", 0, 0), Step(0, "host", 1, 0)
    ),
    "a clean end, killed": partial(a_clean_end, KILLS),
}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="workerbus")


@pytest.mark.parametrize("name", WITH_A_FAULT)
def test_processes_keep_what_they_promise_with_any_fault(backend: str, name: str) -> None:
    """T1, T7: whatever befalls one message, or another order of two steps in its place, or both."""
    assert holds_with_a_fault(WITH_A_FAULT[name], backend)


def test_two_claims_at_once_keep_what_they_promise(backend: str) -> None:
    """T1, X5: with any switch, to the end."""
    assert holds(partial(two_claims, 1, 1), backend, 1)
