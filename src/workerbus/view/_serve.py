"""`serve_view`: a view of a runner, or of a network, at an address, for as long as a block runs (L1, O4, O5, O7).

Its tasks are in a task group of its own: one accepts clients, one looks, and there is one for each client. They end
with the block, whatever a client does.
"""

import logging
from collections.abc import Callable, Container, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from anyio import CapacityLimiter, create_task_group, create_tcp_listener, move_on_after
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from workerbus._concurrency.lifetime import CLEANUP_SECONDS
from workerbus._log import about
from workerbus.bus._peer_bus import PeerBus
from workerbus.errors import MissingExtraError, NotRunningError
from workerbus.runner._runner import WorkerRunner

if TYPE_CHECKING:
    from workerbus.otel._prometheus import MetricReader

logger = logging.getLogger("workerbus.view")

CLIENTS: Final = 64
"""How many clients are served at once; others wait."""


class View:
    """A live view, served to browsers while its block runs; made by `serve_view`.

    Guarantees: L1, O4, O5, O7.
    """

    def __init__(
        self,
        runner_or_bus: WorkerRunner | PeerBus,
        port: int,
        host: str,
        token: str | None,
        allowed_hosts: Iterable[str],
        *,
        name: str | None,
        payloads: bool,
        metric_reader: "MetricReader | None",
    ) -> None:
        try:
            from workerbus.view._guard import Guard  # noqa: PLC0415 - needs h11, which is an extra
            from workerbus.view._http import serve_client  # noqa: PLC0415 - the same
            from workerbus.view._observer import Observer  # noqa: PLC0415 - the same
            from workerbus.view._routes import Routes  # noqa: PLC0415 - the same
            from workerbus.view._scenes import scene_of  # noqa: PLC0415 - the same
        except ModuleNotFoundError as error:
            if error.name != "h11":
                raise
            raise MissingExtraError("views", "h11", "view") from error
        self._scene = scene_of(runner_or_bus, name)
        self._host = host
        self._port = port
        self._serve_client = serve_client
        self._observer = Observer(self._scene)
        guard = Guard(host, token, allowed_hosts)
        more: Callable[[Container[str]], str] | None = None
        if metric_reader is not None:
            from workerbus.otel._prometheus import prometheus_text  # noqa: PLC0415 - of an extra

            more = partial(prometheus_text, metric_reader)
        health = self._scene.health
        self._routes = Routes(guard, self._observer, health, payloads=payloads, more_metrics=more)
        self._places = CapacityLimiter(CLIENTS)
        self._tasks: TaskGroup | None = None
        self._url: str | None = None
        self._used = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._scene.name!r} at {self._url or 'no address yet'}>"

    @property
    def url(self) -> str:
        """The address of the page, without the token.

        Raises:
            NotRunningError: It is not served yet; a `RuntimeError`.
        """
        if self._url is None:
            raise NotRunningError("the view is not served yet: enter it with 'async with'")
        return self._url

    async def __aenter__(self) -> Self:
        """Serve the view.

        Raises:
            NotRunningError: It was served before; a `RuntimeError`.
            OSError: The address is taken, or is none of this machine's.
            Exception: What has kept a bus from opening.
        """
        if self._used:
            raise NotRunningError("this view was served before: make another one")
        self._used = True
        self._listener = listener = await create_tcp_listener(local_host=self._host, local_port=self._port)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's
        shown = f"[{self._host}]" if ":" in self._host else self._host
        try:
            await self._scene.__aenter__()
        except BaseException:
            await self._close()
            raise
        self._url = f"http://{shown}:{port}/"
        self._tasks = create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._observer.look, name="view: look")
        self._tasks.start_soon(listener.serve, self._client, name="view: listen")
        logger.info("a view of %r is at %s", self._scene.name, self._url, extra=self._about)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Send all clients away, and close the address."""
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel("the view ends")
        try:
            await self._tasks.__aexit__(None, None, None)  # what the body has raised stays as it is
        finally:
            try:
                await self._close()
            finally:
                await self._scene.__aexit__(exc_type, exc, traceback)

    async def _close(self) -> None:
        with move_on_after(CLEANUP_SECONDS, shield=True):
            await self._listener.aclose()

    @property
    def _about(self) -> dict[str, str]:
        return about(runner=self._scene.runner_name)

    async def _client(self, stream: SocketStream) -> None:
        async with stream, self._places:
            try:
                await self._serve_client(stream, self._routes.respond)
            except Exception as error:
                logger.error("a view could not answer: %s", error, exc_info=error, extra=self._about)


def serve_view(
    runner_or_bus: WorkerRunner | PeerBus,
    *,
    port: int = 8765,
    host: str = "127.0.0.1",
    token: str | None = None,
    allowed_hosts: Iterable[str] = (),
    name: str | None = None,
    payloads: bool = False,
    metric_reader: "MetricReader | None" = None,
) -> View:
    """Serve a live view of a runner, or of all runners on a network, to browsers, for as long as a block runs.

    ::

        async with WorkerRunner() as runner, serve_view(runner) as view:
            print(view.url)
            ...

    It needs the extra `view`. It shows the runner's statistics, jobs and what became of them, curves, and the errors
    that the library logs, but no payloads. It is read-only. While nobody looks, it costs nothing.

    Args:
        runner_or_bus: The runner, which need not run yet. Or a bus with peers: then it shows the runners of all
            processes on the network, as `workerbus.observing.observe_cluster` does, and needs no runner.
        port: The port; 0 for any free one, which `View.url` contains.
        host: The address; by default only this machine can reach it.
        token: A secret for browsers, which open ``url + "?token=" + token`` once. Tools send it as ``Authorization:
            Bearer``. Required if ``host`` is not an address of this machine alone.
        allowed_hosts: The host names, besides ``localhost`` and plain addresses, under which the page may be requested.
        name: The name shown on the page; by default that of the runner or the bus.
        payloads: Whether requests to ``/api/messages`` may ask for payloads. The page never shows any.
        metric_reader: A reader of OpenTelemetry's SDK, such as ``InMemoryMetricReader()``. What it collects is at
            ``/metrics``, beside the statistics. It needs the extra `otel`.

    Raises:
        UnprotectedViewError: Others may reach the address, and there is no token; a `ValueError`.
        MissingExtraError: h11 is not installed, or with ``metric_reader``, OpenTelemetry; an `ImportError`.
        TypeError: It is neither a runner nor a bus with peers.

    Guarantees: L1, O3, O4, O5, O7, O9.
    """
    return View(
        runner_or_bus,
        port,
        host,
        token,
        allowed_hosts,
        name=name,
        payloads=payloads,
        metric_reader=metric_reader,
    )
