"""What a view shows: one runner of this process, or those of all processes on a network (O2, O4, O7)."""

from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple

from anyio import current_time

from workerbus.bus._peer_bus import PeerBus
from workerbus.observing import PassingMessages, observe_cluster
from workerbus.observing._overview import Overview
from workerbus.observing._passed import Passing
from workerbus.observing._runners import SeenRunner
from workerbus.runner._health import RunnerHealth
from workerbus.runner._notes import MessagesWanted
from workerbus.runner._reporter import Observation, Reporter
from workerbus.runner._rows import Sections
from workerbus.runner._runner import WorkerRunner


class RunnerScene:
    """One runner of this process.

    Args:
        runner: The runner.
        name: What it is called.

    Attributes:
        name: What it is called.
        runner_name: Which runner it is, for logs.
    """

    def __init__(self, runner: WorkerRunner, name: str | None = None) -> None:
        self._runner = runner
        self.name: str = runner.name if name is None else name
        self.runner_name: str | None = runner.name
        self._reporter = Reporter(runner)
        self._seen = SeenRunner(runner.name, None)
        self._overview = Overview(name)
        self._overview.add(self._seen)
        self._passing = Passing()
        self._observation: Observation | None = None

    def health(self) -> RunnerHealth:
        """Return how the runner is."""
        return self._runner.health()

    async def __aenter__(self) -> None:
        """Keep what is logged as an error from now on."""
        self._observation = self._reporter.observe()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep nothing any more."""
        self._passing.end()
        if self._observation is not None:
            self._observation.end()

    def look(self, messages: MessagesWanted) -> None:
        """Look, or go on looking."""
        if self._observation is not None:
            self._observation.want(messages)

    def rest(self) -> None:
        """Look no more, for now."""
        if self._observation is not None and self._observation.wanted != "none":
            self._observation.want("none")
            self._overview.rest()

    async def answered(self) -> None:
        """Return: there is always something to see."""

    async def glance(self) -> Sections:
        """Return what there is to see now."""
        return self.state()

    def state(self) -> Sections:
        """Return what there is to see now."""
        self._learn()
        remote = self._runner.registry.remote_workers
        self._overview.others = {name: self._whose(name) for name in remote}
        return self._overview.state()

    def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job; None where it is not remembered."""
        self._learn()
        return self._overview.story(job_id)

    def messages(self) -> PassingMessages:
        """Return the messages that pass from now on."""
        return self._passing.begin()

    @property
    def missed(self) -> int:
        """How many of them were not seen."""
        return self._passing.missed

    def _learn(self) -> None:
        assert self._observation is not None
        self._reporter.look()
        report, seen = self._observation.report(), self._seen
        seen.take(report.changes)
        seen.note_sampled(report.now, sampled=report.sampled)
        self._passing.missed += report.missed
        self._passing.add(seen.name, self._overview.learn(seen, report.notes))
        if self._observation.wanted != "none":
            seen.measure(monotonic())
            self._overview.measure(current_time())

    def _whose(self, name: str) -> str:
        data = self._runner.registry.get(name)
        return "" if data is None else data.runner


class BusHealth(NamedTuple):
    """How a view of a network is.

    Attributes:
        live: Whether it works at all.
        ready: Whether it sees the network.
    """

    live: bool
    ready: bool


class ClusterScene:
    """The runners of all processes on a network.

    Args:
        bus: The bus.
        name: What they are called together.

    Attributes:
        name: What they are called together.
        runner_name: None: it is about no single one.
    """

    def __init__(self, bus: PeerBus, name: str | None = None) -> None:
        self._bus = bus
        self.name: str = bus.name if name is None else name
        self.runner_name: str | None = None
        self._cluster = observe_cluster(bus, name=self.name)

    def health(self) -> BusHealth:
        """Return how it is."""
        return BusHealth(live=True, ready=self._bus.connection == "connected")

    async def __aenter__(self) -> None:
        """Join the network, and look at nobody yet."""
        await self._cluster.join()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Leave it."""
        return await self._cluster.__aexit__(exc_type, exc, traceback)

    def look(self, messages: MessagesWanted) -> None:
        """Look, or go on looking."""
        self._cluster.want(messages)
        self._cluster.look()

    def rest(self) -> None:
        """Look no more, for now."""
        self._cluster.rest()

    async def answered(self) -> None:
        """Wait until there is something to see."""
        await self._cluster.answered()

    async def glance(self) -> Sections:
        """Ask all once, without what passes, and return what there is to see."""
        self.look("none")
        await self.answered()
        return self.state()

    def state(self) -> Sections:
        """Return what there is to see now."""
        return self._cluster.state()

    def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job; None where it is not remembered."""
        return self._cluster.story(job_id)

    def messages(self) -> PassingMessages:
        """Return the messages that pass from now on."""
        return self._cluster.messages()

    @property
    def missed(self) -> int:
        """How many of them were not seen."""
        return self._cluster.missed


def scene_of(runner_or_bus: WorkerRunner | PeerBus, name: str | None) -> RunnerScene | ClusterScene:
    """Return what is to be shown.

    Raises:
        TypeError: It is neither a runner nor a bus with peers.
    """
    if isinstance(runner_or_bus, WorkerRunner):
        return RunnerScene(runner_or_bus, name)
    if isinstance(runner_or_bus, PeerBus):
        return ClusterScene(runner_or_bus, name)
    raise TypeError(f"a view is of a WorkerRunner, or of a PeerBus such as a RedisBus, not of {runner_or_bus!r}")
