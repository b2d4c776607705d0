"""The cache diagnostics of hosted APIs: what requests ask, and what answers say.

Sources: Anthropic's guide to cache diagnostics and OpenAI's to prompt cache diagnostics, both of
2026, and the types of their Python SDKs (anthropic 2.14, openai 3.57).
Differs: `holdfast` beside their own fields says what these have no word for, an eviction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.core.prompt_fingerprint import Divergence, PromptFingerprint, diverge
from holdfast.core.request_body import RequestBody

__all__ = ["DIALECTS", "Answered", "Asked", "CacheDialect"]

_LEAST_EVICTED_TOKENS: Final = 512  # fewer may be parts of blocks
_BYTES_A_TOKEN: Final = 4
_BYTES_A_MESSAGE: Final = 16  # of a fingerprint
_BYTES_A_FINGERPRINT: Final = 400


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        dialect: Of its API.
        prompt: Its prompt; None if a part of it is not in the request.
        wants_diagnostics: Whether it asks for diagnostics.
        compared_id: The answer whose prompt it is to be compared with, or None.
        cache_salt: Of the tenant; "" without one.
    """

    dialect: CacheDialect
    prompt: PromptFingerprint | None
    wants_diagnostics: bool
    compared_id: str | None
    cache_salt: str


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, and what its prompt was.

    Attributes:
        answer_id: Its id.
        prompt: Its prompt's fingerprint, or None.
        prompt_tokens: Tokens of the prompt (count); None where the answer does not have them yet.
        cached_tokens: Those of them that were cached (count), likewise.
    """

    answer_id: str
    prompt: PromptFingerprint | None
    prompt_tokens: int | None
    cached_tokens: int | None

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, about (bytes)."""
        messages = 0 if self.prompt is None else len(self.prompt.ends_bytes)
        return _BYTES_A_FINGERPRINT + _BYTES_A_MESSAGE * messages

    def missed_by(self, divergence: Divergence) -> int:
        """Tokens of this prompt that a diverging one does not repeat (count), about."""
        tokens = self.prompt_tokens
        if tokens is None:
            tokens = 0 if self.prompt is None else self.prompt.num_bytes // _BYTES_A_TOKEN
        return round(tokens * (1.0 - divergence.shared_ratio))


class CacheDialect(ABC):
    """One API's way to ask and to answer.

    Attributes:
        name: Of the API.
        path: End of the path of its requests.
    """

    name: str
    path: str

    @abstractmethod
    def asked(self, body: RequestBody) -> Asked | None:
        """What a request asks; None if its answer need not be remembered. Pure; O(body)."""

    @abstractmethod
    def answered(self, asked: Asked, answer: Mapping[str, Any]) -> Answered | None:
        """What an answer says of its prompt; None if it has no id. Pure."""

    @abstractmethod
    def diagnostics(
        self, asked: Asked, answered: Answered, earlier: Answered | None
    ) -> dict[str, Any]:
        """The fields to add to an answer whose request asks for diagnostics. Pure.

        Args:
            asked: The request.
            answered: The answer.
            earlier: The answer that it is to be compared with; None if that is not known.
        """


class _Anthropic(CacheDialect):
    name = "anthropic"
    path = "/v1/messages"

    def asked(self, body: RequestBody) -> Asked | None:
        asks = body.value("diagnostics") if "diagnostics" in body.fields else None
        if not isinstance(asks, dict):
            return None
        prompt = _fingerprint(body, "system", "messages")
        compared = _text(asks.get("previous_message_id"))
        return Asked(self, prompt, True, compared, _text(body.value("cache_salt")) or "")

    def answered(self, asked: Asked, answer: Mapping[str, Any]) -> Answered | None:
        usage = answer.get("usage") or {}
        cached = usage.get("cache_read_input_tokens")
        parts = (usage.get("input_tokens"), cached, usage.get("cache_creation_input_tokens"))
        tokens = sum(part for part in parts if isinstance(part, int)) or None
        return _answered(asked, answer.get("id"), tokens, cached)

    def diagnostics(
        self, asked: Asked, answered: Answered, earlier: Answered | None
    ) -> dict[str, Any]:
        if asked.compared_id is None:
            return {"diagnostics": None}
        if earlier is None:
            return _anthropic({"type": "previous_message_not_found"})
        if asked.prompt is None or earlier.prompt is None:
            return _anthropic({"type": "unavailable"})
        divergence = diverge(earlier.prompt, asked.prompt)
        if divergence is not None:
            reason = {
                "type": f"{divergence.part}_changed",
                "cache_missed_input_tokens": earlier.missed_by(divergence),
            }
            return _anthropic(reason, _where(divergence))
        evicted = _evicted(answered, earlier)
        return {"diagnostics": None} if evicted is None else _anthropic(None, evicted)


