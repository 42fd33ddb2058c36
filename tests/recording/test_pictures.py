"""Pictures of recordings: the sequence as Mermaid text and as SVG, and the timeline as SVG."""

import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.recorded import recorded
from workerbus import JobStatus
from workerbus.recording import Record, jobs_of
from workerbus.recording._mermaid import mermaid
from workerbus.recording._sequence import sequence_of
from workerbus.recording._sequence_svg import sequence_svg
from workerbus.recording._timeline import timeline_of
from workerbus.recording._timeline_svg import timeline_svg

SVG = "{http://www.w3.org/2000/svg}"
pictures = pytest.mark.parametrize("draw", [sequence_svg, timeline_svg])
Draw = Callable[..., str]


def texts(svg: str) -> list[str]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return [(each.text or "") + "".join(child.tail or "" for child in each) for each in found]


def titles(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}title")]


# --- a run, told


def test_a_run_as_mermaid_text() -> None:
    """Requests, folded chunks, cancels and answers; made-up names and ids become small numbers."""
    lines = recorded().mermaid().splitlines()
    assert lines[:5] == [
        "sequenceDiagram",
        "    participant p1 as runner-1",
        "    participant p2 as desk",
        "    participant p3 as ann",
        "    participant p4 as bob",
    ]
    day = [line.strip() for line in lines[5:]]
    assert day[:3] == ["p1->>p2: day (runner-1-1)", "p2->>p3: file (desk-1)", "p2->>p4: file (desk-1)"]
    assert sorted(day[3:5]) == ["p3--)p2: update (desk-1)", "p4--)p2: update (desk-1)"]
    assert day[5:11] == [
        "p4-->>p2: error: ValueError (desk-1)",
        "p2-xp3: cancel desk-1: worker 'bob' raised ValueError",
        "p3-->>p2: cancelled: Cancelled (desk-1)",
        "p2->>p4: pages (desk-2)",
        "p4--)p2: 12 chunks (desk-2)",
        "p4-->>p2: completed (desk-2)",
    ]
    assert "p1->>p2: day (runner-1-2)" in day


@pytest.mark.parametrize("kind", ["mermaid", "sequence_svg", "timeline_svg", "chrome_trace"])
def test_the_same_run_gives_the_same_picture(backend: str, kind: str) -> None:
    assert getattr(recorded(backend), kind)() == getattr(recorded(backend), kind)()


def test_a_sequence_says_who_says_what_to_whom() -> None:
    svg = recorded().sequence_svg()
    shown = texts(svg)
    for name in ("runner-1", "desk", "ann", "bob"):
        assert name in shown
    assert "12 chunks (desk-2)" in shown
    assert "bob → desk: 12 chunks (desk-2), at 2.12 s to 3.5 s" in titles(svg)
    classes = [each.get("class") for each in ElementTree.fromstring(svg).iter(f"{SVG}g")]
    assert {"open", "error", "cancelled", "completed", "ink"} <= set(classes)


def test_a_timeline_has_a_row_for_each_and_says_what_became_of_each_job() -> None:
    svg = recorded().timeline_svg()
    shown = texts(svg)
    for name in ("runner-1", "desk", "ann", "bob", "0", "2 s"):
        assert name in shown
    told = "\n".join(titles(svg))
    assert "file (desk-1) of desk, asked of ann at 0\nin job runner-1-1 of desk\nbegan after 0, at ann" in told
    assert "told to stop at 2 s\ncancelled after 2 s\nreason: worker 'bob' raised ValueError" in told
    assert "12 chunks\ncompleted after 1.5 s" in told
    assert "desk waits 2 s for file \N{MULTIPLICATION SIGN}2 (desk-1): ann cancelled, bob error" in told


def test_a_job_that_waits_for_its_turn_is_drawn_as_queued_first() -> None:
    records = [
        of("BusJobRequestMessage", 0.0, "a", "b"),
        of("handler begins", 4.0, "b", "b"),
        of("BusJobResponseMessage", 10.0, "b", "a", status=JobStatus.COMPLETED),
    ]
    svg = ElementTree.fromstring(timeline_svg(records, dropped=0, most=10))
    width = {
        kind: next(float(each.get("width", 0)) for each in svg.iter(f"{SVG}rect") if each.get("class") == kind)
        for kind in ("queued", "run", "waits")
    }
    assert width["queued"] / width["run"] == pytest.approx(4 / 6, rel=0.01)
    assert width["waits"] == pytest.approx(width["queued"] + width["run"], rel=0.01)
    words = {each.text for each in svg.iter(f"{SVG}text")}
    assert words >= {"queued", "a requester waits"}, "it is not said what they are"


