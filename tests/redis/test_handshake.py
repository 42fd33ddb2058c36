"""X9: what a server says when it is greeted, in however many pieces, and what becomes of each of its answers."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import hiredis
import pytest
from anyio import EndOfStream
from anyio.abc import ByteStream

from workerbus.redis import ConnectionLost, RedisSetupError, _handshake
from workerbus.redis._connection import Connection
from workerbus.redis._handshake import open_at
from workerbus.redis._protocol import ServerInfo
from workerbus.redis._settings import Address

ADDRESS = Address("h", 1)
OK, PONG = b"+OK\r\n", b"+PONG\r\n"


class Answers(ByteStream):
    """A connection on which fixed bytes come, piece by piece.

    Attributes:
        sent: What was written to it.
        closed: Whether it was closed.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = list(pieces)
        self.sent = b""
        self.closed = False

    async def send(self, item: bytes) -> None:
        self.sent += item

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self._pieces:
            raise EndOfStream
        return self._pieces.pop(0)

    async def send_eof(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        self.closed = True

    def commands(self) -> list[list[bytes]]:
        """What was written, taken apart."""
        reader = hiredis.Reader()
        reader.feed(self.sent)
        found: list[list[bytes]] = []
        while (command := reader.gets()) is not False:
            found.append(command)
        return found


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Answers]:
    """The connection that the next attempt gets, if there is one in it."""
    given: list[Answers] = []

    async def open_stream(address: Address, context: object) -> ByteStream:
        return given[-1]

    monkeypatch.setattr(_handshake, "_open", open_stream)
    return given


def _greets(version: str = "7.2.4", role: str = "master", mode: str = "standalone") -> bytes:
    told: list[Any] = [b"server", b"redis", b"version", version.encode(), b"proto", 2, b"id", 41]
    told += [b"mode", mode.encode(), *([b"role", role.encode()] if role else []), b"modules", []]
    return _reply(told)


def _reply(value: Any) -> bytes:
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(_reply, value))
    return b"$%d\r\n%s\r\n" % (len(value), value)


LATER = "later"
"""A `ConnectionLost`, which is tried again; all else is the code of a `RedisSetupError`."""
REFUSALS = {
    "WRONGPASS invalid username-password pair or user is disabled.": ("WRONGPASS", "does not take this user"),
    "NOAUTH HELLO must be called with the client already authenticated": ("NOAUTH", "wants a password"),
    "NOPERM this user has no permissions to run the command": ("NOPERM", "may not do what is needed"),
    "DENIED Redis is running in protected mode": ("DENIED", "protected mode"),
    "ERR unknown command `HELLO`, with args beginning with: `2`": ("VERSION", "does not know HELLO"),
    "ERR unknown command 'HELLO', with args beginning with: '2'": ("VERSION", "does not know HELLO"),
    "ERR unknown command 'SELECT', with args beginning with: '3'": ("DB", "(unknown command 'SELECT')"),
    "ERR Syntax error in HELLO option 'setname'": (LATER, "it says ERR Syntax error in HELLO option"),
    "ERR DB index is out of range": ("DB", "(DB index is out of range)"),
    "ERR invalid DB index": ("DB", "(invalid DB index)"),
    "ERR SELECT is not allowed in cluster mode": ("DB", "(SELECT is not allowed in cluster mode)"),
    "ERR max number of clients reached": (LATER, "it says ERR max number of clients reached"),
    "LOADING Redis is loading the dataset in memory": (LATER, "it says LOADING"),
    "MASTERDOWN Link with MASTER is down": (LATER, "it says MASTERDOWN"),
    "BUSY Redis is busy running a script": (LATER, "it says BUSY"),
}
GREETINGS = {
    _greets(): None,
    _greets(mode="sentinel", role=""): None,
    _greets(version="6.2.0"): None,
    _greets(version="odd"): None,
    _greets(role="replica"): (LATER, "it is a replica"),
    _greets(version="6.0.16"): ("VERSION", "it is Redis 6.0.16, and 6.2 or later is needed"),
    _greets(version="5.9", role="replica"): ("VERSION", "it is Redis 5.9, and 6.2"),
}
Outcome = tuple[str, str] | None


def _expected(greeting: str | bytes, selects: str | None, pings: str | None, chosen: bool) -> Outcome:
    """What counts first: whether it lets one in, its version, the database, whether it is ready, its role."""
    if isinstance(greeting, str):
        return REFUSALS[greeting]
    told = GREETINGS[greeting]
    if told is not None and told[0] == "VERSION":
        return told
    if chosen and selects is not None:
        return REFUSALS[selects]
    if pings is not None and not pings.startswith("NOPERM"):
        return REFUSALS[pings]
    return told


