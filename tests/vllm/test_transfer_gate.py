"""The transfer gate on vLLM's own connector, with copies on a simulated link."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.vllm.conftest import keys_of

from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("host_offloading")]

SLOW_S = 1.0  # copy time of a block; computing it takes 0.016 s


@pytest.fixture
def host_offloading(loaded_engine: None) -> None:
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")


def with_host(make_rig: RigMaker, num_blocks: int = 12, **options: Any) -> Rig:
    return make_rig(num_blocks, host_blocks=200, host_policy="HostPolicy", **options)


def learned(make_rig: RigMaker, num_blocks: int = 12, **options: Any) -> Rig:
    """A rig that has learned the cost of copies and of computing."""
    rig = with_host(make_rig, num_blocks, **options)
    for number, prompt in enumerate(("01234567", "89")):
        rig.turn(f"before {number}", prompt)
    assert rig.scheduler.offload.gate._knows_costs
    return rig


def num_stored(rig: Rig, prompt: str) -> int:
    return int(rig.scheduler.offload.tier.num_stored(keys_of(prompt), 0))


def num_loaded(rig: Rig) -> int:
    assert rig.engine._link is not None
    return rig.engine._link.num_loaded_blocks


def alternate(rig: Rig, num_turns: int, name: str) -> None:
    """Alternate two prompts that do not fit into the cache together."""
    for number in range(num_turns):
        rig.turn(f"{name} {number}", ("abcdefgh", "stuvwxyz")[number % 2], num_outputs=2)


def test_turn_is_stored(make_rig: RigMaker) -> None:
    rig = learned(make_rig)
    rig.turn("1", "abcdefgh")
    rig.turn("2", "s")
    assert num_stored(rig, "abcdefgh") == 8


def test_final_turn_is_not_stored(make_rig: RigMaker) -> None:
    rig = learned(make_rig)
    rig.turn("1", "abcdefgh", xargs={"holdfast_final": True})
    rig.turn("2", "s")
    assert num_stored(rig, "abcdefgh") == 0
    assert rig.metrics["holdfast_offload_skipped_turns/final"] == 1


def test_limits_of_the_request_win(make_rig: RigMaker) -> None:
    rig = learned(make_rig)
    request = rig.engine.request(
        "1", keys_of("abcdefgh"), 8 * 16 + 4, 4, extra_args={"holdfast_final": True}
    )
    request.kv_transfer_params = {"max_offload_tokens": 3 * 16}
    rig.hand_in(request)
    rig.finish()
    rig.turn("2", "s")
    assert num_stored(rig, "abcdefgh") == 3


def test_one_turn_stores_a_little_until_costs_known(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, 100, copy_s=SLOW_S)
    prompts = ("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    for prompt in prompts:
        rig.send(prompt, prompt)
    for _ in range(3):
        rig.step()
    assert len(rig.scheduler.offload.tier._owners) == 16
    rig.finish()


def test_waiting_turns_stored_once_costs_are_known(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, 100)
    rig.send("1", "abcdefghijklmnopqrstuvwxyz", num_outputs=40)
    rig.send("2", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", num_outputs=40)
    rig.finish()
    rig.turn("3", "s")
    assert num_stored(rig, "abcdefghijklmnopqrstuvwxyz") == 26
    assert num_stored(rig, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 26


def test_second_turn_stores_what_the_first_skipped(
    make_rig: RigMaker,
) -> None:
    rig = learned(make_rig, 30)
    first_turns = rig.scheduler.offload.gate._one_shot
    first_turns.return_share = first_turns.repeat_share = lambda _: 0.0
    rig.turn("1", "abcdefgh")
    rig.turn("2", "s")
    assert num_stored(rig, "abcdefgh") == 0
    assert rig.metrics["holdfast_offload_skipped_turns/one_shot"] == 2
    rig.turn("3", "abcdefghijkl")
    rig.turn("4", "s")
    assert num_stored(rig, "abcdefghijkl") == 12


def test_one_shot_prompts_store_only_shared_blocks(make_rig: RigMaker) -> None:
    rig = learned(make_rig, 40)
    rig.scheduler.offload.gate._one_shot.return_share = lambda _: 0.0
    rig.turn("1", "abcdefgh")
    rig.turn("2", "abcdexyz")
    rig.turn("3", "s")
    assert num_stored(rig, "abcdefgh") == 8
    assert num_stored(rig, "abcdexyz") == 5


def test_load_slower_than_computing_is_skipped(make_rig: RigMaker) -> None:
    rig = learned(make_rig)
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyz")
    for _ in range(200):
        rig.scheduler.offload.tier.copies.observe_load(100, 100 * SLOW_S)
    rig.turn("3", "abcdefgh")
    assert num_loaded(rig) == 0
    assert rig.metrics["holdfast_offload_declined_turns/slower"] == 1
    assert rig.metrics["holdfast_missed_tokens/offload_declined"] > 0


def test_turn_waits_for_a_read_no_longer_than_computing(
    make_rig: RigMaker,
) -> None:
    rig = learned(make_rig)
    assert rig.engine._link is not None
    rig.engine._link._block_s = 1000.0
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyz")
    assert rig.num_cached("abcdefgh") < 8
    began_s = rig.now_s
    rig.turn("3", "abcdefgh")
    assert rig.now_s - began_s < 5.0


def test_offload_over_a_slow_link_disabled_with_one_log_line(
    make_rig: RigMaker, caplog: pytest.LogCaptureFixture
) -> None:
    rig = with_host(make_rig, copy_s=SLOW_S)
    with caplog.at_level(logging.WARNING, "holdfast"):
        alternate(rig, 130, "a")
    assert rig.metrics["holdfast_offload_is_paying"] == 0
    logged = [r.getMessage() for r in caplog.records if "disabled" in r.getMessage()]
    assert len(logged) == 1 and "128 turns" in logged[0]
    assert num_loaded(rig) == 0


def test_slow_link_takes_no_longer_than_no_tier(make_rig: RigMaker) -> None:
    ends_s = []
    for rig in (with_host(make_rig, copy_s=SLOW_S), make_rig(12)):
        alternate(rig, 40, "a")
        ends_s.append(rig.now_s)
    assert ends_s[0] <= 1.01 * ends_s[1]


def test_offload_enabled_again_when_the_link_is_fast(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, copy_s=SLOW_S)
    alternate(rig, 130, "a")
    assert rig.engine._link is not None
    rig.engine._link._block_s = 0.0001
    alternate(rig, 300, "b")
    assert rig.metrics["holdfast_offload_is_paying"] == 1
    before = num_loaded(rig)
    alternate(rig, 20, "c")
    assert num_loaded(rig) > before


def test_offload_over_a_fast_link_stays_enabled(make_rig: RigMaker) -> None:
    rig = with_host(make_rig)
    alternate(rig, 300, "a")
    assert rig.metrics["holdfast_offload_is_paying"] == 1
    assert num_loaded(rig) > 100


def test_failed_gate_leaves_all_copies_to_vllm(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, is_strict=False)
    rig.scheduler.offload.gate._reason_to_skip = None  # fails when it is called
    for number, prompt in enumerate(("abcdefgh", "stuvwxyz", "abcdefgh")):
        rig.turn(str(number), prompt)
    assert rig.metrics["holdfast_fallbacks/tier_gate"] == 1
    assert num_loaded(rig) > 0
    del rig.scheduler.offload.gate._reason_to_skip


def test_full_tier_has_space_only_for_higher_priority() -> None:
    from holdfast.vllm.offload.host_policy import HostPolicy

    policy = HostPolicy(4)
    for owner, path in (("high", [b"a", b"b"]), ("low", [b"c", b"d"])):
        policy.chunk_owners.claim(owner, path)
        for key in path:
            policy.insert(key, None)
    policy.attach({"high": 5.0, "low": 1.0}.__getitem__)
    assert policy.has_space(2, 3.0)
    assert not policy.has_space(3, 3.0)
    assert not policy.has_space(1, 0.5)


def test_tier_with_free_chunks_has_space_for_any_priority() -> None:
    from holdfast.vllm.offload.host_policy import HostPolicy

    policy = HostPolicy(4)
    policy.chunk_owners.claim("high", [b"a"])
    policy.insert(b"a", None)
    policy.insert(b"unclaimed", None)
    policy.attach({"high": 5.0}.__getitem__)
    assert policy.has_space(3, 0.0)
    assert not policy.has_space(4, 0.0)
