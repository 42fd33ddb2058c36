"""L2, L5: what the source of the library does not do."""

import ast
from pathlib import Path

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
