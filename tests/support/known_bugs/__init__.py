"""Known kinds of concurrency bugs, each as small as it can be: they pass in the default order of tasks, and not always.

Each is a scenario for `explore`, on either backend: it makes everything anew, and fails by raising or by never coming
to its end. With ``mended=True`` it is the same program without the bug, which passes in every order. All are
written for this purpose; where public reports describe such a bug, the docstring names one.
"""

from typing import Final

from support.known_bugs._bystanders import Bug, bystander, mended
from support.known_bugs._cancels import (
    answer_of_a_cancelled_request,
    answer_with_a_used_id,
    cancel_against_answer,
    leaked_connection,
    leaked_permit,
    lost_item,
)
from support.known_bugs._checks import (
    aba_of_names,
    double_answer,
    double_close,
    lost_update,
    stale_cache,
    timer_against_completion,
    two_leaders,
    use_after_close,
)
from support.known_bugs._deeper import (
    audit_of_moving_money,
    hand_over_cut_twice,
    leader_with_an_old_lease,
    stampede_with_invalidation,
    two_producers_and_a_consumer,
)
from support.known_bugs._messages import (
    dropped_exception,
    iteration_while_changed,
    message_before_the_subscription,
    retry_doubles_an_effect,
    shutdown_before_the_last_message,
)
from support.known_bugs._waiting import (
    barrier_used_again_too_early,
    condition_with_if,
    deadlock_in_a_circle,
    event_cleared_too_early,
    lock_order_inversion,
    missed_wake_up,
    starvation,
    writer_starvation,
)
from support.known_bugs._workers import check_then_act, initialised_twice, out_of_order_updates

KNOWN_BUGS: Final[tuple[Bug, ...]] = (
    lost_update,
    double_answer,
    check_then_act,
    initialised_twice,
    out_of_order_updates,
    stale_cache,
    two_leaders,
    aba_of_names,
    double_close,
    use_after_close,
    timer_against_completion,
    iteration_while_changed,
    message_before_the_subscription,
    shutdown_before_the_last_message,
    dropped_exception,
    retry_doubles_an_effect,
    cancel_against_answer,
    lost_item,
    leaked_permit,
    leaked_connection,
    answer_of_a_cancelled_request,
    answer_with_a_used_id,
    missed_wake_up,
    event_cleared_too_early,
    condition_with_if,
    barrier_used_again_too_early,
    lock_order_inversion,
    deadlock_in_a_circle,
    writer_starvation,
    starvation,
)

DEEPER_BUGS: Final[tuple[Bug, ...]] = (
    hand_over_cut_twice,
    audit_of_moving_money,
    stampede_with_invalidation,
    two_producers_and_a_consumer,
    leader_with_an_old_lease,
)
"""Those behind several races that have to go wrong together."""

__all__ = [
    "DEEPER_BUGS",
    "KNOWN_BUGS",
    "Bug",
    "aba_of_names",
    "bystander",
    "cancel_against_answer",
    "deadlock_in_a_circle",
    "double_answer",
    "lost_update",
    "mended",
    "starvation",
    "two_producers_and_a_consumer",
]
