"""What a policy is: it observes turns, scores sessions and runs of blocks, and asks for acts.

The runtime reports to a policy and asks it; a host carries out what it asks for, or does not. A
policy overrides what it cares about: one that overrides nothing behaves like vLLM.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Any, ClassVar, Protocol

from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.core.offload_port import OffloadPort
from holdfast.core.session import Session
from holdfast.core.turn import Admission, Budget, Turn
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.predict.step_cost import StepCostModel

__all__ = [
    "Need",
    "Oracle",
    "Policy",
    "PolicyContext",
    "PolicySpec",
    "Priority",
    "PriorityClass",
    "users_of",
]

Priority = tuple[float, float]
"""Class of worth, cheapest first, then worth within the class; compared in that order."""

_MAX_USERS = 64


class PriorityClass(IntEnum):
    """Classes of worth, cheapest first: by who still uses a run.

    Attributes:
        UNOWNED: Nobody.
        CLOSED: Only sessions that will not return.
        AWAY: Sessions that the policy expects back after all others.
        LIVE: Sessions that are in the engine or expected back.
        PINNED: Sessions that the policy keeps as long as the engine can do without their blocks.
    """

    UNOWNED = 0
    CLOSED = 1
    AWAY = 2
    LIVE = 3
    PINNED = 4


class Need(enum.StrEnum):
    """What a policy must be told beyond what an engine sees."""

    FUTURE = "future"


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What is known about a policy without building it.

    Attributes:
        name: As the command line and results call it.
        summary: What it does, one sentence.
        source: Where the idea comes from.
        differs: How what runs here differs from the source; "" where it does not.
        needs: What it must be told. A policy that needs the future exists only in the simulator.
        has_prefix_cache: Whether the engine keeps KV blocks between requests.
        has_endless_cache: Whether it keeps all of them; only a simulator can.
    """

    name: str
    summary: str
    source: str
    differs: str = ""
    needs: frozenset[Need] = frozenset()
    has_prefix_cache: bool = True
    has_endless_cache: bool = False


class Oracle(Protocol):
    """The future, for bounds and for what applications would say; only a simulator has one."""

    def gap_after_s(self, request_id: str) -> float:
        """Time from the end of a turn to its session's next request (s; inf after the last)."""
        ...

    def run_of(self, request_id: str) -> str:
        """The agent run or workflow that a request is a step of."""
        ...

    def prompts_after(self, request_id: str) -> Iterator[Sequence[bytes]]:
        """Prefix hashes of the prompts that its run sends after a request, soonest first."""
        ...


class PolicyContext(Protocol):
    """What a policy may look at. Questions change nothing."""

    costs: StepCostModel
    returns: ReturnTimeModel
    oracle: Oracle | None
    tree: PrefixTree[Any]
    tier: OffloadPort
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
        """Share of sessions that came back after a sibling or a fork had started (0 to 1)."""

    @property
    def trusts_predictions(self) -> bool:
        """Whether predicted return times may be used now."""

    def restore_s(self, num_blocks: float, depth_blocks: float = 0.0) -> float:
        """Engine time to compute blocks again that lie behind `depth_blocks` others (s)."""

    def paused(self) -> Iterator[Session]:
        """Sessions that are away and may come back, the longest away first."""

    def is_gone(self, session: Session) -> bool:
        """Whether the pause outlasts nearly all pauses of its kind."""


class Policy:
    """First come, first served, least recently used: what stock vLLM does.

    Sessions are scored, runs of blocks take their worth from the sessions that use them: a score
    is kept in `Session.rate`, higher is worth more.

    Attributes:
        spec: Name, source and needs.
        orders_requests: Whether `decide` says whom to let in; otherwise the engine's own queue.
        ages: Whether scores change as a pause goes on, so that stale ones are computed anew.
        rescore_interval_steps: Engine steps between rescores of all paused sessions; None never.
        variants: Settings that a simulator tries one after the other, to report the best, among
            them perhaps another policy; for bounds.
    """

    spec: ClassVar[PolicySpec]
    orders_requests: ClassVar[bool] = False
    ages: ClassVar[bool] = False
    rescore_interval_steps: ClassVar[int | None] = None
    variants: ClassVar[tuple[dict[str, object], ...]] = ({},)

    def __init__(self, context: PolicyContext) -> None:
        self.context = context
        self._by_session: list[dict[Session, Any]] = []

    def per_session(self) -> dict[Session, Any]:
        """A new dict by session, from which sessions disappear when they are forgotten."""
        memory: dict[Session, Any] = {}
        self._by_session.append(memory)
        return memory

    # Observe.

    def turn_arrived(self, turn: Turn) -> None:
        """A session has sent its next prompt."""

    def turn_started(self, turn: Turn) -> None:
        """The engine has let the turn in."""

    def turn_ended(self, turn: Turn) -> None:
        """The answer is complete; `turn.session` pauses."""

    def pause_known(self, session: Session) -> None:
        """What ended the session's last turn is known, or is known better than before.

        Follows every `turn_ended` and may be repeated for the same pause.
        """

    def session_forgotten(self, session: Session) -> None:
        """The session will not be mentioned again."""
        for memory in self._by_session:
            memory.pop(session, None)

    # Score.

    def score(self, session: Session) -> float:
        """Priority of keeping what the session uses, now; higher is worth more. Pure."""
        del session
        return 0.0

    def priority(self, node: Node[Any]) -> Priority:
        """Class and worth of a run's free blocks, from the last scores of its users. Pure."""
        del node
        return 0, 0.0

    # Act.

    def coming(self) -> Iterable[Node[Any]]:
        """Ends of chains that should be cached before a prompt asks for them, soonest first.

        Only what is nearly certain: blocks are given up for them. Pure.
        """
        return ()

    def retains(self, session: Session) -> bool:
        """Whether a session whose turn has just ended keeps its blocks from newcomers. Pure."""
        del session
        return False

    def away_s(self, session: Session) -> float:
        """How long a session that is away counts as away when places are given up (s). Pure."""
        waited_s = max(self.context.now_s - session.paused_at_s, 0.0)
        return max(waited_s, session.expected_gap_s or 0.0)

    def decide(self, waiting: Sequence[Turn], room: Budget) -> Admission:
        """Choose whom to let in among `waiting`, in order of arrival. Mutates `room` only."""
        del room
        return Admission(offers=list(waiting))


def users_of(node: Node[Any]) -> Iterator[Session]:
    """Sessions whose chain contains the run; a bounded number of them. Pure."""
    return islice((s for part in node.subtree() for s in part.tails), _MAX_USERS)
