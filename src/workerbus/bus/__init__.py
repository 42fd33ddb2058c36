"""The bus: subscribers, lanes, routing, and the bus of one process."""

from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import BusStatistics, BusSubscriber, SubscriberStatistics
from workerbus.bus._memory import MemoryBus
from workerbus.bus._peer_bus import PeerBus
from workerbus.bus._peers import Arrival, PeerListener, Receipt
from workerbus.bus._sessions import PeerBusStatistics
from workerbus.bus._taps import Tap, TapNewBuses

AsyncQueueBus = MemoryBus
"""The name of `MemoryBus` in Pipecat."""

__all__ = [
    "Arrival",
    "AsyncQueueBus",
    "BusStatistics",
    "BusSubscriber",
    "MemoryBus",
    "PeerBus",
    "PeerBusStatistics",
    "PeerListener",
    "Receipt",
    "SubscriberStatistics",
    "Tap",
    "TapNewBuses",
    "WorkerBus",
]
