"""Where a command looks: the page of a view, or the bus itself (O8).

An address says by its scheme what it is. It may have a password in it, so no text here has more of it than the host.
"""

import argparse
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from workerbus.cli._commands import USAGE, CommandError

URL: Final = "WORKERBUS_URL"
"""The environment variable with the address, where none is given."""
TOKEN: Final = "WORKERBUS_TOKEN"  # noqa: S105 - the name of a variable
"""The environment variable with the token of a view."""
VIEW: Final = "http://127.0.0.1:8765/"
"""Where a view is, if nobody says otherwise."""
BUS: Final = "redis://localhost"
"""Where the bus is, if nobody says otherwise."""

_OF_VIEWS: Final = ("http", "https")
_OF_BUSES: Final = ("redis", "rediss", "unix", "redis+sentinel")


class Address(NamedTuple):
    """Where a command looks.

    Attributes:
        url: All of it.
        is_bus: Whether it is that of a bus, and not of a view.
        token: What a view wants to be told; None for nothing.
        prefix: What the keys of a bus begin with.
    """

    url: str
    is_bus: bool
    token: str | None
    prefix: str

    @property
    def shown(self) -> str:
        """The address for people, without user, password and query."""
        at = urlsplit(self.url)
        if at.scheme == "unix":
            return f"unix://{at.path}"
        return f"{at.scheme}://{at.netloc.rpartition('@')[2]}{at.path.rstrip('/')}"


def add_address(parser: argparse.ArgumentParser, default: str, *, positional: bool) -> None:
    """Add the arguments of a command that say where it looks."""
    what = f"default: ${URL}, or else {default}"
    if positional:
        parser.add_argument(
            "address", metavar="ADDRESS", nargs="?", help=f"the page of a view, http://…, or a bus, redis://…; {what}"
        )
        parser.add_argument("--token", metavar="TOKEN", help=f"what the view wants to be told; default: ${TOKEN}")
    else:
        parser.add_argument("--url", metavar="ADDRESS", dest="address", help=f"the bus, redis://…; {what}")
    parser.add_argument(
        "--prefix", default="workerbus", help="what the keys of the bus begin with; default: %(default)s"
    )


def address_of(given: argparse.Namespace, default: str, environment: Mapping[str, str] | None = None) -> Address:
    """Return where a command is to look.

    Raises:
        CommandError: That is no address.
    """
    known: Mapping[str, Any] = os.environ if environment is None else environment
    url = given.address or known.get(URL) or default
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme not in (*_OF_VIEWS, *_OF_BUSES):
        raise CommandError("an address begins with http:// (the page of a view) or redis:// (a bus)", USAGE)
    try:
        found = scheme == "unix" or urlsplit(url).port is None or True
    except ValueError:
        found = False
    if not found or (scheme in _OF_VIEWS and not urlsplit(url).hostname):
        raise CommandError("the address has no host, or its port is no number", USAGE)
    token = getattr(given, "token", None) or known.get(TOKEN) or None
    return Address(url, scheme in _OF_BUSES, token, given.prefix)
