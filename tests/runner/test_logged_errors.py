"""O4, R8: errors that the library logs are kept for the page, and written as they were before."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from workerbus.runner import _logged
from workerbus.runner._logged import LoggedErrors

logger = logging.getLogger("workerbus.jobs")


@pytest.fixture
def errors() -> Iterator[LoggedErrors]:
    errors = LoggedErrors("mine")
    errors.listen()
    yield errors
    errors.stop()


def test_what_is_no_error_is_not_kept(errors: LoggedErrors) -> None:
    """O4: nor what is about another runner."""
    logger.warning("only this")
    logger.error("that", extra={"runner": "another"})
    logger.error("this", extra={"runner": "mine", "worker": "w", "job": "1"})
    (kept,) = errors.kept
    assert (kept.text, kept.worker, kept.job_id, kept.traceback, errors.seen) == ("this", "w", "1", "", 1)


def test_of_many_errors_the_first_of_each_second_are_kept(
    errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O4: so a flood of errors costs little, and has a bound."""
    seconds = [0.0]
    monkeypatch.setattr(_logged, "monotonic", lambda: seconds[0])
    for second in range(1, 21):
        seconds[0] = float(second)
        for number in range(100):
            logger.error("error %s", number)
    assert errors.seen == 2000
    assert len(errors.kept) == _logged.KEPT
    assert [error.text for error in errors.kept][-1] == "error 9"


def test_a_long_traceback_is_cut_at_its_beginning(errors: LoggedErrors) -> None:
    """O4"""
    try:
        raise ValueError("x" * 20_000 + "the end")
    except ValueError:
        logger.exception("failed")
    (kept,) = errors.kept
    assert len(kept.traceback) == _logged.LONGEST
    assert kept.traceback.endswith("the end\n")


@contextmanager
def nobody_listening() -> Iterator[None]:
    """No handlers but those of a view, as in a program that has configured nothing."""
    root, own = logging.getLogger(), logging.getLogger("workerbus")
    before = root.handlers[:], own.handlers[:]
    root.handlers, own.handlers = [], []
    try:
        yield
    finally:
        root.handlers, own.handlers = before


def test_a_program_without_logging_sees_what_it_saw_before(capsys: pytest.CaptureFixture[str]) -> None:
    """R8: Python writes what it wrote where nothing was configured; once, however many views there are."""
    one, other = LoggedErrors("one"), LoggedErrors("other")
    with nobody_listening():
        one.listen()
        other.listen()
        logger.warning("take care")
        logger.error("went wrong")
        logger.info("nothing")
        one.stop()
        other.stop()
    assert capsys.readouterr().err == "take care\nwent wrong\n"


def test_what_others_write_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    """R8: by their handler alone."""
    handler = logging.StreamHandler()
    errors = LoggedErrors("one")
    with nobody_listening():
        errors.listen()
        logger.addHandler(handler)
        logger.error("went wrong")
        logger.removeHandler(handler)
        errors.stop()
    assert capsys.readouterr().err == "went wrong\n"
