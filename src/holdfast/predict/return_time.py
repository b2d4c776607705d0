"""Return times and return probabilities of paused sessions, learned while serving.

Knows no absolute time. Before the first observation it predicts from the time already waited and a
scale that the caller supplies; afterwards from histograms on a logarithmic grid: global, per kind,
per tool and per class of arguments, each blended with the one above while it has few observations.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import msgspec

from holdfast.predict.features import GapFeatures, GapKind
from holdfast.predict.gap_curve import (
    BINS,
    BINS_PER_OCTAVE,
    TAIL_INDEX,
    GapCurve,
    bin_of,
)
from holdfast.predict.gap_node import GapNode, Learning
from holdfast.predict.session_speed import SpeedFactor

__all__ = ["ReturnTimeModel"]

# Typical gaps relative to a shell command's, from recorded sessions of coding agents: a prior for
# kinds that were not observed yet. Powers of two fit the grid.
_KIND_RATIO: dict[GapKind, float] = {
    "plan": 1 / 32,
    "read": 1 / 16,
    "search": 1 / 4,
    "edit": 1 / 4,
    "shell": 1,
    "other": 1,
    "unknown": 1,
    "web": 4,
    "sub_agent": 32,
    "human": 64,
}
# Share of pauses that end in a return, from the same sessions.
_KIND_RETURNS: dict[GapKind, float] = {"human": 0.85, "sub_agent": 0.95, "unknown": 0.95}
_TOOL_RETURNS = 0.99

# Residual times are cut at this quantile: with tails this heavy their mean is not finite.
_TRIMMED_QUANTILE = 0.95

_MAX_TOOLS = 256
_MAX_CLASSES = 1024
_MAX_RESOLVED = 4096

_SCHEMA = "holdfast.return-time/1"


class _NodeState(msgspec.Struct, frozen=True, array_like=True):
    """A node's path from the root, its gaps by bin, and its pauses without a return."""

    path: tuple[str, ...]
    counts: dict[int, float]
    ended: float


class _ModelState(msgspec.Struct, frozen=True):
    schema: str
    nodes: list[_NodeState]


