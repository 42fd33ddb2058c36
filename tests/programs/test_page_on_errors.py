"""N8, N9: each public error has its place on the page on errors, and says what stands there.

A function here makes each error as a program would, and `said` is what it says. Numbers of jobs and ports differ from
run to run; the page has others.
"""

import contextlib
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from support.errors import public_errors
from support.other_tasks import entered_elsewhere
from support.redis_servers import redis_running
from workerbus import (
    Backoff,
    BaseWorker,
    BusDataMessage,
    BusJobRequestMessage,
    BusMessage,
    BusSubscriber,
    BusTTSSpeakMessage,
    JobError,
    JobFailure,
    MemoryBus,
    WorkerRunner,
    bus_message,
    errors,
    job,
    recording,
    wire,
)
from workerbus.pipeline import DataFrame, FrameProcessor, Pipeline, PipelineWorker, TextFrame
from workerbus.redis import RedisBus
from workerbus.testing import (
    Behaviour,
    CutError,
    GroupPlan,
    History,
    ScriptedWorker,
    always,
    cancel_at_every_checkpoint,
    eventually,
    linearizable,
    run,
    run_group_plan,
)
from workerbus.view import serve_view

PAGE = Path(__file__).parents[2] / "docs/errors.md"
MAKERS: dict[str, list[Callable[[str], object]]] = {}
Maker = Callable[..., Awaitable[object]]


def by(name: str) -> Callable[[Callable[[str], object]], Callable[[str], object]]:
    """Register a function that raises an error, given a backend; several are in the order of the page."""

    def add(make: Callable[[str], object]) -> Callable[[str], object]:
        MAKERS.setdefault(name, []).append(make)
        return make

    return add


def program(name: str) -> Callable[[Maker], Maker]:
    """Register an async function that raises an error, in virtual time."""

    def add(make: Maker) -> Maker:
        by(name)(lambda backend: run(make, backend=backend))
        return make

    return add


def in_real_time(name: str) -> Callable[[Maker], Maker]:
    """Register an async function that raises an error, where there is another process."""

    def add(make: Maker) -> Maker:
        by(name)(lambda backend: anyio.run(make, backend=backend))
        return make

    return add


def said(error: BaseException) -> str:
    """The text of an error, without what differs from run to run."""
    text = re.sub(r"\b[0-9a-f]{12}-[0-9a-f]+", "1f8e-1", str(error))
    text = re.sub(r"\b(127\.0\.0\.1|localhost):\d+", r"\1:6379", text)
    text = re.sub(r"test_page_on_errors\.py:\d+", "program.py:12", text)
    text = re.sub(r"<class '[\w.<>]*?(\w+)'>", r"<class '\1'>", text)
    # It may be over before, by the clock, on a busy machine.
    text = re.sub(
        r"have run [\d,]+ times on end, (.+) \(at [\d.]+ s\)", r"have run 200,001 times on end, \1 (at 199.001 s)", text
    )
    return re.sub(r"[\w.]+\.<locals>\.", "", text)


def shown() -> Iterator[tuple[str, int, str]]:
    """The errors on the page: name, which of its texts, and the text."""
    for name, section in re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for number, text in enumerate(re.findall(r"```text\n(.*?)\n```", section, re.DOTALL)):
            yield name, number, text


SHOWN = list(shown()) if PAGE.exists() else []


def raised_by(name: str, number: int, backend: str) -> BaseException:
    """The error that comes."""
    (kind,) = {each for each in public_errors() if each.__name__ == name}
    with pytest.raises(kind) as caught:
        MAKERS[name][number](backend)
    assert type(caught.value) is kind
    return caught.value


@pytest.mark.parametrize(("name", "number", "text"), [pytest.param(*each, id=f"{each[0]} {each[1]}") for each in SHOWN])
def test_an_error_says_what_the_page_shows(name: str, number: int, text: str, backend: str) -> None:
    """N8"""
    assert said(raised_by(name, number, backend)) == text


def test_every_public_error_is_on_the_page_and_each_text_there_is_made() -> None:
    """N8"""
    texts = {name: sum(each == name for each, _, _ in SHOWN) for name, _, _ in SHOWN}
    assert {each.__name__ for each in public_errors()} - {"WorkerBusError", "StuckError"} == set(texts)
    assert {name: len(makers) for name, makers in MAKERS.items()} == texts


def test_the_rows_of_the_page_say_when_and_what_to_do() -> None:
    for name, section in re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        assert "**When:**" in section, name
        assert "**What to do:**" in section, name


# --- what the programs are made of


