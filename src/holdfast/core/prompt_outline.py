"""Outline of a prompt: fingerprints of its parts, from which a change can be told.

It has no text of the prompt, only hashes that are of use in this process.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple

import msgspec

from holdfast.core.request_body import RequestBody
from holdfast.core.steps import Steps, finished
from holdfast.core.volatile_text import VOLATILE, VolatileKind, without

__all__ = ["Masked", "Outliner", "PromptOutline", "Role"]

Role = Literal["t", "s", "u", "r", "a"]
"""What a part is: a tool, text of the system, of a user, a tool's result, an answer."""

Masked = Literal["all", "form", "reasoning", "billing", "git", "date", "id", "reminder"]
"""What a fingerprint leaves out; `form` is white space and the order of keys, `all` everything."""

_MASKED: Final[tuple[Masked, ...]] = (
    *("all", "form", "reasoning", "billing", "git", "date", "id", "reminder"),
)
_CHUNK_BYTES: Final = 1024
_MAX_MASKED_BYTES: Final = 1 << 16
_MAX_PARTS: Final = 8192
_PART_BYTES: Final = 400  # of memory
_MARK: Final = "cache_control"
_MARK_BYTES: Final = _MARK.encode()
_ROLES: Final[dict[str, Role]] = {
    "system": "s",
    "developer": "s",
    "user": "u",
    "assistant": "a",
    "reasoning": "a",
    "function_call": "a",
    "tool": "r",
    "function_call_output": "r",
}
_ID_KEYS: Final = frozenset({"id", "call_id", "tool_call_id", "tool_use_id"})
_REASONING_KEYS: Final = frozenset({"reasoning", "reasoning_content", "thinking"})
_REASONING_TYPES: Final = frozenset({"thinking", "redacted_thinking", "reasoning"})
_Where = Literal["tool", "system", "message"]
_ROLE_OF: Final[dict[_Where, Role]] = {"tool": "t", "system": "s", "message": "u"}


class _Part(NamedTuple):
    """Fingerprints of one part.

    Attributes:
        role: What it is.
        exact: Of its JSON, without cache marks and white space between values.
        num_bytes: Size of that (bytes).
        name: Of a tool's name; else 0.
        masked: In the order of `_MASKED`.
        chunks: Of its beginning, up to the end of each chunk.
    """

    role: Role
    exact: int
    num_bytes: int
    name: int
    masked: tuple[int, ...]
    chunks: array[int]


@dataclass(frozen=True, slots=True)
class PromptOutline:
    """One prompt.

    Attributes:
        model: Of the model's name.
        exact: Fingerprint of each part, in the order in which chat templates render them.
        ends_bytes: Size up to the end of each part (bytes).
        first_message: Parts before the first message (count): tools, and the system's fields.
        parts: All that is known of each part; most are shared with other prompts.
        keys: Fingerprint of each part's text as it was sent.
    """

    model: int
    exact: array[int]
    ends_bytes: array[int]
    first_message: int
    parts: Sequence[_Part]
    keys: array[int]

    @property
    def roles(self) -> str:
        """A letter for each part; see `Role`. Pure; O(parts)."""
        return "".join(part.role for part in self.parts)

    @property
    def num_bytes(self) -> int:
        """Size of the prompt as JSON (bytes). Pure."""
        return self.ends_bytes[-1] if self.ends_bytes else 0

    @property
    def memory_bytes(self) -> int:
        """Memory that it takes, about and at most (bytes). Pure."""
        return len(self.exact) * _PART_BYTES + self.num_bytes // _CHUNK_BYTES * 8

    def num_shared(self, other: PromptOutline) -> int:
        """Leading parts that both have (count). Pure."""
        ours, theirs = self.exact, other.exact
        most = min(len(ours), len(theirs))
        if ours[:most] == theirs[:most]:
            return most
        return next(i for i in range(most) if ours[i] != theirs[i])

    def shared_bytes(self, other: PromptOutline) -> int:
        """Leading bytes that both have, by whole chunks of the part that differs. Pure."""
        num_parts = self.num_shared(other)
        num_bytes = self.ends_bytes[num_parts - 1] if num_parts else 0
        if num_parts < min(len(self.exact), len(other.exact)):
            ours, theirs = self.parts[num_parts].chunks, other.parts[num_parts].chunks
            pairs = zip(ours, theirs, strict=False)
            num_bytes += _CHUNK_BYTES * sum(one == another for one, another in pairs)
        return num_bytes

    def likeness(self, other: PromptOutline) -> float:
        """Share of the smaller prompt's bytes that is in the other as well (0 to 1). Pure.

        What changes by itself does not count, nor does the order of parts.
        """
        small, large = sorted((self, other), key=lambda each: each.num_bytes)
        known = {part.masked[0] for part in large.parts}
        chunks = {chunk for part in large.parts for chunk in part.chunks}
        shared = 0
        for part in small.parts:
            if part.masked[0] in known:
                shared += part.num_bytes
            else:
                shared += _CHUNK_BYTES * sum(chunk in chunks for chunk in part.chunks)
        return shared / max(small.num_bytes, 1)

    def differs_by(self, other: PromptOutline, ours: int, theirs: int, masked: Masked) -> bool:
        """Whether two parts are equal but for what a fingerprint leaves out. Pure."""
        index = _MASKED.index(masked)
        return self.parts[ours].masked[index] == other.parts[theirs].masked[index]


