"""The tap that makes spans, and passes their context on in headers (O1, O3, X8).

A job, or a group, has a span where it is asked for, from then until its outcome; each request that it sends, a span
below that; each run of a handler, a span below that of its request, in whatever process. A handler runs in the context
of its span: what it traces itself, and the jobs that it asks for, are children of it.

It knows nothing of runners.
"""

from collections import OrderedDict
from collections.abc import Mapping
from contextvars import Token
from time import perf_counter
from typing import Any, Final, NamedTuple

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from workerbus._values import JobStatus
from workerbus.jobs._group import JobGroup
from workerbus.jobs._state import GroupState
from workerbus.messages import BusJobRequestMessage, BusMessage
from workerbus.otel._durations import Durations
from workerbus.otel._names import Names

Headers = Mapping[str, str] | None
_Key = tuple[str, str]

REMEMBERED_ARRIVALS: Final = 10_000
"""Of how many requests that have not begun it is known when they came."""


class _Open(NamedTuple):
    span: Span
    context: Context
    since: float
    attributes: dict[str, Any]
    token: "Token[Context] | None" = None


class TracingTap:
    """The tap of one bus.

    Args:
        tracer: Makes the spans.
        durations: Where the durations go.

    Attributes:
        users: How many instrumentations of the bus there are.
    """

    def __init__(self, tracer: Tracer, durations: Durations) -> None:
        self._tracer = tracer
        self._durations = durations
        self._asked: dict[JobGroup, _Open] = {}
        self._sending: dict[_Key, _Open] = {}
        self._running: dict[_Key, _Open] = {}
        self._came: OrderedDict[_Key, float] = OrderedDict()
        self.users: int = 0

    def __call__(self, message: BusMessage) -> None:
        """Note when a request has come; called by the bus."""
        if isinstance(message, BusJobRequestMessage):
            options = message.options
            asked = message.target if options is None else options.asked_as or message.target  # as a handler sees it
            self._came[message.job_id, asked or ""] = perf_counter()
            if len(self._came) > REMEMBERED_ARRIVALS:
                self._came.popitem(last=False)

    # --- where a job is asked for

    def job_asked(self, name: str, headers: Headers, group: JobGroup) -> Headers:
        """Begin the span of a job or a group."""
        workers = group.worker_names
        attributes: dict[str, Any] = {Names.SYSTEM: "workerbus", Names.CLIENT: name, Names.CONVERSATION: group.job_id}
        if group.single:
            attributes[Names.DESTINATION] = workers[0]
        else:
            attributes[Names.BATCH] = len(workers)
        what = "job" if group.single else "group"
        parent = contexts.get_current()
        if headers is not None and not trace.get_current_span(parent).get_span_context().is_valid:
            parent = propagate.extract(headers, parent)  # handed in by whoever asks
        opened = self._open(what, SpanKind.INTERNAL, parent, attributes)
        self._asked[group] = opened
        return _with_context(headers, opened.context)

    def job_sends(self, name: str, headers: Headers, group: JobGroup, request: BusJobRequestMessage) -> Headers:
        """Begin the span of a request."""
        asked = self._asked.get(group)
        parent = contexts.get_current() if asked is None else asked.context
        if asked is not None and request.job_name is not None:
            what = "job" if group.single else "group"
            asked.span.update_name(f"{what} {request.job_name}")
            asked.span.set_attribute(Names.JOB, request.job_name)
            asked.attributes[Names.JOB] = request.job_name
        attributes = {**_of_request(request), Names.CLIENT: name, Names.OPERATION: "send", Names.OPERATION_TYPE: "send"}
        opened = self._open(f"send {request.target}", SpanKind.PRODUCER, parent, attributes)
        self._sending[request.job_id, request.target or ""] = opened
        return _with_context(headers, opened.context)

    def job_sent(self, name: str, request: BusJobRequestMessage, error: BaseException | None) -> None:
        """End the span of a request."""
        opened = self._sending.pop((request.job_id, request.target or ""), None)
        if opened is not None:
            if error is not None:
                _fail(opened, type(error).__name__)
            opened.span.end()
            self._durations.sent(perf_counter() - opened.since, opened.attributes)

    def job_over(self, name: str, group: JobGroup) -> None:
        """End the span of a job or a group."""
        opened = self._asked.pop(group, None)
        if opened is None:
            return
        state = group.state.name.lower()
        opened.span.set_attribute(Names.STATUS, state)
        opened.attributes[Names.STATUS] = state
        if group.state is GroupState.TIMED_OUT:
            _fail(opened, state)  # whatever was answered before; a worker may tell of its deadline in the same moment
        elif group.state is GroupState.FAILED:
            bad = (worker for worker, status in group.statuses.items() if status is not JobStatus.COMPLETED)
            _fail(opened, _kind(state, group.responses.get(next(bad, ""))))
        opened.span.end()
        self._durations.over(perf_counter() - opened.since, opened.attributes)

    # --- where it is done

    def job_begins(self, name: str, request: BusJobRequestMessage) -> None:
        """Begin the span of a handler, in the handler's task."""
        now = perf_counter()
        attributes = {
            **_of_request(request),
            Names.CLIENT: name,
            Names.OPERATION: "process",
            Names.OPERATION_TYPE: "process",
        }
        parent = propagate.extract(request.headers or {})
        opened = self._open(f"process {request.target}", SpanKind.CONSUMER, parent, attributes)
        self._running[request.job_id, name] = opened._replace(token=contexts.attach(opened.context))
        self._durations.begins(now - self._came.pop((request.job_id, request.target or ""), now), attributes)

    def job_answered(self, name: str, request: BusJobRequestMessage, status: JobStatus, response: object) -> None:
        """Note how a job ends."""
        self._came.pop((request.job_id, request.target or ""), None)
        opened = self._running.get((request.job_id, name))
        if opened is not None:
            opened.attributes[Names.STATUS] = str(status)
            opened.span.set_attribute(Names.STATUS, str(status))
            if status in (JobStatus.ERROR, JobStatus.FAILED):
                _fail(opened, _kind(str(status), response))

    def job_ends(self, name: str, request: BusJobRequestMessage) -> None:
        """End the span of a handler, in the handler's task."""
        opened = self._running.pop((request.job_id, name), None)
        if opened is not None:
            if opened.token is not None:
                contexts.detach(opened.token)
            opened.span.end()
            self._durations.ends(perf_counter() - opened.since, opened.attributes)

    def close(self) -> None:
        """End what is open, since nobody will tell of its end any more."""
        for opened in (*self._asked.values(), *self._sending.values(), *self._running.values()):
            opened.span.end()
        for each in (self._asked, self._sending, self._running, self._came):
            each.clear()

    def _open(self, name: str, kind: SpanKind, parent: Context, attributes: dict[str, Any]) -> _Open:
        span = self._tracer.start_span(name, parent, kind, attributes)
        return _Open(span, trace.set_span_in_context(span, parent), perf_counter(), attributes)


def _of_request(request: BusJobRequestMessage) -> dict[str, Any]:
    attributes: dict[str, Any] = {Names.SYSTEM: "workerbus", Names.CONVERSATION: request.job_id}
    if request.target is not None:
        attributes[Names.DESTINATION] = request.target
    if request.job_name is not None:
        attributes[Names.JOB] = request.job_name
    if request.attempt != 1:
        attributes[Names.ATTEMPT] = request.attempt
    return attributes


def _with_context(headers: Headers, context: Context) -> Headers:
    carrier = dict(headers or {})
    propagate.inject(carrier, context)
    return carrier or None


def _kind(otherwise: str, response: object) -> str:
    """Return the class of an error, as an answer tells it, or what else there is to say."""
    kind = response.get("type") if isinstance(response, Mapping) else None
    return kind if isinstance(kind, str) else otherwise


def _fail(opened: _Open, kind: str) -> None:
    opened.attributes[Names.ERROR] = kind
    opened.span.set_attribute(Names.ERROR, kind)
    opened.span.set_status(Status(StatusCode.ERROR, kind))
