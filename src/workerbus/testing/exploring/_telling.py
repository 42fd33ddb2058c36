"""Words for a schedule under which a program fails: its switches, and the steps of their tasks, side by side."""

from collections.abc import Sequence
from typing import Final

from workerbus.testing.clock._steering import Steering, TaskStep, Told
from workerbus.testing.invariants._places import BEGINS, WITHIN

MOST_ROWS: Final = 24
"""How many steps are shown side by side."""
ROWS_AROUND: Final = 2
"""How many of them may stand before the first switch, and behind the last one."""
MOST_COLUMNS: Final = 5


def tell(steering: Steering) -> str:
    """Say what is special about a run.

    Args:
        steering: Its steering, with what was told.
    """
    places = {each.step: each.place for each in steering.told}

    def who(step: TaskStep) -> str:
        place = places.get(step)
        return steering.title(step.task) + ("" if place is None else f" ({_where(place)})")

    lines = [
        f"  {number}. {who(ran)}\n     went on before {who(before)}"
        for number, (ran, before) in enumerate(steering.switches, 1)
    ]
    lines += [f"  {number}. {words}" for number, words in enumerate(steering.fault_words, len(lines) + 1)]
    return "\n".join([*lines, *_side_by_side(steering)])


def _where(place: str) -> str:
    return "at its beginning" if place == BEGINS else place if place.startswith(WITHIN) else f"at {place}"


def _side_by_side(steering: Steering) -> list[str]:
    told = steering.told
    first = next((index for index, each in enumerate(told) if each.before is not None), len(told))
    columns = _columns(steering, told[first:]) if first < len(told) else []
    if not 2 <= len(columns) <= MOST_COLUMNS:
        return []
    before = [each for each in told[:first] if each.step.task in columns][-ROWS_AROUND:]
    after = [each for each in told[first:] if each.step.task in columns]
    last = max(index for index, each in enumerate(after) if each.before is not None)
    rows = [*before, *after[: last + 1 + (1 + ROWS_AROUND) * len(columns)]][:MOST_ROWS]
    cells = [(each.step.task, _cell(each)) for each in rows]
    heads = {task: steering.title(task) for task in columns}
    widths = [max(len(text) for of, text in [*heads.items(), *cells] if of == task) for task in columns]
    return [
        "",
        "  their steps, in order (* = a switch):",
        _row(list(heads.values()), widths),
        *(_row([text if task == of else "" for task in columns], widths) for of, text in cells),
    ]


def _cell(told: Told) -> str:
    text = told.place if told.place == BEGINS else _short(told.place)
    return text if told.before is None else f"{text} *"


def _short(place: str) -> str:
    return "…" if place.startswith(WITHIN) else f"from {place.partition(' ')[0]}"


def _columns(steering: Steering, told: Sequence[Told]) -> list[str]:
    # The tasks that were switched. If one of these is none of the program's own, it is others that come after whose
    # steps say what has gone wrong.
    involved = list(dict.fromkeys(step.task for switch in steering.switches for step in switch))
    own = list(dict.fromkeys(each.step.task for each in told if not each.place.startswith((WITHIN, BEGINS))))
    if not set(involved) <= set(own):
        involved += [task for task in own if task not in involved][: max(MOST_COLUMNS - len(involved), 0)]
    return sorted(involved, key=lambda task: [int(part) for part in task.split(".")])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return ("    " + "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))).rstrip()
