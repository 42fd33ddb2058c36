"""Opening a connection to one address: the socket, TLS, logging in, and whether the server can be used at all.

What fails is either temporary, a `ConnectionLost`, or needs somebody to mend something, a `RedisSetupError`. Everything
is greeted in one round trip: HELLO logs in and tells version and role, SELECT chooses the database, and PING tells
whether the server is ready, which the other two do not.
"""

import ssl
from collections.abc import Callable
from typing import Any, Final

from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from workerbus.redis._connection import IO_ERRORS, Connection, close_now, reason_of
from workerbus.redis._errors import ConnectionLost, RedisReplyError, RedisSetupError
from workerbus.redis._protocol import LEAST_VERSION, Command, ServerInfo, hello, server_info
from workerbus.redis._settings import Address, ask_credentials
from workerbus.redis._socket import open_tcp, open_unix

_NEEDED: Final = ".".join(map(str, LEAST_VERSION))
_REFUSALS: Final = {
    "WRONGPASS": "it does not take this user and password",
    "NOAUTH": "it wants a password, and none was given",
    "NOPERM": "this user may not do what is needed",
    "DENIED": "it is in protected mode, and takes connections from its own machine alone",
}
_BAD_DB: Final = (
    "ERR DB index",
    "ERR invalid DB",
    "ERR SELECT is not allowed",
    "ERR unknown command `SELECT`",
    "ERR unknown command 'SELECT'",
)
_NO_HELLO: Final = ("ERR unknown command `HELLO`", "ERR unknown command 'HELLO'")


async def open_at(
    address: Address,
    *,
    tls: Callable[[], ssl.SSLContext] | None = None,
    credentials: Callable[[], Any] | None = None,
    db: int = 0,
    name: str | None = None,
) -> Connection:
    """Open a connection to the server at an address, however long that takes.

    Args:
        address: Of the server.
        tls: Makes the context for TLS; None for none.
        credentials: Gives the user and the password; None for none.
        db: The number of the database.
        name: What the connection is called in CLIENT LIST.

    Raises:
        RedisSetupError: The server cannot be used, and trying again would not help.
        ConnectionLost: There is no server now, or it is not ready.
    """
    greeting = hello(await _credentials(credentials, address), name)
    connection = Connection(await _open(address, tls and tls()), str(address))
    try:
        connection.server = await _greet(connection, greeting, db)
    except BaseException:
        await connection.aclose()
        raise
    return connection


async def _credentials(source: Any, address: Address) -> tuple[str, str] | None:
    if source is None:
        return None
    try:  # the function is the user's, and asks a service that may be away
        credentials = await ask_credentials(source)
    except Exception as exc:
        raise ConnectionLost(str(address), f"the function for credentials has raised {type(exc).__name__}") from exc
    if credentials is None:
        text = "the function for credentials has returned neither a password nor (user, password)"
        raise RedisSetupError("CREDENTIALS", str(address), text)
    return credentials


async def _open(address: Address, context: ssl.SSLContext | None) -> ByteStream:
    try:
        if not address.port:
            return await open_unix(address.host)
        stream = await open_tcp(*address)
    except OSError as exc:
        raise ConnectionLost(str(address), reason_of(exc)) from exc
    if context is None:
        return stream
    try:
        return await TLSStream.wrap(stream, hostname=address.host, ssl_context=context, standard_compatible=False)
    except BaseException as exc:
        await close_now(stream)
        if isinstance(exc, ssl.SSLError):
            raise _tls_refusal(exc, address) from exc
        if isinstance(exc, IO_ERRORS):
            raise ConnectionLost(str(address), reason_of(exc)) from exc
        raise


def _tls_refusal(exc: ssl.SSLError, address: Address) -> RedisSetupError:
    if isinstance(exc, ssl.SSLCertVerificationError):
        text = f"its certificate is not to be trusted: {exc.verify_message}"
    else:
        text = f"TLS with it fails: {exc.reason or exc}"
    return RedisSetupError("TLS", str(address), text)


async def _greet(connection: Connection, greeting: Command, db: int) -> ServerInfo:
    commands: list[Command] = [greeting, ("PING",)]
    if db:
        commands.insert(1, ("SELECT", db))
    try:
        greeted, *rest = await connection.pipeline(commands, timeout=None)
    except ConnectionLost as exc:
        if isinstance(exc.__cause__, ssl.SSLError):  # only now, as TLS 1.3 has it where a client needs a certificate
            text = f"TLS with it fails: {exc.__cause__.reason or exc.__cause__}"
            raise RedisSetupError("TLS", connection.address, text) from exc
        raise ConnectionLost(connection.address, f"{exc.reason} before it answered") from exc
    if isinstance(greeted, RedisReplyError):
        raise _refusal(greeted, connection.address)
    info = server_info(greeted)
    if info.too_old:
        text = f"it is Redis {info.version}, and {_NEEDED} or later is needed"
        raise RedisSetupError("VERSION", connection.address, text)
    _check_ready(rest, connection.address)
    if info.role not in ("master", ""):  # as after a failover, where a name or a proxy still leads here
        raise ConnectionLost(connection.address, "it is a replica, which cannot be written to")
    return info


def _check_ready(replies: list[Any], address: str) -> None:
    *selected, ready = replies
    for reply in selected:
        if isinstance(reply, RedisReplyError):
            raise _refusal(reply, address)
    if isinstance(ready, RedisReplyError) and ready.code != "NOPERM":  # a user need not have PING
        raise _refusal(ready, address)


def _refusal(reply: RedisReplyError, address: str) -> RedisSetupError | ConnectionLost:
    text = str(reply)
    if reply.code in _REFUSALS:
        return RedisSetupError(reply.code, address, f"{_REFUSALS[reply.code]} ({text.partition('.')[0]})")
    if text.startswith(_NO_HELLO):
        return RedisSetupError("VERSION", address, f"it does not know HELLO; Redis {_NEEDED} or later is needed")
    if text.startswith(_BAD_DB):
        return RedisSetupError("DB", address, f"it does not have this database ({text.removeprefix('ERR ')})")
    return ConnectionLost(address, f"it says {text}")
