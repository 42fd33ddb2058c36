"""Words for a schedule under which a program fails: its switches, and what their tasks do, one after the other."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from attrs import frozen

from workerbus.errors._base import brief
from workerbus.testing.clock._steering import Steering, Switch, TaskStep, Told
from workerbus.testing.exploring._recorder import Deed, Key, Recorder, Use
from workerbus.testing.invariants._places import BEGINS, WITHIN

MOST_ROWS: Final = 24
"""How many lines are shown."""
ROWS_AT_THE_END: Final = 10
"""How many of them are the last ones, where some in the middle are left out."""
MOST_COLUMNS: Final = 6
LONGEST_LINE: Final = 60
LONGEST_TEXT: Final = 50
"""How many characters of an error are shown."""


@frozen
class _Row:
    step: TaskStep
    is_switch: bool
    file: str
    text: str
    says: str


def tell(steering: Steering, recorder: Recorder, error: BaseException) -> str:
    """Say what is special about a run.

    Args:
        steering: Its steering, with what was told.
        recorder: What the program's own code has done in it.
        error: What has come out of it.
    """
    places = {each.step: each.place for each in steering.told}

    def who(step: TaskStep) -> str:
        place = places.get(step)
        return steering.title(step.task) + ("" if place is None else f" ({_where(place)})")

    lines, number = [], 1
    for (ran, before), same in groupby(steering.switches, lambda switch: (who(switch.ran), who(switch.before))):
        first, *others = same
        last = number + len(others)
        lines.append(f"  {number if number == last else f'{number} to {last}'}. {ran}")
        lines.append(f"     went on before {before}{f', {len(others) + 1} times' if others else ''}")
        lines += [f"     {words}" for words in _so(first, recorder.deeds)]
        number = last + 1
    lines += [f"  {at}. {words}" for at, words in enumerate(steering.fault_words, number)]
    return "\n".join([*lines, *_picture(steering, recorder, error)])


def _where(place: str) -> str:
    return "at its beginning" if place == BEGINS else place if place.startswith(WITHIN) else f"at {place}"


# --- what a switch has changed


def _so(switch: Switch, deeds: Sequence[Deed]) -> list[str]:
    other, number = switch.before
    overtaken = [each for each in deeds if each.step == switch.before]
    later = [each for each in deeds if each.step.task == other and each.step.number > number]
    if any(each.is_cancelled for each in [*overtaken, *later] if each.step.number <= number + 1):
        return ["so the other one was cancelled where it stood"]  # on trio, that takes one more turn
    ran = _together(each for each in deeds if each.step == switch.ran)
    return _against(ran, _together(overtaken)) or _against(ran, _together(later))


def _against(ran: Mapping[Key, Use], before: Mapping[Key, Use]) -> list[str]:
    common = sorted(ran.keys() & before.keys(), key=lambda key: _rank(ran[key], before[key]))
    for mine, others in ((ran[key], before[key]) for key in common):
        if mine.after is not None and others.after is not None:
            return [f"so it set {mine.name} (to {mine.after}) before the other one did (to {others.after})"]
        if others.after is not None:
            return [f"so it read {mine.name} ({mine.before}) before the other one had set it (to {others.after})"]
        if mine.after is not None:
            return [f"so it had set {mine.name} (to {mine.after}) when the other one read it"]
    return []


def _rank(mine: Use, others: Use) -> tuple[bool, int]:
    # What was read before it changed says most; what was set to the value that it had says least.
    changes = any(each.after not in (None, each.before) for each in (mine, others))
    return not changes, (mine.after is not None) + (others.after is None)


def _together(deeds: Iterable[Deed]) -> dict[Key, Use]:
    # What several lines have done with each thing, as if they were one.
    found: dict[Key, Use] = {}
    for deed in deeds:
        for key, use in deed.uses.items():
            known = found.get(key)
            if known is None:
                found[key] = use
            elif use.after is not None:
                found[key] = Use(known.name, known.before, use.after)
    return found


# --- what was done, line by line


def _picture(steering: Steering, recorder: Recorder, error: BaseException) -> list[str]:
    rows = _rows(steering, _until(recorder.deeds, error))
    tasks = {step.task for switch in steering.switches for step in switch} | {row.step.task for row in rows}
    columns = sorted(tasks, key=lambda task: [int(part) for part in task.split(".")])
    if not rows or not 2 <= len(columns) <= MOST_COLUMNS:
        return []
    heads = [steering.title(task) for task in columns]
    files = {row.file for row in rows if row.file}
    prefix = "" if len(files) < 2 else "{0.file}:"
    lines = [f"{_lanes(columns, heads, row)}  {prefix.format(row)}{row.text}" for row in rows]
    width = max(map(len, lines))
    shown = [f"    {line.ljust(width)}   {row.says}".rstrip() for line, row in zip(lines, rows, strict=True)]
    where = f" in {min(files)}" if len(files) == 1 else ""
    return [
        "",
        f"  what they did{where}, in order (* = a switch):",
        *_legend(columns, heads, recorder),
        "    " + "  ".join(heads),
        *_few(shown),
    ]


def _legend(columns: Sequence[str], heads: Sequence[str], recorder: Recorder) -> Iterator[str]:
    for task, head in zip(columns, heads, strict=True):
        arguments = recorder.arguments.get(TaskStep(task, 0))
        if arguments and not head.endswith("'"):
            yield f"    {head}: {arguments}"


def _lanes(columns: Sequence[str], heads: Sequence[str], row: _Row) -> str:
    marks = {row.step.task: "●*" if row.is_switch else "●"}
    return "  ".join(marks.get(task, "│").ljust(len(head)) for task, head in zip(columns, heads, strict=True))


def _few(rows: list[str]) -> list[str]:
    if len(rows) <= MOST_ROWS:
        return rows
    left = len(rows) - MOST_ROWS
    return [*rows[: MOST_ROWS - ROWS_AT_THE_END], f"    … {left} more …", *rows[-ROWS_AT_THE_END:]]


def _until(deeds: list[Deed], error: BaseException) -> list[Deed]:
    # What comes after the error is the program's end, and says nothing of how it came to it.
    leaves = {id(each) for each in leaves_of(error)}
    last = next((index for index, each in enumerate(deeds) if id(each.error) in leaves), len(deeds))
    return deeds[: last + 1]


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return what an error is made of: itself, if it is no group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves_of(each)]
    return [error]


def _rows(steering: Steering, deeds: Sequence[Deed]) -> list[_Row]:
    switched = {switch.ran for switch in steering.switches}
    involved = {step.task for switch in steering.switches for step in switch}
    shared = _shared(deeds, involved)
    involved |= {each.step.task for each in deeds if shared & each.uses.keys()}
    by_step: dict[TaskStep, list[Deed]] = defaultdict(list)
    for deed in deeds:
        by_step[deed.step].append(deed)
    rows: list[_Row] = []
    for told in steering.told:
        done = by_step.get(told.step, [])
        shown = [each for each in done if shared & each.uses.keys() or (each.error and told.step.task in involved)]
        is_switch = told.step in switched
        if is_switch and not shown:
            shown = [each for each in done if each.uses]
            shared = shared | {key for each in shown for key in each.uses}
        rows += [
            _Row(told.step, is_switch and not index, each.file, f"{each.line} {_short(each.text)}", _says(each, shared))
            for index, each in enumerate(shown)
        ]
        if is_switch and not shown:
            rows.append(_bare(told))
    return rows


def _bare(told: Told) -> _Row:
    file, _, place = told.place.partition(":")
    return _Row(told.step, True, file if place else "", f"from {place}" if place else told.place, "")


def _shared(deeds: Sequence[Deed], involved: set[str]) -> set[Key]:
    # What several tasks use, one of those that were switched among them, and some task changes.
    users: dict[Key, set[str]] = defaultdict(set)
    changed: set[Key] = set()
    for deed in deeds:
        for key, use in deed.uses.items():
            users[key].add(deed.step.task)
            if use.after is not None:
                changed.add(key)
    return {key for key in changed if len(users[key]) > 1 and (users[key] & involved or not involved)}


def _says(deed: Deed, shared: set[Key]) -> str:
    said = [_use(use) for key, use in deed.uses.items() if key in shared]
    if deed.is_cancelled:
        said.append("is cancelled")
    elif deed.error is not None:
        text = brief(deed.error).partition("\n")[0].rstrip(": ")
        said.append(f"raises {text if len(text) <= LONGEST_TEXT else f'{text[: LONGEST_TEXT - 1]}…'}")
    return ", ".join(said)


def _use(use: Use) -> str:
    if use.after is None:
        return f"{use.name} is {use.before}"
    return f"{use.name}: {use.after} again" if use.after == use.before else f"{use.name}: {use.before} → {use.after}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 1]}…"
