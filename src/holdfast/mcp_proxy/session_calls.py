"""Results of tool calls that need not be made again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cachetools import TTLCache

from holdfast.mcp_proxy.file_stamp import FileStamp
from holdfast.mcp_proxy.tool_traits import ToolTraits

__all__ = ["Call", "MemoryCounts", "MemoryLimits", "Remembered", "ResultMemory", "is_final"]

_SETTLED_S = 1.0  # how old a file's last change must be: coarse clocks hide a second change
_KNOWN_PARAMS = frozenset({"name", "arguments", "_meta"})
_UNKNOWN = ToolTraits()


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How much is remembered, and of which tools.

    Attributes:
        ttl_s: Age at which a result is forgotten (s, > 0).
        max_bytes: Size of all results together, as JSON (bytes).
        max_result_bytes: Size of one (bytes).
        abandoned_s: How long a change that the client cancels counts as being made (s).
        always: Read-only tools whose results count as long as nothing is changed through the
            server, whatever they say of themselves.
        never: Tools whose results are not remembered.
    """

    ttl_s: float = 300.0
    max_bytes: int = 64 * 2**20
    max_result_bytes: int = 2**20
    abandoned_s: float = 60.0
    always: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()


@dataclass(slots=True)
class MemoryCounts:
    """What the memory did.

    Attributes:
        calls: Tool calls (count).
        answered: Calls answered from memory (count).
        saved_s: What these took when they were made (s).
        changes: Calls that may have changed something (count).
        outdated: Results dropped as a file had changed (count).
    """

    calls: int = 0
    answered: int = 0
    saved_s: float = 0.0
    changes: int = 0
    outdated: int = 0


@dataclass(frozen=True, slots=True)
class Remembered:
    """The result of an equal call."""

    result: dict[str, Any]


