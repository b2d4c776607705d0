"""CacheSage (CacheScout): eviction and prefetch by learned transitions."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, TurnArrived, TurnEnded
from holdfast.core.offload_port import NoOffload
from holdfast.core.session import Session
from holdfast.policies.base import (
    EvictionPolicy,
    PolicyContext,
    PolicySettings,
    PolicySpec,
    PrefetchPolicy,
    Priority,
    PriorityClass,
    users_of,
)
from holdfast.predict.transition_counts import TransitionCounts

__all__ = ["CacheSage", "CacheSageSettings"]

_MAX_WORKFLOWS = 1024
_MIN_SHARERS = 2


class CacheSageSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `CacheSage`: an independent replication's, as the papers give none.

    Attributes:
        scope: Whether the current agent is each workflow's own, or one for all as in the paper's
            Algorithm 1.
        survival: p by `hops`, the papers' approximation, or `exact`, within `max_hops` steps. Exact
            takes the workflow that called last.
        smoothing: Added to each count of a transition, epsilon (>= 0).
        min_edge: Least probability of a transition that is an edge, tau (0 to 1).
        max_hops: Hops at which an agent is not expected any more, E_max (count, >= 1).
        decay_per_step: Rate at which recency decays, lambda (1/step, >= 0).
        floor: Least value of either factor, delta (> 0).
        fingerprint_blocks: First blocks of a prompt that tell agents apart (count, >= 1).
        min_predictability: Least R at which the next agent is prefetched, R_min (0 to 1).
        prefetch_interval_s: Least time between prefetches of agents (s, >= 0).
        stored_factor: Factor on the score of blocks that a lower tier stores (0 to 1). Ours.
        rescore_steps: Engine steps between rescores of all idle sessions (count, >= 1). Ours.
    """

    scope: Literal["workflow", "global"] = "workflow"
    survival: Literal["hops", "exact"] = "hops"
    smoothing: Annotated[float, Meta(ge=0)] = 0.01
    min_edge: Annotated[float, Meta(ge=0, le=1)] = 0.1
    max_hops: Annotated[int, Meta(ge=1)] = 6
    decay_per_step: Annotated[float, Meta(ge=0)] = 0.005
    floor: Annotated[float, Meta(gt=0)] = 0.01
    fingerprint_blocks: Annotated[int, Meta(ge=1)] = 2
    min_predictability: Annotated[float, Meta(ge=0, le=1)] = 0.3
    prefetch_interval_s: Annotated[float, Meta(ge=0)] = 2.0
    stored_factor: Annotated[float, Meta(ge=0, le=1)] = 0.5
    rescore_steps: Annotated[int, Meta(ge=1)] = 8


