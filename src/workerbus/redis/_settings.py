"""Where a Redis server is and how to get in, from a URL (X9).

    redis://[user[:password]@]host[:port][/db]
    rediss://…                                              the same over TLS
    unix://[user:password@]/path/of/the/socket[?db=0]
    redis+sentinel://host[:port],host[:port]/service[/db]   ask these sentinels where the master is
    rediss+sentinel://…                                     the same over TLS, sentinels and master

Credentials live in closures, so that no ``repr`` and no dump of attributes shows them; and no error repeats a part of
the URL, since a password with a ``/`` in it, say, may be taken for any part.
"""

import inspect
import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote

from attrs import frozen

from workerbus.redis._errors import RedisURLError

Credentials: TypeAlias = str | tuple[str | None, str]
"""A password, or a user and a password; the user None is the server's default one."""

CredentialsSource: TypeAlias = Credentials | Callable[[], Credentials | Awaitable[Credentials]]
"""Credentials, or a function, sync or async, that is asked for them at each connect: they may expire."""

_FORMS: Final = {
    "redis": "redis://[user[:password]@]host[:port][/db]",
    "rediss": "rediss://[user[:password]@]host[:port][/db]",
    "unix": "unix://[user:password@]/path[?db=0]",
    "redis+sentinel": "redis+sentinel://host[:port],host[:port]/service[/db]",
    "rediss+sentinel": "rediss+sentinel://host[:port],host[:port]/service[/db]",
}
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379


