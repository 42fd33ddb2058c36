"""How a run has ended: what is told of it afterwards, and what a block that was cut short raises (R5).

Knows what was asked for and what was raised, and nothing of how the end comes about.
"""

from signal import SIGINT, Signals
from typing import Literal

from workerbus._values import Value, value
from workerbus.errors import RunCancelled, text_of


@value
class RunOutcome(Value):
    """How a run ended.

    Args:
        how: ``"finished"``: by itself, since its workers have finished or its block was left; ``"ended"``: by an end;
            ``"cancelled"``: by a cancel or from outside; ``"failed"``: by an exception.
        reason: Why, in words: the reason given to `end` or `cancel`, the name of the signal, or the exception; else
            None.
        signal: The signal that the runner got, if any.

    Guarantees: R5.
    """

    how: Literal["finished", "ended", "cancelled", "failed"]
    reason: str | None
    signal: Signals | None


def failed(exc: BaseException, signal: Signals | None) -> RunOutcome:
    """Return the outcome of a run that raises an exception."""
    return RunOutcome("failed", f"{type(exc).__name__}: {text_of(exc)}", signal)


def cut_short(outcome: RunOutcome, runner_name: str) -> BaseException:
    """Return what a block raises that was cut short, so that it does not look finished."""
    if outcome.signal is None:
        return RunCancelled(outcome.reason, runner_name)
    if outcome.signal is SIGINT:
        return KeyboardInterrupt()
    return SystemExit(128 + outcome.signal)
