"""The metrics: durations (see `_durations`), and what `runner.statistics()` has, when a reader asks (O2, O3)."""

from collections.abc import Callable, Iterable, Iterator
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from workerbus.otel._durations import Durations
from workerbus.otel._names import Names
from workerbus.runner._runner import WorkerRunner
from workerbus.runner._statistics import RunnerStatistics

_Values = Callable[[RunnerStatistics], Iterator[tuple[float, dict[str, str]]]]


class Meters:
    """The instruments of one provider, and the runners that they look at.

    Args:
        meter: Makes the instruments; a name is made once for each provider.

    Attributes:
        runners: The runners, each with how many instrumentations of it there are.
    """

    def __init__(self, meter: Meter) -> None:
        self.durations: Durations = Durations(meter)
        self.runners: WeakKeyDictionary[WorkerRunner, int] = WeakKeyDictionary()
        counter, gauge = meter.create_observable_counter, meter.create_observable_gauge
        counter(Names.ANSWERED, [self._observe(_answered)], "{job}", "Requests that were answered.")
        counter(Names.RESTARTS, [self._observe(_restarts)], "{restart}", "Restarts of supervised workers.")
        counter(Names.HOOKS_FAILED, [self._observe(_hooks_failed)], "{hook}", "Hooks that have raised.")
        counter(Names.RECONNECTS, [self._observe(_connections_lost)], "{connection}", "Connections that were lost.")
        counter(Names.STALLS, [self._observe(_stalls)], "{stall}", "Times that the event loop stood still.")
        gauge(Names.LAG, [self._observe(_lag)], "s", "How late the event loop was.")
        gauge(Names.DEPTH, [self._observe(_depths)], "{message}", "What waits in the lanes of workers.")

    def add(self, runner: WorkerRunner) -> None:
        """Look at a runner for one more instrumentation."""
        self.runners[runner] = self.runners.get(runner, 0) + 1

    def remove(self, runner: WorkerRunner) -> None:
        """Look at a runner for one instrumentation less, and no more with the last."""
        left = self.runners.pop(runner, 1) - 1
        if left:
            self.runners[runner] = left

    def _observe(self, values: _Values) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            observed: list[Observation] = []
            for runner in tuple(self.runners):
                # As a rule a reader asks in a thread of its own: a worker may come or go meanwhile.
                try:
                    seen = list(values(runner.statistics(jobs=False)))
                except RuntimeError:
                    continue
                same = {Names.SYSTEM: "workerbus", Names.RUNNER: runner.name}
                observed += [Observation(number, {**same, **attributes}) for number, attributes in seen]
            return observed

        return observe


def _answered(seen: RunnerStatistics) -> Iterator[tuple[float, dict[str, str]]]:
    for status, number in seen.jobs_answered.items():
        yield number, {Names.STATUS: str(status)}


def _restarts(seen: RunnerStatistics) -> Iterator[tuple[float, dict[str, str]]]:
    yield seen.restarts, {}


def _hooks_failed(seen: RunnerStatistics) -> Iterator[tuple[float, dict[str, str]]]:
    yield seen.hooks_failed, {}


def _connections_lost(seen: RunnerStatistics) -> Iterator[tuple[float, dict[str, str]]]:
    lost = getattr(seen.bus, "connections_lost", None)
    if lost is not None:
        yield lost, {}


def _stalls(seen: RunnerStatistics) -> Iterator[tuple[float, dict[str, str]]]:
    if seen.loop is not None:
        yield seen.loop.stalls, {}


def _lag(seen: RunnerStatistics) -> Iterator[tuple[float, dict[str, str]]]:
    if seen.loop is not None:
        yield seen.loop.lag, {}


def _depths(seen: RunnerStatistics) -> Iterator[tuple[float, dict[str, str]]]:
    for worker in seen.workers.values():
        for lane, waiting in worker.lanes.items():
            yield waiting, {Names.DESTINATION: worker.name, Names.LANE: lane}


_meters: "WeakKeyDictionary[MeterProvider, Meters]" = WeakKeyDictionary()


def meters_of(provider: MeterProvider, version: str) -> Meters:
    """Return the instruments of a provider, which are made once."""
    meters = _meters.get(provider)
    if meters is None:
        meters = _meters[provider] = Meters(provider.get_meter("workerbus", version))
    return meters
