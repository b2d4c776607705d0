"""How a prompt's tokens map to KV blocks.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CacheLayout", "cache_layout"]


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """How a prompt maps to cached blocks.

    Attributes:
        hash_block_tokens: Tokens a prefix hash covers.
        hashes_per_block: Prefix hashes a block of that group covers.
        num_groups: Cache groups, each with blocks of its own for the same tokens.
        group: Number of the cache group whose blocks say how much of a prompt is cached.
    """

    hash_block_tokens: int
    hashes_per_block: int
    num_groups: int
    group: int = 0


def cache_layout(scheduler: Any) -> CacheLayout:
    """The grain of a scheduler's prefix cache.

    Hash blocks equal blocks where vLLM knows no other.
    """
    groups = scheduler.kv_cache_config.kv_cache_groups
    hash_block_tokens = getattr(scheduler, "hash_block_size", None) or scheduler.block_size
    # Windows and states give up a prompt's beginning first and need its end only.
    whole = (i for i, one in enumerate(groups) if _keeps_whole_prompts(one.kv_cache_spec))
    group = next(whole, 0)
    block_tokens = groups[group].kv_cache_spec.block_size if groups else scheduler.block_size
    return CacheLayout(
        hash_block_tokens, max(block_tokens // hash_block_tokens, 1), max(len(groups), 1), group
    )


def _keeps_whole_prompts(spec: Any) -> bool:
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    return isinstance(spec, FullAttentionSpec)
