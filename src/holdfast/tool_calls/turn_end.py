"""Turn ends: a tool call, or an answer that waits for a human.

Read from the decoded tail of a model's output and, where known, the names of the tokenizer's
special tokens; no request and no tool schema is needed. A tool call ends a turn only if hardly any
text follows it. Taking a call for an answer costs more than not knowing, so an ambiguous output is
"unknown".
"""

# ruff: noqa: RUF001 - the full-width bar is part of DeepSeek's special tokens

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from holdfast.tool_calls.chat_markup import (
    MAX_AFTERWORD_CHARS,
    NO_SPECIAL_TOKENS,
    SpecialTokens,
    as_plain_text,
    is_answer,
    message_start,
    without_markup,
    without_message_ends,
)
from holdfast.tool_calls.syntax import (
    SYNTAXES,
    Extraction,
    ToolCall,
    without_namespaces,
)
from holdfast.tool_calls.syntax.base import shortened
from holdfast.tool_calls.syntax.json_call import extract_bare_json
from holdfast.tool_calls.tool_kind import tool_kind

__all__ = [
    "MAX_TAIL_CHARS",
    "SpecialTokens",
    "ToolCall",
    "TurnEnd",
    "TurnEndKind",
    "parse_turn_end",
    "turn_end_of",
]

TurnEndKind = Literal["tool", "human", "unknown"]

MAX_TAIL_CHARS = 8192

# The end of calls, or the beginning of tool outputs.
_SECTION_ENDS = (
    "<|tool_calls_section_end|>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁outputs▁begin｜>",
    "<|python_end|>",
    "<start_function_response>",
    "<|tool_response>",
    "</parameter>",
    "</param>",
    "</argument>",
    "</arg_value>",
)
_MARKED = tuple(syntax for syntax in SYNTAXES if syntax.markers)
_UNMARKED = tuple(syntax for syntax in SYNTAXES if not syntax.markers)
# Markers that are evidence of a call; ends of any message also close calls, but are none.
_CALL_MARKERS = tuple(
    {marker for syntax in _MARKED for marker in syntax.closers}.union(
        _SECTION_ENDS, *(s.markers for s in _MARKED if s.markers[0][0] in "<[")
    ).difference(("</s>", "<|end|>", "<|start|>", "<|channel|>", "<|message|>"))
)
_KNOWN_TAGS = frozenset(marker for marker in _CALL_MARKERS if marker.startswith("</"))

_ENDINGS = re.compile("|".join(map(re.escape, sorted(_CALL_MARKERS, key=len, reverse=True))))
_LEADING_MARKUP = re.compile(rf"(?:\s{{0,16}}(?:{_ENDINGS.pattern}|\[e~\[|</?[^<>\n]{{1,80}}>))*+")
_MAX_ENDING_CHARS = 512

