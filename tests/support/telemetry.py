"""What OpenTelemetry's SDK has exported, in memory."""

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Telemetry:
    """Providers whose exporters are in memory: those of one process."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(resource=Resource.get_empty())
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider([self.reader], resource=Resource.get_empty())

    @property
    def providers(self) -> dict[str, Any]:
        """The arguments of `instrument`."""
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The spans that have ended, by their names, each of which is there once."""
        spans = self.exporter.get_finished_spans()
        named = {span.name: span for span in spans}
        assert len(named) == len(spans), [span.name for span in spans]
        return named

    def attributes(self, name: str) -> dict[str, Any]:
        """The attributes of a span but those of its job's id."""
        found = dict(self.spans[name].attributes or {})
        found.pop("messaging.message.conversation_id", None)
        return found

    def points(self, name: str) -> list[Any]:
        """The points of a metric; empty where there are none."""
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def values(self, name: str, *attributes: str) -> dict[Any, float]:
        """What a metric says, by the values of some attributes: its value, or for a histogram how many there are."""
        found: dict[Any, float] = {}
        for point in self.points(name):
            of_point: dict[str, Any] = dict(point.attributes or {})
            key = tuple(of_point.get(each) for each in attributes)
            number: float = point.value if hasattr(point, "value") else point.count
            found[key[0] if len(key) == 1 else key] = number
        return found


def parent_of(span: ReadableSpan, *telemetry: Telemetry) -> str | None:
    """The name of a span's parent, which may be of another process; None for a root."""
    if span.parent is None:
        return None
    spans = [each for one in telemetry for each in one.spans.values()]
    return next(each.name for each in spans if each.context.span_id == span.parent.span_id)
