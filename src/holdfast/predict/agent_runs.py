"""How long sub-agents run, and how soon their agent goes on."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from holdfast.predict.features import GapFeatures
from holdfast.predict.return_time import ReturnTimeModel

__all__ = ["AgentRuns"]

_SCHEMA: Final = "agent-runs/1"
_MAX_PAUSES = 512
_MEMORY = 0.9  # of a pause's weight, for each one of its kind after it
_EVEN = 0.5
_MEDIAN = 0.5
# Kinds of tools that may be calls of sub-agents.
_CALLS_AGENTS = ("sub_agent", "other", "unknown")


class _State(msgspec.Struct, frozen=True):
    """Two return-time models, and the weights of pauses, the oldest first."""

    schema: str
    runs: bytes
    lags: bytes
    joins: list[tuple[GapFeatures, float, float]]


class AgentRuns:
    """Runs of sub-agents by the tool that called them, and the agents' waits for them.

    A run lasts from a sub-agent's first prompt to its last answer, queues included. Knows no
    absolute time: before the first run is seen, the agents' pauses stand for it.

    Args:
        returns: Return times of all pauses.

    Attributes:
        num_observed: What was learned since the start (count).
    """

    def __init__(self, returns: ReturnTimeModel) -> None:
        self.num_observed = 0
        self._returns = returns
        self._runs = ReturnTimeModel()
        self._lags = ReturnTimeModel()
        # By kind of pause: weights of those that lasted until all sub-agents had ended, and others.
        self._joins: OrderedDict[GapFeatures, tuple[float, float]] = OrderedDict()

    def observe_run(self, pause: GapFeatures, duration_s: float) -> None:
        """Learn how long a sub-agent of such a pause ran (s). Mutates."""
        self.num_observed += 1
        self._runs.observe(_named(pause), duration_s)

    def observe_join(self, pause: GapFeatures, lag_s: float) -> None:
        """Learn an agent's return, so long after its last sub-agent's end (s). Mutates."""
        self._lags.observe(_named(pause), lag_s)
        self._count(pause, was_join=True)

    def observe_early_return(self, pause: GapFeatures) -> None:
        """Learn that an agent returned while its sub-agents ran. Mutates."""
        self._count(pause, was_join=False)

    @staticmethod
    def may_join(pause: GapFeatures) -> bool:
        """Whether agents may wait for sub-agents at such a pause. Pure."""
        return pause.kind in _CALLS_AGENTS

    def is_join(self, pause: GapFeatures) -> bool:
        """Whether most such pauses have lasted until the sub-agents had ended. Pure."""
        joined, early = self._joins.get(pause, (0.0, 0.0))
        return joined + 1.0 >= _EVEN * (joined + early + 1.0)

    def rest_s(self, pause: GapFeatures, runs_s: tuple[float, float], num_runs: int) -> float:
        """Median time until the last of some sub-agents ends (s). Pure.

        Takes their runs as independent: the last of n has ended at the median with probability
        1/2, so each with probability 2 ** (-1 / n).

        Args:
            pause: The pause at which they were called.
            runs_s: How long the first and the last to begin have run (s).
            num_runs: Sub-agents (count, >= 1).
        """
        model = self._runs if self._runs.num_observed else self._returns
        quantile = _MEDIAN ** (1.0 / num_runs)
        named = _named(pause)
        return max(
            model.residual_quantile_s(named, run_s, quantile, scale_s=run_s) for run_s in runs_s
        )

    def lag_s(self, pause: GapFeatures) -> float:
        """Typical time from the last sub-agent's end to the agent's return (s). Pure.

        0 until one is seen.
        """
        if not self._lags.num_observed:
            return 0.0
        return self._lags.residual_quantile_s(_named(pause), 0.0, _MEDIAN)

    def to_bytes(self) -> bytes:
        """Return what is known, encoded for `restore`. Pure."""
        joins = [(pause, *weights) for pause, weights in self._joins.items()]
        state = _State(_SCHEMA, self._runs.to_bytes(), self._lags.to_bytes(), joins)
        return msgspec.msgpack.encode(state)

    def restore(self, data: bytes) -> None:
        """Know what `to_bytes` encoded, and nothing else. Mutates.

        Raises:
            ValueError: `data` is not such an encoding.
        """
        state = msgspec.msgpack.decode(data, type=_State)
        if state.schema != _SCHEMA:
            raise ValueError(f"not runs of agents: schema {state.schema!r}")
        runs, lags = map(ReturnTimeModel.from_bytes, (state.runs, state.lags))
        joins = state.joins[-_MAX_PAUSES:]
        self._runs, self._lags = runs, lags
        self._joins = OrderedDict((pause, (joined, early)) for pause, joined, early in joins)

    def _count(self, pause: GapFeatures, *, was_join: bool) -> None:
        self.num_observed += 1
        joined, early = self._joins.pop(pause, (0.0, 0.0))
        self._joins[pause] = _MEMORY * joined + was_join, _MEMORY * early + (not was_join)
        if len(self._joins) > _MAX_PAUSES:
            self._joins.popitem(last=False)


def _named(pause: GapFeatures) -> GapFeatures:
    """The pause as one of sub-agents, whatever kind of tool called them."""
    return GapFeatures("sub_agent", pause.tool or pause.kind)
