"""O2, O3, O9: what Prometheus reads at ``/metrics``."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.prometheus import Metrics, of, parsed
from support.web_clients import fetch
from support.workers import Helper, running
from workerbus import JobError, WorkerPool, WorkerRunner
from workerbus.otel import instrument
from workerbus.otel._prometheus import prometheus_text
from workerbus.testing import PeerNetwork
from workerbus.view import serve_view
from workerbus.wire import Wire


async def metrics_at(url: str, **headers: str) -> Metrics:
    reply = await fetch(url, "/metrics", headers=headers)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return parsed(reply.body.decode())


def compare(metrics: Metrics, runner: WorkerRunner) -> None:
    """Hold what was read to what the runner says."""
    seen = runner.statistics()
    for status, number in seen.jobs_answered.items():
        assert of(metrics, "workerbus_job_answered_total", runner=runner.name, status=status) == number
    assert of(metrics, "workerbus_job_requested_total", runner=runner.name) == seen.jobs_requested
    assert of(metrics, "workerbus_hook_failures_total", runner=runner.name) == seen.hooks_failed
    assert of(metrics, "workerbus_worker_restarts_total", runner=runner.name) == seen.restarts
    assert of(metrics, "workerbus_job_in_flight", runner=runner.name) == sum(
        len(each.jobs) for each in seen.workers.values()
    )
    for worker in seen.workers.values():
        its = {"runner": runner.name, "worker": worker.name}
        assert of(metrics, "workerbus_worker_active", **its) == worker.active
        assert of(metrics, "workerbus_worker_job_in_flight", **its) == len(worker.jobs)
        for lane, waiting in worker.lanes.items():
            assert of(metrics, "workerbus_lane_depth", **its, lane=lane) == waiting


async def test_metrics_are_what_the_statistics_say() -> None:
    """O2, O9: of a runner, and of each worker; whatever their names are."""
    helper, strange = Helper("helper"), Helper('a "strange" \\ name')
    async with (
        running(helper, strange, WorkerPool("pool", Helper, size=2), name="main", slow_seconds=5.0) as runner,
        serve_view(runner, port=0) as view,
    ):
        await runner.job("pool", name="echo")
        with pytest.raises(JobError):
            await runner.job(strange.name, name="fail")
        async with runner.job("helper", name="wait"):
            await helper.begun.wait()
            metrics = await metrics_at(view.url)
            its = {"runner": "main", "worker": strange.name}
            assert of(metrics, "workerbus_worker_job_answered_total", **its, status="error") == 1
            compare(metrics, runner)
            assert of(metrics, "workerbus_pool_size", runner="main", worker="pool") == 2
            assert of(metrics, "workerbus_handler_slow_total", runner="main") == 0
            assert not any(name.startswith("workerbus_loop") for name, _ in metrics)
            helper.release.set()


async def test_metrics_of_a_network_are_those_of_each_process() -> None:
    """O7, O9: nobody is asked but when somebody reads them, and then for no message that passes."""
    net = PeerNetwork(wire=Wire())
    async with (
        running(Helper("a"), name="one", bus=net.end("one")) as first,
        running(Helper("b"), name="two", bus=net.end("two")) as second,
        serve_view(net.end("view"), port=0) as view,
    ):
        await first.registry.wait_for("b")
        for _ in range(3):
            await first.job("b", name="echo")
        metrics = await metrics_at(view.url)
        for runner in (first, second):
            compare(metrics, runner)
            assert of(metrics, "workerbus_bus_peers", runner=runner.name) == 2
            assert runner.bus._taps == ()
        await first.job("b", name="echo")
        again = await metrics_at(view.url)
        assert of(again, "workerbus_job_answered_total", runner="two", status="completed") == 4


async def test_what_opentelemetry_measures_is_there_too() -> None:
    """O9: durations as histograms; what statistics say is told once."""
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    reader = export.InMemoryMetricReader()
    provider = sdk.MeterProvider([reader])
    async with (
        running(Helper("helper"), name="main") as runner,
        serve_view(runner, port=0, metric_reader=reader) as view,
    ):
        with instrument(runner, meter_provider=provider):
            for _ in range(3):
                await runner.job("helper", name="echo")
            metrics = await metrics_at(view.url)
    counts = {name: value for (name, _), value in metrics.items() if name.endswith("_count")}
    assert counts["messaging_process_duration_seconds_count"] == 3
    assert counts["workerbus_job_queue_duration_seconds_count"] == 3
    assert counts["workerbus_job_duration_seconds_count"] == 3
    edges = [
        (dict(labels)["le"], value)
        for (name, labels), value in metrics.items()
        if name == "workerbus_job_duration_seconds_bucket"
    ]
    assert edges[-1] == ("+Inf", 3)
    assert [value for _, value in edges] == sorted(value for _, value in edges)
    compare(metrics, runner)
    assert not any(dict(labels).get("workerbus_runner_name") for name, labels in metrics if "answered" in name)


async def test_metrics_need_the_token() -> None:
    """O5, O9"""
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0, token="secret") as view:
        assert (await fetch(view.url, "/metrics")).status == 401
        assert await metrics_at(view.url, Authorization="Bearer secret")


class _Thing:
    """A value with attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def _metric(name: str, unit: str, data: Any) -> _Thing:
    return _Thing(name=name, unit=unit, description="a \\ and\nmore", data=data)


