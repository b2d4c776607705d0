"""Token-level eviction methods by name.

Settings follow a name, as in `defensivekv:aggregate=mean:floor=false`.

A method scores entries, shares the budget among heads by these scores, and keeps each head's best.
Some change the scores in between, once the share of each head is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import msgspec
from torch import Tensor

from holdfast.compress import scores
from holdfast.compress.budget import Budget
from holdfast.compress.cached_layer import CachedLayer
from holdfast.compress.selection import (
    Allocation,
    across_layers,
    keep_top,
    per_head,
    per_layer,
    safeguarded,
)
from holdfast.compress.settings import Settings
from holdfast.compress.value_norms import value_norms
from holdfast.errors import ConfigError

__all__ = ["Method", "find_method", "method_names", "methods"]

_SETTING: Final = ":"
_EPSILON: Final = 1e-4
_SCORES_OF_ENTRIES: Final = (
    *(scores.key_difference, scores.key_norm, scores.recency, scores.uniform_random),
)


@dataclass(frozen=True, slots=True)
class Method:
    """A way to choose the entries that stay.

    Attributes:
        name: As it is asked for, settings included.
        summary: What it does, in a line.
        score: How much each entry is needed.
        allocate: How a budget is shared by scores, given the settings.
        takes: Names of the settings that change something.
        refine: Scores (H, n) from a layer, its first scores (H, n) and the entries that each of its
            heads has (H,); None keeps the first ones.
        settings: Constants.
    """

    name: str
    summary: str
    score: scores.Score
    allocate: Callable[[Settings], Allocation]
    takes: tuple[str, ...]
    refine: Callable[[CachedLayer, Tensor, Tensor, Budget, Settings], Tensor] | None = None
    settings: Settings = field(default_factory=Settings)

    @property
    def kind(self) -> str:
        """Its name without settings."""
        return self.name.partition(_SETTING)[0]

    @property
    def needs_entries_only(self) -> bool:
        """Whether it scores by keys and positions, not by queries or hidden states."""
        return self.score in _SCORES_OF_ENTRIES

    def keep(self, layers: Sequence[CachedLayer], budget: Budget) -> list[Tensor]:
        """Which entries stay; pure.

        Args:
            layers: All layers of a model, with one sequence.
            budget: What to keep of all tokens of the sequence.

        Returns:
            For each layer (H, n), bool. They are `budget.per_head` entries a head on average, or
            all that there are; methods with a window keep its newest `budget.per_head` tokens.

        Raises:
            ConfigError: A score is not a number, as keys or values are not.
        """
        ranked = [self._scores(layer, budget) for layer in layers]
        counts = self.allocate(self.settings)(ranked, budget.per_head)
        if self.refine is not None:
            ranked = [
                _only_available(self.refine(layer, first, count, budget, self.settings), layer)
                for layer, first, count in zip(layers, ranked, counts, strict=True)
            ]
        return [keep_top(layer, count) for layer, count in zip(ranked, counts, strict=True)]

    def _scores(self, layer: CachedLayer, budget: Budget) -> Tensor:
        found = _only_available(self.score(layer, budget, self.settings), layer)
        if bool(found.isnan().any()):
            raise ConfigError(f"{self.name}: layer {layer.index} has scores that are not numbers")
        return found


def _only_available(found: Tensor, layer: CachedLayer) -> Tensor:
    return found.masked_fill(~layer.available, -math.inf)


def _weigh_rest(
    layer: CachedLayer, first: Tensor, counts: Tensor, budget: Budget, settings: Settings
) -> Tensor:
    """Part of each head's entries by score, the rest by score times norm of value.

    Source: CriticalKV (arXiv 2502.03805), algorithm 1.
    """
    decided = keep_top(first, _first_of(counts, settings))
    weighted = (first + _EPSILON) * value_norms(layer.values, layer.output_weight)
    return weighted.masked_fill(decided | (first == math.inf), math.inf)


def _first_of(counts: Tensor, settings: Settings) -> Tensor:
    """Entries of each head that attention decides, at least one where it decides any."""
    first = (counts * settings.first_share).long()
    return first.clamp_min(1) if settings.first_share > 0 else first


def _weigh_rest_safeguarded(
    layer: CachedLayer, first: Tensor, counts: Tensor, budget: Budget, settings: Settings
) -> Tensor:
    """As `_weigh_rest`, after the entries that the safeguard gives each head."""
    weighted = _weigh_rest(layer, first, counts, budget, settings)
    safe = safeguarded(first, budget.per_head, settings.safeguard) == math.inf
    return weighted.masked_fill(safe, math.inf)


def _scoped(default: Allocation) -> Callable[[Settings], Allocation]:
    """The scope of the settings, or the method's own."""
    scopes = {"": default, "head": per_head, "layer": per_layer, "all": across_layers}
    return lambda settings: scopes[settings.scope]


