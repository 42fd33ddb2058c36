"""Typed jobs: what a handler's annotations say of its payload and its answer, and the conversion of both (J17).

In a message a payload is a mapping of plain values, whatever the two ends make of it: so a network changes nothing. An
attrs class, a dataclass, a `TypedDict` or a msgspec struct is turned into that mapping where it is sent, and made again
where it is received. msgspec does both, and is imported when the first handler needs it. What a handler wants is read
off its annotations, once for each function.

A handler that takes the request itself, or a plain mapping, is none of this: nothing is converted.
"""

import datetime
import inspect
import types
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from decimal import Decimal
from types import ModuleType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict
from uuid import UUID
from weakref import WeakKeyDictionary

from attrs import fields_dict, frozen, has

from workerbus.errors import HandlerTypeError, MissingExtraError, NotRunningError, PayloadError
from workerbus.messages import BusJobRequestMessage, BusMessage

PLAIN: Final = (
    bytes, bytearray, memoryview, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, Decimal, UUID,
)  # fmt: skip
"""What stays as it is in a payload, beside what JSON has."""

P = TypeVar("P")
R = TypeVar("R")
Y = TypeVar("Y")
Handler = Callable[[Any, P], Awaitable[R]]
"""A handler that takes its payload as a type of its own."""
MessageHandler = Callable[[Any, BusJobRequestMessage], Awaitable[R]]
"""A handler that takes the request."""
StreamHandler = Callable[[Any, P], AsyncIterator[Y]]
"""A handler that is an async generator."""

_current: "ContextVar[BusJobRequestMessage]" = ContextVar("workerbus.current_job")


def current_job() -> BusJobRequestMessage:
    """Return the request that a typed handler works on, in the handler and in what it calls.

    ::

        @job(name="parse")
        async def parse(self, share: Share) -> Result:
            await self.send_job_update(current_job().job_id, {"at": 1})

    Raises:
        NotRunningError: No typed handler runs here; one that takes the request has it anyway. A `RuntimeError`.

    Guarantees: J17.
    """
    message = _current.get(None)
    if message is None:
        raise NotRunningError("no typed job handler runs here: a handler that takes the request itself has it anyway")
    return message


@contextmanager
def working_on(message: BusJobRequestMessage) -> Iterator[None]:
    """Let `current_job` return a request."""
    token = _current.set(message)
    try:
        yield
    finally:
        _current.reset(token)


_STREAMS: Final = (AsyncIterator, AsyncGenerator, AsyncIterable)
_MAPPINGS: Final = (dict, Mapping)
_UNIONS: Final = (Union, types.UnionType)


@frozen
class Signature:
    """What a handler takes, and what it gives.

    Args:
        name: What the handler is called, for errors.
        payload: The type of its payload; None where it takes the request, `Mapping` for the payload as it is.
        answer: The type of its answer; None where that is not converted.
        chunk: The type of what it yields; None where that is not converted.
        streams: Whether it is annotated as an async generator.
    """

    name: str
    payload: Any = None
    answer: Any = None
    chunk: Any = None
    streams: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the handler takes the request, and nothing that it gives is converted."""
        return self.payload is None and self.answer is None and self.chunk is None

    def check_payload(self, payload: object) -> dict[str, Any] | None:
        """Return a payload as a mapping of plain values, if the handler can take it.

        Raises:
            PayloadError: It does not fit; a `TypeError`.
        """
        if self.payload is None or self.payload is Mapping:
            if payload is None or isinstance(payload, Mapping):
                return payload  # type: ignore[return-value]  # any mapping will do
            raise PayloadError(self.name, "payload", f"expected a mapping, got {type(payload).__name__}")
        plain = self._plain({} if payload is None else payload, "payload")
        self._made(plain, self.payload, "payload")
        return plain

    def check_payloads(self, payload: object, payloads: object) -> tuple[Any, Any]:
        """Do what `check_payload` does with the payload of all, if there is one, and with each one's own."""
        if isinstance(payloads, Mapping):
            payloads = {worker: self.check_payload(each) for worker, each in payloads.items()}
        return (payload if payload is None and payloads is not None else self.check_payload(payload)), payloads

    def made_payload(self, message: BusJobRequestMessage) -> Any:
        """Return what the handler is called with."""
        if self.payload is None:
            return message
        payload = {} if message.payload is None else message.payload  # None: built by hand
        return payload if self.payload is Mapping else self._made(payload, self.payload, "payload")

    def plain_answer(self, answer: object) -> Any:
        """Return the answer of the handler as a mapping of plain values; checked, if there is a type to check it by."""
        if self.answer is None or answer is None:
            return answer
        plain = self._plain(answer, "answer")
        self._made(plain, self.answer, "answer")
        return plain

    def plain_chunk(self, chunk: object) -> Any:
        """Return what the handler has yielded as a mapping of plain values."""
        if self.chunk is None or chunk is None:
            return chunk
        plain = self._plain(chunk, "chunk")
        self._made(plain, self.chunk, "chunk")
        return plain

    def made_answer(self, answer: Mapping[str, Any]) -> Any:
        """Return the answer as its requester wants it."""
        return answer if self.answer is None else self._made(answer, self.answer, "answer")

    def made_chunk(self, chunk: Mapping[str, Any]) -> Any:
        """Return a chunk of the stream as its requester wants it."""
        return chunk if self.chunk is None else self._made(chunk, self.chunk, "chunk")

    def _plain(self, value: object, what: str) -> dict[str, Any]:
        try:
            plain = _msgspec(self.name).to_builtins(value, builtin_types=PLAIN, str_keys=True, enc_hook=_as_dict)
        except (TypeError, ValueError, RecursionError) as exc:
            raise PayloadError(self.name, what, str(exc)) from exc
        if not isinstance(plain, dict):
            raise PayloadError(self.name, what, f"expected an object with fields, got {type(value).__name__}")
        return plain

    def _made(self, value: object, kind: Any, what: str) -> Any:
        msgspec = _msgspec(self.name)
        try:
            return msgspec.convert(value, kind, builtin_types=PLAIN)
        except msgspec.ValidationError as exc:
            raise PayloadError(self.name, what, *_path(str(exc))) from exc
        except (TypeError, ValueError) as exc:  # of the class itself, or of its own checks
            raise PayloadError(self.name, what, str(exc)) from exc


