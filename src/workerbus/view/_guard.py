"""Who may see a view: by address, name, method, page and token (O5).

A page in a browser may send requests to any address that the browser reaches, and a name that such a page is served
under may come to mean another address meanwhile. So the name that a request gives has to be one that nobody else can
give to this address, and what a browser says of where a request comes from has to be this page. All is decided here,
before anything is looked up.
"""

import hmac
from collections.abc import Iterable
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qs, urlsplit

from workerbus.view._errors import UnprotectedViewError
from workerbus.view._http import Answer, Headers, Request

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

SAFE: Final[Headers] = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
"""Headers of every answer."""


PROBES: Final = ("/healthz", "/readyz")
"""What load balancers and orchestrators ask for, who have no token; the answers say nothing but yes or no."""


class Guard:
    """Lets those in who may see a view.

    Args:
        host: The address at which it is served.
        token: What others have to know; None for nothing.
        allowed_hosts: Names under which the address may be asked for, besides those that are always allowed.

    Raises:
        UnprotectedViewError: Others may reach the address, and there is no token; a `ValueError`.
        ValueError: The token is empty.
    """

    def __init__(self, host: str, token: str | None, allowed_hosts: Iterable[str]) -> None:
        if token is not None and not token:
            raise ValueError("a token is not empty: leave it out where none is needed")
        self._loopback = _is_loopback(host)
        if not self._loopback and token is None:
            raise UnprotectedViewError(host)
        self._token = None if token is None else token.encode()
        self._names = {"localhost", *(name.lower() for name in allowed_hosts)}
        self.cookie: str = "" if token is None else f"workerbus_view_{self._sign()[:8]}"

    def refusal(self, request: Request) -> Answer | None:
        """Return what is answered instead of what was asked for; None for whoever may see it."""
        if request.method not in ("GET", "HEAD"):
            return refused(405, "this page can only be read", ("Allow", "GET, HEAD"))
        if not self._is_ours(request.headers.get("host", "")):
            return refused(421, "this address is not served under that name: see allowed_hosts=")
        if self._comes_from_elsewhere(request):
            return refused(403, "another page may not see this one")
        return self._without_token(request)

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        if name in self._names:
            return True
        return _is_loopback(name) if self._loopback else _is_address(name)

    def _comes_from_elsewhere(self, request: Request) -> bool:
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
        if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
            return True
        followed = request.headers.get("sec-fetch-mode") == "navigate" and request.target.partition("?")[0] == "/"
        return site not in ("none", "same-origin") and not followed

    def _without_token(self, request: Request) -> Answer | None:
        path, _, query = request.target.partition("?")
        if self._token is None or path in PROBES:
            return None
        given = parse_qs(query).get("token")
        if given is not None and path == "/" and self._is_token(given[-1]):
            keep = f"{self.cookie}={self._sign()}; HttpOnly; SameSite=Strict; Path=/"
            return Answer(303, (*SAFE, ("Location", "/"), ("Set-Cookie", keep)))
        kind, _, told = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(told.strip()):
            return None
        if hmac.compare_digest(_cookie(request, self.cookie).encode(), self._sign().encode()):
            return None
        return refused(401, "this page is shown to those who have its token: open /?token=…")

    def _is_token(self, given: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(given.encode(), self._token)

    def _sign(self) -> str:
        """What a browser keeps: no token, but the same after a restart.

        A browser gives a cookie to all ports of a name, so views with different tokens name theirs differently.
        """
        assert self._token is not None
        return hmac.new(self._token, b"workerbus view", sha256).hexdigest()


def refused(status: int, why: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer that says why there is no other."""
    return Answer(status, (*SAFE, *headers, ("Content-Type", "text/plain; charset=utf-8")), f"{why}\n".encode())


def _cookie(request: Request, name: str) -> str:
    try:
        cookies = SimpleCookie(request.headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ip_address(name).is_loopback)
