"""J5, J7, J18, J19: streams and whoever reads them, in whatever order they do what they do."""

from hypothesis import HealthCheck, given, settings

from properties.stream_world import StreamPlan, play, stream_plans
from workerbus.testing import run

many = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(plan=stream_plans)
def test_whatever_is_done_with_a_stream_its_laws_hold(plan: StreamPlan, backend: str) -> None:
    """J5, J7, J8, J18, J19: prefixes, in order; no further ahead than the window; nobody waits for ever."""
    run(lambda: play(plan), backend=backend, seed=plan.seed)