@pictures
def test_both_colour_schemes_are_in_a_picture_and_nothing_is_loaded(draw: Draw) -> None:
    svg = draw(recorded().records, dropped=0, most=100)
    assert "@media (prefers-color-scheme: dark)" in svg
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"url\(|@import|href|<script|<foreignObject|<image", svg)


@pictures
def test_a_recording_of_nothing_says_so(draw: Draw) -> None:
    assert any("recorded" in text for text in texts(draw([], dropped=0, most=10)))
    assert mermaid([], dropped=0, most=10) == "sequenceDiagram\n"


def test_what_is_not_shown_for_its_length_is_counted() -> None:
    recording = recorded()
    assert "more, not shown" in recording.mermaid(most=5)
    assert recording.mermaid(most=5).count("->>") <= 5
    assert any(re.fullmatch(r"\d+ more steps are not shown", text) for text in texts(recording.sequence_svg(most=5)))
    assert "9 later jobs are not shown" in texts(recording.timeline_svg(most=3))


# --- what is folded


def of(kind: str, time: float, source: str, target: str | None, **fields: object) -> Record:
    fields.setdefault("job_id", "j")
    return Record(time, kind, source, target, **fields)  # type: ignore[arg-type]  # fields by name


def said(*records: Record) -> list[str]:
    return [f"{step.source} {step.target} {step.text}" for step in sequence_of(records).steps]


CHUNK = "BusJobStreamDataMessage"


def test_chunks_are_folded_until_the_job_says_something_else() -> None:
    assert said(
        of(CHUNK, 1, "b", "a"),
        of("BusJobStreamWindowMessage", 1, "a", "b"),
        of(CHUNK, 2, "b", "a"),
        of("BusJobUpdateMessage", 3, "b", "a"),
        of(CHUNK, 4, "b", "a"),
    ) == ["b a 2 chunks (j)", "b a update (j)", "b a chunk (j)"]


@pytest.mark.parametrize("kind", ["BusJobCancelMessage", "BusJobRequestMessage", "BusJobResponseMessage"])
def test_nothing_is_folded_over_a_step_that_stands_alone(kind: str) -> None:
    """O1: the chunks on its other side are a step of their own."""
    between = of(kind, 2, *("ba" if kind == "BusJobResponseMessage" else "ab"), status=JobStatus.COMPLETED)
    steps = said(of(CHUNK, 0, "b", "a"), of(CHUNK, 1, "b", "a"), between, of(CHUNK, 3, "b", "a"))
    assert [steps[0], *steps[2:]] == ["b a 2 chunks (j)", "b a chunk (j)"]


def test_chunks_of_two_streams_that_alternate_are_folded_each_for_itself() -> None:
    two = [of(CHUNK, time, worker, "a") for time in range(5) for worker in ("b", "c")]
    assert said(*two) == ["b a 5 chunks (j)", "c a 5 chunks (j)"]


def test_frames_of_one_class_are_folded_and_others_are_not() -> None:
    def frame(name: str) -> Record:
        return of("BusFrameMessage", 1, "a", None, job_id=None, name=name)

    assert said(frame("Line"), frame("Line"), frame("Reply")) == [
        "a None 2 \N{MULTIPLICATION SIGN} Line",
        "a None Reply",
    ]


def test_what_the_library_says_for_its_own_sake_is_left_out_and_what_concerns_a_run_is_not() -> None:
    assert said(
        of("BusWorkerReadyMessage", 1, "a", None, job_id=None),
        of("BusWorkerRegistryMessage", 1, "r", None, job_id=None),
        of("BusActivateWorkerMessage", 1, "a", "b", job_id=None),
        of("BusEndMessage", 1, "a", None, job_id=None, reason="enough"),
        of("Reading", 1, "a", "b", job_id=None),
    ) == ["a b activate", "a None end: enough", "a b Reading"]


# --- any names, any order


names = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["<script>alert(1)</script>", '"/><image href="//x"/>', "end", "a;b#c%%", "\x00\x1b\ud800", "a\nb", "]]>", "é 漢字"]
)
kinds = st.sampled_from(
    [
        "BusJobRequestMessage", "BusJobResponseMessage", "BusJobStreamDataMessage", "BusJobUpdateMessage",
        "BusJobCancelMessage", "handler begins", "handler ends", "Reading", "BusFrameMessage",
        "BusActivateWorkerMessage",
    ]
)  # fmt: skip


