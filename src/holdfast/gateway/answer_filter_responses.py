"""Responses without the tool calls that are denied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from holdfast.gateway.answer_events import Event
from holdfast.gateway.answer_filter import StreamFilter, said_instead
from holdfast.gateway.call_judge import Ask, CallJudge, JudgedText, TextVerdict
from holdfast.policies.requests import Verdict
from holdfast.tool_calls.call_arguments import canonical_arguments

__all__ = ["ResponsesStream", "edit_response"]

_ADDED: Final = "response.output_item.added"
_ITEM_DONE: Final = "response.output_item.done"
_TEXT_DELTA: Final = "response.output_text.delta"
_TEXT_DONE: Final = "response.output_text.done"
_PART_ADDED: Final = "response.content_part.added"
_PART_DONE: Final = "response.content_part.done"
_TEXT: Final = "output_text"
_ARGUMENTS: Final = ("arguments", "input", "code", "action", "operation", "queries")


class _Item:
    """A call among the items of a stream.

    Args:
        judge: Of the answer.

    Attributes:
        verdict: Once it is whole.
        is_told: Whether the client was told that it is denied.
    """

    def __init__(self, judge: CallJudge) -> None:
        self._judge = judge
        self._item: dict[str, Any] = {}
        self._deltas: list[str] = []
        self._done: list[str] = []
        self.verdict: Verdict | None = None
        self.is_told = False

    @property
    def is_denied(self) -> bool:
        return self.verdict is not None and not self.verdict.is_allowed

    def take(self, value: dict[str, Any]) -> None:
        """Take in an event of the call. Mutates."""
        item = value.get("item")
        if self.verdict is not None and self.is_denied:
            if value["type"] == _ITEM_DONE:  # longer than what is held: now it has a name
                name, key, arguments = _call_of(value["item"])
                self._judge.deny(name, _as_json(key, arguments), self.verdict)
            return
        self.verdict = None
        if isinstance(item, dict):
            self._item.update((key, each) for key, each in item.items() if each not in (None, ""))
        elif isinstance(value.get("delta"), str):
            self._deltas.append(value["delta"])
        else:
            self._item.update((key, value[key]) for key in ("name",) if value.get(key))
            self._done += (value[key] for key in _ARGUMENTS if isinstance(value.get(key), str))
        if value["type"] == _ITEM_DONE:
            self.close()

    def close(self) -> None:
        """Judge the call, with all arguments that were sent of it. Mutates."""
        if self.verdict is not None:
            return
        name, key, arguments = _call_of(self._item)
        self.verdict = self._judge.judge(name, _as_json(key, arguments))
        for other in ("".join(self._deltas), *self._done):
            differs = other and canonical_arguments(other) != canonical_arguments(arguments)
            if differs and self.verdict.is_allowed:
                self.verdict = self._judge.judge(name, _as_json(key, other))


class ResponsesStream(StreamFilter):
    """A stream of a response; a denied call becomes a message in its place."""

    def __init__(self, judge: CallJudge, **limits: int) -> None:
        super().__init__(judge, **limits)
        self._items: dict[Any, _Item] = {}
        self._texts: dict[tuple[Any, Any], JudgedText] = {}
        self._num_passed: dict[tuple[Any, Any], int] = {}
        self._number: int | None = None  # of the next event that is written anew
        self._is_edited = False

    @property
    def is_held(self) -> bool:
        """See the base class."""
        return any(item.verdict is None for item in self._items.values()) or any(
            text.is_held for text in self._texts.values()
        )

    @property
    def is_edited(self) -> bool:
        """See the base class."""
        self._is_edited = (
            self._is_edited
            or any(item.is_denied for item in self._items.values())
            or any(text.verdict for text in self._texts.values())
        )
        return self._is_edited

    def read(self, value: Any) -> None:
        """See the base class."""
        kind, index = value["type"], value.get("output_index")
        response = value.get("response")
        if isinstance(response, dict):
            self.judge.learn_id(response.get("id"))
            if response.get("output"):
                self.close()
                self._is_edited |= edit_response(response, self.judge, self.judge.again())
        elif kind in (_ADDED, _ITEM_DONE) and not _is_call(value["item"]):
            self._read_message(value["item"], index)
        elif kind in (_ADDED, _ITEM_DONE) or "_call" in kind:
            item = self._items.get(index)
            if item is None:
                item = self._items[index] = _Item(self.judge)
            item.take(value)
        elif kind == _TEXT_DELTA:
            self._text(value).feed(value["delta"])
        elif kind == _TEXT_DONE or (kind == _PART_DONE and value["part"].get("type") == _TEXT):
            self._read_whole(self._text(value), value.get("part") or value)

    def _read_message(self, item: dict[str, Any], index: object) -> None:
        for number, part in enumerate(item.get("content") or ()):
            if item.get("type") == "message":
                self._read_whole(self._text({"output_index": index, "content_index": number}), part)

    def _read_whole(self, text: JudgedText, part: dict[str, Any]) -> None:
        """Take in the whole of a text, which should be what its deltas were."""
        text.end()
        whole = part.get("text")
        if isinstance(whole, str) and len(whole) != text.num_chars and text.verdict is None:
            found = self.judge.judge_text(whole)
            text.cut_from, text.verdict = found.cut_from, found.verdict

    def _text(self, value: dict[str, Any]) -> JudgedText:
        return self._texts.setdefault(_place(value), JudgedText(self.judge))

    def close(self) -> None:
        """See the base class."""
        for item in self._items.values():
            item.close()
        for text in self._texts.values():
            text.end()

    def deny_held(self, verdict: Verdict) -> None:
        """See the base class."""
        for item in self._items.values():
            item.verdict = item.verdict or verdict
        for text in self._texts.values():
            text.cut(verdict)

    def passed(self) -> None:
        """See the base class."""
        self._num_passed = {place: text.num_chars for place, text in self._texts.items()}

    def edited(self, event: Event, value: Any) -> Iterator[bytes]:
        """See the base class."""
        if self._number is None:
            self._number = value.get("sequence_number")
        for part in self._parts(value):
            if self._number is not None:
                part = {**part, "sequence_number": self._number}
                self._number += 1
            yield event.with_data(part)

    def _parts(self, value: dict[str, Any]) -> Iterator[dict[str, Any]]:
        kind, index = value["type"], value.get("output_index")
        response = value.get("response")
        item = self._items.get(index)
        if isinstance(response, dict):
            for number, each in enumerate(response.get("output") or ()):
                self._cut_message(each, number)
            edit_response(response, self.judge, self.judge.again())
            yield value
        elif item is not None and item.is_denied and ("_call" in kind or "item" in value):
            if not item.is_told:
                item.is_told = True
                yield from _told_instead(value, item)
        elif kind in (_TEXT_DELTA, _TEXT_DONE, _PART_DONE) and _place(value) in self._texts:
            yield from self._cut(value)
        else:
            if kind == _ITEM_DONE:
                self._cut_message(value["item"], index)
            yield value

    def _cut_message(self, item: dict[str, Any], index: object) -> None:
        """Take what is denied out of a whole item. Mutates the item."""
        for number, part in enumerate(item.get("content") or ()):
            text = self._texts.get((index, number))
            if text is not None and item.get("type") == "message":
                _cut_part(part, text)

    def _cut(self, value: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What passes of an event of a text."""
        kind, place = value["type"], _place(value)
        text = self._texts[place]
        if kind == _TEXT_DELTA:
            start = self._num_passed.get(place, 0)
            kept = text.kept(start, value["delta"])
            self._num_passed[place] = start + len(value["delta"])
            if kept == value["delta"]:
                yield value
            elif kept:
                yield {**value, "delta": kept, "logprobs": []}
            return
        if text.verdict is not None and kind == _TEXT_DONE:
            told = said_instead([text.verdict], before="x" if text.cut_from else "")
            yield {
                **{key: value[key] for key in ("item_id", *_PLACE) if key in value},
                "type": _TEXT_DELTA,
                "delta": told,
                "logprobs": [],
            }
        _cut_part(value if kind == _TEXT_DONE else value["part"], text)
        yield value


