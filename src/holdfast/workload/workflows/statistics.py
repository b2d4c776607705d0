"""Anchor ratio and predictability of workflows."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from holdfast.traces.record import Session, common_prefix_length

__all__ = ["WorkflowStatistics"]


@dataclass(slots=True)
class WorkflowStatistics:
    """Statistics of sessions whose turns name their agents.

    Attributes:
        num_calls: Turns (count).
        num_prompt_blocks: Full blocks of all prompts (count).
    """

    num_calls: int = 0
    num_prompt_blocks: int = 0
    _calls_of: Counter[str] = field(default_factory=Counter)
    _anchors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _transitions: defaultdict[str, Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    @classmethod
    def of(cls, sessions: Iterable[Session]) -> WorkflowStatistics:
        """The statistics of sessions with comparable block ids."""
        found = cls()
        for session in sessions:
            found._add(session)
        return found

    @property
    def anchor_ratio(self) -> float | None:
        """Share of prompt blocks that all prompts of their agent have; None of none.

        Source: the anchor ratio of CacheScout, arXiv 2608.14624.
        """
        num_anchor_blocks = sum(
            num_calls * len(self._anchors[agent]) for agent, num_calls in self._calls_of.items()
        )
        return num_anchor_blocks / self.num_prompt_blocks if self.num_prompt_blocks else None

    @property
    def predictability(self) -> float | None:
        """How much the current agent says about the next (0 to 1); None of one agent.

        Source: R = 1 - H(next | current) / H(next) of CacheScout, arXiv 2608.14624.
        """
        following = Counter[str]()
        for counts in self._transitions.values():
            following += counts
        entropy = _entropy(following)
        if not entropy:
            return None
        num_all = following.total()
        given_current = sum(
            counts.total() / num_all * _entropy(counts) for counts in self._transitions.values()
        )
        return 1.0 - given_current / entropy

    def _add(self, session: Session) -> None:
        for turn in session.turns:
            self.num_calls += 1
            self.num_prompt_blocks += len(turn.block_ids)
            self._calls_of[turn.agent] += 1
            known = self._anchors.get(turn.agent, turn.block_ids)
            self._anchors[turn.agent] = known[: common_prefix_length(known, turn.block_ids)]
        for before, after in pairwise(session.turns):
            self._transitions[before.agent][after.agent] += 1


def _entropy(counts: Counter[str]) -> float:
    """Entropy of a distribution (bits)."""
    total = counts.total()
    return -sum(num / total * math.log2(num / total) for num in counts.values())
