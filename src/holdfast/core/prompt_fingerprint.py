"""Fingerprints of prompts: where two of them diverge, without their text."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

__all__ = ["Divergence", "PromptFingerprint", "PromptPart", "diverge"]

PromptPart = Literal["model", "tools", "system", "messages"]
"""Parts of a prompt, in the order in which they decide what is cached."""

_DIGEST_BYTES: Final = 8
_CACHE_CONTROL: Final = re.compile(rb'"cache_control"\s*:\s*(?:null|\{[^{}]*\})\s*,?')
_TRAILING_COMMA: Final = re.compile(rb",\s*\}")
_TEXT_BLOCK: Final = b'[{"type":"text","text":%s}]'
_STRING_CONTENT: Final = re.compile(rb'"content"\s*:\s*("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True, slots=True)
class PromptFingerprint:
    """One prompt's digests and sizes; it has none of its text.

    Attributes:
        model: Digest of the model's name.
        tools: Of the tools.
        system: Of the system prompt.
        messages: Of each message in order, together.
        head_bytes: Size of tools and system prompt, as JSON (bytes).
        ends_bytes: Size up to the end of each message, likewise.
    """

    model: bytes
    tools: bytes
    system: bytes
    messages: bytes
    head_bytes: tuple[int, int]
    ends_bytes: array[int]

    @classmethod
    def of(
        cls, model: bytes, tools: bytes, system: bytes, messages: Iterable[bytes]
    ) -> PromptFingerprint:
        """The fingerprint of a prompt, from the JSON texts of its parts. Pure; O(bytes).

        Marks of what to cache (`cache_control`) do not count, as clients move them every turn; nor
        does whether a message's text stands alone or in a block.
        """
        digests: list[bytes] = []
        ends = array("q")
        end = len(tools) + len(system)
        for message in messages:
            digests.append(_digest(_normal(message)))
            end += len(message)
            ends.append(end)
        heads = _digest(_normal(tools)), _digest(_normal(system))
        sizes = len(tools), len(system)
        return cls(_digest(model), *heads, b"".join(digests), sizes, ends)

    @property
    def num_bytes(self) -> int:
        """Size of the prompt as JSON (bytes)."""
        return self.ends_bytes[-1] if self.ends_bytes else sum(self.head_bytes)


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a prompt stops to repeat another.

    Attributes:
        part: The first part that differs.
        message: Index of the first message that differs; None where another part does.
        shared_ratio: Share of the other prompt that both have (0 to 1), by size.
    """

    part: PromptPart
    message: int | None
    shared_ratio: float


def diverge(earlier: PromptFingerprint, later: PromptFingerprint) -> Divergence | None:
    """Where `later` stops to repeat `earlier`; None if one extends the other. Pure."""
    total = max(earlier.num_bytes, 1)
    if earlier.model != later.model:
        return Divergence("model", None, 0.0)
    if earlier.tools != later.tools:
        return Divergence("tools", None, 0.0)
    if earlier.system != later.system:
        return Divergence("system", None, earlier.head_bytes[0] / total)
    ours, theirs = _split(earlier.messages), _split(later.messages)
    for index, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            shared = earlier.ends_bytes[index - 1] if index else sum(earlier.head_bytes)
            return Divergence("messages", index, shared / total)
    return None


def _split(digests: bytes) -> Sequence[bytes]:
    starts = range(0, len(digests), _DIGEST_BYTES)
    return [digests[start : start + _DIGEST_BYTES] for start in starts]


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def _normal(text: bytes) -> bytes:
    """JSON text without cache marks, and with a message's text in a block."""
    if b'"cache_control"' in text:
        text = _TRAILING_COMMA.sub(b"}", _CACHE_CONTROL.sub(b"", text))
    if text[:1] == b'"':
        text = _TEXT_BLOCK % text
    else:
        text = _STRING_CONTENT.sub(lambda m: b'"content":' + _TEXT_BLOCK % m[1], text, count=1)
    try:
        return msgspec.json.format(text, indent=-1)
    except msgspec.MsgspecError:
        return text
