"""N: names, parameters, both forms of a hook, and what was taken over from later versions."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, cast

import anyio
import pytest

import workerbus
from support.conditions import eventually
from support.messages import Alarm, Note
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import (
    AsyncQueueBus,
    BaseWorker,
    BusDataMessage,
    BusEndMessage,
    BusFrameMessage,
    BusJobRequestMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    JobStatus,
    MemoryBus,
    PipelineRunner,
    WorkerActivationArgs,
    WorkerParams,
    WorkerRunner,
    bus_message,
    job,
)


def words(text: str) -> list[str]:
    return text.split()


NAMES = words("""
    WorkerRunner BaseWorker WorkerParams WorkerActivationArgs WorkerBus BusSubscriber WorkerRegistry WorkerReadyData
    WorkerErrorData WorkerRegistryEntry JobStatus JobGroup JobContext JobGroupContext JobEvent JobGroupEvent
    JobGroupResponse JobError JobGroupError job worker_ready PipelineRunner MemoryBus JobFailure bus_message
    AsyncQueueBus BusMessage BusDataMessage BusSystemMessage BusLocalMessage BusActivateWorkerMessage
    BusAddWorkerMessage BusWorkerErrorMessage BusWorkerLocalErrorMessage BusWorkerReadyMessage
    BusWorkerRegistryMessage BusCancelWorkerMessage BusCancelMessage BusDeactivateWorkerMessage BusEndWorkerMessage
    BusEndMessage BusFrameMessage BusTTSSpeakMessage BusJobCancelMessage BusJobRequestMessage BusJobResponseMessage
    BusJobResponseUrgentMessage BusJobStreamDataMessage BusJobStreamEndMessage BusJobStreamStartMessage
    BusJobUpdateMessage BusJobUpdateRequestMessage BusJobUpdateUrgentMessage BusBridgeProcessor PipelineWorker
