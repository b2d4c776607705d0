"""The tool calls of one session, and how long their results hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.mcp_proxy.call_policies import CallPolicies
from holdfast.mcp_proxy.file_stamp import FileStamp
from holdfast.mcp_proxy.tool_traits import ToolTraits
from holdfast.policies.calls import (
    AskedCall,
    CallAnswered,
    CallAsked,
    KnownResult,
    ResultOutdated,
    SessionEnded,
)
from holdfast.predict.call_history import call_key

__all__ = ["Call", "CallCounts", "ResultRules", "SessionCalls", "Version", "is_final"]

_SETTLED_S: Final = 1.0  # how old a file's last change must be: coarse clocks hide a second change
_KNOWN_PARAMS: Final = frozenset({"name", "arguments", "_meta"})
_UNKNOWN: Final = ToolTraits()


@dataclass(frozen=True, slots=True)
class ResultRules:
    """Which results may be given again, and how long.

    Attributes:
        ttl_s: Age at which a result no longer holds (s, > 0).
        max_result_bytes: Size of one, as JSON (bytes).
        abandoned_s: How long a change that the client cancels counts as being made (s).
        always: Read-only tools whose results hold as long as nothing is changed through the
            server, whatever they say of themselves.
        never: Tools whose results are not given again.
    """

    ttl_s: float = 300.0
    max_result_bytes: int = 2**20
    abandoned_s: float = 60.0
    always: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()


@dataclass(slots=True)
class CallCounts:
    """Tool calls, and what was done about them.

    Attributes:
        calls: Tool calls of clients (count).
        answered: Calls answered by what a policy recalled (count).
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
class Version:
    """What a result depends on.

    Attributes:
        num_changes: Changes begun before its call (count).
        stamp: The files that its call names.
    """

    num_changes: int
    stamp: FileStamp


@dataclass(eq=False, slots=True)
class Call:
    """A call on its way.

    Attributes:
        asked: It, as policies see it; None if they do not.
        is_change: Whether it may change something.
        version: What its result depends on; None if that cannot be known.
        is_settled: Whether a later change of that would be seen.
    """

    asked: AskedCall | None
    is_change: bool = False
    version: Version | None = None
    is_settled: bool = False


