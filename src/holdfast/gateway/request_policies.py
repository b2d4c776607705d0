"""Asks request policies, in order, and carries on without one that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Final, TypeVar

from holdfast.core.request_body import RequestBody
from holdfast.gateway.audit_log import AuditLog
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.refusal import Refusal
from holdfast.policies.requests import (
    CallJudged,
    Refused,
    Request,
    RequestEvent,
    RequestPassed,
    RequestPolicy,
    ToolCall,
    Verdict,
)

__all__ = ["RequestPolicies"]

logger = logging.getLogger(__name__)

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_ALLOWED: Final = Verdict("allow")
_COUNTED: Final = {"allow": "allowed", "deny": "denied", "ask": "asked"}
_FAILED: Final = "failed"


class RequestPolicies:
    """The request policies of a gateway.

    Args:
        policies: In the order in which they are asked.
        metrics: Counts what they do.
        audit: Takes down what is decided about tool calls, and refusals; None keeps no log.
    """

    def __init__(
        self,
        policies: Sequence[RequestPolicy],
        metrics: GatewayMetrics,
        audit: AuditLog | None = None,
    ) -> None:
        self._policies = list(policies)
        self._metrics = metrics
        self._audit = audit
        self._failed: set[RequestPolicy] = set()
        self._distrusted: RequestPolicy | None = None

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
            Refusal: A policy refuses the request, or a mandatory one has failed.
        """
        if self._distrusted is not None:
            raise _unavailable(self._distrusted)
        for policy in tuple(self._policies):
            refused = self._ask(policy, policy.refuse, request)
            if refused is not None:
                self._refuse(policy, request, refused)
            text = self._ask(policy, policy.rewrite, request)
            body = None if text is None else self._ask(policy, _parsed, text)
            if body is not None:
                self._count(policy, "rewritten")
                request = replace(request, body=body)
        self.observe(RequestPassed(request))
        return request

    def judged(self, request: Request, call: ToolCall) -> Verdict:
        """What is decided about a call of an answer. Mutates counts and policies."""
        verdict, decided_by = _ALLOWED, ""
        for policy in tuple(self._policies):
            if not policy.judges_calls:
                continue
            try:
                found = self._ask(policy, partial(policy.judge, request), call)
            except Refusal as refusal:
                found = Verdict("deny", _FAILED, str(refusal))
            if found is None:
                continue
            self._count(policy, _COUNTED[found.action])
            if not decided_by or not found.is_allowed:
                verdict, decided_by = found, policy.spec.name
            if not found.is_allowed:
                break
        self.note(request, call, verdict, decided_by)
        self.observe(CallJudged(request, call, verdict, monotonic()))
        return verdict

    def note(self, request: Request, call: ToolCall, verdict: Verdict, policy: str = "") -> None:
        """Take down a decision about a call."""
        if self._audit is not None:
            decided = policy, verdict.rule, verdict.action
            self._audit.write(request.identity, request.path, *decided, call)

    def observe(self, event: RequestEvent) -> None:
        """Show an event to each policy. Mutates the policies."""
        for policy in tuple(self._policies):
            try:
                self._ask(policy, policy.observe, event)
            except Refusal:
                self._distrusted = policy  # its books are wrong from now on

    def _ask(
        self, policy: RequestPolicy, question: Callable[[Asked], Answer], about: Asked
    ) -> Answer | None:
        """Ask a policy; one that raises is not asked again, or refuses if it is mandatory."""
        try:
            return question(about)
        except Exception:
            if self._is_first_failure(policy):
                logger.exception("policy %s failed and %s", policy.spec.name, _outcome(policy))
            if policy.is_mandatory:
                raise _unavailable(policy) from None
            return None

    def _is_first_failure(self, policy: RequestPolicy) -> bool:
        """Take in a failure; whether it is the policy's first. Mutates."""
        self._count(policy, _FAILED)
        is_first = policy not in self._failed
        self._failed.add(policy)
        if is_first and not policy.is_mandatory:
            self._policies.remove(policy)
        return is_first

    def _refuse(self, policy: RequestPolicy, request: Request, refused: Refused) -> None:
        self._count(policy, "refused")
        if self._audit is not None:
            by = policy.spec.name, refused.rule
            self._audit.write(request.identity, request.path, *by, "refused")
        raise Refusal(refused.status, refused.message, refused.retry_after_s)

    def _count(self, policy: RequestPolicy, action: str) -> None:
        self._metrics.policy_actions.labels(policy.spec.name, action).inc()


def _outcome(policy: RequestPolicy) -> str:
    if policy.is_mandatory:
        return "is mandatory; what it cannot decide about is refused"
    return "is off until the gateway restarts; requests go on without it"


def _unavailable(policy: RequestPolicy) -> Refusal:
    name = policy.spec.name
    return Refusal(503, f"policy {name} has failed and nothing passes without it; tell an operator")


def _parsed(text: bytes) -> RequestBody:
    body = RequestBody.parse(text)
    if body is None:
        raise ValueError("it rewrote a request into what is no JSON object")
    return body
