"""X2-X5, X10: whatever befalls a Redis server and its connections, each bus is well again, and has lost nothing."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from properties.redis_world import Step, World, programs
from workerbus.testing import run

pytestmark = pytest.mark.slow

laws = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(laws, max_examples=25)
@given(
    program=st.integers(2, 3).flatmap(lambda count: st.tuples(st.just(count), programs(count))),
    seed=st.integers(0, 10_000),
)
def test_all_is_well_again_whatever_befalls_a_server(backend: str, program: tuple[int, list[Step]], seed: int) -> None:
    """X2, X3, X4, X5, X10, L1"""
    count, happens = program

    async def main() -> World:
        world = World(count)
        await world.play(happens)
        return world

    world = run(main, backend=backend, seed=seed, limit=300.0)
    assert world.found == []
