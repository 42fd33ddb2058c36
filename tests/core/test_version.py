"""The version stands in one place, and costs nothing to read."""

import subprocess
import sys
from importlib.metadata import version

import workerbus


def test_the_version_is_that_of_the_installed_package() -> None:
    assert workerbus.__version__ == version("workerbus")


def test_importing_the_package_does_not_load_what_reads_metadata() -> None:
    program = "import sys; before = set(sys.modules); import workerbus; print(set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "workerbus" in loaded
    assert "importlib.metadata" not in loaded
