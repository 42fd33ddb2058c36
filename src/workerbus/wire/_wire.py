"""`Wire`: one message, and its bytes (X1, X8)."""

from typing import Any, Final

import msgspec

from workerbus._wire_table import MESSAGES
from workerbus.errors import WireError, describe
from workerbus.messages import BusMessage
from workerbus.wire._codec import VERSION as VERSION
from workerbus.wire._codec import codec_of
from workerbus.wire._payloads import LONGEST, path_in

MAX_MESSAGE_SIZE: Final = 2**20
"""How many bytes a message may have, by default: 1 MiB."""


class _Envelope(msgspec.Struct):
    v: int
    t: str
    m: msgspec.Raw


class _AnyEnvelope(msgspec.Struct):
    v: Any = None


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode
_decode_version: Final = msgspec.json.Decoder(_AnyEnvelope).decode


class Wire:
    """Encodes messages, and decodes them.

    Args:
        max_message_size: How many bytes an encoded message may have.

    Raises:
        ValueError: ``max_message_size`` is less than 1.

    Guarantees: X1.
    """

    def __init__(self, max_message_size: int = MAX_MESSAGE_SIZE) -> None:
        if not max_message_size >= 1:
            raise ValueError(f"max_message_size must be at least 1, not {max_message_size!r}")
        self.max_message_size: int = max_message_size

    def encode(self, message: BusMessage) -> bytes:
        """Return a message as bytes.

        Args:
            message: The message, of a class of the library's that is not local, or of one that was registered.

        Raises:
            WireError: It would not come back equal, or is too large, or its class is not registered; a `ValueError`
                that names the path of what cannot travel.

        Guarantees: X1, X8.
        """
        codec = codec_of(type(message))
        try:
            body = codec.encode(message)
            size = len(codec.head) + len(body) + 1
            if size <= self.max_message_size:
                codec.check(message, body)
        except WireError as exc:
            raise codec.refusal(message, exc) from None
        except Exception as exc:
            raise codec.refusal(message, exc) from exc
        if size > self.max_message_size:
            raise self._too_large(size, codec.cls.__name__, arrived=False)
        return codec.head + body + b"}"

    def decode(self, data: bytes) -> BusMessage:
        """Return the message that is encoded in bytes.

        Args:
            data: The bytes, from any source.

        Raises:
            WireError: They are not a known message of this version, or are too large; a `ValueError`. Nothing else is
                raised, whatever the bytes are.

        Guarantees: X1, X8.
        """
        class_name = ""
        try:
            if len(data) > self.max_message_size:
                raise self._too_large(len(data), "", arrived=True)
            envelope = _decode_envelope(data)
            if envelope.v != VERSION:
                raise WireError(_another_version(envelope.v), arrived=True)
            cls = MESSAGES.by_tag.get(envelope.t)
            if cls is None:
                tag = envelope.t[:LONGEST]
                why = f"there is no class {tag!r} here: import the module that registers it, in this program, too"
                raise WireError(why, arrived=True, unknown_tag=tag)
            class_name = cls.__name__
            message: BusMessage = codec_of(cls).decode(envelope.m)
        except WireError:
            raise
        except Exception as exc:
            path, why = path_in(exc) if isinstance(exc, msgspec.ValidationError) else ("", describe(exc)[:LONGEST])
            version = None if class_name else _version_of(data)
            if version not in (None, VERSION):
                path, why = "", _another_version(version)
            raise WireError(why, class_name=class_name, path=path, arrived=True) from exc
        return message

    def _too_large(self, size: int, class_name: str, *, arrived: bool) -> WireError:
        why = f"it has {size:,} bytes, and max_message_size is {self.max_message_size:,}"
        return WireError(why, class_name=class_name, arrived=arrived)


def _version_of(data: bytes) -> Any:
    try:
        return _decode_version(data).v
    except Exception:  # noqa: BLE001 - whatever it was: it is no message at all
        return None


def _another_version(version: object) -> str:
    return f"it is of version {str(version)[:20]} of the format, and this program reads version {VERSION}"
