"""A lower bound on the LLM time of sessions, whatever policy serves them.

In a closed loop every session but the first ones starts when another ends, so the times of all
sessions add up to the last completion times, as many as are live at once. Until k sessions have
ended the engine has done all that k of them need, and the k that need least need no less than
their sum. A session needs engine time and memory, a share of the cache for a time. Neither can
exceed the time that has passed, so no weighted mean of the two can; the best of several weights
counts. A token that earlier prompts of its session had, and no other session, is in the cache
during the pause before it is used again, or is computed again: the cheaper counts.

A decode step's fixed cost is shared by the contexts that fit the cache, or by the sessions that
are live; a prompt's tokens cost what they add to the fullest step. What sessions share is free.
The LLM time is also no less than that of turns that run alone with all repeated tokens cached.

Differs from what a policy can do: queues, order and whole blocks cost nothing. It does not hold
with an infinite cache, in a window, or where a session waits for others during its gaps.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from holdfast.sim.profile import CostProfile
from holdfast.sim.replays import Replays

__all__ = ["llm_time_bound_s"]

_ENGINE_WEIGHTS: Final = tuple(i / 8 for i in range(9))
_BASE_SHARES: Final = (0.0, 0.5, 1.0)

_Floats = npt.NDArray[np.float64]


def llm_time_bound_s(
    replays: Replays,
    profile: CostProfile,
    kv_tokens: int,
    concurrency: int | None,
    *,
    time_scale: float = 1.0,
    has_tiers: bool = False,
) -> float:
    """The least mean LLM time of a session that any policy can reach. Pure.

    See the module for how, and for where it does not hold.

    Args:
        replays: The run's sessions, in start order, each run once; at least one.
        profile: Costs of the engine's steps.
        kv_tokens: Size of the KV cache (tokens, > 0).
        concurrency: Sessions live at once (>= 1); None where they start at their arrivals, so that
            only turns alone bound them.
        time_scale: Simulated seconds per recorded second of a gap (>= 0).
        has_tiers: Whether lower tiers may restore tokens instead; then pauses cost nothing.

    Returns:
        Seconds (>= 0).
    """
    demand = _demand(replays, time_scale)
    num_sessions = len(replays.sessions)
    live = min(concurrency or 1, num_sessions)
    costs = _Costs(profile, kv_tokens, min(live, profile.max_num_seqs))
    alone_s = demand.by_session(costs.alone_s(demand))
    if concurrency is None:
        return float(alone_s.mean())
    gaps_s = demand.by_session(demand.gaps_s)
    bound_s = float(alone_s.sum())
    for weight, base, by_memory in product(_ENGINE_WEIGHTS, _BASE_SHARES, _BASE_SHARES):
        mix = _Mix(weight, base, by_memory, has_tiers)
        needs_s = demand.by_session(costs.need_s(demand, mix))
        ends_s = _completions_s(needs_s, alone_s + gaps_s, live)
        bound_s = max(bound_s, float(ends_s[-live:].sum() - gaps_s.sum()))
    return bound_s / num_sessions


@dataclass(frozen=True, slots=True)
class _Demand:
    """What turns ask for; arrays over the turns of all sessions.

    Attributes:
        session: The number of the turn's session, in start order.
        shared: Leading tokens that other sessions also have (count).
        seen: Leading tokens that other sessions or earlier prompts have, >= `shared` (count).
        prompt: Tokens of the prompt (count).
        decoded: Tokens of the answer after the first (count).
        gaps_s: Pause before the turn (s).
    """

    session: npt.NDArray[np.intp]
    shared: _Floats
    seen: _Floats
    prompt: _Floats
    decoded: _Floats
    gaps_s: _Floats

    def by_session(self, of_turns: _Floats) -> _Floats:
        """Sums over each session's turns. Pure."""
        totals: _Floats = np.bincount(self.session, weights=of_turns).astype(np.float64)
        return totals


@dataclass(frozen=True, slots=True)
class _Mix:
    """How a need weighs what bounds it; shares from 0 to 1.

    Attributes:
        engine: Share of engine time; the rest is memory.
        decodes: Share of a step's fixed cost that decodes bear; the rest falls on prompt tokens.
        by_memory: Share of the decodes' part by context; the rest by live session.
        has_tiers: Whether pauses cost nothing.
    """

    engine: float
    decodes: float
    by_memory: float
    has_tiers: bool


