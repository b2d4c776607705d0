"""Counts evictions: each cached block that loses its content for another, once.

Neither a block without a hash nor a reset of the whole prefix cache counts.

Process: scheduler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["watch_evictions"]


def watch_evictions(block_pool: Any, on_evicted: Callable[[Any], None]) -> None:
    """Call `on_evicted(block)` after each eviction from vLLM's pool. Mutates the pool.

    `on_evicted` runs inside block allocation and must not raise. The block has lost its hash then.
    """
    evict = block_pool._maybe_evict_cached_block  # noqa: SLF001 # vLLM has no public name for it

    def evict_and_report(block: Any) -> bool:
        is_evicted: bool = evict(block)
        if is_evicted:
            on_evicted(block)
        return is_evicted

    block_pool._maybe_evict_cached_block = evict_and_report  # noqa: SLF001
