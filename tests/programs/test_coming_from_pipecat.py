"""N1: the page for those who come from Pipecat names what there is, and nothing else."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import workerbus
import workerbus.errors
import workerbus.pipeline
import workerbus.redis
from programs.test_pages_on_pipelines import played, printed

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "coming-from-pipecat.md").read_text()
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| in Pipecat", "|---"))
]
CLAIMS = sorted({token for row in ROWS for token in re.findall(r"`([^`]+)`", row[1])})

# Every public name of the documentation of its worker framework, version 1.3: that of a class with those in it.
THERE = {
    "WorkerRegistry": "runner_name local_workers remote_workers get watch register",
    "WorkerParams": "",
    "WorkerActivationArgs": "metadata from_dict to_dict",
    "BaseWorker": "bus active activation_args parent registry started_at bridged children active_jobs job_groups "
    "attach cleanup run start stop end cancel wait on_activated on_deactivated on_worker_ready on_worker_failed "
    "on_bus_message "
    "on_job_request on_job_response on_job_update on_job_update_requested on_job_completed on_job_error "
    "on_job_stream_start on_job_stream_data on_job_stream_end on_job_cancelled send_bus_message send_bus_error_message "
    "add_workers activate_worker deactivate_worker watch_workers request_job job request_job_group job_group "
    "cancel_job_group request_job_update create_job_group_and_request_job send_job_response send_job_update "
    "send_job_stream_start send_job_stream_data send_job_stream_end",
    "WorkerRunner": "registry add_workers run stop_when_done end cancel on_bus_message",
    "PipelineRunner": "",
    "WorkerBus": "start stop subscribe unsubscribe send publish on_message_received",
    "AsyncQueueBus": "publish",
    "BusSubscriber": "on_bus_message",
    "BusBridgeProcessor": "setup cleanup process_frame on_bus_message",
    "BusActivateWorkerMessage": "args",
    "BusAddWorkerMessage": "worker",
    "BusWorkerErrorMessage": "error",
    "BusWorkerLocalErrorMessage": "error",
    "WorkerRegistryEntry": "name parent active bridged started_at",
    "BusWorkerReadyMessage": "runner parent active bridged started_at",
    "BusWorkerRegistryMessage": "runner workers",
    "BusCancelWorkerMessage": "reason",
    "BusCancelMessage": "reason",
    "BusDeactivateWorkerMessage": "",
    "BusEndWorkerMessage": "reason",
    "BusEndMessage": "reason",
    "BusFrameMessage": "frame direction bridge",
    "BusDataMessage": "",
    "BusLocalMessage": "",
    "BusMessage": "source target",
    "BusSystemMessage": "",
    "BusTTSSpeakMessage": "text append_to_context",
    "BusJobCancelMessage": "job_id reason",
    "BusJobRequestMessage": "job_id job_name payload",
    "BusJobResponseMessage": "job_id status response",
    "BusJobResponseUrgentMessage": "job_id status response",
    "BusJobStreamDataMessage": "job_id data",
    "BusJobStreamEndMessage": "job_id data",
    "BusJobStreamStartMessage": "job_id data",
    "BusJobUpdateMessage": "job_id update",
    "BusJobUpdateRequestMessage": "job_id",
    "BusJobUpdateUrgentMessage": "job_id update",
    "WorkerReadyData": "",
    "WorkerErrorData": "",
    "JobGroup": "",
    "JobContext": "response",
    "JobGroupContext": "responses",
    "JobGroupResponse": "",
    "JobStatus": "COMPLETED",
    "JobEvent": "UPDATE",
    "JobGroupEvent": "UPDATE",
    "JobError": "",
    "JobGroupError": "",
    "PipelineWorker": "",
    "worker_ready": "",
    "job": "",
}


def named(path: str) -> Any:
    """The object that a dotted name stands for, looked for where the page says that it can be imported from."""
    if path == "workerbus":
        return workerbus
    if path == "workerbus.pipeline":
        return workerbus.pipeline
    first, *rest = path.split(".")
    found = next(getattr(module, first) for module in (workerbus, workerbus.pipeline) if hasattr(module, first))
    for name in rest:
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_the_page_says_is_here_is_here(claim: str) -> None:
    """N1: names, and the parameters in brackets."""
    match = re.fullmatch(r"([\w.]+)(?:\((.*)\))?", claim)
    assert match is not None
    path, parameters = match.groups()
    found = named(path)
    for parameter in re.findall(r"(\w+)=…", parameters or ""):
        assert parameter in inspect.signature(found).parameters, parameter
    assert re.sub(r"\w+=…(, )?", "", parameters or "") == ""


def test_every_row_says_what_there_is_here() -> None:
    """N1"""
    assert len(ROWS) > 80
    assert all(len(row) == 3 and "`" in row[1] for row in ROWS)


@pytest.mark.parametrize("name", sorted(THERE))
def test_every_name_of_the_peer_is_on_the_page_and_here(name: str) -> None:
    """N1: what is common to all messages is said of `BusMessage` alone."""
    found = named(name)
    for part in THERE[name].split():
        assert hasattr(found, part) or part in inspect.signature(found).parameters, part
    assert f"`{name}`" in "".join(row[0] for row in ROWS) or f"`@{name}`" in "".join(row[0] for row in ROWS)


METHODS = [
    (name, part)
    for name in ("BaseWorker", "WorkerRunner", "WorkerRegistry", "WorkerBus")
    for part in THERE[name].split()
]


@pytest.mark.parametrize(("name", "part"), METHODS)
def test_every_method_of_the_peer_has_its_place_in_the_table(name: str, part: str) -> None:
    """N1"""
    assert any(re.fullmatch(rf"{name}\.{part}(\(.*\))?", claim) for claim in CLAIMS)


def test_the_program_on_the_page_prints_what_stands_below_it(backend: str) -> None:
    module = played("coming-from-pipecat")
    [output] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert printed(module.main, backend, seed=0) == output


def test_the_page_can_be_found() -> None:
    assert "docs/coming-from-pipecat.md" in (DOCS.parent / "README.md").read_text()
    assert "(coming-from-pipecat.md)" in (DOCS / "pipelines.md").read_text()
