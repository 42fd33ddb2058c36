"""What the program's own code reads and changes in each step of a run that is to be told.

It looks at each line of the program's own code, as a debugger does, before and after it runs: at what the line names,
and what others can name, too. Such are variables of an enclosing function, attributes of objects, and globals. Values
of a few kinds are understood: numbers, texts, what is made of these, and events, locks and scopes of anyio.

It does not know of switches, and runs in one run only, that which is told: others pay nothing for it.
"""

import dis
import linecache
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from attrs import define, field, frozen

from workerbus.testing.invariants._places import is_own

LONGEST: Final = 48
"""How many characters of a value are shown."""
MOST_ITEMS: Final = 8
"""How many items are shown of a list and its like."""
MOST_DEEDS: Final = 5_000
"""How many lines are kept."""
MOST_STEPS: Final = 20_000
"""How many steps are looked at: a program that spins has many, and it runs slowly while it is looked at."""

Key = tuple[int, str]
"""What is read or changed: the object that has it, 0 for a variable, and its name."""
Values = dict[Key, tuple[str, str]]
"""What can be seen of the program from a line: by key, how the line calls it, and its value."""


@frozen
class Use:
    """Something that a line has read or changed.

    Args:
        name: What the line calls it.
        before: Its value before the line has run.
        after: Its value afterwards; None if the line has only read it.
    """

    name: str
    before: str
    after: str | None


