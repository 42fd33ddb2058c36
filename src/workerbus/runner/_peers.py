"""What a runner does when its bus meets a peer, loses one, or is cut off itself (G4, J4, J5, X3-X5).

A bus with peers tells who comes and goes, in the step in which it learns so. When one is lost, all that it has sent has
been handed out. So the runner can settle both sides of what went on between the two at once:

1. The workers of the lost one are gone, and the jobs that were asked of them are answered; `_discovery` sees to that.
2. The jobs that the lost one has asked for are cancelled, as its requesters would have done. Their answers find nobody.
"""

import logging
from typing import Protocol

from workerbus._log import about
from workerbus._values import Peer, WorkerErrorData
from workerbus.bus._bus import WorkerBus
from workerbus.bus._peer_bus import PeerBus
from workerbus.errors import NameTakenError
from workerbus.runner._discovery import Discovery

logger = logging.getLogger("workerbus.runner")


class Hosted(Protocol):
    """A runner's workers, as far as peers concern them."""

    def requester_lost(self, peer: Peer, reason: str) -> None:
        """Cancel the jobs that a peer has asked for, which is gone."""

    def name_lost(self, name: str, owner: str) -> None:
        """Let a worker fail whose name another process has taken."""


class Lookers(Protocol):
    """Those who look at a runner from other processes."""

    def lost(self, peer: Peer) -> None:
        """Forget those who were at a peer that is gone."""


class RunnerErrors(Protocol):
    """Where a runner's errors are told."""

    def worker_error(self, data: WorkerErrorData) -> None:
        """Run the ``on_error`` handlers."""

    def fail(self, error: Exception, origin: str) -> None:
        """Cancel the run, since the runner itself cannot go on."""


class RunnerPeers:
    """A runner, as its bus tells it of peers.

    Args:
        name: The runner's name.
        bus: The runner's bus; of one without peers nothing is heard.
        discovery: What the runner knows of others.
        hosted: The runner's workers.
        errors: Where faults of the network are told.
        observers: Those who look at the runner from other processes.
    """

    def __init__(
        self,
        name: str,
        bus: WorkerBus,
        discovery: Discovery,
        hosted: Hosted,
        errors: RunnerErrors,
        observers: Lookers,
    ) -> None:
        self._name = name
        self._bus = bus if isinstance(bus, PeerBus) else None
        self._discovery = discovery
        self._hosted = hosted
        self._errors = errors
        self._observers = observers

    def begin(self) -> None:
        """Hear of peers from now on."""
        if self._bus is not None:
            self._bus.add_listener(self)

    def end(self) -> None:
        """Hear of peers no more."""
        if self._bus is not None:
            self._bus.remove_listener(self)

    def met(self, peer: Peer) -> None:
        """Tell a peer of the workers here."""
        self._discovery.met(peer)

    def lost(self, peer: Peer, reason: str) -> None:
        """Settle what went on with a peer that is gone."""
        self._observers.lost(peer)
        self._discovery.lost(peer, reason)
        self._hosted.requester_lost(peer, reason)

    def report(self, text: str) -> None:
        """Report a fault of the network, in the runner's own name."""
        logger.error("runner %r: %s", self._name, text, extra=about(runner=self._name))
        self._errors.worker_error(WorkerErrorData(self._name, text))

    def name_lost(self, name: str, owner: str) -> None:
        """Let the worker fail whose name another process has; or the runner, where it is the runner's own."""
        if name == self._name:
            self._errors.fail(NameTakenError(name, f"the network, by {owner}"), "name")
        else:
            self._hosted.name_lost(name, owner)
