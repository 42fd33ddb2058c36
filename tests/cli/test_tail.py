"""O3, O7, O8: ``workerbus tail``: which messages it shows, how, and for how long."""

import json
import re
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

import anyio
import pytest

from support import commands
from support.clerk import hosted as clerk_at
from support.redis_servers import RedisServer
from support.workers import Helper, running
from workerbus import BusUnavailable, JobError, WorkerRunner
from workerbus.cli._cluster import ClusterPassing
from workerbus.cli._commands import INTERRUPTED, CommandError
from workerbus.cli._in_order import InOrder, in_order
from workerbus.cli._tail import Filters, Lines, Seen, Writer, follow, objects
from workerbus.cli._watch import Passed
from workerbus.observing import PassedMessage, PassingMessages
from workerbus.testing import PeerNetwork, settle
from workerbus.wire import Wire

ASKED = Passed(1.0, "main", "asked", "main", "clerk", "job-1", "count")
ANSWERED = Passed(2.0, "main", "answered", "clerk", "main", "job-1", "completed")
OTHER = Passed(3.0, "main", "asked", "main", "cashier/2", "job-2", "pay")
NEWS = Passed(4.0, "main", "NewsMessage", "clerk", None, "", None)
ALL = [ASKED, ANSWERED, OTHER, NEWS]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters((), (), ()), ALL),
        (Filters(["clerk"], (), ()), [ASKED, ANSWERED, NEWS]),
        (Filters(["cash*"], (), ()), [OTHER]),
        (Filters(["nobody", "cashier/?"], (), ()), [OTHER]),
        (Filters((), ["count"], ()), [ASKED, ANSWERED]),
        (Filters((), ["job-2"], ()), [OTHER]),
        (Filters((), ["*"], ()), [ASKED, ANSWERED, OTHER]),
        (Filters((), (), ["asked"]), [ASKED, OTHER]),
        (Filters((), (), ["news*"]), [NEWS]),
        (Filters(["main"], ["count"], ["answered"]), [ANSWERED]),
        (Filters(["nobody"], (), ()), []),
    ],
)
def test_what_is_wanted_is_shown_and_nothing_else(filters: Filters, expected: list[Passed]) -> None:
    """O8: by worker, by the name or the id of a job, by kind; of several filters, what fits to all."""
    assert [each for each in ALL if filters.has(each)] == expected


def test_a_job_whose_request_was_not_seen_is_found_by_its_id_alone() -> None:
    """O8"""
    assert not Filters((), ["count"], ()).has(ANSWERED)
    assert Filters((), ["job-1"], ()).has(ANSWERED)


def test_several_jobs_of_one_name_are_each_followed_to_their_end() -> None:
    """O8: though they overlap, and another one is asked for in between."""
    filters = Filters((), ["count"], ())
    jobs = [ASKED._replace(job_id=f"job-{n}") for n in (1, 3, 4)]
    rest = [ANSWERED._replace(job_id=each.job_id) for each in jobs]
    passed = [jobs[0], jobs[1], OTHER, rest[0], jobs[2], rest[2], rest[1], ANSWERED._replace(job_id="job-2")]
    assert [each for each in passed if filters.has(each)] == [*jobs[:2], rest[0], jobs[2], rest[2], rest[1]]


def test_what_has_passed_is_written_behind_the_number_of_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """O8: in each of several reports; and only messages count for ``-n``."""
    writer = Writer(Filters((), (), ()), 3, objects)
    assert writer.take([ASKED], 2, 1.0)
    assert writer.take([], 5, 1.0)
    assert not writer.take([ANSWERED, OTHER, NEWS], 1, 4.0)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each.get("missed", each.get("job_id")) for each in told] == [2, "job-1", 5, 1, "job-1", "job-2"]
    assert all(each["time"] > 1e9 for each in told if "time" in each)  # by the clock on the wall, from the first on


def test_a_line_says_when_who_what_and_of_which_job() -> None:
    """O8: what is behind the names stands in a column; nothing of it moves the cursor."""
    lines = Lines(colours=False)
    first, second = (lines(Seen(each, 0.25, 0)) for each in (OTHER, ASKED._replace(text="a\nb\x1b[2J")))
    assert re.fullmatch(r"\d\d:\d\d:00\.250  main → cashier/2  asked pay  job-2", first)
    assert second.endswith("  main → clerk      asked a\\nb\\x1b[2J  job-1")
    assert lines(Seen(NEWS, 0.0, 0)).endswith("  clerk → *         NewsMessage")
    assert lines(Seen(ASKED._replace(payload='{"n": 1}'), 0.0, 0)).endswith('  job-1  {"n": 1}')
    assert lines(Seen(None, None, 1234)).startswith("… 1,234 messages left out")


