"""O4: what is made of the messages that were noted, and that none of it grows without a bound."""

import json
import sys
from contextvars import copy_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbus import (
    BusDataMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobUpdateMessage,
    JobStatus,
)
from workerbus.observing import _stories
from workerbus.observing._overview import Overview
from workerbus.observing._stories import Stories
from workerbus.runner._notes import Note, Notes
from workerbus.runner._rows import difference


def asked(job_id: str, at: float, source: str = "me", target: str = "w") -> Note:
    return Note(at, "asked", job_id, source, target, "work")


def answered(job_id: str, at: float, status: str = "completed", source: str = "w") -> Note:
    return Note(at, "answered", job_id, source, "me", status)


def test_a_tap_notes_of_jobs_who_and_what_and_no_payload() -> None:
    """O3: a message itself is not kept."""
    notes = Notes(lambda _: None)
    secret = {"secret": 1}
    held = sys.getrefcount(secret)
    for message in (
        BusJobRequestMessage("1", "parse", secret, source="me", target="w"),
        BusJobUpdateMessage("1", secret, source="w", target="me"),
        BusJobStreamDataMessage("1", secret, source="w", target="me"),
        BusJobStreamEndMessage("1", secret, source="w", target="me"),
        BusJobResponseMessage("2", JobStatus.FAILED, secret, source="w", target="me"),
        BusJobCancelMessage("2", "enough", source="me", target="w"),
        BusDataMessage(source="me"),
    ):
        notes(message)
    del message
    taken = notes.take()
    assert [(note.kind, note.text) for note in taken] == [
        ("asked", "parse"),
        ("update", None),
        ("chunk", None),
        ("answered", None),
        ("answered", "failed"),
        ("cancel", "enough"),
    ]
    assert (notes.full, notes.take()) == (0, [])
    assert sys.getrefcount(secret) == held


def test_who_has_seen_enough_takes_itself_off() -> None:
    """O4: so what it costs has a bound; there is room again when the notes are taken."""
    taken_off: list[Notes] = []
    notes = Notes(taken_off.append, room=10)
    for number in range(11):
        assert not taken_off
        notes(BusJobRequestMessage(str(number), source="me", target="w"))
    assert (taken_off, notes.full) == ([notes], 1)
    assert [note.job_id for note in notes.take()] == [str(number) for number in range(10)]
    notes(BusJobRequestMessage("again", source="me", target="w"))
    assert [note.job_id for note in notes.take()] == ["again"]


def test_in_which_job_a_request_is_asked_for_is_unknown_where_messages_were_left_out() -> None:
    """O4: a handler may have begun among them; what is known to be in none is told so."""
    notes = Notes(lambda _: None, room=2)
    outer, handler = BusJobRequestMessage("outer", source="me", target="w"), copy_context()

    def parent() -> str | None:
        notes(BusJobRequestMessage("inner", source="w", target="v"))
        (note,) = notes.take()
        return note.parent

    assert parent() is None
    handler.run(notes.job_begins, "w", outer)
    assert (handler.run(parent), parent()) == ("outer", "")
    for _ in range(3):
        notes(outer)
    notes.take()
    assert parent() is None
    handler.run(notes.job_ends, "w", outer)
    assert parent() is None


@pytest.mark.parametrize("first", ["v", "w"])
def test_the_handlers_of_two_workers_of_a_group_are_told_apart(first: str) -> None:
    """O4: when one has ended, what its task asks for next is in no job, and what the other one asks for still is."""
    notes = Notes(lambda _: None)
    group = {name: BusJobRequestMessage("group", source="me", target=name) for name in ("v", "w")}
    tasks = {name: copy_context() for name in group}

    def parent(name: str) -> str | None:
        tasks[name].run(notes, BusJobRequestMessage("inner", source=name, target="x"))
        (note,) = notes.take()
        return note.parent

    for name, task in tasks.items():
        task.run(notes.job_begins, name, group[name])
    other = "w" if first == "v" else "v"
    assert [parent(name) for name in tasks] == ["group", "group"]
    tasks[first].run(notes.job_ends, first, group[first])
    assert (parent(first), parent(other)) == (None, "group")
    tasks[other].run(notes.job_ends, other, group[other])
    assert parent(other) is None


@pytest.mark.parametrize("first", ["1", "2"])
def test_of_a_worker_with_several_jobs_it_is_known_what_is_asked_for_in_none_until_the_last_has_ended(
    first: str,
) -> None:
    """O4: a task of its own is in no job; when nothing is known any more, neither is that."""
    notes = Notes(lambda _: None)
    requests = {name: BusJobRequestMessage(name, source="me", target="w") for name in "12"}
    tasks = {name: copy_context() for name in requests}

    def parent() -> str | None:
        notes(BusJobRequestMessage("inner", source="w", target="x"))
        (note,) = notes.take()
        return note.parent

    assert parent() is None
    for name, task in tasks.items():
        task.run(notes.job_begins, "w", requests[name])
        assert not parent()
    last = "2" if first == "1" else "1"
    tasks[first].run(notes.job_ends, "w", requests[first])
    assert parent() == ""
    tasks[last].run(notes.job_ends, "w", requests[last])
    assert parent() is None


