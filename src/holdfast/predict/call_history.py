"""The tool calls of one session, and the values that their results offer."""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["NAMES", "CallHistory", "PastCall", "call_key", "offered_values"]

NAMES: Final = ""
"""The group of values that text offers: what looks like a path or a file's name."""

_MAX_CALLS: Final = 16
_MAX_CHARS: Final = 16_384  # of a result that are read
_MAX_VALUES: Final = 64  # of a group
_MAX_GROUPS: Final = 16
_MAX_VALUE_CHARS: Final = 512
_NAME: Final = re.compile(r"[\w./@+~-]*(?:/|\.\w)[\w./@+~-]*\w")


@dataclass(eq=False, slots=True)
class PastCall:
    """A call that was made.

    Attributes:
        tool: Its tool.
        key: What equal calls share.
        arguments: Its arguments but for long ones, JSON values by name.
        offers: Values of its result by group; empty until it is answered.
    """

    tool: str
    key: str
    arguments: Mapping[str, Any]
    offers: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class CallHistory:
    """The last sixteen calls of one session, oldest first."""

    def __init__(self) -> None:
        self._calls: deque[PastCall] = deque(maxlen=_MAX_CALLS)

    @property
    def last(self) -> PastCall | None:
        """The newest call; None before the first."""
        return self._calls[-1] if self._calls else None

    def newest(self, key: str) -> PastCall | None:
        """The newest of equal calls; None if there is none. Pure."""
        return next((call for call in reversed(self._calls) if call.key == key), None)

    def add(self, tool: str, arguments: Mapping[str, Any]) -> PastCall:
        """Take note of a call; what it offers is filled in later. Mutates."""
        short = {name: value for name, value in arguments.items() if _is_short(value)}
        self._calls.append(PastCall(tool, call_key(tool, arguments), short))
        return self._calls[-1]

    def after(self, value: object) -> str | int | None:
        """What follows a value in the newest group with it, or None. Pure."""
        for call in reversed(self._calls):
            for values in call.offers.values():
                if value in values:
                    position = values.index(value) + 1
                    return values[position] if position < len(values) else None
        return None


def call_key(tool: str, arguments: object) -> str:
    """What equal calls share: the tool, and its arguments in canonical order. Pure.

    Long arguments are replaced by their digest.
    """
    key = json.dumps([tool, arguments], sort_keys=True, separators=(",", ":"))
    if len(key) <= _MAX_VALUE_CHARS:
        return key
    return f"{tool} {hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}"


def offered_values(result: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values of a result that a later call may name. Pure; O(length).

    JSON offers its strings and numbers, by key. Other text offers what looks like a path, also
    below the directories that the call names, as listings often give names alone.

    Args:
        result: Of `tools/call`.
        arguments: Of that call.

    Returns:
        Values by group, in their order.
    """
    groups: dict[str, dict[Any, None]] = {}
    for text in _texts(result):
        parsed = _parsed(text)
        if parsed is not None:
            _collect(parsed, NAMES, groups)
            continue
        for found in _NAME.findall(text):
            _offer(groups, NAMES, found)
    relative = [n for n in groups.get(NAMES, ()) if isinstance(n, str) and not n.startswith("/")]
    for name, directory in arguments.items():
        if isinstance(directory, str) and directory.startswith(("/", "./")):
            for each in relative:
                _offer(groups, f"{name}/", f"{directory.rstrip('/')}/{each}")
    return {group: list(values) for group, values in groups.items()}


def _texts(result: Mapping[str, Any]) -> Iterator[str]:
    content = result.get("content")
    for item in content[:4] if isinstance(content, list) else ():
        if isinstance(item, Mapping) and isinstance(item.get("text"), str):
            yield item["text"][:_MAX_CHARS]


def _parsed(text: str) -> dict[str, Any] | list[Any] | None:
    if not text.startswith(("{", "[")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, (dict, list)) else None


def _collect(value: object, group: str, groups: dict[str, dict[Any, None]]) -> None:
    if isinstance(value, dict):
        for name, each in value.items():
            _collect(each, name, groups)
    elif isinstance(value, list):
        for each in value[:_MAX_VALUES]:
            _collect(each, group, groups)
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        _offer(groups, group, value)


def _offer(groups: dict[str, dict[Any, None]], group: str, value: str | int) -> None:
    if group not in groups and len(groups) >= _MAX_GROUPS:
        return
    values = groups.setdefault(group, {})
    if len(values) < _MAX_VALUES and _is_short(value):
        values[value] = None


def _is_short(value: object) -> bool:
    if isinstance(value, (Mapping, list)):
        return len(json.dumps(value)) <= _MAX_VALUE_CHARS
    return not isinstance(value, str) or 0 < len(value) <= _MAX_VALUE_CHARS
