"""A worker for tests that writes down its hooks, so that a test can wait for them and assert about them afterwards."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import Event
from attrs import field, frozen

from workerbus.errors import UnknownEventError
from workerbus.messages import BUILT_IN, BusMessage
from workerbus.worker import BaseWorker
from workerbus.worker._core import core_of
from workerbus.worker._hooks import HOOKS


@frozen
class HookRun:
    """A hook that has run.

    Args:
        hook: Its name, ``"on_job_response"`` for instance.
        args: What it was called with.
        error: What it raised, cancellation included; None if it returned.
    """

    hook: str
    args: tuple[Any, ...] = ()
    error: BaseException | None = field(default=None, eq=False)


def _recorded(hook: str) -> Callable[..., Awaitable[None]]:
    @functools.wraps(getattr(BaseWorker, hook))
    async def run(self: "RecordingWorker", *args: Any) -> None:
        error: BaseException | None = None
        try:
            await getattr(super(RecordingWorker, self), hook)(*args)
        except BaseException as exc:
            error = exc
            raise
        finally:
            if hook != "on_bus_message" or type(args[0]) not in BUILT_IN:
                self.recorded.append(HookRun(hook, args, error))
                news_of(self).tell()

    return run


class RecordingWorker(BaseWorker):
    """A worker that writes down which of its hooks have run, and with what.

    As it is, it does nothing else: a requester, or somebody who only listens. In front of a worker class of your own,
    as in ``class Spy(RecordingWorker, Assistant): ...``, it records that one's hooks.

    ::

        async def test_a_worker_is_told_when_its_job_is_done():
            requester = RecordingWorker("requester")
            async with WorkerRunner() as runner:
                await runner.add_workers(EchoWorker("echo"), requester)
                await requester.until("on_activated")
                await requester.request_job("echo", payload={"n": 1})
                completed = await requester.until("on_job_completed")
            assert completed.args[0].responses == {"echo": {"n": 1}}
            assert requester.ran("on_job_error") == []

    Not recorded are ``on_job_request``, which is a job's handler (see `ScriptedWorker`), event handlers, and
    ``on_bus_message`` for the library's own messages; frames and messages of your own are.

    Attributes:
        recorded: The hooks that have run, in the order in which they ended.
    """

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.recorded: list[HookRun] = []
        news = self.__news = News(self)
        core_of(self).presence.before_leaving = [news.leave]

    # In the class body, since a worker's hooks are collected when its class is made; type checkers see those inherited.
    for _hook in sorted(HOOKS - {"on_job_request"}):
        vars()[_hook] = _recorded(_hook)

    def ran(self, hook: str) -> list[HookRun]:
        """Return the runs of one hook so far.

        Raises:
            UnknownEventError: There is no hook of that name; a `ValueError`.
        """
        if hook not in HOOKS:
            raise UnknownEventError(hook, type(self).__name__, HOOKS)
        return [run for run in self.recorded if run.hook == hook]

    async def until(self, hook: str, count: int = 1) -> HookRun:
        """Wait until a hook has run, at once if it has.

        Args:
            hook: Its name.
            count: How many times.

        Returns:
            The ``count``-th run.

        Raises:
            AssertionError: The worker has finished before.
            UnknownEventError: There is no hook of that name; a `ValueError`.
        """
        await self.__news.until(lambda: len(self.ran(hook)) >= count, f"{hook} has run {count} times")
        return self.ran(hook)[count - 1]

    async def until_message(self, kind: type[BusMessage], count: int = 1) -> BusMessage:
        """Wait until a message of your own, or a frame, has been handled, at once if it has.

        Args:
            kind: Its class.
            count: How many of them.

        Returns:
            The ``count``-th.

        Raises:
            AssertionError: The worker has finished before.
        """

        def got() -> list[BusMessage]:
            return [run.args[0] for run in self.ran("on_bus_message") if isinstance(run.args[0], kind)]

        await self.__news.until(lambda: len(got()) >= count, f"{count} {kind.__name__} have come")
        return got()[count - 1]


class News:
    """Wakes those who wait for something to happen at a worker.

    Args:
        worker: The worker.
    """

    def __init__(self, worker: RecordingWorker) -> None:
        self._worker = worker
        self._changed: Event | None = None
        self._has_left = False

    def tell(self) -> None:
        """Something has happened."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def leave(self) -> None:
        """The worker leaves: whoever still waits is told that nothing comes."""
        self._has_left = True
        self.tell()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds."""
        worker = self._worker
        while not condition():
            if self._has_left:
                ran = ", ".join(run.hook for run in worker.recorded) or "none"
                raise AssertionError(f"worker {worker.name!r} has finished before {what}; its hooks that ran: {ran}")
            if self._changed is None:
                self._changed = Event()
            await self._changed.wait()


def news_of(worker: RecordingWorker) -> News:
    """Return what wakes those who wait for a worker."""
    return worker._RecordingWorker__news  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001 - this module's own
