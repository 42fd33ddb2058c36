"""What a scripted worker does with a job, as a value that can be compared, drawn and pasted into a test (J2, W7)."""

import math
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any, Final, Literal, get_args

from attrs import Attribute, Factory, field, fields, frozen

from workerbus._values import JobStatus
from workerbus.errors import JobFailure

End = Literal["answer", "raise", "hang", "defer", "stop", "crash"]
ENDS: Final[tuple[End, ...]] = get_args(End)


class ScriptedError(Exception):
    """Raised by a `ScriptedWorker` whose script says "raise" or "crash" and names no other error."""


class Pasteable:
    """A mixin for attrs classes: the repr is the call that makes the object, without arguments that have defaults."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown: list[str] = []
        positional = True
        for its in fields(type(self)):  # type: ignore[arg-type]  # it is mixed into attrs classes
            value = getattr(self, its.name)
            if value == _default(its):
                positional = False
                continue
            text = _pasteable(value)
            shown.append(text if positional and not its.kw_only else f"{its.name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        # Hypothesis and IPython ask for this; they would show every field otherwise.
        printer.text(repr(self))


def _default(its: "Attribute[Any]") -> object:
    default: Any = its.default
    return default.factory() if isinstance(default, Factory) else default  # type: ignore[arg-type]  # a class


def _pasteable(value: object) -> str:
    if isinstance(value, JobStatus):
        return f"JobStatus.{value.name}"
    if isinstance(value, JobFailure):
        data = "".join(f", {key}={_pasteable(item)}" for key, item in value.data.items())
        return f"JobFailure({value.reason!r}{data})"
    if type(value) is dict:
        return "{" + ", ".join(f"{_pasteable(key)}: {_pasteable(item)}" for key, item in value.items()) + "}"
    if type(value) in (list, tuple):
        assert isinstance(value, list | tuple)
        inner = ", ".join(map(_pasteable, value))
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)


def seconds(_: object, its: "Attribute[Any]", value: object) -> None:
    """Validate a number of seconds, for attrs: finite, and not less than 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{its.name} is a number of seconds, not less than 0, not {value!r}")


def _end(_: object, __: object, value: object) -> None:
    if value not in ENDS:
        raise ValueError(f"a behaviour ends in one of {', '.join(map(repr, ENDS))}, not in {value!r}")


def _dicts(_: object, its: "Attribute[Any]", value: Any) -> None:
    if wrong := [item for item in value or () if not isinstance(item, dict)]:
        raise TypeError(f"{its.name} are dicts, not {wrong[0]!r}")


def _dict(_: object, its: "Attribute[Any]", value: object) -> None:
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"{its.name} is a dict, not {value!r}")


def _error(_: object, its: "Attribute[Any]", value: object) -> None:
    if value is not None and not isinstance(value, Exception):
        raise TypeError(f"{its.name} is an exception, as ValueError({value!r}) is one, not {value!r}")


def _generator(behaviour: "Behaviour", _: object, value: object) -> None:
    if not value:
        return
    if behaviour.chunks is None:
        raise ValueError("a generator yields chunks: give it some, or chunks=() for none")
    if behaviour.end == "defer":
        raise ValueError("a generator's end is the end of its job: it cannot leave it open, as 'defer' says")
    if behaviour.urgent or behaviour.response is not None or behaviour.status is not JobStatus.COMPLETED:
        raise ValueError("a generator's answer is COMPLETED, with {}: status, response and urgent are not for it")


