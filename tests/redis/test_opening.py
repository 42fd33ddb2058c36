"""X9: opening a connection, by TCP, a UNIX socket or TLS; logging in; and servers that cannot be used."""

import gc
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint

from support.certificates import Certificates
from support.proxies import Proxy
from support.redis_servers import RedisServer, free_port, until
from workerbus.redis import ConnectionLost, RedisReplyError, RedisSetupError
from workerbus.redis._connection import Connection
from workerbus.redis._handshake import _refusal
from workerbus.redis._opening import connect
from workerbus.redis._protocol import server_info
from workerbus.redis._settings import CredentialsSource, RedisSettings

SECRET = "pa55word"


@asynccontextmanager
async def connected(
    url: str,
    *,
    name: str | None = None,
    credentials: CredentialsSource | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Connection]:
    settings = RedisSettings.parse(url, credentials=credentials, ssl_context=ssl_context)
    connection = await connect(settings, name=name)
    try:
        yield connection
    finally:
        await connection.aclose()


async def refused(url: str, credentials: CredentialsSource | None = None) -> RedisSetupError:
    with pytest.raises(RedisSetupError) as caught:
        await connect(RedisSettings.parse(url, credentials=credentials))
    return caught.value


@pytest.mark.parametrize("url", ["url", "unix_url"])
async def test_a_server_is_reached_by_tcp_and_by_its_socket(server: RedisServer, url: str) -> None:
    """X9"""
    async with connected(getattr(server, url), name="run é 1:writer") as connection:
        assert await connection.execute("PING") == b"PONG"
        assert await connection.execute("CLIENT", "GETNAME") == b"run___1:writer"
        assert (connection.server.role, connection.server.mode) == ("master", "standalone")
        assert not connection.server.too_old
        assert server.clients(id=str(connection.server.client_id))
        assert connection.address in repr(connection)


async def test_small_commands_leave_at_once_and_a_silent_end_is_noticed(server: RedisServer) -> None:
    async with connected(server.url) as connection:
        raw = connection._stream.extra(SocketAttribute.raw_socket)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_the_database_is_chosen(server: RedisServer) -> None:
    async with connected(f"{server.url}/3") as connection:
        await connection.execute("SET", "key", "x")
    assert server.calls(("GET", "key"), ("SELECT", 3), ("GET", "key")) == [None, b"OK", b"x"]


async def test_a_database_that_is_not_there_is_refused(server: RedisServer) -> None:
    """X9"""
    error = await refused(f"{server.url}/99")
    assert error.code == "DB"
    assert "DB index is out of range" in str(error)


async def test_a_server_with_a_password_is_reached_with_it() -> None:
    """X9"""
    with RedisServer(password=SECRET) as server:
        async with connected(server.url) as connection:
            assert await connection.execute("PING") == b"PONG"
        async with connected(f"redis://127.0.0.1:{server.port}", credentials=SECRET) as connection:
            assert await connection.execute("PING") == b"PONG"
        error = await refused(f"redis://127.0.0.1:{server.port}")
        assert error.code == "NOAUTH"
        assert "it wants a password, and none was given" in str(error)
        error = await refused(f"redis://:not-{SECRET}@127.0.0.1:{server.port}")
        assert error.code == "WRONGPASS"


async def test_a_user_is_held_to_the_rights_that_the_server_gives(server: RedisServer) -> None:
    """X9: the ACL of the server is the boundary."""
    server.add_user("me", SECRET, "~{wb}:*", "+xadd")
    async with connected(server.url, credentials=("me", SECRET)) as connection:
        assert await connection.execute("XADD", "{wb}:s", "*", "k", "v")
        for command in (("XADD", "other", "*", "k", "v"), ("GET", "{wb}:s"), ("PING",)):
            with pytest.raises(RedisReplyError) as caught:
                await connection.execute(*command)
            assert caught.value.code == "NOPERM"
    error = await refused(f"redis://me:{SECRET}@127.0.0.1:{server.port}/1")
    assert error.code == "NOPERM"


async def test_credentials_are_asked_for_at_each_connect(server: RedisServer) -> None:
    """X9: they may expire."""
    tokens = [f"{SECRET}-1", f"{SECRET}-2"]
    settings = RedisSettings.parse(server.url, credentials=lambda: ("me", tokens[0]))
    for _ in range(2):
        server.add_user("me", tokens[0])
        connection = await connect(settings)
        assert await connection.execute("ACL", "WHOAMI") == b"me"
        await connection.aclose()
        server.call("ACL", "DELUSER", "me")
        del tokens[0]


