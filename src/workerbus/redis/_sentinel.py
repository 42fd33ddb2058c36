"""Asking sentinels where the master is.

They may be wrong for a while after a failover. That the server is a master is what it says itself when it is greeted.
"""

from anyio import move_on_after

from workerbus.redis._errors import ConnectionLost, RedisReplyError, RedisSetupError
from workerbus.redis._handshake import open_at
from workerbus.redis._settings import Address, RedisSettings


async def find_master(settings: RedisSettings, timeout: float) -> Address:
    """Return the address of the master that the sentinels name; the first one that knows it counts.

    Args:
        settings: With the addresses of the sentinels, and the name of the service.
        timeout: How long all of them may take together, in seconds; each gets a part.

    Raises:
        RedisSetupError: None of them can be used, or all that can do not know the service, and none may later.
        ConnectionLost: None of them knows, but one that does not answer may.
    """
    failures: list[RedisSetupError | ConnectionLost] = []
    for sentinel in settings.addresses:
        try:
            with move_on_after(timeout / (len(settings.addresses) + 1)):
                return await _ask(sentinel, settings)
            failures.append(ConnectionLost(str(sentinel), "it does not answer"))
        except (RedisSetupError, ConnectionLost) as exc:
            failures.append(exc)
    refusals = [failure for failure in failures if isinstance(failure, RedisSetupError)]
    if len(refusals) == len(failures):
        raise refusals[0]
    raise ConnectionLost(settings.where, "; ".join(map(str, failures)))


async def _ask(sentinel: Address, settings: RedisSettings) -> Address:
    connection = await open_at(sentinel, tls=settings.tls, credentials=settings.sentinel_credentials)
    try:
        found = await connection.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", settings.service or "", timeout=None)
    except RedisReplyError as exc:
        raise RedisSetupError("SENTINEL", str(sentinel), f"it is no sentinel: {exc}") from exc
    finally:
        await connection.aclose()
    if not found:
        raise RedisSetupError("SENTINEL", str(sentinel), f"it watches no service {settings.service!r}")
    host, port = found
    return Address(host.decode(), int(port))
