"""The steps of a sequence diagram: who says what to whom, in words, with what is many of a kind folded into one.

How they are drawn is not known here. What the library says for its own sake (who is ready, how busy a pool is, how much
of a stream may be sent) is left out.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from attrs import define, frozen

from workerbus.messages import (
    BusActivateWorkerMessage,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusFrameMessage,
    BusJobUpdateRequestMessage,
    BusTTSSpeakMessage,
    BusWorkerErrorMessage,
    BusWorkerGoneMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerRestartingMessage,
)
from workerbus.recording._naming import LEFT_OUT, Naming, naming_of
from workerbus.recording._records import (
    ANSWERS,
    CANCEL,
    CHUNK,
    FROM_REQUESTER,
    REQUEST,
    UPDATES,
    Record,
)

MOST_STEPS: Final = 400
"""How many arrows a sequence diagram has at most by default."""

StepKind = Literal["request", "progress", "cancel", "answer", "message"]

_WORDS: Final[dict[str, str]] = {
    BusActivateWorkerMessage.__name__: "activate",
    BusDeactivateWorkerMessage.__name__: "deactivate",
    BusEndMessage.__name__: "end",
    BusEndWorkerMessage.__name__: "end",
    BusCancelMessage.__name__: "cancel",
    BusCancelWorkerMessage.__name__: "cancel",
    BusJobUpdateRequestMessage.__name__: "how is it getting on?",
    BusTTSSpeakMessage.__name__: "speak",
    BusWorkerErrorMessage.__name__: "has failed",
    BusWorkerLocalErrorMessage.__name__: "has failed",
    BusWorkerGoneMessage.__name__: "has gone",
    BusWorkerRestartingMessage.__name__: "is being restarted",
}
_ENDS_WORKERS: Final = frozenset({BusCancelMessage.__name__, BusCancelWorkerMessage.__name__})


@frozen
class Step:
    """An arrow of a sequence diagram.

    Args:
        kind: What it is.
        source: Who says it.
        target: To whom; None is everybody.
        text: What, in words.
        time: When, in seconds from the first record on.
        until: When the last was that is folded into it.
        job: The name of the job, if it is about one.
        outcome: Of an answer, how the job ended.
        key: What it can be folded with.
        count: How many are folded into it.
    """

    kind: StepKind
    source: str
    target: str | None
    text: str
    time: float
    until: float
    job: str | None = None
    outcome: str | None = None
    key: tuple[object, ...] | None = None
    count: int = 1


@frozen
class SequenceDiagram:
    """What a sequence diagram shows.

    Args:
        names: Who takes part, in the order in which they are met.
        steps: The arrows.
        left_out: How many arrows come behind these, and are not shown.
    """

    names: tuple[str, ...]
    steps: tuple[Step, ...]
    left_out: int


@define
class _Folded:
    step: Step
    count: int
    until: float


def sequence_of(records: Sequence[Record], most: int = MOST_STEPS) -> SequenceDiagram:
    """Return the steps in which a recording is told.

    Chunks of one stream that nothing of the same job interrupts are one step, at the place of the first; so are
    updates, and messages of one kind from one to the other that follow one another.

    Args:
        records: The records.
        most: How many steps there are at most.
    """
    if most < 1:
        raise ValueError(f"most is at least 1, not {most!r}")
    naming, begun = naming_of(records), records[0].time if records else 0.0
    folded: list[_Folded] = []
    open_runs: dict[object, tuple[tuple[object, ...], _Folded]] = {}
    for record in records:
        step = _step(record, naming, begun)
        if step is None:
            continue
        about = (record.job_id, *sorted((step.source, step.target or ""))) if record.job_id else "messages"
        run = open_runs.get(about)
        if run is not None and step.key is not None and run[0] == step.key:
            run[1].count += 1
            run[1].until = step.time
            continue
        folded.append(_Folded(step, 1, step.time))
        open_runs[about] = (step.key or (len(folded),), folded[-1])
    shown = folded[:most]
    steps = tuple(_done(each) for each in shown)
    return SequenceDiagram(_names(steps), steps, len(folded) - len(shown))


def _names(steps: Iterable[Step]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for step in steps:
        names[step.source] = None
        if step.target is not None:
            names[step.target] = None
    return tuple(names)


def _done(folded: _Folded) -> Step:
    step, count = folded.step, folded.count
    text = step.text
    if step.kind == "progress":
        text = f"{f'{count} ' if count > 1 else ''}{text}{'s' * (count > 1)} ({step.job})"
    elif count > 1:
        text = f"{count} \N{MULTIPLICATION SIGN} {text}"
    return Step(
        step.kind, step.source, step.target, text, step.time, folded.until, step.job, step.outcome, step.key, count
    )


def _step(record: Record, naming: Naming, begun: float) -> Step | None:
    kind = record.kind
    job = None
    if record.job_id is not None:
        job = naming.job_id(record.job_id, record.source if kind in FROM_REQUESTER else record.target)
    if kind in LEFT_OUT:
        return None
    source = naming.name(record.source)
    target = None if record.target is None else naming.name(record.target)
    reason = None if record.reason is None else naming.text(record.reason)
    because = "" if reason is None else f": {reason}"
    time = record.time - begun
    if kind == REQUEST:
        again = f", attempt {record.attempt}" if record.attempt > 1 else ""
        target = naming.name(record.asked_as) if record.asked_as else target
        return Step("request", source, target, f"{record.name or 'a job'} ({job}){again}", time, time, job)
    if kind == CANCEL:
        return Step("cancel", source, target, f"cancel {job}{because}", time, time, job)
    if kind in ANSWERS:
        status = str(record.status)
        text = f"{status}{because} ({job})"
        return Step("answer", source, target, text, time, time, job, status)
    if kind == CHUNK or kind in UPDATES:
        word = "chunk" if kind == CHUNK else "update"
        return Step("progress", source, target, word, time, time, job, key=(word, source, target, job))
    word = record.name if kind == BusFrameMessage.__name__ and record.name else _WORDS.get(kind, kind)
    how: StepKind = "cancel" if kind in _ENDS_WORKERS else "message"
    return Step(how, source, target, f"{word}{because}", time, time, job, key=(kind, word, source, target, because))
