"""A sequence diagram as Mermaid text."""

import re
from collections.abc import Sequence
from typing import Final

from workerbus.recording._records import Record
from workerbus.recording._sequence import Step, sequence_of

_ARROWS: Final = {"request": "->>", "progress": "--)", "cancel": "-x", "answer": "-->>", "message": "-)"}
_SPECIAL: Final = re.compile(r"[^\w .,:!?()'/=+\u00d7\u2026-]")


def mermaid(records: Sequence[Record], *, dropped: int, most: int) -> str:
    """Return the diagram of some records."""
    told = sequence_of(records, most)
    ids = {name: f"p{number}" for number, name in enumerate(told.names, 1)}
    lines = ["sequenceDiagram"]
    lines += [f"    participant {ids[name]} as {_escaped(name)}" for name in told.names]
    if dropped and told.names:
        lines.append(f"    Note over {ids[told.names[0]]}: {_counted(dropped)} before this were dropped")
    lines += [f"    {_line(step, ids)}" for step in told.steps]
    if told.left_out:
        last = ids[told.steps[-1].source]
        lines.append(f"    Note over {last}: {told.left_out:,} more, not shown")
    return "\n".join(lines) + "\n"


def _line(step: Step, ids: dict[str, str]) -> str:
    text = _escaped(step.text)
    if step.target is None:
        return f"Note over {ids[step.source]}: {text}"
    return f"{ids[step.source]}{_ARROWS[step.kind]}{ids[step.target]}: {text}"


def _counted(number: int) -> str:
    return f"{number:,} record{'s' * (number > 1)}"


def _escaped(text: str) -> str:
    # Mermaid takes characters by their numbers; a line that breaks, or a semicolon, would end the statement.
    return _SPECIAL.sub(lambda found: f"#{ord(found[0])};", " ".join(text.split()) or " ")