def _tuple(value: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return tuple(value)


def _tuple_or_none(value: Iterable[dict[str, Any]] | None) -> tuple[dict[str, Any], ...] | None:
    return None if value is None else tuple(value)


@frozen(repr=False)
class Behaviour(Pasteable):
    """What a `ScriptedWorker` does with a job: it sends updates, streams chunks, and then ends the job.

    ::

        Behaviour(response={"text": "hi"}, after=2.0)  # answers after two seconds
        Behaviour(status=JobStatus.FAILED, response={"error": "no room"})
        Behaviour("raise", error=JobFailure("no room"), after=0.5)
        Behaviour(chunks=[{"text": "Hel"}, {"text": "lo"}], every=0.1)  # a stream; its end is the answer
        Behaviour(chunks=[{"n": 1}, {"n": 2}], generator=True)  # as a handler that is an async generator
        Behaviour("hang", clean_up=0.5)  # never answers, and takes its time when it is cancelled

    Args:
        end: How the job ends. ``"answer"``: with an answer, of ``status`` and ``response``. ``"raise"``: the handler
            raises ``error``, which the requester sees as ERROR, or as FAILED if it is a `JobFailure`. ``"hang"``: the
            handler waits until it is cancelled. ``"defer"``: the job is left open until the test calls
            ``worker.answer(job_id)``. ``"stop"``: the worker stops itself during the job. ``"crash"``: the worker's
            ``run()`` raises ``error``.
        after: How many seconds pass before the end, after the last update or chunk.
        status: The status of the answer; with chunks, anything but COMPLETED breaks the stream off.
        response: The answer, as a dict; with chunks, the data of the stream's end.
        urgent: Whether the answer overtakes data messages that wait at the requester.
        updates: The updates that are sent first, as dicts.
        urgent_updates: Whether the updates overtake the data messages that wait at the requester.
        chunks: Partial results, as dicts, streamed after the updates; None for no stream, an empty tuple for an empty
            stream.
        alternate: Whether updates and chunks alternate, an update first; otherwise the updates come first.
        generator: Whether the handler is an async generator that yields the chunks, instead of sending them. The
            clean-up is then the generator's, and the answer is ``{}``.
        every: How many seconds pass before each update and each chunk.
        error: The exception that "raise" and "crash" raise; by default a `ScriptedError`.
        clean_up: For how many seconds the handler goes on, shielded, when it is cancelled.
        insists: Whether it then answers all the same, like code that swallows cancellation. The requester gets
            CANCELLED, with this response.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: There is no such end or status, seconds are negative, or a generator should do what it cannot: have
            no chunks, leave its job open, or answer with anything but ``{}``.

    Guarantees: J2, J18, W7.
    """

    end: End = field(default="answer", validator=_end)
    after: float = field(default=0.0, validator=seconds, kw_only=True)
    status: JobStatus = field(default=JobStatus.COMPLETED, converter=JobStatus, kw_only=True)
    response: dict[str, Any] | None = field(default=None, validator=_dict, kw_only=True)
    urgent: bool = field(default=False, kw_only=True)
    updates: tuple[dict[str, Any], ...] = field(default=(), converter=_tuple, validator=_dicts, kw_only=True)
    urgent_updates: bool = field(default=False, kw_only=True)
    chunks: tuple[dict[str, Any], ...] | None = field(
        default=None, converter=_tuple_or_none, validator=_dicts, kw_only=True
    )
    alternate: bool = field(default=False, kw_only=True)
    generator: bool = field(default=False, validator=_generator, kw_only=True)
    every: float = field(default=0.0, validator=seconds, kw_only=True)
    error: Exception | None = field(default=None, eq=repr, validator=_error, kw_only=True)
    clean_up: float = field(default=0.0, validator=seconds, kw_only=True)
    insists: bool = field(default=False, kw_only=True)

    @property
    def sends(self) -> tuple[tuple[Literal["update", "chunk"], dict[str, Any]], ...]:
        """The updates and the chunks in the order in which they are sent, each with its kind."""
        updates: list[tuple[Literal["update", "chunk"], dict[str, Any]]] = [("update", each) for each in self.updates]
        chunks: list[tuple[Literal["update", "chunk"], dict[str, Any]]]
        chunks = [("chunk", each) for each in self.chunks or ()]
        if not self.alternate:
            return (*updates, *chunks)
        return tuple(each for pair in zip_longest(updates, chunks) for each in pair if each is not None)

    @property
    def seconds(self) -> float:
        """How many seconds the job takes if nobody cancels it; infinite if it does not end by itself."""
        if self.end in ("hang", "defer"):
            return math.inf
        return self.after + self.every * (len(self.updates) + len(self.chunks or ()))
