"""What a recording bus tells of what was sent."""

import re
from typing import Any

import pytest
from anyio import sleep

from support.messages import note
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusActivateWorkerMessage,
    BusJobRequestMessage,
    BusMessage,
    JobGroupResponse,
    JobStatus,
    WorkerRunner,
    job,
)
from workerbus.messages import BUILT_IN
from workerbus.testing import RecordingBus, run, settle
from workerbus.testing.buses._telling import Teller


class Front(BaseWorker):
    """Asks for a job as soon as it is told to."""

    @job(name="ask")
    async def ask(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await sleep(0.25)
        return await self.job("tts", name="echo", payload={"text": "hello"})


def test_a_story_says_who_said_what_to_whom_and_when(backend: str) -> None:
    async def main() -> str:
        bus = RecordingBus()
        await sleep(5)
        async with WorkerRunner(bus=bus, name="R", handle_sigint=False) as runner:
            await runner.add_workers(Front("front"), Helper("tts"))
            await runner.registry.wait_for("tts")
            await runner.job("front", name="ask")
        return str(bus)

    story = run(main, backend=backend, seed=None)
    told = [re.sub(r" +", " ", line).strip() for line in story.splitlines()]
    assert "0.00 s R -> front asks for job 'ask' (R-1)" in told
    assert "0.25 s front -> tts asks for job 'echo' (front-1) {'text': 'hello'}" in told
    assert any(line.startswith("0.25 s tts -> front answers job front-1: completed {") for line in told)
    assert "0.00 s tts -> all is ready, under runner 'R'" in told
    assert len({line.index("->") < line.index("   ") for line in story.splitlines()}) == 1


async def test_made_up_names_and_job_ids_are_numbered_as_they_are_met() -> None:
    """The story of a program is the same in every process."""
    bus = RecordingBus()
    async with WorkerRunner(bus=bus, handle_sigint=False) as runner:
        helper = Helper()
        await runner.add_workers(helper)
        await runner.job(helper.name, name="echo")
        await runner.job(helper.name, name="echo")
    assert "runner-1 -> Helper-1   asks for job 'echo' (runner-1-2)" in re.sub(r" {3,}", "   ", str(bus))
    assert not re.search(r"[0-9a-f]{12}-", str(bus))


async def test_a_job_id_in_a_text_is_told_as_the_job() -> None:
    """Under the name that it has in the rest of the story."""

    class Broken(Helper):
        async def on_job_completed(self, result: JobGroupResponse) -> None:
            raise ValueError("it went wrong")

    bus, broken = RecordingBus(), Broken("broken")
    async with running(broken, Helper("helper"), bus=bus):
        await broken.request_job("helper", name="echo")
        await settle()
    assert "asks for job 'echo' (broken-1)" in bus.story()
    assert re.search(r"reports an error: on_job_completed: .*\(job broken-1\)", bus.story())


async def test_long_payloads_are_shortened_and_bad_ones_do_no_harm() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise ValueError

    bus = RecordingBus()
    await bus.send(BusActivateWorkerMessage({"text": "x" * 1000, "bad": Bad()}, source="a", target="b"))
    story = str(bus)
    assert len(story) < 200
    assert "..." in story
    assert "Bad" in story


async def test_the_story_of_nothing_is_empty() -> None:
    assert str(RecordingBus()) == ""


@pytest.mark.parametrize("kind", sorted(BUILT_IN, key=str))
def test_every_message_of_the_library_has_words(kind: type[BusMessage]) -> None:
    values: dict[str, Any] = {
        "job_id": "j",
        "status": JobStatus.FAILED,
        "runner": "R",
        "workers": [],
        "error": "no",
        "worker": object(),
        "until": 8,
        "places": 2,
        "taken": 1,
        "sent": 8,
        "number": 1,
        "report": "{}",
    }
    names = {each.name for each in kind.__attrs_attrs__}  # type: ignore[attr-defined]  # every message is of attrs
    message = kind(**{name: value for name, value in values.items() if name in names}, source="a", target="b")
    teller = Teller()
    assert teller.way(message) == "a -> b"
    assert kind.__name__ not in teller.says(message)
    assert "'a' to 'b'" in teller.calls(message)


def test_a_message_of_ones_own_is_told_by_its_fields() -> None:
    assert Teller().says(note(3)) == "sends Note(n=3)"
    assert Teller().calls(note(3)) == "the Note of 'me' to all"


async def test_a_story_counts_from_the_first_message_if_that_came_before_the_bus_was_opened() -> None:
    bus = RecordingBus()
    await bus.send(note(1))
    await sleep(2)
    for _ in range(2):
        async with bus:
            await bus.send(note(2))
        await sleep(1)
    assert [line.split()[0] for line in bus.story().splitlines()] == ["0.00", "2.00", "3.00"]


async def test_a_story_counts_from_the_first_time_that_the_bus_was_opened() -> None:
    bus = RecordingBus()
    for _ in range(2):
        async with bus:
            await bus.send(note(1))
        await sleep(1)
    assert [line.split()[0] for line in bus.story().splitlines()] == ["0.00", "1.00"]
