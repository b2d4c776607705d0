"""What ended a turn: a tool call, and which, or an answer that a human must react to.

Reads the decoded tail of a model's output and nothing else: it knows no tokenizer, no request and
no tool schema. A tool call ends a turn only if (next to) nothing follows it.
"""

# ruff: noqa: RUF001 - the full-width bar is part of DeepSeek's special tokens

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from holdfast.core.tool_kinds import tool_kind
from holdfast.core.tool_syntax import SYNTAXES, Extraction, ToolCall, ToolSyntax

__all__ = ["MAX_TAIL_CHARS", "ToolCall", "TurnEnd", "TurnEndKind", "parse_turn_end", "turn_end_of"]

TurnEndKind = Literal["tool", "human", "unknown"]

MAX_TAIL_CHARS = 8192

# What a model may still say behind its call; more is an answer that only mentioned one.
_MAX_AFTERWORD_CHARS = 48
_MAX_ENDING_CHARS = 512

_SECTION_ENDS = (
    "<|tool_calls_section_end|>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁outputs▁begin｜>",
    "<|python_end|>",
    "</seed:tool_call>",
    "<start_function_response>",
    "<|tool_response>",
    "]<]minimax[>[",
)
_TURN_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end_of_role|>",
    "<|end|>",
    "<|eot|>",
    "<|eom|>",
    "<|return|>",
    "<|user|>",
    "<|im_start|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "<end_of_turn>",
    "<turn|>",
    "<seed:eos>",
    "<|END_OF_TURN_TOKEN|>",
    "[e~[",
)
_CLOSERS = tuple(sorted({closer for syntax in SYNTAXES for closer in syntax.closers}))
# What may end any message closes a call too, but does not say that there was one.
_TELLING_CLOSERS = tuple(
    closer
    for closer in _CLOSERS + _SECTION_ENDS
    if closer not in (*_TURN_ENDS, "<|start|>", "]<]minimax[>[")
)


def _alternatives(strings: tuple[str, ...]) -> str:
    return "|".join(re.escape(string) for string in sorted(set(strings), key=len, reverse=True))


_ENDING = re.compile(_alternatives(_CLOSERS + _SECTION_ENDS + _TURN_ENDS))
_MARKED = tuple(syntax for syntax in SYNTAXES if syntax.markers)
_UNMARKED = tuple(syntax for syntax in SYNTAXES if not syntax.markers)


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """What ended a turn.

    Attributes:
        kind: "tool" when tools run now, "human" when a human must act (a tool that asks the
            human included), "unknown" when there was nothing to read.
        calls: The tool calls, in order; empty with "tool" when their beginning was cut off.
    """

    kind: TurnEndKind
    calls: tuple[ToolCall, ...] = ()


_UNKNOWN = TurnEnd("unknown")
_HUMAN = TurnEnd("human")
_UNNAMED_TOOL = TurnEnd("tool")


def turn_end_of(calls: tuple[ToolCall, ...]) -> TurnEnd:
    """Return the turn end for tool calls that are known: "human" if one of them asks the human."""
    if any(tool_kind(call.name) == "ask_user" for call in calls):
        return TurnEnd("human", calls)
    return TurnEnd("tool", calls)


def parse_turn_end(tail_text: str) -> TurnEnd:
    """Say what ended the turn whose output ends with `tail_text`.

    The text may begin in the middle of a call and break off in one (the token limit was hit);
    special tokens must have been kept. Only the last `MAX_TAIL_CHARS` are read, in linear time.
    Never raises.
    """
    text = tail_text[-MAX_TAIL_CHARS:]
    if not text or text.isspace():
        return _UNKNOWN
    if "<" not in text and "[" not in text and "{" not in text:
        return _HUMAN
    best: Extraction | None = None
    for extraction in _extractions(text):
        if _ends_turn(text, extraction.end) and (best is None or _is_better(extraction, best)):
            best = extraction
    if best is not None:
        return turn_end_of(best.calls) if best.calls else _UNNAMED_TOOL
    return _UNNAMED_TOOL if _ends_with_closer(text) else _HUMAN


def _extractions(text: str) -> list[Extraction]:
    found = [
        extraction
        for syntax in _MARKED
        if _is_marked(text, syntax) and (extraction := syntax.extract(text)) is not None
    ]
    answer = text
    for marker in ("</think>", "[/THINK]"):
        at = answer.rfind(marker)
        if at >= 0:
            answer = answer[at + len(marker) :]
    if answer.lstrip()[:1] in ("{", "["):
        skipped = len(text) - len(answer)
        for syntax in _UNMARKED:
            extraction = syntax.extract(answer)
            if extraction is not None:
                start, end = extraction.start + skipped, extraction.end + skipped
                found.append(Extraction(extraction.calls, start, end))
    return found


def _is_marked(text: str, syntax: ToolSyntax) -> bool:
    return any(marker in text for marker in syntax.markers)


def _is_better(candidate: Extraction, best: Extraction) -> bool:
    """A named call beats an unnamed one; else the one that begins first encloses the other."""
    if bool(candidate.calls) != bool(best.calls):
        return bool(candidate.calls)
    return candidate.start < best.start


def _ends_turn(text: str, end: int) -> bool:
    if len(text) - end > _MAX_ENDING_CHARS:
        return False
    afterword = _ENDING.sub("", text[end:]).strip()
    if len(afterword) > _MAX_AFTERWORD_CHARS:
        return False
    # A back quote closes the code that quoted the call; another special token opens a new message.
    return "`" not in afterword and "<|" not in afterword


def _ends_with_closer(text: str) -> bool:
    """Whether the last thing said is the end of a call whose beginning is out of sight."""
    text = text.rstrip()
    for _ in range(4):
        if text.endswith(_TELLING_CLOSERS):
            return True
        ending = next((end for end in _TURN_ENDS if text.endswith(end)), None)
        if ending is None:
            return False
        text = text[: -len(ending)].rstrip()
    return False
