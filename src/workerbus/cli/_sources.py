"""What there is to see at an address, whatever that is the address of; brings the libraries that it takes (O8)."""

from typing import Final

from workerbus.bus import PeerBus
from workerbus.cli._address import Address
from workerbus.cli._commands import USAGE, CommandError
from workerbus.cli._watch import Passing, Watch
from workerbus.errors import MissingExtraError

OPENING: Final = 5.0
"""Seconds in which the server has to be reached."""


def bus_at(address: Address) -> PeerBus:
    """Return a bus for an address.

    Raises:
        CommandError: It makes no sense.
        MissingExtraError: hiredis or msgspec is not installed; an `ImportError`.
    """
    from workerbus.redis import RedisBus, RedisURLError  # noqa: PLC0415 - needs an extra

    try:
        return RedisBus(address.url, prefix=address.prefix, send_timeout=OPENING)
    except (RedisURLError, ValueError) as error:
        raise CommandError(str(error), USAGE) from None


def watch_of(address: Address) -> Watch:
    """Return what there is to see at an address.

    Raises:
        MissingExtraError: A library that it takes is not installed; an `ImportError`.
    """
    if address.is_bus:
        from workerbus.cli._cluster import ClusterWatch  # noqa: PLC0415 - only where there is a bus

        return ClusterWatch(address, bus_at(address))
    try:
        from workerbus.cli._view import ViewWatch  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return ViewWatch(address)


def passing_at(address: Address, *, payloads: bool) -> Passing:
    """Return the messages that pass at an address.

    Args:
        address: The address.
        payloads: Whether their payloads are wanted.

    Raises:
        MissingExtraError: A library that it takes is not installed; an `ImportError`.
    """
    if address.is_bus:
        from workerbus.cli._cluster import ClusterPassing  # noqa: PLC0415 - only where there is a bus

        return ClusterPassing(bus_at(address), payloads=payloads)
    try:
        from workerbus.cli._view import ViewPassing  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return ViewPassing(address, payloads=payloads)


def _missing(error: ModuleNotFoundError) -> ImportError:
    return MissingExtraError("commands on a view", "h11", "cli") if error.name == "h11" else error