def test_colours_are_around_what_is_shown() -> None:
    """O8"""
    line = Lines(colours=True)(Seen(ANSWERED._replace(text="error"), 0.0, 0))
    assert "\x1b[31manswered error\x1b[0m" in line
    assert re.sub(r"\x1b\[\d*m", "", line) == Lines(colours=False)(Seen(ANSWERED._replace(text="error"), 0.0, 0))


def test_an_object_says_the_same() -> None:
    """O8: without a payload where there is none."""
    told = json.loads(objects(Seen(ASKED, 12.3456, 0)))
    assert told == {"time": 12.346, **{key: value for key, value in ASKED._asdict().items() if key != "payload"}}
    assert json.loads(objects(Seen(ASKED._replace(payload="[1]"), 0.0, 0)))["payload"] == "[1]"
    assert json.loads(objects(Seen(None, None, 3))) == {"missed": 3}


def test_it_is_enough_when_so_many_were_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """O8: of those that are wanted."""
    writer = Writer(Filters(["clerk"], (), ()), 2, objects)
    assert writer.take([OTHER, ASKED], 0, None)
    assert not writer.take([ANSWERED, NEWS], 0, None)
    assert [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()] == ["asked", "answered"]


def test_times_are_those_of_the_wall(capsys: pytest.CaptureFixture[str]) -> None:
    """O8: of a message that was longer on its way than another, too, and where it is known what the time is there."""
    writer = Writer(Filters((), (), ()), None, objects)
    begun = time.time()
    writer.take([ASKED._replace(at=10.0)], 0, None)
    writer.take([ANSWERED._replace(at=9.0)], 0, None)
    writer.take([ANSWERED._replace(at=5.0)], 0, 20.0)
    times = [json.loads(line)["time"] - begun for line in capsys.readouterr().out.splitlines()]
    assert times == pytest.approx([0.0, -1.0, -15.0], abs=1.0)


class Taken:
    """What was handed on, and when."""

    def __init__(self, enough: int = 1000) -> None:
        self.messages: list[Passed] = []
        self.missed: list[int] = []
        self.now: list[float | None] = []
        self._enough = enough

    def take(self, passed: Sequence[Passed], missed: int, now: float | None) -> bool:
        self.messages += passed
        self.missed.append(missed)
        self.now.append(now)
        return len(self.messages) < self._enough


async def test_messages_are_held_where_several_tell_and_handed_on_in_order() -> None:
    """O8: no longer than that; of a job, the request comes first whatever the clocks say."""
    taken = Taken()

    async def read(order: InOrder) -> None:
        order.add([ANSWERED], 0, 10.0)
        await anyio.sleep(0.5)
        assert taken.messages == [ANSWERED]  # one alone
        order.add([OTHER._replace(runner="two", at=3.0)], 0, 10.5)
        await anyio.sleep(0.5)
        order.add([ASKED._replace(at=2.5)], 2, 11.0)
        order.add([ANSWERED._replace(at=2.4)], 0, 11.0)
        assert len(taken.messages) == 1
        await anyio.sleep(0.7)
        assert [each.kind for each in taken.messages[1:]] == ["asked", "answered", "asked"]
        await anyio.sleep(0.7)
        order.add([NEWS], 0, 12.0)

    assert await in_order(read, taken.take, 1.0)
    assert taken.messages[-1] == NEWS  # what is held when nothing more comes
    assert sum(taken.missed) == 2
    # By the clock of those who tell, when they are handed on; that some were left out is told at once.
    assert [now and round(now, 1) for now in taken.now] == pytest.approx([10.0, 11.1, 11.5, 12.0], abs=0.2)


async def test_enough_ends_the_reading_and_errors_come_as_they_are() -> None:
    """O8, L6: what was read before an error is handed on."""

    async def read(order: InOrder) -> None:
        order.add(ALL, 0, 10.0)
        await anyio.sleep_forever()

    assert not await in_order(read, Taken(enough=2).take, 1.0)

    async def fail(order: InOrder) -> None:
        order.add([NEWS], 0, 10.0)
        raise LookupError("gone")

    taken = Taken()
    with pytest.raises(LookupError, match="gone"):
        await in_order(fail, taken.take, 1.0)
    assert taken.messages == [NEWS]

    def broken(*_: object) -> bool:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await in_order(read, broken, 1.0)