@st.composite
def many_records(draw: st.DrawFn) -> list[Record]:
    some = draw(st.lists(names, min_size=1, max_size=4))
    who = st.sampled_from(some)
    records: list[Record] = []
    time = draw(st.floats(-1e6, 1e6))
    for _ in range(draw(st.integers(0, 25))):
        time += draw(st.sampled_from([0.0, 1e-7, 0.25, 3600.0]))
        kind = draw(kinds)
        records.append(
            Record(
                time,
                kind,
                draw(who),
                draw(who | st.none()),
                job_id=None if kind == "Reading" else draw(st.sampled_from(["1", "2"]) | names),
                name=draw(names | st.none()),
                status=draw(st.sampled_from(JobStatus)) if kind == "BusJobResponseMessage" else None,
                reason=draw(names | st.none()),
            )
        )
    return records


@given(many_records())
def test_a_picture_is_whole_and_plain_whatever_the_names_are(records: list[Record]) -> None:
    for draw in (sequence_svg, timeline_svg):
        root = ElementTree.fromstring(draw(records, dropped=3, most=7))
        tags = {each.tag.removeprefix(SVG) for each in root.iter()}
        assert tags <= {"svg", "style", "rect", "line", "path", "circle", "text", "title", "g"}
        for each in root.iter():
            assert not {"href", "onload", "style"} & set(each.attrib)
            for attribute in ("x", "y", "width", "height", "x1", "y1"):
                value = each.get(attribute, "0").rstrip("%")
                assert float(value) == float(value)
                assert float(value) >= 0 or attribute.startswith(("x", "y"))


MERMAID = [
    re.compile(r"sequenceDiagram"),
    re.compile(r"    participant p\d+ as (?:[^#;\n%]|#\d+;)+"),
    re.compile(r"    p\d+(?:->>|-->>|--\)|-x|-\))p\d+: (?:[^#;\n%]|#\d+;)+"),
    re.compile(r"    Note over p\d+: (?:[^#;\n%]|#\d+;)+"),
]


@given(many_records())
def test_mermaid_text_is_well_formed_whatever_the_names_are(records: list[Record]) -> None:
    for line in mermaid(records, dropped=3, most=7)[:-1].split("\n"):
        assert any(each.fullmatch(line) for each in MERMAID), line


def test_jobs_and_made_up_names_are_called_the_same_in_all_pictures() -> None:
    """O1: whoever was met first in a sequence diagram has the first number; who is left out there has none before."""
    a, b, c = (f"runner-{letter * 12}-1" for letter in "abc")
    nine, eight, seven = (f"{digit * 12}-1" for digit in "987")
    records = [
        of("BusWorkerReadyMessage", 0, c, None),
        of("BusJobUpdateMessage", 1, "w", b, job_id=seven),
        of("BusJobRequestMessage", 2, a, "w", job_id=nine, name="parse"),
        of("BusJobRequestMessage", 3, b, "w", job_id=eight, name="draw"),
    ]
    jobs = [bar.job for lane in timeline_of(records).lanes for bar in lane.bars]
    steps = [step for step in sequence_of(records).steps if step.kind == "request"]
    assert [(job.job_id, job.requester) for job in jobs] == [(step.job, step.source) for step in steps]
    assert [(step.job, step.source) for step in steps] == [("runner-2-1", "runner-2"), ("runner-1-2", "runner-1")]


def test_a_job_that_begins_when_another_has_ended_has_its_line() -> None:
    def done(begin: float, end: float, job_id: str) -> list[Record]:
        return [
            of("BusJobRequestMessage", begin, "a", "b", job_id=job_id),
            of("BusJobResponseMessage", end, "b", "a", job_id=job_id, status=JobStatus.COMPLETED),
        ]

    jobs = [*done(0, 2, "1"), *done(1, 3, "2"), *done(2, 4, "3")]
    asking, working = timeline_of(sorted(jobs, key=lambda each: each.time)).lanes
    assert [bar.place for bar in working.bars] == [0, 1, 0]
    assert [wait.place for wait in asking.waits] == [0, 1, 0]


@given(many_records())
def test_bars_in_one_line_of_a_row_do_not_overlap_and_every_job_has_one(records: list[Record]) -> None:
    told = timeline_of(records)
    assert sum(len(lane.bars) for lane in told.lanes) == len(jobs_of(records))
    for lane in told.lanes:
        bars = [(bar.place, bar.job.asked, bar.end) for bar in lane.bars]
        waits = [(wait.place, wait.begin, wait.end) for wait in lane.waits]
        for placed in (sorted(bars), sorted(waits)):
            for (place, _, end), (next_place, begin, _) in pairwise(placed):
                assert place != next_place or end <= begin
