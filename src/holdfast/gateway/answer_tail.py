"""What the end of an answer says: its length, and what ended the turn."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from holdfast.tool_calls.turn_end import ToolCall, TurnEnd, turn_end_of

__all__ = ["KEPT_BYTES", "AnswerTail", "has_first_token", "is_whole", "read_tail"]

KEPT_BYTES: Final = 4096
"""Of an answer's end: enough for its usage, and for what ended it."""

_PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,9})')
_OUTPUT_TOKENS = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,9})')
_ENDED = re.compile(rb'"(?:finish_reason|stop_reason)"\s*:\s*"(\w{1,32})"')
_NAME = re.compile(rb'"name"\s*:\s*"([\w.-]{1,128})"')
_CALLED: Final = frozenset({b"tool_calls", b"tool_use", b"function_call"})
_ANSWERED: Final = frozenset({b"stop", b"end_turn"})
_RESPONSES_CALL: Final = b'"function_call"'
_RESPONSES_DONE: Final = b'"response.completed"'
_LAST_EVENT = re.compile(
    rb"(?:^|\n)data: ?(?:\[DONE\]|[^\n]*"
    rb'"type"\s*:\s*"(?:message_stop|response\.(?:completed|incomplete|failed))"[^\n]*)\r?\n\r?\n\Z'
)
_GENERATED: Final = (b".delta", b".output_item.", b"response.completed")


class AnswerTail(NamedTuple):
    """What is known about a complete answer.

    Attributes:
        prompt_tokens: Length of the prompt; None if it does not say.
        output_tokens: Length of the answer; None if it does not say.
        end: What ended the turn; None if unknown.
    """

    prompt_tokens: int | None
    output_tokens: int | None
    end: TurnEnd | None


def read_tail(tail: bytes) -> AnswerTail:
    """Read the end of an answer of any API, streamed or not. Pure.

    Clients choose what answers contain, so a wrong figure costs placement or order, nothing else.
    """
    return AnswerTail(
        _last_number(_PROMPT_TOKENS, tail), _last_number(_OUTPUT_TOKENS, tail), _end_of(tail)
    )


def has_first_token(chunk: bytes) -> bool:
    """Whether an event of a stream comes after the prompt was computed. Pure.

    A Responses stream begins with events that say only that the request has arrived.
    """
    is_early = b"response.created" in chunk or b"response.in_progress" in chunk
    return not is_early or any(mark in chunk for mark in _GENERATED)


def is_whole(tail: bytes) -> bool:
    """Whether the end of a stream has its API's last event. Pure."""
    return _LAST_EVENT.search(tail) is not None


def _end_of(tail: bytes) -> TurnEnd | None:
    reasons = _ENDED.findall(tail)
    is_call = reasons and reasons[-1] in _CALLED
    if is_call or (_RESPONSES_DONE in tail and _RESPONSES_CALL in tail):
        names = _NAME.findall(tail)
        return turn_end_of((ToolCall(names[-1].decode()),)) if names else TurnEnd("tool")
    if reasons and reasons[-1] in _ANSWERED:
        return TurnEnd("human")
    return None


def _last_number(pattern: re.Pattern[bytes], tail: bytes) -> int | None:
    found = pattern.findall(tail)
    return int(found[-1]) if found else None
