"""KV blocks of the real CPU backend, read and written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]

_HEADS, _BLOCK, _SIZE = 2, 32, 64
_SPEC = SimpleNamespace(block_size=_BLOCK, num_kv_heads=_HEADS, head_size=_SIZE)


class _Layer:
    """What a backend needs of an attention layer to write into its cache."""

    _k_scale_float = _v_scale_float = 1.0

    def __init__(self, dtype: Any) -> None:
        from vllm.config import VllmConfig, set_current_vllm_config
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl, _get_attn_isa

        config = VllmConfig()
        config.model_config = SimpleNamespace(dtype=dtype)
        with set_current_vllm_config(config):
            self.impl = CPUAttentionBackendImpl(4, _SIZE, 1.0, _HEADS, None, None, "auto")
        self.isa = self.impl.isa = _get_attn_isa(dtype, _BLOCK, _SIZE)


def _layout(dtype_name: str) -> tuple[Any, Any]:
    import torch

    from holdfast.vllm.compaction.page_layout import PageLayout

    dtype = getattr(torch, dtype_name)
    cache = torch.zeros((5, _HEADS, _BLOCK, 2 * _SIZE), dtype=dtype)
    return PageLayout(_Layer(dtype), cache, _SPEC), cache


def _entries(count: int, dtype: Any) -> Any:
    import torch

    generator = torch.Generator().manual_seed(count)
    return torch.randn((2, _HEADS, count, _SIZE), generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_written_tokens_are_read_from_their_blocks(dtype: str) -> None:
    import torch

    layout, cache = _layout(dtype)
    keys, values = _entries(2 * _BLOCK, cache.dtype)
    layout.write(keys, values, [3, 1], 0)
    read = layout.read([3, 1])
    assert torch.equal(read[0], keys) and torch.equal(read[1], values)
    assert torch.equal(layout.read([1])[0], keys[:, _BLOCK:])
    assert not bool(cache[[0, 2, 4]].any())
    assert layout.bytes_per_token == 2 * _HEADS * _SIZE * cache.element_size()


def test_tokens_before_the_first_are_left_alone() -> None:
    import torch

    layout, cache = _layout("float32")
    old = _entries(_BLOCK, cache.dtype)
    layout.write(*old, [2], 0)
    new = _entries(40, cache.dtype)
    layout.write(*new, [2, 4], 30)
    keys, _ = layout.read([2, 4])
    assert torch.equal(keys[:, :30], old[0][:, :30])
    assert torch.equal(keys[:, 30:40], new[0][:, 30:])
    assert not bool(keys[:, 40:].any())


def test_cache_that_is_no_pair_of_keys_and_values_is_refused() -> None:
    import torch

    from holdfast.errors import EngineError
    from holdfast.vllm.compaction.page_layout import PageLayout

    cache = torch.zeros((5, 1, _BLOCK, _SIZE))
    with pytest.raises(EngineError, match="a block is"):
        PageLayout(_Layer(torch.float32), cache, _SPEC)
