"""Answers whose tool calls are judged before a client sees any of them.

What passes, passes as it came; only an answer with a denied call is written anew, where it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import msgspec

from holdfast.gateway.answer_events import (
    DONE,
    Event,
    EventSplitter,
    UnreadableAnswerError,
    decoded,
    event_of,
)
from holdfast.gateway.call_judge import CallJudge
from holdfast.policies.requests import Verdict

__all__ = ["HELD_BYTES", "AnswerFilter", "BodyFilter", "StreamFilter", "said_instead"]

HELD_BYTES: Final = 8 << 20
"""Of a stream: longer calls are denied."""

_BODY_BYTES: Final = 64 << 20
_UNEXPECTED: Final = (LookupError, TypeError, AttributeError, ValueError)


class AnswerFilter(Protocol):
    """Passes on an answer without the calls that are denied, chunk by chunk."""

    def feed(self, chunk: bytes) -> bytes:
        """Take in a part of the answer; return what can be sent. Mutates.

        Raises:
            UnreadableAnswerError: The answer cannot be read; nothing that follows may be sent.
        """

    def end(self) -> bytes:
        """Return the rest. Mutates.

        Raises:
            UnreadableAnswerError: As for `feed`.
        """


class StreamFilter(ABC):
    """A stream of events, held from the first that may belong to a call.

    Args:
        judge: Judges its calls.
        held_bytes: Most that is held.
    """

    def __init__(self, judge: CallJudge, held_bytes: int = HELD_BYTES) -> None:
        self.judge = judge
        self._held_bytes = held_bytes
        self._splitter = EventSplitter(held_bytes)
        self._queue: list[bytes] = []
        self._queued_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take in a part of the answer; return what can be sent. Mutates."""
        return b"".join(map(self._taken, self._splitter.feed(chunk)))

    def end(self) -> bytes:
        """Judge what is held, and return the rest. Mutates."""
        rest = self._splitter.end()
        taken = self._taken(rest) if rest else b""
        self.close()
        return taken + self._flushed() + b"".join(self.last())

    # What each API does.

    @property
    @abstractmethod
    def is_held(self) -> bool:
        """Whether the queue ends in what may be a call that is not yet judged."""

    @property
    @abstractmethod
    def is_edited(self) -> bool:
        """Whether any call so far is denied."""

    @abstractmethod
    def read(self, value: Any) -> None:
        """Take in an event, and judge the calls that it completes. Mutates."""

    @abstractmethod
    def close(self) -> None:
        """Judge all calls that are still open. Mutates."""

    @abstractmethod
    def deny_held(self, verdict: Verdict) -> None:
        """Deny all calls that are still open. Mutates."""

    @abstractmethod
    def passed(self) -> None:
        """Take in that all events so far pass as they came. Mutates."""

    @abstractmethod
    def edited(self, event: Event, value: Any) -> Iterator[bytes]:
        """Yield what passes of an event. Mutates."""

    def last(self) -> Iterator[bytes]:
        """Yield what a stream that does not end as it should still lacks. Mutates."""
        return iter(())

    # The queue.

    def _taken(self, text: bytes) -> bytes:
        event = event_of(text)
        self._queue.append(text)
        self._queued_bytes += len(text)
        if event.data == DONE:
            self.close()
        elif event.data is not None:
            value = decoded(event.data)
            try:
                self.read(value)
            except _UNEXPECTED as error:
                raise UnreadableAnswerError("an event is not of its API's shape") from error
        if self.is_held:
            if self._queued_bytes <= self._held_bytes:
                return b""
            self.deny_held(self.judge.too_long(self._held_bytes))
        return self._flushed()

    def _flushed(self) -> bytes:
        texts, self._queue, self._queued_bytes = self._queue, [], 0
        if not self.is_edited:
            self.passed()
            return b"".join(texts)
        return b"".join(part for text in texts for part in self._edited(text))

    def _edited(self, text: bytes) -> Iterator[bytes]:
        event = event_of(text)
        if event.data == DONE:
            yield from self.last()
        if event.data is None or event.data == DONE:
            yield text
        else:
            yield from self.edited(event, decoded(event.data))


class BodyFilter:
    """An answer that is not streamed.

    Args:
        judge: Judges its calls.
        edit: Takes denied calls out of the decoded answer; whether there was any.
    """

    def __init__(self, judge: CallJudge, edit: Callable[[Any, CallJudge], bool]) -> None:
        self._judge = judge
        self._edit = edit
        self._parts: list[bytes] = []
        self._num_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """Keep a part of the answer. Mutates."""
        self._num_bytes += len(chunk)
        if self._num_bytes > _BODY_BYTES:
            raise UnreadableAnswerError(f"the answer is longer than {_BODY_BYTES >> 20} MiB")
        self._parts.append(chunk)
        return b""

    def end(self) -> bytes:
        """Return the answer without the calls that are denied. Mutates."""
        text = b"".join(self._parts)
        if not text:
            return text
        answer = decoded(text)
        try:
            return msgspec.json.encode(answer) if self._edit(answer, self._judge) else text
        except _UNEXPECTED as error:
            raise UnreadableAnswerError("the answer is not of its API's shape") from error


def said_instead(verdicts: Iterable[Verdict | None], *, before: str = "") -> str:
    """The text in place of denied calls, to be put after the answer's own. Pure."""
    told = "\n".join(dict.fromkeys(verdict.message for verdict in verdicts if verdict))
    return f"\n\n{told}" if before.strip() else told
