"""Answers of engines without what differs between two of one engine."""

from __future__ import annotations

import json
from itertools import takewhile, zip_longest
from typing import Any

__all__ = ["first_difference", "shape_of", "text_of", "tokens_of"]

# Names that an engine makes, its clock, and what its cache held.
_OWN = frozenset(
    {
        *("id", "item_id", "call_id", "tool_use_id", "request_id", "response_id"),
        *("created", "created_at", "completed_at", "system_fingerprint", "sequence_number"),
        *("cached_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        *("prompt_tokens_details", "input_tokens_details", "prompt_cache_key"),
        *("input_tokens_per_turn", "cached_tokens_per_turn"),
    }
)
_DONE = "[DONE]"


def shape_of(body: bytes) -> Any:
    """An answer without ids, times and cached tokens, streamed or not. Pure.

    Adjacent events of a stream that differ in their text only are one: an engine puts as many
    tokens into an event as it has when it is asked.
    """
    events = events_of(body)
    if events is None:
        return _bare(_loaded(body))
    shapes: list[tuple[str, Any, list[str]]] = []
    for name, data in events:
        texts: list[str] = []
        shape = _bare(data, texts)
        if texts and shapes and shapes[-1][:2] == (name, shape):
            kept = shapes[-1][2]
            kept[:] = [before + text for before, text in zip(kept, texts, strict=True)]
        else:
            shapes.append((name, shape, texts))
    return shapes


def first_difference(one: Any, other: Any) -> str:
    """Where two shapes begin to differ, shortened; "" if they are equal. Pure."""
    if isinstance(one, list) and isinstance(other, list):
        for number, (left, right) in enumerate(zip_longest(one, other)):
            if left != right:
                return f"part {number} of {len(one)} and {len(other)}: {_parted(left, right)}"
    return "" if one == other else _parted(one, other)


def _parted(one: Any, other: Any) -> str:
    """Two values from shortly before they differ."""
    texts = repr(one), repr(other)
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    start = max(sum(1 for _ in equal) - 100, 0)
    return " / ".join(text[start : start + 400] for text in texts)


def events_of(body: bytes) -> list[tuple[str, Any]] | None:
    """Server-sent events: name and data; None if the answer has none. Pure."""
    if not body.startswith((b"data:", b"event:")):
        return None
    events = []
    for part in body.decode().replace("\r\n", "\n").split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in part.splitlines())
        if "data" in lines:
            data = lines["data"]
            loaded = data if data == _DONE else _loaded(data.encode())
            events.append((lines.get("event", ""), loaded))
    return events


def text_of(body: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Text and tool calls of a chat completion or of Gemini's answer, streamed or not. Pure."""
    events = events_of(body)
    chunks = [_loaded(body)] if events is None else [data for _, data in events if data != _DONE]
    text = ""
    called: list[tuple[str, str]] = []
    for chunk in chunks:
        for choice in chunk.get("choices") or ():
            said = choice.get("delta") or choice.get("message") or {}
            text += said.get("content") or ""
            for call in said.get("tool_calls") or ():
                called.append((call["function"].get("name") or "", call["function"]["arguments"]))
        for candidate in chunk.get("candidates") or ():
            for part in (candidate.get("content") or {}).get("parts") or ():
                text += part.get("text") or ""
                if function := part.get("functionCall"):
                    called.append((function["name"], json.dumps(function["args"])))
    return text, called


def tokens_of(body: bytes) -> tuple[int, int]:
    """Prompt tokens of an answer, and those of them from a cache; 0 if it does not say. Pure."""
    events = events_of(body)
    most = 0, 0
    for data in [_loaded(body)] if events is None else [data for _, data in events]:
        if not isinstance(data, dict):
            continue
        held = data.get("response") or data.get("message") or data
        usage = held.get("usage") or data.get("usageMetadata") or {}
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        cached = details.get("cached_tokens") or usage.get("cachedContentTokenCount") or 0
        parts = _prompt_parts(usage)
        prompt = usage.get("prompt_tokens") or usage.get("promptTokenCount") or sum(parts)
        most = max(most, (prompt, cached or parts[1]))
    return most


def _loaded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


def _prompt_parts(usage: dict[str, Any]) -> tuple[int, int, int]:
    """Prompt tokens of a message's usage: neither in the cache nor stored, read, and stored."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    new, read, stored = (usage.get(name) or 0 for name in names)
    return new, read, stored


def _bare(value: Any, texts: list[str] | None = None, *, is_delta: bool = False) -> Any:
    """A value without an engine's own; the texts of a delta are moved to `texts`."""
    if isinstance(value, dict):
        if "cache_read_input_tokens" in value:
            value = value | {"input_tokens": sum(_prompt_parts(value))}
        return {
            key: each if key == "type" else _bare(each, texts, is_delta=is_delta or key == "delta")
            for key, each in value.items()
            if key not in _OWN
        }
    if isinstance(value, list):
        return [_bare(each, texts, is_delta=is_delta) for each in value]
    if is_delta and texts is not None and isinstance(value, str):
        texts.append(value)
        return ""
    return value
