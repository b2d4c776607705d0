"""Prompts as sequences of hashed messages, and the blocks that prompts share.

Independent of trace formats: a message is a digest and a length in bytes, with its text only on
request.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import msgspec

from holdfast.traces.record import MessageText
from holdfast.traces.rendering import rendered

__all__ = [
    "BLOCK_TOKENS",
    "EMPTY_HISTORY",
    "History",
    "Message",
    "Placement",
    "PromptLayout",
    "bytes_of_tokens",
    "estimated_tokens",
]

BLOCK_TOKENS: Final = 64
# Common rule of thumb for English and code. It matters only where a recording has no usage, and for
# the boundary between messages within a recorded length.
_BYTES_PER_TOKEN = 4
# About the tokens that providers charge for a large image, independent of its encoding.
_MEDIA_BYTES = 1_500 * _BYTES_PER_TOKEN


def estimated_tokens(num_bytes: int) -> int:
    """Estimate the length in tokens of `num_bytes` of UTF-8 text; pure."""
    return -(-num_bytes // _BYTES_PER_TOKEN)


def bytes_of_tokens(num_tokens: int) -> int:
    """Return the length in bytes whose estimate is `num_tokens`; pure."""
    return num_tokens * _BYTES_PER_TOKEN


def _digest(*parts: bytes) -> int:
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        hashed.update(len(part).to_bytes(8))
        hashed.update(part)
    return int.from_bytes(hashed.digest())


def _seen(written: bytes) -> bytes:
    """Content as a model sees it: a text unchanged, other content as JSON."""
    try:
        content = rendered(msgspec.json.decode(written))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return written
    return content.encode() if isinstance(content, str) else msgspec.json.encode(content)


@dataclass(frozen=True, slots=True)
class Message:
    """A fingerprint of a message or of a part of one.

    Attributes:
        digest: Equal for equal role and content.
        num_bytes: Length of the content.
        text: The recorded text; None unless requested, or where only its length is recorded.
    """

    digest: int
    num_bytes: int
    text: MessageText | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls, role: str, content: object, *, is_media: bool = False, keeps_text: bool = False
    ) -> Message:
        """Return the fingerprint of JSON-serialisable `content`; pure.

        Contents that a model sees as equal have equal fingerprints. All media have the same length,
        independent of their encoding, and their encoding is never kept.
        """
        written = msgspec.json.encode(content)
        text = None
        if keeps_text:
            text = MessageText(role, "" if is_media else written.decode(errors="replace"))
        seen = written if is_media else _seen(written)
        num_bytes = _MEDIA_BYTES if is_media else len(seen)
        return cls(_digest(role.encode(), seen), num_bytes, text)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class History:
    """Messages in prompt order; cheap to extend, since histories share their past.

    Attributes:
        digest: Equal for equal messages in equal order.
        last: The latest message; None for the empty history.
        before: The history before `last`.
        num_estimated_tokens: Length of all messages, estimated from their bytes.
    """

    digest: int = 0
    last: Message | None = None
    before: History | None = None
    num_estimated_tokens: int = 0

    def then(self, *messages: Message) -> History:
        """Return this history extended by `messages`; pure."""
        history = self
        for message in messages:
            digest = _digest(history.digest.to_bytes(8), message.digest.to_bytes(8))
            num_tokens = history.num_estimated_tokens + estimated_tokens(message.num_bytes)
            history = History(digest, message, history, num_tokens)
        return history

    def messages(self) -> list[Message]:
        """List the messages, oldest first; pure, O(number of messages)."""
        found: list[Message] = []
        history: History | None = self
        while history is not None and history.last is not None:
            found.append(history.last)
            history = history.before
        found.reverse()
        return found


EMPTY_HISTORY: Final = History()


@dataclass(frozen=True, slots=True)
class Placement:
    """A prompt cut into blocks.

    Attributes:
        num_tokens: Its length, >= 1.
        block_hashes: One for each full block; equal hashes after equal ones mean equal content.
    """

    num_tokens: int
    block_hashes: list[int]


# A message, and the digest of the history that ends with it.
_Step = tuple[int, Message]


@dataclass(frozen=True, slots=True)
class _Head:
    """The unrecorded start of every prompt: system message and tools."""

    num_shared_tokens: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class _Placed:
    """A message with all before it, and its end position in prompts."""

    digest: int
    message: Message
    end_tokens: int
    identity: int


class PromptLayout:
    """Gives each message of a session's prompts a fixed position.

    A message gets its position when it is first seen: the recorded prompt length, less the known
    messages, is divided among the new ones by their length in bytes. The position is the same in
    every later prompt that begins with the same messages.
    """

    def __init__(self, session_id: str, origin_id: str | None = None) -> None:
        self._session = session_id.encode()
        # A fork's prompts begin with the head of the session that it was forked from.
        self._head_owner = self._session if origin_id is None else origin_id.encode()
        self._heads = {"": _Head(0, 0)}
        self._placed: dict[tuple[str, int], _Placed] = {}
        self._num_unexplained = 0
        # The latest prompt: its head's name, its messages, their depths, and its blocks.
        self._name = ""
        self._path: list[_Placed] = []
        self._depths: dict[int, int] = {}
        self._hashes: list[int] = []

    def place(
        self,
        history: History,
        *,
        head: str,
        is_whole: bool,
        prompt_tokens: int | None,
        cached_tokens: int,
    ) -> Placement:
        """Cut a prompt into blocks; remembers the positions of its messages.

        A prompt shorter than the messages it repeats has lost some of their content. It then shares
        only the tokens that the provider read from its cache, or as many as fit where those are
        unknown; the other messages get new positions.

        Args:
            history: The recorded messages of the prompt.
            head: Name of the unrecorded start of the prompt. Prompts of a session with equal names
                share it whole; prompts of other sessions share the tokens that the provider read
                from its cache for the first prompt. Prompts of different names share nothing.
            is_whole: Whether the recording has the whole prompt, so that the head is empty.
            prompt_tokens: Recorded length, >= 1; None to estimate it.
            cached_tokens: Tokens that the provider read from its cache; 0 where unknown.
        """
        if head not in self._heads:
            unseen = max(0, (prompt_tokens or 0) - history.num_estimated_tokens)
            unseen = 0 if is_whole else unseen
            self._heads[head] = _Head(min(unseen, cached_tokens), unseen)
        if head != self._name:
            self._begin(head)
        new = self._pass_known(self._follow(history))
        if prompt_tokens is None:
            prompt_tokens = max(1, self._end_tokens + _estimated(new))
        elif self._end_tokens > prompt_tokens:
            self._num_unexplained += 1
            new = self._cut(min(prompt_tokens, cached_tokens or prompt_tokens)) + new
        self._add(new, prompt_tokens)
        return Placement(prompt_tokens, self._blocks(prompt_tokens))

    @property
    def _end_tokens(self) -> int:
        return self._path[-1].end_tokens if self._path else self._heads[self._name].num_tokens

    def _begin(self, name: str) -> None:
        head = self._heads[name]
        self._name = name
        self._path.clear()
        self._depths.clear()
        self._hashes.clear()
        self._extend(head.num_shared_tokens, _digest(name.encode()))
        self._extend(head.num_tokens, _digest(name.encode(), self._head_owner, b""))

    def _follow(self, history: History) -> list[_Step]:
        """Go back to the fork from the latest prompt; returns the messages after it."""
        new: list[_Step] = []
        node: History | None = history
        while node is not None and node.last is not None and node.digest not in self._depths:
            new.append((node.digest, node.last))
            node = node.before
        depth = -1 if node is None else self._depths.get(node.digest, -1)
        self._shorten(depth + 1)
        new.reverse()
        return new

    def _pass_known(self, steps: list[_Step]) -> list[_Step]:
        """Follow messages that an earlier prompt placed; returns the messages after them."""
        for position, (digest, _) in enumerate(steps):
            placed = self._placed.get((self._name, digest))
            if placed is None:
                return steps[position:]
            self._push(placed)
        return []

    def _cut(self, limit_tokens: int) -> list[_Step]:
        """Remove messages that end after the limit; returns them."""
        depth = len(self._path)
        while depth and self._path[depth - 1].end_tokens > limit_tokens:
            depth -= 1
        taken = [(placed.digest, placed.message) for placed in self._path[depth:]]
        self._shorten(depth)
        return taken

    def _shorten(self, depth: int) -> None:
        for placed in self._path[depth:]:
            del self._depths[placed.digest]
        del self._path[depth:]
        del self._hashes[self._end_tokens // BLOCK_TOKENS :]

    def _add(self, steps: list[_Step], num_tokens: int) -> None:
        start = self._end_tokens
        num_added_tokens = max(0, num_tokens - start)
        # One more byte for each, so that even an empty message can have tokens.
        num_bytes = sum(message.num_bytes + 1 for _, message in steps)
        passed = 0
        for digest, message in steps:
            passed += message.num_bytes + 1
            end = start + num_added_tokens * passed // num_bytes
            placed = _Placed(digest, message, end, self._identity(digest))
            self._placed[self._name, digest] = placed
            self._push(placed)

    def _push(self, placed: _Placed) -> None:
        self._depths[placed.digest] = len(self._path)
        self._path.append(placed)
        self._extend(placed.end_tokens, placed.identity)

    def _extend(self, end_tokens: int, identity: int) -> None:
        """Identify each new block by its last message; the interner adds its prefix."""
        self._hashes.extend([identity] * (end_tokens // BLOCK_TOKENS - len(self._hashes)))

    def _blocks(self, num_tokens: int) -> list[int]:
        num_blocks = num_tokens // BLOCK_TOKENS
        blocks = self._hashes[:num_blocks]
        if len(blocks) < num_blocks:
            # The prompt grew without a new message.
            last = self._path[-1].digest if self._path else 0
            rest = self._own_identity(last, num_tokens, len(self._placed))
            blocks.extend([rest] * (num_blocks - len(blocks)))
        return blocks

    def _identity(self, digest: int) -> int:
        if self._num_unexplained == 0:
            return _digest(self._name.encode(), digest.to_bytes(8))
        return self._own_identity(digest, self._num_unexplained)

    def _own_identity(self, *numbers: int) -> int:
        written = b"".join(number.to_bytes(8) for number in numbers)
        return _digest(self._name.encode(), self._session, written)


def _estimated(steps: list[_Step]) -> int:
    return sum(estimated_tokens(message.num_bytes) for _, message in steps)
