"""A session's system prompt as it was first sent, and what changed in it since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

from holdfast.core.volatile_text import VolatileKind, volatile_lines, without
from holdfast.policies.ours.message_text import is_users, texts_of, with_text_before
from holdfast.policies.ours.prompt_view import PromptView, decoded

__all__ = ["HeadState", "head_of", "keep_head"]

_OPENING: Final = "<system-reminder>\nThese lines of the system prompt have changed:\n"
_CLOSING: Final = "\n</system-reminder>"
_OPENING_JSON: Final = msgspec.json.encode(_OPENING)[1:-1]
_MAX_LINE_CHARS: Final = 1 << 13


class Update(NamedTuple):
    """Changed lines that a message of the user tells.

    Attributes:
        message: Its index.
        said: Digest of the message without them.
        text: What it tells.
    """

    message: int
    said: bytes
    text: str


@dataclass(frozen=True, slots=True)
class HeadState:
    """A session's system prompt as it was sent, and what was told since.

    Attributes:
        skeleton: Digest of what does not change by itself.
        lines: The lines that do, as they were first sent.
        updates: What was told later, in order.
        num_messages: Messages sent so far (count).
    """

    skeleton: bytes
    lines: tuple[str, ...]
    updates: tuple[Update, ...]
    num_messages: int


def head_of(view: PromptView, kinds: Sequence[VolatileKind]) -> HeadState | None:
    """The state after a prompt was sent; None without lines that change. Pure."""
    skeleton, lines = _split(view, kinds)
    if not lines or sum(map(len, lines)) > _MAX_LINE_CHARS:
        return None
    updates = []
    for index, text in enumerate(view.messages):
        if _OPENING_JSON in text:
            message = decoded(text)
            told = _told_by(message)
            if told is not None:
                updates.append(Update(index, _said(message), told))
    return HeadState(skeleton, lines, tuple(updates), len(view.messages))


def keep_head(view: PromptView, kinds: Sequence[VolatileKind], state: HeadState) -> None:
    """Keep the system prompt as first sent, and tell what changed. Mutates the view.

    Nothing is kept where something else in the system prompt, or a message that told a change, is
    no longer as it was: the session then begins anew.
    """
    skeleton, lines = _split(view, kinds)
    if skeleton != state.skeleton or len(lines) != len(state.lines):
        return
    messages = list(view.messages)
    if any(_OPENING_JSON in text and _told_by(decoded(text)) for text in messages):
        return  # it is kept already
    updates = [*state.updates, *_new_update(messages, lines, state)]
    for update in updates:
        message = decoded(messages[update.message]) if update.message < len(messages) else None
        if not is_users(message) or _said(message) != update.said:
            return
        messages[update.message] = msgspec.json.encode(with_text_before(message, update.text))
    view.put_messages(messages)
    kept = iter(state.lines)
    view.map_head(lambda text: _joined(text, kinds, kept))


def _new_update(messages: Sequence[bytes], lines: Sequence[str], state: HeadState) -> list[Update]:
    """What has changed and is not told yet, with the message that can tell it."""
    changed = [now for first, now in zip(state.lines, lines, strict=True) if first != now]
    if not changed and state.updates:
        changed = list(lines)
    text = f"{_OPENING}{chr(10).join(changed)}{_CLOSING}"
    if not changed or (state.updates and state.updates[-1].text == text):
        return []
    for index in range(len(messages) - 1, state.num_messages - 1, -1):
        message = decoded(messages[index])
        if is_users(message) and texts_of(message) is not None:
            return [Update(index, _said(message), text)]
    return []


def _split(view: PromptView, kinds: Sequence[VolatileKind]) -> tuple[bytes, tuple[str, ...]]:
    """Digest of the system prompt without volatile lines, and these."""
    hasher = sha256()
    lines: list[str] = []

    def look(text: str) -> str:
        end = 0
        for start, stop in volatile_lines(text, *kinds):
            lines.append(text[start:stop])
            fixed = text[end:start] + without(lines[-1], *kinds)
            hasher.update(fixed.encode("utf-8", "surrogatepass") + b"\x00")
            end = stop
        hasher.update(text[end:].encode("utf-8", "surrogatepass") + b"\x01")
        return text

    view.map_head(look)
    return hasher.digest(), tuple(lines)


def _joined(text: str, kinds: Sequence[VolatileKind], lines: Any) -> str:
    """A text with the next of some lines in place of its own volatile ones."""
    parts: list[str] = []
    end = 0
    for start, stop in volatile_lines(text, *kinds):
        parts += [text[end:start], next(lines)]
        end = stop
    return "".join([*parts, text[end:]])


def _told_by(message: Any) -> str | None:
    """What a message tells of changed lines; None if it tells nothing."""
    texts = texts_of(message) if is_users(message) else None
    if not texts or not texts[0].startswith(_OPENING):
        return None
    end = texts[0].find(_CLOSING)
    return None if end < 0 else texts[0][: end + len(_CLOSING)]


def _said(message: Any) -> bytes:
    """Digest of a message's texts, without what it tells of changed lines."""
    texts = texts_of(message) or []
    told = _told_by(message)
    if told is not None:
        first = texts[0].removeprefix(told).removeprefix("\n\n")
        texts = [first, *texts[1:]] if first else texts[1:]
    return sha256("\x00".join(texts).encode("utf-8", "surrogatepass")).digest()
