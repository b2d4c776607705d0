"""Tasks that agents delegate to sub-agents, recognised in the sub-agents' prompts."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator

from holdfast.tool_calls.tool_kind import tool_kind
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["DelegatedTasks", "normalized"]

_MAX_TASKS = 64
_MIN_CHARS = 16  # a shorter text may occur in any prompt
_MAX_CHARS = 200
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)')


class DelegatedTasks:
    """The last tasks in calls of sub-agents, by tenant; a bounded number of them."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[tuple[str, str], None] = OrderedDict()

    def has_any(self, tenant: str) -> bool:
        """Whether any task of a tenant is known. Pure."""
        return any(owner == tenant for owner, _ in self._tasks)

    def observe(self, tenant: str, end: TurnEnd) -> None:
        """Learn the tasks of the calls that ended a tenant's turn. Mutates."""
        for task in _tasks_of(end):
            self._tasks.pop((tenant, task), None)
            self._tasks[tenant, task] = None
            if len(self._tasks) > _MAX_TASKS:
                self._tasks.popitem(last=False)

    def matches(self, tenant: str, prompt: str) -> bool:
        """Whether a prompt of a tenant's new session contains one of its tasks. Pure.

        Args:
            tenant: The tenant.
            prompt: The end of the prompt's text, `normalized`.
        """
        return any(owner == tenant and task in prompt for owner, task in self._tasks)


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