def _as_dict(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} cannot travel: numbers, texts, bytes, times, lists and objects can")


def _path(text: str) -> tuple[str, str]:
    text, _, path = text.partition(" - at `")
    return text[:1].lower() + text[1:], path.rstrip("`").removeprefix("$").removeprefix(".")


def _msgspec(name: str) -> ModuleType:
    try:
        import msgspec  # noqa: PLC0415 - an extra, and only for typed jobs
    except ImportError:
        raise MissingExtraError(f"the types of {name}", "msgspec", "typed") from None
    return msgspec


_signatures: "WeakKeyDictionary[Any, Signature]" = WeakKeyDictionary()


def signature_of(handler: Any) -> Signature:
    """Return what a handler takes and gives.

    Args:
        handler: The function, or the method bound to a worker.

    Raises:
        HandlerTypeError: An annotation cannot be resolved, or is of a type that no payload, answer or chunk can be; a
            `TypeError`.
        MissingExtraError: msgspec is not installed, and the handler needs it; an `ImportError`.
    """
    outermost = getattr(handler, "__func__", handler)
    function = inspect.unwrap(outermost)
    try:
        known = _signatures.get(function)
        if known is None:
            # A decorator may make an answer of what the function gives: that is no mistake of the function's then.
            known = _signatures[function] = _read(function, gives_answers=function is outermost)
    except TypeError as exc:
        if isinstance(exc, HandlerTypeError):
            raise
        return Signature(repr(handler))  # no function, and nothing that one can remember anything of
    return known


def _read(function: Any, *, gives_answers: bool) -> Signature:
    name = getattr(function, "__qualname__", repr(function)).rpartition("<locals>.")[2]
    annotations = dict(getattr(function, "__annotations__", None) or {})
    parameters = list(inspect.signature(function).parameters) if annotations else []
    parameter = parameters[1] if len(parameters) > 1 else None
    wanted = annotations.get(parameter, Any) if parameter is not None else Any
    if _names_the_request(wanted):
        wanted = Any
    given = annotations.get("return", Any)
    hints = _resolved(function, name, {"payload": wanted, "answer": given})
    payload = _payload(hints["payload"], name)
    answer, chunk, streams = hints["answer"], None, False
    stream = _below(answer)
    if stream in _STREAMS or get_origin(stream) in _STREAMS:
        chunk, answer, streams = (*get_args(stream), None)[0], None, True
    if gives_answers:
        _check_given(answer, f"{name} returns", "answer")
        _check_given(chunk, f"{name} yields", "chunk")
    signature = Signature(name, payload, _converted(answer), _converted(chunk), streams)
    for hint in (signature.payload, signature.answer, signature.chunk):
        if hint not in (None, Mapping):
            _check_convertible(hint, name)
    return signature


def _check_convertible(hint: Any, name: str) -> None:
    msgspec = _msgspec(name)
    try:
        msgspec.convert(None, hint, builtin_types=PLAIN)
    except msgspec.ValidationError:
        pass  # None is none of these; but it is known what would be
    except (TypeError, NameError) as exc:
        raise HandlerTypeError(f"{name}: {getattr(hint, '__name__', hint)} cannot be converted: {exc}") from exc
    for kind, field_name in _private_fields(hint, set()):
        raise HandlerTypeError(
            f"{name}: field {field_name!r} of {kind.__name__} is private, and would not travel: give it a public name"
        )


