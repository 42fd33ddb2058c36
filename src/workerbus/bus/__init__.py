"""The bus: subscribers, lanes, routing, and the bus of one process."""

from workerbus.bus._bus import WorkerBus
from workerbus.bus._inbox import BusStatistics, BusSubscriber, SubscriberStatistics
from workerbus.bus._memory import MemoryBus

AsyncQueueBus = MemoryBus
"""The name of `MemoryBus` in Pipecat."""

__all__ = ["AsyncQueueBus", "BusStatistics", "BusSubscriber", "MemoryBus", "SubscriberStatistics", "WorkerBus"]
