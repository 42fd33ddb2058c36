"""What a view shows: one runner of this process (O2, O4)."""

from time import monotonic
from typing import Any

from anyio import current_time

from workerbus.observing._overview import Overview
from workerbus.observing._runners import SeenRunner
from workerbus.runner._reporter import Observation, Reporter
from workerbus.runner._rows import Sections
from workerbus.runner._runner import WorkerRunner


class RunnerScene:
    """One runner of this process.

    Args:
        runner: The runner.
    """

    def __init__(self, runner: WorkerRunner) -> None:
        self._runner = runner
        self._reporter = Reporter(runner)
        self._seen = SeenRunner(runner.name, None)
        self._overview = Overview()
        self._overview.add(self._seen)
        self._observation: Observation | None = None

    def begin(self) -> None:
        """Keep what is logged as an error from now on."""
        self._observation = self._reporter.observe()

    def end(self) -> None:
        """Keep nothing any more."""
        if self._observation is not None:
            self._observation.end()

    def look(self) -> None:
        """Begin to look."""
        if self._observation is not None:
            self._observation.want("jobs")

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

    def _learn(self) -> None:
        assert self._observation is not None
        self._reporter.look()
        report, seen = self._observation.report(), self._seen
        seen.take(report.changes)
        seen.note_sampled(report.now, sampled=report.sampled)
        self._overview.learn(seen, report.notes)
        if self._observation.wanted != "none":
            seen.measure(monotonic())
            self._overview.measure(current_time())

    def _whose(self, name: str) -> str:
        data = self._runner.registry.get(name)
        return "" if data is None else data.runner
