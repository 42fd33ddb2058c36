"""A Flask application: its views run in the threads of its server, and ask workers for jobs.

python examples/hosts/flask_app.py --port 5000
"""

import argparse
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from flask import Flask, Response, request
from werkzeug.serving import make_server

from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    JobContext,
    JobError,
    JobEvent,
    JobTimeoutError,
    WorkerRunner,
    job,
)


class Counter(BaseWorker):
    """Counts to a number, ten a second, and says how far it is."""

    @job(name="count")
    async def count(self, message: BusJobRequestMessage) -> dict[str, int]:
        """Count."""
        to = message.payload["to"]
        for number in range(1, to + 1):
            await anyio.sleep(0.1)
            await self.send_job_update(message.job_id, {"counted": number})
        return {"counted": to}


@asynccontextmanager
async def counting(runner: WorkerRunner, to: int) -> AsyncIterator[JobContext[dict[str, Any]]]:
    """Hold a job's block open; a runner is asked for jobs in its own thread alone."""
    async with runner.job("counter", name="count", payload={"to": to}, timeout=3600) as job:
        yield job


async def next_of(job: JobContext[Any]) -> JobEvent | None:
    """Return the next event of a job, or None when there are no more."""
    return await anext(aiter(job), None)


def create_app(portal: BlockingPortal, runner: WorkerRunner) -> Flask:
    """Make the application, whose threads reach the runner through a portal."""
    app = Flask("counting")

    @app.get("/count/<int:to>")
    def count(to: int) -> dict[str, Any]:
        """Ask for a job, and wait for its answer in this thread."""
        seconds = float(request.args.get("timeout", 30))
        ask = partial(runner.job, "counter", name="count", payload={"to": to}, timeout=seconds)
        answer: dict[str, Any] = portal.call(ask)
        return answer

    @app.get("/count/<int:to>/lines")
    def lines(to: int) -> Response:
        """Ask for a job, and stream how far it is; whoever goes away cancels it."""

        def stream() -> Iterator[str]:
            with portal.wrap_async_context_manager(counting(runner, to)) as job:
                while (event := portal.call(next_of, job)) is not None:
                    yield json.dumps(event.data) + "\n"

        return Response(stream(), mimetype="application/jsonl")

    @app.get("/status")
    def status() -> dict[str, int]:
        """Say what became of the jobs so far; statistics may be asked for in any thread."""
        now = runner.statistics(jobs=False)
        answered = {status.name.lower(): count for status, count in now.jobs_answered.items()}
        return {"requested": now.jobs_requested, **answered}

    @app.errorhandler(JobError)
    def failed(error: JobError) -> tuple[dict[str, str], int]:
        """Say what has become of a job that was not completed."""
        return {"error": str(error)}, 504 if isinstance(error, JobTimeoutError) else 502

    return app


def serve(port: int, backend: str) -> None:
    """Serve the application until a signal comes."""
    with (
        start_blocking_portal(backend) as portal,  # an event loop in a thread of its own
        portal.wrap_async_context_manager(WorkerRunner(name="counting", handle_sigint=False)) as runner,
    ):
        portal.call(runner.add_workers, Counter("counter"))
        server = make_server("127.0.0.1", port, create_app(portal, runner), threaded=True)
        server.daemon_threads = False  # type: ignore[attr-defined]  # its stubs leave it out; requests under way get their answers
        print(f"running on http://127.0.0.1:{server.port}", flush=True)
        with suppress(KeyboardInterrupt):  # it is caught here, since it is no business of the event loop's
            server.serve_forever()
        server.server_close()


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Count, with Flask.")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end it in order
    serve(given.port, given.backend)


if __name__ == "__main__":
    main()
