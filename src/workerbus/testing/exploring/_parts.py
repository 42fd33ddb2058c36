"""What the objects of a program hold, for the digest of its state.

A part is an object again, or a text (`Opaque`) that says something of which no more is looked at. What cannot change
the course of a program is no part of it: names of tasks, counts for debugging, tracebacks, and why something was
cancelled.

What modules and classes hold is taken to be constant, but for global variables that a function which can be reached
names: a scenario has to make all that it works on anew.
"""

import asyncio
import contextvars
import datetime
import decimal
import enum
import fractions
import functools
import gc
import itertools
import logging
import pathlib
import random
import re
import threading
import types
import typing
import uuid
import warnings
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from copyreg import _slotnames  # type: ignore[attr-defined]  # there is no other list of all slots
from operator import length_hint
from typing import Any, Final

from workerbus.testing.clock._steering import Unordered

HEAP_TYPE: Final = 1 << 9
"""The flag of classes that are written in Python."""
ADDRESS: Final = r" at 0x[0-9a-f]+"
"""An address in a text, as `repr` has it."""

_CANCELLED: Final = len("Cancelled via cancel scope")
"""How much of the reason of a cancel anyio looks at."""


class UnknownState(Exception):  # noqa: N818 - it is no error, and nobody outside sees it
    """The state cannot be told, since something in it is of an unknown class."""


class Opaque(str):
    """Something of which no more than this text is looked at."""

    __slots__ = ()


VALUES: Final[frozenset[type]] = frozenset(
    (
        *(int, float, complex, str, bytes, bool, type(None), type(...), type(NotImplemented), range),
        *(datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone),
        *(decimal.Decimal, fractions.Fraction, uuid.UUID, pathlib.PurePosixPath, pathlib.PosixPath),
    )
)
"""What its text says all about."""

CONSTANTS: Final[frozenset[type]] = frozenset(
    (
        *(types.ModuleType, types.CodeType, types.GetSetDescriptorType, types.MemberDescriptorType),
        *(types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType, types.UnionType),
        *(types.GenericAlias, contextvars.ContextVar, re.Pattern, property, types.TracebackType, typing.TypeVar),
    )
)
"""What never changes, and is told apart by its name."""

BY_NAME: Final = (logging.Logger, logging.Handler, asyncio.AbstractEventLoop, enum.Enum, threading.Thread)


def name_of(thing: Any) -> str:
    if isinstance(thing, types.TracebackType | asyncio.AbstractEventLoop | threading.Thread):
        return ""
    if isinstance(thing, enum.Enum | re.Pattern | types.GenericAlias | types.UnionType | contextvars.ContextVar):
        return re.sub(ADDRESS, "", str(thing))
    if isinstance(thing, types.CodeType):
        return _code_name(thing)
    return str(getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or getattr(thing, "name", ""))


def _code_name(code: types.CodeType) -> str:
    return f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}"


def parts_of(thing: Any) -> Iterable[Any]:
    """Return what makes up a thing: what it says about itself, and what it holds.

    Raises:
        UnknownState: It is of an unknown class.
    """
    parts = _PARTS.get(type(thing))
    if parts is None:
        parts = _PARTS[type(thing)] = _found_parts(type(thing))
    return parts(thing)


def _found_parts(kind: type) -> Callable[[Any], Iterable[Any]]:
    for known, parts in _BY_CLASS.items():
        if issubclass(kind, known):
            return lambda thing: [*parts(thing), *_attributes(thing)]
    special = _SPECIAL.get(f"{kind.__module__}.{kind.__qualname__}")
    if special is not None:
        return special
    base = next(each for each in kind.__mro__ if not each.__flags__ & HEAP_TYPE)
    if base is object:
        return _attributes
    if issubclass(base, tuple):
        return lambda thing: [*tuple.__iter__(thing), *_attributes(thing)]
    if base in VALUES:
        return lambda thing: [Opaque(base.__repr__(thing)), *_attributes(thing)]
    if base in _PARTS:
        return lambda thing: [*_PARTS[base](thing), *_attributes(thing)]
    if kind is not base or hasattr(kind, "__next__"):
        return _reduced
    raise UnknownState(f"{kind.__module__}.{kind.__qualname__}")


def _attributes(thing: Any) -> Iterable[Any]:
    kind = type(thing)
    module = kind.__module__
    left_out = _LIBRARYS if module.startswith("workerbus.") else frozenset[str]()
    left_out = _LEFT_OUT.get(f"{module}.{kind.__qualname__}", left_out)
    held = dict(getattr(thing, "__dict__", None) or {})
    for name in _slotnames(kind):
        with suppress(AttributeError):
            held[name] = object.__getattribute__(thing, name)
    for name in sorted(map(str, held)):
        if name not in left_out:
            yield Opaque(name)
            yield held[name]


