"""A worker for tests that writes down its hooks, so that a test can wait for them and assert about them afterwards."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import field, frozen

from workerbus.errors import UnknownEventError
from workerbus.messages import BUILT_IN, BusMessage
from workerbus.testing.workers._news import News
from workerbus.worker._base import BaseWorker
from workerbus.worker._core import core_of
from workerbus.worker._hooks import HOOKS


@frozen
class HookRun:
    """A run of a hook.

    Args:
        hook: The name of the hook, ``"on_job_response"`` for instance.
        args: What the hook was called with.
        error: What the hook raised, cancellation included; None if it returned.
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
    """A worker that records which of its hooks have run, and with what arguments.

    On its own it does nothing else, which is enough for a requester or a listener. In front of a worker class of your
    own, as in ``class Spy(RecordingWorker, Assistant): ...``, it records the hooks of that class.

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

    It does not record ``on_job_request``, which is a job's handler (see `ScriptedWorker`), event handlers, and
    ``on_bus_message`` for the library's own messages. For frames and for your own messages, ``on_bus_message`` is
    recorded.

    Args:
        name: The name of the worker, unique on the bus; made up by default.
        active: Whether the worker is active from its start on.

    Attributes:
        recorded: The hooks that have run, in the order in which they ended.
    """

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.recorded: list[HookRun] = []
        core = core_of(self)
        news = self.__news = News(core.state.name, lambda: [run.hook for run in self.recorded])
        core.presence.before_leaving = news.leave

    # In the class body, since a worker's hooks are collected when its class is made; type checkers see those inherited.
    for _hook in sorted(HOOKS - {"on_job_request"}):
        vars()[_hook] = _recorded(_hook)

    def ran(self, hook: str) -> list[HookRun]:
        """Return the runs of one hook so far, in order.

        Args:
            hook: The name of the hook.

        Raises:
            UnknownEventError: There is no hook of that name; a `ValueError`.
        """
        if hook not in HOOKS:
            raise UnknownEventError(hook, type(self).__name__, HOOKS)
        return [run for run in self.recorded if run.hook == hook]

    async def until(self, hook: str, count: int = 1) -> HookRun:
        """Wait until a hook has run ``count`` times; if it already has, return at once.

        Args:
            hook: The name of the hook.
            count: How many times.

        Returns:
            The ``count``-th run.

        Raises:
            AssertionError: The worker has finished before that.
            UnknownEventError: There is no hook of that name; a `ValueError`.
        """
        await self.__news.until(lambda: len(self.ran(hook)) >= count, f"{hook} has run {count} times")
        return self.ran(hook)[count - 1]

    async def until_message(self, kind: type[BusMessage], count: int = 1) -> BusMessage:
        """Wait until ``count`` messages of a class have been handled; if they already have, return at once.

        Args:
            kind: The class: of your own messages, or of those that bring frames.
            count: How many messages.

        Returns:
            The ``count``-th message.

        Raises:
            AssertionError: The worker has finished before that.
        """

        def got() -> list[BusMessage]:
            return [run.args[0] for run in self.ran("on_bus_message") if isinstance(run.args[0], kind)]

        await self.__news.until(lambda: len(got()) >= count, f"{count} {kind.__name__} have come")
        return got()[count - 1]


def news_of(worker: RecordingWorker) -> News:
    """Return the `News` of a worker, with which those who wait for it are woken."""
    return worker._RecordingWorker__news  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001 - this module's own
