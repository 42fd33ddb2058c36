"""How messages of one class are encoded and decoded (X1).

What a codec does is looked up once for each class. Whether a message comes back equal is seen by bringing it back, and
by comparing each field: that is quicker than a walk through a payload, and cannot differ from what the receiver gets.
"""

from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any, Final

import msgspec

from workerbus._wire_table import MESSAGES
from workerbus.errors import WireError, describe
from workerbus.messages import BusFrameMessage, BusMessage
from workerbus.wire._checks import open_fields, types_of
from workerbus.wire._frame_codec import decode_frame, encode_frame, frame_fields, frame_values
from workerbus.wire._payloads import (
    LONGEST,
    NOT_EQUAL,
    TOO_DEEP,
    Field,
    differs,
    encode,
    fault_in_headers,
    find_fault,
    is_too_deep,
)

VERSION: Final = 1
"""The version of the format. Only what is of the same version can be read."""


class Codec:
    """Encodes and decodes messages of one class.

    Args:
        cls: The class.
        tag: Its tag.

    Raises:
        RegistrationError: A field's type is none that JSON can bring back; a `TypeError`.
    """

    def __init__(self, cls: type[BusMessage], tag: str) -> None:
        self.cls = cls
        self.head: bytes = b'{"v":%d,"t":%s,"m":' % (VERSION, encode(tag))
        self._names = [each.name for each in cls.__attrs_attrs__]  # type: ignore[attr-defined]  # @bus_message is attrs
        self._open = open_fields(cls, types_of(cls, self._names))
        self.values: Callable[[Any], tuple[Any, ...]] = attrgetter(*self._names)
        self.encode: Callable[[Any], bytes] = encode
        self.decode: Callable[[Any], Any] = msgspec.json.Decoder(cls).decode

    def check(self, message: BusMessage, body: bytes) -> None:
        """Bring an encoded message back, and compare.

        Raises:
            WireError: It is nested too deeply, or does not come back equal; a `ValueError`.
        """
        if is_too_deep(body):
            raise WireError(TOO_DEEP)
        if differs(self.values(self.decode(body)), self.values(message)):
            raise WireError(NOT_EQUAL)

    def fields(self, message: BusMessage) -> list[Field]:
        """Return the fields of a message, to look for a fault in."""
        return [(name, getattr(message, name), self._open[name]) for name in self._names]

    def refusal(self, message: BusMessage, error: Exception) -> WireError:
        """Return the error that says why a message cannot travel.

        Args:
            message: The message.
            error: What was raised when that was tried.
        """
        fault = None
        with suppress(Exception):  # of classes of the user's: then it is what was raised before
            fault = fault_in_headers(message.headers) or find_fault(
                self.fields(message), lambda: self.values(self.decode(self.encode(message)))
            )
        if fault is None:
            fault = (error.path, error.reason) if isinstance(error, WireError) else ("", describe(error)[:LONGEST])
        return WireError(fault[1], class_name=self.cls.__name__, path=fault[0])


class FrameCodec(Codec):
    """Encodes and decodes messages that carry a frame."""

    def __init__(self, cls: type[BusMessage], tag: str) -> None:
        super().__init__(cls, tag)
        self.values, self.encode, self.decode = frame_values, encode_frame, decode_frame
        self.fields = frame_fields  # type: ignore[method-assign,assignment]  # of such messages alone


codecs: Final[dict[type[Any], Codec]] = {}
"""The codecs of classes in the table that have been made so far."""


def make_codec(cls: type[Any], tag: str) -> Codec:
    """Make the codec of a class of messages.

    Raises:
        RegistrationError: A field's type is none that JSON can bring back; a `TypeError`.
    """
    return (FrameCodec if cls is BusFrameMessage else Codec)(cls, tag)


def codec_of(cls: type[Any]) -> Codec:
    """Return the codec of a class of messages.

    Raises:
        WireError: It is not in the table; a `ValueError`.
    """
    tag = MESSAGES.by_class.get(cls)
    if tag is None:
        raise WireError(_why_not(cls), class_name=cls.__name__)
    codec = codecs.get(cls)
    if codec is None:
        codec = codecs[cls] = make_codec(cls, tag)
    return codec


def _why_not(cls: type[Any]) -> str:
    if not issubclass(cls, BusMessage):
        return "it is no message"
    if cls.local:
        return "it is local, and never leaves its process"
    return "its class was never registered: put @workerbus.wire.register over it, in each program that has to know it"
