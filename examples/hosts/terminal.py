"""An application in a terminal, with Textual: its keys start and stop jobs of a worker behind it.

python examples/hosts/terminal.py
"""

import sys
from collections.abc import AsyncIterator
from typing import ClassVar

import anyio
from textual import work
from textual.app import App, ComposeResult
from textual.widgets import Footer, Header, Input, Log, ProgressBar, Static

from workerbus import BaseWorker, BusJobRequestMessage, JobError, WorkerRunner, job


class Searcher(BaseWorker):
    """Searches for prime numbers.

    Attributes:
        stopped: How many searches were stopped.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.stopped = 0

    @job(name="search")
    async def search(self, message: BusJobRequestMessage) -> AsyncIterator[dict[str, int]]:
        """Stream the prime numbers up to a limit."""
        try:
            for number in range(2, message.payload["limit"] + 1):
                if all(number % divisor for divisor in range(2, int(number**0.5) + 1)):
                    yield {"prime": number}
                    await anyio.sleep(0.02)  # so that there is something to see
        except BaseException:
            self.stopped += 1
            raise


class PrimesApp(App[None]):
    """Asks for a number, and shows the prime numbers up to it."""

    TITLE = "Prime numbers"
    BINDINGS: ClassVar = [("escape", "stop", "Stop"), ("ctrl+c", "quit", "Quit")]
    CSS = "ProgressBar { margin: 1 2; } Static { margin: 0 2; } Log { border: round $primary; }"

    def __init__(self, runner: WorkerRunner) -> None:
        super().__init__()
        self.runner = runner

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Header()
        yield Input(placeholder="up to", type="integer", id="limit")
        yield ProgressBar(total=100, show_eta=False)
        yield Static("Type a number, and press Enter.", id="status")
        yield Log()
        yield Footer()

    def say(self, text: str) -> None:
        """Show how it stands."""
        self.query_one("#status", Static).update(text)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Begin to search; a search that is under way is stopped."""
        if event.value:
            self.search(int(event.value))

    @work(exclusive=True)
    async def search(self, limit: int) -> None:
        """Ask for a job in a task of its own. When Textual cancels the task, the job is cancelled."""
        log, bar = self.query_one(Log), self.query_one(ProgressBar)
        log.clear()
        bar.update(total=limit, progress=0)
        found = 0
        self.say(f"Searching up to {limit}")
        try:
            async with self.runner.job("searcher", name="search", payload={"limit": limit}) as job:
                async for chunk in job.stream():
                    found += 1
                    log.write_line(str(chunk["prime"]))
                    bar.update(progress=chunk["prime"])
            bar.update(progress=limit)
            self.say(f"{found} prime numbers up to {limit}")
        except JobError as error:
            self.say(f"Failed: {error}")

    def action_stop(self) -> None:
        """Stop the search."""
        self.workers.cancel_all()
        self.say("Stopped")


async def main() -> None:
    """Run the application, and the worker behind it."""
    async with WorkerRunner(name="primes", handle_sigterm=True) as runner:
        await runner.add_workers(Searcher("searcher"))
        await PrimesApp(runner).run_async()


if __name__ == "__main__":
    try:
        anyio.run(main)
    except KeyboardInterrupt:
        sys.exit(130)
