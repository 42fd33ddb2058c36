"""The names of workers: what is given back goes out with the messages, and claims come behind that."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from support.redis_members import Members
from support.redis_servers import redis_running, until
from workerbus import Peer
from workerbus.bus._peers import Session
from workerbus.redis._connection import Connection
from workerbus.redis._errors import ConnectionLost
from workerbus.redis._names import Names
from workerbus.redis._opening import connect
from workerbus.redis._outbox import Outbox, SharedReceipt
from workerbus.redis._protocol import Command
from workerbus.redis._settings import RedisSettings
from workerbus.redis._writer import Writer

B = Peer("b", "b1")


class World:
    """A member, its names and what writes for it; and another member, which claims what is free."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.life = "a1"
        self.refusals: list[str] = []
        self.outbox = Outbox("bus", {"b1": Session(B)}.get)
        membership = members.membership
        self.names = Names(membership, lambda: self.life, self.on_server, self.refusals.append, self.outbox.wake)
        self.writer = Writer(
            self.outbox,
            membership.inbox,
            lambda: self.life,
            inbox_size=1000,
            refused=self.refusals.append,
            released=self.names,
        )

    async def on_server(self, call: Any) -> Any:
        return await call(self.members.connection)

    @asynccontextmanager
    async def writing(self, connection: Any) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.writer.run, connection)
            yield
            group.cancel_scope.cancel()

    def release(self, name: str, tasks: Any = None) -> None:
        self.names.release(name, tasks, "names")

    def put(self, data: bytes) -> None:
        self.outbox.put(data, [B], SharedReceipt(1, target=True), anyio.current_time())

    def owner(self, name: str) -> bytes | None:
        owner: bytes | None = self.members.server.call("HGET", self.members.membership.base + "names", name)
        return owner


@pytest.fixture
async def world(members: Members) -> World:
    for incarnation in ("a1", "b1"):
        await members.join(incarnation)
    return World(members)


class Watched:
    """A connection that notes what is written at once, and may be lost before it says what became of it."""

    address = "here"

    def __init__(self, connection: Connection, *, loses: bool = False, heard: bool = True) -> None:
        self._connection = connection
        self._loses = loses
        self._heard = heard
        self.written: list[list[str]] = []

    async def pipeline(self, commands: Iterable[Command], **kwargs: Any) -> list[Any]:
        given = list(commands)
        self.written.append([str(command[0]) for command in given])
        if not self._heard:
            raise ConnectionLost("here", "it was lost", sent=True)
        replies = await self._connection.pipeline(given, **kwargs)
        if self._loses:
            raise ConnectionLost("here", "it was lost", sent=True)
        return replies


async def test_a_name_is_given_back_in_one_step_with_the_message_that_says_so(
    world: World, connection: Connection
) -> None:
    """X5: nobody hears that a worker has gone before its name is free, and nobody has its name before that is told."""
    assert await world.names.claim("w") is None
    watched = Watched(connection)
    world.release("w")
    world.put(b"w has gone")
    async with world.writing(watched):
        await world.outbox.empty()
    assert watched.written == [["MULTI", "EVAL", "XADD", "EXEC"]]
    assert world.owner("w") is None


async def test_a_name_goes_back_with_that_message_also_where_nothing_was_to_be_written_before(
    world: World, connection: Connection
) -> None:
    """X5"""
    assert await world.names.claim("w") is None
    watched = Watched(connection)
    async with world.writing(watched):
        await anyio.wait_all_tasks_blocked()
        world.release("w")
        world.put(b"w has gone")
        await world.outbox.empty()
    assert watched.written == [["MULTI", "EVAL", "XADD", "EXEC"]]


async def test_a_name_is_given_back_where_nobody_is_to_be_told(world: World, connection: Connection) -> None:
    """X5: whether or not the writer sleeps."""
    await world.names.claim("w")
    async with world.writing(connection):
        for _ in range(3):
            world.release("w")
            await until(lambda: world.owner("w") is None)
            await world.names.claim("w")
            assert world.owner("w") == b"a1"


async def test_a_claim_takes_back_what_was_to_be_given_back(world: World, connection: Connection) -> None:
    """X5: it is not given back behind the claim."""
    await world.names.claim("w")
    world.release("w")
    assert await world.names.claim("w") is None
    world.put(b"later")
    async with world.writing(connection):
        await world.outbox.empty()
    assert world.owner("w") == b"a1"


async def test_a_claim_waits_until_it_is_known_that_the_name_was_given_back(
    world: World, connection: Connection
) -> None:
    """X5: what was lost half-way is written again, and would give back what was claimed meanwhile."""
    await world.names.claim("w")
    world.release("w")
    with pytest.raises(ConnectionLost):
        await world.writer.run(Watched(connection, loses=True))  # type: ignore[arg-type]  # all that it uses
    claimed: list[object] = []

    async def claim() -> None:
        claimed.append(await world.names.claim("w"))

    async with anyio.create_task_group() as group:
        group.start_soon(claim)
        await anyio.wait_all_tasks_blocked()
        assert not claimed
        async with world.writing(connection):
            await until(lambda: claimed == [None])
    assert world.owner("w") == b"a1"


