"""X9: the URL of a server, and credentials, which no text shows."""

import ssl
from typing import Any

import pytest

from workerbus.redis._errors import RedisURLError
from workerbus.redis._settings import Address, RedisSettings, ask_credentials

SECRET = "pa55word"


@pytest.mark.parametrize(
    ("url", "addresses", "db"),
    [
        ("redis://localhost", [("localhost", 6379)], 0),
        ("redis://localhost/", [("localhost", 6379)], 0),
        ("redis://10.0.0.1:7000/3", [("10.0.0.1", 7000)], 3),
        ("redis://[::1]:7000", [("::1", 7000)], 0),
        ("redis://[::1]", [("::1", 6379)], 0),
        ("rediss://user:word@cache.example.org:6380/1", [("cache.example.org", 6380)], 1),
        ("unix:///run/redis.sock", [("/run/redis.sock", 0)], 0),
        ("unix://:word@/run/my%20redis.sock?db=2", [("/run/my redis.sock", 0)], 2),
        ("redis+sentinel://a:1,b,[::2]:3/main", [("a", 1), ("b", 26379), ("::2", 3)], 0),
        ("redis+sentinel://a/main/4", [("a", 26379)], 4),
    ],
)
def test_a_url_says_where_the_server_is(url: str, addresses: list[tuple[str, int]], db: int) -> None:
    settings = RedisSettings.parse(url)
    assert list(settings.addresses) == addresses
    assert settings.db == db
    assert settings.service == ("main" if "sentinel" in url else None)
    assert (settings.tls is not None) == url.startswith("rediss")


@pytest.mark.parametrize(
    ("address", "text"), [(("h", 1), "h:1"), (("::1", 1), "[::1]:1"), (("/run/socket", 0), "/run/socket")]
)
def test_an_address_is_shown_as_it_is_written(address: tuple[str, int], text: str) -> None:
    assert str(Address(*address)) == text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", None),
        ("redis://:word@h", ("default", "word")),
        ("redis://me:word@h", ("me", "word")),
        ("redis://me:a%2Fb%40%3A%25:c@h", ("me", "a/b@:%:c")),
        ("unix://me:word@/run/socket", ("me", "word")),
        ("redis+sentinel://me:word@a,b/main", ("me", "word")),
    ],
)
async def test_a_url_may_have_the_user_and_the_password(url: str, expected: tuple[str, str] | None) -> None:
    """X9"""
    credentials = RedisSettings.parse(url).credentials
    assert (None if credentials is None else await ask_credentials(credentials)) == expected


async def _later() -> str:
    return "later"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("word", ("default", "word")),
        (("me", "word"), ("me", "word")),
        ((None, "word"), ("default", "word")),
        (lambda: "word", ("default", "word")),
        (lambda: ("me", "word"), ("me", "word")),
        (_later, ("default", "later")),
        (lambda: None, None),
        (lambda: ("me", 1), None),
        (lambda: "", None),
    ],
)
async def test_credentials_may_be_given_beside_the_url(given: Any, expected: tuple[str, str] | None) -> None:
    """X9"""
    credentials = RedisSettings.parse("redis://h", credentials=given).credentials
    assert credentials is not None
    assert await ask_credentials(credentials) == expected


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (f"redis:{SECRET}@h", "begins with one of redis://, rediss://, unix://"),
        (f"http://:{SECRET}@h", "begins with one of"),
        (f"redis://:{SECRET}/x@h", "as %2F"),
        (f"redis://:12{SECRET}/x@h", "as %2F"),
        (f"redis://:12/{SECRET}@h", "as %2F"),
        (f"redis://h/{SECRET}@h", "as %2F"),
        (f"redis://:a?{SECRET}@h", "as %2F"),
        (f"redis://:{SECRET}#x@h", "'#'"),
        (f"redis://{SECRET}@h", "a user and no password"),
        (f"redis://{SECRET}:@h", "a user and no password"),
        (f"redis://:%ff{SECRET}@h", "UTF-8"),
        (f"redis://:{SECRET}@", "host is missing"),
        (f"redis://:{SECRET}@h h", "host is missing"),
        (f"redis://:{SECRET}@{'h' * 64}", "host is missing"),
        (f"redis://:{SECRET}@a:b:1", "brackets"),
        (f"redis://:{SECRET}@h:port", "port is no number from 1 to 65535"),
        (f"redis://:{SECRET}@h:0", "port is no number"),
        (f"redis://:{SECRET}@h:65536", "port is no number"),
        (f"redis://:{SECRET}@h:\u0661", "port is no number"),
        (f"redis://:{SECRET}@h/one", "database is no number"),
        (f"redis://:{SECRET}@h/-1", "database is no number"),
        (f"redis://:{SECRET}@h?timeout=1", "no parameters"),
        (f"unix://:{SECRET}@", "path of a socket"),
        (f"unix://:{SECRET}@host/path", "path of a socket"),
        (f"unix://:{SECRET}@/path%00", "path of a socket"),
        (f"unix://:{SECRET}@/path?x=1", "database is no number"),
        (f"redis+sentinel://:{SECRET}@a,b", "service"),
        (f"redis+sentinel://:{SECRET}@a,/main", "host is missing"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_and_not_repeated(url: str, text: str) -> None:
    """X9"""
    with pytest.raises(RedisURLError) as caught:
        RedisSettings.parse(url)
    assert text in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        (7, {}, "a str, not int"),
        ("redis://:word@h", {"credentials": SECRET}, "give one of them"),
        ("redis://h", {"credentials": 7}, r"credentials are a password, \(user, password\)"),
        ("redis://h", {"credentials": (SECRET, None)}, "credentials are a password"),
        ("redis://h", {"credentials": ""}, "credentials are a password"),
        ("redis://h", {"sentinel_credentials": SECRET}, r"for redis\+sentinel:// alone"),
        ("redis+sentinel://h/main", {"sentinel_credentials": 7}, "sentinel_credentials are a password"),
        ("redis://h", {"ssl_context": ssl.create_default_context()}, "rediss:// alone"),
    ],
)
def test_what_does_not_fit_beside_the_url_is_refused(url: Any, options: dict[str, Any], text: str) -> None:
    """X9"""
    with pytest.raises(RedisURLError, match=text) as caught:
        RedisSettings.parse(url, **options)
    assert SECRET not in str(caught.value)


def test_no_repr_and_no_text_has_a_secret_in_it() -> None:
    """X9"""
    for settings in (
        RedisSettings.parse(f"redis://me:{SECRET}@h"),
        RedisSettings.parse("redis://h", credentials=("me", SECRET)),
        RedisSettings.parse("redis+sentinel://h/main", sentinel_credentials=SECRET),
    ):
        shown = [repr(settings), str(settings), repr({name: getattr(settings, name) for name in _fields(settings)})]
        assert not [text for text in shown if SECRET in text]
    assert repr(RedisSettings.parse("redis://h/2")) == "<RedisSettings h:6379, db 2>"
    assert str(RedisSettings.parse("redis+sentinel://a,b/main")) == "main of a:26379,b:26379, db 0"


def _fields(settings: RedisSettings) -> list[str]:
    return [name for name in dir(settings) if not name.startswith("__")]


def test_the_context_for_tls_is_made_once() -> None:
    settings = RedisSettings.parse("rediss://h")
    assert settings.tls is not None
    assert settings.tls() is settings.tls()
    own = ssl.create_default_context()
    given = RedisSettings.parse("rediss://h", ssl_context=own)
    assert given.tls is not None
    assert given.tls() is own
