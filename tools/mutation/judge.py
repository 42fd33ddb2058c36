"""What the page about mutants says of those that have survived, after ``mutate.py run``.

    python tools/mutation/judge.py            the score of each module, as rows of a table; then what nobody has judged
    python tools/mutation/judge.py --names    the names of what nobody has judged, to run them again with more tests
    python tools/mutation/judge.py --stale    the lines of the page that name no mutant any more

A mutant is judged by a line in ``docs/mutants.md`` that names its module, its function and what it puts there. A mutant
that has not been run counts for nothing.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mutmut.mutation.diff_apply import get_diff_for_mutant

PAGE: Final = Path("docs/mutants.md")
SOURCE: Final = Path("src/workerbus")
STAYED_GREEN: Final = (0, 33)
"""Exit codes of a mutant that its tests let pass, or that no test reaches."""
SHORT: Final = 90
CHANGES_NOTHING: Final = "Mutants that change nothing"


class Mutant(NamedTuple):
    """A mutant, in the words of the page."""

    module: str
    function: str
    text: str


def shown(diff: list[str]) -> str:
    """Put what a mutant changes on one line of the page."""
    before, after = (
        " ".join(line[1:].strip() for line in diff if line.startswith(sign) and not line.startswith(3 * sign))
        for sign in "-+"
    )
    texts = [text.replace("`", "") or "nothing" for text in (before, after)]
    return " → ".join(text if len(text) <= SHORT else text[: SHORT - 1] + "…" for text in texts)


def function_of(key: str) -> str:
    """Return the function, and its class, that mutmut has put into a mutant's name."""
    name = key.rpartition(".")[2].rpartition("__mutmut_")[0]
    return name.removeprefix("xǁ").replace("ǁ", ".") if "ǁ" in name else name.removeprefix("x_")


def results() -> Iterator[tuple[str, dict[str, int | None]]]:
    """Yield each module, and the exit code of the tests for each of its mutants; None for one that was not run."""
    for file in sorted(Path("mutants", SOURCE).rglob("*.meta")):
        codes: dict[str, int | None] = json.loads(file.read_text())["exit_code_by_key"]
        if codes:
            yield str(file.relative_to(Path("mutants", SOURCE)))[: -len(".meta")], codes


def mutant(module: str, key: str) -> Mutant:
    """Return a mutant that mutmut names so."""
    diff = get_diff_for_mutant(key, path=SOURCE / module).splitlines()
    return Mutant(module, function_of(key), shown(diff))


def survivors(module: str, codes: dict[str, int | None]) -> Iterator[tuple[str, Mutant]]:
    """Yield what has survived in a module, with mutmut's names for it."""
    for key, code in codes.items():
        if code in STAYED_GREEN:
            yield key, mutant(module, key)


def judged() -> dict[Mutant, str]:
    """Return the mutants that the page names, and the heading under which it does."""
    found: dict[Mutant, str] = {}
    heading = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif named := re.match(r"- (\S+) `([^`]+)`: (.+)", line):
            module, function, texts = named.groups()
            found.update((Mutant(module, function, text), heading) for text in re.findall(r"`([^`]+)`", texts))
    return found


def stale() -> Iterator[Mutant]:
    """Yield what the page names and mutmut does not make."""
    page = judged()
    functions = {(named.module, named.function) for named in page}
    there = {
        mutant(module, key) for module, codes in results() for key in codes if (module, function_of(key)) in functions
    }
    yield from (named for named in page if named not in there)


def row(name: str, counts: Counter[str]) -> str:
    """Return a row of the score."""
    every, same = counts["every"], counts["same"]
    killed = every - same - counts["open"]
    of_all, of_some = 100 * killed / every, 100 * killed / max(1, every - same)
    return f"| {name} | {every} | {killed} | {same} | {counts['open']} | {of_all:.1f} % | {of_some:.1f} % |"


def main() -> None:
    """Print the score, and what is to be judged."""
    if "--stale" in sys.argv:
        sys.stdout.writelines(f"- {each.module} `{each.function}`: `{each.text}`\n" for each in stale())
        return
    page, whole = judged(), Counter[str]()
    rows, unjudged, names = list[str](), list[str](), list[str]()
    for module, codes in results():
        counts = Counter(every=sum(code is not None for code in codes.values()))
        if not counts["every"]:
            continue
        for name, survivor in survivors(module, codes):
            heading = page.get(survivor)
            if heading is None:
                counts["open"] += 1
                unjudged.append(f"- {module} `{survivor.function}`: `{survivor.text}`")
                names.append(name)
            else:
                counts["same"] += heading == CHANGES_NOTHING
        whole.update(counts)
        rows.append(row(f"`{module}`", counts))
    if not rows:
        sys.exit("No mutant has been run yet: python tools/mutation/mutate.py run")
    lines = names if "--names" in sys.argv else [*rows, row("together", whole), *unjudged]
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
