"""Prefetches, with links and disk in simulated time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

    from holdfast.core.session import Session

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("offloading")]


@pytest.fixture
def offloading(loaded_engine: None) -> None:
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")


def rig_of(make_rig: RigMaker, num_blocks: int, host_blocks: int, **options: Any) -> Rig:
    options.setdefault("host_policy", "HostPolicy")
    return make_rig(num_blocks, host_blocks=host_blocks, **options)


def session_of(rig: Rig, prompt: str) -> Session:
    from tests.vllm.conftest import keys_of

    node, _ = rig.scheduler._runtime.tree.match(keys_of(prompt))
    sessions: list[Session] = [session for run in node.subtree() for session in run.tails]
    return sessions[0]


def set_candidate(rig: Rig, session: Session | None) -> None:
    """Make a session the policy's only prefetch candidate, or have none."""
    policy = rig.scheduler._runtime.policies.prefetch
    policy.candidates = lambda: () if session is None else (session.tail,)


def num_in_host(rig: Rig, prompt: str) -> int:
    from tests.vllm.conftest import keys_of

    num_stored: int = rig.scheduler.offload.tier.num_stored(keys_of(prompt), 0)
    return num_stored


def num_loaded(rig: Rig) -> int:
    assert rig.engine._link is not None
    return rig.engine._link.num_loaded_blocks


def step_until(rig: Rig, is_reached: Callable[[], bool]) -> None:
    for _ in range(500):
        if is_reached():
            return
        rig.step()
    raise AssertionError("never reached")


def evicted_session(rig: Rig) -> None:
    """Evict a session from the cache, not from the host tier, beside a long turn."""
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyz")
    assert rig.num_cached("abcdefgh") < 8
    rig.send("run", "k", num_outputs=200)
    rig.step()


# From the host tier into the KV cache.


def test_prefetched_candidate_counts_as_used(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 30, 64)
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyzijklmnopqrABCD", num_outputs=2)
    assert rig.num_cached("abcdefgh") < 8
    rig.send("run", "1", num_outputs=100)
    set_candidate(rig, session_of(rig, "abcdefgh"))
    step_until(rig, lambda: rig.num_cached("abcdefgh") == 8 and not rig.is_prefetching)
    set_candidate(rig, None)
    before = rig.num_computed_tokens, num_loaded(rig)
    rig.send("3", "abcdefgh")
    rig.finish()
    assert num_loaded(rig) == before[1]
    assert rig.num_computed_tokens - before[0] < 100 + 8 + 20
    assert rig.prefetches == {"used": 1}


def _finish_tool(rig: Rig) -> None:
    from holdfast.core.commands import ToolFinished
    from holdfast.vllm.control.messages import encode

    rig.scheduler(encode(ToolFinished("", "s")))


def _idle(rig: Rig) -> None:
    """Step as vLLM's loop does, until it would wait for a request."""
    step_until(rig, lambda: not rig.scheduler.has_requests())


def test_finished_tool_wakes_an_idle_engine_to_prefetch(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64)
    rig.turn("1", "abcdefgh", session_id="s")
    rig.turn("2", "stuvwxyzABC", xargs={"holdfast_final": True})
    _idle(rig)
    assert rig.num_cached("abcdefgh") < 8
    _finish_tool(rig)
    assert rig.scheduler.has_requests()
    _idle(rig)
    assert rig.num_cached("abcdefgh") == 8
    rig.turn("3", rig.following(rig.requests["1"], "x"), session_id="s")
    assert rig.prefetches == {"used": 1}


def test_finished_tool_with_nothing_to_load_ends_in_idleness(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64)
    rig.turn("1", "abcdefgh", session_id="s")
    _finish_tool(rig)
    _idle(rig)
    assert not rig.prefetches


def test_prefetch_needed_in_flight_counts_as_late(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64)
    evicted_session(rig)
    set_candidate(rig, session_of(rig, "abcdefgh"))
    step_until(rig, lambda: rig.is_prefetching)
    set_candidate(rig, None)
    rig.send("3", "abcdefgh")
    rig.finish()
    assert rig.prefetches == {"late": 1}


