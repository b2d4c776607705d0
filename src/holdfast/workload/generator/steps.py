"""Draws the sequence of a session's steps."""

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
    """Yield the steps of one session, at least one, as a Markov chain.

    A session with a given number of turns ends there. The weights of its last step are multiplied
    by the step's chance to end a session, those of all others by its chance not to.

    Args:
        agent: The session's agent.
        draws: Mutated.
        human_odds_ratio: The session's odds of a wait for a human, relative to all sessions.
    """
    num_turns = None if agent.num_turns is None else _num_turns(agent.num_turns, draws)
    weights_of: dict[tuple[str | None, bool], _Weights] = {}
    name: str | None = None
    for turn_number in count(1):
        key = (name, turn_number == num_turns)
        if key not in weights_of:
            weights_of[key] = _with_humans(agent, _weights(agent, *key), human_odds_ratio)
        name = draws.choice(weights_of[key])
        if name == END:
            return
        yield agent.steps[name]
        if turn_number == num_turns:
            return


def _num_turns(table: Table, draws: Draws) -> int:
    """Number of turns of a session; the largest one if a full context ends it."""
    if draws.ends_full and isinstance(table, tuple):
        return max(1, round(table[-1]))
    return max(1, round(draws.trait("num_turns", table)))


def _weights(agent: Agent, last: str | None, is_final: bool) -> _Weights:
    """Weights of the next step, or of the first one."""
    weights = agent.first if last is None else agent.steps[last].next
    if agent.num_turns is None:
        return weights
    known = {name: weight for name, weight in weights.items() if name != END}
    ends = {name: _end_share(agent.steps[name]) for name in known}
    chosen = {
        name: weight * (ends[name] if is_final else 1.0 - ends[name])
        for name, weight in known.items()
    }
    # Fall back to any recorded follower, then to first steps, if all weights are 0.
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
