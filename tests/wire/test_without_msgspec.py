"""X1: msgspec is an extra: without it everything works that does not name the wire."""

import subprocess
import sys

BLOCKED = """
import sys
sys.modules["msgspec"] = None
"""


def ran(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", BLOCKED + program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_without_msgspec_the_library_can_be_imported() -> None:
    """X1"""
    program = """
import workerbus, workerbus.pipeline, workerbus.testing
from workerbus.errors import WireError
print(workerbus.BusJobRequestMessage("1-a", source="me").job_id, "workerbus.wire" in sys.modules)
"""
    assert ran(program) == "1-a False"


def test_without_msgspec_the_wire_says_what_to_install() -> None:
    """X1"""
    program = """
try:
    import workerbus.wire
except ImportError as error:
    print(type(error).__name__, error)
"""
    assert ran(program) == (
        "MissingExtraError messages that travel to other processes need msgspec: pip install 'workerbus[redis]'"
    )


def test_the_library_does_not_import_msgspec_before_it_is_needed() -> None:
    """X1"""
    program = "import sys, workerbus, workerbus.pipeline; print('msgspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
