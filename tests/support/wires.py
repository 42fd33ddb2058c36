"""Messages and frames of users that travel over the wire, and ways to break them."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve, frozen

from workerbus import BusDataMessage, BusFrameMessage, BusJobRequestMessage, BusSystemMessage, bus_message, wire
from workerbus.errors import WireError
from workerbus.pipeline import DataFrame, Frame, FrameDirection, SystemFrame, UninterruptibleFrame, frame_type


class Colour(Enum):
    RED = "red"
    GREEN = "green"


@frozen
class Point:
    x: int
    y: float = 0.0
    note: Any = None


@wire.register
@bus_message
class Drawing(BusDataMessage):
    """A message of a user, with fields of many types."""

    points: list[Point]
    colour: Colour = Colour.RED
    title: str | None = None
    extra: dict[str, Any] | None = None
    anything: Any = None
    pair: tuple[int, str] = (0, "")
    tags: frozenset[str] = frozenset()
    blob: bytes = b""
    when: datetime | None = None
    price: Decimal = Decimal(0)
    key: UUID = UUID(int=0)
    by_number: dict[int, str] | None = None
    share: float | None = None


@wire.register(tag="alert")
@bus_message
class Alert(BusSystemMessage):
    level: int = 0


@wire.register
@frame_type
class Sound(DataFrame):
    audio: bytes
    rate: int = 16_000
    extra: dict[str, Any] | None = None


@wire.register
@frame_type
class Receipt(DataFrame, UninterruptibleFrame):
    number: int


@wire.register(tag="siren")
@frame_type
class Siren(SystemFrame):
    points: list[Point]


WIRE = wire.Wire()


def there_and_back(message: Any) -> Any:
    """What arrives of a message."""
    return WIRE.decode(WIRE.encode(message))


def changed(message: Any, **fields: Any) -> Any:
    """A message like another, but for some fields."""
    return evolve(message, **fields)


def asks(payload: Any) -> BusJobRequestMessage:
    """A request with a payload."""
    return BusJobRequestMessage("1-a", "count", payload, source="me", target="you")


def carries(frame: Frame, **options: Any) -> BusFrameMessage:
    """A message that carries a frame."""
    return BusFrameMessage(frame, FrameDirection.DOWNSTREAM, source="me", **options)


def refusal(message: Any) -> WireError:
    """The error with which a message is refused where it is sent."""
    with pytest.raises(WireError) as caught:
        WIRE.encode(message)
    assert not caught.value.arrived
    return caught.value


def unreadable(data: Any, by: wire.Wire = WIRE) -> WireError:
    """The error with which bytes are refused where they arrive."""
    with pytest.raises(WireError) as caught:
        by.decode(data)
    assert caught.value.arrived
    return caught.value
