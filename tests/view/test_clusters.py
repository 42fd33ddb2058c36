"""L1, O3, O4, O5, O7: a view of all processes on a network: what it says, and when it asks whom."""

import json
from typing import Any

import anyio
import pytest

from support.browsers import CHROMIUM, WHY_NOT, Browser, chromium
from support.conditions import until
from support.leaks import task_ids
from support.screens import opened
from support.web_clients import connected, fetch, watching
from support.workers import Helper, running
from workerbus import BaseWorker, BusJobRequestMessage, JobError, MemoryBus, PeerBus, WorkerRunner, job
from workerbus.testing import PeerNetwork
from workerbus.view import UnprotectedViewError, serve_view
from workerbus.wire import Wire

SECRET = "xyzzy-payload"


class Parent(BaseWorker):
    @job(name="nested")
    async def nested(self, message: BusJobRequestMessage) -> None:
        await self.job("helper", name="echo", payload={"secret": SECRET})


def network() -> PeerNetwork:
    return PeerNetwork(wire=Wire())


def taps(*runners: WorkerRunner) -> list[int]:
    return [len(runner.bus._taps) for runner in runners]


@pytest.mark.slow
async def test_the_view_of_a_network_shows_every_process() -> None:
    """O7: numbers are those of each one's statistics; while nobody looks nobody is asked."""
    net = network()
    async with (
        running(Helper("helper"), name="two", bus=net.end("two")) as second,
        running(Parent("parent"), name="one", bus=net.end("one")) as first,
        serve_view(net.end("view"), port=0, name="kitchen") as view,
    ):
        await first.registry.wait_for("helper")
        assert taps(first, second) == [0, 0]
        async with watching(view.url) as page:
            await page.until(lambda state: set(state["workers"]) == {"parent", "helper"})
            assert taps(first, second) == [1, 1]
            async with second.job("parent", name="nested") as asked:
                pass
            await page.until(lambda state: state["about"]["answered_completed"] == 2)
            for runner in (first, second):
                row = page.state["runners"][runner.name]
                assert row["requested"] == runner.statistics().jobs_requested
            assert (page.state["about"]["runner"], page.state["about"]["cluster"]) == ("kitchen", True)
            story: dict[str, Any] = {"steps": []}
            while len(story["steps"]) < 4:
                story = (await fetch(view.url, f"/api/jobs/{asked.job_id}")).json
            assert story["places"] == {"two": "two", "parent": "one", "helper": "two"}
            assert SECRET not in json.dumps([page.state, story])
        await until(lambda: taps(first, second) == [0, 0])
        state = (await fetch(view.url, "/api/state")).json
        assert state["workers"]["parent"]["completed"] == 1
        assert taps(first, second) == [0, 0]


async def test_messages_are_told_as_they_pass() -> None:
    """O3, O7: of a runner of this process, and of a network; payloads only where the view was told to tell them."""
    net = network()
    async with (
        running(Helper("helper"), name="one", bus=net.end("one"), observable="payloads") as runner,
        serve_view(net.end("view"), port=0, payloads=True) as view,
        serve_view(runner, port=0) as own,
    ):
        async with connected(view.url) as told, connected(own.url) as modest:
            for client, path in ((told, "/api/messages?payloads=1"), (modest, "/api/messages")):
                assert (await client.begin(path)).status == 200
            await until(lambda: taps(runner) == [2])
            await runner.job("helper", name="echo", payload={"n": 1})
            for client, payload in ((told, '{"n": 1}'), (modest, None)):
                text = ""
                while "completed" not in text:
                    event: Any = await client.next()
                    text += event.data.decode()
                batches = [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line[:5] == "data:"]
                passed = [each for batch in batches for each in batch["messages"]]
                assert [(each[4], each[-1]) for each in passed if each[2] == "asked"] == [("helper", payload)]
        assert (await fetch(own.url, "/api/messages?payloads=1")).status == 403
        await until(lambda: taps(runner) == [0])


