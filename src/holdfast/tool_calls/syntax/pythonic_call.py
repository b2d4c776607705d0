"""Calls written as a Python list of function calls, `[read(path="a"), ls()]`."""

from __future__ import annotations

import re
from collections.abc import Callable

from holdfast.tool_calls.syntax.base import MAX_CALLS, Extraction, ToolCall, whole_call

__all__ = ["pythonic_extractor"]

_CALL = re.compile(r"\s{0,64}([A-Za-z_][\w.\-]{0,127})\(")
_STEP = re.compile(r"[^\"'()\[\]{}\\]++|\\.|.", re.DOTALL)


def pythonic_extractor(opener: str, *, bracketed: bool) -> Callable[[str], Extraction | None]:
    """Build the extractor of Python calls.

    Args:
        opener: Marker before the calls; "" when the text must begin with them.
        bracketed: Whether the calls are in a list.
    """

    def extract(text: str) -> Extraction | None:
        start = text.rfind(opener) if opener else len(text) - len(text.lstrip())
        if start < 0:
            return None
        at = start + len(opener)
        if opener:
            at += len(text[at:]) - len(text[at:].lstrip())
        if text.startswith("[", at):
            at += 1
        elif bracketed:
            return None
        calls, end = _read_calls(text, at)
        if not calls and not (opener and end == len(text)):
            return None
        return Extraction(tuple(calls), start, end)

    return extract


def _read_calls(text: str, at: int) -> tuple[list[ToolCall], int]:
    calls: list[ToolCall] = []
    while len(calls) < MAX_CALLS and (match := _CALL.match(text, at)) is not None:
        close_at = _closing_parenthesis(text, match.end())
        call = whole_call(match[1], text[match.end() : close_at])
        if call is None:
            break
        calls.append(call)
        at = min(close_at + 1, len(text))
        at += len(text[at:]) - len(text[at:].lstrip(", \n\t"))
    if text.startswith("]", at):
        at += 1
    return calls, at


def _closing_parenthesis(text: str, at: int) -> int:
    """Return the offset that closes the parenthesis before `at`, or the text's end."""
    depth = 1
    quote = ""
    for match in _STEP.finditer(text, at):
        piece = match[0]
        if quote:
            quote = "" if piece == quote else quote
        elif piece in ("'", '"'):
            quote = piece
        elif piece in (")", "]", "}"):
            depth -= 1
            if depth == 0:
                return match.start()
        elif piece in ("(", "[", "{"):
            depth += 1
    return len(text)
