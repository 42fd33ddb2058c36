"""What a test registers is forgotten after it."""

from collections.abc import Iterator

import pytest

from workerbus._wire_table import FRAMES, MESSAGES


@pytest.fixture(autouse=True)
def tables_as_they_were() -> Iterator[None]:
    before = [(table, dict(table.by_tag), dict(table.by_class)) for table in (MESSAGES, FRAMES)]
    yield
    for table, by_tag, by_class in before:
        table.by_tag, table.by_class = by_tag, by_class
