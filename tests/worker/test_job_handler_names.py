"""N6: names that a job handler may not have."""

import pytest

from workerbus import BaseWorker, BusJobRequestMessage, ReservedNameError, job


def test_a_job_handler_takes_no_name_of_the_librarys() -> None:
    with pytest.raises(ReservedNameError, match="Starts has an attribute 'start'"):

        class Starts(BaseWorker):
            @job(name="start")
            async def start(self, message: BusJobRequestMessage) -> None:  # type: ignore[override]  # on purpose
                pass
