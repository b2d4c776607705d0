"""Chat completions as Gemini's answers, whole or streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from holdfast.gateway.api import error_body
from holdfast.gateway.gemini import GeminiCall

__all__ = ["AnswerTranslator", "CountedTokens", "GeminiStream", "WholeAnswer", "translator_of"]

_ENDS: Final = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
}
_DATA: Final = b"data:"


class AnswerTranslator(Protocol):
    """Turns an engine's answer into Gemini's, chunk by chunk."""

    def feed(self, chunk: bytes) -> bytes:
        """Take in a part of the answer; return what can be sent. Mutates."""

    def end(self) -> bytes:
        """Return the rest. Mutates."""


class WholeAnswer:
    """An answer that is not streamed; an error as well.

    Args:
        status: Of the answer.
    """

    def __init__(self, status: int) -> None:
        self._status = status
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        """Keep a part of the answer. Mutates."""
        self._parts.append(chunk)
        return b""

    def end(self) -> bytes:
        """Return the answer. Pure."""
        text = b"".join(self._parts)
        try:
            answer = msgspec.json.decode(text)
            if self._status >= 400:
                return error_body("gemini", self._status, _message_of(answer))
            return msgspec.json.encode(self._translated(answer))
        except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
            shown = text[:200].decode(errors="replace")
            return error_body("gemini", max(self._status, 502), f"the engine answered {shown!r}")

    def _translated(self, answer: Any) -> dict[str, Any]:
        candidates = []
        for choice in answer["choices"]:
            message = choice["message"]
            parts = [*_texts(message), *map(_call, message.get("tool_calls") or ())]
            candidates.append(_candidate(choice, parts, choice.get("finish_reason")))
        return {"candidates": candidates, **_usage(answer), **_head(answer)}


class CountedTokens(WholeAnswer):
    """The length of a prompt."""

    def _translated(self, answer: Any) -> dict[str, Any]:
        return {"totalTokens": answer["count"]}


@dataclass(slots=True)
class _Candidate:
    """One of the answers of a stream.

    Attributes:
        calls: Its tool calls by index, as far as they have come.
        end: Why it ended; None while it goes on.
    """

    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    end: str | None = None


class GeminiStream:
    """A stream of chat completion chunks; calls are sent whole, at the end."""

    def __init__(self) -> None:
        self._rest = b""
        self._candidates: dict[int, _Candidate] = {}
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._has_ended = False

    def feed(self, chunk: bytes) -> bytes:
        """Take in a part of the stream; return the events that it completes. Mutates."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return b"".join(event for line in lines for event in self._events(line.strip()))

    def end(self) -> bytes:
        """Return the last event, unless it was sent. Mutates."""
        return b"" if self._has_ended else self._last()

    def _events(self, line: bytes) -> Iterator[bytes]:
        if not line.startswith(_DATA):
            return
        data = line[len(_DATA) :].strip()
        if data == b"[DONE]":
            yield self._last()
            return
        try:
            chunk = msgspec.json.decode(data)
            if "error" in chunk:
                self._has_ended = True
                yield b"data: " + error_body("gemini", 502, _message_of(chunk)) + b"\r\n\r\n"
                return
            self._head = _head(chunk)
            self._usage = _usage(chunk) or self._usage
            for choice in chunk["choices"]:
                yield from self._delta(choice)
        except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
            return  # no chat completion chunk

    def _delta(self, choice: dict[str, Any]) -> Iterator[bytes]:
        index, delta = choice.get("index", 0), choice["delta"]
        candidate = self._candidates.setdefault(index, _Candidate())
        for part in delta.get("tool_calls") or ():
            call = candidate.calls.setdefault(part["index"], {"name": "", "arguments": ""})
            call["id"] = part.get("id") or call.get("id")
            function = part.get("function") or {}
            call["name"] += function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""
        candidate.end = choice.get("finish_reason") or candidate.end
        if parts := list(_texts(delta)):
            yield _event({"candidates": [_candidate(choice, parts, None)], **self._head})

    def _last(self) -> bytes:
        self._has_ended = True
        candidates = []
        for index, candidate in self._candidates.items():
            parts = [
                _call({"id": call.get("id"), "function": call})
                for _, call in sorted(candidate.calls.items())
            ]
            end = candidate.end or "stop"
            candidates.append(_candidate({"index": index}, parts or [{"text": ""}], end))
        return _event({"candidates": candidates, **self._usage, **self._head})


def translator_of(call: GeminiCall, status: int) -> AnswerTranslator:
    """Return what turns the engine's answer to a call into Gemini's. Pure."""
    if call.action == "countTokens":
        return CountedTokens(status)
    is_stream = call.action == "streamGenerateContent" and status < 400
    return GeminiStream() if is_stream else WholeAnswer(status)


def _event(answer: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(answer) + b"\r\n\r\n"


def _candidate(choice: Mapping[str, Any], parts: list[Any], end: str | None) -> dict[str, Any]:
    found = {"content": {"role": "model", "parts": parts}, "index": choice.get("index", 0)}
    return found if end is None else found | {"finishReason": _ENDS.get(end, "OTHER")}


def _texts(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    thought = message.get("reasoning") or message.get("reasoning_content")
    if thought:
        yield {"text": thought, "thought": True}
    if message.get("content"):
        yield {"text": message["content"]}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "{}")
    except msgspec.MsgspecError:
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"arguments": function.get("arguments")}  # what the model wrote, as it is
    return {"functionCall": {"id": call.get("id"), "name": function["name"], "args": arguments}}


def _usage(answer: Mapping[str, Any]) -> dict[str, Any]:
    usage = answer.get("usage")
    if not usage:
        return {}
    details = usage.get("prompt_tokens_details") or {}
    counts = {
        "promptTokenCount": usage.get("prompt_tokens"),
        "candidatesTokenCount": usage.get("completion_tokens"),
        "totalTokenCount": usage.get("total_tokens"),
        "cachedContentTokenCount": details.get("cached_tokens"),
    }
    return {"usageMetadata": {name: count for name, count in counts.items() if count is not None}}


def _head(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"modelVersion": answer.get("model"), "responseId": answer.get("id")}


def _message_of(answer: Any) -> str:
    error = answer.get("error", answer) if isinstance(answer, Mapping) else answer
    message = error.get("message") if isinstance(error, Mapping) else None
    return str(message if message is not None else answer)
