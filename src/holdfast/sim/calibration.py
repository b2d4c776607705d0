"""Fits a cost profile to the turns of a replay.

Each turn contributes up to two equations that are linear in the coefficients: the wait for its
first token, and the mean time of the tokens after it. Other turns in flight count by the share of
their work in the same time. The fit is non-negative and robust against a few slow turns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from holdfast.core.results import TurnRecord
from holdfast.errors import ConfigError, TraceError
from holdfast.sim.profile import CostProfile

__all__ = ["FitQuality", "fit_profile", "read_turns"]

_MIN_TURNS: Final = 20
_MIN_DECODED: Final = 4
"""With fewer tokens after the first, the client's clock dominates the measured time."""
_MIN_SPREAD: Final = 2.0
"""Largest over smallest computed prompt; a smaller spread cannot separate slope and intercept."""
_SEEN_SEQUENCES: Final = 0.5
"""Minimum spread of the mean batch size that separates the costs of a sequence and of a step."""
_INLIER_ERROR: Final = 0.05
"""Relative error up to which a turn has full weight."""
_BURST_SHARE: Final = 0.25
"""Mean token times below this share of the median are left out: tokens that arrive in a burst have
hardly any time between them."""

_COLUMNS: Final = (
    *("request_overhead_s", "step_base_s", "prefill_s_per_token", "prefill_s_per_token_context"),
    *("decode_s_per_seq", "decode_s_per_context_token"),
)

_NOT_FITTED: Final = {"request_overhead_s_per_token": 0.0, "decode_context_s": ()}
"""Costs that the equations do not have; those of the base would count twice."""

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitQuality:
    """Goodness of a fit; errors are relative.

    Attributes:
        num_first_tokens: Number of waits for a first token, of turns alone on the engine.
        num_decodes: Number of mean token times.
        first_token_r2: Explained share of the waits' variance.
        first_token_median_error: Median of |fitted - measured| / measured.
        decode_r2: Explained share of the token times' variance; also near 0 if they hardly vary.
        decode_median_error: As above.
        is_split_assumed: Whether the sum of a sequence's and a step's cost is split as in the base
            profile, since the turns cannot separate them. More concurrent sessions can.
    """

    num_first_tokens: int
    num_decodes: int
    first_token_r2: float
    first_token_median_error: float
    decode_r2: float
    decode_median_error: float
    is_split_assumed: bool


class _Row(NamedTuple):
    """One equation: coefficients times columns = seconds."""

    columns: tuple[float, ...]
    seconds: float


class _Prefill(NamedTuple):
    """The cost terms of a prompt: steps, charged tokens, attended pairs, expert reads."""

    num_steps: int
    tokens: float
    attended: float
    sparse_s: float


def read_turns(path: Path, policy: str | None = None) -> list[TurnRecord]:
    """Read the output of `holdfast replay --records`.

    Args:
        path: A file with one JSON object a line.
        policy: The policy whose turns are read; None if the file has only one.

    Raises:
        TraceError: The file cannot be read, or a line is not a turn.
        ConfigError: The file has several policies and `policy` is None, or not that policy.
    """
    turns: dict[str, list[TurnRecord]] = {}
    decoder = msgspec.json.Decoder(_PolicyTurn)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = _decoded(decoder, line, path, number)
                    turns.setdefault(row.policy, []).append(row)
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror}", source=str(path)) from error
    if policy is None and len(turns) <= 1:
        return next(iter(turns.values()), [])
    if policy not in turns:
        raise ConfigError(
            f"{path}: policy is {policy!r}, expected one of those in the file",
            hint=f"in the file: {', '.join(turns)}",
        )
    return turns[policy]


def fit_profile(
    turns: Sequence[TurnRecord], base: CostProfile, *, name: str, source: str
) -> tuple[CostProfile, FitQuality]:
    """Fit the time coefficients; keep the sizes, links and expert costs of `base`.

    Use turns of one session at a time, or of a few, on an engine with the base profile's chunk
    size. Queueing, as at high concurrency, distorts the fit.

    Args:
        turns: Turns of one replay of one endpoint, in any order.
        base: Provides all other values, and the split of a step's cost if the turns cannot.
        name: Name of the new profile.
        source: Source of the turns, for the profile's `sources`.

    Raises:
        ConfigError: There are too few usable turns, they have no cached token counts, the prompts
            are too similar, or scipy is not installed.
    """
    used = _usable(turns)
    timeline = _Timeline(used)
    first = _first_token_rows(used, timeline, base)
    decode = _decode_rows(used, timeline, base)
    if min(len(first), len(decode)) < _MIN_TURNS:
        raise ConfigError(
            f"{len(first)} turns alone on the engine and {len(decode)} with enough decoded tokens "
            f"are too few, expected {_MIN_TURNS} of each",
            hint="replay more sessions, at --concurrency 1",
        )
    computed = [row.columns[2] for row in first]
    if max(computed) < _MIN_SPREAD * max(min(computed), 1.0):
        raise ConfigError(
            f"every turn computed {min(computed):.0f} to {max(computed):.0f} prompt tokens, "
            f"expected a spread of at least {_MIN_SPREAD:g} to 1",
        )
    batch_sizes = [row.columns[4] for row in decode]
    is_split_assumed = max(batch_sizes) - min(batch_sizes) < _SEEN_SEQUENCES
    matrix = np.array([row.columns for row in (*first, *decode)])
    seconds = np.array([row.seconds for row in (*first, *decode)])
    if is_split_assumed:
        coefficients = _solve_with_split(matrix, seconds, base)
    else:
        coefficients = _solve(matrix, seconds)
    profile = msgspec.structs.replace(
        base,
        name=name,
        summary=f"fitted to {len(used)} turns, sizes of {base.name}",
        sources=(source,),
        kind="measured",
        **_NOT_FITTED | _fitted_range(used, decode),
        **dict(zip(_COLUMNS, map(float, coefficients), strict=True)),
    )
    return profile, _quality(matrix @ coefficients, seconds, len(first), is_split_assumed)


