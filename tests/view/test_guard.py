"""O5: who may see a view, and who gets nothing of it."""

import copy
import pickle

import pytest

from support.web_clients import Reply, fetch
from workerbus import WorkerRunner
from workerbus.view import UnprotectedViewError, serve_view
from workerbus.view._guard import Guard
from workerbus.view._http import Request

TOKEN = "a-token-that-nobody-guesses"
PATHS = ["/", "/view.js", "/api/state", "/api/events", "/api/jobs/1", "/nothing"]


def asked(path: str = "/", method: str = "GET", **headers: str) -> Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, {"host": "127.0.0.1:8765", **names})


def status(guard: Guard, request: Request) -> int:
    """The status of a refusal; 200 for who is let in."""
    refusal = guard.refusal(request)
    return 200 if refusal is None else refusal.status


def is_bare(reply: Reply) -> bool:
    """Whether there is nothing of a runner in a reply."""
    return len(reply.body) < 100 and b"{" not in reply.body


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org", ""])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    """O5: refused before anything is served."""
    with pytest.raises(UnprotectedViewError, match="token") as caught:
        serve_view(WorkerRunner(), host=host)
    for again in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert (again.host, str(again)) == (host, str(caught.value))
    serve_view(WorkerRunner(), host=host, token=TOKEN)


def test_an_empty_token_is_none() -> None:
    """O5: it would let everybody in."""
    with pytest.raises(ValueError, match="empty"):
        serve_view(WorkerRunner(), token="")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.1", "", "a@b"])
async def test_a_forged_host_gets_nothing(host: str) -> None:
    """O5: a name that a page was served under may have come to mean this address."""
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0) as view:
        for path in PATHS:
            reply = await fetch(view.url, path, headers={"Host": host})
            assert reply.status == 421
            assert is_bare(reply)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:9", "[::1]:87", "view.example", "other.example", "MINE:1"],
)
def test_names_of_this_address_are_let_in(host: str) -> None:
    """O5: by any port, since one may have come through a tunnel; others where they are listed."""
    guard = Guard("127.0.0.1", None, iter(["view.example", "Other.Example", "mine"]))
    assert status(guard, asked(host=host)) == 200


def test_plain_addresses_are_let_in_where_others_reach_it() -> None:
    """O5: no page can be served under another name and that one."""
    guard = Guard("0.0.0.0", TOKEN, [])
    assert status(guard, asked(host="192.168.1.2:8765", authorization=f"Bearer {TOKEN}")) == 200
    assert status(guard, asked(host="evil.example", authorization=f"Bearer {TOKEN}")) == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_a_view_is_only_read(method: str) -> None:
    """O5"""
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0) as view:
        for path in PATHS:
            reply = await fetch(view.url, path, method)
            assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
            assert is_bare(reply)


CROSS = [
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
]


@pytest.mark.parametrize("headers", CROSS)
async def test_another_page_gets_nothing(headers: dict[str, str]) -> None:
    """O5: by what a browser says of where a request comes from."""
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0) as view:
        for path in PATHS:
            reply = await fetch(view.url, path, headers=headers)
            assert reply.status == 403
            assert is_bare(reply)


def test_a_link_leads_to_the_page_and_to_nothing_else() -> None:
    """O5: the page alone has nothing in it."""
    guard = Guard("127.0.0.1", None, [])
    followed = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert status(guard, asked("/", **followed)) == 200
    assert status(guard, asked("/api/state", **followed)) == 403


def test_the_page_itself_is_let_in() -> None:
    """O5"""
    guard = Guard("127.0.0.1", None, [])
    own = {"sec_fetch_site": "same-origin", "sec_fetch_mode": "cors", "origin": "http://127.0.0.1:8765"}
    assert status(guard, asked("/api/state", **own)) == 200


async def test_a_policy_keeps_foreign_scripts_and_frames_out_of_every_answer() -> None:
    """O5"""
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0) as view:
        replies = [await fetch(view.url, path) for path in PATHS if path != "/api/events"]
        replies += [await fetch(view.url, "/", "POST"), await fetch(view.url, "/", headers={"Host": "evil"})]
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert reply.headers["cache-control"] == "no-store"


WRONG = [
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": "Bearer"},
    {"Cookie": f"{Guard('127.0.0.1', TOKEN, []).cookie}=wrong"},
    {"Cookie": f"{Guard('127.0.0.1', TOKEN, []).cookie}={TOKEN}"},
    {"Cookie": "=;;\x7f"},
]


@pytest.mark.parametrize("headers", WRONG)
async def test_without_the_token_there_is_nothing(headers: dict[str, str]) -> None:
    """O5: the files of the page included."""
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0, token=TOKEN) as view:
        for path in [*PATHS, "/?token=wrong", "/?token=", f"/api/state?token={TOKEN}"]:
            reply = await fetch(view.url, path, headers=headers)
            assert reply.status == 401
            assert is_bare(reply)
        assert TOKEN not in repr(view) + view.url


async def test_with_the_token_there_is_everything() -> None:
    """O5: a browser gives it once, and keeps another one, which is good after a restart of the program, too."""
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0, token=TOKEN) as view:
        assert (await fetch(view.url, "/api/state", headers={"Authorization": f"bearer {TOKEN}"})).status == 200
        reply = await fetch(view.url, f"/?token={TOKEN}")
        assert (reply.status, reply.headers["location"]) == (303, "/")
    kept = reply.headers["set-cookie"]
    assert TOKEN not in kept
    assert {"HttpOnly", "SameSite=Strict"} <= set(kept.split("; "))
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0, token=TOKEN) as view:
        cookie = {"Cookie": kept.partition(";")[0]}
        assert (await fetch(view.url, "/api/state", headers=cookie)).status == 200
    async with WorkerRunner(handle_sigint=False) as runner, serve_view(runner, port=0, token="another") as view:
        assert (await fetch(view.url, "/api/state", headers=cookie)).status == 401
