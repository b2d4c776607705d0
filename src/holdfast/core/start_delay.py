"""Why a waiting turn has not started."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

from holdfast.core.turn import Turn

__all__ = ["DELAY_REASONS", "DelayReason", "StartDelay", "order_reason"]

DelayReason = Literal[
    "admitted",
    "slots",
    "blocks",
    "due",
    "priority",
    "own_order",
    "tenant",
    "session",
    "order",
    "prefetch",
    "engine",
]
"""Why a turn has not started.

`admitted`: it starts in the next step that has tokens to spare. `slots`: as many requests run as
the engine allows. `blocks`: it needs more KV blocks than are free without a reservation. The turn
that goes first, for which blocks gather, is `due` (it has waited for its wait bound), of a more
urgent `priority`, before it in the `own_order` of their tenant, of a `tenant` that was served less,
of a `session` of their tenant that was, or before it in the policy's `order`. `prefetch`: its
blocks are being loaded. `engine`: the engine's own queue decides.
"""

DELAY_REASONS: Final[tuple[DelayReason, ...]] = get_args(DelayReason)


class StartDelay(NamedTuple):
    """Why a turn waits.

    Attributes:
        reason: See `DelayReason`.
        needed_blocks: KV blocks that it takes from others (count); 0 if not known.
        free_blocks: KV blocks that the last decision could give away (count); 0 if not known.
        first_session: Number of the session whose turn goes first; None if there is none.
    """

    reason: DelayReason
    needed_blocks: int = 0
    free_blocks: int = 0
    first_session: int | None = None


def order_reason(turn: Turn, first: Turn, now_s: float) -> DelayReason:
    """Why `turn` comes after `first`, which did not fit. Pure."""
    if first.is_due(now_s):
        return "due"
    if first.priority != turn.priority:
        return "priority"
    if first.tenant.served_s < turn.tenant.served_s:
        return "tenant"
    if first.tenant is turn.tenant and first.session.own_priority < turn.session.own_priority:
        return "own_order"
    if first.session.account.served_s < turn.session.account.served_s:
        return "session"
    return "order"
