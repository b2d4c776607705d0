"""KVFlow with a workflow's order, and InferCept above a lower tier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.policies.host import Cache, FixedOracle, chain

from holdfast.core.offload_port import NoOffload
from holdfast.policies.published.infercept import InferCept
from holdfast.policies.published.kvflow import KVFlow

ROUNDS = 6


def cycle() -> dict[str, list[bytes]]:
    """Calls of three agents in turn, whose prompts differ behind four blocks of their own."""
    return {f"{n}{name}": chain(name * 4 + str(n)) for n in range(ROUNDS) for name in "ABC"}


def found_in_last_rounds(policy: str, oracle: FixedOracle) -> int:
    cache = Cache(policy, 10, oracle)
    found = [cache.run(request_id, prompt) for request_id, prompt in cycle().items()]
    return sum(found[6:])


def test_a_cycle_that_recency_loses_is_found_again_by_who_knows_its_order() -> None:
    assert found_in_last_rounds("vllm-default", FixedOracle()) == 0
    assert found_in_last_rounds("kvflow", FixedOracle(prompts=cycle())) >= 4 * ROUNDS


def test_kvflow_announces_the_prefix_of_the_next_step_and_no_other() -> None:
    cache = Cache("kvflow", 40, FixedOracle(prompts=cycle()))
    for request_id in list(cycle())[:7]:
        cache.run(request_id, cycle()[request_id])
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, KVFlow)
    assert [node.hashes[-1] for node in policy.candidates()] == [b"BBBB"]


def test_kvflow_announces_nothing_where_nobody_gives_it_an_order() -> None:
    cache = Cache("kvflow", 40)
    for request_id, prompt in cycle().items():
        cache.run(request_id, prompt)
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, KVFlow)
    assert not list(policy.candidates())


@dataclass
class FullTier(NoOffload):
    """A tier that holds everything."""

    block_s: float

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        del guess
        return len(hashes) - first

    def load_s(self, num_blocks: float) -> float:
        return num_blocks * self.block_s


def kept_after_a_pause(tier: Any) -> bool:
    """Whether InferCept keeps a context, after pauses that are short against recomputing it."""
    cache = Cache("infercept", 40)
    cache.runtime.tier = tier
    for number in range(1, 5):
        cache.run(f"r{number}", chain("abcdefgh"[: 2 * number]))
        cache.now_s += 0.5
    (session,) = cache.runtime.sessions
    assert isinstance(cache.runtime.policies.admission, InferCept)
    return cache.runtime.policies.admission.retains(session)


def test_infercept_keeps_what_a_copy_would_not_bring_back_sooner() -> None:
    assert kept_after_a_pause(NoOffload())
    assert kept_after_a_pause(FullTier(math.inf))


def test_infercept_discards_what_a_fast_copy_brings_back() -> None:
    assert not kept_after_a_pause(FullTier(0.001))


def test_infercept_keeps_nothing_before_any_pause_has_ended() -> None:
    cache = Cache("infercept", 40)
    cache.run("r1", chain("abcdefgh"))
    (session,) = cache.runtime.sessions
    assert not cache.runtime.policies.admission.retains(session)
