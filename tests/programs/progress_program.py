"""What `test_progress` runs: ``python progress_program.py BACKEND [hang]``."""

import sys
from typing import Any

import anyio

from workerbus import BaseWorker, BusJobRequestMessage, JobGroupEvent, WorkerRunner, job, rich_progress


class Scanner(BaseWorker):
    @job(name="scan")
    async def scan(self, message: BusJobRequestMessage) -> dict[str, Any]:
        await self.send_job_update(message.job_id, {"files": 1})
        await anyio.sleep(60 if "hang" in sys.argv else 0.3)
        if self.name == "b":
            raise OSError("no such tree")
        return {}


async def main() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Scanner("a"), Scanner("b"))
        async with rich_progress(runner.job_group("a", "b", name="scan", cancel_on_error=False)) as group:
            async for event in group:
                assert event.type == JobGroupEvent.UPDATE
                sys.stdout.write(f"{event.worker_name} has begun\n")
        sys.stdout.write(f"statuses: {' '.join(group.statuses.values())}\n")


anyio.run(main, backend=sys.argv[1])
