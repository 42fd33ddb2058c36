"""What the user's code has raised, sorted in one place by one table (L3, L6, W7, J2).

| raised | while a scope around it is cancelled | kind | its error |
|---|---|---|---|
| an `Exception` | yes or no | ERROR | that |
| a group with errors in it, whatever else, but no exit | yes or no | ERROR | the errors, plain if it is one |
| a cancellation, alone or several in a group | yes | CANCELLED | none |
| a cancellation alone | no | NATIVE | that |
| a group of nothing but cancellations | no | ERROR | one that says so |
| a `KeyboardInterrupt` or `SystemExit`, alone or in a group | yes or no | EXIT | that |
| a `GeneratorExit` that came while it waited: somebody closes the coroutine | yes or no | CLOSED | that |
| any other `BaseException`, also a `GeneratorExit` that it raised | yes or no | PANIC | that; what is no cancellation |

On trio, code that is cancelled may raise a group of `Cancelled` and of what its clean-up raised, hence the second row.
A cancellation without a cancelled scope is a native one, of asyncio's: somebody has cancelled this very task, or code
in it has raised `CancelledError`. It concerns what runs in the task, and nobody else.

A panic is an exception that is no `Exception`, and yet not meant to end programs: a native extension has panicked, say,
or a test framework has failed a test. It is an error of the code that raised it, and what that code belongs to, a
worker, cannot be trusted any more: it is finished.
"""

import math
from collections.abc import Iterator
from dis import opmap
from enum import Enum
from typing import Final, NamedTuple

from anyio import current_effective_deadline, get_cancelled_exc_class
from anyio.lowlevel import checkpoint_if_cancelled


class Kind(Enum):
    """What is to be done about something that was raised."""

    ERROR = "it failed: report the error, and go on"
    NATIVE = "its task was cancelled natively: report that, and let the task end"
    CANCELLED = "it was cancelled with what is around it: let the cancellation through"
    EXIT = "the program is to end: let that through"
    PANIC = "it failed beyond what code expects: report the error, and finish the worker that the code belongs to"
    CLOSED = "its coroutine is being closed, and must not wait: let that through"


_RAISE: Final = opmap["RAISE_VARARGS"]
_OWN: Final = frozenset({Kind.ERROR, Kind.NATIVE, Kind.PANIC})


class Failure(NamedTuple):
    """What was raised, sorted.

    Attributes:
        kind: What is to be done about it.
        raised: The exception as it was raised.
        cause: The one exception that counts, out of the groups around it.
    """

    kind: Kind
    raised: BaseException
    cause: BaseException

    @property
    def own(self) -> bool:
        """Whether it is the fault of the code that raised it, and is to be reported."""
        return self.kind in _OWN

    @property
    def error(self) -> BaseException:
        """What to report: a native cancellation as an error that says so."""
        if self.kind is not Kind.NATIVE:
            return self.cause
        error = RuntimeError("a cancellation of its own task")
        error.__cause__ = self.cause
        return error

    async def pass_on(self) -> None:
        """Raise what is not the code's own fault; a cancellation that came in a group comes again, alone."""
        if not self.own:
            if self.kind is Kind.CANCELLED and self.raised is not self.cause:
                await checkpoint_if_cancelled()
            raise self.cause

    async def let_cancel(self) -> None:
        """After the report: let a cancellation that came along with errors, in a group, come again."""
        if isinstance(self.raised, BaseExceptionGroup):
            await checkpoint_if_cancelled()


def sort_failure(exc: BaseException) -> Failure:
    """Sort what the user's code has raised, by the table in the head of this module."""
    cause = unwrap_group(exc)
    if isinstance(cause, BaseExceptionGroup):
        rest = without(cause, get_cancelled_exc_class())
        cause = next(_leaves(cause)) if rest is None else unwrap_group(rest)
    if isinstance(cause, KeyboardInterrupt | SystemExit):
        return Failure(Kind.EXIT, exc, cause)
    if isinstance(cause, get_cancelled_exc_class()):
        if cancelled_from_outside():
            return Failure(Kind.CANCELLED, exc, cause)
        if exc is cause:
            return Failure(Kind.NATIVE, exc, cause)
        cause = RuntimeError("it let a cancellation of something else through")
        cause.__cause__ = exc
    if isinstance(cause, Exception):
        return Failure(Kind.ERROR, exc, cause)
    closed = isinstance(cause, GeneratorExit) and not _has_raised(cause)
    return Failure(Kind.CLOSED if closed else Kind.PANIC, exc, cause)


def is_panic(error: BaseException) -> bool:
    """Whether an error that was sorted, as the code's own, is a panic."""
    return not isinstance(error, Exception)


def own_error_of_call(exc: BaseException) -> BaseException:
    """Do what `own_error` does, for what a sync function has raised: no cancellation can have come up in it."""
    failure = sort_failure(exc)
    if not failure.own:
        raise failure.cause
    return failure.error


async def own_error(exc: BaseException) -> BaseException:
    """Return what is to be reported of code that has failed; raise what is not its own fault."""
    failure = sort_failure(exc)
    await failure.pass_on()
    return failure.error


def cancelled_from_outside() -> bool:
    """Whether the running task is in a cancelled scope."""
    return current_effective_deadline() == -math.inf


def is_being_cancelled() -> bool:
    """Whether this is called in a task, and that is in a cancelled scope."""
    try:
        return cancelled_from_outside()
    except RuntimeError:  # no event loop runs in this thread
        return False


def unwrap_group(exc: BaseException) -> BaseException:
    """Take one cause out of its exception groups; of several, the first one that ends programs."""
    for leaf in _leaves(exc):
        if isinstance(leaf, KeyboardInterrupt | SystemExit):
            return leaf
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def without(
    group: BaseExceptionGroup[BaseException], kind: type[BaseException]
) -> BaseExceptionGroup[BaseException] | None:
    """Return what of a group is not of a kind, in the groups in it too; the group itself if nothing in it is.

    A group of the user's own is asked for a smaller one only where something is left out, and it may fail to make it.
    """
    rests = [
        without(each, kind) if isinstance(each, BaseExceptionGroup) else None if isinstance(each, kind) else each
        for each in group.exceptions
    ]
    if all(rest is each for rest, each in zip(rests, group.exceptions, strict=True)):
        return group
    kept = [rest for rest in rests if rest is not None]
    if not kept:
        return None
    try:
        smaller = group.derive(kept)
        smaller.__traceback__, smaller.__cause__ = group.__traceback__, group.__cause__
    except Exception:  # noqa: BLE001 - whatever is wrong with its `derive`
        return BaseExceptionGroup(group.message, kept)
    return smaller


def _has_raised(exc: BaseException) -> bool:
    """Whether code has raised an exception; else the interpreter did, where that code was waiting."""
    innermost = exc.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    return innermost is not None and innermost.tb_frame.f_code.co_code[innermost.tb_lasti] == _RAISE


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, and in the groups in it; of what is no group, itself."""
    waiting = [exc]
    while waiting:
        exc = waiting.pop()
        if isinstance(exc, BaseExceptionGroup):
            waiting.extend(reversed(exc.exceptions))
        else:
            yield exc