def _reduced(thing: Any) -> Iterable[Any]:
    # Iterators say what is left of them in the way in which they would be copied.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return [Opaque("reduced"), *thing.__reduce__()]
        except TypeError:
            raise UnknownState(f"{type(thing).__module__}.{type(thing).__qualname__}") from None


def _of_function(function: types.FunctionType) -> Iterable[Any]:
    code = function.__code__
    yield Opaque(_code_name(code))
    yield from function.__closure__ or ()
    yield function.__defaults__
    yield function.__kwdefaults__
    if function.__dict__:
        yield function.__dict__
    yield from _globals(code, function.__globals__)


def _globals(code: types.CodeType, names: dict[str, Any]) -> Iterable[Any]:
    if names.get("__name__", "").partition(".")[0] in LIBRARIES:
        return
    for name in code.co_names:
        if name in names and not isinstance(names[name], types.ModuleType | type):
            yield Opaque(name)
            yield names[name]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant, names)


def _of_coroutine(coroutine: Any) -> Iterable[Any]:
    prefix = _PREFIXES[type(coroutine)]
    frame = getattr(coroutine, f"{prefix}_frame")
    yield Opaque(_code_name(getattr(coroutine, f"{prefix}_code")))
    if frame is not None:
        yield from _of_frame(frame)
        # Beside variables: what the frame keeps for a while, as the iterator of a loop. That no exception is being
        # handled is told by a None behind all that, or not at all.
        held = gc.get_referents(coroutine)
        if held[-1] is None:
            held.pop()
        yield from (each for each in held if each is not frame and each is not frame.f_locals)


def _of_frame(frame: types.FrameType) -> Iterable[Any]:
    variables = frame.f_locals
    names = sorted(variables)  # in the dictionary they are in the order in which somebody has looked
    yield Opaque(f"at {frame.f_lasti} with {' '.join(names)}")
    yield from (variables[name] for name in names)
    yield from _globals(frame.f_code, frame.f_globals)


def _of_cell(cell: types.CellType) -> Iterable[Any]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _of_exception(error: BaseException) -> Iterable[Any]:
    if isinstance(error, asyncio.CancelledError):
        yield Opaque(repr(error.args)[:_CANCELLED])
    else:
        yield error.args
    yield error.__cause__
    yield error.__context__
    yield error.__dict__
    if isinstance(error, BaseExceptionGroup):
        yield error.exceptions


def _of_future(future: Any) -> Iterable[Any]:
    yield Opaque(f"{future._state} {future._asyncio_future_blocking}")
    if future.done() and not future.cancelled():
        # Not by `exception()`: that would tell the future that somebody knows.
        yield future._exception if future._exception is not None else future._result
    yield [callback for callback, _ in future._callbacks or ()]


def _of_task(task: Any) -> Iterable[Any]:
    yield from _of_future(task)
    if not task.done():
        yield Opaque(f"{task._must_cancel} {task.cancelling()}")
        yield task._fut_waiter
        yield task.get_coro()
        yield from (each for each in gc.get_referents(task) if type(each) is contextvars.Context)


def _of_handle(handle: Any) -> Iterable[Any]:
    yield Opaque(f"{handle.cancelled()} {getattr(handle, '_when', None)}")
    if not handle.cancelled():
        yield handle._callback
        yield handle._args
        yield handle._context


def _of_scope(scope: Any) -> Iterable[Any]:
    for name in sorted(_slotnames(type(scope))):
        value = getattr(scope, name, None)
        yield Opaque(name)
        yield bool(value) if name == "_cancel_reason" else value


def _of_dict(mapping: Any) -> Iterable[Any]:
    for key, value in dict.items(mapping):
        yield key
        yield value


def _of_trio_task(task: Any) -> Iterable[Any]:
    return () if task.name.startswith("<TrioToken") else _attributes(task)


def _nothing(_: object) -> Iterable[Any]:
    return ()


