"""Calls written as XML-like tags, one element per argument."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from holdfast.tool_calls.syntax.base import (
    MAX_CALLS,
    Extraction,
    ToolCall,
    first_of,
    whole_call,
)

__all__ = ["tagged_extractor"]

_ELEMENT = re.compile(r"\s{0,64}<([A-Za-z_][\w.\-]{0,127})>")


def tagged_extractor(
    head: str, parameter: str, parameter_closers: tuple[str, ...], closers: tuple[str, ...]
) -> Callable[[str], Extraction | None]:
    """Build the extractor of calls whose opening tag matches `head`.

    Args:
        head: Pattern of the opening tag; the group that matched is the tool's name. Its
            repetitions must be bounded.
        parameter: Pattern of an argument's opening tag; the group that matched is its name.
        parameter_closers: Strings that end an argument's value.
        closers: Strings that end the call.
    """
    head_pattern = re.compile(head)
    parameter_pattern = re.compile(parameter)

    def extract(text: str) -> Extraction | None:
        heads = list(head_pattern.finditer(text))[-MAX_CALLS:]
        calls: list[ToolCall] = []
        start: int | None = None
        end = 0
        for match in heads:
            if match.start() < end:
                continue  # inside the arguments of the call before it
            closer_at = first_of(text, closers, match.end())
            stop = len(text) if closer_at is None else closer_at
            body = text[match.end() : stop]
            # Prose that names the tag continues in words, a call that breaks off in tags.
            if closer_at is None and body.lstrip()[:1] not in ("", "<", "{", "]"):
                continue
            call = whole_call(
                match[match.lastindex or 0], _arguments(body, parameter_pattern, parameter_closers)
            )
            if call is not None:
                start = match.start() if start is None else start
                calls.append(call)
                end = stop
        return None if start is None else Extraction(tuple(calls), start, end)

    return extract


def _arguments(body: str, parameter: re.Pattern[str], closers: tuple[str, ...]) -> str:
    """Return the arguments as a JSON object, or the body if it has no argument tags."""
    heads = list(parameter.finditer(body))[:MAX_CALLS]
    if not heads:
        return _elements(body) or body.strip()
    values: dict[str, str] = {}
    for index, match in enumerate(heads):
        limit = heads[index + 1].start() if index + 1 < len(heads) else len(body)
        closer_at = first_of(body, closers, match.end())
        stop = limit if closer_at is None else min(limit, closer_at)
        value = body[match.end() : stop].strip().removeprefix("<![CDATA[").removesuffix("]]>")
        values[match[match.lastindex or 0]] = value.strip()
    return json.dumps(values, ensure_ascii=False)


def _elements(body: str) -> str:
    """Return elements named after arguments as a JSON object; "" without any."""
    values: dict[str, str] = {}
    at = 0
    while len(values) < MAX_CALLS and (opening := _ELEMENT.match(body, at)) is not None:
        close_at = body.find(f"</{opening[1]}>", opening.end())
        stop = len(body) if close_at < 0 else close_at
        values[opening[1]] = body[opening.end() : stop].strip()
        at = stop + len(opening[1]) + 3
    return json.dumps(values, ensure_ascii=False) if values else ""
