"""Warm-ups of predicted agents' prompts on an engine without requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine

ASKS = {"holdfast_warm_up": 1}
FINAL = {"holdfast_final": 1}


@pytest.fixture
def make_warming(make_rig: RigMaker) -> Callable[..., Rig]:
    """Rigs whose engine may spend half of its time on warm-ups."""

    def make(
        num_blocks: int = 40, *, share: float = 0.5, whose: str = "asked", **shape: Any
    ) -> Rig:
        settings = {"warm_up_share": share, "warm_up": whose}
        return make_rig(num_blocks, settings=settings, **shape)

    return make


def counts(rig: Rig) -> dict[str, int]:
    return {key: number for key, number in rig.scheduler.warm_ups.counts.items() if number}


def lose_prefix(rig: Rig, prompt: str, **options: Any) -> None:
    """Have an agent's prompt evicted by a session that ends."""
    rig.turn("agent", prompt, **options)
    burst = "".join(chr(0x100 + number) for number in range(rig.num_blocks - 2))
    rig.turn("burst", burst, num_outputs=1, xargs=FINAL)
    assert rig.num_cached(prompt) < len(prompt)


def predict(rig: Rig, prompt: str) -> None:
    """Make the policy expect a prompt, and another request end."""
    from tests.vllm.conftest import keys_of

    policy = rig.scheduler._runtime.policies.prefetch
    runtime = rig.scheduler._runtime
    policy.candidates = lambda: (runtime.tree.match(keys_of(prompt)).node,)
    rig.turn("other", "y", num_outputs=2, xargs=FINAL)


def test_predicted_prompt_is_computed_and_used(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming()
    lose_prefix(rig, "abcdefgh", xargs=ASKS)
    predict(rig, "abcdefgh")
    assert rig.num_cached("abcdefgh") == 8
    assert counts(rig) == {"started": 1}
    rig.turn("next", "abcdefghk")
    assert counts(rig) == {"started": 1, "used": 1}
    rig.scheduler._queue.check_integrity()


def test_no_warm_up_for_a_tenant_that_did_not_ask(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming()
    lose_prefix(rig, "abcdefgh")
    predict(rig, "abcdefgh")
    assert rig.num_cached("abcdefgh") < 8
    assert not counts(rig)


def test_setting_asks_for_all(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming(whose="all")
    lose_prefix(rig, "abcdefgh")
    predict(rig, "abcdefgh")
    assert counts(rig) == {"started": 1}


def test_no_warm_up_by_default(make_rig: RigMaker) -> None:
    rig = make_rig(40)
    lose_prefix(rig, "abcdefgh", xargs=ASKS)
    predict(rig, "abcdefgh")
    assert rig.num_cached("abcdefgh") < 8


def test_warm_up_beyond_the_budget_is_refused(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming(share=1e-9)
    lose_prefix(rig, "abcdefgh", xargs=ASKS)
    predict(rig, "abcdefgh")
    assert counts(rig) == {"no_budget": 1}
    assert rig.num_cached("abcdefgh") < 8


def test_warm_up_evicts_no_session_that_may_return(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming()
    rig.turn("agent", "abcdefgh", xargs=ASKS)
    rig.turn("burst", "".join(chr(0x100 + number) for number in range(38)), num_outputs=1)
    before = rig.num_cached("".join(chr(0x100 + number) for number in range(38)))
    predict(rig, "abcdefgh")
    assert counts(rig) == {"no_space": 1}
    assert rig.num_cached("".join(chr(0x100 + number) for number in range(38))) >= before - 2


def test_request_aborts_a_warm_up_whose_blocks_stay(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming(max_num_batched_tokens=64)
    lose_prefix(rig, "abcdefgh", xargs=ASKS)
    from tests.vllm.conftest import keys_of

    runtime = rig.scheduler._runtime
    runtime.policies.prefetch.candidates = lambda: (runtime.tree.match(keys_of("abcdefgh")).node,)
    rig.send("other", "y", num_outputs=1, xargs=FINAL)
    while not counts(rig):
        rig.step()
    num_cached = rig.num_cached("abcdefgh")
    rig.step()
    assert num_cached < rig.num_cached("abcdefgh") < 8
    rig.send("client", "z", num_outputs=1)
    assert set(rig.scheduler.requests) == {"client"}
    rig.step()
    rig.finish()
    rig.scheduler._queue.check_integrity()


def test_clients_see_nothing_of_a_warm_up(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming()
    lose_prefix(rig, "abcdefgh", xargs=ASKS)
    seen: list[str] = []
    update = rig.scheduler.update_from_output

    def record(*args: Any, **kwargs: Any) -> Any:
        outputs = update(*args, **kwargs)
        for client in outputs.values():
            seen.extend(output.request_id for output in client.outputs)
            seen.extend(client.finished_requests or ())
        return outputs

    rig.scheduler.update_from_output = record
    num_turns = len(rig.scheduler._runtime.sessions)
    predict(rig, "abcdefgh")
    assert counts(rig) == {"started": 1}
    assert set(seen) == {"other"}
    assert len(rig.scheduler._runtime.sessions) == num_turns + 1


def test_warm_up_is_not_repeated_until_needed(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming()
    lose_prefix(rig, "abcdefgh", xargs=ASKS)
    predict(rig, "abcdefgh")
    burst = "".join(chr(0x300 + number) for number in range(38))
    rig.turn("second", burst, num_outputs=1, xargs=FINAL)
    assert rig.num_cached("abcdefgh") < 8
    rig.turn("third", "x", num_outputs=1, xargs=FINAL)
    assert counts(rig) == {"started": 1}
    rig.turn("next", "abcdefghk", xargs=ASKS)
    assert counts(rig)["wasted"] == 1


def test_wasted_warm_ups_shrink_the_budget(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming()
    warm_ups = rig.scheduler.warm_ups
    warm_ups._learn_used(0, 10)
    # 0.8^10 = 0.107 of the share.
    assert warm_ups._used_share == pytest.approx(0.107, abs=0.001)


def test_reset_of_the_cache_ends_warm_ups(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming(max_num_batched_tokens=64)
    lose_prefix(rig, "abcdefgh", xargs=ASKS)
    from tests.vllm.conftest import keys_of

    runtime = rig.scheduler._runtime
    runtime.policies.prefetch.candidates = lambda: (runtime.tree.match(keys_of("abcdefgh")).node,)
    rig.send("other", "y", num_outputs=1, xargs=FINAL)
    while not counts(rig):
        rig.step()
    assert rig.scheduler.reset_prefix_cache()
    rig.finish()
    assert not rig.scheduler.requests
    assert rig.num_cached("abcdefgh") == 0


def test_fallback_ends_a_warm_up(make_warming: Callable[..., Rig]) -> None:
    rig = make_warming(max_num_batched_tokens=64, is_strict=False)
    lose_prefix(rig, "abcdefgh", xargs=ASKS)
    from tests.vllm.conftest import keys_of

    scheduler = rig.scheduler
    policy, tree = scheduler._runtime.policies.prefetch, scheduler._runtime.tree
    policy.candidates = lambda: (tree.match(keys_of("abcdefgh")).node,)
    rig.send("other", "y", num_outputs=1, xargs=FINAL)
    while not counts(rig):
        rig.step()
    scheduler._guard("test", lambda: 1 / 0)
    rig.step()
    rig.finish()
    assert scheduler.warm_ups.request_id is None
    rig.turn("next", "abcdefghk")
