"""How a job ends at a scripted worker, other than with an answer: it raises, hangs, is deferred, stops, or crashes."""

from anyio import sleep_forever
from anyio.abc import TaskGroup

from workerbus._concurrency.waiting import Wait, waits
from workerbus.testing.workers._behaviour import Behaviour, ScriptedError
from workerbus.worker._base import BaseWorker


async def end_of_script(worker: BaseWorker, behaviour: Behaviour, group: TaskGroup | None) -> None:
    """End a job as its script says, other than with an answer.

    Args:
        worker: The worker.
        behaviour: What the script says.
        group: The worker's task group, for one that crashes.
    """
    match behaviour.end:
        case "raise":
            raise _error(behaviour)
        case "defer":
            return
        case "stop":
            await worker.stop()
        case "crash":
            assert group is not None, "a worker that takes jobs runs"
            group.start_soon(_crash, _error(behaviour), name=f"{worker.name} crashes")
    await sleep_forever()


waits(end_of_script, lambda its: Wait(0, f"for ever: it is scripted to {its['behaviour'].end}"))


def _error(behaviour: Behaviour) -> Exception:
    if behaviour.error is None:
        return ScriptedError(f"scripted to {behaviour.end}")
    return behaviour.error.with_traceback(None)


async def _crash(error: Exception) -> None:
    raise error