class Outliner:
    """Makes outlines; remembers the fingerprints of texts that sessions share.

    Args:
        lease_s: Texts not seen for longer, at most twice as long, are forgotten (s).
    """

    def __init__(self, lease_s: float = math.inf) -> None:
        self._parts: dict[int, _Part] = {}
        self._older: dict[int, _Part] = {}
        self._lease_s = lease_s
        self._began_s = -math.inf

    def __len__(self) -> int:
        """Texts remembered (count)."""
        return len(self._parts) + len(self._older)

    def outline(
        self, body: RequestBody, before: Sequence[PromptOutline] = (), now_s: float = 0.0
    ) -> PromptOutline:
        """The outline of a request's prompt. Mutates the memory only; O(body).

        Args:
            body: The request.
            before: The session's last outlines, most of whose parts come again.
            now_s: Time now (s, monotonic); of use with a lease only.
        """
        return finished(self.outlining(body, before, now_s))

    def outlining(
        self, body: RequestBody, before: Sequence[PromptOutline] = (), now_s: float = 0.0
    ) -> Steps[PromptOutline]:
        """Do the same in steps of a part at most; one at a time. Mutates likewise."""
        if now_s - self._began_s > self._lease_s:
            self._parts, self._older, self._began_s = {}, self._parts, now_s
        has_marks = _MARK_BYTES in body.text
        known = {
            key: part for each in before for key, part in zip(each.keys, each.parts, strict=True)
        }
        keys = array("q")
        parts: list[_Part] = []
        first_message = 0
        for where, raw in _texts_of(body):
            first_message += where != "message"
            text = bytes(raw)
            key = hash((where, has_marks, text))
            part = known.get(key) or self._parts.get(key)
            if part is None:
                part = self._older.pop(key, None)
                if part is None:
                    part = yield from _part_of(where, text, has_marks=has_marks)
                self._remember(key, part)
            parts.append(part)
            keys.append(key)
            yield
        ends = array("q", accumulate([part.num_bytes for part in parts]))
        exact = array("q", [part.exact for part in parts])
        return PromptOutline(hash(body.raw("model")), exact, ends, first_message, parts, keys)

    def _remember(self, key: int, part: _Part) -> None:
        """Remember a part in place of the oldest one; popular ones are soon back. Mutates."""
        self._parts[key] = part
        if len(self._parts) > _MAX_PARTS:
            del self._parts[next(iter(self._parts))]


def _texts_of(body: RequestBody) -> Iterator[tuple[_Where, msgspec.Raw]]:
    """Yield the JSON texts of a prompt's parts, in the order of chat templates."""
    for raw in body.items("tools"):
        yield "tool", raw
    for name in ("system", "instructions"):
        for raw in body.items(name):
            yield "system", raw
    for name in ("messages", "input"):
        for raw in body.items(name):
            yield "message", raw


def _part_of(where: _Where, text: bytes, *, has_marks: bool) -> Steps[_Part]:
    """The fingerprints of a JSON text; of one that cannot be read, those of its bytes."""
    try:
        value = msgspec.json.decode(text)
        return (yield from _part_of_value(where, value, has_marks=has_marks))
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        exact = hash(text)
        role: Role = _ROLE_OF[where]
        return _Part(role, exact, len(text), 0, (exact,) * len(_MASKED), _chunks(text))


def _part_of_value(where: _Where, value: Any, *, has_marks: bool) -> Steps[_Part]:
    if isinstance(value, dict) and has_marks:
        value = _unmarked(value)
    role = _ROLE_OF[where]
    if isinstance(value, dict) and where == "message":
        role = _role_of(value)
    text = msgspec.json.encode(value)
    exact = hash(text)
    masked = (exact,) * len(_MASKED)
    if len(text) <= _MAX_MASKED_BYTES:
        masked = yield from _masked(role, value)
    name = _name_of(value) if role == "t" else 0
    return _Part(role, exact, len(text), name, masked, _chunks(text))


