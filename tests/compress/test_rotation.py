"""Keys that are moved to other positions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.compress.layers import is_close
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from holdfast.compress.rotation import Rotation, rotation_of
from holdfast.errors import ConfigError

_KINDS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
}


def _config(**rope: Any) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        rope_parameters={"rope_theta": 10_000.0, **rope},
    )


def _rotated(config: LlamaConfig, keys: Tensor, first: int) -> Tensor:
    """Keys (H, n, d) at positions from `first` on, as the model rotates them."""
    positions = torch.arange(first, first + keys.shape[1])[None]
    cosine, sine = LlamaRotaryEmbedding(config)(keys, positions)
    found: Tensor = apply_rotary_pos_emb(keys[None], keys[None], cosine, sine)[0][0]
    return found


def test_quarter_and_half_turns_worked_by_hand() -> None:
    # Pairs are (first, third) and (second, fourth); a position turns them by 90 and 180 degrees.
    rotation = Rotation(torch.tensor([math.pi / 2, math.pi], dtype=torch.float64))
    key = torch.tensor([[1.0, 2.0, 0.0, 5.0]])
    assert is_close(rotation.turned_back(key, 1), [[0.0, -2.0, -1.0, -5.0]])
    assert is_close(rotation.turned_back(key, 2), [[-1.0, 2.0, 0.0, 5.0]])


@pytest.mark.parametrize("kind", _KINDS)
def test_moved_keys_equal_keys_of_the_other_position(kind: str) -> None:
    config = _config(**_KINDS[kind])
    keys = torch.randn((2, 6, 32), generator=torch.Generator().manual_seed(1))
    moved = rotation_of(config).turned_back(_rotated(config, keys, 150), 93)
    assert torch.allclose(moved, _rotated(config, keys, 57), atol=2e-5)


def test_there_and_back_is_where_it_was() -> None:
    rotation = rotation_of(_config())
    keys = torch.randn((3, 4, 32), generator=torch.Generator().manual_seed(2))
    assert torch.allclose(
        rotation.turned_back(rotation.turned_back(keys, 77), -77), keys, atol=1e-5
    )
    assert rotation.turned_back(keys.bfloat16(), 5).dtype is torch.bfloat16


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "made-up"])
def test_frequencies_that_follow_the_length_are_refused(kind: str) -> None:
    config = _config()
    config.rope_parameters = {"rope_theta": 10_000.0, "rope_type": kind, "factor": 2.0}
    with pytest.raises(ConfigError, match=f"type '{kind}' cannot be moved"):
        rotation_of(config)


def test_keys_that_turn_in_part_are_refused() -> None:
    config = _config()
    config.rope_parameters = {"rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    with pytest.raises(ConfigError, match=r"a share of 0\.5"):
        rotation_of(config)


def test_embeddings_layer_by_layer_are_refused() -> None:
    config = _config()
    config.rope_parameters = {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    with pytest.raises(ConfigError, match="of their own"):
        rotation_of(config)
