"""Server-sent events of an answer: taken apart, read, and written anew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

__all__ = ["DONE", "Event", "EventSplitter", "UnreadableAnswerError", "decoded", "event_of"]

DONE: Final = b"[DONE]"
"""Data of the event that ends a stream of OpenAI's chat completions."""

_BOUNDARY = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LONGEST_BOUNDARY: Final = 4
_DATA: Final = b"data: "
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class UnreadableAnswerError(Exception):
    """An answer that cannot be read, so that nothing can be said about its tool calls."""


class Event(NamedTuple):
    """An event.

    Attributes:
        text: Its bytes, with the empty line that ends it.
        data: What it carries; None if it is a comment or a field without data.
        is_named: Whether it has a name of its own.
    """

    text: bytes
    data: bytes | None
    is_named: bool

    def with_data(self, value: Mapping[str, Any]) -> bytes:
        """This event with other data, named by their `type` if this one has a name."""
        end = b"\r\n" if self.text.endswith(b"\r\n") else b"\n"
        name = b"event: " + str(value.get("type")).encode() + end if self.is_named else b""
        return name + b"data: " + msgspec.json.encode(value) + end + end


class EventSplitter:
    """Cuts a stream into events, wherever its chunks end.

    Args:
        most_bytes: Longest event.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in a chunk; return the events that it completes. Mutates.

        Raises:
            UnreadableAnswerError: An event does not end.
        """
        since = max(0, len(self._rest) - _LONGEST_BOUNDARY)
        text = self._rest + chunk
        events, at = [], 0
        for end in _ends(text, since):
            events.append(text[at:end])
            at = end
        self._rest = text[at:]
        if len(self._rest) > self._most_bytes:
            raise UnreadableAnswerError("an event of the answer does not end")
        return events

    def end(self) -> bytes:
        """What came after the last event. Mutates."""
        rest, self._rest = self._rest, b""
        return rest


def _ends(text: bytes, since: int) -> Iterator[int]:
    """Yield the ends of empty lines, in order."""
    if b"\r" in text:
        yield from (boundary.end() for boundary in _BOUNDARY.finditer(text, since))
        return
    while (at := text.find(b"\n\n", since)) >= 0:  # as engines write them
        since = at + 2
        yield since


def event_of(text: bytes) -> Event:
    """Read the lines of an event. Pure."""
    if text.startswith(_DATA) and text.find(b"\n") == len(text) - 2 and b"\r" not in text:
        return Event(text, text[len(_DATA) : -2], is_named=False)  # as engines write most
    data: list[bytes] = []
    is_named = False
    for line in text.removeprefix(_BYTE_ORDER_MARK).splitlines():
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            is_named = True
    return Event(text, b"\n".join(data) if data else None, is_named)


def decoded(data: bytes) -> Any:
    """Decode JSON as clients do. Pure.

    Raises:
        UnreadableAnswerError: It is none.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # `NaN` and halves of surrogate pairs are JSON to some
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise UnreadableAnswerError("the answer is no JSON") from None
