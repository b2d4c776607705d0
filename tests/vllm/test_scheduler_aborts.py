"""Aborts, preemptions and cache resets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine

is_ahead = pytest.mark.parametrize("is_ahead", [False, True], ids=["in step", "a step ahead"])


def _resumes(rig: Rig, request_id: str, prompt: str) -> None:
    """The session continues after its request was aborted."""
    num_sessions = len(rig.sessions)
    rig.finish()
    rig.check_done()
    rig.turn(request_id, prompt)
    assert len(rig.requests[request_id].output_token_ids) == 8
    assert len(rig.sessions) == num_sessions


# Aborts.


@is_ahead
def test_abort_amid_prefill_frees_its_blocks(make_rig: RigMaker, is_ahead: bool) -> None:
    rig = make_rig(50, max_num_batched_tokens=32, max_num_seqs=8, is_ahead=is_ahead)
    rig.send("1", "abcdefgh")
    rig.step()
    rig.step()
    assert 0 < rig.requests["1"].num_computed_tokens < 8 * 16
    rig.abort("1")
    rig.check()
    _resumes(rig, "2", "abcdefghi")


@is_ahead
def test_abort_amid_decode_keeps_computed_blocks(make_rig: RigMaker, is_ahead: bool) -> None:
    rig = make_rig(50, is_ahead=is_ahead)
    rig.send("1", "abcd", num_outputs=100)
    for _ in range(20):
        rig.step()
    rig.abort("1")
    rig.check()
    assert rig.num_cached("abcd") == 4
    _resumes(rig, "2", "abcde")


def test_abort_of_a_waiting_request_leaves_nothing(make_rig: RigMaker) -> None:
    rig = make_rig(50, max_num_seqs=1)
    rig.send("1", "abcd", num_outputs=20)
    rig.step()
    rig.send("2", "wxyz")
    rig.step()
    rig.abort("2")
    rig.check()
    assert rig.scheduler.get_request_counts() == (1, 0)
    _resumes(rig, "3", "wxyz")


def test_abort_of_a_queued_request_leaves_nothing(make_rig: RigMaker) -> None:
    rig = make_rig(12)
    rig.send("1", "abcdefgh", num_outputs=30)
    rig.step()
    rig.send("2", "stuvwxyz")
    rig.step()
    assert not rig.scheduler.waiting and len(rig.scheduler.waiting) == 1
    rig.abort("2")
    rig.check()
    assert rig.scheduler.get_request_counts() == (1, 0)
    _resumes(rig, "3", "stuvwxyz")


def test_abort_of_all_requests_leaves_an_idle_engine(make_rig: RigMaker) -> None:
    rig = make_rig(12)
    for number in range(6):
        rig.send(str(number), f"ab{number}cde", num_outputs=30)
    rig.step()
    rig.abort("0")
    for number in range(6):
        rig.abort(str(number))
    rig.check()
    assert rig.scheduler.get_request_counts() == (0, 0)
    assert not rig.scheduler.has_unfinished_requests()


def test_abort_after_preemption_leaves_nothing(make_rig: RigMaker) -> None:
    rig = _crowded(make_rig(18))
    preempted = next(r for r in rig.requests.values() if r.num_preemptions and not r.is_finished())
    rig.abort(preempted.request_id)
    rig.check()
    rig.finish()


# Preemption.


def _crowded(rig: Rig) -> Rig:
    """Three requests whose answers outgrow the cache, stepped until one is preempted."""
    for number in range(3):
        rig.send(str(number), f"{number}ab", num_outputs=110)
    for _ in range(200):
        rig.step()
        rig.check()
        if any(request.num_preemptions for request in rig.requests.values()):
            return rig
    raise AssertionError("nothing was preempted")


@is_ahead
def test_preempted_requests_finish(make_rig: RigMaker, is_ahead: bool) -> None:
    rig = _crowded(make_rig(18, is_ahead=is_ahead))
    rig.finish()
    assert [len(request.output_token_ids) for request in rig.requests.values()] == [110] * 3


def test_preempted_request_admitted_before_new_ones(make_rig: RigMaker) -> None:
    rig = _crowded(make_rig(18))
    preempted = next(r for r in rig.requests.values() if r.num_preemptions)
    rig.send("new", "uvwxyz", num_outputs=110)
    while preempted.request_id not in {r.request_id for r in rig.scheduler.running}:
        assert "new" not in rig.started
        rig.step()


# Prefix-cache reset.


def test_reset_between_turns_forgets_paths_and_sessions(rig: Rig) -> None:
    rig.turn("1", "abcd")
    assert rig.scheduler.reset_prefix_cache()
    rig.check()
    assert len(rig.scheduler._runtime.tree) == 0
    before = rig.num_computed_tokens
    rig.turn("2", "abcde", num_outputs=1)
    assert rig.num_computed_tokens - before == 5 * 16 + 4
    assert [session.num_turns for session in rig.sessions] == [1]


def test_reset_refused_while_a_request_runs(rig: Rig) -> None:
    first = rig.turn("1", "abcd")
    rig.send("2", rig.following(first, "e"), num_outputs=20)
    rig.step()
    assert not rig.scheduler.reset_prefix_cache()
    rig.check()
    rig.finish()
    assert [session.num_turns for session in rig.sessions] == [2]


def test_waiting_requests_run_after_a_reset(rig: Rig) -> None:
    rig.turn("1", "abcd")
    rig.send("2", "abcde")
    rig.send("3", "wxyz", session_id="s")
    assert rig.scheduler.reset_prefix_cache()
    rig.check()
    rig.finish()
    assert len(rig.sessions) == 2


@is_ahead
def test_requests_preempted_by_a_reset_finish(make_rig: RigMaker, is_ahead: bool) -> None:
    rig = make_rig(20, is_ahead=is_ahead)
    rig.turn("0", "opqr")
    for number in range(1, 5):
        rig.send(str(number), f"{number}abcdef", num_outputs=40)
    for _ in range(5):
        rig.step()
    assert rig.scheduler.running and len(rig.scheduler.waiting)
    assert rig.scheduler.reset_prefix_cache(reset_running_requests=True)
    rig.check()
    rig.finish()
    assert {len(rig.requests[str(n)].output_token_ids) for n in range(1, 5)} == {40}


def test_learned_return_times_survive_a_reset(rig: Rig) -> None:
    rig.turn("1", "abcd")
    rig.turn("2", "abcde")
    num_observed = rig.scheduler._runtime.returns.num_observed
    assert rig.scheduler.reset_prefix_cache()
    assert num_observed and rig.scheduler._runtime.returns.num_observed == num_observed


@pytest.mark.parametrize("settings", [{"eviction": "lru"}, {"admission": "fcfs"}])
def test_eviction_and_admission_work_alone(make_rig: RigMaker, settings: dict[str, object]) -> None:
    rig = make_rig(14, settings=settings)
    for number in range(5):
        rig.send(str(number), f"ab{number}cd", num_outputs=40)
    for _ in range(10):
        rig.step()
        rig.check()
    assert rig.scheduler.reset_prefix_cache(reset_running_requests=True)
    rig.finish()
