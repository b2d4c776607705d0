"""Explains why prompts missed the cache: verdict, top causes, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from holdfast.core.miss import AVOIDABLE_REASONS, CHANGED_REASONS
from holdfast.core.miss_record import MissRecord
from holdfast.core.prompt_change import CHANGES
from holdfast.core.results import ratio
from holdfast.report.remedies import DELAYS, REMEDIES, SENTENCES

__all__ = [
    *("Cause", "Explanation", "SessionMisses", "TurnMisses", "WaitCause", "explain"),
    "explain_totals",
]

_MAX_CAUSES: Final = 10
_THRASH_INDEX: Final = 0.5
_SMALL_LOSS: Final = 0.1
_FEW_HITS: Final = 0.5
_MANY_NEW: Final = 0.5


class Cause(msgspec.Struct, frozen=True):
    """A reason for misses, with what it cost.

    Attributes:
        reason: See `MissReason`; evictions have the state of the evicted sessions after a colon.
        num_turns: Turns that missed for it (count).
        tokens: Tokens computed again (count).
        lost_s: Engine time for that (s); 0 if not known.
        sentence: What happened.
        remedy: What to do.
    """

    reason: str
    num_turns: int
    tokens: int
    lost_s: float
    sentence: str
    remedy: str


class WaitCause(msgspec.Struct, frozen=True):
    """What turns waited for before they started.

    Attributes:
        reason: See `DelayReason`.
        num_turns: Turns that waited for it last (count).
        waited_s: Their waits from arrival to start together (s).
        remedy: What happened, and what to do.
    """

    reason: str
    num_turns: int
    waited_s: float
    remedy: str


class TurnMisses(msgspec.Struct, frozen=True):
    """One turn that missed for an avoidable reason.

    Attributes:
        turn: Its number in the session.
        request: Id of the request.
        prompt_tokens: Tokens of its prompt (count).
        cached_tokens: Those that were cached (count).
        missed: Missing tokens by reason (counts).
        lost_s: Engine time to compute the avoidable ones (s).
        why: A sentence on the largest avoidable reason.
    """

    turn: int
    request: str
    prompt_tokens: int
    cached_tokens: int
    missed: dict[str, int]
    lost_s: float
    why: str


class SessionMisses(msgspec.Struct):
    """One session.

    Attributes:
        session: Its number on its engine.
        session_id: Its id, as its client named it.
        engine: Number of the engine.
        num_turns: Turns that ended (count).
        prompt_tokens: Tokens of all prompts (count).
        cached_tokens: Those that were cached (count).
        lost_s: Engine time to compute avoidable misses (s).
        turns: Its turns with avoidable misses.
    """

    session: int
    session_id: str | None
    engine: int
    num_turns: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    lost_s: float = 0.0
    turns: list[TurnMisses] = msgspec.field(default_factory=list)

    @property
    def hit_ratio(self) -> float | None:
        """Cached prompt tokens ÷ prompt tokens."""
        return ratio(self.cached_tokens, self.prompt_tokens)


class Explanation(msgspec.Struct):
    """Why the prompts of a log missed.

    Attributes:
        verdict: One sentence.
        num_turns: Turns that ended (count); None where only totals are known.
        num_sessions: Their sessions (count); likewise.
        prompt_tokens: Tokens of all prompts (count).
        cached_tokens: Those that were cached (count).
        missed: Missing tokens by reason (counts); with `cached_tokens` they are `prompt_tokens`.
        hit_ratio: Cached ÷ prompt tokens.
        possible_hit_ratio: The same if no avoidable token were missing.
        thrash_index: Avoidable missing tokens ÷ tokens that were new.
        lost_s: Engine time to compute the avoidable ones (s).
        cache_tokens: Tokens that the KV cache holds (count); 0 if not known.
        working_set_tokens: The live sessions' last prompts together, at their most (count).
        causes: Avoidable reasons, the most expensive first.
        sessions: The sessions, the most expensive first.
        waits: What turns waited for, the longest wait first; empty where only totals are known.
        num_waiting: Turns that wait now, by `DelayReason` (counts); empty for a log.
        actions: What policies of a gateway or an MCP proxy did: counts by policy and action.
    """

    verdict: str
    num_turns: int | None
    num_sessions: int | None
    prompt_tokens: int
    cached_tokens: int
    missed: dict[str, int]
    hit_ratio: float | None
    possible_hit_ratio: float | None
    thrash_index: float | None
    lost_s: float
    cache_tokens: int
    working_set_tokens: int
    causes: list[Cause]
    sessions: list[SessionMisses]
    waits: list[WaitCause] = msgspec.field(default_factory=list)
    num_waiting: dict[str, int] = msgspec.field(default_factory=dict)
    actions: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)


@dataclass(slots=True)
class _Tally:
    num_turns: int = 0
    tokens: int = 0
    lost_s: float = 0.0


@dataclass(slots=True)
class _Totals:
    """Sums over turns."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    missed: dict[str, int] = field(default_factory=dict)
    causes: dict[str, _Tally] = field(default_factory=dict)

    def add(self, reason: str, cause: str, tokens: int, lost_s: float, num_turns: int = 1) -> None:
        self.missed[reason] = self.missed.get(reason, 0) + tokens
        if reason in AVOIDABLE_REASONS and tokens:
            tally = self.causes.setdefault(cause, _Tally())
            tally.num_turns += num_turns
            tally.tokens += tokens
            tally.lost_s += lost_s


