"""Items of Codex's rollouts, each decoded on its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from holdfast.traces.formats.quantities import Tokens
from holdfast.traces.formats.repairs import with_whole_characters
from holdfast.traces.history import Message

__all__ = [
    "HINT",
    "NOTHING",
    "Compacted",
    "Event",
    "Item",
    "Line",
    "Meta",
    "TokenInfo",
    "TurnContext",
    "Used",
    "UsedSoFar",
    "ended_threads",
    "json_object",
    "last_name",
    "used_between",
]

HINT: Final = "expected one item a line: {timestamp, type, payload}"
NOTHING: Final = msgspec.Raw(b"null")
_UNFINISHED = frozenset({"pending_init", "running"})

# Tokens of a whole session, which exceed the bound of one prompt.
_Total = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class Line(msgspec.Struct):
    """A line."""

    type: str
    payload: msgspec.Raw
    timestamp: datetime | None = None


class Meta(msgspec.Struct):
    """A rollout's first line: its session and its parent."""

    id: str | None = None
    cli_version: str | None = None
    source: Any = None
    parent_thread_id: str | None = None
    forked_from_id: str | None = None

    @property
    def agent(self) -> str:
        """The agent's type, "main" for a main agent; "" if not recorded."""
        kind = self._sub_agent
        if isinstance(kind, dict):
            role = self._spawned.get("agent_role")
            return role if isinstance(role, str) else ""
        if kind is None:
            return "main" if self.parent_thread_id is None else ""
        return kind if isinstance(kind, str) else ""

    @property
    def parent_id(self) -> str | None:
        """The session that started it as a sub-agent; None for a main agent."""
        parent = self.parent_thread_id or self._spawned.get("parent_thread_id")
        return parent if isinstance(parent, str) else None

    @property
    def names(self) -> list[str]:
        """Names in its parent's records: its id, or its path among the sub-agents."""
        names = (self.id, self._spawned.get("agent_path"))
        return [name for name in names if isinstance(name, str)]

    @property
    def _sub_agent(self) -> Any:
        return self.source.get("subagent") if isinstance(self.source, dict) else None

    @property
    def _spawned(self) -> dict[str, Any]:
        kind = self._sub_agent
        spawned = kind.get("thread_spawn") if isinstance(kind, dict) else None
        return spawned if isinstance(spawned, dict) else {}


class TurnContext(msgspec.Struct):
    """The settings from here on."""

    model: str | None = None


class Item(msgspec.Struct, omit_defaults=True):
    """A part of the conversation: the fields that a model sees."""

    type: str = ""
    role: str | None = None
    content: msgspec.Raw = NOTHING
    summary: msgspec.Raw = NOTHING
    call_id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    action: msgspec.Raw = NOTHING
    output: msgspec.Raw = NOTHING

    def message(self, *, keeps_text: bool) -> Message:
        """Return it as a message; pure."""
        return Message.of(self.role or "", self, keeps_text=keeps_text)

    @property
    def is_output(self) -> bool:
        """Whether a tool wrote it."""
        return self.type.endswith("_output")

    @property
    def is_input(self) -> bool:
        """Whether the program or the user wrote it."""
        return self.is_output or (self.type == "message" and self.role != "assistant")

    @property
    def is_answer(self) -> bool:
        """Whether the model wrote it."""
        return self.type in ("message", "reasoning") or self.type.endswith("_call")


class Compacted(msgspec.Struct):
    """A compaction: the history that replaces the earlier one."""

    message: str | None = None
    replacement_history: list[Item] | None = None


class Used(msgspec.Struct):
    """Tokens of one call."""

    input_tokens: Tokens = 0
    cached_input_tokens: Tokens | None = None
    output_tokens: Tokens = 0


class UsedSoFar(msgspec.Struct, frozen=True):
    """Tokens of all calls."""

    input_tokens: _Total = 0
    cached_input_tokens: _Total = 0
    output_tokens: _Total = 0


class TokenInfo(msgspec.Struct):
    """A report of used tokens."""

    total_token_usage: UsedSoFar | None = None
    last_token_usage: Used | None = None


class Event(msgspec.Struct):
    """An event that is not part of the conversation."""

    type: str = ""
    info: msgspec.Raw = NOTHING
    num_turns: Any = None
    call_id: Any = None
    new_thread_id: Any = None
    receiver_thread_id: Any = None
    statuses: Any = None


def used_between(before: UsedSoFar, now: UsedSoFar) -> Used:
    """Return the usage between two totals; a lower total restarts at 0. Pure."""
    if now.input_tokens < before.input_tokens:
        before = UsedSoFar()
    return Used(
        now.input_tokens - before.input_tokens,
        max(0, now.cached_input_tokens - before.cached_input_tokens),
        max(0, now.output_tokens - before.output_tokens),
    )


def ended_threads(statuses: Any) -> Iterator[str]:
    """Yield the ended sub-agents of a wait's result `{id: status}`; pure."""
    for thread_id, status in statuses.items() if isinstance(statuses, dict) else ():
        if isinstance(thread_id, str) and not (isinstance(status, str) and status in _UNFINISHED):
            yield thread_id


def last_name(name: str) -> str:
    """Return a tool's name without its namespace; pure."""
    return name.rsplit("__", 1)[-1].rsplit(".", 1)[-1]


def json_object(value: Any) -> dict[str, Any]:
    """Return a JSON object, decoded if it is text; {} for other values. Pure."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(with_whole_characters(value.encode()))
        except (msgspec.DecodeError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}