def _safeguarded(settings: Settings) -> Allocation:
    """Heads of a layer compete, each with a safeguard."""
    return partial(per_layer, safeguard=settings.safeguard)


_SNAP: Final = ("window", "kernel")
_DEFENSIVE: Final = (
    *("window", "kernel", "aggregate", "floor", "normalization", "coverage", "scope"),
    "as_published",
)

_GATES: Final = ("gates", "lookahead", "min_entries", "scope")

_METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method(
            "rg10",
            "what gates of two hidden layers, trained for the model, retain",
            scores.retained,
            _scoped(across_layers),
            _GATES,
        ),
        Method(
            "rg",
            "what gates of one hidden layer, trained for the model, retain",
            scores.retained,
            _scoped(across_layers),
            _GATES,
        ),
        Method(
            "layer-defensivekv",
            "worst-case attention times norms of values; heads of all layers compete",
            scores.defensive,
            _scoped(across_layers),
            _DEFENSIVE,
        ),
        Method(
            "defensivekv",
            "worst-case attention times norms of values; heads of a layer compete",
            scores.defensive,
            _scoped(per_layer),
            _DEFENSIVE,
        ),
        Method(
            "critical-adakv",
            "as adakv shares it; half of each head's entries also by norms of values",
            scores.snap,
            _safeguarded,
            (*_SNAP, "safeguard", "first_share"),
            _weigh_rest_safeguarded,
        ),
        Method(
            "criticalkv",
            "half of each head's entries by mean attention, half also by norms of values",
            scores.snap,
            _scoped(per_head),
            (*_SNAP, "first_share", "scope"),
            _weigh_rest,
        ),
        Method(
            "adakv",
            "mean attention of the window; heads of a layer compete, with a safeguard",
            scores.snap,
            _safeguarded,
            (*_SNAP, "safeguard"),
        ),
        Method(
            "snapkv",
            "mean attention of the window",
            scores.snap,
            _scoped(per_head),
            (*_SNAP, "scope"),
        ),
        Method(
            "keydiff",
            "keys unlike the head's mean key; needs no queries",
            scores.key_difference,
            _scoped(per_head),
            ("scope",),
        ),
        Method(
            "knorm", "small keys; needs no queries", scores.key_norm, _scoped(per_head), ("scope",)
        ),
        Method(
            "streaming-llm",
            "the first few and the newest tokens",
            scores.recency,
            lambda settings: per_head,
            ("num_sinks",),
        ),
        Method(
            "random",
            "any entries, the floor",
            scores.uniform_random,
            _scoped(per_head),
            ("seed", "scope"),
        ),
    )
}


def method_names() -> tuple[str, ...]:
    """Names of the methods that need no training, the newest papers' first."""
    return tuple(name for name, method in _METHODS.items() if "gates" not in method.takes)


def methods() -> tuple[Method, ...]:
    """All methods, with the constants of their authors."""
    return tuple(_METHODS.values())


def find_method(spelling: str) -> Method:
    """A method by name and settings, such as `snapkv:window=64`. Pure.

    Raises:
        ConfigError: The method or a setting is unknown, or a value is out of range.
    """
    name, *pairs = spelling.split(_SETTING)
    if name not in _METHODS:
        raise ConfigError(
            f"no eviction method is called {name!r}", hint=f"known: {', '.join(_METHODS)}"
        )
    method = _METHODS[name]
    given = {key: text for key, _, text in (pair.partition("=") for pair in pairs)}
    hint = f"settings of {name}: {', '.join(method.takes)}"
    for key in given:
        if key not in method.takes:
            raise ConfigError(f"method {spelling!r}: {name} has no setting {key!r}", hint=hint)
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"method {spelling!r}: {error}", hint=hint) from error
    return replace(method, name=spelling, settings=settings)