async def test_a_function_for_credentials_that_fails_may_be_asked_again(server: RedisServer) -> None:
    def ask() -> str:
        raise LookupError(SECRET)

    with pytest.raises(ConnectionLost, match="function for credentials has raised LookupError") as caught:
        await connect(RedisSettings.parse(server.url, credentials=ask))
    assert isinstance(caught.value.__cause__, LookupError)
    assert SECRET not in str(caught.value)


async def test_a_function_for_credentials_that_returns_none_is_refused(server: RedisServer) -> None:
    error = await refused(server.url, credentials=lambda: 7)  # type: ignore[arg-type]  # wrong on purpose
    assert error.code == "CREDENTIALS"


async def test_secrets_are_in_no_log_and_no_text(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """X9"""
    caplog.set_level(logging.DEBUG)
    server.add_user("me", f"right-{SECRET}")
    given: list[CredentialsSource] = [("me", SECRET), lambda: ("me", SECRET)]
    for credentials in given:
        with pytest.raises(RedisSetupError) as caught:
            await connect(RedisSettings.parse(server.url, credentials=credentials))
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in f"{error} {error!r} {vars(error)}"
            error = error.__context__
    async with connected(server.url, credentials=("me", f"right-{SECRET}")) as connection:
        assert SECRET not in repr(connection)
    assert SECRET not in caplog.text


# --- servers that are not there, or not ready


async def test_no_server_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1:\d+: Connection refused") as caught:
        await connect(RedisSettings.parse(f"redis://127.0.0.1:{free_port()}"))
    assert not caught.value.sent
    with pytest.raises(ConnectionLost, match=r"/no/socket: No such file"):
        await connect(RedisSettings.parse("unix:///no/socket"))
    with pytest.raises(ConnectionLost, match=r"no\.host\.invalid"):
        await connect(RedisSettings.parse("redis://no.host.invalid"))


async def test_a_frozen_server_is_given_up_in_time() -> None:
    with RedisServer() as server:
        server.freeze()
        with pytest.raises(ConnectionLost, match=r"not connected within 0\.1 seconds"):
            await connect(RedisSettings.parse(server.url), timeout=0.1)
        server.thaw()
        assert not server.clients(cmd="hello")


async def test_a_replica_is_not_what_is_looked_for() -> None:
    """After a failover a name may lead to the old master, which will be right only later."""
    with RedisServer() as server:
        server.call("REPLICAOF", "127.0.0.1", server.port)
        with pytest.raises(ConnectionLost, match="it is a replica"):
            await connect(RedisSettings.parse(server.url))


async def test_a_server_with_too_many_clients_may_be_free_later() -> None:
    with RedisServer() as server:
        async with connected(server.url) as connection:
            await connection.execute("CONFIG", "SET", "maxclients", 1)
            with pytest.raises(ConnectionLost, match=r"max number of clients|closed|reset|Broken pipe"):
                await connect(RedisSettings.parse(server.url))


@pytest.mark.parametrize(("version", "too_old"), [("6.0.16", True), ("6.2.0", False), ("7.4", False), ("odd", False)])
def test_a_server_must_not_be_too_old(version: str, too_old: bool) -> None:
    info = server_info([b"server", b"redis", b"version", version.encode(), b"id", 3, b"mode", b"standalone"])
    assert info.too_old == too_old


def test_a_server_before_redis_6_is_refused_without_repeating_what_it_was_sent() -> None:
    """X9"""
    reply = RedisReplyError(f"ERR unknown command `HELLO`, with args beginning with: `2`, `AUTH`, `me`, `{SECRET}`, ")
    error = _refusal(reply, "h:1")
    assert isinstance(error, RedisSetupError)
    assert error.code == "VERSION"
    assert "6.2 or later" in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    "text",
    ["LOADING Redis is loading the dataset in memory", "MISCONF Errors writing to the AOF file", "BUSY a script"],
)
def test_a_server_that_is_not_ready_may_be_later(text: str) -> None:
    assert isinstance(_refusal(RedisReplyError(text), "h:1"), ConnectionLost)


# --- TLS


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