def test_turn_knows_that_its_prefix_is_being_loaded(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64)
    evicted_session(rig)
    tier, session = rig.scheduler._runtime.tier, session_of(rig, "abcdefgh")
    hashes = [h for node in reversed(list(session.tail.path())) for h in node.hashes]
    set_candidate(rig, session)
    step_until(rig, lambda: rig.is_prefetching)
    assert tier.is_loading(hashes) and not tier.is_loading(hashes[1:])
    prefetch = tier.is_prefetched.__self__._current
    prefetch.depth = len(hashes)  # as after an earlier load of the path, some of it evicted since
    assert tier.is_loading(hashes)
    step_until(rig, lambda: not rig.is_prefetching)
    assert not tier.is_loading(hashes)


def test_prefetch_evicted_before_use_counts_as_wasted(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64)
    evicted_session(rig)
    set_candidate(rig, session_of(rig, "abcdefgh"))
    step_until(rig, lambda: rig.num_cached("abcdefgh") == 8 and not rig.is_prefetching)
    set_candidate(rig, None)
    rig.finish()
    rig.turn("3", "ABCDEFGHIJK")
    assert rig.num_cached("abcdefgh") < 8
    rig.turn("4", "abcdefgh")
    assert rig.prefetches == {"wasted": 1}


def test_no_prefetch_to_gpu_while_a_turn_is_queued(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64)
    evicted_session(rig)
    rig.send("3", "ABCDEFGHIJK", num_outputs=1)
    rig.send("4", "LMNOPQRSTUVW", num_outputs=1)
    set_candidate(rig, session_of(rig, "abcdefgh"))
    rig.step()
    assert len(rig.scheduler.waiting)
    rig.step()
    assert not rig.is_prefetching
    assert rig.prefetches["deferred"] >= 1
    set_candidate(rig, None)


def test_no_prefetch_while_offload_is_disabled(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64, disk_blocks=100)
    evicted_session(rig)
    rig.scheduler.offload.tier.is_enabled = False
    set_candidate(rig, session_of(rig, "abcdefgh"))
    reads = rig.scheduler.offload._prefetcher._disk_to_host
    before = reads._num_started
    rig.finish()
    assert reads._num_started == before


def test_prefetch_setting_disables_prefetching(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64, settings={"prefetch": 0})
    evicted_session(rig)
    set_candidate(rig, session_of(rig, "abcdefgh"))
    rig.finish()
    assert rig.num_cached("abcdefgh") < 8
    assert rig.prefetches == {}


def test_prefetch_spares_decode_growth_of_running_turns(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 10, 64)
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyz")
    rig.send("run", "klmnopqr", num_outputs=20)
    set_candidate(rig, session_of(rig, "abcdefgh"))
    rig.finish()
    assert rig.scheduler.counted.get("holdfast_fallbacks", 0) == 0
    assert not any(request.num_preemptions for request in rig.requests.values())


def test_fallback_frees_blocks_of_prefetches(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64, is_strict=False)
    evicted_session(rig)
    set_candidate(rig, session_of(rig, "abcdefgh"))
    step_until(rig, lambda: rig.is_prefetching)

    def fail() -> None:
        raise RuntimeError("broken")

    rig.scheduler._runtime.policies.prefetch.candidates = fail
    rig.scheduler._runtime.policies.eviction.session_priority = fail
    rig.send("3", "abcdefgh")
    rig.finish()
    assert not rig.scheduler._is_active


def test_requests_served_when_fallback_of_tiers_fails(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 14, 64, is_strict=False)
    rig.turn("1", "abcdefgh")

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    rig.scheduler.offload.fall_back = fail
    rig.scheduler._runtime.policies.eviction.session_priority = fail
    rig.turn("2", "stuvwxyz")
    assert rig.metrics["holdfast_fallbacks/let_go"] == 1


@pytest.mark.parametrize("is_ahead", [False, True])
def test_every_turn_ends_under_random_prefetches(make_rig: RigMaker, is_ahead: bool) -> None:
    rig = rig_of(make_rig, 24, 30, disk_blocks=80, is_ahead=is_ahead)
    rng = random.Random(5)
    runtime = rig.scheduler._runtime

    def candidates() -> Any:
        sessions = [session for session in runtime.sessions if session.tail.end]
        return (rng.choice(sessions).tail for _ in range(2 * bool(sessions)))

    runtime.policies.prefetch.candidates = candidates
    prompts = {name: name * 6 for name in "abcdefghij"}
    for turn in range(6):
        for name in prompts:
            prompts[name] += rng.choice("rstuv")
            rig.send(f"{name}{turn}", prompts[name], num_outputs=rng.randrange(1, 20))
            for _ in range(rng.randrange(4)):
                rig.step()
        if turn % 2:
            rig.abort(f"{rng.choice('abcdefghij')}{turn}")
            rig.finish()
        rig.check()
    rig.finish()
    assert rig.prefetches.keys() & {"used", "late", "wasted"}


