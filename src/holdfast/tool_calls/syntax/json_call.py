"""Calls written as a JSON object, or an array of them, with or without a marker."""

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

__all__ = ["call_of", "extract_bare_json", "json_extractor"]

# Models write line breaks into strings.
_DECODER = json.JSONDecoder(strict=False)
_NAME_KEYS = ("name", "function", "tool_name", "tool")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")

# A call that breaks off contains its name early, or breaks off before it.
_HEAD_CHARS = 400
_UNNAMED_CHARS = 64

_BARE = re.compile(r"\{|\[\s{0,64}\{")
_BROKEN_NAME = re.compile(
    r"""["'](?:name|function|tool_name|tool)["']\s{0,8}:\s{0,8}["']([^"'\\]{1,128})["']"""
)
_BROKEN_ARGUMENTS = re.compile(r"""["'](?:arguments|parameters|args|input)["']\s{0,8}:\s{0,8}""")


def json_extractor(
    openers: tuple[str, ...], closers: tuple[str, ...]
) -> Callable[[str], Extraction | None]:
    """Build the extractor of JSON calls that follow one of `openers`."""

    def extract(text: str) -> Extraction | None:
        calls: list[ToolCall] = []
        start: int | None = None
        end = 0
        for opener_at, body_at in _openings(text, openers):
            if opener_at < end:
                continue  # inside the arguments of the call before it
            found = _read_value(text, body_at, closers)
            if found is None:
                continue
            start = opener_at if start is None else start
            calls.extend(found[0])
            end = found[1]
        return None if start is None else Extraction(tuple(calls[-MAX_CALLS:]), start, end)

    return extract


def extract_bare_json(text: str) -> Extraction | None:
    """Find calls in a text of JSON objects, or arrays of them, and nothing else."""
    at = len(text) - len(text.lstrip())
    start = at
    calls: list[ToolCall] = []
    while _BARE.match(text, at) and len(calls) < MAX_CALLS:
        found = _read_value(text, at, (), need_arguments=True)
        if found is None or not found[0]:
            break
        calls.extend(found[0])
        rest = text[found[1] :].lstrip(" \n\t;,")
        end, at = found[1], len(text) - len(rest)
    return Extraction(tuple(calls), start, end) if calls else None


def _openings(text: str, openers: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return start and end offsets of the openers, the last `MAX_CALLS` of them."""
    found: list[tuple[int, int]] = []
    for opener in openers:
        at = text.find(opener)
        while at >= 0:
            found.append((at, at + len(opener)))
            at = text.find(opener, at + len(opener))
    return sorted(found)[-MAX_CALLS:]


def _read_value(
    text: str, at: int, closers: tuple[str, ...], *, need_arguments: bool = False
) -> tuple[list[ToolCall], int] | None:
    while at < len(text) and text[at].isspace():
        at += 1
    if at == len(text):
        return [], at
    if text[at] not in "[{":
        return None
    try:
        value, end = _decode(text, at)
    except (ValueError, RecursionError):
        return _read_broken(text, at, closers, need_arguments=need_arguments)
    objects = value if isinstance(value, list) else [value]
    calls = [call for item in objects if (call := call_of(item, need_arguments)) is not None]
    return (calls, end) if calls else None


def _decode(text: str, at: int) -> tuple[object, int]:
    """Decode the value at `at`; returns it and its end. Accepts single quotes."""
    try:
        return _DECODER.raw_decode(text, at)
    except ValueError:
        if text[at + 1 : at + 64].lstrip(" \n{")[:1] != "'":
            raise
        return _DECODER.raw_decode(text.replace("'", '"'), at)


def _read_broken(
    text: str, at: int, closers: tuple[str, ...], *, need_arguments: bool
) -> tuple[list[ToolCall], int] | None:
    closer_at = first_of(text, closers, at)
    end = len(text) if closer_at is None else closer_at
    head = text[at : min(end, at + _HEAD_CHARS)]
    named = _BROKEN_NAME.search(head)
    arguments = _BROKEN_ARGUMENTS.search(head)
    if need_arguments and (named is None or arguments is None):
        return None
    if named is None:
        return ([], end) if end - at <= _UNNAMED_CHARS else None
    call = whole_call(named[1], "" if arguments is None else text[at + arguments.end() : end])
    return None if call is None else ([call], end)


def call_of(item: object, need_arguments: bool) -> ToolCall | None:
    """The call that a decoded value is; None if it is none. Pure."""
    if not isinstance(item, dict):
        return None
    inner = item.get("function")
    if isinstance(inner, dict):
        item = inner
    name = next((item[key] for key in _NAME_KEYS if key in item), None)
    for key in _ARGUMENT_KEYS:
        if key in item:
            value = item[key]
            return whole_call(name, value if isinstance(value, str) else _dump(value))
    if need_arguments:
        return None
    if name is None and len(item) == 1:
        # Apertus: the name is the key.
        name, value = next(iter(item.items()))
        return whole_call(name, _dump(value)) if isinstance(value, dict) else None
    return whole_call(name)


def _dump(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""
