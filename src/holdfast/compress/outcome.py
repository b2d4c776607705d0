"""One question to one cache, and how it was answered."""

from __future__ import annotations

import msgspec

__all__ = ["FULL", "Outcome"]

FULL = "full"
"""Name of the cache that nothing is evicted from, in results."""


class Outcome(msgspec.Struct, frozen=True):
    """One question to one compacted session.

    Attributes:
        task: The sample's kind.
        seed: The sample's seed.
        turn: After which turn (from 0).
        question: Which of the turn's questions (from 0).
        method: The method's spelling, or `full`.
        share: Entries that stay, of all tokens (0 to 1].
        nll: Mean of -log p over the answer's tokens (nats).
        is_exact: Whether each token of the answer is the likeliest one, which a greedy answer is.
        retained_mean: Share of the question's attention to the context that falls on entries that
            stay, mean over layers and KV heads (0 to 1).
        retained_min: The same of the worst head.
    """

    task: str
    seed: int
    turn: int
    question: int
    method: str
    share: float
    nll: float
    is_exact: bool
    retained_mean: float
    retained_min: float
