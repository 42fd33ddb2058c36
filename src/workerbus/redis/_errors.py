"""What can go wrong between this process and a Redis server, sorted by what is to be done about it (X9).

| error | what it means | what to do |
|---|---|---|
| `RedisURLError` | the URL or the credentials beside it make no sense | mend the program |
| `RedisSetupError` | the server was reached, and cannot be used as it or the program is set up | mend the set-up |
| `ConnectionLost` | the server cannot be reached now, or is not ready | connect again, later |
| `RedisReplyError` | the server has answered a command with an error | see its code |

No text has a password, a URL or an argument of a command in it.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from workerbus.errors import WorkerBusError

_INSIDE_SCRIPT: Final = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")  # how Redis 6.2 wraps them
_NOT_ALLOWED: Final = "The user executing the script can't"
_ARGUMENTS: Final = re.compile(r",? with args beginning with:.*", re.DOTALL)

_ELSEWHERE: Final = frozenset({"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED"})
_TEMPORARY: Final = _ELSEWHERE | {"TRYAGAIN", "BUSY", "MISCONF", "NOREPLICAS", "OOM"}


def _code(text: str) -> str:
    if _NOT_ALLOWED in text:
        return "NOPERM"
    inside = _INSIDE_SCRIPT.search(text)
    first = inside[1] if inside else text.partition(" ")[0]
    return first if first.isupper() else "ERR"


class RedisURLError(WorkerBusError, ValueError):
    """The URL of a Redis server, or an argument given with it, is invalid. The text does not repeat the URL.

    Guarantees: X9.
    """


class RedisSetupError(WorkerBusError, ConnectionError):
    """The Redis server cannot be used because of its settings or the program's; trying again would not help.

    Attributes:
        reason: What is wrong, in words.
        code: The same in one word: one of the server's (``"WRONGPASS"``, ``"NOAUTH"``, ``"NOPERM"``,
            ``"DENIED"``), ``"VERSION"``, ``"DB"``, ``"TLS"``, ``"SENTINEL"`` or ``"CREDENTIALS"``.
        address: The address of the server, as in ``localhost:6379``.

    Guarantees: X9.
    """

    def __init__(self, code: str, address: str, text: str) -> None:
        super().__init__(f"the Redis server at {address} cannot be used: {text}")
        self.code: str = code
        self.address: str = address
        self.reason: str = text


class ConnectionLost(WorkerBusError, ConnectionError):  # noqa: N818 - what has happened; the class is its own end
    """The connection was lost, or none could be made.

    Attributes:
        reason: Why, in words.
        address: The address of the server, as in ``localhost:6379``.
        sent: Whether the server may have received and executed commands of this call.
        replies: The replies that came before, in the order of the commands; these commands were executed.
    """

    def __init__(self, address: str, reason: str, *, sent: bool = False, replies: Sequence[Any] = ()) -> None:
        super().__init__(f"no connection to the Redis server at {address}: {reason}")
        self.address: str = address
        self.reason: str = reason
        self.sent: bool = sent
        self.replies: tuple[Any, ...] = tuple(replies)


class RedisReplyError(WorkerBusError, RuntimeError):
    """The server answered a command with an error. The connection is still usable.

    Attributes:
        code: Its first word, such as ``"OOM"`` or ``"NOSCRIPT"``; for an error inside a script, that of the inner
            error.
    """

    def __init__(self, text: str) -> None:
        text = _ARGUMENTS.sub("", text)  # among the arguments may be payloads and passwords
        super().__init__(text)
        self.code: str = _code(text)

    @property
    def temporary(self) -> bool:
        """Whether the same command may succeed later, without a change to the program or its rights."""
        return self.code in _TEMPORARY

    @property
    def reconnect(self) -> bool:
        """Whether to reconnect, perhaps to another server: after a failover, for example."""
        return self.code in _ELSEWHERE or self.code == "NOAUTH"