class ReturnTimeModel:
    """Online model of the time until a paused session returns.

    `elapsed_s` is always the time since the pause began; predictions start from there. `scale_s`
    is any duration of the relevant order, such as the session's restore cost; it counts only until
    the first gap is observed. Scaling all gaps, elapsed times and `scale_s` by a factor scales all
    predicted times by it (exactly for powers of 2 ** (1 / 4), to within a bin otherwise). Not
    thread-safe.
    """

    def __init__(
        self,
        *,
        parent_weight: float = 8.0,
        return_weight: float = 16.0,
        half_life_observations: float = 2000.0,
    ) -> None:
        self._learning = Learning(
            parent_weight=parent_weight,
            return_weight=return_weight,
            half_life_observations=half_life_observations,
        )
        self._root = GapNode(self._learning, None)
        self._kinds: dict[GapKind, GapNode] = {
            kind: GapNode(
                self._learning,
                self._root,
                offset_bins=_offset_bins(kind),
                prior_return=_KIND_RETURNS.get(kind, _TOOL_RETURNS),
            )
            for kind in _KIND_RATIO
        }
        self._tools: OrderedDict[tuple[GapKind, str], GapNode] = OrderedDict()
        self._classes: OrderedDict[tuple[GapKind, str, str], GapNode] = OrderedDict()
        self._resolved: dict[GapFeatures, GapNode] = {}

    def observe(
        self,
        features: GapFeatures,
        gap_s: float,
        *,
        censored: bool = False,
        speed: SpeedFactor | None = None,
    ) -> None:
        """Learn from a pause that is over. Mutates.

        Args:
            features: Features of the pause.
            gap_s: Its length (s); ignored unless finite and >= 0.
            censored: Whether the session was closed after `gap_s` without a return.
            speed: The session's speed factor, which learns too. Mutated.
        """
        if not (math.isfinite(gap_s) and gap_s >= 0.0):
            return
        nodes = self._path(features)
        if censored:
            for node in nodes:
                node.add_end()
            return
        if speed is not None and self._root.total > 0.0:
            speed.add(nodes[-1].curve().rank(gap_s))
        gap_bin = bin_of(gap_s)
        for node in nodes:
            node.add(gap_bin)
        # The root pools all kinds, each gap converted to the kind of ratio 1.
        scaled = gap_bin - self._kinds[features.kind].offset_bins if gap_bin else 0
        self._root.add(min(max(scaled, 0), BINS - 1))

    def survival(
        self, features: GapFeatures, elapsed_s: float, horizon_s: float, *, scale_s: float = 0.0
    ) -> float:
        """Return P(not back by elapsed + horizon | not back by elapsed).

        Includes sessions that never return: the value tends to 1 - `return_probability`.
        """
        node = self._node(features)
        share = node.return_share()
        gone = 1.0 - share
        if self._root.total <= 0.0:
            waited_s = elapsed_s + _scale_s(features, scale_s)
            return gone + share * _unlearned_survival(waited_s, horizon_s)
        curve = node.curve()
        before = share * curve.survival(elapsed_s) + gone
        if before <= 0.0:
            return 1.0
        return min(1.0, (share * curve.survival(elapsed_s + horizon_s) + gone) / before)

    def expected_residual_s(
        self,
        features: GapFeatures,
        elapsed_s: float,
        *,
        scale_s: float = 0.0,
        limit_s: float | None = None,
    ) -> float:
        """Return the expected residual time (s), given a return. Pure.

        Args:
            features: Features of the pause.
            elapsed_s: Time since the pause began (s).
            scale_s: See the class.
            limit_s: Longer residual times count as this (s). By default the 95 % quantile of the
                residual time, so that the mean of a heavy tail is finite and steady.
        """
        curve = self._curve(features)
        if curve is None:
            waited_s = elapsed_s + _scale_s(features, scale_s)
            return _unlearned_mean_s(waited_s, limit_s)
        if limit_s is None:
            return curve.trimmed_residual_s(elapsed_s, _TRIMMED_QUANTILE)
        return curve.mean_residual_s(elapsed_s, limit_s)

    def residual_quantile_s(
        self,
        features: GapFeatures,
        elapsed_s: float,
        quantile: float,
        *,
        scale_s: float = 0.0,
        speed: SpeedFactor | None = None,
    ) -> float:
        """Return the residual time (s) at `quantile` (in [0, 1)), given a return. Pure.

        `speed` is the session's speed factor.
        """
        curve = self._curve(features)
        if curve is None:
            return _unlearned_quantile_s(elapsed_s + _scale_s(features, scale_s), quantile)
        target = curve.survival(elapsed_s)
        if speed is None:
            target *= 1.0 - quantile
        else:
            target = speed.kind_survival(speed.survival(target) * (1.0 - quantile))
        return max(0.0, curve.time_at(target) - elapsed_s)

    def return_probability(
        self, features: GapFeatures, elapsed_s: float, *, speed: SpeedFactor | None = None
    ) -> float:
        """Return P(session returns | not back by `elapsed_s`). Pure."""
        share = self._node(features).return_share()
        curve = self._curve(features)
        survival = 1.0 if curve is None else curve.survival(elapsed_s)
        waiting = share * (survival if speed is None else speed.survival(survival))
        gone = 1.0 - share
        return waiting / (waiting + gone) if waiting > 0.0 else 0.0

    def to_bytes(self) -> bytes:
        """Return the observations, encoded for `from_bytes`. Pure."""
        nodes = [_state_of((), self._root)]
        nodes += [_state_of((kind,), node) for kind, node in self._kinds.items()]
        nodes += [_state_of(key, node) for key, node in self._tools.items()]
        nodes += [_state_of(key, node) for key, node in self._classes.items()]
        return msgspec.msgpack.encode(_ModelState(_SCHEMA, nodes))

    @classmethod
    def from_bytes(cls, data: bytes) -> ReturnTimeModel:
        """Return a model with the observations that `to_bytes` encoded.

        Raises:
            ValueError: `data` is not such an encoding.
        """
        state = msgspec.msgpack.decode(data, type=_ModelState)
        if state.schema != _SCHEMA:
            raise ValueError(f"not a return-time model: schema {state.schema!r}")
        model = cls()
        for saved in state.nodes:
            node = model._root
            if saved.path:
                node = model._path(_features_at(saved.path))[-1]
            node.restore(saved.counts, saved.ended)
        return model

    @property
    def num_observed(self) -> float:
        """Gaps observed, old ones discounted (count)."""
        return self._root.total / self._root.unit

    def _curve(self, features: GapFeatures) -> GapCurve | None:
        return self._node(features).curve() if self._root.total > 0.0 else None

    def _node(self, features: GapFeatures) -> GapNode:
        """Return the finest node that has observed such a pause."""
        node = self._resolved.get(features)
        if node is None:
            kind, tool, argument_class = features.kind, features.tool, features.argument_class
            node = (
                self._classes.get((kind, tool, argument_class))
                or self._tools.get((kind, tool))
                or self._kinds[kind]
            )
            if len(self._resolved) >= _MAX_RESOLVED:
                self._resolved.clear()
            self._resolved[features] = node
        return node

    def _path(self, features: GapFeatures) -> list[GapNode]:
        """Return the nodes below the root for `features`, created where missing. Mutates."""
        kind = features.kind
        nodes = [self._kinds[kind]]
        if not features.tool:
            return nodes
        nodes.append(self._tool_node(kind, features.tool))
        if features.argument_class:
            key = (kind, features.tool, features.argument_class)
            node = self._classes.get(key)
            if node is None:
                node = self._classes[key] = GapNode(self._learning, nodes[-1])
                if len(self._classes) > _MAX_CLASSES:
                    self._classes.popitem(last=False)
                self._resolved.clear()
            self._classes.move_to_end(key)
            nodes.append(node)
        return nodes

    def _tool_node(self, kind: GapKind, tool: str) -> GapNode:
        key = (kind, tool)
        node = self._tools.get(key)
        if node is None:
            node = self._tools[key] = GapNode(self._learning, self._kinds[kind])
            if len(self._tools) > _MAX_TOOLS:
                forgotten, _ = self._tools.popitem(last=False)
                for below in [below for below in self._classes if below[:2] == forgotten]:
                    del self._classes[below]
            self._resolved.clear()
        self._tools.move_to_end(key)
        return node


