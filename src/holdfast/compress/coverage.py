"""How many entries cover most of what a head attends to."""

from __future__ import annotations

import torch
from torch import Tensor

from holdfast.compress.budget import Budget
from holdfast.compress.settings import Settings

__all__ = ["num_covering"]


def num_covering(weights: Tensor, budget: Budget, settings: Settings) -> Tensor:
    """How many of each head's entries cover its attention, largest first. Pure.

    They are the ones before the entry that brings the sum of mean attention, as a share of all of
    it, to `coverage` less a bias. The bias is the mean mass on the last w of the given entries, one
    figure for all heads; the paper means the mass on the window, and its code, whose results are
    the published ones, has the entries before it.

    Source: DefensiveKV (arXiv 2510.13334). Differs: at short lengths a cap of the code is negative,
    and as the end of a slice it then takes nearly all entries; here it is 0. `as_published` undoes
    that.

    Args:
        weights: The window's attention to entries before it, (H, g, w, n') with n' at least 1.
        budget: At which the cap is taken.
        settings: `window`, `coverage` and `as_published` count.

    Returns:
        (H,), int64, from 0 to n'. Where the share is never reached by rounding, 0.
    """
    num_entries = weights.shape[-1]
    bias = weights[..., -settings.window :].sum(-1).mean()
    mean = weights.mean(dim=(1, 2))
    shares = mean / mean.sum(-1, keepdim=True).clamp_min(torch.finfo(mean.dtype).tiny)
    sums = shares.sort(-1, descending=True).values.cumsum(-1)
    # Of rows without a true value, argmax is 0.
    reached = (sums >= settings.coverage - bias).int().argmax(-1)
    cap = int(num_entries * budget.share - settings.window)
    if cap < 0 and settings.as_published:
        return torch.full_like(reached, max(0, num_entries + cap))
    return reached.clamp_max(max(0, cap))
