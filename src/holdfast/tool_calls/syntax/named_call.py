"""Calls written as a name between markers, followed by the arguments as raw text."""

from __future__ import annotations

import re
from collections.abc import Callable

from holdfast.tool_calls.syntax.base import (
    MAX_CALLS,
    Extraction,
    ToolCall,
    first_of,
    whole_call,
)

__all__ = ["named_extractor"]


def named_extractor(
    head: str, closers: tuple[str, ...], *, trim: str = ""
) -> Callable[[str], Extraction | None]:
    """Build the extractor of calls whose start matches `head`.

    Args:
        head: Pattern from the opening marker to the beginning of the arguments; its first group
            that matched is the name. Its repetitions must be bounded.
        closers: Strings that end the arguments; otherwise the next call or the text's end does.
        trim: Characters to strip from the arguments' right end, besides white space.
    """
    pattern = re.compile(head)

    def extract(text: str) -> Extraction | None:
        heads = list(pattern.finditer(text))[-MAX_CALLS:]
        if not heads:
            return None
        calls: list[ToolCall] = []
        end = len(text)
        for index, match in enumerate(heads):
            limit = heads[index + 1].start() if index + 1 < len(heads) else len(text)
            closer_at = first_of(text, closers, match.end())
            end = limit if closer_at is None else min(limit, closer_at)
            name = next((group for group in match.groups() if group), None)
            call = whole_call(name, text[match.end() : end].strip().rstrip(trim))
            if call is not None:
                calls.append(call)
        return Extraction(tuple(calls), heads[0].start(), end)

    return extract
