"""Scores predictions of when a paused session returns, apart from any policy.

python benchmarks/return_times.py [--traces PATH] [--sessions N] [--seeds N] [--output DIR]
                                  [--elsewhere]

Sessions run sixteen at once on a made-up engine (an answer takes 2 s and 20 ms a token). At each
pause a model says by when the session is back; it learns the gap only once it is over. Every 20 s
all sessions that are away are ranked by who is expected back first. Models start with nothing,
except for the boosted trees, a ceiling: they have seen the sessions that do not run.

With --elsewhere each source of the traces (a repository) runs by itself, against models that start
with nothing and models that have learned from all the other sources: the use of a shipped prior.

Pinball loss is that of quantiles of log(gap), averaged over levels (half the CRPS, in their limit):
lower is better, and no tail decides alone. Coverage is the share of gaps below the quantile of a
level: it should be the level. Ranking is the share of pairs of sessions, away at the same time,
whose order of return is predicted right.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, count
from pathlib import Path

from holdfast.core.hints import parse_hints
from holdfast.predict.features import GapFeatures, features_of
from holdfast.report.manifest import run_manifest
from holdfast.sim.plan import Workload
from holdfast.traces.digest import sessions_digest
from holdfast.traces.record import Session
from holdfast.traces.selection import SessionSelection
from holdfast.traces.turn_end_hint import turn_end_hint
from return_models.base import LEVELS, SHORTEST_S, Model, Pause
from return_models.fitted import Boosted, Clusters
from return_models.online import (
    Empirical,
    Holdfast,
    MedianResidual,
    MovingAverage,
    WaitedLongest,
)

CONCURRENCY = 16
ANSWER_S, TOKEN_S = 2.0, 0.02
CENSUS_S = 20.0
COLD = (0, 10, 100, 1000)
FEWEST_SESSIONS = 20

Builders = dict[str, Callable[[Sequence[Pause]], Model]]


def _from_nothing(build: Callable[[], Model]) -> Callable[[Sequence[Pause]], Model]:
    return lambda _: build()


def _primed(build: Callable[[], Model]) -> Callable[[Sequence[Pause]], Model]:
    def primed(pauses: Sequence[Pause]) -> Model:
        model = build()
        model.prime(pauses)
        return model

    return primed


MODELS: Builders = {
    "holdfast": _from_nothing(Holdfast),
    "holdfast, without the speed factor": _from_nothing(lambda: Holdfast(has_speed=False)),
    "holdfast, ranked by median residual": _from_nothing(MedianResidual),
    "CacheWise's clusters": _from_nothing(Clusters),
    "empirical by tool": _from_nothing(lambda: Empirical(by_tool=True)),
    "empirical, all": _from_nothing(lambda: Empirical(by_tool=False)),
    "moving average of the session": _from_nothing(MovingAverage),
    "longest away": _from_nothing(WaitedLongest),
    "boosted trees (ceiling)": _primed(Boosted),
}
ELSEWHERE: Builders = {
    "holdfast, from nothing": _from_nothing(Holdfast),
    "holdfast": _primed(Holdfast),
    "CacheWise's clusters": _primed(Clusters),
    "empirical by tool": _primed(lambda: Empirical(by_tool=True)),
    "boosted trees": _primed(Boosted),
}


@dataclass
class Score:
    """A model's scores in one run."""

    losses: list[float] = field(default_factory=list)
    below: list[list[bool]] = field(default_factory=list)
    num_right: float = 0.0
    num_pairs: int = 0


def pauses_of(sessions: Sequence[Session]) -> Iterator[tuple[float, str, Pause | None]]:
    """Events in order of time: pauses `begin` and `end`, between them a `census`."""
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
            begun = _pause(sessions[index], turn_index, now_s)
            yield now_s, "begin", begun
            heapq.heappush(
                events, (now_s + begun.gap_s, next(tie), "send", index, turn_index + 1, begun)
            )


def _pause(session: Session, turn_index: int, began_s: float) -> Pause:
    turn = session.turns[turn_index]
    return Pause(
        session=session.session_id,
        turn=turn_index,
        features=_features(session, turn_index),
        prompt_tokens=turn.prompt_tokens,
        output_tokens=turn.output_tokens,
        began_s=began_s,
        gap_s=session.turns[turn_index + 1].gap_s,
    )


def _features(session: Session, turn_index: int) -> GapFeatures:
    turn_end = turn_end_hint(session.turns[turn_index])
    hints, _ = parse_hints(None if turn_end is None else {"holdfast_turn_end": turn_end}, None)
    return features_of(hints.turn_end)


def recorded(sessions: Sequence[Session]) -> list[Pause]:
    """All pauses of `sessions`, one session after the other."""
    return [_pause(s, index, 0.0) for s in sessions for index in range(len(s.turns) - 1)]


def score(
    sessions: Sequence[Session], builders: Builders, others: Sequence[Session]
) -> dict[str, Score]:
    """Score every model on the same events; some have seen `others` before."""
    history = recorded(others)
    models = {name: build(history) for name, build in builders.items()}
    scores = {name: Score() for name in models}
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
    said = dict(zip(away, model.ranks_s(away, now_s), strict=True))
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
    parser.add_argument("--elsewhere", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    everything = SessionSelection(None, gap_cap_s=options.gap_cap_s)
    digests: dict[str, str] = {}
    by_seed: dict[str, list[dict[str, Score]]] = defaultdict(list)
    for seed in range(options.seeds):
        sessions = Workload(options.traces, everything).sessions(seed).sessions
        digests[f"sessions-{seed}"] = sessions_digest(sessions)
        if options.elsewhere:
            for source, ours, others in _by_source(sessions, options.sessions):
                by_seed[source].append(score(ours, ELSEWHERE, others))
        else:
            ours, others = sessions[: options.sessions], sessions[options.sessions :]
            by_seed[""].append(score(ours, MODELS, others or ours))
    table = "\n".join(
        (f"**{source}**\n\n" if source else "") + _table(scores)
        for source, scores in sorted(by_seed.items())
    )
    print(table)
    name = "generated" if options.traces is None else options.traces.name
    stem = f"return_times{'_elsewhere' if options.elsewhere else ''}-{name}"
    (options.output / f"{stem}.md").write_text(table)
    arguments = {
        key: value.name if isinstance(value, Path) else value
        for key, value in vars(options).items()
    }
    manifest = run_manifest(arguments=arguments, runs=[], digests=digests)
    document = json.dumps({"manifest": manifest, "table": table})
    (options.output / f"{stem}.json").write_text(document)


def _by_source(
    sessions: Sequence[Session], most: int
) -> Iterator[tuple[str, Sequence[Session], Sequence[Session]]]:
    """Each source with enough sessions: its sessions, and those of the others."""
    sources = {_source(session) for session in sessions}
    for source in sorted(sources):
        ours = [session for session in sessions if _source(session) == source]
        if len(ours) >= FEWEST_SESSIONS:
            yield source, ours[:most], [s for s in sessions if _source(s) != source]


def _source(session: Session) -> str:
    return session.session_id.partition("/")[0]


def _table(by_seed: list[dict[str, Score]]) -> str:
    cold = [f"from {n}" for n in COLD]
    heads = ["model", "pinball loss", *cold, *(f"≤ q{level:g}" for level in LEVELS), "ranking"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in by_seed[0]:
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