class Counter(BaseWorker):
    @job(name="count")
    async def count(self, message: Any) -> Any:
        if message.payload.get("text") is None:
            raise JobFailure("there is no text to count in")
        return {"words": len(message.payload["text"].split())}

    @job(name="hang")
    async def hang(self, message: Any) -> None:
        await anyio.sleep_forever()

    @job(name="break")
    async def divide(self, message: Any) -> dict[str, float]:
        return {"quotient": 1 / message.payload["by"]}

    async def crash(self) -> None:
        raise RuntimeError("out of paper")


@dataclass
class Words:
    text: str


@dataclass
class Count:
    words: int


class Typed(BaseWorker):
    @job(name="count")
    async def count(self, words: Words) -> Count:
        return Count("many" if not words.text else len(words.text.split()))  # type: ignore[arg-type]  # that is the fault


@bus_message
class Weather(BusDataMessage):
    celsius: Any


class Listening(BusSubscriber):
    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def on_bus_message(self, message: BusMessage) -> None: ...


class Pass(FrameProcessor):
    """Passes frames on, if it is not to be `lazy`."""

    def __init__(self, name: str, lazy: bool = False) -> None:
        super().__init__(name=name)
        self.lazy = lazy

    async def process_frame(self, frame: Any, direction: Any) -> None:
        await super().process_frame(frame, direction)
        if not self.lazy:
            await self.push_frame(frame, direction)


# --- classes and calls that cannot work


@by("HandlerTypeError")
def not_async(backend: str) -> None:
    class Greeter(BaseWorker):
        @job(name="greet")  # type: ignore[type-var]  # that is the fault
        def greet(self, message: Any) -> None: ...


@by("HandlerTypeError")
def no_parameter(backend: str) -> None:
    class Greeter(BaseWorker):
        async def on_activated(self) -> None: ...  # type: ignore[override]  # that is the fault


@by("HandlerTypeError")
def no_parentheses(backend: str) -> None:
    class Greeter(BaseWorker):
        @job  # type: ignore[call-arg, arg-type]  # that is the fault
        async def greet(self, message: Any) -> None: ...  # type: ignore[misc]  # which makes it this


@by("ReservedNameError")
def reserved(backend: str) -> None:
    class Family(BaseWorker):
        children = None  # type: ignore[assignment]  # that is the fault


@by("MisspeltHookError")
def misspelt(backend: str) -> None:
    class Greeter(BaseWorker):
        async def on_activate(self, args: Any) -> None: ...


@program("NotInitializedError")
async def not_initialized() -> None:
    class Greeter(BaseWorker):
        def __init__(self) -> None:
            self.greetings = 0

    async with WorkerRunner() as runner:
        await runner.add_workers(Greeter())


@by("MessageTypeError")
def undecorated(backend: str) -> None:
    class Weather(BusDataMessage):
        celsius: float

    Weather(celsius=20.0, source="me")  # type: ignore[call-arg]  # that is the fault


@program("MessageTypeError")
async def no_message() -> None:
    async with MemoryBus() as bus:
        await bus.send({"celsius": 20})  # type: ignore[arg-type]  # that is the fault


@by("FrameTypeError")
def undecorated_frame(backend: str) -> None:
    class Reading(DataFrame):
        celsius: float

    Reading(celsius=20.0)  # type: ignore[call-arg]  # that is the fault


@program("PayloadError")
async def wrong_payload() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Typed("counter"))
        await runner.job("counter", Typed.count, payload=Words(3))  # type: ignore[arg-type]  # that is the fault


@by("MissingExtraError")
def missing_extra(backend: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "h11", None)
        patch.delitem(sys.modules, "workerbus.view._http", raising=False)
        run(partial(view_of, "127.0.0.1"), backend=backend)


async def view_of(host: str) -> None:
    async with WorkerRunner() as runner, serve_view(runner, host=host):
        pass


@program("FactoryError")
async def no_worker() -> None:
    async with WorkerRunner() as runner:
        await runner.supervise(lambda: Counter)  # type: ignore[arg-type, return-value]  # that is the fault


@by("RegistrationError")
def not_registered(backend: str) -> None:
    @wire.register
    @bus_message
    class Reading(BusDataMessage):
        sensor: object = object()
        read: Callable[[], float] = float


@by("TagTakenError")
def tag_taken(backend: str) -> None:
    @wire.register(tag="page.Weather")
    @bus_message
    class Weather(BusDataMessage):
        celsius: float

    @wire.register(tag="page.Weather")
    @bus_message
    class Rain(BusDataMessage):
        millimetres: float


# --- at the wrong time, in the wrong place


@program("NotRunningError")
async def not_running() -> None:
    await Counter("counter").request_job("other", name="count")


@program("NotRunningError")
async def used_twice() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("counter"))
        asked = runner.job("counter", name="count", payload={"text": "to be"})
        await asked
        await asked


