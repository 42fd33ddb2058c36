"""R8: what is logged, where, and what the records say they are about."""

import ast
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import sleep_forever

import workerbus
from support.messages import note
from support.runners import quiet_runner
from support.subscribers import Plain
from support.workers import Helper, running
from workerbus import BaseWorker, BusJobUpdateMessage, BusMessage, JobError, MemoryBus, WorkerParams
from workerbus.testing import settle

SOURCE = Path(workerbus.__file__).parent
PARTS = ("bus", "jobs", "pool", "supervision", "worker", "runner", "pipeline", "registry")

Said = tuple[str, str, str]


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    """Capture all that the library logs."""
    caplog.set_level(logging.DEBUG, logger="workerbus")


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[Said]:
    """Return logger, text, and whose record it is, of what was logged at a level."""
    return [
        (record.name, record.getMessage(), f"{getattr(record, 'runner', '-')}/{getattr(record, 'worker', '-')}")
        for record in caplog.records
        if record.levelno == level
    ]


async def test_the_starts_and_ends_of_runners_and_workers_are_information(caplog: pytest.LogCaptureFixture) -> None:
    """R8"""
    async with running(Helper("helper"), name="r") as runner:
        await runner.end("enough")
    infos = said(caplog, logging.INFO)
    assert infos == [
        ("workerbus.runner", "runner 'r' has started", "r/-"),
        ("workerbus.worker", "worker 'helper' has started", "r/helper"),
        ("workerbus.worker", "worker 'helper' has ended: enough", "r/helper"),
        ("workerbus.runner", "runner 'r' has ended", "r/-"),
    ]


async def test_jobs_and_activations_are_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    """R8: both sides of a job say its id."""
    helper, asker = Helper("helper"), Helper("asker", active=False)
    async with running(helper, asker, name="r"):
        caplog.clear()
        await helper.activate_worker("asker", deactivate_self=True)
        await asker.activate_worker("helper")
        context = asker.job("helper", name="echo")
        async with context:
            pass
        debugs = said(caplog, logging.DEBUG)
    job_id = context.job_id
    activations = [(text, who) for name, text, who in debugs if name == "workerbus.worker"]
    assert activations == [
        ("worker 'helper' is inactive", "r/helper"),
        ("worker 'asker' is active", "r/asker"),
        ("worker 'helper' is active", "r/helper"),
    ]
    assert [(text, who) for name, text, who in debugs if name == "workerbus.jobs"] == [
        (f"'asker' asks worker 'helper' for job 'echo' ({job_id})", "r/asker"),
        (f"worker 'helper' answers job 'echo' ({job_id}): completed", "r/helper"),
    ]
    assert {record.job for record in caplog.records if record.name == "workerbus.jobs"} == {job_id}  # type: ignore[attr-defined]  # R8


async def test_a_job_that_does_not_complete_is_for_debugging_too(caplog: pytest.LogCaptureFixture) -> None:
    """R8: the answer may never come."""
    async with running(Helper("helper"), name="r") as runner:
        with pytest.raises(JobError) as caught:
            await runner.job("helper", name="wait", timeout=0.5)
    texts = [text for name, text, _ in said(caplog, logging.DEBUG) if name == "workerbus.jobs"]
    job_id = caught.value.job_id
    assert f"job 'wait' ({job_id}) is over for 'r': timed out" in texts
    assert f"worker 'helper' answers job 'wait' ({job_id}): cancelled" in texts


async def test_a_job_whose_requester_fails_is_over_for_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    """R8"""
    async with running(Helper("helper"), name="r") as runner:
        with pytest.raises(LookupError):
            async with runner.job("helper", name="wait") as asked:
                raise LookupError
        texts = [text for name, text, _ in said(caplog, logging.DEBUG) if name == "workerbus.jobs"]
    assert f"job 'wait' ({asked.job_id}) is over for 'r': cancelled, the requester failed: LookupError" in texts


async def test_the_records_of_errors_say_whose_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """R8, W7, J2: runner, worker, and the job where there is one."""

    class Failing(Helper):
        async def on_bus_message(self, message: BusMessage) -> None:
            if message == note(1):
                raise ValueError("in a hook")

    async with running(Failing("w"), name="r") as runner:
        await runner.bus.send(note(1))
        with pytest.raises(JobError) as caught:
            await runner.job("w", name="fail")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [(record.name, vars(record).get("job")) for record in errors] == [
        ("workerbus.worker", None),
        ("workerbus.jobs", caught.value.job_id),
    ]
    assert {who for *_, who in said(caplog, logging.ERROR)} == {"r/w"}


