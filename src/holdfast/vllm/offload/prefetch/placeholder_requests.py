"""Copies into the KV cache that no request asked for.

vLLM loads blocks for requests only. So such a copy is a request of ours that is never run, a ghost:
it takes blocks and starts a copy as a request that waits for remote KV does, and when the copy has
ended it is over, and its blocks stay behind as cached content.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.sampling_params import SamplingParams
from vllm.v1.request import Request, RequestStatus

from holdfast.vllm.compat import end_tier_access

__all__ = ["PlaceholderRequests"]

_PREFIX = "holdfast-prefetch-"


class PlaceholderRequests:
    """Starts such copies and ends them.

    Args:
        scheduler: vLLM's, with its offloading connector and one cache group.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._under_way: dict[str, Any] = {}
        self._num_started = 0

    def __len__(self) -> int:
        """Copies under way (count)."""
        return len(self._under_way)

    def begin(self, hashes: Sequence[Any], most_blocks: int) -> int:
        """Start to bring back the first missing blocks of a chain; only before `schedule`.

        Mutates the scheduler: the blocks are in use until the copy has ended.

        Args:
            hashes: Prefix hashes of the chain.
            most_blocks: Blocks to bring back at most (count).

        Returns:
            Prefix hashes of the chain that will be cached (count); 0 where nothing is to be had or
            there is no room.
        """
        try:
            return self._begin(self._request(hashes, most_blocks))
        finally:
            end_tier_access(self._scheduler.connector.connector_scheduler)

    def _begin(self, request: Request) -> int:
        scheduler = self._scheduler
        connector, manager = scheduler.connector, scheduler.kv_cache_manager
        connector.on_new_request(request)
        cached, num_cached, *_ = manager.get_computed_blocks(request)
        num_external, is_beside = connector.get_num_new_matched_tokens(request, num_cached)
        # A load within a step belongs to a request that runs in it.
        blocks = (
            num_external
            and is_beside
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
        self._under_way[request.request_id] = request
        num_hashes: int = request.num_computed_tokens // scheduler.hash_block_size
        return num_hashes

    def take_finished(self) -> None:
        """End copies that are over: what came back is cached. Mutates the scheduler."""
        scheduler = self._scheduler
        for number, request in list(self._under_way.items()):
            if number in scheduler.finished_recving_kv_req_ids:
                scheduler._update_waiting_for_remote_kv(request)  # noqa: SLF001
                request.status = RequestStatus.FINISHED_ABORTED
                scheduler._free_request(request)  # noqa: SLF001
            elif not request.is_finished():  # as when all requests are aborted
                continue
            del self._under_way[number]

    @property
    def hold_blocks(self) -> bool:
        """Whether a copy, given up or not, has blocks that the worker may still write."""
        return any(number.startswith(_PREFIX) for number in self._scheduler.requests)

    def drain(self) -> None:
        """Give up every copy; its blocks are free once the worker is done with them. Mutates."""
        self._scheduler.finish_requests(list(self._under_way), RequestStatus.FINISHED_ABORTED)
        self._under_way.clear()

    def _request(self, hashes: Sequence[Any], most_blocks: int) -> Request:
        """A request for the chain and one token more, which the last full block needs."""
        self._num_started += 1
        block_tokens = self._scheduler.hash_block_size
        most_tokens = most_blocks * self._scheduler.block_size
        return Request(
            request_id=f"{_PREFIX}{self._num_started}",
            prompt_token_ids=[0] * (len(hashes) * block_tokens + 1),
            sampling_params=SamplingParams(
                max_tokens=1,
                extra_args={"kv_transfer_params": {"max_load_tokens": most_tokens}},
            ),
            pooling_params=None,
            arrival_time=0.0,
            block_hasher=lambda _: list(hashes),
        )
