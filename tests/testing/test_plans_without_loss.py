"""A plan in which nothing gets lost."""

from hypothesis import given

from workerbus.testing import Faults
from workerbus.testing.strategies import fault_plans


@given(fault_plans(kinds=("delay", "split")))
def test_a_plan_in_which_nothing_gets_lost_loses_nothing(faults: Faults) -> None:
    assert faults.lose == 0
    assert faults.duplicate == 0
    assert not faults.split_loses
