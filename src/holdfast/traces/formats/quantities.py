"""Number types of trace files, with bounds that no real recording exceeds.

The bounds limit the memory that a damaged file can take, and keep sums finite.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

__all__ = ["MAX_TOKENS", "Count", "Milliseconds", "PromptTokens", "Seconds", "Tokens"]

Count = Annotated[int, msgspec.Meta(ge=0)]
"""A number of things, an index, or an id."""

MAX_TOKENS: Final = 1 << 24
"""The longest accepted prompt."""

Tokens = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
"""Tokens of an answer or of a part of a prompt."""

PromptTokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
"""Tokens of a whole prompt, or of a block."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""A duration, or a time since any epoch."""

Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
"""A duration in milliseconds, or unix milliseconds."""
