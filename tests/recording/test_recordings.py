"""Keeping what passes on a bus: what is kept, and what is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from support.messages import note
from support.recorded import SECRET, recorded, two_days
from support.workers import Helper, running
from workerbus import (
    BusActivateWorkerMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    JobError,
    JobStatus,
    MemoryBus,
    PeerBus,
    WorkerPool,
    WorkerRunner,
)
from workerbus.recording import Record, Recording, record
from workerbus.testing import PeerFaults, PeerNetwork


async def test_time_class_source_target_and_job_are_kept() -> None:
    """O1: of what the library sends, too."""
    async with running(Helper("helper"), name="runner") as runner:
        with record(runner) as recording:
            start = anyio.current_time()
            await anyio.sleep(2)
            await runner.job("helper", name="echo", payload={"n": 1})
    request, begins, answer, ends = (each for each in recording.records if each.job_id is not None)
    assert request == Record(
        start + 2, "BusJobRequestMessage", "runner", "helper", job_id=request.job_id, name="echo", size=15
    )
    assert (begins.kind, begins.source, begins.target) == ("handler begins", "helper", "helper")
    assert (answer.kind, answer.status, answer.source, answer.target) == (
        BusJobResponseMessage.__name__,
        JobStatus.COMPLETED,
        "helper",
        "runner",
    )
    assert (ends.kind, ends.source) == ("handler ends", "helper")


async def test_a_recording_begins_and_ends_with_its_block() -> None:
    """O1"""
    async with MemoryBus() as bus:
        await bus.send(note(1))
        with Recording(bus) as recording:
            await bus.send(note(2))
        await bus.send(note(3))
    assert [(each.kind, each.source) for each in recording.records] == [("Note", note(2).source)]


async def test_a_recording_is_a_tap_that_can_be_added_by_hand() -> None:
    """O1"""
    recording = Recording()
    async with MemoryBus() as bus:
        bus.add_tap(recording)
        await bus.send(note(1))
        bus.remove_tap(recording)
        await bus.send(note(2))
    assert len(recording) == 1


def texts(recording: Recording, tmp_path: Path) -> dict[str, str]:
    recording.save(tmp_path / "run.jsonl")
    return {
        "file": (tmp_path / "run.jsonl").read_text(),
        "mermaid": recording.mermaid(),
        "sequence": recording.sequence_svg(),
        "timeline": recording.timeline_svg(),
        "chrome": recording.chrome_trace(),
        "records": repr(recording.records),
        "jobs": repr(recording.jobs),
    }


def test_nothing_of_a_payload_is_kept_unless_it_was_asked_for(backend: str, tmp_path: Path) -> None:
    """O3: of requests, answers, updates, chunks, and of what an exception says; not even in a cancel's reason."""
    recording = recorded(backend)
    for what, text in texts(recording, tmp_path).items():
        assert SECRET not in text, what
    assert all(each.payload is None for each in recording.records)
    cancel = next(each for each in recording.records if each.kind == "BusJobCancelMessage")
    assert cancel.reason == "worker 'bob' raised ValueError"


def test_payloads_that_were_asked_for_are_in_the_records_and_in_the_file(backend: str, tmp_path: Path) -> None:
    """O3: and in no picture."""
    recording = recorded(backend, payloads=True)
    shown = texts(recording, tmp_path)
    assert {what for what, text in shown.items() if SECRET in text} == {"file"}
    assert any(each.payload == {"secret": SECRET} for each in recording.records)


async def test_custom_messages_are_kept_by_their_class_and_their_fields_only_if_asked_for() -> None:
    """O3"""
    async with MemoryBus() as bus:
        with Recording(bus) as plain, Recording(bus, payloads=True) as full:
            await bus.send(note(7))
            await bus.send(BusActivateWorkerMessage({"secret": 1}, source="a", target="b"))
    assert [each.payload for each in plain.records] == [None, None]
    assert [each.kind for each in plain.records] == ["Note", "BusActivateWorkerMessage"]
    first, second = full.records
    assert first.payload["n"] == 7
    assert second.payload["args"] == {"secret": 1}


async def test_the_oldest_records_are_dropped_beyond_the_limit_and_counted() -> None:
    """O1"""
    async with MemoryBus() as bus:
        with Recording(bus, limit=3) as recording:
            for n in range(10):
                await bus.send(note(n))
    assert len(recording) == 3
    assert recording.dropped == 7
    assert recording


def test_what_was_dropped_is_said_in_what_is_drawn(backend: str, tmp_path: Path) -> None:
    recording = recorded(backend, limit=20)
    assert recording.dropped > 20
    shown = texts(recording, tmp_path)
    assert f"{recording.dropped} records before this were dropped" in shown["mermaid"]
    for what in ("sequence", "timeline"):
        assert f"{recording.dropped} earlier records were dropped" in shown[what]
    assert f'"dropped": {recording.dropped}' in shown["chrome"]
    assert Recording.load(tmp_path / "run.jsonl").dropped == recording.dropped


