"""N8: a mistake in a class of workers is refused where it is made, with an error that names it."""

import functools
import re
import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from support.conditions import eventually
from support.hooks import HOOKS
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    HandlerTypeError,
    JobError,
    MemoryBus,
    MessageTypeError,
    MisspeltHookError,
    WorkerGoneData,
    WorkerParams,
    WorkerPool,
    WorkerReadyData,
    WorkerRunner,
    job,
    worker_ready,
)
from workerbus.pipeline import FrameProcessor, Pipeline, PipelineParams, PipelineWorker
from workerbus.redis import RedisBus

CALLED = [*HOOKS, "on_job_request", "run", "start", "stop", "cleanup"]


def class_with(name: str, body: str, base: type = BaseWorker) -> type:
    """Make a class as it is written, with one method."""
    names: dict[str, Any] = {"Base": base, "job": job, "worker_ready": worker_ready, "functools": functools}
    exec(f"class Mine(Base):\n    {body.replace('NAME', name)}\n", names)
    made: type = names["Mine"]
    return made


@pytest.mark.parametrize("name", CALLED)
def test_a_method_that_is_to_be_async_is_refused_where_it_is_not(name: str) -> None:
    """N8: by class and method, where the class is made."""
    with pytest.raises(HandlerTypeError, match=rf"^Mine\.{name} has to be async: write 'async def'$"):
        class_with(name, "def NAME(self, *args): pass")


@pytest.mark.parametrize("kind", ["staticmethod", "classmethod", "functools.singledispatchmethod"])
def test_a_method_that_is_not_bound_to_an_object_has_to_be_async_too(kind: str) -> None:
    """N8"""
    with pytest.raises(HandlerTypeError, match=r"^Mine\.on_activated has to be async: write 'async def'$"):
        class_with("on_activated", f"@{kind}\n    def NAME(*args): pass")
    class_with("on_activated", f"@{kind}\n    async def NAME(*args): pass")


@pytest.mark.parametrize("name", CALLED)
def test_a_method_that_does_not_take_what_it_gets_is_refused(name: str) -> None:
    """N8: too little, too much, or by a keyword alone."""
    takes_none = name in ("on_deactivated", "start", "stop", "cleanup")
    wrong = ["self, one", "self, *, more"] if takes_none else ["self", "self, one, two", "self, *, message"]
    for parameters in wrong:
        with pytest.raises(HandlerTypeError, match=rf"^Mine\.{name}\({parameters[:4]}.* cannot be called: it gets "):
            class_with(name, f"async def NAME({parameters}): pass")
    class_with(name, "async def NAME(self, *args): pass")
    class_with(name, "async def NAME(self, one=None, two=None): pass")


def test_a_mistake_in_a_mixin_is_refused_in_the_worker() -> None:
    """N8: the mixin is no worker, and may be anything."""

    class Mixin:
        def on_activated(self, args: dict[str, Any] | None) -> None: ...

    with pytest.raises(HandlerTypeError, match=r"^Mine\.on_activated has to be async"):
        type("Mine", (Mixin, BaseWorker), {})


def test_what_is_asked_for_acceptance_is_not_async() -> None:
    """N8, N4: it would accept everything."""
    with pytest.raises(HandlerTypeError, match=r"Mine\.accepts_bus_message has to be a plain function"):
        class_with("accepts_bus_message", "async def NAME(self, message): return False")


@pytest.mark.parametrize(
    "body",
    ["def NAME(self, message): return {}", "async def NAME(self): return {}", "async def NAME(self, a, b): return {}"],
)
def test_an_override_of_a_handler_is_looked_at_as_the_handler_was(body: str) -> None:
    """N8, N7: it stays the handler, with a decorator or without."""
    with pytest.raises(HandlerTypeError, match=r"^Mine\.echo"):
        class_with("echo", body, Helper)


