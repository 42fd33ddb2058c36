"""What the layers show each other: Protocols only, so that each knows of the next no more than it needs.

A worker sees its runner as a `RunnerLike`; a job client and a job server see their owner as a `JobPeer`.
"""

from collections.abc import Callable
from typing import Any, Protocol

from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._message_base import BusMessage
from workerbus._values import WorkerErrorData, WorkerReadyData


class Sender(Protocol):
    """A bus, as its users see it."""

    async def send(self, message: BusMessage) -> None:
        """Send, waiting for room where there is none."""

    def post(self, message: BusMessage) -> None:
        """Send without waiting, past every bound."""

    def on_message_received(self, message: BusMessage) -> None:
        """Deliver to this process alone, without waiting."""

    def has_subscriber(self, name: str) -> bool:
        """Whether the name is taken in this process."""

    # An awaited job without a timeout needs no cancel scope then: 1.12 times as fast on asyncio, 1.25 on trio.
    @property
    def never_waits(self) -> bool:
        """Whether `send` waits neither for room nor for a network, and so does no more than `post`."""


class Directory(Protocol):
    """A registry, as a requester sees it."""

    def get(self, worker_name: str) -> WorkerReadyData | None:
        """Look a worker up."""

    async def wait_for(self, worker_name: str) -> WorkerReadyData:
        """Wait until a worker is ready."""

    def near(self, worker_name: str) -> str:
        """Say which names look like this one."""


class Barrier:
    """Holds back the last hook of a job group until the others have run (W8, J16).

    Attributes:
        pending: How many hooks must run before.
        last: What to run after them.
    """

    __slots__ = ("last", "pending")

    def __init__(self) -> None:
        self.pending: int = 0
        self.last: HookCall | None = None


class HookCall:
    """A hook that waits to be run.

    Attributes:
        name: The hook.
        args: What it gets.
        cause: The message that it is run for, if any.
        barrier: Counted there, if set.
        done: Called with the error, or None, when it has run.
    """

    __slots__ = ("args", "barrier", "cause", "done", "name")

    def __init__(
        self,
        name: str,
        args: tuple[Any, ...],
        cause: BusMessage | None = None,
        *,
        barrier: Barrier | None = None,
        done: Callable[[Exception | None], None] | None = None,
    ) -> None:
        self.name: str = name
        self.args: tuple[Any, ...] = args
        self.cause: BusMessage | None = cause
        self.barrier: Barrier | None = barrier
        self.done: Callable[[Exception | None], None] | None = done


class HookSink(Protocol):
    """Where hooks are left to be run, one at a time per lane.

    Attributes:
        wanted: The hooks that somebody has overridden, or whose event somebody handles.
    """

    wanted: frozenset[str]

    def wants(self, name: str) -> bool:
        """Whether anybody has overridden the hook or handles its event."""

    def add(self, call: HookCall, *, system: bool, counted: bool = False) -> None:
        """Run the hook when those before it in its lane have run."""

    def add_last(self, call: HookCall, barrier: Barrier | None, *, system: bool) -> None:
        """Run the hook when those that the barrier counts have run, if there are any."""


OpenAsks = dict[str, dict[Any, Any]]
"""Worker name to the open groups that have asked it, and each group's client: so that a worker which leaves costs what
has asked it, and no look at the others (J4)."""


class JobPeer(Protocol):
    """What asks for jobs or answers them: a worker, or a runner."""

    @property
    def name(self) -> str:
        """Its name on the bus."""

    @property
    def bus(self) -> Sender:
        """Where it sends."""

    @property
    def registry(self) -> Directory:
        """Where it looks workers up."""

    @property
    def hooks(self) -> HookSink:
        """Where its hooks are run."""

    @property
    def clean_up(self) -> CleanUp:
        """Its shields."""

    @property
    def tasks(self) -> TaskHost:
        """Its tasks. Raises `NotRunningError` before and after its life (J14)."""

    def check_running(self) -> None:
        """Raise `NotRunningError` where answers could not be received: before the start, and after the end (J14)."""

    @property
    def asking(self) -> OpenAsks:
        """Where to note who has been asked, to be told when a worker departs; one table for all of a runner."""


class RunnerLike(Protocol):
    """A runner, as its workers see it."""

    @property
    def name(self) -> str:
        """Its name on the bus."""

    @property
    def clean_up(self) -> CleanUp:
        """The shields of the whole run."""

    @property
    def grace_period(self) -> float:
        """How long an end may take, in seconds (R2)."""

    @property
    def job_grace(self) -> float:
        """How long jobs under way may go on after an end, in seconds (R2)."""

    @property
    def is_ending(self) -> bool:
        """Whether it takes no worker any more."""

    def get_worker(self, name: str) -> Any:
        """Return the worker of that name, if the runner hosts it."""

    def known_workers(self) -> list[str]:
        """Names of the workers that were added, ready or not."""

    def check_new(self, worker: Any) -> bool:
        """Whether the worker is new here; raises where it cannot be added (R3)."""

    @property
    def asking(self) -> OpenAsks:
        """See `JobPeer.asking`."""

    def forget(self, worker: Any) -> None:
        """A worker has left the bus: its name is free."""

    def add_ready_listener(self, worker: Any) -> None:
        """A worker has got a handler for `on_worker_ready`."""

    def tell_of_others(self, worker: Any) -> None:
        """Tell a root worker that has just started of those that are ready."""

    def worker_error(self, data: WorkerErrorData) -> None:
        """A root worker reports an error (W7)."""
