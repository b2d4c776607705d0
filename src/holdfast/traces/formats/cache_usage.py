"""Prompt lengths from usage records, which count cached tokens in different ways.

A whole prompt consists of tokens read from a cache, tokens written to it, and the rest. Some
programs count all of them as the prompt, some exclude the written ones, some the read ones as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["CacheUsage", "whole_prompts"]


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """The recorded usage of one call, in tokens.

    Attributes:
        prompt: The prompt as the program counts it; None if not recorded.
        read: Tokens read from the cache; None if not recorded.
        written: Tokens written to the cache; 0 if not recorded.
    """

    prompt: int | None = None
    read: int | None = None
    written: int = 0


def whole_prompts(usages: Iterable[CacheUsage]) -> list[int | None]:
    """Return the whole prompt lengths of calls that one program counted; pure.

    A prompt count below the tokens read, or read and written, shows what the program excludes from
    all its counts.
    """
    usages = list(usages)
    counted = [(usage.prompt, usage.read or 0, usage.written) for usage in usages]
    known = [(prompt, read, written) for prompt, read, written in counted if prompt is not None]
    without_reads = any(prompt < read for prompt, read, _ in known)
    without_writes = any(prompt < read + written for prompt, read, written in known)
    return [
        None if prompt is None else prompt + without_reads * read + without_writes * written
        for prompt, read, written in counted
    ]
