"""Cost profiles: step times and KV capacity of an engine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from holdfast.errors import ConfigError

__all__ = ["CostProfile"]

# Valid ranges of the numbers.
_POSITIVE: Final = (
    *("block_size_tokens", "kv_tokens", "kv_bytes_per_token"),
    *("max_num_seqs", "max_num_batched_tokens"),
    # A step without cost would stop the simulated clock.
    "step_base_s",
    *("host_link_bytes_per_s", "disk_bytes_per_s"),
)
_NOT_NEGATIVE: Final = (
    *("prefill_s_per_token", "prefill_s_per_token_context"),
    *("decode_s_per_seq", "decode_s_per_context_token"),
    *("hidden_prefill_tokens", "sparse_read_s", "sparse_share_per_token", "request_overhead_s"),
)


class CostProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Costs of an engine's work; times in seconds, sizes of the whole engine.

    Attributes:
        name: The profile's name.
        summary: The engine in one line.
        sources: Sources of the figures.
        kind: Derived from published figures, or measured on an engine.
        block_size_tokens: Tokens in a KV block.
        kv_tokens: Capacity of the KV cache.
        kv_bytes_per_token: KV bytes of one token, over all layers and GPUs.
        max_num_seqs: Maximum number of running requests.
        max_num_batched_tokens: Maximum tokens of one step; longer prompts are chunked.
        step_base_s: Cost of any step: one read of the weights, and fixed overhead.
        prefill_s_per_token: Cost per computed prompt token.
        prefill_s_per_token_context: Cost per computed prompt token and token of context before it.
        decode_s_per_seq: Cost per sequence that decodes one token.
        decode_s_per_context_token: Cost per token of context of such a sequence.
        host_link_bytes_per_s: Bandwidth between KV cache and host memory, in one direction.
        disk_bytes_per_s: Bandwidth between host memory and disk.
        hidden_prefill_tokens: Prompt tokens of a step without `prefill_s_per_token`, since they
            compute during the read of the weights; one less for each decode in the step.
        sparse_read_s: Time to read all experts of a mixture, beyond `step_base_s`.
        sparse_share_per_token: Share of the experts that one token needs (0 to 1); a step reads
            the experts that any of its tokens needs.
        request_overhead_s: Time of a request outside the engine: HTTP, tokenizing, response.
    """

    name: str
    summary: str
    sources: tuple[str, ...]
    kind: Literal["roofline", "measured"]
    block_size_tokens: int
    kv_tokens: int
    kv_bytes_per_token: int
    max_num_seqs: int
    max_num_batched_tokens: int
    step_base_s: float
    prefill_s_per_token: float
    prefill_s_per_token_context: float
    decode_s_per_seq: float
    decode_s_per_context_token: float
    host_link_bytes_per_s: float
    disk_bytes_per_s: float
    hidden_prefill_tokens: int = 0
    sparse_read_s: float = 0.0
    sparse_share_per_token: float = 0.0
    request_overhead_s: float = 0.0

    def __post_init__(self) -> None:
        for key in _POSITIVE:
            _check(key, getattr(self, key), "a number above 0", lambda value: value > 0)
        for key in _NOT_NEGATIVE:
            _check(key, getattr(self, key), "a number >= 0", lambda value: value >= 0)
        _check(
            "sparse_share_per_token",
            self.sparse_share_per_token,
            "a number from 0 to 1",
            lambda value: value <= 1,
        )
        _check(
            "kv_tokens",
            self.kv_tokens,
            f"at least one block of {self.block_size_tokens} tokens",
            lambda value: value >= self.block_size_tokens,
        )
        _check(
            "max_num_batched_tokens",
            self.max_num_batched_tokens,
            f"at least max_num_seqs ({self.max_num_seqs}), as vLLM does",
            lambda value: value >= self.max_num_seqs,
        )

    def step_time_s(self, work: Iterable[tuple[int, int]]) -> float:
        """Time of one engine step; pure.

        Args:
            work: For each scheduled request its new tokens and its tokens of context. One new
                token after some context is a decode; all other work is prefill.

        Returns:
            Seconds; `step_base_s` for an empty step, so that time always advances.
        """
        num_prefill = num_decodes = decode_context = 0
        attended = 0.0  # context tokens of all prompt tokens; half of their own chunk each
        for num_new, num_context in work:
            if num_new == 1 and num_context > 0:
                num_decodes += 1
                decode_context += num_context
            else:
                num_prefill += num_new
                attended += num_new * (num_context + 0.5 * num_new)
        time_s = (
            self.step_base_s
            + self.prefill_s_per_token_context * attended
            + self.decode_s_per_seq * num_decodes
            + self.decode_s_per_context_token * decode_context
        )
        # Decodes also compute during the read and leave less of it for prompt tokens.
        num_hidden = max(0, self.hidden_prefill_tokens - num_decodes)
        if num_prefill > num_hidden:
            time_s += self.prefill_s_per_token * (num_prefill - num_hidden)
        if self.sparse_read_s:
            missed = (1.0 - self.sparse_share_per_token) ** (num_prefill + num_decodes)
            time_s += self.sparse_read_s * (1.0 - missed)
        return time_s

    def to_toml(self) -> str:
        """Return a file that `load_profile` reads back as an equal profile; pure."""
        lines = []
        for key, value in msgspec.structs.asdict(self).items():
            # JSON and TOML agree on strings, lists of strings and numbers; floats round-trip.
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines) + "\n"


def _check(key: str, value: float, expected: str, is_valid: Callable[[float], bool]) -> None:
    if not (math.isfinite(value) and is_valid(value)):
        raise ConfigError(f"{key} is {value!r}, expected {expected}")
