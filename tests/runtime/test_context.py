"""What the runtime lets policies look at."""

from __future__ import annotations

import pytest
from tests.policies.host import Cache, FixedOracle, hashes_of, returns_after

from holdfast.core.offload_port import NoOffload
from holdfast.predict.step_cost import StepCostModel
from holdfast.runtime.context import RuntimeContext


class DepthCosts(StepCostModel):
    """A token takes 1 ms, and as much more for each token before its prompt's part."""

    def prefill_s(self, num_tokens: float, context_tokens: float = 0.0) -> float:
        return 0.001 * num_tokens * (1.0 + context_tokens)


def test_new_context_knows_nothing() -> None:
    context = RuntimeContext("guarded", None, None)
    assert (context.now_s, context.num_steps, context.capacity_blocks) == (0.0, 0, 0)
    assert context.oracle is None and isinstance(context.tier, NoOffload)
    assert not list(context.paused())
    assert context.returns.num_observed == 0.0
    assert context.restore_s(100) == 0.0


def test_oracle_and_learned_returns_are_the_given_ones() -> None:
    oracle, returns = FixedOracle(), returns_after({"other": [8.5]})
    context = RuntimeContext("guarded", oracle, returns)
    assert context.oracle is oracle and context.returns is returns


@pytest.mark.parametrize(
    ("predictions", "trusts"), [("guarded", True), ("always", True), ("never", False)]
)
def test_predictions_are_trusted_at_first_unless_never(predictions: str, trusts: bool) -> None:
    context = RuntimeContext(predictions, None, None)  # type: ignore[arg-type]
    assert context.trusts_predictions == trusts
    context.guard.trusts = not trusts
    assert context.trusts_predictions != trusts


def test_restore_cost_counts_tokens_and_those_before_them() -> None:
    context = RuntimeContext("never", None, None)
    context.costs = DepthCosts()
    context.block_tokens = 16
    # 2 blocks: 32 ms; after 3 others, which are 48 tokens, 49 times as much.
    assert context.restore_s(2) == pytest.approx(0.032)
    assert context.restore_s(2, 3) == pytest.approx(0.032 * 49)


def test_time_and_steps_are_the_hosts() -> None:
    cache = Cache("marconi", 8)
    cache.at(12.5)
    cache.runtime.step()
    cache.runtime.step(4)
    assert (cache.runtime.now_s, cache.runtime.num_steps) == (12.5, 5)


def test_attached_context_knows_the_caches_size() -> None:
    runtime = Cache("marconi", 8).runtime
    assert (runtime.capacity_blocks, runtime.block_tokens) == (8, 16)


def test_paused_sessions_are_listed_longest_idle_first() -> None:
    cache = Cache("marconi", 40)
    first, second = cache.session("a", hashes_of("a")), cache.session("b", hashes_of("b"))
    cache.start(cache.arrive("c", hashes_of("c")))  # runs
    assert list(cache.runtime.paused()) == [first, second]
    cache.session("a2", hashes_of("aa"))  # paused again
    assert list(cache.runtime.paused()) == [second, first]


def test_pause_that_outlasts_its_kind_is_gone() -> None:
    cache = Cache("marconi", 40, returns=returns_after({"other": [8.5] * 50}))
    session = cache.session("a", hashes_of("a"))
    # 98 of 100 gaps are shorter than 9.483384 s.
    cache.at(9.48)
    assert not cache.runtime.is_gone(session)
    cache.at(9.49)
    assert cache.runtime.is_gone(session)


def test_return_share_is_the_trackers() -> None:
    cache = Cache("marconi", 40)
    assert cache.runtime.return_share == 0.5
    session = cache.session("a", hashes_of("a"))
    session.has_moved_on = True
    cache.session("a2", hashes_of("aa"))
    assert cache.runtime.return_share == pytest.approx(2 / 3)
