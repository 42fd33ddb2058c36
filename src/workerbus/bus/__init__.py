"""The bus: subscribers, lanes, routing, and the bus of one process."""

from workerbus.bus._core import BusStatistics, WorkerBus
from workerbus.bus._memory import MemoryBus
from workerbus.bus._subscriber import BusSubscriber, SubscriberStatistics

AsyncQueueBus = MemoryBus
"""The name that Pipecat has for it."""

__all__ = ["AsyncQueueBus", "BusStatistics", "BusSubscriber", "MemoryBus", "SubscriberStatistics", "WorkerBus"]
