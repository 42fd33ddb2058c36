"""X8: OpenTelemetry is an extra, and nobody else needs it."""

import subprocess
import sys


def ran(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_without_opentelemetry_the_module_says_what_to_install() -> None:
    """X8"""
    program = """
import sys
sys.modules["opentelemetry"] = None
import workerbus, workerbus.pipeline, workerbus.recording
try:
    import workerbus.otel
except ImportError as error:
    print(type(error).__name__, error)
"""
    assert ran(program) == (
        "MissingExtraError traces and metrics need opentelemetry-api: pip install 'workerbus[otel]'"
    )


def test_the_library_does_not_import_opentelemetry_before_it_is_needed() -> None:
    """X8"""
    program = "import sys, workerbus, workerbus.pipeline, workerbus.recording; print('opentelemetry' in sys.modules)"
    assert ran(program) == "False"
