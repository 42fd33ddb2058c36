"""`instrument`: what users call (O1, O2, X8)."""

import sys
from types import TracebackType
from typing import Self

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from workerbus.bus._bus import WorkerBus
from workerbus.otel._metrics import Meters, meters_of
from workerbus.otel._spans import TracingTap
from workerbus.runner._runner import WorkerRunner


class Instrumentation:
    """Tracing and metrics that `instrument` has started, until `remove` is called or its ``with`` block is left.

    Guarantees: O1, X8.
    """

    def __init__(self, bus: WorkerBus, runner: WorkerRunner | None, tap: TracingTap, meters: Meters) -> None:
        self._bus = bus
        self._runner = runner
        self._tap = tap
        self._meters = meters
        self._removed = False

    def remove(self) -> None:
        """Stop tracing and measuring. A second call does nothing."""
        if self._removed:
            return
        self._removed = True
        if self._runner is not None:
            self._meters.remove(self._runner)
        self._tap.users -= 1
        if not self._tap.users:
            self._bus.remove_tap(self._tap)
            self._tap.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


def instrument(
    runner_or_bus: WorkerRunner | WorkerBus,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Instrumentation:
    """Trace and measure the jobs on a bus, and measure a runner.

    Spans: ``job NAME`` or ``group NAME`` for the requester, ``send WORKER`` for each request, ``process WORKER`` for
    each run of a handler, all in one trace, over any number of processes. Their context travels in the ``headers`` of
    the job's messages, by the configured propagators (the W3C's by default). So every process has to be instrumented. A
    handler runs in the context of its span.

    Metrics: the names are in `Names`. Those that come from a runner's counts need the runner, not just its bus.

    Payloads are not exported; of errors, only the class is.

    Args:
        runner_or_bus: A runner or a bus, running or not. Several runners on one bus may each be instrumented; their
            jobs are traced once, with the providers of the first.
        tracer_provider: What makes tracers; by default the global one.
        meter_provider: What makes meters; by default the global one.

    Returns:
        The instrumentation, which can be removed again.

    Raises:
        TypeError: It is neither a runner nor a bus.

    Guarantees: O1, O3, X8.
    """
    runner = runner_or_bus if isinstance(runner_or_bus, WorkerRunner) else None
    bus = runner_or_bus if runner is None else runner.bus
    if not isinstance(bus, WorkerBus):
        raise TypeError(f"instrument takes a WorkerRunner or a WorkerBus, not {runner_or_bus!r}")
    version = str(sys.modules["workerbus"].__version__)
    meters = meters_of(meter_provider or metrics.get_meter_provider(), version)
    tap = next((each for each in bus.job_taps if isinstance(each, TracingTap)), None)
    if tap is None:
        tracer = (tracer_provider or trace.get_tracer_provider()).get_tracer("workerbus", version)
        tap = TracingTap(tracer, meters.durations)
        bus.add_tap(tap)
    tap.users += 1
    if runner is not None:
        meters.add(runner)
    return Instrumentation(bus, runner, tap, meters)
