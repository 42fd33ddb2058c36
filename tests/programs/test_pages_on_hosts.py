"""The page on hosts shows what stands in the programs that the tests run."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/hosts.md").read_text()
SNIPPETS = re.findall(r"```(?:python|ini|dockerfile)\n(.*?)```", PAGE, re.DOTALL)


def text_of(path: Path) -> str:
    """A program; of a notebook, its cells."""
    text = path.read_text()
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) + "\n" for cell in json.loads(text)["cells"])


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(1, len(SNIPPETS) + 1))
def test_a_snippet_stands_in_one_of_the_programs(snippet: str) -> None:
    programs = [path for path in (ROOT / "examples/hosts").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert any(snippet in text_of(path) for path in programs)


def test_every_program_is_on_the_page() -> None:
    names = {path.name for path in (ROOT / "examples/hosts").iterdir() if path.suffix in (".py", ".ipynb")}
    assert {name for name in names if f"| `examples/hosts/{name}` |" not in PAGE} == set()
