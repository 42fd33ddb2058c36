"""O3, O4, O5: the page, in a real Chromium."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio import to_thread
from anyio.abc import SocketAttribute, SocketStream

from support.browsers import CHROMIUM, WHY_NOT, Browser, chromium
from support.screens import Screen, opened
from support.workers import Helper, running
from workerbus import BaseWorker, BusJobRequestMessage, JobError, WorkerPool, job
from workerbus.view import serve_view

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)]

SECRET = "xyzzy-payload"
HOSTILE = "<img src=x onerror=alert(1)>"


class Parent(BaseWorker):
    @job(name="nested")
    async def nested(self, message: BusJobRequestMessage) -> None:
        await self.job("helper", name="echo", payload={"secret": SECRET})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


TILE = """[...document.querySelectorAll('.tile')].find((tile) => tile.textContent.startsWith({0!r}))
    .querySelector('.value').textContent"""
LAST = "document.querySelector('#errors .last')?.textContent"
ROWS = """[...document.querySelectorAll('#workers .row:not([hidden])')].map((row) =>
    [row.querySelector('.text').textContent, ...[...row.children].slice(1).map((cell) => cell.textContent)])"""


async def test_the_page_shows_what_the_statistics_say(browser: Browser) -> None:
    """O2, O4: numbers, workers, and jobs in flight; no payload (O3)."""
    helper = Helper("helper")
    workers = (helper, Parent("parent"), Helper("idle", active=False))
    async with running(*workers, name="main") as runner, serve_view(runner, port=0) as view:
        screen = await opened(browser, view)
        for _ in range(3):
            await runner.job("parent", name="nested", payload={"secret": SECRET})
        with pytest.raises(JobError):
            await runner.job("helper", name="fail")
        async with runner.job("helper", name="wait", payload={"secret": SECRET}):
            await helper.begun.wait()
            await screen.until("document.querySelectorAll('#jobs .row:not([hidden])').length === 1")
            await screen.until(f"{TILE.format('In flight')} === '1'")
            seen = runner.statistics()
            rows = {name: numbers for name, *numbers in await screen.value(ROWS)}
            for name, worker in seen.workers.items():
                done, *others = worker.jobs_answered.values()
                assert rows[name][:4] == [str(len(worker.jobs)), "0", str(done), str(sum(others))]
            assert await screen.value(TILE.format("Workers")) == str(len(seen.workers))
            assert await screen.value(TILE.format("Failed")) == "1"
            row = await screen.value("document.querySelector('#jobs .row').textContent")
            assert "wait" in row
            assert "main" in row
            await screen.until(f"{LAST} === 'ValueError: it went wrong'")
            assert SECRET not in await screen.value("document.documentElement.outerHTML")
            helper.release.set()
        await screen.until("document.querySelectorAll('#jobs .row:not([hidden])').length === 0")
        await screen.close()


async def test_a_worker_comes_and_goes_on_the_page(browser: Browser) -> None:
    """O4"""
    async with running(Helper("first")) as runner, serve_view(runner, port=0) as view:
        screen = await opened(browser, view)
        await runner.add_workers(Helper("second"), wait=True)
        await screen.until(f"({ROWS}).some(([name]) => name === 'second')")
        second = runner.get_worker("second")
        assert second is not None
        await second.stop()
        await screen.until(f"!({ROWS}).some(([name]) => name === 'second')")
        await screen.close()


async def test_the_page_comes_back_by_itself_when_the_program_does(browser: Browser) -> None:
    """O4: it says that it is alone meanwhile."""
    async with running(Helper("before")) as runner, serve_view(runner, port=0) as view:
        port = int(view.url.rstrip("/").rpartition(":")[2])
        screen = await opened(browser, view)
        await screen.until(f"({ROWS}).some(([name]) => name === 'before')")
    await screen.until("document.querySelector('#link.lost')")
    async with running(Helper("after")) as runner, serve_view(runner, port=port):
        await screen.until("document.querySelector('#link.live')")
        await screen.until(f"({ROWS}).some(([name]) => name === 'after')")
        assert not await screen.value(f"({ROWS}).some(([name]) => name === 'before')")
        await screen.close()


async def test_a_thousand_workers_are_shown_by_a_few_rows(browser: Browser) -> None:
    """O4: those that can be seen; the last one is a key away, and no frame takes long."""
    workers = [Helper(f"worker-{number}") for number in range(1000)]
    async with running(*workers) as runner, serve_view(runner, port=0) as view:
        screen = await opened(browser, view)
        await screen.until("document.getElementById('workers-count').textContent === '1000'")
        assert await screen.value("document.querySelectorAll('#workers .row').length") < 60
        await screen.value("document.getElementById('workers').focus()")
        await screen.press("End")
        await screen.until(f"({ROWS}).some(([name]) => name === 'worker-999')")
        await screen.picture("thousand")
        for number in range(1000):
            await runner.job(f"worker-{number}", name="echo")
        await screen.until(f"({ROWS}).every(([name, jobs, waiting, done]) => name === 'main' || done === '1')")
        await screen.until(f"{TILE.format('Workers')} === '1000'")
        await screen.close()


async def test_the_jobs_of_a_pool_are_in_one_line_of_the_last_minute(browser: Browser) -> None:
    """O4: those that are done, and those in flight, whoever of the members has them."""
    begun, release = anyio.Event(), anyio.Event()

    class Member(BaseWorker):
        @job(name="hold")
        async def hold(self, message: BusJobRequestMessage) -> None:
            begun.set()
            await release.wait()

        @job(name="echo")
        async def echo(self, message: BusJobRequestMessage) -> None:
            pass

    async with running(WorkerPool("pool", Member, size=2), name="main") as runner, serve_view(runner, port=0) as view:
        screen = await opened(browser, view)
        await runner.job("pool", name="echo")
        async with runner.job("pool", name="hold", timeout=15):
            await begun.wait()
            label = "document.getElementById('timeline').getAttribute('aria-label')"
            await screen.until(f"{label} === 'Jobs of the last minute, by worker: pool 2'")
            release.set()
        await screen.until(f"{label} === 'Jobs of the last minute, by worker: pool 2'")
        await screen.close()


async def test_the_story_of_a_job_opens_with_a_key(browser: Browser) -> None:
    """O4: as a sequence; the filter and the keys work without a mouse."""
    helper = Helper("helper")
    async with running(helper, Parent("parent"), name="main") as runner, serve_view(runner, port=0) as view:
        screen = await opened(browser, view)
        async with runner.job("helper", name="wait", timeout=15):
            await helper.begun.wait()
            await screen.until("document.querySelectorAll('#jobs .row:not([hidden])').length === 1")
            for key in ("2", "ArrowDown", "Enter"):
                await screen.press(key)
            await screen.until("document.querySelector('#detail[open] svg')")
            assert "asks for wait" in await screen.value("document.querySelector('#detail svg').textContent")
            helper.release.set()
        await screen.until("document.querySelector('#detail svg').textContent.includes('completed')")
        await screen.value("document.getElementById('detail').close()")
        await screen.press("/")
        assert await screen.value("document.activeElement.id") == "filter"
        for letter in "PAR":
            await screen.press(letter, letter)
        assert [row[0] for row in await screen.value(ROWS)] == ["main", "parent"]
        await screen.press("Escape")
        assert len(await screen.value(ROWS)) == 3
        await screen.close()


async def test_nothing_that_a_program_says_becomes_a_part_of_the_page(browser: Browser) -> None:
    """O5: names, jobs and errors are text."""

    class Hostile(Helper):
        @job(name=HOSTILE)
        async def hostile(self, message: BusJobRequestMessage) -> None:
            raise ValueError(HOSTILE)

    async with running(Hostile(HOSTILE), name=f"runner {HOSTILE}") as runner, serve_view(runner, port=0) as view:
        screen = await opened(browser, view)
        with pytest.raises(JobError):
            await runner.job(HOSTILE, name=HOSTILE)
        await screen.until("document.querySelector('#errors .last')")
        await screen.value("document.querySelector('#workers .row:nth-child(2)').click()")
        assert await screen.value("document.querySelector('#detail[open] h2').textContent") == HOSTILE
        assert await screen.value("document.querySelectorAll('img').length") == 1  # the page's own
        await screen.close()


@pytest.mark.parametrize("width", [360, 860, 1180, 1440, 3840])
async def test_the_page_fits_every_screen(width: int, browser: Browser) -> None:
    """O4: nothing is wider than the screen, in either colour scheme."""
    workers = [Helper(f"a-worker-with-a-rather-long-name-{n}") for n in range(40)]
    async with running(*workers, name="n" * 60) as runner, serve_view(runner, port=0) as view:
        screen = await opened(browser, view)
        await screen.resize(width, 800)
        for pane in ("workers", "jobs", "timeline", "errors"):
            await screen.value(f"document.querySelector('[data-show={pane}]').click()")
            assert await screen.value("document.documentElement.scrollWidth") <= width
            assert await screen.value(f"document.getElementById('pane-{pane}').offsetWidth") > 0
        await screen.close()


async def test_a_token_is_given_once_and_leaves_the_address(backend: str, browser: Browser) -> None:
    """O5: without it the page is not there."""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0, token=f"se cret&{backend}") as view:
        bare = Screen(await to_thread.run_sync(browser.open, view.url))
        await bare.until("document.body?.textContent.includes('token')")
        assert await bare.value("document.querySelector('#workers')") is None
        screen = await opened(browser, view, f"?token=se%20cret%26{backend}")
        assert await screen.value("location.search") == ""
        await screen.until(f"({ROWS}).some(([name]) => name === 'helper')")
        await screen.close()
        await bare.close()


@asynccontextmanager
async def another_page() -> AsyncIterator[str]:
    """A page of somebody else's, on this machine; gives its address."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<p>other</p>")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield f"http://localhost:{listener.extra(SocketAttribute.local_port)}/"
        tasks.cancel_scope.cancel()


async def test_another_page_in_the_same_browser_sees_nothing(browser: Browser) -> None:
    """O5: by no request, and no stream of events."""
    async with running(Helper("helper")) as runner, serve_view(runner, port=0) as view, another_page() as url:
        evil = Screen(await to_thread.run_sync(browser.open, url))
        await evil.until("document.querySelector('p')")
        state, events = json.dumps(f"{view.url}api/state"), json.dumps(f"{view.url}api/events")
        assert await evil.value(f"fetch({state}).then((a) => a.text(), () => 'nothing')") == "nothing"
        plain = f"fetch({state}, {{mode: 'no-cors'}}).then((a) => a.text(), () => 'nothing')"
        assert await evil.value(plain) in ("", "nothing")
        listening = f"""new Promise((done) => {{
            const source = new EventSource({events});
            source.onerror = () => done('nothing');
            source.addEventListener('state', () => done('all'));
        }})"""
        assert await evil.value(listening) == "nothing"