class _OpenAI(CacheDialect):
    name = "openai"
    path = "/v1/responses"

    _REASONS: Final = {"messages": "input_changed", "system": "input_changed"}

    def asked(self, body: RequestBody) -> Asked | None:
        options = body.value("prompt_cache_options")
        compared = options.get("comparison_response_id") if isinstance(options, dict) else None
        compared = _text(compared)
        # A prompt that continues a stored answer is not in the request.
        is_whole = not body.raw("previous_response_id")
        prompt = _fingerprint(body, "instructions", "input") if is_whole else None
        salt = _text(body.value("cache_salt")) or ""
        return Asked(self, prompt, compared is not None, compared, salt)

    def answered(self, asked: Asked, answer: Mapping[str, Any]) -> Answered | None:
        usage = answer.get("usage") or {}
        cached = (usage.get("input_tokens_details") or {}).get("cached_tokens")
        return _answered(asked, answer.get("id"), usage.get("input_tokens"), cached)

    def diagnostics(
        self, asked: Asked, answered: Answered, earlier: Answered | None
    ) -> dict[str, Any]:
        if earlier is None:
            return _openai("comparison_response_not_found")
        if asked.prompt is None or earlier.prompt is None:
            return _openai("unavailable")
        divergence = diverge(earlier.prompt, asked.prompt)
        if divergence is not None:
            missed, tokens = earlier.missed_by(divergence), earlier.prompt_tokens
            reusable = {} if tokens is None else {"comparison_reusable_tokens": tokens - missed}
            reason = self._REASONS.get(divergence.part, f"{divergence.part}_changed")
            return _openai(
                *("cache_miss", {"reason": reason, "cache_missed_tokens": missed, **reusable}),
                _where(divergence),
            )
        if answered.prompt_tokens is None:
            return {}  # a stream's first events: how much was cached is known at its end
        evicted = _evicted(answered, earlier)
        return _openai("cache_hit") if evicted is None else _openai("unavailable", {}, evicted)


DIALECTS: Final[tuple[CacheDialect, ...]] = (_Anthropic(), _OpenAI())
"""The APIs whose diagnostics are spoken."""


def _fingerprint(body: RequestBody, system: str, messages: str) -> PromptFingerprint:
    items = map(bytes, body.items(messages))
    return PromptFingerprint.of(body.raw("model"), body.raw("tools"), body.raw(system), items)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _answered(asked: Asked, answer_id: Any, tokens: Any, cached: Any) -> Answered | None:
    if not isinstance(answer_id, str) or not answer_id:
        return None
    return Answered(
        answer_id,
        asked.prompt,
        tokens if isinstance(tokens, int) else None,
        cached if isinstance(cached, int) else None,
    )


def _evicted(answered: Answered, earlier: Answered) -> dict[str, Any] | None:
    """Ours: a prompt that repeats an earlier one was not cached, so evicted."""
    expected, cached = earlier.prompt_tokens, answered.cached_tokens
    if expected is None or cached is None or expected - cached < _LEAST_EVICTED_TOKENS:
        return None
    return {"reason": "evicted", "cache_missed_input_tokens": expected - cached}


def _where(divergence: Divergence) -> dict[str, Any] | None:
    if divergence.message is None:
        return None
    return {"reason": "mutated", "message_index": divergence.message}


def _anthropic(reason: dict[str, Any] | None, ours: dict[str, Any] | None = None) -> dict[str, Any]:
    own = {} if ours is None else {"holdfast": ours}
    return {"diagnostics": {"cache_miss_reason": reason, **own}}


def _openai(
    kind: str, fields: Mapping[str, Any] | None = None, ours: dict[str, Any] | None = None
) -> dict[str, Any]:
    own = {} if ours is None else {"holdfast": ours}
    return {"prompt_cache_diagnostics": {"type": kind, **(fields or {}), **own}}