def test_restarts_are_counted_for_each_worker() -> None:
    """O4, S3"""
    stories = Stories()
    names = ("v", "w", "v")
    for at, name in enumerate(names):
        stories.add([Note(float(at), "restart", "", name, None, None)])
    assert stories.restarts == {"v": 2, "w": 1}


def test_a_group_is_open_until_its_last_answer() -> None:
    """O4"""
    stories = Stories()
    stories.add([asked("1", 0, target="a"), asked("1", 0, target="b"), answered("1", 2, source="a")])
    told = stories.get("1")
    assert told is not None
    assert told.open
    stories.add([answered("1", 3, "error", source="b"), answered("1", 9, source="a")])
    assert not told.open
    assert {name: (leg.ended, leg.status) for name, leg in told.legs.items()} == {
        "a": (2, "completed"),
        "b": (3, "error"),
    }
    assert stories.latencies == [2, 3]


def test_a_job_is_nested_where_its_requester_had_one_job() -> None:
    """O4: of two it might be either."""
    stories = Stories()
    stories.add([asked("1", 0), asked("1-1", 1, source="w", target="v"), answered("1-1", 2, source="v")])
    stories.add([asked("2", 3), asked("?", 4, source="w", target="v")])
    found = {job_id: stories.get(job_id) for job_id in ("1-1", "?")}
    assert {job_id: each and each.parent for job_id, each in found.items()} == {"1-1": "1", "?": None}
    outer = stories.get("1")
    assert outer is not None
    assert [each.job_id for each in stories.family(outer)] == ["1", "1-1"]


def test_the_family_of_a_job_has_all_that_were_asked_for_in_it() -> None:
    """O4: and those that were asked for in these; the ones that were asked for first come first."""
    stories, at = Stories(), iter(range(100))
    stories.add([asked("1", next(at), target="w")])
    for child in ("1-1", "1-2", "1-3"):
        stories.add([asked(child, next(at), "w", "v")])
        for grandchild in (f"{child}-1", f"{child}-2"):
            stories.add([asked(grandchild, next(at), "v", "u"), answered(grandchild, next(at), source="u")])
        stories.add([answered(child, next(at), source="v")])
    stories.add([asked("2", next(at), target="x"), asked("2-1", next(at), "x", "v")])
    story = stories.get("1")
    assert story is not None
    children = ["1-1", "1-2", "1-3"]
    grandchildren = [f"{child}-{n}" for child in children for n in (1, 2)]
    assert [each.job_id for each in stories.family(story)] == ["1", *children, *grandchildren]


JOBS = ("1", "2", "3", "4")
WORKERS = ("a", "b", "c")


@given(
    st.lists(
        st.tuples(st.just("ask"), st.sampled_from(WORKERS), st.sampled_from(JOBS), st.sampled_from(WORKERS))
        | st.tuples(st.just("answer"), st.sampled_from(WORKERS), st.sampled_from(JOBS), st.just("")),
        max_size=30,
    )
)
def test_a_job_is_nested_where_its_requester_was_at_work_on_one_job_at_that_moment(
    steps: list[tuple[str, str, str, str]],
) -> None:
    """O4: whatever groups there are, and whatever has ended before."""
    stories, parents = Stories(), dict[str, str | None]()
    at_work: dict[str, set[str]] = {each: set() for each in WORKERS}
    open_legs: dict[str, set[str]] = {}
    legs = set[tuple[str, str]]()
    for at, (what, source, job_id, target) in enumerate(steps):
        if what == "answer":
            stories.add([answered(job_id, at, source=source)])
            open_legs.get(job_id, set()).discard(source)
            at_work[source].discard(job_id)
        elif (job_id, target) not in legs:
            mine = at_work[source]
            if parents.get(job_id) is None:
                parents[job_id] = next(iter(mine)) if len(mine) == 1 and job_id not in mine else None
            stories.add([asked(job_id, at, source, target)])
            legs.add((job_id, target))
            open_legs.setdefault(job_id, set()).add(target)
            at_work[target].add(job_id)
    found = {job_id: stories.get(job_id) for job_id in parents}
    assert {job_id: each and each.parent for job_id, each in found.items()} == parents
    assert {job_id for job_id, each in found.items() if each and each.open} == {
        job_id for job_id, each in open_legs.items() if each
    }


def arrived(note: Note) -> Note:
    return note._replace(origin="peer")


