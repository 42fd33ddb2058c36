"""Recordings in files, and all that can be written of recordings."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.messages import note
from support.recorded import recorded
from workerbus import BusJobRequestMessage, MemoryBus, RecordingError
from workerbus.recording import FORMATS, Recording, Recordings, write
from workerbus.testing import run


@pytest.mark.parametrize("payloads", [False, True])
def test_what_was_saved_and_loaded_is_the_same_and_gives_the_same_pictures(
    backend: str, tmp_path: Path, payloads: bool
) -> None:
    recording = recorded(backend, payloads=payloads)
    path = tmp_path / "run.jsonl"
    recording.save(path)
    loaded = Recording.load(path)
    assert loaded.records == recording.records
    assert loaded.jobs == recording.jobs
    assert loaded.mermaid() == recording.mermaid()
    assert loaded.sequence_svg() == recording.sequence_svg()
    assert loaded.timeline_svg() == recording.timeline_svg()
    assert loaded.chrome_trace() == recording.chrome_trace()
    loaded.save(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == path.read_text()


async def test_payloads_that_json_has_no_form_for_are_written_all_the_same(tmp_path: Path) -> None:
    itself: dict[str, Any] = {}
    itself["self"] = itself
    payloads: list[Any] = [{"set": {1}}, {(1, 2): 3}, itself, {"lone": "\ud800"}]
    async with MemoryBus() as bus:
        with Recording(bus, payloads=True) as recording:
            for each in payloads:
                await bus.send(BusJobRequestMessage("1", None, each, source="a", target="b"))
    recording.save(tmp_path / "run.jsonl")
    first, second, third, fourth = Recording.load(tmp_path / "run.jsonl").records
    assert first.payload == {"set": "{1}"}
    assert second.payload == "{(1, 2): 3}"
    assert third.payload == "{'self': {...}}"
    assert fourth.payload is not None


HEAD = '{"workerbus": "recording", "version": 1, "dropped": 0, "payloads": false}\n'


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        ("", None, "it does not begin with the head of one"),
        ("[]\n", 1, "it is no JSON object"),
        ('{"n": 1}\n', None, "it does not begin with the head of one"),
        ("<svg/>", 1, "it is no JSON"),
        (HEAD.replace("1", "2"), None, "it is of version 2, and this reads 1"),
        (HEAD.replace("0", "null"), 1, "its head is not whole"),
        (HEAD + '{"time": 1.0, "kind": "No', 2, "it is no JSON; the file may have been cut off"),
        (HEAD + '{"time": "now", "kind": "Note", "source": "a"}', 2, "time cannot be 'now'"),
        (HEAD + '{"time": 1, "kind": "Note"}', 2, "source cannot be None"),
        (HEAD + '{"time": 1, "kind": "Note", "source": "a", "status": "well"}', 2, "status cannot be 'well'"),
        (HEAD + '{"time": 1, "kind": "Note", "source": "a", "parent": ["x"]}', 2, "parent cannot be"),
        (b"\xff\xfe", None, "it is no text in UTF-8"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_its_line(
    tmp_path: Path, content: str | bytes, line: int | None, why: str
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecordingError, match=why) as caught:
        Recording.load(path)
    assert caught.value.path == str(path)
    assert caught.value.line == line


def test_every_bus_that_is_made_in_the_block_is_recorded_for_itself(tmp_path: Path) -> None:
    """O1: those over which nothing passed are left out."""

    async def main() -> None:
        async with MemoryBus() as bus:
            await bus.send(note(1))
        late.append(bus)

    late: list[MemoryBus] = []
    before = MemoryBus()
    with Recordings() as recordings:
        MemoryBus()
        run(main)
        run(main, backend="trio")

    async def more() -> None:
        for bus in (*late, before):
            async with bus:
                await bus.send(note(2))

    run(more)
    assert [len(each) for each in recordings.recordings] == [1, 1]
    written = recordings.save(tmp_path / "deep" / "er", "run")
    assert sorted(path.name for path in written) == sorted(
        f"{stem}{suffix}"
        for stem in ("run", "run-2")
        for suffix in (".jsonl", ".mmd", ".sequence.svg", ".timeline.svg", ".trace.json")
    )
    assert all(path.read_text() for path in written)


def test_of_many_buses_the_last_are_kept_and_the_others_counted() -> None:
    """O1: those that are dropped are not recorded any more, either."""

    async def main() -> None:
        for bus in buses:
            async with bus:
                await bus.send(note(1))

    with Recordings(buses=2) as recordings:
        buses = [MemoryBus() for _ in range(5)]
        run(main)
    assert len(recordings.recordings) == 2
    assert recordings.dropped == 3
    assert not any(bus._taps for bus in buses)
    with pytest.raises(ValueError, match="buses is at least 1"):
        Recordings(buses=0)


def test_the_formats_that_were_asked_for_are_written(tmp_path: Path) -> None:
    recording = recorded()
    assert FORMATS == ("records", "mermaid", "sequence", "timeline", "chrome")
    (path,) = write([recording], tmp_path, "run", ["chrome"])
    assert path.name == "run.trace.json"
    assert json.loads(path.read_text()) == json.loads(recording.chrome_trace())
    with pytest.raises(ValueError, match="the formats are records, mermaid, sequence, timeline, chrome, not png"):
        write([recording], tmp_path, "run", ["png", "chrome"])