async def test_what_cannot_be_seen_in_the_class_is_seen_when_it_is_called(caplog: pytest.LogCaptureFixture) -> None:
    """N8: the error names class and method, and says what to do."""
    worker = Helper("worker")
    async with running(worker) as runner:
        worker.echo = Mock(return_value={"done": 1})  # type: ignore[method-assign]  # on purpose
        with pytest.raises(JobError, match=r"Helper\.echo has to be async, and has returned \{'done': 1\}") as caught:
            await runner.job("worker", name="echo")
        assert caught.value.responses["worker"]["type"] == "HandlerTypeError"
        worker.on_job_request = Mock(return_value={})  # type: ignore[method-assign]  # on purpose
        with pytest.raises(JobError, match=r"Helper\.on_job_request has to be async, and has returned \{\}"):
            await runner.job("worker", name="unknown")
        worker.on_deactivated = Mock()  # type: ignore[method-assign]  # on purpose
        await worker.activate_worker("worker", deactivate_self=True)
        await eventually(lambda: "on_deactivated of worker 'worker' failed" in caplog.text)
    assert "Helper.on_deactivated has to be async" in caplog.text


@pytest.mark.parametrize("name", ["run", "start", "stop", "cleanup"])
async def test_what_a_worker_runs_is_named_where_it_is_not_async(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """N8"""
    worker = BaseWorker("worker")
    setattr(worker, name, Mock(return_value=None))
    runner = WorkerRunner()
    await runner.add_workers(worker)
    if name in ("run", "start"):
        with pytest.raises(HandlerTypeError, match=rf"BaseWorker\.{name} has to be async, and has returned None"):
            await runner.run()
    else:
        await runner.end()
        await runner.run()
        assert f"BaseWorker.{name} has to be async, and has returned None" in caplog.text


@pytest.mark.parametrize("name", ["on_activated", "echo"])
async def test_what_is_put_on_the_object_has_to_take_what_it_gets(name: str) -> None:
    """N8: seen when the worker is added."""

    async def takes_nothing() -> None: ...

    worker = Helper()
    setattr(worker, name, takes_nothing)
    async with WorkerRunner(handle_sigint=False) as runner:
        with pytest.raises(HandlerTypeError, match=rf"^Helper\.{name}\(\).* cannot be called: it gets one argument$"):
            await runner.add_workers(worker)


class Listening(BusSubscriber):
    @property
    def name(self) -> str:
        return "listening"


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (Listening, "on_bus_message"),
        (FrameProcessor, "process_frame"),
        (FrameProcessor, "setup"),
        (FrameProcessor, "cleanup"),
    ],
)
def test_what_is_no_worker_is_looked_at_as_well(base: type, name: str) -> None:
    """N8: subscribers and processors."""
    with pytest.raises(HandlerTypeError, match=rf"^Mine\.{name} has to be async: write 'async def'$"):
        class_with(name, "def NAME(self, *args): pass", base)
    for parameters in ("", "self, one, two, three"):
        with pytest.raises(HandlerTypeError, match=rf"^Mine\.{name}\({parameters}\) cannot be called: it gets "):
            class_with(name, f"async def NAME({parameters}): pass", base)
    class_with(name, "async def NAME(self, *args): pass", base)


def test_a_subscriber_is_not_asked_for_acceptance_by_an_async_function() -> None:
    """N8, N4"""
    with pytest.raises(HandlerTypeError, match=r"Mine\.accepts_bus_message has to be a plain function"):
        class_with("accepts_bus_message", "async def NAME(self, message): return False", Listening)


# --- what is no mistake


