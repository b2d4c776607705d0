"""Lengths of prompts from usage, in which providers and clients count caches differently.

A whole prompt is what was read from a cache, what was written to it and the rest. Some count all
of it as the prompt, some leave out what was written, and some what was read as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["CacheUsage", "whole_prompts"]


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """What one call is said to have used, in tokens.

    Attributes:
        prompt: As counted; None where not recorded.
        read: What came from the cache; None where not recorded.
        written: What was written to it, 0 where not recorded.
    """

    prompt: int | None = None
    read: int | None = None
    written: int = 0


def whole_prompts(usages: Iterable[CacheUsage]) -> list[int | None]:
    """Return the length of each whole prompt, of calls that one program counted; pure.

    A count below what was read, or read and written, tells what the program leaves out, of all of
    its calls.
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
