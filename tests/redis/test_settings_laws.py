"""X9: what a URL is made of comes back from it, each part beside each other one; and what is wrong in it is found."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workerbus.redis._errors import RedisURLError
from workerbus.redis._settings import RedisSettings, checked_credentials

SECRET = "pa55word"

texts = st.sampled_from(["me", "ü", "a b", "a:b", "a@b", "a/b", "50%", "%41", "a#b?c=d", "[x]", "+", "None"])
hosts = st.sampled_from(["h", "cache.example.org", "10.0.0.1", "::1", "fe80::1%eth0", "host_1"])
ports = st.none() | st.sampled_from([1, 6379, 26379, 7000, 65535])
places = st.lists(st.tuples(hosts, ports), min_size=1, max_size=3)
schemes = st.sampled_from(["redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"])
logins = st.none() | st.tuples(st.none() | st.just("") | texts, texts)
dbs = st.none() | st.integers(0, 20)


def _place(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def _url(
    scheme: str,
    login: tuple[str | None, str] | None,
    places: list[tuple[str, int | None]],
    service: str,
    path: str,
    db: int | None,
) -> str:
    user_info = "" if login is None else f"{quote(login[0] or '', safe='')}:{quote(login[1], safe='')}@"
    if scheme == "unix":
        return f"unix://{user_info}/{quote(path)}{'' if db is None else f'?db={db}'}"
    behind = [] if db is None else [str(db)]
    if scheme.endswith("sentinel"):
        where = ",".join(_place(*each) for each in places)
        return "/".join([f"{scheme}://{user_info}{where}", quote(service, safe=""), *behind])
    return "/".join([f"{scheme}://{user_info}{_place(*places[0])}", *behind])


def _credentials(source: Any) -> tuple[str, str] | None:
    return None if source is None else checked_credentials(source())


@settings(max_examples=150)
@given(
    scheme=schemes,
    login=logins,
    places=places,
    service=texts,
    path=st.sampled_from(["run/s", "a b", "x/y/ü.sock"]),
    db=dbs,
    beside=st.booleans(),
    sentinel=logins,
)
def test_what_a_url_is_made_of_comes_back_from_it(
    scheme: str,
    login: tuple[str | None, str] | None,
    places: list[tuple[str, int | None]],
    service: str,
    path: str,
    db: int | None,
    beside: bool,
    sentinel: tuple[str | None, str] | None,
) -> None:
    """X9: wherever credentials are given; those of sentinels are their own."""
    watched = scheme.endswith("sentinel")
    sentinel = sentinel if watched else None
    url = _url(scheme, None if beside else login, places, service, path, db)
    read = RedisSettings.parse(url, credentials=login if beside else None, sentinel_credentials=sentinel)
    expected = [(host, (26379 if watched else 6379) if port is None else port) for host, port in places]
    if scheme == "unix":
        expected = [(f"/{path}", 0)]
    assert list(read.addresses) == (expected if watched else expected[:1])
    assert read.service == (service if watched else None)
    assert read.db == (db or 0)
    assert (read.tls is not None) == scheme.startswith("rediss")
    for source, given_ in ((read.credentials, login), (read.sentinel_credentials, sentinel)):
        assert _credentials(source) == (None if given_ is None else (given_[0] or "default", given_[1]))
    shown = ",".join(path if not port else _place(path, port) for path, port in read.addresses)
    assert read.where == (f"{service} of {shown}" if watched else shown)
    assert str(read) == f"{read.where}, db {db or 0}"


WRONG = {
    "login": {
        f"{SECRET}@": "a user and no password",
        f"{SECRET}:@": "a user and no password",
        f":%ff{SECRET}@": "UTF-8",
        f"%ff:{SECRET}@": "UTF-8",
    },
    "host": {
        "": "host is missing",
        "h h": "host is missing",
        "a:b:1": "brackets",
        "h:": "port is no number",
        "h:port": "port is no number",
        "h:0": "port is no number",
        "h:65536": "port is no number",
        "h:+1": "port is no number",
    },
    "db": {"/one": "database", "/-1": "database", "/1/2": "database", "/ 1": "database", "/1234567": "database"},
    "rest": {"#x": "'#'", "?timeout=1": "no parameters", "?db=1": "no parameters"},
}
RIGHT = {"login": f":{SECRET}@", "host": "h:1", "db": "/2", "rest": ""}


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "rediss+sentinel"])
def test_whatever_is_wrong_in_a_url_is_found_alone_and_beside_something_else(scheme: str) -> None:
    """X9: one of what is wrong is named, and nothing of the URL repeated."""
    faults = [(part, text, why) for part, texts in WRONG.items() for text, why in texts.items()]
    for part, text, why in faults:
        for other, also, besides in faults:
            parts = {**RIGHT, other: also, part: text}
            reasons = {why} if other == part else {why, besides}
            for hosts in _with_others(parts["host"]) if "sentinel" in scheme else [parts["host"]]:
                service = "/main" if "sentinel" in scheme else ""
                url = f"{scheme}://{parts['login']}{hosts}{service}{parts['db']}{parts['rest']}"
                with pytest.raises(RedisURLError) as caught:
                    RedisSettings.parse(url)
                assert any(reason in str(caught.value) for reason in reasons), url
                assert SECRET not in str(caught.value)
                assert caught.value.__context__ is None


def _with_others(host: str) -> list[str]:
    return [host, f"{host},b", f"b,{host}", f"a,{host},[::2]:3"]


@pytest.mark.parametrize("query", ["?x=1", "?1", "?db=one", "?db=1&x=2", "?db=-1", "?db", "?db=1234567"])
@pytest.mark.parametrize("login", ["", f":{SECRET}@"])
@pytest.mark.parametrize("path", ["/run/s", "", "/", "/%00", "h/run/s"])
def test_whatever_is_wrong_in_a_path_is_found_alone_and_beside_something_else(
    query: str, login: str, path: str
) -> None:
    """X9"""
    right = path == "/run/s"
    for asked in ("", query):
        if right and not asked:
            continue
        with pytest.raises(RedisURLError) as caught:
            RedisSettings.parse(f"unix://{login}{path}{asked}")
        assert ("database is no number" if right else "path of a socket") in str(caught.value)
        assert SECRET not in str(caught.value)


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "two logins": ({"credentials": SECRET}, "give one of them"),
    "credentials that are none": ({"credentials": ("me", "")}, "credentials are a password"),
    "credentials of sentinels": ({"sentinel_credentials": SECRET}, "for redis+sentinel:// alone"),
    "no credentials of sentinels": ({"sentinel_credentials": 7}, "sentinel_credentials are a password"),
    "a context": ({"ssl_context": object()}, "for rediss:// alone"),
}


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"])
@pytest.mark.parametrize("login", ["", f":{SECRET}@"])
def test_what_is_given_beside_a_url_fits_it_or_is_refused(scheme: str, login: str) -> None:
    """X9: each alone, and each beside another one."""
    watched, secure = scheme.endswith("sentinel"), scheme.startswith("rediss")
    fits = {
        "two logins": not login,
        "credentials that are none": False,
        "credentials of sentinels": watched,
        "no credentials of sentinels": False,
        "a context": secure,
    }
    url = f"{scheme}://{login}{'/path' if scheme == 'unix' else 'h/main' if watched else 'h'}"
    for one in MISFITS:
        for other in MISFITS:
            options = {**MISFITS[one][0], **MISFITS[other][0]}
            used = [each for each in {one, other} if options.items() >= MISFITS[each][0].items()]
            if all(fits[each] for each in used):
                assert RedisSettings.parse(url, **options).db == 0
            else:
                with pytest.raises(RedisURLError) as caught:
                    RedisSettings.parse(url, **options)
                assert SECRET not in str(caught.value)
