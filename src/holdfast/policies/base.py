"""The policy contract: eviction, admission and prefetch, each a small base class.

A policy class decides one of them or several. It observes events and answers questions; the
runtime asks, and the host carries out the answers or does not. A class that overrides nothing
behaves like vLLM.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import islice
from typing import Any, ClassVar, Protocol, TypeVar

from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.core.events import Event
from holdfast.core.offload_port import OffloadPort
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.oracle import Oracle
from holdfast.policies.spec import Configured, Need, PolicySettings, PolicySpec
from holdfast.predict.agent_calls import AgentCalls
from holdfast.predict.declared_workflows import DeclaredWorkflows
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.predict.step_cost import StepCostModel

__all__ = [
    "Need",
    "Oracle",
    "PolicySettings",
    "PolicySpec",
    *("AdmissionPolicy", "EvictionPolicy", "PrefetchPolicy", "SessionPriority"),
    *("Observer", "Policy", "PolicyContext", "Priority", "PriorityClass", "users_of"),
]

Priority = tuple[float, float]
"""Priority class, then retention priority within it; the smallest is evicted first."""

_MAX_USERS = 64


class PriorityClass(IntEnum):
    """The coarse part of a node's retention priority, first to be evicted first.

    Attributes:
        UNOWNED: No session uses it.
        CLOSED: Only sessions that will not return use it.
        AWAY: Only sessions that the policy expects back after all others use it.
        LIVE: A session in the engine, or expected back, uses it.
        PINNED: Evicted only when nothing else is left.
    """

    UNOWNED = 0
    CLOSED = 1
    AWAY = 2
    LIVE = 3
    PINNED = 4


class Observer:
    """Observes events for policies; see `PolicyContext.shared`."""

    def __init__(self, context: PolicyContext) -> None:
        self.context = context

    def observe(self, event: Event) -> None:
        """Take note of an event. Mutates the observer only."""


T = TypeVar("T", bound=Observer)


class PolicyContext(Protocol):
    """What a policy may look at. Questions change nothing.

    Attributes:
        costs: What computing costs on this engine, as learned so far.
        returns: When paused sessions return, as learned so far.
        agent_calls: Which agents are called next, as learned so far.
        oracle: The future, for bounds; None on a real engine.
        tree: The paths of all sessions.
        tier: The store below the KV cache.
        workflows: What applications have declared, and how far it has run.
        capacity_blocks: KV blocks of the cache (count).
        block_tokens: Tokens a block.
    """

    costs: StepCostModel
    returns: ReturnTimeModel
    agent_calls: AgentCalls
    oracle: Oracle | None
    tree: PrefixTree[Any]
    tier: OffloadPort
    workflows: DeclaredWorkflows
    capacity_blocks: int
    block_tokens: int

    @property
    def now_s(self) -> float:
        """Time now (s, host's clock)."""

    @property
    def num_steps(self) -> int:
        """Engine steps begun (count)."""

    @property
    def return_share(self) -> float:
        """Share of sessions that returned after a sibling or a fork had started (0 to 1)."""

    def results_known(self) -> Iterator[Session]:
        """Paused sessions whose tools have finished, as clients said, the latest first."""

    def prefetches_asked(self) -> Iterator[Session]:
        """Paused sessions whose clients ask for a prefetch, tenants in turn."""

    @property
    def trusts_predictions(self) -> bool:
        """Whether the prediction guard lets policies use predictions now."""

    def restore_s(self, num_blocks: float, depth_blocks: float = 0.0) -> float:
        """Engine time to compute blocks again that follow `depth_blocks` others (s)."""

    def paused(self) -> Iterator[Session]:
        """Idle sessions with resident blocks, the longest idle first."""

    def is_gone(self, session: Session) -> bool:
        """Whether the pause outlasts nearly all pauses of its kind."""

    def join_wait_s(self, session: Session) -> float | None:
        """Expected time until an agent that waits for sub-agents returns (s); else None."""

    def per_session(self) -> dict[Session, Any]:
        """A new dict by session; a session leaves it when the runtime forgets the session."""

    def rerank(self, node: Node[Any]) -> None:
        """Have a node's priority asked again before the next step; for `observe`.

        The host notices by itself where a node's priority has risen, and after each turn of a
        session that ends in the node.
        """

    def rescore(self, session: Session) -> None:
        """Have a session's priority computed again before the next step; for `observe`."""

    def shared(self, kind: type[T]) -> T:
        """The one observer of this class; it sees each event before the policies do."""


class Policy(Observer, Configured):
    """What the policies of an engine have in common.

    Args:
        context: What the policy may look at, now and later.
        settings: Of the kind that `spec` names; not given where it names none.
    """

    def __init__(self, context: PolicyContext, settings: PolicySettings | None = None) -> None:
        Observer.__init__(self, context)
        Configured.__init__(self, settings)


class EvictionPolicy(Policy):
    """Orders nodes by retention priority; by default least recently used, like vLLM.

    Attributes:
        rescore_interval_steps: Engine steps between rescores of all idle sessions; None never.
        decays: Whether priorities change as a pause goes on, so that the runtime rescores stale
            ones.
        uses_predictions: Whether the prediction guard watches it; see
            `PolicyContext.trusts_predictions`.
    """

    rescore_interval_steps: int | None = None
    decays: ClassVar[bool] = False
    uses_predictions: ClassVar[bool] = False

    def session_priority(self, session: Session) -> float:
        """Retention priority of a session's blocks now; the smallest goes first. Pure."""
        del session
        return 0.0

    def priority(self, node: Node[Any]) -> Priority:
        """Priority of a node's free blocks, from its users' `retention_priority`. Pure."""
        del node
        return PriorityClass.UNOWNED, 0.0


class SessionPriority(EvictionPolicy):
    """Gives each session one number and each node the sum of its users' numbers.

    Most policies need no more.
    """

    def priority(self, node: Node[Any]) -> Priority:
        """The sum of the users' retention priorities; nodes without users go first. Pure."""
        priorities = [user.retention_priority for user in users_of(node)]
        return (PriorityClass.LIVE, sum(priorities)) if priorities else (PriorityClass.UNOWNED, 0.0)


class AdmissionPolicy(Policy):
    """Decides which waiting turns may start; by default the engine's queue decides.

    Attributes:
        interval_s: Time between the `IntervalPassed` events that it observes, each before a step
            (s); inf for none.
    """

    interval_s: float = math.inf

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Choose among waiting turns, in order of arrival. Pure."""
        del budget
        return Admission(waiting)

    def holds(self, session: Session) -> bool:
        """Whether a session's turn waits in any case; others are looked at first. Pure."""
        del session
        return False

    def retains(self, session: Session) -> bool:
        """Whether a session gets a reservation when its turn ends. Pure."""
        del session
        return False

    def idle_s(self, session: Session) -> float:
        """Idle time of a session that counts when reservations are released (s). Pure."""
        waited_s = max(self.context.now_s - session.idle_since_s, 0.0)
        return max(waited_s, session.expected_gap_s or 0.0)


class PrefetchPolicy(Policy):
    """Names what to prefetch. As it stands: nothing."""

    def candidates(self) -> Iterable[Node[Any]]:
        """Last nodes of paths to load before a prompt asks for them, soonest first.

        Only what is nearly certain: other blocks are evicted for it. Pure.
        """
        return ()


def users_of(node: Node[Any]) -> Iterator[Session]:
    """Sessions whose path contains the node; at most 64 of them. Pure."""
    return islice((s for part in node.subtree() for s in part.tails), _MAX_USERS)
