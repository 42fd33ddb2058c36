"""J1-J4 and J14: every request gets one outcome, whatever the handler and its worker do."""

from support.requesters import outcome_of
from support.workers import running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    JobStatus,
)


async def test_an_event_handler_of_on_job_request_that_raises_is_an_error_of_the_job() -> None:
    """J2: as the overridden method."""
    worker = BaseWorker("worker")

    @worker.event_handler("on_job_request")
    async def refuse(emitter: BaseWorker, message: BusJobRequestMessage) -> None:
        raise ValueError("not today")

    async with running(worker) as runner:
        answer = await outcome_of(runner, "worker", name="any")
    assert answer == (JobStatus.ERROR, {"error": "not today", "type": "ValueError"})
