"""``workerbus view``: serves a live view of all processes on a bus to browsers, until it is told to end (O7, O8)."""

import argparse
import os
import signal
import sys

import anyio

from workerbus.cli._address import BUS, TOKEN, Address, add_address, address_of
from workerbus.cli._commands import USAGE, CommandError, Commands, WarningsInOneLine
from workerbus.errors import BusUnavailable, WorkerBusError

OPENING = 5.0
"""Seconds in which the server has to be reached."""


def add_view(commands: Commands) -> None:
    """Add the command ``view``."""
    parser = commands.add_parser(
        "view",
        help="serve a live view of all processes on a bus to browsers",
        description="Join the bus, and serve a page that shows the runners of all processes: their workers, jobs, what"
        " becomes of them, errors. While nobody looks at the page, nothing is gathered anywhere. Ctrl-C ends it.",
    )
    add_address(parser, BUS, positional=True)
    parser.add_argument("--host", default="127.0.0.1", help="the address of the page; default: %(default)s")
    parser.add_argument("--port", type=_port, default=8765, help="its port, 0 for any; default: %(default)s")
    parser.add_argument(
        "--allowed-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name under which the page may be asked for; may be given several times",
    )
    parser.add_argument("--name", help="what the page is called; default: the prefix, and where the bus is")
    parser.add_argument(
        "--payloads", action="store_true", help="tell the payloads of messages, too, to those who ask /api/messages"
    )
    parser.set_defaults(run=view)


def view(given: argparse.Namespace) -> int:
    """Serve a view."""
    address = address_of(given, BUS)
    if not address.is_bus:
        raise CommandError("view needs the bus itself: redis://…", USAGE)
    with WarningsInOneLine():
        anyio.run(serve, address, given)
    return 0


async def serve(address: Address, given: argparse.Namespace) -> None:
    """Serve a view of a bus until a signal comes.

    Raises:
        CommandError: It cannot be served.
        MissingExtraError: A library that it takes is not installed; an `ImportError`.
    """
    from workerbus.redis import RedisBus, RedisURLError  # noqa: PLC0415 - needs an extra
    from workerbus.view import UnprotectedViewError, serve_view  # noqa: PLC0415 - the same

    token: str | None = given.token or os.environ.get(TOKEN) or None
    try:
        bus = RedisBus(address.url, prefix=address.prefix, send_timeout=OPENING)
        served = serve_view(
            bus,
            host=given.host,
            port=given.port,
            token=token,
            allowed_hosts=given.allowed_host,
            name=given.name or f"{address.prefix} at {address.shown}",
            payloads=given.payloads,
        )
    except UnprotectedViewError:
        raise CommandError(f"at {given.host} everybody could read it: give it a --token", USAGE) from None
    except (RedisURLError, ValueError) as error:
        raise CommandError(str(error), USAGE) from None
    try:
        async with served:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                sys.stdout.write(f"{served.url}\n")
                sys.stdout.flush()
                await anext(aiter(signals))
    except OSError as error:
        if isinstance(error, BusUnavailable):
            raise CommandError(str(error)) from None
        raise CommandError(f"{given.host}:{given.port} cannot be listened at: {error.strerror or error}") from None
    except WorkerBusError as error:
        raise CommandError(str(error)) from None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a number from 0 to 65535, not {text!r}")
    return int(text)
