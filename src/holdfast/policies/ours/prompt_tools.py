"""A session's tools in one order and in one form."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

__all__ = ["ToolForms", "in_order", "tool_names"]

_MAX_BYTES: Final = 16 << 20
_UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, ValueError)


def tool_names(tools: Sequence[bytes]) -> tuple[str, ...] | None:
    """Names of tools, given as JSON texts; None if one has no name. Pure."""
    names = []
    for tool in tools:
        try:
            value: Any = msgspec.json.decode(tool)
        except _UNREADABLE:
            return None
        named = value.get("function", value) if isinstance(value, dict) else None
        name = named.get("name") or named.get("type") if isinstance(named, dict) else None
        if not isinstance(name, str):
            return None
        names.append(name)
    return tuple(names)


def in_order(tools: Sequence[bytes], known: Sequence[str]) -> list[bytes]:
    """Tools in the order of a session; new ones follow, by name. Pure.

    Args:
        tools: JSON texts of the tools.
        known: Names of the tools that the session has had, in order.

    Returns:
        The same texts; in their order if two tools share a name, or one has none.
    """
    names = tool_names(tools)
    if names is None or len(set(names)) < len(names):
        return list(tools)
    rank = {name: index for index, name in enumerate(known)}
    by_name = dict(zip(names, tools, strict=True))
    return [by_name[name] for name in sorted(names, key=lambda n: (rank.get(n, len(rank)), n))]


class ToolForms:
    """The JSON text in which each tool was first sent.

    Args:
        max_bytes: Memory for texts (bytes); the oldest are forgotten.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._forms: OrderedDict[bytes, bytes] = OrderedDict()
        self._known: dict[bytes, bytes] = {}
        self._num_bytes = 0
        self._max_bytes = max_bytes

    def first_form(self, tenant: str, tool: bytes) -> bytes:
        """The first text of a tool that is equal as JSON; else the tool. Pure."""
        if tool in self._known:
            return tool
        return self._forms.get(_digest(tenant, tool), tool)

    def learn(self, tenant: str, tool: bytes) -> None:
        """Remember a tool that was sent, unless an equal one is known. Mutates."""
        if tool in self._known:
            return
        digest = _digest(tenant, tool)
        if digest in self._forms:
            return
        self._forms[digest] = tool
        self._known[tool] = digest
        self._num_bytes += len(tool)
        while self._num_bytes > self._max_bytes:
            _, dropped = self._forms.popitem(last=False)
            self._known.pop(dropped, None)
            self._num_bytes -= len(dropped)


def _digest(tenant: str, tool: bytes) -> bytes:
    """A digest of a tool's JSON value; of its text if it cannot be read."""
    try:
        value = json.loads(tool)
        text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    except _UNREADABLE:
        text = tool
    return sha256(repr(tenant).encode() + text).digest()
