"""Maps a prompt's tokens to KV blocks.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CacheLayout", "cache_layout", "kv_bytes_per_token"]


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """Sizes by which a prompt maps to KV blocks.

    Attributes:
        hash_block_tokens: Tokens that a prefix hash covers (count).
        hashes_per_block: Prefix hashes that a block of `group` covers (count).
        num_groups: Cache groups, each with blocks of its own for the same tokens (count).
        group: Number of the cache group whose blocks decide how much of a prompt is resident.
    """

    hash_block_tokens: int
    hashes_per_block: int
    num_groups: int
    group: int = 0


def cache_layout(scheduler: Any) -> CacheLayout:
    """The cache layout of a scheduler; older vLLM has one prefix hash a block."""
    groups = scheduler.kv_cache_config.kv_cache_groups
    hash_block_tokens = getattr(scheduler, "hash_block_size", None) or scheduler.block_size
    # Groups with windows or states need only a prompt's end, and evict its beginning first.
    whole = (i for i, one in enumerate(groups) if _keeps_whole_prompts(one.kv_cache_spec))
    group = next(whole, 0)
    block_tokens = groups[group].kv_cache_spec.block_size if groups else scheduler.block_size
    return CacheLayout(
        hash_block_tokens, max(block_tokens // hash_block_tokens, 1), max(len(groups), 1), group
    )


def kv_bytes_per_token(scheduler: Any, cache_tokens: int) -> float:
    """KV bytes of a token on all GPUs of an engine together; 0 if not known.

    Args:
        scheduler: vLLM's.
        cache_tokens: Tokens that its KV cache holds (count).
    """
    tensors = scheduler.kv_cache_config.kv_cache_tensors or ()
    num_bytes = sum(getattr(tensor, "size", 0) for tensor in tensors)
    parallel = scheduler.vllm_config.parallel_config
    return float(num_bytes * parallel.world_size / max(cache_tokens, 1))


def _keeps_whole_prompts(spec: Any) -> bool:
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    return isinstance(spec, FullAttentionSpec)