class Address(NamedTuple):
    """Where a server listens: a host and a port, or the path of a UNIX socket, which has port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen(kw_only=True, eq=False)
class RedisSettings:
    """Where a Redis server is and how to get in: what `parse` makes of a URL.

    Attributes:
        addresses: Of the server; of the sentinels where there is a `service`.
        service: The name under which the sentinels know the master; None without sentinels.
        db: The number of the database.
        tls: Makes the context for TLS, the same each time; None where none is used.
        credentials: Gives the user and the password, or None; may be async.
        sentinel_credentials: The same for the sentinels themselves.
    """

    addresses: tuple[Address, ...]
    service: str | None = None
    db: int = 0
    tls: Callable[[], ssl.SSLContext] | None = None
    credentials: Callable[[], Any] | None = None
    sentinel_credentials: Callable[[], Any] | None = None

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        credentials: CredentialsSource | None = None,
        sentinel_credentials: CredentialsSource | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> "RedisSettings":
        """Return the settings that a URL describes.

        Args:
            url: As in the head of this module. What is special in a URL is written as ``%2F`` in a user or password.
            credentials: A password, ``(user, password)``, or a function, sync or async, that returns one of them and
                is called at each connect. Not together with a password in the URL.
            sentinel_credentials: The same for the sentinels themselves, which have credentials of their own.
            ssl_context: For TLS; the default one trusts whom the system trusts, and checks the name of the host.

        Raises:
            RedisURLError: Something makes no sense; a `ValueError`. Its text does not repeat the URL.
        """
        if not isinstance(url, str):
            raise RedisURLError(f"the URL of a Redis server is a str, not {type(url).__name__}")
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in _FORMS:
            raise RedisURLError(f"the URL of a Redis server begins with one of {', '.join(f'{s}://' for s in _FORMS)}")
        read = _URL(scheme, rest)
        if read.credentials is not None and credentials is not None:
            raise read.error("it has a user or a password in it, and credentials= was given too: give one of them")
        if sentinel_credentials is not None and read.service is None:
            raise read.error("sentinel_credentials= are for redis+sentinel:// alone")
        secure = scheme.startswith("rediss")
        if ssl_context is not None and not secure:
            raise read.error("ssl_context= is for rediss:// alone")
        return cls(
            addresses=read.addresses,
            service=read.service,
            db=read.db,
            tls=_tls(ssl_context) if secure else None,
            credentials=_source(read.credentials or credentials, "credentials"),
            sentinel_credentials=_source(sentinel_credentials, "sentinel_credentials"),
        )

    def __repr__(self) -> str:
        return f"<RedisSettings {self}>"

    def __str__(self) -> str:
        return f"{self.where}, db {self.db}"

    @property
    def where(self) -> str:
        """Where the server is, for texts."""
        where = ",".join(map(str, self.addresses))
        return where if self.service is None else f"{self.service} of {where}"


class _URL:
    """What stands behind the ``://``, taken apart."""

    def __init__(self, scheme: str, rest: str) -> None:
        self._scheme = scheme
        rest, _, query = rest.partition("?")
        authority, _, path = rest.partition("/")
        user_info, at, hosts = authority.rpartition("@")
        self._misplaced = "@" in path or "@" in query
        self.credentials: Credentials | None = self._credentials(user_info) if at else None
        self.service: str | None = None
        if "#" in rest or "#" in query:
            raise self.error("it has a '#' in it")
        if query and scheme != "unix":
            raise self.error("it has a '?' in it, and there are no parameters")
        if scheme == "unix":
            self.addresses: tuple[Address, ...] = (self._socket(hosts, path),)
            self.db = self._db(query.removeprefix("db=") if query.startswith("db=") or not query else "?")
        elif scheme.endswith("+sentinel"):
            self.addresses = tuple(self._address(host, _SENTINEL_PORT) for host in hosts.split(","))
            service, _, db = path.partition("/")
            self.service = self._plain(service)
            if not self.service:
                raise self.error("it does not name the service that the sentinels watch")
            self.db = self._db(db)
        else:
            self.addresses = (self._address(hosts, _PORT),)
            self.db = self._db(path)

    def error(self, text: str) -> RedisURLError:
        hint = "; what is special in a URL is written with a % in a user or password, '/' as %2F and '@' as %40"
        form = _FORMS[self._scheme]
        return RedisURLError(f"the URL of the Redis server: {text}{hint if self._misplaced else ''} (form: {form})")

    def _plain(self, text: str) -> str:
        try:
            return unquote(text, errors="strict")
        except UnicodeDecodeError:
            pass
        raise self.error("a percent-encoded part is not UTF-8")  # out here, since that error would show it

    def _credentials(self, user_info: str) -> Credentials:
        user, colon, password = user_info.partition(":")
        if not colon or not password:
            raise self.error("it has a user and no password; write user:password@")
        return self._plain(user) or None, self._plain(password)

    def _socket(self, hosts: str, path: str) -> Address:
        plain = self._plain(path)
        if hosts or not plain or "\0" in plain:
            raise self.error("it does not have the path of a socket; it begins with unix:///")
        return Address(f"/{plain}", 0)

    def _address(self, text: str, port: int) -> Address:
        host, colon, number = text.rpartition(":")
        if not colon or number.endswith("]"):
            host, number = text, str(port)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise self.error("a host has more than one ':'; an IPv6 address stands in brackets")
        if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
            raise self.error("the port is no number from 1 to 65535")
        try:
            known = bool(host.encode("idna")) and host.isprintable() and " " not in host
        except UnicodeError:
            known = False
        if not known:
            raise self.error("the name of the host is missing, or is none")
        return Address(host, int(number))

    def _db(self, text: str) -> int:
        if not text:
            return 0
        if not (text.isascii() and text.isdigit() and len(text) < 7):
            raise self.error("the database is no number")
        return int(text)


def _tls(given: ssl.SSLContext | None) -> Callable[[], ssl.SSLContext]:
    # The default one reads the system's certificates, which takes long: once, and not before it is needed.
    return cache(ssl.create_default_context) if given is None else lambda: given


def _source(given: CredentialsSource | None, name: str) -> Callable[[], Any] | None:
    if given is None or callable(given):
        return given
    checked = checked_credentials(given)
    if checked is None:
        raise RedisURLError(f"{name} are a password, (user, password), or a function that returns one of them")
    return lambda: checked


def checked_credentials(given: object) -> tuple[str, str] | None:
    """Return the user and the password, both as text; None where it is neither a password nor such a pair."""
    if isinstance(given, str):
        given = (None, given)
    match given:
        case (None | str() as user, str(password)) if password:
            return user or "default", password
    return None


async def ask_credentials(source: Callable[[], Any]) -> tuple[str, str] | None:
    """Return the user and the password of now; None where what the function has returned is neither."""
    given = source()
    return checked_credentials(await given if inspect.isawaitable(given) else given)
