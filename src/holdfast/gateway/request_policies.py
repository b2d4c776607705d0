"""Asks request policies, in order, and carries on without one that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from holdfast.core.request_body import RequestBody
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.refusal import Refusal
from holdfast.policies.requests import Request, RequestEvent, RequestPolicy, ToolCall

__all__ = ["RequestPolicies"]

logger = logging.getLogger(__name__)

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class RequestPolicies:
    """The request policies of a gateway.

    Args:
        policies: In the order in which they are asked.
        metrics: Counts what they do.
    """

    def __init__(self, policies: Sequence[RequestPolicy], metrics: GatewayMetrics) -> None:
        self._policies = list(policies)
        self._metrics = metrics

    def __bool__(self) -> bool:
        """Whether there is any to ask."""
        return bool(self._policies)

    @property
    def judges_calls(self) -> bool:
        """Whether tool calls of answers are to be judged."""
        return any(policy.judges_calls for policy in self._policies)

    def passed(self, request: Request) -> Request:
        """The request as it is to be sent. Mutates the counts.

        Raises:
            Refusal: A policy refuses the request.
        """
        for policy in tuple(self._policies):
            refused = self._ask(policy, policy.refuse, request)
            if refused is not None:
                self._count(policy, "refused")
                raise Refusal(refused.status, refused.message, refused.retry_after_s)
            text = self._ask(policy, policy.rewrite, request)
            body = None if text is None else self._ask(policy, _parsed, text)
            if body is not None:
                self._count(policy, "rewritten")
                request = replace(request, body=body)
        return request

    def denial(self, request: Request, call: ToolCall) -> str | None:
        """Why a tool call of an answer is denied; None lets it pass. Mutates the counts."""
        for policy in tuple(self._policies):
            reason = self._ask(policy, partial(policy.judge, request), call)
            if reason is not None:
                self._count(policy, "denied")
                return reason
        return None

    def observe(self, event: RequestEvent) -> None:
        """Show an event to each policy. Mutates the policies."""
        for policy in tuple(self._policies):
            self._ask(policy, policy.observe, event)

    def _ask(
        self, policy: RequestPolicy, question: Callable[[Asked], Answer], about: Asked
    ) -> Answer | None:
        """Ask a policy; one that raises is not asked again."""
        try:
            return question(about)
        except Exception:
            if policy in self._policies:
                self._policies.remove(policy)
            self._count(policy, "failed")
            logger.exception(
                "policy %s failed and is off until the gateway restarts; requests go on without it",
                policy.spec.name,
            )
            return None

    def _count(self, policy: RequestPolicy, action: str) -> None:
        self._metrics.policy_actions.labels(policy.spec.name, action).inc()


def _parsed(text: bytes) -> RequestBody:
    body = RequestBody.parse(text)
    if body is None:
        raise ValueError("it rewrote a request into what is no JSON object")
    return body