class _PolicyTurn(TurnRecord, frozen=True):
    policy: str = ""


def _decoded(
    decoder: msgspec.json.Decoder[_PolicyTurn], line: bytes, path: Path, number: int
) -> _PolicyTurn:
    try:
        return decoder.decode(line)
    except msgspec.DecodeError as error:
        raise TraceError(
            f"is not a turn: {error}",
            source=str(path),
            where=f"line {number}",
            hint="holdfast replay --records FILE writes one JSON line a turn",
        ) from error


def _usable(turns: Sequence[TurnRecord]) -> list[TurnRecord]:
    answered = [
        turn
        for turn in turns
        if turn.error_kind is None
        and turn.first_token_s is not None
        and turn.last_token_s is not None
        and turn.last_token_s >= turn.first_token_s > turn.sent_s
        and turn.output_tokens >= 1
    ]
    used = [turn for turn in answered if turn.cached_tokens is not None]
    if answered and not used:
        raise ConfigError(
            "the turns do not have the number of cached prompt tokens",
            hint="start vLLM with --enable-prompt-tokens-details",
        )
    if len(used) < _MIN_TURNS:
        raise ConfigError(f"{len(used)} usable turns are too few, expected {_MIN_TURNS}")
    return used


class _Timeline:
    """Finds the turns in flight during a time interval."""

    def __init__(self, turns: Sequence[TurnRecord]) -> None:
        self._turns = turns
        self._sent_s = np.array([turn.sent_s for turn in turns])
        self._last_s = np.array([turn.last_token_s for turn in turns], dtype=np.float64)

    def others(self, turn: TurnRecord, start_s: float, end_s: float) -> Iterator[TurnRecord]:
        """Yield the other turns in flight at any time between `start_s` and `end_s`."""
        for index in np.flatnonzero((self._sent_s < end_s) & (self._last_s > start_s)):
            other = self._turns[index]
            if other is not turn:
                yield other


def _first_token_rows(
    turns: Sequence[TurnRecord], timeline: _Timeline, base: CostProfile
) -> list[_Row]:
    """The equations of first-token waits, for turns alone on the engine."""
    rows = []
    for turn in turns:
        wait_s = turn.ttft_s or 0.0
        if next(timeline.others(turn, turn.sent_s, turn.sent_s + wait_s), None) is None:
            prefill = _prefill(turn, base)
            columns = (1.0, float(prefill.num_steps), prefill.tokens, prefill.attended, 0.0, 0.0)
            rows.append(_Row(columns, wait_s - prefill.sparse_s))
    return rows


def _decode_rows(turns: Sequence[TurnRecord], timeline: _Timeline, base: CostProfile) -> list[_Row]:
    """The equations of mean decode steps, with the work of other turns in that time."""
    sparse_s = base.sparse_read_s * base.sparse_share_per_token
    rows = []
    for turn in turns:
        num_steps = turn.output_tokens - 1
        start_s, end_s = turn.first_token_s or 0.0, turn.last_token_s or 0.0
        if num_steps < _MIN_DECODED or end_s <= start_s:
            continue
        work = _decoded_work(turn, num_steps)
        for other in timeline.others(turn, start_s, end_s):
            work += _decoded_work(other, _shared_steps(turn, other))
            prefill = _prefill(other, base)
            waited = _share(start_s, end_s, other.sent_s, other.first_token_s)
            work += waited * np.array([prefill.tokens, prefill.attended, 0.0, 0.0])
        columns = (0.0, 1.0, *map(float, work / num_steps))
        rows.append(_Row(columns, (end_s - start_s) / num_steps - sparse_s))
    least_s = _BURST_SHARE * float(np.median([row.seconds for row in rows])) if rows else 0.0
    return [row for row in rows if row.seconds >= least_s]


