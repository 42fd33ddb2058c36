"""A socket to a server as a byte stream: TCP to a name that may have several addresses, or a UNIX socket (X9).

anyio has such streams. On asyncio they stand on a transport, which takes a buffer of 256 KiB for each read, and one
more pass of the event loop for each read and each write: here, where most reads and writes are small and somebody waits
for them, that was a twelfth of a job. Otherwise this is anyio's stream. One task may send and one receive at a time.
"""

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    Event,
    create_task_group,
    getaddrinfo,
    move_on_after,
    notify_closing,
    wait_readable,
    wait_writable,
)
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

NEXT_ADDRESS_SECONDS: Final = 0.25
"""After so long another address of the same name is tried, too; the first that answers wins (RFC 8305)."""
_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EWOULDBLOCK)
_Found: TypeAlias = tuple[int, int, int, str, Any]


class SocketStream(ByteStream):
    """A connected socket as a byte stream.

    Args:
        connected: The socket, which does not block.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket, for whoever wants to set an option."""
        return {SocketAttribute.raw_socket: lambda: self._socket}

    async def send(self, item: bytes) -> None:
        """Send bytes. As long as the socket has room, that is no checkpoint.

        Raises:
            BrokenResourceError: The connection is lost.
            ClosedResourceError: It was closed here.
        """
        left = memoryview(item)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except (BlockingIOError, InterruptedError):
                await wait_writable(self._socket)
            except OSError as exc:
                raise self._broken() from exc

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes, and return them.

        Args:
            max_bytes: So many at most.

        Raises:
            EndOfStream: The other side has closed the connection.
            BrokenResourceError: The connection is lost.
            ClosedResourceError: It was closed here.
        """
        while True:
            self._check_open()
            await wait_readable(self._socket)
            try:
                data = self._socket.recv(max_bytes)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as exc:
                raise self._broken() from exc
            if not data:
                raise EndOfStream
            return data

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise ClosedResourceError

    def _broken(self) -> Exception:
        return ClosedResourceError() if self._socket.fileno() < 0 else BrokenResourceError()

    async def send_eof(self) -> None:
        """Say that no more bytes will come from here."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise self._broken() from exc
        await checkpoint()

    async def aclose(self) -> None:
        """Close it at once. Who waits for it gets `ClosedResourceError`."""
        if self._socket.fileno() >= 0:
            notify_closing(self._socket)
            self._socket.close()
        await checkpoint()


async def open_tcp(host: str, port: int) -> SocketStream:
    """Connect to the first address of a name that answers.

    Raises:
        OSError: The name is not known, or none of its addresses can be reached; then it is the first one's error.
    """
    addresses = await getaddrinfo(host, port, type=socket.SOCK_STREAM)
    connected = await _first_of(addresses)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return SocketStream(connected)


async def open_unix(path: str) -> SocketStream:
    """Connect to a UNIX socket.

    Raises:
        OSError: There is none, or nobody listens there.
    """
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.setblocking(False)
        connected.connect(path)  # at once, or not at all
        await checkpoint()
    except BaseException:
        connected.close()
        raise
    return SocketStream(connected)


async def _first_of(addresses: Sequence[_Found]) -> socket.socket:
    won: list[socket.socket] = []
    errors: dict[int, OSError] = {}

    async def attempt(number: int, over: Event) -> None:
        try:
            connected = await _connect(addresses[number])
        except OSError as exc:
            errors[number] = exc
        else:
            won.append(connected)
            group.cancel_scope.cancel()
        finally:
            over.set()

    try:
        async with create_task_group() as group:
            for number in range(len(addresses)):
                over = Event()
                group.start_soon(attempt, number, over)
                with move_on_after(NEXT_ADDRESS_SECONDS):
                    await over.wait()
    except BaseException:
        _close(won)
        raise
    if not won:
        raise errors[min(errors)]
    _close(won[1:])
    return won[0]


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


async def _connect(found: _Found) -> socket.socket:
    family, kind, protocol, _, address = found
    connecting = socket.socket(family, kind, protocol)
    try:
        connecting.setblocking(False)
        error = connecting.connect_ex(address)
        if error in _UNDER_WAY:
            await wait_writable(connecting)
            error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        notify_closing(connecting)
        connecting.close()
        raise
    return connecting
