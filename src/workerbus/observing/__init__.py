"""Looks at runners from elsewhere: what views, and commands for terminals, are made of."""

from workerbus.observing._cluster import ObservedCluster, observe_cluster
from workerbus.observing._passed import PassedMessage, PassingMessages

__all__ = ["ObservedCluster", "PassedMessage", "PassingMessages", "observe_cluster"]
