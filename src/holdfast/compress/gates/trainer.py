"""Trains gates beside a model that stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from holdfast.compress.gates.batch import Batch
from holdfast.compress.gates.gate import RetentionGates
from holdfast.compress.gates.gated_model import gated_logits
from holdfast.compress.gates.losses import capacity_loss, distillation_loss, next_token_loss
from holdfast.compress.gates.training_settings import TrainingSettings
from holdfast.errors import HoldfastError

__all__ = ["GateTrainer", "StepLosses"]


@dataclass(frozen=True, slots=True)
class StepLosses:
    """Losses of one step, before it changed the gates.

    Attributes:
        distillation: KL divergence from the model without gates (nats a token, at least 0).
        next_token: -log p of the right tokens (nats a token, at least 0).
        capacity: Excess over the capacity (at least 0).
    """

    distillation: float
    next_token: float
    capacity: float


class GateTrainer:
    """The optimizer of a set of gates.

    Source: TRIM-KV: the mean of distillation and next-token loss, plus the capacity loss. Differs:
    no packing of several documents into a sequence; all in float32.
    """

    def __init__(self, model: Any, gates: RetentionGates, settings: TrainingSettings) -> None:
        """Train from the gates as they are.

        Args:
            model: A causal language model of transformers, in evaluation mode.
            gates: Gates of its shape; they are changed step by step.
            settings: Constants.
        """
        self._model = model
        self._gates = gates
        self._settings = settings
        self.optimizer = torch.optim.AdamW(
            gates.parameters(),
            lr=settings.learning_rate,
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
        )

    def step(self, number: int, batches: Sequence[Batch]) -> StepLosses:
        """Change the gates once. Mutates them.

        Args:
            number: Which step (from 0), for the learning rate.
            batches: Whose gradients are averaged (at least one); each has a token to predict.

        Raises:
            HoldfastError: A loss is not a number; the gates are then as before.
        """
        parts = []
        self.optimizer.zero_grad()
        with _frozen(self._model):
            for batch in batches:
                losses = self._losses(batch.on(self._model.device))
                (self._total(losses) / len(batches)).backward()
                parts.append(losses.detach())
        mean = torch.stack(parts).mean(0)
        if not bool(mean.isfinite().all()):
            raise HoldfastError(f"step {number}: losses are {mean.tolist()}, training cannot go on")
        for group in self.optimizer.param_groups:
            group["lr"] = self._settings.learning_rate_at(number)
        torch.nn.utils.clip_grad_norm_(
            self._gates.parameters(), self._settings.max_gradient_norm, error_if_nonfinite=True
        )
        self.optimizer.step()
        return StepLosses(*mean.tolist())

    def _losses(self, batch: Batch) -> Tensor:
        """Distillation, next-token and capacity loss, (3,)."""
        settings, places = self._settings, batch.places()
        with torch.no_grad():
            output = self._model(input_ids=batch.tokens, use_cache=False, logits_to_keep=places)
        logits, counts = gated_logits(self._model, self._gates, batch.tokens, places)
        student = batch.asked(logits, places)
        return torch.stack(
            [
                distillation_loss(batch.asked(output.logits, places), student),
                next_token_loss(student, batch.answers()),
                capacity_loss(counts, settings.capacity, settings.scope),
            ]
        )

    def _total(self, losses: Tensor) -> Tensor:
        distillation, next_token, capacity = losses
        return (distillation + next_token) / 2 + self._settings.capacity_weight * capacity


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Keep the model's own parameters out of training. Mutates them, and undoes it."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