def edit_response(answer: Any, judge: CallJudge, ask: Ask | None = None) -> bool:
    """Put messages in the place of denied calls; whether there was any. Mutates.

    Args:
        answer: The response.
        judge: Of the answer.
        ask: What judges its calls; None takes them for new ones.
    """
    if ask is None:
        judge.learn_id(answer.get("id"))
    ask = ask or judge.judge
    items = answer.get("output") or []
    is_changed = False
    for index, item in enumerate(items):
        if _is_call(item):
            name, key, arguments = _call_of(item)
            verdict = ask(name, _as_json(key, arguments))
            if not verdict.is_allowed:
                items[index] = _message(item.get("id"), said_instead([verdict]))
                is_changed = True
        elif item.get("type") == "message":
            for part in item.get("content") or ():
                if isinstance(part.get("text"), str):
                    text = judge.judge_text(part["text"])
                    is_changed |= text.verdict is not None
                    _cut_part(part, text)
    if is_changed:
        answer.pop("output_messages", None)  # what the model wrote, token by token
    return is_changed


_PLACE: Final = ("output_index", "content_index")


def _place(value: dict[str, Any]) -> tuple[Any, Any]:
    return value.get("output_index"), value.get("content_index")


def _is_call(item: dict[str, Any]) -> bool:
    return str(item.get("type")).endswith("_call") or "arguments" in item


