"""Ends requests that can never fit the KV cache with an error.

A server refuses prompts beyond `max_model_len`, and checks at its start that the KV cache holds one
of that length. Not every version checks exactly, and a request may outgrow the cache while it runs.
vLLM's own scheduler then waits without end for free blocks, and so does every other request.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import RequestStatus

from holdfast.core.bounded_name import bounded_name

__all__ = ["OversizedRequests"]

logger = logging.getLogger(__name__)


class OversizedRequests:
    """The waiting requests that need more KV blocks than the cache has.

    Args:
        scheduler: vLLM's.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._capacity_blocks = len(scheduler.kv_cache_manager.block_pool.blocks) - 1
        self._request_ids: set[str] = set()

    def __contains__(self, request: Any) -> bool:
        """Whether a request needs more blocks than the cache has."""
        return request.request_id in self._request_ids

    def __bool__(self) -> bool:
        """Whether there are such requests."""
        return bool(self._request_ids)

    def fitting(self, waiting: Iterable[Any]) -> Iterable[Any]:
        """Those of the waiting requests that do not need more blocks than there are. Pure."""
        return [r for r in waiting if r not in self] if self else waiting

    def check(self, request: Any) -> bool:
        """Check a waiting request; returns whether it was just found too large. Mutates."""
        num_blocks = self._num_needed(request)
        if num_blocks <= self._capacity_blocks or request in self:
            return False
        self._request_ids.add(request.request_id)
        logger.warning(
            "request %s ended with an error: its %d tokens need %d KV blocks and the KV cache has "
            "%d; lower --max-model-len, or give the cache more memory",
            *(
                bounded_name(request.request_id),
                request.num_tokens,
                num_blocks,
                self._capacity_blocks,
            ),
        )
        return True

    def end(self, outputs: dict[int, EngineCoreOutputs]) -> None:
        """End these requests with an error. Mutates the scheduler.

        Args:
            outputs: The step's outputs for clients; receives the errors.
        """
        scheduler = self._scheduler
        requests = [scheduler.requests.get(request_id) for request_id in self._request_ids]
        self._request_ids.clear()
        for request in requests:
            if request is None:
                continue  # aborted meanwhile
            scheduler.finish_requests(request.request_id, RequestStatus.FINISHED_ERROR)
            error = EngineCoreOutput(
                request_id=request.request_id,
                new_token_ids=[],
                finish_reason=request.get_finished_reason(),
                events=request.take_events(),
                trace_headers=request.trace_headers,
            )
            outputs.setdefault(request.client_index, EngineCoreOutputs()).outputs.append(error)

    def _num_needed(self, request: Any) -> int:
        """Blocks for all its tokens without a cached prefix, by vLLM's own count."""
        manager = self._scheduler.kv_cache_manager
        num_tokens = min(request.num_tokens, self._scheduler.max_model_len)
        num_blocks: int = manager.coordinator.get_num_blocks_to_allocate(
            request_id=request.request_id,
            num_tokens=num_tokens,
            new_computed_blocks=manager.empty_kv_cache_blocks.blocks,
            num_encoder_tokens=0,
            total_computed_tokens=0,
            num_local_computed_tokens=0,
            num_tokens_main_model=num_tokens,
            apply_admission_cap=True,
        )
        return num_blocks