@dataclass(frozen=True, slots=True)
class _Costs:
    """Least costs of tokens on an engine.

    Attributes:
        profile: Costs of its steps.
        kv_tokens: Size of the cache (tokens).
        most_decodes: Most sequences that decode in one step (count).
    """

    profile: CostProfile
    kv_tokens: float
    most_decodes: int

    def need_s(self, demand: _Demand, mix: _Mix) -> _Floats:
        """Weighted mean of the engine time and memory that each turn needs (s). Pure."""
        memory = (1.0 - mix.engine) / self.kv_tokens
        depth_s = memory * self._alone_token_s
        new_s = mix.engine * self._prefill_s(demand.seen, demand.prompt, 1.0 - mix.decodes)
        new_s = new_s + depth_s * _sum_of(demand.seen - demand.shared, demand.prompt - demand.seen)
        total_s = new_s + self._answer_s(demand, mix, memory)
        if not mix.has_tiers:
            total_s = total_s + self._pauses_s(demand, mix, memory, depth_s)
        return total_s

    def alone_s(self, demand: _Demand) -> _Floats:
        """Latency of each turn alone, with every repeated token cached (s). Pure."""
        profile = self.profile
        num_steps = np.maximum(1.0, np.ceil((demand.prompt - demand.seen) / self._most_tokens))
        prefill_s = np.maximum(
            num_steps * profile.step_base_s, self._prefill_s(demand.seen, demand.prompt, 1.0)
        )
        step_s = profile.step_base_s + self._experts_s(1)
        first_step_s = [profile.step_time_s([(1, int(context))]) for context in demand.prompt]
        answer_s = np.maximum(
            demand.decoded * step_s + self._decode_s(demand), demand.decoded * first_step_s
        )
        overhead_s = [profile.request_overhead_for_s(int(tokens)) for tokens in demand.prompt]
        alone_s: _Floats = prefill_s + answer_s + overhead_s
        return alone_s

    def _answer_s(self, demand: _Demand, mix: _Mix, memory: float) -> _Floats:
        """The part of the answers in a session's need."""
        profile = self.profile
        context = _sum_of(demand.prompt - demand.shared, demand.decoded)
        shares = mix.by_memory * context / self.kv_tokens
        shares = shares + (1.0 - mix.by_memory) * demand.decoded / self.most_decodes
        experts_s = demand.decoded * self._experts_s(self.most_decodes) / self.most_decodes
        fixed_s = mix.decodes * (profile.step_base_s * shares + experts_s)
        occupied_s = context * (profile.step_base_s + profile.decode_s_per_seq)
        return mix.engine * (fixed_s + self._decode_s(demand)) + memory * occupied_s

    def _pauses_s(self, demand: _Demand, mix: _Mix, memory: float, depth_s: float) -> _Floats:
        """The part of the pauses: each repeated token is kept or computed again.

        Computing a token again takes more the deeper it is, and all before it are in the cache
        then; keeping it takes the same at each depth.
        """
        kept_s = memory * demand.gaps_s
        rise_s = mix.engine * self._context_s + depth_s
        token_s, first_s, depth = self._token_s(1.0 - mix.decodes)
        middle = np.clip(depth, demand.shared, demand.seen)
        offset_s = mix.engine * np.array([first_s, token_s]) - depth_s * demand.shared[:, None]
        first_part = _sum_of_lesser(offset_s[:, 0], rise_s, kept_s, demand.shared, middle)
        return first_part + _sum_of_lesser(offset_s[:, 1], rise_s, kept_s, middle, demand.seen)

    def _prefill_s(self, low: _Floats, high: _Floats, base_share: float) -> _Floats:
        """Engine time of the prompt tokens from `low` to `high`."""
        token_s, first_s, depth = self._token_s(base_share)
        num_first = np.clip(depth, low, high) - low
        flat_s = first_s * num_first + token_s * (high - low - num_first)
        engine_s: _Floats = flat_s + self._context_s * _sum_of(low, high - low)
        return engine_s

    def _decode_s(self, demand: _Demand) -> _Floats:
        """Engine time that only the decodes of the answers take."""
        profile = self.profile
        flat_s = demand.decoded * profile.decode_s_per_seq
        return flat_s + self._decode_context_s * _sum_of(demand.prompt, demand.decoded)

    def _token_s(self, base_share: float) -> tuple[float, float, float]:
        """Least cost of a prompt token, that of the first ones, and how many those are.

        A step costs at least so much for each of its prompt tokens, however many they are. A prompt
        token that is alone in its step counts as a decode, which is cheaper after little context.
        """
        profile = self.profile
        base_s = base_share * profile.step_base_s
        hidden = profile.hidden_prefill_tokens
        most = self._most_tokens
        token_s = min(
            (base_s + profile.prefill_s_per_token * max(num_tokens - hidden, 0)) / num_tokens
            for num_tokens in (max(1, min(hidden, most)) if hidden else most, most)
        )
        token_s += base_share * self._experts_s(most) / most
        # A prompt token attends to half a token more than a decode after equal context.
        first_s = min(token_s, profile.decode_s_per_seq - 0.5 * self._context_s)
        rise_s = self._decode_context_s - self._context_s
        if token_s <= first_s:
            return token_s, first_s, 0.0
        return token_s, first_s, (token_s - first_s) / rise_s if rise_s > 0.0 else float("inf")

    def _experts_s(self, num_tokens: int) -> float:
        """Time to read the experts that so many tokens need."""
        profile = self.profile
        missed: float = (1.0 - profile.sparse_share_per_token) ** num_tokens
        return profile.sparse_read_s * (1.0 - missed)

    @property
    def _alone_token_s(self) -> float:
        """Least time of a step, divided by its prompt tokens."""
        profile = self.profile
        return min(self._token_s(1.0)[0], profile.step_base_s + profile.decode_s_per_seq)

    @property
    def _context_s(self) -> float:
        """Least cost of a prompt token per token of context."""
        return min(self.profile.prefill_s_per_token_context, self._decode_context_s)

    @property
    def _decode_context_s(self) -> float:
        """Least cost of a decode per token of context, however many tokens a step has."""
        points = ((0, 0.0), *self.profile.decode_context_s)
        if len(points) == 1:
            return self.profile.decode_s_per_context_token
        (before, before_s), (last, last_s) = points[-2:]
        slope_s = (last_s - before_s) / (last - before)
        return min(slope_s, *(seconds / tokens for tokens, seconds in points[1:]))

    @property
    def _most_tokens(self) -> int:
        return self.profile.max_num_batched_tokens


