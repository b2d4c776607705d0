"""Tasks that agents delegate to sub-agents, recognised in the sub-agents' prompts."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.tool_kind import bare_name, tool_kind
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["DelegatedTasks", "normalized", "num_delegated", "waits_for_agents"]

_MAX_TASKS = 64
_MIN_CHARS = 16  # a shorter text may occur in any prompt
_MAX_CHARS = 200
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)')
_WAITS = "waitagent"
_NO_CALLS = frozenset((_WAITS, "sendmessage"))  # they concern sub-agents that exist

Agent = TypeVar("Agent", bound=Hashable)


class DelegatedTasks(Generic[Agent]):
    """The last tasks in calls of sub-agents, by tenant; a bounded number of them."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[tuple[str, str], Agent] = OrderedDict()

    def has_any(self, tenant: str) -> bool:
        """Whether any task of a tenant is known. Pure."""
        return any(owner == tenant for owner, _ in self._tasks)

    def observe(self, tenant: str, end: TurnEnd, agent: Agent) -> None:
        """Learn the tasks of the calls that ended a tenant's turn. Mutates.

        Args:
            tenant: The tenant.
            end: The end of the turn.
            agent: The agent whose turn it is.
        """
        for task in _tasks_of(end):
            self._tasks.pop((tenant, task), None)
            self._tasks[tenant, task] = agent
            if len(self._tasks) > _MAX_TASKS:
                self._tasks.popitem(last=False)

    def find(self, tenant: str, prompt: str) -> Agent | None:
        """The agent whose task the prompt of a tenant's new session contains. Pure.

        Of several tasks the longest counts; None without any.

        Args:
            tenant: The tenant.
            prompt: The end of the prompt's text, `normalized`.
        """
        found = [task for owner, task in self._tasks if owner == tenant and task in prompt]
        return self._tasks[tenant, max(found, key=len)] if found else None

    def forget(self, agent: Agent) -> None:
        """Forget the tasks of an agent. Mutates; O(tasks)."""
        for key in [key for key, owner in self._tasks.items() if owner == agent]:
            del self._tasks[key]

    def clear(self) -> None:
        """Forget all tasks. Mutates."""
        self._tasks.clear()


def num_delegated(calls: Sequence[ToolCall]) -> int:
    """Calls that start a sub-agent (count). Pure."""
    starts = (c for c in calls if tool_kind(c.name) == "sub_agent")
    return sum(bare_name(call.name) not in _NO_CALLS for call in starts)


def waits_for_agents(call: ToolCall) -> bool:
    """Whether a call waits for sub-agents that were started before. Pure."""
    return bare_name(call.name) == _WAITS


def normalized(text: str) -> str:
    """Return a text with a single blank in place of any white space. Pure."""
    return " ".join(text.split())


def _tasks_of(end: TurnEnd) -> Iterator[str]:
    """Yield the longest string of each sub-agent call's arguments."""
    for call in end.calls:
        if tool_kind(call.name) != "sub_agent":
            continue
        strings = (normalized(_unescaped(found)) for found in _STRING.findall(call.arguments))
        longest = max(strings, key=len, default="")[:_MAX_CHARS]
        if len(longest) >= _MIN_CHARS:
            yield longest


def _unescaped(literal: str) -> str:
    try:
        text: str = json.loads(f'"{literal}"', strict=False)
    except ValueError:
        return literal
    return text