@define(eq=False)
class Deed:
    """A line of the program's own code that has run.

    Args:
        step: Of which step of a task.
        file: The name of its file.
        line: Its number.
        text: The line.
        uses: What it has read or changed.
        error: What was raised in it, unless a line that it has called has raised that; None if nothing was.
    """

    step: Any
    file: str
    line: int
    text: str
    uses: dict[Key, Use] = field(factory=dict)
    error: BaseException | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether a cancellation has come to it."""
        return type(self.error).__name__ in ("CancelledError", "Cancelled")


@define(eq=False)
class _Open:
    # A line that has begun, of a frame: what it names and stores, and the values before it.
    deed: Deed
    number: int
    values: Values
    named: frozenset[str]
    stored: frozenset[str]


# The trace function runs while nothing else is traced, coverage included.
class Recorder:
    """Notes what the program's own code does in each step.

    Attributes:
        step_of: Returns the step that a task runs now.
        deeds: The lines that have run, in order.
        arguments: By the step in which it began, with which arguments a task's function was called.
    """

    step_of: Callable[[Any], Any]

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self.arguments: dict[Any, str] = {}
        self._step: Any = None
        self._steps = 0
        self._open: dict[FrameType, _Open] = {}
        self._raised: dict[int, BaseException] = {}  # kept, so that no other one gets its number
        self._before: Any = None

    def begins(self, task: Any) -> None:
        """Trace a step of a task."""
        self._steps += 1
        self._before = sys.gettrace()
        if self._steps <= MOST_STEPS:
            self._step = self.step_of(task)
            sys.settrace(self._trace)

    def ends(self) -> None:
        """Trace no more."""
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:  # pragma: no cover - is not traced itself
        if not is_own(frame.f_code.co_filename):
            return None
        if frame.f_code.co_name != "<lambda>":
            self._called(frame)
        return self._line

    def _called(self, frame: FrameType) -> None:  # pragma: no cover - is not traced itself
        if frame.f_lineno != frame.f_code.co_firstlineno:
            self._begin(frame, frozenset())  # it goes on behind an await: what the line reads was read before
        elif self._step not in self.arguments:
            self.arguments[self._step] = _arguments(frame)

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:  # pragma: no cover - is not traced itself
        if event == "exception":
            self._raise(frame, argument[1])
            return self._line
        self._end(frame)
        if event == "line":
            self._begin(frame, _named(frame.f_code).get(frame.f_lineno, frozenset()))
        return self._line

    def _begin(self, frame: FrameType, named: frozenset[str]) -> None:  # pragma: no cover - is not traced itself
        code, line = frame.f_code, frame.f_lineno
        text = linecache.getline(code.co_filename, line).strip()
        deed = Deed(self._step, Path(code.co_filename).name, line, text)
        stored = _stored(code).get(line, frozenset())
        if len(self.deeds) < MOST_DEEDS:
            self._open[frame] = _Open(deed, len(self.deeds), _values(frame), named, stored)
            self.deeds.append(deed)

    def _end(self, frame: FrameType) -> None:  # pragma: no cover - is not traced itself
        begun = self._open.pop(frame, None)
        if begun is None:
            return
        after = _values(frame)
        changed_inside = {
            key for deed in self.deeds[begun.number + 1 :] for key, use in deed.uses.items() if use.after is not None
        }
        for key, (name, value) in begun.values.items():
            now = after.get(key, (name, value))[1]
            again = name in begun.stored and now not in _STATES  # a scope is named where its block ends, too
            if (value != now and key not in changed_inside) or again:
                begun.deed.uses[key] = Use(name, value, now)
            elif name in begun.named:
                begun.deed.uses[key] = Use(name, value, None)

    def _raise(self, frame: FrameType, error: BaseException) -> None:  # pragma: no cover - is not traced itself
        if isinstance(error, StopIteration | StopAsyncIteration | GeneratorExit) or id(error) in self._raised:
            return
        self._raised[id(error)] = error
        begun = self._open.get(frame)
        if begun is not None and begun.deed.error is None:
            begun.deed.error = error


def _arguments(frame: FrameType) -> str:  # pragma: no cover - while nothing is traced
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
    shown = [(name, frame.f_locals[name]) for name in names if isinstance(frame.f_locals.get(name, frame), _PLAIN)]
    return ", ".join(f"{name}={value_of(value)}" for name, value in shown)


# --- names on a line

_Names = Mapping[int, frozenset[str]]


@lru_cache(maxsize=1_000)
def _named(code: CodeType) -> _Names:  # pragma: no cover - while nothing is traced
    return _gathered(code, ("LOAD_",))


@lru_cache(maxsize=1_000)
def _stored(code: CodeType) -> _Names:  # pragma: no cover - while nothing is traced
    return _gathered(code, ("STORE_", "DELETE_"))


def _gathered(code: CodeType, kinds: tuple[str, ...]) -> _Names:  # pragma: no cover - while nothing is traced
    found: dict[int, set[str]] = defaultdict(set)
    for line, kind, name in _names_in(code):
        if kind.startswith(kinds):
            found[line].add(name)
    return {line: frozenset(names) for line, names in found.items()}


def _names_in(code: CodeType) -> Iterator[tuple[int, str, str]]:  # pragma: no cover - while nothing is traced
    # `x` and, of an object that a name stands for, `x.y`.
    before = ""
    for each in dis.get_instructions(code):
        line = each.positions.lineno if each.positions is not None else None
        if line is None:
            continue
        if any(kind in each.opname for kind in ("_FAST", "_DEREF", "_GLOBAL")):
            for name in each.argval if isinstance(each.argval, tuple) else (each.argval,):
                yield line, each.opname, str(name)
                before = str(name)
        elif each.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"):
            yield line, each.opname, f"{before}.{each.argval}"


# --- values


def _values(frame: FrameType) -> Values:  # pragma: no cover - while nothing is traced
    """Return what can be seen from a frame, and from others, too."""
    code, values = frame.f_code, dict[Key, tuple[str, str]]()
    shared = {*code.co_freevars, *code.co_cellvars}
    for name, value in frame.f_locals.items():
        _add(values, name, value, shared=name in shared)
    for name in code.co_names:
        if name in frame.f_globals and not name.isupper():
            _add(values, name, frame.f_globals[name], shared=True)
    return values


def _add(values: Values, name: str, value: Any, *, shared: bool) -> None:  # pragma: no cover - while nothing is traced
    if _is_the_programs(value):
        own = {**vars(type(value)), **getattr(value, "__dict__", {})}
        for attribute, its in own.items():
            if not attribute.startswith("_") and (text := value_of(its)) is not None:
                values[id(value), attribute] = f"{name}.{attribute}", text
    elif (text := value_of(value)) is not None:
        if shared:
            values[0, name] = name, text
        elif not isinstance(value, _PLAIN):
            values[id(value), ""] = name, text


_PLAIN: Final = (bool, int, float, str, bytes, type(None), tuple, frozenset)
_LIBRARIES: Final = ("anyio", "asyncio", "trio")
_BRACKETS: Final[Mapping[type, str]] = {
    list: "[{}]",
    tuple: "({})",
    set: "{{{}}}",
    frozenset: "{{{}}}",
    deque: "[{}]",
    dict: "{{{}}}",
}


def _is_the_programs(value: Any) -> bool:  # pragma: no cover - while nothing is traced
    module = sys.modules.get(type(value).__module__)
    return is_own(getattr(module, "__file__", None) or "") and not callable(value)


def value_of(value: Any) -> str | None:
    """Return a value as text; None for what says nothing."""
    text = _text_of(value, 3)
    return text if text is None or len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _text_of(value: Any, depth: int) -> str | None:
    kind = type(value)
    if kind in (bool, int, float, str, bytes, type(None)):
        return repr(value)
    if kind.__module__.partition(".")[0] in _LIBRARIES:
        return _state_of(value)
    if kind not in _BRACKETS or not depth:
        return None
    first = islice(value.items() if kind is dict else value, MOST_ITEMS)
    if kind is dict:
        items = [f"{_inside(key, depth)}: {_inside(its, depth)}" for key, its in first]
    else:
        items = [_inside(each, depth) for each in first]
    more = f", … {len(value)} in all" if len(value) > MOST_ITEMS else ""
    return _BRACKETS[kind].format(", ".join(items) + more)


_STATES: Final = frozenset(["not set", "set", "free", "locked", "not cancelled", "cancelled"])


def _inside(value: Any, depth: int) -> str:
    text = _text_of(value, depth - 1) or type(value).__name__
    return f"event ({text})" if text in ("set", "not set") else text


def _state_of(value: Any) -> str | None:
    for name, states in (("is_set", ("not set", "set")), ("locked", ("free", "locked"))):
        method = getattr(type(value), name, None)
        if callable(method):
            return states[bool(method(value))]
    if hasattr(type(value), "cancel_called"):
        return "cancelled" if value.cancel_called else "not cancelled"
    if hasattr(type(value), "acquire_nowait"):  # a semaphore, a limiter
        return f"{getattr(value, 'value', getattr(value, 'available_tokens', '?'))} free"
    return None
