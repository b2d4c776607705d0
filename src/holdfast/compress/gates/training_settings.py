"""How gates are trained."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import Meta

from holdfast.compress.gates.losses import Scope

__all__ = ["TrainingSettings"]

Positive = Annotated[float, Meta(gt=0.0)]


class TrainingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a training is set to, at the authors' values where they publish some.

    Attributes:
        capacity: Entries a head M that the loss allows. Far fewer than will stay when gates evict:
            the authors train with 32 to 128 for 1,024.
        num_steps: Steps of the optimizer (count).
        scope: Whether heads of all layers share the capacity.
        capacity_weight: Weight of the capacity loss.
        learning_rate: The highest one. It rises for the warm-up and falls along a cosine to 0.
        warm_up_share: Share of the steps that are warm-up (0 to 1).
        max_gradient_norm: Gradients are scaled down to this norm.
        weight_decay: Of AdamW.
        adam_epsilon: Of AdamW; small, as gradients at a large initial bias are.
        batches_per_step: Batches whose gradients are averaged for a step (count).
        seed: Of the order of the batches.
    """

    capacity: Positive
    num_steps: Annotated[int, Meta(ge=1)]
    scope: Scope = "global"
    capacity_weight: Annotated[float, Meta(ge=0.0)] = 1.0
    learning_rate: Positive = 2e-4
    warm_up_share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.03
    max_gradient_norm: Positive = 1.0
    weight_decay: Annotated[float, Meta(ge=0.0)] = 0.01
    adam_epsilon: Positive = 1e-10
    batches_per_step: Annotated[int, Meta(ge=1)] = 1
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step. Pure.

        Args:
            step: Which (from 0, below `num_steps`).
        """
        warm_up = math.ceil(self.warm_up_share * self.num_steps)
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.num_steps - warm_up)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
