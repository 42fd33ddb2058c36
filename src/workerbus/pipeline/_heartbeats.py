"""Heartbeats: frames that go through a pipeline to show that it moves (P6).

One is on its way at a time, so that a pipeline that is stuck does not fill up with them. It goes through all branches.
"""

import logging
from collections.abc import Callable

from anyio import Event, current_time, move_on_after, sleep

from workerbus._log import about
from workerbus.pipeline._frames import HeartbeatFrame

logger = logging.getLogger("workerbus.pipeline")


class Heartbeats:
    """Sends heartbeats through one pipeline, and says when one does not come out.

    Args:
        name: The worker's name, for logs.
        period: How long to wait between two of them, in seconds.
        patience: After how many seconds without one that has come out the log says so.
        put: Puts a frame in where downstream frames come in; returns whether it still takes any.
        busy: Returns the names of the processors that are at work.
    """

    def __init__(
        self,
        name: str,
        period: float,
        patience: float,
        put: Callable[[HeartbeatFrame], bool],
        busy: Callable[[], list[str]],
    ) -> None:
        self._name = name
        self._period = period
        self._patience = patience
        self._put = put
        self._busy = busy
        self._arrived = Event()

    def arrived(self) -> None:
        """Note that a heartbeat has come out."""
        self._arrived.set()

    async def run(self) -> None:
        """Send heartbeats until the pipeline takes none any more."""
        # A processor may have kept the last one for ever: after each warning another one is sent.
        while True:
            self._arrived = Event()
            if not self._put(HeartbeatFrame(int(current_time() * 1e9))):
                return
            with move_on_after(self._patience) as limit:
                await self._arrived.wait()
            if limit.cancelled_caught:
                busy = ", ".join(map(repr, self._busy())) or "nobody"
                text = "no heartbeat has come through the pipeline of worker %r for more than %g seconds; at work: %s"
                logger.warning(text, self._name, self._patience, busy, extra=about(worker=self._name))
            await sleep(self._period)
