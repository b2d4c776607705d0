"""Resets and pauses of an engine while it prefetches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.vllm.test_prefetch import (
    evicted_session,
    offloading,
    rig_of,
    session_of,
    set_candidate,
    step_until,
)

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

__all__ = ["offloading"]

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("offloading")]

tiers = pytest.mark.parametrize("disk_blocks", [0, 100], ids=["host", "disk"])
reset_options = pytest.mark.parametrize(
    "options",
    [{}, {"reset_running_requests": True}, {"reset_connector": True},
     {"reset_running_requests": True, "reset_connector": True}],
    ids=" and ".join,
)  # fmt: skip


def prefetching(make_rig: RigMaker, disk_blocks: int) -> Rig:
    """An engine without a request and with a prefetch to the GPU in flight."""
    rig = rig_of(make_rig, 14, 64, disk_blocks=disk_blocks)
    evicted_session(rig)
    assert rig.engine._link is not None
    rig.engine._link._block_s = 0.05  # from now on
    # The cache has no space for both, so one is always missing.
    coming = [session_of(rig, prompt).tail for prompt in ("abcdefgh", "stuvwxyz")]
    rig.scheduler._runtime.policies.prefetch.candidates = lambda: coming
    step_until(rig, lambda: rig.is_prefetching)
    rig.abort("run")
    assert rig.scheduler.offload._prefetcher._host_to_gpu.is_busy
    assert rig.scheduler.has_requests()
    return rig


def until_idle(rig: Rig) -> None:
    """Step until the engine would sleep."""
    for _ in range(1000):
        if not rig.scheduler.has_requests():
            return
        rig.step()
    raise AssertionError("the engine never sleeps")


@tiers
@reset_options
def test_reset_succeeds_at_the_second_try(
    disk_blocks: int, options: dict[str, bool], make_rig: RigMaker
) -> None:
    rig = prefetching(make_rig, disk_blocks)
    if not rig.scheduler.reset_prefix_cache(**options):
        until_idle(rig)
        assert rig.scheduler.reset_prefix_cache(**options)
    assert rig.num_free == rig.num_blocks
    assert rig.num_cached("k") == 0
    rig.check()
    rig.turn("4", "abcdefgh")
    set_candidate(rig, None)


@pytest.mark.parametrize("reset_running_requests", [False, True])
def test_failed_reset_preempts_no_request(
    make_rig: RigMaker, *, reset_running_requests: bool
) -> None:
    rig = prefetching(make_rig, 0)
    running = rig.send("4", "mn", num_outputs=90)
    rig.step()
    options = {"reset_running_requests": reset_running_requests}
    assert not rig.scheduler.reset_prefix_cache(**options)
    assert running in rig.scheduler.running
    step_until(rig, lambda: not rig.scheduler.offload._prefetcher._host_to_gpu.hold_blocks)
    assert running in rig.scheduler.running
    assert rig.scheduler.reset_prefix_cache(**options) is reset_running_requests
    set_candidate(rig, None)


def test_prefetching_resumes_after_a_reset(make_rig: RigMaker) -> None:
    rig = prefetching(make_rig, 0)
    rig.scheduler.reset_prefix_cache()
    until_idle(rig)
    assert rig.scheduler.reset_prefix_cache()
    assert not rig.scheduler.offload._prefetcher._is_halted
    set_candidate(rig, None)


def test_prefetching_resumes_without_a_second_reset(make_rig: RigMaker) -> None:
    rig = prefetching(make_rig, 0)
    rig.scheduler.reset_prefix_cache()
    until_idle(rig)
    assert not rig.is_prefetching
    rig.now_s += 100.0
    rig.send("4", "m", num_outputs=50)
    rig.step()
    assert rig.is_prefetching
    set_candidate(rig, None)


@tiers
@pytest.mark.parametrize("state", ["PAUSED_NEW", "PAUSED_ALL"])
def test_paused_engine_sleeps_with_an_empty_cache(
    disk_blocks: int, state: str, make_rig: RigMaker
) -> None:
    from vllm.v1.core.sched.interface import PauseState

    options: dict[str, Any] = {"reset_running_requests": True, "reset_connector": True}
    rig = prefetching(make_rig, disk_blocks)
    rig.scheduler.set_pause_state(PauseState[state])
    until_idle(rig)
    assert rig.scheduler.reset_prefix_cache(**options)  # as vLLM does before it sleeps
    rig.scheduler.set_pause_state(PauseState.UNPAUSED)
    set_candidate(rig, None)
    rig.turn("4", "abcdefgh")
