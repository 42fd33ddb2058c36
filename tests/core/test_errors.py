"""N9: errors that travel, to another process for instance."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from support.errors import public_errors
from workerbus import (
    JobError,
    JobFailure,
    JobGroupTimeoutError,
    JobStatus,
    WorkerBusError,
    errors,
    redis,
    testing,
    view,
)

MADE: list[Exception] = [
    errors.NotRunningError("worker 'w' is not running yet"),
    errors.RunCancelled("enough", "runner"),
    errors.WrongTaskError("runner 'r'"),
    errors.WrongLoopError("bus 'b'", "thread"),
    errors.NotInitializedError("Mine"),
    errors.NameTakenError("w", "runner 'r'"),
    errors.BusUnavailable("b", "no connection", maybe_stored=False),
    errors.ParentError("child", "it is a child of 'w'"),
    errors.RestartLimitError("w", 3, 5.0),
    errors.FactoryError("w", "a factory returns a worker, not 7"),
    errors.UnknownWorkerError("w", ["v", "worker"]),
    errors.UnknownJobError("1-a", "w"),
    errors.UnknownEventError("on_ready", "BaseWorker", ["on_activated"]),
    errors.MessageTypeError("no message"),
    errors.FrameTypeError("no frame"),
    errors.ProcessorInUseError("processor 'p'"),
    errors.PipelineStartTimeoutError("w", ["p"], 20, setting_up=True),
    errors.PipelineStartTimeoutError("w", ["p", "q"], 20, setting_up=False),
    errors.FlushError("it would wait for itself"),
    errors.FlushTimeoutError("w", ["p"], 5),
    errors.HandlerTypeError("no handler"),
    errors.PayloadError("Counter.count", "payload", "expected `str`, got `int`", "words[0]"),
    errors.MissingExtraError("the types of Counter.count", "msgspec", "typed"),
    errors.WireError("set would come back as list", class_name="BusJobRequestMessage", path="payload.a"),
    errors.WireError("it is of version 2", arrived=True),
    errors.WireError("there is no class 'x' here", arrived=True, unknown_tag="x"),
    errors.RecordingError("run.jsonl", "it is empty"),
    errors.RecordingError("run.jsonl", "it is cut off", line=3),
    errors.RegistrationError("Mine", "it is local"),
    errors.RegistrationError("Mine", "JSON has no form for object", field_name="held"),
    errors.TagTakenError("mine", "one.Mine", "other.Mine"),
    errors.ReservedNameError("Mine", "children", "property"),
    errors.MisspeltHookError("Mine", "on_activate", ["on_activated"]),
    JobError(
        "went wrong", job_id="1-a", statuses={"w": JobStatus.ERROR}, responses={"w": {"error": "x"}}, detail="why"
    ),
    errors.JobGroupError("went wrong", job_id="1-a", statuses={"w": JobStatus.ERROR, "v": JobStatus.COMPLETED}),
    errors.JobTimeoutError("timeout", job_id="1-a", detail="no answer from 'w'"),
    JobGroupTimeoutError("timeout", job_id="1-a", responses={"v": {"n": 1}}),
    JobFailure("no such page", status=404),
    redis.RedisURLError("the URL of the Redis server: the port is no number"),
    redis.RedisSetupError("WRONGPASS", "localhost:6379", "it does not take this user and password"),
    redis.RedisReplyError("OOM command not allowed when used memory > 'maxmemory'."),
    redis.ConnectionLost("localhost:6379", "it has gone", sent=True, replies=[b"OK"]),
    view.UnprotectedViewError("0.0.0.0"),
    testing.StuckError("it is stuck", ("worker 'w' waits", "worker 'v' waits"), 0.0),
    testing.DeadlockError("nothing can happen any more", ("worker 'w' waits",), 1.5),
    testing.TimeLimitError("it has not ended", (), 60.0),
    testing.SpinError("it spins", ("worker 'w' runs",), 2.5),
    testing.InvariantError("always(f) at a.py:3", "does not hold", "deposit", "a.py:7 `await f()`", 2.5),
    testing.NotLinearizableError("not even these 2", (testing.Operation("read", None, "r", 0),), ()),
    testing.CutError("at checkpoint 3"),
    testing.ScriptedError("scripted"),
    testing.RequesterError("scripted"),
]


def test_every_public_error_is_tried_here() -> None:
    """N9: one that is added has to be added to the list as well."""
    assert set(public_errors()) - {WorkerBusError} <= {type(error) for error in MADE}


def same(error: BaseException, other: BaseException) -> None:
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert other.args == error.args


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "travel",
    [copy.copy, copy.deepcopy, *(lambda e, p=protocol: pickle.loads(pickle.dumps(e, p)) for protocol in range(6))],
    ids=["copy", "deepcopy", *(f"pickle {protocol}" for protocol in range(6))],
)
def test_an_error_travels_with_its_class_its_text_and_its_attributes(
    error: Exception, travel: Callable[[Exception], Exception]
) -> None:
    """N9"""
    same(error, travel(error))


class OwnError(JobFailure):
    """A user's own, with a constructor of its own."""

    def __init__(self, page: int) -> None:
        super().__init__(f"no page {page}", page=page)
        self.page = page


def test_so_do_errors_derived_from_ours_and_notes() -> None:
    """N9"""
    error = OwnError(7)
    error.add_note("raised by worker 'w'")
    same(error, pickle.loads(pickle.dumps(error)))


def fail() -> None:
    raise errors.UnknownJobError("1-a", "w")


@pytest.mark.slow
def test_an_error_comes_back_from_another_process() -> None:
    """N9: what cannot be unpickled breaks the whole pool."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(errors.UnknownJobError) as caught:
            pool.submit(fail).result()
        assert caught.value.job_id == "1-a"
        assert pool.submit(len, "abc").result() == 3


def test_errors_say_that_they_are_of_the_one_module_where_users_find_them() -> None:
    """N9: and so do what is pickled, and tracebacks; wherever in it they are written down."""
    own = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, WorkerBusError)]
    assert len(own) > 30
    assert {each.__module__ for each in own} == {"workerbus.errors"}
    assert b"workerbus.errors._" not in pickle.dumps(errors.NotRunningError("it is not"))
