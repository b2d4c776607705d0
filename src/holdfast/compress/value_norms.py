"""How much an entry's value can change the hidden state. All functions are pure."""

from __future__ import annotations

from typing import Literal, assert_never

import torch
from torch import Tensor

__all__ = ["Normalization", "normalized", "value_norms"]

Normalization = Literal["heads", "tokens", "none"]


def value_norms(values: Tensor, output_weight: Tensor) -> Tensor:
    """L1 norms of what values add to the hidden state, averaged over query heads.

    Source: CriticalKV (arXiv 2502.03805), theorem 3.3: times an entry's attention weight it bounds
    what the attention output loses without the entry.

    Args:
        values: Values, (H, n, d).
        output_weight: The output projection by query head, (H, g, d, m).

    Returns:
        Norms, (H, n), float32.
    """
    # A head at a time: all heads' products would be (H, g, n, m) at once.
    return torch.stack(
        [
            torch.stack([(value @ weight).abs().sum(-1) for weight in weights]).mean(0)
            for value, weights in zip(values.float(), output_weight.float(), strict=True)
        ]
    )


def normalized(norms: Tensor, over: Normalization) -> Tensor:
    """Norms divided by their sum over heads or tokens, or as they are.

    Divided by the heads' sum, norms of all layers have one scale, while what they say about heads
    stays. DefensiveKV's code does that where its paper divides by the tokens' sum.

    Args:
        norms: Norms, (H, n).
        over: What one sum is taken over: the `heads` at one token, or the `tokens` of one head.

    Returns:
        (H, n); a sum of 0 leaves zeros.
    """
    match over:
        case "none":
            return norms
        case "heads":
            sums = norms.sum(0, keepdim=True)
        case "tokens":
            sums = norms.sum(1, keepdim=True)
        case _:
            assert_never(over)
    return norms / sums.clamp_min(torch.finfo(norms.dtype).tiny)
