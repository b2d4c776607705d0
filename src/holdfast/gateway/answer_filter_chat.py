"""Chat completions, and completions, without the tool calls that are denied."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.gateway.answer_events import Event, UnreadableAnswerError
from holdfast.gateway.answer_filter import StreamFilter, said_instead
from holdfast.gateway.call_judge import CallJudge, JudgedText
from holdfast.policies.requests import Verdict

__all__ = ["ChatStream", "edit_chat"]

_LEGACY: Final = "function_call"
_CALLED: Final = frozenset({"tool_calls", "function_call"})
# Of a choice that is written anew, what surely has nothing of a call in it.
_KEPT: Final = ("role", "reasoning", "reasoning_content", "refusal", "annotations")


@dataclass(slots=True)
class _Call:
    """A call, as far as it has come; its verdict once it is whole."""

    names: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    verdict: Verdict | None = None

    def judge(self, judge: CallJudge) -> None:
        if self.verdict is None:
            self.verdict = judge.judge("".join(self.names), "".join(self.arguments))

    def add(self, function: dict[str, Any]) -> None:
        if self.verdict is not None:
            if not self.verdict.is_allowed:
                return
            self.verdict = None  # it goes on after its end
        self.names.append(_text(function.get("name")))
        self.arguments.append(_text(function.get("arguments")))


@dataclass(slots=True)
class _Choice:
    """One of the answers of a stream.

    Attributes:
        text: Its content, judged.
        calls: By index.
        indices: New indices of the calls that pass, by their own.
        num_passed: Characters of its content that were passed on, or taken out.
        is_told: Whether the client was told what was denied.
    """

    text: JudgedText
    calls: dict[Hashable, _Call] = field(default_factory=dict)
    indices: dict[Hashable, int] = field(default_factory=dict)
    num_passed: int = 0
    is_told: bool = False

    @property
    def is_held(self) -> bool:
        if self.text.is_held:
            return True
        return bool(self.calls) and any(call.verdict is None for call in self.calls.values())

    @property
    def denied(self) -> list[Verdict]:
        """Why what is missing is missing."""
        if not self.calls and self.text.verdict is None:
            return []
        verdicts = [call.verdict for call in self.calls.values()]
        verdicts.append(self.text.verdict)
        return [each for each in verdicts if each is not None and not each.is_allowed]

    def is_passed(self, key: Hashable) -> bool:
        verdict = self.calls[key].verdict
        return verdict is not None and verdict.is_allowed

    def close(self, judge: CallJudge) -> None:
        self.text.end()
        for call in self.calls.values():
            call.judge(judge)

    def deny(self, verdict: Verdict) -> None:
        self.text.cut(verdict)
        for call in self.calls.values():
            call.verdict = call.verdict or verdict

    def call_at(self, key: Hashable) -> _Call:
        return self.calls.setdefault(key, _Call())


class ChatStream(StreamFilter):
    """A stream of chat completion chunks, or of completions.

    A call is whole when its choice ends: chunks of parallel calls may alternate.
    """

    def __init__(self, judge: CallJudge, **limits: int) -> None:
        super().__init__(judge, **limits)
        self._choices: dict[Any, _Choice] = {}
        self._head: dict[str, Any] = {}

    @property
    def is_held(self) -> bool:
        """See the base class."""
        return any(choice.is_held for choice in self._choices.values())

    @property
    def is_edited(self) -> bool:
        """See the base class."""
        return any(choice.denied for choice in self._choices.values())

    def read(self, value: Any) -> None:
        """See the base class."""
        for part in value.get("choices") or ():
            self._head = value
            index = part.get("index", 0)
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice(JudgedText(self.judge))
            if "message" in part:
                raise UnreadableAnswerError("a chunk has a whole message")
            delta = part.get("delta") or {}
            if said := _text(part.get("text")) + _text(delta.get("content")):
                choice.text.feed(said)
            for called in delta.get("tool_calls") or ():
                choice.call_at(called.get("index", 0)).add(_function(called))
            if delta.get(_LEGACY):
                choice.call_at(_LEGACY).add(delta[_LEGACY])
            if part.get("finish_reason") is not None:
                choice.close(self.judge)

    def close(self) -> None:
        """See the base class."""
        for choice in self._choices.values():
            choice.close(self.judge)

    def deny_held(self, verdict: Verdict) -> None:
        """See the base class."""
        for choice in self._choices.values():
            choice.deny(verdict)

    def passed(self) -> None:
        """See the base class."""
        for choice in self._choices.values():
            choice.num_passed = choice.text.num_chars
            choice.indices.update((key, key) for key in choice.calls if isinstance(key, int))

    def edited(self, event: Event, value: Any) -> Iterator[bytes]:
        """See the base class."""
        parts = value.get("choices") or ()
        kept = []
        for part in parts:
            choice = self._choices[part.get("index", 0)]
            is_last = part.get("finish_reason") is not None
            if is_last and choice.denied and not choice.is_told:
                yield event.with_data(_told(value, part.get("index", 0), choice))
            shown = self._shown(choice, part)
            if is_last or shown is part or any(shown.get(key) for key in ("text", "delta")):
                kept.append(shown)
        if kept or not parts or value.get("usage"):
            yield event.with_data({**value, "choices": kept})

    def last(self) -> Iterator[bytes]:
        """See the base class."""
        for index, choice in self._choices.items():
            if choice.denied and not choice.is_told:
                event = Event(b"\n\n", None, is_named=False)
                yield event.with_data(_told({**self._head, "usage": None}, index, choice))

    def _shown(self, choice: _Choice, part: dict[str, Any]) -> dict[str, Any]:
        """What passes of a choice of a chunk. Mutates the choice."""
        delta = part.get("delta") or {}
        said = _text(part.get("text")) + _text(delta.get("content"))
        kept = choice.text.kept(choice.num_passed, said)
        choice.num_passed += len(said)
        calls = [
            {**called, "index": choice.indices.setdefault(key, len(choice.indices))}
            for called in delta.get("tool_calls") or ()
            if choice.is_passed(key := called.get("index", 0))
        ]
        if not choice.denied:
            return part
        shown = {"index": part.get("index", 0), "logprobs": None}
        if "text" in part:
            shown["text"] = kept
        else:
            changed = {key: delta[key] for key in _KEPT if delta.get(key) is not None}
            if kept:
                changed["content"] = kept
            if calls:
                changed["tool_calls"] = calls
            if delta.get(_LEGACY) and choice.is_passed(_LEGACY):
                changed[_LEGACY] = delta[_LEGACY]
            shown["delta"] = changed
        return shown | {"finish_reason": _finish(part, any(map(choice.is_passed, choice.calls)))}


def edit_chat(answer: Any, judge: CallJudge) -> bool:
    """Take denied calls out of a whole completion; whether there was any. Mutates."""
    is_changed = False
    for choice in answer.get("choices") or ():
        message = choice.get("message") or {}
        said = _text(choice.get("text")) + _text(message.get("content"))
        text = JudgedText(judge)
        text.feed(said)
        text.end()
        calls = [
            (each, _judged(_function(each), judge)) for each in message.get("tool_calls") or ()
        ]
        legacy = message.get(_LEGACY)
        verdict = _judged(legacy, judge) if legacy else None
        denied = [each for _, each in calls if not each.is_allowed]
        denied += [each for each in (text.verdict, verdict) if each and not each.is_allowed]
        if not denied:
            continue
        is_changed = True
        kept = text.kept(0, said)
        kept += said_instead(denied, before=kept)
        passed = [each for each, found in calls if found.is_allowed]
        has_legacy = verdict is not None and verdict.is_allowed
        _rewrite(choice, kept, passed, legacy if has_legacy else None, denied)
    return is_changed


def _rewrite(
    choice: dict[str, Any], said: str, calls: list[Any], legacy: Any, denied: list[Verdict]
) -> None:
    """Write a choice anew: with this text, and only these calls."""
    index, finish = choice.get("index", 0), _finish(choice, bool(calls or legacy))
    message = choice.get("message")
    choice_of = {"index": index, "logprobs": None, "finish_reason": finish}
    if message is None:
        choice_of["text"] = said
    else:
        changed = {key: message[key] for key in _KEPT if key in message}
        changed |= {"content": said, "tool_calls": calls} if calls else {"content": said}
        if refusal := _refusal(denied):
            changed["refusal"] = refusal
        if legacy:
            changed[_LEGACY] = legacy
        choice_of["message"] = changed
    choice.clear()
    choice.update(choice_of)


def _told(value: dict[str, Any], index: object, choice: _Choice) -> dict[str, Any]:
    """A chunk that says what is denied."""
    choice.is_told = True
    denied = choice.denied
    text = said_instead(denied, before="x" if choice.text.cut_from or choice.num_passed else "")
    part: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": None}
    if value.get("object") == "text_completion":
        part["text"] = text
    else:
        part["delta"] = {"content": text}
        if refusal := _refusal(denied):
            part["delta"]["refusal"] = refusal
    return {key: each for key, each in value.items() if key != "usage"} | {"choices": [part]}


def _refusal(denied: list[Verdict]) -> str:
    return said_instead([each for each in denied if each.action == "deny"])


def _finish(choice: dict[str, Any], has_calls: bool) -> Any:
    reason = choice.get("finish_reason")
    return "stop" if reason in _CALLED and not has_calls else reason


def _function(called: dict[str, Any]) -> dict[str, Any]:
    """Name and arguments of a call, or of a part of one."""
    found = called.get("function") or called.get("custom") or {}
    return {"name": found.get("name"), "arguments": found.get("arguments") or found.get("input")}


def _judged(function: dict[str, Any], judge: CallJudge) -> Verdict:
    return judge.judge(_text(function.get("name")), _text(function.get("arguments")))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise UnreadableAnswerError("a text is no string")
