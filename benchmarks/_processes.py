"""The processes of the contenders, seen from the one that asks."""

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Any

import anyio
from anyio.abc import ByteSendStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define, field, frozen

from benchmarks._contenders import Contender

STARTING_SECONDS = 60.0
"""How long a contender may take to import what it needs."""

LINE = 1_000_000

IMPORT = """\
import json, sys, time
start, spent = time.perf_counter(), time.process_time()
{}
seconds, cpu = time.perf_counter() - start, time.process_time() - spent
print(json.dumps({{"seconds": seconds, "cpu": cpu, "trio": float("trio" in sys.modules)}}))
"""


class FailedError(Exception):
    """A contender did not do what it was asked."""


@frozen
class Introduction:
    """What a contender says of itself.

    Args:
        has: The names of the subjects that it has.
        versions: Package to version.
        missing: The module that is not installed, if one is not.
        source: The directory from which its first package comes.
    """

    has: tuple[str, ...] = ()
    versions: dict[str, str] = field(factory=dict)
    missing: str | None = None
    source: str = ""


def environment(contender: Contender) -> dict[str, str]:
    """Return the environment of a contender's process."""
    paths = [contender.path, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def last_line(output: bytes) -> str:
    """Return what a program said last."""
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


@frozen
class Live:
    """A process that runs, and what it says.

    Args:
        process: The process.
        requests: Its input.
        answers: Its output.
        errors: Where its standard error goes.
    """

    process: Process
    requests: ByteSendStream
    answers: BufferedByteReceiveStream
    errors: IO[bytes]

    @classmethod
    async def start(cls, contender: Contender) -> "Live":
        """Start a contender's process."""
        command = [sys.executable, "-m", "benchmarks._child", contender.module, contender.backend]
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        process = await anyio.open_process(command, stderr=errors, env=environment(contender), start_new_session=True)
        if process.stdin is None or process.stdout is None:
            raise FailedError("has no pipes")
        return cls(process, process.stdin, BufferedByteReceiveStream(process.stdout), errors)

    async def ask(self, request: str, limit: float) -> dict[str, Any]:
        """Return what it says next.

        Args:
            request: A line that it is to answer; empty if it speaks by itself.
            limit: How many seconds it may take.

        Raises:
            FailedError: It ended, or took longer. It is closed then.
        """
        try:
            with anyio.fail_after(limit):
                if request:
                    await self.requests.send(request.encode())
                said: dict[str, Any] = json.loads(await self.answers.receive_until(b"\n", LINE))
        except TimeoutError:
            await self.close()
            raise FailedError(f"took longer than {limit:g} s") from None
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            status = await self.process.wait()
            self.errors.seek(0)
            words = last_line(self.errors.read())
            await self.close()
            raise FailedError(f"ended with status {status}" + (words and f": {words}")) from None
        return said

    async def close(self) -> None:
        """End it."""
        with anyio.CancelScope(shield=True):
            if self.process.returncode is None:
                self.process.kill()
            await self.process.aclose()
        self.errors.close()


@define
class Child:
    """A contender's process, which is started when it is needed, and again when it has failed.

    Args:
        contender: Whose it is.
    """

    contender: Contender
    introduction: Introduction = field(factory=Introduction)
    _live: Live | None = None

    async def start(self) -> None:
        """Start the process, and hear what it has.

        Raises:
            FailedError: It ended, or took too long.
        """
        self._live = await Live.start(self.contender)
        said = await self._exchange("", STARTING_SECONDS)
        self.introduction = Introduction(
            tuple(said.get("has", ())), said.get("versions", {}), said.get("missing"), said.get("source", "")
        )

    async def ask(self, request: dict[str, Any], limit: float) -> dict[str, float]:
        """Let it measure.

        Args:
            request: What.
            limit: How many seconds it may take.

        Raises:
            FailedError: It failed, ended or took too long; in the latter cases another process takes its place.
        """
        if self._live is None:
            await self.start()
        answer = await self._exchange(json.dumps(request) + "\n", limit)
        if "error" in answer:
            raise FailedError(answer["error"])
        values: dict[str, float] = answer["values"]
        return values

    async def _exchange(self, request: str, limit: float) -> dict[str, Any]:
        assert self._live is not None
        try:
            return await self._live.ask(request, limit)
        except FailedError:
            self._live = None
            raise

    async def end(self) -> None:
        """End the process; another one takes its place when it is needed."""
        if self._live is not None:
            live, self._live = self._live, None
            await live.close()


@asynccontextmanager
async def child_of(contender: Contender) -> AsyncIterator[Child]:
    """A contender's process, for a while."""
    child = Child(contender)
    try:
        yield child
    finally:
        await child.end()


async def time_import(contender: Contender, limit: float) -> dict[str, float]:
    """Time the contender's import statement in a fresh interpreter.

    Raises:
        FailedError: It failed, or took longer than ``limit`` seconds.
    """
    command = [sys.executable, "-c", IMPORT.format(contender.imports)]
    # Compiled from the second time on, as what is installed is from the first.
    variables = {name: value for name, value in environment(contender).items() if name != "PYTHONDONTWRITEBYTECODE"}
    try:
        with anyio.fail_after(limit):
            done = await anyio.run_process(command, check=False, env=variables)
    except TimeoutError:
        raise FailedError(f"took longer than {limit:g} s") from None
    if done.returncode:
        raise FailedError(last_line(done.stderr))
    values: dict[str, float] = json.loads(last_line(done.stdout))
    return values
