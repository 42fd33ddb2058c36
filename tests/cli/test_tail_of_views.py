"""O3, O4, O5, O8: ``workerbus tail`` of a program that serves a view, over real sockets and in real time."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from support import commands
from support.workers import Helper, running
from workerbus import WorkerRunner
from workerbus.cli._address import Address
from workerbus.cli._client import connected
from workerbus.cli._commands import BROKEN_PIPE, CommandError
from workerbus.cli._tail import Filters, Writer, follow, objects
from workerbus.cli._view import ViewPassing
from workerbus.view import serve_view

EVERYTHING = Filters((), (), ())


@pytest.fixture
def anyio_backend(backend: str) -> str:
    return backend


def passing(url: str, *, payloads: bool = False) -> ViewPassing:
    return ViewPassing(Address(url, is_bus=False, token=None, prefix=""), payloads=payloads)


async def keep_asking(runner: WorkerRunner) -> None:
    while True:
        await runner.job("helper", name="echo", payload={"secret": "hunter2"})
        await anyio.sleep(0.01)


@pytest.mark.parametrize("payloads", [False, True])
async def test_a_view_tells_of_the_messages_that_pass(payloads: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """O3, O8: in their order; payloads where the view allows it, and somebody asks for them."""
    async with (
        running(Helper("helper"), name="main") as runner,
        serve_view(runner, port=0, payloads=payloads) as view,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(keep_asking, runner)
        await follow(passing(view.url, payloads=payloads), Writer(Filters((), ["echo"], ()), 8, objects))
        tasks.cancel_scope.cancel()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    seen: dict[str, list[tuple[str, str, str, str]]] = {}
    for each in told:
        step = (each["kind"], each["source"], each["target"], each["text"])
        seen.setdefault(each["job_id"], []).append(step)
    expected = [("asked", "main", "helper", "echo"), ("answered", "helper", "main", "completed")]
    assert list(seen.values()) == [expected] * 4
    assert ("hunter2" in json.dumps(told)) == payloads


async def test_an_output_that_nobody_reads_any_more_ends_the_command() -> None:
    """O8: quietly."""
    async with (
        running(Helper("helper")) as runner,
        serve_view(runner, port=0) as view,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(keep_asking, runner)
        reading, writing = os.pipe()
        with commands.start("tail", view.url, out=writing) as process:
            os.close(writing)
            await anyio.to_thread.run_sync(os.read, reading, 10)
            os.close(reading)
            _, said = await anyio.to_thread.run_sync(process.communicate)
        tasks.cancel_scope.cancel()
    assert (process.returncode, said) == (BROKEN_PIPE, "")


async def test_payloads_that_a_view_does_not_tell_are_refused_in_one_line() -> None:
    """O3, O8: in the words of the view."""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0) as view:
        with pytest.raises(CommandError, match=r"answers 403: this view tells no payloads") as caught:
            await follow(passing(view.url, payloads=True), Writer(EVERYTHING, None, objects))
    assert "\n" not in str(caught.value)


async def test_nobody_there_ends_it() -> None:
    """O8"""
    with pytest.raises(CommandError, match=r"there is no view at http://127.0.0.1:1: Connection refused"):
        await follow(passing("http://127.0.0.1:1/"), Writer(EVERYTHING, None, objects))


async def test_what_passes_is_shown_again_when_the_view_is_back(capsys: pytest.CaptureFixture[str]) -> None:
    """O8: standard error says when it was lost, and when it is back."""
    lines, said = list[Mapping[str, Any]](), list[str]()

    async def told(condition: Callable[[], object]) -> None:
        while not condition():
            await anyio.sleep(0.02)
            out, err = capsys.readouterr()
            lines.extend(map(json.loads, out.splitlines()))
            said.extend(err.splitlines())

    async with anyio.create_task_group() as tasks:
        async with running(Helper("helper"), name="main") as runner, serve_view(runner, port=0) as view:
            url = view.url
            async with anyio.create_task_group() as asking:
                asking.start_soon(keep_asking, runner)
                tasks.start_soon(follow, passing(url), Writer(EVERYTHING, None, objects))
                await told(lambda: lines)
                asking.cancel_scope.cancel()
        await told(lambda: said)
        lines.clear()
        port = int(url.rstrip("/").rpartition(":")[2])
        async with running(Helper("helper"), name="other") as runner, serve_view(runner, port=port):
            async with anyio.create_task_group() as asking:
                asking.start_soon(keep_asking, runner)
                await told(lambda: any(each["source"] == "other" for each in lines))
                asking.cancel_scope.cancel()
            tasks.cancel_scope.cancel()
    shown = url.rstrip("/")
    assert said[0].startswith(f"workerbus: {shown} is lost: ")
    assert said[1:] == [f"workerbus: {shown} is back"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_events_are_read_whatever_the_pieces_are_in_which_they_come(size: int) -> None:
    """O8: the end of one may be cut in two, and several may come at once."""
    expected = [("state", {"n": number, "text": "a\n\nb" * number}) for number in range(5)]
    told = b"".join(b"event: %s\ndata: %s\n\n" % (kind.encode(), json.dumps(data).encode()) for kind, data in expected)
    pieces = [told[at : at + size] for at in range(0, len(told), size)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def tell(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces))

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, tell)
        url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        async with connected(Address(url, is_bus=False, token=None, prefix="")) as client:
            await client.follow("api/events")
            assert [await client.next_event() for _ in expected] == expected
        tasks.cancel_scope.cancel()
