"""Workers that do what a script says, and their behaviours."""

import traceback
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import current_time
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.documents import examples, names_for_examples
from support.requesters import Raw
from support.workers import running
from workerbus import (
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    JobError,
    JobFailure,
    JobStatus,
    MemoryBus,
    UnknownJobError,
    WorkerErrorData,
    WorkerRunner,
)
from workerbus.testing import (
    Behaviour,
    EchoWorker,
    GroupPlan,
    RecordingBus,
    RecordingWorker,
    ScriptedError,
    ScriptedWorker,
    run_group_plan,
    settle,
)
from workerbus.testing.clock._run import run
from workerbus.testing.strategies import behaviours, seeds


@pytest.mark.parametrize("example", examples(RecordingWorker, EchoWorker, ScriptedWorker, Behaviour))
def test_the_examples_in_the_docstrings_run(example: Any, backend: str) -> None:
    run(example, backend=backend)


# --- behaviours


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(),
        Behaviour("hang", clean_up=0.5),
        Behaviour(after=1.5, status=JobStatus.FAILED, response={"why": JobStatus.ERROR, "n": [1, ("a",)]}),
        Behaviour("raise", error=JobFailure("no room", code=3)),
        Behaviour("crash", error=ValueError("x")),
        Behaviour(updates=[{"n": 1}, {"n": 2}], chunks=(), every=0.25, urgent_updates=True, insists=True),
        Behaviour(updates=[{"n": 1}], chunks=[{"n": 2}], alternate=True, generator=True),
    ],
    ids=repr,
)
def test_the_repr_of_a_behaviour_makes_an_equal_one(behaviour: Behaviour) -> None:
    assert eval(repr(behaviour), names_for_examples()) == behaviour


def test_the_repr_of_a_behaviour_leaves_out_what_is_as_by_default() -> None:
    assert repr(Behaviour("hang", clean_up=0.5)) == "Behaviour('hang', clean_up=0.5)"
    assert repr(Behaviour(status=JobStatus.ERROR, chunks=[{"n": 1}])) == (
        "Behaviour(status=JobStatus.ERROR, chunks=({'n': 1},))"
    )


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"end": "explode"}, "ends in one of 'answer', .* not in 'explode'"),
        ({"after": -1.0}, "after is a number of seconds, not less than 0, not -1.0"),
        ({"every": float("nan")}, "every is a number of seconds"),
        ({"status": "happy"}, "'happy' is not a valid JobStatus"),
        ({"generator": True}, "a generator yields chunks: give it some, or chunks="),
        ({"generator": True, "chunks": (), "end": "defer"}, "a generator's end is the end of its job"),
        ({"generator": True, "chunks": (), "response": {}}, "status, response and urgent are not for it"),
        ({"generator": True, "chunks": (), "urgent": True}, "status, response and urgent are not for it"),
        ({"generator": True, "chunks": (), "status": JobStatus.FAILED}, "status, response and urgent are not for it"),
    ],
)
def test_a_behaviour_that_makes_no_sense_is_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Behaviour(**wrong)


def test_updates_that_are_no_dicts_are_refused() -> None:
    with pytest.raises(TypeError, match="updates are dicts, not 'working'"):
        Behaviour(updates=["working"])  # type: ignore[list-item]  # that is the point