async def test_names_that_have_not_reached_the_server_are_given_back_on_the_next_connection(
    world: World, connection: Connection
) -> None:
    """X2, X5: and those that were to be given back since."""
    for name in "v", "w":
        await world.names.claim(name)
    world.release("v")
    with pytest.raises(ConnectionLost):
        await world.writer.run(Watched(connection, heard=False))  # type: ignore[arg-type]  # all that it uses
    world.release("w")
    async with world.writing(connection):
        await until(lambda: world.owner("v") is world.owner("w") is None)
        await until(lambda: not world.names.waits())


async def test_what_was_on_its_way_in_another_life_holds_up_no_claim(world: World, connection: Connection) -> None:
    """X5: with a life go its claims."""
    await world.names.claim("w")
    world.release("w")
    with pytest.raises(ConnectionLost):
        await world.writer.run(Watched(connection, loses=True))  # type: ignore[arg-type]  # all that it uses
    await world.members.leave("a1")
    await world.members.join("a2", "a")
    world.life = "a2"
    watched = Watched(connection)
    async with world.writing(watched):
        assert await world.names.claim("w") is None
    assert watched.written == []
    assert world.owner("w") == b"a2"


async def test_a_name_of_a_life_that_is_over_is_not_given_back_and_keeps_nothing_from_being_written(
    world: World, connection: Connection
) -> None:
    """X4, X5: it has gone with that life."""
    await world.names.claim("w")
    world.release("w")
    await world.members.leave("a1")
    await world.members.join("a2", "a")
    world.life = "a2"
    assert await world.members.claim("a2", "w") == {}
    async with world.writing(connection):
        await until(lambda: not world.names.waits())
        world.put(b"later")
        await world.outbox.empty()
    assert world.owner("w") == b"a2"


class Tasks:
    """Starts tasks in a group."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group

    def start(self, function: Any, *args: Any, name: str) -> None:
        self._group.start_soon(function, *args, name=name)


@pytest.mark.parametrize("again", [False, True])
async def test_a_name_whose_claim_was_cut_short_is_given_back_behind_it(world: World, again: bool) -> None:
    """X5: on the connection of the claim, which may reach the server yet; and not if it has been claimed again."""
    reached = anyio.Event()
    through = world.on_server

    async def slow(call: Any) -> Any:
        answer = await through(call)
        reached.set()
        await anyio.sleep_forever()
        return answer

    world.names._on_server = slow
    async with anyio.create_task_group() as group:
        group.start_soon(world.names.claim, "w")
        await reached.wait()
        group.cancel_scope.cancel()
    assert world.owner("w") == b"a1"
    world.names._on_server = through
    async with anyio.create_task_group() as group:
        world.release("w", Tasks(group))
        if again:
            await world.names.claim("w")
    assert world.owner("w") == (b"a1" if again else None)


async def test_a_name_that_one_may_not_give_back_holds_up_no_message(world: World) -> None:
    """X2, X5, X10: the right to do it was taken away, so that no transaction with it is done."""
    server = world.members.server
    for name in ("v", "w"):
        await world.names.claim(name)
    server.add_user("writer", "secret", "~*", "+@all", "-eval")
    limited = await connect(RedisSettings.parse(server.url.replace("redis://", "redis://writer:secret@")))
    async with world.writing(limited):
        for name in ("v", "w"):
            world.release(name)
            world.put(b"%s has gone" % name.encode())
            await world.outbox.empty()
    await limited.aclose()
    assert server.call("XLEN", world.members.membership.inbox("b1")) == 3  # and that it has joined
    assert world.refusals
    assert all("NOPERM" in each for each in world.refusals)


async def test_a_name_that_the_server_does_not_take_back_for_now_is_given_back_later() -> None:
    """X2, X5: as where its replicas are away; what is to be written with it waits as well."""
    with redis_running() as server:
        connection = await connect(RedisSettings.parse(server.url))
        members = Members(server, connection)
        for incarnation in ("a1", "b1"):
            await members.join(incarnation)
        world = World(members)
        for name in ("v", "w"):
            await world.names.claim(name)
        async with world.writing(connection):
            for name, data in (("v", b""), ("w", b"w has gone")):
                told = len(world.refusals)
                server.config_set("min-replicas-to-write", "1")
                world.release(name)
                if data:
                    world.put(data)
                await until(lambda: len(world.refusals) > told)  # noqa: B023 - awaited in this very step
                server.config_set("min-replicas-to-write", "0")
                await until(lambda: world.owner(name) is None)  # noqa: B023 - the same
                await world.outbox.empty()
        await connection.aclose()
        assert all("NOREPLICAS" in each for each in world.refusals)
        assert server.call("XLEN", members.membership.inbox("b1")) == 2  # that it has joined, and the message


async def test_a_name_that_the_server_does_not_take_back_holds_up_no_message(
    world: World, connection: Connection
) -> None:
    """X5, X10: it is told, and the name goes with this life."""
    await world.names.claim("w")
    server = world.members.server
    server.call("SET", world.members.membership.base + "claims:a1", "not a set")
    world.release("w")
    world.put(b"w has gone")
    async with world.writing(connection):
        await world.outbox.empty()
        await until(lambda: bool(world.refusals))
        assert not world.names.waits()
    assert server.call("XLEN", world.members.membership.inbox("b1")) == 2  # and that it has joined
    assert all("WRONGTYPE" in each for each in world.refusals)
