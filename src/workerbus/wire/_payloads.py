"""Encoding, and what cannot be encoded: where in a message, and why (X1).

The walks here are taken when encoding has failed already, so they may take their time. They call for each part what has
failed for the whole: there are no rules of their own that could differ from msgspec's. Values are not shown in errors,
only where they stand and of what type they are.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Final

import msgspec

from workerbus.errors import WireError, describe

DEEPEST: Final = 500
"""In so many levels a message may be nested, itself included. Python's own limits differ between its versions, and with
how much of the stack is taken, so what one process could encode another could not decode."""
TOO_DEEP: Final = f"it is nested in more than {DEEPEST} levels"


NOT_EQUAL: Final = "what would come back is not equal to it"
LONGEST: Final = 200
"""Of what others say about a fault, so many characters are passed on."""


def _as_dict(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{_kind(value)} has no form in JSON")


encode: Final = msgspec.json.Encoder(enc_hook=_as_dict).encode


_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")


def is_too_deep(data: bytes) -> bool:
    """Whether JSON is nested in more levels than a message may be. It takes less than a tenth of `Wire.encode`."""
    if len(data) < 2 * DEEPEST:
        return False
    return _is_too_deep(data) and _is_too_deep(_STRING.sub(b"", data))  # brackets in texts are rare, and need more time


def _is_too_deep(data: bytes) -> bool:
    """Whether something is left when the innermost pairs are taken away, again and again, once for each level."""
    brackets = data.translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(DEEPEST):
        before, brackets = len(brackets), brackets.replace(b"[]", b"")
        if len(brackets) == before:
            break
    return bool(brackets)


def differs(one: object, other: object) -> bool:
    """Whether two values are not equal; their ``==`` is their own, and may fail."""
    try:
        return bool(one != other)
    except Exception:  # noqa: BLE001 - whatever it was
        return True


def _kind(value: object) -> str:
    """Return what a value is, without showing it."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return str(value)
    return type(value).__name__


def _step(key: object) -> str:
    if isinstance(key, str):
        return f".{key}" if key.isidentifier() else f"[{key[:40]!r}]"
    return f"[{key!r:.40}]" if isinstance(key, int | float | None) else f"[<{_kind(key)}>]"


def _loses(value: object, key: bool = False) -> str | None:
    """Say what becomes of one value on the way, if it would not come back equal."""
    sent = {value: None} if key else value
    try:
        encoded = encode(sent)
    except UnicodeEncodeError:
        return "it has a lone surrogate, which is no text"
    except RecursionError:
        return TOO_DEEP
    except Exception:  # noqa: BLE001 - whatever it was
        if type(value) is int:
            return "it has too many digits"
        return f"a key is a text, not {_kind(value)}" if key else f"{_kind(value)} has no form in JSON"
    try:
        came = msgspec.json.decode(encoded)
    except Exception as exc:  # noqa: BLE001 - whatever it was
        return describe(exc)
    if not differs(came, sent):
        return None
    return f"a key is a text, not {_kind(value)}" if key else f"{_kind(value)} would come back as {_kind(came)}"


def fault_in_payload(value: object, path: str) -> tuple[str, str] | None:
    """Find the first thing in a payload that JSON does not bring back.

    Args:
        value: The payload.
        path: Where it stands.

    Returns:
        Where the thing stands, and why it cannot travel; None if there is none.
    """
    waiting: list[tuple[object, str, frozenset[int]]] = [(value, path, frozenset())]
    while waiting:
        value, path, above = waiting.pop()
        if isinstance(value, list):
            parts: list[tuple[object, str]] = [(each, f"[{number}]") for number, each in enumerate(value)]
        elif isinstance(value, Mapping):
            parts = [(each, _step(key)) for key, each in value.items()]
            for key in value:
                if why := _loses(key, key=True):
                    return f"{path}{_step(key)}", why
        elif why := _loses(value):
            return path, why
        else:
            continue
        if id(value) in above:
            return path, "it is in itself"
        if len(above) + 2 > DEEPEST:  # beside those above: itself, and the message
            return f"{path[:100]}…", TOO_DEEP
        above = above | {id(value)}
        waiting += [(each, f"{path}{step}", above) for each, step in reversed(parts)]
    return None


Field = tuple[str, Any, bool]
"""A field of a message: where it stands, its value, and whether its type leaves open what it may be."""


def find_fault(fields: Sequence[Field], decoded: Callable[[], Sequence[Any]]) -> tuple[str, str] | None:
    """Find out why fields do not come back equal.

    Args:
        fields: The fields.
        decoded: Encodes and decodes all of them, and returns their values.

    Returns:
        Where the fault is, and what it is; None if none is found.
    """
    for path, value, is_open in fields:
        if is_open and (fault := fault_in_payload(value, path)):
            return fault
        try:
            encoded = encode(value)
        except Exception as exc:  # noqa: BLE001 - whatever it was
            return path, _loses(value) or describe(exc)
        if is_too_deep(b"[%b]" % encoded):  # with the message around it
            return path, TOO_DEEP
    try:
        came = decoded()
    except WireError as exc:
        return exc.path, exc.reason
    except msgspec.ValidationError as exc:
        return path_in(exc)
    except Exception as exc:  # noqa: BLE001 - of the user's own classes, perhaps
        return "", describe(exc)
    for (path, value, _), back in zip(fields, came, strict=True):
        if differs(back, value):
            return path, NOT_EQUAL
    return None


def fault_in_headers(headers: Any) -> tuple[str, str] | None:
    """Find the first header that is no text; None if there is none."""
    if isinstance(headers, Mapping):
        for key, value in headers.items():
            if not isinstance(value, str):
                return f"headers{_step(key)}", f"a header is a text, not {_kind(value)}"
    return fault_in_payload(headers, "headers")


def path_in(error: Exception) -> tuple[str, str]:
    """Return where in the data msgspec has found a fault, and what it says of it."""
    text, _, path = str(error).partition(" - at `")
    text = text[:LONGEST].replace("`", "")  # it may show what has come
    inside, is_key, above = path.rpartition("` in `")
    if is_key:  # of a key, msgspec says only in what it is
        path, text = above, f"{text}, for a {inside}"
    return path.rstrip("`").removeprefix("$").removeprefix("."), text[:1].lower() + text[1:]
