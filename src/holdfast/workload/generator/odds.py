"""What an agent does how often, and what one session does of it more or less than others."""

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
    """What an agent does how often, over all its sessions, as shares (0 to 1).

    Attributes:
        human: Of the waits, those for a human.
        rewrite: Of the waits, those followed by a return or a branch.
        call: Of the turns, those that call sub-agents.
    """

    human: float
    rewrite: float
    call: float

    @classmethod
    def of(cls, agent: Agent, dependence: Dependence, percents: tuple[float, ...]) -> AgentShares:
        """What the sessions in `dependence` have together, the longer ones more of it. Pure."""
        num = len(dependence.sessions)

        def values(name: str, table: Table) -> list[float]:
            ranks = [getattr(session, name) for session in dependence.sessions]
            return [value_at(table, percents, (rank + 0.5) / num) for rank in ranks]

        wanted = values("num_turns", 1.0 if agent.num_turns is None else agent.num_turns)
        num_turns = [max(1.0, each) for each in wanted]  # every session has a turn
        shares = [values(f"{name}_share", table) for name, table in _tables(dependence).items()]
        return cls(*(float(np.dot(num_turns, each)) / sum(num_turns) for each in shares))


@dataclass(frozen=True, slots=True)
class OddsRatios:
    """By what factor one session's odds differ from those of all (>= 0).

    Attributes:
        human: Of a wait for a human.
        rewrite: Of a return or a branch.
        call: Of a call of sub-agents.
    """

    human: float = 1.0
    rewrite: float = 1.0
    call: float = 1.0

    @classmethod
    def of(cls, dependence: Dependence, shares: AgentShares, draws: Draws) -> OddsRatios:
        """Those of the session that `draws` are for."""
        return cls(
            *(
                _odds_ratio(draws.trait(f"{name}_share", table), getattr(shares, name))
                for name, table in _tables(dependence).items()
            )
        )


def _tables(dependence: Dependence) -> dict[str, Table]:
    """The shares of sessions, in the order of `AgentShares`."""
    return {
        "human": dependence.human_share,
        "rewrite": dependence.rewrite_share,
        "call": dependence.call_share,
    }


def is_human(step: Step) -> bool:
    """Whether a human is waited for. Pure."""
    return step.ended_by == "human"


def leaving_shares(step: Step) -> Mapping[MutationKind, float]:
    """How often the next prompt goes back to an earlier one or branches off. Pure."""
    return {kind: share for kind, share in step.rewrites.items() if kind in ("return", "branch")}


def scaled_chance(chance: float, factor: float) -> float:
    """The chance (0 to 1) whose odds are `factor` times as high. Pure."""
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
