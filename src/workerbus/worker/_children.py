"""How a worker has its children started (R3, W5, W9).

It only asks for that: the runner starts them, as it does all workers. A child that is watched is watched before.
"""

from collections.abc import Sequence
from typing import Protocol

from workerbus.messages import BusAddWorkerMessage
from workerbus.worker._state import WorkerState


class Watching(Protocol):
    """The presence of a parent, as far as its children concern it."""

    async def watch(self, name: str, *, child: bool = False) -> None:
        """Have the hooks run when the named worker gets ready."""

    def forget_child(self, name: str) -> None:
        """Watch no more for a child that was not added."""


async def start_children(state: WorkerState, presence: Watching, children: Sequence[WorkerState]) -> None:
    """Have children started, one after the other; if one fails, those not yet started are children no more.

    Args:
        state: The state of their parent.
        presence: Lets the parent hear when they get ready.
        children: The states of the children.
    """
    try:
        for child in children:
            await start_child(state, presence, child)
    except BaseException:
        for child in children:
            if not child.admitted:
                child.disown()
                presence.forget_child(child.name)
        raise


async def start_child(state: WorkerState, presence: Watching, child: WorkerState) -> None:
    """Have the runner start a child; returns when it is attached, and raises what went wrong."""
    runner = state.runner
    if child.admitted or runner is None:
        return
    state.check_takes(child)  # it may have begun to end since the child was adopted
    runner.check_new(child.worker)
    if child.watched:
        await presence.watch(child.name, child=True)
    child.attaching()
    await state.send(BusAddWorkerMessage(child.worker, source=state.name, target=runner.name))
    await child.until_attached()
