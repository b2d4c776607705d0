"""Prefetch for agents that are called regularly or in a repeating order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from holdfast.cache.prefix_tree import Node
from holdfast.policies.base import PolicyContext, PolicySpec, PrefetchPolicy
from holdfast.policies.ours.recurring_agents import RecurringAgents

__all__ = ["RecurringAgentsPrefetch"]


class RecurringAgentsPrefetch(PrefetchPolicy):
    """Prefetches sessions about to return, then prefixes of agents called next.

    A session is about to return when its client has said that its tools have finished, or asks for
    a prefetch. Agents: see `RecurringAgents`.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="recurring-agents",
        summary="Prefetches the prefixes of agents whose regular calls are due next.",
        source="KVFlow, arXiv 2507.07400",
        differs="Which agent is called next is learned online, not given by a workflow graph.",
    )

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._agents = context.shared(RecurringAgents)

    def candidates(self) -> Iterable[Node[Any]]:
        """Last nodes of paths of sessions about to return, then of agents' prefixes."""
        for session in (*self.context.results_known(), *self.context.prefetches_asked()):
            tail = session.tail
            if tail.free_blocks.num_blocks < len(tail.hashes):  # not all resident
                yield tail
        if self.context.trusts_predictions:
            yield from self._agents.called_next()
