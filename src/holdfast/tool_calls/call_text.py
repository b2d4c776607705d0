"""Tool calls in a text that may still grow: where one may begin, and all of them.

Unlike `turn_end`, which reads what most likely ended a turn, this is for those who must not miss a
call: a call that is only quoted is a call, and what looks like one and cannot be read is reported.
"""

# ruff: noqa: RUF001 - the full-width bar is part of DeepSeek's special tokens

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from holdfast.tool_calls.chat_markup import as_plain_text
from holdfast.tool_calls.syntax import SYNTAXES, ToolCall, ToolSyntax, without_namespaces
from holdfast.tool_calls.syntax.base import MAX_CALLS
from holdfast.tool_calls.syntax.json_call import call_of, extract_bare_json
from holdfast.tool_calls.turn_end import parse_turn_end

__all__ = ["CallScanner", "PlacedCall", "UnreadableCallError", "calls_in"]

_CONTEXT_CHARS: Final = 128  # before a call: its tag's namespace, or where its line begins

# A special token; a tag whose name speaks of calls; Mistral's marker; an object; a list of calls.
_OPENING = re.compile(
    r"<[|｜]"
    r"|<[\w:.|\-]{0,40}?(?:tool|function|invoke|call)[\w:.|\-]{0,40}[\s=>|]"
    r"|\[TOOL_CALLS\]"
    r"|(?P<object>\{\s{0,64}[\"'])"
    r"|(?:(?<![\s\S])|(?<=[\n>]))[ \t]{0,16}\[\s{0,64}[A-Za-z_][\w.\-]{0,127}\("
)
# The end of a text that may go on as one of these.
_BEGUN = re.compile(
    r"(?:<[\w:.|\-]{0,96}|\[[TOL_CAS]{0,11}|\{\s{0,64}"
    r"|(?:(?<![\s\S])|(?<=[\n>]))[ \t]{1,16}"
    r"|(?:(?<![\s\S])|(?<=[\n>]))[ \t]{0,16}\[\s{0,64}[\w.\-]{0,128})\Z"
)
_OPENERS: Final = frozenset("<[{")  # one is in each opening
_BLANKS: Final = (" ", "\t")  # which may come before one
_LONGEST_BEGUN: Final = 256
_OBJECT = re.compile(r"\{\s{0,64}[\"']")
_LIST = re.compile(r"(?:\A|(?<=[\n>]))[ \t]{0,16}(?=\[\s{0,64}[A-Za-z_][\w.\-]{0,127}\()")
_OBJECT_STEP = re.compile(r'[^"{}\\]++|\\.|["{}]|\\\Z', re.DOTALL)
_CALLS_KEYS = re.compile(r"[\"'](?:arguments|parameters)[\"']\s{0,8}:")
_MARKED = tuple(syntax for syntax in SYNTAXES if syntax.markers)
_PYTHONIC = next(syntax for syntax in SYNTAXES if syntax.name == "pythonic")
_DECODER = json.JSONDecoder(strict=False)
_UNDECODABLE = (ValueError, RecursionError)
_MOST_FAILURES: Final = 64


class UnreadableCallError(ValueError):
    """A text has a call whose name or end cannot be made out."""


class PlacedCall(NamedTuple):
    """A call in a text.

    Attributes:
        offset: Where what it is in begins.
        call: The whole call.
    """

    offset: int
    call: ToolCall


class CallScanner:
    """Follows a text that grows, and says from where on it may be a call.

    A JSON object is held until it ends, any other opening until the text does.

    Args:
        begins: Offset of its beginning (characters).

    Attributes:
        num_chars: Length of the text so far.
        held_from: Offset from which on the text may be a call; None while it is not.
    """

    def __init__(self, begins: int = 0) -> None:
        self.num_chars = begins
        self.held_from: int | None = None
        self._text = ""  # what is held, and a little before it
        self._begins = begins  # its offset
        self._pieces: list[str] = []  # more of it, while nothing but its end matters
        self._is_held_to_end = False
        self._object: _ObjectEnd | None = None

    def feed(self, piece: str) -> tuple[PlacedCall, ...]:
        """Take in more text; return the calls of objects that it ends. Mutates."""
        start, self.num_chars = self.num_chars, self.num_chars + len(piece)
        if self._is_held_to_end:
            self._pieces.append(piece)
            return ()
        if self._object is not None:
            self._pieces.append(piece)
            ended = self._object.find(piece)
            if ended is None:
                return ()
            return self._objects_calls(start + ended)
        self._text += piece
        if self.held_from is None and _OPENERS.isdisjoint(piece) and piece[-1:] not in _BLANKS:
            self._hold(None)
            return ()
        return self._scan(start if self.held_from is None else self.held_from)

    def end(self) -> tuple[PlacedCall, ...]:
        """The calls of what is held, once the text is complete. Pure.

        Raises:
            UnreadableCallError: One of them cannot be read.
        """
        if self.held_from is None:
            return ()
        found = calls_in(self._text + "".join(self._pieces))
        return tuple(PlacedCall(self.held_from, call) for call in found)

    def _scan(self, offset: int) -> tuple[PlacedCall, ...]:
        """Look for an opening from an offset on."""
        at = offset - self._begins
        opening = _OPENING.search(self._text, at)
        if opening is None:
            begun = _BEGUN.search(self._text, max(at, len(self._text) - _LONGEST_BEGUN))
            self._hold(None if begun is None else begun.start())
            return ()
        self._hold(opening.start())
        assert self.held_from is not None
        if opening["object"] is None:
            self._is_held_to_end = True
            return ()
        self._object = _ObjectEnd()
        ended = self._object.find(self._text[self.held_from - self._begins :])
        return () if ended is None else self._objects_calls(self.held_from + ended)

    def _objects_calls(self, ended: int) -> tuple[PlacedCall, ...]:
        """The calls of the object held, which ends at an offset, and of those after it."""
        assert self.held_from is not None
        self._text += "".join(self._pieces)
        self._pieces.clear()
        self._object = None
        text = self._text[self.held_from - self._begins : ended - self._begins]
        try:
            found = [PlacedCall(self.held_from, call) for call in _calls_of(_DECODER.decode(text))]
        except _UNDECODABLE:
            self._is_held_to_end = True  # where it ends is not certain
            return ()
        self._hold(ended - self._begins)
        return (*found, *self._scan(ended))

    def _hold(self, at: int | None) -> None:
        """Hold the text from an index on, nothing if None; forget what is long before it."""
        kept = len(self._text) if at is None else at
        self.held_from = None if at is None else self._begins + at
        dropped = max(0, kept - _CONTEXT_CHARS)
        self._text = self._text[dropped:]
        self._begins += dropped