""")

DATA, SYSTEM, LOCAL = BusDataMessage, BusSystemMessage, BusLocalMessage

MESSAGES: dict[str, tuple[tuple[type, ...], Callable[..., object]]] = {
    "BusMessage": ((), lambda *, source, target=None: 0),
    "BusDataMessage": ((BusMessage,), lambda *, source, target=None: 0),
    "BusSystemMessage": ((BusMessage,), lambda *, source, target=None: 0),
    "BusActivateWorkerMessage": ((DATA,), lambda args=None, *, source, target=None: 0),
    "BusAddWorkerMessage": ((SYSTEM, LOCAL), lambda worker, *, source, target=None: 0),
    "BusWorkerErrorMessage": ((SYSTEM,), lambda error, *, source, target=None: 0),
    "BusWorkerLocalErrorMessage": ((SYSTEM, LOCAL), lambda error, *, source, target=None: 0),
    "BusWorkerReadyMessage": (
        (DATA,),
        lambda runner, parent=None, active=False, bridged=False, started_at=None, *, source, target=None: 0,
    ),
    "BusWorkerRegistryMessage": ((SYSTEM,), lambda runner, workers, *, source, target=None: 0),
    "BusCancelWorkerMessage": ((SYSTEM,), lambda reason=None, *, source, target=None: 0),
    "BusCancelMessage": ((SYSTEM,), lambda reason=None, *, source, target=None: 0),
    "BusDeactivateWorkerMessage": ((DATA,), lambda *, source, target=None: 0),
    "BusEndWorkerMessage": ((DATA,), lambda reason=None, *, source, target=None: 0),
    "BusEndMessage": ((DATA,), lambda reason=None, *, source, target=None: 0),
    "BusFrameMessage": ((DATA,), lambda frame, direction, bridge=None, *, source, target=None: 0),
    "BusTTSSpeakMessage": ((DATA,), lambda text, append_to_context=None, *, source, target=None: 0),
    "BusJobCancelMessage": ((SYSTEM,), lambda job_id, reason=None, *, source, target=None: 0),
    "BusJobRequestMessage": ((DATA,), lambda job_id, job_name=None, payload=None, *, source, target=None: 0),
    "BusJobResponseMessage": ((DATA,), lambda job_id, status, response=None, *, source, target=None: 0),
    "BusJobResponseUrgentMessage": ((SYSTEM,), lambda job_id, status, response=None, *, source, target=None: 0),
    "BusJobStreamDataMessage": ((DATA,), lambda job_id, data=None, *, source, target=None: 0),
    "BusJobStreamEndMessage": ((DATA,), lambda job_id, data=None, *, source, target=None: 0),
    "BusJobStreamStartMessage": ((DATA,), lambda job_id, data=None, *, source, target=None: 0),
    "BusJobUpdateMessage": ((DATA,), lambda job_id, update=None, *, source, target=None: 0),
    "BusJobUpdateRequestMessage": ((DATA,), lambda job_id, *, source, target=None: 0),
    "BusJobUpdateUrgentMessage": ((SYSTEM,), lambda job_id, update=None, *, source, target=None: 0),
}

CLASSES: dict[str, Callable[..., object]] = {
    "WorkerRunner": lambda *, name=None, bus=None, handle_sigint=True, handle_sigterm=False, force_gc=False: 0,
    "BaseWorker": lambda name=None, *, active=True: 0,
    "WorkerActivationArgs": lambda metadata=None: 0,
    "WorkerRegistry": lambda runner_name: 0,
    "BusBridgeProcessor": (lambda *, bus, worker_name, target_task=None, bridge=None, exclude_frames=None: 0),
    "WorkerRegistryEntry": lambda name, parent=None, active=False, bridged=False, started_at=None: 0,
}

COMPLETED = JobStatus.COMPLETED
ASYNC_METHODS: dict[str, Callable[..., object]] = {
    "WorkerRunner.add_workers": lambda self, *workers: 0,
    "WorkerRunner.run": lambda self, worker=None, *, auto_end=True: 0,
    "WorkerRunner.stop_when_done": lambda self: 0,
    "WorkerRunner.end": lambda self, reason=None: 0,
    "WorkerRunner.cancel": lambda self, reason=None: 0,
    "WorkerRunner.on_bus_message": lambda self, message: 0,
    "WorkerBus.start": lambda self: 0,
    "WorkerBus.stop": lambda self: 0,
    "WorkerBus.subscribe": lambda self, subscriber: 0,
    "WorkerBus.unsubscribe": lambda self, subscriber: 0,
    "WorkerBus.send": lambda self, message: 0,
    "WorkerBus.publish": lambda self, message: 0,
    "MemoryBus.publish": lambda self, message: 0,
    "BusSubscriber.on_bus_message": lambda self, message: 0,
    "WorkerRegistry.watch": lambda self, worker_name, handler: 0,
    "WorkerRegistry.register": lambda self, worker_data: 0,
    "BaseWorker.attach": lambda self, *, registry, bus: 0,
    "BaseWorker.cleanup": lambda self: 0,
    "BaseWorker.run": lambda self, params: 0,
    "BaseWorker.start": lambda self: 0,
    "BaseWorker.stop": lambda self: 0,
    "BaseWorker.end": lambda self, *, reason=None: 0,
    "BaseWorker.cancel": lambda self, *, reason=None: 0,
    "BaseWorker.wait": lambda self: 0,
    "BaseWorker.on_activated": lambda self, args: 0,
    "BaseWorker.on_deactivated": lambda self: 0,
    "BaseWorker.on_worker_ready": lambda self, data: 0,
    "BaseWorker.on_worker_failed": lambda self, data: 0,
    "BaseWorker.on_bus_message": lambda self, message: 0,
    "BaseWorker.on_job_request": lambda self, message: 0,
    "BaseWorker.on_job_response": lambda self, message: 0,
    "BaseWorker.on_job_update": lambda self, message: 0,
    "BaseWorker.on_job_update_requested": lambda self, message: 0,
    "BaseWorker.on_job_completed": lambda self, result: 0,
    "BaseWorker.on_job_error": lambda self, message: 0,
    "BaseWorker.on_job_stream_start": lambda self, message: 0,
    "BaseWorker.on_job_stream_data": lambda self, message: 0,
    "BaseWorker.on_job_stream_end": lambda self, message: 0,
    "BaseWorker.on_job_cancelled": lambda self, message: 0,
    "BaseWorker.send_bus_message": lambda self, message: 0,
    "BaseWorker.send_bus_error_message": lambda self, error: 0,
    "BaseWorker.add_workers": lambda self, *workers, watch=True: 0,
    "BaseWorker.activate_worker": lambda self, worker_name, *, args=None, deactivate_self=False: 0,
    "BaseWorker.deactivate_worker": lambda self, worker_name: 0,
    "BaseWorker.watch_workers": lambda self, *worker_names: 0,
    "BaseWorker.request_job": lambda self, worker_name, *, name=None, payload=None, timeout=None: 0,
    "BaseWorker.request_job_group": (
        lambda self, *worker_names, name=None, payload=None, timeout=None, cancel_on_error=True: 0
    ),
    "BaseWorker.cancel_job_group": lambda self, job_id, *, reason=None: 0,
    "BaseWorker.request_job_update": lambda self, job_id, worker_name: 0,
    "BaseWorker.create_job_group_and_request_job": (
        lambda self, worker_names, *, name=None, payload=None, timeout=None, cancel_on_error=True: 0
    ),
    "BaseWorker.send_job_response": lambda self, job_id, response=None, *, status=COMPLETED, urgent=False: 0,
    "BaseWorker.send_job_update": lambda self, job_id, update=None, *, urgent=False: 0,
    "BaseWorker.send_job_stream_start": lambda self, job_id, data=None: 0,
    "BaseWorker.send_job_stream_data": lambda self, job_id, data=None: 0,
    "BaseWorker.send_job_stream_end": lambda self, job_id, data=None: 0,
}
SYNC_METHODS: dict[str, Callable[..., object]] = {
    "WorkerBus.on_message_received": lambda self, message: 0,
    "WorkerRegistry.get": lambda self, worker_name: 0,
    "WorkerActivationArgs.to_dict": lambda self: 0,
    "BaseWorker.job": lambda self, worker_name, *, name=None, payload=None, timeout=None: 0,
    "BaseWorker.job_group": (
        lambda self, *worker_names, name=None, payload=None, timeout=None, cancel_on_error=True: 0
    ),
    "BaseWorker.accepts_bus_message": lambda self, message: 0,
    "WorkerRunner.get_worker": lambda self, name: 0,
}
PROPERTIES = words("""
    WorkerRunner.registry WorkerRegistry.runner_name WorkerRegistry.local_workers WorkerRegistry.remote_workers
    BusSubscriber.name BaseWorker.name BaseWorker.bus BaseWorker.active BaseWorker.activation_args BaseWorker.parent
    BaseWorker.registry BaseWorker.started_at BaseWorker.bridged BaseWorker.children BaseWorker.active_jobs
    BaseWorker.job_groups BaseWorker.worker_runner
