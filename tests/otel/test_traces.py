"""O1, O3, X8: spans of jobs, in one trace over workers and processes."""

from typing import Any

import anyio
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import SpanKind, StatusCode

from support.places import Places
from support.telemetry import Telemetry, parent_of
from support.workers import Doing, Helper, running
from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobFailure, JobGroupError, WorkerPool, job
from workerbus.otel import instrument
from workerbus.testing import RecordingBus

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Middle(BaseWorker):
    """Asks another worker, and has a span and baggage of its own meanwhile."""

    def __init__(self, name: str, tracer: trace.Tracer) -> None:
        super().__init__(name)
        self.tracer = tracer
        self.saw: object = None

    @job(name="pass on")
    async def pass_on(self, message: BusJobRequestMessage) -> dict[str, Any]:
        self.saw = baggage.get_baggage("tenant")
        with self.tracer.start_as_current_span("thinking"):
            return await self.job("last", name="echo")


async def test_one_trace_goes_through_all_workers_and_processes(places: Places) -> None:
    """X8: spans of a handler's own are children of its job, and so are the jobs that it asks for."""
    here, there = Telemetry(), Telemetry()
    async with places.runners("left", "right") as (left, right):
        ends = [instrument(left, **here.providers), instrument(right, **there.providers)]
        middle = Middle("middle", here.tracer_provider.get_tracer("mine"))
        await left.add_workers(middle, wait=True)
        await right.add_workers(Helper("last"), wait=True)
        await left.registry.wait_for("last")
        token = context.attach(baggage.set_baggage("tenant", "blue"))
        with here.tracer_provider.get_tracer("mine").start_as_current_span("request"):
            await left.job("middle", name="pass on")
        context.detach(token)
        for each in ends:
            each.remove()
    parents = {name: parent_of(span, here, there) for one in (here, there) for name, span in one.spans.items()}
    assert parents == {
        "request": None,
        "job pass on": "request",
        "send middle": "job pass on",
        "process middle": "send middle",
        "thinking": "process middle",
        "job echo": "thinking",
        "send last": "job echo",
        "process last": "send last",
    }
    assert len({span.context.trace_id for one in (here, there) for span in one.spans.values()}) == 1
    assert ("process last" in there.spans) is not places.in_one_process
    assert middle.saw == "blue"


async def test_spans_have_the_names_of_the_messaging_conventions(telemetry: Telemetry) -> None:
    """X8"""
    async with running(Helper("helper"), Helper("asker"), name="r") as runner:
        instrument(runner, **telemetry.providers)
        asker = runner.get_worker("asker")
        assert asker is not None
        context = asker.job("helper", name="echo", payload={"secret": 1})
        await context
    common = {"messaging.system": "workerbus", "workerbus.job.name": "echo", "messaging.destination.name": "helper"}
    assert telemetry.attributes("job echo") == {
        **common, "messaging.client.id": "asker", "workerbus.job.status": "completed",
    }  # fmt: skip
    assert telemetry.attributes("send helper") == {
        **common,
        "messaging.client.id": "asker",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
    }
    assert telemetry.attributes("process helper") == {
        **common,
        "messaging.client.id": "helper",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "workerbus.job.status": "completed",
    }
    assert {name: span.kind for name, span in telemetry.spans.items()} == {
        "job echo": SpanKind.INTERNAL,
        "send helper": SpanKind.PRODUCER,
        "process helper": SpanKind.CONSUMER,
    }
    for span in telemetry.spans.values():
        assert span.attributes is not None
        assert span.attributes["messaging.message.conversation_id"] == context.job_id
        assert "secret" not in span.to_json()


async def test_a_group_is_one_span_above_those_of_its_requests(telemetry: Telemetry) -> None:
    """X8"""
    async with running(Helper("a"), Helper("b"), name="r") as runner:
        instrument(runner, **telemetry.providers)
        async with runner.job_group("a", "b", name="echo"):
            pass
    parents = {name: parent_of(span, telemetry) for name, span in telemetry.spans.items()}
    assert parents == {
        "group echo": None,
        "send a": "group echo",
        "send b": "group echo",
        "process a": "send a",
        "process b": "send b",
    }
    assert telemetry.attributes("group echo")["messaging.batch.message_count"] == 2


async def test_handlers_of_one_job_that_run_at_once_end_each_for_itself(telemetry: Telemetry) -> None:
    """X8: and the group names the error of the one that has failed."""
    begun = {name: anyio.Event() for name in ("a", "b", "c")}

    async def do(worker: Doing, message: BusJobRequestMessage) -> None:
        begun[worker.name].set()
        for each in begun.values():
            await each.wait()
        if worker.name == "c":
            await anyio.sleep(1)
            raise ValueError("it went wrong")

    async with running(*(Doing(name, do) for name in begun), name="r") as runner:
        instrument(runner, **telemetry.providers)
        with pytest.raises(JobGroupError):
            await runner.job_group(*begun, name="do")
    statuses = {name: telemetry.attributes(f"process {name}")["workerbus.job.status"] for name in begun}
    assert statuses == {"a": "completed", "b": "completed", "c": "error"}
    assert telemetry.attributes("group do")["error.type"] == "ValueError"


@pytest.mark.parametrize(
    ("error", "kind"), [(ValueError("secret"), "ValueError"), (JobFailure("secret"), "JobFailure")]
)
async def test_a_job_that_fails_has_errors_that_name_the_class_alone(
    error: Exception, kind: str, telemetry: Telemetry
) -> None:
    """O3: the text of an error may have something of the payload."""

    async def do(worker: Doing, message: BusJobRequestMessage) -> None:
        raise error

    async with running(Doing("w", do), name="r") as runner:
        instrument(runner, **telemetry.providers)
        with pytest.raises(JobError):
            await runner.job("w", name="do")
    for name in ("job do", "process w"):
        span = telemetry.spans[name]
        assert span.status.status_code is StatusCode.ERROR
        assert "secret" not in span.to_json()
    assert telemetry.attributes("process w")["error.type"] == kind
    assert telemetry.attributes("job do")["workerbus.job.status"] == "failed"


