"""What a runner says and does at the edges, where no other test looks closely."""

import pytest

from workerbus import (
    PipelineRunner,
)


def test_the_deprecated_name_says_what_to_use() -> None:
    """N1."""
    with pytest.warns(DeprecationWarning, match=r"^PipelineRunner is deprecated: use WorkerRunner$"):
        runner = PipelineRunner(name="runner")
    assert runner.name == "runner"
