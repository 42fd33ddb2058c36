"""N8: hiredis is an extra, which all that does not name Redis does without."""

import subprocess
import sys


def said(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_without_hiredis_it_says_what_to_install_and_the_rest_works() -> None:
    """N8"""
    program = (
        "import sys; sys.modules['hiredis'] = None\n"
        "from workerbus import *\n"
        "try:\n"
        "    import workerbus.redis\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    assert said(program) == (
        "MissingExtraError the modules of workerbus.redis need hiredis: pip install 'workerbus[redis]'"
    )


def test_hiredis_is_imported_with_the_bus_and_not_before() -> None:
    """N8"""
    loaded = said("import sys; from workerbus import *; print(*sys.modules)").split()
    assert not {"hiredis", "workerbus.redis", "ssl"} & set(loaded)
