"""X9: the sockets below a connection: names with several addresses, and everything that a socket can meet."""

import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from workerbus.redis import _socket
from workerbus.redis._socket import SocketStream, open_tcp, open_unix

LOCAL = "127.0.0.1"
MUCH = bytes(8 << 20)
"""More than any socket takes at once."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOCAL, 0)) as listening:
        yield listening


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """Somebody who listens, and whose line is full, so that nobody else hears anything from him."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((LOCAL, 0), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening


def closed_port() -> tuple[str, int]:
    with socket.create_server((LOCAL, 0)) as listening:
        return LOCAL, listening.getsockname()[1]


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a name the addresses that a test wants."""

    def has(*addresses: tuple[str, int]) -> None:
        async def getaddrinfo(*_args: Any, **_options: Any) -> Sequence[Any]:
            await anyio.lowlevel.checkpoint()
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]

        monkeypatch.setattr(_socket, "getaddrinfo", getaddrinfo)

    return has


@asynccontextmanager
async def joined(listener: socket.socket) -> AsyncIterator[tuple[SocketStream, socket.socket]]:
    stream = await open_tcp(*listener.getsockname())
    with closing(listener.accept()[0]) as other:
        yield stream, other
    await stream.aclose()


async def test_bytes_come_and_go_in_order(listener: socket.socket) -> None:
    async with joined(listener) as (stream, other):
        await stream.send(b"to ")
        await stream.send(b"there")
        assert other.recv(8, socket.MSG_WAITALL) == b"to there"
        other.sendall(b"from there")
        assert await stream.receive(4) == b"from"
        assert await stream.receive() == b" there"


async def test_what_finds_no_room_waits_until_there_is(listener: socket.socket) -> None:
    async with joined(listener) as (stream, other), anyio.create_task_group() as group:
        group.start_soon(stream.send, MUCH)
        await anyio.wait_all_tasks_blocked()
        other.setblocking(False)
        size = 0
        while size < len(MUCH):
            await anyio.wait_readable(other)
            size += len(other.recv(1 << 20))


class Fickle(socket.socket):
    """A socket that says twice that there is something to read, and has nothing."""

    times = 2

    def recv(self, *args: int) -> bytes:
        if self.times:
            self.times -= 1
            raise BlockingIOError
        return super().recv(*args)


async def test_bytes_that_are_announced_too_early_are_waited_for(listener: socket.socket) -> None:
    with closing(Fickle()) as fickle:
        fickle.connect(listener.getsockname())
        fickle.setblocking(False)
        with closing(listener.accept()[0]) as other:
            other.sendall(b"at last")
            assert await SocketStream(fickle).receive() == b"at last"
    assert fickle.times == 0


async def test_nothing_is_sent_after_an_end_that_was_told(listener: socket.socket) -> None:
    async with joined(listener) as (stream, other):
        await stream.send_eof()
        assert other.recv(1) == b""
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"x")


async def test_the_end_of_the_other_side_is_an_end_of_stream(listener: socket.socket) -> None:
    async with joined(listener) as (stream, other):
        other.close()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()


async def test_a_reset_breaks_the_stream_and_says_why(listener: socket.socket) -> None:
    async with joined(listener) as (stream, other):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await stream.receive()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_who_waits_for_a_stream_that_is_closed_here_is_told(listener: socket.socket) -> None:
    told: list[str] = []

    async def wait(what: str) -> None:
        try:
            await (stream.receive() if what == "receive" else stream.send(MUCH))
        except anyio.ClosedResourceError:
            told.append(what)

    async with joined(listener) as (stream, _), anyio.create_task_group() as group:
        group.start_soon(wait, "receive")
        group.start_soon(wait, "send")
        await anyio.wait_all_tasks_blocked()
        await stream.aclose()
        await stream.aclose()
    assert sorted(told) == ["receive", "send"]
    for call in (stream.receive, stream.send_eof, lambda: stream.send(b"x")):
        with pytest.raises(anyio.ClosedResourceError):
            await call()


async def test_an_address_that_refuses_is_passed_over_at_once(name: Any, listener: socket.socket) -> None:
    name(closed_port(), listener.getsockname())
    stream = await open_tcp("a name", 1)
    await stream.aclose()


async def test_beside_an_address_that_is_silent_the_next_one_is_tried(
    name: Any, full: socket.socket, listener: socket.socket
) -> None:
    name(full.getsockname(), listener.getsockname())
    stream = await open_tcp("a name", 1)
    assert stream.extra_attributes[anyio.abc.SocketAttribute.raw_socket]().getpeername() == listener.getsockname()
    await stream.aclose()


async def test_of_addresses_that_answer_at_once_one_is_connected_to(
    name: Any, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1: the others are closed; the suite fails for a socket that is left to the garbage collector."""
    monkeypatch.setattr(_socket, "NEXT_ADDRESS_SECONDS", 0.0)
    through, connected, all_are = _socket._connect, list[socket.socket](), anyio.Event()

    async def at_once(found: Any) -> socket.socket:
        connected.append(one := await through(found))
        if len(connected) == 3:
            all_are.set()
        with anyio.CancelScope(shield=True):  # none hears that another one was the first
            await all_are.wait()
        return one

    monkeypatch.setattr(_socket, "_connect", at_once)
    name(*[listener.getsockname()] * 3)
    stream = await open_tcp("a name", 1)
    assert [one.fileno() >= 0 for one in connected].count(True) == 1
    assert stream.extra_attributes[anyio.abc.SocketAttribute.raw_socket]().fileno() >= 0
    await stream.aclose()


