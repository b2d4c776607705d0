"""Prompts made of hashed messages, and the blocks that they share.

Knows no format: a message is its digest and its length in bytes, and its text only where it is
asked for.
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
# Common rule of thumb for English and code; matters only where no usage is recorded, and for where
# inside a recorded length one message ends and the next begins.
_BYTES_PER_TOKEN = 4
# About what providers charge for a large image, whatever its encoding takes.
_MEDIA_BYTES = 1_500 * _BYTES_PER_TOKEN


def estimated_tokens(num_bytes: int) -> int:
    """Estimate the length in tokens of a UTF-8 text of so many bytes; pure."""
    return -(-num_bytes // _BYTES_PER_TOKEN)


def bytes_of_tokens(num_tokens: int) -> int:
    """Return the length in bytes that is estimated as so many tokens; pure."""
    return num_tokens * _BYTES_PER_TOKEN


def _digest(*parts: bytes) -> int:
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        hashed.update(len(part).to_bytes(8))
        hashed.update(part)
    return int.from_bytes(hashed.digest())


def _seen(written: bytes) -> bytes:
    """What a model sees of content: a text as it is, other content as JSON."""
    try:
        content = rendered(msgspec.json.decode(written))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return written
    return content.encode() if isinstance(content, str) else msgspec.json.encode(content)


@dataclass(frozen=True, slots=True)
class Message:
    """A message, or a part of one, of which a fingerprint is kept.

    Attributes:
        digest: Equal for equal role and content.
        num_bytes: Length of the content.
        text: What it says; None unless it was to be kept, or where only its length is recorded.
    """

    digest: int
    num_bytes: int
    text: MessageText | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls, role: str, content: object, *, is_media: bool = False, keeps_text: bool = False
    ) -> Message:
        """Take the fingerprint of `content`, anything that msgspec can write as JSON; pure.

        What reads the same to a model has one fingerprint, and a text the length that it has. The
        length of media is one for all, since that of their encoding says nothing, and their
        encoding is never kept.
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
    """Messages in the order of a prompt; cheap to extend, as histories share their past.

    Attributes:
        digest: Equal for equal messages in equal order.
        last: The latest message; None at the empty beginning.
        before: The history that `last` was added to.
        num_estimated_tokens: Length of all messages, estimated from their bytes.
    """

    digest: int = 0
    last: Message | None = None
    before: History | None = None
    num_estimated_tokens: int = 0

    def then(self, *messages: Message) -> History:
        """Return the history that goes on with `messages`; pure."""
        history = self
        for message in messages:
            digest = _digest(history.digest.to_bytes(8), message.digest.to_bytes(8))
            num_tokens = history.num_estimated_tokens + estimated_tokens(message.num_bytes)
            history = History(digest, message, history, num_tokens)
        return history

    def messages(self) -> list[Message]:
        """List the messages, first one first; pure, O(their number)."""
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
        block_hashes: One for each full block; equal hashes behind equal ones mean equal content.
    """

    num_tokens: int
    block_hashes: list[int]


# A message, and the digest of the history that ends with it.
_Step = tuple[int, Message]


@dataclass(frozen=True, slots=True)
class _Head:
    """What every prompt begins with and nobody recorded: system message and tools."""

    num_shared_tokens: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class _Placed:
    """A message behind all those before it, and where in the prompts it ends."""

    digest: int
    message: Message
    end_tokens: int
    identity: int


class PromptLayout:
    """Remembers where in one session's prompts each message ends, so that they share blocks.

    A message is placed when it is first seen: what the recorded length of the prompt leaves for
    new messages is divided among them by their length in bytes. From then on it lies where it
    lies, in every prompt that begins with the same messages.
    """

    def __init__(self, session_id: str, origin_id: str | None = None) -> None:
        self._session = session_id.encode()
        # A fork's prompts begin with the head of the session that it was forked from.
        self._head_owner = self._session if origin_id is None else origin_id.encode()
        self._heads = {"": _Head(0, 0)}
        self._placed: dict[tuple[str, int], _Placed] = {}
        self._num_unexplained = 0
        # The latest prompt: its head's name, its messages, where each is, and its blocks.
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
        """Cut a prompt into blocks; remembers where its messages ended up.

        A prompt that is shorter than messages it repeats has lost something in their midst. Then
        it shares only what the provider read from its cache, or where that is not known what it
        has room for, and the rest is placed anew.

        Args:
            history: The recorded messages of the prompt.
            head: Names what stands unrecorded in front of them; prompts of equal names begin
                alike, in other sessions as far as the provider read it from its cache for the
                first prompt. Prompts of different names share nothing.
            is_whole: Whether nothing stands in front of the messages.
            prompt_tokens: Recorded length, >= 1; None to estimate it.
            cached_tokens: What the provider read from its cache; 0 where that is not known.
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
        """Go back to where a prompt left the latest one; returns the messages behind that."""
        behind: list[_Step] = []
        node: History | None = history
        while node is not None and node.last is not None and node.digest not in self._depths:
            behind.append((node.digest, node.last))
            node = node.before
        depth = -1 if node is None else self._depths.get(node.digest, -1)
        self._shorten(depth + 1)
        behind.reverse()
        return behind

    def _pass_known(self, steps: list[_Step]) -> list[_Step]:
        """Follow messages that an earlier prompt has placed; returns those behind them."""
        for position, (digest, _) in enumerate(steps):
            placed = self._placed.get((self._name, digest))
            if placed is None:
                return steps[position:]
            self._push(placed)
        return []

    def _cut(self, limit_tokens: int) -> list[_Step]:
        """Take back messages that end behind the limit; returns them."""
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
        room = max(0, num_tokens - start)
        # One more for each, so that even an empty message can take what there is.
        num_bytes = sum(message.num_bytes + 1 for _, message in steps)
        passed = 0
        for digest, message in steps:
            passed += message.num_bytes + 1
            end = start + room * passed // num_bytes
            placed = _Placed(digest, message, end, self._identity(digest))
            self._placed[self._name, digest] = placed
            self._push(placed)

    def _push(self, placed: _Placed) -> None:
        self._depths[placed.digest] = len(self._path)
        self._path.append(placed)
        self._extend(placed.end_tokens, placed.identity)

    def _extend(self, end_tokens: int, identity: int) -> None:
        """A block is known by what it ends in, as the interner chains what lies before."""
        self._hashes.extend([identity] * (end_tokens // BLOCK_TOKENS - len(self._hashes)))

    def _blocks(self, num_tokens: int) -> list[int]:
        num_blocks = num_tokens // BLOCK_TOKENS
        blocks = self._hashes[:num_blocks]
        if len(blocks) < num_blocks:
            # The prompt is longer than it was, with no new message to show for it.
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
