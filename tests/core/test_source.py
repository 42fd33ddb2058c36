"""L2, L5, L8: what the source of the library does not do. And where it names the numbers of guarantees."""

import ast
import re
from pathlib import Path

import pytest

import workerbus


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


SOURCES = sorted(Path(workerbus.__file__).parent.rglob("*.py"))


def test_the_library_imports_neither_asyncio_nor_trio() -> None:
    """L2: except in `testing`."""
    root = Path(workerbus.__file__).parent
    sources = [path for path in SOURCES if "testing" not in path.relative_to(root).parts]
    assert sources
    assert {path.name for path in sources if _imports(path) & {"asyncio", "trio"}} == set()


SCOPES = {"CancelScope", "create_task_group", "move_on_after", "move_on_at", "fail_after", "fail_at"}


def _own_nodes(function: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            found += [child, *_own_nodes(child)]
    return found


def test_no_generator_holds_a_scope_or_a_task_group() -> None:
    """L5: nothing that is entered is held open across a `yield`."""
    for path in SOURCES:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            nodes = _own_nodes(function)
            if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in nodes):
                named = {node.id for node in nodes if isinstance(node, ast.Name)}
                assert not named & SCOPES, f"{path.name}: {function.name}"


WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
IMPORTED = {"time", "time_ns", "datetime", "date"}


def _looks_at_wall_clocks(source: str) -> list[str]:
    """The lines in which a wall clock is read, or taken by another name."""
    tree, lines = ast.parse(source), source.splitlines()
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"time", "datetime"}:
            found += [lines[node.lineno - 1] for alias in node.names if alias.name in IMPORTED]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCKS:
            found.append(lines[node.lineno - 1])
    return [line.strip() for line in found]


def _decides_by(source: str, name: str) -> bool:
    """Whether something is compared or computed with an attribute or a variable."""
    for node in ast.walk(ast.parse(source)):
        plain = isinstance(node, ast.Compare) and not all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
        if plain or isinstance(node, ast.BinOp):
            operands = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.Attribute | ast.Name)]
            if any(ast.unparse(each).split(".")[-1] == name for each in operands):
                return True
    return False


@pytest.mark.slow
def test_a_wall_clock_is_read_for_people_alone() -> None:
    """L8: for ``started_at``, by which nothing is decided, and for what commands show."""
    looks = {path.name: found for path in SOURCES if (found := _looks_at_wall_clocks(path.read_text()))}
    assert looks == {"_core.py": ["state.started_at = time.time()"], "_words.py": ["return time.time()"]}
    assert {path.name for path in SOURCES if _decides_by(path.read_text(), "started_at")} == set()
    assert {path.name for path in SOURCES if "started_at is" in path.read_text()} == set()  # nor by whether it is set


@pytest.mark.parametrize(
    "source",
    [
        "x = time.time()",
        "if 1:\n    at = time.time() + 1",
        "from time import time",
        "f(clock=time.time)",
        "datetime.now()",
    ],
)
def test_a_look_at_a_wall_clock_is_found(source: str) -> None:
    assert len(_looks_at_wall_clocks(source)) == 1


def test_a_decision_by_a_time_is_found() -> None:
    assert all(_decides_by(source, "at") for source in ("a.at < b", "now() - at", "0 <= x.y.at"))
    assert not any(_decides_by(source, "at") for source in ("a.at is None", "f(at) < b", "at", "a.at.b < c"))


NUMBER = r"\b[BGJLNOPRSTWX]\d{1,2}\b"
LAST_LINE = re.compile(rf"\s*Guarantees: {NUMBER}(, {NUMBER})*\.")


def _may_name_guarantees(tree: ast.Module) -> set[int]:
    """The lines of the module's docstring; of other docstrings a last paragraph such as ``Guarantees: J6, J8.``"""
    allowed: set[int] = set()
    if ast.get_docstring(tree) is not None:
        allowed |= set(range(1, (tree.body[0].end_lineno or 0) + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            match node.value.value.split("\n"):
                case [_, *_, "", last, end] if LAST_LINE.fullmatch(last) and not end.strip():
                    allowed.add((node.end_lineno or 0) - 1)
    return allowed


def _misplaced_numbers(source: str) -> list[str]:
    allowed = _may_name_guarantees(ast.parse(source))
    lines = enumerate(source.splitlines(), start=1)
    return [f"{number}: {line}" for number, line in lines if number not in allowed and re.search(NUMBER, line)]


def test_guarantees_are_named_in_the_head_of_a_module_and_in_the_last_line_of_a_docstring_alone() -> None:
    misplaced = {str(source): _misplaced_numbers(source.read_text()) for source in SOURCES}
    assert {name: lines for name, lines in misplaced.items() if lines} == {}


HEAD = '"""About J6.\n\nAnd J8.\n"""\n'


@pytest.mark.parametrize(
    "allowed",
    [
        "",
        'def f():\n    """Do it.\n\n    Guarantees: J6, J16.\n    """',
        'N = 1\n"""One.\n\nGuarantees: L4.\n"""',
        "noqa = 'BLE001, PLC0415, N818, UTF8'",
    ],
)
def test_guarantees_may_be_named_there(allowed: str) -> None:
    assert _misplaced_numbers(HEAD + allowed) == []


@pytest.mark.parametrize(
    "misplaced",
    [
        "pass  # J6",
        "raise ValueError('against J6')",
        'def f():\n    """Do it (J6)."""',
        'def f():\n    """Guarantees: J6."""',
        'def f():\n    """Do it.\n    Guarantees: J6.\n    """',
        'def f():\n    """Do it.\n\n    Guarantees: J6, and J8.\n    """',
        'def f():\n    """Do it.\n\n    Guarantees: J6.\n\n    And so on.\n    """',
        "# Guarantees: J6.",
    ],
)
def test_a_guarantee_that_is_named_elsewhere_is_found(misplaced: str) -> None:
    assert len(_misplaced_numbers(HEAD + misplaced)) == 1


def test_no_module_is_too_long() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in lengths.items() if lines > 500} == {}
