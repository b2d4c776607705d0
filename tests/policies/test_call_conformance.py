"""What holds for every call policy, whatever clients ask for."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import PolicyError
from holdfast.policies.calls import (
    AskedCall,
    CallAnswered,
    CallAsked,
    CallEvent,
    CallPolicy,
    KnownResult,
    Prediction,
    PredictionSettled,
    ResultOutdated,
    SessionEnded,
)
from holdfast.policies.registry import CALL_POLICIES
from holdfast.predict.call_history import call_key

NAMES = CALL_POLICIES.names()
EAGER: dict[str, dict[str, Any]] = {"speculation": {"waste_weight": 0.0}}
"""Settings with which a policy has something to decide; others have their defaults."""

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
results = st.fixed_dictionaries(
    {"content": st.lists(st.fixed_dictionaries({"text": st.text(max_size=20)}), max_size=2)},
    optional={"isError": st.booleans(), "structuredContent": values},
)
times = st.floats(0, 1e6)


@st.composite
def calls(draw: st.DrawFn) -> AskedCall:
    tool, session = draw(st.sampled_from(["read", "list", "write", ""])), draw(st.integers(1, 2))
    arguments = draw(st.dictionaries(st.sampled_from(["path", "x", ""]), values, max_size=2))
    key = call_key(tool, arguments)
    return AskedCall(session, tool, arguments, key, tool == "write", draw(times))


@st.composite
def known_results(draw: st.DrawFn) -> KnownResult:
    result, took_s = draw(results), draw(times)
    return KnownResult(draw(calls()), result, len(str(result)), took_s, draw(times), "version")


predictions = st.builds(
    Prediction, st.sampled_from(["read", "x"]), st.just({"path": "a"}), st.booleans()
)
events: st.SearchStrategy[CallEvent] = st.one_of(
    st.builds(CallAsked, calls()),
    st.builds(CallAnswered, calls(), results, st.none() | times, st.none() | known_results()),
    st.builds(ResultOutdated, known_results()),
    st.builds(
        PredictionSettled, st.integers(1, 2), predictions, st.booleans(), times, times, times
    ),
    st.builds(SessionEnded, st.integers(1, 2)),
)


def policy_of(name: str) -> CallPolicy:
    return CALL_POLICIES.build(name, EAGER.get(name, {}))


def state_of(policy: CallPolicy) -> bytes:
    return pickle.dumps({name: value for name, value in vars(policy).items() if name != "settings"})


def see(policy: CallPolicy, call: AskedCall, took_s: float = 0.1) -> None:
    """Show a policy a call from its begin to its end."""
    policy.observe(CallAsked(call))
    result = {"content": [{"text": f"result of {call.arguments}"}]}
    ended_s = call.asked_s + took_s
    known = None if call.is_change else KnownResult(call, result, 50, took_s, ended_s, "version")
    policy.observe(CallAnswered(call, result, took_s, known))


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(events, max_size=8), calls())
def test_questions_change_nothing_whatever_is_seen(
    name: str, seen: list[CallEvent], asked: AskedCall
) -> None:
    policy = policy_of(name)
    for event in seen:
        policy.observe(event)
    before = state_of(policy)
    for _ in range(2):
        known = policy.recall(asked)
        assert known is None or isinstance(known, KnownResult)
        for prediction in policy.predict(asked.session):
            assert call_key(prediction.tool, dict(prediction.arguments))
    assert state_of(policy) == before


@pytest.mark.parametrize("name", NAMES)
def test_results_are_recalled_for_equal_calls_of_the_session(name: str) -> None:
    policy = policy_of(name)
    asked = [AskedCall(s, "read", {"n": n}, f"read {n}", False, 1.0) for s in (1, 2) for n in "ab"]
    for call in asked:
        see(policy, call)
    for call in asked:
        known = policy.recall(call)
        assert known is None or known.call is call


@pytest.mark.parametrize("name", NAMES)
def test_books_of_many_sessions_are_bounded(name: str) -> None:
    policy = policy_of(name)
    sizes = []
    for round_ in range(2):
        for session in range(300):
            for number in range(20):
                arguments = {"path": f"{number % 10}"}
                key = call_key("read", arguments)
                session_ = 1000 * round_ + session
                see(policy, AskedCall(session_, "read", arguments, key, False, 1.0))
            policy.observe(SessionEnded(1000 * round_ + session))
        sizes.append(len(state_of(policy)))
    assert sizes[1] <= 1.1 * sizes[0] + 1024


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_are_refused(name: str) -> None:
    spec = CALL_POLICIES.kind(name).spec
    assert spec.name == name and spec.summary.endswith(".") and spec.source
    with pytest.raises(PolicyError, match="no setting 'no_such_setting'"):
        CALL_POLICIES.build(name, {"no_such_setting": 1})
