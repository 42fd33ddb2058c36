"""`linearizable`: whether the answers of a history are those of a sequential model, and what to say if they are not."""

from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Any, Final

from workerbus._values import JobStatus
from workerbus.testing._errors import NotLinearizableError
from workerbus.testing.invariants._history import History, Operation
from workerbus.testing.invariants._ordering import can_be_ordered, fits, orders, smallest_part, step

MOST_ORDERS: Final = 6
"""How many orders are gone through in words."""
MOST_OTHERS: Final = 6
"""How many of the others are named."""


def linearizable(
    history: History, model: Callable[[], object], *, by: Callable[[Operation], Hashable] | None = None
) -> None:
    """Check that there is a sequential order in which a model gives the answers of a history.

    ::

        class Account:
            def __init__(self):
                self.balance = 0

            def deposit(self, payload):
                self.balance += payload["amount"]
                return {"balance": self.balance}


        linearizable(history, Account)

    The model is the worker without concurrency: a class with a method for each name of a job, which takes the payload
    and returns the answer, or raises a `JobFailure`. A job without a name is for ``on_job_request``; hyphens in names
    are underscores. Its attributes have to be plain data that can be copied and pickled.

    In this order, each job comes between its request and its answer: a job that was answered before another one was
    asked for comes before it. A job without an answer, or answered ERROR or CANCELLED, comes anywhere after its
    request, or is left out.

    Args:
        history: The history.
        model: The class of the model, or a function that makes one.
        by: Returns what an operation is about, for a history of several independent things, such as keys of a store:
            each is checked alone, which is faster.

    Raises:
        NotLinearizableError: There is no such order. The error has the smallest set of operations for which there is
            none.
        TypeError: The model lacks a method, or holds what cannot be copied and pickled.
        ValueError: There are too many orders to check.

    Guarantees: T4.
    """
    parts: dict[Hashable, list[Operation]] = {}
    for each in history.operations:
        parts.setdefault(None if by is None else by(each), []).append(each)
    for operations in parts.values():
        if not can_be_ordered(operations, model):
            fewest, others = smallest_part(operations, model)
            words = "\n".join(_tell(fewest, others, model, len(operations)))
            raise NotLinearizableError(words, tuple(fewest), tuple(others))


def _tell(
    operations: Sequence[Operation], others: Sequence[Operation], model: Callable[[], object], count: int
) -> list[str]:
    name = getattr(model, "__name__", "the model")
    these = "this one" if len(operations) == 1 else f"these {len(operations)}"
    head = f"no order of {count} operations gives the answers of {name}: not even {these} can be ordered"
    lines = [head, *_shown(operations), ""]
    every = list(islice(orders(operations), MOST_ORDERS + 1))
    lines += [_against(operations, order, model) for order in every[:MOST_ORDERS]]
    if len(every) > MOST_ORDERS:
        lines.append("  … and so on, in each order")
    if others:
        named = "; ".join(map(_asked, others[:MOST_OTHERS])) + ("; …" if len(others) > MOST_OTHERS else "")
        lines.append(f"  … whatever was done, and when, of: {named}")
    return lines


def _shown(operations: Sequence[Operation]) -> list[str]:
    # A bar is as long as the job took, counted in what happened to these jobs.
    moments = sorted({at for each in operations for at in (each.called, each.returned) if at is not None})
    texts = [f"  {number}. {_said(each)}" for number, each in enumerate(operations, 1)]
    width = max(map(len, texts))
    lines = []
    for text, each in zip(texts, operations, strict=True):
        begin = 2 * moments.index(each.called)
        end = 2 * moments.index(each.called if each.returned is None else each.returned)
        lines.append(f"{text.ljust(width)}   {' ' * begin}├{'─' * (end - begin - 1)}┤")
    return lines


def _said(operation: Operation) -> str:
    return f"{f'{operation.by}: ' if operation.by else ''}{_asked(operation)} → {_reply(operation)}"


def _asked(operation: Operation) -> str:
    payload = "" if operation.payload is None else repr(operation.payload)
    return f"{operation.name or 'on_job_request'}({payload})"


def _reply(reply: Any) -> str:
    return f"{'failed ' if reply.status is JobStatus.FAILED else ''}{reply.answer!r}"


def _against(operations: Sequence[Operation], order: Sequence[int], model: Callable[[], object]) -> str:
    state: Any = model()
    named = " then ".join(f"{each + 1}" for each in order)
    for index in order:
        state, reply = step(state, operations[index])
        if not fits(operations[index], reply):
            return f"  {named}: the answer to {index + 1} would be {_reply(reply)}"
    return f"  {named}: only without the others"
