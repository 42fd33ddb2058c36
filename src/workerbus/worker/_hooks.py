"""Hooks: the methods to override, and the queue in which they wait (W7, W8, N3, J16).

A worker's built-in handling never runs a hook. It leaves a `HookCall` here, in the lane of the message, and goes on;
the lane's dispatcher runs the overridden method and then the event handlers of the same name. Where nobody overrode and
nobody listens, nothing is queued, and no stream and no task exist.
"""

from collections.abc import Callable, Mapping
from inspect import isawaitable
from typing import Any, Final

from anyio import Event

from workerbus._concurrency.doing import Doing, tells
from workerbus._concurrency.failures import Kind, sort_failure
from workerbus._concurrency.handling import Handling
from workerbus._concurrency.lane import Lane
from workerbus._concurrency.lifetime import TaskHost
from workerbus._concurrency.waiting import Role, serves
from workerbus._events import EventEmitter, EventHandlers
from workerbus._methods import arguments_of, awaitable, is_default
from workerbus._values import WorkerErrorData, WorkerGoneData, WorkerReadyData, WorkerRestartedData
from workerbus.abc import Barrier, ChildReport, HookCall
from workerbus.jobs._events import JobGroupResponse
from workerbus.messages import (
    FROM_JOBS,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
)

HOOKS: Final = frozenset(
    {
        "on_activated",
        "on_deactivated",
        "on_worker_ready",
        "on_worker_gone",
        "on_worker_restarted",
        "on_worker_failed",
        "on_job_request",
        "on_job_response",
        "on_job_update",
        "on_job_update_requested",
        "on_job_completed",
        "on_job_error",
        "on_job_stream_start",
        "on_job_stream_data",
        "on_job_stream_end",
        "on_job_cancelled",
        "on_bus_message",
    }
)


