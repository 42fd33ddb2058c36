"""J5-J13, W6: scripts that are seldom drawn, played as the model says."""

from properties.model.script import Setting
from properties.model.stage import play_steps
from properties.model.steps import Advance, Ask, Cancel, Outside, Revive, Stop, Tell


def test_a_worker_that_stops_leaves_its_own_groups_before_it_answers_them(backend: str) -> None:
    """W6: it has asked itself; its group is cancelled, and not completed by the answer that the worker stops."""
    play_steps(
        Setting(workers=1),
        [Ask(1, "w0", ("w0",), job="defer", cancel_on_error=False), Tell(1, "w0", "return"), Stop("w0")],
        backend=backend,
        seed=0,
    )


def test_time_that_an_answered_job_handed_down_is_still_told_when_it_is_up(backend: str) -> None:
    """J6: the outer job has been answered, so that its requester is not cancelled; the inner one is slow to unwind."""
    play_steps(
        Setting(workers=1),
        [
            Ask(2, "runner", ("w0",), timeout=0.25),
            Ask(3, "w0", ("w0",), inside=2),
            Tell(3, "w0", "slow"),
            Outside(2, "w0", "urgent completed"),
            Advance(0.25),
            Stop("w0"),
        ],
        backend=backend,
        seed=779,
    )


def test_a_cancellation_that_comes_while_a_cancelled_job_unwinds_wins(backend: str) -> None:
    """J8: also where the job is only awaited, and has no scope of its own."""
    play_steps(
        Setting(workers=1),
        [
            Ask(1, "asker", ("w0",), form="await", within=0.5),
            Tell(1, "w0", "slow"),
            Cancel(1),
            Advance(0.5),
            Advance(1.5),
        ],
        backend=backend,
        seed=7,
    )


def test_a_worker_that_times_out_for_a_scope_with_more_time_cancels_the_body_at_once(backend: str) -> None:
    """J8, J6: the outer job has been answered, so its time ends nothing; the body of the inner one does not look."""
    play_steps(
        Setting(workers=1),
        [
            Ask(4, "runner", ("w0",), timeout=0.25),
            Ask(5, "w0", ("w0",), inside=4, loop=False),
            Tell(4, "w0", "completed"),
            Advance(0.5),
        ],
        backend=backend,
        seed=1638,
    )


def test_time_that_is_up_is_told_whatever_the_requester_does_meanwhile(backend: str) -> None:
    """J6: the outer job has been answered, the inner one is slow to unwind, and nobody waits for it."""
    play_steps(
        Setting(),
        [
            Ask(0, "runner", ("w0",), within=0.25),
            Ask(1, "w0", ("w0",), inside=0, loop=False),
            Tell(0, "w0", "urgent completed"),
            Tell(1, "w0", "slow"),
            Advance(0.25),
        ],
        backend=backend,
        seed=5926,
    )


def test_whoever_waits_for_a_worker_that_left_meanwhile_has_asked_those_before_it(backend: str) -> None:
    """J6: one that was there when the wait began is waited for anew."""
    play_steps(
        Setting(),
        [
            Stop("w1"),
            Ask(1, "asker", ("w0", "w2", "w1"), job="none", form="hooks", cancel_on_error=False),
            Stop("w2"),
            Revive("w1"),
        ],
        backend=backend,
        seed=65535,
    )


def test_whoever_asks_workers_that_have_failed_has_asked_the_others(backend: str) -> None:
    """J4: those that have failed have answered, before or after the others; nobody waits for them."""
    play_steps(
        Setting(),
        [
            Stop("w1", crash=True),
            Ask(1, "asker", ("w0", "w2", "w1"), job="none", form="hooks", cancel_on_error=False),
            Stop("w2", crash=True),
            Revive("w1"),
        ],
        backend=backend,
        seed=65535,
    )


def test_a_job_whose_turn_comes_while_its_cancel_is_on_its_way_may_begin(backend: str) -> None:
    """J13: the place is free when the handler before it has raised, and the cancel comes once another has unwound."""
    play_steps(
        Setting(workers=4),
        [
            Ask(0, "runner", ("w3", "w0"), job="turn"),
            Ask(2, "w3", ("w0", "w2"), job="turn", inside=0),
            Tell(0, "w0", "raise"),
        ],
        backend=backend,
        seed=26362,
    )
