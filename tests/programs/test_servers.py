"""R5: a runner in the lifespan of a web application, under real servers: one Ctrl-C ends both."""

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from support.web_servers import serving
from workerbus import WorkerRunner

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("web_programs.py")

COMMANDS = {
    "uvicorn, command": ["-m", "uvicorn", "--host", "127.0.0.1", "--port", "0", "web_programs:app"],
    "hypercorn, command": ["-m", "hypercorn", "--bind", "127.0.0.1:0", "web_programs:app"],
    "hypercorn, in one process": ["-m", "hypercorn", "--bind", "127.0.0.1:0", "--workers", "0", "web_programs:app"],
    "hypercorn, command, trio": ["-m", "hypercorn", "--bind", "127.0.0.1:0", "-k", "trio", "web_programs:app"],
    "uvicorn": [str(PROGRAMS), "uvicorn"],
    "hypercorn": [str(PROGRAMS), "hypercorn"],
    "uvicorn in a body": [str(PROGRAMS), "uvicorn in a body"],
    "hypercorn in a body": [str(PROGRAMS), "hypercorn in a body"],
}
WITHOUT_SIGNALS = {"hypercorn, trio": [str(PROGRAMS), "hypercorn, trio"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_one_ctrl_c_ends_a_server_and_the_runner_in_its_application(command: str) -> None:
    """R5: the request that is under way gets its answer, and none is refused by a runner that has gone."""
    with serving(COMMANDS[command], PROGRAMS.parent) as server, ThreadPoolExecutor() as threads:
        assert server.get("now") == {"answer": "now"}
        later = threads.submit(server.get, "later")
        server.until("at work")
        server.press_ctrl_c()
        assert later.result() == {"answer": "later"}
        server.end()
    assert "finished by None" in server.lines
    assert not any(" 500" in line or "NotRunningError" in line for line in server.lines), server.lines


@pytest.mark.parametrize("command", WITHOUT_SIGNALS)
def test_one_ctrl_c_ends_a_server_too_that_handles_no_signals(command: str) -> None:
    """R5: the runner takes it, and the lifespan that is cut short ends the server."""
    with serving(WITHOUT_SIGNALS[command], PROGRAMS.parent) as server:
        assert server.get("now") == {"answer": "now"}
        server.press_ctrl_c()
        assert server.end() != 0
    assert "cancelled by SIGINT" in server.lines


def snippets() -> str:
    page = (ROOT / "docs/signals.md").read_text()
    return "\n\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))


def test_the_snippets_of_the_page_on_signals_do_what_they_say(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """L7, R5: a job from a thread, and what is said of a run that has ended."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(snippets(), names)
    assert anyio.run(names["greet_from_a_thread"], backend=backend) == "hello, thread"

    async def serve() -> None:
        runner = WorkerRunner()
        runner.add_event_handler("on_ready", lambda _: signal.raise_signal(signal.SIGINT))
        await names["serve"](runner)

    anyio.run(serve, backend=backend)
    assert capsys.readouterr().out == "cancelled by SIGINT\n"


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_the_application_of_the_page_on_signals_is_served(server: str, tmp_path: Path) -> None:
    """R5: as the page says."""
    (tmp_path / "page.py").write_text(snippets())
    place = ["--port", "0"] if server == "uvicorn" else ["--bind", "127.0.0.1:0"]
    with serving(["-m", server, *place, "page:app"], tmp_path) as it:
        assert it.get("world") == {"text": "hello, world"}
        it.press_ctrl_c()
        it.end()
    assert not any("Error" in line for line in it.lines), it.lines