_MARKUP_LETTERS = re.compile(r"[<\[{}\]]|```tool")
_NEW_MESSAGE = re.compile(r"<\|(?:start|channel|message)\|>\s*\w")
# A sentence that continues after a call mentions it.
_SENTENCE = re.compile(r"[ \t]*[a-z.,;:)]")
_JSON_LINE = re.compile(r"(?:^|>)[ \t]*(?=\{|\[\s*\{)", re.MULTILINE)
_MAX_JSON_LINES = 16
_ARGUMENTS = re.compile(r"""["'](?:arguments|parameters)["']\s{0,8}:""")


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The end of a turn.

    Attributes:
        kind: "tool" when tools run now, "human" when a human must act (also for a tool that asks
            the human), "unknown" when the output is empty, breaks off or ends in markup of unknown
            meaning.
        calls: The tool calls, in order; empty with "tool" when their beginning was cut off.
    """

    kind: TurnEndKind
    calls: tuple[ToolCall, ...] = ()


_UNKNOWN = TurnEnd("unknown")
_HUMAN = TurnEnd("human")
_UNNAMED_TOOL = TurnEnd("tool")


def turn_end_of(calls: tuple[ToolCall, ...]) -> TurnEnd:
    """Return the turn end for known calls: "human" if one asks the human. Pure."""
    if any(tool_kind(call.name) == "ask_user" for call in calls):
        return TurnEnd("human", calls)
    return TurnEnd("tool", calls)


def parse_turn_end(tail_text: str, special_tokens: SpecialTokens = NO_SPECIAL_TOKENS) -> TurnEnd:
    """Return the end of the turn whose output ends with `tail_text`. Pure.

    The text may begin inside a call and break off inside one, at the token limit; special tokens
    must have been kept. Reads the last `MAX_TAIL_CHARS` only, in linear time. Never raises.

    Args:
        tail_text: The end of a model's output.
        special_tokens: Those of its tokenizer, where known. Without them special tokens are
            recognised by their form; with them an output without an end token breaks off.
    """
    text = without_namespaces(as_plain_text(tail_text[-MAX_TAIL_CHARS:]))
    content = without_message_ends(text, _CALL_MARKERS, special_tokens)
    if not content:
        return _UNKNOWN
    if special_tokens == NO_SPECIAL_TOKENS and _MARKUP_LETTERS.search(content) is None:
        return _HUMAN
    start = message_start(text)
    call, goes_on, message_at = _call_at_end(text, start or 0, special_tokens)
    if call is not None:
        return turn_end_of(tuple(map(shortened, call.calls))) if call.calls else _UNNAMED_TOOL
    if content.endswith(_CALL_MARKERS):
        return _UNNAMED_TOOL
    message = content[message_at:].strip()
    breaks_off = start is None or (bool(special_tokens.ends) and content == text.rstrip())
    if breaks_off or goes_on or not message or _looks_like_call(message):
        return _UNKNOWN
    return _HUMAN if is_answer(message, _KNOWN_TAGS, special_tokens) else _UNKNOWN


def _call_at_end(
    text: str, start: int, tokens: SpecialTokens
) -> tuple[Extraction | None, bool, int]:
    """Find the call that ends the text, or None.

    Returns:
        The call; whether some call is followed by more text; and where the message begins, after
        the reasoning (which ends at `start`) and calls that are only quoted.
    """
    best: Extraction | None = None
    goes_on = False
    for call in _extractions(text, start):
        rest = text[call.end :]
        closed_at = call.end + _closed_at(rest)
        if _is_mentioned(text, call, closed_at):
            start = max(start, closed_at)
        elif not _is_afterword(rest, tokens):
            goes_on |= call.start >= start
        elif best is None or _is_better(call, best):
            best = call
    return best, goes_on, start


def _extractions(text: str, start: int) -> list[Extraction]:
    found = [
        extraction
        for syntax in _MARKED
        if any(marker in text for marker in syntax.markers)
        and (extraction := syntax.extract(text)) is not None
    ]
    # A call without a marker is the whole message, or the JSON at its end.
    lines = [match.end() for match in _JSON_LINE.finditer(text, start)][-_MAX_JSON_LINES:]
    for at in (start, *lines):
        for syntax in _UNMARKED:
            extraction = syntax.extract(text[at:])
            if extraction is None:
                continue
            begin, end = at + extraction.start, at + extraction.end
            if _is_afterword(text[end:]) and "`" not in text[end:]:
                found.append(Extraction(extraction.calls, begin, end))
    return found


def _is_better(candidate: Extraction, best: Extraction) -> bool:
    """Prefer a named call; else the one that begins first, as it encloses the other."""
    if bool(candidate.calls) != bool(best.calls):
        return bool(candidate.calls)
    return candidate.start < best.start


def _closed_at(rest: str) -> int:
    """Return the offset in the text after a call at which its closing markup ends."""
    closing = _LEADING_MARKUP.match(rest)
    return 0 if closing is None else closing.end()


def _is_mentioned(text: str, call: Extraction, closed_at: int) -> bool:
    """Whether the text quotes the call, continues a sentence or begins a message."""
    if text[closed_at:].lstrip().startswith("`") or text.count("```", 0, call.start) % 2:
        return "`" in text[closed_at:]
    if len(text) - call.end > MAX_AFTERWORD_CHARS and _SENTENCE.match(text, closed_at):
        return True
    return _NEW_MESSAGE.search(text, call.end) is not None


def _is_afterword(rest: str, tokens: SpecialTokens = NO_SPECIAL_TOKENS) -> bool:
    if len(rest) > _MAX_ENDING_CHARS:
        return False
    return len(without_markup(_ENDINGS.sub("", rest), tokens)) <= MAX_AFTERWORD_CHARS


def _looks_like_call(message: str) -> bool:
    """Whether the message is JSON with arguments but no name, or ends in such code."""
    if message.startswith(("{", "[{")) and message.endswith(("}", "]")):
        return _ARGUMENTS.search(message) is not None
    if not message.endswith("```"):
        return False
    language, _, block = message[:-3].rpartition("```")[2].partition("\n")
    call = extract_bare_json(block)
    return "tool" in language or (call is not None and not block[call.end :].strip())
