"""Speculation: the next tool calls, while making them early saves time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from msgspec import Meta

from holdfast.policies.calls import (
    AskedCall,
    CallAnswered,
    CallAsked,
    CallEvent,
    CallPolicy,
    Prediction,
    PredictionSettled,
    SessionEnded,
)
from holdfast.policies.spec import PolicySettings, PolicySpec
from holdfast.predict.call_history import CallHistory, offered_values
from holdfast.predict.call_patterns import CallPatterns
from holdfast.predict.speculation_ledger import SpeculationLedger

__all__ = ["Speculation", "SpeculationSettings"]


class SpeculationSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `Speculation`.

    Attributes:
        waste_weight: Seconds saved that a second of the server's work for nothing may cost (>= 0).
    """

    waste_weight: Annotated[float, Meta(ge=0)] = 0.25


class Speculation(CallPolicy):
    """Predicts calls by what followed equal ones; its sessions learn from each other."""

    spec = PolicySpec(
        name="speculation",
        summary="Makes predicted read-only tool calls before the client asks for them.",
        source="PASTE (Sui et al., arXiv 2603.18897, 2026)",
        differs="Learns from what passes, without mining, and stops while it wastes more than it "
        "saves.",
        settings=SpeculationSettings,
    )

    def __init__(self, settings: SpeculationSettings) -> None:
        super().__init__(settings)
        self._patterns = CallPatterns()
        self._ledger = SpeculationLedger(settings.waste_weight)
        self._histories: dict[int, CallHistory] = {}

    def observe(self, event: CallEvent) -> None:
        """Learn which call follows which, how long tools take, and what it was good for."""
        match event:
            case CallAsked(call):
                history = self._histories.setdefault(call.session, CallHistory())
                self._patterns.learn(history, call.tool, call.arguments)
                history.add(call.tool, call.arguments)
            case CallAnswered(call, took_s=took_s):
                self._learn_answer(call, event)
                if took_s is not None:
                    self._ledger.observe_time(call.tool, took_s)
            case PredictionSettled(prediction=Prediction(is_trial=True)):
                self._settle_trial(event)
            case PredictionSettled(saved_s=saved_s, wasted_s=wasted_s):
                self._ledger.settle(saved_s, wasted_s)
            case SessionEnded(session):
                self._histories.pop(session, None)

    def predict(self, session: int) -> Sequence[Prediction]:
        """The calls that are likely enough, as trials while they would waste more. Pure."""
        return tuple(self._promising(session))

    def _promising(self, session: int) -> Iterator[Prediction]:
        history = self._histories.get(session)
        for found in self._patterns.predict(history) if history else ():
            if self._ledger.is_promising(found.tool, found.probability):
                yield Prediction(found.tool, found.arguments, not self._ledger.is_enabled)

    def _learn_answer(self, call: AskedCall, event: CallAnswered) -> None:
        history = self._histories.get(call.session)
        past = history.newest(call.key) if history else None
        if past is not None:
            past.offers = offered_values(event.result, past.arguments)

    def _settle_trial(self, event: PredictionSettled) -> None:
        expected_s = self._ledger.expected_s(event.prediction.tool)
        if event.is_hit:
            self._ledger.settle(min(expected_s, event.lead_s), 0.0)
        else:
            self._ledger.settle(0.0, expected_s)
