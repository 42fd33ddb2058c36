"""What packages show each other, so that each knows of the next no more than it needs (J4, J14, J16, R2, R3, W7, W8).

A worker sees its runner as a `RunnerLike`; a job client and a job server see their owner as a `JobPeer`. Beside these
Protocols there is only what is passed between their two sides: `HookCall` and `Barrier`.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from workerbus._concurrency.lifetime import CleanUp, TaskHost
from workerbus._concurrency.waiting import item_in_words
from workerbus._message_base import BusMessage
from workerbus._values import WorkerErrorData, WorkerGoneData, WorkerReadyData, WorkerRestartedData


class Sender(Protocol):
    """A bus, as those who send over it see it."""

    async def send(self, message: BusMessage) -> None:
        """Send a message, waiting for room where there is none."""

    def post(self, message: BusMessage) -> None:
        """Send a message without waiting, past every bound."""

    def post_here(self, message: BusMessage) -> None:
        """Post a message to a subscriber of this process; nothing happens where it has left."""

    def check_travels(self, message: BusMessage) -> None:
        """Raise `WireError` where a message cannot travel to another process."""

    def is_late(self, message: BusMessage) -> bool:
        """Whether a message has come from another process that is gone since."""

    def on_message_received(self, message: BusMessage) -> None:
        """Deliver a message to this process alone, without waiting."""

    def has_subscriber(self, name: str) -> bool:
        """Whether a subscriber of this name is in this process."""

    def check_loop(self, what: str | None = None) -> None:
        """Raise `WrongLoopError`, naming ``what`` was used, where it is open in another thread or event loop."""

    def check_thread(self) -> None:
        """Raise `WrongLoopError` where it is open in another thread."""

    # An awaited job without a timeout needs no cancel scope then: 1.12 times as fast on asyncio, 1.25 on trio.
    @property
    def accepts_at_once(self) -> bool:
        """Whether a job's messages are accepted in the step in which they are sent; only a crowd at a network waits."""

    @property
    def job_groups(self) -> dict[str, Any] | None:
        """The open job groups of this process, by job id; None where lanes have no bound."""

    @property
    def in_process(self) -> bool:
        """Whether everybody is in this process: what is posted has arrived when `post` returns."""

    @property
    def job_taps(self) -> Sequence[Any]:
        """Who is told what becomes of jobs; the same list at any time."""

    def tell_of_job(self, event: Any, name: str, *about: object) -> None:
        """Tell them of an event in a job's life."""

    def headers_of_job(
        self, event: Any, name: str, headers: Mapping[str, str] | None, *about: object
    ) -> Mapping[str, str] | None:
        """Ask them which headers are to travel."""


class Directory(Protocol):
    """A registry, as those who ask for jobs see it."""

    @property
    def restarting(self) -> Collection[str]:
        """The names of the workers that are being restarted."""

    def get(self, worker_name: str) -> WorkerReadyData | None:
        """Return what is known of a worker that is ready; None where there is none of that name."""

    def choose(self, worker_name: str) -> WorkerReadyData | None:
        """Return who is to do the next job for a name that pools share; None where none is ready."""

    async def wait_for_news(self, worker_name: str) -> WorkerGoneData | None:
        """Wait until a worker of this name is ready, or has failed; returns what is known of one that has failed."""

    def failure_of(self, worker_name: str) -> WorkerGoneData | None:
        """Return what is known of a worker of this name that has failed; None where there is a new one, or was none."""

    def near(self, worker_name: str) -> str:
        """Say in words which known names look like this one, as the end of a sentence."""


class Barrier:
    """Holds back the last hook of a job group until the group's other hooks have run.

    Attributes:
        pending: How many of the other hooks have not run.
        last: The last hook, once it is due; None before that.
    """

    __slots__ = ("last", "pending")

    def __init__(self) -> None:
        self.pending: int = 0
        self.last: HookCall | None = None


