"""Waits for workers: for those that are to come, to be ready, or to be made anew; and what restarts wait for."""

from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, Final

from workerbus._registry import WorkerRegistry
from workerbus.errors import describe, text_of
from workerbus.supervision._supervision import Supervision
from workerbus.supervision._unit import RestartUnit, Supervised
from workerbus.testing.diagnosis._primitives import Key, Wait, names_of
from workerbus.worker._core import core_of

Names = dict[str, Any]


def _runner_of(registry: WorkerRegistry) -> Any:
    """Return the runner of a registry; None where it has none."""
    runner = getattr(registry.on_departure, "__self__", None)
    return runner if hasattr(runner, "_hosted") else None


def late(registry: WorkerRegistry, name: str) -> str:
    """Say why a worker that runs is not ready."""
    runner = _runner_of(registry)
    worker = None if runner is None else runner.get_worker(name)
    session = None if worker is None else getattr(core_of(worker).extension, "session", None)
    running = None if session is None else session._running
    if running is None:
        return "its run() has begun, and has not called start()"
    unready = [inbox.name for inbox in running.inboxes if not inbox.set_up]
    if unready:
        return f"processor {unready[0]!r} is not set up"
    waiting = [inbox.name for inbox in running.inboxes if inbox.late_with_start]
    return f"the StartFrame was not pushed on by {names_of(waiting)}"


def arrival(frame: Names) -> Wait:
    """Return the wait for a worker to come."""
    name, registry = frame["worker_name"], frame["self"]
    restarted = _restarted(registry, name)
    if restarted is not None:
        return restarted
    runner = _runner_of(registry)
    for error in () if runner is None else runner._hosted.errors:
        if f"raised by worker {name!r}" in getattr(error, "__notes__", ()):
            return Wait(0, f"for worker {name!r} to come, which has failed: {type(error).__name__}: {text_of(error)}")
    return Wait(0, f"for worker {name!r} to come; {registry.near(name)}")


def _restarted(registry: WorkerRegistry, name: str) -> Wait | None:
    host = registry.restarting.get(name)
    if host is None:
        return None
    near = {} if registry.neighbourhood is None else registry.neighbourhood.registries
    runner = _runner_of(near.get(host, registry))
    child = None if runner is None or runner.name != host else _supervised(runner, name)
    if child is None:
        return Wait(1, f"for worker {name!r}, which is being restarted by runner {host!r}")
    error = child.error or child.before
    why = "" if error is None else f", as it has failed: {describe(error)}"
    on: tuple[Key, ...] = (("restart", name),)
    return Wait(1, f"for worker {name!r}, which is being restarted (restart {child.restarts + 1}){why}", on)


def _supervised(runner: Any, name: str) -> Supervised | None:
    return next((each for supervision in _supervisions(runner) if (each := supervision._children.get(name))), None)


def _supervisions(runner: Any) -> Iterator[Supervision]:
    yield from runner._hosted.supervisions.all
    for core in runner._hosted.workers.values():
        if core.state.supervises is not None:
            yield from core.state.supervises.all


# --- restarts

RESTART: Final = Supervision._restart_unit.__code__
"""What a task runs that restarts workers."""

RESTART_WAITS: Final[dict[CodeType, Callable[[Names], Wait]]] = {
    RESTART: lambda _: Wait(1, "for the time to pass after which it makes them anew"),
    Supervision._make.__code__: lambda frame: Wait(1, f"for the new worker {frame['child'].name!r} to be attached"),
    Supervised.bring_down.__code__: lambda frame: Wait(2, f"for worker {frame['self'].name!r} to finish"),
}


def restart_title(frame: Names) -> str:
    """Return what such a task is called."""
    unit: RestartUnit = frame["unit"]
    return f"the restart of {', '.join(repr(child.name) for child in unit.children)}"


def restart_keys(unit: RestartUnit) -> list[Key]:
    """Return what such a task can be found by: the names of those that it makes anew."""
    return [("restart", child.name) for child in unit.children]