""")

HOOKS = words("""
    on_activated on_deactivated on_worker_ready on_worker_failed on_job_request on_job_response on_job_update
    on_job_update_requested on_job_completed on_job_error on_job_stream_start on_job_stream_data on_job_stream_end
    on_job_cancelled on_bus_message
""")

Shape = list[tuple[str, inspect._ParameterKind, object]]


def shapes(promised: Callable[..., object], ours: Callable[..., object]) -> tuple[Shape, Shape]:
    """Return the promised parameters, and ours without what was added after them with a default."""
    wanted = inspect.signature(promised).parameters
    added_first = True
    found: Shape = []
    for parameter in reversed(list(inspect.signature(ours).parameters.values())):
        extra = parameter.name not in wanted and parameter.default is not parameter.empty
        if extra and (added_first or parameter.kind is parameter.KEYWORD_ONLY):
            continue
        if parameter.kind is not parameter.KEYWORD_ONLY:
            added_first = False
        found.append((parameter.name, parameter.kind, parameter.default))
    return [(p.name, p.kind, p.default) for p in wanted.values()], found[::-1]


def member(path: str) -> Any:
    owner, name = path.split(".")
    return inspect.getattr_static(getattr(workerbus, owner), name)


@pytest.mark.parametrize("name", NAMES)
def test_every_promised_name_is_importable_from_the_package(name: str) -> None:
    """N1: the public names are the seeds'."""
    assert hasattr(workerbus, name)
    assert name in workerbus.__all__


