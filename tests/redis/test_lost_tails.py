"""X3: a server that was started anew may have lost the very last that it had confirmed, and nothing comes after it."""

from collections.abc import Iterator

import anyio
import pytest

from support.redis_servers import RedisServer, redis_running, until
from support.workers import Helper
from workerbus import JobError, Peer, WorkerRunner
from workerbus.bus._peers import Session
from workerbus.redis import RedisBus
from workerbus.redis._outbox import Outbox, SharedReceipt


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_running(appendfsync="always") as server:  # else it may lose more than a test takes away
        yield server


def lose_a_message(sender: RedisBus) -> None:
    """As if the server had confirmed a message and forgotten it."""
    (peer,) = sender.peers
    session = sender.session(peer.incarnation)
    assert session is not None
    session.next_number()


@pytest.mark.slow
async def test_the_receiver_notices_that_the_last_message_is_lost(server: RedisServer) -> None:
    """X3: as soon as its sender has connected again, without anything else that is sent; each time."""
    left, right = (RedisBus(server.url, name=name) for name in ("left", "right"))
    with anyio.fail_after(60):
        async with left, right:
            for lost in (1, 2, 3):
                await until(lambda: left.peers and left.peers[0].incarnation == right.incarnation and right.peers)
                lose_a_message(left)
                server.restart()
                await until(lambda: right.statistics().lives == lost + 1)  # noqa: B023 - awaited in this very step
                assert right.statistics().gaps == lost
                assert left.statistics().lives == 1


async def test_a_job_whose_answer_is_lost_with_the_server_is_answered(server: RedisServer) -> None:
    """X3, J4: its requester notices that something is missing, and is cut off until it has joined again."""
    left, right = RedisBus(server.url), RedisBus(server.url)
    asking, answering = WorkerRunner(name="left", bus=left), WorkerRunner(name="right", bus=right)
    with anyio.fail_after(60):
        async with asking, answering:
            helper = Helper("helper")
            await answering.add_workers(helper)

            async def lose_it() -> None:
                await helper.begun.wait()
                lose_a_message(right)
                server.restart()

            async with anyio.create_task_group() as group:
                group.start_soon(lose_it)
                with pytest.raises(JobError, match="are missing"):
                    await asking.job("helper", name="wait")


async def test_nobody_is_cut_off_where_nothing_is_lost(server: RedisServer) -> None:
    """X2, X3: marks are numbered, too, and what comes after them is in order."""
    left, right = RedisBus(server.url), RedisBus(server.url)
    asking, answering = WorkerRunner(name="left", bus=left), WorkerRunner(name="right", bus=right)
    with anyio.fail_after(60):
        async with asking, answering:
            await answering.add_workers(Helper("helper"))
            for _ in range(3):
                assert await asking.job("helper", name="echo", payload={"n": 1})
                server.restart()
            assert await asking.job("helper", name="echo", payload={"n": 1})
            assert [bus.statistics().lives for bus in (left, right)] == [1, 1]
            assert [bus.statistics().gaps for bus in (left, right)] == [0, 0]
            assert [bus.statistics().malformed for bus in (left, right)] == [0, 0]


async def test_a_mark_is_for_those_who_were_sent_something_and_for_whom_nothing_waits() -> None:
    """X3: what waits has a number, too, or will have one."""
    new, waited_for, marked = (Peer(name, name) for name in ("new", "waited for", "marked"))
    sessions = {peer.incarnation: Session(peer) for peer in (new, waited_for, marked)}
    sessions["waited for"].sent = sessions["marked"].sent = 7
    outbox = Outbox("bus", sessions.get)
    outbox.put(b"message", [waited_for], SharedReceipt(1, target=False), 0.0)
    for _ in range(2):
        outbox.mark([new, waited_for, marked], 0.0)
        batch = await outbox.next_batch()
        assert [(entry.peer, entry.data, entry.number) for entry in batch] == [
            (waited_for, b"message", 8),
            (marked, b"", 8),
        ]
    outbox.settle([True, True])
    assert (outbox.entries, outbox.size) == (0, 0)
