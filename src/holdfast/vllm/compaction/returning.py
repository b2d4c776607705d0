"""Requests whose prompts begin with a compacted prefix, and are shortened.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm.v1.request import Request
from vllm.v1.utils import ConstantList

from holdfast.vllm.compaction.catalog import Compaction

__all__ = ["ReturningRequest", "can_be_shorter", "shortened", "wish_of"]


@dataclass(frozen=True, slots=True)
class ReturningRequest:
    """A request that stands for a longer one.

    Attributes:
        compaction: The prefix that is loaded in place of the client's tokens.
        hashes: Prefix hashes of the prompt as the client sent it.
        num_prompt_tokens: Tokens that the client sent (count).
    """

    compaction: Compaction
    hashes: list[bytes]
    num_prompt_tokens: int

    @property
    def report(self) -> dict[str, Any]:
        """What an answer says of it, in `kv_transfer_params.holdfast.compaction`."""
        header = self.compaction.header
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "compacted_tokens": header.num_tokens,
            "kept_tokens": header.num_kept,
            "dropped_tokens": self.compaction.num_dropped,
            "method": header.method,
        }


def wish_of(request: Any) -> bool | None:
    """Whether a client wants its session compacted; None if it says nothing.

    `vllm_xargs.holdfast_compact` or `kv_transfer_params.holdfast.compact`. Pure.
    """
    params = request.sampling_params
    xargs = (params.extra_args or {}) if params is not None else {}
    nested = (request.kv_transfer_params or {}).get("holdfast")
    found = nested.get("compact") if isinstance(nested, Mapping) else None
    found = xargs.get("holdfast_compact", found)
    if found in (True, "true", "1"):
        return True
    return False if found in (False, "false", "0") else None


def can_be_shorter(request: Any) -> bool:
    """Whether the model may be given other prompt tokens than the client's. Pure.

    Not if something is asked about them, or if they are not all there is.
    """
    return (
        request.sampling_params is not None
        and request.sampling_params.prompt_logprobs is None
        and not request.skip_reading_prefix_cache
        and request.prompt_token_ids is not None
        and request.prompt_embeds is None
        and not request.mm_features
        and not request.resumable
    )


def shortened(request: Any, compaction: Compaction) -> ReturningRequest:
    """Put placeholders in the place of a compacted prefix. Mutates the request.

    The placeholders are the prefix's newest tokens, so that penalties for repetition count tokens
    that were there. Their prefix hashes begin with the compaction's salt, so that no other prompt
    finds their blocks. The request keeps its own salt, which names its tenant.

    Args:
        request: vLLM's, new; its prompt begins with the compaction's tokens.
        compaction: What is loaded in their place.
    """
    header = compaction.header
    found = ReturningRequest(compaction, list(request.block_hashes), request.num_prompt_tokens)
    first = header.num_tokens - header.num_kept
    _replace_prompt(request, request.prompt_token_ids[first:], header.salt)
    return found


def _replace_prompt(request: Request, tokens: list[int], salt: str) -> None:
    request.prompt_token_ids = list(tokens)
    request.num_prompt_tokens = len(tokens)
    request._all_token_ids = list(tokens)  # noqa: SLF001 # vLLM has no method for it
    request.all_token_ids = ConstantList(request._all_token_ids)  # noqa: SLF001
    own, request.cache_salt = request.cache_salt, salt
    request.block_hashes = []
    request.update_block_hashes()
    request.cache_salt = own
