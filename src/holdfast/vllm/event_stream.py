"""Server-sent events that pass, and JSON objects in them that get another field.

Process: API server. Imports nothing of vLLM.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

__all__ = ["EventStream"]

_MAX_EVENT_BYTES: Final = 4 << 20
_CARRIERS: Final = (("message", b'"message_start"'), ("response", b'"response":'))
"""Fields of events that hold the answer, each with what its event's text contains."""

_Shown = Callable[[dict[str, Any]], dict[str, Any] | None]


class EventStream:
    """Adds fields to the answers in events of a stream; passes all others.

    Args:
        shown: Given an answer, the fields to add to it; None adds none.
    """

    def __init__(self, shown: _Shown) -> None:
        self._shown = shown
        self._rest = b""
        self._is_plain = False

    def passed(self, data: bytes, *, is_last: bool = False) -> bytes:
        """The events that are complete, in bytes to send on. Mutates."""
        if self._is_plain:
            return data
        whole, rest = self._rest + data, b""
        if not is_last:
            end = whole.rfind(b"\n\n") + 2
            whole, rest = (b"", whole) if end == 1 else (whole[:end], whole[end:])
        if len(rest) > _MAX_EVENT_BYTES:
            self._is_plain = True
            whole, rest = whole + rest, b""
        self._rest = rest
        return b"\n\n".join(map(self._event, whole.split(b"\n\n")))

    def _event(self, event: bytes) -> bytes:
        carrier = next((field for field, text in _CARRIERS if text in event), None)
        if carrier is None:
            return event
        return b"\n".join(self._line(line, carrier) for line in event.split(b"\n"))

    def _line(self, line: bytes, carrier: str) -> bytes:
        if not line.startswith(b"data:"):
            return line
        try:
            data = json.loads(line[5:])
        except ValueError:
            return line
        answer = data.get(carrier) if isinstance(data, dict) else None
        fields = self._shown(answer) if isinstance(answer, dict) else None
        if fields is None:
            return line
        answer.update(fields)  # type: ignore[union-attr]
        return b"data: " + json.dumps(data, separators=(",", ":")).encode()

    @staticmethod
    def with_fields(body: bytes, shown: _Shown) -> bytes:
        """A whole JSON answer with the fields to add, which follow its own."""
        try:
            answer = json.loads(body)
        except ValueError:
            return body
        fields = shown(answer) if isinstance(answer, dict) else None
        if not fields:
            return body
        # The last of equal keys counts in every reader.
        added = json.dumps(fields, separators=(",", ":")).encode()
        return body.rstrip()[:-1].rstrip() + b"," + added[1:]
