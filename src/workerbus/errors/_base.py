"""The root of the errors, errors that anybody may raise, and errors in words (L6, L7, N5, N8, N9)."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Final

BRIEF: Final = 1_000
"""So many characters of an error are told to other processes."""


class WorkerBusError(Exception):
    """The root of all errors that workerbus raises.

    Each survives `copy` and `pickle`, as to another process: with its class, its text and its attributes.

    Guarantees: N9.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # By default the class would be called with the text alone, which is not what its __init__ takes.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[WorkerBusError], args: tuple[Any, ...], attributes: dict[str, Any]) -> WorkerBusError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def text_of(exc: BaseException) -> str:
    """Return an exception's text; its own ``__str__`` is the user's code, and may fail."""
    try:
        return encodable(str(exc))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - whatever it was
        return "an error without a text"


def add_note(exc: BaseException, note: str) -> None:
    """Add a note to an exception, also to one that lets nobody set an attribute, such as a frozen dataclass."""
    try:
        exc.add_note(note)
    except Exception:  # noqa: BLE001 - whatever its class does then
        with suppress(Exception):
            vars(exc).setdefault("__notes__", []).append(note)


def encodable(text: str) -> str:
    """Return a text as it can be written as UTF-8: lone surrogates, as names of files may have, become escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def describe(exc: BaseException) -> str:
    """Return an exception in words: its class and its text."""
    return f"{type(exc).__name__}: {text_of(exc)}"


def brief(exc: BaseException) -> str:
    """Describe an exception for others, who keep that: no longer than a thousand characters."""
    text = describe(exc)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ask for known names that look like ``name``; empty where there is none."""
    close = get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def near_names(name: str, known: Iterable[str]) -> str:
    """Say which known names look like ``name``, as the end of a sentence."""
    names = sorted(known)
    if near := did_you_mean(name, names):
        return near
    if names:
        shown = ", ".join(map(repr, names[:5]))
        return f"known are {shown}{', …' if len(names) > 5 else ''}"
    return "no names are known"


def shown(names: Sequence[str]) -> str:
    """Return the first names of many, quoted, for a sentence."""
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class NotRunningError(WorkerBusError, RuntimeError):
    """An object was asked to do something that it cannot do yet, or no longer.

    Guarantees: W1, J14, R1, R3.
    """


class WrongTaskError(WorkerBusError, RuntimeError):
    """Something was entered in one task and left in another, which cannot leave it properly. It is closed all the same.

    Attributes:
        what: What was left.

    Guarantees: L7.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was entered in one task and left in another: an 'async with' is left in the task that has entered "
            "it, so enter and leave it in one function, without a task, a wait_for() or a fixture in between"
        )
        self.what = what


class WrongLoopError(WorkerBusError, RuntimeError):
    """Something was used from a thread or an event loop other than its own.

    Attributes:
        what: What was used.

    Guarantees: L7.
    """

    def __init__(self, what: str, where: str) -> None:
        super().__init__(
            f"{what} belongs to another {where}: to get in from a worker thread of that event loop call "
            "anyio.from_thread.run(), from any other thread use an anyio.from_thread.BlockingPortal"
        )
        self.what = what


class NotInitializedError(WorkerBusError, RuntimeError):
    """A class has an ``__init__`` that does not call ``super().__init__()``, or not before it uses the object.

    Attributes:
        class_name: The name of the class.

    Guarantees: N8.
    """

    def __init__(self, class_name: str) -> None:
        super().__init__(f"{class_name} was not initialized: its __init__() has to call super().__init__() first")
        self.class_name = class_name


class NameTakenError(WorkerBusError, ValueError):
    """Another object has this name already.

    Attributes:
        name: The name that was asked for.

    Guarantees: B5, R3.
    """

    def __init__(self, name: str, where: str) -> None:
        super().__init__(f"the name {name!r} is taken on {where}: give this one another name, or stop the other first")
        self.name = name


class MissingExtraError(WorkerBusError, ImportError):
    """Something needs a library that is not installed.

    Attributes:
        library: The name of the library.
        extra: The extra of this library that installs it.

    Guarantees: J17.
    """

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(f"{what} need {library}: pip install 'workerbus[{extra}]'")
        self.library = library
        self.extra = extra


class MessageTypeError(WorkerBusError, TypeError):
    """Something that is not a proper bus message was defined, created or sent.

    Guarantees: N5.
    """