async def test_the_probes_tell_of_the_bus() -> None:
    """O4, O7: without a token."""
    net = network()
    bus = net.end("view")
    async with serve_view(bus, port=0, token="secret") as view:
        assert [(await fetch(view.url, path)).status for path in ("/healthz", "/readyz", "/api/state")] == [
            200,
            200,
            401,
        ]
        assert bus.is_open
    assert not bus.is_open


async def test_nothing_is_left_of_the_view_of_a_network() -> None:
    """L1: also where its address is taken, or its bus cannot be opened."""
    net = network()
    before = task_ids()
    async with serve_view(net.end("view"), port=0) as view, watching(view.url) as page:
        await page.next()
        port = int(view.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await serve_view(net.end("another"), port=port).__aenter__()
    await until(lambda: task_ids() == before)

    class Broken(MemoryBus):
        """Not even a bus with peers."""

    broken: Any = Broken()
    with pytest.raises(TypeError, match="PeerBus"):
        serve_view(broken)
    with pytest.raises(UnprotectedViewError):
        serve_view(net.end("open"), host="0.0.0.0")
    refusing = _Refusing(net.end("refusing"))
    with pytest.raises(ConnectionError, match="no network"):
        await serve_view(refusing.bus, port=0).__aenter__()
    await until(lambda: task_ids() == before)


async def test_a_view_whose_network_is_not_reached_in_time_leaves_its_address() -> None:
    """L1, L3"""
    bus = network().end("view")
    bus.start = anyio.sleep_forever  # type: ignore[method-assign]  # as a server that does not answer
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
    with anyio.move_on_after(0.1):
        await serve_view(bus, port=port).__aenter__()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port):
        pass


class _Refusing:
    def __init__(self, bus: PeerBus) -> None:
        self.bus = bus

        async def start() -> None:
            raise ConnectionError("no network")

        bus.start = start  # type: ignore[method-assign]  # as a server that is not there


async def test_what_the_body_raises_comes_out_of_the_view_of_a_network() -> None:
    """L3, L6"""
    with pytest.raises(KeyError, match="mine"):
        async with serve_view(network().end("view"), port=0):
            raise KeyError("mine")
    with anyio.CancelScope() as scope:
        async with serve_view(network().end("view"), port=0):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.fixture(scope="module")
def browser() -> Any:
    with chromium() as browser:
        yield browser


ROWS = """[...document.querySelectorAll('#workers .row:not([hidden])')].map((row) =>
    [row.getAttribute('aria-level'), row.querySelector('.text').textContent])"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
async def test_the_page_shows_the_processes_apart(browser: Browser) -> None:
    """O7: as a tree of processes, runners, workers and children; and a job's way through them."""
    net = network()
    helper = Helper("helper")
    async with (
        running(helper, name="two", bus=net.end("two")) as second,
        running(Parent("parent"), name="one", bus=net.end("one")) as first,
        serve_view(net.end("view"), port=0, name="kitchen") as view,
    ):
        await first.registry.wait_for("helper")
        await helper.add_workers(Helper("child"))
        screen = await opened(browser, view)
        await screen.until(f"({ROWS}).length === 6")
        rows = await screen.value(ROWS)
        assert rows[0][0] == "1"
        assert rows[1:] == [["2", "one"], ["3", "parent"], ["2", "two"], ["3", "helper"], ["4", "child"]]
        assert await screen.value("document.getElementById('runner').textContent") == "kitchen"
        with pytest.raises(JobError):
            await first.job("helper", name="fail")
        await screen.until("document.querySelector('#errors .text')?.textContent.startsWith('two: ')")
        async with first.job("helper", name="wait"):
            await screen.until("document.querySelectorAll('#jobs .row:not([hidden])').length === 1")
            await screen.value("document.querySelector('#jobs .row').click()")
            await screen.until("document.querySelector('#detail svg')?.textContent.includes('at two')")
            await screen.value("document.getElementById('detail').close()")
            helper.release.set()
        await screen.value("[...document.querySelectorAll('#workers .row')][3].click()")
        await screen.until("document.querySelector('#detail[open]')?.textContent.includes('connected')")
        await screen.value("document.getElementById('detail').close()")
        await second.end()
        await screen.until(f"!({ROWS}).some(([, name]) => name === 'two')")
        await screen.close()
