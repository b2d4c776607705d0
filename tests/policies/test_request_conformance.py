"""What holds for every request policy, whatever clients send."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.errors import PolicyError
from holdfast.policies.registry import REQUEST_POLICIES
from holdfast.policies.requests import (
    AnswerEnded,
    Refused,
    Request,
    RequestClosed,
    RequestPassed,
    RequestPolicy,
    RequestSent,
    ToolCall,
    Verdict,
)

NAMES = REQUEST_POLICIES.names()
BUSY: dict[str, dict[str, Any]] = {
    "tenant-quotas": {"requests_per_min": 3, "tokens_per_min": 500, "max_concurrent": 2},
    "tool-rules": {"repeats": 1, "turns": 3, "tokens": 500, "sessions": 64},
}
"""Settings with which a policy has something to decide; others have their defaults."""

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")
FIELDS = (
    *("model", "messages", "input", "prompt", "system", "tools", "instructions", "metadata"),
    *("cache_salt", "stream", "previous_response_id", "vllm_xargs", "kv_transfer_params", "x"),
)
plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "name"]), inner)
    ),
    max_leaves=8,
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
names = st.none() | st.text(max_size=4)
identities = st.builds(
    Identity, names, names, names, names, tenant=st.sampled_from(["", "a", "b:1"])
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    body = RequestBody.parse(json.dumps(draw(bodies)).encode())
    assert body is not None
    path, identity = draw(st.sampled_from(PATHS)), draw(identities)
    return Request(path, body, identity, draw(st.floats(0, 1e6)))


calls = st.builds(ToolCall, st.text(max_size=6), st.text(max_size=8) | values.map(json.dumps))


def policy_of(name: str) -> RequestPolicy:
    return REQUEST_POLICIES.build(name, BUSY.get(name, {}))


def state_of(policy: RequestPolicy) -> bytes:
    return pickle.dumps({name: value for name, value in vars(policy).items() if name != "settings"})


def see(policy: RequestPolicy, request: Request, tokens: int | None = 20) -> None:
    """Show a policy a request from its arrival to its end."""
    now_s = request.now_s
    policy.observe(RequestPassed(request))
    policy.observe(RequestSent(request, now_s, 100, 50))
    policy.observe(AnswerEnded(request, now_s, tokens, tokens))
    policy.observe(RequestClosed(request, now_s))


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(requests(), max_size=4), requests(), calls)
def test_questions_change_nothing_whatever_is_sent(
    name: str, seen: list[Request], asked: Request, call: ToolCall
) -> None:
    policy = policy_of(name)
    for number, request in enumerate(seen):
        see(policy, request, number or None)
    before = state_of(policy)
    for _ in range(2):
        refused, rewritten = policy.refuse(asked), policy.rewrite(asked)
        assert refused is None or isinstance(refused, Refused)
        if refused is not None:
            assert 400 <= refused.status < 600 and refused.message
        assert rewritten is None or RequestBody.parse(rewritten) is not None
        judged = policy.judge(asked, call) if policy.judges_calls else None
        assert judged is None or isinstance(judged, Verdict)
    assert state_of(policy) == before


@pytest.mark.parametrize("name", NAMES)
def test_books_of_many_sessions_are_bounded(name: str) -> None:
    policy = policy_of(name)
    sizes = []
    for round_ in range(2):
        for number in range(1500):
            body = RequestBody.parse(b'{"messages": [{"role": "user", "content": "hi"}]}')
            assert body is not None
            identity = Identity(f"s{round_}-{number}", tenant="a")
            see(policy, Request(PATHS[0], body, identity, float(number)))
        sizes.append(len(state_of(policy)))
    assert sizes[1] <= 1.1 * sizes[0] + 1024


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_are_refused(name: str) -> None:
    spec = REQUEST_POLICIES.kind(name).spec
    assert spec.name == name and spec.summary.endswith(".") and spec.source
    with pytest.raises(PolicyError, match="no setting 'no_such_setting'"):
        REQUEST_POLICIES.build(name, {"no_such_setting": 1})
