"""The hint for warm-ups, in tenants' names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.errors import PolicyError
from holdfast.policies.registry import REQUEST_POLICIES
from holdfast.policies.requests import Request


def rewritten(body: dict[str, Any], tenant: str, **settings: Any) -> dict[str, Any] | None:
    """What a request of a tenant is sent as; None if it is left."""
    parsed = RequestBody.parse(json.dumps(body).encode())
    assert parsed is not None
    asked = Request("/v1/messages", parsed, Identity(tenant=tenant), 0.0)
    text = REQUEST_POLICIES.build("warm-ups", settings).rewrite(asked)
    return None if text is None else json.loads(text)


def test_only_tenants_that_asked_get_the_hint() -> None:
    body = {"model": "m", "messages": []}
    assert rewritten(body, "a", tenants=["a"]) == {**body, "vllm_xargs": {"holdfast_warm_up": True}}
    assert rewritten(body, "b", tenants=["a"]) is None
    assert rewritten(body, "") is not None and rewritten(body, "a") is None


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"x": 1}, {"x": 1, "holdfast_warm_up": True}),
        (None, {"holdfast_warm_up": True}),
        ({"holdfast_warm_up": False}, None),  # the client's own word
        ([1], None),
        ("text", None),
    ],
)
def test_what_a_client_says_stays(given: Any, sent: dict[str, Any] | None) -> None:
    found = rewritten({"model": "m", "vllm_xargs": given}, "a", tenants=["a"])
    assert (None if found is None else found["vllm_xargs"]) == sent


def test_no_tenant_at_all_is_a_mistake() -> None:
    with pytest.raises(PolicyError, match="tenants"):
        REQUEST_POLICIES.build("warm-ups", {"tenants": []})