async def test_a_job_that_is_asked_for_in_a_handler_names_the_job_around_it() -> None:
    """O1: also where a task of the handler's asks; a job of the runner's has none."""
    recording = await two_days()
    days = [each for each in recording.jobs if each.name == "day"]
    files = [each for each in recording.jobs if each.name == "file"]
    assert [day.parent for day in days] == [None, None]
    assert len(files) == 8
    assert {job.parent for job in files} == {(day.job_id, "desk") for day in days}


async def test_a_handler_that_was_recorded_leaves_its_task_fit_for_another_job() -> None:
    """J13: nothing of the recording is left in the task."""
    helper = Helper("helper")
    async with running(helper) as runner:
        with record(runner):
            for _ in range(3):
                await runner.job("helper", name="echo")
            tasks = [task.name for task in anyio.get_running_tasks() if task.name == "helper job"]
    assert tasks == ["helper job"]


async def test_the_member_of_a_pool_that_did_a_job_is_known() -> None:
    """S2: the job is the pool's, and its handler the member's."""
    async with running(WorkerPool("pool", Helper, size=2), name="runner") as runner:
        with record(runner) as recording:
            await runner.job("pool", name="echo")
    (done,) = recording.jobs
    assert done.worker == "pool"
    assert done.handler is not None
    assert done.handler.startswith("pool/")
    assert done.status == "completed"


async def test_recording_a_bus_that_is_closed_and_opened_goes_on() -> None:
    """R6"""
    recording = Recording()
    bus = MemoryBus()
    bus.add_tap(recording)
    for _ in range(2):
        async with WorkerRunner(bus=bus, handle_sigint=False) as runner:
            await runner.add_workers(Helper("helper"))
            with pytest.raises(JobError):
                await runner.job("helper", name="fail")
    assert [each.status for each in recording.jobs] == ["error", "error"]
    assert [each.reason for each in recording.jobs] == ["ValueError", "ValueError"]


def test_one_bus_may_be_recorded_in_one_event_loop_and_then_in_another() -> None:
    recording = Recording()
    bus = MemoryBus()
    bus.add_tap(recording)

    async def main() -> None:
        async with bus:
            await bus.send(note(1))

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(main, backend=backend)
    assert len(recording) == 3


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Recording(limit=0), ValueError, "at least 1, not 0"),
        (lambda: Recording(limit=True), ValueError, "not True"),
        (lambda: Recording(7), TypeError, "bus is a WorkerBus, not 7"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: record("runner"), TypeError, "bus is a WorkerBus, not 'runner'"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Recording().__enter__(), TypeError, "was given no bus"),
        (lambda: Recording().mermaid(most=0), ValueError, "most is at least 1"),
        (lambda: Recording().timeline_svg(most=0), ValueError, "most is at least 1"),
    ],
)
def test_a_mistake_is_refused_where_it_is_made(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


async def test_a_request_without_a_payload_and_one_that_holds_itself_have_a_size() -> None:
    payload: dict[str, Any] = {"a": [1, None, "xyz"], "b": b"12"}
    payload["self"] = payload
    async with MemoryBus() as bus:
        with Recording(bus) as recording:
            await bus.send(BusJobRequestMessage("1", source="a", target="b"))
            await bus.send(BusJobRequestMessage("2", None, payload, source="a", target="b"))
            await bus.send(BusJobRequestMessage("3", None, {"x": ["y" * 10] * 100_000}, source="a", target="b"))
    sizes = [each.size for each in recording.records]
    assert sizes[0] == 0
    assert sizes[1] > 0
    assert 10_000 < sizes[2] < 1_000_000


async def test_each_of_two_processes_sees_the_whole_of_a_job_that_one_asks_the_other_for() -> None:
    """O1, X6: a message passes where it leaves, and where it arrives; only the other one knows of the handler."""
    network = PeerNetwork(faults=PeerFaults(delay=0.5))
    seen: dict[str, Recording] = {}
    asked = anyio.Event()

    async def host(bus: PeerBus) -> None:
        with Recording(bus) as seen["right"]:
            async with WorkerRunner(bus=bus, name="right-runner") as runner:
                await runner.add_workers(Helper("helper"))
                await asked.wait()

    async def asks(bus: PeerBus) -> None:
        with Recording(bus) as seen["left"]:
            async with WorkerRunner(bus=bus, name="left-runner") as runner:
                await runner.job("helper", name="echo")
                asked.set()

    async with anyio.create_task_group() as group:
        group.start_soon(network.run, "right", host)
        group.start_soon(network.run, "left", asks)
    (left,), (right,) = seen["left"].jobs, seen["right"].jobs
    assert (left.worker, left.requester, left.status, left.begun) == ("helper", "left-runner", "completed", None)
    assert (right.worker, right.requester, right.status, right.handler) == (
        "helper",
        "left-runner",
        "completed",
        "helper",
    )