# --- of the programs on a bus, in virtual time


@asynccontextmanager
async def asking(net: PeerNetwork, **kwargs: Any) -> AsyncIterator[WorkerRunner]:
    """Two processes: one asks the helper of the other; the runner of the first one."""
    async with (
        running(Helper("helper"), name="there", bus=net.end("there"), **kwargs),
        running(name="here", bus=net.end("here"), **kwargs) as runner,
    ):
        await runner.registry.wait_for("helper")
        yield runner


@pytest.mark.parametrize("payloads", [False, True])
async def test_what_passes_between_processes_is_shown_in_its_order(
    payloads: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """O3, O7, O8: each message once; payloads where they were asked for, and the runner allows it."""
    net = PeerNetwork(wire=Wire())
    allowed = {"observable": "payloads"} if payloads else {}
    async with asking(net, **allowed) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(keep_asking, runner)
        passing = ClusterPassing(net.end("tail"), payloads=True)
        await follow(passing, Writer(Filters((), ["echo", "fail"], ()), 40, objects))
        tasks.cancel_scope.cancel()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    seen: dict[str, list[str]] = {}
    for each in told:
        seen.setdefault(each["job_id"], []).append(each["kind"])
    whole = [kinds for kinds in seen.values() if len(kinds) > 1]
    assert whole
    assert all(kinds == ["asked", "answered"] for kinds in whole)
    assert {each["text"] for each in told} == {"echo", "fail", "completed", "error"}
    assert ("hunter2" in json.dumps(told)) == payloads


async def keep_asking(runner: WorkerRunner) -> None:
    while True:
        await runner.job("helper", name="echo", payload={"secret": "hunter2"})
        with pytest.raises(JobError):
            await runner.job("helper", name="fail")
        await anyio.sleep(0.1)


class Cluster:
    """As much of a cluster as is followed: messages that pass, and how many were missed so far."""

    def __init__(self) -> None:
        self.passing = PassingMessages()
        self.missed = 7  # before anybody looked

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def messages(self) -> PassingMessages:
        return self.passing


@pytest.mark.parametrize("missed", [[0, 3, 0, 0, 2, 0], [4, 4, 0], [0, 0]])
async def test_what_was_left_out_between_processes_is_told_once(
    missed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """O7, O8: where it was, whatever comes behind it."""
    cluster, told = Cluster(), list[int]()
    monkeypatch.setattr("workerbus.cli._cluster.observe_cluster", lambda *_, **__: cluster)

    def take(passed: Sequence[Passed], number: int, _: float | None) -> bool:
        told.append(number)
        return True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(ClusterPassing(PeerNetwork().end("tail"), payloads=False).run, take))
        await settle()
        for second, number in enumerate(missed):
            cluster.missed += number
            cluster.passing.add([PassedMessage(float(second), "r", "asked", "a", "b", str(second), None, None)])
            await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    assert told == missed


async def test_a_bus_that_cannot_be_opened_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """O8: in its own words."""
    bus = PeerNetwork(wire=Wire()).end("tail")

    async def start() -> None:
        raise BusUnavailable("net", "nobody is there", maybe_stored=False, doing="be opened")

    monkeypatch.setattr(bus, "start", start)
    with pytest.raises(CommandError, match="could not be opened: nobody is there"):
        await follow(ClusterPassing(bus, payloads=False), Writer(Filters((), (), ()), None, objects))


# --- with a server, and processes


@pytest.mark.slow
def test_the_command_shows_what_passes_on_a_server_until_it_has_enough_or_is_interrupted() -> None:
    """O8: one line a message, as soon as it has passed."""
    with RedisServer() as server, commands.start("tail", server.url, "--job", "add") as first:
        with clerk_at(server.url), commands.start("tail", server.url, "--json", "-n", "2", "--job", "add") as second:
            while first.poll() is None and second.poll() is None:
                commands.run("call", "clerk", "add", '{"numbers": [1, 2]}', "--url", server.url)
            out, err = second.communicate(timeout=commands.PATIENCE)
        first.send_signal(signal.SIGINT)
        lines, said = first.communicate(timeout=commands.PATIENCE)
    assert (second.returncode, err) == (0, "")
    assert {json.loads(line)["job_id"] != "" for line in out.splitlines()} == {True}
    assert (first.returncode, said) == (INTERRUPTED, "")
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3}  \S+ → clerk +asked add  \S+$", lines, re.MULTILINE)
