"""``workerbus new NAME``: writes a small project, whose own tests pass.

What it writes is in ``template/``; here is where each file goes, and which names a project may have. Nothing is
overwritten, and all that can be wrong is said before anything is written.
"""

import argparse
import re
import sys
import unicodedata
from importlib import resources
from keyword import iskeyword, issoftkeyword
from pathlib import Path
from typing import Final

from workerbus.cli._commands import USAGE, CommandError, Commands

FILES: Final = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "Dockerfile": "Dockerfile.txt",
    ".dockerignore": "dockerignore.txt",
    ".gitignore": "gitignore.txt",
    ".github/workflows/checks.yml": "checks.yml.txt",
    "src/@package@/__init__.py": "init.py.txt",
    "src/@package@/__main__.py": "main.py.txt",
    "src/@package@/py.typed": "py.typed.txt",
    "src/@package@/workers.py": "workers.py.txt",
    "tests/test_workers.py": "test_workers.py.txt",
}
"""The path in a project to the name of its template."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_USED: Final = frozenset({"anyio", "attr", "attrs", "msgspec", "pytest", "src", "tests", "trio", "workerbus"})


def add_new(commands: Commands, version: str) -> None:
    """Add the command ``new``, which writes projects for a version of the library."""
    parser = commands.add_parser(
        "new",
        help="write a small project to begin with",
        description="Write a small project to begin with: a typed worker, a program, tests in virtual time, a"
        " Dockerfile, a workflow that checks it.",
    )
    parser.add_argument("name", metavar="NAME", help="the project's name, like 'word-count'")
    parser.add_argument(
        "--in", metavar="DIR", type=Path, default=Path(), dest="folder", help="where to make it; default: here"
    )
    parser.set_defaults(run=new, version=version)


def new(given: argparse.Namespace) -> int:
    """Write a project."""
    project: str = given.name
    package = package_of(project)
    folder: Path = given.folder / project
    made = {"project": project, "package": package, "version": given.version}
    texts = {_filled(path, made): _filled(_template(name), made) for path, name in FILES.items()}
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CommandError(f"{str(folder)!r} is there already: nothing is overwritten", USAGE)
        for path, text in texts.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
    except OSError as exc:
        raise CommandError(f"{str(folder)!r} cannot be written: {exc.strerror}") from None
    sys.stdout.write(
        f"wrote {len(texts)} files to {folder}; try it:\n"
        f"  cd {folder}\n"
        "  python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'\n"
        f"  .venv/bin/python -m {package} README.md\n"
        "  .venv/bin/pytest\n"
    )
    return 0


def package_of(project: str) -> str:
    """Return the name of a project's package.

    Raises:
        CommandError: The project cannot have this name.
    """
    if not _NAME.fullmatch(project):
        raise CommandError(
            f"{project!r} is no name for a project: that is lower-case letters and digits, words joined by '-' or '_',"
            f" beginning with a letter{_near(project)}",
            USAGE,
        )
    package = project.replace("-", "_")
    why = _taken(package)
    if why is not None:
        raise CommandError(f"{project!r} is no name for a project: {why}; what about '{project}-workers'?", USAGE)
    return package


def _taken(package: str) -> str | None:
    if iskeyword(package) or issoftkeyword(package):
        return "it is a word of Python's"
    if package in sys.stdlib_module_names or package == "test":
        return "Python has a module of that name"
    if package in _USED:
        return "the project itself uses another package of that name"
    return None


def _near(name: str) -> str:
    """Propose a name that is like another one, if there is any."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    parts = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", plain)
    near = "-".join(parts).lower().lstrip("-0123456789")
    return f"; did you mean {near!r}?" if _NAME.fullmatch(near) and _taken(near.replace("-", "_")) is None else ""


def _template(name: str) -> str:
    return resources.files("workerbus.cli").joinpath("template", name).read_text(encoding="utf-8")


def _filled(text: str, made: dict[str, str]) -> str:
    for mark, value in made.items():
        text = text.replace(f"@{mark}@", value)
    return text
