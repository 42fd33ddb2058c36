"""What was asked for and what was answered, in the order in which that happened.

Nothing is judged here: see `_ordering`.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from attrs import evolve, field, frozen, mutable

from workerbus._values import JobStatus
from workerbus.bus._bus import WorkerBus
from workerbus.errors import JobFailure
from workerbus.messages import (
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    BusMessage,
)


@frozen
class Operation:
    """What was asked for, and what was answered.

    Args:
        name: What was asked for: the name of the job; None for one without a name.
        payload: The payload of the request.
        by: The name of the requester.
        called: When: the position in the history, from 0.
        status: How it ended; None if it has not.
        answer: The answer; None if there is none.
        returned: When it was answered, as ``called``; None if it was not.
    """

    name: str | None
    payload: Any
    by: str
    called: int
    status: JobStatus | None = None
    answer: Any = None
    returned: int | None = None


@mutable
class Call:
    """A call that is being recorded by hand.

    Args:
        answer: The answer.
    """

    answer: Any = None


@mutable(eq=False, init=False)
class History:
    """Records jobs of a bus, or other calls: what was asked for, what was answered, and in what order.

    ::

        history = History(runner.bus, worker="account")
        ...
        linearizable(history, Account)

    A job is called when its request passes on the bus, and returns when its answer does. A job that ended with ERROR or
    CANCELLED, or has no answer, may or may not have had its effect, and may still have it.

    In programs without jobs, record the calls by hand: see `call`.

    Args:
        bus: The bus; without one, only calls recorded by hand are in the history.
        worker: Only jobs of this worker are recorded; by default, those of all workers.

    Guarantees: T4.
    """

    _worker: str | None
    _noted: int = field(init=False)
    _operations: list[Operation] = field(init=False)
    _open: dict[tuple[str, str | None], int] = field(init=False)

    def __init__(self, bus: WorkerBus | None = None, *, worker: str | None = None) -> None:
        self._worker = worker
        self._noted = 0
        self._operations = []
        self._open = {}
        if bus is not None:
            bus.add_tap(self._pass)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations so far, in the order of the calls."""
        return tuple(self._operations)

    @contextmanager
    def call(self, name: str, payload: Any = None, *, by: str = "") -> Generator[Call, None, None]:
        """Record a call by hand, from the beginning of a block to its end.

        ::

            with history.call("read", "x", by="reader 1") as call:
                call.answer = await store.read("x")

        A block that raises a `JobFailure` has failed with that answer. If it raises anything else, it is not known
        whether the call had its effect.

        Args:
            name: The name of the call.
            payload: The payload of the call.
            by: The name of the caller.

        Yields:
            The call; set its ``answer``.
        """
        number, call = self._call(name, payload, by), Call()
        try:
            yield call
        except JobFailure as failure:
            self._return(number, JobStatus.FAILED, answer_of(failure))
            raise
        self._return(number, JobStatus.COMPLETED, call.answer)

    def _pass(self, message: BusMessage) -> None:
        if isinstance(message, BusJobRequestMessage):
            options = message.options
            asked = message.target if options is None else options.asked_as or message.target  # it answers in that name
            if self._worker in (None, asked, message.target) and (message.job_id, asked) not in self._open:
                number = self._call(message.job_name, message.payload, message.source)
                self._open[message.job_id, asked] = number
        elif isinstance(message, BusJobResponseMessage | BusJobResponseUrgentMessage):
            self._answered(message, message.status, message.response)
        elif isinstance(message, BusJobStreamEndMessage):
            self._answered(message, JobStatus.COMPLETED, message.data)

    def _answered(self, message: Any, status: JobStatus, answer: Any) -> None:
        known = self._open.get((message.job_id, message.source))
        if known is not None and self._operations[known].status is None:
            self._return(known, status, answer)

    def _call(self, name: str | None, payload: Any, by: str) -> int:
        self._operations.append(Operation(name, payload, by, self._noted))
        self._noted += 1
        return len(self._operations) - 1

    def _return(self, number: int, status: JobStatus, answer: Any) -> None:
        operation = self._operations[number]
        self._operations[number] = evolve(operation, status=status, answer=answer, returned=self._noted)
        self._noted += 1


def answer_of(failure: JobFailure) -> dict[str, Any]:
    """Return what is answered for a failure."""
    return {"error": failure.reason, "type": type(failure).__name__, **failure.data}
