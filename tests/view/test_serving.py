"""L1, O3, O4: what a view says, to whom, and for how long."""

import json
import logging
import socket
import subprocess
import sys
from typing import Any
from urllib.request import ProxyHandler, build_opener

import anyio
import pytest
from anyio import to_thread

from support.conditions import until
from support.leaks import task_ids
from support.messages import note
from support.web_clients import connected, fetch, watching
from support.workers import Helper, running
from workerbus import (
    BaseWorker,
    BusJobRequestMessage,
    JobError,
    JobStatus,
    MemoryBus,
    NotRunningError,
    WorkerPool,
    WorkerRunner,
    job,
)
from workerbus.runner._notes import ROOM
from workerbus.view import serve_view
from workerbus.view._observer import HEARTBEAT

SECRET = "xyzzy-payload"


class Parent(BaseWorker):
    @job(name="nested")
    async def nested(self, message: BusJobRequestMessage) -> None:
        await self.job("helper", name="echo", payload={"secret": SECRET})


def taps(runner: WorkerRunner) -> int:
    return len(runner.bus._taps)


async def test_what_the_view_says_is_what_the_statistics_say() -> None:
    """O2, O4: of every worker, the sums, and each job in flight."""
    helper = Helper("helper")
    async with running(helper, Helper("idle", active=False), name="main") as runner, serve_view(runner, port=0) as view:
        await runner.job("helper", name="echo")
        with pytest.raises(JobError):
            await runner.job("helper", name="fail")
        async with runner.job("helper", name="wait", timeout=10):
            await helper.begun.wait()
            said, seen = (await fetch(view.url, "/api/state")).json, runner.statistics()
            helper.release.set()
    assert said["workers"].keys() == seen.workers.keys()
    for name, worker in seen.workers.items():
        row = said["workers"][name]
        assert (row["phase"], row["parent"], row["active"]) == (worker.phase, worker.parent, worker.active)
        assert {status: row[status] for status in worker.jobs_answered} == worker.jobs_answered
        assert (row["jobs"], {lane: row[lane] for lane in worker.lanes}) == (len(worker.jobs), worker.lanes)
        assert (row["requested"], row["hooks_failed"]) == (worker.jobs_requested, worker.hooks_failed)
    about = said["about"]
    assert (about["runner"], about["jobs"], about["requested"]) == ("main", 1, seen.jobs_requested)
    assert {status: about[f"answered_{status}"] for status in seen.jobs_answered} == seen.jobs_answered
    (asked,) = seen.workers["helper"].jobs
    (row,) = said["jobs"].values()
    assert (row["id"], row["name"], row["requester"], row["state"]) == (asked.job_id, "wait", "main", "running")
    assert 9 < row["until"] - row["begun"] <= 10.001


async def test_a_real_http_client_gets_the_page_and_its_files() -> None:
    """O4: all are there, and nothing is loaded from elsewhere."""
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0) as view:
        opener = build_opener(ProxyHandler({}))

        def get(path: str) -> tuple[str, str]:
            with opener.open(view.url + path, timeout=60) as answer:
                return answer.headers["content-type"], answer.read().decode()

        kinds = {}
        for path in ("", "view.css", "view.js", "lists.js", "drawing.js", "icon.svg"):
            kinds[path], text = await to_thread.run_sync(get, path)
            assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")
            assert "innerHTML" not in text
        _, state = await to_thread.run_sync(get, "api/state")
    assert kinds[""] == "text/html; charset=utf-8"
    assert kinds["view.js"] == "text/javascript; charset=utf-8"
    assert json.loads(state)["about"]["runner"] == runner.name


async def test_a_worker_comes_and_goes() -> None:
    """O4: who looks is told of the difference alone."""
    async with running(Helper("first")) as runner, serve_view(runner, port=0) as view, watching(view.url) as page:
        await page.until(lambda state: set(state["workers"]) == {"first"})
        await runner.add_workers(Helper("second"), wait=True)
        await page.until(lambda state: state["workers"].get("second", {}).get("phase") == "running")
        second = runner.get_worker("second")
        assert second is not None
        await second.stop()
        await page.until(lambda state: set(state["workers"]) == {"first"})
    assert set(page.kinds[1:]) == {"changes"}


async def test_who_looks_again_gets_the_whole_state() -> None:
    """O4: whatever it has seen last."""
    async with running(Helper("first")) as runner, serve_view(runner, port=0) as view:
        async with watching(view.url) as page:
            assert (await page.next())[0] == "state"
        await runner.add_workers(Helper("second"), wait=True)
        async with watching(view.url, {"Last-Event-ID": "1"}) as page:
            await page.until(lambda state: set(state["workers"]) == {"first", "second"})
    assert page.kinds[0] == "state"


