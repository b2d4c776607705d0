"""Anthropic messages without the tool calls that are denied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from holdfast.gateway.answer_events import Event, UnreadableAnswerError
from holdfast.gateway.answer_filter import StreamFilter, said_instead
from holdfast.gateway.call_judge import CallJudge, JudgedText
from holdfast.policies.requests import Verdict

__all__ = ["MessagesStream", "edit_message"]

_Key = tuple[Any, int]  # index of a block, and how many had it so far

_START: Final = "content_block_start"
_DELTA: Final = "content_block_delta"
_STOP: Final = "content_block_stop"


class _Block:
    """A content block of a stream.

    Args:
        start: As it begins; None if its beginning was not seen.
        judge: Of the answer.

    Attributes:
        verdict: Of a call, once it is whole.
        num_passed: Characters of its text that were passed on, or taken out.
    """

    def __init__(self, start: dict[str, Any] | None, judge: CallJudge) -> None:
        self._judge = judge
        self._start = start or {"type": "tool_use"}
        self.is_call = _is_call(self._start)
        self.text = JudgedText(judge)
        self._arguments: list[str] = []
        self.verdict: Verdict | None = None
        self.num_passed = 0
        if not self.is_call and isinstance(self._start.get("text"), str):
            self.text.feed(self._start["text"])

    @property
    def is_held(self) -> bool:
        return self.verdict is None if self.is_call else self.text.is_held

    @property
    def is_denied(self) -> bool:
        """Whether it is a call that does not pass."""
        return self.is_call and self.verdict is not None and not self.verdict.is_allowed

    @property
    def denied(self) -> Verdict | None:
        """Why something of it does not pass."""
        return self.verdict if self.is_denied else self.text.verdict

    def add(self, delta: dict[str, Any]) -> None:
        if "partial_json" in delta:
            if not self.is_call:
                raise UnreadableAnswerError("arguments are no part of a call")
            if not self.is_denied:
                self.verdict = None
                self._arguments.append(delta["partial_json"])
        elif "text" in delta:
            self.text.feed(delta["text"])

    def close(self) -> None:
        if not self.is_call:
            self.text.end()
        elif self.verdict is None:
            given = self._start.get("input")
            arguments = "".join(self._arguments) or (json.dumps(given) if given else "")
            self.verdict = self._judge.judge(str(self._start.get("name") or ""), arguments)

    def deny(self, verdict: Verdict) -> None:
        self.text.cut(verdict)
        if self.is_call and self.verdict is None:
            self.verdict = verdict


class MessagesStream(StreamFilter):
    """A stream of a message; a denied call becomes a block of text in its place."""

    def __init__(self, judge: CallJudge, **limits: int) -> None:
        super().__init__(judge, **limits)
        self._blocks: dict[_Key, _Block] = {}
        self._num_read: dict[Any, int] = {}  # blocks begun, by index
        self._num_passed: dict[Any, int] = {}

    @property
    def is_held(self) -> bool:
        """See the base class."""
        return any(block.is_held for block in self._blocks.values())

    @property
    def is_edited(self) -> bool:
        """See the base class."""
        return any(block.denied for block in self._blocks.values())

    def read(self, value: Any) -> None:
        """See the base class."""
        kind = value.get("type")
        if kind == "message_start" and value["message"].get("content"):
            raise UnreadableAnswerError("a message has content when it begins")
        if kind in ("message_delta", "message_stop"):
            self.close()
        if kind not in (_START, _DELTA, _STOP):
            return
        key = _key(value, self._num_read)
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = _Block(value.get("content_block"), self.judge)
        if kind == _DELTA:
            block.add(value["delta"])
        elif kind == _STOP:
            block.close()

    def close(self) -> None:
        """See the base class."""
        for block in self._blocks.values():
            block.close()

    def deny_held(self, verdict: Verdict) -> None:
        """See the base class."""
        for block in self._blocks.values():
            block.deny(verdict)

    def passed(self) -> None:
        """See the base class."""
        self._num_passed = dict(self._num_read)
        for block in self._blocks.values():
            block.num_passed = block.text.num_chars

    def edited(self, event: Event, value: Any) -> Iterator[bytes]:
        """See the base class."""
        kind = value.get("type")
        if kind == "message_delta":
            value = self._ended(value)
            yield event.with_data(value)
        elif kind not in (_START, _DELTA, _STOP):
            yield event.text
        else:
            block = self._blocks[_key(value, self._num_passed)]
            if block.is_denied:
                yield from _told_instead(event, value, block)
            else:
                yield from _cut(event, value, block)

    def _ended(self, value: dict[str, Any]) -> dict[str, Any]:
        """The end of a message, which calls no tool if none passed."""
        blocks = self._blocks.values()
        has_calls = any(block.is_call and not block.is_denied for block in blocks)
        delta = value.get("delta") or {}
        if delta.get("stop_reason") != "tool_use" or has_calls:
            return value
        return {**value, "delta": {**delta, "stop_reason": "end_turn"}}


def _key(value: dict[str, Any], num_begun: dict[Any, int]) -> _Key:
    """Whose an event is. Mutates the counts of blocks that have begun."""
    index = value["index"]
    if value["type"] == _START or index not in num_begun:
        num_begun[index] = num_begun.get(index, 0) + 1
    return index, num_begun[index]


def _told_instead(event: Event, value: dict[str, Any], block: _Block) -> Iterator[bytes]:
    """What passes of an event of a denied call: a text in its place."""
    kind = value["type"]
    if kind == _START:
        yield event.with_data({**value, "content_block": {"type": "text", "text": ""}})
        yield event.with_data(_delta(value, said_instead([block.verdict])))
    elif kind == _STOP:
        yield event.text


def _cut(event: Event, value: dict[str, Any], block: _Block) -> Iterator[bytes]:
    """What passes of an event of a block of text. Mutates the block."""
    kind = value["type"]
    part = value.get("content_block") or value.get("delta") or {}
    said = part.get("text") or ""
    kept = block.text.kept(block.num_passed, said)
    block.num_passed += len(said)
    verdict = block.text.verdict
    if verdict is None or kept == said:
        if kind == _STOP and verdict is not None:
            text = said_instead([verdict], before="x" if block.text.cut_from else "")
            yield event.with_data(_delta(value, text))
        yield event.text
    elif kind == _START:
        yield event.with_data({**value, "content_block": {"type": "text", "text": kept}})
    elif kept:
        yield event.with_data(_delta(value, kept))


def _delta(value: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        "type": _DELTA,
        "index": value["index"],
        "delta": {"type": "text_delta", "text": text},
    }


def edit_message(answer: Any, judge: CallJudge) -> bool:
    """Put texts in the place of denied calls; whether there was any. Mutates."""
    blocks = answer.get("content") or []
    is_changed = has_calls = False
    for index, block in enumerate(blocks):
        verdict: Verdict | None = None
        kept = ""
        if _is_call(block):
            verdict = judge.judge(str(block.get("name") or ""), json.dumps(block.get("input")))
            has_calls |= verdict.is_allowed
        elif block.get("type") == "text":
            text = judge.judge_text(block["text"])
            verdict, kept = text.verdict, text.kept(0, block["text"])
        if verdict is not None and not verdict.is_allowed:
            is_changed = True
            blocks[index] = {"type": "text", "text": kept + said_instead([verdict], before=kept)}
    if is_changed and not has_calls and answer.get("stop_reason") == "tool_use":
        answer["stop_reason"] = "end_turn"
    return is_changed


def _is_call(block: dict[str, Any]) -> bool:
    return str(block.get("type")).endswith("tool_use")