async def test_where_no_address_can_be_reached_the_first_error_is_told(name: Any) -> None:
    name(closed_port(), ("255.255.255.255", 1))
    with pytest.raises(ConnectionRefusedError):
        await open_tcp("a name", 1)


async def test_a_name_that_is_not_known_is_an_error() -> None:
    with pytest.raises(socket.gaierror):
        await open_tcp("name.invalid", 1)


async def test_an_attempt_that_is_cut_short_leaves_no_socket_open(name: Any, full: socket.socket) -> None:
    name(full.getsockname())
    with anyio.move_on_after(0.05) as scope:
        await open_tcp("a name", 1)
    assert scope.cancelled_caught  # the suite fails for a socket that is left to the garbage collector


async def test_a_socket_that_is_connected_when_it_is_cut_short_is_closed(
    name: Any, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1: in that very step."""
    through, connected = _socket._connect, list[socket.socket]()
    scope = anyio.CancelScope()

    async def cut(found: Any) -> socket.socket:
        connected.append(one := await through(found))
        scope.cancel()
        return one

    monkeypatch.setattr(_socket, "_connect", cut)
    name(listener.getsockname())
    with scope:
        stream = await open_tcp("a name", 1)
        await stream.aclose()
    assert [one.fileno() for one in connected] == [-1]


@pytest.mark.parametrize("exists", [False, True])
async def test_a_path_without_a_listener_is_an_error(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "socket"
    if exists:
        with closing(socket.socket(socket.AF_UNIX)) as bound:
            bound.bind(str(path))
    with pytest.raises(ConnectionRefusedError if exists else FileNotFoundError):
        await open_unix(str(path))


async def test_a_path_whose_listener_has_no_room_is_an_error_at_once(tmp_path: Path) -> None:
    """X2: nobody is held up meanwhile; it is tried again, later."""
    path = str(tmp_path / "socket")
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        with pytest.raises(BlockingIOError):
            await open_unix(path)


async def test_a_socket_to_a_path_that_is_cut_short_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L1"""
    path, made = str(tmp_path / "socket"), list[socket.socket]()

    class Noted(socket.socket):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    with socket.create_server(path, family=socket.AF_UNIX), anyio.CancelScope() as scope:
        monkeypatch.setattr(socket, "socket", Noted)
        scope.cancel()
        await open_unix(path)
    assert [one.fileno() for one in made] == [-1]
