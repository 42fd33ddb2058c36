"""Looks for an order of operations that explains their answers, one after the other (Wing and Gong, 1993).

What was answered before another was called comes before it. Of the others each may be next: its answer has to be the
one of the model. Of two ways to the same state of the model, with the same operations done, one is enough (Lowe, 2017).

An operation without an answer may come at any place after its call, or be left out.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Final

from attrs import evolve, frozen

from workerbus._values import JobStatus
from workerbus.errors import JobFailure
from workerbus.testing.invariants._history import Operation, answer_of

MOST_STATES: Final = 200_000
"""How many states a search may come to."""
ANSWERS: Final = (JobStatus.COMPLETED, JobStatus.FAILED)


@frozen
class Reply:
    """What is answered.

    Args:
        status: COMPLETED or FAILED.
        answer: The answer.
    """

    status: JobStatus
    answer: Any


def is_known(operation: Operation) -> bool:
    """Whether it has come to its end with an answer, so that it has had its effect by then."""
    return operation.status in ANSWERS


def forget(operation: Operation) -> Operation:
    """Return an operation as if its answer had not come."""
    return evolve(operation, status=None, answer=None, returned=None)


def step(model: Any, operation: Operation) -> tuple[Any, Reply]:
    """Let a copy of a model do what was asked for.

    Args:
        model: The model, which stays as it is.
        operation: What was asked for.

    Returns:
        The copy afterwards, and what it has answered.

    Raises:
        TypeError: The model has no method for that.
    """
    after = deepcopy(model)
    name = "on_job_request" if operation.name is None else operation.name.replace("-", "_").replace(" ", "_")
    method = getattr(after, name, None)
    if not callable(method):
        raise TypeError(
            f"the model {type(model).__name__} has no method {name!r} for what {operation.by!r} has asked for"
        )
    try:
        reply = Reply(JobStatus.COMPLETED, method(operation.payload))
    except JobFailure as failure:
        reply = Reply(JobStatus.FAILED, answer_of(failure))
    return after, reply


def fits(operation: Operation, reply: Reply) -> bool:
    """Whether an operation was answered so."""
    return not is_known(operation) or (operation.status, operation.answer) == (reply.status, reply.answer)


def can_be_ordered(operations: Sequence[Operation], model: Callable[[], Any]) -> bool:
    """Whether there is an order of operations that explains their answers.

    Args:
        operations: The operations.
        model: Makes a new model.

    Raises:
        ValueError: There are too many orders to look at.
    """
    wanted = sum(1 << index for index, each in enumerate(operations) if is_known(each))
    begin = model()
    seen = {(0, _key(begin))}
    ways: list[Iterator[tuple[int, Any]]] = [_next(operations, 0, begin)]
    if not wanted:
        return True
    while ways:
        done, state = next(ways[-1], (-1, None))
        if done < 0:
            ways.pop()
            continue
        if done & wanted == wanted:
            return True
        key = done, _key(state)
        if key in seen:
            continue
        if len(seen) >= MOST_STATES:
            raise ValueError(f"{len(operations)} operations have too many orders to look at: make the history shorter")
        seen.add(key)
        ways.append(_next(operations, done, state))
    return False


def _next(operations: Sequence[Operation], done: int, state: Any) -> Iterator[tuple[int, Any]]:
    for index in candidates(operations, done):
        after, reply = step(state, operations[index])
        if fits(operations[index], reply):
            yield done | 1 << index, after


def candidates(operations: Sequence[Operation], done: int) -> list[int]:
    """Return which operations may be next: those that were called before any of the others had returned.

    Args:
        operations: The operations.
        done: Which have been, as bits.
    """
    left = [index for index in range(len(operations)) if not done >> index & 1]
    ends = (operations[index].returned for index in left if is_known(operations[index]))
    first = min((each for each in ends if each is not None), default=None)
    return [index for index in left if first is None or operations[index].called < first]


def _key(model: Any) -> bytes:
    try:
        return pickle.dumps(vars(model))
    except (pickle.PicklingError, TypeError, AttributeError) as exc:
        raise TypeError(f"what the model {type(model).__name__} holds has to be plain data: {exc}") from exc


def smallest_part(operations: Sequence[Operation], model: Callable[[], Any]) -> tuple[list[Operation], list[Operation]]:
    """Return as few as possible of operations that cannot be ordered, whatever the others did and when.

    Args:
        operations: Operations that cannot be ordered.
        model: Makes a new model.

    Returns:
        These, and those of the others that were called by then.
    """
    # 1. The first answer with which they cannot be ordered ends it: what came later does not matter, and what was not
    #    answered by then has no answer.
    # 2. Then answers are taken to be unknown, one by one, as long as the others cannot be ordered.
    ends = sorted(each.returned for each in operations if each.returned is not None)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if can_be_ordered(_until(operations, ends[middle]), model):
            low = middle + 1
        else:
            high = middle
    left = _until(operations, ends[high])
    for index, each in enumerate(left):
        without = [*left[:index], forget(each), *left[index + 1 :]]
        if is_known(each) and not can_be_ordered(without, model):
            left = without
    return [each for each in left if is_known(each)], [each for each in left if not is_known(each)]


def _until(operations: Sequence[Operation], end: int) -> list[Operation]:
    called = [each for each in operations if each.called < end]
    return [each if each.returned is not None and each.returned <= end else forget(each) for each in called]


def orders(operations: Sequence[Operation]) -> Iterator[tuple[int, ...]]:
    """Yield the orders in which operations may have been, as indices."""

    def further(before: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(before) == len(operations):
            yield before
        for index in candidates(operations, sum(1 << each for each in before)):
            yield from further((*before, index))

    return further(())
