"""Draws the tables into architecture.md: ``python docs/draw_tables.py``. A test checks that this was done."""

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from workerbus.jobs import GROUP_TABLE, JOB_TABLE
from workerbus.redis._life import LIFE_TABLE
from workerbus.supervision._state import SUPERVISION_TABLE

PAGE = Path(__file__).parent / "architecture.md"
TABLES: Mapping[str, Mapping[Any, Mapping[Any, Any]]] = {
    "job": JOB_TABLE,
    "ask": GROUP_TABLE,
    "supervision": SUPERVISION_TABLE,
    "life": LIFE_TABLE,
}


def diagram(table: Mapping[Any, Mapping[Any, Any]]) -> str:
    """Return a table as a Mermaid state diagram."""
    first = next(iter(table))
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {_id(first)}"]
    for state, moves in table.items():
        targets: dict[Enum, list[str]] = {}
        for event, target in moves.items():
            targets.setdefault(target, []).append(event.value)
        lines += [f"    {_id(state)} --> {_id(target)}: {', '.join(events)}" for target, events in targets.items()]
        if not moves:
            lines.append(f"    {_id(state)} --> [*]")
    return "\n".join([*lines, "```"])


def _id(state: Enum) -> str:
    return str(state.value).replace(" ", "_")


def drawn(page: str) -> str:
    """Return the page with the diagrams drawn anew."""
    for name, table in TABLES.items():
        text = f"<!-- {name} table -->\n{diagram(table)}\n<!-- end -->"
        page = re.sub(f"<!-- {name} table -->.*?<!-- end -->", lambda _, text=text: text, page, flags=re.DOTALL)  # type: ignore[misc]  # text is that of this turn
    return page


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