# From disk into the host tier.


def rig_with_disk(make_rig: RigMaker, num_blocks: int, host_blocks: int) -> Rig:
    """A rig whose session "abcdefgh" is stored on disk only."""
    rig = rig_of(make_rig, num_blocks, host_blocks, disk_blocks=100)
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyz")
    for number in range(host_blocks // 8):
        rig.turn(f"over{number}", chr(ord("A") + number) * 8)
    assert num_in_host(rig, "abcdefgh") == 0
    return rig


def test_blocks_only_on_disk_are_not_computed_again(make_rig: RigMaker) -> None:
    rig = rig_with_disk(make_rig, 12, 20)
    before = rig.num_computed_tokens
    rig.turn("3", "abcdefgh")
    assert rig.num_computed_tokens - before < 3 * 16


def test_queued_turn_prefetched_from_disk_to_host(make_rig: RigMaker) -> None:
    rig = rig_with_disk(make_rig, 12, 40)
    rig.send("run", "klmnopqr", num_outputs=60)
    rig.step()
    rig.send("3", "abcdefgh")
    step_until(rig, lambda: num_in_host(rig, "abcdefgh") == 8)
    assert "3" not in rig.started
    rig.finish()
    assert rig.prefetches == {"used": 1}


def test_read_for_an_aborted_turn_ends(make_rig: RigMaker) -> None:
    rig = rig_with_disk(make_rig, 12, 40)
    rig.send("run", "klmnopqr", num_outputs=60)
    rig.step()
    rig.send("3", "abcdefgh")
    step_until(rig, lambda: rig.is_prefetching)
    rig.abort("3")
    rig.step()
    assert not rig.is_prefetching


def test_queued_turns_prefetch_at_most_a_quarter_of_the_tier(make_rig: RigMaker) -> None:
    rig = rig_with_disk(make_rig, 12, 20)
    rig.send("run", "klmnopqr", num_outputs=60)
    rig.step()
    rig.send("3", "abcdefgh")
    rig.step()
    assert not rig.is_prefetching
    assert rig.prefetches == {"deferred": 1}


def test_path_that_no_tier_stores_is_read_once(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 12, 40, disk_blocks=100)
    rig.send("run", "klmnopqr", num_outputs=60)
    rig.step()
    rig.send("3", "abcdefgh")
    for _ in range(40):
        rig.step()
    assert "3" not in rig.started
    assert rig.scheduler.offload._prefetcher._disk_to_host._num_started == 1


def test_idle_session_prefetch_evicts_no_owned_chunk(make_rig: RigMaker) -> None:
    rig = rig_with_disk(make_rig, 12, 20)
    before = [num_in_host(rig, prompt) for prompt in ("AAAAAAAA", "BBBBBBBB")]
    rig.send("run", "k", num_outputs=40)
    rig.finish()
    assert [num_in_host(rig, prompt) for prompt in ("AAAAAAAA", "BBBBBBBB")] == before


def test_idle_session_prefetched_into_unowned_chunks(make_rig: RigMaker) -> None:
    rig = rig_of(make_rig, 12, 16, disk_blocks=100)
    rig.turn("1", "abcdefgh")
    for number, prompt in enumerate(("ABCDEFGH", "IJKLMNOP")):
        rig.turn(f"over{number}", prompt)
    assert num_in_host(rig, "abcdefgh") == 0
    for number, prompt in enumerate(("ABCDEFGH", "IJKLMNOP")):
        rig.turn(f"last{number}", prompt, xargs={"holdfast_final": True})
    rig.send("run", "k", num_outputs=60)
    step_until(rig, lambda: num_in_host(rig, "abcdefgh") == 8)


def test_ready_turn_passes_one_whose_read_is_in_flight(make_rig: RigMaker) -> None:
    rig = rig_with_disk(make_rig, 24, 40)
    rig.send("3", "abcdefgh")
    rig.send("4", "klm", num_outputs=1)
    step_until(rig, lambda: "4" in rig.started)
    assert "3" not in rig.started