def _role_of(message: dict[str, Any]) -> Role:
    for named in (message.get("role"), message.get("type")):
        role = _ROLES.get(named) if isinstance(named, str) else None
        if role is not None:
            break
    else:
        role = "u"
    content = message.get("content")
    if role == "u" and isinstance(content, list):
        types = {each.get("type") for each in content if isinstance(each, dict)}
        return "r" if "tool_result" in types else "u"
    return role


def _unmarked(value: dict[str, Any]) -> dict[str, Any]:
    """A value without cache marks, and a single text block as its text."""
    bare: dict[str, Any] = _dropped(value, frozenset({_MARK}))
    match bare:
        case {"content": [{"type": "text", "text": str(said), **others}]} if not others:
            bare["content"] = said
    return bare


def _chunks(text: bytes) -> array[int]:
    """Fingerprints of a text up to each chunk's end, in one pass."""
    found = array("q")
    last = 0
    for start in range(0, len(text) - _CHUNK_BYTES + 1, _CHUNK_BYTES):
        last = hash((last, text[start : start + _CHUNK_BYTES]))
        found.append(last)
    return found


def _name_of(value: Any) -> int:
    """Fingerprint of a tool's name; 0 without one."""
    if isinstance(value, dict):
        function = value.get("function")
        named = function if isinstance(function, dict) else value
        return hash(repr(named.get("name") or value.get("type")))
    return 0


def _masked(role: Role, value: Any) -> Steps[tuple[int, ...]]:
    """Fingerprints in the order of `_MASKED`; a step takes one kind out of one text."""
    kinds: tuple[VolatileKind, ...] = () if role in "ar" else tuple(VOLATILE)
    whole = _texts(value)
    base = _hash(whole)
    found: dict[Masked, int] = {}
    for kind in kinds:
        kept = []
        for text in whole:
            kept.append(without(text, kind))
            yield
        found[kind] = base if kept == whole else _hash(kept)
    changing = [kind for kind in kinds if found[kind] != base]
    bare = value
    if role in "ar":
        bare = _dropped(value, _ID_KEYS)
        found["id"] = _hash(_texts(bare))
        bare = _thoughtless(bare)
        found["reasoning"] = _hash(_texts(_thoughtless(value))) if role == "a" else base
    found["form"] = found["all"] = _hash(map(_squeezed, _texts(value, order=True)))
    if changing or bare != value:
        spare = []
        for text in _texts(bare, order=True):
            for kind in changing:
                text = without(text, kind)
                yield
            spare.append(_squeezed(text))
        found["all"] = _hash(spare)
    return tuple(found.get(name, base) for name in _MASKED)


def _squeezed(text: str) -> str:
    """A text without white space, also where it is in JSON."""
    return "".join(text.replace("\\n", " ").split())


def _hash(texts: Iterable[str]) -> int:
    return hash(tuple(text.strip() for text in texts if text.strip()))


def _texts(value: Any, *, order: bool = False) -> list[str]:
    """The texts that a part shows, and all else of it as JSON text.

    Args:
        value: The decoded part.
        order: Whether keys are to be sorted.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        content = value.get("content", value.get("text"))
        if isinstance(content, str | list) and value.get("type") != "tool_result":
            others = {key: value[key] for key in value if key not in ("content", "text", "type")}
            shown = [content] if isinstance(content, str) else content
            return [text for each in shown for text in _texts(each, order=order)] + (
                [_json(others, order=order)] if others else []
            )
    return [_json(value, order=order)]


def _json(value: Any, *, order: bool) -> str:
    return msgspec.json.encode(value, order="sorted" if order else None).decode()


def _thoughtless(value: Any) -> Any:
    """An answer without its reasoning."""
    if not isinstance(value, dict):
        return value
    if value.get("type") in _REASONING_TYPES:
        return {}
    kept = {key: each for key, each in value.items() if key not in _REASONING_KEYS}
    if isinstance(kept.get("content"), list):
        kept["content"] = [each for each in map(_thoughtless, kept["content"]) if each != {}]
    return kept


def _dropped(value: Any, names: frozenset[str]) -> Any:
    """A value without the keys of some names, at any depth."""
    if isinstance(value, dict):
        return {key: _dropped(each, names) for key, each in value.items() if key not in names}
    if isinstance(value, list):
        return [_dropped(each, names) for each in value]
    return value
