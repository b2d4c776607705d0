"""The one meter of evictions: each cached block whose content is dropped for another, once.

A block without a hash holds nothing that could be found again; taking it is not an eviction.
Clearing the whole prefix cache is none either. Process: engine core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["watch_evictions"]


def watch_evictions(block_pool: Any, on_evicted: Callable[[Any], None]) -> None:
    """Call `on_evicted(block)` after each eviction from vLLM's `BlockPool`; changes nothing else.

    `on_evicted` runs inside block allocation and must not raise. The block's hash is gone by then.
    """
    evict = block_pool._maybe_evict_cached_block  # noqa: SLF001 - the only place that knows

    def evict_and_report(block: Any) -> bool:
        is_evicted: bool = evict(block)
        if is_evicted:
            on_evicted(block)
        return is_evicted

    block_pool._maybe_evict_cached_block = evict_and_report  # noqa: SLF001