@pytest.mark.parametrize("turned", [False, True], ids=["who asks tells first", "who answers tells first"])
def test_what_two_processes_tell_of_one_job_is_one_story(turned: bool) -> None:
    """O7: in any order; each message is there once, as it was sent, and the inner job belongs to the outer one."""
    asking = [asked("1", 1.0, source="me", target="w"), arrived(answered("1", 5.1, source="w"))]
    working = [
        arrived(asked("1", 1.2, source="me", target="w")),
        asked("1-1", 2.0, source="w", target="v"),
        answered("1-1", 3.0, source="v"),
        answered("1", 5.0, source="w"),
    ]
    overview = Overview()
    for notes in (working, asking) if turned else (asking, working):
        overview.stories.add(notes, {"peer"})
    story = overview.story("1")
    assert story is not None
    assert [(at, kind, job_id) for at, kind, _, _, _, job_id in story["steps"]] == [
        (1.0, "asked", "1"),
        (2.0, "asked", "1-1"),
        (3.0, "answered", "1-1"),
        (5.0, "answered", "1"),
    ]
    assert story["legs"] == {"w": [1.0, 5.0, "completed", 0]}
    assert not story["open"]
    assert overview.stories._at_work == {}


def test_no_answer_is_before_its_request_though_clocks_differ() -> None:
    """O7"""
    overview = Overview()
    overview.stories.add([answered("1", 4.9), asked("1", 5.0)])
    overview.stories.add([answered("1", 4.9)])
    story = overview.story("1")
    assert story is not None
    assert [step[0] for step in story["steps"]] == [5.0, 5.0]
    assert story["legs"]["w"] == [5.0, 5.0, "completed", 0]


def test_no_answer_is_before_its_request_though_who_answers_tells_first() -> None:
    """O7"""
    overview = Overview()
    overview.stories.add([arrived(asked("1", 4.8)), answered("1", 4.9)], {"peer"}, "there")
    overview.stories.add([asked("1", 5.0), arrived(answered("1", 5.1))], {"peer"}, "here")
    story = overview.story("1")
    assert story is not None
    assert [step[1] for step in story["steps"]] == ["asked", "answered"]
    assert story["legs"]["w"] == [5.0, 5.0, "completed", 0]


def test_the_longest_and_the_failed_of_each_second_are_drawn() -> None:
    """O4: for a minute."""
    stories = Stories()
    for number in range(100):
        stories.add([asked(f"{number}", 5), answered(f"{number}", 5 + number / 200)])
    stories.add([asked("bad", 5.0), answered("bad", 5.001, "error")])
    drawn = {story.job_id for story, _ in stories.drawn()}
    assert drawn == {"bad", *(str(number) for number in range(89, 100))}
    stories.forget_before(65)
    assert {story.job_id for story, _ in stories.drawn()} == drawn
    stories.forget_before(66)
    assert not list(stories.drawn())


def test_of_what_is_over_the_last_minute_is_drawn_though_nobody_has_looked_for_long() -> None:
    """O4: one look forgets all seconds that are older."""
    stories = Stories()
    for second in range(200):
        stories.add([asked(str(second), second), answered(str(second), second + 0.5)])
    stories.forget_before(200)
    assert {story.job_id for story, _ in stories.drawn()} == {str(second) for second in range(140, 200)}


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """O4: jobs that are over, jobs without an answer, the steps of one job, and who is at work."""
    monkeypatch.setattr(_stories, "OPEN", 50)
    stories = Stories()
    for number in range(3000):
        stories.add([asked(f"open-{number}", number, target=f"w{number}")])
        stories.add([asked(f"{number}", number), answered(f"{number}", number)])
        stories.forget_before(number)
    assert len(stories) <= _stories.LAST + 50 + 60 * _stories.LONGEST
    assert len(stories._at_work) <= 51
    stories.add([asked("long", 0), *(Note(1, "update", "long", "w", "me", None) for _ in range(10_000))])
    overview = Overview()
    overview.stories = stories
    told = overview.story("long")
    assert told is not None
    assert (len(told["steps"]), told["left_out"], told["legs"]["w"][3]) == (200, 9801, 10_000)


KINDS = ["asked", "answered", "update", "chunk", "cancel", "restart"]
NAMES = st.sampled_from(["a", "b", "c"])


@given(
    st.lists(
        st.builds(
            Note,
            st.floats(0, 200),
            st.sampled_from(KINDS),
            st.sampled_from(["1", "2", "3"]),
            NAMES,
            st.one_of(st.none(), NAMES),
            st.one_of(st.none(), st.sampled_from(["completed", "error"])),
            st.sampled_from([None, "elsewhere", "somewhere"]),
        )
    )
)
def test_nothing_that_passes_confuses_a_story(notes: list[Note]) -> None:
    """O4: answers before requests, twice, of nobody; and what is told is JSON."""
    overview = Overview()
    overview.stories.add(notes, {"elsewhere"})
    overview.stories.forget_before(100)
    for job_id in ("1", "2", "3"):
        json.dumps(overview.story(job_id))


ROWS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


@given(ROWS, ROWS)
def test_a_difference_makes_one_state_of_the_other(old: dict[str, int], new: dict[str, int]) -> None:
    """O4: and where there is none, nothing is told."""
    changes = difference({"rows": old}, {"rows": new})
    assert (changes == {}) == (old == new)
    change = changes.get("rows", {"set": {}, "gone": []})
    assert {key: row for key, row in {**old, **change["set"]}.items() if key not in change["gone"]} == new