class _ObjectEnd:
    """Finds the end of a JSON object in pieces of it."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = self._is_escaped = False

    def find(self, piece: str) -> int | None:
        """The offset in this piece after the object's end; None if it goes on. Mutates."""
        at = 0
        if self._is_escaped and piece:
            at, self._is_escaped = 1, False
        for step in _OBJECT_STEP.finditer(piece, at):
            text = step[0]
            if text == '"':
                self._is_in_string = not self._is_in_string
            elif text == "\\":
                self._is_escaped = True
            elif self._is_in_string or text not in "{}":
                continue
            else:
                self._depth += 1 if text == "{" else -1
                if self._depth == 0:
                    return step.end()
        return None


def calls_in(text: str) -> tuple[ToolCall, ...]:
    """All calls in a text, in any syntax; equal ones once. Pure; linear time.

    Raises:
        UnreadableCallError: One of them cannot be read, or there are too many.
    """
    plain = without_namespaces(as_plain_text(text))
    found: dict[ToolCall, None] = {}
    for syntax in _MARKED:
        found.update(dict.fromkeys(_marked_calls(syntax, plain)))
    found.update(dict.fromkeys(_object_calls(plain)))
    for index, line in enumerate(_LIST.finditer(plain)):
        if index >= MAX_CALLS:
            raise UnreadableCallError(f"more than {MAX_CALLS} lists of calls")
        listed = _PYTHONIC.extract(plain[line.end() :])
        found.update(dict.fromkeys(() if listed is None else listed.calls))
    if not found and parse_turn_end(plain).kind == "tool":
        raise UnreadableCallError("a call without a name")
    return tuple(found)


def _marked_calls(syntax: ToolSyntax, text: str) -> Iterator[ToolCall]:
    """The calls of one syntax, also where it reads the last section of calls only."""
    starts = sorted({match.start() for marker in syntax.markers for match in _all(marker, text)})
    if not starts:
        return
    if len(starts) > MAX_CALLS:
        raise UnreadableCallError(f"more than {MAX_CALLS} calls")
    sections = [text]
    if syntax.reads_last_section and len(starts) > 1:
        sections += [text[start:stop] for start, stop in pairwise((*starts, len(text)))]
    for section in sections:
        extraction = syntax.extract(section)
        if extraction is not None:
            if not extraction.calls and section is text:
                raise UnreadableCallError("a call without a name")
            yield from extraction.calls


def _all(marker: str, text: str) -> Iterator[re.Match[str]]:
    return re.finditer(re.escape(marker), text)


def _object_calls(text: str) -> Iterator[ToolCall]:
    at = num_failures = 0
    while (opening := _OBJECT.search(text, at)) is not None:
        at = opening.start()
        try:
            value, at = _DECODER.raw_decode(text, at)
        except _UNDECODABLE:
            num_failures += 1
            if num_failures > _MOST_FAILURES:
                raise UnreadableCallError("too much of it is broken JSON") from None
            rest = text[at:]
            broken = extract_bare_json(rest)
            if broken is not None:
                yield from broken.calls
            elif num_failures == 1 and _CALLS_KEYS.search(rest):
                raise UnreadableCallError("a call in broken JSON") from None
            at += 1
        else:
            yield from _calls_of(value)


def _calls_of(value: object) -> Iterator[ToolCall]:
    """The calls in a decoded value, at any depth."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            call = call_of(each, need_arguments=True)
            if call is not None:
                yield call
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)
