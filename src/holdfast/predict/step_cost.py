"""Time that computing takes on this engine, learned from the times of its steps.

Knows no hardware: each step's time is divided among prompt tokens, attention, decodes and the step
itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["StepCostModel", "StepCosts", "StepWork"]

_MEMORY = 0.995  # of a step's weight, for each step after it
_STEPS_BETWEEN_FITS = 16
_FIRST_STEPS = 4
_SWEEPS = 12
_TURN_MEMORY = 0.98
_MEAN_GAIN = 0.01
_SHORTEST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class StepWork:
    """Work of one engine step, or of several that only decode after the first.

    Attributes:
        num_steps: Engine steps (count, >= 1).
        prefill_tokens: Prompt tokens computed (count).
        attended_pairs: Pairs of such a token and a token before it (count).
        num_decodes: Tokens decoded (count).
    """

    num_steps: int
    prefill_tokens: int
    attended_pairs: float
    num_decodes: int


class StepCosts(NamedTuple):
    """What each part of a step's work takes.

    Attributes:
        step_s: Any step (s).
        prefill_s_per_token: A prompt token (s).
        prefill_s_per_pair: A pair of a prompt token and a token before it (s).
        decode_s: A decoded token (s).
    """

    step_s: float
    prefill_s_per_token: float
    prefill_s_per_pair: float
    decode_s: float


class StepCostModel:
    """Non-negative least squares of step times on their work; recent steps count most.

    Relative errors count, so that short steps weigh as much as long ones, down to a fraction of the
    mean: outputs that come in a burst leave steps of almost no time. Answers 0 before the first
    prompt.

    Source: cyclic coordinate descent for non-negative least squares, Franc, Hlavac and Navara,
    CAIP 2005.
    Differs: online, from exponentially weighted sums; a few sweeps from the last solution.
    """

    def __init__(self) -> None:
        self._gram = [[0.0] * 4 for _ in range(4)]
        self._target = [0.0] * 4
        self._cost = [0.0] * 4
        self._mean_s = 0.0
        self._num_unfitted = 0
        self._num_fits = 0
        self._decoding_s = 0.0
        self._decodes = 0.0
        self._turns = 0.0

    def observe(self, work: StepWork, seconds: float) -> None:
        """Learn from a step that took `seconds`, during which nothing else ran. Mutates."""
        if not 0.0 < seconds < float("inf"):
            return
        features = _features(work)
        self._mean_s += _MEAN_GAIN * (seconds - self._mean_s) if self._mean_s else seconds
        shortest_s = _SHORTEST_SHARE * self._mean_s
        weight = 1.0 / (seconds * seconds + shortest_s * shortest_s)
        for i, row in enumerate(self._gram):
            weighted = weight * features[i]
            self._target[i] = _MEMORY * self._target[i] + weighted * seconds
            for j in range(4):
                row[j] = _MEMORY * row[j] + weighted * features[j]
        self._num_unfitted += 1
        if self._num_unfitted >= (_STEPS_BETWEEN_FITS if self._num_fits else _FIRST_STEPS):
            self._fit()
        self._decodes += work.num_decodes
        self._decoding_s += max(seconds - self._prefill_s(features[1], features[2]), 0.0)

    def step_s(self, work: StepWork) -> float:
        """Return the expected time of such a step (s). Pure."""
        return sum(c * f for c, f in zip(self._cost, _features(work), strict=True))

    def turn_ended(self) -> None:
        """Count a completed output. Mutates."""
        self._decoding_s *= _TURN_MEMORY
        self._decodes *= _TURN_MEMORY
        self._turns = _TURN_MEMORY * self._turns + 1.0

    def prefill_s(self, num_tokens: float, context_tokens: float = 0.0) -> float:
        """Return engine time for prompt tokens after `context_tokens` (s). Pure."""
        return self._prefill_s(num_tokens, num_tokens * (context_tokens + 0.5 * num_tokens))

    @property
    def costs(self) -> StepCosts | None:
        """The costs as learned so far; None before the first prompt."""
        return StepCosts(*self._cost) if any(self._cost) else None

    @property
    def decode_s(self) -> float:
        """Mean engine time of a turn's decoding, shared with concurrent turns (s)."""
        return self._decoding_s / self._turns if self._turns else 0.0

    @property
    def shared_decode_s(self) -> float:
        """The part of `decode_s` that steps take for any number of decodes (s).

        A turn that runs beside others saves the engine as much: its tokens come out of steps that
        are taken anyway.
        """
        own_s = self._cost[3] * self._decodes
        return max(self._decoding_s - own_s, 0.0) / self._turns if self._turns else 0.0

    def _prefill_s(self, num_tokens: float, attended_pairs: float) -> float:
        return self._cost[1] * num_tokens + self._cost[2] * attended_pairs

    def _fit(self) -> None:
        self._num_unfitted = 0
        self._num_fits += 1
        cost = self._cost
        for _ in range(_SWEEPS):
            for i, row in enumerate(self._gram):
                if row[i] > 0.0:
                    others = sum(row[j] * cost[j] for j in range(4) if j != i)
                    cost[i] = max((self._target[i] - others) / row[i], 0.0)


def _features(work: StepWork) -> tuple[float, float, float, float]:
    return (
        float(work.num_steps),
        float(work.prefill_tokens),
        work.attended_pairs,
        float(work.num_decodes),
    )