def _features_at(path: tuple[str, ...]) -> GapFeatures:
    fields = dict(zip(("kind", "tool", "argument_class"), path, strict=False))
    return msgspec.convert(fields, GapFeatures)


def _state_of(path: tuple[str, ...], node: GapNode) -> _NodeState:
    counts = {
        int(index): float(node.counts[index]) / node.unit for index in node.counts.nonzero()[0]
    }
    return _NodeState(path, counts, node.ended / node.unit)


def _offset_bins(kind: GapKind) -> int:
    return round(math.log2(_KIND_RATIO[kind]) * BINS_PER_OCTAVE)


def _scale_s(features: GapFeatures, scale_s: float) -> float:
    return scale_s * _KIND_RATIO[features.kind]


def _unlearned_survival(waited_s: float, horizon_s: float) -> float:
    """Return the survival of a Pareto tail from `waited_s` on, of that scale."""
    if horizon_s <= 0.0:
        return 1.0
    if waited_s <= 0.0:
        return 0.5  # without a scale the horizon is neither long nor short
    return float((waited_s / (waited_s + horizon_s)) ** TAIL_INDEX)


def _unlearned_quantile_s(waited_s: float, quantile: float) -> float:
    return float(waited_s * ((1.0 - quantile) ** (-1.0 / TAIL_INDEX) - 1.0))


def _unlearned_mean_s(waited_s: float, limit_s: float | None) -> float:
    if waited_s <= 0.0:
        return 0.0 if limit_s is None else limit_s / 2
    if limit_s is None:
        limit_s = _unlearned_quantile_s(waited_s, _TRIMMED_QUANTILE)
    power = 1.0 - TAIL_INDEX
    return float(waited_s * (((waited_s + limit_s) / waited_s) ** power - 1.0) / power)