def _completions_s(needs_s: _Floats, durations_s: _Floats, live: int) -> _Floats:
    """Least completion times of sessions, in order of completion (s). Pure.

    Args:
        needs_s: Time of the engine that each needs for itself (s), in start order.
        durations_s: Least time from its start to its end (s).
        live: Sessions live at once (count).
    """
    num_sessions = len(needs_s)
    served_s = np.array(
        [np.sort(needs_s[: live + k - 1])[:k].sum() for k in range(1, num_sessions + 1)]
    )
    running: list[float] = []
    ends_s = []
    for number, duration_s in enumerate(durations_s):
        start_s = 0.0
        if number >= live:
            start_s = max(heapq.heappop(running), float(served_s[number - live]))
        ends_s.append(start_s + float(duration_s))
        heapq.heappush(running, ends_s[-1])
    last_s: _Floats = np.maximum(np.sort(ends_s), served_s)
    return last_s


def _sum_of(first: _Floats, count: _Floats) -> _Floats:
    """Sum of `count` consecutive numbers from `first` on. Pure."""
    total: _Floats = count * (first + 0.5 * np.maximum(count - 1.0, 0.0))
    return total


def _sum_of_lesser(
    from_s: _Floats, rise_s: float, most_s: _Floats, low: _Floats, high: _Floats
) -> _Floats:
    """Integral of min(from_s + rise_s * x, most_s) over x from `low` to `high`. Pure."""
    if rise_s > 0.0:
        turn = np.clip((most_s - from_s) / rise_s, low, high)
    else:
        turn = np.where(from_s < most_s, high, low)
    rising_s = (turn - low) * (from_s + 0.5 * rise_s * (low + turn))
    flat_s: _Floats = (high - turn) * most_s
    return rising_s + flat_s


def _demand(replays: Replays, time_scale: float) -> _Demand:
    """What all turns ask for."""
    shared = _shared_blocks(replays)
    rows = []
    for number, session in enumerate(replays.sessions):
        others = shared[replays.salt(number)]
        known = set(others)
        block_tokens = replays.block_tokens(number)
        for index, turn in enumerate(session.turns):
            num_known = _num_leading(turn.block_ids, known)
            rows.append(
                (
                    number,
                    _num_leading(turn.block_ids, others) * block_tokens,
                    num_known * block_tokens,
                    replays.prompt_tokens(number, index),
                    replays.output_tokens(number, index) - 1,
                    turn.gap_s * time_scale if index else 0.0,
                )
            )
            known.update(turn.block_ids[num_known:])
    numbers, *columns = np.array(rows, dtype=np.float64).T
    return _Demand(numbers.astype(np.intp), *columns)


def _shared_blocks(replays: Replays) -> dict[bytes, set[int]]:
    """Blocks that more than one session has, by the salt of the sessions' block keys."""
    found: dict[bytes, set[int]] = {}
    shared: dict[bytes, set[int]] = {}
    for number, session in enumerate(replays.sessions):
        salt = replays.salt(number)
        own: set[int] = set()
        for turn in session.turns:
            own.update(turn.block_ids[_num_leading(turn.block_ids, own) :])
        earlier = found.setdefault(salt, set())
        shared.setdefault(salt, set()).update(earlier & own)
        earlier |= own
    return shared


def _num_leading(block_ids: Sequence[int], known: set[int]) -> int:
    """Leading blocks that are known; a known block has known ones before it. Pure."""
    return bisect_left(block_ids, True, key=lambda block: block not in known)
