"""Which steps a session takes, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.odds import is_human, scaled_chance
from holdfast.workload.generator.parameters import Agent, Step, Table
from holdfast.workload.study.wait import END

__all__ = ["steps_of"]

_Weights = Mapping[str, float]


def steps_of(agent: Agent, draws: Draws, human_odds_ratio: float) -> Iterator[Step]:
    """The steps of one session, at least one, each drawn by what it follows.

    A session of a given number of turns does not end before, unless its context is full: its last
    step is drawn by how often each one ends a session as well, all others by how often it does not.

    Args:
        agent: Whose session.
        draws: Mutated.
        human_odds_ratio: By what factor the odds of waiting for a human differ from those of all.
    """
    num_turns = None if agent.num_turns is None else _num_turns(agent.num_turns, draws)
    weights_of: dict[tuple[str | None, bool], _Weights] = {}
    name: str | None = None
    for place in count(1):
        key = (name, place == num_turns)
        if key not in weights_of:
            weights_of[key] = _with_humans(agent, _weights(agent, *key), human_odds_ratio)
        name = draws.choice(weights_of[key])
        if name == END:
            return
        yield agent.steps[name]
        if place == num_turns:
            return


def _num_turns(table: Table, draws: Draws) -> int:
    """What a session has; where a full context ends it, the most that any has."""
    if draws.ends_full and isinstance(table, tuple):
        return max(1, round(table[-1]))
    return max(1, round(draws.trait("num_turns", table)))


def _weights(agent: Agent, last: str | None, is_final: bool) -> _Weights:
    """What follows a step, or what sessions begin with."""
    weights = agent.first if last is None else agent.steps[last].next
    if agent.num_turns is None:
        return weights
    known = {name: weight for name, weight in weights.items() if name != END}
    ends = {name: _end_share(agent.steps[name]) for name in known}
    chosen = {
        name: weight * (ends[name] if is_final else 1.0 - ends[name])
        for name, weight in known.items()
    }
    # Where none of these ever followed: anything that did, or as a session begins.
    return next(each for each in (chosen, known, agent.first) if sum(each.values()) > 0)


def _end_share(step: Step) -> float:
    return step.next.get(END, 0.0) / sum(step.next.values())


def _with_humans(agent: Agent, weights: _Weights, human_odds_ratio: float) -> _Weights:
    humans = {name for name in weights if name != END and is_human(agent.steps[name])}
    share = sum(weights[name] for name in humans) / sum(weights.values())
    wanted = scaled_chance(share, human_odds_ratio)
    if wanted == share:
        return weights
    more, less = wanted / share, (1.0 - wanted) / (1.0 - share)
    return {name: weight * (more if name in humans else less) for name, weight in weights.items()}
