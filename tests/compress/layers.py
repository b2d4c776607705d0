"""Layers whose attention is written down as masses, and tiny models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from holdfast.compress.cached_layer import CachedLayer

UNSEEN = -60.0

Rows = Sequence[Sequence[Sequence[Sequence[float]]]]


def layer_of(masses: Rows, norms: Sequence[Sequence[float]], *, index: int = 0) -> CachedLayer:
    """A layer with chosen attention and norms of values.

    Args:
        masses: Attention (H, g, w, n), each row adding up to 1; 0 where a query does not see a key.
        norms: Norms of values, (H, n).
        index: Which layer.
    """
    mass = torch.tensor(masses)
    num_entries = mass.shape[-1]
    # Keys are unit vectors, so that queries are the logarithms of their attention.
    keys = torch.eye(num_entries).expand(mass.shape[0], -1, -1)
    size = torch.tensor(norms)
    return CachedLayer(
        index=index,
        queries=mass.log().clamp_min(UNSEEN),
        keys=keys,
        values=keys * size[..., None],
        positions=torch.arange(num_entries).expand(mass.shape[0], -1),
        available=torch.ones(mass.shape[0], num_entries, dtype=torch.bool),
        output_weight=torch.ones(mass.shape[0], mass.shape[1], num_entries, 1),
        scaling=1.0,
        num_tokens=num_entries,
    )


def random_layer(seed: int, num_entries: int, *, num_heads: int = 2, index: int = 0) -> CachedLayer:
    """A layer of normal queries, keys and values; two query heads a KV head, size 4."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return CachedLayer(
        index=index,
        queries=normal(num_heads, 2, min(num_entries, 128), 4),
        keys=normal(num_heads, num_entries, 4),
        values=normal(num_heads, num_entries, 4),
        positions=torch.arange(num_entries).expand(num_heads, -1),
        available=torch.ones(num_heads, num_entries, dtype=torch.bool),
        output_weight=normal(num_heads, 2, 4, 8),
        scaling=0.5,
        num_tokens=num_entries,
    )


def tiny_model(kind: str = "llama", *, seed: int = 0) -> Any:
    """A random model of two layers: four query heads, two KV heads of size 16, 97 tokens."""
    import transformers

    configs = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    family = configs[kind]
    config = getattr(transformers, f"{family}Config")(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        **({"sliding_window": None} if kind == "mistral" else {}),
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():  # large keys, so that attention is not flat
        for layer in model.model.layers:
            layer.self_attn.k_proj.weight *= 8
    return model


def tokens(seed: int, count: int) -> list[int]:
    """Token ids of the tiny model."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(0, 97, (count,), generator=generator).tolist()
    return ids


def is_close(found: Tensor, expected: object, *, within: float = 1e-6) -> bool:
    """Whether a tensor is what a test writes down; infinities must be equal."""
    want = torch.tensor(expected, dtype=torch.float32)
    return found.shape == want.shape and bool(torch.allclose(found, want, rtol=0, atol=within))


def finite(scores: Tensor) -> Tensor:
    """Scores of the entries before a window at +inf; checks that the window is there."""
    assert bool((scores[:, -2:] == math.inf).all())
    return scores[:, :-2]
