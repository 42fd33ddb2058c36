"""Tries what would be published: each wheel and each sdist in a directory, alone, in an empty virtual environment.

``python tools/package/try_out.py build/dist``
"""

import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = {"anyio", "attrs", "idna", "typing_extensions", "pip", "setuptools", "workerbus"}
"""All that may be installed: what the core needs, and what they need; setuptools comes with pip before Python 3.12."""
EVERY_MODULE = """
import importlib, pkgutil, workerbus
from workerbus import MissingExtraError

tried, missing = 0, set()
for module in pkgutil.iter_modules(workerbus.__path__):
    if not module.name.startswith("_"):
        tried += 1
        try:
            importlib.import_module(f"workerbus.{module.name}")
        except MissingExtraError as error:
            missing.add(module.name)
            assert "pip install" in str(error), error
assert tried > 10, tried
print("without an extra there is no", ", ".join(f"workerbus.{name}" for name in sorted(missing)))
"""


class Trial:
    """A virtual environment with a distribution in it, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bin = directory / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        venv.create(directory / "venv", with_pip=True)

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment, in an empty directory, and return what it prints."""
        command = [str(self._bin / program), *arguments]
        done = subprocess.run(command, cwd=self._directory, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{program} {' '.join(arguments)} has failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def installed(self) -> set[str]:
        """Return the names of all that is installed."""
        return {
            re.split("[= @]", line)[0].replace("-", "_") for line in self.run("pip", "freeze", "--all").splitlines()
        }


@contextmanager
def trial(distribution: Path) -> Iterator[Trial]:
    """Make an environment with a distribution in it."""
    with tempfile.TemporaryDirectory() as directory:
        trial = Trial(Path(directory))
        trial.run("pip", "install", "--quiet", "--disable-pip-version-check", str(distribution))
        yield trial


def first_program() -> tuple[str, str]:
    """Return the first program of the documentation, and what it says that it prints."""
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    program, _, said = page.partition("```python\n")[2].partition("```")[0].partition("anyio.run(main)\n")
    return f"{program}anyio.run(main)\n", said.replace("# ", "")


def try_out(distribution: Path) -> None:
    """Install a distribution, and use it as somebody would who has just found it."""
    program, said = first_program()
    with trial(distribution) as there:
        assert there.installed() <= NEEDED, there.installed() - NEEDED
        there.run("pip", "check")
        assert there.run("python", "-c", program) == said
        version = there.run("workerbus", "--version").strip()
        sys.stdout.write(f"{version}: {there.run('python', '-c', EVERY_MODULE)}")
        there.run("workerbus", "new", "first-try")


def files_of(distribution: Path) -> Sequence[str]:
    """Return the files of the package in a wheel or an sdist."""
    if distribution.suffix == ".whl":
        return sorted(name for name in zipfile.ZipFile(distribution).namelist() if name.startswith("workerbus/"))
    with tarfile.open(distribution) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    return sorted(name.removeprefix("src/") for name in names if name.startswith("src/workerbus/"))


def main(directory: Path) -> None:
    """Try all distributions of a directory."""
    source = ROOT / "src"
    files = (path.relative_to(source) for path in (source / "workerbus").rglob("*") if path.is_file())
    expected = sorted(path.as_posix() for path in files if "__pycache__" not in path.parts)
    distributions = sorted(directory.iterdir())
    assert {each.suffix for each in distributions} == {".whl", ".gz"}, distributions
    for distribution in distributions:
        assert files_of(distribution) == expected, set(files_of(distribution)) ^ set(expected)
        try_out(distribution)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
