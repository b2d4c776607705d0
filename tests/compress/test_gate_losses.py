"""Decay, capacity and losses against their definitions and values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tests.compress.gate_cases import batch_of
from tests.compress.layers import is_close, tiny_model
from torch import Tensor

from holdfast.compress.gates.decay import decay_of, decayed_attention, retained_counts
from holdfast.compress.gates.gate import RetentionGates, shape_for
from holdfast.compress.gates.losses import capacity_loss, distillation_loss, next_token_loss
from holdfast.compress.gates.trainer import GateTrainer
from holdfast.compress.gates.training_settings import TrainingSettings

HALF, QUARTER, WHOLE = math.log(0.5), math.log(0.25), -1e-9
RETENTION = torch.tensor([[[HALF, QUARTER, WHOLE]]])


def test_decay_is_retention_to_the_power_of_age() -> None:
    left = decay_of(RETENTION).exp()
    assert is_close(left, [[[[1, 0, 0], [0.5, 1, 0], [0.25, 0.25, 1]]]])


def test_retained_count_is_the_sum_of_what_is_left() -> None:
    assert is_close(retained_counts(decay_of(RETENTION)), [[[1, 1.5, 1.5]]])


def test_count_without_decay_is_the_number_of_tokens() -> None:
    counts = retained_counts(decay_of(torch.full((2, 3, 5), WHOLE)))
    assert is_close(counts, [[[1, 2, 3, 4, 5]] * 3] * 2)


def test_attention_decays_by_definition() -> None:
    """Products are ln 2, ln 4 and 0 for the first query head, 0 for the second."""
    keys = torch.tensor([math.log(2), math.log(4), 0.0]).view(1, 1, 3, 1)
    queries = torch.tensor([[1.0] * 3, [0.0] * 3]).view(1, 2, 3, 1) / 4
    values = torch.tensor([10.0, 20.0, 30.0]).view(1, 1, 3, 1)
    found = decayed_attention(queries, keys, values, decay_of(RETENTION), 4.0)
    first = [10, (2 / 2 * 10 + 4 * 20) / 5, (2 / 4 * 10 + 4 / 4 * 20 + 30) / 2.5]
    second = [10, (0.5 * 10 + 20) / 1.5, (0.25 * 10 + 0.25 * 20 + 30) / 1.5]
    assert is_close(found[0, :, :, 0], [first, second], within=1e-5)


def test_attention_without_decay_is_the_models_own() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 4, 9, 8, generator=generator)
    keys, values = (torch.randn(2, 2, 9, 8, generator=generator) for _ in range(2))
    decay = decay_of(torch.full((2, 2, 9), WHOLE))
    expected = torch.nn.functional.scaled_dot_product_attention(
        queries, keys, values, is_causal=True, scale=0.3, enable_gqa=True
    )
    found = decayed_attention(queries, keys, values, decay, 0.3)
    assert torch.allclose(found, expected, atol=1e-5)


FULL_AND_EMPTY = torch.tensor([[[[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]]])
"""A head that forgets nothing, and one that forgets everything at once."""


def test_local_capacity_is_worked_out_by_hand() -> None:
    # At M = 1.5 the first head exceeds by 0.5 of max(0.5, 1), then by 1.5 of 1.5.
    assert float(capacity_loss(FULL_AND_EMPTY, 1.5, "local")) == pytest.approx((0.5 + 1) / 2)


def test_global_capacity_is_worked_out_by_hand() -> None:
    # Both heads have 2, 3 and 4 of 3; the last is 1 beyond, of (3 - 1.5) * 2.
    assert float(capacity_loss(FULL_AND_EMPTY, 1.5, "global")) == pytest.approx(1 / 3)


def test_heads_share_a_global_capacity_over_layers() -> None:
    counts = torch.stack([FULL_AND_EMPTY[0], 0.5 * FULL_AND_EMPTY[0]], dim=1)  # one layer more
    # Sums are 3, 4.5 and 6 of 4 * 1, and could be (t - 1) * 4 beyond.
    expected = (0.5 / 4 + 2 / 8) / 2
    assert float(capacity_loss(counts, 1.0, "global")) == pytest.approx(expected)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_capacity_loss_ranges_from_nothing_to_one(scope: str) -> None:
    whole = torch.arange(1.0, 8.0).expand(2, 3, 2, 7)
    assert float(capacity_loss(whole, 2.0, scope)) == pytest.approx(1)  # type: ignore[arg-type]
    within = torch.ones(2, 3, 2, 7, requires_grad=True)
    loss = capacity_loss(within, 2.0, scope)  # type: ignore[arg-type]
    loss.backward()
    assert float(loss.detach()) == 0
    assert bool((within.grad == 0).all())


def test_losses_of_answers_are_worked_out_by_hand() -> None:
    teacher = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log() + 3.0
    student = torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log() - 2.0
    expected = 0.5 * math.log(4 / 3) / 2
    assert float(distillation_loss(teacher, student)) == pytest.approx(expected, abs=1e-6)
    answers = torch.tensor([0, 1])
    expected = -(math.log(0.25) + math.log(0.1)) / 2
    assert float(next_token_loss(student, answers)) == pytest.approx(expected, abs=1e-6)


def test_gradient_of_decay_and_counts_is_right() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    queries, keys, values = normal(1, 4, 5, 3), normal(1, 2, 5, 3), normal(1, 2, 5, 3)

    def computed(log_retention: Tensor) -> tuple[Tensor, Tensor]:
        decay = decay_of(log_retention)
        counts = retained_counts(decay)[:, None]
        attended = decayed_attention(queries, keys, values, decay, 0.7)
        return attended, capacity_loss(counts, 0.9, "global")

    log_retention = (-normal(1, 2, 5).abs()).requires_grad_()
    assert torch.autograd.gradcheck(computed, (log_retention,))


@pytest.mark.parametrize("kind", ["rg", "rg10"])
def test_gradient_of_the_whole_loss_is_right(kind: str) -> None:
    """Central differences in each of the gates' tensors, through both layers of a model."""
    model = tiny_model().double()
    gates = RetentionGates(shape_for(model.config, kind, hidden_size=8, initial_bias=2.0)).double()
    with torch.no_grad():
        for parameter in gates.parameters():
            if parameter.dim() == 2:
                parameter *= 10
    trainer = GateTrainer(model, gates, TrainingSettings(capacity=3, num_steps=1))
    batch, step = batch_of(1), 2e-3  # norms of transformers compute in float32

    def loss() -> Tensor:
        return trainer._total(trainer._losses(batch))

    loss().backward()
    for name, parameter in gates.named_parameters():
        gradient = parameter.grad.flatten()
        at = int(gradient.abs().argmax())
        with torch.no_grad():
            parameter.flatten()[at] += step
            above = float(loss().detach())
            parameter.flatten()[at] -= 2 * step
            below = float(loss().detach())
            parameter.flatten()[at] += step
        expected = (above - below) / (2 * step)
        assert float(gradient[at]) == pytest.approx(expected, rel=0.02), name
