"""Policies that predict evict by recency while the prediction guard sets predictions aside."""

from __future__ import annotations

import pytest
from tests.policies.host import Cache, hashes_of

from holdfast.policies.registry import build_policies, policy_names, policy_spec
from holdfast.tool_calls.turn_end import TurnEnd

TOOL, HUMAN = TurnEnd("tool", ()), TurnEnd("human", ())
GUARDED = [
    name
    for name in policy_names()
    if build_policies(name, Cache("vllm-default", 4).runtime).eviction.uses_predictions
]


def taught(name: str) -> Cache:
    """A cache that has seen short pauses at tools and long ones of humans."""
    cache = Cache(name, 200)
    for kind, gap_s, end in (("t", 1.0, TOOL), ("h", 500.0, HUMAN)):
        for length in range(1, 12):
            cache.run(f"{kind}{length}", hashes_of(kind * length), end)
            cache.now_s += gap_s
    return cache


def test_who_is_guarded() -> None:
    assert {"holdfast", "cachewise", "saga", "return-rate", "clairvoyant"} <= set(GUARDED)
    assert "cachewise-oracle" not in GUARDED


@pytest.mark.parametrize("name", [n for n in GUARDED if not policy_spec(n).needs])
@pytest.mark.parametrize(("is_trusted", "first"), [(True, "human"), (False, "tool")])
def test_recency_decides_while_predictions_are_aside(
    name: str, is_trusted: bool, first: str
) -> None:
    cache = taught(name)
    cache.run("tool", hashes_of("TOOL"), TOOL)
    cache.now_s += 0.3
    cache.run("human", hashes_of("HUMAN"), HUMAN)
    cache.now_s += 0.1
    tool, human = list(cache.runtime.sessions)[-2:]
    cache.runtime.guard.trusts = is_trusted
    cache.runtime.tick(cache.now_s)
    for session in (tool, human):
        cache.runtime._priorities.mark(session)
    cache.runtime.step()
    evicted_first = min((tool, human), key=lambda s: cache.runtime.priority_of(s.tail))
    assert evicted_first is (human if first == "human" else tool)
