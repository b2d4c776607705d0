"""A request's prompt as a path of pieces, without a tokenizer.

Two requests share leading pieces where an engine with one chat template shares prefix blocks: tools
and system prompt first, then message by message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Self

import msgspec
from xxhash import xxh3_128

from holdfast.core.client_identity import BODY_FIELDS, identify
from holdfast.core.identity import Identity
from holdfast.core.json_nesting import nesting_depth
from holdfast.core.request_body import RequestBody

__all__ = [
    *("NO_PROMPT", "PromptPath", "identity_of", "nests_deeper", "place_of"),
    *("prompt_path", "with_salt"),
]

_PIECE_BYTES: Final = 4096
_OWNER_BYTES: Final = 8
_SALT_CHARACTERS: Final = 32
_HEAD: Final = ("tools", "system", "instructions")
_FOLLOWED_LEVELS: Final = 4  # each costs a pass over the text
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_MARK: Final = "cache_control"
_MARK_BYTES: Final = b'"%s"' % _MARK.encode()
_BLOCK: Final = re.compile(rb'[^\[]{0,60}"content"\s*:\s*\[\s*\{\s*"type"\s*:\s*"text"')


@dataclass(frozen=True, slots=True)
class PromptPath:
    """A prompt in pieces, of which hundreds of requests have hundreds each.

    Attributes:
        keys: For each piece the hash of the prompt up to its end.
        ends: For each piece its end (bytes from the prompt's beginning, ascending).
    """

    keys: tuple[bytes, ...] = ()
    ends: tuple[int, ...] = ()

    @classmethod
    def of(cls, keys: Iterable[bytes], num_bytes: int) -> Self:
        """A path of pieces of equal length (bytes, > 0)."""
        found = tuple(keys)
        return cls(found, tuple(range(num_bytes, (len(found) + 1) * num_bytes, num_bytes)))

    def __len__(self) -> int:
        """Number of pieces."""
        return len(self.keys)

    @property
    def num_bytes(self) -> int:
        """Length of the prompt (bytes)."""
        return self.ends[-1] if self.ends else 0

    @property
    def leaf(self) -> bytes:
        """Hash of the whole prompt; empty where there is none."""
        return self.keys[-1] if self.keys else b""


NO_PROMPT: Final = PromptPath()
"""The path of a request that computes none."""


def identity_of(headers: Mapping[str, str], body: RequestBody | None, tenant: str) -> Identity:
    """Return who sends a request, as far as it says. Pure.

    Args:
        headers: By lower-case name.
        body: The request's body; None if it is no JSON object.
        tenant: Whose key it has.
    """
    found = identify(headers, {} if body is None else body.values(BODY_FIELDS))
    return Identity(
        found.session_id,
        found.parent_session_id,
        found.agent_id,
        found.workflow_id,
        client=found.client,
        tenant=tenant,
    )


def place_of(body: RequestBody, tenant: str) -> tuple[PromptPath, str | None, bytes]:
    """Return what places a request: its path, an earlier answer, and its text. Pure.

    The id is of the answer that it goes on from, or None. The text has the tenant's salt, if there
    is a tenant.
    """
    answer_id = body.value("previous_response_id")
    text = with_salt(body, tenant) if tenant else body.text
    return prompt_path(body, tenant), answer_id if isinstance(answer_id, str) else None, text


def nests_deeper(body: RequestBody, most: int) -> bool:
    """Whether objects and arrays are nested deeper than `most` (>= 1). Pure; O(bytes).

    Follows the first levels by their elements: most of a prompt is in strings, which are passed
    over, and the brackets of the code in them need no counting.
    """
    for name, raw in body.fields.items():
        first = _first(raw)
        if first == b"[":
            if most < 2:
                return True
            for item in body.items(name):
                text = bytes(item)  # most messages have no second bracket
                has_more = text.find(b"[", 1) >= 0 or text.find(b"{", 1) >= 0
                if (has_more or most < 3) and _is_deeper(item, most - 2, 1):
                    return True
        elif first == b"{" and _is_deeper(raw, most - 1):
            return True
    return False


def _is_deeper(raw: msgspec.Raw, most: int, level: int = 0) -> bool:
    """Whether a value is nested deeper than `most` (>= 0)."""
    first = _first(raw)
    if first not in (b"[", b"{"):
        return False
    text = bytes(raw)
    if most and text.find(b"[", 1) < 0 and text.find(b"{", 1) < 0:
        return False
    if most and level < _FOLLOWED_LEVELS:
        try:
            parts = _ITEMS(raw) if first == b"[" else _FIELDS(raw).values()
        except _UNREADABLE:
            parts = None
        if parts is not None:
            return any(_is_deeper(part, most - 1, level + 1) for part in parts)
    return nesting_depth(text, enough=most) > most


def _first(raw: msgspec.Raw) -> bytes:
    return bytes(memoryview(raw)[:1])


def prompt_path(body: RequestBody, tenant: str) -> PromptPath:
    """Return a prompt's path. Pure; O(bytes).

    A piece is a message, or 4096 bytes of one.

    XXH3 is quick and can be made to collide, but only with the same tenant's prompts: keys begin
    with a cryptographic hash of tenant, model and salt.
    """
    has_marks = _MARK_BYTES in body.text
    named = body.values(("model", "cache_salt"))
    owner = repr((tenant, named.get("model"), named.get("cache_salt"))).encode()
    owner_key = sha256(owner).digest()[:_OWNER_BYTES]
    hasher = xxh3_128(owner)
    update, digest = hasher.update, hasher.digest
    keys: list[bytes] = []
    ends: list[int] = []
    end = 0
    for raw in _texts(body):
        text = _unmarked(raw) if has_marks else memoryview(raw)
        num_bytes = len(text)
        if num_bytes <= _PIECE_BYTES:  # most messages; the loop below costs as much as the hash
            update(text)
            keys.append(owner_key + digest())
            end += num_bytes
            ends.append(end)
            continue
        for start in range(0, num_bytes, _PIECE_BYTES):
            part = text[start : start + _PIECE_BYTES]
            update(part)
            keys.append(owner_key + digest())
            end += len(part)
            ends.append(end)
    return PromptPath(tuple(keys), tuple(ends))


def with_salt(body: RequestBody, tenant: str) -> bytes:
    """Return a request with its tenant's `cache_salt`. Pure; all else is unchanged.

    A salt of its own stays apart from the tenant's others, by its hash: engines take few characters
    (vLLM 0.32 no slash, and 128 in all).
    """
    own = body.value("cache_salt")
    salt = tenant
    if isinstance(own, str) and own:
        text = own.encode("utf-8", "surrogatepass")
        salt = f"{tenant}:{sha256(text).hexdigest()[:_SALT_CHARACTERS]}"
    return body.with_field("cache_salt", salt)


def _texts(body: RequestBody) -> Iterator[msgspec.Raw]:
    """Yield the parts of a prompt in the order in which chat templates render them."""
    for name in _HEAD:
        if body.has(name):
            yield body.fields[name]
    for name in ("messages", "input"):
        yield from body.items(name)
    if body.has("prompt"):
        yield body.fields["prompt"]


def _unmarked(raw: msgspec.Raw) -> memoryview:
    """The text without cache marks, which clients move and no template renders.

    A client that marks a message may have to write its text as a block (pi does), which renders
    alike; so a single text block is read as its text.
    """
    text = bytes(raw)
    if _MARK_BYTES not in text and not _BLOCK.match(text):
        return memoryview(raw)
    try:
        value = _without_marks(msgspec.json.decode(raw))
    except (msgspec.MsgspecError, RecursionError):
        return memoryview(raw)
    match value:
        case {"content": [{"type": "text", "text": str(said), **others}]} if not others:
            value["content"] = said
    return memoryview(msgspec.json.encode(value))


def _without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_marks(each) for name, each in value.items() if name != _MARK}
    if isinstance(value, list):
        return [_without_marks(each) for each in value]
    return value
