"""Estimates the hits of N sessions that take turns on one engine, without a run.

Three conditions hold at once, and iteration from a full cache finds the state that meets them:

- A turn finds of its prefix what the tokens that others touched since its last turn have left.
  These are the contexts of the sessions active in that time, a normal variable of N - 1 terms.
  LRU evicts the end of a path first, so part of a prefix can be left.
- Missing tokens are computed one prompt after the other, and requests queue for that.
- No more requests run than contexts fit the cache; the others wait.

Source: the characteristic time of LRU (Che, Tung and Wang, "Hierarchical Web Caching Systems",
IEEE JSAC 20(7), 2002) and approximate mean value analysis of closed queues (Schweitzer, 1979).
Differs: few large items instead of many small ones, so the touched tokens have a variance; and
misses make requests slower, which makes pauses in the cache longer. That feedback is the cliff.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from holdfast.sim.profile import CostProfile
from holdfast.sim.turn_mix import Numbers, TurnMix

__all__ = ["CacheSize", "HitEstimate", "estimate_hits"]

_MOST_STEPS: Final = 150
_NEW_SHARE: Final = 0.4
_QUEUE_STEPS: Final = 6
_PRECISION: Final = 1e-4
_MOST_PREFILL_SHARE: Final = 0.95
_LEAST_DEVIATION_TOKENS: Final = 100.0
_NORMAL_AT: Final = np.linspace(-8.0, 8.0, 4001)
_NORMAL: Final = np.array([0.5 * (1.0 + math.erf(z / math.sqrt(2.0))) for z in _NORMAL_AT])


@dataclass(frozen=True, slots=True)
class CacheSize:
    """Where prefixes may be.

    Attributes:
        kv_tokens: Size of the KV cache.
        host_tokens: Size of the host tier, whose copies include the cache's content; 0 for none.
    """

    kv_tokens: int
    host_tokens: int = 0

    @property
    def reuse_tokens(self) -> int:
        """Tokens of the larger of the two: more recent ones are found in one of them."""
        return max(self.kv_tokens, self.host_tokens)


@dataclass(frozen=True, slots=True)
class HitEstimate:
    """The state of an engine at one load.

    Attributes:
        hit_ratio: Prompt tokens found in the cache or the tier ÷ prompt tokens.
        num_decoding: Mean number of requests that decode.
        wait_s: Mean time that a turn waits before it starts.
    """

    hit_ratio: float
    num_decoding: float
    wait_s: float


class _DecodeSteps:
    """Times of steps that only decode, between whole numbers of requests."""

    def __init__(self, profile: CostProfile, context: float) -> None:
        self._profile = profile
        self._work = (1, round(context))
        self._known: dict[int, float] = {}

    def time_s(self, num_decoding: float) -> float:
        """Time of one step (s)."""
        below = math.floor(num_decoding)
        low_s = self._whole_s(below)
        return low_s + (num_decoding - below) * (self._whole_s(below + 1) - low_s)

    def _whole_s(self, num_decoding: int) -> float:
        if num_decoding not in self._known:
            self._known[num_decoding] = self._profile.step_time_s([self._work] * num_decoding)
        return self._known[num_decoding]


@dataclass(slots=True)
class _State:
    steps: _DecodeSteps
    hits: Numbers
    loaded: Numbers
    turns_per_s: float = 0.0
    num_queued: float = 0.0
    num_decoding: float = 1.0
    serve_s: float = 0.0
    cycle_s: float = 0.0
    wait_s: float = 0.0


def estimate_hits(
    mix: TurnMix, profile: CostProfile, size: CacheSize, num_sessions: float
) -> HitEstimate:
    """Estimate the hits of `num_sessions` (>= 1) sessions in a closed loop. Pure.

    Sessions are taken to share no prefix, so shared heads make the true cache a little larger.
    """
    state = _State(
        _DecodeSteps(profile, mix.mean_prompt_tokens),
        hits=mix.kept_tokens.copy(),
        loaded=np.zeros_like(mix.kept_tokens),
    )
    for _ in range(_MOST_STEPS):
        _serve(state, mix, profile, size, num_sessions)
        in_cache = _found(state, mix, size.kv_tokens, num_sessions)
        found = in_cache
        if size.host_tokens > size.kv_tokens:
            found = _found(state, mix, size.reuse_tokens, num_sessions)
        change = float(np.abs(found - state.hits).mean()) / mix.mean_prompt_tokens
        state.hits = state.hits + _NEW_SHARE * (found - state.hits)
        state.loaded = np.maximum(state.hits - in_cache, 0.0)
        if change < _PRECISION:
            break
    hit_ratio = float(state.hits.sum() / mix.prompt_tokens.sum())
    return HitEstimate(hit_ratio, state.num_decoding, state.wait_s)


def _serve(
    state: _State, mix: TurnMix, profile: CostProfile, size: CacheSize, num_sessions: float
) -> None:
    """Move queue and batch towards what the hits make of them. Mutates the state."""
    missing = mix.prompt_tokens - state.hits
    attended = missing * (state.hits + missing / 2)
    load_s = state.loaded * (profile.kv_bytes_per_token / profile.host_link_bytes_per_s)
    prefill_s = float(
        profile.prefill_s_per_token * missing.mean()
        + profile.prefill_s_per_token_context * attended.mean()
        + load_s.mean()
    )
    gap_s, output_tokens = float(mix.gap_s.mean()), float(mix.output_tokens.mean())
    most_running = max(1.0, min(num_sessions, size.kv_tokens / float(_contexts(mix).mean())))
    for _ in range(_QUEUE_STEPS):
        busy = min(state.turns_per_s * prefill_s, _MOST_PREFILL_SHARE)
        decode_s = output_tokens * state.steps.time_s(state.num_decoding) / (1.0 - busy)
        others = (num_sessions - 1.0) / num_sessions
        response_s = prefill_s * (1.0 + state.num_queued * others)
        state.serve_s = prefill_s + decode_s
        least_s = num_sessions * state.serve_s / most_running
        state.cycle_s = max(gap_s + response_s + decode_s, least_s)
        state.turns_per_s += 0.5 * (num_sessions / state.cycle_s - state.turns_per_s)
        state.num_queued += 0.5 * (state.turns_per_s * response_s - state.num_queued)
        decoding = min(state.turns_per_s * decode_s, most_running)
        state.num_decoding += 0.5 * (decoding - state.num_decoding)
    state.wait_s = max(state.cycle_s - gap_s - state.serve_s, 0.0)


def _found(state: _State, mix: TurnMix, cache_tokens: int, num_sessions: float) -> Numbers:
    """Tokens of each turn's prefix that an LRU cache still has."""
    contexts = _contexts(mix)
    age_s = mix.gap_s + state.wait_s
    touched = np.minimum((state.serve_s + _mean_up_to(age_s)) / state.cycle_s, 1.0)
    mean = float(contexts.mean())
    others = num_sessions - 1.0
    variance = others * (touched * float((contexts**2).mean()) - (touched * mean) ** 2)
    deviation = np.sqrt(np.maximum(variance, _LEAST_DEVIATION_TOKENS**2))
    left = cache_tokens - others * mean * touched
    kept = mix.kept_tokens
    above = deviation * (_excess(left / deviation) - _excess((left - kept) / deviation))
    found: Numbers = np.clip(above, 0.0, kept)
    return found


def _contexts(mix: TurnMix) -> Numbers:
    return mix.prompt_tokens + mix.output_tokens


def _mean_up_to(values: Numbers) -> Numbers:
    """For each value v the mean over all values of min(value, v)."""
    order = np.argsort(values)
    ascending = values[order]
    num_above = len(values) - 1 - np.arange(len(values))
    means = np.empty_like(values)
    means[order] = (np.cumsum(ascending) + ascending * num_above) / len(values)
    return means


def _excess(z: Numbers) -> Numbers:
    """Expected positive part of z plus a standard normal variable."""
    density = np.exp(-0.5 * np.square(np.clip(z, -40.0, 40.0))) / math.sqrt(2.0 * math.pi)
    positive: Numbers = z * np.interp(z, _NORMAL_AT, _NORMAL) + density
    return positive