async def test_each_answer_to_a_greeting_beside_each_other_one(answers: list[Answers]) -> None:
    """X9, L1: in one piece or two; a connection that is of no use is closed."""
    refusals = [None, *REFUSALS]
    greetings: list[str | bytes] = [*GREETINGS, *REFUSALS]
    number = 0
    for greeting, selects, pings, db in product(greetings, refusals, refusals, (0, 3)):
        if not db and selects is not None:
            continue
        told = [_or_error(greeting, b"") if isinstance(greeting, str) else greeting]
        if db:
            told.append(_or_error(selects, OK))
        data = b"".join([*told, _or_error(pings, PONG)])
        number += 1
        cut = number % len(data)  # each time somewhere else
        answers.append(Answers([each for each in (data[:cut], data[cut:]) if each]))
        expected = _expected(greeting, selects, pings, bool(db))
        if expected is None:
            connection = await open_at(ADDRESS, db=db)
            assert not answers[-1].closed
            await connection.aclose()
        else:
            await _refused(expected, db)
        assert answers[-1].closed


async def _refused(expected: tuple[str, str], db: int) -> None:
    with pytest.raises((RedisSetupError, ConnectionLost)) as caught:
        await open_at(ADDRESS, db=db)
    error = caught.value
    assert isinstance(error, RedisSetupError | ConnectionLost)
    assert (error.code if isinstance(error, RedisSetupError) else LATER) == expected[0]
    assert expected[1] in error.reason
    assert error.address == "h:1"


def _error(text: str) -> bytes:
    return b"-%s\r\n" % text.encode()


def _or_error(text: str | None, fine: bytes) -> bytes:
    return fine if text is None else _error(text)


@pytest.mark.parametrize("greeting", [_greets(), _greets(mode="sentinel", role="")], ids=["server", "sentinel"])
async def test_a_greeting_may_come_in_any_two_pieces_or_byte_by_byte(answers: list[Answers], greeting: bytes) -> None:
    """X9"""
    data = greeting + OK + PONG
    cuts = [[data[:n], data[n:]] for n in range(1, len(data))]
    told = ServerInfo("7.2.4", *(("sentinel", "") if b"sentinel" in greeting else ("standalone", "master")), 41)
    for pieces in [*cuts, [data[n : n + 1] for n in range(len(data))]]:
        answers.append(Answers(pieces))
        connection = await open_at(ADDRESS, db=1)
        assert connection.server == told
        await connection.aclose()


async def test_a_greeting_that_ends_anywhere_is_a_lost_connection(answers: list[Answers]) -> None:
    """X9, L1"""
    data = _greets() + OK + PONG
    for end in range(len(data)):
        answers.append(Answers([data[:end]] if end else []))
        with pytest.raises(ConnectionLost, match="closed the connection before it answered"):
            await open_at(ADDRESS, db=1)
        assert answers[-1].closed


@pytest.mark.parametrize("login", [None, (None, "word"), ("me", "w ord"), "word"])
@pytest.mark.parametrize("name", [None, "", "run é 1:writer"])
@pytest.mark.parametrize("db", [0, 1, 15])
async def test_a_greeting_says_what_it_was_given_and_nothing_else(
    answers: list[Answers], login: Any, name: str | None, db: int
) -> None:
    """X9: in one round trip."""
    answers.append(Answers([_greets() + (OK if db else b"") + PONG]))
    connection = await open_at(ADDRESS, credentials=None if login is None else lambda: login, db=db, name=name)
    user, word = (login if isinstance(login, tuple) else (None, login)) if login else (None, None)
    expected = [b"HELLO", b"2"]
    if login is not None:
        expected += [b"AUTH", (user or "default").encode(), str(word).encode()]
    if name:
        expected += [b"SETNAME", b"run___1:writer"]
    selects = [[b"SELECT", b"%d" % db]] if db else []
    assert answers[-1].commands() == [expected, *selects, [b"PING"]]
    assert isinstance(connection, Connection)
    await connection.aclose()


async def test_two_connections_that_are_opened_at_once_get_each_its_own_answers(answers: list[Answers]) -> None:
    """X9: the one may be refused, and the other one goes on."""
    answers.append(Answers([_greets() + PONG, _reply(b"first")]))
    first = await open_at(ADDRESS, name="first")
    answers.append(Answers([_error("NOAUTH authentication is required") + PONG]))
    with pytest.raises(RedisSetupError, match="wants a password"):
        await open_at(ADDRESS, name="second")
    assert await first.execute("GET", "x") == b"first"
    await first.aclose()
