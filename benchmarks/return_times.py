"""How good are predictions of when a paused session returns? Scored before any policy uses them.

python benchmarks/return_times.py [--traces PATH] [--sessions N] [--seeds N] [--output DIR]

Sessions run sixteen at once on a made-up engine (an answer takes 2 s and 20 ms a token). At each
pause a model says by when the session is back; it learns the gap only once it is over. Every 20 s
all sessions that are away are ranked by who is expected back first.

Pinball loss is that of quantiles of log(gap), averaged over levels: lower is better, and no tail
decides alone. Coverage is the share of gaps below the quantile of a level: it should be the level.
Ranking is the share of pairs of sessions, away at the same time, whose order of return was said
right.
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, count
from pathlib import Path
from typing import Protocol

from holdfast.bench.manifest import run_manifest
from holdfast.core.hints import parse_hints
from holdfast.predict.features import GapFeatures, features_of
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.sim.plan import Workload
from holdfast.traces.digest import sessions_digest
from holdfast.traces.ending import ending_of
from holdfast.traces.record import Session
from holdfast.traces.selection import SessionSelection

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
CONCURRENCY = 16
ANSWER_S, TOKEN_S = 2.0, 0.02
CENSUS_S = 20.0
SHORTEST_S = 0.01
COLD = (0, 10, 100, 1000)
EWMA_GAIN = 0.3


@dataclass(frozen=True, eq=False)
class Pause:
    """One pause: whose, what it looks like when it begins, and what only the future knows."""

    session: int
    features: GapFeatures
    began_s: float
    gap_s: float


class Model(Protocol):
    """What is compared."""

    def quantile_s(self, pause: Pause, elapsed_s: float, level: float) -> float:
        """Seconds from now by which the session is back with probability `level`."""

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """Who is back later has more of it."""

    def observe(self, pause: Pause) -> None:
        """The pause is over."""


class Holdfast:
    """The model that policies use, ranked as Holdfast's eviction ranks."""

    def __init__(self) -> None:
        self._model = ReturnTimeModel()

    def quantile_s(self, pause: Pause, elapsed_s: float, level: float) -> float:
        """See `Model`."""
        return self._model.residual_quantile_s(pause.features, elapsed_s, level, scale_s=1.0)

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """See `Model`."""
        return elapsed_s + self.quantile_s(pause, 0.0, 0.5)

    def observe(self, pause: Pause) -> None:
        """See `Model`."""
        self._model.observe(pause.features, pause.gap_s)


class ExpectedResidual(Holdfast):
    """The same model, ranked by its trimmed mean residual, as CacheWise ranks."""

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """See `Model`."""
        return self._model.expected_residual_s(pause.features, elapsed_s, scale_s=1.0)


@dataclass
class Empirical:
    """The gaps seen so far, all together or by tool."""

    by_tool: bool
    _gaps: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def quantile_s(self, pause: Pause, elapsed_s: float, level: float) -> float:
        """See `Model`."""
        gaps = self._gaps[self._key(pause)] or self._gaps[""]
        first = bisect.bisect_right(gaps, elapsed_s)
        if first == len(gaps):
            return max(elapsed_s, 1.0)
        return gaps[first + int(level * (len(gaps) - first))] - elapsed_s

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """See `Model`."""
        return self.quantile_s(pause, elapsed_s, 0.5)

    def observe(self, pause: Pause) -> None:
        """See `Model`."""
        for key in {self._key(pause), ""}:
            bisect.insort(self._gaps[key], pause.gap_s)

    def _key(self, pause: Pause) -> str:
        return f"{pause.features.kind}/{pause.features.tool}" if self.by_tool else ""


class MovingAverage:
    """A session's own exponentially weighted mean gap; of all sessions before it has one."""

    def __init__(self) -> None:
        self._means_s: dict[int, float] = {}

    def quantile_s(self, pause: Pause, elapsed_s: float, level: float) -> float:
        """See `Model`."""
        del level
        return max(self._mean_s(pause) - elapsed_s, SHORTEST_S)

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """See `Model`."""
        return self._mean_s(pause) - elapsed_s

    def observe(self, pause: Pause) -> None:
        """See `Model`."""
        for key in (pause.session, -1):
            before_s = self._means_s.get(key, pause.gap_s)
            self._means_s[key] = before_s + EWMA_GAIN * (pause.gap_s - before_s)

    def _mean_s(self, pause: Pause) -> float:
        return self._means_s.get(pause.session, self._means_s.get(-1, 1.0))


class WaitedLongest:
    """No model: who has been away longer returns later. Least recently used, as a ranking."""

    def quantile_s(self, pause: Pause, elapsed_s: float, level: float) -> float:
        """See `Model`."""
        del pause, level
        return max(elapsed_s, 1.0)

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """See `Model`."""
        del pause
        return elapsed_s

    def observe(self, pause: Pause) -> None:
        """Nothing to learn."""


MODELS: dict[str, Callable[[], Model]] = {
    "holdfast": Holdfast,
    "holdfast, by expected residual": ExpectedResidual,
    "empirical by tool": lambda: Empirical(by_tool=True),
    "empirical, all": lambda: Empirical(by_tool=False),
    "moving average of the session": MovingAverage,
    "longest away": WaitedLongest,
}


@dataclass
class Score:
    """What a model has earned in one run."""

    losses: list[float] = field(default_factory=list)
    below: list[list[bool]] = field(default_factory=list)
    num_right: float = 0.0
    num_pairs: int = 0


