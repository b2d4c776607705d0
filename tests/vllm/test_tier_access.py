"""Calls of vLLM's tier manager, which threads of vLLM 0.33 call as well."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import get_ident
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.vllm.compat import end_tier_access, region_paths, tier_lock
from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("offloading")]


@pytest.fixture
def offloading(loaded_engine: None) -> None:
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")


ENTERED = (
    "lookup", "on_new_request", "on_request_finished", "prepare_load", "prepare_store",
    "complete_load", "complete_store",
)  # fmt: skip


def watch_entries(rig: Rig) -> dict[str, int]:
    """Count the calls of a rig's manager; each must hold the lock alone."""
    transfers = rig.scheduler.connector.connector_scheduler
    manager = transfers.manager
    counts = dict.fromkeys(ENTERED, 0)

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            assert manager.lock.locked(), name
            counts[name] += 1
            return method(*args, **named)

        return call

    for name in ENTERED:
        setattr(manager, name, watched(name, getattr(manager, name)))
    locked = transfers._manager_locked

    @contextmanager
    def checked() -> Iterator[None]:
        assert transfers._step_region is None, "a lookup outside of a step still has the lock"
        with locked():
            yield

    transfers._manager_locked = checked
    return counts


def test_one_thread_at_a_time_calls_the_manager(make_rig: RigMaker) -> None:
    if is_older(engine_version(), (0, 33)):
        pytest.skip("this vLLM has no thread of its own in the manager")
    rig = make_rig(30, host_blocks=24, disk_blocks=200, host_policy="HostPolicy")
    counts = watch_entries(rig)
    dice = random.Random(3)
    prompts = [f"{letter}bcdefgh"[: dice.randint(4, 8)] for letter in "stuvwxyz"]
    policy = rig.scheduler._runtime.policies.prefetch
    for turn in range(40):
        sessions = [one for one in rig.sessions if one.tail.parent is not None]
        coming = [one.tail for one in dice.sample(sessions, min(len(sessions), 3))]
        policy.candidates = lambda coming=coming: coming
        rig.send(str(turn), dice.choice(prompts), num_outputs=dice.randint(1, 40))
        for _ in range(dice.randint(1, 30)):
            rig.step()
        if turn % 20 == 19:
            rig.finish()
    policy.candidates = tuple
    rig.finish()
    assert all(counts.values()), counts
    assert sum(rig.prefetches.values()) > 5


@pytest.mark.parametrize("host_policy", ["HostPolicy", "lru"])
def test_only_vllms_own_policies_called_between_steps(
    make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch, host_policy: str
) -> None:
    from holdfast.vllm.simulator.disk_tier import SimulatedDisk

    if is_older(engine_version(), (0, 33)):
        pytest.skip("this vLLM has no thread of its own in the manager")
    monkeypatch.setattr(SimulatedDisk, "tolerates_off_thread_polling", True)
    rig = make_rig(20, host_blocks=24, disk_blocks=200, host_policy=host_policy)
    manager = rig.scheduler.connector.connector_scheduler.manager
    try:
        assert (manager._tier_poll_thread is None) == (host_policy == "HostPolicy")
        for turn in range(12):
            rig.turn(str(turn), f"{'stuv'[turn % 4]}bcdefgh")
        assert rig.metrics.get("holdfast_fallbacks", 0) == 0
    finally:
        manager._stop_tier_poll_thread()


def test_tier_lock_of_older_vllm_is_a_null_context() -> None:
    assert isinstance(tier_lock(SimpleNamespace()), nullcontext)
    lock: AbstractContextManager[int] = nullcontext(get_ident())
    assert tier_lock(SimpleNamespace(lock=lock)) is lock


def test_lookup_lock_is_released() -> None:
    released: list[bool] = []
    end_tier_access(SimpleNamespace(_release_step=lambda: released.append(True)))
    end_tier_access(SimpleNamespace())
    assert released == [True]


def test_region_paths_of_one_or_several_files() -> None:
    one = SimpleNamespace(mmap_path="/dev/shm/a")
    assert [str(path) for path in region_paths(one)] == ["/dev/shm/a"]
    two = SimpleNamespace(mmap_path="/a", _segments=[("/a", 0, 8), ("/a.1", 8, 8)])
    assert [str(path) for path in region_paths(two)] == ["/a", "/a.1"]