def _fitted_range(turns: Sequence[TurnRecord], decode: Sequence[_Row]) -> dict[str, int]:
    """The largest mean batch and context of a turn, and the longest prompt."""
    return {
        "fitted_decodes": math.ceil(max(row.columns[4] for row in decode)),
        "fitted_decode_context_tokens": math.ceil(max(row.columns[5] for row in decode)),
        "fitted_prompt_tokens": max(turn.prompt_tokens for turn in turns),
    }


def _decoded_work(turn: TurnRecord, num_steps: float) -> _Array:
    """The terms of `num_steps` decodes in the last columns of a decode row."""
    context = turn.prompt_tokens + turn.output_tokens / 2
    return np.array([0.0, 0.0, num_steps, num_steps * context])


def _shared_steps(turn: TurnRecord, other: TurnRecord) -> float:
    """Number of steps in which both turns decode.

    Each shared step gives both turns a token, so either turn's token rate gives an estimate; the
    turn with the larger overlapping share gives the better one.
    """
    shares = [
        (_share(b.first_token_s, b.last_token_s, a.first_token_s, a.last_token_s), a.output_tokens)
        for a, b in ((turn, other), (other, turn))
    ]
    share, output_tokens = max(shares)
    return share * (output_tokens - 1)


def _prefill(turn: TurnRecord, base: CostProfile) -> _Prefill:
    """The cost terms of a turn's prompt, one step a chunk."""
    context = turn.cached_tokens or 0
    left = max(1, turn.prompt_tokens - context)
    num_steps, tokens, attended, sparse_s = 0, 0.0, 0.0, 0.0
    while left > 0:
        chunk = min(left, base.max_num_batched_tokens)
        num_steps += 1
        tokens += max(0, chunk - base.hidden_prefill_tokens)
        attended += chunk * (context + 0.5 * chunk)
        missed = (1.0 - base.sparse_share_per_token) ** chunk
        sparse_s += base.sparse_read_s * (1.0 - missed)
        context, left = context + chunk, left - chunk
    return _Prefill(num_steps, tokens, attended, sparse_s)


def _share(
    start_s: float | None, end_s: float | None, from_s: float | None, to_s: float | None
) -> float:
    """Share of the interval from..to within start..end; 0 if a time is unknown."""
    if start_s is None or end_s is None or from_s is None or to_s is None or to_s <= from_s:
        return 0.0
    return max(0.0, min(end_s, to_s) - max(start_s, from_s)) / (to_s - from_s)


def _solve_with_split(matrix: _Array, seconds: _Array, base: CostProfile) -> _Array:
    """Solve with the costs of step and sequence in the base profile's proportion."""
    per_step = base.decode_s_per_seq / base.step_base_s
    step, sequence = _COLUMNS.index("step_base_s"), _COLUMNS.index("decode_s_per_seq")
    joined = matrix.copy()
    joined[:, step] += per_step * joined[:, sequence]
    coefficients = np.insert(_solve(np.delete(joined, sequence, axis=1), seconds), sequence, 0.0)
    coefficients[sequence] = per_step * coefficients[step]
    return coefficients


def _solve(matrix: _Array, seconds: _Array) -> _Array:
    """Solve for non-negative coefficients by robust least squares on relative errors."""
    optimize = _optimize()
    weights = 1.0 / np.maximum(seconds, np.finfo(float).tiny)
    weighted = matrix * weights[:, None]
    scales = np.maximum(np.abs(weighted).max(axis=0), np.finfo(float).tiny)
    scaled, target = weighted / scales, np.ones(len(seconds))
    start, _ = optimize.nnls(scaled, target)
    fit = optimize.least_squares(
        lambda x: scaled @ x - target,
        np.maximum(start, 1e-9),
        jac=lambda _: scaled,
        bounds=(0.0, np.inf),
        loss="soft_l1",
        f_scale=_INLIER_ERROR,
        x_scale="jac",
    )
    coefficients: _Array = fit.x / scales
    return coefficients


def _optimize() -> ModuleType:
    try:
        from scipy import optimize
    except ImportError as error:
        raise ConfigError(
            "calibration needs scipy, which is not installed", hint="install holdfast[sim]"
        ) from error
    module: ModuleType = optimize
    return module


def _quality(fitted: _Array, seconds: _Array, num_first: int, is_split_assumed: bool) -> FitQuality:
    first, decode = slice(0, num_first), slice(num_first, None)
    return FitQuality(
        num_first_tokens=num_first,
        num_decodes=len(seconds) - num_first,
        first_token_r2=_r2(fitted[first], seconds[first]),
        first_token_median_error=_median_error(fitted[first], seconds[first]),
        decode_r2=_r2(fitted[decode], seconds[decode]),
        decode_median_error=_median_error(fitted[decode], seconds[decode]),
        is_split_assumed=is_split_assumed,
    )


def _r2(fitted: _Array, seen: _Array) -> float:
    variance = float(np.square(seen - seen.mean()).sum())
    return 1.0 - float(np.square(seen - fitted).sum()) / variance if variance else math.nan


def _median_error(fitted: _Array, seen: _Array) -> float:
    return float(np.median(np.abs(fitted - seen) / seen))
