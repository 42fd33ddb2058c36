"""The documents say what is so."""

import contextlib
import importlib.util
import inspect
import io
import re
from pathlib import Path
from types import ModuleType

import pytest

from support.known_bugs import KNOWN_BUGS
from workerbus.testing import DeadlockError, NotLinearizableError, explore, run

ROOT = Path(__file__).parents[2]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_job_tables_in_the_architecture_page_are_those_of_the_code() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    assert load(ROOT / "docs/draw_tables.py").drawn(page) == page


def test_the_pictures_of_a_recorded_run_are_those_of_the_program_beside_them() -> None:
    """O1: the run is the same each time, and so are its pictures."""
    for name, picture in load(ROOT / "docs/draw_recording.py").drawn().items():
        assert (ROOT / "docs/pictures" / name).read_text(encoding="utf-8") == picture, "run docs/draw_recording.py"


def printed_by(program: str, backend: str) -> str:
    """Run a program of the README, and return what it prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(program.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})"), {"__name__": "readme"})
    return output.getvalue().strip()


def programs() -> list[str]:
    """The programs in the README that run as they stand; one that needs a server is run with the pages on networks."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [block for block in blocks if "anyio.run(main)" in block and "redis://" not in block]


def test_the_first_program_of_the_readme_prints_what_it_says(backend: str) -> None:
    program = programs()[0]
    printed = re.search(r"print\(group\.responses\)  # (.*)", program)
    assert printed is not None
    assert printed_by(program, backend) == printed.group(1)


def test_the_pipelines_in_the_readme_print_what_they_say(backend: str) -> None:
    _, program = programs()
    assert printed_by(program, backend).splitlines() == ["ONE", "two"]


def test_the_readme_has_two_commands_of_one_line_each() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [len(block.strip().splitlines()) for block in blocks] == [1, 1]
    assert "examples/survey.py" in blocks[0]
    assert "pytest" in blocks[1]


def test_every_module_is_on_the_map_of_the_architecture_page() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    source = ROOT / "src/workerbus"
    names = {path.name for path in source.glob("*.py")} - {"__init__.py"}
    assert {name for name in names if f"`{name}`" not in page} == set()
    for package in sorted(path.parent for path in source.glob("*/__init__.py")):
        section = re.search(rf"^### .*`{package.name}/`\n.*?(?=^##)", page, re.DOTALL | re.MULTILINE)
        assert section is not None, package.name
        modules = {path.stem for path in package.rglob("*.py")} - {"__init__"}
        assert modules - set(re.findall(r"`(\w+)`", section[0])) == set(), package.name


def page_on_testing() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.DOTALL)


def played(page: list[str], tmp_path: Path) -> ModuleType:
    """The snippets of a page, one after the other, as a module."""
    program = tmp_path / "printing.py"
    program.write_text("\n\n".join(page))
    return load(program)


def test_the_snippets_of_the_page_on_testing_do_what_they_say(backend: str, tmp_path: Path) -> None:
    module = played(page_on_testing(), tmp_path)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) >= 7
    for test in tests:
        test(backend)


def page_on_exploring() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/exploring.md").read_text(), re.DOTALL)


def test_the_snippets_of_the_page_on_exploring_do_what_they_say(backend: str, tmp_path: Path) -> None:
    """T1, T2, T3, T4, T6, T7."""
    module = played(page_on_exploring(), tmp_path)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 8
    for test in tests:
        test(*[backend] * len(inspect.signature(test).parameters))


def test_the_page_on_exploring_shows_what_is_found(tmp_path: Path) -> None:
    """T2."""
    page = (ROOT / "docs/exploring.md").read_text()
    shown = re.findall(r"```text\n(in workerbus.*?)```", page, re.DOTALL)[0]
    program = tmp_path / "bank.py"
    program.write_text(page_on_exploring()[0])
    with pytest.raises(AssertionError) as caught:
        explore(load(program).two_deposits)
    told = caught.value.__notes__
    assert "\n".join([*told[told.index(shown.splitlines()[0]) :], ""]) == shown


def test_the_page_on_exploring_shows_the_jobs_that_cannot_be_ordered(tmp_path: Path) -> None:
    """T4."""
    page = (ROOT / "docs/exploring.md").read_text()
    shown = re.findall(r"```text\n(no order of.*?)\n```", page, re.DOTALL)[0]
    module = played(page_on_exploring(), tmp_path)
    with pytest.raises(NotLinearizableError) as caught:
        run(module.two_jobs, seed=None)
    assert str(caught.value) == shown


BUGS = ROOT / "docs/exploring-bugs.md"
CELL = r"(?:[\d.]+|—)"


def test_the_page_on_known_bugs_has_a_row_for_each() -> None:
    """T1: with a number, or a dash, for each strategy on each backend, and how many switches are left."""
    table = BUGS.read_text().partition("<!-- the end of the table -->")[0]
    head, _, *rows = re.findall(r"^\|.*\|$", table, re.MULTILINE)
    assert head.count("|") == 9
    cells = " \\| ".join([f"{CELL} / {CELL}"] * 6)
    names = [re.fullmatch(rf"\| ([a-z ]+) \| {cells} \| \d+(?: to \d+)? \|", row) for row in rows]
    assert [name and name[1] for name in names] == [bug.__name__.replace("_", " ") for bug in KNOWN_BUGS]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["double answer", "check then act"])
def test_a_row_of_the_page_on_known_bugs_is_what_the_script_counts(name: str) -> None:
    """T1: nothing in it depends on the machine."""
    draw = load(ROOT / "docs/draw_exploring.py")
    (bug,) = (bug for bug in KNOWN_BUGS if draw.name_of(bug) == name)
    assert draw.row(bug) in BUGS.read_text()


@pytest.mark.parametrize("name", ["leaked_permit", "condition_with_if", "stale_cache"])
def test_the_page_on_known_bugs_shows_what_is_told(name: str) -> None:
    """T2, T4."""
    draw = load(ROOT / "docs/draw_exploring.py")
    assert f"<!-- the story of {name} -->\n```text\n{draw.story(name)}```" in BUGS.read_text()


def test_the_page_on_testing_shows_the_error_that_comes(backend: str, tmp_path: Path) -> None:
    page = (ROOT / "docs/testing.md").read_text()
    shown = re.findall(r"```text\n(nothing can happen.*?)```", page, re.DOTALL)[0]
    module = played(page_on_testing(), tmp_path)
    with pytest.raises(DeadlockError) as caught:
        run(module.print_something, backend=backend)
    printed = "\n".join([str(caught.value), *caught.value.__notes__, ""])
    alike = re.compile(r"\([0-9a-f]{12}-[0-9a-f]+\)|printing\.py:\d+|backend='\w+'|seed=\d+")
    assert alike.sub("…", printed) == alike.sub("…", shown)