def explain(records: Iterable[MissRecord], session_id: str | None = None) -> Explanation:
    """Explain the turns of a log; pure.

    Args:
        records: The turns, in the order of their ends.
        session_id: Only sessions with this id or number; None for all.
    """
    totals = _Totals()
    sessions: dict[tuple[int, int, int], SessionMisses] = {}
    ended: list[MissRecord] = []
    cache_tokens = 0
    for record in records:
        if session_id not in (None, record.session_id, str(record.session)):
            continue
        ended.append(record)
        cache_tokens = record.cache_tokens or cache_tokens
        totals.prompt_tokens += record.prompt_tokens
        totals.cached_tokens += record.cached_tokens
        for reason, tokens in record.missed.items():
            totals.add(reason, _cause(record, reason), tokens, record.lost_s.get(reason, 0.0))
        session = sessions.get(record.stream)
        if session is None:
            session = SessionMisses(record.session, record.session_id, record.engine)
            sessions[record.stream] = session
        _add_turn(session, record)
    order = sorted(sessions.values(), key=lambda s: (-s.lost_s, s.cached_tokens - s.prompt_tokens))
    working_set = _working_set(ended)
    found = _explanation(totals, cache_tokens, working_set, order, len(ended))
    found.waits = _waits(ended)
    return found


def explain_totals(
    cached_tokens: int,
    missed: Mapping[str, int],
    lost_s: Mapping[str, float],
    cache_tokens: int = 0,
    working_set_tokens: int = 0,
    changes: Mapping[str, tuple[int, float]] | None = None,
) -> Explanation:
    """Explain an engine's counters, which know no single turn; pure.

    Args:
        cached_tokens: Prompt tokens that were cached (count).
        missed: Missing ones by reason (counts).
        lost_s: Engine time to compute avoidable ones, by reason (s).
        cache_tokens: As in `Explanation`.
        working_set_tokens: Likewise.
        changes: Of tokens that changed prompts lost, count and time by reason and change, with a
            colon between.
    """
    totals = _Totals(cached_tokens + sum(missed.values()), cached_tokens)
    rest = {reason: (tokens, lost_s.get(reason, 0.0)) for reason, tokens in missed.items()}
    for cause, (tokens, seconds) in (changes or {}).items():
        reason = cause.partition(":")[0]
        totals.add(reason, cause if cause in SENTENCES else reason, tokens, seconds, num_turns=0)
        others, others_s = rest.get(reason, (0, 0.0))
        rest[reason] = max(others - tokens, 0), max(others_s - seconds, 0.0)
    for reason, (tokens, seconds) in rest.items():
        if tokens:
            totals.add(reason, reason, tokens, seconds, num_turns=0)
    return _explanation(totals, cache_tokens, working_set_tokens, [], None)


def _explanation(
    totals: _Totals,
    cache_tokens: int,
    working_set_tokens: int,
    sessions: list[SessionMisses],
    num_turns: int | None,
) -> Explanation:
    avoidable = sum(n for reason, n in totals.missed.items() if reason in AVOIDABLE_REASONS)
    new = totals.prompt_tokens - totals.cached_tokens - avoidable
    found = Explanation(
        verdict="",
        num_turns=num_turns,
        num_sessions=None if num_turns is None else len(sessions),
        prompt_tokens=totals.prompt_tokens,
        cached_tokens=totals.cached_tokens,
        missed=dict(sorted(totals.missed.items(), key=lambda item: -item[1])),
        hit_ratio=ratio(totals.cached_tokens, totals.prompt_tokens),
        possible_hit_ratio=ratio(totals.cached_tokens + avoidable, totals.prompt_tokens),
        thrash_index=ratio(avoidable, new),
        lost_s=sum(tally.lost_s for tally in totals.causes.values()),
        cache_tokens=cache_tokens,
        working_set_tokens=working_set_tokens,
        causes=_causes(totals),
        sessions=sessions,
    )
    found.verdict = _verdict(found)
    return found


def _waits(records: Iterable[MissRecord]) -> list[WaitCause]:
    """What turns waited for; those that started at once count for nothing."""
    tallies: dict[str, _Tally] = {}
    for record in records:
        if record.delayed_by in DELAYS:
            tally = tallies.setdefault(record.delayed_by, _Tally())
            tally.num_turns += 1
            tally.lost_s += record.waited_s
    ranked = sorted(tallies.items(), key=lambda item: -item[1].lost_s)
    return [
        WaitCause(reason, tally.num_turns, tally.lost_s, DELAYS[reason]) for reason, tally in ranked
    ]


