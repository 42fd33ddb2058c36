"""The bus: subscribers, lanes, routing, and the bus of one process."""

from workerbus.bus._bus import BusStatistics, WorkerBus
from workerbus.bus._inbox import BusSubscriber, SubscriberStatistics
from workerbus.bus._memory import MemoryBus

AsyncQueueBus = MemoryBus
"""The name that Pipecat has for it."""

__all__ = ["AsyncQueueBus", "BusStatistics", "BusSubscriber", "MemoryBus", "SubscriberStatistics", "WorkerBus"]
