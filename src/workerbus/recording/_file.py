"""A recording as a file of JSON lines: a head, and a line for each record, in which what is not set is left out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from workerbus._values import JobStatus
from workerbus.errors import RecordingError
from workerbus.recording._records import Record

FORMAT: Final = "recording"
VERSION: Final = 1

_FIELDS: Final = (
    "time", "kind", "source", "target", "job_id", "name", "status", "reason", "size", "parent", "asked_as", "attempt",
)  # fmt: skip
_UNSET: Final = {"size": 0, "attempt": 1}
_OPTIONAL_STR: Final = (str, type(None))
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "time": (int, float),
    "kind": (str,),
    "source": (str,),
    "size": (int,),
    "attempt": (int,),
    "parent": (list, type(None)),
}


def save(path: Path, records: Sequence[Record], *, dropped: int, payloads: bool) -> None:
    """Write records to a file."""
    head = {"workerbus": FORMAT, "version": VERSION, "dropped": dropped, "payloads": payloads}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head) + "\n")
        for record in records:
            line = {name: held for name in _FIELDS if (held := getattr(record, name)) not in (None, _UNSET.get(name))}
            if record.payload is not None:
                line["payload"] = record.payload
            file.write(_json(line) + "\n")


def _json(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, default=repr)
    except (TypeError, ValueError, RecursionError):  # keys that are no strings; a payload that holds itself
        return json.dumps({**line, "payload": repr(line["payload"])})


def load(path: Path) -> tuple[list[tuple[Any, ...]], int, bool]:
    """Read a file; returns the rows of the records, how many were dropped, and whether there are payloads.

    Raises:
        RecordingError: It is no recording.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as exc:
        raise RecordingError(str(path), "it is no text in UTF-8") from exc
    head = _parsed(path, 1, lines[0]) if lines[0] else {}
    if head.get("workerbus") != FORMAT:
        raise RecordingError(str(path), "it does not begin with the head of one")
    if head.get("version") != VERSION:
        raise RecordingError(str(path), f"it is of version {head.get('version')!r}, and this reads {VERSION}")
    dropped, payloads = head.get("dropped"), head.get("payloads")
    if not isinstance(dropped, int) or not isinstance(payloads, bool):
        raise RecordingError(str(path), "its head is not whole", 1)
    rows = [_row(path, number, _parsed(path, number, line)) for number, line in enumerate(lines[1:], 2) if line]
    return rows, dropped, payloads


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError as exc:
        raise RecordingError(str(path), "it is no JSON; the file may have been cut off", number) from exc
    if not isinstance(parsed, dict):
        raise RecordingError(str(path), "it is no JSON object", number)
    return parsed


def _row(path: Path, number: int, line: dict[str, Any]) -> tuple[Any, ...]:
    values: dict[str, Any] = {name: line.get(name, _UNSET.get(name)) for name in _FIELDS}
    for name, held in values.items():
        if not isinstance(held, _TYPES.get(name, _OPTIONAL_STR)):
            raise RecordingError(str(path), f"{name} cannot be {held!r}", number)
    parent = values["parent"]
    if parent is not None:
        if len(parent) != 2 or not all(isinstance(each, str) for each in parent):
            raise RecordingError(str(path), f"parent cannot be {parent!r}", number)
        values["parent"] = tuple(parent)
    if values["status"] is not None:
        try:
            values["status"] = JobStatus(values["status"])
        except ValueError as exc:
            raise RecordingError(str(path), f"status cannot be {values['status']!r}", number) from exc
    return (*values.values(), line.get("payload"))
