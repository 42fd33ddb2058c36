"""X4, X5: the scripts of the membership beside a model, with everything there twice, and all steps mixed."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.member_model import Compared
from support.redis_servers import RedisServer

INCARNATIONS = ("a1", "a2", "b1", "b2", "c1")
PAUSES = (90, 190, 290, 310, 310, 420, 490, 520, 950, 1100, -300, -600)
SILENCES = (300, 700, 1001, 1100)

Step = Callable[[Compared], None]


def _step(random: Random) -> Step:
    me = random.choice(INCARNATIONS)
    names = random.sample("vwx", random.randint(1, 3))
    supersede, pid = random.random() < 0.6, random.randint(1, 2)
    pause, silence = random.choice(PAUSES), random.choice(SILENCES)
    what = random.choice(("inbox", "claims", "names", "server", "info"))

    def spoil(its: Compared) -> None:
        its.spoil(what, me)
        after = (its.beat, its.leave, its.roll_call)
        random.choice((lambda me: its.join(me, supersede=supersede, pid=pid), *after))(me)

    steps: dict[Step, int] = {
        lambda its: its.join(me, supersede=supersede, pid=pid): 4,
        lambda its: its.beat(me): 5,
        lambda its: its.claim(me, names): 4,
        lambda its: its.release(me, names): 3,
        lambda its: its.leave(me): 1,
        lambda its: its.roll_call(me): 1,
        lambda its: its.time_passes(pause): 2,
        lambda its: its.is_silent(me, silence): 2,
        spoil: 2,
        lambda its: its.crowd(): 1,
        lambda its: its.is_late_in_a_crowd(me, with_inbox=supersede): 1,
    }
    return random.choices(list(steps), list(steps.values()))[0]


def _all_join(count: int) -> Step:
    def do(its: Compared) -> None:
        for me in ("a1", "b1", "c1")[:count]:
            its.join(me, supersede=True, pid=1)

    return do


laws = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(laws, max_examples=15)
@given(st.integers(0, 2**32))
def test_the_server_knows_what_a_model_knows_after_each_step(shared_server: RedisServer, seed: int) -> None:
    """X4, X5: lives that follow each other, leases that run out, outages, names that change hands, and spoilt keys.

    Of two networks at one server each knows what it would know alone.
    """
    _play(shared_server, Random(seed))


@pytest.mark.slow
@settings(laws, max_examples=120)
@given(st.integers(0, 2**32))
def test_the_server_knows_it_in_many_more_programs(shared_server: RedisServer, seed: int) -> None:
    """X4, X5"""
    _play(shared_server, Random(seed))


def _play(server: RedisServer, random: Random) -> None:
    server.call("FLUSHALL")
    networks = [Compared(server, prefix, INCARNATIONS) for prefix in ("wb", "wb.2")]
    for network in networks:
        _all_join(random.randint(1, 3))(network)
    for _ in range(random.randint(10, 40)):
        network = random.choice([networks[0], networks[0], networks[1]])
        _step(random)(network)
        network.compare()
    for network in networks:
        network.compare()
