"""The protocol of Redis without any I/O: commands to bytes, bytes to replies, and what a server says of itself.

`hiredis` packs and parses. It is RESP2 throughout: the one thing that RESP3 would bring is messages nobody has asked
for, and with both there would be two shapes of each reply. Replies are bytes, int, None, lists of replies, or a
`RedisReplyError` that takes the place of the reply and is not raised.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from attrs import frozen

from workerbus.errors import MissingExtraError
from workerbus.redis._errors import RedisReplyError

try:
    from hiredis import HiredisError, Reader, pack_command
except ImportError:
    raise MissingExtraError("the modules of workerbus.redis", "hiredis", "redis") from None

Argument: TypeAlias = str | bytes | int | float
Command: TypeAlias = Sequence[Argument]
"""A command with its arguments, as in ``("XADD", "stream", "*", "field", b"value")``."""

LEAST_VERSION: Final = (6, 2)
ProtocolError = HiredisError
"""What `ReplyParser` raises for bytes that are none of Redis's."""

_MORE: Final = object()


def pack(commands: Iterable[Command]) -> bytes:
    """Return the bytes of commands, one after the other.

    Raises:
        TypeError: An argument is neither text, bytes nor a number.
    """
    return b"".join([pack_command(tuple(command)) for command in commands])  # type: ignore[arg-type]  # its stubs take less than it does


class ReplyParser:
    """Makes replies out of bytes as they come."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = Reader(replyError=RedisReplyError, errors="replace", notEnoughData=_MORE)

    def feed(self, data: bytes, replies: list[Any], count: int) -> None:
        """Take bytes, and add to the replies those that are complete, until there are ``count`` of them.

        Raises:
            ProtocolError: Those are no bytes of Redis's; or there are more than make the replies, which nobody has
                asked for, so that all that follows would be taken for the reply to something else.
        """
        self._reader.feed(data)
        while len(replies) < count:
            reply = self._reader.gets()
            if reply is _MORE:
                return
            replies.append(reply)
        if self._reader.has_data():
            raise ProtocolError("more replies than there were commands")


@frozen
class ServerInfo:
    """What a server says of itself when it is greeted.

    Attributes:
        version: As in ``"7.2.4"``.
        mode: ``"standalone"``, ``"cluster"`` or ``"sentinel"``.
        role: ``"master"`` or ``"replica"``; empty for a sentinel.
        client_id: The server's number for this connection, as in CLIENT LIST.
    """

    version: str
    mode: str
    role: str
    client_id: int

    @property
    def too_old(self) -> bool:
        """Whether it lacks what is needed; a version that is no number is taken for a new one."""
        numbers = re.match(r"(\d+)\.(\d+)", self.version)
        return numbers is not None and (int(numbers[1]), int(numbers[2])) < LEAST_VERSION


def hello(credentials: tuple[str, str] | None, name: str | None) -> Command:
    """Return the greeting, which logs in and gives the connection its name, too.

    Args:
        credentials: The user and the password, if any.
        name: For CLIENT LIST; what the server would not take becomes ``_``.
    """
    command = ["HELLO", "2"]
    if credentials is not None:
        command += ["AUTH", *credentials]
    if name:
        command += ["SETNAME", re.sub(r"[^!-~]", "_", name)]
    return command


def server_info(reply: Sequence[Any]) -> ServerInfo:
    """Return what the reply to `hello` says, a list of names and values in turn."""
    told = dict(zip(reply[::2], reply[1::2], strict=False))
    version, mode, role = (told.get(key, b"").decode(errors="replace") for key in (b"version", b"mode", b"role"))
    return ServerInfo(version, mode, role, int(told.get(b"id", 0)))