async def test_a_page_finds_the_view_of_the_next_program_at_the_same_address() -> None:
    """O4: a server that was started anew."""
    async with running(Helper("a")) as runner, serve_view(runner, port=0) as view:
        port = int(view.url.rstrip("/").rpartition(":")[2])
        async with watching(view.url) as page:
            await page.next()
    async with running(Helper("b")) as runner, serve_view(runner, port=port) as view, watching(view.url) as page:
        await page.until(lambda state: set(state["workers"]) == {"b"})


async def test_two_that_look_see_the_same() -> None:
    """O4"""
    async with (
        running(Helper("helper")) as runner,
        serve_view(runner, port=0) as view,
        watching(view.url) as one,
        watching(view.url) as other,
    ):
        await one.next()
        await other.next()
        await runner.job("helper", name="echo")
        for page in (one, other):
            await page.until(lambda state: state["workers"]["helper"]["completed"] == 1)


async def test_while_nobody_looks_nothing_is_tapped() -> None:
    """O4: and after the last one has left, without a word, nothing again."""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0) as view:
        await fetch(view.url, "/api/state")
        assert taps(runner) == 0
        async with watching(view.url) as page:
            await page.next()
            assert taps(runner) == 1
        await until(lambda: taps(runner) == 0)
        async with watching(view.url) as page:
            assert (await page.next())[0] == "state"
            assert taps(runner) == 1


async def test_nothing_is_left_of_a_view() -> None:
    """L1: no task, tap, handler of logs or open port, though somebody looks and others wait."""
    async with running(Helper("helper")) as runner:
        before, handlers = task_ids(), list(logging.getLogger("workerbus").handlers)
        async with connected_twice(runner) as view:
            pass
        await until(lambda: task_ids() == before)
        assert taps(runner) == 0
        assert logging.getLogger("workerbus").handlers == handlers
        with pytest.raises(OSError, match="All connection attempts failed"):
            await fetch(view.url)


class connected_twice:  # noqa: N801 - a context manager
    """A view with somebody who looks, and somebody who says nothing."""

    def __init__(self, runner: WorkerRunner) -> None:
        self._view = serve_view(runner, port=0)

    async def __aenter__(self) -> Any:
        await self._view.__aenter__()
        self._page, self._silent = watching(self._view.url), connected(self._view.url)
        events = await self._page.__aenter__()
        await events.next()
        await self._silent.__aenter__()
        return self._view

    async def __aexit__(self, *_: object) -> None:
        await self._view.__aexit__(None, None, None)
        await self._silent.__aexit__(None, None, None)
        await self._page.__aexit__(None, None, None)


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    """L6"""
    runner = WorkerRunner()
    with pytest.raises(KeyError, match="mine"):
        async with serve_view(runner, port=0):
            raise KeyError("mine")


async def test_a_cancelled_body_ends_the_view() -> None:
    """L3"""
    with anyio.CancelScope() as scope:
        async with serve_view(WorkerRunner(), port=0) as view:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(OSError, match="All connection attempts failed"):
        await fetch(view.url)


