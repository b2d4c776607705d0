"""What a tool call is, and what a syntax must supply to find one."""

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
]

MAX_NAME_CHARS = 128
MAX_ARGUMENT_CHARS = 1024
MAX_CALLS = 32


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call of a model.

    Attributes:
        name: Tool name as the model wrote it, without a `functions.` prefix.
        arguments: The arguments as text, JSON where the syntax allows it, cut to
            `MAX_ARGUMENT_CHARS` characters; so it may be JSON that breaks off.
    """

    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Extraction:
    """The calls of one syntax in a text.

    Attributes:
        calls: In order of appearance; empty when a call is there but its name is not known.
        start: Offset of the first call's opening marker.
        end: Offset behind the last call, without what merely closes it; the text's length for a
            call that breaks off.
    """

    calls: tuple[ToolCall, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ToolSyntax:
    """One way of writing tool calls.

    Attributes:
        name: For logs and tests.
        markers: Strings of which at least one must be in the text; empty when the call has no
            marker of its own and `extract` looks at the whole text.
        closers: Strings that end a call or a section of calls.
        extract: Finds the calls, or None. Linear in the text's length; never raises.
    """

    name: str
    markers: tuple[str, ...]
    closers: tuple[str, ...]
    extract: Callable[[str], Extraction | None]


def make_call(name: object, arguments: str = "") -> ToolCall | None:
    """Return the call, its arguments cut to size, or None when `name` cannot be a tool's name."""
    if not isinstance(name, str):
        return None
    name = name.strip().removeprefix("functions.")
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable() or " " in name:
        return None
    return ToolCall(name, arguments[:MAX_ARGUMENT_CHARS])


def first_of(text: str, needles: tuple[str, ...], start: int) -> int | None:
    """Return the lowest offset at or after `start` of any of `needles`, or None."""
    found = [at for needle in needles if (at := text.find(needle, start)) >= 0]
    return min(found) if found else None
