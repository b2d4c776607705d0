"""The engines that the gateway serves, and the load that each has from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from holdfast.gateway.event_residency import EventResidency
from holdfast.gateway.kv_events import engine_session_id
from holdfast.gateway.prompt_path import PromptPath
from holdfast.gateway.residency import Residency

__all__ = ["Engine"]

_BYTES_PER_TOKEN: Final = 4.0
_GAIN: Final = 0.05


@dataclass(slots=True, eq=False)
class Engine:
    """One engine.

    Attributes:
        name: Unique; in metrics and receipts.
        url: Its address, without a path.
        is_up: Whether the last connection or probe succeeded.
        num_in_flight: Requests sent and not yet answered (count).
        queued_bytes: Prompt bytes sent and, as far as is known, not yet computed (bytes).
        bytes_per_token: Prompt bytes a token, learned from answers.
        kv_tokens: Size of its KV cache; None if not known (tokens).
        admits: Whether it has an admission of its own, as `holdfast serve` has.
        residency: What its prefix cache holds, by what was sent to it.
        events: What it holds by its own account; None if it is not asked for KV events.
    """

    name: str
    url: str
    is_up: bool = True
    num_in_flight: int = 0
    queued_bytes: int = 0
    bytes_per_token: float = _BYTES_PER_TOKEN
    kv_tokens: int | None = None
    admits: bool = False
    residency: Residency = field(default_factory=Residency)
    events: EventResidency | None = None

    def num_resident(self, path: PromptPath, session_key: bytes | str | None) -> int:
        """Leading bytes of a session's prompt that its prefix cache holds, as known. Pure.

        Args:
            path: The prompt.
            session_key: The session, if this engine has it; None for one that is new here.
        """
        num_bytes = self.residency.num_resident(path)
        reported = None if session_key is None else self.num_reported(session_key)
        return num_bytes if reported is None else min(num_bytes, reported)

    def num_reported(self, session_key: bytes | str) -> int | None:
        """Bytes of a session in its cache by its KV events; None if not known. Pure."""
        if self.events is None:
            return None
        tokens = self.events.resident_tokens(engine_session_id(session_key))
        return None if tokens is None else round(tokens * self.bytes_per_token)

    def forget(self, session_key: bytes | str) -> None:
        """Forget a session that is gone, as far as KV events told of it. Mutates."""
        if self.events is not None:
            self.events.forget(engine_session_id(session_key))

    def learn_tokens(self, prompt_bytes: int, prompt_tokens: int) -> None:
        """Learn how many bytes a token has, from one prompt. Mutates."""
        if prompt_bytes > 0 and prompt_tokens > 0:
            self.bytes_per_token += _GAIN * (prompt_bytes / prompt_tokens - self.bytes_per_token)
            self._size()

    def learn_capacity(self, kv_tokens: int | None) -> None:
        """Take in the size of its KV cache (tokens). Mutates."""
        self.kv_tokens = kv_tokens
        self._size()

    def _size(self) -> None:
        if self.kv_tokens is not None:
            self.residency.capacity_bytes = round(self.kv_tokens * self.bytes_per_token)
