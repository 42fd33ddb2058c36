"""Who waits and watches for workers to come and to go, by the workers' names (G1-G3).

Who is there is not known here. Watchers are awaited each on its own, so that one that raises stops nobody.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from anyio import Event

from workerbus._concurrency.failures import own_error
from workerbus._events import call_handler
from workerbus._log import about
from workerbus._values import WorkerGoneData, WorkerReadyData, check_worker_name

logger = logging.getLogger("workerbus.registry")

Watcher = Callable[[WorkerReadyData], Awaitable[None] | None]
GoneWatcher = Callable[[WorkerGoneData], None]


class Watchers:
    """Those who watch for workers, and those who wait for one.

    Args:
        runner_name: The name of the runner that they belong to.

    Attributes:
        later: Has a function awaited behind the present step, for those who watch for workers elsewhere.
    """

    def __init__(self, runner_name: str) -> None:
        self._runner_name = runner_name
        self._watchers: dict[str, dict[Any, Watcher]] = {}
        self._departure_watchers: dict[str, dict[Any, Watcher]] = {}
        self._gone_watchers: dict[str, dict[GoneWatcher, None]] = {}
        self._waiting: dict[str, dict[Event, WorkerGoneData | None]] = {}
        self.later: Callable[[Callable[[], Awaitable[None]]], None] | None = None

    async def tell(
        self, watchers: Collection[Watcher], worker_data: WorkerReadyData, *, departed: bool = False
    ) -> None:
        """Await functions that watch for a worker, one after the other; one that does so no more is left out.

        Args:
            watchers: The functions.
            worker_data: What they get.
            departed: Whether they watch for its departure.

        Guarantees: G3.
        """
        table = self._departure_watchers if departed else self._watchers
        for watcher in watchers:
            if _key(watcher) in table.get(worker_data.worker_name, {}):
                await self._call(watcher, worker_data)

    def tell_later(self, watchers: Collection[Watcher], data: WorkerReadyData, *, departed: bool = False) -> None:
        """Have functions that watch for a worker awaited behind the present step.

        Args:
            watchers: The functions.
            data: What they get.
            departed: Whether they watch for its departure.
        """
        if watchers and self.later is not None:
            self.later(partial(self.tell, watchers, data, departed=departed))

    def departure_watchers(self, worker_name: str) -> Collection[Watcher]:
        """Return the functions that watch for a worker's departure, for `tell`.

        Args:
            worker_name: The name of the worker.
        """
        return list(self._departure_watchers.get(worker_name, {}).values())

    def watches_departure(self, worker_name: str) -> bool:
        """Whether somebody watches for a worker's departure.

        Args:
            worker_name: The name of the worker.
        """
        return worker_name in self._departure_watchers

    def unwatch(self, worker_name: str, handler: Watcher) -> None:
        """Stop calling a function for a worker's arrivals and departures.

        Args:
            worker_name: The name of the worker that was watched for.
            handler: The function, as it was given to `watch` or `watch_departure`; an unknown one is ignored.
        """
        for table in (self._watchers, self._departure_watchers):
            watchers = table.get(worker_name)
            if watchers is not None:
                watchers.pop(_key(handler), None)
                if not watchers:
                    del table[worker_name]

    async def wait_for_news(self, worker_name: str) -> WorkerGoneData | None:
        """Wait until a worker is registered, has failed or is not restarted any more; nothing is left behind.

        Args:
            worker_name: The name of the worker to wait for.

        Returns:
            What is known of it if it has failed, also where that is forgotten by now, since its runner has ended.
        """
        event = Event()
        waiting = self._waiting.setdefault(worker_name, {})
        waiting[event] = None
        try:
            await event.wait()
            return waiting[event]
        finally:
            waiting.pop(event, None)
            if not waiting and self._waiting.get(worker_name) is waiting:
                del self._waiting[worker_name]

    def _let_go_on(self, name: str, failure: WorkerGoneData | None = None) -> None:
        waiting = self._waiting.pop(name, None) or {}
        for event in waiting:
            waiting[event] = failure
            event.set()

    def watch_gone(self, worker_name: str, handler: GoneWatcher) -> None:
        """Call a sync function whenever a worker has gone; a second call for the same two does nothing.

        Args:
            worker_name: The name of the worker.
            handler: The function; it gets a `WorkerGoneData`.
        """
        self._gone_watchers.setdefault(worker_name, {})[handler] = None

    def watches_gone(self, worker_name: str, handler: GoneWatcher) -> bool:
        """Whether a function is called when a worker has gone."""
        return handler in self._gone_watchers.get(worker_name, ())

    def unwatch_gone(self, worker_name: str, handler: GoneWatcher) -> None:
        """Call a function no more when a worker has gone."""
        watchers = self._gone_watchers.get(worker_name, {})
        watchers.pop(handler, None)
        if not watchers:
            self._gone_watchers.pop(worker_name, None)

    async def _call(self, watcher: Watcher, data: WorkerReadyData) -> None:
        try:
            await call_handler(watcher, data)
        except BaseException as exc:
            about_it = about(runner=self._runner_name, worker=data.worker_name)
            logger.error(
                "a watcher of worker %r failed", data.worker_name, exc_info=await own_error(exc), extra=about_it
            )


def _key(handler: Watcher) -> Any:
    """Return what a function is found by, however many watch for the same worker."""
    try:
        hash(handler)
    except TypeError:
        return id(handler)  # a callable object that compares by its fields
    return handler


def add_watcher(table: dict[str, dict[Any, Watcher]], name: str, handler: Watcher) -> bool:
    """Let a function watch for a name; return whether it did not do so before."""
    check_worker_name(name)
    if not callable(handler):
        raise TypeError(f"what watches for worker {name!r} is a function, not {handler!r}")
    watchers, key = table.setdefault(name, {}), _key(handler)
    if key in watchers:
        return False
    watchers[key] = handler
    return True
