"""Loads into the KV cache by requests of ours that never run.

vLLM loads blocks only for requests. A placeholder request allocates blocks and starts a load, as a
request that waits for remote KV does. It ends when the load has ended, and its blocks stay in the
KV cache as free cached blocks.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.sampling_params import SamplingParams
from vllm.v1.request import Request, RequestStatus

from holdfast.vllm.compat import end_tier_access

__all__ = ["PlaceholderRequests", "is_placeholder"]

_PREFIX = "holdfast-prefetch-"


def is_placeholder(request: Any) -> bool:
    """Whether a request is one of ours that never runs. Pure."""
    return bool(request.request_id.startswith(_PREFIX))


class PlaceholderRequests:
    """Starts and ends placeholder requests.

    Args:
        scheduler: vLLM's, with its offloading connector and one cache group.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._loading: dict[str, Any] = {}
        self._num_started = 0

    def __len__(self) -> int:
        """Loads in flight (count)."""
        return len(self._loading)

    def start(self, hashes: Sequence[Any], max_blocks: int) -> int:
        """Start to load the first missing blocks of a path; only before `schedule`.

        Mutates the scheduler: the blocks are in use until the load has ended.

        Args:
            hashes: Prefix hashes of the path.
            max_blocks: Blocks to load at most (count).

        Returns:
            Prefix hashes of the path that will be resident (count); 0 if the host tier stores none
            of the missing blocks or too few KV blocks are free.
        """
        try:
            return self._start(self._request(hashes, max_blocks))
        finally:
            end_tier_access(self._scheduler.connector.connector_scheduler)

    def _start(self, request: Request) -> int:
        scheduler = self._scheduler
        connector, manager = scheduler.connector, scheduler.kv_cache_manager
        connector.on_new_request(request)
        cached, num_cached, *_ = manager.get_computed_blocks(request)
        num_external, is_async = connector.get_num_new_matched_tokens(request, num_cached)
        # A synchronous load belongs to a request that runs in the same step.
        blocks = (
            num_external
            and is_async
            and manager.allocate_slots(
                request,
                0,
                num_new_computed_tokens=num_cached,
                new_computed_blocks=cached,
                num_external_computed_tokens=num_external,
                delay_cache_blocks=True,
            )
        )
        if not blocks:
            request.status = RequestStatus.FINISHED_ABORTED
            connector.request_finished_all_groups(request, ([],))
            scheduler.finished_req_ids.add(request.request_id)
            return 0
        connector.update_state_after_alloc(
            request, manager.get_blocks(request.request_id), num_external
        )
        request.status = RequestStatus.WAITING_FOR_REMOTE_KVS
        request.num_computed_tokens = num_cached + num_external
        scheduler.requests[request.request_id] = request
        self._loading[request.request_id] = request
        num_hashes: int = request.num_computed_tokens // scheduler.hash_block_size
        return num_hashes

    def end_loaded(self) -> None:
        """End requests whose load ended; their blocks stay cached. Mutates the scheduler."""
        scheduler = self._scheduler
        for request_id, request in list(self._loading.items()):
            if request_id in scheduler.finished_recving_kv_req_ids:
                scheduler._update_waiting_for_remote_kv(request)  # noqa: SLF001
                request.status = RequestStatus.FINISHED_ABORTED
                scheduler._free_request(request)  # noqa: SLF001
            elif not request.is_finished():  # finished if all requests are aborted
                continue
            del self._loading[request_id]

    @property
    def hold_blocks(self) -> bool:
        """Whether a request, aborted or not, has blocks that the worker may still write."""
        return any(request_id.startswith(_PREFIX) for request_id in self._scheduler.requests)

    def abort_all(self) -> None:
        """Abort every request; its blocks are free once the worker's copy ends. Mutates."""
        self._scheduler.finish_requests(list(self._loading), RequestStatus.FINISHED_ABORTED)
        self._loading.clear()

    def _request(self, hashes: Sequence[Any], max_blocks: int) -> Request:
        """A request for the path and one more token, or its last block would not load."""
        self._num_started += 1
        block_tokens = self._scheduler.hash_block_size
        max_tokens = max_blocks * self._scheduler.block_size
        return Request(
            request_id=f"{_PREFIX}{self._num_started}",
            prompt_token_ids=[0] * (len(hashes) * block_tokens + 1),
            sampling_params=SamplingParams(
                max_tokens=1,
                extra_args={"kv_transfer_params": {"max_load_tokens": max_tokens}},
            ),
            pooling_params=None,
            arrival_time=0.0,
            block_hasher=lambda _: list(hashes),
        )
