"""The last prompts of sessions, as outlines, and what changed between two of them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

import msgspec

from holdfast.core.prompt_change import PromptChange, change_between
from holdfast.core.prompt_outline import Outliner, PromptOutline
from holdfast.core.request_body import RequestBody
from holdfast.core.steps import Steps, finished
from holdfast.core.volatile_text import without

__all__ = ["PromptHistory", "stream_of"]

_MAX_BYTES: Final = 64 << 20
_MAX_STREAMS: Final = 4  # of one id: beside the agent's own turns its titles and summaries
_LEAST_LIKENESS: Final = 0.5
_SCANNED_MESSAGES: Final = 16


class PromptHistory:
    """Remembers the last prompt of each session by its outline, without its text.

    A session that has not been seen for long is forgotten; its next prompt then counts as a first
    one. Prompts that have less than half in common belong to different streams, whatever their id.

    Args:
        max_bytes: Memory for outlines, about (bytes).
        lease_s: Sessions idle for longer are forgotten (s).
    """

    def __init__(self, max_bytes: int = _MAX_BYTES, lease_s: float = math.inf) -> None:
        self._outliner = Outliner(lease_s)
        self._streams: OrderedDict[Hashable, list[PromptOutline]] = OrderedDict()
        self._used_s: dict[Hashable, float] = {}
        self._lease_s = lease_s
        self._max_bytes = max_bytes
        self._num_bytes = 0

    def __len__(self) -> int:
        """Sessions remembered (count)."""
        return len(self._streams)

    def change(
        self, session: Hashable, body: RequestBody, now_s: float = 0.0
    ) -> PromptChange | None:
        """Why a prompt does not extend its session's last one; remembers it. Mutates.

        Args:
            session: Its session; see `stream_of`.
            body: The request.
            now_s: Time now (s, monotonic); of use with a lease only.

        Returns:
            The change; None if there is none, or no last prompt. None, too, for a
            completion's prompt, which has no parts, and for one that continues a stored answer, as
            it is not in its request.
        """
        return finished(self.comparing(session, body, now_s))

    def comparing(
        self, session: Hashable, body: RequestBody, now_s: float = 0.0
    ) -> Steps[PromptChange | None]:
        """Do the same in steps; only one at a time. Mutates with the last step."""
        if body.raw("previous_response_id"):
            return None
        streams = self._streams.get(session, [])
        new = yield from self._outliner.outlining(body, streams, now_s)
        if not new.exact:
            return None
        self._streams.pop(session, None)
        last = _last_of(streams, new)
        if last is not None:
            streams.remove(last)
            self._num_bytes -= last.memory_bytes
        streams.append(new)
        self._num_bytes += new.memory_bytes
        if len(streams) > _MAX_STREAMS:
            self._num_bytes -= streams.pop(0).memory_bytes
        self._streams[session] = streams
        self._used_s[session] = now_s
        while len(self._streams) > 1 and self._is_over(now_s):
            oldest, dropped = self._streams.popitem(last=False)
            del self._used_s[oldest]
            self._num_bytes -= sum(each.memory_bytes for each in dropped)
        return None if last is None else change_between(last, new)

    def _is_over(self, now_s: float) -> bool:
        """Whether the session seen longest ago is to be forgotten."""
        oldest = next(iter(self._streams))
        is_gone = now_s - self._used_s[oldest] > self._lease_s
        return is_gone or self._num_bytes > self._max_bytes


def stream_of(session_id: str | None, tenant: str, body: RequestBody) -> Hashable:
    """What stands for a session: its id, or how its conversation begins. Pure.

    Args:
        session_id: Explicit id of the stream; None without one.
        tenant: Whose request it is.
        body: The request.
    """
    if session_id is not None:
        return tenant, session_id
    return tenant, hash(body.raw("model")), hash(_first_task(body))


def _first_task(body: RequestBody) -> str:
    """The last text of the first message of a user, without reminders."""
    for name in ("messages", "input"):
        for raw in body.items(name)[:_SCANNED_MESSAGES]:
            try:
                message: Any = msgspec.json.decode(raw)
            except (msgspec.MsgspecError, RecursionError):
                continue
            if isinstance(message, str):
                return message
            if isinstance(message, dict) and message.get("role") == "user":
                content = message.get("content")
                texts = [
                    str(each.get("text") if isinstance(each, dict) else each)
                    for each in (content if isinstance(content, list) else [content])
                ]
                tasks = [task for text in texts if (task := without(text, "reminder").strip())]
                return tasks[-1] if tasks else ""
    return ""


def _last_of(streams: list[PromptOutline], new: PromptOutline) -> PromptOutline | None:
    """The prompt before this one; None if no prompt is of the same stream."""
    extended = [each for each in streams if each.num_shared(new) == len(each.exact)]
    if extended:
        return max(extended, key=lambda each: len(each.exact))
    likeness = [(each.likeness(new), index) for index, each in enumerate(streams)]
    best, index = max(likeness, default=(0.0, 0))
    return streams[index] if best >= _LEAST_LIKENESS else None
