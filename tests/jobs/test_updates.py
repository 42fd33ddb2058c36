"""J7, J12: requests for updates."""

import anyio
import pytest

from support.requesters import Listener, Raw
from support.workers import Helper, running
from workerbus import BusJobUpdateRequestMessage, BusMessage


class Asked(Helper):
    """Writes down who asks it for updates."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked: list[BusMessage] = []

    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        self.asked.append(message)


async def test_an_update_request_says_who_asks() -> None:
    """N1: `BusJobUpdateRequestMessage` names its sender, so that a hook knows whom it is for."""
    asked, asker = Asked("asked"), Helper("asker")
    async with running(asked, asker):
        job_id = await asker.request_job("asked", name="wait")
        await asker.request_job_update(job_id, "asked")
        await anyio.wait_all_tasks_blocked()
        asked.release.set()
    assert asked.asked == [BusJobUpdateRequestMessage(job_id, source="asker", target="asked")]


async def test_nobody_is_asked_for_updates_of_a_job_that_has_ended() -> None:
    asked, asker = Asked("asked"), Helper("asker")
    async with running(asked, asker) as runner:
        raw = await Raw.on(runner.bus)
        await asker.request_job_update("no such job", "asked")
        async with asker.job_group("asked", "asker", name="echo") as group:
            while len(group.responses) < 2:
                await anyio.wait_all_tasks_blocked()
        await asker.request_job_update(group.job_id, "asked")
        await raw.settle()
    assert raw.of(BusJobUpdateRequestMessage) == []
    assert asked.asked == []


async def test_who_has_answered_is_not_asked_for_updates() -> None:
    asked, other, asker = Asked("asked"), Helper("other"), Listener()
    async with running(asked, other, asker) as runner:
        raw = await Raw.on(runner.bus)
        job_id = await asker.request_job_group("asked", "other", name="wait")
        await asked.begun.wait()
        asked.release.set()
        await asker.until("response")
        await asker.request_job_update(job_id, "asked")
        await asker.request_job_update(job_id, "other")
        await raw.settle()
        other.release.set()
    assert [message.target for message in raw.of(BusJobUpdateRequestMessage)] == ["other"]


async def test_an_update_request_for_a_stranger_names_those_that_were_asked() -> None:
    helpers, asker = [Helper("a"), Helper("b")], Helper("asker")
    async with running(*helpers, asker):
        job_id = await asker.request_job_group("a", "b", name="wait")
        with pytest.raises(ValueError, match=f"'c' was not asked for job {job_id}; asked were 'a', 'b'$"):
            await asker.request_job_update(job_id, "c")
        for helper in helpers:
            helper.release.set()


async def test_a_request_for_an_update_of_an_unknown_job_is_ignored() -> None:
    """J14: there is nothing to tell."""

    class Asked(Listener):
        async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
            self.calls.append(message.job_id)

    asked = Asked("asked")
    async with running(asked) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "asked", "wait")
        for job_id in ("other", "job"):
            await runner.bus.send(BusJobUpdateRequestMessage(job_id, source="raw", target="asked"))
        await anyio.wait_all_tasks_blocked()
        asked.release.set()
    assert asked.calls == ["job", "job"]