async def test_tls_is_used_where_the_url_says_so(server: RedisServer, certificates: Certificates) -> None:
    """X9"""
    async with Proxy(server.port, certificates.for_server()) as proxy:
        async with connected(proxy.url, ssl_context=certificates.for_client()) as connection:
            value = b"x" * 1_000_000
            assert await connection.pipeline([("SET", "key", value), ("GET", "key")]) == [b"OK", value]
        async with connected(proxy.url, ssl_context=certificates.for_client()) as connection:
            await proxy.cut()
            with pytest.raises(ConnectionLost):
                await connection.execute("PING")


async def test_a_certificate_of_somebody_unknown_is_refused(server: RedisServer, certificates: Certificates) -> None:
    """X9"""
    async with Proxy(server.port, certificates.for_server()) as proxy:
        error = await refused(proxy.url)
    assert error.code == "TLS"
    assert "not to be trusted: " in str(error)


async def test_a_client_certificate_is_shown_where_the_server_wants_one(
    server: RedisServer, certificates: Certificates
) -> None:
    """X9"""
    context = certificates.for_client(certificate=True)
    async with (
        Proxy(server.port, certificates.for_server(clients=True)) as proxy,
        connected(proxy.url, ssl_context=context) as connection,
    ):
        assert await connection.execute("PING") == b"PONG"


async def test_a_missing_client_certificate_is_noticed(certificates: Certificates) -> None:
    """X9: with TLS 1.3 a client hears of it only when it reads."""
    context = certificates.for_server(clients=True)

    def greet(listener: socket.socket) -> None:
        client, _ = listener.accept()
        secure = context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        with pytest.raises(ssl.SSLError):
            secure.do_handshake()  # which tells the client why
        with socket.socket(fileno=secure.detach()) as rest:
            while rest.recv(65536):  # else what it was told might get lost
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"rediss://127.0.0.1:{listener.getsockname()[1]}"
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, greet, listener)
            with pytest.raises(RedisSetupError) as caught:
                await connect(RedisSettings.parse(url, ssl_context=certificates.for_client()))
    assert caught.value.code == "TLS"
    assert "CERTIFICATE_REQUIRED" in caught.value.reason


async def test_a_server_without_tls_is_given_up_in_time(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy:
        with pytest.raises((RedisSetupError, ConnectionLost)):  # it waits for the end of what it takes for a command
            await connect(RedisSettings.parse(proxy.url.replace("redis:", "rediss:")), timeout=0.2)


async def test_a_connection_that_is_given_up_while_tls_begins_is_closed() -> None:
    """L1"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"rediss://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ConnectionLost, match="not connected within"):
            await connect(RedisSettings.parse(url, ssl_context=ssl.create_default_context()), timeout=0.2)
        silent, _ = listener.accept()
        with silent:
            silent.settimeout(60)
            while silent.recv(65536):  # what it has said before
                pass


async def test_a_server_for_tls_alone_is_noticed(server: RedisServer, certificates: Certificates) -> None:
    async with Proxy(server.port, certificates.for_server()) as proxy:
        with pytest.raises(ConnectionLost, match=r"one for TLS|closed|reset"):
            await connect(RedisSettings.parse(proxy.url.replace("rediss:", "redis:")))


@pytest.mark.parametrize("url", ["url", "unix_url"])
async def test_a_connection_that_is_cut_at_any_step_leaves_nothing(server: RedisServer, url: str) -> None:
    """L1, L3"""
    done: list[list[Any]] = []

    async def use() -> None:
        async with connected(getattr(server, url), name="cut") as connection:
            done.append(await connection.pipeline([("INCR", "n"), ("INCR", "n")]))

    steps = 0
    while not done:
        async with anyio.create_task_group() as group:
            group.start_soon(use)
            for _ in range(steps):
                await checkpoint()
            group.cancel_scope.cancel()
        steps += 1 + steps // 20  # the server needs some for its answers, too
    gc.collect()  # what is open and forgotten warns, and warnings are errors
    await until(lambda: not server.clients(name="cut"))


async def test_cancelling_leaves_no_connection_behind(server: RedisServer, certificates: Certificates) -> None:
    """L1, L3"""
    async with Proxy(server.port) as proxy:
        proxy.drop_replies()
        async with anyio.create_task_group() as group:
            group.start_soon(connect, RedisSettings.parse(proxy.url))
            await until(lambda: server.clients(cmd="ping"))
            group.cancel_scope.cancel()
        await until(lambda: not server.clients(cmd="ping"))