def _call_of(item: dict[str, Any]) -> tuple[str, str, str]:
    """Name of an item that calls, which field has its arguments, and these.

    Tools without a name have their type's.
    """
    name = item.get("name") or item.get("type") or ""
    key = next((key for key in _ARGUMENTS if item.get(key)), _ARGUMENTS[0])
    given = item.get(key) or ""
    return str(name), key, given if isinstance(given, str) else json.dumps(given)


def _as_json(key: str, text: str) -> str:
    """Arguments as rules read them: a bare text becomes an object with a field."""
    return text if key == _ARGUMENTS[0] else json.dumps({key: text})


def _cut_part(part: dict[str, Any], text: TextVerdict | JudgedText) -> None:
    """Take what is denied out of a whole text. Mutates the part."""
    if text.verdict is None or not isinstance(part.get("text"), str):
        return
    kept = part["text"][: text.cut_from]
    part["text"] = kept + said_instead([text.verdict], before=kept)
    part["logprobs"] = []


def _message(item_id: object, text: str) -> dict[str, Any]:
    part = {"type": _TEXT, "text": text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{item_id or 'denied'}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def _told_instead(value: dict[str, Any], item: _Item) -> Iterator[dict[str, Any]]:
    """The events of a message in place of a denied call."""
    call = value.get("item") or {"id": value.get("item_id")}
    message = _message(call.get("id"), said_instead([item.verdict]))
    (part,) = message["content"]
    empty = {**message, "status": "in_progress", "content": []}
    place = {"output_index": value.get("output_index")}
    within = {"item_id": message["id"], **place, "content_index": 0}
    yield {"type": _ADDED, **place, "item": empty}
    yield {"type": _PART_ADDED, **within, "part": {**part, "text": ""}}
    yield {"type": _TEXT_DELTA, **within, "delta": part["text"], "logprobs": []}
    yield {"type": _TEXT_DONE, **within, "text": part["text"], "logprobs": []}
    yield {"type": _PART_DONE, **within, "part": part}
    yield {"type": _ITEM_DONE, **place, "item": message}