@pytest.mark.parametrize(
    ("make", "given", "text"),
    [
        (Behaviour, {"error": "boom"}, r"error is an exception, as ValueError\('boom'\) is one, not 'boom'"),
        (Behaviour, {"response": [1]}, r"response is a dict, not \[1\]"),
        (ScriptedWorker, {"script": "hang"}, r"a script is made of behaviours, .* is one, not of 'h'"),
        (ScriptedWorker, {"script": {"do": [1]}}, "a script is made of behaviours, .*, not of 1"),
        (RecordingBus().messages, {"kind": "Ping"}, "kind is a class of messages, not 'Ping'"),
    ],
)
def test_what_is_no_part_of_a_script_is_refused(make: Callable[..., object], given: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        make(**given)


# --- ends of a job


async def outcome(runner: WorkerRunner, worker: str, **request: Any) -> tuple[JobStatus, dict[str, Any]]:
    async with runner.job_group(worker, cancel_on_error=False, **request) as group:
        pass
    return group.statuses[worker], group.responses[worker]


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (Behaviour(), (JobStatus.COMPLETED, {})),
        (Behaviour(response={"n": 1}, urgent=True), (JobStatus.COMPLETED, {"n": 1})),
        (Behaviour(status=JobStatus.FAILED, response={"n": 1}), (JobStatus.FAILED, {"n": 1})),
        (Behaviour(status=JobStatus.CANCELLED), (JobStatus.CANCELLED, {})),
        (Behaviour(chunks=[{"n": 1}], response={"n": 2}), (JobStatus.COMPLETED, {"n": 2})),
        (Behaviour(chunks=[{"n": 1}], status=JobStatus.ERROR), (JobStatus.ERROR, {})),
        (Behaviour(chunks=[{"n": 1}], generator=True), (JobStatus.COMPLETED, {})),
        (
            Behaviour("raise", chunks=(), generator=True, error=JobFailure("full")),
            (JobStatus.FAILED, {"error": "full", "type": "JobFailure"}),
        ),
        (
            Behaviour("stop", chunks=(), generator=True),
            (JobStatus.CANCELLED, {"error": "worker 'w' stopped", "type": "Cancelled"}),
        ),
        (Behaviour("raise"), (JobStatus.ERROR, {"error": "scripted to raise", "type": "ScriptedError"})),
        (Behaviour("raise", error=KeyError("k")), (JobStatus.ERROR, {"error": "'k'", "type": "KeyError"})),
        (
            Behaviour("raise", error=JobFailure("full", seats=0)),
            (JobStatus.FAILED, {"error": "full", "type": "JobFailure", "seats": 0}),
        ),
        (Behaviour("stop"), (JobStatus.CANCELLED, {"error": "worker 'w' stopped", "type": "Cancelled"})),
    ],
    ids=lambda value: repr(value) if isinstance(value, Behaviour) else "",
)
async def test_a_job_ends_as_its_behaviour_says(
    behaviour: Behaviour, expected: tuple[JobStatus, dict[str, Any]]
) -> None:
    worker = ScriptedWorker("w", behaviour)
    async with running(worker) as runner:
        assert await outcome(runner, "w", name="anything") == expected
    assert [message.job_name for message in worker.requests] == ["anything"]
    assert worker.running == {}
    assert bool(worker.cancelled) is (behaviour.end == "stop")


async def test_a_worker_that_crashes_answers_error_and_its_run_raises() -> None:
    errors: list[WorkerErrorData] = []
    async with WorkerRunner(handle_sigint=False) as runner:
        runner.add_event_handler("on_error", lambda _, data: errors.append(data))
        await runner.add_workers(ScriptedWorker("w", Behaviour("crash", error=OSError("disk full"))))
        assert await outcome(runner, "w") == (JobStatus.ERROR, {"error": "disk full", "type": "OSError"})
        while not errors:
            await anyio.lowlevel.checkpoint()
    assert "disk full" in errors[0].error


async def test_a_crash_that_nobody_handles_comes_out_of_the_runner() -> None:
    async def program() -> None:
        async with running(ScriptedWorker("w", Behaviour("crash"))) as runner:
            await outcome(runner, "w")

    with pytest.raises(ScriptedError, match="scripted to crash"):
        await program()


async def test_updates_and_chunks_come_in_order_before_the_answer() -> None:
    behaviour = Behaviour(updates=[{"u": 1}, {"u": 2}], chunks=[{"c": 1}], response={"end": True})
    async with running(ScriptedWorker("w", behaviour)) as runner, runner.job("w") as job:
        events = [(event.type, event.data) async for event in job]
    assert events == [
        ("update", {"u": 1}),
        ("update", {"u": 2}),
        ("stream_start", None),
        ("stream_data", {"c": 1}),
        ("stream_end", {"end": True}),
    ]


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize(
    ("updates", "chunks", "expected"),
    [
        (2, 3, "start u1 c1 u2 c2 c3 end"),
        (3, 1, "start u1 c1 u2 u3 end"),
        (1, 0, "start u1 end"),
        (0, 2, "start c1 c2 end"),
    ],
)
async def test_updates_and_chunks_come_by_turns(generator: bool, updates: int, chunks: int, expected: str) -> None:
    behaviour = Behaviour(
        updates=[{"n": f"u{n}"} for n in range(1, updates + 1)],
        chunks=[{"n": f"c{n}"} for n in range(1, chunks + 1)],
        alternate=True,
        generator=generator,
        every=0.5,
        after=1.0,
    )
    async with running(ScriptedWorker("w", behaviour)) as runner, runner.job("w") as job:
        events = [event.data["n"] if event.data else event.type[7:] async for event in job]
    assert " ".join(events) == expected
    assert anyio.current_time() == behaviour.seconds == 0.5 * (updates + chunks) + 1.0