class HookCall:
    """A hook that waits to be run.

    Attributes:
        name: The name of the hook.
        args: What the hook is called with.
        cause: The message that it is run for, if any.
        barrier: What counts it among the hooks that have not run, if anything does.
        done: Called when the hook has run: with its error, or with None.
    """

    __slots__ = ("args", "barrier", "cause", "done", "name")

    def __init__(
        self,
        name: str,
        args: tuple[Any, ...],
        cause: BusMessage | None = None,
        *,
        barrier: Barrier | None = None,
        done: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        self.name: str = name
        self.args: tuple[Any, ...] = args
        self.cause: BusMessage | None = cause
        self.barrier: Barrier | None = barrier
        self.done: Callable[[BaseException | None], None] | None = done


@item_in_words.register
def _(call: HookCall) -> str:
    what = f" ({type(call.args[0]).__name__})" if call.name == "on_bus_message" else ""
    return f"hook {call.name}{what}" if call.name else ""


class ChildReport(HookCall):
    """A hook that tells a worker of a child's error or end: its own end does not drop it."""

    __slots__ = ()


class HookSink(Protocol):
    """Where hooks are left to be run, one at a time per lane."""

    def wants(self, name: str) -> bool:
        """Whether somebody has overridden the hook, or handles its event."""

    def add(self, call: HookCall, *, system: bool, counted: bool = False) -> None:
        """Run a hook when those before it in its lane have run; ``counted`` ones take room in the data lane."""

    def add_last(self, call: HookCall, barrier: Barrier | None, *, system: bool) -> None:
        """Run a hook when those that the barrier counts have run; without any, when its turn in its lane comes."""


OpenAsks = dict[str, dict[Any, Any]]
"""Worker name to the open groups that have asked that worker, each with its client.

When a worker leaves, only the groups that have asked it are looked at.
"""


class JobPeer(Protocol):
    """A worker or a runner, as its job client and its job server see it."""

    @property
    def name(self) -> str:
        """The name of the worker or runner, unique on its bus."""

    @property
    def about(self) -> dict[str, str]:
        """What a log record says that is about it."""

    @property
    def bus(self) -> Sender:
        """The bus that it sends over."""

    @property
    def sends_by_bus(self) -> bool:
        """Whether its own messages go to the bus as they are."""

    @property
    def send(self) -> Callable[[BusMessage], Awaitable[None]]:
        """What sends a message of its own; a worker may override it."""

    @property
    def registry(self) -> Directory:
        """The registry in which it looks workers up."""

    @property
    def hooks(self) -> HookSink:
        """The queue in which its hooks wait to be run."""

    @property
    def clean_up(self) -> CleanUp:
        """The clock of its wind-down, which gives out its shields."""

    @property
    def tasks(self) -> TaskHost:
        """The host of its tasks; `NotRunningError` is raised before its start and after its end."""

    def check_running(self) -> None:
        """Raise `NotRunningError` where answers could not be received: before the start, and after the end."""

    def call_behind(self, function: Callable[[], None]) -> None:
        """Call a function when what has come for the client has been handled: at once, where nothing waits."""

    @property
    def asking(self) -> OpenAsks:
        """The table of who has asked which worker, one for a runner and all its workers."""

    @property
    def speak(self) -> Callable[[], None]:
        """Called before it asks for its first job."""


class RunnerLike(Protocol):
    """A runner, as its workers see it."""

    @property
    def name(self) -> str:
        """The name of the runner, unique on its bus."""

    @property
    def clean_up(self) -> CleanUp:
        """The clock of the wind-down of the whole run, which gives out its shields."""

    @property
    def grace_period(self) -> float:
        """How many seconds an end may take before what is left is cancelled."""

    @property
    def job_grace(self) -> float:
        """How many seconds jobs under way may go on after an end was asked for."""

    @property
    def is_ending(self) -> bool:
        """Whether the runner ends, and takes no worker any more."""

    def get_worker(self, name: str) -> Any:
        """Return the worker of this name that the runner hosts; None where it hosts none."""

    def known_workers(self) -> list[str]:
        """Return the names of the workers that were added, ready or not."""

    def check_new(self, worker: Any) -> bool:
        """Whether the worker is not hosted here yet; raises where it cannot be added."""

    @property
    def asking(self) -> OpenAsks:
        """The table of who has asked which worker, one for the runner and all its workers."""

    def forget(self, worker: Any) -> None:
        """Forget a worker that has left the bus, so that its name is free."""

    def add_ready_listener(self, worker: Any) -> None:
        """Note that a worker has got a handler for ``on_worker_ready``."""

    def tell_of_others(self, worker: Any) -> None:
        """Tell a root worker that has just started of those that are ready."""

    def worker_restarted(self, data: WorkerRestartedData) -> None:
        """Take the report of a restart."""

    def worker_given_up(self, worker_name: str, error: BaseException | None) -> None:
        """Take the report that a worker is not restarted any more."""

    def worker_error(self, data: WorkerErrorData) -> None:
        """Take the report of an error of a root worker."""

    def worker_error_untold(self, data: WorkerErrorData) -> None:
        """Take the report of a child's error that its parent, which ends, has not come to hear of."""
