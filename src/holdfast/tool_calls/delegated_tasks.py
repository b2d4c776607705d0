"""Tasks that agents gave to sub-agents, as they read in the prompts of these."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator

from holdfast.tool_calls.tool_kind import tool_kind
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["DelegatedTasks", "plain"]

_MAX_TASKS = 64
_MIN_CHARS = 16  # a shorter text may stand in any prompt
_MAX_CHARS = 200
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)')


class DelegatedTasks:
    """The last tasks that calls of sub-agents named, by tenant; a bounded number of them."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[tuple[str, str], None] = OrderedDict()

    def has_any(self, tenant: str) -> bool:
        """Whether a tenant has given any. Pure."""
        return any(giver == tenant for giver, _ in self._tasks)

    def note(self, tenant: str, end: TurnEnd) -> None:
        """Remember the tasks of the calls that ended a tenant's turn. Mutates."""
        for task in _tasks_of(end):
            self._tasks.pop((tenant, task), None)
            self._tasks[tenant, task] = None
            if len(self._tasks) > _MAX_TASKS:
                self._tasks.popitem(last=False)

    def begins(self, tenant: str, prompt: str) -> bool:
        """Whether a prompt of a tenant's new session holds one of its tasks. Pure.

        Args:
            tenant: The tenant.
            prompt: The end of the prompt's text, `plain`.
        """
        return any(giver == tenant and task in prompt for giver, task in self._tasks)


def plain(text: str) -> str:
    """A text with every run of white space made one blank. Pure."""
    return " ".join(text.split())


def _tasks_of(end: TurnEnd) -> Iterator[str]:
    """The longest string of each sub-agent call's arguments, which may break off."""
    for call in end.calls:
        if tool_kind(call.name) != "sub_agent":
            continue
        strings = (plain(_unescaped(found)) for found in _STRING.findall(call.arguments))
        longest = max(strings, key=len, default="")[:_MAX_CHARS]
        if len(longest) >= _MIN_CHARS:
            yield longest


def _unescaped(literal: str) -> str:
    try:
        text: str = json.loads(f'"{literal}"', strict=False)
    except ValueError:
        return literal
    return text
