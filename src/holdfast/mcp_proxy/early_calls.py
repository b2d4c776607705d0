"""Tool calls that are made before the client asks for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.mcp_proxy.call_policies import CallPolicies, KeyedPrediction
from holdfast.mcp_proxy.session_calls import Call, SessionCalls, is_final
from holdfast.policies.calls import KnownResult, Prediction, PredictionSettled

__all__ = ["EarlyCall", "EarlyCalls", "EarlyCounts"]

_MAX_IN_FLIGHT: Final = 2
_PATIENCE_CALLS: Final = 8
_BURST_CALLS: Final = 4.0


@dataclass(slots=True)
class EarlyCounts:
    """Outcomes of predictions.

    Attributes:
        predicted: Calls predicted that might be made, or compared with what comes (count).
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


@dataclass(eq=False, slots=True)
class EarlyCall:
    """A predicted call.

    Attributes:
        policy: Name of the policy that predicted it.
        key: What equal calls share.
        prediction: What it predicted.
        call: The call; None if it is a trial.
        began_s: When it began (s).
        num_asked: Calls that the client had made (count).
        took_s: How long it took (s); None while it is on its way.
        known: Its result; None while it is on its way.
        joined_s: When the client asked for it while it was on its way (s); else None.
    """

    policy: str
    key: str
    prediction: Prediction
    call: Call | None
    began_s: float
    num_asked: int
    took_s: float | None = None
    known: KnownResult | None = None
    joined_s: float | None = None


class EarlyCalls:
    """Decides which of the predicted calls of one session are made early.

    Only calls whose results could be given again are made: those of read-only, idempotent tools,
    none while a change is under way. So their results hold as long as others. At most two are on
    their way at once, none while the client waits for a call of its own, and at most four more than
    the client has made. A prediction that eight calls of the client have passed is wasted.

    Args:
        calls: Of the session.
        policies: Predict.
        clock: Monotonic time (s).
        counts: Added to; may be shared.
    """

    def __init__(
        self,
        calls: SessionCalls,
        policies: CallPolicies,
        clock: Callable[[], float],
        counts: EarlyCounts | None = None,
    ) -> None:
        self.counts = EarlyCounts() if counts is None else counts
        self._calls = calls
        self._policies = policies
        self._clock = clock
        self._pending: dict[str, EarlyCall] = {}
        self._in_flight: list[EarlyCall] = []
        self._refused: set[str] = set()  # tools that asked the client for something
        self._num_asked = 0
        self._budget = _BURST_CALLS

    def asked(self, call: Call, known: KnownResult | None) -> KnownResult | EarlyCall | None:
        """Settle a prediction as the client asks for a call. Mutates.

        Args:
            call: The client's call.
            known: What answers it without an early call.

        Returns:
            What answers the client, or an early call on its way whose result will; `end` or `leave`
            follows for that.
        """
        self._num_asked += 1
        self._budget = min(self._budget + 1.0, _BURST_CALLS)
        early = self._pending.pop(call.asked.key, None) if call.asked is not None else None
        if early is None:
            return known
        now_s = self._clock()
        if early.call is None:
            self._settle(early, is_hit=True, lead_s=now_s - early.began_s)
        elif early.known is not None and self._calls.holds(early.known, call):
            self.counts.used += 1
            self._save(early, "used", early.known.took_s)
            return early.known
        elif known is None and early.took_s is None and early.call.version == call.version:
            early.joined_s = now_s
            return early
        else:
            self._waste(early)
        return known

    def start(self) -> list[EarlyCall]:
        """Decide which calls to make now, as the client has got an answer. Mutates.

        `end` follows for each, unless `drop_old` or `drop_all` returns it.
        """
        made: list[EarlyCall] = []
        open_ = (each for each in self._policies.predict(self._calls.session) if self._is_new(each))
        for predicted in itertools.islice(open_, _MAX_IN_FLIGHT):
            if len(self._in_flight) >= _MAX_IN_FLIGHT or self._budget < 1.0:
                break
            early = self._choose(predicted)
            if early is not None and early.call is not None:
                self.counts.started += 1
                self._budget -= 1.0
                self._in_flight.append(early)
                made.append(early)
        return made

    def end(self, early: EarlyCall, result: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Take in that an early call was answered. Mutates.

        Args:
            early: One that `start` returned.
            result: Its result; None for a JSON-RPC error.

        Returns:
            What answers the client that waits for it, if one does.
        """
        assert early.call is not None
        self._in_flight.remove(early)
        early.took_s = self._clock() - early.began_s
        final = result if result is not None and is_final(result) else None
        early.known = self._calls.end(early.call, final)
        if early.joined_s is not None and final is not None:
            self.counts.late += 1
            self._save(early, "late", early.joined_s - early.began_s)
            return final
        is_pending = self._pending.get(early.key) is early
        if is_pending and early.known is None:
            del self._pending[early.key]
        if early.joined_s is not None or (is_pending and early.known is None):
            self._waste(early)
        return None

    def leave(self, early: EarlyCall) -> None:
        """Take in that the client no longer waits for an early call. Mutates."""
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
        self._refused.update(early.prediction.tool for early in self._in_flight)

    def _is_new(self, predicted: KeyedPrediction) -> bool:
        _, key, prediction = predicted
        return key not in self._pending and prediction.tool not in self._refused

    def _choose(self, predicted: KeyedPrediction) -> EarlyCall | None:
        policy, key, prediction = predicted
        call = self._calls.begin_early(prediction.tool, prediction.arguments)
        if call is None or self._calls.recall(call) is not None:
            return None
        self.counts.predicted += 1
        made = None if prediction.is_trial else call
        early = EarlyCall(policy, key, prediction, made, self._clock(), self._num_asked)
        self._pending[key] = early
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

    def _save(self, early: EarlyCall, outcome: str, saved_s: float) -> None:
        self.counts.saved_s += saved_s
        self._policies.count(early.policy, outcome)
        self._settle(early, is_hit=True, lead_s=saved_s, saved_s=saved_s)

    def _waste(self, early: EarlyCall) -> None:
        age_s = self._clock() - early.began_s
        if early.call is None:
            self._settle(early, is_hit=False, lead_s=age_s)
            return
        took_s = age_s if early.took_s is None else early.took_s
        self.counts.wasted += 1
        self.counts.wasted_s += took_s
        self._policies.count(early.policy, "wasted")
        self._settle(early, is_hit=False, lead_s=age_s, wasted_s=took_s)

    def _settle(
        self,
        early: EarlyCall,
        *,
        is_hit: bool,
        lead_s: float,
        saved_s: float = 0.0,
        wasted_s: float = 0.0,
    ) -> None:
        outcome = is_hit, lead_s, saved_s, wasted_s
        self._policies.observe(PredictionSettled(self._calls.session, early.prediction, *outcome))