def pauses_of(sessions: Sequence[Session]) -> Iterator[tuple[float, str, Pause | None]]:
    """What happens, in order of time: pauses `begin` and `end`, and between them a `census`."""
    tie = count()
    events: list[tuple[float, int, str, int, int, Pause | None]] = []
    unstarted = iter(range(len(sessions)))
    num_live = 0

    def start(now_s: float) -> int:
        index = next(unstarted, None)
        if index is None:
            return 0
        heapq.heappush(events, (now_s, next(tie), "send", index, 0, None))
        return 1

    for _ in range(CONCURRENCY):
        num_live += start(0.0)
    heapq.heappush(events, (CENSUS_S, next(tie), "census", 0, 0, None))
    while num_live:
        now_s, _, what, index, turn_index, pause = heapq.heappop(events)
        if what == "census":
            yield now_s, what, None
            heapq.heappush(events, (now_s + CENSUS_S, next(tie), "census", 0, 0, None))
        elif what == "send":
            if pause is not None:
                yield now_s, "end", pause
            turn = sessions[index].turns[turn_index]
            ends_s = now_s + ANSWER_S + TOKEN_S * turn.output_tokens
            heapq.heappush(events, (ends_s, next(tie), "answer", index, turn_index, None))
        elif turn_index + 1 == len(sessions[index].turns):
            num_live += start(now_s) - 1
        else:
            gap_s = sessions[index].turns[turn_index + 1].gap_s
            features = _features(sessions[index], turn_index)
            begun = Pause(index, features, now_s, gap_s)
            yield now_s, "begin", begun
            heapq.heappush(events, (now_s + gap_s, next(tie), "send", index, turn_index + 1, begun))


def _features(session: Session, turn_index: int) -> GapFeatures:
    ending = ending_of(session.turns[turn_index])
    hints, _ = parse_hints(None if ending is None else {"holdfast_turn_end": ending}, None)
    return features_of(hints.turn_end)


def score(sessions: Sequence[Session]) -> dict[str, Score]:
    """Every model on the same course of events."""
    models: dict[str, Model] = {name: build() for name, build in MODELS.items()}
    scores = {name: Score() for name in MODELS}
    away: dict[Pause, None] = {}
    for now_s, what, pause in pauses_of(sessions):
        if what == "begin" and pause is not None:
            away[pause] = None
            for name, model in models.items():
                _score_quantiles(scores[name], model, pause)
        elif what == "end" and pause is not None:
            del away[pause]
            for model in models.values():
                model.observe(pause)
        elif what == "census":
            for name, model in models.items():
                _score_ranking(scores[name], model, list(away), now_s)
    return scores


def _score_quantiles(earned: Score, model: Model, pause: Pause) -> None:
    true = math.log(max(pause.gap_s, SHORTEST_S))
    loss, below = 0.0, []
    for level in LEVELS:
        said = math.log(max(model.quantile_s(pause, 0.0, level), SHORTEST_S))
        loss += (level - (true < said)) * (true - said) / len(LEVELS)
        below.append(true <= said)
    earned.losses.append(loss)
    earned.below.append(below)


def _score_ranking(earned: Score, model: Model, away: list[Pause], now_s: float) -> None:
    said = {pause: model.rank_s(pause, now_s - pause.began_s) for pause in away}
    for one, other in combinations(away, 2):
        left = one.began_s + one.gap_s - other.began_s - other.gap_s
        order = said[one] - said[other]
        earned.num_pairs += 1
        earned.num_right += 0.5 if order == 0.0 else float((order > 0.0) == (left > 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--sessions", type=int, default=120)
    parser.add_argument("--gap-cap-s", type=float, default=3600.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    selection = SessionSelection(options.sessions, gap_cap_s=options.gap_cap_s)
    by_seed: list[dict[str, Score]] = []
    digests: dict[str, str] = {}
    for seed in range(options.seeds):
        sessions = Workload(options.traces, selection).sessions(seed).sessions
        digests[f"sessions-{seed}"] = sessions_digest(sessions)
        by_seed.append(score(sessions))
    table = _table(by_seed)
    print(table)
    name = "generated" if options.traces is None else options.traces.name
    stem = options.output / f"return_times-{name}"
    stem.with_suffix(".md").write_text(table)
    arguments = {
        key: value.name if isinstance(value, Path) else value
        for key, value in vars(options).items()
    }
    manifest = run_manifest(arguments=arguments, runs=[], digests=digests)
    stem.with_suffix(".json").write_text(json.dumps({"manifest": manifest, "table": table}))


def _table(by_seed: list[dict[str, Score]]) -> str:
    cold = [f"from {n}" for n in COLD]
    heads = ["model", "pinball loss", *cold, *(f"≤ q{level:g}" for level in LEVELS), "ranking"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in MODELS:
        scores = [scores[name] for scores in by_seed]
        cells = [name, _spread([statistics.fmean(one.losses) for one in scores])]
        for first, last in zip(COLD, (*COLD[1:], None), strict=True):
            parts = [one.losses[first:last] for one in scores]
            cells.append(_spread([statistics.fmean(part) for part in parts if part]))
        for place in range(len(LEVELS)):
            shares = [statistics.fmean(below[place] for below in one.below) for one in scores]
            cells.append(f"{statistics.median(shares):.2f}")
        cells.append(_spread([one.num_right / max(one.num_pairs, 1) for one in scores]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
