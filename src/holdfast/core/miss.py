"""Misses: why tokens of a prompt were not in the KV cache when its turn started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, get_args

from holdfast.core.prompt_change import ChangeKind

__all__ = [
    *(
        "AVOIDABLE_REASONS",
        "CHANGED_REASONS",
        "MISS_REASONS",
        "REPEATED_REASONS",
        "Attribution",
        "EngineStep",
    ),
    "Eviction",
    *("KnownPrompt", "MissReason", "missed_tokens"),
]

MissReason = Literal[
    "mutated",
    "answer_changed",
    "evicted",
    "not_admitted",
    "offload_declined",
    "tier_load_failed",
    "below_block_size",
    "salt_changed",
    "other_model",
    "restart",
    "other_replica",
    "never_seen",
]
"""Why a token was missing.

`mutated`: the session's last prompt had other tokens from some depth on. `answer_changed`: the
prompt repeats the last prompt, but not the answer as it was generated. `evicted`: its block was
dropped for another. `not_admitted`: a turn with the same prefix had not computed it yet.
`offload_declined`: a tier stores it, and it was not loaded. `tier_load_failed`: a tier stored it,
and its load, or that of a block before it, failed. `below_block_size`: it was seen, but not in a
whole block; the engine caches whole blocks, and computes the last one of a prompt again.
`salt_changed`, `other_model`: it was computed under another `cache_salt`, or for another adapter.
`restart`: it was computed before the cache was reset. `other_replica`: another engine has it, as
the gateway says. `never_seen`: none of these; it is new.
"""

MISS_REASONS: Final[tuple[MissReason, ...]] = get_args(MissReason)

AVOIDABLE_REASONS: Final = frozenset(MISS_REASONS) - {"never_seen", "below_block_size"}
"""Reasons that cost time which another decision, of a client or of ours, could have saved."""

REPEATED_REASONS: Final = AVOIDABLE_REASONS - {
    *("mutated", "answer_changed", "salt_changed", "other_model", "other_replica")
}
"""Avoidable reasons of tokens that an infinite cache of the same engine would have had."""


CHANGED_REASONS: Final[frozenset[MissReason]] = frozenset({"mutated", "answer_changed"})
"""Reasons of tokens that a changed prompt lost."""


@dataclass(slots=True, eq=False)
class EngineStep:
    """One engine step, as its evictions refer to it.

    Attributes:
        taken_by: Number of the first session whose turn started in it and needed blocks; None if
            none did.
    """

    taken_by: int | None = None


class Eviction(NamedTuple):
    """Blocks of one node that were evicted together.

    Attributes:
        reason: See `Victim`.
        at_s: When (s, host's clock).
        num_blocks: Consecutive blocks of a path (count); 0 if they may be of several.
        step: The engine step; None outside of steps.
        session: Number of the session that used them; None if several did, or none.
        idle_since_s: Since when that session was idle (s, host's clock); None if it was not, or
            there is none.
        gap: Features of its pause, for prediction; None unless it had paused.
        speed: Its session speed factor.
        expected_gap_s: Its client's hint on the pause (s), or None.
    """

    reason: str
    at_s: float
    num_blocks: int
    step: EngineStep | None = None
    session: int | None = None
    idle_since_s: float | None = None
    gap: Any = None
    speed: Any = None
    expected_gap_s: float | None = None

    @property
    def idle_s(self) -> float | None:
        """How long its session had been idle (s); None if it was not. Pure."""
        return None if self.idle_since_s is None else self.at_s - self.idle_since_s

    @property
    def taken_by(self) -> int | None:
        """Number of the session whose turn needed blocks in the same step. Pure.

        None if none did, so that answers took them as they grew.
        """
        return None if self.step is None else self.step.taken_by


@dataclass(slots=True, eq=False)
class KnownPrompt:
    """What was known of a prompt when its turn arrived, and what its start showed.

    Attributes:
        hashes: Prefix hashes of its full blocks, until it starts.
        seen_tokens: Leading tokens in whole blocks that an earlier prompt or answer had (count).
        repeated_tokens: Leading tokens that the session's last turn had, block or not (count).
        changed_tokens: Length of the session's last prompt if this one does not extend it; else 0.
        answered_tokens: Length of that prompt and its answer, in whole blocks (count).
        mutated_at_tokens: Leading tokens, in whole blocks, that both prompts share; None if the
            prompt extends the last one or is the first.
        against_turn: Number of the session's turn that it is compared with; None for the first.
        elsewhere: Why further tokens are missing although they were seen elsewhere, and up to which
            token, in order.
        cached_tokens: Leading tokens that the engine had at the start (count); None before.
        lost: Why seen tokens were missing, and up to which token, in order.
        eviction: The eviction of the first missing token's block, if that was evicted.
        change: What changed since the session's last prompt, as the API server found; None if it
            found nothing.
    """

    hashes: Sequence[bytes] = ()
    seen_tokens: int = 0
    repeated_tokens: int = 0
    changed_tokens: int = 0
    answered_tokens: int = 0
    mutated_at_tokens: int | None = None
    against_turn: int | None = None
    elsewhere: Sequence[tuple[MissReason, int]] = ()
    cached_tokens: int | None = None
    lost: Sequence[tuple[MissReason, int]] = ()
    eviction: Eviction | None = None
    change: ChangeKind | None = None

    def note_elsewhere(self, num_tokens: int) -> None:
        """Take in how many leading tokens another engine has. Mutates."""
        self.elsewhere = *self.elsewhere, ("other_replica", num_tokens)

    def reasons(self, prompt_tokens: int, block_tokens: int) -> list[tuple[MissReason, int]]:
        """Reasons with the token up to which each applies, in order. Pure.

        The last token of a prompt is always computed, so a prompt of whole blocks computes its last
        block again.
        """
        cacheable = (prompt_tokens - 1) // block_tokens * block_tokens
        ends: list[tuple[MissReason, int]] = [
            (reason, min(end, cacheable)) for reason, end in self.lost
        ]
        ends += [
            ("below_block_size", max(self.seen_tokens, self.repeated_tokens)),
            ("mutated", self.changed_tokens),
            ("answer_changed", self.answered_tokens),
        ]
        return [*ends, *self.elsewhere, ("never_seen", prompt_tokens)]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Why each token of one turn's prompt was missing.

    Attributes:
        prompt_tokens: Tokens of the prompt (count).
        cached_tokens: Those of them that the engine had (count).
        cache_tokens: Tokens that the KV cache holds (count).
        missed: Missing tokens by reason (counts); with `cached_tokens` they are `prompt_tokens`.
        lost_s: Engine time to compute them, by reason (s); 0 before costs are known. Only
            `AVOIDABLE_REASONS`.
        known: What the reasons are from.
        expected_s: Time from the eviction until the session was expected back (s); None if its
            blocks were not evicted, or not those of one paused session.
    """

    prompt_tokens: int
    cached_tokens: int
    cache_tokens: int
    missed: Mapping[MissReason, int]
    lost_s: Mapping[MissReason, float] = field(default_factory=dict)
    known: KnownPrompt = field(default_factory=KnownPrompt)
    expected_s: float | None = None

    @property
    def change(self) -> ChangeKind | None:
        """What change of the prompt its missing tokens are from; None if none are. Pure."""
        return self.known.change if CHANGED_REASONS & self.missed.keys() else None


def missed_tokens(
    cached_tokens: int, prompt_tokens: int, ends: Iterable[tuple[MissReason, int]]
) -> list[tuple[MissReason, int, int]]:
    """Divide missing tokens among reasons: reason, first token, count. Pure.

    Args:
        cached_tokens: Leading tokens that are not missing (count).
        prompt_tokens: Tokens of the prompt (count).
        ends: Reasons in order, each with the token up to which it applies; the last one's is
            `prompt_tokens`.
    """
    parts: list[tuple[MissReason, int, int]] = []
    first = cached_tokens
    for reason, end in ends:
        last = min(end, prompt_tokens)
        if last > first:
            parts.append((reason, first, last - first))
            first = last
    return parts