@pytest.mark.parametrize("generator", [False, True])
async def test_a_scripted_stream_waits_for_its_reader(generator: bool) -> None:
    """J19: as any handler's."""
    worker = ScriptedWorker("w", Behaviour(chunks=[{"n": n} for n in range(9)], generator=generator))
    async with running(worker) as runner, runner.job("w", max_buffered_events=2) as job:
        async for chunk in job.stream():
            await anyio.sleep(1)
            assert worker.running.keys() == ({job.job_id} if chunk["n"] < 6 else worker.running.keys())
    assert anyio.current_time() == 9


async def test_what_is_urgent_goes_as_system_messages() -> None:
    bus = RecordingBus()
    plain = Behaviour(updates=[{}])
    urgent = Behaviour(updates=[{}], urgent_updates=True, urgent=True)
    async with running(ScriptedWorker("w", {"plain": plain, "urgent": urgent}), bus=bus) as runner:
        await runner.job("w", name="plain")
        assert [message.system for message in bus.messages(BusMessage, source="w")[-2:]] == [False, False]
        await runner.job("w", name="urgent")
        assert [message.system for message in bus.messages(BusMessage, source="w")[-2:]] == [True, True]


async def test_an_error_that_is_raised_again_keeps_one_traceback() -> None:
    error = ValueError("again")
    lengths = set()
    async with running(ScriptedWorker("w", Behaviour("raise", error=error))) as runner:
        for _ in range(3):
            await outcome(runner, "w")
            lengths.add(len(traceback.extract_tb(error.__traceback__)))
    assert len(lengths) == 1


def test_seconds_pass_before_each_update_and_before_the_end(backend: str) -> None:
    behaviour = Behaviour(updates=[{}, {}], chunks=[{}], every=1.0, after=10.0)

    seen: list[float] = []

    async def times() -> None:
        async with running(ScriptedWorker("w", behaviour)) as runner, runner.job("w") as job:
            seen.extend([anyio.current_time() async for _ in job])

    run(times, backend=backend)
    assert seen == pytest.approx([1.0, 2.0, 2.0, 3.0, 13.0])
    assert behaviour.seconds == 13.0


def test_an_echo_takes_the_time_it_is_given(backend: str) -> None:
    async def ask() -> float:
        async with running(EchoWorker("echo", after=3.0)) as runner:
            assert await runner.job("echo", payload={"n": 1}) == {"n": 1}
            return anyio.current_time()

    assert run(ask, backend=backend) == pytest.approx(3.0)


async def test_an_echo_is_a_copy() -> None:
    """A test that changes it does not change what it has asked with."""
    payload = {"n": 1}
    async with running(EchoWorker("echo")) as runner:
        response = await runner.job("echo", payload=payload)
    assert response == payload
    assert response is not payload


# --- cancellation


async def leave_when_begun(runner: WorkerRunner, worker: ScriptedWorker) -> dict[str, tuple[JobStatus, Any]]:
    """Ask for a job and be cancelled when it has begun; returns what was answered."""
    with anyio.CancelScope() as scope:
        async with runner.job_group(worker.name) as group:
            await worker.until_requested()
            scope.cancel()
    return {name: (status, group.responses[name]) for name, status in group.statuses.items()}


@pytest.mark.parametrize("behaviour", [Behaviour("hang"), Behaviour(after=1.0), Behaviour("defer")], ids=repr)
async def test_a_job_that_is_cancelled_is_noted(behaviour: Behaviour) -> None:
    worker = ScriptedWorker("w", behaviour)
    async with running(worker) as runner:
        answers = await leave_when_begun(runner, worker)
        assert await worker.until_cancelled() == worker.requests[0].job_id
        await worker.until("on_job_cancelled")
    assert answers["w"][0] is JobStatus.CANCELLED
    assert len(worker.cancelled) == 1


@pytest.mark.parametrize("end", ["hang", "answer"])
async def test_a_generator_that_is_cancelled_cleans_up_itself(end: Any) -> None:
    """J18: where it waits, and where it has yielded and waits for the reader."""
    chunks: list[dict[str, Any]] = [{}] * (0 if end == "hang" else 9)
    worker = ScriptedWorker("w", Behaviour(end, chunks=chunks, generator=True, clean_up=1.0, insists=True))
    async with running(worker) as runner:
        with anyio.CancelScope() as scope:
            async with runner.job("w", max_buffered_events=1) as job:
                if end == "answer":
                    reading = job.stream()
                    await anext(reading)
                await settle()
                scope.cancel()
        assert anyio.current_time() == 1.0
        assert worker.running == {}
        assert len(worker.cancelled) == 1
        assert job.statuses == {"w": JobStatus.CANCELLED}