@program("NotRunningError")
async def run_twice() -> None:
    runner = WorkerRunner(name="main")
    async with runner:
        pass
    async with runner:
        pass


@program("WrongTaskError")
async def left_elsewhere() -> None:
    async with entered_elsewhere(WorkerRunner(name="main"), over=False) as leave:
        with pytest.raises(errors.WrongTaskError) as caught:
            await leave()
    raise caught.value


@in_real_time("WrongLoopError")
async def from_a_thread() -> None:
    async with WorkerRunner(name="main") as runner:

        def elsewhere() -> None:
            anyio.run(partial(runner.job, "counter", name="count"))

        await anyio.to_thread.run_sync(elsewhere)


@program("NameTakenError")
async def name_taken() -> None:
    async with WorkerRunner(name="main") as runner:
        await runner.add_workers(Counter("counter"))
        await runner.add_workers(Counter("counter"))


@program("ParentError")
async def two_parents() -> None:
    async with WorkerRunner() as runner:
        one, two, child = Counter("one"), Counter("two"), Counter("child")
        await runner.add_workers(one, two)
        await one.add_workers(child)
        await two.add_workers(child)


@program("UnknownWorkerError")
async def unknown_worker() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("counter"))
        await runner.registry.wait_for("counter")
        counter = runner.get_worker("counter")
        assert counter is not None
        await counter.activate_worker("conter")


@program("UnknownJobError")
async def unknown_job() -> None:
    async with WorkerRunner() as runner:
        counter = Counter("counter")
        await runner.add_workers(counter)
        await runner.registry.wait_for("counter")
        await counter.send_job_update("1f8e-1", {"words": 1})


@by("UnknownEventError")
def unknown_event(backend: str) -> None:
    Counter("counter").add_event_handler("on_ready", print)


@by("ProcessorInUseError")
def two_places(backend: str) -> None:
    upper = Pass("upper")
    Pipeline([upper, upper])


@program("FlushError")
async def flushes_itself() -> None:
    raised: list[errors.FlushError] = []

    class Impatient(Pass):
        async def process_frame(self, frame: Any, direction: Any) -> None:
            if isinstance(frame, TextFrame):
                try:
                    await worker.flush()
                except errors.FlushError as error:
                    raised.append(error)
            await super().process_frame(frame, direction)

    worker = PipelineWorker(Pipeline([Impatient("impatient")]), name="speaker")
    async with WorkerRunner() as runner:
        await runner.add_workers(worker)
        await worker.queue_frame(TextFrame("hello"))
        await worker.flush()
    raise raised[0]


# --- jobs


@program("JobError")
async def fails() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("counter"))
        await runner.job("counter", name="break", payload={"by": 0})


@program("JobError")
async def no_such_job() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("counter"))
        await runner.job("counter", name="cuont", payload={"text": "to be"})


@program("JobTimeoutError")
async def too_slow() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("counter"))
        await runner.job("counter", name="hang", timeout=5)


@program("JobTimeoutError")
async def nobody_there() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("counter"))
        await runner.job("conter", name="count", timeout=5)


@program("JobGroupError")
async def one_fails() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("left"), Counter("right"))
        await runner.job_group(name="count", payloads={"left": {"text": "to be"}, "right": {}})


@program("JobGroupTimeoutError")
async def one_is_slow() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("left"), Counter("right"))
        await runner.job_group("left", "right", name="hang", timeout=5)


@by("JobFailure")
def failure(backend: str) -> None:
    raise JobFailure("there is no text to count in", page=7)


# --- ends


@program("RunCancelled")
async def cancelled() -> None:
    async with WorkerRunner(name="main") as runner:
        await runner.cancel("enough")
        await anyio.sleep_forever()


@program("RestartLimitError")
async def too_often() -> None:
    class Fragile(BaseWorker):
        async def run(self, params: Any) -> None:
            await self.start()
            raise OSError("no paper")

    async with WorkerRunner() as runner:
        await runner.supervise(partial(Fragile, "printer"), max_restarts=3, backoff=Backoff(initial=0.01))
        await anyio.sleep(60)


@program("PipelineStartTimeoutError")
async def does_not_start() -> None:
    worker = PipelineWorker(Pipeline([Pass("reader"), Pass("lazy", lazy=True)]), name="speaker")
    async with WorkerRunner() as runner:
        await runner.add_workers(worker)
        await worker.wait()


@program("FlushTimeoutError")
async def does_not_come_out() -> None:
    class Slow(Pass):
        async def process_frame(self, frame: Any, direction: Any) -> None:
            if isinstance(frame, TextFrame):
                await anyio.sleep(60)
            await super().process_frame(frame, direction)

    worker = PipelineWorker(Pipeline([Slow("slow")]), name="speaker")
    async with WorkerRunner() as runner:
        await runner.add_workers(worker)
        await worker.queue_frame(TextFrame("hello"))
        await worker.flush(timeout=5)


