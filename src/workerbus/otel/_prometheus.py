"""What a reader of OpenTelemetry's SDK has collected, as text that Prometheus reads (O3, O9).

The SDK is the program's own and is not imported here: what its metrics have is read off them. Names are made as the
OpenTelemetry specification says for Prometheus: dots are underscores, a unit and ``total`` stand at the end.
"""

import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

_UNITS: Final = {"s": "seconds", "ms": "milliseconds", "By": "bytes"}


class MetricReader(Protocol):
    """What has collected metrics: an ``InMemoryMetricReader`` of the SDK, for instance."""

    def get_metrics_data(self) -> Any:
        """Collect, and return a ``MetricsData``; None where there is nothing."""


def prometheus_text(reader: MetricReader, known: Container[str] = ()) -> str:
    """Return what a reader has collected, as Prometheus reads it.

    Args:
        reader: The reader, of cumulative sums, as is the default.
        known: The names of metrics that are told elsewhere, and left out.
    """
    lines: list[str] = []
    told: set[str] = set()
    data = reader.get_metrics_data()
    for of_resource in () if data is None else data.resource_metrics:
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                name, kind = _name(metric), _kind(metric.data)
                if name not in known and name not in told and kind is not None:
                    told.add(name)
                    lines += [f"# HELP {name} {_escaped(metric.description, quotes=False)}", f"# TYPE {name} {kind}"]
                    lines += _samples(name, kind, metric.data.data_points)
    return "".join(f"{line}\n" for line in lines)


def _kind(data: Any) -> str | None:
    """Return what Prometheus calls it; None for what it has no form for, as exponential histograms."""
    if hasattr(data, "is_monotonic"):
        return "counter" if data.is_monotonic else "gauge"
    points = list(data.data_points)
    if points and hasattr(points[0], "explicit_bounds"):
        return "histogram"
    return "gauge" if points and hasattr(points[0], "value") else None


def _name(metric: Any) -> str:
    name = re.sub(r"[^a-zA-Z0-9_]+", "_", metric.name).strip("_")
    unit = _UNITS.get(metric.unit or "", "")
    if unit and not name.endswith(f"_{unit}"):
        name = f"{name}_{unit}"
    return f"{name}_total" if getattr(metric.data, "is_monotonic", False) and not name.endswith("_total") else name


def _samples(name: str, kind: str, points: Iterable[Any]) -> Iterator[str]:
    for point in points:
        labels = {re.sub(r"[^a-zA-Z0-9_]", "_", key): value for key, value in (point.attributes or {}).items()}
        if kind != "histogram":
            yield f"{name}{_shown(labels)} {point.value}"
            continue
        count = 0
        for bound, number in zip((*point.explicit_bounds, math.inf), point.bucket_counts, strict=True):
            count += number
            edge = "+Inf" if bound == math.inf else f"{bound:g}"
            yield f"{name}_bucket{_shown({**labels, 'le': edge})} {count}"
        yield f"{name}_sum{_shown(labels)} {point.sum}"
        yield f"{name}_count{_shown(labels)} {point.count}"


def _shown(labels: Mapping[str, Any]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}"


def _escaped(text: str, *, quotes: bool = True) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped
