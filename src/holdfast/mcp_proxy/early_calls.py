"""Tool calls that are made before the client asks for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.mcp_proxy.result_memory import Call, Remembered, ResultMemory, is_final
from holdfast.mcp_proxy.speculation_ledger import SpeculationLedger
from holdfast.predict.call_history import CallHistory, PastCall, offered_values
from holdfast.predict.call_patterns import CallPatterns, PredictedCall

__all__ = ["ClientCall", "EarlyCall", "Experience", "Speculation", "SpeculationCounts"]

_MAX_IN_FLIGHT: Final = 2
_PATIENCE_CALLS: Final = 8
_BURST_CALLS: Final = 4.0


@dataclass(slots=True)
class SpeculationCounts:
    """Outcomes of predictions.

    Attributes:
        predicted: Calls predicted that were likely enough (count).
        started: Of these, calls made early (count).
        used: Early calls that had ended when the client asked for them (count).
        late: Early calls that the client asked for while they were on their way (count).
        wasted: Early calls that the client did not ask for, or whose results did not hold (count).
        saved_s: Time that clients did not wait (s).
        wasted_s: Time that the server worked for wasted calls (s).
    """

    predicted: int = 0
    started: int = 0
    used: int = 0
    late: int = 0
    wasted: int = 0
    saved_s: float = 0.0
    wasted_s: float = 0.0


@dataclass(slots=True)
class Experience:
    """What sessions of one tenant learn together; none of it is kept on disk."""

    patterns: CallPatterns = field(default_factory=CallPatterns)
    ledger: SpeculationLedger = field(default_factory=SpeculationLedger)


@dataclass(frozen=True, slots=True)
class ClientCall:
    """A call that the client made.

    Attributes:
        past: It in the session's history.
        asked_s: When (s).
    """

    past: PastCall
    asked_s: float


@dataclass(eq=False, slots=True)
class EarlyCall:
    """A predicted call.

    Attributes:
        key: What equal calls share.
        tool: Its tool.
        arguments: Its arguments.
        call: What the memory knows of it; None if it is not made but only compared.
        began_s: When it began (s).
        num_asked: Calls that the client had made (count).
        took_s: How long it took (s); None while it is on its way.
        joined_s: When the client asked for it while it was on its way (s); else None.
    """

    key: str
    tool: str
    arguments: Mapping[str, Any]
    call: Call | None
    began_s: float
    num_asked: int
    took_s: float | None = None
    joined_s: float | None = None


class Speculation:
    """Predicts the next calls of one session and decides which are made early.

    Only calls that the memory would remember are made: those of read-only, idempotent tools, none
    while a change is under way. So their results hold as long as remembered ones. At most two are
    on their way at once, none while the client waits for a call of its own, and at most four more
    than the client has made. A prediction that eight calls of the client have passed is wasted.

    Args:
        memory: Of the session's results.
        experience: What is learned, shared with other sessions of the same tenant.
        clock: Monotonic time (s).
        counts: Added to; may be shared.
    """

    def __init__(
        self,
        memory: ResultMemory,
        experience: Experience,
        clock: Callable[[], float],
        counts: SpeculationCounts | None = None,
    ) -> None:
        self.counts = SpeculationCounts() if counts is None else counts
        self._memory = memory
        self._patterns = experience.patterns
        self._ledger = experience.ledger
        self._clock = clock
        self._history = CallHistory()
        self._pending: dict[str, EarlyCall] = {}
        self._in_flight: list[EarlyCall] = []
        self._refused: set[str] = set()  # tools that asked the client for something
        self._num_asked = 0
        self._budget = _BURST_CALLS

    def observe_call(self, tool: str, arguments: Mapping[str, Any]) -> ClientCall:
        """Learn that the client makes a call, before the memory is asked. Mutates."""
        self._num_asked += 1
        self._budget = min(self._budget + 1.0, _BURST_CALLS)
        self._patterns.learn(self._history, tool, arguments)
        return ClientCall(self._history.add(tool, arguments), self._clock())

    def observe_result(self, call: ClientCall, result: Mapping[str, Any], is_made: bool) -> None:
        """Learn what a call of the client returned. Mutates.

        Args:
            call: What `observe_call` returned.
            result: Its result.
            is_made: Whether the server was asked as the client asked, so that its time is known.
        """
        call.past.offers = offered_values(result, call.past.arguments)
        if is_made:
            self._ledger.observe_time(call.past.tool, self._clock() - call.asked_s)

    def asked(self, key: str, outcome: Remembered | Call) -> EarlyCall | None:
        """Settle a prediction as the client asks for a call. Mutates.

        Args:
            key: Of the client's call.
            outcome: What the memory says of it.

        Returns:
            An early call on its way whose result answers the client; `end` or `leave` follows.
        """
        early = self._pending.pop(key, None)
        if early is None:
            return None
        now_s = self._clock()
        if early.call is None:
            self._ledger.settle(min(self._ledger.expected_s(early.tool), now_s - early.began_s), 0)
        elif isinstance(outcome, Remembered) and early.took_s is not None:
            self.counts.used += 1
            self._save(early.took_s)
        elif early.took_s is None and isinstance(outcome, Call) and early.call.is_equal(outcome):
            early.joined_s = now_s
            return early
        else:
            self._waste(early)
        return None

    def start(self) -> list[EarlyCall]:
        """Decide which calls to make now, as the client has got an answer. Mutates.

        `end` follows for each, unless `drop_old` or `drop_all` returns it.
        """
        made: list[EarlyCall] = []
        for predicted in itertools.islice(self._promising(), _MAX_IN_FLIGHT):
            if len(self._in_flight) >= _MAX_IN_FLIGHT or self._budget < 1.0:
                break
            early = self._choose(predicted)
            if early is not None and early.call is not None:
                self.counts.started += 1
                self._budget -= 1.0
                self._in_flight.append(early)
                made.append(early)
        return made

    def end(self, early: EarlyCall, result: Mapping[str, Any] | None) -> bool:
        """Note that an early call was answered. Mutates.

        Args:
            early: One that `start` returned.
            result: Its result; None for a JSON-RPC error.

        Returns:
            Whether the result answers the client that waits for it, if one does.
        """
        assert early.call is not None
        self._in_flight.remove(early)
        early.took_s = self._clock() - early.began_s
        is_kept = self._memory.end(early.call, result)
        if result is not None and is_final(result):
            self._ledger.observe_time(early.tool, early.took_s)
            if early.joined_s is not None:
                self.counts.late += 1
                self._save(early.joined_s - early.began_s)
                return True
        is_pending = self._pending.get(early.key) is early
        if is_pending and not is_kept:
            del self._pending[early.key]
        if early.joined_s is not None or (is_pending and not is_kept):
            self._waste(early)
        return False

    def leave(self, early: EarlyCall) -> None:
        """Note that the client no longer waits for an early call. Mutates."""
        early.joined_s = None
        self._waste(early)

    def drop_old(self) -> list[EarlyCall]:
        """Drop what eight calls have passed; returns what is on its way. Mutates."""
        return self._drop(self._num_asked - _PATIENCE_CALLS)

    def drop_all(self) -> list[EarlyCall]:
        """Drop all predictions for a change; returns those on their way. Mutates."""
        return self._drop(self._num_asked)

    def refuse(self) -> None:
        """Leave tools alone whose early calls are on their way. Mutates.

        One of them asks the client for something.
        """
        self._refused.update(early.tool for early in self._in_flight)

    def _promising(self) -> Iterator[PredictedCall]:
        for predicted in self._patterns.predict(self._history):
            is_open = predicted.key not in self._pending and predicted.tool not in self._refused
            if is_open and self._ledger.is_promising(predicted.tool, predicted.probability):
                yield predicted

    def _choose(self, predicted: PredictedCall) -> EarlyCall | None:
        tool = predicted.tool
        call = self._memory.begin_early(tool, predicted.arguments)
        if call is None:
            return None
        self.counts.predicted += 1
        early = EarlyCall(
            *(predicted.key, tool, predicted.arguments),
            call=call if self._ledger.is_enabled else None,
            began_s=self._clock(),
            num_asked=self._num_asked,
        )
        self._pending[early.key] = early
        return early

    def _drop(self, num_asked: int) -> list[EarlyCall]:
        dropped = [early for early in self._pending.values() if early.num_asked <= num_asked]
        on_their_way = [early for early in dropped if early in self._in_flight]
        for early in dropped:
            del self._pending[early.key]
            self._waste(early)
        for early in on_their_way:
            self._in_flight.remove(early)
        return on_their_way

    def _save(self, saved_s: float) -> None:
        self.counts.saved_s += saved_s
        self._ledger.settle(saved_s, 0.0)

    def _waste(self, early: EarlyCall) -> None:
        if early.call is None:
            self._ledger.settle(0.0, self._ledger.expected_s(early.tool))
            return
        took_s = self._clock() - early.began_s if early.took_s is None else early.took_s
        self.counts.wasted += 1
        self.counts.wasted_s += took_s
        self._ledger.settle(0.0, took_s)
