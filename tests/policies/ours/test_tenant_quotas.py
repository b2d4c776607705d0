"""Quotas of tenants, with hand-worked times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.policies.ours.tenant_quotas import TenantQuotas
from holdfast.policies.registry import REQUEST_POLICIES
from holdfast.policies.requests import AnswerEnded, Refused, Request, RequestClosed, RequestPassed


def policy_of(**settings: Any) -> TenantQuotas:
    policy = REQUEST_POLICIES.build("tenant-quotas", settings)
    assert isinstance(policy, TenantQuotas)
    return policy


def request(now_s: float = 0.0, num_bytes: int = 400, tenant: str = "a") -> Request:
    text = b'{"x":"' + b"y" * (num_bytes - 8) + b'"}'
    body = RequestBody.parse(text)
    assert body is not None and len(body.text) == num_bytes
    return Request("/v1/messages", body, Identity(tenant=tenant), now_s)


def sent(policy: TenantQuotas, asked: Request) -> Refused | None:
    """Ask about a request as a gateway does, and let it pass if it may."""
    refused = policy.refuse(asked)
    if refused is None:
        policy.observe(RequestPassed(asked))
    return refused


def answered(policy: TenantQuotas, asked: Request, at_s: float, *tokens: int | None) -> None:
    prompt_tokens, output_tokens = tokens or (None, None)
    policy.observe(AnswerEnded(asked, at_s, prompt_tokens, output_tokens))
    policy.observe(RequestClosed(asked, at_s))


def test_a_minutes_requests_may_come_at_once() -> None:
    policy = policy_of(requests_per_min=30)
    assert [sent(policy, request()) for _ in range(30)] == [None] * 30
    # One request comes back every two seconds.
    refused = sent(policy, request())
    assert refused is not None and (refused.status, refused.retry_after_s) == (429, 2.0)
    assert "30 requests a minute" in refused.message and "in 2 s" in refused.message
    assert sent(policy, request(1.5)) is not None
    assert sent(policy, request(2.0)) is None
    assert sent(policy, request(2.0)) is not None


def test_tokens_are_guessed_then_set_right() -> None:
    policy = policy_of(tokens_per_min=600)
    first = request(num_bytes=400)  # 100 tokens by its bytes
    assert sent(policy, first) is None
    answered(policy, first, 0.0, 500, 60)  # 560 in all: 40 are left
    refused = sent(policy, request())
    # 60 of 100 tokens are missing, at 10 a second.
    assert refused is not None and refused.retry_after_s == pytest.approx(6.0)
    assert sent(policy, request(5.9)) is not None
    assert sent(policy, request(6.0)) is None


def test_answers_without_counts_leave_the_guess() -> None:
    policy = policy_of(tokens_per_min=200)
    for _ in range(2):
        asked = request(num_bytes=400)
        assert sent(policy, asked) is None
        answered(policy, asked, 0.0)
    assert sent(policy, request(num_bytes=400)) is not None


def test_more_than_a_minutes_tokens_pass_a_full_bucket() -> None:
    policy = policy_of(tokens_per_min=60)
    assert sent(policy, request(num_bytes=400)) is None  # 100 tokens: 40 are owed
    refused = sent(policy, request(num_bytes=400))
    assert refused is not None and refused.retry_after_s == pytest.approx(100.0)
    assert sent(policy, request(100.0, num_bytes=400)) is None


def test_open_requests_are_bounded() -> None:
    policy = policy_of(max_concurrent=2)
    first = request()
    assert [sent(policy, first), sent(policy, request())] == [None, None]
    refused = sent(policy, request())
    assert refused is not None and "2 requests at once" in refused.message
    policy.observe(RequestClosed(first, 1.0))
    assert sent(policy, request(1.0)) is None


def test_tenants_have_quotas_of_their_own() -> None:
    policy = policy_of(requests_per_min=1, tenants={"gold": {"requests_per_min": 3}, "free": {}})
    passed = {
        tenant: sum(sent(policy, request(tenant=tenant)) is None for _ in range(5))
        for tenant in ("gold", "free", "other", "")
    }
    assert passed == {"gold": 3, "free": 5, "other": 1, "": 1}


def test_the_longest_wait_is_told() -> None:
    policy = policy_of(requests_per_min=60, tokens_per_min=60, max_concurrent=1)
    assert sent(policy, request(num_bytes=240)) is None
    refused = sent(policy, request(num_bytes=240))
    assert refused is not None and "60 tokens a minute" in refused.message
    assert refused.retry_after_s == pytest.approx(60.0)


def test_many_tenants_are_forgotten() -> None:
    policy = policy_of(requests_per_min=1)
    for number in range(6000):
        asked = request(tenant=f"t{number}")
        sent(policy, asked)
        answered(policy, asked, 0.0)
    assert len(policy._accounts) <= 4096


@given(st.lists(st.floats(0, 20), max_size=60), st.integers(1, 30))
def test_no_window_has_more_than_twice_a_minutes_quota(gaps_s: list[float], quota: int) -> None:
    policy = policy_of(requests_per_min=quota)
    now_s, passed_s = 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        refused = sent(policy, request(now_s))
        if refused is None:
            passed_s.append(now_s)
        else:
            assert refused.retry_after_s is not None
            later = policy.refuse(request(now_s + refused.retry_after_s))
            assert later is None  # what it says is true
    for start_s in passed_s:
        window = [s for s in passed_s if start_s <= s < start_s + 60.0]
        assert len(window) <= 2 * quota
