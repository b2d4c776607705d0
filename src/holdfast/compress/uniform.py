"""Choices that leave every KV head as many entries, which any cache can hold."""

from __future__ import annotations

from torch import Tensor

from holdfast.compress.budget import Budget
from holdfast.compress.cached_layer import CachedLayer
from holdfast.compress.methods import Method
from holdfast.errors import ConfigError

__all__ = ["check_uniform", "chosen_entries"]


def check_uniform(method: Method) -> None:
    """Check that a method scores by entries alone, and keeps as many in each head.

    Raises:
        ConfigError: It needs queries or hidden states, or heads compete for entries.
    """
    if not method.needs_entries_only:
        raise ConfigError(
            f"{method.name} scores by queries or hidden states, which no engine keeps",
            hint="methods that need neither: keydiff, knorm, streaming-llm, random",
        )
    if method.settings.scope not in ("", "head"):
        raise ConfigError(
            f"{method.name}: heads compete for entries, and a block table is one for all heads",
            hint="leave out `scope`",
        )


def chosen_entries(method: Method, layer: CachedLayer, num_kept: int) -> Tensor:
    """The entries of a layer that a method keeps, as many in each head; pure.

    Args:
        method: What chooses; see `check_uniform`.
        layer: The layer, none of whose n entries is evicted.
        num_kept: Entries a head (1 to n).

    Returns:
        Indices of entries, (H, num_kept), int64, ascending in each head.
    """
    # A share that gives this number exactly, whatever the rounding of the operator's own share.
    budget = Budget(num_kept / layer.num_entries, layer.num_entries)
    (kept,) = method.keep([layer], budget)
    return kept.nonzero()[:, 1].view(kept.shape[0], num_kept)
