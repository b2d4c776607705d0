"""The tool call, and the record of a syntax that finds calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "MAX_ARGUMENT_CHARS",
    "MAX_CALLS",
    "MAX_NAME_CHARS",
    "Extraction",
    "ToolCall",
    "ToolSyntax",
    "first_of",
    "make_call",
    "shortened",
    "whole_call",
]

MAX_NAME_CHARS = 128
MAX_ARGUMENT_CHARS = 1024
MAX_CALLS = 32


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call of a model.

    Attributes:
        name: Tool name as the model wrote it, without a `functions.` prefix.
        arguments: The arguments as text, JSON where the syntax allows it. Of a turn's end they are
            cut to `MAX_ARGUMENT_CHARS` characters, so perhaps incomplete JSON.
    """

    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Extraction:
    """The calls of one syntax in a text.

    Attributes:
        calls: In order of appearance; empty for a call without a known name.
        start: Offset of the first call's opening marker.
        end: Offset after the last call, without its closing markup; the text's length for a call
            that breaks off.
    """

    calls: tuple[ToolCall, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ToolSyntax:
    """One syntax of tool calls.

    Attributes:
        name: For logs and tests.
        markers: At least one of these strings must be in the text; empty when calls have no
            marker and `extract` reads the whole text.
        closers: Strings that end a call or a section of calls.
        extract: Finds the calls, or None. Linear in the text's length; never raises.
        reads_last_section: Whether of several sections of calls it reads the last one only.
    """

    name: str
    markers: tuple[str, ...]
    closers: tuple[str, ...]
    extract: Callable[[str], Extraction | None]
    reads_last_section: bool = False


def make_call(name: object, arguments: str = "") -> ToolCall | None:
    """Return the call, arguments cut to size; None if `name` is no tool's name. Pure."""
    call = whole_call(name, arguments)
    return None if call is None else shortened(call)


def whole_call(name: object, arguments: str = "") -> ToolCall | None:
    """Return the whole call; None if `name` is no tool's name. Pure."""
    if not isinstance(name, str):
        return None
    name = name.strip().removeprefix("functions.")
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable() or " " in name:
        return None
    return ToolCall(name, arguments)


def shortened(call: ToolCall) -> ToolCall:
    """Return the call, arguments cut to size. Pure."""
    return ToolCall(call.name, call.arguments[:MAX_ARGUMENT_CHARS])


def first_of(text: str, needles: tuple[str, ...], start: int) -> int | None:
    """Return the lowest offset of any of `needles` from `start` on, or None. Pure."""
    found = [at for needle in needles if (at := text.find(needle, start)) >= 0]
    return min(found) if found else None
