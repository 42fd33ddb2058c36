"""Runners that leave the signals alone."""

from typing import Any

from workerbus import WorkerBus, WorkerRunner


def quiet_runner(**kwargs: Any) -> WorkerRunner:
    return WorkerRunner(handle_sigint=False, **kwargs)


def runner_on(bus: WorkerBus, name: str, **kwargs: Any) -> WorkerRunner:
    return WorkerRunner(bus=bus, name=name, handle_sigint=False, **kwargs)
