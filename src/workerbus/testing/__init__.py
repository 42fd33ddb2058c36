"""Tools for testing programs made of workers: virtual time, seeded schedules, faults, recordings, ready-made workers.

`workerbus.testing.strategies` has hypothesis strategies, and `workerbus.testing.fixtures` pytest fixtures. The library
itself never imports any of this.
"""

from workerbus.testing._errors import (
    DeadlockError,
    InvariantError,
    NotLinearizableError,
    SpinError,
    StuckError,
    TimeLimitError,
)
from workerbus.testing._leaks import assert_no_jobs, nothing_left
from workerbus.testing.buses._faults import Faults
from workerbus.testing.buses._faulty import FaultyBus
from workerbus.testing.buses._peer_faults import PeerFaults
from workerbus.testing.buses._peer_network import PeerNetwork
from workerbus.testing.buses._recording import RecordedMessage, RecordingBus
from workerbus.testing.buses._story import Fault
from workerbus.testing.cancellation._checkpoints import (
    Checkpoint,
    CheckpointReport,
    CutError,
    cancel_at_every_checkpoint,
)
from workerbus.testing.clock._run import advance, run, settle, virtual_backend
from workerbus.testing.exploring._explore import Exploration, FoundFailure, explore, replay
from workerbus.testing.exploring._strategies import exhaustive, pct, picks, random_walk
from workerbus.testing.invariants._history import Call, History, Operation
from workerbus.testing.invariants._linearizing import linearizable
from workerbus.testing.invariants._watching import always, eventually
from workerbus.testing.workers._behaviour import Behaviour, ScriptedError
from workerbus.testing.workers._plans import GroupOutcome, GroupPlan, RequesterError, run_group_plan
from workerbus.testing.workers._recording import HookRun, RecordingWorker
from workerbus.testing.workers._scripted import EchoWorker, ScriptedWorker

__all__ = [
    "Behaviour",
    "Call",
    "Checkpoint",
    "CheckpointReport",
    "CutError",
    "DeadlockError",
    "EchoWorker",
    "Exploration",
    "Fault",
    "Faults",
    "FaultyBus",
    "FoundFailure",
    "GroupOutcome",
    "GroupPlan",
    "History",
    "HookRun",
    "InvariantError",
    "NotLinearizableError",
    "Operation",
    "PeerFaults",
    "PeerNetwork",
    "RecordedMessage",
    "RecordingBus",
    "RecordingWorker",
    "RequesterError",
    "ScriptedError",
    "ScriptedWorker",
    "SpinError",
    "StuckError",
    "TimeLimitError",
    "advance",
    "always",
    "assert_no_jobs",
    "cancel_at_every_checkpoint",
    "eventually",
    "exhaustive",
    "explore",
    "linearizable",
    "nothing_left",
    "pct",
    "picks",
    "random_walk",
    "replay",
    "run",
    "run_group_plan",
    "settle",
    "virtual_backend",
]
