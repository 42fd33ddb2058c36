"""L2, L5: what the source of the library does not do. And where it names the numbers of guarantees."""

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


NUMBER = r"\b[BGJLNOPRSWX]\d{1,2}\b"
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