async def test_each_attempt_at_a_job_has_a_behaviour_of_its_own() -> None:
    """J20: whatever it has streamed before it failed."""
    script = [
        Behaviour("raise", chunks=[{"n": 1}], generator=True, after=1.0),
        Behaviour("hang", chunks=[{"n": 1}]),
        Behaviour(chunks=[{"n": 1}], response={"n": 3}),
    ]
    worker = ScriptedWorker("w", script)
    async with running(worker) as runner:
        asked = runner.job("w", attempts=4, attempt_timeout=2.0, retry_on=(ScriptedError, TimeoutError))
        assert await asked == {"n": 3}
    assert [message.attempt for message in worker.requests] == [1, 2, 3]
    assert asked.attempts == 3


async def test_a_job_that_never_began_was_not_cancelled_under_way() -> None:
    """Whoever waits for cancellations knows that the handler has been there."""
    worker = ScriptedWorker("worker", Behaviour("hang"))
    async with running(worker) as runner:
        raw = await Raw.on(runner.bus)
        await raw.ask("job", "worker")
        await raw.cancel("job", "worker")
        await raw.answer("job")
        await settle()
        assert worker.requests == []
        assert worker.cancelled == []


def test_cleaning_up_takes_its_time_and_an_answer_after_it_is_a_cancelled_one(backend: str) -> None:
    worker = ScriptedWorker("w", Behaviour("hang", clean_up=1.5, insists=True, response={"half": 1}))

    async def cancelled() -> tuple[float, Any]:
        async with running(worker) as runner:
            answers = await leave_when_begun(runner, worker)
            return anyio.current_time(), answers

    seconds, answers = run(cancelled, backend=backend)
    assert seconds == pytest.approx(1.5)
    assert answers == {"w": (JobStatus.CANCELLED, {"half": 1})}


