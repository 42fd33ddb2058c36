"""A web application whose requests become jobs. A client that goes away cancels its job, however it has asked.

uvicorn --app-dir examples/hosts web:app
PYTHONPATH=examples/hosts hypercorn web:app              # on asyncio
PYTHONPATH=examples/hosts hypercorn -k trio web:app      # on trio

Then open http://127.0.0.1:8000/
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import Depends, FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.requests import HTTPConnection
from fastapi.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from workerbus import BaseWorker, BusJobRequestMessage, JobContext, JobError, WorkerRunner, job
from workerbus.asgi import cancel_on_disconnect

PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
SECONDS_PER_PAGE = 0.2


class Printer(BaseWorker):
    """Prints, page by page.

    Attributes:
        counts: What became of its jobs.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.counts = {"printing": 0, "printed": 0, "cancelled": 0}

    @job(name="print")
    async def print_pages(self, message: BusJobRequestMessage) -> dict[str, Any]:
        """Print pages, and say after each how many there are."""
        pages = message.payload["pages"]
        ending = "cancelled"
        self.counts["printing"] += 1
        try:
            for page in range(1, pages + 1):
                await anyio.sleep(SECONDS_PER_PAGE)
                await self.send_job_update(message.job_id, {"page": page, "of": pages})
            ending = "printed"
            return {"printed": pages}
        finally:
            self.counts["printing"] -= 1
            self.counts[ending] += 1


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Run the workers for as long as the application is served."""
    async with WorkerRunner(name="web") as runner:
        printer = Printer("printer")
        await runner.add_workers(printer, wait=True)
        yield {"runner": runner, "printer": printer}


app = FastAPI(title="Jobs on the web", lifespan=lifespan)


def the_runner(connection: HTTPConnection) -> WorkerRunner:
    """Return the runner, for requests and websockets."""
    runner: WorkerRunner = connection.state.runner
    return runner


Runner = Annotated[WorkerRunner, Depends(the_runner)]
Pages = Annotated[int, Query(ge=1, le=1000)]


@app.get("/print", response_model=None)
async def print_now(pages: Pages, request: Request, runner: Runner) -> dict[str, Any] | Response:
    """Print, and answer when all is printed."""
    async with cancel_on_disconnect(request.receive):
        return await runner.job("printer", name="print", payload={"pages": pages})
    return Response(status_code=499)  # nobody reads it: the client has gone


class JobEvents(Response):
    """The updates of a job as server-sent events, and at the end ``answer`` or ``failure``."""

    media_type = "text/event-stream"

    def __init__(self, job: JobContext[dict[str, Any]]) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]  # it is not known
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for the job, and send what it says."""

        async def tell(kind: str, data: object) -> None:
            body = f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with cancel_on_disconnect(receive):
            try:
                async with self.job as job:
                    async for event in job:
                        await tell("progress", event.data)
                await tell("answer", job.response)
            except JobError as error:
                await tell("failure", str(error))
            await send({"type": "http.response.body", "body": b""})


@app.get("/print/events", response_class=JobEvents)
async def print_with_events(pages: Pages, runner: Runner) -> Response:
    """Print, and stream how far it is as server-sent events."""
    return JobEvents(runner.job("printer", name="print", payload={"pages": pages}))


@app.websocket("/print/socket")
async def print_with_socket(socket: WebSocket, runner: Runner) -> None:
    """Print what the first message says, stream how far it is, and close."""
    await socket.accept()
    try:
        asked = await socket.receive_json()
        async with cancel_on_disconnect(socket.receive) as client:
            async with runner.job("printer", name="print", payload={"pages": int(asked["pages"])}) as job:
                async for event in job:
                    await socket.send_json({"progress": event.data})
            await socket.send_json({"answer": job.response})
        if not client.disconnected:
            await socket.close()
    except WebSocketDisconnect:  # it has gone before it has asked, or while it was sent something
        return


@app.get("/status")
async def status(request: Request) -> dict[str, int]:
    """Say what became of the jobs so far."""
    counts: dict[str, int] = request.state.printer.counts
    return counts


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """Return the page."""
    return PAGE
