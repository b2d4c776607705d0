"""Cost profiles: how long an engine step takes, and how much KV an engine holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from holdfast.errors import ConfigError

__all__ = ["CostProfile"]

# What each number may be: a limit, and whether the limit itself is allowed.
_POSITIVE: Final = (
    *("block_size_tokens", "kv_tokens", "kv_bytes_per_token"),
    *("max_num_seqs", "max_num_batched_tokens"),
    # Work that takes no time would let a simulated clock stand still.
    "step_base_s",
    *("host_link_bytes_per_s", "disk_bytes_per_s"),
)
_NOT_NEGATIVE: Final = (
    *("prefill_s_per_token", "prefill_s_per_token_context"),
    *("decode_s_per_seq", "decode_s_per_context_token"),
    *("hidden_prefill_tokens", "sparse_read_s", "sparse_share_per_token", "request_overhead_s"),
)


class CostProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an engine's work costs; all times in seconds, all sizes of the whole engine.

    Attributes:
        name: How it is asked for.
        summary: The engine in one line.
        sources: Where the figures come from.
        kind: Derived from published figures, or measured on an engine.
        block_size_tokens: Tokens in a KV block.
        kv_tokens: Capacity of the KV cache.
        kv_bytes_per_token: KV of one token, all layers and GPUs together.
        max_num_seqs: Requests that may run at once.
        max_num_batched_tokens: Tokens computed in one step; longer prompts go in chunks.
        step_base_s: Of any step: the weights read once, and its fixed overhead.
        prefill_s_per_token: Per prompt token computed.
        prefill_s_per_token_context: Per prompt token computed and token of context before it.
        decode_s_per_seq: Per sequence that decodes one token.
        decode_s_per_context_token: Per token of context that such a sequence reads.
        host_link_bytes_per_s: Between KV cache and host memory, each way.
        disk_bytes_per_s: Between host memory and disk.
        hidden_prefill_tokens: Prompt tokens of a step whose `prefill_s_per_token` is free, since
            they compute while the weights are read anyway; one less for each decode in the step.
        sparse_read_s: Reading all experts of a mixture, beyond `step_base_s`.
        sparse_share_per_token: Share of the experts that one token needs (0 to 1); a step reads
            those that any of its tokens needs.
        request_overhead_s: Per request, outside any step: HTTP, tokenizing, the way back.
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
            work: For each scheduled request the tokens it computes in this step, and those whose
                KV it already has. One token on top of some context is a decode, all else prefill.

        Returns:
            Seconds; `step_base_s` where no token is computed, so that time always goes on.
        """
        num_prefill = num_decodes = decode_context = 0
        attended = 0.0  # tokens that prompt tokens look back on; half of their own chunk each
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
        # Decodes compute as well, and leave less of the read for prompt tokens to hide under.
        num_hidden = max(0, self.hidden_prefill_tokens - num_decodes)
        if num_prefill > num_hidden:
            time_s += self.prefill_s_per_token * (num_prefill - num_hidden)
        if self.sparse_read_s:
            missed = (1.0 - self.sparse_share_per_token) ** (num_prefill + num_decodes)
            time_s += self.sparse_read_s * (1.0 - missed)
        return time_s

    def to_toml(self) -> str:
        """The file that `load_profile` reads back as an equal profile; pure."""
        lines = []
        for key, value in msgspec.structs.asdict(self).items():
            # JSON writes strings, lists of them, and numbers as TOML does; floats round-trip.
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines) + "\n"


def _check(key: str, value: float, expected: str, is_valid: Callable[[float], bool]) -> None:
    if not (math.isfinite(value) and is_valid(value)):
        raise ConfigError(f"{key} is {value!r}, expected {expected}")
