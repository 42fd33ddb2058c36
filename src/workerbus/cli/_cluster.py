"""All programs on a bus: what there is to see of them, and the messages that pass (O7, O8).

They are asked by who looks, over the bus, for as long as somebody does. A bus that was lost connects again by itself.
"""

from time import monotonic
from typing import Any, Final

from anyio import move_on_after

from workerbus._concurrency.failures import unwrap_group
from workerbus.bus import PeerBus
from workerbus.cli._address import Address
from workerbus.cli._commands import CommandError
from workerbus.cli._in_order import InOrder, in_order
from workerbus.cli._watch import Passed, State, Take, Watch, empty
from workerbus.errors import WorkerBusError
from workerbus.observing import ObservedCluster, observe_cluster
from workerbus.runner._notes import MessagesWanted

SILENCE: Final = 1.0
"""Seconds without a report after which it is looked whether there still is a bus."""
INTERVAL: Final = 0.25
"""Seconds between two reports of a runner, for who follows messages."""
HELD: Final = 0.6
"""Seconds for which a message is held, since another process may tell of an earlier one."""


class ClusterWatch(Watch):
    """What the programs on a bus say; see `Watch`.

    Args:
        address: That of the bus.
        bus: The bus.
    """

    def __init__(self, address: Address, bus: PeerBus) -> None:
        super().__init__(address.shown)
        self._bus = bus
        self._cluster: ObservedCluster | None = None

    async def run(self) -> None:
        """Ask the programs on the bus, again and again."""
        try:
            async with observe_cluster(self._bus) as self._cluster:
                while True:
                    self._take(self._cluster.state())
                    with move_on_after(SILENCE):  # nobody tells of a bus that is lost
                        await self._cluster.changed()
        except (WorkerBusError, ExceptionGroup) as error:
            raise _told(error) from None
        finally:
            self._cluster = None

    async def story(self, job_id: str) -> dict[str, Any] | None:
        """Return the story of a job."""
        return None if self._cluster is None else self._cluster.story(job_id)

    def _take(self, state: State) -> None:
        self.state, self.at = {**empty(), **state}, monotonic()
        bus = state["about"].get("bus", "connected")
        if bus == "connected":
            self._found()
        else:
            self._lose(f"the bus is {bus}")
        self._tell()
        self.begun.set()


class ClusterPassing:
    """The messages that pass in all programs on a bus.

    Args:
        bus: The bus.
        payloads: Whether their payloads are wanted.
    """

    def __init__(self, bus: PeerBus, *, payloads: bool) -> None:
        self._bus = bus
        self._payloads = payloads

    async def run(self, take: Take) -> None:
        """Follow the messages."""
        wanted: MessagesWanted = "payloads" if self._payloads else "all"
        try:
            async with observe_cluster(self._bus, interval=INTERVAL, messages=wanted) as cluster:
                passing, before = cluster.messages(), cluster.missed

                async def read(order: InOrder) -> None:
                    nonlocal before
                    async for passed in passing:
                        missed, before = cluster.missed - before, cluster.missed
                        order.add([Passed(*passed)], missed, monotonic())

                await in_order(read, take, HELD)
        except (WorkerBusError, ExceptionGroup) as error:
            raise _told(error) from None


def _told(error: WorkerBusError | ExceptionGroup) -> Exception:
    """Return what is raised for an error: what the bus has raised is told of in one line, all else is as it is."""
    sole = unwrap_group(error)
    return CommandError(str(sole)) if isinstance(sole, WorkerBusError) else error
