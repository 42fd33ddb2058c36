"""How a worker winds down: the same steps, whatever has brought it to its end (L4, W5-W7, J1).

Where `stop()` is overridden and nobody has called it, that comes first. Then, under one deadline, which the whole run
shares:

1. The children are cancelled and waited for; the worker still takes messages meanwhile.
2. The worker takes no new jobs. Its job handlers, its hooks, its own tasks and the job groups that it has asked for are
   cancelled, and waited for. What the children have reported and no lane has begun is run then, one by one.
3. Jobs that are still open are answered, whether their handlers have unwound or not. Requests that still wait in the
   inbox are refused.
4. `cleanup()` is called, if the class overrides it. Then the worker leaves bus and registry, and its name is free.

Steps 3 and 4 are taken in any case: when the deadline has passed, and when an exit comes up in step 1 or 2.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from anyio.lowlevel import cancel_shielded_checkpoint

from workerbus._concurrency.doing import Doing, tells
from workerbus._concurrency.failures import own_error
from workerbus._concurrency.waiting import Role, Wait, serves, waits
from workerbus._methods import awaitable
from workerbus._values import JobStatus
from workerbus.abc import HookCall
from workerbus.errors import text_of
from workerbus.jobs._outcomes import error_payload
from workerbus.messages import BusCancelWorkerMessage, BusEndWorkerMessage
from workerbus.worker._state import WorkerState
from workerbus.worker._types import Phase

logger = logging.getLogger("workerbus.worker")


class WindDown:
    """The wind-down of one worker.

    Args:
        state: The worker's state.
        leave: Lets the worker leave bus and registry.
        leaves_at_once: Returns whether `leave` would wait for nobody.
        report: Reports what `stop()` or `cleanup()`, by its name, has raised.
    """

    __slots__ = ("_deadline", "_leave", "_leaves_at_once", "_report", "_state")

    def __init__(
        self,
        state: WorkerState,
        leave: Callable[[], Awaitable[None]],
        leaves_at_once: Callable[[], bool],
        report: Callable[[str, BaseException], None],
    ) -> None:
        self._state = state
        self._report = report
        self._leave = leave
        self._leaves_at_once = leaves_at_once
        self._deadline = 0.0

    async def run(self) -> None:
        """Wind down."""
        state, in_time = self._state, False
        state.ends_children = True
        state.begins_to_go()
        state.end_restarts()
        try:
            self._deadline = state.clean_up.begin()
            if state.stop_is_due:
                with state.clean_up.shield(self._deadline) as shield:
                    await self.call_stop()
                if shield.cancelled_caught:
                    logger.warning("worker %r is late: its stop() has not ended in time", state.name, extra=state.about)
            state.inbox.catch_up()
            if not self._nothing_runs():
                with state.clean_up.shield(self._deadline) as shield:
                    await self._cancel_children()  # step 1
                    state.inbox.catch_up()
                    state.phase = Phase.STOPPING
                    self._cancel_work()  # step 2
                    in_time = True
                    # The groups last, since handlers and hooks may ask for jobs even while they unwind.
                    await state.job_server.pool.quiet()
                    await state.hooks.quiet()
                    if state.own_tasks is not None:
                        await state.own_tasks.quiet()
                    await state.hooks.run_reports()
                    await state.job_client.quiet()
                    if self._tells_of_cancel:  # the lanes are closed by now, so it is run here
                        await state.hooks.run(HookCall("on_bus_message", (state.final_message,), state.final_message))
                if shield.cancelled_caught:
                    logger.warning(
                        "worker %r is late: not all that it does has ended in time", state.name, extra=state.about
                    )
        finally:
            for data in state.hooks.end_reports():
                if state.runner is not None:
                    state.runner.worker_error_untold(data)
            late = self._refuse_the_rest()  # step 3, which waits for nothing and so cannot be cut short
            if late and not in_time:
                # Step 2 was not reached, so the handlers were cancelled only just now: two passes of the loop show
                # which of them go. The others refuse cancellation.
                for _ in range(2):
                    await cancel_shielded_checkpoint()
                late = state.job_server.answer_all(*self._verdict())
            if late:
                handlers = ", ".join(late)
                logger.warning(
                    "worker %r waits for handlers that refuse cancellation: %s", state.name, handlers, extra=state.about
                )
            await self._clean_up()  # step 4

    waits(run, lambda its: Wait(2, f"for what worker {its['state'].name!r} has cancelled to unwind"))
    tells(run, lambda its: Doing(f"the end of worker {its['state'].name!r}", its["state"].name))

    async def call_stop(self) -> None:
        """Call the user's `stop()`, if it is due. What it raises is logged and reported."""
        state = self._state
        if state.stop_is_due:
            state.stop_called = True
            try:
                await awaitable(state.worker.stop(), state.worker, "stop")
            except BaseException as exc:  # noqa: BLE001 - sorted there; logged and reported
                self._failed("stop", await own_error(exc))

    def _failed(self, what: str, error: BaseException) -> None:
        state = self._state
        logger.error("%s() of worker %r failed", what, state.name, exc_info=error, extra=state.about)
        self._report(what, error)

    async def of_unstarted(self) -> None:
        """Clean up and leave, for a worker whose task has never begun."""
        self._deadline = self._state.clean_up.begin()
        await self._clean_up()

    def _nothing_runs(self) -> bool:
        # Most workers of a large program are idle at their end: those need no scope, no cancel and no checkpoint, and
        # 1,000 of them start and stop 1.04 to 1.13 times as fast.
        state = self._state
        no_jobs = state.job_server.idle and not state.job_client.groups and not state.has_own_tasks
        no_hooks = state.hooks.idle and not state.hooks.has_reports and not self._tells_of_cancel
        return no_jobs and no_hooks and not state.has_unfinished

    @property
    def _tells_of_cancel(self) -> bool:
        return self._state.final_message is not None and self._state.hooks.wants("on_bus_message")

    def end_after_jobs(self) -> None:
        """Have the worker take no more jobs, and end gracefully when those that it has are done."""
        state = self._state
        state.closing = True
        state.begins_to_go()
        state.tasks.start(self._end_after_jobs, name=f"{state.name} last jobs")

    async def _end_after_jobs(self) -> None:
        state = self._state
        await self.jobs_done()
        state.bus.post_here(BusEndWorkerMessage(source=state.name, target=state.name))

    waits(_end_after_jobs, lambda its: Wait(2, f"for the last jobs of worker {its['state'].name!r}"))
    serves(_end_after_jobs, lambda its: Role(f"the end of worker {its['state'].name!r}, when its jobs are done"))

    async def jobs_done(self) -> None:
        """Wait until the worker has no job under way, and has run the hooks of the answers."""
        state = self._state
        while not (state.job_server.idle and not state.job_client.groups and state.hooks.idle):
            await state.job_server.all_answered()
            await state.job_server.pool.quiet()
            await state.job_client.all_forgotten()
            await state.hooks.quiet()

    async def end_children(self, reason: str | None) -> None:
        """Have the children end, all together, those that are on their way to the bus as well, and wait for them."""
        state = self._state
        state.ends_children = True
        for child in state.unfinished():
            if child.attached.is_set():
                self._end_child(child, reason)
            else:
                state.tasks.start(self._end_when_attached, child, reason, name=f"{state.name} end of {child.name}")
        for child in state.unfinished():
            await child.until_finished()

    def _end_child(self, child: WorkerState, reason: str | None) -> None:
        self._state.bus.post_here(BusEndWorkerMessage(reason, source=self._state.name, target=child.name))

    async def _end_when_attached(self, child: WorkerState, reason: str | None) -> None:
        await child.attached.wait()
        if child.attach_error is None:
            self._end_child(child, reason)

    async def _cancel_children(self) -> None:
        state = self._state
        children = state.unfinished()
        crash = state.crash
        reason = state.reason or ("its parent stopped" if crash is None else f"its parent failed: {text_of(crash)}")
        for child in children:
            message = BusCancelWorkerMessage(reason, source=state.name, target=child.name)
            if child.phase is Phase.NEW:
                # Not on the bus yet, so no message reaches it: it will find this one when its task begins.
                child.final_message = child.final_message or message
                child.reason = child.final_message.reason
            else:
                state.bus.on_message_received(message)  # here alone: it overtakes all, and no network can lose it
        for child in children:
            await child.until_finished()

    waits(_cancel_children, lambda its: Wait(2, f"for child {its['child'].name!r} to finish"))

    def _cancel_work(self) -> None:
        state = self._state
        # The jobs that it has asked for before those that it does: one that it has asked of itself is withdrawn, and
        # CANCELLED, before the end of its handler can answer it with something else.
        state.job_client.cancel_all(state.reason or f"worker {state.name!r} stopped")
        state.job_server.cancel_all(*self._verdict())
        state.job_server.pool.cancel()
        state.hooks.close(cancel=True)
        state.winding_down = True
        if state.own_tasks is not None:
            state.own_tasks.close()

    def _refuse_the_rest(self) -> list[str]:
        # Sets the phase and cancels again what step 2 has cancelled, since step 2 may not have been reached.
        state = self._state
        state.phase = Phase.STOPPING
        self._cancel_work()
        state.job_client.close(state.reason or f"worker {state.name!r} stopped")
        state.inbox.refuse_the_rest()
        return state.job_server.answer_all(*self._verdict())

    def _verdict(self) -> tuple[JobStatus, dict[str, Any]]:
        crash = self._state.crash
        if crash is not None:
            return JobStatus.ERROR, error_payload(crash)
        return JobStatus.CANCELLED, self._state.stopped_payload()

    async def _clean_up(self) -> None:
        state = self._state
        if state.cleans_up_by_default or state.cleanup_called:
            if self._leaves_at_once():
                await self._leave()  # no shield for what never waits: 1.13 times as fast a start and stop
            else:
                await self._leave_in_time()
            return
        state.cleanup_called = True
        try:
            # Called past the deadline, too: what cleanup() does before it first waits is still done.
            with state.clean_up.shield(self._deadline) as shield:
                await awaitable(state.worker.cleanup(), state.worker, "cleanup")
            if shield.cancelled_caught:
                logger.warning("worker %r is late: its cleanup() has not ended in time", state.name, extra=state.about)
        except BaseException as exc:  # noqa: BLE001 - sorted there; logged and reported
            self._failed("cleanup", await own_error(exc))
        finally:
            await self._leave_in_time()

    async def _leave_in_time(self) -> None:
        with self._state.clean_up.shield(self._deadline):
            await self._leave()
