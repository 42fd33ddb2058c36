"""What a runner hosts and waits for, in words, for who looks at a program that runs or is stuck (O6, O3).

It only reads, and it changes nothing that it reads: it may be asked in the middle of a step, by a signal handler, or in
another thread while the event loop stands still. Of jobs there are names, ids and ages, and nothing of payloads.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from workerbus._concurrency.waiting import Wait, counted, enumerated, job_title
from workerbus._log import about
from workerbus._registry import WorkerRegistry
from workerbus.bus._bus import WorkerBus
from workerbus.diagnosis._program import begin_to_tell, end_telling
from workerbus.diagnosis._signal import DumpSignal
from workerbus.diagnosis._waiting import Live, ages
from workerbus.jobs._client import JobClient
from workerbus.jobs._group import JobGroup
from workerbus.jobs._open_job import OpenJob
from workerbus.runner._run import Run
from workerbus.runner._workers import HostedWorkers
from workerbus.supervision._supervisor import Supervisions
from workerbus.worker._core import WorkerCore
from workerbus.worker._types import Phase

logger = logging.getLogger("workerbus.runner")

MOST_JOBS: Final = 10
"""Of so many jobs of one worker, and so many that it has asked for, there is a line each; the others are counted."""

_PHASES: Final[Mapping[Phase, str]] = {
    Phase.NEW: "is being attached",
    Phase.ATTACHED: "has not started",
    Phase.STOPPING: "is stopping",
    Phase.FINISHED: "has finished",
}


class RunnerReport:
    """What there is to say of one runner; it tells the registry what there is to say of those who are waited for."""

    __slots__ = ("_bus", "_client", "_dump_signal", "_hosted", "_name", "_registry", "_run")

    def __init__(
        self,
        name: str,
        bus: WorkerBus,
        registry: WorkerRegistry,
        hosted: HostedWorkers,
        client: JobClient,
        run: Run,
        dump_signal: str | int | None,
    ) -> None:
        self._dump_signal = None if dump_signal is None else DumpSignal(dump_signal)
        self._name = name
        self._bus = bus
        self._registry = registry
        self._hosted = hosted
        self._client = client
        self._run = run
        registry.explain = self.explain

    def begin(self) -> None:
        """Let `workerbus.dump` tell of the runner, and the signal have it do so; called in the runner's event loop."""
        begin_to_tell(self)
        refusal = "" if self._dump_signal is None else self._dump_signal.begin()
        if refusal:
            logger.warning("%s", refusal, extra=about(runner=self._name))

    def end(self) -> None:
        """Take that back."""
        if self._dump_signal is not None:
            self._dump_signal.end()
        end_telling(self)

    # --- what others wait for

    def explain(self, worker_name: str) -> Wait | None:
        """Return what those wait for who wait for a worker of this runner; None where there is nothing to say of it."""
        host = self._registry.restarting.get(worker_name)
        if host is not None:
            restarted = [each.in_words(worker_name) for each in self._supervisions()] if host == self._name else []
            return next((wait for wait in restarted if wait is not None), None)
        core = self._hosted.workers.get(worker_name)
        if core is None or core.state.has_started or core.state.phase is not Phase.RUNNING:
            return None
        return Wait(1, f"for worker {worker_name!r} to be ready: {_late(core)}")

    def _supervisions(self) -> Iterator[Supervisions]:
        yield self._hosted.supervisions
        for core in list(self._hosted.workers.values()):
            if core.state.supervises is not None:
                yield core.state.supervises

    # --- all of it

    def lines(self, live: Live) -> list[str]:
        """Return what it hosts, and what that does; what has nothing to do is only named."""
        cores = list(self._hosted.workers.values())
        idle: list[str] = []
        lines: list[str] = []
        for core in cores:
            told = list(self._of_worker(core, live))
            if told or not _is_idle(core):
                lines += [f"worker {core.state.name!r}{self._place(core)} {_state(core)}", *_indented(told)]
            else:
                idle.append(f"{core.state.name!r}{'' if core.state.active else ' (inactive)'}")
        if idle:
            lines.append(f"idle {'is' if len(idle) == 1 else 'are'} {enumerated(idle)}")
        restarted = [name for name, host in list(self._registry.restarting.items()) if host == self._name]
        lines += [f"somebody may wait {wait.text}" for name in restarted if (wait := self.explain(name)) is not None]
        lines += [f"worker {name!r} has failed, and is not restarted any more" for name in self._hosted.given_up]
        lines += self._lanes()
        starts = "has ended" if self._run.done.is_set() else "is starting or ending"
        state = "runs" if self._run.tasks is not None else starts
        head = f"runner {self._name!r} {state}, with {counted(len(cores), 'worker')}, on {self._bus.in_words()}"
        return [head, *_indented([*(f"it {line}" for line in self._groups(self._client, live)), *lines])]

    def _place(self, core: WorkerCore) -> str:
        parent = core.state.parent_name
        return "" if parent is None else f", a child of {parent!r},"

    def _of_worker(self, core: WorkerCore, live: Live) -> Iterator[str]:
        jobs = list(core.state.job_server.jobs.values())
        for job in jobs[:MOST_JOBS]:
            asked = f"{job.request.source!r} asked for{ages(job.since, job.deadline, live)}"
            yield f"has {job.name}, which {asked}: {_how(job)}"
        if len(jobs) > MOST_JOBS:
            line = sum(job.waits for job in jobs)
            yield f"has more jobs, {len(jobs)} in all, of which {line} wait for their turn"
        yield from self._groups(core.state.job_client, live)
        if core.in_words is not None:
            yield from core.in_words.lines()
        if core.state.phase is not Phase.NEW:
            depths = core.state.inbox.depths
            waiting = [f"{count} {lane}" for lane, count in depths.items() if count]
            if waiting:
                yield f"has messages and hooks waiting: {', '.join(waiting)}"

    def _groups(self, client: JobClient, live: Live) -> list[str]:
        groups = list(client.groups.values())
        lines = [self._group(group, live) for group in groups[:MOST_JOBS]]
        return lines if len(groups) <= MOST_JOBS else [*lines, f"asks for more jobs, {len(groups)} in all"]

    def _group(self, group: JobGroup, live: Live) -> str:
        title, left = job_title(group.job_id, group.job_name), ages(None, group.deadline, live)
        whom = enumerated([self._whom(group, name) for name in group.worker_names if name in group.pending])
        if not whom:
            return f"asks for {title}, which all have answered{left}"
        return f"{'waits until those have stopped:' if group.is_done else 'asks'} {whom} for {title}{left}"

    def _whom(self, group: JobGroup, name: str) -> str:
        there = group.asked.get(name)
        if there is None:
            return f"{name!r} (not asked yet)"
        return repr(name) if there.runner == self._name else f"{name!r} of runner {there.runner!r}"

    def _lanes(self) -> list[str]:
        lines: list[str] = []
        for name, inbox in self._bus.inboxes():
            room = inbox.room
            if room is not None and (room.full or room.has_line):
                line = f"{room.taken} of {room.limit:g} messages wait, and {counted(len(room.line), 'sender')} for room"
                lines.append(f"the data lane of {name!r} is full: {line}")
            elif inbox.hosted_by_bus and inbox.depth:
                lines.append(f"subscriber {name!r} has {counted(inbox.depth, 'message')} waiting")
        return lines


def _late(core: WorkerCore) -> str:
    late = None if core.in_words is None else core.in_words.late()
    return late or "its run() has begun, and has not called start()"


def _state(core: WorkerCore) -> str:
    state = core.state
    if state.phase is not Phase.RUNNING:
        return _PHASES[state.phase]
    if not state.has_started:
        return f"starts: {_late(core)}"
    return ("is active" if state.active else "is inactive") + (", and is stopping" if state.closing else "")


def _is_idle(core: WorkerCore) -> bool:
    state = core.state
    return state.phase is Phase.RUNNING and state.has_started and not state.closing and state.hooks.idle


def _how(job: OpenJob) -> str:
    held = job.held()
    if held is not None:
        return f"waits {held.wait.text}"
    return job.state.value


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
