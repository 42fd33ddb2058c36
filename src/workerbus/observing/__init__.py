"""Looks at runners from elsewhere: what views, and commands for terminals, are made of."""

from workerbus.observing._cluster import ObservedCluster, PassingMessages, observe_cluster
from workerbus.observing._passed import PassedMessage

__all__ = ["ObservedCluster", "PassedMessage", "PassingMessages", "observe_cluster"]