def test_whatever_a_reader_has_is_text_that_prometheus_reads() -> None:
    """O9: gauges, counters, units; what has no form there, and what is told twice, is left out."""
    point = _Thing(attributes={"a.b": 'x"y'}, value=2.5)
    data = [
        _metric("my.gauge", "By", _Thing(data_points=[point])),
        _metric("my.count", "{job}", _Thing(data_points=[_Thing(attributes={}, value=7)], is_monotonic=True)),
        _metric("up.down", "1", _Thing(data_points=[point], is_monotonic=False)),
        _metric("exponential", "s", _Thing(data_points=[_Thing(scale=3)])),
        _metric("known", "", _Thing(data_points=[point])),
        _metric("my_gauge", "By", _Thing(data_points=[point])),
        _metric("empty", "", _Thing(data_points=[])),
    ]
    reader: Any = _Thing(
        get_metrics_data=lambda: _Thing(resource_metrics=[_Thing(scope_metrics=[_Thing(metrics=data)])])
    )
    metrics = parsed(prometheus_text(reader, {"known"}))
    assert {name for name, _ in metrics} == {"my_gauge_bytes", "my_count_total", "up_down"}
    assert of(metrics, "my_count_total") == 7
    assert of(metrics, "my_gauge_bytes", a_b='x"y') == 2.5
    empty: Any = _Thing(get_metrics_data=lambda: None)
    assert prometheus_text(empty) == ""


_words = st.lists(st.sampled_from(["my", "seconds", "bytes", "total", "http"]), min_size=1, max_size=3)
_texts = st.text(st.sampled_from('ab\\n"\n{},= '), max_size=6)
_labels = st.dictionaries(st.sampled_from(["a.b", "c", "d-e"]), _texts, max_size=3)
_bounds = st.sampled_from([(0.5, 2.0), (1.0,)])


@st.composite
def _drawn(draw: st.DrawFn) -> tuple[str, str | None, str, list[tuple[dict[str, str], list[float]]], tuple[float, ...]]:
    points = draw(
        st.lists(st.tuples(_labels, st.lists(st.sampled_from([0.25, 0.5, 1.5, 7.0]), max_size=4)), max_size=3)
    )
    told = {tuple(sorted(labels.items())): (labels, values) for labels, values in points}
    kind = draw(st.sampled_from(["counter", "gauge", "sum", "histogram"]))
    unit = draw(st.sampled_from(["s", "By", "ms", "{job}", "", None]))
    return ".".join(draw(_words)), unit, kind, list(told.values()), draw(_bounds)


def _told(name: str, unit: str | None, kind: str, points: Any, bounds: tuple[float, ...]) -> _Thing:
    data: Any = _Thing(data_points=[])
    for labels, values in points:
        edges = (-math.inf, *bounds, math.inf)
        counts = [sum(low < each <= high for each in values) for low, high in pairwise(edges)]
        held = {"explicit_bounds": bounds, "bucket_counts": counts, "sum": sum(values), "count": len(values)}
        data.data_points.append(_Thing(attributes=labels, **(held if kind == "histogram" else {"value": sum(values)})))
    if kind in ("counter", "sum"):
        data.is_monotonic = kind == "counter"
    return _metric(name, unit or "", data)


def _samples(name: str, kind: str, points: Any, bounds: tuple[float, ...]) -> Metrics:
    found: Metrics = {}
    for given_labels, values in points:
        labels = {key.replace(".", "_").replace("-", "_"): value for key, value in given_labels.items()}
        if kind != "histogram":
            found[name, frozenset(labels.items())] = sum(values)
            continue
        for bound, edge in ((bounds[0], f"{bounds[0]:g}"), (bounds[-1], f"{bounds[-1]:g}"), (math.inf, "+Inf")):
            found[f"{name}_bucket", frozenset({**labels, "le": edge}.items())] = sum(each <= bound for each in values)
        found[f"{name}_sum", frozenset(labels.items())] = sum(values)
        found[f"{name}_count", frozenset(labels.items())] = len(values)
    return found


@given(st.lists(st.lists(st.lists(_drawn(), max_size=3), max_size=2), max_size=2))
@settings(max_examples=25)
def test_each_metric_of_several_resources_and_scopes_is_told_with_all_its_points(resources: Any) -> None:
    """O9: by its name, with its unit; a name that has been told is not told again."""
    told = [
        _Thing(scope_metrics=[_Thing(metrics=[_told(*metric) for metric in scope]) for scope in resource])
        for resource in resources
    ]
    expected: dict[str, Metrics] = {}
    for name, unit, kind, points, bounds in (
        metric for resource in resources for scope in resource for metric in scope
    ):
        words = name.split(".")
        word = {"s": "seconds", "By": "bytes", "ms": "milliseconds"}.get(unit or "")
        if word is not None and (words[-1] != word or len(words) < 2):
            words.append(word)
        if kind == "counter" and (words[-1] != "total" or len(words) < 2):
            words.append("total")
        if points or kind in ("counter", "sum"):  # else nobody knows what it is
            expected.setdefault("_".join(words), _samples("_".join(words), kind, points, bounds))
    together: Metrics = {}
    for each in expected.values():
        together.update(each)
    reader: Any = _Thing(get_metrics_data=lambda: _Thing(resource_metrics=told))
    assert parsed(prometheus_text(reader)) == together