async def test_the_records_of_warnings_say_whose_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """R8, W10"""

    class Endless(BaseWorker):
        async def run(self, params: WorkerParams) -> None:
            await self.start()
            await sleep_forever()

    async with running(Endless("w"), name="r"):
        pass
    [(name, _, who)] = said(caplog, logging.WARNING)
    assert (name, who) == ("workerbus.worker", "r/w")


async def test_a_runner_s_own_jobs_are_logged_under_its_name(caplog: pytest.LogCaptureFixture) -> None:
    """R8, R7"""
    async with quiet_runner(name="r") as runner:
        await runner.add_workers(Helper("helper"))
        await runner.job("helper", name="echo")
    asked = [each for each in said(caplog, logging.DEBUG) if "asks worker" in each[1]]
    assert [who for *_, who in asked] == ["r/-"]


async def test_what_nobody_wants_to_read_is_not_put_together(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R8: a job, a hook and an activation make no record, and say nothing about themselves."""
    caplog.set_level(logging.WARNING, logger="workerbus")

    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        pytest.fail("a record was made")

    helper, asker = Helper("helper"), Helper("asker")
    monkeypatch.setattr(logging.Logger, "makeRecord", refuse)
    async with running(helper, asker):
        await asker.job("helper", name="echo")
        await asker.activate_worker("helper")
    monkeypatch.undo()
    assert not caplog.records


def test_nothing_is_configured_by_an_import() -> None:
    """R8: no level, no handler, no filter."""
    program = (
        "import logging, workerbus, workerbus.pipeline\n"
        "names = [name for name in logging.root.manager.loggerDict if name.startswith('workerbus')]\n"
        "loggers = [logging.getLogger(name) for name in names]\n"
        "assert all(not (each.level or each.handlers or each.filters) for each in loggers), loggers\n"
        "assert not logging.root.handlers\n"
        "print(*sorted(names))\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(printed) - {"workerbus"} == {f"workerbus.{part}" for part in PARTS}


def _loggers(path: Path) -> list[str]:
    """Return the names of a module's own loggers: what it looks up at other times is not its own."""
    named = [each.value for each in ast.parse(path.read_text()).body if isinstance(each, ast.Assign)]
    calls = [call for call in named if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)]
    return [ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "logging.getLogger"]


def test_each_part_of_the_library_has_a_logger_of_its_own() -> None:
    """R8: named after its package."""
    for path in SOURCE.rglob("*.py"):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py").lstrip("_")
        part = {"concurrency": "worker", "watchers": "registry"}.get(part, part)
        assert set(_loggers(path)) <= {f"workerbus.{part}"}, path


def _logs(path: Path) -> list[ast.Call]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call for call in calls if re.match(r"logger\.(?!isEnabledFor)", ast.unparse(call.func))]


def test_all_that_is_logged_says_what_it_is_about() -> None:
    """R8: but for what concerns the program as a whole, or a bus."""
    for path in SOURCE.rglob("*.py"):
        if path.parent.name == "bus" or "testing" in path.parts or path.name in ("_signals.py", "own_tasks.py"):
            continue
        for call in _logs(path):
            assert "extra" in {keyword.arg for keyword in call.keywords}, f"{path.name}:{call.lineno}"


async def test_the_record_of_a_task_that_refuses_to_end_says_of_which_worker_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R8, W10"""
    release = anyio.Event()

    async def refuse() -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()

    worker = Helper("w")
    async with running(worker, name="it"):
        task = worker.create_task(refuse)
        await settle()
        await worker.cancel_task(task, timeout=0.1)
        release.set()
    [record] = [each for each in caplog.records if "has not ended" in each.getMessage()]
    assert (record.runner, record.worker) == ("it", "w")  # type: ignore[attr-defined]  # put there by `extra`


async def test_the_record_of_a_subscriber_that_fails_says_of_which_job_the_message_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R8"""

    async def fail(message: BusMessage) -> None:
        raise ValueError("oh")

    async with MemoryBus() as bus:
        await bus.subscribe(Plain("it", on=fail))
        await bus.send(BusJobUpdateMessage("job 1", source="me", target="it"))
        await bus.send(note(1, "it"))
        await settle()
    records = [each for each in caplog.records if "failed to handle" in each.getMessage()]
    assert [getattr(record, "job", None) for record in records[:2]] == ["job 1", None]
