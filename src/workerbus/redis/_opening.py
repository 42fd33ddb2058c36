"""Opening a connection to the server that settings describe, whichever that is at the moment (X9)."""

from typing import Final

from anyio import move_on_after

from workerbus.redis._connection import Connection
from workerbus.redis._errors import ConnectionLost
from workerbus.redis._handshake import open_at
from workerbus.redis._sentinel import find_master
from workerbus.redis._settings import RedisSettings

CONNECT_SECONDS: Final = 5.0
"""How long, in seconds, opening a connection may take if nothing else is said: with names, TLS and logging in."""


async def connect(settings: RedisSettings, *, timeout: float = CONNECT_SECONDS, name: str | None = None) -> Connection:
    """Open a connection to a server that can be written to.

    Args:
        settings: Where the server is, and how to get in. Sentinels are asked anew each time.
        timeout: How long it may take in all, in seconds.
        name: What the connection is called in CLIENT LIST.

    Raises:
        RedisSetupError: The server cannot be used, and trying again would not help.
        ConnectionLost: There is no server now, or it is not ready.
    """
    with move_on_after(timeout):
        address = settings.addresses[0] if settings.service is None else await find_master(settings, timeout)
        return await open_at(address, tls=settings.tls, credentials=settings.credentials, db=settings.db, name=name)
    raise ConnectionLost(settings.where, f"not connected within {timeout:g} seconds")
