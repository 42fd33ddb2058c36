"""Whether the server is set up so that it keeps what it is given, and lets its user do what is needed (X9, X10)."""

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from workerbus.redis._connection import Connection
from workerbus.redis._errors import RedisReplyError


@frozen
class ServerCheck:
    """What was found.

    Attributes:
        warnings: What would lose data, each a sentence that says what to do.
        notes: What could not be found out, each a sentence.
    """

    warnings: tuple[str, ...]
    notes: tuple[str, ...]


async def check_server(connection: Connection) -> ServerCheck:
    """Look at the server's settings, as far as the user may.

    Raises:
        ConnectionLost: The connection is of no use any more.

    Guarantees: X10.
    """
    replies = await connection.pipeline(
        [("INFO", "memory"), ("INFO", "persistence"), ("INFO", "cluster"), ("CONFIG", "GET", "appendfsync")]
    )
    *sections, config = replies
    refused = [reply for reply in sections if isinstance(reply, RedisReplyError)]
    if refused:
        return ServerCheck((), (f"the settings of the Redis server could not be looked at: {refused[0]}",))
    told = _told(sections)
    warnings = [*_eviction(told), *_durability(told)]
    notes: list[str] = []
    if isinstance(config, RedisReplyError):
        notes.append(f"whether appendfsync is 'no' could not be looked at: {config}")
    elif told.get("aof_enabled") == "1" and list(config[1:2]) == [b"no"]:
        warnings.append(
            "appendfsync is 'no': what the server has confirmed is lost with the machine, up to half a minute of it; "
            "set it to 'everysec' (a second at most) or 'always'"
        )
    return ServerCheck(tuple(warnings), tuple(notes))


async def check_rights(connection: Connection, inbox: str) -> None:
    """Do, without any effect, what writing and reading need beside the scripts.

    Args:
        connection: To the server.
        inbox: The key of an inbox that is not there.

    Raises:
        RedisReplyError: The user has no right to one of the commands.
        ConnectionLost: The connection is of no use any more.

    Guarantees: X9.
    """
    replies = await connection.pipeline(
        [
            ("XADD", inbox, "NOMKSTREAM", "MAXLEN", "~", 1, "*", "x", ""),
            ("XREAD", "COUNT", 1, "STREAMS", inbox, "0"),
            ("XTRIM", inbox, "MINID", "0"),
            ("XLEN", inbox),
            ("MULTI",),
            ("EXEC",),
        ]
    )
    for reply in replies:
        if isinstance(reply, RedisReplyError):
            raise reply


def _told(sections: Sequence[Any]) -> dict[str, str]:
    lines = b"\n".join(sections).decode(errors="replace").splitlines()
    return dict(line.partition(":")[::2] for line in lines if ":" in line)


def _eviction(told: dict[str, str]) -> list[str]:
    policy = told.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    when = "as soon as it has a limit (maxmemory)" if told.get("maxmemory") == "0" else "when memory is full"
    return [f"maxmemory-policy is {policy!r}: {when} the server deletes messages unread; set it to 'noeviction'"]


def _durability(told: dict[str, str]) -> list[str]:
    warnings: list[str] = []
    if told.get("aof_enabled") == "0":
        warnings.append(
            "appendonly is 'no': what is under way is lost when the server ends, and what it then knows may be old; "
            "set it to 'yes'"
        )
    if told.get("aof_last_write_status", "ok") != "ok":
        warnings.append("the server's last write to its append-only file has failed: see its log, and its disk")
    if told.get("cluster_enabled") == "1":
        warnings.append("the server is part of a cluster, which is not supported: use one that is not, or Sentinel")
    return warnings