@dataclass(slots=True)
class SessionCalls:
    """Takes in the calls of one session and tells which known results answer them.

    A result answers an equal call until anything is changed through the server, a file that the
    call names is changed by anyone, or its time is over. A tool counts as changing something unless
    the server says that it is read-only. Nothing is answered or kept while a change is being made:
    whether a read sees it is the server's to decide.

    A read-only tool may depend on what its arguments do not name. So results are kept only where
    the server says that its world is closed, or where arguments name files and it says nothing.

    Args:
        session: Number of the session.
        policies: Keep results.
        stamp: Looks at the files that a call's arguments name; see `stamp_files`.
        clock: Monotonic time (s).
        epoch_clock: Time since the epoch (s), as file systems count it.
        rules: See `ResultRules`.
        counts: Added to; may be shared.
    """

    session: int
    policies: CallPolicies
    stamp: Callable[[object], FileStamp | None]
    clock: Callable[[], float]
    epoch_clock: Callable[[], float]
    rules: ResultRules = field(default_factory=ResultRules)
    counts: CallCounts = field(default_factory=CallCounts)
    _tools: dict[str, ToolTraits] = field(default_factory=dict)
    _num_changes: int = 0
    _changes: dict[Call, float] = field(default_factory=dict)  # being made, and until when at most
    _changed_s: float = -math.inf  # when the last change had ended

    def learn_tools(self, tools: Mapping[str, ToolTraits]) -> None:
        """Add what is known about tools. Mutates."""
        self._tools.update(tools)

    def forget_tools(self) -> None:
        """Take tools for such that change something, until known again. Mutates."""
        self._tools.clear()

    def begin(self, params: Mapping[str, Any]) -> Call:
        """Take in a call of the client. Mutates.

        `recall` may follow, and for a call that is made `end` or `cancel`.

        Args:
            params: Those of `tools/call`.
        """
        self.counts.calls += 1
        name, arguments = params.get("name"), params.get("arguments")
        traits = self._tools.get(name, _UNKNOWN) if isinstance(name, str) else _UNKNOWN
        asked = self._asked(name, arguments, traits)
        if asked is not None:
            self.policies.observe(CallAsked(asked))
        if not traits.is_read_only:
            return self._begin_change(asked, is_whole=params.keys() <= _KNOWN_PARAMS)
        if asked is None or not params.keys() <= _KNOWN_PARAMS:
            return Call(asked)
        return self._begin_read(asked, traits)

    def begin_early(self, tool: str, arguments: Mapping[str, Any]) -> Call | None:
        """Take in a call that the client may ask for; None leaves it alone. Mutates.

        `end` or `cancel` follows. Its tool is read-only, and may be called twice.
        """
        traits = self._tools.get(tool, _UNKNOWN)
        if not (traits.is_read_only and traits.is_idempotent):
            return None
        if self._is_changing() or self.clock() - self._changed_s < _SETTLED_S:
            return None  # what has just changed is not settled: no need to look
        asked = self._asked(tool, arguments, traits)
        call = self._begin_read(asked, traits) if asked is not None else None
        return call if call is not None and call.is_settled else None

    def recall(self, call: Call) -> tuple[str, KnownResult] | None:
        """The policy that knows a call's result, and the result. Mutates policies."""
        if call.asked is None or call.version is None:
            return None
        for policy, known in self.policies.recall(call.asked):
            if self.holds(known, call):
                return policy, known
            is_outdated = known.version != call.version
            self.counts.outdated += is_outdated
            self.policies.observe(ResultOutdated(known))
        return None

    def holds(self, known: KnownResult, call: Call) -> bool:
        """Whether a result is what the server would answer a call with now. Pure."""
        if call.asked is None or call.version is None:
            return False
        is_equal = (known.call.session, known.call.key) == (self.session, call.asked.key)
        is_young = self.clock() - known.ended_s < self.rules.ttl_s
        return is_equal and is_young and known.version == call.version

    def count_answer(self, policy: str, known: KnownResult) -> None:
        """Count that a policy's result answers the client. Mutates."""
        self.counts.answered += 1
        self.counts.saved_s += known.took_s
        self.policies.count(policy, "answered")

    def end(self, call: Call, result: Mapping[str, Any] | None) -> KnownResult | None:
        """Take in that a call was answered. Mutates.

        Args:
            call: What `begin` or `begin_early` returned.
            result: The call's result; None for a JSON-RPC error.

        Returns:
            What may be recalled; None if the result is not to be given again.
        """
        if call.is_change:
            self._changes.pop(call, None)
            self._changed_s = self.clock()
        if call.asked is None or result is None:
            return None
        known = self._known(call, call.asked, result)
        took_s = self.clock() - call.asked.asked_s
        self.policies.observe(CallAnswered(call.asked, result, took_s, known))
        return known

    def answer(self, call: Call, result: Mapping[str, Any], known: KnownResult | None) -> None:
        """Take in that another call's result answers a call. Mutates policies."""
        if call.asked is not None:
            self.policies.observe(CallAnswered(call.asked, result, None, known))

    def cancel(self, call: Call) -> None:
        """Take in that no one waits for a call, which may still be made. Mutates."""
        if call in self._changes:
            self._changes[call] = self.clock() + self.rules.abandoned_s

    def close(self) -> None:
        """Take in that the session is over. Mutates the policies."""
        self.policies.observe(SessionEnded(self.session))

    def _asked(self, name: object, arguments: object, traits: ToolTraits) -> AskedCall | None:
        """A call as policies see it; None if it is malformed."""
        given = {} if arguments is None else arguments
        if not isinstance(name, str) or not isinstance(given, Mapping):
            return None
        key = call_key(name, dict(given))
        now_s = self.clock()
        return AskedCall(self.session, name, given, key, not traits.is_read_only, now_s)

    def _begin_change(self, asked: AskedCall | None, is_whole: bool) -> Call:
        call = Call(asked, is_change=True)
        self._changes[call] = math.inf
        self._num_changes += 1
        self.counts.changes += 1
        if not is_whole:  # such as a task, which outlives its first answer
            background = Call(None, is_change=True)
            self._changes[background] = self.clock() + self.rules.abandoned_s
        return call

    def _begin_read(self, asked: AskedCall, traits: ToolTraits) -> Call:
        is_left_out = asked.tool in self.rules.never
        is_open = traits.is_open_world and asked.tool not in self.rules.always
        if is_left_out or is_open or self._is_changing():
            return Call(asked)
        stamp = self.stamp(asked.arguments)
        if stamp is None:
            return Call(asked)
        is_settled = self._is_settled(stamp, traits, asked.tool)
        return Call(asked, False, Version(self._num_changes, stamp), is_settled)

    def _is_changing(self) -> bool:
        now_s = self.clock()
        self._changes = {c: until_s for c, until_s in self._changes.items() if until_s > now_s}
        return bool(self._changes)

    def _is_settled(self, stamp: FileStamp, traits: ToolTraits, name: str) -> bool:
        """Whether a change of what the call depends on would be seen later."""
        if stamp.newest_s > self.epoch_clock() - _SETTLED_S:
            return False
        is_closed = traits.is_open_world is False or name in self.rules.always
        return is_closed or stamp.num_files > 0

    def _known(self, call: Call, asked: AskedCall, result: Mapping[str, Any]) -> KnownResult | None:
        if call.version is None or not call.is_settled or not is_final(result):
            return None
        if call.version.num_changes != self._num_changes:
            return None
        num_bytes = len(json.dumps(result, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if num_bytes > self.rules.max_result_bytes:
            return None
        now_s = self.clock()
        return KnownResult(
            asked, dict(result), num_bytes, now_s - asked.asked_s, now_s, call.version
        )


def is_final(result: Mapping[str, Any]) -> bool:
    """Whether a result is a tool's whole answer, and no error. Pure."""
    is_whole = result.get("resultType", "complete") == "complete" and "content" in result
    return is_whole and not result.get("isError")
