"""What a state has, as text that Prometheus reads (O2, O3, O9).

The names are those that OpenTelemetry's would get there, so that it is the same metric wherever it comes from. Counts
are told as counters, and only go up; of a runner that has started anew they begin anew, which Prometheus knows of.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from workerbus.runner._rows import Sections

KIND: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the text."""

Row = Mapping[str, Any]
Sample = tuple[Mapping[str, str], float]
STATUSES: Final = ("completed", "failed", "error", "cancelled")


class _Family(NamedTuple):
    """A metric.

    Attributes:
        name: Its name.
        kind: ``"counter"`` or ``"gauge"``.
        text: What it is.
        samples: Takes what it has of a row, given the labels of that.
    """

    name: str
    kind: str
    text: str
    samples: Callable[[Row, Mapping[str, str]], Iterable[Sample]]


def _field(name: str) -> Callable[[Row, Mapping[str, str]], Iterable[Sample]]:
    """Take a field, where the row has it."""

    def samples(row: Row, labels: Mapping[str, str]) -> Iterable[Sample]:
        if row.get(name) is not None:
            yield labels, float(row[name])

    return samples


def _answered(prefix: str) -> Callable[[Row, Mapping[str, str]], Iterable[Sample]]:
    def samples(row: Row, labels: Mapping[str, str]) -> Iterable[Sample]:
        return (({**labels, "status": each}, row[f"{prefix}{each}"]) for each in STATUSES)

    return samples


def _ready(row: Row, labels: Mapping[str, str]) -> Iterable[Sample]:
    yield labels, float(not row["not_ready"] and not row.get("silent"))


def _depths(row: Row, labels: Mapping[str, str]) -> Iterable[Sample]:
    return (({**labels, "lane": lane}, row[lane]) for lane in ("system", "data"))


def _of_pool(place: int) -> Callable[[Row, Mapping[str, str]], Iterable[Sample]]:
    def samples(row: Row, labels: Mapping[str, str]) -> Iterable[Sample]:
        if "pool" in row:
            yield labels, row["pool"][place]

    return samples


_OF_RUNNERS: Final = (
    _Family("workerbus_runner_ready", "gauge", "Whether the runner can take work.", _ready),
    _Family("workerbus_runner_live", "gauge", "Whether the runner works at all.", _field("live")),
    _Family("workerbus_runner_workers", "gauge", "Workers that it hosts.", _field("workers")),
    _Family("workerbus_job_answered_total", "counter", "Requests that were answered.", _answered("answered_")),
    _Family("workerbus_job_requested_total", "counter", "Requests that were sent.", _field("requested")),
    _Family("workerbus_job_in_flight", "gauge", "Jobs that are not answered.", _field("jobs")),
    _Family("workerbus_hook_failures_total", "counter", "Hooks that have raised.", _field("hooks_failed")),
    _Family("workerbus_worker_restarts_total", "counter", "Restarts of supervised workers.", _field("restarts")),
    _Family("workerbus_handler_slow_total", "counter", "Handlers that took long.", _field("slow_handlers")),
    _Family(
        "workerbus_job_waited_longer_total",
        "counter",
        "Jobs that have waited for longer than they have run.",
        _field("jobs_waited_longer"),
    ),
    _Family("workerbus_loop_stalls_total", "counter", "Times that the event loop stood still.", _field("loop_stalls")),
    _Family("workerbus_loop_lag_seconds", "gauge", "How late the event loop was.", _field("loop_lag")),
    _Family("workerbus_bus_messages_total", "counter", "Messages that were sent.", _field("sent")),
    _Family("workerbus_bus_undelivered_total", "counter", "Messages without a receiver.", _field("undelivered")),
    _Family("workerbus_bus_peers", "gauge", "Processes that it is connected with.", _field("peers")),
    _Family("workerbus_bus_unsent", "gauge", "Messages that are not stored yet.", _field("unsent")),
    _Family("workerbus_bus_lag", "gauge", "Messages that it has not read yet.", _field("lag")),
    _Family("workerbus_bus_gaps_total", "counter", "Times that messages were missing.", _field("gaps")),
    _Family("workerbus_bus_retries_total", "counter", "Batches that were written again.", _field("retries")),
    _Family("workerbus_bus_lives_total", "counter", "Lives that the bus has had.", _field("lives")),
    _Family(
        "workerbus_bus_connections_lost_total", "counter", "Connections that were lost.", _field("connections_lost")
    ),
)
_OF_WORKERS: Final = (
    _Family("workerbus_worker_active", "gauge", "Whether the worker is active.", _field("active")),
    _Family("workerbus_worker_job_in_flight", "gauge", "Jobs that it has not answered.", _field("jobs")),
    _Family("workerbus_worker_job_answered_total", "counter", "Requests that it has answered.", _answered("")),
    _Family("workerbus_worker_job_requested_total", "counter", "Requests that it has sent.", _field("requested")),
    _Family("workerbus_worker_hook_failures_total", "counter", "Its hooks that have raised.", _field("hooks_failed")),
    _Family("workerbus_lane_depth", "gauge", "What waits in its lanes.", _depths),
    _Family("workerbus_pool_size", "gauge", "Members that a pool is to have.", _of_pool(0)),
    _Family("workerbus_pool_waiting", "gauge", "Jobs that wait for a member.", _of_pool(1)),
)
OWN: Final = frozenset(family.name for family in (*_OF_RUNNERS, *_OF_WORKERS))
"""The names of all that is told here."""


def as_text(state: Sections) -> str:
    """Return what a state has, as Prometheus reads it."""
    runners = [({"runner": name}, row) for name, row in state["runners"].items()]
    workers = [({"runner": row["runner"], "worker": row["name"]}, row) for row in state["workers"].values()]
    lines: list[str] = []
    for families, rows in ((_OF_RUNNERS, runners), (_OF_WORKERS, workers)):
        for family in families:
            samples = [sample for labels, row in rows for sample in family.samples(row, labels)]
            lines.extend(_lines(family, samples))
    return "".join(f"{line}\n" for line in lines)


def _lines(family: _Family, samples: list[Sample]) -> Iterator[str]:
    if samples:
        yield f"# HELP {family.name} {family.text}"
        yield f"# TYPE {family.name} {family.kind}"
        for labels, value in samples:
            shown = ",".join(f'{name}="{_escaped(each)}"' for name, each in labels.items())
            yield f"{family.name}{{{shown}}} {int(value) if float(value).is_integer() else value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
