"""A request's prompt in parts that may be replaced, each as JSON text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any, Final, Literal

import msgspec

from holdfast.core.request_body import RequestBody
from holdfast.policies.ours.message_text import TEXT_TYPES, is_from_system, shows_no_system

__all__ = ["PromptView", "decoded"]

_UNREADABLE: Final = (msgspec.MsgspecError, RecursionError)
_Field = Literal["tools", "system", "instructions", "messages", "input"]


class PromptView:
    """Parts of a prompt; all other fields of the body stay as they are.

    Args:
        body: The request.

    Attributes:
        tools: JSON texts of the tools.
    """

    def __init__(self, body: RequestBody) -> None:
        self._body = body
        self._changed: dict[str, bytes] = {}
        self._messages_field: _Field = "messages" if body.has("messages") else "input"
        self._messages: list[bytes] | None = None
        self.tools = self._array("tools")

    @property
    def messages(self) -> list[bytes]:
        """JSON texts of the messages."""
        if self._messages is None:
            self._messages = self._array(self._messages_field)
        return self._messages

    def texts(self) -> Sequence[bytes | msgspec.Raw]:
        """JSON texts of the messages, without copies of all where none is replaced. Pure."""
        if self._messages is None and self._body.is_array(self._messages_field):
            return self._body.items(self._messages_field)
        return self.messages

    def put_tools(self, tools: list[bytes]) -> None:
        """Replace the tools. Mutates."""
        if tools != self.tools:
            self.tools = tools
            self._changed["tools"] = b"[%s]" % b",".join(tools)

    def put_messages(self, messages: list[bytes]) -> None:
        """Replace the messages. Mutates."""
        if messages != self.messages:
            self._messages = messages
            self._changed[self._messages_field] = b"[%s]" % b",".join(messages)

    def map_head(self, change: Callable[[str], str | None]) -> None:
        """Replace each text of the system prompt, in order; None drops its block. Mutates.

        What would be left without any text stays as it is.
        """
        for name in ("system", "instructions"):
            raw = self._changed.get(name) or self._body.raw(name)
            if raw:
                self._put(name, raw, change)
        changed = {}
        for index, value in enumerate(takewhile(is_from_system, self._values())):
            content = _mapped(value.get("content"), change)
            if content not in (None, [], "", value.get("content")):
                changed[index] = msgspec.json.encode({**value, "content": content})
        if changed:
            texts = self.messages
            self.put_messages([changed.get(index, text) for index, text in enumerate(texts)])

    def text(self) -> bytes | None:
        """The body with what was replaced; None if nothing was. Pure."""
        return self._body.with_raw(self._changed) if self._changed else None

    def _array(self, name: _Field) -> list[bytes]:
        is_array = self._body.is_array(name)
        return [bytes(item) for item in self._body.items(name)] if is_array else []

    def _values(self) -> Iterator[Any]:
        """Yield decoded messages, up to the first that shows another role."""
        for text in map(bytes, self.texts()):
            if shows_no_system(text):
                return
            yield decoded(text)

    def _put(self, name: str, raw: bytes, change: Callable[[str], str | None]) -> None:
        value = decoded(raw)
        mapped = _mapped(value, change)
        if mapped not in (None, [], "", value):
            self._changed[name] = msgspec.json.encode(mapped)


def decoded(text: bytes) -> Any:
    """A JSON text's value; None if it cannot be read. Pure."""
    try:
        return msgspec.json.decode(text)
    except _UNREADABLE:
        return None


def _mapped(value: Any, change: Callable[[str], str | None]) -> Any:
    """A text, or the texts of blocks, changed; None if it is to be dropped."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        mapped = [_mapped(each, change) for each in value]
        return [each for each in mapped if each is not None]
    is_text = isinstance(value, dict) and value.get("type") in TEXT_TYPES
    if is_text and isinstance(value.get("text"), str):
        text = change(value["text"])
        return None if text is None else {**value, "text": text}
    return value