# --- other processes


@in_real_time("BusUnavailable")
async def no_server() -> None:
    async with RedisBus("redis://127.0.0.1:1", name="net", send_timeout=0.3):
        pass


@in_real_time("BusUnavailable")
async def frozen_server() -> None:
    with redis_running() as server:
        async with RedisBus(server.url) as other, RedisBus(server.url, name="net") as bus:
            await other.subscribe(Listening("listener"))
            server.freeze()
            bus.send_timeout = 0.2
            hello = BusTTSSpeakMessage("hello", source="speaker")
            try:
                with contextlib.suppress(errors.BusUnavailable):  # which may have been on its way
                    await bus.send(hello)
                await bus.send(hello)
            finally:
                server.thaw()


@by("WireError")
def does_not_travel(backend: str) -> None:
    payload = {"text": "to be", "seen": {1, 2}}
    wire.Wire().encode(BusJobRequestMessage("1f8e-1", "count", payload, source="me", target="counter"))


@by("WireError")
def cannot_be_read(backend: str) -> None:
    wire.Wire().decode(b'{"v": 1, "t": "weather.Rain", "m": {}}')


@by("RedisURLError")
def no_url(backend: str) -> None:
    RedisBus("http://localhost:6379")


@in_real_time("RedisSetupError")
async def wrong_password() -> None:
    with redis_running(password="right") as server:
        async with RedisBus(f"redis://127.0.0.1:{server.port}", credentials="wrong"):
            pass


@in_real_time("ConnectionLost")
async def cause_of_no_server() -> None:
    with pytest.raises(errors.BusUnavailable) as caught:
        await no_server()
    raise caught.value.__cause__ or AssertionError from None


@in_real_time("RedisReplyError")
async def cause_of_a_full_server() -> None:
    with redis_running() as server:
        server.config_set("maxmemory", "1")
        with pytest.raises(errors.BusUnavailable) as caught:
            await RedisBus(server.url, send_timeout=1).__aenter__()
    raise caught.value.__cause__ or AssertionError from None


# --- tools


@by("RecordingError")
def no_recording(backend: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        path.write_text("")
        with contextlib.chdir(folder):
            recording.Recording.load("run.jsonl")


@program("UnprotectedViewError")
async def unprotected() -> None:
    await view_of("0.0.0.0")


# --- tests


@program("DeadlockError")
async def deadlock() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Counter("counter"))
        await runner.job("counter", name="hang")


@by("TimeLimitError")
def time_limit(backend: str) -> None:
    run(partial(anyio.sleep, 100), backend=backend, limit=60)


@by("SpinError")
def spin(backend: str) -> None:
    async def busy() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    run(busy, backend=backend)


@program("InvariantError")
async def broken() -> None:
    accounts = [100, 0]
    always(lambda: sum(accounts) == 100)

    async def transfer() -> None:
        accounts[0] -= 10
        await anyio.lowlevel.checkpoint()
        accounts[1] += 10

    async with anyio.create_task_group() as group:
        group.start_soon(transfer)


@program("InvariantError")
async def not_done() -> None:
    done: list[int] = []
    eventually(lambda: done, within=5)
    await anyio.sleep(60)


@program("NotLinearizableError")
async def not_linearizable() -> None:
    class Account:
        balance = 0

        def deposit(self, payload: dict[str, int]) -> dict[str, int]:
            self.balance += payload["amount"]
            return {"balance": self.balance}

    history = History()
    with history.call("deposit", {"amount": 1}, by="bank") as first:
        second = history.call("deposit", {"amount": 2}, by="bank")
        second.__enter__().answer = {"balance": 2}
        first.answer = {"balance": 1}
    second.__exit__(None, None, None)
    linearizable(history, Account)


@by("CutError")
def cut(backend: str) -> None:
    raised: list[BaseException] = []

    async def scenario() -> None:
        try:
            await anyio.sleep(1)
        except CutError as error:
            raised.append(error)
            raise

    cancel_at_every_checkpoint(scenario, backend=backend, how="raise")
    raise raised[0]


@program("ScriptedError")
async def scripted() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(ScriptedWorker("printer", Behaviour("crash")))
        with pytest.raises(JobError, match="scripted"):
            await runner.job("printer", name="print")


@program("RequesterError")
async def planned() -> None:
    outcome = await run_group_plan(GroupPlan({"a": Behaviour("hang")}, requester="raise", at=1.5))
    assert outcome.error is not None
    raise outcome.error