@dataclass(eq=False, slots=True)
class Call:
    """A call on its way.

    Attributes:
        is_change: Whether it may change something.
        key: What equal calls have in common; None if its result is not to be remembered.
        num_changes: Changes begun before it (count).
        began_s: When it began (s).
        stamp: The files that it names, as they were then.
    """

    is_change: bool
    key: str | None = None
    num_changes: int = 0
    began_s: float = 0.0
    stamp: FileStamp | None = None

    def is_equal(self, later: Call) -> bool:
        """Whether a later call asks for the same, with nothing changed. Pure."""
        return later.key is not None and (self.key, self.num_changes, self.stamp) == (
            later.key,
            later.num_changes,
            later.stamp,
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    result: dict[str, Any]
    num_bytes: int
    took_s: float
    stamp: FileStamp


@dataclass(slots=True)
class ResultMemory:
    """Remembers results of one server's read-only tools for one client.

    A result answers an equal call until anything is changed through the server, a file that the
    call names is changed by anyone, or its time is over. A tool counts as changing something unless
    the server says that it is read-only. Nothing is answered or remembered while a change is being
    made: whether a read sees it is the server's to decide.

    A read-only tool may depend on what its arguments do not name. So results are kept only where
    the server says that its world is closed, or where arguments name files and it says nothing.

    Args:
        stamp: Looks at the files that a call's arguments name; see `stamp_files`.
        clock: Monotonic time (s).
        epoch_clock: Time since the epoch (s), as file systems count it.
        limits: See `MemoryLimits`.

    Attributes:
        counts: What it did.
    """

    stamp: Callable[[object], FileStamp | None]
    clock: Callable[[], float]
    epoch_clock: Callable[[], float]
    limits: MemoryLimits = field(default_factory=MemoryLimits)
    counts: MemoryCounts = field(default_factory=MemoryCounts)
    _tools: dict[str, ToolTraits] = field(default_factory=dict)
    _changes: dict[Call, float] = field(default_factory=dict)  # being made, and until when at most
    _changed_s: float = -math.inf  # when the last change had ended
    _results: TTLCache[str, _Entry] = field(init=False)

    def __post_init__(self) -> None:
        limits = self.limits
        self._results = TTLCache(
            limits.max_bytes, limits.ttl_s, self.clock, lambda entry: entry.num_bytes
        )

    def learn_tools(self, tools: Mapping[str, ToolTraits]) -> None:
        """Add what is known about tools. Mutates."""
        self._tools.update(tools)

    def forget_tools(self) -> None:
        """Take tools for such that change something, until known again. Mutates."""
        self._tools.clear()

    def begin(self, params: Mapping[str, Any]) -> Remembered | Call:
        """Answer a call from memory, or note that it is made. Mutates.

        `end` or `cancel` follows for what is made.

        Args:
            params: Those of `tools/call`.
        """
        self.counts.calls += 1
        name, arguments = params.get("name"), params.get("arguments")
        traits = self._tools.get(name, _UNKNOWN) if isinstance(name, str) else _UNKNOWN
        if not traits.is_read_only:
            return self._begin_change(params)
        key = self._key(name, arguments, traits) if params.keys() <= _KNOWN_PARAMS else None
        if key is None or self._is_changing():
            return Call(is_change=False)
        stamp = self.stamp(arguments)
        entry = self._results.get(key)
        if entry is not None and entry.stamp == stamp:
            self.counts.answered += 1
            self.counts.saved_s += entry.took_s
            return Remembered(entry.result)
        if entry is not None:
            del self._results[key]
            self.counts.outdated += 1
        if not self._is_settled(stamp, traits, str(name)):
            key = None
        return Call(False, key, self.counts.changes, self.clock(), stamp)

    def begin_early(self, tool: str, arguments: Mapping[str, Any]) -> Call | None:
        """Note a call that the client may ask for; None leaves it alone. Mutates.

        `end` or `cancel` follows. Its tool is read-only, and may be called twice.
        """
        traits = self._tools.get(tool, _UNKNOWN)
        if not (traits.is_read_only and traits.is_idempotent) or self._is_changing():
            return None
        if self.clock() - self._changed_s < _SETTLED_S:
            return None  # what has just changed is not settled: no need to look
        key, stamp = self._key(tool, arguments, traits), self.stamp(arguments)
        if key is None or not self._is_settled(stamp, traits, tool):
            return None
        entry = self._results.get(key)
        if entry is not None and entry.stamp == stamp:
            return None
        return Call(False, key, self.counts.changes, self.clock(), stamp)

    def end(self, call: Call, result: Mapping[str, Any] | None) -> bool:
        """Note that a call was answered; remember its result if it will hold. Mutates.

        Args:
            call: What `begin` or `begin_early` returned.
            result: The call's result; None for a JSON-RPC error.

        Returns:
            Whether it is remembered.
        """
        if call.is_change:
            self._changes.pop(call, None)
            self._changed_s = self.clock()
            return False
        if call.key is None or call.stamp is None or result is None or not is_final(result):
            return False
        num_bytes = len(json.dumps(result, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if num_bytes > min(self.limits.max_result_bytes, self.limits.max_bytes):
            return False
        if call.num_changes != self.counts.changes:
            return False
        took_s = self.clock() - call.began_s
        self._results[call.key] = _Entry(dict(result), num_bytes, took_s, call.stamp)
        return True

    def cancel(self, call: Call) -> None:
        """Note that no one waits for a call; the server may still make a change. Mutates."""
        if call in self._changes:
            self._changes[call] = self.clock() + self.limits.abandoned_s

    def _begin_change(self, params: Mapping[str, Any]) -> Call:
        call = Call(is_change=True)
        self._changes[call] = math.inf
        self._results.clear()
        self.counts.changes += 1
        if not params.keys() <= _KNOWN_PARAMS:  # such as a task, which outlives its first answer
            background = Call(is_change=True)
            self._changes[background] = self.clock() + self.limits.abandoned_s
        return call

    def _is_changing(self) -> bool:
        now_s = self.clock()
        self._changes = {c: until_s for c, until_s in self._changes.items() if until_s > now_s}
        return bool(self._changes)

    def _key(self, name: object, arguments: object, traits: ToolTraits) -> str | None:
        """What equal calls share: the tool, and its arguments in canonical order."""
        is_left_out = name in self.limits.never
        if is_left_out or (traits.is_open_world and name not in self.limits.always):
            return None
        given = {} if arguments is None else arguments
        return json.dumps([name, given], sort_keys=True, separators=(",", ":"))

    def _is_settled(self, stamp: FileStamp | None, traits: ToolTraits, name: str) -> bool:
        """Whether a change of what the call depends on would be seen later."""
        if stamp is None or stamp.newest_s > self.epoch_clock() - _SETTLED_S:
            return False
        is_closed = traits.is_open_world is False or name in self.limits.always
        return is_closed or stamp.num_files > 0


def is_final(result: Mapping[str, Any]) -> bool:
    """Whether a result is a tool's whole answer, and no error. Pure."""
    is_whole = result.get("resultType", "complete") == "complete" and "content" in result
    return is_whole and not result.get("isError")
