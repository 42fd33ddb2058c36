"""examples/survey.py, run as a program."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any

import pytest

from support.programs import PATIENCE, Terminal, plain_environment

pytestmark = pytest.mark.slow


SURVEY = Path(__file__).parents[2] / "examples" / "survey.py"

TREE = {
    "alone.py": '"""A module."""\n\n\ndef one():\n    """Doc."""\n    return "def class"\n',
    "unterminated.py": "class A:\n    async def method(self): pass",
    "empty.py": "",
    "windows.py": "def a():\r\n    pass\r\n",
    "pkg/__init__.py": "",
    "pkg/nested.py": (
        "class Outer:\n"
        '    """Doc."""\n'
        "    class Inner:\n"
        "        def method(self):\n"
        "            if self:\n"
        "                def local():\n"
        "                    x = 1\n"
        "                    y = 2\n"
        "                    return x + y\n"
        "            return 1\n"
    ),
    "pkg/deep/er.py": (
        "try:\n    pass\nexcept E:\n    def f(): 'doc'\nmatch x:\n    case 1:\n        def g(): f'no doc'\n"
    ),
    "pkg/latin.py": "# coding: latin-1\n# caf\xe9\nx = '\\d'\n",
    "notes.txt": "def no(): pass\n",
}


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SURVEY, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**plain_environment(), **environment},
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, text in TREE.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("latin-1"))
    return root


def survey(root: Path, *arguments: object) -> dict[str, Any]:
    target = root.parent / "figures.json"
    done = run(root, "--json", target, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    figures: dict[str, Any] = json.loads(target.read_text())
    return figures


def count_by_tokens(file: Path) -> dict[str, int]:
    source = file.read_bytes()
    names = [token.string for token in tokenize.tokenize(io.BytesIO(source).readline) if token.type == tokenize.NAME]
    with tokenize.open(file) as text:
        lines = sum(1 for _ in text)
    functions, classes = names.count("def"), names.count("class")
    return {"lines": lines, "functions": functions, "classes": classes, "documentable": 1 + functions + classes}


def test_the_figures_of_each_package_are_those_of_an_independent_count(tree: Path, backend: str) -> None:
    figures = survey(tree, "--backend", backend, "--workers", 3)
    expected: dict[str, dict[str, int]] = {}
    for file in tree.rglob("*.py"):
        parts = file.relative_to(tree).parts
        package = expected.setdefault(parts[0] if len(parts) > 1 else "(modules)", {"files": 0})
        for figure, number in {"files": 1, **count_by_tokens(file)}.items():
            package[figure] = package.get(figure, 0) + number
    assert set(figures["packages"]) == set(expected) == {"(modules)", "pkg"}
    for name, package in expected.items():
        assert {figure: figures["packages"][name][figure] for figure in package} == package
    for figure in expected["pkg"]:
        assert figures["totals"][figure] == sum(package[figure] for package in expected.values())


def test_docstrings_are_counted_where_there_are_some(tree: Path) -> None:
    figures = survey(tree)
    assert figures["packages"]["(modules)"]["documented"] == 2
    assert figures["packages"]["pkg"]["documented"] == 2
    totals = figures["totals"]
    assert totals["docstring_share"] == pytest.approx(4 / totals["documentable"])


def test_the_longest_function_is_named_in_full(tree: Path) -> None:
    figures = survey(tree)
    expected = {"name": "Outer.Inner.method", "file": "pkg/nested.py", "line": 4, "lines": 7}
    assert figures["packages"]["pkg"]["longest_function"] == figures["totals"]["longest_function"] == expected


def test_the_json_says_what_was_surveyed_and_how(tree: Path, backend: str) -> None:
    figures = survey(tree, "--backend", backend, "--workers", 5)
    assert list(figures) == ["root", "python", "backend", "workers", "totals", "packages", "unparsed"]
    assert (figures["root"], figures["backend"], figures["workers"]) == (str(tree), backend, 5)
    assert figures["python"] == ".".join(map(str, sys.version_info[:3]))
    assert figures["unparsed"] == []


def test_the_number_of_workers_changes_nothing(tree: Path) -> None:
    first, second = survey(tree, "--workers", 1), survey(tree, "--workers", 20)
    assert first | {"workers": 20} == second


def test_the_table_has_a_row_per_package_and_the_totals_last(tree: Path, backend: str) -> None:
    done = run(tree, "--backend", backend, COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split()[0] for line in done.stdout.splitlines() if re.match(r"\S+ +\d", line)]
    assert rows == ["pkg", "(modules)", "total"]
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_without_a_terminal_there_are_no_control_codes(tree: Path) -> None:
    done = run(tree)
    assert "\x1b" not in done.stdout + done.stderr
    assert "parsers/1" not in done.stdout + done.stderr


BROKEN = {
    "bytes.py": (b"x = '\xff'\n", "SyntaxError: .*utf-8"),
    "coding.py": (b"# coding: klingon\n", "SyntaxError: .*klingon"),
    "deep.py": (b"+".join([b"1"] * 100_000), "(Recursion|Memory)Error: .+"),
    "indented.py": (b"x = 1\n y = 2\n", r"IndentationError: .+ \(line 2\)"),
    "minus.py": (b"-" * 100_000 + b"1", "(Recursion|Memory)Error: .+"),
    "null.py": (b"x = 1\0\n", ".+Error: .*null bytes"),
    "syntax.py": (b"def (:\n", r"SyntaxError: .+ \(line 1\)"),
}


def test_files_that_do_not_parse_are_named_and_not_fatal(tree: Path, backend: str) -> None:
    before = survey(tree)["packages"]["pkg"]
    for name, (source, _) in BROKEN.items():
        (tree / "pkg" / name).write_bytes(source)
    target = tree.parent / "figures.json"
    done = run(tree, "--json", target, "--backend", backend)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(target.read_text())
    assert figures["packages"]["pkg"] == before | {"files": before["files"] + len(BROKEN)}
    assert [each["file"] for each in figures["unparsed"]] == [f"pkg/{name}" for name in BROKEN]
    for each, (_, reason) in zip(figures["unparsed"], BROKEN.values(), strict=True):
        assert re.match(reason, each["reason"])
        assert f"{each['file']}: {each['reason']}\n" in done.stdout


def test_files_that_cannot_be_read_are_named_and_not_fatal(tree: Path) -> None:
    (tree / "dangling.py").symlink_to("nowhere")
    os.mkfifo(tree / "pipe.py")
    assert [each["file"] for each in survey(tree)["unparsed"]] == ["dangling.py", "pipe.py"]


def test_names_are_shown_as_they_are(tree: Path) -> None:
    (tree / "[red]folder").mkdir()
    (tree / "[red]folder" / "[bold].py").write_text("(")
    done = run(tree)
    assert "[red]folder" in done.stdout
    assert "[red]folder/[bold].py: " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["empty"],
        ["tree/alone.py"],
        ["tree", "--workers", "0"],
        ["tree", "--workers", "many"],
        ["tree", "--backend", "curio"],
        ["tree", "--json", "nowhere/figures.json"],
        ["tree", "--json", "tree"],
        ["tree", "--json", "tree/alone.py/figures.json"],
        ["tree", "tree"],
        ["--loud"],
    ],
    ids=" ".join,
)
def test_a_bad_argument_is_one_line_and_exit_code_2(
    tree: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tree.parent)
    Path("empty").mkdir()
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"survey\.py: .+\n", done.stderr)


def test_in_a_terminal_each_worker_has_a_bar(tree: Path, backend: str) -> None:
    with Terminal("survey.py", tree, "--backend", backend, "--workers", "3") as terminal:
        assert terminal.read_to_the_end() == 0
    bars, shown, rest = terminal.output.decode().rpartition("\x1b[?25h")
    assert shown
    assert {f"parsers/{number}" for number in (1, 2, 3)} <= set(re.findall(r"parsers/\d+", bars))
    assert "total" in rest


@pytest.mark.parametrize("pattern", ["parsers/2", r"[1-9]\d/[\d,]+ files"], ids=["at once", "under way"])
def test_ctrl_c_ends_it_with_130_and_the_cursor_shown(backend: str, pattern: str) -> None:
    with Terminal("survey.py", "--backend", backend, "--workers", "2") as terminal:
        terminal.read_until(pattern)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_to_the_end() == 130
    text = terminal.output.decode()
    assert "Traceback" not in text
    assert "Exception" not in text
    assert "total" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def run_patched(patch: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    source = f"import os, runpy, signal, sys, sysconfig\nsys.argv = {['survey.py', *map(str, arguments)]!r}\n"
    source += f"{patch}\nrunpy.run_path({str(SURVEY)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_ctrl_c_before_there_are_bars_is_130_and_silent(backend: str) -> None:
    done = run_patched("os.walk = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)", "--backend", backend)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_site_packages_are_left_out_of_the_standard_library_alone(tree: Path) -> None:
    target = tree.parent / "figures.json"
    for folder in ("site-packages", "dist-packages"):
        (tree / folder).mkdir()
        (tree / folder / "other.py").write_text("x = 1\n")
    done = run_patched(f"sysconfig.get_path = lambda name: {str(tree)!r}", "--json", target)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(target.read_text())["packages"]) == {"(modules)", "pkg"}
    assert set(survey(tree)["packages"]) == {"(modules)", "pkg", "site-packages", "dist-packages"}