def test_a_star_import_brings_no_module_along() -> None:
    """N1: the public names are classes, functions and constants, so that ``import *`` shadows no module."""
    assert not [name for name in workerbus.__all__ if inspect.ismodule(getattr(workerbus, name))]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_the_fields_of_the_seeds_in_their_order(name: str) -> None:
    """N1: parameters and their order."""
    promised, found = shapes(MESSAGES[name][1], getattr(workerbus, name))
    assert found == promised


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_the_bases_of_the_seeds(name: str) -> None:
    """N1: the bases say the lane, and who stays local."""
    cls = getattr(workerbus, name)
    bases = MESSAGES[name][0]
    assert all(issubclass(cls, base) for base in bases)
    assert issubclass(cls, BusLocalMessage) is (LOCAL in bases)
    assert not (issubclass(cls, DATA) and issubclass(cls, SYSTEM))


def test_what_is_left_of_the_deadline_is_the_last_field_of_a_request() -> None:
    """J6, N1: ``seconds_left`` comes after the fields of the seeds."""
    message = BusJobRequestMessage("id", "name", {"n": 1}, 2.5, source="a")
    assert message.seconds_left == 2.5


def test_since_when_a_frame_is_late_is_the_last_field_of_its_message() -> None:
    """P3, N1: ``late_since`` comes after the fields of the seeds."""
    message = BusFrameMessage("frame", "direction", "bridge", 2.5, source="a")
    assert message.late_since == 2.5
    assert BusFrameMessage("frame", "direction", "bridge", source="a").late_since is None


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_built_with_the_parameters_of_the_seeds(name: str) -> None:
    """N1: parameters and their order."""
    promised, found = shapes(CLASSES[name], getattr(workerbus, name))
    assert found == promised


@pytest.mark.parametrize("path", ASYNC_METHODS)
def test_an_async_method_has_the_parameters_of_the_seeds(path: str) -> None:
    """N1: parameters and their order."""
    promised, found = shapes(ASYNC_METHODS[path], member(path))
    assert found == promised
    assert inspect.iscoroutinefunction(member(path))


@pytest.mark.parametrize("path", SYNC_METHODS)
def test_a_plain_method_has_the_parameters_of_the_seeds(path: str) -> None:
    """N1: parameters and their order."""
    promised, found = shapes(SYNC_METHODS[path], member(path))
    assert found == promised
    assert not inspect.iscoroutinefunction(member(path))


@pytest.mark.parametrize("path", PROPERTIES)
def test_a_property_of_the_seeds_is_a_property(path: str) -> None:
    """N1: names."""
    assert isinstance(member(path), property)


def test_activation_arguments_ignore_unknown_keys_and_leave_out_none() -> None:
    """N1: `from_dict` and `to_dict` as in the seeds, of subclasses too."""
    assert WorkerActivationArgs.from_dict({"metadata": {"a": 1}, "other": 2}).to_dict() == {"metadata": {"a": 1}}
    assert WorkerActivationArgs().to_dict() == {}


def test_the_deprecated_runner_warns_and_is_a_runner() -> None:
    """N1: `PipelineRunner` is a deprecated alias."""
    with pytest.warns(DeprecationWarning, match="WorkerRunner"):
        runner = PipelineRunner(name="r", handle_sigint=False)
    assert isinstance(runner, WorkerRunner)
    assert runner.name == "r"


