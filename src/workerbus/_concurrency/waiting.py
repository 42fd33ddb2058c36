"""What tasks are for and what they wait for, in words, for who looks at the frames in which they are suspended (O6).

A function that waits says with `waits` how its variables are put into words. One whose task does something for somebody
says with `serves` what that is. Both are looked up by the function's code when somebody asks, and cost nothing before.

It does not know which functions these are, and not who asks.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import singledispatch
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

Key = tuple[str, object] | tuple[str, object, object]
"""What a task can be found by: the job that it does at a worker, its own id, the id of the lane that it serves, or the
name of a worker that it restarts."""


class Wait(NamedTuple):
    """What a task waits for.

    Attributes:
        rank: Where the task stands in the list, the likeliest cause first. -1: it does not wait; 0: for something that
            nobody is known to bring; 1: for an answer, a turn, room, a thread or a timer; 2: for tasks to end; 3: for a
            runner to end.
        text: What it waits for, in words.
        on: What other tasks it waits for, for all of them; empty where they are not known.
        verb: What comes before the text.
    """

    rank: int
    text: str
    on: tuple[Key, ...] = ()
    verb: str = "waits "


class Held(NamedTuple):
    """Something that waits and has no task.

    Attributes:
        title: What it is.
        wait: What it waits for.
        keys: What it can be found by.
        since: When it began, on the event loop's clock; None where that is not known.
        deadline: When its time is up, on the same clock.
    """

    title: str
    wait: Wait
    keys: tuple[Key, ...] = ()
    since: float | None = None
    deadline: float = math.inf


class Role(NamedTuple):
    """What a task is for.

    Attributes:
        title: What it does; empty for one that only stands for somebody, or only has a key.
        keys: What it can be found by.
        behind: Returns what cannot begin before it has gone on. It may put things into other places and back.
        whose: The worker or the runner whose own task it is; empty for most.
        held: Returns what waits at that worker and has no task.
        since: When it began, on the event loop's clock; None where that is not known.
        deadline: When its time is up, on the same clock.
        works: Whether the task is there for nothing but the program's own code, and so is never idle.
    """

    title: str = ""
    keys: tuple[Key, ...] = ()
    behind: Callable[[], Sequence[str]] | None = None
    whose: str = ""
    held: Callable[[], Iterable[Held]] | None = None
    since: float | None = None
    deadline: float = math.inf
    works: bool = False


Its = Mapping[str, Any]
"""The variables of a function that is suspended."""

_WAITS: Final[dict[CodeType, Callable[[Its], Wait | None]]] = {}
_ROLES: Final[dict[CodeType, Callable[[Its], Role]]] = {}


def waits(function: Callable[..., Any], wait: Callable[[Its], Wait | None]) -> None:
    """Say what a function waits for while it is suspended, given its variables; None where it does not know."""
    _WAITS[function.__code__] = wait


def serves(function: Callable[..., Any], role: Callable[[Its], Role]) -> None:
    """Say what a task is for while the function is suspended, given its variables."""
    _ROLES[function.__code__] = role


def wait_of(frame: FrameType) -> Wait | None:
    """Return what a frame waits for; None where it has not said so."""
    words = _WAITS.get(frame.f_code)
    return None if words is None else _asked(words, frame)


def role_of(frame: FrameType) -> Role | None:
    """Return what the task of a frame is for; None where the frame has not said so."""
    words = _ROLES.get(frame.f_code)
    return None if words is None else _asked(words, frame)


def _asked(words: Callable[[Its], T], frame: FrameType) -> T | None:
    try:
        return words(frame.f_locals)
    except Exception:  # noqa: BLE001 - it has just begun, and a variable is not there; or a `repr` of the user's fails
        return None


@singledispatch
def item_in_words(_item: object) -> str:
    """Return what an item of a lane is called; empty for what is not told of. Classes of items register theirs."""
    return ""


# --- for sentences

MOST_NAMES: Final = 10
"""How many names there are at most in one sentence."""


def names_of(names: Iterable[str]) -> str:
    """Return names, quoted and sorted, for a sentence."""
    return enumerated([repr(name) for name in sorted(names)])


def counted(number: int, what: str) -> str:
    """Return a number of things, with an ``s`` where they are several."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def enumerated(texts: Sequence[str]) -> str:
    """Return the first of some texts, and how many more there are."""
    more = f", and {len(texts) - MOST_NAMES} more" if len(texts) > MOST_NAMES else ""
    return ", ".join(texts[:MOST_NAMES]) + more


def job_title(job_id: str, name: str | None) -> str:
    """Return what a job is called."""
    return f"job {name!r} ({job_id})" if name else f"job {job_id}"