async def test_a_cancelled_body_leaves_every_address_of_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """L1, L3: a name may stand for several."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as free:
        port = free.extra(anyio.abc.SocketAttribute.local_port)
    both = ["127.0.0.1", "127.0.0.2"]
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)) for address in both]
    with anyio.CancelScope() as scope:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            view = serve_view(WorkerRunner(), port=port, host="localhost")
            await view.__aenter__()
        try:
            scope.cancel()
            await anyio.sleep_forever()
        finally:
            await view.__aexit__(None, None, None)
    assert scope.cancelled_caught
    for address in both:
        async with await anyio.create_tcp_listener(local_host=address, local_port=port):
            pass


async def test_a_view_looks_no_more_though_its_address_cannot_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """L1"""

    async def refuse() -> None:
        await aclose()
        raise OSError("not now")

    async with running(Helper("helper")) as runner:
        handlers = list(logging.getLogger("workerbus").handlers)
        view = serve_view(runner, port=0)
        await view.__aenter__()
        aclose = view._listener.aclose
        monkeypatch.setattr(view._listener, "aclose", refuse)
        with pytest.raises(OSError, match="not now"):
            await view.__aexit__(None, None, None)
        assert logging.getLogger("workerbus").handlers == handlers


async def test_a_view_is_served_once() -> None:
    """O4: an address is known from then on, and one that is taken is told of."""
    view = serve_view(WorkerRunner(), port=0)
    with pytest.raises(NotRunningError):
        _ = view.url
    async with view:
        port = int(view.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await serve_view(WorkerRunner(), port=port).__aenter__()
    with pytest.raises(NotRunningError):
        await view.__aenter__()


async def test_the_story_of_a_job_tells_who_asked_whom() -> None:
    """O4: with the job that was asked for in it; not a word of a payload (O3)."""
    async with running(Helper("helper"), Parent("parent")) as runner, serve_view(runner, port=0) as view:
        async with watching(view.url) as page:
            await page.next()
            async with runner.job("parent", name="nested", payload={"secret": SECRET}) as asked:
                pass
            story = (await fetch(view.url, f"/api/jobs/{asked.job_id}")).json
            await page.until(lambda state: state["workers"]["parent"]["completed"] == 1)
            everything = json.dumps([story, page.state])
        gone = await fetch(view.url, "/api/jobs/none")
    steps = [(kind, source, target) for _, kind, source, target, _, _ in story["steps"]]
    me = runner.name
    assert steps == [
        ("asked", me, "parent"),
        ("asked", "parent", "helper"),
        ("answered", "helper", "parent"),
        ("answered", "parent", me),
    ]
    assert [(each["name"], each["requester"]) for each in story["nested"]] == [("echo", "parent")]
    assert SECRET not in everything
    assert gone.status == 404


@pytest.mark.slow
async def test_rates_and_latencies_become_points_of_curves() -> None:
    """O4: one each second."""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0) as view, watching(view.url) as page:
        await page.next()
        with anyio.move_on_after(10):
            while not page.state["curves"]:
                await runner.job("helper", name="echo")
                with anyio.move_on_after(0.01):
                    await page.next()
    (_, messages, jobs, half, most, _) = page.state["curves"]["1"]
    assert 2 * (jobs - 1) <= messages  # the request of one may have been sent before the second began
    assert 0 < half <= most


@pytest.mark.slow
async def test_it_is_said_when_more_passes_than_is_noted() -> None:
    """O4: and no more, when it does not any more; counts and rates have all of it."""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0) as view, watching(view.url) as page:
        await page.until(lambda state: not state["about"]["sampled"])
        await runner.job("helper", name="echo")
        for number in range(3 * ROOM):
            await runner.bus.send(note(number))
        await runner.job("helper", name="echo")
        await page.until(lambda state: state["about"]["sampled"])
        await page.until(lambda state: state["workers"]["helper"]["completed"] == 2)
        await page.until(lambda state: any(messages for _, messages, *_ in state["curves"].values()))
        await page.until(lambda state: not state["about"]["sampled"])


async def test_a_pool_shows_its_members() -> None:
    """O4, S2: what a member has answered is shown at it, though it answers in the pool's name."""
    pool = WorkerPool("pool", Helper, size=2)
    async with running(pool) as runner, serve_view(runner, port=0) as view:
        await runner.job("pool", name="echo")
        workers = (await fetch(view.url, "/api/state")).json["workers"]
        members = pool.statistics().members
    assert workers["pool"]["pool"] == [2, 0]
    for name, member in members.items():
        assert workers[name]["completed"] == member.answered.get(JobStatus.COMPLETED, 0)
    assert sum(workers[name]["completed"] for name in members) == 1
    assert all(workers[name]["parent"] == "pool" for name in members)


async def test_an_error_is_shown_with_its_traceback() -> None:
    """O4, R8"""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0) as view:
        with pytest.raises(JobError):
            await runner.job("helper", name="fail")
        (error,) = (await fetch(view.url, "/api/state")).json["errors"].values()
    _, text, worker, _, traceback, runner_name = error
    assert runner_name == runner.name
    assert "helper" in text
    assert worker == "helper"
    assert traceback.endswith("ValueError: it went wrong\n")


async def test_workers_of_other_runners_are_shown_under_these() -> None:
    """O4, R6"""
    async with (
        MemoryBus() as bus,
        running(Helper("here"), name="one", bus=bus) as runner,
        running(Helper("there"), name="two", bus=bus),
        serve_view(runner, port=0) as view,
    ):
        assert (await fetch(view.url, "/api/state")).json["others"] == {"there": "two"}


async def test_probes_are_answered_by_the_health_of_the_runner() -> None:
    """O2, O4: without a token, and without a word of what runs."""
    runner = WorkerRunner(handle_sigint=False)
    async with serve_view(runner, port=0, token="secret") as view:

        async def probed() -> list[tuple[int, bytes]]:
            replies = [await fetch(view.url, path) for path in ("/healthz", "/readyz")]
            return [(reply.status, reply.body) for reply in replies]

        assert await probed() == [(200, b"live\n"), (503, b"not ready\n")]
        async with runner:
            await runner.add_workers(Helper("helper"), wait=True)
            assert await probed() == [(200, b"live\n"), (200, b"ready\n")]
        assert await probed() == [(503, b"not live\n"), (503, b"not ready\n")]


WITHOUT = """
import sys
sys.modules["h11"] = None
from workerbus import MissingExtraError, WorkerRunner
from workerbus.view import serve_view
try:
    serve_view(WorkerRunner())
except MissingExtraError as error:
    print(error)
"""


def test_without_the_extra_it_is_said_what_to_install() -> None:
    """O4: and nothing else of the library needs it."""
    ended = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert ended.stdout == "views need h11: pip install 'workerbus[view]'\n"


def test_a_heartbeat_comes_before_proxies_give_up() -> None:
    """O4: most wait for a minute."""
    assert HEARTBEAT < 60
