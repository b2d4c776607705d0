"""Token ids of prompts, kept for tenants that asked for warm-ups.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.core.session import Session

__all__ = ["KeptPrompt", "KeptPrompts"]

_MAX_TOKENS = 2_000_000


@dataclass(frozen=True, slots=True)
class KeptPrompt:
    """A prompt that can be computed again.

    Attributes:
        hashes: Prefix hashes of its full blocks.
        tokens: Its token ids.
        lora_request: The adapter that it ran with, or None.
        cache_salt: The tenant's salt, or None.
    """

    hashes: Sequence[bytes]
    tokens: Sequence[int]
    lora_request: Any
    cache_salt: str | None


class KeptPrompts:
    """The last prompt of each session of a tenant that asked; the oldest are dropped.

    Args:
        max_tokens: Tokens kept in all (count).
    """

    def __init__(self, max_tokens: int = _MAX_TOKENS) -> None:
        self._prompts: OrderedDict[Session, KeptPrompt] = OrderedDict()
        self._max_tokens = max_tokens
        self._num_tokens = 0

    def __len__(self) -> int:
        """Prompts kept (count)."""
        return len(self._prompts)

    def keep(self, session: Session, request: Any) -> None:
        """Keep a request's prompt in place of the session's one before. Mutates.

        A prompt with images or other inputs besides tokens is not kept.
        """
        self.drop(session)
        tokens = request.prompt_token_ids
        if tokens is None or request.mm_features or len(tokens) > self._max_tokens:
            return
        self._prompts[session] = KeptPrompt(
            list(request.block_hashes),
            array("l", tokens),
            request.lora_request,
            request.cache_salt,
        )
        self._num_tokens += len(tokens)
        while self._num_tokens > self._max_tokens:
            _, dropped = self._prompts.popitem(last=False)
            self._num_tokens -= len(dropped.tokens)

    def drop(self, session: Session) -> None:
        """Drop the prompt of a session, if there is one. Mutates."""
        dropped = self._prompts.pop(session, None)
        if dropped is not None:
            self._num_tokens -= len(dropped.tokens)

    def of(self, session: Session, end: int, block_hash: bytes) -> KeptPrompt | None:
        """The session's prompt if its block before `end` has this hash. Pure."""
        kept = self._prompts.get(session)
        if kept is None or len(kept.hashes) < end or kept.hashes[end - 1] != block_hash:
            return None
        return kept

    def clear(self) -> None:
        """Drop all prompts. Mutates."""
        self._prompts.clear()
        self._num_tokens = 0
