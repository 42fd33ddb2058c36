"""The messages of the session and its workers: the library's own, which never wait for room (B9, N5, R2, R6, W4, W7).

A runner and its workers number what they announce, and say in which life of the runner that was: what arrives late or
twice is known by it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import field

from workerbus._message_base import BusDataMessage, BusLocalMessage, BusSystemMessage, bus_message
from workerbus._values import IF_SET, Value, WorkerGoneData, value


@bus_message
class BusActivateWorkerMessage(BusDataMessage):
    """Tells a worker to become active.

    Args:
        args: Passed on to `on_activated`.
        after: How far other processes were before this activation, as far as the sender knows: the id of a process to
            the number of an event there. What a worker lets out of its pipeline after an earlier deactivation is not
            for the worker that is activated now. None if all are in one process.
    """

    bounded: ClassVar[bool] = False

    args: dict[str, Any] | None = None
    after: Mapping[str, int] | None = field(default=None, metadata={IF_SET: True})


@bus_message
class BusDeactivateWorkerMessage(BusDataMessage):
    """Tells a worker to become inactive.

    Args:
        done: Whether it is already inactive because it has handed over; then the message is only for observers.
    """

    bounded: ClassVar[bool] = False

    done: bool = field(default=False, metadata={IF_SET: True})


@bus_message
class BusEndMessage(BusDataMessage):
    """Asks a runner for a graceful end; without a target, every runner of this process on the bus.

    Args:
        reason: Why, in words.
        everywhere: Whether it concerns the runners of all processes, if it has no target.

    Guarantees: R2, R6, X9.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    reason: str | None = None
    everywhere: bool = field(default=False, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusEndWorkerMessage(BusDataMessage):
    """Tells a worker to end gracefully.

    Args:
        reason: Why, in words.

    Guarantees: R2.
    """

    bounded: ClassVar[bool] = False

    reason: str | None = None


@bus_message
class BusCancelMessage(BusSystemMessage):
    """Asks a runner for an immediate end; without a target, every runner of this process on the bus.

    Args:
        reason: Why, in words.
        everywhere: Whether it concerns the runners of all processes, if it has no target.

    Guarantees: R2, R6, X9.
    """

    announcement: ClassVar[bool] = True

    reason: str | None = None
    everywhere: bool = field(default=False, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusCancelWorkerMessage(BusSystemMessage):
    """Tells a worker to cancel what it is doing and finish.

    Args:
        reason: Why, in words.

    Guarantees: R2.
    """

    reason: str | None = None


@bus_message
class BusAddWorkerMessage(BusSystemMessage, BusLocalMessage):
    """Asks a runner of this process to add a worker.

    Args:
        worker: The worker object itself; so the message cannot cross a network.
    """

    announcement: ClassVar[bool] = True

    worker: object


@bus_message
class BusWorkerErrorMessage(BusSystemMessage):
    """Reports an error of a root worker or a plain subscriber to everybody.

    Args:
        error: What happened, in words.

    Guarantees: W7.
    """

    error: str


@bus_message
class BusWorkerLocalErrorMessage(BusSystemMessage, BusLocalMessage):
    """Reports an error of a child worker to its parent. The fields are those of `WorkerErrorData`.

    Args:
        error: What happened, in words.
        exception: The exception, if there was one.
        origin: The hook or handler that raised it, or ``"run"``, ``"stop"`` or ``"cleanup"``; None if nothing was
            raised.
        fatal: Whether it ended the worker.

    Guarantees: W7, W9.
    """

    error: str
    exception: BaseException | None = field(default=None, eq=False, repr=False)
    origin: str | None = None
    fatal: bool = False


@value
class WorkerRegistryEntry(Value):
    """What a registry snapshot says of one worker.

    Args:
        name: The worker's name.
        parent: The name of its parent; None for a root worker.
        active: Whether the worker is active.
        bridged: Whether its pipeline exchanges frames with the bus.
        started_at: When the worker became ready, in seconds since the epoch. For people: it decides nothing.
        pool: The name that it shares with pools in other processes, if any.
        places: How many jobs such a pool does at once.
    """

    name: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None
    pool: str | None = field(default=None, metadata={IF_SET: True})
    places: int | None = field(default=None, metadata={IF_SET: True})


@bus_message
class BusWorkerRegistryMessage(BusSystemMessage):
    """A snapshot of all workers of a runner.

    The runner sends it to all others when it starts and, if it has workers, to each runner that starts later.

    Args:
        runner: The name of the runner.
        workers: One entry for each of its workers that is ready.
        incarnation: The id of the runner's life; None if it is not known, and does not matter.
        number: The number of the announcement within that life, which only goes up; None for the last known one.
        failed: Its workers that have failed, if there are many the last ones; None if there are none.
        asks: Whether a snapshot that is sent to all asks each runner for its own in return.
        complete: Whether workers that are not in it have gone; if False, it is part of a list that is too long for one
            message.

    Guarantees: J4, L8.
    """

    announcement: ClassVar[bool] = True

    runner: str
    workers: list[WorkerRegistryEntry]
    incarnation: str | None = None
    number: int | None = None
    failed: list[WorkerGoneData] | None = field(default=None, metadata={IF_SET: True})
    asks: bool = field(default=True, kw_only=True, metadata={IF_SET: True})
    complete: bool = field(default=True, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusWorkerReadyMessage(BusDataMessage):
    """Announces that a worker, the message's source, is ready.

    Args:
        runner: The name of the runner that hosts the worker.
        parent: The name of its parent; None for a root worker.
        active: Whether the worker starts active.
        bridged: Whether its pipeline exchanges frames with the bus.
        started_at: When the worker became ready, in seconds since the epoch. For people: it decides nothing.
        incarnation: The id of the runner's life; None if it is not known, and does not matter.
        number: The number of the announcement within that life, which only goes up; None for the last known one.
        pool: The name that it shares with pools in other processes, if any.
        places: How many jobs such a pool does at once.

    Guarantees: L8, S2.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    parent: str | None = None
    active: bool = False
    bridged: bool = False
    started_at: float | None = None
    incarnation: str | None = None
    number: int | None = None
    pool: str | None = field(default=None, kw_only=True, metadata={IF_SET: True})
    places: int | None = field(default=None, kw_only=True, metadata={IF_SET: True})


@bus_message
class BusPoolLoadMessage(BusDataMessage):
    """Announces how busy a pool is that shares its name with pools in other processes; the pool is the source.

    Args:
        runner: The name of the runner that hosts the pool.
        places: How many jobs it does at once.
        taken: How many jobs it has, those that wait included.
        incarnation: The id of the runner's life; None if it is not known, and does not matter.
        number: The number of the announcement within that life, which only goes up; None for the last known one.

    Guarantees: L8, S2.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    places: int
    taken: int
    incarnation: str | None = None
    number: int | None = None


@bus_message
class BusWorkerRestartingMessage(BusDataMessage):
    """Announces that a worker, the message's source, takes no more jobs and will be restarted by its supervision.

    It may still be answering jobs under way. When it has finished, a `BusWorkerGoneMessage` follows.

    Args:
        runner: The name of the runner that hosts the worker.
        incarnation: The id of the runner's life; None if it is not known, and does not matter.
        number: The number of the announcement within that life, which only goes up; None for the last known one.

    Guarantees: J4, L8, S1.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    incarnation: str | None = None
    number: int | None = None


@bus_message
class BusWorkerGoneMessage(BusDataMessage):
    """Announces that a worker, the message's source, has finished: its name is free, its jobs are answered.

    Args:
        runner: The name of the runner that hosted the worker.
        incarnation: The id of the runner's life; None if it is not known, and does not matter.
        number: The number of the announcement within that life, which only goes up; None for the last known one.
        error: Why the worker failed, in words; None if it ended without an error. One that failed to start was not
            announced as ready.
        restarting: Whether its supervision restarts it; then jobs for it wait.

    Guarantees: J4, L8, S1, W9.
    """

    bounded: ClassVar[bool] = False
    announcement: ClassVar[bool] = True

    runner: str
    incarnation: str | None = None
    number: int | None = None
    error: str | None = field(default=None, metadata={IF_SET: True})
    restarting: bool = field(default=False, metadata={IF_SET: True})
