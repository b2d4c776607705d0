"""Restores vLLM's own queues when Holdfast falls back.

Process: scheduler. Checked on vLLM 0.28 ... 0.32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.v1.core.sched.request_queue import create_request_queue

from holdfast.vllm.compat import stock_free_queue

__all__ = ["restore_free_queue", "restore_request_queue"]


def restore_request_queue(scheduler: Any) -> None:
    """Put every waiting request into vLLM's own queue. Mutates the scheduler."""
    waiting = create_request_queue(scheduler.policy)
    for request in scheduler.waiting:
        waiting.add_request(request)
    scheduler.waiting = waiting


def restore_free_queue(pool: Any, age_of: Callable[[Any], int]) -> None:
    """Put every free block into vLLM's own queue: empty ones, then oldest first.

    Mutates the pool; only between two engine steps.
    """
    free = [block for block in pool.blocks if block.ref_cnt == 0 and not block.is_null]
    free.sort(key=lambda block: (block.block_hash is not None, age_of(block)))
    pool.free_block_queue = stock_free_queue(free)
