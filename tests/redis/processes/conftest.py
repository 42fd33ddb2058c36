"""Each of these tests has processes on asyncio and on trio; which is where, its name and ``--schedule`` decide."""

from zlib import crc32

import pytest

from support.processes import BACKENDS


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """The one of the test itself; most other processes are on the other one."""
    seed = crc32(request.node.nodeid.encode()) + request.config.getoption("schedule")
    return BACKENDS[seed % 2]