class WorkerHooks(EventEmitter):
    """The hooks of a worker. Override them, or add event handlers of the same names.

    They run one at a time per lane, in the order of the messages. An exception that one raises is logged and reported,
    and stops nothing else.

    Guarantees: N3, W7, W8.
    """

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        """This worker was activated.

        An exception in the first call, which is part of the worker's start, ends the worker as failed.

        Args:
            args: The arguments of `activate_worker`, as a dict; None if there were none, and at the start.

        Guarantees: W2.
        """

    async def on_deactivated(self) -> None:
        """This worker was deactivated."""

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        """Another worker is ready: a root worker of the same runner, a child of this one, or one that is watched.

        Args:
            data: The worker that is ready, and its runner.
        """

    async def on_worker_restarted(self, data: WorkerRestartedData) -> None:
        """A supervised child was restarted. It is attached, but perhaps not ready yet.

        Args:
            data: Its name, how many times it was restarted, and why the previous one failed.

        Guarantees: S1.
        """

    async def on_worker_gone(self, data: WorkerGoneData) -> None:
        """A worker that `on_worker_ready` has announced is gone: it has ended or failed, and its name is free.

        Args:
            data: The worker, its runner, and why it failed, if it did.

        Guarantees: W9.
        """

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        """A child of this worker has reported an error, or has failed.

        Args:
            data: The child, and what it has reported: the exception, its origin, and whether it ended the child.

        Guarantees: W7, W9.
        """

    async def on_job_request(self, message: BusJobRequestMessage) -> Any:
        """A job was requested that has no ``@job`` method. This hook runs as a job handler, and may answer later.

        Args:
            message: The request.

        Returns:
            The answer, as a dict; None leaves the job open, to be answered later.

        Guarantees: J2.
        """

    async def on_job_response(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        """A worker has answered a job that this one has asked for.

        Args:
            message: The answer, whatever its status.
        """

    async def on_job_update(self, message: BusJobUpdateMessage | BusJobUpdateUrgentMessage) -> None:
        """A worker reports the progress of a job that this one has asked for.

        Args:
            message: The update.
        """

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        """A requester asks for the progress of a job of this worker; answer with `send_job_update`.

        Args:
            message: The request, with the job's id.
        """

    async def on_job_completed(self, result: JobGroupResponse) -> None:
        """All workers of a job have answered. It runs once, after every `on_job_response` of the job.

        Args:
            result: The answers, by worker.

        Guarantees: J16.
        """

    async def on_job_error(self, message: BusJobResponseMessage | BusJobResponseUrgentMessage) -> None:
        """A bad answer, or the timeout, has cancelled a job; its `on_job_completed` will not run.

        Args:
            message: The bad answer. For a timeout it is a CANCELLED one, in the name of a worker that has not answered.
        """

    async def on_job_stream_start(self, message: BusJobStreamStartMessage) -> None:
        """A worker begins to stream its results for a job that this one has asked for.

        Args:
            message: What the worker says about the stream.
        """

    async def on_job_stream_data(self, message: BusJobStreamDataMessage) -> None:
        """A worker has streamed a partial result.

        Args:
            message: The partial result.
        """

    async def on_job_stream_end(self, message: BusJobStreamEndMessage) -> None:
        """A worker has ended its stream, which is its answer to the job.

        Args:
            message: The result of the job.
        """

    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        """A job that this worker is doing was cancelled by its requester, or has run out of time.

        Args:
            message: The job's id and the reason, which is ``"timeout"`` if time has run out.
        """

    async def on_bus_message(self, message: BusMessage) -> None:
        """A message has come. The hook runs after the built-in handling, for the library's own messages too.

        Args:
            message: The message.

        Guarantees: B6.
        """


DEFAULTS: Final = {name: getattr(WorkerHooks, name) for name in HOOKS}
"""The library's own hooks, which do nothing, by name."""

HOOK_ARGUMENTS: Final = arguments_of(DEFAULTS)
"""How many arguments each hook gets, by name."""

ON_BUS_MESSAGE: Final = DEFAULTS["on_bus_message"]


class HookQueue:
    """A worker's hooks that wait to be run.

    Whether somebody wants a hook is asked anew each time: it may be put on the object or patched on the class at any
    time.

    Args:
        owner: The user's object, whose methods are called.
        name: The worker's name.
        overridden: The names of the hooks that its class overrides, as far as that is known.
        events: The worker's event handlers.
        report: Called with a hook and the exception that it raised.

    Attributes:
        name: As given.
        wanted: The names of the hooks that are known to be wanted: the class overrides them, or their events have
            handlers.
        own: The attributes of the user's object itself.
        kind: The class of the user's object.
        failed: How many times a hook has raised.
        system: The lane of the hooks that system messages have caused.
        data: The lane of all other hooks.
        _reports: What children have reported after a lane was sealed or closed, to be run in the wind-down; None when
            that is over.
        _grace: The same two lanes for the time in which only jobs go on; None before that.
    """

    __slots__ = (
        "_events",
        "_grace",
        "_host",
        "_owner",
        "_report",
        "_reports",
        "data",
        "failed",
        "kind",
        "name",
        "own",
        "system",
        "wanted",
    )

    def __init__(
        self,
        owner: Any,
        name: str,
        overridden: frozenset[str],
        events: EventHandlers,
        report: Callable[[HookCall, BaseException], None],
    ) -> None:
        self._owner = owner
        self.name: str = name
        self._events = events
        self.wanted: frozenset[str] = overridden
        self.own: Mapping[str, Any] = owner.__dict__
        self.kind: Any = type(owner)
        self._report = report
        self.failed: int = 0
        self.system: Lane[HookCall] = Lane(f"{name} system", self.run)
        self.data: Lane[HookCall] = Lane(f"{name} data", self.run, first=(self.system,))
        self._host: TaskHost | None = None
        self._grace: tuple[Lane[HookCall], Lane[HookCall]] | None = None
        self._reports: tuple[HookCall, ...] | None = ()

    def wants(self, name: str) -> bool:
        """Whether somebody has overridden the hook or handles its event."""
        # Not by making the bound method: that would be twice as slow, for each hook that nobody wants.
        return name in self.wanted or name in self.own or getattr(self.kind, name) is not DEFAULTS[name]

    def want(self, name: str) -> None:
        """Run the hook from now on: it has got an event handler."""
        self.wanted |= {name}

    def add(self, call: HookCall, *, system: bool, counted: bool = False) -> None:
        """Run the hook when those before it in its lane have run.

        Args:
            call: The hook.
            system: Whether a system message has caused it.
            counted: Whether it takes room in a bounded data lane.
        """
        lane = self.system if system else self.data
        if lane.ready is not None and lane.room is None:
            lane.ready(call)
        elif lane.closed:
            self._add_late(call, system=system)
        elif counted and not system:
            lane.put_counted(call)
        else:
            lane.put(call)

    def seal(self, lane: Lane[HookCall], *, grace: bool) -> None:
        """Begin no more hooks of a lane but those of jobs under way, for as long as these have a grace."""
        system = lane is self.system
        if grace and self._grace is None and self._host is not None:
            first: Lane[HookCall] = Lane(f"{self.system.name} grace", self.run)
            self._grace = first, Lane(f"{self.data.name} grace", self.run, first=(first,))
            for each in self._grace:
                each.open(self._host)
        for call in lane.close():
            self._add_late(call, system=system)

    def _add_late(self, call: HookCall, *, system: bool) -> None:
        if self._grace is not None and _of_a_job(call):
            self._grace[0 if system else 1].put(call)
        elif self._reports is not None and isinstance(call, ChildReport):
            self._reports += (call,)

    def add_last(self, call: HookCall, barrier: Barrier | None, *, system: bool) -> None:
        """Run the hook when those that the barrier counts have run, if there are any."""
        if barrier is not None and barrier.pending:
            barrier.last = call
        else:
            self.add(call, system=system)

    def open(self, host: TaskHost) -> None:
        """Run the hooks, in tasks of the worker's host."""
        self.own = self._owner.__dict__  # which its __init__ may have replaced since
        self._host = host
        self.system.open(host)
        self.data.open(host)

    @property
    def _lanes(self) -> tuple[Lane[HookCall], ...]:
        return (self.system, self.data, *(self._grace or ()))

    def close(self, *, cancel: bool) -> None:
        """Begin no more hooks."""
        for lane in self._lanes:
            for call in lane.close(cancel=cancel):
                self._add_late(call, system=lane is self.system)

    @property
    def has_reports(self) -> bool:
        """Whether what a child has reported waits for `run_reports`."""
        return bool(self._reports)

    @property
    def takes_reports(self) -> bool:
        """Whether what a child reports now will be run."""
        return self._reports is not None

    async def run_reports(self) -> None:
        """Run what children have reported and no lane has begun."""
        while self._reports:
            first, *rest = self._reports
            self._reports = (*rest,)
            await self.run(first)

    def end_reports(self) -> list[WorkerErrorData]:
        """Run no more of what children report, and return the errors of which the worker has not heard."""
        left, self._reports = self._reports, None
        return [call.args[0] for call in left or () if call.name == "on_worker_failed"]

    @property
    def idle(self) -> bool:
        """Whether no hook waits or runs."""
        return not any(lane.waiting or lane.busy for lane in self._lanes)

    async def quiet(self) -> None:
        """Wait until no hook waits or runs."""
        for lane in self._lanes:
            await lane.quiet()

    def mark(self, passed: Callable[[Lane[HookCall]], None]) -> list[Event]:
        """Mark the ends of both lanes as they are now.

        Args:
            passed: Called with a lane, in that lane's own step, when the hooks before its mark have run. Where no hook
                waits or runs, it is called now; for a lane that is closed, not at all.

        Returns:
            One event for each lane that has something to run, set when it has run it.
        """
        events: list[Event] = []
        for lane in (self.system, self.data):
            if lane.closed:
                continue
            if lane.waiting or lane.busy:
                event = Event()
                lane.put(HookCall("", (), done=_mark(event, lane, passed)))
                events.append(event)
            else:
                passed(lane)
        return events

    async def run(self, call: HookCall) -> None:
        """Run one hook: the method, then the event handlers, each whatever the others raise."""
        error: BaseException | None = None
        native: BaseException | None = None
        room = self.data.room
        handling = None if room is None else Handling(room)  # noted only where a sender may have to wait
        try:
            for function, args in self._calls(call):
                try:
                    returned = function(*args)
                    if args is call.args:  # the method; event handlers get the worker, too, and need not be async
                        await awaitable(returned, self._owner, call.name)
                    elif isawaitable(returned):
                        await returned
                except BaseException as exc:  # noqa: BLE001 - sorted there
                    failure = sort_failure(exc)
                    await failure.pass_on()
                    error = error or failure.error
                    self._count(call, failure.error)
                    if failure.kind is Kind.NATIVE:
                        native = exc
                    await failure.let_cancel()
        finally:
            if handling is not None:
                handling.leave()
        if call.done is not None:
            call.done(error)
        barrier = call.barrier
        if barrier is not None:
            barrier.pending -= 1
            if not barrier.pending and barrier.last is not None:
                # The group's last hook runs here, behind those it waited for, whichever lane it would have been in.
                last, barrier.last = barrier.last, None
                await self.run(last)
        if native is not None:
            raise native  # the lane goes on in another task

    tells(run, lambda its: _hook_doing(its["self"].name, its["call"].name))
    serves(run, lambda its: Role(f"worker {its['self'].name!r}, hook {its['call'].name}"))

    def _calls(self, call: HookCall) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
        owner, name, args = self._owner, call.name, call.args
        calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        if name and (name not in DEFAULTS or not is_default(owner, name, DEFAULTS[name])):
            calls.append((getattr(owner, name), args))
        if name in self._events:
            calls.extend((handler, (owner, *args)) for handler in self._events.of(name))
        return calls

    def _count(self, call: HookCall, exc: BaseException) -> None:
        if call.done is None:  # otherwise whoever waits for the hook gets the error
            self.failed += 1
            self._report(call, exc)


class NoHooks:
    """The hooks of what has none and still asks for jobs: a runner. See `workerbus.abc.HookSink`."""

    def wants(self, name: str) -> bool:
        return False

    def add(self, call: HookCall, *, system: bool, counted: bool = False) -> None:
        """Do nothing: it is not called, since nothing is wanted."""

    def add_last(self, call: HookCall, barrier: Barrier | None, *, system: bool) -> None:
        """Do nothing: it is not called, since nothing is wanted."""


def _of_a_job(call: HookCall) -> bool:
    """Whether a hook is run for a job under way, one that the worker does or one that it has asked for."""
    return call.name.startswith("on_job_") or (call.name == "on_bus_message" and type(call.cause) in FROM_JOBS)


def _mark(
    event: Event, lane: Lane[HookCall], passed: Callable[[Lane[HookCall]], None]
) -> Callable[[BaseException | None], None]:
    def done(_: BaseException | None) -> None:
        passed(lane)
        event.set()

    return done


def _hook_doing(worker: str, hook: str) -> Doing:
    return Doing(f"{hook} of worker {worker!r}", worker)
