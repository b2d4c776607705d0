"""Top-level body fields that carry hints, and the key that brings them.

vLLM drops fields that it does not know. The middleware copies these, with their values, into one
JSON object, and sends its text as `vllm_xargs[CARRIER_KEY]`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CARRIER_KEY", "HINT_FIELDS", "MAX_CARRIER_CHARS"]

CARRIER_KEY: Final = "holdfast_body"
"""Key in `vllm_xargs` with the JSON text of the copied fields."""

MAX_CARRIER_CHARS: Final = 1 << 14
"""Longest JSON text that is read (characters)."""

HINT_FIELDS: Final[tuple[str, ...]] = (
    "agent_hint",
    "agent_hints",
    "cache_control",  # for Anthropic's content blocks the middleware puts the last one here
    "cachewise_policy",
    "is_last_step",
    "job_id",
    "kv_hints",
    "nvext",
    "program_id",
    "prompt_cache_retention",
    "retention_directives",
    "retention_scope",
)
"""Names of the copied fields."""
