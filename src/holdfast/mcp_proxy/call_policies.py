"""Asks a tenant's call policies, in order, and goes on without a broken one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from holdfast.policies.calls import AskedCall, CallEvent, CallPolicy, KnownResult, Prediction
from holdfast.predict.call_history import call_key

__all__ = ["CallPolicies", "KeyedPrediction", "PolicyActions"]

logger = logging.getLogger(__name__)

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

PolicyActions = Counter[tuple[str, str]]
"""How often a policy did something, by its name and what it did."""

KeyedPrediction = tuple[str, str, Prediction]
"""The policy's name, the call's key, and the prediction."""


class CallPolicies:
    """The call policies of one tenant.

    Args:
        policies: In the order in which they are asked.
        actions: Added to; may be shared.
    """

    def __init__(
        self, policies: Sequence[CallPolicy], actions: PolicyActions | None = None
    ) -> None:
        self._policies = list(policies)
        self._actions = PolicyActions() if actions is None else actions

    @property
    def does_predict(self) -> bool:
        """Whether any policy may name calls to make early."""
        return any(type(each).predict is not CallPolicy.predict for each in self._policies)

    def observe(self, event: CallEvent) -> None:
        """Show an event to each policy. Mutates the policies."""
        for policy in tuple(self._policies):
            self._ask(policy, policy.observe, event)

    def recall(self, call: AskedCall) -> Iterator[tuple[str, KnownResult]]:
        """What each policy knows of equal calls, and its name."""
        for policy in tuple(self._policies):
            known = self._ask(policy, policy.recall, call)
            if known is not None:
                yield policy.spec.name, known

    def predict(self, session: int) -> Iterator[KeyedPrediction]:
        """The calls that policies name, the best of each first."""
        for policy in tuple(self._policies):
            for key, each in self._ask(policy, _keyed(policy), session) or ():
                yield policy.spec.name, key, each

    def count(self, policy: str, action: str) -> None:
        """Count what a policy did. Mutates."""
        self._actions[policy, action] += 1

    def _ask(
        self, policy: CallPolicy, question: Callable[[Asked], Answer], about: Asked
    ) -> Answer | None:
        """Ask a policy; one that raises is not asked again."""
        try:
            return question(about)
        except Exception:
            name = policy.spec.name
            logger.exception("policy %s failed and is off until the proxy restarts", name)
            self.count(name, "failed")
            self._policies.remove(policy)
            return None


def _keyed(policy: CallPolicy) -> Callable[[int], list[tuple[str, Prediction]]]:
    def keyed(session: int) -> list[tuple[str, Prediction]]:
        found = policy.predict(session)
        return [(call_key(each.tool, dict(each.arguments)), each) for each in found]

    return keyed
