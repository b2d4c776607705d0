"""KVFlow: eviction by steps-to-execution."""

from __future__ import annotations

from typing import Any, ClassVar

from holdfast.core.chains import Segment
from holdfast.core.sessions import Session
from holdfast.policies.base import Policy, PolicySpec, Worth, WorthClass, users_of

__all__ = ["KVFlow"]

_MIN_SHARERS = 2


class KVFlow(Policy):
    """Varying suffixes go first, then the fixed prefixes whose agents run in the most steps.

    A fixed prefix is a run that several sessions share. A session in the engine is zero steps away;
    one that is paused runs at the next step of its own loop, so without a workflow graph all paused
    sessions are one step away and the least recently used suffix goes first.

    Source: Pan et al., KVFlow, arXiv 2507.07400, NeurIPS 2025: priority of a node is the least
    steps-to-execution below it, suffixes first.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="kvflow",
        summary="Evicts varying suffixes first, then fixed prefixes by steps to execution.",
        source="KVFlow, arXiv 2507.07400",
        differs="Eviction only, no prefetch; each session is a loop of one agent; a prefix is "
        "fixed if two sessions share it.",
    )

    def score(self, session: Session) -> float:
        """Minus the steps to the session's next execution."""
        return 0.0 if session.state.is_busy else -1.0

    def worth(self, run: Segment[Any]) -> Worth:
        """Fixed before suffix, then the fewest steps among the users."""
        users = list(users_of(run))
        if not users:
            return WorthClass.UNOWNED, 0.0
        is_fixed = len(users) >= _MIN_SHARERS
        steps = max(user.rate for user in users)
        return (WorthClass.LIVE if is_fixed else WorthClass.AWAY), steps if is_fixed else 0.0
