"""N1, N2: names, parameters and their order."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import workerbus
from workerbus import (
    AsyncQueueBus,
    BusDataMessage,
    BusFrameMessage,
    BusJobRequestMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    JobStatus,
    MemoryBus,
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


def test_since_when_a_frame_is_late_and_where_are_the_last_fields_of_its_message() -> None:
    """P3, N1: ``late_since`` and ``process`` come after the fields of the seeds."""
    message = BusFrameMessage("frame", "direction", "bridge", 2, "process", source="a")
    assert (message.late_since, message.process) == (2, "process")
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


@pytest.mark.parametrize("name", [*CLASSES, "WorkerParams", "MemoryBus"])
def test_nothing_takes_a_loop(name: str) -> None:
    """N2: there is no ``loop`` and no task manager anywhere."""
    parameters = inspect.signature(getattr(workerbus, name)).parameters
    assert not {"loop", "task_manager"} & set(parameters)


def test_the_bus_of_one_process_has_two_names() -> None:
    """N2: `MemoryBus`, also exported as `AsyncQueueBus`."""
    assert AsyncQueueBus is MemoryBus
