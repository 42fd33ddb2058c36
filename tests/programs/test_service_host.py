"""R2, R5, R8, O4: examples/hosts/service.py, started and stopped as a supervisor does it."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import pytest

from workerbus.runner._runner import GRACE_SECONDS

pytestmark = pytest.mark.slow

HOSTS = Path(__file__).parents[2] / "examples" / "hosts"
HANGS = 120.0
TEXT = "to be or not to be\n"


class Service:
    """The service, in a process of its own.

    Attributes:
        spool: Its folder.
        records: What it has logged so far.
    """

    def __init__(self, process: "subprocess.Popen[str]", spool: Path) -> None:
        self.process = process
        self.spool = spool
        self.records: list[dict[str, Any]] = []
        self.url = self.until("a view of ").rpartition(" ")[2].removesuffix("/")

    @property
    def written(self) -> str:
        return "\n".join(json.dumps(record) for record in self.records)

    def until(self, begin: str) -> str:
        """Wait until it has logged a message; returns what stands behind its begin."""
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline()
            assert line, f"it ended without {begin!r}"
            self.records.append(json.loads(line))
            message: str = self.records[-1]["message"]
            if message.startswith(begin):
                return message.removeprefix(begin)

    def probe(self, path: str) -> int:
        """Ask as an orchestrator does; returns the status."""
        try:
            with build_opener(ProxyHandler({})).open(f"{self.url}/{path}", timeout=HANGS) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    def leave(self, name: str, text: str) -> None:
        """Leave a file in its folder, all at once."""
        part = self.spool / f"{name}.part"
        part.write_text(text)
        part.rename(self.spool / f"{name}.txt")

    def end(self) -> int:
        """Wait for its end; returns its exit code."""
        assert self.process.stdout is not None
        self.records += [json.loads(line) for line in self.process.stdout]
        return self.process.wait()


@contextmanager
def service(spool: Path, backend: str, **environment: str) -> Iterator[Service]:
    """Start the service, and kill it if it hangs."""
    command = [sys.executable, str(HOSTS / "service.py"), "--spool", str(spool), "--port", "0", "--backend", backend]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    watchdog = threading.Timer(HANGS, process.kill)
    watchdog.start()
    try:
        yield Service(process, spool)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def exists(path: Path) -> None:
    """Wait until there is a file; the watchdog of the service bounds it."""
    until = time.monotonic() + HANGS
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.005)  # what it waits for is done by another process, which tells nobody


def test_a_sigterm_lets_jobs_finish_and_probes_say_so(tmp_path: Path, backend: str) -> None:
    """R2, R5, O4: it lives, but is not ready; what comes meanwhile is left for the next one; it ends with 0."""
    with service(tmp_path, backend) as it:
        it.until("worker 'counters/4' has started")
        it.leave("first", TEXT)
        exists(tmp_path / "first.count")
        assert (it.probe("readyz"), it.probe("healthz")) == (200, 200)
        it.leave("long", TEXT * 30)
        it.until("'clerk' asks worker 'counters' for job")  # the first one's
        it.until("'clerk' asks worker 'counters' for job")
        it.process.send_signal(signal.SIGTERM)
        it.until("SIGTERM: runner 'spool' ends")
        assert (it.probe("readyz"), it.probe("healthz")) == (503, 200)
        it.leave("late", TEXT)
        assert it.end() == 0
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == {"first.count": "6\n", "long.count": "180\n", "late.txt": TEXT}


def test_ctrl_c_cuts_jobs_short_and_loses_no_file(tmp_path: Path, backend: str) -> None:
    """R5: the exit code is the one that shells expect."""
    with service(tmp_path, backend) as it:
        it.leave("long", TEXT * 1000)
        it.until("'clerk' asks worker 'counters' for job")
        it.process.send_signal(signal.SIGINT)
        assert it.end() == 130
    assert [path.name for path in tmp_path.iterdir()] == ["long.txt"]


def test_each_line_of_the_log_is_json_and_says_what_it_is_about(tmp_path: Path, backend: str) -> None:
    """R8: a job that fails has its traceback in its line, and its id in all of them."""
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with service(tmp_path, backend) as it:
        it.until("the handler of job 'count'")
        it.process.terminate()
        assert it.end() == 0
    error = next(record for record in it.records if record["level"] == "ERROR")
    assert "UnicodeDecodeError" in error["exception"]
    assert re.fullmatch(r"counters/\d", error["worker"])
    told = [record["message"] for record in it.records if record.get("job") == error["job"]]
    assert told[0].startswith("'clerk' asks")
    assert len(told) >= 3
    assert {record["runner"] for record in it.records} == {"spool"}


def test_systemd_hears_when_it_is_ready_and_that_it_lives(tmp_path: Path, backend: str) -> None:
    """R8, O2: through the socket that systemd gives to a service of the type notify."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(HANGS)
        systemd.bind(str(tmp_path / "notify"))
        (tmp_path / "spool").mkdir()
        with service(tmp_path / "spool", backend, NOTIFY_SOCKET=str(tmp_path / "notify")) as it:
            said = {systemd.recv(100).decode() for _ in range(4)}
            it.process.terminate()
            assert it.end() == 0
    assert said == {"READY=1", "WATCHDOG=1"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """Its program is somewhere else here; all the rest is as it is."""
    unit = (HOSTS / "service.service").read_text()
    (tmp_path / "words.service").write_text(unit.replace("/opt/words/venv/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "words.service"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_and_the_container_start_the_program_as_it_wants_to_be_started() -> None:
    """SIGTERM reaches it, and not a shell; time to drain is left; the arguments are some that it has."""
    unit = (HOSTS / "service.service").read_text()
    [command] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    [stop] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    dockerfile = (HOSTS / "service.Dockerfile").read_text()
    entry = json.loads(dockerfile.partition("ENTRYPOINT ")[2])
    options = subprocess.run([sys.executable, HOSTS / "service.py", "--help"], capture_output=True, text=True).stdout
    for words in (shlex.split(command), entry):
        assert words[1].endswith("service.py")
        assert all(word in options for word in words if word.startswith("--"))
    assert int(stop) > 20 + GRACE_SECONDS
    assert "job_grace=20" in (HOSTS / "service.py").read_text()
    assert re.findall(r"^COPY (\S+) ", dockerfile, re.MULTILINE) == ["service.py"]