def test_a_clean_up_that_outlives_the_wind_down_harms_nobody(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    worker = ScriptedWorker("w", Behaviour("hang", clean_up=60.0, insists=True))

    async def cancelled() -> None:
        async with running(worker) as runner:
            await leave_when_begun(runner, worker)
            assert list(worker.running) == [worker.requests[0].job_id]

    run(cancelled, backend=backend)
    assert worker.running == {}
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


# --- scripts


async def test_behaviours_are_used_one_after_the_other_and_the_last_one_stays() -> None:
    worker = ScriptedWorker("w", [Behaviour(response={"n": 1}), Behaviour(response={"n": 2})])
    async with running(worker) as runner:
        assert [(await runner.job("w", name=name))["n"] for name in "abc"] == [1, 2, 2]


async def test_a_script_by_job_name_counts_each_name_for_itself() -> None:
    first, then = Behaviour(response={"n": 1}), Behaviour(response={"n": 2})
    async with running(ScriptedWorker("w", {"a": [first, then], "b": [first, then]})) as runner:
        assert [(await runner.job("w", name=name))["n"] for name in "abab"] == [1, 1, 2, 2]


async def test_a_job_that_is_in_no_script_is_an_error_that_names_those_that_are() -> None:
    async with running(ScriptedWorker("w", {"a": Behaviour(), "b": Behaviour()})) as runner:
        with pytest.raises(JobError, match="worker 'w' is scripted for the jobs 'a', 'b', not for 'c'"):
            await runner.job("w", name="c")


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one behaviour"):
        ScriptedWorker("w", [])


async def test_the_peak_is_how_many_handlers_have_run_at_once() -> None:
    worker = ScriptedWorker("w", [Behaviour("hang"), Behaviour("hang"), Behaviour()])
    async with running(worker) as runner:
        async with anyio.create_task_group() as group:
            for count in (1, 2):
                group.start_soon(outcome, runner, "w")
                await worker.until_requested(count)
            await outcome(runner, "w")
            assert len(worker.running) == 2
            group.cancel_scope.cancel()
        assert worker.peak == 3
        await outcome(runner, "w")
    assert worker.peak == 3
    assert worker.running == {}


async def test_of_several_jobs_the_one_that_was_waited_for_is_told_however_many_there_are() -> None:
    """The count-th that has begun, and the count-th that was cancelled, be that much later."""
    worker = ScriptedWorker("w", Behaviour("hang"))
    async with running(worker) as runner:
        for number in range(3):
            async with anyio.create_task_group() as group:
                group.start_soon(outcome, runner, "w")
                await worker.until_requested(number + 1)
                group.cancel_scope.cancel()
            await worker.until_cancelled(number + 1)
        ids = [message.job_id for message in worker.requests]
        assert len(set(ids)) == 3
        assert [(await worker.until_requested(count)).job_id for count in (1, 2, 3)] == ids
        assert [await worker.until_cancelled(count) for count in (1, 2, 3)] == ids == worker.cancelled


# --- answering by hand


async def test_open_jobs_are_answered_by_hand_oldest_first_or_by_their_id() -> None:
    worker = ScriptedWorker("w", Behaviour("defer"))
    results: dict[int, Any] = {}
    async with running(worker) as runner, anyio.create_task_group() as group:

        async def ask(number: int) -> None:
            results[number] = await outcome(runner, "w", payload={"n": number})

        for number in (1, 2, 3):
            group.start_soon(ask, number)
            await worker.until_requested(number)
        assert [(message.payload or {})["n"] for message in worker.requests] == [1, 2, 3]
        await worker.answer(worker.requests[1].job_id, {"by": "id"}, status=JobStatus.FAILED)
        await worker.answer(response={"by": "age"}, urgent=True)
        await worker.answer()
        with pytest.raises(UnknownJobError):
            await worker.answer(worker.requests[0].job_id)
        with pytest.raises(LookupError, match="no open job to answer; it was asked for 3"):
            await worker.answer()
    assert results == {
        1: (JobStatus.COMPLETED, {"by": "age"}),
        2: (JobStatus.FAILED, {"by": "id"}),
        3: (JobStatus.COMPLETED, {}),
    }


async def test_each_update_and_each_chunk_of_a_script_takes_its_time() -> None:
    behaviour = Behaviour(updates=[{"n": 0}, {"n": 1}], chunks=[{"n": 2}, {"n": 3}, {"n": 4}], every=0.5, after=2.0)
    async with WorkerRunner() as runner:
        await runner.add_workers(ScriptedWorker("scripted", behaviour))
        await runner.registry.wait_for("scripted")
        begun, times = current_time(), dict[int, float]()
        async with runner.job("scripted") as job:
            async for event in job:
                if event.data and "n" in event.data:
                    times[event.data["n"]] = current_time() - begun
        assert times == {n: 0.5 * (n + 1) for n in range(5)}
        assert current_time() == begun + behaviour.seconds == begun + 4.5


@given(behaviours(max_delay=1.0, ends=("answer",)), seeds(), st.sampled_from(["asyncio", "trio"]))
@example(Behaviour(chunks=[{"n": 1}], urgent=True), 0, "asyncio")
@example(Behaviour(chunks=[{"n": 1}], status=JobStatus.FAILED), 0, "trio")
@settings(max_examples=25)
def test_a_worker_says_what_its_script_says_in_that_order_and_as_urgently(
    behaviour: Behaviour, seed: int, backend: str
) -> None:
    """Each update and chunk, and the answer that fits: of a stream, one with a status, or an urgent one."""
    said: list[Any] = []

    async def main() -> None:
        bus = MemoryBus()
        bus.add_tap(lambda each: said.append(each) if each.source == "w" and hasattr(each, "job_id") else None)
        await run_group_plan(GroupPlan({"w": behaviour}, cancel_on_error=False), bus)

    run(main, backend=backend, seed=seed)
    update = BusJobUpdateUrgentMessage if behaviour.urgent_updates else BusJobUpdateMessage
    classes = {"update": update, "chunk": BusJobStreamDataMessage}
    expected: list[Any] = [(classes[kind], data) for kind, data in behaviour.sends]
    answer = BusJobResponseUrgentMessage if behaviour.urgent else BusJobResponseMessage
    plain = behaviour.status is JobStatus.COMPLETED and not behaviour.urgent
    last = BusJobStreamEndMessage if plain and behaviour.chunks is not None else answer
    expected.append((last, behaviour.response or {}))
    starts = [place for place, each in enumerate(said) if isinstance(each, BusJobStreamStartMessage)]
    rest = [each for each in said if not isinstance(each, BusJobStreamStartMessage)]

    def content(message: Any) -> Any:
        names = ("update", "data", "response")
        return next(getattr(message, name) for name in names if hasattr(message, name)) or {}

    assert [(type(each), content(each)) for each in rest] == expected
    assert getattr(rest[-1], "status", JobStatus.COMPLETED) is behaviour.status
    assert len(starts) == (behaviour.chunks is not None)
    chunks = [place for place, each in enumerate(said) if isinstance(each, BusJobStreamDataMessage)]
    assert not starts or starts[0] < min([*chunks, len(said) - 1])
