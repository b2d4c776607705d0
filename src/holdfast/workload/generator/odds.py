"""Shares of an agent's waits, rewrites and calls, and odds ratios of sessions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.parameters import Agent, Dependence, Step, Table
from holdfast.workload.generator.table import value_at
from holdfast.workload.study.mutations import MutationKind

__all__ = ["AgentShares", "OddsRatios", "is_human", "leaving_shares", "scaled_chance"]


@dataclass(frozen=True, slots=True)
class AgentShares:
    """Shares (0 to 1) over all sessions of an agent.

    Attributes:
        human: Share of waits that are for a human.
        rewrite: Share of waits that a return or a branch follows.
        call: Share of turns that call sub-agents.
    """

    human: float
    rewrite: float
    call: float

    @classmethod
    def of(cls, agent: Agent, dependence: Dependence, percents: tuple[float, ...]) -> AgentShares:
        """The mean shares of the sessions in `dependence`, weighted by their turns. Pure."""
        num = len(dependence.sessions)

        def values(name: str, table: Table) -> list[float]:
            ranks = [getattr(session, name) for session in dependence.sessions]
            return [value_at(table, percents, (rank + 0.5) / num) for rank in ranks]

        wanted = values("num_turns", 1.0 if agent.num_turns is None else agent.num_turns)
        num_turns = [max(1.0, each) for each in wanted]  # every session has at least one turn
        shares = [values(f"{name}_share", table) for name, table in _tables(dependence).items()]
        return cls(*(float(np.dot(num_turns, each)) / sum(num_turns) for each in shares))


@dataclass(frozen=True, slots=True)
class OddsRatios:
    """Odds of one session divided by those of all sessions (>= 0).

    Attributes:
        human: For a wait for a human.
        rewrite: For a return or a branch.
        call: For a call of sub-agents.
    """

    human: float = 1.0
    rewrite: float = 1.0
    call: float = 1.0

    @classmethod
    def of(cls, dependence: Dependence, shares: AgentShares, draws: Draws) -> OddsRatios:
        """The odds ratios of the session of `draws`."""
        return cls(
            *(
                _odds_ratio(draws.trait(f"{name}_share", table), getattr(shares, name))
                for name, table in _tables(dependence).items()
            )
        )


def _tables(dependence: Dependence) -> dict[str, Table]:
    """The tables of sessions' shares, in the order of `AgentShares`."""
    return {
        "human": dependence.human_share,
        "rewrite": dependence.rewrite_share,
        "call": dependence.call_share,
    }


def is_human(step: Step) -> bool:
    """Whether the session waits for a human after the step. Pure."""
    return step.ended_by == "human"


def leaving_shares(step: Step) -> Mapping[MutationKind, float]:
    """Chances that the next prompt is a return or a branch, by kind. Pure."""
    return {kind: share for kind, share in step.rewrites.items() if kind in ("return", "branch")}


def scaled_chance(chance: float, factor: float) -> float:
    """The chance (0 to 1) whose odds are `factor` times those of `chance`. Pure."""
    if not 0.0 < chance < 1.0 or factor == 1.0:
        return chance
    odds = chance / (1.0 - chance) * factor
    return 1.0 if math.isinf(odds) else odds / (1.0 + odds)


def _odds_ratio(own: float, overall: float) -> float:
    if not 0.0 < overall < 1.0:
        return 1.0
    if own >= 1.0:
        return math.inf
    return own / (1.0 - own) / (overall / (1.0 - overall))