async def test_running_a_worker_directly_is_deprecated_but_works() -> None:
    """N1: ``run(worker)`` is the seeds' deprecated form."""

    class Brief(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()

    worker = Brief("brief")
    with pytest.warns(DeprecationWarning, match="add_workers"):
        await WorkerRunner(handle_sigint=False).run(worker)
    assert worker.started_at is not None


@pytest.mark.parametrize("name", [*CLASSES, "WorkerParams", "MemoryBus"])
def test_nothing_takes_a_loop(name: str) -> None:
    """N2: there is no ``loop`` and no task manager anywhere."""
    parameters = inspect.signature(getattr(workerbus, name)).parameters
    assert not {"loop", "task_manager"} & set(parameters)


async def test_a_worker_runs_in_what_its_parameters_carry() -> None:
    """N2: `WorkerParams` carries what the runner gives a worker to run in."""
    ran = anyio.Event()

    class Starter(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            params.task_group.start_soon(self.work)
            await super().run(params)

        async def work(self) -> None:
            ran.set()

    async with running(Starter("starter")):
        await ran.wait()


def test_the_bus_of_one_process_has_two_names() -> None:
    """N2: `MemoryBus`, also exported as `AsyncQueueBus`."""
    assert AsyncQueueBus is MemoryBus


class Recorder(BaseWorker):
    """Keeps the calls of its hooks, by the form of the hook."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: dict[tuple[str, str], list[tuple[Any, ...]]] = {}

    def note(self, form: str, hook: str, args: tuple[Any, ...]) -> None:
        self.calls.setdefault((form, hook), []).append(args)

    def listen(self) -> None:
        for hook in HOOKS:
            self.add_event_handler(hook, self.sync_handler(hook))
            self.event_handler(hook)(self.async_handler(hook))

    def sync_handler(self, hook: str) -> Callable[..., None]:
        return lambda emitter, *args: emitter.note("sync", hook, args)

    def async_handler(self, hook: str) -> Callable[..., Coroutine[Any, Any, None]]:
        async def handler(emitter: Recorder, *args: Any) -> None:
            await anyio.lowlevel.checkpoint()
            emitter.note("async", hook, args)

        return handler


def _override(hook: str) -> Callable[..., Coroutine[Any, Any, None]]:
    async def method(self: Recorder, *args: Any) -> None:
        await getattr(super(cast(Any, Overridden), self), hook)(*args)
        self.note("method", hook, args)

    return method


Overridden = cast(type[Recorder], type("Overridden", (Recorder,), {hook: _override(hook) for hook in HOOKS}))


class Peer(Helper):
    """Does for the recorder what makes its hooks run."""

    @job(name="talk")
    async def talk(self, message: BusJobRequestMessage) -> None:
        await self.send_job_update(message.job_id, {"half": True})
        await self.send_job_stream_start(message.job_id, {"parts": 1})
        await self.send_job_stream_data(message.job_id, {"part": 1})
        await self.send_job_stream_end(message.job_id, {"end": True})


async def run_every_hook(hub: Recorder, form: str) -> None:
    """Do what makes each hook of the hub run, and wait until it has."""

    def seen(hook: str) -> Callable[[], object]:
        return lambda: (form, hook) in hub.calls

    peer, child = Peer("peer"), Helper("child")
    async with running(hub, peer):
        await eventually(seen("on_activated"))
        await eventually(seen("on_worker_ready"))
        await hub.add_workers(child)
        await child.send_bus_error_message("the child says so")
        await eventually(seen("on_worker_failed"))
        job_id = await peer.request_job("hub")
        await eventually(seen("on_job_request"))
        await peer.request_job_update(job_id, "hub")
        await eventually(seen("on_job_update_requested"))
        await peer.cancel_job_group(job_id)
        await eventually(seen("on_job_cancelled"))
        await hub.request_job("peer", name="talk")
        for hook in ("on_job_update", "on_job_stream_start", "on_job_stream_data", "on_job_stream_end"):
            await eventually(seen(hook))
        await hub.request_job("peer", name="echo")
        await eventually(seen("on_job_response"))
        await eventually(seen("on_job_completed"))
        await hub.request_job("peer", name="fail")
        await eventually(seen("on_job_error"))
        await peer.deactivate_worker("hub")
        await eventually(seen("on_deactivated"))


async def test_every_hook_is_an_overridable_method() -> None:
    """N3: also with ``await super().on_…()`` in it, as the seeds want it."""
    hub = Overridden("hub")
    await run_every_hook(hub, "method")
    assert {hook for _, hook in hub.calls} == set(HOOKS)


async def test_every_hook_is_an_event_of_the_same_name() -> None:
    """N3: the handler, sync or async, is called with the emitter first."""
    hub = Recorder("hub")
    hub.listen()
    await run_every_hook(hub, "async")
    assert {hook for form, hook in hub.calls if form == "async"} == set(HOOKS)


async def test_event_handlers_get_what_the_method_gets() -> None:
    """N3: both forms of a hook are called, with the same arguments."""
    hub = Overridden("hub")
    hub.listen()
    await run_every_hook(hub, "async")
    await eventually(lambda: len(hub.calls) == 3 * len(HOOKS))
    for hook in HOOKS:
        method, sync, asynchronous = (sorted(map(repr, hub.calls[form, hook])) for form in ("method", "sync", "async"))
        assert method == sync == asynchronous, hook


async def test_an_event_handler_added_while_the_worker_runs_is_called() -> None:
    """N3: as in the seeds, at any time."""
    worker = Helper("worker")
    got: list[BusMessage] = []
    async with running(worker) as runner:
        worker.add_event_handler("on_bus_message", lambda _worker, message: got.append(message))
        await runner.bus.send(Note(1, source="me", target="worker"))
        await eventually(lambda: got)
    assert got[0] == Note(1, source="me", target="worker")


async def test_an_event_handler_that_raises_stops_neither_the_others_nor_the_worker() -> None:
    """N3, W7: each handler is called, whatever the others raise."""
    worker = Helper("worker")
    got: list[BusMessage] = []

    @worker.event_handler("on_bus_message")
    def bad(_: BaseWorker, message: BusMessage) -> None:
        raise ValueError("no")

    @worker.event_handler("on_bus_message")
    def good(_: BaseWorker, message: BusMessage) -> None:
        if isinstance(message, Note):
            got.append(message)

    async with running(worker) as runner:
        for n in range(2):
            await runner.bus.send(Note(n, source="me", target="worker"))
        await eventually(lambda: len(got) == 2)


async def test_a_runner_has_its_two_events() -> None:
    """N3, seeds: ``on_ready``, and ``on_error`` with what went wrong."""
    calls: list[tuple[Any, ...]] = []
    worker = Helper("worker")
    runner = WorkerRunner(handle_sigint=False)
    runner.add_event_handler("on_ready", lambda *args: calls.append(args))

    @runner.event_handler("on_error")
    async def failed(*args: Any) -> None:
        calls.append(args)

    await runner.add_workers(worker)
    async with runner:
        await eventually(lambda: calls)
        await worker.send_bus_error_message("broken")
        await eventually(lambda: len(calls) == 2)
    assert calls[0] == (runner,)
    assert calls[1][0] is runner
    assert (calls[1][1].worker_name, calls[1][1].error) == ("worker", "broken")


async def test_a_runner_finds_its_workers_by_name() -> None:
    """N4: `get_worker`, of roots and of children; None for a stranger and for one that has finished."""
    parent, child = Helper("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        assert runner.get_worker("parent") is parent
        assert runner.get_worker("child") is child
        assert runner.get_worker("stranger") is None
        await child.stop()
        await eventually(lambda: runner.get_worker("child") is None)


async def test_a_worker_knows_its_runner() -> None:
    """N4: `worker_runner`."""
    parent, child = Helper("parent"), Helper("child")
    await parent.add_workers(child)
    async with running(parent) as runner:
        await runner.registry.wait_for("child")
        assert parent.worker_runner is runner
        assert child.worker_runner is runner


def test_a_worker_without_a_runner_says_so() -> None:
    """N4, W1."""
    with pytest.raises(RuntimeError, match="runner"):
        _ = Helper("helper").worker_runner


class Picky(Plain):
    """Refuses the messages that are in ``refused``."""

    refused: tuple[int, ...] = ()

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return not (isinstance(message, Note | Alarm) and message.n in self.refused)


async def test_a_refusal_concerns_the_one_who_refuses() -> None:
    """N4: a subscriber refuses a message for itself alone."""
    picky, plain = Picky("picky"), Plain("plain")
    picky.refused = (1,)
    async with MemoryBus() as bus:
        await bus.subscribe(picky)
        await bus.subscribe(plain)
        for n in range(3):
            await bus.send(Note(n, source="me"))
        await plain.until(3)
        await picky.until(2)
    assert picky.got == [Note(0, source="me"), Note(2, source="me")]


async def test_acceptance_is_asked_just_before_the_handling() -> None:
    """N4: what the subscriber says while a message waits counts, not what it said when it came."""
    entered, go_on = anyio.Event(), anyio.Event()

    async def on(message: BusMessage) -> None:
        if message == Note(0, source="me"):
            entered.set()
            await go_on.wait()

    picky = Picky("picky", on=on)
    async with MemoryBus() as bus:
        await bus.subscribe(picky)
        for n in range(3):
            await bus.send(Note(n, source="me"))
        await entered.wait()
        picky.refused = (1,)
        go_on.set()
        await picky.until(2)
    assert picky.got == [Note(0, source="me"), Note(2, source="me")]


class Choosy(Helper):
    """A worker that accepts what ``accept`` says."""

    def __init__(self, name: str, accept: Callable[[BusMessage], bool]) -> None:
        super().__init__(name)
        self.accept = accept
        self.got: list[BusMessage] = []

    def accepts_bus_message(self, message: BusMessage) -> bool:
        return self.accept(message)

    async def on_bus_message(self, message: BusMessage) -> None:
        self.got.append(message)


@pytest.mark.parametrize("kind", [Note, Alarm])
async def test_a_worker_refuses_a_message_before_its_own_handling_and_its_hooks(kind: type[Note] | type[Alarm]) -> None:
    """N4: asked just before handling, for workers too."""
    worker = Choosy("worker", lambda message: message != kind(1, source="me", target="worker"))
    async with running(worker) as runner:
        for n in range(3):
            await runner.bus.send(kind(n, source="me", target="worker"))
        await eventually(lambda: len(worker.got) >= 2)
    assert [message.n for message in worker.got if isinstance(message, Note | Alarm)] == [0, 2]


async def test_a_worker_that_refuses_a_stranger_still_does_jobs_for_others() -> None:
    """N4: one message is refused, not the sender's lane."""
    worker = Choosy("worker", lambda message: message.source != "stranger")
    async with running(worker) as runner:
        await runner.bus.send(Note(1, source="stranger", target="worker"))
        response = await runner.job("worker", name="echo")
    assert response["worker"] == "worker"


async def test_a_worker_that_refuses_everything_still_ends() -> None:
    """N4, R2: a refusal does not keep a runner from ending; after the grace period the worker is cancelled."""
    worker = Choosy("worker", lambda message: False)
    async with running(worker, grace_period=0.05):
        pass
    assert worker.got == []


async def test_a_runner_can_refuse_a_message() -> None:
    """N4: a runner is a subscriber too."""

    class Stubborn(WorkerRunner):
        def accepts_bus_message(self, message: BusMessage) -> bool:
            return message.source != "stranger"

    async with Stubborn(handle_sigint=False) as runner:
        await runner.add_workers(Helper("helper"))
        await runner.bus.send(BusEndMessage(source="stranger"))
        await anyio.wait_all_tasks_blocked()
        response = await runner.job("helper", name="echo", timeout=1)
    assert response["worker"] == "helper"


async def test_a_job_carries_its_label() -> None:
    """N4: ``label=`` on every way to ask for a job."""
    asker, helper = Helper("asker"), Helper("helper")
    async with running(asker, helper):
        first = await asker.request_job("helper", name="wait", label="one")
        second = await asker.request_job_group("helper", name="wait", label="two")
        third = await asker.create_job_group_and_request_job(["helper"], name="wait", label="three")
        assert [asker.job_groups[each].label for each in (first, second, third.job_id)] == ["one", "two", "three"]
        async with asker.job("helper", name="wait", label="four") as context:
            assert asker.job_groups[context.job_id].label == "four"
            helper.release.set()
        async with asker.job_group("helper", name="wait", label="five") as group:
            assert asker.job_groups.get(group.job_id) is None or asker.job_groups[group.job_id].label == "five"


async def test_a_job_that_is_not_cancellable_refuses_a_request_to_cancel_it() -> None:
    """N4: `request_cancel_job_group` asks; `cancel_job_group` is the requester's own and is never refused."""
    asker, helper = Helper("asker"), Helper("helper")
    async with running(asker, helper):
        job_id = await asker.request_job("helper", name="wait", cancellable=False)
        await helper.begun.wait()
        assert await asker.request_cancel_job_group(job_id) is False
        assert job_id in asker.job_groups
        assert job_id in helper.active_jobs
        await asker.cancel_job_group(job_id)
        await helper.unwound.wait()


async def test_a_cancellable_job_is_cancelled_on_request() -> None:
    """N4: jobs are cancellable by default; an unknown id is False."""
    asker, helper = Helper("asker"), Helper("helper")
    async with running(asker, helper):
        job_id = await asker.request_job("helper", name="wait")
        await helper.begun.wait()
        assert await asker.request_cancel_job_group(job_id, reason="a click") is True
        await helper.unwound.wait()
        assert await asker.request_cancel_job_group("unknown") is False


@bus_message
class Letter(BusDataMessage):
    """An own message."""

    text: str
    copies: int = 1


class Greeting(Letter):
    """An own message without fields of its own."""


async def test_the_same_object_reaches_every_subscriber() -> None:
    """N5: one object for all."""
    first, second = Plain("first"), Plain("second")
    message = Letter("hello", source="me")
    async with MemoryBus() as bus:
        await bus.subscribe(first)
        await bus.subscribe(second)
        await bus.send(message)
        await first.until(1)
        await second.until(1)
    assert first.got[0] is second.got[0] is message


@pytest.mark.parametrize(
    "message",
    [
        Letter("hello", source="me"),
        Greeting("hello", source="me"),
        BusEndMessage(source="me"),
        BusJobRequestMessage("1", source="me"),
    ],
)
def test_a_message_cannot_be_changed(message: BusMessage) -> None:
    """N5: nobody can change it for another, neither a field nor by adding one."""
    for name in ("source", "target", "anything"):
        with pytest.raises(AttributeError):
            setattr(message, name, "else")
    with pytest.raises(AttributeError):
        del message.source
    assert message.source == "me"


def test_an_own_message_has_its_fields_by_position_and_the_addresses_by_keyword() -> None:
    """N5: as the library's own messages."""
    letter = Letter("hello", 2, source="me", target="you")
    assert (letter.text, letter.copies, letter.source, letter.target) == ("hello", 2, "me", "you")
    with pytest.raises(TypeError):
        Letter("hello")  # type: ignore[call-arg]  # no source


async def test_an_own_message_chooses_its_lane_by_its_base() -> None:
    """N5: a subclass of `BusSystemMessage` goes before one of `BusDataMessage`."""

    @bus_message
    class Urgent(BusSystemMessage):
        text: str

    plain = Plain("plain")
    bus = MemoryBus()
    await bus.subscribe(plain)
    await bus.send(Letter("slow", source="me"))
    await bus.send(Urgent("fast", source="me"))
    async with bus:
        await plain.until(2)
    assert [type(message) for message in plain.got] == [Urgent, Letter]


def test_own_fields_without_the_decorator_are_refused_by_its_name() -> None:
    """N5: a `TypeError` that names the decorator."""

    class Bare(BusDataMessage):
        text: str

    class Deeper(Letter):
        extra: int = 0

    with pytest.raises(TypeError, match="bus_message"):
        Bare(source="me")
    with pytest.raises(TypeError, match="bus_message"):
        Deeper("hello", source="me")


def test_the_refusal_names_the_class_that_lacks_the_decorator() -> None:
    """N5: also where a class derives from it; a decorated one is refused where it is declared."""

    class Bare(BusDataMessage):
        text: str

    class Heir(Bare):
        pass

    with pytest.raises(TypeError, match="class Bare"):
        Heir(source="w")
    with pytest.raises(TypeError, match="class Bare"):

        @bus_message
        class Decorated(Bare):
            extra: int = 0


def test_a_message_class_may_have_a_constructor_of_its_own() -> None:
    """N5: it calls the one that attrs has made."""

    @bus_message
    class Warm(BusDataMessage):
        celsius: float

        def __init__(self, fahrenheit: float, *, source: str) -> None:
            self.__attrs_init__((fahrenheit - 32) / 1.8, source=source)  # type: ignore[attr-defined]  # attrs makes it

    assert Warm(212, source="w").celsius == 100


def test_a_message_needs_a_lane() -> None:
    """N5: an own message is a subclass of `BusDataMessage` or of `BusSystemMessage`, and of one of them."""

    class Laneless(BusMessage):
        text: str

    class Both(BusDataMessage, BusSystemMessage):
        text: str

    class Neither:
        text: str

    for cls in (Laneless, Both, Neither):
        with pytest.raises(TypeError, match="BusDataMessage"):
            bus_message(cls)


@pytest.mark.parametrize("thing", [BusMessage(source="me"), "text", None])
async def test_only_messages_with_a_lane_can_be_sent(thing: object) -> None:
    """N5: anything else is a `TypeError`."""
    async with MemoryBus() as bus:
        with pytest.raises(TypeError, match="BusDataMessage"):
            await bus.send(cast(BusMessage, thing))