def bare(function: Any) -> Any:
    """A decorator that does not say what it decorates."""

    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def wrapping(function: Any) -> Any:
    """One that says so."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def injecting(function: Any) -> Any:
    """One that adds an argument."""

    @functools.wraps(function)
    async def wrapper(self: Any, first: Any) -> Any:
        return await function(self, first, "injected")

    return wrapper


async def test_what_works_is_not_refused() -> None:
    """N8: whatever it is that takes the arguments and can be awaited."""
    called: list[str] = []

    class Mine(BaseWorker):
        @bare
        async def on_activated(self, args: dict[str, Any] | None) -> None:
            called.append("activated")

        @wrapping
        async def on_deactivated(self) -> None:
            called.append("deactivated")

        @injecting
        async def on_job_request(self, message: BusJobRequestMessage, more: str) -> dict[str, Any]:
            return {"more": more}

        @functools.singledispatchmethod
        async def on_bus_message(self, message: BusMessage) -> None:
            called.append("a message")

        @on_bus_message.register
        async def _(self, message: BusJobRequestMessage) -> None:
            called.append("a request")

        @staticmethod
        async def on_worker_ready(data: WorkerReadyData) -> None:
            called.append("ready")

        @wrapping
        @wrapping
        @wrapping
        async def on_worker_gone(self, data: WorkerGoneData) -> None:
            called.append("gone")

        on_job_update = AsyncMock()
        on_job_response = functools.partialmethod(lambda self, *_: called.append("response"), 1)

        @job(name="injected")
        @injecting
        async def injected(self, message: BusJobRequestMessage, more: str) -> dict[str, Any]:
            return {"more": more}

    worker = Mine("mine")
    async with running(worker, Helper("helper")) as runner:
        assert await runner.job("mine", name="injected") == {"more": "injected"}
        assert await runner.job("mine") == {"more": "injected"}
        await eventually(lambda: {"activated", "a request", "ready"} <= set(called))
        child = Helper("child")
        await worker.add_workers(child)
        await child.stop()
        await eventually(lambda: "gone" in called)
        await worker.activate_worker("helper", deactivate_self=True)
        await eventually(lambda: "deactivated" in called)


async def test_a_function_that_is_put_into_a_class_may_return_what_is_awaited() -> None:
    """N8: it is no method that was written there, and nobody knows what it returns before it is called."""
    seen: list[object] = []

    async def note(args: object) -> None:
        seen.append(args)

    def on_activated(worker: BaseWorker, args: object) -> Any:
        return note(args)

    async with running(type("Mine", (BaseWorker,), {"on_activated": on_activated})("mine")):
        await eventually(lambda: seen == [None])


# --- decorators


WRONG_CALLS: dict[str, tuple[Callable[[Any, Any, Any], Any], type[Exception], str]] = {
    "a worker to activate": (lambda w, p, r: w.activate_worker(p), TypeError, "workers are named by a str, not by <"),
    "a worker to deactivate": (lambda w, p, r: w.deactivate_worker(p), TypeError, "workers are named by a str"),
    "a worker to watch": (lambda w, p, r: w.watch_workers(p), TypeError, "workers are named by a str"),
    "a list to watch": (lambda w, p, r: w.watch_workers(["peer"]), TypeError, "workers are named by a str"),
    "a worker to wait for": (lambda w, p, r: r.registry.wait_for(p), TypeError, "workers are named by a str"),
    "a watcher": (lambda w, p, r: r.registry.watch("peer", None), TypeError, "what watches for worker 'peer' is a"),
    "arguments": (lambda w, p, r: w.activate_worker("peer", args={"a": 1}), TypeError, "args are WorkerActivationArgs"),
    "a task": (lambda w, p, r: w.cancel_task(None), TypeError, "cancel_task takes what create_task has returned"),
    "a subscriber": (lambda w, p, r: r.bus.unsubscribe("peer"), TypeError, "only a BusSubscriber can unsubscribe"),
    "a target": (
        lambda w, p, r: w.send_bus_message(BusDataMessage(source="w", target=p)),
        MessageTypeError,
        "its target is the name of a worker, a str, or None",
    ),
    "a job's name": (lambda w, p, r: w.job("peer", name=type(p).echo), TypeError, "a job's name is a str, not <funct"),
    "a job's name again": (lambda w, p, r: w.request_job("peer", name=7), TypeError, "a job's name is a str, not 7"),
    "names of jobs": (lambda w, p, r: w.job_group("peer", name=7), TypeError, "a job's name is a str, not 7"),
}


@pytest.mark.parametrize(("call", "error", "text"), WRONG_CALLS.values(), ids=WRONG_CALLS)
async def test_an_argument_of_the_wrong_type_is_named(
    call: Callable[[Any, Any, Any], Any], error: type[Exception], text: str
) -> None:
    """N8: by the method that was called, before anything has changed or waits."""
    worker, peer = Helper("w"), Helper("peer")
    async with running(worker, peer) as runner:
        with pytest.raises(error, match=re.escape(text)):
            await call(worker, peer, runner)
        assert peer.active


FIVE: Any = "5"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: WorkerRunner(job_grace=FIVE), "job_grace is a number of seconds, not '5'"),
        (lambda: WorkerRunner(grace_period=FIVE), "grace_period is a number of seconds"),
        (lambda: WorkerRunner(stall_seconds=FIVE), "stall_seconds is a number of seconds"),
        (lambda: WorkerRunner(slow_seconds=FIVE), "slow_seconds is a number of seconds"),
        (lambda: MemoryBus(max_buffer_size=FIVE), "max_buffer_size is a number of messages"),
        (lambda: WorkerPool("p", Helper, size=1, within=FIVE), "within is a number of seconds"),
        (lambda: PipelineParams(heartbeats_period_secs=FIVE), "heartbeats_period_secs is a"),
        (lambda: PipelineWorker(Pipeline([]), idle_timeout_secs=FIVE), "idle_timeout_secs is a"),
        (lambda: RedisBus("redis://x", lease=FIVE), "lease is a number of seconds"),
        (lambda: RedisBus("redis://x", send_timeout=FIVE), "send_timeout is a number of"),
    ],
)
def test_a_number_that_is_text_is_refused(make: Callable[[], object], text: str) -> None:
    """N8: as one is that was read from the environment."""
    with pytest.raises(TypeError, match=text):
        make()


@pytest.mark.parametrize("name", ["", 7])
@pytest.mark.parametrize("kind", [WorkerRunner, MemoryBus])
def test_what_is_no_name_is_refused(kind: type[Any], name: object) -> None:
    """N8"""
    with pytest.raises(ValueError, match=f"name is a str that is not empty, not {name!r}"):
        kind(name=name)


def test_a_decorator_without_parentheses_is_refused() -> None:
    """N8: where it is written, and with what to write instead."""
    for decorator in ("job", "worker_ready"):
        with pytest.raises(HandlerTypeError, match=rf'^@{decorator} is written @{decorator}\(name="…"\), with paren'):
            class_with("do", f"@{decorator}\n    async def NAME(self, message): pass")
        with pytest.raises(HandlerTypeError, match=rf"^@{decorator} is written @{decorator}\(name='do'\), with paren"):
            class_with("do", f"@{decorator}('do')\n    async def NAME(self, message): pass")


def test_an_event_handler_without_parentheses_is_refused() -> None:
    """N8, N3"""
    worker: Any = BaseWorker("worker")
    with pytest.raises(HandlerTypeError, match="event_handler is written"):
        worker.event_handler(print)


@pytest.mark.parametrize(
    ("make", "event", "count"),
    [
        (BaseWorker, "on_activated", 2),
        (BaseWorker, "on_deactivated", 1),
        (lambda: PipelineWorker(Pipeline([FrameProcessor()])), "on_idle_timeout", 1),
        (lambda: PipelineWorker(Pipeline([FrameProcessor()])), "on_pipeline_error", 2),
        (FrameProcessor, "on_error", 2),
        (FrameProcessor, "on_before_push_frame", 2),
        (lambda: WorkerRunner(handle_sigint=False), "on_ready", 1),
        (lambda: WorkerRunner(handle_sigint=False), "on_error", 2),
    ],
)
def test_an_event_handler_takes_what_it_gets(make: Callable[[], Any], event: str, count: int) -> None:
    """N8, N3: it may be sync."""
    names = ["one", "two", "three"]
    emitter = make()
    for number in range(4):
        handler = eval(f"lambda {', '.join(names[:number])}: None")
        if number == count:
            emitter.add_event_handler(event, handler)
            emitter.event_handler(event)(handler)
        else:
            with pytest.raises(HandlerTypeError, match=f"<lambda> cannot handle '{event}': a handler of that gets the"):
                emitter.add_event_handler(event, handler)


# --- hooks that are misspelt

MISSPELT = {
    "on_activate": "on_activated",
    "on_activation": "on_activated",
    "on_actviated": "on_activated",
    "on_deactivate": "on_deactivated",
    "on_bus_messages": "on_bus_message",
    "on_busmessage": "on_bus_message",
    "on_job_cancel": "on_job_cancelled",
    "on_job_canceled": "on_job_cancelled",
    "on_job_complete": "on_job_completed",
    "on_job_errors": "on_job_error",
    "on_job_requested": "on_job_request",
    "on_job_responded": "on_job_response",
    "on_job_stream_ended": "on_job_stream_end",
    "on_job_stream_started": "on_job_stream_start",
    "on_job_update_request": "on_job_update_requested",
    "on_job_updated": "on_job_update",
    "on_worker_fail": "on_worker_failed",
    "on_worker_redy": "on_worker_ready",
}


@pytest.mark.parametrize("name", MISSPELT)
def test_a_hook_that_is_misspelt_is_refused_with_near_names(name: str) -> None:
    """N8: in the class body it is no less than certain."""
    with pytest.raises(
        MisspeltHookError, match=rf"^Mine\.{name} is no hook.*did you mean '{MISSPELT[name]}'"
    ) as caught:
        class_with(name, "async def NAME(self, message): pass")
    assert (caught.value.class_name, caught.value.name) == ("Mine", name)
    assert issubclass(MisspeltHookError, TypeError)


def test_the_hooks_of_a_kind_of_workers_are_known() -> None:
    """N8: those of a pipeline's worker too, and of it alone."""
    with pytest.raises(MisspeltHookError, match="on_pipeline_started"):
        class_with("on_pipeline_start", "async def NAME(self, frame): pass", PipelineWorker)
    class_with("on_pipeline_start", "async def NAME(self, frame): pass")