_SPECIAL: Final[dict[str, Callable[[Any], Iterable[Any]]]] = {
    "anyio._backends._asyncio.CancelScope": _of_scope,
    "anyio._backends._asyncio.TaskState": lambda state: (state.cancel_scope,),
    "_asyncio.FutureIter": gc.get_referents,
    "decimal.Context": lambda context: (Opaque(repr(context)),),
    "trio._core._run.Runner": _nothing,
    "trio.lowlevel.Task": _of_trio_task,
    "trio._core._entry_queue.EntryQueue": lambda entries: (entries.queue, entries.idempotent_queue),
    "trio._core._asyncgens.AsyncGenerators": _nothing,
    "trio._core._wakeup_socketpair.WakeupSocketpair": _nothing,
    "workerbus.testing.clock._virtual.VirtualTime": _nothing,
    "workerbus.testing.clock._trio._SteeredClock": _nothing,
    "workerbus.testing.clock._steering.Steering": _nothing,
}
_LIBRARYS: Final = frozenset(["started_at", "task_id", "_run_task", "_end_task"])
"""Left out of the library's own objects: times of day, and numbers of tasks. Another task may get the number of one
that has ended; while that runs, its frames tell which one it is."""
_LEFT_OUT: Final[dict[str, frozenset[str]]] = {
    "workerbus.testing.clock._asyncio._Timer": frozenset(["number"]),  # they come in their order as it is
    "trio.lowlevel.Task": frozenset(["_counter", "name"]),
    "trio.Cancelled": frozenset(["source_task"]),
    "trio._core._run.CancelReason": frozenset(["source_task"]),
}
LIBRARIES: Final = frozenset(["anyio", "asyncio", "trio", "outcome", "sniffio", "workerbus", "contextlib", "attr"])
"""Whose global variables are no part of a program."""

_BY_CLASS: Final[dict[type, Callable[[Any], Iterable[Any]]]] = {
    asyncio.Task: _of_task,
    asyncio.Future: _of_future,
    asyncio.Handle: _of_handle,
    BaseException: _of_exception,
    weakref.ref: lambda ref: (ref(),),
    weakref.WeakSet: lambda members: (Unordered(members),),
    weakref.WeakKeyDictionary: lambda mapping: (Unordered(mapping.items()),),
    weakref.WeakValueDictionary: lambda mapping: (Unordered(mapping.items()),),
    random.Random: lambda source: (Opaque(repr(source.getstate())),),
}

_PREFIXES: Final[dict[type, str]] = {
    types.CoroutineType: "cr",
    types.GeneratorType: "gi",
    types.AsyncGeneratorType: "ag",
}


async def _a_coroutine() -> None:
    """Nothing; its kinds of objects are known by it."""


async def _an_async_generator() -> Any:
    yield


def _helpers() -> Iterable[type]:
    # What stands between a coroutine and who awaits it: of no class that has a name.
    coroutine, generator = _a_coroutine(), _an_async_generator()
    yield type(coroutine.__await__())
    for step in (generator.asend(None), generator.athrow(ValueError)):
        yield type(step)
        step.close()
    coroutine.close()


_PARTS: Final[dict[type, Callable[[Any], Iterable[Any]]]] = {
    object: _attributes,
    list: lambda members: members,
    tuple: lambda members: members,
    deque: lambda members: (members.maxlen, *members),
    Unordered: lambda members: (members,),
    dict: _of_dict,
    OrderedDict: _of_dict,
    defaultdict: lambda mapping: (mapping.default_factory, *_of_dict(mapping)),
    set: lambda members: (Unordered(members),),
    frozenset: lambda members: (Unordered(members),),
    bytearray: lambda data: (bytes(data),),
    types.MappingProxyType: lambda mapping: (dict(mapping),),
    types.FunctionType: _of_function,
    types.MethodType: lambda method: (method.__self__, method.__func__),
    types.BuiltinFunctionType: lambda method: (Opaque(method.__qualname__), method.__self__),
    types.MethodWrapperType: lambda method: (Opaque(method.__qualname__), method.__self__),
    types.CellType: _of_cell,
    types.FrameType: _of_frame,
    types.SimpleNamespace: lambda names: (names.__dict__,),
    functools.partial: lambda call: (call.func, call.args, call.keywords),
    staticmethod: lambda method: (method.__func__,),
    classmethod: lambda method: (method.__func__,),
    contextvars.Context: lambda context: (Unordered(context.items()),),
    contextvars.Token: lambda token: (token.var, token.old_value if token.old_value is not token.MISSING else None),
    type(threading.Lock()): lambda lock: (lock.locked(),),
    **dict.fromkeys(_PREFIXES, _of_coroutine),
    **dict.fromkeys(_helpers(), gc.get_referents),
    **dict.fromkeys(
        [
            *map(
                type, (iter([]), iter(()), iter({}), iter({}.values()), iter({}.items()), iter(set()), iter(range(0)))
            ),
            *map(type, (reversed([]), enumerate(()), zip(), iter(range(1 << 70)), iter(""), iter(b""))),
            *(map, filter, itertools.cycle, itertools.islice),
        ],
        _reduced,
    ),
    # From Python 3.14 on those of itertools do not reduce themselves; these say what is left of them in other ways.
    itertools.count: lambda count: (Opaque(repr(count)),),
    itertools.chain: gc.get_referents,
    itertools.repeat: lambda repeat: (*gc.get_referents(repeat), Opaque(str(length_hint(repeat, -1)))),
}
