"""A request's prompt as a path of pieces, without a tokenizer.

Two requests share leading pieces where an engine with one chat template shares prefix blocks: tools
and system prompt first, then message by message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

from holdfast.core.client_identity import BODY_FIELDS, identify
from holdfast.core.json_nesting import nesting_depth

__all__ = [
    "Piece",
    "RequestBody",
    "nests_deeper",
    "prompt_path",
    "read_body",
    "stream_of",
    "with_salt",
]

_PIECE_BYTES: Final = 4096
_KEY_BYTES: Final = 16
_MARK: Final = "cache_control"
_MARK_BYTES: Final = _MARK.encode()


class Piece(NamedTuple):
    """A part of a prompt.

    Attributes:
        key: Hash of the prompt up to the piece's end.
        num_bytes: Its length (bytes).
    """

    key: bytes
    num_bytes: int


class RequestBody(msgspec.Struct):
    """The fields of a request that place it; all others pass unread.

    Attributes:
        model: Name of the model.
        stream: Whether the answer is streamed.
        previous_response_id: An answer that an engine remembers; OpenAI Responses.
        cache_salt: Isolates prefix caches.
        tools: Tool definitions.
        system: System prompt; Anthropic Messages.
        instructions: System prompt; OpenAI Responses.
        messages: Conversation; Chat and Messages.
        input: Conversation; Responses.
        prompt: Text or token ids; Completions.
        has_marks: Whether cache marks may be in it; set by `read_body`.
    """

    model: str = ""
    stream: bool = False
    previous_response_id: str | None = None
    cache_salt: str | None = None
    tools: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    messages: list[msgspec.Raw] = []
    input: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    has_marks: bool = False


_decode = msgspec.json.Decoder(RequestBody).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_body(body: bytes) -> RequestBody | None:
    """Read what places a request; None if the body has another shape. Pure.

    O(bytes). Such a body passes: the engine says what is wrong with it.
    """
    try:
        read = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    read.has_marks = _MARK_BYTES in body
    return read


def stream_of(headers: Mapping[str, str], body: bytes) -> str | None:
    """Return the id of a request's stream; None without one. Pure.

    Args:
        headers: By lower-case name.
        body: The request's body.
    """
    try:
        fields = _decode_fields(body) if body.startswith(b"{") else {}
        named = {n: msgspec.json.decode(fields[n]) for n in BODY_FIELDS if n in fields}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        named = {}
    return identify(headers, named).session_id


def nests_deeper(body: bytes, most: int) -> bool:
    """Whether objects and arrays are nested deeper than `most`. Pure; O(bytes).

    Looks at parts of it one by one, since a part with few brackets cannot nest deeply: counting
    them is several times faster than following them.
    """
    try:
        parts = _decode_fields(body).values()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return nesting_depth(body, enough=most) > most
    for part in parts:
        text = bytes(part)
        level = 1
        items: list[msgspec.Raw] | None = None
        if text.startswith(b"["):
            items = _decode_items(part)
            level = 2
        if level > most:
            return True
        for each in [text] if items is None else map(bytes, items):
            if nesting_depth(each, enough=most - level) > most - level:
                return True
    return False


def prompt_path(body: RequestBody, tenant: str) -> tuple[Piece, ...]:
    """Return a prompt's pieces; those of two tenants never match. Pure; O(bytes)."""
    unmarked: Callable[[msgspec.Raw], memoryview] = _unmarked if body.has_marks else memoryview
    hasher = sha256(repr((tenant, body.model, body.cache_salt)).encode())
    pieces = []
    for text in map(unmarked, _texts(body)):
        for start in range(0, len(text), _PIECE_BYTES):
            part = text[start : start + _PIECE_BYTES]
            hasher.update(part)
            pieces.append(Piece(hasher.digest()[:_KEY_BYTES], len(part)))
    return tuple(pieces)


def with_salt(body: bytes, tenant: str, salt: str | None) -> bytes:
    """Return a request with the tenant in its `cache_salt`. Pure.

    All else is unchanged.

    Args:
        body: A body that `read_body` reads.
        tenant: The tenant.
        salt: The client's own salt, kept within the tenant.
    """
    fields = _decode_fields(body)
    fields["cache_salt"] = msgspec.Raw(msgspec.json.encode(f"{tenant}/{salt or ''}"))
    return msgspec.json.encode(fields)


def _texts(body: RequestBody) -> Iterator[msgspec.Raw]:
    """Yield the parts of a prompt in the order in which chat templates render them."""
    for head in (body.tools, body.system, body.instructions):
        if head:
            yield head
    yield from body.messages
    if body.input:
        try:
            items = _decode_items(body.input)
        except msgspec.MsgspecError:  # one text
            items = [body.input]
        yield from items
    if body.prompt:
        yield body.prompt


def _unmarked(raw: msgspec.Raw) -> memoryview:
    """The text without cache marks, which clients move and no template renders."""
    if _MARK_BYTES not in bytes(raw):
        return memoryview(raw)
    try:
        return memoryview(msgspec.json.encode(_without_marks(msgspec.json.decode(raw))))
    except (msgspec.MsgspecError, RecursionError):
        return memoryview(raw)


def _without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_marks(each) for name, each in value.items() if name != _MARK}
    if isinstance(value, list):
        return [_without_marks(each) for each in value]
    return value
