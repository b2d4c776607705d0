"""InferCept: keep or discard a paused request's KV by the memory it would waste."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, TurnArrived, TurnEnded, TurnStarted
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget, admit_while_they_fit
from holdfast.policies.base import (
    AdmissionPolicy,
    EvictionPolicy,
    PolicyContext,
    PolicySettings,
    PolicySpec,
    Priority,
    PriorityClass,
    users_of,
)

__all__ = ["InferCept", "InferCeptSettings"]


class InferCeptSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `InferCept`.

    Attributes:
        chunk_tokens: Tokens of a step that recomputes a context; running requests take theirs of
            it (tokens, >= 1). The repository's.
        recent_gaps: Of a session's last pauses so many are averaged (count, >= 1). Ours: the
            paper is told how long a pause takes.
    """

    chunk_tokens: Annotated[int, Meta(ge=1)] = 384
    recent_gaps: Annotated[int, Meta(ge=1)] = 5


class InferCept(EvictionPolicy, AdmissionPolicy):
    """Keeps a pause's KV if that wastes less memory-time than recomputing it.

    Waste of keeping is the expected pause times the context's tokens; waste of discarding is the
    memory-time of recomputing it in chunks, its own and that of the requests which run meanwhile,
    or where a lower tier has a copy, its own while it is copied back. A context that may never
    come back, because no pause has ended yet, is discarded. Kept KV is not given to others;
    discarded KV goes first. Requests are first come, first served.

    Source: Abhyankar et al., InferCept, arXiv 2402.01869, ICML 2024, and its repository's
    `discard_waste`: chunked recomputation, chunk 384 less the running batch.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="infercept",
        summary="Keeps a paused session's KV if that wastes less memory-time than recomputing it.",
        source="InferCept, arXiv 2402.01869",
        differs="The pause is the moving average of the session's last 5, as CacheWise ran it, not "
        "given, and decides when it begins, not by what is left of it; steps of a chunk have no "
        "constant part; swapping is the lower tier's: everything is copied there, and copies back "
        "are not limited to what a step hides; discarded KV stays findable until it is "
        "overwritten; kept KV is released when nothing else can run.",
        settings=InferCeptSettings,
    )
    settings: InferCeptSettings

    def __init__(self, context: PolicyContext, settings: InferCeptSettings) -> None:
        super().__init__(context, settings)
        self._gaps_s: dict[Session, deque[float]] = context.per_session()
        self._all_s: deque[float] = deque(maxlen=100)
        self._running: set[Turn] = set()

    def observe(self, event: Event) -> None:
        """Learn the lengths of pauses, and which turns run. Mutates."""
        match event:
            case TurnArrived(time_s=time_s, turn=turn) if turn.session.num_turns > 1:
                session = turn.session
                gap_s = time_s - session.paused_at_s
                recent = deque[float](maxlen=self.settings.recent_gaps)
                self._gaps_s.setdefault(session, recent).append(gap_s)
                self._all_s.append(gap_s)
            case TurnStarted(turn=turn):
                self._running.add(turn)
            case TurnEnded(turn=turn):
                self._running.discard(turn)

    def session_priority(self, session: Session) -> float:
        """1 to keep, 0 to discard."""
        if session.state.is_busy:
            return 1.0
        if not session.state.is_paused:
            return 0.0
        if not self._all_s:
            return 0.0
        return float(self._waste_of_keeping(session) <= self._waste_of_discarding(session))

    def priority(self, node: Node[Any]) -> Priority:
        """Kept last; the rest least recently used."""
        is_kept = any(user.retention_priority > 0 for user in users_of(node))
        return (PriorityClass.PINNED if is_kept else PriorityClass.LIVE), 0.0

    def retains(self, session: Session) -> bool:
        """If it is kept."""
        return self.session_priority(session) > 0

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Admit in order of arrival, as far as kept KV leaves blocks."""
        return admit_while_they_fit(sorted(waiting, key=lambda t: (t.priority, t.sequence)), budget)

    def _waste_of_keeping(self, session: Session) -> float:
        gaps_s = self._gaps_s.get(session) or self._all_s
        pause_s = sum(gaps_s) / len(gaps_s)
        return pause_s * session.tail.end * self.context.block_tokens

    def _waste_of_discarding(self, session: Session) -> float:
        recomputing = self._waste_of_recomputing(session)
        if not self.context.tier.num_stored(session.prompt_tail.hashes[-1:], 0, 1):
            return recomputing
        copied_s = self.context.tier.load_s(session.tail.end)
        return min(recomputing, copied_s * session.tail.end * self.context.block_tokens)

    def _waste_of_recomputing(self, session: Session) -> float:
        """Token-seconds, by chunk: the chunks recomputed so far and the others' contexts."""
        tokens = session.tail.end * self.context.block_tokens
        full_tokens = self.settings.chunk_tokens
        chunk_tokens = max(full_tokens - len(self._running), 1)
        num_chunks = max(-(-tokens // chunk_tokens) - 1, 0)
        last_tokens = tokens % chunk_tokens
        token_s = self.context.restore_s(session.tail.end) / max(tokens, 1)
        others = sum(t.session.prompt_blocks for t in self._running) * self.context.block_tokens
        own = full_tokens * num_chunks * (num_chunks + 1) / 2 * chunk_tokens
        waiting = chunk_tokens * num_chunks * others
        return token_s * (own + waiting + last_tokens * (others + last_tokens))
