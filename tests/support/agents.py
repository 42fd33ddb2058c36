"""Workers that hand over to each other."""

from typing import Any

from support.messages import Alarm, Note
from support.workers import Helper
from workerbus import BaseWorker, BusActivateWorkerMessage, BusFrameMessage, BusMessage


class Agent(Helper):
    """Notes in ``log`` what it hears, and which workers of ``watched`` were active at that moment."""

    def __init__(self, name: str, *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.log: list[object] = []
        self.watched: list[BaseWorker] = []
        self.seen: list[list[bool]] = []

    def heard(self, what: object) -> None:
        self.log.append(what)
        self.seen.append([worker.active for worker in self.watched])

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        self.heard(("activated", args))

    async def on_deactivated(self) -> None:
        self.heard("deactivated")

    async def on_bus_message(self, message: BusMessage) -> None:
        if isinstance(message, Note | Alarm):
            self.heard(message.n)
        elif isinstance(message, BusFrameMessage):
            self.heard(message.frame)


def activation(target: str, args: dict[str, Any] | None = None) -> BusActivateWorkerMessage:
    return BusActivateWorkerMessage(args, source="test", target=target)
