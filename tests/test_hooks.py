"""Hooks in their two forms: the overridden method, and event handlers of the same name (N3)."""

import anyio
import pytest

from support.conditions import eventually
from support.requesters import Raw
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    JobStatus,
)


def test_an_unknown_event_is_refused_with_near_names() -> None:
    with pytest.raises(ValueError, match="'on_job_update'"):
        BaseWorker("w").add_event_handler("on_jobs_update", print)


def test_what_cannot_be_called_is_no_handler() -> None:
    with pytest.raises(TypeError):
        BaseWorker("w").add_event_handler("on_activated", "print")  # type: ignore[arg-type]  # that is the point


async def test_a_handler_of_on_job_request_may_answer_later() -> None:
    worker, kept = Helper("w"), list[str]()
    worker.add_event_handler("on_job_request", lambda _, message: kept.append(message.job_id))
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("1", "w")
        await eventually(lambda: kept)
        await anyio.wait_all_tasks_blocked()
        assert raw.answers("1") == []
        await worker.send_job_response("1", {"late": True})
        assert await raw.answer("1") == (JobStatus.COMPLETED, {"late": True})