async def test_a_timeout_is_an_error_at_who_asks_and_none_at_the_worker(telemetry: Telemetry) -> None:
    """X8, J6"""
    async with running(Helper("w"), name="r") as runner:
        instrument(runner, **telemetry.providers)
        with pytest.raises(JobError):
            await runner.job("w", name="wait", timeout=1)
    assert telemetry.spans["job wait"].status.status_code is StatusCode.ERROR
    assert telemetry.attributes("job wait")["workerbus.job.status"] == "timed_out"
    assert telemetry.attributes("job wait")["error.type"] == "timed_out"
    assert telemetry.spans["process w"].status.status_code is StatusCode.UNSET
    assert telemetry.attributes("process w")["workerbus.job.status"] == "cancelled"


async def test_a_job_that_is_given_up_by_who_asks_is_no_error(telemetry: Telemetry) -> None:
    """X8, J5"""
    helper = Helper("w")
    async with running(helper, name="r") as runner:
        instrument(runner, **telemetry.providers)
        with anyio.CancelScope() as scope:
            async with runner.job("w", name="wait"):
                await helper.begun.wait()
                scope.cancel()
    assert telemetry.attributes("job wait")["workerbus.job.status"] == "cancelled"
    assert {span.status.status_code for span in telemetry.spans.values()} == {StatusCode.UNSET}


async def test_headers_that_are_given_go_along_and_a_context_in_them_is_the_parent(telemetry: Telemetry) -> None:
    """X8: for code that has its trace from elsewhere."""
    bus = RecordingBus()
    async with running(Helper("w"), name="r", bus=bus) as runner:
        instrument(bus, **telemetry.providers)
        await runner.job("w", name="echo", headers={"tenant": "blue", "traceparent": TRACEPARENT})
    span = telemetry.spans["job echo"]
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" in TRACEPARENT
    for message in bus.messages():
        if hasattr(message, "job_id"):
            assert message.headers is not None
            assert message.headers["tenant"] == "blue"
            assert f"{span.context.trace_id:032x}" in message.headers["traceparent"]


async def test_a_span_that_is_current_comes_before_a_context_in_headers(telemetry: Telemetry) -> None:
    """X8"""
    async with running(Helper("w"), name="r") as runner:
        instrument(runner, **telemetry.providers)
        with telemetry.tracer_provider.get_tracer("mine").start_as_current_span("request"):
            await runner.job("w", name="echo", headers={"traceparent": TRACEPARENT})
    assert parent_of(telemetry.spans["job echo"], telemetry) == "request"


async def test_a_handler_leaves_no_context_to_the_next_one(telemetry: Telemetry) -> None:
    """W8, X8: its task is used again."""
    seen: list[Any] = []

    async def do(worker: Doing, message: BusJobRequestMessage) -> dict[str, Any]:
        seen.append(trace.get_current_span().get_span_context().span_id)
        return {"task": anyio.get_current_task().id}

    async with running(Doing("w", do), name="r") as runner:
        instrumentation = instrument(runner, **telemetry.providers)
        first = await runner.job("w", name="do")
        instrumentation.remove()
        assert await runner.job("w", name="do") == first
    assert seen[0] != 0
    assert seen[1] == 0


async def test_a_member_of_a_pool_does_the_job_in_the_trace_of_who_asked_the_pool(telemetry: Telemetry) -> None:
    """X8, S2"""
    async with running(name="r") as runner:
        instrument(runner, **telemetry.providers)
        await runner.add_workers(WorkerPool("pool", Helper, size=2), wait=True)
        await runner.job("pool", name="echo")
    span = telemetry.spans["process pool"]
    assert parent_of(span, telemetry) == "send pool"
    assert span.attributes is not None
    assert span.attributes["messaging.client.id"] != "pool"


async def test_what_is_removed_traces_no_more_and_leaves_nothing_open(telemetry: Telemetry) -> None:
    """O1: two runners of a bus share one tap, which goes with the last."""
    helper = Helper("w")
    async with running(helper, name="r") as runner, anyio.create_task_group() as group:
        with instrument(runner, **telemetry.providers) as first:
            second = instrument(runner.bus, **telemetry.providers)

            async def ask() -> None:
                await runner.job("w", name="wait")

            group.start_soon(ask)
            await helper.begun.wait()
        first.remove()
        assert runner.bus.job_taps
        second.remove()
        assert not runner.bus.job_taps
        assert telemetry.spans.keys() == {"job wait", "send w", "process w"}
        helper.release.set()
    assert len(telemetry.spans) == 3


async def test_without_a_sdk_the_context_of_who_asks_is_passed_on() -> None:
    """X8: what is set by default makes no spans."""
    bus = RecordingBus()
    async with running(Helper("w"), name="r", bus=bus) as runner:
        with instrument(runner):
            await runner.job("w", name="echo", headers={"traceparent": TRACEPARENT})
    assert {message.headers["traceparent"] for message in bus.messages() if message.headers} == {TRACEPARENT}


def test_only_runners_and_buses_are_instrumented() -> None:
    """N8"""
    with pytest.raises(TypeError, match="instrument takes a WorkerRunner or a WorkerBus, not 'runner'"):
        instrument("runner")  # type: ignore[arg-type]  # that is the mistake