class CacheSage(EvictionPolicy, PrefetchPolicy):
    """Evicts the lowest (p + d) (exp(-l age) + d), prefetches the likeliest agent.

    An agent is known by the first two blocks of its prompt. Transitions between agents are counted
    where the agent changes; p falls with the hops from the agents that ran last, along transitions
    of probability 0.1 and more; age is in engine steps. Of blocks with equal scores those that a
    lower tier stores go first. The agent that most often followed the last one is prefetched if
    R >= 0.3, at most every two seconds.

    Source: Zhang et al., CacheSage/CacheScout, arXiv 2605.27744 and 2608.14624: score of a block,
    predictability gate, choice and rate of prefetches.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="cachesage",
        summary="Evicts by how soon a block's agent runs again, from learned transitions, and "
        "prefetches the likeliest next agent.",
        source="CacheSage/CacheScout, arXiv 2605.27744, 2608.14624",
        differs="The constants are an independent replication's, as the papers give none, and so "
        "is the current agent of each workflow; only transitions that were seen are edges; the "
        "block's own size is the same for all; a block that a lower tier stores has half the "
        "score; an agent's anchor ends where its prompts part; it is loaded from a tier, or "
        "computed on an idle engine where warm-ups are allowed; rescored every 8 engine steps.",
        settings=CacheSageSettings,
    )
    settings: CacheSageSettings

    def __init__(self, context: PolicyContext, settings: CacheSageSettings) -> None:
        super().__init__(context, settings)
        self.rescore_interval_steps = settings.rescore_steps
        self._agent_of: dict[Session, bytes] = context.per_session()
        self._seen_step: dict[Session, int] = context.per_session()
        self._counts: TransitionCounts[bytes] = TransitionCounts(settings.smoothing)
        self._current: OrderedDict[Hashable, bytes] = OrderedDict()  # by workflow
        self._latest: OrderedDict[bytes, Session] = OrderedDict()  # by agent
        self._likelihood: dict[bytes, float] = {}
        self._next: bytes | None = None
        self._chosen_s = -math.inf

    def observe(self, event: Event) -> None:
        """Count transitions between agents, and note when sessions were used. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._seen_step[turn.session] = self.context.num_steps
                self._count_transition(turn.session)
            case TurnEnded(turn=turn):
                self._seen_step[turn.session] = self.context.num_steps

    def session_priority(self, session: Session) -> float:
        """Nearness of the agent's next call times recency, > 0."""
        floor = self.settings.floor
        likelihood = self._likelihood.get(self._agent_of.get(session, b""), 0.0)
        age_steps = self.context.num_steps - self._seen_step.get(session, 0)
        recency = math.exp(-self.settings.decay_per_step * age_steps)
        return (likelihood + floor) * (recency + floor)

    def priority(self, node: Node[Any]) -> Priority:
        """The highest of the users' priorities, less where a tier stores the node."""
        score = max((user.retention_priority for user in users_of(node)), default=0.0)
        if self._is_stored(node):
            score *= self.settings.stored_factor
        return PriorityClass.LIVE, score

    def candidates(self) -> Iterable[Node[Any]]:
        """The last node of the anchor of the agent that is chosen, if one is."""
        session = None if self._next is None else self._latest.get(self._next)
        if session is None or session not in self._agent_of:
            return ()
        return islice(filter(_is_shared, session.tail.path()), 1)

    def _count_transition(self, session: Session) -> None:
        agent = self._agent_of[session] = self._agent(session)
        self._latest[agent] = session
        self._latest.move_to_end(agent)
        if len(self._latest) > _MAX_WORKFLOWS:
            self._latest.popitem(last=False)
        workflow = _workflow_of(session) if self.settings.scope == "workflow" else None
        before = self._current.pop(workflow, None)
        self._current[workflow] = agent
        if len(self._current) > _MAX_WORKFLOWS:
            self._current.popitem(last=False)
        if agent == before:
            return
        if before is None:
            self._counts.enter(agent)
        else:
            self._counts.observe(before, agent)
        self._likelihood = self._likelihoods(agent)
        self._choose(agent)

    def _likelihoods(self, agent: bytes) -> dict[bytes, float]:
        """P that each agent is called soon; the current ones have 1."""
        settings = self.settings
        if settings.survival == "exact":
            within = self._counts.survival(agent, settings.max_hops)
            return within | dict.fromkeys(self._current.values(), 1.0)
        hops = self._counts.hops(self._current.values(), settings.min_edge)
        return {a: 1.0 - min(h, settings.max_hops) / settings.max_hops for a, h in hops.items()}

    def _choose(self, agent: bytes) -> None:
        """Choose the agent to prefetch, unless one was chosen a moment ago."""
        now_s, settings = self.context.now_s, self.settings
        self._next = None
        if now_s < self._chosen_s + settings.prefetch_interval_s:
            return
        if self._counts.predictability >= settings.min_predictability:
            self._next = self._counts.likeliest_after(agent)
            self._chosen_s = now_s

    def _is_stored(self, node: Node[Any]) -> bool:
        tier = self.context.tier
        if isinstance(tier, NoOffload) or not node.hashes:
            return False
        path = [one for part in reversed(list(node.path())) for one in part.hashes]
        return tier.num_stored(path, len(path) - 1) > 0

    def _agent(self, session: Session) -> bytes:
        """The fingerprint of a session's agent: the first prefix hashes of its path."""
        return b"".join(islice(_hashes_of(session), self.settings.fingerprint_blocks))


def _hashes_of(session: Session) -> Iterator[bytes]:
    for node in reversed(list(session.tail.path())):
        yield from node.hashes


def _is_shared(node: Node[Any]) -> bool:
    return len(list(islice(users_of(node), _MIN_SHARERS))) == _MIN_SHARERS


def _workflow_of(session: Session) -> Hashable:
    """What a session's calls follow each other in; all sessions without ids are one."""
    identity = session.identity
    if identity.workflow_id is not None:
        return identity.tenant, identity.workflow_id
    return session.group
