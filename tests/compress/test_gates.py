"""Retention gates: shapes, initial values, precision, and what layers share."""

from __future__ import annotations

import math

import pytest
import torch
from tests.compress.layers import is_close, tiny_model

from holdfast.compress.gates.gate import GateShape, RetentionGates, shape_for
from holdfast.errors import ConfigError

SHAPE = GateShape("rg", num_layers=3, num_heads=2, model_size=4, hidden_size=5, initial_bias=1.0)
DEEP = GateShape("rg10", num_layers=3, num_heads=2, model_size=4, hidden_size=5, initial_bias=1.0)


def _silu(value: float) -> float:
    return value / (1 + math.exp(-value))


def _log_sigmoid(value: float) -> float:
    return -math.log(1 + math.exp(-value))


@pytest.mark.parametrize("kind", ["rg", "rg10"])
def test_output_is_worked_out_by_hand(kind: str) -> None:
    shape = GateShape(kind, num_layers=1, num_heads=2, model_size=1, hidden_size=1)  # type: ignore[arg-type]
    gates = RetentionGates(shape)
    with torch.no_grad():
        for layer, weight, bias in zip(gates.hidden[0][::2], (2.0, 3.0), (1.0, -1.0), strict=False):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
        gates.outputs[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        gates.outputs[0].bias.copy_(torch.tensor([0.5, 0.25]))
    found = gates.log_retention(0, torch.tensor([[[1.0], [0.0]]]))
    expected = []
    for sign, bias in ((1, 0.5), (-1, 0.25)):
        row = []
        for value in (1.0, 0.0):
            hidden = _silu(2 * value + 1)
            hidden = _silu(3 * hidden - 1) if kind == "rg10" else hidden
            row.append(_log_sigmoid(sign * hidden + bias))
        expected.append(row)
    assert is_close(found, [expected])


def test_new_gates_retain_as_the_initial_bias_says() -> None:
    for shape in (SHAPE, DEEP):
        found = RetentionGates(shape).log_retention(2, torch.zeros(1, 7, 4))
        assert is_close(found, [[[_log_sigmoid(1.0)] * 7] * 2], within=1e-3)


def test_seed_gives_the_weights() -> None:
    first, again, other = (RetentionGates(DEEP, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(again[name].equal(tensor) for name, tensor in first.items())
    weights = [name for name in first if name.endswith("weight")]
    assert not any(other[name].equal(first[name]) for name in weights)
    assert float(torch.cat([first[name].flatten() for name in weights]).std()) == pytest.approx(
        0.02, rel=0.2
    )


def test_layers_of_rg10_share_their_last_projection() -> None:
    counts = {
        shape.kind: sum(parameter.numel() for parameter in RetentionGates(shape).parameters())
        for shape in (SHAPE, DEEP)
    }
    first, second, last = 4 * 5 + 5, 5 * 5 + 5, 5 * 2 + 2
    assert counts == {"rg": 3 * (first + last), "rg10": 3 * (first + second) + last}


@pytest.mark.parametrize("kind", ["rg", "rg10"])
def test_layers_have_gates_of_their_own(kind: str) -> None:
    shape = GateShape(kind, 3, 2, 4, hidden_size=5)  # type: ignore[arg-type]
    gates = RetentionGates(shape)
    inputs = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    found = [gates.log_retention(layer, inputs) for layer in range(3)]
    assert found[0].shape == (1, 2, 6)
    assert not found[0].equal(found[1])
    assert not found[1].equal(found[2])


def test_half_precision_does_not_reach_the_gates() -> None:
    gates = RetentionGates(GateShape("rg", 1, 2, 4, hidden_size=5, initial_bias=12.0))
    inputs = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    exact = gates.log_retention(0, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = gates.log_retention(0, inputs)
    assert found.dtype == torch.float32
    assert found.equal(exact)
    assert len(exact.unique()) > 6  # in bfloat16 these are one or two values


@pytest.mark.parametrize("bias", [18.0, 40.0, 200.0])
def test_retention_is_never_exactly_one(bias: float) -> None:
    gates = RetentionGates(GateShape("rg10", 1, 2, 4, hidden_size=5, initial_bias=bias))
    found = gates.log_retention(0, torch.ones(1, 3, 4))
    assert bool((found <= -1e-9).all())
    assert bool(found.isfinite().all())


def test_shape_is_the_models() -> None:
    shape = shape_for(tiny_model().config, "rg10", hidden_size=8, initial_bias=2.0)
    assert shape == GateShape("rg10", 2, 2, 64, hidden_size=8, initial_bias=2.0)
    with pytest.raises(ConfigError, match=r"Expected `int` >= 1 - at `\$.hidden_size`"):
        shape_for(tiny_model().config, "rg", hidden_size=0, initial_bias=2.0)
    with pytest.raises(ConfigError, match="Invalid enum value 'rg2'"):
        shape_for(tiny_model().config, "rg2", hidden_size=8, initial_bias=2.0)


def test_models_of_other_caches_have_no_gates() -> None:
    config = tiny_model().config
    config.kv_lora_rank = 512
    with pytest.raises(ConfigError, match="MLA"):
        shape_for(config, "rg", hidden_size=8, initial_bias=2.0)
