"""Sequences that gates are trained on, and their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["NO_LABEL", "Batch", "batch_indices", "digest_of"]

NO_LABEL = -100
"""Label of a token that nothing is asked about."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of equal length.

    Attributes:
        tokens: Token ids, (B, T), int64.
        labels: The token id where the token is one to predict, else `NO_LABEL`, (B, T), int64. The
            first token of a sequence cannot be predicted.
    """

    tokens: Tensor
    labels: Tensor

    def on(self, device: Any) -> Batch:
        """The same batch on a device of torch. Pure."""
        return Batch(self.tokens.to(device), self.labels.to(device))

    def places(self) -> Tensor:
        """Tokens that some sequence's next token is to be predicted at, (P,), int64. Pure."""
        return (self.labels[:, 1:] != NO_LABEL).any(0).nonzero()[:, 0]

    def asked(self, logits: Tensor, places: Tensor) -> Tensor:
        """Logits (A, vocabulary) of tokens to predict, of those (B, P, …) at places."""
        return logits[self.labels[:, places + 1] != NO_LABEL]

    def answers(self) -> Tensor:
        """The tokens to predict, (A,), int64, in the order of `asked`. Pure."""
        later = self.labels[:, 1:]
        return later[later != NO_LABEL]


def batch_indices(step: int, per_step: int, num_batches: int, seed: int) -> list[int]:
    """Which batches a step takes: all once, in a new order, before any again.

    Pure.

    Args:
        step: Which step (from 0).
        per_step: Batches of a step (at least 1).
        num_batches: Batches that there are (at least 1).
        seed: Of the orders.
    """
    indices = []
    for turn in range(step * per_step, (step + 1) * per_step):
        round_, place = divmod(turn, num_batches)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + round_)
        indices.append(int(torch.randperm(num_batches, generator=generator)[place]))
    return indices


def digest_of(batches: Sequence[Batch]) -> str:
    """SHA-256 of all tokens and labels, hexadecimal. Pure."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(str(tuple(batch.tokens.shape)).encode())
        digest.update(batch.tokens.cpu().numpy().tobytes())
        digest.update(batch.labels.cpu().numpy().tobytes())
    return digest.hexdigest()
