"""The turns of recorded sessions as arrays: what a capacity estimate goes by."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import ConfigError
from holdfast.traces.record import Session
from holdfast.workload.study.turn_sample import TurnSample, TurnSampleMeter

__all__ = ["TurnMix"]

Numbers = NDArray[np.float64]

_MIN_SESSIONS = 2


@dataclass(frozen=True, slots=True)
class TurnMix:
    """Turns of many sessions, in no order.

    A closed loop that runs for long sends every recorded turn equally often, so each counts once.

    Attributes:
        prompt_tokens: Length of each prompt.
        kept_tokens: Leading tokens that the session's last prompt had too; 0 for first turns.
        output_tokens: Length of each answer, at least 1.
        gap_s: Time from the last answer to the turn, 0 for first turns.
        session: Number of each turn's session, from 0.
        num_outgrown: Sessions left out because they outgrow the KV cache.
    """

    prompt_tokens: Numbers
    kept_tokens: Numbers
    output_tokens: Numbers
    gap_s: Numbers
    session: NDArray[np.int64]
    num_outgrown: int = 0

    @classmethod
    def of(cls, sessions: Iterable[Session], max_tokens: int) -> TurnMix:
        """The turns of all sessions that stay within `max_tokens`. Pure.

        Raises:
            ConfigError: Fewer than two sessions do.
        """
        meter = TurnSampleMeter()
        for session in sessions:
            meter.add(session)
        return cls.of_sample(meter.result(), max_tokens)

    @classmethod
    def of_sample(cls, sample: TurnSample, max_tokens: int, gap_cap_s: float = math.inf) -> TurnMix:
        """The turns of a sample whose sessions stay within `max_tokens`. Pure.

        Args:
            sample: The sample.
            max_tokens: Size of the KV cache.
            gap_cap_s: Longest gap; longer ones are cut to it (s).

        Raises:
            ConfigError: Fewer than two sessions do.
            ValueError: A column holds something else than numbers.
        """
        session = sample.column("session").astype(np.int64)
        fits = sample.column("peak_tokens") <= max_tokens
        numbers, session_of = np.unique(session[fits], return_inverse=True)
        num_outgrown = len(np.unique(session[~fits]))
        if len(numbers) < _MIN_SESSIONS:
            raise ConfigError(
                f"{len(numbers)} sessions fit {max_tokens:,} KV tokens, {num_outgrown} outgrow "
                f"them; a plan needs at least {_MIN_SESSIONS}",
                hint="give more traces, or a larger --kv-tokens",
            )
        names = ("prompt_tokens", "kept_tokens", "output_tokens")
        prompt, kept, output = (sample.column(name)[fits] for name in names)
        gap_s = np.minimum(sample.column("gap_ms")[fits] / 1e3, gap_cap_s)
        return cls(prompt, kept, output, gap_s, session_of.astype(np.int64), num_outgrown)

    @property
    def num_sessions(self) -> int:
        """Number of sessions."""
        return int(self.session.max()) + 1

    @property
    def mean_prompt_tokens(self) -> float:
        """Mean length of a prompt (tokens)."""
        return float(self.prompt_tokens.mean())

    @property
    def best_hit_ratio(self) -> float:
        """Kept tokens ÷ prompt tokens: hits of a cache that never evicts."""
        return float(self.kept_tokens.sum() / self.prompt_tokens.sum())

    def resampled(self, random: np.random.Generator) -> TurnMix:
        """As many sessions, drawn with replacement: a bootstrap sample. Mutates `random`."""
        order = np.argsort(self.session, kind="stable")
        bounds = np.searchsorted(self.session[order], np.arange(self.num_sessions + 1))
        drawn = random.integers(self.num_sessions, size=self.num_sessions)
        turns = [order[bounds[number] : bounds[number + 1]] for number in drawn]
        sessions = np.repeat(np.arange(len(drawn)), [len(each) for each in turns])
        return self._at(np.concatenate(turns), sessions)

    def thinned(self, num_turns: int) -> TurnMix:
        """At most so many turns, evenly over prompts in order of their gaps. Pure."""
        if len(self.gap_s) <= num_turns:
            return self
        order = np.lexsort((self.prompt_tokens, self.gap_s))
        chosen = order[np.linspace(0, len(order) - 1, num_turns).astype(int)]
        return self._at(chosen, self.session[chosen])

    def _at(self, turns: NDArray[np.int64], sessions: NDArray[np.int64]) -> TurnMix:
        return TurnMix(
            self.prompt_tokens[turns],
            self.kept_tokens[turns],
            self.output_tokens[turns],
            self.gap_s[turns],
            sessions,
            self.num_outgrown,
        )
