"""Draws the pictures of recorded runs into docs/pictures/: ``python docs/draw_recording.py``.

The runs are those of a newsroom and of the tutorial's program, in virtual time, so that they are the same each time. A
test checks that this was done.
"""

import io
import re
import sys
from collections.abc import AsyncIterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from runpy import run_path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from workerbus import BaseWorker, BusJobRequestMessage, JobError, JobFailure, JobGroupError, WorkerRunner, job
from workerbus.recording import Recording, Recordings, record
from workerbus.testing import run

PICTURES = Path(__file__).parent / "pictures"
TUTORIAL = Path(__file__).parent / "tutorial"


class Reporter(BaseWorker):
    """Researches one thing after the other, and tells how far that is."""

    @job(name="research", sequential=True)
    async def research(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Research, for as many hours as it takes; what nobody talks about cannot be researched."""
        for hour in range(message.payload["hours"]):
            await anyio.sleep(1)
            await self.send_job_update(message.job_id, {"hours": hour + 1})
        if message.payload.get("secret"):
            raise JobFailure("nobody talks")
        return {"text": "…"}


class Press(BaseWorker):
    """Prints, page by page."""

    @job(name="print", sequential=True)
    async def print_pages(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, Any]]:
        """Print the pages that were ordered."""
        for page in range(message.payload["pages"]):
            await anyio.sleep(0.25)
            yield {"page": page}


class Editor(BaseWorker):
    """Makes issues: has things researched, and printed in time."""

    @job(name="issue")
    async def issue(self, message: BusJobRequestMessage) -> None:
        """Make an issue of what could be researched."""
        await anyio.sleep(message.payload["later"])
        payloads: dict[str, dict[str, Any]] = {
            "ann": {"hours": 3},
            "bob": {"hours": 2, "secret": message.payload["secret"]},
            "cy": {"hours": 4},
        }
        try:
            await self.job_group(name="research", payloads=payloads)
        except JobGroupError:
            await self.job("cy", name="research", payload={"hours": 1})
        async with self.job("press", name="print", payload={"pages": 10}) as pages:
            async for _ in pages:
                pass


async def day() -> Recording:
    """Record a day on which two issues are made, and one page too many is ordered."""
    async with WorkerRunner(name="newsroom") as runner:
        await runner.add_workers(Editor("editor"), Reporter("ann"), Reporter("bob"), Reporter("cy"), Press("press"))
        with record(runner) as recording:
            async with anyio.create_task_group() as issues:
                for later, secret in ((0.0, True), (0.5, False)):
                    issues.start_soon(ask_for_an_issue, runner, later, secret)
            with suppress(JobError):
                await runner.job("press", name="print", payload={"pages": 100}, timeout=2)
    return recording


async def ask_for_an_issue(runner: WorkerRunner, later: float, secret: bool) -> None:
    """Ask the editor for an issue."""
    await runner.job("editor", name="issue", payload={"later": later, "secret": secret})


def tutorial() -> str:
    """Return the timeline of the program that the tutorial draws."""
    names = ("first-worker", "streams", "looking")
    pages = "".join((TUTORIAL / f"{name}.md").read_text(encoding="utf-8") for name in names)
    files = dict(re.findall(r'```python title="(.*?)"\n(.*?)```', pages, re.DOTALL))
    before = set(sys.modules)
    with TemporaryDirectory() as directory, Recordings() as recordings, redirect_stdout(io.StringIO()):
        for name, code in files.items():
            Path(directory, name).write_text(code.removesuffix("anyio.run(main)\n"), encoding="utf-8")
        sys.path.insert(0, directory)
        try:
            run(run_path(f"{directory}/main.py")["main"])
        finally:
            sys.path.remove(directory)
            for name in set(sys.modules) - before:
                del sys.modules[name]
        Path(directory, "drawn").mkdir()
        paths = recordings.save(Path(directory, "drawn"), "main")
        return next(path for path in paths if path.name == "main.timeline.svg").read_text(encoding="utf-8")


def drawn() -> dict[str, str]:
    """Return the pictures, by the names of their files."""
    recording = run(day)
    return {
        "timeline.svg": recording.timeline_svg(),
        "sequence.svg": recording.sequence_svg(most=14),
        "tutorial.svg": tutorial(),
    }


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, picture in drawn().items():
        (PICTURES / name).write_text(picture, encoding="utf-8")
