"""Web applications with a runner in their lifespan, and programs that serve one: what `test_servers` starts."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import hypercorn
import hypercorn.asyncio
import hypercorn.trio
import trio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from workerbus import BaseWorker, WorkerRunner, job

LOCAL = "127.0.0.1"


def say(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


class Echo(BaseWorker):
    @job(name="now")
    async def now(self, message: Any) -> dict[str, Any]:
        return {"answer": "now"}

    @job(name="later")
    async def later(self, message: Any) -> dict[str, Any]:
        say("at work")
        await anyio.sleep(0.5)
        return {"answer": "later"}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, WorkerRunner]]:
    runner = WorkerRunner()
    try:
        async with runner:
            await runner.add_workers(Echo("echo"))
            yield {"runner": runner}
    finally:
        assert runner.outcome is not None
        say(f"{runner.outcome.how} by {runner.outcome.signal and runner.outcome.signal.name}")


async def ask(request: Request) -> JSONResponse:
    return JSONResponse(await request.state.runner.job("echo", name=request.path_params["name"]))


app = Starlette(routes=[Route("/{name}", ask)], lifespan=lifespan)


def hypercorn_config() -> hypercorn.Config:
    config = hypercorn.Config()
    config.bind = [f"{LOCAL}:0"]
    config.errorlog = "-"
    return config


def uvicorn_server() -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(app, host=LOCAL, port=0))


async def uvicorn_in_a_body() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Echo("around"))
        await uvicorn_server().serve()


async def hypercorn_in_a_body() -> None:
    async with WorkerRunner() as runner:
        await runner.add_workers(Echo("around"))
        await hypercorn.asyncio.serve(app, hypercorn_config())  # type: ignore[arg-type]  # Starlette's are not theirs


def main(program: str) -> None:
    logging.getLogger("workerbus").addHandler(logging.NullHandler())
    if program == "uvicorn":
        asyncio.run(uvicorn_server().serve())
    elif program == "uvicorn in a body":
        asyncio.run(uvicorn_in_a_body())
    elif program == "hypercorn":
        asyncio.run(hypercorn.asyncio.serve(app, hypercorn_config()))  # type: ignore[arg-type]  # its types of ASGI are narrower
    elif program == "hypercorn in a body":
        asyncio.run(hypercorn_in_a_body())
    else:
        trio.run(hypercorn.trio.serve, app, hypercorn_config())  # type: ignore[arg-type]  # the same


if __name__ == "__main__":
    main(sys.argv[1])