OWN = [
    "on_message", "on_error", "on_connect", "on_disconnect", "on_start", "on_stop", "on_ready", "on_tick", "on_act",
    "on_event", "on_failed", "on_reactivated", "on_job_started", "on_job_done", "on_job_failed", "on_job_progress",
    "on_job_stream_stop", "on_job_stream_error", "on_bus_event", "on_bus_error", "on_worker_busy", "on_worker_lost",
    "on_user_activated", "on_activated_by", "on_frame", "on_update", "on_response", "on_request", "on_data", "on_",
    "on_cancelled", "on_completed",
]  # fmt: skip


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("form", ["async def", "def"])
def test_methods_of_the_users_own_are_not_taken_for_hooks(name: str, form: str) -> None:
    """N8, N6: warnings are errors here."""
    class_with(name, f"{form} NAME(self, *args): pass")


def test_a_method_that_is_not_async_is_only_warned_of() -> None:
    """N8: no hook is so, hence it may well be something else."""
    with pytest.warns(
        RuntimeWarning, match=r"Mine\.on_activate is no hook of Mine; did you mean on_activated"
    ) as caught:

        class Mine(BaseWorker):
            def on_activate(self, button: object) -> None: ...

    assert caught[0].filename == __file__


def test_a_mixin_is_only_warned_of() -> None:
    """N8: it may be made for something else; and of what cannot be a hook nothing is said."""

    class Mixin:
        async def on_activate(self, args: object) -> None: ...

    class Other:
        async def on_activate(self, one: int, two: int) -> None: ...
        def on_deactivate(self) -> None: ...

    with pytest.warns(RuntimeWarning, match=r"Mixin\.on_activate is no hook of Mine"):

        class Mine(Mixin, BaseWorker):
            pass

    class Own(BaseWorker):
        pass

    with pytest.warns(RuntimeWarning, match=r"Mixin\.on_activate is no hook of Behind"):

        class Behind(Own, Mixin):  # behind the library's own classes
            pass

    class Another(Other, BaseWorker):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        class Overriding(Mixin, BaseWorker):
            async def on_activate(self, args: object) -> None: ...


def test_handlers_may_be_called_as_they_like() -> None:
    """N8: they are called in any case."""

    class Mine(BaseWorker):
        @job(name="activate")
        async def on_activate(self, message: BusJobRequestMessage) -> None: ...

        @worker_ready(name="other")
        async def on_workers_ready(self, data: WorkerReadyData) -> None: ...

        on_job_update_request = 5

    assert Mine("mine").on_job_update_request == 5


class Waiting(BaseWorker):
    async def run(self, params: WorkerParams) -> None:
        await super().run(params)


def test_mistakes_cost_nothing_where_none_is_made() -> None:
    """N8: a class is looked at once, and not for each worker."""
    assert [Waiting().name for _ in range(3)]