def _private_fields(hint: Any, seen: set[Any]) -> Iterator[tuple[type, str]]:
    """Find the private fields of attrs classes: they would be left out without a word."""
    if hint in seen:
        return
    seen.add(hint)
    for each in get_args(hint):
        yield from _private_fields(each, seen)
    kind = get_origin(hint) or hint
    if inspect.isclass(kind) and (has(kind) or hasattr(kind, "__dataclass_fields__") or is_typeddict(kind)):
        for field_name, below in get_type_hints(kind).items():
            if has(kind) and field_name.startswith("_") and field_name in fields_dict(kind):
                yield kind, field_name
            yield from _private_fields(below, seen)


def _names_the_request(annotation: object) -> bool:
    # Often imported for type checkers alone, so that it cannot be resolved, and need not be.
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2].strip("\"' ") == "BusJobRequestMessage"
    return annotation is BusJobRequestMessage


def _resolved(function: Any, name: str, annotations: dict[str, Any]) -> dict[str, Any]:
    if not any(isinstance(each, str) or not isinstance(each, type) for each in annotations.values()):
        return annotations
    carrier = types.SimpleNamespace(__annotations__=annotations)
    names = {**getattr(function, "__globals__", {}), **_enclosing(function)}
    try:
        return get_type_hints(carrier, globalns=names, include_extras=True)
    except NameError as exc:
        if isinstance(annotations["answer"], str) and not isinstance(annotations["payload"], str):
            return _resolved(function, name, {**annotations, "answer": Any})  # nothing hangs on what cannot be known
        raise HandlerTypeError(
            f"an annotation of {name} cannot be resolved: {exc}. Import what it names at run time, and not for type "
            "checkers alone; or let the handler take a BusJobRequestMessage"
        ) from exc


def _enclosing(function: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=True):
        with suppress(ValueError):  # it is still empty
            found[name] = cell.cell_contents
    return found


def _payload(hint: Any, name: str) -> Any:
    plain = _below(hint)
    if plain in (Any, object, None) or _is_message(plain) or hasattr(plain, "__constraints__"):
        return None
    if plain in _MAPPINGS or get_origin(plain) in _MAPPINGS or _is_named(plain, "Mapping"):
        return Mapping
    if _is_known(hint):
        return hint
    raise HandlerTypeError(
        f"{name} takes {_shown(hint)}, which no payload can be: annotate it with an attrs class, "
        "a dataclass, a TypedDict, a msgspec.Struct, a Mapping, or a BusJobRequestMessage"
    )


def _check_given(hint: Any, who_gives: str, what: str) -> None:
    """Raise `HandlerTypeError` where what a handler gives can certainly never be sent."""
    if not (_is_known(hint) or _may_be_plain(hint)):
        raise HandlerTypeError(
            f"{who_gives} {_shown(hint)}, which no {what} can be: annotate it with an attrs class, a dataclass, "
            "a TypedDict, a msgspec.Struct, a dict, or None"
        )


def _may_be_plain(hint: Any) -> bool:
    """Whether a dict or None may be of a type, or nothing is known of it."""
    hint = _below(hint)
    origin = get_origin(hint)
    if origin in _UNIONS:
        members = get_args(hint)  # a typed one among plain ones could not be told from them
        return all(map(_may_be_plain, members)) and not any(map(_is_known, members))
    kind = origin or hint
    if kind is Literal or not inspect.isclass(kind) or kind is Any:
        return kind is not Literal
    try:
        return issubclass(kind, dict | types.NoneType) or issubclass(dict, kind)
    except TypeError:  # a protocol that does not let itself be asked
        return True


def _below(hint: Any) -> Any:
    """Return the type that is behind an annotation, a `NewType` or an alias."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":  # of Python 3.12 on
            hint = hint.__value__
        else:
            return hint


def _shown(hint: Any) -> str:
    return str(getattr(hint, "__name__", hint)) if get_origin(hint) is None else str(hint)


def _is_message(hint: Any) -> bool:
    return any(map(_is_message, get_args(hint))) or (inspect.isclass(hint) and issubclass(hint, BusMessage))


def _is_named(hint: Any, name: str) -> bool:
    return getattr(get_origin(hint), "__name__", None) == name


def _converted(hint: Any) -> Any:
    """Return the type of an answer or a chunk, if it is one to convert; None if it is not."""
    return hint if _is_known(hint) else None


def _is_known(hint: Any) -> bool:
    hint = _below(hint)
    origin = get_origin(hint)
    if origin in _UNIONS:
        members = [each for each in get_args(hint) if each is not type(None)]
        return bool(members) and all(map(_is_known, members))
    kind = origin or hint
    return inspect.isclass(kind) and (
        is_typeddict(kind)
        or (hasattr(kind, "__attrs_attrs__") and not issubclass(kind, BusMessage))
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__struct_fields__")
    )
