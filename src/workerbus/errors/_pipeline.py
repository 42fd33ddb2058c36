"""What is wrong with frames, processors and pipelines (P1, P6)."""

from collections.abc import Iterable

from workerbus.errors._base import WorkerBusError


class FrameTypeError(WorkerBusError, TypeError):
    """A class of frames was declared in a way that cannot work.

    Guarantees: P1.
    """


class ProcessorInUseError(WorkerBusError, ValueError):
    """A processor or a pipeline was used in two places.

    Attributes:
        name: The name of the processor or pipeline.

    Guarantees: P1.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} stands in a pipeline already: it has one place, so make another object")
        self.name = name


class PipelineStartTimeoutError(WorkerBusError, TimeoutError):
    """A pipeline has not started in time: ``setup()`` of a processor hangs, or one does not push the `StartFrame` on.

    Attributes:
        worker_name: The name of the worker.
        processors: The names of the processors that it waits for.
        seconds: How long it has waited, in seconds.

    Guarantees: P6.
    """

    def __init__(self, worker_name: str, processors: Iterable[str], seconds: float, *, setting_up: bool) -> None:
        self.worker_name: str = worker_name
        self.processors: tuple[str, ...] = tuple(processors)
        self.seconds: float = seconds
        names = ", ".join(map(repr, self.processors))
        if setting_up:
            text = f"setup() of processor {names} has not returned; a slow one is given more time by setup_timeout_secs"
        else:
            text = f"processor {names} has not pushed the StartFrame on; start_timeout_secs gives it more time"
        super().__init__(f"the pipeline of worker {worker_name!r} has not started in {seconds:g} seconds: {text}")


class FlushError(WorkerBusError, RuntimeError):
    """A flush cannot finish: the pipeline was cancelled, or a handler would wait for itself.

    Guarantees: P6.
    """


class FlushTimeoutError(WorkerBusError, TimeoutError):
    """Frames that were queued before a flush have not come out in time.

    Attributes:
        worker_name: The name of the worker.
        processors: The names of the processors that are at work in its pipeline.
        seconds: The ``timeout``, in seconds.

    Guarantees: P6.
    """

    def __init__(self, worker_name: str, processors: Iterable[str], seconds: float) -> None:
        self.worker_name: str = worker_name
        self.processors: tuple[str, ...] = tuple(processors)
        self.seconds: float = seconds
        busy = ", ".join(map(repr, self.processors)) or "nobody here"
        super().__init__(
            f"what was queued at worker {worker_name!r} has not come out in {seconds:g} seconds; at work: {busy}"
        )
