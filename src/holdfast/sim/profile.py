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
    *("hidden_prefill_tokens", "sparse_read_s", "sparse_share_per_token"),
    *("request_overhead_s", "request_overhead_s_per_token"),
    *("fitted_decodes", "fitted_decode_context_tokens", "fitted_prompt_tokens"),
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
        request_overhead_s_per_token: The same per prompt token, added to `request_overhead_s`.
        decode_context_s: Replaces `decode_s_per_context_token` where decoding is not linear in
            context: points (tokens, seconds) of a step's time to read the context of all its
            decodes. Lines join them, from no time for no tokens; after the last point the last
            slope goes on. Tokens increase, seconds do not decrease.
        fitted_decodes: Most decodes of a step that the profile was fitted to; 0 for no limit.
        fitted_decode_context_tokens: The same for the context of all decodes of a step.
        fitted_prompt_tokens: The same for a prompt, cached tokens included.
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
    request_overhead_s_per_token: float = 0.0
    decode_context_s: tuple[tuple[int, float], ...] = ()
    fitted_decodes: int = 0
    fitted_decode_context_tokens: int = 0
    fitted_prompt_tokens: int = 0

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
        if self.decode_context_s:
            _check_points(self.decode_context_s)
            _check(
                "decode_s_per_context_token",
                self.decode_s_per_context_token,
                "0 beside decode_context_s",
                lambda value: value == 0,
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
            + (
                _interpolated_s(self.decode_context_s, decode_context)
                if self.decode_context_s
                else self.decode_s_per_context_token * decode_context
            )
        )
        # Decodes also compute during the read and leave less of it for prompt tokens.
        num_hidden = max(0, self.hidden_prefill_tokens - num_decodes)
        if num_prefill > num_hidden:
            time_s += self.prefill_s_per_token * (num_prefill - num_hidden)
        if self.sparse_read_s:
            missed = (1.0 - self.sparse_share_per_token) ** (num_prefill + num_decodes)
            time_s += self.sparse_read_s * (1.0 - missed)
        return time_s

    def covers(self, work: Iterable[tuple[int, int]]) -> bool:
        """Whether a step's work lies within what the profile was fitted to; pure.

        Args:
            work: As for `step_time_s`.

        Returns:
            True for any work if the profile has no `fitted_` limits.
        """
        most_prompt_tokens = self.fitted_prompt_tokens or math.inf
        num_decodes = decode_context = 0
        for num_new, num_context in work:
            if num_new == 1 and num_context > 0:
                num_decodes += 1
                decode_context += num_context
            elif num_new + num_context > most_prompt_tokens:
                return False
        return num_decodes <= (self.fitted_decodes or math.inf) and decode_context <= (
            self.fitted_decode_context_tokens or math.inf
        )

    def request_overhead_for_s(self, prompt_tokens: int) -> float:
        """Time outside the engine (s) of a request with so many prompt tokens; pure."""
        return self.request_overhead_s + self.request_overhead_s_per_token * prompt_tokens

    def to_toml(self) -> str:
        """Return a file that `load_profile` reads back as an equal profile; pure."""
        lines = []
        for key, value in msgspec.structs.asdict(self).items():
            # JSON and TOML agree on strings, numbers and lists of them; floats round-trip.
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines) + "\n"


def _check(key: str, value: float, expected: str, is_valid: Callable[[float], bool]) -> None:
    if not (math.isfinite(value) and is_valid(value)):
        raise ConfigError(f"{key} is {value!r}, expected {expected}")


def _check_points(points: tuple[tuple[int, float], ...]) -> None:
    last_tokens, last_s = 0, 0.0
    for tokens, seconds in points:
        if not (tokens > last_tokens and math.isfinite(seconds) and seconds >= last_s):
            raise ConfigError(
                f"decode_context_s has ({tokens!r}, {seconds!r}) after ({last_tokens}, {last_s}), "
                "expected more tokens and no less time at each point"
            )
        last_tokens, last_s = tokens, seconds


def _interpolated_s(points: tuple[tuple[int, float], ...], tokens: int) -> float:
    """Seconds at `tokens` on the lines from (0, 0) through `points` and on."""
    start, end = (0, 0.0), (0, 0.0)
    for point in points:
        start, end = end, point
        if tokens <= point[0]:
            break
    slope = (end[1] - start[1]) / (end[0] - start[0])
    return start[1] + slope * (tokens - start[0])
