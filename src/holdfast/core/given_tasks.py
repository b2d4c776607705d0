"""Tasks that agents gave to sub-agents, as they read in the prompts of these."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator

from holdfast.core.tool_kinds import tool_kind
from holdfast.core.turn_end import TurnEnd

__all__ = ["GivenTasks", "plain"]

_MAX_TASKS = 64
_MIN_CHARS = 16  # a shorter text may stand in any prompt
_MAX_CHARS = 200
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)')


class GivenTasks:
    """The last tasks that calls of sub-agents named; a bounded number of them."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, None] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._tasks)

    def note(self, end: TurnEnd) -> None:
        """Remember the tasks of the calls that ended a turn. Mutates."""
        for task in _tasks_of(end):
            self._tasks.pop(task, None)
            self._tasks[task] = None
            if len(self._tasks) > _MAX_TASKS:
                self._tasks.popitem(last=False)

    def begins(self, prompt: str) -> bool:
        """Whether a new session's prompt holds one of the tasks. Pure.

        Args:
            prompt: The end of the prompt's text, `plain`.
        """
        return any(task in prompt for task in self._tasks)


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
