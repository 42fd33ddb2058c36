"""L1-L6: what lives how long, how a run winds down, and what is left of it."""

from typing import Any

import pytest

from workerbus import (
    BaseWorker,
    WorkerParams,
    WorkerRunner,
)


def quiet_runner(**kwargs: Any) -> WorkerRunner:
    return WorkerRunner(handle_sigint=False, **kwargs)


async def test_several_causes_are_an_exception_group() -> None:
    """L6."""

    class Failing(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            raise ValueError(self.name)

    runner = quiet_runner()
    await runner.add_workers(Failing("one"), Failing("two"))
    with pytest.raises(ExceptionGroup) as caught:
        await runner.run()
    assert sorted(str(exc) for exc in caught.value.exceptions) == ["one", "two"]
