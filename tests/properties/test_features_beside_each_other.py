"""Whatever else happens in a program, each feature behaves as it does alone (B3, G1, J1, R6, W6).

Two features run together: under one runner, under two on one bus, one of them twice with the same workers, and one of
them twice under the same names, one after the other. What they are is in ``beside/``.
"""

import os
import random

import pytest

from properties.beside import buses, choices, jobs, lives, pipelines, pools, streams, watching
from properties.beside.harness import (
    BACKENDS,
    WRITE,
    alone,
    check_beside,
    modes,
    names_of,
    observed_alone,
    seed_of,
    write_down,
)

WORKERS = names_of(jobs, streams, lives, pools, buses, watching, choices)
PIPELINES = names_of(pipelines)
NAMES = [*WORKERS, *PIPELINES]
DRAWN = 16
"""How many pairs are tried each time, on each backend."""


if os.environ.get(WRITE):
    write_down(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_feature_alone_does_what_is_promised(name: str, request: pytest.FixtureRequest) -> None:
    """B3, G1, J1, R6, W6: what each observes is written down, and is the same on both backends in every schedule."""
    seed = seed_of(name, str(request.config.getoption("schedule")))
    assert observed_alone(name, BACKENDS[seed % 2], seed) == alone(name)


@pytest.mark.parametrize("number", range(DRAWN))
def test_two_features_behave_as_each_does_alone(number: int, backend: str, request: pytest.FixtureRequest) -> None:
    """B3, G1, J1, R6, W6: some pairs, each in one of the ways in which it can be together."""
    draw = random.Random(seed_of(str(number), backend, str(request.config.getoption("schedule"))))
    first = draw.choice(NAMES)
    second = draw.choice([first, *draw.sample(NAMES, 3)])
    check_beside(first, second, draw.choice(modes(first, second)), backend, draw.randrange(2**32))


@pytest.mark.slow
@pytest.mark.parametrize("first", NAMES)
def test_a_feature_behaves_beside_all_others_as_it_does_alone(first: str, request: pytest.FixtureRequest) -> None:
    """B3, G1, J1, R6, W6: all pairs, in one of the ways in which they can be together; beside itself, in all.

    Of those of a worker and of a pipeline, one pair of ten.
    """
    schedule = str(request.config.getoption("schedule"))
    kind, others = (WORKERS, PIPELINES) if first in WORKERS else (PIPELINES, [])
    some = [name for name in others if seed_of(first, name) % 10 == 0]
    for second in [*kind[kind.index(first) :], *some]:
        ways = [(mode, backend) for mode in modes(first, second) for backend in BACKENDS]
        seed = seed_of(first, second, schedule)
        for mode, backend in ways if first == second else [ways[seed % len(ways)]]:
            check_beside(first, second, mode, backend, seed)
