"""What a program replaces or adds on one object, and not in its class: as stand-ins in tests do."""

from support.workers import Helper, running
from workerbus import BaseWorker, WorkerParams


async def test_a_worker_may_get_its_run_and_its_cleanup_on_the_object() -> None:
    """W6: the cleanup is called once, whoever has put it there."""
    worker, calls = Helper("it"), list[str]()

    async def run(params: WorkerParams) -> None:
        calls.append("run")
        await BaseWorker.run(worker, params)

    async def cleanup() -> None:
        calls.append("cleanup")

    worker.run, worker.cleanup = run, cleanup  # type: ignore[method-assign]  # on purpose
    async with running(worker):
        pass
    assert calls == ["run", "cleanup"]
