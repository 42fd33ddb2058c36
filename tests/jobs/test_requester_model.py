"""J7, J8, J11, J12 and J16 together, against a model."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import clock
from support.contexts import ghost
from support.requesters import Listener
from support.workers import running
from workerbus import (
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    JobGroupContext,
    JobGroupError,
    JobGroupEvent,
    JobStatus,
    WorkerRunner,
)

NAMES = ["g0", "g1", "g2"]


SENT = st.lists(
    st.tuples(
        st.sampled_from([*NAMES, "stranger"]),
        st.sampled_from(["update", "urgent update", "data", "stream end", "answer", "urgent answer"]),
        st.sampled_from([JobStatus.COMPLETED, JobStatus.COMPLETED, JobStatus.ERROR]),
    ),
    max_size=25,
)


class Model:
    """What a requester is to make of messages, one after the other."""

    def __init__(self, *, cancel_on_error: bool) -> None:
        self.cancel_on_error = cancel_on_error
        self.failed = False
        self.ignored = 0
        self.statuses: dict[str, JobStatus] = {}
        self.responses: dict[str, dict[str, Any]] = {}
        self.events: list[JobGroupEvent] = []
        self.hooks: list[str] = []

    @property
    def over(self) -> bool:
        return self.failed or len(self.statuses) == len(NAMES)

    def take(self, source: str, what: str, status: JobStatus, data: dict[str, Any]) -> None:
        if source not in NAMES or source in self.statuses:
            self.ignored += 1
            return
        was_over = self.over
        if "answer" in what or what == "stream end":
            self.statuses[source] = JobStatus.COMPLETED if what == "stream end" else status
            self.responses[source] = data
        if was_over:
            return
        if "answer" not in what:
            kind = {"data": "stream_data", "stream end": "stream_end"}.get(what, "update")
            self.events.append(JobGroupEvent(kind, source, data))
        if what != "data":
            self.hooks.append(what.removeprefix("urgent ").replace("answer", "response"))
        self.failed = self.cancel_on_error and self.statuses.get(source) == JobStatus.ERROR
        if self.over:
            self.hooks.append("error" if self.failed else "completed")


def message_of(job_id: str, source: str, what: str, status: JobStatus, data: dict[str, Any]) -> BusMessage:
    match what:
        case "update":
            return BusJobUpdateMessage(job_id, data, source=source, target="asker")
        case "urgent update":
            return BusJobUpdateUrgentMessage(job_id, data, source=source, target="asker")
        case "data":
            return BusJobStreamDataMessage(job_id, data, source=source, target="asker")
        case "stream end":
            return BusJobStreamEndMessage(job_id, data, source=source, target="asker")
        case "answer":
            return BusJobResponseMessage(job_id, status, data, source=source, target="asker")
        case _:
            return BusJobResponseUrgentMessage(job_id, status, data, source=source, target="asker")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=SENT, cancel_on_error=st.booleans())
def test_a_requester_makes_of_messages_what_the_contract_says(
    backend: str, sent: list[tuple[str, str, JobStatus]], cancel_on_error: bool
) -> None:
    """J7, J8, J11, J12, J16: whatever comes from whom, and in which order."""
    model, asker = Model(cancel_on_error=cancel_on_error), Listener("asker")
    messages = [*sent, *((name, "answer", JobStatus.COMPLETED) for name in NAMES)]
    seen: list[JobGroupEvent] = []

    async def ask(runner: WorkerRunner, context: JobGroupContext[Any]) -> None:
        async with context as group:
            for number, (source, what, status) in enumerate(messages):
                model.take(source, what, status, {"n": number})
                await runner.bus.send(message_of(group.job_id, source, what, status, {"n": number}))
            async for event in group:
                seen.append(event)  # noqa: PERF401 - what was seen before an error counts

    async def example() -> None:
        async with running(asker) as runner, ghost(runner, *NAMES):
            context = asker.job_group(*NAMES, cancel_on_error=cancel_on_error)
            error: JobGroupError | None = None
            try:
                await ask(runner, context)
            except JobGroupError as exc:
                error = exc
            await asker.until("error" if model.failed else "completed")
            await asker.stop()
        outcome = context if error is None else error
        assert (error is not None) == model.failed
        assert (outcome.statuses, outcome.responses) == (model.statuses, model.responses)
        assert seen == (model.events if error is None else model.events[: len(seen)])
        assert asker.statistics().ignored == model.ignored
        heard = [name for name, _ in asker.heard]
        answers = [name for name in model.hooks if name in ("response", "stream end", "completed", "error")]
        assert sorted(name for name in heard if name != "update") == sorted(answers)
        assert [name for name in heard if name != "update"][-1] == answers[-1]

    clock.run(example, backend=backend)