def _causes(totals: _Totals) -> list[Cause]:
    ranked = sorted(totals.causes.items(), key=lambda item: (-item[1].lost_s, -item[1].tokens))
    return [
        Cause(
            cause,
            tally.num_turns,
            tally.tokens,
            tally.lost_s,
            SENTENCES.get(cause) or SENTENCES[cause.partition(":")[0]],
            REMEDIES.get(cause) or REMEDIES[cause.partition(":")[0]],
        )
        for cause, tally in ranked[:_MAX_CAUSES]
    ]


def _cause(record: MissRecord, reason: str) -> str:
    """The reason; of an eviction with the session's state, of a change with its kind."""
    if reason in CHANGED_REASONS and record.change in CHANGES:
        return f"{reason}:{record.change}"
    if reason != "evicted" or record.evicted is None:
        return reason
    return f"{reason}:{record.evicted.reason}"


def _add_turn(session: SessionMisses, record: MissRecord) -> None:
    session.num_turns += 1
    session.prompt_tokens += record.prompt_tokens
    session.cached_tokens += record.cached_tokens
    avoidable = {r: n for r, n in record.missed.items() if r in AVOIDABLE_REASONS}
    if not avoidable:
        return
    lost_s = sum(record.lost_s.values())
    session.lost_s += lost_s
    worst = max(avoidable, key=lambda reason: (record.lost_s.get(reason, 0.0), avoidable[reason]))
    session.turns.append(
        TurnMisses(
            record.turn,
            record.request,
            record.prompt_tokens,
            record.cached_tokens,
            record.missed,
            lost_s,
            _why(record, worst),
        )
    )


def _why(record: MissRecord, reason: str) -> str:
    tokens = record.missed[reason]
    if reason == "mutated" and record.mutated_at_tokens is not None:
        what = SENTENCES[_cause(record, reason)]
        return (
            f"{tokens:,} tokens changed: the prompt differs from turn {record.against_turn}"
            f" from token {record.mutated_at_tokens:,} on ({what})"
        )
    evicted = record.evicted
    if reason == "evicted" and evicted is not None:
        idle = "" if evicted.idle_s is None else f" after {evicted.idle_s:.1f} s of its pause"
        taker = "answers" if evicted.taken_by is None else f"session {evicted.taken_by}"
        due = "" if evicted.expected_s is None else f"; expected back {evicted.expected_s:.1f} s on"
        return (
            f"{tokens:,} tokens evicted ({evicted.reason}) for {taker},"
            f" {evicted.ago_s:.1f} s ago{idle}{due}"
        )
    return f"{tokens:,} tokens: {SENTENCES[reason]}"


def _working_set(records: list[MissRecord]) -> int:
    """The live sessions' last prompts together, at their most (tokens).

    A session is live from its first turn's end to its last one's.
    """
    last = {record.stream: index for index, record in enumerate(records)}
    prompts: dict[tuple[int, int, int], int] = {}
    total = most = 0
    for index, record in enumerate(records):
        total += record.prompt_tokens - prompts.get(record.stream, 0)
        prompts[record.stream] = record.prompt_tokens
        most = max(most, total)
        if last[record.stream] == index:
            total -= prompts.pop(record.stream)
    return most


def _verdict(found: Explanation) -> str:
    if not found.prompt_tokens:
        return "No turn has ended, so there is nothing to explain."
    hits = f"{found.hit_ratio or 0.0:.1%} of prompt tokens were cached"
    possible = f"{found.possible_hit_ratio or 0.0:.1%} could have been"
    index = found.thrash_index
    evicted = found.missed.get("evicted", 0)
    others = sum(found.missed.get(r, 0) for r in AVOIDABLE_REASONS) - evicted
    is_much = evicted + others > _SMALL_LOSS * found.prompt_tokens
    if is_much and (index is None or index > _THRASH_INDEX):
        times = "" if index is None else f", {index:.1f} recomputed tokens for each new one"
        if evicted >= others:
            return f"The cache thrashes: {hits}, {possible}{times}.{_sizes(found)}"
        return f"Prompts do not repeat what is cached: {hits}, {possible}{times}."
    new = 1.0 - (found.possible_hit_ratio or 0.0)
    if (found.hit_ratio or 0.0) < _FEW_HITS and new > _MANY_NEW:
        return f"Most prompt tokens are new: {hits}, {possible}. No cache setting changes that."
    return f"The cache works: {hits}, {possible}."


def _sizes(found: Explanation) -> str:
    if not found.cache_tokens or found.working_set_tokens <= found.cache_tokens:
        return ""
    return (
        f" The live sessions need {found.working_set_tokens:,} tokens at once, and the KV cache"
        f" holds {found.cache_tokens:,}."
    )
